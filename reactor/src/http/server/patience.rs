//! Deadlines for thousands of connections without a timer for each request.
//!
//! Arming a timer for every wait costs more than parsing the request does. Here a wait only notes, in a cell, until
//! when it may last; one housekeeper looks at all the cells every tick. So a deadline is kept to a tick, which is
//! nothing against the seconds that these are about, and never fires early.
//!
//! What it is not: for precise times, use [`crate::timeout`].

use std::cell::{Cell, RefCell};
use std::io::{self, ErrorKind};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;
use std::time::Duration;

use crate::coroutine::{self, Coroutine, Cut};

/// Milliseconds since the server started, as of the last tick.
#[derive(Default)]
pub(super) struct CoarseClock {
    now_ms: Cell<u64>,
    tick_ms: Cell<u64>,
}

impl CoarseClock {
    pub(super) fn new(tick: Duration) -> CoarseClock {
        CoarseClock { now_ms: Cell::new(0), tick_ms: Cell::new(tick.as_millis() as u64) }
    }

    pub(super) fn set(&self, since_start: Duration) {
        self.now_ms.set(since_start.as_millis() as u64);
    }

    /// The first tick that is certain to be `limit` from now.
    fn after(&self, limit: Duration) -> u64 {
        self.now_ms.get() + self.tick_ms.get() + limit.as_millis() as u64
    }
}

/// How long one side of a connection may wait.
pub(super) struct Patience {
    clock: Rc<CoarseClock>,
    due_ms: Cell<u64>,
    cut: Cut,
    waiting: RefCell<Option<Rc<Coroutine>>>,
}

impl Patience {
    pub(super) fn new(clock: &Rc<CoarseClock>) -> Patience {
        Patience {
            clock: clock.clone(),
            due_ms: Cell::new(u64::MAX),
            cut: Cut::new(),
            waiting: RefCell::new(None),
        }
    }

    /// From now on, waits may last `limit` all together.
    pub(super) fn arm(&self, limit: Duration) {
        self.due_ms.set(self.clock.after(limit));
    }

    /// Runs `f`, which waits; gives up with `TimedOut` when the time is over.
    pub(super) fn wait<T>(&self, f: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        let me = coroutine::current();
        *self.waiting.borrow_mut() = Some(me.clone());
        let result = catch_unwind(AssertUnwindSafe(f));
        *self.waiting.borrow_mut() = None;
        me.withdraw_cut(self.cut);
        match result {
            Ok(result) => result,
            Err(payload) if payload.downcast_ref::<Cut>() == Some(&self.cut) => {
                Err(ErrorKind::TimedOut.into())
            }
            Err(payload) => resume_unwind(payload),
        }
    }

    /// Ends the wait if its time is over; the housekeeper calls it every tick.
    pub(super) fn check(&self) {
        if self.due_ms.get() <= self.clock.now_ms.get() {
            self.expire();
        }
    }

    /// Ends the wait now, if there is one.
    pub(super) fn expire(&self) {
        if let Some(waiting) = &*self.waiting.borrow() {
            waiting.cut_to(self.cut);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_ends_at_its_time_and_never_before() {
        crate::run(|| {
            let clock = Rc::new(CoarseClock::new(Duration::from_millis(10)));
            let patience = Rc::new(Patience::new(&clock));
            patience.arm(Duration::from_millis(100));
            let waiting = patience.clone();
            let waiter = crate::spawn(move || {
                waiting.wait(|| {
                    crate::sleep(Duration::from_secs(60));
                    Ok(())
                })
            });
            for at in 0..110 {
                clock.set(Duration::from_millis(at));
                patience.check();
                crate::yield_now();
                assert!(!waiter.is_finished(), "{at}");
            }
            clock.set(Duration::from_millis(110));
            patience.check();
            assert_eq!(waiter.join().unwrap().unwrap_err().kind(), ErrorKind::TimedOut);
            // Nothing of it is left for the next wait.
            let go_on = patience.wait(|| {
                crate::yield_now();
                Ok(())
            });
            assert!(go_on.is_ok());
        });
    }
}
