//! A group is changed, and each space that it is on is to say so: whoever is killed in between goes on with it by saying it again, or
//! by `up`; and no older state of a group passes for the newest.
//!
//! What would go wrong: somebody is taken out of a group, the command dies after two of five spaces, and said again it finds nothing to do.

mod common;

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use common::members::{id, join, printed, refusal};
use common::running::Running;
use common::{PROGRAM, Place, eventually, fuse_is_usable, run, text};

/// Seconds are meant; a loaded machine may take longer.
const SOON: Duration = Duration::from_secs(120);
const SPACES: [&str; 5] = ["one", "two", "three", "four", "five"];

/// On how many of the spaces' lists somebody is.
fn lists_with(home: &Path, who: &str) -> usize {
    SPACES.iter().filter(|space| printed(home, &["access", space]).contains(who)).count()
}

/// Has a command about a group be killed once the first list says it.
fn killed_after_the_first_space(home: &Path, arguments: &[&str]) {
    let mut command = Command::new(PROGRAM);
    command.args(arguments).args(["--home", text(home)]).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(
        lines.map_while(Result::ok).any(|line| line.contains("(1 of 5)")),
        "{arguments:?} came to no space"
    );
    let _ = child.kill();
    let _ = child.wait();
}

#[test]
fn a_change_of_a_group_that_was_cut_short_is_finished_and_none_is_undone() {
    if !fuse_is_usable("a_change_of_a_group_that_was_cut_short_is_finished_and_none_is_undone") {
        return;
    }
    let place = Place::new("groups-end");
    let (home, a, c) = (place.join("home"), place.join("a"), place.join("c"));
    let carols = place.join("carol");
    let up = Running::up(&home, &a, 1);
    assert!(join(&home, &carols, &c).stop().success());
    let hers = id(&carols);
    assert!(up.stop().success());

    // Nobody goes on with anything but the commands.
    let node = home.join("nodes/1");
    let start = || Running::start(&["run", "--home", text(&node)], "listening on");
    let running = start();
    printed(&home, &["group", "create", "family"]);
    for space in SPACES {
        printed(&home, &["share", space, "--read", "family"]);
    }
    assert_eq!(lists_with(&home, &hers), 0);
    let (add, remove) = (["group", "add", "family", &hers], ["group", "remove", "family", &hers]);

    let is_cut_short = |arguments: &[&str], undo: &[&str], are_done: &dyn Fn(usize) -> bool| {
        for _ in 0..10 {
            killed_after_the_first_space(&home, arguments);
            if !are_done(lists_with(&home, &hers)) {
                return;
            }
            // It was faster than the kill.
            printed(&home, undo);
        }
        panic!("never cut short");
    };
    is_cut_short(&add, &remove, &|with| with == SPACES.len());
    let listed = printed(&home, &["group", "list"]);
    assert!(listed.contains(&hers) && listed.contains("has yet to say"), "{listed}");
    let said = printed(&home, &add);
    assert!(said.contains("was in family already") && said.contains("all 5 spaces"), "{said}");
    assert_eq!(lists_with(&home, &hers), SPACES.len());

    is_cut_short(&remove, &add, &|with| with == 0);
    let said = printed(&home, &remove);
    assert!(said.contains("is not in family") && said.contains("all 5 spaces"), "{said}");
    assert_eq!(lists_with(&home, &hers), 0);
    assert!(!printed(&home, &["group", "list"]).contains("has yet to"));

    // What nobody says again `up` does.
    is_cut_short(&add, &remove, &|with| with == SPACES.len());
    assert!(running.stop().success());
    let up = Running::up(&home, &a, 1);
    eventually("up goes on with it", SOON, || lists_with(&home, &hers) == SPACES.len());
    assert!(up.stop().success());

    // Somebody puts an older state of all that the node has back, in which she is not out of the group: that is told, and not gone by.
    let yesterday = place.join("yesterday");
    run("cp", &["-a", text(&node.join("store")), text(&yesterday)]);
    let running = start();
    printed(&home, &remove);
    assert!(running.stop().success());
    fs::remove_dir_all(node.join("store")).unwrap();
    run("cp", &["-a", text(&yesterday), text(&node.join("store"))]);
    let running = start();
    let said = refusal(&home, &["group", "create", "club"]);
    assert!(said.contains("was seen before"), "{said}");
    let listed = printed(&home, &["group", "list"]);
    assert!(!listed.contains(&hers), "{listed}");
    assert!(running.stop().success());
}
