//! When to look for the next request again and again for a moment before going to sleep.
//!
//! A program that does one small thing after another asks again within microseconds, while waking a sleeping thread
//! on another processor takes tens of them: a short spin multiplies such a program's speed by two to five. It wastes
//! processor time where requests are rare, so it is learnt: each wait's length votes for or against the next spin.
//! A process that may run on one processor only never spins: its client could not run meanwhile.

use std::cell::Cell;
use std::time::Duration;

/// How long to spin: about what a wake-up across processors costs here, twice the worst case of never being wrong.
const SPIN: Duration = Duration::from_micros(50);

/// A wait this short would have been worth a spin (it includes the wake-up's own time).
const NEAR: Duration = Duration::from_micros(150);

/// Votes are counted between these.
const SCORE_MAX: i8 = 8;

/// The learner.
#[derive(Debug)]
pub(super) struct Spin {
    allowed: bool,
    /// Above zero: spin.
    score: Cell<i8>,
}

impl Spin {
    /// Spins where the process may run on more than one processor.
    pub(super) fn new() -> Spin {
        // Looks at the affinity mask and at the control group's quota.
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        Spin { allowed: processors > 1, score: Cell::new(0) }
    }

    /// Never spins.
    pub(super) fn never() -> Spin {
        Spin { allowed: false, score: Cell::new(0) }
    }

    /// Whether waits are to be timed at all.
    pub(super) fn is_allowed(&self) -> bool {
        self.allowed
    }

    /// How long to spin now.
    pub(super) fn limit(&self) -> Duration {
        if self.score.get() > 0 { SPIN } else { Duration::ZERO }
    }

    /// The wait for a request took `wait`.
    pub(super) fn learn(&self, wait: Duration) {
        let vote = if wait < NEAR { 1 } else { -1 };
        self.score.set((self.score.get() + vote).clamp(-SCORE_MAX, SCORE_MAX));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_waits_start_the_spinning_and_long_ones_stop_it() {
        let spin = Spin { allowed: true, score: Cell::new(0) };
        assert_eq!(spin.limit(), Duration::ZERO);
        spin.learn(Duration::from_micros(20));
        assert_eq!(spin.limit(), SPIN);
        for _ in 0..100 {
            spin.learn(Duration::from_micros(20));
        }
        for _ in 0..SCORE_MAX {
            spin.learn(Duration::from_millis(2));
        }
        assert_eq!(spin.limit(), Duration::ZERO);
    }
}
