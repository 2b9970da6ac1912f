//! What every call that may suspend does, whether it has to or not.
//!
//! As it begins it looks whether its coroutine is to unwind, for its termination or a timeout's end. A loop of calls that
//! need not wait would otherwise never see either, and a peer that always has something to say could hold up whoever waits
//! for the coroutine's end. When it has gone through without suspending, it counts: see [`super::budget`]. So does one that
//! fails, since a loop that tries again whatever comes is a loop like any other.
//!
//! A call that has to wait looks once more when its wait is over.
//!
//! # The rule
//!
//! So each such call is a place where its caller may unwind, and somebody may catch that ([`crate::timeout`]) and go on.
//! Nothing may be lost there in silence:
//!
//! 1. **Take last.** What is taken out of its place (`take`, `pop`, bytes that are read, a state that is replaced) is taken
//!    behind the last call that may suspend, and returned, or put where the next call finds it, before the next one. A call
//!    that is made of others begins here before it takes, for an inner one sees a cut that was set in passing although
//!    nothing has to be waited for.
//! 2. **Or mark it torn.** Where that cannot be, since what is half gone cannot be put back (bytes that a stream has taken in
//!    part), it is marked before the wait and unmarked behind it, and whoever comes next gets an error and no hole: the
//!    WebSocket's `broken`, the HTTP server's `torn`.
//! 3. **Or shield it**, where the wait is short and needs nobody who may be slow: [`super::uninterruptible`].
//!
//! The primitives keep the first: channels, locks, descriptors, streams in memory, datagrams, select. [`super::break_off_at`]
//! tries every place of a piece of code, one after another, and is what its tests are made with.

#[cfg(debug_assertions)]
use super::forbids;
use super::{Coroutine, budget, current, may_suspend, turns, with_current};

/// A call that may suspend, and has begun: see [`begin`]. However it ends, it counts, unless that is told to be [`Call::over`].
#[must_use = "a call that goes through without suspending counts"]
pub(crate) struct Call(());

/// It has failed, or its coroutine unwinds.
impl Drop for Call {
    #[inline]
    fn drop(&mut self) {
        budget::spend();
    }
}

/// Begins a call that may suspend. The first thing that such a call does; one that is made of others too, where it takes
/// something before the first of them.
///
/// # Panics
///
/// Unwinds if the coroutine has been terminated or a timeout around it has elapsed. Neither in a destructor that runs while
/// its coroutine unwinds, nor where suspending is forbidden, nor outside of coroutines: what need not wait goes through there.
///
/// In debug builds, where the coroutine holds a borrow: see [`crate::cell`].
#[inline]
#[cfg_attr(debug_assertions, track_caller)]
pub(crate) fn begin() -> Call {
    #[cfg(debug_assertions)]
    forbids::check_holds_nothing();
    let is_cut = turns::with(|turns| turns.with_current(|me| me.is_some_and(Coroutine::is_cut)));
    if is_cut {
        unwind_if_it_may();
    }
    Call(())
}

#[cold]
fn unwind_if_it_may() {
    if may_suspend() && with_current(|me| me.is_some_and(Coroutine::unwinds_unasked)) {
        current().check_cut();
    }
}

impl Call {
    /// It has succeeded without having to wait.
    ///
    /// # Suspends
    ///
    /// When many have: until those who are runnable have had their turn. It does not unwind then: the next call looks.
    #[inline]
    #[cfg_attr(debug_assertions, track_caller)]
    pub(crate) fn needed_no_wait(self) {
        #[cfg(debug_assertions)]
        forbids::check_holds_nothing();
        drop(self);
    }

    /// It has waited, or is made of others that count themselves.
    #[inline]
    pub(crate) fn over(self) {
        std::mem::forget(self);
    }
}

/// One more round of a loop that takes what is there already, and suspends nowhere: as good as a call that needs no wait.
///
/// # Panics
///
/// As [`begin`].
///
/// # Suspends
///
/// As [`Call::needed_no_wait`].
#[inline]
#[cfg_attr(debug_assertions, track_caller)]
pub(crate) fn pass() {
    begin().needed_no_wait();
}
