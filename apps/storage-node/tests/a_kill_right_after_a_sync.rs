//! A program syncs, is answered, and the machine's mount is killed that very moment: a start without the nodes shows what was synced.
//!
//! What went wrong: the root that a machine keeps for such a start was written each two seconds, and the cache took in what a commit
//! stored a moment after it was answered. The journal had let go of it by then. So a database that had been told of a commit read an
//! older one, and went on from that.

mod common;

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use common::random::Random;
use common::running::Running;
use common::{Place, detach, fuse_is_usable, text};

const ROUNDS: usize = 3;
/// In one object with the tree's nodes, and more than an object.
const SIZES: [usize; 2] = [9_000, 9_000_000];

fn mount(home: &Path, drive: &Path) -> Running {
    Running::start(&["mount", "--home", text(home), text(drive)], "the drive is")
}

/// Replaces the file's content, and is answered that it is stored.
fn store(path: &Path, content: &[u8]) {
    let mut file = File::create(path).unwrap();
    file.write_all(content).unwrap();
    file.sync_all().unwrap();
}

#[test]
fn what_was_synced_is_shown_by_a_start_without_the_nodes() {
    if !fuse_is_usable("a_kill_right_after_a_sync") {
        return;
    }
    let mut random = Random::announced("a_kill_right_after_a_sync");
    let place = Place::new("kill-after-sync");
    let (home, drive) = (place.join("home"), place.join("drive"));
    let up = Running::up(&home, &drive, 1);
    assert!(up.stop().success());
    let node = || Running::start(&["run", "--home", text(&home.join("nodes/1"))], "listening on");
    // Its end keeps a root, from which the first round's is newer.
    let (running, mounted) = (node(), mount(&home, &drive));
    assert!(mounted.stop().success() && running.stop().success());
    let mut lines = Vec::new();
    for round in 0..ROUNDS {
        let (running, mounted) = (node(), mount(&home, &drive));
        let mut written = Vec::new();
        for commit in 0..4 {
            // As a database does: a file that is replaced, one that grows, and one that is new.
            let size = SIZES[usize::from(commit == 2)];
            written.push((format!("new {round} {commit}"), random.bytes(size)));
            store(&drive.join(&written.last().unwrap().0), &written.last().unwrap().1);
            let state = format!("state {round} {commit}").into_bytes();
            store(&drive.join("state"), &state);
            let line = format!("line {round} {commit}\n").into_bytes();
            let mut log = OpenOptions::new().append(true).create(true).open(drive.join("log")).unwrap();
            log.write_all(&line).unwrap();
            log.sync_all().unwrap();
            lines.extend(line);
            // At another moment of what the mount does each second or two.
            std::thread::sleep(Duration::from_millis(u64::from(random.below(400) as u32)));
        }
        let last = format!("last {round}").into_bytes();
        store(&drive.join("state"), &last);
        mounted.kill();
        running.kill();
        detach(&drive);

        let mounted = mount(&home, &drive);
        let shown = |name: &str| fs::read(drive.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(String::from_utf8_lossy(&shown("state")), format!("last {round}"), "round {round}");
        assert_eq!(String::from_utf8_lossy(&shown("log")), String::from_utf8_lossy(&lines));
        for (name, content) in &written {
            assert!(shown(name) == *content, "{name} is not what was synced");
        }
        // What is made of it then is no other state than what the nodes have, and goes on from that.
        let mut log = OpenOptions::new().append(true).open(drive.join("log")).unwrap();
        log.write_all(b"without the nodes\n").unwrap();
        drop(log);
        lines.extend(b"without the nodes\n");
        fs::write(drive.join("state"), format!("after {round}")).unwrap();
        mounted.kill();
        detach(&drive);
        let (running, mounted) = (node(), mount(&home, &drive));
        assert_eq!(fs::read_to_string(drive.join("state")).unwrap(), format!("after {round}"));
        assert!(fs::read(drive.join("log")).unwrap() == lines);
        let names = fs::read_dir(&drive).unwrap().map(|entry| entry.unwrap().file_name());
        let conflicts: Vec<_> = names.filter(|name| name.to_string_lossy().contains("conflict")).collect();
        assert!(conflicts.is_empty(), "{conflicts:?}");
        assert!(mounted.stop().success() && running.stop().success());
    }
}
