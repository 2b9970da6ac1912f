//! A name as a person sees it.
//!
//! A name is bytes that somebody else may have chosen: a terminal obeys some of them, others turn a line around, end it or leave
//! no trace in it, and some are no text at all. Names and paths that are to be shown go through [`Shown`], which leaves what can be
//! read as it is and writes the rest out as a shell and a programmer would: `\n`, `\x1b`, `\u{202e}`, `\xe9`. A backslash is
//! two, so that no two names are shown alike.
//!
//! What it is not: a rule of which names there may be ([`super::printable`]).

use std::fmt;

/// A name or a path, ready to be shown. `{}` is as it is, `{:?}` has it in quotation marks.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Shown(String);

impl Shown {
    /// How these bytes are shown.
    pub fn of(name: impl AsRef<[u8]>) -> Shown {
        let mut shown = String::new();
        for chunk in name.as_ref().utf8_chunks() {
            push_text(&mut shown, chunk.valid(), true);
            for byte in chunk.invalid() {
                shown += &format!("\\x{byte:02x}");
            }
        }
        Shown(shown)
    }

    /// How a text is shown that has been put together already, of names that were shown and of our own words: as by [`Shown::of`], but
    /// that a backslash stays one.
    pub fn unseen_only(text: &str) -> Shown {
        let mut shown = String::new();
        push_text(&mut shown, text, false);
        Shown(shown)
    }

    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Whether a character does something else than to be seen: it steers the terminal or the line, or nobody sees it.
///
/// Beside the control characters these are, of Unicode's general category Cf, those that set the direction, join, or have no width; the
/// separators of lines and of paragraphs; and tags.
pub fn is_unseen(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{ad}'
                | '\u{61c}'
                | '\u{180e}'
                | '\u{200b}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{feff}'
                | '\u{fff9}'..='\u{fffb}'
                | '\u{e0000}'..='\u{e0fff}'
        )
}

fn push_text(shown: &mut String, text: &str, is_name: bool) {
    let mut before = ' ';
    for c in text.chars() {
        // Persian and the scripts of India are spelt with the joiners, and pictures of several people are put together by one. Between
        // other letters they are there to be overlooked.
        let is_spelling = matches!(c, '\u{200c}' | '\u{200d}') && !before.is_ascii() && !is_unseen(before);
        match c {
            '\\' if is_name => *shown += "\\\\",
            c if is_spelling || !is_unseen(c) => shown.push(c),
            '\t' | '\n' | '\r' => shown.extend(c.escape_default()),
            c if u32::from(c) < 0x80 => *shown += &format!("\\x{:02x}", u32::from(c)),
            c => shown.extend(c.escape_unicode()),
        }
        before = c;
    }
}

impl fmt::Display for Shown {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(&self.0)
    }
}

impl fmt::Debug for Shown {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "\"{}\"", self.0.replace('"', "\\\""))
    }
}

impl From<&str> for Shown {
    fn from(name: &str) -> Shown {
        Shown::of(name)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_can_be_read_stays_and_the_rest_is_written_out() {
        for (name, shown) in [
            (&b"notes/today 2.txt"[..], "notes/today 2.txt"),
            ("Ärger/日本　語 – “so”".as_bytes(), "Ärger/日本　語 – “so”"),
            ("می\u{200c}خواهم 👨\u{200d}👩".as_bytes(), "می\u{200c}خواهم 👨\u{200d}👩"),
            (b"caf\xe9/x", "caf\\xe9/x"),
            (b"a\x1b[2J\nb\t\x7f", "a\\x1b[2J\\nb\\t\\x7f"),
            ("gpj.\u{202e}exe\u{9b}2J".as_bytes(), "gpj.\\u{202e}exe\\u{9b}2J"),
            ("ad\u{200d}min\u{200b}".as_bytes(), "ad\\u{200d}min\\u{200b}"),
            (b"a\\x1b", "a\\\\x1b"),
            (b"", ""),
        ] {
            assert_eq!(Shown::of(name).to_string(), shown);
        }
        assert_eq!(format!("{:?}", Shown::of("a \"b\"\n")), "\"a \\\"b\\\"\\n\"");
        assert_eq!(format!("{:>4}|{:<4}|", Shown::of("a"), Shown::of("a")), "   a|a   |");
    }

    proptest! {
        #[test]
        fn nothing_that_a_terminal_obeys_comes_through(name: Vec<u8>, text in "\\PC*|[\n\u{1b}\u{85}\u{200f}\u{202e}\u{2028}a]*") {
            for shown in [Shown::of(&name), Shown::of(&text)] {
                let is_unseen = |c: char| is_unseen(c) && !matches!(c, '\u{200c}' | '\u{200d}');
                prop_assert!(!shown.as_str().contains(is_unseen), "{}", shown);
            }
        }

        #[test]
        fn two_names_that_differ_are_shown_so(a in "[\\\\xne0-9\n\u{e9}]{0,6}", b in "[\\\\xne0-9\n\u{e9}]{0,6}") {
            prop_assert_eq!(a == b, Shown::of(&a) == Shown::of(&b));
        }
    }
}
