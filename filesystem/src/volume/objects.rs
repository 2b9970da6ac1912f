//! Growing a tree by a commit's changes, with the records of how much of each object it points to (see [`ObjectChanges`]).
//!
//! A merge of changes into a tree tells what it dropped and what it points to anew. That goes to the list of changes that
//! the root carries, so most small commits write no record. Once the list is long it is folded: it becomes changes of
//! records, merged like any others, and what *that* drops and writes is the new list. Where the records are old and lie
//! far apart, that is a leaf and thus an entry for each: so the list may be long, and one round is enough unless a root
//! would not take what is left. Rounds end, as each rewrites leaves of records that were not rewritten in this commit, or
//! leaves next to nothing. Whoever is in a race for the root folds only what he must.

use std::collections::HashMap;
use std::rc::Rc;

use bytes::Bytes;

use super::Volume;
use super::fetch::CachedNodes;
use crate::cache::{Cache, Cached};
use crate::chunk::Packer;
use crate::errno::Errno;
use crate::format::{Key, OBJECT_CHANGE_COUNT_MAX, ObjectChanges, ObjectRecord, Pointer};
use crate::operations::Time;
use crate::tree::commit::{Change, Value, merge};
use crate::tree::{Nodes, node::Node};

/// A list that is longer is folded: 50 bytes each in every root, against a leaf for each of them in the worst case.
const UNFOLDED_COUNT_MAX: usize = 128;

/// A tree that is not published yet.
pub(super) struct Grown<'a> {
    pub(super) tree: Option<Pointer>,
    /// What its records do not say yet.
    pub(super) objects: ObjectChanges,
    /// What it points to no more, of what the tree before it did.
    dropped: Vec<Pointer>,
    nodes: GrownNodes<'a>,
}

/// The nodes that a commit wrote, which are in no store yet, on top of those that are.
struct GrownNodes<'a> {
    written: HashMap<Pointer, Rc<Node>>,
    below: CachedNodes<'a>,
}

impl Nodes for GrownNodes<'_> {
    type Error = Errno;

    fn fetch(&self, pointers: &[Pointer]) -> Result<Vec<Rc<Node>>, Errno> {
        let stored = pointers.iter().filter(|pointer| !self.written.contains_key(pointer)).copied();
        let mut stored = match stored.collect::<Vec<_>>() {
            stored if stored.is_empty() => Vec::new(),
            stored => self.below.fetch(&stored)?,
        }
        .into_iter();
        let node = |pointer| self.written.get(pointer).cloned().or_else(|| stored.next());
        pointers.iter().map(node).collect::<Option<_>>().ok_or(Errno::EIO)
    }
}

impl<'a> Grown<'a> {
    /// Merges `changes` into the tree that the volume is based on; all that `packer` holds is closed then.
    ///
    /// # Suspends
    ///
    /// While nodes are fetched.
    pub(super) fn new(
        volume: &'a Volume,
        mut changes: Vec<Change>,
        packer: &mut Packer,
    ) -> Result<Grown<'a>, Errno> {
        let nodes = GrownNodes { written: HashMap::new(), below: CachedNodes(volume) };
        let mut grown = {
            let state = volume.state.borrow();
            Grown { tree: state.tree, objects: state.objects.clone(), dropped: Vec::new(), nodes }
        };
        let mut count_max = match volume.race.is_contended() {
            false => UNFOLDED_COUNT_MAX,
            true => OBJECT_CHANGE_COUNT_MAX,
        };
        loop {
            grown.merge(&changes, packer)?;
            if grown.objects.0.len() <= count_max {
                return Ok(grown);
            }
            changes = grown.fold(Time::now().seconds, volume.version.get() + 1)?;
            count_max = OBJECT_CHANGE_COUNT_MAX;
        }
    }

    /// It is published: its nodes go to the cache, in the place of what the tree points to no more. Whoever asks for that
    /// yet, for a snapshot's sake or for that of a file that shares it, has it fetched.
    pub(super) fn enter(self, cache: &mut Cache) {
        for pointer in &self.dropped {
            cache.remove(pointer);
        }
        for (pointer, node) in self.nodes.written {
            cache.insert(pointer, Cached::Node(node));
        }
    }

    fn merge(&mut self, changes: &[Change], packer: &mut Packer) -> Result<(), Errno> {
        let mut merged = merge(&self.nodes, self.tree, changes, packer)?;
        packer.close();
        merged.count(packer, &mut self.objects);
        let mut dropped = merged.take_dropped();
        // Nobody has seen a node that an earlier round wrote.
        dropped.retain(|pointer| self.nodes.written.remove(pointer).is_none());
        self.dropped.append(&mut dropped);
        self.tree = match &merged.root {
            None => None,
            Some(Value::Chunk(location)) => Some(packer.pointer(location)),
            Some(Value::Pointer(pointer)) => Some(*pointer),
            Some(Value::Raw(_)) => return Err(Errno::EIO),
        };
        for written in merged.written {
            let pointer = packer.pointer(&written.location);
            let node = written.node.placed(pointer.address).map_err(|error| {
                tracing::error!(%error, "a node that this commit wrote cannot be read");
                Errno::EIO
            })?;
            self.nodes.written.insert(pointer, Rc::new(node));
        }
        Ok(())
    }

    /// Takes the list of changes, and returns the records that they make.
    fn fold(&mut self, now_seconds: i64, version: u64) -> Result<Vec<Change>, Errno> {
        let objects = std::mem::take(&mut self.objects);
        let mut changes = Vec::with_capacity(objects.0.len());
        for (object, change) in &*objects.0 {
            let key = Bytes::copy_from_slice(&Key::Object(*object).encode());
            let before = match self.value(&key)? {
                None => ObjectRecord { live_bytes: Some(0), ..ObjectRecord::default() },
                Some(value) => ObjectRecord::decode(&value).unwrap_or_else(|| {
                    tracing::error!(address = ?object.address, "an object's record is malformed: it is never deleted");
                    ObjectRecord::default()
                }),
            };
            let mut value = Vec::new();
            before.with(change, now_seconds, version).encode(&mut value);
            changes.push(Change { key, value: Some(Value::Raw(value.into())) });
        }
        Ok(changes)
    }

    fn value(&self, key: &[u8]) -> Result<Option<Bytes>, Errno> {
        let mut next = self.tree;
        while let Some(pointer) = next {
            let node = self.nodes.fetch(&[pointer])?.remove(0);
            if node.level() == 0 {
                return Ok(node.search(key).ok().map(|index| node.shared_value(index)));
            }
            next = node.child(node.child_index(key));
        }
        Ok(None)
    }
}
