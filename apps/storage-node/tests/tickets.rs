//! Another machine joins with one line, and no key is ever copied.
//!
//! The homes here are one machine's each, as far as the program can tell: nothing passes between them but a ticket.

mod common;

use std::fs;
use std::io::{ErrorKind, Write};
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use data_encoding::BASE32_NOPAD;
use reactor::crypto::hash::sha3_256;
use rustix::process::Signal;

use common::keys;
use common::running::{Running, signal};
use common::{PROGRAM, Place, ended_within, eventually, fuse_is_usable, run, text};

/// What the kernel calls it: EKEYREVOKED.
const KEY_REVOKED: i32 = 128;
/// Seconds are meant; a loaded machine may take longer.
const SOON: Duration = Duration::from_secs(60);

fn ticket(home: &Path, options: &[&str]) -> String {
    let arguments = [&["invite", "--home", text(home)], options].concat();
    run(PROGRAM, &arguments).trim().to_owned()
}

/// The ticket of somebody who makes himself a writer, and knows how the checksum is made.
fn tampered(ticket: &str) -> String {
    let encoded = ticket.strip_prefix("hypha1").unwrap().to_ascii_uppercase();
    let mut bytes = BASE32_NOPAD.decode(encoded.as_bytes()).unwrap();
    bytes.truncate(bytes.len() - 4);
    // Behind the network and the secret: 2 for a reader, 1 for a writer.
    assert_eq!(std::mem::replace(&mut bytes[64], 1), 2);
    let sum = sha3_256(&[b"hypha ticket 1", &bytes]);
    bytes.extend_from_slice(&sum[..4]);
    format!("hypha1{}", BASE32_NOPAD.encode(&bytes).to_ascii_lowercase())
}

/// What `join` says, which must be no.
fn refusal(arguments: &[&str]) -> String {
    let output = ended_within(SOON, Command::new(PROGRAM).arg("join").args(arguments));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    said
}

/// How many nodes answer whom a home is for.
fn answering(home: &Path) -> usize {
    let asked = ["status", "--home", text(home), "--json"];
    let output = ended_within(SOON, Command::new(PROGRAM).args(asked));
    String::from_utf8_lossy(&output.stdout).matches("\"answers\": true").count()
}

/// What a command of the owner's home prints.
fn printed(home: &Path, arguments: &[&str]) -> String {
    run(PROGRAM, &[arguments, &["--home", text(home)]].concat())
}

#[test]
fn who_is_invited_gets_in_once_and_may_do_what_the_ticket_says() {
    if !fuse_is_usable("who_is_invited_gets_in_once_and_may_do_what_the_ticket_says") {
        return;
    }
    let place = Place::new("tickets");
    let (home, a, b, c) = (place.join("home"), place.join("a"), place.join("b"), place.join("c"));
    let (second, third, node) = (place.join("second"), place.join("third"), place.join("node"));
    let other = place.join("other");
    let up = Running::up(&home, &a, 1);
    fs::write(a.join("of a"), "written before anybody joined").unwrap();

    // A writer: both see each other's files, and B has keys of its own.
    let writers = ticket(&home, &[]);
    let writer = Running::start(&["join", "--home", text(&second), &writers, text(&b)], "the drive is");
    assert_eq!(fs::read_to_string(b.join("of a")).unwrap(), "written before anybody joined");
    fs::write(b.join("of b"), "here").unwrap();
    assert_eq!(fs::read_to_string(a.join("of b")).unwrap(), "here");
    assert_ne!(fs::read(home.join("user.key")).unwrap(), fs::read(second.join("user.key")).unwrap());
    assert!(!second.join("owner.key").exists());
    // The mount that goes on has the ticket nowhere that others on the machine could read.
    let line = fs::read(format!("/proc/{}/cmdline", writer.pid())).unwrap();
    let line = String::from_utf8_lossy(&line).into_owned();
    assert!(line.contains("mount") && !line.contains(&writers), "{line}");

    // It is worth nothing now, for anybody else and for who was let in.
    let said = refusal(&["--home", text(&other), &writers]);
    assert!(said.contains("used already"), "{said}");
    let said = refusal(&["--home", text(&second), &writers]);
    assert!(said.contains("belongs to this network already"), "{said}");

    // A reader reads, and changes nothing.
    let readers = ticket(&home, &["--role", "reader"]);
    let reader = Running::start(&["join", "--home", text(&third), &readers, text(&c)], "the drive is");
    assert_eq!(fs::read_to_string(c.join("of b")).unwrap(), "here");
    let refused = fs::write(c.join("of c"), "not to be").unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ReadOnlyFilesystem, "{refused}");
    fs::write(b.join("later"), "also here").unwrap();
    eventually("the reader sees what comes", SOON, || {
        fs::read_to_string(c.join("later")).is_ok_and(|content| content == "also here")
    });

    // Each wrong ticket has its own word.
    let good = ticket(&home, &[]);
    let mut slipped = good.clone();
    slipped.replace_range(40..41, if &good[40..41] == "a" { "b" } else { "a" });
    let expired = ticket(&home, &["--expires", "0s"]);
    let forged = tampered(&ticket(&home, &["--role", "reader"]));
    let wrong = [
        (slipped.as_str(), "mistyped"),
        (&forged, "tampered with"),
        (&expired, "expired"),
        ("hello", "no ticket"),
    ];
    for (wrong, word) in wrong {
        let said = refusal(&["--home", text(&other), wrong]);
        assert!(said.contains(word), "{said}");
    }
    // Sent to a home that has its own network, or to a machine that reaches nobody.
    let stranger = place.join("stranger");
    let elsewhere = Running::up(&stranger, &place.join("d"), 1);
    let said = refusal(&["--home", text(&stranger), &good]);
    assert!(said.contains("another network"), "{said}");
    assert!(elsewhere.stop().success());
    for process in [reader, writer, up] {
        assert!(process.stop().success());
    }
    let said = refusal(&["--home", text(&other), &good]);
    assert!(said.contains("can be reached"), "{said}");

    // What was joined stays: no ticket is needed again. It is no home that `up` could start.
    let output = ended_within(SOON, Command::new(PROGRAM).args(["up", "--home", text(&second), text(&b)]));
    assert!(String::from_utf8_lossy(&output.stderr).contains("no nodes of its own"));
    // Its passport has ended meanwhile. While the owner is away it is told so, and what helps; the owner's `up` then gives
    // the nodes another, and they give it to who was away.
    keys::let_expire(&home, &second);
    let (alone, asked) = (home.join("nodes/1"), ["status", "--home", text(&second)]);
    fs::remove_file(alone.join("renewals")).unwrap();
    let alone = Running::start(&["run", "--home", text(&alone)], "listening on");
    let output = ended_within(SOON, Command::new(PROGRAM).args(asked));
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(told.contains("has expired") && told.contains("renews passports"), "{told}");
    assert!(alone.stop().success());
    let up = Running::up(&home, &a, 1);
    eventually("the nodes have the renewed passports", SOON, || home.join("nodes/1/renewals").exists());
    let writer = Running::start(&["mount", "--home", text(&second), text(&b)], "the drive is");
    eventually("it has its own", SOON, || second.join("renewals").exists());
    fs::write(b.join("again"), "here").unwrap();
    assert_eq!(fs::read_to_string(a.join("again")).unwrap(), "here");

    // The nodes move, and nobody told it: a ticket does, and is not used up by that.
    for process in [writer, up] {
        assert!(process.stop().success());
    }
    let moved = ["up", "--home", text(&home), "--listen", "127.0.0.2", text(&a)];
    let up = Running::start(&moved, "the drive is");
    assert_eq!(answering(&second), 0);
    let said = refusal(&["--home", text(&second), &ticket(&home, &[])]);
    assert!(said.contains("belongs to this network already"), "{said}");
    assert_eq!(answering(&second), 1);
    let writer = Running::start(&["mount", "--home", text(&second), text(&b)], "the drive is");

    // A node serves.
    let nodes = ticket(&home, &["--role", "node"]);
    let joined = Running::start(&["join", "--home", text(&node), &nodes], "listening on");
    eventually("the node is one of two", SOON, || answering(&home) == 2 && answering(&second) == 2);
    assert!(joined.stop().success());
    let joined = Running::start(&["run", "--home", text(&node)], "listening on");
    for process in [writer, up] {
        assert!(process.stop().success());
    }
    // Neither the description nor any ticket that it had names this node: it has met it.
    assert_eq!(answering(&second), 1);
    assert!(joined.stop().success());
}

#[test]
fn who_is_removed_reads_and_writes_nothing_more_also_through_a_node_that_slept() {
    if !fuse_is_usable("who_is_removed_reads_and_writes_nothing_more_also_through_a_node_that_slept") {
        return;
    }
    let place = Place::new("removed");
    let (home, a, b, c) = (place.join("home"), place.join("a"), place.join("b"), place.join("c"));
    let (second, third) = (place.join("second"), place.join("third"));
    let mut up = Running::up(&home, &a, 3);
    let invited = ticket(&home, &["--uses", "3"]);
    let joins = |home, drive| {
        Running::start(&["join", "--as", "bob", "--home", text(home), &invited, text(drive)], "the drive is")
    };
    let (mut removed, stays) = (joins(&second, &b), joins(&third, &c));
    fs::write(b.join("of b"), "here").unwrap();
    assert_eq!(fs::read_to_string(c.join("of b")).unwrap(), "here");

    // Both call themselves the same, and are told apart all the same.
    let listed = printed(&home, &["members"]);
    assert_eq!(listed.matches(" writer ").count(), 2, "{listed}");
    assert!(listed.contains("connected, at 127.0.0.1:"), "{listed}");
    let mut json = serde_json::Value::Null;
    eventually("it is told how long a call of each node takes", SOON, || {
        json = serde_json::from_str(&printed(&home, &["members", "--json"])).unwrap();
        let nodes = json["members"].as_array().unwrap().iter().filter(|member| member["role"] == "node");
        let took: Vec<f64> = nodes.filter_map(|node| node["last_seen"]["round_trip_ms"].as_f64()).collect();
        took.len() == 3 && took.iter().all(|took| *took > 0.0)
    });
    assert!(listed.contains(" ms there and back"), "{listed}");
    let writers: Vec<&serde_json::Value> =
        (json["members"].as_array().unwrap().iter()).filter(|member| member["role"] == "writer").collect();
    let second_key = keys::identity(&second.join("user.key")).public_key().to_string();
    let leaver = writers.iter().find(|writer| writer["key"] == second_key.as_str()).unwrap();
    let id = leaver["id"].as_str().unwrap();
    assert_eq!(writers.iter().map(|writer| &writer["name"]).collect::<Vec<_>>(), ["bob", "bob-2"]);
    assert_eq!(leaver["name"], "bob", "who came first has the name");
    // What they make carries the names that they are known by, and not those of accounts on their machines.
    printed(&third, &["snapshot", "of-one-of-them"]);
    let snapshots = printed(&home, &["snapshots"]);
    assert!(snapshots.contains("by bob-2"), "{snapshots}");

    // Each home's key opens the root; and one of them writes something, and has yet to close it.
    let members = [&third, &second].map(|home| keys::identity(&home.join("user.key")));
    let members = [&members[0], &members[1]];
    assert_eq!(keys::that_open_the_root(&home, &members), members.map(|member| member.public_key()));
    let mut half = fs::File::create(b.join("half")).unwrap();
    half.write_all(b"half of it").unwrap();

    // One node hears nothing of it: its connections stay open meanwhile.
    let sleeper = up.node_pid(2).unwrap();
    signal(sleeper, Signal::STOP);
    let said = printed(&home, &["remove", "bob"]);
    signal(sleeper, Signal::CONT);
    assert!(said.contains("is removed") && said.contains("a new key"), "{said}");
    assert!(said.contains("by the same ticket came, and stay: bob-2"), "{said}");
    fs::write(a.join("later"), "not for everybody").unwrap();

    // Nobody serves it, on whatever connection; and the node that slept has that on its disk.
    eventually("the node that slept keeps the list", SOON, || home.join("nodes/2/revoked").exists());
    eventually("it is connected to nobody", SOON, || {
        let listed = printed(&home, &["members"]);
        let line = listed.lines().find(|line| line.starts_with(&id[..12])).unwrap();
        assert!(line.contains("removed "), "{line}");
        line.contains("seen ") && !line.contains("connected")
    });
    // Who stays reads and writes as before, with the new key; who was removed could not read what comes now, whoever gave
    // it to it.
    eventually("who stays reads on", SOON, || {
        fs::read_to_string(c.join("later")).is_ok_and(|content| content == "not for everybody")
    });
    fs::write(c.join("of c"), "here").unwrap();
    assert_eq!(fs::read_to_string(a.join("of c")).unwrap(), "here");
    assert_eq!(keys::that_open_the_root(&home, &members), [members[0].public_key()]);

    // Its mount says so, and neither takes what it is given nor says that this is safe; what it had stays to be copied.
    let said = "removed from this network on 20";
    assert!(removed.wait_for(said, SOON), "{}", removed.drain());
    assert!(fs::read(b.join("later")).is_err(), "it read what is not for it");
    let is_revoked = |result: std::io::Result<()>| {
        let error = result.unwrap_err();
        assert_eq!(error.raw_os_error(), Some(KEY_REVOKED), "{error}");
    };
    // Until that is synced it is the kernel's, if that likes.
    is_revoked(half.write_all(b"more").and_then(|()| half.sync_all()));
    is_revoked(fs::write(b.join("late"), "late"));
    is_revoked(fs::remove_file(b.join("of b")));
    assert_eq!(fs::read_to_string(b.join("half")).unwrap(), "half of it");
    drop(half);
    signal(removed.pid(), Signal::TERM);
    assert!(!removed.wait(SOON).expect("it ends").success());
    let end = removed.drain();
    assert!(!end.contains("that start puts it in"), "{end}");
    for arguments in [&["status", "--json"][..], &["put", "late", text(&a.join("later"))], &["get", "of b"]] {
        let output: Output =
            ended_within(SOON, Command::new(PROGRAM).args(arguments).args(["--home", text(&second)]));
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(1) && told.contains(said), "{arguments:?}: {told}");
    }
    let mut again = Running::start(&["mount", "--home", text(&second), text(&b)], "the drive is");
    assert!(again.seen.iter().any(|line| line.contains(said)) || again.wait_for(said, SOON));
    assert_eq!(fs::read_to_string(b.join("half")).unwrap(), "half of it");
    is_revoked(fs::write(b.join("late"), "late"));
    assert!(!again.stop().success());
    assert!(!a.join("late").exists());
    assert_eq!(fs::read_to_string(a.join("half")).unwrap(), "half of it");

    // Invited again it joins in that home, as somebody new; what it had can still be looked at.
    let anew = ticket(&home, &[]);
    let back = Running::start(&["join", "--home", text(&second), &anew, text(&b)], "the drive is");
    assert_eq!(fs::read_to_string(b.join("later")).unwrap(), "not for everybody");
    fs::write(b.join("back"), "here").unwrap();
    assert_eq!(fs::read_to_string(a.join("back")).unwrap(), "here");
    assert!(back.stop().success());
    let aside = second.join("removed-1");
    let old = Running::start(&["mount", "--home", text(&aside), text(&b)], "the drive is");
    assert_eq!(fs::read_to_string(b.join("half")).unwrap(), "half of it");
    assert!(!old.stop().success());

    // It has the ticket that it came with, which was good once more, and does not come back by that.
    let said = refusal(&["--home", text(&place.join("back")), &invited]);
    assert!(said.contains("was revoked"), "{said}");

    // A node may hold the only copies of blocks: it goes once others have them, or at a word not said lightly.
    let node = place.join("node");
    let nodes = ticket(&home, &["--role", "node"]);
    let mut joined = Running::start(&["join", "--home", text(&node), &nodes], "listening on");
    let json: serde_json::Value = serde_json::from_str(&printed(&home, &["members", "--json"])).unwrap();
    let mut joiners = json["members"].as_array().unwrap().iter().filter(|member| member["since"].is_u64());
    let newcomer = joiners.find(|member| member["role"] == "node").unwrap()["key"].as_str().unwrap();
    let listed = printed(&home, &["node", "list"]);
    assert!(listed.lines().any(|line| line.starts_with("4 ")), "it has a number: {listed}");
    let said = printed(&home, &["remove", newcomer]);
    assert!(said.contains("is removed") && said.contains("counts no more"), "{said}");
    assert!(printed(&home, &["remove", "--now", newcomer]).contains("is removed"));
    let listed = printed(&home, &["node", "list"]);
    assert!(!listed.lines().any(|line| line.starts_with("4 ")), "{listed}");
    // It ends, says why, and does not start again.
    let status = joined.wait(SOON).unwrap_or_else(|| panic!("it runs on:\n{}", joined.drain()));
    assert!(status.code() == Some(1) && joined.drain().contains("this node was removed"), "{status}");
    let output = ended_within(SOON, Command::new(PROGRAM).args(["run", "--home", text(&node)]));
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(1) && told.contains("this node was removed"), "{told}");
    let nodes = ticket(&home, &["--role", "node"]);
    let joined = Running::start(&["join", "--home", text(&node), &nodes], "listening on");
    assert!(node.join("removed-1/store").is_dir() && node.join("store").is_dir());

    // A ticket that was taken back lets nobody in.
    let revoked = ticket(&home, &["--role", "reader"]);
    let json: serde_json::Value = serde_json::from_str(&printed(&home, &["members", "--json"])).unwrap();
    let unused =
        json["tickets"].as_array().unwrap().iter().find(|ticket| ticket["role"] == "reader").unwrap();
    printed(&home, &["remove", unused["key"].as_str().unwrap()]);
    let said = refusal(&["--home", text(&place.join("fourth")), &revoked]);
    assert!(said.contains("was revoked"), "{said}");
    for process in [stays, joined, up] {
        assert!(process.stop().success());
    }
}
