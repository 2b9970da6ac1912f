//! A value made at most once, by code that may suspend.

use std::cell;

use super::Semaphore;
use crate::coroutine::begin;

/// A value that the first who asks for it makes, while the others wait.
///
/// Where making it fails, panics or is terminated, the one who has waited longest tries next: first come, first
/// served. For making that does not suspend `std::cell::OnceCell` does.
///
/// # Examples
///
/// ```
/// use reactor::sync::OnceCell;
/// reactor::run(|| {
///     let settings = OnceCell::new();
///     assert_eq!(settings.get_or_try_init(|| "x".parse::<u32>()).ok(), None);
///     assert_eq!(settings.get_or_try_init(|| "7".parse::<u32>()), Ok(&7));
///     assert_eq!(settings.get_or_init(|| unreachable!("it is there")), &7);
/// });
/// ```
pub struct OnceCell<T> {
    value: cell::OnceCell<T>,
    turn: Semaphore,
}

/// Something done at most once: `once.get_or_init(|| ...)`.
pub type Once = OnceCell<()>;

impl<T> OnceCell<T> {
    /// Without a value.
    pub const fn new() -> OnceCell<T> {
        OnceCell { value: cell::OnceCell::new(), turn: Semaphore::new(1) }
    }

    /// The value, if it has been made. Never suspends.
    pub fn get(&self) -> Option<&T> {
        self.value.get()
    }

    /// The value, made by `init` if nobody has made it yet.
    ///
    /// # Panics
    ///
    /// With `init`'s panic.
    ///
    /// # Suspends
    ///
    /// While another one makes it, and as `init` does. For ever if `init` asks for the same value.
    pub fn get_or_init(&self, init: impl FnOnce() -> T) -> &T {
        let made: Result<&T, std::convert::Infallible> = self.get_or_try_init(|| Ok(init()));
        match made {
            Ok(value) => value,
            Err(never) => match never {},
        }
    }

    /// As [`OnceCell::get_or_init`], for making that may fail.
    ///
    /// # Errors
    ///
    /// Those of `init`; the next who asks tries again.
    ///
    /// # Panics
    ///
    /// With `init`'s panic.
    ///
    /// # Suspends
    ///
    /// While another one makes it, and as `init` does.
    pub fn get_or_try_init<E>(&self, init: impl FnOnce() -> Result<T, E>) -> Result<&T, E> {
        let call = begin();
        if let Some(value) = self.value.get() {
            call.needed_no_wait();
            return Ok(value);
        }
        call.over();
        let _turn = self.turn.acquire();
        if let Some(value) = self.value.get() {
            return Ok(value);
        }
        let value = init()?;
        Ok(self.value.get_or_init(|| value))
    }
}

impl<T> Default for OnceCell<T> {
    fn default() -> Self {
        OnceCell::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{scope, sleep, spawn, yield_now};
    use std::cell::Cell;
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::rc::Rc;
    use std::time::Duration;

    #[test]
    fn one_makes_the_value_while_the_others_wait_for_it() {
        crate::run(|| {
            let (cell, made) = (OnceCell::new(), Cell::new(0));
            scope(|s| {
                for _ in 0..10 {
                    s.spawn(|| {
                        let value = cell.get_or_init(|| {
                            yield_now();
                            made.set(made.get() + 1);
                            7
                        });
                        assert_eq!(*value, 7);
                    });
                }
            });
            assert_eq!(made.get(), 1);
        });
    }

    #[test]
    fn a_terminated_or_panicking_maker_leaves_it_to_the_next() {
        crate::run(|| {
            let cell = Rc::new(OnceCell::new());
            let ask = |init: fn() -> u32| {
                let cell = cell.clone();
                spawn(move || *cell.get_or_init(init))
            };
            let terminated = ask(|| {
                sleep(Duration::from_secs(3600));
                1
            });
            let panics = ask(|| panic!("in the making"));
            let last = ask(|| 3);
            assert!(terminated.terminate_and_wait().is_err());
            assert!(catch_unwind(AssertUnwindSafe(|| panics.join())).is_err());
            assert_eq!(last.join(), Ok(3));
            assert_eq!(cell.get(), Some(&3));
        });
    }
}
