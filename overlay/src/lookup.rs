//! The iterative lookup: ask the nearest we know for nearer ones, until there are none.
//!
//! One loop in one scope. Each question is a coroutine of the scope, at most [`ALPHA`](crate::frontier::ALPHA) of them
//! within their patience; whom to ask next, and when to stop, is the [`Frontier`]'s decision. Questions still in flight
//! when it is over are terminated, which cancels their calls.
//!
//! Nothing here knows sockets: the world is a [`Transport`], a real node's or a simulation's.

use std::time::Duration;

use reactor::cell::RefCell;
use reactor::sync::Signal;

use crate::contact::Contact;
use crate::frontier::{Frontier, Step};
use crate::node_id::NodeId;

/// The longest a lookup takes. Every question has a timeout of its own, far shorter; this bounds a chain of bad luck.
pub const LOOKUP_TIMEOUT: Duration = Duration::from_secs(10);

/// How a lookup reaches other nodes.
pub trait Transport {
    /// Asks `contact` for the contacts nearest to `target` that it knows; `None` if it does not answer in time.
    ///
    /// # Suspends
    /// Until the answer, or a timeout of the implementer's choice.
    fn find_node(&self, contact: &Contact, target: &NodeId) -> Option<Vec<Contact>>;

    /// After how long without an answer of `contact` somebody else should be asked as well.
    fn patience(&self, contact: &Contact) -> Duration;
}

/// What a lookup found, and what it cost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The nearest nodes that answered, nearest first.
    pub closest: Vec<Contact>,
    /// How many nodes were asked.
    pub asked_count: usize,
    /// The longest chain of answers that led to one of `closest`.
    pub hops: u32,
}

/// Finds the `count` live nodes nearest to `target`, starting from `seeds`. `own` is never asked.
///
/// # Suspends
/// Until they have answered, at most [`LOOKUP_TIMEOUT`].
///
/// # Source
/// Maymounkov & Mazieres 2002, section 2.3, save that `count` nodes must have answered instead of `K`.
pub fn lookup(net: &impl Transport, own: NodeId, target: NodeId, count: usize, seeds: Vec<Contact>) -> Found {
    let frontier = RefCell::new(Frontier::new(own, target, count, seeds));
    // Whatever was found when the time is over is the answer.
    let _ = reactor::timeout(LOOKUP_TIMEOUT, || run(net, target, &frontier));
    let frontier = frontier.into_inner();
    Found { closest: frontier.closest(), asked_count: frontier.asked_count(), hops: frontier.hops() }
}

fn run(net: &impl Transport, target: NodeId, frontier: &RefCell<Frontier>) {
    let answered = Signal::new();
    let (answered, target) = (&answered, &target);
    reactor::scope(|s| {
        let mut questions = Vec::new();
        loop {
            let now = reactor::now();
            let step = frontier.borrow().step(now);
            match step {
                Step::Ask(contact) => {
                    frontier.borrow_mut().on_asked(&contact.id, net.patience(&contact), now);
                    questions.push(s.spawn(move || {
                        // No borrow is held here: other questions are answered while this one waits.
                        match net.find_node(&contact, target) {
                            Some(contacts) => frontier.borrow_mut().on_answer(&contact.id, contacts),
                            None => frontier.borrow_mut().on_failed(&contact.id),
                        }
                        answered.notify_all();
                    }));
                }
                // A child runs only while this coroutine waits, so no answer slips in between step and wait.
                Step::Wait(None) => answered.wait(),
                Step::Wait(Some(until)) => {
                    let _ = reactor::timeout(until.saturating_duration_since(now), || answered.wait());
                }
                Step::Done => break,
            }
        }
        for question in questions.iter().filter(|question| !question.is_finished()) {
            question.terminate();
        }
    });
}
