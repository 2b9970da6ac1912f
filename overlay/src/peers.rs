//! Who is connected to us right now, and what their verified passports allow.
//!
//! A handler of the DHT knows its caller's key from the handshake (`CallContext::peer`) and asks here whether that key
//! may store, read or write. The book is made before the node, since the handlers are; the node keeps it.
//! A passport that expires or is revoked while its holder is connected stops opening anything at once.
//!
//! It also remembers who was here and where, for whoever asks who the members are; that is gone with the process.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime};

use reactor::crypto::PublicKey;
use serde::{Deserialize, Serialize};

use crate::passport::{Passport, PassportError, Rights};
use crate::revocation::Revocations;

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

/// When and where a member was here last.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Sighting {
    /// Who.
    pub key: PublicKey,
    /// Where it dialled from, or was dialled at.
    pub address: SocketAddr,
    /// Seconds since it left; 0 for one that is here.
    pub seconds_ago: u64,
}

/// The connected peers. Clones are the same book.
#[derive(Clone, Default)]
pub struct Peers {
    inner: Rc<RefCell<Book>>,
}

#[derive(Default)]
struct Book {
    connected: HashMap<PublicKey, Connected>,
    /// Where those were that have left, and when they did.
    left: HashMap<PublicKey, (SocketAddr, Instant)>,
    revocations: Revocations,
}

struct Connected {
    peer: Peer,
    passport: Passport,
    address: SocketAddr,
    connections: u32,
}

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

    /// How many peers are connected.
    pub fn count(&self) -> usize {
        self.inner.borrow().connected.len()
    }

    /// Enters one more connection of a peer, which is at `address`; its latest passport counts.
    /// One that was revoked since its passport was looked at has no rights.
    pub fn enter(&self, key: PublicKey, mut peer: Peer, passport: Passport, address: SocketAddr) {
        let Book { connected, revocations, .. } = &mut *self.inner.borrow_mut();
        if revocations.admit(&passport).is_err() {
            peer.rights = Rights::default();
        }
        let connections = connected.get(&key).map_or(0, |known| known.connections) + 1;
        connected.insert(key, Connected { peer, passport, address, connections });
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
    pub fn leave(&self, key: &PublicKey) {
        let mut book = self.inner.borrow_mut();
        let Some(known) = book.connected.get_mut(key) else { return };
        known.connections -= 1;
        if known.connections == 0 {
            let address = known.address;
            book.connected.remove(key);
            book.remember(*key, address);
        }
    }

    /// Who is here, and who was: at most [`SIGHTINGS_MAX`], the latest first.
    pub fn sightings(&self) -> Vec<Sighting> {
        let (book, now) = (self.inner.borrow(), reactor::now());
        let here = book.connected.iter();
        let here = here.map(|(key, known)| Sighting { key: *key, address: known.address, seconds_ago: 0 });
        let left = book.left.iter().filter(|(key, _)| !book.connected.contains_key(key));
        let left = left.map(|(key, (address, at))| Sighting {
            key: *key,
            address: *address,
            seconds_ago: now.saturating_duration_since(*at).as_secs().max(1),
        });
        let mut sightings: Vec<Sighting> = here.chain(left).collect();
        sightings.sort_by_key(|sighting| (sighting.seconds_ago, sighting.key));
        sightings.truncate(SIGHTINGS_MAX);
        sightings
    }

    /// Who is a member no more.
    pub fn revocations(&self) -> Revocations {
        self.inner.borrow().revocations.clone()
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
    fn remember(&mut self, key: PublicKey, address: SocketAddr) {
        self.left.insert(key, (address, reactor::now()));
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

    const CLIENT: Peer = Peer { role: Role::Client, rights: Rights::CLIENT, expires: None };

    fn identity(number: u8) -> Identity {
        Identity::from_seed(&[number; 32])
    }

    fn enter(peers: &Peers, number: u8, peer: Peer) -> PublicKey {
        let key = identity(number).public_key();
        let passport = Passport::issue(&identity(1), key, peer.rights, None);
        peers.enter(key, peer, passport, "192.0.2.7:50000".parse().unwrap());
        key
    }

    #[test]
    fn a_peer_has_its_rights_while_one_of_its_connections_lives() {
        let peers = Peers::new();
        let key = identity(2).public_key();
        assert!(peers.check(Some(&key), Rights::CLIENT).is_err());
        enter(&peers, 2, CLIENT);
        enter(&peers, 2, CLIENT);
        peers.leave(&key);
        assert_eq!(peers.check(Some(&key), Rights::CLIENT), Ok(()));
        assert!(peers.check(Some(&key), Rights::NODE).is_err());
        assert!(peers.check(None, Rights::CLIENT).is_err());
        peers.leave(&key);
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
        peers.enter(key, Peer { expires: over, ..CLIENT }, short, "192.0.2.7:50000".parse().unwrap());
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
        let key = enter(&peers, 2, CLIENT);
        assert_eq!(peers.sightings()[0].seconds_ago, 0);
        peers.leave(&key);
        let sightings = peers.sightings();
        assert_eq!((sightings.len(), sightings[0].key), (1, key));
        assert!(sightings[0].seconds_ago >= 1);
    }
}
