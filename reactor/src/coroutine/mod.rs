//! What a coroutine is to the reactor and to its users: its state, and how it suspends and goes on.
//!
//! How it starts is in `spawn`, how it is joined in `handle`, how it is made to unwind in `termination`, what it
//! is called in `name`, what it keeps for itself in `local`, and how its frames are seen in `frames`.
//!
//! Not here: the order in which coroutines run ([`crate::driver`]), how stacks are switched
//! ([`crate::engine`]).

mod budget;
mod frames;
mod handle;
mod local;
mod name;
mod spans;
mod spawn;
mod state;
mod termination;

use std::any::Any;
use std::cell::{Cell, OnceCell};
use std::rc::Rc;
use std::time::Instant;

use crate::engine::{self, Fiber};
use crate::run::Group;
use crate::{clock, driver, sim, watchdog};

pub(crate) use budget::{spend, spend_bytes};

pub use handle::{JoinHandle, Terminated};
pub(crate) use handle::{Outcome, Packet};
pub use local::Local;
use local::Locals;
pub use name::current_name;
pub(crate) use name::{label_of_current, panic_message};
pub(crate) use spawn::Start;
pub use spawn::{Builder, SpawnError, spawn, try_spawn};
pub(crate) use termination::Cut;
pub use termination::{catch_panic, uninterruptible};

/// What a panic carries.
pub(crate) type Payload = Box<dyn Any + Send>;

/// What a coroutine waits for, as a dump shows it: "a channel's value". A thin reference, since each wait stores it.
pub(crate) type What = &'static &'static str;

/// The coroutine's own state; one `Rc` of it for everyone who may wake or terminate it.
pub(crate) struct Coroutine {
    fiber: Fiber,
    /// Made runnable and not yet resumed.
    scheduled: Cell<bool>,
    finished: Cell<bool>,
    /// Its code has been made to unwind to `cut`: seeing that again tells that somebody caught the unwinding.
    cut_raised: Cell<bool>,
    /// The outermost frame that it shall unwind to, of those that no shield holds back.
    cut: Cell<Option<Cut>>,
    /// The innermost shield that it is in: cuts to frames outside of it are held back.
    shield: Cell<Option<Cut>>,
    group: Rc<Group>,
    /// Its place in the group's list.
    pub(crate) slot: Cell<usize>,
    /// When those stop waiting for whom it works: no call made on their behalf need take longer.
    pub(crate) deadline: Cell<Option<Instant>>,
    /// Its parent waits for it: it is a scope's child.
    is_scoped: bool,
    /// Names it, in this reactor: from 1.
    number: u64,
    /// Its parent's number; 0 for none.
    parent: u64,
    /// Why it must not suspend now, if it must not.
    forbids: Cell<Option<&'static str>>,
    /// What it waits for while it is suspended.
    waits_for: Cell<Option<What>>,
    /// Whether its code can be looked at.
    posture: Cell<frames::Posture>,
    /// When it suspended, in nanoseconds by its group's coarse clock.
    suspended_at_ns: Cell<u64>,
    rare: OnceCell<Box<Rare>>,
}

/// What few coroutines have, apart so that the others need no room for it.
#[derive(Default)]
struct Rare {
    locals: Locals,
    /// How often its code caught its unwinding and went on.
    swallowed_count: Cell<u32>,
    /// How often its code caught the unwinding to the present cut.
    raised_count: Cell<u32>,
    held: termination::Held,
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
            None => driver::push(self.clone()),
            Some(process) => process.world().on_wake(self),
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

    /// Lets it go on until it suspends or ends, nested in the caller: the driver, or the pump of its simulation. It is its
    /// turn.
    ///
    /// It is not running already, which nobody who calls this can bring about: whoever runs is in no queue.
    pub(crate) fn resume(self: &Rc<Self>) {
        let outer_budget = budget::refill();
        self.go_on();
        budget::restore(outer_budget);
    }

    /// The same within the turn of whoever runs: its parent, if it is new.
    #[inline(always)]
    fn go_on(self: &Rc<Self>) {
        self.scheduled.set(false);
        let outer = CURRENT.replace(Some(self.clone()));
        watchdog::on_enter(self.number);
        enter_world(self.group.process());
        self.fiber.resume();
        watchdog::on_leave(outer.as_ref().map_or(0, |outer| outer.number));
        enter_world(outer.as_ref().and_then(|outer| outer.group.process()));
        // Dropped when it is no longer in its place: it may be the last of an ended coroutine.
        let left = CURRENT.replace(outer);
        drop(left);
    }
}

/// Shows the code that runs now the time of the world that it is in.
fn enter_world(process: Option<&Rc<sim::Process>>) {
    match process {
        Some(process) => process.world().on_enter(),
        None if clock::is_virtual() => sim::leave(),
        None => {}
    }
}

/// A panic while the thread unwinds already ends the process, with this message.
#[cold]
fn refuse_in_unwinding(what: What) -> ! {
    let me = with_current(|me| me.map(Coroutine::label_and_place)).unwrap_or_default();
    panic!(
        "a destructor of the coroutine {me} would suspend while it unwinds, and wait for {what}: nobody could run \
         meanwhile, so it may only try (`try_lock`, `try_acquire`), or leave the rest to another coroutine"
    );
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
    if !may_suspend() {
        refuse_in_unwinding(what);
    }
    let me = current();
    me.check_cut();
    me.check_allowed(what);
    me.waits_for.set(Some(what));
    me.suspend();
    me.check_cut();
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
    let me = current();
    me.check_cut();
    me.check_allowed(&"its next turn");
    me.let_others_run();
    me.check_cut();
}

impl Coroutine {
    /// Forbids it to suspend, or allows it; what was before.
    pub(crate) fn forbid(&self, why: Option<&'static str>) -> Option<&'static str> {
        self.forbids.replace(why)
    }

    fn check_allowed(&self, what: What) {
        if let Some(why) = self.forbids.get() {
            panic!("this would suspend while {why}: it waits for {what}");
        }
    }

    /// Suspends it, which runs, until all who are runnable now have had their turn.
    fn let_others_run(self: &Rc<Self>) {
        if self.scheduled.get() {
            // It has been woken and is in the queue already, before some of them.
            self.suspend();
        }
        self.wake();
        self.suspend();
    }

    /// Suspends it, which runs.
    fn suspend(&self) {
        let spans = if spans::are_possible() { spans::leave() } else { None };
        self.suspended_at_ns.set(match self.group.process() {
            None => driver::on_switch(),
            Some(process) => process.world().elapsed().as_nanos() as u64,
        });
        self.posture.set(frames::Posture::Suspended);
        engine::suspend();
        while self.posture.get() == frames::Posture::Asked {
            self.coroutine_tells_its_frames_when_asked();
            engine::suspend();
        }
        self.posture.set(frames::Posture::Active);
        self.waits_for.set(None);
        spans::enter(spans);
    }
}
