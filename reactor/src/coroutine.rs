//! What a coroutine is to the reactor and to its users: a result to join, a wish to end it, a place to wait.
//!
//! Termination and timeouts are one mechanism. Each leaves a note on the coroutine and wakes it; the blocking
//! call it sits in (or enters next) then unwinds with a private payload, so that destructors run and no panic
//! message is printed. A [`Cut`] names the frame that catches the payload: a `timeout`, a `scope`, or the
//! coroutine's own bottom.
//!
//! Not here: the order in which coroutines run ([`crate::driver`]), how stacks are switched
//! ([`crate::engine`]).

use std::any::Any;
use std::cell::{Cell, OnceCell, RefCell};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;

use crate::driver;
use crate::engine::{self, Fiber};
use crate::run::Group;
use crate::sync::WaitList;

/// What a panic carries.
pub(crate) type Payload = Box<dyn Any + Send>;

/// Names the frame that an unwinding coroutine unwinds to. Inner frames have greater numbers.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Cut(u64);

impl Cut {
    /// The bottom of the coroutine: termination. Less than any frame's, so it wins over all of them.
    const BOTTOM: Cut = Cut(0);

    /// A number for a frame that is about to be entered.
    pub(crate) fn new() -> Cut {
        thread_local! { static NEXT: Cell<u64> = const { Cell::new(1) }; }
        let number = NEXT.get();
        NEXT.set(number + 1);
        Cut(number)
    }
}

/// A coroutine's place in a wait list. Here and not allocated for each wait: it is in one list at a time.
#[derive(Default)]
pub(crate) struct Wait {
    pub(crate) notified: Cell<bool>,
    pub(crate) need: Cell<usize>,
}

/// What becomes of a coroutine's end.
pub(crate) trait Ending {
    /// Its stack overflowed, so it ended without unwinding.
    fn on_overflow(&self, payload: Payload);
}

/// The coroutine's own state; one `Rc` of it for everyone who may wake or terminate it.
pub(crate) struct Coroutine {
    fiber: OnceCell<Fiber>,
    /// Made runnable and not yet resumed: counted by the driver.
    scheduled: Cell<bool>,
    finished: Cell<bool>,
    cut: Cell<Option<Cut>>,
    uninterruptible_depth: Cell<u32>,
    group: Rc<Group>,
    /// Its place in the group's list.
    pub(crate) slot: Cell<usize>,
    /// The list it waits in, if any: see [`crate::sync::WaitList`], whose fields these are.
    pub(crate) wait: Wait,
    /// Scopes that it is in: their children may borrow from its stack.
    pub(crate) open_scopes: Cell<u32>,
    /// Whom to tell if its stack overflows: its own code no longer can.
    ending: RefCell<Option<Rc<dyn Ending>>>,
}

thread_local! {
    /// The coroutine whose code runs, or `None` while the driver or nobody does.
    static CURRENT: RefCell<Option<Rc<Coroutine>>> = const { RefCell::new(None) };
}

/// The running coroutine.
///
/// # Panics
///
/// Outside `reactor::run`.
pub(crate) fn current() -> Rc<Coroutine> {
    CURRENT.with_borrow(|current| {
        current.clone().expect("this call suspends, so it needs a coroutine: call it inside `reactor::run`")
    })
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
    pub(crate) fn wake(&self) {
        if self.finished.get() || self.scheduled.replace(true) {
            return;
        }
        driver::note_ready();
        if let Some(fiber) = self.fiber.get() {
            fiber.unpark();
        }
    }

    /// Leaves a note that unwinds it to `cut` at its current or next blocking call.
    pub(crate) fn cut_to(&self, cut: Cut) {
        if self.finished.get() {
            return;
        }
        if self.cut.get().is_none_or(|pending| cut < pending) {
            self.cut.set(Some(cut));
        }
        self.wake();
    }

    /// Withdraws the note for `cut`, when the frame it names is left another way.
    pub(crate) fn withdraw_cut(&self, cut: Cut) {
        if self.cut.get() == Some(cut) {
            self.cut.set(None);
        }
    }

    pub(crate) fn terminate(&self) {
        self.cut_to(Cut::BOTTOM);
    }

    pub(crate) fn is_finished(&self) -> bool {
        self.finished.get()
    }

    pub(crate) fn group(&self) -> &Rc<Group> {
        &self.group
    }

    fn check_cut(&self) {
        if let Some(cut) = self.cut.get()
            && self.uninterruptible_depth.get() == 0
        {
            resume_unwind(Box::new(cut));
        }
    }
}

/// Suspends the running coroutine until somebody wakes it. Returns early at times: call it in a loop.
///
/// # Panics
///
/// Unwinds if the coroutine has been terminated or a timeout around it has elapsed.
pub(crate) fn park() {
    let me = current();
    me.check_cut();
    assert!(may_suspend(), "a destructor may not suspend while its coroutine unwinds");
    leave();
    engine::park();
    enter(&me);
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
    let me = current();
    if !may_suspend() {
        return;
    }
    me.check_cut();
    // Counted as runnable, or the driver would block in the poller. A wake-up that came before is counted
    // already; it also makes the next park return at once, which every wait allows for.
    if !me.scheduled.replace(true) {
        driver::note_ready();
    }
    leave();
    engine::yield_now();
    enter(&me);
    me.check_cut();
}

/// Runs `f` with termination and timeouts held back until it returns.
///
/// Blocking calls inside `f` suspend as usual; a termination that arrives meanwhile unwinds the first blocking
/// call after `f`.
///
/// # Examples
///
/// ```
/// reactor::run(|| {
///     let saved = reactor::uninterruptible(|| {
///         reactor::yield_now(); // not even a termination interrupts this
///         7
///     });
///     assert_eq!(saved, 7);
/// });
/// ```
pub fn uninterruptible<T>(f: impl FnOnce() -> T) -> T {
    struct Leave(Rc<Coroutine>);
    impl Drop for Leave {
        fn drop(&mut self) {
            self.0.uninterruptible_depth.set(self.0.uninterruptible_depth.get() - 1);
        }
    }
    let me = current();
    me.uninterruptible_depth.set(me.uninterruptible_depth.get() + 1);
    let _leave = Leave(me);
    f()
}

/// Marks the switch: whoever runs next would take a coroutine still named here for an overflowed one.
fn leave() {
    CURRENT.set(None);
    driver::on_switch();
}

fn enter(me: &Rc<Coroutine>) {
    settle_overflow();
    if me.scheduled.replace(false) {
        driver::note_running();
    }
    CURRENT.set(Some(me.clone()));
}

/// Ends the coroutine that ran before if it overflowed its stack: it then neither suspended nor finished.
pub(crate) fn settle_overflow() {
    let Some(lost) = CURRENT.take() else { return };
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
    if lost.scheduled.replace(false) {
        driver::note_running();
    }
    lost.group.on_finish(&lost);
    driver::note_finished();
    if let Some(ending) = ending {
        ending.on_overflow(Box::new("a coroutine overflowed its stack".to_owned()));
    }
}

/// How a coroutine ended.
pub(crate) enum Outcome<T> {
    Returned(T),
    Terminated,
    Panicked(Payload),
}

/// Spawning was refused: the process is near the kernel's limit of memory mappings.
#[derive(Debug, thiserror::Error)]
#[error(
    "{running} coroutines run already and each takes two memory mappings; raise `sysctl vm.max_map_count` \
     (now {max_map_count}) to run more"
)]
#[non_exhaustive]
pub struct SpawnError {
    /// Coroutines that exist now.
    pub running: usize,
    /// The kernel's `vm.max_map_count`.
    pub max_map_count: usize,
}

/// Starts a coroutine whose body never unwinds past `done`. Runs it at once until it first suspends.
pub(crate) fn start<T: 'static>(
    stack_size_bytes: Option<usize>,
    group: Rc<Group>,
    ending: Rc<dyn Ending>,
    body: impl FnOnce() -> T + 'static,
    done: impl FnOnce(Outcome<T>) + 'static,
) -> Result<Rc<Coroutine>, SpawnError> {
    driver::admit_coroutine()?;
    let child = Rc::new(Coroutine {
        fiber: OnceCell::new(),
        scheduled: Cell::new(false),
        finished: Cell::new(false),
        cut: Cell::new(None),
        uninterruptible_depth: Cell::new(0),
        group,
        slot: Cell::new(0),
        wait: Wait::default(),
        open_scopes: Cell::new(0),
        ending: RefCell::new(Some(ending)),
    });
    child.group.on_start(&child);

    let parent = CURRENT.take();
    let nested = driver::enter_nested();
    let me = child.clone();
    engine::launch(stack_size_bytes, move || {
        let _ = me.fiber.set(engine::current());
        CURRENT.set(Some(me.clone()));
        let outcome = match catch_unwind(AssertUnwindSafe(body)) {
            Ok(value) => Outcome::Returned(value),
            Err(payload) => match payload.downcast::<Cut>() {
                Ok(_) => Outcome::Terminated,
                Err(payload) => Outcome::Panicked(payload),
            },
        };
        // First the result, which may be dropped here and whose destructor may suspend; then the end.
        done(outcome);
        me.finished.set(true);
        if me.scheduled.replace(false) {
            driver::note_running();
        }
        me.ending.take();
        me.group.on_finish(&me);
        driver::note_finished();
        leave();
    });
    // Back from the child's first suspension, its end, or its overflow.
    settle_overflow();
    drop(nested);
    CURRENT.set(parent);
    Ok(child)
}

/// The coroutine was terminated before it returned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the coroutine was terminated")]
pub struct Terminated;

/// Where a coroutine leaves its result.
pub(crate) struct Packet<T> {
    outcome: RefCell<Option<Outcome<T>>>,
    joiners: WaitList,
    group: Rc<Group>,
    detached: Cell<bool>,
}

impl<T> Packet<T> {
    pub(crate) fn new(group: Rc<Group>) -> Rc<Self> {
        Rc::new(Packet {
            outcome: RefCell::new(None),
            joiners: WaitList::new(),
            group,
            detached: Cell::new(false),
        })
    }

    /// Gives the outcome to whoever may join, or, where nobody can any more, ends the run if it is a panic.
    fn settle(&self, outcome: Outcome<T>) {
        match outcome {
            Outcome::Panicked(payload) if self.detached.get() => self.group.fail(payload),
            // Dropped here and now, while the coroutine still counts as running.
            outcome if self.detached.get() => drop(outcome),
            outcome => self.fill(outcome),
        }
    }

    pub(crate) fn fill(&self, outcome: Outcome<T>) {
        *self.outcome.borrow_mut() = Some(outcome);
        self.joiners.notify_all();
    }

    /// Waits for the outcome and takes it.
    pub(crate) fn take(&self) -> Outcome<T> {
        loop {
            if let Some(outcome) = self.outcome.take() {
                return outcome;
            }
            self.joiners.wait();
        }
    }
}

impl<T> Ending for Packet<T> {
    fn on_overflow(&self, payload: Payload) {
        self.settle(Outcome::Panicked(payload));
    }
}

/// A coroutine's handle: join it, terminate it, or drop the handle to let it run on its own.
///
/// A panic in a coroutine goes to whoever joins it. If nobody can any more (the handle was dropped), it ends
/// the whole [`crate::run`] with that panic: nothing fails silently.
pub struct JoinHandle<T> {
    coroutine: Rc<Coroutine>,
    packet: Rc<Packet<T>>,
}

impl<T> JoinHandle<T> {
    /// Waits for the coroutine's end and returns its result.
    ///
    /// # Errors
    ///
    /// [`Terminated`] if it was terminated.
    ///
    /// # Panics
    ///
    /// With the coroutine's own panic.
    ///
    /// # Suspends
    ///
    /// Until the coroutine ends.
    pub fn join(self) -> Result<T, Terminated> {
        match self.packet.take() {
            Outcome::Returned(value) => Ok(value),
            Outcome::Terminated => Err(Terminated),
            Outcome::Panicked(payload) => resume_unwind(payload),
        }
    }

    /// Makes the coroutine's current or next blocking call unwind; its destructors run.
    ///
    /// Never suspends: join the coroutine to wait for its end. A coroutine may terminate itself.
    pub fn terminate(&self) {
        self.coroutine.terminate();
    }

    /// Whether the coroutine has ended.
    pub fn is_finished(&self) -> bool {
        self.coroutine.is_finished()
    }
}

impl<T> Drop for JoinHandle<T> {
    fn drop(&mut self) {
        self.packet.detached.set(true);
        let unseen = self.packet.outcome.try_borrow_mut().ok().and_then(|mut outcome| outcome.take());
        if let Some(Outcome::Panicked(payload)) = unseen {
            self.packet.group.fail(payload);
        }
    }
}

impl<T> fmt::Debug for JoinHandle<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinHandle").field("finished", &self.is_finished()).finish()
    }
}

/// Starts a coroutine, which runs at once until it first suspends.
///
/// It ends with the enclosing [`crate::run`] at the latest. To let it borrow, see [`crate::scope`].
///
/// # Panics
///
/// Outside `run`, or where [`Builder::spawn`] fails.
///
/// # Examples
///
/// ```
/// let sum = reactor::run(|| {
///     let left = reactor::spawn(|| 20);
///     let right = reactor::spawn(|| 22);
///     left.join().unwrap() + right.join().unwrap()
/// });
/// assert_eq!(sum, 42);
/// ```
pub fn spawn<T: 'static>(f: impl FnOnce() -> T + 'static) -> JoinHandle<T> {
    match Builder::new().spawn(f) {
        Ok(handle) => handle,
        Err(error) => panic!("{error}"),
    }
}

/// Sets a coroutine up before it starts.
#[derive(Debug, Default, Clone)]
pub struct Builder {
    stack_size_bytes: Option<usize>,
}

impl Builder {
    /// The defaults: 128 KiB of stack, of which only touched pages take memory.
    pub fn new() -> Builder {
        Builder::default()
    }

    /// Gives the coroutine a stack of this size; it is not pooled, so it costs an `mmap` at each spawn.
    pub fn stack_size_bytes(mut self, size: usize) -> Builder {
        self.stack_size_bytes = Some(size);
        self
    }

    /// Starts the coroutine.
    ///
    /// # Errors
    ///
    /// [`SpawnError`] near the kernel's limit of memory mappings: some 30,000 coroutines by default.
    ///
    /// # Panics
    ///
    /// Outside `run`.
    pub fn spawn<T: 'static>(self, f: impl FnOnce() -> T + 'static) -> Result<JoinHandle<T>, SpawnError> {
        let group = current().group().clone();
        let packet = Packet::new(group.clone());
        let ended = packet.clone();
        let coroutine =
            start(self.stack_size_bytes, group, packet.clone(), f, move |outcome| ended.settle(outcome))?;
        Ok(JoinHandle { coroutine, packet })
    }
}
