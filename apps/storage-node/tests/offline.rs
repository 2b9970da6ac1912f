//! A laptop without its network: no node answers, and the drive is there all the same.
//!
//! What went wrong: without a node nothing could be mounted, and a drive that was mounted made each program wait half a
//! minute at each file that was not in memory, a whole one at the first file that was written; what was renamed or made
//! without a close was gone with the process. Now it starts from what its cache has, as this machine saw it last and no
//! older; what is not here is refused at once; what is written, renamed, made or removed waits in the journal, and reaches the
//! nodes when they are back.
//!
//! Nor is it only a machine without its network: where others are mounted too a close waits for a quorum, and nodes that are
//! stopped or behind a cut cable close no connection. What such a close wrote was in memory only, and gone with the process.

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::random::Random;
use common::running::{Running, kill_hard, signal};
use common::{PROGRAM, Place, ended_within, eventually, fuse_is_usable, loud, storage_node, text};
use rustix::process::Signal;

/// Below the half minute that a read or a write waits for nodes that take nothing, far above the few seconds until it is
/// known that none can be reached.
const AT_ONCE: Duration = Duration::from_secs(20);
const SOON: Duration = Duration::from_secs(60);

fn node(home: &Path) -> Running {
    Running::start(&["run", "--home", text(&home.join("nodes/1"))], "listening on")
}

fn mount(home: &Path, drive: &Path) -> Running {
    Running::start(&["mount", "--home", text(home), text(drive)], "the drive is")
}

/// Reads a file in a process of its own, which fails the story if it hangs.
fn cat(path: PathBuf) -> Option<Vec<u8>> {
    let copy = tempfile::NamedTempFile::new().unwrap();
    let output = ended_within(AT_ONCE, Command::new("cp").arg(path).arg(copy.path()));
    output.status.success().then(|| fs::read(copy.path()).unwrap())
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn eventually_offline(home: &Path) {
    eventually("that it is offline in `status`, with all that waits in the journal", SOON, || {
        let output = storage_node(&["status", "--json", "--home", text(home)]);
        let status: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let offline = &status["cache"]["offline"][0];
        let files = |of: &str| offline[of].as_u64();
        // All of it is in the journal, and so outlives the drive.
        files("waiting_files").is_some_and(|files| files >= 1)
            && files("memory_files") == Some(0)
            && status["health"] == "down"
    });
}

#[test]
fn a_drive_without_its_nodes_shows_what_it_has_takes_what_is_written_and_gives_it_to_them_later() {
    if !fuse_is_usable("offline") {
        return;
    }
    let mut random = Random::announced("offline");
    let place = Place::new("offline");
    let (home, drive) = (place.join("home"), place.join("drive"));
    let up = Running::up(&home, &drive, 1);
    fs::create_dir(drive.join("read")).unwrap();
    let contents: Vec<Vec<u8>> = (0..5).map(|_| random.bytes(50_000)).collect();
    for (number, content) in contents.iter().enumerate() {
        fs::write(drive.join(format!("read/{number}")), content).unwrap();
    }
    let never_read = random.bytes(3_000_000);
    fs::write(drive.join("never read"), &never_read).unwrap();
    assert!(up.stop().success());

    // Nothing was ever seen from here, as a client: there is nothing to start from.
    let mount_arguments = ["mount", "--home", text(&home), text(&drive)];
    let refused = ended_within(SOON, Command::new(PROGRAM).args(mount_arguments));
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("start them"), "{refused:?}");

    let nodes = node(&home);
    let mut mounted = mount(&home, &drive);
    let read_all = || {
        for (number, content) in contents.iter().enumerate() {
            assert!(cat(drive.join(format!("read/{number}"))).unwrap() == *content, "file {number}");
        }
    };
    read_all();
    assert_eq!(names(&drive), ["never read", "read"]);
    assert_eq!(names(&drive.join("read")), ["0", "1", "2", "3", "4"]);
    assert!(mounted.stop().success());
    mounted = mount(&home, &drive);
    read_all();
    let source = place.join("source");
    fs::write(&source, b"without any node").unwrap();
    let copy = |name: &str| {
        let copied = ended_within(AT_ONCE, Command::new("cp").arg(&source).arg(drive.join(name)));
        assert!(copied.status.success(), "{name}: {}", String::from_utf8_lossy(&copied.stderr));
    };

    // The nodes are gone from one moment to the next, and the first program that writes does not wait for them.
    nodes.kill();
    copy("first");
    // What has no close is kept as well, in whatever it is done to: what is in the journal, and what the nodes have.
    eventually_offline(&home);
    fs::rename(drive.join("first"), drive.join("renamed")).unwrap();
    fs::create_dir(drive.join("made")).unwrap();
    fs::set_permissions(drive.join("renamed"), fs::Permissions::from_mode(0o640)).unwrap();
    fs::set_permissions(drive.join("read/1"), fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(drive.join("made/removed"), b"").unwrap();
    fs::remove_file(drive.join("made/removed")).unwrap();
    mounted.kill();
    common::detach(&drive);

    mounted = mount(&home, &drive);
    let mode = |name: &str| fs::metadata(drive.join(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!(names(&drive), ["made", "never read", "read", "renamed"]);
    assert_eq!(names(&drive.join("made")), [""; 0]);
    assert_eq!(cat(drive.join("renamed")).unwrap(), b"without any node");
    assert_eq!((mode("renamed"), mode("read/1")), (0o640, 0o600));
    read_all();
    for _ in 0..3 {
        assert_eq!(cat(drive.join("never read")), None);
    }
    fs::rename(drive.join("read/4"), drive.join("moved")).unwrap();
    // A close says at once that it waits on this machine; `fsync` promises the nodes, and says that they do not have it.
    copy("written");
    assert!(!ended_within(AT_ONCE, Command::new("sync").arg(drive.join("written"))).status.success());
    assert_eq!(fs::read(drive.join("written")).unwrap(), b"without any node");
    eventually_offline(&home);
    // Killed, and started again: what was closed is in the journal.
    mounted.kill();
    common::detach(&drive);
    mounted = mount(&home, &drive);
    assert_eq!(cat(drive.join("written")).unwrap(), b"without any node");
    assert!(mounted.is_running());

    let nodes = node(&home);
    eventually("the nodes have what was written", SOON, || {
        let got = storage_node(&["get", "written", "--home", text(&home)]);
        got.status.success() && got.stdout == b"without any node"
    });
    eventually("what was not here", SOON, || {
        cat(drive.join("never read")).is_some_and(|read| read == never_read)
    });
    assert!(mounted.stop().success());
    let mounted = mount(&home, &drive);
    assert!(cat(drive.join("moved")).unwrap() == contents[4]);
    assert_eq!(names(&drive), ["made", "moved", "never read", "read", "renamed", "written"]);
    assert_eq!((mode("renamed"), mode("read/1")), (0o640, 0o600));
    assert!(mounted.stop().success());
    assert!(nodes.stop().success());
}

/// With a cache on the disk, without one, and where one of the nodes is in the drive's own process.
#[test]
fn what_is_closed_and_renamed_when_the_nodes_stop_answering_outlives_every_mount() {
    if !fuse_is_usable("what_is_closed_and_renamed_when_the_nodes_stop_answering_outlives_every_mount") {
        return;
    }
    let place = Place::new("stopped");
    let home = place.join("home");
    let drives = ["up", "mount", "bare"].map(|name| place.join(name));
    let mut up = Running::up(&home, &drives[0], 3);
    let mounts = [
        mount(&home, &drives[1]),
        Running::start(&["mount", "--cache", "0", "--home", text(&home), text(&drives[2])], "the drive is"),
    ];
    for (number, drive) in drives.iter().enumerate() {
        fs::write(drive.join(format!("old-{number}")), b"of before").unwrap();
    }
    let source = place.join("source");
    fs::write(&source, b"without a quorum").unwrap();
    let nodes = [2, 3].map(|number| up.node_pid(number).expect("`up` says which process it is"));
    nodes.iter().for_each(|pid| signal(*pid, Signal::STOP));
    let began = Instant::now();
    let copies: Vec<Child> = drives
        .iter()
        .enumerate()
        .map(|(number, drive)| {
            let copy = drive.join(format!("new-{number}"));
            Command::new("cp").arg(&source).arg(copy).stderr(Stdio::piped()).spawn().unwrap()
        })
        .collect();
    for copy in copies {
        let copied = copy.wait_with_output().unwrap();
        assert!(copied.status.success(), "{}", String::from_utf8_lossy(&copied.stderr));
    }
    loud(&format!("closed {:?} after the nodes were stopped", began.elapsed()));
    for (number, drive) in drives.iter().enumerate() {
        fs::rename(drive.join(format!("old-{number}")), drive.join(format!("moved-{number}"))).unwrap();
        fs::create_dir(drive.join(format!("made-{number}"))).unwrap();
        let private = fs::Permissions::from_mode(0o600);
        fs::set_permissions(drive.join(format!("new-{number}")), private).unwrap();
    }
    mounts.into_iter().for_each(Running::kill);
    up.kill();
    nodes.into_iter().for_each(kill_hard);
    drives.iter().for_each(|drive| common::detach(drive));

    let up = Running::up(&home, &drives[0], 3);
    let expected: Vec<String> = ["made", "moved", "new"]
        .iter()
        .flat_map(|what| (0..3).map(move |number| format!("{what}-{number}")))
        .collect();
    eventually("what each of them had is there", SOON, || names(&drives[0]) == expected);
    for number in 0..3 {
        let new = drives[0].join(format!("new-{number}"));
        assert_eq!(fs::read(&new).unwrap(), b"without a quorum");
        assert_eq!(fs::metadata(&new).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read(drives[0].join(format!("moved-{number}"))).unwrap(), b"of before");
    }
    assert!(up.stop().success());
}
