//! Space kept back for what frees space: on a disk that is full to the last block, a removal could not be written and
//! compaction could not copy, and the store would stay full for ever.
//!
//! Most of it is for values that are put so that others can be removed (a commit that deletes files writes a few blocks
//! and a register first); the last part only for removals and compaction's copies. It is given up in steps, so that
//! others on the same disk get no more of it than must be.
//!
//! A file of its own rather than space allocated ahead of the log: syncing into space that was allocated ahead took
//! three to seven times as long on a busy machine (ext4 converts such extents on a worker thread first), 2.6 to
//! 5.7 ms against 0.8 for a group of 1 MiB.

use super::{
    device::{DiskFile, Opening},
    directory::Directory,
};
use std::{io, sync::Arc};

/// The least that is kept back.
const LEAST_BYTES: u64 = 1 << 20;
/// This part of it is the last, for removals and copies alone; no more than that is given up at a time.
const LAST_PART: u64 = 4;
/// The most that is given up at a time.
const STEP_BYTES_MAX: u64 = 1 << 20;
/// On a small disk no more than this part of it is kept back.
const DISK_PART: u64 = 16;

/// What a write may use of the space that is kept back. Later ones may use more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Right {
    /// Nothing.
    None,
    /// All but the last part.
    Most,
    /// All.
    All,
}

/// The file whose space is kept back.
#[derive(Debug)]
pub(crate) struct Reserve {
    directory: Arc<Directory>,
    target_bytes: u64,
    held_bytes: u64,
}

impl Reserve {
    /// Takes over the directory's file, or makes it if there is space: `wanted_bytes`, or less on a small disk.
    pub(crate) fn open(directory: Arc<Directory>, wanted_bytes: u64) -> Reserve {
        let mut reserve = Reserve { directory, target_bytes: 0, held_bytes: 0 };
        reserve.held_bytes = reserve.file().and_then(|file| file.length_bytes()).unwrap_or(0);
        let free = reserve.directory.disk().free_bytes(reserve.directory.path());
        let part = free.map_or(u64::MAX, |free| free.saturating_add(reserve.held_bytes) / DISK_PART);
        reserve.target_bytes = wanted_bytes.min(part.max(LEAST_BYTES).max(reserve.held_bytes));
        reserve.hold();
        reserve
    }

    fn file(&self) -> io::Result<Arc<dyn DiskFile>> {
        let path = self.directory.path().join("reserve");
        self.directory.disk().open(&path, Opening::Create)
    }

    /// Takes back what was given up, if there is space; whether all is there now. While it is not, only what frees
    /// space may be written.
    pub(crate) fn hold(&mut self) -> bool {
        if !self.is_whole() {
            let taken = self.file().and_then(|file| {
                file.allocate(self.target_bytes).inspect_err(|_| {
                    // What it got before there was no more.
                    let _ = file.set_length(self.held_bytes);
                })
            });
            if taken.is_ok() {
                self.held_bytes = self.target_bytes;
            }
        }
        self.is_whole()
    }

    /// Whether nothing of it is given up.
    pub(crate) fn is_whole(&self) -> bool {
        self.held_bytes >= self.target_bytes
    }

    /// Gives some of the space up for a write with this right; whether there was any.
    pub(crate) fn give_up(&mut self, right: Right) -> bool {
        let last = self.target_bytes / LAST_PART;
        let least = match right {
            Right::None => return false,
            Right::Most => last,
            Right::All => 0,
        };
        if self.held_bytes <= least {
            return false;
        }
        let left = self.held_bytes.saturating_sub(last.clamp(1, STEP_BYTES_MAX)).max(least);
        let is_given = self.file().and_then(|file| file.set_length(left)).is_ok();
        if is_given {
            self.held_bytes = left;
        }
        is_given
    }

    /// How much is given up at present.
    pub(crate) fn missing_bytes(&self) -> u64 {
        self.target_bytes.saturating_sub(self.held_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::device::KernelDisk;

    #[test]
    fn it_is_given_up_in_steps_and_taken_back_and_the_last_part_is_for_removals() {
        let directory = tempfile::tempdir().unwrap();
        let open = || Directory::open(Arc::new(KernelDisk), directory.path()).map(Arc::new).unwrap();
        let length = || std::fs::metadata(directory.path().join("reserve")).unwrap().len();
        let mut reserve = Reserve::open(open(), 3 << 20);
        assert_eq!(length(), 3 << 20);
        assert!(!reserve.give_up(Right::None));
        assert!((0..3).all(|_| reserve.give_up(Right::Most)) && !reserve.is_whole());
        assert!(!reserve.give_up(Right::Most), "the last part");
        assert!(reserve.give_up(Right::All) && !reserve.give_up(Right::All));
        assert_eq!((length(), reserve.missing_bytes()), (0, 3 << 20));
        assert!(reserve.hold() && length() == 3 << 20);
        drop(reserve);
        assert!(Reserve::open(open(), 3 << 20).is_whole());
    }
}
