//! A drive has one set of groups, whatever becomes of its root: a rollback keeps where they are; and where a writer takes that away, and a
//! copy of the home that never heard of them makes others, no group of the one passes for one of the other, both homes are told, and one
//! command puts them together.
//!
//! What went wrong: ids counted from 0 in each register, so that whoever was in the one's first group was let into what the other's was
//! for; and a rollback of the drive lost where the groups are.

mod common;

use std::fs;
use std::path::Path;
use std::time::Duration;

use common::members::{id, join, printed, refusal};
use common::running::Running;
use common::{Place, eventually, fuse_is_usable, keys, text, thief};
use serde_json::Value;

const SOON: Duration = Duration::from_secs(120);

/// What the owner's home needs to say who may do what, as a second machine of his has it.
fn copy_of(home: &Path, copy: &Path) {
    fs::create_dir_all(copy.join("members")).unwrap();
    for file in ["network.json", "owner.key", "user.key", "members/roll.json"] {
        fs::copy(home.join(file), copy.join(file)).unwrap();
    }
}

#[test]
fn a_drive_has_one_set_of_groups_and_a_copy_of_the_home_that_made_others_is_told() {
    if !fuse_is_usable("a_drive_has_one_set_of_groups_and_a_copy_of_the_home_that_made_others_is_told") {
        return;
    }
    let place = Place::new("groups-one");
    let (home, a) = (place.join("home"), place.join("a"));
    let (bobs, carols) = (place.join("bob"), place.join("carol"));
    let up = Running::start(
        &["up", "--nodes", "1", "--retention", "20m", "--home", text(&home), text(&a)],
        "the drive is",
    );
    // Machines of the owner's that never heard of groups, and one of them of nobody either who is in one.
    let [second, third] = ["second", "third"].map(|name| place.join(name));
    printed(&home, &["invite"]);
    copy_of(&home, &third);
    for (member, drive) in [(&bobs, "b"), (&carols, "c")] {
        assert!(join(&home, member, &place.join(drive)).stop().success());
    }
    let (his, hers) = (id(&bobs), id(&carols));
    copy_of(&home, &second);

    // The drive goes back to before there was a group, and the groups stay.
    let states = || -> Value { serde_json::from_str(&printed(&home, &["past", "--json"])).unwrap() };
    fs::write(a.join("before"), "before").unwrap();
    let mut number = 0;
    let mut before = String::new();
    eventually("a state of before is kept", SOON, || {
        std::thread::sleep(Duration::from_secs(3));
        number += 1;
        fs::write(a.join("later"), number.to_string()).unwrap();
        let states = states();
        let last =
            states["past"].as_array().unwrap().first().map(|state| state["id"].as_str().unwrap().to_owned());
        last.map(|id| before = id).is_some()
    });
    printed(&home, &["group", "create", "family"]);
    printed(&home, &["group", "add", "family", &hers]);
    printed(&home, &["rollback", "--to", &before]);
    let listed = printed(&third, &["group", "list"]);
    assert!(listed.contains("family") && listed.contains(&hers), "{listed}");
    assert!(up.stop().success());

    // A writer takes away that the drive says where they are, and the second machine makes others.
    let node = home.join("nodes/1");
    let running = Running::start(&["run", "--home", text(&node)], "listening on");
    printed(&home, &["group", "add", "family", &his]);
    printed(&home, &["share", "docs", "--read", "family"]);
    thief::hide_the_groups(&home, &bobs);
    printed(&second, &["group", "create", "club"]);
    printed(&second, &["group", "add", "club", &his]);
    printed(&second, &["share", "notes", "--read", "club"]);
    // The first one is told, and lets nobody of its own group into what another one's is for.
    let said = refusal(&home, &["group", "create", "kids"]);
    assert!(said.contains("names other groups") && said.contains("group restore"), "{said}");
    // It takes out whom it is to all the same: that writer may be who is to go.
    let said = printed(&home, &["group", "remove", "family", &his]);
    assert!(said.contains("removed from family"), "{said}");
    assert!(!printed(&home, &["access", "docs"]).contains(&his));
    let said = refusal(&home, &["share", "notes"]);
    assert!(said.contains("has not heard of") && said.contains("club"), "{said}");
    let listed = printed(&second, &["access", "notes"]);
    assert!(listed.contains(&his) && !listed.contains(&hers), "{listed}");

    let said = printed(&home, &["group", "restore"]);
    assert!(
        said.contains("one again: family, club") && said.contains("club is of the other register"),
        "{said}"
    );
    // And were the nodes lost that had it, in a new register.
    let said = printed(&home, &["group", "restore", "--anew"]);
    assert!(said.contains("what this home knew of them last"), "{said}");
    for home in [&second, &third] {
        assert!(refusal(home, &["group", "create", "kids"]).contains("names other groups"));
        printed(home, &["group", "restore"]);
        let listed = printed(home, &["group", "list"]);
        assert!(listed.contains("family") && listed.contains("club") && listed.contains(&his), "{listed}");
    }
    // Whoever has never heard of a member says the same of his group, and takes him out as well.
    let before = printed(&home, &["access", "docs"]);
    printed(&third, &["share", "docs"]);
    assert_eq!(printed(&third, &["access", "docs"]), before);
    let fourth = place.join("fourth");
    copy_of(&third, &fourth);
    let said = printed(&third, &["group", "remove", "family", &hers]);
    assert!(said.contains("removed from family"), "{said}");
    assert!(!printed(&home, &["access", "docs"]).contains(&hers));
    // Were they lost by now, a home that knows her in the group still would make them anew by what lists say, not by what it knows of these.
    let roll = fourth.join("members/roll.json");
    let mut knows: Value = serde_json::from_slice(&fs::read(&roll).unwrap()).unwrap();
    knows["groups"]["version"] = 1_000_000.into();
    fs::write(&roll, serde_json::to_vec(&knows).unwrap()).unwrap();
    assert!(refusal(&fourth, &["group", "create", "kids"]).contains("group restore --anew"));
    let said = printed(&fourth, &["group", "restore", "--anew"]);
    assert!(said.contains("is not in family"), "{said}");
    printed(&fourth, &["share", "letters", "--read", "family"]);
    for space in ["docs", "letters"] {
        assert!(!printed(&fourth, &["access", space]).contains(&hers), "{space}");
    }
    printed(&home, &["group", "restore"]);
    printed(&home, &["share", "notes"]);
    // Nobody keeps himself in a group by sealing the drive's root.
    thief::seal_the_drive(&home, &bobs);
    let said = printed(&home, &["group", "remove", "club", &his]);
    assert!(said.contains("removed from club"), "{said}");
    assert_eq!(keys::that_open_the_last_space(&home, &[&keys::identity(&bobs.join("user.key"))]), []);
    assert!(running.stop().success());
}
