//! One node, in the process that mounts: the least there is, and already a drive that keeps what it was given.
//!
//! What could go wrong: files that are there until the next start, a port that is taken meanwhile, a value that is
//! seen through one door only, a drive that a killed process leaves behind and that blocks the next start.

mod common;

use std::fs;
use std::io::Write;
use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::time::Duration;

use common::random::Random;
use common::running::Running;
use common::{PROGRAM, Place, eventually, fuse_is_usable, is_mounted, storage_node, text};

#[test]
fn files_come_back_after_a_stop_and_after_a_kill() {
    if !fuse_is_usable("files_come_back_after_a_stop_and_after_a_kill") {
        return;
    }
    let place = Place::new("one-node");
    let (home, drive) = (place.join("home"), place.join("drive"));
    let bytes = Random::from_seed(7).bytes(3_000_000);

    let up = Running::up(&home, &drive, 1);
    fs::create_dir_all(drive.join("a/b")).unwrap();
    fs::write(drive.join("a/b/small"), "hello").unwrap();
    fs::write(drive.join("large"), &bytes).unwrap();
    assert!(up.stop().success());
    assert!(!is_mounted(&drive), "still mounted after the end");
    assert_eq!(fs::read_dir(&drive).unwrap().count(), 0, "files were written below the mount");

    // The same command, without --nodes, and with the remembered port taken.
    let network = fs::read_to_string(home.join("network.json")).unwrap();
    let address =
        network.split('"').find(|part| part.starts_with("127.0.0.1:")).expect("an address is remembered");
    let squatter = TcpListener::bind(address).unwrap();
    let up = Running::start(&["up", "--home", text(&home), text(&drive)], "the drive is");
    assert!(up.seen.iter().any(|line| line.contains("found the network of 1 node")));
    assert!(up.seen.iter().any(|line| line.contains("taken by something else")), "{:?}", up.seen);
    drop(squatter);
    assert_eq!(fs::read_to_string(drive.join("a/b/small")).unwrap(), "hello");
    assert_eq!(fs::read(drive.join("large")).unwrap(), bytes);
    let mut file = fs::File::create(drive.join("synced")).unwrap();
    file.write_all(b"acknowledged").unwrap();
    file.sync_all().unwrap();
    drop(file);
    up.kill();
    assert!(is_mounted(&drive), "a killed process leaves its mount behind");

    let up = Running::up(&home, &drive, 1);
    assert!(up.seen.iter().any(|line| line.contains("left behind")), "{:?}", up.seen);
    assert_eq!(fs::read(drive.join("synced")).unwrap(), b"acknowledged");
    assert_eq!(fs::read(drive.join("large")).unwrap(), bytes);
    let output = storage_node(&["umount", text(&drive)]);
    assert!(output.status.success(), "{output:?}");
    let mut up = up;
    assert!(
        up.wait(Duration::from_secs(30)).is_some_and(|status| status.success()),
        "up goes on without its drive"
    );
    assert!(!is_mounted(&drive));
}

#[test]
fn a_value_is_the_same_through_the_command_line_and_through_the_drive() {
    if !fuse_is_usable("a_value_is_the_same_through_the_command_line_and_through_the_drive") {
        return;
    }
    let place = Place::new("values");
    let (home, drive) = (place.join("home"), place.join("drive"));
    let up = Running::up(&home, &drive, 1);
    let home = text(&home);

    let put = |name: &str, value: &[u8]| {
        let mut child =
            Command::new(PROGRAM).args(["put", name, "--home", home]).stdin(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(value).unwrap();
        assert!(child.wait().unwrap().success());
    };
    let value = Random::from_seed(9).bytes(2_500_000);
    put("notes/today", b"written without FUSE");
    put("large", &value);
    put("notes/today", b"written again");

    let got = storage_node(&["get", "notes/today", "--home", home]);
    assert!(got.status.success(), "{got:?}");
    assert_eq!(got.stdout, b"written again");
    let target = place.join("got");
    assert!(storage_node(&["get", "large", text(&target), "--home", home]).status.success());
    assert!(fs::read(&target).unwrap() == value);
    // The drive has another client's writes within moments.
    eventually("the drive shows what was put", Duration::from_secs(10), || {
        fs::read(drive.join("notes/today")).is_ok_and(|bytes| bytes == b"written again")
    });
    assert!(fs::read(drive.join("large")).unwrap() == value);
    let names: Vec<_> =
        fs::read_dir(drive.join("notes")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["today"], "a temporary file stayed behind");

    // And the other way round.
    let mut file = fs::File::create(drive.join("from the drive")).unwrap();
    file.write_all(b"hello").unwrap();
    file.sync_all().unwrap();
    assert_eq!(storage_node(&["get", "from the drive", "--home", home]).stdout, b"hello");
    let missing = storage_node(&["get", "nothing", "--home", home]);
    assert_eq!(missing.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&missing.stderr).contains("there is nothing named"));

    let status = storage_node(&["status", "--json", "--home", home]);
    let status: serde_json::Value = serde_json::from_slice(&status.stdout).unwrap();
    assert_eq!(status["health"], "healthy");
    assert_eq!(status["nodes"][0]["answers"], true);
    assert!(status["blocks"].as_u64().unwrap() > 0);
    let text = storage_node(&["status", "--home", home]);
    assert!(String::from_utf8_lossy(&text.stdout).starts_with("healthy"));
    assert!(up.stop().success());
    let down = storage_node(&["status", "--home", home]);
    assert!(String::from_utf8_lossy(&down.stdout).starts_with("down"), "{down:?}");
}

#[test]
fn what_write_back_acknowledged_survives_a_kill_with_and_without_the_option() {
    if !fuse_is_usable("what_write_back_acknowledged_survives_a_kill_with_and_without_the_option") {
        return;
    }
    let place = Place::new("write-back");
    let (home, drive) = (place.join("home"), place.join("drive"));
    let with = ["up", "--write-back", "--home", text(&home), text(&drive)];
    let without = ["up", "--home", text(&home), text(&drive)];
    let write = |name: &str| {
        let mut file = fs::File::create(drive.join(name)).unwrap();
        file.write_all(name.as_bytes()).unwrap();
        file.sync_all().unwrap();
    };
    let is_there = |name: &str| assert_eq!(fs::read_to_string(drive.join(name)).unwrap(), name);

    let up = Running::start(&with, "the drive is");
    write("first");
    up.kill();
    let up = Running::start(&with, "the drive is");
    is_there("first");
    write("second");
    up.kill();
    let up = Running::start(&without, "the drive is");
    is_there("first");
    is_there("second");
    eventually("the journal is empty once all in it is stored", Duration::from_secs(60), || {
        let mut files = fs::read_dir(home.join("client/journal")).unwrap();
        // A note of who used it stays.
        files.all(|file| !file.unwrap().file_name().to_str().unwrap().starts_with("journal-"))
    });
    write("third");
    up.kill();
    let up = Running::start(&with, "the drive is");
    ["first", "second", "third"].into_iter().for_each(is_there);
    assert!(up.stop().success());
}
