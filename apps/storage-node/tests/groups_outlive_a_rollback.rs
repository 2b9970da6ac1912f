//! A space goes back to before somebody was taken out of a group, by a machine of the owner's that had not heard of that: he stays out.
//!
//! What went wrong: the list was made of the groups as that machine knew them, and whoever had been taken out came back, as a writer.

mod common;

use std::fs;
use std::path::Path;
use std::time::Duration;

use common::members::{id, join, printed};
use common::running::Running;
use common::{Place, eventually, fuse_is_usable, keys, text};
use serde_json::Value;

const SOON: Duration = Duration::from_secs(120);

/// What the owner's home needs to say who may do what, as a second machine of his has it.
fn copy_of(home: &Path, copy: &Path) {
    fs::create_dir_all(copy.join("members")).unwrap();
    for file in ["network.json", "owner.key", "user.key", "members/roll.json"] {
        fs::copy(home.join(file), copy.join(file)).unwrap();
    }
}

fn past(home: &Path) -> Value {
    serde_json::from_str(&printed(home, &["past", "docs", "--json"])).unwrap()
}

#[test]
fn who_was_taken_out_of_a_group_is_not_in_again_by_what_a_space_was_before() {
    if !fuse_is_usable("who_was_taken_out_of_a_group_is_not_in_again_by_what_a_space_was_before") {
        return;
    }
    let place = Place::new("groups-back");
    let (home, a) = (place.join("home"), place.join("a"));
    let (bobs, carols) = (place.join("bob"), place.join("carol"));
    let up = Running::start(
        &["up", "--nodes", "1", "--retention", "20m", "--home", text(&home), text(&a)],
        "the drive is",
    );
    for (member, drive) in [(&bobs, "b"), (&carols, "c")] {
        assert!(join(&home, member, &place.join(drive)).stop().success());
    }
    let (his, hers) = (id(&bobs), id(&carols));
    assert!(up.stop().success());
    // Nobody goes on with anything but the commands.
    let node = home.join("nodes/1");
    let running = Running::start(&["run", "--home", text(&node)], "listening on");
    printed(&home, &["group", "create", "family"]);
    printed(&home, &["group", "add", "family", &his, &hers]);
    printed(&home, &["share", "docs", "--write", "family"]);
    let second = place.join("second");
    copy_of(&home, &second);
    // A state with both is kept as the last of its slot.
    let with_both = past(&home)["newest"]["id"].as_str().unwrap().to_owned();
    std::thread::sleep(Duration::from_secs(3));
    printed(&home, &["group", "remove", "family", &hers]);
    eventually("it is kept", SOON, || {
        past(&home)["past"].as_array().unwrap().iter().any(|state| state["id"] == *with_both)
    });
    let kept = past(&home)["newest"]["id"].as_str().unwrap().to_owned();
    std::thread::sleep(Duration::from_secs(3));
    keys::seal_the_last_space(&home, &bobs, &[&keys::identity(&bobs.join("user.key"))], 0);
    eventually("the owner's last one is kept", SOON, || {
        past(&home)["past"].as_array().unwrap().iter().any(|state| state["id"] == *kept)
    });

    let said = printed(&second, &["rollback", "docs", "--to", &with_both]);
    let listed = printed(&second, &["access", "docs"]);
    assert!(!listed.contains(&hers), "{said}{listed}");
    assert!(keys::overwrite_the_last_space(&home, &carols, b"hers").is_err(), "{said}{listed}");
    assert!(
        listed.contains("by the group family") && listed.contains(&his),
        "the rest is as it was: {said}{listed}"
    );
    assert!(running.stop().success());
}
