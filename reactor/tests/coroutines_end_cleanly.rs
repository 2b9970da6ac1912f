//! How coroutines end: by returning, by panicking, by being terminated, or with the run.

use std::cell::Cell;
use std::io::{Read, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::time::Duration;

use reactor::cell::RefCell;
use reactor::net::{TcpListener, TcpStream, UnixStream};
use reactor::{Terminated, run, scope, sleep, spawn, timeout, uninterruptible, yield_now};

struct NoteDrop(Rc<Cell<bool>>);

impl Drop for NoteDrop {
    fn drop(&mut self) {
        self.0.set(true);
    }
}

fn message(payload: Box<dyn std::any::Any + Send>) -> String {
    match payload.downcast::<String>() {
        Ok(text) => *text,
        Err(payload) => (*payload.downcast::<&str>().unwrap()).to_owned(),
    }
}

#[test]
fn a_terminated_coroutine_unwinds_in_its_blocking_call() {
    run(|| {
        let dropped = Rc::new(Cell::new(false));
        let note = NoteDrop(dropped.clone());
        let sleeper = spawn(move || {
            let _note = note;
            sleep(Duration::from_secs(3600));
        });
        sleeper.terminate();
        assert_eq!(sleeper.join(), Err(Terminated));
        assert!(dropped.get());
    });
}

#[test]
fn a_coroutine_may_terminate_itself() {
    run(|| {
        let slot: Rc<RefCell<Option<reactor::JoinHandle<()>>>> = Rc::default();
        let own = slot.clone();
        let coroutine = spawn(move || {
            yield_now(); // until the handle is in its place
            own.borrow().as_ref().unwrap().terminate();
            yield_now();
            unreachable!("the blocking call after its termination unwinds");
        });
        *slot.borrow_mut() = Some(coroutine);
        yield_now();
        yield_now();
        let coroutine = slot.take().unwrap();
        assert_eq!(coroutine.join(), Err(Terminated));
    });
}

#[test]
fn a_critical_section_is_finished_before_the_termination() {
    run(|| {
        let steps = Rc::new(Cell::new(0));
        let counted = steps.clone();
        let worker = spawn(move || {
            uninterruptible(|| {
                for _ in 0..3 {
                    yield_now();
                    counted.set(counted.get() + 1);
                }
            });
            yield_now();
            counted.set(100);
        });
        worker.terminate();
        assert_eq!(worker.join(), Err(Terminated));
        assert_eq!(steps.get(), 3);
    });
}

#[test]
fn a_socket_whose_reader_was_terminated_reads_on_without_loss() {
    run(|| {
        let (near, mut far) = UnixStream::pair().unwrap();
        let near = Rc::new(near);
        for n in 0..100u8 {
            let reader = spawn({
                let near = near.clone();
                move || (&*near).read(&mut [0u8; 1])
            });
            reader.terminate();
            assert!(reader.join().is_err());
            far.write_all(&[n]).unwrap();
            let mut byte = [0u8; 1];
            (&*near).read_exact(&mut byte).unwrap();
            assert_eq!(byte, [n]);
        }
    });
}

#[test]
fn a_panic_goes_to_whoever_joins() {
    run(|| {
        let failing = spawn(|| {
            yield_now();
            panic!("of the child");
        });
        let raised = catch_unwind(AssertUnwindSafe(|| failing.join())).unwrap_err();
        assert_eq!(message(raised), "of the child");
    });
}

#[test]
fn a_panic_that_nobody_joins_ends_the_run() {
    let raised = catch_unwind(|| {
        run(|| {
            spawn(|| {
                yield_now();
                panic!("of the detached");
            });
            sleep(Duration::from_secs(3600));
        })
    });
    assert_eq!(message(raised.unwrap_err()), "of the detached");
}

#[test]
fn what_is_left_when_main_returns_is_unwound_before_run_returns() {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    struct Count(Arc<AtomicUsize>);
    impl Drop for Count {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
    let dropped = Arc::new(AtomicUsize::new(0));
    let counter = dropped.clone();
    run(move || {
        for _ in 0..10 {
            let count = Count(counter.clone());
            spawn(move || {
                let _count = count;
                sleep(Duration::from_secs(3600));
            });
        }
    });
    assert_eq!(dropped.load(Ordering::Relaxed), 10);
}

#[test]
fn the_first_failure_of_a_scope_terminates_the_siblings_and_is_raised() {
    run(|| {
        let dropped = Rc::new(Cell::new(false));
        let raised = catch_unwind(AssertUnwindSafe(|| {
            scope(|s| {
                let note = NoteDrop(dropped.clone());
                s.spawn(move || {
                    let _note = note;
                    sleep(Duration::from_secs(3600));
                });
                s.spawn(|| {
                    yield_now();
                    panic!("first");
                });
                sleep(Duration::from_secs(3600)); // the body too is cut short
            })
        }));
        assert_eq!(message(raised.unwrap_err()), "first");
        assert!(dropped.get());
    });
}

#[test]
fn a_terminated_parent_takes_its_scope_with_it() {
    run(|| {
        let dropped = Rc::new(Cell::new(false));
        let note = NoteDrop(dropped.clone());
        let parent = spawn(move || {
            let local = String::from("borrowed by the child");
            scope(|s| {
                s.spawn(|| {
                    let _note = note;
                    sleep(Duration::from_secs(3600));
                    drop(local.clone());
                });
            });
        });
        parent.terminate();
        assert_eq!(parent.join(), Err(Terminated));
        assert!(dropped.get());
    });
}

#[test]
fn a_timeout_around_a_scope_ends_its_children() {
    run(|| {
        let ended = timeout(Duration::from_millis(2), || {
            scope(|s| {
                s.spawn(|| sleep(Duration::from_secs(3600)));
            })
        });
        assert!(ended.is_err());
    });
}

#[test]
fn reactors_run_side_by_side_each_on_the_thread_that_called_it() {
    if cfg!(feature = "engine-may") {
        return; // it has one thread, which is not the caller's
    }
    // Each waits for the others to have begun, with its thread blocked, which is nobody else's affair.
    let all_here = std::sync::Barrier::new(4);
    std::thread::scope(|threads| {
        for n in 0..4 {
            let all_here = &all_here;
            threads.spawn(move || {
                let caller = std::thread::current().id();
                let seen = run(move || {
                    let child = spawn(move || {
                        sleep(Duration::from_millis(n));
                        std::thread::current().id()
                    });
                    all_here.wait();
                    child.join().unwrap()
                });
                assert_eq!(seen, caller);
            });
        }
    });
}

#[test]
fn a_run_may_follow_another_on_the_same_thread() {
    for n in 0..10 {
        let listened = run(move || {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (mut served, _) = listener.accept().unwrap();
            client.write_all(&[n]).unwrap();
            let mut byte = [0];
            served.read_exact(&mut byte).unwrap();
            sleep(Duration::from_millis(1));
            byte[0]
        });
        assert_eq!(listened, n);
    }
}

#[test]
fn a_deadline_ends_a_read_without_harming_the_connection() {
    run(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let mut client = TcpStream::connect(address).unwrap();
        let (mut served, _) = listener.accept().unwrap();
        served.set_read_deadline(Some(reactor::now() + Duration::from_millis(2)));
        let error = served.read(&mut [0u8; 8]).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::TimedOut);
        served.set_read_deadline(None);
        client.write_all(b"late").unwrap();
        let mut text = [0u8; 4];
        served.read_exact(&mut text).unwrap();
        assert_eq!(&text, b"late");
    });
}

#[test]
fn one_coroutine_reads_a_connection_while_another_writes_it() {
    run(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let client = TcpStream::connect(address).unwrap();
        let (served, _) = listener.accept().unwrap();
        // More than the kernel buffers: neither end could finish writing before the other reads.
        const SIZE_BYTES: usize = 16 * 1024 * 1024;
        scope(|s| {
            for end in [&client, &served] {
                s.spawn(move || {
                    let bytes = vec![7u8; SIZE_BYTES];
                    let mut end = end;
                    end.write_all(&bytes).unwrap();
                });
                s.spawn(move || {
                    let mut bytes = vec![0u8; SIZE_BYTES];
                    let mut end = end;
                    end.read_exact(&mut bytes).unwrap();
                    assert!(bytes.iter().all(|&byte| byte == 7));
                });
            }
        });
    });
}

#[test]
fn an_answer_that_came_in_time_does_not_lose_to_its_deadline_when_the_thread_stalls() {
    run(|| {
        let (mut near, far) = UnixStream::pair().unwrap();
        let reader = spawn(move || {
            timeout(Duration::from_millis(20), || {
                let mut far = far;
                far.read_exact(&mut [0u8; 1])
            })
        });
        near.write_all(b"x").unwrap();
        std::thread::sleep(Duration::from_millis(60)); // nothing of ours runs meanwhile
        assert!(reader.join().unwrap().is_ok(), "the byte was there before the deadline");
    });
}
