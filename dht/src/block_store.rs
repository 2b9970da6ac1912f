//! The one trait through which the file system sees storage.
//!
//! It is object safe, and every call may suspend the calling coroutine. Two implementations: [`crate::Client`] over
//! the overlay, and [`crate::MemoryBlockStore`] over a map.
//!
//! Not here: encryption (the content is ciphertext already) and caching (the file system knows what is worth it).

use std::fmt;
use std::ops::Range;
use std::time::Instant;

use bytes::Bytes;
use reactor::crypto::PublicKey;
use serde::{Deserialize, Serialize};

use crate::address::{Address, OwnerTag, write_hex};

/// The largest payload of a register: a root is some hundred bytes; this leaves room for keys sealed to many readers.
pub const PAYLOAD_SIZE_BYTES_MAX: usize = 64 * 1024;

/// The name of a register: the hash of the genesis record that creates it, so that two geneses are two registers.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RegisterAddress(#[serde(with = "serde_bytes")] pub [u8; 32]);

/// SHA3-256 of a signed header: the identity of one value of a register.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct HeaderHash(#[serde(with = "serde_bytes")] pub [u8; 32]);

/// One value of a register, verified.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Record {
    /// Counts from 1; each swap adds 1.
    pub version: u64,
    /// What the writer stored.
    pub payload: Bytes,
    /// What the next swap must name as its predecessor.
    pub header_hash: HeaderHash,
    /// Who signed it; the access list allows them.
    pub writer: PublicKey,
}

/// How full the storage is that this client sees.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Usage {
    /// Bytes that blocks take, one replica counted.
    pub used_bytes: u64,
    /// Bytes that there are in all.
    pub total_bytes: u64,
    /// Immutable blocks, one replica counted.
    pub block_count: u64,
}

/// Why a block is not stored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PutError {
    /// Our own mistake: cut the content differently.
    #[error("a block must have 1 to {max} bytes, not {size}; cut it differently")]
    Size {
        /// What was given.
        size: usize,
        /// What is allowed.
        max: usize,
    },
    /// The address given does not name the content given.
    #[error("the address {0} does not name the content; compute it with Address::of and this store's tag")]
    Misnamed(Address),
    /// The storage is full: delete something, or add a node.
    #[error("{full} of the nodes responsible have no space left; delete files or add a node")]
    Full {
        /// How many nodes said so.
        full: usize,
    },
    /// This identity may not write here.
    #[error("the nodes refuse this identity: {0}; ask the network's owner for a passport that may write")]
    Refused(String),
    /// Too few nodes made it durable in time. It may be stored all the same; putting it again is harmless.
    #[error(
        "only {durable} of the {needed} nodes needed hold the block ({reason}); check that the nodes run, and try again"
    )]
    NoQuorum {
        /// How many nodes hold it.
        durable: usize,
        /// How many must.
        needed: usize,
        /// What the last failure was.
        reason: String,
    },
}

/// Why a block can't be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GetError {
    /// Every node asked says that it has no such block, and they are at least as many as keep one.
    #[error("no node has the block {0}")]
    NotFound(Address),
    /// The range is empty or ends beyond the block.
    #[error("the range {start}..{end} is not within the block's {length} bytes")]
    OutOfRange {
        /// First byte asked for.
        start: u32,
        /// One past the last byte asked for.
        end: u32,
        /// The block's length.
        length: u32,
    },
    /// Nodes answered, and what they sent was not the block.
    #[error(
        "{liars} nodes sent bytes that are not the block {address}, no other has it; run a scrub on them"
    )]
    Corrupt {
        /// The block.
        address: Address,
        /// How many nodes sent something else.
        liars: usize,
    },
    /// No node answers, and has not for a while: nobody was asked just now.
    #[error("the block {0} is not on this machine, and no node answers: it can be read once one does")]
    NotHere(Address),
    /// Nodes that should have it do not answer, or fewer are known than keep a block.
    #[error("no node that may hold the block {address} answers ({reason}); check that the nodes run")]
    Unreachable {
        /// The block.
        address: Address,
        /// What the last failure was.
        reason: String,
    },
}

/// Why a register can't be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// Fewer than a quorum of its nodes answer.
    #[error("only {answers} of the {needed} nodes needed answer ({reason}); check that the nodes run")]
    NoQuorum {
        /// How many answered.
        answers: usize,
        /// How many must.
        needed: usize,
        /// What the last failure was.
        reason: String,
    },
    /// The nodes agree on an older value than this client has seen before.
    #[error(
        "the nodes answer version {found} of {register}, but version {seen} was seen before: \
         they were restored from an old copy, or they lie; do not write until the owner has looked"
    )]
    RolledBack {
        /// The register.
        register: RegisterAddress,
        /// The highest version this client has seen.
        seen: u64,
        /// The version that the nodes answer now.
        found: u64,
    },
    /// The nodes agree on a newer value, which does not follow what this client has seen: its own line was cut off.
    ///
    /// A value names eight before it, so this is noticed of what is no further on than that.
    #[error(
        "the nodes answer version {found} of {register}, which does not follow version {seen} that was seen before: \
         they were restored from an old copy and written to since, or they lie; do not write until the owner has looked"
    )]
    Forked {
        /// The register.
        register: RegisterAddress,
        /// The highest version this client has seen.
        seen: u64,
        /// The version that the nodes answer now.
        found: u64,
    },
    /// This identity may not read here.
    #[error("the nodes refuse this identity: {0}; ask the network's owner for a passport that may read")]
    Refused(String),
    /// Our own mistake: this client was never told who keeps the register.
    #[error("the register {0} is not open here; open it with its genesis record first")]
    NotOpen(RegisterAddress),
}

/// Why a register can't be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CreateError {
    /// There are too few nodes for the network's number of replicas.
    #[error(
        "{known} nodes are known and {needed} are needed to create a register; start more nodes, or wait for them"
    )]
    NotEnoughNodes {
        /// How many are known.
        known: usize,
        /// How many are needed.
        needed: usize,
    },
}

/// Why a swap did not happen, or may not have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SwapError {
    /// Another value is there than the one expected. Nothing was changed; replay on the winner and try again.
    #[error("another writer was first (version {})", .0.as_ref().map_or(0, |record| record.version))]
    Lost(Option<Record>),
    /// Too few nodes answered. The swap **may still take effect**: read before deciding anything.
    #[error("the outcome is not known ({reason}); read the register before trying again")]
    Unknown {
        /// What the last failure was.
        reason: String,
    },
    /// Our own mistake: the payload is too large.
    #[error("a register's payload has at most {max} bytes, not {size}")]
    Size {
        /// What was given.
        size: usize,
        /// What is allowed.
        max: usize,
    },
    /// This identity may not write to this register.
    #[error("the nodes refuse the new value: {0}; ask the register's owner to put you on its access list")]
    Refused(String),
    /// The storage is full. Nothing was changed.
    #[error("the nodes responsible have no space left; delete files or add a node")]
    Full,
    /// The register can't be read, hence not swapped. Nothing was changed.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A block that was to be published with the value is not stored. Nothing was changed.
    #[error(transparent)]
    Put(#[from] PutError),
}

/// A time in which no quorum of the drive's nodes answers: see [`BlockStore::outage`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outage {
    /// Since when.
    pub since: Instant,
    /// That is longer than a node takes to restart, or it was so from the beginning: nobody who reads need wait for one.
    pub is_long: bool,
}

/// Who can be reached.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reach {
    /// A quorum of those that keep the register.
    Quorum,
    /// Fewer of those; or only others, who may hold blocks.
    Some,
    /// No node at all.
    Nobody,
}

/// Blocks and registers, wherever they may be.
///
/// # Suspends
/// Every call may suspend the coroutine but those that say that they never do; none blocks the thread.
pub trait BlockStore {
    /// The tag under which this store's blocks are named: `Address::of(&store.tag(), bytes)`. Never suspends.
    fn tag(&self) -> OwnerTag;

    /// Stores an immutable block; returns when a quorum of its nodes holds it durably.
    ///
    /// # Errors
    /// [`PutError`]; putting the same content again is always harmless.
    fn put(&self, content: Bytes) -> Result<Address, PutError>;

    /// Stores a block whose address was computed already, and may trust that: nobody hashes it twice.
    ///
    /// # Errors
    /// [`PutError`]; `Misnamed` where the address was checked, which is wherever the block leaves this process.
    fn put_named(&self, address: &Address, content: Bytes) -> Result<(), PutError> {
        if self.put(content)? == *address { Ok(()) } else { Err(PutError::Misnamed(*address)) }
    }

    /// Stores many immutable blocks at once; returns when each is durable on a quorum. Addresses come in order.
    ///
    /// # Errors
    /// The first failure; others of the blocks may be stored.
    fn put_many(&self, contents: Vec<Bytes>) -> Result<Vec<Address>, PutError> {
        contents.into_iter().map(|content| self.put(content)).collect()
    }

    /// Reads a block or a range of its bytes, verified.
    ///
    /// # Errors
    /// [`GetError`].
    fn get(&self, address: &Address, range: Option<Range<u32>>) -> Result<Bytes, GetError>;

    /// Whether this process itself has the block on its disk, so that nobody need keep another copy here. Never suspends.
    fn is_at_hand(&self, _address: &Address) -> bool {
        false
    }

    /// What is known of it that no quorum of the drive's nodes answers, and none has for a while. Never suspends.
    fn outage(&self) -> Option<Outage> {
        None
    }

    /// Whether there is such an outage, so that nobody need wait for a quorum. Never suspends.
    fn is_offline(&self) -> bool {
        self.outage().is_some()
    }

    /// Who can be reached of those that keep a register, as far as that is known without asking. Never suspends.
    fn reach(&self, _register: &RegisterAddress) -> Reach {
        Reach::Quorum
    }

    /// Finds out, in the background, whether those that keep a register are there: somebody has waited for them longer than
    /// usual. What comes of it, [`reach`](BlockStore::reach) says a moment later. Never suspends.
    fn doubt(&self, _register: &RegisterAddress) {}

    /// What this version of a register names was read, and is gone on from: whoever keeps the newest value that was seen, for when
    /// nobody answers, keeps this one until the same is true of a newer one. Never suspends.
    fn on_taken_over(&self, _register: &RegisterAddress, _version: u64) {}

    /// The latest chosen value, or `None` if none was chosen yet, which only a quorum of the register's own members can
    /// say. Linearizable: never older than any swap acknowledged before the call began.
    ///
    /// How a register is made and opened is not here, since what it takes differs: see [`crate::Client`].
    ///
    /// # Errors
    /// [`ReadError`].
    fn read(&self, register: &RegisterAddress) -> Result<Option<Record>, ReadError>;

    /// Replaces the register's value if it is still the `expected` one (`None`: if it has none yet).
    ///
    /// # Errors
    /// [`SwapError`]; only `Unknown` leaves it open whether the swap takes effect.
    fn compare_and_swap(
        &self,
        register: &RegisterAddress,
        expected: Option<HeaderHash>,
        payload: Bytes,
    ) -> Result<Record, SwapError>;

    /// Stores `blocks`, then swaps: whoever sees the new value finds every block on a quorum.
    ///
    /// Where an implementation can, all of it travels at once and waits for the disk once.
    ///
    /// # Errors
    /// [`SwapError`]. The blocks may be stored although the swap did not happen.
    fn publish(
        &self,
        blocks: Vec<(Address, Bytes)>,
        register: &RegisterAddress,
        expected: Option<HeaderHash>,
        payload: Bytes,
    ) -> Result<Record, SwapError> {
        let (addresses, contents): (Vec<_>, Vec<_>) = blocks.into_iter().unzip();
        let stored = self.put_many(contents)?;
        if let Some((claimed, _)) = addresses.iter().zip(&stored).find(|(claimed, stored)| claimed != stored)
        {
            return Err(PutError::Misnamed(*claimed).into());
        }
        self.compare_and_swap(register, expected, payload)
    }

    /// As [`publish`](BlockStore::publish), where less is stored in the end: it may use the space that nodes keep back so
    /// that a full network can be emptied.
    ///
    /// # Errors
    /// As [`publish`](BlockStore::publish).
    fn publish_freeing(
        &self,
        blocks: Vec<(Address, Bytes)>,
        register: &RegisterAddress,
        expected: Option<HeaderHash>,
        payload: Bytes,
    ) -> Result<Record, SwapError> {
        self.publish(blocks, register, expected, payload)
    }

    /// How full the storage is, for `df`.
    ///
    /// # Errors
    /// [`ReadError`] if no node answers.
    fn usage(&self) -> Result<Usage, ReadError>;
}

impl fmt::Display for RegisterAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(&self.0, f)
    }
}

impl fmt::Debug for RegisterAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(&self.0[..6], f)
    }
}

impl fmt::Debug for HeaderHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(&self.0[..6], f)
    }
}
