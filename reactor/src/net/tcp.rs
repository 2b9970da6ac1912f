//! TCP.

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Instant;

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, SocketType, ipproto, recv, send, sockopt};

use super::accept::accept;
use super::backing::Backing;
use super::socket_options::{new_socket, shutdown};
use super::{BindOptions, Descriptor, IntoDestination, happy_eyeballs};
use crate::coroutine::begin;
use crate::sim;

/// A listening socket.
pub struct TcpListener {
    pub(super) socket: Backing<sim::TcpListener>,
}

/// A connection.
///
/// `Read` and `Write` are implemented for `&TcpStream` as well: one coroutine may read while another writes.
pub struct TcpStream {
    pub(super) socket: Backing<sim::TcpStream>,
}

impl TcpListener {
    /// Listens at `address`; the port may be 0 for any. The address may be taken again right after a restart.
    ///
    /// # Errors
    ///
    /// `AddrInUse` when another socket listens there, or another of the system's.
    ///
    /// # Suspends
    ///
    /// While a name is resolved, on another thread; never for a numeric address.
    pub fn bind<'a>(address: impl IntoDestination<'a>) -> io::Result<TcpListener> {
        TcpListener::bind_with(address, &BindOptions::default())
    }

    /// As [`TcpListener::bind`], with more to choose.
    ///
    /// # Errors
    ///
    /// As [`TcpListener::bind`].
    ///
    /// # Suspends
    ///
    /// As [`TcpListener::bind`].
    pub fn bind_with<'a>(
        address: impl IntoDestination<'a>,
        options: &BindOptions,
    ) -> io::Result<TcpListener> {
        let mut last = None;
        for address in address.into_destination()?.resolve()? {
            match TcpListener::bind_one(address, options) {
                Ok(listener) => return Ok(listener),
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(no_address))
    }

    fn bind_one(address: SocketAddr, options: &BindOptions) -> io::Result<TcpListener> {
        if let Some(process) = sim::here() {
            let listener = sim::TcpListener::bind(&process, address, options.backlog)?;
            return Ok(TcpListener { socket: Backing::Simulated(listener) });
        }
        let socket = new_socket(address, SocketType::STREAM, ipproto::TCP)?;
        sockopt::set_socket_reuseaddr(&socket, true)?;
        // What it accepts inherits this.
        sockopt::set_tcp_nodelay(&socket, true)?;
        options.apply(socket.as_fd(), address.is_ipv6())?;
        rustix::net::bind(&socket, &address)?;
        rustix::net::listen(&socket, options.backlog())?;
        Ok(TcpListener { socket: Backing::Kernel(Descriptor::from_nonblocking(socket)?) })
    }

    /// Takes the next connection. Nagle's delay is turned off on it.
    ///
    /// When the process is out of descriptors, or the kernel of memory, this waits for some rather than fail.
    ///
    /// # Errors
    ///
    /// None in practice; connections that broke off while they waited are passed over.
    ///
    /// # Suspends
    ///
    /// Until a client connects.
    pub fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        if let Some(listener) = self.socket.simulated() {
            let (stream, peer) = listener.accept()?;
            return Ok((TcpStream { socket: Backing::Simulated(stream) }, peer));
        }
        let (descriptor, address) = accept(self.descriptor())?;
        let address = address.and_then(|address| SocketAddr::try_from(address).ok());
        let address = address.ok_or_else(|| io::Error::other("the peer has no IP address"))?;
        Ok((TcpStream { socket: Backing::Kernel(descriptor) }, address))
    }

    /// The address it listens at.
    ///
    /// # Errors
    ///
    /// None in practice.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        match self.socket.simulated() {
            Some(socket) => Ok(socket.local_addr()),
            None => local_addr(self.descriptor().as_fd()),
        }
    }
}

impl TcpListener {
    fn descriptor(&self) -> &Descriptor {
        self.socket.descriptor()
    }
}

impl TcpStream {
    /// What it is made of, for [`super::Duplex`]: unless it is simulated.
    #[inline]
    pub(crate) fn descriptor(&self) -> &Descriptor {
        self.socket.descriptor()
    }

    #[inline]
    pub(super) fn simulated(&self) -> Option<&sim::TcpStream> {
        self.socket.simulated()
    }

    /// Connects to `address`; of a name's addresses, to the first that answers, IPv6 and IPv4 in turn every 250 ms
    /// ([`super::ATTEMPT_DELAY`]). Nagle's delay is turned off.
    ///
    /// # Errors
    ///
    /// The first address's error, if all fail; `NotFound` for a name that has none. Bound it with
    /// [`crate::timeout`]: the kernel gives up after minutes.
    ///
    /// # Suspends
    ///
    /// Until connected; while a name is resolved, on another thread.
    ///
    /// # Source
    ///
    /// RFC 8305 ("happy eyeballs").
    pub fn connect<'a>(address: impl IntoDestination<'a>) -> io::Result<TcpStream> {
        happy_eyeballs::connect(&address.into_destination()?)
    }

    /// Connects to one numeric address: see [`TcpStream::connect`].
    ///
    /// # Errors
    ///
    /// `ConnectionRefused` and its like.
    ///
    /// # Suspends
    ///
    /// Until connected.
    pub fn connect_one(address: SocketAddr) -> io::Result<TcpStream> {
        if let Some(process) = sim::here() {
            let stream = sim::TcpStream::connect(&process, address)?;
            return Ok(TcpStream { socket: Backing::Simulated(stream) });
        }
        connect_by(new_socket(address, SocketType::STREAM, ipproto::TCP)?, address)
    }

    /// As [`TcpStream::connect_one`], from an address of our own whose port other connections have too: the router lends that
    /// port once for all of them. The port may be 0 for any that can be shared from then on.
    ///
    /// Where the other side connects at the same moment, from `address` to `from`, the two meet in one connection (RFC 9293,
    /// section 3.5), which nobody has accepted.
    ///
    /// # Errors
    ///
    /// As [`TcpStream::connect_one`]; `AddrInUse` where somebody has the port who does not share it.
    ///
    /// # Suspends
    ///
    /// Until connected.
    pub(crate) fn connect_from(from: SocketAddr, address: SocketAddr) -> io::Result<TcpStream> {
        if let Some(process) = sim::here() {
            let stream = sim::TcpStream::connect_from(&process, from.port(), address)?;
            return Ok(TcpStream { socket: Backing::Simulated(stream) });
        }
        let socket = new_socket(address, SocketType::STREAM, ipproto::TCP)?;
        sockopt::set_socket_reuseaddr(&socket, true)?;
        sockopt::set_socket_reuseport(&socket, true)?;
        rustix::net::bind(&socket, &from)?;
        connect_by(socket, address)
    }
}

fn connect_by(socket: OwnedFd, address: SocketAddr) -> io::Result<TcpStream> {
    let call = begin();
    // Requests and answers are written whole, so waiting for more to send only adds delay.
    sockopt::set_tcp_nodelay(&socket, true)?;
    let pending = match rustix::net::connect(&socket, &address) {
        Ok(()) => false,
        Err(Errno::INPROGRESS) => true,
        Err(error) => return Err(error.into()),
    };
    let stream = TcpStream { socket: Backing::Kernel(Descriptor::from_nonblocking(socket)?) };
    if pending {
        // Writable once the handshake is over, either way.
        let mut first = true;
        stream.descriptor().write_with(|_| {
            if std::mem::take(&mut first) { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
        })?;
        sockopt::socket_error(stream.descriptor())??;
        call.over();
    } else {
        call.needed_no_wait();
    }
    Ok(stream)
}

impl TcpStream {
    /// Whether small writes wait for more to send (Nagle's algorithm); they do not unless asked to.
    ///
    /// # Errors
    ///
    /// When the connection is gone.
    pub fn set_nodelay(&self, nodelay: bool) -> io::Result<()> {
        if self.simulated().is_some() {
            return Ok(());
        }
        Ok(sockopt::set_tcp_nodelay(self.descriptor(), nodelay)?)
    }

    /// The other end's address.
    ///
    /// # Errors
    ///
    /// `NotConnected` when the connection is gone.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        if let Some(stream) = self.simulated() {
            return stream.peer_addr();
        }
        let address = rustix::net::getpeername(self.descriptor())?;
        address
            .and_then(|address| SocketAddr::try_from(address).ok())
            .ok_or_else(|| io::Error::other("the peer has no IP address"))
    }

    /// This end's address.
    ///
    /// # Errors
    ///
    /// None in practice.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        match self.socket.simulated() {
            Some(socket) => Ok(socket.local_addr()),
            None => local_addr(self.descriptor().as_fd()),
        }
    }

    /// Ends one direction or both: the peer reads an end of stream. Readers of this end wake.
    ///
    /// # Errors
    ///
    /// `NotConnected` when the connection is gone.
    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        match self.simulated() {
            Some(stream) => stream.shutdown(how),
            None => shutdown(self.descriptor(), how),
        }
    }

    /// Whether there is nothing to read: no bytes, no end, no error. Never suspends.
    pub(crate) fn is_quiet(&self) -> bool {
        let peek = |fd: BorrowedFd<'_>| Ok(recv(fd, &mut [0_u8], RecvFlags::PEEK).map(|(count, _)| count)?);
        match self.simulated() {
            Some(stream) => stream.is_quiet(),
            None => self.descriptor().try_read_with(peek).is_none(),
        }
    }

    /// Until when reads may wait; see [`Descriptor::set_read_deadline`].
    pub fn set_read_deadline(&self, deadline: Option<Instant>) {
        match self.simulated() {
            Some(stream) => stream.set_read_deadline(deadline),
            None => self.descriptor().set_read_deadline(deadline),
        }
    }

    /// Until when writes may wait; see [`Descriptor::set_write_deadline`].
    pub fn set_write_deadline(&self, deadline: Option<Instant>) {
        match self.simulated() {
            Some(stream) => stream.set_write_deadline(deadline),
            None => self.descriptor().set_write_deadline(deadline),
        }
    }
}

fn local_addr(fd: BorrowedFd<'_>) -> io::Result<SocketAddr> {
    SocketAddr::try_from(rustix::net::getsockname(fd)?).map_err(io::Error::from)
}

pub(super) fn no_address() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "the name has no address")
}

/// `Read` and `Write` for a stream socket with a `descriptor()`, or a `simulated()` stream instead, by value and by
/// shared reference. Of some streams a short read tells that they are drained: see [`Descriptor`].
macro_rules! stream_io {
    ($stream:ty, short_is_drained: $short_is_drained:literal) => {
        impl $stream {
            /// Reads if there is something to read, or the stream is simulated.
            #[inline]
            pub(super) fn try_read(&self, buffer: &mut [u8]) -> Option<io::Result<usize>> {
                if let Some(stream) = self.simulated() {
                    return Some(stream.read(buffer));
                }
                let len = if $short_is_drained { buffer.len() } else { 0 };
                self.descriptor().try_read_stream(len, |fd| {
                    Ok(recv(fd, &mut *buffer, RecvFlags::empty()).map(|(count, _)| count)?)
                })
            }
        }

        impl Read for &$stream {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                if let Some(stream) = self.simulated() {
                    return stream.read(buffer);
                }
                let len = if $short_is_drained { buffer.len() } else { 0 };
                self.descriptor().read_stream(len, |fd| {
                    Ok(recv(fd, &mut *buffer, RecvFlags::empty()).map(|(count, _)| count)?)
                })
            }

            fn read_vectored(&mut self, buffers: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
                if let Some(stream) = self.simulated() {
                    return stream.read_vectored(buffers);
                }
                let len = if $short_is_drained { buffers.iter().map(|buffer| buffer.len()).sum() } else { 0 };
                self.descriptor().read_stream(len, |fd| Ok(rustix::io::readv(fd, buffers)?))
            }
        }

        impl Write for &$stream {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                if let Some(stream) = self.simulated() {
                    return stream.write_with(&mut |writer| writer.write(bytes));
                }
                // NOSIGNAL: a peer that is gone is an error here, not the end of the process.
                self.descriptor().write_stream(bytes.len(), |fd| Ok(send(fd, bytes, SendFlags::NOSIGNAL)?))
            }

            fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
                if let Some(stream) = self.simulated() {
                    return stream.write_with(&mut |writer| writer.write_vectored(slices));
                }
                let len = slices.iter().map(|slice| slice.len()).sum();
                self.descriptor().write_stream(len, |fd| {
                    Ok(rustix::net::sendmsg(
                        fd,
                        slices,
                        &mut rustix::net::SendAncillaryBuffer::default(),
                        SendFlags::NOSIGNAL,
                    )?)
                })
            }

            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }

        impl Read for $stream {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                (&*self).read(buffer)
            }

            fn read_vectored(&mut self, buffers: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
                (&*self).read_vectored(buffers)
            }
        }

        impl Write for $stream {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                (&*self).write(bytes)
            }

            fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
                (&*self).write_vectored(slices)
            }

            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }

        impl AsFd for $stream {
            fn as_fd(&self) -> BorrowedFd<'_> {
                self.descriptor().as_fd()
            }
        }
    };
}

pub(super) use stream_io;

stream_io!(TcpStream, short_is_drained: true);

/// # Panics
///
/// In a simulation: there is no descriptor.
impl AsFd for TcpListener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor().as_fd()
    }
}
