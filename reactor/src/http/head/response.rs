//! The head of a response.

use http::{Method, StatusCode};

use super::{Framing, HeadError, HeadLimits, Pieces, check_lines, incomplete, raw_headers, take};
use crate::http::Headers;

/// A parsed response head; its memory is used again by the next [`ResponseHead::parse`].
///
/// # Source
///
/// RFC 9112 sections 4 and 6.3.
///
/// # Examples
///
/// ```
/// use http::Method;
/// use reactor::http::{Framing, HeadLimits, ResponseHead};
///
/// let mut head = ResponseHead::new();
/// let bytes = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
/// assert_eq!(head.parse(bytes, &HeadLimits::default()), Ok(Some(bytes.len() - 5)));
/// assert_eq!(head.framing(&Method::GET), Framing::Length(5));
/// assert_eq!(head.framing(&Method::HEAD), Framing::Empty);
/// ```
#[derive(Debug)]
pub struct ResponseHead {
    status: StatusCode,
    minor: u8,
    framing: Framing,
    keep_alive: bool,
    headers: Headers,
    pieces: Pieces,
}

impl Default for ResponseHead {
    fn default() -> ResponseHead {
        ResponseHead::new()
    }
}

impl ResponseHead {
    /// An empty head.
    pub fn new() -> ResponseHead {
        ResponseHead {
            status: StatusCode::OK,
            minor: 1,
            framing: Framing::Empty,
            keep_alive: false,
            headers: Headers::new(),
            pieces: Pieces::default(),
        }
    }

    /// Parses the head at the beginning of `buffer`; its size in bytes, or `None` if it is not all there yet.
    ///
    /// Interim responses (1xx) are heads of their own: parse on after them, unless it is 101.
    ///
    /// # Errors
    ///
    /// [`HeadError`]: close the connection.
    pub fn parse(&mut self, buffer: &[u8], limits: &HeadLimits) -> Result<Option<usize>, HeadError> {
        if !self.pieces.is_worth_parsing(buffer) {
            return incomplete(buffer, limits);
        }
        let mut raw = raw_headers();
        let mut response = httparse::Response::new(&mut []);
        let status = httparse::ParserConfig::default()
            .parse_response_with_uninit_headers(&mut response, buffer, &mut raw)
            .map_err(HeadError::from_parser)?;
        let httparse::Status::Complete(size) = status else {
            self.pieces.on_incomplete(buffer);
            return incomplete(buffer, limits);
        };
        self.pieces.clear();
        let head = &buffer[..size];
        check_lines(head, response.headers.len(), limits)?;
        let facts = take(&mut self.headers, head, response.headers)?;
        let code = response.code.unwrap_or_default();
        self.status = StatusCode::from_u16(code).map_err(|_| HeadError::Malformed("the status"))?;
        if code >= 600 {
            return Err(HeadError::Malformed("the status"));
        }
        self.minor = response.version.unwrap_or_default();
        if facts.chunked && self.minor == 0 {
            return Err(HeadError::Malformed("a transfer coding in HTTP/1.0"));
        }
        self.framing = match facts.length {
            _ if facts.chunked => Framing::Chunked,
            None => Framing::UntilClose,
            Some(0) => Framing::Empty,
            Some(length) => Framing::Length(length),
        };
        self.keep_alive = facts.is_kept_alive(self.minor);
        Ok(Some(size))
    }

    /// The status.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// 1 for HTTP/1.1, 0 for HTTP/1.0.
    pub fn minor_version(&self) -> u8 {
        self.minor
    }

    /// How the end of the body is known, which depends on what was asked.
    pub fn framing(&self, method: &Method) -> Framing {
        let code = self.status.as_u16();
        let none = code < 200
            || code == 204
            || code == 304
            || method == Method::HEAD
            || (method == Method::CONNECT && self.status.is_success());
        if none { Framing::Empty } else { self.framing }
    }

    /// Whether the connection may be used again once the body has been read.
    pub fn keeps_alive(&self, method: &Method) -> bool {
        self.keep_alive && self.framing(method) != Framing::UntilClose
    }

    /// The header fields.
    pub fn headers(&self) -> &Headers {
        &self.headers
    }

    /// Gives the header fields away.
    pub fn into_headers(self) -> Headers {
        self.headers
    }
}

/// Appends a status line.
pub fn write_status_line(out: &mut Vec<u8>, status: StatusCode) {
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(status.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(status.canonical_reason().unwrap_or_default().as_bytes());
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(bytes: impl AsRef<[u8]>) -> Result<ResponseHead, HeadError> {
        let mut head = ResponseHead::new();
        let size = head.parse(bytes.as_ref(), &HeadLimits::default())?;
        assert!(size.is_some(), "{:?} is incomplete", bytes.as_ref().escape_ascii().to_string());
        Ok(head)
    }

    #[test]
    fn the_body_of_a_response_depends_on_what_was_asked() {
        let head = parse("HTTP/1.1 200 OK\r\n\r\n").unwrap();
        assert_eq!(head.framing(&Method::GET), Framing::UntilClose);
        assert!(!head.keeps_alive(&Method::GET) && head.keeps_alive(&Method::HEAD));
        let head = parse("HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n").unwrap();
        assert_eq!(head.framing(&Method::GET), Framing::Length(7));
        assert_eq!(head.framing(&Method::CONNECT), Framing::Empty);
        for code in [100, 101, 103, 204, 304] {
            let head = parse(format!("HTTP/1.1 {code} X\r\nContent-Length: 7\r\n\r\n")).unwrap();
            assert_eq!(head.framing(&Method::GET), Framing::Empty, "{code}");
        }
        let head = parse("HTTP/1.1 404 \r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n").unwrap();
        assert_eq!((head.framing(&Method::GET), head.keeps_alive(&Method::GET)), (Framing::Chunked, false));
        assert!(parse("HTTP/1.0 200 OK\r\nContent-Length: 7\r\n\r\n").is_ok_and(|head| !head.keep_alive));
    }

    #[test]
    fn a_response_that_two_clients_could_read_differently_is_refused() {
        for bytes in [
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 1,1\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
            "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            "HTTP/1.1 200 OK\nContent-Length: 1\r\n\r\n",
            "HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n",
            "HTTP/1.1 200 OK\r\nA : b\r\n\r\n",
            "HTTP/1.1 20 OK\r\n\r\n",
            "HTTP/1.1 099 OK\r\n\r\n",
            "HTTP/1.1 600 OK\r\n\r\n",
            "HTTP/1.1 200 O\0K\r\n\r\n",
        ] {
            assert!(matches!(parse(bytes), Err(HeadError::Malformed(_))), "{bytes:?}");
        }
        assert_eq!(parse("HTTP/2 200 OK\r\n\r\n").unwrap_err(), HeadError::Version);
    }

    #[test]
    fn a_status_line_reads_back() {
        let mut out = Vec::new();
        write_status_line(&mut out, StatusCode::NOT_FOUND);
        assert_eq!(out, b"HTTP/1.1 404 Not Found\r\n");
    }
}
