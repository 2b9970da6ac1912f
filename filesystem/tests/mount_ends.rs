//! How a mount ends: politely, in the middle of requests, by a kill; and what the next one finds.

mod support;

use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::rc::Rc;
use std::thread;
use std::time::{Duration, Instant};

use filesystem::fuse::SessionError;
use filesystem::mount::{self, Mount, MountError, MountOptions, Unmounted};
use support::memory::MemoryFs;
use support::{mount_or_skip, shell, with_fs, with_mount};

fn options() -> MountOptions {
    MountOptions { fs_name: "test".into(), ..MountOptions::default() }
}

#[test]
fn an_unmount_passes_on_what_was_written_and_is_not_synced() {
    let directory = tempfile::tempdir().unwrap();
    reactor::run(|| {
        let fs = Rc::new(MemoryFs::default());
        for round in 0..3 {
            let Some(mount) = mount_or_skip(directory.path(), &options()) else { return };
            reactor::scope(|scope| {
                let served = scope.spawn(|| mount.serve(fs.clone()));
                let path = mount.mountpoint().join("file");
                reactor::offload(move || {
                    assert_eq!(fs::read(&path).map(|old| old.len()).unwrap_or(0), round * 3_000_000);
                    fs::write(&path, vec![round as u8; (round + 1) * 3_000_000]).unwrap();
                });
                // Completely, unless a process that another test starts just now holds it for a moment.
                mount.unmount().unwrap();
                served.join().unwrap().unwrap();
            });
        }
        assert!(fs::read_dir(directory.path()).unwrap().next().is_none());
    });
}

#[test]
fn a_busy_mount_is_flushed_and_goes_out_of_sight() {
    let directory = tempfile::tempdir().unwrap();
    reactor::run(|| {
        let Some(mount) = mount_or_skip(directory.path(), &options()) else { return };
        reactor::scope(|scope| {
            let served = scope.spawn(|| mount.serve(Rc::new(MemoryFs::default())));
            let path = mount.mountpoint().join("file");
            let file = reactor::offload(move || {
                let file = File::options().read(true).write(true).create_new(true).open(path).unwrap();
                file.write_all_at(b"open", 0).unwrap();
                file
            });
            assert_eq!(mount.unmount().unwrap(), Unmounted::Lazily);
            assert!(fs::read_dir(directory.path()).unwrap().next().is_none());
            reactor::offload(move || {
                file.write_all_at(b"still", 0).unwrap();
                file.sync_all().unwrap();
            });
            served.join().unwrap().unwrap();
        });
    });
}

/// The kernel calls a request aborted that is being read in the moment in which the mount goes.
#[test]
fn a_mount_that_ends_with_its_last_open_file_was_never_aborted() {
    let directory = tempfile::tempdir().unwrap();
    reactor::run(|| {
        for _ in 0..100 {
            let Some(mount) = mount_or_skip(directory.path(), &options()) else { return };
            reactor::scope(|scope| {
                let served = scope.spawn(|| mount.serve(Rc::new(MemoryFs::default())));
                let path = mount.mountpoint().join("file");
                let file = reactor::offload(move || File::create(path).unwrap());
                assert_eq!(mount.unmount().unwrap(), Unmounted::Lazily);
                reactor::offload(move || drop(file));
                served.join().unwrap().unwrap();
            });
        }
    });
}

#[test]
fn a_mount_that_is_dropped_while_a_program_waits_leaves_nothing_behind() {
    let directory = tempfile::tempdir().unwrap();
    let reader = reactor::run(|| {
        let mount = mount_or_skip(directory.path(), &options())?;
        let fs = MemoryFs::default();
        fs.read_delay.set(Duration::from_secs(3600));
        let path = mount.mountpoint().join("file");
        let reader = reactor::scope(|scope| {
            let serving = scope.spawn(|| mount.serve(Rc::new(fs)));
            reactor::offload({
                let path = path.clone();
                move || File::create(&path).unwrap().write_all_at(&[1; 5000], 0).unwrap()
            });
            reactor::offload(rustix::fs::sync);
            let _ = fs::write("/proc/sys/vm/drop_caches", "1");
            let reader = thread::spawn(move || fs::read(path).map(|content| content.len()));
            reactor::sleep(Duration::from_millis(100));
            serving.terminate();
            reader
        });
        drop(mount);
        Some(reader)
    });
    let Some(reader) = reader else { return };
    // Either it failed, or (where the caches could not be dropped) it never had to wait.
    let read = reader.join().unwrap();
    assert!(matches!(read, Err(_) | Ok(5000)), "{read:?}");
    assert!(fs::read_dir(directory.path()).unwrap().next().is_none());
}

#[test]
fn a_signal_ends_a_read_that_would_wait_for_ever() {
    const READ_DELAY: Duration = Duration::from_secs(3600);
    let fs = || {
        let fs = MemoryFs::default();
        fs.read_delay.set(READ_DELAY);
        fs
    };
    with_fs(fs, |root| {
        fs::write(root.join("file"), vec![1; 100_000]).unwrap();
        rustix::fs::sync();
        let started = Instant::now();
        // The kernel keeps pages that are in use, whatever it is told; a reader that met them asked nobody, so another.
        let mut tries = 0..20;
        let mut cat = loop {
            tries.next().expect("a read waits, once the kernel has forgotten the file");
            if fs::write("/proc/sys/vm/drop_caches", "1").is_err() {
                eprintln!("*** SKIPPED: caches can't be dropped here, so nothing waits");
                return;
            }
            let mut cat = Command::new("cat").arg(root.join("file")).stdout(Stdio::null()).spawn().unwrap();
            thread::sleep(Duration::from_millis(200));
            if cat.try_wait().unwrap().is_none() {
                break cat;
            }
        };
        cat.kill().unwrap();
        cat.wait().unwrap();
        assert!(started.elapsed() < READ_DELAY / 2, "it waited for the file system");
        // And the mount lives on.
        assert_eq!(fs::metadata(root.join("file")).unwrap().len(), 100_000);
    });
}

#[test]
fn an_aborted_connection_is_an_error_that_says_so() {
    let directory = tempfile::tempdir().unwrap();
    reactor::run(|| {
        let Some(mount) = mount_or_skip(directory.path(), &options()) else { return };
        let path = mount.mountpoint().to_owned();
        reactor::scope(|scope| {
            let served = scope.spawn(|| mount.serve(Rc::new(MemoryFs::default())));
            let aborted = reactor::offload(move || {
                fs::write(path.join("file"), b"x").unwrap();
                // Device 0:N is connection N.
                let minor = rustix::fs::minor(rustix::fs::stat(&path).unwrap().st_dev);
                fs::write(format!("/sys/fs/fuse/connections/{minor}/abort"), "1").is_ok()
            });
            if aborted {
                assert!(matches!(served.join().unwrap(), Err(SessionError::Aborted)));
            } else {
                eprintln!("*** SKIPPED: /sys/fs/fuse/connections is not there");
                mount.unmount().unwrap();
            }
        });
        drop(mount);
        assert!(fs::read_dir(directory.path()).unwrap().next().is_none());
    });
}

#[test]
fn a_change_under_way_runs_to_its_end_though_nobody_waits_for_it_any_more() {
    let directory = tempfile::tempdir().unwrap();
    reactor::run(|| {
        let Some(mount) = mount_or_skip(directory.path(), &options()) else { return };
        let fs = Rc::new(MemoryFs::default());
        fs.sync_delay.set(Duration::from_millis(300));
        let path = mount.mountpoint().to_owned();
        reactor::scope(|scope| {
            let served = scope.spawn(|| mount.serve(fs.clone()));
            let file = reactor::offload({
                let path = path.clone();
                move || File::create(path.join("file")).unwrap()
            });
            let syncer = thread::spawn(move || file.sync_all());
            reactor::sleep(Duration::from_millis(100));
            // Device 0:N is connection N.
            let device = filesystem::fuse::mount_table::find(&path).unwrap().unwrap().device;
            let minor = device.split_once(':').unwrap().1;
            if fs::write(format!("/sys/fs/fuse/connections/{minor}/abort"), "1").is_ok() {
                assert!(matches!(served.join().unwrap(), Err(SessionError::Aborted)));
                assert_eq!(fs.sync_count.get(), 2, "the program's, and the last one");
                assert!(reactor::offload(move || syncer.join().unwrap()).is_err());
            } else {
                eprintln!("*** SKIPPED: /sys/fs/fuse/connections is not there");
                mount.unmount().unwrap();
            }
        });
    });
}

#[test]
fn a_panic_in_an_operation_fails_its_request_and_ends_the_mount_loudly() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().canonicalize().unwrap();
    let (told, said) = std::sync::mpsc::channel();
    let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        reactor::run(move || {
            let Some(mount) = mount_or_skip(directory.path(), &options()) else {
                told.send(None).unwrap();
                return;
            };
            let fs = MemoryFs::default();
            fs.sync_panics.set(true);
            let file = mount.mountpoint().join("file");
            thread::spawn(move || {
                let synced = File::create(file).and_then(|file| file.sync_all());
                told.send(Some(synced.map_err(|error| error.raw_os_error()))).unwrap();
            });
            let _ = mount.serve(Rc::new(fs));
        });
    }));
    let Some(synced) = said.recv_timeout(Duration::from_secs(10)).unwrap() else { return };
    assert_eq!(synced, Err(Some(5)), "EIO");
    assert!(ended.is_err(), "nothing fails silently");
    assert_eq!(filesystem::fuse::mount_table::find(&path).unwrap(), None);
}

/// Run by [`what_a_killed_process_leaves_is_told_and_cleaned`] in a process of its own.
#[test]
fn child_that_mounts_and_waits() {
    let Ok(directory) = std::env::var("HYPHA_TEST_MOUNT_AND_WAIT") else { return };
    reactor::run(|| {
        let mount = Mount::new(Path::new(&directory), &options()).unwrap();
        mount.serve(Rc::new(MemoryFs::default())).unwrap();
    });
}

/// Unmounts even where the story fails.
struct Cleanup<'a>(&'a Path);

impl Drop for Cleanup<'_> {
    fn drop(&mut self) {
        let _ = mount::unmount(self.0, true);
    }
}

#[test]
fn what_a_killed_process_leaves_is_told_and_cleaned() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let Some(true) = reactor::run(|| mount_or_skip(path, &options()).map(|_| true)) else { return };
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child_that_mounts_and_waits"])
        .env("HYPHA_TEST_MOUNT_AND_WAIT", path)
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    while fs::write(path.join("probe"), b"x").is_err()
        || filesystem::fuse::mount_table::find(&path.canonicalize().unwrap()).unwrap().is_none()
    {
        assert!(Instant::now() < deadline, "the child does not mount");
        let _ = fs::remove_file(path.join("probe"));
        thread::sleep(Duration::from_millis(20));
    }
    let again = reactor::run(|| Mount::new(path, &options()).map(|_| ()));
    assert!(matches!(again, Err(MountError::AlreadyMounted(_))), "{again:?}");
    child.kill().unwrap();
    child.wait().unwrap();
    let _cleanup = Cleanup(path);
    // The kernel may still answer a `stat` from its cache, but nothing more.
    assert_eq!(fs::read_dir(path).unwrap_err().kind(), ErrorKind::NotConnected);
    let stale = reactor::run(|| Mount::new(path, &options()).map(|_| ()));
    assert!(matches!(stale, Err(MountError::Stale(_))), "{stale:?}");
    let replaced =
        reactor::run(|| Mount::new(path, &MountOptions { replace_stale: true, ..options() }).map(|_| ()));
    assert!(replaced.is_ok(), "{replaced:?}");
    assert!(fs::metadata(path).unwrap().is_dir());
}

#[test]
fn a_connection_is_ended_without_asking_the_process() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().canonicalize().unwrap();
    let Some(true) = reactor::run(|| mount_or_skip(&path, &options()).map(|_| true)) else { return };
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child_that_mounts_and_waits"])
        .env("HYPHA_TEST_MOUNT_AND_WAIT", &path)
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let cleanup = Cleanup(&path);
    let deadline = Instant::now() + Duration::from_secs(20);
    let entry = loop {
        let entry = filesystem::fuse::mount_table::find(&path).unwrap();
        if let Some(entry) = entry.filter(|_| fs::write(path.join("probe"), b"x").is_ok()) {
            break entry;
        }
        assert!(Instant::now() < deadline, "the child does not mount");
        thread::sleep(Duration::from_millis(20));
    };
    // It answers nothing any more, as if it hung.
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::STOP).unwrap();
    match mount::abort(&entry) {
        // A user where `fusectl` is not mounted.
        Err(MountError::Hangs(at)) => assert!(!rustix::process::geteuid().is_root() && at == path),
        ended => {
            ended.unwrap();
            assert_eq!(fs::read_dir(&path).unwrap_err().kind(), ErrorKind::NotConnected);
            assert_eq!(filesystem::fuse::mount_table::find(&path).unwrap(), Some(entry), "it stays");
        }
    }
    child.kill().unwrap();
    child.wait().unwrap();
    drop(cleanup);
    assert_eq!(filesystem::fuse::mount_table::find(&path).unwrap(), None);
}

#[test]
fn a_wrong_mountpoint_is_told_apart() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    fs::write(&file, b"x").unwrap();
    reactor::run(|| {
        let missing = Mount::new(&directory.path().join("missing"), &options()).map(|_| ());
        assert!(matches!(missing, Err(MountError::MountpointMissing(_))), "{missing:?}");
        let wrong = Mount::new(&file, &options()).map(|_| ());
        assert!(matches!(wrong, Err(MountError::NotADirectory(_))), "{wrong:?}");
    });
    let nothing = mount::unmount(directory.path(), false);
    assert!(nothing.is_err());
}

#[test]
fn a_read_only_mount_refuses_changes() {
    let directory = tempfile::tempdir().unwrap();
    let options = MountOptions { read_only: true, ..options() };
    reactor::run(|| {
        let Some(mount) = mount_or_skip(directory.path(), &options) else { return };
        reactor::scope(|scope| {
            let served = scope.spawn(|| mount.serve(Rc::new(MemoryFs::default())));
            let path = mount.mountpoint().join("file");
            let refused = reactor::offload(move || fs::write(path, b"x").unwrap_err().kind());
            assert_eq!(refused, ErrorKind::ReadOnlyFilesystem);
            mount.unmount().unwrap();
            served.join().unwrap().unwrap();
        });
    });
}

#[test]
fn an_ordinary_user_mounts_through_fusermount3() {
    let nobody = 65_534;
    if !rustix::process::geteuid().is_root() || !support::have("setpriv") || !support::have("fusermount3") {
        return;
    }
    if !Path::new("/dev/fuse").exists()
        || fs::metadata("/dev/fuse").is_ok_and(|m| {
            use std::os::unix::fs::PermissionsExt;
            m.permissions().mode() & 0o006 != 0o006
        })
    {
        eprintln!("*** SKIPPED: /dev/fuse is root's alone here");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    std::os::unix::fs::chown(directory.path(), Some(nobody), Some(nobody)).unwrap();
    let program = std::env::current_exe().unwrap();
    let mut child = Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
        .arg(program)
        .args(["--exact", "child_that_mounts_and_waits"])
        .env("HYPHA_TEST_MOUNT_AND_WAIT", directory.path())
        .spawn()
        .unwrap();
    let run = "setpriv --reuid=65534 --regid=65534 --clear-groups";
    shell(
        directory.path().parent().unwrap(),
        &format!(
            "cd /; for i in $(seq 100); do grep -q ' {path} fuse.hypha' /proc/mounts && break; sleep 0.05; done\n\
             {run} sh -c 'echo mine > {path}/file; cat {path}/file; df {path}'; {run} fusermount3 -u {path}",
            path = directory.path().display()
        ),
    );
    assert!(child.wait().unwrap().success());
}

#[test]
fn forgotten_nodes_are_given_back() {
    with_mount(|root| {
        for index in 0..100 {
            fs::write(root.join(format!("{index}")), b"x").unwrap();
        }
        shell(&root, "rm -f *; test -z \"$(ls)\"");
    });
}

#[test]
fn a_story_that_panics_leaves_no_mount() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().canonicalize().unwrap();
    let told = std::panic::catch_unwind(|| {
        reactor::run(|| {
            let Some(mount) = mount_or_skip(directory.path(), &options()) else { return };
            reactor::scope(|scope| {
                scope.spawn(|| mount.serve(Rc::new(MemoryFs::default())));
                let file = mount.mountpoint().join("file");
                reactor::offload(move || {
                    fs::write(file, b"x").unwrap();
                    std::panic::resume_unwind(Box::new("a panic"));
                });
            });
        });
    });
    drop(told);
    assert_eq!(filesystem::fuse::mount_table::find(&path).unwrap(), None);
}
