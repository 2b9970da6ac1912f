//! A directory that one process uses at a time: the kernel keeps the lock, and lets go of it however the process ends.
//!
//! Not here: what is in the directory.

use std::fs::{self, File, TryLockError};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::errors::Failure;
use crate::files;

/// Proof that no other process uses a directory. The kernel lets go of it however this process ends.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

impl Lock {
    /// Whether a process has `directory`'s lock, as far as the kernel tells: without taking it, which another may be about to do.
    pub(crate) fn is_held(directory: &Path) -> bool {
        let Ok(metadata) = fs::symlink_metadata(directory.join("lock")) else { return false };
        let inode = format!(":{}", metadata.ino());
        let is_it = |line: &str| line.contains("FLOCK") && line.split(' ').any(|word| word.ends_with(&inode));
        fs::read_to_string("/proc/locks").is_ok_and(|locks| locks.lines().any(is_it))
    }

    /// Takes `directory`'s lock.
    ///
    /// # Errors
    /// `Failure::Locked`, with the other's process id, or those of [`files::open_own`].
    pub(crate) fn take(directory: &Path) -> Result<Lock, Failure> {
        let path = directory.join("lock");
        let failed = |error| Failure::file(&path, error);
        let mut file = files::open_own(&path)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                let _ = (&mut file).take(20).read_to_string(&mut holder);
                let holder = if holder.is_empty() { "unknown".into() } else { holder.trim().into() };
                return Err(Failure::Locked { path: directory.into(), holder });
            }
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        // The lock is what counts; the number in it is for people, so that a full disk must not stop a node.
        let _ = file.set_len(0).and_then(|()| file.rewind());
        let _ = write!(file, "{}", std::process::id());
        Ok(Lock { _file: file })
    }
}
