//! A node as its peers see it: the overlay's methods.
//!
//! Not here: who may call at all (`admission.rs`), and the methods of the layers above.

use std::rc::{Rc, Weak};

use reactor::rpc::{CallContext, Service};

use crate::contact::Introduction;
use crate::invitation::{Letter, Reply};
use crate::members;
use crate::message::{
    FindNodeRequest, FindNodeResponse, Neighbour, Never, NotAMember, RenewRefused, RevokeRefused,
};
use crate::node_id::NodeId;
use crate::passport::{Passport, Rights};
use crate::peers::Sighting;
use crate::record::{RecordError, SignedRecord};
use crate::renewing;
use crate::revocation::Revocations;
use crate::revoking;
use crate::state::State;
use crate::stating;

const READ: Rights = Rights { store: false, read: true, write: false, invite: false };

/// Weak, since the state holds the service.
pub(crate) struct Served(Weak<State>);

impl Served {
    /// Enters the methods into `service`.
    pub(crate) fn serve(state: &Rc<State>, service: &mut Service) {
        Rc::new(Served(Rc::downgrade(state))).serve_on(service);
    }

    /// The state, for a caller who may read; `None` while the node ends.
    fn for_reader(&self, call: &CallContext) -> Result<Option<Rc<State>>, NotAMember> {
        let Some(state) = self.0.upgrade() else { return Ok(None) };
        state.peers.check(call.peer.as_ref(), READ).map_err(NotAMember)?;
        Ok(Some(state))
    }
}

impl Neighbour for Served {
    fn ping(&self, _: &CallContext) -> Result<(), Never> {
        Ok(())
    }

    fn find_node(&self, call: &CallContext, request: FindNodeRequest) -> Result<FindNodeResponse, Never> {
        let asker = call.peer.as_ref().map(NodeId::of);
        let contacts = self.0.upgrade().map_or_else(Vec::new, |state| {
            let mut contacts = state.table.borrow().closest(&request.target, request.contacts_max() + 1);
            contacts.retain(|contact| Some(contact.id) != asker);
            contacts.iter().take(request.contacts_max()).map(Introduction::from).collect()
        });
        Ok(FindNodeResponse { contacts })
    }

    fn introduce(&self, call: &CallContext, node: Introduction) -> Result<Option<SignedRecord>, RecordError> {
        let Some(state) = self.0.upgrade() else { return Ok(None) };
        let (caller, is_ours) = (call.peer.as_ref(), node.public_key == state.credentials.own);
        // Of third ones a lookup tells enough, and a client says nothing of itself; but anybody may show us what we said.
        let may = |needed| state.peers.check(caller, needed).is_ok();
        let is_nodes = may(Rights { store: true, ..Rights::default() });
        let is_its_affair =
            is_ours && (is_nodes || may(READ)) || is_nodes && caller == Some(&node.public_key);
        if !is_its_affair {
            return Err(RecordError::NotItsAffair);
        }
        if !caller.is_some_and(|caller| state.introductions.borrow_mut().take(caller, reactor::now())) {
            return Err(RecordError::TooOften);
        }
        stating::on_introduced(&state, &node)
    }

    fn leave(&self, call: &CallContext) -> Result<(), Never> {
        if let (Some(state), Some(peer)) = (self.0.upgrade(), &call.peer) {
            state.change_table(|table, _| table.remove(&NodeId::of(peer)));
        }
        Ok(())
    }

    fn revoke(&self, _: &CallContext, newer: Revocations) -> Result<[u8; 32], RevokeRefused> {
        // Whoever brings it: it is the owner's word.
        self.0.upgrade().map_or(Ok([0; 32]), |state| revoking::take(&state, newer))
    }

    fn renew(&self, _: &CallContext, passports: Vec<Passport>) -> Result<(), RenewRefused> {
        // Whoever brings them: they are the owner's word.
        self.0.upgrade().map_or(Ok(()), |state| renewing::take(&state, passports))
    }

    fn revoked(&self, _: &CallContext) -> Result<Revocations, Never> {
        Ok(self.0.upgrade().map_or_else(Revocations::default, |state| state.peers.revocations()))
    }

    fn letters(&self, call: &CallContext) -> Result<Vec<Letter>, NotAMember> {
        let state = self.for_reader(call)?;
        Ok(state.map_or_else(Vec::new, |state| state.letterbox.borrow().waiting(reactor::now())))
    }

    fn reply(&self, call: &CallContext, reply: Reply) -> Result<bool, NotAMember> {
        let state = self.for_reader(call)?;
        Ok(state.is_some_and(|state| state.letterbox.borrow_mut().reply(&reply, &state.credentials.network)))
    }

    fn enrolled(&self, call: &CallContext) -> Result<Vec<Passport>, NotAMember> {
        Ok(self.for_reader(call)?.map_or_else(Vec::new, |state| members::enrolled(&state)))
    }

    fn sightings(&self, call: &CallContext) -> Result<Vec<Sighting>, NotAMember> {
        Ok(self.for_reader(call)?.map_or_else(Vec::new, |state| state.peers.sightings()))
    }
}
