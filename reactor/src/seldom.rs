//! Warnings about trouble that lasts: told now and then, and not each time that it is met.
//!
//! A loop that tries again fifty times a second, or a flood of requests of which each is refused, would fill the log with
//! one sentence.

use std::cell::Cell;
use std::time::{Duration, Instant};

/// How often trouble is a warning and not a detail.
const EVERY: Duration = Duration::from_secs(10);

/// Remembers when something was told.
pub(crate) struct Seldom(Cell<Option<Instant>>);

impl Seldom {
    pub(crate) const fn new() -> Seldom {
        Seldom(Cell::new(None))
    }

    /// Whether it is to be told again at `now`; if so, it has been.
    pub(crate) fn is_due(&self, now: Instant) -> bool {
        let is_due = self.0.get().is_none_or(|told_at| now >= told_at + EVERY);
        if is_due {
            self.0.set(Some(now));
        }
        is_due
    }
}

/// As `tracing::warn!`, at most every ten seconds for each place and thread; in between as `tracing::debug!`.
macro_rules! warn_seldom {
    ($($told:tt)*) => {{
        thread_local! { static TOLD: $crate::seldom::Seldom = const { $crate::seldom::Seldom::new() }; }
        if TOLD.with(|told| told.is_due($crate::now())) {
            tracing::warn!($($told)*);
        } else {
            tracing::debug!($($told)*);
        }
    }};
}
pub(crate) use warn_seldom;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trouble_that_lasts_is_told_now_and_then() {
        let (seldom, start, pause) = (Seldom::new(), Instant::now(), Duration::from_millis(20));
        let told = (0..1_500).filter(|n| seldom.is_due(start + pause * *n)).count();
        assert_eq!(told, 3, "in half a minute");
    }
}
