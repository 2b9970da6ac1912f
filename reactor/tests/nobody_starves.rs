//! A coroutine whose calls never have to wait still lets the others run, and timers fire on time however long the queue
//! of runnable coroutines is. In an earlier reactor one fast peer, or one cached file, held up everybody; and with some
//! thousand busy coroutines a sleep of ten milliseconds took seconds.

use std::cell::Cell;
use std::io::{IoSlice, Read, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::time::Duration;

use reactor::crypto::Identity;
use reactor::net::tls::{self, Expect};
use reactor::net::{Duplex, LineReader, UdpSocket, UnixStream, pipe};
use reactor::sync::{Mutex, Semaphore, channel};
use reactor::{after, now, run, select, select_timeout, sleep, sleep_until, spawn, timeout, yield_now};

/// Calls of each loop.
const CALLS: usize = 20_000;

/// Turns that another coroutine has had by the end: far fewer than it should, and far more than none.
const TURNS_MIN: usize = 50;

/// Makes `call`, which never has to wait, in a loop, and sees to it that another coroutine has its turns meanwhile.
#[track_caller]
fn assert_others_run(what: &str, mut call: impl FnMut()) {
    let (turns, ended) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(false)));
    let (counted, over) = (turns.clone(), ended.clone());
    let other = spawn(move || {
        while !over.get() {
            yield_now();
            counted.set(counted.get() + 1);
        }
    });
    (0..CALLS).for_each(|_| call());
    let seen = turns.get();
    ended.set(true);
    other.join().unwrap();
    assert!(seen >= TURNS_MIN, "{what}: the other had {seen} turns");
}

#[test]
fn a_loop_of_calls_that_need_not_wait_lets_others_run() {
    run(|| {
        let (sender, receiver) = channel(1);
        assert_others_run("a channel", || {
            sender.send(1).unwrap();
            receiver.recv().unwrap();
        });
        let places = Semaphore::new(1);
        assert_others_run("a semaphore", || drop(places.acquire()));
        let lock = Mutex::new(0);
        assert_others_run("a mutex", || *lock.lock() += 1);
        sender.send(1).unwrap();
        assert_others_run("select", || assert_eq!(select(&[&receiver]), 0));
        let limit = Duration::from_secs(60);
        assert_others_run("select with a limit", || assert_eq!(select_timeout(limit, &[&receiver]), Ok(0)));
        assert_others_run("a select that is late", || {
            assert!(select_timeout(Duration::ZERO, &[&after(limit)]).is_err());
        });
        assert_others_run("sleeps of no length", || sleep(Duration::ZERO));
        let past = now();
        assert_others_run("sleeps until the past", || sleep_until(past));
        assert_others_run("coroutines that end at once", || spawn(|| ()).join().unwrap());
        let (mut near, mut far) = UnixStream::pair().unwrap();
        assert_others_run("a socket", || {
            near.write_all(&[1; 8]).unwrap();
            far.read_exact(&mut [0; 8]).unwrap();
        });
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        assert_others_run("datagrams", || {
            socket.send_to(&[1; 8], address).unwrap();
            socket.recv_from(&mut [0; 8]).unwrap();
        });
    });
}

/// Whoever tries again whatever comes may have to do so for long.
#[test]
fn a_loop_of_calls_that_fail_lets_others_run() {
    run(|| {
        let (sender, receiver) = channel::<i32>(1);
        sender.close();
        assert_others_run("a channel that is closed", || assert!(receiver.recv().is_err()));
        assert_others_run("what is sent there", || assert!(sender.send(1).is_err()));
        let (near, far) = pipe(10);
        drop(far);
        assert_others_run("a stream that is broken", || assert!(near.read_some(&mut [0]).is_err()));
        let (client, server) = (Rc::new(Identity::generate()), Rc::new(Identity::generate()));
        let (near, far) = pipe(400);
        let key = server.public_key();
        let accepting = spawn(move || tls::accept(far, &server).unwrap());
        let near = tls::connect(near, &client, Expect::Key(key)).unwrap();
        near.end().unwrap();
        assert_others_run("TLS that has ended", || assert!((&near).write(&[1]).is_err()));
        assert_others_run("its end once more", || near.end().unwrap());
        drop(accepting.join().unwrap());
        assert_others_run("TLS that was cut off", || assert!(near.read_some(&mut [0]).is_err()));
    });
}

#[test]
fn a_loop_of_reads_of_a_cached_file_lets_others_run() {
    run(|| {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        reactor::fs::write(&path, vec![7; 4096]).unwrap();
        let file = reactor::fs::File::open(&path).unwrap();
        assert_others_run("a file", || assert_eq!(file.read_at(&mut [0; 64], 0).unwrap(), 64));
    });
}

/// Lets another coroutine count its turns, and gives the most of `done` that was counted between two of them while `work`
/// ran.
fn longest_turn(done: &Rc<Cell<usize>>, work: impl FnOnce()) -> usize {
    let (longest, ended) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(false)));
    let (seen, over, counted) = (longest.clone(), ended.clone(), done.clone());
    let other = spawn(move || {
        while !over.get() {
            seen.set(seen.get().max(counted.take()));
            yield_now();
        }
    });
    work();
    ended.set(true);
    other.join().unwrap();
    longest.get().max(done.get())
}

/// Ready calls between two turns of the other: 128 of the one that starts coroutines, and as many of each of those that it
/// has started and that the end of its budget found at work, which are three.
const CALLS_BETWEEN_TURNS: usize = 4 * 128 + 64;

/// As an accept loop does whose clients have all sent something.
#[test]
fn coroutines_that_are_started_do_not_bring_a_budget_of_their_own() {
    fn start(depth: usize, done: &Rc<Cell<usize>>) {
        let done = done.clone();
        spawn(move || {
            let (sender, receiver) = channel(1);
            for n in 0..10 {
                if n == 5 && depth > 0 {
                    start(depth - 1, &done);
                }
                sender.send(n).unwrap();
                receiver.recv().unwrap();
                done.set(done.get() + 2);
            }
        });
    }
    run(|| {
        let done = Rc::new(Cell::new(0));
        let places = Semaphore::new(1);
        let longest = longest_turn(&done, || {
            for _ in 0..1_000 {
                drop(places.acquire());
                start(2, &done);
            }
        });
        assert!(longest <= CALLS_BETWEEN_TURNS, "{longest} calls between two turns");
    });
}

/// What a turn moves at the most: 2 MiB, and the call that goes beyond it.
const BYTES_OF_A_TURN: usize = 4 << 20;

#[test]
fn calls_that_move_much_are_followed_by_others_turns_sooner() {
    run(|| {
        let done = Rc::new(Cell::new(0));
        let (near, far) = reactor::net::pipe(1 << 20);
        let mut bytes = vec![7; 1 << 20];
        let longest = longest_turn(&done, || {
            for _ in 0..40 {
                near.write_slices(&mut [IoSlice::new(&bytes)]).unwrap();
                let count = far.read_some(&mut bytes).unwrap();
                done.set(done.get() + count);
            }
        });
        assert!(longest <= BYTES_OF_A_TURN, "a pipe: {} MiB in one turn", longest >> 20);
        done.set(0);
        let (mut near, mut far) = UnixStream::pair().unwrap();
        let mut bytes = vec![7; 64 << 10];
        let longest = longest_turn(&done, || {
            for _ in 0..500 {
                near.write_all(&bytes).unwrap();
                far.read_exact(&mut bytes).unwrap();
                done.set(done.get() + bytes.len());
            }
        });
        assert!(longest <= BYTES_OF_A_TURN, "a socket: {} MiB in one turn", longest >> 20);
    });
}

#[test]
fn lines_that_have_come_already_are_followed_by_others_turns() {
    run(|| {
        let done = Rc::new(Cell::new(0));
        let (near, far) = reactor::net::pipe(64 << 10);
        let longest = longest_turn(&done, || {
            let mut lines = LineReader::new(&far, 100);
            for _ in 0..10 {
                near.write_slices(&mut [IoSlice::new(&[b'\n'; 8 << 10])]).unwrap();
                for _ in 0..8 << 10 {
                    assert_eq!(lines.next_line().unwrap(), Some(&b"\n"[..]));
                    done.set(done.get() + 1);
                }
            }
        });
        assert!(longest <= CALLS_BETWEEN_TURNS, "{longest} lines between two turns");
    });
}

#[test]
fn a_timer_fires_within_a_few_rounds_of_however_many_busy_coroutines() {
    const BUSY: usize = 5_000;
    run(|| {
        let due = now() + Duration::from_millis(30);
        let (fired, rounds_late) = (Rc::new(Cell::new(false)), Rc::new(Cell::new(0)));
        for n in 0..BUSY {
            let (fired, rounds_late) = (fired.clone(), rounds_late.clone());
            spawn(move || {
                while !fired.get() {
                    if n == 0 && now() >= due {
                        rounds_late.set(rounds_late.get() + 1);
                    }
                    yield_now();
                }
            });
        }
        sleep_until(due);
        fired.set(true);
        // One round until it is known that nothing came in time, one until the sleeper has its turn; and one to count.
        assert!(rounds_late.get() <= 4, "{} rounds", rounds_late.get());
    });
}

#[test]
fn a_coroutine_that_swallows_its_termination_does_not_keep_others_from_running() {
    run(|| {
        let (_sender, receiver) = channel::<()>(1);
        let swallowed = Rc::new(Cell::new(0));
        let counted = swallowed.clone();
        let worker = spawn(move || {
            while counted.get() < 1000 {
                if catch_unwind(AssertUnwindSafe(|| receiver.recv())).is_err() {
                    counted.set(counted.get() + 1);
                }
            }
        });
        worker.terminate();
        let mut turns = 0;
        while !worker.is_finished() {
            yield_now();
            turns += 1;
        }
        assert!(turns > 500, "{turns} turns while it swallowed {} times", swallowed.get());
    });
}

#[test]
fn a_coroutine_that_swallows_its_termination_for_ever_ends_the_process_by_its_name() {
    const CHILD: &str = "HYPHA_TEST_SWALLOWS_FOR_EVER";
    if std::env::var_os(CHILD).is_some() {
        return run(|| {
            let (_sender, receiver) = channel::<()>(1);
            let worker = reactor::Builder::new().name("the stubborn one").spawn(move || {
                loop {
                    let _ = catch_unwind(AssertUnwindSafe(|| receiver.recv()));
                }
            });
            let _: Result<(), _> = worker.unwrap().terminate_and_wait();
        });
    }
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "a_coroutine_that_swallows_its_termination_for_ever_ends_the_process_by_its_name"])
        .arg("--nocapture")
        .env(CHILD, "1")
        .output()
        .unwrap();
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{err}");
    assert!(err.contains("the coroutine the stubborn one") && err.contains("reactor::catch_panic"), "{err}");
}

#[test]
fn for_ever_is_a_duration_too() {
    run(|| {
        let waiting = spawn(|| sleep(Duration::MAX));
        assert_eq!(timeout(Duration::MAX, || 7), Ok(7));
        assert_eq!(select_timeout(Duration::MAX, &[&after(Duration::ZERO)]), Ok(0));
        assert_eq!(select(&[&after(Duration::MAX), &after(Duration::ZERO)]), 1);
        let mut ticks = reactor::interval(Duration::MAX);
        assert!(timeout(Duration::from_millis(1), || ticks.tick()).is_err());
        assert!(waiting.terminate_and_wait().is_err());
    });
}
