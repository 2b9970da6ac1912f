//! What clients and nodes say to each other: the service of a storage node, numbered from 0x0200.
//!
//! Bulk content travels as the call's payload, never inside the message. Decoding is serde's; every list has a bound
//! here, checked by the handler, and the RPC layer bounds the whole message.

use overlay::NodeId;
use reactor::crypto::PublicKey;
use serde::{Deserialize, Serialize};

use crate::address::{Address, BLOCK_SIZE_BYTES_MAX, GroupHash, OwnerTag, PROOF_LENGTH_MAX};
use crate::block::configuration::{Configuration, Membership};
use crate::block::deletion::OwnersWord;
use crate::block::mutable::{AccessList, Invalid, Signed, SignedRecord};
use crate::block::proposal::{Proposal, Proposed};
use crate::block_store::{HeaderHash, RegisterAddress};
use crate::paxos::Ballot;
use crate::store::device::DeviceId;
use crate::store::{Key, Kind};

/// How many keys one answer lists: 40 bytes each, so an answer stays below 100 KiB.
pub const KEYS_PER_ANSWER_MAX: usize = 2048;

/// How many words of owners one message carries: some 600 bytes each, 2.3 KiB at the most, and 60 to 120 us to check. So an
/// answer stays below the 64 KiB that calls have by default.
pub const WORDS_MAX: usize = 24;

/// How many blocks one answer lists, and how many are looked at for it: each is a small read on the node's disk.
pub const BLOCKS_LISTED_MAX: usize = 1024;

/// The longest answer to [`GetBlock`]: a whole block, or most of one with what proves that.
pub const GET_BLOCK_REPLY_BYTES_MAX: usize = BLOCK_SIZE_BYTES_MAX + 40 * PROOF_LENGTH_MAX + 256;

/// The longest answer about a register: a payload of 64 KiB, its header and access list, and with a refusal that proves
/// something, the proof.
pub const REGISTER_REPLY_BYTES_MAX: usize = 256 << 10;

/// The longest answer to [`ListKeys`] and [`ListBlocks`].
pub const LIST_KEYS_REPLY_BYTES_MAX: usize = reactor::rpc::MESSAGE_SIZE_BYTES_MAX / 4;

/// Why a node refuses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The caller's passport, or the register's access list, does not allow it.
    #[error("not allowed: {0}")]
    NotAllowed(String),
    /// No space left.
    #[error("the node's disk is full")]
    Full,
    /// The block is empty or too large.
    #[error("the block's size is not allowed")]
    Size,
    /// The content is not what the address names.
    #[error("the content does not hash to the address")]
    Misnamed,
    /// The node has no such block or register.
    #[error("not found")]
    NotFound,
    /// The range leaves the block.
    #[error("the range leaves the block's {length} bytes")]
    Outside {
        /// The block's length.
        length: u32,
    },
    /// What the node has is damaged; it will fetch it again.
    #[error("the node's copy is damaged")]
    Damaged,
    /// The node has lost its store since it last voted, and has not learned from the others what it may have promised.
    #[error("the node has lost its store, and may have forgotten this register; it asks the others")]
    Amnesiac,
    /// Something signed does not verify.
    #[error("refused: {0}")]
    Invalid(#[from] Invalid),
    /// A higher ballot was promised.
    #[error("round {} was promised already", promise.promises().round)]
    Conflict {
        /// Who asked for it: a node that can't show this is not believed.
        promise: Signed<Proposal>,
    },
    /// Another value was accepted under the same ballot.
    #[error("a writer proposed two values in one round: its key is misused")]
    Equivocation {
        /// What was accepted before; with the request, the proof.
        accepted: Signed<Proposal>,
    },
    /// The copy that is handed on was deleted by its owner's word.
    #[error("the block was deleted by its owner's word")]
    Deleted,
    /// Something that counts for more was said about the block.
    #[error("something else was said about the block, which holds")]
    Superseded,
    /// The deletion means older copies than the one that the node has.
    #[error("the block was put after the time that the deletion names, at {put_seconds}")]
    TooYoung {
        /// When it was put, in seconds since 1970.
        put_seconds: u64,
    },
    /// The node is not a member of the register's replica set.
    #[error("the node is not a member of this register's replica set")]
    NotAMember,
    /// The register is kept by others by now.
    #[error("the register has moved on to its replica set {}", configuration.epoch)]
    Moved {
        /// By whom, signed by the register's owner: a node that can't show this is not believed.
        configuration: Signed<Configuration>,
    },
    /// The node is a member, and has yet to be given the value that its replica set begins with.
    #[error("the node has not been given the register's value yet")]
    Behind,
    /// The store failed.
    #[error("the node's store failed: {0}")]
    Store(String),
    /// The request breaks a bound.
    #[error("the request breaks a bound: {0}")]
    Bounds(String),
    /// The deleted copy that is handed on was to be kept until now, and no longer.
    #[error("the block was deleted by its owner's word, and the time is over for which it was kept")]
    Over,
}

reactor::service! {
    /// What a storage node does for others.
    pub trait Storage = "dht" version 2, client StorageClient {
        /// Stores a block durably; its content is the payload.
        fn put_block(&self, request: PutBlockRequest, content: Payload) -> Result<(), Refusal>
            = 0x0200 as PutBlock, idempotent;
        /// Reads a block, or the slices that cover a range of it; the bytes are the payload. In version 1 it was 0x0201, and
        /// a range was proved by the chaining values of all its groups.
        fn get_block(&self, request: GetBlockRequest) -> Result<(GetBlockResponse, Payload), Refusal>
            = 0x0205 as GetBlock, idempotent, replies_up_to(GET_BLOCK_REPLY_BYTES_MAX);
        /// Says which of some blocks the node has: at most [`KEYS_PER_ANSWER_MAX`].
        fn has_blocks(&self, addresses: Vec<Address>) -> Result<Vec<bool>, Refusal>
            = 0x0202 as HasBlocks, idempotent;
        /// Tells a node that it sent something else than the block, or that it lacks one that it should have: it rereads its copy and, if that is bad, drops it and
        /// fetches another. Believing this costs the node one read, so anybody may say it. Answered with whether the copy
        /// was bad.
        fn suspect_block(&self, address: Address) -> Result<bool, Refusal>
            = 0x0203 as SuspectBlock, idempotent;
        /// Says what is to become of blocks, by their owner's word: at most [`WORDS_MAX`]. Answered one by one; what was
        /// taken is durable.
        fn delete_blocks(&self, words: Vec<OwnersWord>) -> Result<Vec<Result<(), Refusal>>, Refusal>
            = 0x0204 as DeleteBlocks, idempotent;
        /// Paxos, phase 1.
        fn prepare(&self, request: PrepareRequest) -> Result<Option<Proposed>, Refusal>
            = 0x0210 as Prepare, replies_up_to(REGISTER_REPLY_BYTES_MAX);
        /// Paxos, phase 2, with the next ballot's phase 1. Answered with what is promised now.
        fn accept(&self, request: AcceptRequest) -> Result<Ballot, Refusal>
            = 0x0211 as Accept, replies_up_to(REGISTER_REPLY_BYTES_MAX);
        /// Reads what a member has accepted, durably.
        fn read_register(&self, register: RegisterAddress) -> Result<Option<RegisterView>, Refusal>
            = 0x0212 as ReadRegister, idempotent, replies_up_to(REGISTER_REPLY_BYTES_MAX);
        /// Tells a member of an earlier replica set who keeps the register since: from now on it only says so, and shows the
        /// last value that it had.
        fn retire(&self, membership: Membership) -> Result<(), Refusal>
            = 0x0213 as Retire, idempotent;
        /// Says whether the node could become a member of a register, or remain one: it has room, its store is whole and takes
        /// writes, and the caller may write to it. [`Refusal::Amnesiac`] if it would have to learn the register first.
        fn can_keep(&self, register: RegisterAddress) -> Result<(), Refusal>
            = 0x0214 as CanKeep, idempotent;
        /// Lists what a register's values were, as far as the node keeps them, the oldest first, and last the one that it has now: at
        /// most [`PAST_LISTED_MAX`](crate::node::past::PAST_LISTED_MAX), of those accepted at that time or later.
        fn list_past(&self, register: RegisterAddress, from_seconds: u64) -> Result<Vec<PastEntry>, Refusal>
            = 0x0215 as ListPast, idempotent;
        /// Shows the value that the node accepted then.
        fn read_past(&self, register: RegisterAddress, since_seconds: u64) -> Result<Option<SignedRecord>, Refusal>
            = 0x0216 as ReadPast, idempotent, replies_up_to(REGISTER_REPLY_BYTES_MAX);
        /// Digests of the keys for which both caller and callee are responsible: 256, one for each first byte of an
        /// address.
        fn digests(&self, request: DigestsRequest) -> Result<DigestsResponse, Refusal>
            = 0x0220 as Digests, idempotent;
        /// Lists keys in order.
        fn list_keys(&self, request: ListKeysRequest) -> Result<ListKeysResponse, Refusal>
            = 0x0221 as ListKeys, idempotent, replies_up_to(LIST_KEYS_REPLY_BYTES_MAX);
        /// What owners said of blocks: at most [`WORDS_MAX`].
        fn words(&self, keys: Vec<WordKey>) -> Result<Vec<Option<OwnersWord>>, Refusal>
            = 0x0222 as Words, idempotent;
        /// Lists the blocks of one tag, in order.
        fn list_blocks(&self, request: ListBlocksRequest) -> Result<ListBlocksResponse, Refusal>
            = 0x0223 as ListBlocks, idempotent, replies_up_to(LIST_KEYS_REPLY_BYTES_MAX);
        /// "This is what owners said of blocks that I am about to give you": at most [`WORDS_MAX`]. Those that are no news change
        /// nothing.
        fn hand_words(&self, words: Vec<OwnersWord>) -> Result<(), Refusal> = 0x0224 as HandWords, idempotent;
        /// How full the node is.
        fn usage(&self) -> Result<NodeSpace, Refusal> = 0x0230 as NodeUsage, idempotent;
        /// For how long the node keeps what is deleted.
        fn retention(&self) -> Result<Retention, Refusal> = 0x0231 as NodeRetention, idempotent;
    }
}

/// See [`NodeUsage`]: what one node has, and what the disk has that it may share with others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeSpace {
    /// Bytes that its store takes.
    pub used_bytes: u64,
    /// Bytes that it may still take.
    pub free_bytes: u64,
    /// Values that it holds.
    pub block_count: u64,
    /// The file system that they are on.
    pub device: DeviceId,
    /// Bytes that this has left for all who are on it.
    pub device_free_bytes: u64,
}

/// See [`NodeRetention`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retention {
    /// For how long it keeps what is deleted now, in seconds.
    pub seconds: u32,
    /// A shorter time that the owner wants, and when that comes into force, in seconds since 1970.
    pub shorter: Option<(u32, u64)>,
    /// The bytes of what was deleted and is kept yet.
    pub held_bytes: u64,
    /// It is bound by that: something was deleted, or its owner has said it.
    #[serde(default)]
    pub is_promised: bool,
}

/// See [`ListPast`]: a value that a register had.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PastEntry {
    /// When the node accepted it, in seconds since 1970.
    pub since_seconds: u64,
    /// Its number.
    pub version: u64,
    /// What tells it from another of that number.
    pub header_hash: HeaderHash,
    /// Who signed it.
    pub writer: PublicKey,
    /// The node keeps it only since what came after it names it: it has heard of it from too few to say that it was chosen.
    #[serde(default)]
    pub is_proved: bool,
}

/// See [`PutBlock`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PutBlockRequest {
    /// The block's name.
    pub address: Address,
    /// The key under which it is hashed.
    pub tag: OwnerTag,
    /// When the block was put first, if a node hands it on, in seconds since 1970.
    pub put_seconds: Option<u64>,
    /// Whether it may use the space that nodes keep back: only if less is stored in the end.
    pub may_use_reserve: bool,
    /// By whose word it was deleted, if its bytes are handed on that are kept all the same.
    #[serde(default)]
    pub deleted_by: Option<OwnersWord>,
    /// For how long those who heard that word keep them, by what they had promised then.
    #[serde(default)]
    pub kept_seconds: u32,
}

impl PutBlockRequest {
    /// Of a block that is new.
    pub fn new(address: Address, tag: OwnerTag) -> PutBlockRequest {
        PutBlockRequest {
            address,
            tag,
            put_seconds: None,
            may_use_reserve: false,
            deleted_by: None,
            kept_seconds: 0,
        }
    }
}

/// See [`GetBlock`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct GetBlockRequest {
    /// The block's name.
    pub address: Address,
    /// First byte, and one past the last; all of it if `None`.
    pub range: Option<(u32, u32)>,
}

/// See [`GetBlock`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct GetBlockResponse {
    /// The key under which it is hashed.
    pub tag: OwnerTag,
    /// When it was put, in seconds since 1970.
    pub put_seconds: u64,
    /// The whole block's length.
    pub length: u32,
    /// What proves the slices that cover the range, if one was asked for: see [`crate::address`].
    pub proof: Vec<GroupHash>,
}

/// See [`Prepare`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PrepareRequest {
    /// Names the register and its members; a member that hears of the register for the first time learns it here.
    pub membership: Membership,
    /// What to promise, by the word of somebody who may write.
    pub proposal: Signed<Proposal>,
    /// The list of writers by which it is made; `None` for the one that the genesis names.
    pub list: Option<Signed<AccessList>>,
}

/// See [`Accept`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct AcceptRequest {
    /// As in [`PrepareRequest`]. With the first value of an epoch, or a later one, a node becomes its member.
    pub membership: Membership,
    /// The value, and by whose word it is to be accepted. Whoever has it may deliver it again.
    pub proposed: Proposed,
}

/// What a node knows of a register.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RegisterView {
    /// Who its members are, as the node knows.
    pub membership: Membership,
    /// The proposal that made the node promise what it has promised.
    pub promise: Option<Signed<Proposal>>,
    /// What the node has accepted.
    pub accepted: Option<Proposed>,
    /// Others have accepted it: this node lost what it knew, and votes for nothing below this before it has accepted something again.
    #[serde(default)]
    pub learned: Option<Ballot>,
}

/// A family of keys to compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Family {
    /// Immutable blocks.
    Blocks,
    /// Registers; their digests cover the accepted ballots too.
    Registers,
    /// Blocks that were deleted.
    Deletions,
    /// Blocks whose deletion was taken back.
    Reprieves,
}

/// Asks for [`Digests`] or for [`ListKeys`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DigestsRequest {
    /// Which keys.
    pub family: Family,
    /// Who asks: keys for which that node is not responsible are left out.
    pub asker: NodeId,
}

/// The answer of [`Digests`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DigestsResponse {
    /// One for each first byte.
    pub digests: Vec<u64>,
    /// Where the answer comes from.
    pub mark: ViewMark,
}

/// By which view of who is near a node acts, and how it stands by that.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ViewMark {
    /// Equal for those who see the same nodes say the same of themselves.
    pub view: u64,
    /// It has handed over what it held for others.
    pub has_handed_over: bool,
    /// Something would be gone with its zone: what it was given for others and has yet to hand over, or a register.
    pub is_needed: bool,
    /// It had no room for a block a while ago.
    pub is_full: bool,
}

/// See [`ListKeys`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ListKeysRequest {
    /// Which keys, and for whom.
    pub of: DigestsRequest,
    /// The first address.
    #[serde(with = "serde_bytes")]
    pub from: [u8; 32],
    /// The last address.
    #[serde(with = "serde_bytes")]
    pub to: [u8; 32],
}

/// Under which key nodes keep what an owner said of a block; see [`Words`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct WordKey(#[serde(with = "serde_bytes")] pub [u8; 32]);

impl WordKey {
    pub(crate) fn in_kind(self, kind: Kind) -> Key {
        Key::new(kind, self.0)
    }
}

/// See [`ListBlocks`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ListBlocksRequest {
    /// Whose blocks.
    pub tag: OwnerTag,
    /// The first address.
    pub from: Address,
    /// The last address.
    pub to: Address,
    /// Also those that were deleted and whose bytes are kept yet.
    #[serde(default)]
    pub with_deleted: bool,
}

/// A block that a node has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldBlock {
    /// Its name.
    pub address: Address,
    /// Its length.
    pub length: u32,
    /// When it was put, in seconds since 1970 by the node's clock.
    pub put_seconds: u64,
    /// It was deleted.
    #[serde(default)]
    pub is_deleted: bool,
    /// For how long after that it is kept at least, by what the node had promised then.
    #[serde(default)]
    pub kept_seconds: u32,
}

/// See [`ListBlocks`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ListBlocksResponse {
    /// At most [`BLOCKS_LISTED_MAX`], in order; deleted ones are left out, unless they are asked for.
    pub blocks: Vec<HeldBlock>,
    /// Where to go on; `None` if that was all.
    pub next: Option<Address>,
    /// What time it is at the node, in seconds since 1970.
    pub now_seconds: u64,
}

/// A key, and for a register the ballot of what is accepted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListedKey {
    /// The key.
    #[serde(with = "serde_bytes")]
    pub address: [u8; 32],
    /// Zero for blocks, and for registers that hold nothing yet.
    pub ballot: Ballot,
}

/// See [`ListKeys`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ListKeysResponse {
    /// At most [`KEYS_PER_ANSWER_MAX`], in order.
    pub keys: Vec<ListedKey>,
    /// Where to go on; `None` if that was all.
    #[serde(with = "serde_bytes")]
    pub next: Option<[u8; 32]>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use reactor::serialization::{from_bytes, to_bytes};

    #[test]
    fn the_released_schema_stays_as_it_is() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/schemas/dht.txt");
        StorageClient::schema().compare_with_released(path).unwrap();
    }

    #[test]
    fn a_full_list_of_keys_fits_into_a_message() {
        let key = ListedKey { address: [0xff; 32], ballot: Ballot { round: u64::MAX, ..Ballot::ZERO } };
        let response = ListKeysResponse { keys: vec![key; KEYS_PER_ANSWER_MAX], next: Some([1; 32]) };
        let bytes = to_bytes(&response);
        assert!(bytes.len() < LIST_KEYS_REPLY_BYTES_MAX, "{}", bytes.len());
        let back: ListKeysResponse = from_bytes(&bytes).unwrap();
        assert_eq!((back.keys, back.next), (response.keys, response.next));
    }

    #[test]
    fn refusals_survive_the_journey() {
        let writer = reactor::crypto::Identity::from_seed(&[1; 32]);
        for refusal in [
            Refusal::Full,
            Refusal::Outside { length: 7 },
            Refusal::Invalid(Invalid::NotAWriter),
            Refusal::Conflict { promise: Proposal::prepare(&writer, RegisterAddress([1; 32]), Ballot::ZERO) },
            Refusal::NotAllowed("no".into()),
        ] {
            assert_eq!(from_bytes::<Refusal>(&to_bytes(&refusal)).unwrap(), refusal);
        }
    }
}
