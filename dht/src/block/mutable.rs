//! What a register's value is, and who vouches for it.
//!
//! Three signed things, each checked without asking anybody:
//!
//! - the [`Genesis`], signed by the owner: who the members of the replica set are. Its owner and salt hash to the
//!   register's address, so nobody else can make one. An owner that signs two forks only itself, and both prove it.
//! - the [`AccessList`], signed by the owner: who may write. Numbered, so that nodes refuse an old one.
//! - the [`SignedRecord`]: header, payload and the writer's signature. The header names its predecessor's hash.
//!
//! Signatures cover hashes with a domain and lengths (never an encoding that could be written in two ways), and never
//! the payload itself, whose hash stands in the header.
//!
//! Not here: which of two valid records is the later one. That is agreed upon by [`crate::paxos`].

use bytes::Bytes;
use overlay::NodeId;
use reactor::crypto::hash::sha3_256;
use reactor::crypto::{Identity, PublicKey, Signature};
use serde::{Deserialize, Serialize};

use crate::block_store::{HeaderHash, PAYLOAD_SIZE_BYTES_MAX, Record, RegisterAddress};
use crate::paxos::Quorum;
use crate::paxos::quorum::MEMBER_COUNT_MAX;

/// How many writers an access list names, beside the owner. 256 keys are 8 KiB, and travel with every record.
pub const WRITER_COUNT_MAX: usize = 256;

/// Why something signed is refused. Whoever sent it is wrong or lies; trying again is pointless.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[non_exhaustive]
pub enum Invalid {
    /// Owner and salt do not hash to the register's address.
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
    /// A signature does not hold.
    #[error("a signature does not hold")]
    Signature,
}

/// The record with which an owner creates a register: whom it asks to keep it.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Genesis {
    /// Whose register it is.
    pub owner: PublicKey,
    /// Random; makes the address.
    #[serde(with = "serde_bytes")]
    pub salt: [u8; 32],
    /// Counts replica sets; the first is 0.
    pub epoch: u64,
    /// The replica set.
    pub members: Vec<NodeId>,
    /// How many of them make a quorum.
    pub quorum: u8,
    /// The owner's.
    pub signature: Signature,
}

impl Genesis {
    /// Creates a register of `owner` on `members`, with majorities as quorums.
    pub fn sign(owner: &Identity, salt: [u8; 32], members: Vec<NodeId>) -> Genesis {
        let quorum = (members.len() / 2 + 1) as u8;
        let key = owner.public_key();
        let signature = owner.sign(&genesis_hash(&key, &salt, 0, &members, quorum));
        Genesis { owner: key, salt, epoch: 0, members, quorum, signature }
    }

    /// The register that this creates.
    pub fn register(&self) -> RegisterAddress {
        RegisterAddress::of(&self.owner, &self.salt)
    }

    /// How many members there are, and how many must agree.
    pub fn quorum(&self) -> Quorum {
        Quorum { members: self.members.len(), needed: self.quorum as usize }
    }

    /// The place of `node` among the members.
    pub fn index_of(&self, node: &NodeId) -> Option<usize> {
        self.members.iter().position(|member| member == node)
    }

    /// Checks everything that can be checked.
    ///
    /// # Errors
    /// [`Invalid`].
    pub fn verify(&self, register: &RegisterAddress) -> Result<(), Invalid> {
        let (count, needed) = (self.members.len(), self.quorum as usize);
        if count == 0 || count > MEMBER_COUNT_MAX || needed > count || 2 * needed <= count {
            return Err(Invalid::Members);
        }
        if (1..count).any(|index| self.members[..index].contains(&self.members[index])) {
            return Err(Invalid::Members);
        }
        if self.register() != *register {
            return Err(Invalid::WrongRegister);
        }
        let hash = genesis_hash(&self.owner, &self.salt, self.epoch, &self.members, self.quorum);
        self.owner.verify(&hash, &self.signature).map_err(|_| Invalid::Signature)
    }
}

fn genesis_hash(owner: &PublicKey, salt: &[u8; 32], epoch: u64, members: &[NodeId], quorum: u8) -> [u8; 32] {
    let members: Vec<u8> = members.iter().flat_map(|member| member.0).collect();
    sha3_256(&[b"hypha genesis 1", owner.as_bytes(), salt, &epoch.to_le_bytes(), &members, &[quorum]])
}

/// Who may write to a register, beside its owner.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct AccessList {
    /// Counts the owner's changes, from 0.
    pub serial: u64,
    /// Who may write.
    pub writers: Vec<PublicKey>,
    /// The owner's.
    pub signature: Signature,
}

impl AccessList {
    /// Lets `writers` write to `register`.
    pub fn sign(
        owner: &Identity,
        register: &RegisterAddress,
        serial: u64,
        writers: Vec<PublicKey>,
    ) -> AccessList {
        let signature = owner.sign(&access_hash(register, serial, &writers));
        AccessList { serial, writers, signature }
    }

    fn hash(&self, register: &RegisterAddress) -> [u8; 32] {
        access_hash(register, self.serial, &self.writers)
    }

    fn verify(&self, register: &RegisterAddress, owner: &PublicKey) -> Result<(), Invalid> {
        if self.writers.len() > WRITER_COUNT_MAX {
            return Err(Invalid::TooManyWriters);
        }
        owner.verify(&self.hash(register), &self.signature).map_err(|_| Invalid::Signature)
    }
}

fn access_hash(register: &RegisterAddress, serial: u64, writers: &[PublicKey]) -> [u8; 32] {
    let writers: Vec<u8> = writers.iter().flat_map(|writer| *writer.as_bytes()).collect();
    sha3_256(&[b"hypha access list 1", &register.0, &serial.to_le_bytes(), &writers])
}

/// What a writer signs.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Header {
    /// Which register.
    pub address: RegisterAddress,
    /// Counts from 1.
    pub version: u64,
    /// The header that this one replaces.
    pub previous: Option<HeaderHash>,
    /// Hash of the access list in force.
    #[serde(with = "serde_bytes")]
    pub access_hash: [u8; 32],
    /// Who signs.
    pub writer: PublicKey,
    /// SHA3-256 of the payload.
    #[serde(with = "serde_bytes")]
    pub payload_hash: [u8; 32],
    /// The payload's length.
    pub length_bytes: u32,
}

impl Header {
    /// The identity of the value.
    pub fn hash(&self) -> HeaderHash {
        HeaderHash(sha3_256(&[
            b"hypha header 1",
            &self.address.0,
            &self.version.to_le_bytes(),
            self.previous.as_ref().map_or(&[][..], |previous| &previous.0),
            &self.access_hash,
            self.writer.as_bytes(),
            &self.payload_hash,
            &self.length_bytes.to_le_bytes(),
        ]))
    }
}

fn payload_hash(payload: &[u8]) -> [u8; 32] {
    sha3_256(&[b"hypha payload 1", payload])
}

/// One value of a register: what the acceptors agree on.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct SignedRecord {
    /// What is signed.
    pub header: Header,
    /// The writer's, over the header's hash.
    pub signature: Signature,
    /// Who may write.
    pub access: AccessList,
    /// What was written.
    pub payload: Bytes,
}

impl SignedRecord {
    /// Signs the successor of `previous`, or the first value.
    pub fn sign(
        writer: &Identity,
        address: RegisterAddress,
        previous: Option<&SignedRecord>,
        access: AccessList,
        payload: Bytes,
    ) -> SignedRecord {
        let header = Header {
            address,
            version: previous.map_or(0, |previous| previous.header.version) + 1,
            previous: previous.map(SignedRecord::hash),
            access_hash: access.hash(&address),
            writer: writer.public_key(),
            payload_hash: payload_hash(&payload),
            length_bytes: payload.len() as u32,
        };
        let signature = writer.sign(&header.hash().0);
        SignedRecord { header, signature, access, payload }
    }

    /// The identity of this value.
    pub fn hash(&self) -> HeaderHash {
        self.header.hash()
    }

    /// Checks everything that can be checked without knowing other records.
    ///
    /// `known_access` spares the owner's signature if the list is one that was verified before.
    ///
    /// # Errors
    /// [`Invalid`].
    pub fn verify(&self, genesis: &Genesis, known_access: Option<&AccessList>) -> Result<(), Invalid> {
        let header = &self.header;
        if header.address != genesis.register() {
            return Err(Invalid::WrongRegister);
        }
        if header.version == 0 || (header.version == 1) != header.previous.is_none() {
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
        if known_access != Some(&self.access) {
            self.access.verify(&header.address, &genesis.owner)?;
        }
        if self.access.hash(&header.address) != header.access_hash {
            return Err(Invalid::Access);
        }
        if header.writer != genesis.owner && !self.access.writers.contains(&header.writer) {
            return Err(Invalid::NotAWriter);
        }
        header.writer.verify(&self.hash().0, &self.signature).map_err(|_| Invalid::Signature)
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
    use reactor::serialization::{from_bytes, to_bytes};

    struct Story {
        owner: Identity,
        writer: Identity,
        genesis: Genesis,
        access: AccessList,
        first: SignedRecord,
        second: SignedRecord,
    }

    fn story() -> Story {
        let owner = Identity::from_seed(&[1; 32]);
        let writer = Identity::from_seed(&[2; 32]);
        let genesis = Genesis::sign(&owner, [5; 32], vec![NodeId([1; 32]), NodeId([2; 32]), NodeId([3; 32])]);
        let register = genesis.register();
        let access = AccessList::sign(&owner, &register, 0, vec![writer.public_key()]);
        let first = SignedRecord::sign(&owner, register, None, access.clone(), Bytes::from_static(b"one"));
        let second =
            SignedRecord::sign(&writer, register, Some(&first), access.clone(), Bytes::from_static(b"two"));
        Story { owner, writer, genesis, access, first, second }
    }

    #[test]
    fn what_was_signed_verifies_also_after_a_journey() {
        let story = story();
        let genesis: Genesis = from_bytes(&to_bytes(&story.genesis)).unwrap();
        assert_eq!(genesis.verify(&story.genesis.register()), Ok(()));
        for record in [&story.first, &story.second] {
            let travelled: SignedRecord = from_bytes(&to_bytes(record)).unwrap();
            assert_eq!(travelled.verify(&genesis, None), Ok(()));
            assert_eq!(travelled.verify(&genesis, Some(&story.access)), Ok(()));
            assert_eq!(travelled.hash(), record.hash());
        }
        assert_eq!(story.second.header.previous, Some(story.first.hash()));
        assert_eq!(story.second.header.version, 2);
    }

    #[test]
    fn no_field_can_be_changed_after_signing() {
        let story = story();
        type Change = (fn(&mut SignedRecord), Invalid);
        let changes: [Change; 8] = [
            (|record| record.header.version = 3, Invalid::Signature),
            (|record| record.header.version = 0, Invalid::Version),
            (|record| record.header.previous = None, Invalid::Version),
            (|record| record.header.previous = Some(HeaderHash([0; 32])), Invalid::Signature),
            (|record| record.payload = Bytes::from_static(b"six"), Invalid::Payload),
            (|record| record.header.address.0[0] ^= 1, Invalid::WrongRegister),
            (|record| record.access.serial = 1, Invalid::Signature),
            (|record| record.header.access_hash[0] ^= 1, Invalid::Access),
        ];
        for (change, refusal) in changes {
            let mut record = story.second.clone();
            change(&mut record);
            assert_eq!(record.verify(&story.genesis, None), Err(refusal));
        }
    }

    #[test]
    fn a_stranger_can_neither_write_nor_let_itself_in() {
        let story = story();
        let stranger = Identity::from_seed(&[9; 32]);
        let register = story.genesis.register();
        let plain =
            SignedRecord::sign(&stranger, register, Some(&story.first), story.access.clone(), Bytes::new());
        assert_eq!(plain.verify(&story.genesis, None), Err(Invalid::NotAWriter));
        let list = AccessList::sign(&stranger, &register, 1, vec![stranger.public_key()]);
        let with_list = SignedRecord::sign(&stranger, register, Some(&story.first), list, Bytes::new());
        assert_eq!(with_list.verify(&story.genesis, None), Err(Invalid::Signature));
        // Nor can a writer let others in.
        let list = AccessList::sign(&story.writer, &register, 1, vec![stranger.public_key()]);
        let by_writer = SignedRecord::sign(&story.writer, register, Some(&story.first), list, Bytes::new());
        assert_eq!(by_writer.verify(&story.genesis, None), Err(Invalid::Signature));
    }

    #[test]
    fn an_impossible_member_set_is_refused_even_if_signed() {
        let owner = story().owner;
        let node = |index: usize| NodeId([index as u8; 32]);
        let sets = [vec![], vec![node(1), node(1)], (0..17).map(node).collect()];
        for members in sets {
            let genesis = Genesis::sign(&owner, [5; 32], members);
            assert_eq!(genesis.verify(&genesis.register()), Err(Invalid::Members));
        }
        let mut genesis = Genesis::sign(&owner, [5; 32], vec![node(1), node(2)]);
        genesis.quorum = 1;
        assert_eq!(genesis.verify(&genesis.register()), Err(Invalid::Members));
        assert_eq!(story().genesis.verify(&RegisterAddress([0; 32])), Err(Invalid::WrongRegister));
    }

    #[test]
    fn a_payload_that_is_too_long_is_refused() {
        let story = story();
        let payload = Bytes::from(vec![0; PAYLOAD_SIZE_BYTES_MAX + 1]);
        let record = SignedRecord::sign(&story.owner, story.genesis.register(), None, story.access, payload);
        assert_eq!(record.verify(&story.genesis, None), Err(Invalid::PayloadSize));
    }
}
