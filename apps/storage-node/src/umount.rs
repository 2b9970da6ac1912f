//! `umount`: takes a drive away, and waits until its process has stored everything.
//!
//! The kernel's own unmount only hands what it has cached to the process that serves the drive. That process then
//! commits it to the nodes and ends, and after `up` stops its nodes too: the drive is safe once that process is gone.

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use filesystem::mount;

use crate::cli::Umount;
use crate::errors::Failure;
use crate::mountpoint;
use crate::progress;

/// A flush of everything dirty to slow nodes takes minutes at most.
const FLUSH_LIMIT: Duration = Duration::from_secs(600);

/// Runs the command.
///
/// # Errors
/// `Failure::NotMounted`, `Failure::Drive` if it is busy, `Failure::NotFlushed`.
pub(crate) fn umount(options: &Umount) -> Result<(), Failure> {
    let path = mountpoint::in_full(&options.drive)?;
    if !mountpoint::has_drive(&path) {
        return Err(Failure::NotMounted { path });
    }
    let server = mountpoint::server_of(&path);
    let spinner = progress::spinner("flushing");
    mount::unmount(&path, mountpoint::is_dead(&path))?;
    if let Some(pid) = server {
        let until = Instant::now() + FLUSH_LIMIT;
        while Path::new("/proc").join(pid.to_string()).exists() {
            if Instant::now() > until {
                return Err(Failure::NotFlushed { pid });
            }
            thread::sleep(Duration::from_millis(20));
        }
    }
    spinner.finish_and_clear();
    println!("{} is unmounted, and everything in it is stored", path.display());
    Ok(())
}
