//! The time that coroutines see.

use std::time::Instant;

/// The present instant, monotonic. Never suspends.
///
/// Code that decides by time takes it from here, or better as an argument, and not from the system: so it can
/// run under another clock.
pub fn now() -> Instant {
    Instant::now()
}
