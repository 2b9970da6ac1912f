//! The kernel's end of a mount, ended from outside and without asking the process that serves it.
//!
//! A killed process may have a thread that waits in the kernel for the lock of a directory. A program holds that, and waits
//! for an answer of the process; and while the thread is there `/dev/fuse` is open, so that the kernel goes on waiting. Whoever
//! breaks this circle must touch nothing of the mount, or stands in it as well.
//!
//! # Source
//!
//! Linux, Documentation/filesystems/fuse/fuse.rst: "Aborting a filesystem connection".

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno as SystemErrno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, UnmountFlags};

use super::MountError;
use crate::fuse::mount_table::MountEntry;

/// Where `fusectl` is by custom: a directory for each connection, named after the device, which is its user's.
const CONNECTIONS: &str = "/sys/fs/fuse/connections";

/// Ends the connection between the kernel and the process that serves `entry`: each request that waits fails, and so does
/// every one after. The mount stays where it is, as one that a dead process has left. Never waits for that process.
///
/// # Errors
///
/// [`MountError::Hangs`] if we may not.
pub fn abort(entry: &MountEntry) -> Result<(), MountError> {
    let as_root = rustix::process::geteuid().is_root();
    // What has no disk below it has the major number 0, and `fusectl` names it by the minor one.
    if let Some(minor) = entry.device.strip_prefix("0:") {
        let control = format!("{minor}/abort");
        let by_custom = fs::OpenOptions::new().write(true).open(Path::new(CONNECTIONS).join(&control));
        if by_custom.and_then(|mut file| file.write_all(b"1")).is_ok()
            || (as_root && through_own_control(&control).is_ok())
        {
            return Ok(());
        }
    }
    if as_root {
        // Root of a namespace of its own. The mount stays: it is in use, if only by us.
        let _use = rustix::fs::open(
            &entry.mountpoint,
            OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        );
        match rustix::mount::unmount(&entry.mountpoint, UnmountFlags::FORCE | UnmountFlags::NOFOLLOW) {
            Ok(()) | Err(SystemErrno::BUSY) => return Ok(()),
            Err(error) => tracing::debug!("ending the connection of {}: {error}", entry.mountpoint.display()),
        }
    }
    Err(MountError::Hangs(entry.mountpoint.clone()))
}

/// Root needs no `fusectl` that somebody has mounted: one that nobody sees will do.
fn through_own_control(control: &str) -> io::Result<()> {
    let context = rustix::mount::fsopen("fusectl", FsOpenFlags::FSOPEN_CLOEXEC)?;
    rustix::mount::fsconfig_create(&context)?;
    let root = rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())?;
    let file = rustix::fs::openat(&root, control, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
    fs::File::from(file).write_all(b"1")
}
