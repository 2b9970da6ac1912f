//! The loop that decides when coroutines run. It runs on the thread that called [`crate::run`], for as long as that call.
//!
//! It owns the poller and the timers, and takes from the queue of runnable coroutines. It lets the runnable ones run, first come first
//! served; after 61 switches it looks at the poller without blocking; when nobody is runnable it blocks in the poller
//! until the next timer. So a busy server makes no system call but its own reads and writes and one poll for each batch
//! of events, and two coroutines that wake each other none at all.
//!
//! All of it belongs to the thread: reactors on several threads share nothing. Other threads reach in through a queue
//! and the poller's waker, which is rung only while the loop sleeps.
//!
//! Not here: what coroutines are ([`crate::coroutine`]), what descriptors mean ([`crate::net`]), when timers may fire
//! (`settling`).

mod key;
mod mailbox;
mod poller;
mod settling;

use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::BorrowedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use slab::Slab;

use self::key::{join_key, split_key};
use self::mailbox::Mailbox;
pub(crate) use self::poller::Told;
use self::poller::{EVENTS_PER_POLL, Events, Poller};
use self::settling::Settling;
use crate::clock::now;
use crate::coroutine::{Turns, with_turns};
use crate::net::Readiness;
use crate::sync::WaitList;
use crate::timer::{Action, TimerKey, TimerQueue};

/// Switches between two looks at the poller while coroutines keep each other busy. A prime, as in other
/// schedulers (tokio has 61 too), so that it does not beat with periodic work.
const SWITCHES_PER_LOOK: u32 = 61;

struct Driver {
    settling: RefCell<Settling>,
    timers: RefCell<TimerQueue>,
    /// There during a run.
    poller: RefCell<Option<Poller>>,
    mailbox: RefCell<Option<Arc<Mailbox>>>,
    /// What happened until then has been told to those who wait for it.
    polled_at: Cell<Option<Instant>>,
    sources: RefCell<Slab<Source>>,
    ports: RefCell<Slab<OpenPort>>,
    /// Goes on from run to run: a descriptor that outlives its run names nothing of the next one's.
    next_generation: Cell<u32>,
    spin: Cell<Duration>,
    started_at: Cell<Option<Instant>>,
    last_number: Cell<u64>,
}

struct Source {
    readiness: Rc<Readiness>,
    generation: u32,
}

struct OpenPort {
    waiters: Rc<WaitList>,
    generation: u32,
}

thread_local! {
    static DRIVER: Driver = const {
        Driver {
            settling: RefCell::new(Settling::new()),
            timers: RefCell::new(TimerQueue::new()),
            poller: RefCell::new(None),
            mailbox: RefCell::new(None),
            polled_at: Cell::new(None),
            sources: RefCell::new(Slab::new()),
            ports: RefCell::new(Slab::new()),
            next_generation: Cell::new(0),
            spin: Cell::new(Duration::ZERO),
            started_at: Cell::new(None),
            last_number: Cell::new(0),
        }
    };
}

const NO_RUN: &str = "this belongs inside `reactor::run`";

/// Whether the thread has a reactor: the caller is inside [`crate::run`].
pub(crate) fn is_here() -> bool {
    DRIVER
        .try_with(|driver| driver.mailbox.try_borrow().is_ok_and(|mailbox| mailbox.is_some()))
        .unwrap_or(false)
}

/// The thread's reactor, until dropped.
pub(crate) struct Run(());

/// Makes the calling thread a reactor's.
///
/// # Errors
///
/// When the process is out of descriptors.
pub(crate) fn enter() -> io::Result<Run> {
    let (poller, bell) = Poller::new()?;
    DRIVER.with(|driver| {
        *driver.poller.borrow_mut() = Some(poller);
        *driver.mailbox.borrow_mut() = Some(Arc::new(Mailbox::new(bell)));
        *driver.settling.borrow_mut() = Settling::new();
        driver.polled_at.set(Some(now()));
        driver.started_at.set(Some(Instant::now()));
        with_turns(|turns| turns.set_now_ns(0));
        driver.spin.set(Duration::ZERO);
        driver.last_number.set(0);
    });
    Ok(Run(()))
}

impl Run {
    /// Lets coroutines run until `is_over`.
    pub(crate) fn drive(&self, is_over: impl Fn() -> bool) {
        let mut events = Events::new();
        DRIVER.with(|driver| {
            let mailbox = driver.mailbox.borrow().clone().expect(NO_RUN);
            loop {
                driver.let_run(&is_over);
                if is_over() {
                    return;
                }
                driver.look(&mut events, &mailbox);
            }
        });
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        crate::fs::end();
        DRIVER.with(|driver| {
            with_turns(Turns::end);
            drop((driver.poller.take(), driver.mailbox.take()));
        });
    }
}

impl Driver {
    /// Lets those who are runnable go on, for some switches.
    fn let_run(&self, is_over: impl Fn() -> bool) {
        let mut taken_count = 0;
        with_turns(|turns| {
            turns.restart_count();
            while turns.switch_count() < SWITCHES_PER_LOOK && !is_over() {
                let Some(next) = turns.pop() else { break };
                taken_count += 1;
                // It may have ended in its parent, woken though it was.
                if !next.is_finished() {
                    next.resume(turns);
                }
            }
        });
        self.settling.borrow_mut().on_taken(taken_count);
    }

    /// Takes in what came from outside, and fires the timers that are due; waits for either where nobody is runnable.
    fn look(&self, events: &mut Events, mailbox: &Mailbox) {
        crate::fs::turn();
        if self.is_idle(mailbox) {
            self.wait(events, mailbox);
        } else {
            self.poll(events, Some(Duration::ZERO));
        }
        while let Some(key) = mailbox.take() {
            self.notify(key);
        }
        crate::fs::turn();
        if let Some(polled_at) = self.polled_at.get() {
            self.settling.borrow_mut().on_look(polled_at, with_turns(Turns::ready_count));
        }
        self.fire_timers();
    }

    fn is_idle(&self, mailbox: &Mailbox) -> bool {
        with_turns(Turns::ready_count) == 0 && mailbox.is_empty()
    }

    /// Blocks until an event, a timer or another thread's word; polls for a while first where that was asked for.
    fn wait(&self, events: &mut Events, mailbox: &Mailbox) {
        let spin = self.spin.get();
        if !spin.is_zero() {
            let until = now() + spin;
            while now() < until {
                self.poll(events, Some(Duration::ZERO));
                crate::fs::turn();
                let is_due = self.timers.borrow().next_due().is_some_and(|due| due <= now());
                if is_due || !self.is_idle(mailbox) {
                    return;
                }
            }
        }
        mailbox.sleep(|| {
            let due = self.timers.borrow().next_due();
            self.poll(events, due.map(|due| due.saturating_duration_since(now())));
        });
    }

    fn poll(&self, events: &mut Events, limit: Option<Duration>) {
        let before = now();
        match self.poller.borrow().as_ref().expect(NO_RUN).wait(events, limit) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return,
            // Nothing can go on without the poller, and no caller could mend it.
            Err(error) => {
                eprintln!("reactor: the poller failed: {error}");
                std::process::abort();
            }
        }
        let after = now();
        let event_count = events.len();
        if event_count == 0 {
            self.polled_at.set(Some(after));
        } else if event_count < EVENTS_PER_POLL {
            // More may wait in the kernel that came while we were in it. Where there was no room for all, nothing
            // is known of any instant.
            self.polled_at.set(Some(before));
        }
        with_turns(|turns| turns.set_now_ns(self.since_start(after)));
        let sources = self.sources.borrow();
        for (key, told) in events.iter() {
            let (slot, generation) = split_key(key);
            if let Some(source) = sources.get(slot)
                && source.generation == generation
            {
                source.readiness.on_told(told);
            }
        }
    }

    fn fire_timers(&self) {
        let Some(settled_at) = self.settling.borrow_mut().settled_at() else { return };
        loop {
            let action = self.timers.borrow_mut().pop_due(settled_at);
            match action {
                Some(Action::Wake(coroutine)) => coroutine.wake(),
                Some(Action::Cut(coroutine, cut)) => coroutine.cut_to(cut),
                None => return,
            }
        }
    }

    fn notify(&self, key: u64) {
        let (slot, generation) = split_key(key);
        let waiters = match self.ports.borrow().get(slot) {
            Some(port) if port.generation == generation => port.waiters.clone(),
            _ => return,
        };
        waiters.notify_all();
    }

    fn generation(&self) -> u32 {
        let generation = self.next_generation.get();
        self.next_generation.set(generation.wrapping_add(1));
        generation
    }

    fn since_start(&self, instant: Instant) -> u64 {
        let started_at = self.started_at.get().expect(NO_RUN);
        instant.saturating_duration_since(started_at).as_nanos() as u64
    }
}

/// A place where other threads leave word for coroutines.
#[derive(Clone)]
pub(crate) struct Port {
    mailbox: Arc<Mailbox>,
    key: u64,
}

impl Port {
    /// A port of this thread's reactor, at which `waiters` wait.
    pub(crate) fn open(waiters: Rc<WaitList>) -> Port {
        DRIVER.with(|driver| {
            let mailbox = driver.mailbox.borrow().clone().expect(NO_RUN);
            let generation = driver.generation();
            let slot = driver.ports.borrow_mut().insert(OpenPort { waiters, generation });
            Port { mailbox, key: join_key(slot, generation) }
        })
    }

    /// Wakes whoever waits at the port. From any thread.
    pub(crate) fn notify(&self) {
        self.mailbox.post(self.key);
    }

    /// Whether the caller's own thread is the one that the port's reactor runs on.
    pub(crate) fn is_here(&self) -> bool {
        let is_same = |mailbox: &Option<Arc<Mailbox>>| {
            mailbox.as_ref().is_some_and(|mailbox| Arc::ptr_eq(mailbox, &self.mailbox))
        };
        DRIVER.try_with(|driver| is_same(&driver.mailbox.borrow())).unwrap_or(false)
    }

    /// Lets nobody wait here any more.
    pub(crate) fn close(&self) {
        let _ = DRIVER.try_with(|driver| {
            let (slot, generation) = split_key(self.key);
            let mut ports = driver.ports.borrow_mut();
            let is_open = ports.get(slot).is_some_and(|port| port.generation == generation);
            let closed = is_open.then(|| ports.remove(slot));
            drop(ports);
            drop(closed);
        });
    }
}

/// Names a registered descriptor, and no later one in its slot.
#[derive(Clone, Copy)]
pub(crate) struct SourceKey(u64);

/// Registers a descriptor, edge-triggered in both directions; urgent data is told of too.
pub(crate) fn register(fd: BorrowedFd<'_>, readiness: Rc<Readiness>) -> io::Result<SourceKey> {
    DRIVER.with(|driver| {
        let generation = driver.generation();
        let slot = driver.sources.borrow_mut().insert(Source { readiness, generation });
        let key = join_key(slot, generation);
        let registered = driver.poller.borrow().as_ref().expect(NO_RUN).add(fd, key);
        if registered.is_err() {
            driver.sources.borrow_mut().remove(slot);
        }
        registered.map(|()| SourceKey(key))
    })
}

/// Forgets a descriptor; one that outlived its run, or its thread, has been forgotten already.
pub(crate) fn deregister(fd: BorrowedFd<'_>, key: SourceKey) {
    let _ = DRIVER.try_with(|driver| {
        let (slot, generation) = split_key(key.0);
        let mut sources = driver.sources.borrow_mut();
        if sources.get(slot).is_none_or(|source| source.generation != generation) {
            return;
        }
        let source = sources.remove(slot);
        drop(sources);
        drop(source);
        if let Some(poller) = &*driver.poller.borrow() {
            poller.remove(fd);
        }
    });
}

pub(crate) fn arm_timer(due: Instant, action: Action) -> TimerKey {
    DRIVER.with(|driver| driver.timers.borrow_mut().arm(due, action))
}

pub(crate) fn disarm_timer(key: TimerKey) {
    let _ = DRIVER.try_with(|driver| {
        let disarmed = driver.timers.borrow_mut().disarm(key);
        drop(disarmed);
    });
}

/// The clock of suspensions, read now.
pub(crate) fn now_ns() -> u64 {
    // The real one, also for a simulated caller.
    DRIVER.with(|driver| driver.since_start(Instant::now()))
}

/// A number for a coroutine that is about to start.
pub(crate) fn next_number() -> u64 {
    DRIVER.with(|driver| {
        driver.last_number.set(driver.last_number.get() + 1);
        driver.last_number.get()
    })
}

/// Makes the reactor poll for events for up to `spin` before it blocks, trading processor time for latency.
///
/// Until the run ends. A wake-up across processors costs some tens of microseconds, which a server that is asked again
/// at once need not pay. Zero (the default) never spins; neither does a process confined to one processor, where
/// spinning would only keep its peer from running. Never suspends.
///
/// # Panics
///
/// Outside `run`.
pub fn set_busy_poll(spin: Duration) {
    assert!(is_here(), "{NO_RUN}");
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    DRIVER.with(|driver| driver.spin.set(if processors > 1 { spin } else { Duration::ZERO }));
}
