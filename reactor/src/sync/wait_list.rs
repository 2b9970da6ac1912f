//! Coroutines in a row, each waiting to be told to go on: what everything else here is made of.
//!
//! A coroutine waits in one list, or by [`crate::select`] in several, each of which knows it by another number. It
//! is told to go on once: the list that comes first leaves its number, and the others pass it over, so that what
//! they have to tell goes to the next in their row.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::num::NonZeroU32;
use std::rc::Rc;

use crate::coroutine::{self, Coroutine, What};

/// A queue of waiting coroutines.
#[derive(Default)]
pub(crate) struct WaitList {
    queue: RefCell<VecDeque<Place>>,
}

/// A place in a list: who waits there, and by which number it knows the list.
struct Place {
    waiter: Rc<Coroutine>,
    number: NonZeroU32,
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
        self.wait_on(&"others");
    }

    /// As [`WaitList::wait`], for `what` as dumps show it.
    pub(crate) fn wait_on(&self, what: What) {
        self.wait_for(1, what, |_| ());
    }

    /// Waits as [`WaitList::wait`] does. If the coroutine is terminated meanwhile, `on_leave` is called with
    /// whether it had been notified: that notification must not be lost.
    pub(crate) fn wait_for(&self, need: usize, what: What, on_leave: impl FnOnce(bool)) {
        self.wait_at(false, need, what, on_leave);
    }

    /// Waits to be told to look again, and tells the next if it leaves instead; `again` if it has looked in vain.
    pub(crate) fn wait_turn(&self, again: bool, what: What) {
        self.wait_at(again, 1, what, |notified| {
            if notified {
                self.notify_one();
            }
        });
    }

    // At the front: one who was told and found nothing, since somebody was quicker, keeps its place.
    fn wait_at(&self, front: bool, need: usize, what: What, on_leave: impl FnOnce(bool)) {
        struct Waiting<'a, F: FnOnce(bool)> {
            list: &'a WaitList,
            me: &'a Rc<Coroutine>,
            on_leave: Option<F>,
        }
        impl<F: FnOnce(bool)> Drop for Waiting<'_, F> {
            fn drop(&mut self) {
                let Some(on_leave) = self.on_leave.take() else { return };
                let notified = self.me.wait.notified.get().is_some();
                if !notified {
                    self.list.withdraw(self.me);
                }
                on_leave(notified);
            }
        }
        let me = coroutine::current();
        me.wait.notified.set(None);
        me.wait.need.set(need);
        if front {
            let place = Place { waiter: me.clone(), number: NonZeroU32::MIN };
            self.queue.borrow_mut().push_front(place);
        } else {
            self.enroll(&me, NonZeroU32::MIN);
        }
        let mut waiting = Waiting { list: self, me: &me, on_leave: Some(on_leave) };
        while me.wait.notified.get().is_none() {
            coroutine::park_on(what);
        }
        waiting.on_leave = None;
    }

    /// Puts `waiter` at the end of the queue; it is told to go on by `number`.
    pub(crate) fn enroll(&self, waiter: &Rc<Coroutine>, number: NonZeroU32) {
        self.queue.borrow_mut().push_back(Place { waiter: waiter.clone(), number });
    }

    /// Takes `waiter` out of the queue, if it is still there.
    pub(crate) fn withdraw(&self, waiter: &Rc<Coroutine>) {
        self.queue.borrow_mut().retain(|place| !Rc::ptr_eq(&place.waiter, waiter));
    }

    /// Tells the first in the queue to go on; whether there was one.
    pub(crate) fn notify_one(&self) -> bool {
        loop {
            let first = self.queue.borrow_mut().pop_front();
            let Some(Place { waiter, number }) = first else { return false };
            // Another of its lists was first: this one's word goes to the next.
            if waiter.wait.notified.get().is_some() {
                continue;
            }
            waiter.wait.notified.set(Some(number));
            waiter.wake();
            return true;
        }
    }

    /// Tells all that wait now to go on, in their order.
    pub(crate) fn notify_all(&self) {
        while self.notify_one() {}
    }

    /// Tells them to go on from the first for as long as `grant` takes on their need.
    ///
    /// For lists that [`crate::select`] does not join: it has no need.
    pub(crate) fn notify_while(&self, mut grant: impl FnMut(usize) -> bool) {
        loop {
            let need = self.queue.borrow().front().map(|place| place.waiter.wait.need.get());
            match need {
                Some(need) if grant(need) => self.notify_one(),
                _ => return,
            };
        }
    }
}
