//! Whoever reads what a command prints may have enough of it: `storage-node status | head -1`.
//!
//! What went wrong: "error: standard output: broken pipe", and exit status 1, for a network that was healthy.

mod common;

use std::fs;
use std::process::{Command, Stdio};

use common::running::Running;
use common::{PROGRAM, Place, fuse_is_usable, storage_node, text};

/// Runs it with a standard output that nobody reads any more; its exit status, and what it said on standard error.
fn unread(arguments: &[&str]) -> (Option<i32>, String) {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = Command::new(PROGRAM)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(writer)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
        .wait_with_output()
        .unwrap();
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn a_reader_that_has_enough_is_no_error_and_hears_no_complaint() {
    if !fuse_is_usable("a_reader_that_has_enough_is_no_error_and_hears_no_complaint") {
        return;
    }
    let place = Place::new("readers");
    let (home, drive) = (place.join("home"), place.join("drive"));
    let up = Running::up(&home, &drive, 1);
    fs::write(drive.join("large"), vec![7; 300_000]).unwrap();
    let home = text(&home);
    assert!(storage_node(&["snapshot", "first", "--home", home]).status.success());
    let verbs: [&[&str]; 13] = [
        &["--help"],
        &["status"],
        &["status", "--json"],
        &["members"],
        &["members", "--json"],
        &["node", "list"],
        &["snapshots"],
        &["history", "large"],
        &["diff", "first", "now"],
        &["past"],
        &["retention"],
        &["journal"],
        &["pins"],
    ];
    for verb in verbs {
        let place: &[&str] = if verb == ["--help"] { &[] } else { &["--home", home] };
        let arguments = [verb, place].concat();
        let read = storage_node(&arguments);
        let said = String::from_utf8_lossy(&read.stderr).into_owned();
        assert_eq!(unread(&arguments), (read.status.code(), said), "{verb:?}");
    }
    // Of a value not all was written: as a shell tells of a program that SIGPIPE ends.
    assert_eq!(unread(&["get", "large", "--home", home]), (Some(141), String::new()));
    assert!(up.stop().success());
}
