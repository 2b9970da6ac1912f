//! The socket of an endpoint: batches and segments with the kernel, single datagrams in a simulation.
//!
//! One `sendmsg` carries up to 32 datagrams that the kernel cuts apart (GSO), and one `recvmmsg` brings up to eight
//! buffers that it has joined (GRO): without them QUIC moves a third as much. What is under a datagram, the bits of
//! congestion (ECN) and the address that it was sent to, goes along both ways.

use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr};

use quinn_proto::{EcnCodepoint, Transmit};
use quinn_udp::{RecvMeta, UdpSocketState};
use rustix::io::Errno;

use crate::net::UdpSocket;
use crate::select::source::Source;

/// The most datagrams in one send. More gains little, and the kernel takes no more than 64 KiB.
const SEGMENTS_MAX: usize = 32;

/// What the kernel may keep for us while we send or others run: 20 ms of a gigabit. It gives less where it is told to.
const KERNEL_BUFFER_BYTES: usize = 2 << 20;

/// Bytes of one receive buffer: what the kernel joins at most.
const BUFFER_BYTES: usize = 64 << 10;

/// Buffers that one system call fills.
const BUFFER_COUNT: usize = 8;

pub(super) struct Wire {
    socket: UdpSocket,
    /// What the kernel can do; `None` in a simulation.
    kernel: Option<UdpSocketState>,
}

/// A datagram that came.
pub(super) struct Received<'a> {
    pub(super) from: SocketAddr,
    pub(super) to: Option<IpAddr>,
    pub(super) ecn: Option<EcnCodepoint>,
    pub(super) bytes: &'a [u8],
}

/// Where datagrams are received into. Pages that were never written cost nothing.
pub(super) struct Buffers(Vec<u8>);

impl Buffers {
    pub(super) fn new() -> Buffers {
        Buffers(vec![0; BUFFER_BYTES * BUFFER_COUNT])
    }
}

impl Wire {
    pub(super) fn new(socket: UdpSocket) -> io::Result<Wire> {
        if socket.simulated().is_some() {
            return Ok(Wire { socket, kernel: None });
        }
        // Nobody else's deadlines are to cut off what the endpoint waits for.
        socket.set_write_deadline(None);
        let kernel = UdpSocketState::new((&socket).into())?;
        // Without them more is lost in bursts, and sent again.
        let _ = kernel.set_recv_buffer_size((&socket).into(), KERNEL_BUFFER_BYTES);
        let _ = kernel.set_send_buffer_size((&socket).into(), KERNEL_BUFFER_BYTES);
        Ok(Wire { socket, kernel: Some(kernel) })
    }

    pub(super) fn socket(&self) -> &UdpSocket {
        &self.socket
    }

    /// How many datagrams one send may carry.
    pub(super) fn segments_max(&self) -> usize {
        self.kernel.as_ref().map_or(1, |kernel| kernel.max_gso_segments().clamp(1, SEGMENTS_MAX))
    }

    /// Whether the path's largest datagram can be searched for: not where datagrams would be cut up on the way.
    pub(super) fn finds_mtu(&self) -> bool {
        self.kernel.as_ref().is_none_or(|kernel| !kernel.may_fragment())
    }

    /// Sends, and waits while the socket is full. A datagram that can't be sent is one that was lost.
    pub(super) fn send(&self, transmit: &Transmit, bytes: &[u8]) -> io::Result<()> {
        let sent = match &self.kernel {
            None => self.socket.send_to(bytes, transmit.destination).map(drop),
            Some(kernel) => {
                let transmit = with_bytes(transmit, bytes);
                self.socket.descriptor().write_with(|fd| kernel.try_send((&fd).into(), &transmit))
            }
        };
        sent.inspect_err(|error| {
            tracing::debug!("QUIC: {} bytes to {}: {error}", transmit.size, transmit.destination);
        })
    }

    /// As [`Wire::send`], and lost where the socket is full.
    pub(super) fn try_send(&self, transmit: &Transmit, bytes: &[u8]) {
        let _ = match &self.kernel {
            None => self.socket.try_send_to(bytes, transmit.destination).map(drop),
            Some(kernel) => kernel.try_send((&self.socket).into(), &with_bytes(transmit, bytes)),
        };
    }

    /// Gives what has come to `take`, one system call's worth; whether there was anything. Never waits.
    pub(super) fn receive(
        &self,
        buffers: &mut Buffers,
        mut take: impl FnMut(Received<'_>),
    ) -> io::Result<bool> {
        let Some(kernel) = &self.kernel else {
            if !self.socket.is_ready() {
                return Ok(false);
            }
            let (size, from) = self.socket.recv_from(&mut buffers.0)?;
            take(Received { from, to: None, ecn: None, bytes: &buffers.0[..size] });
            return Ok(true);
        };
        let mut metas = [RecvMeta::default(); BUFFER_COUNT];
        let received = self.socket.descriptor().try_read_with(|fd| {
            let mut parts = buffers.0.chunks_exact_mut(BUFFER_BYTES);
            let mut slices: [IoSliceMut<'_>; BUFFER_COUNT] =
                std::array::from_fn(|_| IoSliceMut::new(parts.next().expect("as many parts as buffers")));
            kernel.recv((&fd).into(), &mut slices, &mut metas)
        });
        let count = match received {
            None => return Ok(false),
            Some(Err(error)) if trouble(&error) == Trouble::OfOnePacket => return Ok(true),
            Some(received) => received?,
        };
        for (meta, buffer) in metas[..count].iter().zip(buffers.0.chunks_exact(BUFFER_BYTES)) {
            let ecn = meta.ecn.and_then(|ecn| EcnCodepoint::from_bits(ecn as u8));
            for bytes in buffer[..meta.len].chunks(meta.stride.max(1)) {
                take(Received { from: meta.addr, to: meta.dst_ip, ecn, bytes });
            }
        }
        Ok(true)
    }
}

/// What an error of receiving says of the socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    /// One packet's: somebody's machine or router has said that it did not arrive, or a signal came.
    OfOnePacket,
    /// The kernel has no memory for us at the moment.
    OfAMoment,
    /// Nothing will come of it any more.
    Lasting,
}

/// What to make of an error of receiving. A list of what passes, since who takes a dead socket for a passing trouble spins.
pub(super) fn trouble(error: &io::Error) -> Trouble {
    match Errno::from_io_error(error) {
        Some(
            Errno::CONNREFUSED
            | Errno::INTR
            | Errno::CONNRESET
            | Errno::HOSTUNREACH
            | Errno::NETUNREACH
            | Errno::HOSTDOWN
            | Errno::NETDOWN
            | Errno::NETRESET
            | Errno::PROTO
            | Errno::NOPROTOOPT
            | Errno::MSGSIZE
            | Errno::ACCESS
            | Errno::PERM,
        ) => Trouble::OfOnePacket,
        Some(Errno::NOBUFS | Errno::NOMEM) => Trouble::OfAMoment,
        _ => Trouble::Lasting,
    }
}

/// Whether an error of sending says that there is no way to the address, and not only that a packet was lost.
pub(super) fn is_no_way(error: &io::Error) -> bool {
    use std::io::ErrorKind::{AddrNotAvailable, HostUnreachable, NetworkUnreachable, PermissionDenied};
    matches!(error.kind(), AddrNotAvailable | HostUnreachable | NetworkUnreachable | PermissionDenied)
}

fn with_bytes<'a>(transmit: &Transmit, bytes: &'a [u8]) -> quinn_udp::Transmit<'a> {
    quinn_udp::Transmit {
        destination: transmit.destination,
        ecn: transmit.ecn.and_then(|ecn| quinn_udp::EcnCodepoint::from_bits(ecn as u8)),
        contents: bytes,
        segment_size: transmit.segment_size,
        src_ip: transmit.src_ip,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_will_never_pass_ends_an_endpoint() {
        let of = |errno: Errno| trouble(&errno.into());
        for errno in [Errno::CONNREFUSED, Errno::CONNRESET, Errno::HOSTUNREACH, Errno::PERM, Errno::INTR] {
            assert_eq!(of(errno), Trouble::OfOnePacket, "{errno:?}");
        }
        for errno in [Errno::NOBUFS, Errno::NOMEM] {
            assert_eq!(of(errno), Trouble::OfAMoment, "{errno:?}");
        }
        for errno in [Errno::BADF, Errno::NOTSOCK, Errno::INVAL] {
            assert_eq!(of(errno), Trouble::Lasting, "{errno:?}");
        }
        // A simulated machine that has crashed.
        assert_eq!(trouble(&io::ErrorKind::ConnectionAborted.into()), Trouble::Lasting);
    }
}
