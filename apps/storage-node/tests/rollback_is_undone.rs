//! `rollback` to a moment at which the drive was what it is now changes nothing; and what one takes the place of, another brings
//! back, for however short a time the drive was that.
//!
//! What went wrong: states that lasted for less than a thousandth of the retention were forgotten, and what the drive is now was
//! not looked at. `rollback --to 3s` took files away that had been stored with `fsync` eight seconds before, for good. And from then on
//! `gc` waited for the mounts that were up in the state that was gone back to, though these had ended in order.

mod common;

use std::fs::{self, File};
use std::path::Path;
use std::time::Duration;

use common::members::printed;
use common::running::Running;
use common::{Place, eventually, fuse_is_usable, storage_node, text};
use serde_json::Value;

const SOON: Duration = Duration::from_secs(120);

/// A thousandth of it is two seconds.
const RETENTION: &str = "20m";

fn write(drive: &Path, name: &str) {
    let path = drive.join(name);
    fs::write(&path, name).unwrap();
    File::open(&path).unwrap().sync_all().unwrap();
}

fn is_there(drive: &Path, name: &str) -> bool {
    fs::read(drive.join(name)).is_ok_and(|content| content == name.as_bytes())
}

fn past(home: &Path) -> Value {
    serde_json::from_str(&printed(home, &["past", "--json"])).unwrap()
}

#[test]
fn what_a_rollback_takes_the_place_of_another_one_brings_back() {
    if !fuse_is_usable("what_a_rollback_takes_the_place_of_another_one_brings_back") {
        return;
    }
    let place = Place::new("rollback_is_undone");
    let (home, drive) = (place.join("home"), place.join("drive"));
    let up = Running::start(
        &["up", "--nodes", "1", "--retention", RETENTION, "--home", text(&home), text(&drive)],
        "the drive is",
    );
    write(&drive, "first");
    // The state that has it is the last of its slot, and kept, if another one comes in a later slot: sooner or later one does.
    let mut number = 0;
    let mut first = String::new();
    eventually("a state with the first file alone is kept", SOON, || {
        first = past(&home)["newest"]["id"].as_str().unwrap().to_owned();
        std::thread::sleep(Duration::from_secs(3));
        number += 1;
        write(&drive, &format!("later {number}"));
        past(&home)["past"].as_array().unwrap().iter().any(|state| state["id"] == *first)
    });
    let last = format!("later {number}");

    let refused = storage_node(&["rollback", "--home", text(&home), "--to", "0s"]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains("nothing is to be done"), "{said}");
    assert!(is_there(&drive, &last));

    // What was fsynced a moment ago, and nobody keeps for the retention.
    write(&drive, "precious");
    let back = printed(&home, &["rollback", "--to", &first]);
    assert!(back.contains("the drive is what it was "), "{back}");
    eventually("the drive is what it was", SOON, || is_there(&drive, "first") && !is_there(&drive, &last));
    assert!(!is_there(&drive, "precious"));
    let id = back.split("what it was until now is ").nth(1).and_then(|rest| rest.split(':').next());
    let id = id.unwrap_or_else(|| panic!("{back}"));
    let listed = past(&home);
    assert!(listed["replaced"].as_array().unwrap().iter().any(|state| state["id"] == *id), "{listed}");
    let undone = printed(&home, &["rollback", "--to", id]);
    assert!(undone.contains("the drive is what it was"), "{undone}");
    for name in ["first", &last, "precious"] {
        eventually("all of it is there again", SOON, || is_there(&drive, name));
    }
    assert!(up.stop().success());

    // By what the drive was then its mount is there; since then that has ended, in order and with everything stored.
    let again = || Running::start(&["up", "--home", text(&home), text(&drive)], "the drive is");
    let up = again();
    printed(&home, &["rollback", "--to", &first]);
    eventually("the drive is what it was", SOON, || is_there(&drive, "first") && !is_there(&drive, &last));
    assert!(up.stop().success());
    let up = again();
    printed(&home, &["gc"]);
    assert!(is_there(&drive, "first"));
    assert!(up.stop().success());
}
