//! Iterators written as code that gives one value after the other.

use std::cell::Cell;
use std::fmt;
use std::iter::FusedIterator;
use std::rc::Rc;

use crate::coroutine::{self, JoinHandle, spawn};
use crate::sync::WaitList;

struct Shared<T> {
    value: Cell<Option<T>>,
    wanted: Cell<bool>,
    ended: Cell<bool>,
    consumer: WaitList,
    producer: WaitList,
}

/// Where a generator's body leaves its values.
pub struct Yielder<T> {
    shared: Rc<Shared<T>>,
}

/// The values of a body that runs as a coroutine, one at a time as they are asked for: see [`generator`].
pub struct Generator<T: 'static> {
    shared: Rc<Shared<T>>,
    state: State<T>,
}

type Body<T> = Box<dyn FnOnce(&Yielder<T>)>;

enum State<T> {
    New(Body<T>),
    Running(JoinHandle<()>),
    Ended,
}

/// Makes an iterator of the values that `body` gives.
///
/// `body` runs only while a value is asked for: it starts with the first call of `next`, and stands still from one
/// [`Yielder::give`] until the next value is wanted. It may wait for sockets and the like in between. A panic in
/// it is raised by `next`. Dropping the iterator terminates it: it unwinds when it next gets to run. Never
/// suspends.
///
/// # Examples
///
/// ```
/// reactor::run(|| {
///     let fibonacci = reactor::generator(|yielder| {
///         let (mut a, mut b) = (0u64, 1);
///         loop {
///             yielder.give(a);
///             (a, b) = (b, a + b);
///         }
///     });
///     let first: Vec<u64> = fibonacci.take(8).collect();
///     assert_eq!(first, [0, 1, 1, 2, 3, 5, 8, 13]);
/// });
/// ```
pub fn generator<T: 'static>(body: impl FnOnce(&Yielder<T>) + 'static) -> Generator<T> {
    let shared = Shared {
        value: Cell::new(None),
        wanted: Cell::new(false),
        ended: Cell::new(false),
        consumer: WaitList::new(),
        producer: WaitList::new(),
    };
    Generator { shared: Rc::new(shared), state: State::New(Box::new(body)) }
}

impl<T> Yielder<T> {
    /// Gives `value` to whoever asked for one.
    ///
    /// # Suspends
    ///
    /// Until the next one is asked for.
    pub fn give(&self, value: T) {
        self.shared.value.set(Some(value));
        self.shared.wanted.set(false);
        self.shared.consumer.notify_one();
        while !self.shared.wanted.get() && coroutine::may_suspend() {
            self.shared.producer.wait_on(&"its next value to be asked for");
        }
    }
}

/// Tells the consumer that there will be no more.
struct End<T>(Rc<Shared<T>>);

impl<T> Drop for End<T> {
    fn drop(&mut self) {
        self.0.ended.set(true);
        self.0.consumer.notify_one();
    }
}

/// # Suspends
///
/// In `next`, until the body gives a value or ends. A value that was waited for in vain (the consumer was
/// terminated, or a timeout ended the wait) comes with the next call.
impl<T: 'static> Iterator for Generator<T> {
    type Item = T;

    #[track_caller]
    fn next(&mut self) -> Option<T> {
        let call = coroutine::begin();
        if let Some(value) = self.shared.value.take() {
            call.needed_no_wait();
            return Some(value);
        }
        call.over();
        self.shared.wanted.set(true);
        match std::mem::replace(&mut self.state, State::Ended) {
            State::New(body) => {
                let end = End(self.shared.clone());
                self.state = State::Running(spawn(move || {
                    let end = end;
                    body(&Yielder { shared: end.0.clone() });
                }));
            }
            State::Running(handle) => {
                self.state = State::Running(handle);
                self.shared.producer.notify_one();
            }
            State::Ended => return None,
        }
        loop {
            if let Some(value) = self.shared.value.take() {
                return Some(value);
            }
            if self.shared.ended.get() || !coroutine::may_suspend() {
                break;
            }
            self.shared.consumer.wait_on(&"a generator's value");
        }
        if self.shared.ended.get()
            && let State::Running(handle) = std::mem::replace(&mut self.state, State::Ended)
        {
            // Its panic is raised here. Terminated or not, there is no more. All of it has run; unwound here the panic would be
            // lost, and the next call would take it for the end.
            let _ = coroutine::uninterruptible(|| handle.join());
        }
        None
    }
}

impl<T: 'static> FusedIterator for Generator<T> {}

impl<T: 'static> Drop for Generator<T> {
    fn drop(&mut self) {
        if let State::Running(handle) = &self.state {
            handle.terminate();
        }
    }
}

impl<T: 'static> fmt::Debug for Generator<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Generator").field("ended", &self.shared.ended.get()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{run, sleep, timeout, yield_now};
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::time::Duration;

    #[test]
    fn a_generator_runs_only_as_far_as_it_is_asked_to() {
        run(|| {
            let given = Rc::new(Cell::new(0));
            let note = given.clone();
            let mut numbers = generator(move |yielder| {
                for n in 1..=3 {
                    note.set(n);
                    yielder.give(n);
                }
            });
            yield_now();
            assert_eq!(given.get(), 0, "not even started");
            assert_eq!(numbers.next(), Some(1));
            yield_now();
            assert_eq!(given.get(), 1);
            assert_eq!(numbers.by_ref().collect::<Vec<_>>(), [2, 3]);
            assert_eq!(numbers.next(), None);
            assert_eq!(numbers.next(), None);
        });
    }

    #[test]
    fn dropping_the_iterator_terminates_the_generator() {
        run(|| {
            struct Note(Rc<Cell<bool>>);
            impl Drop for Note {
                fn drop(&mut self) {
                    self.0.set(true);
                }
            }
            let unwound = Rc::new(Cell::new(false));
            let note = Note(unwound.clone());
            let mut endless = generator(move |yielder| {
                let _note = note;
                for n in 0u64.. {
                    yielder.give(n);
                }
            });
            assert_eq!(endless.nth(3), Some(3));
            drop(endless);
            yield_now();
            assert!(unwound.get());
        });
    }

    #[test]
    fn a_panic_in_a_generator_reaches_its_consumer_once() {
        run(|| {
            let mut failing = generator(|yielder| {
                yielder.give(1);
                yield_now();
                panic!("in the generator");
            });
            assert_eq!(failing.next(), Some(1));
            let raised = catch_unwind(AssertUnwindSafe(|| failing.next())).unwrap_err();
            assert_eq!(raised.downcast_ref::<&str>(), Some(&"in the generator"));
            assert_eq!(failing.next(), None);
        });
    }

    #[test]
    fn a_value_waited_for_in_vain_comes_with_the_next_call() {
        run(|| {
            let mut slow = generator(|yielder| {
                for n in 0..3 {
                    sleep(Duration::from_millis(5));
                    yielder.give(n);
                }
            });
            assert!(timeout(Duration::from_millis(1), || slow.next()).is_err());
            assert_eq!(slow.collect::<Vec<_>>(), [0, 1, 2]);
        });
    }
}
