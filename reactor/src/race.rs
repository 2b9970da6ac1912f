//! Several things at once, for the first result or for all of them.

use std::cell::Cell;

use crate::scope::scope;
use crate::sync::Signal;

/// Work of one's own kind among others, boxed: see [`task`].
pub type Task<'a, T> = Box<dyn FnOnce() -> T + 'a>;

/// Boxes `f`, so that closures of several kinds fit one [`race`] or [`join_all`].
pub fn task<'a, T>(f: impl FnOnce() -> T + 'a) -> Task<'a, T> {
    Box::new(f)
}

/// Counts a branch down when it is left.
struct Leave<'a>(&'a Cell<usize>, &'a Signal);

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
        self.1.notify_all();
    }
}

/// Runs all branches at once and returns the first result; the losers have ended by then.
///
/// The branches start in their order. As soon as one has a result the others are terminated, those that have not
/// started never do, and this returns when all have unwound. A branch that ends with an error of its own has a
/// result too: wrap it so that only a success returns, if that is what is meant.
///
/// # Panics
///
/// With the first panic of a branch, even of a loser that unwinds. Without branches. Outside [`crate::run`].
///
/// # Suspends
///
/// Until the first result, and until the losers have unwound.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use reactor::{race, sleep, task};
///
/// reactor::run(|| {
///     let name = String::from("tortoise"); // branches may borrow
///     let winner = race([
///         task(|| { sleep(Duration::from_secs(60)); "hare" }),
///         task(|| { sleep(Duration::from_millis(1)); name.as_str() }),
///     ]);
///     assert_eq!(winner, "tortoise");
/// });
/// ```
#[track_caller]
pub fn race<T, F: FnOnce() -> T>(branches: impl IntoIterator<Item = F>) -> T {
    let (winner, won) = (Cell::new(None), Cell::new(false));
    let (running_count, ended) = (Cell::new(0), Signal::new());
    scope(|s| {
        for branch in branches {
            if won.get() {
                break;
            }
            running_count.set(running_count.get() + 1);
            let leave = Leave(&running_count, &ended);
            s.spawn(|| {
                let _leave = leave;
                let value = branch();
                if !won.replace(true) {
                    winner.set(Some(value));
                }
            });
        }
        while !won.get() && running_count.get() > 0 {
            ended.wait();
        }
        s.terminate_children();
    });
    winner.into_inner().expect("a race needs branches, and somebody to let them run")
}

/// Runs all tasks at once and returns their results, in the order of the tasks.
///
/// # Panics
///
/// With the first panic of a task; the others are terminated then. Outside [`crate::run`].
///
/// # Suspends
///
/// Until all have ended.
///
/// # Examples
///
/// ```
/// let squares = reactor::run(|| reactor::join_all((1..=3).map(|n| move || n * n)));
/// assert_eq!(squares, [1, 4, 9]);
/// ```
#[track_caller]
pub fn join_all<T, F: FnOnce() -> T>(tasks: impl IntoIterator<Item = F>) -> Vec<T> {
    scope(|s| {
        let children: Vec<_> = tasks.into_iter().map(|task| s.spawn(task)).collect();
        // A child without a result has panicked, and `scope` raises that.
        children.into_iter().filter_map(|child| child.join().ok()).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{sleep, spawn, timeout, yield_now};
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::time::Duration;

    const LONG: Duration = Duration::from_secs(3600);

    struct Note<'a>(&'a Cell<u32>);

    impl Drop for Note<'_> {
        fn drop(&mut self) {
            self.0.set(self.0.get() + 1);
        }
    }

    #[test]
    fn the_losers_of_a_race_have_unwound_before_it_returns() {
        crate::run(|| {
            let unwound = Cell::new(0);
            let loser = || {
                let _note = Note(&unwound);
                sleep(LONG);
                "a loser"
            };
            let winner = || {
                yield_now();
                "the winner"
            };
            assert_eq!(race([task(loser), task(winner), task(loser)]), "the winner");
            assert_eq!(unwound.get(), 2);
        });
    }

    #[test]
    fn a_branch_that_is_ready_at_once_wins_and_later_ones_never_start() {
        crate::run(|| {
            let started = Cell::new(0);
            let branch = |n| {
                let started = &started;
                move || {
                    started.set(started.get() + 1);
                    n
                }
            };
            assert_eq!(race([branch(1), branch(2)]), 1);
            assert_eq!(started.get(), 1);
        });
    }

    #[test]
    fn a_panic_in_a_race_is_raised_and_ends_the_others() {
        crate::run(|| {
            let unwound = Cell::new(0);
            let raised = catch_unwind(AssertUnwindSafe(|| {
                race([
                    task(|| {
                        let _note = Note(&unwound);
                        sleep(LONG)
                    }),
                    task(|| panic!("in a branch")),
                ])
            }));
            assert_eq!(raised.unwrap_err().downcast_ref::<&str>(), Some(&"in a branch"));
            assert_eq!(unwound.get(), 1);
        });
    }

    #[test]
    fn a_terminated_race_ends_its_branches() {
        crate::run(|| {
            let ended = timeout(Duration::from_millis(1), || race([|| sleep(LONG), || sleep(LONG)]));
            assert!(ended.is_err());
            let racing = spawn(|| race([|| sleep(LONG)]));
            assert!(racing.terminate_and_wait().is_err());
        });
    }

    #[test]
    fn results_of_join_all_are_in_the_order_of_the_tasks_whoever_ends_first() {
        crate::run(|| {
            let results = join_all([3u64, 1, 2].map(|ms| {
                move || {
                    sleep(Duration::from_millis(ms));
                    ms
                }
            }));
            assert_eq!(results, [3, 1, 2]);
        });
    }
}
