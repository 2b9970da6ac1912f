//! A store's directory: the names in it, its lock, and making names durable.
//!
//! The lock is `flock` on a file: the kernel lets go of it when the process ends, however it ends, so there is never
//! a stale one to clean up.

use super::{
    StoreError,
    device::{Disk, DiskFile, Opening, write_all},
};
use std::{
    io::{self, IoSlice},
    path::{Path, PathBuf},
    sync::Arc,
};

/// The lock file's holder is read for a message only.
const HOLDER_BYTES_MAX: u64 = 64;

/// An open and locked directory. Dropping it lets go of the lock.
#[derive(Debug)]
pub(crate) struct Directory {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    lock: Arc<dyn DiskFile>,
}

impl Directory {
    /// Makes the directory if need be, and locks it.
    ///
    /// # Errors
    ///
    /// [`StoreError::Locked`] if another process, or another store of this one, holds it.
    pub(crate) fn open(disk: Arc<dyn Disk>, path: &Path) -> Result<Directory, StoreError> {
        let fail = |operation, error| StoreError::io(operation, path, error);
        disk.make_directory(path).map_err(|error| fail("make the directory", error))?;
        let lock = disk
            .open(&path.join("lock"), Opening::Create)
            .map_err(|error| fail("open the lock file of", error))?;
        if !lock.try_lock().map_err(|error| fail("lock", error))? {
            let length = lock.length_bytes().unwrap_or(0).min(HOLDER_BYTES_MAX);
            let mut holder = vec![0; length as usize];
            // Whoever holds it may be just about to write its name.
            let known = lock.read_at(&mut holder, 0).is_ok() && !holder.is_empty();
            let holder = String::from_utf8_lossy(&holder).trim().to_string();
            let holder = if known { holder } else { "another process".into() };
            return Err(StoreError::Locked { path: path.into(), holder });
        }
        // Only a help for people: on a full disk the name may be missing.
        let name = format!("process {}\n", std::process::id());
        let _ = lock.set_length(0);
        let _ = write_all(&*lock, &mut [IoSlice::new(name.as_bytes())], 0);
        Ok(Directory { disk, path: path.into(), lock })
    }

    pub(crate) fn disk(&self) -> &dyn Disk {
        &*self.disk
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
        self.lock.unlock();
    }

    /// Makes the names in the directory durable.
    pub(crate) fn sync(&self) -> Result<(), StoreError> {
        self.disk.sync_directory(&self.path).map_err(|error| StoreError::io("sync", &self.path, error))
    }

    /// The numbers of all segments, in order. Checkpoints without a segment, and unfinished ones, are removed.
    pub(crate) fn segments(&self) -> Result<Vec<u32>, StoreError> {
        let fail = |error| StoreError::io("list", &self.path, error);
        let (mut segments, mut others) = (Vec::new(), Vec::new());
        for name in self.disk.list(&self.path).map_err(fail)? {
            let path = self.path.join(name);
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
                let _ = self.disk.remove(&path);
            }
        }
        Ok(segments)
    }

    /// Writes a checkpoint under a passing name and renames it. Not synced: a damaged one is made again.
    pub(crate) fn write_checkpoint(&self, segment: u32, bytes: &[u8]) -> Result<(), StoreError> {
        let path = self.checkpoint_path(segment);
        let unfinished = self.path.join(format!("{segment:08x}.unfinished"));
        let write = || {
            let file = self.disk.open(&unfinished, Opening::Create)?;
            file.set_length(0)?;
            write_all(&*file, &mut [IoSlice::new(bytes)], 0).map_err(|(_, error)| error)?;
            self.disk.rename(&unfinished, &path)
        };
        write().map_err(|error| {
            let _ = self.disk.remove(&unfinished);
            StoreError::io("write", path, error)
        })
    }

    /// Removes a segment and returns when it cannot come back.
    pub(crate) fn delete(&self, segment: u32) -> Result<(), StoreError> {
        let path = self.segment_path(segment);
        self.disk.remove(&path).map_err(|error| StoreError::io("remove", path, error))?;
        let _ = self.disk.remove(&self.checkpoint_path(segment));
        self.sync()
    }

    /// Opens a segment.
    pub(crate) fn open_segment(&self, segment: u32, how: Opening) -> io::Result<Arc<dyn DiskFile>> {
        self.disk.open(&self.segment_path(segment), how)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::device::KernelDisk;
    use std::fs;

    fn open(path: &Path) -> Result<Directory, StoreError> {
        Directory::open(Arc::new(KernelDisk), path)
    }

    #[test]
    fn two_may_not_hold_one_directory() {
        let temporary = tempfile::tempdir().unwrap();
        let path = temporary.path().join("store");
        let first = open(&path).unwrap();
        let refused = open(&path).unwrap_err();
        assert!(matches!(&refused, StoreError::Locked { .. }));
        let message = refused.to_string();
        assert!(message.contains(&format!("process {}", std::process::id())), "{message}");
        drop(first);
        open(&path).unwrap();
    }

    #[test]
    fn only_segments_are_listed_and_orphans_are_removed() {
        let temporary = tempfile::tempdir().unwrap();
        let directory = open(temporary.path()).unwrap();
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
