//! A request's body on its way, beside whoever reads the answer.

use std::cell::Cell;
use std::io::{self, IoSlice, Read};
use std::time::{Duration, Instant};

use super::exchange::Clock;
use super::request::{Body, Stream};
use super::{ClientError, Phase};
use crate::cell::RefCell;
use crate::clock::now;
use crate::http::{Input, write_chunk_size, write_last_chunk};
use crate::net::{Duplex, Taken};

/// What a streamed body is read and sent in.
const PIECE_BYTES: usize = 64 << 10;

/// What is kept of an answer that comes while the body is still being sent.
const READ_AHEAD_BYTES_MAX: usize = 4 << 20;

/// How long the line may take nothing of the body once as much is kept: then the server waits for us. A server that takes
/// the body to its disk, say, pauses for less.
const STALL_TIME: Duration = Duration::from_secs(3);

/// How far a body has come that one coroutine sends while another reads the answer.
#[derive(Default)]
pub(super) struct Sending {
    /// When it was over, well or not.
    pub(super) ended: Cell<Option<Instant>>,
    pub(super) failure: RefCell<Option<ClientError>>,
    pub(super) is_answer_read: Cell<bool>,
    /// What is to be done with the connection once the body is sent.
    then: RefCell<Option<Box<dyn FnOnce()>>>,
}

impl Sending {
    /// Runs `write`, and notes what comes of it.
    pub(super) fn run(&self, write: impl FnOnce() -> Result<(), ClientError>) {
        *self.failure.borrow_mut() = write().err();
        self.ended.set(Some(now()));
    }

    /// The whole has been handed over.
    pub(super) fn is_sent(&self) -> bool {
        self.ended.get().is_some() && self.failure.borrow().is_none()
    }

    /// The answer has been read to its end; `then` is to be done when the body is sent, too.
    pub(super) fn on_answer_read(&self, then: Option<Box<dyn FnOnce()>>) {
        self.is_answer_read.set(true);
        *self.then.borrow_mut() = then;
    }

    /// Does what was left to be done, if the whole has been handed over.
    pub(super) fn finish(&self) {
        let then = self.then.take();
        if self.is_sent()
            && let Some(then) = then
        {
            then();
        }
    }
}

/// What is kept of an answer.
pub(super) enum Kept {
    /// All that will come.
    All,
    /// As much as is kept, and more may come.
    NoMore,
}

/// Reads what a server says while it is still sent to, as far as that is kept; the rest waits in the line. Suspends until
/// as much has come, or the line is at its end.
pub(super) fn read_ahead(input: &mut Input, duplex: &dyn Duplex) -> io::Result<Kept> {
    while input.bytes().len() < READ_AHEAD_BYTES_MAX {
        if !input.fill(duplex)? {
            return Ok(Kept::All);
        }
    }
    Ok(Kept::NoMore)
}

/// A body on its way.
pub(super) struct Upload<'a> {
    duplex: &'a dyn Duplex,
    taken: Taken,
    /// Some of it waits for the line; else for whoever gives it.
    is_writing: Cell<bool>,
}

impl<'a> Upload<'a> {
    pub(super) fn new(duplex: &'a dyn Duplex) -> Upload<'a> {
        Upload { duplex, taken: Taken::new(duplex), is_writing: Cell::new(false) }
    }

    /// Writes within the idle limit. Suspends until it is handed over.
    fn write(&self, slices: &mut [IoSlice<'_>], clock: Clock<'_>) -> Result<(), ClientError> {
        self.is_writing.set(true);
        let result = clock.bound(Phase::Send, clock.timeouts.idle, || self.taken.write(self.duplex, slices));
        self.is_writing.set(false);
        result?.map_err(|source| ClientError::Io { phase: Phase::Send, source })
    }

    /// Suspends until the line has taken nothing for [`STALL_TIME`] of what waits for it.
    pub(super) fn wait_for_stall(&self) {
        let mut taken_bytes = None;
        while !self.is_writing.get() || taken_bytes != Some(self.taken.bytes()) {
            taken_bytes = self.is_writing.get().then(|| self.taken.bytes());
            crate::sleep(STALL_TIME);
        }
    }

    /// Writes a whole body. Suspends until it is handed over.
    pub(super) fn write_body(&self, body: &mut Body<'_>, clock: Clock<'_>) -> Result<(), ClientError> {
        let write = |slices: &mut [IoSlice<'_>]| self.write(slices, clock);
        match body {
            Body::Empty => Ok(()),
            Body::Bytes(bytes) => {
                bytes.chunks(PIECE_BYTES).try_for_each(|piece| write(&mut [IoSlice::new(piece)]))
            }
            Body::Stream(Stream { reader, length, trailers, is_used }) => {
                *is_used = true;
                let mut left = *length;
                let mut buffer = vec![0; PIECE_BYTES];
                let mut line = Vec::new();
                while left != Some(0) {
                    let want = left.unwrap_or(u64::MAX).min(PIECE_BYTES as u64) as usize;
                    let count = loop {
                        match reader.read(&mut buffer[..want]) {
                            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                            result => break result.map_err(|source| ClientError::Body { source })?,
                        }
                    };
                    let data = IoSlice::new(&buffer[..count]);
                    match &mut left {
                        Some(_) if count == 0 => {
                            let source = io::Error::new(
                                io::ErrorKind::UnexpectedEof,
                                "the body is shorter than stated",
                            );
                            return Err(ClientError::Body { source });
                        }
                        Some(left) => {
                            *left -= count as u64;
                            write(&mut [data])?;
                        }
                        None if count == 0 => {
                            line.clear();
                            let trailers = trailers.take().map(|trailers| trailers()).unwrap_or_default();
                            write_last_chunk(&mut line, &trailers);
                            return write(&mut [IoSlice::new(&line)]);
                        }
                        None => {
                            line.clear();
                            write_chunk_size(&mut line, count);
                            write(&mut [IoSlice::new(&line), data, IoSlice::new(b"\r\n")])?;
                        }
                    }
                }
                Ok(())
            }
        }
    }
}
