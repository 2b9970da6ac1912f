//! TCP in a simulation: what a program sees of connections, not how segments carry them.
//!
//! Each write is one segment. A lost one is sent again after a time that doubles, and what came after it waits; a
//! partition is a loss until it heals, or until the sender gives up. Acknowledgements are left out but for their
//! effect: bytes that the peer has read make room for others one latency later. Two that connect to each other at the same
//! moment, from the port that the other connects to, meet in one connection.
//!
//! Here is what a machine's kernel keeps of connections; how packets travel is in `transport`, what programs hold in
//! `socket`. What it is not: congestion control, segment sizes, fast retransmission.

mod socket;
mod transport;

use std::cell::Cell;
use std::collections::{BTreeMap, VecDeque};
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::rc::Rc;

pub(crate) use socket::{TcpListener, TcpStream};

use super::host::{HostState, Process};
use crate::cell::RefCell;
use crate::sync::Waiters;

/// What travels.
#[derive(Clone, Copy, Debug)]
pub(super) enum Packet {
    Syn,
    SynAck,
    /// The handshake's third.
    Ack,
    /// Bytes, or the end of them, by their number in the sender's queue.
    Segment(u64),
    /// So many bytes were read.
    Credit(usize),
    Reset,
    /// As a reset, from where nobody is: it goes to the end that sends it here.
    Refusal,
}

/// A packet leaves, or arrives.
pub(super) struct TcpEvent {
    /// The end that sends it. It may have died since.
    sender: Rc<End>,
    packet: Packet,
    attempt: u32,
    arrives: bool,
}

enum Segment {
    Bytes(Vec<u8>),
    End,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Connecting,
    Open,
    /// Nobody holds it any more; what was written may still be under way.
    Closed,
}

/// Whether a connection leads from an address that is no more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Stranded {
    No,
    /// This end's: who gets what it sends knows nothing of it.
    Here,
    /// The other end's: nobody gets what is sent there.
    There,
}

/// One end of a connection, as the machine's kernel keeps it.
pub(super) struct End {
    number: u64,
    process: Rc<Process>,
    local: SocketAddr,
    peer: SocketAddr,
    peer_host: Rc<HostState>,
    /// The other end; 0 while it is not known.
    peer_number: Cell<u64>,
    /// Whether a program has asked for it, and not a listener taken it.
    is_dialled: bool,
    state: Cell<State>,
    inbox: RefCell<VecDeque<u8>>,
    /// Arrived before one that was sent earlier.
    early: RefCell<BTreeMap<u64, Segment>>,
    next_in: Cell<u64>,
    /// Sent, and not arrived.
    outgoing: RefCell<BTreeMap<u64, Segment>>,
    next_out: Cell<u64>,
    /// Bytes written that the peer has not read, as far as we know.
    outstanding_bytes: Cell<usize>,
    in_ended: Cell<bool>,
    out_ended: Cell<bool>,
    /// Whether one of the two machines has another address now.
    stranded: Cell<Stranded>,
    /// Nothing comes or goes any more.
    broken: Cell<bool>,
    error: Cell<Option<ErrorKind>>,
    readers: Waiters,
    writers: Waiters,
}

/// All connections of a world.
#[derive(Default)]
pub(super) struct Ends {
    by_number: BTreeMap<u64, Rc<End>>,
    last_number: u64,
}

/// A listening socket, as the machine's kernel keeps it.
pub(super) struct Listening {
    process: Rc<Process>,
    address: SocketAddr,
    backlog: usize,
    /// Connected, and not accepted.
    queue: RefCell<VecDeque<Rc<End>>>,
    waiters: Waiters,
}

impl End {
    fn wake(&self) {
        self.readers.wake_all();
        self.writers.wake_all();
    }

    /// Nothing comes or goes any more.
    fn break_off(&self, error: Option<ErrorKind>) {
        if self.broken.replace(true) {
            return;
        }
        self.error.set(error);
        self.outgoing.borrow_mut().clear();
        self.early.borrow_mut().clear();
        self.outstanding_bytes.set(0);
        self.wake();
    }

    fn way(&self) -> (usize, usize) {
        (self.process.host().index(), self.peer_host.index())
    }

    fn names(&self) -> String {
        format!("{} -> {}", self.process.host().name(), self.peer_host.name())
    }

    /// Takes in what has arrived in its turn, and what waited for it.
    fn on_segment(&self, number: u64, segment: Segment) {
        let mut early = self.early.borrow_mut();
        early.insert(number, segment);
        while let Some(segment) = early.remove(&self.next_in.get()) {
            self.next_in.set(self.next_in.get() + 1);
            match segment {
                Segment::Bytes(bytes) => self.inbox.borrow_mut().extend(bytes),
                Segment::End => self.in_ended.set(true),
            }
        }
        drop(early);
        self.readers.wake_all();
    }
}

impl Listening {
    pub(super) fn is_of(&self, process: &Rc<Process>) -> bool {
        Rc::ptr_eq(&self.process, process)
    }

    /// Whether a client that asks for `address` is meant.
    pub(super) fn takes(&self, address: SocketAddr) -> bool {
        let bound = self.address.ip();
        bound.is_unspecified() || bound == address.ip()
    }

    pub(super) fn port(&self) -> u16 {
        self.address.port()
    }
}
