//! A copy of a home serves where the node never said that it was; or the original comes back while its copy serves. Whoever began
//! later stops, says so, and is not started again before the owner says so; who goes on says that there was another.
//!
//! What went wrong: only a copy was refused whose original answered where it had said that it was. The others went on, both, one node
//! to everybody else; `status` called it healthy, and what one of the two had stored the other had never heard of. Then the one that
//! had stopped was started again by what keeps services running, once the other could not be reached where it had said that it was.
//! And of a thief of a node's key who named nobody in what he signed, no `status` told.

mod common;

use std::fs::{self, File};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use common::running::{Running, signal};
use common::thief::speak_in_the_name_of;
use common::{PROGRAM, Place, ended_within, eventually, fuse_is_usable, run, storage_node, text};
use rustix::process::Signal;

const SOON: Duration = Duration::from_secs(120);

/// What a shell is told by who does not serve beside a copy.
const COPIED: i32 = 3;

fn status(home: &Path) -> (bool, String) {
    let output = storage_node(&["status", "--home", text(home)]);
    (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
}

fn up_at(home: &Path, drive: &Path, address: &str) -> Running {
    Running::start(&["up", "--listen", address, "--home", text(home), text(drive)], "the drive is")
}

fn ends_beside_a_copy(mut process: Running) {
    let ended = process.wait(SOON).and_then(|status| status.code());
    let said = process.drain();
    assert_eq!(ended, Some(COPIED), "{said}");
    assert!(said.contains("another process serves with this node's key") && said.contains("try: "), "{said}");
    assert!(!said.contains("everything is stored") && !said.contains("starting it again"), "{said}");
}

#[test]
fn of_a_home_and_its_copy_that_never_met_the_later_one_stops() {
    if !fuse_is_usable("of_a_home_and_its_copy_that_never_met_the_later_one_stops") {
        return;
    }
    let place = Place::new("copies_are_found");
    let (home, drive) = (place.join("home"), place.join("drive"));
    let (copy, other) = (place.join("copy"), place.join("other"));
    // A node that is nobody's copy: by it the two hear of each other.
    let up = Running::up(&home, &drive, 3);
    let ticket = run(PROGRAM, &["invite", "--role", "node", "--home", text(&home)]).trim().to_owned();
    let member = place.join("member");
    let joined = Running::start(&["join", "--home", text(&member), &ticket], "listening on");
    eventually("four nodes", SOON, || status(&home).1.contains("4 of 4 nodes"));
    assert!(up.stop().success());
    run("cp", &["-a", text(&home), text(&copy)]);

    // The copy is begun first: the original comes back.
    let elder = up_at(&copy, &other, "127.0.0.2");
    fs::write(other.join("stored"), "with the copy").unwrap();
    File::open(other.join("stored")).unwrap().sync_all().unwrap();
    let back = ["up", "--home", text(&home), text(&drive)];
    let output = ended_within(SOON, Command::new(PROGRAM).args(back));
    let said =
        [output.stdout, output.stderr].map(|said| String::from_utf8_lossy(&said).into_owned()).concat();
    assert_eq!(output.status.code(), Some(COPIED), "{said}");
    assert!(said.contains("another process serves with this node's key") && said.contains("try: "), "{said}");
    assert!(!said.contains("everything is stored"), "{said}");
    // Who goes on says that there was another, and has what was stored.
    eventually("the copy says so", SOON, || status(&copy).1.contains("a copy of its home served beside it"));
    let (is_healthy, told) = status(&copy);
    assert!(!is_healthy && told.contains("degraded: every node answers, and a copy"), "{told}");
    assert_eq!(fs::read_to_string(other.join("stored")).unwrap(), "with the copy");
    fs::write(other.join("more"), "of it").unwrap();
    File::open(other.join("more")).unwrap().sync_all().unwrap();
    // It knows by now where that is.
    let second = home.join("nodes/2");
    let output = ended_within(SOON, Command::new(PROGRAM).args(["run", "--home", text(&second)]));
    assert_eq!(output.status.code(), Some(COPIED), "{}", String::from_utf8_lossy(&output.stderr));

    // One node of a copy, where the node was before it moved.
    let moved = place.join("moved");
    run("cp", &["-a", text(&home.join("nodes/3")), text(&moved)]);
    let _ = fs::remove_file(moved.join("record"));
    ends_beside_a_copy(Running::start(&["run", "--home", text(&moved)], "listening on"));
    assert!(elder.stop().success());

    // It does not start by itself where nobody is seen, either.
    for _ in 0..2 {
        let output = ended_within(SOON, Command::new(PROGRAM).args(["run", "--home", text(&moved)]));
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(COPIED), "{said}");
        assert!(said.contains("stopped for it") && said.contains("--accept-copy"), "{said}");
    }
    // `up` goes on with its other nodes where one does not start for that.
    let third = copy.join("nodes/3/record");
    let own = fs::read(&third).unwrap();
    fs::copy(moved.join("record"), &third).unwrap();
    let mut elder = up_at(&copy, &other, "127.0.0.2");
    assert_eq!(fs::read_to_string(other.join("more")).unwrap(), "of it");
    fs::write(other.join("without"), "the third").unwrap();
    File::open(other.join("without")).unwrap().sync_all().unwrap();
    signal(elder.pid(), Signal::TERM);
    assert!(elder.wait(SOON).is_some_and(|status| status.success()));
    let said = elder.drain();
    assert!(said.contains("stopped for it") && said.contains("going on without it"), "{said}");
    fs::write(&third, own).unwrap();
    // The owner says so.
    let accepted = Running::start(&["run", "--accept-copy", "--home", text(&moved)], "listening on");
    assert!(accepted.stop().success());
    assert!(joined.stop().success());
}

#[test]
fn that_somebody_else_signs_with_a_nodes_key_status_tells() {
    if !fuse_is_usable("that_somebody_else_signs_with_a_nodes_key_status_tells") {
        return;
    }
    let place = Place::new("copies_are_found");
    let (home, drive) = (place.join("home"), place.join("drive"));
    let up = Running::up(&home, &drive, 3);
    eventually("three nodes", SOON, || status(&home).1.contains("3 of 3 nodes"));
    let second = home.join("nodes/2");
    speak_in_the_name_of(&home, &second, 1);
    assert!(!status(&home).1.contains("signs with"), "what was said once may have been forgotten");
    speak_in_the_name_of(&home, &second, 2);
    let (is_healthy, told) = status(&home);
    assert!(!is_healthy && told.contains("somebody signs with this node's key"), "{told}");
    assert!(
        told.contains("degraded: every node answers, and somebody else signs with the key of one"),
        "{told}"
    );
    // It goes on, and its owner lets another one take its place.
    fs::write(drive.join("stored"), "with it").unwrap();
    File::open(drive.join("stored")).unwrap().sync_all().unwrap();
    // A start under the owner's word changes nothing of a node that runs.
    let output = storage_node(&["run", "--accept-copy", "--home", text(&second)]);
    assert!(!output.status.success(), "it runs already");
    let kept = fs::read(second.join("record")).unwrap();
    assert_eq!(kept.last(), Some(&0xc2), "the next start is under nobody's word");
    assert!(up.stop().success());
}
