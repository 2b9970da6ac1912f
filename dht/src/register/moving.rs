//! Moving a register to other nodes, by its owner: seal, install, retire.
//!
//! 1. The last value is chosen once more, so that it is known to be; then the seal, which names the next members, is chosen
//!    among the present ones together with it. From then on these choose nothing else ([`crate::paxos`]).
//! 2. The owner signs that it was, and the next members are given the value: once a quorum has it, the register goes on
//!    there.
//! 3. The present members that are not among the next are told, and point there from then on.
//!
//! Whoever holds the owner's key and meets a seal takes these steps again, so a mover that dies anywhere between them is no
//! harm; the others wait for one. Before the first step the next members are asked whether they could keep the register,
//! since one that was sealed towards nodes that then turn out to be dead, or full, waits for those.
//!
//! Not here: who should be the next members ([`crate::keepers`]).

use bytes::Bytes;
use overlay::{NodeId, Overlay};

use super::members::Member;
use super::rounds::Lost;
use super::{CALL_TIMEOUT, Operation};
use crate::block::configuration::{Membership, Seal};
use crate::block::genesis::check_members;
use crate::block::mutable::{Invalid, SignedRecord};
use crate::block::proposal::Proposed;
use crate::block_store::{ReadError, SwapError};
use crate::links::Failure;
use crate::message::{CanKeep, Refusal, Retire};
use crate::paxos::{Ballot, Start};

/// Why a register was not moved, or may not have been.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MoveError {
    /// Only its owner may say who keeps a register.
    #[error("only the register's owner may move it")]
    NotOwner,
    /// The members make no replica set.
    #[error(transparent)]
    Members(#[from] Invalid),
    /// It has no value yet, so there is nothing to move: make another one.
    #[error("the register has no value yet: make another one on other nodes instead")]
    Empty,
    /// A node that is to become a member does not answer. Nothing was changed.
    #[error("node {0} is to keep the register, and does not answer; choose another")]
    Away(NodeId),
    /// A node that is to become a member can't. Nothing was changed.
    #[error("node {node} cannot keep the register: {reason}")]
    Unfit {
        /// The node.
        node: NodeId,
        /// What it says.
        reason: Refusal,
    },
    /// There are too few nodes that could take the place of others.
    #[error("{known} nodes can keep it, and it takes {needed}: {reason}")]
    NotEnoughNodes {
        /// How many can.
        known: usize,
        /// How many are needed.
        needed: usize,
        /// Why no other one can.
        reason: String,
    },
    /// Too few of the present members answered, or too few of the next. What was begun, the next operation of the owner's
    /// goes on with.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A member refuses.
    #[error("the nodes refuse to move the register: {0}")]
    Refused(String),
}

impl<O: Overlay + 'static> Operation<'_, O> {
    /// Moves the register from where it is in `from`'s epoch to `members`. Where somebody else has moved it since, it stays
    /// as that did: what this mover had decided on is past.
    pub(crate) fn move_to(&mut self, from: &Membership, members: &[NodeId]) -> Result<Membership, MoveError> {
        if self.identity.public_key() != self.state.membership.genesis.owner {
            return Err(MoveError::NotOwner);
        }
        check_members(members, (members.len() / 2 + 1) as u8)?;
        self.greet(from, members)?;
        while !self.has_left(from) {
            let turn = match self.begin() {
                // We had it chosen just now, and a quorum promised this ballot with that.
                Start::Accept { ballot, current } => {
                    self.state.refuse_older(Some(&current.record))?;
                    self.seal(from, ballot, self.with_seal(from, current, members))
                }
                Start::Prepare(ballot) => match self.prepare_round(from, ballot) {
                    Ok((_, None)) => return Err(MoveError::Empty),
                    Ok((ballot, Some(current))) => {
                        self.state.refuse_older(Some(&current.record))?;
                        self.choose(from, ballot, current)
                    }
                    Err(lost) => Err(lost),
                },
            };
            if let Err(lost) = turn {
                self.again(from, &lost, false, false).map_err(|error| match error {
                    SwapError::Read(error) => MoveError::Read(error),
                    other => MoveError::Refused(other.to_string()),
                })?;
            }
        }
        // Whoever moved it: it is not moved before a quorum of its members has the value.
        self.read()?;
        let membership = self.state.membership.clone();
        self.retire(from, &membership);
        Ok(membership)
    }

    /// Has what a member accepted last chosen, before anything is put on top of it: a seal is like a successor, which is
    /// signed only of a value that is **known** to be chosen. Members could not go back behind it otherwise.
    fn choose(&mut self, from: &Membership, ballot: Ballot, current: Proposed) -> Result<(), Lost> {
        if current.seal.is_some() {
            return self.seal(from, ballot, current);
        }
        let proposed = self.propose(ballot, current);
        self.accept_round(from, &proposed)?;
        if self.state.proposer.ready().is_none() {
            return Err(Lost::because("other writers were faster every time".into()));
        }
        Ok(())
    }

    fn with_seal(&self, from: &Membership, current: Proposed, members: &[NodeId]) -> Proposed {
        let list = current.record.access_serial().max(self.state.list_serial());
        let wanted = || Seal::sign(self.identity, from, members.to_vec(), current.record.hash(), list);
        let seal = current.seal.clone().unwrap_or_else(wanted);
        Proposed { seal: Some(seal), ..current }
    }

    /// Asks those who are to be the members whether they can be. One that lost its store once can, as soon as it has learned
    /// the register from the others, and then it takes a quorum of these: a register that was sealed towards too few
    /// that can keep it would wait for them.
    fn greet(&self, from: &Membership, members: &[NodeId]) -> Result<(), MoveError> {
        let (mut whole, mut forgetful) = (0, None);
        for id in members {
            match self.ask_whether_it_can_keep(id) {
                Ok(()) => whole += 1,
                Err(Failure::Refused(reason @ Refusal::Amnesiac)) => {
                    forgetful = Some(MoveError::Unfit { node: *id, reason });
                }
                // A present member that is away for a while is none the worse for staying one.
                Err(_) if from.index_of(id).is_some() => {}
                Err(Failure::Refused(reason)) => return Err(MoveError::Unfit { node: *id, reason }),
                Err(_) => return Err(MoveError::Away(*id)),
            }
        }
        match forgetful {
            Some(unfit) if whole < members.len() / 2 + 1 => Err(unfit),
            _ => Ok(()),
        }
    }

    pub(super) fn ask_whether_it_can_keep(&self, id: &NodeId) -> Result<(), Failure> {
        let register = self.state.register;
        if let Some(node) = self.links.local(id) {
            return node.can_keep(&register).map_err(Failure::Refused);
        }
        let unknown = || Failure::Unreachable("nobody knows where it is".into());
        let contact = self.look_up(id).ok_or_else(unknown)?;
        self.links.call::<CanKeep>(&contact, &register, Bytes::new(), CALL_TIMEOUT).map(drop)
    }

    /// Has a seal chosen under a ballot that is prepared, and the register moved to where it says.
    pub(super) fn seal(&mut self, from: &Membership, ballot: Ballot, sealed: Proposed) -> Result<(), Lost> {
        let proposed = self.propose(ballot, sealed);
        self.accept_round(from, &proposed)?;
        self.finish_move(from, &proposed)
    }

    /// Moves the register to where a seal says that **was chosen** in `from`'s epoch.
    pub(super) fn finish_move(&mut self, from: &Membership, sealed: &Proposed) -> Result<(), Lost> {
        let Some(seal) = &sealed.seal else { return Ok(()) };
        if self.identity.public_key() != from.genesis.owner {
            if self.look_at(from, &seal.next.members) {
                return Ok(());
            }
            let reason = "the register is being moved, and a drive of its owner has to finish that";
            return Err(Lost::because(reason.into()));
        }
        let configuration = seal.chosen(self.identity);
        let next = from.followed_by(configuration.clone());
        let first = self.first(&next, sealed.record.clone());
        let is_installed = match self.accept_round(&next, &first) {
            Ok(()) => true,
            // It goes on there already, so somebody else has taken these steps.
            Err(lost) if lost.conflicts > 0 || self.has_left(from) => false,
            Err(lost) => return Err(lost),
        };
        if self.state.follow(&configuration).is_err() {
            return Err(Lost::because("the owner's own word does not verify".into()));
        }
        if is_installed {
            self.retire(from, &next);
        }
        Ok(())
    }

    /// The value that an epoch begins with, as its members are given it.
    pub(super) fn first(&self, next: &Membership, sealed: SignedRecord) -> Proposed {
        let ballot = Ballot::first(next.epoch());
        Proposed::sign_under(self.identity, ballot, sealed, None, None, self.state.list(), None)
    }

    /// Tells those who kept the register, in the background: who does not hear it learns it when it is asked next.
    pub(super) fn retire(&self, from: &Membership, next: &Membership) {
        for member in self.members(from).into_iter().flatten() {
            let (links, next) = (self.links.clone(), next.clone());
            drop(reactor::spawn(move || {
                let told = match &member {
                    Member::Own(node) => node.retire(&next).map_err(Failure::Refused),
                    Member::Other(contact) => {
                        links.call::<Retire>(contact, &next, Bytes::new(), CALL_TIMEOUT).map(drop)
                    }
                };
                if let Err(failure) = told {
                    tracing::debug!("a former member of a register was not told: {failure}");
                }
            }));
        }
    }
}
