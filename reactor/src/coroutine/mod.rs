//! What a coroutine is to the reactor and to its users: its state, and how it suspends and goes on.
//!
//! How it starts is in `spawn`, how it is joined in `handle`, how it is made to unwind in `termination`, what it
//! is called in `name`, and what it keeps for itself in `local`.
//!
//! Not here: the order in which coroutines run ([`crate::driver`]), how stacks are switched
//! ([`crate::engine`]).

mod handle;
mod local;
mod name;
mod spans;
mod spawn;
mod state;
mod termination;

use std::any::Any;
use std::cell::{Cell, OnceCell};
use std::num::NonZeroU32;
use std::panic::Location;
use std::rc::Rc;
use std::time::Instant;

use crate::engine::{self, Fiber};
use crate::run::Group;
use crate::{driver, watchdog};

pub use handle::{JoinHandle, Terminated};
pub(crate) use handle::{Outcome, Packet};
pub use local::Local;
use local::Locals;
pub use name::current_name;
pub(crate) use name::{label_of_current, panic_message};
pub use spawn::{Builder, SpawnError, spawn, try_spawn};
pub(crate) use spawn::{Start, start};
pub(crate) use termination::Cut;
pub use termination::uninterruptible;

/// What a panic carries.
pub(crate) type Payload = Box<dyn Any + Send>;

/// What a coroutine waits for, as a dump shows it: "a channel's value". A thin reference, since each wait stores it.
pub(crate) type What = &'static &'static str;

/// A coroutine's part in the lists it waits in. Here and not allocated for each wait: it waits for one thing at a
/// time, or by `select` for the first of several.
#[derive(Default)]
pub(crate) struct Wait {
    /// The list that told it to go on, by the number that the coroutine knows it by.
    pub(crate) notified: Cell<Option<NonZeroU32>>,
    pub(crate) need: Cell<usize>,
}

/// What becomes of a coroutine's end.
pub(crate) trait Ending {
    /// Its stack overflowed, so it ended without unwinding.
    fn on_overflow(&self, payload: Payload);

    /// Whether its parent waits for it: it is a scope's child.
    fn is_scoped(&self) -> bool {
        false
    }
}

/// The coroutine's own state; one `Rc` of it for everyone who may wake or terminate it.
pub(crate) struct Coroutine {
    fiber: OnceCell<Fiber>,
    /// Made runnable and not yet resumed: counted by the driver.
    scheduled: Cell<bool>,
    finished: Cell<bool>,
    /// Its code has been made to unwind to `cut`: seeing that again tells that somebody caught the unwinding.
    cut_raised: Cell<bool>,
    cut: Cell<Option<Cut>>,
    uninterruptible_depth: Cell<u32>,
    group: Rc<Group>,
    /// Its place in the group's list.
    pub(crate) slot: Cell<usize>,
    /// The list it waits in, if any: see [`crate::sync::WaitList`], whose fields these are.
    pub(crate) wait: Wait,
    /// Scopes that it is in: their children may borrow from its stack.
    pub(crate) open_scopes: Cell<u32>,
    /// When those stop waiting for whom it works: no call made on their behalf need take longer.
    pub(crate) deadline: Cell<Option<Instant>>,
    /// Whom to tell if its stack overflows: its own code no longer can.
    ending: Cell<Option<Rc<dyn Ending>>>,
    spawned_at: &'static Location<'static>,
    /// Names it, in this process: from 1.
    number: u64,
    /// Its parent's number; 0 for none.
    parent: u64,
    /// What it waits for while it is suspended.
    waits_for: Cell<Option<What>>,
    /// When it suspended, in nanoseconds by its group's coarse clock.
    suspended_at_ns: Cell<u64>,
    /// An address in the topmost frame of its stack.
    stack_top: Cell<usize>,
    rare: OnceCell<Box<Rare>>,
}

/// What few coroutines have, apart so that the others need no room for it.
#[derive(Default)]
struct Rare {
    name: OnceCell<Box<str>>,
    locals: Locals,
    /// How often its code caught its unwinding and went on.
    swallowed_count: Cell<u32>,
}

thread_local! {
    /// The coroutine whose code runs, or `None` while the driver or nobody does.
    static CURRENT: Cell<Option<Rc<Coroutine>>> = const { Cell::new(None) };
}

const NO_COROUTINE: &str = "this call suspends, so it needs a coroutine: call it inside `reactor::run`";

/// The running coroutine.
///
/// # Panics
///
/// Outside `reactor::run`.
pub(crate) fn current() -> Rc<Coroutine> {
    let me = CURRENT.take().expect(NO_COROUTINE);
    CURRENT.set(Some(me.clone()));
    me
}

/// Shows `look` the running coroutine, if one runs. `look` must not suspend nor unwind.
fn with_current<R>(look: impl FnOnce(Option<&Coroutine>) -> R) -> R {
    let me = CURRENT.take();
    let result = look(me.as_deref());
    CURRENT.set(me);
    result
}

/// Whether the caller may suspend: it is a coroutine, and it is not unwinding.
///
/// `std::thread::panicking` is per thread, so a coroutine that were suspended in mid-unwind would make every
/// other one look as if it were unwinding.
pub(crate) fn may_suspend() -> bool {
    !std::thread::panicking()
}

impl Coroutine {
    /// Makes it runnable. It may wake before its wait is over: every wait is a loop.
    pub(crate) fn wake(self: &Rc<Self>) {
        if self.finished.get() || self.scheduled.replace(true) {
            return;
        }
        match self.group.process() {
            None => {
                driver::note_ready();
                self.unpark();
            }
            Some(process) => process.world().on_wake(self),
        }
    }

    /// Makes its fiber runnable. For the order of things see [`crate::driver`] and [`crate::sim`].
    pub(crate) fn unpark(&self) {
        if let Some(fiber) = self.fiber.get() {
            fiber.unpark();
        }
    }

    /// It runs and is about to yield. Counted as runnable, or the driver would block in the poller. A wake-up that
    /// came before is counted already; it also makes the next park return at once, which every wait allows for.
    fn count_as_ready(&self) {
        if !self.scheduled.replace(true) {
            driver::note_ready();
        }
    }

    /// It runs, or never will: takes it out of the count of runnable ones.
    fn unschedule(&self) {
        if self.scheduled.replace(false) && self.group.process().is_none() {
            driver::note_running();
        }
    }

    pub(crate) fn is_finished(&self) -> bool {
        self.finished.get()
    }

    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    pub(crate) fn group(&self) -> &Rc<Group> {
        &self.group
    }

    fn rare(&self) -> &Rare {
        self.rare.get_or_init(Box::default)
    }
}

/// Suspends the running coroutine until somebody wakes it; a dump shows that it waits for `what`.
///
/// Returns early at times: call it in a loop.
///
/// # Panics
///
/// Unwinds if the coroutine has been terminated or a timeout around it has elapsed. In a destructor that runs
/// while its coroutine unwinds: whoever may be called there asks [`may_suspend`] first.
pub(crate) fn park_on(what: What) {
    assert!(may_suspend(), "a destructor may not suspend while its coroutine unwinds");
    let me = take_current();
    me.waits_for.set(Some(what));
    suspend(me, engine::park);
    check_cut();
}

/// Lets all other runnable coroutines run before the caller goes on.
///
/// While the caller unwinds this returns at once.
///
/// # Panics
///
/// Outside `reactor::run`.
///
/// # Suspends
///
/// Until the coroutines that are runnable now have had their turn.
pub fn yield_now() {
    if !may_suspend() {
        return;
    }
    let me = take_current();
    if me.group.process().is_some() {
        me.wake();
        suspend(me, engine::park);
    } else {
        me.count_as_ready();
        suspend(me, engine::yield_now);
    }
    check_cut();
}

/// Suspends the coroutine that pumps a simulation while another one runs, which calls it back.
///
/// It counts as runnable meanwhile: the driver must not take the process for idle.
pub(crate) fn step_aside() {
    let me = CURRENT.take().expect(NO_COROUTINE);
    me.count_as_ready();
    suspend(me, engine::park);
}

/// Takes the running coroutine from its place, to suspend it; unwinds instead where it has been cut.
#[inline]
fn take_current() -> Rc<Coroutine> {
    let me = CURRENT.take().expect(NO_COROUTINE);
    if me.cut.get().is_some() {
        // Unwinding is running: it must be in its place.
        CURRENT.set(Some(me.clone()));
        me.check_cut();
        CURRENT.set(None);
    }
    me
}

/// Unwinds the running coroutine if it has been cut.
#[inline]
fn check_cut() {
    let me = CURRENT.take();
    let is_cut = me.as_ref().is_some_and(|me| me.cut.get().is_some());
    CURRENT.set(me);
    if is_cut {
        current().check_cut();
    }
}

/// Suspends `me`, which was running and has been taken from its place, by `switch`.
///
/// Moved, and not counted once more: a switch takes no longer than it must.
#[inline]
fn suspend(mut me: Rc<Coroutine>, switch: fn()) {
    let mut spans = None;
    if spans::are_possible() {
        // A subscriber's code runs here. Were the stack to overflow in it, it must be known whose that was.
        CURRENT.set(Some(me));
        spans = spans::leave();
        me = CURRENT.take().expect(NO_COROUTINE);
    }
    leave(&me);
    switch();
    settle_overflow();
    me.unschedule();
    me.waits_for.set(None);
    go_on(Some(me));
    spans::enter(spans);
}

/// Marks the switch. Whoever runs next would take a coroutine that is still in its place for an overflowed one.
fn leave(me: &Coroutine) {
    watchdog::on_leave();
    match me.group.process() {
        None => me.suspended_at_ns.set(driver::on_switch()),
        Some(process) => {
            me.suspended_at_ns.set(process.world().elapsed().as_nanos() as u64);
            process.world().on_leave(driver::is_nested());
        }
    }
}

/// Marks whose code runs now.
fn go_on(me: Option<Rc<Coroutine>>) {
    if let Some(me) = &me {
        watchdog::on_enter(me.number);
        if let Some(process) = me.group.process() {
            process.world().on_enter();
        }
    }
    CURRENT.set(me);
}

/// Ends the coroutine that ran before if it overflowed its stack: it then neither suspended nor finished.
pub(crate) fn settle_overflow() {
    let Some(lost) = CURRENT.take() else { return };
    drop(spans::leave());
    watchdog::on_leave();
    if lost.finished.replace(true) {
        return;
    }
    if lost.open_scopes.get() > 0 {
        // Its stack goes back to the pool, and children may still use what they borrowed from it.
        eprintln!(
            "reactor: a coroutine overflowed its stack inside a scope; its children can't go on: aborting"
        );
        std::process::abort();
    }
    let ending = lost.ending.take();
    lost.unschedule();
    lost.group.on_finish(&lost);
    watchdog::on_finish(lost.number);
    driver::note_finished();
    if let Some(process) = lost.group.process() {
        process.world().on_leave(driver::is_nested());
    }
    if let Some(ending) = ending {
        ending.on_overflow(Box::new("a coroutine overflowed its stack".to_owned()));
    }
}
