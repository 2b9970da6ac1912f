//! What one node remembers of one register, and what it refuses.
//!
//! The caller must make the state durable before it sends an answer that follows from it, reads included: an answer
//! from memory that a crash takes back could have completed somebody's quorum.
//!
//! An acceptor is in one epoch at a time, the one of what it has promised. It enters a later one only with a value: at its
//! start an epoch has the value that the one before was sealed with, so a member that has none yet knows nothing of the
//! epoch, and says so instead of promising that nothing was accepted.
//!
//! Not here: whether a value's signatures hold, and whether its proposer may propose; a node checks that before it asks
//! the acceptor.

use std::cmp::Ordering;

use serde::{Deserialize, Serialize};

use crate::paxos::{Ballot, Quorum};

/// A value and the ballot under which it was accepted.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Accepted<V> {
    /// The ballot.
    pub ballot: Ballot,
    /// The value.
    pub value: V,
}

/// What acceptors and proposers need to know of a value.
pub trait Value: Clone {
    /// What tells one value from another.
    type Identity: Eq + Clone;

    /// This value's identity.
    fn identity(&self) -> Self::Identity;

    /// Whether this value may take the place of one that was accepted before. Chosen values form a chain, so this is
    /// never false for what an honest proposer proposes.
    fn may_replace(&self, accepted: &Self) -> bool;
}

/// Why an acceptor refuses. Nothing has changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rejected {
    /// Somebody was promised a higher ballot.
    Conflict {
        /// The ballot to exceed.
        promised: Ballot,
    },
    /// Another value was accepted under the same ballot: whoever proposed both is no honest proposer.
    Equivocation,
    /// The value does not continue the chain.
    Unchained,
    /// The ballot is of an epoch that is over.
    Past,
    /// The ballot is of a later epoch, of which this acceptor has no value yet: it is to be given one first.
    Behind,
}

/// A node's part in one register.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Acceptor<V> {
    /// Nothing below this ballot will be accepted any more. Never decreases.
    pub promised: Ballot,
    /// The last value accepted.
    pub accepted: Option<Accepted<V>>,
    /// It was accepted by others, and this acceptor has it from them since it lost what it knew; it accepts nothing below
    /// this ballot: see [`Acceptor::relearned`].
    #[serde(default)]
    pub learned: Option<Ballot>,
}

impl<V> Default for Acceptor<V> {
    fn default() -> Self {
        Acceptor { promised: Ballot::ZERO, accepted: None, learned: None }
    }
}

impl<V> Acceptor<V> {
    /// Takes no part any more in epochs before this one, nor in it unless it is given its value. What it has accepted it
    /// keeps: those who are to be given that may be given it by nobody else.
    pub fn retire(&mut self, epoch: u64) {
        self.promised = self.promised.max(Ballot::first(epoch));
    }

    /// The epoch that it is in.
    pub fn epoch(&self) -> u64 {
        self.promised.epoch
    }
}

impl<V: Value> Acceptor<V> {
    /// An acceptor that lost what it knew, and asked so many others that no quorum with it can have been without one of them:
    /// the highest ballot that they promised, what they accepted of which a proposer would go on, and how many of them accepted
    /// just that under one ballot.
    ///
    /// It shows that to proposers, as if it had accepted it, for it may have. But unless a quorum of the others did, it may as
    /// well have promised never to: some proposer who prepared a higher ballot here may count on that. So it is no vote for it,
    /// neither for who reads nor for who has it accepted, before something is accepted here again. The very proposal may be, as long as
    /// `floor` is not above it: the highest of what the others promised for the sake of anything else.
    ///
    /// The rounds that it took part in before have to be over: an answer of then, counted together with one that another gives
    /// only after it was asked here, is one that nobody told of.
    pub fn relearned(
        quorum: Quorum,
        promised: Ballot,
        accepted: Option<Accepted<V>>,
        floor: Ballot,
        holders: usize,
    ) -> Acceptor<V> {
        let learned = accepted.as_ref().filter(|_| holders < quorum.needed);
        let learned = learned.map(|accepted| floor.max(accepted.ballot));
        Acceptor { promised, accepted, learned }
    }

    /// Promises to accept nothing below `ballot`. The answer is [`Acceptor::accepted`] as it stands.
    ///
    /// A repeated prepare is promised again: the network may have duplicated it, or lost the answer.
    ///
    /// # Errors
    /// [`Rejected::Conflict`] if a higher ballot was promised, or that the ballot is of another epoch.
    pub fn on_prepare(&mut self, ballot: Ballot) -> Result<(), Rejected> {
        match ballot.epoch.cmp(&self.epoch()) {
            Ordering::Less => return Err(Rejected::Past),
            Ordering::Greater => return Err(Rejected::Behind),
            Ordering::Equal => {}
        }
        if ballot < self.promised {
            return Err(Rejected::Conflict { promised: self.promised });
        }
        self.promised = ballot;
        Ok(())
    }

    /// Accepts `value` under `ballot` and, with `next`, promises that higher ballot in the same breath, as if its
    /// prepare had followed at once. Returns what is promised now: if that is `next`, then the proposer may count
    /// this member as prepared.
    ///
    /// A repeated accept is confirmed again and changes nothing. One of a later epoch takes the acceptor there: whoever
    /// calls this has seen that the epoch has begun.
    ///
    /// # Errors
    /// [`Rejected`].
    pub fn on_accept(&mut self, ballot: Ballot, value: V, next: Option<Ballot>) -> Result<Ballot, Rejected> {
        if let Some(accepted) = self.accepted.as_ref().filter(|accepted| accepted.ballot == ballot) {
            if accepted.value.identity() != value.identity() {
                return Err(Rejected::Equivocation);
            }
            // A duplicate, whatever was promised since; but what was learned was not accepted here.
            if self.learned.is_some_and(|floor| ballot < floor) {
                return Err(Rejected::Conflict { promised: self.promised });
            }
            self.learned = None;
            return Ok(self.promised);
        }
        if ballot.epoch < self.epoch() {
            return Err(Rejected::Past);
        }
        if ballot < self.promised {
            return Err(Rejected::Conflict { promised: self.promised });
        }
        if self.accepted.as_ref().is_some_and(|accepted| !value.may_replace(&accepted.value)) {
            return Err(Rejected::Unchained);
        }
        self.promised = next.unwrap_or(ballot).max(ballot);
        self.accepted = Some(Accepted { ballot, value });
        self.learned = None;
        Ok(self.promised)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::paxos::ProposerId;

    fn ballot(round: u64, proposer: u8) -> Ballot {
        Ballot { round, proposer: ProposerId([proposer; 16]), ..Ballot::ZERO }
    }

    /// A letter follows the one before it in the alphabet.
    impl Value for char {
        type Identity = char;

        fn identity(&self) -> char {
            *self
        }

        fn may_replace(&self, accepted: &char) -> bool {
            *self as u32 + 1 >= *accepted as u32
        }
    }

    #[test]
    fn one_ballot_never_has_two_values() {
        let mut acceptor = Acceptor::default();
        acceptor.on_accept(ballot(1, 1), 'x', None).unwrap();
        assert_eq!(acceptor.on_accept(ballot(1, 1), 'y', None), Err(Rejected::Equivocation));
        assert_eq!(acceptor.accepted, Some(Accepted { ballot: ballot(1, 1), value: 'x' }));
    }

    #[test]
    fn what_does_not_continue_the_chain_is_refused_under_any_ballot() {
        let mut acceptor = Acceptor::default();
        acceptor.on_accept(ballot(1, 1), 'x', None).unwrap();
        assert_eq!(acceptor.on_accept(ballot(9, 1), 'a', None), Err(Rejected::Unchained));
        assert_eq!(acceptor.promised, ballot(1, 1));
        acceptor.on_accept(ballot(9, 1), 'w', None).unwrap();
    }

    #[test]
    fn a_promise_keeps_lower_ballots_out() {
        let mut acceptor = Acceptor::default();
        acceptor.on_prepare(ballot(2, 1)).unwrap();
        assert_eq!(acceptor.on_prepare(ballot(1, 9)), Err(Rejected::Conflict { promised: ballot(2, 1) }));
        assert_eq!(
            acceptor.on_accept(ballot(1, 9), 'x', None),
            Err(Rejected::Conflict { promised: ballot(2, 1) })
        );
        assert_eq!(acceptor.on_accept(ballot(2, 1), 'y', None), Ok(ballot(2, 1)));
        assert_eq!(acceptor.accepted, Some(Accepted { ballot: ballot(2, 1), value: 'y' }));
    }

    #[test]
    fn an_accept_that_carries_the_next_prepare_saves_its_round() {
        let mut acceptor = Acceptor::default();
        acceptor.on_prepare(ballot(1, 1)).unwrap();
        assert_eq!(acceptor.on_accept(ballot(1, 1), 'x', Some(ballot(2, 1))), Ok(ballot(2, 1)));
        assert!(acceptor.on_prepare(ballot(1, 2)).is_err());
        assert_eq!(acceptor.on_accept(ballot(2, 1), 'y', Some(ballot(3, 1))), Ok(ballot(3, 1)));
    }

    #[test]
    fn a_duplicate_is_confirmed_and_changes_nothing() {
        let mut acceptor = Acceptor::default();
        acceptor.on_accept(ballot(1, 1), 'x', None).unwrap();
        acceptor.on_prepare(ballot(5, 2)).unwrap();
        let before = acceptor.clone();
        assert_eq!(acceptor.on_accept(ballot(1, 1), 'x', Some(ballot(2, 1))), Ok(ballot(5, 2)));
        assert_eq!(acceptor.on_prepare(ballot(5, 2)), Ok(()));
        assert_eq!(acceptor, before);
    }

    #[test]
    fn a_later_epoch_is_entered_with_a_value_and_an_earlier_one_never_again() {
        let mut acceptor = Acceptor::default();
        acceptor.on_accept(ballot(7, 1), 'x', None).unwrap();
        let next = |round| Ballot { epoch: 1, ..ballot(round, 1) };
        assert_eq!(acceptor.on_prepare(next(1)), Err(Rejected::Behind));
        assert_eq!(acceptor.promised, ballot(7, 1));
        assert_eq!(acceptor.on_accept(Ballot::first(1), 'x', None), Ok(Ballot::first(1)));
        acceptor.on_prepare(next(1)).unwrap();
        assert_eq!(acceptor.on_prepare(ballot(9, 1)), Err(Rejected::Past));
        assert_eq!(acceptor.on_accept(ballot(9, 1), 'y', None), Err(Rejected::Past));
        // What it missed it is given late, and takes no step back for it.
        assert_eq!(
            acceptor.on_accept(Ballot::first(1), 'x', None),
            Ok(next(1)),
            "a duplicate of what it accepted"
        );
        let mut retired = Acceptor::<char>::default();
        retired.on_accept(ballot(7, 1), 'x', None).unwrap();
        retired.retire(1);
        assert_eq!(retired.on_prepare(ballot(9, 1)), Err(Rejected::Past));
        assert_eq!(retired.accepted, Some(Accepted { ballot: ballot(7, 1), value: 'x' }));
    }

    #[test]
    fn what_was_learned_is_accepted_only_as_far_as_was_promised() {
        let learned = |floor, holders| {
            let accepted = Accepted { ballot: ballot(5, 1), value: 'x' };
            Acceptor::relearned(Quorum::majority(3), ballot(9, 2), Some(accepted), floor, holders)
        };
        let mut acceptor = learned(ballot(9, 2), 1);
        let conflict = Rejected::Conflict { promised: ballot(9, 2) };
        assert_eq!(acceptor.on_accept(ballot(5, 1), 'x', None), Err(conflict), "somebody counts on that");
        assert_eq!(acceptor.on_accept(ballot(5, 1), 'y', None), Err(Rejected::Equivocation));
        assert!(acceptor.learned.is_some());
        acceptor.on_accept(ballot(9, 2), 'x', None).unwrap();
        assert!(acceptor.learned.is_none());
        // Nobody asked for more but its own proposer, or it was chosen without this one.
        for (floor, holders) in [(ballot(5, 1), 1), (ballot(9, 2), 2)] {
            let mut acceptor = learned(floor, holders);
            assert_eq!(acceptor.learned.is_none(), holders == 2);
            assert_eq!(acceptor.on_accept(ballot(5, 1), 'x', Some(ballot(9, 2))), Ok(ballot(9, 2)));
            assert!(acceptor.learned.is_none());
        }
    }

    #[test]
    fn a_next_ballot_below_the_accepted_one_is_ignored() {
        let mut acceptor = Acceptor::default();
        assert_eq!(acceptor.on_accept(ballot(4, 1), 'x', Some(ballot(2, 1))), Ok(ballot(4, 1)));
    }
}
