//! "Something happened": a condition variable for coroutines.

use super::WaitList;
use crate::coroutine::may_suspend;
use crate::select::{Selectable, source::Source};

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
        self.waiters.wait_turn(false, &"a signal");
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

/// Ready when it is notified while [`select`](crate::select) waits.
impl Source for Signal {
    fn is_ready(&self) -> bool {
        false
    }

    fn rows<'a>(&'a self, row: &mut dyn FnMut(&'a WaitList)) {
        row(&self.waiters);
    }

    fn is_told_once(&self) -> bool {
        true
    }
}

impl Selectable for Signal {}
