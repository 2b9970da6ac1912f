//! What a register's value is, and who vouches for it.
//!
//! Three signed things, each checked without asking anybody:
//!
//! - the [`Genesis`], signed by the owner, which is the register's identity: its first members and writers.
//! - the [`AccessList`], signed by the owner: who may write from now on. Numbered, so that nodes refuse an old one.
//! - the [`SignedRecord`]: header, payload and the writer's signature. The header names its predecessor's hash.
//!
//! Signatures cover bytes ([`Signed`]), and never the payload itself, whose hash stands in the header.
//!
//! Not here: which of two valid records is the later one. That is agreed upon by [`crate::paxos`].

use std::time::Duration;

use bytes::Bytes;
use reactor::crypto::{Identity, PublicKey};
use reactor::serialization::Versioned;
use serde::{Deserialize, Serialize};

use super::draft::Draft;
pub use super::genesis::Genesis;
pub use super::signed::Signed;
use crate::block_store::{HeaderHash, PAYLOAD_SIZE_BYTES_MAX, Record, RegisterAddress};

/// How many predecessors a header names: what lets a writer whose answer was lost find its own swap again after others
/// have gone on. 32 bytes each.
pub const ANCESTOR_COUNT_MAX: usize = 8;

/// How many writers an access list names, beside the owner. 256 keys are 8 KiB, and travel with every record.
pub const WRITER_COUNT_MAX: usize = 256;

/// Why something signed is refused. Whoever sent it is wrong or lies; trying again is pointless.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[non_exhaustive]
pub enum Invalid {
    /// It says that it is for another register.
    #[error("it belongs to another register")]
    WrongRegister,
    /// No members, too many, one twice, or a quorum that two disjoint sets could reach.
    #[error("its member set or quorum is impossible")]
    Members,
    /// Too many writers.
    #[error("its access list is too long")]
    TooManyWriters,
    /// The payload is too long.
    #[error("its payload is too long")]
    PayloadSize,
    /// The payload is not the one that the header names.
    #[error("its payload is not the signed one")]
    Payload,
    /// The access list is not the one that the header names.
    #[error("its access list is not the signed one")]
    Access,
    /// The writer is neither the owner nor on the access list.
    #[error("its writer is not on the access list")]
    NotAWriter,
    /// Version 1 has no predecessor, and every other has one.
    #[error("its version and its predecessor contradict each other")]
    Version,
    /// It is for another epoch of the register than the one that it is shown in, or ends it with another value.
    #[error("it is for another of the register's replica sets, or for another value")]
    Epoch,
    /// The proposal is for another value, or for none.
    #[error("the proposal that it comes with is for something else")]
    Proposal,
    /// It does not continue the chain of values that was accepted before.
    #[error("it may not follow the value that was accepted before")]
    Chain,
    /// A signature does not hold.
    #[error("a signature does not hold")]
    Signature,
    /// Who asks for a deletion is neither the block's owner nor has the owner's grant.
    #[error("its signer may not delete this block: ask the owner for a grant")]
    NotGranted,
    /// A deleted block would be kept for longer than anybody may ask, or for a shorter time than the grant demands.
    #[error("it asks for a retention that is not allowed")]
    Retention,
    /// It is longer than any statement of its kind.
    #[error("it is too long")]
    TooLong,
    /// It was said too long ago, or by a clock that is ahead.
    #[error("it was said at a time that is too far from now: check the clocks")]
    Time,
}

/// Of a list's number, how many bits tell the time: milliseconds for more than 500 years, and a million changes.
const SERIAL_TIME_BITS: u32 = 44;

/// Who may write to a register, beside its owner, instead of those whom the genesis names.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct AccessList {
    /// Which register.
    pub register: RegisterAddress,
    /// Which of two lists is the newer one: see [`AccessList::serial_after`]. 0 is the genesis record's list.
    pub serial: u64,
    /// Who may write.
    pub writers: Vec<PublicKey>,
}

impl Versioned for AccessList {
    const TYPE_NAME: &'static str = "hypha access list";
    const VERSION: u32 = 1;
}

impl AccessList {
    /// Lets `writers` write to `register`.
    pub fn sign(
        owner: &Identity,
        register: RegisterAddress,
        serial: u64,
        writers: Vec<PublicKey>,
    ) -> Signed<AccessList> {
        Signed::sign(owner, AccessList { register, serial, writers })
    }

    /// The number of the list that is signed at `now` after that of number `met`, the newest that its signer has met.
    ///
    /// Whatever the clocks say, it is newer than that one. Of two whose signers met neither the other's, that which was
    /// signed later is: their count of changes is the same, and the milliseconds since 1970 come after it.
    pub fn serial_after(met: u64, now: Duration) -> u64 {
        let count = ((met >> SERIAL_TIME_BITS) + 1).min(u64::MAX >> SERIAL_TIME_BITS);
        let time = (now.as_millis() as u64) & ((1 << SERIAL_TIME_BITS) - 1);
        (count << SERIAL_TIME_BITS) | time
    }

    /// Whether `key` may write, where `list` is in force; `None` stands for the one that the genesis names.
    pub fn names(list: Option<&Signed<AccessList>>, genesis: &Genesis, key: &PublicKey) -> bool {
        let writers = list.map_or(&genesis.writers, |list| &list.writers);
        *key == genesis.owner || writers.contains(key)
    }
}

impl Signed<AccessList> {
    /// Checks that the owner has signed it, for this register.
    ///
    /// # Errors
    /// [`Invalid`].
    pub fn verify(&self, genesis: &Signed<Genesis>) -> Result<(), Invalid> {
        if self.writers.len() > WRITER_COUNT_MAX {
            return Err(Invalid::TooManyWriters);
        }
        if self.register != genesis.register() {
            return Err(Invalid::WrongRegister);
        }
        self.verify_by(&genesis.owner)
    }
}

/// What a writer signs.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Header {
    /// Which register.
    pub address: RegisterAddress,
    /// Counts from 1.
    pub version: u64,
    /// The header that this one replaces.
    pub previous: Option<HeaderHash>,
    /// Those before `previous`, newest first, as far as they are remembered.
    pub earlier: Vec<HeaderHash>,
    /// Hash of the access list in force; `None` for that of the genesis record.
    #[serde(with = "serde_bytes")]
    pub access: Option<[u8; 32]>,
    /// Who signs.
    pub writer: PublicKey,
    /// BLAKE3 of the payload.
    #[serde(with = "serde_bytes")]
    pub payload_hash: [u8; 32],
    /// The payload's length.
    pub length_bytes: u32,
}

impl Versioned for Header {
    const TYPE_NAME: &'static str = "hypha header";
    const VERSION: u32 = 2;
    const READABLE_SINCE: u32 = 2;
}

/// BLAKE3, as for all content: some kilobytes are hashed at each swap, by the writer and by every node.
pub(super) fn payload_hash(payload: &[u8]) -> [u8; 32] {
    *blake3::Hasher::new().update(b"hypha payload 2").update(payload).finalize().as_bytes()
}

/// One value of a register: what the acceptors agree on.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SignedRecord {
    /// What the writer signed.
    pub header: Signed<Header>,
    /// Who may write; `None` for those whom the genesis record names.
    pub access: Option<Signed<AccessList>>,
    /// What was written.
    pub payload: Bytes,
}

impl SignedRecord {
    /// Signs the successor of `previous`, or the first value. `access` is the list in force from now on.
    pub fn sign(
        writer: &Identity,
        address: RegisterAddress,
        previous: Option<&SignedRecord>,
        access: Option<Signed<AccessList>>,
        payload: Bytes,
    ) -> SignedRecord {
        Draft::new(writer.public_key(), address, previous, access, payload).sign(writer)
    }

    /// The identity of this value.
    pub fn hash(&self) -> HeaderHash {
        HeaderHash(self.header.hash())
    }

    /// The headers that it replaced, newest first, as far as they are remembered.
    pub fn ancestors(&self) -> impl Iterator<Item = &HeaderHash> {
        self.header.previous.iter().chain(&self.header.earlier)
    }

    /// What was, or is, the value of its line at `version`, if that is remembered.
    pub fn hash_of(&self, version: u64) -> Option<HeaderHash> {
        match self.header.version.checked_sub(version)? {
            0 => Some(self.hash()),
            back => self.ancestors().nth(usize::try_from(back - 1).ok()?).copied(),
        }
    }

    /// The number of the access list that it carries.
    pub fn access_serial(&self) -> u64 {
        self.access.as_ref().map_or(0, |access| access.serial)
    }

    /// Whether `key` may write, by the list that this record carries.
    pub fn allows(&self, genesis: &Genesis, key: &PublicKey) -> bool {
        AccessList::names(self.access.as_ref(), genesis, key)
    }

    /// Checks everything that can be checked without knowing other records.
    ///
    /// `known_access` spares the owner's signature if the list is one that was verified before.
    ///
    /// # Errors
    /// [`Invalid`].
    pub fn verify(
        &self,
        genesis: &Signed<Genesis>,
        known_access: Option<&Signed<AccessList>>,
    ) -> Result<(), Invalid> {
        let header = &self.header;
        if header.address != genesis.register() {
            return Err(Invalid::WrongRegister);
        }
        // Whatever stands at the last number has no successor: a writer could end the register with it.
        if matches!(header.version, 0 | u64::MAX) || (header.version == 1) != header.previous.is_none() {
            return Err(Invalid::Version);
        }
        if header.earlier.len() >= ANCESTOR_COUNT_MAX {
            return Err(Invalid::Version);
        }
        if self.payload.len() > PAYLOAD_SIZE_BYTES_MAX {
            return Err(Invalid::PayloadSize);
        }
        if self.payload.len() != header.length_bytes as usize
            || payload_hash(&self.payload) != header.payload_hash
        {
            return Err(Invalid::Payload);
        }
        if header.access != self.access.as_ref().map(Signed::hash) {
            return Err(Invalid::Access);
        }
        if let Some(access) = &self.access
            && known_access != Some(access)
        {
            access.verify(genesis)?;
        }
        if !self.allows(genesis, &header.writer) {
            return Err(Invalid::NotAWriter);
        }
        header.verify_by(&header.writer)
    }

    /// What the file system sees of it.
    pub fn to_record(&self) -> Record {
        Record {
            version: self.header.version,
            payload: self.payload.clone(),
            header_hash: self.hash(),
            writer: self.header.writer,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use overlay::NodeId;
    use reactor::serialization::{from_bytes, to_bytes};

    struct Story {
        owner: Identity,
        writer: Identity,
        genesis: Signed<Genesis>,
        access: Option<Signed<AccessList>>,
        first: SignedRecord,
        second: SignedRecord,
    }

    fn story() -> Story {
        let owner = Identity::from_seed(&[1; 32]);
        let writer = Identity::from_seed(&[2; 32]);
        let members = vec![NodeId([1; 32]), NodeId([2; 32]), NodeId([3; 32])];
        let genesis = Genesis::sign(&owner, [5; 32], members, vec![]);
        let register = genesis.register();
        let access = Some(AccessList::sign(&owner, register, 1, vec![writer.public_key()]));
        let first = SignedRecord::sign(&owner, register, None, None, Bytes::from_static(b"one"));
        let second =
            SignedRecord::sign(&writer, register, Some(&first), access.clone(), Bytes::from_static(b"two"));
        Story { owner, writer, genesis, access, first, second }
    }

    #[test]
    fn what_was_signed_verifies_also_after_a_journey() {
        let story = story();
        let genesis: Signed<Genesis> = from_bytes(&to_bytes(&story.genesis)).unwrap();
        assert_eq!(genesis.verify(), Ok(()));
        for record in [&story.first, &story.second] {
            let travelled: SignedRecord = from_bytes(&to_bytes(record)).unwrap();
            assert_eq!(travelled.verify(&genesis, None), Ok(()));
            assert_eq!(travelled.verify(&genesis, story.access.as_ref()), Ok(()));
            assert_eq!(travelled.hash(), record.hash());
        }
        assert_eq!(story.second.header.previous, Some(story.first.hash()));
        assert_eq!(story.second.header.version, 2);
    }

    /// The header with a change, still with the signature over what it was before.
    fn altered(record: &SignedRecord, change: impl FnOnce(&mut Header)) -> SignedRecord {
        let mut header = (*record.header).clone();
        change(&mut header);
        let forged = Signed::sign(&Identity::from_seed(&[9; 32]), header);
        SignedRecord { header: forged, ..record.clone() }
    }

    #[test]
    fn no_field_can_be_changed_after_signing() {
        let story = story();
        let second = &story.second;
        let list = AccessList { register: second.header.address, serial: 2, writers: vec![] };
        let changed = [
            (altered(second, |header| header.version = 3), Invalid::Signature),
            (altered(second, |header| header.version = 0), Invalid::Version),
            (altered(second, |header| header.previous = None), Invalid::Version),
            (altered(second, |header| header.previous = Some(HeaderHash([0; 32]))), Invalid::Signature),
            (altered(second, |header| header.address.0[0] ^= 1), Invalid::WrongRegister),
            (altered(second, |header| header.access = None), Invalid::Access),
            (SignedRecord { payload: Bytes::from_static(b"six"), ..second.clone() }, Invalid::Payload),
            (SignedRecord { access: None, ..second.clone() }, Invalid::Access),
            (
                SignedRecord { access: Some(Signed::sign(&story.owner, list)), ..second.clone() },
                Invalid::Access,
            ),
        ];
        for (record, refusal) in changed {
            assert_eq!(record.verify(&story.genesis, None), Err(refusal));
        }
    }

    #[test]
    fn a_stranger_can_neither_write_nor_let_itself_in() {
        let story = story();
        let stranger = Identity::from_seed(&[9; 32]);
        let register = story.genesis.register();
        let sign = |writer: &Identity, access| {
            SignedRecord::sign(writer, register, Some(&story.first), access, Bytes::new())
        };
        let plain = sign(&stranger, story.access.clone());
        assert_eq!(plain.verify(&story.genesis, None), Err(Invalid::NotAWriter));
        let list = AccessList::sign(&stranger, register, 1, vec![stranger.public_key()]);
        assert_eq!(sign(&stranger, Some(list)).verify(&story.genesis, None), Err(Invalid::Signature));
        // Nor can a writer let others in.
        let list = AccessList::sign(&story.writer, register, 1, vec![stranger.public_key()]);
        assert_eq!(sign(&story.writer, Some(list)).verify(&story.genesis, None), Err(Invalid::Signature));
        // Nor is a list of another register good here.
        let list =
            AccessList::sign(&story.owner, RegisterAddress([7; 32]), 1, vec![story.writer.public_key()]);
        assert_eq!(sign(&story.writer, Some(list)).verify(&story.genesis, None), Err(Invalid::WrongRegister));
    }

    #[test]
    fn the_genesis_names_the_writers_until_a_list_does() {
        let (owner, writer) = (Identity::from_seed(&[1; 32]), Identity::from_seed(&[2; 32]));
        let genesis = Genesis::sign(&owner, [5; 32], vec![NodeId([1; 32])], vec![writer.public_key()]);
        let register = genesis.register();
        let first = SignedRecord::sign(&writer, register, None, None, Bytes::new());
        assert_eq!(first.verify(&genesis, None), Ok(()));
        let nobody = Some(AccessList::sign(&owner, register, 1, vec![]));
        let second = SignedRecord::sign(&writer, register, Some(&first), nobody, Bytes::new());
        assert_eq!(second.verify(&genesis, None), Err(Invalid::NotAWriter));
    }

    #[test]
    fn whoever_met_a_list_signs_a_newer_one_whatever_the_clocks_say() {
        let hours = |hours: u64| Duration::from_secs(hours * 3600);
        // Signed by a clock that was ahead, and chosen by nobody.
        let ahead = AccessList::serial_after(0, hours(500_002));
        let chosen = AccessList::serial_after(0, hours(500_000));
        assert!(ahead > chosen, "neither met the other: the later one");
        let next = AccessList::serial_after(chosen, hours(500_001));
        assert!(next > ahead, "it was met by who signed after it, so it counts for more");
        assert!(AccessList::serial_after(next, hours(1)) > next);
    }

    #[test]
    fn a_payload_that_is_too_long_is_refused() {
        let story = story();
        let payload = Bytes::from(vec![0; PAYLOAD_SIZE_BYTES_MAX + 1]);
        let record = SignedRecord::sign(&story.owner, story.genesis.register(), None, None, payload);
        assert_eq!(record.verify(&story.genesis, None), Err(Invalid::PayloadSize));
    }
}
