//! What a user sees at the command line: help that teaches, and errors that say what to do next.
//!
//! Every error here is one that somebody will meet in the first hour. Each must name the cause in its first line, say
//! the next step in its second, exit with 1, and leave nothing behind.

mod common;

use std::fs;
use std::net::TcpListener;
use std::process::Output;

use common::running::Running;
use common::{Place, fuse_is_usable, is_mounted, storage_node, text};

fn printed(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// The command must fail, naming the cause and the next step.
fn refused(arguments: &[&str], cause: &str, next: &str) {
    let output = storage_node(arguments);
    let said = printed(&output);
    assert_eq!(output.status.code(), Some(1), "{arguments:?} said: {said}");
    assert!(said.contains(cause), "{arguments:?} does not name the cause {cause:?}: {said}");
    assert!(said.contains(next), "{arguments:?} does not say the next step {next:?}: {said}");
    assert!(!said.contains("panicked"), "{arguments:?} panicked: {said}");
}

#[test]
fn help_teaches_with_lines_to_copy() {
    let output = storage_node(&["--help"]);
    assert!(output.status.success());
    let said = printed(&output);
    for line in ["storage-node up --nodes 3 ./drive", "storage-node status", "back up all of it"] {
        assert!(said.contains(line), "{said}");
    }
    for command in ["up", "run", "mount", "umount", "status", "netcheck", "put", "get"] {
        let output = storage_node(&[command, "--help"]);
        assert!(output.status.success());
        assert!(printed(&output).contains("Example"), "{command} shows no example");
    }
    assert_eq!(storage_node(&[]).status.code(), Some(2));
    assert_eq!(storage_node(&["frobnicate"]).status.code(), Some(2));
    assert!(storage_node(&["--version"]).status.success());
}

#[test]
fn a_directory_that_is_no_home_is_called_so_and_left_alone() {
    let place = Place::new("no-home");
    let (home, drive) = (place.join("home"), place.join("drive"));
    let home_text = text(&home);
    refused(&["status", "--home", home_text], "is not a hypha home", "storage-node up");
    refused(&["mount", "--home", home_text, text(&drive)], "is not a hypha home", "storage-node up");
    refused(&["put", "x", "--home", home_text], "is not a hypha home", "storage-node join - ./drive");
    refused(&["run", "--home", home_text], "is the home of no node", "`join - --home DIR` here");
    fs::create_dir(&home).unwrap();
    fs::write(home.join("thesis.tex"), "years of work").unwrap();
    if fuse_is_usable("a_directory_that_is_no_home_is_called_so_and_left_alone: up") {
        refused(&["up", "--home", home_text, text(&drive)], "is not empty", "new directory");
    }
    assert_eq!(fs::read_to_string(home.join("thesis.tex")).unwrap(), "years of work");
}

#[test]
fn a_mountpoint_that_would_hide_files_is_refused() {
    if !fuse_is_usable("a_mountpoint_that_would_hide_files_is_refused") {
        return;
    }
    let place = Place::new("mountpoint");
    let (home, drive) = (place.join("home"), place.join("drive"));
    fs::create_dir(&drive).unwrap();
    fs::write(drive.join("file"), "").unwrap();
    refused(&["up", "--home", text(&home), text(&drive)], "not empty", "give an empty directory");
    refused(
        &["up", "--home", text(&home), text(&drive.join("file"))],
        "not a directory",
        "give an empty directory",
    );
    refused(&["umount", text(&drive)], "no hypha drive is mounted", "findmnt");
    let inside = place.join("drive2/home");
    refused(
        &["up", "--home", text(&inside), text(&place.join("drive2"))],
        "cannot become the drive",
        "empty",
    );
}

#[test]
fn damaged_newer_and_readable_keys_are_refused_with_the_reason() {
    use std::os::unix::fs::PermissionsExt;
    let place = Place::new("keys");
    let node = place.join("node");
    fs::create_dir(&node).unwrap();
    let run = ["run", "--home", text(&node)];
    fs::write(
        node.join("node.json"),
        r#"{"kind":"hypha node","version":99,"number":1,"listen":"127.0.0.1:0"}"#,
    )
    .unwrap();
    fs::write(node.join("network.json"), "{ half a fi").unwrap();
    refused(&run, "damaged", "backup");
    let network = format!(
        r#"{{"kind":"hypha network","version":2,"owner":"{0}","replicas":1,"volume_owner":"{0}","volume_salt":"{0}","volume":{{"state":"unfounded"}},"nodes":[]}}"#,
        "00".repeat(32)
    );
    fs::write(node.join("network.json"), network).unwrap();
    refused(&run, "has format 99", "newer storage-node");
    fs::write(
        node.join("node.json"),
        r#"{"kind":"hypha node","version":2,"number":1,"listen":"127.0.0.1:0","has_forgotten":false}"#,
    )
    .unwrap();
    fs::write(node.join("node.key"), "x").unwrap();
    refused(&run, "damaged", "backup");
    fs::write(node.join("node.key"), r#"{"kind":"hypha key","version":1,"role":"node","seed":"00"}"#)
        .unwrap();
    fs::set_permissions(node.join("node.key"), fs::Permissions::from_mode(0o644)).unwrap();
    refused(&run, "others can read the key file", "chmod 600");
}

#[test]
fn a_running_home_refuses_a_second_start_and_another_number_of_nodes() {
    if !fuse_is_usable("a_running_home_refuses_a_second_start_and_another_number_of_nodes") {
        return;
    }
    let place = Place::new("second-start");
    let (home, drive) = (place.join("home"), place.join("drive"));
    let up = Running::up(&home, &drive, 1);
    refused(
        &["up", "--home", text(&home), text(&place.join("other"))],
        "is in use by process",
        "running already",
    );
    refused(&["run", "--home", text(&home.join("nodes/1"))], "is in use by process", "running already");
    refused(&["run", "--home", text(&home)], "home of a network", "nodes/1");
    let other = place.join("other-home");
    refused(&["up", "--home", text(&other), text(&drive)], "is mounted already", "umount");
    assert!(up.stop().success());
    assert!(!is_mounted(&drive));
    refused(
        &["up", "--nodes", "3", "--home", text(&home), text(&drive)],
        "was made with 1 node, not 3",
        "--nodes 1",
    );
    let squatter = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = squatter.local_addr().unwrap().to_string();
    let node = home.join("nodes/1");
    refused(&["run", "--home", text(&node), "--listen", &taken], "cannot listen on", "another --listen");
    refused(&["put", "x", "--home", text(&home)], "no storage node answers", "storage-node up");
}
