//! What a coroutine's end promises: locals are gone before a join returns, shields end and keep inner deadlines, and
//! destructors that panic are a panic like any other.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::time::Duration;

use reactor::cell::RefCell;
use reactor::{
    Elapsed, Local, Terminated, for_each_parallel, run, scope, sleep, spawn, timeout, uninterruptible,
    yield_now,
};

thread_local! { static NOTES: RefCell<Vec<&'static str>> = const { RefCell::new(Vec::new()) }; }

fn note(text: &'static str) {
    NOTES.with(|notes| notes.borrow_mut().push(text));
}

/// A local whose destructor suspends.
struct Slow;

impl Drop for Slow {
    fn drop(&mut self) {
        yield_now();
        sleep(Duration::from_millis(1));
        note("local dropped");
    }
}

static SLOW: Local<Slow> = Local::new(|| Slow);

#[test]
fn a_scoped_child_is_joined_after_its_locals_are_dropped() {
    run(|| {
        NOTES.with(RefCell::take);
        scope(|s| {
            let child = s.spawn(|| SLOW.with(|_| 7));
            assert_eq!(child.join(), Ok(7));
            note("joined");
        });
        assert_eq!(NOTES.with(RefCell::take), ["local dropped", "joined"]);
    });
}

#[test]
fn parallel_work_ends_though_its_workers_have_locals_that_suspend() {
    run(|| {
        NOTES.with(RefCell::take);
        let done = timeout(Duration::from_secs(20), || {
            for_each_parallel(2, 0..6, |n| {
                SLOW.with(|_| ());
                yield_now();
                Ok::<_, ()>(n)
            })
        });
        assert_eq!(done, Ok(Ok((0..6).collect())));
        assert_eq!(NOTES.with(RefCell::take), ["local dropped", "local dropped"]);
    });
}

#[test]
fn a_deadline_inside_a_shield_holds_and_one_outside_waits() {
    run(|| {
        let outer = timeout(Duration::from_millis(5), || {
            uninterruptible(|| {
                let inner = timeout(Duration::from_millis(20), || sleep(Duration::from_secs(3600)));
                assert_eq!(inner, Err(Elapsed));
                uninterruptible(|| sleep(Duration::from_millis(1)));
                sleep(Duration::from_millis(1)); // the outer one's time is over, and it waits
            });
            note("the shield has ended");
            sleep(Duration::from_secs(3600));
        });
        assert_eq!(outer, Err(Elapsed));
        assert_eq!(NOTES.with(RefCell::take), ["the shield has ended"]);
    });
}

#[test]
fn a_termination_waits_for_nested_shields_and_a_scope_in_them_fails_as_ever() {
    run(|| {
        let steps = Rc::new(Cell::new(0));
        let counted = steps.clone();
        let step = move || counted.set(counted.get() + 1);
        let shielded = spawn(move || {
            uninterruptible(|| {
                uninterruptible(|| {
                    yield_now();
                    step();
                });
                yield_now(); // the inner one has ended, the outer has not
                step();
                let failed = catch_unwind(AssertUnwindSafe(|| {
                    scope(|s| {
                        s.spawn(|| {
                            yield_now();
                            panic!("a child's");
                        });
                        sleep(Duration::from_secs(3600)); // cut short by its child's failure
                    })
                }));
                assert!(failed.is_err());
                step();
            });
            yield_now();
            unreachable!("the shields have ended");
        });
        shielded.terminate();
        assert_eq!(shielded.join(), Err(Terminated));
        assert_eq!(steps.get(), 3);
    });
}

struct PanicsInDrop(&'static str);

impl Drop for PanicsInDrop {
    fn drop(&mut self) {
        panic!("{}", self.0);
    }
}

fn message(payload: Box<dyn std::any::Any + Send>) -> String {
    payload.downcast_ref::<String>().cloned().unwrap_or_default()
}

#[test]
fn a_result_that_nobody_wants_and_whose_destructor_panics_ends_the_run_with_that_panic() {
    let raised = catch_unwind(|| {
        run(|| {
            drop(spawn(|| {
                yield_now();
                PanicsInDrop("an unwanted result")
            }));
            sleep(Duration::from_secs(3600));
        })
    });
    assert_eq!(message(raised.unwrap_err()), "an unwanted result");
}

#[test]
fn a_body_that_never_runs_and_whose_destructor_panics_fails_its_scope_and_hangs_nobody() {
    run(|| {
        let raised = catch_unwind(AssertUnwindSafe(|| {
            scope(|s| {
                s.spawn(|| panic!("the first failure"));
                let captured = PanicsInDrop("a body that never ran");
                s.spawn(move || drop(captured));
            })
        }));
        assert!(raised.is_err());
        assert_eq!(spawn(|| 7).join(), Ok(7));
    });
}

#[test]
fn a_scoped_childs_result_that_nobody_joins_is_dropped_before_what_it_borrows() {
    run(|| {
        let raised = catch_unwind(AssertUnwindSafe(|| {
            scope(|s| {
                s.spawn(|| {
                    yield_now();
                    PanicsInDrop("a result that nobody joins")
                });
            })
        }));
        assert_eq!(message(raised.unwrap_err()), "a result that nobody joins");
    });
}

#[test]
fn a_join_that_a_timeout_ends_leaves_the_handle_good() {
    run(|| {
        let child = spawn(|| {
            sleep(Duration::from_millis(30));
            7
        });
        assert_eq!(timeout(Duration::from_millis(1), || child.join()), Err(Elapsed));
        assert_eq!(child.join(), Ok(7));
        let failing = spawn(|| {
            sleep(Duration::from_millis(5));
            panic!("seen by whoever joins");
        });
        let given_up: Result<Result<(), _>, _> = timeout(Duration::from_millis(1), || failing.join());
        assert!(given_up.is_err());
        assert!(catch_unwind(AssertUnwindSafe(|| failing.join())).is_err());
    });
}
