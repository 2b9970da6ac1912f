//! A relay's client: one connection, until it ends.
//!
//! Two peers who have met by TCP use the same: each is the other's relay, for itself only ([`over`]).

use std::cell::Cell;
use std::io::{self, ErrorKind, IoSlice};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::frame::{CREDENTIAL_BYTES_MAX, DATAGRAM_BYTES_MAX, Decoder, Frame, Refusal};
use super::seat::Seat;
use super::server::{invalid, unexpected};
use super::{
    BATCH_BYTES, DOUBT_AFTER, KEEP_ALIVE, LINE_SIGN_WITHIN, PROTOCOL, SIGN_WITHIN, SILENCE_MAX,
    UNSENT_BYTES_MAX,
};
use crate::cell::RefCell;
use crate::clock::{deadline_after, now};
use crate::coroutine::{Builder, JoinHandle};
use crate::crypto::Identity;
use crate::net::tls::{self, Expect, HANDSHAKE_TIMEOUT, TlsStream};
use crate::net::{Duplex, TcpStream};
use crate::sync::Waiters;
use crate::timeout;

/// Bytes that wait to be sent. Of more the newest are dropped: QUIC inside takes that for what it is, a path that is full.
const OUTBOX_BYTES_MAX: usize = 256 << 10;

/// The end that datagrams go in at. Clones are the same.
#[derive(Clone)]
pub struct Sender(Rc<Shared>);

/// The end that datagrams come out at, and whose end is the connection's: when it is dropped, the relay forgets us.
pub struct Receiver {
    shared: Rc<Shared>,
    decoder: Decoder,
    buffer: Vec<u8>,
    writer: JoinHandle<()>,
}

struct Shared {
    stream: TlsStream<TcpStream>,
    outbox: RefCell<Vec<u8>>,
    writer: Waiters,
    is_up: Cell<bool>,
    heard_at: Cell<Instant>,
    /// When it was asked for a sign that it is there, and has given none since.
    asked_at: Cell<Option<Instant>>,
    /// When the last ping was written, and how long its answer took.
    pinged_at: Cell<Option<Instant>>,
    round_trip: Cell<Option<Duration>>,
    /// Where the relay sees us.
    seen: Option<SocketAddr>,
    /// Why nothing is sent any more.
    write_error: Cell<Option<io::Error>>,
    /// Somebody waits for what comes: else a sign would not be seen.
    is_listening: Cell<bool>,
}

/// What comes from a relay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A datagram of a peer that has proved its id to the relay. To us it has proved nothing: what is inside must.
    Datagram {
        /// Whose it is, by the relay's word.
        from: Seat,
        /// What it says.
        bytes: Vec<u8>,
    },
    /// Something was sent to a seat that nobody has.
    Absent(Seat),
}

/// Registers with the relay at `address`, which has to be the one that is expected, as `identity`, to be found by its id.
/// `credential` is what the relay's [`Admission`](super::Admission) looks at.
///
/// # Errors
/// `PermissionDenied` when the relay takes others only, `QuotaExceeded` when it is full; `InvalidInput` for a credential of
/// more than [`CREDENTIAL_BYTES_MAX`]; those of TCP and of [`tls::connect`].
///
/// # Suspends
/// For three round trips.
pub fn connect(
    address: SocketAddr,
    expect: Expect,
    identity: &Rc<Identity>,
    credential: &[u8],
) -> io::Result<(Sender, Receiver)> {
    connect_in(address, expect, (identity, 0), credential)
}

/// As [`connect`], in the seat of that number.
pub(in crate::nat) fn connect_in(
    address: SocketAddr,
    expect: Expect,
    (identity, number): (&Rc<Identity>, u64),
    credential: &[u8],
) -> io::Result<(Sender, Receiver)> {
    if credential.len() > CREDENTIAL_BYTES_MAX {
        return Err(io::Error::new(ErrorKind::InvalidInput, "the credential is too long for a relay"));
    }
    let any: SocketAddr = match address {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    // Its port is shared with those connections that are to look as it does from outside.
    let stream = timeout(HANDSHAKE_TIMEOUT, || TcpStream::connect_from(any, address))??;
    let _ = stream.set_nodelay(true);
    let stream = tls::connect_speaking(stream, identity, expect, PROTOCOL)?;
    stream.keep_unsent_below(UNSENT_BYTES_MAX);
    let deadline = Some(deadline_after(HANDSHAKE_TIMEOUT));
    stream.get_ref().set_read_deadline(deadline);
    stream.get_ref().set_write_deadline(deadline);
    let mut hello = Vec::new();
    Frame::Hello { number, credential }.encode(&mut hello);
    stream.write_slices(&mut [IoSlice::new(&hello)])?;
    let (mut decoder, mut buffer) = (Decoder::default(), vec![0; BATCH_BYTES]);
    let seen = loop {
        match decoder.next_frame().map_err(invalid)? {
            Some(Frame::Welcome { seen }) => break seen,
            Some(Frame::Refused(refusal)) => return Err(refused(refusal)),
            Some(other) => return Err(unexpected(&other)),
            None => read_more(&stream, &mut decoder, &mut buffer)?,
        }
    };
    begin(stream, Some(seen), decoder, buffer)
}

/// A line between two peers, who have shaken hands over `stream` already.
///
/// # Errors
/// When there is no memory for another coroutine.
///
/// # Suspends
/// Never.
pub(in crate::nat) fn over(stream: TlsStream<TcpStream>) -> io::Result<(Sender, Receiver)> {
    stream.keep_unsent_below(UNSENT_BYTES_MAX);
    let (sender, receiver) = begin(stream, None, Decoder::default(), vec![0; BATCH_BYTES])?;
    // Its answer tells how far the other is.
    sender.0.ask(&mut sender.0.outbox.borrow_mut());
    sender.0.writer.wake_all();
    Ok((sender, receiver))
}

fn begin(
    stream: TlsStream<TcpStream>,
    seen: Option<SocketAddr>,
    decoder: Decoder,
    buffer: Vec<u8>,
) -> io::Result<(Sender, Receiver)> {
    let writer = Waiters::new(&"datagrams for a relay");
    let shared = Rc::new(Shared {
        stream,
        outbox: RefCell::default(),
        writer,
        is_up: Cell::new(true),
        heard_at: Cell::new(now()),
        asked_at: Cell::new(None),
        pinged_at: Cell::new(None),
        round_trip: Cell::new(None),
        seen,
        write_error: Cell::new(None),
        is_listening: Cell::new(false),
    });
    let of_writer = shared.clone();
    let writing = move || {
        if let Err(error) = write(&of_writer) {
            of_writer.write_error.set(Some(error));
        }
        of_writer.end();
    };
    let writer = Builder::new().name("relay").spawn(writing).map_err(io::Error::other)?;
    Ok((Sender(shared.clone()), Receiver { shared, decoder, buffer, writer }))
}

impl Sender {
    /// Sends a datagram to a client of the same relay; whether it is under way. It never waits: where the line is full the
    /// datagram is dropped, and nobody knows whether one arrives.
    ///
    /// # Panics
    /// If it is longer than [`DATAGRAM_BYTES_MAX`].
    pub fn send(&self, to: impl Into<Seat>, datagram: &[u8]) -> bool {
        assert!(datagram.len() <= DATAGRAM_BYTES_MAX, "a datagram of {} bytes", datagram.len());
        let shared = &self.0;
        let mut outbox = shared.outbox.borrow_mut();
        let has_room = shared.is_up.get() && outbox.len() + datagram.len() <= OUTBOX_BYTES_MAX;
        if has_room {
            Frame::Datagram { seat: to.into(), bytes: datagram }.encode(&mut outbox);
            shared.writer.wake_all();
        }
        has_room
    }

    /// Our own end of the connection.
    ///
    /// # Errors
    /// When it is gone.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.stream.get_ref().local_addr()
    }

    /// The other end of the connection.
    ///
    /// # Errors
    /// When it is gone.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.0.stream.get_ref().peer_addr()
    }

    /// Where the relay sees us; `None` on a line between two peers.
    pub fn seen(&self) -> Option<SocketAddr> {
        self.0.seen
    }

    /// How long the last ping and its answer took, once there was one.
    pub fn round_trip(&self) -> Option<Duration> {
        self.0.round_trip.get()
    }

    /// Ends the connection, for all who have a clone. Never suspends.
    pub(in crate::nat) fn close(&self) {
        self.0.end();
    }

    /// Whether both are the same connection.
    pub(in crate::nat) fn is(&self, other: &Sender) -> bool {
        Rc::ptr_eq(&self.0, &other.0)
    }

    /// Whether the connection stands, as far as is known.
    pub fn is_up(&self) -> bool {
        self.0.is_up.get()
    }
}

impl Receiver {
    /// What comes next.
    ///
    /// # Errors
    /// When the connection has ended, for good: `ConnectionAborted` when the same identity has registered anew, from another
    /// process say; `TimedOut` after [`SILENCE_MAX`]; those of the stream.
    ///
    /// # Suspends
    /// Until something comes.
    pub fn receive(&mut self) -> io::Result<Event> {
        self.next_event().map_err(|error| {
            self.shared.end();
            // Whoever wrote may have been first to know, and has broken it off.
            self.shared.write_error.take().unwrap_or(error)
        })
    }

    fn next_event(&mut self) -> io::Result<Event> {
        let stream = &self.shared.stream;
        loop {
            match self.decoder.next_frame().map_err(invalid)? {
                Some(Frame::Datagram { seat, bytes }) => {
                    return Ok(Event::Datagram { from: seat, bytes: bytes.to_vec() });
                }
                Some(Frame::Absent { seat }) => return Ok(Event::Absent(seat)),
                Some(Frame::Pong) => self.shared.on_pong(),
                // A relay asks nothing; a peer does, and is answered if it takes what it is sent.
                Some(Frame::Ping) if self.shared.is_line() => {
                    let mut outbox = self.shared.outbox.borrow_mut();
                    if outbox.len() <= OUTBOX_BYTES_MAX {
                        Frame::Pong.encode(&mut outbox);
                        self.shared.writer.wake_all();
                    }
                }
                Some(Frame::Refused(refusal)) => return Err(refused(refusal)),
                Some(other) => return Err(unexpected(&other)),
                None => {
                    stream.get_ref().set_read_deadline(Some(deadline_after(SILENCE_MAX)));
                    let _listening = Listening::begin(&self.shared.is_listening);
                    read_more(stream, &mut self.decoder, &mut self.buffer)?;
                    self.shared.on_heard();
                }
            }
        }
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.writer.terminate();
        self.shared.end();
    }
}

/// Somebody listens, until it is dropped, also when they are terminated in the middle.
struct Listening<'a>(&'a Cell<bool>);

impl Listening<'_> {
    fn begin(is_listening: &Cell<bool>) -> Listening<'_> {
        is_listening.set(true);
        Listening(is_listening)
    }
}

impl Drop for Listening<'_> {
    fn drop(&mut self) {
        self.0.set(false);
    }
}

impl Shared {
    /// Whether there is no relay: the other side is the peer.
    fn is_line(&self) -> bool {
        self.seen.is_none()
    }

    fn sign_within(&self) -> Duration {
        if self.is_line() { LINE_SIGN_WITHIN } else { SIGN_WITHIN }
    }

    /// Asks for a sign, with what is sent next.
    fn ask(&self, batch: &mut Vec<u8>) {
        Frame::Ping.encode(batch);
        self.asked_at.set(Some(now()));
        self.pinged_at.set(Some(now()));
    }

    fn on_pong(&self) {
        if let Some(at) = self.pinged_at.take() {
            self.round_trip.set(Some(now().saturating_duration_since(at)));
        }
    }

    fn on_heard(&self) {
        self.heard_at.set(now());
        if self.asked_at.take().is_some() {
            self.writer.wake_all();
        }
    }

    fn end(&self) {
        self.is_up.set(false);
        self.stream.abort();
    }
}

fn read_more(stream: &TlsStream<TcpStream>, decoder: &mut Decoder, buffer: &mut [u8]) -> io::Result<()> {
    match stream.read_some(buffer)? {
        0 => Err(io::Error::new(ErrorKind::UnexpectedEof, "the other side has ended the connection")),
        size => {
            decoder.push(&buffer[..size]);
            Ok(())
        }
    }
}

/// Sends what is in the outbox, and something now and then. Suspends until the line breaks, or the relay gives no sign.
fn write(shared: &Shared) -> io::Result<()> {
    let mut sent_at = now();
    loop {
        let asked_at = shared.asked_at.get();
        let due = match asked_at {
            Some(at) => at + shared.sign_within(),
            // A peer answers most of what it is sent: where it does not, it may be gone.
            None if shared.is_line() && sent_at > shared.heard_at.get() => sent_at + DOUBT_AFTER,
            None => sent_at + KEEP_ALIVE,
        };
        let batch = shared.writer.wait(Some(due), || {
            let batch = shared.outbox.take();
            // Also when the sign has come: there is more time then.
            (!batch.is_empty() || shared.asked_at.get() != asked_at).then_some(batch)
        });
        let mut batch = match batch {
            Err(error) if error.kind() == ErrorKind::TimedOut && asked_at.is_some() => {
                if shared.is_listening.get() {
                    return Err(io::Error::new(ErrorKind::TimedOut, "the other side gives no sign"));
                }
                shared.asked_at.set(None);
                continue;
            }
            Err(error) if error.kind() == ErrorKind::TimedOut => Vec::new(),
            Ok(batch) if batch.is_empty() => continue,
            batch => batch?,
        };
        if asked_at.is_none() && (batch.is_empty() || now() >= shared.heard_at.get() + DOUBT_AFTER) {
            shared.ask(&mut batch);
        }
        shared.stream.get_ref().set_write_deadline(Some(deadline_after(SIGN_WITHIN)));
        shared.stream.write_slices(&mut [IoSlice::new(&batch)])?;
        sent_at = now();
    }
}

fn refused(refusal: Refusal) -> io::Error {
    let (kind, reason) = match refusal {
        Refusal::NotAdmitted => {
            (ErrorKind::PermissionDenied, "the relay takes others only: ask its owner to be let in")
        }
        Refusal::Full => (ErrorKind::QuotaExceeded, "the relay has as many clients as it takes: use another"),
        Refusal::Replaced => (
            ErrorKind::ConnectionAborted,
            "this identity has registered anew: it may be in use on another machine too",
        ),
    };
    io::Error::new(kind, reason)
}
