//! Directories in a merge: each keeps one name, outside itself, and nothing that anyone put into one is lost with it.
//! Two new ones of one name become one.

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};

use super::Merge;
use super::records::is_content_changed;
use super::sides::{Name, name_of};
use crate::errno::Errno;
use crate::format::{EntryRecord, Key};
use crate::operations::{FileKind, Inode, Invalidation};
use crate::volume::state::{Change, entry_range};

/// More directories above each other than any path has: a damaged tree must not spin here.
const DEPTH_MAX: usize = 4096;

impl Merge<'_> {
    /// Where both made a directory of one name, what is in ours goes into theirs, before any name is merged.
    pub(super) fn unite_directories(&mut self) -> Result<(), Errno> {
        // Parents first: only where a directory went into theirs can a name in it meet one of theirs.
        let mut todo: VecDeque<Key> = VecDeque::new();
        for (key, change) in &self.ours {
            if matches!(change, Change::Entry(entry) if entry.kind == FileKind::Directory) {
                todo.push_back(key.clone());
            }
        }
        while let Some(key) = todo.pop_front() {
            let Some(ours) = directory_of(name_of(self.ours.get(&key))) else { continue };
            let Some(theirs) = directory_of(self.theirs.name(&key)?) else { continue };
            if ours == theirs || !self.is_new_directory(ours)? || !self.takes_in(theirs)? {
                continue;
            }
            todo.extend(self.unite(&key, ours, theirs)?);
        }
        Ok(())
    }

    fn is_new_directory(&self, inode: u64) -> Result<bool, Errno> {
        Ok(self.our_record(inode).is_some()
            && self.base.record(inode)?.is_none()
            && self.theirs.record(inode)?.is_none())
    }

    /// Whether a directory of theirs is new too, or one that we removed and they changed: then it stays.
    fn takes_in(&self, theirs: u64) -> Result<bool, Errno> {
        let Some(base) = self.base.record(theirs)? else { return Ok(true) };
        let is_removed = self.ours.contains_key(&Key::Inode(theirs)) && self.our_record(theirs).is_none();
        Ok(is_removed && self.theirs.record(theirs)?.is_some_and(|record| record != base))
    }

    /// Moves all that is in `from` to `to`; `key` is the name of both. Returns the directories among it.
    fn unite(&mut self, key: &Key, from: u64, to: u64) -> Result<Vec<Key>, Errno> {
        self.ours.remove(key);
        self.ours.remove(&Key::Inode(to));
        self.ours.remove(&Key::Orphan(to));
        self.ours.remove(&Key::Inode(from));
        // Whoever is in it sees more names than before.
        self.touched.insert(to);
        self.merged.invalidations.push(Invalidation::Inode(Inode(from)));
        let range = Key::Inode(from)..=Key::Extent(from, u64::MAX);
        let moved: Vec<Key> = self.ours.range(range).map(|(key, _)| key.clone()).collect();
        let mut directories = Vec::new();
        for key in moved {
            let Some(change) = self.ours.remove(&key).filter(|change| !matches!(change, Change::Removed))
            else {
                continue;
            };
            let new = key.moved(to);
            if let Some(entry) = name_of(Some(&change)) {
                if let Some(Change::Inode(record)) = self.ours.get_mut(&Key::Inode(entry.inode))
                    && record.parent == from
                {
                    record.parent = to;
                }
                if entry.kind == FileKind::Directory {
                    directories.push(new.clone());
                }
            } else if self.theirs.get(&new)?.is_some() {
                // Of an extended attribute that both have, theirs stands, as of all attributes of the directory.
                continue;
            }
            self.ours.insert(new, change);
        }
        self.merged.united.push((from, to));
        Ok(directories)
    }

    /// Directories have one name, are not inside themselves, and do not go with what the other put into them; a file
    /// does not go with what the other wrote to it, nor does a rename by both make two names of one. Where our changes
    /// would break that, theirs stands; whatever we had put in its place moves to a conflict name.
    ///
    /// Each round may move something that the next has to look at; every inode is settled once at the most.
    pub(super) fn settle(&mut self) -> Result<(), Errno> {
        let mut settled: HashSet<u64> = HashSet::new();
        loop {
            let mut changed = false;
            self.index_places();
            let sources = self.sources()?;
            let candidates: BTreeSet<u64> = sources.keys().chain(self.places.keys()).copied().collect();
            for inode in candidates {
                if settled.contains(&inode) || !self.is_wrong(inode)? {
                    continue;
                }
                settled.insert(inode);
                self.restore_names(inode, sources.get(&inode).map_or(&[], Vec::as_slice))?;
                self.index_places();
                changed = true;
            }
            changed |= self.bring_back_directories()?;
            if !changed {
                return Ok(());
            }
        }
    }

    /// Returns what theirs names where we name something else, or nothing any more, with those names.
    fn sources(&self) -> Result<BTreeMap<u64, Vec<Key>>, Errno> {
        let mut sources: BTreeMap<u64, Vec<Key>> = BTreeMap::new();
        for (key, change) in &self.result {
            if let Key::Entry(..) = key
                && let Some(entry) = self.theirs.name(key)?
                && name_of(Some(change)).is_none_or(|ours| ours.inode != entry.inode)
            {
                sources.entry(entry.inode).or_default().push(key.clone());
            }
        }
        Ok(sources)
    }

    fn is_wrong(&self, inode: u64) -> Result<bool, Errno> {
        let Some(theirs) = self.their_record(inode)? else { return Ok(false) };
        let names = self.names.get(&inode).copied().unwrap_or(0);
        if theirs.kind != FileKind::Directory {
            let Some(base) = self.base.record(inode)? else { return Ok(false) };
            let is_gone = i64::from(theirs.nlink) + names <= 0;
            let moved_once = |record: Option<u32>| record == Some(1);
            let both_moved = names > 0
                && [Some(base.nlink), Some(theirs.nlink), self.our_record(inode).map(|record| record.nlink)]
                    .into_iter()
                    .all(moved_once);
            return Ok(both_moved || (is_gone && is_content_changed(Some(&base), &theirs)));
        }
        let is_removed = self.ours.contains_key(&Key::Inode(inode)) && self.our_record(inode).is_none();
        if names > 0 || (names < 0 && !is_removed) {
            return Ok(true);
        }
        if names < 0 {
            let mut entries = self.theirs.scan(entry_range(inode));
            while let Some((key, _)) = entries.next()? {
                if !matches!(self.result.get(&key), Some(Change::Removed)) {
                    return Ok(true);
                }
            }
            return Ok(false);
        }
        Ok(self.places.contains_key(&inode) && self.is_inside_itself(inode)?)
    }

    /// Gives an inode the names that it has in theirs, and no other.
    fn restore_names(&mut self, inode: u64, sources: &[Key]) -> Result<(), Errno> {
        let ours: Vec<Key> = (self.result.iter())
            .filter(|(_, change)| matches!(change, Change::Entry(entry) if entry.inode == inode))
            .map(|(key, _)| key.clone())
            .collect();
        for key in ours {
            self.undo(&key)?;
        }
        for key in sources {
            let displaced = self.merged_name(key)?.filter(|other| other.inode != inode);
            self.undo(key)?;
            if let Some(displaced) = displaced {
                self.move_aside(key, displaced)?;
            }
        }
        self.merged.invalidations.push(Invalidation::Inode(Inode(inode)));
        Ok(())
    }

    /// Returns the directory that holds directory `inode` after the merge.
    fn merged_parent(&self, inode: u64) -> Result<Option<u64>, Errno> {
        if let Some(Key::Entry(directory, ..)) = self.places.get(&inode) {
            return Ok(Some(*directory));
        }
        Ok(self.their_record(inode)?.or(self.our_record(inode)).map(|record| record.parent))
    }

    fn is_inside_itself(&self, inode: u64) -> Result<bool, Errno> {
        let mut at = inode;
        for _ in 0..DEPTH_MAX {
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
    fn bring_back_directories(&mut self) -> Result<bool, Errno> {
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
                let Some(record) = self.our_record(directory).or(self.base.record(directory)?) else {
                    continue;
                };
                let (parent, name) = self.name_in_base(directory, &record)?;
                let key = self.volume.state.borrow().entry_key(parent, &name)?;
                let entry = EntryRecord::new(directory, FileKind::Directory);
                match self.merged_name(&key)? {
                    None => self.apply(&key, Some(entry))?,
                    Some(_) => self.move_aside(&key, entry)?,
                }
                again = true;
            }
            if !again {
                return Ok(any);
            }
            any = true;
        }
    }
}

/// Returns the directory that a name leads to.
fn directory_of(name: Name) -> Option<u64> {
    name.filter(|entry| entry.kind == FileKind::Directory).map(|entry| entry.inode)
}
