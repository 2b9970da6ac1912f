//! Whether a router has forgotten its mappings, by the clock that it shows with each answer. Pure.
//!
//! That clock begins at 0 when the mappings are lost, and runs as ours does: if it has gone back, or differs from ours by more
//! than clocks do, nothing that was mapped is to be relied on (RFC 6887, section 8.5; RFC 6886, section 3.6).

use std::time::Instant;

/// What was last seen of a router's clock.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Epoch {
    last: Option<(u32, Instant)>,
}

impl Epoch {
    /// An answer has come; whether the router has kept its mappings since the one before.
    pub(super) fn on_seen(&mut self, epoch_s: u32, now: Instant) -> bool {
        let Some((before_s, at)) = self.last.replace((epoch_s, now)) else { return true };
        // One second back is rounding.
        if epoch_s.saturating_add(1) < before_s {
            return false;
        }
        let ours = now.saturating_duration_since(at).as_secs();
        let its = u64::from(epoch_s.saturating_sub(before_s));
        // 1/16 and two seconds, as RFC 6887 has it.
        ours + 2 >= its - its / 16 && its + 2 >= ours - ours / 16
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_clock_that_goes_on_is_believed_and_one_that_begins_anew_or_jumps_is_not() {
        let start = Instant::now();
        for (after_s, shown_s, is_kept) in [
            (60, 1_060, true),
            (60, 1_064, true),
            (60, 1_057, true),
            (0, 999, true),
            (3_600, 4_700, true),
            (60, 0, false),
            (60, 59, false),
            (60, 990, false),
            (60, 1_200, false),
            (3_600, 1_100, false),
        ] {
            let mut epoch = Epoch::default();
            assert!(epoch.on_seen(1_000, start), "the first says nothing");
            let now = start + Duration::from_secs(after_s);
            assert_eq!(epoch.on_seen(shown_s, now), is_kept, "{shown_s} after {after_s} s");
            assert!(epoch.on_seen(shown_s + 60, now + Duration::from_secs(60)), "it is told once");
        }
        let mut at_the_end = Epoch::default();
        assert!(at_the_end.on_seen(u32::MAX, start) && at_the_end.on_seen(u32::MAX, start));
    }
}
