//! Finds the coroutine that holds the thread: a long computation, or a call that blocks the whole process.
//!
//! While one coroutine runs, no other does. The reactor can't help it, but a thread beside it can tell: it looks at
//! two counters, which the reactor writes at each switch whether somebody looks or not (plain stores to memory of
//! its own, under a nanosecond), and logs who has been running for too long.
//!
//! Not here: what to do about it. Call [`crate::yield_now`] now and then, or give the work to [`crate::offload`].

use std::cell::Cell;
use std::collections::HashMap;
use std::marker::PhantomData;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::coroutine::Coroutine;
use crate::run;

/// Looks per limit: a coroutine is found out after the limit and at most a quarter of it.
const LOOKS_PER_LIMIT: u32 = 4;

/// Looks are no denser than this, so that a watchdog never takes much of a processor itself.
const LOOK_INTERVAL_MIN: Duration = Duration::from_millis(1);

/// The coroutine that runs, 0 for none; and how often one has gone on.
static RUNNING: AtomicU64 = AtomicU64::new(0);
static TURN: AtomicU64 = AtomicU64::new(0);

/// Whether there is a watchdog, so that names are kept where it can read them.
static WATCHED: AtomicBool = AtomicBool::new(false);

thread_local! { static WATCHDOG_COUNT: Cell<u32> = const { Cell::new(0) }; }

/// What the watched coroutines are called and where they were spawned, by number.
static NAMES: LazyLock<Mutex<HashMap<u64, String>>> = LazyLock::new(Mutex::default);

fn names() -> MutexGuard<'static, HashMap<u64, String>> {
    NAMES.lock().unwrap_or_else(PoisonError::into_inner)
}

#[inline]
pub(crate) fn on_enter(number: u64) {
    // Only the reactor's thread writes. A reader that sees one without the other looks again before it barks.
    TURN.store(TURN.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
    RUNNING.store(number, Ordering::Relaxed);
}

#[inline]
pub(crate) fn on_leave() {
    RUNNING.store(0, Ordering::Relaxed);
}

pub(crate) fn on_start(coroutine: &Coroutine) {
    if WATCHED.load(Ordering::Relaxed) {
        names().insert(coroutine.number(), coroutine.label_and_place());
    }
}

pub(crate) fn on_finish(number: u64) {
    if WATCHED.load(Ordering::Relaxed) {
        names().remove(&number);
    }
}

/// Watches until dropped: see [`watchdog`].
pub struct Watchdog {
    // Its end tells the thread to stop.
    _stop: SyncSender<()>,
    // Not `Send`: watchdogs are counted on the reactor's thread.
    _here: PhantomData<Rc<()>>,
}

/// Logs a warning, with name and place, when one coroutine runs for longer than `limit` without suspending; again
/// when it has been twice as long, and so on.
///
/// Until the result is dropped. Off unless called: it is a thread, and a lock at each spawn. Never suspends.
///
/// # Panics
///
/// Outside [`crate::run`]. With a limit of zero. When the process can't start a thread.
pub fn watchdog(limit: Duration) -> Watchdog {
    assert!(!limit.is_zero(), "everything takes longer than nothing");
    let coroutines = run::all_coroutines();
    assert!(!coroutines.is_empty(), "this belongs inside `reactor::run`");
    WATCHDOG_COUNT.set(WATCHDOG_COUNT.get() + 1);
    WATCHED.store(true, Ordering::Relaxed);
    names().extend(coroutines.iter().map(|coroutine| (coroutine.number(), coroutine.label_and_place())));
    let (stop, stopped) = sync_channel(0);
    std::thread::Builder::new()
        .name("watchdog".into())
        .spawn(move || watch(limit, &stopped))
        .expect("a watchdog needs a thread");
    Watchdog { _stop: stop, _here: PhantomData }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        WATCHDOG_COUNT.set(WATCHDOG_COUNT.get().saturating_sub(1));
        if WATCHDOG_COUNT.get() == 0 {
            WATCHED.store(false, Ordering::Relaxed);
            names().clear();
        }
    }
}

fn watch(limit: Duration, stopped: &Receiver<()>) {
    let interval = (limit / LOOKS_PER_LIMIT).max(LOOK_INTERVAL_MIN);
    let mut turn = TURN.load(Ordering::Relaxed);
    let mut since = Instant::now();
    let mut bark_after = limit;
    while stopped.recv_timeout(interval) == Err(RecvTimeoutError::Timeout) {
        let (turn_now, running) = (TURN.load(Ordering::Relaxed), RUNNING.load(Ordering::Relaxed));
        if turn_now != turn || running == 0 {
            (turn, since, bark_after) = (turn_now, Instant::now(), limit);
            continue;
        }
        let held = since.elapsed();
        if held >= bark_after {
            bark_after *= 2;
            let name = names().get(&running).cloned().unwrap_or_else(|| format!("number {running}"));
            tracing::warn!(coroutine = name, number = running, "has held the thread for {held:?} or more");
        }
    }
}
