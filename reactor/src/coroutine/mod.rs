//! What a coroutine is to the reactor and to its users: its state, and how it suspends and goes on.
//!
//! How it starts is in `spawn`, how it is joined in `handle`, how it is made to unwind in `termination` (anywhere, for tests,
//! in `break_off`), what it is called in `name`, what it keeps for itself in `local`, why it must not suspend in `forbids`, and
//! how its frames are seen in `frames`.
//!
//! Not here: the order in which coroutines run ([`crate::driver`]), how stacks are switched
//! ([`crate::engine`]).

mod break_off;
mod budget;
mod call;
#[allow(clippy::disallowed_types, reason = "below `crate::cell`")]
mod forbids;
mod frames;
mod handle;
mod local;
mod name;
mod spans;
mod spawn;
mod state;
mod termination;
#[expect(clippy::disallowed_types, reason = "below `crate::cell`")]
mod turns;

use std::any::Any;
use std::cell::{Cell, OnceCell};
use std::rc::Rc;
use std::time::Instant;

use crate::engine::{self, Fiber};
use crate::run::Group;
use crate::{clock, sim, watchdog};

pub use break_off::break_off_at;
pub(crate) use budget::spend_bytes;
pub(crate) use call::{begin, pass};
#[cfg(debug_assertions)]
pub(crate) use forbids::Borrow;
use forbids::Forbids;
pub(crate) use forbids::in_any_case;
pub(crate) use turns::{Turns, with as with_turns};

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
    /// Its body has ended, or never begins: what runs yet are destructors, of its captures or of its result. As in those that
    /// run while it unwinds, what need not wait goes through.
    has_no_body: Cell<bool>,
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
    forbids: Forbids,
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
    countdown: break_off::Countdown,
}

const NO_COROUTINE: &str = "this call suspends, so it needs a coroutine: call it inside `reactor::run`";

/// The running coroutine.
///
/// # Panics
///
/// Outside `reactor::run`.
#[inline]
pub(crate) fn current() -> Rc<Coroutine> {
    turns::with(Turns::current).expect(NO_COROUTINE)
}

/// Whether the caller is a coroutine.
#[cfg(feature = "tls")]
pub(crate) fn is_inside() -> bool {
    with_current(|me| me.is_some())
}

/// Shows `look` the running coroutine, if one runs. `look` must not suspend nor unwind.
fn with_current<R>(look: impl FnOnce(Option<&Coroutine>) -> R) -> R {
    turns::with(|turns| turns.with_current(look))
}

/// Whether the caller may suspend: it is a coroutine, and it is not unwinding.
///
/// `std::thread::panicking` is per thread, so a coroutine that were suspended in mid-unwind would make every
/// other one look as if it were unwinding.
#[inline]
pub(crate) fn may_suspend() -> bool {
    !std::thread::panicking()
}

impl Coroutine {
    /// Makes it runnable. It may wake before its wait is over: every wait is a loop.
    pub(crate) fn wake(self: &Rc<Self>) {
        turns::with(|turns| self.wake_in(turns));
    }

    #[inline(always)]
    fn wake_in(self: &Rc<Self>, turns: &Turns) {
        if self.finished.get() || self.scheduled.replace(true) {
            return;
        }
        match self.group.process() {
            None => turns.push(self.clone()),
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
    #[inline(always)]
    pub(crate) fn resume(self: &Rc<Self>, turns: &Turns) {
        let outer_budget = turns.budget.replace(budget::BUDGET);
        self.go_on(turns);
        turns.budget.set(outer_budget);
    }

    /// The same within the turn of whoever runs: its parent, if it is new.
    #[inline(always)]
    fn go_on(self: &Rc<Self>, turns: &Turns) {
        self.scheduled.set(false);
        let outer = turns.replace_current(Some(self.clone()));
        let (world, outer_world) =
            (self.group.process(), outer.as_ref().and_then(|outer| outer.group.process()));
        let is_simulated = world.is_some() || outer_world.is_some();
        if turns.is_watched() {
            watchdog::on_enter(self.number);
        }
        if is_simulated {
            enter_world(world);
        }
        self.fiber.resume();
        if is_simulated {
            enter_world(outer_world);
        }
        if turns.is_watched() {
            watchdog::on_leave(outer.as_ref().map_or(0, |outer| outer.number));
        }
        // Dropped when it is no longer in its place: it may be the last of an ended coroutine.
        let left = turns.replace_current(outer);
        drop(left);
    }
}

/// Shows the code that runs now the time of the world that it is in.
#[cold]
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
    let me = name::label_and_place_of_current();
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
#[inline(always)]
pub(crate) fn park_on(what: What) {
    let suspension = Suspension::to_wait_for(what);
    engine::suspend();
    suspension.over();
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
#[inline(always)]
pub fn yield_now() {
    if let Some(suspension) = Suspension::to_yield() {
        engine::suspend();
        suspension.over();
    }
}

/// A suspension of the running coroutine: made just before, and ended just after.
///
/// In two calls, with nothing but the switch between them, so that the switch can be inlined into whoever waits: see
/// [`engine::suspend`].
struct Suspension {
    me: Rc<Coroutine>,
    /// The spans that it has left meanwhile.
    spans: spans::Left,
}

impl Suspension {
    #[inline(never)]
    fn to_wait_for(what: What) -> Suspension {
        if !may_suspend() {
            refuse_in_unwinding(what);
        }
        turns::with(|turns| {
            let me = turns.current().expect(NO_COROUTINE);
            me.check_cut();
            me.check_may_wait(what);
            me.waits_for.set(Some(what));
            Suspension::begin(turns, me)
        })
    }

    #[inline(never)]
    fn to_yield() -> Option<Suspension> {
        if !may_suspend() {
            return None;
        }
        turns::with(|turns| {
            let me = turns.current().expect(NO_COROUTINE);
            me.check_cut();
            me.check_may_wait(&"its next turn");
            Some(Suspension::to_let_others_run(turns, me))
        })
    }

    #[inline(always)]
    fn to_let_others_run(turns: &Turns, me: Rc<Coroutine>) -> Suspension {
        if me.scheduled.get() {
            // It has been woken and is in the queue already, before some of them.
            me.take_turn();
        }
        me.wake_in(turns);
        Suspension::begin(turns, me)
    }

    #[inline(always)]
    fn begin(turns: &Turns, me: Rc<Coroutine>) -> Suspension {
        let spans = if spans::are_possible() { spans::leave() } else { None };
        me.suspended_at_ns.set(match me.group.process() {
            None => turns.on_switch(),
            Some(process) => process.world().elapsed().as_nanos() as u64,
        });
        me.posture.set(frames::Posture::Suspended);
        Suspension { me, spans }
    }

    /// It goes on, and unwinds if it has been cut.
    #[inline(never)]
    fn over(self) {
        self.end().check_cut();
    }

    /// It goes on.
    #[inline(always)]
    fn end(self) -> Rc<Coroutine> {
        if self.me.posture.get() == frames::Posture::Asked {
            self.me.coroutine_tells_its_frames_when_asked();
        }
        self.me.posture.set(frames::Posture::Active);
        self.me.waits_for.set(None);
        spans::enter(self.spans);
        self.me
    }
}

impl Coroutine {
    /// Suspends it, which runs, until all who are runnable now have had their turn.
    #[cold]
    fn let_others_run(self: &Rc<Self>) {
        let suspension = turns::with(|turns| Suspension::to_let_others_run(turns, self.clone()));
        engine::suspend();
        suspension.end();
    }

    /// Suspends it, which runs, until a timer wakes it that it has armed; somebody else may do so before.
    #[cold]
    fn let_time_pass(self: &Rc<Self>) {
        self.waits_for.set(Some(&"its next turn"));
        let suspension = turns::with(|turns| Suspension::begin(turns, self.clone()));
        engine::suspend();
        suspension.end();
    }

    /// Suspends it, which runs and is in the queue.
    #[cold]
    fn take_turn(self: &Rc<Self>) {
        let suspension = turns::with(|turns| Suspension::begin(turns, self.clone()));
        engine::suspend();
        suspension.end();
    }
}
