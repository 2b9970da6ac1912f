//! `umount`: takes a drive away, waits until its process has ended, and says what that process stored and what not.
//!
//! The kernel's own unmount only hands what it has cached to the process that serves the drive. That process then
//! commits it to the nodes, leaves a word on how that went, and ends; after `up` its nodes end too. What is said here is
//! that word, and 0 is the exit status only if it is "stored". Whoever interrupted an `umount`, or took the drive away by other means, says
//! it again and waits for the same process.

use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use filesystem::mount::{self, MountError};

use crate::cli::Umount;
use crate::errors::Failure;
use crate::guard;
use crate::mountpoint;
use crate::outcome::Server;
use crate::output::{self, say};
use crate::progress;

/// A flush of everything dirty to slow nodes takes minutes at most.
const FLUSH_LIMIT: Duration = Duration::from_secs(600);

/// How often the serving process's note is looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Who was just done with the drive may hold on to it for a moment: a program that is being started has its parent's
/// files until it runs, and desktops look at whatever changes.
const BUSY_LIMIT: Duration = Duration::from_secs(2);

/// Runs the command.
///
/// # Errors
/// `Failure::NotMounted`, `Failure::Drive` if it is busy, `Failure::NotFlushed`, and for a drive that is unmounted:
/// `Failure::NotStored` or `Failure::NotKnown`.
pub(crate) fn umount(options: &Umount) -> Result<(), Failure> {
    if let Some(process) = options.guard_of {
        return guard::guard(process, &options.drive);
    }
    let path = mountpoint::in_full(&options.drive)?;
    let own = rustix::process::geteuid().as_raw();
    let Some(drive) = mountpoint::drive_at(&path) else {
        return match Server::of(own, &path) {
            Some(server) if server.descriptor().is_some() => wait_for(Some(server), path),
            server => {
                let before = server.and_then(|server| server.outcome()).map(|outcome| outcome.to_string());
                Err(Failure::NotMounted { path, before })
            }
        };
    };
    // Beforehand: once it is unmounted, its process may be gone at any moment.
    let server = Server::of(drive.user.unwrap_or(own), &path);
    let spinner = progress::spinner("flushing");
    let busy_until = Instant::now() + BUSY_LIMIT;
    let mut is_dead;
    loop {
        is_dead = mountpoint::is_dead(&path)?;
        match mount::unmount(&path, is_dead) {
            Err(MountError::Busy(_)) if Instant::now() < busy_until => {
                thread::sleep(Duration::from_millis(50))
            }
            other => break other?,
        }
    }
    // Several may lie on top of each other.
    while is_dead && mountpoint::is_dead(&path)? {
        mount::unmount(&path, true)?;
    }
    spinner.finish_and_clear();
    wait_for(server, path)
}

/// Waits for the process that served the drive which was at `path`, and says what that says.
fn wait_for(server: Option<Server>, path: PathBuf) -> Result<(), Failure> {
    let not_known = |reason| Failure::NotKnown { path: path.clone(), reason };
    let Some(server) = server else {
        return Err(not_known("the process that served it left no word"));
    };
    let spinner = progress::spinner("flushing");
    let has_ended = wait_for_end(&server, |waits| {
        let pid = server.process();
        let line = format!("process {pid} is {waits}; Ctrl-C here ends the waiting, and nothing else");
        spinner.suspend(|| output::warn(line));
    });
    spinner.finish_and_clear();
    if !has_ended {
        return Err(Failure::NotFlushed { pid: server.process() });
    }
    match server.outcome() {
        None => Err(not_known("the process that served it ended without a word")),
        Some(outcome) => {
            let words = format!("{} is unmounted, and {outcome}", path.display());
            outcome.into_result()?;
            say(words);
            Ok(())
        }
    }
}

/// Waits until the process that served a drive has ended, and passes on what it says that it waits for. Returns whether
/// it has ended.
fn wait_for_end(server: &Server, mut tell: impl FnMut(&str)) -> bool {
    let deadline = Instant::now() + FLUSH_LIMIT;
    let mut told = None;
    while Instant::now() < deadline {
        if server.has_ended_within(LOOK_INTERVAL) {
            return true;
        }
        let waits = server.waits();
        if let Some(words) = waits.as_deref().filter(|_| waits != told) {
            tell(words);
        }
        told = waits;
    }
    false
}
