//! `umount`: takes a drive away, and waits until its process has stored everything.
//!
//! The kernel's own unmount only hands what it has cached to the process that serves the drive. That process then
//! commits it to the nodes and ends, and after `up` stops its nodes too: the drive is safe once that process is gone.

use std::os::fd::OwnedFd;
use std::thread;
use std::time::{Duration, Instant};

use filesystem::mount::{self, MountError};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::cli::Umount;
use crate::errors::Failure;
use crate::mountpoint;
use crate::output::say;
use crate::progress;

/// A flush of everything dirty to slow nodes takes minutes at most.
const FLUSH_LIMIT: Duration = Duration::from_secs(600);

/// Who was just done with the drive may hold on to it for a moment: a program that is being started has its parent's
/// files until it runs, and desktops look at whatever changes.
const BUSY_LIMIT: Duration = Duration::from_secs(2);

/// Runs the command.
///
/// # Errors
/// `Failure::NotMounted`, `Failure::Drive` if it is busy, `Failure::NotFlushed`.
pub(crate) fn umount(options: &Umount) -> Result<(), Failure> {
    let path = mountpoint::in_full(&options.drive)?;
    if !mountpoint::has_drive(&path) {
        return Err(Failure::NotMounted { path });
    }
    // A descriptor of the process, since its number may be given out again, and since it must be had beforehand.
    let server = mountpoint::server_of(&path).and_then(|pid| Some((pid, open_process(pid)?)));
    let spinner = progress::spinner("flushing");
    let is_dead = mountpoint::is_dead(&path);
    let busy_until = Instant::now() + BUSY_LIMIT;
    loop {
        match mount::unmount(&path, is_dead) {
            Err(MountError::Busy(_)) if Instant::now() < busy_until => {
                thread::sleep(Duration::from_millis(50))
            }
            other => break other?,
        }
    }
    if let Some((pid, server)) = server
        && !has_ended(&server, FLUSH_LIMIT)
    {
        return Err(Failure::NotFlushed { pid });
    }
    spinner.finish_and_clear();
    say(format_args!("{} is unmounted, and everything in it is stored", path.display()));
    Ok(())
}

fn open_process(pid: u32) -> Option<OwnedFd> {
    pidfd_open(Pid::from_raw(pid.try_into().ok()?)?, PidfdFlags::empty()).ok()
}

/// Waits for the end of a process; its descriptor becomes readable then, whether or not its parent has noticed.
fn has_ended(process: &OwnedFd, limit: Duration) -> bool {
    let limit = Timespec::try_from(limit).ok();
    let mut descriptors = [PollFd::new(process, PollFlags::IN)];
    loop {
        match poll(&mut descriptors, limit.as_ref()) {
            Err(Errno::INTR) => {}
            other => return other != Ok(0),
        }
    }
}
