//! One connection's two directions: waits that are bounded, and bytes gathered so that they leave together.
//!
//! What is to be sent gathers in one buffer and leaves when nothing is left to answer, when it has grown, or before
//! the connection waits for its client: one system call for a whole batch of pipelined requests, and no deadlock.

use std::cell::Cell;
use std::io::{self, BufRead, ErrorKind, IoSlice, Read};
use std::net::SocketAddr;
use std::rc::Rc;

use http::StatusCode;

use super::Shared;
use super::attendance::Attendance;
use super::exchange::Exchange;
use super::patience::Patience;
use crate::cell::RefCell;
use crate::coroutine::begin;
use crate::http::input::{BodyReader, Source};
use crate::http::{BodyDecoder, BodyError, Headers, Input};
use crate::net::{Draining, Duplex};
use crate::sync::Mutex;

/// Time starts anew after so many bytes in either direction: the least that a client must move in it.
pub(super) const PROGRESS_BYTES: usize = 64 << 10;

/// What gathers before it is sent although more is to come.
pub(super) const GATHERED_BYTES_MAX: usize = 64 << 10;

/// What a connection's output buffer keeps between requests.
const KEPT_BYTES_MAX: usize = 16 << 10;

/// What the housekeeper sees of a connection.
pub(super) struct Vitals {
    pub(super) reading: Patience,
    pub(super) writing: Patience,
    /// Waits of a protocol that has taken the connection over: they end when the server drains.
    pub(super) talking: Rc<Patience>,
    /// Between two requests, with nothing of the next one there.
    pub(super) idle: Cell<bool>,
    pub(super) attendance: Attendance,
}

/// Lets whoever has taken a connection over wait for its client, and hear while it does that the server drains.
pub(in crate::http) struct Farewell {
    draining: Draining,
    talking: Rc<Patience>,
}

impl Farewell {
    /// Runs `f`, which waits; `None` when the server drains first, or does already.
    pub(in crate::http) fn wait<T>(&self, f: impl FnOnce() -> io::Result<T>) -> Option<io::Result<T>> {
        if self.draining.has_begun() {
            return None;
        }
        match self.talking.wait(f) {
            Err(error) if error.kind() == ErrorKind::TimedOut && self.draining.has_begun() => None,
            result => Some(result),
        }
    }
}

/// Tears a connection, unless it is told not to.
struct Tears<'a>(&'a Cell<bool>);

impl Tears<'_> {
    fn not(self) {
        std::mem::forget(self);
    }
}

impl Drop for Tears<'_> {
    fn drop(&mut self) {
        self.0.set(true);
    }
}

/// A connection, as the coroutine that serves it sees it.
pub(super) struct Wire<'a> {
    pub(super) stream: &'a dyn Duplex,
    pub(super) shared: &'a Shared,
    pub(super) vitals: &'a Vitals,
    pub(super) peer: Option<SocketAddr>,
    pub(super) output: RefCell<Vec<u8>>,
    pub(super) spare: RefCell<Vec<u8>>,
    pub(super) exchange: Exchange,
    /// Held by whoever sends: a handler may read the request in one coroutine and write its answer in another.
    turn: Mutex<()>,
    /// Something has left in part, or is gone and has not left: what followed would be taken for the rest of it, or for the
    /// answer to another request. So nothing follows.
    torn: Cell<bool>,
    body_bytes: Cell<usize>,
    /// What the request was answered, as its head says it: not always what the handler chose.
    pub(super) status: Cell<Option<StatusCode>>,
    sent_bytes: Cell<u64>,
}

impl<'a> Wire<'a> {
    pub(super) fn new(
        stream: &'a dyn Duplex,
        shared: &'a Shared,
        vitals: &'a Vitals,
        peer: Option<SocketAddr>,
    ) -> Wire<'a> {
        vitals.writing.follow(stream.taken_bytes());
        vitals.attendance.follow(stream.watch_peer());
        Wire {
            stream,
            shared,
            vitals,
            peer,
            output: RefCell::default(),
            spare: RefCell::default(),
            exchange: Exchange::new(),
            turn: Mutex::new(()),
            torn: Cell::new(false),
            body_bytes: Cell::new(0),
            status: Cell::new(None),
            sent_bytes: Cell::new(0),
        }
    }

    /// Bytes of this connection that were sent, or have gathered to be.
    pub(super) fn position(&self) -> u64 {
        self.sent_bytes.get() + self.output.borrow().len() as u64
    }

    /// Sends what has gathered.
    pub(super) fn flush(&self) -> io::Result<()> {
        self.flush_with(&[])
    }

    /// Sends what has gathered, and `more` after it without copying it.
    ///
    /// Unwound before any of it was taken, what has gathered is sent by the next call. Unwound later, or where there is `more`,
    /// which is nowhere else, this was the last that is sent.
    ///
    /// # Errors
    /// Those of the stream; `TimedOut`; `BrokenPipe` after a call that did not come to its end.
    pub(super) fn flush_with(&self, more: &[&[u8]]) -> io::Result<()> {
        if more.is_empty() && self.output.borrow().is_empty() {
            return self.check_whole();
        }
        let tears = (!more.is_empty()).then(|| Tears(&self.torn));
        let _turn = self.turn.try_lock().unwrap_or_else(|| self.turn.lock());
        // Here, since the stream's own calls see a cut when what has gathered is out of its place.
        let call = begin();
        self.check_whole()?;
        call.over();
        let tears = tears.unwrap_or_else(|| Tears(&self.torn));
        // Taken out: nothing may be borrowed while this waits.
        let mut output = self.output.take();
        let mut slices: smallvec::SmallVec<[IoSlice<'_>; 4]> = smallvec::SmallVec::new();
        slices.push(IoSlice::new(&output));
        slices.extend(more.iter().map(|bytes| IoSlice::new(bytes)));
        self.send(&mut slices)?;
        tears.not();
        drop(slices);
        output.clear();
        if output.capacity() <= KEPT_BYTES_MAX && self.output.borrow().is_empty() {
            *self.output.borrow_mut() = output;
        }
        Ok(())
    }

    /// Whether all that was sent has left whole: else nothing can follow it.
    fn check_whole(&self) -> io::Result<()> {
        match self.torn.get() {
            true => {
                Err(io::Error::new(ErrorKind::BrokenPipe, "an answer did not leave whole: it was broken off"))
            }
            false => Ok(()),
        }
    }

    fn send(&self, mut slices: &mut [IoSlice<'_>]) -> io::Result<()> {
        IoSlice::advance_slices(&mut slices, 0);
        let mut progress = PROGRESS_BYTES;
        while !slices.is_empty() {
            if progress >= PROGRESS_BYTES {
                progress = 0;
                self.vitals.writing.arm(self.shared.limits.write_time);
            }
            let count = self.vitals.writing.wait(|| {
                self.stream.write_with(&mut |writer| writer.write_vectored(&slices[..slices.len().min(1024)]))
            })?;
            if count == 0 {
                return Err(ErrorKind::WriteZero.into());
            }
            self.vitals.attendance.on_progress();
            self.sent_bytes.set(self.sent_bytes.get() + count as u64);
            progress += count;
            IoSlice::advance_slices(&mut slices, count);
        }
        Ok(())
    }

    /// Ends our direction behind all that was sent. That takes room too, where the stream encrypts, which a client that does not read
    /// leaves us as little as for an answer.
    pub(super) fn end(&self) -> io::Result<()> {
        self.vitals.writing.arm(self.shared.limits.write_time);
        self.vitals.writing.wait(|| self.stream.end())
    }

    /// Reads under the time that `reading` was given. What has gathered is sent first: the client may wait for it.
    pub(super) fn read_some(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.flush()?;
        self.vitals.reading.wait(|| self.stream.read_some(buffer))
    }

    /// A body begins.
    pub(super) fn begin_body(&self, expects_continue: bool) {
        self.exchange.begin(expects_continue);
        self.body_bytes.set(PROGRESS_BYTES);
    }
}

impl Wire<'_> {
    /// Tells a client that waits for it to send the body.
    pub(super) fn ask_for_body(&self) {
        if self.exchange.on_body_wanted() {
            self.output.borrow_mut().extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
        }
    }
}

/// Where a request's body comes from: it asks the client to go on if that is what it waits for.
pub(super) struct BodySource<'a>(pub(super) &'a Wire<'a>);

impl Source for BodySource<'_> {
    fn read_some(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wire = self.0;
        wire.ask_for_body();
        if wire.body_bytes.get() >= PROGRESS_BYTES {
            wire.body_bytes.set(0);
            wire.vitals.reading.arm(wire.shared.limits.body_time);
        }
        // Whatever goes wrong here is the client's doing, or the line's, and is told apart by this from all else that
        // goes wrong in a handler.
        let count = wire.read_some(buffer).map_err(|error| match error.kind() {
            ErrorKind::TimedOut => BodyError::TooSlow,
            _ => BodyError::Truncated,
        })?;
        wire.body_bytes.set(wire.body_bytes.get() + count);
        wire.vitals.attendance.on_progress();
        Ok(count)
    }
}

/// The body of a request: `Read` and `BufRead`, without its framing.
///
/// # Errors
///
/// A [`BodyError`] inside: `InvalidData` when it is malformed or too large, `UnexpectedEof` when it breaks off, `TimedOut`
/// when it comes too slowly. A handler that returns such an error answers 400, 413 or 408.
///
/// # Suspends
///
/// Until data comes.
pub struct RequestBody<'a> {
    wire: &'a Wire<'a>,
    reader: BodyReader<'a, BodySource<'a>>,
}

impl<'a> RequestBody<'a> {
    pub(super) fn new(
        wire: &'a Wire<'a>,
        input: &'a mut Input,
        decoder: &'a mut BodyDecoder,
    ) -> RequestBody<'a> {
        RequestBody { wire, reader: BodyReader::new(BodySource(wire), input, decoder) }
    }

    /// How much is still to come, where the client has said so.
    pub fn remaining(&self) -> Option<u64> {
        self.reader.remaining()
    }

    /// The fields after a chunked body; empty until it has been read to its end.
    pub fn trailers(&self) -> &Headers {
        self.reader.trailers()
    }

    pub(in crate::http) fn peer(&self) -> Option<SocketAddr> {
        self.wire.peer
    }

    /// What tells when the server drains.
    pub(in crate::http) fn draining(&self) -> Draining {
        self.wire.shared.draining.clone()
    }

    /// What a protocol that takes the connection over needs to hear of it.
    pub(in crate::http) fn farewell(&self) -> Farewell {
        Farewell { draining: self.draining(), talking: self.wire.vitals.talking.clone() }
    }

    pub(in crate::http) fn take_spare(&self) -> Vec<u8> {
        self.wire.spare.take()
    }
}

impl Read for RequestBody<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.reader.read(buffer)
    }
}

impl BufRead for RequestBody<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.reader.fill_buf()
    }

    fn consume(&mut self, count: usize) {
        self.reader.consume(count);
    }
}

/// A connection that has been taken over by another protocol: a [`Duplex`] stream, and what was read of it already.
pub struct Upgraded<'a> {
    /// The stream. The server's time limits no longer apply to it.
    pub stream: &'a dyn Duplex,
    /// What came after the request's head; it is to be read first.
    pub received: Vec<u8>,
}
