//! Whether the line goes on taking what waits for it. Pure.
//!
//! It is measured in bytes, over windows of time, and not by how long one write lasts: a batch may be megabytes, which an
//! honest reader at a slow line takes minutes for; and a peer that took each batch just in time, however small, would
//! make us hold what it has asked for without end.
//!
//! What it is not: the counting, which is done where bytes are handed over.

use std::time::{Duration, Instant};

/// The least that a line takes in a window while something waits for it: 4 KiB/s with the default window of 15 s, less than
/// a modem did.
pub(super) const PROGRESS_BYTES_MIN: u64 = 64 << 10;

/// In so many windows all that waits now must be able to leave: 10 minutes with the default window. So that who asks for
/// much and takes little holds it for a time that can be told.
pub(super) const WINDOWS_MAX: u64 = 40;

/// Where a window began.
#[derive(Clone, Copy, Debug)]
struct Mark {
    at: Instant,
    taken_bytes: u64,
}

/// The progress of one line. At rest until something waits.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Progress {
    mark: Option<Mark>,
}

/// What is known of a line's progress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pace {
    /// Nothing waits, or not for long; it is to be asked for again at the instant, if there is one.
    Good(Option<Instant>),
    /// It takes nothing, or next to nothing.
    Stuck,
}

impl Progress {
    /// Something waits for the line, which has taken so many bytes in its life.
    pub(super) fn on_waiting(&mut self, now: Instant, taken_bytes: u64) {
        self.mark.get_or_insert(Mark { at: now, taken_bytes });
    }

    /// Nothing waits any more.
    pub(super) fn on_rest(&mut self) {
        self.mark = None;
    }

    /// Whether something waits.
    pub(super) fn is_busy(&self) -> bool {
        self.mark.is_some()
    }

    /// Judges the window that is over, if one is, and begins the next.
    pub(super) fn check(
        &mut self,
        now: Instant,
        taken_bytes: u64,
        waiting_bytes: u64,
        window: Duration,
    ) -> Pace {
        let Some(mark) = self.mark else { return Pace::Good(None) };
        let end = mark.at + window;
        if now < end {
            return Pace::Good(Some(end));
        }
        if taken_bytes - mark.taken_bytes < PROGRESS_BYTES_MIN.max(waiting_bytes / WINDOWS_MAX) {
            return Pace::Stuck;
        }
        self.mark = Some(Mark { at: now, taken_bytes });
        Pace::Good(Some(now + window))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Duration = Duration::from_secs(15);

    #[test]
    fn a_line_is_stuck_when_it_takes_too_little_in_a_window_and_not_before_it_is_over() {
        let (mut line, start) = (Progress::default(), Instant::now());
        assert_eq!(line.check(start, 0, 0, WINDOW), Pace::Good(None), "nothing waits");
        line.on_waiting(start, 100);
        line.on_waiting(start + WINDOW / 2, 200);
        let early = start + WINDOW - Duration::from_millis(1);
        assert_eq!(line.check(early, 200, 1, WINDOW), Pace::Good(Some(start + WINDOW)));
        let now = start + WINDOW;
        let next = Pace::Good(Some(now + WINDOW));
        assert_eq!(line.check(now, 100 + PROGRESS_BYTES_MIN, 1, WINDOW), next);
        assert_eq!(line.check(now + WINDOW, 99 + 2 * PROGRESS_BYTES_MIN, 1, WINDOW), Pace::Stuck);
    }

    #[test]
    fn who_makes_us_hold_much_has_to_take_it_within_some_windows() {
        let (mut line, start) = (Progress::default(), Instant::now());
        let waiting_bytes = 80 << 20;
        let enough = waiting_bytes / WINDOWS_MAX;
        line.on_waiting(start, 0);
        assert!(matches!(line.check(start + WINDOW, enough, waiting_bytes, WINDOW), Pace::Good(_)));
        assert_eq!(line.check(start + 2 * WINDOW, 2 * enough - 1, waiting_bytes, WINDOW), Pace::Stuck);
    }

    #[test]
    fn a_line_that_has_rested_begins_anew() {
        let (mut line, start) = (Progress::default(), Instant::now());
        line.on_waiting(start, 0);
        line.on_rest();
        let later = start + 2 * WINDOW;
        line.on_waiting(later, 10);
        assert_eq!(line.check(later, 10, 1, WINDOW), Pace::Good(Some(later + WINDOW)));
    }
}
