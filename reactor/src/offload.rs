//! Blocking work on a bounded pool of threads, awaited by a coroutine.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;
use std::sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError};

use crate::coroutine::{Payload, begin, may_suspend, panic_message};
use crate::remote;
use crate::sim;
use crate::sync::Semaphore;

/// What blocks its thread: each kind has threads of its own, so that none waits behind another's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Files, and what users offload.
    Work = 0,
    /// Name look-ups: they wait for a network, for half a minute where that is broken.
    Names = 1,
    /// Starts of programs, which wait for a disk.
    #[cfg_attr(not(feature = "process"), allow(dead_code, reason = "nobody starts any"))]
    Programs = 2,
}

/// Threads of each kind, and so blocking calls under way at once: a disk's queue is kept filled by 16; look-ups are
/// bounded by each reactor's resolver, and take little but memory; a program's start takes a processor.
const THREADS_MAX: [usize; 3] = [16, 16, 4];

/// A thread without work for this long ends.
const IDLE_MAX: std::time::Duration = std::time::Duration::from_secs(10);

type Job = Box<dyn FnOnce() + Send>;

struct Pool {
    threads_max: usize,
    state: Mutex<State>,
    has_work: Condvar,
}

#[derive(Default)]
struct State {
    threads: usize,
    /// Threads that wait for work.
    idle: usize,
    /// In the order of their numbers, so that one can be taken back.
    queue: BTreeMap<u64, Job>,
    next: u64,
}

fn pool(kind: Kind) -> &'static Pool {
    static POOLS: OnceLock<[Pool; 3]> = OnceLock::new();
    &POOLS.get_or_init(|| THREADS_MAX.map(Pool::new))[kind as usize]
}

impl Pool {
    fn new(threads_max: usize) -> Pool {
        Pool { threads_max, state: Mutex::default(), has_work: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives a job to the next thread that is free, and tells its number.
    fn submit(&'static self, job: Job) -> u64 {
        let mut state = self.lock();
        let number = state.next;
        state.next += 1;
        state.queue.insert(number, job);
        if state.queue.len() > state.idle && state.threads < self.threads_max {
            let spawned = std::thread::Builder::new().name("offload".into()).spawn(move || self.work());
            match spawned {
                Ok(_) => state.threads += 1,
                Err(error) => assert!(state.threads > 0, "no thread for blocking work: {error}"),
            }
        } else {
            drop(state);
            self.has_work.notify_one();
        }
        number
    }

    /// Takes a job back that no thread has begun.
    fn withdraw(&self, number: u64) -> Option<Job> {
        self.lock().queue.remove(&number)
    }

    fn work(&self) {
        let mut state = self.lock();
        loop {
            if let Some((_, job)) = state.queue.pop_first() {
                drop(state);
                job();
                state = self.lock();
                continue;
            }
            state.idle += 1;
            let waited = self.has_work.wait_timeout(state, IDLE_MAX);
            let timeout;
            (state, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
            state.idle -= 1;
            // A job that came just now may have counted on this thread.
            if timeout.timed_out() && state.queue.is_empty() {
                state.threads -= 1;
                return;
            }
        }
    }
}

thread_local! {
    /// The reactor runs a test, whose output is its own.
    static IN_TEST: Cell<bool> = const { Cell::new(false) };
    /// Each reactor's share, by kind: all threads of the pool, if no other reactor wants any.
    static PLACES: Rc<[Semaphore; 3]> = Rc::new(THREADS_MAX.map(Semaphore::new));
}

/// Runs `f`, which may block, on another thread, and suspends the coroutine until it is done.
///
/// At most 16 such calls run at once in the process, for all its reactors together, and the reactor's own work on files is
/// among them; more wait their turn, first come, first served. So one that waits for another (that blocks until a
/// coroutine has done something by `offload`) may wait for ever: what waits belongs into a coroutine, and what runs for
/// good on a thread of its own. Look-ups of names and starts of programs have other threads. If the coroutine is terminated meanwhile, it unwinds at once; `f` is dropped, on this thread, if it has not begun, so that work which
/// nobody wants keeps nobody waiting, and else runs on to its end with its result dropped. In a destructor that runs
/// while its coroutine unwinds, `f` runs here and now, and everybody waits for it.
///
/// # Panics
///
/// With `f`'s panic; inside [`macro@crate::test`] its message is printed once more where this was called. Outside
/// [`crate::run`].
///
/// # Suspends
///
/// Until `f` has returned.
#[track_caller]
pub fn offload<T: Send + 'static>(f: impl FnOnce() -> T + Send + 'static) -> T {
    offload_as(Kind::Work, f)
}

/// As [`offload`], on the threads of a kind.
#[track_caller]
pub(crate) fn offload_as<T: Send + 'static>(kind: Kind, f: impl FnOnce() -> T + Send + 'static) -> T {
    begin().over();
    if let Some(process) = sim::here() {
        return sim::offload(&process, f);
    }
    if !may_suspend() {
        return f();
    }
    let places = PLACES.with(Rc::clone);
    let _place = places[kind as usize].acquire();
    let (sender, receiver) = remote::channel(1);
    let number = pool(kind).submit(Box::new(move || {
        let result = catch_unwind(AssertUnwindSafe(f));
        // Nobody listens any more if the coroutine was terminated.
        let _ = sender.try_send(result);
    }));
    let wanted = Wanted(kind, number);
    let result = receiver.recv();
    // It has been done: there is nothing to take back.
    std::mem::forget(wanted);
    match result {
        Some(Ok(value)) => value,
        Some(Err(payload)) => raise_here(payload),
        None => unreachable!("the job sends before it drops its sender"),
    }
}

/// Goes on with a panic that happened on another thread, which has told of it.
///
/// In a test it is told here as well: the threads of the pool print into the output of whichever test first started one,
/// and this one's would not say why it failed.
#[track_caller]
fn raise_here(payload: Payload) -> ! {
    if IN_TEST.get() && (payload.is::<&str>() || payload.is::<String>()) {
        panic!("{}", panic_message(&payload));
    }
    resume_unwind(payload)
}

/// As [`crate::run`], for the expansion of `#[reactor::test]`.
#[doc(hidden)]
#[track_caller]
pub fn run_test<T: Send>(main: impl FnOnce() -> T + Send) -> T {
    struct Leave;
    impl Drop for Leave {
        fn drop(&mut self) {
            IN_TEST.set(false);
        }
    }
    crate::run(|| {
        IN_TEST.set(true);
        let _leave = Leave;
        main()
    })
}

/// A job that somebody waits for. Dropped, it is taken back if it has not begun.
struct Wanted(Kind, u64);

impl Drop for Wanted {
    fn drop(&mut self) {
        let unwanted = pool(self.0).withdraw(self.1);
        // Out of the lock: what it holds may do anything as it goes.
        drop(unwanted);
    }
}

/// Runs `job` on the pool, some time soon, for destructors: they may neither suspend nor care how it goes.
///
/// It must not panic. Not counted among the jobs that run at once, so callers bound how many there are.
pub(crate) fn discard(job: impl FnOnce() + Send + 'static) {
    pool(Kind::Work).submit(Box::new(job));
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn blocking_work_does_not_hold_up_other_coroutines() {
        crate::run(|| {
            let (release, gate) = std::sync::mpsc::channel::<()>();
            let blocked = crate::spawn(move || offload(move || gate.recv().is_ok()));
            crate::sleep(Duration::from_millis(1));
            release.send(()).unwrap();
            assert_eq!(blocked.join(), Ok(true));
        });
    }

    #[test]
    fn more_work_than_threads_is_all_done() {
        crate::run(|| {
            let sum: u64 = crate::scope(|s| {
                let children: Vec<_> = (0..200u64).map(|n| s.spawn(move || offload(move || n))).collect();
                children.into_iter().map(|child| child.join().unwrap()).sum()
            });
            assert_eq!(sum, 199 * 200 / 2);
        });
    }

    /// All threads for ordinary work wait until this is dropped, for callers that have given up.
    struct Occupied {
        _gates: Vec<std::sync::mpsc::Sender<()>>,
        // Two that each had half of them would wait for ever.
        _alone: MutexGuard<'static, ()>,
    }

    fn occupy() -> Occupied {
        static ALONE: Mutex<()> = Mutex::new(());
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let mut gates = Vec::new();
        for _ in 0..THREADS_MAX[Kind::Work as usize] {
            let (release, gate) = std::sync::mpsc::channel::<()>();
            let (blocks, blocked) = std::sync::mpsc::channel();
            gates.push(release);
            let caller = crate::spawn(move || {
                offload(move || {
                    let _ = blocks.send(());
                    gate.recv().is_ok()
                })
            });
            while blocked.try_recv().is_err() {
                crate::sleep(Duration::from_millis(1));
            }
            caller.terminate();
            let _ = caller.join();
        }
        Occupied { _gates: gates, _alone: alone }
    }

    #[test]
    fn names_are_found_and_programs_started_while_all_other_threads_wait() {
        crate::run(|| {
            let occupied = occupy();
            let found = crate::timeout(Duration::from_secs(60), || {
                offload_as(Kind::Names, || ());
                offload_as(Kind::Programs, || ());
                #[cfg(feature = "process")]
                crate::process::Command::new("true").output(1).expect("there is such a program");
            });
            assert!(found.is_ok(), "they wait behind work on files");
            drop(occupied);
        });
    }

    #[test]
    fn work_that_nobody_wants_any_more_is_not_begun() {
        crate::run(|| {
            // What comes now waits in the pool.
            let occupied = occupy();
            let (began, begins) = std::sync::mpsc::channel::<u32>();
            for round in 0..1_000 {
                let began = began.clone();
                crate::spawn(move || offload(move || began.send(round))).terminate();
                crate::yield_now();
            }
            drop(began);
            drop(occupied);
            // The pool's queue is in order: this comes behind whatever was left of those.
            offload(|| ());
            assert_eq!(begins.try_iter().count(), 0);
        });
    }

    #[test]
    #[should_panic(expected = "from another thread")]
    fn a_panic_in_blocking_work_goes_to_the_caller() {
        crate::run(|| offload(|| panic!("from another thread")));
    }
}
