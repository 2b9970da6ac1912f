//! Who is connected to us right now, and what their verified passports allow.
//!
//! A handler of the DHT knows its caller's key from the handshake (`CallContext::peer`) and asks here whether that key
//! may store, read or write. The book is made before the node, since the handlers are; the node keeps it.
//! A passport that expires while its holder is connected stops opening anything at once.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::time::SystemTime;

use reactor::crypto::PublicKey;
use serde::{Deserialize, Serialize};

use crate::passport::{PassportError, Rights};

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

/// The connected peers. Clones are the same book.
#[derive(Clone, Default)]
pub struct Peers {
    /// With the number of connections each has.
    connected: Rc<RefCell<HashMap<PublicKey, (Peer, u32)>>>,
}

impl Peers {
    /// An empty book.
    pub fn new() -> Peers {
        Peers::default()
    }

    /// The peer with this key, if it is connected and its passport is valid now.
    pub fn get(&self, key: &PublicKey) -> Option<Peer> {
        let (peer, _) = *self.connected.borrow().get(key)?;
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
        self.connected.borrow().len()
    }

    /// Enters one more connection of a peer; its latest passport counts.
    pub fn enter(&self, key: PublicKey, peer: Peer) {
        let mut connected = self.connected.borrow_mut();
        let connections = connected.get(&key).map_or(0, |(_, connections)| *connections);
        connected.insert(key, (peer, connections + 1));
    }

    /// Strikes out one connection of a peer.
    pub fn leave(&self, key: &PublicKey) {
        let mut connected = self.connected.borrow_mut();
        if let Some((_, connections)) = connected.get_mut(key) {
            *connections -= 1;
            if *connections == 0 {
                connected.remove(key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const KEY: PublicKey = PublicKey::from_bytes([1; 32]);
    const CLIENT: Peer = Peer { role: Role::Client, rights: Rights::CLIENT, expires: None };

    #[test]
    fn a_peer_has_its_rights_while_one_of_its_connections_lives() {
        let peers = Peers::new();
        assert!(peers.check(Some(&KEY), Rights::CLIENT).is_err());
        peers.enter(KEY, CLIENT);
        peers.enter(KEY, CLIENT);
        peers.leave(&KEY);
        assert_eq!(peers.check(Some(&KEY), Rights::CLIENT), Ok(()));
        assert!(peers.check(Some(&KEY), Rights::NODE).is_err());
        assert!(peers.check(None, Rights::CLIENT).is_err());
        peers.leave(&KEY);
        assert_eq!((peers.get(&KEY), peers.count()), (None, 0));
    }

    #[test]
    fn rights_end_with_the_passport_even_on_a_live_connection() {
        let peers = Peers::new();
        let expires = Some(SystemTime::now() - Duration::from_secs(1));
        peers.enter(KEY, Peer { expires, ..CLIENT });
        assert_eq!(peers.get(&KEY), None);
    }
}
