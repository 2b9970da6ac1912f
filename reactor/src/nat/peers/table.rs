//! Who is known, by what: ids, virtual addresses, real addresses, sessions. Pure, but for asking a connection whether it
//! stands.
//!
//! What it is not: where what is sent goes over a relay, which `core.rs` does with the relay of a peer.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::message::{Message, Session, SessionTag};
use super::opening::Opening;
use super::paths::Paths;
use super::sequence::Guesses;
use super::tcp::Line;
use super::{Path, Transport};
use crate::nat::PeerId;
use crate::nat::relay::Seat;
use crate::net::quic::WeakConnection;
use crate::net::quic::routes::{virtual_address, virtual_number};

/// Peers that are known at once. A relay can make up any number of them, each for some hundred bytes.
const PEERS_MAX: usize = 4_096;

/// Of these, those that a relay may bring by itself: so many stay for those whom we dial.
const BROUGHT_MAX: usize = PEERS_MAX / 2;

/// Between two looks for those who may be forgotten, where there are too many.
const FORGET_EVERY: Duration = Duration::from_secs(1);

/// One of whom nothing was heard for so long, and who has no connection, is forgotten: a handshake is over by then.
const FORGET_AFTER: Duration = Duration::from_secs(60);

/// Connections of one peer whose packets about paths are understood: two who dial each other at once have two.
const SESSIONS_MAX: usize = 4;

/// What is kept of a peer that speaks of paths in a session that is not known yet: it names its addresses. In all that is half a KiB for
/// each of [`PEERS_MAX`].
const EARLY_BYTES_MAX: usize = 512;

/// Addresses for each peer, on average, before those are looked for that nobody uses any more.
const ADDRESSES_EACH: usize = 20;

/// Where nothing that goes directly was acknowledged for so long, the connections are asked for a sign.
const DOUBT_AFTER: Duration = Duration::from_secs(3);
/// And that sign takes a round trip. Together with the doubt less than the 15 s in which a direct path has to be given up.
pub(super) const SIGN_WITHIN: Duration = Duration::from_secs(4);

#[derive(Default)]
pub(super) struct Table {
    peers: BTreeMap<u64, Peer>,
    numbers: BTreeMap<Seat, u64>,
    sessions: BTreeMap<SessionTag, u64>,
    /// Whose packets come from where, by what they sealed.
    addresses: BTreeMap<SocketAddr, u64>,
    /// When which peer's paths want to be looked at.
    due: BTreeSet<(Instant, u64)>,
    last_number: u64,
    forgot_at: Option<Instant>,
}

pub(super) struct Peer {
    /// Where a relay finds it. Each of its processes is a peer of its own here.
    pub(super) seat: Seat,
    pub(super) paths: Paths,
    /// When it is connected to by TCP, and what came of it.
    pub(super) opening: Opening,
    pub(super) line: Option<Line>,
    /// Which ports both sides expect to be lent.
    pub(super) guesses: Guesses,
    /// The newest last: it is the one that we seal with.
    pub(super) links: Vec<Link>,
    /// Which relay it was last heard over.
    pub(super) relay: Option<usize>,
    /// Those that it is said to be at, by whoever had it dialled: these are tried before others.
    pub(super) named: Vec<usize>,
    /// Those that have said that it is not there, since it was heard over any.
    pub(super) absent_at: BTreeSet<usize>,
    /// The last that was sent to one that we dial and have not heard yet: at a relay that does not know it, it is lost.
    pub(super) unanswered: Vec<u8>,
    /// The last that it said of paths, over a relay, in a session that is not known yet: it comes right behind what ends the handshake, and
    /// so before that is noticed.
    early: Vec<u8>,
    /// When its packets took the direct path that is in use.
    routed_at: Option<Instant>,
    /// When its connections were last asked for a sign that what goes there arrives.
    asked_at: Option<Instant>,
    heard_at: Instant,
    due: Option<Instant>,
}

impl Peer {
    /// Whether there is a connection to it.
    pub(super) fn is_up(&self) -> bool {
        self.links.iter().any(|link| link.connection.is_up())
    }

    /// Whether any of its connections is one of somebody who was admitted: nobody else is told anything, or tried.
    pub(super) fn is_admitted(&self) -> bool {
        self.links.iter().any(|link| link.is_admitted && link.connection.is_up())
    }

    /// How it is reached; `None` without a connection to it.
    pub(super) fn path(&self) -> Option<Path> {
        if !self.is_up() {
            return None;
        }
        let by_udp = self.paths.route().zip(self.paths.round_trip());
        let by_udp = by_udp.map(|(address, round_trip)| (Transport::Udp, address, round_trip));
        let by_tcp = self
            .line()
            .map(|line| (Transport::Tcp, line.address, line.sender.round_trip().unwrap_or_default()));
        let direct = by_udp.or(by_tcp);
        Some(direct.map_or(Path::Relayed, |(transport, address, round_trip)| Path::Direct {
            transport,
            address,
            round_trip,
        }))
    }

    /// The connection by TCP, if it stands.
    pub(super) fn line(&self) -> Option<&Line> {
        self.line.as_ref().filter(|line| line.sender.is_up())
    }

    /// Its packets take another way from now on.
    pub(super) fn on_route(&mut self, now: Instant) {
        self.routed_at = self.paths.route().map(|_| now);
        self.asked_at = None;
    }

    /// Whether the direct path carries nothing: nobody acknowledged anything for too long, though each connection was asked for
    /// a sign. What was lost before it was taken does not count against it; nor does a connection that the other side has
    /// given up, as long as another one lives.
    pub(super) fn carries_nothing(&mut self, now: Instant) -> bool {
        let Some(routed_at) = self.routed_at.filter(|_| self.paths.route().is_some()) else { return false };
        let waiting = || self.links.iter().map(|link| link.connection.waiting_since());
        match self.asked_at {
            Some(asked_at) if now < asked_at + SIGN_WITHIN => false,
            Some(asked_at) => {
                // What was asked leaves a moment later.
                let asked_by = asked_at + SIGN_WITHIN / 2;
                let is_silent = waiting().all(|since| since.is_some_and(|since| since <= asked_by));
                self.asked_at = None;
                is_silent
            }
            None => {
                if waiting().flatten().any(|since| now >= since.max(routed_at) + DOUBT_AFTER) {
                    self.links.iter().for_each(|link| link.connection.ping());
                    self.asked_at = Some(now);
                }
                false
            }
        }
    }
}

/// A connection with its session.
pub(super) struct Link {
    pub(super) session: Session,
    pub(super) connection: WeakConnection,
    /// Whether the other side has shown that it may know where we are: a key alone anybody can make up.
    pub(super) is_admitted: bool,
    /// What it said of its own addresses before: it takes us for admitted as soon as it is connected.
    pub(super) early: Option<Message>,
}

impl Table {
    /// The number of a peer whom we want, who gets one if there is room.
    pub(super) fn number_of(&mut self, seat: Seat, now: Instant) -> Option<u64> {
        let number = self.number_among(PEERS_MAX, seat, now)?;
        // It is not forgotten while it is dialled, however long ago it was heard.
        self.peers.get_mut(&number)?.heard_at = now;
        Some(number)
    }

    fn number_among(&mut self, most: usize, seat: Seat, now: Instant) -> Option<u64> {
        if let Some(number) = self.numbers.get(&seat) {
            return Some(*number);
        }
        if self.peers.len() >= most && self.forgot_at.is_none_or(|at| now >= at + FORGET_EVERY) {
            self.forgot_at = Some(now);
            self.forget(now);
        }
        if self.peers.len() >= most {
            return None;
        }
        // Never given twice: what is left of an earlier connection does not become another peer's.
        self.last_number += 1;
        let number = self.last_number;
        let peer = Peer {
            seat,
            paths: Paths::default(),
            opening: Opening::default(),
            line: None,
            guesses: Guesses::default(),
            links: Vec::new(),
            relay: None,
            named: Vec::new(),
            absent_at: BTreeSet::new(),
            unanswered: Vec::new(),
            early: Vec::new(),
            routed_at: None,
            asked_at: None,
            heard_at: now,
            due: None,
        };
        self.peers.insert(number, peer);
        self.numbers.insert(seat, number);
        Some(number)
    }

    fn forget(&mut self, now: Instant) {
        let is_kept = |peer: &Peer| now < peer.heard_at + FORGET_AFTER || peer.is_up();
        let gone: Vec<u64> =
            self.peers.iter().filter(|(_, peer)| !is_kept(peer)).map(|(number, _)| *number).collect();
        for number in gone {
            self.set_due(number, None);
            if let Some(peer) = self.peers.remove(&number) {
                self.numbers.remove(&peer.seat);
            }
        }
        let peers = &self.peers;
        self.sessions.retain(|_, number| peers.contains_key(number));
        self.addresses.retain(|_, number| peers.contains_key(number));
    }

    pub(super) fn peer(&mut self, number: u64) -> Option<&mut Peer> {
        self.peers.get_mut(&number)
    }

    pub(super) fn known_number(&self, seat: Seat) -> Option<u64> {
        self.numbers.get(&seat).copied()
    }

    /// The peer that is found by this id.
    pub(super) fn by_id(&self, id: PeerId) -> Option<&Peer> {
        self.numbers.get(&Seat::known(id)).and_then(|number| self.peers.get(number))
    }

    pub(super) fn by_virtual(&mut self, address: SocketAddr) -> Option<&mut Peer> {
        virtual_number(address.ip()).and_then(|number| self.peers.get_mut(&number))
    }

    pub(super) fn by_session(&self, tag: SessionTag) -> Option<u64> {
        self.sessions.get(&tag).copied()
    }

    /// Whether the packets of anybody to whom we have a connection go over that relay, or would if there were no direct way.
    pub(super) fn uses(&self, relay: usize) -> bool {
        self.peers.values().any(|peer| peer.relay == Some(relay) && peer.is_up())
    }

    /// There is no such relay any more.
    pub(super) fn forget_relay(&mut self, relay: usize) {
        for peer in self.peers.values_mut() {
            peer.relay = peer.relay.filter(|other| *other != relay);
            peer.named.retain(|other| *other != relay);
            peer.absent_at.remove(&relay);
        }
    }

    /// All that are known, by their numbers.
    pub(super) fn numbers(&self) -> Vec<u64> {
        self.peers.keys().copied().collect()
    }

    /// When the peer's paths are to be looked at next.
    pub(super) fn set_due(&mut self, number: u64, due: Option<Instant>) {
        let Some(peer) = self.peers.get_mut(&number) else { return };
        if let Some(old) = std::mem::replace(&mut peer.due, due) {
            self.due.remove(&(old, number));
        }
        self.due.extend(due.map(|due| (due, number)));
    }

    /// The next peer whose time has come; it has none then.
    pub(super) fn take_due(&mut self, now: Instant) -> Option<u64> {
        let (due, number) = *self.due.first()?;
        if due > now {
            return None;
        }
        self.set_due(number, None);
        Some(number)
    }

    pub(super) fn next_due(&self) -> Option<Instant> {
        self.due.first().map(|(due, _)| *due)
    }

    /// The virtual address of the peer whose packets come from `from`.
    pub(super) fn arrival(&mut self, from: SocketAddr, now: Instant) -> Option<SocketAddr> {
        let number = *self.addresses.get(&from)?;
        self.peers.get_mut(&number)?.heard_at = now;
        Some(virtual_address(number))
    }

    /// A relay has brought something of that peer.
    pub(super) fn on_relayed(&mut self, from: Seat, relay: usize, now: Instant) -> Option<u64> {
        let number = self.number_among(BROUGHT_MAX, from, now)?;
        let peer = self.peers.get_mut(&number)?;
        peer.heard_at = now;
        peer.relay = Some(relay);
        peer.absent_at.clear();
        peer.unanswered = Vec::new();
        Some(number)
    }

    /// The peer has a new connection. Returns what came before in it, to be looked at now.
    pub(super) fn attach(&mut self, number: u64, link: Link, now: Instant) -> Option<Vec<u8>> {
        let peer = self.peers.get_mut(&number)?;
        peer.heard_at = now;
        if peer.links.len() == SESSIONS_MAX {
            self.sessions.remove(&peer.links.remove(0).session.tag());
        }
        self.sessions.insert(link.session.tag(), number);
        peer.links.push(link);
        peer.paths.start_over(now);
        let early = std::mem::take(&mut peer.early);
        self.set_due(number, Some(now));
        (!early.is_empty()).then_some(early)
    }

    /// A peer has spoken of paths in a session that is not known: it may be that of a connection whose handshake ends now.
    pub(super) fn on_early(&mut self, number: u64, packet: &[u8]) {
        if let Some(peer) = self.peers.get_mut(&number).filter(|_| packet.len() <= EARLY_BYTES_MAX) {
            peer.early = packet.into();
        }
    }

    /// Drops the sessions of connections that are gone. With the last of them its direct addresses are forgotten: nothing is
    /// left that could be sealed or opened.
    pub(super) fn detach(&mut self, number: u64) {
        let has_many = self.addresses.len() > ADDRESSES_EACH * self.peers.len();
        let Some(peer) = self.peers.get_mut(&number) else { return };
        let sessions = &mut self.sessions;
        peer.links.retain(|link| {
            let is_up = link.connection.is_up();
            if !is_up {
                sessions.remove(&link.session.tag());
            }
            is_up
        });
        if peer.links.is_empty() {
            peer.paths = Paths::default();
            (peer.opening, peer.line) = (Opening::default(), None);
            self.addresses.retain(|_, of| *of != number);
        } else if has_many {
            self.addresses.retain(|address, of| *of != number || peer.paths.knows(*address));
        }
    }

    /// A packet under the peer's seal came from `from`. `is_proved` says that it answers what was sent there; otherwise it
    /// may have been carried there by somebody, and does not take the address away from another peer.
    pub(super) fn on_sealed(&mut self, number: u64, from: SocketAddr, is_proved: bool) {
        if is_proved {
            self.addresses.insert(from, number);
        } else {
            self.addresses.entry(from).or_insert(number);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u64) -> Seat {
        let mut id = [0; 32];
        id[..8].copy_from_slice(&number.to_be_bytes());
        PeerId(id).into()
    }

    #[test]
    fn a_relay_that_makes_peers_up_leaves_room_for_those_whom_we_dial_and_they_are_forgotten() {
        let (mut table, now) = (Table::default(), Instant::now());
        let brought = (0..10_000).filter(|number| table.on_relayed(id(*number), 0, now).is_some());
        assert_eq!(brought.count(), BROUGHT_MAX);
        assert!(table.number_of(id(20_000), now).is_some());
        let later = now + FORGET_AFTER;
        let number = table.on_relayed(id(30_000), 0, later).unwrap();
        assert_eq!((table.peers.len(), table.numbers.len()), (1, 1));
        // A number is never another's: what is left of an earlier connection leads nowhere.
        assert!(number > 1 && table.by_virtual(virtual_address(1)).is_none());
    }

    #[test]
    fn who_is_dialled_again_is_not_forgotten_meanwhile() {
        let (mut table, now) = (Table::default(), Instant::now());
        let number = table.number_of(id(1), now).unwrap();
        assert_eq!(table.number_of(id(1), now + FORGET_AFTER / 2), Some(number));
        table.forget(now + FORGET_AFTER);
        assert_eq!(table.known_number(id(1)), Some(number));
        table.forget(now + 2 * FORGET_AFTER);
        assert_eq!(table.known_number(id(1)), None);
    }

    #[test]
    fn an_address_is_taken_from_a_peer_only_by_an_answer_to_what_was_sent_there() {
        let (mut table, now) = (Table::default(), Instant::now());
        let [one, other] = [1, 2].map(|number| table.number_of(id(number), now).unwrap());
        let address = "203.0.113.1:1".parse().unwrap();
        table.on_sealed(one, address, false);
        table.on_sealed(other, address, false);
        assert_eq!(table.arrival(address, now), Some(virtual_address(one)));
        table.on_sealed(other, address, true);
        assert_eq!(table.arrival(address, now), Some(virtual_address(other)));
        assert_eq!(table.arrival("203.0.113.1:2".parse().unwrap(), now), None);
    }
}
