//! A socket with its connections: what is known of them, and how new ones come about.

mod reach;

use std::cell::{Cell, OnceCell};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::rc::{Rc, Weak};
use std::time::Instant;

use bytes::BytesMut;
use quinn_proto::{ConnectionHandle, DatagramEvent, Incoming, Transmit};

use super::answers::{Answered, Answers};
use super::connection::{Connection, Inner};
use super::error::Lost;
use super::lane::{Inbox, Lane, Protocol, Share, deliver, protocol_of};
use super::pending::{Origin, Pending};
use super::routes::{Routes, virtual_number};
use super::wire::{Received, Wire};
use super::{RETRY_ABOVE, UNPROVED_FACTOR, config, driver};
use crate::cell::RefCell;
use crate::clock::{deadline_after, now};
use crate::coroutine::Builder;
use crate::crypto::Identity;
use crate::nat::stun;
use crate::net::tls::{Expect, HANDSHAKE_TIMEOUT};
use crate::net::{BindOptions, UdpSocket};
use crate::sync::{Signal, Waiters};

pub(crate) use reach::WeakEndpoint;

/// A UDP socket that speaks QUIC: it connects and accepts, and both ends prove their keys as in [`crate::net::tls`].
///
/// Dropping it ends the accepting. Connections that stand go on, and the socket lives as long as they do; so what was
/// written is still delivered, unless [`run`](crate::run) ends first: [`Endpoint::close`] waits for that.
pub struct Endpoint {
    shared: Rc<Shared>,
    identity: Rc<Identity>,
}

/// What an endpoint, its connections and its coroutine share.
pub(super) struct Shared {
    pub(super) wire: Wire,
    pub(super) proto: RefCell<quinn_proto::Endpoint>,
    /// By their handles' numbers, and in that order, so that a simulated run comes back.
    pub(super) connections: RefCell<BTreeMap<usize, Rc<Inner>>>,
    /// Those that have something to do, in their order.
    pub(super) dirty: RefCell<VecDeque<Rc<Inner>>>,
    /// When which connection wants to be called, by its handle's number.
    pub(super) timers: RefCell<BTreeSet<(Instant, usize)>>,
    pub(super) answers: RefCell<Answers<(Transmit, Vec<u8>)>>,
    /// Tells the coroutine that there is something to do; `told` is that, for who comes before it waits.
    pub(super) work: Signal,
    pub(super) told: Cell<bool>,
    /// Connections that shook hands, and wait to be accepted.
    arrived: RefCell<VecDeque<Connection>>,
    accepting: Waiters,
    /// Those, and those that still shake hands.
    pending: RefCell<Pending>,
    inboxes: RefCell<Vec<Weak<Inbox>>>,
    answers_stun: Cell<bool>,
    reached_at: RefCell<reach::ReachedAt>,
    routes: OnceCell<Rc<dyn Routes>>,
    /// Somebody may still connect or accept.
    pub(super) is_open: Cell<bool>,
    failure: RefCell<Option<Lost>>,
    /// Who waits for the last connection's end.
    emptied: Waiters,
}

impl Endpoint {
    /// Binds a socket to `address`; the port may be 0 for any. It connects and accepts as `identity`. One at `[::]` is for both
    /// families, whatever the system's default is, and answers from the address that was asked.
    ///
    /// # Errors
    /// `AddrInUse` when the port is taken; as [`UdpSocket::bind`].
    ///
    /// # Suspends
    /// Never.
    pub fn bind(address: SocketAddr, identity: &Rc<Identity>) -> io::Result<Endpoint> {
        let only_v6 = address.ip().is_unspecified().then_some(false);
        let options = BindOptions { only_v6, ..BindOptions::default() };
        Endpoint::over(UdpSocket::bind_with(address, &options)?, identity)
    }

    /// As [`Endpoint::bind`], for who connects and accepts nobody: who tries to connect to it gets nothing but a reset.
    ///
    /// # Errors
    /// As [`Endpoint::bind`].
    ///
    /// # Suspends
    /// Never.
    pub fn client(address: SocketAddr, identity: &Rc<Identity>) -> io::Result<Endpoint> {
        let endpoint = Endpoint::bind(address, identity)?;
        endpoint.shared.proto.borrow_mut().set_server_config(None);
        Ok(endpoint)
    }

    /// As [`Endpoint::bind`], over a socket that is bound already, with options of its own.
    ///
    /// # Errors
    /// When the kernel refuses an option that is needed.
    ///
    /// # Suspends
    /// Never.
    pub fn over(socket: UdpSocket, identity: &Rc<Identity>) -> io::Result<Endpoint> {
        let wire = Wire::new(socket)?;
        let server = config::server(identity)?;
        let seed = Some(config::secret());
        let proto =
            quinn_proto::Endpoint::new(config::endpoint(identity), Some(server), wire.finds_mtu(), seed);
        let shared = Rc::new(Shared {
            wire,
            proto: RefCell::new(proto),
            connections: RefCell::default(),
            dirty: RefCell::default(),
            timers: RefCell::default(),
            answers: RefCell::default(),
            work: Signal::new(),
            told: Cell::new(false),
            arrived: RefCell::default(),
            accepting: Waiters::new(&"a QUIC connection"),
            pending: RefCell::default(),
            inboxes: RefCell::default(),
            answers_stun: Cell::new(false),
            reached_at: RefCell::default(),
            routes: OnceCell::new(),
            is_open: Cell::new(true),
            failure: RefCell::default(),
            emptied: Waiters::new(&"a QUIC endpoint's connections to end"),
        });
        let of_driver = shared.clone();
        Builder::new().name("quic").spawn(move || driver::run(&of_driver)).map_err(io::Error::other)?;
        Ok(Endpoint { shared, identity: identity.clone() })
    }

    /// Connects to the peer at `to`, who has to be the one that is expected.
    ///
    /// # Errors
    /// `InvalidData` if it is another, or does not speak our QUIC; `TimedOut` when nobody answers within
    /// [`HANDSHAKE_TIMEOUT`]; `InvalidInput` for an address that nobody can have.
    ///
    /// # Suspends
    /// For a round trip.
    pub fn connect(&self, to: SocketAddr, expect: Expect) -> io::Result<Connection> {
        self.dial(self.shared.as_the_socket_sees(to)?, expect)
    }

    /// As [`Endpoint::connect`], to the peer that stands behind a virtual address.
    pub(crate) fn dial(&self, to: SocketAddr, expect: Expect) -> io::Result<Connection> {
        self.shared.check()?;
        let config = config::client(&self.identity, expect, to)?;
        let (handle, proto) =
            self.shared.proto.borrow_mut().connect(now(), config, to, "peer").map_err(|error| {
                io::Error::new(ErrorKind::InvalidInput, format!("connecting to {to}: {error}"))
            })?;
        let connection = Connection::new(self.shared.add(handle, proto, None, None));
        connection.wait_connected(deadline_after(HANDSHAKE_TIMEOUT)).inspect_err(|_| connection.close())?;
        Ok(connection)
    }

    /// The next connection that a peer made; [`Connection::peer`] tells who that is.
    ///
    /// # Errors
    /// Those of the socket, for good.
    ///
    /// # Suspends
    /// Until there is one.
    pub fn accept(&self) -> io::Result<Connection> {
        self.shared.accepting.wait(None, || {
            loop {
                let next = self.shared.arrived.borrow_mut().pop_front();
                match next {
                    None => return self.shared.failure().map(Err),
                    Some(connection) => {
                        connection.inner().end_pending();
                        // Some are lost while they wait.
                        if connection.is_up() {
                            connection.inner().on_accepted();
                            return Some(Ok(connection));
                        }
                    }
                }
            }
        })?
    }

    /// Has `routes` say where virtual addresses are, from now on.
    ///
    /// # Panics
    /// The second time.
    pub(crate) fn set_routes(&self, routes: Rc<dyn Routes>) {
        assert!(self.shared.routes.set(routes).is_ok(), "an endpoint has its routes already");
    }

    /// The share of the socket that another protocol has.
    pub fn lane(&self, share: Share) -> Lane {
        Lane::new(self.shared.clone(), share)
    }

    /// Is a STUN server from now on, beside everything else: tells whoever asks where its packets come from, and answers
    /// from the address that was asked, whichever of the machine's that is. Never suspends.
    pub fn answer_stun(&self) {
        self.shared.answers_stun.set(true);
    }

    /// The address that it is bound to.
    ///
    /// # Errors
    /// None in practice.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.shared.socket().local_addr()
    }

    /// Closes all connections, and tells their peers. Streams that were ended before are delivered first, within
    /// [`super::LINGER_TIMEOUT`].
    ///
    /// # Suspends
    /// Until the last one is gone.
    pub fn close(self) {
        self.finish();
    }

    /// What [`Endpoint::close`] does.
    pub(crate) fn finish(&self) {
        self.shared.close();
        let all: Vec<Rc<Inner>> = self.shared.connections.borrow().values().cloned().collect();
        all.iter().for_each(|inner| inner.linger());
        drop(all);
        // The wait ends in a destructor's failure only, and then nothing more can be done.
        let _ = self.shared.emptied.wait(None, || self.shared.connections.borrow().is_empty().then_some(()));
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.shared.close();
    }
}

impl Shared {
    pub(super) fn socket(&self) -> &UdpSocket {
        self.wire.socket()
    }

    /// Why the endpoint has ended, if it has.
    pub(super) fn failure(&self) -> Option<io::Error> {
        self.failure.borrow().as_ref().map(Lost::error)
    }

    pub(super) fn has_ended(&self) -> bool {
        self.failure.borrow().is_some()
    }

    fn check(&self) -> io::Result<()> {
        self.failure().map_or(Ok(()), Err)
    }

    pub(super) fn add_inbox(&self, inbox: Weak<Inbox>) {
        let mut inboxes = self.inboxes.borrow_mut();
        inboxes.retain(|inbox| inbox.strong_count() > 0);
        inboxes.push(inbox);
    }

    /// Nobody accepts any more.
    fn close(&self) {
        self.is_open.set(false);
        self.proto.borrow_mut().set_server_config(None);
        // Each closes as it is dropped.
        let unclaimed = self.arrived.take();
        unclaimed.iter().for_each(|connection| connection.inner().end_pending());
        drop(unclaimed);
        self.tell();
    }

    /// Ends it for everybody: the socket failed, or the coroutine is being terminated.
    pub(super) fn fail(&self, lost: &Lost) {
        self.failure.borrow_mut().get_or_insert_with(|| lost.clone());
        let all: Vec<Rc<Inner>> = self.connections.take().into_values().collect();
        all.iter().for_each(|inner| inner.on_lost(lost.clone()));
        // Each of them holds us.
        drop(self.arrived.take());
        drop(self.dirty.take());
        self.accepting.wake_all();
        self.emptied.wake_all();
        self.inboxes.borrow().iter().filter_map(Weak::upgrade).for_each(|inbox| inbox.wake_all());
    }

    /// Wakes the coroutine.
    pub(super) fn tell(&self) {
        self.told.set(true);
        self.work.notify_all();
    }

    fn add(
        self: &Rc<Self>,
        handle: ConnectionHandle,
        proto: quinn_proto::Connection,
        pending: Option<Origin>,
        allowance: Option<usize>,
    ) -> Rc<Inner> {
        let inner = Inner::new(self.clone(), handle, proto, pending, allowance);
        self.connections.borrow_mut().insert(handle.0, inner.clone());
        inner.touch();
        inner
    }

    /// A connection has passed into nothing.
    pub(super) fn remove(&self, inner: &Inner) {
        self.connections.borrow_mut().remove(&inner.handle.0);
        inner.set_timer(None);
        if self.connections.borrow().is_empty() {
            self.emptied.wake_all();
        }
    }

    /// A client's handshake is done.
    pub(super) fn on_arrived(&self, connection: Connection) {
        if self.is_open.get() {
            self.arrived.borrow_mut().push_back(connection);
            self.accepting.wake_all();
        } else {
            connection.inner().end_pending();
        }
    }

    pub(super) fn on_pending_end(&self, origin: Origin) {
        self.pending.borrow_mut().end(origin);
    }

    /// A datagram has come. Never suspends.
    pub(super) fn on_datagram(self: &Rc<Self>, received: &Received<'_>) {
        // No machine sends so, and what answers it fails in a way that makes quinn-udp give up joined sends for good.
        // Nor from a virtual address, which stands for a peer.
        if !stun::is_of_one_machine(received.from) || virtual_number(received.from.ip()).is_some() {
            return;
        }
        // Nor is what was sent to many answered: from such an address nothing can be sent, with the same consequence.
        if received.to.is_some_and(|to| !self.is_ours_alone(to)) {
            return;
        }
        let from = SocketAddr::new(received.from.ip().to_canonical(), received.from.port());
        let routes = self.routes.get();
        match protocol_of(received.bytes) {
            Some(Protocol::Lane(Share::Control))
                if routes.is_some_and(|routes| routes.on_control(from, received.to, received.bytes)) => {}
            Some(Protocol::Lane(share)) => {
                deliver(&self.inboxes.borrow(), share, received.from, received.bytes)
            }
            Some(Protocol::Quic) => match routes.and_then(|routes| routes.arrival(from)) {
                None => self.on_quic(received),
                // Where we sent it from may change as its address does.
                Some(from) => self.on_quic(&Received { from, to: None, ..*received }),
            },
            Some(Protocol::StunRequest) => self.on_stun_request(received),
            None => {}
        }
    }

    /// Answers from the very address that was asked, which a client insists on.
    fn on_stun_request(&self, received: &Received<'_>) {
        if !self.answers_stun.get() {
            return;
        }
        if let Some((bytes, _)) = stun::answer(received.bytes, received.from, None) {
            let transmit = Transmit {
                destination: received.from,
                ecn: None,
                size: bytes.len(),
                segment_size: None,
                src_ip: received.to,
            };
            self.answer(Answered::Stun, transmit, bytes);
        }
    }

    fn on_quic(self: &Rc<Self>, received: &Received<'_>) {
        let (now, bytes) = (now(), BytesMut::from(received.bytes));
        let mut answer = Vec::new();
        let event =
            self.proto.borrow_mut().handle(now, received.from, received.to, received.ecn, bytes, &mut answer);
        match event {
            None => {}
            Some(DatagramEvent::Response(transmit)) => self.answer(Answered::Quic, transmit, answer),
            Some(DatagramEvent::NewConnection(incoming)) => self.on_incoming(incoming, received.bytes.len()),
            Some(DatagramEvent::ConnectionEvent(handle, event)) => {
                let found = self.connections.borrow().get(&handle.0).cloned();
                // Who knows a connection's id and sends from elsewhere is not to make it move there.
                if let Some(inner) = found.filter(|inner| inner.takes_from(received.from)) {
                    inner.on_datagram(event, received.bytes.len());
                }
            }
        }
    }

    /// Somebody wants to connect, or has an address forged that does.
    fn on_incoming(self: &Rc<Self>, incoming: Incoming, bytes: usize) {
        let (pending_count, origin) =
            (self.pending.borrow().count(), Origin::of(incoming.remote_address().ip()));
        let mut proto = self.proto.borrow_mut();
        if !self.is_open.get() {
            return proto.ignore(incoming);
        }
        let mut answer = Vec::new();
        if pending_count >= RETRY_ABOVE && incoming.may_retry() && !incoming.remote_address_validated() {
            if let Ok(transmit) = proto.retry(incoming, &mut answer) {
                self.answer(Answered::Quic, transmit, answer);
            }
            return;
        }
        if !self.pending.borrow_mut().begin(origin) {
            // Not a byte for a flood.
            return proto.ignore(incoming);
        }
        match proto.accept(incoming, now(), &mut answer, None) {
            Ok((handle, connection)) => {
                drop(proto);
                self.add(handle, connection, Some(origin), Some(bytes * UNPROVED_FACTOR));
            }
            Err(error) => {
                self.on_pending_end(origin);
                if let Some(transmit) = error.response {
                    self.answer(Answered::Quic, transmit, answer);
                }
            }
        }
    }

    fn answer(&self, kind: Answered, transmit: Transmit, bytes: Vec<u8>) {
        self.answers.borrow_mut().push(kind, (transmit, bytes));
    }
}
