//! The outgoing half of a connection's stream, and what it has taken.
//!
//! What it is not: what is to be written (`outbox.rs`), or what is too little ([`Progress`]).

use std::cell::{Cell, RefCell};
use std::io::{self, ErrorKind, IoSlice};
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::progress::{Pace, Progress};
use crate::net::Duplex;

/// Counts what is handed over.
pub(super) struct Line {
    /// What the line has taken.
    taken: Rc<Cell<u64>>,
    /// The stream counts it itself: it takes more at once than the line below it does.
    counted_below: bool,
    progress: RefCell<Progress>,
}

impl Line {
    pub(super) fn new(stream: &dyn Duplex) -> Line {
        let below = stream.taken_bytes();
        Line {
            counted_below: below.is_some(),
            taken: below.unwrap_or_default(),
            progress: RefCell::default(),
        }
    }

    /// Something waits to be written.
    pub(super) fn on_waiting(&self) {
        self.progress.borrow_mut().on_waiting(crate::now(), self.taken.get());
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
        self.progress.borrow_mut().check(now, self.taken.get(), waiting_bytes as u64, window)
    }

    /// Writes all of `slices`.
    ///
    /// # Errors
    /// When the stream is broken.
    ///
    /// # Suspends
    /// Until all is handed over.
    pub(super) fn write(&self, stream: &dyn Duplex, mut slices: &mut [IoSlice<'_>]) -> io::Result<()> {
        if self.counted_below {
            return stream.write_slices(slices);
        }
        IoSlice::advance_slices(&mut slices, 0);
        while !slices.is_empty() {
            // The kernel takes at most 1,024 (IOV_MAX) at once, and refuses more.
            let count =
                stream.write_with(&mut |writer| writer.write_vectored(&slices[..slices.len().min(1024)]))?;
            if count == 0 {
                return Err(ErrorKind::WriteZero.into());
            }
            self.taken.set(self.taken.get() + count as u64);
            IoSlice::advance_slices(&mut slices, count);
        }
        Ok(())
    }
}
