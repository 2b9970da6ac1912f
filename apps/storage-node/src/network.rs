//! The settings files of a network: its description, and the keys of those who belong to it.
//!
//! `network.json` is public: who owns the network, how many replicas a block has, where nodes were last seen. A key
//! file is one member's secret together with the passport that lets it in, so that a member can be handed over as
//! one file. The owner's key has no passport: it is what passports are signed with. Its secret may be sealed, so that
//! somebody has to give the passphrase first. Not here: how it is opened (`keyring`), and how any of it is
//! spoken on the wire, which is the overlay's and the DHT's business.

use std::fmt;
use std::net::SocketAddr;

use data_encoding::HEXLOWER_PERMISSIVE as HEX;
use overlay::record::Relay;
use overlay::{Node, Overlay, Statement, Zone};
use reactor::crypto::{Identity, PublicKey};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::cli::NodeSays;
use crate::files::Kind;

/// Bytes that JSON shows as hexadecimal.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Hex<T>(pub(crate) T);

impl<T: AsRef<[u8]>> Serialize for Hex<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&HEX.encode(self.0.as_ref()))
    }
}

impl<'de, T: TryFrom<Vec<u8>>> Deserialize<'de> for Hex<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let bytes = HEX.decode(text.as_bytes()).map_err(|_| D::Error::custom("not hexadecimal"))?;
        let length = bytes.len();
        T::try_from(bytes)
            .map(Hex)
            .map_err(|_| D::Error::custom(format!("{length} bytes are the wrong length")))
    }
}

impl<T: AsRef<[u8]>> fmt::Display for Hex<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEX.encode(self.0.as_ref()))
    }
}

impl<T: AsRef<[u8]>> fmt::Debug for Hex<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// `network.json`: all that is public about a network.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Network {
    /// The key that signs passports.
    pub(crate) owner: Hex<[u8; 32]>,
    /// On how many nodes each block is: min(3, nodes), fixed when the network is made.
    pub(crate) replicas: u8,
    /// The user whose register holds the volume's root.
    pub(crate) volume_owner: Hex<[u8; 32]>,
    /// Random, so that two volumes of one owner never meet: in the volume's register, and in its blocks' tag.
    pub(crate) volume_salt: Hex<[u8; 32]>,
    /// The register that holds the volume's root.
    pub(crate) volume: VolumeEntry,
    /// The storage nodes, and where each was last seen.
    pub(crate) nodes: Vec<NodeEntry>,
    /// The nodes over which others were found when this was written: ways in for whoever can dial none of the others.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) relays: Vec<RelayEntry>,
}

/// The network's one volume, and how far its founding has come.
///
/// The signed genesis record says which nodes keep the volume's root. It is written down before any of them hears of
/// it, for nobody can tell later who they were to be. Not optional in the file: a description without it is of an
/// older program, whose volume must not be taken for one that is still to be made.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "lowercase")]
pub(crate) enum VolumeEntry {
    /// The first `up` makes it.
    Unfounded,
    /// The first root may not have been chosen yet: `up` tries again.
    Creating {
        /// As bytes, of `dht::Signed<Genesis>`.
        genesis: Hex<Vec<u8>>,
    },
    /// It was chosen. A root that can't be found is an error from here on, and never a reason for another.
    Created {
        /// As in `Creating`.
        genesis: Hex<Vec<u8>>,
        /// Who keeps the root since it was moved last, as far as this home knows: bytes of `dht::Signed<Configuration>`. Whoever
        /// begins with this description asks these, and not those of the beginning, who may not be trusted any more.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        configuration: Option<Hex<Vec<u8>>>,
    },
}

/// One storage node, as `network.json` lists it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct NodeEntry {
    /// Its number in the home that made it, from 1.
    pub(crate) number: u16,
    /// Its key, of which its id is the hash.
    pub(crate) public_key: Hex<[u8; 32]>,
    /// Where it listened last; `None` before its first start.
    pub(crate) address: Option<SocketAddr>,
}

/// One relay, as `network.json` lists it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RelayEntry {
    /// The node's key.
    pub(crate) public_key: Hex<[u8; 32]>,
    /// Where it is dialled.
    pub(crate) address: SocketAddr,
}

/// Relays that a newcomer is told of: it learns of the others as soon as it has met anybody.
const RELAYS_TOLD_MAX: usize = 4;

impl RelayEntry {
    /// The members that relay, by their own word, as far as `overlay` has met them; those that are up first.
    pub(crate) fn told_by(overlay: &Node) -> Vec<RelayEntry> {
        let mut contacts = overlay.contacts();
        contacts.sort_by_key(|(_, is_live)| !is_live);
        let own = overlay.own().into_iter().map(|own| (own, true));
        let relays = own.chain(contacts).filter_map(|(contact, _)| contact.as_relay());
        let members = relays.filter(|relay| !overlay.peers().is_revoked(&relay.public_key));
        let entry = |relay: Relay| RelayEntry {
            public_key: Hex(*relay.public_key.as_bytes()),
            address: relay.address,
        };
        members.take(RELAYS_TOLD_MAX).map(entry).collect()
    }
}

impl Kind for Network {
    const KIND: &'static str = "hypha network";
    const VERSION: u32 = 3;
    const SECRET: bool = false;
}

impl Network {
    /// The keys with which the network was made; they can't be removed yet.
    pub(crate) fn founding_keys(&self) -> impl Iterator<Item = &Hex<[u8; 32]>> {
        self.nodes.iter().map(|node| &node.public_key).chain([&self.owner, &self.volume_owner])
    }

    /// The keys of the nodes with which it was made.
    pub(crate) fn founding_nodes(&self) -> impl Iterator<Item = PublicKey> {
        self.nodes.iter().map(|node| PublicKey::from_bytes(node.public_key.0))
    }

    /// What the table of mounts shows as the source of this network's drive.
    pub(crate) fn mark(&self) -> String {
        format!("hypha:{}", &self.volume_salt.to_string()[..8])
    }

    /// The relays, each with where it is dialled.
    pub(crate) fn relays(&self) -> impl Iterator<Item = (PublicKey, SocketAddr)> {
        self.relays.iter().map(|relay| (PublicKey::from_bytes(relay.public_key.0), relay.address))
    }

    /// Where nodes were last seen, relays among them.
    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        let nodes = self.nodes.iter().filter_map(|node| node.address);
        let mut addresses: Vec<SocketAddr> = nodes.collect();
        for relay in &self.relays {
            if !addresses.contains(&relay.address) {
                addresses.push(relay.address);
            }
        }
        addresses
    }
}

/// `*.key`: one member's secret.
#[derive(Serialize, Deserialize)]
pub(crate) struct KeyFile {
    /// What the member is, for people.
    pub(crate) role: Role,
    #[serde(flatten)]
    pub(crate) secret: Secret,
    /// The serialized passport; `None` for the owner.
    pub(crate) passport: Option<Hex<Vec<u8>>>,
}

/// A member's Ed25519 seed.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
pub(crate) enum Secret {
    /// As it is.
    Plain {
        /// The seed.
        seed: Hex<[u8; 32]>,
    },
    /// Under the key of its home, which is under a passphrase.
    Sealed {
        /// As `keyring` seals it.
        sealed: Hex<Vec<u8>>,
    },
}

/// What a key is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Role {
    /// Signs passports.
    Owner,
    /// Reads and writes the drive.
    User,
    /// Stores blocks.
    Node,
}

impl Kind for KeyFile {
    const KIND: &'static str = "hypha key";
    const VERSION: u32 = 1;
    const SECRET: bool = true;
}

impl KeyFile {
    /// One that is not sealed.
    pub(crate) fn plain(role: Role, identity: &Identity, passport: Option<Hex<Vec<u8>>>) -> KeyFile {
        KeyFile { role, secret: Secret::Plain { seed: Hex(*identity.seed()) }, passport }
    }

    /// Whether it takes a passphrase to use it.
    pub(crate) fn is_sealed(&self) -> bool {
        matches!(self.secret, Secret::Sealed { .. })
    }
}

impl fmt::Debug for KeyFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyFile {{ role: {:?}, .. }}", self.role)
    }
}

/// `node.json`: what one node remembers between runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct NodeSettings {
    /// Its number in the home that made it.
    pub(crate) number: u16,
    /// Where it listens; port 0 before its first start.
    pub(crate) listen: SocketAddr,
    /// Whether that address was found, and given by nobody: members who seek it by its id are let in at others too.
    #[serde(default)]
    pub(crate) listen_was_found: bool,
    /// The store that it had last; none before its first start.
    pub(crate) store: Option<StoreEntry>,
    /// Whether a store was lost: with it went what the node had promised as a member of registers.
    pub(crate) has_forgotten: bool,
    /// Where it says that it stands.
    #[serde(default)]
    pub(crate) zone: Option<Zone>,
    /// What it takes at most; `None` for as much as its disk has.
    #[serde(default)]
    pub(crate) capacity_bytes: Option<u64>,
}

impl NodeSettings {
    /// Those of a node before its first start.
    pub(crate) fn new(number: u16, listen: SocketAddr) -> NodeSettings {
        let (store, has_forgotten, zone, capacity_bytes) = (None, false, None, None);
        let listen_was_found = false;
        NodeSettings { number, listen, listen_was_found, store, has_forgotten, zone, capacity_bytes }
    }

    /// Takes what was said on a command line.
    pub(crate) fn take(&mut self, says: &NodeSays) {
        if let Some(choice) = &says.zone {
            self.zone = choice.0.clone();
        }
        if let Some(capacity) = says.capacity {
            self.capacity_bytes = capacity.0;
        }
    }

    /// What the node says of itself.
    pub(crate) fn statement(&self) -> Statement {
        Statement {
            zone: self.zone.clone(),
            capacity_bytes: self.capacity_bytes,
            release: env!("CARGO_PKG_VERSION").into(),
            ..Statement::default()
        }
    }
}

/// Which store a node had, and how often that had been opened: so that a replaced disk, or one put back from a copy, is
/// not taken for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StoreEntry {
    pub(crate) id: Hex<[u8; 16]>,
    pub(crate) opened_count: u64,
}

impl Kind for NodeSettings {
    const KIND: &'static str = "hypha node";
    const VERSION: u32 = 2;
    const SECRET: bool = false;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hexadecimal_of_the_wrong_length_is_refused() {
        assert!(serde_json::from_str::<Hex<[u8; 32]>>(&format!("{:?}", "ab".repeat(32))).is_ok());
        assert!(serde_json::from_str::<Hex<[u8; 32]>>(&format!("{:?}", "ab".repeat(31))).is_err());
        assert!(serde_json::from_str::<Hex<[u8; 32]>>("\"xyz\"").is_err());
    }

    #[test]
    fn a_key_file_never_shows_its_seed() {
        let key = KeyFile::plain(Role::Owner, &Identity::from_seed(&[7; 32]), None);
        assert!(!format!("{key:?}").contains("0707"));
    }
}
