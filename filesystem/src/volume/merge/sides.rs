//! The trees that a merge reads: one side of it, by key and by range.
//!
//! Both trees are immutable, so a read may suspend wherever a node is missing and go on where it was: a merge is plain
//! sequential code, linear in what it looks at however small the cache is, and never begins again.

use std::rc::Rc;

use crate::errno::Errno;
use crate::format::{EntryRecord, InodeRecord, Key, Pointer};
use crate::volume::Volume;
use crate::volume::state::{Change, Delta};

/// What a name names.
pub(super) type Name = Option<EntryRecord>;

/// After so many keys others get their turn: some tenths of a millisecond's work.
const KEYS_A_TURN: u32 = 256;

/// A tree, and perhaps a delta above it.
#[derive(Clone)]
pub(in crate::volume) struct Side<'a> {
    volume: &'a Volume,
    tree: Option<Pointer>,
    above: Option<Rc<Delta>>,
}

impl<'a> Side<'a> {
    pub(in crate::volume) fn new(
        volume: &'a Volume,
        tree: Option<Pointer>,
        above: Option<Rc<Delta>>,
    ) -> Side<'a> {
        Side { volume, tree, above }
    }

    /// Returns what `key` is on this side.
    ///
    /// # Suspends
    ///
    /// While nodes are fetched, as all methods here.
    pub(super) fn get(&self, key: &Key) -> Result<Option<Change>, Errno> {
        match self.above.as_ref().and_then(|delta| delta.changes.get(key)) {
            Some(Change::Removed) => return Ok(None),
            Some(change) => return Ok(Some(change.clone())),
            None => {}
        }
        let Some(tree) = self.tree else { return Ok(None) };
        self.volume.step(|state| state.get_in(&tree, key))
    }

    /// Returns an inode's record, also of one that has no name any more.
    pub(super) fn record(&self, inode: u64) -> Result<Option<InodeRecord>, Errno> {
        Ok(record_of(self.get(&Key::Inode(inode))?.as_ref()))
    }

    /// Returns what the entry `key` names.
    pub(super) fn name(&self, key: &Key) -> Result<Name, Errno> {
        Ok(name_of(self.get(key)?.as_ref()))
    }

    /// Begins to read all in `from..end`.
    pub(in crate::volume) fn scan(&self, (from, end): (Key, Key)) -> Scan<'a> {
        Scan { side: self.clone(), from, end, count: 0 }
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
        loop {
            if self.from >= self.end {
                return Ok(None);
            }
            let above = self.side.above.as_ref().and_then(|delta| {
                delta
                    .changes
                    .range(self.from.clone()..self.end.clone())
                    .next()
                    .map(|(k, c)| (k.clone(), c.clone()))
            });
            let stored = match self.side.tree {
                Some(tree) => self.side.volume.step(|state| state.next_in(&tree, &self.from, &self.end))?,
                None => None,
            };
            let next = match (above, stored) {
                (Some(above), Some(stored)) if stored.0 < above.0 => Some(stored),
                (Some(above), _) => Some(above),
                (None, stored) => stored,
            };
            let Some((key, change)) = next else { return Ok(None) };
            self.from = key.successor();
            if !matches!(change, Change::Removed) {
                return Ok(Some((key, change)));
            }
        }
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
