//! Parts of a resource: the `Range` field of a request, taken apart within bounds. Pure.

use std::ops::Range;

use super::Headers;

/// More ranges than this are an attack: video players ask for one, readers of PDF for a handful.
const RANGES_MAX: usize = 16;

/// What a `Range` field comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ranges {
    /// Nothing that we serve in parts: send the whole.
    Whole,
    /// 416: it lies behind the end.
    Unsatisfiable,
    /// Some parts, in the order they were asked for; none is empty, and together they are not longer than the whole.
    Parts(Vec<Range<u64>>),
}

/// Takes the field apart for a resource of `size` bytes.
///
/// What is malformed, in another unit, too many, or more together than the whole counts as not there, as RFC 9110
/// section 14.2 allows: that costs a client that means well nothing, and one that means harm its lever.
pub fn parse_ranges(headers: &Headers, size: u64) -> Ranges {
    let mut values = headers.get_all("range");
    let (Some(value), None) = (values.next(), values.next()) else { return Ranges::Whole };
    let Some(list) = std::str::from_utf8(value).ok().and_then(|value| value.strip_prefix("bytes=")) else {
        return Ranges::Whole;
    };
    let mut parts = Vec::new();
    for (index, item) in list.split(',').enumerate() {
        if index >= RANGES_MAX {
            return Ranges::Whole;
        }
        match parse_range(item.trim_matches([' ', '\t']), size) {
            Ok(Some(part)) => parts.push(part),
            Ok(None) => {}
            Err(()) => return Ranges::Whole,
        }
    }
    if parts.is_empty() {
        return Ranges::Unsatisfiable;
    }
    let total: u128 = parts.iter().map(|part| u128::from(part.end - part.start)).sum();
    if parts.len() > 1 && total > u128::from(size) { Ranges::Whole } else { Ranges::Parts(parts) }
}

/// One range; `None` if it lies outside.
fn parse_range(item: &str, size: u64) -> Result<Option<Range<u64>>, ()> {
    let number = |digits: &str| match digits.bytes().all(|byte| byte.is_ascii_digit()) {
        // More digits than fit mean more than there is.
        true => Ok(digits.parse().unwrap_or(u64::MAX)),
        false => Err(()),
    };
    let (first, last) = item.split_once('-').ok_or(())?;
    let range = match (first, last) {
        ("", "") => return Err(()),
        ("", suffix) => size.saturating_sub(number(suffix)?)..size,
        (first, "") => number(first)?..size,
        (first, last) => {
            let (first, last) = (number(first)?, number(last)?);
            if last < first {
                return Err(());
            }
            first..last.saturating_add(1).min(size)
        }
    };
    Ok((range.start < range.end).then_some(range))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranges(value: &str, size: u64) -> Ranges {
        let mut headers = Headers::new();
        headers.push("Range", value).unwrap();
        parse_ranges(&headers, size)
    }

    #[test]
    fn ranges_count_from_either_end_and_stop_at_the_end() {
        for (value, expected) in [
            ("bytes=0-0", 0..1),
            ("bytes=0-99", 0..100),
            ("bytes=0-1000000", 0..100),
            ("bytes=50-", 50..100),
            ("bytes=-1", 99..100),
            ("bytes=-1000", 0..100),
            ("bytes=10-18446744073709551615", 10..100),
            ("bytes=0-99999999999999999999999999", 0..100),
        ] {
            assert_eq!(ranges(value, 100), Ranges::Parts(std::iter::once(expected).collect()), "{value}");
        }
        assert_eq!(ranges("bytes=5-6, -3,200-", 100), Ranges::Parts(vec![5..7, 97..100]));
    }

    #[test]
    fn what_lies_behind_the_end_is_unsatisfiable_and_what_is_malformed_is_not_there() {
        for value in ["bytes=100-", "bytes=100-200", "bytes=-0", "bytes=200-,300-"] {
            assert_eq!(ranges(value, 100), Ranges::Unsatisfiable, "{value}");
        }
        for value in [
            "bytes=",
            "bytes=-",
            "bytes=a-b",
            "bytes=2-1",
            "lines=0-1",
            "bytes 0-1",
            "bytes=0",
            "bytes=+1-2",
            "bytes=0-1;",
        ] {
            assert_eq!(ranges(value, 100), Ranges::Whole, "{value}");
        }
        assert_eq!(ranges("bytes=0-", 0), Ranges::Unsatisfiable);
        assert_eq!(parse_ranges(&Headers::new(), 100), Ranges::Whole);
    }

    #[test]
    fn many_or_overlapping_ranges_are_not_served_in_parts() {
        let many = format!("bytes={}", "0-0,".repeat(17));
        assert_eq!(ranges(&many, 100), Ranges::Whole);
        assert_eq!(ranges("bytes=0-,0-,0-", 100), Ranges::Whole);
        assert_eq!(ranges("bytes=0-,0-", u64::MAX), Ranges::Whole, "however large it is");
    }
}
