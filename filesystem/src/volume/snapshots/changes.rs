//! What differs between two states of the volume, by path.
//!
//! `tree::difference` says which keys differ, and passes over all that the two trees share; here their inodes get their
//! names. So the cost is what changed, and the directories that changed files lie in, however large the volume is. Memory
//! is some hundred bytes for each change.
//!
//! A path is compared with itself: a file that was replaced by another, as editors do it, has changed, unless that is a restored
//! copy, which has the same frames. A name that is gone
//! and one that is new are a renaming if they are of one inode. Below a directory that was renamed only it is told of.
//! Access times, and what a directory's times say about its names, are no changes.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use bytes::Bytes;

use super::names::{Name, Names};
use super::versions::FileState;
use super::{Snapshot, SnapshotError};
use crate::errno::Errno;
use crate::format::{EntryRecord, InodeRecord, Key, Pointer};
use crate::operations::{FileKind, Inode};
use crate::tree::difference::{Difference, Differing};
use crate::volume::Volume;
use crate::volume::fetch::CachedNodes;

/// A file, directory or other node, as one of the two states has it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PathState {
    /// Its path from the root, without a slash before it; the root's is empty.
    pub path: Bytes,
    /// What it is.
    pub kind: FileKind,
    /// Bytes of content.
    pub size: u64,
}

/// What became of a path; see the file's header.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PathChange {
    /// What it was, if it was there.
    pub before: Option<PathState>,
    /// What it is then, if it is there.
    pub after: Option<PathState>,
    /// Whether its content differs, or it is there in one state only.
    pub is_content_changed: bool,
    /// Whether its owner, mode, extended attributes or the like differ; or, with the same content, its time.
    pub are_attributes_changed: bool,
    /// Whether it got this name in between.
    pub is_renamed: bool,
}

impl PathChange {
    fn says_something(&self) -> bool {
        self.is_content_changed || self.are_attributes_changed || self.is_renamed
    }
}

/// A name that stands for another inode.
struct Renamed {
    name: Name,
    before: Option<EntryRecord>,
    after: Option<EntryRecord>,
}

/// What the trees' keys say.
#[derive(Default)]
struct Keys {
    entries: Vec<Renamed>,
    records: HashMap<u64, [Option<InodeRecord>; 2]>,
    /// Inodes whose extended attributes differ.
    attributes: HashSet<u64>,
}

impl Keys {
    fn take(&mut self, differing: Differing) -> Option<()> {
        let Differing { key: bytes, left, right } = differing;
        match Key::decode(&bytes) {
            Some(Key::Entry(directory, _, name)) => {
                let decode = |value: Option<Bytes>| value.map(|value| EntryRecord::decode(&value));
                let (before, after) = (transposed(decode(left))?, transposed(decode(right))?);
                let is_same =
                    matches!((&before, &after), (Some(before), Some(after)) if before.inode == after.inode);
                if !is_same {
                    self.entries.push(Renamed { name: (directory, name), before, after });
                }
            }
            Some(Key::Inode(inode)) => {
                let decode = |value: Option<Bytes>| value.map(|value| InodeRecord::decode(&value));
                self.records.insert(inode, [transposed(decode(left))?, transposed(decode(right))?]);
            }
            Some(Key::Xattr(inode, _)) => self.attributes.extend([inode]),
            // The records of files say whether their content differs. It may lie elsewhere and be the same.
            Some(_) => {}
            None => return Key::is_of_unknown_kind(&bytes).then_some(()),
        }
        Some(())
    }
}

/// `None` for what is there and malformed.
fn transposed<T>(value: Option<Option<T>>) -> Option<Option<T>> {
    match value {
        None => Some(None),
        Some(value) => value.map(Some),
    }
}

impl Volume {
    /// Returns what differs between two snapshots, or between one and what is now (`None`), in the order of paths.
    ///
    /// # Errors
    ///
    /// [`SnapshotError::Unreachable`] if what is now can't be known, or that a tree can't be read.
    ///
    /// # Suspends
    ///
    /// While nodes are fetched.
    pub fn changes_between(
        &self,
        before: Option<&Snapshot>,
        after: Option<&Snapshot>,
    ) -> Result<Vec<PathChange>, SnapshotError> {
        let trees = [self.tree_at(before)?, self.tree_at(after)?];
        let mut keys = Keys::default();
        let mut walk = Difference::new(trees[0], trees[1], &Key::Inode(Inode::ROOT.0));
        while let Some(differing) = walk.next(&CachedNodes(self))? {
            keys.take(differing).ok_or(Errno::EIO)?;
        }
        let names = trees.map(|tree| Names::new(self, tree));
        Ok(Comparison { volume: self, trees, names, keys }.changes()?)
    }

    /// Returns the tree of a snapshot, or of what is stored now.
    pub(super) fn tree_at(&self, snapshot: Option<&Snapshot>) -> Result<Option<Pointer>, SnapshotError> {
        if let Some(snapshot) = snapshot {
            return Ok(Some(snapshot.record.tree));
        }
        self.refresh();
        if self.freshness.is_unreachable() {
            return Err(SnapshotError::Unreachable);
        }
        Ok(self.state.borrow().tree)
    }
}

/// The two states, 0 before and 1 after.
struct Comparison<'a> {
    volume: &'a Volume,
    trees: [Option<Pointer>; 2],
    names: [Names<'a>; 2],
    keys: Keys,
}

impl Comparison<'_> {
    fn changes(mut self) -> Result<Vec<PathChange>, Errno> {
        let in_place = self.changed_in_place()?;
        self.learn(&in_place)?;
        let mut changes = Vec::new();
        for (inode, names) in &in_place {
            for name in names {
                changes.push(self.change([Some((name, *inode)), Some((name, *inode))])?);
            }
        }
        let (mut gone, mut new) = (BTreeMap::new(), BTreeMap::new());
        for Renamed { name, before, after } in &self.keys.entries {
            match (before, after) {
                (Some(before), Some(after)) => {
                    changes.push(self.change([Some((name, before.inode)), Some((name, after.inode))])?);
                }
                (Some(before), None) => drop(gone.insert(self.names[0].path(name)?, (name, before.inode))),
                (None, Some(after)) => drop(new.insert(self.names[1].path(name)?, (name, after.inode))),
                (None, None) => {}
            }
        }
        // A directory that was made anew has the same paths below it.
        for path in gone.keys().filter(|path| new.contains_key(*path)).cloned().collect::<Vec<_>>() {
            changes.push(self.change([gone.remove(&path), new.remove(&path)])?);
        }
        let mut old_paths: HashMap<u64, Vec<Bytes>> = HashMap::new();
        gone.iter().for_each(|(path, (_, inode))| old_paths.entry(*inode).or_default().push(path.clone()));
        for named in new.into_values() {
            let old = old_paths.get_mut(&named.1).and_then(Vec::pop).and_then(|path| gone.remove(&path));
            changes.push(PathChange { is_renamed: old.is_some(), ..self.change([old, Some(named)])? });
        }
        for named in gone.into_values() {
            changes.push(self.change([Some(named), None])?);
        }
        changes.retain(PathChange::says_something);
        let path = |change: &PathChange| {
            let shown = change.after.as_ref().or(change.before.as_ref());
            shown.map(|state| state.path.clone())
        };
        changes.sort_by_cached_key(path);
        Ok(changes)
    }

    /// Returns the inodes that differ and are there in both states, with those of their names that are as they were.
    fn changed_in_place(&self) -> Result<BTreeMap<u64, Vec<Name>>, Errno> {
        let Keys { entries, records, attributes } = &self.keys;
        let mut changed: HashMap<u64, InodeRecord> = HashMap::new();
        for (inode, record) in records {
            if let [Some(before), Some(after)] = record
                && differs(before, after)
            {
                changed.insert(*inode, after.clone());
            }
        }
        for inode in attributes {
            let is_new_or_gone = matches!(records.get(inode), Some([None, _] | [_, None]));
            if !is_new_or_gone && let Some(record) = self.record(1, *inode)? {
                changed.insert(*inode, record);
            }
        }
        let moved: HashSet<&Name> = entries.iter().map(|entry| &entry.name).collect();
        let named = self.names[1].of(changed.iter().map(|(inode, record)| (*inode, record)))?;
        let mut in_place: BTreeMap<u64, Vec<Name>> = BTreeMap::new();
        for (inode, mut names) in named {
            names.retain(|name| !moved.contains(name));
            in_place.insert(inode, names);
        }
        if changed.contains_key(&Inode::ROOT.0) {
            in_place.insert(Inode::ROOT.0, vec![(Inode::ROOT.0, Bytes::new())]);
        }
        Ok(in_place)
    }

    /// Finds the paths of all directories that names are to be shown in.
    fn learn(&mut self, in_place: &BTreeMap<u64, Vec<Name>>) -> Result<(), Errno> {
        let unmoved = in_place.values().flatten().map(|(directory, _)| *directory);
        let mut wanted = [BTreeSet::from_iter(unmoved), BTreeSet::new()];
        wanted[1] = wanted[0].clone();
        for Renamed { name: (directory, _), before, after } in &self.keys.entries {
            wanted[0].extend(before.as_ref().map(|_| *directory));
            wanted[1].extend(after.as_ref().map(|_| *directory));
        }
        self.names.iter_mut().zip(wanted).try_for_each(|(names, wanted)| names.learn(wanted))
    }

    fn record(&self, side: usize, inode: u64) -> Result<Option<InodeRecord>, Errno> {
        match self.keys.records.get(&inode) {
            Some(records) => Ok(records[side].clone()),
            None => self.names[side].record(inode),
        }
    }

    /// Returns what became of a name, which stands for these inodes.
    fn change(&self, sides: [Option<(&Name, u64)>; 2]) -> Result<PathChange, Errno> {
        let (mut states, mut records) = ([None, None], [None, None]);
        for (side, named) in sides.into_iter().enumerate() {
            let Some((name, inode)) = named else { continue };
            // What a later version put there has a name, and perhaps no record that this one knows.
            let record = self.record(side, inode)?;
            let (kind, size) =
                record.as_ref().map_or((FileKind::Unknown, 0), |record| (record.kind, record.size));
            states[side] = Some(PathState { path: self.names[side].path(name)?, kind, size });
            records[side] = record;
        }
        let [before, after] = states;
        let inodes = sides.map(|side| side.map(|(_, inode)| inode));
        let is_directory = |record: &InodeRecord| record.kind == FileKind::Directory;
        let (is_content_changed, are_attributes_changed) = match (&records, inodes) {
            ([Some(before), Some(after)], [Some(old), Some(new)]) => {
                let is_content_changed = if old == new {
                    before.content != after.content
                } else if is_directory(before) && is_directory(after) {
                    false
                } else {
                    // One may have been restored from the other.
                    let [of_before, of_after] = [(0, old, before), (1, new, after)]
                        .map(|(side, inode, record)| FileState::of(inode, record, self.trees[side]));
                    !self.volume.have_one_content(&of_before, &of_after)?
                };
                let is_touched = !is_content_changed && touched(before, after);
                let attributes = attributes(before) != attributes(after);
                // Of one that was made anew all are new: whether they are the same ones is not looked at.
                let are_listed = self.keys.attributes.contains(&new) && (old == new || !is_content_changed);
                (is_content_changed, is_touched || attributes || are_listed)
            }
            _ => (inodes[0] != inodes[1], false),
        };
        Ok(PathChange { before, after, is_content_changed, are_attributes_changed, is_renamed: false })
    }
}

/// Whether people would call it a change.
fn differs(before: &InodeRecord, after: &InodeRecord) -> bool {
    before.content != after.content || touched(before, after) || attributes(before) != attributes(after)
}

/// Whether its times say that it was changed; those of a directory do so whenever a name is.
fn touched(before: &InodeRecord, after: &InodeRecord) -> bool {
    after.kind != FileKind::Directory && before.mtime != after.mtime
}

fn attributes(record: &InodeRecord) -> [u32; 6] {
    let InodeRecord { mode, uid, gid, rdev, flags, project, .. } = *record;
    [mode, uid, gid, rdev, flags, project]
}
