//! What a volume stores, byte by byte: keys, values, pointers, and the sizes that bound them.
//!
//! Keys are encoded so that comparing bytes compares keys: a one-byte kind, big-endian numbers, and a name last. The
//! enum's derived order is the same order, which a test holds together. Everything here is pure, and decoding takes
//! bytes from anyone: it returns `None` and never panics.
//!
//! | key | bytes | value |
//! | --- | --- | --- |
//! | inode | `1, inode u64` | [`InodeRecord`], 83 bytes |
//! | entry | `2, directory u64, hash u64, name` | `inode u64, kind u8` |
//! | extent | `3, inode u64, frame u64` | a [`Pointer`], or `2, bytes` for a tiny frame |
//! | xattr | `4, inode u64, name` | the value |
//! | orphan | `5, inode u64` | `device u64, seconds i64`: who kept it open, since when |
//!
//! Numbers in values are little-endian. A pointer is `1, offset u32, length u32, key 32, address 32`, or
//! `0, offset, length, key` for what lies in the same object as the node that points: only so can a parent and its
//! child share an object that is named by its hash.

use bytes::Bytes;
use smallvec::SmallVec;

use crate::operations::{Attributes, FileKind, Inode, NAME_SIZE_MAX, Time};

/// Bytes of file content in one sealed frame: a random 4 KiB read decrypts no more than this.
pub const FRAME_SIZE: usize = 32 * 1024;
/// Frames and nodes written together share objects of at most this size: one put each.
pub const OBJECT_SIZE_MAX: usize = 1024 * 1024;
/// A frame whose content is no longer than this lives in its leaf.
pub const INLINE_SIZE_MAX: usize = 2 * 1024;
/// A tree node above this plaintext size is split.
pub const NODE_SIZE_MAX: usize = 16 * 1024;
/// No node is longer: one entry may hold an extended attribute of 64 KiB, beside others.
pub const NODE_SIZE_LIMIT: usize = 256 * 1024;
/// The longest key: an entry with the longest name.
pub const KEY_SIZE_MAX: usize = 17 + NAME_SIZE_MAX;
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

/// An encoded key. Most fit inline.
pub type KeyBytes = SmallVec<[u8; 40]>;

/// A key of the tree; its order is the order of its bytes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Key {
    /// A node's attributes.
    Inode(u64),
    /// A name in a directory.
    Entry(u64, u64, Bytes),
    /// A frame of a file, by index.
    Extent(u64, u64),
    /// An extended attribute.
    Xattr(u64, Bytes),
    /// An inode that has no name and was open.
    Orphan(u64),
}

impl Key {
    /// Writes the key's bytes.
    pub fn encode(&self) -> KeyBytes {
        let mut bytes = KeyBytes::new();
        match self {
            Key::Inode(inode) => {
                bytes.push(1);
                bytes.extend_from_slice(&inode.to_be_bytes());
            }
            Key::Entry(directory, hash, name) => {
                bytes.push(2);
                bytes.extend_from_slice(&directory.to_be_bytes());
                bytes.extend_from_slice(&hash.to_be_bytes());
                bytes.extend_from_slice(name);
            }
            Key::Extent(inode, frame) => {
                bytes.push(3);
                bytes.extend_from_slice(&inode.to_be_bytes());
                bytes.extend_from_slice(&frame.to_be_bytes());
            }
            Key::Xattr(inode, name) => {
                bytes.push(4);
                bytes.extend_from_slice(&inode.to_be_bytes());
                bytes.extend_from_slice(name);
            }
            Key::Orphan(inode) => {
                bytes.push(5);
                bytes.extend_from_slice(&inode.to_be_bytes());
            }
        }
        bytes
    }

    /// Reads a key; names share `bytes`.
    pub fn decode(bytes: &Bytes) -> Option<Key> {
        let number = |at: usize| Some(u64::from_be_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
        let exact = |size: usize, key: Key| (bytes.len() == size).then_some(key);
        let name = |at: usize| {
            let name = bytes.slice(at..);
            (!name.is_empty() && name.len() <= NAME_SIZE_MAX).then_some(name)
        };
        match bytes.first()? {
            1 => exact(9, Key::Inode(number(1)?)),
            2 => Some(Key::Entry(number(1)?, number(9)?, name(17)?)),
            3 => exact(17, Key::Extent(number(1)?, number(9)?)),
            4 => Some(Key::Xattr(number(1)?, name(9)?)),
            5 => exact(9, Key::Orphan(number(1)?)),
            _ => None,
        }
    }
}

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

/// What the tree keeps of a node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct InodeRecord {
    /// What it is.
    pub kind: FileKind,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Names, or for a directory 2 and its sub-directories; 0 once it is removed.
    pub nlink: u32,
    /// Device number.
    pub rdev: u32,
    /// Bytes of content.
    pub size: u64,
    /// Frames that are no holes.
    pub frames: u64,
    /// The directory that it was last named in: `..` for a directory, a hint for others.
    pub parent: u64,
    /// Access time.
    pub atime: Time,
    /// Modification time.
    pub mtime: Time,
    /// Change time.
    pub ctime: Time,
}

impl InodeRecord {
    /// Writes the record.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.push(1);
        out.push(self.kind as u8);
        out.push(0);
        for number in [self.mode, self.uid, self.gid, self.nlink, self.rdev] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        for number in [self.size, self.frames, self.parent] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        for time in [self.atime, self.mtime, self.ctime] {
            out.extend_from_slice(&time.seconds.to_le_bytes());
            out.extend_from_slice(&time.nanoseconds.to_le_bytes());
        }
    }

    /// Reads a record.
    pub fn decode(bytes: &[u8]) -> Option<InodeRecord> {
        if bytes.len() != INODE_RECORD_SIZE || bytes[0] != 1 {
            return None;
        }
        let small = |index: usize| {
            u32::from_le_bytes(bytes[3 + index * 4..7 + index * 4].try_into().unwrap_or_default())
        };
        let large = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap_or_default());
        let time = |index: usize| {
            let at = 47 + index * 12;
            let nanoseconds = u32::from_le_bytes(bytes[at + 8..at + 12].try_into().unwrap_or_default());
            Time { seconds: large(at) as i64, nanoseconds: nanoseconds.min(999_999_999) }
        };
        Some(InodeRecord {
            kind: FileKind::from_byte(bytes[1])?,
            mode: small(0) & 0o7777,
            uid: small(1),
            gid: small(2),
            nlink: small(3),
            rdev: small(4),
            size: large(23),
            frames: large(31),
            parent: large(39),
            atime: time(0),
            mtime: time(1),
            ctime: time(2),
        })
    }

    /// Returns what `stat` shows of it.
    pub fn attributes(&self, inode: u64) -> Attributes {
        let frame_blocks = self.frames.saturating_mul(FRAME_SIZE as u64 / 512);
        Attributes {
            inode: Inode(inode),
            kind: self.kind,
            mode: self.mode,
            uid: self.uid,
            gid: self.gid,
            nlink: self.nlink,
            size: self.size,
            // The last frame is rarely full, and what `du` shows should be near what was written.
            blocks_512: frame_blocks.min(self.size.div_ceil(4096).saturating_mul(8)),
            atime: self.atime,
            mtime: self.mtime,
            ctime: self.ctime,
            rdev: self.rdev,
        }
    }
}

/// Bytes of an encoded [`InodeRecord`].
pub const INODE_RECORD_SIZE: usize = 3 + 5 * 4 + 3 * 8 + 3 * 12;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn keys() -> impl Strategy<Value = Key> {
        let name = || proptest::collection::vec(1u8.., 1..40).prop_map(Bytes::from);
        let number = || prop_oneof![0u64..4, any::<u64>()];
        prop_oneof![
            number().prop_map(Key::Inode),
            (number(), number(), name()).prop_map(|(d, h, n)| Key::Entry(d, h, n)),
            (number(), number()).prop_map(|(i, f)| Key::Extent(i, f)),
            (number(), name()).prop_map(|(i, n)| Key::Xattr(i, n)),
            number().prop_map(Key::Orphan),
        ]
    }

    proptest! {
        #[test]
        fn bytes_order_as_keys_do(a in keys(), b in keys()) {
            prop_assert_eq!(a.cmp(&b), a.encode().cmp(&b.encode()));
            prop_assert_eq!(Key::decode(&Bytes::copy_from_slice(&a.encode())), Some(a));
        }

        #[test]
        fn any_bytes_decode_to_something_or_nothing(bytes in proptest::collection::vec(any::<u8>(), 0..120)) {
            let bytes = Bytes::from(bytes);
            let _ = Key::decode(&bytes);
            let _ = Pointer::decode(&bytes, &[0; 32]);
            let _ = InodeRecord::decode(&bytes);
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
    fn a_record_survives_encoding() {
        let time = Time { seconds: -5, nanoseconds: 7 };
        let record = InodeRecord {
            kind: FileKind::Symlink,
            mode: 0o4755,
            uid: 1,
            gid: 2,
            nlink: 3,
            rdev: 4,
            size: 5,
            frames: 6,
            parent: 7,
            atime: time,
            mtime: Time::default(),
            ctime: time,
        };
        let mut bytes = Vec::new();
        record.encode(&mut bytes);
        assert_eq!(bytes.len(), INODE_RECORD_SIZE);
        assert_eq!(InodeRecord::decode(&bytes), Some(record));
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
