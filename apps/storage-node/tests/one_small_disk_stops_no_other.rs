//! One of three nodes has a small disk, and comes to its end: the others take what is written, and `status` says which one is full.
//!
//! What went wrong: with next to nothing left, and yet something, the node "took writes" and the drive refused them all, for what fits on three
//! was less than it keeps free; `status` called that healthy. Only when the node was stopped could anything be written.

mod common;

use std::fs;
use std::time::Duration;

use common::garbage::{FILE_BYTES, SmallDisk, write};
use common::running::Running;
use common::{Place, eventually, fuse_is_usable, run, storage_node, text};
use serde_json::Value;

const SOON: Duration = Duration::from_secs(120);
/// What a store keeps back, and room for some files.
const DISK_BYTES: u64 = (64 << 20) + LEFT_BYTES;
const LEFT_BYTES: u64 = 20 << 20;

#[test]
fn a_node_whose_disk_is_nearly_full_is_done_without_and_told() {
    if !fuse_is_usable("a_node_whose_disk_is_nearly_full_is_done_without_and_told") {
        return;
    }
    let place = Place::new("small-disk");
    let (home, drive) = (place.join("home"), place.join("drive"));
    assert!(Running::up(&home, &drive, 3).stop().success());
    let (node, moved) = (home.join("nodes/3"), place.join("moved"));
    fs::rename(&node, &moved).unwrap();
    let Some(disk) = SmallDisk::mount(node.clone(), DISK_BYTES) else { return };
    run("cp", &["-a", text(&moved.join(".")), text(&node)]);

    let up = Running::up(&home, &drive, 3);
    for file in 0..LEFT_BYTES / FILE_BYTES as u64 + 4 {
        write(drive.join(format!("file {file}")), file);
    }
    fs::write(drive.join("small"), "and more").unwrap();
    eventually("it is told that it is full", SOON, || {
        let output = storage_node(&["status", "--json", "--home", text(&home)]);
        let status: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        !output.status.success() && status["health"] == "degraded"
    });
    let told = storage_node(&["status", "--home", text(&home)]);
    let told = String::from_utf8_lossy(&told.stdout).into_owned();
    assert!(told.contains("full"), "{told}");
    assert!(up.stop().success());
    drop(disk);
}
