//! Walks a tree and counts how much of each object it points to: what its records and the root's list must say together.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use dht::{Address, BlockStore, MemoryBlockStore};
use filesystem::VolumeKeys;
use filesystem::access::{Root, RootError, open_root};
use filesystem::chunk::{Binding, ChunkKind, open_run};
use filesystem::format::{Key, ObjectId, ObjectRecord, Pointer};
use filesystem::tree::node::Node;

/// What a tree has.
#[derive(Default)]
pub(crate) struct Counted {
    /// Counted by walking.
    pub(crate) live_bytes: BTreeMap<ObjectId, u64>,
    /// What it says.
    pub(crate) records: BTreeMap<ObjectId, ObjectRecord>,
    /// Where each frame lies that is not in a leaf.
    pub(crate) extents: Vec<Pointer>,
}

impl Counted {
    fn point_to(&mut self, pointer: &Pointer) {
        *self.live_bytes.entry(ObjectId::from(pointer)).or_default() += u64::from(pointer.length);
    }

    fn take_leaf(&mut self, node: &Node) {
        for index in 0..node.len() {
            match Key::decode(&node.shared_key(index)) {
                Some(Key::Extent(..)) if node.value(index).first() != Some(&2) => {
                    // What a later version sealed in its own way, it counts in its own way.
                    let Some(0 | 0x40 | 0x50 | 0x60) = node.value(index).get(1) else { continue };
                    let pointer = Pointer::decode(node.value(index), node.home()).expect("an extent");
                    self.point_to(&pointer);
                    self.extents.push(pointer);
                }
                Some(Key::Object(object)) => {
                    let record = ObjectRecord::decode(&node.shared_value(index)).expect("a record");
                    self.records.insert(object, record);
                }
                _ => {}
            }
        }
    }
}

/// Walks the tree of `root`.
pub(crate) fn count(store: &MemoryBlockStore, root: &Root) -> Counted {
    let mut counted = Counted::default();
    let mut left: Vec<Pointer> = root.tree.into_iter().collect();
    while let Some(pointer) = left.pop() {
        counted.point_to(&pointer);
        let range = pointer.offset..pointer.offset + pointer.length;
        let sealed: Bytes = store.get(&Address(pointer.address), Some(range)).expect("a node is there");
        let binding = Binding { kind: ChunkKind::Node, volume: root.charter.volume };
        let bytes =
            open_run(&binding, sealed, pointer.offset, &[pointer.into()]).expect("it opens").remove(0);
        let node = Node::decode(bytes, pointer.address).expect("it is a node");
        match node.level() {
            0 => counted.take_leaf(&node),
            _ => left.extend((0..node.len()).filter_map(|index| node.child(index))),
        }
    }
    counted
}

/// Checks that the newest root's records of objects are exact.
pub(crate) fn check(store: &MemoryBlockStore, keys: &VolumeKeys) {
    let Ok(Some(record)) = store.read(&keys.register) else { return };
    let root = match open_root(&record.payload, record.version, &keys.secret) {
        Ok(root) => root,
        Err(RootError::Newer { .. } | RootError::NotAReader) => return,
        Err(error) => panic!("the newest root does not open: {error}"),
    };
    let counted = count(store, &root);
    let objects: BTreeSet<ObjectId> = counted
        .live_bytes
        .keys()
        .chain(counted.records.keys())
        .chain(root.objects.0.keys())
        .copied()
        .collect();
    for object in objects {
        let walked = counted.live_bytes.get(&object).copied().unwrap_or(0);
        let recorded = counted.records.get(&object).map_or(Some(0), |record| record.live_bytes);
        let unfolded = root.objects.0.get(&object).map_or(0, |change| change.live_bytes);
        let said = recorded.and_then(|live| live.checked_add_signed(unfolded));
        assert_eq!(said, Some(walked), "of {object:?}, recorded {recorded:?}, unfolded {unfolded}");
        if let Some(record) = counted.records.get(&object) {
            assert_eq!(record.dead_seconds != 0, record.live_bytes == Some(0), "{object:?}");
            assert_eq!(record.dead_version != 0, record.live_bytes == Some(0), "{object:?}");
        }
    }
}
