//! UDP.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs, UdpSocket as StdUdpSocket};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Instant;

use rustix::net::{RecvFlags, SendFlags};

use super::Descriptor;

/// A UDP socket. Sending and receiving take `&self`: several coroutines may share it.
pub struct UdpSocket {
    descriptor: Descriptor,
}

impl UdpSocket {
    /// Binds a socket to `address`; the port may be 0 for any.
    ///
    /// # Errors
    ///
    /// `AddrInUse` when the port is taken.
    ///
    /// # Suspends
    ///
    /// Never; a name that must be resolved blocks the thread, so give a numeric address.
    pub fn bind(address: impl ToSocketAddrs) -> io::Result<UdpSocket> {
        let socket = StdUdpSocket::bind(address)?;
        Ok(UdpSocket { descriptor: Descriptor::new(socket.into())? })
    }

    /// Sends one datagram; returns its size in bytes.
    ///
    /// # Errors
    ///
    /// `TimedOut` after the write deadline; `EMSGSIZE` when it is too long.
    ///
    /// # Suspends
    ///
    /// While the socket's buffer is full.
    pub fn send_to(&self, datagram: &[u8], to: SocketAddr) -> io::Result<usize> {
        self.descriptor.write_with(|fd| Ok(rustix::net::sendto(fd, datagram, SendFlags::NOSIGNAL, &to)?))
    }

    /// Receives one datagram: its size in bytes and its sender. What does not fit into `buffer` is lost.
    ///
    /// # Errors
    ///
    /// `TimedOut` after the read deadline.
    ///
    /// # Suspends
    ///
    /// Until one comes.
    pub fn recv_from(&self, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        self.descriptor.read_with(|fd| {
            let (count, _, from) = rustix::net::recvfrom(fd, &mut *buffer, RecvFlags::empty())?;
            let from = from.and_then(|from| SocketAddr::try_from(from).ok());
            Ok((count, from.ok_or_else(|| io::Error::other("the sender has no IP address"))?))
        })
    }

    /// The address it is bound to.
    ///
    /// # Errors
    ///
    /// None in practice.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        SocketAddr::try_from(rustix::net::getsockname(&self.descriptor)?).map_err(io::Error::from)
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

impl AsFd for UdpSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}
