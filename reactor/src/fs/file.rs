//! An open file.

use std::cell::Cell;
use std::fmt;
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::rc::Rc;

use bytes::Bytes;

use super::backend::{Durable, OpenFile};
use super::{Metadata, disk};
use crate::coroutine::{begin, spend_bytes};

/// The most that one read or one copied write moves: the memory that a call takes beside its caller's own, and long
/// enough that a trip through the kernel no longer counts (a megabyte takes a fast disk 300 us).
pub const CHUNK_BYTES_MAX: usize = 1 << 20;

/// What is read at once where a file should have ended by its length.
const UNEXPECTED_BYTES: usize = 32 << 10;

/// How a file is opened. By default nothing is allowed: say what it is for.
///
/// # Examples
///
/// ```
/// use reactor::fs::OpenOptions;
/// # let dir = tempfile::tempdir().unwrap();
/// # let path = dir.path().join("log");
/// reactor::run(|| {
///     let log = OpenOptions::new().append(true).create(true).open(&path).unwrap();
///     log.write_all_at(b"started\n", 0).unwrap(); // an appending file writes at its end, wherever it is told to
///     log.sync_data().unwrap();
/// });
/// ```
#[derive(Clone, Debug)]
pub struct OpenOptions {
    pub(crate) read: bool,
    pub(crate) write: bool,
    pub(crate) append: bool,
    pub(crate) truncate: bool,
    pub(crate) create: bool,
    pub(crate) create_new: bool,
    pub(crate) no_follow: bool,
    pub(crate) mode: u32,
}

impl Default for OpenOptions {
    fn default() -> Self {
        OpenOptions::new()
    }
}

impl OpenOptions {
    /// Nothing allowed, nothing made; mode 0666 less the process's umask.
    pub const fn new() -> OpenOptions {
        OpenOptions {
            read: false,
            write: false,
            append: false,
            truncate: false,
            create: false,
            create_new: false,
            no_follow: false,
            mode: 0o666,
        }
    }

    /// To read.
    pub fn read(&mut self, yes: bool) -> &mut Self {
        self.read = yes;
        self
    }

    /// To write at any position.
    pub fn write(&mut self, yes: bool) -> &mut Self {
        self.write = yes;
        self
    }

    /// To write at the end only, whatever position a call names.
    pub fn append(&mut self, yes: bool) -> &mut Self {
        self.append = yes;
        self
    }

    /// Empties it first.
    pub fn truncate(&mut self, yes: bool) -> &mut Self {
        self.truncate = yes;
        self
    }

    /// Makes it if it is not there.
    pub fn create(&mut self, yes: bool) -> &mut Self {
        self.create = yes;
        self
    }

    /// Makes it, and fails if it is there.
    pub fn create_new(&mut self, yes: bool) -> &mut Self {
        self.create_new = yes;
        self
    }

    /// Fails if the path's last part is a symbolic link.
    pub fn no_follow(&mut self, yes: bool) -> &mut Self {
        self.no_follow = yes;
        self
    }

    /// Permissions of a file that is made, less the process's umask.
    pub fn mode(&mut self, mode: u32) -> &mut Self {
        self.mode = mode;
        self
    }

    /// Opens the file.
    ///
    /// # Errors
    ///
    /// `NotFound`, `AlreadyExists`, `PermissionDenied`; `InvalidInput` when the options contradict each other.
    ///
    /// # Suspends
    ///
    /// Until it is open. Opening a named pipe does not wait for its other end.
    pub fn open(&self, path: impl AsRef<Path>) -> io::Result<File> {
        self.check().map_err(|message| io::Error::new(ErrorKind::InvalidInput, message))?;
        Ok(File { inner: disk().open(path.as_ref(), self)?, position: Cell::new(0) })
    }

    /// Whether they make sense together, wherever the file is.
    fn check(&self) -> Result<(), &'static str> {
        let writes = self.write || self.append;
        if !self.read && !writes {
            return Err("a file is opened to read, to write or to append");
        }
        if (self.create || self.create_new || self.truncate) && !writes {
            return Err("only a file that is opened to write can be made or emptied");
        }
        if self.append && self.truncate {
            return Err("a file is either appended to or emptied");
        }
        Ok(())
    }
}

/// An open file, closed on drop.
///
/// [`File::read_at`] and [`File::write_at`] say where; `Read`, `Write` and `Seek` keep a position in the handle.
/// Everything works through a shared reference, so several coroutines may use one file at once.
///
/// A coroutine that is terminated in a read or a write unwinds at once. The file stays usable and the position as it
/// was; what was being written may be there in part, in whole or not at all, as after a crash.
pub struct File {
    inner: Rc<dyn OpenFile>,
    position: Cell<u64>,
}

impl File {
    /// Opens a file to read.
    ///
    /// # Errors
    ///
    /// As [`OpenOptions::open`].
    ///
    /// # Suspends
    ///
    /// Until it is open.
    pub fn open(path: impl AsRef<Path>) -> io::Result<File> {
        OpenOptions::new().read(true).open(path)
    }

    /// Opens a file to write and empties it; makes it if it is not there.
    ///
    /// # Errors
    ///
    /// As [`OpenOptions::open`].
    ///
    /// # Suspends
    ///
    /// Until it is open.
    pub fn create(path: impl AsRef<Path>) -> io::Result<File> {
        OpenOptions::new().write(true).create(true).truncate(true).open(path)
    }

    /// See [`OpenFile::take_permissions_of`].
    pub(super) fn take_permissions_of(&self, path: &Path, mode: u32) -> io::Result<()> {
        self.inner.take_permissions_of(path, mode)
    }

    /// Reads some bytes from `offset` on; 0 at the end of the file. At most [`CHUNK_BYTES_MAX`] at a time.
    ///
    /// # Errors
    ///
    /// Those of the disk.
    ///
    /// # Suspends
    ///
    /// Until they are there; not at all for a short read of what the page cache holds.
    pub fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        let call = begin();
        if let Some(result) = self.inner.read_now(buffer, offset) {
            spend_bytes(*result.as_ref().unwrap_or(&0));
            call.needed_no_wait();
            return result;
        }
        call.over();
        let bytes = self.inner.read_at(buffer.len().min(CHUNK_BYTES_MAX), offset)?;
        buffer[..bytes.len()].copy_from_slice(&bytes);
        Ok(bytes.len())
    }

    /// Fills `buffer` from `offset` on.
    ///
    /// # Errors
    ///
    /// `UnexpectedEof` when the file ends first; those of the disk.
    ///
    /// # Suspends
    ///
    /// As [`File::read_at`].
    pub fn read_exact_at(&self, mut buffer: &mut [u8], mut offset: u64) -> io::Result<()> {
        while !buffer.is_empty() {
            let count = self.read_at(buffer, offset)?;
            if count == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            buffer = &mut buffer[count..];
            offset += count as u64;
        }
        Ok(())
    }

    /// Reads up to `len` bytes from `offset` on into memory of their own, uncopied; none at the end of the file. At
    /// most [`CHUNK_BYTES_MAX`] at a time.
    ///
    /// # Errors
    ///
    /// Those of the disk.
    ///
    /// # Suspends
    ///
    /// Until they are there.
    pub fn read_chunk_at(&self, len: usize, offset: u64) -> io::Result<Vec<u8>> {
        if len == 0 {
            return Ok(Vec::new());
        }
        self.inner.read_at(len.min(CHUNK_BYTES_MAX), offset)
    }

    /// Reads from `offset` to the end.
    ///
    /// # Errors
    ///
    /// `FileTooLarge` when that is more than `limit_bytes`; those of the disk.
    ///
    /// # Suspends
    ///
    /// As [`File::read_at`].
    pub fn read_to_end_at(&self, offset: u64, limit_bytes: usize) -> io::Result<Vec<u8>> {
        // One byte more than the file is long, so that its end shows without another read.
        let length = usize::try_from(self.metadata()?.len_bytes.saturating_sub(offset)).unwrap_or(usize::MAX);
        let mut all = Vec::new();
        loop {
            let room = limit_bytes - all.len();
            let expected = match length.saturating_sub(all.len()) {
                // The kernel did not say how long it is (those of /proc are none), or it has grown.
                0 => UNEXPECTED_BYTES,
                expected => expected,
            };
            let want = expected.min(room).saturating_add(1);
            let chunk = self.read_chunk_at(want, offset + all.len() as u64)?;
            if chunk.is_empty() {
                return Ok(all);
            }
            if chunk.len() > room {
                let message = format!("the file is longer than the {limit_bytes} bytes allowed");
                return Err(io::Error::new(ErrorKind::FileTooLarge, message));
            }
            let ended = chunk.len() < want.min(CHUNK_BYTES_MAX);
            if all.is_empty() {
                all = chunk;
            } else {
                all.extend_from_slice(&chunk);
            }
            // Where the length is not known a short read tells nothing: only an empty one does.
            if ended && length > 0 && all.len() >= length {
                return Ok(all);
            }
        }
    }

    /// Writes some of `bytes` at `offset`. At most [`CHUNK_BYTES_MAX`] at a time, which are copied.
    ///
    /// # Errors
    ///
    /// `StorageFull`, and those of the disk.
    ///
    /// # Suspends
    ///
    /// Until the kernel has them; not at all for a few that the page cache takes. On disk they are after
    /// [`File::sync_data`].
    pub fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        if bytes.is_empty() {
            return Ok(0);
        }
        if let Some(result) = self.write_now(bytes, offset) {
            return result;
        }
        self.inner.write_at(Bytes::copy_from_slice(&bytes[..bytes.len().min(CHUNK_BYTES_MAX)]), offset)
    }

    /// Writes all of `bytes` at `offset`.
    ///
    /// # Errors
    ///
    /// `StorageFull`, and those of the disk; some of the bytes may be written then.
    ///
    /// # Suspends
    ///
    /// Until the kernel has them.
    pub fn write_all_at(&self, mut bytes: &[u8], mut offset: u64) -> io::Result<()> {
        while !bytes.is_empty() {
            let count = self.write_at(bytes, offset)?;
            if count == 0 {
                return Err(ErrorKind::WriteZero.into());
            }
            bytes = &bytes[count..];
            offset += count as u64;
        }
        Ok(())
    }

    fn write_now(&self, bytes: &[u8], offset: u64) -> Option<io::Result<usize>> {
        let call = begin();
        let written = self.inner.write_now(bytes, offset);
        match &written {
            Some(result) => {
                spend_bytes(*result.as_ref().unwrap_or(&0));
                call.needed_no_wait();
            }
            None => call.over(),
        }
        written
    }

    /// As [`File::write_all_at`], without copying.
    ///
    /// # Errors
    ///
    /// As [`File::write_all_at`].
    ///
    /// # Suspends
    ///
    /// Until the kernel has them.
    pub fn write_chunk_at(&self, mut bytes: Bytes, mut offset: u64) -> io::Result<()> {
        while !bytes.is_empty() {
            let count = match self.write_now(&bytes, offset) {
                Some(result) => result?,
                None => self.inner.write_at(bytes.clone(), offset)?,
            };
            if count == 0 {
                return Err(ErrorKind::WriteZero.into());
            }
            let _ = bytes.split_to(count);
            offset += count as u64;
        }
        Ok(())
    }

    /// Writes all of `bytes` at `offset`, without copying, and makes durable what was written so far: as
    /// [`File::write_chunk_at`] and then [`File::sync_data`], in one trip.
    ///
    /// # Errors
    ///
    /// As of these two: some of the bytes may be written, and what was written before may be lost.
    ///
    /// # Suspends
    ///
    /// Until it is on the disk.
    pub fn write_durably_at(&self, bytes: Bytes, offset: u64) -> io::Result<()> {
        self.inner.write_durably_at(bytes, offset)
    }

    /// Makes what was written durable: the content and the length.
    ///
    /// # Errors
    ///
    /// Those of the disk. After one, what was written before may be lost although the next call succeeds: write it
    /// again.
    ///
    /// # Suspends
    ///
    /// Until it is on the disk.
    pub fn sync_data(&self) -> io::Result<()> {
        self.inner.sync(Durable::Data)
    }

    /// As [`File::sync_data`], with times and permissions. A new file's *name* is durable after
    /// [`super::sync_dir`] of its directory.
    ///
    /// # Errors
    ///
    /// As [`File::sync_data`].
    ///
    /// # Suspends
    ///
    /// Until it is on the disk.
    pub fn sync_all(&self) -> io::Result<()> {
        self.inner.sync(Durable::All)
    }

    /// Cuts the file off, or extends it with zeros.
    ///
    /// # Errors
    ///
    /// Those of the disk.
    ///
    /// # Suspends
    ///
    /// Until it is done.
    pub fn set_len(&self, len_bytes: u64) -> io::Result<()> {
        self.inner.set_len(len_bytes)
    }

    /// What is known of it here: on a network file system another machine's last changes may be missing. Never
    /// suspends.
    ///
    /// # Errors
    ///
    /// Those of the disk.
    pub fn metadata(&self) -> io::Result<Metadata> {
        self.inner.metadata()
    }

    /// Takes the file's lock, which another handle to it, here or in another process, may hold; whether it was free.
    /// It goes when the handle does. Advice only: reads and writes do not look at it. Never suspends.
    ///
    /// # Errors
    ///
    /// Where the file system knows no locks.
    pub fn try_lock(&self) -> io::Result<bool> {
        self.inner.try_lock()
    }

    /// Gives the lock back. Never suspends.
    ///
    /// # Errors
    ///
    /// Where the file system knows no locks.
    pub fn unlock(&self) -> io::Result<()> {
        self.inner.unlock()
    }
}

impl fmt::Debug for File {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("File").field("position", &self.position.get()).finish_non_exhaustive()
    }
}

impl Read for &File {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.read_at(buffer, self.position.get())?;
        self.position.set(self.position.get() + count as u64);
        Ok(count)
    }
}

impl Write for &File {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.write_at(bytes, self.position.get())?;
        self.position.set(self.position.get() + count as u64);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for &File {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let (base, by) = match to {
            SeekFrom::Start(position) => (position, 0),
            SeekFrom::Current(by) => (self.position.get(), by),
            SeekFrom::End(by) => (self.metadata()?.len_bytes, by),
        };
        let position = base
            .checked_add_signed(by)
            .ok_or_else(|| io::Error::new(ErrorKind::InvalidInput, "a position before the file's begin"))?;
        self.position.set(position);
        Ok(position)
    }
}

impl Read for File {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        (&*self).read(buffer)
    }
}

impl Write for File {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        (&*self).write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for File {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        (&*self).seek(to)
    }
}
