//! A mount that is the only one keeps what it closes to itself for a moment, and nobody ever notices.
//!
//! Once every mount behaved as if others were about: each close waited for the nodes, though there was nobody to see it.
//! A lone mount need not; but a second one that comes must find everything that was closed before, whatever the first is
//! doing then: it works, it is dead, or it sleeps, and wakes up later believing that it is alone.

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use common::running::{Running, signal};
use common::{Place, eventually, fuse_is_usable, text};
use rustix::process::Signal;

const SOON: Duration = Duration::from_secs(90);
/// How many files of the load are there at a time: what a newcomer's coming takes does not grow with the machine's speed.
const FILE_COUNT: u64 = 200;
/// How often a newcomer looks for the newest of them.
const LOOK_COUNT: u64 = 50;

/// A node without a drive, and room for mounts.
struct Story {
    place: Place,
    node: Running,
}

impl Story {
    fn begin(name: &str) -> Option<Story> {
        if !fuse_is_usable(name) {
            return None;
        }
        let place = Place::new(name);
        let home = place.join("home");
        assert!(Running::up(&home, &place.join("founder"), 1).stop().success());
        let node = Running::start(&["run", "--home", text(&home.join("nodes/1"))], "listening on");
        Some(Story { place, node })
    }

    /// Mounts the drive, as a client of its own.
    fn mount(&self, name: &str) -> (Running, PathBuf) {
        let (home, drive, directory) =
            (self.place.join("home"), self.place.join(name), self.place.join(&format!("{name}-client")));
        let arguments = ["mount", "--home", text(&home), "--directory", text(&directory), text(&drive)];
        (Running::start(&arguments, "the drive is"), drive)
    }

    /// Waits until a close on `drive` goes through without the node. With others about it would wait for it, in vain.
    fn wait_until_alone(&self, drive: &Path) {
        let mut number = 0;
        eventually("a close that waits for nobody", SOON, || {
            number += 1;
            signal(self.node.pid(), Signal::STOP);
            let path = drive.join(format!("lone-{number}"));
            let writer = thread::spawn(move || fs::write(path, "closed"));
            // As long as the mount knows that it is alone, with half of it to spare.
            thread::sleep(Duration::from_secs(3));
            let is_alone = writer.is_finished();
            signal(self.node.pid(), Signal::CONT);
            writer.join().unwrap().expect("the node is back in time");
            is_alone
        });
    }
}

fn content(number: u64) -> String {
    format!("content {number}")
}

/// A program that closes one file after the other as fast as it can, and removes each once it is not among the newest.
struct Load {
    /// The number of the last file that is closed; 0 is none.
    closed: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    writer: JoinHandle<()>,
}

impl Load {
    /// Starts it in a new directory, and waits for the first file.
    fn start(directory: PathBuf) -> Load {
        fs::create_dir(&directory).unwrap();
        let (closed, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let writer = thread::spawn({
            let (closed, stop) = (closed.clone(), stop.clone());
            move || {
                for number in 1.. {
                    fs::write(directory.join(number.to_string()), content(number)).unwrap();
                    closed.store(number, Ordering::SeqCst);
                    if number > FILE_COUNT {
                        fs::remove_file(directory.join((number - FILE_COUNT).to_string())).unwrap();
                    }
                    if stop.load(Ordering::SeqCst) {
                        return;
                    }
                }
            }
        });
        eventually("the first file is closed", SOON, || closed.load(Ordering::SeqCst) > 0);
        Load { closed, stop, writer }
    }

    /// Ends it; returns the numbers of the files that are there.
    fn end(self) -> RangeInclusive<u64> {
        self.stop.store(true, Ordering::SeqCst);
        self.writer.join().unwrap();
        let last = self.closed.load(Ordering::SeqCst);
        last.saturating_sub(FILE_COUNT) + 1..=last
    }
}

#[test]
fn a_newcomer_finds_all_that_a_lone_mount_had_closed() {
    let Some(story) = Story::begin("a_newcomer_finds_all_that_a_lone_mount_had_closed") else { return };
    let (first, a) = story.mount("a");
    story.wait_until_alone(&a);

    for round in 0..3 {
        let load = Load::start(a.join(format!("round-{round}")));
        let (second, b) = story.mount("b");
        let there = b.join(format!("round-{round}"));
        for _ in 0..LOOK_COUNT {
            let number = load.closed.load(Ordering::SeqCst);
            match fs::read_to_string(there.join(number.to_string())) {
                Ok(found) => assert_eq!(found, content(number)),
                // Only where so many came since that this one went meanwhile.
                Err(error) => {
                    let since = load.closed.load(Ordering::SeqCst) - number;
                    assert!(since >= FILE_COUNT, "{number} was closed before, {since} since: {error}");
                }
            }
        }
        // The other way round, at once, while the first goes on.
        fs::write(b.join("answer"), format!("round {round}")).unwrap();
        assert_eq!(fs::read_to_string(a.join("answer")).unwrap(), format!("round {round}"));
        let kept = load.end();
        for number in kept.clone() {
            assert_eq!(fs::read_to_string(there.join(number.to_string())).unwrap(), content(number));
        }
        // What an open finds at once, a listing shows a moment later; and what was removed with it.
        let kept: BTreeSet<String> = kept.map(|number| number.to_string()).collect();
        eventually("they are listed, and nothing else", SOON, || {
            let listed = fs::read_dir(&there).unwrap();
            listed.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect::<BTreeSet<_>>()
                == kept
        });
        assert!(second.stop().success());
    }
    story.wait_until_alone(&a);
    assert!(first.stop().success());
    assert!(story.node.stop().success());
}

#[test]
fn a_newcomer_gets_the_drive_of_one_that_was_killed() {
    let Some(story) = Story::begin("a_newcomer_gets_the_drive_of_one_that_was_killed") else { return };
    let (first, a) = story.mount("a");
    story.wait_until_alone(&a);
    fs::write(a.join("synced"), "kept").unwrap();
    fs::File::open(a.join("synced")).unwrap().sync_all().unwrap();
    first.kill();
    common::detach(&a);
    let (second, b) = story.mount("b");
    assert_eq!(fs::read_to_string(b.join("synced")).unwrap(), "kept");
    fs::write(b.join("new"), "here").unwrap();
    story.wait_until_alone(&b);
    // The killed one, started again, is a newcomer like any.
    let (first, a) = story.mount("a");
    assert_eq!(fs::read_to_string(a.join("new")).unwrap(), "here");
    assert!(first.stop().success());
    assert!(second.stop().success());
    assert!(story.node.stop().success());
}

#[test]
fn one_that_slept_serves_nothing_stale_and_loses_nothing() {
    let Some(story) = Story::begin("one_that_slept_serves_nothing_stale_and_loses_nothing") else { return };
    let (first, a) = story.mount("a");
    fs::write(a.join("file"), "old").unwrap();
    fs::write(a.join("same-size"), "1234").unwrap();
    fs::write(a.join("doomed"), "old").unwrap();
    fs::write(a.join("saved"), "old").unwrap();
    story.wait_until_alone(&a);
    fs::File::open(&a).unwrap().sync_all().unwrap();
    // What the kernel may remember for as long as the mount is alone.
    for name in ["file", "same-size", "doomed", "saved"] {
        fs::metadata(a.join(name)).unwrap();
        fs::read(a.join(name)).unwrap();
    }
    assert!(!a.join("missing").exists());
    fs::write(a.join("mine"), "closed just before").unwrap();
    signal(first.pid(), Signal::STOP);

    let (second, b) = story.mount("b");
    fs::write(b.join("file"), "new and longer").unwrap();
    fs::write(b.join("same-size"), "5678").unwrap();
    fs::write(b.join("missing"), "made").unwrap();
    fs::write(b.join("saved~"), "saved").unwrap();
    fs::rename(b.join("saved~"), b.join("saved")).unwrap();
    fs::remove_file(b.join("doomed")).unwrap();
    fs::write(b.join("last"), "closed").unwrap();

    signal(first.pid(), Signal::CONT);
    assert_eq!(fs::read_to_string(a.join("file")).unwrap(), "new and longer");
    assert_eq!(fs::read_to_string(a.join("same-size")).unwrap(), "5678");
    assert_eq!(fs::read_to_string(a.join("missing")).unwrap(), "made");
    assert_eq!(fs::read_to_string(a.join("saved")).unwrap(), "saved");
    assert_eq!(fs::read_to_string(a.join("last")).unwrap(), "closed");
    assert_eq!(fs::read(a.join("doomed")).unwrap_err().kind(), ErrorKind::NotFound);
    eventually("what it had closed", SOON, || {
        fs::read_to_string(b.join("mine")).is_ok_and(|content| content == "closed just before")
    });
    let names = |root: &Path| {
        let mut names: Vec<_> = fs::read_dir(root)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.retain(|name| !name.starts_with("lone-"));
        names.sort();
        names
    };
    eventually("the same on both", SOON, || names(&a) == names(&b));
    assert_eq!(names(&a), ["file", "last", "mine", "missing", "same-size", "saved"], "no conflict");
    assert!(first.stop().success());
    assert!(second.stop().success());
    assert!(story.node.stop().success());
}
