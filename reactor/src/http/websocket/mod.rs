//! WebSocket (RFC 6455), as a server and as a client: messages both ways, from different coroutines.
//!
//! `tungstenite` does the framing and never touches the stream: it reads from a buffer and writes into one, and is
//! borrowed only between two waits. So one coroutine may sit in [`WebSocket::recv`] while others send.
//!
//! What it is not: compression of messages (`permessage-deflate`), which tungstenite does not have.

mod handshake;

use std::cell::Cell;
use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::rc::Rc;
use std::time::Duration;

use http::Method;
use tungstenite::Message as Frame;
use tungstenite::handshake::derive_accept_key;
use tungstenite::protocol::frame::CloseFrame;
use tungstenite::protocol::frame::coding::CloseCode;
use tungstenite::protocol::{Role, WebSocketConfig};

pub(super) use self::handshake::Handshake;
use self::handshake::check_request;
use super::server::{Farewell, LINGER_BYTES_MAX, LINGER_TIME};
use super::{HeadLimits, Headers, Input, Request, Response, ResponseHead, write_request_line};
use crate::cell::RefCell;
use crate::coroutine::begin;
use crate::net::Duplex;
use crate::sync::Mutex;

/// What one message may be made of.
#[derive(Clone, Copy, Debug)]
pub struct WebSocketLimits {
    /// The longest message that is taken in: a peer that sends a longer one is let go.
    pub message_bytes: usize,
    /// After so long without a word the peer is asked for one (a ping), and after as long again it is let go.
    pub silence_time: Duration,
    /// How long a message may take to leave, at the slowest reader that is borne.
    pub write_time: Duration,
    /// Pages of any site may connect; else only those of the same host, which is what keeps a stranger's page from
    /// talking in a visitor's name. Clients that are no browsers say no origin and are let in either way.
    pub any_origin: bool,
}

impl Default for WebSocketLimits {
    /// Messages of 1 MiB, 30 s of silence, 30 s to write, pages of the same host.
    fn default() -> WebSocketLimits {
        WebSocketLimits {
            message_bytes: 1 << 20,
            silence_time: Duration::from_secs(30),
            write_time: Duration::from_secs(30),
            any_origin: false,
        }
    }
}

/// A message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// Text.
    Text(String),
    /// Bytes.
    Binary(Vec<u8>),
}

impl From<&str> for Message {
    fn from(text: &str) -> Message {
        Message::Text(text.to_owned())
    }
}

impl From<String> for Message {
    fn from(text: String) -> Message {
        Message::Text(text)
    }
}

impl From<Vec<u8>> for Message {
    fn from(bytes: Vec<u8>) -> Message {
        Message::Binary(bytes)
    }
}

/// An open WebSocket. Sharing it is enough: all its methods take `&self`.
pub struct WebSocket<'a> {
    stream: Stream<'a>,
    protocol: RefCell<tungstenite::WebSocket<Buffers>>,
    /// Held by whoever writes to the stream: messages must not mix.
    turn: Mutex<()>,
    limits: WebSocketLimits,
    broken: Cell<bool>,
    /// The peer has broken the rules, or the line: what else it sends has no meaning.
    failed: Cell<Option<ErrorKind>>,
    /// A message that was taken from the stream, and that nobody has been given yet.
    arrived: RefCell<Option<Message>>,
    /// A server's: until it has said that it goes away.
    farewell: RefCell<Option<Rc<Farewell>>>,
    subprotocol: Option<String>,
}

enum Stream<'a> {
    Borrowed(&'a dyn Duplex),
    Owned(Box<dyn Duplex>),
}

impl Stream<'_> {
    fn get(&self) -> &dyn Duplex {
        match self {
            Stream::Borrowed(stream) => *stream,
            Stream::Owned(stream) => &**stream,
        }
    }
}

/// What tungstenite takes for the stream: it never waits.
#[derive(Default)]
struct Buffers {
    incoming: Vec<u8>,
    start: usize,
    ended: bool,
    outgoing: Vec<u8>,
}

impl Read for Buffers {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.start == self.incoming.len() {
            return if self.ended { Ok(0) } else { Err(ErrorKind::WouldBlock.into()) };
        }
        let count = buffer.len().min(self.incoming.len() - self.start);
        buffer[..count].copy_from_slice(&self.incoming[self.start..self.start + count]);
        self.start += count;
        Ok(count)
    }
}

impl Write for Buffers {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.outgoing.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Answers a request for a WebSocket: `talk` has it, and it is closed when `talk` returns.
///
/// When the server drains the client is told that it goes away (1001), as soon as `talk` waits for a message; there is none
/// any more when the client has answered.
///
/// # Examples
///
/// ```
/// use reactor::http::{Method, Server, WebSocketLimits, websocket};
///
/// let server = Server::new().route(Method::GET, "/echo", |request| {
///     websocket(request, WebSocketLimits::default(), |socket| {
///         while let Some(message) = socket.recv()? {
///             socket.send(message)?;
///         }
///         Ok(())
///     })
/// });
/// ```
pub fn websocket(
    request: &Request<'_>,
    limits: WebSocketLimits,
    talk: impl FnOnce(&WebSocket<'_>) -> io::Result<()> + 'static,
) -> Response {
    let key = match check_request(request, &limits) {
        Ok(key) => key,
        Err(response) => return response,
    };
    let accept = derive_accept_key(key);
    let farewell = Rc::new(request.farewell());
    Response::upgrade("websocket", move |upgraded| {
        let stream = Stream::Borrowed(upgraded.stream);
        let socket = WebSocket::new(stream, upgraded.received, Role::Server, limits);
        *socket.farewell.borrow_mut() = Some(farewell);
        if let Err(error) = talk(&socket) {
            tracing::debug!("a WebSocket's handler failed, or its line broke: {error}");
            // RFC 6455 section 7.4.1: what kept us from doing what was asked.
            let _ = socket.close_as(CloseCode::Error);
        } else if let Err(error) = socket.close() {
            tracing::debug!("a WebSocket broke: {error}");
        }
    })
    .header("Sec-WebSocket-Accept", accept)
}

impl<'a> WebSocket<'a> {
    fn new(stream: Stream<'a>, received: Vec<u8>, role: Role, limits: WebSocketLimits) -> WebSocket<'a> {
        let config = WebSocketConfig::default()
            .max_message_size(Some(limits.message_bytes))
            .max_frame_size(Some(limits.message_bytes))
            .read_buffer_size(8 << 10)
            .write_buffer_size(0);
        let protocol =
            tungstenite::WebSocket::from_partially_read(Buffers::default(), received, role, Some(config));
        WebSocket {
            stream,
            protocol: RefCell::new(protocol),
            turn: Mutex::new(()),
            limits,
            broken: Cell::new(false),
            failed: Cell::new(None),
            arrived: RefCell::default(),
            farewell: RefCell::default(),
            subprotocol: None,
        }
    }

    /// Asks the server on the other end of `stream` for the WebSocket at `target`. With a URL, headers, TLS or a proxy:
    /// [`super::client::Client::websocket`].
    ///
    /// # Errors
    ///
    /// `InvalidInput` for a host or target that is none; `ConnectionRefused` when the server answers otherwise;
    /// `InvalidData` when it does not speak HTTP; those of `stream`.
    ///
    /// # Suspends
    ///
    /// For a round trip; bound it with [`crate::timeout`].
    pub fn connect(
        stream: impl Duplex,
        host: &str,
        target: &str,
        limits: WebSocketLimits,
    ) -> io::Result<WebSocket<'static>> {
        let invalid = |error| io::Error::new(ErrorKind::InvalidInput, error);
        let handshake = Handshake::new(Vec::new());
        let mut headers = Headers::new();
        headers.push("Host", host).map_err(|error| invalid(error.to_string()))?;
        for (name, value) in handshake.fields() {
            headers.push(name, value).map_err(|error| invalid(error.to_string()))?;
        }
        let mut request = Vec::new();
        write_request_line(&mut request, &Method::GET, target).map_err(|error| invalid(error.to_string()))?;
        headers.write(&mut request);
        request.extend_from_slice(b"\r\n");
        stream.write_slices(&mut [IoSlice::new(&request)])?;

        let (mut input, mut head) = (Input::new(), ResponseHead::new());
        loop {
            let parsed = head.parse(input.bytes(), &HeadLimits::default());
            match parsed.map_err(|error| io::Error::new(ErrorKind::InvalidData, error))? {
                Some(size) => {
                    input.consume(size);
                    break;
                }
                None if !input.fill(&stream)? => return Err(ErrorKind::UnexpectedEof.into()),
                None => {}
            }
        }
        let subprotocol = handshake
            .read_answer(head.status(), head.headers())
            .map_err(|reason| io::Error::new(ErrorKind::ConnectionRefused, reason))?;
        Ok(WebSocket::client(Box::new(stream), input.take(), subprotocol, limits))
    }

    /// A client's, after a handshake that was agreed to.
    pub(super) fn client(
        stream: Box<dyn Duplex>,
        received: Vec<u8>,
        subprotocol: Option<String>,
        limits: WebSocketLimits,
    ) -> WebSocket<'static> {
        let socket = WebSocket::new(Stream::Owned(stream), received, Role::Client, limits);
        WebSocket { subprotocol, ..socket }
    }

    /// The protocol above the WebSocket that the server has chosen of those it was offered; a client's alone knows.
    pub fn subprotocol(&self) -> Option<&str> {
        self.subprotocol.as_deref()
    }

    /// The next message; `None` once the peer has closed. Pings are answered meanwhile.
    ///
    /// # Errors
    ///
    /// When the peer breaks the protocol or a limit, is silent for too long, or the stream breaks.
    ///
    /// # Suspends
    ///
    /// Until a message has come.
    pub fn recv(&self) -> io::Result<Option<Message>> {
        loop {
            let call = begin();
            let arrived = self.arrived.take();
            if arrived.is_some() {
                call.needed_no_wait();
                return Ok(arrived);
            }
            if let Some(kind) = self.failed.get() {
                return Err(io::Error::new(kind, "the peer broke the WebSocket off, or its rules, before"));
            }
            let step = match self.protocol.borrow_mut().read() {
                Ok(Frame::Text(text)) => Ok(Some(Message::Text(text.as_str().to_owned()))),
                Ok(Frame::Binary(bytes)) => Ok(Some(Message::Binary(bytes.into()))),
                Ok(_) => Ok(None),
                Err(error) => Err(error),
            };
            // Before anything waits: what comes behind a message that had to be refused is not to be taken for the next.
            self.failed.set(step.as_ref().err().and_then(failure));
            let step = step.map(|message| {
                if message.is_some() {
                    // Should this be cut short where pongs are flushed, the next call finds it.
                    self.arrived.replace(message);
                }
            });
            // Pongs, and the answer to a close.
            self.flush()?;
            match step {
                Ok(()) => call.needed_no_wait(),
                Err(tungstenite::Error::Io(error)) if error.kind() == ErrorKind::WouldBlock => {
                    self.fill()?;
                }
                // This counts as a call too, as one that fails does.
                Err(tungstenite::Error::ConnectionClosed | tungstenite::Error::AlreadyClosed) => {
                    return Ok(None);
                }
                Err(error) => return Err(self.give_up(error)),
            }
        }
    }

    /// Sends a message.
    ///
    /// # Errors
    ///
    /// `BrokenPipe` after a close; when the peer does not read for too long, or the stream breaks.
    ///
    /// # Suspends
    ///
    /// Until it is handed to the stream.
    pub fn send(&self, message: impl Into<Message>) -> io::Result<()> {
        let frame = match message.into() {
            Message::Text(text) => Frame::Text(text.into()),
            Message::Binary(bytes) => Frame::Binary(bytes.into()),
        };
        // Only when it is our turn: what others have not sent yet must not gather here without bound.
        let turn = self.turn.lock();
        begin().over();
        let written = self.protocol.borrow_mut().write(frame);
        match written {
            Ok(()) => {}
            Err(tungstenite::Error::Io(error)) => return Err(error),
            Err(error) => return Err(io::Error::new(ErrorKind::BrokenPipe, error)),
        }
        self.flush_in_turn()?;
        drop(turn);
        Ok(())
    }

    /// Says goodbye, and waits for the peer's. What it sent before that is thrown away. Closing twice is fine.
    ///
    /// # Errors
    ///
    /// When the stream breaks first.
    ///
    /// # Suspends
    ///
    /// For a round trip, and no longer than the limit on silence.
    pub fn close(&self) -> io::Result<()> {
        self.close_as(CloseCode::Normal)
    }

    fn close_as(&self, code: CloseCode) -> io::Result<()> {
        self.say_goodbye(code)?;
        let rest = crate::timeout(self.limits.silence_time, || self.hear_out());
        let _ = self.stream.get().end_within(self.limits.write_time);
        rest.unwrap_or_else(|elapsed| Err(elapsed.into()))
    }

    /// Reads to the peer's goodbye; where it has broken the rules for a moment only, so that it reads ours: it waits for us to end
    /// (RFC 6455, section 7.1.7).
    fn hear_out(&self) -> io::Result<()> {
        loop {
            match self.recv() {
                Ok(Some(_)) => {}
                Ok(None) => return Ok(()),
                Err(error) => {
                    if self.failed.get().is_some() {
                        let _ = crate::timeout(LINGER_TIME, || self.throw_away());
                    }
                    return Err(error);
                }
            }
        }
    }

    /// Reads what nobody wants any more, to the peer's end or until it is too much.
    fn throw_away(&self) {
        let (mut buffer, mut left) = ([0; 4 << 10], LINGER_BYTES_MAX);
        while let Ok(count) = self.stream.get().read_some(&mut buffer)
            && count > 0
            && left > count
        {
            left -= count;
        }
    }

    fn say_goodbye(&self, code: CloseCode) -> io::Result<()> {
        let said = self.protocol.borrow_mut().close(Some(CloseFrame { code, reason: "".into() }));
        match said {
            Ok(()) | Err(tungstenite::Error::ConnectionClosed | tungstenite::Error::AlreadyClosed) => {}
            Err(tungstenite::Error::Io(error)) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(io::Error::new(ErrorKind::BrokenPipe, error)),
        }
        self.flush()
    }

    /// The peer broke the rules: it is told which, as far as it listens.
    fn give_up(&self, error: tungstenite::Error) -> io::Error {
        let code = match &error {
            tungstenite::Error::Capacity(_) => CloseCode::Size,
            tungstenite::Error::Utf8(_) => CloseCode::Invalid,
            tungstenite::Error::Protocol(tungstenite::error::ProtocolError::ResetWithoutClosingHandshake) => {
                return io::Error::new(ErrorKind::UnexpectedEof, error);
            }
            tungstenite::Error::Io(_) => return io::Error::other(error),
            _ => CloseCode::Protocol,
        };
        // Who takes no goodbye takes no end of the stream either.
        if self.say_goodbye(code).is_ok() {
            let _ = self.stream.get().end_within(self.limits.write_time);
        } else {
            self.stream.get().abort();
        }
        io::Error::new(ErrorKind::InvalidData, error)
    }

    /// Reads some bytes; pings a peer that is silent, once.
    fn fill(&self) -> io::Result<()> {
        let mut pinged = false;
        let mut buffer = [0; 8 << 10];
        loop {
            let mut read =
                || crate::timeout(self.limits.silence_time, || self.stream.get().read_some(&mut buffer));
            let farewell = self.farewell.borrow().clone();
            let read = match farewell {
                None => read(),
                Some(farewell) => match farewell.wait(|| Ok(read())) {
                    Some(read) => read?,
                    None => {
                        // Said once; then it is the client's turn to answer, and what it has sent before still counts.
                        *self.farewell.borrow_mut() = None;
                        self.say_goodbye(CloseCode::Away)?;
                        continue;
                    }
                },
            };
            match read {
                Ok(count) => {
                    let count = count?;
                    let mut protocol = self.protocol.borrow_mut();
                    let buffers = protocol.get_mut();
                    buffers.incoming.clear();
                    buffers.incoming.extend_from_slice(&buffer[..count]);
                    (buffers.start, buffers.ended) = (0, count == 0);
                    return Ok(());
                }
                Err(elapsed) if pinged => return Err(elapsed.into()),
                Err(_) => {
                    pinged = true;
                    let ping = self.protocol.borrow_mut().write(Frame::Ping(Vec::new().into()));
                    ping.map_err(|error| io::Error::new(ErrorKind::BrokenPipe, error))?;
                    self.flush()?;
                }
            }
        }
    }

    fn flush(&self) -> io::Result<()> {
        if self.protocol.borrow().get_ref().outgoing.is_empty() {
            return Ok(());
        }
        let _turn = self.turn.lock();
        self.flush_in_turn()
    }

    fn flush_in_turn(&self) -> io::Result<()> {
        if self.broken.get() {
            return Err(ErrorKind::BrokenPipe.into());
        }
        loop {
            // Others may have run since it was our turn: here nothing has been taken yet.
            begin().over();
            let outgoing = std::mem::take(&mut self.protocol.borrow_mut().get_mut().outgoing);
            if outgoing.is_empty() {
                return Ok(());
            }
            // Should this be cut short, a frame has left in part: nothing can follow it.
            self.broken.set(true);
            crate::timeout(self.limits.write_time, || {
                self.stream.get().write_slices(&mut [IoSlice::new(&outgoing)])
            })??;
            self.broken.set(false);
        }
    }
}

/// What of the protocol's errors leaves nothing to be read any more.
fn failure(error: &tungstenite::Error) -> Option<ErrorKind> {
    use tungstenite::error::ProtocolError::ResetWithoutClosingHandshake;
    match error {
        tungstenite::Error::ConnectionClosed | tungstenite::Error::AlreadyClosed => None,
        tungstenite::Error::Io(error) if error.kind() == ErrorKind::WouldBlock => None,
        tungstenite::Error::Io(error) => Some(error.kind()),
        tungstenite::Error::Protocol(ResetWithoutClosingHandshake) => Some(ErrorKind::UnexpectedEof),
        _ => Some(ErrorKind::InvalidData),
    }
}
