//! Where the parts of a multipart body begin and end: RFC 2046 section 5.1.1, with no reader near. Pure.
//!
//! As [`super::super::BodyDecoder`] it looks at bytes, says what the first of them are, and copies no data. Data is given
//! as soon as it cannot be the beginning of a boundary, so that at most that much waits for more.

use memchr::memmem::Finder;

use super::parameters::Parameters;
use super::{MultipartError, MultipartLimits, PartHead};
use crate::http::head::EndSearch;

/// RFC 2046 section 5.1.1.
const BOUNDARY_BYTES_MAX: usize = 70;

/// White space after a boundary, which gateways of mail may have added: nobody is known to send any.
const PADDING_BYTES_MAX: usize = 64;

/// What the bytes that a [`MultipartDecoder`] looked at are.
#[derive(Clone, Debug, PartialEq)]
pub enum MultipartPiece {
    /// So many bytes are neither a head nor data: pass over them, and call again with the rest.
    Framing(usize),
    /// A part begins, and so many bytes are its head.
    Head(Box<PartHead>, usize),
    /// So many bytes are the part's data. Take some of them, and say how many with [`MultipartDecoder::consume`].
    Data(usize),
    /// The part has ended, and so many bytes are framing.
    PartEnd(usize),
    /// More bytes are needed to tell.
    NeedMore,
    /// The form has ended. What follows is to be ignored.
    End,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Nothing was seen yet: the first boundary may stand here.
    Start,
    Preamble,
    /// Behind a boundary.
    Boundary,
    Head,
    /// So many bytes are known to be data.
    Data(usize),
    /// Behind the last boundary: its line ends here, or the body does.
    Closing,
    End,
}

/// Finds the parts of a form. After an error it is of no more use.
#[derive(Debug)]
pub struct MultipartDecoder {
    /// CR LF, two dashes and the boundary.
    delimiter: Finder<'static>,
    limits: MultipartLimits,
    state: State,
    part_count: usize,
    preamble_bytes: usize,
    data_bytes: u64,
    search: EndSearch,
}

impl MultipartDecoder {
    /// A decoder at the beginning of a body whose `Content-Type` is this.
    ///
    /// # Errors
    ///
    /// [`MultipartError::Malformed`] when it is none of a form, or names no boundary.
    pub fn new(content_type: &str, limits: MultipartLimits) -> Result<MultipartDecoder, MultipartError> {
        let parameters = Parameters::parse(content_type)
            .filter(|parameters| parameters.kind == "multipart/form-data")
            .ok_or(MultipartError::Malformed("its type is not multipart/form-data"))?;
        let boundary = parameters
            .get("boundary")
            .filter(|boundary| is_boundary(boundary.as_bytes()))
            .ok_or(MultipartError::Malformed("its type must name a boundary"))?;
        Ok(MultipartDecoder {
            delimiter: Finder::new(format!("\r\n--{boundary}").as_bytes()).into_owned(),
            limits,
            state: State::Start,
            part_count: 0,
            preamble_bytes: 0,
            data_bytes: 0,
            search: EndSearch::default(),
        })
    }

    /// Says what the first bytes of `bytes` are. They must begin where the last answer's ended; after `NeedMore` they are
    /// the same ones and more.
    ///
    /// # Errors
    ///
    /// [`MultipartError`], as soon as it is certain.
    pub fn decode(&mut self, bytes: &[u8]) -> Result<MultipartPiece, MultipartError> {
        match self.state {
            State::Start => {
                // The line end before it is there only if something else is, too.
                let delimiter = &self.delimiter.needle()[2..];
                if bytes.starts_with(delimiter) {
                    self.state = State::Boundary;
                    return Ok(MultipartPiece::Framing(delimiter.len()));
                }
                if delimiter.starts_with(bytes) {
                    return Ok(MultipartPiece::NeedMore);
                }
                self.state = State::Preamble;
                self.preamble(bytes)
            }
            State::Preamble => self.preamble(bytes),
            State::Boundary => self.boundary(bytes),
            State::Head => self.head(bytes),
            State::Data(known) if known > 0 => Ok(MultipartPiece::Data(known)),
            State::Data(_) => self.data(bytes),
            State::Closing => self.closing(bytes),
            State::End => Ok(MultipartPiece::End),
        }
    }

    /// Tells that `count` of the bytes last answered as data have been taken.
    ///
    /// # Panics
    ///
    /// If that is more than there were.
    pub fn consume(&mut self, count: usize) {
        self.state = match self.state {
            State::Data(known) => State::Data(known.checked_sub(count).expect("data that was answered")),
            other if count == 0 => other,
            _ => panic!("data was consumed where there was none"),
        };
    }

    /// Tells that the body ends with what was decoded last as [`MultipartPiece::NeedMore`].
    ///
    /// # Errors
    ///
    /// [`MultipartError::Truncated`] if the last boundary has not come.
    pub fn finish(&mut self) -> Result<(), MultipartError> {
        match self.is_at_end() {
            true => {
                self.state = State::End;
                Ok(())
            }
            false => Err(MultipartError::Truncated),
        }
    }

    /// Whether the last boundary has been decoded.
    pub fn is_at_end(&self) -> bool {
        matches!(self.state, State::Closing | State::End)
    }

    fn preamble(&mut self, bytes: &[u8]) -> Result<MultipartPiece, MultipartError> {
        let (count, found) = match self.delimiter.find(bytes) {
            Some(at) => (at + self.delimiter.needle().len(), true),
            None => (bytes.len() - self.beginning_at_end(bytes), false),
        };
        self.preamble_bytes += count;
        if self.preamble_bytes > self.limits.head_bytes {
            return Err(MultipartError::Malformed("it does not begin with its boundary"));
        }
        if found {
            self.state = State::Boundary;
        }
        Ok(if count == 0 { MultipartPiece::NeedMore } else { MultipartPiece::Framing(count) })
    }

    fn boundary(&mut self, bytes: &[u8]) -> Result<MultipartPiece, MultipartError> {
        if bytes.starts_with(b"--") {
            self.state = State::Closing;
            return Ok(MultipartPiece::Framing(2));
        }
        let padding = bytes.iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
        match &bytes[padding..] {
            [b'\r', b'\n', ..] if padding <= PADDING_BYTES_MAX => {
                if self.part_count == self.limits.parts {
                    return Err(MultipartError::TooManyParts);
                }
                self.part_count += 1;
                self.search = EndSearch::default();
                self.state = State::Head;
                Ok(MultipartPiece::Framing(padding + 2))
            }
            [] | [b'\r'] if padding <= PADDING_BYTES_MAX => Ok(MultipartPiece::NeedMore),
            [b'-'] if padding == 0 => Ok(MultipartPiece::NeedMore),
            _ => Err(MultipartError::Malformed("what follows a boundary")),
        }
    }

    /// A line that goes on behind the last boundary is none of them, and who reads on there would find other parts.
    fn closing(&mut self, bytes: &[u8]) -> Result<MultipartPiece, MultipartError> {
        let padding = bytes.iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
        match &bytes[padding..] {
            [b'\r', b'\n', ..] if padding <= PADDING_BYTES_MAX => {
                self.state = State::End;
                Ok(MultipartPiece::Framing(padding + 2))
            }
            [] | [b'\r'] if padding <= PADDING_BYTES_MAX => Ok(MultipartPiece::NeedMore),
            _ => Err(MultipartError::Malformed("what follows the last boundary")),
        }
    }

    fn head(&mut self, bytes: &[u8]) -> Result<MultipartPiece, MultipartError> {
        // A part without any field begins with the empty line.
        if bytes.starts_with(b"\r\n") || bytes.starts_with(b"\n") {
            return Err(MultipartError::Malformed("a part must have one Content-Disposition"));
        }
        if !self.search.found_in(bytes) {
            return match bytes.len() >= self.limits.head_bytes {
                true => Err(MultipartError::HeadTooLarge),
                false => Ok(MultipartPiece::NeedMore),
            };
        }
        let end = memchr::memmem::find(bytes, b"\r\n\r\n");
        let size = end.ok_or(MultipartError::Malformed("the head of a part"))? + 4;
        let head = PartHead::parse(&bytes[..size], &self.limits)?;
        self.data_bytes = 0;
        self.state = State::Data(0);
        Ok(MultipartPiece::Head(Box::new(head), size))
    }

    fn data(&mut self, bytes: &[u8]) -> Result<MultipartPiece, MultipartError> {
        let count = match self.delimiter.find(bytes) {
            Some(0) => {
                self.state = State::Boundary;
                return Ok(MultipartPiece::PartEnd(self.delimiter.needle().len()));
            }
            Some(at) => at,
            None => bytes.len() - self.beginning_at_end(bytes),
        };
        if count == 0 {
            return Ok(MultipartPiece::NeedMore);
        }
        self.data_bytes += count as u64;
        if self.data_bytes > self.limits.part_bytes {
            return Err(MultipartError::PartTooLarge);
        }
        self.state = State::Data(count);
        Ok(MultipartPiece::Data(count))
    }

    /// How many bytes at the end of `bytes`, which hold no delimiter, may be the beginning of one.
    fn beginning_at_end(&self, bytes: &[u8]) -> usize {
        let delimiter = self.delimiter.needle();
        let from = bytes.len().saturating_sub(delimiter.len() - 1);
        let begins = |at: &usize| delimiter.starts_with(&bytes[from + at..]);
        memchr::memchr_iter(b'\r', &bytes[from..]).find(begins).map_or(0, |at| bytes.len() - from - at)
    }
}

/// Whether it is one by RFC 2046 section 5.1.1.
fn is_boundary(boundary: &[u8]) -> bool {
    (1..=BOUNDARY_BYTES_MAX).contains(&boundary.len())
        && boundary.iter().all(|byte| byte.is_ascii_alphanumeric() || b"'()+_,-./:=? ".contains(byte))
        && boundary.last() != Some(&b' ')
}

#[cfg(test)]
mod tests {
    use super::*;

    const TYPE: &str = "multipart/form-data; boundary=b";

    /// Names with data, fed in steps of `step` bytes.
    fn decode(
        wire: &[u8],
        step: usize,
        limits: MultipartLimits,
    ) -> Result<Vec<(String, Vec<u8>)>, MultipartError> {
        let mut decoder = MultipartDecoder::new(TYPE, limits)?;
        let (mut at, mut end, mut parts) = (0, 0, Vec::<(String, Vec<u8>)>::new());
        loop {
            match decoder.decode(&wire[at..end])? {
                MultipartPiece::Framing(count) | MultipartPiece::PartEnd(count) => at += count,
                MultipartPiece::Head(head, count) => {
                    parts.push((head.name().to_owned(), Vec::new()));
                    at += count;
                }
                MultipartPiece::Data(count) => {
                    parts.last_mut().unwrap().1.extend_from_slice(&wire[at..at + count]);
                    decoder.consume(count);
                    at += count;
                }
                MultipartPiece::NeedMore if end == wire.len() => decoder.finish()?,
                MultipartPiece::NeedMore => end = wire.len().min(end + step),
                MultipartPiece::End => return Ok(parts),
            }
        }
    }

    fn at_every_step(wire: &[u8]) -> Result<Vec<(String, Vec<u8>)>, MultipartError> {
        let whole = decode(wire, wire.len(), MultipartLimits::default());
        for step in 1..9 {
            assert_eq!(decode(wire, step, MultipartLimits::default()), whole, "in steps of {step}");
        }
        whole
    }

    fn part(name: &str, data: &str) -> String {
        format!("--b\r\nContent-Disposition: form-data; name={name}\r\n\r\n{data}\r\n")
    }

    #[test]
    fn parts_are_found_however_the_bytes_come() {
        let data = "\r\n--a\r\n-\r\r\n--\r\n";
        let wire = format!("{}{}{}--b--\r\nrest", part("x", "1"), part("empty", ""), part("odd", data));
        let parts = at_every_step(wire.as_bytes()).unwrap();
        let expected = [("x", "1"), ("empty", ""), ("odd", data)];
        let expected: Vec<_> =
            expected.map(|(name, data)| (name.to_owned(), data.as_bytes().to_vec())).into();
        assert_eq!(parts, expected);
        for end in ["--b--", "--b--\r\n", "--b-- \t", "--b-- \t\r\nwhatever\r\n--b--x"] {
            assert_eq!(at_every_step(end.as_bytes()), Ok(vec![]), "a form without a part");
        }
        assert_eq!(
            at_every_step(b"preamble\r\n--b \t\r\nContent-Disposition: form-data; name=a\r\n\r\n1\r\n--b--")
                .unwrap()
                .len(),
            1
        );
    }

    #[test]
    fn what_is_no_form_is_refused_however_the_bytes_come() {
        for bad in [
            "--b\r\n\r\ndata\r\n--b--",
            "--b\nContent-Disposition: form-data; name=a\n\n1\n--b--",
            "--b\r\nContent-Disposition: form-data; name=a\r\n\r\n1\r\n--bc\r\n--b--",
            "--b\r\nContent-Disposition: form-data; name=a\r\n\r\n1\r\n--b-",
            "--b\r\nContent-Disposition: form-data; name=a\r\n\r\n1",
            "--b--b",
            "--b--x\r\n",
            "--b--\n--b\r\nContent-Disposition: form-data; name=a\r\n\r\n1\r\n--b--",
            "--b",
            "",
        ] {
            assert!(at_every_step(bad.as_bytes()).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn every_limit_is_kept() {
        let limits = MultipartLimits { parts: 2, head_bytes: 100, part_bytes: 10 };
        let decode = |wire: &str| decode(wire.as_bytes(), 7, limits);
        let two = part("a", "0123456789") + &part("b", "");
        assert!(decode(&format!("{two}--b--")).is_ok());
        assert_eq!(decode(&format!("{two}{}--b--", part("c", ""))), Err(MultipartError::TooManyParts));
        assert_eq!(decode(&part("a", "0123456789x")), Err(MultipartError::PartTooLarge));
        assert_eq!(decode(&part(&"n".repeat(100), "")), Err(MultipartError::HeadTooLarge));
        assert!(matches!(decode(&"x".repeat(200)), Err(MultipartError::Malformed(_))));
    }

    #[test]
    fn a_boundary_is_one_by_the_standard() {
        let new = |text: &str| MultipartDecoder::new(text, MultipartLimits::default()).is_ok();
        assert!(new("Multipart/Form-Data; charset=utf-8; boundary=\"a b:c\""));
        for bad in [
            "multipart/form-data",
            "multipart/form-data; boundary=",
            "multipart/form-data; boundary=\"a \"",
            "multipart/form-data; boundary=\"a\\\"\"",
            "multipart/mixed; boundary=a",
        ] {
            assert!(!new(bad), "{bad}");
        }
        assert!(!new(&format!("multipart/form-data; boundary={}", "a".repeat(71))));
    }
}
