//! What a caller holds between handing over a write and its being durable.
//!
//! Writes become durable in the order in which they were handed over, so of several tickets only the last needs
//! waiting for. Dropping a ticket drops the wish to know, never the write.

use super::StoreError;

/// The promise that a write will be durable, or the news that it could not be.
#[must_use = "an unwaited write may be lost in a crash; wait for this ticket or for a later one"]
#[derive(Debug)]
pub struct Ticket {
    result: Result<(), StoreError>,
}

impl Ticket {
    /// A ticket for what is already decided.
    pub fn ready(result: Result<(), StoreError>) -> Ticket {
        Ticket { result }
    }

    /// Waits until this write, and with it every write handed over before it, is durable.
    ///
    /// # Errors
    ///
    /// What kept this write, or one handed over shortly before it, from becoming durable: a failure takes every
    /// write with it that was handed over before the news of it arrived, so an `Ok` speaks for all earlier ones.
    ///
    /// # Suspends
    ///
    /// Until the group that holds the write is synced: a few milliseconds.
    pub fn wait(&self) -> Result<(), StoreError> {
        self.result.clone()
    }
}
