//! Up to which instant everything that happened has been acted upon: timers fire up to there and no further.
//!
//! After a stall of the thread, an answer that came in time must not lose to its deadline. So a look at the poller, at
//! some instant, does not yet let the timers of that instant fire: first all who were runnable then have their turn. The
//! queue is first in, first out, so that is so once as many have been taken from it as had been put in by then. Looks
//! are 61 switches apart, and each is settled on its own: a timer is late by one look and one round of the queue, however
//! long that is.
//!
//! Pure: it counts, and asks no clock.

use std::collections::VecDeque;
use std::time::Instant;

pub(super) struct Settling {
    /// Looks that wait for who was runnable then: their instants, and how many will have been taken when all have been.
    looks: VecDeque<(Instant, u64)>,
    settled_at: Option<Instant>,
    taken_count: u64,
}

impl Settling {
    pub(super) const fn new() -> Settling {
        Settling { looks: VecDeque::new(), settled_at: None, taken_count: 0 }
    }

    /// So many have had their turns.
    pub(super) fn on_taken(&mut self, count: usize) {
        self.taken_count += count as u64;
    }

    /// All that happened until `instant` has been told to those who wait for it; so many are runnable now.
    pub(super) fn on_look(&mut self, instant: Instant, runnable_count: usize) {
        self.looks.push_back((instant, self.taken_count + runnable_count as u64));
    }

    /// All that happened until then has been acted upon.
    pub(super) fn settled_at(&mut self) -> Option<Instant> {
        while let Some(&(instant, count)) = self.looks.front()
            && count <= self.taken_count
        {
            self.settled_at = Some(instant);
            self.looks.pop_front();
        }
        self.settled_at
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_look_is_settled_when_all_who_were_runnable_have_had_their_turn_and_no_later() {
        let mut settling = Settling::new();
        let at = |ms| Instant::now().checked_add(Duration::from_millis(ms)).unwrap();
        let (first, second, third) = (at(10), at(20), at(30));
        settling.on_look(first, 100);
        settling.on_taken(61); // they are busy, and go to the end of the queue
        settling.on_look(second, 100);
        settling.on_taken(38);
        assert_eq!(settling.settled_at(), None);
        settling.on_taken(1);
        assert_eq!(settling.settled_at(), Some(first));
        settling.on_taken(60);
        assert_eq!(settling.settled_at(), Some(first));
        settling.on_taken(1);
        assert_eq!(settling.settled_at(), Some(second));
        settling.on_look(third, 0);
        assert_eq!(settling.settled_at(), Some(third), "nobody was runnable");
    }
}
