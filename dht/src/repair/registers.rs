//! Bringing registers up to date: what this node missed is delivered to it again.

use bytes::Bytes;
use overlay::{Contact, Overlay};

use super::{COMPARE_TIMEOUT, Repair, Report};
use crate::block::configuration::Membership;
use crate::block_store::RegisterAddress;
use crate::links::Failure;
use crate::message::{AcceptRequest, ListedKey, ReadRegister, Refusal, Retire};
use crate::paxos::Ballot;
use crate::store::{Key, Kind};

fn key_of(register: &RegisterAddress) -> Key {
    Key::new(Kind::REGISTER, register.0)
}

impl<O: Overlay + 'static> Repair<O> {
    pub(super) fn fetch_registers(&self, contact: &Contact, keys: &[ListedKey], report: &mut Report) {
        for key in keys {
            let register = RegisterAddress(key.address);
            let ours = match self.node.read_register(&register) {
                // A neighbour lists it that holds us, or itself, for a member still.
                Ok(Some(view))
                    if view.membership.index_of(&self.node.own()).is_none()
                        || key.ballot.epoch < view.membership.epoch()
                            && view.membership.index_of(&contact.id).is_none() =>
                {
                    self.pass_on(contact, &view.membership);
                    continue;
                }
                Ok(view) => view
                    .and_then(|view| view.accepted)
                    .map_or(Ballot::ZERO, |accepted| accepted.proposal.ballot),
                Err(Refusal::Amnesiac | Refusal::Damaged) => {
                    self.node.fall_behind(&contact.id);
                    match self.relearn_from(contact, &register) {
                        true => report.registers += 1,
                        false => self.miss(&register, report),
                    }
                    continue;
                }
                Err(_) => {
                    self.miss(&register, report);
                    continue;
                }
            };
            if key.ballot <= ours {
                continue;
            }
            self.node.fall_behind(&contact.id);
            match self.fetch_register(contact, &register) {
                Ok(true) => report.registers += 1,
                Ok(false) => {}
                Err(failure) => {
                    tracing::warn!(%register, node = %contact, "can't catch up with a register: {failure}");
                }
            }
            match self.has_reached(&register, key.ballot) {
                true => self.node.note_fetched(&key_of(&register)),
                false => self.miss(&register, report),
            }
        }
    }

    fn miss(&self, register: &RegisterAddress, report: &mut Report) {
        self.node.note_lacking([key_of(register)]);
        report.missing += 1;
    }

    /// Whether this node has what is under that ballot, or something newer, or is not to have it any more. It may not take what others
    /// have: who prepared a higher ballot here and ended before he proposed anything counts on that, and nobody knows that he ended.
    fn has_reached(&self, register: &RegisterAddress, ballot: Ballot) -> bool {
        self.node.read_register(register).is_ok_and(|view| {
            view.is_some_and(|view| {
                view.membership.index_of(&self.node.own()).is_none()
                    || view.accepted.is_some_and(|accepted| accepted.proposal.ballot >= ballot)
            })
        })
    }

    fn fetch_register(&self, contact: &Contact, register: &RegisterAddress) -> Result<bool, Failure> {
        let (view, _) = self.links.call::<ReadRegister>(contact, register, Bytes::new(), COMPARE_TIMEOUT)?;
        let Some((membership, proposed)) = view.and_then(|view| Some((view.membership, view.accepted?)))
        else {
            return Ok(false);
        };
        if membership.register() != *register {
            return Err(Failure::Lied("it sent another register".into()));
        }
        // The writer's own message, delivered late: everything in it is verified.
        match self.node.accept(AcceptRequest { membership, proposed }) {
            Ok(_) => Ok(true),
            // Something newer is here already, or may be under way.
            Err(Refusal::Conflict { .. } | Refusal::Moved { .. }) => Ok(false),
            Err(refusal) => Err(Failure::Refused(refusal)),
        }
    }

    /// Tells a neighbour that has missed it who keeps a register now.
    fn pass_on(&self, contact: &Contact, membership: &Membership) {
        if let Err(failure) = self.links.call::<Retire>(contact, membership, Bytes::new(), COMPARE_TIMEOUT) {
            tracing::debug!(node = %contact, "can't tell who keeps a register now: {failure}");
        }
    }
}
