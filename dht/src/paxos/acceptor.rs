//! What one node remembers of one register, and what it refuses.
//!
//! The caller must make the state durable before it sends an answer that follows from it, reads included: an answer
//! from memory that a crash takes back could have completed somebody's quorum.
//!
//! Not here: whether a value's signatures hold; a node checks that before it asks the acceptor.

use serde::{Deserialize, Serialize};

use crate::paxos::Ballot;

/// A value and the ballot under which it was accepted.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Accepted<V> {
    /// The ballot.
    pub ballot: Ballot,
    /// The value.
    pub value: V,
}

/// Refused: somebody was promised a higher ballot.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, thiserror::Error)]
#[error("round {} was promised already", promised.round)]
pub struct Conflict {
    /// The ballot to exceed.
    pub promised: Ballot,
}

/// A node's part in one register.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Acceptor<V> {
    /// Nothing below this ballot will be accepted any more. Never decreases.
    pub promised: Ballot,
    /// The last value accepted.
    pub accepted: Option<Accepted<V>>,
}

impl<V> Default for Acceptor<V> {
    fn default() -> Self {
        Acceptor { promised: Ballot::ZERO, accepted: None }
    }
}

impl<V> Acceptor<V> {
    /// Promises to accept nothing below `ballot`. The answer is [`Acceptor::accepted`] as it stands.
    ///
    /// A repeated prepare is promised again: the network may have duplicated it, or lost the answer.
    ///
    /// # Errors
    /// [`Conflict`] if a higher ballot was promised.
    pub fn on_prepare(&mut self, ballot: Ballot) -> Result<(), Conflict> {
        if ballot < self.promised {
            return Err(Conflict { promised: self.promised });
        }
        self.promised = ballot;
        Ok(())
    }

    /// Accepts `value` under `ballot` and, with `next`, promises that higher ballot in the same breath, as if its
    /// prepare had followed at once. Returns what is promised now: if that is `next`, then the proposer may count
    /// this member as prepared.
    ///
    /// A repeated accept is confirmed again and changes nothing.
    ///
    /// # Errors
    /// [`Conflict`] if a higher ballot was promised.
    pub fn on_accept(&mut self, ballot: Ballot, value: V, next: Option<Ballot>) -> Result<Ballot, Conflict> {
        if self.accepted.as_ref().is_some_and(|accepted| accepted.ballot == ballot) {
            // One ballot proposes one value, so this is a duplicate, whatever was promised since.
            return Ok(self.promised);
        }
        if ballot < self.promised {
            return Err(Conflict { promised: self.promised });
        }
        self.promised = next.unwrap_or(ballot).max(ballot);
        self.accepted = Some(Accepted { ballot, value });
        Ok(self.promised)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::paxos::ProposerId;

    fn ballot(round: u64, proposer: u8) -> Ballot {
        Ballot { round, proposer: ProposerId([proposer; 16]) }
    }

    #[test]
    fn a_promise_keeps_lower_ballots_out() {
        let mut acceptor = Acceptor::default();
        acceptor.on_prepare(ballot(2, 1)).unwrap();
        assert_eq!(acceptor.on_prepare(ballot(1, 9)), Err(Conflict { promised: ballot(2, 1) }));
        assert_eq!(acceptor.on_accept(ballot(1, 9), 'x', None), Err(Conflict { promised: ballot(2, 1) }));
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
    fn a_next_ballot_below_the_accepted_one_is_ignored() {
        let mut acceptor = Acceptor::default();
        assert_eq!(acceptor.on_accept(ballot(4, 1), 'x', Some(ballot(2, 1))), Ok(ballot(4, 1)));
    }
}
