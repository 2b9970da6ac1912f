//! Coroutines that wait for a simulated socket, as [`crate::net::Descriptor`] has them for a real one.

use std::cell::RefCell;
use std::io::{self, ErrorKind};
use std::rc::Rc;
use std::time::Instant;

use smallvec::SmallVec;

use crate::clock::now;
use crate::coroutine::{self, Coroutine};
use crate::timer::Timer;

/// Who waits.
#[derive(Default)]
pub(super) struct Waiters {
    list: RefCell<SmallVec<[Rc<Coroutine>; 1]>>,
}

impl Waiters {
    /// Lets all look again.
    pub(super) fn wake_all(&self) {
        for waiter in self.list.borrow_mut().drain(..) {
            waiter.wake();
        }
    }

    /// Waits until `ready` gives something, or until `deadline`.
    pub(super) fn wait<T>(
        &self,
        deadline: Option<Instant>,
        mut ready: impl FnMut() -> Option<T>,
    ) -> io::Result<T> {
        let mut timer = None;
        loop {
            if let Some(value) = ready() {
                return Ok(value);
            }
            if !coroutine::may_suspend() {
                let message = "a destructor may not wait while unwinding";
                return Err(io::Error::new(ErrorKind::WouldBlock, message));
            }
            if deadline.is_some_and(|deadline| deadline <= now()) {
                return Err(io::Error::new(ErrorKind::TimedOut, "the deadline has passed"));
            }
            if timer.is_none() {
                timer = deadline.map(Timer::wake_at);
            }
            self.park();
        }
    }

    /// Lets `waiter` be woken with the others.
    pub(super) fn enroll(&self, waiter: &Rc<Coroutine>) {
        self.list.borrow_mut().push(waiter.clone());
    }

    pub(super) fn withdraw(&self, waiter: &Rc<Coroutine>) {
        self.list.borrow_mut().retain(|other| !Rc::ptr_eq(other, waiter));
    }

    fn park(&self) {
        struct Place<'a>(&'a Waiters, Rc<Coroutine>);
        impl Drop for Place<'_> {
            fn drop(&mut self) {
                self.0.list.borrow_mut().retain(|waiter| !Rc::ptr_eq(waiter, &self.1));
            }
        }
        let me = coroutine::current();
        self.list.borrow_mut().push(me.clone());
        let _place = Place(self, me);
        coroutine::park_on(&"a simulated socket");
    }
}
