//! Who takes part, and the commands that create and mount each.
//!
//! Every one runs in the foreground with its defaults: what a user gets who reads no manual. The exceptions make a
//! start quicker and leave the work alone (few rounds of password stretching, no check for updates), and give the
//! passthrough what lets it be as fast as FUSE can be: the kernel's cache, and writes larger than a page.

use crate::build;
use clap::ValueEnum;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The password of every encrypted peer; there is nothing to protect.
const PASSWORD: &str = "benchmark";

/// A file system that takes part. Ours with one node comes first: all ratios are to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Backend {
    /// This project's drive, its one node living in the mounting process.
    #[value(name = "ours-1")]
    OursOneNode,
    /// This project's drive on three nodes, each block on all of them.
    #[value(name = "ours-3")]
    OursThreeNodes,
    /// The local file system, with nothing in between.
    Local,
    /// A passthrough in user space: what FUSE itself costs, without encryption.
    Bindfs,
    /// Encryption in user space: a file for each file.
    Gocryptfs,
    /// Encryption in user space: a file for each file.
    Securefs,
    /// Encryption in user space: blocks of 16 KiB that hide sizes and structure, as ours do.
    Cryfs,
}

impl Backend {
    /// Returns the name that stands in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::OursOneNode => "ours-1",
            Self::OursThreeNodes => "ours-3",
            Self::Local => "local",
            Self::Bindfs => "bindfs",
            Self::Gocryptfs => "gocryptfs",
            Self::Securefs => "securefs",
            Self::Cryfs => "cryfs",
        }
    }

    /// Returns whether this is one of ours.
    pub fn is_ours(self) -> bool {
        matches!(self, Self::OursOneNode | Self::OursThreeNodes)
    }

    /// Builds or finds the program that serves this file system.
    ///
    /// # Errors
    /// Fails where it is not installed, and says how to install it.
    pub fn program(self) -> io::Result<PathBuf> {
        match self {
            Self::OursOneNode | Self::OursThreeNodes => build::own_program("storage-node", "storage-node"),
            Self::Local => Ok(PathBuf::new()),
            Self::Bindfs | Self::Gocryptfs | Self::Securefs | Self::Cryfs => {
                let name = self.name();
                let missing = || io::Error::other(format!("not installed (Debian: apt install {name})"));
                build::find_program(name).ok_or_else(missing)
            }
        }
    }

    /// Returns the command that makes a new file system in `store`, where one is needed before the mount.
    ///
    /// # Errors
    /// Fails when a file with the password cannot be written.
    pub fn create_command(self, program: &Path, store: &Path) -> io::Result<Option<Command>> {
        let mut command = Command::new(program);
        match self {
            Self::Gocryptfs => {
                std::fs::write(password_file(store), PASSWORD)?;
                command
                    .args(["-init", "-q", "-scryptn", "10", "-passfile"])
                    .arg(password_file(store))
                    .arg(store);
            }
            Self::Securefs => {
                command.args(["create", "--rounds", "1", "--pass", PASSWORD]).arg(store);
            }
            _ => return Ok(None),
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        Ok(Some(command))
    }

    /// Returns the command that mounts `store` at `mountpoint` and serves it in the foreground.
    ///
    /// None where there is nothing to mount. What is to be written to its input is returned beside it.
    pub fn mount_command(
        self,
        program: &Path,
        store: &Path,
        mountpoint: &Path,
    ) -> Option<(Command, &'static str)> {
        let mut command = Command::new(program);
        let mut input = "";
        match self {
            Self::Local => return None,
            Self::OursOneNode | Self::OursThreeNodes => {
                let nodes = if self == Self::OursOneNode { "1" } else { "3" };
                command.args(["up", "--nodes", nodes]).arg(mountpoint).arg("--home").arg(store);
            }
            Self::Bindfs => {
                command.args(["-f", "-o", "kernel_cache,big_writes"]).arg(store).arg(mountpoint);
            }
            Self::Gocryptfs => {
                command.args(["-fg", "-q", "-passfile"]).arg(password_file(store)).arg(store).arg(mountpoint);
            }
            Self::Securefs => {
                command.args(["mount", "--pass", PASSWORD]).arg(store).arg(mountpoint);
            }
            Self::Cryfs => {
                command.arg("-f").arg(store).arg(mountpoint);
                command.env("CRYFS_FRONTEND", "noninteractive").env("CRYFS_NO_UPDATE_CHECK", "true");
                command.env("CRYFS_LOCAL_STATE_DIR", store.with_extension("state"));
                input = PASSWORD;
            }
        }
        command.stdin(Stdio::piped());
        Some((command, input))
    }
}

fn password_file(store: &Path) -> PathBuf {
    store.with_extension("password")
}

/// Returns what a Debian user installs so that everyone takes part.
pub fn install_line() -> &'static str {
    "apt install fuse3 bindfs gocryptfs securefs cryfs sqlite3 git tar"
}
