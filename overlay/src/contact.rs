//! A contact: who a node is, where it was last heard of, and what it says of itself.
//!
//! The id always follows from the public key (it is computed, never read from outside), so a contact that arrives in a
//! message cannot claim somebody else's position. Its addresses are only hints: an address is never an identity, and
//! a connection to one counts for nothing until its handshake has proved the key. Its record is the node's own signed word,
//! and verified: a contact travels as an [`Introduction`], and what is said in one enters a contact through the book of
//! records ([`crate::records`]) only.
//!
//! A contact is cloned at every turn of a lookup; the record in it is shared.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use reactor::crypto::PublicKey;
use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use smallvec::SmallVec;

use crate::node_id::NodeId;
use crate::record::{NodeRecord, Relay, SignedRecord, Zone};

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
    /// Where it listens, the most promising first: where it says that it is, then where others have met it.
    pub addresses: Addresses,
    /// What it says of itself, if that is known. Of the same key; boxed, since most that is done with a contact is cloning it.
    record: Option<Arc<NodeRecord>>,
}

impl Contact {
    /// The contact of the holder of `public_key`; the id is computed. Keeps the first [`ADDRESSES_MAX`] addresses.
    pub fn new(public_key: PublicKey, addresses: impl IntoIterator<Item = SocketAddr>) -> Contact {
        let addresses = addresses.into_iter().take(ADDRESSES_MAX).collect();
        Contact { id: NodeId::of(&public_key), public_key, addresses, record: None }
    }

    /// The same node as its own word describes it, unless a newer one is known already: where it says that it is comes
    /// first. A record of another node changes nothing.
    #[must_use]
    pub fn with_record(mut self, record: Arc<NodeRecord>) -> Contact {
        let is_known = self.record.as_ref().is_some_and(|known| !record.is_newer_than(known));
        if is_known || *record.holder() != self.public_key {
            return self;
        }
        let mut addresses = record.statement().addresses.clone();
        for address in self.addresses {
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        addresses.truncate(ADDRESSES_MAX);
        self.addresses = addresses;
        self.record = Some(record);
        self
    }

    /// The same node where `record` alone says that it is; if it does not, where it was.
    pub(crate) fn moved_to(&self, record: Arc<NodeRecord>) -> Contact {
        let says_nothing = record.statement().addresses.is_empty();
        let addresses = self.addresses.iter().filter(|_| says_nothing).copied();
        Contact::new(self.public_key, addresses).with_record(record)
    }

    /// What it says of itself.
    pub fn record(&self) -> Option<&Arc<NodeRecord>> {
        self.record.as_ref()
    }

    /// Which relays it can be reached by; none if it names none.
    pub fn relays(&self) -> &[PublicKey] {
        self.record.as_ref().map_or(&[], |record| &record.statement().relays)
    }

    /// The relay that it is, by its own word.
    pub fn as_relay(&self) -> Option<Relay> {
        self.record.as_ref()?.as_relay()
    }

    /// Where it says that it stands.
    pub fn zone(&self) -> Option<&Zone> {
        self.record.as_ref()?.statement().zone.as_ref()
    }

    /// How much it says that it takes.
    pub fn capacity_bytes(&self) -> Option<u64> {
        self.record.as_ref()?.statement().capacity_bytes
    }

    /// Whether it has a newer record than `other`, which is of the same node.
    pub fn is_newer_than(&self, other: &Contact) -> bool {
        match (&self.record, &other.record) {
            (Some(ours), Some(theirs)) => ours.is_newer_than(theirs),
            (ours, None) => ours.is_some(),
            (None, Some(_)) => false,
        }
    }
}

impl fmt::Debug for Contact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}@{:?}", self.id, self.addresses)?;
        match &self.record {
            Some(record) => write!(f, " (record {})", record.version()),
            None => Ok(()),
        }
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

/// A contact as it travels: what somebody says of a node, and what the node says of itself, if he has that. Nothing of it
/// is proved yet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Introduction {
    /// Whom it is about.
    pub public_key: PublicKey,
    /// Where it is said to be.
    pub addresses: Addresses,
    /// Its own word; nobody has looked at the signature.
    pub record: Option<SignedRecord>,
}

impl From<&Contact> for Introduction {
    fn from(contact: &Contact) -> Introduction {
        let record = contact.record.as_ref().map(|record| record.signed().clone());
        Introduction { public_key: contact.public_key, addresses: contact.addresses.clone(), record }
    }
}

impl Serialize for Introduction {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        (&self.public_key, &self.addresses[..], &self.record).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Introduction {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Introduction, D::Error> {
        let (public_key, Hints(addresses), record) =
            <(PublicKey, Hints, Option<SignedRecord>)>::deserialize(deserializer)?;
        Ok(Introduction { public_key, addresses, record })
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
    use crate::record::Statement;
    use reactor::crypto::Identity;
    use reactor::serialization::{from_bytes, to_bytes};

    fn address(port: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    fn record(identity: &Identity, version: u64, ports: &[u16]) -> Arc<NodeRecord> {
        let addresses = ports.iter().copied().map(address).collect();
        let statement = Statement { addresses, ..Statement::default() };
        Arc::new(NodeRecord::sign(identity, &identity.public_key(), version, statement))
    }

    #[test]
    fn an_introduction_survives_the_wire_with_and_without_a_record() {
        let identity = Identity::generate();
        let contact = Contact::new(identity.public_key(), [address(7001), "[::1]:7001".parse().unwrap()]);
        assert_eq!(contact.id, NodeId::of(&identity.public_key()));
        for contact in [contact.clone(), contact.with_record(record(&identity, 1, &[7002]))] {
            let said = Introduction::from(&contact);
            assert_eq!(from_bytes::<Introduction>(&to_bytes(&said)).unwrap(), said);
            assert_eq!(said.record.is_some(), contact.record().is_some());
        }
    }

    #[test]
    fn surplus_addresses_are_dropped() {
        let key = Identity::generate().public_key();
        let many: Vec<SocketAddr> = (1..100).map(address).collect();
        let read: Introduction = from_bytes(&to_bytes(&(key, &many, None::<u8>))).unwrap();
        assert_eq!(read.addresses.len(), ADDRESSES_MAX);
        let contact = Contact::new(key, many);
        assert_eq!(contact.addresses.len(), ADDRESSES_MAX);
    }

    #[test]
    fn a_node_is_where_its_newest_record_says_and_then_where_it_was_met() {
        let identity = Identity::generate();
        let met = Contact::new(identity.public_key(), [address(1), address(2)]);
        let second = met.clone().with_record(record(&identity, 2, &[3, 1]));
        assert_eq!(second.addresses[..], [address(3), address(1), address(2)]);
        assert_eq!(second.clone().with_record(record(&identity, 1, &[9])), second, "that is older");
        assert_eq!(
            second.clone().with_record(record(&Identity::generate(), 9, &[9])),
            second,
            "that is another's"
        );
        assert!(second.is_newer_than(&met) && !met.is_newer_than(&second) && !second.is_newer_than(&second));
        let moved = second.moved_to(record(&identity, 3, &[4]));
        assert_eq!(moved.addresses[..], [address(4)], "it is where it was no more");
        assert_eq!(second.moved_to(record(&identity, 3, &[])).addresses, second.addresses);
    }
}
