//! What happens when another writer was first, or is seen to have written: taking their root over.
//!
//! First the nodes that the merge will look at are fetched, level by level and in parallel; then it is worked out (see
//! [`super::merge`]) while changes wait, and put in place in one step. A walk over both trees that skips what they share
//! finds what the kernel must forget.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use bytes::Bytes;
use dht::{HeaderHash, Record};

use super::Volume;
use super::fetch::CachedNodes;
use super::merge::Merged;
use super::state::{Delta, State, Step};
use crate::access::{Root, open_root};
use crate::cache::ChunkId;
use crate::errno::Errno;
use crate::format::{Key, Pointer};
use crate::operations::{Inode, Invalidation, Time};
use crate::tree::Nodes;

/// When more than this many keys differ, only the invalidations of ours are worth telling.
const DIFFERENCE_MAX: usize = 200_000;

impl State {
    /// Puts a merge in place: the tree is `tree` from now on, which is what `header` names, and our changes are the
    /// merged ones. If it stops for something that is missing, nothing has changed.
    fn adopt(&mut self, merged: &Merged, tree: Option<Pointer>, header: HeaderHash) -> Step<()> {
        let number = self.active.number;
        let active = std::mem::replace(&mut self.active, Delta { number, ..Delta::default() });
        let before = (self.tree, self.header, self.committing.take(), active);
        self.tree = tree;
        self.header = Some(header);
        for (key, change) in &merged.changes {
            self.set(key.clone(), change.clone());
        }
        for (inode, only) in before.2.iter().flat_map(|delta| &delta.appended).chain(&before.3.appended) {
            *self.active.appended.entry(*inode).or_insert(true) &= only;
        }
        for (inode, pieces) in &merged.appended {
            self.active.appended.remove(inode);
            let appended = pieces.iter().try_for_each(|piece| self.append(*inode, piece, false).map(drop));
            if let Err(stop) = appended {
                (self.tree, self.header, self.committing, self.active) = before;
                return Err(stop);
            }
        }
        for (theirs, ours) in &merged.forked {
            self.active.appended.remove(theirs);
            // What was open here was ours.
            if let Some(count) = self.references.remove(theirs) {
                self.references.insert(*ours, count);
                self.aliases.exchange(*theirs, *ours);
            }
        }
        for (from, to) in &merged.united {
            if let Some(count) = self.references.remove(from) {
                *self.references.entry(*to).or_insert(0) += count;
                self.aliases.unite(*from, *to);
            }
        }
        self.reclaim.extend(&merged.reclaim);
        Ok(())
    }
}

impl Volume {
    /// Takes another writer's root over and puts our changes on top of it; nothing of them is lost. If it fails, all is
    /// as before.
    ///
    /// # Suspends
    ///
    /// While nodes of both trees are fetched. Changes wait meanwhile.
    pub(super) fn rebase(&self, root: &Root, header: HeaderHash) -> Result<(), Errno> {
        self.check_charter(root)?;
        let closed = self.gate.close();
        let base = self.state.borrow().tree;
        let keys: Vec<Bytes> = {
            let state = self.state.borrow();
            let committing = state.committing.iter().flat_map(|delta| delta.changes.keys());
            let mut keys: Vec<Bytes> = committing
                .chain(state.active.changes.keys())
                .map(|key| Bytes::copy_from_slice(&key.encode()))
                .collect();
            keys.sort_unstable();
            keys
        };
        for tree in [base, root.tree].into_iter().flatten() {
            self.prefetch(tree, &keys)?;
        }
        let mut invalidations = self.differences(base, root.tree)?;
        let merged = self.merge(root.tree, None, Time::now())?;
        self.step(|state| state.adopt(&merged, root.tree, header))?;
        self.state.borrow_mut().charter = root.charter.clone();
        drop(closed);
        invalidations.extend(merged.invalidations);
        self.invalidate(invalidations);
        // What was waiting has moved to the active delta.
        let number = self.state.borrow().active.number;
        if !self.state.borrow().active.changes.is_empty() {
            self.wanted.set(self.wanted.get().max(number));
        }
        if !self.state.borrow().reclaim.is_empty() {
            self.reclaim.notify_all();
        }
        Ok(())
    }

    /// Another writer may have given the volume features meanwhile that we do not know.
    fn check_charter(&self, root: &Root) -> Result<(), Errno> {
        let mut state = self.state.borrow_mut();
        if root.charter.volume != state.charter.volume {
            tracing::error!("the register holds another volume than the one that was opened: open it anew");
            return Err(Errno::EIO);
        }
        let flags = root.charter.features.unwritable();
        if flags == 0 {
            return Ok(());
        }
        state.read_only = true;
        if state.committing.is_none() && state.active.changes.is_empty() {
            tracing::warn!(
                "a newer version gave the volume features (flags {flags:#x}) that forbid us to write"
            );
            return Ok(());
        }
        tracing::error!(
            "a newer version gave the volume features (flags {flags:#x}) that forbid us to write: what is not \
             stored yet cannot be; copy it elsewhere before this mount ends"
        );
        Err(Errno::EROFS)
    }

    /// Fetches the nodes on the paths to `keys`, which are ascending.
    fn prefetch(&self, tree: Pointer, keys: &[Bytes]) -> Result<(), Errno> {
        let mut level = vec![(tree, 0..keys.len())];
        while !level.is_empty() {
            let pointers: Vec<Pointer> = level.iter().map(|(pointer, _)| *pointer).collect();
            let nodes = CachedNodes(self).fetch(&pointers)?;
            let mut next = Vec::new();
            for (node, (_, range)) in nodes.into_iter().zip(level) {
                let mut at = range.start;
                while node.level() > 0 && at < range.end {
                    let index = node.child_index(&keys[at]);
                    let count = match index + 1 < node.len() {
                        true => keys[at..range.end]
                            .partition_point(|key| key.as_ref() < node.key(index + 1))
                            .max(1),
                        false => range.end - at,
                    };
                    if let Some(child) = node.child(index) {
                        next.push((child, at..at + count));
                    }
                    at += count;
                }
            }
            level = next;
        }
        Ok(())
    }

    /// Returns what differs between two trees, as the kernel should hear of it.
    fn differences(
        &self,
        base: Option<Pointer>,
        theirs: Option<Pointer>,
    ) -> Result<Vec<Invalidation>, Errno> {
        let nodes = CachedNodes(self);
        let mut sides: [Vec<Pointer>; 2] = [base.into_iter().collect(), theirs.into_iter().collect()];
        let leaves = loop {
            let shared: HashSet<ChunkId, _> = {
                let ids =
                    |side: &[Pointer]| side.iter().map(ChunkId::from).collect::<crate::cache::ChunkSet>();
                let (a, b) = (ids(&sides[0]), ids(&sides[1]));
                a.intersection(&b).copied().collect::<crate::cache::ChunkSet>()
            };
            for side in &mut sides {
                side.retain(|pointer| !shared.contains(&ChunkId::from(pointer)));
            }
            let fetched = [nodes.fetch(&sides[0])?, nodes.fetch(&sides[1])?];
            let highest = fetched.iter().flatten().map(|node| node.level()).max().unwrap_or(0);
            if highest == 0 {
                break fetched;
            }
            // Only the highest level goes down, so that nodes of one level meet.
            for (side, nodes) in sides.iter_mut().zip(fetched) {
                *side = side
                    .iter()
                    .zip(nodes)
                    .flat_map(|(pointer, node)| match node.level() == highest {
                        true => (0..node.len()).filter_map(|index| node.child(index)).collect(),
                        false => vec![*pointer],
                    })
                    .collect();
            }
        };
        let mut values: BTreeMap<Bytes, [Option<Bytes>; 2]> = BTreeMap::new();
        for (side, leaves) in leaves.iter().enumerate() {
            for leaf in leaves {
                for index in 0..leaf.len() {
                    values.entry(leaf.shared_key(index)).or_default()[side] = Some(leaf.shared_value(index));
                }
            }
        }
        let mut seen: HashSet<u64> = HashSet::new();
        let mut differences = Vec::new();
        for (key, [base, theirs]) in values {
            if base == theirs || differences.len() > DIFFERENCE_MAX {
                continue;
            }
            match Key::decode(&key) {
                Some(Key::Inode(inode) | Key::Extent(inode, _) | Key::Xattr(inode, _))
                    if seen.insert(inode) =>
                {
                    differences.push(Invalidation::Inode(Inode(inode)));
                }
                Some(Key::Entry(directory, _, name)) => {
                    differences.push(Invalidation::Entry(Inode(directory), name));
                }
                _ => {}
            }
        }
        Ok(differences)
    }

    /// Looks at the register now and then, and takes over what another writer published.
    pub(super) fn watch(&self, interval: Duration) {
        loop {
            reactor::sleep(interval);
            if let Ok(Some(record)) = self.store.read(&self.keys.register) {
                self.freshness.note_reachable();
                if record.version > self.version.get() && self.state.borrow().committing.is_none() {
                    self.offer(record);
                }
            }
        }
    }

    /// Hands a root that the register names to the committer, which takes it over if it is another writer's.
    pub(super) fn offer(&self, record: Record) {
        match open_root(&record.payload, record.version, &self.keys.secret) {
            Ok(root) => {
                *self.newer.borrow_mut() = Some((root, record));
                self.work.notify_all();
            }
            Err(error) => tracing::warn!(%error, "another writer's root does not open"),
        }
    }

    /// Takes over what the watcher saw, if it is still news. The committer calls it: only it changes the tree.
    pub(super) fn take_newer(&self) -> Result<(), Errno> {
        let newer = self.newer.borrow_mut().take();
        match newer {
            Some((root, record)) if record.version > self.version.get() => {
                self.rebase(&root, record.header_hash)?;
                self.version.set(record.version);
                self.progress.notify_all();
                Ok(())
            }
            _ => Ok(()),
        }
    }
}
