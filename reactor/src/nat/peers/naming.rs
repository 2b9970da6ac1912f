//! What we tell a peer of our addresses, and which of its own are believed.
//!
//! What it is not: how ours are learnt, which is a relay's affair (`keep_relay.rs`).

use std::net::SocketAddr;
use std::time::Instant;

use super::core::Core;
use super::message::{CANDIDATES_MAX, Message, TCP_CANDIDATES_MAX};
use super::paths::is_near;
use super::table::Peer;
use crate::nat::relay::Sender;
use crate::nat::stun;
use crate::net::quic::routes::virtual_number;

impl Core {
    /// What the peers are told: each once, and those first that we were told ourselves.
    fn candidates(&self) -> Vec<SocketAddr> {
        let mut all: Vec<SocketAddr> = Vec::new();
        for address in self.own.borrow().values().rev().flatten() {
            if !all.contains(address) && all.len() < CANDIDATES_MAX {
                all.push(*address);
            }
        }
        all
    }

    /// Of the addresses that a peer names, those that can be one's.
    pub(super) fn usable(&self, named: &[SocketAddr]) -> Vec<SocketAddr> {
        // This machine itself is meant only where we say so of ourselves.
        let is_local = self.own.borrow().values().flatten().any(|own| own.ip().is_loopback());
        let is_usable = |address: &SocketAddr| {
            stun::is_of_one_machine(*address)
                && virtual_number(address.ip()).is_none()
                && (is_local || !address.ip().is_loopback())
        };
        named.iter().map(|at| SocketAddr::new(at.ip().to_canonical(), at.port())).filter(is_usable).collect()
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

/// Whether some relay sees us at an address of our own: no router of ours has to be opened for a peer, and what goes a few hops
/// only may come to the peer's. `told` are our own address and that which is seen, for each relay; once where they are alike.
pub(super) fn is_in_the_open<'a>(mut told: impl Iterator<Item = &'a Vec<SocketAddr>>) -> bool {
    told.any(|own| matches!(own[..], [only] if !is_near(only) && !only.ip().is_loopback()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_an_address_of_the_internet_opens_no_router() {
        let of = |told: &[&[&str]]| {
            let own = |own: &&[&str]| own.iter().map(|at| at.parse().unwrap()).collect();
            let told: Vec<Vec<SocketAddr>> = told.iter().map(own).collect();
            is_in_the_open(told.iter())
        };
        assert!(of(&[&["203.0.113.1:9"]]));
        assert!(!of(&[&["192.168.1.2:9", "203.0.113.1:9"]]));
        assert!(
            !of(&[&["192.168.1.2:9"], &["127.0.0.1:9"], &[]]),
            "a relay of the same network says nothing"
        );
    }
}
