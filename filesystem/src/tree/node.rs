//! A tree node's bytes: sorted entries, keys and values as they lie in the decrypted chunk.
//!
//! Decoding checks every bound and the order once and keeps offsets; lookups then compare bytes in place and values are
//! slices of the chunk, so that a cached node costs its bytes and four more for each entry.
//!
//! Layout: `1, level u8, entry count u16`, then for each entry `key size u16, value size u32, key, value`. A leaf has
//! level 0. In a node above, an entry is a child: the smallest key that its subtree may hold, and a pointer. Nothing here
//! fetches or seals.

use bytes::Bytes;

use crate::format::{KEY_SIZE_MAX, NODE_SIZE_LIMIT, Pointer};

const HEADER_SIZE: usize = 4;
const ENTRY_HEADER_SIZE: usize = 6;

/// The greatest height: with a fan-out of at least 2 this is more keys than there can be.
pub const LEVEL_MAX: u8 = 32;

/// The bytes are no node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a tree node is malformed: {0}")]
pub struct Malformed(&'static str);

/// A decoded node.
#[derive(Debug)]
pub struct Node {
    bytes: Bytes,
    /// Where each entry starts.
    offsets: Vec<u32>,
    level: u8,
    /// The object that the node was found in.
    home: [u8; 32],
}

impl Node {
    /// Checks and indexes a node's bytes; `home` is the object that they were found in.
    ///
    /// # Errors
    ///
    /// [`Malformed`] if a bound, the order of keys or a child's pointer is wrong.
    pub fn decode(bytes: Bytes, home: [u8; 32]) -> Result<Node, Malformed> {
        if bytes.len() > NODE_SIZE_LIMIT || bytes.len() < HEADER_SIZE || bytes[0] != 1 {
            return Err(Malformed("its size or version"));
        }
        let level = bytes[1];
        let count = usize::from(u16::from_le_bytes([bytes[2], bytes[3]]));
        if level > LEVEL_MAX || count * ENTRY_HEADER_SIZE > bytes.len() {
            return Err(Malformed("its level or entry count"));
        }
        let mut offsets = Vec::with_capacity(count);
        let mut at = HEADER_SIZE;
        let mut previous: Option<&[u8]> = None;
        for _ in 0..count {
            let (key, value, next) = entry_at(&bytes, at).ok_or(Malformed("an entry's bounds"))?;
            if key.len() > KEY_SIZE_MAX || previous.is_some_and(|previous| previous >= key) {
                return Err(Malformed("the order of keys"));
            }
            if level > 0 && Pointer::decode(value, &home).is_none() {
                return Err(Malformed("a child's pointer"));
            }
            previous = Some(key);
            offsets.push(at as u32);
            at = next;
        }
        if at != bytes.len() || (level > 0 && count == 0) {
            return Err(Malformed("its end"));
        }
        Ok(Node { bytes, offsets, level, home })
    }

    /// Returns 0 for a leaf, and one more for each level above.
    pub fn level(&self) -> u8 {
        self.level
    }

    /// Returns the object that the node was found in: pointers without an address mean it.
    pub fn home(&self) -> &[u8; 32] {
        &self.home
    }

    /// Returns how many entries there are.
    pub fn len(&self) -> usize {
        self.offsets.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.offsets.is_empty()
    }

    /// Returns the memory that the node takes, for the cache's bound.
    pub fn size_bytes(&self) -> usize {
        self.bytes.len() + self.offsets.len() * 4 + 64
    }

    /// Returns the key at `index`.
    pub fn key(&self, index: usize) -> &[u8] {
        self.raw(index).0
    }

    /// Returns the value at `index`.
    pub fn value(&self, index: usize) -> &[u8] {
        self.raw(index).1
    }

    /// Returns the entry at `index` as it is written in a node.
    pub(super) fn encoded(&self, index: usize) -> &[u8] {
        let end = self.offsets.get(index + 1).map_or(self.bytes.len(), |end| *end as usize);
        &self.bytes[self.offsets[index] as usize..end]
    }

    /// Returns the key at `index`, sharing the node's bytes.
    pub fn shared_key(&self, index: usize) -> Bytes {
        self.bytes.slice_ref(self.raw(index).0)
    }

    /// Returns the value at `index`, sharing the node's bytes.
    pub fn shared_value(&self, index: usize) -> Bytes {
        self.bytes.slice_ref(self.raw(index).1)
    }

    /// Returns the child at `index` of a node above the leaves.
    pub fn child(&self, index: usize) -> Option<Pointer> {
        Pointer::decode(self.value(index), &self.home)
    }

    /// Returns where `key` is, or where it would be.
    pub fn search(&self, key: &[u8]) -> Result<usize, usize> {
        self.offsets.binary_search_by(|&at| {
            let at = at as usize;
            let size = usize::from(u16::from_le_bytes([self.bytes[at], self.bytes[at + 1]]));
            self.bytes[at + ENTRY_HEADER_SIZE..at + ENTRY_HEADER_SIZE + size].cmp(key)
        })
    }

    /// Returns the index of the child whose subtree may hold `key`.
    pub fn child_index(&self, key: &[u8]) -> usize {
        match self.search(key) {
            Ok(index) => index,
            // A key below the first separator belongs to the first child.
            Err(index) => index.saturating_sub(1),
        }
    }

    fn raw(&self, index: usize) -> (&[u8], &[u8]) {
        let (key, value, _) = entry_at(&self.bytes, self.offsets[index] as usize).expect("decode checked it");
        (key, value)
    }
}

fn entry_at(bytes: &[u8], at: usize) -> Option<(&[u8], &[u8], usize)> {
    let header = bytes.get(at..at + ENTRY_HEADER_SIZE)?;
    let key_size = usize::from(u16::from_le_bytes([header[0], header[1]]));
    let value_size = u32::from_le_bytes([header[2], header[3], header[4], header[5]]) as usize;
    let key_at = at + ENTRY_HEADER_SIZE;
    let value_at = key_at + key_size;
    let end = value_at.checked_add(value_size)?;
    Some((bytes.get(key_at..value_at)?, bytes.get(value_at..end)?, end))
}

/// Writes a node, entry by entry, in ascending order of keys.
#[derive(Debug)]
pub struct NodeWriter {
    bytes: Vec<u8>,
    /// Where each entry starts.
    offsets: Vec<u32>,
    level: u8,
}

impl NodeWriter {
    /// Starts a node of `level`.
    pub fn new(level: u8, capacity: usize) -> NodeWriter {
        let mut bytes = Vec::with_capacity(capacity);
        bytes.extend_from_slice(&[1, level, 0, 0]);
        NodeWriter { bytes, offsets: Vec::new(), level }
    }

    /// Appends an entry whose value `write` appends.
    pub fn push(&mut self, key: &[u8], write: impl FnOnce(&mut Vec<u8>)) {
        self.offsets.push(self.bytes.len() as u32);
        self.bytes.extend_from_slice(&(key.len() as u16).to_le_bytes());
        let size_at = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 4]);
        self.bytes.extend_from_slice(key);
        let value_at = self.bytes.len();
        write(&mut self.bytes);
        let value_size = (self.bytes.len() - value_at) as u32;
        self.bytes[size_at..size_at + 4].copy_from_slice(&value_size.to_le_bytes());
    }

    /// Appends an entry as it lies in another node.
    pub(super) fn push_encoded(&mut self, entry: &[u8]) {
        self.offsets.push(self.bytes.len() as u32);
        self.bytes.extend_from_slice(entry);
    }

    /// Returns the node's bytes.
    ///
    /// # Panics
    ///
    /// If a node has more than 65,535 entries: their sizes forbid it.
    pub fn finish(self) -> Vec<u8> {
        self.finish_indexed().0
    }

    /// Returns the node's bytes, and where in them each entry starts.
    fn finish_indexed(mut self) -> (Vec<u8>, Vec<u32>) {
        let count = u16::try_from(self.offsets.len()).expect("a node's size bounds its entries");
        self.bytes[2..4].copy_from_slice(&count.to_le_bytes());
        (self.bytes, self.offsets)
    }

    /// Returns the node, whose object has no name yet.
    ///
    /// # Panics
    ///
    /// As [`NodeWriter::finish`].
    pub(super) fn finish_unplaced(self) -> Unplaced {
        let level = self.level;
        let (bytes, offsets) = self.finish_indexed();
        Unplaced { bytes: bytes.into(), offsets, level }
    }
}

/// A node that was written just now, in an object that has no name yet.
#[derive(Debug)]
pub struct Unplaced {
    bytes: Bytes,
    offsets: Vec<u32>,
    level: u8,
}

impl Unplaced {
    /// Returns the node's bytes.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Returns the node as it lies in the object `home`: what [`Node::decode`] makes of its bytes, with the offsets that the
    /// writer knows.
    ///
    /// # Errors
    ///
    /// [`Malformed`] if no reader would take it. Nobody may publish it then.
    pub fn placed(self, home: [u8; 32]) -> Result<Node, Malformed> {
        let Unplaced { bytes, offsets, level } = self;
        let node = Node { bytes, offsets, level, home };
        if node.bytes.len() > NODE_SIZE_LIMIT || level > LEVEL_MAX || (level > 0 && node.is_empty()) {
            return Err(Malformed("its size or level"));
        }
        let is_in_order = |index: usize| node.key(index - 1) < node.key(index);
        if !(1..node.len()).all(is_in_order) {
            return Err(Malformed("the order of keys"));
        }
        Ok(node)
    }
}

/// Returns how many bytes an entry takes in a node.
pub fn entry_size(key_size: usize, value_size: usize) -> usize {
    ENTRY_HEADER_SIZE + key_size + value_size
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn leaf(entries: &[(&[u8], &[u8])]) -> Bytes {
        let mut writer = NodeWriter::new(0, 64);
        for (key, value) in entries {
            writer.push(key, |out| out.extend_from_slice(value));
        }
        Bytes::from(writer.finish())
    }

    #[test]
    fn a_leaf_finds_what_was_written() {
        let node = Node::decode(leaf(&[(b"a", b"1"), (b"c", b""), (b"d", b"three")]), [0; 32]).unwrap();
        assert_eq!((node.len(), node.level()), (3, 0));
        assert_eq!(node.search(b"c"), Ok(1));
        assert_eq!(node.search(b"b"), Err(1));
        assert_eq!(node.shared_value(2), "three");
    }

    #[test]
    fn keys_out_of_order_are_refused() {
        assert!(Node::decode(leaf(&[(b"b", b""), (b"a", b"")]), [0; 32]).is_err());
        assert!(Node::decode(leaf(&[(b"a", b""), (b"a", b"")]), [0; 32]).is_err());
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = Node::decode(Bytes::from(bytes), [0; 32]);
        }

        #[test]
        fn a_damaged_node_never_panics(at in 0usize..60, bit in 0u8..8) {
            let mut bytes = leaf(&[(b"key1", b"value"), (b"key2", b"value"), (b"key3", b"value")]).to_vec();
            let at = at % bytes.len();
            bytes[at] ^= 1 << bit;
            if let Ok(node) = Node::decode(Bytes::from(bytes), [0; 32]) {
                for index in 0..node.len() {
                    let _ = (node.key(index), node.value(index));
                }
            }
        }
    }
}
