//! Members under one name: a space that is shared with a group is shared with whoever is in it, and a removal is one command.
//!
//! The homes here are one machine's each, as far as the program can tell.

mod common;

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use common::keys;
use common::members::{id, join, printed, refusal};
use common::running::Running;
use common::{PROGRAM, Place, eventually, fuse_is_usable, text};

/// Seconds are meant; a loaded machine may take longer.
const SOON: Duration = Duration::from_secs(60);

fn reads(path: &Path, content: &str) -> bool {
    fs::read_to_string(path).is_ok_and(|found| found == content)
}

#[test]
fn a_space_that_is_shared_with_a_group_is_shared_with_whoever_is_in_it() {
    if !fuse_is_usable("a_space_that_is_shared_with_a_group_is_shared_with_whoever_is_in_it") {
        return;
    }
    let place = Place::new("groups");
    let (home, a, b, c) = (place.join("home"), place.join("a"), place.join("b"), place.join("c"));
    let (bobs, carols) = (place.join("bob"), place.join("carol"));
    let up = Running::up(&home, &a, 1);
    let bob = join(&home, &bobs, &b);
    let carol = join(&home, &carols, &c);
    let (his, hers) = (id(&bobs), id(&carols));

    // A group is the owner's; it has no name that a member has, and a member none that it has.
    assert!(printed(&home, &["group", "list"]).contains("there is no group"));
    assert!(refusal(&home, &["group", "add", "family", &his]).contains("no group called"));
    let said = printed(&home, &["group", "create", "family"]);
    assert!(said.contains("family is a group"), "{said}");
    assert!(refusal(&home, &["group", "create", "family"]).contains("already"));
    assert!(refusal(&home, &["group", "create", "node-2"]).contains("can't be a group's name"));
    assert!(refusal(&bobs, &["group", "list"]).contains("only the home that made the network"));
    let ticket = printed(&home, &["invite"]).trim().to_owned();
    let daves = place.join("dave");
    let joined = printed(&daves, &["join", "--as", "family", &ticket]);
    assert!(joined.contains("called family-2"), "{joined}");
    assert!(refusal(&home, &["group", "create", "family-2"]).contains("a member is called"));

    // A space for it is one for both, to write; by a group in it as well.
    printed(&home, &["group", "create", "kids"]);
    printed(&home, &["group", "add", "kids", &hers]);
    let said = printed(&home, &["group", "add", "family", &his, "kids"]);
    assert!(said.contains("no space names family yet"), "{said}");
    assert!(refusal(&home, &["group", "add", "kids", "family"]).contains("in itself"));
    let photos = a.join("photos");
    let said = printed(&home, &["share", text(&photos), "--write", "family"]);
    assert!(said.contains(&his) && said.contains(&hers) && said.contains("by the group family"), "{said}");
    eventually("bob writes there", SOON, || fs::write(b.join("photos/of bob"), "a cat").is_ok());
    eventually("carol reads, and writes", SOON, || {
        reads(&c.join("photos/of bob"), "a cat") && fs::write(c.join("photos/of carol"), "a dog").is_ok()
    });
    let theirs = b.join("photos");
    let listed = printed(&bobs, &["access", text(&theirs)]);
    assert!(
        listed.contains("by the group family") && listed.contains("the group family: 2 of these"),
        "{listed}"
    );
    let listed = printed(&home, &["group", "list"]);
    for words in [&his[..], &hers, "the group kids", "on photos: reads and writes"] {
        assert!(listed.contains(words), "{words}: {listed}");
    }

    // Nobody is off a space whom a group has there, and no group is gone that something names.
    let said = refusal(&home, &["unshare", text(&photos), "--from", &hers]);
    assert!(said.contains("by the group family"), "{said}");
    let said = refusal(&home, &["group", "delete", "family"]);
    assert!(said.contains("the space photos"), "{said}");
    let said = refusal(&home, &["group", "delete", "kids"]);
    assert!(said.contains("the group family"), "{said}");

    // Carol goes, out of the group within: she reads nothing that is new, and bob goes on.
    let said = printed(&home, &["group", "remove", "kids", &hers]);
    assert!(
        said.contains("photos")
            && said.contains("neither read nor write")
            && said.contains("removed from kids"),
        "{said}"
    );
    let (bobs_key, carols_key) =
        (keys::identity(&bobs.join("user.key")), keys::identity(&carols.join("user.key")));
    let opens = keys::that_open_the_last_space(&home, &[&bobs_key, &carols_key]);
    assert_eq!(opens, [bobs_key.public_key()], "it is so when the command ends");
    fs::write(b.join("photos/later"), "not for carol").unwrap();
    eventually("the owner reads", SOON, || reads(&a.join("photos/later"), "not for carol"));
    eventually("carol's mount has noticed", SOON, || fs::write(c.join("photos/late"), "late").is_err());
    assert!(fs::read(c.join("photos/later")).is_err() && !a.join("photos/late").exists());
    assert!(!printed(&home, &["access", text(&photos)]).contains(&hers));
    // Said again, nothing is left to do, and that is no error.
    let said = printed(&home, &["group", "remove", "kids", &hers]);
    assert!(said.contains("is not in kids") && said.contains("the list of the one space"), "{said}");

    // Who is on it by her own name as well is not off it by the group, nor the other way round, and that is what is said.
    printed(&home, &["share", text(&photos), "--read", &hers]);
    printed(&home, &["group", "add", "kids", &hers]);
    let listed = printed(&home, &["access", text(&photos)]);
    assert!(listed.contains("by name and the group family"), "{listed}");
    let by_her_name = ["unshare", text(&photos), "--from", &hers];
    assert!(refusal(&home, &by_her_name).contains("by the group family"));
    let said = printed(&home, &["group", "remove", "kids", &hers]);
    assert!(said.contains("may read it") && said.contains("is on these still"), "{said}");
    assert!(!said.contains("removed from kids"), "{said}");
    printed(&home, &by_her_name);
    assert!(!printed(&home, &["access", text(&photos)]).contains(&hers));

    // Whoever is no member any more is in no group; and a group goes once nothing names it.
    printed(&home, &["group", "add", "kids", "family-2"]);
    assert!(printed(&home, &["access", text(&photos)]).contains(&id(&daves)));
    printed(&home, &["remove", "family-2"]);
    assert!(!printed(&home, &["access", text(&photos)]).contains(&id(&daves)));
    let listed = printed(&home, &["group", "list"]);
    assert!(!listed.contains(&id(&daves)) && listed.contains("kids  0 people"), "{listed}");
    // His name is free then, and means the group that has it.
    printed(&home, &["group", "create", "family-2"]);
    printed(&home, &["group", "add", "kids", "family-2"]);
    printed(&home, &["group", "remove", "kids", "family-2"]);
    printed(&home, &["group", "delete", "family-2"]);
    printed(&home, &["unshare", text(&photos), "--from", "family"]);
    assert!(!printed(&home, &["access", text(&photos)]).contains(&his));
    eventually("bob is off it", SOON, || fs::write(b.join("photos/last"), "x").is_err());
    printed(&home, &["group", "delete", "family"]);
    printed(&home, &["group", "delete", "kids"]);
    let said = printed(&home, &["group", "list"]);
    assert!(said.contains("there is no group"), "{said}");
    assert!(
        Command::new(PROGRAM).args(["gc", "--dry-run", "--home", text(&home)]).status().unwrap().success()
    );
    for drive in [bob, carol, up] {
        assert!(drive.stop().success());
    }
}
