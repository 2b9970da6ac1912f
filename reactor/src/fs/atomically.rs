//! A file's content replaced as one step, crashes included.

use std::ffi::OsString;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use super::backend::Disk;
use super::{File, OpenOptions, disk};
use crate::coroutine::uninterruptible;

/// Replaces a file's content, or makes the file: a reader sees the old content or the new, and so does whoever looks
/// after a crash, at whatever moment it came. When this returns, it is the new for good.
///
/// The new content is written to a file of another name beside it (`.NAME.RANDOM.tmp`), made durable, and renamed. If
/// the coroutine is terminated, that file is removed; after a crash it may be left. A file that is there keeps its
/// permissions and, where the process may give files away, its owner; not its further attributes (ACLs, and others by
/// name). A new one gets `mode` (less the process's umask). A symbolic link is replaced, not followed.
///
/// # Errors
///
/// `StorageFull`, `PermissionDenied` (the directory must be writable); the old content stays.
///
/// # Suspends
///
/// Until the new content is on the disk: some milliseconds.
///
/// # Examples
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// # let path = dir.path().join("state");
/// reactor::run(|| {
///     reactor::fs::write_atomically(&path, b"first", 0o600).unwrap();
///     reactor::fs::write_atomically(&path, b"second", 0o600).unwrap();
///     assert_eq!(reactor::fs::read(&path, 100).unwrap(), b"second");
/// });
/// ```
pub fn write_atomically(path: impl AsRef<Path>, content: impl AsRef<[u8]>, mode: u32) -> io::Result<()> {
    let path = path.as_ref();
    let disk = disk();
    let name =
        path.file_name().ok_or_else(|| io::Error::new(ErrorKind::InvalidInput, "the path names no file"))?;
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let old_mode = match disk.metadata(path, false) {
        Ok(old) => old.is_file().then_some(old.mode),
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(error) => return Err(error),
    };
    let beside = directory.join(temporary_name(name));
    let mode = old_mode.unwrap_or(mode);
    let (new, temporary) = Temporary::create(beside.clone(), mode)?;
    if old_mode.is_some() {
        new.take_permissions_of(path, mode)?;
    }
    new.write_all_at(content.as_ref(), 0)?;
    new.sync_all()?;
    drop(new);
    disk.rename(&beside, path)?;
    temporary.keep();
    disk.sync_dir(directory)
}

fn temporary_name(name: &std::ffi::OsStr) -> OsString {
    let number = crate::random::number();
    let mut temporary = OsString::from(".");
    temporary.push(name);
    temporary.push(format!(".{number:016x}.tmp"));
    temporary
}

/// Removes a new file when things end early.
pub(crate) struct Temporary {
    disk: Rc<dyn Disk>,
    path: Option<PathBuf>,
}

impl Temporary {
    /// Makes the file, to be written; fails if something is there. Suspends until it is made.
    pub(crate) fn create(path: PathBuf, mode: u32) -> io::Result<(File, Temporary)> {
        let disk = disk();
        // Not to be broken off: the file could appear after the destructor has removed it.
        uninterruptible(|| {
            let file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&path)?;
            Ok((file, Temporary { disk, path: Some(path) }))
        })
    }

    /// Removes the file now, so that its name is free when this returns. Suspends until then.
    pub(crate) fn remove(mut self) {
        if let Some(path) = self.path.take() {
            // If it can't be removed, nobody can do more.
            let _ = uninterruptible(|| self.disk.remove_file(&path));
        }
    }

    /// Things have come to their good end: the file stays, or has another name.
    pub(crate) fn keep(mut self) {
        self.path = None;
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if let Some(path) = self.path.take() {
            self.disk.remove_file_later(path);
        }
    }
}
