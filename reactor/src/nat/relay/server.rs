//! The relay: two coroutines a client, one that reads and one that writes.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::rc::Rc;

use super::frame::{Decoder, Frame, Refusal};
use super::seat::Seat;
use super::switch::{Fate, Quota, Switch, Ticket};
use super::{BATCH_BYTES, PROTOCOL, SILENCE_MAX, UNSENT_BYTES_MAX};
use crate::cell::RefCell;
use crate::clock::{deadline_after, now};
use crate::coroutine::Builder;
use crate::crypto::Identity;
use crate::nat::PeerId;
use crate::net::tls::{self, HANDSHAKE_TIMEOUT, TlsStream};
use crate::net::{Duplex, Gate, GateLimits, Guest, TcpListener, TcpStream};
use crate::scope;
use crate::sync::Waiters;

/// Who is told that a peer is not here, until it reads it: of more it is not told, and asks again.
const ABSENT_MAX: usize = 64;

/// Who may be a client.
pub trait Admission {
    /// Whether `peer`, who has proved that id, may register. `credential` is what it brings to show why, a passport say;
    /// anybody can have written it.
    ///
    /// # Suspends
    /// It may; the client waits as long.
    fn admits(&self, peer: PeerId, credential: &[u8]) -> bool;
}

impl<F: Fn(PeerId, &[u8]) -> bool> Admission for F {
    fn admits(&self, peer: PeerId, credential: &[u8]) -> bool {
        self(peer, credential)
    }
}

/// What a relay gives at most.
#[derive(Clone, Copy, Debug)]
pub struct RelayLimits {
    /// How many may come in. The default is 1,280 connections, of them 256 from one address, which may be a carrier's;
    /// and 256 strangers, of them 64 from one address.
    pub gate: GateLimits,
    /// What those who are in may use.
    pub quota: Quota,
}

impl Default for RelayLimits {
    fn default() -> RelayLimits {
        let gate = GateLimits {
            connections: 1_280,
            connections_per_address: 256,
            strangers: 256,
            strangers_per_address: 64,
        };
        RelayLimits { gate, quota: Quota::default() }
    }
}

/// A relay; see the module. Clones are the same relay, which may serve several listeners.
#[derive(Clone)]
pub struct Relay(Rc<Shared>);

struct Shared {
    identity: Rc<Identity>,
    admission: Box<dyn Admission>,
    gate: Gate,
    switch: RefCell<Switch>,
    mailboxes: RefCell<BTreeMap<Seat, Rc<Mailbox>>>,
}

/// What the writer of a client waits for, apart from the datagrams in the switch.
struct Mailbox {
    ticket: Ticket,
    writer: Waiters,
    owes_pong: Cell<bool>,
    absent: RefCell<BTreeSet<Seat>>,
    /// What it is told when its ticket is worth nothing any more.
    farewell: Cell<Refusal>,
}

/// A client's registration, given back when dropped.
struct Registration<'a> {
    shared: &'a Shared,
    mailbox: Rc<Mailbox>,
}

impl Relay {
    /// A relay that proves `identity` to its clients, and takes those whom `admission` lets in.
    pub fn new(identity: &Rc<Identity>, admission: impl Admission + 'static, limits: RelayLimits) -> Relay {
        Relay(Rc::new(Shared {
            identity: identity.clone(),
            admission: Box::new(admission),
            gate: Gate::new(limits.gate),
            switch: RefCell::new(Switch::new(limits.quota)),
            mailboxes: RefCell::default(),
        }))
    }

    /// Serves whoever connects. Its clients' connections end with it, when it is terminated.
    ///
    /// # Errors
    /// When the listener fails, for good.
    ///
    /// # Suspends
    /// Until then.
    pub fn serve(&self, listener: &TcpListener) -> io::Result<()> {
        scope(|s| {
            loop {
                let (stream, from) = match listener.accept() {
                    Ok(accepted) => accepted,
                    Err(error) => {
                        s.terminate_children();
                        return Err(error);
                    }
                };
                let Some(guest) = self.0.gate.knock(Some(from.ip())) else {
                    tracing::debug!("a relay is full: {from} is turned away");
                    continue;
                };
                let relay = self.clone();
                let attend = move || {
                    let _ = stream.set_nodelay(true);
                    let accepted = tls::accept_speaking(stream, &relay.0.identity, &[PROTOCOL]);
                    if let Err(error) = accepted.and_then(|stream| relay.attend(stream, guest)) {
                        tracing::debug!("a relay's client at {from}: {error}");
                    }
                };
                if let Err(error) = Builder::new().name("relay client").spawn_scoped(s, attend) {
                    tracing::warn!("a relay's client was turned away: {error}");
                }
            }
        })
    }

    /// Serves one client whose connection was accepted already, by who serves other protocols at the same port: it speaks
    /// [`PROTOCOL`]. `guest` is its place there, which is admitted when it is.
    ///
    /// # Errors
    /// Why it ended.
    ///
    /// # Suspends
    /// Until then.
    pub fn attend(&self, stream: TlsStream<TcpStream>, guest: Guest) -> io::Result<()> {
        self.0.attend(&stream, guest)
    }

    /// Clients that are registered.
    pub fn client_count(&self) -> usize {
        self.0.switch.borrow().client_count()
    }

    /// Those who are registered, each once, however many seats it has. Never suspends.
    pub fn clients(&self) -> Vec<PeerId> {
        self.0.switch.borrow().clients()
    }

    /// Turns a client out, from all of its seats, who may not be one any more. Never suspends.
    pub fn dismiss(&self, peer: PeerId) {
        let seats = self.0.switch.borrow_mut().dismiss(peer);
        for seat in seats {
            if let Some(mailbox) = self.0.mailboxes.borrow_mut().remove(&seat) {
                mailbox.owe(|own| own.farewell.set(Refusal::NotAdmitted));
            }
        }
    }
}

impl Shared {
    /// All of a client's life. Suspends until it ends.
    fn attend(&self, stream: &TlsStream<TcpStream>, mut guest: Guest) -> io::Result<()> {
        stream.keep_unsent_below(UNSENT_BYTES_MAX);
        let peer = PeerId::from(stream.peer());
        let seen = stream.get_ref().peer_addr()?;
        let seen = SocketAddr::new(seen.ip().to_canonical(), seen.port());
        let mut decoder = Decoder::default();
        stream.get_ref().set_read_deadline(Some(deadline_after(HANDSHAKE_TIMEOUT)));
        stream.get_ref().set_write_deadline(Some(deadline_after(HANDSHAKE_TIMEOUT)));
        let (number, credential) = read_hello(stream, &mut decoder)?;
        if !self.admission.admits(peer, &credential) {
            return refuse(stream, Refusal::NotAdmitted);
        }
        let registered = self.register(Seat { peer, number });
        let registration = match registered {
            Ok(registration) => registration,
            Err(refusal) => return refuse(stream, refusal),
        };
        guest.admit();
        let mailbox = &registration.mailbox;
        scope(|s| {
            let writing = s.spawn(|| {
                if let Err(error) = self.write(stream, seen, mailbox) {
                    tracing::debug!("a relay's client {peer}: {error}");
                }
                // The reader wakes, and ends.
                stream.abort();
            });
            let read = self.read(stream, &mut decoder, mailbox);
            writing.terminate();
            read
        })
    }

    fn register(&self, seat: Seat) -> Result<Registration<'_>, Refusal> {
        let ticket = self.switch.borrow_mut().register(seat, now())?;
        let mailbox = Rc::new(Mailbox {
            ticket,
            writer: Waiters::new(&"frames for a relay's client"),
            owes_pong: Cell::new(false),
            absent: RefCell::default(),
            farewell: Cell::new(Refusal::Replaced),
        });
        let earlier = self.mailboxes.borrow_mut().insert(seat, mailbox.clone());
        if let Some(earlier) = earlier {
            // Its writer says goodbye.
            earlier.writer.wake_all();
        }
        Ok(Registration { shared: self, mailbox })
    }

    /// Takes what the client sends. Suspends until it says nothing any more.
    fn read(&self, stream: &TlsStream<TcpStream>, decoder: &mut Decoder, own: &Mailbox) -> io::Result<()> {
        let mut buffer = vec![0; BATCH_BYTES];
        loop {
            while let Some(frame) = decoder.next_frame().map_err(invalid)? {
                match frame {
                    Frame::Datagram { seat, bytes } => self.pass_on(own, seat, bytes),
                    Frame::Ping => own.owe(|own| own.owes_pong.set(true)),
                    other => return Err(unexpected(&other)),
                }
            }
            stream.get_ref().set_read_deadline(Some(deadline_after(SILENCE_MAX)));
            let size = stream.read_some(&mut buffer)?;
            if size == 0 {
                return Ok(());
            }
            decoder.push(&buffer[..size]);
        }
    }

    fn pass_on(&self, own: &Mailbox, to: Seat, bytes: &[u8]) {
        let fate = self.switch.borrow_mut().on_datagram(own.ticket, to, bytes, now());
        match fate {
            Fate::Queued => {
                if let Some(mailbox) = self.mailboxes.borrow().get(&to) {
                    mailbox.writer.wake_all();
                }
            }
            Fate::Absent => own.owe(|own| {
                let mut absent = own.absent.borrow_mut();
                if absent.len() < ABSENT_MAX {
                    absent.insert(to);
                }
            }),
            Fate::OverQuota | Fate::QueueFull | Fate::MemoryFull | Fate::Stale => {
                tracing::trace!("a relay dropped {} bytes for {}: {fate:?}", bytes.len(), to.peer);
            }
        }
    }

    /// Gives the client what is for it. Suspends until it has registered anew, or takes nothing any more.
    fn write(&self, stream: &TlsStream<TcpStream>, seen: SocketAddr, own: &Mailbox) -> io::Result<()> {
        let mut out = Vec::new();
        Frame::Welcome { seen }.encode(&mut out);
        loop {
            // A client that takes nothing for so long gets nothing either.
            stream.get_ref().set_write_deadline(Some(deadline_after(SILENCE_MAX)));
            stream.write_slices(&mut [io::IoSlice::new(&out)])?;
            out.clear();
            let is_current = own.writer.wait(None, || {
                let mut switch = self.switch.borrow_mut();
                if own.owes_pong.take() {
                    Frame::Pong.encode(&mut out);
                }
                own.absent.take().into_iter().for_each(|seat| Frame::Absent { seat }.encode(&mut out));
                switch.take(own.ticket, BATCH_BYTES, &mut out);
                let is_current = switch.is_current(own.ticket);
                (!is_current || !out.is_empty()).then_some(is_current)
            })?;
            if !is_current {
                // That of what was written last may be long over.
                stream.get_ref().set_write_deadline(Some(deadline_after(SILENCE_MAX)));
                return refuse(stream, own.farewell.get());
            }
        }
    }
}

impl Mailbox {
    /// Notes something for the writer, and wakes it.
    fn owe(&self, note: impl FnOnce(&Mailbox)) {
        note(self);
        self.writer.wake_all();
    }
}

impl Drop for Registration<'_> {
    fn drop(&mut self) {
        let ticket = self.mailbox.ticket;
        let mut switch = self.shared.switch.borrow_mut();
        if switch.is_current(ticket) {
            self.shared.mailboxes.borrow_mut().remove(&ticket.seat());
        }
        switch.leave(ticket);
    }
}

/// The client's first frame: which seat it takes, and what it brings to be let in.
fn read_hello(stream: &TlsStream<TcpStream>, decoder: &mut Decoder) -> io::Result<(u64, Vec<u8>)> {
    let mut buffer = [0; 1_024];
    loop {
        match decoder.next_frame().map_err(invalid)? {
            Some(Frame::Hello { number, credential }) => return Ok((number, credential.to_vec())),
            Some(other) => return Err(unexpected(&other)),
            None => {}
        }
        let size = stream.read_some(&mut buffer)?;
        if size == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        decoder.push(&buffer[..size]);
    }
}

/// Says why not, and ends.
fn refuse(stream: &TlsStream<TcpStream>, refusal: Refusal) -> io::Result<()> {
    let mut out = Vec::new();
    Frame::Refused(refusal).encode(&mut out);
    stream.write_slices(&mut [io::IoSlice::new(&out)])?;
    stream.end()
}

pub(super) fn invalid(error: super::FrameError) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, error)
}

pub(super) fn unexpected(frame: &Frame<'_>) -> io::Error {
    io::Error::new(
        ErrorKind::InvalidData,
        format!("nobody expected {frame:?} here: the other side is no peer of ours"),
    )
}
