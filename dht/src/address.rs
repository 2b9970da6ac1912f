//! Names of immutable blocks, and proofs that a range of bytes belongs to a name.
//!
//! An [`Address`] is BLAKE3 of the ciphertext, keyed with the owner's tag: the tag keeps two owners' equal
//! ciphertexts apart, so that one may delete a block without taking the other's. BLAKE3 is a tree over chunks of
//! 1 KiB, and each subtree has a *chaining value*. The answer to a ranged read carries the *slices* of 4 KiB that cover
//! the range, and a *proof*: the chaining values of the largest subtrees beside them, from left to right. The reader hashes
//! the slices, merges the tree to its root, and compares that with the address.
//!
//! 4 KiB, because no program reads less: one slice of the largest block comes with nine hashes, 4.4 KiB in all. Had the
//! answer the chaining values of all parts of 4 KiB, these would be twice as much as the slice.
//!
//! Nodes keep the chaining values of *groups* of 32 KiB beside a block, a thousandth of the content, and hash what the proof
//! takes of the groups at a range's edges when they are asked. Those of slices would be eight thousandths on each replica,
//! and whoever stores would hash in pieces that are too small for the processor's vectors.
//!
//! Not here: where blocks live ([`crate::replicate`]) and how they lie in the local store ([`crate::block`]).

use std::fmt;
use std::ops::Range;

use blake3::hazmat::{HasherExt, Mode, left_subtree_len, merge_subtrees_non_root, merge_subtrees_root};
use reactor::crypto::PublicKey;
use reactor::crypto::hash::sha3_256;
use serde::{Deserialize, Serialize};

/// How many bytes of a block share one chaining value where it is stored: a power of two of BLAKE3's chunks.
pub const GROUP_SIZE_BYTES: usize = 32 * 1024;

/// The least part of a block that proves itself, but the block's end: a power of two of BLAKE3's chunks.
pub const SLICE_SIZE_BYTES: usize = 4 * 1024;

/// How many chaining values a proof has at the most: on each side of the range one for each level of the largest block's tree
/// above slices.
pub const PROOF_LENGTH_MAX: usize = 2 * (BLOCK_SIZE_BYTES_MAX / SLICE_SIZE_BYTES).ilog2() as usize + 2;

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

/// The chaining value of a subtree: of a group of [`GROUP_SIZE_BYTES`], or another part of a block.
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
    let hash = |(index, group)| part_hash(tag, index * GROUP_SIZE_BYTES, group);
    content.chunks(GROUP_SIZE_BYTES).enumerate().map(hash).collect()
}

/// The bytes that an answer to `range` must carry: the range widened to whole slices, cut at the block's end.
///
/// # Errors
/// [`RangeError::Outside`] if the range is empty or leaves the block.
pub fn covering_slices(length: u32, range: &Range<u32>) -> Result<Range<u32>, RangeError> {
    widen(length, range, SLICE_SIZE_BYTES as u32)
}

/// The bytes that a node needs for an answer to `range`: the range widened to whole groups, cut at the block's end.
///
/// # Errors
/// As [`covering_slices`].
pub fn covering_groups(length: u32, range: &Range<u32>) -> Result<Range<u32>, RangeError> {
    widen(length, range, GROUP_SIZE_BYTES as u32)
}

fn widen(length: u32, range: &Range<u32>, step: u32) -> Result<Range<u32>, RangeError> {
    if range.start >= range.end || range.end > length {
        return Err(RangeError::Outside { start: range.start, end: range.end, length });
    }
    let start = range.start / step * step;
    Ok(start..range.end.div_ceil(step).saturating_mul(step).min(length))
}

/// What proves `covered`, which are whole slices of a block of `length` bytes, given the `groups` of it that cover them and the
/// chaining values of all its groups.
///
/// # Panics
/// If what is given is not so.
pub fn prove_range(
    tag: &OwnerTag,
    length: u32,
    covered: &Range<u32>,
    groups: &[u8],
    hashes: &[GroupHash],
) -> Vec<GroupHash> {
    let start = covered.start as usize / GROUP_SIZE_BYTES * GROUP_SIZE_BYTES;
    let mut prover = Prover { tag, covered, start, groups, hashes, proof: Vec::new() };
    prover.walk(0, u64::from(length));
    prover.proof
}

struct Prover<'a> {
    tag: &'a OwnerTag,
    covered: &'a Range<u32>,
    /// Where in the block `groups` begin.
    start: usize,
    groups: &'a [u8],
    hashes: &'a [GroupHash],
    proof: Vec<GroupHash>,
}

impl Prover<'_> {
    // Recursion is at most nine deep, here and below: as deep as the tree above slices.
    fn walk(&mut self, start: u64, length: u64) {
        match place(self.covered, start, length) {
            Place::Within => {}
            Place::Beside => self.proof.push(self.value(start as usize, length)),
            Place::Across => {
                let left = left_subtree_len(length);
                self.walk(start, left);
                self.walk(start + left, length - left);
            }
        }
    }

    fn value(&self, start: usize, length: u64) -> GroupHash {
        // What begins in a group that is covered in part lies within it: else it would not be beside the range.
        if (self.start..self.start + self.groups.len()).contains(&start) {
            let from = start - self.start;
            return part_hash(self.tag, start, &self.groups[from..from + length as usize]);
        }
        let (first, count) = (start / GROUP_SIZE_BYTES, length.div_ceil(GROUP_SIZE_BYTES as u64) as usize);
        GroupHash(subtree_of(self.tag, length, &self.hashes[first..first + count]))
    }
}

/// Where a subtree lies, seen from the bytes that are to be proved.
enum Place {
    Within,
    Beside,
    Across,
}

fn place(covered: &Range<u32>, start: u64, length: u64) -> Place {
    let (from, to, end) = (u64::from(covered.start), u64::from(covered.end), start + length);
    if from <= start && end <= to {
        Place::Within
    } else if end <= from || to <= start {
        Place::Beside
    } else {
        Place::Across
    }
}

fn part_hash(tag: &OwnerTag, offset: usize, part: &[u8]) -> GroupHash {
    let mut hasher = blake3::Hasher::new_keyed(&tag.0);
    hasher.set_input_offset(offset as u64).update(part);
    GroupHash(hasher.finalize_non_root())
}

/// Checks that `slices` are the bytes of `address` that cover `range`, given what proves them.
///
/// `length` is the block's length as the answer claims it. It need not be trusted: a false one changes the shape of the tree,
/// or the last slice, which then do not hash to the address.
/// Returns where in `slices` the range lies.
///
/// # Errors
/// [`RangeError`]: the answer is worthless, another replica should be asked.
pub fn verify_range(
    address: &Address,
    tag: &OwnerTag,
    length: u32,
    range: &Range<u32>,
    slices: &[u8],
    proof: &[GroupHash],
) -> Result<Range<usize>, RangeError> {
    if length as usize > BLOCK_SIZE_BYTES_MAX {
        return Err(RangeError::Shape);
    }
    let covered = covering_slices(length, range)?;
    let within = (range.start - covered.start) as usize..(range.end - covered.start) as usize;
    if slices.len() != (covered.end - covered.start) as usize || proof.len() > PROOF_LENGTH_MAX {
        return Err(RangeError::Shape);
    }
    let is_named = if covered == (0..length) {
        proof.is_empty() && address.names(tag, slices)
    } else {
        let mut verifier = Verifier { tag, covered: &covered, slices, proof: proof.iter() };
        let left = left_subtree_len(u64::from(length));
        let left_value = verifier.walk(0, left)?;
        let right_value = verifier.walk(left, u64::from(length) - left)?;
        if verifier.proof.next().is_some() {
            return Err(RangeError::Shape);
        }
        // The root is not finished as an inner node is.
        *merge_subtrees_root(&left_value, &right_value, Mode::KeyedHash(&tag.0)).as_bytes() == address.0
    };
    if is_named { Ok(within) } else { Err(RangeError::Mismatch) }
}

struct Verifier<'a> {
    tag: &'a OwnerTag,
    covered: &'a Range<u32>,
    slices: &'a [u8],
    proof: std::slice::Iter<'a, GroupHash>,
}

impl Verifier<'_> {
    fn walk(&mut self, start: u64, length: u64) -> Result<[u8; 32], RangeError> {
        match place(self.covered, start, length) {
            Place::Within => {
                let from = start as usize - self.covered.start as usize;
                Ok(part_hash(self.tag, start as usize, &self.slices[from..from + length as usize]).0)
            }
            Place::Beside => self.proof.next().map(|hash| hash.0).ok_or(RangeError::Shape),
            Place::Across => {
                let left = left_subtree_len(length);
                let left_value = self.walk(start, left)?;
                let right_value = self.walk(start + left, length - left)?;
                Ok(merge_subtrees_non_root(&left_value, &right_value, Mode::KeyedHash(&self.tag.0)))
            }
        }
    }
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

    /// What a node answers.
    fn serve<'a>(bytes: &'a [u8], range: &Range<u32>) -> (&'a [u8], Vec<GroupHash>) {
        let length = bytes.len() as u32;
        let part = |range: Range<u32>| &bytes[range.start as usize..range.end as usize];
        let covered = covering_slices(length, range).unwrap();
        let groups = part(covering_groups(length, range).unwrap());
        let hashes = address_and_groups(&TAG, bytes).1;
        (part(covered.clone()), prove_range(&TAG, length, &covered, groups, &hashes))
    }

    #[test]
    fn every_range_of_every_shape_proves_itself() {
        for length in lengths() {
            let bytes = content(length);
            let address = Address::of(&TAG, &bytes);
            assert_eq!(address_and_groups(&TAG, &bytes).0, address);
            let last = length as u32;
            let mut edges: Vec<u32> = [0, 1, 4095, 4096, 4097, 28_672, 32_768, 36_864, 524_288, 1 << 20]
                .into_iter()
                .chain([last / 3, last / 2, last.saturating_sub(4096), last - 1, last])
                .filter(|edge| *edge <= last)
                .collect();
            edges.sort_unstable();
            edges.dedup();
            for (at, start) in edges.iter().enumerate() {
                for end in &edges[at + 1..] {
                    let range = *start..*end;
                    let (slices, proof) = serve(&bytes, &range);
                    assert!(proof.len() <= PROOF_LENGTH_MAX, "{length} {range:?}");
                    let within = verify_range(&address, &TAG, last, &range, slices, &proof).unwrap();
                    let expected = &bytes[range.start as usize..range.end as usize];
                    assert!(slices[within] == *expected, "{length} {range:?}");
                }
            }
        }
    }

    #[test]
    fn a_flipped_bit_anywhere_in_the_answer_is_noticed() {
        for length in lengths() {
            let bytes = content(length);
            let address = Address::of(&TAG, &bytes);
            let range = length as u32 / 2..length as u32 / 2 + 1;
            let (slices, proof) = serve(&bytes, &range);
            let verify = |slices: &[u8], proof: &[GroupHash]| {
                verify_range(&address, &TAG, length as u32, &range, slices, proof)
            };
            assert!(verify(slices, &proof).is_ok());
            for position in [0, slices.len() / 2, slices.len() - 1] {
                let mut bad = slices.to_vec();
                bad[position] ^= 1;
                assert_eq!(verify(&bad, &proof), Err(RangeError::Mismatch));
            }
            for index in 0..proof.len() {
                let mut bad = proof.clone();
                bad[index].0[5] ^= 0x10;
                assert_eq!(verify(slices, &bad), Err(RangeError::Mismatch));
                bad = proof.clone();
                bad.remove(index);
                assert_eq!(verify(slices, &bad), Err(RangeError::Shape));
            }
            let longer = [&proof[..], &[GroupHash([0; 32])]].concat();
            assert!(verify(slices, &longer).is_err());
            assert_eq!(verify(&slices[1..], &proof), Err(RangeError::Shape));
        }
    }

    #[test]
    fn no_part_proves_another() {
        let bytes = content((1 << 20) + 77);
        let (address, length) = (Address::of(&TAG, &bytes), bytes.len() as u32);
        let (slices, proof) = serve(&bytes, &(8192..8193));
        let verify = |range: Range<u32>| verify_range(&address, &TAG, length, &range, slices, &proof).is_ok();
        assert!(verify(8192..12_288) && verify(12_287..12_288));
        assert!(!verify(4096..8192) && !verify(12_288..12_289) && !verify(0..1));
        let other = Address::of(&TAG, &bytes[1..]);
        assert!(verify_range(&other, &TAG, length, &(8192..8193), slices, &proof).is_err());
        assert!(verify_range(&address, &OwnerTag([8; 32]), length, &(8192..8193), slices, &proof).is_err());
    }

    #[test]
    fn a_false_length_is_refused_with_an_error() {
        let bytes = content(3 * GROUP_SIZE_BYTES + 5);
        let address = Address::of(&TAG, &bytes);
        let end = bytes.len() as u32;
        let range = end - 1..end;
        let (slices, proof) = serve(&bytes, &range);
        assert!(verify_range(&address, &TAG, end, &range, slices, &proof).is_ok());
        for claimed in [0, 1, end - 1, end + 1, u32::MAX] {
            assert!(verify_range(&address, &TAG, claimed, &range, slices, &proof).is_err());
        }
        assert!(verify_range(&address, &TAG, 0, &(0..1), &[], &[]).is_err());
        assert!(verify_range(&address, &TAG, end, &range, slices, &[]).is_err());
        let many = vec![GroupHash([1; 32]); 1000];
        assert_eq!(verify_range(&address, &TAG, end, &range, slices, &many), Err(RangeError::Shape));
    }

    #[test]
    fn equal_bytes_of_two_owners_have_two_addresses() {
        assert_ne!(Address::of(&TAG, b"same"), Address::of(&OwnerTag([8; 32]), b"same"));
    }
}
