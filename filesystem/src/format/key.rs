//! Keys: what a tree maps, and in which order.
//!
//! A key begins with the number of the inode that it belongs to, then its kind, so that all of one small file lies in one
//! leaf: its attributes, its extended attributes, its content. A directory's names lie together likewise. What belongs
//! to no inode but to the volume is kept under inode 0, which is no inode: that range is called the *table*.
//!
//! | key | bytes | value |
//! | --- | --- | --- |
//! | inode | `inode u64, 1` | [`InodeRecord`](super::InodeRecord) |
//! | xattr | `inode u64, 2, name` | `1, value` |
//! | entry | `directory u64, 3, hash u64, name` | [`EntryRecord`](super::EntryRecord) |
//! | extent | `inode u64, 4, frame u64` | a [`Pointer`](super::Pointer), or `2, bytes` for a tiny frame |
//! | object | `0 u64, 0, birth u64, address 32` | [`ObjectRecord`](super::ObjectRecord) |
//! | writer | `0 u64, 1, device u64` | [`WriterRecord`](super::WriterRecord) |
//! | orphan | `0 u64, 2, inode u64` | [`Orphan`](super::Orphan) |
//! | truncation | `0 u64, 3, inode u64` | [`Truncation`](super::Truncation) |
//! | snapshot | `0 u64, 4, snapshot u64` | [`SnapshotRecord`](super::SnapshotRecord) |
//! | session | `0 u64, 7, session u64` | [`SessionRecord`](super::SessionRecord) |
//!
//! Only an extent's value may be a pointer that leaves its address out: a version that does not know a kind can move its
//! values to another object as they are.
//!
//! Kinds 5 to 31 of an inode, and of the table 6 (access lists) and others up to 31, are reserved:
//! this version passes over them. Numbers in keys are big-endian, so that comparing bytes compares keys; the order of
//! [`Key`] is the same, which a test holds together.

use std::cmp::Ordering;

use bytes::Bytes;
use smallvec::SmallVec;

use super::ObjectId;
use crate::operations::NAME_SIZE_MAX;

/// The owner of what belongs to the volume as a whole.
const TABLE: u64 = 0;

const INODE: u8 = 1;
const XATTR: u8 = 2;
const ENTRY: u8 = 3;
const EXTENT: u8 = 4;

const WRITER: u8 = 1;
const ORPHAN: u8 = 2;
const TRUNCATION: u8 = 3;
const SNAPSHOT: u8 = 4;
/// The first: the newest records lie beside the writers' and inode 1, where each commit writes anyway.
const OBJECT: u8 = 0;
const SESSION: u8 = 7;

/// An encoded key. Most fit inline.
pub type KeyBytes = SmallVec<[u8; 40]>;

/// A key of the tree; its order is the order of its bytes.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Key {
    /// What a writer has committed, by its device.
    Writer(u64),
    /// An inode that has no name and was open.
    Orphan(u64),
    /// An inode whose content is being removed piece by piece.
    Truncation(u64),
    /// A tree that was the volume's once, by a random number.
    Snapshot(u64),
    /// How much of an object is pointed to.
    Object(ObjectId),
    /// A mount that writes, by its session.
    Session(u64),
    /// A node's attributes.
    Inode(u64),
    /// An extended attribute.
    Xattr(u64, Bytes),
    /// A name in a directory, after its hash.
    Entry(u64, u64, Bytes),
    /// A frame of a file, by index.
    Extent(u64, u64),
}

impl Key {
    /// Returns the owner that the key's bytes begin with.
    #[inline]
    fn number_of_owner(&self) -> u64 {
        match self {
            Key::Writer(_)
            | Key::Orphan(_)
            | Key::Truncation(_)
            | Key::Snapshot(_)
            | Key::Object(_)
            | Key::Session(_) => TABLE,
            Key::Inode(inode) | Key::Xattr(inode, _) | Key::Entry(inode, ..) | Key::Extent(inode, _) => {
                *inode
            }
        }
    }

    /// Returns the owner and the kind that the key's bytes begin with.
    fn place(&self) -> (u64, u8) {
        let kind = match self {
            Key::Writer(_) => WRITER,
            Key::Orphan(_) => ORPHAN,
            Key::Truncation(_) => TRUNCATION,
            Key::Snapshot(_) => SNAPSHOT,
            Key::Object(_) => OBJECT,
            Key::Session(_) => SESSION,
            Key::Inode(_) => INODE,
            Key::Xattr(..) => XATTR,
            Key::Entry(..) => ENTRY,
            Key::Extent(..) => EXTENT,
        };
        (self.number_of_owner(), kind)
    }

    /// Returns the number and the name that tell apart keys of one owner and kind.
    fn rest(&self) -> (Option<u64>, &[u8]) {
        match self {
            Key::Writer(number)
            | Key::Orphan(number)
            | Key::Truncation(number)
            | Key::Snapshot(number)
            | Key::Session(number) => (Some(*number), &[]),
            Key::Object(object) => (Some(object.birth), &object.address),
            Key::Inode(_) => (None, &[]),
            Key::Xattr(_, name) => (None, name),
            Key::Entry(_, hash, name) => (Some(*hash), name),
            Key::Extent(_, frame) => (Some(*frame), &[]),
        }
    }

    /// Returns the inode that the key lies with, if it lies with one.
    pub fn owner(&self) -> Option<u64> {
        Some(self.place().0).filter(|owner| *owner != TABLE)
    }

    /// Returns what is the same key of inode `to`.
    pub fn moved(&self, to: u64) -> Key {
        match self {
            Key::Writer(device) => Key::Writer(*device),
            Key::Session(session) => Key::Session(*session),
            Key::Orphan(_) => Key::Orphan(to),
            Key::Truncation(_) => Key::Truncation(to),
            Key::Snapshot(number) => Key::Snapshot(*number),
            Key::Object(object) => Key::Object(*object),
            Key::Inode(_) => Key::Inode(to),
            Key::Xattr(_, name) => Key::Xattr(to, name.clone()),
            Key::Entry(_, hash, name) => Key::Entry(to, *hash, name.clone()),
            Key::Extent(_, frame) => Key::Extent(to, *frame),
        }
    }

    /// Writes the key's bytes.
    pub fn encode(&self) -> KeyBytes {
        let mut bytes = KeyBytes::new();
        let (owner, kind) = self.place();
        let (number, name) = self.rest();
        bytes.extend_from_slice(&owner.to_be_bytes());
        bytes.push(kind);
        if let Some(number) = number {
            bytes.extend_from_slice(&number.to_be_bytes());
        }
        bytes.extend_from_slice(name);
        bytes
    }

    /// Reads a key; names share `bytes`. `None` for what is malformed or of a kind that this version does not know.
    pub fn decode(bytes: &Bytes) -> Option<Key> {
        let number = |at: usize| Some(u64::from_be_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
        let exact = |size: usize, key: Key| (bytes.len() == size).then_some(key);
        let name = |at: usize| {
            let name = bytes.slice(at..);
            (!name.is_empty() && name.len() <= NAME_SIZE_MAX).then_some(name)
        };
        match (number(0)?, *bytes.get(8)?) {
            (TABLE, WRITER) => exact(17, Key::Writer(number(9)?)),
            (TABLE, ORPHAN) => exact(17, Key::Orphan(number(9)?)),
            (TABLE, TRUNCATION) => exact(17, Key::Truncation(number(9)?)),
            (TABLE, SNAPSHOT) => exact(17, Key::Snapshot(number(9)?)),
            (TABLE, OBJECT) => {
                let address = bytes.get(17..)?.try_into().ok()?;
                Some(Key::Object(ObjectId { birth: number(9)?, address }))
            }
            (TABLE, SESSION) => exact(17, Key::Session(number(9)?)),
            (TABLE, _) => None,
            (inode, INODE) => exact(9, Key::Inode(inode)),
            (inode, XATTR) => Some(Key::Xattr(inode, name(9)?)),
            (inode, ENTRY) => Some(Key::Entry(inode, number(9)?, name(17)?)),
            (inode, EXTENT) => exact(17, Key::Extent(inode, number(9)?)),
            _ => None,
        }
    }

    /// Whether `bytes` is a key of a kind that a later version may have written: scans pass over it, and it stays.
    pub fn is_of_unknown_kind(bytes: &[u8]) -> bool {
        let Some((owner, [kind, ..])) = bytes.split_first_chunk::<8>() else { return false };
        match u64::from_be_bytes(*owner) {
            TABLE => !matches!(*kind, WRITER | ORPHAN | TRUNCATION | SNAPSHOT | OBJECT | SESSION),
            _ => !matches!(*kind, INODE | XATTR | ENTRY | EXTENT),
        }
    }

    /// Whether the value of the key `bytes` may be a pointer without an address, which only means something in the object
    /// that it lies in: whoever moves the value to another object has to put the address in.
    pub fn may_hold_pointer(bytes: &[u8]) -> bool {
        match bytes.split_first_chunk::<8>() {
            Some((owner, [kind, ..])) => u64::from_be_bytes(*owner) != TABLE && *kind == EXTENT,
            _ => false,
        }
    }

    /// Returns the least key above this one.
    pub fn successor(&self) -> Key {
        let longer = |name: &Bytes| Bytes::from([name.as_ref(), &[0]].concat());
        match self {
            Key::Writer(device) => device.checked_add(1).map_or(Key::Orphan(0), Key::Writer),
            Key::Orphan(inode) => inode.checked_add(1).map_or(Key::Truncation(0), Key::Orphan),
            Key::Object(object) => object.successor().map_or(Key::Writer(0), Key::Object),
            Key::Truncation(inode) => inode.checked_add(1).map_or(Key::Snapshot(0), Key::Truncation),
            Key::Snapshot(number) => number.checked_add(1).map_or(Key::Session(0), Key::Snapshot),
            Key::Session(session) => session.checked_add(1).map_or(Key::Inode(1), Key::Session),
            Key::Inode(inode) => Key::Xattr(*inode, Bytes::new()),
            Key::Xattr(inode, name) => Key::Xattr(*inode, longer(name)),
            Key::Entry(directory, hash, name) => Key::Entry(*directory, *hash, longer(name)),
            Key::Extent(inode, frame) => match frame.checked_add(1) {
                Some(next) => Key::Extent(*inode, next),
                None => Key::Inode(inode.saturating_add(1)),
            },
        }
    }
}

impl Ord for Key {
    #[inline]
    fn cmp(&self, other: &Key) -> Ordering {
        // Of the keys that a search in a large delta meets nearly all are other inodes'.
        match self.number_of_owner().cmp(&other.number_of_owner()) {
            Ordering::Equal => self.place().cmp(&other.place()).then_with(|| self.rest().cmp(&other.rest())),
            unequal => unequal,
        }
    }
}

impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Key) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn keys() -> impl Strategy<Value = Key> {
        let name = || proptest::collection::vec(1u8.., 1..40).prop_map(Bytes::from);
        let number = || prop_oneof![0u64..4, any::<u64>()];
        let inode = || prop_oneof![1u64..4, 1u64..];
        prop_oneof![
            number().prop_map(Key::Writer),
            number().prop_map(Key::Orphan),
            number().prop_map(Key::Truncation),
            number().prop_map(Key::Snapshot),
            (number(), prop_oneof![Just([0; 32]), Just([0xff; 32]), any::<[u8; 32]>()])
                .prop_map(|(birth, address)| Key::Object(ObjectId { birth, address })),
            number().prop_map(Key::Session),
            inode().prop_map(Key::Inode),
            (inode(), name()).prop_map(|(i, n)| Key::Xattr(i, n)),
            (inode(), number(), name()).prop_map(|(d, h, n)| Key::Entry(d, h, n)),
            (inode(), number()).prop_map(|(i, f)| Key::Extent(i, f)),
        ]
    }

    proptest! {
        #[test]
        fn bytes_order_as_keys_do(a in keys(), b in keys()) {
            prop_assert_eq!(a.cmp(&b), a.encode().cmp(&b.encode()));
            let bytes = Bytes::copy_from_slice(&a.encode());
            prop_assert!(!Key::is_of_unknown_kind(&bytes));
            prop_assert_eq!(Key::decode(&bytes), Some(a));
        }

        #[test]
        fn nothing_lies_between_a_key_and_its_successor(a in keys(), b in keys()) {
            prop_assert!(a < a.successor());
            prop_assert!(b <= a || b >= a.successor());
        }

        #[test]
        fn a_key_moves_to_another_inode_and_back(a in keys(), to in 1u64..) {
            let Some(inode) = a.rest().0.filter(|_| a.place().0 == TABLE).or((a.place().0 != TABLE).then_some(a.place().0))
            else { return Ok(()) };
            prop_assert_eq!(a.moved(to).moved(inode), a);
        }

        #[test]
        fn any_bytes_are_a_key_or_none(bytes in proptest::collection::vec(any::<u8>(), 0..120)) {
            let bytes = Bytes::from(bytes);
            if Key::is_of_unknown_kind(&bytes) {
                prop_assert_eq!(Key::decode(&bytes), None);
            }
        }
    }

    #[test]
    fn what_belongs_to_one_inode_lies_together() {
        let name = Bytes::from_static(b"name");
        let mut keys = [
            Key::Inode(8),
            Key::Extent(7, 3),
            Key::Orphan(u64::MAX),
            Key::Entry(7, 9, name.clone()),
            Key::Inode(7),
            Key::Xattr(7, name),
        ];
        keys.sort();
        let owners: Vec<u64> = keys.iter().map(|key| key.place().0).collect();
        assert_eq!(owners, [0, 7, 7, 7, 7, 8]);
        assert_eq!(keys[1], Key::Inode(7));
    }
}
