//! Whether a client needs to be sent what it asks for: entity tags, dates, and RFC 9110's order of questions.
//!
//! Pure: it is given what is stored and what was asked, and decides.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::Method;

use super::Headers;

/// Names a version of a resource.
///
/// # Examples
///
/// ```
/// use reactor::http::ETag;
///
/// let tag = ETag::strong("v1").unwrap();
/// assert_eq!(tag.to_string(), "\"v1\"");
/// assert!(tag.matches_weakly(&ETag::weak("v1").unwrap()));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ETag {
    weak: bool,
    opaque: String,
}

impl ETag {
    /// A tag that changes with every byte; `None` if `opaque` holds a quote, a space or a control character.
    pub fn strong(opaque: impl Into<String>) -> Option<ETag> {
        let opaque = opaque.into();
        opaque.bytes().all(is_tag_byte).then_some(ETag { weak: false, opaque })
    }

    /// A tag that versions share which serve the same purpose; `None` as [`ETag::strong`].
    pub fn weak(opaque: impl Into<String>) -> Option<ETag> {
        ETag::strong(opaque).map(|tag| ETag { weak: true, ..tag })
    }

    /// Both strong, and the same (RFC 9110 section 8.8.3.2).
    pub fn matches_strongly(&self, other: &ETag) -> bool {
        !self.weak && !other.weak && self.opaque == other.opaque
    }

    /// The same, be they weak or not.
    pub fn matches_weakly(&self, other: &ETag) -> bool {
        self.opaque == other.opaque
    }

    /// Takes one tag from the beginning of `text`, and what follows it.
    fn parse(text: &str) -> Option<(ETag, &str)> {
        let (weak, rest) = match text.strip_prefix("W/") {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let (opaque, rest) = rest.strip_prefix('"')?.split_once('"')?;
        opaque.bytes().all(is_tag_byte).then(|| (ETag { weak, opaque: opaque.to_owned() }, rest))
    }
}

impl fmt::Display for ETag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\"{}\"", if self.weak { "W/" } else { "" }, self.opaque)
    }
}

fn is_tag_byte(byte: u8) -> bool {
    matches!(byte, 0x21 | 0x23..=0x7e | 0x80..=0xff)
}

/// What is known of the stored version.
#[derive(Clone, Debug, Default)]
pub struct Validators {
    /// Its name.
    pub etag: Option<ETag>,
    /// When it was last changed.
    pub last_modified: Option<SystemTime>,
}

/// What the client's conditions come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// Do what was asked.
    Proceed,
    /// 304: the client has it.
    NotModified,
    /// 412: it is not what the client takes it for.
    Failed,
}

/// Evaluates the conditions of a request for something that exists.
///
/// What is not well-formed does not count, as if the field were not there; a list with a malformed tag in it counts
/// as far as it goes.
///
/// # Source
///
/// RFC 9110 sections 13.1 and 13.2.2.
pub fn evaluate(method: &Method, headers: &Headers, stored: &Validators) -> Condition {
    let reads = method == Method::GET || method == Method::HEAD;
    let modified = stored.last_modified.map(whole_seconds);
    if headers.contains("if-match") {
        let matches = tags_match(headers, "if-match", stored, ETag::matches_strongly);
        if !matches {
            return Condition::Failed;
        }
    } else if let (Some(date), Some(modified)) = (date_of(headers, "if-unmodified-since"), modified)
        && modified > date
    {
        return Condition::Failed;
    }
    if headers.contains("if-none-match") {
        if tags_match(headers, "if-none-match", stored, ETag::matches_weakly) {
            return if reads { Condition::NotModified } else { Condition::Failed };
        }
    } else if reads
        && let (Some(date), Some(modified)) = (date_of(headers, "if-modified-since"), modified)
        && modified <= date
    {
        return Condition::NotModified;
    }
    Condition::Proceed
}

/// Whether a range of the stored version is of use to the client: `If-Range`, if there is one, names it exactly.
pub(super) fn range_applies(headers: &Headers, stored: &Validators) -> bool {
    let Some(value) = headers.get_str("if-range") else { return !headers.contains("if-range") };
    match ETag::parse(value) {
        Some((tag, "")) => stored.etag.as_ref().is_some_and(|etag| etag.matches_strongly(&tag)),
        Some(_) => false,
        None => match (httpdate::parse_http_date(value), stored.last_modified) {
            (Ok(date), Some(modified)) => whole_seconds(modified) == date,
            _ => false,
        },
    }
}

fn tags_match(
    headers: &Headers,
    name: &str,
    stored: &Validators,
    matches: impl Fn(&ETag, &ETag) -> bool,
) -> bool {
    for value in headers.get_all(name) {
        let Ok(mut text) = std::str::from_utf8(value) else { continue };
        if text.trim() == "*" {
            return true;
        }
        // Not split at commas: a tag may hold one.
        loop {
            text = text.trim_start_matches([' ', '\t', ',']);
            let Some((tag, rest)) = ETag::parse(text) else { break };
            if stored.etag.as_ref().is_some_and(|etag| matches(etag, &tag)) {
                return true;
            }
            text = rest;
        }
    }
    false
}

fn date_of(headers: &Headers, name: &str) -> Option<SystemTime> {
    httpdate::parse_http_date(headers.get_str(name)?).ok()
}

/// HTTP's dates know no fractions.
fn whole_seconds(time: SystemTime) -> SystemTime {
    match time.duration_since(UNIX_EPOCH) {
        Ok(since) => UNIX_EPOCH + Duration::from_secs(since.as_secs()),
        Err(_) => UNIX_EPOCH,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEFORE: &str = "Sun, 06 Nov 1994 08:49:36 GMT";
    const THEN: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    const AFTER: &str = "Sun, 06 Nov 1994 08:49:38 GMT";

    fn stored() -> Validators {
        let modified = httpdate::parse_http_date(THEN).unwrap() + Duration::from_millis(700);
        Validators { etag: ETag::strong("a,b"), last_modified: Some(modified) }
    }

    fn headers(fields: &[(&str, &str)]) -> Headers {
        let mut headers = Headers::new();
        for (name, value) in fields {
            headers.push(name, value).unwrap();
        }
        headers
    }

    #[test]
    fn conditions_are_asked_in_the_order_of_the_standard() {
        use Condition::{Failed, NotModified, Proceed};
        for (method, fields, expected) in [
            ("GET", &[][..], Proceed),
            ("GET", &[("If-None-Match", "\"a,b\"")], NotModified),
            ("GET", &[("If-None-Match", "\"x\", W/\"a,b\"")], NotModified),
            ("GET", &[("If-None-Match", "\"x\""), ("If-None-Match", "\"a,b\"")], NotModified),
            ("HEAD", &[("If-None-Match", "*")], NotModified),
            ("PUT", &[("If-None-Match", "*")], Failed),
            ("GET", &[("If-None-Match", "\"x\"")], Proceed),
            ("GET", &[("If-None-Match", "a,b")], Proceed),
            // The tag decides, and the date no longer counts.
            ("GET", &[("If-None-Match", "\"x\""), ("If-Modified-Since", AFTER)], Proceed),
            ("GET", &[("If-Modified-Since", THEN)], NotModified),
            ("GET", &[("If-Modified-Since", BEFORE)], Proceed),
            ("POST", &[("If-Modified-Since", AFTER)], Proceed),
            ("GET", &[("If-Modified-Since", "yesterday")], Proceed),
            ("PUT", &[("If-Match", "\"a,b\"")], Proceed),
            ("PUT", &[("If-Match", "*")], Proceed),
            ("PUT", &[("If-Match", "W/\"a,b\"")], Failed),
            ("PUT", &[("If-Match", "\"x\"")], Failed),
            ("PUT", &[("If-Match", "\"a,b\""), ("If-Unmodified-Since", BEFORE)], Proceed),
            ("PUT", &[("If-Unmodified-Since", BEFORE)], Failed),
            ("PUT", &[("If-Unmodified-Since", THEN)], Proceed),
            ("GET", &[("If-Match", "\"x\""), ("If-None-Match", "\"a,b\"")], Failed),
        ] {
            let method = Method::from_bytes(method.as_bytes()).unwrap();
            assert_eq!(evaluate(&method, &headers(fields), &stored()), expected, "{method} {fields:?}");
        }
    }

    #[test]
    fn a_range_applies_only_to_the_very_version_that_if_range_names() {
        for (value, expected) in [
            ("\"a,b\"", true),
            ("W/\"a,b\"", false),
            ("\"x\"", false),
            (THEN, true),
            (AFTER, false),
            ("garbage", false),
        ] {
            assert_eq!(range_applies(&headers(&[("If-Range", value)]), &stored()), expected, "{value}");
        }
        assert!(range_applies(&Headers::new(), &stored()));
        let weak = Validators { etag: ETag::weak("v"), last_modified: None };
        assert!(!range_applies(&headers(&[("If-Range", "W/\"v\"")]), &weak));
    }

    #[test]
    fn a_tag_holds_no_quote_and_no_line_end() {
        for bad in ["a\"b", "a b", "a\r\n", "\u{7f}"] {
            assert_eq!(ETag::strong(bad), None);
        }
    }
}
