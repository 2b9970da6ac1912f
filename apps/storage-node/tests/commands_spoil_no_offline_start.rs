//! A command may see, or make, a newer state of the drive than the mount beside it has fetched: a start without nodes begins with what is
//! here, and says so.
//!
//! What went wrong: a command of the same home left the newest root in the cache, and nothing of its tree, which the mount fetches a
//! moment later. If the line was cut in that moment, nothing could be mounted, with all that is pinned lying there.

mod common;

use std::fs;
use std::time::Duration;

use common::running::{Running, kill_hard, signal};
use common::{Place, detach, eventually, fuse_is_usable, storage_node, text};
use rustix::process::Signal;

const SOON: Duration = Duration::from_secs(120);

#[test]
fn what_is_pinned_is_there_though_a_command_has_seen_more_than_the_mount_has_fetched() {
    if !fuse_is_usable("what_is_pinned_is_there_though_a_command_has_seen_more_than_the_mount_has_fetched") {
        return;
    }
    let place = Place::new("spoiled");
    let (home, drive) = (place.join("home"), place.join("drive"));
    let up = Running::up(&home, &drive, 1);
    fs::create_dir(drive.join("album")).unwrap();
    for number in 0..20 {
        fs::write(drive.join(format!("album/{number}")), vec![number; 50_000]).unwrap();
    }
    assert!(up.stop().success());
    let node = Running::start(&["run", "--home", text(&home.join("nodes/1"))], "listening on");
    let mount = || Running::start(&["mount", "--home", text(&home), text(&drive)], "the drive is");
    let said = |arguments: &[&str]| {
        let output = storage_node(&[arguments, &["--home", text(&home)]].concat());
        (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let mounted = mount();
    assert!(said(&["pin", "album"]).0);
    eventually("it is kept", SOON, || {
        let pins: serde_json::Value = serde_json::from_str(&said(&["pins", "--json"]).1).unwrap();
        pins["pins"][0]["is_complete"] == true
    });
    // The mount fetches nothing more; the command needs it for nothing.
    signal(mounted.pid(), Signal::STOP);
    let source = place.join("source");
    fs::write(&source, "of a command").unwrap();
    assert!(said(&["put", "new", text(&source)]).0);
    node.kill();
    kill_hard(mounted.pid());
    drop(mounted);
    detach(&drive);

    let mut mounted = mount();
    assert!(fs::read(drive.join("album/7")).unwrap() == [7; 50_000]);
    assert!(mounted.drain().contains("it is opened as it was before"));
    fs::write(drive.join("album/here"), "without nodes").unwrap();
    let node = Running::start(&["run", "--home", text(&home.join("nodes/1"))], "listening on");
    eventually("it is as new as the nodes have it", SOON, || {
        fs::read(drive.join("new")).is_ok_and(|content| content == b"of a command")
    });
    assert!(mounted.stop().success());
    let mounted = mount();
    assert_eq!(fs::read(drive.join("album/here")).unwrap(), b"without nodes");
    assert!(fs::read(drive.join("album/7")).unwrap() == [7; 50_000]);
    assert!(mounted.stop().success() && node.stop().success());
}
