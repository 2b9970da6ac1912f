//! What programs rely on in `put`, `status`, and a mount from two small files.
//!
//! `put` over a name once made another file of it, and lost its mode, owner and attributes; killed, it left a `.put-`
//! file for ever. `status` said by its exit status that a network is well which was down. The help's own example of a
//! mount from another machine failed for want of a directory.

mod common;

use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::process::{Command, Stdio};
use std::time::Duration;

use common::random::Random;
use common::running::Running;
use common::{PROGRAM, Place, ended_within, eventually, fuse_is_usable, storage_node, text};
use rustix::fs::{XattrFlags, getxattr, setxattr};

const LIMIT: Duration = Duration::from_secs(90);

#[test]
fn a_value_that_is_put_again_keeps_all_but_its_content() {
    if !fuse_is_usable("a_value_that_is_put_again_keeps_all_but_its_content") {
        return;
    }
    let place = Place::new("put-again");
    let (home, drive, source) = (place.join("home"), place.join("drive"), place.join("source"));
    let up = Running::up(&home, &drive, 1);
    let value = drive.join("value");
    fs::write(&value, "old").unwrap();
    fs::set_permissions(&value, fs::Permissions::from_mode(0o640)).unwrap();
    setxattr(&value, "user.colour", b"blue", XattrFlags::empty()).unwrap();
    fs::hard_link(&value, drive.join("other name")).unwrap();
    let is_root = rustix::process::geteuid().is_root();
    if is_root {
        chown(&value, Some(1234), Some(2345)).unwrap();
    }
    fs::File::open(&value).unwrap().sync_all().unwrap();
    fs::write(&source, "the new content").unwrap();
    let put = storage_node(&["put", "value", text(&source), "--home", text(&home)]);
    assert!(put.status.success(), "{put:?}");
    eventually("the drive shows what was put", LIMIT, || {
        fs::read_to_string(&value).is_ok_and(|content| content == "the new content")
    });
    let metadata = fs::metadata(&value).unwrap();
    assert_eq!(metadata.permissions().mode() & 0o7777, 0o640);
    if is_root {
        assert_eq!((metadata.uid(), metadata.gid()), (1234, 2345));
    }
    let mut colour = [0; 16];
    let length = getxattr(&value, "user.colour", &mut colour).unwrap();
    assert_eq!(&colour[..length], b"blue");
    assert_eq!(fs::read_to_string(drive.join("other name")).unwrap(), "old");
    assert!(up.stop().success());
}

#[test]
fn a_killed_put_leaves_no_name_behind() {
    if !fuse_is_usable("a_killed_put_leaves_no_name_behind") {
        return;
    }
    let place = Place::new("killed-put");
    let (home, drive) = (place.join("home"), place.join("drive"));
    let up = Running::up(&home, &drive, 1);
    let mut put = Command::new(PROGRAM)
        .args(["put", "large", "--home", text(&home)])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = put.stdin.take().unwrap();
    // More than waits for a commit, so that some of it is committed.
    let piece = Random::from_seed(5).bytes(1 << 20);
    for _ in 0..48 {
        input.write_all(&piece).unwrap();
    }
    let used = |home: &std::path::Path| {
        let status = storage_node(&["status", "--json", "--home", text(home)]);
        let status: serde_json::Value = serde_json::from_slice(&status.stdout).unwrap_or_default();
        status["used_bytes"].as_u64().unwrap_or(0)
    };
    eventually("some of it is stored", LIMIT, || used(&home) > 8 << 20);
    put.kill().unwrap();
    put.wait().unwrap();
    // The drive sees the newest root within a second or two.
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(fs::read_dir(&drive).unwrap().count(), 0, "{:?}", fs::read_dir(&drive).unwrap().next());
    assert!(up.stop().success());
}

#[test]
fn status_says_by_its_exit_status_whether_all_is_well() {
    if !fuse_is_usable("status_says_by_its_exit_status_whether_all_is_well") {
        return;
    }
    let place = Place::new("status");
    let (home, drive) = (place.join("home"), place.join("drive"));
    let status =
        || ended_within(LIMIT, Command::new(PROGRAM).args(["--home", text(&home), "status"])).status.code();
    let up = Running::up(&home, &drive, 3);
    eventually("the nodes have compared what they have", LIMIT, || status() == Some(0));
    assert!(up.stop().success());
    assert_eq!(status(), Some(1), "a network that is down");
    let nodes = [1, 2].map(|number| {
        Running::start(&["run", "--home", text(&home.join(format!("nodes/{number}")))], "listening on")
    });
    assert_eq!(status(), Some(1), "a network that is degraded");
    for node in nodes {
        assert!(node.stop().success());
    }
}

#[test]
fn two_small_files_and_an_address_are_all_that_a_mount_needs() {
    if !fuse_is_usable("two_small_files_and_an_address_are_all_that_a_mount_needs") {
        return;
    }
    let place = Place::new("two-files");
    let (home, drive) = (place.join("home"), place.join("drive"));
    let mut up = Running::up(&home, &drive, 1);
    fs::write(drive.join("file"), "seen from elsewhere").unwrap();
    fs::File::open(drive.join("file")).unwrap().sync_all().unwrap();
    let address = up.drain().lines().find_map(|line| {
        let (_, rest) = line.split_once("node 1  ")?;
        Some(rest.split_whitespace().next()?.to_owned())
    });
    let (other, cradle) = (place.join("other"), place.join("machine"));
    let (network, key) = (home.join("network.json"), home.join("user.key"));
    let address = address.expect("up tells where node 1 is");
    let mut command = Command::new(PROGRAM);
    command.args([
        "mount",
        "--network",
        text(&network),
        "--key",
        text(&key),
        "--node",
        &address,
        text(&other),
    ]);
    command.env("HOME", &cradle).env_remove("XDG_DATA_HOME");
    let mounted = Running::start_with(&mut command, "the drive is");
    assert_eq!(fs::read_to_string(other.join("file")).unwrap(), "seen from elsewhere");
    assert!(mounted.stop().success());
    assert!(cradle.join(".local/share/hypha/networks").is_dir());
    assert!(up.stop().success());
}
