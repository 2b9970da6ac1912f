//! The guard of a mount: a process that ends the kernel's connection to the one that serves, once that was killed.
//!
//! The kernel does so by itself when `/dev/fuse` is closed; but a thread of the killed process may wait in the kernel for what
//! a program of the drive holds, which waits for that process: then neither ends, nor can the program be killed
//! (`filesystem::mount::abort`). The guard has nothing of the drive open, and sleeps until the kernel tells it of its parent's death.
//! A pipe would tell nothing: the thread that waits keeps its end open.
//!
//! Not here: what it does then, which the next `umount` or `mount` does where the guard was killed as well (`mountpoint`).

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Signal, set_parent_process_death_signal};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};
use signal_hook::iterator::Signals;

use crate::errors::Failure;
use crate::mountpoint;
use crate::outcome::Server;

/// How long a process that has begun to die is given at a time.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// A guard of a mount of this process, ended when dropped: before the mount's number can be another's.
pub(crate) struct Guard(Option<Child>);

impl Guard {
    /// Has the mount at `mountpoint` guarded. To be called by the thread that serves it, which the guard ends with, when the note on it
    /// is there. A drive without is as good until its process is killed.
    pub(crate) fn start(mountpoint: &Path) -> Guard {
        let mut command = Command::new("/proc/self/exe");
        command.args(["umount", "--guard-of", &std::process::id().to_string()]).arg("--").arg(mountpoint);
        // A group of its own: Ctrl-C is for the process that serves. And no directory of any drive.
        command.process_group(0).current_dir("/").stdin(Stdio::null());
        match command.spawn() {
            Ok(child) => Guard(Some(child)),
            Err(error) => {
                tracing::warn!("nobody frees the programs of this drive if it is killed: {error}");
                Guard(None)
            }
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Sleeps until `process`, our parent, which serves the drive at `mountpoint`, is dead, and frees what it left hanging, if it did.
///
/// # Errors
/// If it can't be watched, or we may not.
pub(crate) fn guard(process: u32, mountpoint: &Path) -> Result<(), Failure> {
    let cannot = |error| Failure::file(mountpoint, error);
    // Whoever ends everybody gets the process that serves to store what it has; until then it is guarded.
    let mut signals = Signals::new([SIGUSR1, SIGINT, SIGTERM, SIGHUP]).map_err(cannot)?;
    set_parent_process_death_signal(Some(Signal::USR1)).map_err(|error| cannot(error.into()))?;
    let own = rustix::process::geteuid().as_raw();
    let Some(server) = Server::of(own, mountpoint).filter(|server| server.process() == process) else {
        return Ok(());
    };
    let mut is_dying = false;
    // It may have died before the kernel was asked to tell.
    while !server.has_ended_within(if is_dying { LOOK_INTERVAL } else { Duration::ZERO }) {
        if server.hangs() {
            return mountpoint::free_of_killed(mountpoint);
        }
        is_dying = is_dying || signals.wait().any(|signal| signal == SIGUSR1);
    }
    Ok(())
}
