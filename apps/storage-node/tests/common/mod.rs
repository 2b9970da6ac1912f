//! What the stories share: real processes, real mounts, real kills, and an honest word when something is missing.
//!
//! Nothing here knows the program's inside: the stories see what a user sees, through the binary, the drive and the
//! files that both leave behind.
#![allow(dead_code, unreachable_pub)] // Each story is a crate of its own and uses a part of this.

pub mod garbage;
pub mod history;
pub mod keys;
pub mod members;
pub mod random;
pub mod running;
pub mod sources;
pub mod thief;

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// The program under test.
pub const PROGRAM: &str = env!("CARGO_BIN_EXE_storage-node");

/// Says something that the test runner does not swallow.
pub fn loud(words: &str) {
    let _ = writeln!(io::stderr(), "{words}");
}

/// Whether drives can be mounted here; says loudly why not.
pub fn fuse_is_usable(story: &str) -> bool {
    let reason = if !Path::new("/dev/fuse").exists() {
        "there is no /dev/fuse"
    } else if let Err(error) = fs::OpenOptions::new().read(true).write(true).open("/dev/fuse") {
        &format!("/dev/fuse: {error}")
    } else if !has_program("fusermount3") {
        "fusermount3 is missing (apt install fuse3)"
    } else {
        return true;
    };
    loud(&format!("SKIPPED: {story}: {reason}"));
    false
}

/// Whether a program is on the path.
pub fn has_program(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|directory| directory.join(name).is_file())
}

/// A directory for one story, removed at its end unless `HYPHA_KEEP` is set.
pub struct Place {
    directory: Option<tempfile::TempDir>,
    path: PathBuf,
}

impl Place {
    /// Makes it.
    pub fn new(story: &str) -> Place {
        let directory = tempfile::Builder::new().prefix(&format!("hypha-{story}-")).tempdir().unwrap();
        let path = directory.path().to_owned();
        Place { directory: Some(directory), path }
    }

    /// A path in it.
    pub fn join(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // A drive that is still mounted would be emptied by the removal, through the drive.
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let ours = format!(" {}/", self.path.display());
        for line in mounts.lines().filter(|line| line.contains(&ours)) {
            detach(Path::new(line.split(' ').nth(4).unwrap_or("")));
        }
        if std::env::var_os("HYPHA_KEEP").is_some()
            && let Some(directory) = self.directory.take()
        {
            loud(&format!("kept {}", directory.keep().display()));
        }
    }
}

/// Takes a mount away, whoever serves it.
pub fn detach(mountpoint: &Path) {
    let _ = Command::new("fusermount3").arg("-uz").arg(mountpoint).stderr(Stdio::null()).status();
}

/// Whether something is mounted there.
pub fn is_mounted(path: &Path) -> bool {
    let ours = format!(" {} ", path.display());
    fs::read_to_string("/proc/self/mountinfo").unwrap_or_default().lines().any(|line| line.contains(&ours))
}

/// Runs the program to its end.
pub fn storage_node(arguments: &[&str]) -> Output {
    Command::new(PROGRAM).args(arguments).stdin(Stdio::null()).output().unwrap()
}

/// Runs a program that says little to its end; one that goes on beyond `limit` is killed, and fails the test.
pub fn ended_within(limit: Duration, command: &mut Command) -> Output {
    let command = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let until = Instant::now() + limit;
    while child.try_wait().unwrap().is_none() {
        if Instant::now() > until {
            let _ = child.kill();
            panic!("not ended within {limit:?}: {command:?} said {:?}", child.wait_with_output());
        }
        thread::sleep(Duration::from_millis(10));
    }
    child.wait_with_output().unwrap()
}

/// Runs a program, and fails the test with what it printed unless it succeeds.
pub fn run(program: &str, arguments: &[&str]) -> String {
    run_in(Path::new("."), program, arguments)
}

/// As [`run`], in a directory.
pub fn run_in(directory: &Path, program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program)
        .args(arguments)
        .current_dir(directory)
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("{program}: {error}"));
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {}\n{printed}{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    printed
}

/// A path as an argument.
pub fn text(path: &Path) -> &str {
    path.to_str().expect("test paths are UTF-8")
}

/// Waits until `condition` holds, and fails the test with `what` if it does not within `limit`.
pub fn eventually(what: &str, limit: Duration, mut condition: impl FnMut() -> bool) {
    let until = Instant::now() + limit;
    while !condition() {
        assert!(Instant::now() < until, "not within {limit:?}: {what}");
        thread::sleep(Duration::from_millis(50));
    }
}

/// The resident memory of a process, in bytes; `None` once it is gone.
pub fn resident_bytes(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
    line.split_whitespace().nth(1)?.parse::<u64>().ok().map(|kib| kib * 1024)
}
