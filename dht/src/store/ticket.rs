//! What a caller holds between handing over a write and its being durable.
//!
//! Writes become durable in the order in which they were handed over, so of several handed over in one go only the
//! last one's ticket needs waiting for. Dropping a ticket drops the wish to know, never the write.

use super::StoreError;
use reactor::cell::RefCell;
use reactor::sync::Barrier;
use std::{cell::Cell, fmt, rc::Rc};

/// The promise that a write will be durable, or the news that it could not be.
#[must_use = "an unwaited write may be lost in a crash; wait for this ticket or for a later one"]
#[derive(Clone)]
pub struct Ticket {
    completion: Rc<Completion>,
}

/// The writing end of a [`Ticket`].
pub(crate) struct Completion {
    result: RefCell<Option<Result<(), StoreError>>>,
    is_told: Cell<bool>,
    gate: Barrier,
}

impl Ticket {
    /// A ticket for what is already decided.
    pub fn ready(result: Result<(), StoreError>) -> Ticket {
        let (ticket, completion) = Ticket::new();
        completion.complete(result);
        ticket
    }

    pub(crate) fn new() -> (Ticket, Rc<Completion>) {
        let completion = Rc::new(Completion {
            result: RefCell::new(None),
            is_told: Cell::new(false),
            gate: Barrier::new(false),
        });
        (Ticket { completion: completion.clone() }, completion)
    }

    /// Waits until this write is durable.
    ///
    /// An `Ok` speaks for all writes that were handed over before this one in one go, that is with nothing but other
    /// `enqueue` calls in between. Tickets of writes that are further apart want waiting for each; that costs
    /// nothing where they share a sync.
    ///
    /// # Errors
    ///
    /// What kept this write, or one handed over shortly before it, from becoming durable.
    ///
    /// # Suspends
    ///
    /// Until the group that holds the write is synced: a few milliseconds.
    pub fn wait(&self) -> Result<(), StoreError> {
        loop {
            if let Some(result) = self.completion.result.borrow().as_ref() {
                self.completion.is_told.set(true);
                return result.clone();
            }
            self.completion.gate.wait();
        }
    }

    /// As [`Ticket::wait`], but no error if somebody has been told of it already.
    pub(crate) fn wait_untold(&self) -> Result<(), StoreError> {
        let is_told = self.completion.is_told.get();
        self.wait().or_else(|error| if is_told { Ok(()) } else { Err(error) })
    }

    /// Whether waiting would return at once.
    pub fn is_done(&self) -> bool {
        self.completion.result.borrow().is_some()
    }
}

impl Completion {
    pub(crate) fn complete(&self, result: Result<(), StoreError>) {
        self.result.borrow_mut().get_or_insert(result);
        self.gate.open();
    }
}

impl fmt::Debug for Completion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Completion").field(&self.result.borrow()).finish()
    }
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Ticket").field(&self.completion.result.borrow()).finish()
    }
}
