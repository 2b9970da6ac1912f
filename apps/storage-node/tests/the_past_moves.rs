//! Whoever moves house node by node keeps the way back: what the drive was within the retention moves with those that keep its root.
//!
//! What went wrong: it stayed on the nodes that had kept the root then. Each was drained, found to be needed no more, and switched off;
//! and with the last of them `past` had nothing to show from before; nor would it have helped, as the blocks of then that were deleted
//! since were gone as well. Nor did nodes that joined keep for as long as the others had
//! promised: a shorter retention, which holds once the longer one is over, held on them at once.

mod common;

use std::fs::{self, File};
use std::path::Path;
use std::time::Duration;

use common::members::printed;
use common::running::Running;
use common::{PROGRAM, Place, eventually, fuse_is_usable, garbage, run, storage_node, text};
use serde_json::Value;

/// A loaded machine may take its time.
const SOON: Duration = Duration::from_secs(120);

fn write(drive: &Path, name: &str) {
    let path = drive.join(name);
    fs::write(&path, name).unwrap();
    File::open(&path).unwrap().sync_all().unwrap();
}

/// The states that the drive was in and three nodes keep, the oldest first.
fn states(home: &Path) -> Vec<String> {
    let past: Value = serde_json::from_str(&printed(home, &["past", "--json"])).unwrap();
    let states = past["past"].as_array().unwrap().iter();
    let states = states.filter(|state| state["nodes"].as_u64().unwrap() >= 3);
    states.map(|state| state["id"].as_str().unwrap().to_owned()).collect()
}

fn are_kept(home: &Path, before: &[String]) {
    let now = states(home);
    assert!(before.iter().all(|state| now.contains(state)), "{now:?} of {before:?}");
}

fn said(home: &Path, arguments: &[&str]) -> String {
    let output = storage_node(&[arguments, &["--home", text(home)]].concat());
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{arguments:?}: {said}");
    said
}

#[test]
fn what_the_drive_was_is_there_after_each_node_was_replaced_by_another() {
    if !fuse_is_usable("the_past_moves") {
        return;
    }
    let place = Place::new("the_past_moves");
    let (home, drive) = (place.join("home"), place.join("drive"));
    let up = Running::start(
        &["up", "--nodes", "3", "--retention", "20m", "--home", text(&home), text(&drive)],
        "the drive is",
    );
    // A slot has two seconds, so each of these is kept as soon as the next one comes in a later one.
    garbage::write(drive.join("precious"), 1);
    let mut number = 0;
    eventually("some states are kept by three nodes", SOON, || {
        std::thread::sleep(Duration::from_secs(3));
        number += 1;
        write(&drive, &format!("later {number}"));
        states(&home).len() >= 3
    });
    let good = states(&home).pop().unwrap();
    fs::remove_file(drive.join("precious")).unwrap();
    std::thread::sleep(Duration::from_secs(3));
    write(&drive, "last");
    // Its blocks are deleted, and kept.
    eventually("the file is deleted, and kept yet", SOON, || {
        let (is_done, said) = garbage::gc(&home, &[]);
        assert!(is_done, "{said}");
        printed(&home, &["retention"]).contains("MiB yet")
    });
    let before = states(&home);
    printed(&home, &["retention", "10m"]);

    let ticket =
        run(PROGRAM, &["invite", "--role", "node", "--uses", "3", "--home", text(&home)]).trim().to_owned();
    let join = |number: usize| {
        let member = place.join(&format!("node{number}"));
        Running::start(&["join", "--home", text(&member), &ticket], "listening on")
    };
    let mut joined: Vec<Running> = (4..=6).map(join).collect();
    eventually("six nodes", SOON, || {
        let status = storage_node(&["status", "--home", text(&home)]);
        String::from_utf8_lossy(&status.stdout).contains("6 of 6 nodes")
    });
    // The shorter retention comes when the longer one is over, for them as well.
    eventually("all keep it for as long", SOON, || {
        let said = printed(&home, &["retention"]);
        println!("{said}");
        said.contains("6 nodes keep what is deleted for 20m at least")
    });

    for number in ["2", "3"] {
        let told = said(&home, &["node", "remove", number]);
        assert!(told.contains("they keep as well") && told.contains("counts no more"), "{told}");
        are_kept(&home, &before);
    }
    let told = said(&home, &["node", "replace", "1"]);
    assert!(told.contains("they keep as well"), "{told}");
    assert!(up.stop().success());
    let told = said(&home, &["node", "remove", "1"]);
    assert!(told.contains("counts no more"), "{told}");
    fs::remove_dir_all(home.join("nodes")).unwrap();

    are_kept(&home, &before);
    let mount = Running::start(&["mount", "--home", text(&home), text(&drive)], "the drive is");
    assert!(!drive.join("precious").exists());
    let back = printed(&home, &["rollback", "--to", &good]);
    assert!(back.contains("the drive is what it was"), "{back}");
    eventually("what was removed is there again", SOON, || {
        fs::read(drive.join("precious")).is_ok_and(|content| content == garbage::content(1))
    });
    assert!(mount.stop().success());
    for node in joined.drain(..) {
        assert!(node.stop().success());
    }
}
