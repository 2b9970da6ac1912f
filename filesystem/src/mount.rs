//! Mounting a volume: from a path to a kernel connection that [`Session`] serves, and back.
//!
//! Root mounts by mount(2), with a `/dev/fuse` it has opened itself. Everyone else asks `fusermount3`, a small setuid
//! program that every distribution ships with FUSE: it mounts, and passes the descriptor back over a socket.
//! Each failure that a user can mend has an error of its own that says how.
//!
//! Not here: what is served (`operations`), and how (`fuse`).

mod attach;
mod connection;
mod left_behind;

use std::cell::Cell;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::rc::Rc;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno as SystemErrno;
use rustix::mount::UnmountFlags;

use crate::fuse::mount_table::{self, MountEntry};
use crate::fuse::{Session, SessionError};
use crate::operations::Operations;
use crate::owners::{AllMine, Myself, Owners};
pub use connection::abort;

/// The type that `mount` and `df -T` show.
const KIND: &str = "fuse.hypha";

/// How far the kernel reads ahead where we may say so (as root): one request. Its default is 128 KiB.
const READ_AHEAD_KIB: u32 = 1024;

/// How much of all dirty memory may be ours, in percent, where we may say so (as root). The kernel gives FUSE 1 %,
/// which stops writers through `mmap` after a few MiB.
const DIRTY_SHARE_PERCENT: u32 = 20;

/// How a volume is mounted.
#[derive(Debug, Clone, Default)]
pub struct MountOptions {
    /// What `df` and `mount` show as the source.
    pub fs_name: String,
    /// The kernel refuses changes.
    pub read_only: bool,
    /// Other users may look too, subject to permissions; needs `user_allow_other` in /etc/fuse.conf. What root mounts
    /// is for everyone anyway, like any other file system.
    pub allow_other: bool,
    /// Whose files it says they are.
    pub owners: Owners,
    /// Take the place of what a crashed process has left at the mountpoint.
    pub replace_stale: bool,
}

/// Why nothing was mounted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MountError {
    /// There's no fusermount3.
    #[error(
        "FUSE is not installed: there is no `fusermount3`; install it, on Debian and Ubuntu with `apt install fuse3`"
    )]
    FuseMissing,
    /// There's no /dev/fuse.
    #[error(
        "there is no /dev/fuse: load the kernel's module with `modprobe fuse`; in a container, start it with \
         `--device /dev/fuse --cap-add SYS_ADMIN`"
    )]
    DeviceMissing,
    /// There's no such directory.
    #[error("the mountpoint {path} does not exist: create it with `mkdir -p {path}`", path = .0.display())]
    MountpointMissing(PathBuf),
    /// It is something else.
    #[error("the mountpoint {path} is not a directory: choose another", path = .0.display())]
    NotADirectory(PathBuf),
    /// One of ours is mounted there.
    #[error("{path} is mounted already: use it, or unmount it first with `storage-node umount {path}`", path = .0.display())]
    AlreadyMounted(PathBuf),
    /// The process that served the mountpoint is gone.
    #[error("{path} is left over from a process that died: clean it up with `fusermount3 -uz {path}` and try again", path = .0.display())]
    Stale(PathBuf),
    /// The process that served it was killed and can't end, and we may not do what ends it.
    #[error(
        "{path} hangs: the process that served it was killed, and cannot end before the kernel's connection to it does; that takes \
         root here: `umount -f {path}`", path = .0.display()
    )]
    Hangs(PathBuf),
    /// Somebody still uses it.
    #[error("{path} is in use: `fuser -vm {path}` tells by whom", path = .0.display())]
    Busy(PathBuf),
    /// Mounting is forbidden.
    #[error("mounting at {mountpoint} is not permitted: {reason}", mountpoint = .mountpoint.display())]
    NotPermitted {
        /// Where.
        mountpoint: PathBuf,
        /// What the kernel or fusermount3 said.
        reason: String,
    },
    /// Something else.
    #[error("cannot {doing} {path}: {source}", path = .path.display())]
    Io {
        /// What we were at.
        doing: &'static str,
        /// With what.
        path: PathBuf,
        /// What went wrong.
        source: io::Error,
    },
}

/// How an unmount went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unmounted {
    /// Nothing of it is left.
    Completely,
    /// Programs still use it: it is out of sight, everything written so far is flushed, and [`Mount::serve`] goes on
    /// until the last of them lets go. A process that ends earlier leaves them with `ENOTCONN`.
    Lazily,
}

/// A mounted volume. Dropping it unmounts; what programs wrote and the kernel has not passed on yet is lost then, so
/// call [`Mount::unmount`] while [`Mount::serve`] still runs.
#[derive(Debug)]
pub struct Mount {
    mountpoint: PathBuf,
    /// The kernel's number for it, to tell it from what someone may mount over it.
    device: Option<String>,
    session: Option<Session>,
    /// Whose all is that it shows, if it says so.
    all_is_of: Option<Myself>,
    is_over: Cell<bool>,
    /// Below it is what a process left that died.
    is_on_dead: bool,
}

impl Mount {
    /// Mounts at `mountpoint`, an existing directory. Nothing in it can be used before [`serve`](Mount::serve) runs.
    ///
    /// # Errors
    ///
    /// See [`MountError`]: most say what to do.
    ///
    /// # Suspends
    ///
    /// For some milliseconds, on a helper thread: another mount of this process may have to answer meanwhile.
    pub fn new(mountpoint: &Path, options: &MountOptions) -> Result<Mount, MountError> {
        let (path, copy) = (mountpoint.to_owned(), options.clone());
        let (mountpoint, device, is_on_dead) = reactor::offload(move || mount(&path, &copy))?;
        let all_is_of = options.owners.of_mount(options.allow_other);
        let is_over = Cell::new(false);
        let mut mount = Mount { mountpoint, device: None, session: None, all_is_of, is_over, is_on_dead };
        // From here on dropping `mount` unmounts.
        mount.device = mount_table::find(&mount.mountpoint).ok().flatten().map(|entry| entry.device);
        mount.session = Some(Session::new(device).map_err(|source| MountError::Io {
            doing: "poll",
            path: PathBuf::from("/dev/fuse"),
            source,
        })?);
        Ok(mount)
    }

    /// Where it is mounted: absolute, without symlinks.
    pub fn mountpoint(&self) -> &Path {
        &self.mountpoint
    }

    /// Whether it says of every file that it is the user's who mounted it.
    pub fn shows_all_as_mine(&self) -> bool {
        self.all_is_of.is_some()
    }

    /// Answers the kernel until the volume is unmounted, by [`unmount`](Mount::unmount), `umount` or `fusermount3 -u`;
    /// then returns. All that programs wrote has come to `operations` then; making it durable is the volume's end.
    ///
    /// Never touch the mounted files from a coroutine: the reactor's thread would wait for itself. Use another
    /// thread ([`reactor::offload`]) or process.
    ///
    /// # Errors
    ///
    /// See [`SessionError`].
    ///
    /// # Suspends
    ///
    /// Until then.
    pub fn serve(&self, operations: Rc<dyn Operations>) -> Result<(), SessionError> {
        let Some(session) = &self.session else { return Ok(()) };
        let operations = match &self.all_is_of {
            Some(myself) => Rc::new(AllMine { operations, myself: myself.clone() }),
            None => operations,
        };
        let served = session.serve(&*operations, || self.tune());
        if served.is_ok() {
            self.is_over.set(true);
        }
        served
    }

    /// Whether the kernel has let go of it: it will ask for nothing more.
    pub fn has_let_go(&self) -> bool {
        self.session.as_ref().is_none_or(Session::has_ended)
    }

    /// Unmounts: passes on everything that programs have written, waits until it is answered, and lets go.
    ///
    /// # Errors
    ///
    /// If the kernel refuses even to take it out of sight.
    ///
    /// # Suspends
    ///
    /// Until then; [`serve`](Mount::serve) must be running in another coroutine, since it gets the last writes.
    pub fn unmount(&self) -> Result<Unmounted, MountError> {
        if self.is_over.get() || !self.is_ours() {
            return Ok(Unmounted::Completely);
        }
        let mountpoint = self.mountpoint.clone();
        reactor::offload(move || {
            // The kernel does it as well, but only with the last mount: another namespace may have one more.
            flush(&mountpoint);
            match detach(&mountpoint, How::Politely) {
                Ok(()) => Ok(Unmounted::Completely),
                Err(MountError::Busy(_)) => detach(&mountpoint, How::Lazily).map(|()| Unmounted::Lazily),
                Err(error) => Err(error),
            }
        })
    }

    /// Whether what is mounted there is still this mount.
    fn is_ours(&self) -> bool {
        match mount_table::find(&self.mountpoint) {
            Ok(Some(entry)) => {
                entry.kind == KIND && self.device.as_ref().is_none_or(|ours| *ours == entry.device)
            }
            Ok(None) => false,
            Err(_) => true,
        }
    }

    /// Raises the kernel's limits for this mount, as far as we are allowed to: only root is.
    fn tune(&self) {
        let Some(device) = &self.device else { return };
        for (name, value) in [("read_ahead_kb", READ_AHEAD_KIB), ("max_ratio", DIRTY_SHARE_PERCENT)] {
            let path = format!("/sys/class/bdi/{device}/{name}");
            if let Err(error) = fs::write(&path, value.to_string()) {
                tracing::debug!("{path} stays as it is: {error}");
            }
        }
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // First the descriptor: without a server the kernel aborts the connection, so unmounting can't wait for us.
        drop(self.session.take());
        if !self.is_over.get()
            && self.is_ours()
            && let Err(error) = detach(&self.mountpoint, How::ByForce)
        {
            tracing::warn!("{error}");
        }
        if self.is_on_dead {
            left_behind::take_away(&self.mountpoint);
        }
    }
}

/// Unmounts `mountpoint` from outside of the process that serves it. Blocks the thread: call it where that is fine.
///
/// # Errors
///
/// [`MountError::Busy`] if it is in use and `lazily` is false; otherwise see [`MountError`].
pub fn unmount(mountpoint: &Path, lazily: bool) -> Result<(), MountError> {
    let path = mount_table::absolute(mountpoint, false).map_err(|source| MountError::Io {
        doing: "find the mountpoint",
        path: mountpoint.to_owned(),
        source,
    })?;
    detach(&path, if lazily { How::Lazily } else { How::Politely })
}

/// Mounts, and says whether it is on top of what is dead.
fn mount(mountpoint: &Path, options: &MountOptions) -> Result<(PathBuf, OwnedFd, bool), MountError> {
    let mountpoint = examine(mountpoint, options.replace_stale)?;
    let is_on_dead = left_behind::is_at(&mountpoint);
    let device = if rustix::process::geteuid().is_root() {
        attach::as_root(&mountpoint, options)?
    } else {
        attach::by_fusermount(&mountpoint, options)?
    };
    Ok((mountpoint, device, is_on_dead))
}

/// Makes sure that `mountpoint` can be mounted on, and returns it without symlinks.
fn examine(mountpoint: &Path, replace_stale: bool) -> Result<PathBuf, MountError> {
    let io_error = |doing, source| MountError::Io { doing, path: mountpoint.to_owned(), source };
    let metadata = match fs::metadata(mountpoint) {
        Err(error) => match error.kind() {
            io::ErrorKind::NotFound => return Err(MountError::MountpointMissing(mountpoint.to_owned())),
            io::ErrorKind::NotADirectory => return Err(MountError::NotADirectory(mountpoint.to_owned())),
            io::ErrorKind::NotConnected => return replace(mountpoint, replace_stale),
            _ => return Err(io_error("look at the mountpoint", error)),
        },
        Ok(metadata) => metadata,
    };
    if !metadata.is_dir() {
        return Err(MountError::NotADirectory(mountpoint.to_owned()));
    }
    let path =
        mount_table::absolute(mountpoint, true).map_err(|source| io_error("find the mountpoint", source))?;
    match mount_table::find(&path) {
        // The kernel may have answered the above from its cache.
        Ok(Some(MountEntry { kind, .. })) if kind == KIND => match left_behind::is_at(&path) {
            true => replace(&path, replace_stale),
            false => Err(MountError::AlreadyMounted(path)),
        },
        _ => Ok(path),
    }
}

/// Takes the place of a process that died.
fn replace(mountpoint: &Path, allowed: bool) -> Result<PathBuf, MountError> {
    if !allowed {
        return Err(MountError::Stale(mountpoint.to_owned()));
    }
    let path = mount_table::absolute(mountpoint, false).map_err(|source| MountError::Io {
        doing: "find the mountpoint",
        path: mountpoint.to_owned(),
        source,
    })?;
    left_behind::prepare(&path)?;
    if left_behind::is_at(&path) { Ok(path) } else { examine(&path, false) }
}

/// Has the kernel write back what it holds, which is the best that can be done for whoever goes on using it.
fn flush(mountpoint: &Path) {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let flushed = rustix::fs::open(mountpoint, flags, Mode::empty()).and_then(rustix::fs::syncfs);
    if let Err(error) = flushed {
        tracing::warn!("flushing {} before it is unmounted: {error}", mountpoint.display());
    }
}

/// How to unmount.
#[derive(Clone, Copy, PartialEq, Eq)]
enum How {
    /// Only if nobody uses it.
    Politely,
    /// Out of sight now, for good when the last user lets go.
    Lazily,
    /// As lazily, and every request that waits fails first: the notifying thread, blocked in one, could otherwise keep
    /// the connection open that we are about to wait for. Only root can; for others it is as lazily.
    ByForce,
}

fn detach(mountpoint: &Path, how: How) -> Result<(), MountError> {
    let io_error = |source| MountError::Io { doing: "unmount", path: mountpoint.to_owned(), source };
    if rustix::process::geteuid().is_root() {
        let mut flags = UnmountFlags::NOFOLLOW;
        flags |= match how {
            How::Politely => UnmountFlags::empty(),
            How::Lazily => UnmountFlags::DETACH,
            How::ByForce => UnmountFlags::DETACH | UnmountFlags::FORCE,
        };
        return match rustix::mount::unmount(mountpoint, flags) {
            Ok(()) => Ok(()),
            Err(SystemErrno::BUSY) => Err(MountError::Busy(mountpoint.to_owned())),
            Err(errno) => Err(io_error(errno.into())),
        };
    }
    let output = Command::new("fusermount3")
        .arg(if how == How::Politely { "-u" } else { "-uz" })
        .arg("--")
        .arg(mountpoint)
        .stdin(Stdio::null())
        .output();
    match output {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr);
            if said.contains("busy") {
                return Err(MountError::Busy(mountpoint.to_owned()));
            }
            Err(MountError::NotPermitted {
                mountpoint: mountpoint.to_owned(),
                reason: said.trim().to_owned(),
            })
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(MountError::FuseMissing),
        Err(error) => Err(io_error(error)),
    }
}
