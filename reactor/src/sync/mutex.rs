//! Exclusive access across blocking calls.

use std::cell::{RefCell, RefMut};
use std::ops::{Deref, DerefMut};

use super::{Permit, Semaphore};

/// Exclusive access to a value, for work that suspends while it holds it.
///
/// Work that does not suspend needs none: a [`RefCell`](crate::cell::RefCell) serves, since nothing else runs in between. First come,
/// first served. A panic while it is held does not poison it.
pub struct Mutex<T> {
    turn: Semaphore,
    value: RefCell<T>,
}

/// The access; dropping it lets the next waiter in.
pub struct MutexGuard<'a, T> {
    // Dropped in this order: the borrow ends before the next waiter is let in.
    value: RefMut<'a, T>,
    _turn: Permit<'a>,
}

impl<T> Mutex<T> {
    /// Around `value`.
    pub const fn new(value: T) -> Mutex<T> {
        Mutex { turn: Semaphore::new(1), value: RefCell::new(value) }
    }

    /// Takes the access.
    ///
    /// # Panics
    ///
    /// In a destructor that runs while its coroutine unwinds (it panicked, or was terminated) if somebody else has the
    /// access: which ends the process, as any panic does there. Destructors use [`Mutex::try_lock`].
    ///
    /// # Suspends
    ///
    /// Until all who came before have let go.
    pub fn lock(&self) -> MutexGuard<'_, T> {
        let turn = self.turn.acquire();
        MutexGuard { value: self.value.borrow_mut(), _turn: turn }
    }

    /// Takes the access if nobody has or awaits it. Never suspends.
    pub fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        let turn = self.turn.try_acquire()?;
        Some(MutexGuard { value: self.value.borrow_mut(), _turn: turn })
    }

    /// The value of a mutex that nobody shares any more.
    pub fn into_inner(self) -> T {
        self.value.into_inner()
    }
}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.value
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::rc::Rc;

    #[test]
    fn a_mutex_holds_across_suspensions() {
        crate::run(|| {
            let counter = Rc::new(Mutex::new(0));
            let adders: Vec<_> = (0..10)
                .map(|_| {
                    let counter = counter.clone();
                    crate::spawn(move || {
                        let mut counter = counter.lock();
                        let read = *counter;
                        crate::yield_now();
                        *counter = read + 1;
                    })
                })
                .collect();
            for adder in adders {
                adder.join().unwrap();
            }
            assert_eq!(*counter.lock(), 10);
        });
    }
}
