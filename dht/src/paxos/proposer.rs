//! What a client may conclude from the acceptors' answers.
//!
//! [`Proposer`] lives as long as the client and knows which ballot comes next; [`Preparing`], [`Accepting`] and
//! [`Reading`] live for one round each. They are told of every answer (`on_*`) and asked for a [`Verdict`].
//!
//! Not here: sending, waiting, retrying (see [`crate::register`]).

use crate::paxos::{Accepted, Ballot, ProposerId, Quorum, Value, Voters};

/// What a round has come to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verdict<T> {
    /// Ask again after the next answer.
    Pending,
    /// A quorum has answered.
    Done(T),
    /// A quorum is no longer possible: too many refused or failed.
    Failed,
}

/// How a write begins.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Start<V> {
    /// A quorum promised `ballot` along with our last accept: propose the successor of `current` at once.
    Accept {
        /// The ballot promised.
        ballot: Ballot,
        /// The chosen value: our last.
        current: V,
    },
    /// Prepare `ballot` first.
    Prepare(Ballot),
}

/// One client's proposer for one register.
#[derive(Clone, PartialEq, Eq, Debug, Hash)]
pub struct Proposer<V> {
    id: ProposerId,
    highest: Ballot,
    ready: Option<(Ballot, V)>,
}

impl<V: Clone> Proposer<V> {
    /// A proposer that knows nothing yet.
    pub fn new(id: ProposerId) -> Proposer<V> {
        Proposer { id, highest: Ballot::ZERO, ready: None }
    }

    /// A proposer that knows of a ballot.
    pub fn above(id: ProposerId, known: Ballot) -> Proposer<V> {
        Proposer { id, highest: known, ready: None }
    }

    /// The highest ballot that this proposer has used or heard of.
    pub fn highest(&self) -> Ballot {
        self.highest
    }

    /// Begins an attempt. A prepared ballot is used up by this call, whatever comes of it.
    pub fn begin(&mut self) -> Start<V> {
        match self.ready.take() {
            Some((ballot, current)) => Start::Accept { ballot, current },
            None => Start::Prepare(self.next_ballot()),
        }
    }

    /// A ballot above all that this proposer has used or heard of.
    pub fn next_ballot(&mut self) -> Ballot {
        self.highest = self.highest.successor(self.id);
        self.highest
    }

    /// An acceptor has promised a higher ballot, and has shown who asked for it. The next ballot is above that one by
    /// `lead` rounds, so that a busy writer, which goes up by one with each swap, is not above it again by the time that
    /// it arrives.
    ///
    /// A ballot of another epoch says nothing about this one.
    pub fn on_conflict(&mut self, promised: Ballot, lead: u64) {
        if promised.epoch == self.highest.epoch && promised >= self.highest {
            self.highest = Ballot { round: promised.round.saturating_add(lead), ..promised };
        }
    }

    /// Goes on in a later epoch, which knows nothing of what was promised in those before.
    pub fn enter(&mut self, epoch: u64) {
        if epoch > self.highest.epoch {
            self.highest = Ballot::first(epoch);
            self.ready = None;
        }
    }

    /// Whether this proposer is to use a ballot.
    pub fn is_mine(&self, ballot: Ballot) -> bool {
        ballot.proposer == self.id
    }

    /// `value` was chosen, and a quorum promised `next` to us. Only ever with the verdict of [`Accepting`].
    pub fn on_prepared(&mut self, next: Ballot, value: V) {
        self.ready = Some((next, value));
    }

    /// Forgets a prepared ballot, so that the next attempt asks the acceptors.
    pub fn forget(&mut self) {
        self.ready = None;
    }

    /// The value that a prepared ballot would build on.
    pub fn ready(&self) -> Option<&V> {
        self.ready.as_ref().map(|(_, value)| value)
    }
}

/// The first round of a write: prepares of one ballot are out.
#[derive(Clone, PartialEq, Eq, Debug, Hash)]
pub struct Preparing<V> {
    quorum: Quorum,
    promised: Voters,
    lost: Voters,
    /// What the members that promised had accepted.
    accepted: Vec<Accepted<V>>,
}

impl<V: Value> Preparing<V> {
    /// Nobody has answered yet.
    pub fn new(quorum: Quorum) -> Preparing<V> {
        Preparing { quorum, promised: Voters::default(), lost: Voters::default(), accepted: Vec::new() }
    }

    /// The member at `index` promised; this is what it has accepted.
    pub fn on_promise(&mut self, index: usize, accepted: Option<Accepted<V>>) {
        if !self.promised.contains(index) {
            self.promised.add(index);
            self.accepted.extend(accepted);
        }
    }

    /// The member at `index` refused or failed.
    pub fn on_loss(&mut self, index: usize) {
        self.lost.add(index);
    }

    #[cfg(test)]
    pub(crate) fn has_heard(&self, index: usize) -> bool {
        self.promised.contains(index)
    }

    /// With a quorum of promises: the value to build on, the one accepted under the highest ballot.
    ///
    /// Where a dishonest proposer had two values accepted under that ballot, it is the one that a quorum has, if there is
    /// one: see [`Preparing::fork`].
    pub fn verdict(&self) -> Verdict<Option<V>> {
        if self.quorum.reached_by(self.promised) {
            let highest = self.accepted.iter().map(|accepted| accepted.ballot).max();
            let latest = self.accepted.iter().filter(|accepted| Some(accepted.ballot) == highest);
            if fork_of(latest.clone()).is_none() {
                return Verdict::Done(latest.map(|accepted| accepted.value.clone()).next());
            }
            for candidate in latest.clone() {
                let same = |other: &&Accepted<V>| other.value.identity() == candidate.value.identity();
                if latest.clone().filter(same).count() >= self.quorum.needed {
                    return Verdict::Done(Some(candidate.value.clone()));
                }
            }
            let open = self.quorum.members - self.promised.union(self.lost).count();
            return if open > 0 { Verdict::Pending } else { Verdict::Failed };
        }
        if self.quorum.possible_without(self.lost) { Verdict::Pending } else { Verdict::Failed }
    }

    /// Two values that were accepted under one ballot: the proof of their proposer's dishonesty.
    pub fn fork(&self) -> Option<(V, V)> {
        fork_of(self.accepted.iter())
    }
}

/// Two values under one ballot among `accepted`.
fn fork_of<'a, V: Value + 'a>(accepted: impl Iterator<Item = &'a Accepted<V>> + Clone) -> Option<(V, V)> {
    for one in accepted.clone() {
        let other = accepted
            .clone()
            .find(|other| other.ballot == one.ballot && other.value.identity() != one.value.identity());
        if let Some(other) = other {
            return Some((one.value.clone(), other.value.clone()));
        }
    }
    None
}

/// The second round of a write: accepts of one value under one ballot are out.
#[derive(Clone, PartialEq, Eq, Debug, Hash)]
pub struct Accepting {
    quorum: Quorum,
    next: Ballot,
    accepted: Voters,
    prepared: Voters,
    lost: Voters,
}

impl Accepting {
    /// Nobody has answered yet; the accepts carry the prepare of `next`.
    pub fn new(quorum: Quorum, next: Ballot) -> Accepting {
        let none = Voters::default();
        Accepting { quorum, next, accepted: none, prepared: none, lost: none }
    }

    /// The member at `index` accepted, and has promised `promised`.
    pub fn on_accepted(&mut self, index: usize, promised: Ballot) {
        self.accepted.add(index);
        if promised == self.next {
            self.prepared.add(index);
        }
    }

    /// The member at `index` refused or failed.
    pub fn on_loss(&mut self, index: usize) {
        self.lost.add(index);
    }

    #[cfg(test)]
    pub(crate) fn has_heard(&self, index: usize) -> bool {
        self.accepted.contains(index)
    }

    /// With a quorum of acceptances the value is chosen; the verdict says whether the next ballot is prepared too.
    pub fn verdict(&self) -> Verdict<bool> {
        if self.quorum.reached_by(self.accepted) {
            return Verdict::Done(self.quorum.reached_by(self.prepared));
        }
        if self.quorum.possible_without(self.lost) { Verdict::Pending } else { Verdict::Failed }
    }
}

/// A read: every member is asked what it has accepted.
///
/// If a quorum names the *same ballot and value*, it is chosen and nothing newer was acknowledged before the read began:
/// the newer one's quorum would share a member with this one. The same value under two ballots does not suffice: it
/// may be on its way to being replaced by a third that neither of them has seen.
#[derive(Clone, PartialEq, Eq, Debug, Hash)]
pub struct Reading<V> {
    quorum: Quorum,
    answered: Voters,
    lost: Voters,
    answers: Vec<Option<Accepted<V>>>,
    learned: Vec<Accepted<V>>,
}

impl<V: Value> Reading<V> {
    /// Nobody has answered yet.
    pub fn new(quorum: Quorum) -> Reading<V> {
        Reading {
            quorum,
            answered: Voters::default(),
            lost: Voters::default(),
            answers: Vec::new(),
            learned: Vec::new(),
        }
    }

    /// The member at `index` has accepted this.
    pub fn on_answer(&mut self, index: usize, accepted: Option<Accepted<V>>) {
        if !self.answered.contains(index) {
            self.answered.add(index);
            self.answers.push(accepted);
        }
    }

    /// The member at `index` shows what others have accepted ([`Acceptor::relearned`](crate::paxos::Acceptor::relearned)):
    /// it has answered, and is nobody who has accepted that.
    pub fn on_learned(&mut self, index: usize, accepted: Accepted<V>) {
        if !self.answered.contains(index) {
            self.answered.add(index);
            self.learned.push(accepted);
        }
    }

    /// The member at `index` failed.
    pub fn on_loss(&mut self, index: usize) {
        self.lost.add(index);
    }

    /// How many have answered.
    pub fn answer_count(&self) -> usize {
        self.answered.count()
    }

    #[cfg(test)]
    pub(crate) fn has_heard(&self, index: usize) -> bool {
        self.answered.contains(index)
    }

    #[cfg(test)]
    pub(crate) fn answers(&self) -> &[Option<Accepted<V>>] {
        &self.answers
    }

    /// Whether a quorum answered, though it may not agree: then a write-back can settle it.
    pub fn has_quorum(&self) -> bool {
        self.quorum.reached_by(self.answered)
    }

    /// Two values that were accepted under one ballot: the proof of their proposer's dishonesty.
    pub fn fork(&self) -> Option<(V, V)> {
        fork_of(self.answers.iter().flatten().chain(&self.learned))
    }

    /// What was accepted under the highest ballot that anybody named.
    pub fn latest(&self) -> Option<&Accepted<V>> {
        self.answers.iter().flatten().chain(&self.learned).max_by_key(|accepted| accepted.ballot)
    }

    /// The value that a quorum agrees on. `Failed` means: settle it by a write-back.
    pub fn verdict(&self) -> Verdict<Option<V>> {
        let key = |answer: &Option<Accepted<V>>| {
            answer.as_ref().map(|accepted| (accepted.ballot, accepted.value.identity()))
        };
        for answer in &self.answers {
            let same = |other: &&Option<Accepted<V>>| key(other) == key(answer);
            if self.answers.iter().filter(same).count() >= self.quorum.needed {
                return Verdict::Done(answer.as_ref().map(|accepted| accepted.value.clone()));
            }
        }
        let open = self.quorum.members - self.answered.union(self.lost).count();
        if open > 0 { Verdict::Pending } else { Verdict::Failed }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ME: ProposerId = ProposerId([1; 16]);

    fn ballot(round: u64) -> Ballot {
        Ballot { round, proposer: ME, ..Ballot::ZERO }
    }

    fn accepted(round: u64, value: char) -> Option<Accepted<char>> {
        Some(Accepted { ballot: ballot(round), value })
    }

    #[test]
    fn a_write_builds_on_the_value_with_the_highest_ballot() {
        let mut preparing = Preparing::new(Quorum::majority(3));
        preparing.on_promise(0, accepted(2, 'b'));
        assert_eq!(preparing.verdict(), Verdict::Pending);
        preparing.on_promise(2, accepted(1, 'a'));
        assert_eq!(preparing.verdict(), Verdict::Done(Some('b')));
    }

    #[test]
    fn two_losses_of_three_end_a_round() {
        let mut accepting = Accepting::new(Quorum::majority(3), ballot(2));
        accepting.on_loss(0);
        accepting.on_accepted(1, ballot(2));
        assert_eq!(accepting.verdict(), Verdict::Pending);
        accepting.on_loss(2);
        assert_eq!(accepting.verdict(), Verdict::Failed);
    }

    #[test]
    fn the_next_ballot_counts_as_prepared_only_if_a_quorum_promised_it() {
        let mut accepting = Accepting::new(Quorum::majority(3), ballot(2));
        accepting.on_accepted(0, ballot(2));
        accepting.on_accepted(1, ballot(9));
        assert_eq!(accepting.verdict(), Verdict::Done(false));
        accepting.on_accepted(2, ballot(2));
        assert_eq!(accepting.verdict(), Verdict::Done(true));
    }

    #[test]
    fn a_read_believes_a_quorum_of_one_ballot_and_nothing_less() {
        let mut reading = Reading::new(Quorum::majority(3));
        reading.on_answer(0, accepted(2, 'b'));
        reading.on_answer(1, accepted(1, 'b'));
        assert_eq!(reading.verdict(), Verdict::Pending);
        reading.on_loss(2);
        assert_eq!(reading.verdict(), Verdict::Failed);
        assert!(reading.has_quorum());
        let mut reading = Reading::new(Quorum::majority(3));
        reading.on_answer(0, accepted(2, 'b'));
        reading.on_answer(1, accepted(1, 'a'));
        reading.on_answer(2, accepted(2, 'b'));
        assert_eq!(reading.verdict(), Verdict::Done(Some('b')));
    }

    #[test]
    fn what_a_member_has_learned_is_shown_to_a_read_and_no_vote() {
        let mut reading = Reading::new(Quorum::majority(3));
        reading.on_answer(0, accepted(2, 'b'));
        reading.on_learned(1, accepted(2, 'b').unwrap());
        assert!(reading.has_quorum() && reading.verdict() == Verdict::Pending);
        let mut alone = reading.clone();
        alone.on_loss(2);
        assert_eq!(alone.verdict(), Verdict::Failed, "to be settled by a write-back");
        assert_eq!(alone.latest(), accepted(2, 'b').as_ref());
        reading.on_answer(2, accepted(2, 'b'));
        assert_eq!(reading.verdict(), Verdict::Done(Some('b')));
    }

    #[test]
    fn two_values_under_one_ballot_are_a_fork_unless_a_quorum_has_one_of_them() {
        let mut reading = Reading::new(Quorum::majority(3));
        let mut preparing = Preparing::new(Quorum::majority(3));
        reading.on_answer(0, accepted(2, 'b'));
        reading.on_answer(1, accepted(2, 'c'));
        preparing.on_promise(0, accepted(2, 'b'));
        preparing.on_promise(1, accepted(2, 'c'));
        assert_eq!((reading.verdict(), preparing.verdict()), (Verdict::Pending, Verdict::Pending));
        assert_eq!((reading.fork(), preparing.fork()), (Some(('b', 'c')), Some(('b', 'c'))));
        let (mut dead_reading, mut dead_preparing) = (reading.clone(), preparing.clone());
        dead_reading.on_loss(2);
        dead_preparing.on_loss(2);
        assert_eq!((dead_reading.verdict(), dead_preparing.verdict()), (Verdict::Failed, Verdict::Failed));
        reading.on_answer(2, accepted(2, 'c'));
        preparing.on_promise(2, accepted(2, 'c'));
        assert_eq!(reading.verdict(), Verdict::Done(Some('c')));
        assert_eq!(preparing.verdict(), Verdict::Done(Some('c')));
    }

    #[test]
    fn a_prepared_ballot_is_used_once() {
        let mut proposer = Proposer::new(ME);
        let Start::Prepare(first) = proposer.begin() else { panic!("nothing is prepared yet") };
        let next = proposer.next_ballot();
        assert!(next > first);
        proposer.on_prepared(next, 'v');
        assert_eq!(proposer.begin(), Start::Accept { ballot: next, current: 'v' });
        assert!(matches!(proposer.begin(), Start::Prepare(ballot) if ballot > next));
    }
}
