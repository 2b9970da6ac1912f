//! `gc --dry-run` says how much the nodes hold that the drive does not need, and deletes nothing; and `gc` by itself lets the nodes
//! keep what it deletes for a while.

mod common;

use std::fs::{self, File};
use std::path::Path;
use std::time::Duration;

use common::running::Running;
use common::{Place, eventually, fuse_is_usable, storage_node, text};

const SOON: Duration = Duration::from_secs(120);

/// What one of the files holds.
const CONTENT_BYTES: u32 = 3_000_000;

/// The bytes that are garbage. Not its blocks: each root that a mount puts leaves some behind, of a few hundred bytes.
fn garbage_bytes(home: &Path) -> f64 {
    let output = storage_node(&["gc", "--home", text(home), "--dry-run", "--grace", "2s"]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    let line = said.lines().find(|line| line.contains(": garbage"));
    let amount =
        line.and_then(|line| line.split(['(', ')']).nth(1)).and_then(|amount| amount.split_once(' '));
    let (number, unit) = amount.unwrap_or_else(|| panic!("no amount of garbage in {said}"));
    let factor = match unit {
        "B" => 1.0,
        "KiB" => 1024.0,
        "MiB" => 1024.0 * 1024.0,
        unit => panic!("garbage by the {unit}: {said}"),
    };
    number.parse::<f64>().unwrap_or_else(|_| panic!("{number:?} in {said}")) * factor
}

#[test]
fn garbage_is_counted_and_then_deleted_in_good_time() {
    if !fuse_is_usable("garbage_is_counted_and_then_deleted_in_good_time") {
        return;
    }
    let place = Place::new("garbage_is_counted");
    let (home, drive) = (place.join("home"), place.join("drive"));
    let up = Running::up(&home, &drive, 1);
    let content: Vec<u8> = (0..CONTENT_BYTES).map(|index| (index * 7 % 251) as u8).collect();
    for name in ["gone", "kept"] {
        fs::write(drive.join(name), &content).unwrap();
        File::open(drive.join(name)).unwrap().sync_all().unwrap();
    }
    let most_of_it = f64::from(CONTENT_BYTES) * 0.9;
    assert!(garbage_bytes(&home) < most_of_it);
    fs::remove_file(drive.join("gone")).unwrap();
    File::open(&drive).unwrap().sync_all().unwrap();
    eventually("what was removed is garbage", SOON, || garbage_bytes(&home) >= most_of_it);

    let deleted = storage_node(&["gc", "--home", text(&home)]);
    let said = String::from_utf8_lossy(&deleted.stdout).into_owned();
    assert!(deleted.status.success(), "{said}{}", String::from_utf8_lossy(&deleted.stderr));
    assert!(said.contains("the nodes keep it for 30d yet"), "{said}");
    assert!(garbage_bytes(&home) < most_of_it, "what is deleted is no garbage any more: {said}");
    assert!(fs::read(drive.join("kept")).unwrap() == content);
    assert!(up.stop().success());
}
