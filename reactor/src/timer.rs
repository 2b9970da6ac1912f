//! Sleeping, and giving up in time. Timers wait in one queue that the driver fires.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::clock::{deadline_after, now};
use crate::coroutine::{self, Coroutine, Cut};
use crate::error::error_says;
use crate::{driver, sim};

mod queue;

use queue::Queue;
pub(crate) use queue::TimerKey;

/// What a timer does when its time has come.
pub(crate) enum Action {
    Wake(Rc<Coroutine>),
    Cut(Rc<Coroutine>, Cut),
}

/// Armed timers of the reactor.
pub(crate) type TimerQueue = Queue<Action>;

/// An armed timer of the running coroutine, disarmed on drop.
pub struct Timer(Armed);

enum Armed {
    Real(TimerKey),
    Simulated(sim::EventKey, Rc<sim::Process>),
}

impl Timer {
    /// Wakes the running coroutine at `due`.
    pub(crate) fn wake_at(due: Instant) -> Timer {
        Timer::arm(due, Action::Wake(coroutine::current()))
    }

    /// Does `action` at `due`, by the clock of the running coroutine.
    pub(crate) fn arm(due: Instant, action: Action) -> Timer {
        Timer(match sim::here() {
            None => Armed::Real(driver::arm_timer(due, action)),
            Some(process) => Armed::Simulated(process.world().arm(due, action), process),
        })
    }

    /// Unwinds the running coroutine to `cut` at `due`.
    pub(crate) fn cut_at(due: Instant, cut: Cut) -> Timer {
        Timer::arm(due, Action::Cut(coroutine::current(), cut))
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        match &self.0 {
            Armed::Real(key) => driver::disarm_timer(*key),
            Armed::Simulated(key, process) => process.world().disarm(*key),
        }
    }
}

/// Suspends the coroutine for at least `duration`.
///
/// While the coroutine unwinds this returns at once.
///
/// # Panics
///
/// Outside `run`.
///
/// # Suspends
///
/// For `duration`, to the resolution of the poller: a millisecond when nothing else happens. With a duration of zero
/// until the others have had their turn.
pub fn sleep(duration: Duration) {
    sleep_until(deadline_after(duration));
}

/// Suspends the coroutine until `due`; see [`sleep`].
pub fn sleep_until(due: Instant) {
    if !coroutine::may_suspend() {
        return;
    }
    if due <= now() {
        // A loop of these would leave nobody else a turn.
        crate::yield_now();
        return;
    }
    let _timer = Timer::wake_at(due);
    while now() < due {
        coroutine::park_on(&"a time");
    }
}

/// The time given to [`timeout`] was over before the call was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Elapsed;

error_says!(Elapsed: "it took longer than it was given");

impl From<Elapsed> for std::io::Error {
    fn from(elapsed: Elapsed) -> Self {
        std::io::Error::new(std::io::ErrorKind::TimedOut, elapsed)
    }
}

/// Runs `f`, but for no longer than `duration`: then the call that `f` waits in unwinds up to here, or else the next one
/// that may suspend, whether it would have to or not.
///
/// What `f` owned is dropped, in the usual order. Code between two such calls is not interrupted. A call
/// that returns just as its time ends keeps its result.
///
/// # Errors
///
/// [`Elapsed`] when the time was over first.
///
/// # Panics
///
/// With `f`'s panic. Outside `run`.
///
/// # Suspends
///
/// As `f` does, for `duration` at the most.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// reactor::run(|| {
///     let slow = || reactor::sleep(Duration::from_secs(60));
///     assert!(reactor::timeout(Duration::from_millis(5), slow).is_err());
///     assert_eq!(reactor::timeout(Duration::from_secs(5), || 1), Ok(1));
/// });
/// ```
pub fn timeout<T>(duration: Duration, f: impl FnOnce() -> T) -> Result<T, Elapsed> {
    let me = coroutine::current();
    let cut = Cut::new();
    let timer = Timer::arm(deadline_after(duration), Action::Cut(me.clone(), cut));
    let result = catch_unwind(AssertUnwindSafe(f));
    drop(timer);
    let raised = me.withdraw_cut(cut);
    match result {
        Ok(value) => {
            if raised {
                me.note_swallowed("a timeout's end", "returned a result, which counts");
            }
            Ok(value)
        }
        Err(payload) if payload.downcast_ref::<Cut>() == Some(&cut) => Err(Elapsed),
        Err(payload) => resume_unwind(payload),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{run, spawn, yield_now};

    #[test]
    fn an_outer_timeout_unwinds_through_an_inner_one() {
        run(|| {
            let outer = timeout(Duration::from_millis(5), || {
                let inner = timeout(Duration::from_secs(60), || sleep(Duration::from_secs(60)));
                panic!("the inner one must not return, yet gave {inner:?}");
            });
            assert_eq!(outer, Err(Elapsed));
            yield_now();
        });
    }

    #[test]
    fn a_timeout_leaves_nothing_behind_for_the_next_call() {
        run(|| {
            // Held up until the timer has fired: the wake-up arrives while nobody waits.
            let held = timeout(Duration::from_millis(1), || std::thread::sleep(Duration::from_millis(5)));
            assert_eq!(held, Ok(()));
            yield_now();
            sleep(Duration::from_millis(1));
        });
    }

    #[test]
    fn sleepers_wake_in_the_order_of_their_times() {
        run(|| {
            let order = Rc::new(crate::cell::RefCell::new(Vec::new()));
            let start = now();
            let sleepers: Vec<_> = [30u64, 10, 20]
                .into_iter()
                .map(|ms| {
                    let order = order.clone();
                    spawn(move || {
                        sleep_until(start + Duration::from_millis(ms));
                        order.borrow_mut().push(ms);
                    })
                })
                .collect();
            for sleeper in sleepers {
                sleeper.join().unwrap();
            }
            assert_eq!(*order.borrow(), [10, 20, 30]);
        });
    }
}
