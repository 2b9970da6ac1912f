//! A file system while it is used: created afresh, mounted, remounted with cold caches, removed.
//!
//! Whatever happens, nothing stays mounted and no daemon stays behind: the guard unmounts, ends the daemon and
//! removes its store. A mount counts as usable when it stands in /proc/self/mountinfo and its root can be listed.

use super::backend::Backend;
use crate::process::{Program, tree_cpu};
use rustix::process::Signal;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How long a mount may take, and an unmount with all that is to be written then. CryFS alone stretches its
/// password for ten seconds of processor time at each mount.
const PATIENCE: Duration = Duration::from_secs(180);

/// Where file systems are made, and on which processor their daemons run.
pub struct Place {
    /// An empty directory of our own.
    pub directory: PathBuf,
    /// The processor, or None for all of them.
    pub cpu: Option<usize>,
}

/// A file system of our own making, mounted.
pub struct Mounted {
    backend: Backend,
    program: PathBuf,
    directory: PathBuf,
    cpu: Option<usize>,
    daemon: Option<Program>,
    /// What daemons before the last remount used.
    earlier_cpu: Duration,
}

impl Mounted {
    /// Makes a new file system of `backend` in `place` and mounts it.
    ///
    /// # Errors
    /// Fails when one of its commands does; what they printed is in a log beside the store, its end in the message.
    pub fn create(backend: Backend, program: &Path, place: &Place) -> io::Result<Self> {
        let directory = place.directory.join(backend.name());
        fs::create_dir_all(directory.join("store"))?;
        fs::create_dir_all(directory.join("mount"))?;
        let program = program.to_path_buf();
        let mut mounted =
            Self { backend, program, directory, cpu: place.cpu, daemon: None, earlier_cpu: Duration::ZERO };
        if let Some(mut command) = backend.create_command(&mounted.program, &mounted.store())? {
            let output = command.output()?;
            if !output.status.success() {
                let message = String::from_utf8_lossy(&output.stderr);
                return Err(io::Error::other(format!("{command:?} failed: {}", message.trim())));
            }
        }
        mounted.mount()?;
        Ok(mounted)
    }

    fn store(&self) -> PathBuf {
        self.directory.join("store")
    }

    fn mountpoint(&self) -> PathBuf {
        self.directory.join("mount")
    }

    fn log(&self) -> PathBuf {
        self.directory.join("log")
    }

    /// Returns the directory to work in.
    pub fn root(&self) -> PathBuf {
        self.mountpoint()
    }

    /// Returns the processor time of the daemon and of the processes it started, since the file system was made.
    pub fn cpu(&self) -> Duration {
        self.earlier_cpu + self.daemon.as_ref().map_or(Duration::ZERO, |daemon| tree_cpu(daemon.id()))
    }

    /// Unmounts, drops the kernel's caches where we may, and mounts again.
    ///
    /// # Errors
    /// Fails when the file system does not come back.
    pub fn remount(&mut self) -> io::Result<()> {
        self.earlier_cpu = self.cpu();
        self.unmount()?;
        rustix::fs::sync();
        // Needs root; without it, what the kernel remembers of the store below helps everyone alike.
        let _ = fs::write("/proc/sys/vm/drop_caches", "3");
        self.mount()
    }

    fn mount(&mut self) -> io::Result<()> {
        let Some((mut command, input)) =
            self.backend.mount_command(&self.program, &self.store(), &self.mountpoint())
        else {
            return Ok(());
        };
        let log = File::options().create(true).append(true).open(self.log())?;
        command.stdout(log.try_clone()?).stderr(log);
        let mut daemon = Program::start(&mut command, self.cpu)?;
        daemon.write_input(input.as_bytes())?;
        let daemon = self.daemon.insert(daemon);
        let deadline = Instant::now() + PATIENCE;
        let mountpoint = self.directory.join("mount");
        while !(is_mounted(&mountpoint)? && fs::read_dir(&mountpoint).is_ok()) {
            if daemon.has_ended() || Instant::now() > deadline {
                return Err(io::Error::other(format!("{command:?} did not mount: {}", self.last_words())));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    fn unmount(&mut self) -> io::Result<()> {
        let Some(mut daemon) = self.daemon.take() else { return Ok(()) };
        if self.backend.is_ours() {
            // Ctrl-C is what a user would do: it unmounts, flushes, and stops the nodes too.
            daemon.stop(Signal::INT, PATIENCE)?;
        } else {
            unmount(&self.mountpoint(), false)?;
            daemon.wait(PATIENCE)?;
        }
        match is_mounted(&self.mountpoint())? {
            true => Err(io::Error::other(format!(
                "{} did not unmount: {}",
                self.backend.name(),
                self.last_words()
            ))),
            false => Ok(()),
        }
    }

    /// Returns the last lines that the daemon wrote.
    fn last_words(&self) -> String {
        let log = fs::read_to_string(self.log()).unwrap_or_default();
        let lines: Vec<&str> = log.lines().filter(|line| !line.trim().is_empty()).collect();
        lines[lines.len().saturating_sub(3)..].join(" / ")
    }

    /// Unmounts and removes everything.
    ///
    /// # Errors
    /// Fails when the unmount does; then the mount is detached and the daemon killed all the same.
    pub fn close(mut self) -> io::Result<()> {
        self.unmount()
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            // Only after a failure: a clean end has taken the daemon. SIGINT first, so that ours ends its nodes.
            let _ = daemon.stop(Signal::INT, Duration::from_secs(5));
        }
        if is_mounted(&self.mountpoint()).unwrap_or(false) {
            let _ = unmount(&self.mountpoint(), true);
        }
        // Never through a live mount: that would remove what is behind it.
        if !is_mounted(&self.mountpoint()).unwrap_or(true) {
            let _ = fs::remove_dir_all(&self.directory);
        }
    }
}

fn unmount(mountpoint: &Path, lazily: bool) -> io::Result<()> {
    let lazily: &[&str] = if lazily { &["-z"] } else { &[] };
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        let mut command = Command::new("fusermount3");
        let output = command.arg("-u").args(lazily).arg(mountpoint).stdin(Stdio::null()).output()?;
        if output.status.success() {
            return Ok(());
        }
        // A process that just ended may hold the mount for a moment.
        if Instant::now() > deadline {
            let message = String::from_utf8_lossy(&output.stderr);
            return Err(io::Error::other(format!("{command:?} failed: {}", message.trim())));
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Returns whether something is mounted at `mountpoint`.
fn is_mounted(mountpoint: &Path) -> io::Result<bool> {
    // The parent is looked up and not the mountpoint itself, which fails while a dead daemon's mount is on it.
    let (Some(parent), Some(name)) = (mountpoint.parent(), mountpoint.file_name()) else { return Ok(false) };
    if !parent.exists() {
        return Ok(false);
    }
    let wanted = parent.canonicalize()?.join(name);
    let table = fs::read_to_string("/proc/self/mountinfo")?;
    // See proc_pid_mountinfo(5): the fifth field is the mountpoint. Our names hold nothing that it would escape.
    Ok(table.lines().any(|line| line.split(' ').nth(4).is_some_and(|field| Path::new(field) == wanted)))
}
