//! `run`: the door from an ordinary thread into the reactor, and what belongs to one such call.

#![allow(unsafe_code)]

use std::cell::{Cell, OnceCell};
use std::panic::{AssertUnwindSafe, Location, catch_unwind, resume_unwind};
use std::rc::{Rc, Weak};
use std::time::Duration;

use slab::Slab;

use crate::cell::RefCell;
use crate::coroutine::{self, Builder, Coroutine, Outcome, Payload, Start};
use crate::dump::CoroutineState;
use crate::engine::{self, AbortOnUnwind};
use crate::handle::Handle;
use crate::sync::WaitList;
use crate::{driver, sim};

/// Stack of the coroutine that runs `main`: whole programs live on it, parsing arguments and all.
const MAIN_STACK_SIZE_BYTES: usize = 2 * 1024 * 1024;

/// How long the end of a run may take before it is told who keeps it up; then ten times as long, and so on.
const TOLD_AFTER: Duration = Duration::from_secs(5);

/// So many of them are named.
const TOLD_MAX: usize = 20;

/// The coroutines of one [`run`]: they end with it, and fail with it.
pub(crate) struct Group {
    members: RefCell<Slab<Rc<Coroutine>>>,
    failure: RefCell<Option<Payload>>,
    main_ended: Cell<bool>,
    on_end: WaitList,
    /// The simulated process that it is, if it is one.
    process: Option<Rc<sim::Process>>,
    /// The state of `choose`.
    choices: Cell<u64>,
    /// The dispatcher of what other threads submit, once somebody has asked for a handle.
    handle: OnceCell<Handle>,
}

thread_local! {
    /// All groups, for dumps.
    static GROUPS: RefCell<Vec<Weak<Group>>> = const { RefCell::new(Vec::new()) };
}

/// All coroutines of the thread's reactor, in no order.
pub(crate) fn all_coroutines() -> Vec<Rc<Coroutine>> {
    let groups: Vec<_> = GROUPS.with(|groups| groups.borrow().iter().filter_map(Weak::upgrade).collect());
    groups.iter().flat_map(|group| group.members()).collect()
}

impl Group {
    fn new(process: Option<Rc<sim::Process>>) -> Rc<Group> {
        let group = Rc::new(Group {
            members: RefCell::new(Slab::new()),
            failure: RefCell::new(None),
            main_ended: Cell::new(false),
            on_end: WaitList::new(),
            process,
            choices: Cell::new(0),
            handle: OnceCell::new(),
        });
        GROUPS.with(|groups| {
            let mut groups = groups.borrow_mut();
            groups.retain(|group| group.strong_count() > 0);
            groups.push(Rc::downgrade(&group));
        });
        group
    }

    /// One of `count` ways, each as likely: the same sequence in each run.
    pub(crate) fn choose(&self, count: usize) -> usize {
        if let Some(process) = &self.process {
            return process.world().choose_ready(count);
        }
        // Knuth's MMIX generator; its high bits are the good ones.
        let next = self
            .choices
            .get()
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        self.choices.set(next);
        (next >> 33) as usize % count
    }

    /// The way in for other threads; made by `make` at the first call.
    pub(crate) fn handle(&self, make: impl FnOnce() -> Handle) -> Handle {
        self.handle.get_or_init(make).clone()
    }

    pub(crate) fn members(&self) -> Vec<Rc<Coroutine>> {
        self.members.borrow().iter().map(|(_, member)| member.clone()).collect()
    }

    /// What the clock that coroutines take their suspensions' times from shows now, in nanoseconds.
    pub(crate) fn coarse_now_ns(&self) -> u64 {
        match &self.process {
            None => driver::now_ns(),
            Some(process) => process.world().elapsed().as_nanos() as u64,
        }
    }

    /// The coroutines of a simulated process.
    pub(crate) fn simulated(process: Rc<sim::Process>) -> Rc<Group> {
        Group::new(Some(process))
    }

    pub(crate) fn process(&self) -> Option<&Rc<sim::Process>> {
        self.process.as_ref()
    }

    pub(crate) fn len(&self) -> usize {
        self.members.borrow().len()
    }

    /// Its coroutines' names, each with what it waits for.
    pub(crate) fn labels(&self) -> Vec<String> {
        let label = |member: &Rc<Coroutine>| match member.state() {
            CoroutineState::Waiting { what, .. } => format!("{} (waits for {what})", member.label()),
            _ => member.label(),
        };
        self.members.borrow().iter().map(|(_, member)| label(member)).collect()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(crate) fn on_start(&self, coroutine: &Rc<Coroutine>) {
        coroutine.slot.set(self.members.borrow_mut().insert(coroutine.clone()));
        if self.main_ended.get() {
            // Started by another's destructor while the run ends.
            coroutine.terminate();
        }
    }

    pub(crate) fn on_finish(&self, coroutine: &Coroutine) {
        let removed = self.members.borrow_mut().remove(coroutine.slot.get());
        drop(removed);
        if self.main_ended.get() {
            self.on_end.notify_all();
        }
    }

    /// A panic that nobody can join any more: ends the run. The first one wins.
    pub(crate) fn fail(&self, payload: Payload) {
        if let Some(process) = &self.process {
            process.world().fail(payload);
            return;
        }
        let mut failure = self.failure.borrow_mut();
        if failure.is_some() {
            tracing::error!(
                coroutine = coroutine::label_of_current(),
                "it panicked while the run was ending with an earlier panic: {}",
                coroutine::panic_message(&payload)
            );
            return;
        }
        *failure = Some(payload);
        drop(failure);
        self.terminate_all();
    }

    fn terminate_all(&self) {
        for member in self.members() {
            member.terminate();
        }
    }

    /// Terminates everyone, and whoever may yet start.
    pub(crate) fn close(&self) {
        self.main_ended.set(true);
        self.terminate_all();
    }

    /// Suspends until everyone has ended, after [`Group::close`] or when the main coroutine has returned.
    pub(crate) fn wait_for_end(&self) {
        while !self.is_empty() {
            self.on_end.wait_on(&"the other coroutines' ends");
        }
    }

    /// Terminates everyone but the caller, and waits until they have ended.
    pub(crate) fn drain(&self) {
        self.main_ended.set(true);
        self.terminate_all();
        // They may borrow from what is above.
        let bomb = AbortOnUnwind("the wait for a run's coroutines");
        coroutine::in_any_case(|| coroutine::uninterruptible(|| self.wait_for_others()));
        bomb.disarm();
    }

    fn wait_for_others(&self) {
        let mut patience = TOLD_AFTER;
        while self.members.borrow().len() > 1 {
            let waited = crate::timeout(patience, || {
                while self.members.borrow().len() > 1 {
                    self.on_end.wait_on(&"the other coroutines' ends");
                }
            });
            if waited.is_err() {
                self.tell_who_stays(patience);
                patience *= 10;
            }
        }
    }

    /// Says who keeps the run from its end, which the caller waits for.
    fn tell_who_stays(&self, waited: Duration) {
        let mut others = self.labels();
        let own = coroutine::label_of_current();
        others.retain(|label| *label != own);
        let count = others.len();
        others.truncate(TOLD_MAX);
        tracing::warn!(
            "the run can't end: for {waited:?} and more {count} coroutines have not unwound since they were terminated: {}",
            others.join(", ")
        );
    }
}

/// Runs `main` as a coroutine, and whatever it spawns, until `main` returns; blocks the calling thread.
///
/// All of it runs on the calling thread, which is a reactor meanwhile. What is still running when `main` returns is
/// terminated, and has unwound by the time `run` returns; where that takes long, because one refuses to end, a warning in the
/// log says who. Several threads may each run a reactor of their own: these
/// share nothing, and reach each other by a [`Handle`] or a [`remote`](crate::remote) channel.
///
/// # Panics
///
/// With `main`'s panic, or with that of a coroutine that nobody joins. When called from a coroutine, or while the
/// thread unwinds. When the process is out of descriptors, or of memory for `main`'s stack.
///
/// # Examples
///
/// ```
/// assert_eq!(reactor::run(|| "hello"), "hello");
/// ```
#[track_caller]
pub fn run<T: Send>(main: impl FnOnce() -> T + Send) -> T {
    assert!(!driver::is_here(), "`reactor::run` was called from inside itself: call `spawn`");
    assert!(coroutine::may_suspend(), "`reactor::run` was called by a destructor while its thread unwinds");
    let called_at = Location::caller();
    let mut result = None;
    let slot = &mut result;
    engine::host(Box::new(move || *slot = Some(run_here(main, called_at))));
    match result.expect("the engine calls what it hosts") {
        Ok(value) => value,
        Err(payload) => resume_unwind(payload),
    }
}

fn run_here<T>(main: impl FnOnce() -> T, called_at: &'static Location<'static>) -> Result<T, Payload> {
    let builder = Builder::new().name("main").stack_size_bytes(MAIN_STACK_SIZE_BYTES);
    let (run, prepared) = match (driver::enter(), builder.prepare(called_at)) {
        (Ok(run), Ok(prepared)) => (run, prepared),
        (Err(error), _) => panic!("a reactor needs two descriptors ({error}): raise `ulimit -n`"),
        (_, Err(error)) => panic!("{error}"),
    };
    let group = Group::new(None);
    let outcome = Rc::new(Cell::new(None));
    let (of_main, result) = (group.clone(), outcome.clone());
    let body: Box<dyn FnOnce() + '_> = Box::new(move || {
        let outcome = catch_unwind(AssertUnwindSafe(main));
        of_main.drain();
        result.set(Some(match of_main.failure.take() {
            Some(payload) => Err(payload),
            None => outcome,
        }));
    });
    // SAFETY: what `body` borrows is alive until this function returns, and it does not before `body` has returned:
    // below, it drives until the coroutine has ended, which comes after, and a panic on the way ends the process. All
    // other coroutines, which may borrow from `main`'s frames, have ended by then (`Group::drain`).
    let body = unsafe { engine::erase_lifetime(body) };
    let bomb = AbortOnUnwind("`reactor::run`");
    let main = prepared.start(Start { group, is_scoped: false, deadline: None }, body, |_: Outcome<()>| ());
    run.drive(|| main.is_finished());
    bomb.disarm();
    outcome.take().expect("`main` has ended, and left its result")
}
