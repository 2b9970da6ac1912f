//! The machine's own disk.

use super::{DeviceId, Disk, DiskFile, Opening, Waiting};
use rustix::{
    fs::{FallocateFlags, FlockOperation},
    io::{Errno, ReadWriteFlags},
};
use std::{
    fs::{self, File, OpenOptions},
    io::{self, IoSlice, IoSliceMut},
    ops::Range,
    os::unix::fs::FileExt,
    path::Path,
    sync::Arc,
};

/// `IOV_MAX` on Linux: the most pieces in one call.
const PIECES_MAX: usize = 1024;

/// The file systems of this machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct KernelDisk;

#[derive(Debug)]
struct KernelFile {
    file: File,
    /// It lives in memory and nowhere else: no read of it waits.
    is_in_memory: bool,
}

impl Disk for KernelDisk {
    fn open(&self, path: &Path, how: Opening) -> io::Result<Arc<dyn DiskFile>> {
        let mut options = OpenOptions::new();
        options.read(true).write(how != Opening::Read);
        options.create(how == Opening::Create).create_new(how == Opening::New);
        let file = options.open(path)?;
        Ok(Arc::new(KernelFile { is_in_memory: is_in_memory(&file), file }))
    }

    fn make_directory(&self, path: &Path) -> io::Result<()> {
        if path.is_dir() {
            return Ok(());
        }
        fs::create_dir_all(path)?;
        path.parent()
            .filter(|parent| !parent.as_os_str().is_empty())
            .map_or(Ok(()), |parent| self.sync_directory(parent))
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        // A name that is no Unicode is none of ours.
        fs::read_dir(path)?
            .filter_map(|entry| entry.map(|e| e.file_name().into_string().ok()).transpose())
            .collect()
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    fn free_bytes(&self, path: &Path) -> Option<u64> {
        rustix::fs::statvfs(path).ok().map(|disk| disk.f_bavail * disk.f_frsize)
    }

    fn device(&self, path: &Path) -> DeviceId {
        // A file system's own id where it has one; else its device's number, which another boot may change.
        let own = rustix::fs::statvfs(path).map_or(0, |disk| disk.f_fsid);
        let number = rustix::fs::stat(path).map_or(0, |known| known.st_dev);
        let id = if own == 0 { number } else { own };
        let machine = fs::read("/etc/machine-id").unwrap_or_default();
        let machine =
            if machine.is_empty() { rustix::system::uname().nodename().to_bytes().to_vec() } else { machine };
        let hash = reactor::crypto::hash::sha3_256(&[b"hypha device 1", &machine, &id.to_le_bytes()]);
        let mut device = DeviceId::default();
        device.0.copy_from_slice(&hash[..16]);
        device
    }

    fn waiting(&self) -> Waiting {
        Waiting::Thread
    }
}

impl DiskFile for KernelFile {
    fn length_bytes(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_exact_at(buffer, offset)
    }

    fn read_cached_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        // tmpfs does not know NOWAIT, and asking it is another call.
        if self.is_in_memory {
            return self.read_at(buffer, offset);
        }
        let length = buffer.len();
        match rustix::io::preadv2(&self.file, &mut [IoSliceMut::new(buffer)], offset, ReadWriteFlags::NOWAIT)
        {
            Ok(count) if count == length => Ok(()),
            // A part of it is in memory; or the file system cannot tell. An end of file shows when blocking.
            Ok(_) | Err(Errno::AGAIN | Errno::OPNOTSUPP | Errno::NOSYS | Errno::INTR) => {
                Err(io::ErrorKind::WouldBlock.into())
            }
            Err(error) => Err(error.into()),
        }
    }

    fn write_at(&self, pieces: &[IoSlice<'_>], offset: u64) -> io::Result<usize> {
        Ok(rustix::io::pwritev(&self.file, &pieces[..pieces.len().min(PIECES_MAX)], offset)?)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn sync_all(&self) -> io::Result<()> {
        self.file.sync_all()
    }

    fn set_length(&self, length_bytes: u64) -> io::Result<()> {
        self.file.set_len(length_bytes)
    }

    fn allocate(&self, length_bytes: u64) -> io::Result<()> {
        if rustix::fs::fallocate(&self.file, FallocateFlags::empty(), 0, length_bytes).is_ok() {
            return Ok(());
        }
        // Not every file system can allocate without writing; on a full one this fails as well.
        let zeros = [0; 1 << 16];
        let mut offset = 0;
        while offset < length_bytes {
            let count = (length_bytes - offset).min(zeros.len() as u64);
            self.file.write_all_at(&zeros[..count as usize], offset)?;
            offset += count;
        }
        self.file.sync_all()
    }

    fn punch(&self, bytes: Range<u64>) -> io::Result<()> {
        let how = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        rustix::fs::fallocate(&self.file, how, bytes.start, bytes.end - bytes.start).map_err(|errno| {
            match errno {
                Errno::OPNOTSUPP | Errno::NOSYS => io::ErrorKind::Unsupported.into(),
                errno => errno.into(),
            }
        })
    }

    fn try_lock(&self) -> io::Result<bool> {
        match rustix::fs::flock(&self.file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(true),
            Err(Errno::WOULDBLOCK) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    fn unlock(&self) {
        // It cannot fail on a file that we locked ourselves.
        let _ = rustix::fs::flock(&self.file, FlockOperation::Unlock);
    }
}

/// Whether the file lives in memory and nowhere else.
fn is_in_memory(file: &File) -> bool {
    /// statfs(2)'s `TMPFS_MAGIC`.
    const TMPFS_MAGIC: u64 = 0x0102_1994;
    rustix::fs::fstatfs(file).is_ok_and(|statistics| statistics.f_type as u64 == TMPFS_MAGIC)
}
