//! An answer: its head at once, its body as it is read.

use std::io::{self, ErrorKind, Read};
use std::rc::Rc;
use std::time::{Duration, Instant};

use flate2::read::MultiGzDecoder;
use http::{Method, StatusCode};
use serde::de::DeserializeOwned;
use url::Url;

use super::connection::{Connection, Server};
use super::exchange::Clock;
use super::upload::Sending;
use super::{ClientError, Phase, Shared};
use crate::http::{BodyDecoder, BodyLimits, BodyReader, Headers, ResponseHead};
use crate::net::Duplex;

/// What is read off an unwanted body so that its connection can be used again; beyond it, a new one is cheaper.
const DRAINED_BYTES_MAX: u64 = 64 << 10;

/// And for how long: what a handshake in its place would take on a long line.
const DRAIN_TIME: Duration = Duration::from_millis(100);

/// An answer. Its body is read with `Read`, or all at once with [`Response::bytes`] or [`Response::text`].
///
/// A body that was encoded with gzip because the client had offered it is decoded; its header fields stay as they came.
/// Once the body has been read to its end the connection serves other requests; dropped before, it is closed.
///
/// # Suspends
///
/// `read` does, until bytes come, within [`super::Timeouts::idle`].
pub struct Response {
    status: StatusCode,
    url: Url,
    headers: Headers,
    body: Decoded,
    /// Data given out so far, decoded.
    taken: u64,
}

enum Decoded {
    Plain(Framed),
    Gzip(MultiGzDecoder<Framed>),
}

/// A body on its connection, until that has been given back.
pub(super) struct Framed {
    pub(super) connection: Option<Connection>,
    pub(super) decoder: BodyDecoder,
    pub(super) shared: Rc<Shared>,
    pub(super) server: Server,
    pub(super) born: Instant,
    pub(super) is_reusable: bool,
    /// The request's body, where that is still being sent.
    pub(super) sending: Option<Rc<Sending>>,
    pub(super) deadline: Option<Instant>,
}

impl Response {
    pub(super) fn new(
        head: ResponseHead,
        method: &Method,
        url: Url,
        decodes_gzip: bool,
        framed: Framed,
    ) -> Response {
        let status = head.status();
        let has_body = head.framing(method) != crate::http::Framing::Empty;
        let headers = head.into_headers();
        let mut codings = headers.list("Content-Encoding");
        let is_gzip = decodes_gzip
            && has_body
            && codings.next().is_some_and(|coding| {
                coding.eq_ignore_ascii_case(b"gzip") || coding.eq_ignore_ascii_case(b"x-gzip")
            })
            && codings.next().is_none();
        drop(codings);
        let mut body = match is_gzip {
            true => Decoded::Gzip(MultiGzDecoder::new(framed)),
            false => Decoded::Plain(framed),
        };
        // An empty one has been read already.
        body.framed().give_back_at_end();
        Response { status, url, headers, body, taken: 0 }
    }

    /// The status.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// The header fields.
    pub fn headers(&self) -> &Headers {
        &self.headers
    }

    /// Where it came from at last, after redirects.
    pub fn url(&self) -> &str {
        self.url.as_str()
    }

    /// The fields after a body in chunks; empty until that has been read to its end.
    pub fn trailers(&self) -> &Headers {
        match &self.body {
            Decoded::Plain(framed) => framed.decoder.trailers(),
            Decoded::Gzip(gzip) => gzip.get_ref().decoder.trailers(),
        }
    }

    /// The body, all of it.
    ///
    /// # Errors
    ///
    /// `InvalidData` when it is longer than `limit_bytes`; as `read`.
    ///
    /// # Suspends
    ///
    /// Until it has come.
    pub fn bytes(mut self, limit_bytes: usize) -> io::Result<Vec<u8>> {
        self.read_all(limit_bytes)
    }

    /// The body as text, which must be UTF-8.
    ///
    /// # Errors
    ///
    /// `InvalidData` when it is longer than `limit_bytes`, or not UTF-8; as `read`.
    ///
    /// # Suspends
    ///
    /// Until it has come.
    pub fn text(mut self, limit_bytes: usize) -> io::Result<String> {
        let bytes = self.read_all(limit_bytes)?;
        String::from_utf8(bytes).map_err(|error| io::Error::new(ErrorKind::InvalidData, error.utf8_error()))
    }

    /// The body, which is JSON, as a `T`.
    ///
    /// # Errors
    ///
    /// `InvalidData` when it is longer than `limit_bytes`, no JSON, or no `T`; as `read`.
    ///
    /// # Suspends
    ///
    /// Until it has come.
    pub fn json<T: DeserializeOwned>(mut self, limit_bytes: usize) -> io::Result<T> {
        let bytes = self.read_all(limit_bytes)?;
        serde_json::from_slice(&bytes).map_err(|error| io::Error::new(ErrorKind::InvalidData, error))
    }

    /// The answer, if its status is below 400.
    ///
    /// # Errors
    ///
    /// [`ClientError::Status`] else; what the server says about it is lost.
    pub fn error_for_status(self) -> Result<Response, ClientError> {
        match self.status.as_u16() {
            ..400 => Ok(self),
            _ => Err(ClientError::Status { status: self.status, url: self.url.into() }),
        }
    }

    fn read_all(&mut self, limit_bytes: usize) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        Read::by_ref(self).take((limit_bytes as u64).saturating_add(1)).read_to_end(&mut bytes)?;
        if bytes.len() > limit_bytes {
            let message = format!("the body is longer than {limit_bytes} bytes");
            return Err(io::Error::new(ErrorKind::InvalidData, message));
        }
        Ok(bytes)
    }

    /// The connection itself, after the answer 101 (Switching Protocols), and what was read ahead of it; `None` after
    /// any other.
    pub fn into_upgraded(mut self) -> Option<(Box<dyn Duplex>, Vec<u8>)> {
        if self.status != StatusCode::SWITCHING_PROTOCOLS {
            return None;
        }
        self.body.framed().connection.take().and_then(Connection::into_stream)
    }

    /// Reads on to the end if that is near, so that the connection can be used again: nobody waits for a body that nobody
    /// wants. Suspends for [`DRAIN_TIME`] at the most.
    pub(super) fn drain(mut self) {
        let framed = self.body.framed();
        if framed.decoder.remaining().is_some_and(|left| left > DRAINED_BYTES_MAX) {
            return;
        }
        let _ = crate::timeout(DRAIN_TIME, || io::copy(&mut framed.take(DRAINED_BYTES_MAX), &mut io::sink()));
    }
}

impl Decoded {
    fn framed(&mut self) -> &mut Framed {
        match self {
            Decoded::Plain(framed) => framed,
            Decoded::Gzip(gzip) => gzip.get_mut(),
        }
    }
}

impl Read for Response {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = match &mut self.body {
            Decoded::Plain(framed) => framed.read(buffer)?,
            Decoded::Gzip(gzip) => {
                let count = gzip.read(buffer)?;
                // A few bytes can stand for very many.
                self.taken += count as u64;
                let limit = gzip.get_ref().shared.body_limits().size_bytes;
                if self.taken > limit {
                    let message = format!("the body is longer than {limit} bytes when it is decoded");
                    return Err(io::Error::new(ErrorKind::InvalidData, message));
                }
                count
            }
        };
        Ok(count)
    }
}

impl Framed {
    /// Gives the connection back to the pool if the body has been read to its end. Never suspends.
    fn give_back_at_end(&mut self) {
        if !self.decoder.is_at_end() {
            return;
        }
        let connection = if self.is_reusable { self.connection.take() } else { None };
        let give_back: Option<Box<dyn FnOnce()>> = connection.map(|connection| {
            let (shared, server, born) = (self.shared.clone(), self.server.clone(), self.born);
            Box::new(move || shared.give_back(server, connection, born)) as _
        });
        match (&self.sending, give_back) {
            (Some(sending), give_back) => sending.on_answer_read(give_back),
            (None, Some(give_back)) => give_back(),
            (None, None) => {}
        }
    }
}

impl Read for Framed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(connection) = &mut self.connection else {
            if self.decoder.is_at_end() {
                return Ok(0);
            }
            // An error does not become an end by asking once more.
            return Err(io::Error::new(ErrorKind::NotConnected, "the body broke off before"));
        };
        let clock = Clock { timeouts: self.shared.timeouts(), deadline: self.deadline };
        let (duplex, input) = connection.split();
        let decoder = &mut self.decoder;
        let read = || BodyReader::new(duplex, input, decoder).read(buffer);
        let result = clock.bound(Phase::Body, clock.timeouts.idle, read).map_err(io::Error::from);
        match result.and_then(|result| result) {
            Ok(count) => {
                self.give_back_at_end();
                Ok(count)
            }
            Err(error) => {
                // Neither it nor anybody else can tell where the next answer would begin.
                self.is_reusable = false;
                if let Some(connection) = self.connection.take() {
                    connection.duplex().abort();
                }
                Err(error)
            }
        }
    }
}

/// What a decoder of bodies is set to.
pub(super) fn decoder(head: &ResponseHead, method: &Method, limits: &BodyLimits) -> BodyDecoder {
    BodyDecoder::new(head.framing(method), *limits)
}
