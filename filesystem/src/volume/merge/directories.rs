//! Directories in a merge: each keeps one name, outside itself, and nothing that anyone put into one is lost with it.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use super::{Merge, name_of};
use crate::format::{EntryRecord, Key};
use crate::operations::{FileKind, Inode, Invalidation};
use crate::volume::state::{Change, Step, entry_range};

impl Merge<'_> {
    /// Directories have one name, are not inside themselves, and do not go with what the other put into them. Where our
    /// changes would break that, theirs stands; whatever we had put in its place moves to a conflict name.
    ///
    /// Each round may move something that the next has to look at; every directory is settled once at the most.
    pub(super) fn settle_directories(&mut self) -> Step<()> {
        let mut settled: HashSet<u64> = HashSet::new();
        loop {
            let mut changed = false;
            self.index_places();
            let sources = self.sources()?;
            let placed = self.result.values().filter_map(|change| match change {
                Change::Entry(entry) if entry.kind == FileKind::Directory => Some(entry.inode),
                _ => None,
            });
            let candidates: BTreeSet<u64> = sources.keys().copied().chain(placed).collect();
            for inode in candidates {
                if settled.contains(&inode) || self.their_record(inode)?.is_none() || !self.is_wrong(inode)? {
                    continue;
                }
                settled.insert(inode);
                self.restore_directory(inode, sources.get(&inode))?;
                self.index_places();
                changed = true;
            }
            changed |= self.bring_back_directories()?;
            if !changed {
                return Ok(());
            }
        }
    }

    /// Returns the directories whose name in theirs we change, with that name.
    fn sources(&mut self) -> Step<BTreeMap<u64, Key>> {
        let keys: Vec<Key> =
            self.result.keys().filter(|key| matches!(key, Key::Entry(..))).cloned().collect();
        let mut sources = BTreeMap::new();
        for key in keys {
            let theirs = name_of(self.theirs(&key)?.as_ref());
            if let Some(entry) = theirs.as_ref().filter(|entry| entry.kind == FileKind::Directory)
                && self.merged_name(&key)? != theirs
            {
                sources.insert(entry.inode, key);
            }
        }
        Ok(sources)
    }

    fn is_wrong(&mut self, inode: u64) -> Step<bool> {
        let names = self.names.get(&inode).copied().unwrap_or(0);
        let is_removed = self.ours.contains_key(&Key::Inode(inode)) && self.our_record(inode).is_none();
        if names > 0 || (names < 0 && !is_removed) {
            return Ok(true);
        }
        if names < 0 {
            let entries = self.range(self.theirs, entry_range(inode))?;
            return Ok(entries.iter().any(|(key, _)| !matches!(self.result.get(key), Some(Change::Removed))));
        }
        Ok(self.places.contains_key(&inode) && self.is_inside_itself(inode)?)
    }

    fn restore_directory(&mut self, inode: u64, source: Option<&Key>) -> Step<()> {
        let ours: Vec<Key> = (self.result.iter())
            .filter(|(_, change)| matches!(change, Change::Entry(entry) if entry.inode == inode))
            .map(|(key, _)| key.clone())
            .collect();
        for key in ours {
            self.undo(&key)?;
        }
        if let Some(key @ Key::Entry(directory, _, name)) = source {
            let displaced = self.merged_name(key)?.filter(|other| other.inode != inode);
            self.undo(key)?;
            if displaced.is_some() {
                let key = self.free_name(*directory, name)?;
                self.apply(&key, displaced)?;
            }
        }
        self.invalidations.push(Invalidation::Inode(Inode(inode)));
        Ok(())
    }

    /// Returns the directory that holds directory `inode` after the merge.
    fn merged_parent(&mut self, inode: u64) -> Step<Option<u64>> {
        if let Some(directory) = self.places.get(&inode) {
            return Ok(Some(*directory));
        }
        Ok(self.their_record(inode)?.or(self.our_record(inode)).map(|record| record.parent))
    }

    fn is_inside_itself(&mut self, inode: u64) -> Step<bool> {
        let mut at = inode;
        for _ in 0..4096 {
            match self.merged_parent(at)? {
                _ if at == Inode::ROOT.0 => return Ok(false),
                Some(parent) if parent == inode => return Ok(true),
                Some(parent) => at = parent,
                // A directory that is to be brought back.
                None => return Ok(false),
            }
        }
        Ok(true)
    }

    /// Directories that they removed and that we put names into come back, under the name they had. Returns whether
    /// there are any.
    pub(super) fn bring_back_directories(&mut self) -> Step<bool> {
        let mut any = false;
        loop {
            let directories: BTreeSet<u64> = (self.result.iter())
                .filter_map(|(key, change)| match (key, change) {
                    (Key::Entry(directory, ..), Change::Entry(..)) => Some(*directory),
                    _ => None,
                })
                .collect();
            let mut again = false;
            for directory in directories {
                let is_named = self.names.get(&directory).is_some_and(|names| *names > 0);
                if directory == Inode::ROOT.0 || is_named || self.their_record(directory)?.is_some() {
                    continue;
                }
                let Some(record) = self.our_record(directory).or(self.base_record(directory)?) else {
                    continue;
                };
                let (parent, name) = self.name_in_base(directory, &record)?;
                let mut key = self.state.entry_key(parent, &name)?;
                if self.merged_name(&key)?.is_some() {
                    key = self.free_name(parent, &name)?;
                }
                self.apply(&key, Some(EntryRecord::new(directory, FileKind::Directory)))?;
                again = true;
            }
            if !again {
                return Ok(any);
            }
            any = true;
        }
    }
}
