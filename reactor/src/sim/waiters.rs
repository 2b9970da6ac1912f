//! Coroutines that wait for a simulated socket, as [`crate::net::Descriptor`] has them for a real one.

use std::io::{self, ErrorKind};
use std::time::Instant;

use crate::clock::now;
use crate::coroutine::{self, spend};
use crate::sync::WaitList;
use crate::timer::Timer;

/// Who waits.
#[derive(Default)]
pub(super) struct Waiters {
    list: WaitList,
}

impl Waiters {
    /// Lets all look again.
    pub(super) fn wake_all(&self) {
        self.list.notify_all();
    }

    /// Waits until `ready` gives something, or until `deadline`.
    pub(super) fn wait<T>(
        &self,
        deadline: Option<Instant>,
        mut ready: impl FnMut() -> Option<T>,
    ) -> io::Result<T> {
        if let Some(value) = ready() {
            spend();
            return Ok(value);
        }
        if !coroutine::may_suspend() {
            let message = "a destructor may not wait while unwinding";
            return Err(io::Error::new(ErrorKind::WouldBlock, message));
        }
        let _timer = deadline.map(Timer::wake_at);
        let place = self.list.join(1);
        loop {
            if deadline.is_some_and(|deadline| deadline <= now()) {
                return Err(io::Error::new(ErrorKind::TimedOut, "the deadline has passed"));
            }
            coroutine::park_on(&"a simulated socket");
            if let Some(value) = ready() {
                return Ok(value);
            }
            place.look_again();
        }
    }

    /// The row in which they are told to look again.
    pub(super) fn list(&self) -> &WaitList {
        &self.list
    }
}
