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
        self.reached_at.borrow_mut().is_ours_alone(to, source_towards)
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

/// Addresses of ours that are remembered: of some networks, to whose hosts a machine talks by turns.
const REACHED_AT_MAX: usize = 8;

/// Which of our addresses were last found to be ours alone.
#[derive(Default)]
pub(super) struct ReachedAt(Vec<IpAddr>);

impl ReachedAt {
    /// Whether what was sent to that address was meant for us, and not for all in a network. `source` asks the kernel from which
    /// address we would send there: a network's own broadcast address it alone knows, and connects nobody to one who has not
    /// asked for that. Of IPv6 the address itself says so.
    fn is_ours_alone(&mut self, to: IpAddr, source: impl FnOnce(SocketAddr) -> io::Result<IpAddr>) -> bool {
        let to = to.to_canonical();
        let any_port = SocketAddr::new(to, 9);
        if !stun::is_of_one_machine(any_port) || to.is_ipv6() || self.0.contains(&to) {
            return stun::is_of_one_machine(any_port);
        }
        match source(any_port) {
            Ok(_) => {
                self.0.truncate(REACHED_AT_MAX - 1);
                self.0.insert(0, to);
                true
            }
            // Where it could not be asked nothing is known, and the next packet asks again.
            Err(error) => error.kind() != ErrorKind::PermissionDenied,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn an_address_is_asked_for_once_and_only_what_was_found_is_remembered() {
        let (mut reached, asked) = (ReachedAt::default(), Cell::new(0));
        let mut is_ours = |to: &str, answer: Result<(), ErrorKind>| {
            asked.set(0);
            let to: IpAddr = to.parse().unwrap();
            let is_ours = reached.is_ours_alone(to, |_| {
                asked.set(asked.get() + 1);
                answer.map(|()| to).map_err(io::Error::from)
            });
            (is_ours, asked.get())
        };
        let (of_many, no_room) = (Err(ErrorKind::PermissionDenied), Err(ErrorKind::OutOfMemory));
        // By two networks and by both families, in turns.
        assert_eq!(is_ours("192.168.1.2", Ok(())), (true, 1));
        assert_eq!(is_ours("10.7.0.1", Ok(())), (true, 1));
        for _ in 0..2 {
            assert_eq!(is_ours("::ffff:192.168.1.2", of_many), (true, 0));
            assert_eq!(is_ours("2a00::7", of_many), (true, 0));
            assert_eq!(is_ours("10.7.0.1", of_many), (true, 0));
        }
        assert_eq!(is_ours("192.168.1.255", of_many), (false, 1));
        assert_eq!(is_ours("192.168.1.255", of_many), (false, 1), "it may be one of ours some day");
        assert_eq!(is_ours("172.16.0.255", no_room), (true, 1));
        assert_eq!(is_ours("172.16.0.255", of_many), (false, 1), "nothing was found out before");
        for never in ["ff02::1", "224.0.0.1", "255.255.255.255"] {
            assert_eq!(is_ours(never, Ok(())), (false, 0), "{never}");
        }
        for host in 0..100 {
            is_ours(&format!("10.8.0.{host}"), Ok(()));
        }
        assert_eq!(reached.0.len(), REACHED_AT_MAX);
    }
}
