//! Who is connected to us right now, and what their verified passports allow.
//!
//! A handler of the DHT knows its caller's key from the handshake (`CallContext::peer`) and asks here whether that key
//! may store, read or write. The book is made before the node, since the handlers are; the node keeps it.
//! A passport that expires or is revoked while its holder is connected stops opening anything at once.
//!
//! It also remembers who was here and where, for whoever asks who the members are; that is gone with the process.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime};

use reactor::cell::RefCell;
use reactor::crypto::PublicKey;
use serde::{Deserialize, Serialize};

use crate::admission::Refusal;
use crate::passport::{Passport, PassportError, Rights};
use crate::revocation::Revocations;
pub use crate::whereabouts::{How, Sighting, Whereabouts};

/// Members whose last visit is remembered; beyond that, those who were here longest ago are forgotten.
pub const SIGHTINGS_MAX: usize = 1024;

/// Whether a node holds blocks for others.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Role {
    /// It listens, enters routing tables, and is responsible for keys.
    Storage,
    /// It only calls.
    Client,
}

/// Why a peer that answered let us not in, or we did not let it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum TurnedAway {
    /// It refused us.
    Us(Refusal),
    /// We refused it.
    Them(Refusal),
}

/// What is known of a connected peer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Peer {
    /// What it said it is.
    pub role: Role,
    /// What its passport allows.
    pub rights: Rights,
    /// When the passport ends.
    pub expires: Option<SystemTime>,
}

/// The connected peers. Clones are the same book.
#[derive(Clone, Default)]
pub struct Peers {
    inner: Rc<RefCell<Book>>,
}

#[derive(Default)]
struct Book {
    connected: HashMap<PublicKey, Connected>,
    visit_count: u64,
    /// How and where those were that have left, and when they did.
    left: HashMap<PublicKey, ((How, Option<SocketAddr>), Instant)>,
    revocations: Revocations,
    /// Of whom we have dialled since, and was not admitted.
    turned_away: HashMap<PublicKey, TurnedAway>,
}

struct Connected {
    peer: Peer,
    passport: Passport,
    /// Its connections, that which calls take last.
    visits: Vec<(Visit, Whereabouts)>,
}

impl Connected {
    /// How it is connected, and where it is.
    fn place(&self) -> Option<(How, Option<SocketAddr>)> {
        self.visits.last().map(|(_, whereabouts)| whereabouts.now())
    }
}

/// One connection of a peer, in the book.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Visit(u64);

impl Peers {
    /// An empty book.
    pub fn new() -> Peers {
        Peers::default()
    }

    /// The peer with this key, if it is connected and its passport is valid now.
    pub fn get(&self, key: &PublicKey) -> Option<Peer> {
        let peer = self.inner.borrow().connected.get(key)?.peer;
        peer.expires.is_none_or(|expires| reactor::wall_clock() < expires).then_some(peer)
    }

    /// Checks that the caller of a method has `needed` rights.
    ///
    /// # Errors
    /// `MissingRight` if not, also for a caller without a proven key: hand it to the caller.
    pub fn check(&self, caller: Option<&PublicKey>, needed: Rights) -> Result<(), PassportError> {
        let has = caller.and_then(|key| self.get(key)).map_or(Rights::default(), |peer| peer.rights);
        if has.include(needed) { Ok(()) } else { Err(PassportError::MissingRight { has, needed }) }
    }

    /// The peers that answered when they were dialled last, where one end refused the other: at most [`SIGHTINGS_MAX`].
    pub fn turned_away(&self) -> Vec<(PublicKey, TurnedAway)> {
        self.inner.borrow().turned_away.iter().map(|(key, why)| (*key, why.clone())).collect()
    }

    pub(crate) fn on_turned_away(&self, key: PublicKey, why: TurnedAway) {
        let turned_away = &mut self.inner.borrow_mut().turned_away;
        if turned_away.len() < SIGHTINGS_MAX || turned_away.contains_key(&key) {
            turned_away.insert(key, why);
        }
    }

    pub(crate) fn on_admitted(&self, key: &PublicKey) {
        self.inner.borrow_mut().turned_away.remove(key);
    }

    /// How many peers are connected.
    pub fn count(&self) -> usize {
        self.inner.borrow().connected.len()
    }

    /// Enters one more connection of a peer, which is there and takes the calls from now on; its latest passport counts.
    /// One that was revoked since its passport was looked at has no rights.
    pub fn enter(
        &self,
        key: PublicKey,
        mut peer: Peer,
        passport: Passport,
        whereabouts: impl Into<Whereabouts>,
    ) -> Visit {
        let Book { connected, visit_count, revocations, .. } = &mut *self.inner.borrow_mut();
        if revocations.admit(&passport).is_err() {
            peer.rights = Rights::default();
        }
        *visit_count += 1;
        let visit = Visit(*visit_count);
        let mut visits = connected.remove(&key).map_or_else(Vec::new, |known| known.visits);
        visits.push((visit, whereabouts.into()));
        connected.insert(key, Connected { peer, passport, visits });
        visit
    }

    /// The connection of a peer that takes the calls, if one side has dialled the other there.
    pub(crate) fn direct_visit(&self, key: &PublicKey) -> Option<Visit> {
        let book = self.inner.borrow();
        let (visit, whereabouts) = book.connected.get(key)?.visits.last()?;
        matches!(whereabouts, Whereabouts::At(_)).then_some(*visit)
    }

    /// Has this connection take the calls to a peer, if it is there.
    pub(crate) fn prefer(&self, key: &PublicKey, visit: Visit) {
        if let Some(known) = self.inner.borrow_mut().connected.get_mut(key) {
            known.visits.sort_by_key(|(other, _)| *other == visit);
        }
    }

    /// Notes how those are reached whose ways may change, for when they have left.
    pub(crate) fn look(&self) {
        self.inner.borrow().connected.values().flat_map(|known| &known.visits).for_each(
            |(_, whereabouts)| {
                whereabouts.now();
            },
        );
    }

    /// Has the newer passport of a peer that is connected count, if it is.
    pub fn renew(&self, passport: &Passport) {
        if let Some(known) = self.inner.borrow_mut().connected.get_mut(&passport.holder())
            && passport.is_newer_than(&known.passport)
            && known.peer.rights.include(passport.rights())
        {
            // The longer one may give fewer.
            known.peer.rights = passport.rights();
            known.peer.expires = passport.opens_until();
            known.passport = passport.clone();
        }
    }

    /// Strikes out one connection of a peer.
    pub fn leave(&self, key: &PublicKey, visit: Visit) {
        let mut book = self.inner.borrow_mut();
        let Some(known) = book.connected.get_mut(key) else { return };
        let place = known.place();
        known.visits.retain(|(other, _)| *other != visit);
        if let Some(place) = place.filter(|_| known.visits.is_empty()) {
            book.connected.remove(key);
            book.remember(*key, place);
        }
    }

    /// Who is here, and who was: at most [`SIGHTINGS_MAX`], the latest first.
    pub fn sightings(&self) -> Vec<Sighting> {
        let (book, now) = (self.inner.borrow(), reactor::now());
        let here = book.connected.iter().filter_map(|(key, known)| {
            let (how, address) = known.place()?;
            Some(Sighting { key: *key, how, address, seconds_ago: 0 })
        });
        let left = book.left.iter().filter(|(key, _)| !book.connected.contains_key(key));
        let left = left.map(|(key, ((how, address), at))| Sighting {
            key: *key,
            how: *how,
            address: *address,
            seconds_ago: now.saturating_duration_since(*at).as_secs().max(1),
        });
        let mut sightings: Vec<Sighting> = here.chain(left).collect();
        sightings.sort_by_key(|sighting| (sighting.seconds_ago, sighting.key));
        sightings.truncate(SIGHTINGS_MAX);
        sightings
    }

    /// How a peer is connected, by the connection that calls take; `None` if it is not.
    pub fn how(&self, key: &PublicKey) -> Option<How> {
        self.place(key).map(|(how, _)| how)
    }

    /// The same, and at which address unless only a relay knows.
    pub fn place(&self, key: &PublicKey) -> Option<(How, Option<SocketAddr>)> {
        self.inner.borrow().connected.get(key)?.place()
    }

    /// Who is a member no more.
    pub fn revocations(&self) -> Revocations {
        self.inner.borrow().revocations.clone()
    }

    /// For how long nodes are to keep what is deleted, by the owner's word; `None` if there is none.
    pub fn retention_seconds(&self) -> Option<u32> {
        self.inner.borrow().revocations.retention_seconds()
    }

    /// Whether a key was revoked.
    pub fn is_revoked(&self, key: &PublicKey) -> bool {
        self.inner.borrow().revocations.contains(key)
    }

    /// When a key was revoked, by the owner's clock.
    pub fn revoked_since(&self, key: &PublicKey) -> Option<SystemTime> {
        let book = self.inner.borrow();
        let entry = book.revocations.revoked().iter().find(|entry| entry.key == *key)?;
        SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(entry.since))
    }

    /// Whether a passport is good as far as the revocations go.
    ///
    /// # Errors
    /// `Revoked`.
    pub fn admit(&self, passport: &Passport) -> Result<(), PassportError> {
        self.inner.borrow().revocations.admit(passport)
    }

    /// Replaces the list of the revoked, which was verified, by a newer one, and strikes out whom it names: nothing that
    /// they ask is done from here on. Returns those that are still connected; `None` if the list is not newer.
    pub fn revoke(&self, newer: Revocations) -> Option<Vec<PublicKey>> {
        let mut book = self.inner.borrow_mut();
        if newer.version() <= book.revocations.version() {
            return None;
        }
        book.revocations = newer;
        let Book { connected, revocations, .. } = &mut *book;
        let mut cut = Vec::new();
        for (key, known) in connected.iter_mut() {
            if revocations.admit(&known.passport).is_err() {
                known.peer.rights = Rights::default();
                cut.push(*key);
            }
        }
        cut.sort();
        Some(cut)
    }
}

impl Book {
    fn remember(&mut self, key: PublicKey, place: (How, Option<SocketAddr>)) {
        self.left.insert(key, (place, reactor::now()));
        if self.left.len() > SIGHTINGS_MAX
            && let Some(oldest) = self.left.iter().min_by_key(|(_, (_, at))| *at).map(|(key, _)| *key)
        {
            self.left.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use reactor::crypto::Identity;
    use reactor::nat::peers::{Path, Transport};

    const CLIENT: Peer = Peer { role: Role::Client, rights: Rights::CLIENT, expires: None };

    fn identity(number: u8) -> Identity {
        Identity::from_seed(&[number; 32])
    }

    fn enter(peers: &Peers, number: u8, peer: Peer) -> PublicKey {
        enter_at(peers, number, peer, address()).0
    }

    fn enter_at(
        peers: &Peers,
        number: u8,
        peer: Peer,
        whereabouts: impl Into<Whereabouts>,
    ) -> (PublicKey, Visit) {
        let key = identity(number).public_key();
        let passport = Passport::issue(&identity(1), key, peer.rights, None);
        (key, peers.enter(key, peer, passport, whereabouts))
    }

    fn address() -> SocketAddr {
        ([192, 0, 2, 7], 50_000).into()
    }

    #[test]
    fn a_peer_has_its_rights_while_one_of_its_connections_lives() {
        let peers = Peers::new();
        let key = identity(2).public_key();
        assert!(peers.check(Some(&key), Rights::CLIENT).is_err());
        let (_, first) = enter_at(&peers, 2, CLIENT, address());
        let (_, second) = enter_at(&peers, 2, CLIENT, address());
        peers.leave(&key, first);
        peers.leave(&key, first);
        assert_eq!(peers.check(Some(&key), Rights::CLIENT), Ok(()));
        assert!(peers.check(Some(&key), Rights::NODE).is_err());
        assert!(peers.check(None, Rights::CLIENT).is_err());
        peers.leave(&key, second);
        assert_eq!((peers.get(&key), peers.count()), (None, 0));
    }

    #[test]
    fn rights_end_with_the_passport_even_on_a_live_connection() {
        let peers = Peers::new();
        let expires = Some(SystemTime::now() - Duration::from_secs(1));
        let key = enter(&peers, 2, Peer { expires, ..CLIENT });
        assert_eq!(peers.get(&key), None);
    }

    #[test]
    fn a_renewed_passport_counts_on_the_connection_that_there_is_and_gives_no_more_rights() {
        let peers = Peers::new();
        let over = Some(SystemTime::now() - Duration::from_secs(1));
        let key = enter(&peers, 2, Peer { expires: over, ..CLIENT });
        let until = |rights, expires| Passport::issue(&identity(1), key, rights, Some(expires));
        let later = SystemTime::now() + Duration::from_secs(3600);
        // What was entered above never ends, so that this is not newer; a shorter one is.
        peers.renew(&until(Rights::CLIENT, later));
        assert_eq!(peers.get(&key), None);
        let short = until(Rights::CLIENT, SystemTime::now());
        peers.enter(key, Peer { expires: over, ..CLIENT }, short, address());
        peers.renew(&until(Rights::ALL, later));
        assert_eq!(peers.get(&key), None);
        peers.renew(&until(Rights::CLIENT, later));
        assert_eq!(peers.check(Some(&key), Rights::CLIENT), Ok(()));
        peers.renew(&Passport::issue(&identity(1), identity(3).public_key(), Rights::CLIENT, None));
        assert_eq!(peers.count(), 1);
        // A longer one that gives less gives no more than that.
        peers.renew(&until(Rights::READER, later + Duration::from_secs(3600)));
        assert_eq!(peers.check(Some(&key), Rights::READER), Ok(()));
        assert!(peers.check(Some(&key), Rights::CLIENT).is_err());
    }

    #[test]
    fn rights_end_with_a_revocation_and_an_older_list_changes_nothing() {
        let peers = Peers::new();
        let (stays, goes) = (enter(&peers, 2, CLIENT), enter(&peers, 3, CLIENT));
        let list = |before: &Revocations, key| before.with(&identity(1), [key], SystemTime::now()).unwrap();
        let first = list(&Revocations::default(), goes);
        let second = list(&first, identity(4).public_key());
        assert_eq!(peers.revoke(second.clone()), Some(vec![goes]));
        assert!(peers.check(Some(&goes), Rights::READER).is_err());
        assert_eq!(peers.check(Some(&stays), Rights::CLIENT), Ok(()));
        // An older list, or another one of the same number, is no news.
        for older in [first, list(&list(&Revocations::default(), goes), stays), Revocations::default()] {
            assert_eq!(peers.revoke(older), None);
        }
        assert_eq!(peers.revocations(), second);
    }

    #[test]
    fn where_a_member_was_last_is_remembered_when_it_has_left() {
        let peers = Peers::new();
        let (key, visit) = enter_at(&peers, 2, CLIENT, address());
        let here = Sighting { key, how: How::Direct, address: Some(address()), seconds_ago: 0 };
        assert_eq!(peers.sightings(), [here]);
        peers.leave(&key, visit);
        let sightings = peers.sightings();
        assert!(sightings[0].seconds_ago >= 1);
        assert_eq!(sightings, [Sighting { seconds_ago: sightings[0].seconds_ago, ..here }]);
    }

    #[test]
    fn how_a_member_is_reached_by_its_id_is_told_as_it_is_now() {
        let (peers, path) = (Peers::new(), Rc::new(std::cell::Cell::new(Path::Relayed)));
        let (key, visit) = enter_at(&peers, 2, CLIENT, by_id(&path));
        let seen = || peers.sightings().first().map(|sighting| (sighting.how, sighting.address));
        assert_eq!((seen(), peers.how(&key)), (Some((How::Relayed, None)), Some(How::Relayed)));
        path.set(Path::Direct { transport: Transport::Udp, address: address(), round_trip: Duration::ZERO });
        assert_eq!(seen(), Some((How::Punched, Some(address()))));
        peers.leave(&key, visit);
        assert_eq!((seen(), peers.how(&key)), (Some((How::Punched, Some(address()))), None));
    }

    fn by_id(path: &Rc<std::cell::Cell<Path>>) -> Whereabouts {
        let now = path.clone();
        Whereabouts::ById(Rc::new(move || now.get()))
    }

    #[test]
    fn of_two_connections_that_which_calls_take_says_how_a_peer_is_reached() {
        let (peers, path) = (Peers::new(), Rc::new(std::cell::Cell::new(Path::Relayed)));
        let (key, direct) = enter_at(&peers, 2, CLIENT, address());
        let (_, relayed) = enter_at(&peers, 2, CLIENT, by_id(&path));
        assert_eq!((peers.how(&key), peers.direct_visit(&key)), (Some(How::Relayed), None));
        peers.prefer(&key, direct);
        assert_eq!((peers.how(&key), peers.direct_visit(&key)), (Some(How::Direct), Some(direct)));
        peers.prefer(&key, relayed);
        // Whichever ends, the other one is how it is reached.
        peers.leave(&key, relayed);
        assert_eq!(peers.how(&key), Some(How::Direct));
        let (_, relayed) = enter_at(&peers, 2, CLIENT, by_id(&path));
        peers.prefer(&key, direct);
        peers.leave(&key, direct);
        assert_eq!((peers.how(&key), peers.sightings()[0].address), (Some(How::Relayed), None));
        peers.leave(&key, relayed);
        assert_eq!(peers.how(&key), None);
    }
}
