//! Where the nodes are that keep a register, and who they are if it was moved.
//!
//! Who they are, the genesis record and the owner's configurations say, and nobody else: what a node knows nothing of that
//! was never to keep it says nothing about the register. Whoever was away while the register was moved, perhaps several
//! times, is told by the members that he knows, as long as they live. If there is no quorum of them, the nodes near the
//! register's place are asked, where each set of members was chosen, and those who kept it before. What they show is believed for its signature; that
//! none of them shows anything means nothing.

use std::rc::Rc;

use bytes::Bytes;
use overlay::{Contact, NodeId, Overlay};
use reactor::sync::channel;

use super::{CALL_TIMEOUT, LOOK_AROUND_PAUSE, NEAR_COUNT, Operation};
use crate::block::configuration::Membership;
use crate::block::mutable::Genesis;
use crate::links::Failure;
use crate::message::ReadRegister;

#[derive(Clone)]
pub(super) enum Member {
    Own(Rc<crate::node::Node>),
    Other(Contact),
}

impl<O: Overlay + 'static> Operation<'_, O> {
    /// Where the members are. Those that the overlay holds for dead are left out, unless there is no quorum without.
    pub(super) fn members(&self, membership: &Membership) -> Vec<Option<Member>> {
        if let [only] = membership.members()
            && let Some(node) = self.links.local(only)
        {
            return vec![Some(Member::Own(node.clone()))];
        }
        // They were the nearest when the register was made or moved, so one look finds most of them.
        let near = self.near();
        let find = |id: &NodeId| match self.links.local(id) {
            Some(node) => Some(Member::Own(node.clone())),
            None => near.iter().find(|contact| contact.id == *id).cloned().map(Member::Other),
        };
        let mut members: Vec<_> = membership.members().iter().map(find).collect();
        if members.iter().flatten().count() < membership.quorum().needed {
            for (member, id) in members.iter_mut().zip(membership.members()) {
                if member.is_none() {
                    *member = self.look_up(id).map(Member::Other);
                }
            }
        }
        members
    }

    fn near(&self) -> Vec<Contact> {
        let genesis = &self.state.membership.genesis;
        self.links.closest(Genesis::place(&genesis.owner, &genesis.salt).0, NEAR_COUNT)
    }

    pub(super) fn look_up(&self, id: &NodeId) -> Option<Contact> {
        let found = || self.links.closest(id.0, 1).into_iter().find(|contact| contact.id == *id);
        self.links.last_known(id).or_else(found)
    }

    /// Asks the nodes near the register's place who keeps it now, now and then; says whether it is others than
    /// `membership` names.
    pub(super) fn look_around(&mut self, membership: &Membership) -> bool {
        let now = reactor::now();
        let is_soon = |at| now.saturating_duration_since(at) < LOOK_AROUND_PAUSE;
        if self.state.looked_at.is_some_and(is_soon) {
            return false;
        }
        self.state.looked_at = Some(now);
        let mut near = self.near();
        let former = membership.configuration.as_ref().map_or(&[][..], |configuration| &configuration.former);
        for id in former {
            if near.iter().all(|contact| contact.id != *id) {
                near.extend(self.look_up(id));
            }
        }
        near.retain(|contact| membership.index_of(&contact.id).is_none());
        self.follow_any(membership, near)
    }

    /// As [`Operation::look_around`], asking those whom a seal names.
    pub(super) fn look_at(&mut self, membership: &Membership, members: &[NodeId]) -> bool {
        let known = |id: &NodeId| match self.links.local(id) {
            Some(_) => self.links.overlay.own(),
            None => self.look_up(id),
        };
        let contacts = members.iter().filter_map(known).collect();
        self.follow_any(membership, contacts)
    }

    fn follow_any(&mut self, membership: &Membership, contacts: Vec<Contact>) -> bool {
        let register = self.state.register;
        let (sender, answers) = channel(contacts.len().max(1));
        for contact in contacts {
            let (links, sender) = (self.links.clone(), sender.clone());
            drop(reactor::spawn(move || {
                let view = match links.local(&contact.id) {
                    Some(node) => node.read_register(&register).map_err(Failure::Refused),
                    None => links
                        .call::<ReadRegister>(&contact, &register, Bytes::new(), CALL_TIMEOUT)
                        .map(|(view, _)| view),
                };
                drop(sender.try_send(view));
            }));
        }
        drop(sender);
        while !self.has_left(membership)
            && let Ok(view) = answers.recv()
        {
            let Ok(Some(view)) = view else { continue };
            self.state.look_for_sealed(&view);
            if let Some(configuration) = &view.membership.configuration
                && let Err(invalid) = self.state.follow(configuration)
            {
                tracing::warn!(%register, "a node names members that the owner did not: {invalid}");
            }
        }
        self.has_left(membership)
    }
}
