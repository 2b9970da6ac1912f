//! The directory where a drive appears: whether it is fit to be one, and which process serves what is mounted there.
//!
//! `filesystem::mount` knows how to mount; this file is about what a user should not lose by it. A directory that has
//! files in it is refused, since they would be hidden; a mount that a killed process left behind stays until the new one
//! is there; and who keeps one alive that is unmounted here can be told, and helped to what was written there. Not here:
//! how a drive ended (`outcome`).

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use filesystem::fuse::mount_table::{self, MountEntry};
use filesystem::mount::{self, MountError};
use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::errors::Failure;
use crate::outcome::Server;
use crate::output;

/// What the table of mounts calls our drives.
const KIND: &str = "fuse.hypha";

/// Whether this mount is a drive of this program.
pub(crate) fn is_drive(entry: &MountEntry) -> bool {
    entry.kind == KIND
}

/// Enough to know where to look.
const HOLDERS_TOLD_MAX: usize = 3;

/// How often it is looked whether the process of a drive that does not answer was killed.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);

/// A killed process whose connection was ended is gone in a millisecond.
const GONE_LIMIT: Duration = Duration::from_secs(2);

/// The drive of this program that is mounted at `path`, dead or alive.
pub(crate) fn drive_at(path: &Path) -> Option<MountEntry> {
    mount_table::find(path).ok().flatten().filter(is_drive)
}

fn has_drive(path: &Path) -> bool {
    drive_at(path).is_some()
}

/// Whether the drive at `path` is one that nobody serves. Asks the drive: never call it on the reactor's thread.
///
/// # Errors
/// `Failure::Drive` if its process was killed and can't end, and we may not help it.
pub(crate) fn is_dead(path: &Path) -> Result<bool, Failure> {
    if !has_drive(path) {
        return Ok(false);
    }
    // On a thread of its own: that of a process which was killed and can't end never answers.
    let (sender, answer) = mpsc::channel();
    let place = path.to_owned();
    thread::spawn(move || {
        // Not `stat`: the kernel may answer that from its cache, long after the process has gone.
        sender.send(rustix::fs::statfs(&place).err() == Some(Errno::NOTCONN))
    });
    loop {
        free_of_killed(path)?;
        match answer.recv_timeout(LOOK_INTERVAL) {
            Ok(is_dead) => return Ok(is_dead),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Ok(false),
        }
    }
}

/// Ends the kernel's connection to the process that served the drive at `path`, if that was killed and can't end, and says
/// so. Touches nothing of the drive, and is sure of whose it is: the note of that process has the mount's number, which
/// nothing else can have for as long as a thread of it is in there.
///
/// # Errors
/// `Failure::Drive` if we may not.
pub(crate) fn free_of_killed(path: &Path) -> Result<(), Failure> {
    // Where there is no such directory yet there is no drive.
    let Ok(path) = in_full(path) else { return Ok(()) };
    let Some(drive) = drive_at(&path) else { return Ok(()) };
    let user = drive.user.unwrap_or_else(|| rustix::process::geteuid().as_raw());
    let Some(server) = Server::of(user, &path).filter(|server| server.has_served(&drive.device)) else {
        return Ok(());
    };
    if !server.hangs() {
        return Ok(());
    }
    mount::abort(&drive)?;
    output::say(format_args!(
        "{}: process {}, which served it, was killed and could not end, and what used the drive hung: the kernel's connection to it \
         is ended now",
        path.display(),
        server.process()
    ));
    // A moment later it is gone; lest it be said twice.
    server.has_ended_within(GONE_LIMIT);
    Ok(())
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
/// A drive that a killed process left behind is no obstacle; a missing directory is made.
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
    if is_dead(&path)? {
        // It stays until the new drive is there: it gives programs that write there an error, and without it they would
        // write below.
        output::say(format_args!(
            "{} was left behind by a process that was killed: this drive takes its place",
            path.display()
        ));
        return Ok(path);
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

/// Whether this process sees the file system with the kernel's number `device` anywhere.
pub(crate) fn is_visible(device: &str) -> bool {
    fs::read_to_string("/proc/self/mountinfo").is_ok_and(|table| has_device(&table, device))
}

/// The processes whose mount namespace has the file system with the kernel's number `device`, as far as we may look:
/// "process 123 (bash)", and no more than a few of them. Reads all of `/proc`: not for the reactor's thread.
pub(crate) fn holders(device: &str) -> Vec<String> {
    let mut holders = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let table = fs::read_to_string(entry.path().join("mountinfo"));
        if !table.is_ok_and(|table| has_device(&table, device)) {
            continue;
        }
        let pid = entry.file_name();
        if pid.to_string_lossy().parse::<u32>().is_err() {
            continue; // "self", which is one of the numbers as well
        }
        if holders.len() == HOLDERS_TOLD_MAX {
            holders.push("and others".into());
            break;
        }
        let name = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
        holders.push(format!("process {} ({})", pid.display(), name.trim()));
    }
    holders
}

/// Has the kernel pass on what programs in other mount namespaces changed through `mmap`, on the way that one of them has
/// to the file system with the kernel's number `device`; here there is none any more. Returns whether that worked, which
/// takes somebody who serves it. Reads all of `/proc`, and may hang where another user's file system is on the way.
pub(crate) fn flush_elsewhere(device: &str) -> bool {
    let directory = fs::read_dir("/proc").into_iter().flatten().flatten().find_map(|entry| {
        let place = mount_table::place_in(&entry.path(), device)?;
        open_in(&entry.path().join("root"), &place, device).ok()
    });
    // The first decides: an error is told to whoever asks first, and to nobody after.
    directory.is_some_and(|directory| rustix::fs::syncfs(directory).is_ok())
}

/// Opens a directory of the file system `device` as a process sees it whose root is `root`. What lies there is for
/// somebody else to say: so no link is followed, nothing leads out, and nothing else is opened.
fn open_in(root: &Path, place: &Path, device: &str) -> rustix::io::Result<OwnedFd> {
    let look = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open(root, look, Mode::empty())?;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let found = rustix::fs::openat2(&root, place, look | OFlags::NOFOLLOW, Mode::empty(), resolve)?;
    let number = rustix::fs::fstat(&found)?.st_dev;
    if format!("{}:{}", rustix::fs::major(number), rustix::fs::minor(number)) != device {
        return Err(Errno::NOENT);
    }
    let read = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    rustix::fs::openat(&found, ".", read, Mode::empty())
}

/// Whether a table of mounts, as `/proc` shows it, has one of this file system; its number is the third field.
fn has_device(table: &str, device: &str) -> bool {
    table.lines().any(|line| line.split(' ').nth(2) == Some(device))
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
        assert!(!is_dead(Path::new("/")).unwrap());
    }

    #[test]
    fn whoever_has_a_file_system_mounted_is_told() {
        let device = mount_table::find(Path::new("/proc")).unwrap().unwrap().device;
        assert!(is_visible(&device));
        assert!(!holders(&device).is_empty());
        assert!(!is_visible("0:4000000"));
        assert!(holders("0:4000000").is_empty());
    }
}
