//! A termination is a wish that must come true: code that catches the unwinding is found out, a coroutine that
//! has not started never does, and whoever waits for the end gets it. What fails on the way is told.

mod support;

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::time::Duration;

use reactor::{Builder, Terminated, run, scope, sleep, spawn, timeout, yield_now};
use support::run_logged;

const LONG: Duration = Duration::from_secs(3600);

#[test]
fn a_swallowed_termination_is_logged_with_the_name_and_the_next_blocking_call_unwinds_again() {
    let log = run_logged(|_| {
        let reached = Rc::new(Cell::new(false));
        let note = reached.clone();
        let stubborn = Builder::new()
            .name("the stubborn one")
            .spawn(move || {
                let _ = catch_unwind(|| sleep(LONG));
                note.set(true);
                sleep(LONG);
                unreachable!("the second call unwinds as well");
            })
            .unwrap();
        assert_eq!(stubborn.terminate_and_wait(), Err(Terminated));
        assert!(reached.get());
    });
    assert!(log.contains("the stubborn one") && log.contains("swallowed its termination"), "{log}");
}

#[test]
fn a_coroutine_that_swallows_its_termination_and_returns_is_logged_and_its_result_counts() {
    let log = run_logged(|_| {
        let child = Builder::new()
            .name("returns anyway")
            .spawn(|| {
                let _ = catch_unwind(|| sleep(LONG));
                "a result"
            })
            .unwrap();
        assert_eq!(child.terminate_and_wait(), Ok("a result"));
    });
    assert!(log.contains("returns anyway") && log.contains("which counts"), "{log}");
}

#[test]
fn a_swallowed_timeout_unwinds_again_up_to_its_own_frame_and_no_further() {
    let log = run_logged(|_| {
        let ended = timeout(Duration::from_millis(1), || {
            let _ = catch_unwind(|| sleep(LONG));
            sleep(LONG);
        });
        assert!(ended.is_err());
        sleep(Duration::from_millis(1)); // outside of it nothing is left
    });
    assert!(log.contains("swallowed a timeout's end"), "{log}");
}

#[test]
fn code_that_catches_a_termination_and_passes_it_on_is_not_blamed() {
    let log = run_logged(|_| {
        let child = spawn(|| {
            if let Err(payload) = catch_unwind(|| scope(|s| s.spawn(|| sleep(LONG)).join())) {
                std::panic::resume_unwind(payload);
            }
        });
        assert!(child.terminate_and_wait().is_err());
    });
    assert!(!log.contains("swallowed"), "{log}");
}

#[test]
fn a_loop_that_swallows_ever_again_does_not_flood_the_log() {
    let log = run_logged(|_| {
        let child = spawn(|| (0..1000).for_each(|_| drop(catch_unwind(|| sleep(LONG)))));
        assert!(child.terminate_and_wait().is_ok());
    });
    let lines = log.lines().filter(|line| line.contains("swallowed")).count();
    assert!((1..=11).contains(&lines), "{lines} lines for 1,000 times");
}

#[test]
fn a_child_of_a_scope_that_fails_already_is_discarded_without_having_started() {
    run(|| {
        let (started, discarded) = (Cell::new(false), Cell::new(false));
        let raised = catch_unwind(AssertUnwindSafe(|| {
            scope(|s| {
                s.spawn(|| {
                    // Caught, so that the scope has failed while this child still runs.
                    let _ = catch_unwind(AssertUnwindSafe(|| sleep(LONG)));
                    let never = s.spawn(|| started.set(true));
                    discarded.set(never.is_finished());
                });
                s.spawn(|| panic!("the failure"));
            })
        }));
        assert!(raised.is_err());
        assert!(discarded.get() && !started.get());
    });
}

#[test]
fn a_coroutine_spawned_while_the_run_ends_is_discarded_without_having_started() {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    struct SpawnsAtTheEnd(Arc<AtomicBool>);
    impl Drop for SpawnsAtTheEnd {
        fn drop(&mut self) {
            let started = self.0.clone();
            spawn(move || started.store(true, Ordering::Relaxed));
        }
    }
    let started = Arc::new(AtomicBool::new(false));
    let note = SpawnsAtTheEnd(started.clone());
    run(move || {
        spawn(move || {
            let _note = note;
            sleep(LONG);
        });
    });
    assert!(!started.load(Ordering::Relaxed));
}

#[test]
fn a_running_coroutine_that_is_terminated_unwinds_at_its_next_blocking_call_and_not_before() {
    run(|| {
        let slot: Rc<Cell<Option<reactor::JoinHandle<()>>>> = Rc::default();
        let (own, steps) = (slot.clone(), Rc::new(Cell::new(0)));
        let counted = steps.clone();
        let runs = spawn(move || {
            yield_now(); // until its handle is in place
            let handle = own.take().unwrap();
            spawn(move || handle.terminate()); // by another, while this one runs
            counted.set(1); // goes on
            yield_now();
            counted.set(2); // never gets here
        });
        slot.set(Some(runs));
        yield_now();
        yield_now();
        assert_eq!(steps.get(), 1);
    });
}

#[test]
fn terminate_and_wait_returns_when_the_destructors_have_run() {
    struct SlowDrop(Rc<Cell<bool>>);
    impl Drop for SlowDrop {
        fn drop(&mut self) {
            self.0.set(true);
        }
    }
    run(|| {
        let dropped = Rc::new(Cell::new(false));
        let note = SlowDrop(dropped.clone());
        let child = spawn(move || {
            let _note = note;
            sleep(LONG);
        });
        assert_eq!(child.terminate_and_wait(), Err(Terminated));
        assert!(dropped.get());
        assert_eq!(spawn(|| 1).terminate_and_wait(), Ok(1), "it had returned before");
        scope(|s| assert_eq!(s.spawn(|| sleep(LONG)).terminate_and_wait(), Err(Terminated)));
    });
}

#[test]
fn the_later_failures_of_a_scope_are_logged_with_their_messages() {
    let log = run_logged(|_| {
        let raised = catch_unwind(AssertUnwindSafe(|| {
            scope(|s| {
                let later = Builder::new().name("the later one");
                later
                    .spawn_scoped(s, || {
                        let _ = catch_unwind(|| sleep(LONG));
                        panic!("second of them");
                    })
                    .unwrap();
                s.spawn(|| panic!("first of them"));
            })
        }));
        let payload = raised.unwrap_err();
        assert_eq!(payload.downcast_ref::<&str>(), Some(&"first of them"));
    });
    assert!(log.contains("the later one") && log.contains("second of them"), "{log}");
}

#[test]
fn a_coroutine_without_a_name_is_called_after_the_place_that_spawned_it() {
    run(|| {
        let line = line!() + 1;
        let child = spawn(reactor::current_name);
        assert!(
            child.name().ends_with(&format!("terminations_cannot_be_lost.rs:{line}")),
            "{}",
            child.name()
        );
        assert_eq!(child.name(), child.join().unwrap());
        scope(|s| {
            let named = Builder::new().name("worker 3").spawn_scoped(s, reactor::current_name).unwrap();
            assert_eq!(named.join().unwrap(), "worker 3");
            let unnamed = s.spawn(reactor::current_name).join().unwrap();
            assert!(unnamed.contains("terminations_cannot_be_lost.rs:"), "{unnamed}");
        });
    });
}
