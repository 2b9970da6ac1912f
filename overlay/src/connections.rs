//! One connection per peer, dialled when first needed, and a short memory of those that could not be reached.
//!
//! Whoever needs a peer first starts the dial; everyone else who needs it meanwhile waits for the same one. A dial
//! runs in a coroutine of its own, so that a caller who gives up does not end it for the others, and that coroutine
//! stays as the connection's session until it closes (`session.rs`).
//! After a failed dial the peer is not dialled again for a pause that doubles from [`PAUSE_MIN`] to [`PAUSE_MAX`]:
//! until then a call to it fails at once, so a dead node costs its neighbours nothing. The pause ends early if the peer
//! is heard of at another address, or dials us.
//!
//! Connections that the peer dialled are as good as ours for calling it. If both dial at once there are two: calls take
//! the newest, since an older one may be the remains of the peer's former process.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use reactor::JoinHandle;
use reactor::crypto::PublicKey;
use reactor::rpc::Connection;
use reactor::sync::Signal;

use crate::contact::Addresses;
use crate::dial::DialError;

/// The first pause after a failed dial.
pub(crate) const PAUSE_MIN: Duration = Duration::from_secs(1);
/// The longest pause. Short, because the peer may be back any time, and a refused dial on a local network is cheap.
pub(crate) const PAUSE_MAX: Duration = Duration::from_secs(8);
/// Connections to one peer: ours, its own, and as many again while a restart of it is noticed.
pub(crate) const PEER_CONNECTIONS_MAX: usize = 4;
/// Peers with a connection. Each costs some 40 KiB of stacks and buffers.
pub(crate) const CONNECTED_PEERS_MAX: usize = 1024;
/// Peers remembered at all, most of them unreachable candidates from others' answers.
const SLOTS_MAX: usize = 4096;

/// Connections, dials and failures, by the peer's key.
#[derive(Default)]
pub(crate) struct Pool {
    slots: RefCell<HashMap<PublicKey, Slot>>,
}

#[derive(Default)]
struct Slot {
    /// Newest last.
    connections: Vec<Connection>,
    dial: Option<Rc<Dial>>,
    failure: Option<Failure>,
    last_used: Option<Instant>,
}

struct Failure {
    until: Instant,
    pause: Duration,
    addresses: Addresses,
    error: Rc<DialError>,
}

/// A dial that is under way.
pub(crate) struct Dial {
    began: Instant,
    result: RefCell<Option<Result<Connection, Rc<DialError>>>>,
    ended: Signal,
    task: RefCell<Option<JoinHandle<()>>>,
    is_cancelled: Cell<bool>,
}

/// How to get a connection to a peer.
pub(crate) enum Way {
    /// There is one.
    Open(Connection),
    /// Somebody is dialling: wait for the result.
    Dialling(Rc<Dial>),
    /// The caller has to dial: this is already noted as the dial under way.
    MustDial(Rc<Dial>),
    /// It failed a moment ago.
    Pausing(Rc<DialError>),
}

impl Pool {
    /// How to reach `key`, thought to be at `addresses`. If `insist`, the memory of failures is ignored.
    pub(crate) fn way_to(
        &self,
        key: &PublicKey,
        addresses: &[SocketAddr],
        insist: bool,
        now: Instant,
    ) -> Way {
        let mut slots = self.slots.borrow_mut();
        if slots.len() >= SLOTS_MAX {
            slots.retain(|_, slot| slot.is_needed(now));
        }
        let slot = slots.entry(*key).or_default();
        slot.last_used = Some(now);
        if let Some(connection) = slot.connections.iter().rev().find(|connection| !connection.is_closed()) {
            return Way::Open(connection.clone());
        }
        if let Some(dial) = &slot.dial {
            return Way::Dialling(dial.clone());
        }
        if let Some(failure) = &slot.failure
            && !insist
            && now < failure.until
            && addresses.iter().all(|address| failure.addresses.contains(address))
        {
            return Way::Pausing(failure.error.clone());
        }
        let dial = Rc::new(Dial::new(now));
        slot.dial = Some(dial.clone());
        Way::MustDial(dial)
    }

    /// Keeps an admitted connection; closes what exceeds the bounds.
    pub(crate) fn add(&self, key: PublicKey, connection: Connection, now: Instant) {
        let mut surplus = Vec::new();
        {
            let mut slots = self.slots.borrow_mut();
            let slot = slots.entry(key).or_default();
            slot.failure = None;
            slot.last_used = Some(now);
            slot.connections.push(connection.clone());
            // The peer was faster than our own dial to it, which goes on for nobody.
            if let Some(dial) = &slot.dial {
                dial.end(Ok(connection));
            }
            if slot.connections.len() > PEER_CONNECTIONS_MAX {
                surplus.push(slot.connections.remove(0));
            }
            let connected = slots.iter().filter(|(_, slot)| !slot.connections.is_empty());
            let idle = connected.clone().filter(|(_, slot)| slot.is_idle());
            if connected.count() > CONNECTED_PEERS_MAX
                && let Some(idlest) = idle.min_by_key(|(_, slot)| slot.last_used).map(|(key, _)| *key)
                && let Some(slot) = slots.get_mut(&idlest)
            {
                surplus.append(&mut slot.connections);
            }
        }
        for connection in surplus {
            connection.close();
        }
    }

    /// Forgets closed connections of a peer. Returns whether it has another one.
    pub(crate) fn sweep(&self, key: &PublicKey) -> bool {
        let mut slots = self.slots.borrow_mut();
        let Some(slot) = slots.get_mut(key) else { return false };
        slot.connections.retain(|connection| !connection.is_closed());
        !slot.connections.is_empty()
    }

    /// Whether there is an open connection to `key`.
    pub(crate) fn is_connected(&self, key: &PublicKey) -> bool {
        self.slots.borrow().get(key).is_some_and(Slot::is_connected)
    }

    /// Whether the last dial to `key` failed.
    pub(crate) fn has_failed(&self, key: &PublicKey) -> bool {
        self.slots.borrow().get(key).is_some_and(|slot| slot.failure.is_some())
    }

    /// Notes the end of the dial to `key`, and tells those who wait for it.
    pub(crate) fn on_dialled(
        &self,
        key: &PublicKey,
        dial: &Rc<Dial>,
        result: Result<Connection, (DialError, Addresses)>,
        now: Instant,
    ) {
        let mut slots = self.slots.borrow_mut();
        let slot = slots.entry(*key).or_default();
        if slot.dial.as_ref().is_some_and(|current| Rc::ptr_eq(current, dial)) {
            slot.dial = None;
        }
        let result = result.map_err(|(error, addresses)| {
            let error = Rc::new(error);
            // It may have dialled us meanwhile: then the failure means nothing.
            if !slot.is_connected() {
                let pause =
                    slot.failure.as_ref().map_or(PAUSE_MIN, |failure| (failure.pause * 2).min(PAUSE_MAX));
                slot.failure = Some(Failure { until: now + pause, pause, addresses, error: error.clone() });
            }
            error
        });
        drop(slots);
        dial.end(result);
    }

    /// Closes everything and ends every dial.
    pub(crate) fn close_all(&self) {
        let slots = std::mem::take(&mut *self.slots.borrow_mut());
        for slot in slots.into_values() {
            for connection in slot.connections {
                connection.close();
            }
            if let Some(dial) = slot.dial {
                dial.cancel();
            }
        }
    }
}

impl Slot {
    fn is_needed(&self, now: Instant) -> bool {
        let is_paused = self.failure.as_ref().is_some_and(|failure| now < failure.until);
        self.dial.is_some() || is_paused || self.is_connected()
    }

    fn is_connected(&self) -> bool {
        self.connections.iter().any(|connection| !connection.is_closed())
    }

    fn is_idle(&self) -> bool {
        self.connections.iter().all(|connection| connection.calls_in_flight() == (0, 0))
    }
}

impl Dial {
    fn new(began: Instant) -> Dial {
        Dial {
            began,
            result: RefCell::new(None),
            ended: Signal::new(),
            task: RefCell::new(None),
            is_cancelled: Cell::new(false),
        }
    }

    /// How long it has been going on.
    pub(crate) fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.began)
    }

    /// Tells those who wait how it ended; the first word counts.
    fn end(&self, result: Result<Connection, Rc<DialError>>) {
        self.result.borrow_mut().get_or_insert(result);
        self.ended.notify_all();
    }

    /// Remembers the coroutine that dials, so that it can be ended with the node.
    pub(crate) fn set_task(&self, task: JoinHandle<()>) {
        if self.is_cancelled.get() {
            task.terminate();
        }
        *self.task.borrow_mut() = Some(task);
    }

    /// Ends the dial. Those who wait for it learn that by their own timeouts or by its coroutine's end.
    fn cancel(&self) {
        self.is_cancelled.set(true);
        if let Some(task) = self.task.borrow().as_ref() {
            task.terminate();
        }
    }

    /// Waits for the dial's end.
    ///
    /// # Suspends
    /// Until then; put a timeout around it.
    pub(crate) fn wait(&self) -> Result<Connection, Rc<DialError>> {
        loop {
            if let Some(result) = self.result.borrow().as_ref() {
                return result.clone();
            }
            self.ended.wait();
        }
    }
}
