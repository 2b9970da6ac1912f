//! Deadlines for thousands of connections without a timer for each request.
//!
//! Arming a timer for every wait costs more than parsing the request does. Here a wait only notes, in a cell, until
//! when it may last; one housekeeper looks at all the cells every tick. So a deadline is kept to a tick, which is
//! nothing against the seconds that these are about, and never fires early.
//!
//! What it is not: for precise times, use [`crate::timeout`].

use std::cell::Cell;
use std::io::{self, ErrorKind};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;
use std::time::Duration;

use super::wire::PROGRESS_BYTES;
use crate::cell::RefCell;
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

    /// The last tick, in milliseconds since the start.
    pub(super) fn now_ms(&self) -> u64 {
        self.now_ms.get()
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
    /// What was last armed, and when the last wait ended: time in which nobody waits does not count.
    limit: Cell<Duration>,
    rested_ms: Cell<u64>,
    /// What the line has taken, and what it had when this was armed.
    line: RefCell<Option<Rc<Cell<u64>>>>,
    line_mark: Cell<u64>,
    /// Who waits, and the frame of that wait, which is another each time: it is inside of all that was begun before, shields and
    /// timeouts.
    waiting: RefCell<Option<(Rc<Coroutine>, Cut)>>,
}

impl Patience {
    pub(super) fn new(clock: &Rc<CoarseClock>) -> Patience {
        Patience {
            clock: clock.clone(),
            due_ms: Cell::new(u64::MAX),
            limit: Cell::default(),
            rested_ms: Cell::new(0),
            line: RefCell::default(),
            line_mark: Cell::new(0),
            waiting: RefCell::new(None),
        }
    }

    /// From now on, waits may last `limit` all together. What happens between two waits is not the client's time.
    pub(super) fn arm(&self, limit: Duration) {
        self.limit.set(limit);
        self.due_ms.set(self.clock.after(limit));
        self.rested_ms.set(self.clock.now_ms.get());
        self.line_mark.set(self.line_bytes());
    }

    /// Measures progress by what `line` counts, where one wait hands over much more than is borne in its time: it is
    /// extended while the line takes [`PROGRESS_BYTES`] in each.
    pub(super) fn follow(&self, line: Option<Rc<Cell<u64>>>) {
        *self.line.borrow_mut() = line;
    }

    fn line_bytes(&self) -> u64 {
        self.line.borrow().as_ref().map_or(0, |line| line.get())
    }

    /// Runs `f`, which waits; gives up with `TimedOut` when the time is over.
    pub(super) fn wait<T>(&self, f: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        let me = coroutine::current();
        let rested_ms = self.clock.now_ms.get() - self.rested_ms.get();
        self.due_ms.set(self.due_ms.get().saturating_add(rested_ms));
        let cut = Cut::new();
        *self.waiting.borrow_mut() = Some((me.clone(), cut));
        let result = catch_unwind(AssertUnwindSafe(f));
        *self.waiting.borrow_mut() = None;
        self.rested_ms.set(self.clock.now_ms.get());
        me.withdraw_cut(cut);
        match result {
            Ok(result) => result,
            Err(payload) if payload.downcast_ref::<Cut>() == Some(&cut) => Err(ErrorKind::TimedOut.into()),
            Err(payload) => resume_unwind(payload),
        }
    }

    /// Whether somebody waits.
    pub(super) fn is_waiting(&self) -> bool {
        self.waiting.borrow().is_some()
    }

    /// Ends the wait if its time is over; the housekeeper calls it every tick.
    pub(super) fn check(&self) {
        if self.due_ms.get() > self.clock.now_ms.get() || self.waiting.borrow().is_none() {
            return;
        }
        if self.line_bytes() - self.line_mark.get() >= PROGRESS_BYTES as u64 {
            self.arm(self.limit.get());
        } else {
            self.expire();
        }
    }

    /// Ends the wait now, if there is one.
    pub(super) fn expire(&self) {
        if let Some((waiting, cut)) = &*self.waiting.borrow() {
            waiting.cut_to(*cut);
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

    /// A clock that stands at zero, a patience of 100 ms, and a coroutine that waits under it twice: 50 ms, and for good.
    fn waits_twice(between_ms: u64) -> (Rc<CoarseClock>, Rc<Patience>, crate::JoinHandle<io::Result<()>>) {
        let clock = Rc::new(CoarseClock::new(Duration::from_millis(10)));
        let patience = Rc::new(Patience::new(&clock));
        patience.arm(Duration::from_millis(100));
        let (waiting, ticking) = (patience.clone(), clock.clone());
        let waiter = crate::spawn(move || {
            waiting.wait(|| {
                ticking.set(Duration::from_millis(50));
                Ok(())
            })?;
            ticking.set(Duration::from_millis(50 + between_ms));
            waiting.wait(|| {
                crate::sleep(Duration::from_secs(60));
                Ok(())
            })
        });
        (clock, patience, waiter)
    }

    #[test]
    fn time_in_which_nobody_waits_does_not_count() {
        crate::run(|| {
            let (clock, patience, waiter) = waits_twice(10_000);
            for (at, over) in [(10_050, false), (10_100, false), (10_110, true)] {
                clock.set(Duration::from_millis(at));
                patience.check();
                crate::yield_now();
                assert_eq!(waiter.is_finished(), over, "{at}");
            }
            assert_eq!(waiter.join().unwrap().unwrap_err().kind(), ErrorKind::TimedOut);
        });
    }

    #[test]
    fn one_long_wait_is_borne_while_the_line_takes_enough() {
        crate::run(|| {
            let line = Rc::new(Cell::new(0));
            let (clock, patience, waiter) = waits_twice(0);
            patience.follow(Some(line.clone()));
            for round in 1..=5 {
                line.set(round * PROGRESS_BYTES as u64);
                clock.set(Duration::from_millis(200 * round));
                patience.check();
                crate::yield_now();
                assert!(!waiter.is_finished());
            }
            line.set(line.get() + PROGRESS_BYTES as u64 - 1);
            clock.set(Duration::from_millis(2_000));
            patience.check();
            assert_eq!(waiter.join().unwrap().unwrap_err().kind(), ErrorKind::TimedOut);
        });
    }

    #[test]
    fn a_wait_under_a_shield_ends_at_its_time_too() {
        crate::run(|| {
            let clock = Rc::new(CoarseClock::new(Duration::from_millis(10)));
            let patience = Rc::new(Patience::new(&clock));
            patience.arm(Duration::from_millis(100));
            let waiting = patience.clone();
            let waiter = crate::spawn(move || {
                crate::uninterruptible(|| {
                    waiting.wait(|| {
                        crate::sleep(Duration::from_secs(600));
                        Ok(())
                    })
                })
            });
            clock.set(Duration::from_millis(110));
            patience.check();
            crate::yield_now();
            assert!(waiter.is_finished(), "the client's time does not end in there");
            assert_eq!(waiter.join().unwrap().unwrap_err().kind(), ErrorKind::TimedOut);
        });
    }

    #[test]
    fn a_timeout_around_a_wait_is_not_lost_when_both_end_at_once() {
        crate::run(|| {
            let clock = Rc::new(CoarseClock::new(Duration::from_millis(10)));
            let patience = Rc::new(Patience::new(&clock));
            let waiting = patience.clone();
            let waiter = crate::spawn(move || {
                let (me, frame) = (coroutine::current(), Cut::new());
                let around = catch_unwind(AssertUnwindSafe(|| {
                    let _ = waiting.wait(|| {
                        // The timeout, and then the client's time, before this one runs again.
                        me.cut_to(frame);
                        waiting.expire();
                        crate::yield_now();
                        Ok(())
                    });
                    crate::sleep(Duration::from_secs(600));
                }));
                me.withdraw_cut(frame);
                around.is_err()
            });
            for _ in 0..10 {
                crate::yield_now();
            }
            assert!(waiter.is_finished(), "it has no limit any more");
            assert!(waiter.join().unwrap());
        });
    }
}
