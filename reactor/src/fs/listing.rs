//! A directory of the kernel's that is being read, on the pool of threads.
//!
//! Of each listing one job at the most is on the pool: a call that is broken off leaves its own there, and the next one waits for
//! that and no other, however often it is broken off in turn. A directory that hangs (of a network that is gone, say) so holds one thread
//! of those that everybody's files need, for each listing of it: who opens it anew at each try holds one each.

use std::cell::Cell;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::{AtFlags, Dir, Mode, OFlags};
use rustix::io::Errno;

use super::DirEntry;
use super::backend::Listing;
use super::kernel::{c_path, check_may_suspend, on_pool};
use crate::coroutine::{JoinHandle, try_spawn};

/// Entries fetched at once: a few kernel buffers' worth, for one trip to another thread.
const ENTRIES_PER_BATCH: usize = 256;

pub(super) struct KernelListing {
    /// There while no job has it.
    directory: Rc<Cell<Option<Dir>>>,
    job: Option<JoinHandle<io::Result<Done>>>,
    /// What was read for a call that was broken off, and that nobody has been given yet.
    batch: Option<io::Result<Vec<DirEntry>>>,
}

/// What a job has done.
enum Done {
    Batch(io::Result<Vec<DirEntry>>),
    Child(io::Result<Dir>),
}

impl KernelListing {
    pub(super) fn new(directory: Dir) -> KernelListing {
        KernelListing { directory: Rc::new(Cell::new(Some(directory))), job: None, batch: None }
    }

    /// Has `job` done on the pool, on a coroutine that outlives this call if that is broken off.
    fn start(&mut self, job: impl FnOnce(&mut Dir) -> Done + Send + 'static) -> io::Result<()> {
        check_may_suspend()?;
        let place = self.directory.clone();
        let work = move || {
            let gone = || io::Error::other("an earlier read of this directory failed amid it");
            let ours = Arc::new(Mutex::new(place.take().ok_or_else(gone)?));
            let lent = ours.clone();
            let done = on_pool(move || {
                let done = job(&mut lent.lock().unwrap_or_else(PoisonError::into_inner));
                drop(lent);
                Ok(done)
            });
            // Where no thread could be had the job never began, and the next call finds the directory as it was.
            if let Some(directory) = Arc::into_inner(ours) {
                place.set(Some(directory.into_inner().unwrap_or_else(PoisonError::into_inner)));
            }
            done
        };
        self.job = Some(try_spawn(work).map_err(io::Error::other)?);
        Ok(())
    }

    /// Waits for the job that is under way, if one is.
    fn wait(&mut self) -> io::Result<Option<Done>> {
        let Some(job) = &self.job else { return Ok(None) };
        let ended = job.join().map_err(io::Error::other);
        self.job = None;
        ended?.map(Some)
    }

    /// Waits for what an earlier call has begun, and keeps what it has read.
    fn settle(&mut self) -> io::Result<()> {
        if let Some(Done::Batch(batch)) = self.wait()? {
            self.batch = Some(batch);
        }
        Ok(())
    }
}

impl Listing for KernelListing {
    fn next_batch(&mut self) -> io::Result<Vec<DirEntry>> {
        self.settle()?;
        if self.batch.is_none() {
            self.start(|directory| Done::Batch(read_batch(directory)))?;
            self.settle()?;
        }
        self.batch.take().unwrap_or_else(|| Ok(Vec::new()))
    }

    fn open_child(&mut self, name: &OsStr) -> io::Result<Box<dyn Listing>> {
        let name = c_path(Path::new(name))?;
        self.settle()?;
        self.start(move |parent| {
            // Relative to the open parent and without following links: what was a directory when it was listed
            // may be a link to anywhere by now.
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let open = |parent: &mut Dir| -> io::Result<Dir> {
                let fd = rustix::fs::openat(parent.fd()?, name, flags, Mode::empty())?;
                Ok(Dir::new(fd)?)
            };
            Done::Child(open(parent))
        })?;
        match self.wait()? {
            Some(Done::Child(child)) => Ok(Box::new(KernelListing::new(child?))),
            _ => Err(io::ErrorKind::Interrupted.into()),
        }
    }
}

impl Drop for KernelListing {
    fn drop(&mut self) {
        // What it has begun goes on to its end, and nobody waits for it.
        self.job.iter().for_each(JoinHandle::terminate);
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

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_directory_that_hangs_keeps_one_thread_however_often_it_is_tried_again() {
        crate::run(|| {
            let there = tempfile::tempdir().unwrap();
            std::fs::write(there.path().join("file"), "").unwrap();
            let fd =
                rustix::fs::open(there.path(), OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
            let mut listing = KernelListing::new(Dir::new(fd).unwrap());
            let (answer, hangs) = mpsc::channel::<()>();
            let hung = move |directory: &mut Dir| {
                let _ = hangs.recv();
                Done::Batch(read_batch(directory))
            };
            listing.start(hung).unwrap();
            // More than there are threads for files.
            for _ in 0..50 {
                assert!(crate::timeout(Duration::from_millis(1), || listing.next_batch()).is_err());
            }
            let of_others = crate::timeout(Duration::from_secs(100), || crate::offload(|| 1));
            assert_eq!(of_others, Ok(1), "it has taken all threads");
            drop(answer);
            assert_eq!(listing.next_batch().unwrap().len(), 1, "what was read is lost");
            assert_eq!(listing.next_batch().unwrap().len(), 0);
        });
    }
}
