//! The directory where a drive appears: whether it is fit to be one, and which process serves what is mounted there.
//!
//! `filesystem::mount` knows how to mount; this file is about what a user should not lose by it. A directory that has
//! files in it is refused, since they would be hidden; a mount that a killed process left behind is taken away. Each
//! serving process leaves a note with its id, so that `umount` can wait until everything is stored.

use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use filesystem::fuse::mount_table;
use filesystem::mount::{self, MountError};
use reactor::crypto::hash;

use crate::errors::Failure;
use crate::files;
use crate::home::Home;
use crate::output;

/// What the table of mounts calls our drives.
const KIND: &str = "fuse.hypha";

/// Whether a drive of this program is mounted at `path`, dead or alive.
pub(crate) fn has_drive(path: &Path) -> bool {
    mount_table::find(path).ok().flatten().is_some_and(|entry| entry.kind == KIND)
}

/// Whether the drive at `path` is one that nobody serves. Asks the drive: never call it on the reactor's thread.
pub(crate) fn is_dead(path: &Path) -> bool {
    // Not `stat`: the kernel may answer that from its cache, long after the process has gone.
    has_drive(path) && rustix::fs::statfs(path).err() == Some(rustix::io::Errno::NOTCONN)
}

/// The path as the table of mounts has it.
///
/// # Errors
/// Those of the file system.
pub(crate) fn in_full(path: &Path) -> Result<PathBuf, Failure> {
    mount_table::absolute(path, false).map_err(|error| Failure::file(path, error))
}

/// Makes `path` fit to be mounted on, and returns it in full.
///
/// A drive that a killed process left behind is taken away; a missing directory is made.
///
/// # Errors
/// `Failure::Drive` if a living drive is there, `Failure::Mountpoint` if it is no empty directory.
pub(crate) fn prepare(path: &Path) -> Result<PathBuf, Failure> {
    // Known now, and not only when keys have been made and nodes started.
    if !Path::new("/dev/fuse").exists() {
        return Err(MountError::DeviceMissing.into());
    }
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(|error| Failure::file(parent, error))?;
    }
    let path = in_full(path)?;
    // Several may lie on top of each other.
    while is_dead(&path) {
        output::say(format_args!(
            "{} was left behind by a process that was killed: taken away",
            path.display()
        ));
        mount::unmount(&path, true)?;
    }
    if has_drive(&path) {
        return Err(MountError::AlreadyMounted(path).into());
    }
    let unfit = |reason: String| Failure::Mountpoint { path: path.clone(), reason };
    match fs::create_dir(&path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            return Err(unfit(format!("it cannot be made: {error}")));
        }
        _ => {}
    }
    match fs::read_dir(&path).map(|mut entries| entries.next().is_none()) {
        Ok(true) => Ok(path),
        Ok(false) => Err(unfit("it is not empty, and what is in it would be hidden".into())),
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
            Err(unfit("it is not a directory".into()))
        }
        Err(error) => Err(unfit(error.to_string())),
    }
}

/// A note that says which process serves a drive; removed when dropped.
#[derive(Debug)]
pub(crate) struct Note {
    file: Option<PathBuf>,
}

impl Note {
    /// Leaves the note. A failure is no reason not to mount: `umount` then waits for nobody.
    pub(crate) fn leave(mountpoint: &Path) -> Note {
        let Some(file) = note_file(mountpoint) else { return Note { file: None } };
        let written = file.parent().map_or(Ok(()), files::private_directory).and_then(|()| {
            files::write_atomically(&file, std::process::id().to_string().as_bytes(), 0o600)
                .map_err(|error| Failure::file(&file, error))
        });
        if let Err(failure) = written {
            tracing::warn!("no note of this drive: {failure}");
        }
        Note { file: Some(file) }
    }
}

impl Drop for Note {
    fn drop(&mut self) {
        if let Some(file) = &self.file {
            let _ = fs::remove_file(file);
        }
    }
}

/// The process that serves the drive at `mountpoint`, if it left a note and still runs.
pub(crate) fn server_of(mountpoint: &Path) -> Option<u32> {
    let text = fs::read_to_string(note_file(mountpoint)?).ok()?;
    let pid = text.trim().parse().ok()?;
    // The number may have been given to another program since.
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
    name.starts_with("storage-node").then_some(pid)
}

/// In the usual place whatever `--home` says: `umount` is told a mountpoint only.
fn note_file(mountpoint: &Path) -> Option<PathBuf> {
    let name = hash::sha3_256(&[b"hypha mountpoint", mountpoint.as_os_str().as_bytes()]);
    let name = data_encoding::HEXLOWER.encode(&name[..16]);
    let base = match std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|path| path.is_absolute())
    {
        Some(runtime) => runtime.join("hypha"),
        None => Home::locate(None).ok()?.path().join("drives"),
    };
    Some(base.join(format!("drive-{name}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_directory_is_made_and_a_full_one_refused() {
        if !Path::new("/dev/fuse").exists() {
            assert!(matches!(prepare(Path::new("x")), Err(Failure::Drive(MountError::DeviceMissing))));
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a/b");
        let full = prepare(&path).unwrap();
        assert!(full.is_dir());
        fs::write(path.join("file"), "").unwrap();
        assert!(matches!(prepare(&path), Err(Failure::Mountpoint { .. })));
        assert!(matches!(prepare(&path.join("file")), Err(Failure::Mountpoint { .. })));
    }

    #[test]
    fn the_root_is_no_drive() {
        assert!(!has_drive(Path::new("/")));
        assert!(!is_dead(Path::new("/")));
    }
}
