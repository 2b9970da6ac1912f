//! When to look for the next request again and again for a moment before going to sleep.
//!
//! A program that does one small thing after another asks again within microseconds, while waking a sleeping thread
//! on another processor takes tens of them: there a short spin multiplies such a program's speed. But where the
//! scheduler has put program and server on one processor, or others want to run too, the spin is in the program's way
//! and costs as much as it wins elsewhere. Placement shows in nothing but time, so time decides: most requests run
//! in the way that has been faster lately, some try the other. Where requests are rare nobody spins.
//!
//! A process that may run on one processor only never spins.

use std::cell::Cell;
use std::time::Duration;

/// How long to spin: about what a wake-up across processors costs here, twice the worst case of never being wrong.
const SPIN: Duration = Duration::from_micros(50);

/// Waits count as this long at most, and where they are half as long on average, requests are rare.
const WAIT_MAX: Duration = Duration::from_micros(200);

/// Waits that are judged together.
const TRIAL_WAITS: u32 = 64;

/// One trial of this many is of the way that has been slower...
const PROBE_PERIOD: u32 = 64;

/// ... and shorter: at worst (asleep 10 us, spinning 60) it costs 3 % of the time.
const PROBE_WAITS: u32 = 16;

/// Spinning takes a processor's time, so it has to be faster by this much to be worth it: a fifth.
const ADVANTAGE: (u32, u32) = (5, 4);

/// The learner.
#[derive(Debug)]
pub(super) struct Spin {
    allowed: bool,
    spinning: Cell<bool>,
    trial: Cell<u32>,
    /// Waits left in this trial.
    left: Cell<u32>,
    waits: Cell<u32>,
    waited: Cell<Duration>,
    /// The mean wait lately: asleep, spinning.
    costs: Cell<[Duration; 2]>,
}

impl Spin {
    /// Spins where the process may run on more than one processor.
    pub(super) fn new() -> Spin {
        // Looks at the affinity mask and at the control group's quota.
        Spin::with(std::thread::available_parallelism().map_or(1, usize::from) > 1)
    }

    /// Never spins.
    pub(super) fn never() -> Spin {
        Spin::with(false)
    }

    fn with(allowed: bool) -> Spin {
        Spin {
            allowed,
            spinning: Cell::new(false),
            trial: Cell::new(0),
            left: Cell::new(TRIAL_WAITS),
            waits: Cell::new(0),
            waited: Cell::new(Duration::ZERO),
            costs: Cell::new([Duration::ZERO; 2]),
        }
    }

    /// Whether waits are to be timed at all.
    pub(super) fn is_allowed(&self) -> bool {
        self.allowed
    }

    /// How long to spin now.
    pub(super) fn limit(&self) -> Duration {
        if self.spinning.get() { SPIN } else { Duration::ZERO }
    }

    /// The wait for a request took `wait`.
    pub(super) fn learn(&self, wait: Duration) {
        self.waited.set(self.waited.get() + wait.min(WAIT_MAX));
        self.waits.set(self.waits.get() + 1);
        self.left.set(self.left.get() - 1);
        if self.left.get() > 0 {
            return;
        }
        let mean = self.waited.take() / self.waits.take();
        let mut costs = self.costs.get();
        let cost = &mut costs[usize::from(self.spinning.get())];
        *cost = if cost.is_zero() { mean } else { (*cost + mean) / 2 };
        self.costs.set(costs);
        self.trial.set(self.trial.get().wrapping_add(1));
        let [asleep, spinning] = costs;
        let is_faster = !spinning.is_zero() && spinning * ADVANTAGE.0 < asleep * ADVANTAGE.1;
        let probe = self.trial.get() % PROBE_PERIOD == 1;
        self.left.set(if probe { PROBE_WAITS } else { TRIAL_WAITS });
        self.spinning.set(mean < WAIT_MAX / 2 && is_faster != probe);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lets it learn where each wait takes so many microseconds asleep or spinning; returns how often it spun.
    fn share_spun(spin: &Spin, asleep: u64, spinning: u64) -> f64 {
        let rounds = 100 * TRIAL_WAITS;
        let mut spun = 0;
        for _ in 0..rounds {
            let is_spinning = !spin.limit().is_zero();
            spun += u32::from(is_spinning);
            spin.learn(Duration::from_micros(if is_spinning { spinning } else { asleep }));
        }
        f64::from(spun) / f64::from(rounds)
    }

    #[test]
    fn it_spins_where_that_is_faster_and_follows_when_that_changes() {
        let spin = Spin::with(true);
        assert!(share_spun(&spin, 40, 10) > 0.9);
        assert!(share_spun(&spin, 10, 40) < 0.9, "it takes a probe to notice");
        assert!(share_spun(&spin, 10, 40) < 0.05);
        assert!(share_spun(&spin, 12, 10) < 0.05, "not worth a processor");
        share_spun(&spin, 40, 10);
        assert!(share_spun(&spin, 40, 10) > 0.9);
    }

    #[test]
    fn nobody_spins_where_requests_are_rare() {
        let spin = Spin::with(true);
        share_spun(&spin, 40, 10);
        assert!(share_spun(&spin, 5000, 5000) < 0.02);
    }
}
