//! A node that was frozen, or slow, or cut off for a while, lacks what was stored meanwhile, and nothing has told it so: no network that
//! it is in is called healthy before it has compared what it has with the others.
//!
//! What went wrong: three nodes compared what they had each minute, and between two comparisons `status` went by the last one. A node
//! that was frozen for some seconds had 6 of 103 blocks, and the network had "3 copies of each block"; whoever then replaced the disks
//! of the other two had nothing left.

mod common;

use std::fs::{self, File};
use std::time::Duration;

use common::random::Random;
use common::running::{Running, signal};
use common::{Place, eventually, fuse_is_usable, storage_node, text};
use rustix::process::Signal;
use serde_json::Value;

const SOON: Duration = Duration::from_secs(120);

#[test]
fn a_network_in_which_a_node_was_frozen_is_healthy_once_that_node_has_its_copies() {
    if !fuse_is_usable("a_network_in_which_a_node_was_frozen_is_healthy_once_that_node_has_its_copies") {
        return;
    }
    let mut random = Random::announced("frozen");
    let place = Place::new("frozen");
    let (home, drive) = (place.join("home"), place.join("drive"));
    let mut up = Running::up(&home, &drive, 3);
    // With how many blocks each node is called healthy.
    let healthy = || {
        let told = storage_node(&["status", "--json", "--home", text(&home)]);
        let status: Value = serde_json::from_slice(&told.stdout).unwrap();
        assert_eq!(told.status.success(), status["health"] == "healthy");
        let blocks = |node: &Value| node["blocks"].as_u64().unwrap_or(0);
        told.status
            .success()
            .then(|| status["nodes"].as_array().unwrap().iter().map(blocks).collect::<Vec<_>>())
    };
    eventually("it is healthy", SOON, || healthy().is_some());
    let frozen = up.node_pid(3).expect("`up` says which process it is");
    signal(frozen, Signal::STOP);
    for number in 0..24 {
        let path = drive.join(format!("file-{number}"));
        fs::write(&path, random.bytes(1 << 20)).unwrap();
        File::open(&path).unwrap().sync_all().unwrap();
    }
    signal(frozen, Signal::CONT);
    eventually("it is healthy again", SOON, || {
        healthy().is_some_and(|blocks| {
            // Each block is on each of three nodes; what changes while they are asked is a few.
            let (least, most) = (blocks.iter().min().unwrap(), blocks.iter().max().unwrap());
            assert!(*most >= 24 && least + 12 >= *most, "healthy, with {blocks:?}");
            true
        })
    });
    assert!(up.stop().success());
}
