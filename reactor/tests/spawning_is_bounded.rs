//! Memory and address space end somewhere. There spawning is refused with an error that says which limit to raise, and
//! nothing of the coroutine that could not be had is left behind: whoever asked goes on, and so do all others.
//!
//! In a child process each, since a limit holds for a whole process.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::Command;
use std::rc::Rc;
use std::time::Duration;

use reactor::{Builder, run, scope, sleep, spawn, try_spawn, yield_now};
use rustix::process::{Resource, Rlimit, setrlimit};

const CHILD: &str = "HYPHA_TEST_SPAWNING_IS_BOUNDED";

/// Address space of the child: room for some thousand coroutines.
const ADDRESS_SPACE_BYTES: u64 = 2 << 30;

/// Runs the calling test again in a process of little address space; whether this is that process.
fn with_little_memory(test: &str) -> bool {
    if std::env::var_os(CHILD).is_some() {
        let limit = Rlimit { current: Some(ADDRESS_SPACE_BYTES), maximum: Some(ADDRESS_SPACE_BYTES) };
        setrlimit(Resource::As, limit).unwrap();
        return true;
    }
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", "--nocapture", test]).env(CHILD, "1");
    let output = child.output().unwrap();
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{out}{err}");
    assert!(out.contains("1 passed"), "{out}{err}");
    false
}

/// Coroutines until there is no stack for another one.
fn fill() -> (Vec<reactor::JoinHandle<()>>, reactor::SpawnError) {
    let mut parked = Vec::new();
    loop {
        match try_spawn(|| sleep(Duration::from_secs(3600))) {
            Ok(handle) => parked.push(handle),
            Err(error) => return (parked, error),
        }
    }
}

#[test]
fn without_a_stack_spawning_is_an_error_and_the_rest_goes_on() {
    if !with_little_memory("without_a_stack_spawning_is_an_error_and_the_rest_goes_on") {
        return;
    }
    run(|| {
        let (parked, error) = fill();
        assert!(parked.len() > 1000, "only {}", parked.len());
        assert!(error.to_string().contains("ulimit -v"), "{error}");
        yield_now(); // the spawner can still suspend,
        parked.iter().for_each(|handle| handle.terminate()); // and the others end
        parked.into_iter().for_each(|handle| assert!(handle.join().is_err()));
        assert_eq!(spawn(|| 7).join(), Ok(7));
    });
}

#[test]
fn a_scope_in_which_a_spawn_fails_still_waits_for_its_children() {
    if !with_little_memory("a_scope_in_which_a_spawn_fails_still_waits_for_its_children") {
        return;
    }
    run(|| {
        let ended = Rc::new(Cell::new(false));
        let raised = catch_unwind(AssertUnwindSafe(|| {
            let borrowed = Box::new([0x11u64; 64]);
            struct Check<'a>(&'a [u64; 64], Rc<Cell<bool>>);
            impl Drop for Check<'_> {
                fn drop(&mut self) {
                    assert_eq!(*self.0, [0x11; 64]);
                    self.1.set(true);
                }
            }
            scope(|s| {
                let check = Check(&borrowed, ended.clone());
                s.spawn(move || {
                    let _check = check;
                    sleep(Duration::from_secs(3600));
                });
                loop {
                    s.spawn(|| sleep(Duration::from_secs(3600)));
                }
            })
        }));
        assert!(raised.is_err());
        assert!(ended.get(), "the child ended before what it borrowed did");
        assert_eq!(spawn(|| 7).join(), Ok(7));
    });
}

#[test]
fn a_stack_of_any_size_is_had_or_refused_and_a_body_may_be_large() {
    run(|| {
        for size in [1 << 50, usize::MAX] {
            assert!(Builder::new().stack_size_bytes(size).spawn(|| ()).is_err());
        }
        let big = [7u8; 20_000]; // moved onto the stack when it is called
        let sum = spawn(move || big.iter().map(|&byte| u64::from(byte)).sum::<u64>());
        assert_eq!(sum.join(), Ok(140_000));
        let smallest = Builder::new().stack_size_bytes(0).spawn(|| 1).unwrap();
        assert_eq!(smallest.join(), Ok(1));
    });
}

#[test]
fn a_hundred_thousand_coroutines_wait_at_once_in_few_mappings() {
    let guards_need_no_mappings = || {
        let version = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let mut numbers = version.split(['.', '-']).map_while(|part| part.parse::<u32>().ok());
        (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= (6, 13)
    };
    if cfg!(any(feature = "engine-may", feature = "sanitizer")) || !guards_need_no_mappings() {
        eprintln!("SKIPPED: each stack takes mappings of its own here");
        return;
    }
    run(|| {
        let parked: Vec<_> = (0..100_000).map(|_| spawn(|| sleep(Duration::from_secs(3600)))).collect();
        let mappings = std::fs::read_to_string("/proc/self/maps").unwrap().lines().count();
        assert!(mappings < 1000, "{mappings} mappings");
        parked.iter().for_each(|handle| handle.terminate());
        parked.into_iter().for_each(|handle| assert!(handle.join().is_err()));
    });
}
