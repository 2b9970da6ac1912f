//! What our changes become on top of another writer's tree: a three-way merge by file, with sense for names.
//!
//! *Base* is the tree that we started from, *theirs* the one that won, *ours* the changes that we have not published.
//! What only one side changed stands. Where both did:
//!
//! | ours | theirs | result |
//! | --- | --- | --- |
//! | content | content | theirs keeps the name; ours is a file of its own, "name (conflict, author, time).ext" |
//! | appends only (`O_APPEND`) | content | ours are appended to theirs |
//! | content | removed, or replaced by a rename | ours becomes "name (conflict, ...)" |
//! | removed, or replaced by a rename | content | theirs keeps the name; what replaced it becomes "name (conflict, ...)" |
//! | mode, owner, times, extended attributes | anything | one by one: what we changed is ours, the rest theirs |
//! | a new name | the same new name | theirs keeps it; ours becomes "name (conflict, ...)" |
//! | a new directory | a new directory of that name | one directory, and so on within it |
//! | a renamed file or directory | the same, elsewhere | it is where they put it |
//! | one of a file's names removed | another of them | both go, and the file if none is left |
//! | one more name (a hard link) | anything but the file's removal | all names |
//! | a directory removed | something put into it | it stays, with that |
//! | something put into a directory | the directory removed | it comes back, with that |
//! | a snapshot | another of that name | both; ours becomes "name-2" |
//!
//! There is something to merge only where neither knew of the other: a mount's operations act on the last root that it
//! took over, with its own changes on it, as at that moment they are. What another stored before, and is in there, is
//! replaced or removed like anything else, whether or not the very program has looked at it since: an editor that has read
//! a file and saves it by rename half an hour later replaces what was stored meanwhile, as on a local disk and on NFS; what
//! was *not* in there yet is in conflict with the save, and both are kept. A program that must not do so looks first: an
//! open finds all that was closed or synced before it (see [`super::freshness`]). It does not find what a mount that was
//! alone closed and had not stored when it fell silent (see [`super::session`]), nor anything new while the nodes are away.
//!
//! A directory whose names are others after the merge than either side has shown counts as changed by it, since kernels
//! and programs keep listings for as long as it does not.
//!
//! A content is never put together from two: which state it is in says its [`ContentVersion`], which writes change and
//! `chmod` and `touch` do not. Programs that have a file open when it becomes two go on with ours (see
//! [`super::aliases`]).
//!
//! [`ContentVersion`]: crate::format::ContentVersion

mod directories;
mod files;
mod names;
pub(super) mod records;
pub(super) mod sides;
mod snapshots;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::Volume;
use super::state::{Change, entry_range};
use crate::errno::Errno;
use crate::format::{InodeRecord, Key, Pointer};
use crate::operations::{FileKind, Inode, Invalidation, Time};

use records::{Content, merge_records};
use sides::{Name, Side, name_of, record_of};

/// What a merge comes to; [`Volume::adopt`](super::Volume::adopt) puts it in place.
#[derive(Default)]
pub(super) struct Merged {
    /// Our changes, on top of theirs.
    pub(super) changes: BTreeMap<Key, Change>,
    /// What the kernel must forget beside what differs between base and theirs.
    pub(super) invalidations: Vec<Invalidation>,
    /// Files that became two: the inode that is theirs, and the new one that is ours.
    pub(super) forked: Vec<(u64, u64)>,
    /// Directories of ours that became one with theirs.
    pub(super) united: Vec<(u64, u64)>,
    /// Files whose end we only appended to: what was appended.
    pub(super) appended: Vec<(u64, Vec<bytes::Bytes>)>,
    /// Inodes without names that nobody here refers to.
    pub(super) reclaim: Vec<u64>,
    /// Inodes that were made here, and that theirs has.
    pub(super) known: Vec<u64>,
    /// Names that both sides gave or changed, and what ours is called now.
    pub(super) conflicts: Vec<(Vec<u8>, Vec<u8>)>,
}

/// The merge while it is worked out.
struct Merge<'a> {
    volume: &'a Volume,
    base: Side<'a>,
    theirs: Side<'a>,
    ours: BTreeMap<Key, Change>,
    /// Whether our changes of a file's content are appends and nothing else.
    only_appended: HashMap<u64, bool>,
    result: BTreeMap<Key, Change>,
    /// How many names more than in theirs each inode has.
    names: HashMap<u64, i64>,
    /// How many sub-directories more each directory has.
    subdirectories: HashMap<u64, i64>,
    /// The name of each inode that got one.
    places: HashMap<u64, Key>,
    /// Directories whose names are others than either side has shown.
    touched: BTreeSet<u64>,
    now: Time,
    suffix: String,
    device: u64,
    merged: Merged,
}

impl Volume {
    /// Works out what all uncommitted changes are on top of the tree `theirs`. Nothing may change meanwhile, see
    /// [`Gate`](super::gate::Gate).
    ///
    /// # Suspends
    ///
    /// While nodes of both trees are fetched.
    pub(super) fn merge(&self, theirs: Option<Pointer>, now: Time) -> Result<Merged, Errno> {
        let state = self.state.borrow();
        let mut ours = BTreeMap::new();
        let mut only_appended = HashMap::new();
        for delta in state.committing.as_deref().into_iter().chain([&state.active]) {
            ours.extend(delta.changes.iter().map(|(key, change)| (key.clone(), change.clone())));
            for (inode, only) in &delta.appended {
                *only_appended.entry(*inode).or_insert(true) &= only;
            }
        }
        let (base, device) = (state.tree, state.device);
        drop(state);
        let mut merge = Merge {
            volume: self,
            base: Side::new(self, base),
            theirs: Side::new(self, theirs),
            ours,
            only_appended,
            result: BTreeMap::new(),
            names: HashMap::new(),
            subdirectories: HashMap::new(),
            places: HashMap::new(),
            touched: BTreeSet::new(),
            now,
            suffix: records::conflict_suffix(&self.options.author, now),
            device,
            merged: Merged::default(),
        };
        merge.run()?;
        Ok(Merged { changes: merge.result, ..merge.merged })
    }
}

impl Merge<'_> {
    fn run(&mut self) -> Result<(), Errno> {
        // First of all: nothing tells any more what was ours of a file that is given up below.
        for inode in self.changed_inodes() {
            self.check_number(inode)?;
        }
        self.unite_directories()?;
        let names: Vec<(Key, Name)> = (self.ours.iter())
            .filter(|(key, _)| matches!(key, Key::Entry(..)))
            .map(|(key, change)| (key.clone(), name_of(Some(change))))
            .collect();
        for (key, name) in names {
            self.entry(&key, name)?;
        }
        self.index_places();
        for inode in self.changed_inodes() {
            self.split(inode)?;
        }
        self.settle()?;
        let mut inodes = self.changed_inodes();
        inodes.extend(self.names.keys().chain(self.subdirectories.keys()));
        self.index_places();
        for inode in inodes {
            self.inode(inode)?;
        }
        self.snapshots()?;
        for directory in std::mem::take(&mut self.touched) {
            let key = Key::Inode(directory);
            let (ours, theirs) = (self.our_record(directory), self.their_record(directory)?);
            if let Some(mut record) = record_of(self.result.get(&key)).or(theirs.clone()) {
                for seen in [ours, theirs].into_iter().flatten().chain([record.clone()]) {
                    record.mtime = record.mtime.max(later(seen.mtime)).max(self.now);
                    record.ctime = record.ctime.max(later(seen.ctime)).max(self.now);
                }
                self.result.insert(key, Change::Inode(record));
            }
        }
        Ok(())
    }

    /// Returns the inodes that we changed something of, beside names in them.
    fn changed_inodes(&self) -> BTreeSet<u64> {
        self.ours.keys().filter_map(inode_of).collect()
    }

    fn index_places(&mut self) {
        self.places = (self.result.iter())
            .filter_map(|(key, change)| Some((name_of(Some(change))?.inode, key.clone())))
            .collect();
    }

    /// Returns their record of what still has a name there.
    fn their_record(&self, inode: u64) -> Result<Option<InodeRecord>, Errno> {
        // A removed file that they have open is none for us.
        Ok(self.theirs.record(inode)?.filter(|record| record.nlink > 0))
    }

    /// Returns our record of what we changed and did not remove.
    fn our_record(&self, inode: u64) -> Option<InodeRecord> {
        record_of(self.ours.get(&Key::Inode(inode))).filter(|record| record.nlink > 0)
    }

    /// Whether programs here may have `inode` open.
    fn is_referenced(&self, inode: u64) -> bool {
        let original = self.merged.forked.iter().find(|(_, ours)| *ours == inode);
        let inode = original.map_or(inode, |(original, _)| *original);
        self.volume.state.borrow().references.contains_key(&inode)
    }

    /// Settles one inode: its record, its content, its extended attributes, and what is kept of one without a name.
    fn inode(&mut self, inode: u64) -> Result<(), Errno> {
        let change = self.ours.get(&Key::Inode(inode)).cloned();
        let (ours, base) = (record_of(change.as_ref()), self.base.record(inode)?);
        let stored = self.theirs.record(inode)?;
        let theirs = stored.clone().filter(|record| record.nlink > 0);
        let Some(known) = ours.clone().or(theirs.clone()).or(base.clone()) else { return Ok(()) };
        let content = Content::of(ours.as_ref(), base.as_ref(), stored.as_ref());
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
        if names <= 0 {
            return self.without_name(inode, change, base, stored);
        }
        let is_removed =
            matches!(change, Some(Change::Removed)) || ours.as_ref().is_some_and(|o| o.nlink == 0);
        let ours = ours.filter(|ours| ours.nlink > 0);
        if stored.is_none() {
            self.copy_content(inode)?;
        } else if !is_removed {
            self.keep_changes(inode, content, base.as_ref(), stored.as_ref());
        }
        // Otherwise we removed it, and it has a name all the same: nothing of it goes.
        // Both changed it, and the later of the two has shown it without the other's names.
        let (from, end) = entry_range(inode);
        if is_directory && theirs.is_some() && theirs != base && self.result.range(from..end).next().is_some()
        {
            self.touched.insert(inode);
        }
        let mut record = match (ours, base, theirs.clone()) {
            (None, _, Some(theirs)) => theirs,
            (Some(ours), Some(base), Some(theirs)) => merge_records(&ours, &base, &theirs, content),
            // Created by us, and there already: an earlier commit of ours whose answer was lost.
            (Some(ours), None, Some(theirs)) => merge_records(&ours, &theirs, &theirs, content),
            _ => known,
        };
        record.nlink = match is_directory {
            false => names.min(i64::from(u32::MAX)) as u32,
            true => {
                let more = self.subdirectories.get(&inode).copied().unwrap_or(0);
                (i64::from(theirs.as_ref().map_or(2, |theirs| theirs.nlink)) + more).max(2) as u32
            }
        };
        if let Some(Key::Entry(parent, ..)) = self.places.get(&inode) {
            record.parent = *parent;
        } else if let Some(theirs) = theirs.filter(|_| is_directory) {
            record.parent = theirs.parent;
        }
        self.result.insert(Key::Inode(inode), Change::Inode(record));
        if self.theirs.get(&Key::Orphan(inode))?.is_some() {
            self.result.insert(Key::Orphan(inode), Change::Removed);
        }
        Ok(())
    }
}

impl Merge<'_> {
    /// Takes note of an inode that was made here and is in theirs: by an earlier commit of ours whose answer was lost, or by
    /// whoever had a copy of our journal. It is a file like any other then, which somebody else may have written since.
    ///
    /// # Errors
    ///
    /// `EIO` if it is another (see [`super::born`]).
    fn check_number(&mut self, inode: u64) -> Result<(), Errno> {
        if !self.volume.state.borrow().is_born(inode) {
            return Ok(());
        }
        let Some(stored) = self.theirs.record(inode)? else { return Ok(()) };
        let ours = record_of(self.ours.get(&Key::Inode(inode)));
        if ours.is_some_and(|ours| ours.btime != stored.btime) {
            self.volume.tell_of_number(inode);
            return Err(Errno::EIO);
        }
        self.merged.known.push(inode);
        Ok(())
    }
}

/// The time after `time`: caches of a directory's names, the kernel's and programs', are believed as long as its time of
/// change is the same, whatever clocks of other machines say.
fn later(time: Time) -> Time {
    match time.nanoseconds {
        999_999_999 => Time { seconds: time.seconds.saturating_add(1), nanoseconds: 0 },
        nanoseconds => Time { nanoseconds: nanoseconds + 1, ..time },
    }
}

/// Returns the inode that a key tells something of, if it is no name.
fn inode_of(key: &Key) -> Option<u64> {
    match key {
        Key::Inode(inode)
        | Key::Xattr(inode, _)
        | Key::Extent(inode, _)
        | Key::Orphan(inode)
        | Key::Truncation(inode) => Some(*inode),
        Key::Entry(..) | Key::Writer(_) | Key::Object(_) | Key::Session(_) | Key::Snapshot(_) => None,
    }
}
