//! The heads of requests and responses: bytes to meaning and back, with no socket near.
//!
//! `httparse` finds the parts; here is what makes a head safe to act on. Two servers that read the same bytes
//! differently can be played against each other (request smuggling), so whatever RFC 9112 lets a lenient reader
//! repair is refused: folded lines, bare line feeds, space before a colon, repeated or listed lengths, a length
//! beside a transfer coding, any coding but `chunked` alone.
//!
//! A head is parsed into buffers that are used again for the next one. It is copied there once, so that the
//! connection's read buffer is free for the body while a handler still looks at the head.
//!
//! What it is not: the body ([`super::BodyDecoder`]), routing, or any decision about a connection.

mod request;
mod response;

use std::mem::MaybeUninit;

use http::StatusCode;

pub use self::request::{RequestHead, write_request_line};
pub use self::response::{ResponseHead, write_status_line};
use super::headers::{Field, Headers};

/// How much of a head is taken in before it is refused.
#[derive(Clone, Copy, Debug)]
pub struct HeadLimits {
    /// Bytes of the request or status line.
    pub line_bytes: usize,
    /// Bytes of the whole head.
    pub head_bytes: usize,
    /// Header fields; more than [`HEADERS_MAX`] are never taken.
    pub headers: usize,
}

/// More header fields than any limit allows: they are parsed into an array on a coroutine's small stack. Browsers
/// send some 20.
pub const HEADERS_MAX: usize = 128;

impl Default for HeadLimits {
    /// 8 KiB for the line (what RFC 9112 section 3 asks every server to support), 32 KiB for the head (large
    /// cookies), 100 fields.
    fn default() -> HeadLimits {
        HeadLimits { line_bytes: 8 << 10, head_bytes: 32 << 10, headers: 100 }
    }
}

/// How the end of a body is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// There is none.
    Empty,
    /// So many bytes.
    Length(u64),
    /// Chunks, then trailers.
    Chunked,
    /// Whatever comes until the connection ends; responses only.
    UntilClose,
}

/// Why a head was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HeadError {
    /// Not HTTP, or HTTP with what the standard forbids.
    #[error("the head is malformed: {0}")]
    Malformed(&'static str),
    /// The request line is longer than [`HeadLimits::line_bytes`].
    #[error("the request line is too long")]
    LineTooLong,
    /// The head is longer than [`HeadLimits::head_bytes`].
    #[error("the head is too long")]
    HeadTooLong,
    /// There are more fields than [`HeadLimits::headers`].
    #[error("the head has too many fields")]
    TooManyHeaders,
    /// Neither HTTP/1.0 nor HTTP/1.1.
    #[error("the version of HTTP is not supported")]
    Version,
    /// The body is in a transfer coding other than `chunked`.
    #[error("the transfer coding is not supported")]
    Coding,
    /// The client expects something that is not defined.
    #[error("the expectation is not known")]
    Expectation,
}

impl HeadError {
    /// What a server answers.
    pub fn status(self) -> StatusCode {
        match self {
            HeadError::Malformed(_) => StatusCode::BAD_REQUEST,
            HeadError::LineTooLong => StatusCode::URI_TOO_LONG,
            HeadError::HeadTooLong | HeadError::TooManyHeaders => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            HeadError::Version => StatusCode::HTTP_VERSION_NOT_SUPPORTED,
            HeadError::Coding => StatusCode::NOT_IMPLEMENTED,
            HeadError::Expectation => StatusCode::EXPECTATION_FAILED,
        }
    }

    fn from_parser(error: httparse::Error) -> HeadError {
        HeadError::Malformed(match error {
            httparse::Error::HeaderName => "a header's name",
            httparse::Error::HeaderValue => "a header's value",
            httparse::Error::NewLine => "a line end",
            httparse::Error::Status => "the status",
            httparse::Error::Token => "the method or the target",
            httparse::Error::TooManyHeaders => return HeadError::TooManyHeaders,
            httparse::Error::Version => return HeadError::Version,
        })
    }
}

/// Where a search for the end of a head goes on: a head that trickles in is not searched again from its start.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct EndSearch {
    searched: usize,
}

impl EndSearch {
    /// Whether `bytes`, of which the beginning was given before, hold an empty line.
    pub(crate) fn found_in(&mut self, bytes: &[u8]) -> bool {
        // The empty line may straddle the border: three bytes before it are looked at again.
        let from = self.searched.saturating_sub(3);
        for at in memchr::memchr_iter(b'\n', &bytes[from..]) {
            let rest = &bytes[from + at + 1..];
            if rest.starts_with(b"\n") || rest.starts_with(b"\r\n") {
                return true;
            }
        }
        self.searched = bytes.len();
        false
    }
}

/// When to parse a head that comes in pieces: at once where it is complete, else each time that it has doubled. So a
/// head that can't be one is refused early, and one that comes byte by byte costs no more than a few parses.
#[derive(Debug, Default)]
struct Pieces {
    parsed: usize,
    search: EndSearch,
}

impl Pieces {
    fn is_worth_parsing(&mut self, bytes: &[u8]) -> bool {
        !bytes.is_empty() && (bytes.len() >= 2 * self.parsed || self.search.found_in(bytes))
    }

    fn on_incomplete(&mut self, bytes: &[u8]) {
        self.parsed = bytes.len();
    }

    fn clear(&mut self) {
        *self = Pieces::default();
    }
}

type RawHeaders<'b> = [MaybeUninit<httparse::Header<'b>>; HEADERS_MAX];

const fn raw_headers<'b>() -> RawHeaders<'b> {
    [const { MaybeUninit::uninit() }; HEADERS_MAX]
}

/// What `parse` returns when the head is not all there: an error if it never can be.
fn incomplete(buffer: &[u8], limits: &HeadLimits) -> Result<Option<usize>, HeadError> {
    let line = &buffer[..buffer.len().min(limits.line_bytes)];
    if buffer.len() > limits.line_bytes && memchr::memchr(b'\n', line).is_none() {
        return Err(HeadError::LineTooLong);
    }
    if buffer.len() >= limits.head_bytes {
        return Err(HeadError::HeadTooLong);
    }
    Ok(None)
}

/// Checks what the parser lets pass: the limits, and line feeds that no carriage return precedes.
fn check_lines(head: &[u8], fields: usize, limits: &HeadLimits) -> Result<(), HeadError> {
    if head.len() > limits.head_bytes {
        return Err(HeadError::HeadTooLong);
    }
    if fields > limits.headers {
        return Err(HeadError::TooManyHeaders);
    }
    let mut first = true;
    for at in memchr::memchr_iter(b'\n', head) {
        if at == 0 || head[at - 1] != b'\r' {
            return Err(HeadError::Malformed("a bare line feed"));
        }
        if std::mem::take(&mut first) && at > limits.line_bytes {
            return Err(HeadError::LineTooLong);
        }
    }
    Ok(())
}

/// What the fields of a head say of the message as a whole.
#[derive(Default)]
struct Facts {
    length: Option<u64>,
    chunked: bool,
    close: bool,
    keep_alive: bool,
    host: Option<Field>,
    expects_continue: bool,
}

/// Copies the head and its fields' places into `headers`, and gathers what they say.
fn take(headers: &mut Headers, head: &[u8], raw: &[httparse::Header<'_>]) -> Result<Facts, HeadError> {
    headers.clear();
    headers.block.extend_from_slice(head);
    headers.fields.reserve(raw.len());
    let base = head.as_ptr() as usize;
    let place = |bytes: &[u8]| {
        let start = (bytes.as_ptr() as usize).wrapping_sub(base) as u32;
        // An empty value may be a constant of the parser's own, elsewhere in memory.
        if bytes.is_empty() { (0, 0) } else { (start, start + bytes.len() as u32) }
    };
    let mut facts = Facts::default();
    for header in raw {
        let field = Field { name: place(header.name.as_bytes()), value: place(header.value) };
        headers.fields.push(field);
        facts.on_field(field, header.name, header.value)?;
    }
    if facts.chunked && facts.length.is_some() {
        return Err(HeadError::Malformed("both a length and a transfer coding"));
    }
    Ok(facts)
}

impl Facts {
    fn on_field(&mut self, field: Field, name: &str, value: &[u8]) -> Result<(), HeadError> {
        // By length first: most fields are none of these.
        match name.len() {
            4 if name.eq_ignore_ascii_case("host") => {
                once(self.host.replace(field).is_none(), "more than one Host")?;
            }
            6 if name.eq_ignore_ascii_case("expect") => {
                if !value.eq_ignore_ascii_case(b"100-continue") {
                    return Err(HeadError::Expectation);
                }
                self.expects_continue = true;
            }
            10 if name.eq_ignore_ascii_case("connection") => {
                for option in value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
                    self.close |= option.eq_ignore_ascii_case(b"close");
                    self.keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
                }
            }
            14 if name.eq_ignore_ascii_case("content-length") => {
                let length = parse_length(value).ok_or(HeadError::Malformed("the Content-Length"))?;
                once(self.length.replace(length).is_none(), "more than one Content-Length")?;
            }
            17 if name.eq_ignore_ascii_case("transfer-encoding") => {
                once(!self.chunked, "more than one Transfer-Encoding")?;
                if !value.eq_ignore_ascii_case(b"chunked") {
                    let mut codings = value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
                    return Err(match codings.any(|coding| coding.eq_ignore_ascii_case(b"chunked")) {
                        true => HeadError::Malformed("chunked among other transfer codings"),
                        false => HeadError::Coding,
                    });
                }
                self.chunked = true;
            }
            _ => {}
        }
        Ok(())
    }

    fn is_kept_alive(&self, minor: u8) -> bool {
        !self.close && (minor == 1 || self.keep_alive)
    }
}

fn once(first: bool, problem: &'static str) -> Result<(), HeadError> {
    if first { Ok(()) } else { Err(HeadError::Malformed(problem)) }
}

/// Digits and nothing else: no sign, no space, no list, no overflow.
fn parse_length(value: &[u8]) -> Option<u64> {
    if value.is_empty() {
        return None;
    }
    value.iter().try_fold(0_u64, |length, byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        length.checked_mul(10)?.checked_add(digit)
    })
}
