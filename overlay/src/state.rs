//! What a node's coroutines share, and the calls they make: the routing table, the connections, the peers' rights.
//!
//! Everything here is reached through `Rc<State>` on the reactor's one thread; no borrow is held across a call that
//! suspends. What is decided is decided in the pure files; this one applies it and tells watchers of changes.

use std::cell::{Cell, OnceCell};
use std::collections::HashSet;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use reactor::cell::RefCell;
use reactor::crypto::{Identity, PublicKey};
use reactor::net::Gate;
use reactor::rpc::{CallError, Connection, Method, Service};
use reactor::sync::Mutex;

use crate::admission::Credentials;
use crate::connections::{Pool, Way};
use crate::contact::{ADDRESSES_MAX, Addresses, Contact, Introduction};
use crate::dial::{DialError, Places};
use crate::introductions::Introductions;
use crate::k_bucket::FAILURES_TO_EVICT;
use crate::letterbox::Letterbox;
use crate::life::Life;
use crate::listener;
use crate::lookup::Transport;
use crate::members::Members;
use crate::message::{FindNode, FindNodeRequest, Ping};
use crate::node_id::NodeId;
use crate::peers::Peers;
use crate::port_mapping::PortMapping;
use crate::reach::Reach;
use crate::record::NodeRecord;
use crate::relaying::Relaying;
use crate::renewal::Digest;
use crate::routing_table::RoutingTable;
use crate::served::Served;
use crate::session;
use crate::stating;
use crate::twin::Twins;
use crate::watch::Changes;
use crate::ways::Ways;

/// How long a ping waits. A second is many round trips of any network that a drive is bearable on.
pub(crate) const PING_TIMEOUT: Duration = Duration::from_secs(1);
/// How long one question of a lookup waits, dial included.
pub(crate) const FIND_NODE_TIMEOUT: Duration = Duration::from_secs(1);
/// Patience with a contact whose round trip is unknown: a dial is three of them.
const PATIENCE_UNKNOWN: Duration = Duration::from_millis(300);
/// Less patience than this would hedge at every hiccup of a scheduler.
const PATIENCE_MIN: Duration = Duration::from_millis(30);

/// What a node's coroutines share.
pub(crate) struct State {
    pub(crate) identity: Rc<Identity>,
    pub(crate) credentials: Credentials,
    pub(crate) own_id: NodeId,
    pub(crate) table: RefCell<RoutingTable>,
    pub(crate) pool: Pool,
    /// How members are reached by their ids.
    pub(crate) reach: Reach,
    /// The relay that we are, if we are one.
    pub(crate) relaying: OnceCell<Relaying>,
    /// What the router lets in to us.
    pub(crate) port_mapping: PortMapping,
    /// How many may come in by TCP.
    pub(crate) gate: Gate,
    /// And how many by our id, each under its key.
    pub(crate) gate_by_id: Gate<PublicKey>,
    pub(crate) peers: Peers,
    pub(crate) changes: Changes,
    /// Whether a lookup of our own position has succeeded, so that whoever is near knows us.
    pub(crate) joined: Cell<bool>,
    pub(crate) stopping: Cell<bool>,
    /// Every way into the network that we were told or remembered.
    pub(crate) ways: RefCell<Ways>,
    /// Which nodes there are, reached or not.
    pub(crate) members: Members,
    /// What strangers brought for the owner.
    pub(crate) letterbox: RefCell<Letterbox>,
    /// Where the list of the revoked is kept, and the number of the one that is there.
    pub(crate) kept_revocations: Option<(PathBuf, Mutex<u64>)>,
    /// Where renewed passports are kept, and which are there.
    pub(crate) kept_renewals: Option<(PathBuf, Mutex<Digest>)>,
    /// Where what we say of ourselves is kept.
    pub(crate) kept_record: Option<PathBuf>,
    /// How often each peer told what it says of itself lately.
    pub(crate) introductions: RefCell<Introductions>,
    /// Held by who changes what we say of ourselves.
    pub(crate) stating: Mutex<()>,
    /// Who else has our key.
    pub(crate) twins: Twins,
    service: OnceCell<Rc<Service>>,
    probed: RefCell<HashSet<NodeId>>,
}

impl State {
    /// A node's state before it has met anybody; adds the overlay's methods to `service`.
    pub(crate) fn new(
        identity: Identity,
        credentials: Credentials,
        kept_revocations: Option<PathBuf>,
        kept_renewals: Option<PathBuf>,
        kept_record: Option<PathBuf>,
        life: Life,
        mut service: Service,
    ) -> Rc<State> {
        let own_id = NodeId::of(&credentials.own);
        let peers = credentials.peers.clone();
        let kept_revocations = kept_revocations.map(|path| (path, Mutex::new(peers.revocations().version())));
        let renewals = credentials.renewals.digest();
        let kept_renewals = kept_renewals.map(|path| (path, Mutex::new(renewals)));
        let state = Rc::new(State {
            identity: Rc::new(identity),
            credentials,
            own_id,
            table: RefCell::new(RoutingTable::new(own_id)),
            pool: Pool::default(),
            reach: Reach::default(),
            relaying: OnceCell::new(),
            port_mapping: PortMapping::default(),
            gate: Gate::new(listener::LIMITS),
            gate_by_id: Gate::of_owners(listener::LIMITS_BY_ID),
            peers,
            changes: Changes::new(),
            joined: Cell::new(false),
            stopping: Cell::new(false),
            ways: RefCell::default(),
            members: Members::default(),
            letterbox: RefCell::default(),
            kept_revocations,
            kept_renewals,
            kept_record,
            introductions: RefCell::default(),
            stating: Mutex::new(()),
            twins: Twins::new(life),
            service: OnceCell::new(),
            probed: RefCell::new(HashSet::new()),
        });
        Served::serve(&state, &mut service);
        let _ = state.service.set(Rc::new(service));
        state
    }

    /// Every method that a peer may call.
    pub(crate) fn service(&self) -> Rc<Service> {
        self.service.get().expect("set when the state was made").clone()
    }

    /// Changes the table, and wakes the watchers if who is near has changed.
    pub(crate) fn change_table<R>(&self, change: impl FnOnce(&mut RoutingTable, Instant) -> R) -> R {
        let now = reactor::now();
        let mut table = self.table.borrow_mut();
        let before = table.version();
        let result = change(&mut table, now);
        let is_changed = table.version() != before;
        drop(table);
        if is_changed {
            self.changes.announce();
        }
        result
    }

    /// Whom a peer names, under the newest record that is known here.
    pub(crate) fn meet(self: &Rc<State>, said: &Introduction) -> Contact {
        let id = NodeId::of(&said.public_key);
        let is_known = self.table.borrow().get(&id).is_some();
        let records = &self.credentials.records;
        let contact = if is_known { records.meet(said) } else { records.hear_of(said) };
        if let Some(record) = contact.record() {
            self.note(record, false);
        }
        contact
    }

    /// Has the table know what a node says of itself, if it is in there and that is news; and the node, if others say so in its name.
    pub(crate) fn note(self: &Rc<State>, record: &Arc<NodeRecord>, is_told_by_itself: bool) {
        let id = NodeId::of(record.holder());
        let is_news = self
            .table
            .borrow()
            .get(&id)
            .is_some_and(|entry| entry.contact.record().is_none_or(|known| record.is_newer_than(known)));
        if is_news {
            self.change_table(|table, now| table.on_record(record, now));
            stating::show_itself(self, record, is_told_by_itself);
        }
    }

    /// The same contact under the newest record that is known here.
    pub(crate) fn newest(&self, contact: &Contact) -> Contact {
        let contact = self.credentials.records.newest(contact.clone());
        let in_table = self.table.borrow().get(&contact.id).and_then(|entry| entry.contact.record().cloned());
        in_table.into_iter().fold(contact, Contact::with_record)
    }

    /// Somebody who has come by our id, and so from no address: where it was met before it may still be.
    pub(crate) fn also_where_it_was(&self, mut contact: Contact) -> Contact {
        if let Some(known) = self.table.borrow().get(&contact.id) {
            let known = known.contact.addresses.iter().filter(|known| !contact.addresses.contains(known));
            let known: Addresses = known.copied().collect();
            contact.addresses.extend(known);
            contact.addresses.truncate(ADDRESSES_MAX);
        }
        contact
    }

    /// An open connection to `contact`: the one there is, or a new one. `insist` dials even right after a failure.
    ///
    /// # Errors
    /// `Failed` if it can't be reached, `TimedOut` if `timeout` was over first; the dial then goes on.
    ///
    /// # Suspends
    /// For a dial, at most for `timeout`.
    pub(crate) fn connect(
        self: &Rc<State>,
        contact: &Contact,
        insist: bool,
        timeout: Duration,
    ) -> Result<Connection, Unreached> {
        // Who was removed knows it by the owner's signature: nobody will ever let us in again.
        let is_vain =
            [&self.credentials.own, &contact.public_key].iter().any(|key| self.peers.is_revoked(key));
        if self.stopping.get() || contact.id == self.own_id || is_vain {
            return Err(Unreached::Never);
        }
        let contact = &self.newest(contact);
        let mut places = Places::of(contact);
        if let Some(known) = self.table.borrow().get(&contact.id) {
            let known = known.contact.addresses.iter().filter(|address| !contact.addresses.contains(address));
            places.addresses.extend(known.copied());
        }
        let dial = match self.pool.way_to(&contact.public_key, &places, insist, reactor::now()) {
            Way::Open(connection) => return Ok(connection),
            Way::Pausing(error) => {
                tracing::trace!(%contact, %error, "not dialled again yet");
                return Err(Unreached::Failed(error));
            }
            Way::Dialling(dial) => dial,
            Way::MustDial(dial) => {
                session::spawn_dial(self, contact.clone(), places, dial.clone());
                dial
            }
        };
        // Its age counts: a peer that has kept others waiting for so long need not keep us waiting as long again.
        let left = timeout.saturating_sub(dial.age(reactor::now()));
        match reactor::timeout(left, || dial.wait()) {
            Ok(Ok(connection)) => Ok(connection),
            Ok(Err(error)) => {
                tracing::debug!(%contact, %error, "not reached");
                Err(Unreached::Failed(error))
            }
            Err(_) => Err(Unreached::TimedOut),
        }
    }

    /// Calls `contact`, and notes what that tells about it.
    ///
    /// # Suspends
    /// At most for `timeout`.
    pub(crate) fn call<M: Method>(
        self: &Rc<State>,
        contact: &Contact,
        request: &M::Request,
        payload: Bytes,
        timeout: Duration,
    ) -> Result<(M::Response, Bytes), CallError<M::Error>> {
        let began = reactor::now();
        let connection = match self.connect(contact, false, timeout) {
            Ok(connection) => connection,
            Err(Unreached::Never | Unreached::Failed(_)) => return Err(CallError::NotSent),
            Err(Unreached::TimedOut) => {
                // Its dial goes on, and revives it if it succeeds.
                self.change_table(|table, now| table.on_failed(&contact.id, now));
                return Err(CallError::TimedOut);
            }
        };
        let left = timeout.saturating_sub(reactor::now() - began);
        let result = connection.call::<M>(request, payload, left);
        match &result {
            // It may only be slow at this one thing: a ping decides, at once.
            Err(CallError::TimedOut) => self.probe(contact),
            // The connection's session finds out whether the peer is gone.
            Err(CallError::NotSent | CallError::Closed) => {}
            _ => self.change_table(|table, now| table.on_heard(&contact.id, now)),
        }
        result
    }

    /// Pings `contact` and notes the result. Dials even right after a failure.
    ///
    /// # Suspends
    /// At most twice [`PING_TIMEOUT`].
    pub(crate) fn ping(self: &Rc<State>, contact: &Contact) -> bool {
        let failed = |table: &mut RoutingTable, now| table.on_failed(&contact.id, now);
        let connection = match self.connect(contact, true, PING_TIMEOUT) {
            Ok(connection) => connection,
            // The dial itself has noted a failure; one that still goes on has not.
            Err(Unreached::Never | Unreached::Failed(_)) => return false,
            Err(Unreached::TimedOut) => {
                self.change_table(failed);
                return false;
            }
        };
        let began = reactor::now();
        match connection.call::<Ping>(&(), Bytes::new(), PING_TIMEOUT) {
            Ok(_) => {
                self.change_table(|table, now| table.on_answer(&contact.id, now - began, now));
                true
            }
            Err(error) => {
                tracing::debug!(%contact, %error, "no answer to a ping");
                self.change_table(failed);
                // One lost ping may be our own hiccup. After two, whatever waits on this connection waits in vain.
                let failures = self.table.borrow().get(&contact.id).map(|entry| entry.failures);
                if failures.is_none_or(|failures| failures >= FAILURES_TO_EVICT) {
                    connection.close();
                }
                false
            }
        }
    }

    /// Pings `contact` in the background, unless that is going on already.
    pub(crate) fn probe(self: &Rc<State>, contact: &Contact) {
        if self.stopping.get() || !self.probed.borrow_mut().insert(contact.id) {
            return;
        }
        let (state, contact) = (self.clone(), contact.clone());
        let ended = ProbeEnded { state: self.clone(), id: contact.id };
        // At the limit of coroutines there is no probe now; the next failure asks for one again.
        let _ = reactor::Builder::new().spawn(move || {
            let _ended = ended;
            state.ping(&contact);
        });
    }
}

/// Strikes a contact from the list of those being probed, however the probe ends.
struct ProbeEnded {
    state: Rc<State>,
    id: NodeId,
}

impl Drop for ProbeEnded {
    fn drop(&mut self) {
        self.state.probed.borrow_mut().remove(&self.id);
    }
}

/// Why there is no connection.
pub(crate) enum Unreached {
    /// It is ourselves, or no member any more, or we are stopping.
    Never,
    /// The dial failed, now or a moment ago.
    Failed(Rc<DialError>),
    /// The caller's time was over; the dial goes on.
    TimedOut,
}

/// How a node's lookups reach others.
pub(crate) struct Live<'a> {
    state: &'a Rc<State>,
    /// How many contacts it asks each for.
    count: usize,
}

impl<'a> Live<'a> {
    /// For a lookup of `count` nodes. Those near a position know each other, and little of the next part of the network: who is
    /// asked for more than `K` names more, or the lookup would come back to the same few.
    pub(crate) fn of(state: &'a Rc<State>, count: usize) -> Live<'a> {
        Live { state, count }
    }
}

impl Transport for Live<'_> {
    fn find_node(&self, contact: &Contact, target: &NodeId) -> Option<Vec<Contact>> {
        let request = FindNodeRequest::new(*target, self.count);
        // Somebody who could not be reached a while ago gets less time to disappoint us again.
        let is_doubtful = self.state.pool.has_failed(&contact.public_key);
        let timeout = if is_doubtful { FIND_NODE_TIMEOUT / 4 } else { FIND_NODE_TIMEOUT };
        let began = reactor::now();
        let (answer, _) = self.state.call::<FindNode>(contact, &request, Bytes::new(), timeout).ok()?;
        self.state.change_table(|table, now| table.on_answer(&contact.id, now - began, now));
        // Of a longer answer than was asked for the rest is ignored.
        Some(answer.contacts.iter().take(request.contacts_max()).map(|said| self.state.meet(said)).collect())
    }

    fn patience(&self, contact: &Contact) -> Duration {
        let round_trip = self.state.table.borrow().get(&contact.id).and_then(|entry| entry.round_trip);
        match round_trip.filter(|_| self.state.pool.is_connected(&contact.public_key)) {
            // 2.3 round trips and 20 ms: what made lookups fastest in simulation.
            Some(round_trip) => {
                (round_trip.mul_f64(2.3) + Duration::from_millis(20)).clamp(PATIENCE_MIN, FIND_NODE_TIMEOUT)
            }
            None => PATIENCE_UNKNOWN,
        }
    }
}
