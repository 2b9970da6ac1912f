//! The rounds: everyone is asked at once, and the pure side says when enough have answered.

use std::rc::Rc;

use bytes::Bytes;
use overlay::Overlay;
use reactor::sync::{Receiver, channel};

use super::members::Member;
use super::{AGREEMENT_WAIT, CALL_TIMEOUT, Operation};
use crate::block::mutable::{Genesis, Signed, SignedRecord};
use crate::links::{Failure, Links};
use crate::message::{Accept, AcceptRequest, Prepare, PrepareRequest, ReadRegister, Refusal};
use crate::paxos::{Accepted, Accepting, Ballot, Preparing, Proposer, Reading, Verdict};

/// How a round can fail to reach a quorum.
#[derive(Default)]
pub(super) struct Lost {
    /// Members who promised somebody a higher ballot.
    pub(super) conflicts: usize,
    /// Members who accepted, though too few.
    pub(super) accepted: usize,
    /// Members of whom nobody knows what they did: they did not answer, or not yet.
    pub(super) unknown: usize,
    pub(super) refusal: Option<Refusal>,
    reason: Option<String>,
}

impl Lost {
    fn enter<V>(&mut self, proposer: &mut Proposer<V>, failure: Failure)
    where
        V: Clone,
    {
        match failure {
            Failure::Refused(Refusal::Conflict { promised }) => {
                self.conflicts += 1;
                proposer.on_conflict(promised);
            }
            Failure::Refused(refusal) => {
                self.reason = Some(refusal.to_string());
                self.refusal = Some(refusal);
            }
            failure => {
                self.unknown += 1;
                self.reason = Some(failure.to_string());
            }
        }
    }

    pub(super) fn reason(&self) -> String {
        self.reason.clone().unwrap_or_else(|| "other writers were faster every time".into())
    }

    /// Whether somebody may have accepted what was proposed.
    pub(super) fn may_have_accepted(&self) -> bool {
        self.accepted > 0 || self.unknown > 0
    }

    /// Whether trying again is pointless.
    pub(super) fn is_final(&self) -> bool {
        self.conflicts == 0
            && matches!(
                self.refusal,
                Some(Refusal::Full | Refusal::NotAllowed(_) | Refusal::Invalid(_) | Refusal::NotAMember)
            )
    }
}

impl<O: Overlay + 'static> Operation<'_, O> {
    pub(super) fn prepare_round(
        &mut self,
        genesis: &Signed<Genesis>,
        ballot: Ballot,
    ) -> Result<Option<SignedRecord>, Lost> {
        let mut round = Preparing::new(genesis.quorum());
        let mut lost = Lost::default();
        let request = Rc::new(PrepareRequest { genesis: genesis.clone(), ballot });
        let answers = self.ask(
            genesis,
            |index| round.on_loss(index),
            move |links, member| match member {
                Member::Own(node) => node.prepare(None, &request.genesis, ballot).map_err(Failure::Refused),
                Member::Other(contact) => links
                    .call::<Prepare>(contact, &request, Bytes::new(), CALL_TIMEOUT)
                    .map(|(answer, _)| answer),
            },
        );
        loop {
            match round.verdict() {
                Verdict::Done(current) => return Ok(current),
                Verdict::Failed => return Err(lost),
                Verdict::Pending => {}
            }
            let Ok((index, answer)) = answers.recv() else { return Err(lost) };
            match answer.and_then(|accepted| self.checked(accepted)) {
                Ok(accepted) => round.on_promise(index, accepted),
                Err(failure) => {
                    round.on_loss(index);
                    lost.enter(&mut self.state.proposer, failure);
                }
            }
        }
    }

    pub(super) fn accept_round(
        &mut self,
        genesis: &Signed<Genesis>,
        ballot: Ballot,
        record: &SignedRecord,
    ) -> Result<(), Lost> {
        let next = self.state.proposer.next_ballot();
        let mut round = Accepting::new(genesis.quorum(), next);
        let mut lost = Lost::default();
        let request = Rc::new(AcceptRequest {
            genesis: genesis.clone(),
            ballot,
            next: Some(next),
            record: record.clone(),
        });
        let answers = self.ask(
            genesis,
            |index| round.on_loss(index),
            move |links, member| match member {
                Member::Own(node) => node.accept(None, (*request).clone()).map_err(Failure::Refused),
                Member::Other(contact) => links
                    .call::<Accept>(contact, &request, Bytes::new(), CALL_TIMEOUT)
                    .map(|(answer, _)| answer),
            },
        );
        loop {
            match round.verdict() {
                Verdict::Done(prepared) => {
                    if prepared {
                        self.state.proposer.on_prepared(next, record.clone());
                    }
                    self.state.verified = Some(record.clone());
                    return Ok(());
                }
                Verdict::Failed | Verdict::Pending => {}
            }
            let next_answer = match round.verdict() {
                // Lost; but if it is certain that nobody has accepted, the caller can simply try again.
                Verdict::Failed => match reactor::timeout(AGREEMENT_WAIT, || answers.recv()) {
                    Ok(answer) => answer,
                    Err(_) => {
                        lost.unknown += 1;
                        return Err(lost);
                    }
                },
                _ => answers.recv(),
            };
            // The channel closes once everyone has answered.
            let Ok((index, answer)) = next_answer else { return Err(lost) };
            match answer {
                Ok(promised) => {
                    lost.accepted += 1;
                    round.on_accepted(index, promised);
                }
                Err(failure) => {
                    round.on_loss(index);
                    lost.enter(&mut self.state.proposer, failure);
                }
            }
        }
    }

    /// The value that a quorum agrees on, if it does; how many answered; and what the last failure was.
    pub(super) fn read_round(
        &mut self,
        genesis: &Signed<Genesis>,
    ) -> (Option<Option<SignedRecord>>, usize, String) {
        let mut round = Reading::new(genesis.quorum());
        let mut reason = "no member is known".to_owned();
        let register = self.state.register;
        let answers = self.ask(
            genesis,
            |index| round.on_loss(index),
            move |links, member| match member {
                Member::Own(node) => node.read_register(&register).map_err(Failure::Refused),
                Member::Other(contact) => links
                    .call::<ReadRegister>(contact, &register, Bytes::new(), CALL_TIMEOUT)
                    .map(|(answer, _)| answer),
            },
        );
        loop {
            match round.verdict() {
                Verdict::Done(chosen) => return (Some(chosen), round.answer_count(), reason),
                Verdict::Failed => return (None, round.answer_count(), reason),
                Verdict::Pending => {}
            }
            let next = if round.has_quorum() {
                reactor::timeout(AGREEMENT_WAIT, || answers.recv()).ok()
            } else {
                Some(answers.recv())
            };
            let Some(Ok((index, answer))) = next else { return (None, round.answer_count(), reason) };
            let accepted = answer.and_then(|view| self.checked(view.and_then(|view| view.accepted)));
            match accepted {
                Ok(accepted) => round.on_answer(index, accepted),
                Err(failure) => {
                    round.on_loss(index);
                    reason = failure.to_string();
                }
            }
        }
    }

    fn checked(
        &mut self,
        accepted: Option<Accepted<SignedRecord>>,
    ) -> Result<Option<Accepted<SignedRecord>>, Failure> {
        if let Some(accepted) = &accepted {
            self.state.check(&accepted.value)?;
        }
        Ok(accepted)
    }

    /// Asks every member that may be alive; the others are entered as lost at once.
    fn ask<T: 'static>(
        &self,
        genesis: &Signed<Genesis>,
        mut on_loss: impl FnMut(usize),
        call: impl Fn(&Links<O>, &Member) -> Result<T, Failure> + 'static,
    ) -> Receiver<(usize, Result<T, Failure>)> {
        let members = self.members(genesis);
        let (sender, answers) = channel(genesis.members.len());
        if let [Some(own @ Member::Own(_))] = &members[..] {
            // A network of one: no coroutine, no waiting for anyone but the disk.
            drop(sender.try_send((0, call(self.links, own))));
            return answers;
        }
        let call = Rc::new(call);
        let mut order: Vec<usize> = (0..members.len()).collect();
        // Others first: their requests are on the way while our own disk works.
        order.sort_by_key(|&index| matches!(members[index], Some(Member::Own(_))));
        for index in order {
            let Some(member) = members[index].clone() else {
                on_loss(index);
                continue;
            };
            let (links, call, sender) = (self.links.clone(), call.clone(), sender.clone());
            drop(reactor::spawn(move || drop(sender.try_send((index, call(&links, &member))))));
        }
        answers
    }
}
