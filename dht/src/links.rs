//! Reaching nodes, this process's own included, and remembering who answers and how fast.
//!
//! A call to ourselves is a method call: no encoding, no copy. For the others it keeps a smoothed latency and the
//! last failure of each, so that a reader asks the quick ones first and hedges after a delay that fits.
//!
//! Not here: connections and their pool, which are the overlay's; what is asked ([`crate::replicate`],
//! [`crate::register`]).

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use overlay::{Contact, NodeId, Overlay};
use reactor::rpc::{CallError, Method};

use crate::message::Refusal;
use crate::node::Node;

/// How long a node that failed is asked last. Long enough not to pay for it often, short enough to use it again soon
/// after it is back.
const PENALTY: Duration = Duration::from_secs(5);

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
}

pub(crate) struct Links<O> {
    pub(crate) overlay: O,
    pub(crate) local: Option<Rc<Node>>,
    pub(crate) replicas: usize,
    health: RefCell<HashMap<NodeId, Health>>,
    contacts: RefCell<HashMap<NodeId, Contact>>,
}

/// Counts a call in flight while it lives, also if the caller is terminated.
struct InFlight<'a> {
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
        Links { overlay, local, replicas, health: RefCell::default(), contacts: RefCell::default() }
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

    /// Where a node was when it was last near something we asked for.
    pub(crate) fn last_known(&self, id: &NodeId) -> Option<Contact> {
        self.contacts.borrow().get(id).cloned()
    }

    /// Calls another node.
    pub(crate) fn call<M: Method<Error = Refusal>>(
        &self,
        contact: &Contact,
        request: &M::Request,
        payload: Bytes,
        timeout: Duration,
    ) -> Result<(M::Response, Bytes), Failure> {
        self.health.borrow_mut().entry(contact.id).or_default().in_flight += 1;
        let counted = InFlight { health: &self.health, id: contact.id };
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
