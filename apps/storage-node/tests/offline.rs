//! A laptop without its network: no node answers, and the drive is there all the same.
//!
//! What went wrong: without a node nothing could be mounted, and a drive that was mounted made each program wait half a
//! minute at each file that was not in memory. Now it starts from what its cache has, as this machine saw it last and no
//! older; what is not here is refused at once; what is written waits in the journal, and reaches the nodes when they are back.

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use common::random::Random;
use common::running::Running;
use common::{PROGRAM, Place, ended_within, eventually, fuse_is_usable, storage_node, text};

/// Far below the half minute that a read waits for nodes that are being restarted, far above what a loaded machine needs.
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
    let mounted = mount(&home, &drive);
    let read_all = || {
        assert_eq!(names(&drive.join("read")), ["0", "1", "2", "3", "4"]);
        for (number, content) in contents.iter().enumerate() {
            assert!(cat(drive.join(format!("read/{number}"))).unwrap() == *content, "file {number}");
        }
    };
    read_all();
    assert_eq!(names(&drive), ["never read", "read"]);
    assert!(mounted.stop().success());
    nodes.kill();

    let source = place.join("source");
    fs::write(&source, b"without any node").unwrap();
    let mut mounted = mount(&home, &drive);
    read_all();
    assert_eq!(names(&drive), ["never read", "read"]);
    for _ in 0..3 {
        assert_eq!(cat(drive.join("never read")), None);
    }
    fs::rename(drive.join("read/4"), drive.join("moved")).unwrap();
    // A close says at once that it waits on this machine; `fsync` promises the nodes, and says that they do not have it.
    assert!(
        ended_within(AT_ONCE, Command::new("cp").arg(&source).arg(drive.join("written"))).status.success()
    );
    assert!(!ended_within(AT_ONCE, Command::new("sync").arg(drive.join("written"))).status.success());
    assert_eq!(fs::read(drive.join("written")).unwrap(), b"without any node");
    eventually("that it is offline in `status`", SOON, || {
        let output = storage_node(&["status", "--json", "--home", text(&home)]);
        let status: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let offline = &status["cache"]["offline"][0];
        offline["waiting_files"].as_u64().is_some_and(|files| files >= 1) && status["health"] == "down"
    });
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
    assert_eq!(names(&drive), ["moved", "never read", "read", "written"]);
    assert!(mounted.stop().success());
    assert!(nodes.stop().success());
}
