//! Ballots: what orders the attempts of all proposers.
//!
//! A ballot is used by one proposer for one attempt, ever. The proposer's half is drawn at random each time a client
//! starts, so that a client that forgot which rounds it used can't use one twice.

use std::fmt;

use serde::{Deserialize, Serialize};

/// One run of one client. Random, never reused.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct ProposerId(#[serde(with = "serde_bytes")] pub [u8; 16]);

/// The number of an attempt. Ordered by epoch, then by round, then by proposer, so no two proposers share one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
pub struct Ballot {
    /// Counts the register's replica sets. Above all else: whatever a new set decides is later.
    pub epoch: u64,
    /// Counts attempts.
    pub round: u64,
    /// Whose attempt it is.
    pub proposer: ProposerId,
}

impl Ballot {
    /// Below every ballot that is ever used: what an acceptor has promised at the start.
    pub const ZERO: Ballot = Ballot { epoch: 0, round: 0, proposer: ProposerId([0; 16]) };

    /// The first ballot of an epoch: the one under which its members are given the value that the epoch before ended with.
    pub const fn first(epoch: u64) -> Ballot {
        Ballot { epoch, ..Ballot::ZERO }
    }

    /// The lowest round above this one, as `proposer`'s.
    ///
    /// A round saturates instead of wrapping, so that nobody can make ballots go backwards.
    pub fn successor(&self, proposer: ProposerId) -> Ballot {
        Ballot { round: self.round.saturating_add(1), proposer, ..*self }
    }
}

impl fmt::Debug for ProposerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        crate::address::write_hex(&self.0[..4], f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_successor_is_above_every_ballot_of_the_round() {
        let low = ProposerId([0; 16]);
        let high = ProposerId([0xff; 16]);
        let ballot = Ballot { round: 3, proposer: high, ..Ballot::ZERO };
        assert!(ballot.successor(low) > ballot);
        assert!(Ballot::ZERO < Ballot::ZERO.successor(low));
        assert!(Ballot { round: u64::MAX, ..Ballot::ZERO }.successor(low).round == u64::MAX);
    }
}
