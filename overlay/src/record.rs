//! What a node says of itself, signed by its own key: where it is, by which relays it can be reached, in which zone it
//! stands, how much it takes, which release it runs.
//!
//! ```text
//! body       MessagePack array: version, addresses, relays, zone, capacity, release, whether it relays, the word of the life that
//!            says it (`life.rs`), and whatever later releases append
//! signature  the node's, over SHA3-256("hypha node record 2", network, its key, body)
//! ```
//!
//! A record is good in the network that it names in its signature, and nowhere else. Of two records of one node the one of
//! the higher version is the newer; the version is the time in milliseconds, or one more than the last one where the clock
//! says less. Of two of one version, which only a node that was copied signs, everybody takes the same.
//! Each process of the node, a *life*, signs in its records from which life's word it began, and beside whom it lives once it was
//! shown a record that another signed. A life that finds itself named so in a record that is not its own knows by the node's key's
//! signature that another process has that key; no peer that doesn't have it can make it believe so (`twin.rs`).
//! The body travels as the bytes that were signed, so a node of an earlier release passes on what it does not understand.
//!
//! That a node signed something does not make it true. So nothing here is trusted further than a lie may go: addresses and
//! relays are where to try, zone and capacity say where blocks are put, and the placement bounds what either can draw.
//! A node speaks for itself alone: the relays over which it is found it names by their keys, and where one of those is, that
//! one's own record says.
//!
//! Pure. Not here: who has which record ([`crate::records`]), and when a node signs another one (`stating.rs`).

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

use bytes::Bytes;
use reactor::crypto::hash::sha3_256;
use reactor::crypto::{Identity, PublicKey, Signature};
use reactor::rpc::read_message;
use reactor::serialization::to_bytes;
use serde::{Deserialize, Serialize};

use crate::contact::{ADDRESSES_MAX, Addresses};
use crate::life::LifeWord;

/// Relays that a record names: all that a node keeps for being found.
pub const RELAYS_MAX: usize = 4;

/// Most bytes of a zone's name.
pub const ZONE_BYTES_MAX: usize = 32;

/// What people write for no zone: no zone is called so.
pub const NO_ZONE: &str = "none";

/// Most bytes of a release's name.
pub const RELEASE_BYTES_MAX: usize = 32;

/// No version is as high: who signed the highest there is could never say anything newer, nor could who follows in the place
/// of a thief of the key.
const VERSION_MAX: u64 = 1 << 62;

/// Most bytes of a body. The longest of today's has some 650; the rest is for later fields.
pub const RECORD_BYTES_MAX: usize = 768;

/// A node that hands on calls for those who can't be dialled, by its own word.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Relay {
    /// The key that its handshake proves.
    pub public_key: PublicKey,
    /// Where it listens.
    pub address: SocketAddr,
}

/// What fails together: a machine, a room, a site. Nodes of one zone may die at once, so copies lie in different ones.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Zone(String);

/// The text names no zone.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "a zone's name has 1 to {ZONE_BYTES_MAX} of the characters a-z, 0-9, `.`, `_` and `-`, as in `cellar` or `fra-2`, and is not \
     `{NO_ZONE}`"
)]
pub struct BadZone;

impl Zone {
    /// Its name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Zone {
    type Err = BadZone;

    fn from_str(text: &str) -> Result<Zone, BadZone> {
        let is_good = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-');
        let fits = (1..=ZONE_BYTES_MAX).contains(&text.len()) && text != NO_ZONE;
        if fits && text.bytes().all(is_good) { Ok(Zone(text.to_owned())) } else { Err(BadZone) }
    }
}

impl TryFrom<String> for Zone {
    type Error = BadZone;

    fn try_from(text: String) -> Result<Zone, BadZone> {
        text.parse()
    }
}

impl From<Zone> for String {
    fn from(zone: Zone) -> String {
        zone.0
    }
}

impl fmt::Display for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// What a node says of itself.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Statement {
    /// Where it listens. "All addresses" is none that anybody could dial, and left out.
    pub addresses: Addresses,
    /// The keys of the nodes over which it can be reached; the first [`RELAYS_MAX`] count.
    pub relays: Vec<PublicKey>,
    /// Where it stands, if it says so.
    pub zone: Option<Zone>,
    /// How much it takes, if it says so.
    pub capacity_bytes: Option<u64>,
    /// Which release it runs.
    pub release: String,
    /// Whether it relays for the members of its network, at the first of its addresses.
    pub is_relay: bool,
}

/// What is signed. Only ever append, with `#[serde(default)]`.
#[derive(Serialize, Deserialize)]
struct Body {
    version: u64,
    addresses: Vec<SocketAddr>,
    relays: Vec<PublicKey>,
    zone: Option<Zone>,
    capacity_bytes: Option<u64>,
    release: String,
    #[serde(default)]
    is_relay: bool,
    #[serde(default)]
    life: Option<LifeWord>,
}

/// A record as it travels: nobody has looked at its signature yet.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SignedRecord {
    body: Bytes,
    signature: Signature,
}

/// A record that its node signed for the network that we are of: whoever holds one has had that verified, or signed it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NodeRecord {
    holder: PublicKey,
    version: u64,
    statement: Statement,
    life: Option<LifeWord>,
    signed: SignedRecord,
}

/// Why a record is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error, Serialize, Deserialize)]
#[non_exhaustive]
pub enum RecordError {
    /// It is longer than any may be.
    #[error("a node's record has at most {RECORD_BYTES_MAX} bytes")]
    TooLong,
    /// The node did not sign it, or for another network.
    #[error("the node did not sign this record for this network")]
    Forged,
    /// It was brought by somebody else.
    #[error("a node tells what it says of itself, and what the node that it talks to had said, and no more")]
    NotItsAffair,
    /// It does not decode.
    #[error(
        "this is no node's record: it is damaged, or of a release that has nothing in common with this one"
    )]
    Malformed,
    /// Whoever says something new of itself all the time is heard now and then.
    #[error(
        "this node says something new of itself more often than anybody moves; it is heard again in a minute"
    )]
    TooOften,
}

impl Statement {
    /// What of it fits into a record.
    fn bounded(mut self) -> Statement {
        self.addresses.retain(|address| !address.ip().is_unspecified() && address.port() != 0);
        self.addresses.truncate(ADDRESSES_MAX);
        self.relays.truncate(RELAYS_MAX);
        // It is shown on terminals.
        self.release.retain(|character| character.is_ascii_graphic());
        self.release.truncate(RELEASE_BYTES_MAX);
        self
    }
}

impl SignedRecord {
    /// The version that it claims to be of.
    ///
    /// # Errors
    /// `TooLong` or `Malformed`.
    pub(crate) fn claimed_version(&self) -> Result<u64, RecordError> {
        self.body().map(|body| body.version)
    }

    /// What `holder` says of itself in `network`.
    ///
    /// # Errors
    /// [`RecordError`].
    pub fn verify(&self, holder: &PublicKey, network: &PublicKey) -> Result<NodeRecord, RecordError> {
        let Body { version, addresses, relays, zone, capacity_bytes, release, is_relay, life } =
            self.body()?;
        if version >= VERSION_MAX {
            return Err(RecordError::Malformed);
        }
        let signed = digest(network, holder, &self.body);
        holder.verify(&signed, &self.signature).map_err(|_| RecordError::Forged)?;
        if life.as_ref().is_some_and(|life| !life.is_good(network, holder, version)) {
            return Err(RecordError::Forged);
        }
        let addresses = addresses.into_iter().collect();
        let statement = Statement { addresses, relays, zone, capacity_bytes, release, is_relay }.bounded();
        Ok(NodeRecord { holder: *holder, version, statement, life, signed: self.clone() })
    }

    fn body(&self) -> Result<Body, RecordError> {
        if self.body.len() > RECORD_BYTES_MAX {
            return Err(RecordError::TooLong);
        }
        read_message(&self.body).map_err(|_| RecordError::Malformed)
    }
}

impl NodeRecord {
    /// Signs what the holder of `identity` says of itself in `network`, as far as it fits; by nobody's life.
    pub fn sign(identity: &Identity, network: &PublicKey, version: u64, statement: Statement) -> NodeRecord {
        NodeRecord::sign_in(identity, network, version, statement, None)
    }

    /// The same, as a life says it.
    pub fn sign_in(
        identity: &Identity,
        network: &PublicKey,
        version: u64,
        statement: Statement,
        life: Option<LifeWord>,
    ) -> NodeRecord {
        let (holder, statement) = (identity.public_key(), statement.bounded());
        let body = to_bytes(&Body {
            version,
            addresses: statement.addresses.to_vec(),
            relays: statement.relays.clone(),
            zone: statement.zone.clone(),
            capacity_bytes: statement.capacity_bytes,
            release: statement.release.clone(),
            is_relay: statement.is_relay,
            life: life.clone(),
        });
        let signature = identity.sign(&digest(network, &holder, &body));
        let signed = SignedRecord { body: body.into(), signature };
        NodeRecord { holder, version, statement, life, signed }
    }

    /// Whose it is.
    pub fn holder(&self) -> &PublicKey {
        &self.holder
    }

    /// What tells it from the holder's earlier ones.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// The word of the life that says it; none if nobody's does.
    pub fn life(&self) -> Option<&LifeWord> {
        self.life.as_ref()
    }

    /// What the holder says.
    pub fn statement(&self) -> &Statement {
        &self.statement
    }

    /// The relay that the holder says it is.
    pub fn as_relay(&self) -> Option<Relay> {
        let address = *self.statement.addresses.first().filter(|_| self.statement.is_relay)?;
        Some(Relay { public_key: self.holder, address })
    }

    /// The record as it travels.
    pub fn signed(&self) -> &SignedRecord {
        &self.signed
    }

    /// Whether it takes the place of `other`, which is of the same holder.
    pub fn is_newer_than(&self, other: &NodeRecord) -> bool {
        (self.version, &self.signed.body) > (other.version, &other.signed.body)
    }
}

fn digest(network: &PublicKey, holder: &PublicKey, body: &[u8]) -> [u8; 32] {
    sha3_256(&[b"hypha node record 2", network.as_bytes(), holder.as_bytes(), body])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::life::{AFTER_MAX, Life};
    use proptest::prelude::*;
    use reactor::serialization::from_bytes;
    use std::time::Instant;

    fn identity(number: u8) -> Identity {
        Identity::from_seed(&[number; 32])
    }

    fn network() -> PublicKey {
        identity(1).public_key()
    }

    /// As much as any node can say.
    fn longest() -> Statement {
        let address =
            |port: u16| SocketAddr::new("2001:db8:ffff:ffff:ffff:ffff:ffff:ffff".parse().unwrap(), port);
        Statement {
            addresses: (0..ADDRESSES_MAX as u16).map(|number| address(60_000 + number)).collect(),
            relays: (0..RELAYS_MAX as u8).map(|number| identity(number).public_key()).collect(),
            zone: Some("z".repeat(ZONE_BYTES_MAX).parse().unwrap()),
            capacity_bytes: Some(u64::MAX),
            release: "9".repeat(RELEASE_BYTES_MAX),
            is_relay: true,
        }
    }

    #[test]
    fn what_a_node_signs_others_read() {
        let record = NodeRecord::sign(&identity(2), &network(), VERSION_MAX - 1, longest());
        assert_eq!(*record.statement(), longest());
        let travelled: SignedRecord = from_bytes(&to_bytes(record.signed())).unwrap();
        assert_eq!(travelled.verify(record.holder(), &network()), Ok(record.clone()));
        let nothing = NodeRecord::sign(&identity(2), &network(), 0, Statement::default());
        assert_eq!(nothing.signed.verify(nothing.holder(), &network()), Ok(nothing.clone()));
    }

    #[test]
    fn another_nodes_another_networks_and_a_changed_record_are_forged() {
        let record = NodeRecord::sign(&identity(2), &network(), 7, longest());
        let signed = record.signed();
        for (holder, network) in [(3, 1), (2, 3)] {
            let (holder, network) = (identity(holder).public_key(), identity(network).public_key());
            assert_eq!(signed.verify(&holder, &network), Err(RecordError::Forged));
        }
        let other = NodeRecord::sign(&identity(2), &network(), 8, longest());
        let changed = SignedRecord { body: other.signed.body, signature: signed.signature };
        assert_eq!(changed.verify(record.holder(), &network()), Err(RecordError::Forged));
    }

    #[test]
    fn nobody_signs_himself_out_of_all_later_words() {
        for version in [VERSION_MAX, u64::MAX] {
            let record = NodeRecord::sign(&identity(2), &network(), version, Statement::default());
            assert_eq!(record.signed.verify(record.holder(), &network()), Err(RecordError::Malformed));
        }
    }

    #[test]
    fn the_higher_version_is_the_newer_and_of_one_version_everybody_takes_the_same() {
        let of = |version, capacity_bytes| {
            let statement = Statement { capacity_bytes: Some(capacity_bytes), ..Statement::default() };
            NodeRecord::sign(&identity(2), &network(), version, statement)
        };
        assert!(of(2, 1).is_newer_than(&of(1, 9)) && !of(1, 9).is_newer_than(&of(2, 1)));
        assert!(!of(1, 1).is_newer_than(&of(1, 1)));
        assert_ne!(of(1, 1).is_newer_than(&of(1, 2)), of(1, 2).is_newer_than(&of(1, 1)));
    }

    /// What a life says that comes after as many as are named, beside another.
    fn of_a_life(network: &PublicKey, version: u64) -> LifeWord {
        let mut last = None;
        for _ in 0..AFTER_MAX + 2 {
            let life = Life::begin(Identity::generate(), last.as_ref(), false, Instant::now());
            last = Some(life.word(network, &identity(2).public_key(), version, Some((u64::MAX, u64::MAX))));
        }
        last.unwrap()
    }

    #[test]
    fn the_word_of_a_life_travels_with_the_longest_record_and_is_that_records_alone() {
        let version = VERSION_MAX - 1;
        let said = of_a_life(&network(), version);
        let sign = |version, life: &LifeWord| {
            NodeRecord::sign_in(&identity(2), &network(), version, longest(), Some(life.clone()))
        };
        let record = sign(version, &said);
        let travelled: SignedRecord = from_bytes(&to_bytes(record.signed())).unwrap();
        assert_eq!(travelled.verify(record.holder(), &network()), Ok(record.clone()));
        assert_eq!(record.life(), Some(&said));
        assert!(record.signed.body.len() < 704, "{} bytes leave no room", record.signed.body.len());
        // The node's key alone does not speak for a life: neither in another record nor in another network.
        let forged =
            [sign(version - 1, &said), sign(version, &of_a_life(&identity(3).public_key(), version))];
        for forged in forged {
            assert_eq!(forged.signed().verify(forged.holder(), &network()), Err(RecordError::Forged));
        }
    }

    #[test]
    fn what_an_earlier_release_signed_is_of_no_life() {
        #[derive(Serialize)]
        struct Earlier(u64, Vec<SocketAddr>, Vec<PublicKey>, Option<String>, Option<u64>, String, bool);
        let body = to_bytes(&Earlier(9, vec![], vec![], None, None, "1".into(), true));
        let holder = identity(2);
        let signature = holder.sign(&digest(&network(), &holder.public_key(), &body));
        let record = SignedRecord { body: body.into(), signature }.verify(&holder.public_key(), &network());
        let record = record.unwrap();
        assert_eq!((record.life(), record.statement().is_relay), (None, true));
    }

    #[test]
    fn what_a_later_release_appends_is_passed_over_and_passed_on() {
        #[derive(Serialize)]
        struct Later(
            u64,
            Vec<SocketAddr>,
            Vec<PublicKey>,
            Option<String>,
            Option<u64>,
            String,
            bool,
            Option<LifeWord>,
            Vec<u64>,
            String,
        );
        let later =
            Later(9, vec![], vec![], Some("a".into()), None, "2".into(), true, None, vec![1, 2], "x".into());
        let (holder, body) = (identity(2), to_bytes(&later));
        let signature = holder.sign(&digest(&network(), &holder.public_key(), &body));
        let signed = SignedRecord { body: body.into(), signature };
        let record = signed.verify(&holder.public_key(), &network()).unwrap();
        assert_eq!((record.version(), record.statement().zone.as_ref().map(Zone::as_str)), (9, Some("a")));
        assert_eq!(*record.signed(), signed);
    }

    #[test]
    fn more_than_fits_is_left_out_and_more_than_anybody_signs_is_refused() {
        let mut much = longest();
        much.relays.extend(much.relays.clone());
        much.addresses.insert(0, "0.0.0.0:4701".parse().unwrap());
        much.release = "1.0\u{1b}[2J\n".into();
        let said = NodeRecord::sign(&identity(2), &network(), 1, much).statement().clone();
        assert_eq!(
            (said.relays.len(), said.addresses, &*said.release),
            (RELAYS_MAX, longest().addresses, "1.0[2J")
        );
        let body = Bytes::from(vec![0x90; RECORD_BYTES_MAX + 1]);
        let long = SignedRecord { body, signature: Signature::from_bytes([0; 64]) };
        assert_eq!(long.verify(&network(), &network()), Err(RecordError::TooLong));
    }

    #[test]
    fn a_zone_is_a_short_plain_word() {
        for good in ["a", "cellar", "fra-2.rack_7"] {
            assert_eq!(good.parse::<Zone>().unwrap().to_string(), good);
        }
        for bad in ["none", "", "Cellar", "two words", "küche", "a/b", &"z".repeat(ZONE_BYTES_MAX + 1)] {
            assert_eq!(bad.parse::<Zone>(), Err(BadZone), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn garbage_is_an_error(body: Vec<u8>) {
            let signed = SignedRecord { body: body.into(), signature: Signature::from_bytes([7; 64]) };
            prop_assert!(signed.verify(&network(), &network()).is_err());
        }
    }
}
