//! `gc --dry-run` says how much the nodes hold that the drive does not need, and deletes nothing; and `gc` by itself lets the nodes
//! keep what it deletes for a while.

mod common;

use std::fs::{self, File};
use std::path::Path;
use std::time::Duration;

use common::running::Running;
use common::{Place, eventually, fuse_is_usable, storage_node, text};

const SOON: Duration = Duration::from_secs(120);

/// The numbers of blocks that are held, and that are garbage.
fn dry_run(home: &Path) -> (u64, u64) {
    let output = storage_node(&["gc", "--home", text(home), "--dry-run", "--grace", "2s"]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    let number = |words: &str| {
        let line = said.lines().find(|line| line.contains(words));
        let line = line.unwrap_or_else(|| panic!("no {words:?} in {said}"));
        line.split_whitespace().find_map(|word| word.parse().ok()).unwrap_or_else(|| panic!("{line}"))
    };
    (number("the nodes hold"), number("garbage"))
}

#[test]
fn garbage_is_counted_and_then_deleted_in_good_time() {
    if !fuse_is_usable("garbage_is_counted_and_then_deleted_in_good_time") {
        return;
    }
    let place = Place::new("garbage_is_counted");
    let (home, drive) = (place.join("home"), place.join("drive"));
    let up = Running::up(&home, &drive, 1);
    let content: Vec<u8> = (0..3_000_000u32).map(|index| (index * 7 % 251) as u8).collect();
    for name in ["gone", "kept"] {
        fs::write(drive.join(name), &content).unwrap();
        File::open(drive.join(name)).unwrap().sync_all().unwrap();
    }
    let before = dry_run(&home);
    fs::remove_file(drive.join("gone")).unwrap();
    File::open(&drive).unwrap().sync_all().unwrap();
    eventually("what was removed is garbage", SOON, || dry_run(&home).1 >= before.1 + 3);

    let deleted = storage_node(&["gc", "--home", text(&home)]);
    let said = String::from_utf8_lossy(&deleted.stdout).into_owned();
    assert!(deleted.status.success(), "{said}{}", String::from_utf8_lossy(&deleted.stderr));
    assert!(said.contains("the nodes keep it for 30d yet"), "{said}");
    assert!(dry_run(&home).1 < before.1 + 3, "what is deleted is no garbage any more");
    assert!(fs::read(drive.join("kept")).unwrap() == content);
    assert!(up.stop().success());
}
