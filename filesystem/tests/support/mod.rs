//! What the mount's stories share: a mounted file system in memory, and a reason to skip where there can be none.

#![allow(dead_code)] // Each story uses a part of it.

#[path = "../common/mod.rs"]
pub(crate) mod common;
pub(crate) mod memory;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::rc::Rc;
use std::time::Duration;

use common::TestStore;
use filesystem::mount::{Mount, MountError, MountOptions};
use filesystem::{Operations, Volume};
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

/// Mounts `operations` and runs `story` on it, on another thread: the reactor's has to answer. False if skipped.
pub(crate) fn tell(operations: Rc<dyn Operations>, story: impl FnOnce(PathBuf) + Send + 'static) -> bool {
    let directory = tempfile::tempdir().unwrap();
    let options = MountOptions { fs_name: "test".into(), ..MountOptions::default() };
    let Some(mount) = mount_or_skip(directory.path(), &options) else { return false };
    reactor::scope(|scope| {
        let mount = &mount;
        let served = scope.spawn(move || mount.serve(operations));
        let path = mount.mountpoint().to_owned();
        reactor::offload(move || story(path));
        mount.unmount().unwrap();
        served.join().unwrap().unwrap();
    });
    true
}

/// Runs `story` on a mount of `fs`.
pub(crate) fn with_fs(fs: impl FnOnce() -> MemoryFs + Send, story: impl FnOnce(PathBuf) + Send + 'static) {
    reactor::run(|| tell(Rc::new(fs()), story));
}

/// Runs `story` on a mount of an empty file system in memory, and then on one of an empty volume, which is opened again
/// afterwards, by nothing but its keys, to look the same to the last byte.
pub(crate) fn with_mount(story: fn(PathBuf)) {
    with_fs(MemoryFs::default, story);
    with_volume(story);
}

/// As [`with_mount`], for what the file system in memory is too simple for.
pub(crate) fn with_volume(story: fn(PathBuf)) {
    let before = tempfile::NamedTempFile::new().unwrap();
    let told = before.path().to_owned();
    reactor::run(|| {
        let store = TestStore::new();
        let mut options = common::options("first");
        options.commit_interval = Duration::from_millis(50);
        options.sync_patience = Duration::from_secs(30);
        options.cache_bytes = 8 << 20;
        let owner = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
        let volume = Volume::create(store.clone(), common::keys(&store), options, owner).unwrap();
        let mounted = tell(volume.clone(), move |root| {
            story(root.clone());
            std::fs::write(told, fingerprint(&root)).unwrap();
        });
        volume.close().stored().unwrap();
        if mounted {
            let volume = common::open(&store, "first");
            tell(volume.clone(), move |root| {
                let before = std::fs::read_to_string(before.path()).unwrap();
                assert_eq!(fingerprint(&root), before, "what was there before the volume was closed");
            });
            volume.close().stored().unwrap();
        }
    });
}

/// Everything that can be seen of a tree: names, kinds, modes, owners, times, sizes, content. Not space and links'
/// sizes, which may differ between file systems, nor access times.
fn fingerprint(root: &Path) -> String {
    shell(
        root,
        r#"
        find . -mindepth 1 -printf '%p %y %m %U:%G %n %T@ %s %l\n' | grep -v ' d .* ' | sort
        find . -mindepth 1 -type d -printf '%p %m %U:%G %n %T@\n' | sort
        find . -type f -print0 | sort -z | xargs -0r sha256sum
        "#,
    )
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
