//! TCP between two peers whom nobody can dial: both connect at once, as `opening.rs` says, and what comes of it is a line to
//! that peer alone.
//!
//! It is used as a relay's connection is, and by the same code: datagrams go over it in frames, under TLS with the keys that the two
//! have everywhere. The connection above knows nothing of it, goes there from the relay when it stands, and back when it
//! falls. A way for datagrams is better, since nothing waits there behind what was lost: where one is found, the line ends.
//!
//! What is bounded: [`AT_ONCE`] openings, and [`LINES_MAX`] lines.
//!
//! What it is not: TCP to a peer who listens where it can be dialled; whoever knows its address needs no relay and none of
//! this.

use std::cell::Cell;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use super::core::Core;
use super::message::SessionTag;
use super::opening::{HEAD_START, LASTS, Tries, is_client};
use crate::cell::RefCell;
use crate::crypto::Identity;
use crate::nat::PeerId;
use crate::nat::relay::{self, Event, Seat, Sender};
use crate::net::quic::routes::virtual_address;
use crate::net::tls::{self, TlsStream};
use crate::net::{BindOptions, TcpListener, TcpStream};
use crate::sync::{Mutex, Waiters};
use crate::{now, scope, sleep, timeout};

/// What the two say that they speak when TLS shakes hands: no relay and no node takes it for its own.
const PROTOCOL: &str = "hypha-line/1";

/// Openings at once, each with a few sockets.
const AT_ONCE: usize = 8;
/// Peers who wait for theirs; more try again later.
const WAITING_MAX: usize = 64;
/// Lines that stand.
const LINES_MAX: usize = 256;

/// A handshake takes a round trip and a half; who is no peer of ours may say nothing at all.
const HANDSHAKE_LASTS: Duration = Duration::from_secs(3);

/// How often it is looked whether a better way was found meanwhile.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// A connection by TCP to one peer, which ends with this.
pub(super) struct Line {
    pub(super) sender: Sender,
    /// Where the peer is, as we see it.
    pub(super) address: SocketAddr,
}

impl Drop for Line {
    fn drop(&mut self) {
        self.sender.close();
    }
}

/// A peer to connect to.
struct Wanted {
    number: u64,
    /// The port that a relay sees.
    from: SocketAddr,
    towards: Vec<SocketAddr>,
}

/// Who waits for an opening.
pub(super) struct Openings {
    waiting: RefCell<VecDeque<Wanted>>,
    wanted: Waiters,
    lines: Cell<usize>,
}

impl Openings {
    pub(super) fn new() -> Openings {
        let wanted = Waiters::new(&"a peer to connect to by TCP");
        Openings { waiting: RefCell::default(), wanted, lines: Cell::new(0) }
    }

    /// Has the peer of that number connected to, `from` an address of ours that it was told of.
    pub(super) fn ask_for(&self, number: u64, from: SocketAddr, towards: Vec<SocketAddr>) {
        let mut waiting = self.waiting.borrow_mut();
        let is_known = waiting.iter().any(|wanted| wanted.number == number);
        if waiting.len() < WAITING_MAX && !is_known && self.lines.get() < LINES_MAX {
            waiting.push_back(Wanted { number, from, towards });
            self.wanted.wake_all();
        }
    }
}

/// Opens lines to those who are asked for, a few at a time, and carries what comes by them, until it is terminated.
pub(super) fn run(core: &Core, identity: &Rc<Identity>, seat: Seat) {
    let (active, openings) = (&Cell::new(0), &core.openings);
    scope(|s| {
        loop {
            let next = || {
                let has_room = active.get() < AT_ONCE;
                has_room.then(|| openings.waiting.borrow_mut().pop_front()).flatten()
            };
            let Ok(wanted) = openings.wanted.wait(None, next) else { return };
            active.set(active.get() + 1);
            let opening = s.try_spawn(move || {
                let met = meet(core, identity, seat, &wanted);
                active.set(active.get() - 1);
                openings.wanted.wake_all();
                if let Some(stream) = met {
                    openings.lines.set(openings.lines.get() + 1);
                    carry(core, wanted.number, stream);
                    openings.lines.set(openings.lines.get() - 1);
                }
            });
            if opening.is_err() {
                active.set(active.get() - 1);
            }
        }
    });
}

/// Connects to all addresses of a peer at once, until one has led to it, or to nobody.
fn meet(core: &Core, identity: &Rc<Identity>, seat: Seat, wanted: &Wanted) -> Option<TlsStream<TcpStream>> {
    let (peer, begins) = (core.seat_of(wanted.number)?, now() + HEAD_START);
    let _ = core.path_changed.wait(Some(begins), || (!core.wants_line(wanted.number)).then_some(()));
    if !core.wants_line(wanted.number) {
        return None;
    }
    let (met, left) = (&RefCell::new(None), &Cell::new(0_i32));
    let (done, shaking) = (&Waiters::new(&"a peer's connection"), &Mutex::new(()));
    scope(|s| {
        let end = now() + LASTS + HANDSHAKE_LASTS;
        let shake = move |stream| shake_hands(stream, identity, (seat, peer), shaking);
        let found = move |stream: Option<TlsStream<TcpStream>>| {
            if let Some(stream) = stream {
                met.borrow_mut().get_or_insert(stream);
            }
            left.set(left.get() - 1);
            done.wake_all();
        };
        for to in wanted.towards.iter().filter(|to| to.is_ipv4() == wanted.from.is_ipv4()) {
            let is_wanted = || core.wants_line(wanted.number);
            let trying = s.try_spawn(move || found(connect((wanted.from, *to), is_wanted, shake)));
            left.set(left.get() + i32::from(trying.is_ok()));
        }
        // It counts as one more, which ends with the others.
        let _ = s.try_spawn(move || {
            if let Some(stream) = accept(wanted, shake) {
                left.set(left.get() + 1);
                found(Some(stream));
            }
        });
        let is_over =
            || met.borrow().is_some() || left.get() == 0 || now() >= end || !core.wants_line(wanted.number);
        while !is_over() {
            let _ = done.wait(Some(end.min(now() + LOOK_EVERY)), || is_over().then_some(()));
        }
        s.terminate_children();
    });
    met.take()
}

/// Connects to one address, and again, until `shake_hands` has found the peer there, or nobody wants it any more.
fn connect<T>(
    (from, to): (SocketAddr, SocketAddr),
    is_wanted: impl Fn() -> bool,
    shake_hands: impl Fn(TcpStream) -> Option<T>,
) -> Option<T> {
    let mut tries = Tries::new(now());
    while let Some(lasts) = tries.next(now()).filter(|_| is_wanted()) {
        match timeout(lasts, || TcpStream::connect_from(from, to)) {
            Ok(Ok(stream)) => {
                if let Some(found) = shake_hands(stream) {
                    return Some(found);
                }
                sleep(tries.on_failed());
            }
            Ok(Err(error)) => {
                tracing::trace!("TCP from {from} to {to}: {error}");
                sleep(tries.on_failed());
            }
            // Nobody has answered in time.
            Err(_) => {}
        }
    }
    None
}

/// Takes the peer's connection where that comes between two of ours: the kernel would refuse it. Without a listener, what is sent at
/// the same distance again and again may be refused each time.
fn accept<T>(wanted: &Wanted, shake_hands: impl Fn(TcpStream) -> Option<T>) -> Option<T> {
    let shared = BindOptions { reuse_port: true, ..BindOptions::default() };
    let listener = TcpListener::bind_with(wanted.from, &shared).ok()?;
    loop {
        let (stream, from) = listener.accept().ok()?;
        let is_expected = wanted.towards.iter().any(|to| to.ip() == from.ip().to_canonical());
        if let Some(found) = Some(stream).filter(|_| is_expected).and_then(&shake_hands) {
            return Some(found);
        }
    }
}

/// Finds out whether the peer is there; as the client one at a time, so that both sides end up with the same connection.
fn shake_hands(
    stream: TcpStream,
    identity: &Rc<Identity>,
    (own, peer): (Seat, Seat),
    shaking: &Mutex<()>,
) -> Option<TlsStream<TcpStream>> {
    let expect = peer.peer.expected();
    let shaken = if is_client(own, peer) {
        let _one_at_a_time = shaking.lock();
        timeout(HANDSHAKE_LASTS, || tls::connect_speaking(stream, identity, expect, PROTOCOL))
    } else {
        timeout(HANDSHAKE_LASTS, || tls::accept_speaking(stream, identity, &[PROTOCOL]))
    };
    match shaken {
        Ok(Ok(stream)) if PeerId::from(stream.peer()) == peer.peer => Some(stream),
        Ok(Ok(_)) => None,
        Ok(Err(error)) => {
            tracing::debug!("{} is not where TCP has led to: {error}", peer.peer);
            None
        }
        Err(_) => None,
    }
}

/// Gives the peer its line, and takes what comes by it, until it ends.
fn carry(core: &Core, number: u64, stream: TlsStream<TcpStream>) {
    let Ok(address) = stream.get_ref().peer_addr() else { return };
    let Ok((sender, mut receiver)) = relay::over(stream) else { return };
    core.set_line(number, Line { sender: sender.clone(), address });
    let error = loop {
        match receiver.receive() {
            Ok(Event::Datagram { bytes, .. }) => core.on_line(number, &bytes),
            Ok(Event::Absent(_)) => {}
            Err(error) => break error,
        }
    };
    tracing::debug!("the line to {address} by TCP: {error}");
    core.drop_line(number, &sender);
}

impl Core {
    fn seat_of(&self, number: u64) -> Option<Seat> {
        Some(self.table.borrow_mut().peer(number)?.seat)
    }

    /// Whether a peer is still reached over a relay only.
    fn wants_line(&self, number: u64) -> bool {
        let mut table = self.table.borrow_mut();
        table.peer(number).is_some_and(|peer| peer.is_up() && peer.paths.route().is_none())
    }

    fn set_line(&self, number: u64, line: Line) {
        let mut table = self.table.borrow_mut();
        let Some(peer) = table.peer(number).filter(|peer| peer.is_up() && peer.paths.route().is_none())
        else {
            return;
        };
        tracing::debug!("{} is reached by Some({}) now, by TCP", peer.seat.peer, line.address);
        peer.line = Some(line);
        peer.opening.start_over();
        peer.links.iter().for_each(|link| link.connection.on_better_path());
        drop(table);
        self.path_changed.wake_all();
    }

    /// A datagram has come by the line of that peer, whose key TLS has proved.
    fn on_line(&self, number: u64, bytes: &[u8]) {
        if SessionTag::of(bytes).is_some() {
            self.on_packet(None, None, bytes);
        } else {
            self.endpoint().on_datagram(virtual_address(number), bytes);
        }
    }

    /// The line has ended: the relay has the peer's packets again, unless something better was found.
    fn drop_line(&self, number: u64, sender: &Sender) {
        let mut table = self.table.borrow_mut();
        let Some(peer) = table.peer(number) else { return };
        if peer.line.take_if(|line| line.sender.is(sender)).is_none() {
            return;
        }
        if peer.paths.route().is_none() {
            tracing::debug!("{} is reached by None now, and was by TCP", peer.seat.peer);
            // What was sent there may not have arrived.
            peer.links.iter().for_each(|link| link.connection.ping());
            peer.paths.start_over(now());
            table.set_due(number, Some(now()));
        }
        drop(table);
        self.tell();
        self.path_changed.wake_all();
    }
}
