//! `run`: the door from an ordinary thread into the reactor, and what belongs to one such call.

#![allow(unsafe_code)]

use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, Location, catch_unwind, resume_unwind};
use std::rc::Rc;
use std::sync::mpsc;

use slab::Slab;

use crate::coroutine::{self, Builder, Coroutine, Ending, Outcome, Payload, Start};
use crate::sync::WaitList;
use crate::{driver, engine, sim};

/// Stack of the coroutine that runs `main`: whole programs live on it, parsing arguments and all.
const MAIN_STACK_SIZE_BYTES: usize = 2 * 1024 * 1024;

/// The coroutines of one [`run`]: they end with it, and fail with it.
pub(crate) struct Group {
    members: RefCell<Slab<Rc<Coroutine>>>,
    failure: RefCell<Option<Payload>>,
    main_ended: Cell<bool>,
    on_end: WaitList,
    /// The simulated process that it is, if it is one.
    process: Option<Rc<sim::Process>>,
}

impl Group {
    fn new(process: Option<Rc<sim::Process>>) -> Rc<Group> {
        Rc::new(Group {
            members: RefCell::new(Slab::new()),
            failure: RefCell::new(None),
            main_ended: Cell::new(false),
            on_end: WaitList::new(),
            process,
        })
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

    /// The names of its coroutines.
    pub(crate) fn labels(&self) -> Vec<String> {
        self.members.borrow().iter().map(|(_, member)| member.label()).collect()
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
        let members: Vec<_> = self.members.borrow().iter().map(|(_, member)| member.clone()).collect();
        for member in members {
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
            self.on_end.wait();
        }
    }

    /// Terminates everyone but the caller, and waits until they have ended.
    pub(crate) fn drain(&self) {
        self.main_ended.set(true);
        self.terminate_all();
        coroutine::uninterruptible(|| {
            while self.members.borrow().len() > 1 {
                self.on_end.wait();
            }
        });
    }
}

/// Runs `main` as a coroutine, and whatever it spawns, until `main` returns; blocks the calling thread.
///
/// What is still running then is terminated, and has unwound by the time `run` returns. All coroutines of a
/// process share one thread, whichever thread called `run`.
///
/// # Panics
///
/// With `main`'s panic, or with that of a coroutine that nobody joins. When called from a coroutine.
///
/// # Examples
///
/// ```
/// assert_eq!(reactor::run(|| "hello"), "hello");
/// ```
#[track_caller]
pub fn run<T: Send>(main: impl FnOnce() -> T + Send) -> T {
    assert!(!engine::on_reactor_thread(), "`reactor::run` was called from inside itself: call `spawn`");
    let called_at = Location::caller();
    let (result_sender, result) = mpsc::sync_channel::<Result<T, Payload>>(1);
    let body: Box<dyn FnOnce() + Send + '_> = Box::new(move || start_main(main, result_sender, called_at));
    // SAFETY: `body` and all it borrows stay alive: below, this thread blocks until the sender inside `body`
    // has sent or been dropped, and `start_main` does either only when `main` has returned or unwound and every
    // coroutine of its group has ended (`Group::drain`).
    let body = unsafe {
        std::mem::transmute::<Box<dyn FnOnce() + Send + '_>, Box<dyn FnOnce() + Send + 'static>>(body)
    };
    driver::run_on_reactor(body);
    match result.recv() {
        Ok(Ok(value)) => value,
        Ok(Err(payload)) => resume_unwind(payload),
        Err(_) => panic!("the main coroutine could not be started: see the error above"),
    }
}

/// Runs on the driver's coroutine; must not suspend, and does not: `start` returns at the first suspension.
fn start_main<T: Send>(
    main: impl FnOnce() -> T,
    result: mpsc::SyncSender<Result<T, Payload>>,
    called_at: &'static Location<'static>,
) {
    let group = Group::new(None);
    let of_main = group.clone();
    let body: Box<dyn FnOnce()> = Box::new(move || {
        let outcome = catch_unwind(AssertUnwindSafe(main));
        of_main.drain();
        let outcome = match (of_main.failure.take(), outcome) {
            (Some(payload), _) => Err(payload),
            (None, outcome) => outcome,
        };
        // The receiver waits: `run` blocks on it.
        let _ = result.send(outcome);
    });
    // SAFETY: `run` keeps what `main` borrows alive until the result is sent, and `result` is sent last.
    let body = unsafe { engine::erase_lifetime(body) };
    let ending = Rc::new(MainEnding);
    let builder = Builder::new().name("main").stack_size_bytes(MAIN_STACK_SIZE_BYTES);
    let start = Start { builder, spawned_at: called_at, group, ending, deadline: None };
    let started = coroutine::start(start, body, |_: Outcome<()>| ());
    if let Err(error) = started {
        // The thread in `run` sees its channel closed and panics; this says why.
        tracing::error!("`reactor::run`: {error}");
        eprintln!("reactor::run: {error}");
    }
}

struct MainEnding;

impl Ending for MainEnding {
    fn on_overflow(&self, _: Payload) {
        // The sender of the result is lost with the stack, so `run` would wait for ever.
        eprintln!(
            "reactor: the main coroutine overflowed its stack of {MAIN_STACK_SIZE_BYTES} bytes; aborting"
        );
        std::process::abort();
    }
}
