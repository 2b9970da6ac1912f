//! Whether a small write may go to the page cache on the reactor's own thread.
//!
//! It is there in a few microseconds, a fraction of what a trip to another thread and back takes. But where much waits to be
//! written back the kernel makes whoever writes wait, for some hundred milliseconds at the most, and here that would hold up
//! everybody. No flag asks for a write that would rather fail than wait: ext4 and tmpfs refuse `RWF_NOWAIT`. So it is
//! learnt: after one that took long others go elsewhere for a while, and for longer each time that this happens again.
//!
//! Not here: which files this is for, and the writing.

use std::cell::Cell;
use std::time::{Duration, Instant};

/// A write that takes longer has waited for something.
const LONG: Duration = Duration::from_millis(1);
/// For how long others go elsewhere after the first of these. With the longest wait there is, a fifth of the time is lost
/// that once.
const PAUSE_MIN: Duration = Duration::from_secs(1);
/// For how long at the most: then waiting costs next to nothing.
const PAUSE_MAX: Duration = Duration::from_secs(64);

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Prompt {
    /// Since when it may be tried (again).
    since: Cell<Option<Instant>>,
    pause: Cell<Duration>,
}

impl Prompt {
    pub(super) fn new() -> Prompt {
        Prompt { since: Cell::new(None), pause: Cell::new(PAUSE_MIN) }
    }

    /// Whether a write may be tried here.
    pub(super) fn may_try(&self, now: Instant) -> bool {
        self.since.get().is_none_or(|since| now >= since)
    }

    /// One was tried.
    pub(super) fn note(&self, begun: Instant, ended: Instant) {
        let pause = self.pause.get();
        if ended.saturating_duration_since(begun) > LONG {
            self.since.set(Some(ended + pause));
            self.pause.set((pause * 2).min(PAUSE_MAX));
        } else if self.since.get().is_some_and(|since| ended > since + pause) {
            // None has waited for as long as the next pause would be.
            self.since.set(None);
            self.pause.set(PAUSE_MIN);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_one_that_waited_others_go_elsewhere_for_longer_each_time() {
        let (prompt, mut now) = (Prompt::new(), Instant::now());
        assert!(prompt.may_try(now));
        prompt.note(now, now + LONG);
        assert!(prompt.may_try(now + LONG), "that was none");
        let mut pauses = Vec::new();
        for _ in 0..9 {
            let ended = now + 2 * LONG;
            prompt.note(now, ended);
            now = ended;
            while !prompt.may_try(now) {
                now += PAUSE_MIN / 4;
            }
            pauses.push((now - ended).as_secs());
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 64, 64, 64]);
    }

    #[test]
    fn what_was_long_ago_does_not_count() {
        let (prompt, begun) = (Prompt::new(), Instant::now());
        prompt.note(begun, begun + 2 * LONG);
        let later = begun + 4 * PAUSE_MIN;
        prompt.note(later, later);
        prompt.note(later, later + 2 * LONG);
        assert!(prompt.may_try(later + 2 * LONG + PAUSE_MIN), "as after the first");
    }
}
