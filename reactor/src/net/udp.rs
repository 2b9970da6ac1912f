//! UDP.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Instant;

use rustix::net::{RecvFlags, SendFlags, SocketType, ipproto, sockopt};

use super::backing::Backing;
use super::socket_options::new_socket;
use super::tcp::no_address;
use super::{BindOptions, Descriptor, IntoDestination};
use crate::coroutine::pass;
use crate::sim;

/// A UDP socket. Sending and receiving take `&self`: several coroutines may share it.
pub struct UdpSocket {
    pub(super) socket: Backing<sim::UdpSocket>,
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
    /// While a name is resolved, on another thread; never for a numeric address.
    pub fn bind<'a>(address: impl IntoDestination<'a>) -> io::Result<UdpSocket> {
        UdpSocket::bind_with(address, &BindOptions::default())
    }

    /// As [`UdpSocket::bind`], with more to choose.
    ///
    /// # Errors
    ///
    /// As [`UdpSocket::bind`].
    ///
    /// # Suspends
    ///
    /// As [`UdpSocket::bind`].
    pub fn bind_with<'a>(address: impl IntoDestination<'a>, options: &BindOptions) -> io::Result<UdpSocket> {
        let mut last = None;
        for address in address.into_destination()?.resolve()? {
            match UdpSocket::bind_one(address, options) {
                Ok(socket) => return Ok(socket),
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(no_address))
    }

    fn bind_one(address: SocketAddr, options: &BindOptions) -> io::Result<UdpSocket> {
        if let Some(process) = sim::here() {
            return Ok(UdpSocket { socket: Backing::Simulated(sim::UdpSocket::bind(&process, address)?) });
        }
        let socket = new_socket(address, SocketType::DGRAM, ipproto::UDP)?;
        options.apply(socket.as_fd(), address.is_ipv6())?;
        rustix::net::bind(&socket, &address)?;
        Ok(UdpSocket { socket: Backing::Kernel(Descriptor::from_nonblocking(socket)?) })
    }

    /// What it is made of, unless it is simulated.
    pub(super) fn descriptor(&self) -> &Descriptor {
        self.socket.descriptor()
    }

    pub(super) fn simulated(&self) -> Option<&sim::UdpSocket> {
        self.socket.simulated()
    }

    /// Makes `peer` the peer: [`UdpSocket::send`] goes there, and only its datagrams are taken. Never suspends.
    ///
    /// # Errors
    ///
    /// When there is no route to it.
    pub fn connect(&self, peer: SocketAddr) -> io::Result<()> {
        if let Some(socket) = self.simulated() {
            socket.connect(peer);
            return Ok(());
        }
        Ok(rustix::net::connect(self.descriptor(), &peer)?)
    }

    /// Sends one datagram to the connected peer; returns its size in bytes.
    ///
    /// # Errors
    ///
    /// `ConnectionRefused` when the peer's machine has said that nobody listens there; `EDESTADDRREQ` before
    /// [`UdpSocket::connect`]; as [`UdpSocket::send_to`].
    ///
    /// # Suspends
    ///
    /// While the socket's buffer is full.
    pub fn send(&self, datagram: &[u8]) -> io::Result<usize> {
        if let Some(socket) = self.simulated() {
            pass();
            return socket.send(datagram);
        }
        self.descriptor().write_with(|fd| Ok(rustix::net::send(fd, datagram, SendFlags::NOSIGNAL)?))
    }

    /// Receives one datagram of the connected peer (of anyone, before [`UdpSocket::connect`]): its size in bytes.
    /// What does not fit into `buffer` is lost.
    ///
    /// # Errors
    ///
    /// `TimedOut` after the read deadline; `ConnectionRefused` as with [`UdpSocket::send`].
    ///
    /// # Suspends
    ///
    /// Until one comes.
    pub fn recv(&self, buffer: &mut [u8]) -> io::Result<usize> {
        if let Some(socket) = self.simulated() {
            return socket.recv_from(buffer).map(|(count, _)| count);
        }
        self.descriptor().read_with(|fd| {
            Ok(rustix::net::recv(fd, &mut *buffer, RecvFlags::empty()).map(|(count, _)| count)?)
        })
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
        if let Some(socket) = self.simulated() {
            pass();
            return socket.send_to(datagram, to);
        }
        self.descriptor().write_with(|fd| Ok(rustix::net::sendto(fd, datagram, SendFlags::NOSIGNAL, &to)?))
    }

    /// As [`UdpSocket::send_to`], and never waits: for what is worth less than the time.
    ///
    /// # Errors
    ///
    /// `WouldBlock` when the socket's buffer is full; as [`UdpSocket::send_to`].
    ///
    /// # Suspends
    ///
    /// Never.
    pub fn try_send_to(&self, datagram: &[u8], to: SocketAddr) -> io::Result<usize> {
        if let Some(socket) = self.simulated() {
            return socket.send_to(datagram, to);
        }
        Ok(rustix::net::sendto(self.descriptor(), datagram, SendFlags::NOSIGNAL, &to)?)
    }

    /// As [`UdpSocket::try_send_to`], no further than `hops` routers. Where it is simulated, it goes through its own router only.
    ///
    /// # Errors
    ///
    /// As [`UdpSocket::try_send_to`].
    ///
    /// # Suspends
    ///
    /// Never.
    pub(crate) fn try_send_near(&self, datagram: &[u8], to: SocketAddr, hops: u8) -> io::Result<usize> {
        if let Some(socket) = self.simulated() {
            return socket.send_near(datagram, to);
        }
        let socket = self.descriptor();
        if to.ip().to_canonical().is_ipv4() {
            let before = sockopt::ip_ttl(socket)?;
            sockopt::set_ip_ttl(socket, hops.into())?;
            let sent = self.try_send_to(datagram, to);
            sockopt::set_ip_ttl(socket, before)?;
            sent
        } else {
            sockopt::set_ipv6_unicast_hops(socket, Some(hops))?;
            let sent = self.try_send_to(datagram, to);
            // As the system has it.
            sockopt::set_ipv6_unicast_hops(socket, None)?;
            sent
        }
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
        if let Some(socket) = self.simulated() {
            return socket.recv_from(buffer);
        }
        self.descriptor().read_with(|fd| {
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
        if let Some(socket) = self.simulated() {
            return Ok(socket.local_addr());
        }
        SocketAddr::try_from(rustix::net::getsockname(self.descriptor())?).map_err(io::Error::from)
    }

    /// Until when receiving may wait.
    pub fn set_read_deadline(&self, deadline: Option<Instant>) {
        match self.simulated() {
            Some(socket) => socket.set_read_deadline(deadline),
            None => self.descriptor().set_read_deadline(deadline),
        }
    }

    /// Until when sending may wait.
    pub fn set_write_deadline(&self, deadline: Option<Instant>) {
        // A simulated one never waits to send.
        if self.simulated().is_none() {
            self.descriptor().set_write_deadline(deadline);
        }
    }
}

impl AsFd for UdpSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor().as_fd()
    }
}
