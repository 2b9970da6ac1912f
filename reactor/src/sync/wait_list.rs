//! Coroutines in a row, each waiting to be told to go on: what everything else here is made of.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use crate::coroutine::{self, Coroutine};

/// A queue of waiting coroutines.
#[derive(Default)]
pub(crate) struct WaitList {
    queue: RefCell<VecDeque<Rc<Coroutine>>>,
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
            me: &'a Rc<Coroutine>,
            on_leave: Option<F>,
        }
        impl<F: FnOnce(bool)> Drop for Place<'_, F> {
            fn drop(&mut self) {
                let Some(on_leave) = self.on_leave.take() else { return };
                let notified = self.me.wait.notified.get();
                if !notified {
                    self.list.queue.borrow_mut().retain(|other| !Rc::ptr_eq(other, self.me));
                }
                on_leave(notified);
            }
        }
        let me = coroutine::current();
        me.wait.notified.set(false);
        me.wait.need.set(need);
        self.queue.borrow_mut().push_back(me.clone());
        let mut place = Place { list: self, me: &me, on_leave: Some(on_leave) };
        while !me.wait.notified.get() {
            coroutine::park();
        }
        place.on_leave = None;
    }

    /// Tells the first in the queue to go on; whether there was one.
    pub(crate) fn notify_one(&self) -> bool {
        let first = self.queue.borrow_mut().pop_front();
        let Some(waiter) = first else { return false };
        waiter.wait.notified.set(true);
        waiter.wake();
        true
    }

    /// Tells all that wait now to go on, in their order.
    pub(crate) fn notify_all(&self) {
        while self.notify_one() {}
    }

    /// Tells them to go on from the first for as long as `grant` takes on their need.
    pub(crate) fn notify_while(&self, mut grant: impl FnMut(usize) -> bool) {
        loop {
            let need = self.queue.borrow().front().map(|waiter| waiter.wait.need.get());
            match need {
                Some(need) if grant(need) => self.notify_one(),
                _ => return,
            };
        }
    }
}
