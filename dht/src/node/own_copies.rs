//! Whether a node has its copies: what it knows to lack of what it is to keep, and with whom it compared and lacked nothing.
//!
//! A node whose disk was replaced answers, takes writes, and has nothing. That it has what it should have is therefore never
//! inferred from its answering: it is said by rounds of repair that ended with nothing missing, each with somebody else who keeps
//! some of the same, and each has a time. Since then something may have been stored that did not reach this node, which need not have
//! noticed that it was slow, frozen or cut off: only the next round finds that. So whoever is to say that nothing is lacking *now* has
//! a round run first ([`Node::compare_soon`]), and goes by no comparison that began before he asked. What was listed and is not here is
//! counted at once, before it is fetched, and once, however many list it.
//!
//! [`super::caught_up`] answers another question: whether the network could do without somebody else.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use overlay::NodeId;

use super::Node;
use crate::address::Address;
use crate::store::{Key, Kind};

/// Of so many things that are lacking it is remembered which they are: 2 MiB. Of further ones, each is counted for every neighbour that
/// lists it.
const KNOWN_MAX: usize = 1 << 16;

/// Whether a node has its copies, as far as it knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OwnCopies {
    /// Blocks and registers that others have, and it should have and has not.
    pub lacking: u64,
    /// With whom it compared, and lacked nothing by then.
    pub lacked_nothing_of: Vec<NodeId>,
    /// Who is near and may keep some of the same, and with whom it has not.
    pub not_compared_with: Vec<NodeId>,
    /// How long ago the oldest of these comparisons began.
    pub compared_ago: Option<Duration>,
}

/// The plain data behind [`OwnCopies`].
#[derive(Debug, Default)]
pub(super) struct Comparisons {
    lacking: BTreeSet<Key>,
    /// How many beyond these.
    further: u64,
    /// When the comparison began.
    with: BTreeMap<NodeId, Instant>,
    /// Who was near when the last round began.
    near: Vec<NodeId>,
}

impl Comparisons {
    fn told(&self, now: Instant) -> OwnCopies {
        let oldest = self.with.values().min();
        OwnCopies {
            lacking: self.lacking.len() as u64 + self.further,
            lacked_nothing_of: self.with.keys().copied().collect(),
            not_compared_with: self.near.iter().filter(|id| !self.with.contains_key(id)).copied().collect(),
            compared_ago: oldest.map(|oldest| now.saturating_duration_since(*oldest)),
        }
    }

    pub(super) fn fall_behind(&mut self, other: &NodeId) {
        self.with.remove(other);
    }
}

impl Node {
    /// Whether this node has its copies, as far as it knows now.
    pub fn own_copies(&self) -> OwnCopies {
        self.comparisons.borrow().told(reactor::now())
    }

    /// Has a round run soon: somebody wants to know how it is now.
    pub fn compare_soon(&self) {
        self.is_asked.set(true);
        self.asked.notify_all();
    }

    /// Waits until somebody wants to know how it is.
    ///
    /// # Suspends
    /// Until then.
    pub(crate) fn wait_until_asked(&self) {
        while !self.is_asked.take() {
            self.asked.wait();
        }
    }

    /// A round of comparisons begins, with these: what was compared with others says nothing of who is responsible now.
    pub(crate) fn begin_comparing(&self, neighbours: &[NodeId]) {
        let mut comparisons = self.comparisons.borrow_mut();
        comparisons.lacking.clear();
        comparisons.further = 0;
        comparisons.with.retain(|id, _| neighbours.contains(id));
        comparisons.near = neighbours.iter().filter(|id| **id != self.own).copied().collect();
    }

    /// Notes that somebody listed these, which this node should have and has not.
    pub(crate) fn note_lacking(&self, keys: impl IntoIterator<Item = Key>) {
        let mut comparisons = self.comparisons.borrow_mut();
        for key in keys {
            match comparisons.lacking.len() < KNOWN_MAX {
                true => drop(comparisons.lacking.insert(key)),
                false if comparisons.lacking.contains(&key) => {}
                false => comparisons.further += 1,
            }
        }
    }

    /// Notes that one of these is here, or need not be here.
    pub(crate) fn note_fetched(&self, key: &Key) {
        let mut comparisons = self.comparisons.borrow_mut();
        if !comparisons.lacking.remove(key) {
            comparisons.further = comparisons.further.saturating_sub(1);
        }
    }

    /// Notes that a comparison that began then went through all that the other one listed, and that nothing is lacking of it.
    pub(crate) fn note_compared(&self, other: NodeId, began: Instant) {
        self.comparisons.borrow_mut().with.insert(other, began);
    }

    /// A round has ended: of what it could not get, some may have come by another way.
    pub(crate) fn end_comparing(&self) {
        let lacking = self.comparisons.borrow().lacking.clone();
        let is_here = |key: &&Key| key.kind == Kind::BLOCK && self.has_block(&Address(key.address));
        for key in lacking.iter().filter(is_here) {
            self.note_fetched(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::super::Gate;
    use super::*;
    use crate::store::MemoryStore;

    fn id(number: u8) -> NodeId {
        NodeId([number; 32])
    }

    #[test]
    fn a_node_that_has_compared_with_nobody_yet_says_so_and_nothing_is_counted_twice() {
        let node = Node::new(id(0), Rc::new(MemoryStore::new()), Gate::Open, 3);
        assert_eq!(node.own_copies(), OwnCopies::default());
        node.begin_comparing(&[id(1), id(2)]);
        let keys = [7, 8, 9].map(|number| Key::new(Kind::BLOCK, [number; 32]));
        node.note_lacking(keys);
        node.fall_behind(&id(1));
        assert_eq!((node.own_copies().lacking, node.own_copies().compared_ago), (3, None));
        // The other one lists them too, and can give two of them.
        node.note_lacking(keys);
        keys[..2].iter().for_each(|key| node.note_fetched(key));
        node.note_compared(id(2), reactor::now());
        node.end_comparing();
        let told = node.own_copies();
        assert_eq!((told.lacking, told.lacked_nothing_of), (1, vec![id(2)]));
        assert_eq!(told.not_compared_with, [id(1)]);
        node.begin_comparing(&[id(0), id(1), id(3)]);
        node.note_compared(id(1), reactor::now());
        node.end_comparing();
        let told = node.own_copies();
        assert_eq!((told.lacking, told.lacked_nothing_of), (0, vec![id(1)]), "the other is near no more");
        assert_eq!(told.not_compared_with, [id(3)], "nobody compares with himself");
        node.fall_behind(&id(1));
        assert_eq!(node.own_copies().not_compared_with, [id(1), id(3)]);
    }
}
