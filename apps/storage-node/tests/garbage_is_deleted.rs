//! `gc` gives the nodes' disk back what was removed, and deletes nothing that anybody needs: what lives, what a snapshot
//! has, what is open elsewhere, what a mount that was asleep has yet to publish. Where a mount may come back that cannot be
//! asked, it deletes nothing and says so; and one that was forgotten and lives publishes nothing that is gone.
//!
//! The nodes' stores are on a small disk of their own, a tmpfs, where they keep small segments; it needs root to mount, and
//! without root this says so and passes.

mod common;

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use common::garbage::{FILE_BYTES, SmallDisk, content, gc, write};
use common::running::{Running, signal};
use common::{PROGRAM, Place, eventually, fuse_is_usable, storage_node, text};
use rustix::process::Signal;

const DISK_BYTES: u64 = 192 << 20;
const SOON: Duration = Duration::from_secs(120);

/// `gc` must delete nothing, and name who may need it; returns the session that it names.
fn refused(home: &Path, why: &str) -> String {
    let (succeeded, said) = gc(home, &["--patience", "2s"]);
    assert!(!succeeded && said.contains("nothing was deleted") && said.contains(why), "{said}");
    // Whose it is, and where what it has not stored is.
    assert!(said.contains('@') && said.contains("with its journal in"), "{said}");
    let session = said.split("session ").nth(1).and_then(|rest| rest.split(',').next());
    session.unwrap_or_else(|| panic!("{said}")).to_owned()
}

#[test]
fn the_disk_is_given_back_and_nobody_misses_anything() {
    if !fuse_is_usable("the_disk_is_given_back_and_nobody_misses_anything") {
        return;
    }
    let place = Place::new("garbage_is_deleted");
    let Some(disk) = SmallDisk::mount(place.join("disk"), DISK_BYTES) else { return };
    let (home, a, b) = (disk.path().join("home"), place.join("a"), place.join("b"));
    let cache = place.join("cache");
    // Without the retention that is usual, since the space is to be there at once.
    let founding = ["up", "--retention", "0s", "--home", text(&home), text(&a)];
    let up = Running::start(&founding, "the drive is");
    let mount_b = || {
        Running::start(
            &["mount", "--home", text(&home), "--directory", text(&cache), text(&b)],
            "the drive is",
        )
    };
    let mut other = mount_b();
    write(a.join("kept"), 1);
    write(a.join("remembered"), 2);
    write(a.join("open"), 3);
    let snapshot = storage_node(&["snapshot", "--home", text(&home), "before"]);
    assert!(snapshot.status.success());
    // After the snapshot: what only an open file elsewhere keeps.
    write(a.join("open"), 4);
    (0..14).for_each(|number| write(a.join(format!("gone {number}")), 10 + number));
    eventually("the other mount sees the file", SOON, || {
        fs::metadata(b.join("open")).is_ok_and(|open| open.len() == FILE_BYTES as u64)
            && fs::read(b.join("gone 13")).is_ok_and(|read| read == content(23))
    });
    let mut open = File::open(b.join("open")).unwrap();
    let before = disk.used_bytes();
    (0..14).for_each(|number| fs::remove_file(a.join(format!("gone {number}"))).unwrap());
    ["remembered", "open"].iter().for_each(|name| fs::remove_file(a.join(name)).unwrap());
    File::open(&a).unwrap().sync_all().unwrap();
    eventually("the other mount knows of it", SOON, || fs::metadata(b.join("open")).is_err());

    signal(other.pid(), Signal::STOP);
    // One that is asleep may have something to publish, and has not said that it does without the rest.
    refused(&home, "it has not cleared the way yet");
    // A collector that is killed, here while it waits, leaves nothing that holds up the next.
    let mut killed = Command::new(PROGRAM)
        .args(["gc", "--home", text(&home), "--grace", "0s", "--patience", "1h"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    std::thread::sleep(Duration::from_secs(1));
    killed.kill().unwrap();
    killed.wait().unwrap();
    signal(other.pid(), Signal::CONT);

    // What was stored in the last seconds has to wait.
    eventually("the disk is given back", SOON, || {
        let (succeeded, said) = gc(&home, &[]);
        assert!(succeeded, "{said}");
        disk.used_bytes() + 8 * FILE_BYTES as u64 <= before
    });
    let mut read = Vec::new();
    open.read_to_end(&mut read).unwrap();
    assert!(read == content(4), "what is open here and was removed elsewhere");
    drop(open);
    assert!(fs::read(b.join("kept")).unwrap() == content(1));
    let past = a.join(".snapshots/before");
    for (name, seed) in [("kept", 1), ("remembered", 2), ("open", 3)] {
        assert!(fs::read(past.join(name)).unwrap() == content(seed), "{name} in the snapshot");
    }

    // One that is killed may come back with what its journal has; once it is back, there is no more doubt.
    write(b.join("of the other"), 5);
    other.kill();
    refused(&home, "it has not cleared the way yet");
    other = mount_b();
    let (succeeded, said) = gc(&home, &[]);
    assert!(succeeded && !said.contains("deleted 0 blocks"), "{said}");
    // A command that was killed has nothing that could come back. It has read this much, so the drive knows of it.
    let mut command = Command::new(PROGRAM)
        .args(["put", "--home", text(&home), "never whole"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    command.stdin.as_mut().unwrap().write_all(&content(7)).unwrap();
    command.kill().unwrap();
    command.wait().unwrap();
    // A mount that never comes back has to be forgotten, and one that was at work a moment ago is not.
    // A process of its own has the file open: ours would wait for the mount whenever it starts another.
    let mut late = Command::new("sh")
        .args(["-c", "cat > \"$0\"", text(&b.join("late"))])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    late.stdin.as_mut().unwrap().write_all(&content(6)).unwrap();
    signal(other.pid(), Signal::STOP);
    let session = refused(&home, "it has not cleared the way yet");
    let (succeeded, said) = gc(&home, &["--forget", "0000000000000001"]);
    assert!(!succeeded && said.contains("no mount that the drive knows of"), "{said}");
    let forget = ["--patience", "2s", "--forget", &session];
    let (succeeded, said) = gc(&home, &forget);
    assert!(
        !succeeded && said.contains("nothing was deleted") && said.contains("less than 1h ago"),
        "{said}"
    );
    let (succeeded, said) = gc(&home, &[&forget[..], &["--silent-for", "0s"]].concat());
    assert!(succeeded, "{said}");
    // This one lives: it finds out, and what it says is stored is stored.
    signal(other.pid(), Signal::CONT);
    assert!(late.wait().unwrap().success());
    File::open(b.join("late")).unwrap().sync_all().unwrap();

    // What an empty cache sees comes from the nodes alone.
    let (fresh, nothing) = (place.join("fresh"), place.join("nothing"));
    let third = Running::start(
        &["mount", "--home", text(&home), "--directory", text(&nothing), text(&fresh)],
        "the drive is",
    );
    for (name, seed) in [("kept", 1), ("of the other", 5), ("late", 6)] {
        assert!(fs::read(fresh.join(name)).unwrap() == content(seed), "{name}");
    }
    assert!(fs::read(fresh.join(".snapshots/before/remembered")).unwrap() == content(2));
    assert!(third.stop().success());
    assert!(other.stop().success());
    assert!(up.stop().success());
}
