//! A home is lost, keys and all, and 24 words and the address of one node bring it back.
//!
//! What went wrong before: whoever lost the home that made the network had lost the drive, with every byte of it still on nodes
//! that were in the best of health. The nodes here are processes of their own, in directories that outlive the home.

mod common;

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use common::garbage::gc;
use common::running::Running;
use common::{PROGRAM, Place, ended_within, eventually, fuse_is_usable, run, storage_node, text};

/// Seconds are meant; a loaded machine may take longer.
const SOON: Duration = Duration::from_secs(60);

/// What a command does that is given `input`.
fn given(input: &str, arguments: &[&str]) -> Output {
    let command = &mut Command::new(PROGRAM);
    let command = command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // Whoever does not want it has ended already.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// What `recover` says, which must be no.
fn refusal(words: &str, arguments: &[&str]) -> String {
    let output = given(words, &[&["recover", "--words-fd", "0"], arguments].concat());
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    said(&output)
}

fn ticket(home: &Path) -> String {
    run(PROGRAM, &["invite", "--home", text(home)]).trim().to_owned()
}

/// The key of the one writer who is a member still.
fn writer(home: &Path) -> String {
    let listed = run(PROGRAM, &["members", "--home", text(home), "--json"]);
    let listed: serde_json::Value = serde_json::from_str(&listed).unwrap();
    let mut writers = listed["members"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|member| member["role"] == "writer" && member["revoked_since"].is_null());
    let key = writers.next().unwrap()["key"].as_str().unwrap().to_owned();
    assert!(writers.next().is_none(), "{listed}");
    key
}

/// Whether the drive may still be sealed to a member, as the home knows it.
fn may_be_on_drive(home: &Path, key: &str) -> bool {
    let roll: serde_json::Value =
        serde_json::from_slice(&fs::read(home.join("members/roll.json")).unwrap()).unwrap();
    let member = roll["members"].as_array().unwrap().iter().find(|member| member["key"] == key).unwrap();
    member["may_be_on_drive"].as_bool().unwrap()
}

/// As it is in a home that was made anew when those nodes had gone.
fn forget_addresses(network: &Path) {
    let mut content: serde_json::Value = serde_json::from_slice(&fs::read(network).unwrap()).unwrap();
    content["nodes"]
        .as_array_mut()
        .unwrap()
        .iter_mut()
        .for_each(|node| node["address"] = serde_json::Value::Null);
    fs::write(network, content.to_string()).unwrap();
}

/// Nodes that are nobody's children, and where each listens.
fn run_nodes(homes: &[&Path]) -> Vec<(Running, String)> {
    let start = |home: &&Path| {
        let node = Running::start(&["run", "--home", text(home)], "listening on");
        let line = node.seen.iter().find(|line| line.contains("listening on")).unwrap();
        let address = line.rsplit(' ').next().unwrap().to_owned();
        (node, address)
    };
    homes.iter().map(start).collect()
}

#[test]
fn a_destroyed_home_comes_back_from_its_words_with_every_byte_and_the_owners_power() {
    if !fuse_is_usable("a_destroyed_home_comes_back_from_its_words_with_every_byte_and_the_owners_power") {
        return;
    }
    let place = Place::new("words");
    let (home, drive, again) = (place.join("home"), place.join("drive"), place.join("again"));
    let (second, third, other) = (place.join("second"), place.join("third"), place.join("other"));
    let up = Running::up(&home, &drive, 3);
    let large: Vec<u8> = (0..3_000_000_u32).map(|at| (at % 251) as u8).collect();
    fs::create_dir(drive.join("photos")).unwrap();
    fs::write(drive.join("photos/large"), &large).unwrap();
    fs::write(drive.join("small"), "before").unwrap();

    // They are shown to nobody by accident.
    let hidden = storage_node(&["recovery", "--home", text(&home)]);
    assert_eq!(hidden.status.code(), Some(1));
    assert!(said(&hidden).contains("at a terminal only"), "{}", said(&hidden));
    let shown = storage_node(&["recovery", "--show", "--home", text(&home)]);
    assert!(shown.status.success(), "{}", said(&shown));
    assert!(String::from_utf8_lossy(&shown.stderr).contains("has everything"), "{}", said(&shown));
    assert!(said(&shown).contains("ALL NODES ARE IN THIS HOME"), "{}", said(&shown));
    let words = String::from_utf8(shown.stdout).unwrap();
    assert!(words.starts_with(" 1. ") && words.contains("24. "));
    let page = place.join("page.html");
    run(PROGRAM, &["recovery", "--page", text(&page), "--home", text(&home)]);
    let printed = fs::read_to_string(&page).unwrap();
    assert!(printed.contains("<svg") && printed.contains("recover --node ADDRESS"));

    // After the words were written down somebody joins, and somebody else is removed, so that the drive has another key.
    let joined = Running::start(
        &["join", "--home", text(&second), &ticket(&home), text(&place.join("b"))],
        "the drive is",
    );
    let removed = writer(&home);
    run(PROGRAM, &["remove", "--home", text(&home), &removed]);
    joined.kill();
    let stays = Running::start(
        &["join", "--home", text(&third), &ticket(&home), text(&place.join("c"))],
        "the drive is",
    );
    fs::write(drive.join("small"), "after").unwrap();
    run(PROGRAM, &["share", "band", "--home", text(&home)]);
    eventually("the space is there", SOON, || fs::write(drive.join("band/song"), "la").is_ok());
    assert!(stays.stop().success());
    let stayed = writer(&home);
    assert!(up.stop().success());

    // The home is gone, and its nodes run somewhere else.
    let nodes: Vec<_> = (1..=3).map(|number| place.join(&format!("node-{number}"))).collect();
    for (number, node) in (1..).zip(&nodes) {
        fs::rename(home.join(format!("nodes/{number}")), node).unwrap();
    }
    fs::remove_dir_all(&home).unwrap();
    let mut running = run_nodes(&nodes.iter().map(|node| node.as_path()).collect::<Vec<_>>());
    let node = ["--node", running[1].1.as_str()];

    // What is wrong is said, and leaves nothing behind that would keep what is right from being done.
    let to = |home| [&node[..], &["--home", home]].concat();
    let swapped = words.replacen(" 1. ", " ", 1).replacen(" 2. ", "zoo ", 1);
    assert!(refusal(&swapped, &to(text(&again))).contains("not 25"));
    let mistyped = words.replacen(words.split_whitespace().nth(1).unwrap(), "abracadabra", 1);
    let told = refusal(&mistyped, &to(text(&again)));
    assert!(told.contains("the 1st is none") && !told.contains("abracadabra"), "{told}");
    let zeros = [["abandon"; 23].join(" "), "zoo".into()].join(" ");
    assert!(refusal(&zeros, &to(text(&again))).contains("are no key"));
    let strangers = [["abandon"; 23].join(" "), "art".into()].join(" ");
    assert!(refusal(&strangers, &to(text(&again))).contains("another network"));
    let nobody = ["--node", "127.0.0.1:9", "--home", text(&again)];
    assert!(refusal(&words, &nobody).contains("no node can be reached"));
    fs::create_dir(&other).unwrap();
    fs::write(other.join("thesis.tex"), "years of work").unwrap();
    assert!(refusal(&words, &to(text(&other))).contains("not empty"));
    assert_eq!(fs::read_dir(&other).unwrap().count(), 1);

    let recovered = given(&words, &[&["recover", "--words-fd", "0"], &to(text(&again))[..]].concat());
    assert!(recovered.status.success(), "{}", said(&recovered));
    assert!(said(&recovered).contains("3 of its nodes"), "{}", said(&recovered));
    assert!(refusal(&words, &to(text(&again))).contains("a network already"));
    // That somebody is on the list of the removed says not that the drive has another key since: who has the home sees to it.
    assert!(may_be_on_drive(&again, &removed));
    // Two nodes of three that were put back from a copy could tell it an old root, which has seen none. So nothing is deleted by the
    // word of fewer than all.
    assert!(running.remove(0).0.stop().success());
    let (succeeded, told) = gc(&again, &[]);
    assert!(
        !succeeded && told.contains("nothing was deleted") && told.contains("of node 1 it is not known"),
        "{told}"
    );
    assert!(told.contains("in the space band: nothing was deleted"), "{told}");
    running.insert(0, run_nodes(&[&nodes[0]]).remove(0));
    eventually("all say the same", SOON, || {
        let (succeeded, told) = gc(&again, &[]);
        assert!(succeeded || told.contains("nothing was deleted"), "{told}");
        succeeded
    });
    let mount = Running::start(&["mount", "--home", text(&again), text(&drive)], "the drive is");
    assert!(fs::read(drive.join("photos/large")).unwrap() == large, "the large file is another one");
    assert_eq!(fs::read_to_string(drive.join("small")).unwrap(), "after");
    assert_eq!(fs::read_to_string(drive.join("band/song")).unwrap(), "la");
    fs::write(drive.join("new"), "from the recovered home").unwrap();

    // It is the owner's: it knows who belongs to it and who was removed, lets people in, and removes them.
    assert_eq!(writer(&again), stayed);
    let listed = run(PROGRAM, &["members", "--home", text(&again)]);
    assert!(listed.contains("removed "), "{listed}");
    eventually("who was removed is taken off the drive", SOON, || !may_be_on_drive(&again, &removed));
    let reader = Running::start(&["mount", "--home", text(&third), text(&place.join("c"))], "the drive is");
    assert_eq!(fs::read_to_string(place.join("c/new")).unwrap(), "from the recovered home");
    assert!(reader.stop().success());
    let fourth = place.join("fourth");
    let invited = Running::start(
        &["join", "--home", text(&fourth), &ticket(&again), text(&place.join("d"))],
        "the drive is",
    );
    fs::write(place.join("d/of d"), "let in by the recovered home").unwrap();
    assert_eq!(fs::read_to_string(drive.join("of d")).unwrap(), "let in by the recovered home");
    assert!(invited.stop().success());
    // Who recovers a home may not know where the nodes are that the network began with: whoever comes by a ticket does by that.
    let fifth = place.join("fifth");
    run(PROGRAM, &["join", "--home", text(&fifth), &ticket(&again)]);
    forget_addresses(&fifth.join("network.json"));
    let found = storage_node(&["status", "--home", text(&fifth)]);
    assert!(found.status.success(), "{}", said(&found));
    run(PROGRAM, &["remove", "--home", text(&again), &stayed]);
    let refused = ended_within(SOON, Command::new(PROGRAM).args(["status", "--home", text(&third)]));
    assert!(said(&refused).contains("removed from this network"), "{}", said(&refused));

    // What the words bring back follows: those who joined since are there from other nodes alone, and once more.
    eventually("the newest is with the nodes", SOON, || {
        let once_more = place.join("once more");
        let _ = fs::remove_dir_all(&once_more);
        let node = ["--node", running[2].1.as_str(), "--home", text(&once_more)];
        let output = given(&words, &[&["recover", "--words-fd", "0"], &node[..]].concat());
        assert!(output.status.success(), "{}", said(&output));
        said(&output).contains("4 members")
    });
    assert!(mount.stop().success());
    running.into_iter().for_each(|(node, _)| assert!(node.stop().success()));
}
