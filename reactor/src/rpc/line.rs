//! The outgoing half of a connection's stream, and how it goes on.
//!
//! What it is not: what is to be written (`outbox.rs`), or what is too little ([`Progress`]).

use std::io::{self, IoSlice};
use std::time::{Duration, Instant};

use super::progress::{Pace, Progress};
use crate::cell::RefCell;
use crate::net::{Duplex, Taken};

/// Writes, and knows how fast.
pub(super) struct Line {
    taken: Taken,
    progress: RefCell<Progress>,
}

impl Line {
    pub(super) fn new(stream: &dyn Duplex) -> Line {
        Line { taken: Taken::new(stream), progress: RefCell::default() }
    }

    /// Something waits to be written.
    pub(super) fn on_waiting(&self) {
        self.progress.borrow_mut().on_waiting(crate::now(), self.taken.bytes());
    }

    /// All that waited is written.
    pub(super) fn on_rest(&self) {
        self.progress.borrow_mut().on_rest();
    }

    /// Whether something waits.
    pub(super) fn is_busy(&self) -> bool {
        self.progress.borrow().is_busy()
    }

    /// How it goes on, while so many bytes wait behind those that are being written.
    pub(super) fn pace(&self, now: Instant, waiting_bytes: usize, window: Duration) -> Pace {
        self.progress.borrow_mut().check(now, self.taken.bytes(), waiting_bytes as u64, window)
    }

    /// Writes all of `slices`.
    ///
    /// # Errors
    /// When the stream is broken.
    ///
    /// # Suspends
    /// Until all is handed over.
    pub(super) fn write(&self, stream: &dyn Duplex, slices: &mut [IoSlice<'_>]) -> io::Result<()> {
        self.taken.write(stream, slices)
    }
}
