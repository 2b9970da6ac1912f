//! All disks are replaced one after the other, each as soon as `status` says that the network is healthy.
//!
//! What went wrong: a node whose store was gone answered and took writes, and that was called healthy, with three copies of each
//! block, while it had none. Whoever went by it and replaced the next disk had lost everything after the third.

mod common;

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use common::running::Running;
use common::{Place, eventually, fuse_is_usable, storage_node, text};
use serde_json::Value;

/// Fetching anew takes some seconds; a loaded machine may take longer.
const LIMIT: Duration = Duration::from_secs(180);
const FILES: usize = 24;

fn content(number: usize) -> Vec<u8> {
    (0..1 << 20).map(|at| ((at * 31 + number * 7919) % 251) as u8).collect()
}

fn is_healthy(home: &Path) -> bool {
    storage_node(&["status", "--home", text(home)]).status.success()
}

#[test]
fn whoever_replaces_each_disk_when_all_is_healthy_loses_nothing() {
    if !fuse_is_usable("disks_are_replaced") {
        return;
    }
    let place = Place::new("disks-are-replaced");
    let (home, drive) = (place.join("home"), place.join("drive"));
    let up = Running::up(&home, &drive, 3);
    for number in 0..FILES {
        let mut file = File::create(drive.join(format!("f{number}"))).unwrap();
        file.write_all(&content(number)).unwrap();
        file.sync_all().unwrap();
    }
    assert!(up.stop().success());

    let node = |number: usize| home.join(format!("nodes/{number}"));
    let start = |number: usize| Running::start(&["run", "--home", text(&node(number))], "listening on");
    let mut running: Vec<Option<Running>> = (1..=3).map(|number| Some(start(number))).collect();
    eventually("all is well", LIMIT, || is_healthy(&home));
    for number in 1..=3 {
        running[number - 1].take().unwrap().kill();
        fs::remove_dir_all(node(number).join("store")).unwrap();
        running[number - 1] = Some(start(number));
        eventually("all is well again", LIMIT, || is_healthy(&home));
    }

    // Whoever never saw the drive reads all of it.
    fs::remove_dir_all(home.join("client")).unwrap();
    let mount = Running::start(&["mount", "--home", text(&home), text(&drive)], "the drive is");
    for number in 0..FILES {
        assert!(fs::read(drive.join(format!("f{number}"))).unwrap() == content(number), "f{number}");
    }
    assert!(mount.stop().success());
    let said = storage_node(&["status", "--json", "--home", text(&home)]);
    let said: Value = serde_json::from_slice(&said.stdout).unwrap();
    let blocks: Vec<u64> =
        said["nodes"].as_array().unwrap().iter().map(|node| node["blocks"].as_u64().unwrap()).collect();
    assert!(blocks.iter().all(|count| *count >= FILES as u64), "{blocks:?}");
}
