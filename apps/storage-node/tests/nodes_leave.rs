//! Nodes leave a network for good: one is drained while the drive is written, another is found destroyed.
//!
//! What went wrong: a node could only be torn out, with blocks of which it might have had the only copies; and one that
//! the network was made with could not be struck off at all, so that `status` said "degraded" for ever after its death.

mod common;

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use common::running::Running;
use common::{Place, eventually, fuse_is_usable, storage_node, text};

/// What the program prints, and whether it succeeds.
fn says(home: &Path, arguments: &[&str]) -> (bool, String) {
    let output = storage_node(&[arguments, &["--home", text(home)]].concat());
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&said).into_owned())
}

fn done(home: &Path, arguments: &[&str]) -> String {
    let (is_done, said) = says(home, arguments);
    assert!(is_done, "{arguments:?}: {said}");
    said
}

/// Those that are left have compared what they have, too.
fn is_well_soon(home: &Path, nodes: &str) {
    eventually("all is well", Duration::from_secs(180), || {
        let (is_healthy, said) = says(home, &["status"]);
        is_healthy && said.contains("healthy") && said.contains(nodes)
    });
}

/// The numbers of the nodes that keep the root.
fn keepers(home: &Path) -> Vec<u16> {
    let list = done(home, &["node", "list"]);
    let keepers = list.lines().filter(|line| line.contains("keeps it"));
    keepers.map(|line| line.split_whitespace().next().unwrap().parse().unwrap()).collect()
}

fn content(number: usize) -> Vec<u8> {
    // The large ones are blocks of their own.
    format!("file {number}\n").repeat(if number.is_multiple_of(4) { 20_000 } else { 5 }).into_bytes()
}

/// Writes files until told to stop; returns how many are stored by the word of `fsync`.
fn write_files(drive: &Path, stop: &AtomicBool) -> usize {
    for number in 0.. {
        if stop.load(Ordering::Relaxed) {
            return number;
        }
        let mut file = File::create(drive.join(format!("f{number}"))).unwrap();
        file.write_all(&content(number)).unwrap();
        file.sync_all().unwrap();
    }
    unreachable!()
}

#[test]
fn nodes_are_drained_and_removed_under_a_drive_in_use_and_nothing_is_missing() {
    if !fuse_is_usable("nodes_leave") {
        return;
    }
    let place = Place::new("leave");
    let (home, drive) = (place.join("home"), place.join("drive"));
    let up = Running::up(&home, &drive, 5);
    fs::write(drive.join("thesis"), content(0)).unwrap();
    // A part of the drive that has a root, and blocks, of its own.
    done(&home, &["share", text(&drive.join("space"))]);
    fs::write(drive.join("space/thesis"), content(4)).unwrap();
    let (is_removed, said) = says(&home, &["node", "remove", "1"]);
    assert!(
        !is_removed && said.contains("runs in the process of `up`"),
        "the drive would go with it: {said}"
    );
    assert!(up.stop().success());
    let beginning = place.join("beginning.json");
    fs::copy(home.join("network.json"), &beginning).unwrap();
    let start = |number: u16| {
        let node = home.join(format!("nodes/{number}"));
        (number, Running::start(&["run", "--home", text(&node)], "listening on"))
    };
    let mut running: Vec<(u16, Running)> = (1..=5).map(start).collect();
    let mut destroy = |number: u16| {
        let index = running.iter().position(|(running, _)| *running == number).unwrap();
        running.remove(index).1.kill();
        fs::remove_dir_all(home.join(format!("nodes/{number}"))).unwrap();
    };

    // Drained, turned out, and destroyed, while files are written.
    let mount = Running::start(&["mount", "--home", text(&home), text(&drive)], "the drive is");
    let drained = keepers(&home)[0].to_string();
    let stop = AtomicBool::new(false);
    let count = thread::scope(|scope| {
        let writer = scope.spawn(|| write_files(&drive, &stop));
        let said = done(&home, &["node", "drain", &drained]);
        assert!(said.contains(&format!("node {drained} is drained")), "{said}");
        assert!(!keepers(&home).contains(&drained.parse().unwrap()));
        let said = done(&home, &["node", "remove", &drained]);
        assert!(said.contains("counts no more"), "{said}");
        destroy(drained.parse().unwrap());
        stop.store(true, Ordering::Relaxed);
        writer.join().unwrap()
    });
    is_well_soon(&home, "4 of 4 nodes");
    assert!(done(&home, &["node", "remove", &drained]).contains("counts no more"), "it can be said again");

    // Found destroyed: degraded, until it is struck off.
    let destroyed = keepers(&home)[0].to_string();
    destroy(destroyed.parse().unwrap());
    let (is_healthy, said) = says(&home, &["status"]);
    assert!(!is_healthy && said.contains("degraded"), "{said}");
    let (is_drained, said) = says(&home, &["node", "drain", &destroyed]);
    assert!(!is_drained && said.contains("does not answer"), "{said}");
    let said = done(&home, &["node", "remove", &destroyed]);
    assert!(said.contains("is lost with it") && said.contains("counts no more"), "{said}");
    is_well_soon(&home, "3 of 3 nodes");
    assert!(mount.stop().success());
    // Also for who was away all the time: it misses neither those that were removed, nor the root on them.
    let output = Command::new(common::PROGRAM)
        .args(["status", "--network", text(&beginning), "--key", text(&home.join("user.key"))])
        .env("XDG_DATA_HOME", place.join("elsewhere"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && said.contains("3 of 3 nodes"), "{said}");

    // Three copies take three nodes.
    let needed = keepers(&home)[0].to_string();
    for arguments in [&["node", "drain", &needed][..], &["node", "remove", &needed]] {
        let (is_done, said) = says(&home, arguments);
        assert!(!is_done && (said.contains("it takes 3") || said.contains("would be left")), "{said}");
    }

    // Whoever never saw the drive reads all of it from those that are left.
    for (_, node) in running {
        assert!(node.stop().success());
    }
    fs::remove_dir_all(home.join("client")).unwrap();
    let mut up = Running::start(&["up", "--home", text(&home), text(&drive)], "the drive is");
    let said = up.drain();
    assert!(said.contains("network of 3 nodes") && said.contains("any one node may die"), "{said}");
    assert_eq!(fs::read(drive.join("thesis")).unwrap(), content(0));
    assert_eq!(fs::read(drive.join("space/thesis")).unwrap(), content(4));
    for number in 0..count {
        assert_eq!(
            fs::read(drive.join(format!("f{number}"))).unwrap(),
            content(number),
            "f{number} of {count}"
        );
    }
    assert!(up.stop().success());
}
