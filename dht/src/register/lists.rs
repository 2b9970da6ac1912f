//! What a round goes on with where its members know different lists of writers.
//!
//! A round goes on with what was accepted under the highest ballot, since only that can have been chosen. Paxos rests on
//! proposers that prepare what they propose. Who was put out need not: with one member that lies, or that was cut off while he
//! was put out, he has a record accepted under any ballot he likes, from before the list that does not name him. A writer
//! that has yet to hear of the list would have that record chosen in the place of the one with which he was put out.
//!
//! So where the newest list that a round has met does not name whoever has a hand in the latest value ([`Proposed::is_off_the_list`]),
//! nobody's ballot is evidence any more, and what counts is who holds what. The round waits for the rest of the members. If
//! too few hold the value, with all those who did not answer, for it to have been chosen, it was not: the round goes on with what
//! was accepted under the highest ballot below it.
//!
//! - *Safe*, as long as members do not lie: who accepted a value shows it, or what took its place. Of the value under the highest
//!   ballot nothing has taken the place, so those who show it are all who hold it; of each below, whoever shows one that was left
//!   out before counts as a holder, too. What then has too few was accepted by no quorum, whoever made it, and the round goes on
//!   as one of other members would have gone on.
//! - *Live*: a value that may have been chosen is never left out, whoever wrote it: it is proposed again under the newest list,
//!   which every acceptor takes ([`crate::node`]). So a list that reached too few to be chosen stops neither its acceptor nor
//!   the others, though all of them go on from a value of somebody's whom it puts out.
//! - *What remains*: where a member that was cut off took a value of somebody who was put out, and one of the others does not
//!   answer, nobody can tell whether that was chosen, and it is gone on with. The list stays in force, but all that was written
//!   since, also by others, is replaced by his value. Whoever saw some of it is told, unless that value is many versions
//!   further on, as its writer may choose. He can also have such a member promise a ballot, or accept a version, so far ahead
//!   that it takes no part in the rounds of others any more, until another one is put in its place.
//! - A member that lies can hide what it accepted: what then seems to be at too few is left out, though it and another had it.
//!   It takes a list that was not chosen and that puts out whoever wrote that.
//!
//! Not here: what an acceptor refuses by itself.

use crate::block::configuration::Membership;
use crate::block::mutable::{AccessList, Genesis, Signed};
use crate::block::proposal::Proposed;
use crate::paxos::{Quorum, Value};

/// What the members of one round have accepted, as far as they have answered.
pub(crate) struct Met {
    genesis: Signed<Genesis>,
    quorum: Quorum,
    answer_count: usize,
    accepted: Vec<Proposed>,
}

impl Met {
    pub(crate) fn new(membership: &Membership) -> Met {
        let genesis = membership.genesis.clone();
        Met { genesis, quorum: membership.quorum(), answer_count: 0, accepted: Vec::new() }
    }

    /// A member has answered: this is what it has accepted.
    pub(crate) fn enter(&mut self, accepted: Option<&Proposed>) {
        self.answer_count += 1;
        self.accepted.extend(accepted.cloned());
    }

    /// Whether further answers could show that `latest` is to be left out. `list` is the newest one that is known.
    pub(crate) fn is_in_doubt(&self, latest: &Proposed, list: Option<&Signed<AccessList>>) -> bool {
        latest.is_off_the_list(&self.genesis, list) && self.may_be_chosen(latest)
    }

    /// What to go on with, if nobody else answers: `latest`, which has the highest ballot, or what comes after it.
    pub(crate) fn decide(&self, latest: Proposed, list: Option<&Signed<AccessList>>) -> Proposed {
        let mut decided = latest;
        while decided.is_off_the_list(&self.genesis, list) && !self.may_be_chosen(&decided) {
            let ballot = decided.proposal.ballot;
            let below = self.accepted.iter().filter(|other| other.proposal.ballot < ballot);
            match below.max_by_key(|other| other.proposal.ballot) {
                Some(next) => decided = next.clone(),
                None => break,
            }
        }
        decided
    }

    fn may_be_chosen(&self, value: &Proposed) -> bool {
        // What was accepted under a higher ballot was left out before. It took the place of whatever its member held, which may
        // have been this value.
        let ballot = value.proposal.ballot;
        let may_have_held =
            |other: &&Proposed| other.identity() == value.identity() || other.proposal.ballot > ballot;
        let holders = self.accepted.iter().filter(may_have_held).count();
        holders + (self.quorum.members - self.answer_count.min(self.quorum.members)) >= self.quorum.needed
    }
}
