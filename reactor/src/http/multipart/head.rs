//! The head of a part: what it is called, and what it says of itself. Pure.

use percent_encoding::percent_decode_str;

use super::parameters::Parameters;
use super::{MultipartError, MultipartLimits};
use crate::http::{HEADERS_MAX, Headers};

/// The longest name that file systems take (`NAME_MAX`).
const FILE_NAME_BYTES_MAX: usize = 255;

/// The longest ending (`.tar.gz` has seven) that is kept when a name must be cut.
const ENDING_BYTES_MAX: usize = 16;

/// What stands before a part's data.
#[derive(Clone, Debug, PartialEq)]
pub struct PartHead {
    name: String,
    sent_file_name: Option<String>,
    file_name: Option<String>,
    headers: Headers,
}

impl PartHead {
    /// Reads a head, with the empty line that ends it.
    pub(super) fn parse(block: &[u8], limits: &MultipartLimits) -> Result<PartHead, MultipartError> {
        const MALFORMED: MultipartError = MultipartError::Malformed("the head of a part");
        if block.len() > limits.head_bytes {
            return Err(MultipartError::HeadTooLarge);
        }
        let mut raw = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let fields = match httparse::parse_headers(block, &mut raw) {
            Ok(httparse::Status::Complete((size, fields))) if size == block.len() => fields,
            Err(httparse::Error::TooManyHeaders) => return Err(MultipartError::HeadTooLarge),
            _ => return Err(MALFORMED),
        };
        if memchr::memchr_iter(b'\n', block).any(|at| at == 0 || block[at - 1] != b'\r') {
            return Err(MALFORMED);
        }
        let mut headers = Headers::new();
        for field in fields {
            // `Content-Length` says nothing here: the boundary does.
            if !crate::http::headers::is_framing(field.name.as_bytes()) {
                headers.push(field.name, field.value.trim_ascii()).map_err(|_| MALFORMED)?;
            }
        }
        PartHead::of(headers)
    }

    fn of(headers: Headers) -> Result<PartHead, MultipartError> {
        // Of a field that stands there twice two readers would take different ones.
        for name in ["Content-Type", "Content-Transfer-Encoding"] {
            if headers.get_all(name).count() > 1 {
                return Err(MultipartError::Malformed("a field of a part stands there twice"));
            }
        }
        // RFC 7578 section 4.3 has it away: who still unfolds it sees several files where we see the data of one.
        let kind = headers.get("Content-Type").unwrap_or_default();
        if kind.get(..15).is_some_and(|kind| kind.eq_ignore_ascii_case(b"multipart/mixed")) {
            return Err(MultipartError::Malformed("a part has parts of its own"));
        }
        let mut dispositions = headers.get_all("Content-Disposition");
        let (Some(disposition), None) = (dispositions.next(), dispositions.next()) else {
            return Err(MultipartError::Malformed("a part must have one Content-Disposition"));
        };
        let disposition = str::from_utf8(disposition)
            .map_err(|_| MultipartError::Malformed("the name of a part is not text of UTF-8"))?;
        let disposition = Parameters::parse(disposition)
            .filter(|parameters| parameters.kind == "form-data")
            .ok_or(MultipartError::Malformed("the Content-Disposition of a part"))?;
        // Nobody writes that, and who reads it would see another field.
        if disposition.get("name*").is_some() {
            return Err(MultipartError::Malformed("the name of a part stands in another way beside it"));
        }
        let name = disposition.get("name").ok_or(MultipartError::Malformed("a part must have a name"))?;
        let encoding = headers.get("Content-Transfer-Encoding").unwrap_or(b"binary");
        if ![&b"binary"[..], b"8bit", b"7bit"].iter().any(|known| encoding.eq_ignore_ascii_case(known)) {
            return Err(MultipartError::Malformed("a part is in a transfer encoding"));
        }
        // RFC 7578 has the extended one away; some still send nothing else, and .NET both: then they must be one name, or the
        // plain one is it in the form of RFC 2047, which can't be taken for a name of another kind.
        let plain = disposition.get("filename").map(unescape);
        let extended = disposition.get("filename*").map(decode_extended).transpose()?;
        let is_encoded = |name: &str| name.starts_with("=?") && name.ends_with("?=");
        let sent = match (plain, extended) {
            (Some(plain), Some(extended)) if plain == extended || is_encoded(&plain) => Some(extended),
            (Some(_), Some(_)) => {
                return Err(MultipartError::Malformed("a part gives its file two names"));
            }
            (plain, extended) => plain.or(extended),
        };
        let (name, file_name) = (unescape(name), sent.as_deref().and_then(safe_file_name));
        drop(dispositions);
        Ok(PartHead { name, sent_file_name: sent, file_name, headers })
    }

    /// The name of the form's field.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether it is a file, though it may be an empty one without a name: a browser sends that where none was chosen.
    pub fn is_file(&self) -> bool {
        self.sent_file_name.is_some()
    }

    /// The name of the file, made safe: one step of a path, without dots or spaces at its ends, control characters, and
    /// what turns the direction of text; 255 bytes at the most. `None` for what is no file, or if nothing is left of it.
    ///
    /// Others may send the same name: it says what to call the file, not where to put it.
    pub fn file_name(&self) -> Option<&str> {
        self.file_name.as_deref()
    }

    /// The name of the file as it was sent: it may be a path, or anything else.
    pub fn sent_file_name(&self) -> Option<&str> {
        self.sent_file_name.as_deref()
    }

    /// What its sender takes it for; `text/plain` if nothing is said (RFC 7578 section 4.4). It need not be so.
    pub fn content_type(&self) -> &str {
        self.headers.get_str("Content-Type").unwrap_or("text/plain")
    }

    /// All its fields.
    pub fn headers(&self) -> &Headers {
        &self.headers
    }
}

/// Reads what browsers write for what may not stand between quotes (the HTML standard, "multipart/form-data encoding
/// algorithm"); they leave every other percent sign as it is.
fn unescape(text: &str) -> String {
    match text.contains('%') {
        true => text.replace("%22", "\"").replace("%0D", "\r").replace("%0A", "\n"),
        false => text.to_owned(),
    }
}

/// Reads `UTF-8''...` (RFC 8187), in the one character set that matters.
fn decode_extended(value: &str) -> Result<String, MultipartError> {
    let malformed = MultipartError::Malformed("the file name of a part");
    let (set, rest) = value.split_once('\'').ok_or(malformed)?;
    let (_language, encoded) = rest.split_once('\'').ok_or(malformed)?;
    if !set.eq_ignore_ascii_case("utf-8") {
        return Err(malformed);
    }
    Ok(percent_decode_str(encoded).decode_utf8().map_err(|_| malformed)?.into_owned())
}

/// A name that is one step of a path and shows as what it is; `None` if nothing is left.
fn safe_file_name(sent: &str) -> Option<String> {
    let last = sent.rsplit(['/', '\\']).next().unwrap_or_default();
    // Turned text shows `exe.png` where `gnp.exe` is meant.
    let turns = |character: char| matches!(character, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let kept: String =
        last.chars().filter(|character| !character.is_control() && !turns(*character)).collect();
    let is_margin = |character: char| character == '.' || character.is_whitespace();
    let kept = kept.trim_matches(is_margin);
    if kept.is_empty() {
        return None;
    }
    if kept.len() <= FILE_NAME_BYTES_MAX {
        return Some(kept.to_owned());
    }
    let ending = kept.rfind('.').map(|at| &kept[at..]).filter(|ending| ending.len() <= ENDING_BYTES_MAX);
    let ending = ending.unwrap_or_default();
    let stem = &kept[..kept.floor_char_boundary(FILE_NAME_BYTES_MAX - ending.len())];
    // The cut may have come behind a dot.
    Some(format!("{stem}{ending}").trim_end_matches(is_margin).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(head: &str) -> Result<PartHead, MultipartError> {
        PartHead::parse(format!("{head}\r\n\r\n").as_bytes(), &MultipartLimits::default())
    }

    #[test]
    fn a_part_says_its_name_its_files_name_and_its_type() {
        let head = parse(
            "Content-Disposition: form-data; name=\"a%22b\"; filename=\"fünf.txt\"\r\nContent-Type: text/css",
        );
        let head = head.unwrap();
        assert_eq!((head.name(), head.file_name()), ("a\"b", Some("fünf.txt")));
        assert_eq!((head.content_type(), head.is_file()), ("text/css", true));
        let head = parse("content-disposition: form-data; name=x").unwrap();
        assert_eq!((head.name(), head.file_name(), head.content_type()), ("x", None, "text/plain"));
        assert!(!head.is_file());
        let head = parse("Content-Disposition: form-data; name=x; filename=\"\"").unwrap();
        assert!(head.is_file() && head.file_name().is_none(), "no file was chosen");
        let head = parse("Content-Disposition: form-data; name=x; filename*=UTF-8''na%C3%AFve.txt").unwrap();
        assert_eq!(head.file_name(), Some("naïve.txt"));
        // As .NET has it.
        for both in ["a.txt; filename*=utf-8''a.txt", "\"=?utf-8?B?w7w=?=\"; filename*=utf-8''%C3%BC"] {
            let head = parse(&format!("Content-Disposition: form-data; name=x; filename={both}")).unwrap();
            assert!(["a.txt", "ü"].contains(&head.file_name().unwrap()));
        }
    }

    #[test]
    fn a_head_that_others_could_read_differently_is_refused() {
        for bad in [
            "",
            "Content-Type: text/plain",
            "Content-Disposition: form-data",
            "Content-Disposition: attachment; name=a",
            "Content-Disposition: form-data; name=a; name=b",
            "Content-Disposition: form-data; name=a\r\nContent-Disposition: form-data; name=b",
            "Content-Disposition: form-data; name=a\nX: y",
            "Content-Disposition: form-data;\r\n name=a",
            "Content-Disposition: form-data; name=a\r\nContent-Transfer-Encoding: base64",
            "Content-Disposition: form-data; name=a; filename*=latin1''a",
            "Content-Disposition: form-data; name=a; filename=cat.png; filename*=UTF-8''run.php",
            "Content-Disposition: form-data; name=a\r\nContent-Type: Multipart/Mixed; boundary=c",
            "Content-Disposition: form-data; name=a\r\nContent-Type: image/png\r\nContent-Type: text/html",
            "Content-Disposition: form-data; name=a\r\nContent-Transfer-Encoding: binary\r\nContent-Transfer-Encoding: base64",
        ] {
            assert!(matches!(parse(bad), Err(MultipartError::Malformed(_))), "{bad:?}: {:?}", parse(bad));
        }
        let many = format!("Content-Disposition: form-data; name=a{}", "\r\nX: y".repeat(HEADERS_MAX));
        assert_eq!(parse(&many), Err(MultipartError::HeadTooLarge));
    }

    #[test]
    fn a_file_name_is_one_step_of_a_path_and_no_more() {
        for (sent, safe) in [
            ("cat.png", Some("cat.png")),
            ("../../etc/passwd", Some("passwd")),
            ("C:\\dir\\cat.png", Some("cat.png")),
            ("/etc/", None),
            ("..", None),
            (" . ", None),
            (".htaccess", Some("htaccess")),
            ("a\0b\r\n.txt", Some("ab.txt")),
            ("gnp\u{202e}exe.", Some("gnpexe")),
            ("gnp\u{200f}exe\u{61c}.\u{200e}", Some("gnpexe")),
            ("größe 1.txt ", Some("größe 1.txt")),
        ] {
            assert_eq!(safe_file_name(sent).as_deref(), safe, "{sent:?}");
        }
        let cut = safe_file_name(&format!("{}. {}", "a".repeat(253), "b".repeat(20))).unwrap();
        assert_eq!(cut, "a".repeat(253), "it would end in a dot and a space");
        let long = safe_file_name(&format!("{}.jpeg", "ü".repeat(300))).unwrap();
        assert!(long.len() <= FILE_NAME_BYTES_MAX && long.ends_with("ü.jpeg"), "{long}");
    }
}
