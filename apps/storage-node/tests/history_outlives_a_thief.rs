//! Somebody has stolen a writer's key, and destroys what can be destroyed: all files, all snapshots, the list of readers, and with
//! the key of the home that made the network every block. The owner has every byte back.
//!
//! What went wrong: nodes kept the newest root and nothing of what it was, and deleted at once what they were told to.

mod common;

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use common::members::{id, printed};
use common::running::Running;
use common::{PROGRAM, Place, eventually, fuse_is_usable, run, storage_node, text, thief};
use serde_json::Value;

const SOON: Duration = Duration::from_secs(120);

fn content(number: u8) -> Vec<u8> {
    (0..300_000u32).map(|at| (at.wrapping_mul(0x9e37_79b9) >> 13) as u8 ^ number).collect()
}

fn write(path: &Path, number: u8) {
    let mut file = File::create(path).unwrap();
    file.write_all(&content(number)).unwrap();
    file.sync_all().unwrap();
}

/// What a command says, whether or not it succeeds.
fn said(home: &Path, arguments: &[&str]) -> String {
    let output = storage_node(&[arguments, &["--home", text(home)]].concat());
    [output.stdout, output.stderr].map(|said| String::from_utf8_lossy(&said).into_owned()).concat()
}

/// The last state that the home that made the network had stored before anybody else came.
fn last_good(home: &Path) -> String {
    let listed: Value = serde_json::from_str(&printed(home, &["past", "--json"])).unwrap();
    let is_ours = |state: &&Value| state["writer"] == "the drive's owner";
    assert!(!is_ours(&&listed["newest"]), "it is the thief's: {listed}");
    let states = listed["past"].as_array().unwrap();
    let good = states.iter().take_while(is_ours).last().unwrap_or_else(|| panic!("{listed}"));
    good["id"].as_str().unwrap().to_owned()
}

fn check(drive: &Path, what: &str) {
    for number in 0..8 {
        let read = fs::read(drive.join(format!("file {number}")));
        assert!(read.is_ok_and(|read| read == content(number)), "{what}: file {number}");
    }
    let past = drive.join(".snapshots/before/removed since");
    assert!(fs::read(past).is_ok_and(|read| read == content(99)), "{what}: the snapshot");
}

#[test]
fn the_owner_has_every_byte_back_from_a_thief_of_a_writers_key() {
    if !fuse_is_usable("the_owner_has_every_byte_back_from_a_thief_of_a_writers_key") {
        return;
    }
    let place = Place::new("thief");
    let (home, drive, bob) = (place.join("home"), place.join("drive"), place.join("bob"));
    let up = Running::up(&home, &drive, 3);
    let ticket = run(PROGRAM, &["invite", "--home", text(&home)]).trim().to_owned();
    run(PROGRAM, &["join", "--home", text(&bob), &ticket]);
    assert!(printed(&home, &["retention"]).contains("3 nodes keep what is deleted for 7d at least"));
    write(&drive.join("removed since"), 99);
    assert!(printed(&home, &["snapshot", "before"]).contains("before"));
    fs::remove_file(drive.join("removed since")).unwrap();
    (0..8).for_each(|number| write(&drive.join(format!("file {number}")), number));

    thief::destroy_as_a_writer(&home, &bob, 30);
    // The drive that is mounted shows nothing any more if it saw a root before the last one, which is sealed to the thief: else what
    // it had.
    // Blocks that were put a moment ago no word covers.
    std::thread::sleep(Duration::from_secs(11));
    thief::delete_as_the_drives_owner(&home);

    let removed = said(&home, &["remove", &id(&bob)]);
    assert!(removed.contains("refuse it from now on"), "{removed}");
    let good = last_good(&home);
    let back = printed(&home, &["rollback", "--to", &good]);
    assert!(back.contains("the drive is what it was "), "{back}");
    eventually("the drive that was mounted all the time has it", SOON, || {
        fs::read(drive.join("file 7")).is_ok_and(|read| read == content(7))
    });
    check(&drive, "the mounted drive");
    // It is the drive as any other from here on, for who writes and for who collects garbage.
    write(&drive.join("later"), 100);
    let collected = printed(&home, &["gc", "--grace", "0s"]);
    assert!(collected.contains("the retention is 7d"), "{collected}");
    // A longer retention holds at once, a shorter one when what was promised is over.
    let longer = printed(&home, &["retention", "14d"]);
    assert!(longer.contains("3 nodes keep what is deleted for 14d at least"), "{longer}");
    let shorter = printed(&home, &["retention", "0s"]);
    assert!(shorter.contains("3 nodes keep what is deleted for 14d at least"), "{shorter}");
    assert!(shorter.contains("(UTC) on it is 0s"), "{shorter}");
    assert!(up.stop().success());
    let (up, cache) = (Running::up(&home, &drive, 3), place.join("cache"));
    let (fresh, options) = (place.join("fresh"), ["mount", "--home", text(&home), "--directory"]);
    let mount = Running::start(&[&options[..], &[text(&cache), text(&fresh)]].concat(), "the drive is");
    check(&fresh, "a new mount");
    assert!(fs::read(fresh.join("later")).unwrap() == content(100));
    assert!(mount.stop().success());
    assert!(up.stop().success());
}
