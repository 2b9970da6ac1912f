//! A contact: who a node is and where it was last heard of.
//!
//! The id always follows from the public key (it is computed, never read from outside), so a contact that arrives in a
//! message cannot claim somebody else's position. Its addresses are only hints: an address is never an identity, and
//! a connection to one counts for nothing until its handshake has proved the key.

use std::fmt;
use std::net::SocketAddr;

use reactor::crypto::PublicKey;
use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use smallvec::SmallVec;

use crate::node_id::NodeId;

/// The addresses of one contact. Two inline: one of each IP version is the usual case.
pub type Addresses = SmallVec<[SocketAddr; 2]>;

/// Addresses kept per contact; further ones in a message are read and dropped.
/// Four: an IPv4 and an IPv6 one, each on a local and on a public network.
pub const ADDRESSES_MAX: usize = 4;

/// Who a node is, and where to find it.
#[derive(Clone, PartialEq, Eq)]
pub struct Contact {
    /// SHA3-256 of `public_key`.
    pub id: NodeId,
    /// The key that the node's handshake proves.
    pub public_key: PublicKey,
    /// Where it listens, the most promising first.
    pub addresses: Addresses,
}

impl Contact {
    /// The contact of the holder of `public_key`; the id is computed. Keeps the first [`ADDRESSES_MAX`] addresses.
    pub fn new(public_key: PublicKey, addresses: impl IntoIterator<Item = SocketAddr>) -> Contact {
        let addresses = addresses.into_iter().take(ADDRESSES_MAX).collect();
        Contact { id: NodeId::of(&public_key), public_key, addresses }
    }
}

impl fmt::Debug for Contact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}@{:?}", self.id, self.addresses)
    }
}

impl fmt::Display for Contact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.id)?;
        match self.addresses.first() {
            Some(address) => write!(f, " at {address}"),
            None => Ok(()),
        }
    }
}

impl Serialize for Contact {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        (&self.public_key, &self.addresses[..]).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Contact {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Contact, D::Error> {
        let (public_key, Hints(addresses)) = <(PublicKey, Hints)>::deserialize(deserializer)?;
        Ok(Contact::new(public_key, addresses))
    }
}

/// Addresses as they arrive: never more than [`ADDRESSES_MAX`] are kept, however many are sent.
struct Hints(Addresses);

impl<'de> Deserialize<'de> for Hints {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Hints, D::Error> {
        struct Collect;
        impl<'de> Visitor<'de> for Collect {
            type Value = Addresses;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of socket addresses")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Addresses, A::Error> {
                let mut addresses = Addresses::new();
                while let Some(address) = sequence.next_element::<SocketAddr>()? {
                    if addresses.len() < ADDRESSES_MAX {
                        addresses.push(address);
                    }
                }
                Ok(addresses)
            }
        }
        deserializer.deserialize_seq(Collect).map(Hints)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use reactor::crypto::Identity;
    use reactor::serialization::{from_bytes, to_bytes};

    #[test]
    fn a_contact_survives_the_wire_and_its_id_is_recomputed() {
        let key = Identity::generate().public_key();
        let contact = Contact::new(key, ["127.0.0.1:7001".parse().unwrap(), "[::1]:7001".parse().unwrap()]);
        let read: Contact = from_bytes(&to_bytes(&contact)).unwrap();
        assert_eq!(read, contact);
        assert_eq!(read.id, NodeId::of(&key));
    }

    #[test]
    fn surplus_addresses_are_dropped() {
        let key = Identity::generate().public_key();
        let many: Vec<SocketAddr> = (1..100).map(|port| SocketAddr::from(([127, 0, 0, 1], port))).collect();
        let read: Contact = from_bytes(&to_bytes(&(key, &many))).unwrap();
        assert_eq!(read.addresses.len(), ADDRESSES_MAX);
    }
}
