//! What a node says of itself, signed by its own key: where it is, by which relays it can be reached, in which zone it
//! stands, how much it takes, which release it runs.
//!
//! ```text
//! body       MessagePack array: version, addresses, relays, zone, capacity, release, whether it relays, and whatever later
//!            releases append
//! life       the word of the life that says it (`life.rs`), signed beside this body; empty if nobody's does
//! signature  the node's, over SHA3-256("hypha node record 3", network, its key, SHA3-256(body), life)
//! ```
//!
//! A record is good in the network that it names in its signature, and nowhere else. Of two records of one node the one of
//! the higher version is the newer; the version is the time in milliseconds, or more than the last one where the clock says
//! less (`version_after`). Of two of one version, which only a node that was copied signs, everybody takes the same.
//! Each process of the node, a *life*, signs in its records from which life's word it began, and beside whom it lives once it was
//! shown a record that another signed. A life that finds itself named so in a record that is not its own knows by the node's key's
//! signature that another process has that key; no peer that doesn't have it can make it believe so (`twin.rs`).
//! Body and life travel as the bytes that were signed, so a node passes on what a later release appends to either.
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

/// No version is as high, so that adding to one never ends. A thief of the key may sign the highest that there is: then nobody says
/// anything newer with that key, and that he is there is told ([`leaves_no_room`]).
const VERSION_MAX: u64 = 1 << 62;

/// How far above a record that nobody knows of whoever has its key says what it says: a year. Another one that is newer even than
/// that is none that somebody forgot ([`crate::signers`]).
pub(crate) const LEAP_MS: u64 = 365 * 24 * 3600 * 1000;

/// Most bytes of a body and the word of a life. The longest of today's have some 700; the rest is for later fields.
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
}

/// A record as it travels: nobody has looked at its signature yet.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SignedRecord {
    body: Bytes,
    life: Bytes,
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
        let Body { version, addresses, relays, zone, capacity_bytes, release, is_relay } = self.body()?;
        if version >= VERSION_MAX {
            return Err(RecordError::Malformed);
        }
        let life = match self.life.is_empty() {
            true => None,
            false => Some(read_message::<LifeWord>(&self.life).map_err(|_| RecordError::Malformed)?),
        };
        let signed = digest(network, holder, &self.body, &self.life);
        holder.verify(&signed, &self.signature).map_err(|_| RecordError::Forged)?;
        if life.as_ref().is_some_and(|life| !life.is_good(network, holder, &self.body)) {
            return Err(RecordError::Forged);
        }
        let addresses = addresses.into_iter().collect();
        let statement = Statement { addresses, relays, zone, capacity_bytes, release, is_relay }.bounded();
        Ok(NodeRecord { holder: *holder, version, statement, life, signed: self.clone() })
    }

    fn body(&self) -> Result<Body, RecordError> {
        if self.body.len().saturating_add(self.life.len()) > RECORD_BYTES_MAX {
            return Err(RecordError::TooLong);
        }
        read_message(&self.body).map_err(|_| RecordError::Malformed)
    }
}

impl NodeRecord {
    /// Signs what the holder of `identity` says of itself in `network`, as far as it fits; by nobody's life.
    pub fn sign(identity: &Identity, network: &PublicKey, version: u64, statement: Statement) -> NodeRecord {
        NodeRecord::sign_in(identity, network, version, statement, |_| None)
    }

    /// The same, as a life says it, which is shown the body.
    pub fn sign_in(
        identity: &Identity,
        network: &PublicKey,
        version: u64,
        statement: Statement,
        life: impl FnOnce(&[u8]) -> Option<LifeWord>,
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
        });
        let life = life(&body);
        let word: Bytes = life.as_ref().map_or_else(Vec::new, to_bytes).into();
        let signature = identity.sign(&digest(network, &holder, &body, &word));
        let signed = SignedRecord { body: body.into(), life: word, signature };
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

    /// What a life signs its word beside.
    pub(crate) fn body(&self) -> &[u8] {
        &self.signed.body
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
        let SignedRecord { body, life, .. } = &self.signed;
        (self.version, body, life) > (other.version, &other.signed.body, &other.signed.life)
    }

    /// Whether it is of so high a version that no process of this program signs it, and none may be able to follow it.
    pub(crate) fn leaves_no_room(&self) -> bool {
        self.version >= VERSION_MAX - LEAP_MS
    }
}

/// The version of what is said at this time of the wall clock, in milliseconds, after what was said at version `last`; none if nothing
/// can be newer than that.
pub(crate) fn version_after(last: u64, now_ms: u64) -> Option<u64> {
    let next = now_ms.max(last.saturating_add(1)).min(VERSION_MAX - 1);
    (next > last).then_some(next)
}

fn digest(network: &PublicKey, holder: &PublicKey, body: &[u8], life: &[u8]) -> [u8; 32] {
    let body = sha3_256(&[body]);
    sha3_256(&[b"hypha node record 3", network.as_bytes(), holder.as_bytes(), &body, life])
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
        let changed = SignedRecord { body: other.signed.body, ..signed.clone() };
        assert_eq!(changed.verify(record.holder(), &network()), Err(RecordError::Forged));
        // Nor is a word of a life put to it or taken away from it.
        let word = to_bytes(&of_a_life(&network(), signed.body.as_ref()));
        let of_a_life = SignedRecord { life: word.into(), ..signed.clone() };
        assert_eq!(of_a_life.verify(record.holder(), &network()), Err(RecordError::Forged));
    }

    #[test]
    fn nobody_signs_himself_out_of_all_later_words() {
        for version in [VERSION_MAX, u64::MAX] {
            let record = NodeRecord::sign(&identity(2), &network(), version, Statement::default());
            assert_eq!(record.signed.verify(record.holder(), &network()), Err(RecordError::Malformed));
        }
        // Whoever is after a thief who signed the highest version signs none that everybody refuses.
        assert_eq!(version_after(VERSION_MAX - 2, 7), Some(VERSION_MAX - 1));
        assert_eq!(version_after(VERSION_MAX - 1, 7), None);
        assert_eq!((version_after(3, 7), version_after(8, 7)), (Some(7), Some(9)));
        assert_eq!(version_after(8, u64::MAX), Some(VERSION_MAX - 1));
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
    fn of_a_life(network: &PublicKey, body: &[u8]) -> LifeWord {
        let mut last: Option<LifeWord> = None;
        for _ in 0..AFTER_MAX + 2 {
            let life = Life::begin(Identity::generate(), last.as_ref(), false, Instant::now());
            let beside = Some((last.as_ref().map_or(life.name(), LifeWord::name), u64::MAX));
            last = Some(life.word(network, &identity(2).public_key(), body, beside));
        }
        last.unwrap()
    }

    #[test]
    fn the_word_of_a_life_travels_with_the_longest_record_and_is_that_records_alone() {
        let version = VERSION_MAX - 1;
        let sign = |version, life: &dyn Fn(&[u8]) -> LifeWord| {
            NodeRecord::sign_in(&identity(2), &network(), version, longest(), |body| Some(life(body)))
        };
        let record = sign(version, &|body| of_a_life(&network(), body));
        let travelled: SignedRecord = from_bytes(&to_bytes(record.signed())).unwrap();
        assert_eq!(travelled.verify(record.holder(), &network()), Ok(record.clone()));
        assert!(record.life().is_some());
        let length = record.signed.body.len() + record.signed.life.len();
        assert!(length < RECORD_BYTES_MAX - 16, "{length} bytes leave no room");
        // The node's key alone does not speak for a life: neither in another record nor in another network.
        let said = record.life().unwrap().clone();
        let elsewhere = |body: &[u8]| of_a_life(&identity(3).public_key(), body);
        for forged in [sign(version - 1, &|_| said.clone()), sign(version, &elsewhere)] {
            assert_eq!(forged.signed().verify(forged.holder(), &network()), Err(RecordError::Forged));
        }
    }

    #[test]
    fn what_an_earlier_release_signed_is_of_no_use() {
        #[derive(Serialize)]
        struct Body(
            u64,
            Vec<SocketAddr>,
            Vec<PublicKey>,
            Option<String>,
            Option<u64>,
            String,
            bool,
            Option<()>,
        );
        let body = to_bytes(&Body(9, vec![], vec![], None, None, "1".into(), true, None));
        let holder = identity(2);
        let digest =
            sha3_256(&[b"hypha node record 2", network().as_bytes(), holder.public_key().as_bytes(), &body]);
        let signature = holder.sign(&digest);
        #[derive(Serialize)]
        struct Earlier(Bytes, Signature);
        let earlier = to_bytes(&Earlier(body.clone().into(), signature));
        assert!(from_bytes::<SignedRecord>(&earlier).is_err());
        let signed = SignedRecord { body: body.into(), life: Bytes::new(), signature };
        assert!(signed.verify(&holder.public_key(), &network()).is_err());
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
            Vec<u64>,
            String,
        );
        let later =
            Later(9, vec![], vec![], Some("a".into()), None, "2".into(), true, vec![1, 2], "x".into());
        let (holder, body) = (identity(2), to_bytes(&later));
        // A field more in the word of the life as well: the array is one longer.
        let mut word = to_bytes(&of_a_life(&network(), &body));
        word[0] += 1;
        word.push(7);
        let signature = holder.sign(&digest(&network(), &holder.public_key(), &body, &word));
        let signed = SignedRecord { body: body.into(), life: word.into(), signature };
        let record = signed.verify(&holder.public_key(), &network()).unwrap();
        assert_eq!((record.version(), record.statement().zone.as_ref().map(Zone::as_str)), (9, Some("a")));
        assert!(record.life().is_some());
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
        let signature = Signature::from_bytes([0; 64]);
        let long = SignedRecord { body: body.clone(), life: Bytes::new(), signature };
        assert_eq!(long.verify(&network(), &network()), Err(RecordError::TooLong));
        let long = SignedRecord { body: Bytes::new(), life: body, signature };
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
        fn garbage_is_an_error(body: Vec<u8>, life: Vec<u8>) {
            let signature = Signature::from_bytes([7; 64]);
            let signed = SignedRecord { body: body.into(), life: life.into(), signature };
            prop_assert!(signed.verify(&network(), &network()).is_err());
        }
    }
}
