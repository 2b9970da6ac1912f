//! What a coroutine leaves behind: its result, and the handle by which others wait for it or end it.

use std::cell::{Cell, OnceCell};
use std::fmt;
use std::panic::resume_unwind;
use std::rc::Rc;

use super::{Coroutine, Cut, Payload, begin, may_suspend};
use crate::cell::RefCell;
use crate::error::error_says;
use crate::run::Group;
use crate::select::{Selectable, source::Source};
use crate::sync::WaitList;

/// How a coroutine ended.
pub(crate) enum Outcome<T> {
    Returned(T),
    Terminated,
    Panicked(Payload),
}

/// The coroutine was terminated before it returned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terminated;

error_says!(Terminated: "the coroutine was terminated");

/// Where a coroutine leaves its result.
pub(crate) struct Packet<T> {
    outcome: RefCell<Option<Outcome<T>>>,
    /// What a scoped child has returned, which is not its outcome yet.
    kept: RefCell<Option<T>>,
    /// Most are joined after their end, or never.
    joiners: OnceCell<Box<WaitList>>,
    group: Rc<Group>,
    detached: Cell<bool>,
    /// Its outcome has been taken.
    joined: Cell<bool>,
}

impl<T> Packet<T> {
    pub(crate) fn new(group: Rc<Group>) -> Rc<Self> {
        Rc::new(Packet {
            outcome: RefCell::new(None),
            kept: RefCell::new(None),
            joiners: OnceCell::new(),
            group,
            detached: Cell::new(false),
            joined: Cell::new(false),
        })
    }

    /// Gives the outcome to whoever may join, or, where nobody can any more, ends the run if it is a panic.
    pub(super) fn settle(&self, outcome: Outcome<T>) {
        match outcome {
            Outcome::Panicked(payload) if self.detached.get() => self.group.fail(payload),
            // Dropped here and now, while the coroutine still counts as running.
            outcome if self.detached.get() => drop(outcome),
            outcome => self.fill(outcome),
        }
    }

    /// Keeps a scoped child's result until the child has ended.
    pub(crate) fn keep(&self, value: T) {
        *self.kept.borrow_mut() = Some(value);
    }

    /// A scoped child has ended: gives what it returned to whoever may join. Its panic is for its scope.
    pub(crate) fn settle_kept(self: Rc<Self>, outcome: Outcome<()>) -> Option<Payload> {
        let (outcome, failure) = match (outcome, self.kept.take()) {
            (Outcome::Returned(()), Some(value)) => (Outcome::Returned(value), None),
            (Outcome::Panicked(payload), _) => (Outcome::Terminated, Some(payload)),
            _ => (Outcome::Terminated, None),
        };
        // The scope may outlive the last handle: then nobody will ever ask.
        if Rc::strong_count(&self) > 1 {
            self.fill(outcome);
        }
        failure
    }

    fn fill(&self, outcome: Outcome<T>) {
        *self.outcome.borrow_mut() = Some(outcome);
        if let Some(joiners) = self.joiners.get() {
            joiners.notify_all();
        }
    }

    /// Waits for the outcome and takes it. While the caller unwinds it does not wait: see `JoinHandle::join`.
    pub(crate) fn take(&self) -> Outcome<T> {
        let call = begin();
        loop {
            assert!(!self.joined.get(), "a coroutine's result is there once: it has been joined already");
            if let Some(outcome) = self.outcome.take() {
                self.joined.set(true);
                call.needed_no_wait();
                return outcome;
            }
            if !may_suspend() {
                return Outcome::Terminated;
            }
            self.joiners.get_or_init(Box::default).wait_on(&"a coroutine's end");
        }
    }
}

/// Ready when there is an outcome, or was.
impl<T> Source for Packet<T> {
    fn is_ready(&self) -> bool {
        self.outcome.borrow().is_some() || self.joined.get()
    }

    fn rows<'a>(&'a self, row: &mut dyn FnMut(&'a WaitList)) {
        row(self.joiners.get_or_init(Box::default));
    }
}

/// A coroutine's handle: join it, terminate it, or drop the handle to let it run on its own.
///
/// A panic in a coroutine goes to whoever joins it. If nobody can any more (the handle was dropped), it ends
/// the whole [`crate::run`] with that panic: nothing fails silently.
pub struct JoinHandle<T> {
    pub(super) coroutine: Rc<Coroutine>,
    pub(super) packet: Rc<Packet<T>>,
}

impl<T> JoinHandle<T> {
    /// Waits for the coroutine's end and returns its result, once. Where a timeout ends the wait the handle stays good:
    /// join again, or terminate the coroutine.
    ///
    /// # Errors
    ///
    /// [`Terminated`] if it was terminated. In a destructor that runs while the caller unwinds this does not wait,
    /// and says so of a coroutine that has not ended.
    ///
    /// # Panics
    ///
    /// With the coroutine's own panic. When it has been joined already.
    ///
    /// # Suspends
    ///
    /// Until the coroutine ends.
    pub fn join(&self) -> Result<T, Terminated> {
        match self.packet.take() {
            Outcome::Returned(value) => Ok(value),
            Outcome::Terminated => Err(Terminated),
            Outcome::Panicked(payload) => resume_unwind(payload),
        }
    }

    /// Makes the call that the coroutine waits in unwind, or else the next one that may suspend, whether it would have to or
    /// not; its destructors run.
    ///
    /// Never suspends: join the coroutine to wait for its end. A coroutine may terminate itself.
    pub fn terminate(&self) {
        self.coroutine.terminate();
    }

    /// Unwinds the coroutine to a frame of its own.
    pub(crate) fn cut_to(&self, cut: Cut) {
        self.coroutine.cut_to(cut);
    }

    /// Terminates the coroutine and waits until it has ended, its destructors run.
    ///
    /// # Errors
    ///
    /// [`Terminated`], unless it had returned before or returned a result all the same.
    ///
    /// # Panics
    ///
    /// As [`JoinHandle::join`].
    ///
    /// # Suspends
    ///
    /// Until the coroutine ends.
    pub fn terminate_and_wait(&self) -> Result<T, Terminated> {
        self.terminate();
        self.join()
    }

    /// The coroutine's name: see [`current_name`](crate::current_name).
    pub fn name(&self) -> String {
        self.coroutine.label()
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

/// Ready when the coroutine has ended.
impl<T> Source for JoinHandle<T> {
    fn is_ready(&self) -> bool {
        self.packet.is_ready()
    }

    fn rows<'a>(&'a self, row: &mut dyn FnMut(&'a WaitList)) {
        self.packet.rows(row);
    }
}

impl<T> Selectable for JoinHandle<T> {}

impl<T> fmt::Debug for JoinHandle<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinHandle")
            .field("name", &self.name())
            .field("finished", &self.is_finished())
            .finish()
    }
}
