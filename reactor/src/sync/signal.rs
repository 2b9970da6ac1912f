//! "Something happened": a condition variable for coroutines.

use super::WaitList;
use crate::coroutine::may_suspend;

/// Wakes those who wait at the moment it is notified; it remembers nothing.
///
/// With one thread no wake-up can slip in between looking at a condition and waiting for its change:
/// `while !ready.get() { changed.wait() }` needs no lock.
#[derive(Default)]
pub struct Signal {
    waiters: WaitList,
}

impl Signal {
    /// A signal that nobody waits for.
    pub const fn new() -> Signal {
        Signal { waiters: WaitList::new() }
    }

    /// Waits for the next notification; while the caller unwinds it returns at once.
    ///
    /// # Suspends
    ///
    /// Until then.
    pub fn wait(&self) {
        if !may_suspend() {
            return;
        }
        self.waiters.wait_for(1, |notified| {
            if notified {
                self.waiters.notify_one();
            }
        });
    }

    /// Wakes the one who has waited longest; whether there was one. Never suspends.
    pub fn notify_one(&self) -> bool {
        self.waiters.notify_one()
    }

    /// Wakes all, in the order they came. Never suspends.
    pub fn notify_all(&self) {
        self.waiters.notify_all();
    }
}
