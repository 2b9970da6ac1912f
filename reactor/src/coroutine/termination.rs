//! How a coroutine is made to unwind: terminations and timeouts.
//!
//! They are one mechanism. Each leaves a note on the coroutine and wakes it; the blocking call it sits in (or
//! enters next) then unwinds with a private payload, so that destructors run and no panic message is printed. A
//! [`Cut`] names the frame that catches the payload: a `timeout`, a `scope`, or the coroutine's own bottom.

use std::cell::Cell;
use std::panic::resume_unwind;
use std::rc::Rc;

use super::{Coroutine, current};

/// Names the frame that an unwinding coroutine unwinds to. Inner frames have greater numbers.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Cut(u64);

impl Cut {
    /// The bottom of the coroutine: termination. Less than any frame's, so it wins over all of them.
    const BOTTOM: Cut = Cut(0);

    /// A number for a frame that is about to be entered.
    pub(crate) fn new() -> Cut {
        thread_local! { static NEXT: Cell<u64> = const { Cell::new(1) }; }
        let number = NEXT.get();
        NEXT.set(number + 1);
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
        }
        self.wake();
    }

    /// Withdraws the note for `cut`, when the frame it names is left another way.
    pub(crate) fn withdraw_cut(&self, cut: Cut) {
        if self.cut.get() == Some(cut) {
            self.cut.set(None);
        }
    }

    pub(crate) fn terminate(self: &Rc<Self>) {
        self.cut_to(Cut::BOTTOM);
    }

    pub(super) fn check_cut(&self) {
        if let Some(cut) = self.cut.get()
            && self.uninterruptible_depth.get() == 0
        {
            resume_unwind(Box::new(cut));
        }
    }
}

/// Runs `f` with termination and timeouts held back until it returns.
///
/// Blocking calls inside `f` suspend as usual; a termination that arrives meanwhile unwinds the first blocking
/// call after `f`.
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
