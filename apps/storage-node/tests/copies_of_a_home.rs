//! A copy of a home is started while the home is in use: no node of it serves beside the one that it is a copy of, and it is said
//! why.
//!
//! What went wrong: the copy's nodes found their ports taken, took others, and told everybody so. One key answered for two stores:
//! `status` called that healthy, and what was "stored" with one of the two the other had never heard of.

mod common;

use std::fs::{self, File};
use std::process::Command;
use std::time::Duration;

use common::running::Running;
use common::{PROGRAM, Place, ended_within, eventually, fuse_is_usable, run, storage_node, text};

const SOON: Duration = Duration::from_secs(120);

#[test]
fn a_home_and_its_copy_do_not_serve_at_the_same_time() {
    if !fuse_is_usable("a_home_and_its_copy_do_not_serve_at_the_same_time") {
        return;
    }
    let place = Place::new("copies_of_a_home");
    let (home, drive) = (place.join("home"), place.join("drive"));
    let (copy, other) = (place.join("copy"), place.join("other"));
    let store = |name: &str| {
        fs::write(drive.join(name), name).unwrap();
        File::open(drive.join(name)).unwrap().sync_all().unwrap();
    };
    let up = Running::up(&home, &drive, 3);
    store("before");
    assert!(up.stop().success());
    run("cp", &["-a", text(&home), text(&copy)]);
    let up = Running::up(&home, &drive, 3);

    let refused = |arguments: &[&str]| {
        let output = ended_within(SOON, Command::new(PROGRAM).args(arguments));
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            !output.status.success() && said.contains("another process serves with this node's key"),
            "{said}"
        );
        assert!(said.contains("try: "), "it says what to do: {said}");
    };
    refused(&["up", "--home", text(&copy), text(&other)]);
    refused(&["run", "--home", text(&copy.join("nodes/2"))]);
    refused(&["up", "--home", text(&copy), text(&other)]);

    store("after");
    eventually("all is well", SOON, || {
        let status = storage_node(&["status", "--home", text(&home)]);
        status.status.success() && String::from_utf8_lossy(&status.stdout).contains("healthy")
    });
    assert!(up.stop().success());
    let again = Running::up(&home, &drive, 3);
    for name in ["before", "after"] {
        assert_eq!(fs::read(drive.join(name)).unwrap(), name.as_bytes());
    }
    assert!(again.stop().success());
}
