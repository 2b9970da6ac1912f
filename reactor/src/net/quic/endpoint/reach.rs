//! Which real address a datagram goes to, and what comes on other ways than the socket.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::rc::{Rc, Weak};

use quinn_proto::Transmit;

use super::super::connection::Inner;
use super::super::lane::{Protocol, protocol_of};
use super::super::routes::virtual_number;
use super::super::wire::Received;
use super::{Endpoint, Shared};
use crate::nat::stun;
use crate::net::{UdpSocket, source_towards};

impl Endpoint {
    pub(crate) fn downgrade(&self) -> WeakEndpoint {
        WeakEndpoint(Rc::downgrade(&self.shared))
    }
}

/// An endpoint, to who brings it datagrams and must not keep it. Its methods never suspend, and do nothing when the endpoint
/// is gone.
#[derive(Clone)]
pub(crate) struct WeakEndpoint(Weak<Shared>);

impl WeakEndpoint {
    /// A datagram has come, on another way than the socket, from who has that virtual address.
    pub(crate) fn on_datagram(&self, from: SocketAddr, bytes: &[u8]) {
        if let Some(shared) = self.0.upgrade()
            && protocol_of(bytes) == Some(Protocol::Quic)
        {
            shared.on_quic(&Received { from, to: None, ecn: None, bytes });
            shared.tell();
        }
    }

    /// There is no way to the virtual address: whoever dials it is told `reason`.
    pub(crate) fn on_unreachable(&self, address: SocketAddr, reason: &str) {
        let Some(shared) = self.0.upgrade() else { return };
        let all: Vec<Rc<Inner>> = shared.connections.borrow().values().cloned().collect();
        all.iter().for_each(|inner| inner.on_unreachable(address, reason));
    }

    /// Sends a packet from the endpoint's socket, if that has room.
    pub(crate) fn send_to(&self, packet: &[u8], to: SocketAddr) {
        self.send(to, |socket, to| socket.try_send_to(packet, to));
    }

    /// As [`WeakEndpoint::send_to`], from that address of ours: whoever asked one hears nothing that another says.
    pub(crate) fn send_from(&self, own: IpAddr, packet: &[u8], to: SocketAddr) {
        let Some(shared) = self.0.upgrade() else { return };
        let Ok(destination) = shared.as_the_socket_sees(to) else { return };
        let transmit =
            Transmit { destination, ecn: None, size: packet.len(), segment_size: None, src_ip: Some(own) };
        shared.wire.try_send(&transmit, packet);
    }

    /// As [`WeakEndpoint::send_to`], no further than `hops` routers.
    pub(crate) fn send_near(&self, packet: &[u8], to: SocketAddr, hops: u8) {
        self.send(to, |socket, to| socket.try_send_near(packet, to, hops));
    }

    fn send(&self, to: SocketAddr, send: impl FnOnce(&UdpSocket, SocketAddr) -> io::Result<usize>) {
        let Some(shared) = self.0.upgrade() else { return };
        let sent = shared.as_the_socket_sees(to).and_then(|to| send(shared.socket(), to));
        if let Err(error) = sent {
            tracing::trace!("a packet to {to} is lost: {error}");
        }
    }
}

impl Shared {
    /// Whether what was sent to that address was meant for us, and not for all in a network.
    pub(super) fn is_ours_alone(&self, to: IpAddr) -> bool {
        if self.reached_at.get() == Some(to) {
            return true;
        }
        let any_port = SocketAddr::new(to.to_canonical(), 9);
        // A network's own broadcast address only the kernel knows: it connects nobody to one who has not asked for that.
        let is_of_a_network = || {
            to.to_canonical().is_ipv4()
                && source_towards(any_port).is_err_and(|error| error.kind() == ErrorKind::PermissionDenied)
        };
        let is_ours = stun::is_of_one_machine(any_port) && !is_of_a_network();
        if is_ours {
            self.reached_at.set(Some(to));
        }
        is_ours
    }

    /// A socket for both families calls those of IPv4 by another name; one for IPv4 reaches no others.
    pub(super) fn as_the_socket_sees(&self, to: SocketAddr) -> io::Result<SocketAddr> {
        match (self.socket().local_addr()?, to) {
            (SocketAddr::V6(_), SocketAddr::V4(to)) => {
                Ok(SocketAddr::new(to.ip().to_ipv6_mapped().into(), to.port()))
            }
            (SocketAddr::V4(_), SocketAddr::V6(_)) => {
                let reason =
                    format!("{to} can't be reached from an endpoint at an IPv4 address: bind one at [::]");
                Err(io::Error::new(ErrorKind::InvalidInput, reason))
            }
            _ => Ok(to),
        }
    }

    /// Finds the real address where the destination is a virtual one; whether there is anything left to send from our socket.
    pub(in super::super) fn route(&self, transmit: &mut Transmit, buffer: &[u8]) -> bool {
        if virtual_number(transmit.destination.ip()).is_none() {
            return true;
        }
        let bytes = &buffer[..transmit.size];
        let segment = transmit.segment_size.unwrap_or(transmit.size);
        let real =
            self.routes.get().and_then(|routes| routes.departure(transmit.destination, bytes, segment));
        let Some(real) = real.and_then(|real| self.as_the_socket_sees(real).ok()) else { return false };
        transmit.destination = real;
        true
    }
}
