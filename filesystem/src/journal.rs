//! The local journal: what was acknowledged, or is left at the end, and no quorum holds yet.
//!
//! Every mount that may write has one, in a directory of its own that one process at a time may use. In write-back mode
//! each `sync` appends a group to it; otherwise each close of a mount that is alone does, without waiting for the disk, and
//! the end of one whose nodes did not take everything. So does, in either mode and without waiting, whatever is changed that has
//! no close (names, attributes, lengths) and is not on the nodes when it is answered. A file is a header and groups of records, each group the keys that
//! changed since the last one with their values of now. A group counts only if its last record is there and verifies, so a
//! torn end loses nothing that was acknowledged. The first group of each file is a *snapshot*: all that is not committed,
//! so that whatever earlier files hold is superseded, and a file that has grown past its use can be replaced. Everything is
//! encrypted: a file's key is random, and sealed to our own X25519 key in its header. A file goes when a quorum holds all
//! that is in it, and the directory is synced after, so that a power cut cannot bring it back. How far the newest reaches is said beside it
//! (`end.rs`), so that one that was cut off later is told from a torn end.
//!
//! It is no log of operations: replaying it sets keys. Which of them a root contains already, the writer's record in that
//! root says. On what root they were made the journal says, and has that root itself: on an older one they are never put. The bytes are [`record`]'s; the files are [`reactor::fs`]'s, so that in a simulation they lie on a disk that
//! tears, loses and fails.

mod end;
mod note;
mod reader;
mod record;
mod replay;

use std::cell::Cell;
use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use dht::RegisterAddress;
use reactor::crypto::{X25519Secret, random_bytes};
use reactor::fs::{self, File, OpenOptions};
use reactor::sync::{Mutex, MutexGuard};

use crate::access::VolumeKeys;
use crate::errno::Errno;
pub(crate) use end::Lacking;
pub(crate) use record::Item;
use record::{RECORD_SIZE, Records};

/// Sealed bytes handed to the disk at once: enough to keep it busy, little to hold.
const WRITE_SIZE: usize = 4 * RECORD_SIZE;
/// A file is replaced once it is more than twice what a snapshot would take, and this: small ones are not worth it.
const ROTATE_SIZE_MIN: u64 = 16 * 1024 * 1024;

/// Why the journal can't be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JournalError {
    /// The directory can't be read or written.
    #[error("the journal in {0} cannot be used: {1}; check the directory's permissions and space")]
    Io(PathBuf, #[source] io::Error),
    /// The file belongs to another volume or another user's key.
    #[error(
        "the journal file {0} was written by another identity or for another volume: move it away to go on without it"
    )]
    Foreign(PathBuf),
    /// The file is another version's.
    #[error(
        "the journal file {0} was written by another version: run that once more, or move it away to go on without it"
    )]
    OtherVersion(PathBuf),
    /// Another process uses the directory.
    #[error(
        "the journal in {0} is in use by another process: stop that first, or give this one a directory of its own"
    )]
    InUse(PathBuf),
    /// A new volume was to be made over what an earlier one did not get stored.
    #[error(
        "the journal in {0} holds changes of a volume that are not stored yet: open that volume, or move the journal away"
    )]
    Unstored(PathBuf),
}

impl JournalError {
    /// What an operation says that could not be kept: `ENOSPC` where the disk is full, `EIO` otherwise.
    pub(crate) fn errno(&self) -> Errno {
        match self {
            JournalError::Io(_, error) if is_full(error) => Errno::ENOSPC,
            _ => Errno::EIO,
        }
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// The file that takes the next group.
struct Open {
    file: File,
    number: u64,
    key: [u8; 32],
    record_count: u64,
    size_bytes: u64,
    /// What was said last in it of the root that changes stand on.
    base: Option<Item>,
    /// The version of the root that was told last in it.
    root_version: u64,
    /// A power cut leaves its name: that costs a trip to the disk, and is not needed before something in it is to be kept.
    is_named: bool,
}

impl Open {
    /// Writes the records of a group, behind what is in `bytes`; the file is in `directory`.
    fn write(
        &mut self,
        directory: &Path,
        mut bytes: Vec<u8>,
        items: impl Iterator<Item = Item>,
        durably: bool,
    ) -> io::Result<()> {
        if durably && !self.is_named {
            fs::sync_dir(directory)?;
            self.is_named = true;
        }
        let mut records = Records::new(items, &self.key, &mut self.record_count);
        let mut more = true;
        while more {
            more = records.next_into(&mut bytes);
            if bytes.len() >= WRITE_SIZE || !more {
                let piece = Bytes::from(std::mem::take(&mut bytes));
                let (offset, length) = (self.size_bytes, piece.len() as u64);
                match more || !durably {
                    true => self.file.write_chunk_at(piece, offset)?,
                    false => self.file.write_durably_at(piece, offset)?,
                }
                self.size_bytes += length;
            }
        }
        Ok(())
    }
}

/// What the turn to write gives access to.
#[derive(Default)]
pub(crate) struct Files {
    open: Option<Open>,
    /// The files that this mount wrote, or that hold what it began with, with the number up to which they hold changes.
    written: Vec<(u64, u64)>,
    /// The file numbers that earlier mounts left.
    found: Vec<u64>,
    /// Of those that were taken over it is not known whether a power cut leaves them: what takes their place has to be left by it.
    is_durable_unknown: bool,
    /// Those that have served and may still be there.
    served: Vec<u64>,
    /// It was told that these cannot be removed.
    is_told: bool,
    /// What is said beside them of how far they reach.
    end: end::End,
    /// The highest number that there ever was: a file must not be taken for older than one that has served.
    last_number: u64,
}

impl Files {
    /// Returns up to which number this mount's files hold changes; 0 if there are none.
    pub(crate) fn through(&self) -> u64 {
        self.written.iter().map(|(_, through)| *through).max().unwrap_or(0)
    }
}

/// How a group is written.
pub(crate) struct Group {
    /// It has all that is not committed: it begins a file, and the others go.
    pub(crate) snapshot: bool,
    /// It survives a power cut, and not only the end of this process, and so does all that was written before. A snapshot has
    /// to, if what it replaces does.
    pub(crate) durably: bool,
    /// Up to which number it holds changes.
    pub(crate) through: u64,
    /// What its changes stand on, [`Item::Base`]: it says so, or the file has before.
    pub(crate) base: Item,
    /// The version of the root that it tells, or that the file has told before.
    pub(crate) root_version: u64,
    /// The session that writes it, and its device.
    pub(crate) writer: ([u8; 8], u64),
    /// The last delta that it has changes of, if it has any.
    pub(crate) delta: Option<u64>,
}

/// The journal of one mounted volume.
pub(crate) struct Journal {
    directory: PathBuf,
    /// The directory, locked while this journal is in use.
    lock: Cell<Option<File>>,
    secret: X25519Secret,
    register: RegisterAddress,
    files: Mutex<Files>,
    /// What the files hold stands on a root that was left.
    is_outdated: Cell<bool>,
    /// How often the last replay met what is no torn end, and that it can't read.
    unread: Cell<usize>,
    /// What the last replay did not find, and was acknowledged.
    lacking: Cell<Option<Lacking>>,
}

fn path_of(directory: &Path, number: u64) -> PathBuf {
    directory.join(format!("journal-{number:016x}"))
}

fn numbers(directory: &Path) -> io::Result<Vec<u64>> {
    let mut numbers = Vec::new();
    for entry in fs::read_dir(directory)? {
        let number = entry?
            .name
            .to_str()
            .and_then(|name| u64::from_str_radix(name.strip_prefix("journal-")?, 16).ok());
        numbers.extend(number);
    }
    numbers.sort_unstable();
    Ok(numbers)
}

/// Makes the directory and those above it, and their names durable: files are worth nothing while a power cut could take
/// the directory that they are in.
fn make_durably(directory: &Path) -> io::Result<()> {
    let is_missing = |path: &&Path| !path.as_os_str().is_empty() && fs::metadata(path).is_err();
    let missing = directory.ancestors().take_while(is_missing).count();
    fs::create_dir_all(directory)?;
    // The directory's own in any case: who made it may have been killed before.
    for parent in directory.ancestors().skip(1).take(missing.max(1)) {
        let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
        match fs::sync_dir(parent) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                tracing::warn!(directory = %parent.display(), "it may not be read, and so not be made durable");
            }
            other => other?,
        }
    }
    Ok(())
}

impl Journal {
    /// Opens the journal in `directory`, which is made if it is not there.
    ///
    /// # Errors
    ///
    /// [`JournalError::InUse`], or [`JournalError::Io`].
    ///
    /// # Suspends
    ///
    /// While the directory is read.
    pub(crate) fn open(directory: PathBuf, keys: &VolumeKeys) -> Result<Journal, JournalError> {
        let open = || {
            make_durably(&directory)?;
            let lock = File::open(&directory)?;
            let is_ours = lock.try_lock()?;
            Ok(if is_ours { Some((lock, numbers(&directory)?)) } else { None })
        };
        match open() {
            Ok(Some((lock, found))) => Ok(Journal::new(directory, Some(lock), found, keys)),
            Ok(None) => Err(JournalError::InUse(directory)),
            Err(error) => Err(JournalError::Io(directory, error)),
        }
    }

    fn new(directory: PathBuf, lock: Option<File>, found: Vec<u64>, keys: &VolumeKeys) -> Journal {
        let last_number = found.last().copied().unwrap_or(0);
        Journal {
            directory,
            lock: Cell::new(lock),
            secret: keys.secret.clone(),
            register: keys.register,
            files: Mutex::new(Files { last_number, found, ..Files::default() }),
            is_outdated: Cell::new(false),
            unread: Cell::new(0),
            lacking: Cell::new(None),
        }
    }

    /// Where it is.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Lets others use the directory: nothing is written any more.
    pub(crate) fn release(&self) {
        drop(self.lock.take());
    }

    fn error(&self, error: io::Error) -> JournalError {
        JournalError::Io(self.directory.clone(), error)
    }

    /// Refuses to go on if an earlier mount left something.
    ///
    /// # Errors
    ///
    /// [`JournalError::Unstored`].
    pub(crate) fn refuse_leftovers(&self) -> Result<(), JournalError> {
        if self.files.lock().found.is_empty() {
            return Ok(());
        }
        Err(JournalError::Unstored(self.directory.clone()))
    }

    /// Takes the turn to write: one group at a time; who waits meanwhile shares the next.
    ///
    /// # Suspends
    ///
    /// Until it comes.
    pub(crate) fn turn(&self) -> MutexGuard<'_, Files> {
        self.files.lock()
    }

    /// Whether the group that is being put together has to be a snapshot, which would take `snapshot_bytes`.
    pub(crate) fn wants_snapshot(&self, files: &Files, snapshot_bytes: u64) -> bool {
        let too_long = |open: &Open| open.size_bytes > 2 * snapshot_bytes + ROTATE_SIZE_MIN;
        self.needs_snapshot(files) || files.open.as_ref().is_none_or(too_long)
    }

    /// Whether it has to be one however long the file is by now.
    pub(crate) fn needs_snapshot(&self, files: &Files) -> bool {
        // Taken back now and not once it is written: a root may be left meanwhile again. If the write fails, no file is
        // open any more, which says the same.
        self.is_outdated.replace(false) || files.open.is_none()
    }

    /// Whether the group that is being put together, no snapshot, has to tell the root of this version.
    pub(crate) fn lacks_root(&self, files: &Files, version: u64) -> bool {
        files.open.as_ref().is_none_or(|open| open.root_version != version)
    }

    /// Whether the group that is being put together, no snapshot, has to say that it stands on this base.
    pub(crate) fn lacks_base(&self, files: &Files, base: &Item) -> bool {
        files.open.as_ref().is_none_or(|open| open.base.as_ref() != Some(base))
    }

    /// Another writer's root was taken over: what is written next stands on that, and so must all else.
    pub(crate) fn on_rebased(&self) {
        self.is_outdated.set(true);
    }

    /// Appends one group. If it is a snapshot that turns out not to be whole, once it is written, what it takes the place of is kept under
    /// other names; returns the first of them.
    ///
    /// # Errors
    ///
    /// [`JournalError::Io`]: nothing of the group counts or is left on the disk, which may be full, and the next has to be a
    /// snapshot.
    ///
    /// # Suspends
    ///
    /// Until it is written, and durable where that is wanted.
    pub(crate) fn append_group(
        &self,
        files: &mut Files,
        group: Group,
        items: impl Iterator<Item = Item>,
        is_whole: impl FnOnce() -> bool,
    ) -> Result<Option<PathBuf>, JournalError> {
        let Group { snapshot, durably, through, base, root_version, writer, delta } = group;
        // What earlier mounts left a power cut leaves.
        let durably = durably || (snapshot && (!files.found.is_empty() || files.is_durable_unknown));
        // Taken out: what follows a torn record could not be read back, so a file that failed gets nothing more. Nor does
        // one that a snapshot was to replace: without a file that is open, the next group is a snapshot again.
        let open = files.open.take().filter(|_| !snapshot);
        let mut bytes = Vec::new();
        let mut open = match open {
            Some(open) => open,
            None => {
                let open = self.begin(files, &mut bytes)?;
                // It holds nothing yet, and it goes with the others even if it never will.
                files.written.push((open.number, 0));
                open
            }
        };
        let (number, size_before) = (open.number, open.size_bytes);
        if let Err(error) = open.write(&self.directory, bytes, items, durably) {
            if size_before == 0 {
                files.written.retain(|(written, _)| *written != number);
                files.served.push(number);
                self.remove_served(files);
            } else if let Err(error) = open.file.set_len(size_before) {
                tracing::debug!(%error, "what was written of a group stays, and is read if it is whole; what follows is in another file");
            }
            return Err(self.error(error));
        }
        (open.base, open.root_version) = (Some(base), root_version);
        let size_bytes = open.size_bytes;
        files.open = Some(open);
        // Before what it takes the place of goes.
        self.note_end(files, &end::Written { writer, number, size_bytes, delta, durably });
        for (_, held) in files.written.iter_mut().filter(|(written, _)| *written == number) {
            *held = through;
        }
        let mut kept = None;
        if snapshot {
            let Files { found, written, served, is_durable_unknown, .. } = &mut *files;
            let mut older = found.clone();
            older.extend(written.iter().map(|(number, _)| *number).filter(|old| *old != number));
            if !is_whole() {
                kept = self.keep_aside(&older)?;
            }
            found.clear();
            *is_durable_unknown = false;
            served.append(&mut older);
            written.retain(|(written, _)| *written == number);
            self.remove_served(files);
        }
        Ok(kept)
    }

    /// Begins a file; its header goes to `bytes`.
    fn begin(&self, files: &mut Files, bytes: &mut Vec<u8>) -> Result<Open, JournalError> {
        let key: [u8; 32] = random_bytes();
        bytes.extend_from_slice(&record::header(&self.register, &self.secret, &key));
        let file = loop {
            files.last_number += 1;
            let mut options = OpenOptions::new();
            let path = path_of(&self.directory, files.last_number);
            match options.write(true).create_new(true).mode(0o600).open(path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                other => break other.map_err(|error| self.error(error))?,
            }
        };
        Ok(Open {
            file,
            number: files.last_number,
            key,
            record_count: 0,
            size_bytes: 0,
            base: None,
            root_version: 0,
            is_named: false,
        })
    }

    /// A quorum holds every change up to `through`: the files that hold no others go.
    ///
    /// # Suspends
    ///
    /// Until they are gone for good.
    pub(crate) fn on_committed(&self, files: &mut Files, through: u64) {
        let (gone, kept): (Vec<_>, Vec<_>) = files.written.iter().partition(|(_, held)| *held <= through);
        files.written = kept;
        if gone.is_empty() {
            return;
        }
        files.open.take_if(|open| gone.iter().any(|(number, _)| *number == open.number));
        if files.written.is_empty() {
            self.clear_end(files);
        }
        files.served.extend(gone.into_iter().map(|(number, _)| number));
        self.remove_served(files);
    }

    /// Removes what earlier mounts left, all of which is in a root.
    ///
    /// # Errors
    ///
    /// [`JournalError::Io`]: nothing may be committed. It would put this session's record in the place of theirs, which
    /// says that what they left is in the root, and the next start would take it for new.
    ///
    /// # Suspends
    ///
    /// Until it is gone for good.
    pub(crate) fn remove_found(&self, files: &mut Files) -> Result<(), JournalError> {
        if !files.found.is_empty() {
            self.clear_end(files);
        }
        files.served.append(&mut files.found);
        let error = || self.error(io::Error::other("files that have served cannot be removed"));
        self.remove_served(files).then_some(()).ok_or_else(error)
    }

    /// Removes the files that have served; whether they are gone for good. What is left is tried again with the next.
    fn remove_served(&self, files: &mut Files) -> bool {
        if files.served.is_empty() {
            return true;
        }
        // From the lowest on: what a file supersedes must not outlive it.
        files.served.sort_unstable();
        let remove = || {
            for number in &files.served {
                match fs::remove_file(path_of(&self.directory, *number)) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    _ => {}
                }
            }
            fs::sync_dir(&self.directory)
        };
        let removed = reactor::uninterruptible(remove);
        let was_told = std::mem::replace(&mut files.is_told, removed.is_err());
        match removed {
            Ok(()) => files.served.clear(),
            // The writer's record in the root says that the last of them is in it, and that supersedes the others.
            Err(error) if !was_told => {
                tracing::warn!(%error, "journal files that have served cannot be removed")
            }
            Err(_) => {}
        }
        files.served.is_empty()
    }
}

#[cfg(test)]
mod tests;
