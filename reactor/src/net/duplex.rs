//! Anything that carries bytes both ways: a TCP or Unix socket, TLS over either, a pipe in memory.
//!
//! `Read` and `Write` would not do. Both take `&mut self`, while here one coroutine reads as another writes;
//! and a layer that encrypts wants to hand its records to the kernel without copying them out first, which it
//! may do only while it borrows its own state, so not across a wait. [`Duplex::write_with`] is made for that:
//! the closure never suspends, the wait happens outside of it.
//!
//! What it is not: half-duplex streams, datagrams, or a trait for users to implement often.

use std::cell::Cell;
use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::net::Shutdown;
use std::os::fd::BorrowedFd;
use std::rc::Rc;
use std::time::Duration;

use rustix::net::{SendAncillaryBuffer, SendFlags, send, sendmsg};

use super::{TcpStream, UnixStream};
use crate::coroutine::spend_bytes;
#[cfg(feature = "crypto")]
use crate::crypto::PublicKey;

/// A stream of bytes in each direction, usable through a shared reference: one coroutine may read while
/// another writes. Two at the same side would mix their bytes.
pub trait Duplex: 'static {
    /// Reads some bytes; 0 at the end of the stream. Broken off, it has taken none.
    ///
    /// # Errors
    /// When the stream is broken, or ended where it must not.
    ///
    /// # Suspends
    /// Until there are some.
    fn read_some(&self, buffer: &mut [u8]) -> io::Result<usize>;

    /// Waits until [`Duplex::try_read_some`] may find something, where that can be known without reading; else it returns
    /// at once.
    ///
    /// # Errors
    /// When the time for reading is over.
    ///
    /// # Suspends
    /// Until then.
    fn wait_readable(&self) -> io::Result<()> {
        Ok(())
    }

    /// As [`Duplex::read_some`], but does not wait where [`Duplex::wait_readable`] does: `None` if there is nothing yet.
    fn try_read_some(&self, buffer: &mut [u8]) -> Option<io::Result<usize>> {
        Some(self.read_some(buffer))
    }

    /// Calls `write` with a writer that never waits, and again when there is room, until it returns anything but
    /// `WouldBlock`.
    ///
    /// Where it is broken off, by a timeout around it say, the stream may have taken what `write` gave it, in part or whole (a
    /// layer that encrypts has), and only it knows: whoever goes on must not send that again, and nothing else behind a piece.
    ///
    /// # Errors
    /// Those of `write`, and of the stream.
    ///
    /// # Suspends
    /// Until there is room; never inside `write`.
    fn write_with(&self, write: &mut WriteOnce<'_>) -> io::Result<usize>;

    /// Writes all of `slices`, in as few system calls as there can be.
    ///
    /// # Errors
    /// When the stream is broken; some of the bytes may have left.
    ///
    /// # Suspends
    /// Until all is handed over.
    fn write_slices(&self, mut slices: &mut [IoSlice<'_>]) -> io::Result<()> {
        IoSlice::advance_slices(&mut slices, 0);
        while !slices.is_empty() {
            // The kernel takes at most 1,024 (IOV_MAX) at once, and refuses more.
            let count =
                self.write_with(&mut |writer| writer.write_vectored(&slices[..slices.len().min(1024)]))?;
            if count == 0 {
                return Err(ErrorKind::WriteZero.into());
            }
            IoSlice::advance_slices(&mut slices, count);
        }
        Ok(())
    }

    /// Ends our direction properly: the peer reads the end of the stream after all that was written.
    ///
    /// # Errors
    /// When the stream is broken already.
    ///
    /// # Suspends
    /// Until the last bytes are handed over. A socket takes its end at once; a layer that encrypts says its own before, for
    /// which a peer that reads nothing leaves no room, as long as it likes: [`Duplex::end_within`].
    fn end(&self) -> io::Result<()>;

    /// As [`Duplex::end`], for a peer who may not read: after `limit` both directions are broken off.
    ///
    /// # Errors
    /// As [`Duplex::end`]; `TimedOut` where it was broken off.
    ///
    /// # Suspends
    /// For `limit` at most.
    fn end_within(&self, limit: Duration) -> io::Result<()> {
        crate::timeout(limit, || self.end()).unwrap_or_else(|elapsed| {
            self.abort();
            Err(elapsed.into())
        })
    }

    /// Breaks both directions off; whoever waits in them wakes. Never suspends, and may be repeated.
    fn abort(&self);

    /// Asks whoever buffers below to take about `bytes` more than the line has taken, and no more; a wish, where it
    /// is known how to grant it. Never suspends.
    fn keep_unsent_below(&self, bytes: u32) {
        let _ = bytes;
    }

    /// Counts the bytes that the line has taken, where a single write hands over so many that their number says nothing
    /// of its progress.
    fn taken_bytes(&self) -> Option<Rc<Cell<u64>>> {
        None
    }

    /// The key that the peer proved to hold, where the stream proves one.
    #[cfg(feature = "crypto")]
    fn peer_key(&self) -> Option<PublicKey> {
        None
    }

    /// Something to ask whether the peer is still there while nobody reads, where that is known.
    fn watch_peer(&self) -> Option<Rc<dyn PeerWatch>> {
        None
    }
}

/// What is known of a peer without reading from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// Nothing tells that it has left.
    Here,
    /// It has ended its direction. It may wait for ours, or be gone: that shows when something is written.
    HalfClosed,
    /// The stream is broken: nothing that is written will arrive.
    Gone,
}

/// Knows of a stream's peer. It may be asked when the stream is gone.
pub trait PeerWatch {
    /// What is known now. Never suspends, and asks nobody.
    fn presence(&self) -> Presence;
}

/// What [`Duplex::write_with`] calls: it may write once or more, and must not suspend.
pub type WriteOnce<'a> = dyn FnMut(&mut dyn Write) -> io::Result<usize> + 'a;

/// Writes to a non-blocking socket, and says so when it is full.
struct SocketWriter<'a>(BorrowedFd<'a>);

impl Write for SocketWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(send(self.0, bytes, SendFlags::NOSIGNAL)?)
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match slices {
            [one] => self.write(one),
            _ => Ok(sendmsg(self.0, slices, &mut SendAncillaryBuffer::default(), SendFlags::NOSIGNAL)?),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

macro_rules! socket_is_duplex {
    ($stream:ty $(, $extra:item)?) => {
        impl Duplex for $stream {
            fn read_some(&self, buffer: &mut [u8]) -> io::Result<usize> {
                Read::read(&mut &*self, buffer)
            }

            fn wait_readable(&self) -> io::Result<()> {
                match self.simulated() {
                    Some(_) => Ok(()),
                    None => self.descriptor().wait_readable(),
                }
            }

            fn try_read_some(&self, buffer: &mut [u8]) -> Option<io::Result<usize>> {
                self.try_read(buffer)
            }

            fn write_with(&self, write: &mut WriteOnce<'_>) -> io::Result<usize> {
                if let Some(stream) = self.simulated() {
                    return stream.write_with(write);
                }
                self.descriptor().write_with(|fd| {
                    let count = write(&mut SocketWriter(fd))?;
                    spend_bytes(count);
                    Ok(count)
                })
            }

            fn end(&self) -> io::Result<()> {
                self.shutdown(Shutdown::Write)
            }

            fn abort(&self) {
                // It fails when the peer was first to close: nothing is left to break off.
                let _ = self.shutdown(Shutdown::Both);
            }

            fn watch_peer(&self) -> Option<Rc<dyn PeerWatch>> {
                Some(match self.simulated() {
                    Some(stream) => stream.watch_peer(),
                    None => self.descriptor().watch_peer(),
                })
            }

            $($extra)?
        }
    };
}

socket_is_duplex!(
    TcpStream,
    fn keep_unsent_below(&self, bytes: u32) {
        // Only those ask for it that bring the crate; rustix does not know the option.
        #[cfg(any(feature = "tls", feature = "rpc"))]
        if self.simulated().is_none() {
            use std::os::fd::AsFd;
            // A kernel that does not know it buffers more: slower small calls, and no harm.
            let _ = socket2::SockRef::from(&self.descriptor().as_fd()).set_tcp_notsent_lowat(bytes);
        }
        #[cfg(not(any(feature = "tls", feature = "rpc")))]
        let _ = bytes;
    }
);
socket_is_duplex!(UnixStream);

impl<D: Duplex + ?Sized> Duplex for Box<D> {
    fn read_some(&self, buffer: &mut [u8]) -> io::Result<usize> {
        (**self).read_some(buffer)
    }

    fn wait_readable(&self) -> io::Result<()> {
        (**self).wait_readable()
    }

    fn try_read_some(&self, buffer: &mut [u8]) -> Option<io::Result<usize>> {
        (**self).try_read_some(buffer)
    }

    fn write_with(&self, write: &mut WriteOnce<'_>) -> io::Result<usize> {
        (**self).write_with(write)
    }

    fn write_slices(&self, slices: &mut [IoSlice<'_>]) -> io::Result<()> {
        (**self).write_slices(slices)
    }

    fn end(&self) -> io::Result<()> {
        (**self).end()
    }

    fn abort(&self) {
        (**self).abort();
    }

    fn keep_unsent_below(&self, bytes: u32) {
        (**self).keep_unsent_below(bytes);
    }

    fn taken_bytes(&self) -> Option<Rc<Cell<u64>>> {
        (**self).taken_bytes()
    }

    #[cfg(feature = "crypto")]
    fn peer_key(&self) -> Option<PublicKey> {
        (**self).peer_key()
    }

    fn watch_peer(&self) -> Option<Rc<dyn PeerWatch>> {
        (**self).watch_peer()
    }
}
