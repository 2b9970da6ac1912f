//! A coroutine whose calls never have to wait ends when it is terminated or its time is over, and not only when it first
//! has to wait. In an earlier reactor only a wait looked: a client that always had something to say kept a server from its
//! end for as long as it liked, and a timeout around a stream that was always ready never ended.
//!
//! Nothing is lost by it: a call looks before it takes anything.

use std::cell::Cell;
use std::io::{IoSlice, Read, Write};
use std::net::Shutdown;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::time::Duration;

use reactor::cell::RefCell;
use reactor::net::{Duplex, LineReader, UdpSocket, UnixStream};
use reactor::sim::{self, SimConfig};
use reactor::sync::{Barrier, Mutex, OnceCell, RwLock, Semaphore, channel, watch};
use reactor::{
    Elapsed, Terminated, for_each_parallel, join_all, race, run, scope, select, sleep, spawn, timeout,
    uninterruptible, yield_now,
};

/// Calls of a loop that nobody ends.
const CALLS: usize = 20_000;

/// Calls that it makes until the others have had a turn, and those of its last one.
const CALLS_MAX: usize = 1_000;

/// Makes `call`, which never has to wait, in a loop, and terminates that.
#[track_caller]
fn assert_ends(what: &str, mut call: impl FnMut() + 'static) {
    let made = Rc::new(Cell::new(0));
    let counted = made.clone();
    let busy = spawn(move || {
        for _ in 0..CALLS {
            call();
            counted.set(counted.get() + 1);
        }
    });
    // By the end of its budget it has been here, or it has made all its calls.
    assert_eq!(busy.terminate_and_wait(), Err(Terminated), "{what}: it made all its calls");
    assert!(made.get() <= CALLS_MAX, "{what}: {} calls", made.get());
}

#[test]
fn a_loop_of_calls_that_need_not_wait_is_terminated() {
    run(|| {
        let (sender, receiver) = channel(1);
        assert_ends("a channel", move || {
            sender.send(1).unwrap();
            receiver.recv().unwrap();
        });
        let (sender, receiver) = channel(CALLS);
        (0..CALLS).for_each(|n| sender.try_send(n).unwrap());
        assert_ends("a receiver", move || assert!(receiver.recv().is_ok()));
        assert_ends("a sender", {
            let (sender, receiver) = channel(CALLS);
            move || {
                let _open = &receiver;
                sender.send(1).unwrap();
            }
        });
        let places = Semaphore::new(1);
        assert_ends("a semaphore", move || drop(places.acquire()));
        let lock = Mutex::new(0);
        assert_ends("a mutex", move || *lock.lock() += 1);
        let lock = RwLock::new(0);
        assert_ends("a lock of readers and writers", move || {
            let _read = *lock.read();
        });
        let cell = OnceCell::new();
        assert_ends("a value that is there", move || assert_eq!(*cell.get_or_init(|| 7), 7));
        let gate = Barrier::new(true);
        assert_ends("an open gate", move || gate.wait());
        let (_level, watcher) = watch(1);
        assert_ends("an unread value", move || watcher.changed().unwrap());
        let (sender, receiver) = channel(1);
        sender.send(1).unwrap();
        assert_ends("select", move || assert_eq!(select(&[&receiver]), 0));
        assert_ends("a join", || spawn(|| ()).join().unwrap());
        assert_ends("a race", || assert_eq!(race([|| 1]), 1));
        assert_ends("all of several", || drop(join_all([|| 1, || 2])));
        assert_ends("parallel work", || drop(for_each_parallel(2, 0..2, Ok::<_, ()>)));
        assert_ends("a scope", || scope(|_| ()));
        assert_ends("its next turn", yield_now);
        assert_ends("a sleep of no length", || sleep(Duration::ZERO));
        let (sender, inbox) = reactor::remote::channel(CALLS);
        (0..CALLS).for_each(|n| sender.try_send(n).unwrap());
        assert_ends("values of another thread", move || assert!(inbox.recv().is_some()));
    });
}

#[test]
fn a_loop_over_a_stream_that_is_always_ready_is_terminated() {
    run(|| {
        let (mut near, mut far) = UnixStream::pair().unwrap();
        assert_ends("a socket", move || {
            near.write_all(&[1; 8]).unwrap();
            far.read_exact(&mut [0; 8]).unwrap();
        });
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        assert_ends("datagrams", move || {
            socket.send_to(&[1; 8], address).unwrap();
            socket.recv_from(&mut [0; 8]).unwrap();
        });
        let (near, far) = reactor::net::pipe(1 << 20);
        assert_ends("a pipe", move || {
            near.write_slices(&mut [IoSlice::new(&[1; 8])]).unwrap();
            far.read_some(&mut [0; 8]).unwrap();
        });
        let (near, far) = reactor::net::pipe(CALLS);
        near.write_slices(&mut [IoSlice::new(&[b'\n'; CALLS])]).unwrap();
        let busy = spawn(move || {
            let mut lines = LineReader::new(&far, 100);
            (0..CALLS).take_while(|_| lines.next_line().unwrap().is_some()).count()
        });
        assert_eq!(busy.terminate_and_wait(), Err(Terminated), "lines that have come");
    });
}

#[test]
fn a_loop_of_reads_of_a_cached_file_is_terminated() {
    run(|| {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        reactor::fs::write(&path, vec![7; 4096]).unwrap();
        let file = reactor::fs::File::open(&path).unwrap();
        assert_ends("a file", move || assert_eq!(file.read_at(&mut [0; 64], 0).unwrap(), 64));
    });
}

#[test]
fn a_timeout_over_what_is_always_ready_elapses() {
    run(|| {
        let (sender, receiver) = channel(1);
        let mut made = 0;
        // A clock that tests do not wait for: it is over from the first look at it.
        let ended = timeout(Duration::ZERO, || {
            while made < 10 * CALLS {
                sender.send(1).unwrap();
                receiver.recv().unwrap();
                made += 1;
            }
        });
        assert_eq!(ended, Err(Elapsed), "after {made} rounds");
    });
}

#[test]
fn in_a_simulation_what_is_always_ready_takes_its_time_and_a_timeout_over_it_elapses() {
    for seed in 0..20 {
        sim::run(seed, SimConfig::default(), |world| {
            const LIMIT: Duration = Duration::from_millis(10);
            let (sender, receiver) = channel(1);
            let made = Cell::new(0);
            let ended: Result<(), _> = timeout(LIMIT, || {
                loop {
                    sender.send(1).unwrap();
                    receiver.recv().unwrap();
                    made.set(made.get() + 2);
                }
            });
            assert_eq!(ended, Err(Elapsed));
            // A microsecond each, and looked at once a turn.
            assert!((9_000..=10_500).contains(&made.get()), "{} calls", made.get());
            assert!((LIMIT..LIMIT + LIMIT / 10).contains(&world.elapsed()), "{:?}", world.elapsed());
        });
    }
}

#[test]
fn what_a_terminated_coroutine_had_not_taken_yet_is_there_for_the_next() {
    const COUNT: u32 = 2_000;
    for seed in 0..50 {
        sim::run(seed, SimConfig::default(), |_| {
            let (sender, receiver) = channel(COUNT as usize);
            (0..COUNT).for_each(|n| sender.try_send(n).unwrap());
            drop(sender);
            let (near, far) = reactor::net::pipe(COUNT as usize);
            let bytes: Vec<u8> = (0..COUNT).map(|n| n as u8).collect();
            near.write_slices(&mut [IoSlice::new(&bytes)]).unwrap();
            near.end().unwrap();
            let taken = Rc::new(RefCell::new((Vec::new(), Vec::new())));
            let ends = Rc::new((receiver, far));
            let mut terminated = 0;
            loop {
                let (taken, ends) = (taken.clone(), ends.clone());
                let busy = spawn(move || {
                    loop {
                        let Ok(value) = ends.0.recv() else { return };
                        taken.borrow_mut().0.push(value);
                        let mut byte = [0; 1];
                        assert_eq!(ends.1.read_some(&mut byte).unwrap(), 1);
                        taken.borrow_mut().1.push(byte[0]);
                    }
                });
                // Another time each.
                (0..terminated % 3).for_each(|_| yield_now());
                if busy.terminate_and_wait().is_ok() {
                    break;
                }
                terminated += 1;
            }
            // The one took a value, and the next the byte that belongs to it: none is gone, none came twice.
            let (values, mut read) = taken.take();
            let mut byte = [0; 1];
            while ends.1.read_some(&mut byte).unwrap() == 1 {
                read.push(byte[0]);
            }
            assert_eq!(values, (0..COUNT).collect::<Vec<_>>());
            assert_eq!(read, bytes);
            assert!(terminated > 5, "{terminated} were terminated");
        });
    }
}

/// Writes a last word when it is dropped.
struct Farewell(UnixStream);

impl Drop for Farewell {
    fn drop(&mut self) {
        self.0.write_all(b"farewell").expect("there is room for it");
    }
}

fn last_word(mut far: UnixStream) -> String {
    let mut word = String::new();
    far.read_to_string(&mut word).unwrap();
    word
}

#[test]
fn destructors_of_a_terminated_coroutine_do_what_need_not_wait() {
    run(|| {
        // While it unwinds.
        let (near, far) = UnixStream::pair().unwrap();
        let farewell = Farewell(near);
        let busy = spawn(move || {
            let _farewell = farewell;
            loop {
                scope(|_| ());
            }
        });
        let ended: Result<(), _> = busy.terminate_and_wait();
        assert_eq!(ended, Err(Terminated));
        assert_eq!(last_word(far), "farewell");

        // Of a result that nobody wants, and that came though its coroutine was terminated.
        let (near, far) = UnixStream::pair().unwrap();
        let own: Rc<RefCell<Option<reactor::JoinHandle<Farewell>>>> = Rc::default();
        let handle = own.clone();
        let returns = spawn(move || {
            yield_now();
            handle.take().expect("it was put there meanwhile").terminate();
            Farewell(near)
        });
        *own.borrow_mut() = Some(returns);
        assert_eq!(last_word(far), "farewell");

        // Of one that never begins.
        let (near, far) = UnixStream::pair().unwrap();
        let farewell = Farewell(near);
        let failed = catch_unwind(AssertUnwindSafe(|| {
            scope(|s| {
                s.spawn(|| {
                    let _ = catch_unwind(AssertUnwindSafe(|| sleep(Duration::from_secs(3600))));
                    s.spawn(move || drop(farewell));
                });
                s.spawn(|| panic!("the failure"));
            })
        }));
        assert!(failed.is_err());
        assert_eq!(last_word(far), "farewell");
    });
}

#[test]
fn a_shield_holds_for_calls_that_need_not_wait_too_and_no_longer_than_it_lasts() {
    run(|| {
        let (sender, receiver) = channel(1);
        let made = Rc::new(Cell::new(0));
        let counted = made.clone();
        let busy = spawn(move || {
            let round = || {
                sender.send(1).unwrap();
                receiver.recv().unwrap();
                counted.set(counted.get() + 1);
            };
            uninterruptible(|| (0..CALLS).for_each(|_| round()));
            round();
        });
        assert_eq!(busy.terminate_and_wait(), Err(Terminated));
        assert_eq!(made.get(), CALLS);
    });
}

#[test]
fn where_suspending_is_forbidden_nothing_unwinds_halfway() {
    run(|| {
        let (sender, receiver) = channel(1);
        let own: Rc<RefCell<Option<reactor::JoinHandle<()>>>> = Rc::default();
        let (handle, whole) = (own.clone(), Rc::new(Cell::new(false)));
        let done = whole.clone();
        let moves = spawn(move || {
            yield_now();
            let section = reactor::suspension::forbid_suspend("the table is half moved");
            handle.borrow().as_ref().expect("it was put there meanwhile").terminate();
            sender.send(1).unwrap();
            receiver.recv().unwrap();
            done.set(true);
            drop(section);
            sender.send(1).unwrap();
            unreachable!("the section is over");
        });
        *own.borrow_mut() = Some(moves);
        (0..3).for_each(|_| yield_now());
        let moves = own.take().expect("it was put there");
        assert_eq!(moves.join(), Err(Terminated));
        assert!(whole.get());
    });
}

#[test]
fn a_half_closed_stream_is_read_to_its_end_by_whoever_is_not_terminated() {
    run(|| {
        let (near, far) = UnixStream::pair().unwrap();
        (&near).write_all(&[7; 4096]).unwrap();
        near.shutdown(Shutdown::Write).unwrap();
        let (far, read) = (Rc::new(far), Rc::new(Cell::new(0)));
        let (stream, counted) = (far.clone(), read.clone());
        let busy = spawn(move || {
            loop {
                counted.set(counted.get() + (&*stream).read(&mut [0; 1]).unwrap());
            }
        });
        let ended: Result<(), _> = busy.terminate_and_wait();
        assert_eq!(ended, Err(Terminated));
        let mut rest = Vec::new();
        (&*far).read_to_end(&mut rest).unwrap();
        assert_eq!(read.get() + rest.len(), 4096);
    });
}
