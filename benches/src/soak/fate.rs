//! What befalls a session: it ends by itself, or is terminated, or its time is over.

use crate::random::Random;
use reactor::JoinHandle;
use std::cell::Cell;
use std::time::Duration;

/// How long a session may last before it counts as stuck. Its longest wait is some hundred milliseconds; the rest is
/// for a machine that does something else meanwhile.
const STUCK_AFTER: Duration = Duration::from_secs(60);

/// How often each thing happened.
#[derive(Debug, Default)]
pub struct Counts {
    /// Sessions begun.
    pub sessions: Cell<u64>,
    /// Sessions terminated from outside.
    pub terminated: Cell<u64>,
    /// Sessions whose time was over.
    pub timed_out: Cell<u64>,
    /// Connections that were left with a reset.
    pub resets: Cell<u64>,
}

impl Counts {
    /// Counts one more of `which`.
    pub fn count(which: &Cell<u64>) {
        which.set(which.get() + 1);
    }
}

/// Runs `session` to whatever end `random` has in mind for it.
///
/// # Panics
/// Panics with the session's panic, and when it is stuck.
pub fn befall(counts: &Counts, random: &Random, session: impl FnOnce() + 'static) {
    Counts::count(&counts.sessions);
    match random.below(4) {
        // Terminated, at times before it does anything or long after it has ended.
        0 => {
            let handle = reactor::spawn(session);
            reactor::sleep(random.time_below_ms(30));
            handle.terminate();
            if expect_end(handle).is_none() {
                Counts::count(&counts.terminated);
            }
        }
        1 => {
            let limit = random.time_below_ms(30);
            let timed_out = reactor::spawn(move || reactor::timeout(limit, session).is_err());
            if expect_end(timed_out) == Some(true) {
                Counts::count(&counts.timed_out);
            }
        }
        _ => {
            let ended = expect_end(reactor::spawn(session));
            assert!(ended.is_some(), "a session was terminated by nobody");
        }
    }
}

/// Joins a session; None if it was terminated.
fn expect_end<T: 'static>(handle: JoinHandle<T>) -> Option<T> {
    match reactor::timeout(STUCK_AFTER, || handle.join()) {
        Ok(joined) => joined.ok(),
        Err(_) => panic!("a session is stuck for {} s", STUCK_AFTER.as_secs()),
    }
}
