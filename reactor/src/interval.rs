//! Ticks at a steady pace.

use std::time::{Duration, Instant};

use crate::clock::{deadline_after, now};
use crate::timer::sleep_until;

/// Ticks at multiples of a period: see [`interval`].
#[derive(Debug)]
pub struct Interval {
    period: Duration,
    next: Instant,
}

/// Ticks every `period` from now on; the first tick is one period away.
///
/// Ticks do not drift: each is due at a multiple of the period from the start, however late the one before was
/// taken. Ticks that were missed, because the coroutine or the thread was busy, are not made up for one by one:
/// [`Interval::tick`] tells how many there were and goes on at the next multiple. Never suspends.
///
/// # Panics
///
/// With a period of zero.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// reactor::run(|| {
///     let mut heartbeat = reactor::interval(Duration::from_millis(1));
///     for _ in 0..3 {
///         let ticks = heartbeat.tick();
///         assert!(ticks >= 1);
///     }
/// });
/// ```
pub fn interval(period: Duration) -> Interval {
    assert!(!period.is_zero(), "ticks without a period would never let anybody else run");
    Interval { period, next: deadline_after(period) }
}

impl Interval {
    /// Waits for the next tick; returns how many there were since the last: 1 unless some were missed.
    ///
    /// A tick that was waited for in vain, since the coroutine was terminated or a timeout ended the wait, is not
    /// lost: the next call returns at it.
    ///
    /// # Suspends
    ///
    /// Until the tick is due; if it is over, until the others have had their turn.
    pub fn tick(&mut self) -> u64 {
        sleep_until(self.next);
        let late = now().saturating_duration_since(self.next);
        let missed = late.as_nanos() / self.period.as_nanos();
        // 2^64 nanoseconds are 584 years.
        let passed = self.period.as_nanos() * (missed + 1);
        self.next += Duration::from_nanos(passed as u64);
        missed as u64 + 1
    }

    /// When the next tick is due.
    pub fn next_due(&self) -> Instant {
        self.next
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::{self, SimConfig};
    use crate::{sleep, timeout};

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn ticks_come_at_multiples_of_the_period_however_late_they_are_taken() {
        sim::run(1, SimConfig::default(), |world| {
            let mut ticks = interval(SECOND);
            for n in 1..=5u32 {
                assert_eq!(ticks.tick(), 1);
                assert_eq!(world.elapsed(), n * SECOND);
                sleep(SECOND * 9 / 10);
            }
        });
    }

    #[test]
    fn missed_ticks_are_counted_and_not_made_up_for() {
        sim::run(1, SimConfig::default(), |world| {
            let mut ticks = interval(SECOND);
            sleep(SECOND * 35 / 10);
            assert_eq!(ticks.tick(), 3, "those at 1, 2 and 3 seconds");
            assert_eq!(ticks.tick(), 1);
            assert_eq!(world.elapsed(), 4 * SECOND);
        });
    }

    #[test]
    fn a_tick_waited_for_in_vain_is_not_lost() {
        sim::run(1, SimConfig::default(), |world| {
            let mut ticks = interval(SECOND);
            assert!(timeout(SECOND / 2, || ticks.tick()).is_err());
            assert_eq!(ticks.tick(), 1);
            assert_eq!(world.elapsed(), SECOND);
        });
    }
}
