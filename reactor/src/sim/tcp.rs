//! TCP in a simulation: what a program sees of connections, not how segments carry them.
//!
//! Each write is one segment. A lost one is sent again after a time that doubles, and what came after it waits; a
//! partition is a loss until it heals, or until the sender gives up. Acknowledgements are left out but for their
//! effect: bytes that the peer has read make room for others one latency later.
//!
//! What it is not: congestion control, segment sizes, fast retransmission.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr};
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::events::Event;
use super::host::{HostState, Process};
use super::trace::{What, format_time};
use super::waiters::Waiters;
use super::world::Inner;
use crate::select::{Waiter, source::Source};

/// The first wait for an acknowledgement: Linux's least, doubled at each try (RFC 6298, section 5.5).
const RETRY_FIRST: Duration = Duration::from_millis(200);

/// The same for the first segment of a connection, of which nothing is known yet (RFC 6298, section 2.1).
const HANDSHAKE_RETRY_FIRST: Duration = Duration::from_secs(1);

/// No wait is longer (Linux: TCP_RTO_MAX).
const RETRY_MAX: Duration = Duration::from_secs(120);

/// Tries after which a connection counts as dead: some 15 minutes (Linux: `tcp_retries2`).
const RETRIES_MAX: u32 = 15;

/// Tries after which a peer counts as absent: some two minutes (Linux: `tcp_syn_retries`).
const HANDSHAKE_RETRIES_MAX: u32 = 6;

/// After so long nobody has answered for an address that no machine has (Linux: three questions, one a second).
const NO_ROUTE_AFTER: Duration = Duration::from_secs(3);

/// Bytes of IP and TCP headers, which bandwidth is spent on too.
const HEADER_BYTES: usize = 40;

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

/// One end of a connection, as the machine's kernel keeps it.
pub(super) struct End {
    number: u64,
    process: Rc<Process>,
    local: SocketAddr,
    peer: SocketAddr,
    peer_host: Rc<HostState>,
    /// The other end; 0 while it is not known.
    peer_number: Cell<u64>,
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

/// A connection in a simulation.
pub(crate) struct TcpStream {
    end: Rc<End>,
    read_deadline: Cell<Option<Instant>>,
    write_deadline: Cell<Option<Instant>>,
}

/// A listening socket in a simulation.
pub(crate) struct TcpListener {
    state: Rc<Listening>,
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

impl Inner {
    fn add_end(
        &self,
        process: &Rc<Process>,
        local: SocketAddr,
        peer: SocketAddr,
        peer_host: &Rc<HostState>,
        peer_number: u64,
    ) -> Rc<End> {
        let mut ends = self.tcp.borrow_mut();
        ends.last_number += 1;
        let end = Rc::new(End {
            number: ends.last_number,
            process: process.clone(),
            local,
            peer,
            peer_host: peer_host.clone(),
            peer_number: Cell::new(peer_number),
            state: Cell::new(State::Connecting),
            inbox: RefCell::default(),
            early: RefCell::default(),
            next_in: Cell::new(0),
            outgoing: RefCell::default(),
            next_out: Cell::new(0),
            outstanding_bytes: Cell::new(0),
            in_ended: Cell::new(false),
            out_ended: Cell::new(false),
            broken: Cell::new(false),
            error: Cell::new(None),
            readers: Waiters::default(),
            writers: Waiters::default(),
        });
        ends.by_number.insert(end.number, end.clone());
        end
    }

    fn end_of(&self, number: u64) -> Option<Rc<End>> {
        self.tcp.borrow().by_number.get(&number).cloned()
    }

    pub(super) fn on_tcp(&self, event: TcpEvent) {
        let TcpEvent { sender, packet, attempt, arrives } = event;
        if arrives { self.on_arrival(&sender, packet, attempt) } else { self.leave(&sender, packet, attempt) }
    }

    /// Sends a packet that is repeated until it arrives.
    fn leave(&self, sender: &Rc<End>, packet: Packet, attempt: u32) {
        if sender.broken.get() {
            return;
        }
        let size = match packet {
            Packet::Segment(number) => match sender.outgoing.borrow().get(&number) {
                Some(Segment::Bytes(bytes)) => bytes.len(),
                Some(Segment::End) => 0,
                None => return,
            },
            _ => 0,
        };
        self.note(What::Send, sender.number, size as u64);
        match self.carry(sender.way(), size + HEADER_BYTES) {
            Some(time) => {
                self.tell(|| {
                    let at = format_time(self.elapsed() + time);
                    format!("{}  {}, arrives at {at}", sender.names(), describe(packet, size, sender))
                });
                let event = TcpEvent { sender: sender.clone(), packet, attempt, arrives: true };
                self.schedule(time, Event::Tcp(event));
            }
            None => {
                self.tell(|| format!("{}  {}: lost", sender.names(), describe(packet, size, sender)));
                self.retry(sender, packet, attempt);
            }
        }
    }

    fn retry(&self, sender: &Rc<End>, packet: Packet, attempt: u32) {
        let (first, limit) = match packet {
            Packet::Segment(_) => (RETRY_FIRST, RETRIES_MAX),
            _ => (HANDSHAKE_RETRY_FIRST, HANDSHAKE_RETRIES_MAX),
        };
        if attempt >= limit {
            self.tell(|| format!("{}  given up", sender.names()));
            sender.break_off(Some(ErrorKind::TimedOut));
            return;
        }
        let wait = RETRY_MAX.min(first * (1 << attempt));
        let event = TcpEvent { sender: sender.clone(), packet, attempt: attempt + 1, arrives: false };
        self.schedule(wait, Event::Tcp(event));
    }

    /// Sends a packet whose loss nobody would notice. A reset may get lost where there is a partition.
    fn leave_once(&self, sender: &Rc<End>, packet: Packet) {
        let (from, to) = sender.way();
        if self.network.borrow().is_cut(from, to) {
            return;
        }
        let time = self.network.borrow().least_latency(from, to);
        let event = TcpEvent { sender: sender.clone(), packet, attempt: 0, arrives: true };
        self.schedule(time, Event::Tcp(event));
    }

    fn on_arrival(&self, sender: &Rc<End>, packet: Packet, attempt: u32) {
        if !sender.peer_host.is_up() {
            if !matches!(packet, Packet::Credit(_) | Packet::Reset) {
                self.retry(sender, packet, attempt);
            }
            return;
        }
        self.note(What::Arrive, sender.number, packet_code(packet));
        let receiver = self.end_of(sender.peer_number.get());
        match packet {
            Packet::Syn => self.on_syn(sender, attempt),
            Packet::SynAck => match receiver {
                Some(client) if client.state.get() == State::Connecting && !client.broken.get() => {
                    client.state.set(State::Open);
                    client.wake();
                    self.leave(&client, Packet::Ack, 0);
                }
                // It has given up meanwhile.
                _ => self.refuse(sender),
            },
            Packet::Ack => {
                if let Some(server) = receiver {
                    self.on_handshake_end(sender, server);
                }
            }
            Packet::Segment(number) => {
                let Some(segment) = sender.outgoing.borrow_mut().remove(&number) else { return };
                match receiver {
                    Some(receiver) if receiver.state.get() != State::Closed && !receiver.broken.get() => {
                        receiver.on_segment(number, segment);
                    }
                    _ if matches!(segment, Segment::End) => {}
                    _ => self.refuse(sender),
                }
            }
            Packet::Credit(count) => {
                if let Some(writer) = receiver {
                    let left = writer.outstanding_bytes.get().saturating_sub(count);
                    writer.outstanding_bytes.set(left);
                    writer.writers.wake_all();
                }
            }
            Packet::Reset => {
                if let Some(receiver) = receiver {
                    let connecting = receiver.state.get() == State::Connecting;
                    let refused =
                        if connecting { ErrorKind::ConnectionRefused } else { ErrorKind::ConnectionReset };
                    receiver.break_off(Some(refused));
                }
            }
        }
    }

    /// Answers `sender` that nobody is there; it learns of that one latency later.
    fn refuse(&self, sender: &Rc<End>) {
        let (from, to) = sender.way();
        if self.network.borrow().is_cut(to, from) {
            return;
        }
        self.tell(|| format!("{} -> {}  reset", sender.peer_host.name(), sender.process.host().name()));
        let time = self.network.borrow().least_latency(to, from);
        self.schedule(time, Event::TcpRefused(sender.number));
    }

    pub(super) fn on_tcp_refused(&self, number: u64) {
        let Some(end) = self.end_of(number) else { return };
        let connecting = end.state.get() == State::Connecting;
        end.break_off(Some(if connecting {
            ErrorKind::ConnectionRefused
        } else {
            ErrorKind::ConnectionReset
        }));
    }

    fn on_syn(&self, client: &Rc<End>, attempt: u32) {
        let host = &client.peer_host;
        let listening = host.listening(client.peer);
        let Some(listening) = listening else { return self.refuse(client) };
        if listening.queue.borrow().len() >= listening.backlog {
            return self.retry(client, Packet::Syn, attempt);
        }
        let server =
            self.add_end(&listening.process, client.peer, client.local, client.process.host(), client.number);
        client.peer_number.set(server.number);
        self.leave(&server, Packet::SynAck, 0);
    }

    fn on_handshake_end(&self, client: &Rc<End>, server: Rc<End>) {
        if server.state.get() != State::Connecting {
            return;
        }
        let listening = server.process.host().listening(server.local);
        match listening {
            Some(listening) if Rc::ptr_eq(&listening.process, &server.process) => {
                server.state.set(State::Open);
                listening.queue.borrow_mut().push_back(server);
                listening.waiters.wake_all();
            }
            _ => {
                self.forget(&server);
                self.refuse(client);
            }
        }
    }

    fn send_segment(&self, end: &Rc<End>, segment: Segment) {
        let number = end.next_out.get();
        end.next_out.set(number + 1);
        end.outgoing.borrow_mut().insert(number, segment);
        self.leave(end, Packet::Segment(number), 0);
    }

    fn send_end(&self, end: &Rc<End>) {
        if !end.out_ended.replace(true) && !end.broken.get() {
            self.send_segment(end, Segment::End);
        }
    }

    fn forget(&self, end: &Rc<End>) {
        end.state.set(State::Closed);
        end.break_off(None);
        self.tcp.borrow_mut().by_number.remove(&end.number);
    }

    /// Closes it as the kernel does: with an end of stream, or a reset if something was left unread.
    fn close(&self, end: &Rc<End>) {
        let state = end.state.replace(State::Closed);
        if state == State::Closed {
            return;
        }
        let unread = !end.inbox.take().is_empty();
        if end.broken.get() || state == State::Connecting {
            // A peer that answers later is told so.
            self.forget(end);
            return;
        }
        if unread {
            self.leave_once_as_refusal(end);
            end.break_off(None);
        } else {
            self.send_end(end);
        }
        let peer = self.end_of(end.peer_number.get());
        if peer.is_none_or(|peer| peer.state.get() == State::Closed || peer.broken.get()) {
            // Nobody is left to see what arrives.
            let mut ends = self.tcp.borrow_mut();
            ends.by_number.remove(&end.number);
            ends.by_number.remove(&end.peer_number.get());
        }
    }

    /// A reset that outlives its sender.
    fn leave_once_as_refusal(&self, end: &Rc<End>) {
        match self.end_of(end.peer_number.get()) {
            Some(peer) => self.refuse(&peer),
            None => self.leave_once(end, Packet::Reset),
        }
    }

    /// The machine at `host` loses power: nobody is told.
    pub(super) fn on_power_cut(&self, host: &HostState) {
        for end in self.ends_of(|end| end.process.host().index() == host.index()) {
            // What has left the machine still arrives, so its queue stays.
            end.broken.set(true);
            end.state.set(State::Closed);
            self.tcp.borrow_mut().by_number.remove(&end.number);
        }
        host.close_all();
    }

    /// A process is killed: its kernel closes what it held.
    pub(super) fn on_kill(&self, process: &Rc<Process>) {
        let listening = process.host().take_listeners(process);
        for listening in listening {
            self.stop_listening(&listening);
        }
        for end in self.ends_of(|end| Rc::ptr_eq(&end.process, process)) {
            self.close(&end);
            end.wake();
        }
    }

    fn ends_of(&self, of: impl Fn(&End) -> bool) -> Vec<Rc<End>> {
        self.tcp.borrow().by_number.values().filter(|end| of(end)).cloned().collect()
    }

    fn stop_listening(&self, listening: &Listening) {
        let queue = listening.queue.take();
        for end in queue {
            self.leave_once_as_refusal(&end);
            self.forget(&end);
        }
    }
}

fn describe(packet: Packet, size: usize, sender: &End) -> String {
    match packet {
        Packet::Syn => format!("connects to port {}", sender.peer.port()),
        Packet::SynAck | Packet::Ack => "accepts".to_owned(),
        Packet::Segment(_) if size == 0 => "end of stream".to_owned(),
        Packet::Segment(_) => format!("{size} bytes"),
        Packet::Credit(count) => format!("{count} bytes were read"),
        Packet::Reset => "reset".to_owned(),
    }
}

fn packet_code(packet: Packet) -> u64 {
    match packet {
        Packet::Syn => 1,
        Packet::SynAck => 2,
        Packet::Ack => 3,
        Packet::Segment(number) => 16 + number,
        Packet::Credit(_) => 4,
        Packet::Reset => 5,
    }
}

fn crashed() -> io::Error {
    io::Error::new(ErrorKind::ConnectionAborted, "the simulated process has crashed")
}

impl TcpListener {
    pub(crate) fn bind(process: &Rc<Process>, address: SocketAddr, backlog: u32) -> io::Result<TcpListener> {
        process.check_alive()?;
        let host = process.host();
        let address = host.bindable(address, |port| host.listens_at(port))?;
        let state = Rc::new(Listening {
            process: process.clone(),
            address,
            backlog: backlog.max(1) as usize,
            queue: RefCell::default(),
            waiters: Waiters::default(),
        });
        host.add_listener(address.port(), state.clone());
        Ok(TcpListener { state })
    }

    pub(crate) fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        let end = self.state.waiters.wait(None, || {
            if !self.state.process.is_alive() {
                return Some(Err(crashed()));
            }
            self.state.queue.borrow_mut().pop_front().map(Ok)
        })??;
        let peer = end.peer;
        Ok((TcpStream::new(end), peer))
    }

    pub(crate) fn local_addr(&self) -> SocketAddr {
        self.state.address
    }
}

impl Drop for TcpListener {
    fn drop(&mut self) {
        let process = &self.state.process;
        if process.is_alive() {
            process.host().remove_listener(&self.state);
            process.world().stop_listening(&self.state);
        }
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

impl TcpStream {
    fn new(end: Rc<End>) -> TcpStream {
        TcpStream { end, read_deadline: Cell::new(None), write_deadline: Cell::new(None) }
    }

    pub(crate) fn connect(process: &Rc<Process>, address: SocketAddr) -> io::Result<TcpStream> {
        process.check_alive()?;
        let world = process.world();
        let Some(peer_host) = world.host_at(process, address.ip()) else {
            world.tell(|| format!("{} knows no way to {address}", process.host().name()));
            crate::sleep(NO_ROUTE_AFTER);
            return Err(io::Error::new(ErrorKind::HostUnreachable, "no machine has this address"));
        };
        let own: IpAddr =
            if address.ip().is_loopback() { address.ip() } else { process.host().address().into() };
        let address =
            if address.ip().is_unspecified() { SocketAddr::new(own, address.port()) } else { address };
        let local = SocketAddr::new(own, process.host().free_port(|_| false)?);
        let stream = TcpStream::new(world.add_end(process, local, address, &peer_host, 0));
        world.note(What::Connect, stream.end.number, u64::from(address.port()));
        world.leave(&stream.end, Packet::Syn, 0);
        let end = &stream.end;
        end.writers.wait(None, || (end.state.get() == State::Open || end.broken.get()).then_some(()))?;
        match end.error.take() {
            Some(error) => Err(error.into()),
            None if end.broken.get() => Err(crashed()),
            None => Ok(stream),
        }
    }

    fn world(&self) -> &Rc<Inner> {
        self.end.process.world()
    }

    /// What a read gives now; `None` if it would wait.
    fn try_read(&self, buffer: &mut [u8]) -> Option<io::Result<usize>> {
        let end = &self.end;
        if !end.process.is_alive() {
            return Some(Err(crashed()));
        }
        if buffer.is_empty() {
            return Some(Ok(0));
        }
        let count = end.inbox.borrow_mut().read(buffer).unwrap_or(0);
        if count > 0 {
            if !end.broken.get() {
                self.world().leave_once(end, Packet::Credit(count));
            }
            return Some(Ok(count));
        }
        if let Some(error) = end.error.take() {
            return Some(Err(error.into()));
        }
        (end.in_ended.get() || end.broken.get()).then_some(Ok(0))
    }

    pub(crate) fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.end.readers.wait(self.read_deadline.get(), || self.try_read(buffer))?
    }

    /// Reads into the first of `buffers` that has room.
    pub(crate) fn read_vectored(&self, buffers: &mut [io::IoSliceMut<'_>]) -> io::Result<usize> {
        match buffers.iter_mut().find(|buffer| !buffer.is_empty()) {
            Some(buffer) => self.read(buffer),
            None => Ok(0),
        }
    }

    /// Calls `write` with a writer that never waits, and again when there is room.
    pub(crate) fn write_with(
        &self,
        write: &mut dyn FnMut(&mut dyn Write) -> io::Result<usize>,
    ) -> io::Result<usize> {
        self.end.writers.wait(self.write_deadline.get(), || match write(&mut Writer(&self.end)) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => None,
            result => Some(result),
        })?
    }

    pub(crate) fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        let end = &self.end;
        if !end.process.is_alive() {
            return Err(crashed());
        }
        if end.broken.get() || end.state.get() != State::Open {
            return Err(ErrorKind::NotConnected.into());
        }
        if how != Shutdown::Write {
            end.in_ended.set(true);
        }
        if how != Shutdown::Read {
            self.world().send_end(end);
        }
        end.wake();
        Ok(())
    }

    pub(crate) fn peer_addr(&self) -> io::Result<SocketAddr> {
        if self.end.broken.get() { Err(ErrorKind::NotConnected.into()) } else { Ok(self.end.peer) }
    }

    pub(crate) fn local_addr(&self) -> SocketAddr {
        self.end.local
    }

    /// Whether there is nothing to read: no bytes, no end, no error.
    pub(crate) fn is_quiet(&self) -> bool {
        let end = &self.end;
        end.inbox.borrow().is_empty() && !end.in_ended.get() && !end.broken.get() && end.error.get().is_none()
    }

    pub(crate) fn set_read_deadline(&self, deadline: Option<Instant>) {
        self.read_deadline.set(deadline);
    }

    pub(crate) fn set_write_deadline(&self, deadline: Option<Instant>) {
        self.write_deadline.set(deadline);
    }
}

/// Writes as far as there is room, and says so when there is none.
struct Writer<'a>(&'a Rc<End>);

impl Write for Writer<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_vectored(&[IoSlice::new(bytes)])
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let end = self.0;
        if !end.process.is_alive() {
            return Err(crashed());
        }
        if let Some(error) = end.error.take() {
            return Err(error.into());
        }
        if end.broken.get() || end.out_ended.get() {
            return Err(ErrorKind::BrokenPipe.into());
        }
        let world = end.process.world();
        let mut room = world.config.tcp_window_bytes.saturating_sub(end.outstanding_bytes.get());
        let wanted: usize = slices.iter().map(|slice| slice.len()).sum();
        if wanted == 0 {
            return Ok(0);
        }
        if room == 0 {
            return Err(ErrorKind::WouldBlock.into());
        }
        let mut bytes = Vec::with_capacity(wanted.min(room));
        for slice in slices {
            let taken = slice.len().min(room);
            bytes.extend_from_slice(&slice[..taken]);
            room -= taken;
        }
        let count = bytes.len();
        end.outstanding_bytes.set(end.outstanding_bytes.get() + count);
        world.send_segment(end, Segment::Bytes(bytes));
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for TcpStream {
    fn drop(&mut self) {
        if self.end.process.is_alive() {
            self.world().close(&self.end);
        }
    }
}

/// Ready when a connection waits to be accepted.
impl Source for TcpListener {
    fn is_ready(&self) -> bool {
        !self.state.process.is_alive() || !self.state.queue.borrow().is_empty()
    }

    fn enroll(&self, waiter: &Waiter) {
        self.state.waiters.enroll(&waiter.coroutine);
    }

    fn withdraw(&self, waiter: &Waiter) {
        self.state.waiters.withdraw(&waiter.coroutine);
    }
}

/// Ready when there is something to read, be it the end or an error.
impl Source for TcpStream {
    fn is_ready(&self) -> bool {
        let end = &self.end;
        !end.process.is_alive()
            || !end.inbox.borrow().is_empty()
            || end.error.get().is_some()
            || end.in_ended.get()
            || end.broken.get()
    }

    fn enroll(&self, waiter: &Waiter) {
        self.end.readers.enroll(&waiter.coroutine);
    }

    fn withdraw(&self, waiter: &Waiter) {
        self.end.readers.withdraw(&waiter.coroutine);
    }
}
