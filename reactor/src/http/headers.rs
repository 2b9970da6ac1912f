//! A list of header fields, as it stands on the wire.
//!
//! One block of bytes and the places of the names and values in it: parsing a head allocates nothing once the
//! list has been used, and writing one is a single copy. `http::HeaderMap` would hash every name and allocate
//! for every value, which costs more than the rest of a small request.
//!
//! What it is not: a map. The order is kept, names may repeat, and looking one up goes through the list, which
//! is short: its length is bounded by [`super::HeadLimits`].

use std::fmt;

/// A header field that must not be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidHeader {
    /// The name is empty or holds anything but the token characters.
    #[error("a header's name must be made of letters, digits and !#$%&'*+-.^_`|~")]
    Name,
    /// The value holds a line end or another control character, or begins or ends with a space.
    #[error("a header's value must not hold control characters nor begin or end with white space")]
    Value,
    /// `Content-Length` and `Transfer-Encoding` follow from the body; nobody else may state them.
    #[error("the length of a body is stated by the library")]
    Framing,
}

/// The place of one field in the block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Field {
    pub(super) name: (u32, u32),
    pub(super) value: (u32, u32),
}

/// Header fields in order; names are compared without regard to case.
///
/// # Examples
///
/// ```
/// let mut headers = reactor::http::Headers::new();
/// headers.push("Cache-Control", "no-store").unwrap();
/// assert_eq!(headers.get("cache-control"), Some(&b"no-store"[..]));
/// assert!(headers.push("X-Name", "a\r\nSet-Cookie: b").is_err());
/// ```
#[derive(Clone, Default)]
pub struct Headers {
    pub(super) block: Vec<u8>,
    pub(super) fields: Vec<Field>,
}

impl Headers {
    /// An empty list; it allocates when something is added.
    pub const fn new() -> Headers {
        Headers { block: Vec::new(), fields: Vec::new() }
    }

    /// Adds a field after the others.
    ///
    /// # Errors
    ///
    /// [`InvalidHeader`], and nothing is added: no value can smuggle in another field or a body.
    pub fn push(&mut self, name: &str, value: impl AsRef<[u8]>) -> Result<(), InvalidHeader> {
        if is_framing(name.as_bytes()) {
            return Err(InvalidHeader::Framing);
        }
        self.push_any(name, value.as_ref())
    }

    /// As [`Headers::push`], for those who know the length of the body.
    pub(super) fn push_any(&mut self, name: &str, value: &[u8]) -> Result<(), InvalidHeader> {
        if name.is_empty() || !name.bytes().all(is_token) {
            return Err(InvalidHeader::Name);
        }
        if !is_value(value) {
            return Err(InvalidHeader::Value);
        }
        let name_start = self.block.len() as u32;
        self.block.extend_from_slice(name.as_bytes());
        let name_end = self.block.len() as u32;
        self.block.extend_from_slice(b": ");
        let value_start = self.block.len() as u32;
        self.block.extend_from_slice(value);
        let value_end = self.block.len() as u32;
        self.block.extend_from_slice(b"\r\n");
        self.fields.push(Field { name: (name_start, name_end), value: (value_start, value_end) });
        Ok(())
    }

    /// Puts `value` in the place of all fields of that name.
    ///
    /// # Errors
    ///
    /// As [`Headers::push`]; the list is unchanged then.
    pub fn set(&mut self, name: &str, value: impl AsRef<[u8]>) -> Result<(), InvalidHeader> {
        let mut rest = Headers::new();
        for (other, value) in self.iter().filter(|(other, _)| !other.eq_ignore_ascii_case(name)) {
            rest.push_any(other, value)?;
        }
        rest.push(name, value)?;
        *self = rest;
        Ok(())
    }

    /// The value of the first field of that name.
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.fields
            .iter()
            .find(|field| self.bytes(field.name).eq_ignore_ascii_case(name.as_bytes()))
            .map(|field| self.bytes(field.value))
    }

    /// As [`Headers::get`], where the value is text; `None` too where it is not.
    pub fn get_str(&self, name: &str) -> Option<&str> {
        self.get(name).and_then(|value| std::str::from_utf8(value).ok())
    }

    /// The values of all fields of that name, in order.
    pub fn get_all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> + 'a {
        self.fields
            .iter()
            .filter(move |field| self.bytes(field.name).eq_ignore_ascii_case(name.as_bytes()))
            .map(move |field| self.bytes(field.value))
    }

    /// The elements of a comma-separated list field, over all its lines, without white space around them.
    pub fn list<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> + 'a {
        self.get_all(name)
            .flat_map(|value| value.split(|byte| *byte == b','))
            .map(<[u8]>::trim_ascii)
            .filter(|element| !element.is_empty())
    }

    /// Whether a list field has `token` among its elements, without regard to case.
    pub fn has_token(&self, name: &str, token: &str) -> bool {
        self.list(name).any(|element| element.eq_ignore_ascii_case(token.as_bytes()))
    }

    /// Whether there is a field of that name.
    pub fn contains(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// All fields, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> + '_ {
        // A name is made of token characters, which are ASCII: it was checked on its way in.
        self.fields.iter().map(|field| {
            (std::str::from_utf8(self.bytes(field.name)).unwrap_or_default(), self.bytes(field.value))
        })
    }

    /// How many fields there are.
    pub fn len(&self) -> usize {
        self.fields.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }

    /// As a map of the `http` crate, for code that is made for it.
    ///
    /// # Errors
    ///
    /// Where that crate is stricter than we; no header that came off the wire is known to be refused.
    pub fn to_map(&self) -> Result<http::HeaderMap, http::Error> {
        let mut map = http::HeaderMap::with_capacity(self.len());
        for (name, value) in self.iter() {
            map.append(http::HeaderName::from_bytes(name.as_bytes())?, http::HeaderValue::from_bytes(value)?);
        }
        Ok(map)
    }

    /// Forgets all fields and keeps the memory.
    pub fn clear(&mut self) {
        self.block.clear();
        self.fields.clear();
    }

    /// Appends all fields to `out` as they go on the wire, without the empty line after them.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        for (name, value) in self.iter() {
            write_field(out, name, value);
        }
    }

    pub(super) fn bytes(&self, (start, end): (u32, u32)) -> &[u8] {
        &self.block[start as usize..end as usize]
    }
}

impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map()
            .entries(self.iter().map(|(name, value)| (name, value.escape_ascii().to_string())))
            .finish()
    }
}

impl PartialEq for Headers {
    fn eq(&self, other: &Headers) -> bool {
        self.len() == other.len()
            && self.iter().zip(other.iter()).all(|((name, value), (other_name, other_value))| {
                name.eq_ignore_ascii_case(other_name) && value == other_value
            })
    }
}

/// Appends one field that is known to be good.
pub(super) fn write_field(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

pub(super) fn is_framing(name: &[u8]) -> bool {
    name.eq_ignore_ascii_case(b"content-length") || name.eq_ignore_ascii_case(b"transfer-encoding")
}

/// RFC 9110 section 5.6.2.
pub(super) fn is_token(byte: u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' | b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*'
        | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~')
}

/// RFC 9110 section 5.5: no control characters but the tab, and no white space at either end.
pub(super) fn is_value(value: &[u8]) -> bool {
    let blank = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    !blank(value.first())
        && !blank(value.last())
        && value.iter().all(|byte| matches!(byte, b'\t' | 0x20..=0x7e | 0x80..=0xff))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_header_can_be_injected() {
        let mut headers = Headers::new();
        for value in ["a\r\nB: c", "a\nB: c", "a\rB: c", "a\0", "\u{7f}", " a", "a ", "\ta"] {
            assert_eq!(headers.push("X", value), Err(InvalidHeader::Value), "{value:?}");
        }
        for name in ["", "A B", "A:", "A\r\n", "Ä", "A\0", "(", " A"] {
            assert_eq!(headers.push(name, "v"), Err(InvalidHeader::Name), "{name:?}");
        }
        for name in ["Content-Length", "content-length", "Transfer-Encoding", "TRANSFER-ENCODING"] {
            assert_eq!(headers.push(name, "1"), Err(InvalidHeader::Framing));
        }
        assert!(headers.is_empty() && headers.block.is_empty());
    }

    #[test]
    fn names_are_found_whatever_their_case_and_lists_over_all_lines() {
        let mut headers = Headers::new();
        headers.push("Accept", "a, b").unwrap();
        headers.push("Host", "h").unwrap();
        headers.push("ACCEPT", " c".trim()).unwrap();
        assert_eq!(headers.get_all("accept").collect::<Vec<_>>(), [&b"a, b"[..], b"c"]);
        assert_eq!(headers.list("accept").collect::<Vec<_>>(), [b"a", b"b", b"c"]);
        assert!(headers.has_token("accept", "B") && !headers.has_token("accept", "ab"));
        headers.set("accept", "d").unwrap();
        assert_eq!(headers.len(), 2);
        assert_eq!(headers.get_str("Accept"), Some("d"));
        let mut out = Vec::new();
        headers.write(&mut out);
        assert_eq!(out, b"Host: h\r\naccept: d\r\n");
        assert_eq!(headers.to_map().unwrap()["host"], "h");
    }

    use proptest::prelude::*;

    proptest! {
        /// Whatever is let in comes out of a parser as it went in, and as nothing else.
        #[test]
        fn what_may_be_written_is_read_back(
            fields in proptest::collection::vec((any::<String>(), any::<Vec<u8>>()), 0..20),
            plain in proptest::collection::vec(("[a-zA-Z-]{1,9}", "[ -~]{0,20}"), 0..20),
        ) {
            let mut headers = Headers::new();
            let plain = plain.into_iter().map(|(name, value)| (name, value.into_bytes()));
            for (name, value) in fields.into_iter().chain(plain) {
                let _ = headers.push(&format!("X{name}"), &value);
            }
            let mut wire = Vec::new();
            crate::http::write_request_line(&mut wire, &::http::Method::GET, "/").unwrap();
            wire.extend_from_slice(b"Host: h\r\n");
            headers.write(&mut wire);
            wire.extend_from_slice(b"\r\n");
            let mut head = crate::http::RequestHead::new();
            let size = head.parse(&wire, &crate::http::HeadLimits::default());
            prop_assert_eq!(size, Ok(Some(wire.len())));
            let mut expected = Headers::new();
            expected.push("Host", "h").unwrap();
            for (name, value) in headers.iter() {
                expected.push(name, value).unwrap();
            }
            prop_assert_eq!(head.headers(), &expected);
        }
    }
}
