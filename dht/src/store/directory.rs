//! A store's directory: the names in it, its lock, and making names durable.
//!
//! The lock is `flock` on a file: the kernel lets go of it when the process ends, however it ends, so there is never
//! a stale one to clean up.

use super::StoreError;
use rustix::fs::FlockOperation;
use std::{
    fs::{self, File, OpenOptions},
    io::{Read, Seek, Write},
    path::{Path, PathBuf},
};

/// An open and locked directory. Dropping it lets go of the lock.
#[derive(Debug)]
pub(crate) struct Directory {
    path: PathBuf,
    handle: File,
    lock: File,
}

impl Directory {
    /// Makes the directory if need be, and locks it.
    ///
    /// # Errors
    ///
    /// [`StoreError::Locked`] if another process, or another store of this one, holds it.
    pub(crate) fn open(path: &Path) -> Result<Directory, StoreError> {
        let fail = |operation, error| StoreError::io(operation, path, error);
        if !path.is_dir() {
            fs::create_dir_all(path).map_err(|error| fail("make the directory", error))?;
            if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
                let parent = File::open(parent).map_err(|error| fail("open the parent of", error))?;
                parent.sync_all().map_err(|error| fail("sync the parent of", error))?;
            }
        }
        let handle = File::open(path).map_err(|error| fail("open", error))?;
        let mut lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(path.join("lock"))
            .map_err(|error| fail("open the lock file of", error))?;
        match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let mut holder = String::new();
                // Whoever holds it may be just about to write its name.
                let _ = lock.read_to_string(&mut holder);
                let holder =
                    if holder.is_empty() { "another process".into() } else { holder.trim().to_string() };
                return Err(StoreError::Locked { path: path.into(), holder });
            }
            Err(error) => return Err(fail("lock", error.into())),
        }
        // Only a help for people: on a full disk the name may be missing.
        let _ = lock.rewind().and_then(|()| lock.set_len(0));
        let _ = writeln!(lock, "process {}", std::process::id());
        Ok(Directory { path: path.into(), handle, lock })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn segment_path(&self, segment: u32) -> PathBuf {
        self.path.join(format!("{segment:08x}.segment"))
    }

    pub(crate) fn checkpoint_path(&self, segment: u32) -> PathBuf {
        self.path.join(format!("{segment:08x}.index"))
    }

    /// Lets another open the directory. Whoever still has this one only reads what is open already.
    pub(crate) fn unlock(&self) {
        // It cannot fail on a file that we locked ourselves.
        let _ = rustix::fs::flock(&self.lock, FlockOperation::Unlock);
    }

    /// Makes the names in the directory durable.
    pub(crate) fn sync(&self) -> Result<(), StoreError> {
        self.handle.sync_all().map_err(|error| StoreError::io("sync", &self.path, error))
    }

    /// The numbers of all segments, in order. Checkpoints without a segment, and unfinished ones, are removed.
    pub(crate) fn segments(&self) -> Result<Vec<u32>, StoreError> {
        let fail = |error| StoreError::io("list", &self.path, error);
        let (mut segments, mut others) = (Vec::new(), Vec::new());
        for file in fs::read_dir(&self.path).map_err(fail)? {
            let path = file.map_err(fail)?.path();
            let stem = path.file_stem().and_then(|stem| stem.to_str()).filter(|stem| stem.len() == 8);
            let number = stem.and_then(|stem| u32::from_str_radix(stem, 16).ok());
            match (number, path.extension().and_then(|extension| extension.to_str())) {
                (Some(number), Some("segment")) => segments.push(number),
                (Some(number), Some("index")) => others.push((Some(number), path)),
                (_, Some("unfinished")) => others.push((None, path)),
                _ => {}
            }
        }
        segments.sort_unstable();
        for (number, path) in others {
            if number.is_none_or(|number| segments.binary_search(&number).is_err()) {
                let _ = fs::remove_file(path);
            }
        }
        Ok(segments)
    }

    /// Writes a checkpoint under a passing name and renames it. Not synced: a damaged one is made again.
    pub(crate) fn write_checkpoint(&self, segment: u32, bytes: &[u8]) -> Result<(), StoreError> {
        let path = self.checkpoint_path(segment);
        let unfinished = self.path.join(format!("{segment:08x}.unfinished"));
        let written = fs::write(&unfinished, bytes).and_then(|()| fs::rename(&unfinished, &path));
        written.map_err(|error| {
            let _ = fs::remove_file(&unfinished);
            StoreError::io("write", path, error)
        })
    }

    /// Removes a segment and returns when it cannot come back.
    pub(crate) fn delete(&self, segment: u32) -> Result<(), StoreError> {
        let path = self.segment_path(segment);
        fs::remove_file(&path).map_err(|error| StoreError::io("remove", path, error))?;
        let _ = fs::remove_file(self.checkpoint_path(segment));
        self.sync()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_may_not_hold_one_directory() {
        let temporary = tempfile::tempdir().unwrap();
        let path = temporary.path().join("store");
        let first = Directory::open(&path).unwrap();
        let refused = Directory::open(&path).unwrap_err();
        assert!(matches!(&refused, StoreError::Locked { .. }));
        let message = refused.to_string();
        assert!(message.contains(&format!("process {}", std::process::id())), "{message}");
        drop(first);
        Directory::open(&path).unwrap();
    }

    #[test]
    fn only_segments_are_listed_and_orphans_are_removed() {
        let temporary = tempfile::tempdir().unwrap();
        let directory = Directory::open(temporary.path()).unwrap();
        for name in [
            "0000000b.segment",
            "00000002.segment",
            "00000002.index",
            "00000003.index",
            "0000000c.unfinished",
        ] {
            fs::write(temporary.path().join(name), b"").unwrap();
        }
        fs::write(temporary.path().join("notes.txt"), b"").unwrap();
        assert_eq!(directory.segments().unwrap(), [2, 11]);
        assert!(
            temporary.path().join("00000002.index").exists() && temporary.path().join("notes.txt").exists()
        );
        assert!(!temporary.path().join("00000003.index").exists());
        assert!(!temporary.path().join("0000000c.unfinished").exists());
    }
}
