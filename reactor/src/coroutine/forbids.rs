//! Why a coroutine must not suspend now: a section says so ([`crate::suspension::forbid_suspend`]), or it holds borrows.
//!
//! The two differ in what calls do that need not wait. A section has been thought about: they go through in it, and neither
//! let others run nor unwind. A borrow that is held over one ([`crate::cell`]) is an oversight, and told in debug builds.

use std::cell::Cell;
#[cfg(debug_assertions)]
use std::{cell::RefCell, panic::Location, rc::Rc};

use super::{Coroutine, What, current};
#[cfg(debug_assertions)]
use super::{may_suspend, with_current};

#[derive(Default)]
pub(super) struct Forbids {
    /// What completes "this would suspend while ...", in a section that says so.
    section: Cell<Option<&'static str>>,
    /// Where the borrows were made that it has made and that live.
    #[cfg(debug_assertions)]
    borrowed_at: RefCell<Vec<&'static Location<'static>>>,
    /// What it holds is no matter: see [`in_any_case`].
    #[cfg(debug_assertions)]
    may_hold: Cell<bool>,
}

impl Coroutine {
    /// Forbids it to suspend, or allows it; what was before.
    pub(crate) fn forbid(&self, why: Option<&'static str>) -> Option<&'static str> {
        self.forbids.section.replace(why)
    }

    /// Whether it is in a section in which calls that need not wait neither unwind it nor let others run.
    pub(super) fn is_in_section(&self) -> bool {
        self.forbids.section.get().is_some()
    }

    /// It, which runs, is about to wait.
    #[inline]
    pub(super) fn check_may_wait(&self, what: What) {
        #[cold]
        fn refuse(why: &str, what: What) -> ! {
            panic!("this would suspend while {why}: it waits for {what}");
        }
        if let Some(why) = self.forbids.section.get() {
            refuse(why, what);
        }
        #[cfg(debug_assertions)]
        if let Some(at) = self.held() {
            let why = format!("the coroutine {} holds what it borrowed at {at}", self.label_and_place());
            if !is_noted(&why) {
                refuse(&why, what);
            }
        }
    }

    /// Where the last was made of the borrows that it must not hold where it suspends.
    #[cfg(debug_assertions)]
    fn held(&self) -> Option<&'static Location<'static>> {
        let at = self.forbids.borrowed_at.borrow().last().copied();
        at.filter(|_| !self.forbids.may_hold.get())
    }
}

/// Waits by `wait`, which must not unwind, whatever the running coroutine holds: an end that others rely on comes though a guard
/// was leaked.
pub(crate) fn in_any_case(wait: impl FnOnce()) {
    let me = current();
    let section = me.forbid(None);
    #[cfg(debug_assertions)]
    let could_hold = me.forbids.may_hold.replace(true);
    wait();
    #[cfg(debug_assertions)]
    me.forbids.may_hold.set(could_hold);
    me.forbid(section);
}

/// The running coroutine makes a call that may suspend, and neither unwinds nor is in a section: it must not hold a borrow.
///
/// # Panics
///
/// When it does.
#[cfg(debug_assertions)]
#[track_caller]
pub(super) fn check_holds_nothing() {
    #[cold]
    #[track_caller]
    fn refuse(at: &Location<'_>) {
        let me = super::name::label_and_place_of_current();
        let call = Location::caller();
        let what = format!(
            "the coroutine {me} makes a call that may suspend (at {call}) while it holds what it borrowed at {at}: others \
             could run, and meet the borrow; end it before the call"
        );
        if !is_noted(&what) {
            panic!("{what}");
        }
    }
    let at = with_current(|me| me.filter(|me| !me.is_in_section()).and_then(Coroutine::held));
    if let Some(at) = at
        && may_suspend()
    {
        refuse(at);
    }
}

/// Whether a fault has been noted where the environment says, which is to be no panic then: so one run finds many.
#[cfg(debug_assertions)]
#[cold]
fn is_noted(fault: &str) -> bool {
    use std::collections::BTreeSet;
    use std::io::Write;
    use std::sync::{Mutex, PoisonError};
    /// A loop would note the same ever again.
    static NOTED: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    let Some(path) = std::env::var_os("HYPHA_BORROWS") else { return false };
    if !NOTED.lock().unwrap_or_else(PoisonError::into_inner).insert(fault.to_owned()) {
        return true;
    }
    let note = format!("{fault}\n{}\n", std::backtrace::Backtrace::force_capture());
    let file = std::fs::OpenOptions::new().create(true).append(true).open(path);
    file.and_then(|mut file| file.write_all(note.as_bytes())).is_ok()
}

/// A borrow of a coroutine's, which knows of it until this is dropped.
#[cfg(debug_assertions)]
pub(crate) struct Borrow {
    by: Rc<Coroutine>,
    at: &'static Location<'static>,
}

#[cfg(debug_assertions)]
impl Borrow {
    /// One that the running coroutine makes, where this is called; none outside of coroutines.
    #[track_caller]
    pub(crate) fn note() -> Option<Borrow> {
        let by = super::turns::with(super::Turns::current)?;
        let at = Location::caller();
        by.forbids.borrowed_at.borrow_mut().push(at);
        Some(Borrow { by, at })
    }
}

#[cfg(debug_assertions)]
impl Drop for Borrow {
    fn drop(&mut self) {
        let mut borrowed_at = self.by.forbids.borrowed_at.borrow_mut();
        // Of those that were made at one place any will do.
        if let Some(index) = borrowed_at.iter().rposition(|&at| std::ptr::eq(at, self.at)) {
            borrowed_at.remove(index);
        }
    }
}
