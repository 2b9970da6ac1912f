//! The nodes' stores are put back from yesterday's copy under a mount that had stored more: they answer, and have less than they had
//! acknowledged.
//!
//! What went wrong: the log said so, and everything else said the opposite. `fsync` succeeded, `umount` ended with "everything in it is
//! stored" and 0, `status` called the network healthy; and the next start refused the drive.

mod common;

use std::fs::{self, File};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use common::running::Running;
use common::{PROGRAM, Place, ended_within, eventually, fuse_is_usable, run, storage_node, text};

/// Some patiences with nodes that take nothing, and a busy machine.
const LIMIT: Duration = Duration::from_secs(150);

fn nodes(home: &Path) -> Vec<Running> {
    let node = |number: u16| home.join(format!("nodes/{number}"));
    (1..=3).map(|number| Running::start(&["run", "--home", text(&node(number))], "listening on")).collect()
}

fn copy_stores(from: &Path, to: &Path) {
    for number in 1..=3 {
        let (from, to) = (from.join(format!("nodes/{number}/store")), to.join(format!("nodes/{number}")));
        fs::create_dir_all(&to).unwrap();
        let _ = fs::remove_dir_all(to.join("store"));
        run("cp", &["-a", text(&from), text(&to)]);
    }
}

fn stop(nodes: Vec<Running>) {
    nodes.into_iter().for_each(|node| assert!(node.stop().success()));
}

#[test]
fn nothing_is_called_stored_once_the_nodes_have_less_than_they_had_taken() {
    if !fuse_is_usable("nothing_is_called_stored_once_the_nodes_have_less_than_they_had_taken") {
        return;
    }
    let place = Place::new("undone");
    let (home, drive, yesterday) = (place.join("home"), place.join("drive"), place.join("yesterday"));
    assert!(Running::up(&home, &drive, 3).stop().success());
    copy_stores(&home, &yesterday);
    let running = nodes(&home);
    let mut mounted = Running::start(&["mount", "--home", text(&home), text(&drive)], "the drive is");
    let today = drive.join("today");
    fs::write(&today, "acknowledged").unwrap();
    File::open(&today).unwrap().sync_all().unwrap();

    stop(running);
    copy_stores(&yesterday, &home);
    let running = nodes(&home);
    eventually("a sync says that it is not there", LIMIT, || File::open(&today).unwrap().sync_all().is_err());
    // What was seen is written down within some seconds.
    eventually("status says so", LIMIT, || {
        let output = storage_node(&["status", "--home", text(&home)]);
        let status = String::from_utf8_lossy(&output.stdout).into_owned();
        !output.status.success() && status.contains("this machine has seen version")
    });

    let output = ended_within(LIMIT, Command::new(PROGRAM).args(["umount", text(&drive)]));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("not everything in it is stored: the nodes had taken version"), "{said}");
    assert!(said.contains("--accept-rollback"), "{said}");
    let ended = mounted.wait(LIMIT).expect("it ends with its drive");
    assert_eq!(ended.code(), Some(1), "{}", mounted.drain());
    stop(running);
}
