//! What the mount's stories share: a mounted file system in memory, and a reason to skip where there can be none.

#![allow(dead_code)] // Each story uses a part of it.

pub(crate) mod memory;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::rc::Rc;

use filesystem::mount::{Mount, MountError, MountOptions};
use memory::MemoryFs;

/// Mounts `options` at `mountpoint`, or says loudly why not.
pub(crate) fn mount_or_skip(mountpoint: &Path, options: &MountOptions) -> Option<Mount> {
    match Mount::new(mountpoint, options) {
        Ok(mount) => Some(mount),
        Err(
            error @ (MountError::FuseMissing | MountError::DeviceMissing | MountError::NotPermitted { .. }),
        ) => {
            eprintln!("\n*** SKIPPED: this test mounts, and nothing can be mounted here: {error}\n");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

/// Mounts `fs` in a directory of its own and runs `story` on it, on another thread: the reactor's has to answer.
pub(crate) fn with_fs(fs: impl FnOnce() -> MemoryFs + Send, story: impl FnOnce(PathBuf) + Send + 'static) {
    let directory = tempfile::tempdir().unwrap();
    let options = MountOptions { fs_name: "test".into(), ..MountOptions::default() };
    reactor::run(|| {
        let Some(mount) = mount_or_skip(directory.path(), &options) else { return };
        reactor::scope(|scope| {
            let mount = &mount;
            let served = scope.spawn(move || mount.serve(Rc::new(fs())));
            let path = mount.mountpoint().to_owned();
            reactor::offload(move || story(path));
            mount.unmount().unwrap();
            served.join().unwrap().unwrap();
        });
    });
}

/// As [`with_fs`], with an empty one that never waits.
pub(crate) fn with_mount(story: impl FnOnce(PathBuf) + Send + 'static) {
    with_fs(MemoryFs::default, story);
}

/// Runs a shell script in `directory`; its failure is the test's, with what it said.
pub(crate) fn shell(directory: &Path, script: &str) -> String {
    let Output { status, stdout, stderr } = Command::new("sh")
        .args(["-ec", script])
        .current_dir(directory)
        .env("HOME", directory)
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .output()
        .unwrap();
    let (stdout, stderr) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    assert!(status.success(), "{script}\n{status}\n{stdout}\n{stderr}");
    stdout.into_owned()
}

/// Whether a program is installed; says so loudly if it isn't.
pub(crate) fn have(program: &str) -> bool {
    let found = Command::new("sh").args(["-c", &format!("command -v {program}")]).output().unwrap();
    if !found.status.success() {
        eprintln!("\n*** SKIPPED: a part of this test needs `{program}`, which is not installed\n");
    }
    found.status.success()
}
