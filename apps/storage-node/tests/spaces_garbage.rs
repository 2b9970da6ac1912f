//! `gc` deletes what was removed in a space, too, gives its bytes back, and misses nothing that anybody needs there: what a member has
//! open, and what he has written and not published, he who could only read when he mounted the drive like any other. It does not
//! wait for the mounts of those who may not write any more.
//!
//! The nodes' store is on a small disk of its own, which needs root; without root this says so and passes.

mod common;

use std::fs::{self, File};
use std::io::{Read, Write};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::Signal;

use common::garbage::{FILE_BYTES, SmallDisk, content, gc, write};
use common::members::{id, join, printed};
use common::running::{Running, kill_hard, signal};
use common::{Place, eventually, fuse_is_usable, text};

const DISK_BYTES: u64 = 192 << 20;
const FILES: u64 = 8;
const SOON: Duration = Duration::from_secs(120);

/// How many blocks a line tells of that begins so; 0 if there is none.
fn count(said: &str, line: &str) -> u64 {
    let rest = said.lines().find_map(|found| found.strip_prefix(line));
    rest.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

#[test]
fn what_is_removed_in_a_space_is_deleted_and_nobody_misses_anything() {
    if !fuse_is_usable("what_is_removed_in_a_space_is_deleted_and_nobody_misses_anything") {
        return;
    }
    let place = Place::new("spaces-garbage");
    let Some(disk) = SmallDisk::mount(place.join("disk"), DISK_BYTES) else { return };
    let (home, a, b, bobs) = (disk.path().join("home"), place.join("a"), place.join("b"), place.join("bob"));
    // Without the retention that is usual, since the space is to be there at once.
    let founding = ["up", "--nodes", "1", "--retention", "0s", "--home", text(&home), text(&a)];
    let up = Running::start(&founding, "the drive is");
    let bob = join(&home, &bobs, &b);
    let (ours, theirs) = (a.join("band"), b.join("band"));
    // He is a session there once he may write, though he could only read when he opened it.
    printed(&home, &["share", "band", "--read", &id(&bobs)]);
    eventually("bob sees it", SOON, || fs::read_dir(&theirs).is_ok());
    assert!(fs::write(theirs.join("first"), "1").is_err());
    printed(&home, &["share", "band", "--write", &id(&bobs)]);
    eventually("bob writes there", SOON, || fs::write(theirs.join("first"), "1").is_ok());
    write(ours.join("kept"), 1);
    write(ours.join("remembered"), 5);
    printed(&home, &["snapshot", "--of", "band", "before"]);
    write(theirs.join("of bob"), 2);
    (0..FILES).for_each(|number| write(ours.join(format!("gone {number}")), 10 + number));
    eventually("bob sees them", SOON, || {
        fs::metadata(theirs.join("gone 7")).is_ok_and(|found| found.len() == FILE_BYTES as u64)
    });
    let mut open = File::open(theirs.join("gone 0")).unwrap();
    let before = disk.used_bytes();
    (0..FILES).for_each(|number| fs::remove_file(ours.join(format!("gone {number}"))).unwrap());
    fs::remove_file(ours.join("remembered")).unwrap();
    File::open(&ours).unwrap().sync_all().unwrap();
    eventually("bob knows of it", SOON, || fs::metadata(theirs.join("gone 0")).is_err());

    // Whoever is asleep may have something to publish there, as he has. A process of its own has the file open: ours would wait
    // for the mount whenever it starts another.
    let mut late = Command::new("sh")
        .args(["-c", "cat > \"$0\"", text(&theirs.join("late"))])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    late.stdin.as_mut().unwrap().write_all(&content(3)).unwrap();
    signal(bob.pid(), Signal::STOP);
    let (succeeded, said) = gc(&home, &["--patience", "1s"]);
    signal(bob.pid(), Signal::CONT);
    assert!(!succeeded && count(&said, "of the space band: deleted ") == 0, "{said}");
    let of_space = said.split("in the space band: ").nth(1).unwrap_or_else(|| panic!("{said}"));
    assert!(
        of_space.contains("nothing was deleted") && of_space.contains("has not cleared the way"),
        "{said}"
    );
    assert!(of_space.contains(text(&bobs)), "whose it is: {said}");

    // What was stored in the last seconds has to wait.
    let mut deleted = 0;
    eventually("the disk is given back", SOON, || {
        let (succeeded, said) = gc(&home, &[]);
        assert!(succeeded, "{said}");
        deleted += count(&said, "of the space band: deleted ");
        disk.used_bytes() + (FILES / 2) * FILE_BYTES as u64 <= before
    });
    assert!(deleted >= FILES, "{deleted} blocks of the space were deleted");
    let mut read = Vec::new();
    open.read_to_end(&mut read).unwrap();
    assert!(read == content(10), "what is open here and was removed elsewhere");
    drop(open);
    drop(late.stdin.take());
    assert!(late.wait().unwrap().success());
    File::open(theirs.join("late")).unwrap().sync_all().unwrap();

    // He is killed, and may not write there any more: the space does without what his journal has for it, the drive does not.
    write(theirs.join("last"), 4);
    kill_hard(bob.pid());
    drop(bob);
    common::detach(&b);
    let (succeeded, said) = gc(&home, &["--patience", "1s"]);
    assert!(!succeeded && said.contains("in the space band: nothing was deleted"), "{said}");
    printed(&home, &["unshare", "band", "--from", &id(&bobs)]);
    let (succeeded, said) = gc(&home, &["--patience", "1s"]);
    assert!(!succeeded && said.contains("is not waited for"), "{said}");
    assert!(said.contains("of the space band: deleted ") && !said.contains("in the space band: "), "{said}");
    // Nor does it wait for a member who was removed.
    printed(&home, &["remove", &id(&bobs)]);
    let (succeeded, said) = gc(&home, &[]);
    assert!(succeeded && said.contains("is not waited for"), "{said}");
    let (succeeded, said) = gc(&home, &[]);
    assert!(succeeded && !said.contains("is not waited for"), "{said}");

    // What an empty cache sees comes from the nodes alone.
    let (fresh, nothing) = (place.join("fresh"), place.join("nothing"));
    let third = Running::start(
        &["mount", "--home", text(&home), "--directory", text(&nothing), text(&fresh)],
        "the drive is",
    );
    for (name, seed) in [("kept", 1), ("of bob", 2), ("late", 3), ("last", 4)] {
        assert!(fs::read(fresh.join("band").join(name)).unwrap() == content(seed), "{name}");
    }
    assert!(fs::read(fresh.join("band/.snapshots/before/remembered")).unwrap() == content(5));
    assert!(third.stop().success());
    assert!(up.stop().success());
}
