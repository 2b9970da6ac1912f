//! Servers: loops that receive, decide (`server.rs`) and send.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;

use super::server::{Origins, Place, answer};
use crate::net::UdpSocket;
use crate::race::race;

/// Room for a request. The kernel cuts off what is longer, and nothing that we understand comes near it.
const REQUEST_BYTES_MAX: usize = 1500;

/// Answers binding requests that come to `socket`, until the socket fails or the coroutine is terminated. Everything else
/// that comes is dropped.
///
/// # Errors
/// `InvalidInput` for a socket at no address of its own (`0.0.0.0`, `[::]`): with several addresses the kernel would
/// choose the answer's, and a client believes only the one that it asked. An endpoint of QUIC knows better
/// ([`answer_stun`](crate::net::quic::Endpoint::answer_stun)). Then those of receiving; a client that can't be sent to
/// ends nothing.
///
/// # Suspends
/// For ever.
pub fn serve(socket: &UdpSocket) -> io::Result<Infallible> {
    if socket.local_addr()?.ip().is_unspecified() {
        let message = "a STUN server needs the address that clients ask: bind the socket to one";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
    }
    let mut buffer = [0; REQUEST_BYTES_MAX];
    loop {
        let (size, from) = socket.recv_from(&mut buffer)?;
        if let Some((bytes, _)) = answer(&buffer[..size], from, None) {
            // No route back, a full line: the client asks again.
            let _ = socket.try_send_to(&bytes, from);
        }
    }
}

/// A server that answers from two addresses and two ports, so that clients can learn what their router does (RFC 5780).
pub struct DiscoveryServer {
    origins: Origins,
    /// In the order of [`Place::ALL`].
    sockets: [UdpSocket; 4],
}

impl DiscoveryServer {
    /// Binds the four places. The addresses are told to clients, so they have to be those that clients see.
    ///
    /// # Errors
    /// `InvalidInput` when addresses or ports are alike, unspecified, or of two families; `AddrInUse` and
    /// `AddrNotAvailable` as the kernel says.
    ///
    /// # Suspends
    /// Never.
    pub fn bind(origins: Origins) -> io::Result<DiscoveryServer> {
        let Origins { addresses: [one, two], ports: [first, second] } = origins;
        let are_fit = one != two && first != second && one.is_ipv4() == two.is_ipv4();
        if !are_fit || one.is_unspecified() || two.is_unspecified() || first == 0 || second == 0 {
            let message = "discovery needs two addresses of one family and two ports, each told apart";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        }
        let bind = |place| UdpSocket::bind(origins.at(place));
        let [a, b, c, d] = Place::ALL;
        Ok(DiscoveryServer { origins, sockets: [bind(a)?, bind(b)?, bind(c)?, bind(d)?] })
    }

    /// Where to ask.
    pub fn address(&self) -> SocketAddr {
        self.origins.at(Place::ALL[0])
    }

    /// Answers at all four places, as [`serve`] does at one.
    ///
    /// # Errors
    /// As [`serve`], of the first place that fails.
    ///
    /// # Suspends
    /// For ever.
    pub fn serve(&self) -> io::Result<Infallible> {
        race(Place::ALL.map(|place| move || self.serve_at(place)))
    }

    fn serve_at(&self, place: Place) -> io::Result<Infallible> {
        let mut buffer = [0; REQUEST_BYTES_MAX];
        loop {
            let (size, from) = self.socket(place).recv_from(&mut buffer)?;
            let Some((bytes, via)) = answer(&buffer[..size], from, Some((&self.origins, place))) else {
                continue;
            };
            // As in `serve`.
            let _ = self.socket(via.unwrap_or(place)).try_send_to(&bytes, from);
        }
    }

    fn socket(&self, place: Place) -> &UdpSocket {
        &self.sockets[usize::from(place.other_address) * 2 + usize::from(place.other_port)]
    }
}
