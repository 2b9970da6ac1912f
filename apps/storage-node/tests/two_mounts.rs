//! Two mounts of one drive, the ordinary case: what one closes, the other opens.
//!
//! Once the kernel gathered each mount's writes and believed nobody's word about a file's size: appends landed over each
//! other though both were synced, and a file that another mount had rewritten kept its old length for ever.

mod common;

use std::fs::{self, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use common::running::Running;
use common::{Place, eventually, fuse_is_usable, run, text};

/// A second is meant; a loaded machine may take longer.
const SOON: Duration = Duration::from_secs(60);

/// One home, its `up`, and a `mount` of the same drive beside it.
struct Pair {
    a: PathBuf,
    b: PathBuf,
    processes: Vec<Running>,
    _place: Place,
}

impl Pair {
    fn new(story: &str) -> Option<Pair> {
        if !fuse_is_usable(story) {
            return None;
        }
        let place = Place::new(story);
        let (home, a, b) = (place.join("home"), place.join("a"), place.join("b"));
        let up = Running::up(&home, &a, 1);
        let cache = place.join("cache");
        let mount = Running::start(
            &["mount", "--home", text(&home), "--directory", text(&cache), text(&b)],
            "the drive is",
        );
        // The mount ends first: it needs the node.
        Some(Pair { a, b, processes: vec![mount, up], _place: place })
    }

    fn stop(self) {
        for process in self.processes {
            assert!(process.stop().success());
        }
    }
}

fn append(path: &Path, line: &str) {
    OpenOptions::new().append(true).create(true).open(path).unwrap().write_all(line.as_bytes()).unwrap();
}

#[test]
fn what_one_closes_the_other_opens() {
    let Some(pair) = Pair::new("what_one_closes_the_other_opens") else { return };
    let (a, b) = (&pair.a, &pair.b);

    fs::write(a.join("new"), "here").unwrap();
    assert_eq!(fs::read_to_string(b.join("new")).unwrap(), "here");

    // Nobody remembers that a name is missing.
    assert!(!b.join("later").exists());
    fs::write(a.join("later"), "here").unwrap();
    assert!(b.join("later").exists());

    // Longer, shorter, and of the same length, by turns.
    for (turn, content) in ["a longer text", "short", "other", "", "again"].into_iter().enumerate() {
        let (writer, reader) = if turn % 2 == 0 { (b, a) } else { (a, b) };
        fs::metadata(reader.join("new")).unwrap();
        fs::write(writer.join("new"), content).unwrap();
        assert_eq!(fs::read_to_string(reader.join("new")).unwrap(), content, "turn {turn}");
    }

    // As editors save: a new file over the name.
    for turn in 0..4 {
        let (writer, reader) = if turn % 2 == 0 { (a, b) } else { (b, a) };
        fs::read(reader.join("new")).unwrap();
        fs::write(writer.join("new~"), format!("saved {turn}")).unwrap();
        fs::rename(writer.join("new~"), writer.join("new")).unwrap();
        assert_eq!(fs::read_to_string(reader.join("new")).unwrap(), format!("saved {turn}"));
    }

    // Through the map of one, past the cache of the other.
    fs::write(a.join("mapped"), vec![b'.'; 100_000]).unwrap();
    fs::read(b.join("mapped")).unwrap();
    run("python3", &["-c", MAP, text(&a.join("mapped"))]);
    assert_eq!(&fs::read(b.join("mapped")).unwrap()[50_000..50_005], b"by ma");
    pair.stop();
}

/// Changes five bytes through `mmap`, without `msync`.
const MAP: &str = "
import mmap, sys
with open(sys.argv[1], 'r+b') as file:
    with mmap.mmap(file.fileno(), 0) as pages:
        pages[50000:50005] = b'by ma'
";

#[test]
fn appends_from_two_mounts_lose_nothing() {
    let Some(pair) = Pair::new("appends_from_two_mounts_lose_nothing") else { return };
    let (a, b) = (pair.a.join("log"), pair.b.join("log"));
    let mut expected = String::new();
    for (turn, path) in [&a, &b, &a, &a, &b, &b, &a, &b].into_iter().enumerate() {
        let line = format!("{turn} {}\n", "x".repeat(turn * 7));
        append(path, &line);
        expected.push_str(&line);
    }
    // Descriptors that stay open do not know where the other's lines end.
    let mut open_a = OpenOptions::new().append(true).read(true).open(&a).unwrap();
    let mut open_b = OpenOptions::new().append(true).read(true).open(&b).unwrap();
    for turn in 0..6 {
        let line = format!("open {turn}\n");
        let file = if turn % 2 == 0 { &mut open_a } else { &mut open_b };
        file.write_all(line.as_bytes()).unwrap();
        file.sync_all().unwrap();
        expected.push_str(&line);
    }
    for path in [&a, &b] {
        assert_eq!(fs::read_to_string(path).unwrap(), expected);
    }
    // And the writers read what they wrote where it is, not where their kernel took it to be.
    for file in [&mut open_a, &mut open_b] {
        let mut seen = String::new();
        file.seek(SeekFrom::Start(0)).unwrap();
        file.read_to_string(&mut seen).unwrap();
        assert_eq!(seen, expected);
    }
    drop((open_a, open_b));
    let left: Vec<_> = fs::read_dir(&pair.a).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["log"], "no conflict");
    pair.stop();
}

#[test]
fn a_file_that_stays_open_shows_what_the_other_mount_did_to_it() {
    let Some(pair) = Pair::new("a_file_that_stays_open_shows_what_the_other_mount_did") else { return };
    let (a, b) = (pair.a.join("file"), pair.b.join("file"));
    fs::write(&a, vec![b'1'; 50_000]).unwrap();
    let reader = OpenOptions::new().read(true).write(true).open(&b).unwrap();
    let at = |offset| {
        let mut byte = [0];
        reader.read_at(&mut byte, offset).map(|size| (size, byte[0]))
    };
    assert_eq!(at(40_000).unwrap(), (1, b'1'));
    assert_eq!(reader.metadata().unwrap().size(), 50_000);

    let writer = OpenOptions::new().write(true).open(&a).unwrap();
    writer.write_all_at(b"2", 40_000).unwrap();
    writer.write_all_at(b"2", 100_000).unwrap();
    writer.sync_all().unwrap();
    eventually("the new size", SOON, || reader.metadata().unwrap().size() == 100_001);
    eventually("the new bytes", SOON, || at(40_000).unwrap() == (1, b'2'));
    assert_eq!(at(100_000).unwrap(), (1, b'2'));

    // And back: the first sees what the second writes behind the end.
    reader.write_all_at(b"3", 150_000).unwrap();
    reader.sync_all().unwrap();
    eventually("the size, the other way", SOON, || writer.metadata().unwrap().size() == 150_001);

    writer.set_len(10).unwrap();
    writer.sync_all().unwrap();
    eventually("a shorter file", SOON, || reader.metadata().unwrap().size() == 10);
    assert_eq!(at(40_000).unwrap().0, 0);
    drop((reader, writer));
    pair.stop();
}

#[test]
fn names_come_and_go_within_about_a_second() {
    let Some(pair) = Pair::new("names_come_and_go_within_about_a_second") else { return };
    let (a, b) = (&pair.a, &pair.b);
    fs::create_dir(a.join("directory")).unwrap();
    fs::write(a.join("directory/one"), "1").unwrap();
    let names = |root: &Path| {
        let mut names: Vec<_> = fs::read_dir(root.join("directory"))
            .map(|entries| entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect())
            .unwrap_or_default();
        names.sort();
        names
    };
    eventually("a listing", SOON, || names(b) == ["one"]);
    fs::rename(a.join("directory/one"), a.join("directory/two")).unwrap();
    eventually("a rename", SOON, || names(b) == ["two"]);
    // The kernel is told a moment later.
    eventually("no other name", SOON, || !b.join("directory/one").exists());
    fs::remove_dir_all(b.join("directory")).unwrap();
    eventually("a removal", SOON, || !a.join("directory").exists());
    pair.stop();
}
