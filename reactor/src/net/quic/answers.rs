//! Answers that are no connection's and wait to be sent: to packets that anybody can forge. Pure.
//!
//! Each kind has a bound of its own, so that a flood of STUN's questions does not keep back the retries by which honest
//! clients prove their addresses.

use std::collections::VecDeque;

/// Answers of one kind that wait; more are dropped.
const ANSWERS_MAX: usize = 64;

/// What is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answered {
    Stun,
    Quic,
}

pub(super) struct Answers<T> {
    waiting: VecDeque<(Answered, T)>,
}

impl<T> Default for Answers<T> {
    fn default() -> Answers<T> {
        Answers { waiting: VecDeque::new() }
    }
}

impl<T> Answers<T> {
    pub(super) fn push(&mut self, kind: Answered, answer: T) {
        if self.waiting.iter().filter(|(of, _)| *of == kind).count() < ANSWERS_MAX {
            self.waiting.push_back((kind, answer));
        }
    }

    pub(super) fn pop(&mut self) -> Option<T> {
        self.waiting.pop_front().map(|(_, answer)| answer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_one_kind_leaves_room_for_the_other_and_nobody_is_overtaken() {
        let mut answers = Answers::default();
        (0..1_000).for_each(|number| answers.push(Answered::Stun, number));
        answers.push(Answered::Quic, 1_000);
        answers.push(Answered::Stun, 1_001);
        let came: Vec<i32> = std::iter::from_fn(|| answers.pop()).collect();
        let expected: Vec<i32> = (0..ANSWERS_MAX as i32).chain([1_000]).collect();
        assert_eq!(came, expected);
        answers.push(Answered::Stun, 7);
        assert_eq!(answers.pop(), Some(7));
    }
}
