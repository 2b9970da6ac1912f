//! Learning again what an acceptor has lost: its disk, or one record of it.
//!
//! An acceptor that starts afresh breaks its promises: it may have been the one member of a quorum that would have told.
//! So it says nothing about a register until so many of the *others* have told it what they know that no quorum with it
//! can have been without one of them. What they accepted and promised, it then has accepted and promised too. Where too
//! many have lost their stores, nobody can tell, and the register stays silent rather than going back.

use bytes::Bytes;
use overlay::{Contact, Overlay};

use super::{COMPARE_TIMEOUT, Repair};
use crate::block::mutable::{Genesis, Signed};
use crate::block_store::RegisterAddress;
use crate::message::{ReadRegister, RegisterView};

impl<O: Overlay + 'static> Repair<O> {
    /// As [`Repair::relearn`], of a register that a neighbour names.
    pub(super) fn relearn_from(&self, contact: &Contact, register: &RegisterAddress) -> bool {
        let view = self.links.call::<ReadRegister>(contact, register, Bytes::new(), COMPARE_TIMEOUT);
        match view {
            Ok((Some(view), _)) if view.genesis.register() == *register => self.relearn(&view.genesis),
            _ => false,
        }
    }

    /// Learns a register from its other members; says whether enough of them answered.
    pub(super) fn relearn(&self, genesis: &Signed<Genesis>) -> bool {
        let register = genesis.register();
        // Any quorum with us has `needed - 1` of the others: as many must answer as leave no room for one without them.
        let quorum = genesis.quorum();
        let enough = quorum.members - quorum.needed + 1;
        let mut views: Vec<Option<RegisterView>> = Vec::new();
        for id in genesis.members.iter().filter(|id| **id != self.node.own()) {
            let nearest = || self.links.closest(id.0, 1).into_iter().find(|contact| contact.id == *id);
            let Some(contact) = nearest().or_else(|| self.links.last_known(id)) else { continue };
            match self.links.call::<ReadRegister>(&contact, &register, Bytes::new(), COMPARE_TIMEOUT) {
                Ok((view, _)) => views.push(view.filter(|view| view.genesis.register() == register)),
                Err(failure) => tracing::debug!(%register, node = %contact, "can't learn from it: {failure}"),
            }
        }
        if views.len() < enough {
            tracing::warn!(
                %register, answers = views.len(), enough,
                "this node has lost what it knew of a register, and too few others tell: it stays silent"
            );
            return false;
        }
        let views: Vec<RegisterView> = views.into_iter().flatten().collect();
        let promises = views.iter().filter_map(|view| view.promise.clone()).collect();
        let accepted = views
            .into_iter()
            .filter_map(|view| view.accepted)
            .filter(|accepted| accepted.verify(genesis, None).is_ok())
            .max_by_key(|accepted| accepted.proposal.ballot);
        match self.node.relearn(genesis, promises, accepted) {
            Ok(()) => {
                tracing::info!(%register, "learned from the others what this node had lost");
                true
            }
            Err(refusal) => {
                tracing::warn!(%register, "can't learn a register: {refusal}");
                false
            }
        }
    }
}
