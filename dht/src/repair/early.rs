//! How often a change of who is near brings a round before its time. Pure.
//!
//! A round compares all keys with all neighbours, on both sides. Anybody near can bring one about: by leaving and coming back, by
//! signing that it is elsewhere now, once a second if it likes. So there are some at once, for the changes that come when machines
//! start, restart and die; and beyond these one for each period, so that in the long run nobody can have more than twice as many
//! rounds run as there are anyhow.

use std::time::{Duration, Instant};

/// Rounds before their time that may follow each other: a machine's restart is two changes, and a small network's all of them
/// some ten.
const AT_ONCE: u32 = 16;

/// What is left of them.
#[derive(Debug)]
pub(super) struct EarlyRounds {
    left: u32,
    period: Duration,
    /// When the next one is added.
    grows_at: Instant,
}

impl EarlyRounds {
    /// All of them are left; another one comes with each `period`.
    pub(super) fn new(period: Duration, now: Instant) -> EarlyRounds {
        EarlyRounds { left: AT_ONCE, period, grows_at: now + period }
    }

    /// Takes one, if one is left.
    pub(super) fn take(&mut self, now: Instant) -> bool {
        while now >= self.grows_at && self.left < AT_ONCE {
            self.left += 1;
            self.grows_at += self.period;
        }
        if self.left == AT_ONCE {
            self.grows_at = now + self.period;
        }
        let has_one = self.left > 0;
        self.left -= u32::from(has_one);
        has_one
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_a_second_brings_one_round_a_period_once_those_at_once_are_used_up() {
        let (start, period) = (Instant::now(), Duration::from_secs(60));
        let mut early = EarlyRounds::new(period, start);
        let taken = |early: &mut EarlyRounds, from: u64, to: u64| {
            (from..to).filter(|second| early.take(start + Duration::from_secs(*second))).count()
        };
        assert_eq!(taken(&mut early, 0, 60), AT_ONCE as usize);
        assert_eq!(taken(&mut early, 60, 3600), 59);
        // After an hour's quiet all are there again, and no more.
        assert_eq!(taken(&mut early, 7200, 7260), AT_ONCE as usize);
    }
}
