//! What was fetched and decrypted, bounded in bytes, least recently used out first.
//!
//! Nodes and frames share one bound, so that whichever is needed takes the room. Chunks never change, so nothing here is
//! ever stale and nothing needs invalidating; what is replaced may go early. It is plain data: it fetches nothing.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hash, Hasher};
use std::rc::Rc;

use bytes::Bytes;

use crate::format::{Piece, Pointer, Tags};
use crate::tree::node::Node;

/// Names a chunk or a segment: where it lies, and what a pointer says of it. A writer who lies may let two pointers say
/// different things of one place, and neither's reader may get what the other asked for; so of a chunk with several tags the
/// others are compared too ([`Slot`]).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct ChunkId {
    address: [u8; 32],
    offset: u32,
    size: u32,
    tag: [u8; 16],
}

impl From<&Piece> for ChunkId {
    fn from(piece: &Piece) -> ChunkId {
        let address = piece.pointer().address;
        ChunkId { address, offset: piece.offset(), size: piece.size(), tag: piece.tag() }
    }
}

impl Hash for ChunkId {
    fn hash<H: Hasher>(&self, state: &mut H) {
        // An address is a hash already: nobody can choose its bits to collide.
        let [a, b, c, d, e, f, g, h, ..] = self.address;
        let number = u64::from_le_bytes([a, b, c, d, e, f, g, h]);
        state.write_u64(number ^ u64::from(self.offset).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    }
}

/// Passes a number through: for keys that are random or well spread already.
#[derive(Default, Clone, Copy, Debug)]
pub(crate) struct PassHasher(u64);

impl Hasher for PassHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    fn write_u64(&mut self, number: u64) {
        // The table takes its bits from both ends; inode numbers differ at the low end only.
        self.0 = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

/// A map keyed by numbers that are spread already.
pub(crate) type NumberMap<K, V> = HashMap<K, V, BuildHasherDefault<PassHasher>>;

/// What an entry takes beside its content.
const OVERHEAD_BYTES: usize = 288;

/// A decrypted chunk.
#[derive(Clone, Debug)]
pub(crate) enum Cached {
    /// A tree node.
    Node(Rc<Node>),
    /// A frame's content, or a segment's.
    Frame(Bytes),
}

impl Cached {
    fn size_bytes(&self) -> usize {
        // The slot, the table's entry, and the allocator's share.
        OVERHEAD_BYTES
            + match self {
                Cached::Node(node) => node.size_bytes(),
                Cached::Frame(bytes) => bytes.len(),
            }
    }
}

#[derive(Debug)]
struct Slot {
    id: ChunkId,
    /// Of the chunk that it is, or is of.
    tags: Tags,
    content: Cached,
    newer: u32,
    older: u32,
}

const NONE: u32 = u32::MAX;

/// The cache.
#[derive(Debug)]
pub(crate) struct Cache {
    index: NumberMap<ChunkId, u32>,
    slots: Vec<Slot>,
    free: Vec<u32>,
    newest: u32,
    oldest: u32,
    size_bytes: usize,
    size_bytes_max: usize,
}

impl Cache {
    /// An empty cache that will hold `size_bytes_max` at the most.
    pub(crate) fn new(size_bytes_max: usize) -> Cache {
        Cache {
            index: NumberMap::default(),
            slots: Vec::new(),
            free: Vec::new(),
            newest: NONE,
            oldest: NONE,
            size_bytes: 0,
            size_bytes_max,
        }
    }

    /// Returns the node at `pointer`, if it is here.
    pub(crate) fn node(&mut self, pointer: &Pointer) -> Option<Rc<Node>> {
        match self.touch(&Piece::from(*pointer))? {
            Cached::Node(node) => Some(node.clone()),
            Cached::Frame(_) => None,
        }
    }

    /// Returns the frame at `pointer`, if all of it is here.
    pub(crate) fn frame(&mut self, pointer: &Pointer) -> Option<Bytes> {
        self.content(&Piece::from(*pointer))
    }

    /// Returns a frame's or a segment's content, if that or the whole frame is here.
    pub(crate) fn piece(&mut self, piece: &Piece) -> Option<Bytes> {
        if !piece.is_segment() {
            return self.content(piece);
        }
        if let Some(frame) = self.frame(piece.pointer()) {
            let start = piece.start().min(frame.len());
            return Some(frame.slice(start..frame.len().min(start + piece.size() as usize)));
        }
        self.content(piece)
    }

    fn content(&mut self, piece: &Piece) -> Option<Bytes> {
        match self.touch(piece)? {
            Cached::Frame(bytes) => Some(bytes.clone()),
            Cached::Node(_) => None,
        }
    }

    /// Whether the chunk at `pointer` is here; does not count as a use.
    pub(crate) fn contains(&self, pointer: &Pointer) -> bool {
        self.index.contains_key(&ChunkId::from(&Piece::from(*pointer)))
    }

    /// Lets go of the chunk at `pointer`, or of its segments, as far as they are here: nothing points to it any more.
    pub(crate) fn remove(&mut self, pointer: &Pointer) {
        self.remove_piece(&Piece::from(*pointer));
        if let Some(segment_size) = pointer.tags.segment_size() {
            for start in (0..pointer.size as usize).step_by(segment_size) {
                Piece::covering(pointer, start, start + 1).for_each(|piece| self.remove_piece(&piece));
            }
        }
    }

    fn remove_piece(&mut self, piece: &Piece) {
        if let Some(&at) = self.index.get(&ChunkId::from(piece)) {
            self.evict(at);
        }
    }

    /// Returns the bytes that it holds at the most.
    pub(crate) fn size_bytes_max(&self) -> usize {
        self.size_bytes_max
    }

    /// Holds so much at the most from now on.
    pub(crate) fn set_size_bytes_max(&mut self, size_bytes_max: usize) {
        self.size_bytes_max = size_bytes_max;
        self.trim();
    }

    /// Returns the bytes held.
    #[cfg(test)]
    pub(crate) fn size_bytes(&self) -> usize {
        self.size_bytes
    }

    /// Takes a chunk or a segment in, and lets the least recently used go.
    pub(crate) fn insert(&mut self, piece: impl Into<Piece>, content: Cached) {
        let piece = piece.into();
        let (id, tags) = (ChunkId::from(&piece), piece.pointer().tags);
        if let Some(&at) = self.index.get(&id) {
            // In place of what is there: that may be a frame, and this the node that was asked for.
            let slot = &mut self.slots[at as usize];
            slot.tags = tags;
            self.size_bytes += content.size_bytes();
            self.size_bytes -= std::mem::replace(&mut slot.content, content).size_bytes();
            self.unlink(at);
            self.link_newest(at);
            self.trim();
            return;
        }
        self.size_bytes += content.size_bytes();
        let slot = Slot { id, tags, content, newer: NONE, older: NONE };
        let at = match self.free.pop() {
            Some(at) => {
                self.slots[at as usize] = slot;
                at
            }
            None => {
                self.slots.push(slot);
                (self.slots.len() - 1) as u32
            }
        };
        self.index.insert(id, at);
        self.link_newest(at);
        self.trim();
    }

    fn trim(&mut self) {
        // The newest stays even if it alone is too large: whoever asked for it is about to look.
        while self.size_bytes > self.size_bytes_max && self.oldest != self.newest {
            self.evict(self.oldest);
        }
    }

    fn evict(&mut self, at: u32) {
        self.unlink(at);
        let slot = &mut self.slots[at as usize];
        self.size_bytes -= slot.content.size_bytes();
        slot.content = Cached::Frame(Bytes::new());
        let id = slot.id;
        self.index.remove(&id);
        self.free.push(at);
    }

    fn touch(&mut self, piece: &Piece) -> Option<&Cached> {
        let at = *self.index.get(&ChunkId::from(piece))?;
        if !piece.is_segment() && self.slots[at as usize].tags != piece.pointer().tags {
            return None;
        }
        if at != self.newest {
            self.unlink(at);
            self.link_newest(at);
        }
        Some(&self.slots[at as usize].content)
    }

    fn unlink(&mut self, at: u32) {
        let (newer, older) = (self.slots[at as usize].newer, self.slots[at as usize].older);
        match newer {
            NONE => self.newest = older,
            newer => self.slots[newer as usize].older = older,
        }
        match older {
            NONE => self.oldest = newer,
            older => self.slots[older as usize].newer = newer,
        }
    }

    fn link_newest(&mut self, at: u32) {
        let newest = self.newest;
        self.slots[at as usize].older = newest;
        self.slots[at as usize].newer = NONE;
        match newest {
            NONE => self.oldest = at,
            newest => self.slots[newest as usize].newer = at,
        }
        self.newest = at;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pointer(number: u32) -> Pointer {
        Pointer::example([number as u8; 32], number, 100)
    }

    #[test]
    fn what_was_used_least_recently_goes_first() {
        let mut cache = Cache::new(3 * (1000 + OVERHEAD_BYTES));
        for number in 0..3 {
            cache.insert(pointer(number), Cached::Frame(Bytes::from(vec![number as u8; 1000])));
        }
        assert!(cache.frame(&pointer(0)).is_some());
        cache.insert(pointer(3), Cached::Frame(Bytes::from(vec![3; 1000])));
        let held: Vec<bool> = (0..4).map(|number| cache.contains(&pointer(number))).collect();
        assert_eq!(held, [true, false, true, true]);
        assert_eq!(cache.size_bytes(), 3 * (1000 + OVERHEAD_BYTES));
    }

    #[test]
    fn a_segment_is_found_alone_and_in_its_frame_and_never_under_anothers_tags() {
        let frame = |last: u8| {
            let mut tags = Tags::of_segments(32_768);
            (0..8).for_each(|index| tags.push([if index == 7 { last } else { index }; 16]));
            Pointer { length: 32_768, size: 32_768, tags, ..pointer(1) }
        };
        let segment = |last: u8, at: usize| Piece::covering(&frame(last), at, at + 1).next().unwrap();
        let content = Bytes::from((0..32_768u32).map(|at| (at >> 12) as u8).collect::<Vec<u8>>());
        let mut cache = Cache::new(1 << 20);
        cache.insert(segment(7, 4096), Cached::Frame(content.slice(4096..8192)));
        assert_eq!(cache.piece(&segment(7, 4096)), Some(content.slice(4096..8192)));
        assert_eq!((cache.piece(&segment(7, 0)), cache.frame(&frame(7))), (None, None));
        cache.insert(frame(7), Cached::Frame(content.clone()));
        assert_eq!(cache.piece(&segment(7, 8192)), Some(content.slice(8192..12_288)));
        // Another pointer to the same place, which differs in the last tag alone.
        assert_eq!((cache.frame(&frame(9)), cache.piece(&segment(9, 28_672))), (None, None));
        cache.remove(&frame(7));
        assert_eq!(
            (cache.size_bytes(), cache.piece(&segment(7, 4096))),
            (0, None),
            "its segments go with it"
        );
    }

    #[test]
    fn what_nothing_points_to_goes_at_once() {
        let mut cache = Cache::new(1 << 20);
        for number in 0..4 {
            cache.insert(pointer(number), Cached::Frame(Bytes::from(vec![number as u8; 1000])));
        }
        for gone in [2, 0, 3, 2] {
            cache.remove(&pointer(gone));
            assert!(!cache.contains(&pointer(gone)));
        }
        assert_eq!(cache.size_bytes(), 1000 + OVERHEAD_BYTES);
        assert_eq!(cache.frame(&pointer(1)), Some(Bytes::from(vec![1; 1000])));
        cache.insert(pointer(2), Cached::Frame(Bytes::from(vec![2; 10])));
        assert_eq!((cache.slots.len(), cache.frame(&pointer(2)).unwrap().len()), (4, 10), "in a free place");
        cache.remove(&pointer(1));
        cache.remove(&pointer(2));
        assert_eq!((cache.size_bytes(), cache.newest, cache.oldest), (0, NONE, NONE));
    }

    #[test]
    fn many_rounds_keep_the_bound() {
        let mut cache = Cache::new(100_000);
        for number in 0..10_000u32 {
            cache.insert(pointer(number % 700), Cached::Frame(Bytes::from(vec![0; (number % 900) as usize])));
            cache.frame(&pointer(number / 2 % 700));
            assert!(cache.size_bytes() <= 100_000);
        }
    }

    #[test]
    fn one_that_is_too_large_stays_until_the_next() {
        let mut cache = Cache::new(10);
        cache.insert(pointer(1), Cached::Frame(Bytes::from(vec![0; 1000])));
        assert!(cache.frame(&pointer(1)).is_some());
        cache.set_size_bytes_max(0);
        assert_eq!(cache.size_bytes(), 1000 + OVERHEAD_BYTES, "the newest stays");
        cache.insert(pointer(2), Cached::Frame(Bytes::new()));
        assert!(!cache.contains(&pointer(1)));
    }
}
