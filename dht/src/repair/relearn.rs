//! Learning again what an acceptor has lost: its disk, or one record of it.
//!
//! An acceptor that starts afresh breaks its promises: it may have been the one member of a quorum that would have told.
//! So it says nothing about a register until so many of the *others* have told it what they know that no quorum with it
//! can have been without one of them. What they promised, it then has promised too; what one of them accepted it shows, and
//! votes for only where a quorum of them has accepted it, or once it is accepted here anew
//! ([`Acceptor::relearned`](crate::paxos::Acceptor::relearned)). Where too many have lost their stores, nobody can tell, and the
//! register stays silent rather than going back.
//!
//! Before that it waits until the rounds are over that it had a part in: an answer that it gave before might be counted together
//! with one that another gives only after it was asked here. What remains is a client whose machine sleeps in the middle of a round.
//!
//! The register may have been moved meanwhile, and this node may have voted among its later members too. So whoever names
//! later members is followed to them, and while a move is under way (somebody has a seal, and nobody can say yet whether it
//! was chosen) nothing is learned. A node that is none of the members any more learns who they are, and that is all.

use bytes::Bytes;
use overlay::{Contact, NodeId, Overlay};

use super::{COMPARE_TIMEOUT, Repair};
use crate::block::configuration::Membership;
use crate::block::mutable::AccessList;
use crate::block::proposal::Proposed;
use crate::block_store::{HeaderHash, RegisterAddress};
use crate::message::{ReadRegister, RegisterView};
use crate::node::Told;
use crate::paxos::Ballot;
use crate::register::lists::{Known, Met};

/// Later members that are followed to in one go: each costs calls, and a move takes its time.
const EPOCHS_FOLLOWED_MAX: usize = 16;

/// What is accepted, and under which ballot.
fn vote_of(accepted: &Proposed) -> (Ballot, HeaderHash) {
    (accepted.proposal.ballot, accepted.record.hash())
}

impl<O: Overlay + 'static> Repair<O> {
    /// As [`Repair::relearn`], of a register that a neighbour names.
    pub(super) fn relearn_from(&self, contact: &Contact, register: &RegisterAddress) -> bool {
        let view = self.links.call::<ReadRegister>(contact, register, Bytes::new(), COMPARE_TIMEOUT);
        match view {
            Ok((Some(view), _)) if view.membership.register() == *register => {
                self.relearn_in_time(&view.membership)
            }
            _ => false,
        }
    }

    /// As [`Repair::relearn`], once the rounds are over that this node had a part in.
    pub(super) fn relearn_in_time(&self, membership: &Membership) -> bool {
        let over_at = self.node.rounds_are_over_at(&membership.register());
        reactor::sleep(over_at.saturating_duration_since(reactor::now()));
        self.relearn(membership)
    }

    /// Learns a register from its other members; says whether enough of them answered.
    pub(crate) fn relearn(&self, membership: &Membership) -> bool {
        let mut membership = membership.clone();
        for _ in 0..EPOCHS_FOLLOWED_MAX {
            if membership.verify().is_err() {
                return false;
            }
            let views = self.ask_others(&membership);
            let later = views.iter().flatten().map(|view| &view.membership);
            match later.max_by_key(|later| later.epoch()) {
                Some(later) if later.epoch() > membership.epoch() => membership = later.clone(),
                _ => return self.learn(&membership, views),
            }
        }
        false
    }

    /// What the other members say, each `None` if it never heard of the register; and those whom a seal names, if they say
    /// that their epoch has begun.
    fn ask_others(&self, membership: &Membership) -> Vec<Option<RegisterView>> {
        let mut views = self.ask_each(membership, membership.members());
        let seals = views.iter().flatten().filter_map(|view| view.accepted.as_ref()?.seal.clone());
        for seal in seals.collect::<Vec<_>>() {
            let next = self.ask_each(membership, &seal.next.members);
            views.extend(next.into_iter().filter(|view| {
                view.as_ref().is_some_and(|view| view.membership.epoch() > membership.epoch())
            }));
        }
        views
    }

    fn ask_each(&self, membership: &Membership, members: &[NodeId]) -> Vec<Option<RegisterView>> {
        let register = membership.register();
        let mut views = Vec::new();
        for id in members.iter().filter(|id| **id != self.node.own()) {
            let nearest = || self.links.closest(id.0, 1).into_iter().find(|contact| contact.id == *id);
            let Some(contact) = nearest().or_else(|| self.links.last_known(id)) else { continue };
            match self.links.call::<ReadRegister>(&contact, &register, Bytes::new(), COMPARE_TIMEOUT) {
                Ok((view, _)) => {
                    // What does not verify is as good as no answer, and not as "never heard of it".
                    if view.as_ref().is_none_or(|view| {
                        view.membership.register() == register && view.membership.verify().is_ok()
                    }) {
                        views.push(view);
                    }
                }
                Err(failure) => tracing::debug!(%register, node = %contact, "can't learn from it: {failure}"),
            }
        }
        views
    }

    /// Learns what enough of the others say of the newest members that anybody names.
    fn learn(&self, membership: &Membership, mut views: Vec<Option<RegisterView>>) -> bool {
        let register = membership.register();
        // Any quorum with us has `needed - 1` of the others: as many must answer as leave no room for one without them.
        // If we are none of them, then as many as leave no room for one that has moved the register on.
        let quorum = membership.quorum();
        let enough = quorum.members - quorum.needed + 1;
        // Who is behind says nothing of this epoch. In the first, nobody is.
        views.retain(|view| {
            view.as_ref()
                .map_or(membership.epoch() == 0, |view| view.membership.epoch() == membership.epoch())
        });
        if views.len() < enough {
            tracing::warn!(
                %register, answers = views.len(), enough,
                "this node has lost what it knew of a register, and too few others tell: it stays silent"
            );
            return false;
        }
        let shown = views.iter().flatten();
        let promises = shown.filter_map(|view| {
            let list = view.accepted.as_ref().and_then(Proposed::list).cloned();
            let list = list.filter(|list| list.verify(&membership.genesis).is_ok());
            Some((view.promise.clone()?, list))
        });
        let promises = promises.collect();
        let floor = views.iter().flatten().filter_map(|view| view.learned).max();
        // As a writer would go on: not from what somebody who was put out has left with one of them.
        let mut met = Met::new(quorum);
        let mut values: Vec<Proposed> = Vec::new();
        let mut votes: Vec<(Ballot, HeaderHash)> = Vec::new();
        // Each is another member's.
        for (index, view) in views.into_iter().enumerate() {
            let is_vote = view.as_ref().is_some_and(|view| view.learned.is_none());
            let accepted = view.and_then(|view| view.accepted).filter(|accepted| {
                accepted.proposal.ballot.epoch == membership.epoch()
                    && accepted.proposal.list >= membership.first_list()
                    && accepted.verify(&membership.genesis, None).is_ok()
            });
            met.enter(index, accepted.as_ref());
            votes.extend(accepted.as_ref().filter(|_| is_vote).map(vote_of));
            values.extend(accepted);
        }
        let newest = values.iter().max_by_key(|value| value.list_serial());
        let list = newest.and_then(Proposed::list).cloned();
        let is_on_it =
            |value: &&Proposed| AccessList::names(list.as_ref(), &membership.genesis, &value.proposal.writer);
        let said = values.iter().filter(is_on_it).filter_map(|value| value.proposal.says_in_force());
        let in_force = said.max_by_key(|said| said.list);
        let latest = values.into_iter().max_by_key(|value| value.proposal.ballot);
        let lists = Known { genesis: &membership.genesis, list: list.as_ref(), in_force };
        let decided = latest.map(|latest| met.decide(latest, &lists));
        let accepted = decided.map(|decided| decided.under(list.as_ref()));
        if accepted.as_ref().is_some_and(|accepted| accepted.seal.is_some()) {
            tracing::warn!(%register, "a register that this node has lost is being moved: it stays silent until then");
            return false;
        }
        let vote = accepted.as_ref().map(vote_of);
        let holders = votes.iter().filter(|other| Some(**other) == vote).count();
        match self.node.relearn(membership, Told { promises, floor, accepted, holders, in_force }) {
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
