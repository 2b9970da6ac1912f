//! A member wrecks the drive through his ordinary mount, seconds after the owner stored something and took a snapshot. Both are in a
//! state that the nodes keep, though he had been there all the time, and the list says which of the owner's states came before that.
//!
//! What went wrong: of each thousandth of the retention the last state was kept and the one before another writer's first. A mount
//! commits as it enters, so that had been his long before, and with the default retention up to ten minutes were gone.

mod common;

use std::fs::{self, File};
use std::path::Path;
use std::time::Duration;

use common::members::{id, join, printed};
use common::running::Running;
use common::{Place, eventually, fuse_is_usable, storage_node, text};
use serde_json::Value;

const SOON: Duration = Duration::from_secs(120);

fn write(path: &Path) {
    fs::write(path, "something").unwrap();
    File::open(path).unwrap().sync_all().unwrap();
}

/// The owner's states after which another one's is listed, the last first.
fn candidates(home: &Path) -> (Vec<String>, Value) {
    let listed: Value = serde_json::from_str(&printed(home, &["past", "--json"])).unwrap();
    let mut states: Vec<&Value> = listed["past"].as_array().unwrap().iter().collect();
    states.push(&listed["newest"]);
    let is_ours = |state: &Value| state["writer"] == "the drive's owner";
    let before = states.windows(2).filter(|pair| is_ours(pair[0]) && !is_ours(pair[1]));
    (before.rev().map(|pair| pair[0]["id"].as_str().unwrap().to_owned()).collect(), listed)
}

#[test]
fn what_the_owner_stored_seconds_before_a_member_wrecked_the_drive_is_had_back() {
    if !fuse_is_usable("the_last_before_an_attack") {
        return;
    }
    let place = Place::new("last_before");
    let (home, drive) = (place.join("home"), place.join("drive"));
    let (member, his) = (place.join("member"), place.join("his"));
    let up = Running::up(&home, &drive, 1);
    let mount = join(&home, &member, &his);
    // He is one of them, and works in the drive as they do.
    write(&his.join("his"));
    eventually("the owner sees what he wrote", SOON, || drive.join("his").exists());

    write(&drive.join("one"));
    printed(&home, &["snapshot", "before"]);
    eventually("he sees it", SOON, || his.join("one").exists() && his.join(".snapshots/before/one").exists());
    printed(&member, &["snapshot", "--delete", "before"]);
    for name in ["one", "his"] {
        fs::remove_file(his.join(name)).unwrap();
    }
    eventually("it is gone from the owner's drive", SOON, || !drive.join("one").exists());
    // He works on, as he did before, in a drive that has nothing of it any more.
    write(&drive.join("two"));
    write(&his.join("three"));

    printed(&home, &["remove", &id(&member)]);
    let (candidates, listed) = candidates(&home);
    println!("{}", printed(&home, &["past"]));
    let is_back = |state: &String| {
        printed(&home, &["rollback", "--to", state]);
        let has = storage_node(&["get", "one", "--home", text(&home)]);
        has.status.success()
            && has.stdout == b"something"
            && printed(&home, &["snapshots"]).contains("before")
    };
    assert!(candidates.iter().any(is_back), "{candidates:?} of {listed:#}");
    for path in ["one", ".snapshots/before/one"] {
        eventually("the drive that was mounted all the time has it", SOON, || {
            fs::read(drive.join(path)).is_ok_and(|read| read == b"something")
        });
    }
    let _his_end = mount.stop();
    assert!(up.stop().success());
}
