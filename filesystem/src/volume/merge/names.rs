//! Names in a merge: which of two stands, and what the other is called.

use bytes::Bytes;

use super::Merge;
use super::records::{conflict_name, without_conflict};
use super::sides::{Name, name_of};
use crate::errno::Errno;
use crate::format::{EntryRecord, InodeRecord, Key};
use crate::operations::{FileKind, Inode, Invalidation};
use crate::volume::state::{Change, entry_range};

impl Merge<'_> {
    /// Makes `key` name `new`, and counts what that changes against theirs.
    pub(super) fn apply(&mut self, key: &Key, new: Name) -> Result<(), Errno> {
        if name_of(self.ours.get(key)) != new {
            self.tell(key);
        }
        self.count(key, -1)?;
        let change = new.map_or(Change::Removed, Change::Entry);
        self.result.insert(key.clone(), change);
        self.count(key, 1)
    }

    /// Leaves `key` as theirs has it.
    pub(super) fn undo(&mut self, key: &Key) -> Result<(), Errno> {
        self.count(key, -1)?;
        self.result.remove(key);
        self.count(key, 1)?;
        // We showed it to the kernel otherwise, and perhaps neither tree ever had it so.
        self.tell(key);
        Ok(())
    }

    /// Notes a name that is another than we have shown: the kernel forgets it, and programs see that the directory changed.
    fn tell(&mut self, key: &Key) {
        if let Key::Entry(directory, _, name) = key {
            self.touched.insert(*directory);
            self.merged.invalidations.push(Invalidation::Entry(Inode(*directory), name.clone()));
            self.merged.invalidations.push(Invalidation::Inode(Inode(*directory)));
        }
    }

    /// Returns what `key` names as far as the merge has come.
    pub(super) fn merged_name(&self, key: &Key) -> Result<Name, Errno> {
        match self.result.get(key) {
            Some(change) => Ok(name_of(Some(change))),
            None => self.theirs.name(key),
        }
    }

    fn count(&mut self, key: &Key, by: i64) -> Result<(), Errno> {
        if let (Some(entry), Key::Entry(directory, ..)) = (self.merged_name(key)?, key) {
            *self.names.entry(entry.inode).or_default() += by;
            if entry.kind == FileKind::Directory {
                *self.subdirectories.entry(*directory).or_default() += by;
            }
        }
        Ok(())
    }

    /// Merges one name that we changed.
    pub(super) fn entry(&mut self, key: &Key, ours: Name) -> Result<(), Errno> {
        let (base, theirs) = (self.base.name(key)?, self.theirs.name(key)?);
        if ours == base || ours == theirs {
            return Ok(());
        }
        if theirs == base || theirs.is_none() {
            return self.apply(key, ours);
        }
        match ours {
            // It is another file than the one that we removed.
            None => Ok(()),
            Some(ours) => self.move_aside(key, ours),
        }
    }

    /// Gives what has lost the name `key` to theirs a name of a conflict beside it.
    pub(super) fn move_aside(&mut self, key: &Key, entry: EntryRecord) -> Result<(), Errno> {
        let Key::Entry(directory, _, name) = key else { return Ok(()) };
        let free = self.free_name(*directory, name, entry.kind)?;
        self.tell(key);
        self.apply(&free, Some(entry))
    }

    /// Returns the key of a conflict name that is free, and notes that `name` is in conflict.
    fn free_name(&mut self, directory: u64, name: &[u8], kind: FileKind) -> Result<Key, Errno> {
        let bare = without_conflict(name);
        for number in 1u32.. {
            let long = conflict_name(&bare, kind, &self.suffix, number);
            let key = self.volume.state.borrow().entry_key(directory, &long)?;
            if self.merged_name(&key)?.is_none() && !self.ours.contains_key(&key) {
                self.merged.conflicts.push((name.to_vec(), long));
                return Ok(key);
            }
        }
        unreachable!("a directory has fewer names than there are numbers")
    }

    /// Returns a free conflict name for a file of ours that has lost its own: beside where it was.
    pub(super) fn name_of_lost(&mut self, inode: u64, record: &InodeRecord) -> Result<Key, Errno> {
        if let Some(Key::Entry(directory, _, name)) = self.places.get(&inode).cloned() {
            return self.free_name(directory, &name, record.kind);
        }
        let (directory, name) = self.name_in_base(inode, record)?;
        self.free_name(directory, &name, record.kind)
    }

    /// Finds where an inode was named in the base, or makes up a name.
    pub(super) fn name_in_base(&self, inode: u64, record: &InodeRecord) -> Result<(u64, Bytes), Errno> {
        let parent = self.base.record(inode)?.map_or(record.parent, |record| record.parent);
        // A directory may be large: it is read once, leaf by leaf, and only for a file that is in conflict.
        let mut entries = self.base.scan(entry_range(parent));
        while let Some((key, change)) = entries.next()? {
            if let (Key::Entry(_, _, name), Change::Entry(entry)) = (key, change)
                && entry.inode == inode
            {
                return Ok((parent, name));
            }
        }
        let exists = parent == Inode::ROOT.0 || self.base.record(parent)?.is_some();
        let parent = if exists { parent } else { Inode::ROOT.0 };
        Ok((parent, Bytes::from(format!("recovered {inode:x}"))))
    }
}
