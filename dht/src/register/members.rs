//! Where the nodes are that keep a register. Who they are, its genesis record says, and nobody else is asked: what a
//! node knows nothing of that was never to keep it says nothing about the register.

use std::rc::Rc;

use overlay::{Contact, NodeId, Overlay};

use super::{NEAR_COUNT, Operation};
use crate::block::mutable::Genesis;

#[derive(Clone)]
pub(super) enum Member {
    Own(Rc<crate::node::Node>),
    Other(Contact),
}

impl<O: Overlay + 'static> Operation<'_, O> {
    /// Where the members are. Those that the overlay holds for dead are left out, unless there is no quorum without.
    pub(super) fn members(&self, genesis: &Genesis) -> Vec<Option<Member>> {
        if let [only] = &genesis.members[..]
            && let Some(node) = self.links.local(only)
        {
            return vec![Some(Member::Own(node.clone()))];
        }
        // They were the nearest when the register was made, so one look finds most of them.
        let place = Genesis::place(&genesis.owner, &genesis.salt);
        let near = self.links.closest(place.0, NEAR_COUNT);
        let find = |id: &NodeId| match self.links.local(id) {
            Some(node) => Some(Member::Own(node.clone())),
            None => near.iter().find(|contact| contact.id == *id).cloned().map(Member::Other),
        };
        let mut members: Vec<_> = genesis.members.iter().map(find).collect();
        if members.iter().flatten().count() < genesis.quorum().needed {
            for (member, id) in members.iter_mut().zip(&genesis.members) {
                if member.is_none() {
                    let known = self.links.last_known(id);
                    let found = || self.links.closest(id.0, 1).into_iter().find(|contact| contact.id == *id);
                    *member = known.or_else(found).map(Member::Other);
                }
            }
        }
        members
    }
}
