//! Who keeps a register, and where they are.

use std::rc::Rc;

use bytes::Bytes;
use overlay::{Contact, NodeId, Overlay};
use reactor::crypto::Identity;
use reactor::sync::channel;

use super::{CALL_TIMEOUT, DISCOVERY_WIDTH, Operation};
use crate::block::mutable::Genesis;
use crate::block_store::{ReadError, SwapError};
use crate::links::Failure;
use crate::message::{ReadRegister, RegisterView};

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
        let near = self.links.closest(self.register.0, DISCOVERY_WIDTH);
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

    /// The register's genesis record, from memory or from whoever is near; `None` if the register does not exist.
    pub(super) fn genesis(&mut self) -> Result<Option<Genesis>, ReadError> {
        loop {
            if self.state.genesis.is_some() {
                return Ok(self.state.genesis.clone());
            }
            let needed = self.links.write_quorum();
            let (absent, reason) = match self.discover() {
                Ok(genesis) => {
                    self.state.genesis = Some(genesis);
                    continue;
                }
                Err(tally) => tally,
            };
            if absent >= needed {
                return Ok(None);
            }
            if !self.back_off() {
                return Err(ReadError::NoQuorum { answers: absent, needed, reason });
            }
        }
    }

    /// Asks the nodes near the register for its genesis record; else says how many know of none.
    fn discover(&self) -> Result<Genesis, (usize, String)> {
        let contacts = self.links.closest(self.register.0, DISCOVERY_WIDTH);
        let (sender, answers) = channel(contacts.len().max(1));
        let mut reason = "no node is known".to_owned();
        let count = contacts.len();
        for contact in contacts {
            let (links, sender, register) = (self.links.clone(), sender.clone(), self.register);
            drop(reactor::spawn(move || {
                let answer = match links.local(&contact.id) {
                    Some(node) => node.read_register(&register).map_err(Failure::Refused),
                    None => links
                        .call::<ReadRegister>(&contact, &register, Bytes::new(), CALL_TIMEOUT)
                        .map(|(answer, _)| answer),
                };
                drop(sender.try_send(answer));
            }));
        }
        drop(sender);
        let mut absent = 0;
        // All near ones know of none: enough answered. A few do not answer: a quorum of the nearest must.
        for _ in 0..count {
            let Ok(answer): Result<Result<Option<RegisterView>, Failure>, _> = answers.recv() else { break };
            match answer {
                Ok(Some(view)) if view.genesis.verify(&self.register).is_ok() => return Ok(view.genesis),
                Ok(Some(_)) => reason = "a node sent a genesis record that does not verify".into(),
                Ok(None) => absent += 1,
                Err(failure) => reason = failure.to_string(),
            }
            if absent >= self.links.write_quorum() && self.links.replicas >= count {
                break;
            }
        }
        Err((absent, reason))
    }

    pub(super) fn genesis_or_create(&mut self, identity: &Identity) -> Result<Genesis, SwapError> {
        if let Some(genesis) = self.genesis()? {
            return Ok(genesis);
        }
        let Some((salt, _)) = self.state.creation else {
            return Err(SwapError::NoSuchRegister(self.register));
        };
        loop {
            let nearest = self.links.closest(self.register.0, self.links.replicas);
            if nearest.len() == self.links.replicas {
                let genesis =
                    Genesis::sign(identity, salt, nearest.iter().map(|contact| contact.id).collect());
                self.state.genesis = Some(genesis.clone());
                return Ok(genesis);
            }
            if !self.back_off() {
                return Err(SwapError::NotEnoughNodes { known: nearest.len(), needed: self.links.replicas });
            }
        }
    }
}
