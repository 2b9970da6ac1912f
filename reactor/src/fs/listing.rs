//! A directory of the kernel's that is being read, on the pool of threads.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::{AtFlags, Dir, Mode, OFlags};
use rustix::io::Errno;

use super::DirEntry;
use super::backend::Listing;
use super::kernel::{c_path, on_pool};

/// Entries fetched at once: a few kernel buffers' worth, for one trip to another thread.
const ENTRIES_PER_BATCH: usize = 256;

/// Shared with the thread that works on it: a coroutine that is broken off meanwhile finds in its next call what was read.
pub(super) struct KernelListing(Arc<Mutex<Reading>>);

struct Reading {
    directory: Dir,
    batch: Option<io::Result<Vec<DirEntry>>>,
}

impl KernelListing {
    pub(super) fn new(directory: Dir) -> KernelListing {
        KernelListing(Arc::new(Mutex::new(Reading { directory, batch: None })))
    }

    fn with<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Reading) -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let shared = self.0.clone();
        on_pool(move || job(&mut shared.lock().unwrap_or_else(PoisonError::into_inner)))
    }
}

impl Listing for KernelListing {
    fn next_batch(&mut self) -> io::Result<Vec<DirEntry>> {
        loop {
            self.with(|reading| {
                if reading.batch.is_none() {
                    reading.batch = Some(read_batch(&mut reading.directory));
                }
                Ok(())
            })?;
            // A call that was broken off may be reading still, and gives what comes behind this.
            if let Ok(mut reading) = self.0.try_lock()
                && let Some(batch) = reading.batch.take()
            {
                return batch;
            }
        }
    }

    fn open_child(&mut self, name: &OsStr) -> io::Result<Box<dyn Listing>> {
        let name = c_path(Path::new(name))?;
        let child = self.with(move |parent| {
            // Relative to the open parent and without following links: what was a directory when it was listed
            // may be a link to anywhere by now.
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let fd = rustix::fs::openat(parent.directory.fd()?, name, flags, Mode::empty())?;
            Ok(Dir::new(fd)?)
        })?;
        Ok(Box::new(KernelListing::new(child)))
    }
}

fn read_batch(directory: &mut Dir) -> io::Result<Vec<DirEntry>> {
    let mut entries = Vec::new();
    while entries.len() < ENTRIES_PER_BATCH {
        let Some(entry) = directory.read() else { break };
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let kind = match entry.file_type() {
            // A file system that does not tell while listing must be asked for each.
            rustix::fs::FileType::Unknown => {
                match rustix::fs::statat(directory.fd()?, name, AtFlags::SYMLINK_NOFOLLOW) {
                    Ok(stat) => rustix::fs::FileType::from_raw_mode(stat.st_mode).into(),
                    Err(Errno::NOENT) => continue, // removed meanwhile
                    Err(error) => return Err(error.into()),
                }
            }
            kind => kind.into(),
        };
        entries.push(DirEntry { name: OsString::from_vec(name.to_bytes().to_vec()), kind });
    }
    Ok(entries)
}
