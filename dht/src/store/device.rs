//! What the store asks of a disk: some files in one directory.
//!
//! Two disks are behind it: the machine's own ([`KernelDisk`]) and the one of a simulated world
//! ([`SimulatedDisk`]), so that the writer, recovery, compaction and scrubbing that run in production are also what
//! runs where writes tear, names get lost, reads fail and the power goes at any instant. Everything here is plain
//! blocking code: on the machine's disk it runs on threads that may wait, in a simulation on coroutines.
//!
//! It is not a file system: no links, no permissions, no appending; the store knows each of its names.

mod kernel;
mod simulated;

pub use kernel::KernelDisk;
pub use simulated::SimulatedDisk;

use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use std::{
    fmt,
    io::{self, IoSlice},
    ops::Range,
    path::Path,
    sync::Arc,
};

/// How a file is opened; always for reading too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opening {
    /// An existing one, for reading only.
    Read,
    /// An existing one, for writing.
    Write,
    /// One that is made if there is none.
    Create,
    /// One that must not be there yet.
    New,
}

/// Where code that waits for this disk runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waiting {
    /// On a thread: its calls block.
    Thread,
    /// On a coroutine: its calls suspend.
    Coroutine,
}

/// A file system: the same for all that see it on one machine, another on every other machine, also after a restart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct DeviceId(pub [u8; 16]);

/// A disk with files on it.
pub trait Disk: fmt::Debug + Send + Sync {
    /// Opens a file.
    ///
    /// # Errors
    /// Those of the system; `AlreadyExists` for [`Opening::New`].
    fn open(&self, path: &Path, how: Opening) -> io::Result<Arc<dyn DiskFile>>;

    /// Makes a directory and those above it that are missing, durably.
    ///
    /// # Errors
    /// Those of the system.
    fn make_directory(&self, path: &Path) -> io::Result<()>;

    /// The names in a directory.
    ///
    /// # Errors
    /// Those of the system.
    fn list(&self, path: &Path) -> io::Result<Vec<String>>;

    /// Gives a file another name, in place of what bore it.
    ///
    /// # Errors
    /// Those of the system.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file.
    ///
    /// # Errors
    /// Those of the system.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Makes a directory's names durable.
    ///
    /// # Errors
    /// Those of the disk.
    fn sync_directory(&self, path: &Path) -> io::Result<()>;

    /// Bytes that may still be written where `path` is; `None` if that cannot be told. Never waits.
    fn free_bytes(&self, path: &Path) -> Option<u64>;

    /// The file system that `path` is on, told apart from all others.
    fn device(&self, path: &Path) -> DeviceId;

    /// Where code that waits for this disk runs.
    fn waiting(&self) -> Waiting;
}

/// An open file. Positions are absolute.
pub trait DiskFile: fmt::Debug + Send + Sync {
    /// How long it is.
    ///
    /// # Errors
    /// Those of the disk.
    fn length_bytes(&self) -> io::Result<u64>;

    /// Fills `buffer` from `offset` on.
    ///
    /// # Errors
    /// Those of the disk; `UnexpectedEof` behind the end.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;

    /// As [`DiskFile::read_at`], from memory only. Never waits.
    ///
    /// # Errors
    /// `WouldBlock` if the disk would have to be waited for.
    fn read_cached_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;

    /// Writes the pieces one behind the other, or the first part of them; returns how many bytes.
    ///
    /// # Errors
    /// Those of the disk: nothing was written then.
    fn write_at(&self, pieces: &[IoSlice<'_>], offset: u64) -> io::Result<usize>;

    /// Makes the content durable, and the length.
    ///
    /// # Errors
    /// Those of the disk. What was not durable before may never become so.
    fn sync_data(&self) -> io::Result<()>;

    /// As [`DiskFile::sync_data`], with all that is known of the file.
    ///
    /// # Errors
    /// As [`DiskFile::sync_data`].
    fn sync_all(&self) -> io::Result<()>;

    /// Cuts the file, or makes it longer.
    ///
    /// # Errors
    /// Those of the disk.
    fn set_length(&self, length_bytes: u64) -> io::Result<()>;

    /// Sees to it that the file's first bytes have their space on the disk.
    ///
    /// # Errors
    /// `StorageFull` where there is none.
    fn allocate(&self, length_bytes: u64) -> io::Result<()>;

    /// Gives the space of these bytes back to the disk, durably or not; they read as zeros then.
    ///
    /// # Errors
    /// `Unsupported` where the file system cannot.
    fn punch(&self, bytes: Range<u64>) -> io::Result<()>;

    /// Takes the file's lock for this opening of it; false if another has it.
    ///
    /// # Errors
    /// Those of the system.
    fn try_lock(&self) -> io::Result<bool>;

    /// Lets go of the lock.
    fn unlock(&self);
}

/// Whether an error means that the disk has lost what was asked for, rather than that it could not be asked.
pub(crate) fn is_unreadable(error: &io::Error) -> bool {
    // EUCLEAN and EBADMSG are how file systems tell of a bad checksum, EILSEQ and ENODATA how drives do.
    const LOST: [Errno; 6] =
        [Errno::IO, Errno::UCLEAN, Errno::BADMSG, Errno::ILSEQ, Errno::NODATA, Errno::REMOTEIO];
    Errno::from_io_error(error).is_some_and(|errno| LOST.contains(&errno))
}

/// Writes all the pieces.
///
/// # Errors
/// How many bytes were written, and what the disk said then.
pub(crate) fn write_all(
    file: &dyn DiskFile,
    pieces: &mut [IoSlice<'_>],
    mut offset: u64,
) -> Result<(), (u64, io::Error)> {
    let start = offset;
    let mut left = pieces;
    while !left.is_empty() {
        match file.write_at(left, offset) {
            Ok(0) => return Err((offset - start, io::ErrorKind::WriteZero.into())),
            Ok(count) => {
                offset += count as u64;
                IoSlice::advance_slices(&mut left, count);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err((offset - start, error)),
        }
    }
    Ok(())
}
