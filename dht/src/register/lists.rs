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
//! - *In force*: where somebody on the list says that it is in force, no waiting is needed: what was proposed without it
//!   under a higher ballot than it has been in force since was chosen by nobody ([`InForce`]), and what else the member has that
//!   shows it is from before. So a member that was cut off while a writer was put out, and that took something from him
//!   since, can be made to give up neither what others wrote nor its part in the rounds: told that the list is in force,
//!   it forgets what it promised and accepted without it ([`crate::node`]).
//! - *After a move* no waiting is needed either: the owner's word that begins an epoch says which list was the newest,
//!   and its members take nothing that goes by an older one ([`crate::block::configuration`]).
//! - *What remains*: of a list that is newer than the epoch nobody says that it is in force until the first proposal after that
//!   with which it came has reached a quorum (whoever has the list chosen makes one at once). If one of the others does not answer
//!   either then, nobody can tell whether what a member that missed the list took meanwhile was chosen, and it is gone on with,
//!   in the place of what was chosen. And members of an epoch before, of which a majority has heard neither of the move nor of a
//!   list that is younger, take what he signs for that.
//! - A member that lies can hide what it accepted: what then seems to be at too few is left out, though it and another had it.
//!   It takes a list that was not chosen and that puts out whoever wrote that.
//!
//! Not here: what an acceptor refuses by itself.

use crate::block::mutable::{AccessList, Genesis};
use crate::block::proposal::{InForce, Proposed};
use crate::block::signed::Signed;
use crate::paxos::{Ballot, Quorum, Value, Voters};

/// What whoever goes on with a round knows of lists of writers. A trait, since the model in [`crate::paxos`] decides by the
/// same rules over values of its own.
pub(crate) trait Lists<V> {
    /// Under which ballot a value was accepted.
    fn ballot(&self, value: &V) -> Ballot;

    /// Whether the newest list does not name somebody who has a hand in it.
    fn puts_out(&self, value: &V) -> bool;

    /// Whether it was made without a list that was in force by then.
    fn voids(&self, value: &V) -> bool;
}

/// The lists of a register.
pub(crate) struct Known<'a> {
    pub(crate) genesis: &'a Signed<Genesis>,
    /// The newest that was met.
    pub(crate) list: Option<&'a Signed<AccessList>>,
    /// The newest that is known to be in force.
    pub(crate) in_force: Option<InForce>,
}

impl Lists<Proposed> for Known<'_> {
    fn ballot(&self, value: &Proposed) -> Ballot {
        value.proposal.ballot
    }

    fn puts_out(&self, value: &Proposed) -> bool {
        value.is_off_the_list(self.genesis, self.list)
    }

    fn voids(&self, value: &Proposed) -> bool {
        self.in_force.is_some_and(|in_force| in_force.voids(&value.proposal))
    }
}

/// What the members of one round have accepted, as far as they have answered.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Met<V> {
    quorum: Quorum,
    answered: Voters,
    accepted: Vec<V>,
}

impl<V: Value> Met<V> {
    pub(crate) fn new(quorum: Quorum) -> Met<V> {
        Met { quorum, answered: Voters::default(), accepted: Vec::new() }
    }

    /// The member at `index` has answered: this is what it has accepted. An answer that comes twice is one member's: to count it
    /// as another's, who has not answered, would be to say that this one does not hold the latest value.
    pub(crate) fn enter(&mut self, index: usize, accepted: Option<&V>) {
        if !self.answered.contains(index) {
            self.answered.add(index);
            self.accepted.extend(accepted.cloned());
        }
    }

    /// Whether further answers could show that `latest` is to be left out.
    pub(crate) fn is_in_doubt(&self, latest: &V, lists: &impl Lists<V>) -> bool {
        lists.puts_out(latest) && !lists.voids(latest) && self.may_be_chosen(latest, lists)
    }

    /// What to go on with, if nobody else answers: `latest`, which has the highest ballot, or what comes after it.
    pub(crate) fn decide(&self, latest: V, lists: &impl Lists<V>) -> V {
        let is_left_out =
            |value: &V| lists.voids(value) || lists.puts_out(value) && !self.may_be_chosen(value, lists);
        let mut decided = latest;
        while is_left_out(&decided) {
            let ballot = lists.ballot(&decided);
            let below = self.accepted.iter().filter(|other| lists.ballot(other) < ballot);
            match below.max_by_key(|other| lists.ballot(other)) {
                Some(next) => decided = next.clone(),
                None => break,
            }
        }
        decided
    }

    fn may_be_chosen(&self, value: &V, lists: &impl Lists<V>) -> bool {
        // What was accepted under a higher ballot was left out before. It took the place of whatever its member held, which may
        // have been this value.
        let ballot = lists.ballot(value);
        let may_have_held = |other: &&V| other.identity() == value.identity() || lists.ballot(other) > ballot;
        let holders = self.accepted.iter().filter(may_have_held).count();
        let silent = self.quorum.members - self.answered.count();
        holders + silent >= self.quorum.needed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What was accepted in a round, and whether somebody has a hand in it who was put out.
    #[derive(Clone, PartialEq, Debug)]
    struct Held {
        round: u64,
        is_off: bool,
    }

    impl Value for Held {
        type Identity = u64;

        fn identity(&self) -> u64 {
            self.round
        }

        fn may_replace(&self, _: &Held) -> bool {
            true
        }
    }

    struct Newest;

    impl Lists<Held> for Newest {
        fn ballot(&self, value: &Held) -> Ballot {
            Ballot { round: value.round, ..Ballot::ZERO }
        }

        fn puts_out(&self, value: &Held) -> bool {
            value.is_off
        }

        fn voids(&self, _: &Held) -> bool {
            false
        }
    }

    #[test]
    fn an_answer_that_comes_twice_does_not_leave_out_what_may_be_chosen() {
        let with_list = Held { round: 4, is_off: false };
        let from_before = Held { round: 5, is_off: true };
        let mut met = Met::new(Quorum::majority(3));
        met.enter(0, Some(&with_list));
        met.enter(1, Some(&from_before));
        met.enter(0, Some(&with_list));
        // The third member may hold it too.
        assert!(met.is_in_doubt(&from_before, &Newest));
        assert_eq!(met.decide(from_before.clone(), &Newest), from_before);
        met.enter(2, None);
        assert!(!met.is_in_doubt(&from_before, &Newest));
        assert_eq!(met.decide(from_before, &Newest), with_list);
    }
}
