//! A drive is killed a moment after something was stored, and starts again without its nodes: it shows what programs were told.
//!
//! What went wrong: the root that a machine keeps for such a start is written each two seconds, and what it waits to store stands on the
//! newest one. So the journal was put on top of a root from before, as if that were what others had made of it meanwhile: a file
//! that was removed was there again, a mode was what it had been, and a file had some of one state and some of another.

mod common;

use std::fs::{self, File, OpenOptions, Permissions};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::Path;

use common::running::Running;
use common::{Place, detach, fuse_is_usable, text};

const ROUNDS: usize = 3;
const SIZE: usize = 300_000;

fn mount(home: &Path, drive: &Path) -> Running {
    Running::start(&["mount", "--home", text(home), text(drive)], "the drive is")
}

fn in_place(rounds: usize) -> Vec<u8> {
    let mut content = vec![b'.'; SIZE];
    for round in 0..rounds {
        content[round * 70_000] = b'a' + round as u8;
        content[round * 70_000 + 40_000] = b'A' + round as u8;
    }
    content
}

/// Names with their modes, and what the file has that is changed in place.
fn shown(drive: &Path) -> (Vec<(String, u32)>, Vec<u8>) {
    let entries = fs::read_dir(drive).unwrap().map(|entry| entry.unwrap());
    let mut names: Vec<_> = entries
        .map(|entry| {
            let mode = entry.metadata().unwrap().permissions().mode() & 0o777;
            (entry.file_name().into_string().unwrap(), mode)
        })
        .collect();
    names.sort();
    (names, fs::read(drive.join("in place")).unwrap())
}

#[test]
fn what_was_answered_after_a_commit_is_shown_by_a_start_without_the_nodes() {
    if !fuse_is_usable("a_kill_right_after_a_commit") {
        return;
    }
    let place = Place::new("kill-after-commit");
    let (home, drive) = (place.join("home"), place.join("drive"));
    let up = Running::up(&home, &drive, 1);
    fs::write(drive.join("in place"), in_place(0)).unwrap();
    assert!(up.stop().success());
    let node = || Running::start(&["run", "--home", text(&home.join("nodes/1"))], "listening on");
    // Its end keeps a root, from which the first round's is newer.
    let (running, mounted) = (node(), mount(&home, &drive));
    assert!(mounted.stop().success() && running.stop().success());
    for round in 0..ROUNDS {
        let (running, mounted) = (node(), mount(&home, &drive));
        let at = |name: &str| drive.join(format!("{name} {round}"));
        // It is all in the cache, which has a moment to take it in.
        fs::read(drive.join("in place")).unwrap();
        let file = OpenOptions::new().write(true).open(drive.join("in place")).unwrap();
        file.write_all_at(&[b'a' + round as u8], round as u64 * 70_000).unwrap();
        for name in ["lock", "private", "from"] {
            fs::write(at(name), name).unwrap();
        }
        fs::create_dir(at("directory")).unwrap();
        file.sync_all().unwrap();
        File::open(&drive).unwrap().sync_all().unwrap();
        // That is stored. What follows is not, or with luck only.
        fs::remove_file(at("lock")).unwrap();
        fs::set_permissions(at("private"), Permissions::from_mode(0o600)).unwrap();
        fs::remove_dir(at("directory")).unwrap();
        fs::rename(at("from"), at("to")).unwrap();
        file.write_all_at(&[b'A' + round as u8], round as u64 * 70_000 + 40_000).unwrap();
        drop(file);
        let expected = shown(&drive);
        assert!(expected.1 == in_place(round + 1));
        running.kill();
        mounted.kill();
        detach(&drive);

        let mounted = mount(&home, &drive);
        assert_eq!(shown(&drive).0, expected.0, "without the nodes, round {round}");
        assert!(shown(&drive).1 == expected.1, "without the nodes, round {round}");
        mounted.kill();
        detach(&drive);
        let (running, mounted) = (node(), mount(&home, &drive));
        assert_eq!(shown(&drive).0, expected.0, "with them, round {round}");
        assert!(shown(&drive).1 == expected.1, "with them, round {round}");
        assert!(mounted.stop().success() && running.stop().success());
    }
}
