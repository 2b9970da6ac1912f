//! Reading a journal: what earlier mounts left, record by record, and whether that is all there is.
//!
//! A crash leaves torn ends, of which nothing was acknowledged: they are passed over; that it was not is said beside the files. What else can't be read is passed over as
//! well, and counted: whoever tells what waits has to say that it is not all.

use std::io;
use std::path::{Path, PathBuf};

use reactor::fs::{self, File};

use super::end::Whole;
use super::reader::Reader;
use super::{Files, Item, Journal, JournalError, numbers, path_of};
use crate::access::VolumeKeys;

impl Journal {
    /// The journal in `directory` as it is now, for [`Journal::replay`] and nothing else, whoever uses it.
    ///
    /// # Errors
    ///
    /// [`JournalError::Io`].
    ///
    /// # Suspends
    ///
    /// While the directory is read.
    pub(crate) fn look(directory: &Path, keys: &VolumeKeys) -> Result<Journal, JournalError> {
        let found = match numbers(directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            found => found.map_err(|error| JournalError::Io(directory.into(), error))?,
        };
        Ok(Journal::new(directory.into(), None, found, keys))
    }

    /// Hands over what earlier mounts left, oldest first, a record at a time.
    ///
    /// # Errors
    ///
    /// [`JournalError`], or the error of `take`.
    ///
    /// # Suspends
    ///
    /// While the files are read, and as `take` does.
    pub(crate) fn replay<E: From<JournalError>>(
        &self,
        mut take: impl FnMut(Vec<Item>) -> Result<(), E>,
    ) -> Result<(), E> {
        let found = self.files.lock().found.clone();
        self.unread.set(0);
        let (end, mut read) = (self.read_end(), Vec::new());
        for number in found {
            let path = path_of(&self.directory, number);
            read.push(Whole { number, size_bytes: 0 });
            let whole = {
                let Some(mut reader) = Reader::open(self, &path)? else { continue };
                let mut whole = 0;
                // Which records are of whole groups is known only at the end of each: hence two readings.
                while let Some((_, ends_group)) = reader.next(self)? {
                    if ends_group {
                        whole = reader.record_count;
                        read.last_mut().into_iter().for_each(|file| file.size_bytes = reader.offset);
                    }
                }
                if reader.is_damaged {
                    self.note_unread();
                }
                whole
            };
            let Some(mut reader) = Reader::open(self, &path)? else { continue };
            while reader.record_count < whole
                && let Some((items, _)) = reader.next(self)?
            {
                take(items)?;
            }
        }
        self.note_lacking(end, &read);
        Ok(())
    }

    /// Keeps the files of earlier mounts under other names, where the last [`Journal::replay`] met what it could not read: what
    /// takes their place has only what could be. Returns the first of those names.
    ///
    /// # Errors
    ///
    /// [`JournalError::Io`].
    ///
    /// # Suspends
    ///
    /// Until they are kept for good.
    pub(crate) fn keep_damaged(&self, files: &Files) -> Result<Option<PathBuf>, JournalError> {
        if self.unread() == 0 {
            return Ok(None);
        }
        self.keep_aside(&files.found)
    }

    /// Keeps these files under other names, and returns the first of those.
    ///
    /// # Errors
    ///
    /// [`JournalError::Io`].
    ///
    /// # Suspends
    ///
    /// Until they are kept for good.
    pub(crate) fn keep_aside(&self, numbers: &[u64]) -> Result<Option<PathBuf>, JournalError> {
        let mut first = None;
        let inode = |path: &Path| fs::metadata(path).map(|file| file.inode);
        for number in numbers {
            let path = path_of(&self.directory, *number);
            // Numbers begin anew where nothing was left.
            for again in 0.. {
                let name = self.directory.join(format!("damaged-{number:016x}-{again}"));
                match fs::hard_link(&path, &name) {
                    Ok(()) => {}
                    // Nor is it kept twice by a start that was killed before all else was stored.
                    Err(error)
                        if error.kind() == io::ErrorKind::AlreadyExists
                            && inode(&name).ok() != inode(&path).ok() =>
                    {
                        continue;
                    }
                    Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                    Err(error) => return Err(self.error(error)),
                }
                first = first.or(Some(name));
                break;
            }
        }
        fs::sync_dir(&self.directory).map_err(|error| self.error(error))?;
        Ok(first)
    }

    /// Takes over the files of earlier mounts as they lie: they hold changes up to `through` as if this mount had written them.
    /// Returns whether a power cut leaves them, for which they are synced.
    ///
    /// # Suspends
    ///
    /// Until they are.
    pub(crate) fn keep_found(&self, files: &mut Files, through: u64) -> bool {
        let sync = || {
            files
                .found
                .iter()
                .try_for_each(|number| File::open(path_of(&self.directory, *number))?.sync_data())?;
            fs::sync_dir(&self.directory)
        };
        let synced = sync();
        if let Err(error) = &synced {
            tracing::warn!(%error, "what an earlier mount left in the journal may not outlive a power cut before it is stored");
            files.is_durable_unknown = true;
        }
        files.written.extend(files.found.drain(..).map(|number| (number, through)));
        synced.is_ok()
    }

    pub(super) fn note_unread(&self) {
        self.unread.set(self.unread.get() + 1);
    }

    /// How often the last [`Journal::replay`] met what it could not read and passed over: not the torn ends that a crash leaves.
    pub(crate) fn unread(&self) -> usize {
        self.unread.get()
    }
}
