//! Which names inodes have in a tree of the past: keys say what changed, and people know files by their paths.
//!
//! An inode's record says in which directory it was last named, and not how. So its names are looked for in that directory;
//! those of many inodes together, each directory once. Where that is not all of them (a file with several names), the
//! names of the whole tree are gone through, for all such files together: rare, and better than to leave one out.

use std::collections::{BTreeSet, HashMap, HashSet};

use bytes::Bytes;

use super::super::Volume;
use super::super::state::{Change, entry_range};
use crate::errno::Errno;
use crate::format::{EntryRecord, InodeRecord, Key, Pointer};
use crate::operations::{FileKind, Inode};

/// Paths are bounded by what the kernel resolves; a damaged tree must not spin here.
const DEPTH_MAX: usize = 4096;
/// After so many names others get their turn: some hundred microseconds.
const TURN: usize = 256;

/// A name: its directory's number, and what it is called there.
pub(super) type Name = (u64, Bytes);

/// What a tree names how; see the file's header.
pub(super) struct Names<'a> {
    volume: &'a Volume,
    tree: Option<Pointer>,
    /// Of each directory that was asked for, and of those above it: where it is, and how it is called there.
    directories: HashMap<u64, Name>,
}

impl<'a> Names<'a> {
    pub(super) fn new(volume: &'a Volume, tree: Option<Pointer>) -> Names<'a> {
        Names { volume, tree, directories: HashMap::new() }
    }

    fn get(&self, key: &Key) -> Result<Option<Change>, Errno> {
        match &self.tree {
            Some(tree) => self.volume.step(|state| state.get_in(tree, key)),
            None => Ok(None),
        }
    }

    /// Returns the record of an inode, if it is there.
    ///
    /// # Suspends
    ///
    /// While nodes are fetched, as all that asks the tree here.
    pub(super) fn record(&self, inode: u64) -> Result<Option<InodeRecord>, Errno> {
        match self.get(&Key::Inode(inode))? {
            None => Ok(None),
            Some(Change::Inode(record)) => Ok(Some(record)),
            Some(_) => Err(Errno::EIO),
        }
    }

    /// Returns what `path` names, with its record.
    pub(super) fn resolve(&self, path: &[u8]) -> Result<Option<(u64, InodeRecord)>, Errno> {
        let mut inode = Inode::ROOT.0;
        for part in path.split(|byte| *byte == b'/').filter(|part| !part.is_empty()) {
            let key = self.volume.state.borrow().entry_key(inode, part)?;
            match self.get(&key)? {
                None => return Ok(None),
                Some(Change::Entry(entry)) => inode = entry.inode,
                Some(_) => return Err(Errno::EIO),
            }
        }
        Ok(self.record(inode)?.map(|record| (inode, record)))
    }

    /// Finds out where those directories are.
    pub(super) fn learn(&mut self, directories: impl IntoIterator<Item = u64>) -> Result<(), Errno> {
        let mut waiting: Vec<u64> = directories.into_iter().collect();
        let mut unnamed: HashMap<u64, BTreeSet<u64>> = HashMap::new();
        let mut seen = HashSet::from([Inode::ROOT.0]);
        while let Some(directory) = waiting.pop() {
            if self.directories.contains_key(&directory) || !seen.insert(directory) {
                continue;
            }
            let parent = self.record(directory)?.ok_or(Errno::EIO)?.parent;
            unnamed.entry(parent).or_default().insert(directory);
            waiting.push(parent);
        }
        for (parent, mut wanted) in unnamed {
            let mut found = Vec::new();
            self.visit(entry_range(parent), |(parent, name), entry| {
                if wanted.remove(&entry.inode) {
                    found.push((entry.inode, (parent, name)));
                }
                !wanted.is_empty()
            })?;
            self.directories.extend(found);
        }
        Ok(())
    }

    /// Returns the path of a name, without a slash before it; its directory has been learnt.
    ///
    /// # Errors
    ///
    /// `EIO` if the tree does not say.
    pub(super) fn path(&self, (directory, name): &Name) -> Result<Bytes, Errno> {
        let (mut parts, mut above) = (vec![name], *directory);
        while above != Inode::ROOT.0 {
            let (next, name) = self.directories.get(&above).ok_or(Errno::EIO)?;
            parts.push(name);
            above = *next;
            if parts.len() > DEPTH_MAX {
                return Err(Errno::EIO);
            }
        }
        parts.reverse();
        Ok(parts.iter().map(|part| part.as_ref()).collect::<Vec<&[u8]>>().join(&b'/').into())
    }

    /// Returns all names of those inodes, whose records these are.
    pub(super) fn of<'r>(
        &self,
        inodes: impl IntoIterator<Item = (u64, &'r InodeRecord)>,
    ) -> Result<HashMap<u64, Vec<Name>>, Errno> {
        let mut names: HashMap<u64, Vec<Name>> = HashMap::new();
        let mut missing: HashMap<u64, usize> = HashMap::new();
        let mut by_directory: HashMap<u64, BTreeSet<u64>> = HashMap::new();
        for (inode, record) in inodes {
            let count = if record.kind == FileKind::Directory { 1 } else { record.nlink as usize };
            // What has none was open somewhere; the root needs none.
            if count > 0 && record.nlink > 0 && inode != Inode::ROOT.0 {
                missing.insert(inode, count);
                by_directory.entry(record.parent).or_default().insert(inode);
            }
        }
        for (directory, wanted) in by_directory {
            let mut left: usize = wanted.iter().map(|inode| missing[inode]).sum();
            self.visit(entry_range(directory), |name, entry| {
                if wanted.contains(&entry.inode) {
                    names.entry(entry.inode).or_default().push(name);
                    left = left.saturating_sub(1);
                }
                left > 0
            })?;
        }
        missing.retain(|inode, count| names.get(inode).map_or(0, Vec::len) < *count);
        if !missing.is_empty() {
            missing.keys().for_each(|inode| drop(names.remove(inode)));
            let all = (Key::Inode(Inode::ROOT.0), Key::Extent(u64::MAX, u64::MAX));
            let mut left: usize = missing.values().sum();
            self.visit(all, |name, entry| {
                if missing.contains_key(&entry.inode) {
                    names.entry(entry.inode).or_default().push(name);
                    left = left.saturating_sub(1);
                }
                left > 0
            })?;
        }
        Ok(names)
    }

    /// Shows each name of a range to `visit`, until it has had enough.
    fn visit(
        &self,
        (mut from, end): (Key, Key),
        mut visit: impl FnMut(Name, &EntryRecord) -> bool,
    ) -> Result<(), Errno> {
        let Some(tree) = self.tree else { return Ok(()) };
        for turn in 1usize.. {
            let Some((key, change)) = self.volume.step(|state| state.next_in(&tree, &from, &end))? else {
                break;
            };
            from = key.successor();
            if let (Key::Entry(directory, _, name), Change::Entry(entry)) = (key, change)
                && !visit((directory, name), &entry)
            {
                break;
            }
            if turn.is_multiple_of(TURN) {
                reactor::yield_now();
            }
        }
        Ok(())
    }
}
