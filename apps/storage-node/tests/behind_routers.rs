//! Machines behind routers of their own and one small node outside: they join by tickets, store blocks for each other, and
//! share a drive, directly where the routers allow it and over the node outside where they do not. They move while files are
//! copied.
//!
//! What went wrong: nothing behind a router could be dialled, so no node there was of any use, and two machines shared a drive
//! only where one could dial the other.
//!
//! It takes root, `ip`, `nft`, and FUSE.

mod common;
#[path = "../../../reactor/tests/nat_lab/mod.rs"]
mod nat_lab;

use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

use overlay::NodeId;
use serde_json::Value;

use common::running::Running;
use common::{PROGRAM, Place, ended_within, eventually, fuse_is_usable, keys, loud, text};
use nat_lab::{Kind, Lab, PUBLIC, Site};

/// Seconds are meant; a loaded machine may take longer.
const SOON: Duration = Duration::from_secs(90);
const FILES: usize = 24;
const FILE_BYTES: usize = 200_000;

/// Who stands where: a node behind each of the first two, a drive behind each of the others.
const KINDS: [Kind; 4] = [Kind::PortRestricted, Kind::Symmetric, Kind::Symmetric, Kind::PortRestricted];

fn on(lab: &Lab, place: &str, arguments: &[&str]) -> Command {
    let mut command = lab.on_the_network_of(place, PROGRAM);
    command.args(arguments);
    command
}

fn start(lab: &Lab, place: &str, arguments: &[&str], ready: &str) -> Running {
    Running::start_with(&mut on(lab, place, arguments), ready)
}

fn printed(lab: &Lab, place: &str, arguments: &[&str]) -> String {
    let output = ended_within(SOON, &mut on(lab, place, arguments));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{arguments:?} said {said}");
    String::from_utf8(output.stdout).unwrap()
}

/// The word in which round a file is written, over and over: no two alike.
fn content(round: &str, number: usize) -> Vec<u8> {
    format!("{round} {number};").bytes().cycle().take(FILE_BYTES).collect()
}

fn write_all(drive: &Path, round: &str) {
    fs::create_dir(drive.join(round)).unwrap();
    for number in 0..FILES {
        fs::write(drive.join(round).join(number.to_string()), content(round, number)).unwrap();
    }
}

fn reads_all(drive: &Path, round: &str) {
    let path = |number: usize| drive.join(round).join(number.to_string());
    eventually("the files are there", SOON, || path(FILES - 1).exists());
    for number in 0..FILES {
        eventually("a file is as it was written", SOON, || {
            fs::read(path(number)).is_ok_and(|bytes| bytes == content(round, number))
        });
    }
}

/// What `netcheck` says of the nodes, as seen from a home's place.
fn netcheck(lab: &Lab, place: &str, home: &Path, options: &[&str]) -> Value {
    let arguments = [&["netcheck", "--json", "--home", text(home)], options].concat();
    serde_json::from_str(&printed(lab, place, &arguments)).unwrap()
}

fn reached(check: &Value) -> &str {
    check["nodes"][0]["reached"].as_str().unwrap_or("nothing")
}

#[test]
fn machines_behind_routers_store_for_each_other_and_share_a_drive_while_they_move() {
    let story = "machines_behind_routers_store_for_each_other_and_share_a_drive_while_they_move";
    if !fuse_is_usable(story) || !nat_lab::is_usable(story) {
        return;
    }
    let place = Place::new("routers");
    let lab = Lab::new("s", &KINDS.map(Site::from));
    let (home, outside) = (place.join("home"), place.join("outside"));
    let nodes = ["n0", "n1"].map(|name| place.join(name));
    let homes = ["h2", "h3"].map(|name| place.join(name));
    let [near, far] = ["near", "far"].map(|name| place.join(name));

    // A network is founded on the machine outside; the others have nothing but tickets.
    let founded = ["up", "--home", text(&home), "--listen", PUBLIC[0], text(&outside)];
    let up = start(&lab, "pub", &founded, "it relays for members");
    let invite = |role| {
        let asked = ["invite", "--home", text(&home), "--role", role, "--uses", "2"];
        printed(&lab, "pub", &asked).trim().to_owned()
    };
    let (for_nodes, for_writers) = (invite("node"), invite("writer"));
    let join_node = |at: usize| {
        start(&lab, &format!("host{at}"), &["join", "--home", text(&nodes[at]), &for_nodes], "listening on")
    };
    let mut running = vec![join_node(0), join_node(1)];
    let join = |at: usize, home: &Path, drive: &Path| {
        let words = ["join", "--home", text(home), &for_writers, text(drive)];
        start(&lab, &format!("host{at}"), &words, "the drive is")
    };
    running.extend([join(2, &homes[0], &near), join(3, &homes[1], &far)]);

    // Each block is on one node, so both that only a relay leads to have their share of them.
    write_all(&near, "first");
    reads_all(&far, "first");
    let status = ["status", "--json", "--home", text(&homes[1])];
    let status: Value = serde_json::from_str(&printed(&lab, "host3", &status)).unwrap();
    let held = |node: &Value| node["blocks"].as_u64().unwrap();
    let listed = status["nodes"].as_array().unwrap();
    assert!(listed.len() == 3 && listed.iter().all(|node| held(node) > 0), "{status}");

    // Directly where one router shows all the same port, and over the relay where none does.
    let ids = nodes
        .each_ref()
        .map(|home| NodeId::of(&keys::identity(&home.join("node.key")).public_key()).to_string());
    for id in &ids {
        let punched = netcheck(&lab, "host3", &homes[1], &["--to", id, "--seconds", "60"]);
        assert_eq!(reached(&punched), "punched", "{punched}");
    }
    let relayed = netcheck(&lab, "host2", &homes[0], &["--to", &ids[1], "--seconds", "2"]);
    assert_eq!(reached(&relayed), "relayed", "{relayed}");

    // A node whose machine has another address in its own network is found through its router as before.
    lab.readdress(0);
    let punched = netcheck(&lab, "host3", &homes[1], &["--to", &ids[0], "--seconds", "60"]);
    assert_eq!(reached(&punched), "punched", "{punched}");

    // One moves to another address while it copies, and then the machine outside is gone for a while.
    thread::scope(|s| {
        let copying = s.spawn(|| write_all(&near, "second"));
        thread::sleep(Duration::from_millis(200));
        lab.move_site(2);
        copying.join().unwrap();
        reads_all(&far, "second");
        let copying = s.spawn(|| write_all(&far, "third"));
        thread::sleep(Duration::from_millis(200));
        lab.plug_public(false);
        thread::sleep(Duration::from_secs(3));
        lab.plug_public(true);
        copying.join().unwrap();
        reads_all(&near, "third");
    });
    show(&lab, &homes, &ids);
    let members = printed(&lab, "pub", &["members", "--home", text(&home)]);
    assert_eq!(members.matches("connected").count(), 6, "{members}");
    running.push(up);
    for process in running {
        assert!(process.stop().success());
    }
}

/// Prints how each node was reached from both drives, and after how long.
fn show(lab: &Lab, homes: &[std::path::PathBuf; 2], ids: &[String; 2]) {
    for (at, home) in [2, 3].into_iter().zip(homes) {
        let found = netcheck(lab, &format!("host{at}"), home, &["--seconds", "2"]);
        for node in found["nodes"].as_array().unwrap() {
            let kind = ids.iter().position(|id| node["id"] == id.as_str()).map(|at| KINDS[at]);
            let to = kind.map_or("outside".into(), |kind| format!("{kind:?}"));
            loud(&format!(
                "{:?} to {to}: {}, first reply {} ms, direct {} ms, then {} ms",
                KINDS[at],
                node["reached"],
                node["first_reply_ms"],
                node["direct_after_ms"],
                node["round_trip_ms"]
            ));
        }
    }
}
