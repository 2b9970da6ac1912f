//! Names of immutable blocks, and proofs that a range of bytes belongs to a name.
//!
//! An [`Address`] is BLAKE3 of the ciphertext, keyed with the owner's tag: the tag keeps two owners' equal
//! ciphertexts apart, so that one may delete a block without taking the other's. BLAKE3 is a tree over chunks of
//! 1 KiB, and any subtree of 32 KiB has a *chaining value*. The answer to a ranged read therefore carries the groups
//! of 32 KiB that cover the range, and the chaining values of all groups: the reader recomputes those of the groups
//! it got, merges all of them to the root, and compares the root with the address.
//!
//! 32 KiB, because 32 bytes per 32 KiB are a thousandth of the content (1 KiB for the largest block), because such a
//! group takes about 10 us to hash, and because the file system's frames have that size.
//!
//! Not here: where blocks live ([`crate::replicate`]) and how they lie in the local store ([`crate::block`]).

use std::fmt;
use std::ops::Range;

use blake3::hazmat::{HasherExt, Mode, left_subtree_len, merge_subtrees_non_root, merge_subtrees_root};
use reactor::crypto::PublicKey;
use reactor::crypto::hash::sha3_256;
use serde::{Deserialize, Serialize};

/// How many bytes of a block share one chaining value: a power of two of BLAKE3's chunks.
pub const GROUP_SIZE_BYTES: usize = 32 * 1024;

/// The largest immutable block: 1 MiB of frames, and room for what seals them.
pub const BLOCK_SIZE_BYTES_MAX: usize = 1024 * 1024 + 64 * 1024;

/// How many groups the largest block has; bounds what a proof may allocate.
pub const GROUP_COUNT_MAX: usize = BLOCK_SIZE_BYTES_MAX.div_ceil(GROUP_SIZE_BYTES);

/// The key under which an owner's blocks are hashed. Not a secret: storage nodes know it, to check what they store.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct OwnerTag(#[serde(with = "serde_bytes")] pub [u8; 32]);

/// The tag under which the blocks of `owner`'s volume with `salt` are named.
///
/// One for each volume: nodes can list what belongs to one, to sweep what no root names any more, and two volumes of one
/// owner cannot be told to be one owner's by their blocks. Who wants a block gone shows the owner's key and the salt.
pub fn owner_tag(owner: &PublicKey, salt: &[u8; 32]) -> OwnerTag {
    OwnerTag(sha3_256(&[b"hypha owner tag 2", owner.as_bytes(), salt]))
}

/// The name of an immutable block: keyed BLAKE3 of its bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Address(#[serde(with = "serde_bytes")] pub [u8; 32]);

/// The chaining value of one group of [`GROUP_SIZE_BYTES`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct GroupHash(#[serde(with = "serde_bytes")] pub [u8; 32]);

impl Address {
    /// The address of `content` under `tag`. A pure function: a parent can name its children before they are stored.
    pub fn of(tag: &OwnerTag, content: &[u8]) -> Address {
        Address(*blake3::keyed_hash(&tag.0, content).as_bytes())
    }

    /// Whether `content` is what this address names.
    pub fn names(&self, tag: &OwnerTag, content: &[u8]) -> bool {
        Address::of(tag, content) == *self
    }
}

/// Bytes do not prove to be part of the block that was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RangeError {
    /// The range is empty or ends beyond the block.
    #[error("the range {start}..{end} is not within the block's {length} bytes")]
    Outside {
        /// First byte asked for.
        start: u32,
        /// One past the last byte asked for.
        end: u32,
        /// The block's length.
        length: u32,
    },
    /// The answer does not have the shape that the range demands.
    #[error("the proof has the wrong number of groups or bytes")]
    Shape,
    /// The groups do not merge to the address: the answer was damaged or forged.
    #[error("the bytes do not hash to the block's address")]
    Mismatch,
}

/// The address of `content` and the chaining values of its groups, in one pass over it.
///
/// A block of one group has no chaining values: its address says it all.
pub fn address_and_groups(tag: &OwnerTag, content: &[u8]) -> (Address, Vec<GroupHash>) {
    if content.len() <= GROUP_SIZE_BYTES {
        return (Address::of(tag, content), Vec::new());
    }
    let hashes = group_hashes(tag, content);
    (root_of(tag, content.len() as u64, &hashes), hashes)
}

/// Chaining values of all groups of `content`, in order.
///
/// Empty for an empty block.
pub fn group_hashes(tag: &OwnerTag, content: &[u8]) -> Vec<GroupHash> {
    content.chunks(GROUP_SIZE_BYTES).enumerate().map(|(index, group)| group_hash(tag, index, group)).collect()
}

fn group_hash(tag: &OwnerTag, index: usize, group: &[u8]) -> GroupHash {
    let mut hasher = blake3::Hasher::new_keyed(&tag.0);
    hasher.set_input_offset((index * GROUP_SIZE_BYTES) as u64).update(group);
    GroupHash(hasher.finalize_non_root())
}

/// The bytes that an answer to `range` must carry: the range widened to whole groups, cut at the block's end.
///
/// # Errors
/// [`RangeError::Outside`] if the range is empty or leaves the block.
pub fn covering_groups(length: u32, range: &Range<u32>) -> Result<Range<u32>, RangeError> {
    if range.start >= range.end || range.end > length {
        return Err(RangeError::Outside { start: range.start, end: range.end, length });
    }
    let group = GROUP_SIZE_BYTES as u32;
    let start = range.start / group * group;
    let end = range.end.div_ceil(group).saturating_mul(group).min(length);
    Ok(start..end)
}

/// Checks that `groups` are the bytes of `address` that cover `range`, given the chaining values of all groups.
///
/// `length` is the block's length as the answer claims it. It need not be trusted: a false one either changes the
/// shape of the tree or the last group, which then does not hash to its chaining value.
/// Returns where in `groups` the range lies.
///
/// # Errors
/// [`RangeError`]: the answer is worthless, another replica should be asked.
pub fn verify_range(
    address: &Address,
    tag: &OwnerTag,
    length: u32,
    range: &Range<u32>,
    groups: &[u8],
    hashes: &[GroupHash],
) -> Result<Range<usize>, RangeError> {
    if length as usize > BLOCK_SIZE_BYTES_MAX {
        return Err(RangeError::Shape);
    }
    let covered = covering_groups(length, range)?;
    let within = (range.start - covered.start) as usize..(range.end - covered.start) as usize;
    if groups.len() != (covered.end - covered.start) as usize {
        return Err(RangeError::Shape);
    }
    let count = (length as usize).div_ceil(GROUP_SIZE_BYTES);
    if count == 1 {
        // A single group is the root itself, which BLAKE3 finishes differently from an inner node.
        return if address.names(tag, groups) { Ok(within) } else { Err(RangeError::Mismatch) };
    }
    if hashes.len() != count {
        return Err(RangeError::Shape);
    }
    let first = covered.start as usize / GROUP_SIZE_BYTES;
    for (index, group) in groups.chunks(GROUP_SIZE_BYTES).enumerate() {
        if group_hash(tag, first + index, group) != hashes[first + index] {
            return Err(RangeError::Mismatch);
        }
    }
    if root_of(tag, length as u64, hashes) == *address { Ok(within) } else { Err(RangeError::Mismatch) }
}

/// Merges at least two groups' chaining values to the address of the whole.
fn root_of(tag: &OwnerTag, length: u64, hashes: &[GroupHash]) -> Address {
    let mode = Mode::KeyedHash(&tag.0);
    let left = left_subtree_len(length);
    let split = left as usize / GROUP_SIZE_BYTES;
    let left_value = subtree_of(tag, left, &hashes[..split]);
    let right_value = subtree_of(tag, length - left, &hashes[split..]);
    Address(*merge_subtrees_root(&left_value, &right_value, mode).as_bytes())
}

// Recursion is at most six deep: there are no more than GROUP_COUNT_MAX groups.
fn subtree_of(tag: &OwnerTag, length: u64, hashes: &[GroupHash]) -> [u8; 32] {
    if hashes.len() == 1 {
        return hashes[0].0;
    }
    let left = left_subtree_len(length);
    let split = left as usize / GROUP_SIZE_BYTES;
    let left_value = subtree_of(tag, left, &hashes[..split]);
    let right_value = subtree_of(tag, length - left, &hashes[split..]);
    merge_subtrees_non_root(&left_value, &right_value, Mode::KeyedHash(&tag.0))
}

pub(crate) fn write_hex(bytes: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(&self.0, f)
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(&self.0[..6], f)
    }
}

impl fmt::Debug for OwnerTag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(&self.0[..6], f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TAG: OwnerTag = OwnerTag([7; 32]);

    fn content(length: usize) -> Vec<u8> {
        (0..length).map(|i| (i * 31 + i / 251) as u8).collect()
    }

    fn lengths() -> [usize; 10] {
        let group = GROUP_SIZE_BYTES;
        [
            1,
            1024,
            group - 1,
            group,
            group + 1,
            2 * group,
            3 * group + 5,
            1 << 20,
            (1 << 20) + 77,
            BLOCK_SIZE_BYTES_MAX,
        ]
    }

    #[test]
    fn every_range_of_every_shape_proves_itself() {
        for length in lengths() {
            let bytes = content(length);
            let address = Address::of(&TAG, &bytes);
            let hashes = group_hashes(&TAG, &bytes);
            if length > GROUP_SIZE_BYTES {
                assert_eq!(address_and_groups(&TAG, &bytes), (address, hashes.clone()));
            }
            let last = length as u32;
            for range in [0..1, 0..last, last - 1..last, last / 2..last / 2 + 1, last / 3..last] {
                let cover = covering_groups(last, &range).unwrap();
                let groups = &bytes[cover.start as usize..cover.end as usize];
                let within = verify_range(&address, &TAG, last, &range, groups, &hashes).unwrap();
                assert_eq!(
                    groups[within],
                    bytes[range.start as usize..range.end as usize],
                    "{length} {range:?}"
                );
            }
        }
    }

    #[test]
    fn a_flipped_bit_anywhere_in_the_answer_is_noticed() {
        for length in lengths() {
            let bytes = content(length);
            let address = Address::of(&TAG, &bytes);
            let hashes = group_hashes(&TAG, &bytes);
            let range = length as u32 / 2..length as u32 / 2 + 1;
            let cover = covering_groups(length as u32, &range).unwrap();
            let mut groups = bytes[cover.start as usize..cover.end as usize].to_vec();
            for position in [0, groups.len() / 2, groups.len() - 1] {
                groups[position] ^= 1;
                assert!(verify_range(&address, &TAG, length as u32, &range, &groups, &hashes).is_err());
                groups[position] ^= 1;
            }
            for index in 0..if hashes.len() > 1 { hashes.len() } else { 0 } {
                let mut bad = hashes.clone();
                bad[index].0[5] ^= 0x10;
                assert!(verify_range(&address, &TAG, length as u32, &range, &groups, &bad).is_err());
            }
        }
    }

    #[test]
    fn a_false_length_is_refused_with_an_error() {
        let bytes = content(3 * GROUP_SIZE_BYTES + 5);
        let address = Address::of(&TAG, &bytes);
        let hashes = group_hashes(&TAG, &bytes);
        let end = bytes.len() as u32;
        let range = end - 1..end;
        let last_group = &bytes[3 * GROUP_SIZE_BYTES..];
        assert!(verify_range(&address, &TAG, end, &range, last_group, &hashes).is_ok());
        for claimed in [0, 1, end - 1, end + 1, u32::MAX] {
            assert!(verify_range(&address, &TAG, claimed, &range, last_group, &hashes).is_err());
        }
        assert!(verify_range(&address, &TAG, 0, &(0..1), &[], &[]).is_err());
        assert!(verify_range(&address, &TAG, end, &range, last_group, &[]).is_err());
    }

    #[test]
    fn equal_bytes_of_two_owners_have_two_addresses() {
        assert_ne!(Address::of(&TAG, b"same"), Address::of(&OwnerTag([8; 32]), b"same"));
    }
}
