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
//! Numbers in values are little-endian. A pointer is `1, offset u32, length u32, key 32, address 32`, or
//! `0, offset, length, key` for what lies in the same object as the node that points: only so can a parent and its
//! child share an object that is named by its hash.

mod entry;
#[cfg(test)]
mod golden;
mod inode;
mod key;
mod table;

pub use entry::EntryRecord;
pub use inode::{ContentVersion, INODE_RECORD_SIZE, InodeRecord};
pub use key::{Key, KeyBytes};
pub use table::{Orphan, Truncation, WriterRecord};

use crate::operations::NAME_SIZE_MAX;

/// Bytes of file content in one sealed frame, unless the file says otherwise: a random 4 KiB read decrypts no more.
pub const FRAME_SIZE: usize = 32 * 1024;
/// No file has larger frames.
pub const FRAME_SIZE_MAX: usize = 128 * 1024;
/// Frames and nodes written together share objects of at most this size: one put each.
pub const OBJECT_SIZE_MAX: usize = 1024 * 1024;
/// A frame whose content is no longer than this lives in its leaf.
pub const INLINE_SIZE_MAX: usize = 2 * 1024;
/// A tree node above this plaintext size is split.
pub const NODE_SIZE_MAX: usize = 16 * 1024;
/// No node is longer: one entry may hold an extended attribute of 64 KiB, beside others.
pub const NODE_SIZE_LIMIT: usize = 256 * 1024;
/// The longest key: an entry with the longest name.
pub const KEY_SIZE_MAX: usize = 9 + 8 + NAME_SIZE_MAX;
/// Hashes of names keep this many bits, so that a hash and a small index fit a positive `readdir` cookie.
pub const NAME_HASH_BITS: u32 = 56;
/// What sealing adds to the padded content: its length and GCM's tag.
pub const SEAL_OVERHEAD: usize = 4 + 16;

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
    /// How many sealed bytes there are.
    pub length: u32,
    /// The AES-256-GCM key that sealed them, and nothing else.
    pub key: [u8; 32],
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

/// Bytes of a pointer with its address.
pub const POINTER_SIZE: usize = 73;

impl Pointer {
    /// Appends the pointer; `same_object` leaves the address out.
    pub fn encode(&self, same_object: bool, out: &mut Vec<u8>) {
        out.push(u8::from(!same_object));
        out.extend_from_slice(&self.offset.to_le_bytes());
        out.extend_from_slice(&self.length.to_le_bytes());
        out.extend_from_slice(&self.key);
        if !same_object {
            out.extend_from_slice(&self.address);
        }
    }

    /// Reads a pointer that was found in the object `home`.
    pub fn decode(bytes: &[u8], home: &[u8; 32]) -> Option<Pointer> {
        let address = match (bytes.first()?, bytes.len()) {
            (0, 41) => *home,
            (1, POINTER_SIZE) => bytes[41..73].try_into().ok()?,
            _ => return None,
        };
        let pointer = Pointer {
            address,
            offset: u32::from_le_bytes(bytes[1..5].try_into().ok()?),
            length: u32::from_le_bytes(bytes[5..9].try_into().ok()?),
            key: bytes[9..41].try_into().ok()?,
        };
        // Sizes what is fetched and allocated next, so it is bounded here.
        let fits = pointer.offset as usize <= OBJECT_LENGTH_MAX
            && pointer.length as usize >= SEAL_OVERHEAD
            && pointer.offset as usize + pointer.length as usize <= OBJECT_LENGTH_MAX;
        fits.then_some(pointer)
    }
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
        let pointer = Pointer { address: [7; 32], offset: 10, length: 100, key: [9; 32] };
        let (mut near, mut far) = (Vec::new(), Vec::new());
        pointer.encode(true, &mut near);
        pointer.encode(false, &mut far);
        assert_eq!((near.len(), far.len()), (41, POINTER_SIZE));
        assert_eq!(Pointer::decode(&near, &[7; 32]), Some(pointer));
        assert_eq!(Pointer::decode(&far, &[1; 32]), Some(pointer));
    }
}
