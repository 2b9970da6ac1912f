//! What a stream has taken of that which is written to it, as it takes it.
//!
//! What it is not: what has arrived. It is as much as the system below has room for, of which it takes more when the peer
//! has read.

use std::cell::Cell;
use std::io::{self, ErrorKind, IoSlice};
use std::rc::Rc;

use super::Duplex;

/// Counts the bytes that a stream takes; see [`Taken::write`].
pub(crate) struct Taken {
    bytes: Rc<Cell<u64>>,
    /// The stream counts them itself, since it takes more at once than the line below it.
    counted_below: bool,
}

impl Taken {
    /// Of `stream`, from now on.
    pub(crate) fn new(stream: &dyn Duplex) -> Taken {
        let below = stream.taken_bytes();
        Taken { counted_below: below.is_some(), bytes: below.unwrap_or_default() }
    }

    /// How many there have been.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.get()
    }

    /// Writes all of `slices`, as [`Duplex::write_slices`] does, and counts.
    ///
    /// # Errors
    /// When the stream is broken; some of the bytes may have left.
    ///
    /// # Suspends
    /// Until all is handed over.
    pub(crate) fn write(&self, stream: &dyn Duplex, mut slices: &mut [IoSlice<'_>]) -> io::Result<()> {
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
            self.bytes.set(self.bytes.get() + count as u64);
            IoSlice::advance_slices(&mut slices, count);
        }
        Ok(())
    }
}
