//! What we tell a peer of our addresses, from when on, and which of its own are believed.
//!
//! What it is not: how ours are learnt, which is a relay's affair (`keep_relay.rs`), and the kernel's (`machine.rs`).

use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use super::core::Core;
use super::message::{CANDIDATES_MAX, Message, TCP_CANDIDATES_MAX};
use super::paths::is_near;
use super::table::Peer;
use crate::nat::relay::Sender;
use crate::nat::stun;
use crate::net::quic::Connection;
use crate::net::quic::routes::virtual_number;

/// So many of the addresses of this machine's interfaces have room, however many others there are: a router that shows each
/// relay another port would else leave none.
const OF_THE_MACHINE: usize = 4;

/// What the peers are told: each once, those first that we were told ourselves, and those last that are this machine's.
fn to_be_told(found: impl Iterator<Item = SocketAddr>, machine: &[SocketAddr]) -> Vec<SocketAddr> {
    let found: Vec<SocketAddr> = found.collect();
    // Where all relays are on this machine, so is everybody at them, and needs no other.
    let is_of_others = found.iter().any(|address| !address.ip().is_loopback());
    let machine = if is_of_others { machine } else { &[] };
    let further: Vec<SocketAddr> = machine.iter().filter(|own| !found.contains(own)).copied().collect();
    let room = CANDIDATES_MAX - further.len().min(OF_THE_MACHINE);
    let mut all: Vec<SocketAddr> = Vec::new();
    for (addresses, room) in [(found, room), (further, CANDIDATES_MAX)] {
        for address in addresses {
            if !all.contains(&address) && all.len() < room {
                all.push(address);
            }
        }
    }
    all
}

impl Core {
    fn candidates(&self) -> Vec<SocketAddr> {
        let (own, machine) = (self.own.borrow(), self.machine.borrow());
        to_be_told(own.values().rev().flatten().copied(), &machine)
    }

    /// Of the addresses that a peer names, those that can be one's.
    pub(super) fn usable(&self, named: &[SocketAddr]) -> Vec<SocketAddr> {
        // This machine itself is meant only where we say so of ourselves.
        let is_local = self.own.borrow().values().flatten().any(|own| own.ip().is_loopback());
        let is_usable = |address: &SocketAddr| {
            stun::is_of_one_machine(*address)
                && virtual_number(address.ip()).is_none()
                // Nobody knows on which link it is.
                && !matches!(address.ip(), IpAddr::V6(ip) if ip.is_unicast_link_local())
                && (is_local || !address.ip().is_loopback())
        };
        named.iter().map(|at| SocketAddr::new(at.ip().to_canonical(), at.port())).filter(is_usable).collect()
    }

    /// The peer at the other end of that connection may know where we are, from now on.
    pub(super) fn admit(&self, connection: &Connection) {
        let tag = super::session_of(connection).tag();
        let now = crate::now();
        let mut table = self.table.borrow_mut();
        let Some(number) = table.by_session(tag) else { return };
        let Some(peer) = table.peer(number) else { return };
        let Some(link) = peer.links.iter_mut().find(|link| link.session.tag() == tag) else { return };
        if std::mem::replace(&mut link.is_admitted, true) {
            return;
        }
        let early = link.early.take();
        peer.paths.start_over(now);
        if let Some(Message::Candidates { has_heard, udp, tcp }) = early {
            self.on_candidates(peer, (has_heard, &udp, &tcp), now);
        }
        table.set_due(number, Some(now));
        drop(table);
        self.tell();
    }

    /// A peer says where it is.
    pub(super) fn on_candidates(
        &self,
        peer: &mut Peer,
        (has_heard, udp, tcp): (bool, &[SocketAddr], &[SocketAddr]),
        now: Instant,
    ) {
        let must_tell = peer.opening.on_named(&self.usable(tcp), now);
        peer.paths.on_candidates(&self.usable(udp), (has_heard, must_tell), now);
    }

    /// Tells a peer where we are.
    pub(super) fn name_ours(&self, peer: &mut Peer, now: Instant) {
        let (relay, line) = (self.relay_of(peer), peer.line().map(|line| line.sender.clone()));
        let mut tcp = Vec::new();
        if let (Some((_, relay)), None) = (&relay, &line) {
            // From the port of that very connection, which is looked at from there.
            let own = own_by_tcp(relay);
            tcp = if own.first().is_some_and(|from| peer.opening.tells(*from, now)) { own } else { tcp };
        }
        let Some(way) = line.or(relay.map(|(_, relay)| relay)) else { return };
        let named = Message::Candidates { has_heard: peer.paths.has_heard(), udp: self.candidates(), tcp };
        let seat = peer.seat;
        if let Some(link) = peer.links.last_mut() {
            way.send(seat, &link.session.seal(&named));
        }
    }
}

/// From where we connect by TCP to whom we reach over that relay: our own address, and where it sees that.
fn own_by_tcp(relay: &Sender) -> Vec<SocketAddr> {
    let host = relay.local_addr().ok();
    let host = host.map(|host| SocketAddr::new(host.ip().to_canonical(), host.port()));
    let mut own: Vec<SocketAddr> = host.into_iter().chain(relay.seen()).collect();
    own.dedup();
    debug_assert!(own.len() <= TCP_CANDIDATES_MAX);
    own
}

/// Whether some relay sees us, by that family, at an address of our own: no router of ours has to be opened for a peer, and what
/// goes a few hops only may come to the peer's. `told` are our own address and that which is seen, for each relay; once where they
/// are alike.
pub(super) fn is_in_the_open<'a>(mut told: impl Iterator<Item = &'a Vec<SocketAddr>>, is_v4: bool) -> bool {
    let is_open = |only: SocketAddr| only.is_ipv4() == is_v4 && !is_near(only) && !only.ip().is_loopback();
    told.any(|own| matches!(own[..], [only] if is_open(only)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_an_address_of_the_internet_opens_no_router() {
        let of = |told: &[&[&str]]| {
            let own = |own: &&[&str]| own.iter().map(|at| at.parse().unwrap()).collect();
            let told: Vec<Vec<SocketAddr>> = told.iter().map(own).collect();
            [true, false].map(|is_v4| is_in_the_open(told.iter(), is_v4))
        };
        assert_eq!(of(&[&["203.0.113.1:9"]]), [true, false]);
        assert_eq!(of(&[&["192.168.1.2:9", "203.0.113.1:9"]]), [false; 2]);
        assert_eq!(
            of(&[&["192.168.1.2:9"], &["127.0.0.1:9"], &[]]),
            [false; 2],
            "a relay of the same network says nothing"
        );
        // By IPv6 nothing is translated, and a router that does it with IPv4 is still there.
        assert_eq!(of(&[&["192.168.1.2:9", "203.0.113.1:9"], &["[2a00::1]:9"]]), [false, true]);
    }

    #[test]
    fn however_many_relays_see_us_some_of_the_machines_own_addresses_are_told_and_never_too_many() {
        let at = |host: u8| SocketAddr::new([203, 0, 113, host].into(), 9);
        let told = |found: std::ops::Range<u8>, machine: std::ops::Range<u8>| {
            let machine: Vec<SocketAddr> = machine.map(at).collect();
            to_be_told(found.map(at), &machine)
        };
        let all = |hosts: &[u8]| hosts.iter().map(|host| at(*host)).collect::<Vec<_>>();
        assert_eq!(told(0..2, 1..4), all(&[0, 1, 2, 3]), "each once");
        assert_eq!(told(0..20, 30..50), all(&[0, 1, 2, 3, 30, 31, 32, 33]));
        assert_eq!(told(0..20, 30..31), all(&[0, 1, 2, 3, 4, 5, 6, 30]));
        assert_eq!(told(0..1, 30..50).len(), CANDIDATES_MAX);
        assert_eq!(told(0..20, 0..0).len(), CANDIDATES_MAX);
        // By a relay on this machine nobody comes from elsewhere.
        let here = "127.0.0.1:9".parse().unwrap();
        assert_eq!(to_be_told([here].into_iter(), &all(&[1, 2])), [here]);
        assert!(told(0..0, 1..4).is_empty());
    }
}
