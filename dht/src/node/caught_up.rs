//! Whom a node has near it, what is its own by that, and with whom it has caught up.
//!
//! "Caught up with" somebody: when the two compared last, by the same view of who is near and what they say of themselves, this node
//! had all that the other has and that is this one's; and what the other held for others, it had handed over. So whatever was
//! stored then is not gone with the other. That stays so when the other goes, or only falls silent, and whoever else comes; it ends
//! as soon as the other lists something that this one lacks, before that is fetched, or may have more than it could list, or says
//! that something is gone with it: what it holds for others and has not handed over, or a register of which too few members stand in
//! other zones, since those lie where their owners say; when the other was gone and is back, since what it was given
//! meanwhile is not known; and when somebody stands in another zone, since copies were in other places by then. What the other was
//! given since they compared, it takes along: that is at most as old as the time between two rounds.
//!
//! It is said only where everybody is known and zones count; elsewhere nobody asks.
//!
//! Not here: comparing ([`crate::repair`]), and what follows for a network (its `status`).

use std::collections::BTreeSet;
use std::time::Instant;

use overlay::NodeId;

use super::{FULL_FOR, Node};
use crate::block_store::RegisterAddress;
use crate::message::ViewMark;
use crate::placement::Neighbourhood;
use crate::store::{Key, Kind};

/// Nodes of which it is remembered: more than there are where it is said.
const NODES_MAX: usize = 1024;

/// Registers that are looked at between two looks at the store.
const REGISTERS_AT_ONCE: usize = 256;

/// With whom a node has caught up.
#[derive(Debug)]
pub(super) struct CaughtUp {
    with: BTreeSet<NodeId>,
    /// By which view all that is others' has been handed over.
    handed_over: Option<u64>,
    /// Something came since that is others'.
    has_surplus: bool,
    /// It is a member of a register that its zone would take along.
    has_register: bool,
    /// Counts what may have made something here others'.
    surplus_version: u64,
}

impl Default for CaughtUp {
    /// With nobody; and what an earlier run was given for others is not known.
    fn default() -> CaughtUp {
        CaughtUp {
            with: BTreeSet::new(),
            handed_over: None,
            has_surplus: true,
            has_register: false,
            surplus_version: 0,
        }
    }
}

impl CaughtUp {
    fn expect_surplus(&mut self) {
        self.handed_over = None;
        self.surplus_version += 1;
    }
}

impl Node {
    /// Says who is near, so that digests can be cut to what two nodes are both responsible for.
    pub(crate) fn set_neighbourhood(&self, next: Neighbourhood) {
        let last = self.neighbourhood.replace(next);
        let next = self.neighbourhood.borrow();
        let mut caught_up = self.caught_up.borrow_mut();
        if !next.agrees_with(&last) {
            caught_up.with.clear();
        }
        if next.mark() != last.mark() {
            // Also if it is as it was before: what came meanwhile was this node's, and may be others' again.
            caught_up.expect_surplus();
        }
        caught_up.with.retain(|id| next.get(id).is_none() || last.get(id).is_some());
    }

    /// By which view this node acts.
    pub(crate) fn view(&self) -> ViewMark {
        let view = self.neighbourhood.borrow().mark();
        let now = reactor::now();
        let is_full = self.full_at.get().is_some_and(|at| now < at + FULL_FOR);
        let caught_up = self.caught_up.borrow();
        let is_needed = caught_up.has_surplus || caught_up.has_register;
        ViewMark {
            view,
            has_handed_over: !is_needed && caught_up.handed_over == Some(view),
            is_needed,
            is_full,
        }
    }

    /// Whether this node is among those who should keep `key`, as far as our neighbours tell.
    pub fn is_responsible(&self, key: &NodeId) -> bool {
        self.shares_with(&self.own, key)
    }

    /// Whether this node and `other` are both among those who should keep `key`, as far as our neighbours tell.
    pub(crate) fn shares_with(&self, other: &NodeId, key: &NodeId) -> bool {
        let both = [self.own, *other];
        self.neighbourhood.borrow().are_responsible(&both, key, self.replicas.get())
    }

    /// All nodes in the order for `key`, where everybody is known.
    pub(crate) fn order(&self, key: &NodeId) -> Option<Vec<NodeId>> {
        self.neighbourhood.borrow().order(key)
    }

    /// The nodes with which this one has caught up, those that are gone by now too; none where zones do not count.
    pub fn caught_up_with(&self) -> Vec<NodeId> {
        self.caught_up.borrow().with.iter().copied().collect()
    }

    /// Whether the places of copies depend on zones, so that it is worth while to have caught up with everybody soon.
    pub(crate) fn has_zones(&self) -> bool {
        self.neighbourhood.borrow().has_zones()
    }

    /// Notes that this node has caught up with another one, by the view of this mark.
    pub(crate) fn catch_up_with(&self, other: NodeId, view: u64) {
        let neighbourhood = self.neighbourhood.borrow();
        let mut caught_up = self.caught_up.borrow_mut();
        if neighbourhood.has_zones() && neighbourhood.mark() == view && caught_up.with.len() < NODES_MAX {
            caught_up.with.insert(other);
        }
    }

    /// Notes that another one has what this node lacks, or may.
    pub(crate) fn fall_behind(&self, other: &NodeId) {
        self.caught_up.borrow_mut().with.remove(other);
        self.comparisons.borrow_mut().fall_behind(other);
    }

    /// Finds out whether this node is a member of a register of which fewer than a quorum are known to stand in other zones than it
    /// does; one that it cannot read may be such a one.
    ///
    /// # Suspends
    /// While registers are read.
    pub(super) fn look_at_registers(&self) {
        let is_needed = |key: &Key| match self.read_register(&RegisterAddress(key.address)) {
            Ok(Some(view)) => {
                let (members, needed) = (view.membership.members(), view.membership.quorum().needed);
                let is_member = view.membership.index_of(&self.own).is_some();
                is_member && self.neighbourhood.borrow().count_elsewhere(&self.own, members) < needed
            }
            Ok(None) => false,
            Err(_) => true,
        };
        let mut from = self.has_zones().then(|| Key::first(Kind::REGISTER));
        let mut has_register = false;
        while let Some(start) = from.filter(|_| !has_register) {
            let keys = self.store.keys(&start, REGISTERS_AT_ONCE);
            let registers = keys.iter().filter(|key| key.kind == Kind::REGISTER);
            has_register = registers.into_iter().any(is_needed);
            from = keys.last().and_then(Key::next).filter(|key| key.kind == Kind::REGISTER);
        }
        self.caught_up.borrow_mut().has_register = has_register;
    }

    /// Changes when something may have come here that is others'.
    pub(crate) fn surplus_version(&self) -> u64 {
        self.caught_up.borrow().surplus_version
    }

    /// Notes that what this node held for others is theirs now, by the view of this mark; or that some of it is not. It counts only
    /// if nothing has come since this version.
    pub(crate) fn set_handed_over(&self, view: Option<u64>, version: u64) {
        let mut caught_up = self.caught_up.borrow_mut();
        caught_up.handed_over = view.filter(|_| caught_up.surplus_version == version);
        if caught_up.handed_over.is_some() {
            caught_up.has_surplus = false;
        }
    }

    /// Notes that a block was stored here: if it is others', they have yet to be given it.
    pub(super) fn note_stored(&self, key: &NodeId) {
        if !self.is_responsible(key) {
            let mut caught_up = self.caught_up.borrow_mut();
            caught_up.expect_surplus();
            caught_up.has_surplus = true;
        }
    }

    /// Notes that there was no room for a block.
    pub(super) fn note_full(&self, now: Instant) {
        self.full_at.set(Some(now));
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;
    use std::sync::Arc;

    use overlay::{Contact, NodeRecord, Statement};
    use reactor::crypto::Identity;

    use super::super::Gate;
    use super::*;
    use crate::placement::Candidate;
    use crate::store::MemoryStore;

    fn standing(number: u8, zone: &str) -> Candidate {
        let identity = Identity::from_seed(&[number; 32]);
        let statement = Statement { zone: zone.parse().ok(), ..Statement::default() };
        let record = NodeRecord::sign(&identity, &identity.public_key(), 1, statement);
        (&Contact::new(identity.public_key(), []).with_record(Arc::new(record))).into()
    }

    #[test]
    fn that_it_has_caught_up_with_somebody_stays_when_he_goes_and_ends_when_he_is_back() {
        let all: Vec<Candidate> =
            (0..4).map(|number| standing(number, ["a", "b", "c", "a"][usize::from(number)])).collect();
        let (own, gone) = (all[0].id, all[2].id);
        let node = Node::new(own, Rc::new(MemoryStore::new()), Gate::Open, 3);
        let see = |candidates: &[Candidate]| {
            node.set_neighbourhood(Neighbourhood::new(own, candidates.to_vec(), true));
            node.neighbourhood.borrow().mark()
        };
        let first = see(&all[..3]);
        all[1..3].iter().for_each(|other| node.catch_up_with(other.id, first));
        assert_eq!(node.caught_up_with().len(), 2);
        // It goes, another comes, and one that stayed goes and comes.
        see(&all[..2]);
        see(&[all[0].clone(), all[1].clone(), all[3].clone()]);
        see(&[all[0].clone(), all[3].clone()]);
        let now = see(&[all[0].clone(), all[1].clone(), all[3].clone()]);
        assert_eq!(node.caught_up_with(), [gone]);
        // What was compared by an older view proves nothing.
        node.catch_up_with(all[1].id, first);
        assert_eq!(node.caught_up_with(), [gone]);
        node.catch_up_with(all[1].id, now);
        assert_eq!(node.caught_up_with().len(), 2);
        see(&all);
        assert_eq!(node.caught_up_with(), [all[1].id], "what it was given meanwhile is not known");
        see(&[all[0].clone(), standing(1, "c"), all[3].clone()]);
        assert!(node.caught_up_with().is_empty(), "copies lie elsewhere now");
        node.catch_up_with(all[3].id, see(&all));
        node.set_neighbourhood(Neighbourhood::new(own, all.clone(), false));
        assert!(node.caught_up_with().is_empty(), "in a large network zones do not count");
    }
}
