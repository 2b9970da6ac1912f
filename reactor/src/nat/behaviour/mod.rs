//! What the router between us and the others does: NAT behaviour discovery (RFC 5780).
//!
//! Two questions decide whether two machines can meet:
//!
//! - *Mapping*: is a socket lent one outside port, or another one for each destination? With the first, what a server sees
//!   is what a peer has to send to; with the second it is of no use to anybody else.
//! - *Filtering*: whose packets are let in to that port? Everybody's, those of addresses that we have sent to, or those of
//!   addresses and ports that we have sent to.
//!
//! A server with two addresses and two ports ([`super::stun::DiscoveryServer`]) can tell both apart: it is asked at each to
//! learn the mapping, and asked to answer from another to learn the filter. Silence is an answer there, so it is asked for
//! several times, and all that may end in silence goes on at once, each from a socket of its own: a socket that has sent to
//! the other place has opened the filter for it.
//!
//! ```no_run
//! use reactor::nat::behaviour::discover;
//!
//! reactor::run(|| {
//!     println!("{}", discover("192.0.2.1:3478".parse().unwrap()).unwrap());
//! });
//! ```
//!
//! What it is not: a promise. Routers change their mind under load and with time (RFC 5780, section 1), and a server may
//! lie. What is learnt chooses the way to try first, never the only one.

mod decide;

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

pub use decide::{Dependence, Seen, filtering_of, mapping_of};

use super::stun::{
    Answer, AskError, BINDING, Builder, Change, Class, Datagrams, Message, Question, Timing, TransactionId,
    ask, ask_for,
};
use crate::clock::now;
use crate::net::UdpSocket;
use crate::scope::scope;

/// For the first question, of which nothing is known yet: 0.5, 1, 2 and 4 s, since after 7.5 s of silence on four packets
/// UDP is blocked, and whoever asks wants to know within ten.
const FIRST: Timing = Timing { first: Duration::from_millis(500), tries: 4, last: 8 };

/// What a router does with our packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Behaviour {
    /// The address here.
    pub local: SocketAddr,
    /// The address of the same socket as the server sees it.
    pub mapped: SocketAddr,
    /// What the outside port depends on.
    pub mapping: Dependence,
    /// What it depends on who gets in.
    pub filtering: Dependence,
    /// Whether two sockets here can talk over their outside addresses, as two machines behind one router would. `None`
    /// where nothing is translated.
    pub hairpin: Option<bool>,
}

impl Behaviour {
    /// Whether addresses are translated at all. If not, there may still be a firewall, which the filtering tells.
    pub fn is_translated(&self) -> bool {
        self.local != self.mapped
    }

    /// Whether the outside port is the inside one: then it can be guessed even where the mapping depends on the other end.
    pub fn preserves_port(&self) -> bool {
        self.local.port() == self.mapped.port()
    }
}

impl fmt::Display for Behaviour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hairpin = match self.hairpin {
            None => "none needed",
            Some(true) => "yes",
            Some(false) => "no",
        };
        let port = if self.preserves_port() { "preserved" } else { "not preserved" };
        write!(
            f,
            "{} is seen as {}; mapping: {}; filtering: {}; hairpin: {hairpin}; port: {port}",
            self.local, self.mapped, self.mapping, self.filtering
        )
    }
}

/// Why nothing was learnt.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DiscoveryError {
    /// The server did not answer a question that it should have.
    #[error("asking {0}: {1}")]
    Ask(SocketAddr, AskError),
    /// The server has no second address, or names one that may not be asked: take another one.
    #[error("{0} is no server of discovery: it has no second address, or none that can be asked")]
    NoOtherAddress(SocketAddr),
    /// No socket could be had.
    #[error("discovering what the router does: {0}")]
    Socket(#[from] io::Error),
}

/// Learns from a server of discovery what the router does. Where UDP is blocked that takes 7.5 s; elsewhere some round
/// trips, or where silence is an answer, 2 to 20 s, by how far the server is.
///
/// # Errors
/// See [`DiscoveryError`]; [`AskError::Silence`] of the server itself where UDP does not get out.
///
/// # Suspends
/// So long.
pub fn discover(server: SocketAddr) -> Result<Behaviour, DiscoveryError> {
    let socket = socket_towards(server)?;
    let first = ask_where(&socket, server, FIRST)?;
    let other = first.other.filter(|other| decide::may_be_asked(server, *other));
    let other = other.ok_or(DiscoveryError::NoOtherAddress(server))?;
    let local = SocketAddr::new(local_ip_towards(server)?, socket.local_addr()?.port());
    let timing = Timing::after(first.round_trip.unwrap_or(FIRST.first));
    scope(|s| {
        let mapping = s.spawn(|| mapping(&socket, server, other, first, timing));
        let from_both = s.spawn(|| is_let_in(server, Change::BOTH, other, timing));
        let other_port = SocketAddr::new(server.ip(), other.port());
        let from_port = s.spawn(move || is_let_in(server, Change::PORT, other_port, timing));
        let hairpin = (first.mapped != local).then(|| hairpin(server, timing)).transpose()?;
        // A child that panicked raises that at the scope's end; the others' results are not looked at then.
        let ended = "a child ends before its scope";
        Ok(Behaviour {
            local,
            mapped: first.mapped,
            mapping: mapping.join().expect(ended)?,
            filtering: filtering_of(from_both.join().expect(ended)?, from_port.join().expect(ended)?),
            hairpin,
        })
    })
}

/// Asks for an address that we may send to: one within our own network, told by a server outside of it, is a lie that
/// would have us send packets there.
fn ask_where(socket: &UdpSocket, server: SocketAddr, timing: Timing) -> Result<Answer, DiscoveryError> {
    let answer = ask(socket, server, timing).map_err(|error| DiscoveryError::Ask(server, error))?;
    match decide::may_be_sent_to(server, answer.mapped) {
        true => Ok(answer),
        false => Err(DiscoveryError::Ask(server, AskError::Useless)),
    }
}

/// A socket of the server's family, at a port of its own.
fn socket_towards(server: SocketAddr) -> io::Result<UdpSocket> {
    match server {
        SocketAddr::V4(_) => UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)),
        SocketAddr::V6(_) => UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)),
    }
}

/// The address that packets to the server leave with, which the kernel knows as soon as it knows where they go.
fn local_ip_towards(server: SocketAddr) -> io::Result<std::net::IpAddr> {
    let socket = socket_towards(server)?;
    socket.connect(server)?;
    Ok(socket.local_addr()?.ip())
}

/// Asks at the other address, and at its other port too if that makes a difference.
fn mapping(
    socket: &UdpSocket,
    server: SocketAddr,
    other: SocketAddr,
    first: Answer,
    timing: Timing,
) -> Result<Dependence, DiscoveryError> {
    let mut seen = vec![Seen { by: server, mapped: first.mapped }];
    for by in [SocketAddr::new(other.ip(), server.port()), other] {
        let answer = ask(socket, by, timing).map_err(|error| DiscoveryError::Ask(by, error))?;
        seen.push(Seen { by, mapped: answer.mapped });
    }
    Ok(mapping_of(&seen).expect("two addresses were asked, and one of them at two ports"))
}

/// Whether an answer from elsewhere reaches a socket that has sent to `server` only.
fn is_let_in(
    server: SocketAddr,
    change: Change,
    answered_from: SocketAddr,
    timing: Timing,
) -> Result<bool, DiscoveryError> {
    let socket = socket_towards(server)?;
    match ask_for(&socket, Question { server, change, answered_from }, timing) {
        Ok(_) => Ok(true),
        // Silence counts only where the network still carries anything else.
        Err(AskError::Silence) => ask_where(&socket_towards(server)?, server, timing).map(|_| false),
        Err(error) => Err(DiscoveryError::Ask(server, error)),
    }
}

/// Whether two sockets here reach each other over their outside addresses. Both send, as two machines that want to meet
/// would, so that a filter lets in what the router turns round.
fn hairpin(server: SocketAddr, timing: Timing) -> Result<bool, DiscoveryError> {
    let sockets = [socket_towards(server)?, socket_towards(server)?];
    let mut mapped = [server; 2];
    for (socket, mapped) in sockets.iter().zip(&mut mapped) {
        *mapped = ask_where(socket, server, timing)?.mapped;
    }
    let transaction = TransactionId::random();
    let probe = Builder::new(Class::Indication, BINDING, transaction).fingerprint().finish();
    let mut buffer = [0; 256];
    for wait in timing.waits() {
        let deadline = now() + wait;
        // A router that refuses it at once is one that does not turn it round.
        let _ = sockets[1].send_to(&probe, mapped[0]);
        let _ = sockets[0].send_to(&probe, mapped[1]);
        while now() < deadline {
            match sockets[0].receive(&mut buffer, deadline) {
                Ok((size, _)) => {
                    let found = Message::parse(&buffer[..size]);
                    if found.is_ok_and(|message| message.transaction() == transaction) {
                        return Ok(true);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::TimedOut => break,
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(false)
}
