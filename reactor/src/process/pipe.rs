//! The kernel's pipes, one direction each.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Instant;

use crate::net::Descriptor;

/// The end of a pipe that is read from. Closed on drop.
pub struct PipeReader {
    descriptor: Descriptor,
}

/// The end of a pipe that is written to. Closed on drop, which the other side reads as the end.
pub struct PipeWriter {
    descriptor: Descriptor,
}

impl PipeReader {
    /// Takes the reading end of a pipe. Never suspends.
    ///
    /// # Errors
    ///
    /// When it can't be polled.
    ///
    /// # Panics
    ///
    /// Outside [`crate::run`].
    pub fn new(fd: OwnedFd) -> io::Result<PipeReader> {
        Ok(PipeReader { descriptor: Descriptor::new(fd)? })
    }

    /// Until when reads may wait; `None` for ever.
    pub fn set_read_deadline(&self, deadline: Option<Instant>) {
        self.descriptor.set_read_deadline(deadline);
    }
}

impl PipeWriter {
    /// Takes the writing end of a pipe. Never suspends.
    ///
    /// # Errors
    ///
    /// When it can't be polled.
    ///
    /// # Panics
    ///
    /// Outside [`crate::run`].
    pub fn new(fd: OwnedFd) -> io::Result<PipeWriter> {
        Ok(PipeWriter { descriptor: Descriptor::new(fd)? })
    }

    /// Until when writes may wait; `None` for ever.
    pub fn set_write_deadline(&self, deadline: Option<Instant>) {
        self.descriptor.set_write_deadline(deadline);
    }
}

impl Read for &PipeReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        // A short read does not tell that nothing is left: a terminal gives line by line, a packet pipe its packets.
        self.descriptor.read_stream(0, |fd| Ok(rustix::io::read(fd, &mut *buffer)?))
    }
}

impl Read for PipeReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        (&*self).read(buffer)
    }
}

impl Write for &PipeWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // SIGPIPE is ignored in every program whose `main` is Rust's: a closed pipe is an error here.
        self.descriptor.write_stream(bytes.len(), |fd| Ok(rustix::io::write(fd, bytes)?))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Write for PipeWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        (&*self).write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl AsFd for PipeReader {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

impl AsFd for PipeWriter {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}
