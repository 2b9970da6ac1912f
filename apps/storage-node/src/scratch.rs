//! Directories for one command each, in the directory for temporary files, which anybody may write to.
//!
//! A command removes its own at its end. One that was killed leaves its directory behind, and the next command that makes one takes
//! it away: those that this user has here, whose lock nobody holds, with no work in them, and nothing beside what such a directory has.
//! What can't be told is not taken for an absence of any of that. What
//! another user put in the way is never looked into: an entry is opened without following links, and has to be this user's alone.
//!
//! Not here: what a client keeps in one (`client_directory`).

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::time::{Duration, SystemTime};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use tempfile::TempDir;

use crate::client_directory;
use crate::errors::Failure;

/// What the names begin with: a home may be in the directory for temporary files, too, and is called otherwise.
const PREFIX: &str = ".hypha-scratch-";
/// One without a lock is of a command that has just begun, or was killed then.
const LOCKED_WITHIN: Duration = Duration::from_secs(3600);
/// So many entries are looked at, at the most: whoever fills the directory is not to keep every command busy.
const ENTRIES_MAX: usize = 10_000;
/// What there is in one that has no work in it.
const USUAL: [&str; 4] = ["lock", "device.json", "journal", "spaces"];

/// Makes one in `parent`, under a name that nobody could foresee, and that only this user can enter; it is removed when dropped.
///
/// # Errors
/// Those of the file system, with the parent's path.
pub(crate) fn make(parent: &Path) -> Result<TempDir, Failure> {
    tempfile::Builder::new()
        .prefix(PREFIX)
        .permissions(Permissions::from_mode(0o700))
        .tempdir_in(parent)
        .map_err(|error| Failure::file(parent, error))
}

/// Removes those in `parent` that killed commands of this user left.
pub(crate) fn sweep(parent: &Path, now: SystemTime) {
    let entries = fs::read_dir(parent).into_iter().flatten().flatten().take(ENTRIES_MAX);
    for entry in entries.filter(|entry| entry.file_name().as_encoded_bytes().starts_with(PREFIX.as_bytes())) {
        sweep_one(&entry.path(), now);
    }
}

/// Removes one, if it is this user's, nobody uses it, and there is no work in it.
fn sweep_one(path: &Path, now: SystemTime) -> Option<()> {
    let directory = rustix::fs::openat(
        CWD,
        path,
        OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::RDONLY | OFlags::CLOEXEC,
        Mode::empty(),
    );
    let directory = File::from(directory.ok()?);
    let metadata = directory.metadata().ok()?;
    let is_own = metadata.uid() == rustix::process::geteuid().as_raw() && metadata.mode() & 0o077 == 0;
    if !is_own {
        return None;
    }
    let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    // Held until it is gone, so that nobody else begins to use it; and taken before it is looked for work, which somebody may leave there
    // as long as he has it.
    let _lock = match rustix::fs::openat(&directory, "lock", flags, Mode::empty()).map(File::from) {
        Ok(lock) => {
            lock.try_lock().ok()?;
            Some(lock)
        }
        Err(Errno::NOENT) => {
            let age = now.duration_since(metadata.modified().ok()?).ok()?;
            (age > LOCKED_WITHIN).then_some(None)?
        }
        // It may be held.
        Err(_) => return None,
    };
    let is_usual = |entry: fs::DirEntry| USUAL.iter().any(|usual| entry.file_name() == *usual);
    if client_directory::may_have_work(path)
        || !fs::read_dir(path).ok()?.all(|entry| entry.is_ok_and(is_usual))
    {
        return None;
    }
    fs::remove_dir_all(path).ok()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::client_directory::ClientDirectory;

    fn left_in(parent: &Path) -> usize {
        fs::read_dir(parent).unwrap().count()
    }

    #[test]
    fn one_is_for_its_user_alone_and_goes_away() {
        let parent = tempfile::tempdir().unwrap();
        let scratch = make(parent.path()).unwrap();
        assert_eq!(fs::metadata(scratch.path()).unwrap().permissions().mode() & 0o777, 0o700);
        drop(scratch);
        assert_eq!(left_in(parent.path()), 0);
    }

    #[test]
    fn what_a_killed_command_left_goes_and_what_is_in_use_or_has_work_stays() {
        let parent = tempfile::tempdir().unwrap();
        let now = SystemTime::now();
        let killed = || {
            let path = make(parent.path()).unwrap().keep();
            let directory = ClientDirectory::take(&path).unwrap();
            fs::create_dir(directory.journal()).unwrap();
            (path, directory)
        };
        let (_, living) = killed();
        sweep(parent.path(), now);
        assert_eq!(left_in(parent.path()), 1, "somebody uses it");
        drop(living);
        sweep(parent.path(), now);
        assert_eq!(left_in(parent.path()), 0);

        // Killed before there was a lock.
        let young = make(parent.path()).unwrap().keep();
        sweep(parent.path(), now);
        assert!(young.exists(), "its command may be about to lock it");
        sweep(parent.path(), now + LOCKED_WITHIN * 2);
        assert!(!young.exists());

        for (file, content) in [("journal/journal-0000000000000001", "x"), ("thesis.tex", "years of work")] {
            let (path, directory) = killed();
            fs::write(path.join(file), content).unwrap();
            drop(directory);
            sweep(parent.path(), now + LOCKED_WITHIN * 2);
            assert!(path.join(file).exists(), "{file}");
        }
    }

    #[test]
    fn what_cannot_be_looked_into_is_left() {
        let parent = tempfile::tempdir().unwrap();
        let plantings: [fn(&Path); 4] = [
            |path| fs::write(path.join("spaces"), "").unwrap(),
            |path| symlink("spaces", path.join("spaces")).unwrap(),
            |path| {
                fs::create_dir(path.join("journal")).unwrap();
                fs::write(path.join("journal/damaged-1"), "x").unwrap();
            },
            |path| {
                fs::remove_file(path.join("lock")).unwrap();
                symlink("lock", path.join("lock")).unwrap();
            },
        ];
        for (number, plant) in plantings.into_iter().enumerate() {
            let path = make(parent.path()).unwrap().keep();
            drop(ClientDirectory::take(&path).unwrap());
            plant(&path);
            sweep(parent.path(), SystemTime::now() + LOCKED_WITHIN * 2);
            assert!(path.exists(), "{number}");
        }
    }

    #[test]
    fn links_and_directories_of_others_are_left_alone() {
        let (parent, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let home = elsewhere.path().join("home");
        drop(ClientDirectory::take(&home).unwrap());
        symlink(&home, parent.path().join(format!("{PREFIX}planted"))).unwrap();
        let wide = parent.path().join(format!("{PREFIX}wide"));
        drop(ClientDirectory::take(&wide).unwrap());
        fs::set_permissions(&wide, Permissions::from_mode(0o755)).unwrap();
        // A home that lies there too.
        drop(ClientDirectory::take(&parent.path().join("hypha-backup")).unwrap());
        sweep(parent.path(), SystemTime::now());
        assert!(home.join("device.json").exists());
        assert_eq!(left_in(parent.path()), 3);
        if rustix::process::geteuid().is_root() {
            fs::set_permissions(&wide, Permissions::from_mode(0o700)).unwrap();
            std::os::unix::fs::chown(&wide, Some(65534), None).unwrap();
            sweep(parent.path(), SystemTime::now());
            assert_eq!(left_in(parent.path()), 3, "another user's");
        }
    }
}
