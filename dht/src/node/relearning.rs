//! Taking a register's state from what the other members tell, once this node has lost its own.
//!
//! What they promised, this node may have promised too; what one of them accepted, it may have accepted
//! ([`Acceptor::relearned`]). What somebody was promised whom the newest list puts out binds it as anything else, unless that list
//! is known to be in force: then nobody counts on it. Where it is not, nothing is learned, and the node stays silent: it would go
//! by the list from then on, and be bound by that promise for good. Likewise where the others have something of his that may be
//! chosen. Of an odd number of members those who told are a quorum without this one.
//!
//! Not here: asking the others ([`crate::repair`]).

use std::time::{Duration, Instant};

use super::Node;
use super::deletions::now_seconds;
use super::stored_register::StoredRegister;
use crate::block::configuration::Membership;
use crate::block::mutable::{AccessList, Signed};
use crate::block::proposal::{InForce, Proposal, Proposed};
use crate::block_store::RegisterAddress;
use crate::message::Refusal;
use crate::paxos::{Acceptor, Ballot};
use crate::register::CALL_TIMEOUT;

/// After this, nobody counts an answer of before any more: a round's calls are answered by then, or given up.
const ROUNDS_OVER_AFTER: Duration = CALL_TIMEOUT.saturating_add(Duration::from_secs(1));

/// Of so many registers it is remembered since when they are damaged: some 100 KiB. Each further one costs a wait of its own.
pub(super) const DAMAGED_MAX: usize = 1024;

/// What enough of the other members tell of a register.
pub(crate) struct Told {
    /// What each of them has promised, and the list of writers by which it has.
    pub(crate) promises: Vec<(Signed<Proposal>, Option<Signed<AccessList>>)>,
    /// What those were not to vote below that have it from others themselves.
    pub(crate) floor: Option<Ballot>,
    /// What a proposer would go on from.
    pub(crate) accepted: Option<Proposed>,
    /// How many of them have accepted just that.
    pub(crate) holders: usize,
    /// Which list of writers is in force, if they say so.
    pub(crate) in_force: Option<InForce>,
}

impl Node {
    /// When the rounds are over that this node had a part in before it lost what it knew of a register.
    pub(crate) fn rounds_are_over_at(&self, register: &RegisterAddress) -> Instant {
        let damaged = self.damaged_since.borrow();
        let since = match damaged.get(register) {
            Some(since) => *since,
            // It may be one of those of which it was not remembered.
            None if damaged.len() >= DAMAGED_MAX => reactor::now(),
            None => self.started,
        };
        since.max(self.started) + ROUNDS_OVER_AFTER
    }

    /// Takes the state of a register that this node has lost from what enough of the other members say. From then on it
    /// votes, if it is one of them; for what it learned so only as [`Acceptor::relearned`] has it.
    ///
    /// # Errors
    /// [`Refusal`] if what they say does not verify, or does not suffice yet, or the store fails.
    ///
    /// # Suspends
    /// Until it is durable.
    pub(crate) fn relearn(&self, membership: &Membership, told: Told) -> Result<(), Refusal> {
        let register = membership.register();
        let slot = self.registers.slot(&register);
        let mut state = slot.lock();
        match self.load(&register, &mut state) {
            Err(Refusal::Amnesiac | Refusal::Damaged) => {}
            other => return other,
        }
        membership.verify()?;
        if membership.index_of(&self.own).is_none() {
            let next = StoredRegister::unheard(membership.genesis.clone()).retired(membership.clone());
            return self.persist(&register, &mut state, next);
        }
        let mut next = relearned(membership, told)?;
        next.note_since(None, now_seconds());
        self.persist(&register, &mut state, next)?;
        self.damaged_since.borrow_mut().remove(&register);
        // With its store it lost what it kept of the past.
        self.want_past(&register);
        Ok(())
    }
}

fn relearned(membership: &Membership, told: Told) -> Result<StoredRegister, Refusal> {
    let Told { promises, floor, accepted, holders, in_force } = told;
    let genesis = &membership.genesis;
    let mut next = StoredRegister::unheard(genesis.clone());
    next.membership = membership.clone();
    if let Some(accepted) = &accepted {
        accepted.verify(genesis, None)?;
        next.promise = Some(accepted.proposal.clone());
    }
    let list = accepted.as_ref().and_then(Proposed::list).cloned();
    let out =
        || Refusal::NotAllowed("somebody who was put out since has a hand in what the others have".into());
    if accepted.as_ref().is_some_and(|accepted| accepted.is_off_the_list(genesis, list.as_ref())) {
        return Err(out());
    }
    let at = accepted.as_ref().map_or(Ballot::ZERO, |accepted| accepted.proposal.ballot);
    let mut promised = next.promise.as_ref().map_or(Ballot::ZERO, |promise| promise.promises());
    if promised.epoch != membership.epoch() {
        return Err(Refusal::Behind);
    }
    let mut floor = floor.unwrap_or(at);
    for (promise, by) in promises {
        let is_named = |list: Option<&Signed<AccessList>>| AccessList::names(list, genesis, &promise.writer);
        // One that no writer signed binds nobody, and the proposal that is learned binds it to nothing else.
        let is_true = promise.register == membership.register()
            && promise.promises().epoch == membership.epoch()
            && (is_named(by.as_ref()) || is_named(list.as_ref()))
            && promise.verify_by(&promise.writer).is_ok();
        let is_void = in_force.is_some_and(|in_force| in_force.voids_promise_of(&promise));
        if !is_true || is_void || accepted.as_ref().is_some_and(|accepted| accepted.proposal == promise) {
            continue;
        }
        if promise.promises() > at && !is_named(list.as_ref()) {
            return Err(out());
        }
        floor = floor.max(promise.promises());
        if promise.promises() > promised {
            promised = promise.promises();
            next.promise = Some(promise);
        }
    }
    let accepted = accepted.map(Proposed::into_accepted);
    next.acceptor = Acceptor::relearned(membership.quorum(), promised, accepted, floor, holders);
    Ok(next)
}
