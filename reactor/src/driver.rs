//! The loop that decides when coroutines run: one coroutine that owns the poller and the timers.
//!
//! It counts the runnable coroutines. While there are some it steps aside: the last of them to suspend calls it
//! back, or every 61st switch does, for a look at the poller without blocking. When there are none it blocks in
//! the poller until the next timer. So a busy server makes no system call but its own reads and writes and one
//! poll for each batch of events, two coroutines that wake each other need no third switch in between, and
//! `may`'s own event loop never gets to run.
//!
//! Other threads reach in through a queue and the poller's waker, which is rung only while the driver sleeps.
//!
//! Not here: what coroutines are ([`crate::coroutine`]), what descriptors mean ([`crate::net`]).

mod key;

use std::cell::{Cell, OnceCell, RefCell};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Once, OnceLock};
use std::time::{Duration, Instant};

use crossbeam::queue::SegQueue;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token, Waker};
use slab::Slab;

use self::key::{join_key, split_key};
use crate::clock::now;
use crate::coroutine::{SpawnError, settle_overflow};
use crate::engine::{self, Fiber};
use crate::net::Readiness;
use crate::sync::WaitList;
use crate::timer::{Action, TimerKey, TimerQueue};

/// Switches between two looks at the poller while coroutines keep each other busy. A prime, as in other
/// schedulers (tokio has 61 too), so that it does not beat with periodic work.
const SWITCHES_PER_POLL: u32 = 61;

/// Events taken from the kernel at once. More wait for the next call.
const EVENTS_PER_POLL: usize = 1024;

/// Memory mappings left to the program beside its coroutines' stacks, which take two each.
const MAPPINGS_RESERVED: usize = 4096;

/// `vm.max_map_count` where it cannot be read: the kernel's default (Documentation/admin-guide/sysctl/vm.rst).
const MAX_MAP_COUNT_DEFAULT: usize = 65_530;

const WAKER: Token = Token(usize::MAX);

struct Driver {
    poll: RefCell<Poll>,
    fiber: Fiber,
    /// The driver waits to be called back.
    aside: Cell<bool>,
    switch_count: Cell<u32>,
    /// Coroutines that started another one and go on when it first suspends.
    nested_count: Cell<u32>,
    ready_count: Cell<usize>,
    live_count: Cell<usize>,
    live_count_max: usize,
    max_map_count: usize,
    timers: RefCell<TimerQueue>,
    /// What happened until then has been told to those who wait for it.
    polled_at: Cell<Instant>,
    /// What happened until then has been acted upon: timers fire up to here and no further. After a stall of
    /// the thread an answer that came in time must not lose to its deadline.
    settled_at: Cell<Instant>,
    /// An instant that will be settled once so many more coroutines have had their turn.
    settling: Cell<Option<(Instant, usize)>>,
    sources: RefCell<Slab<Source>>,
    next_generation: Cell<u32>,
    ports: RefCell<Slab<Port>>,
    spin: Cell<Duration>,
    started_at: Instant,
    /// The time of the last look at the poller, in nanoseconds since the start.
    coarse_now_ns: Cell<u64>,
    last_number: Cell<u64>,
}

struct Source {
    readiness: Rc<Readiness>,
    generation: u32,
}

struct Port {
    waiters: Rc<WaitList>,
    generation: u32,
}

thread_local! {
    static DRIVER: OnceCell<&'static Driver> = const { OnceCell::new() };
}

fn driver() -> &'static Driver {
    DRIVER.with(|driver| *driver.get().expect("this belongs inside `reactor::run`"))
}

/// What other threads ask of the reactor's.
enum Request {
    Run(Box<dyn FnOnce() + Send>),
    Notify(PortKey),
}

struct Mailbox {
    requests: SegQueue<Request>,
    waker: Waker,
    /// The driver is about to block, or blocks: whoever posts must ring.
    asleep: AtomicBool,
}

static MAILBOX: OnceLock<Mailbox> = OnceLock::new();

fn post(request: Request) {
    let Some(mailbox) = MAILBOX.get() else { return };
    mailbox.requests.push(request);
    // Pairs with the driver's swap: either it sees the request, or we see it asleep.
    std::sync::atomic::fence(Ordering::SeqCst);
    if mailbox.asleep.swap(false, Ordering::SeqCst)
        && let Err(error) = mailbox.waker.wake()
    {
        tracing::error!("could not wake the reactor: {error}");
    }
}

/// Runs `job` on the reactor's thread, between coroutines: it must not suspend. Starts the thread if needed.
pub(crate) fn run_on_reactor(job: Box<dyn FnOnce() + Send>) {
    static START: Once = Once::new();
    START.call_once(|| {
        let poll = Poll::new().expect("the reactor needs an epoll descriptor; raise `ulimit -n`");
        let waker =
            Waker::new(poll.registry(), WAKER).expect("the reactor needs an eventfd; raise `ulimit -n`");
        let mailbox = Mailbox { requests: SegQueue::new(), waker, asleep: AtomicBool::new(false) };
        assert!(MAILBOX.set(mailbox).is_ok(), "the reactor starts once");
        engine::start_driver(move || drive(poll), on_stall);
    });
    post(Request::Run(job));
}

fn drive(poll: Poll) {
    let max_map_count = std::fs::read_to_string("/proc/sys/vm/max_map_count")
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(MAX_MAP_COUNT_DEFAULT);
    // Leaked: it lives as long as the thread, which lives as long as the process.
    let driver: &'static Driver = Box::leak(Box::new(Driver {
        poll: RefCell::new(poll),
        fiber: engine::current(),
        aside: Cell::new(false),
        switch_count: Cell::new(0),
        nested_count: Cell::new(0),
        ready_count: Cell::new(0),
        live_count: Cell::new(0),
        live_count_max: max_map_count.saturating_sub(MAPPINGS_RESERVED) / 2,
        max_map_count,
        timers: RefCell::new(TimerQueue::default()),
        polled_at: Cell::new(now()),
        settled_at: Cell::new(now()),
        settling: Cell::new(None),
        sources: RefCell::new(Slab::new()),
        next_generation: Cell::new(0),
        ports: RefCell::new(Slab::new()),
        spin: Cell::new(Duration::ZERO),
        started_at: now(),
        coarse_now_ns: Cell::new(0),
        last_number: Cell::new(0),
    }));
    DRIVER.with(|slot| assert!(slot.set(driver).is_ok(), "one driver a thread"));
    let mut events = Events::with_capacity(EVENTS_PER_POLL);
    let mailbox = MAILBOX.get().expect("set before the driver started");
    loop {
        driver.serve(mailbox);
        crate::fs::turn();
        driver.settle();
        driver.fire_timers();
        if driver.ready_count.get() == 0 {
            driver.idle(&mut events, mailbox);
            continue;
        }
        driver.aside.set(true);
        engine::park();
        settle_overflow();
        if driver.ready_count.get() > 0 {
            driver.poll(&mut events, Some(Duration::ZERO));
        }
    }
}

impl Driver {
    /// Blocks until an event, a timer or a request; polls for a while first where that was asked for.
    fn idle(&self, events: &mut Events, mailbox: &Mailbox) {
        let spin = self.spin.get();
        if !spin.is_zero() {
            let until = now() + spin;
            loop {
                self.poll(events, Some(Duration::ZERO));
                crate::fs::turn();
                if self.ready_count.get() > 0 || !mailbox.requests.is_empty() {
                    return;
                }
                let now = now();
                let timer_due = self.timers.borrow().next_due().is_some_and(|due| due <= now);
                if timer_due {
                    return;
                }
                if now >= until {
                    break;
                }
            }
        }
        mailbox.asleep.store(true, Ordering::SeqCst);
        if mailbox.requests.is_empty() {
            let due = self.timers.borrow().next_due();
            self.poll(events, due.map(|due| due.saturating_duration_since(now())));
        }
        mailbox.asleep.store(false, Ordering::SeqCst);
    }

    fn poll(&self, events: &mut Events, limit: Option<Duration>) {
        let before = now();
        match self.poll.borrow_mut().poll(events, limit) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return,
            // Nothing can go on without the poller, and no caller could mend it.
            Err(error) => {
                eprintln!("reactor: the poller failed: {error}");
                std::process::abort();
            }
        }
        // With events in hand, more may wait in the kernel that came while we were in it.
        let after = now();
        self.polled_at.set(if events.is_empty() { after } else { before });
        self.coarse_now_ns.set(after.saturating_duration_since(self.started_at).as_nanos() as u64);
        let sources = self.sources.borrow();
        for event in events.iter() {
            if event.token() == WAKER {
                continue;
            }
            let (slot, generation) = split_key(event.token().0);
            if let Some(source) = sources.get(slot)
                && source.generation == generation
            {
                source.readiness.on_event(event);
            }
        }
    }

    /// Moves on the instant up to which timers may fire.
    fn settle(&self) {
        if self.ready_count.get() == 0 {
            self.settled_at.set(self.polled_at.get());
            self.settling.set(None);
            return;
        }
        // Busy: the queue is first in, first out, so whoever is runnable now has run after as many switches.
        match self.settling.get() {
            None => self.settling.set(Some((self.polled_at.get(), self.ready_count.get()))),
            Some((instant, left)) if left <= SWITCHES_PER_POLL as usize => {
                self.settled_at.set(instant);
                self.settling.set(None);
            }
            Some((instant, left)) => self.settling.set(Some((instant, left - SWITCHES_PER_POLL as usize))),
        }
    }

    fn fire_timers(&self) {
        if self.timers.borrow().next_due().is_none() {
            return;
        }
        loop {
            let action = self.timers.borrow_mut().pop_due(self.settled_at.get());
            match action {
                Some(Action::Wake(coroutine)) => coroutine.wake(),
                Some(Action::Cut(coroutine, cut)) => coroutine.cut_to(cut),
                None => return,
            }
        }
    }

    fn serve(&self, mailbox: &Mailbox) {
        while let Some(request) = mailbox.requests.pop() {
            match request {
                Request::Run(job) => job(),
                Request::Notify(PortKey(key)) => {
                    let (slot, generation) = split_key(key);
                    let waiters = match self.ports.borrow().get(slot) {
                        Some(port) if port.generation == generation => port.waiters.clone(),
                        _ => continue,
                    };
                    waiters.notify_all();
                }
            }
        }
    }

    fn generation(&self) -> u32 {
        let generation = self.next_generation.get();
        self.next_generation.set(generation.wrapping_add(1));
        generation
    }
}

/// A place where other threads leave word for coroutines.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PortKey(usize);

pub(crate) fn open_port(waiters: Rc<WaitList>) -> PortKey {
    let driver = driver();
    let generation = driver.generation();
    PortKey(join_key(driver.ports.borrow_mut().insert(Port { waiters, generation }), generation))
}

pub(crate) fn close_port(key: PortKey) {
    driver().ports.borrow_mut().remove(split_key(key.0).0);
}

/// Wakes whoever waits at the port. From any thread.
pub(crate) fn notify_port(key: PortKey) {
    post(Request::Notify(key));
}

/// Registers a descriptor, edge-triggered in both directions.
pub(crate) fn register(fd: BorrowedFd<'_>, readiness: Rc<Readiness>) -> io::Result<Token> {
    let driver = driver();
    let generation = driver.generation();
    let slot = driver.sources.borrow_mut().insert(Source { readiness, generation });
    let token = Token(join_key(slot, generation));
    let interest = Interest::READABLE | Interest::WRITABLE;
    let registered =
        driver.poll.borrow().registry().register(&mut SourceFd(&fd.as_raw_fd()), token, interest);
    if registered.is_err() {
        driver.sources.borrow_mut().remove(slot);
    }
    registered.map(|()| token)
}

pub(crate) fn deregister(fd: BorrowedFd<'_>, token: Token) {
    let driver = driver();
    driver.sources.borrow_mut().remove(split_key(token.0).0);
    // Fails only if the kernel forgot the descriptor first, which is what we want.
    let _ = driver.poll.borrow().registry().deregister(&mut SourceFd(&fd.as_raw_fd()));
}

pub(crate) fn arm_timer(due: Instant, action: Action) -> TimerKey {
    driver().timers.borrow_mut().arm(due, action)
}

pub(crate) fn disarm_timer(key: TimerKey) {
    driver().timers.borrow_mut().disarm(key);
}

pub(crate) fn note_ready() {
    let driver = driver();
    driver.ready_count.set(driver.ready_count.get() + 1);
}

pub(crate) fn note_running() {
    let driver = driver();
    driver.ready_count.set(driver.ready_count.get() - 1);
}

/// Called whenever a coroutine is about to suspend or end: calls the driver back when it is its turn.
///
/// Returns the time, which is that of the driver's last look at the poller: the clock itself would cost more than the
/// switch does.
pub(crate) fn on_switch() -> u64 {
    let driver = driver();
    let switches = driver.switch_count.get() + 1;
    // While nested, a parent goes on next.
    let last = driver.ready_count.get() == 0 && driver.nested_count.get() == 0;
    if !last && switches < SWITCHES_PER_POLL {
        driver.switch_count.set(switches);
        return driver.coarse_now_ns.get();
    }
    driver.switch_count.set(0);
    if driver.aside.replace(false) {
        driver.fiber.unpark();
    }
    driver.coarse_now_ns.get()
}

/// The clock of [`on_switch`], read now.
pub(crate) fn now_ns() -> u64 {
    // The real one, also for a simulated caller.
    Instant::now().saturating_duration_since(driver().started_at).as_nanos() as u64
}

/// A number for a coroutine that is about to start.
pub(crate) fn next_number() -> u64 {
    let driver = driver();
    driver.last_number.set(driver.last_number.get() + 1);
    driver.last_number.get()
}

/// The last runnable coroutine is gone without a word: it overflowed its stack.
fn on_stall() {
    settle_overflow();
    let driver = driver();
    driver.switch_count.set(0);
    if driver.aside.replace(false) {
        driver.fiber.unpark();
    }
}

/// Whether the running coroutine was started by another one that goes on when it suspends.
pub(crate) fn is_nested() -> bool {
    driver().nested_count.get() > 0
}

/// Marks, until dropped, that the caller runs a new coroutine nested in itself.
pub(crate) fn enter_nested() -> impl Drop {
    struct Nested;
    impl Drop for Nested {
        fn drop(&mut self) {
            driver().nested_count.set(driver().nested_count.get() - 1);
        }
    }
    driver().nested_count.set(driver().nested_count.get() + 1);
    Nested
}

pub(crate) fn note_finished() {
    let driver = driver();
    driver.live_count.set(driver.live_count.get() - 1);
}

/// Counts a coroutine that is about to start, or refuses it.
pub(crate) fn admit_coroutine() -> Result<(), SpawnError> {
    let driver = driver();
    let running = driver.live_count.get();
    if running >= driver.live_count_max {
        return Err(SpawnError { running, max_map_count: driver.max_map_count });
    }
    driver.live_count.set(running + 1);
    Ok(())
}

/// Makes the reactor poll for events for up to `spin` before it blocks, trading processor time for latency.
///
/// A wake-up across processors costs some tens of microseconds, which a server that is asked again at once
/// need not pay. Zero (the default) never spins; neither does a process confined to one processor, where
/// spinning would only keep its peer from running. Never suspends.
///
/// # Panics
///
/// Outside `run`.
pub fn set_busy_poll(spin: Duration) {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    driver().spin.set(if processors > 1 { spin } else { Duration::ZERO });
}
