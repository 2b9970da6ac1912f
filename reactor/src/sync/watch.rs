//! The latest of a value that changes.

use std::cell::Cell;
use std::rc::Rc;

use super::{RecvError, WaitList};
use crate::cell::RefCell;
use crate::coroutine;
use crate::select::{Selectable, source::Source};

struct Shared<T> {
    value: RefCell<T>,
    version: Cell<u64>,
    closed: Cell<bool>,
    waiters: WaitList,
}

/// The end that changes the value. Dropping it closes the watch.
pub struct Watch<T> {
    shared: Rc<Shared<T>>,
}

/// The end that reads the value. A clone has read what the original has.
#[derive(Clone)]
pub struct Watcher<T> {
    shared: Rc<Shared<T>>,
    /// The version that it read last; 0 is before the first.
    seen: Cell<u64>,
}

/// Makes a value that watchers see change: the latest counts, and steps in between may be missed.
///
/// A change wakes all who wait, in the order they came. The first value counts as unread.
///
/// # Examples
///
/// ```
/// use reactor::sync::watch;
/// reactor::run(|| {
///     let (level, watcher) = watch("info");
///     let reader = reactor::spawn(move || {
///         let mut seen = Vec::new();
///         while watcher.changed().is_ok() {
///             seen.push(watcher.get());
///         }
///         seen
///     });
///     level.set("debug");
///     level.set("trace"); // before the reader ran again: it never sees "debug"
///     drop(level);
///     assert_eq!(reader.join().unwrap(), ["info", "trace"]);
/// });
/// ```
pub fn watch<T>(value: T) -> (Watch<T>, Watcher<T>) {
    let shared = Rc::new(Shared {
        value: RefCell::new(value),
        version: Cell::new(1),
        closed: Cell::new(false),
        waiters: WaitList::new(),
    });
    (Watch { shared: shared.clone() }, Watcher { shared, seen: Cell::new(0) })
}

impl<T> Watch<T> {
    /// Replaces the value and wakes all who wait for a change. Never suspends.
    pub fn set(&self, value: T) {
        let old = self.shared.value.replace(value);
        self.announce();
        // Its destructor may do as it likes: nothing is borrowed.
        drop(old);
    }

    /// Changes the value in place, and wakes as [`Watch::set`] does. `change` must not suspend.
    pub fn update(&self, change: impl FnOnce(&mut T)) {
        change(&mut self.shared.value.borrow_mut());
        self.announce();
    }

    fn announce(&self) {
        self.shared.version.set(self.shared.version.get() + 1);
        self.shared.waiters.notify_all();
    }

    /// Looks at the value. `look` must not suspend.
    pub fn with<R>(&self, look: impl FnOnce(&T) -> R) -> R {
        look(&self.shared.value.borrow())
    }

    /// A further watcher, to which the present value is unread.
    pub fn watcher(&self) -> Watcher<T> {
        Watcher { shared: self.shared.clone(), seen: Cell::new(0) }
    }
}

impl<T> Drop for Watch<T> {
    fn drop(&mut self) {
        self.shared.closed.set(true);
        self.shared.waiters.notify_all();
    }
}

impl<T> Watcher<T> {
    /// Waits until there is a value that this watcher has not read; at once if there is one.
    ///
    /// # Errors
    ///
    /// [`RecvError`] when the watch is closed and its last value has been read; in a destructor that runs while
    /// its coroutine unwinds, in place of waiting.
    ///
    /// # Suspends
    ///
    /// Until the value changes.
    pub fn changed(&self) -> Result<(), RecvError> {
        let call = coroutine::begin();
        match self.is_unread() {
            true => call.needed_no_wait(),
            false => call.over(),
        }
        while !self.is_unread() {
            if self.shared.closed.get() || !coroutine::may_suspend() {
                return Err(RecvError);
            }
            // All are woken: nothing to pass on when this one leaves early.
            self.shared.waiters.wait_on(&"a value to change");
        }
        Ok(())
    }

    /// Whether there is a value that this watcher has not read. Never suspends.
    pub fn is_unread(&self) -> bool {
        self.shared.version.get() != self.seen.get()
    }

    /// Reads the value: looks at it, and takes note that it has been read. `look` must not suspend.
    pub fn with<R>(&self, look: impl FnOnce(&T) -> R) -> R {
        self.seen.set(self.shared.version.get());
        look(&self.shared.value.borrow())
    }

    /// Reads the value: a copy of it.
    pub fn get(&self) -> T
    where
        T: Clone,
    {
        self.with(T::clone)
    }
}

/// Ready when the value is unread, or the watch closed.
impl<T> Source for Watcher<T> {
    fn is_ready(&self) -> bool {
        self.is_unread() || self.shared.closed.get()
    }

    fn rows<'a>(&'a self, row: &mut dyn FnMut(&'a WaitList)) {
        row(&self.shared.waiters);
    }
}

impl<T> Selectable for Watcher<T> {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{spawn, yield_now};

    #[test]
    fn a_change_wakes_all_in_the_order_they_came_and_also_when_one_of_them_is_terminated() {
        crate::run(|| {
            let (watch, watcher) = watch(0);
            watcher.get();
            let order = Rc::new(RefCell::new(Vec::new()));
            let waiters: Vec<_> = (0..4)
                .map(|n| {
                    let (watcher, order) = (watcher.clone(), order.clone());
                    spawn(move || {
                        watcher.changed().unwrap();
                        order.borrow_mut().push((n, watcher.get()));
                    })
                })
                .collect();
            watch.set(1);
            watch.set(2);
            waiters[1].terminate();
            yield_now();
            assert_eq!(*order.borrow(), [(0, 2), (2, 2), (3, 2)]);
        });
    }

    #[test]
    fn the_last_value_of_a_closed_watch_can_still_be_read() {
        crate::run(|| {
            let (watch, watcher) = watch(1);
            watch.update(|value| *value += 1);
            drop(watch);
            assert_eq!(watcher.changed(), Ok(()));
            assert_eq!(watcher.get(), 2);
            assert_eq!(watcher.changed(), Err(RecvError));
        });
    }
}
