//! Where other threads leave word for a reactor, and how they end its sleep.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::poller::Bell;

pub(super) struct Mailbox {
    /// Ports, by their keys.
    notified: Mutex<VecDeque<u64>>,
    /// How many are in there, so that the reactor, which looks often and finds little, need not lock.
    count: AtomicUsize,
    bell: Bell,
    /// The reactor is about to block, or blocks: whoever posts must ring.
    asleep: AtomicBool,
}

impl Mailbox {
    pub(super) fn new(bell: Bell) -> Mailbox {
        Mailbox {
            notified: Mutex::default(),
            count: AtomicUsize::new(0),
            bell,
            asleep: AtomicBool::new(false),
        }
    }

    fn notified(&self) -> MutexGuard<'_, VecDeque<u64>> {
        self.notified.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Leaves word for the port of that key. From any thread.
    pub(super) fn post(&self, key: u64) {
        {
            let mut notified = self.notified();
            notified.push_back(key);
            self.count.store(notified.len(), Ordering::SeqCst);
        }
        // Pairs with `sleep`: either it sees the word, or we see it asleep.
        if self.asleep.swap(false, Ordering::SeqCst)
            && let Err(error) = self.bell.ring()
        {
            tracing::error!("could not wake the reactor: {error}");
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.count.load(Ordering::SeqCst) == 0
    }

    /// The first word that was left.
    pub(super) fn take(&self) -> Option<u64> {
        if self.is_empty() {
            return None;
        }
        let mut notified = self.notified();
        let key = notified.pop_front();
        self.count.store(notified.len(), Ordering::SeqCst);
        key
    }

    /// Calls `block`, which a word that is left ends; not at all where one has been left already.
    pub(super) fn sleep(&self, block: impl FnOnce()) {
        self.asleep.store(true, Ordering::SeqCst);
        if self.is_empty() {
            block();
        }
        self.asleep.store(false, Ordering::SeqCst);
    }
}
