//! How segments travel: they leave, get lost, are sent again, arrive, and are refused.

use std::cell::Cell;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use super::{End, Listening, Packet, Segment, State, Stranded, TcpEvent};
use crate::cell::RefCell;
use crate::sim::events::Event;
use crate::sim::host::{HostState, Process};
use crate::sim::trace::{What, format_time};
use crate::sim::world::Inner;
use crate::sync::Waiters;

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

/// Bytes of IP and TCP headers, which bandwidth is spent on too.
const HEADER_BYTES: usize = 40;

impl Inner {
    pub(super) fn add_end(
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
            is_dialled: peer_number == 0,
            state: Cell::new(State::Connecting),
            inbox: RefCell::default(),
            early: RefCell::default(),
            next_in: Cell::new(0),
            outgoing: RefCell::default(),
            next_out: Cell::new(0),
            outstanding_bytes: Cell::new(0),
            in_ended: Cell::new(false),
            out_ended: Cell::new(false),
            stranded: Cell::new(Stranded::No),
            broken: Cell::new(false),
            error: Cell::new(None),
            readers: Waiters::new(&"a simulated socket"),
            writers: Waiters::new(&"a simulated socket"),
        });
        ends.by_number.insert(end.number, end.clone());
        end
    }

    fn end_of(&self, number: u64) -> Option<Rc<End>> {
        self.tcp.borrow().by_number.get(&number).cloned()
    }

    pub(in crate::sim) fn on_tcp(&self, event: TcpEvent) {
        let TcpEvent { sender, packet, attempt, arrives } = event;
        match packet {
            Packet::Refusal => self.refuse_again(&sender, attempt),
            _ if arrives => self.on_arrival(&sender, packet, attempt),
            Packet::Credit(_) | Packet::Reset => self.leave_once(&sender, packet, attempt),
            _ => self.leave(&sender, packet, attempt),
        }
    }

    /// Sends a packet that is repeated until it arrives.
    pub(super) fn leave(&self, sender: &Rc<End>, packet: Packet, attempt: u32) {
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
        let carried = self.carry(sender.way(), size + HEADER_BYTES);
        if sender.stranded.get() == Stranded::Here && carried.is_some() {
            return self.refuse(sender);
        }
        match carried.filter(|_| sender.stranded.get() == Stranded::No) {
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

    /// Sends a packet that is never lost but to a partition, and again until that has healed: who would have been told
    /// asks again, in a kernel (a writer probes the window, a segment that is sent again meets another reset).
    pub(super) fn leave_once(&self, sender: &Rc<End>, packet: Packet, attempt: u32) {
        let (from, to) = sender.way();
        if sender.stranded.get() != Stranded::No {
            return;
        }
        if self.network.borrow().is_cut(from, to) {
            return self.tell_later(sender, packet, attempt);
        }
        let time = self.network.borrow().least_latency(from, to);
        let event = TcpEvent { sender: sender.clone(), packet, attempt: 0, arrives: true };
        self.schedule(time, Event::Tcp(event));
    }

    /// Has what a partition keeps back sent again.
    fn tell_later(&self, sender: &Rc<End>, packet: Packet, attempt: u32) {
        if sender.broken.get() && matches!(packet, Packet::Credit(_)) {
            return;
        }
        let wait = RETRY_MAX.min(RETRY_FIRST * (1 << attempt.min(RETRIES_MAX)));
        let event = TcpEvent { sender: sender.clone(), packet, attempt: attempt + 1, arrives: false };
        self.schedule(wait, Event::Tcp(event));
    }

    fn on_arrival(&self, sender: &Rc<End>, packet: Packet, attempt: u32) {
        if !sender.peer_host.is_up() {
            if !matches!(packet, Packet::Credit(_) | Packet::Reset | Packet::Refusal) {
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
            // It comes by an event of its own.
            Packet::Refusal => {}
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
        self.refuse_again(sender, 0);
    }

    fn refuse_again(&self, sender: &Rc<End>, attempt: u32) {
        let (from, to) = sender.way();
        if self.network.borrow().is_cut(to, from) {
            return self.tell_later(sender, Packet::Refusal, attempt);
        }
        self.tell(|| format!("{} -> {}  reset", sender.peer_host.name(), sender.process.host().name()));
        let time = self.network.borrow().least_latency(to, from);
        self.schedule(time, Event::TcpRefused(sender.number));
    }

    pub(in crate::sim) fn on_tcp_refused(&self, number: u64) {
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
        let Some(listening) = listening else {
            if !self.meets(client) {
                self.refuse(client);
            }
            return;
        };
        if listening.queue.borrow().len() >= listening.backlog {
            return self.retry(client, Packet::Syn, attempt);
        }
        let server =
            self.add_end(&listening.process, client.peer, client.local, client.process.host(), client.number);
        client.peer_number.set(server.number);
        self.leave(&server, Packet::SynAck, 0);
    }

    /// Whether the machine that is called calls at the same moment, from the port that is called to the one that calls.
    fn meets(&self, client: &Rc<End>) -> bool {
        let has_met = self.end_of(client.peer_number.get()).is_some();
        let is_other = |other: &End| {
            other.is_dialled
                && other.state.get() == State::Connecting
                && !other.broken.get()
                && (other.local, other.peer) == (client.peer, client.local)
                && self.end_of(other.peer_number.get()).is_none()
        };
        let other = if has_met { None } else { self.ends_of(is_other).into_iter().next() };
        if let Some(other) = &other {
            client.peer_number.set(other.number);
            other.peer_number.set(client.number);
            self.leave(other, Packet::SynAck, 0);
        }
        has_met || other.is_some()
    }

    fn on_handshake_end(&self, client: &Rc<End>, server: Rc<End>) {
        if server.state.get() != State::Connecting {
            return;
        }
        if server.is_dialled {
            server.state.set(State::Open);
            return server.wake();
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

    pub(super) fn send_segment(&self, end: &Rc<End>, segment: Segment) {
        let number = end.next_out.get();
        end.next_out.set(number + 1);
        end.outgoing.borrow_mut().insert(number, segment);
        self.leave(end, Packet::Segment(number), 0);
    }

    pub(super) fn send_end(&self, end: &Rc<End>) {
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
    pub(super) fn close(&self, end: &Rc<End>) {
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
            None => self.leave_once(end, Packet::Reset, 0),
        }
    }

    /// The machine at `host` loses power: nobody is told.
    pub(in crate::sim) fn on_power_cut(&self, host: &HostState) {
        for end in self.ends_of(|end| end.process.host().index() == host.index()) {
            // What has left the machine still arrives, so its queue stays.
            end.broken.set(true);
            end.state.set(State::Closed);
            self.tcp.borrow_mut().by_number.remove(&end.number);
        }
        host.close_all();
    }

    /// Such machines have other addresses: what is sent to the earlier ones is lost, and what is sent in their connections comes
    /// from strangers.
    pub(in crate::sim) fn strand(&self, has_moved: impl Fn(&HostState) -> bool) {
        for end in self.ends_of(|end| !end.process.host().is_beside(&end.peer_host)) {
            if has_moved(end.process.host()) {
                end.stranded.set(Stranded::Here);
            } else if has_moved(&end.peer_host) {
                end.stranded.set(Stranded::There);
            }
        }
    }

    /// A process is killed: its kernel closes what it held.
    pub(in crate::sim) fn on_kill(&self, process: &Rc<Process>) {
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

    pub(super) fn stop_listening(&self, listening: &Listening) {
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
        Packet::Reset | Packet::Refusal => "reset".to_owned(),
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
        Packet::Refusal => 6,
    }
}
