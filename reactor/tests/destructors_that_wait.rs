//! Destructors that run while their coroutine unwinds may not suspend. What they start waits for its turn; a lock that they
//! would have to wait for ends the process, with a sentence that says whose destructor it was; and whoever does not come to
//! an end is named while the run waits for it.

mod support;

use std::io::{self, Write};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use reactor::{Builder, run, sleep, spawn, yield_now};
use support::Log;

const LONG: Duration = Duration::from_secs(3600);

/// Locks as it is dropped, at once or in a coroutine that it starts for that.
struct Seat {
    free: Rc<reactor::sync::Mutex<u32>>,
    waits_itself: bool,
}

impl Drop for Seat {
    fn drop(&mut self) {
        if self.waits_itself {
            *self.free.lock() += 1;
        } else {
            let free = self.free.clone();
            spawn(move || *free.lock() += 1);
        }
    }
}

#[test]
fn what_a_destructor_starts_while_its_coroutine_unwinds_may_wait_when_its_turn_comes() {
    run(|| {
        let free = Rc::new(reactor::sync::Mutex::new(0));
        let held = free.lock();
        let seat = Seat { free: free.clone(), waits_itself: false };
        let child = spawn(move || {
            let _seat = seat;
            sleep(LONG);
        });
        assert!(child.terminate_and_wait().is_err());
        yield_now();
        drop(held);
        yield_now();
        assert_eq!(*free.lock(), 1);
    });
}

#[test]
fn a_destructor_that_would_wait_for_a_lock_ends_the_process_with_its_coroutines_name() {
    const CHILD: &str = "HYPHA_TEST_LOCKS_AS_IT_UNWINDS";
    if std::env::var_os(CHILD).is_some() {
        return run(|| {
            let free = Rc::new(reactor::sync::Mutex::new(0));
            let _held = free.lock();
            let seat = Seat { free: free.clone(), waits_itself: true };
            let body = move || {
                let _seat = seat;
                sleep(LONG);
            };
            let child = Builder::new().name("the one with a seat").spawn(body).unwrap();
            let _: Result<(), _> = child.terminate_and_wait();
        });
    }
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "a_destructor_that_would_wait_for_a_lock_ends_the_process_with_its_coroutines_name",
        ])
        .arg("--nocapture")
        .env(CHILD, "1")
        .output()
        .unwrap();
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{err}");
    assert!(err.contains("the one with a seat") && err.contains("a permit or a lock"), "{err}");
}

/// A log that lets go of somebody when it is told that the run can't end.
#[derive(Clone)]
struct Release(Log, Sender<()>);

impl Write for Release {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.0.write(bytes)?;
        if self.0.text().contains("the run can't end") {
            let _ = self.1.send(());
        }
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn who_keeps_a_run_from_its_end_is_named_while_it_is_waited_for() {
    let (release, gate) = channel();
    let log = Log::default();
    let was_told = Arc::new(AtomicBool::new(false));
    let told = was_told.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_ansi(false)
        .with_writer(Mutex::new(Release(log.clone(), release)))
        .finish();
    tracing::subscriber::with_default(subscriber, || {
        run(move || {
            let stay = move || {
                reactor::uninterruptible(|| {
                    let gate = gate;
                    let waited = reactor::offload(move || gate.recv_timeout(Duration::from_secs(60)).is_ok());
                    told.store(waited, Ordering::Relaxed);
                });
            };
            Builder::new().name("the one that stays").spawn(stay).unwrap();
        });
    });
    let text = log.text();
    assert!(was_told.load(Ordering::Relaxed), "nobody was named: {text}");
    assert!(text.contains("the one that stays (waits for "), "{text}");
}
