//! Where nodes listen is written down where clients look: what `--listen` says outlives the process.

mod common;

use std::fs;
use std::path::Path;

use common::running::Running;
use common::{Place, fuse_is_usable, storage_node, text};

fn address_in(file: &Path) -> String {
    let network: serde_json::Value = serde_json::from_slice(&fs::read(file).unwrap()).unwrap();
    network["nodes"][0]["address"].as_str().unwrap().to_owned()
}

/// Where nothing has listened: a port that was bound and let go is taken as long as a process that another test just
/// started has not begun its own program.
fn own_place(number: u8) -> String {
    let [.., high, low] = std::process::id().to_be_bytes();
    format!("127.{number}.{high}.{low}:18473")
}

#[test]
fn an_address_that_was_asked_for_is_remembered() {
    if !fuse_is_usable("an_address_that_was_asked_for_is_remembered") {
        return;
    }
    let place = Place::new("listen");
    let (home, drive) = (place.join("home"), place.join("drive"));
    let (network, node) = (home.join("network.json"), home.join("nodes/1"));
    // All of 127.0.0.0/8 is this machine.
    let up =
        Running::start(&["up", "--listen", "127.0.0.9", "--home", text(&home), text(&drive)], "the drive is");
    fs::write(drive.join("file"), "kept").unwrap();
    assert!(address_in(&network).starts_with("127.0.0.9:"), "{}", address_in(&network));
    assert!(up.stop().success());
    let before = address_in(&network);
    // An address of nobody here (RFC 5737), mistyped say: refused, and forgotten.
    let other = ["up", "--listen", "192.0.2.99", "--home", text(&home), text(&drive)];
    assert!(!storage_node(&other).status.success());
    let up = Running::up(&home, &drive, 1);
    assert_eq!(address_in(&network), before, "it stays so");
    assert!(up.stop().success());

    // The node alone, by hand, at another port: who has only the home finds it.
    let free = own_place(10);
    let run = Running::start(&["run", "--home", text(&node), "--listen", &free], "Ctrl-C stops it");
    assert_eq!(address_in(&network), free);
    assert_eq!(address_in(&node.join("network.json")), free);
    let got = storage_node(&["get", "file", "--home", text(&home)]);
    assert_eq!(got.stdout, b"kept", "{}", String::from_utf8_lossy(&got.stderr));
    assert!(run.stop().success());

    // What nobody can dial does not take the place of what they can. The router of whoever runs this is left alone.
    let everywhere = ["run", "--home", text(&node), "--listen", "0.0.0.0:0", "--no-port-mapping"];
    let run = Running::start(&[&everywhere[..], &["--no-discovery"]].concat(), "Ctrl-C stops it");
    assert_eq!(address_in(&network), free);
    assert!(run.stop().success());
}

#[test]
fn a_node_that_was_moved_away_keeps_no_address_from_being_written_down() {
    if !fuse_is_usable("a_node_that_was_moved_away_keeps_no_address_from_being_written_down") {
        return;
    }
    let place = Place::new("moved");
    let (home, drive) = (place.join("home"), place.join("drive"));
    assert!(Running::up(&home, &drive, 2).stop().success());
    fs::rename(home.join("nodes/2"), place.join("elsewhere")).unwrap();
    let free = own_place(11);
    let node = home.join("nodes/1");
    let run = Running::start(&["run", "--home", text(&node), "--listen", &free], "Ctrl-C stops it");
    assert_eq!(address_in(&home.join("network.json")), free);
    assert!(run.stop().success());
}
