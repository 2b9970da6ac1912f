//! The kernel's files: through io_uring where there is a [`Ring`], on the pool of threads elsewhere.
//!
//! The ring opens, reads, writes and syncs. Names (rename, unlink, list) go to the pool either way: io_uring hands
//! those to threads of its own at once, or does not know them, so nothing would be gained.
//!
//! Before either is troubled, a small read asks the kernel for what its page cache holds (`RWF_NOWAIT`), and a small write
//! to a file of this machine is copied there at once, unless that took long lately (see [`Prompt`]).

use std::cell::{Cell, OnceCell};
use std::ffi::CString;
use std::io::{self, ErrorKind, IoSliceMut};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use rustix::fs::{AtFlags, CWD, Dir, FlockOperation, Gid, Mode, OFlags, StatxFlags, Uid};
use rustix::io::{Errno, ReadWriteFlags};

use super::backend::{Disk, Durable, Listing, OpenFile};
use super::listing::KernelListing;
use super::prompt::Prompt;
use super::uring::Ring;
use super::{FileKind, Metadata, OpenOptions};
use crate::coroutine;
use crate::offload::{discard, offload};

/// A read of the page cache copies on the reactor's thread; beyond this (some 10 us of copying) other coroutines
/// have waited long enough, and another thread may do it.
const READ_NOW_BYTES_MAX: usize = 64 << 10;

/// Likewise for a write.
const WRITE_NOW_BYTES_MAX: usize = 64 << 10;

/// File systems that keep what is written in this machine's memory first and need nobody else for that, by statfs(2)'s names:
/// ext2 to ext4, XFS, Btrfs, F2FS, tmpfs.
const WRITE_NOW_FILE_SYSTEMS: [u64; 5] = [0xef53, 0x5846_5342, 0x9123_683e, 0xf2f5_2010, 0x0102_1994];

/// Jobs on the pool that still hold what they were given.
static JOBS: AtomicUsize = AtomicUsize::new(0);

pub(super) fn jobs_in_flight() -> usize {
    JOBS.load(Ordering::Relaxed)
}

/// Runs `job` on the pool, and fails at once where nothing may suspend.
pub(super) fn on_pool<T: Send + 'static>(
    job: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    check_may_suspend()?;
    let counted = Counted::new();
    offload(move || {
        let result = job();
        drop(counted);
        result
    })
}

struct Counted;

impl Counted {
    fn new() -> Counted {
        JOBS.fetch_add(1, Ordering::Relaxed);
        Counted
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        JOBS.fetch_sub(1, Ordering::Relaxed);
    }
}

pub(super) fn check_may_suspend() -> io::Result<()> {
    if coroutine::may_suspend() {
        Ok(())
    } else {
        Err(io::Error::new(ErrorKind::WouldBlock, "a destructor may not wait while unwinding"))
    }
}

/// The machine's files.
pub(super) struct KernelDisk {
    ring: Option<Rc<Ring>>,
    prompt: Rc<Prompt>,
}

impl KernelDisk {
    pub(super) fn new(ring: Option<Rc<Ring>>) -> KernelDisk {
        KernelDisk { ring, prompt: Rc::new(Prompt::new()) }
    }
}

fn flags(options: &OpenOptions) -> OFlags {
    let mut flags = match (options.read, options.write || options.append) {
        (true, true) => OFlags::RDWR,
        (false, true) => OFlags::WRONLY,
        (_, false) => OFlags::RDONLY,
    };
    flags.set(OFlags::APPEND, options.append);
    flags.set(OFlags::CREATE, options.create || options.create_new);
    flags.set(OFlags::EXCL, options.create_new);
    flags.set(OFlags::TRUNC, options.truncate);
    flags.set(OFlags::NOFOLLOW, options.no_follow);
    // A named pipe would hold a thread until its other end opens; a file does not care.
    flags | OFlags::NONBLOCK | OFlags::CLOEXEC
}

pub(super) fn c_path(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes())
        .map_err(|_| io::Error::new(ErrorKind::InvalidInput, "a path can't hold a zero byte"))
}

impl Disk for KernelDisk {
    fn open(&self, path: &Path, options: &OpenOptions) -> io::Result<Rc<dyn OpenFile>> {
        let (path, flags) = (c_path(path)?, flags(options));
        let mode = Mode::from_raw_mode(options.mode);
        let fd = match &self.ring {
            Some(ring) => ring.open(path, flags, mode)?,
            None => on_pool(move || Ok(rustix::fs::open(path, flags, mode)?))?,
        };
        // It was for opening only: io_uring would take it to mean that reads must not wait either.
        rustix::fs::fcntl_setfl(&fd, flags & OFlags::APPEND)?;
        Ok(Rc::new(KernelFile {
            fd: Arc::new(fd),
            ring: self.ring.clone(),
            may_read_now: Cell::new(true),
            may_write_now: OnceCell::new(),
            prompt: self.prompt.clone(),
        }))
    }

    fn metadata(&self, path: &Path, follow_symlink: bool) -> io::Result<Metadata> {
        let path = c_path(path)?;
        let flags = if follow_symlink { AtFlags::empty() } else { AtFlags::SYMLINK_NOFOLLOW };
        on_pool(move || Ok(rustix::fs::statx(CWD, path, flags, StatxFlags::BASIC_STATS)?.into()))
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        let path = path.to_owned();
        on_pool(move || std::fs::create_dir(path))
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        let path = path.to_owned();
        on_pool(move || std::fs::remove_file(path))
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        let path = path.to_owned();
        on_pool(move || std::fs::remove_dir(path))
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        let path = path.to_owned();
        // By descriptors from the root on (`openat` without following, `unlinkat`): see CVE-2022-21658.
        on_pool(move || std::fs::remove_dir_all(path))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let (from, to) = (from.to_owned(), to.to_owned());
        on_pool(move || std::fs::rename(from, to))
    }

    fn hard_link(&self, existing: &Path, new: &Path) -> io::Result<()> {
        let (existing, new) = (existing.to_owned(), new.to_owned());
        on_pool(move || std::fs::hard_link(existing, new))
    }

    fn symlink(&self, target: &Path, new: &Path) -> io::Result<()> {
        let (target, new) = (target.to_owned(), new.to_owned());
        on_pool(move || std::os::unix::fs::symlink(target, new))
    }

    fn read_link(&self, path: &Path) -> io::Result<PathBuf> {
        let path = path.to_owned();
        on_pool(move || std::fs::read_link(path))
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let path = c_path(path)?;
        on_pool(move || {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            Ok(rustix::fs::fsync(rustix::fs::open(path, flags, Mode::empty())?)?)
        })
    }

    fn list(&self, path: &Path) -> io::Result<Box<dyn Listing>> {
        let path = c_path(path)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = on_pool(move || Ok(Dir::new(rustix::fs::open(path, flags, Mode::empty())?)?))?;
        Ok(Box::new(KernelListing::new(directory)))
    }

    fn remove_file_later(&self, path: PathBuf) {
        let counted = Counted::new();
        discard(move || {
            // It may be gone already, and nobody is left to be told of anything else.
            let _ = std::fs::remove_file(path);
            drop(counted);
        });
    }
}

struct KernelFile {
    /// Shared with what is under way: a descriptor's number must not be used again before that is over.
    fd: Arc<OwnedFd>,
    ring: Option<Rc<Ring>>,
    /// Until its file system has said that it does not know how.
    may_read_now: Cell<bool>,
    /// Whether it is a file, and of this machine; looked at once.
    may_write_now: OnceCell<bool>,
    prompt: Rc<Prompt>,
}

/// Whether a write goes to memory and waits for nobody else: not so in a pipe or a terminal, nor on another's disk.
fn is_file_of_this_machine(fd: &OwnedFd) -> bool {
    let is_file =
        rustix::fs::fstat(fd).is_ok_and(|found| rustix::fs::FileType::from_raw_mode(found.st_mode).is_file());
    let is_here = |found: rustix::fs::StatFs| WRITE_NOW_FILE_SYSTEMS.contains(&(found.f_type as u64));
    is_file && rustix::fs::fstatfs(fd).is_ok_and(is_here)
}

impl OpenFile for KernelFile {
    fn read_now(&self, buffer: &mut [u8], offset: u64) -> Option<io::Result<usize>> {
        if buffer.len() > READ_NOW_BYTES_MAX || !self.may_read_now.get() {
            return None;
        }
        let slices = &mut [IoSliceMut::new(buffer)];
        match rustix::io::preadv2(&self.fd, slices, offset, ReadWriteFlags::NOWAIT) {
            Ok(count) => Some(Ok(count)),
            Err(Errno::AGAIN | Errno::INTR) => None,
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => {
                self.may_read_now.set(false);
                None
            }
            Err(error) => Some(Err(error.into())),
        }
    }

    fn write_now(&self, bytes: &[u8], offset: u64) -> Option<io::Result<usize>> {
        let begun = crate::now();
        if bytes.len() > WRITE_NOW_BYTES_MAX || !self.prompt.may_try(begun) {
            return None;
        }
        if !self.may_write_now.get_or_init(|| is_file_of_this_machine(&self.fd)) {
            return None;
        }
        let written = rustix::io::pwrite(&self.fd, bytes, offset);
        self.prompt.note(begun, crate::now());
        match written {
            Err(Errno::AGAIN | Errno::INTR) => None,
            written => Some(written.map_err(io::Error::from)),
        }
    }

    fn read_at(&self, len: usize, offset: u64) -> io::Result<Vec<u8>> {
        let fd = self.fd.clone();
        match &self.ring {
            Some(ring) => ring.read(fd, len, offset),
            None => on_pool(move || {
                let mut bytes = Vec::with_capacity(len);
                rustix::io::pread(&fd, rustix::buffer::spare_capacity(&mut bytes), offset)?;
                Ok(bytes)
            }),
        }
    }

    fn write_at(&self, bytes: Bytes, offset: u64) -> io::Result<usize> {
        let fd = self.fd.clone();
        match &self.ring {
            Some(ring) => ring.write(fd, bytes, offset),
            None => on_pool(move || Ok(rustix::io::pwrite(&fd, &bytes, offset)?)),
        }
    }

    fn write_durably_at(&self, bytes: Bytes, offset: u64) -> io::Result<()> {
        let fd = self.fd.clone();
        // The ring hands a sync to a thread of its own anyhow: one trip for both, instead of two in turn.
        on_pool(move || {
            let mut written = 0;
            while written < bytes.len() {
                let offset = offset + written as u64;
                match rustix::io::retry_on_intr(|| rustix::io::pwrite(&fd, &bytes[written..], offset))? {
                    0 => return Err(ErrorKind::WriteZero.into()),
                    count => written += count,
                }
            }
            Ok(rustix::fs::fdatasync(fd)?)
        })
    }

    fn sync(&self, what: Durable) -> io::Result<()> {
        let fd = self.fd.clone();
        match &self.ring {
            Some(ring) => ring.sync(fd, what),
            None => on_pool(move || match what {
                Durable::Data => Ok(rustix::fs::fdatasync(fd)?),
                Durable::All => Ok(rustix::fs::fsync(fd)?),
            }),
        }
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let fd = self.fd.clone();
        on_pool(move || Ok(rustix::io::retry_on_intr(|| rustix::fs::ftruncate(&fd, len))?))
    }

    fn take_permissions_of(&self, path: &Path, mode: u32) -> io::Result<()> {
        let (fd, path) = (self.fd.clone(), c_path(path)?);
        on_pool(move || {
            let old = rustix::fs::statx(CWD, path, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::BASIC_STATS)?;
            let new = rustix::fs::statx(&fd, c"", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS)?;
            let owner = Uid::from_raw(old.stx_uid);
            let group = Gid::from_raw(old.stx_gid);
            let mut mode = mode;
            if (old.stx_uid, old.stx_gid) != (new.stx_uid, new.stx_gid)
                && rustix::fs::fchown(&fd, Some(owner), Some(group)).is_err()
            {
                // It is ours now, and must not lend us to whoever runs it.
                mode &= 0o777;
            }
            // Past the umask, and after the owner, whose change takes the special bits away.
            Ok(rustix::fs::fchmod(&fd, Mode::from_raw_mode(mode))?)
        })
    }

    fn metadata(&self) -> io::Result<Metadata> {
        // An open file's attributes are in memory, and with `DONT_SYNC` no file server is asked for newer ones.
        let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
        Ok(rustix::fs::statx(&self.fd, c"", flags, StatxFlags::BASIC_STATS)?.into())
    }

    fn try_lock(&self) -> io::Result<bool> {
        match rustix::fs::flock(&self.fd, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(true),
            Err(Errno::WOULDBLOCK) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    fn unlock(&self) -> io::Result<()> {
        Ok(rustix::fs::flock(&self.fd, FlockOperation::Unlock)?)
    }
}

impl From<rustix::fs::FileType> for FileKind {
    fn from(kind: rustix::fs::FileType) -> FileKind {
        match kind {
            rustix::fs::FileType::RegularFile => FileKind::File,
            rustix::fs::FileType::Directory => FileKind::Directory,
            rustix::fs::FileType::Symlink => FileKind::Symlink,
            _ => FileKind::Other,
        }
    }
}

impl From<rustix::fs::Statx> for Metadata {
    fn from(stat: rustix::fs::Statx) -> Metadata {
        let since = std::time::Duration::from_secs(stat.stx_mtime.tv_sec.unsigned_abs());
        let nanos = std::time::Duration::from_nanos(stat.stx_mtime.tv_nsec.into());
        let epoch = std::time::UNIX_EPOCH;
        // The nanoseconds count upward from the second, before 1970 too.
        let second =
            if stat.stx_mtime.tv_sec >= 0 { epoch.checked_add(since) } else { epoch.checked_sub(since) };
        Metadata {
            kind: rustix::fs::FileType::from_raw_mode(stat.stx_mode.into()).into(),
            len_bytes: stat.stx_size,
            mode: u32::from(stat.stx_mode) & 0o7777,
            modified: second.and_then(|second| second.checked_add(nanos)).unwrap_or(epoch),
            inode: stat.stx_ino,
            link_count: stat.stx_nlink.into(),
        }
    }
}
