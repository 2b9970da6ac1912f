//! What every call that may suspend does, whether it has to or not.
//!
//! As it begins it looks whether its coroutine is to unwind, for its termination or a timeout's end: before it takes or
//! gives anything, so that nothing is lost. A loop of calls that need not wait would otherwise never see either, and a peer
//! that always has something to say could hold up whoever waits for the coroutine's end. When it has gone through without
//! suspending, it counts: see [`super::budget`].
//!
//! A call that has to wait looks once more when its wait is over. What it has been given by then stays where it was.

use super::{Coroutine, budget, current, may_suspend, turns, with_current};

/// A call that may suspend, and has begun: see [`begin`].
#[must_use = "a call that goes through without suspending counts"]
pub(crate) struct Call(());

/// Begins a call that may suspend. The first thing that such a call does; one that is made of others too, where it takes
/// something before the first of them.
///
/// # Panics
///
/// Unwinds if the coroutine has been terminated or a timeout around it has elapsed. Neither in a destructor that runs while
/// its coroutine unwinds, nor where suspending is forbidden, nor outside of coroutines: what need not wait goes through there.
#[inline]
pub(crate) fn begin() -> Call {
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
    pub(crate) fn needed_no_wait(self) {
        budget::spend();
    }

    /// It has waited, or failed, or is made of others that count themselves.
    #[inline]
    pub(crate) fn over(self) {}
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
pub(crate) fn pass() {
    begin().needed_no_wait();
}
