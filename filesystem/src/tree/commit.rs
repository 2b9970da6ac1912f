//! Merging sorted changes into a tree: new nodes for what changed, the old ones for all else.
//!
//! The cost follows the changes, not the tree: only the paths to changed leaves are read and written again. Neighbours
//! that are rewritten together are packed evenly, and a run of entries too small for a node of its own takes the
//! neighbour in, so nodes stay between a quarter and full but at a subtree's edges. New nodes go to a [`Packer`], children
//! before parents, mostly into one object; no node is stored before its children are, because whoever publishes the root
//! stores all objects first.

use std::collections::HashSet;
use std::ops::Range;
use std::rc::Rc;

use bytes::Bytes;

use super::Nodes;
use super::node::{Node, NodeWriter, Unplaced, entry_size};
use crate::chunk::{ChunkKind, Location, Packer};
use crate::format::{ADDRESS_SIZE, Key, NODE_SIZE_MAX, ObjectChanges, Pointer};

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

impl Value {
    fn pointer(&self) -> Option<&Pointer> {
        match self {
            Value::Pointer(pointer) => Some(pointer),
            _ => None,
        }
    }
}

/// A change of one key: a new value, or its removal.
#[derive(Debug)]
pub struct Change {
    /// The encoded key.
    pub key: Bytes,
    /// `None` removes it.
    pub value: Option<Value>,
}

/// An entry on its way into a node. Most are kept as they lie in a node that was read: those are copied once, by their bytes.
#[derive(Clone, Copy, Debug)]
enum Entry {
    /// Of a node that was read, by its number, the entry at an index.
    Kept(u32, u32),
    /// Made by this merge, by its number.
    Made(u32),
}

/// A node that a merge wrote, for the cache.
#[derive(Debug)]
pub struct Written {
    /// Where it went.
    pub location: Location,
    /// What it is.
    pub node: Unplaced,
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
    /// Takes what the tree points to no more; it has to be counted already.
    pub fn take_dropped(&mut self) -> Vec<Pointer> {
        let mut dropped = std::mem::take(&mut self.dropped);
        // A value may be put where it was, or elsewhere.
        let taken: HashSet<&Pointer> = self.taken.iter().filter_map(Value::pointer).collect();
        if !taken.is_empty() {
            dropped.retain(|pointer| !taken.contains(pointer));
        }
        dropped
    }

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
    let (read, made, written) = (Vec::new(), Vec::new(), Vec::new());
    let mut merge = Merge { nodes, packer, read, made, written, dropped: Vec::new(), taken: Vec::new() };
    let rewritten = match root {
        None => Some((0, changes.iter().filter_map(|change| merge.new_entry(change)).collect())),
        Some(root) => {
            let at = merge.fetch(&[root])?;
            let level = merge.read[at].level();
            merge.rewrite(root, at, changes)?.map(|entries| (level, entries))
        }
    };
    let Some((mut level, mut entries)) = rewritten else {
        return Ok(merge.into_merged(root.map(Value::Pointer)));
    };
    let root = loop {
        match *entries.as_slice() {
            [] => break None,
            // A node with one child: the child takes its place.
            [only] if level > 0 => break merge.value_of(only),
            _ => {}
        }
        entries = merge.write(level, &entries);
        level += 1;
    };
    Ok(merge.into_merged(root))
}

struct Merge<'a, N> {
    nodes: &'a N,
    packer: &'a mut Packer,
    /// What kept entries lie in.
    read: Vec<Rc<Node>>,
    made: Vec<(Bytes, Value)>,
    written: Vec<Written>,
    dropped: Vec<Pointer>,
    taken: Vec<Value>,
}

impl<N: Nodes> Merge<'_, N> {
    fn into_merged(self, root: Option<Value>) -> Merged {
        Merged { root, written: self.written, dropped: self.dropped, taken: self.taken }
    }

    /// Reads nodes, and returns the number of the first; the others follow.
    fn fetch(&mut self, pointers: &[Pointer]) -> Result<usize, N::Error> {
        let first = self.read.len();
        self.read.extend(self.nodes.fetch(pointers)?);
        Ok(first)
    }

    fn make(&mut self, key: Bytes, value: Value) -> Entry {
        self.made.push((key, value));
        Entry::Made(self.made.len() as u32 - 1)
    }

    fn new_entry(&mut self, change: &Change) -> Option<Entry> {
        let value = change.value.clone()?;
        if matches!(value, Value::Pointer(_) | Value::Chunk(_)) {
            self.taken.push(value.clone());
        }
        Some(self.make(change.key.clone(), value))
    }

    /// Returns what an entry of a node above the leaves points to.
    fn value_of(&self, entry: Entry) -> Option<Value> {
        match entry {
            Entry::Kept(at, index) => self.read[at as usize].child(index as usize).map(Value::Pointer),
            Entry::Made(number) => Some(self.made[number as usize].1.clone()),
        }
    }

    fn size_of(&self, entry: Entry) -> usize {
        match entry {
            Entry::Kept(at, index) => {
                let (node, index) = (&self.read[at as usize], index as usize);
                let far = if near_pointer(node, index).is_some() { ADDRESS_SIZE } else { 0 };
                node.encoded(index).len() + far
            }
            Entry::Made(number) => {
                let (key, value) = &self.made[number as usize];
                let value_size = match value {
                    Value::Raw(bytes) => bytes.len(),
                    Value::Pointer(pointer) => pointer.encoded_size(),
                    Value::Chunk(location) => location.pointer_size(),
                };
                entry_size(key.len(), value_size)
            }
        }
    }

    fn run_size(&self, entries: &[Entry]) -> usize {
        entries.iter().map(|entry| self.size_of(*entry)).sum()
    }

    /// Returns the entries that the node at `pointer`, which was read as number `at`, has after `changes`, or `None` if they
    /// change nothing and it stays.
    fn rewrite(
        &mut self,
        pointer: Pointer,
        at: usize,
        changes: &[Change],
    ) -> Result<Option<Vec<Entry>>, N::Error> {
        let rewritten = match self.read[at].level() {
            0 => self.rewrite_leaf(at, changes),
            _ => self.rewrite_inner(at, changes)?,
        };
        if rewritten.is_some() {
            self.dropped.push(pointer);
        }
        Ok(rewritten)
    }

    fn rewrite_leaf(&mut self, at: usize, changes: &[Change]) -> Option<Vec<Entry>> {
        let node = self.read[at].clone();
        let mut entries = Vec::with_capacity(node.len() + changes.len());
        let mut changed = false;
        let mut index = 0;
        for change in changes {
            let found = node.search(&change.key);
            let (Ok(stop) | Err(stop)) = found;
            entries.extend(kept(at, index..stop));
            index = stop;
            if found.is_ok() {
                self.dropped.extend(pointer_in(&node, index));
                index += 1;
                changed = true;
            }
            if let Some(entry) = self.new_entry(change) {
                entries.push(entry);
                changed = true;
            }
        }
        entries.extend(kept(at, index..node.len()));
        changed.then_some(entries)
    }

    fn rewrite_inner(&mut self, at: usize, changes: &[Change]) -> Result<Option<Vec<Entry>>, N::Error> {
        let node = self.read[at].clone();
        let mut parts: Vec<(usize, Pointer, &[Change])> = Vec::new();
        let mut rest = changes;
        while let Some(first) = rest.first() {
            let index = node.child_index(&first.key);
            let next = (index + 1 < node.len()).then(|| node.key(index + 1));
            let is_of_child = |change: &Change| next.is_none_or(|next| change.key.as_ref() < next);
            let (part, others) = rest.split_at(rest.partition_point(is_of_child));
            parts.extend(node.child(index).map(|pointer| (index, pointer, part)));
            rest = others;
        }
        let pointers: Vec<Pointer> = parts.iter().map(|(_, pointer, _)| *pointer).collect();
        let children = self.fetch(&pointers)?;
        let mut rewritten = Vec::with_capacity(parts.len());
        for (number, (index, pointer, part)) in parts.into_iter().enumerate() {
            if let Some(entries) = self.rewrite(pointer, children + number, part)? {
                rewritten.push((index, entries));
            }
        }
        if rewritten.is_empty() {
            return Ok(None);
        }
        self.splice(at, rewritten).map(Some)
    }

    /// Puts rewritten children, by their index, back among their unchanged siblings.
    fn splice(&mut self, at: usize, rewritten: Vec<(usize, Vec<Entry>)>) -> Result<Vec<Entry>, N::Error> {
        let node = self.read[at].clone();
        let level = node.level() - 1;
        let mut rewritten = rewritten.into_iter().peekable();
        let mut result: Vec<Entry> = Vec::with_capacity(node.len() + 4);
        // Entries that still need nodes, and whether there is such a run at all.
        let mut run: Vec<Entry> = Vec::new();
        // How many of the last results are unchanged children, which a small run may take in.
        let mut unchanged = 0;
        for index in 0..node.len() {
            if let Some((_, entries)) = rewritten.next_if(|(child, _)| *child == index) {
                run.extend(entries);
            } else if !run.is_empty() && self.run_size(&run) < NODE_SIZE_MIN {
                run.extend(self.entries_of(node.child(index))?);
            } else {
                if !run.is_empty() {
                    self.flush(level, &mut run, &mut result, unchanged)?;
                    unchanged = 0;
                }
                result.extend(kept(at, index..index + 1));
                unchanged += 1;
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
            && self.run_size(run) < NODE_SIZE_MIN
            && let Some(Value::Pointer(neighbour)) = result.last().and_then(|last| self.value_of(*last))
        {
            let mut entries = self.entries_of(Some(neighbour))?;
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
        let at = self.fetch(&[pointer])?;
        Ok(kept(at, 0..self.read[at].len()).collect())
    }

    /// Writes entries as nodes of `level`, as many as it takes, and returns the entries that name them.
    fn write(&mut self, level: u8, entries: &[Entry]) -> Vec<Entry> {
        let total = self.run_size(entries);
        let count = if total <= NODE_SIZE_MAX { 1 } else { total.div_ceil(NODE_SIZE_TARGET) };
        let share = total.div_ceil(count);
        let mut parents = Vec::with_capacity(count);
        let mut start = 0;
        let mut size = 0;
        for (index, entry) in entries.iter().enumerate() {
            size += self.size_of(*entry);
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
            match *entry {
                Entry::Kept(at, index) => {
                    let (node, index) = (&self.read[at as usize], index as usize);
                    match near_pointer(node, index) {
                        // The node's own object is another's from here on.
                        Some(pointer) => writer.push(node.key(index), |out| pointer.encode(false, out)),
                        None => writer.push_encoded(node.encoded(index)),
                    }
                }
                Entry::Made(number) => {
                    let (key, value) = &self.made[number as usize];
                    writer.push(key, |out| match value {
                        Value::Raw(bytes) => out.extend_from_slice(bytes),
                        Value::Pointer(pointer) => pointer.encode(false, out),
                        Value::Chunk(location) => {
                            self.packer.pointer(location).encode(self.packer.is_open(location), out);
                        }
                    });
                }
            }
        }
        let node = writer.finish_unplaced();
        let location = self.packer.append(ChunkKind::Node, node.bytes());
        self.written.push(Written { location, node });
        let key = match entries[0] {
            Entry::Kept(at, index) => self.read[at as usize].shared_key(index as usize),
            Entry::Made(number) => self.made[number as usize].0.clone(),
        };
        self.make(key, Value::Chunk(location))
    }
}

fn kept(at: usize, indexes: Range<usize>) -> impl Iterator<Item = Entry> {
    indexes.map(move |index| Entry::Kept(at as u32, index as u32))
}

/// Returns the pointer that an entry holds, if it holds one.
fn pointer_in(node: &Node, index: usize) -> Option<Pointer> {
    let (key, value) = (node.key(index), node.value(index));
    let may_be = node.level() > 0 || (Key::may_hold_pointer(key) && matches!(value.first(), Some(0 | 1)));
    if may_be { Pointer::decode(value, node.home()) } else { None }
}

/// Returns the pointer that an entry holds, if that is one that means the node's own object.
fn near_pointer(node: &Node, index: usize) -> Option<Pointer> {
    if node.value(index).first() == Some(&0) { pointer_in(node, index) } else { None }
}

#[cfg(test)]
mod tests;
