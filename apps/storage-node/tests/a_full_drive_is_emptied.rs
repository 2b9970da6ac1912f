//! A drive that was full works again after `rm` and `gc`, as often as one likes, and nothing that lives is touched.
//!
//! Once nothing was ever freed from the nodes: a full drive stayed full. The nodes' stores are on a small disk of their own,
//! a tmpfs, which needs root to mount; without root this says so and passes.

mod common;

use std::ffi::CString;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use common::running::Running;
use common::{Place, eventually, fuse_is_usable, loud, storage_node, text};
use rustix::mount::{MountFlags, UnmountFlags};

const DISK_BYTES: u64 = 128 << 20;
const FILE_BYTES: usize = 3_000_000;
/// What a full disk of that size holds at the least, beside what is kept back and what commits take.
const FITS_MIN: usize = 20;
const SOON: Duration = Duration::from_secs(120);

struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(path: PathBuf) -> Option<SmallDisk> {
        fs::create_dir(&path).unwrap();
        let options = CString::new(format!("size={DISK_BYTES}")).unwrap();
        match rustix::mount::mount("tmpfs", &path, "tmpfs", MountFlags::empty(), Some(&*options)) {
            Ok(()) => Some(SmallDisk(path)),
            Err(error) => {
                loud(&format!("SKIPPED: a full disk needs root, to mount a small tmpfs ({error})"));
                None
            }
        }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(&self.0, UnmountFlags::DETACH);
    }
}

fn content(seed: usize, size: usize) -> Vec<u8> {
    let mut state = (seed as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    let mut bytes: Vec<u8> = std::iter::repeat_with(&mut next).take(size / 8 + 1).flatten().collect();
    bytes.truncate(size);
    bytes
}

/// Writes files until there is no space, in the first round, or next to none; returns how many are whole. What is written
/// beyond the last byte waits a minute for space before it is told that there is none.
fn fill(drive: &Path, round: usize) -> usize {
    for number in 0..1000 {
        if round > 0 && free_bytes(drive) < 4 * FILE_BYTES as u64 {
            return number;
        }
        let path = drive.join(format!("file {number}"));
        let written = File::create(&path).and_then(|mut file| {
            file.write_all(&content(round * 1000 + number, FILE_BYTES))?;
            file.sync_all()
        });
        if let Err(error) = written {
            assert_eq!(error.raw_os_error(), Some(28), "{error}");
            return number;
        }
    }
    panic!("the disk is smaller than that");
}

fn gc(home: &Path) -> String {
    let output = storage_node(&["gc", "--home", text(home), "--alone", "--grace", "2s", "--retention", "0s"]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    said
}

fn free_bytes(drive: &Path) -> u64 {
    let state = rustix::fs::statvfs(drive).unwrap();
    state.f_bavail * state.f_frsize
}

#[test]
fn a_full_drive_is_emptied_and_filled_three_times() {
    if !fuse_is_usable("a_full_drive_is_emptied_and_filled_three_times") {
        return;
    }
    let place = Place::new("a_full_drive_is_emptied");
    let Some(disk) = SmallDisk::mount(place.join("disk")) else { return };
    let (home, drive) = (disk.0.join("home"), place.join("drive"));
    let up = Running::up(&home, &drive, 1);
    for number in 0..4 {
        fs::write(drive.join(format!("kept {number}")), content(70 + number, 400_000)).unwrap();
        fs::write(drive.join(format!("small {number}")), content(80 + number, 900)).unwrap();
    }
    let mut counts = Vec::new();
    for round in 0..3 {
        let count = fill(&drive, round);
        counts.push(count);
        for number in 0..count {
            assert!(
                fs::read(drive.join(format!("file {number}"))).unwrap()
                    == content(round * 1000 + number, FILE_BYTES)
            );
        }
        for number in 0..=count {
            let _ = fs::remove_file(drive.join(format!("file {number}")));
        }
        File::open(&drive).unwrap().sync_all().unwrap();
        // Large files are taken apart in the background, and what was just put waits for its grace.
        eventually("the space comes back", SOON, || {
            gc(&home);
            free_bytes(&drive) > DISK_BYTES / 4 * 3
        });
    }
    assert!(counts.iter().all(|count| *count >= FITS_MIN), "{counts:?}");

    // What an empty cache sees comes from the nodes alone.
    let (fresh, cache) = (place.join("fresh"), place.join("cache"));
    let mount = Running::start(
        &["mount", "--home", text(&home), "--cache", text(&cache), text(&fresh)],
        "the drive is",
    );
    for number in 0..4 {
        assert!(fs::read(fresh.join(format!("kept {number}"))).unwrap() == content(70 + number, 400_000));
        assert!(fs::read(fresh.join(format!("small {number}"))).unwrap() == content(80 + number, 900));
    }
    assert!(mount.stop().success());
    let said = gc(&home);
    assert!(said.contains("deleted"), "{said}");
    assert!(up.stop().success());
}

#[test]
fn nothing_is_deleted_unless_it_is_known_that_nobody_needs_it() {
    let place = Place::new("nothing_is_deleted_unless");
    let home = place.join("home");
    let refused = storage_node(&["gc", "--home", text(&home)]);
    assert_eq!(refused.status.code(), Some(1));
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(said.contains("nothing was deleted"), "{said}");
}
