//! What a process that died has left at a mountpoint: a mount that answers every program with an error.
//!
//! That is better than nothing. Were it taken away before the new mount is there, programs that go on writing would put
//! plain files below it, on the machine's own disk, where the new mount hides them. So the new mount goes on top of it,
//! and takes it away when it ends itself. Only root can do so: `fusermount3` mounts on nothing that is dead, and leaves
//! everyone else a moment between the two.

use std::path::Path;

use rustix::io::Errno as SystemErrno;

use super::{How, KIND, MountError, detach};
use crate::fuse::mount_table;

/// Whether what is visible at `mountpoint` is a mount of ours whose process is gone. It asks that process if it is not.
pub(super) fn is_at(mountpoint: &Path) -> bool {
    // The kernel may answer a `stat` from its cache, but never this.
    matches!(mount_table::find(mountpoint), Ok(Some(entry)) if entry.kind == KIND)
        && matches!(rustix::fs::statfs(mountpoint), Err(SystemErrno::NOTCONN | SystemErrno::CONNABORTED))
}

/// Makes a mountpoint fit to be mounted on: of several dead mounts one stays, for as long as it is needed.
///
/// # Errors
///
/// If one can't be taken away.
pub(super) fn prepare(mountpoint: &Path) -> Result<(), MountError> {
    let kept = usize::from(rustix::process::geteuid().is_root());
    while is_at(mountpoint) && mount_table::count(mountpoint, KIND).is_ok_and(|count| count > kept) {
        detach(mountpoint, How::Lazily)?;
    }
    Ok(())
}

/// Takes away all that is dead there.
pub(super) fn take_away(mountpoint: &Path) {
    while is_at(mountpoint) {
        if let Err(error) = detach(mountpoint, How::Lazily) {
            tracing::warn!("{error}");
            return;
        }
    }
}
