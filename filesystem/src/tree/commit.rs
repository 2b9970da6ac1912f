//! Merging sorted changes into a tree: new nodes for what changed, the old ones for all else.
//!
//! The cost follows the changes, not the tree: only the paths to changed leaves are read and written again. Neighbours
//! that are rewritten together are packed evenly, and a run of entries too small for a node of its own takes the
//! neighbour in, so nodes stay between a quarter and full but at a subtree's edges. New nodes go to a [`Packer`], children
//! before parents, mostly into one object; no node is stored before its children are, because whoever publishes the root
//! stores all objects first.

use std::rc::Rc;

use bytes::Bytes;

use super::Nodes;
use super::node::{Node, NodeWriter, entry_size};
use crate::chunk::{ChunkKind, Location, Packer};
use crate::format::{Key, NODE_SIZE_MAX, ObjectChanges, POINTER_SIZE, Pointer};

/// A run of entries below this size takes in a neighbour.
const NODE_SIZE_MIN: usize = NODE_SIZE_MAX / 4;
/// What a split fills nodes to: room for some growth, little waste.
const NODE_SIZE_TARGET: usize = NODE_SIZE_MAX * 3 / 4;

/// A value as it goes into a node.
#[derive(Clone, Debug)]
pub enum Value {
    /// Bytes to be stored as they are.
    Raw(Bytes),
    /// A pointer to a chunk of an object that is stored already.
    Pointer(Pointer),
    /// A pointer to a chunk of this very commit.
    Chunk(Location),
}

/// A change of one key: a new value, or its removal.
#[derive(Debug)]
pub struct Change {
    /// The encoded key.
    pub key: Bytes,
    /// `None` removes it.
    pub value: Option<Value>,
}

#[derive(Clone, Debug)]
struct Entry {
    key: Bytes,
    value: Value,
}

impl Entry {
    fn size(&self) -> usize {
        let value_size = match &self.value {
            Value::Raw(bytes) => bytes.len(),
            Value::Pointer(_) | Value::Chunk(_) => POINTER_SIZE,
        };
        entry_size(self.key.len(), value_size)
    }
}

/// A node that a merge wrote, for the cache.
#[derive(Debug)]
pub struct Written {
    /// Where it went.
    pub location: Location,
    /// Its plaintext.
    pub bytes: Bytes,
}

/// What a merge makes.
#[derive(Debug)]
pub struct Merged {
    /// The new root, or `None` for an empty tree.
    pub root: Option<Value>,
    /// The new nodes.
    pub written: Vec<Written>,
    /// Chunks that the tree points to no more: nodes that were written anew, and what changed values pointed to.
    dropped: Vec<Pointer>,
    /// What new values point to.
    taken: Vec<Value>,
}

impl Merged {
    /// Counts what became of objects; all that the packer holds has to be closed.
    pub fn count(&self, packer: &Packer, objects: &mut ObjectChanges) {
        self.dropped.iter().for_each(|pointer| objects.remove(pointer));
        self.written.iter().for_each(|written| objects.add(&packer.pointer(&written.location)));
        for value in &self.taken {
            match value {
                Value::Raw(_) => {}
                Value::Pointer(pointer) => objects.add(pointer),
                Value::Chunk(location) => objects.add(&packer.pointer(location)),
            }
        }
    }
}

/// Merges `changes`, ascending by key and each key once, into the tree at `root`.
///
/// # Errors
///
/// Those of `nodes`.
///
/// # Suspends
///
/// While nodes are fetched.
pub fn merge<N: Nodes>(
    nodes: &N,
    root: Option<Pointer>,
    changes: &[Change],
    packer: &mut Packer,
) -> Result<Merged, N::Error> {
    debug_assert!(changes.windows(2).all(|pair| pair[0].key < pair[1].key));
    let mut merge = Merge { nodes, packer, written: Vec::new(), dropped: Vec::new(), taken: Vec::new() };
    let rewritten = match root {
        None => Some((0, changes.iter().filter_map(|change| merge.new_entry(change)).collect())),
        Some(root) => {
            let node = merge.fetch_one(root)?;
            merge.rewrite(root, &node, changes)?.map(|entries| (node.level(), entries))
        }
    };
    let Some((mut level, mut entries)) = rewritten else {
        return Ok(merge.into_merged(root.map(Value::Pointer)));
    };
    let root = loop {
        if entries.is_empty() {
            break None;
        }
        if level > 0 && entries.len() == 1 {
            // A node with one child: the child takes its place.
            break Some(entries.remove(0).value);
        }
        entries = merge.write(level, &entries);
        level += 1;
    };
    Ok(merge.into_merged(root))
}

struct Merge<'a, N> {
    nodes: &'a N,
    packer: &'a mut Packer,
    written: Vec<Written>,
    dropped: Vec<Pointer>,
    taken: Vec<Value>,
}

impl<N: Nodes> Merge<'_, N> {
    fn into_merged(self, root: Option<Value>) -> Merged {
        Merged { root, written: self.written, dropped: self.dropped, taken: self.taken }
    }

    fn new_entry(&mut self, change: &Change) -> Option<Entry> {
        let value = change.value.clone()?;
        if matches!(value, Value::Pointer(_) | Value::Chunk(_)) {
            self.taken.push(value.clone());
        }
        Some(Entry { key: change.key.clone(), value })
    }

    fn fetch_one(&self, pointer: Pointer) -> Result<Rc<Node>, N::Error> {
        Ok(self.nodes.fetch(&[pointer])?.remove(0))
    }

    /// Returns the entries that the node at `pointer` has after `changes`, or `None` if they change nothing and it stays.
    fn rewrite(
        &mut self,
        pointer: Pointer,
        node: &Rc<Node>,
        changes: &[Change],
    ) -> Result<Option<Vec<Entry>>, N::Error> {
        let rewritten = match node.level() {
            0 => self.rewrite_leaf(node, changes),
            _ => self.rewrite_inner(node, changes)?,
        };
        if rewritten.is_some() {
            self.dropped.push(pointer);
        }
        Ok(rewritten)
    }

    fn rewrite_leaf(&mut self, node: &Rc<Node>, changes: &[Change]) -> Option<Vec<Entry>> {
        let mut entries = Vec::with_capacity(node.len() + changes.len());
        let mut changed = false;
        let mut index = 0;
        for change in changes {
            while index < node.len() && node.key(index) < change.key.as_ref() {
                entries.push(entry_of(node, index));
                index += 1;
            }
            if index < node.len() && node.key(index) == change.key.as_ref() {
                if let Value::Pointer(pointer) = entry_of(node, index).value {
                    self.dropped.push(pointer);
                }
                index += 1;
                changed = true;
            }
            if let Some(entry) = self.new_entry(change) {
                entries.push(entry);
                changed = true;
            }
        }
        entries.extend((index..node.len()).map(|index| entry_of(node, index)));
        changed.then_some(entries)
    }

    fn rewrite_inner(&mut self, node: &Rc<Node>, changes: &[Change]) -> Result<Option<Vec<Entry>>, N::Error> {
        let mut parts = Vec::with_capacity(node.len());
        let mut rest = changes;
        for index in 0..node.len() {
            let count = if index + 1 < node.len() {
                let next = node.key(index + 1);
                rest.partition_point(|change| change.key.as_ref() < next)
            } else {
                rest.len()
            };
            let (part, others) = rest.split_at(count);
            parts.push(part);
            rest = others;
        }
        let pointers: Vec<Pointer> = (0..node.len())
            .filter(|&index| !parts[index].is_empty())
            .filter_map(|index| node.child(index))
            .collect();
        let mut children = pointers.iter().zip(self.nodes.fetch(&pointers)?);
        let mut rewritten: Vec<Option<Vec<Entry>>> = Vec::with_capacity(node.len());
        for part in &parts {
            rewritten.push(match part.is_empty() {
                true => None,
                false => match children.next() {
                    Some((pointer, child)) => self.rewrite(*pointer, &child, part)?,
                    None => None,
                },
            });
        }
        if rewritten.iter().all(Option::is_none) {
            return Ok(None);
        }
        self.splice(node, rewritten).map(Some)
    }

    /// Puts rewritten children back among their unchanged siblings.
    fn splice(
        &mut self,
        node: &Rc<Node>,
        rewritten: Vec<Option<Vec<Entry>>>,
    ) -> Result<Vec<Entry>, N::Error> {
        let level = node.level() - 1;
        let mut result: Vec<Entry> = Vec::with_capacity(node.len() + 4);
        // Entries that still need nodes, and whether there is such a run at all.
        let mut run: Vec<Entry> = Vec::new();
        // How many of the last results are unchanged children, which a small run may take in.
        let mut unchanged = 0;
        for (index, child) in rewritten.into_iter().enumerate() {
            match child {
                Some(entries) => run.extend(entries),
                None if !run.is_empty() && run_size(&run) < NODE_SIZE_MIN => {
                    run.extend(self.entries_of(node.child(index))?);
                }
                None => {
                    if !run.is_empty() {
                        self.flush(level, &mut run, &mut result, unchanged)?;
                        unchanged = 0;
                    }
                    result.push(entry_of(node, index));
                    unchanged += 1;
                }
            }
        }
        if !run.is_empty() {
            self.flush(level, &mut run, &mut result, unchanged)?;
        }
        Ok(result)
    }

    fn flush(
        &mut self,
        level: u8,
        run: &mut Vec<Entry>,
        result: &mut Vec<Entry>,
        unchanged: usize,
    ) -> Result<(), N::Error> {
        if unchanged > 0
            && run_size(run) < NODE_SIZE_MIN
            && let Some(Entry { value: Value::Pointer(neighbour), .. }) = result.last()
        {
            let mut entries = self.entries_of(Some(*neighbour))?;
            result.pop();
            entries.append(run);
            *run = entries;
        }
        result.extend(self.write(level, run));
        run.clear();
        Ok(())
    }

    /// Returns the entries of a node whose place others take.
    fn entries_of(&mut self, pointer: Option<Pointer>) -> Result<Vec<Entry>, N::Error> {
        let Some(pointer) = pointer else { return Ok(Vec::new()) };
        self.dropped.push(pointer);
        let node = self.fetch_one(pointer)?;
        Ok((0..node.len()).map(|index| entry_of(&node, index)).collect())
    }

    /// Writes entries as nodes of `level`, as many as it takes, and returns the entries that name them.
    fn write(&mut self, level: u8, entries: &[Entry]) -> Vec<Entry> {
        let total = run_size(entries);
        let count = if total <= NODE_SIZE_MAX { 1 } else { total.div_ceil(NODE_SIZE_TARGET) };
        let share = total.div_ceil(count);
        let mut parents = Vec::with_capacity(count);
        let mut start = 0;
        let mut size = 0;
        for (index, entry) in entries.iter().enumerate() {
            size += entry.size();
            if size >= share || index + 1 == entries.len() {
                parents.push(self.write_node(level, &entries[start..=index], size));
                start = index + 1;
                size = 0;
            }
        }
        parents
    }

    fn write_node(&mut self, level: u8, entries: &[Entry], size: usize) -> Entry {
        // Which pointers may leave their address out is decided by the object that the node goes to.
        self.packer.make_room(size + 16);
        let mut writer = NodeWriter::new(level, size + 16);
        for entry in entries {
            writer.push(&entry.key, |out| match &entry.value {
                Value::Raw(bytes) => out.extend_from_slice(bytes),
                Value::Pointer(pointer) => pointer.encode(false, out),
                Value::Chunk(location) => {
                    self.packer.pointer(location).encode(self.packer.is_open(location), out);
                }
            });
        }
        let bytes = Bytes::from(writer.finish());
        let location = self.packer.append(ChunkKind::Node, &bytes);
        self.written.push(Written { location, bytes });
        Entry { key: entries[0].key.clone(), value: Value::Chunk(location) }
    }
}

fn run_size(entries: &[Entry]) -> usize {
    entries.iter().map(Entry::size).sum()
}

/// Copies an entry out of a node; a pointer that meant the node's own object gets its address.
fn entry_of(node: &Rc<Node>, index: usize) -> Entry {
    let (key, value) = (node.key(index), node.value(index));
    let is_pointer = node.level() > 0 || (Key::may_hold_pointer(key) && matches!(value.first(), Some(0 | 1)));
    let value = match Pointer::decode(value, node.home()) {
        Some(pointer) if is_pointer => Value::Pointer(pointer),
        _ => Value::Raw(node.shared_value(index)),
    };
    Entry { key: node.shared_key(index), value }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::collections::{BTreeMap, HashMap};

    use dht::{Address, OwnerTag};
    use rand::{RngExt, SeedableRng, rngs::StdRng};

    use super::*;
    use crate::chunk::{Binding, open_run};
    use crate::format::VolumeId;
    use crate::tree::cursor;

    const VOLUME: VolumeId = VolumeId([6; 16]);

    #[derive(Default)]
    struct Objects {
        objects: RefCell<HashMap<[u8; 32], Bytes>>,
        fetched: RefCell<usize>,
        nodes: RefCell<HashMap<Pointer, Rc<Node>>>,
    }

    impl Nodes for Objects {
        type Error = std::convert::Infallible;

        fn fetch(&self, pointers: &[Pointer]) -> Result<Vec<Rc<Node>>, Self::Error> {
            *self.fetched.borrow_mut() += pointers.len();
            Ok(pointers.iter().map(|pointer| self.load(pointer)).collect())
        }
    }

    impl Objects {
        fn load(&self, pointer: &Pointer) -> Rc<Node> {
            if let Some(node) = self.nodes.borrow().get(pointer) {
                return node.clone();
            }
            let object = self.objects.borrow()[&pointer.address].clone();
            let binding = Binding { kind: ChunkKind::Node, volume: VOLUME };
            let bytes = open_run(&binding, object, 0, &[*pointer]).unwrap().remove(0);
            let node = Rc::new(Node::decode(bytes, pointer.address).unwrap());
            self.nodes.borrow_mut().insert(*pointer, node.clone());
            node
        }

        fn commit(&self, root: Option<Pointer>, changes: &[Change]) -> Option<Pointer> {
            let mut packer = Packer::new(OwnerTag([1; 32]), VOLUME, 1);
            let merged = merge(self, root, changes, &mut packer).unwrap();
            packer.close();
            for (Address(address), object) in packer.take_ready() {
                self.objects.borrow_mut().insert(address, object);
            }
            merged.root.map(|root| match root {
                Value::Chunk(location) => packer.pointer(&location),
                Value::Pointer(pointer) => pointer,
                Value::Raw(_) => unreachable!("a root is a pointer"),
            })
        }

        fn all(&self, root: Option<Pointer>) -> Vec<(Bytes, Bytes)> {
            let mut all = Vec::new();
            let Some(root) = root else { return all };
            let mut key = Bytes::new();
            while let Some(found) =
                cursor::first_from(&root, &key, |pointer| Some(self.load(pointer))).unwrap()
            {
                all.push((found.key(), found.node.shared_value(found.index)));
                let mut next = found.key().to_vec();
                next.push(0);
                key = Bytes::from(next);
            }
            all
        }
    }

    #[test]
    fn random_batches_leave_the_tree_equal_to_a_map() {
        let seed = crate::seed_for_test();
        let mut random = StdRng::seed_from_u64(seed);
        let objects = Objects::default();
        let mut model: BTreeMap<Bytes, Bytes> = BTreeMap::new();
        let mut root = None;
        for round in 0..60 {
            let mut batch: BTreeMap<Bytes, Option<Bytes>> = BTreeMap::new();
            let removals = if round % 7 == 6 { 0.95 } else { 0.3 };
            for _ in 0..random.random_range(1..600) {
                let key = Bytes::from(format!("\x01key{:05}", random.random_range(0..3000)));
                let size = if random.random_bool(0.01) { 9000 } else { random.random_range(0..300) };
                let value = (!random.random_bool(removals)).then(|| Bytes::from(vec![random.random(); size]));
                batch.insert(key, value);
            }
            let changes: Vec<Change> = batch
                .iter()
                .map(|(key, value)| Change { key: key.clone(), value: value.clone().map(Value::Raw) })
                .collect();
            root = objects.commit(root, &changes);
            for (key, value) in batch {
                match value {
                    Some(value) => model.insert(key, value),
                    None => model.remove(&key),
                };
            }
            let expected: Vec<_> = model.iter().map(|(key, value)| (key.clone(), value.clone())).collect();
            assert!(objects.all(root) == expected, "round {round}, HYPHA_SEED={seed}");
        }
        let clear: Vec<Change> = model.keys().map(|key| Change { key: key.clone(), value: None }).collect();
        assert_eq!(objects.commit(root, &clear), None);
    }

    #[test]
    fn a_single_change_in_a_large_tree_touches_one_path() {
        let objects = Objects::default();
        let changes: Vec<Change> = (0..20_000)
            .map(|index| Change {
                key: Bytes::from(format!("key{index:06}")),
                value: Some(Value::Raw(Bytes::from_static(
                    b"a value of some length, as an inode's is, or nearly so",
                ))),
            })
            .collect();
        let root = objects.commit(None, &changes);
        *objects.fetched.borrow_mut() = 0;
        let before = objects.objects.borrow().len();
        let change = Change {
            key: Bytes::from_static(b"key010000"),
            value: Some(Value::Raw(Bytes::from_static(b"new"))),
        };
        let new_root = objects.commit(root, &[change]);
        assert_ne!(root, new_root);
        assert!(*objects.fetched.borrow() <= 3, "{} nodes read", objects.fetched.borrow());
        assert_eq!(objects.objects.borrow().len(), before + 1, "leaf, parent and root share one object");
    }

    #[test]
    fn removing_what_is_not_there_changes_nothing() {
        let objects = Objects::default();
        let value = Some(Value::Raw(Bytes::from_static(b"1")));
        let root = objects.commit(None, &[Change { key: Bytes::from_static(b"a"), value }]);
        assert_eq!(objects.commit(root, &[Change { key: Bytes::from_static(b"b"), value: None }]), root);
    }
}
