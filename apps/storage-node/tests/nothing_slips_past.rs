//! What programs write comes to the drive, whatever happens to its mountpoint: not to the disk below it while its process
//! is dead, and not to nowhere because somebody unmounted it in front of a container.

mod common;

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use common::running::Running;
use common::{Place, eventually, fuse_is_usable, has_program, loud, run, text};

const LIMIT: Duration = Duration::from_secs(60);

#[test]
fn nothing_lands_below_a_drive_whose_process_was_killed() {
    let story = "nothing_lands_below_a_drive_whose_process_was_killed";
    if !fuse_is_usable(story) {
        return;
    }
    if !rustix::process::geteuid().is_root() {
        return loud(&format!(
            "SKIPPED: {story}: for others than root there is a moment between the old mount and the new"
        ));
    }
    let place = Place::new("below");
    let (home, drive) = (place.join("home"), place.join("drive"));
    let up = Running::up(&home, &drive, 1);
    let is_over = AtomicBool::new(false);
    let written = thread::scope(|scope| {
        // A program that writes whenever it can.
        let writer = scope.spawn(|| {
            let mut written = Vec::new();
            for number in 0u32.. {
                if is_over.load(Ordering::Relaxed) {
                    break;
                }
                let name = format!("file {}", number % 1000);
                if fs::write(drive.join(&name), name.as_bytes()).is_ok() && written.len() < 1000 {
                    written.push(name);
                }
            }
            written
        });
        // Twice, so that what is dead lies on what is dead.
        let mut up = up;
        for _ in 0..2 {
            up.kill();
            up = Running::up(&home, &drive, 1);
        }
        up.kill();
        let mut last = Running::up(&home, &drive, 1);
        thread::sleep(Duration::from_millis(100));
        is_over.store(true, Ordering::Relaxed);
        let written = writer.join().unwrap();
        assert!(last.is_running());
        assert!(last.stop().success());
        written
    });
    assert!(!written.is_empty());
    // With all of it gone, below is what was there before.
    assert!(!common::is_mounted(&drive), "something dead is left");
    assert_eq!(fs::read_dir(&drive).unwrap().count(), 0, "it was written to the disk below the drive");

    // `umount` cleans up, too, after several.
    for _ in 0..2 {
        Running::up(&home, &drive, 1).kill();
    }
    let _ = common::storage_node(&["umount", text(&drive)]);
    assert!(!common::is_mounted(&drive));
}

/// Changes a file through `mmap` and does not sync it, says so, and lives on.
const CHANGE: &str = "
import mmap, os, sys, time
file = open(sys.argv[1], 'r+b')
pages = mmap.mmap(file.fileno(), 0)
pages[0:7] = b'changed'
open(sys.argv[2], 'w').close()
time.sleep(600)
";

#[test]
fn what_a_container_changed_through_mmap_is_stored_when_the_drive_is_unmounted_in_front_of_it() {
    if !fuse_is_usable("what_a_container_changed_through_mmap_is_stored") || !has_program("python3") {
        return;
    }
    let place = Place::new("mapped");
    let (home, drive) = (place.join("home"), place.join("drive"));
    for is_signalled in [false, true] {
        let mut up = Running::up(&home, &drive, 1);
        let file = drive.join(format!("file {is_signalled}"));
        fs::write(&file, vec![b'.'; 10_000]).unwrap();
        let done = place.join(&format!("done {is_signalled}"));
        let mut container = Command::new("unshare")
            .args(["-rm", "python3", "-c", CHANGE, text(&file), text(&done)])
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        eventually("the container has changed it", LIMIT, || done.exists());
        if is_signalled {
            common::running::signal(up.pid(), rustix::process::Signal::INT);
        } else {
            // Not our own command, which would ask the kernel first.
            run("umount", &["--lazy", text(&drive)]);
        }
        let ended = up.wait(LIMIT);
        let _ = container.kill();
        let _ = container.wait();
        assert!(ended.is_some_and(|status| status.success()), "{}", up.drain());
    }
    let up = Running::up(&home, &drive, 1);
    for is_signalled in [false, true] {
        assert!(is_changed(&drive.join(format!("file {is_signalled}"))), "signalled: {is_signalled}");
    }
    assert!(up.stop().success());
}

fn is_changed(path: &Path) -> bool {
    fs::read(path).unwrap().starts_with(b"changed.")
}
