//! When a put is done, and whom it asks next. Pure.
//!
//! It is done when a quorum has the block, and those that have it stand in two zones: a quorum of one zone is gone with that zone.
//! Unless there is no other zone, or of the others nobody is left who may take it: each was asked and failed, or had no room, or is
//! deaf. Then a block in one zone is better than none, and repair brings it elsewhere as soon as it can.
//!
//! **Who is deaf.** Whoever did not take the block that he was given last, or took [`TIMES_SLOWER`] times as long as the quorum of
//! that put did; but [`PATIENCE_MIN`] is granted to everybody, and more to whom other blocks are on their way to. He is given further
//! blocks all the same, and as soon as he takes one in time he counts again, or when a minute has passed in which he was given none
//! that he was late with. Without that bound, a node that says a zone of its own
//! could have all others wait for it as long as a call may take, for each block, by intent or by a bad disk. With it, he holds up
//! those puts that are under way when he begins to be slow, for as long as he is granted, and no later ones. What a zone loses by it
//! that is slower than that, and honest: blocks count as stored before it has them.
//!
//! Who is to be asked next, because somebody failed or is slow: until a quorum has it, the next in the order; from then on the next
//! of another zone.
//!
//! Not here: calling anybody ([`crate::replicate`]), and remembering who is deaf ([`crate::links`]).

use std::time::{Duration, Instant};

/// What everybody is granted for a block where others of another zone have it: a line or a disk that pauses for a moment is not slow.
const PATIENCE_MIN: Duration = Duration::from_secs(2);

/// What is granted for each block that is on its way to him already: a line takes them one after the other, and one of 32 Mbit/s
/// takes so long for 1 MiB.
const PATIENCE_EACH: Duration = Duration::from_millis(250);

/// And for no more than so many, which is what a mount has on their way at once.
const EACH_MAX: usize = 16;

/// Whoever takes so many times as long as the quorum did is slow, and not the writer or what he writes.
const TIMES_SLOWER: u32 = 4;

/// When one was given a block, and how many others were on their way to him.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked {
    at: Instant,
    others_count: usize,
}

impl Asked {
    /// He is given it now.
    pub(crate) fn new(others_count: usize, now: Instant) -> Asked {
        Asked { at: now, others_count }
    }

    /// From when on he takes too long, if a quorum took so long.
    pub(crate) fn late_at(&self, quorum_took: Duration) -> Instant {
        let granted = PATIENCE_MIN + PATIENCE_EACH * self.others_count.min(EACH_MAX) as u32;
        self.at + granted.max(quorum_took * TIMES_SLOWER)
    }
}

/// What is known of one candidate.
#[derive(Clone, Copy, Debug)]
enum Answer {
    Unasked,
    Open(Asked),
    Durable,
    Failed,
}

/// What is known of all of them, in their order.
#[derive(Debug)]
pub(crate) struct Acks {
    /// Of each, the number of its zone.
    zones: Vec<usize>,
    /// Of each, whether nobody waits for it.
    are_deaf: Vec<bool>,
    answers: Vec<Answer>,
    /// How many must have the block.
    needed: usize,
    /// How many may be asked until as many have it.
    asked_max: usize,
    began: Instant,
    /// How long it took until as many had it.
    quorum_took: Option<Duration>,
}

impl Acks {
    /// Nobody was asked.
    pub(crate) fn new(zones: Vec<usize>, needed: usize, asked_max: usize, now: Instant) -> Acks {
        let (answers, are_deaf) = (vec![Answer::Unasked; zones.len()], vec![false; zones.len()]);
        Acks { answers, are_deaf, zones, needed, asked_max, began: now, quorum_took: None }
    }

    /// How many have the block for good.
    pub(crate) fn durable(&self) -> usize {
        self.count(|answer| matches!(answer, Answer::Durable))
    }

    /// How many were asked and have not answered.
    pub(crate) fn open(&self) -> usize {
        self.count(|answer| matches!(answer, Answer::Open(_)))
    }

    fn count(&self, is_one: impl Fn(&Answer) -> bool) -> usize {
        self.answers.iter().filter(|answer| is_one(answer)).count()
    }

    /// How long it took until a quorum had it, once one has.
    pub(crate) fn quorum_took(&self) -> Option<Duration> {
        self.quorum_took
    }

    /// Says for whom nobody waits; that may change at any time.
    pub(crate) fn on_deaf(&mut self, are_deaf: Vec<bool>) {
        self.are_deaf = are_deaf;
    }

    /// Whether those that have it are of one zone, though there are others.
    pub(crate) fn is_in_one_zone(&self) -> bool {
        let is_other = |zone: &usize| *zone != self.zones[0];
        self.zones.iter().any(is_other) && !self.has_another_zone()
    }

    /// One is being asked.
    pub(crate) fn on_asked(&mut self, index: usize, asked: Asked) {
        self.answers[index] = Answer::Open(asked);
    }

    /// One has it, or will not have it.
    pub(crate) fn on_answer(&mut self, index: usize, is_durable: bool, now: Instant) {
        self.answers[index] = if is_durable { Answer::Durable } else { Answer::Failed };
        if self.quorum_took.is_none() && self.durable() >= self.needed {
            self.quorum_took = Some(now.saturating_duration_since(self.began));
        }
    }

    /// Whether the put may return.
    pub(crate) fn is_done(&self) -> bool {
        let may_take_it = |answer: &Answer| matches!(answer, Answer::Open(_) | Answer::Unasked);
        self.durable() >= self.needed
            && (self.has_another_zone() || self.of_another_zone(may_take_it).is_none())
    }

    /// Whom to ask next.
    pub(crate) fn next(&self) -> Option<usize> {
        let is_unasked = |answer: &Answer| matches!(answer, Answer::Unasked);
        if self.durable() >= self.needed {
            return self.of_another_zone(is_unasked);
        }
        let asked = self.answers.len() - self.count(is_unasked);
        self.answers.iter().position(is_unasked).filter(|_| asked < self.asked_max)
    }

    /// Those who take too long, where a quorum took so long as it did.
    pub(crate) fn late(&self, now: Instant) -> impl Iterator<Item = usize> {
        self.late_at().filter(move |(_, at)| *at <= now).map(|(index, _)| index)
    }

    /// When the next of those who are waited for takes too long.
    pub(crate) fn next_late_at(&self) -> Option<Instant> {
        self.late_at().filter(|(index, _)| !self.are_deaf[*index]).map(|(_, at)| at).min()
    }

    /// Of those who were asked and have not answered, from when on they take too long; of nobody, until a quorum has it.
    fn late_at(&self) -> impl Iterator<Item = (usize, Instant)> {
        let at = |(index, answer): (usize, &Answer)| match (answer, self.quorum_took) {
            (Answer::Open(asked), Some(quorum_took)) => Some((index, asked.late_at(quorum_took))),
            _ => None,
        };
        self.answers.iter().enumerate().filter_map(at)
    }

    /// Whether so many of the first in the order can do without the others: a quorum, of two zones if these are of two.
    pub(crate) fn can_do_with(&self, are_free: &[bool]) -> bool {
        let count = are_free.iter().take(self.zones.len()).filter(|is_free| **is_free).count();
        let are_two = |mut zones: Box<dyn Iterator<Item = &usize> + '_>| {
            zones.next().is_some_and(|first| zones.any(|zone| zone != first))
        };
        // Whoever is deaf brings no zone, be he free or not.
        let all = || {
            let all = self.zones.iter().zip(&self.are_deaf).zip(are_free);
            all.filter(|((_, is_deaf), _)| !**is_deaf).map(|((zone, _), is_free)| (zone, *is_free))
        };
        let free = all().filter(|(_, is_free)| *is_free).map(|(zone, _)| zone);
        count >= self.needed && (are_two(Box::new(free)) || !are_two(Box::new(all().map(|(zone, _)| zone))))
    }

    /// The zone of the first that has the block.
    fn first_zone(&self) -> Option<usize> {
        let first = self.answers.iter().position(|answer| matches!(answer, Answer::Durable))?;
        Some(self.zones[first])
    }

    /// Whether those that have it are of two zones.
    fn has_another_zone(&self) -> bool {
        let Some(first) = self.first_zone() else { return false };
        let of_each = self.zones.iter().zip(&self.answers);
        of_each.into_iter().any(|(zone, answer)| *zone != first && matches!(answer, Answer::Durable))
    }

    /// The first of another zone than those that have the block of whom this is true, and who is not deaf.
    fn of_another_zone(&self, is_one: impl Fn(&Answer) -> bool) -> Option<usize> {
        let first = self.first_zone()?;
        (0..self.answers.len()).find(|index| {
            self.zones[*index] != first && !self.are_deaf[*index] && is_one(&self.answers[*index])
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn new(zones: &[usize]) -> Acks {
        Acks::new(zones.to_vec(), 2, 6, Instant::now())
    }

    impl Acks {
        fn ask(&mut self, index: usize) {
            self.on_asked(index, Asked::new(0, self.began));
        }

        /// One answers at the moment at which the put began.
        fn answer(&mut self, index: usize, is_durable: bool) {
            self.on_answer(index, is_durable, self.began);
        }
    }

    /// Of zones 0 1 2 0 0 1, of whom the first three were asked.
    fn asked() -> Acks {
        let mut acks = new(&[0, 1, 2, 0, 0, 1]);
        (0..3).for_each(|index| acks.ask(index));
        acks
    }

    #[test]
    fn two_of_one_zone_are_no_quorum_while_another_zone_may_answer() {
        let mut acks = asked();
        acks.answer(0, true);
        assert!(!acks.is_done());
        // The others are slow: whoever is next is asked, and answers.
        assert_eq!(acks.next(), Some(3));
        acks.ask(3);
        acks.answer(3, true);
        assert!(!acks.is_done());
        assert_eq!(acks.next(), Some(5), "one of another zone now");
        acks.answer(1, false);
        assert!(!acks.is_done());
        acks.answer(2, true);
        assert!(acks.is_done());
    }

    #[test]
    fn a_quorum_of_one_zone_is_enough_where_nobody_of_another_is_left() {
        let mut acks = asked();
        acks.answer(1, false);
        acks.answer(2, false);
        acks.answer(0, true);
        acks.ask(3);
        acks.answer(3, true);
        assert!(!acks.is_done());
        acks.ask(5);
        assert_eq!((acks.is_done(), acks.next(), acks.open()), (false, None, 1));
        acks.answer(5, false);
        assert!(acks.is_done());
        // Where all are of one, any will do.
        let mut one = new(&[0; 4]);
        for index in [1, 3] {
            assert!(!one.is_done());
            one.answer(index, true);
        }
        assert!(one.is_done());
    }

    #[test]
    fn no_more_are_asked_than_may_be_until_a_quorum_has_it() {
        let mut acks = new(&[0; 9]);
        let mut failed = 0;
        while let Some(next) = acks.next() {
            acks.ask(next);
            acks.answer(next, false);
            failed += 1;
        }
        assert_eq!((failed, acks.open(), acks.durable()), (6, 0, 0));
    }

    #[test]
    fn those_with_a_backlog_are_left_out_where_the_others_are_a_quorum_of_two_zones() {
        let acks = asked();
        assert!(acks.can_do_with(&[true, true, false, true, true, true]));
        assert!(
            !acks.can_do_with(&[true, false, false, true, true, false]),
            "all that are free are of one zone"
        );
        assert!(!acks.can_do_with(&[true, false, false, false, false, false]));
        let one = new(&[0; 4]);
        assert!(one.can_do_with(&[false, false, true, true]));
    }

    #[test]
    fn nobody_waits_for_the_zone_of_one_that_is_deaf() {
        let mut acks = new(&[0, 1, 0, 0]);
        (0..3).for_each(|index| acks.ask(index));
        acks.answer(0, true);
        assert!(!acks.is_done());
        acks.answer(2, true);
        assert!(!acks.is_done());
        acks.on_deaf(vec![false, true, false, false]);
        assert!(acks.is_done() && acks.is_in_one_zone());
        assert!(acks.can_do_with(&[true, false, true, true]), "nor keeps blocks for it without end");
        // He is no second zone either, where there is a well one that is only behind.
        let mut three = new(&[0, 1, 2, 0]);
        three.on_deaf(vec![false, true, false, false]);
        assert!(!three.can_do_with(&[true, true, false, true]));
    }

    #[test]
    fn who_takes_many_times_as_long_as_a_quorum_is_late_and_nobody_before_there_is_one() {
        let mut acks = new(&[0, 1, 0, 0]);
        let after = |millis: u64| acks.began + Duration::from_millis(millis);
        let (soon, slowly, hour) = (after(10), after(900), after(3_600_000));
        let late = |acks: &Acks, now: Instant| acks.late(now).collect::<Vec<_>>();
        (0..3).for_each(|index| acks.ask(index));
        acks.on_answer(0, true, soon);
        assert!(late(&acks, hour).is_empty() && acks.next_late_at().is_none(), "one is no quorum");
        let mut quick = acks;
        let mut slow = new(&[0, 1, 0, 0]);
        slow.began = quick.began;
        (0..3).for_each(|index| slow.ask(index));
        slow.on_answer(0, true, soon);
        quick.on_answer(2, true, soon);
        slow.on_answer(2, true, slowly);
        assert_eq!(quick.next_late_at(), Some(quick.began + PATIENCE_MIN), "everybody is granted that");
        assert_eq!(slow.next_late_at(), Some(slow.began + Duration::from_millis(3600)));
        assert!(late(&quick, quick.began + PATIENCE_MIN - Duration::from_millis(1)).is_empty());
        assert_eq!(late(&quick, quick.began + PATIENCE_MIN), vec![1]);
        assert!(!quick.is_done(), "whoever remembers it says so");
        quick.on_deaf(vec![false, true, false, false]);
        assert_eq!((quick.is_done(), quick.next_late_at()), (true, None));
    }

    #[test]
    fn who_has_other_blocks_to_take_first_is_granted_more_and_not_without_end() {
        let now = Instant::now();
        let granted = |count: usize| Asked::new(count, now).late_at(Duration::ZERO) - now;
        assert_eq!(granted(0), PATIENCE_MIN);
        assert_eq!(granted(8), PATIENCE_MIN + 8 * PATIENCE_EACH);
        assert_eq!(granted(10_000), PATIENCE_MIN + 16 * PATIENCE_EACH);
    }
}
