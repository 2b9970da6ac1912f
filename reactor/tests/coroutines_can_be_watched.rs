//! What an operator sees of a running program: a dump of all coroutines, on a signal too, and a warning that names
//! whoever holds the thread.

mod support;

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use reactor::cell::RefCell;
use reactor::sim::{self, SimConfig};
use reactor::sync::{Mutex, Receiver, Sender, Signal, channel};
use reactor::{
    Builder, CoroutineDump, CoroutineState, Dump, JoinHandle, dump, run, scope, sleep, spawn, watchdog,
    yield_now,
};
use support::run_logged;

const LONG: Duration = Duration::from_secs(3600);

fn entry(name: &str) -> CoroutineDump {
    let entries = dump().coroutines;
    entries
        .iter()
        .find(|entry| entry.name == name)
        .unwrap_or_else(|| panic!("no {name}: {entries:?}"))
        .clone()
}

/// The one that asks. By its state and not its name: the other tests of this process have a "main" each.
fn own() -> CoroutineDump {
    dump().coroutines.into_iter().find(|entry| entry.state == CoroutineState::Running).unwrap()
}

fn state_of(number: u64) -> CoroutineState {
    dump().coroutines.into_iter().find(|entry| entry.number == number).unwrap().state
}

fn waits_for(name: &str) -> &'static str {
    match entry(name).state {
        CoroutineState::Waiting { what, .. } => what,
        state => panic!("{name} {state}"),
    }
}

#[test]
fn a_dump_tells_what_each_coroutine_does_and_what_it_waits_for() {
    run(|| {
        let named = |name: &'static str| Builder::new().name(name);
        let (_sender, receiver) = channel::<u32>(1);
        let (signal, mutex) = (Signal::new(), Mutex::new(()));
        let held = mutex.lock();
        scope(|s| {
            named("sleeps").spawn_scoped(s, || sleep(LONG)).unwrap();
            named("receives").spawn_scoped(s, || receiver.recv()).unwrap();
            named("locks").spawn_scoped(s, || drop(mutex.lock())).unwrap();
            named("is signalled").spawn_scoped(s, || signal.wait()).unwrap();
            named("joins").spawn_scoped(s, || spawn(|| sleep(LONG)).join()).unwrap();
            named("yields").spawn_scoped(s, yield_now).unwrap();
            assert_eq!(waits_for("sleeps"), "a time");
            assert_eq!(waits_for("receives"), "a channel's value");
            assert_eq!(waits_for("locks"), "a permit or a lock");
            assert_eq!(waits_for("is signalled"), "a signal");
            assert_eq!(waits_for("joins"), "a coroutine's end");
            assert_eq!(entry("yields").state, CoroutineState::Runnable);
            let me = own();
            assert_eq!(me.name, "main");
            let seen = named("looks").spawn_scoped(s, move || state_of(me.number)).unwrap().join();
            assert_eq!(seen, Ok(CoroutineState::Spawning), "its child runs first");
            s.terminate_children();
            assert!(entry("sleeps").is_terminated);
        });
        drop(held);
    });
}

#[test]
fn a_dump_tells_who_spawned_a_coroutine_and_where() {
    run(|| {
        let main = own();
        let line = line!() + 1;
        let child = Builder::new().name("by main").spawn(|| sleep(LONG)).unwrap();
        let detached = entry("by main");
        assert!(detached.spawned_at.ends_with(&format!("coroutines_can_be_watched.rs:{line}")), "{detached}");
        assert_eq!(detached.parent, Some(main.number));
        assert!(!detached.is_scoped && detached.number > main.number);
        scope(|s| {
            let scoped = Builder::new().name("in a scope").spawn_scoped(s, || sleep(LONG)).unwrap();
            assert!(entry("in a scope").is_scoped);
            scoped.terminate();
        });
        assert!(child.terminate_and_wait().is_err());
        assert!(dump().coroutines.iter().all(|entry| entry.name != "by main"), "it has ended");
    });
}

#[test]
fn a_dump_tells_how_much_stack_has_been_used() {
    #[inline(never)]
    fn deep(levels: u32) -> u64 {
        let frame = std::hint::black_box([u64::from(levels); 512]); // 4 KiB
        if levels == 0 { frame[0] } else { deep(levels - 1) + frame[0] }
    }
    run(|| {
        let size = 4 * 1024 * 1024; // not pooled, so it is fresh
        let builder = |name| Builder::new().name(name).stack_size_bytes(size);
        let shallow = builder("shallow").spawn(|| sleep(LONG)).unwrap();
        let used_deep = || {
            deep(200);
            sleep(LONG);
        };
        let deep = builder("deep").spawn(used_deep).unwrap();
        let (of_shallow, of_deep) = (entry("shallow"), entry("deep"));
        assert_eq!(of_deep.stack_size_bytes, size);
        let (Some(few), Some(many)) = (of_shallow.stack_used_bytes, of_deep.stack_used_bytes) else {
            eprintln!("SKIPPED: the kernel does not tell which pages are used");
            return;
        };
        assert!(few > 0 && few <= 64 * 1024, "{of_shallow}");
        assert!(many >= 200 * 4096 && many < size, "{of_deep}");
        drop((shallow, deep));
    });
}

#[test]
fn a_dump_tells_since_when_a_coroutine_waits() {
    sim::run(1, SimConfig::default(), |_| {
        let _sleeper = Builder::new().name("sleeper of an hour").spawn(|| sleep(LONG)).unwrap();
        sleep(Duration::from_secs(60));
        let state = entry("sleeper of an hour").state;
        let waited = Duration::from_secs(60);
        assert_eq!(state, CoroutineState::Waiting { what: "a time", waited });
    });
    run(|| {
        let _sleeper = Builder::new().name("real sleeper").spawn(|| sleep(LONG)).unwrap();
        sleep(Duration::from_millis(30));
        let CoroutineState::Waiting { waited, .. } = entry("real sleeper").state else { panic!("it waits") };
        // It may have suspended before the reactor's last look at the clock, never after.
        assert!(waited >= Duration::from_millis(30), "{waited:?}");
    });
}

#[test]
fn a_dump_reads_as_one_line_for_each_coroutine() {
    run(|| {
        let _child = Builder::new().name("the acceptor").spawn(|| sleep(LONG)).unwrap();
        let text = dump().to_string();
        let line = text.lines().find(|line| line.contains("the acceptor")).unwrap();
        assert!(
            line.contains("waits for a time") && line.contains("spawned at") && line.contains("stack"),
            "{line}"
        );
    });
}

#[inline(never)]
fn waits_for_an_hour() {
    sleep(LONG);
}

#[inline(never)]
fn passes_numbers_on(from: &Receiver<u32>, to: &Sender<u32>) {
    while let Ok(number) = from.recv() {
        to.send(number).unwrap();
    }
}

/// The calls that the coroutine of that name is in, as text.
fn stack_of(dump: &Dump, name: &str) -> Option<String> {
    let entry = dump.coroutines.iter().find(|entry| entry.name == name).unwrap();
    entry.stack.as_ref().map(|stack| stack.to_string())
}

#[test]
fn a_dump_with_stacks_names_the_functions_that_each_coroutine_is_in() {
    run(|| {
        assert!(dump().coroutines.iter().all(|entry| entry.stack.is_none()), "only if it was asked for");
        let (to, from) = channel(1);
        let (back, numbers) = channel(1);
        let named = |name: &'static str| Builder::new().name(name);
        let _sleeper = named("sleeper").spawn(waits_for_an_hour).unwrap();
        let _passer = named("passer").spawn(move || passes_numbers_on(&from, &back)).unwrap();
        let dump = reactor::dump_with_stacks();
        let (sleeper, passer) = (stack_of(&dump, "sleeper").unwrap(), stack_of(&dump, "passer").unwrap());
        assert!(sleeper.contains("waits_for_an_hour") && sleeper.contains("sleep"), "{sleeper}");
        assert!(passer.contains("passes_numbers_on") && passer.contains("recv"), "{passer}");
        assert!(sleeper.contains("coroutines_can_be_watched.rs:"), "it tells places: {sleeper}");
        for (stack, others) in [(&sleeper, "passes_numbers_on"), (&passer, "waits_for_an_hour")] {
            assert!(!stack.contains(others) && !stack.contains("run_here"), "others' frames: {stack}");
        }
        let own = stack_of(&dump, "main").unwrap();
        assert!(own.contains("dump_with_stacks") && own.contains("a_dump_with_stacks_names"), "{own}");
        assert!(dump.to_string().contains("waits_for_an_hour"), "{dump}");
        // Nothing that they wait for has been disturbed.
        for number in 0..10 {
            drop(reactor::dump_with_stacks());
            to.send(number).unwrap();
            drop(reactor::dump_with_stacks());
            assert_eq!(numbers.recv(), Ok(number));
        }
    });
}

#[test]
fn being_asked_for_their_stacks_changes_nothing_for_those_who_wait() {
    let story = |asks: bool| {
        sim::run(7, SimConfig::default(), |world| {
            let (signal, gate) = (Rc::new(Signal::new()), Rc::new(Mutex::new(0)));
            let workers: Vec<_> = (1..=5)
                .map(|n| {
                    let (signal, gate) = (signal.clone(), gate.clone());
                    spawn(move || {
                        signal.wait();
                        let limit = Duration::from_millis(15);
                        let late = reactor::timeout(limit, || sleep(Duration::from_millis(10 * n))).is_err();
                        let mut sum = gate.lock();
                        yield_now();
                        *sum += if late { 100 } else { n };
                    })
                })
                .collect();
            let watcher = spawn(move || {
                for _ in 0..50 {
                    sleep(Duration::from_millis(1));
                    if asks {
                        let dump = reactor::dump_with_stacks();
                        assert!(dump.coroutines.iter().filter(|entry| entry.stack.is_some()).count() > 1);
                    }
                }
            });
            sleep(Duration::from_millis(3));
            signal.notify_all();
            workers.into_iter().for_each(|worker| worker.join().unwrap());
            watcher.join().unwrap();
            let sum = *gate.lock();
            (sum, world.elapsed(), world.trace_hash())
        })
    };
    let asked = story(true);
    assert_eq!(asked, story(false));
    assert_eq!(asked.0, 401);
}

/// Its drop suspends, where the coroutine whose result it was has no code of its own left to run.
struct DropsSlowly;

impl Drop for DropsSlowly {
    fn drop(&mut self) {
        waits_for_an_hour();
    }
}

#[test]
fn a_coroutine_in_its_last_phase_is_told_its_own_calls_alone() {
    run(|| {
        let ends = Builder::new().name("ends").spawn(|| {
            yield_now();
            DropsSlowly
        });
        drop(ends);
        yield_now();
        let stack = stack_of(&reactor::dump_with_stacks(), "ends").unwrap();
        assert!(stack.contains("waits_for_an_hour") && stack.contains("DropsSlowly"), "{stack}");
        assert!(!stack.contains("dump_with_stacks"), "the asker's: {stack}");
    });
}

#[test]
fn who_cannot_be_asked_for_its_stack_is_left_alone() {
    run(|| {
        let small = || {
            let first = 0u8;
            waits_deep_down(std::ptr::from_ref(std::hint::black_box(&first)).addr(), 4096);
        };
        let _small = Builder::new().name("small").stack_size_bytes(16 * 1024).spawn(small).unwrap();
        assert_eq!(stack_of(&reactor::dump_with_stacks(), "small"), None, "it has no room for that");
        let (handle, was_seen) = (Rc::new(RefCell::new(None::<JoinHandle<()>>)), Rc::new(Cell::new(false)));
        let (own, seen) = (handle.clone(), was_seen.clone());
        let parent = Builder::new().name("parent").spawn(move || {
            yield_now(); // Its handle is there when it goes on.
            let child = spawn(move || {
                own.borrow().as_ref().unwrap().terminate();
                // It has been made runnable, and yet its code is below its child's.
                let parent = entry("parent");
                assert_eq!((parent.state, parent.is_terminated), (CoroutineState::Runnable, true));
                assert_eq!(stack_of(&reactor::dump_with_stacks(), "parent"), None);
                seen.set(true);
            });
            child.join().unwrap();
            yield_now();
        });
        *handle.borrow_mut() = Some(parent.unwrap());
        for _ in 0..5 {
            yield_now();
        }
        assert!(was_seen.get());
        let parent = handle.take().unwrap();
        assert!(parent.join().is_err());
    });
}

/// Calls itself until it has used `size_bytes` of stack since `first`, and waits.
#[inline(never)]
fn waits_deep_down(first: usize, size_bytes: usize) {
    let frame = std::hint::black_box([0u8; 256]);
    if first - frame.as_ptr().addr() < size_bytes {
        waits_deep_down(first, size_bytes);
    } else {
        waits_for_an_hour();
    }
    std::hint::black_box(frame);
}

#[test]
fn being_asked_overflows_no_stack_however_full_it_is() {
    run(|| {
        // From some with room for an answer to some with room for waiting and little more.
        let depths = 88..118;
        for depth in depths.clone() {
            let deep = move || {
                let first = 0u8;
                waits_deep_down(std::ptr::from_ref(&first).addr(), depth * 1024);
            };
            let builder = Builder::new().name(format!("deep {depth}")).stack_size_bytes(128 * 1024);
            drop(builder.spawn(deep).unwrap());
        }
        let dump = reactor::dump_with_stacks();
        let answers = depths.filter(|depth| stack_of(&dump, &format!("deep {depth}")).is_some()).count();
        assert!((1..30).contains(&answers), "{answers} of them have room");
    });
}

#[test]
fn sigusr2_writes_a_dump_with_stacks_to_the_log() {
    let log = run_logged(|log| {
        reactor::dump_on_signal().unwrap();
        let _child = Builder::new().name("seen in the log").spawn(waits_for_an_hour).unwrap();
        let pid = std::process::id().to_string();
        assert!(std::process::Command::new("kill").args(["-USR2", &pid]).status().unwrap().success());
        for _ in 0..20_000 {
            if log.text().contains("seen in the log") {
                return;
            }
            sleep(Duration::from_millis(1));
        }
    });
    assert!(log.contains("dump on SIGUSR2") && log.contains("waits_for_an_hour"), "{log}");
}

#[test]
fn the_watchdog_names_a_coroutine_that_holds_the_thread_and_no_other() {
    // The watchdog logs from its own thread, which has the process's subscriber.
    let log = support::Log::default();
    let writer = std::sync::Mutex::new(log.clone());
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(writer).finish();
    tracing::subscriber::set_global_default(subscriber).unwrap();
    run(|| {
        let _quiet = Builder::new().name("quiet").spawn(|| sleep(LONG)).unwrap();
        let _watching = watchdog(Duration::from_millis(20));
        let hogs = || {
            yield_now();
            // Until it is found out; how soon that is, is not measured.
            for _ in 0..1000 {
                std::thread::sleep(Duration::from_millis(10));
                if log.text().contains("the hog") {
                    break;
                }
            }
        };
        scope(|s| drop(Builder::new().name("the hog").spawn_scoped(s, hogs)));
    });
    let text = log.text();
    let bark = text.lines().find(|line| line.contains("has held the thread")).unwrap_or_default();
    assert!(bark.contains("the hog (") && bark.contains("coroutines_can_be_watched.rs:"), "{text}");
    assert!(!text.contains("quiet"), "{text}");
}
