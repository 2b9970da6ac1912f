//! What [`crate::fs`] asks of whatever keeps the files: the kernel, or a disk that is simulated.
//!
//! Everything here takes and gives *owned* memory. A coroutine may be terminated while its call is under way, and
//! then unwinds at once; what the call reads from or writes to has to outlive it.

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use bytes::Bytes;

use super::{DirEntry, Metadata, OpenOptions};

/// What is made durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Durable {
    /// The content, and what is needed to read it back (its length), as `fdatasync` does.
    Data,
    /// The attributes too, as `fsync` does.
    All,
}

/// A place with files. Calls suspend the calling coroutine, unless they say otherwise.
pub(crate) trait Disk {
    fn open(&self, path: &Path, options: &OpenOptions) -> io::Result<Rc<dyn OpenFile>>;
    fn metadata(&self, path: &Path, follow_symlink: bool) -> io::Result<Metadata>;
    fn create_dir(&self, path: &Path) -> io::Result<()>;
    fn remove_file(&self, path: &Path) -> io::Result<()>;
    fn remove_dir(&self, path: &Path) -> io::Result<()>;
    /// Removes a directory and all that is in it; a symbolic link just so. Nothing outside is touched, whatever is done
    /// to the tree meanwhile.
    fn remove_dir_all(&self, path: &Path) -> io::Result<()>;
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    fn hard_link(&self, existing: &Path, new: &Path) -> io::Result<()>;
    fn symlink(&self, target: &Path, new: &Path) -> io::Result<()>;
    fn read_link(&self, path: &Path) -> io::Result<PathBuf>;
    /// Makes the names in a directory durable: files made, renamed and removed in it.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;
    fn list(&self, path: &Path) -> io::Result<Box<dyn Listing>>;
    /// Removes a file soon, and tells nobody how that went. Never suspends: for destructors.
    fn remove_file_later(&self, path: PathBuf);
}

/// An open file. Positions are absolute: the kernel's own is never used.
pub(crate) trait OpenFile {
    /// Reads what can be had without waiting for a device; `None` if that is nothing. Never suspends.
    fn read_now(&self, buffer: &mut [u8], offset: u64) -> Option<io::Result<usize>> {
        let _ = (buffer, offset);
        None
    }
    /// Writes some of `bytes` if that is little and waits for no device; `None` if nothing was tried. Never suspends.
    fn write_now(&self, bytes: &[u8], offset: u64) -> Option<io::Result<usize>> {
        let _ = (bytes, offset);
        None
    }
    /// Reads up to `len` bytes; none at the end of the file.
    fn read_at(&self, len: usize, offset: u64) -> io::Result<Vec<u8>>;
    /// Writes some of `bytes`.
    fn write_at(&self, bytes: Bytes, offset: u64) -> io::Result<usize>;
    /// Writes all of `bytes`, and then makes the content durable.
    fn write_durably_at(&self, mut bytes: Bytes, mut offset: u64) -> io::Result<()> {
        while !bytes.is_empty() {
            let count = self.write_at(bytes.clone(), offset)?;
            if count == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            let _ = bytes.split_to(count);
            offset += count as u64;
        }
        self.sync(Durable::Data)
    }
    fn sync(&self, what: Durable) -> io::Result<()>;
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// Gives the file, which was made with `mode`, the permissions and as far as allowed the owner of the one at `path`.
    fn take_permissions_of(&self, path: &Path, mode: u32) -> io::Result<()>;
    /// Never suspends.
    fn metadata(&self) -> io::Result<Metadata>;
    /// Takes the file's lock for this handle; whether it was free. Never suspends.
    fn try_lock(&self) -> io::Result<bool>;
    /// Never suspends.
    fn unlock(&self) -> io::Result<()>;
}

/// A directory that is being read.
pub(crate) trait Listing {
    /// Some more entries, without `.` and `..`; none at the end.
    fn next_batch(&mut self) -> io::Result<Vec<DirEntry>>;
    /// Opens a directory in this one, and nothing else: not what a symbolic link points to.
    fn open_child(&mut self, name: &OsStr) -> io::Result<Box<dyn Listing>>;
}
