//! Keeps changes out while a merge is under way.
//!
//! A merge reads both trees, which takes as long as the store does, and all that it decides is about the changes that
//! were there when it began. So whoever wants to change something then waits, before it has changed anything; whoever
//! only reads goes on, and sees the state before the merge until it is through. It ends within the time that fetches are
//! given, one way or the other: a merge that fails leaves everything as it was.

use std::cell::Cell;

use reactor::sync::Signal;

use super::Volume;
use super::state::{State, Step, Stop};
use crate::errno::Errno;

/// Open, but for merges.
#[derive(Default)]
pub(super) struct Gate {
    is_closed: Cell<bool>,
    opened: Signal,
}

/// The gate is closed as long as this lives.
pub(super) struct Closed<'a>(&'a Gate);

impl Gate {
    /// Closes it. There is one merge at a time: only the committer, and an opening before it, merge.
    pub(super) fn close(&self) -> Closed<'_> {
        self.is_closed.set(true);
        Closed(self)
    }

    /// Whether no merge is under way.
    pub(super) fn is_open(&self) -> bool {
        !self.is_closed.get()
    }

    /// Waits until it is open.
    pub(super) fn wait(&self) {
        while self.is_closed.get() {
            self.opened.wait();
        }
    }
}

impl Drop for Closed<'_> {
    fn drop(&mut self) {
        self.0.is_closed.set(false);
        self.0.opened.notify_all();
    }
}

impl Volume {
    /// Runs an operation that changes the state, as [`step`](Volume::step) runs any, but never within a merge.
    ///
    /// # Suspends
    ///
    /// While something is missing, or a merge is under way.
    pub(super) fn change_step<T>(
        &self,
        mut operation: impl FnMut(&mut State) -> Step<T>,
    ) -> Result<T, Errno> {
        self.step(|state| {
            if self.gate.is_closed.get() {
                return Err(Stop::Merging);
            }
            operation(state)
        })
    }
}
