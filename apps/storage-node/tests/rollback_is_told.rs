//! All nodes are restored from yesterday's copy of their stores, each of them in order by itself.
//!
//! What went wrong: the drive came up as it was yesterday, without a word, and the next commit made that final. Now a
//! client keeps what it has seen; an older state is refused and told, and taken only if it is asked to.

mod common;

use std::fs;
use std::path::Path;

use common::running::Running;
use common::{Place, fuse_is_usable, run, storage_node, text};

fn copy_stores(from: &Path, to: &Path) {
    for number in 1..=3 {
        let (from, to) = (from.join(format!("nodes/{number}")), to.join(format!("nodes/{number}")));
        fs::create_dir_all(&to).unwrap();
        let _ = fs::remove_dir_all(to.join("store"));
        run("cp", &["-a", text(&from.join("store")), text(&to)]);
    }
}

fn refused(arguments: &[&str]) {
    let output = storage_node(arguments);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{arguments:?}: {said}");
    assert!(said.contains("this machine has seen version"), "{arguments:?} said:\n{said}");
    assert!(said.contains("--accept-rollback"), "{arguments:?} said:\n{said}");
}

#[test]
fn stores_restored_from_yesterday_are_refused_until_that_is_accepted() {
    if !fuse_is_usable("rollback_is_told") {
        return;
    }
    let place = Place::new("rollback");
    let (home, drive, yesterday) = (place.join("home"), place.join("drive"), place.join("yesterday"));
    let up = Running::up(&home, &drive, 3);
    fs::write(drive.join("monday"), "kept").unwrap();
    assert!(up.stop().success());
    copy_stores(&home, &yesterday);
    let up = Running::up(&home, &drive, 3);
    fs::write(drive.join("tuesday"), "newer").unwrap();
    assert!(up.stop().success());
    let today = place.join("today");
    copy_stores(&home, &today);

    copy_stores(&yesterday, &home);
    let (home_text, drive_text) = (text(&home), text(&drive));
    refused(&["up", "--home", home_text, drive_text]);
    // Refusing has changed nothing: with the newer stores all is well.
    copy_stores(&today, &home);
    let up = Running::up(&home, &drive, 3);
    assert_eq!(fs::read_to_string(drive.join("tuesday")).unwrap(), "newer");
    assert!(up.stop().success());

    copy_stores(&yesterday, &home);
    let nodes: Vec<Running> = (1..=3)
        .map(|number| home.join(format!("nodes/{number}")))
        .map(|node| Running::start(&["run", "--home", text(&node)], "listening on"))
        .collect();
    refused(&["get", "monday", "--home", home_text]);
    refused(&["mount", "--home", home_text, drive_text]);
    nodes.into_iter().for_each(|node| assert!(node.stop().success()));

    // Lost for good: said out loud once, and normal from then on.
    let up = Running::start(&["up", "--accept-rollback", "--home", home_text, drive_text], "the drive is");
    assert_eq!(fs::read_to_string(drive.join("monday")).unwrap(), "kept");
    assert!(!drive.join("tuesday").exists());
    assert!(up.stop().success());
    let up = Running::up(&home, &drive, 3);
    assert_eq!(fs::read_to_string(drive.join("monday")).unwrap(), "kept");
    assert!(up.stop().success());
}
