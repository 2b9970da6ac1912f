//! Any stored value as text that people can read, without knowing its type.

use std::fmt;

use super::envelope::split;
use super::scan::{Fault, Token, next};
use super::{DEPTH_MAX, SIZE_BYTES_MAX};

/// Of a longer text, only so many characters are shown.
const TEXT_CHARS_MAX: usize = 200;

/// Of a longer byte string, only so many bytes are shown.
const BYTES_MAX: usize = 40;

/// Of a longer array or map, only so many elements are shown.
const ELEMENTS_MAX: u64 = 1_000;

/// Of a larger value, only so many tokens are shown in all: a screenful of screens.
const TOKENS_MAX: usize = 10_000;

/// Shows any MessagePack value, or any envelope ([`super::Versioned`]), as text much like JSON.
///
/// Byte strings are hexadecimal between `h'` and `'`; what is left out for its length is told by number. Control and
/// formatting characters are escaped, so nothing shown can play tricks on a terminal. The text's length is bounded,
/// whatever the bytes; damage is shown where it is met, behind what was still readable. Extensions show as `ext`.
///
/// # Examples
///
/// ```
/// use reactor::serialization::{to_bytes, view};
/// let bytes = to_bytes(&(1, "two", [3.5], None::<u8>));
/// assert_eq!(view(&bytes).to_string(), r#"[1, "two", [3.5], null]"#);
/// assert_eq!(view(&bytes[..5]).to_string(), r#"[1, <damaged at byte 2: cut off>"#);
/// ```
pub fn view(bytes: &[u8]) -> impl fmt::Display + '_ {
    View(bytes)
}

struct View<'a>(&'a [u8]);

/// An array or a map that is being shown.
struct Open {
    is_map: bool,
    shown: u64,
    count: u64,
}

impl fmt::Display for View<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = match split(self.0) {
            Some(Ok((header, content))) => {
                write!(f, "{} v{} ", header.type_name.escape_debug(), header.version)?;
                content
            }
            Some(Err(_)) => {
                return write!(f, "<damaged envelope>{}", View(self.0.get(4..).unwrap_or_default()));
            }
            None => self.0,
        };
        if self.0.len() > SIZE_BYTES_MAX {
            return write!(f, "<{} bytes: too long to show>", self.0.len());
        }
        let result = value(f, &mut rest);
        match result? {
            Ok(()) if rest.is_empty() => Ok(()),
            Ok(()) => write!(f, " <{} bytes behind the value>", rest.len()),
            Err(fault) => {
                let reason = match fault {
                    Fault::Truncated => "cut off",
                    Fault::Reserved => "no MessagePack",
                    Fault::TooDeep => "nested too deep",
                };
                write!(f, "<damaged at byte {}: {reason}>", self.0.len() - rest.len())
            }
        }
    }
}

/// Shows one value and takes it off `rest`; at a fault, `rest` begins there.
fn value(f: &mut fmt::Formatter<'_>, rest: &mut &[u8]) -> Result<Result<(), Fault>, fmt::Error> {
    let mut open: Vec<Open> = Vec::new();
    for token_count in 0.. {
        if let Some(level) = open.last() {
            match (level.is_map, level.shown) {
                (_, 0) => {}
                (true, shown) if shown % 2 == 1 => f.write_str(": ")?,
                _ => f.write_str(", ")?,
            }
            if token_count > TOKENS_MAX || level.shown >= ELEMENTS_MAX {
                let per_element = if level.is_map { 2 } else { 1 };
                write!(f, "<{} more>", (level.count - level.shown) / per_element)?;
                // What follows is not looked at: it is neither whole nor damaged as far as this tells.
                *rest = &[];
                for level in open.iter().rev() {
                    f.write_str(if level.is_map { "}" } else { "]" })?;
                }
                return Ok(Ok(()));
            }
        }
        let at = *rest;
        let token = match next(rest) {
            Ok(token) => token,
            Err(fault) => {
                *rest = at;
                return Ok(Err(fault));
            }
        };
        if let Some(level) = open.last_mut() {
            level.shown += 1;
        }
        let nested = match token {
            Token::Array(count) => Some(Open { is_map: false, shown: 0, count: count.into() }),
            Token::Map(count) => Some(Open { is_map: true, shown: 0, count: 2 * u64::from(count) }),
            token => {
                simple(f, token)?;
                None
            }
        };
        if let Some(level) = nested {
            f.write_str(if level.is_map { "{" } else { "[" })?;
            if level.count > 0 && open.len() == DEPTH_MAX {
                *rest = at;
                return Ok(Err(Fault::TooDeep));
            }
            open.push(level);
        }
        while let Some(level) = open.last()
            && level.shown == level.count
        {
            f.write_str(if level.is_map { "}" } else { "]" })?;
            open.pop();
        }
        if open.is_empty() {
            break;
        }
    }
    Ok(Ok(()))
}

fn simple(f: &mut fmt::Formatter<'_>, token: Token<'_>) -> fmt::Result {
    match token {
        Token::Nil => f.write_str("null"),
        Token::Bool(value) => write!(f, "{value}"),
        Token::Unsigned(value) => write!(f, "{value}"),
        Token::Signed(value) => write!(f, "{value}"),
        // With a point or an exponent, so that a float is seen to be one.
        Token::F32(value) => write!(f, "{value:?}"),
        Token::F64(value) => write!(f, "{value:?}"),
        Token::Text(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) => {
                f.write_str("\"")?;
                for character in text.chars().take(TEXT_CHARS_MAX) {
                    match character {
                        // Escaped in Rust's way only where JSON has no other.
                        '\'' => f.write_str("'")?,
                        character => write!(f, "{}", character.escape_debug())?,
                    }
                }
                f.write_str("\"")?;
                match text.chars().count().saturating_sub(TEXT_CHARS_MAX) {
                    0 => Ok(()),
                    more => write!(f, "<{more} more>"),
                }
            }
            Err(_) => {
                f.write_str("<no UTF-8> ")?;
                hexadecimal(f, bytes)
            }
        },
        Token::Bytes(bytes) => hexadecimal(f, bytes),
        Token::Extension(kind, bytes) => {
            write!(f, "ext {kind} ")?;
            hexadecimal(f, bytes)
        }
        Token::Array(_) | Token::Map(_) => unreachable!("shown by its elements"),
    }
}

fn hexadecimal(f: &mut fmt::Formatter<'_>, bytes: &[u8]) -> fmt::Result {
    f.write_str("h'")?;
    for byte in bytes.iter().take(BYTES_MAX) {
        write!(f, "{byte:02x}")?;
    }
    f.write_str("'")?;
    match bytes.len().saturating_sub(BYTES_MAX) {
        0 => Ok(()),
        more => write!(f, "<{more} more>"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serialization::to_bytes;
    use bytes::Bytes;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn show(bytes: &[u8]) -> String {
        view(bytes).to_string()
    }

    #[test]
    fn any_value_shows_as_text() {
        let map = BTreeMap::from([("b", vec![true, false]), ("a", vec![])]);
        let value = (-5, 1.0f32, "tab\there \"quoted\" it's ü", map, Bytes::from_static(&[0, 255]));
        let expected = r#"[-5, 1.0, "tab\there \"quoted\" it's ü", {"a": [], "b": [true, false]}, h'00ff']"#;
        assert_eq!(show(&to_bytes(&value)), expected);
        assert_eq!(show(&[0xd4, 5, 9]), "ext 5 h'09'");
        assert_eq!(show(&[0x80]), "{}");
        assert_eq!(show(&[0xa1, 0xff]), "<no UTF-8> h'ff'");
    }

    #[test]
    fn nothing_shown_can_play_tricks_on_a_terminal() {
        let text = "\u{1b}[2J\u{202e}\u{7}\0\r\n";
        let shown = show(&to_bytes(text));
        assert_eq!(shown, r#""\u{1b}[2J\u{202e}\u{7}\0\r\n""#);
    }

    #[test]
    fn a_long_value_is_shown_in_part_and_says_how_much_is_left_out() {
        assert!(show(&to_bytes(&"x".repeat(1000))).ends_with("x\"<800 more>"));
        assert!(show(&to_bytes(&Bytes::from(vec![7; 100]))).ends_with("07'<60 more>"));
        assert!(show(&to_bytes(&vec![1; 5000])).ends_with("1, <4000 more>]"));
        let wide = vec![vec![1; 900]; 900];
        let shown = show(&to_bytes(&wide));
        assert!(shown.ends_with(" more>]]") && shown.len() < 100_000, "{} characters", shown.len());
    }

    #[test]
    fn damage_is_shown_where_it_is_met() {
        assert_eq!(show(&[]), "<damaged at byte 0: cut off>");
        assert_eq!(show(&[0x92, 1, 0xc1, 0]), "[1, <damaged at byte 2: no MessagePack>");
        assert_eq!(show(&[1, 2, 3]), "1 <2 bytes behind the value>");
        assert_eq!(show(&[0xdd, 255, 255, 255, 255]), "<damaged at byte 0: cut off>");
        assert!(show(&[0x91; 1000]).ends_with("[<damaged at byte 48: nested too deep>"));
        assert!(show(&vec![0xc0; SIZE_BYTES_MAX + 1]).starts_with('<'));
    }

    proptest! {
        #[test]
        fn random_bytes_show_as_something_bounded(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
            let shown = show(&bytes);
            prop_assert!(shown.len() <= 100 + 60 * bytes.len(), "{}", shown.len());
            prop_assert!(!shown.is_empty());
        }
    }
}
