//! One connection per peer, dialled when first needed, and a short memory of those that could not be reached.
//!
//! Whoever needs a peer first starts the dial; everyone else who needs it meanwhile waits for the same one. A dial
//! runs in a coroutine of its own, so that a caller who gives up does not end it for the others, and that coroutine
//! stays as the connection's session until it closes (`session.rs`).
//! After a failed dial the peer is not dialled again for a pause that doubles from [`PAUSE_MIN`] to [`PAUSE_MAX`]:
//! until then a call to it fails at once, so a dead node costs its neighbours nothing. The pause ends early if the peer
//! is heard of at another address or relay, or dials us.
//!
//! Connections that the peer dialled are as good as ours for calling it. If both dial at once there are two: calls take
//! the newest, since an older one may be the remains of the peer's former process; but one over TCP rather than a newer one by
//! the peer's id, once it has shown that it lives (`session.rs`).

use std::cell::Cell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

use reactor::JoinHandle;
use reactor::cell::RefCell;
use reactor::crypto::PublicKey;
use reactor::rpc::Connection;
use reactor::sync::Signal;

use crate::dial::{DialError, Places};

/// The first pause after a failed dial.
pub(crate) const PAUSE_MIN: Duration = Duration::from_secs(1);
/// The longest pause. Short, because the peer may be back any time, and a refused dial on a local network is cheap.
pub(crate) const PAUSE_MAX: Duration = Duration::from_secs(8);
/// Connections to one peer. A node needs two, if both dial at once; but one user's key may be at work in many processes
/// at a time, and each of those has a connection of its own.
pub(crate) const PEER_CONNECTIONS_MAX: usize = 64;
/// Peers with a connection. Each costs some 40 KiB of stacks and buffers.
pub(crate) const CONNECTED_PEERS_MAX: usize = 1024;
/// Peers remembered at all, most of them unreachable candidates from others' answers.
const SLOTS_MAX: usize = 4096;

/// Connections, dials and failures, by the peer's key.
#[derive(Default)]
pub(crate) struct Pool {
    /// In an order of their own, so that simulated runs are repeatable.
    slots: RefCell<BTreeMap<PublicKey, Slot>>,
}

#[derive(Default)]
struct Slot {
    /// Newest last, or the one that calls rather take.
    connections: Vec<Connection>,
    dial: Option<Rc<Dial>>,
    failure: Option<Failure>,
    last_used: Option<Instant>,
}

struct Failure {
    until: Instant,
    pause: Duration,
    places: Places,
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
    /// How to reach `key`, thought to be at `places`. If `insist`, the memory of failures is ignored.
    pub(crate) fn way_to(&self, key: &PublicKey, places: &Places, insist: bool, now: Instant) -> Way {
        let mut slots = self.slots.borrow_mut();
        if slots.len() >= SLOTS_MAX {
            slots.retain(|_, slot| slot.is_needed(now));
        }
        let slot = slots.entry(*key).or_default();
        slot.last_used = Some(now);
        if let Some(connection) = slot.newest() {
            return Way::Open(connection.clone());
        }
        if let Some(dial) = &slot.dial {
            return Way::Dialling(dial.clone());
        }
        if let Some(failure) = &slot.failure
            && !insist
            && now < failure.until
            && places.are_among(&failure.places)
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
                let is_idle = |connection: &Connection| connection.calls_in_flight() == (0, 0);
                let oldest_idle = slot.connections.iter().position(is_idle).unwrap_or(0);
                surplus.push(slot.connections.remove(oldest_idle));
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

    /// The connection that calls to `key` take, if there is one.
    pub(crate) fn newest(&self, key: &PublicKey) -> Option<Connection> {
        self.slots.borrow().get(key)?.newest().cloned()
    }

    /// All open connections to `key`.
    pub(crate) fn all_of(&self, key: &PublicKey) -> Vec<Connection> {
        let slots = self.slots.borrow();
        let all = slots.get(key).into_iter().flat_map(|slot| &slot.connections);
        all.filter(|connection| !connection.is_closed()).cloned().collect()
    }

    /// Has calls to `key` take this connection, if it is one of that peer's.
    pub(crate) fn prefer(&self, key: &PublicKey, connection: &Connection) {
        if let Some(slot) = self.slots.borrow_mut().get_mut(key) {
            slot.connections.sort_by_key(|other| other.is_same(connection));
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
        result: Result<Connection, (DialError, Places)>,
        now: Instant,
    ) {
        let mut slots = self.slots.borrow_mut();
        let slot = slots.entry(*key).or_default();
        if slot.dial.as_ref().is_some_and(|current| Rc::ptr_eq(current, dial)) {
            slot.dial = None;
        }
        let result = result.map_err(|(error, places)| {
            let error = Rc::new(error);
            // It may have dialled us meanwhile: then the failure means nothing.
            if !slot.is_connected() {
                let pause =
                    slot.failure.as_ref().map_or(PAUSE_MIN, |failure| (failure.pause * 2).min(PAUSE_MAX));
                // Where it was sought before is no news either: who says now this and now that ends no pause by it.
                let before = slot.failure.take().map_or_else(Places::default, |failure| failure.places);
                let places = places.with(before);
                slot.failure = Some(Failure { until: now + pause, pause, places, error: error.clone() });
            }
            error
        });
        drop(slots);
        dial.end(result);
    }

    /// Closes every connection to `key`, and ends the dial to it.
    pub(crate) fn cut(&self, key: &PublicKey) {
        let slot = self.slots.borrow_mut().remove(key);
        slot.into_iter().for_each(Slot::close);
    }

    /// Every peer with an open connection, with its newest.
    pub(crate) fn one_of_each(&self) -> Vec<(PublicKey, Connection)> {
        let slots = self.slots.borrow();
        slots.iter().filter_map(|(key, slot)| Some((*key, slot.newest()?.clone()))).collect()
    }

    /// Closes everything and ends every dial.
    pub(crate) fn close_all(&self) {
        let slots = std::mem::take(&mut *self.slots.borrow_mut());
        slots.into_values().for_each(Slot::close);
    }
}

impl Slot {
    fn close(self) {
        for connection in self.connections {
            connection.close();
        }
        if let Some(dial) = self.dial {
            dial.cancel();
        }
    }

    fn newest(&self) -> Option<&Connection> {
        self.connections.iter().rev().find(|connection| !connection.is_closed())
    }

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dial::Place;
    use reactor::rpc::{Config, Service};
    use std::net::SocketAddr;

    const KEY: PublicKey = PublicKey::from_bytes([1; 32]);

    fn address(port: u16) -> SocketAddr {
        ([127, 0, 0, 1], port).into()
    }

    fn places(port: u16) -> Places {
        Places { addresses: std::iter::once(address(port)).collect(), ..Places::default() }
    }

    fn failure() -> DialError {
        DialError::TimedOut { place: Place::At(address(1)) }
    }

    /// A connection, and its other end, which must be kept for it to stay open.
    fn connection() -> (Connection, Connection) {
        let (here, there) = reactor::net::pipe(1 << 16);
        let start = |end| Connection::start(end, Service::none(), Config::default());
        (start(here), start(there))
    }

    fn must_dial(pool: &Pool, port: u16, insist: bool, now: Instant) -> Option<Rc<Dial>> {
        match pool.way_to(&KEY, &places(port), insist, now) {
            Way::MustDial(dial) => Some(dial),
            _ => None,
        }
    }

    #[test]
    fn one_caller_dials_and_the_others_wait_for_it() {
        reactor::run(|| {
            let (pool, now) = (Rc::new(Pool::default()), Instant::now());
            let dial = must_dial(&pool, 1, false, now).unwrap();
            let waiting = (0..3).map(|_| {
                let Way::Dialling(dial) = pool.way_to(&KEY, &places(1), false, now) else {
                    panic!("a second dial")
                };
                reactor::spawn(move || dial.wait().is_ok())
            });
            let waiting: Vec<_> = waiting.collect();
            let (ours, _theirs) = connection();
            pool.add(KEY, ours.clone(), now);
            pool.on_dialled(&KEY, &dial, Ok(ours), now);
            assert!(waiting.into_iter().all(|waiting| waiting.join().unwrap()));
            assert!(matches!(pool.way_to(&KEY, &places(1), false, now), Way::Open(_)));
        });
    }

    #[test]
    fn a_failed_dial_is_remembered_for_a_pause_that_doubles() {
        let (pool, mut now) = (Pool::default(), Instant::now());
        for pause in [PAUSE_MIN, PAUSE_MIN * 2, PAUSE_MIN * 4, PAUSE_MAX, PAUSE_MAX] {
            let dial = must_dial(&pool, 1, false, now).unwrap();
            pool.on_dialled(&KEY, &dial, Err((failure(), places(1))), now);
            assert!(must_dial(&pool, 1, false, now + pause - Duration::from_millis(1)).is_none());
            now += pause;
        }
        assert!(pool.has_failed(&KEY));
    }

    #[test]
    fn another_address_and_those_who_insist_end_the_pause() {
        let (pool, now) = (Pool::default(), Instant::now());
        let fail = |dial: Rc<Dial>| pool.on_dialled(&KEY, &dial, Err((failure(), places(1))), now);
        fail(must_dial(&pool, 1, false, now).unwrap());
        assert!(must_dial(&pool, 1, false, now).is_none());
        fail(must_dial(&pool, 2, false, now).unwrap());
        fail(must_dial(&pool, 1, true, now).unwrap());
        assert!(must_dial(&pool, 1, false, now).is_none());
        let at = |relay| Places { relays: vec![PublicKey::from_bytes([relay; 32])], ..places(1) };
        let Way::MustDial(dial) = pool.way_to(&KEY, &at(2), false, now) else { panic!("another relay") };
        pool.on_dialled(&KEY, &dial, Err((failure(), at(2))), now);
        let Way::MustDial(dial) = pool.way_to(&KEY, &at(3), false, now) else { panic!("another relay") };
        pool.on_dialled(&KEY, &dial, Err((failure(), at(3))), now);
        assert!(matches!(pool.way_to(&KEY, &at(2), false, now), Way::Pausing(_)), "it was sought there");
    }

    #[test]
    fn a_peer_that_dials_us_ends_the_wait_and_the_failure() {
        reactor::run(|| {
            let (pool, now) = (Rc::new(Pool::default()), Instant::now());
            let dial = must_dial(&pool, 1, false, now).unwrap();
            let (waiting, (ours, _theirs)) = (dial.clone(), connection());
            let waiting = reactor::spawn(move || waiting.wait().is_ok());
            pool.add(KEY, ours, now);
            assert!(waiting.join().unwrap());
            pool.on_dialled(&KEY, &dial, Err((failure(), places(1))), now);
            assert!(!pool.has_failed(&KEY));
            assert!(matches!(pool.way_to(&KEY, &places(1), false, now), Way::Open(_)));
        });
    }

    #[test]
    fn calls_take_the_newest_of_few_connections() {
        reactor::run(|| {
            let (pool, now) = (Pool::default(), Instant::now());
            let pairs: Vec<_> = (0..PEER_CONNECTIONS_MAX + 1).map(|_| connection()).collect();
            for (ours, _) in &pairs {
                pool.add(KEY, ours.clone(), now);
            }
            assert!(pairs[0].0.is_closed(), "the oldest made room");
            assert!(pairs[1..].iter().all(|(ours, _)| !ours.is_closed()));
            pairs[PEER_CONNECTIONS_MAX].0.close();
            assert!(pool.sweep(&KEY));
            assert!(matches!(pool.way_to(&KEY, &Places::default(), false, now), Way::Open(_)));
            pool.close_all();
            assert!(pairs.iter().all(|(ours, _)| ours.is_closed()));
            assert!(!pool.is_connected(&KEY));
        });
    }

    #[test]
    fn the_unreachable_are_not_remembered_without_end() {
        let (pool, now) = (Pool::default(), Instant::now());
        for number in 0..3 * SLOTS_MAX as u32 {
            let mut bytes = [0; 32];
            bytes[..4].copy_from_slice(&number.to_be_bytes());
            let key = PublicKey::from_bytes(bytes);
            let at = now + Duration::from_millis(u64::from(number));
            let Way::MustDial(dial) = pool.way_to(&key, &places(1), false, at) else {
                panic!("never seen before")
            };
            pool.on_dialled(&key, &dial, Err((failure(), places(1))), at);
        }
        assert!(pool.slots.borrow().len() <= SLOTS_MAX);
    }
}
