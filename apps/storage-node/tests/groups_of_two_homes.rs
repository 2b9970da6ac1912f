//! Two machines of the owner's, and a home that comes back from its words: there is one set of groups, and no change is lost.

mod common;

use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

use common::members::{id, join, printed};
use common::running::Running;
use common::{PROGRAM, Place, eventually, fuse_is_usable, run, text};

/// Seconds are meant; a loaded machine may take longer.
const SOON: Duration = Duration::from_secs(60);

/// What the owner's home needs to say who may do what, as a second machine of his has it.
fn copy_of(home: &Path, copy: &Path) {
    fs::create_dir_all(copy.join("members")).unwrap();
    for file in ["network.json", "owner.key", "user.key", "members/roll.json"] {
        fs::copy(home.join(file), copy.join(file)).unwrap();
    }
}

/// Puts somebody into the group and takes him out again, this often. Whether he is in it then, as far as these commands said.
fn in_and_out(home: &Path, who: &str, times: usize) -> bool {
    let mut is_in = false;
    for _ in 0..times {
        let verb = if is_in { "remove" } else { "add" };
        let output = Command::new(PROGRAM)
            .args(["group", verb, "family", who, "--home", text(home)])
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        match output.status.success() {
            true => is_in = !is_in,
            false => assert!(said.contains("another machine of yours has just changed the groups"), "{said}"),
        }
    }
    is_in
}

#[test]
fn two_machines_of_the_owner_have_the_same_groups_and_so_has_a_home_that_came_back() {
    if !fuse_is_usable("two_machines_of_the_owner_have_the_same_groups_and_so_has_a_home_that_came_back") {
        return;
    }
    let place = Place::new("groups-two");
    let (home, a) = (place.join("home"), place.join("a"));
    let (bobs, carols) = (place.join("bob"), place.join("carol"));
    let start = || Running::up(&home, &a, 1);
    let up = start();
    for (member, drive) in [(&bobs, "b"), (&carols, "c")] {
        assert!(join(&home, member, &place.join(drive)).stop().success());
    }
    let (his, hers) = (id(&bobs), id(&carols));
    // A machine that never heard of groups finds them by the drive, whichever of the two made them.
    let second = place.join("second");
    copy_of(&home, &second);
    printed(&home, &["group", "create", "family"]);
    assert!(printed(&second, &["group", "list"]).contains("family"));
    printed(&second, &["group", "add", "family", &his, &hers]);
    let listed = printed(&home, &["group", "list"]);
    assert!(listed.contains(&his) && listed.contains(&hers), "{listed}");
    printed(&home, &["group", "remove", "family", &his, &hers]);

    // At the same time: each is told if the other was first, and what was said to be so is.
    let (bob_is_in, carol_is_in) = thread::scope(|scope| {
        let bob = scope.spawn(|| in_and_out(&home, &his, 9));
        let carol = scope.spawn(|| in_and_out(&second, &hers, 9));
        (bob.join().unwrap(), carol.join().unwrap())
    });
    for home in [&home, &second] {
        let listed = printed(home, &["group", "list"]);
        assert_eq!((listed.contains(&his), listed.contains(&hers)), (bob_is_in, carol_is_in), "{listed}");
    }

    // A space that the second machine shared is reached from the first only once that knows it: it says so, and does not say removed.
    printed(&second, &["group", "add", "family", &hers]);
    printed(&second, &["share", "docs", "--read", "family"]);
    let output = Command::new(PROGRAM)
        .args(["group", "remove", "family", &hers, "--home", text(&home)])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("docs (another copy of this home made it"), "{said}");
    assert!(!String::from_utf8_lossy(&output.stdout).contains("removed from family"));
    printed(&home, &["share", "docs"]);
    let said = printed(&home, &["group", "remove", "family", &hers]);
    assert!(said.contains("removed from family"), "{said}");
    assert!(!printed(&home, &["access", "docs"]).contains(&hers));
    // What the second machine knew of the space is older now, and lets nobody in again.
    printed(&second, &["share", "docs"]);
    assert!(!printed(&second, &["access", "docs"]).contains(&hers));

    // One that the second has not heard of: it says so, and `up` of the first takes over what was changed, and does it.
    printed(&home, &["share", "letters", "--read", "family"]);
    let output = Command::new(PROGRAM)
        .args(["group", "add", "family", &hers, "--home", text(&second)])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        !output.status.success() && said.contains("letters (another copy of this home made it"),
        "{said}"
    );
    assert!(!printed(&home, &["access", "letters"]).contains(&hers));
    assert!(up.stop().success());
    let mut up = start();
    eventually("up has its list say so", SOON, || printed(&home, &["access", "letters"]).contains(&hers));
    let network: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(home.join("network.json")).unwrap()).unwrap();
    let node = network["nodes"][0]["address"].as_str().unwrap().to_owned();
    printed(&home, &["group", "remove", "family", &hers]);

    // The first home is lost, and comes back from its words, elsewhere.
    printed(&home, &["group", "add", "family", &his]);
    let words = printed(&home, &["recovery", "--show"]);
    let (again, file) = (place.join("again"), place.join("words"));
    fs::write(&file, words).unwrap();
    let recover =
        format!("{PROGRAM} recover --words-fd 0 --home {} --node {node} < {}", text(&again), text(&file));
    run("sh", &["-c", &recover]);
    let listed = printed(&again, &["group", "list"]);
    assert!(
        listed.contains(&his) && !listed.contains(&hers) && listed.contains("on docs: reads"),
        "{listed}"
    );
    let said = printed(&again, &["group", "remove", "family", &his]);
    assert!(said.contains("all 2 spaces"), "{said}");
    assert!(!printed(&again, &["access", "docs"]).contains(&his));
    assert!(up.is_running());
    assert!(up.stop().success());
}
