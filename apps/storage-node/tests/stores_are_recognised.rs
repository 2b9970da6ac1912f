//! A node whose disk was replaced, or put back from a copy, has the same key and has forgotten what it promised. It
//! must notice, say so, and go on saying so.

mod common;

use std::fs;
use std::path::Path;

use common::running::Running;
use common::{Place, fuse_is_usable, run, storage_node, text};

/// For each of the nodes, whether `status` says that it has forgotten its promises.
fn forgotten(home: &Path) -> Vec<bool> {
    let output = storage_node(&["status", "--json", "--home", text(home)]);
    let status: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let nodes = status["nodes"].as_array().unwrap();
    nodes.iter().map(|node| node["has_forgotten"].as_bool().unwrap()).collect()
}

#[test]
fn a_replaced_store_and_one_put_back_from_a_copy_are_noticed_and_not_forgotten_again() {
    if !fuse_is_usable("stores_are_recognised") {
        return;
    }
    let place = Place::new("stores");
    let (home, drive, copy) = (place.join("home"), place.join("drive"), place.join("copy"));
    let store = |number: u16| home.join(format!("nodes/{number}/store"));
    assert!(Running::up(&home, &drive, 3).stop().success());
    run("cp", &["-a", text(&store(2)), text(&copy)]);

    let up = Running::up(&home, &drive, 3);
    fs::write(drive.join("file"), "content").unwrap();
    assert_eq!(forgotten(&home), [false, false, false], "an orderly restart forgets nothing");
    assert!(up.stop().success());

    fs::remove_dir_all(store(2)).unwrap();
    run("cp", &["-a", text(&copy), text(&store(2))]);
    fs::remove_dir_all(store(3)).unwrap();
    for _ in 0..2 {
        let up = Running::up(&home, &drive, 3);
        assert_eq!(forgotten(&home), [false, true, true]);
        assert_eq!(fs::read_to_string(drive.join("file")).unwrap(), "content");
        let table = storage_node(&["status", "--home", text(&home)]);
        let table = String::from_utf8_lossy(&table.stdout).into_owned();
        assert_eq!(table.matches("its store was replaced or put back once").count(), 2, "{table}");
        assert!(up.stop().success());
    }
}
