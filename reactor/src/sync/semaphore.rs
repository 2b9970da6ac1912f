//! A counted number of permits.

use std::cell::Cell;

use super::WaitList;
use crate::coroutine::begin;

/// A number of permits, handed out first come, first served.
///
/// A large request at the head of the queue holds back small ones behind it, so that it is not starved.
///
/// # Examples
///
/// ```
/// use reactor::sync::Semaphore;
/// reactor::run(|| {
///     let places = Semaphore::new(2);
///     let first = places.acquire();
///     let _second = places.acquire();
///     assert!(places.try_acquire().is_none());
///     drop(first);
///     assert!(places.try_acquire().is_some());
/// });
/// ```
pub struct Semaphore {
    available: Cell<usize>,
    waiters: WaitList,
}

/// Permits in use; dropping it gives them back.
#[must_use = "the permits go back when this is dropped"]
pub struct Permit<'a> {
    semaphore: &'a Semaphore,
    count: usize,
}

impl Semaphore {
    /// With `permits` to hand out.
    pub const fn new(permits: usize) -> Semaphore {
        Semaphore { available: Cell::new(permits), waiters: WaitList::new() }
    }

    /// Takes one permit.
    ///
    /// # Panics
    ///
    /// As [`Semaphore::acquire_many`].
    ///
    /// # Suspends
    ///
    /// Until it is this caller's turn.
    pub fn acquire(&self) -> Permit<'_> {
        self.acquire_many(1)
    }

    /// Takes `count` permits at once. More than the semaphore ever has are waited for for ever.
    ///
    /// # Panics
    ///
    /// In a destructor that runs while its coroutine unwinds, if it would have to wait: see
    /// [`suspension`](crate::suspension).
    ///
    /// # Suspends
    ///
    /// Until it is this caller's turn and as many are free.
    pub fn acquire_many(&self, count: usize) -> Permit<'_> {
        let call = begin();
        if let Some(permit) = self.try_acquire_many(count) {
            call.needed_no_wait();
            return permit;
        }
        self.waiters.wait_for(count, &"a permit or a lock", |granted| {
            if granted {
                self.available.set(self.available.get() + count);
            }
            self.grant();
        });
        call.over();
        Permit { semaphore: self, count }
    }

    /// Takes one permit if one is free and nobody waits. Never suspends.
    pub fn try_acquire(&self) -> Option<Permit<'_>> {
        self.try_acquire_many(1)
    }

    /// Takes `count` permits if as many are free and nobody waits. Never suspends.
    pub fn try_acquire_many(&self, count: usize) -> Option<Permit<'_>> {
        let available = self.available.get();
        if available < count || !self.waiters.is_empty() {
            return None;
        }
        self.available.set(available - count);
        Some(Permit { semaphore: self, count })
    }

    /// Adds permits. Never suspends.
    pub fn release(&self, count: usize) {
        self.available.set(self.available.get() + count);
        self.grant();
    }

    /// Permits that are free now.
    pub fn available(&self) -> usize {
        self.available.get()
    }

    fn grant(&self) {
        self.waiters.notify_while(|need| {
            let available = self.available.get();
            let enough = available >= need;
            if enough {
                self.available.set(available - need);
            }
            enough
        });
    }
}

impl Permit<'_> {
    /// Keeps the permits for good: [`Semaphore::release`] may bring them back.
    pub fn forget(mut self) {
        self.count = 0;
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        if self.count > 0 {
            self.semaphore.release(self.count);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::rc::Rc;

    #[test]
    fn permits_of_a_terminated_waiter_reach_the_next() {
        crate::run(|| {
            let places = Rc::new(Semaphore::new(1));
            let held = places.acquire();
            let spawn = |places: &Rc<Semaphore>| {
                let places = places.clone();
                crate::spawn(move || drop(places.acquire()))
            };
            let (first, second) = (spawn(&places), spawn(&places));
            drop(held); // hands the permit to the first,
            first.terminate(); // which is terminated before it runs
            assert!(first.join().is_err());
            assert!(second.join().is_ok());
            assert_eq!(places.available(), 1);
        });
    }

    #[test]
    fn a_small_request_behind_a_terminated_large_one_goes_on() {
        crate::run(|| {
            let places = Rc::new(Semaphore::new(1));
            let large = crate::spawn({
                let places = places.clone();
                move || drop(places.acquire_many(5))
            });
            let small = crate::spawn({
                let places = places.clone();
                move || drop(places.acquire())
            });
            large.terminate();
            assert!(large.join().is_err());
            assert!(small.join().is_ok());
        });
    }
}
