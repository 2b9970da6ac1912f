//! A stack that overflows ends the process, at once, with a sentence that names the coroutine, the place where it was
//! spawned, its stack's size, and what to raise; wherever the overflow happens, and whoever else runs. An earlier reactor
//! let the other coroutines go on: then locks stayed taken for ever, and borrows pointed to stacks of others.
//!
//! Each case runs in a child process, which is this test again.

use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::time::Duration;

use reactor::{Builder, scope, sleep, spawn, timeout, yield_now};

const CASE: &str = "HYPHA_TEST_OVERFLOW_CASE";

/// When others would go on if the overflow did not end the process: long after it, on however busy a machine.
const LATER: Duration = Duration::from_secs(30);

/// Deeper and deeper, by frames of some hundred bytes, with `leaf` called in each.
#[inline(never)]
#[allow(unconditional_recursion)]
fn deeper(n: u64, leaf: &dyn Fn()) -> u64 {
    let frame = std::hint::black_box([n; 24]);
    leaf();
    deeper(n + 1, leaf) + frame[0]
}

/// By the smallest frames there are.
#[inline(never)]
#[allow(unconditional_recursion)]
fn smallest(n: u64) -> u64 {
    std::hint::black_box(smallest(std::hint::black_box(n + 1))) + 1
}

fn in_a_coroutine(body: impl FnOnce() + 'static) {
    let other = spawn(|| {
        sleep(LATER);
        println!("somebody went on");
    });
    let _ = Builder::new().name("the deep one").spawn(body).unwrap().join();
    let _ = other.join();
}

/// The child's part: what overflows, by the name of the case.
fn overflow(case: &str) {
    match case {
        "small frames" => in_a_coroutine(|| {
            let _ = smallest(0);
        }),
        "after a suspension" => in_a_coroutine(|| {
            yield_now();
            deeper(0, &|| ());
        }),
        "in malloc" => in_a_coroutine(|| {
            let _ = deeper(0, &|| drop(std::hint::black_box(vec![0u8; 100])));
        }),
        "while a timer is armed" => in_a_coroutine(|| {
            deeper(0, &|| {
                let _ = timeout(Duration::from_secs(60), || ());
            });
        }),
        "in a yield inside a scope" => in_a_coroutine(|| {
            let borrowed = [1u8; 64];
            scope(|s| {
                s.spawn(|| {
                    sleep(LATER);
                    println!("somebody went on with {}", borrowed[0]);
                });
                deeper(0, &yield_now);
            });
        }),
        "while a thread borrows" => in_a_coroutine(|| {
            let borrowed = [1u8; 64];
            std::thread::scope(|threads| {
                threads.spawn(|| {
                    std::thread::sleep(LATER);
                    println!("somebody went on with {}", borrowed[0]);
                });
                deeper(0, &|| ());
            });
        }),
        "in a simulation" => reactor::sim::run(1, Default::default(), |_| {
            in_a_coroutine(|| {
                sleep(Duration::from_millis(1));
                deeper(0, &|| ());
            });
        }),
        _ => unreachable!("no such case"),
    }
}

struct Ended {
    signal: Option<i32>,
    out: String,
    err: String,
}

fn run_again(test: &str, case: &str) -> Ended {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "--nocapture", test])
        .env(CASE, case)
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    Ended { signal: output.status.signal(), out: text(&output.stdout), err: text(&output.stderr) }
}

const SIGABRT: i32 = 6;

#[test]
fn an_overflow_ends_the_process_and_names_the_coroutine() {
    if let Ok(case) = std::env::var(CASE) {
        if case == "in a simulation" {
            return overflow(&case);
        }
        return reactor::run(|| overflow(&case));
    }
    let cases = [
        "small frames",
        "after a suspension",
        "in malloc",
        "while a timer is armed",
        "in a yield inside a scope",
        "while a thread borrows",
        "in a simulation",
    ];
    for case in cases {
        let ended = run_again("an_overflow_ends_the_process_and_names_the_coroutine", case);
        let Ended { signal, out, err } = ended;
        assert_eq!(signal, Some(SIGABRT), "{case}: {out}{err}");
        let place = format!("the coroutine the deep one (spawned at {}:", file!());
        assert!(
            err.contains(&place) && err.contains("has overflowed its stack of 256 KiB"),
            "{case}: {out}{err}"
        );
        assert!(err.contains("Builder::stack_size_bytes"), "{case}: {out}{err}");
        assert!(!out.contains("somebody went on"), "{case}: {out}{err}");
    }
}

#[test]
fn the_main_coroutines_overflow_is_told_too() {
    if std::env::var_os(CASE).is_some() {
        return reactor::run(|| {
            let _ = deeper(0, &|| ());
        });
    }
    let Ended { signal, err, .. } = run_again("the_main_coroutines_overflow_is_told_too", "main");
    assert_eq!(signal, Some(SIGABRT), "{err}");
    assert!(err.contains("the coroutine main (spawned at"), "{err}");
}

#[test]
fn a_plain_threads_overflow_is_told_as_ever_by_the_standard_library() {
    if std::env::var_os(CASE).is_some() {
        reactor::run(|| spawn(yield_now).join().unwrap());
        let thread = std::thread::Builder::new().name("the plain one".into()).spawn(|| deeper(0, &|| ()));
        thread.unwrap().join().unwrap();
        return;
    }
    let Ended { signal, err, .. } =
        run_again("a_plain_threads_overflow_is_told_as_ever_by_the_standard_library", "thread");
    assert_eq!(signal, Some(SIGABRT), "{err}");
    assert!(err.contains("thread 'the plain one'") && err.contains("has overflowed its stack"), "{err}");
}

#[test]
fn a_fault_that_is_no_overflow_ends_the_process_by_its_own_signal() {
    if std::env::var_os(CASE).is_some() {
        return reactor::run(|| {
            // Sent by a process, so without an address: it is nobody's stack. The standard library lets the first one
            // return, for the instruction to fault again; and two that come at once count as one.
            for _ in 0..600 {
                // Before the first one too: the kernel may choose a thread that is just being born (may's engine has some), in
                // which the standard library's handler comes before what its thread is to be called, and that is an abort.
                sleep(Duration::from_millis(300));
                let this = rustix::process::getpid();
                rustix::process::kill_process(this, rustix::process::Signal::SEGV).unwrap();
            }
        });
    }
    let Ended { signal, err, .. } =
        run_again("a_fault_that_is_no_overflow_ends_the_process_by_its_own_signal", "fault");
    assert_eq!(signal, Some(11), "{err}");
}
