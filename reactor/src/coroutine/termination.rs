//! How a coroutine is made to unwind: terminations and timeouts.
//!
//! They are one mechanism. Each leaves a note on the coroutine and wakes it; the blocking call it sits in, or the next
//! one as it begins, whether it would have to wait or not ([`super::call`]), then unwinds with a private payload, so that
//! destructors run and no panic message is printed. A
//! [`Cut`] names the frame that catches the payload: a `timeout`, a `scope`, or the coroutine's own bottom.
//!
//! A shield ([`uninterruptible`]) is a frame too. It holds back the cuts to frames outside of it, and none to those
//! inside: clean-up that must not be interrupted can still be given a time.
//!
//! Code in between may catch the payload (`catch_unwind` catches everything) and go on. The note stays until the
//! frame that it names is left, so the next call that may suspend lets the others run once, and unwinds again. That it has to
//! is logged, since such code holds up whoever waits for the coroutine's end; code that does so for ever ends the
//! process. [`catch_panic`] catches panics and nothing else.

use std::cell::Cell;
use std::num::NonZeroU64;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;

use super::{Coroutine, Payload, current, may_suspend};
use crate::cell::RefCell;

/// A coroutine that swallows its termination so often never ends, nor does whoever waits for its end. Loops that
/// catch what each of some thousand items raises do end.
const SWALLOWED_MAX: u32 = 100_000;

/// Names the frame that an unwinding coroutine unwinds to. Inner frames have greater numbers.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Cut(NonZeroU64);

impl Cut {
    /// The bottom of the coroutine: termination. Less than any frame's, so it wins over all of them.
    pub(super) const BOTTOM: Cut = Cut(NonZeroU64::MIN);

    /// None: the places are counted where there could be one ([`super::break_off_at`]). Greater than any frame's, so that all
    /// of them win over it.
    pub(super) const COUNTED: Cut = Cut(NonZeroU64::MAX);

    /// A number for a frame that is about to be entered.
    pub(crate) fn new() -> Cut {
        thread_local! { static LAST: Cell<NonZeroU64> = const { Cell::new(NonZeroU64::MIN) }; }
        let number = LAST.get().saturating_add(1);
        LAST.set(number);
        Cut(number)
    }
}

/// Cuts that shields hold back, each with whether its unwinding had begun.
#[derive(Default)]
pub(super) struct Held(RefCell<Vec<(Cut, bool)>>);

impl Coroutine {
    /// Leaves a note that unwinds it to `cut` at its current or next blocking call.
    pub(crate) fn cut_to(self: &Rc<Self>, cut: Cut) {
        if self.finished.get() {
            return;
        }
        if self.shield.get().is_some_and(|shield| cut < shield) {
            self.hold_back(cut, false);
            return;
        }
        self.note_cut(cut, false);
        self.wake();
    }

    /// Of the frames that it may unwind to now the outermost counts: on its way there it leaves the others.
    pub(super) fn note_cut(&self, cut: Cut, raised: bool) {
        if self.cut.get().is_none_or(|pending| cut < pending) {
            self.cut.set(Some(cut));
            self.cut_raised.set(raised);
            if let Some(rare) = self.rare.get() {
                rare.raised_count.set(0);
            }
        }
    }

    fn hold_back(&self, cut: Cut, raised: bool) {
        let mut held = self.rare().held.0.borrow_mut();
        if !held.iter().any(|(other, _)| *other == cut) {
            held.push((cut, raised));
        }
    }

    /// Withdraws the note for `cut`, when the frame it names is left; whether that frame's code had been made
    /// to unwind to it.
    pub(crate) fn withdraw_cut(&self, cut: Cut) -> bool {
        if self.cut.get() == Some(cut) {
            self.cut.set(self.counts());
            return self.cut_raised.replace(false);
        }
        if let Some(rare) = self.rare.get() {
            rare.held.0.borrow_mut().retain(|(other, _)| *other != cut);
        }
        false
    }

    pub(crate) fn terminate(self: &Rc<Self>) {
        self.cut_to(Cut::BOTTOM);
    }

    /// Whether its termination awaits it, held back or not.
    pub(super) fn has_termination(&self) -> bool {
        let is_held = |rare: &super::Rare| rare.held.0.borrow().iter().any(|(cut, _)| *cut == Cut::BOTTOM);
        self.cut.get() == Some(Cut::BOTTOM) || self.rare.get().is_some_and(|rare| is_held(rare))
    }

    /// Whether it shall unwind, and no shield holds that back.
    #[inline(always)]
    pub(super) fn is_cut(&self) -> bool {
        self.cut.get().is_some()
    }

    /// Whether calls that need not wait unwind it, which runs, too.
    pub(super) fn unwinds_unasked(&self) -> bool {
        !self.has_no_body.get() && !self.is_in_section()
    }

    /// Unwinds it, which runs, if it has been cut.
    #[inline]
    pub(super) fn check_cut(self: &Rc<Self>) {
        if let Some(cut) = self.cut.get() {
            self.on_cut(cut);
        }
    }

    #[cold]
    fn on_cut(self: &Rc<Self>, cut: Cut) {
        if cut == Cut::COUNTED { self.count_place() } else { self.unwind_to(cut) }
    }

    #[cold]
    pub(super) fn unwind_to(self: &Rc<Self>, cut: Cut) -> ! {
        if self.cut_raised.replace(true) {
            let what = if cut == Cut::BOTTOM { "its termination" } else { "a timeout's end" };
            self.note_swallowed(what, "went on to a blocking call, which unwinds again");
            let count = self.rare().raised_count.get() + 1;
            self.rare().raised_count.set(count);
            if cut == Cut::BOTTOM && count >= SWALLOWED_MAX {
                eprintln!(
                    "reactor: the coroutine {} has swallowed {what} {SWALLOWED_MAX} times and will never end: let its \
                     loop use `reactor::catch_panic`; aborting",
                    self.label_and_place()
                );
                std::process::abort();
            }
            // Or nobody else would ever run: it would unwind from here to where it catches that, and back.
            if may_suspend() {
                self.let_others_run();
            }
        }
        // By now there may be one further out.
        resume_unwind(Box::new(self.cut.get().unwrap_or(cut)));
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

    /// Enters a shield; returns the one that it was in, for [`Coroutine::leave_shield`].
    fn enter_shield(&self) -> Option<Cut> {
        let outer = self.shield.replace(Some(Cut::new()));
        // All that awaits it is to frames outside.
        if let Some(cut) = self.cut.take() {
            self.hold_back(cut, self.cut_raised.replace(false));
        }
        outer
    }

    /// What was held back by this shield alone awaits it again.
    fn leave_shield(&self, outer: Option<Cut>) {
        self.shield.set(outer);
        if let Some(rare) = self.rare.get() {
            rare.held.0.borrow_mut().retain(|&(cut, raised)| {
                let stays = outer.is_some_and(|outer| cut < outer);
                if !stays {
                    self.note_cut(cut, raised);
                }
                stays
            });
        }
    }
}

/// Runs `f` with termination, and with timeouts that began before, held back until it returns.
///
/// Blocking calls inside `f` suspend as usual; a termination that arrives meanwhile unwinds the first call after `f` that
/// may suspend, whether it would have to or not. A [`timeout`](crate::timeout) *inside* `f` ends in its time, so that what must not be interrupted
/// can still be given up.
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
/// use std::time::Duration;
/// reactor::run(|| {
///     let saved = reactor::uninterruptible(|| {
///         reactor::yield_now(); // not even a termination interrupts this
///         let farewell = reactor::timeout(Duration::from_millis(1), || reactor::sleep(Duration::from_secs(60)));
///         assert!(farewell.is_err()); // and yet it does not take for ever
///         7
///     });
///     assert_eq!(saved, 7);
/// });
/// ```
pub fn uninterruptible<T>(f: impl FnOnce() -> T) -> T {
    struct Leave(Rc<Coroutine>, Option<Cut>);
    impl Drop for Leave {
        fn drop(&mut self) {
            self.0.leave_shield(self.1);
        }
    }
    let me = current();
    let outer = me.enter_shield();
    let _leave = Leave(me, outer);
    f()
}

/// Runs `f` and catches its panic, as `std::panic::catch_unwind` does, but lets terminations and timeouts through: they
/// unwind as well, and are nobody's failure.
///
/// For loops that go on whatever happens to one item of their work. With `catch_unwind` such a loop would catch its own
/// termination, again and again.
///
/// # Errors
///
/// What `f` panicked with.
///
/// # Suspends
///
/// As `f` does.
///
/// # Examples
///
/// ```
/// reactor::run(|| {
///     assert!(reactor::catch_panic(|| panic!("one of many")).is_err());
///     let worker = reactor::spawn(|| loop {
///         let _ = reactor::catch_panic(reactor::yield_now);
///     });
///     assert!(worker.terminate_and_wait().is_err()); // it ends
/// });
/// ```
pub fn catch_panic<T>(f: impl FnOnce() -> T) -> Result<T, Payload> {
    match catch_unwind(AssertUnwindSafe(f)) {
        Err(payload) if payload.is::<Cut>() => resume_unwind(payload),
        result => result,
    }
}
