//! The directory of one client of a network on this machine: its lock, its device number, its journal.
//!
//! One type owns all three, since none is safe without the others: a journal that two processes write is destroyed, and
//! what a device number has open is taken away by whoever else goes by that number. Whoever opens the volume needs one,
//! so that no command can forget the lock. A second client of the same home gets the next directory (`client-2`, ...)
//! with a number of its own, and so `mount` works beside `up`.
//!
//! What a killed client left in its journal waits there for the next one that takes the directory. So directories with
//! something in them are taken first, and the rest of them can be had as [`ClientDirectory::left_behind`].
//!
//! Each space that the client opens has such a directory in `spaces/`, with a journal of its own; what waits there counts as well.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use data_encoding::HEXLOWER;
use dht::RegisterAddress;
use reactor::crypto::random_bytes;
use serde::{Deserialize, Serialize};
use tempfile::TempDir;

use crate::errors::Failure;
use crate::files::{self, Kind};
use crate::home::Lock;
use crate::output;
use crate::scratch;

/// As many drives of one home on one machine as anybody may want; a bound for the search.
const CLIENT_COUNT_MAX: u32 = 64;

/// Once is seldom.
const SCRATCH_TRIES_MAX: u32 = 3;

/// `device.json`: what tells this client's crashed mounts from another's.
#[derive(Serialize, Deserialize)]
struct Device {
    number: u64,
}

impl Kind for Device {
    const KIND: &'static str = "hypha device";
    const VERSION: u32 = 1;
    const SECRET: bool = false;
}

/// A client's directory, for this process alone until it is dropped.
#[derive(Debug)]
pub(crate) struct ClientDirectory {
    path: PathBuf,
    device: u64,
    _lock: Lock,
    /// Removes it, if it was made for one command.
    _scratch: Option<TempDir>,
}

impl ClientDirectory {
    /// Takes the directory at `path`, made if missing.
    ///
    /// # Errors
    /// `Failure::Locked` if another process has it, `Failure::Untrusted` if it is not this user's alone, or those of the
    /// file system.
    pub(crate) fn take(path: &Path) -> Result<ClientDirectory, Failure> {
        files::private_directory(path)?;
        let lock = Lock::take(path)?;
        Ok(ClientDirectory { device: device(path)?, path: path.into(), _lock: lock, _scratch: None })
    }

    /// Takes one of those in `base` that nobody has: one with something in its journal if there is any, else the first.
    ///
    /// # Errors
    /// As [`ClientDirectory::take`]; `Failure::Locked` if all are taken.
    pub(crate) fn take_in(base: &Path) -> Result<ClientDirectory, Failure> {
        if let Some(left) = Self::left_behind(base).into_iter().next() {
            return Ok(left);
        }
        let mut number = 1;
        loop {
            match Self::take(&numbered(base, number)) {
                Err(Failure::Locked { .. }) if number < CLIENT_COUNT_MAX => number += 1,
                other => return other,
            }
        }
    }

    /// Takes all in `base` that nobody has and whose journal has something in it.
    pub(crate) fn left_behind(base: &Path) -> Vec<ClientDirectory> {
        (1..=CLIENT_COUNT_MAX)
            .map(|number| numbered(base, number))
            .filter(|path| has_left(path) || spaces_left_in(path).next().is_some())
            .filter_map(|path| Self::take(&path).ok())
            .collect()
    }

    /// Whether something waits in its own journal.
    pub(crate) fn has_journal(&self) -> bool {
        has_groups(&self.journal())
    }

    /// Whether there is work in it that may be nowhere else: in its own journal, or in what is kept of a damaged one
    /// (`filesystem::journal`).
    pub(crate) fn has_work(&self) -> bool {
        self.has_journal() || has_any(&self.journal(), b"damaged-")
    }

    /// Those in `base` that there are, whoever has them.
    pub(crate) fn all(base: &Path) -> impl Iterator<Item = PathBuf> {
        (1..=CLIENT_COUNT_MAX).map(|number| numbered(base, number)).filter(|path| path.is_dir())
    }

    /// Makes one for a single command, removed when dropped; and removes those that killed commands left.
    ///
    /// # Errors
    /// Those of the file system.
    pub(crate) fn scratch() -> Result<ClientDirectory, Failure> {
        let parent = std::env::temp_dir();
        scratch::sweep(&parent, SystemTime::now());
        let mut tries = 0;
        loop {
            let scratch = scratch::make(&parent)?;
            match Self::take(scratch.path()) {
                // Another command may have looked at it just when there was a lock and nobody held it.
                Err(_) if tries < SCRATCH_TRIES_MAX => tries += 1,
                directory => return Ok(ClientDirectory { _scratch: Some(scratch), ..directory? }),
            }
        }
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Where its journal is.
    pub(crate) fn journal(&self) -> PathBuf {
        journal_of(&self.path)
    }

    /// Its random number, which no other directory has.
    pub(crate) fn device(&self) -> u64 {
        self.device
    }
}

/// The first of those in `base`.
pub(crate) fn first(base: &Path) -> PathBuf {
    numbered(base, 1)
}

/// Where a client keeps what is of one space.
pub(crate) fn of_space(client: &Path, register: &RegisterAddress) -> PathBuf {
    client.join("spaces").join(HEXLOWER.encode(&register.0[..16]))
}

/// Whether something waits in a client's own journal.
pub(crate) fn has_left(client: &Path) -> bool {
    has_groups(&journal_of(client))
}

/// The directories of a client's spaces in whose journals something waits.
pub(crate) fn spaces_left_in(client: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    let entries = fs::read_dir(spaces_of(client)).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(|path| has_groups(&journal_of(path)))
}

/// Whether there may be work in a client's directory that is nowhere else: in its own journal or in one of a space's, or in what is kept
/// of a damaged one. What can't be read may have such.
pub(crate) fn may_have_work(client: &Path) -> bool {
    let has_such = |directory: &Path| {
        let journal = journal_of(directory);
        has_groups(&journal) || has_any(&journal, b"damaged-")
    };
    let is_such = |entry: std::io::Result<fs::DirEntry>| entry.map_or(true, |entry| has_such(&entry.path()));
    let has_such_space = match fs::read_dir(spaces_of(client)) {
        Ok(mut entries) => entries.any(is_such),
        Err(error) => error.kind() != std::io::ErrorKind::NotFound,
    };
    has_such_space || has_such(client)
}

/// Where the directories of a client's spaces are.
pub(crate) fn spaces_of(client: &Path) -> PathBuf {
    client.join("spaces")
}

fn numbered(base: &Path, number: u32) -> PathBuf {
    match number {
        1 => base.join("client"),
        more => base.join(format!("client-{more}")),
    }
}

/// Where the journal of a client, or of one of its spaces, is.
pub(crate) fn journal_of(directory: &Path) -> PathBuf {
    directory.join("journal")
}

/// Whether a journal holds changes. What else is in its directory says nothing of that.
fn has_groups(directory: &Path) -> bool {
    has_any(directory, b"journal-")
}

/// What can't be read may have such: on this hangs whether it is removed.
fn has_any(directory: &Path, prefix: &[u8]) -> bool {
    let is_such = |entry: std::io::Result<fs::DirEntry>| {
        entry.map_or(true, |entry| entry.file_name().as_encoded_bytes().starts_with(prefix))
    };
    match fs::read_dir(directory) {
        Ok(mut entries) => entries.any(is_such),
        Err(error) => {
            !matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory)
        }
    }
}

fn device(directory: &Path) -> Result<u64, Failure> {
    let path = directory.join("device.json");
    let draw = || {
        let device = Device { number: u64::from_le_bytes(random_bytes()) };
        files::save(&path, &device)?;
        Ok(device.number)
    };
    match files::load::<Device>(&path) {
        Ok(device) => Ok(device.number),
        Err(Failure::File { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => draw(),
        // It is drawn by chance, and nothing is told by it but what this client's killed mounts had open: that waits until the nodes
        // take them for gone.
        Err(failure @ Failure::Damaged { .. }) => {
            let aside = directory.join("device.json.damaged");
            fs::rename(&path, &aside).map_err(|error| Failure::file(&path, error))?;
            output::warn(format_args!(
                "{failure}; another is made, and this one is kept as {}",
                aside.display()
            ));
            draw()
        }
        Err(other) => Err(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_keeps_its_number_and_no_other_has_it() {
        let base = tempfile::tempdir().unwrap();
        let first = ClientDirectory::take_in(base.path()).unwrap();
        let second = ClientDirectory::take_in(base.path()).unwrap();
        assert_eq!(first.path(), base.path().join("client"));
        assert_eq!(second.path(), base.path().join("client-2"));
        assert_ne!(first.device(), second.device());
        let number = first.device();
        drop(first);
        assert_eq!(ClientDirectory::take_in(base.path()).unwrap().device(), number);
    }

    #[test]
    fn a_number_that_cannot_be_read_is_drawn_anew_and_the_drive_opens() {
        let base = tempfile::tempdir().unwrap();
        let path = ClientDirectory::take_in(base.path()).unwrap().path().join("device.json");
        fs::write(&path, "{\"ki").unwrap();
        let number = ClientDirectory::take_in(base.path()).unwrap().device();
        assert_eq!(ClientDirectory::take_in(base.path()).unwrap().device(), number);
        assert_eq!(fs::read(path.with_extension("json.damaged")).unwrap(), b"{\"ki");
        // Of a later version, which may mean more by it.
        let newer = "{\"kind\":\"hypha device\",\"version\":99,\"number\":7}";
        fs::write(&path, newer).unwrap();
        assert!(matches!(ClientDirectory::take_in(base.path()), Err(Failure::Newer { .. })));
    }

    #[test]
    fn a_journal_with_something_in_it_is_taken_first() {
        let base = tempfile::tempdir().unwrap();
        let held: Vec<_> = (0..3).map(|_| ClientDirectory::take_in(base.path()).unwrap()).collect();
        for directory in &held {
            fs::create_dir(directory.journal()).unwrap();
            fs::write(directory.journal().join("journal-0000000000000001"), "x").unwrap();
        }
        let [first, second, third] = held.try_into().unwrap();
        drop((second, third));
        let taken = ClientDirectory::take_in(base.path()).unwrap();
        assert_eq!(taken.path(), base.path().join("client-2"));
        // The living one's journal is not anybody else's to take.
        let left: Vec<_> =
            ClientDirectory::left_behind(base.path()).iter().map(|left| left.path.clone()).collect();
        assert_eq!(left, [base.path().join("client-3")]);
        drop(first);
    }

    #[test]
    fn a_note_beside_the_journal_is_nothing_left_behind() {
        let base = tempfile::tempdir().unwrap();
        let directory = ClientDirectory::take_in(base.path()).unwrap();
        fs::create_dir(directory.journal()).unwrap();
        for name in ["sessions", ".sessions.0000000000000001.tmp"] {
            fs::write(directory.journal().join(name), "x").unwrap();
        }
        drop(directory);
        assert!(ClientDirectory::left_behind(base.path()).is_empty());
    }

    #[test]
    fn what_waits_for_a_space_is_left_behind_as_well() {
        let base = tempfile::tempdir().unwrap();
        let first = ClientDirectory::take_in(base.path()).unwrap();
        let second = ClientDirectory::take_in(base.path()).unwrap();
        let space = ClientDirectory::take(&of_space(second.path(), &RegisterAddress([7; 32]))).unwrap();
        fs::create_dir(space.journal()).unwrap();
        drop((space, second));
        assert!(ClientDirectory::left_behind(base.path()).is_empty());
        let path = of_space(&base.path().join("client-2"), &RegisterAddress([7; 32]));
        fs::write(path.join("journal/journal-0000000000000001"), "x").unwrap();
        let left = ClientDirectory::left_behind(base.path());
        assert_eq!(left.len(), 1);
        assert!(!left[0].has_journal());
        assert_eq!(spaces_left_in(left[0].path()).collect::<Vec<_>>(), [path]);
        drop(first);
    }

    #[test]
    fn a_scratch_directory_goes_with_its_command() {
        let scratch = ClientDirectory::scratch().unwrap();
        let path = scratch.path().to_owned();
        assert!(path.join("device.json").exists());
        drop(scratch);
        assert!(!path.exists());
    }
}
