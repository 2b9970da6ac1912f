//! What our changes become on top of another writer's tree: a three-way merge by key, with sense for names.
//!
//! *Base* is the tree that we started from, *theirs* the one that won, *ours* the changes that we have not published.
//! Where they left a key as it was, ours stands. Otherwise:
//!
//! - **names**: of two creations of one name theirs keeps it and ours becomes "name (conflict, author, time)"; a removal
//!   gives way to a new file of that name; a directory that we removed stays if they put something into it, and one that
//!   they removed comes back if we did; a directory that both moved, or that would end inside itself, stays where they
//!   put it;
//! - **content**: the last writer wins within a frame, and ours is the last; the larger size wins;
//! - **attributes**: what we changed is ours, the rest theirs; the number of names is counted anew from the names;
//! - a file that they removed while we wrote to it comes back, since our writes were acknowledged.
//!
//! This is one step over the state, like any operation: it stops where a node is missing, and it never half happens.

mod directories;
mod records;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use bytes::Bytes;
use dht::HeaderHash;

use super::state::{Change, Delta, State, Step, entry_range, extent_range, xattr_range};
use crate::format::{EntryRecord, InodeRecord, Key, Orphan, Pointer};
use crate::operations::{FileKind, Inode, Invalidation, NAME_SIZE_MAX, Time};

use records::{civil, merge_records};

type Name = Option<EntryRecord>;

/// The merge while it is worked out.
struct Merge<'a> {
    state: &'a mut State,
    base: Option<Pointer>,
    theirs: Option<Pointer>,
    ours: BTreeMap<Key, Change>,
    result: BTreeMap<Key, Change>,
    /// How many names more than in theirs each inode has.
    names: HashMap<u64, i64>,
    /// How many sub-directories more each directory has.
    subdirectories: HashMap<u64, i64>,
    /// Which directory names each inode that got a name.
    places: HashMap<u64, u64>,
    suffix: String,
    invalidations: Vec<Invalidation>,
}

impl State {
    /// Puts all uncommitted changes on top of the tree `theirs`, which is what `header` names.
    pub(crate) fn merge(
        &mut self,
        theirs: Option<Pointer>,
        header: HeaderHash,
        author: &str,
        now: Time,
    ) -> Step<Vec<Invalidation>> {
        let mut ours = self.committing.as_ref().map_or_else(BTreeMap::new, |delta| delta.changes.clone());
        ours.extend(self.active.changes.iter().map(|(key, change)| (key.clone(), change.clone())));
        let base = self.tree;
        let mut merge = Merge {
            state: self,
            base,
            theirs,
            ours,
            result: BTreeMap::new(),
            names: HashMap::new(),
            subdirectories: HashMap::new(),
            places: HashMap::new(),
            suffix: format!(" (conflict, {author}, {})", civil(now)),
            invalidations: Vec::new(),
        };
        merge.run()?;
        let Merge { result, invalidations, .. } = merge;

        self.tree = theirs;
        self.header = Some(header);
        self.committing = None;
        let number = self.active.number;
        self.active = Delta { number, ..Delta::default() };
        for (key, change) in result {
            self.set(key, change);
        }
        Ok(invalidations)
    }
}

impl Merge<'_> {
    fn run(&mut self) -> Step<()> {
        let ours: Vec<(Key, Change)> =
            self.ours.iter().map(|(key, change)| (key.clone(), change.clone())).collect();
        for (key, change) in &ours {
            match key {
                Key::Entry(..) => self.entry(key, name_of(Some(change)))?,
                Key::Extent(..) | Key::Xattr(..) | Key::Orphan(_) | Key::Truncation(_) | Key::Writer(_) => {
                    self.result.insert(key.clone(), change.clone());
                }
                Key::Inode(_) => {}
            }
        }
        self.settle_directories()?;
        let mut inodes: BTreeSet<u64> =
            self.names.keys().chain(self.subdirectories.keys()).copied().collect();
        inodes.extend(ours.iter().filter_map(|(key, _)| match key {
            Key::Inode(inode) => Some(*inode),
            _ => None,
        }));
        self.index_places();
        for inode in inodes {
            self.inode(inode)?;
        }
        Ok(())
    }

    fn index_places(&mut self) {
        self.places = (self.result.iter())
            .filter_map(|(key, change)| match (key, change) {
                (Key::Entry(directory, ..), Change::Entry(entry)) => Some((entry.inode, *directory)),
                _ => None,
            })
            .collect();
    }

    fn base(&mut self, key: &Key) -> Step<Option<Change>> {
        let Some(base) = self.base else { return Ok(None) };
        self.state.get_in(&base, key)
    }

    fn theirs(&mut self, key: &Key) -> Step<Option<Change>> {
        let Some(theirs) = self.theirs else { return Ok(None) };
        self.state.get_in(&theirs, key)
    }

    fn base_record(&mut self, inode: u64) -> Step<Option<InodeRecord>> {
        Ok(record_of(self.base(&Key::Inode(inode))?.as_ref()))
    }

    fn their_record(&mut self, inode: u64) -> Step<Option<InodeRecord>> {
        // A removed file that they have open is none for us.
        Ok(record_of(self.theirs(&Key::Inode(inode))?.as_ref()).filter(|record| record.nlink > 0))
    }

    fn our_record(&self, inode: u64) -> Option<InodeRecord> {
        record_of(self.ours.get(&Key::Inode(inode))).filter(|record| record.nlink > 0)
    }

    /// All in `from..end` of the tree at `tree`.
    fn range(&mut self, tree: Option<Pointer>, (from, end): (Key, Key)) -> Step<Vec<(Key, Change)>> {
        let mut all = Vec::new();
        let Some(tree) = tree else { return Ok(all) };
        let mut from = from;
        while let Some((key, change)) = self.state.next_in(&tree, &from, &end)? {
            from = key.successor();
            all.push((key, change));
        }
        Ok(all)
    }

    /// Makes `key` name `new`, and counts what that changes against theirs.
    fn apply(&mut self, key: &Key, new: Name) -> Step<()> {
        self.count(key, -1)?;
        let change = new.map_or(Change::Removed, Change::Entry);
        self.result.insert(key.clone(), change);
        self.count(key, 1)
    }

    /// Leaves `key` as theirs has it.
    fn undo(&mut self, key: &Key) -> Step<()> {
        self.count(key, -1)?;
        self.result.remove(key);
        self.count(key, 1)
    }

    fn merged_name(&mut self, key: &Key) -> Step<Name> {
        match self.result.get(key) {
            Some(change) => Ok(name_of(Some(change))),
            None => Ok(name_of(self.theirs(key)?.as_ref())),
        }
    }

    fn count(&mut self, key: &Key, by: i64) -> Step<()> {
        if let (Some(EntryRecord { inode, kind, .. }), Key::Entry(directory, ..)) =
            (self.merged_name(key)?, key)
        {
            *self.names.entry(inode).or_default() += by;
            if kind == FileKind::Directory {
                *self.subdirectories.entry(*directory).or_default() += by;
            }
        }
        Ok(())
    }

    fn entry(&mut self, key: &Key, ours: Name) -> Step<()> {
        let base = name_of(self.base(key)?.as_ref());
        let theirs = name_of(self.theirs(key)?.as_ref());
        if ours == base || ours == theirs {
            return Ok(());
        }
        if theirs == base || theirs.is_none() {
            return self.apply(key, ours);
        }
        let Some(ours) = ours else { return Ok(()) };
        let Key::Entry(directory, _, name) = key else { return Ok(()) };
        let key = self.free_name(*directory, name)?;
        self.invalidations.push(Invalidation::Entry(Inode(*directory), name.clone()));
        self.invalidations.push(Invalidation::Inode(Inode(*directory)));
        self.apply(&key, Some(ours))
    }

    /// Returns the key of a conflict name that is free.
    fn free_name(&mut self, directory: u64, name: &[u8]) -> Step<Key> {
        for number in 1u32.. {
            let suffix = match number {
                1 => self.suffix.clone(),
                number => format!("{} {number}", self.suffix),
            };
            let suffix = &suffix.as_bytes()[..suffix.len().min(NAME_SIZE_MAX / 2)];
            let mut long = name[..name.len().min(NAME_SIZE_MAX - suffix.len())].to_vec();
            long.extend_from_slice(suffix);
            long.retain(|byte| *byte != b'/' && *byte != 0);
            let key = self.state.entry_key(directory, &long)?;
            if self.merged_name(&key)?.is_none() && !self.ours.contains_key(&key) {
                return Ok(key);
            }
        }
        unreachable!("a directory has fewer names than there are numbers")
    }

    /// Finds where an inode was named in the base, or makes up a name.
    fn name_in_base(&mut self, inode: u64, record: &InodeRecord) -> Step<(u64, Bytes)> {
        let parent = match self.base_record(inode)? {
            Some(record) => record.parent,
            None => record.parent,
        };
        for (key, change) in self.range(self.base, entry_range(parent))? {
            if let (Key::Entry(_, _, name), Change::Entry(entry)) = (key, change)
                && entry.inode == inode
            {
                return Ok((parent, name));
            }
        }
        let exists = parent == Inode::ROOT.0 || self.base_record(parent)?.is_some();
        let parent = if exists { parent } else { Inode::ROOT.0 };
        Ok((parent, Bytes::from(format!("recovered {inode:x}"))))
    }

    fn inode(&mut self, inode: u64) -> Step<()> {
        let ours_change = self.ours.get(&Key::Inode(inode)).cloned();
        let ours = record_of(ours_change.as_ref());
        let base = self.base_record(inode)?;
        let theirs = self.their_record(inode)?;
        let Some(known) = ours.clone().or(theirs.clone()).or(base.clone()) else { return Ok(()) };
        let is_directory = known.kind == FileKind::Directory;
        let mut names = self.names.get(&inode).copied().unwrap_or(0)
            + match (&theirs, is_directory) {
                (None, _) => 0,
                (Some(_), true) => 1,
                (Some(theirs), false) => i64::from(theirs.nlink),
            };
        if inode == Inode::ROOT.0 {
            names = 1;
        }
        let wrote = self.wrote(inode);
        if names <= 0 && theirs.is_none() && base.is_some() && wrote && self.our_record(inode).is_some() {
            // They removed it, and our acknowledged writes have no name any more.
            let (parent, name) = self.name_in_base(inode, &known)?;
            let parent = if self.their_record(parent)?.is_some() { parent } else { Inode::ROOT.0 };
            let key = self.free_name(parent, &name)?;
            self.apply(&key, Some(EntryRecord::new(inode, known.kind)))?;
            names = 1;
            if let Some(mut record) =
                record_of(self.result.get(&Key::Inode(parent))).or(self.their_record(parent)?)
            {
                record.mtime = known.ctime;
                self.result.insert(Key::Inode(parent), Change::Inode(record));
            }
        }
        if names <= 0 {
            return self.without_name(inode, ours_change, theirs);
        }
        if theirs.is_none() && base.is_some() {
            self.restore_content(inode)?;
        } else if matches!(ours_change, Some(Change::Removed))
            || ours.as_ref().is_some_and(|ours| ours.nlink == 0)
        {
            // We removed it, and it has a name all the same: nothing of it goes.
            self.forget_changes(inode);
        }
        let mut record = match (ours.filter(|ours| ours.nlink > 0), base, theirs.clone()) {
            (None, _, Some(theirs)) => theirs,
            (Some(ours), Some(base), Some(theirs)) => merge_records(&ours, &base, &theirs, wrote),
            // Created by us, and there already: an earlier commit of ours whose answer was lost.
            (Some(ours), None, Some(theirs)) => merge_records(&ours, &theirs, &theirs, wrote),
            _ => known,
        };
        record.nlink = match is_directory {
            false => names.min(i64::from(u32::MAX)) as u32,
            true => {
                let more = self.subdirectories.get(&inode).copied().unwrap_or(0);
                (i64::from(theirs.as_ref().map_or(2, |theirs| theirs.nlink)) + more).max(2) as u32
            }
        };
        if let Some(parent) = self.places.get(&inode) {
            record.parent = *parent;
        } else if let Some(theirs) = theirs.as_ref().filter(|_| is_directory) {
            record.parent = theirs.parent;
        }
        record.frames = self.count_frames(inode, theirs.as_ref())?;
        self.result.insert(Key::Inode(inode), Change::Inode(record));
        if matches!(self.ours.get(&Key::Orphan(inode)), Some(Change::Orphan(_))) {
            self.result.insert(Key::Orphan(inode), Change::Removed);
        }
        Ok(())
    }

    /// Nobody names it: what we have of it goes the way we sent it.
    fn without_name(&mut self, inode: u64, ours: Option<Change>, theirs: Option<InodeRecord>) -> Step<()> {
        match ours {
            Some(Change::Inode(mut record)) => {
                // Removed and open here: it lives until it is closed. Its content must not vanish with theirs.
                record.nlink = 0;
                if theirs.is_none() && self.base_record(inode)?.is_some() {
                    self.restore_content(inode)?;
                }
                record.frames = self.count_frames(inode, theirs.as_ref())?;
                let orphan = self.orphan_since(record.ctime);
                self.result.insert(Key::Inode(inode), Change::Inode(record));
                if !self.ours.contains_key(&Key::Orphan(inode)) {
                    self.result.insert(Key::Orphan(inode), Change::Orphan(orphan));
                    if !self.state.references.contains_key(&inode) {
                        self.state.reclaim.push_back(inode);
                    }
                }
            }
            Some(change) => {
                self.result.insert(Key::Inode(inode), change);
            }
            None => {
                if let Some(mut record) = theirs {
                    record.nlink = 0;
                    let orphan = self.orphan_since(record.ctime);
                    self.result.insert(Key::Inode(inode), Change::Inode(record));
                    self.result.insert(Key::Orphan(inode), Change::Orphan(orphan));
                    self.state.reclaim.push_back(inode);
                }
            }
        }
        Ok(())
    }

    fn orphan_since(&self, time: Time) -> Orphan {
        Orphan { device: self.state.device, since_seconds: time.seconds, lease_seconds: 0 }
    }

    fn wrote(&self, inode: u64) -> bool {
        let (from, end) = extent_range(inode, 0);
        self.ours.range(from..end).any(|(_, change)| matches!(change, Change::Frame(_)))
    }

    fn forget_changes(&mut self, inode: u64) {
        for (from, end) in [extent_range(inode, 0), xattr_range(inode)] {
            let keys: Vec<Key> = self.result.range(from..end).map(|(key, _)| key.clone()).collect();
            for key in keys {
                self.result.remove(&key);
            }
        }
    }

    /// Brings back what they removed with the inode.
    fn restore_content(&mut self, inode: u64) -> Step<()> {
        for range in [extent_range(inode, 0), xattr_range(inode)] {
            for (key, change) in self.range(self.base, range)? {
                self.result.entry(key).or_insert(change);
            }
        }
        Ok(())
    }

    fn count_frames(&mut self, inode: u64, theirs: Option<&InodeRecord>) -> Step<u64> {
        let (from, end) = extent_range(inode, 0);
        let changes: Vec<(Key, bool)> = (self.result.range(from..end))
            .map(|(key, change)| (key.clone(), !matches!(change, Change::Removed)))
            .collect();
        let mut frames = theirs.map_or(0, |theirs| theirs.frames) as i64;
        for (key, is_there) in changes {
            let was_there = theirs.is_some() && self.theirs(&key)?.is_some();
            frames += i64::from(is_there) - i64::from(was_there);
        }
        Ok(frames.max(0) as u64)
    }
}

fn name_of(change: Option<&Change>) -> Name {
    match change {
        Some(Change::Entry(entry)) => Some(entry.clone()),
        _ => None,
    }
}

fn record_of(change: Option<&Change>) -> Option<InodeRecord> {
    match change {
        Some(Change::Inode(record)) => Some(record.clone()),
        _ => None,
    }
}
