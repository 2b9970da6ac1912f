//! The rounds: everyone is asked at once, and the pure side says when enough have answered.
//!
//! What a member says is believed as far as a writer's signature carries it: a promise comes with the proposal that
//! asked for it, a value with the one under which it was accepted.

use std::rc::Rc;

use bytes::Bytes;
use overlay::Overlay;
use reactor::sync::{Receiver, channel};

use super::lists::Met;
use super::members::Member;
use super::{AGREEMENT_WAIT, CALL_TIMEOUT, Operation, State};
use crate::block::configuration::Membership;
use crate::block::proposal::{Proposal, Proposed};
use crate::links::{Failure, Links};
use crate::message::{Accept, AcceptRequest, Prepare, PrepareRequest, ReadRegister, Refusal, RegisterView};
use crate::paxos::{Accepted, Accepting, Ballot, Preparing, Quorum, Reading, Verdict};

/// How a round can fail to reach a quorum.
#[derive(Default)]
pub(super) struct Lost {
    /// Members who promised somebody a higher ballot, and showed whom.
    pub(super) conflicts: usize,
    /// Members who accepted, though too few.
    pub(super) accepted: usize,
    /// Members of whom nobody knows what they did: they did not answer, or not yet, or failed half way.
    pub(super) unknown: usize,
    /// Members that have yet to be given a first value of their epoch.
    pub(super) behind: usize,
    /// A member showed a promise to somebody who may not write as far as we know. It lies, or we know an old list.
    pub(super) stranger: bool,
    /// Members who say that the list of writers does not name us, or that our passport does not do.
    pub(super) not_allowed: usize,
    /// Two values under one ballot.
    pub(super) fork: Option<Box<(Proposed, Proposed)>>,
    /// Members without room.
    full: usize,
    pub(super) refusal: Option<Refusal>,
    reason: Option<String>,
}

impl Lost {
    pub(super) fn because(reason: String) -> Lost {
        Lost { reason: Some(reason), ..Lost::default() }
    }

    /// Enters what a member did instead of what it was asked in `epoch`.
    fn enter(&mut self, state: &mut State, epoch: u64, failure: Failure) {
        match failure {
            Failure::Refused(Refusal::Conflict { promise }) => match state.believe(epoch, &promise) {
                Ok(()) => self.conflicts += 1,
                Err(reason) => {
                    self.stranger = true;
                    self.doubt(format!("a node names a promise that nobody asked for ({reason})"));
                }
            },
            Failure::Refused(Refusal::Moved { configuration }) => match state.follow(&configuration) {
                // What was asked of the others meanwhile, they may have done.
                Ok(_) => self.doubt("the register has moved".into()),
                Err(reason) => self.doubt(format!("a node names members that the owner did not ({reason})")),
            },
            Failure::Refused(Refusal::Behind) => {
                self.behind += 1;
                self.reason = Some(Refusal::Behind.to_string());
            }
            // It may have written what it could not sync.
            Failure::Refused(Refusal::Store(reason)) => self.doubt(reason),
            Failure::Refused(refusal) => {
                self.not_allowed += usize::from(matches!(refusal, Refusal::NotAllowed(_)));
                self.full += usize::from(refusal == Refusal::Full);
                self.reason = Some(refusal.to_string());
                self.refusal = Some(refusal);
            }
            failure => self.doubt(failure.to_string()),
        }
    }

    fn doubt(&mut self, reason: String) {
        self.unknown += 1;
        self.reason = Some(reason);
    }

    pub(super) fn reason(&self) -> String {
        match &self.fork {
            Some(fork) => fork_reason(fork),
            None => self.reason.clone().unwrap_or_else(|| "other writers were faster every time".into()),
        }
    }

    /// Whether those that have room would do if they answered: then it is not for lack of space.
    pub(super) fn is_for_silence(&self, quorum: &Quorum) -> bool {
        self.unknown > 0 && quorum.members.saturating_sub(self.full) >= quorum.needed
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
                Some(
                    Refusal::Full
                        | Refusal::NotAllowed(_)
                        | Refusal::Invalid(_)
                        | Refusal::NotAMember
                        | Refusal::Equivocation { .. }
                )
            )
    }
}

fn fork_reason(fork: &(Proposed, Proposed)) -> String {
    let proposal = &fork.0.proposal;
    format!(
        "the writer {} proposed two values in round {}: its key is misused, and no quorum has either of them",
        proposal.writer, proposal.ballot.round
    )
}

/// What a read of all members came to.
pub(super) struct Answers {
    /// What a quorum agrees on, if it does.
    pub(super) chosen: Option<Option<Proposed>>,
    /// What was accepted under the highest ballot that anybody showed.
    pub(super) latest: Option<Proposed>,
    /// How many answered.
    pub(super) count: usize,
    /// How many answered that they have nothing of this epoch yet.
    pub(super) behind: usize,
    /// What the last failure was.
    pub(super) reason: String,
}

impl<O: Overlay + 'static> Operation<'_, O> {
    /// Prepares `ballot`, or a later one, which is returned with what to build on.
    ///
    /// Whoever meets a newer list of writers on the way prepares again, by that list: what he then proposes is not what
    /// somebody would who has yet to hear of it ([`crate::block::proposal`]).
    pub(super) fn prepare_round(
        &mut self,
        membership: &Membership,
        mut ballot: Ballot,
    ) -> Result<(Ballot, Option<Proposed>), Lost> {
        loop {
            let list = self.state.list_serial();
            let current = self.prepare_once(membership, ballot)?;
            if self.state.list_serial() == list {
                return Ok((ballot, current));
            }
            ballot = self.state.proposer.next_ballot();
        }
    }

    fn prepare_once(&mut self, membership: &Membership, ballot: Ballot) -> Result<Option<Proposed>, Lost> {
        let mut round = Preparing::new(membership.quorum());
        let mut met = Met::new(membership.quorum());
        let mut lost = Lost::default();
        let standing = self.state.standing(self.state.list_serial(), ballot);
        let proposal = Proposal::prepare_by(self.identity, self.state.register, ballot, standing);
        let list = self.state.list().cloned();
        let request = PrepareRequest { membership: membership.clone(), proposal, list };
        let answers = self.ask(
            membership,
            |index| round.on_loss(index),
            move |links, member| match member {
                Member::Own(node) => node.prepare(request.clone()).map_err(Failure::Refused),
                Member::Other(contact) => links
                    .call::<Prepare>(contact, &request, Bytes::new(), CALL_TIMEOUT)
                    .map(|(answer, _)| answer),
            },
        );
        loop {
            match round.verdict() {
                Verdict::Done(None) => return Ok(None),
                Verdict::Done(Some(latest)) if !met.is_in_doubt(&latest, &self.state.lists()) => {
                    return Ok(Some(met.decide(latest, &self.state.lists())));
                }
                Verdict::Failed => {
                    lost.fork = round.fork().map(Box::new);
                    return Err(lost);
                }
                Verdict::Done(Some(_)) | Verdict::Pending => {}
            }
            let Ok((index, answer)) = answers.recv() else {
                if let Verdict::Done(Some(latest)) = round.verdict() {
                    return Ok(Some(met.decide(latest, &self.state.lists())));
                }
                lost.fork = round.fork().map(Box::new);
                return Err(lost);
            };
            match answer.and_then(|accepted| self.checked(accepted)) {
                Ok(accepted) => {
                    met.enter(index, accepted.as_ref().map(|accepted| &accepted.value));
                    round.on_promise(index, accepted);
                }
                Err(failure) => {
                    round.on_loss(index);
                    lost.enter(self.state, membership.epoch(), failure);
                    if self.has_left(membership) {
                        return Err(lost);
                    }
                }
            }
        }
    }

    /// Has the members accept what is proposed; it may be somebody else's proposal, delivered again.
    pub(super) fn accept_round(&mut self, membership: &Membership, proposed: &Proposed) -> Result<(), Lost> {
        let next = proposed.proposal.promises();
        let mut round = Accepting::new(membership.quorum(), next);
        let mut lost = Lost::default();
        let request = AcceptRequest { membership: membership.clone(), proposed: proposed.clone() };
        let answers = self.ask(
            membership,
            |index| round.on_loss(index),
            move |links, member| match member {
                Member::Own(node) => node.accept_own(request.clone()).map_err(Failure::Refused),
                Member::Other(contact) => links
                    .call::<Accept>(contact, &request, Bytes::new(), CALL_TIMEOUT)
                    .map(|(answer, _)| answer),
            },
        );
        loop {
            if let Verdict::Done(prepared) = round.verdict() {
                if prepared && self.state.proposer.is_mine(next) {
                    self.state.proposer.on_prepared(next, proposed.clone());
                }
                self.state.verify(proposed.clone());
                if self.state.proposer.is_mine(proposed.proposal.ballot) {
                    self.state.chosen_by_quorum(proposed);
                }
                return Ok(());
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
                    lost.enter(self.state, membership.epoch(), failure);
                    if self.has_left(membership) {
                        return Err(lost);
                    }
                }
            }
        }
    }

    /// Asks every member what it has accepted.
    pub(super) fn read_round(&mut self, membership: &Membership) -> Answers {
        let mut round = Reading::new(membership.quorum());
        let mut met = Met::new(membership.quorum());
        let mut reason = None;
        let mut behind = 0;
        let register = self.state.register;
        let answers = self.ask(
            membership,
            |index| round.on_loss(index),
            move |links, member| match member {
                Member::Own(node) => node.read_register(&register).map_err(Failure::Refused),
                Member::Other(contact) => links
                    .call::<ReadRegister>(contact, &register, Bytes::new(), CALL_TIMEOUT)
                    .map(|(answer, _)| answer),
            },
        );
        let chosen = loop {
            match round.verdict() {
                Verdict::Done(chosen) => break Some(chosen),
                Verdict::Failed => break None,
                Verdict::Pending => {}
            }
            let latest = round.latest().map(|accepted| &accepted.value);
            let is_in_doubt = latest.is_some_and(|latest| met.is_in_doubt(latest, &self.state.lists()));
            let next = if round.has_quorum() && !is_in_doubt {
                reactor::timeout(AGREEMENT_WAIT, || answers.recv()).ok()
            } else {
                Some(answers.recv())
            };
            let Some(Ok((index, answer))) = next else { break None };
            match answer.and_then(|view| self.checked_view(membership, view)) {
                Ok((accepted, is_learned)) => {
                    met.enter(index, accepted.as_ref().map(|accepted| &accepted.value));
                    match accepted {
                        Some(learned) if is_learned => round.on_learned(index, learned),
                        accepted => round.on_answer(index, accepted),
                    }
                }
                Err(Failure::Refused(Refusal::Behind)) => {
                    round.on_loss(index);
                    behind += 1;
                    reason = Some(Refusal::Behind.to_string());
                }
                Err(_) if self.has_left(membership) => break None,
                Err(failure) => {
                    round.on_loss(index);
                    reason = Some(failure.to_string());
                }
            }
        };
        if let Some(fork) = round.fork() {
            let fork = fork_reason(&fork);
            tracing::error!(%register, "{fork}");
            reason = Some(fork);
        }
        // Who can't be reached says no reason.
        let reason = reason.unwrap_or_else(|| match round.answer_count() {
            0 => "none of them can be reached".into(),
            count => format!("{count} answered, and the others cannot be reached"),
        });
        let latest = round.latest().map(|accepted| met.decide(accepted.value.clone(), &self.state.lists()));
        Answers { chosen, latest, count: round.answer_count(), behind, reason }
    }

    /// What a member has accepted in the epoch that it was asked about, and whether it has that only from others.
    fn checked_view(
        &mut self,
        membership: &Membership,
        view: Option<RegisterView>,
    ) -> Result<(Option<Accepted<Proposed>>, bool), Failure> {
        let Some(view) = view else {
            // Who never heard of the register says something of its first epoch only.
            let is_first = membership.epoch() == 0;
            return if is_first { Ok((None, false)) } else { Err(Failure::Refused(Refusal::Behind)) };
        };
        self.state.look_for_sealed(&view);
        let epoch = view.membership.epoch();
        if let Some(configuration) = view.membership.configuration
            && epoch > membership.epoch()
        {
            self.state.follow(&configuration).map_err(|invalid| Failure::Lied(invalid.to_string()))?;
            return Err(Failure::Refused(Refusal::Moved { configuration }));
        }
        if epoch < membership.epoch() || (view.accepted.is_none() && epoch > 0) {
            return Err(Failure::Refused(Refusal::Behind));
        }
        let is_learned = view.learned.is_some();
        self.checked(view.accepted).map(|accepted| (accepted, is_learned))
    }

    fn checked(&mut self, proposed: Option<Proposed>) -> Result<Option<Accepted<Proposed>>, Failure> {
        if let Some(proposed) = &proposed {
            self.state.check(proposed)?;
        }
        Ok(proposed.map(Proposed::into_accepted))
    }

    /// Asks every member that may be alive; the others are entered as lost at once.
    fn ask<T: 'static>(
        &self,
        membership: &Membership,
        mut on_loss: impl FnMut(usize),
        call: impl Fn(&Links<O>, &Member) -> Result<T, Failure> + 'static,
    ) -> Receiver<(usize, Result<T, Failure>)> {
        let members = self.members(membership);
        let (sender, answers) = channel(members.len());
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::mutable::Genesis;

    #[test]
    fn what_may_have_happened_is_not_told_as_what_did_not() {
        let owner = reactor::crypto::Identity::from_seed(&[1; 32]);
        let genesis = Genesis::sign(&owner, [1; 32], vec![overlay::NodeId([1; 32])], vec![]);
        let mut state = State::new(genesis, crate::paxos::ProposerId([1; 16]), Rc::default());
        let mut may_have = |failure| {
            let mut lost = Lost::default();
            lost.enter(&mut state, 0, failure);
            lost.may_have_accepted()
        };
        assert!(may_have(Failure::Unreachable("no answer".into())));
        assert!(may_have(Failure::Lied("nonsense".into())));
        assert!(may_have(Failure::Refused(Refusal::Store("the sync failed".into()))));
        assert!(!may_have(Failure::Refused(Refusal::Full)));
        assert!(!may_have(Failure::Refused(Refusal::NotAMember)));
    }
}
