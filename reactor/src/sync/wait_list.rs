//! Coroutines in a row, each waiting to be told to go on: what everything else here is made of.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;

use crate::coroutine::{self, Coroutine};

struct Waiter {
    coroutine: Rc<Coroutine>,
    notified: Cell<bool>,
    /// What it waits for, in the list's own unit; see [`WaitList::notify_while`].
    need: usize,
}

/// A queue of waiting coroutines.
#[derive(Default)]
pub(crate) struct WaitList {
    queue: RefCell<VecDeque<Rc<Waiter>>>,
}

impl WaitList {
    pub(crate) const fn new() -> WaitList {
        WaitList { queue: RefCell::new(VecDeque::new()) }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.queue.borrow().is_empty()
    }

    /// Waits at the end of the queue until notified; never wakes early.
    pub(crate) fn wait(&self) {
        self.wait_for(1, |_| ());
    }

    /// Waits as [`WaitList::wait`] does. If the coroutine is terminated meanwhile, `on_leave` is called with
    /// whether it had been notified: that notification must not be lost.
    pub(crate) fn wait_for(&self, need: usize, on_leave: impl FnOnce(bool)) {
        struct Place<'a, F: FnOnce(bool)> {
            list: &'a WaitList,
            waiter: Rc<Waiter>,
            on_leave: Option<F>,
        }
        impl<F: FnOnce(bool)> Drop for Place<'_, F> {
            fn drop(&mut self) {
                let Some(on_leave) = self.on_leave.take() else { return };
                let notified = self.waiter.notified.get();
                if !notified {
                    self.list.queue.borrow_mut().retain(|other| !Rc::ptr_eq(other, &self.waiter));
                }
                on_leave(notified);
            }
        }
        let waiter = Rc::new(Waiter { coroutine: coroutine::current(), notified: Cell::new(false), need });
        self.queue.borrow_mut().push_back(waiter.clone());
        let mut place = Place { list: self, waiter, on_leave: Some(on_leave) };
        while !place.waiter.notified.get() {
            coroutine::park();
        }
        place.on_leave = None;
    }

    /// Tells the first in the queue to go on; whether there was one.
    pub(crate) fn notify_one(&self) -> bool {
        let first = self.queue.borrow_mut().pop_front();
        let Some(waiter) = first else { return false };
        waiter.notified.set(true);
        waiter.coroutine.wake();
        true
    }

    /// Tells all that wait now to go on, in their order.
    pub(crate) fn notify_all(&self) {
        while self.notify_one() {}
    }

    /// Tells them to go on from the first for as long as `grant` takes on their need.
    pub(crate) fn notify_while(&self, mut grant: impl FnMut(usize) -> bool) {
        loop {
            let need = self.queue.borrow().front().map(|waiter| waiter.need);
            match need {
                Some(need) if grant(need) => self.notify_one(),
                _ => return,
            };
        }
    }
}
