//! A node that was down catches up by itself, and then is as good as one that never died.
//!
//! What could go wrong: it comes back with gaps, nobody notices, and the next death loses data although "one may die"
//! held at each moment. So: node 3 misses a lot, comes back, and is given time; then node 1 dies, and the drive must
//! be whole from nodes 2 and 3.

mod common;

use std::time::{Duration, Instant};

use common::running::Running;
use common::{Place, eventually, fuse_is_usable, loud, run, sources, storage_node, text};

#[test]
fn a_node_that_was_down_catches_up_before_another_dies() {
    if !fuse_is_usable("catches_up") {
        return;
    }
    let place = Place::new("catches-up");
    let (home, drive, source) = (place.join("home"), place.join("drive"), place.join("source"));
    sources::gather(&source, 400);
    assert!(Running::up(&home, &drive, 3).stop().success());

    let node = |number: u16| {
        let node = home.join(format!("nodes/{number}"));
        Running::start(&["run", "--home", text(&node)], "listening on")
    };
    let (first, second, third) = (node(1), node(2), node(3));
    third.kill();
    let mount = Running::start(&["mount", "--home", text(&home), text(&drive)], "the drive is");
    run("cp", &["-a", text(&source), text(&drive.join("copy"))]);
    assert!(mount.stop().success());

    let blocks = || {
        let status = storage_node(&["status", "--json", "--home", text(&home)]);
        let status: serde_json::Value = serde_json::from_slice(&status.stdout).unwrap();
        [0, 1, 2].map(|index| status["nodes"][index]["blocks"].as_u64())
    };
    let down = storage_node(&["status", "--home", text(&home)]);
    assert!(String::from_utf8_lossy(&down.stdout).starts_with("degraded"), "{down:?}");
    let third = node(3);
    let started = Instant::now();
    eventually("node 3 has what the others have", Duration::from_secs(60), || {
        let [first, second, third] = blocks();
        third.is_some() && third >= first.max(second)
    });
    loud(&format!("catches_up: {:?} blocks after {:.1} s", blocks(), started.elapsed().as_secs_f32()));

    first.kill();
    let cache = place.join("empty-cache");
    let mount = Running::start(
        &["mount", "--home", text(&home), "--directory", text(&cache), text(&drive)],
        "the drive is",
    );
    run("diff", &["-r", "--no-dereference", text(&source), text(&drive.join("copy"))]);
    assert!(mount.stop().success());
    assert!(second.stop().success() && third.stop().success());
}
