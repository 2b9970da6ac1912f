//! The head of a request: its line, its fields, and what they mean.

use http::Method;

use super::{Framing, HeadError, HeadLimits, Pieces, check_lines, incomplete, raw_headers, take};
use crate::http::Headers;

/// A parsed request head; its memory is used again by the next [`RequestHead::parse`].
///
/// # Source
///
/// RFC 9112 sections 2, 3 and 6; RFC 9110 sections 7.2 and 10.1.1.
///
/// # Examples
///
/// ```
/// use reactor::http::{Framing, HeadLimits, RequestHead};
///
/// let mut head = RequestHead::new();
/// let bytes = b"GET /search?q=1 HTTP/1.1\r\nHost: example.org\r\n\r\nnext";
/// assert_eq!(head.parse(bytes, &HeadLimits::default()), Ok(Some(bytes.len() - 4)));
/// assert_eq!((head.path(), head.query()), ("/search", Some("q=1")));
/// assert_eq!((head.framing(), head.keeps_alive()), (Framing::Empty, true));
/// ```
#[derive(Debug)]
pub struct RequestHead {
    method: Method,
    target: (u32, u32),
    path: (u32, u32),
    query: Option<(u32, u32)>,
    authority: (u32, u32),
    minor: u8,
    framing: Framing,
    keep_alive: bool,
    expects_continue: bool,
    headers: Headers,
    pieces: Pieces,
}

impl Default for RequestHead {
    fn default() -> RequestHead {
        RequestHead::new()
    }
}

impl RequestHead {
    /// An empty head.
    pub fn new() -> RequestHead {
        RequestHead {
            method: Method::GET,
            target: (0, 0),
            path: (0, 0),
            query: None,
            authority: (0, 0),
            minor: 1,
            framing: Framing::Empty,
            keep_alive: true,
            expects_continue: false,
            headers: Headers::new(),
            pieces: Pieces::default(),
        }
    }

    /// Parses the head at the beginning of `buffer`; its size in bytes, or `None` if it is not all there yet.
    ///
    /// After `None`, call it again with the same bytes and more.
    ///
    /// # Errors
    ///
    /// [`HeadError`]: answer with its status and close the connection, since nobody knows where the next request
    /// begins.
    pub fn parse(&mut self, buffer: &[u8], limits: &HeadLimits) -> Result<Option<usize>, HeadError> {
        if !self.pieces.is_worth_parsing(buffer) {
            return incomplete(buffer, limits);
        }
        let mut raw = raw_headers();
        let mut request = httparse::Request::new(&mut []);
        let status = request.parse_with_uninit_headers(buffer, &mut raw).map_err(HeadError::from_parser)?;
        let httparse::Status::Complete(size) = status else {
            self.pieces.on_incomplete(buffer);
            return incomplete(buffer, limits);
        };
        self.pieces.clear();
        let head = &buffer[..size];
        check_lines(head, request.headers.len(), limits)?;
        let facts = take(&mut self.headers, head, request.headers)?;

        let method = request.method.unwrap_or_default();
        self.method =
            Method::from_bytes(method.as_bytes()).map_err(|_| HeadError::Malformed("the method"))?;
        self.minor = request.version.unwrap_or_default();
        self.set_target(head, request.path.unwrap_or_default())?;

        match facts.host {
            Some(host) => {
                if !is_authority(self.headers.bytes(host.value)) {
                    return Err(HeadError::Malformed("the Host"));
                }
                if self.authority == (0, 0) {
                    self.authority = host.value;
                }
            }
            None if self.minor == 1 => return Err(HeadError::Malformed("no Host")),
            None => {}
        }
        if facts.chunked && self.minor == 0 {
            return Err(HeadError::Malformed("a transfer coding in HTTP/1.0"));
        }
        self.framing = match facts.length {
            _ if facts.chunked => Framing::Chunked,
            None | Some(0) => Framing::Empty,
            Some(length) => Framing::Length(length),
        };
        self.keep_alive = facts.is_kept_alive(self.minor);
        // A client of HTTP/1.0 does not know the interim response (RFC 9110 section 10.1.1).
        self.expects_continue = facts.expects_continue && self.minor == 1 && self.framing != Framing::Empty;
        Ok(Some(size))
    }

    /// Takes the target apart; each form goes with certain methods only (RFC 9112 section 3.2).
    fn set_target(&mut self, head: &[u8], target: &str) -> Result<(), HeadError> {
        const ERROR: HeadError = HeadError::Malformed("the target");
        if !target.bytes().all(|byte| matches!(byte, 0x21..=0x7e) && byte != b'#') {
            return Err(ERROR);
        }
        let start = (target.as_ptr() as usize - head.as_ptr() as usize) as u32;
        let end = start + target.len() as u32;
        self.target = (start, end);
        (self.path, self.query, self.authority) = ((start, end), None, (0, 0));
        let mut path_start = start;
        if self.method == Method::CONNECT {
            if target.is_empty() || !is_authority(target.as_bytes()) {
                return Err(ERROR);
            }
            self.authority = (start, end);
            self.path = (end, end);
            return Ok(());
        }
        if target == "*" {
            return if self.method == Method::OPTIONS { Ok(()) } else { Err(ERROR) };
        }
        if !target.starts_with('/') {
            let scheme = ["http://", "https://"].into_iter().find(|scheme| {
                target.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme))
            });
            let after = start + scheme.ok_or(ERROR)?.len() as u32;
            let rest = &target[(after - start) as usize..];
            path_start = after + rest.find(['/', '?']).unwrap_or(rest.len()) as u32;
            self.authority = (after, path_start);
            if after == path_start || !is_authority(&head[after as usize..path_start as usize]) {
                return Err(ERROR);
            }
        }
        let rest = &head[path_start as usize..end as usize];
        self.path = (path_start, end);
        if let Some(at) = memchr::memchr(b'?', rest) {
            let at = path_start + at as u32;
            (self.path, self.query) = ((path_start, at), Some((at + 1, end)));
        }
        Ok(())
    }

    /// The method.
    pub fn method(&self) -> &Method {
        &self.method
    }

    /// The target as it was sent.
    pub fn target(&self) -> &str {
        self.text(self.target)
    }

    /// The path as it was sent, percent-encoded, without the query. It begins with `/`, except that it is `*` or
    /// empty where the request is for no resource (`OPTIONS *`, `CONNECT`) and empty in `http://host`.
    pub fn path(&self) -> &str {
        self.text(self.path)
    }

    /// What follows the `?` of the target.
    pub fn query(&self) -> Option<&str> {
        self.query.map(|query| self.text(query))
    }

    /// The host (and port) that the client means: of the target if it names one, else of `Host`. Empty if neither.
    pub fn authority(&self) -> &str {
        self.text(self.authority)
    }

    /// 1 for HTTP/1.1, 0 for HTTP/1.0.
    pub fn minor_version(&self) -> u8 {
        self.minor
    }

    /// How the body's end is known.
    pub fn framing(&self) -> Framing {
        self.framing
    }

    /// Whether the client would go on with this connection.
    pub fn keeps_alive(&self) -> bool {
        self.keep_alive
    }

    /// Whether the client waits for `100 Continue` before it sends the body.
    pub fn expects_continue(&self) -> bool {
        self.expects_continue
    }

    /// The header fields.
    pub fn headers(&self) -> &Headers {
        &self.headers
    }

    fn text(&self, place: (u32, u32)) -> &str {
        // All of these were checked to be ASCII.
        std::str::from_utf8(self.headers.bytes(place)).unwrap_or_default()
    }
}

/// Whether this may be a host and port: what RFC 3986 section 3.2.2 allows, and no user name.
fn is_authority(bytes: &[u8]) -> bool {
    let (host, port) = match bytes.iter().rposition(|byte| *byte == b':') {
        Some(colon) if !bytes[colon..].contains(&b']') => (&bytes[..colon], &bytes[colon + 1..]),
        _ => (bytes, &b""[..]),
    };
    let host_is_good = match host.strip_prefix(b"[").and_then(|host| host.strip_suffix(b"]")) {
        Some(address) => {
            address.iter().all(|byte| matches!(byte, b':' | b'.' | b'%') || byte.is_ascii_alphanumeric())
        }
        None => host.iter().all(|byte| {
            byte.is_ascii_alphanumeric()
                || matches!(
                    byte,
                    b'-' | b'.'
                        | b'_'
                        | b'~'
                        | b'%'
                        | b'!'
                        | b'$'
                        | b'&'
                        | b'\''
                        | b'('
                        | b')'
                        | b'*'
                        | b'+'
                        | b','
                        | b';'
                        | b'='
                )
        }),
    };
    host_is_good && port.len() <= 5 && port.iter().all(u8::is_ascii_digit)
}

/// Appends a request line.
///
/// # Errors
///
/// `Malformed` if `target` holds a space or anything else that would end or split the line.
pub fn write_request_line(out: &mut Vec<u8>, method: &Method, target: &str) -> Result<(), HeadError> {
    if target.is_empty() || !target.bytes().all(|byte| matches!(byte, 0x21..=0x7e) && byte != b'#') {
        return Err(HeadError::Malformed("the target"));
    }
    out.extend_from_slice(method.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(target.as_bytes());
    out.extend_from_slice(b" HTTP/1.1\r\n");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(bytes: impl AsRef<[u8]>) -> Result<RequestHead, HeadError> {
        let mut head = RequestHead::new();
        let size = head.parse(bytes.as_ref(), &HeadLimits::default())?;
        assert!(size.is_some(), "{:?} is incomplete", bytes.as_ref().escape_ascii().to_string());
        Ok(head)
    }

    fn with(fields: &str) -> Result<RequestHead, HeadError> {
        parse(format!("POST / HTTP/1.1\r\nHost: h\r\n{fields}\r\n"))
    }

    fn is_malformed(result: Result<RequestHead, HeadError>) -> bool {
        matches!(result, Err(HeadError::Malformed(_)))
    }

    #[test]
    fn every_form_of_target_goes_with_its_methods_only() {
        let target =
            |method: &str, target: &str| parse(format!("{method} {target} HTTP/1.1\r\nHost: h:1\r\n\r\n"));
        let head = target("GET", "http://example.org:80/a/b?c=d?e").unwrap();
        assert_eq!((head.path(), head.query(), head.authority()), ("/a/b", Some("c=d?e"), "example.org:80"));
        let head = target("GET", "HTTPS://[::1]:80?x").unwrap();
        assert_eq!((head.path(), head.query(), head.authority()), ("", Some("x"), "[::1]:80"));
        let head = target("OPTIONS", "*").unwrap();
        assert_eq!((head.path(), head.authority()), ("*", "h:1"));
        let head = target("CONNECT", "example.org:443").unwrap();
        assert_eq!((head.path(), head.authority()), ("", "example.org:443"));
        for (method, bad) in [
            ("GET", "*"),
            ("GET", "example.org:443"),
            ("GET", "ftp://h/"),
            ("GET", "http:///path"),
            ("GET", "http://user@host/"),
            ("GET", "a"),
            ("GET", "/a#b"),
            ("GET", "/ä"),
            ("GET", "/a\u{7f}"),
            ("CONNECT", "/"),
            ("CONNECT", "a/b"),
        ] {
            assert!(is_malformed(target(method, bad)), "{method} {bad}");
        }
    }

    #[test]
    fn a_request_of_http_1_1_has_exactly_one_host() {
        assert!(is_malformed(parse("GET / HTTP/1.1\r\n\r\n")));
        assert!(is_malformed(parse("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n")));
        for host in ["a b", "a/b", "a@b", "a,b c", "a\\b", "[::1", "a:b", "a:123456", "a?b", "a#b"] {
            assert!(is_malformed(parse(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"))), "{host}");
        }
        for host in ["", "a", "a.b:80", "[::1]:80", "[::1]", "a_b", "127.0.0.1:", "xn--a"] {
            assert_eq!(parse(format!("GET / HTTP/1.1\r\nhOST: {host}\r\n\r\n")).unwrap().authority(), host);
        }
        assert!(!parse("GET / HTTP/1.0\r\n\r\n").unwrap().keeps_alive());
        assert!(parse("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n").unwrap().keeps_alive());
    }

    #[test]
    fn a_length_and_a_transfer_coding_are_never_both_believed() {
        assert_eq!(with("").unwrap().framing(), Framing::Empty);
        assert_eq!(with("Content-Length: 0\r\n").unwrap().framing(), Framing::Empty);
        assert_eq!(with("Content-Length: 0012\r\n").unwrap().framing(), Framing::Length(12));
        assert_eq!(with("Transfer-Encoding: Chunked \r\n").unwrap().framing(), Framing::Chunked);
        for fields in [
            "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: chunked\r\nContent-Length: 1\r\n",
            "Content-Length: 1\r\nContent-Length: 2\r\n",
            "Content-Length: 1\r\nContent-Length: 1\r\n",
            "Content-Length: 1, 1\r\n",
            "Content-Length: +1\r\n",
            "Content-Length: -1\r\n",
            "Content-Length: 0x1\r\n",
            "Content-Length: 1 1\r\n",
            "Content-Length: \r\n",
            "Content-Length: 18446744073709551616\r\n",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: chunked, chunked\r\n",
            "Transfer-Encoding: chunked, identity\r\n",
            "Transfer-Encoding: gzip, chunked\r\n",
            "Transfer-Encoding : chunked\r\n",
            " Transfer-Encoding: chunked\r\n",
            "X: y\r\n Transfer-Encoding: chunked\r\n",
            "Transfer-Encoding:\r\n chunked\r\n",
            "Transfer-Encoding:\x0bchunked\r\n",
            "Transfer-Encoding\0: chunked\r\n",
            "X: y\rTransfer-Encoding: chunked\r\n",
            "X: y\nTransfer-Encoding: chunked\r\n",
        ] {
            assert!(is_malformed(with(fields)), "{fields:?}");
        }
        for fields in
            ["Transfer-Encoding: xchunked\r\n", "Transfer-Encoding: \r\n", "Transfer-Encoding: gzip\r\n"]
        {
            assert_eq!(with(fields).unwrap_err(), HeadError::Coding, "{fields:?}");
        }
        let old = "POST / HTTP/1.0\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n";
        assert!(is_malformed(parse(old)));
    }

    #[test]
    fn only_a_carriage_return_with_a_line_feed_ends_a_line() {
        for bytes in [
            "GET / HTTP/1.1\nHost: h\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: h\n\r\n",
            "GET / HTTP/1.1\r\nHost: h\r\n\n",
            "GET / HTTP/1.1\rHost: h\r\n\r\n",
            "\nGET / HTTP/1.1\r\nHost: h\r\n\r\n",
            "GET  / HTTP/1.1\r\nHost: h\r\n\r\n",
            "GET /  HTTP/1.1\r\nHost: h\r\n\r\n",
            " GET / HTTP/1.1\r\nHost: h\r\n\r\n",
            "GET\t/ HTTP/1.1\r\nHost: h\r\n\r\n",
            "GET / http/1.1\r\nHost: h\r\n\r\n",
            "GET /\r\nHost: h\r\n\r\n",
        ] {
            let refused = parse(bytes);
            assert!(
                matches!(refused, Err(HeadError::Malformed(_) | HeadError::Version)),
                "{bytes:?}: {refused:?}"
            );
        }
        // RFC 9112 section 2.2: an empty line before a request may come from an old client's POST.
        assert!(parse("\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n").is_ok());
        assert_eq!(parse("GET / HTTP/2.0\r\nHost: h\r\n\r\n").unwrap_err(), HeadError::Version);
    }

    #[test]
    fn line_head_and_header_count_are_limited_before_they_are_complete_and_after() {
        let limits = HeadLimits { line_bytes: 100, head_bytes: 1000, headers: 5 };
        let refusal = |bytes: String| RequestHead::new().parse(bytes.as_bytes(), &limits).unwrap_err();
        let long = "a".repeat(2000);
        assert_eq!(refusal(format!("GET /{long}")), HeadError::LineTooLong);
        assert_eq!(
            refusal(format!("GET /{} HTTP/1.1\r\nHost: h\r\n\r\n", &long[..100])),
            HeadError::LineTooLong
        );
        assert_eq!(refusal(format!("GET / HTTP/1.1\r\nX: {long}")), HeadError::HeadTooLong);
        assert_eq!(refusal(format!("GET / HTTP/1.1\r\nX: {long}\r\n\r\n")), HeadError::HeadTooLong);
        let many = "X: y\r\n".repeat(6);
        assert_eq!(refusal(format!("GET / HTTP/1.1\r\n{many}\r\n")), HeadError::TooManyHeaders);
        let many = "X: y\r\n".repeat(HeadLimits::default().headers * 2);
        assert_eq!(parse(format!("GET / HTTP/1.1\r\n{many}\r\n")).unwrap_err(), HeadError::TooManyHeaders);
    }

    #[test]
    fn a_head_that_comes_byte_by_byte_is_found_whole() {
        let bytes = b"\r\nPOST /a?b HTTP/1.1\r\nHost: h\r\nEmpty:\r\nContent-Length: 5\r\nExpect: 100-Continue\r\n\r\nhello";
        let mut head = RequestHead::new();
        for end in 0..bytes.len() - 5 {
            assert_eq!(head.parse(&bytes[..end], &HeadLimits::default()), Ok(None), "{end}");
        }
        assert_eq!(head.parse(bytes, &HeadLimits::default()), Ok(Some(bytes.len() - 5)));
        assert_eq!((head.method(), head.path(), head.query()), (&Method::POST, "/a", Some("b")));
        assert_eq!(head.headers().get("empty"), Some(&b""[..]));
        assert!(head.expects_continue());
        assert_eq!(with("Expect: 200-ok\r\n").unwrap_err(), HeadError::Expectation);
    }

    #[test]
    fn a_target_can_not_split_the_request_line() {
        let mut out = Vec::new();
        for target in ["", "/ HTTP/1.1\r\nX: y", "/a b", "/\n", "/ä", "/a#b"] {
            assert!(write_request_line(&mut out, &Method::GET, target).is_err(), "{target:?}");
        }
        assert!(out.is_empty());
        write_request_line(&mut out, &Method::GET, "/a?b").unwrap();
        assert_eq!(out, b"GET /a?b HTTP/1.1\r\n");
    }
}
