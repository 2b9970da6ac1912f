//! The records of the files that were looked at last, as trees have them.
//!
//! Each read, write and `stat` begins with its file's record, and a descent to the leaf that has it cost a random read of
//! 4 KiB as much as the one to its frame. A tree never changes, so that what is remembered under a tree's root is true for
//! as long as it is kept; another root is another tree, and only what the volume stands on is asked for.

use crate::format::{InodeRecord, Pointer};

/// Files in use at once by one program that counts; each may hold its leaf in memory by its record's tail.
const PLACES: usize = 8;

#[derive(Debug)]
struct Known {
    tree: Pointer,
    inode: u64,
    record: InodeRecord,
}

/// See the file's header.
#[derive(Debug, Default)]
pub(super) struct RecentRecords([Option<Box<Known>>; PLACES]);

impl RecentRecords {
    /// Returns the record of `inode` in the tree at `tree`.
    pub(super) fn get(&self, tree: &Pointer, inode: u64) -> Option<&InodeRecord> {
        let known = self.0[place(inode)].as_deref()?;
        (known.inode == inode && known.tree == *tree).then_some(&known.record)
    }

    /// Remembers what was found in the tree at `tree`.
    pub(super) fn remember(&mut self, tree: &Pointer, inode: u64, record: &InodeRecord) {
        let known = Known { tree: *tree, inode, record: record.clone() };
        match &mut self.0[place(inode)] {
            Some(old) => **old = known,
            empty => *empty = Some(Box::new(known)),
        }
    }
}

fn place(inode: u64) -> usize {
    // Files that are made one after the other have neighbouring numbers.
    (inode % PLACES as u64) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operations::{FileKind, Time};

    fn record(size: u64) -> InodeRecord {
        InodeRecord { size, ..InodeRecord::new(FileKind::Regular, Time::default()) }
    }

    #[test]
    fn a_record_is_of_one_inode_in_one_tree() {
        let (one, other) = (Pointer::example([1; 32], 0, 100), Pointer::example([2; 32], 0, 100));
        let mut recent = RecentRecords::default();
        recent.remember(&one, 5, &record(10));
        assert_eq!(recent.get(&one, 5), Some(&record(10)));
        assert_eq!(recent.get(&other, 5), None, "another commit's tree");
        assert_eq!(recent.get(&Pointer { offset: 1, ..one }, 5), None, "another node of one object");
        assert_eq!(recent.get(&one, 5 + PLACES as u64), None);
        recent.remember(&other, 5, &record(20));
        assert_eq!(recent.get(&other, 5), Some(&record(20)));
        recent.remember(&other, 5 + PLACES as u64, &record(30));
        assert_eq!(recent.get(&other, 5), None, "its place is taken");
        assert_eq!(recent.get(&other, 5 + PLACES as u64), Some(&record(30)));
    }
}
