//! A gate that opens and closes.

use std::cell::Cell;

use super::WaitList;
use crate::coroutine::{begin, may_suspend};
use crate::select::{Selectable, source::Source};

/// A gate: whoever waits passes while it is open. Opening it wakes all, in the order they came.
///
/// In Elle's sense of the word, not in that of `std::sync::Barrier`, which counts its waiters.
pub struct Barrier {
    open: Cell<bool>,
    waiters: WaitList,
}

impl Barrier {
    /// A gate that is `open` or closed at first.
    pub const fn new(open: bool) -> Barrier {
        Barrier { open: Cell::new(open), waiters: WaitList::new() }
    }

    /// Opens it: all who wait pass, even if it closes before they run. Never suspends.
    pub fn open(&self) {
        self.open.set(true);
        self.waiters.notify_all();
    }

    /// Closes it for those who come from now on. Never suspends.
    pub fn close(&self) {
        self.open.set(false);
    }

    /// Whether it is open.
    pub fn is_open(&self) -> bool {
        self.open.get()
    }

    /// Passes when the gate is open; while the caller unwinds, in any case.
    ///
    /// # Suspends
    ///
    /// While it is closed.
    pub fn wait(&self) {
        let call = begin();
        if self.open.get() {
            return call.needed_no_wait();
        }
        if may_suspend() {
            self.waiters.wait_on(&"a gate to open");
        }
        call.over();
    }
}

/// Ready when it is open, or was opened while [`select`](crate::select) waited.
impl Source for Barrier {
    fn is_ready(&self) -> bool {
        self.open.get()
    }

    fn rows<'a>(&'a self, row: &mut dyn FnMut(&'a WaitList)) {
        row(&self.waiters);
    }

    fn is_told_once(&self) -> bool {
        true
    }
}

impl Selectable for Barrier {}

#[cfg(test)]
mod tests {
    use super::*;
    use std::rc::Rc;

    #[test]
    fn those_who_waited_pass_though_the_gate_closes_at_once() {
        crate::run(|| {
            let gate = Rc::new(Barrier::new(false));
            let waiter = crate::spawn({
                let gate = gate.clone();
                move || gate.wait()
            });
            gate.open();
            gate.close();
            assert!(waiter.join().is_ok());
            assert!(!gate.is_open());
        });
    }
}
