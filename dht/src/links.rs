//! Reaching nodes, this process's own included, and remembering who answers and how fast.
//!
//! A call to ourselves is a method call: no encoding, no copy. For the others it keeps a smoothed latency and the
//! last failure of each, so that a reader asks the quick ones first and hedges after a delay that fits.
//!
//! Not here: connections and their pool, which are the overlay's; what is asked ([`crate::replicate`],
//! [`crate::register`]).

use std::cell::Cell;
use std::collections::HashMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use overlay::{Contact, NodeId, Overlay, Watch};
use reactor::cell::RefCell;
use reactor::rpc::{CallError, Method};

use crate::message::Refusal;
use crate::node::Node;
use crate::placement::{self, WIDTH, is_everybody};

/// How long a node that failed is asked last. Long enough not to pay for it often, short enough to use it again soon
/// after it is back.
const PENALTY: Duration = Duration::from_secs(5);

/// How long a node is not waited for that did not take a block, if it is given none meanwhile: it may have been well again for long,
/// and what is put then would lie in one zone.
const DEAF_FOR: Duration = Duration::from_secs(60);

/// How long it is believed what a lookup found of how many nodes there are, if nobody is seen to come or go.
const EVERYBODY_FOR: Duration = Duration::from_secs(1);

/// How often it is said that blocks lie in one zone.
const WARNING_PERIOD: Duration = Duration::from_secs(60);

/// Before a node's latency is known.
const HEDGE_FIRST: Duration = Duration::from_millis(50);
/// On a loopback latencies are below a millisecond, and a pause of the scheduler is no reason to ask twice.
const HEDGE_MIN: Duration = Duration::from_millis(10);
/// A reader should not wait longer than this for a node that was slow before.
const HEDGE_MAX: Duration = Duration::from_millis(500);

/// Why a node did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Failure {
    /// It said so.
    Refused(Refusal),
    /// It was not reached, or did not answer.
    Unreachable(String),
    /// It answered what can't be true.
    Lied(String),
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Failure::Refused(refusal) => write!(f, "{refusal}"),
            Failure::Unreachable(reason) | Failure::Lied(reason) => f.write_str(reason),
        }
    }
}

#[derive(Default, Clone, Copy)]
struct Health {
    latency: Option<Duration>,
    failed_at: Option<Instant>,
    in_flight: usize,
    /// When it was last found not to take a block, or not in time, if it has taken none in time since.
    deaf_at: Option<Instant>,
}

pub(crate) struct Links<O> {
    pub(crate) overlay: O,
    pub(crate) local: Option<Rc<Node>>,
    pub(crate) replicas: usize,
    health: RefCell<HashMap<NodeId, Health>>,
    /// Where each was found last.
    contacts: RefCell<HashMap<NodeId, Contact>>,
    /// When it was last told that blocks lie in one zone.
    warned_at: Cell<Option<Instant>>,
    /// All nodes there were a moment ago, where that takes a lookup.
    everybody: RefCell<Option<Everybody>>,
}

/// What a lookup found of who there is.
struct Everybody {
    /// All nodes there are, if they are no more than [`WIDTH`].
    contacts: Option<Vec<Contact>>,
    at: Instant,
    changes: Watch,
}

/// Counts a call in flight while it lives, also if the caller is terminated.
pub(crate) struct InFlight<'a> {
    health: &'a RefCell<HashMap<NodeId, Health>>,
    id: NodeId,
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        if let Some(health) = self.health.borrow_mut().get_mut(&self.id) {
            health.in_flight -= 1;
        }
    }
}

impl<O: Overlay> Links<O> {
    pub(crate) fn new(overlay: O, local: Option<Rc<Node>>, replicas: usize) -> Links<O> {
        let (health, contacts) = (RefCell::default(), RefCell::default());
        let (warned_at, everybody) = (Cell::new(None), RefCell::new(None));
        Links { overlay, local, replicas, health, contacts, warned_at, everybody }
    }

    /// How many must hold a block before it counts as stored.
    pub(crate) fn write_quorum(&self) -> usize {
        self.replicas / 2 + 1
    }

    /// Our own node, if `contact` is it.
    pub(crate) fn local(&self, id: &NodeId) -> Option<&Rc<Node>> {
        self.local.as_ref().filter(|local| local.own() == *id)
    }

    /// Our own node, if nobody else is to hold anything: then nothing need travel.
    pub(crate) fn only_local(&self) -> Option<&Rc<Node>> {
        self.local.as_ref().filter(|_| self.replicas == 1)
    }

    pub(crate) fn closest(&self, key: [u8; 32], count: usize) -> Vec<Contact> {
        let contacts = self.overlay.closest(&NodeId(key), count);
        let mut known = self.contacts.borrow_mut();
        if known.len() > 4096 {
            known.clear();
        }
        for contact in &contacts {
            // The newest counts: a node that restarts may listen elsewhere.
            known.insert(contact.id, contact.clone());
        }
        contacts
    }

    /// The nodes for `key`, those that are responsible for it first: at least `count`, if there are as many.
    pub(crate) fn placed(&self, key: [u8; 32], count: usize) -> Vec<Contact> {
        self.placed_in_zones(key, count).0
    }

    /// As `placed`; and of each the number of its zone, where zones count.
    pub(crate) fn placed_in_zones(&self, key: [u8; 32], count: usize) -> (Vec<Contact>, Vec<usize>) {
        let nowhere = |nearest: Vec<Contact>| {
            let zones = vec![0; nearest.len()];
            (nearest, zones)
        };
        match self.everybody(key) {
            Some(all) if placement::say_nothing(&all) => nowhere(all),
            Some(all) => {
                let ordered = placement::order(&NodeId(key), &all);
                let zones = placement::zones(&ordered);
                (ordered, zones)
            }
            // It is the nearest who are, and a lookup ends with the few that are wanted.
            None => nowhere(self.closest(key, count)),
        }
    }

    /// All nodes there are, nearest first, if they are no more than [`WIDTH`].
    fn everybody(&self, key: [u8; 32]) -> Option<Vec<Contact>> {
        let all = |contacts: Vec<Contact>| is_everybody(contacts.len()).then_some(contacts);
        if !is_everybody(self.overlay.known_count()) {
            return None;
        }
        if self.overlay.knows_everyone() {
            return all(self.closest(key, WIDTH + 1));
        }
        // Only a lookup can tell, and it ends when each has answered: not again for every block.
        if let Some(known) = &*self.everybody.borrow()
            && reactor::now() < known.at + EVERYBODY_FOR
            && !known.changes.is_changed()
        {
            let mut contacts = known.contacts.clone();
            if let Some(contacts) = &mut contacts {
                contacts.sort_by_key(|contact| contact.id.distance(&NodeId(key)));
            }
            return contacts;
        }
        let changes = self.overlay.watch();
        let contacts = all(self.closest(key, WIDTH + 1));
        // That nobody answers is so until somebody does.
        let known = || Everybody { contacts: contacts.clone(), at: reactor::now(), changes };
        self.everybody.replace((contacts != Some(Vec::new())).then(known));
        contacts
    }

    /// Says, now and then, that blocks are put in one zone, because no other takes them.
    pub(crate) fn warn_of_one_zone(&self) {
        let now = reactor::now();
        if self.warned_at.get().is_none_or(|at| now >= at + WARNING_PERIOD) {
            self.warned_at.set(Some(now));
            tracing::warn!(
                "blocks are stored in one zone only: no node of another takes them in time and has room"
            );
        }
    }

    /// Where a node was when it was last near something we asked for.
    pub(crate) fn last_known(&self, id: &NodeId) -> Option<Contact> {
        self.contacts.borrow().get(id).cloned()
    }

    /// Counts something on its way to a node until what is returned is dropped.
    pub(crate) fn count_in_flight(&self, id: NodeId) -> InFlight<'_> {
        self.health.borrow_mut().entry(id).or_default().in_flight += 1;
        InFlight { health: &self.health, id }
    }

    /// Calls another node.
    pub(crate) fn call<M: Method<Error = Refusal>>(
        &self,
        contact: &Contact,
        request: &M::Request,
        payload: Bytes,
        timeout: Duration,
    ) -> Result<(M::Response, Bytes), Failure> {
        let counted = self.count_in_flight(contact.id);
        let began = reactor::now();
        let answer = self.overlay.call::<M>(contact, request, payload, timeout);
        drop(counted);
        let mut health = self.health.borrow_mut();
        let health = health.entry(contact.id).or_default();
        match answer {
            Ok(answer) => {
                let took = reactor::now().saturating_duration_since(began);
                // As TCP smooths its round trips: an eighth of what is new (RFC 6298).
                health.latency = Some(health.latency.map_or(took, |latency| latency * 7 / 8 + took / 8));
                health.failed_at = None;
                Ok(answer)
            }
            Err(CallError::Remote(refusal)) => Err(Failure::Refused(refusal)),
            Err(error) => {
                // One that says it has too much to do lives, and is no worse for it.
                if !matches!(error, CallError::Overloaded) {
                    health.failed_at = Some(reactor::now());
                }
                Err(Failure::Unreachable(format!("{contact}: {}", error.map_remote(|_| ()))))
            }
        }
    }

    /// Notes how it went to give a node a block, and whether it took too long for that.
    pub(crate) fn note_given(&self, id: &NodeId, outcome: &Result<(), Failure>, is_late: bool) {
        let mut health = self.health.borrow_mut();
        let health = health.entry(*id).or_default();
        match outcome {
            _ if is_late => health.deaf_at = Some(reactor::now()),
            // One that has too much to do says so at once: nobody has to wait for it.
            Err(Failure::Unreachable(_)) if health.failed_at.is_none() => {}
            Err(Failure::Unreachable(_)) => health.deaf_at = Some(reactor::now()),
            _ => health.deaf_at = None,
        }
    }

    /// Notes that a node takes too long for a block, which it may take yet.
    pub(crate) fn note_late(&self, id: &NodeId) {
        self.health.borrow_mut().entry(*id).or_default().deaf_at = Some(reactor::now());
    }

    /// Whether nobody has to wait for a node to take a block: the last one it did not take, or not in time ([`crate::acks`]). It is
    /// given further ones all the same, and the first that it takes in time makes it count again.
    pub(crate) fn is_deaf(&self, id: &NodeId) -> bool {
        let deaf_at = self.health.borrow().get(id).and_then(|health| health.deaf_at);
        deaf_at.is_some_and(|at| reactor::now().saturating_duration_since(at) < DEAF_FOR)
    }

    /// Who of the network's nodes is not `in_sight` and could be one of those that keep what belongs to `key`; `None` if nobody tells
    /// which nodes there are. No time decides: a site that is cut off for weeks has what it had, until its owner says that it is gone.
    ///
    /// # Suspends
    /// While it is asked which nodes there are.
    pub(crate) fn missed(&self, key: [u8; 32], in_sight: &[Contact]) -> Option<Vec<Contact>> {
        let members = self.overlay.members()?;
        let own = self.overlay.own();
        let mut away: Vec<Contact> = Vec::new();
        for contact in members.into_iter().chain(self.contacts.borrow().values().cloned()) {
            let is_there = in_sight.iter().chain(&own).chain(&away).any(|other| other.id == contact.id);
            if !is_there && !self.overlay.is_removed(&contact) {
                away.push(contact);
            }
        }
        Some(placement::could_keep(&NodeId(key), in_sight, &away, self.replicas))
    }

    pub(crate) fn in_flight(&self, id: &NodeId) -> usize {
        self.health.borrow().get(id).map_or(0, |health| health.in_flight)
    }

    /// Whether a node failed a moment ago.
    pub(crate) fn is_suspect(&self, id: &NodeId) -> bool {
        let (health, now) = (self.health.borrow(), reactor::now());
        let failed_at = health.get(id).and_then(|health| health.failed_at);
        failed_at.is_some_and(|at| now.saturating_duration_since(at) < PENALTY)
    }

    /// How long to wait for a node before asking another too.
    pub(crate) fn hedge_after(&self, id: &NodeId) -> Duration {
        let latency = self.health.borrow().get(id).and_then(|health| health.latency);
        latency.map_or(HEDGE_FIRST, |latency| (latency * 3).clamp(HEDGE_MIN, HEDGE_MAX))
    }
}
