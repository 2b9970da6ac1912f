//! The nodes that keep the drive's root die one after another, as they do over the years, disk and all.
//!
//! What went wrong: who keeps a root was fixed when the drive was made. After the second of the first three had died, however
//! long after the first, nothing could be read or written any more, though every block had been copied to other nodes. Now
//! another node takes the place of one that is gone, at a word of the owner's; mounted drives follow, and so does who knows the
//! first nodes only.

mod common;

use std::fs;
use std::path::Path;
use std::time::Duration;

use common::running::Running;
use common::{Place, eventually, fuse_is_usable, storage_node, text};

/// Death has to be noticed, and blocks copied, on a machine that is busy.
const LIMIT: Duration = Duration::from_secs(180);

/// Runs the program, and returns what it printed; it must succeed.
fn done(arguments: &[&str]) -> String {
    let output = storage_node(arguments);
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The numbers of the nodes that keep the root.
fn keepers(home: &Path) -> Vec<u16> {
    let list = done(&["node", "list", "--home", text(home)]);
    let keepers = list.lines().filter(|line| line.contains("keeps it"));
    keepers.map(|line| line.split_whitespace().next().unwrap().parse().unwrap()).collect()
}

/// How many blocks each node has that answers.
fn blocks(home: &Path) -> Vec<u64> {
    let output = storage_node(&["status", "--json", "--home", text(home)]);
    let status: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    status["nodes"].as_array().unwrap().iter().filter_map(|node| node["blocks"].as_u64()).collect()
}

#[test]
fn the_first_keepers_of_the_root_die_one_after_another_and_the_drive_goes_on() {
    if !fuse_is_usable("keepers_are_replaced") {
        return;
    }
    let place = Place::new("keepers");
    let (home, drive) = (place.join("home"), place.join("drive"));
    let home_text = text(&home);
    let up = Running::up(&home, &drive, 5);
    fs::write(drive.join("thesis"), "my thesis").unwrap();
    assert!(up.stop().success());

    let start = |number: u16| {
        let node = home.join(format!("nodes/{number}"));
        (number, Running::start(&["run", "--home", text(&node)], "listening on"))
    };
    let mut running: Vec<(u16, Running)> = (1..=5).map(start).collect();
    let mut destroy = |number: u16| {
        let index = running.iter().position(|(running, _)| *running == number).unwrap();
        running.remove(index).1.kill();
        fs::remove_dir_all(home.join(format!("nodes/{number}"))).unwrap();
    };
    let first = keepers(&home);
    assert_eq!(first.len(), 3);
    let (network, beginning) = (home.join("network.json"), place.join("beginning.json"));
    fs::copy(&network, &beginning).unwrap();

    // Without this, the next death would be the last.
    destroy(first[0]);
    done(&["put", "one", text(&home.join("network.json")), "--home", home_text]);
    assert!(done(&["node", "list", "--home", home_text]).contains("at risk"));
    // Nor is one of the two that are left torn out, though three are named that keep the root.
    let output = storage_node(&["node", "remove", &first[1].to_string(), "--now", "--home", home_text]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("1 that answer would be left"), "{said}");
    let replace = |number: u16| done(&["node", "replace", &number.to_string(), "--home", home_text]);
    // What it was done for is not done before it is written down, for those who begin with this home's description, too.
    let in_the_way = home.join(format!("nodes/{}/network.json", first[1]));
    fs::rename(&in_the_way, place.join("aside")).unwrap();
    fs::create_dir(&in_the_way).unwrap();
    let output = storage_node(&["node", "replace", &first[0].to_string(), "--home", home_text]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("could not write down which"), "{said}");
    fs::remove_dir(&in_the_way).unwrap();
    fs::rename(place.join("aside"), &in_the_way).unwrap();
    let said = replace(first[0]);
    assert!(said.contains("keep the drive's root"), "{said}");
    let described: serde_json::Value = serde_json::from_slice(&fs::read(&network).unwrap()).unwrap();
    assert!(described["volume"]["configuration"].is_string(), "{described}");
    let second = keepers(&home);
    assert!(second.len() == 3 && !second.contains(&first[0]), "{first:?} and then {second:?}");
    assert!(replace(first[0]).contains("nothing to do"));

    // Under a drive that is mounted, and goes on where the root is now.
    let mount = ["mount", "--home", home_text, "--replace-after", "3s", text(&drive)];
    let mut mount = Running::start(&mount, "the drive is");
    assert_eq!(fs::read_to_string(drive.join("thesis")).unwrap(), "my thesis");
    destroy(first[1]);
    fs::write(drive.join("two"), "written while one is gone").unwrap();
    // Nobody says a word: the owner's drive does it by itself.
    assert!(mount.wait_for("keep the drive's root now", LIMIT), "{}", mount.drain());
    let third = keepers(&home);
    assert!(third.len() == 3 && !third.contains(&first[1]), "{second:?} and then {third:?}");
    eventually("the three nodes that are left have every block", LIMIT, || {
        let blocks = blocks(&home);
        blocks.len() == 3 && blocks.iter().all(|count| *count == blocks[0])
    });

    let status = storage_node(&["status", "--home", home_text]);
    assert!(String::from_utf8_lossy(&status.stdout).contains("since it was moved, "), "{status:?}");

    // The last of the first three. Everything is there, and can be written.
    destroy(first[2]);
    fs::write(drive.join("three"), "written after all three had died").unwrap();
    assert!(mount.stop().success());
    for (name, content) in [
        ("thesis", "my thesis"),
        ("two", "written while one is gone"),
        ("three", "written after all three had died"),
    ] {
        assert_eq!(done(&["get", name, "--home", home_text]), content);
    }
    // On a machine that has the owner's two files and nothing else, be they of the beginning, and name the first three only.
    let key = home.join("user.key");
    for (description, name) in [(&beginning, "one machine"), (&network, "another")] {
        let elsewhere = place.join(name);
        fs::create_dir(&elsewhere).unwrap();
        let output = std::process::Command::new(common::PROGRAM)
            .args(["get", "thesis", "--network", text(description), "--key", text(&key)])
            .env("XDG_DATA_HOME", &elsewhere)
            .output()
            .unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), "my thesis", "{output:?}");
    }
    for (_, node) in running {
        assert!(node.stop().success());
    }
}
