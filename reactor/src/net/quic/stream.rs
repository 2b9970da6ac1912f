//! A stream: bytes both ways, each direction ended apart, as over TCP.

use std::cell::Cell;
use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::net::Shutdown;
use std::rc::Rc;
use std::time::Instant;

use quinn_proto::{ReadError, StreamId, VarInt, WriteError};

use super::connection::Connection;
use crate::crypto::PublicKey;
use crate::net::{Duplex, WriteOnce};
use crate::select::{Selectable, source::Source};
use crate::sync::{WaitList, Waiters};

/// What a stream that was dropped, and not ended, is reset with. We know no reasons apart.
const DROPPED: VarInt = VarInt::from_u32(1);

/// A stream of a [`Connection`]. One coroutine may read while another writes.
///
/// Each direction ends apart: [`Duplex::end`] or [`Stream::shutdown`] lets the peer read to the end. A stream that is
/// dropped without it, by a coroutine that was terminated, say, is *reset*: the peer gets `ConnectionReset`, and so never
/// takes a part for the whole. It holds its connection.
pub struct Stream {
    connection: Connection,
    id: StreamId,
    rows: Rc<Rows>,
    reading: Cell<Direction>,
    writing: Cell<Direction>,
    read_deadline: Cell<Option<Instant>>,
    write_deadline: Cell<Option<Instant>>,
}

/// Who waits for a stream.
pub(super) struct Rows {
    pub(super) readers: Waiters,
    pub(super) writers: Waiters,
}

impl Rows {
    pub(super) fn new() -> Rows {
        Rows {
            readers: Waiters::new(&"bytes of a QUIC stream"),
            writers: Waiters::new(&"room in a QUIC stream"),
        }
    }

    pub(super) fn wake_all(&self) {
        self.readers.wake_all();
        self.writers.wake_all();
    }
}

/// How far a direction has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Direction {
    Open,
    /// All was read, or we have ended it.
    Ended,
    /// The peer broke it off: it reset what we read, or wants no more of what we write.
    BrokenOff,
    /// We did.
    Aborted,
}

impl Stream {
    pub(super) fn new(connection: Connection, id: StreamId) -> Stream {
        let rows = connection.inner().add_stream(id);
        Stream {
            connection,
            id,
            rows,
            reading: Cell::new(Direction::Open),
            writing: Cell::new(Direction::Open),
            read_deadline: Cell::new(None),
            write_deadline: Cell::new(None),
        }
    }

    /// The connection that it belongs to.
    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Until when reads may wait; `None` for ever.
    pub fn set_read_deadline(&self, deadline: Option<Instant>) {
        self.read_deadline.set(deadline);
    }

    /// Until when writes may wait; `None` for ever.
    pub fn set_write_deadline(&self, deadline: Option<Instant>) {
        self.write_deadline.set(deadline);
    }

    /// Ends a direction: after `Write` the peer reads to the end of what was written; after `Read` it is told to send no
    /// more, and what comes is thrown away. Never suspends.
    ///
    /// # Errors
    /// `BrokenPipe` when the peer wants no more; that of the connection, if it is gone.
    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        if how != Shutdown::Write {
            self.stop_reading();
        }
        if how == Shutdown::Read || self.writing.get() == Direction::Ended {
            return Ok(());
        }
        self.check_writing()?;
        let inner = self.connection.inner();
        inner.lost().map_or(Ok(()), Err)?;
        let finished = inner.proto.borrow_mut().send_stream(self.id).finish();
        match finished {
            Ok(()) => {
                self.writing.set(Direction::Ended);
                inner.on_ended(self.id);
            }
            Err(_) => self.on_stopped(),
        }
        self.rows.writers.wake_all();
        inner.touch();
        self.check_ended()
    }

    fn check_ended(&self) -> io::Result<()> {
        if self.writing.get() == Direction::Ended { Ok(()) } else { self.check_writing() }
    }

    fn check_writing(&self) -> io::Result<()> {
        let reason = match self.writing.get() {
            Direction::Open => return Ok(()),
            Direction::Ended => "the stream was ended here: nothing may follow",
            Direction::BrokenOff => "the peer wants no more of the stream",
            Direction::Aborted => "the stream was broken off here",
        };
        Err(io::Error::new(ErrorKind::BrokenPipe, reason))
    }

    fn stop_reading(&self) {
        if self.reading.get() == Direction::Open {
            self.reading.set(Direction::Aborted);
            // It fails where the peer has ended it already.
            let _ = self.connection.inner().proto.borrow_mut().recv_stream(self.id).stop(DROPPED);
            self.rows.readers.wake_all();
            self.connection.inner().touch();
        }
    }

    /// The peer wants no more. It is to hear that nothing comes: only then do both sides forget the stream, and may the
    /// peer open another in its place.
    fn on_stopped(&self) {
        self.reset();
        self.writing.set(Direction::BrokenOff);
    }

    fn reset(&self) {
        if self.writing.get() == Direction::Open {
            self.writing.set(Direction::Aborted);
            // It fails where all was acknowledged already.
            let _ = self.connection.inner().proto.borrow_mut().send_stream(self.id).reset(DROPPED);
            self.rows.writers.wake_all();
            self.connection.inner().touch();
        }
    }

    /// Reads what is there; `None` if nothing is, and more may come.
    fn try_read(&self, buffer: &mut [u8]) -> Option<io::Result<usize>> {
        match self.reading.get() {
            Direction::Open => {}
            Direction::Ended | Direction::Aborted => return Some(Ok(0)),
            Direction::BrokenOff => {
                let reason = "the peer broke the stream off: what was read is not all";
                return Some(Err(io::Error::new(ErrorKind::ConnectionReset, reason)));
            }
        }
        if buffer.is_empty() {
            return Some(Ok(0));
        }
        let inner = self.connection.inner();
        let mut size = 0;
        let must_tell;
        {
            let mut proto = inner.proto.borrow_mut();
            let mut stream = proto.recv_stream(self.id);
            let Ok(mut chunks) = stream.read(true) else {
                // Only what we have ended ourselves is closed, and that was looked at above.
                self.reading.set(Direction::Ended);
                return Some(Ok(0));
            };
            while size < buffer.len() {
                match chunks.next(buffer.len() - size) {
                    Ok(Some(chunk)) => {
                        buffer[size..size + chunk.bytes.len()].copy_from_slice(&chunk.bytes);
                        size += chunk.bytes.len();
                    }
                    Ok(None) => {
                        self.reading.set(Direction::Ended);
                        break;
                    }
                    Err(ReadError::Reset(_)) => {
                        self.reading.set(Direction::BrokenOff);
                        break;
                    }
                    Err(ReadError::Blocked) => break,
                }
            }
            // The peer's credit has grown, maybe enough to tell it.
            must_tell = chunks.finalize().should_transmit();
        }
        if must_tell {
            inner.touch();
        }
        match (size, self.reading.get()) {
            (0, Direction::Open) => inner.lost().map(Err),
            (0, _) => self.try_read(buffer),
            _ => Some(Ok(size)),
        }
    }

    /// Whether a read would not wait. A read of nothing takes nothing, and yet finds the end.
    fn is_readable(&self) -> bool {
        if self.reading.get() != Direction::Open {
            return true;
        }
        let inner = self.connection.inner();
        let mut proto = inner.proto.borrow_mut();
        let mut stream = proto.recv_stream(self.id);
        let Ok(mut chunks) = stream.read(true) else { return true };
        match chunks.next(0) {
            Ok(Some(_)) => true,
            Ok(None) => {
                self.reading.set(Direction::Ended);
                true
            }
            Err(ReadError::Reset(_)) => {
                self.reading.set(Direction::BrokenOff);
                true
            }
            Err(ReadError::Blocked) => inner.lost().is_some(),
        }
    }

    /// Writes what there is room for; `None` if there is none.
    fn try_write(&self, bytes: &[u8]) -> Option<io::Result<usize>> {
        let inner = self.connection.inner();
        if let Err(error) = self.check_writing().and_then(|()| inner.lost().map_or(Ok(()), Err)) {
            return Some(Err(error));
        }
        if bytes.is_empty() {
            return Some(Ok(0));
        }
        let written = inner.proto.borrow_mut().send_stream(self.id).write(bytes);
        match written {
            Ok(size) => {
                inner.touch();
                Some(Ok(size))
            }
            Err(WriteError::Blocked) => None,
            Err(WriteError::Stopped(_) | WriteError::ClosedStream) => {
                self.on_stopped();
                Some(self.check_writing().map(|()| 0))
            }
        }
    }

    fn write_once(&self, bytes: &[u8]) -> io::Result<usize> {
        self.rows.writers.wait(self.write_deadline.get(), || self.try_write(bytes))?
    }
}

impl Read for &Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.rows.readers.wait(self.read_deadline.get(), || self.try_read(buffer))?
    }
}

impl Write for &Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_once(bytes)
    }

    /// What was written is on its way: nothing is held back for more.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        (&*self).read(buffer)
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        (&*self).write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        (&*self).flush()
    }
}

/// Writes without waiting, and says so where there is no room.
struct NeverWaits<'a>(&'a Stream);

impl Write for NeverWaits<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(bytes).unwrap_or_else(|| Err(ErrorKind::WouldBlock.into()))
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut size = 0;
        for slice in slices {
            match self.write(slice) {
                Ok(count) => {
                    size += count;
                    if count < slice.len() {
                        break;
                    }
                }
                // What was taken has to be said first; who writes on learns of the rest.
                Err(_) if size > 0 => break,
                Err(error) => return Err(error),
            }
        }
        Ok(size)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Duplex for Stream {
    fn read_some(&self, buffer: &mut [u8]) -> io::Result<usize> {
        Read::read(&mut &*self, buffer)
    }

    fn write_with(&self, write: &mut WriteOnce<'_>) -> io::Result<usize> {
        self.rows.writers.wait(self.write_deadline.get(), || match write(&mut NeverWaits(self)) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => None,
            result => Some(result),
        })?
    }

    /// The end is on its way behind what was written; it is delivered even when the stream is dropped then.
    fn end(&self) -> io::Result<()> {
        self.shutdown(Shutdown::Write)
    }

    fn abort(&self) {
        self.reset();
        self.stop_reading();
    }

    fn peer_key(&self) -> Option<PublicKey> {
        self.connection.inner().peer()
    }

    /// Of the whole connection, since its streams share the line; of several wishes the smallest holds.
    fn keep_unsent_below(&self, bytes: u32) {
        self.connection.inner().keep_unsent_below(bytes);
    }
}

/// Ready when there is something to read, be it the end or an error.
impl Source for Stream {
    fn is_ready(&self) -> bool {
        self.is_readable()
    }

    fn rows<'a>(&'a self, row: &mut dyn FnMut(&'a WaitList)) {
        row(self.rows.readers.list());
    }
}

impl Selectable for Stream {}

impl Drop for Stream {
    fn drop(&mut self) {
        self.abort();
        self.connection.inner().remove_stream(self.id);
    }
}
