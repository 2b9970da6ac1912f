//! A laptop was away from its nodes, and its disk is full: what waits in its journal is there, and reaches the nodes.
//!
//! What went wrong: `mount` wrote all that an earlier mount had left in the journal anew before it opened, and so needed as
//! much room again on its disk. Where there was less it refused, with the nodes there, which would have taken it all and so
//! made room; and at the end of a drive on such a disk it was said that changes are lost which the journal had.
//!
//! The home is on a small disk of its own, a tmpfs, which is shrunk to what is used; it needs root to mount, and without it the story
//! says so and is skipped.

mod common;

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use common::garbage::SmallDisk;
use common::members::join;
use common::random::Random;
use common::running::Running;
use common::{PROGRAM, Place, detach, ended_within, eventually, fuse_is_usable, text};

/// Seconds are meant; a loaded machine may take longer.
const SOON: Duration = Duration::from_secs(90);
const FILES: usize = 60;
const FILE_BYTES: usize = 150_000;

fn mount(home: &Path, drive: &Path) -> Running {
    Running::start(&["mount", "--home", text(home), text(drive)], "the drive is")
}

/// What `umount` says, and whether all is stored.
fn umount(drive: &Path) -> (bool, String) {
    let output = ended_within(SOON, Command::new(PROGRAM).args(["umount", text(drive)]));
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&said).into_owned())
}

/// The files of the home's journal.
fn journal_files(home: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(home.join("client/journal")).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| path.file_name().unwrap().to_string_lossy().starts_with("journal-")).collect()
}

/// How many of the files are not as they were closed.
fn wrong(drive: &Path, contents: &[Vec<u8>]) -> usize {
    let is_right = |(at, content): (usize, &Vec<u8>)| {
        fs::read(drive.join(format!("file {at}"))).is_ok_and(|found| found == *content)
    };
    contents.iter().enumerate().filter(|file| !is_right(*file)).count()
}

#[test]
fn what_waits_on_a_full_disk_is_mounted_without_the_nodes_and_drains_into_them() {
    if !fuse_is_usable("full_disks_let_the_journal_out") {
        return;
    }
    let mut random = Random::announced("full_disks_let_the_journal_out");
    let place = Place::new("full-journal");
    // Large enough for a cache, which leaves room.
    let Some(disk) = SmallDisk::mount(place.join("disk"), 1 << 30) else { return };
    let (home, alices, bobs, drive) =
        (place.join("home"), place.join("a"), disk.path().join("home"), place.join("b"));
    let up = Running::up(&home, &alices, 1);
    let bob = join(&home, &bobs, &drive);
    fs::write(drive.join("old"), "of before").unwrap();
    assert!(bob.stop().success());
    assert!(up.stop().success());
    let node = || Running::start(&["run", "--home", text(&home.join("nodes/1"))], "listening on");

    let (running, bob) = (node(), mount(&bobs, &drive));
    running.kill();
    let contents: Vec<Vec<u8>> = (0..FILES).map(|_| random.bytes(FILE_BYTES)).collect();
    for (at, content) in contents.iter().enumerate() {
        fs::write(drive.join(format!("file {at}")), content).unwrap();
    }
    bob.kill();
    detach(&drive);
    // A megabyte at the most is left, a tenth of what waits.
    disk.resize(disk.used_bytes() + (random.below(2) << 20));

    // Nobody takes it, and nothing can be added to it: that is said, and what was closed is there.
    let mut bob = mount(&bobs, &drive);
    assert_eq!((wrong(&drive, &contents), fs::read(drive.join("old")).unwrap()), (0, b"of before".to_vec()));
    let refused = fs::write(drive.join("more"), random.bytes(3 << 20)).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::StorageFull);
    assert!(bob.wait_for("No space left on device", SOON), "{}", bob.drain());
    bob.kill();
    detach(&drive);
    let mut bob = mount(&bobs, &drive);
    assert_eq!(wrong(&drive, &contents), 0);
    let (is_stored, said) = umount(&drive);
    assert!(!is_stored && said.contains("wait in the journal"), "{said}");
    assert!(!bob.wait(SOON).expect("it ends").success());

    // They take it, and there is room again.
    let running = node();
    let mut bob = mount(&bobs, &drive);
    assert_eq!(wrong(&drive, &contents), 0);
    eventually("the nodes have it all", SOON, || journal_files(&bobs).is_empty());
    fs::write(drive.join("more"), "of after").unwrap();
    let (is_stored, said) = umount(&drive);
    assert!(is_stored && said.contains("everything in it is stored"), "{said}");
    assert!(bob.wait(SOON).expect("it ends").success());
    let alice = mount(&home, &alices);
    assert_eq!(
        (wrong(&alices, &contents), fs::read(alices.join("more")).unwrap()),
        (0, b"of after".to_vec())
    );
    assert!(alice.stop().success() && running.stop().success());
}
