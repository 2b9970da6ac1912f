//! How long to wait before one tries again.

use std::time::Duration;

use crate::{random, sleep};

/// Delays that double after each failure, with jitter.
///
/// The n-th delay lies between half of `first * 2^n` and all of it, at random, and `max` bounds it. Half of it is
/// fixed so that no try follows at once; half is random so that clients that failed together do not come back
/// together ("equal jitter": Brooker 2015, "Exponential Backoff And Jitter").
///
/// Pure but for [`Backoff::wait`] and [`retry`].
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use reactor::Backoff;
///
/// let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(10));
/// assert_eq!(backoff.next_delay(0), Duration::from_millis(50));
/// assert_eq!(backoff.next_delay(0), Duration::from_millis(100));
/// assert!(backoff.next_delay(u64::MAX) <= Duration::from_millis(400));
/// backoff.reset();
/// assert_eq!(backoff.next_delay(0), Duration::from_millis(50));
/// ```
#[derive(Clone, Debug)]
pub struct Backoff {
    first: Duration,
    max: Duration,
    failure_count: u32,
}

impl Backoff {
    /// Delays from `first` up to `max`.
    pub const fn new(first: Duration, max: Duration) -> Backoff {
        Backoff { first, max, failure_count: 0 }
    }

    /// The delay after one more failure; all values of `random` are equally likely.
    pub fn next_delay(&mut self, random: u64) -> Duration {
        let doubled = 2u32.checked_pow(self.failure_count).and_then(|factor| self.first.checked_mul(factor));
        let ceiling = doubled.unwrap_or(self.max).min(self.max);
        self.failure_count = self.failure_count.saturating_add(1);
        let half = ceiling / 2;
        half + half.mul_f64(random as f64 / u64::MAX as f64)
    }

    /// Failures since the start or the last success.
    pub fn failure_count(&self) -> u32 {
        self.failure_count
    }

    /// Starts again with the first delay: after a success.
    pub fn reset(&mut self) {
        self.failure_count = 0;
    }

    /// Waits for the delay after one more failure.
    ///
    /// # Suspends
    ///
    /// For that long.
    pub fn wait(&mut self) {
        let delay = self.next_delay(random::number());
        sleep(delay);
    }
}

/// Calls `f` until it succeeds, at most `tries_max` times, with `backoff`'s delays in between.
///
/// # Errors
///
/// The last try's.
///
/// # Panics
///
/// With `f`'s panic; with `tries_max` zero. Outside [`crate::run`].
///
/// # Suspends
///
/// As `f` does, and between tries. Bound the whole with [`crate::timeout`].
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use reactor::Backoff;
///
/// let mut tries = 0;
/// let answer = reactor::run(|| {
///     let backoff = Backoff::new(Duration::from_millis(1), Duration::from_millis(5));
///     reactor::retry(backoff, 5, || {
///         tries += 1;
///         if tries < 3 { Err("not yet") } else { Ok("at last") }
///     })
/// });
/// assert_eq!(answer, Ok("at last"));
/// ```
pub fn retry<T, E>(
    mut backoff: Backoff,
    tries_max: u32,
    mut f: impl FnMut() -> Result<T, E>,
) -> Result<T, E> {
    assert!(tries_max > 0, "what is never tried gives no result");
    for _ in 1..tries_max {
        if let Ok(value) = f() {
            return Ok(value);
        }
        backoff.wait();
    }
    f()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::{self, SimConfig};

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn delays_double_up_to_their_bound_and_never_fall_below_half_of_it() {
        for random in [0, 1, u64::MAX / 2, u64::MAX] {
            let mut backoff = Backoff::new(10 * MS, 100 * MS);
            for ceiling in [10, 20, 40, 80, 100, 100, 100] {
                let delay = backoff.next_delay(random);
                assert!(delay >= ceiling * MS / 2 && delay <= ceiling * MS, "{delay:?} of {ceiling} ms");
            }
        }
    }

    #[test]
    fn after_very_many_failures_the_delay_is_still_the_bound() {
        let mut backoff = Backoff { failure_count: u32::MAX, ..Backoff::new(MS, Duration::from_secs(60)) };
        assert_eq!(backoff.next_delay(0), Duration::from_secs(30));
        assert_eq!(backoff.failure_count(), u32::MAX);
    }

    #[test]
    fn a_retry_waits_between_tries_and_gives_the_last_error() {
        let elapsed = sim::run(7, SimConfig::default(), |world| {
            let mut tries = 0;
            let failed: Result<(), u32> = retry(Backoff::new(100 * MS, 100 * MS), 4, || {
                tries += 1;
                Err(tries)
            });
            assert_eq!(failed, Err(4));
            world.elapsed()
        });
        assert!(elapsed >= 150 * MS && elapsed <= 300 * MS, "three delays: {elapsed:?}");
    }

    #[test]
    fn jitter_keeps_two_clients_that_failed_together_apart() {
        let ends = sim::run(7, SimConfig::default(), |world| {
            crate::join_all((0..2).map(|_| {
                || {
                    Backoff::new(100 * MS, 100 * MS).wait();
                    world.elapsed()
                }
            }))
        });
        assert_ne!(ends[0], ends[1]);
    }
}
