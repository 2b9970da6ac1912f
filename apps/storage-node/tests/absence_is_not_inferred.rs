//! A volume is founded once, and that it can't be found is never taken for its not being there.
//!
//! What went wrong: three nodes that never had to do with the volume's root "knew" that there was none, so `get` and
//! `mount` made an empty volume beside the real one, said nothing, and destroyed the journal. Now the network's
//! description names the nodes that keep the root; without a quorum of those nothing is opened and nothing is made.

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;

use common::running::Running;
use common::{Place, fuse_is_usable, run, storage_node, text};
use dht::block::mutable::{Genesis, Signed};
use overlay::NodeId;
use reactor::crypto::PublicKey;

/// Runs the program, which must fail with these words; and neither make nor destroy anything of the client's.
fn refused(arguments: &[&str], words: &str) {
    let output = storage_node(arguments);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{arguments:?}: {said}");
    assert!(said.contains(words), "{arguments:?} said:\n{said}");
}

fn network(home: &Path) -> serde_json::Value {
    serde_json::from_slice(&fs::read(home.join("network.json")).unwrap()).unwrap()
}

/// The numbers of the nodes that keep the volume's root, and of the others.
fn keepers_and_others(home: &Path) -> (Vec<u64>, Vec<u64>) {
    let network = network(home);
    let bytes = |hex: &serde_json::Value| -> Vec<u8> {
        let hex = hex.as_str().unwrap().as_bytes();
        hex.chunks(2).map(|two| u8::from_str_radix(std::str::from_utf8(two).unwrap(), 16).unwrap()).collect()
    };
    let genesis = Signed::<Genesis>::from_bytes(&bytes(&network["volume"]["genesis"])).unwrap();
    let keeps = |node: &serde_json::Value| {
        let key = PublicKey::from_bytes(bytes(&node["public_key"]).try_into().unwrap());
        genesis.index_of(&NodeId::of(&key)).is_some()
    };
    let (keepers, others): (Vec<_>, Vec<_>) =
        network["nodes"].as_array().unwrap().iter().partition(|node| keeps(node));
    let number = |node: &serde_json::Value| node["number"].as_u64().unwrap();
    (keepers.into_iter().map(number).collect(), others.into_iter().map(number).collect())
}

fn start(home: &Path, numbers: &[u64]) -> Vec<Running> {
    let run = |number: &u64| {
        let node = home.join(format!("nodes/{number}"));
        Running::start(&["run", "--home", text(&node)], "listening on")
    };
    numbers.iter().map(run).collect()
}

/// The same network's home on another machine, as a backup would bring it there.
fn copy_without_nodes(home: &Path, copy: &Path) -> PathBuf {
    fs::create_dir(copy).unwrap();
    for entry in fs::read_dir(home).unwrap().map(|entry| entry.unwrap()) {
        if entry.file_name() != "nodes" {
            run("cp", &["-a", text(&entry.path()), text(copy)]);
        }
    }
    copy.to_owned()
}

#[test]
fn nodes_that_do_not_keep_the_root_open_no_volume_and_make_none() {
    if !fuse_is_usable("absence_is_not_inferred") {
        return;
    }
    let place = Place::new("absence");
    let (home, drive) = (place.join("home"), place.join("drive"));
    let up = Running::up(&home, &drive, 6);
    fs::write(drive.join("thesis"), "my thesis").unwrap();
    assert!(up.stop().success());
    let (keepers, others) = keepers_and_others(&home);
    assert_eq!((keepers.len(), others.len()), (3, 3));

    let running = start(&home, &others);
    let away = format!("2 of nodes {}, {} and {} must answer", keepers[0], keepers[1], keepers[2]);
    let elsewhere = place.join("elsewhere");
    // Each waits as long as a quorum is given time, so all of them at once, and each with a home of its own.
    let file = home.join("network.json");
    let commands = [&["get", "thesis"][..], &["put", "other", text(&file)], &["mount", text(&elsewhere)]];
    thread::scope(|s| {
        for arguments in commands {
            let (home, away) = (copy_without_nodes(&home, &place.join(arguments[0])), &away);
            s.spawn(move || {
                // What a crash with --write-back may have left: whoever makes a volume must not clear it away.
                let journal = home.join("client/journal");
                fs::create_dir_all(&journal).unwrap();
                fs::write(journal.join("left"), "acknowledged").unwrap();
                refused(&[arguments, &["--home", text(&home)]].concat(), away);
                assert_eq!(fs::read_to_string(journal.join("left")).unwrap(), "acknowledged");
            });
        }
    });

    // One keeper alone is no quorum either; with two, everything is there.
    let home_text = text(&home);
    let first = start(&home, &keepers[..1]);
    refused(&["get", "thesis", "--home", home_text], &away);
    let second = start(&home, &keepers[1..2]);
    let get = storage_node(&["get", "thesis", "--home", home_text]);
    assert_eq!(String::from_utf8_lossy(&get.stdout), "my thesis", "{get:?}");
    for node in running.into_iter().chain(first).chain(second) {
        assert!(node.stop().success());
    }

    let up = Running::up(&home, &drive, 6);
    assert_eq!(fs::read_to_string(drive.join("thesis")).unwrap(), "my thesis");
    assert!(up.stop().success());
}

#[test]
fn a_founding_that_was_cut_short_is_resumed_and_only_by_up() {
    if !fuse_is_usable("absence_is_not_inferred: founding") {
        return;
    }
    let place = Place::new("founding");
    let (home, drive) = (place.join("home"), place.join("drive"));
    let up = Running::up(&home, &drive, 1);
    fs::write(drive.join("kept"), "safe").unwrap();
    assert!(up.stop().success());
    let founded = network(&home);
    assert_eq!(founded["volume"]["state"], "created");

    // The crash came after the first root was chosen and before that was written down.
    let mut cut_short = founded.clone();
    cut_short["volume"]["state"] = "creating".into();
    fs::write(home.join("network.json"), cut_short.to_string()).unwrap();
    let node = start(&home, &[1]);
    refused(&["get", "kept", "--home", text(&home)], "its founding was cut short");
    for node in node {
        assert!(node.stop().success());
    }
    let up = Running::up(&home, &drive, 1);
    assert_eq!(fs::read_to_string(drive.join("kept")).unwrap(), "safe");
    assert_eq!(network(&home)["volume"], founded["volume"]);
    assert!(up.stop().success());

    // Or before any root was: the same register gets its first.
    let node = home.join("nodes/1/node.json");
    let mut settings: serde_json::Value = serde_json::from_slice(&fs::read(&node).unwrap()).unwrap();
    (settings["store"], settings["has_forgotten"]) = (serde_json::Value::Null, false.into());
    fs::write(&node, settings.to_string()).unwrap();
    fs::remove_dir_all(home.join("nodes/1/store")).unwrap();
    fs::remove_dir_all(home.join("client")).unwrap();
    fs::write(home.join("network.json"), cut_short.to_string()).unwrap();
    let up = Running::up(&home, &drive, 1);
    assert_eq!(fs::read_dir(&drive).unwrap().count(), 0);
    assert_eq!(network(&home)["volume"], founded["volume"]);
    assert!(up.stop().success());
}

#[test]
fn with_stores_missing_nothing_comes_up_and_nothing_is_overwritten() {
    if !fuse_is_usable("absence_is_not_inferred: missing stores") {
        return;
    }
    // At once, since each waits for a quorum that is not there.
    thread::scope(|s| {
        s.spawn(the_only_store_is_missing);
        s.spawn(two_of_three_stores_are_missing);
    });
}

/// Once it is written down that there was a root, there is no second first one.
fn the_only_store_is_missing() {
    let place = Place::new("missing-store");
    let (home, drive) = (place.join("home"), place.join("drive"));
    assert!(Running::up(&home, &drive, 1).stop().success());
    fs::remove_dir_all(home.join("nodes/1/store")).unwrap();
    for _ in 0..2 {
        refused(&["up", "--home", text(&home), text(&drive)], "the drive's root");
    }
}

/// A disk that is not mounted, twice: what is left of the root is one node's word, and that one may be behind.
fn two_of_three_stores_are_missing() {
    let place = Place::new("missing-stores");
    let (home, drive, away) = (place.join("home"), place.join("drive"), place.join("away"));
    let up = Running::up(&home, &drive, 3);
    fs::write(drive.join("thesis"), "my thesis").unwrap();
    assert!(up.stop().success());
    fs::create_dir(&away).unwrap();
    let store = |number: u32| home.join(format!("nodes/{number}/store"));
    for number in [2, 3] {
        fs::rename(store(number), away.join(format!("{number}"))).unwrap();
        fs::create_dir(store(number)).unwrap();
    }
    for _ in 0..2 {
        refused(&["up", "--home", text(&home), text(&drive)], "2 of nodes 1, 2 and 3 must answer");
    }
    // The disks are mounted again.
    for number in [2, 3] {
        fs::remove_dir_all(store(number)).unwrap();
        fs::rename(away.join(format!("{number}")), store(number)).unwrap();
    }
    let up = Running::up(&home, &drive, 3);
    assert_eq!(fs::read_to_string(drive.join("thesis")).unwrap(), "my thesis");
    assert!(up.stop().success());
}
