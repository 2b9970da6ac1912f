//! What `status` says is so: of nodes that a home never heard of, of what a write needs, and of a root that would go with one site.
//!
//! What went wrong: with two of four nodes away it said "down ... cannot be written" while every write succeeded; a member's said of a
//! node that came after him and was stopped that nobody had ever met it, or, where it did not keep the root, nothing at all and
//! "every node answers"; and nobody was told that all who keep the drive's root stood in one cellar.

mod common;

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use common::members::{join, printed};
use common::running::Running;
use common::{PROGRAM, Place, eventually, fuse_is_usable, run, storage_node, text};
use serde_json::Value;

/// Seconds are meant; a loaded machine may take longer.
const SOON: Duration = Duration::from_secs(90);

/// What `status` says in words and as JSON, one after the other.
fn status(home: &Path) -> (String, Value) {
    let said = storage_node(&["status", "--home", text(home)]);
    let json = storage_node(&["status", "--json", "--home", text(home)]);
    (
        String::from_utf8_lossy(&said.stdout).into_owned(),
        serde_json::from_slice(&json.stdout).unwrap_or(Value::Null),
    )
}

/// The numbers of the nodes that keep the root.
fn keepers(home: &Path) -> Vec<u16> {
    let list = printed(home, &["node", "list"]);
    let keepers = list.lines().filter(|line| line.contains("keeps it"));
    keepers.map(|line| line.split_whitespace().next().unwrap().parse().unwrap()).collect()
}

fn stores(path: &Path) {
    let mut file = File::create(path).unwrap();
    file.write_all(b"written while two are away").unwrap();
    file.sync_all().unwrap();
}

#[test]
fn status_names_a_root_in_one_zone_misses_nodes_that_came_later_and_follows_what_a_write_needs() {
    if !fuse_is_usable("status_is_so") {
        return;
    }
    let place = Place::new("status");
    let (home, a, bobs, b) = (place.join("home"), place.join("a"), place.join("bob"), place.join("b"));
    let up = Running::up(&home, &a, 4);
    let first = keepers(&home);
    assert!(up.stop().success());
    assert_eq!(first.len(), 3);
    let start = |number: u16, zone: &str| {
        let node = home.join(format!("nodes/{number}"));
        Running::start(&["run", "--zone", zone, "--home", text(&node)], "listening on")
    };
    let zone_of = |number: u16| if first.contains(&number) { "cellar" } else { "attic" };
    let mut running: Vec<(u16, Running)> =
        (1..=4).map(|number| (number, start(number, zone_of(number)))).collect();

    // All is well, and all of the root is in one place.
    eventually("the zone of those that keep the root is named", SOON, || {
        let (said, json) = status(&home);
        json["health"] == "healthy"
            && json["root"]["in_one_zone"]["zone"] == "cellar"
            && said.contains("all of them stand in zone cellar")
    });
    let (said, json) = status(&home);
    assert!(json["health"] == "healthy" && said.contains("so is the drive's root"), "{said}");
    let advised = json["root"]["in_one_zone"]["to_replace"][0].as_str().unwrap().to_owned();
    assert!(said.contains(&format!("`storage-node node replace {advised}`")), "{said}");
    printed(&home, &["node", "replace", &advised]);
    // Two are there still, and nobody else is elsewhere: the root would be lost with them just so.
    let (said, json) = status(&home);
    let in_one_zone = &json["root"]["in_one_zone"];
    assert!(in_one_zone["zone"] == "cellar" && in_one_zone["to_replace"].as_array().unwrap().is_empty());
    assert!(
        said.contains("2 of them stand in zone cellar") && said.contains("start a node elsewhere"),
        "{said}"
    );

    // Bob joins, and then a node that his home has never heard of.
    let mount = Running::start(&["mount", "--home", text(&home), text(&a)], "the drive is");
    let bob = join(&home, &bobs, &b);
    assert!(bob.stop().success());
    let node = place.join("node");
    let ticket = run(PROGRAM, &["invite", "--role", "node", "--home", text(&home)]).trim().to_owned();
    let joined = Running::start(&["join", "--home", text(&node), &ticket], "listening on");
    eventually("it is one of five", SOON, || status(&home).0.contains("5 of 5 nodes"));
    assert!(joined.stop().success());
    eventually("his status misses it", SOON, || {
        let (said, json) = status(&bobs);
        json["health"] == "degraded" && said.contains("4 of 5 nodes") && said.contains("does not answer")
    });
    let (said, _) = status(&bobs);
    assert!(!said.contains("met it") && !said.contains("every node"), "{said}");

    // It, and one that keeps the root: what is written is stored all the same, and what is there may be with them.
    let gone = keepers(&home)[0];
    let index = running.iter().position(|(number, _)| *number == gone).unwrap();
    assert!(running.remove(index).1.stop().success());
    eventually("two are away", SOON, || status(&home).0.contains("3 of 5 nodes"));
    stores(&a.join("stored"));
    for home in [&home, &bobs] {
        let (said, json) = status(home);
        assert_eq!(
            (json["health"].as_str(), json["may_hide"].as_bool()),
            (Some("degraded"), Some(true)),
            "{said}"
        );
        assert!(said.starts_with("degraded: what is written is stored; but 2 nodes are away"), "{said}");
    }

    // One more of those that keep the root, and nothing can be written; two nodes would do for a block.
    let gone = keepers(&home)
        .into_iter()
        .find(|number| running.iter().any(|(running, _)| running == number))
        .unwrap();
    let index = running.iter().position(|(number, _)| *number == gone).unwrap();
    assert!(running.remove(index).1.stop().success());
    eventually("it is down", SOON, || {
        let (said, json) = status(&home);
        json["health"] == "down"
            && said.starts_with("down: of the 3 nodes that keep the drive's root 2 must answer")
    });
    fs::write(a.join("waits"), b"waits").unwrap();
    mount.kill();
    common::detach(&a);
    for (_, node) in running {
        assert!(node.stop().success());
    }
}
