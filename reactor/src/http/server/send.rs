//! How a response leaves: its head, and its body in the framing that the client understands.

use std::io::{self, ErrorKind, Write};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use http::{Method, StatusCode};

use super::compress::Squeezer;
use super::wire::{GATHERED_BYTES_MAX, RequestBody, Wire};
use crate::coroutine::{Cut, begin};
use crate::http::headers::write_field;
use crate::http::response::{Body, Response};
use crate::http::{Headers, InvalidHeader, write_chunk_size, write_last_chunk, write_status_line};

/// Bodies up to this are copied behind their heads; larger ones are sent from where they lie.
const COPIED_BODY_BYTES_MAX: usize = 16 << 10;

/// What a streamed body gathers before it makes a chunk of it: what a TLS record holds.
const CHUNK_SIZE_BYTES: usize = 16 << 10;

/// What the head says of the body's end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Announced {
    /// The status has none, and says no length either.
    Nothing,
    Length(u64),
    Chunked,
    UntilClose,
}

/// What the client can take.
#[derive(Clone, Copy)]
pub(super) struct Terms {
    /// It speaks HTTP/1.1, and so understands chunks.
    pub(super) chunks: bool,
    /// It asked for the head only.
    pub(super) head_only: bool,
    /// The connection can go on after the response.
    pub(super) keep_alive: bool,
    /// It speaks HTTP/1.0 and would keep the connection: it must be told that we do too.
    pub(super) say_keep_alive: bool,
}

impl Terms {
    pub(super) fn new(method: &Method, minor: u8, keep_alive: bool) -> Terms {
        Terms {
            chunks: minor == 1,
            head_only: method == Method::HEAD,
            keep_alive,
            say_keep_alive: minor == 0,
        }
    }
}

/// Whether a status never has a body (RFC 9110 sections 15.2, 15.3.5 and 15.4.5).
fn has_no_body(status: StatusCode) -> bool {
    status.is_informational() || status == StatusCode::NO_CONTENT || status == StatusCode::NOT_MODIFIED
}

fn write_head(wire: &Wire<'_>, response: &ResponseHead<'_>, announced: Announced, terms: Terms) {
    if !response.status.is_informational() {
        wire.exchange.on_head();
        wire.status.set(Some(response.status));
    }
    let mut output = wire.output.borrow_mut();
    let out = &mut *output;
    if response.status == StatusCode::OK {
        out.extend_from_slice(b"HTTP/1.1 200 OK\r\n");
    } else {
        write_status_line(out, response.status);
    }
    if response.headers.is_empty() || !response.headers.contains("date") {
        wire.shared.date.write(out);
    }
    if let Some(content_type) = response.content_type {
        write_field(out, "Content-Type", content_type.as_bytes());
    }
    response.headers.write(out);
    match announced {
        Announced::Length(length) => {
            out.extend_from_slice(b"Content-Length: ");
            write_number(out, length);
            out.extend_from_slice(b"\r\n");
        }
        Announced::Chunked => out.extend_from_slice(b"Transfer-Encoding: chunked\r\n"),
        Announced::Nothing | Announced::UntilClose => {}
    }
    if response.status != StatusCode::SWITCHING_PROTOCOLS {
        if !terms.keep_alive || announced == Announced::UntilClose {
            out.extend_from_slice(b"Connection: close\r\n");
        } else if terms.say_keep_alive {
            out.extend_from_slice(b"Connection: keep-alive\r\n");
        }
    }
    out.extend_from_slice(b"\r\n");
}

struct ResponseHead<'a> {
    status: StatusCode,
    content_type: Option<&'a str>,
    headers: &'a Headers,
}

pub(super) fn write_number(out: &mut Vec<u8>, mut number: u64) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

/// Sends a response, or lets it gather; whether the connection can go on.
pub(super) fn send(
    wire: &Wire<'_>,
    body_in: &mut RequestBody<'_>,
    mut response: Response,
    mut terms: Terms,
) -> io::Result<bool> {
    terms.keep_alive &= !response.close;
    let body = std::mem::replace(&mut response.body, Body::Empty);
    let head = ResponseHead {
        status: response.status,
        content_type: response.content_type.as_deref(),
        headers: &response.headers,
    };
    let whole = |bytes: &[u8]| -> io::Result<()> {
        let none = has_no_body(head.status);
        write_head(
            wire,
            &head,
            if none { Announced::Nothing } else { Announced::Length(bytes.len() as u64) },
            terms,
        );
        if none || terms.head_only {
            return Ok(());
        }
        if bytes.len() > COPIED_BODY_BYTES_MAX {
            return wire.flush_with(&[bytes]);
        }
        wire.output.borrow_mut().extend_from_slice(bytes);
        Ok(())
    };
    match body {
        Body::Empty => whole(&[])?,
        Body::Static(bytes) => whole(bytes)?,
        Body::Shared(bytes) => whole(&bytes)?,
        Body::Owned(mut bytes) => {
            whole(&bytes)?;
            if bytes.capacity() <= COPIED_BODY_BYTES_MAX {
                bytes.clear();
                *wire.spare.borrow_mut() = bytes;
            }
        }
        Body::Stream { .. } if has_no_body(head.status) => write_head(wire, &head, Announced::Nothing, terms),
        Body::Stream { length, .. } if terms.head_only => {
            let announced = length.map_or(Announced::Nothing, Announced::Length);
            write_head(wire, &head, announced, terms);
        }
        Body::Stream { length, write, .. } => {
            let announced = match length {
                Some(length) => Announced::Length(length),
                None if terms.chunks => Announced::Chunked,
                None => Announced::UntilClose,
            };
            let mut out = BodyWriter {
                wire,
                head: Some(head),
                terms,
                announced,
                gathered: wire.spare.take(),
                written: 0,
                trailers: Headers::new(),
                squeezer: response.gzip.then(Squeezer::new),
            };
            let run = || write(body_in, &mut out).and_then(|()| out.finish());
            match catch_unwind(AssertUnwindSafe(run)) {
                Ok(Ok(goes_on)) => terms.keep_alive &= goes_on,
                // Nothing of it has left: the client, and those before it in the line, can still be told.
                Ok(Err(error)) if out.head.is_some() => {
                    drop(out);
                    return send(wire, body_in, Response::from(Err::<Response, _>(error)).closing(), terms);
                }
                Ok(Err(error)) => return Err(error),
                Err(unwinding) if unwinding.is::<Cut>() || out.head.is_none() => resume_unwind(unwinding),
                Err(_panic) => {
                    tracing::error!("the writer of an HTTP body panicked");
                    drop(out);
                    let failed = Response::of_status(StatusCode::INTERNAL_SERVER_ERROR).closing();
                    return send(wire, body_in, failed, terms);
                }
            }
        }
        Body::Upgrade(_) => return Err(io::Error::other("an upgrade has no body to send")),
    }
    if wire.output.borrow().len() >= GATHERED_BYTES_MAX {
        wire.flush()?;
    }
    Ok(terms.keep_alive)
}

/// Sends the head of an upgrade and nothing else.
pub(super) fn send_upgrade(wire: &Wire<'_>, response: &Response) -> io::Result<()> {
    let head = ResponseHead { status: response.status, content_type: None, headers: &response.headers };
    let terms = Terms { chunks: true, head_only: false, keep_alive: true, say_keep_alive: false };
    write_head(wire, &head, Announced::Nothing, terms);
    wire.flush()
}

/// Writes a response's body as it is made.
///
/// Small pieces are gathered; [`Write::flush`] sends what there is, for a reader that waits for it. A body that is
/// over before anything was sent leaves whole, with its length.
///
/// A timeout around a `write` or a `flush` that ends while the client is waited for ends the connection too: nobody could tell
/// what of it has left, so nothing more does.
///
/// # Suspends
///
/// `write` and `flush` do, while the client reads more slowly than it is written to.
pub struct BodyWriter<'a> {
    wire: &'a Wire<'a>,
    head: Option<ResponseHead<'a>>,
    terms: Terms,
    announced: Announced,
    gathered: Vec<u8>,
    written: u64,
    trailers: Headers,
    squeezer: Option<Squeezer>,
}

impl BodyWriter<'_> {
    /// Adds a field that goes after the body. A client of HTTP/1.0, or one that was told the length, gets none.
    ///
    /// # Errors
    ///
    /// [`InvalidHeader`].
    pub fn trailer(&mut self, name: &str, value: impl AsRef<[u8]>) -> Result<(), InvalidHeader> {
        self.trailers.push(name, value)
    }

    fn send_gathered(&mut self) -> io::Result<()> {
        self.send_with(&[])
    }

    /// Sends what has gathered, and `more` after it from where it lies.
    fn send_with(&mut self, more: &[u8]) -> io::Result<()> {
        if let Some(head) = self.head.take() {
            write_head(self.wire, &head, self.announced, self.terms);
        }
        let size = self.gathered.len() + more.len();
        if size == 0 {
            return self.wire.flush();
        }
        if self.announced == Announced::Chunked {
            write_chunk_size(&mut self.wire.output.borrow_mut(), size);
            self.wire.flush_with(&[&self.gathered, more, b"\r\n"])?;
        } else {
            self.wire.flush_with(&[&self.gathered, more])?;
        }
        self.gathered.clear();
        Ok(())
    }

    /// Ends the body; whether the connection can go on.
    fn finish(&mut self) -> io::Result<bool> {
        if let Some(squeezer) = self.squeezer.take() {
            squeezer.finish(&mut self.gathered)?;
        }
        if let Announced::Length(length) = self.announced {
            if self.written != length {
                return Err(io::Error::new(ErrorKind::WriteZero, "a body is shorter than announced"));
            }
        } else if self.trailers.is_empty()
            && let Some(head) = self.head.take()
        {
            // Nothing has left yet: its length is known after all.
            write_head(self.wire, &head, Announced::Length(self.gathered.len() as u64), self.terms);
            self.wire.output.borrow_mut().extend_from_slice(&self.gathered);
            self.give_back();
            return Ok(true);
        }
        if self.head.is_some() || !self.gathered.is_empty() {
            self.send_gathered()?;
        }
        if self.announced == Announced::Chunked {
            write_last_chunk(&mut self.wire.output.borrow_mut(), &self.trailers);
        }
        self.give_back();
        Ok(self.announced != Announced::UntilClose)
    }

    fn give_back(&mut self) {
        let mut gathered = std::mem::take(&mut self.gathered);
        if gathered.capacity() <= COPIED_BODY_BYTES_MAX {
            gathered.clear();
            *self.wire.spare.borrow_mut() = gathered;
        }
    }
}

impl Write for BodyWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // Before it takes anything. Should it be broken off later, nothing more is sent.
        begin().over();
        if let Announced::Length(length) = self.announced
            && bytes.len() as u64 > length - self.written
        {
            return Err(io::Error::new(ErrorKind::InvalidInput, "a body is longer than announced"));
        }
        if bytes.len() >= CHUNK_SIZE_BYTES && self.squeezer.is_none() {
            self.send_with(bytes)?;
            self.written += bytes.len() as u64;
            return Ok(bytes.len());
        }
        let count = bytes.len().min(CHUNK_SIZE_BYTES);
        match &mut self.squeezer {
            Some(squeezer) => squeezer.write(&bytes[..count], &mut self.gathered)?,
            None => self.gathered.extend_from_slice(&bytes[..count]),
        }
        self.written += count as u64;
        if self.gathered.len() >= CHUNK_SIZE_BYTES {
            self.send_gathered()?;
        }
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        begin().over();
        if let Some(squeezer) = &mut self.squeezer {
            squeezer.flush(&mut self.gathered)?;
        }
        self.send_gathered()
    }
}
