//! Waiting for a change of who is near.
//!
//! A watcher learns *that* something changed, never a list of changes: it asks the overlay again and compares. So a
//! slow watcher misses nothing, and nothing queues up for it.

use std::cell::Cell;
use std::rc::Rc;

use reactor::sync::Signal;

/// The side that announces changes; an implementer of [`Overlay`](crate::Overlay) keeps one.
#[derive(Clone, Default)]
pub struct Changes {
    shared: Rc<Shared>,
}

/// The side that waits for them.
pub struct Watch {
    shared: Rc<Shared>,
    seen: u64,
}

#[derive(Default)]
struct Shared {
    version: Cell<u64>,
    signal: Signal,
}

impl Changes {
    /// No change so far.
    pub fn new() -> Changes {
        Changes::default()
    }

    /// Wakes every watcher.
    pub fn announce(&self) {
        self.shared.version.set(self.shared.version.get() + 1);
        self.shared.signal.notify_all();
    }

    /// A watcher of all changes from now on.
    pub fn watch(&self) -> Watch {
        Watch { shared: self.shared.clone(), seen: self.shared.version.get() }
    }
}

impl Watch {
    /// Whether something changed since the last [`wait`](Watch::wait).
    pub fn is_changed(&self) -> bool {
        self.shared.version.get() != self.seen
    }

    /// Waits until something changed since the last call of this (or since the watch began).
    ///
    /// # Suspends
    /// Until then; returns at once if it already has.
    pub fn wait(&mut self) {
        while !self.is_changed() {
            self.shared.signal.wait();
        }
        self.seen = self.shared.version.get();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_changes_wake_a_watcher_once() {
        reactor::run(|| {
            let changes = Changes::new();
            let mut watch = changes.watch();
            changes.announce();
            changes.announce();
            watch.wait();
            assert!(!watch.is_changed());
            let waiting = reactor::spawn(move || watch.wait());
            reactor::yield_now();
            assert!(!waiting.is_finished());
            changes.announce();
            waiting.join().unwrap();
        });
    }
}
