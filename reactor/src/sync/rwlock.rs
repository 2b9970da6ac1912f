//! Access across blocking calls, shared among readers.

use std::cell::{Ref, RefCell, RefMut};
use std::ops::{Deref, DerefMut};

use super::{Permit, Semaphore};

/// Readers at once. More than there can be coroutines.
const READERS_MAX: usize = u32::MAX as usize;

/// A value that many may read at once, or one may change, for work that suspends meanwhile.
///
/// First come, first served, readers and writers alike: readers that stand together in the queue go on together,
/// and a reader that comes while a writer waits goes behind it. So neither starves the other. For the same reason
/// a coroutine that holds read access must not ask for it again: it may stand behind a writer that waits for it.
///
/// Work that does not suspend needs none: see [`super::Mutex`]. A panic while it is held does not poison it.
///
/// # Examples
///
/// ```
/// use reactor::sync::RwLock;
/// reactor::run(|| {
///     let settings = RwLock::new(vec![1]);
///     {
///         let (one, other) = (settings.read(), settings.read());
///         assert_eq!(*one, *other);
///         assert!(settings.try_write().is_none());
///     }
///     settings.write().push(2);
///     assert_eq!(*settings.read(), [1, 2]);
/// });
/// ```
pub struct RwLock<T> {
    // A reader takes one permit, a writer all of them: the semaphore's order is the lock's.
    turn: Semaphore,
    value: RefCell<T>,
}

/// Access to read; dropping it may let a writer in.
pub struct ReadGuard<'a, T> {
    // Dropped in this order: the borrow ends before the next waiter is let in.
    value: Ref<'a, T>,
    _turn: Permit<'a>,
}

/// Access to change; dropping it lets in whoever waits next, and all readers right behind it if it is a reader.
pub struct WriteGuard<'a, T> {
    value: RefMut<'a, T>,
    _turn: Permit<'a>,
}

impl<T> RwLock<T> {
    /// Around `value`.
    pub const fn new(value: T) -> RwLock<T> {
        RwLock { turn: Semaphore::new(READERS_MAX), value: RefCell::new(value) }
    }

    /// Takes access to read.
    ///
    /// # Panics
    ///
    /// As [`Mutex::lock`](super::Mutex::lock) does.
    ///
    /// # Suspends
    ///
    /// While somebody writes, and until all who came before have had their turn.
    pub fn read(&self) -> ReadGuard<'_, T> {
        let turn = self.turn.acquire();
        ReadGuard { value: self.value.borrow(), _turn: turn }
    }

    /// Takes access to change.
    ///
    /// # Panics
    ///
    /// As [`Mutex::lock`](super::Mutex::lock) does.
    ///
    /// # Suspends
    ///
    /// Until all who came before have let go.
    pub fn write(&self) -> WriteGuard<'_, T> {
        let turn = self.turn.acquire_many(READERS_MAX);
        WriteGuard { value: self.value.borrow_mut(), _turn: turn }
    }

    /// Takes access to read if nobody writes or waits. Never suspends.
    pub fn try_read(&self) -> Option<ReadGuard<'_, T>> {
        let turn = self.turn.try_acquire()?;
        Some(ReadGuard { value: self.value.borrow(), _turn: turn })
    }

    /// Takes access to change if nobody has or awaits any. Never suspends.
    pub fn try_write(&self) -> Option<WriteGuard<'_, T>> {
        let turn = self.turn.try_acquire_many(READERS_MAX)?;
        Some(WriteGuard { value: self.value.borrow_mut(), _turn: turn })
    }

    /// The value of a lock that nobody shares any more.
    pub fn into_inner(self) -> T {
        self.value.into_inner()
    }
}

impl<T> Deref for ReadGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T> Deref for WriteGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T> DerefMut for WriteGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.value
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{scope, yield_now};
    use std::cell::Cell;

    #[test]
    fn readers_and_writers_go_in_the_order_they_came_with_neighbouring_readers_together() {
        crate::run(|| {
            let lock = RwLock::new(());
            let (order, together) = (RefCell::new(Vec::new()), Cell::new(0));
            let read = |name| {
                let _read = lock.read();
                together.set(together.get() + 1);
                yield_now();
                order.borrow_mut().push(format!("{name} with {}", together.get()));
                yield_now();
                together.set(together.get() - 1);
            };
            let write = |name: &str| {
                let _write = lock.write();
                yield_now();
                order.borrow_mut().push(name.to_owned());
            };
            scope(|s| {
                let held = lock.write();
                s.spawn(|| read("r1"));
                s.spawn(|| read("r2"));
                s.spawn(|| write("w3"));
                s.spawn(|| read("r4"));
                s.spawn(|| write("w5"));
                drop(held);
            });
            assert_eq!(*order.borrow(), ["r1 with 2", "r2 with 2", "w3", "r4 with 1", "w5"]);
        });
    }

    #[test]
    fn a_terminated_writer_lets_the_readers_behind_it_in() {
        crate::run(|| {
            let lock = RwLock::new(());
            scope(|s| {
                let held = lock.read();
                let writer = s.spawn(|| drop(lock.write()));
                let reader = s.spawn(|| drop(lock.read()));
                assert!(!reader.is_finished(), "it waits behind the writer");
                assert!(writer.terminate_and_wait().is_err());
                assert!(reader.join().is_ok());
                drop(held);
            });
            assert!(lock.try_write().is_some());
        });
    }

    #[test]
    fn access_handed_to_a_terminated_waiter_reaches_the_next() {
        crate::run(|| {
            let lock = RwLock::new(0);
            scope(|s| {
                let held = lock.write();
                let first = s.spawn(|| *lock.write() += 1);
                let second = s.spawn(|| *lock.write() += 10);
                drop(held); // hands it to the first,
                first.terminate(); // which is terminated before it runs
                assert!(first.join().is_err());
                assert!(second.join().is_ok());
            });
            assert_eq!(lock.into_inner(), 10);
        });
    }
}
