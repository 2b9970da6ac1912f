//! How a coroutine is made to unwind: terminations and timeouts.
//!
//! They are one mechanism. Each leaves a note on the coroutine and wakes it; the blocking call it sits in (or
//! enters next) then unwinds with a private payload, so that destructors run and no panic message is printed. A
//! [`Cut`] names the frame that catches the payload: a `timeout`, a `scope`, or the coroutine's own bottom.
//!
//! Code in between may catch the payload (`catch_unwind` catches everything) and go on. The note stays until the
//! frame that it names is left, so the next blocking call unwinds again; that it has to is logged, since such
//! code holds up whoever waits for the coroutine's end.

use std::cell::Cell;
use std::num::NonZeroU64;
use std::panic::resume_unwind;
use std::rc::Rc;

use super::{Coroutine, current};

/// Names the frame that an unwinding coroutine unwinds to. Inner frames have greater numbers.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Cut(NonZeroU64);

impl Cut {
    /// The bottom of the coroutine: termination. Less than any frame's, so it wins over all of them.
    pub(super) const BOTTOM: Cut = Cut(NonZeroU64::MIN);

    /// A number for a frame that is about to be entered.
    pub(crate) fn new() -> Cut {
        thread_local! { static LAST: Cell<NonZeroU64> = const { Cell::new(NonZeroU64::MIN) }; }
        let number = LAST.get().saturating_add(1);
        LAST.set(number);
        Cut(number)
    }
}

impl Coroutine {
    /// Leaves a note that unwinds it to `cut` at its current or next blocking call.
    pub(crate) fn cut_to(self: &Rc<Self>, cut: Cut) {
        if self.finished.get() {
            return;
        }
        if self.cut.get().is_none_or(|pending| cut < pending) {
            self.cut.set(Some(cut));
            self.cut_raised.set(false);
        }
        self.wake();
    }

    /// Withdraws the note for `cut`, when the frame it names is left; whether that frame's code had been made
    /// to unwind to it.
    pub(crate) fn withdraw_cut(&self, cut: Cut) -> bool {
        if self.cut.get() != Some(cut) {
            return false;
        }
        self.cut.set(None);
        self.cut_raised.replace(false)
    }

    pub(crate) fn terminate(self: &Rc<Self>) {
        self.cut_to(Cut::BOTTOM);
    }

    pub(super) fn check_cut(&self) {
        if let Some(cut) = self.cut.get()
            && self.uninterruptible_depth.get() == 0
        {
            self.unwind_to(cut);
        }
    }

    #[cold]
    fn unwind_to(&self, cut: Cut) -> ! {
        if self.cut_raised.replace(true) {
            let what = if cut == Cut::BOTTOM { "its termination" } else { "a timeout's end" };
            self.note_swallowed(what, "went on to a blocking call, which unwinds again");
        }
        resume_unwind(Box::new(cut));
    }

    /// Its body has returned: was it to end otherwise?
    pub(super) fn check_swallowed_at_end(&self) {
        if self.cut_raised.get() && self.cut.get() == Some(Cut::BOTTOM) {
            self.note_swallowed("its termination", "returned a result, which counts");
        }
    }

    /// Logs that its code caught its unwinding; in a loop that does so ever again, more and more rarely.
    pub(crate) fn note_swallowed(&self, what: &str, instead: &str) {
        let count = self.rare().swallowed_count.get().saturating_add(1);
        self.rare().swallowed_count.set(count);
        if count.is_power_of_two() {
            tracing::warn!(coroutine = self.label(), count, "it swallowed {what} and {instead}");
        }
    }
}

/// Runs `f` with termination and timeouts held back until it returns.
///
/// Blocking calls inside `f` suspend as usual; a termination that arrives meanwhile unwinds the first blocking
/// call after `f`.
///
/// # Panics
///
/// With `f`'s panic. Outside [`run`](crate::run).
///
/// # Suspends
///
/// As `f` does.
///
/// # Examples
///
/// ```
/// reactor::run(|| {
///     let saved = reactor::uninterruptible(|| {
///         reactor::yield_now(); // not even a termination interrupts this
///         7
///     });
///     assert_eq!(saved, 7);
/// });
/// ```
pub fn uninterruptible<T>(f: impl FnOnce() -> T) -> T {
    struct Leave(Rc<Coroutine>);
    impl Drop for Leave {
        fn drop(&mut self) {
            self.0.uninterruptible_depth.set(self.0.uninterruptible_depth.get() - 1);
        }
    }
    let me = current();
    me.uninterruptible_depth.set(me.uninterruptible_depth.get() + 1);
    let _leave = Leave(me);
    f()
}
