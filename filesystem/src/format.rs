//! What a volume stores, byte by byte: keys, values, pointers, and the sizes that bound them.
//!
//! A volume's tree maps keys to values. `key` says how keys lie, so that what belongs to one inode lies together;
//! `inode` is the record of one, `table` the records that belong to the volume as a whole. Everything here is pure, and
//! decoding takes bytes from anyone: it returns `None` and never panics.
//!
//! Three rules keep the format open for years. A record may be longer than what this version knows: the rest is kept as
//! it came and written back. A kind of key that this version does not know is passed over in scans and kept in place.
//! What an older program must not touch is said by feature flags in the root (see [`crate::access`]).
//!
//! Numbers in values are little-endian. A pointer is `form u8, algorithm u8, offset u32, stored length u32, content length
//! u32, birth u48, key 32, tags 16 each`, and `address 32` where the form is 1; where it is 0 the chunk lies in the same object
//! as the node that points: only so can a parent and its child share an object that is named by its hash.
//!
//! The content's length and the tags are in the pointer and not in the object, so a full frame takes exactly 32 KiB there and
//! each of its segments lies in one group of the store's hash (`dht::address`): a random read moves and checks one group and
//! not two.

mod entry;
#[cfg(test)]
mod golden;
mod inode;
mod key;
mod object;
mod segments;
mod shown;
mod snapshot;
mod table;

pub use entry::EntryRecord;
pub use inode::{ContentVersion, INODE_RECORD_SIZE, InodeRecord};
pub use key::{Key, KeyBytes};
pub use object::{OBJECT_CHANGE_COUNT_MAX, ObjectChange, ObjectChanges, ObjectId, ObjectRecord};
pub use segments::{Piece, SEGMENT_COUNT_MAX, Tags};
pub use shown::{Shown, is_unseen};
pub use snapshot::{
    NOW, SNAPSHOT_NAME_SIZE_MAX, SnapshotOrigin, SnapshotRecord, check_snapshot_name, printable,
    printable_path,
};
pub use table::{Label, Orphan, SessionRecord, SessionState, Truncation, WriterRecord};

use crate::operations::NAME_SIZE_MAX;

/// Bytes of file content in one frame, unless the file says otherwise: what a key is kept for, and a small write stores anew.
pub const FRAME_SIZE: usize = 32 * 1024;
/// Bytes of a frame that are sealed apart from the rest: a random 4 KiB read fetches and opens no more.
pub const SEGMENT_SIZE: usize = 4 * 1024;
/// No file has smaller frames: the kernel reads and writes no less.
pub const FRAME_SIZE_MIN: usize = 4 * 1024;
/// No file has larger frames.
pub const FRAME_SIZE_MAX: usize = 128 * 1024;
/// Frames and nodes written together share objects of at most this size: one put each.
pub const OBJECT_SIZE_MAX: usize = 1024 * 1024;
/// A frame whose content is no longer than this lives in its leaf.
pub const INLINE_SIZE_MAX: usize = 2 * 1024;
/// A tree node above this plaintext size is split.
pub const NODE_SIZE_MAX: usize = 8 * 1024;
/// No node is longer: one entry may hold an extended attribute of 64 KiB, beside others.
pub const NODE_SIZE_LIMIT: usize = 256 * 1024;
/// The longest key: an entry with the longest name.
pub const KEY_SIZE_MAX: usize = 9 + 8 + NAME_SIZE_MAX;
/// Hashes of names keep this many bits, so that a hash and a small index fit a positive `readdir` cookie.
pub const NAME_HASH_BITS: u32 = 56;
/// What sealing adds to a padded record, which no pointer describes: its length and GCM's tag.
pub const SEAL_OVERHEAD: usize = 4 + 16;
/// A birth has 48 bits: enough for a commit each microsecond for nine years.
pub(crate) const BIRTH_MAX: u64 = (1 << 48) - 1;

/// Returns the size that content of `size` bytes is padded to: at most an eighth more, so that sizes tell little.
pub fn padded_size(size: usize) -> usize {
    if size <= 64 {
        return 64;
    }
    let step = 1usize << (usize::BITS - 1 - (size - 1).leading_zeros()).saturating_sub(3);
    size.div_ceil(step) * step
}

/// A volume's name: 16 random bytes, drawn when it is made. What is sealed in one volume does not open in another.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct VolumeId(pub [u8; 16]);

/// Where a sealed frame or node lies, and the only copy of its key.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Pointer {
    /// The object's address.
    pub address: [u8; 32],
    /// Where in the object the sealed bytes start.
    pub offset: u32,
    /// How many sealed bytes there are: the content and what pads it.
    pub length: u32,
    /// How many of them are content.
    pub size: u32,
    /// The register's version that the chunk was sealed for; 0: not known. No root before that one points to it.
    pub birth: u64,
    /// The AES-256-GCM key that sealed them, and nothing else.
    pub key: [u8; 32],
    /// What proves them untouched.
    pub tags: Tags,
}

impl std::fmt::Debug for Pointer {
    // The key stays out of logs.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for byte in &self.address[..6] {
            write!(f, "{byte:02x}")?;
        }
        write!(f, "[{}..{}]", self.offset, u64::from(self.offset) + u64::from(self.length))
    }
}

/// Bytes of a pointer with its address to what is sealed in one piece, as nodes are.
pub const POINTER_SIZE: usize = HEAD_SIZE + 16 + ADDRESS_SIZE;
/// What comes before the tags.
const HEAD_SIZE: usize = 2 + 3 * 4 + 6 + 32;
/// What a pointer takes more that says its object.
pub(crate) const ADDRESS_SIZE: usize = 32;

impl Pointer {
    /// Returns how many bytes the pointer takes with its address.
    pub(crate) fn encoded_size(&self) -> usize {
        encoded_size(&self.tags)
    }

    /// Appends the pointer; `same_object` leaves the address out.
    pub fn encode(&self, same_object: bool, out: &mut Vec<u8>) {
        out.extend_from_slice(&[u8::from(!same_object), self.tags.algorithm()]);
        for number in [self.offset, self.length, self.size] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        out.extend_from_slice(&self.birth.min(BIRTH_MAX).to_le_bytes()[..6]);
        out.extend_from_slice(&self.key);
        out.extend_from_slice(self.tags.as_slice().as_flattened());
        if !same_object {
            out.extend_from_slice(&self.address);
        }
    }

    /// Reads a pointer that was found in the object `home`.
    pub fn decode(bytes: &[u8], home: &[u8; 32]) -> Option<Pointer> {
        let (head, rest) = bytes.split_first_chunk::<HEAD_SIZE>()?;
        let number = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        let (offset, length, size) = (number(2), number(6), number(10));
        // Sizes what is fetched and allocated next, so it is bounded here.
        let fits = offset as usize <= OBJECT_LENGTH_MAX
            && length as usize == padded_size(size as usize)
            && offset as usize + length as usize <= OBJECT_LENGTH_MAX;
        if !fits {
            return None;
        }
        let (tags, rest) = Tags::decode(head[1], length as usize, rest)?;
        let address = match (head[0], rest.len()) {
            (0, 0) => *home,
            (1, ADDRESS_SIZE) => rest.try_into().ok()?,
            _ => return None,
        };
        let mut birth = [0; 8];
        birth[..6].copy_from_slice(&head[14..20]);
        let key = head[20..].try_into().ok()?;
        Some(Pointer { address, offset, length, size, birth: u64::from_le_bytes(birth), key, tags })
    }

    /// A pointer to `length` bytes in an object, which are a size class and one byte more than the content, for tests.
    #[cfg(test)]
    pub(crate) fn example(address: [u8; 32], offset: u32, length: u32) -> Pointer {
        let tags = Tags::whole([8; 16]);
        Pointer { address, offset, length, size: length - 1, birth: 77, key: [9; 32], tags }
    }
}

/// Returns how many bytes a pointer with these tags takes with its address.
pub(crate) fn encoded_size(tags: &Tags) -> usize {
    HEAD_SIZE + tags.as_slice().len() * 16 + ADDRESS_SIZE
}

/// The longest object: 1 MiB of padded content and what sealing adds, within the 64 KiB that the store allows for it.
pub const OBJECT_LENGTH_MAX: usize = OBJECT_SIZE_MAX + 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_bytes_are_a_pointer_or_none(bytes in proptest::collection::vec(any::<u8>(), 0..120)) {
            let _ = Pointer::decode(&bytes, &[0; 32]);
        }

        #[test]
        fn padding_adds_at_most_an_eighth(size in 64usize..100_000) {
            let padded = padded_size(size);
            prop_assert!(padded >= size && padded <= size + size / 8 + 8, "{size} became {padded}");
            prop_assert_eq!(padded_size(padded), padded);
        }
    }

    #[test]
    fn a_full_frame_needs_no_padding() {
        assert_eq!(padded_size(FRAME_SIZE), FRAME_SIZE);
        assert_eq!(padded_size(4096), 4096);
    }

    #[test]
    fn a_pointer_within_its_object_leaves_the_address_out() {
        let pointer = Pointer::example([7; 32], 10, 104);
        let (mut near, mut far) = (Vec::new(), Vec::new());
        pointer.encode(true, &mut near);
        pointer.encode(false, &mut far);
        assert_eq!((near.len(), far.len()), (68, 100));
        assert_eq!(Pointer::decode(&near, &[7; 32]), Some(pointer));
        assert_eq!(Pointer::decode(&far, &[1; 32]), Some(pointer));
    }
}
