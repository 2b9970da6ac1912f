//! A connection to one peer: streams, as many as are wanted.

mod path;

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use quinn_proto::{ConnectionError, ConnectionEvent, ConnectionHandle, Dir, Event, StreamEvent, StreamId};
use rustls::pki_types::CertificateDer;
use zeroize::Zeroizing;

use super::config::RECEIVE_WINDOW_BYTES;
use super::endpoint::Shared;
use super::error::Lost;
use super::pending::Origin;
use super::stream::{Rows, Stream};
use super::{LINGER_TIMEOUT, UNPROVED_FACTOR};
use crate::cell::RefCell;
use crate::clock::now;
use crate::crypto::PublicKey;
use crate::net::tls::HANDSHAKE_TIMEOUT;
use crate::net::tls::raw_public_key::decode_key;
use crate::sync::Waiters;

pub(crate) use path::WeakConnection;

/// A connection whose handshake is done. Clones are the same connection, and streams hold it too; when the last of them
/// is dropped it closes, as soon as the streams that were ended have been delivered.
pub struct Connection {
    inner: Rc<Inner>,
}

/// What a connection, its streams and the endpoint's coroutine share.
pub(super) struct Inner {
    pub(super) shared: Rc<Shared>,
    pub(super) handle: ConnectionHandle,
    pub(super) proto: RefCell<quinn_proto::Connection>,
    /// It is in the endpoint's list of those that have something to do.
    pub(super) is_dirty: Cell<bool>,
    /// Of a client's that was not accepted yet: what it counts for as pending, and until when it has to shake hands.
    pending: Cell<Option<Origin>>,
    handshake_until: Cell<Option<Instant>>,
    /// It waits to be accepted.
    has_arrived: Cell<bool>,
    /// What may still be sent to an address that has proved nothing, in bytes; `None` once it has.
    allowance: Cell<Option<usize>>,
    /// [`Connection`]s.
    handle_count: Cell<usize>,
    /// Until when what was ended may be delivered, once nobody uses the connection any more.
    lingers_until: Cell<Option<Instant>>,
    timer: Cell<Option<Instant>>,
    /// What is known of the path is known of one that is not in use any more.
    has_better_path: Cell<bool>,
    /// What may wait here beyond what is on its way, in bytes, where somebody wishes for it to be little.
    unsent_max: Cell<Option<u32>>,
    peer: Cell<Option<PublicKey>>,
    lost: RefCell<Option<Lost>>,
    streams: RefCell<BTreeMap<StreamId, Rc<Rows>>>,
    /// Streams that were ended here, and whose end the peer has not acknowledged.
    undelivered: RefCell<BTreeSet<StreamId>>,
    connected: Waiters,
    opening: Waiters,
    accepting: Waiters,
}

impl Connection {
    pub(super) fn new(inner: Rc<Inner>) -> Connection {
        inner.handle_count.set(inner.handle_count.get() + 1);
        Connection { inner }
    }

    pub(super) fn inner(&self) -> &Rc<Inner> {
        &self.inner
    }

    /// Until the handshake is done, and the peer is known.
    pub(super) fn wait_connected(&self, deadline: Instant) -> io::Result<()> {
        self.inner.connected.wait(Some(deadline), || match self.inner.peer.get() {
            Some(_) => Some(Ok(())),
            None => self.inner.lost().map(Err),
        })?
    }

    pub(super) fn is_up(&self) -> bool {
        self.inner.lost.borrow().is_none()
    }

    /// Opens a stream. The peer learns of it with the first bytes that are written.
    ///
    /// # Errors
    /// When the connection is gone.
    ///
    /// # Suspends
    /// While the peer allows no more streams at once.
    pub fn open(&self) -> io::Result<Stream> {
        self.inner.opening.wait(None, || {
            if let Some(lost) = self.inner.lost() {
                return Some(Err(lost));
            }
            if self.inner.lingers_until.get().is_some() {
                return Some(Err(Lost::from(ConnectionError::LocallyClosed).error()));
            }
            let id = self.inner.proto.borrow_mut().streams().open(Dir::Bi)?;
            // Here, so that a termination while others have their turn resets it, and does not lose it.
            Some(Ok(Stream::new(self.clone(), id)))
        })?
    }

    /// The next stream that the peer opened.
    ///
    /// # Errors
    /// When the connection is gone: `ConnectionAborted` where the peer closed it.
    ///
    /// # Suspends
    /// Until there is one.
    pub fn accept(&self) -> io::Result<Stream> {
        self.inner.accepting.wait(None, || {
            let next = self.inner.proto.borrow_mut().streams().accept(Dir::Bi);
            let Some(id) = next else { return self.inner.lost().map(Err) };
            // The peer's credit for streams grows as they are taken.
            self.inner.touch();
            // Here, as in `open`.
            Some(Ok(Stream::new(self.clone(), id)))
        })?
    }

    /// The key that the peer proved.
    pub fn peer(&self) -> PublicKey {
        self.inner.peer.get().expect("nobody has a connection before its handshake is done")
    }

    /// Where the peer is now. It changes when the peer moves, or its router lends it another port: the connection goes on.
    /// Of a peer that is reached by [`Peers`](crate::nat::peers::Peers) it is a number that stands for it, of 100::/64.
    pub fn remote_addr(&self) -> SocketAddr {
        let address = self.inner.proto.borrow().remote_address();
        SocketAddr::new(address.ip().to_canonical(), address.port())
    }

    /// The round trip time, smoothed.
    pub fn round_trip(&self) -> Duration {
        self.inner.proto.borrow().rtt()
    }

    /// The largest datagram that the path is known to take, in bytes; it is searched for while the connection is used.
    pub fn mtu(&self) -> u16 {
        self.inner.proto.borrow().current_mtu()
    }

    /// Bytes that both ends of this connection get alike, and nobody else: keys for what belongs to it and travels beside it.
    /// `label` names the purpose.
    ///
    /// # Source
    /// RFC 8446, section 7.5.
    pub(crate) fn export<const N: usize>(&self, label: &[u8]) -> Zeroizing<[u8; N]> {
        let mut output = Zeroizing::new([0; N]);
        let proto = self.inner.proto.borrow();
        let exported = proto.crypto_session().export_keying_material(&mut *output, label, b"");
        exported.expect("its handshake is done, and it is short");
        output
    }

    /// Whether we dialled.
    pub(crate) fn is_dialled(&self) -> bool {
        self.inner.proto.borrow().side().is_client()
    }

    /// Closes it at once, and tells the peer: what was not delivered is lost, and whoever waits for it gets an error.
    /// Never suspends, and may be repeated.
    pub fn close(&self) {
        self.inner.close();
    }
}

impl Clone for Connection {
    fn clone(&self) -> Connection {
        Connection::new(self.inner.clone())
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.inner.handle_count.set(self.inner.handle_count.get() - 1);
        if self.inner.handle_count.get() == 0 {
            self.inner.linger();
            // An endpoint that is closed may have waited for us alone.
            self.inner.touch();
        }
    }
}

impl Inner {
    pub(super) fn new(
        shared: Rc<Shared>,
        handle: ConnectionHandle,
        proto: quinn_proto::Connection,
        pending: Option<Origin>,
        allowance: Option<usize>,
    ) -> Rc<Inner> {
        Rc::new(Inner {
            shared,
            handle,
            proto: RefCell::new(proto),
            is_dirty: Cell::new(false),
            pending: Cell::new(pending),
            handshake_until: Cell::new(pending.map(|_| now() + HANDSHAKE_TIMEOUT)),
            has_arrived: Cell::new(false),
            allowance: Cell::new(allowance),
            handle_count: Cell::new(0),
            lingers_until: Cell::new(None),
            timer: Cell::new(None),
            has_better_path: Cell::new(false),
            unsent_max: Cell::new(None),
            peer: Cell::new(None),
            lost: RefCell::default(),
            streams: RefCell::default(),
            undelivered: RefCell::default(),
            connected: Waiters::new(&"a QUIC handshake"),
            opening: Waiters::new(&"the peer to allow another stream"),
            accepting: Waiters::new(&"a QUIC stream of the peer's"),
        })
    }

    /// Why the connection is gone, if it is.
    pub(super) fn lost(&self) -> Option<io::Error> {
        self.lost.borrow().as_ref().map(Lost::error)
    }

    pub(super) fn peer(&self) -> Option<PublicKey> {
        self.peer.get()
    }

    pub(super) fn add_stream(&self, id: StreamId) -> Rc<Rows> {
        let rows = Rc::new(Rows::new());
        self.streams.borrow_mut().insert(id, rows.clone());
        rows
    }

    pub(super) fn remove_stream(&self, id: StreamId) {
        self.streams.borrow_mut().remove(&id);
    }

    /// Somebody has accepted it: it may cost as much as others.
    pub(super) fn on_accepted(self: &Rc<Self>) {
        self.has_arrived.set(false);
        self.proto.borrow_mut().set_receive_window(RECEIVE_WINDOW_BYTES.into());
        self.touch();
    }

    /// Has the endpoint's coroutine look at the connection. Never suspends.
    pub(super) fn touch(self: &Rc<Self>) {
        // Nobody would take it from the list when the coroutine has ended, and it holds the endpoint with its socket.
        if self.shared.has_ended() {
            return;
        }
        if !self.is_dirty.replace(true) {
            self.shared.dirty.borrow_mut().push_back(self.clone());
        }
        self.shared.tell();
    }

    /// How many datagrams may leave at once: singly, as long as each is counted against the allowance.
    pub(super) fn segments_max(&self) -> usize {
        if self.allowance.get().is_some() { 1 } else { self.shared.wire.segments_max() }
    }

    /// Whether so many bytes may leave. quinn-proto itself lets the last datagram go beyond the limit; what is held back
    /// here it takes for lost, and sends again when the peer has been heard of.
    pub(super) fn may_send(&self, bytes: usize) -> bool {
        let Some(allowance) = self.allowance.get() else { return true };
        let left = allowance.checked_sub(bytes);
        self.allowance.set(Some(left.unwrap_or(allowance)));
        left.is_some()
    }

    /// Takes a datagram of so many bytes.
    pub(super) fn on_datagram(self: &Rc<Self>, event: ConnectionEvent, bytes: usize) {
        if let Some(allowance) = self.allowance.get() {
            self.allowance.set(Some(allowance + bytes * UNPROVED_FACTOR));
        }
        self.proto.borrow_mut().handle_event(event);
        self.touch();
    }

    fn fail(self: &Rc<Self>, lost: Lost) {
        self.proto.borrow_mut().close(now(), 0_u32.into(), Bytes::new());
        self.on_lost(lost);
        self.touch();
    }

    fn close(self: &Rc<Self>) {
        if self.lost.borrow().is_none() {
            self.fail(ConnectionError::LocallyClosed.into());
        }
    }

    /// Closes as soon as what was ended is delivered.
    pub(super) fn linger(self: &Rc<Self>) {
        if self.lingers_until.get().is_none() {
            self.lingers_until.set(Some(now() + LINGER_TIMEOUT));
            self.touch();
        }
    }

    /// Gives its place to another client.
    pub(super) fn end_pending(&self) {
        if let Some(origin) = self.pending.take() {
            self.shared.on_pending_end(origin);
        }
    }

    /// Everybody who waits is told. What has come already can still be read.
    pub(super) fn on_lost(&self, lost: Lost) {
        self.lost.borrow_mut().get_or_insert(lost);
        // One that has arrived has its place until somebody takes it: it is kept so long.
        if !self.has_arrived.get() {
            self.end_pending();
        }
        for waiters in [&self.connected, &self.opening, &self.accepting] {
            waiters.wake_all();
        }
        self.streams.borrow().values().for_each(|rows| rows.wake_all());
    }

    pub(super) fn on_timer(self: &Rc<Self>, now: Instant) {
        self.timer.set(None);
        self.proto.borrow_mut().handle_timeout(now);
        self.touch();
    }

    /// Takes what the protocol has to tell, to the endpoint and to us. Never suspends.
    pub(super) fn on_events(self: &Rc<Self>) {
        self.adopt_path();
        // Before the events: a window that grew wakes writers.
        self.bound_unsent();
        loop {
            let event = self.proto.borrow_mut().poll();
            let Some(event) = event else { break };
            match event {
                Event::Connected => self.on_connected(),
                Event::ConnectionLost { reason } => self.on_lost(reason.into()),
                Event::Stream(event) => self.on_stream_event(event),
                Event::HandshakeDataReady | Event::DatagramReceived | Event::DatagramsUnblocked => {}
            }
        }
        if self.handshake_until.get().is_some_and(|until| until <= now()) {
            self.close();
        }
        let is_over = |until: Instant| until <= now() || self.undelivered.borrow().is_empty();
        if self.lingers_until.get().is_some_and(is_over) {
            self.close();
        }
    }

    fn on_connected(self: &Rc<Self>) {
        let shown = self.proto.borrow().crypto_session().peer_identity();
        let keys = shown.and_then(|shown| shown.downcast::<Vec<CertificateDer<'static>>>().ok());
        let key = keys.and_then(|keys| keys.first().and_then(|key| decode_key(key).ok()));
        let Some(key) = key else {
            // The verifier lets nobody through without a key.
            self.proto.borrow_mut().close(now(), 0_u32.into(), Bytes::new());
            return self.on_lost(Lost::new(ErrorKind::InvalidData, "the peer showed no key"));
        };
        self.peer.set(Some(key));
        self.allowance.set(None);
        self.connected.wake_all();
        self.handshake_until.set(None);
        if self.pending.get().is_some() {
            // It counts as pending until it is accepted.
            self.has_arrived.set(true);
            self.shared.on_arrived(Connection::new(self.clone()));
        }
    }

    /// A stream was ended, and lives on until that is delivered.
    pub(super) fn on_ended(&self, id: StreamId) {
        self.undelivered.borrow_mut().insert(id);
    }

    fn on_delivered(&self, id: StreamId) {
        self.undelivered.borrow_mut().remove(&id);
    }

    fn on_stream_event(&self, event: StreamEvent) {
        let row = |id| self.streams.borrow().get(&id).cloned();
        match event {
            StreamEvent::Opened { .. } => self.accepting.wake_all(),
            StreamEvent::Available { .. } => self.opening.wake_all(),
            StreamEvent::Readable { id } => row(id).iter().for_each(|rows| rows.readers.wake_all()),
            StreamEvent::Writable { id } => row(id).iter().for_each(|rows| rows.writers.wake_all()),
            StreamEvent::Stopped { id, .. } => {
                self.on_delivered(id);
                row(id).iter().for_each(|rows| rows.writers.wake_all());
            }
            StreamEvent::Finished { id } => self.on_delivered(id),
        }
    }

    /// What is left to do when all is sent that may be: tell the endpoint, and say when to be called again.
    pub(super) fn after_sending(self: &Rc<Self>) {
        loop {
            let event = self.proto.borrow_mut().poll_endpoint_events();
            let Some(event) = event else { break };
            let is_drained = event.is_drained();
            let answer = self.shared.proto.borrow_mut().handle_event(self.handle, event);
            if let Some(answer) = answer {
                self.proto.borrow_mut().handle_event(answer);
                self.touch();
            }
            if is_drained {
                return self.shared.remove(self);
            }
        }
        if self.proto.borrow().is_drained() {
            // It was removed, and its number may be another's.
            return;
        }
        let due = self.proto.borrow_mut().poll_timeout();
        let is_up = self.lost.borrow().is_none();
        let ours =
            [self.lingers_until.get(), self.handshake_until.get()].into_iter().flatten().filter(|_| is_up);
        self.set_timer(ours.chain(due).min());
    }

    pub(super) fn set_timer(&self, due: Option<Instant>) {
        let mut timers = self.shared.timers.borrow_mut();
        if let Some(old) = self.timer.replace(due) {
            timers.remove(&(old, self.handle.0));
        }
        if let Some(due) = due {
            timers.insert((due, self.handle.0));
        }
    }
}
