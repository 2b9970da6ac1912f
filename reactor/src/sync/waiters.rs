//! Coroutines that wait for something that is not a descriptor but is waited for like one, with deadlines.

use std::io::{self, ErrorKind};
use std::time::Instant;

use super::WaitList;
use crate::clock::now;
use crate::coroutine::{self, What, begin};
use crate::timer::Timer;

/// Who waits.
pub(crate) struct Waiters {
    list: WaitList,
    what: What,
}

impl Waiters {
    /// Nobody; a dump will say that they wait for `what`.
    pub(crate) const fn new(what: What) -> Waiters {
        Waiters { list: WaitList::new(), what }
    }

    /// Lets all look again.
    pub(crate) fn wake_all(&self) {
        self.list.notify_all();
    }

    /// Waits until `ready` gives something, or until `deadline`.
    pub(crate) fn wait<T>(
        &self,
        deadline: Option<Instant>,
        mut ready: impl FnMut() -> Option<T>,
    ) -> io::Result<T> {
        let call = begin();
        if let Some(value) = ready() {
            call.needed_no_wait();
            return Ok(value);
        }
        call.over();
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
            coroutine::park_on(self.what);
            if let Some(value) = ready() {
                return Ok(value);
            }
            place.look_again();
        }
    }

    /// The row in which they are told to look again.
    pub(crate) fn list(&self) -> &WaitList {
        &self.list
    }
}
