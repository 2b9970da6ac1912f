//! Where a body ends: the framing of HTTP/1.1, decoded and encoded, with no socket near.
//!
//! The decoder looks at bytes and says what the first of them are: framing to be passed over, data, or the end. It
//! copies nothing, so a reader hands the data out of its own buffer.
//!
//! Strict like the heads: a chunk's size is hexadecimal digits and nothing else, lines end in CR LF, extensions are
//! passed over but counted (a byte of data under a kilobyte of extensions is an attack), trailers that would change
//! the framing are refused.
//!
//! What it is not: a reader or writer (those are in [`super::BodyReader`] and the server), nor content codings.

use std::io;

use http::StatusCode;

use super::head::{EndSearch, Framing, HEADERS_MAX};
use super::headers::{Field, Headers, is_framing};

/// How much of a body is taken in before it is refused.
#[derive(Clone, Copy, Debug)]
pub struct BodyLimits {
    /// Bytes of data.
    pub size_bytes: u64,
    /// Bytes of all chunk extensions together.
    pub extensions_bytes: usize,
    /// Bytes of all trailers together.
    pub trailers_bytes: usize,
}

impl Default for BodyLimits {
    /// 64 MiB of data, 16 KiB of extensions (nobody is known to send any), 8 KiB of trailers (checksums,
    /// signatures).
    fn default() -> BodyLimits {
        BodyLimits { size_bytes: 64 << 20, extensions_bytes: 16 << 10, trailers_bytes: 8 << 10 }
    }
}

/// The longest line that begins a chunk: 16 digits for 64 bits, an extension of 1 KiB, and the line end.
const CHUNK_LINE_BYTES_MAX: usize = 16 + 1024 + 2;

/// What is wrong with a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BodyError {
    /// The chunks do not follow RFC 9112 section 7.1.
    #[error("the body is malformed: {0}")]
    Malformed(&'static str),
    /// It is longer than [`BodyLimits::size_bytes`].
    #[error("the body is too large")]
    TooLarge,
    /// Extensions or trailers are longer than their limits.
    #[error("the body's framing is too large")]
    FramingTooLarge,
    /// The connection ended before the body did.
    #[error("the connection ended within the body")]
    Truncated,
    /// It came more slowly than is borne.
    #[error("the body came too slowly")]
    TooSlow,
}

impl BodyError {
    /// What a server answers.
    pub fn status(self) -> StatusCode {
        match self {
            BodyError::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            BodyError::FramingTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            BodyError::Malformed(_) | BodyError::Truncated => StatusCode::BAD_REQUEST,
            BodyError::TooSlow => StatusCode::REQUEST_TIMEOUT,
        }
    }
}

impl From<BodyError> for io::Error {
    fn from(error: BodyError) -> io::Error {
        let kind = match error {
            BodyError::Truncated => io::ErrorKind::UnexpectedEof,
            BodyError::TooSlow => io::ErrorKind::TimedOut,
            _ => io::ErrorKind::InvalidData,
        };
        io::Error::new(kind, error)
    }
}

/// What the bytes that a [`BodyDecoder`] looked at are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// So many bytes are framing: pass over them, and call again with the rest.
    Framing(usize),
    /// So many bytes are data. Take some of them, and say how many with [`BodyDecoder::consume`].
    Data(usize),
    /// More bytes are needed to tell.
    NeedMore,
    /// The body has ended; what follows belongs to the next message.
    End,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Length(u64),
    UntilClose,
    ChunkSize,
    ChunkData(u64),
    ChunkEnd,
    Trailers,
    End,
}

/// Finds the data and the end of a body. After an error it is of no more use, and neither is the connection.
///
/// # Examples
///
/// ```
/// use reactor::http::{BodyDecoder, BodyLimits, Framing, Part};
///
/// let mut decoder = BodyDecoder::new(Framing::Chunked, BodyLimits::default());
/// assert_eq!(decoder.decode(b"3\r\nabc\r\n0\r\n\r\n"), Ok(Part::Framing(3)));
/// assert_eq!(decoder.decode(b"abc\r\n0\r\n\r\n"), Ok(Part::Data(3)));
/// decoder.consume(3);
/// assert_eq!(decoder.decode(b"\r\n0\r\n\r\n"), Ok(Part::Framing(2)));
/// assert_eq!(decoder.decode(b"0\r\n\r\n"), Ok(Part::Framing(3)));
/// assert_eq!(decoder.decode(b"\r\n"), Ok(Part::Framing(2)));
/// assert_eq!(decoder.decode(b""), Ok(Part::End));
/// ```
#[derive(Debug)]
pub struct BodyDecoder {
    state: State,
    limits: BodyLimits,
    taken: u64,
    extensions: usize,
    search: EndSearch,
    trailers: Headers,
}

impl BodyDecoder {
    /// A decoder at the beginning of a body.
    pub fn new(framing: Framing, limits: BodyLimits) -> BodyDecoder {
        let state = match framing {
            Framing::Empty | Framing::Length(0) => State::End,
            Framing::Length(length) => State::Length(length),
            Framing::Chunked => State::ChunkSize,
            Framing::UntilClose => State::UntilClose,
        };
        BodyDecoder {
            state,
            limits,
            taken: 0,
            extensions: 0,
            search: EndSearch::default(),
            trailers: Headers::new(),
        }
    }

    /// Says what the first bytes of `bytes` are. They must begin where the last answer's ended; after `NeedMore`
    /// they are the same ones and more.
    ///
    /// # Errors
    ///
    /// [`BodyError`], as soon as it is certain: a length beyond the limit is told before its data comes.
    pub fn decode(&mut self, bytes: &[u8]) -> Result<Part, BodyError> {
        let available = |left: u64| match left.min(bytes.len() as u64) as usize {
            0 => Part::NeedMore,
            count => Part::Data(count),
        };
        match self.state {
            State::End => Ok(Part::End),
            State::Length(left) => {
                self.admit(left)?;
                Ok(available(left))
            }
            State::ChunkData(left) => Ok(available(left)),
            State::UntilClose => {
                self.admit(bytes.len() as u64)?;
                Ok(available(u64::MAX))
            }
            State::ChunkSize => self.chunk_size(bytes),
            State::ChunkEnd => match bytes {
                [b'\r', b'\n', ..] => {
                    self.state = State::ChunkSize;
                    Ok(Part::Framing(2))
                }
                [] | [b'\r'] => Ok(Part::NeedMore),
                _ => Err(BodyError::Malformed("a chunk's end")),
            },
            State::Trailers => self.take_trailers(bytes),
        }
    }

    /// Tells that `count` of the bytes last answered as data have been taken.
    ///
    /// # Panics
    ///
    /// If that is more than there were.
    pub fn consume(&mut self, count: usize) {
        let count = count as u64;
        self.taken += count;
        self.state = match self.state {
            State::Length(left) if count == left => State::End,
            State::Length(left) => State::Length(left.checked_sub(count).expect("data that was answered")),
            State::ChunkData(left) if count == left => State::ChunkEnd,
            State::ChunkData(left) => {
                State::ChunkData(left.checked_sub(count).expect("data that was answered"))
            }
            State::UntilClose => State::UntilClose,
            other if count == 0 => other,
            _ => panic!("data was consumed where there was none"),
        };
    }

    /// Tells that the connection has ended, and nothing follows what was decoded.
    ///
    /// # Errors
    ///
    /// [`BodyError::Truncated`] if the body is not complete.
    pub fn on_end_of_stream(&mut self) -> Result<(), BodyError> {
        match self.state {
            State::UntilClose | State::End => {
                self.state = State::End;
                Ok(())
            }
            _ => Err(BodyError::Truncated),
        }
    }

    /// Whether the whole body has been decoded.
    pub fn is_at_end(&self) -> bool {
        self.state == State::End
    }

    /// How much data is still to come, where that is known.
    pub fn remaining(&self) -> Option<u64> {
        match self.state {
            State::Length(left) => Some(left),
            State::End => Some(0),
            _ => None,
        }
    }

    /// The fields that came after the chunks; empty until the end.
    pub fn trailers(&self) -> &Headers {
        &self.trailers
    }

    fn admit(&self, more: u64) -> Result<(), BodyError> {
        let total = self.taken.checked_add(more);
        if total.is_none_or(|total| total > self.limits.size_bytes) {
            Err(BodyError::TooLarge)
        } else {
            Ok(())
        }
    }

    fn chunk_size(&mut self, bytes: &[u8]) -> Result<Part, BodyError> {
        const ERROR: BodyError = BodyError::Malformed("a chunk's size");
        let mut size = 0_u64;
        let digits = bytes.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
        if digits > 16 {
            return Err(ERROR);
        }
        for byte in &bytes[..digits] {
            size = size << 4 | u64::from((*byte as char).to_digit(16).unwrap_or_default());
        }
        let line_size = match &bytes[digits..] {
            [] => return Ok(Part::NeedMore),
            _ if digits == 0 => return Err(ERROR),
            [b'\r'] => return Ok(Part::NeedMore),
            [b'\r', b'\n', ..] => digits + 2,
            [b';', rest @ ..] => {
                let window = &rest[..rest.len().min(CHUNK_LINE_BYTES_MAX)];
                let end = window.iter().position(|byte| *byte < b' ' && *byte != b'\t' || *byte == 0x7f);
                let length = end.unwrap_or(window.len());
                if self.extensions + length > self.limits.extensions_bytes || length >= CHUNK_LINE_BYTES_MAX {
                    return Err(BodyError::FramingTooLarge);
                }
                match end.map(|end| &window[end..]) {
                    None | Some([b'\r']) => return Ok(Part::NeedMore),
                    Some([b'\r', b'\n', ..]) => {}
                    Some(_) => return Err(BodyError::Malformed("a chunk's extension")),
                }
                self.extensions += length;
                digits + 1 + length + 2
            }
            _ => return Err(ERROR),
        };
        self.admit(size)?;
        self.state = if size == 0 { State::Trailers } else { State::ChunkData(size) };
        Ok(Part::Framing(line_size))
    }

    fn take_trailers(&mut self, bytes: &[u8]) -> Result<Part, BodyError> {
        const ERROR: BodyError = BodyError::Malformed("the trailers");
        if bytes.starts_with(b"\r\n") {
            self.state = State::End;
            return Ok(Part::Framing(2));
        }
        if bytes.starts_with(b"\n") {
            return Err(ERROR);
        }
        if !self.search.found_in(bytes) {
            if bytes.len() >= self.limits.trailers_bytes {
                return Err(BodyError::FramingTooLarge);
            }
            return Ok(Part::NeedMore);
        }
        let mut raw = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let (size, fields) = match httparse::parse_headers(bytes, &mut raw) {
            Ok(httparse::Status::Complete(parsed)) => parsed,
            _ => return Err(ERROR),
        };
        if size > self.limits.trailers_bytes {
            return Err(BodyError::FramingTooLarge);
        }
        let block = &bytes[..size];
        if memchr::memchr_iter(b'\n', block).any(|at| at == 0 || block[at - 1] != b'\r') {
            return Err(ERROR);
        }
        for field in fields {
            let name = field.name.as_bytes();
            if is_framing(name) || name.eq_ignore_ascii_case(b"host") || name.eq_ignore_ascii_case(b"trailer")
            {
                return Err(BodyError::Malformed("a trailer that may not be one"));
            }
            push(&mut self.trailers, name, field.value);
        }
        self.state = State::End;
        Ok(Part::Framing(size))
    }
}

fn push(headers: &mut Headers, name: &[u8], value: &[u8]) {
    let mut add = |bytes: &[u8]| {
        let start = headers.block.len() as u32;
        headers.block.extend_from_slice(bytes);
        (start, start + bytes.len() as u32)
    };
    let field = Field { name: add(name), value: add(value) };
    headers.fields.push(field);
}

/// Appends the line that goes before a chunk of `size` bytes, which must not be none: that would be the end.
///
/// After the data goes `\r\n`.
pub fn write_chunk_size(out: &mut Vec<u8>, size: usize) {
    debug_assert!(size > 0, "an empty chunk ends the body");
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digits = (usize::BITS - size.leading_zeros()).div_ceil(4);
    out.extend((0..digits).rev().map(|digit| DIGITS[size >> (4 * digit) & 15]));
    out.extend_from_slice(b"\r\n");
}

/// Appends what ends a chunked body.
pub fn write_last_chunk(out: &mut Vec<u8>, trailers: &Headers) {
    out.extend_from_slice(b"0\r\n");
    trailers.write(out);
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests;
