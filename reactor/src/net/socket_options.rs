//! What can be set on a socket: before it is bound with [`BindOptions`], later with methods. In a simulation they do
//! nothing.
//!
//! Only what servers and clients need is here; for the rest, each socket lends its descriptor (`AsFd`), which
//! `socket2::SockRef` takes. Sizes are as the kernel counts: it doubles what is asked for, and caps it at
//! `net.core.{r,w}mem_max`.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::net::{AddressFamily, Protocol, Shutdown as How, SocketFlags, SocketType, socket_with, sockopt};

use crate::sim;

use super::{Descriptor, TcpStream, UdpSocket, UnixStream};

/// How a socket is bound; the default is what [`super::TcpListener::bind`] does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BindOptions {
    /// Connections that the kernel keeps ready for `accept`, at most `net.core.somaxconn` of them. TCP alone.
    pub backlog: u32,
    /// Several sockets may bind the same address, and the kernel spreads clients over them (`SO_REUSEPORT`).
    pub reuse_port: bool,
    /// Several sockets may bind the same address, whoever made them, and each gets what is sent to a group
    /// (`SO_REUSEADDR`). For UDP; of a listener's address only old connections are passed over.
    pub reuse_address: bool,
    /// An IPv6 socket takes no IPv4 clients; where `None`, as the system has it (`net.ipv6.bindv6only`).
    pub only_v6: Option<bool>,
    /// Room for bytes that came and were not read yet. Accepted connections inherit it.
    pub receive_buffer_bytes: Option<usize>,
    /// Room for bytes that were written and have not left yet. Accepted connections inherit it.
    pub send_buffer_bytes: Option<usize>,
}

impl Default for BindOptions {
    fn default() -> Self {
        BindOptions {
            // The kernel lowers it to what the machine is set to, 4,096 by default.
            backlog: 4096,
            reuse_port: false,
            reuse_address: false,
            only_v6: None,
            receive_buffer_bytes: None,
            send_buffer_bytes: None,
        }
    }
}

impl BindOptions {
    /// Sets on a new socket what must be set before it is bound.
    pub(super) fn apply(&self, socket: BorrowedFd<'_>, is_v6: bool) -> io::Result<()> {
        if self.reuse_port {
            sockopt::set_socket_reuseport(socket, true)?;
        }
        if self.reuse_address {
            sockopt::set_socket_reuseaddr(socket, true)?;
        }
        if let Some(only_v6) = self.only_v6
            && is_v6
        {
            sockopt::set_ipv6_v6only(socket, only_v6)?;
        }
        if let Some(bytes) = self.receive_buffer_bytes {
            sockopt::set_socket_recv_buffer_size(socket, bytes)?;
        }
        if let Some(bytes) = self.send_buffer_bytes {
            sockopt::set_socket_send_buffer_size(socket, bytes)?;
        }
        Ok(())
    }

    /// The backlog as the kernel takes it.
    pub(super) fn backlog(&self) -> i32 {
        i32::try_from(self.backlog).unwrap_or(i32::MAX)
    }
}

/// A socket of the address's family that does not block.
pub(super) fn new_socket(address: SocketAddr, kind: SocketType, protocol: Protocol) -> io::Result<OwnedFd> {
    let family = if address.is_ipv6() { AddressFamily::INET6 } else { AddressFamily::INET };
    Ok(socket_with(family, kind, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC, Some(protocol))?)
}

/// When the kernel asks a silent peer whether it is still there, and gives it up: after `idle`, then `probe_count`
/// times every `interval`. Both are in whole seconds, 1 to 32,767.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keepalive {
    /// Silence before the first probe.
    pub idle: Duration,
    /// Time between two probes.
    pub interval: Duration,
    /// Probes without an answer until the connection counts as dead.
    pub probe_count: u32,
}

impl Default for Keepalive {
    fn default() -> Self {
        // 15 s: below the 30 s after which home routers forget a silent mapping; dead after another 30.
        Keepalive { idle: Duration::from_secs(15), interval: Duration::from_secs(10), probe_count: 3 }
    }
}

/// Who is at the other end of a Unix socket: as the kernel saw it when it connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerCredentials {
    /// The process; it may have ended since, and another may have its number.
    pub pid: u32,
    /// Its effective user.
    pub uid: u32,
    /// Its effective group.
    pub gid: u32,
}

/// Ends one direction of a connection or both.
pub(super) fn shutdown(descriptor: &Descriptor, how: std::net::Shutdown) -> io::Result<()> {
    let how = match how {
        std::net::Shutdown::Read => How::Read,
        std::net::Shutdown::Write => How::Write,
        std::net::Shutdown::Both => How::Both,
    };
    Ok(rustix::net::shutdown(descriptor, how)?)
}

impl TcpStream {
    /// Whether the kernel looks after a silent peer, and how; it does not unless asked to. Never suspends.
    ///
    /// A reader that waits learns of the peer's death by `TimedOut`.
    ///
    /// # Errors
    ///
    /// When a duration is under a second or too long.
    pub fn set_keepalive(&self, keepalive: Option<Keepalive>) -> io::Result<()> {
        if self.simulated().is_some() {
            return Ok(());
        }
        let descriptor = self.descriptor();
        if let Some(Keepalive { idle, interval, probe_count }) = keepalive {
            sockopt::set_tcp_keepidle(descriptor, idle)?;
            sockopt::set_tcp_keepintvl(descriptor, interval)?;
            sockopt::set_tcp_keepcnt(descriptor, probe_count)?;
        }
        Ok(sockopt::set_socket_keepalive(descriptor, keepalive.is_some())?)
    }

    /// How the kernel looks after a silent peer, if it does. Never suspends.
    ///
    /// # Errors
    ///
    /// None in practice.
    pub fn keepalive(&self) -> io::Result<Option<Keepalive>> {
        if self.simulated().is_some() {
            return Ok(None);
        }
        let descriptor = self.descriptor();
        if !sockopt::socket_keepalive(descriptor)? {
            return Ok(None);
        }
        Ok(Some(Keepalive {
            idle: sockopt::tcp_keepidle(descriptor)?,
            interval: sockopt::tcp_keepintvl(descriptor)?,
            probe_count: sockopt::tcp_keepcnt(descriptor)?,
        }))
    }

    /// Whether small writes go out at once; see [`TcpStream::set_nodelay`].
    ///
    /// # Errors
    ///
    /// None in practice.
    pub fn nodelay(&self) -> io::Result<bool> {
        if self.simulated().is_some() {
            return Ok(true);
        }
        Ok(sockopt::tcp_nodelay(self.descriptor())?)
    }
}

macro_rules! buffers_can_be_set {
    ($($socket:ty),*) => {$(
        impl $socket {
            /// Asks for room for `bytes` that came and were not read yet. Never suspends.
            ///
            /// # Errors
            ///
            /// None in practice: the kernel takes what it allows.
            pub fn set_receive_buffer_size(&self, bytes: usize) -> io::Result<()> {
                if self.simulated().is_some() {
                    return Ok(());
                }
                let descriptor = self.descriptor();
                Ok(sockopt::set_socket_recv_buffer_size(descriptor, bytes)?)
            }

            /// The room for bytes that came and were not read yet, as the kernel counts it.
            ///
            /// # Errors
            ///
            /// None in practice.
            pub fn receive_buffer_size(&self) -> io::Result<usize> {
                if let Some(process) = sim::here() {
                    return Ok(process.world().tcp_window_bytes());
                }
                let descriptor = self.descriptor();
                Ok(sockopt::socket_recv_buffer_size(descriptor)?)
            }

            /// Asks for room for `bytes` that were written and have not left yet. Never suspends.
            ///
            /// # Errors
            ///
            /// None in practice: the kernel takes what it allows.
            pub fn set_send_buffer_size(&self, bytes: usize) -> io::Result<()> {
                if self.simulated().is_some() {
                    return Ok(());
                }
                let descriptor = self.descriptor();
                Ok(sockopt::set_socket_send_buffer_size(descriptor, bytes)?)
            }

            /// The room for bytes that were written and have not left yet, as the kernel counts it.
            ///
            /// # Errors
            ///
            /// None in practice.
            pub fn send_buffer_size(&self) -> io::Result<usize> {
                if let Some(process) = sim::here() {
                    return Ok(process.world().tcp_window_bytes());
                }
                let descriptor = self.descriptor();
                Ok(sockopt::socket_send_buffer_size(descriptor)?)
            }
        }
    )*};
}

buffers_can_be_set!(TcpStream, UdpSocket, UnixStream);

impl UdpSocket {
    /// Whether datagrams may go to a broadcast address. Never suspends.
    ///
    /// # Errors
    ///
    /// None in practice.
    pub fn set_broadcast(&self, broadcast: bool) -> io::Result<()> {
        if self.simulated().is_some() {
            return Ok(());
        }
        let descriptor = self.descriptor();
        Ok(sockopt::set_socket_broadcast(descriptor, broadcast)?)
    }
}

impl UnixStream {
    /// Who connected, or listened, at the other end. The kernel vouches for it. Never suspends.
    ///
    /// # Errors
    ///
    /// None in practice.
    pub fn peer_credentials(&self) -> io::Result<PeerCredentials> {
        let credentials = sockopt::socket_peercred(self.descriptor())?;
        Ok(PeerCredentials {
            pid: credentials.pid.as_raw_nonzero().get().unsigned_abs(),
            uid: credentials.uid.as_raw(),
            gid: credentials.gid.as_raw(),
        })
    }
}
