//! The queue of armed timers: exact in time and order, and cheap to arm and to cancel among a great many.
//!
//! Most timers guard something that comes in time: they are armed, cancelled, and never fire. A heap suits that.
//! A new timer is mostly later than most, so it stays near the bottom where it was put; a cancelled one is mostly
//! at the bottom too, where three quarters of a 4-ary heap are, so what takes its place has nowhere to sink to.
//! Both are a few memory accesses whatever the number of timers; only firing walks the whole height.
//!
//! Each timer has a slot that says where in the heap it is, so that a cancelled one leaves at once: no dead
//! entries to be swept up later, in a pause that somebody's deadline would have to pay for.
//!
//! Not used: a hierarchical timing wheel (Varghese & Lauck 1987). It arms and cancels in constant time, but knows
//! times only to its tick, and the next one not at all without a search; here timers fire in the order of their
//! exact times, those of one instant in the order they were armed, and the simulator jumps to the next.
//!
//! # Source
//!
//! Johnson 1975 (d-ary heaps); LaMarca & Ladner 1996 (why four children: they share one or two cache lines).

use std::time::{Duration, Instant};

use slab::Slab;

/// Children of a node of the heap.
const ARITY: usize = 4;

/// Names an armed timer, for ever: no other one is equal to it, not even after it has fired.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TimerKey {
    number: u64,
    slot: u32,
}

/// Armed timers in the order of their time; those of one instant in the order they were armed.
///
/// Times are told apart to the nanosecond within 292 years of the first one; all beyond are one instant.
pub(crate) struct Queue<A> {
    /// A 4-ary heap: nobody is before its parent.
    heap: Vec<Entry>,
    slots: Slab<Slot<A>>,
    next_number: u64,
    /// What times are counted from: the first one's.
    origin: Option<Instant>,
}

#[derive(Clone, Copy)]
struct Entry {
    /// From the origin.
    due_ns: i64,
    number: u64,
    slot: u32,
}

struct Slot<A> {
    /// Where in the heap its entry is.
    position: u32,
    action: A,
}

impl Entry {
    fn is_before(&self, other: &Entry) -> bool {
        (self.due_ns, self.number) < (other.due_ns, other.number)
    }
}

impl<A> Default for Queue<A> {
    fn default() -> Self {
        Queue::new()
    }
}

impl<A> Queue<A> {
    /// An empty queue.
    pub(crate) const fn new() -> Queue<A> {
        Queue { heap: Vec::new(), slots: Slab::new(), next_number: 0, origin: None }
    }

    /// Adds a timer.
    ///
    /// # Panics
    ///
    /// With more than 2^32 timers.
    pub(crate) fn arm(&mut self, due: Instant, action: A) -> TimerKey {
        let due_ns = nanoseconds_between(*self.origin.get_or_insert(due), due);
        let number = self.next_number;
        self.next_number += 1;
        let position = self.heap.len();
        let index = u32::try_from(position).expect("fewer than 2^32 timers");
        let slot = self.slots.insert(Slot { position: index, action }) as u32;
        let entry = Entry { due_ns, number, slot };
        self.heap.push(entry);
        self.rise(position, entry);
        TimerKey { number, slot }
    }

    /// Takes a timer out and returns what it would have done; nothing if it has fired.
    pub(crate) fn disarm(&mut self, key: TimerKey) -> Option<A> {
        let position = self.slots.get(key.slot as usize)?.position as usize;
        // The slot may have a later owner by now.
        (self.heap[position].number == key.number).then(|| self.remove(position))
    }

    /// Returns when the next timer is due.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        let first = self.heap.first()?;
        let distance = Duration::from_nanos(first.due_ns.unsigned_abs());
        self.origin.map(|origin| if first.due_ns < 0 { origin - distance } else { origin + distance })
    }

    /// Takes out the next timer if it is due.
    pub(crate) fn pop_due(&mut self, now: Instant) -> Option<A> {
        let first = self.heap.first()?;
        let due = first.due_ns <= nanoseconds_between(self.origin?, now);
        due.then(|| self.remove(0))
    }

    fn remove(&mut self, position: usize) -> A {
        let removed = self.heap.swap_remove(position);
        if let Some(&moved) = self.heap.get(position) {
            // The last entry took its place. It may come from another branch, and belong further up.
            if position > 0 && moved.is_before(&self.heap[(position - 1) / ARITY]) {
                self.rise(position, moved);
            } else {
                self.sink(position, moved);
            }
        }
        self.slots.remove(removed.slot as usize).action
    }

    /// Places `entry`, for which `position` is free, there or nearer to the top.
    fn rise(&mut self, mut position: usize, entry: Entry) {
        while position > 0 {
            let parent = (position - 1) / ARITY;
            if !entry.is_before(&self.heap[parent]) {
                break;
            }
            self.place(position, self.heap[parent]);
            position = parent;
        }
        self.place(position, entry);
    }

    /// Places `entry`, for which `position` is free, there or nearer to the bottom.
    fn sink(&mut self, mut position: usize, entry: Entry) {
        loop {
            let first = position * ARITY + 1;
            let children = first..self.heap.len().min(first + ARITY);
            let earliest = children.reduce(|earliest, child| {
                if self.heap[child].is_before(&self.heap[earliest]) { child } else { earliest }
            });
            match earliest {
                Some(child) if self.heap[child].is_before(&entry) => {
                    self.place(position, self.heap[child]);
                    position = child;
                }
                _ => break,
            }
        }
        self.place(position, entry);
    }

    fn place(&mut self, position: usize, entry: Entry) {
        self.heap[position] = entry;
        self.slots[entry.slot as usize].position = position as u32;
    }
}

/// Returns how far `to` is after `from`, negative where it is before.
fn nanoseconds_between(from: Instant, to: Instant) -> i64 {
    let nanoseconds = |distance: Duration| i64::try_from(distance.as_nanos()).unwrap_or(i64::MAX);
    match to.checked_duration_since(from) {
        Some(distance) => nanoseconds(distance),
        None => -nanoseconds(from - to),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    /// What the queue promises, in its plainest form: a map in order of time and arming.
    #[derive(Default)]
    struct Model {
        timers: BTreeMap<(Instant, usize), usize>,
    }

    #[derive(Debug, Clone)]
    enum Step {
        Arm {
            at: i32,
        },
        /// Of all keys ever given out, so also of timers that fired or are cancelled.
        Disarm {
            which: prop::sample::Index,
        },
        /// Fires all that is due.
        Advance {
            to: i32,
        },
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            // Few different times, before and after the first one, so that many are equal.
            4 => (-20..200i32).prop_map(|at| Step::Arm { at }),
            3 => any::<prop::sample::Index>().prop_map(|which| Step::Disarm { which }),
            1 => (-20..200i32).prop_map(|to| Step::Advance { to }),
        ]
    }

    proptest! {
        #[test]
        fn timers_fire_in_the_order_of_their_times_and_then_of_their_arming(
            steps in prop::collection::vec(step(), 0..400)
        ) {
            let origin = Instant::now() + Duration::from_secs(1);
            let instant = |at: i32| match at {
                0.. => origin + Duration::from_nanos(at.unsigned_abs().into()),
                _ => origin - Duration::from_nanos(at.unsigned_abs().into()),
            };
            let (mut queue, mut model) = (Queue::default(), Model::default());
            let mut keys = Vec::new();
            for step in steps {
                match step {
                    Step::Arm { at } => {
                        let number = keys.len();
                        let due = instant(at);
                        keys.push((queue.arm(due, number), (due, number)));
                        model.timers.insert((due, number), number);
                    }
                    Step::Disarm { which } if !keys.is_empty() => {
                        let (key, modelled) = *which.get(&keys);
                        queue.disarm(key);
                        model.timers.remove(&modelled);
                    }
                    Step::Disarm { .. } => {}
                    Step::Advance { to } => {
                        let now = instant(to);
                        while let Some(fired) = queue.pop_due(now) {
                            let (&(due, _), &expected) = model.timers.first_key_value().unwrap();
                            prop_assert!(due <= now, "fired early");
                            prop_assert_eq!(fired, expected);
                            model.timers.pop_first();
                        }
                        prop_assert!(model.timers.keys().all(|(due, _)| *due > now), "one was left");
                    }
                }
                prop_assert_eq!(queue.next_due(), model.timers.keys().next().map(|(due, _)| *due));
                prop_assert_eq!(queue.slots.len(), model.timers.len());
            }
        }
    }

    #[test]
    fn the_key_of_a_fired_timer_cancels_nobody_else() {
        let mut queue = Queue::default();
        let now = Instant::now();
        let first = queue.arm(now, 1);
        assert_eq!(queue.pop_due(now), Some(1));
        let second = queue.arm(now, 2);
        assert_eq!(first.slot, second.slot, "the slot is used again, else this shows nothing");
        queue.disarm(first);
        assert_eq!(queue.pop_due(now), Some(2));
        queue.disarm(second);
        assert_eq!(queue.next_due(), None);
    }

    #[test]
    fn a_timer_of_the_far_future_waits_behind_all_others() {
        let mut queue = Queue::default();
        let now = Instant::now();
        queue.arm(now, "soon");
        let centuries = Duration::from_secs(1_000 * 365 * 86_400);
        queue.arm(now + centuries, "in a thousand years");
        assert_eq!(queue.pop_due(now), Some("soon"));
        assert_eq!(queue.pop_due(now + centuries / 4), None);
        assert!(queue.next_due() > Some(now + centuries / 4));
    }
}
