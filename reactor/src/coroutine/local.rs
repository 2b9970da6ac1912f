//! Values that each coroutine has for itself: thread-local storage, for coroutines.
//!
//! A `thread_local!` is shared by all coroutines, since they share the thread. A [`Local`] is found through the
//! running coroutine instead, by the address of the `static` that declares it; few coroutines have more than a
//! handful, so they are searched one by one.

use std::any::Any;
use std::rc::Rc;

use super::{Coroutine, current, uninterruptible};
use crate::cell::RefCell;

/// Rounds of destruction at a coroutine's end: destructors may use further locals. As many as POSIX grants
/// (`_POSIX_THREAD_DESTRUCTOR_ITERATIONS`); what is still there after them goes with the coroutine's own state.
const DESTRUCTION_ROUNDS_MAX: usize = 4;

/// The values of one coroutine, in the order of their first use, each under its declaration's address.
#[derive(Default)]
pub(super) struct Locals(RefCell<Vec<(usize, Rc<dyn Any>)>>);

/// A value that each coroutine has for itself, made when it is first asked for.
///
/// Declared as a `static`. It is dropped when its coroutine ends, on that coroutine and before it can be joined,
/// the last made first; its destructor may suspend, and is not interrupted by a termination. A child does not inherit it: what a child shall know is moved or lent to it.
///
/// # Examples
///
/// ```
/// use std::cell::Cell;
/// use reactor::Local;
///
/// static REQUEST: Local<Cell<u64>> = Local::new(|| Cell::new(0));
///
/// reactor::run(|| {
///     REQUEST.with(|id| id.set(7));
///     let of_child = reactor::spawn(|| REQUEST.with(Cell::get)).join().unwrap();
///     assert_eq!(of_child, 0);
///     assert_eq!(REQUEST.with(Cell::get), 7);
/// });
/// ```
pub struct Local<T> {
    init: fn() -> T,
}

impl<T: 'static> Local<T> {
    /// A local whose value `init` makes.
    pub const fn new(init: fn() -> T) -> Local<T> {
        Local { init }
    }

    /// Calls `f` with the running coroutine's value. Suspends only if `f` does, or `init` at the first use.
    ///
    /// # Panics
    ///
    /// Outside [`run`](crate::run).
    pub fn with<R>(&'static self, f: impl FnOnce(&T) -> R) -> R {
        let me = current();
        let locals = &me.rare().locals;
        let value = locals.get(self.key()).unwrap_or_else(|| {
            let made: Rc<dyn Any> = Rc::new((self.init)());
            // `init` may have asked for the same one: then the inner one stays.
            locals.get(self.key()).unwrap_or_else(|| {
                locals.0.borrow_mut().push((self.key(), made.clone()));
                made
            })
        });
        f(value.downcast_ref().expect("only this declaration has this address"))
    }

    fn key(&'static self) -> usize {
        std::ptr::from_ref(self).addr()
    }
}

impl Locals {
    fn get(&self, key: usize) -> Option<Rc<dyn Any>> {
        self.0.borrow().iter().find(|(other, _)| *other == key).map(|(_, value)| value.clone())
    }
}

impl Coroutine {
    /// Drops what it keeps for itself: called on it, when its body has ended.
    pub(super) fn drop_locals(&self) {
        let Some(rare) = self.rare.get() else { return };
        uninterruptible(|| {
            for _ in 0..DESTRUCTION_ROUNDS_MAX {
                let mut values = rare.locals.0.take();
                if values.is_empty() {
                    return;
                }
                while values.pop().is_some() {}
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    static OWN: Local<Cell<u32>> = Local::new(|| Cell::new(1));

    #[test]
    fn each_coroutine_has_a_value_of_its_own_across_suspensions() {
        crate::run(|| {
            let children: Vec<_> = (10..20)
                .map(|n| {
                    crate::spawn(move || {
                        assert_eq!(OWN.with(Cell::get), 1);
                        OWN.with(|own| own.set(n));
                        crate::yield_now();
                        assert_eq!(OWN.with(Cell::get), n);
                    })
                })
                .collect();
            children.into_iter().for_each(|child| child.join().unwrap());
            assert_eq!(OWN.with(Cell::get), 1);
        });
    }

    thread_local! { static DROPS: RefCell<Vec<&'static str>> = const { RefCell::new(Vec::new()) }; }

    struct Note(&'static str);

    impl Drop for Note {
        fn drop(&mut self) {
            crate::yield_now(); // still on its coroutine, so it may suspend
            DROPS.with(|drops| drops.borrow_mut().push(self.0));
        }
    }

    static FIRST: Local<Note> = Local::new(|| Note("first"));
    static SECOND: Local<Note> = Local::new(|| Note("second"));

    #[test]
    fn values_are_dropped_at_the_end_the_last_made_first_also_after_a_termination() {
        crate::run(|| {
            for terminate in [false, true] {
                DROPS.with(RefCell::take);
                let child = crate::spawn(|| {
                    FIRST.with(|_| ());
                    SECOND.with(|_| ());
                    crate::yield_now();
                });
                if terminate {
                    child.terminate();
                }
                assert_eq!(child.join().is_err(), terminate);
                assert_eq!(DROPS.with(RefCell::take), ["second", "first"]);
            }
        });
    }
}
