//! The same work over many items, a bounded number at a time.

use std::cell::Cell;

use crate::cell::RefCell;
use crate::scope::scope;
use crate::sync::{Mutex, Signal};

/// A worker's code, until it is left: the worker itself may go on for a while, in destructors that suspend.
struct Working<'a>(&'a Cell<usize>, &'a Signal);

impl Drop for Working<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
        self.1.notify_all();
    }
}

/// Calls `f` for each item, up to `limit` at a time, and returns the results in the order of the items.
///
/// Items are taken from the iterator only when there is a place for them, so it may be long, or wait itself. The
/// first `Err` ends it early: calls under way are terminated, and no further item is taken. To stop with a success
/// (a search that has found something), return it as the `Err`.
///
/// # Errors
///
/// The first of `f`'s, in time.
///
/// # Panics
///
/// With the first panic of `f` or of the iterator, and with a limit of zero. Outside [`crate::run`].
///
/// # Suspends
///
/// Until all items are done, or the terminated calls have unwound.
///
/// # Examples
///
/// ```
/// use std::convert::Infallible;
/// reactor::run(|| {
///     let lengths = reactor::for_each_parallel(2, ["a", "bc", "def"], |word| Ok::<_, Infallible>(word.len()));
///     assert_eq!(lengths, Ok(vec![1, 2, 3]));
///     let found = reactor::for_each_parallel(2, 0.., |n| if n == 10 { Err(n) } else { Ok(()) });
///     assert_eq!(found, Err(10));
/// });
/// ```
#[track_caller]
pub fn for_each_parallel<I: IntoIterator, T, E>(
    limit: usize,
    items: I,
    f: impl Fn(I::Item) -> Result<T, E>,
) -> Result<Vec<T>, E> {
    assert!(limit > 0, "with a limit of zero nothing would ever be done");
    // A lock and not a borrow: the iterator may suspend, as a generator does.
    let items = Mutex::new(items.into_iter().enumerate());
    let results: RefCell<Vec<Option<T>>> = RefCell::new(Vec::new());
    let (exhausted, failure) = (Cell::new(false), Cell::new(None));
    let ended = Signal::new();
    let stopped = Cell::new(false);
    let working_count = Cell::new(0);
    let work = |working: Working<'_>| {
        let _working = working;
        while !stopped.get() && !exhausted.get() {
            let Some((index, item)) = items.lock().next() else {
                exhausted.set(true);
                break;
            };
            match f(item) {
                Ok(value) => {
                    let mut results = results.borrow_mut();
                    if results.len() <= index {
                        results.resize_with(index + 1, || None);
                    }
                    results[index] = Some(value);
                }
                Err(error) => {
                    if !stopped.replace(true) {
                        failure.set(Some(error));
                    }
                }
            }
        }
    };
    scope(|s| {
        let mut worker_count = 0;
        while worker_count < limit && !exhausted.get() && !stopped.get() {
            working_count.set(working_count.get() + 1);
            let working = Working(&working_count, &ended);
            match s.try_spawn(|| work(working)) {
                Ok(_) => worker_count += 1,
                // Fewer do as well, unless there is none.
                Err(error) if worker_count == 0 => panic!("{error}"),
                Err(_) => break,
            }
        }
        while !stopped.get() && working_count.get() > 0 {
            ended.wait();
        }
        s.terminate_children();
    });
    match failure.into_inner() {
        Some(error) => Err(error),
        None => Ok(results.into_inner().into_iter().flatten().collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{sleep, yield_now};
    use std::convert::Infallible;
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::time::Duration;

    #[test]
    fn results_are_in_the_order_of_the_items_and_no_more_than_the_limit_run_at_once() {
        crate::run(|| {
            let (running, most) = (Cell::new(0), Cell::new(0));
            let results = for_each_parallel(4, 0..100u64, |n| {
                running.set(running.get() + 1);
                most.set(most.get().max(running.get()));
                (0..n % 7).for_each(|_| yield_now());
                running.set(running.get() - 1);
                Ok::<_, Infallible>(n * 2)
            });
            assert_eq!(results, Ok((0..100).map(|n| n * 2).collect()));
            assert_eq!(most.get(), 4);
        });
    }

    #[test]
    fn the_first_error_stops_the_rest_and_no_further_item_is_taken() {
        crate::run(|| {
            let taken = Cell::new(0);
            let unwound = Cell::new(0);
            struct Note<'a>(&'a Cell<u32>);
            impl Drop for Note<'_> {
                fn drop(&mut self) {
                    self.0.set(self.0.get() + 1);
                }
            }
            let items = (0..).inspect(|_| taken.set(taken.get() + 1));
            let result: Result<Vec<()>, u32> = for_each_parallel(3, items, |n| {
                let _note = Note(&unwound);
                if n == 2 {
                    yield_now();
                    return Err(n);
                }
                sleep(Duration::from_secs(3600));
                Ok(())
            });
            assert_eq!(result, Err(2));
            assert_eq!((taken.get(), unwound.get()), (3, 3));
        });
    }

    #[test]
    fn a_panic_in_one_call_is_raised() {
        crate::run(|| {
            let raised = catch_unwind(AssertUnwindSafe(|| {
                for_each_parallel(2, 0..10, |n| {
                    yield_now();
                    assert!(n != 5, "the fifth");
                    Ok::<_, Infallible>(())
                })
            }));
            assert!(raised.is_err());
        });
    }

    #[test]
    fn items_may_come_from_an_iterator_that_suspends() {
        crate::run(|| {
            let items = (0..20).inspect(|_| yield_now());
            let results = for_each_parallel(5, items, |n| {
                yield_now();
                Ok::<_, Infallible>(n)
            });
            assert_eq!(results.unwrap(), (0..20).collect::<Vec<_>>());
        });
    }

    #[test]
    fn nothing_to_do_is_done_at_once() {
        crate::run(|| {
            let none = for_each_parallel(3, std::iter::empty::<u32>(), |_| Err::<(), _>("never called"));
            assert_eq!(none, Ok(vec![]));
        });
    }
}
