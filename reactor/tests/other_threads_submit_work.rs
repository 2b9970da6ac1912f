//! Other OS threads give the reactor work and wait for its results, by a handle that a coroutine hands out.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use reactor::{Handle, SubmitError, Terminated, offload, run, sleep, spawn, yield_now};

#[test]
fn threads_submit_work_that_runs_as_coroutines_and_wait_for_the_results() {
    run(|| {
        let handle = Handle::current();
        let threads: Vec<_> = (0..4u64)
            .map(|thread| {
                let handle = handle.clone();
                std::thread::spawn(move || {
                    let tasks: Vec<_> = (0..500u64)
                        .map(|n| {
                            let work = move || {
                                yield_now(); // it may suspend: it is a coroutine
                                thread * 1000 + n
                            };
                            handle.spawn(work).unwrap()
                        })
                        .collect();
                    tasks.into_iter().map(|task| task.wait().unwrap()).sum::<u64>()
                })
            })
            .collect();
        let sum: u64 = offload(move || threads.into_iter().map(|thread| thread.join().unwrap()).sum());
        assert_eq!(sum, 4 * (0..500).sum::<u64>() + 500 * 1000 * (1 + 2 + 3));
    });
}

#[test]
fn a_panic_of_submitted_work_goes_to_the_thread_that_waits_and_ends_nothing_else() {
    run(|| {
        let handle = Handle::current();
        let message = offload(move || {
            let task = handle.spawn(|| -> u32 { panic!("of the work") }).unwrap();
            let raised = catch_unwind(AssertUnwindSafe(|| task.wait())).unwrap_err();
            drop(handle.spawn(|| panic!("that nobody waits for")).unwrap());
            raised.downcast_ref::<&str>().map(|text| (*text).to_owned())
        });
        assert_eq!(message.as_deref(), Some("of the work"));
        sleep(Duration::from_millis(1));
    });
}

#[test]
fn a_result_can_be_polled_for_and_waited_for_in_time() {
    run(|| {
        let handle = Handle::current();
        let gate = Arc::new(AtomicUsize::new(0));
        offload(move || {
            let opened = gate.clone();
            let work = move || {
                while opened.load(Ordering::Relaxed) == 0 {
                    sleep(Duration::from_millis(1));
                }
                5
            };
            let task = handle.spawn(work).unwrap();
            assert_eq!(task.poll(), None);
            assert_eq!(task.wait_timeout(Duration::from_millis(1)), None);
            gate.store(1, Ordering::Relaxed);
            assert_eq!(task.wait_timeout(Duration::from_secs(60)), Some(Ok(5)));
        });
    });
}

#[test]
fn work_that_the_run_did_not_wait_for_is_terminated_and_its_thread_learns_of_it() {
    struct Count(Arc<AtomicUsize>);
    impl Drop for Count {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
    let unwound = Arc::new(AtomicUsize::new(0));
    let count = unwound.clone();
    let (handle, task) = run(move || {
        let handle = Handle::current();
        let ours = handle.clone();
        let task = offload(move || {
            let note = Count(count);
            let work = move || {
                let _note = note;
                sleep(Duration::from_secs(3600));
            };
            let task = ours.spawn(work).unwrap();
            ours.spawn(|| ()).unwrap().wait().unwrap(); // so the one before has started
            task
        });
        (handle, task)
    });
    assert_eq!(unwound.load(Ordering::Relaxed), 1);
    assert_eq!(task.wait(), Err(Terminated));
    assert_eq!(handle.spawn(|| ()).err(), Some(SubmitError::Ended));
    assert_eq!(handle.try_spawn(|| ()).err(), Some(SubmitError::Ended));
}

#[test]
fn no_more_than_a_bounded_amount_of_work_waits_to_be_started() {
    run(|| {
        let handle = Handle::current();
        // On the reactor's own thread, so that nothing is started meanwhile.
        let tasks: Vec<_> = (0..10_000).map(|_| handle.try_spawn(|| ())).collect();
        let accepted = tasks.iter().filter(|task| task.is_ok()).count();
        assert_eq!(accepted, 256);
        assert!(tasks.iter().any(|task| matches!(task, Err(SubmitError::Full))));
        sleep(Duration::from_millis(1));
        assert!(handle.try_spawn(|| ()).is_ok(), "there is room again");
    });
}

#[test]
fn waiting_on_the_reactors_own_thread_is_refused() {
    run(|| {
        let handle = Handle::current();
        let task = handle.try_spawn(|| 1).unwrap();
        assert!(catch_unwind(AssertUnwindSafe(|| task.wait())).is_err());
        let child = spawn(move || catch_unwind(AssertUnwindSafe(|| handle.spawn(|| ()))).is_err());
        assert_eq!(child.join(), Ok(true));
    });
}
