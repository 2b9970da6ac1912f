//! What a snapshot has at a path, as changes that make it anew: names, attributes, links, holes, and content by pointer.
//!
//! Content is not copied. A frame never changes once it is stored, whoever points to it, and objects' records count each
//! pointer; so the copy points to what the snapshot points to, and only what is tiny enough to lie in leaves is stored again.
//! Each inode gets a number of its own: the old one may be another mount's, which has the file open.

use std::collections::HashMap;

use crate::errno::Errno;
use crate::format::{EntryRecord, InodeRecord, Key};
use crate::operations::{FileKind, Time};
use crate::volume::Volume;
use crate::volume::state::{Change, entry_range, extent_range, xattr_range};

/// A copy is one change of the volume, and is held in memory: some 200 MiB.
pub(super) const KEY_COUNT_MAX: usize = 1 << 20;
/// After so many keys others get their turn.
const TURN: usize = 256;

/// A copy that has no name yet.
pub(super) struct Copy {
    pub(super) inode: u64,
    pub(super) kind: FileKind,
    pub(super) changes: Vec<(Key, Change)>,
    pub(super) file_count: u64,
    pub(super) size_bytes: u64,
}

/// A copy while it is made.
struct Copying<'a> {
    volume: &'a Volume,
    /// The volume as it was.
    view: &'a Volume,
    /// By its number then: its number now, and how many names it has in the copy.
    numbers: HashMap<u64, (u64, u32)>,
    records: Vec<(u64, InodeRecord)>,
    changes: Vec<(Key, Change)>,
    /// What is to be copied: its number then, and the directory that it lies in now.
    waiting: Vec<(u64, u64)>,
}

impl Volume {
    /// Copies what is `inode` in `view`, with all below it, for the directory `parent`; `None` if it is too much.
    ///
    /// # Errors
    ///
    /// `EOPNOTSUPP` for what a later version put there, or that a tree can't be read.
    ///
    /// # Suspends
    ///
    /// While nodes are fetched.
    pub(super) fn copy_of(&self, view: &Volume, inode: u64, parent: u64) -> Result<Option<Copy>, Errno> {
        let mut copying = Copying {
            volume: self,
            view,
            numbers: HashMap::new(),
            records: Vec::new(),
            changes: Vec::new(),
            waiting: Vec::new(),
        };
        let new = copying.name(inode, parent)?;
        while let Some((old, parent)) = copying.waiting.pop() {
            copying.node(old, parent)?;
            if copying.changes.len() > KEY_COUNT_MAX {
                return Ok(None);
            }
        }
        copying.finish(new).map(Some)
    }
}

impl Copying<'_> {
    /// Gives an inode one more name in the directory `parent`, and returns its number now.
    fn name(&mut self, old: u64, parent: u64) -> Result<u64, Errno> {
        if let Some((new, count)) = self.numbers.get_mut(&old) {
            *count += 1;
            return Ok(*new);
        }
        let new = self.volume.state.borrow_mut().draw_inode();
        self.numbers.insert(old, (new, 1));
        self.waiting.push((old, parent));
        Ok(new)
    }

    /// Copies one inode with its names, but not yet what they name; no more of it than a copy may have.
    fn node(&mut self, old: u64, parent: u64) -> Result<(), Errno> {
        let (new, _) = *self.numbers.get(&old).ok_or(Errno::EIO)?;
        let mut record = self.view.step(|state| state.record(old))?;
        record.parent = parent;
        record.frames = 0;
        let ranges = match record.kind {
            FileKind::Directory => [xattr_range(old), entry_range(old)],
            _ => [xattr_range(old), extent_range(old, 0)],
        };
        record.nlink = if record.kind == FileKind::Directory { 2 } else { 0 };
        for (mut from, end) in ranges {
            while let Some((key, change)) = self.view.step(|state| state.next(&from, &end))? {
                from = key.successor();
                let change = match (&key, change) {
                    (Key::Entry(..), Change::Entry(entry)) => {
                        // What a later version put there is more than this one can copy.
                        if entry.kind == FileKind::Unknown {
                            return Err(Errno::EOPNOTSUPP);
                        }
                        record.nlink += u32::from(entry.kind == FileKind::Directory);
                        Change::Entry(EntryRecord { inode: self.name(entry.inode, new)?, ..entry })
                    }
                    // Its key is there still, and it has been cut off.
                    (Key::Extent(_, frame), _) if self.view.state.borrow().is_dead(old, *frame) => continue,
                    (Key::Extent(..), change) => {
                        record.frames += 1;
                        change
                    }
                    (_, change) => change,
                };
                self.changes.push((key.moved(new), change));
                if self.changes.len() > KEY_COUNT_MAX {
                    break;
                }
                if self.changes.len().is_multiple_of(TURN) {
                    reactor::yield_now();
                }
            }
        }
        self.records.push((old, record));
        Ok(())
    }

    fn finish(self, inode: u64) -> Result<Copy, Errno> {
        let now = Time::now();
        let kind = self.records.first().ok_or(Errno::EIO)?.1.kind;
        let mut copy = Copy { inode, kind, changes: self.changes, file_count: 0, size_bytes: 0 };
        for (old, mut record) in self.records {
            let (new, count) = self.numbers.get(&old).copied().ok_or(Errno::EIO)?;
            if record.kind != FileKind::Directory {
                record.nlink = count;
                copy.file_count += 1;
                copy.size_bytes += record.size;
            }
            // As with any copy; all other times are as they were.
            record.ctime = now;
            copy.changes.push((Key::Inode(new), Change::Inode(record)));
        }
        Ok(copy)
    }
}
