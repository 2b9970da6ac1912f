//! Files and directories, without ever holding up the reactor's thread.
//!
//! Where the kernel has io_uring, opens, reads, writes and syncs go through a ring; elsewhere, and for names (rename,
//! remove, list), the pool of [`crate::offload`] does them. Which one it is, [`backend`] tells, and the environment
//! variable `HYPHA_FS` (`io_uring` or `pool`) or [`choose_backend`] decides. Results are the same.
//!
//! Every call that suspends can be terminated and cut short by a timeout, and unwinds at once. What was asked of the
//! kernel may happen all the same, in part or in whole, a moment later. In a destructor that runs while its coroutine
//! unwinds, these calls fail with `WouldBlock`.
//!
//! What it is not: pipes, sockets and devices, for which [`crate::net::Descriptor`] waits; watching for changes;
//! memory maps, whose page faults would hold up every coroutine.

mod atomically;
pub(crate) mod backend;
mod directory;
mod file;
mod kernel;
mod listing;
mod metadata;
mod prompt;
#[cfg_attr(not(feature = "fs-uring"), path = "no_uring.rs")]
mod uring;

use std::fmt;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::rc::Rc;

#[cfg(feature = "http")]
pub(crate) use atomically::Temporary;
pub use atomically::write_atomically;
pub use directory::{ReadDir, WALK_DEPTH_MAX, Walk, WalkEntry, WalkError, read_dir, walk};
pub use file::{CHUNK_BYTES_MAX, File, OpenOptions};
pub use metadata::{DirEntry, FileKind, Metadata};
pub(crate) use uring::turn;

use backend::Disk;
use kernel::KernelDisk;
use uring::Ring;

use crate::cell::RefCell;
use crate::sim;

/// What does the work on files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Backend {
    /// The kernel's ring of requests.
    IoUring,
    /// Threads that block.
    Pool,
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Backend::IoUring => "io_uring",
            Backend::Pool => "pool",
        })
    }
}

thread_local! {
    static CHOSEN: RefCell<Option<(Backend, Rc<dyn Disk>)>> = const { RefCell::new(None) };
}

/// Lets go of what a run has chosen and made.
pub(crate) fn end() {
    drop(CHOSEN.with(RefCell::take));
    uring::end();
}

fn chosen() -> (Backend, Rc<dyn Disk>) {
    if let Some(chosen) = CHOSEN.with(|chosen| chosen.borrow().clone()) {
        return chosen;
    }
    let wish = std::env::var("HYPHA_FS").ok();
    let result = match wish.as_deref() {
        Some("pool") => choose_backend(Backend::Pool),
        None | Some("io_uring") => choose_backend(Backend::IoUring),
        Some(other) => {
            tracing::warn!("HYPHA_FS is `io_uring` or `pool`, not `{other}`");
            choose_backend(Backend::IoUring)
        }
    };
    if let Err(error) = result {
        tracing::info!("files go through the pool of threads: io_uring is refused: {error}");
        choose_backend(Backend::Pool).expect("the pool needs nothing of the kernel");
    }
    CHOSEN.with(|chosen| chosen.borrow().clone()).expect("just chosen")
}

/// Where the running coroutine's files are.
fn disk() -> Rc<dyn Disk> {
    if let Some(process) = sim::here() {
        return Rc::new(sim::Files::new(process));
    }
    chosen().1
}

/// What does the work: chosen at the first use of a file, io_uring if the kernel grants it. Never suspends.
///
/// # Panics
///
/// Outside [`crate::run`].
pub fn backend() -> Backend {
    chosen().0
}

/// Chooses what does the work on files opened from now on, until the run ends. Never suspends.
///
/// # Errors
///
/// When the kernel refuses io_uring; then nothing changes.
///
/// # Panics
///
/// Outside [`crate::run`].
pub fn choose_backend(backend: Backend) -> io::Result<()> {
    let ring = match backend {
        Backend::IoUring => Some(Ring::get()?),
        Backend::Pool => None,
    };
    let disk: Rc<dyn Disk> = Rc::new(KernelDisk::new(ring));
    CHOSEN.with(|chosen| chosen.replace(Some((backend, disk))));
    Ok(())
}

/// Operations on files that are under way, those included whose coroutine is gone: each may hold a buffer. Never
/// suspends.
pub fn operations_in_flight() -> usize {
    kernel::jobs_in_flight() + Ring::existing().map_or(0, |ring| ring.in_flight())
}

/// Reads a whole file of at most `limit_bytes`.
///
/// # Errors
///
/// `FileTooLarge` when it is longer; as [`OpenOptions::open`].
///
/// # Suspends
///
/// Until it is read.
pub fn read(path: impl AsRef<Path>, limit_bytes: usize) -> io::Result<Vec<u8>> {
    File::open(path)?.read_to_end_at(0, limit_bytes)
}

/// Writes a file with this content, in place of what it held. After a crash it may hold either, or a part:
/// [`write_atomically`] does better.
///
/// # Errors
///
/// As [`OpenOptions::open`]; `StorageFull`.
///
/// # Suspends
///
/// Until the kernel has it all.
pub fn write(path: impl AsRef<Path>, content: impl AsRef<[u8]>) -> io::Result<()> {
    File::create(path)?.write_all_at(content.as_ref(), 0)
}

/// What is known of a file, following symbolic links.
///
/// # Errors
///
/// `NotFound`, `PermissionDenied`.
///
/// # Suspends
///
/// Until it is known.
pub fn metadata(path: impl AsRef<Path>) -> io::Result<Metadata> {
    disk().metadata(path.as_ref(), true)
}

/// What is known of a file, or of the symbolic link itself.
///
/// # Errors
///
/// As [`metadata`].
///
/// # Suspends
///
/// Until it is known.
pub fn symlink_metadata(path: impl AsRef<Path>) -> io::Result<Metadata> {
    disk().metadata(path.as_ref(), false)
}

/// Makes a directory.
///
/// # Errors
///
/// `AlreadyExists`; `NotFound` when its parent is missing.
///
/// # Suspends
///
/// Until it is made.
pub fn create_dir(path: impl AsRef<Path>) -> io::Result<()> {
    disk().create_dir(path.as_ref())
}

/// Makes a directory and those above it that are missing.
///
/// # Errors
///
/// `AlreadyExists` or `NotADirectory` when something else bears one of the names.
///
/// # Suspends
///
/// Until all are made.
pub fn create_dir_all(path: impl AsRef<Path>) -> io::Result<()> {
    let path = path.as_ref();
    let disk = disk();
    let mut missing = Vec::new();
    for directory in path.ancestors() {
        if directory.as_os_str().is_empty() {
            break;
        }
        match disk.create_dir(directory) {
            Ok(()) => break,
            Err(error) if error.kind() == ErrorKind::NotFound => missing.push(directory),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                if disk.metadata(directory, true)?.is_dir() {
                    break;
                }
                return Err(error);
            }
            Err(error) => return Err(error),
        }
    }
    for directory in missing.into_iter().rev() {
        match disk.create_dir(directory) {
            // Made by another meanwhile.
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            result => result?,
        }
    }
    Ok(())
}

/// Removes a name of a file; the file goes with its last name, when nobody has it open any more.
///
/// # Errors
///
/// `NotFound`, `IsADirectory`.
///
/// # Suspends
///
/// Until it is gone.
pub fn remove_file(path: impl AsRef<Path>) -> io::Result<()> {
    disk().remove_file(path.as_ref())
}

/// Removes an empty directory.
///
/// # Errors
///
/// `NotFound`, `DirectoryNotEmpty`.
///
/// # Suspends
///
/// Until it is gone.
pub fn remove_dir(path: impl AsRef<Path>) -> io::Result<()> {
    disk().remove_dir(path.as_ref())
}

/// Removes a directory and all that is in it. Symbolic links are removed, not followed, `path` itself included: nothing
/// outside of the tree is touched, whatever others do to it meanwhile.
///
/// Once begun it goes on to its end, also when the coroutine is terminated.
///
/// # Errors
///
/// The first that is met; part of the tree is gone then.
///
/// # Suspends
///
/// Until it is gone.
pub fn remove_dir_all(path: impl Into<PathBuf>) -> io::Result<()> {
    disk().remove_dir_all(&path.into())
}

/// Gives a file another name, in place of what bore it, atomically. Both must be on one file system. After a crash it
/// bears either; the new one for certain after [`sync_dir`].
///
/// # Errors
///
/// `NotFound`, `CrossesDevices`, `DirectoryNotEmpty`.
///
/// # Suspends
///
/// Until it is done.
pub fn rename(from: impl AsRef<Path>, to: impl AsRef<Path>) -> io::Result<()> {
    disk().rename(from.as_ref(), to.as_ref())
}

/// Gives a file a further name.
///
/// # Errors
///
/// `AlreadyExists`, `CrossesDevices`.
///
/// # Suspends
///
/// Until it is done.
pub fn hard_link(existing: impl AsRef<Path>, new: impl AsRef<Path>) -> io::Result<()> {
    disk().hard_link(existing.as_ref(), new.as_ref())
}

/// Makes `new` a symbolic link to `target`, which need not be there.
///
/// # Errors
///
/// `AlreadyExists`.
///
/// # Suspends
///
/// Until it is done.
pub fn symlink(target: impl AsRef<Path>, new: impl AsRef<Path>) -> io::Result<()> {
    disk().symlink(target.as_ref(), new.as_ref())
}

/// What a symbolic link points to.
///
/// # Errors
///
/// `InvalidInput` when it is none.
///
/// # Suspends
///
/// Until it is known.
pub fn read_link(path: impl AsRef<Path>) -> io::Result<PathBuf> {
    disk().read_link(path.as_ref())
}

/// Makes a directory's names durable: files made, renamed and removed in it.
///
/// # Errors
///
/// Those of the disk.
///
/// # Suspends
///
/// Until they are on the disk.
pub fn sync_dir(path: impl AsRef<Path>) -> io::Result<()> {
    disk().sync_dir(path.as_ref())
}
