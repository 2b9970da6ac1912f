//! A header's value with parameters: `form-data; name="a"; filename="b"`. Pure.

use crate::http::headers::is_token;

/// More than any honest value has.
const PARAMETERS_MAX: usize = 16;

/// What stands before the first semicolon, and the parameters after it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Parameters {
    /// In lower case.
    pub(super) kind: String,
    /// Names in lower case, each once, with their values.
    values: Vec<(String, String)>,
}

impl Parameters {
    /// `None` where it is malformed, or a parameter stands there twice, of which two readers would take different ones.
    pub(super) fn parse(text: &str) -> Option<Parameters> {
        let kind_end = text.find(';').unwrap_or(text.len());
        let (kind, mut rest) = text.split_at(kind_end);
        let kind = kind.trim_matches([' ', '\t']).to_ascii_lowercase();
        let mut values: Vec<(String, String)> = Vec::new();
        while !rest.is_empty() {
            rest = rest.strip_prefix(';')?.trim_start_matches([' ', '\t']);
            if rest.is_empty() || rest.starts_with(';') {
                continue;
            }
            let (name, after) = rest.split_once('=')?;
            let name = name.to_ascii_lowercase();
            if name.is_empty() || !name.bytes().all(is_token) || values.len() == PARAMETERS_MAX {
                return None;
            }
            let (value, after) = match after.strip_prefix('"') {
                Some(quoted) => unquote(quoted)?,
                None => {
                    let end = after.bytes().position(|byte| !is_token(byte)).unwrap_or(after.len());
                    (after[..end].to_owned(), &after[end..])
                }
            };
            if values.iter().any(|(known, _)| *known == name) {
                return None;
            }
            values.push((name, value));
            rest = after.trim_start_matches([' ', '\t']);
        }
        Some(Parameters { kind, values })
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.values.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

/// The text up to the closing quote, and what follows that. A backslash stands for itself but before a quote or another
/// backslash: some send whole paths of Windows.
fn unquote(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Some((value, &text[at + 1..])),
            '\\' if text[at + 1..].starts_with(['"', '\\']) => {
                value.extend(characters.next().map(|(_, escaped)| escaped));
            }
            _ => value.push(character),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_read_quoted_or_not() {
        let read = Parameters::parse(r#"Form-Data ; Name=a; filename="C:\dir\a \"b\" \\.txt";"#).unwrap();
        assert_eq!(read.kind, "form-data");
        assert_eq!(read.get("name"), Some("a"));
        assert_eq!(read.get("filename"), Some(r#"C:\dir\a "b" \.txt"#));
        assert_eq!(read.get("other"), None);
        assert_eq!(Parameters::parse("text/plain").unwrap().kind, "text/plain");
    }

    #[test]
    fn what_can_be_read_in_two_ways_is_not_read() {
        for bad in ["a; name", "a; =b", "a; n=\"open", "a; n=b c", "a; n=b; N=c", "a; n m=b", "a; n=\"b\"c"] {
            assert_eq!(Parameters::parse(bad), None, "{bad}");
        }
        let many: String = (0..=PARAMETERS_MAX).map(|number| format!("; p{number}=1")).collect();
        assert_eq!(Parameters::parse(&format!("a{many}")), None);
    }
}
