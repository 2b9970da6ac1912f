//! Removing many keys, a bounded number at a time: what is truncated, punched, or of a file without a name.
//!
//! A step may have to begin anew for each node that is not in memory, so one that looked at all frames of a file would
//! take time that grows with the square of their number, and would never end where its leaves do not fit the cache. So no
//! step looks at more than [`STEP_KEY_COUNT_MAX`] keys.
//!
//! A truncation that is larger than one step is one small change, and work for later: a [`Truncation`] says which frames
//! of the file are gone though their keys are there (they are *dead*), and steps remove those keys from the front, each
//! moving the record on, until it goes too. So each step may be the last before a crash, and any mount can go on. Dead
//! frames read as zeros. Who writes to the first of them moves the record on as well, so that a file that is truncated
//! and written anew waits for nothing; who writes in their midst first has the frames before removed ([`Stop::Dead`]).
//!
//! A file without a name goes the same way: all its frames are dead, and its inode goes last.

use std::ops::Range;

use super::state::{Change, State, Step, Stop, extent_range, xattr_range};
use crate::format::{InodeRecord, Key, Truncation};

/// Keys that one step looks at: some ten leaves, which the smallest cache holds.
pub(crate) const STEP_KEY_COUNT_MAX: usize = 512;

/// How the frames of a range go.
pub(super) enum Removal {
    /// At once: these.
    Now(Vec<Key>),
    /// Later: all of these are dead now.
    Later(Range<u64>),
}

/// Whether there is more to remove.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Progress {
    /// Another step is needed.
    More,
    /// Nothing is left.
    Done,
}

impl State {
    /// Returns the frames of a file that are dead.
    pub(crate) fn dead(&self, inode: u64) -> Option<Range<u64>> {
        // Nearly always none at all: a read should not pay for that.
        if self.truncations.is_empty() {
            return None;
        }
        self.truncations.get(&inode).map(|truncation| truncation.from..truncation.to)
    }

    /// Whether frame `index` of a file is dead.
    pub(crate) fn is_dead(&self, inode: u64, index: u64) -> bool {
        self.dead(inode).is_some_and(|dead| dead.contains(&index))
    }

    fn set_dead(&mut self, inode: u64, dead: Range<u64>) {
        if dead.is_empty() {
            self.truncations.remove(&inode);
            self.set(Key::Truncation(inode), Change::Removed);
        } else {
            let truncation = Truncation { from: dead.start, to: dead.end };
            self.truncations.insert(inode, truncation);
            self.set(Key::Truncation(inode), Change::Truncation(truncation));
        }
    }

    /// Returns the first keys in `from..end`, at most [`STEP_KEY_COUNT_MAX`] of them.
    fn first_keys(&mut self, (mut from, end): (Key, Key)) -> Step<Vec<Key>> {
        let mut keys = Vec::new();
        while keys.len() < STEP_KEY_COUNT_MAX
            && let Some((key, _)) = self.next(&from, &end)?
        {
            from = key.successor();
            keys.push(key);
        }
        Ok(keys)
    }

    /// Finds out how the frames in `range` are to go.
    pub(super) fn plan_removal(
        &mut self,
        inode: u64,
        record: &InodeRecord,
        range: Range<u64>,
    ) -> Step<Removal> {
        if range.is_empty() {
            return Ok(Removal::Now(Vec::new()));
        }
        if record.frames.min(range.end - range.start) < STEP_KEY_COUNT_MAX as u64 {
            let keys = self.first_keys((Key::Extent(inode, range.start), Key::Extent(inode, range.end)))?;
            if keys.len() < STEP_KEY_COUNT_MAX {
                return Ok(Removal::Now(keys));
            }
        }
        match self.dead(inode) {
            None => Ok(Removal::Later(range)),
            Some(dead) if range.start <= dead.end && dead.start <= range.end => {
                Ok(Removal::Later(range.start.min(dead.start)..range.end.max(dead.end)))
            }
            // There is one record: what lies apart from it waits until it is through.
            Some(dead) => Err(Stop::Dead(inode, dead.end)),
        }
    }

    /// Lets frames go as planned; the caller stores `record`.
    pub(super) fn start_removal(&mut self, inode: u64, record: &mut InodeRecord, removal: Removal) {
        match removal {
            Removal::Now(keys) => {
                record.frames = record.frames.saturating_sub(keys.len() as u64);
                for key in keys {
                    self.set(key, Change::Removed);
                }
            }
            Removal::Later(dead) => {
                // Their memory goes at once; the keys stay, as what is below may have them too.
                let range = Key::Extent(inode, dead.start)..Key::Extent(inode, dead.end);
                let changed = self.active.changes.range(range);
                let filled: Vec<Key> = changed
                    .filter(|(_, change)| matches!(change, Change::Frame(bytes) if !bytes.is_empty()))
                    .map(|(key, _)| key.clone())
                    .collect();
                for key in filled {
                    self.set(key, Change::Frame(bytes::Bytes::new()));
                }
                self.set_dead(inode, dead);
            }
        }
    }

    /// Stops if writing to the frames in `range` has to wait for a removal.
    pub(super) fn check_revival(&self, inode: u64, range: &Range<u64>) -> Step<()> {
        match self.dead(inode) {
            Some(dead) if range.start > dead.start && range.start < dead.end => {
                Err(Stop::Dead(inode, range.start))
            }
            _ => Ok(()),
        }
    }

    /// The frames in `range` were written: they are dead no more.
    pub(super) fn revive(&mut self, inode: u64, range: &Range<u64>) {
        if let Some(dead) = self.dead(inode)
            && range.contains(&dead.start)
        {
            self.set_dead(inode, range.end.min(dead.end)..dead.end);
        }
    }

    /// Removes the keys of some dead frames.
    pub(crate) fn remove_dead(&mut self, inode: u64) -> Step<Progress> {
        let Some(dead) = self.dead(inode) else { return Ok(Progress::Done) };
        let record = match self.get(&Key::Inode(inode))? {
            Some(Change::Inode(record)) => Some(record),
            _ => None,
        };
        let keys = self.first_keys((Key::Extent(inode, dead.start), Key::Extent(inode, dead.end)))?;

        let from = match keys.last() {
            Some(Key::Extent(_, last)) if keys.len() == STEP_KEY_COUNT_MAX => last + 1,
            _ => dead.end,
        };
        if let Some(mut record) = record {
            record.frames = record.frames.saturating_sub(keys.len() as u64);
            self.set_record(inode, record);
        }
        for key in keys {
            self.set(key, Change::Removed);
        }
        self.set_dead(inode, from..dead.end);
        Ok(if from < dead.end { Progress::More } else { Progress::Done })
    }

    /// Removes some of what belongs to an inode without names and references; all is done too if it has some again.
    pub(crate) fn reclaim(&mut self, inode: u64) -> Step<Progress> {
        let key = Key::Inode(inode);
        let mut record = match self.get(&key)? {
            Some(Change::Inode(record)) => record,
            _ => {
                if self.get(&Key::Orphan(inode))?.is_some() {
                    self.sweep(inode);
                    self.set(Key::Orphan(inode), Change::Removed);
                }
                return Ok(Progress::Done);
            }
        };
        if record.nlink > 0 || self.references.contains_key(&inode) || self.is_kept_elsewhere(inode)? {
            return Ok(Progress::Done);
        }
        let below = self.committing.as_ref().is_some_and(|delta| delta.changes.contains_key(&key));
        if !below && !self.durability.may_be_journaled() && self.get_stored(&key)?.is_none() {
            self.forget(inode);
            return Ok(Progress::Done);
        }
        if self.dead(inode).is_some() {
            self.sweep(inode);
            self.remove_dead(inode)?;
            return Ok(Progress::More);
        }
        let frames = self.first_keys(extent_range(inode, 0))?;
        let xattrs = self.first_keys(xattr_range(inode))?;
        // Looked at, not counted: a count that is wrong must not keep this from its end.
        let removal = match frames.len() < STEP_KEY_COUNT_MAX {
            true => Removal::Now(frames),
            false => Removal::Later(0..u64::MAX),
        };

        self.sweep(inode);
        let is_last = matches!(removal, Removal::Now(_)) && xattrs.len() < STEP_KEY_COUNT_MAX;
        for key in xattrs {
            self.set(key, Change::Removed);
        }
        self.start_removal(inode, &mut record, removal);
        if !is_last {
            self.set_record(inode, record);
            return Ok(Progress::More);
        }
        self.set(key, Change::Removed);
        self.set(Key::Orphan(inode), Change::Removed);
        self.read_positions.remove(&inode);
        Ok(Progress::Done)
    }

    /// Drops an inode that never left memory: a temporary file costs no commit anything.
    fn forget(&mut self, inode: u64) {
        let of_inode = Key::Inode(inode)..Key::Inode(inode + 1);
        let mut keys: Vec<Key> = self.active.changes.range(of_inode).map(|(key, _)| key.clone()).collect();
        keys.extend([Key::Orphan(inode), Key::Truncation(inode)]);
        for key in keys {
            self.active.remove(&key);
        }
        self.truncations.remove(&inode);
        self.read_positions.remove(&inode);
    }
}
