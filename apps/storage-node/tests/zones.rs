//! Nodes say where they stand, copies lie in different zones, and all of one zone dies at once.
//!
//! What went wrong: three copies of a block could all be on the machines of one cellar, and were lost with it, though other
//! machines stood elsewhere; and `status` had no word for what had happened.

mod common;

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use common::running::{Running, signal};
use common::{Place, eventually, fuse_is_usable, run, storage_node, text};
use rustix::process::Signal;
use serde_json::Value;

/// Seconds are meant; a loaded machine may take longer.
const SOON: Duration = Duration::from_secs(90);
/// Each is a block of its own at least. By chance, one in ten would have all of its copies in the cellar.
const FILES: usize = 60;

fn content(number: usize) -> Vec<u8> {
    format!("file {number}\n").repeat(2000).into_bytes()
}

fn write(drive: &Path, number: usize) {
    let mut file = File::create(drive.join(format!("f{number}"))).unwrap();
    file.write_all(&content(number)).unwrap();
    file.sync_all().unwrap();
}

fn status(home: &Path) -> Value {
    let output = storage_node(&["status", "--json", "--home", text(home)]);
    serde_json::from_slice(&output.stdout).unwrap_or(Value::Null)
}

/// What `status` says of each node under this name, by the nodes' numbers.
fn each(status: &Value, name: &str) -> Vec<Value> {
    status["nodes"].as_array().into_iter().flatten().map(|node| node[name].clone()).collect()
}

/// The numbers of the nodes that keep the root.
fn keepers(home: &Path) -> Vec<u16> {
    let list = run(common::PROGRAM, &["node", "list", "--home", text(home)]);
    let keepers = list.lines().filter(|line| line.contains("keeps it"));
    keepers.map(|line| line.split_whitespace().next().unwrap().parse().unwrap()).collect()
}

#[test]
fn a_whole_zone_dies_and_every_byte_is_read_back() {
    if !fuse_is_usable("zones") {
        return;
    }
    let place = Place::new("zones");
    let (home, drive) = (place.join("home"), place.join("drive"));
    let up = Running::up(&home, &drive, 5);
    (0..FILES / 2).for_each(|number| write(&drive, number));
    assert!(up.stop().success());

    // Three of the five stand in the cellar, and say so from now on.
    let zones = ["cellar", "cellar", "cellar", "attic", "shed"];
    let start = |number: usize, says: &[&str]| {
        let node = home.join(format!("nodes/{number}"));
        Running::start(&[&["run", "--home", text(&node)], says].concat(), "listening on")
    };
    let mut running: Vec<Running> =
        (1..=4).map(|number| start(number, &["--zone", zones[number - 1]])).collect();
    running.push(start(5, &["--zone", "shed", "--capacity", "3GiB"]));
    let mount =
        || Running::start(&["mount", "--cache", "0", "--home", text(&home), text(&drive)], "the drive is");
    let mounted = mount();
    (FILES / 2..FILES).for_each(|number| write(&drive, number));
    assert!(mounted.stop().success());
    // The root may be on three nodes of the cellar still: nobody moves it but its owner.
    let cellar = keepers(&home).into_iter().filter(|number| *number <= 3);
    for number in cellar.skip(1) {
        run(common::PROGRAM, &["node", "replace", &number.to_string(), "--home", text(&home)]);
    }
    let now = keepers(&home);
    assert!(now.contains(&4) && now.contains(&5) && now.len() == 3, "{now:?}");

    // What was put before anybody said anything lies in three zones as well: attic and shed have all of it.
    eventually("every node has what it is to have", SOON, || {
        let status = status(&home);
        let blocks: Vec<u64> = each(&status, "blocks").iter().filter_map(Value::as_u64).collect();
        let has_all = |with: &Value| with.as_array().is_some_and(|with| with.len() == 4);
        status["health"] == "healthy"
            && each(&status, "caught_up_with").iter().all(has_all)
            && blocks.len() == 5
            && blocks[3] == blocks[4]
            && blocks[3] >= FILES as u64
    });
    let before = status(&home);
    assert_eq!(each(&before, "zone"), zones);
    assert_eq!(before["nodes"][4]["capacity_bytes"], 3u64 << 30);
    assert!(before["nodes"][4]["total_bytes"].as_u64().unwrap() <= 3 << 30);

    // Their power goes: nobody says goodbye, and no connection is closed.
    running[..3].iter().for_each(|node| signal(node.pid(), Signal::STOP));
    eventually("it is told what happened", SOON, || {
        let after = status(&home);
        (after["health"].as_str(), after["lost_zone"].as_str()) == (Some("degraded"), Some("cellar"))
    });
    let said = String::from_utf8(storage_node(&["status", "--home", text(&home)]).stdout).unwrap();
    assert!(said.contains("all that is away is in zone cellar") && said.contains("2 of 5 nodes"), "{said}");
    running.drain(..3).for_each(Running::kill);
    // Whoever never saw the drive reads all of it, and writes.
    fs::remove_dir_all(home.join("client")).unwrap();
    let mounted = mount();
    for number in 0..FILES {
        assert_eq!(fs::read(drive.join(format!("f{number}"))).unwrap(), content(number), "f{number}");
    }
    write(&drive, FILES);
    assert!(mounted.stop().success());

    // They come back, and remember where they stand.
    running.extend((1..=3).map(|number| start(number, &[])));
    eventually("all are there", SOON, || {
        let status = status(&home);
        status["health"] == "healthy" && each(&status, "zone") == zones
    });
    let list = run(common::PROGRAM, &["node", "list", "--home", text(&home)]);
    assert_eq!(list.matches("in zone cellar").count(), 3, "{list}");
    assert!(list.contains("in zone shed, takes 3.0 GiB at most"), "{list}");
    for node in running {
        assert!(node.stop().success());
    }
}
