//! Finds the coroutine that holds the thread: a long computation, or a call that blocks the whole process.
//!
//! While one coroutine runs, no other does. The reactor can't help it, but a thread beside it can tell: it looks at
//! two counters, which the reactor writes at each switch (plain stores, under a nanosecond, and none while there is no
//! watchdog), and logs who has been running for too long.
//!
//! Not here: what to do about it. Call [`crate::yield_now`] now and then, or give the work to [`crate::offload`].

use std::cell::Cell;
use std::collections::HashMap;
use std::marker::PhantomData;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::coroutine::{self, Coroutine};
use crate::run;

/// Looks per limit: a coroutine is found out after the limit and at most a quarter of it.
const LOOKS_PER_LIMIT: u32 = 4;

/// Looks are no denser than this, so that a watchdog never takes much of a processor itself.
const LOOK_INTERVAL_MIN: Duration = Duration::from_millis(1);

/// What a reactor's thread tells its watchdogs.
#[derive(Default)]
struct Pulse {
    /// The coroutine that runs, 0 for none; and how often one has gone on.
    running: AtomicU64,
    turn: AtomicU64,
    /// What the coroutines are called and where they were spawned, by number.
    names: Mutex<HashMap<u64, String>>,
}

impl Pulse {
    fn names(&self) -> MutexGuard<'_, HashMap<u64, String>> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_running(&self, number: u64) {
        // Only the reactor's thread writes. A reader that sees one without the other looks again before it barks.
        self.turn.store(self.turn.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
        self.running.store(number, Ordering::Relaxed);
    }
}

thread_local! {
    /// Watchdogs of this thread: without one, nothing is told.
    static WATCHDOG_COUNT: Cell<u32> = const { Cell::new(0) };
    static PULSE: Arc<Pulse> = Arc::default();
}

fn tell(word: impl FnOnce(&Pulse)) {
    if WATCHDOG_COUNT.get() > 0 {
        PULSE.with(|pulse| word(pulse));
    }
}

/// A coroutine goes on.
#[cold]
pub(crate) fn on_enter(number: u64) {
    tell(|pulse| pulse.set_running(number));
}

/// A coroutine suspends or ends, and `number` goes on: whoever it was nested in, 0 for the driver.
#[cold]
pub(crate) fn on_leave(number: u64) {
    tell(|pulse| pulse.set_running(number));
}

pub(crate) fn on_start(coroutine: &Coroutine) {
    tell(|pulse| drop(pulse.names().insert(coroutine.number(), coroutine.label_and_place())));
}

pub(crate) fn on_finish(number: u64) {
    tell(|pulse| drop(pulse.names().remove(&number)));
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
    coroutine::with_turns(|turns| turns.set_watched(true));
    let pulse = PULSE.with(Arc::clone);
    let name = |coroutine: &Rc<Coroutine>| (coroutine.number(), coroutine.label_and_place());
    pulse.names().extend(coroutines.iter().map(name));
    pulse.set_running(coroutine::current().number());
    let (stop, stopped) = sync_channel(0);
    std::thread::Builder::new()
        .name("watchdog".into())
        .spawn(move || watch(&pulse, limit, &stopped))
        .expect("a watchdog needs a thread");
    Watchdog { _stop: stop, _here: PhantomData }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        WATCHDOG_COUNT.set(WATCHDOG_COUNT.get().saturating_sub(1));
        if WATCHDOG_COUNT.get() == 0 {
            coroutine::with_turns(|turns| turns.set_watched(false));
            PULSE.with(|pulse| pulse.names().clear());
        }
    }
}

fn watch(pulse: &Pulse, limit: Duration, stopped: &Receiver<()>) {
    let interval = (limit / LOOKS_PER_LIMIT).max(LOOK_INTERVAL_MIN);
    let mut turn = pulse.turn.load(Ordering::Relaxed);
    let mut since = Instant::now();
    let mut bark_after = limit;
    while stopped.recv_timeout(interval) == Err(RecvTimeoutError::Timeout) {
        let (turn_now, running) = (pulse.turn.load(Ordering::Relaxed), pulse.running.load(Ordering::Relaxed));
        if turn_now != turn || running == 0 {
            (turn, since, bark_after) = (turn_now, Instant::now(), limit);
            continue;
        }
        let held = since.elapsed();
        if held >= bark_after {
            bark_after *= 2;
            let name = pulse.names().get(&running).cloned().unwrap_or_else(|| format!("number {running}"));
            tracing::warn!(coroutine = name, number = running, "has held the thread for {held:?} or more");
        }
    }
}
