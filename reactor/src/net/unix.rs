//! Unix-domain sockets, stream and datagram.

use std::ffi::OsStr;
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net as std_unix;
use std::path::{Path, PathBuf};
use std::time::Instant;

use rustix::net::{RecvFlags, SendFlags, SocketAddrUnix, recv, recvfrom, send};

use super::Descriptor;
use super::accept::accept;
use super::socket_options::shutdown;
use super::tcp::stream_io;
use crate::sim;

/// A listening socket at a path.
pub struct UnixListener {
    pub(super) descriptor: Descriptor,
}

/// A connection on this machine. As with TCP, one coroutine may read while another writes.
pub struct UnixStream {
    pub(super) descriptor: Descriptor,
}

/// A socket for datagrams on this machine.
pub struct UnixDatagram {
    pub(super) descriptor: Descriptor,
}

impl UnixListener {
    /// Listens at `path`, which must not exist; it is not removed at the end. Never suspends.
    ///
    /// # Errors
    ///
    /// `AddrInUse` when the path exists.
    pub fn bind(path: impl AsRef<Path>) -> io::Result<UnixListener> {
        let listener = std_unix::UnixListener::bind(path)?;
        Ok(UnixListener { descriptor: Descriptor::new(listener.into())? })
    }

    /// Takes the next connection. When the process is out of descriptors, this waits for one rather than fail.
    ///
    /// # Errors
    ///
    /// None in practice.
    ///
    /// # Suspends
    ///
    /// Until a client connects.
    pub fn accept(&self) -> io::Result<UnixStream> {
        Ok(UnixStream { descriptor: accept(&self.descriptor)?.0 })
    }
}

impl UnixStream {
    /// What it is made of, for [`super::Duplex`].
    pub(crate) fn descriptor(&self) -> &Descriptor {
        &self.descriptor
    }

    /// There are none in a simulation.
    #[inline]
    pub(super) fn simulated(&self) -> Option<&sim::TcpStream> {
        None
    }

    /// Connects to the listener at `path`. Never suspends: the kernel answers at once.
    ///
    /// # Errors
    ///
    /// `NotFound`, `ConnectionRefused`; `WouldBlock` when too many clients wait to be accepted.
    pub fn connect(path: impl AsRef<Path>) -> io::Result<UnixStream> {
        let address = SocketAddrUnix::new(path.as_ref())?;
        let socket = rustix::net::socket_with(
            rustix::net::AddressFamily::UNIX,
            rustix::net::SocketType::STREAM,
            rustix::net::SocketFlags::NONBLOCK | rustix::net::SocketFlags::CLOEXEC,
            None,
        )?;
        rustix::net::connect(&socket, &address)?;
        Ok(UnixStream { descriptor: Descriptor::from_nonblocking(socket)? })
    }

    /// Two ends of one connection. Never suspends.
    ///
    /// # Errors
    ///
    /// When the process is out of descriptors.
    pub fn pair() -> io::Result<(UnixStream, UnixStream)> {
        let (left, right) = std_unix::UnixStream::pair()?;
        Ok((
            UnixStream { descriptor: Descriptor::new(left.into())? },
            UnixStream { descriptor: Descriptor::new(right.into())? },
        ))
    }

    /// Ends one direction or both.
    ///
    /// # Errors
    ///
    /// `NotConnected` when the connection is gone.
    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        shutdown(&self.descriptor, how)
    }

    /// Until when reads may wait.
    pub fn set_read_deadline(&self, deadline: Option<Instant>) {
        self.descriptor.set_read_deadline(deadline);
    }

    /// Until when writes may wait.
    pub fn set_write_deadline(&self, deadline: Option<Instant>) {
        self.descriptor.set_write_deadline(deadline);
    }
}

stream_io!(UnixStream, short_is_drained: false);

impl UnixDatagram {
    /// Binds a socket to `path`, which must not exist. Never suspends.
    ///
    /// # Errors
    ///
    /// `AddrInUse` when the path exists.
    pub fn bind(path: impl AsRef<Path>) -> io::Result<UnixDatagram> {
        Ok(UnixDatagram { descriptor: Descriptor::new(std_unix::UnixDatagram::bind(path)?.into())? })
    }

    /// A socket without a path: it can send, and be answered over [`UnixDatagram::pair`] only. Never suspends.
    ///
    /// # Errors
    ///
    /// When the process is out of descriptors.
    pub fn unbound() -> io::Result<UnixDatagram> {
        Ok(UnixDatagram { descriptor: Descriptor::new(std_unix::UnixDatagram::unbound()?.into())? })
    }

    /// Makes the socket at `path` the peer: [`UnixDatagram::send`] goes there, and only its datagrams are taken.
    /// Never suspends.
    ///
    /// # Errors
    ///
    /// `NotFound`, `ConnectionRefused`.
    pub fn connect(&self, path: impl AsRef<Path>) -> io::Result<()> {
        let to = SocketAddrUnix::new(path.as_ref())?;
        Ok(rustix::net::connect(&self.descriptor, &to)?)
    }

    /// Two sockets connected to each other. Never suspends.
    ///
    /// # Errors
    ///
    /// When the process is out of descriptors.
    pub fn pair() -> io::Result<(UnixDatagram, UnixDatagram)> {
        let (left, right) = std_unix::UnixDatagram::pair()?;
        Ok((
            UnixDatagram { descriptor: Descriptor::new(left.into())? },
            UnixDatagram { descriptor: Descriptor::new(right.into())? },
        ))
    }

    /// Sends one datagram to the connected peer.
    ///
    /// # Errors
    ///
    /// `NotConnected`, `ConnectionRefused`.
    ///
    /// # Suspends
    ///
    /// While the peer's buffer is full.
    pub fn send(&self, datagram: &[u8]) -> io::Result<usize> {
        self.descriptor.write_with(|fd| Ok(send(fd, datagram, SendFlags::NOSIGNAL)?))
    }

    /// Sends one datagram to the socket at `path`.
    ///
    /// # Errors
    ///
    /// `NotFound`, `ConnectionRefused`.
    ///
    /// # Suspends
    ///
    /// While its buffer is full.
    pub fn send_to(&self, datagram: &[u8], path: impl AsRef<Path>) -> io::Result<usize> {
        let to = SocketAddrUnix::new(path.as_ref())?;
        self.descriptor.write_with(|fd| Ok(rustix::net::sendto(fd, datagram, SendFlags::NOSIGNAL, &to)?))
    }

    /// Receives one datagram: its size in bytes. What does not fit into `buffer` is lost.
    ///
    /// # Errors
    ///
    /// Those of the socket.
    ///
    /// # Suspends
    ///
    /// Until one comes.
    pub fn recv(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.descriptor
            .read_with(|fd| Ok(recv(fd, &mut *buffer, RecvFlags::empty()).map(|(count, _)| count)?))
    }

    /// Receives one datagram: its size in bytes, and the path of the socket it came from, if that has one. What does
    /// not fit into `buffer` is lost.
    ///
    /// # Errors
    ///
    /// Those of the socket.
    ///
    /// # Suspends
    ///
    /// Until one comes.
    pub fn recv_from(&self, buffer: &mut [u8]) -> io::Result<(usize, Option<PathBuf>)> {
        self.descriptor.read_with(|fd| {
            let (count, _, from) = recvfrom(fd, &mut *buffer, RecvFlags::empty())?;
            let from = from.and_then(|from| SocketAddrUnix::try_from(from).ok());
            let path = from.and_then(|from| from.path_bytes().map(|path| OsStr::from_bytes(path).into()));
            Ok((count, path))
        })
    }

    /// Until when receiving may wait.
    pub fn set_read_deadline(&self, deadline: Option<Instant>) {
        self.descriptor.set_read_deadline(deadline);
    }

    /// Until when sending may wait.
    pub fn set_write_deadline(&self, deadline: Option<Instant>) {
        self.descriptor.set_write_deadline(deadline);
    }
}

impl AsFd for UnixListener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

impl AsFd for UnixDatagram {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}
