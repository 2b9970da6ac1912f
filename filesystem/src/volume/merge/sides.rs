//! The trees that a merge reads: one side of it, by key and by range.
//!
//! Both trees are immutable, so a read may suspend wherever a node is missing and go on where it was: a merge is plain
//! sequential code, linear in what it looks at however small the cache is, and never begins again.

use crate::errno::Errno;
use crate::format::{EntryRecord, InodeRecord, Key, Pointer};
use crate::volume::Volume;
use crate::volume::state::Change;

/// What a name names.
pub(super) type Name = Option<EntryRecord>;

/// After so many keys others get their turn: some tenths of a millisecond's work.
const KEYS_A_TURN: u32 = 256;

/// A tree, as it is stored.
#[derive(Clone, Copy)]
pub(in crate::volume) struct Side<'a> {
    volume: &'a Volume,
    tree: Option<Pointer>,
}

impl<'a> Side<'a> {
    pub(in crate::volume) fn new(volume: &'a Volume, tree: Option<Pointer>) -> Side<'a> {
        Side { volume, tree }
    }

    /// Returns what `key` is on this side.
    ///
    /// # Suspends
    ///
    /// While nodes are fetched, as all methods here.
    pub(super) fn get(&self, key: &Key) -> Result<Option<Change>, Errno> {
        let Some(tree) = self.tree else { return Ok(None) };
        self.volume.step(|state| state.get_in(&tree, key))
    }

    /// Returns an inode's record, also of one that has no name any more.
    pub(in crate::volume) fn record(&self, inode: u64) -> Result<Option<InodeRecord>, Errno> {
        Ok(record_of(self.get(&Key::Inode(inode))?.as_ref()))
    }

    /// Returns what the entry `key` names.
    pub(super) fn name(&self, key: &Key) -> Result<Name, Errno> {
        Ok(name_of(self.get(key)?.as_ref()))
    }

    /// Begins to read all in `from..end`.
    pub(in crate::volume) fn scan(&self, (from, end): (Key, Key)) -> Scan<'a> {
        Scan { side: *self, from, end, count: 0 }
    }
}

/// A range that is read key by key.
pub(in crate::volume) struct Scan<'a> {
    side: Side<'a>,
    from: Key,
    end: Key,
    count: u32,
}

impl Scan<'_> {
    /// Returns the next key and what it is.
    pub(in crate::volume) fn next(&mut self) -> Result<Option<(Key, Change)>, Errno> {
        self.count += 1;
        if self.count.is_multiple_of(KEYS_A_TURN) {
            reactor::yield_now();
        }
        let Some(tree) = self.side.tree.filter(|_| self.from < self.end) else { return Ok(None) };
        let next = self.side.volume.step(|state| state.next_in(&tree, &self.from, &self.end))?;
        if let Some((key, _)) = &next {
            self.from = key.successor();
        }
        Ok(next)
    }
}

pub(super) fn name_of(change: Option<&Change>) -> Name {
    match change {
        Some(Change::Entry(entry)) => Some(entry.clone()),
        _ => None,
    }
}

pub(super) fn record_of(change: Option<&Change>) -> Option<InodeRecord> {
    match change {
        Some(Change::Inode(record)) => Some(record.clone()),
        _ => None,
    }
}
