//! What was removed comes back by one command, whether somebody had taken a snapshot of it or not, and it is said what
//! may be missing.
//!
//! Before, whoever had no snapshot had to know of `past`, and could only have the whole drive go back.

mod common;

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::thread;
use std::time::Duration;

use common::members::{printed, refusal};
use common::running::Running;
use common::{Place, eventually, fuse_is_usable, storage_node, text};

const SOON: Duration = Duration::from_secs(60);
/// More than the thousandth of the retention, of which nodes keep the last state.
const SLOT: Duration = Duration::from_millis(3800);

/// What a command that has to succeed says.
fn said(home: &Path, arguments: &[&str]) -> String {
    let output = storage_node(&[arguments, &["--home", text(home)]].concat());
    let said =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{arguments:?}: {said}");
    said
}

/// Has all that was done be on the nodes, and kept as the past whatever comes next.
fn is_past(drive: &Path) {
    File::open(drive).unwrap().sync_all().unwrap();
    thread::sleep(SLOT);
}

#[test]
fn what_was_removed_comes_back_from_the_newest_state_that_has_it() {
    if !fuse_is_usable("what_was_removed_comes_back_from_the_newest_state_that_has_it") {
        return;
    }
    let place = Place::new("undelete");
    let (home, drive) = (place.join("home"), place.join("drive"));
    let up =
        Running::start(&["up", "--retention", "1h", "--home", text(&home), text(&drive)], "the drive is");
    let at = |name: &str| drive.join(name);
    printed(&home, &["share", text(&at("band"))]);
    fs::write(at("letter"), "first").unwrap();
    printed(&home, &["snapshot", "early"]);
    fs::write(at("letter"), "second").unwrap();
    fs::write(at("band/song"), "la la").unwrap();
    // A directory that no snapshot has, with all that one may have.
    fs::create_dir_all(at("photos/2026")).unwrap();
    fs::write(at("photos/2026/a"), "picture").unwrap();
    fs::hard_link(at("photos/2026/a"), at("photos/b")).unwrap();
    symlink("2026/a", at("photos/c")).unwrap();
    let sparse = File::create(at("photos/sparse")).unwrap();
    sparse.write_all_at(b"end", 3_000_000).unwrap();
    sparse.set_len(5_000_000).unwrap();
    fs::set_permissions(at("photos/2026/a"), Permissions::from_mode(0o640)).unwrap();
    fs::set_permissions(at("photos/2026"), Permissions::from_mode(0o550)).unwrap();
    let then = fs::metadata(at("photos/2026")).unwrap();
    is_past(&at("."));
    File::open(at("band")).unwrap().sync_all().unwrap();
    fs::write(at("other"), "1").unwrap();
    fs::write(at("band/other"), "1").unwrap();
    fs::set_permissions(at("photos/2026"), Permissions::from_mode(0o750)).unwrap();
    for gone in ["letter", "band/song"] {
        fs::remove_file(at(gone)).unwrap();
    }
    fs::remove_dir_all(at("photos")).unwrap();
    for synced in ["band", "."] {
        File::open(at(synced)).unwrap().sync_all().unwrap();
    }

    // Newer than the snapshot's, since nodes keep it: and it is said where it is from.
    let words = said(&home, &["undelete", text(&at("letter"))]);
    assert!(words.contains("letter is there again: from the state "), "{words}");
    eventually("it is there", SOON, || fs::read_to_string(at("letter")).is_ok_and(|read| read == "second"));
    let words = refusal(&home, &["undelete", "letter"]);
    assert!(words.contains("\"letter\" is there, and was not removed"), "{words}");

    let words = said(&home, &["undelete", "photos"]);
    assert!(words.contains("from the state") && words.contains("3 files"), "{words}");
    eventually("they are there", SOON, || at("photos/sparse").exists());
    let (a, b) = (fs::metadata(at("photos/2026/a")).unwrap(), fs::metadata(at("photos/b")).unwrap());
    assert_eq!((a.ino(), a.nlink(), a.mode() & 0o777), (b.ino(), 2, 0o640));
    assert_eq!(fs::read_to_string(at("photos/c")).unwrap(), "picture");
    let directory = fs::metadata(at("photos/2026")).unwrap();
    assert_eq!((directory.mode(), directory.mtime()), (then.mode(), then.mtime()));
    let sparse = fs::read(at("photos/sparse")).unwrap();
    assert!(sparse.len() == 5_000_000 && &sparse[3_000_000..3_000_003] == b"end");
    assert!(fs::metadata(at("photos/sparse")).unwrap().blocks() < 5_000, "holes are holes");
    assert_eq!(fs::read_dir(&drive).unwrap().count(), 4, "and nothing beside them");

    // In a space from the space's own past, and beside.
    let words = said(&home, &["undelete", text(&at("band/song")), "--to", text(&at("band/of then"))]);
    assert!(words.contains("band/of then is there again"), "{words}");
    eventually("it is there", SOON, || {
        fs::read_to_string(at("band/of then")).is_ok_and(|read| read == "la la")
    });

    let words = refusal(&home, &["undelete", text(&at("band/song")), "--to", text(&at("band/of then"))]);
    assert!(words.contains("there is something at \"of then\" already"), "{words}");

    // From a snapshot where that is the newest.
    printed(&home, &["snapshot", "late"]);
    fs::remove_file(at("letter")).unwrap();
    File::open(&drive).unwrap().sync_all().unwrap();
    let words = said(&home, &["undelete", "letter", "--to", "again"]);
    assert!(words.contains("again is there again: from the snapshot late, taken 20"), "{words}");

    // Saved, saved again and removed at once: nodes keep none of these states but the last, and it is not said to be the last.
    for content in ["third", "fourth"] {
        fs::write(at("letter"), content).unwrap();
        File::open(at("letter")).unwrap().sync_all().unwrap();
    }
    fs::remove_file(at("letter")).unwrap();
    File::open(&drive).unwrap().sync_all().unwrap();
    let words = said(&home, &["undelete", "letter", "--to", "perhaps"]);
    assert!(!words.contains("as it was last"), "{words}");
    let read = storage_node(&["get", "perhaps", "--home", text(&home)]).stdout;
    assert!(read == b"fourth" || words.contains("may not be what it was last: of version"), "{words}");

    // What was a space is not in the drive's past.
    printed(&home, &["unshare", "--remove", "--with-content", "band"]);
    let words = refusal(&home, &["undelete", "band/song"]);
    assert!(
        words.contains("\"band/song\" was a space, or in one that is no more")
            && words.contains("rollback DIR"),
        "{words}"
    );

    let words = refusal(&home, &["undelete", "never"]);
    assert!(words.contains("nothing has \"never\": of the drive there are 2 snapshots, and "), "{words}");
    let words = refusal(&home, &["undelete", "letter", "--to", "nowhere/x"]);
    assert!(words.contains("no directory"), "{words}");
    assert!(up.stop().success());
}
