//! `up` and a second `mount` of the same network, as on two machines: what both do to one file is exact afterwards.
//!
//! What could go wrong: sizes and pages that one kernel keeps while the other side writes, appends that land on each
//! other, two edits put together into one file, an editor's rename that drops the other's edit, an open file that is gone
//! because the other side removed its name.

mod common;

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use common::running::{Running, signal};
use common::{Place, eventually, fuse_is_usable, text};
use rustix::process::Signal;

/// Far more than a second, for machines that have other things to do.
const SOON: Duration = Duration::from_secs(60);

struct Mounts {
    up: Running,
    second: Running,
    drives: [PathBuf; 2],
    _place: Place,
}

impl Mounts {
    fn begin(story: &str) -> Option<Mounts> {
        Mounts::begin_with(story, &[])
    }

    /// The second mount with these options.
    fn begin_with(story: &str, options: &[&str]) -> Option<Mounts> {
        if !fuse_is_usable(story) {
            return None;
        }
        let place = Place::new("two-mounts");
        let home = place.join("home");
        let drives = [place.join("first"), place.join("second")];
        let up = Running::up(&home, &drives[0], 1);
        let arguments = [&["mount", "--home", text(&home)], options, &[text(&drives[1])]].concat();
        let second = Running::start(&arguments, "the drive is");
        Some(Mounts { up, second, drives, _place: place })
    }

    fn paths(&self, name: &str) -> [PathBuf; 2] {
        [self.drives[0].join(name), self.drives[1].join(name)]
    }

    /// Waits until both show the same files with what `expected` says; conflicts' authors and times are left out.
    fn settle(&self, expected: &[(&str, &[u8])]) {
        let mut expected: Vec<(String, Vec<u8>)> =
            expected.iter().map(|(name, content)| ((*name).to_owned(), content.to_vec())).collect();
        expected.sort();
        for drive in &self.drives {
            let mut last = Vec::new();
            for _ in 0..SOON.as_millis() / 50 {
                last = files(drive);
                if last == expected {
                    break;
                }
                thread::sleep(Duration::from_millis(50));
            }
            let shown = |files: &[(String, Vec<u8>)]| -> Vec<(String, String)> {
                files
                    .iter()
                    .map(|(name, content)| (name.clone(), String::from_utf8_lossy(content).into()))
                    .collect()
            };
            assert_eq!(shown(&last), shown(&expected), "in {}", drive.display());
        }
    }

    fn clear(&self) {
        for entry in fs::read_dir(&self.drives[0]).unwrap() {
            fs::remove_file(entry.unwrap().path()).unwrap();
        }
        self.settle(&[]);
    }

    fn stop_second(&self) {
        signal(self.second.pid(), Signal::STOP);
    }

    fn go_on(&self) {
        signal(self.second.pid(), Signal::CONT);
    }

    fn end(self) {
        assert!(self.second.stop().success());
        assert!(self.up.stop().success());
    }
}

/// All files, by name; "a (conflict, who, when).b" is "a (conflict).b".
fn files(drive: &Path) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(drive).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        let name = match (name.split_once(" (conflict, "), name.rsplit_once(')')) {
            (Some((stem, _)), Some((_, extension))) => format!("{stem} (conflict){extension}"),
            _ => name.to_owned(),
        };
        found.push((name, fs::read(&path).unwrap_or_else(|error| error.to_string().into_bytes())));
    }
    found.sort();
    found
}

fn append(path: &Path) -> File {
    OpenOptions::new().append(true).create(true).open(path).unwrap()
}

fn edit(path: &Path) -> File {
    OpenOptions::new().read(true).write(true).open(path).unwrap()
}

#[test]
fn lines_that_both_append_are_all_there() {
    let Some(mounts) = Mounts::begin("lines_that_both_append_are_all_there") else { return };
    // In turns, each opening and closing: what was closed is seen by who opens next, so the order is exact.
    let diary = mounts.paths("diary");
    let mut expected = String::new();
    for turn in 0..20 {
        let line = format!("entry {turn} by {}\n", turn % 2);
        append(&diary[turn % 2]).write_all(line.as_bytes()).unwrap();
        expected += &line;
        assert_eq!(fs::read_to_string(&diary[(turn + 1) % 2]).unwrap(), expected, "after turn {turn}");
    }
    mounts.settle(&[("diary", expected.as_bytes())]);
    // Both at once, with the log open all the time.
    let log = mounts.paths("log");
    drop(append(&log[0]));
    eventually("the log is seen", SOON, || log[1].exists());
    thread::scope(|scope| {
        for (side, path) in log.iter().enumerate() {
            scope.spawn(move || {
                let mut file = append(path);
                for number in 0..60 {
                    file.write_all(format!("{side} {number}\n").as_bytes()).unwrap();
                    if number % 7 == side {
                        file.sync_all().unwrap();
                    }
                }
                file.sync_all().unwrap();
            });
        }
    });
    for path in &log {
        let read = || {
            let mut lines: BTreeMap<String, Vec<usize>> = BTreeMap::new();
            for line in fs::read_to_string(path).unwrap().lines() {
                let (side, number) = line.split_once(' ').unwrap();
                lines.entry(side.to_owned()).or_default().push(number.parse().unwrap());
            }
            lines
        };
        let all: Vec<usize> = (0..60).collect();
        let whole = BTreeMap::from([("0".to_owned(), all.clone()), ("1".to_owned(), all)]);
        eventually("every line is there once and in order", SOON, || read() == whole);
    }
    mounts.end();
}

#[test]
fn two_edits_of_one_file_are_both_kept_whole() {
    let Some(mut mounts) = Mounts::begin("two_edits_of_one_file_are_both_kept_whole") else { return };
    let before = vec![b'.'; 100_000];
    let notes = mounts.paths("notes.txt");
    fs::write(&notes[0], &before).unwrap();
    mounts.settle(&[("notes.txt", &before)]);
    let (first, second) = (edit(&notes[0]), edit(&notes[1]));
    first.write_all_at(b"first", 0).unwrap();
    second.write_all_at(b"second", 90_000).unwrap();
    first.sync_all().unwrap();
    second.sync_all().unwrap();
    // Whoever has it open goes on with what was written there, whichever of the two has the name now.
    first.write_all_at(b"first again", 40_000).unwrap();
    second.write_all_at(b"second again", 40_000).unwrap();
    for (file, there, other) in [(&first, "first again", b'.'), (&second, "second again", b'.')] {
        let mut bytes = vec![0; there.len() + 1];
        file.read_exact_at(&mut bytes, 40_000).unwrap();
        assert_eq!(bytes, [there.as_bytes(), &[other]].concat());
    }
    drop((first, second));
    let content = |at: usize, word: &[u8], again: &[u8]| {
        let mut content = before.clone();
        content[at..at + word.len()].copy_from_slice(word);
        content[40_000..40_000 + again.len()].copy_from_slice(again);
        content
    };
    let (first, second) = (content(0, b"first", b"first again"), content(90_000, b"second", b"second again"));
    mounts.settle(&[("notes.txt", &first), ("notes (conflict).txt", &second)]);
    // Whoever made the copy says so: nobody need list the directory to hear of it.
    let told = mounts.up.drain() + &mounts.second.drain();
    let is_told = told.lines().any(|line| {
        line.contains("\"notes.txt\" was changed here and elsewhere") && line.contains("\"notes (conflict, ")
    });
    assert!(is_told, "{told}");
    // An attribute alone is no conflict.
    let second = edit(&notes[1]);
    second.set_len(0).unwrap();
    second.write_all_at(b"short", 0).unwrap();
    fs::set_permissions(&notes[0], fs::Permissions::from_mode(0o600)).unwrap();
    File::open(&notes[0]).unwrap().sync_all().unwrap();
    drop(second);
    let conflict = content(90_000, b"second", b"second again");
    mounts.settle(&[("notes.txt", b"short"), ("notes (conflict).txt", &conflict)]);
    assert_eq!(fs::metadata(&notes[1]).unwrap().permissions().mode() & 0o777, 0o600);
    mounts.end();
}

#[test]
fn a_save_by_rename_and_an_edit_in_place_that_know_nothing_of_each_other_are_both_kept() {
    // In write-back mode a rename is not published before it is answered.
    let story = "a_save_by_rename_and_an_edit_in_place_that_know_nothing";
    let Some(mounts) = Mounts::begin_with(story, &["--write-back"]) else { return };
    for (saver, editor) in [(0, 1), (1, 0)] {
        // A mount stores by itself, about every second: where that came before it was stopped, it is tried again.
        let is_unknown = (0..20).any(|number| {
            mounts.clear();
            let report = mounts.paths("report.odt");
            let new = mounts.drives[saver].join(".report.odt.new");
            let old = format!("old content {number:04}");
            fs::write(&report[0], &old).unwrap();
            fs::write(&new, "saved by rename").unwrap();
            mounts.settle(&[(".report.odt.new", b"saved by rename"), ("report.odt", old.as_bytes())]);
            let _open = report.each_ref().map(|path| File::open(path).unwrap());
            let edited = edit(&report[editor]);
            let change = |side| {
                if side == saver {
                    fs::rename(&new, &report[saver]).unwrap();
                } else {
                    edited.write_all_at(b"edited in place!", 0).unwrap();
                }
            };
            let store = |side: usize| match side == saver {
                // No close stores a rename: a sync does.
                true => File::open(&mounts.drives[side]).unwrap().sync_all().unwrap(),
                false => edited.sync_all().unwrap(),
            };
            change(1);
            mounts.stop_second();
            // An open finds what is stored by then, and nothing more is while the process is stopped.
            let is_unknown = fs::read(&report[0]).unwrap() == old.as_bytes();
            if is_unknown {
                change(0);
                store(0);
            }
            mounts.go_on();
            store(1);
            is_unknown
        });
        assert!(is_unknown, "it was stored before it could be stopped, each time");
        // What was stored first keeps the name.
        let (first, second): (&[u8], &[u8]) = match saver {
            0 => (b"saved by rename", b"edited in place!"),
            _ => (b"edited in place!", b"saved by rename"),
        };
        mounts.settle(&[("report (conflict).odt", second), ("report.odt", first)]);
    }
    mounts.end();
}

#[test]
fn a_save_by_rename_replaces_what_its_mount_has() {
    let Some(mounts) = Mounts::begin("a_save_by_rename_replaces_what_its_mount_has") else { return };
    for (saver, editor) in [(0, 1), (1, 0), (0, 1), (1, 0)] {
        for has_looked in [true, false] {
            mounts.clear();
            let report = mounts.paths("report.odt");
            let marker = mounts.paths("marker");
            fs::write(&report[0], "old content").unwrap();
            mounts.settle(&[("report.odt", b"old content")]);
            let seen = File::open(&report[saver]).unwrap();
            edit(&report[editor]).write_all_at(b"edited!", 0).unwrap();
            if has_looked {
                // What was closed before an open is seen by it.
                assert_eq!(fs::read(&report[saver]).unwrap(), b"edited!tent");
            } else {
                // The saver's mount has what was stored before the marker, though no program has looked at it.
                fs::write(&marker[editor], "").unwrap();
                eventually("the marker is seen", SOON, || marker[saver].exists());
                fs::remove_file(&marker[saver]).unwrap();
            }
            let new = mounts.drives[saver].join(".report.odt.new");
            fs::write(&new, "saved by rename").unwrap();
            fs::rename(&new, &report[saver]).unwrap();
            File::open(&mounts.drives[saver]).unwrap().sync_all().unwrap();
            // As on one machine: it is replaced, whoever had it open can go on, and nothing is made of it.
            mounts.settle(&[("report.odt", b"saved by rename")]);
            let mut replaced = [0; 11];
            seen.read_exact_at(&mut replaced, 0).unwrap();
            assert_eq!(&replaced, b"edited!tent");
        }
    }
    mounts.end();
}

#[test]
fn an_open_file_outlives_its_removal_elsewhere() {
    let Some(mounts) = Mounts::begin("an_open_file_outlives_its_removal_elsewhere") else { return };
    let film = mounts.paths("film");
    let content: Vec<u8> = (0..3_000_000u32).map(|number| (number / 7) as u8).collect();
    fs::write(&film[0], &content).unwrap();
    eventually("it is seen", SOON, || fs::metadata(&film[1]).is_ok_and(|found| found.len() == 3_000_000));
    let mut open = edit(&film[1]);
    let mut half = vec![0; 1_000_000];
    open.read_exact(&mut half).unwrap();
    fs::remove_file(&film[0]).unwrap();
    eventually("its name is gone", SOON, || !film[1].exists());
    let mut rest = Vec::new();
    open.read_to_end(&mut rest).unwrap();
    assert!([half, rest].concat() == content, "it reads on to its end");
    open.write_all_at(b"written after all", 2_500_000).unwrap();
    open.sync_all().unwrap();
    let mut expected = content;
    expected[2_500_000..2_500_017].copy_from_slice(b"written after all");
    open.seek(SeekFrom::Start(0)).unwrap();
    let mut read = Vec::new();
    open.read_to_end(&mut read).unwrap();
    assert!(read == expected, "and takes writes");
    drop(open);
    mounts.settle(&[]);
    mounts.end();
}

#[test]
fn whoever_opens_next_finds_what_was_renamed_removed_or_made() {
    let Some(mounts) = Mounts::begin("whoever_opens_next_finds_what_was_renamed_removed_or_made") else {
        return;
    };
    let content = |path: &Path| fs::read_to_string(path).map_err(|error| error.kind());
    for round in 0..8 {
        let (here, there) = (round % 2, (round + 1) % 2);
        let [saved, temporary, moved, link, directory, missing] =
            ["saved", ".saved.new", "moved", "link", "directory", "missing"].map(|name| mounts.paths(name));
        let text = format!("round {round}");
        // Both kernels know all of it, and remember what they know for a second.
        fs::write(&saved[here], "old").unwrap();
        assert_eq!(content(&saved[there]).unwrap(), "old");
        for path in [&moved, &link, &directory, &missing] {
            assert!(!path[there].exists() && !path[here].exists());
        }

        fs::write(&temporary[here], &text).unwrap();
        fs::rename(&temporary[here], &saved[here]).unwrap();
        assert_eq!(content(&saved[there]), Ok(text.clone()), "saved by rename in round {round}");

        fs::rename(&saved[here], &moved[here]).unwrap();
        assert_eq!(content(&saved[there]), Err(ErrorKind::NotFound), "renamed in round {round}");
        assert_eq!(content(&moved[there]), Ok(text.clone()));

        fs::hard_link(&moved[here], &link[here]).unwrap();
        assert_eq!(content(&link[there]), Ok(text.clone()));
        fs::remove_file(&moved[here]).unwrap();
        assert_eq!(content(&moved[there]), Err(ErrorKind::NotFound), "removed in round {round}");
        assert_eq!(content(&link[there]), Ok(text.clone()), "by its other name");

        fs::set_permissions(&link[here], fs::Permissions::from_mode(0o604)).unwrap();
        let mode = File::open(&link[there]).unwrap().metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o604, "in round {round}");

        fs::create_dir(&directory[here]).unwrap();
        fs::write(directory[there].join("inside"), &text).unwrap();
        assert_eq!(content(&directory[here].join("inside")), Ok(text.clone()));
        std::os::unix::fs::symlink("directory/inside", &missing[here]).unwrap();
        assert_eq!(content(&missing[there]), Ok(text));

        // What the other closed a moment ago is removed, and not a reason to bring it all back.
        let late = mounts.paths("late");
        fs::create_dir(&late[here]).unwrap();
        fs::write(late[here].join("file"), "old").unwrap();
        assert_eq!(content(&late[there].join("file")).unwrap(), "old");
        fs::write(late[here].join("file"), "new").unwrap();
        fs::write(late[here].join("second"), "new").unwrap();
        fs::remove_file(late[there].join("file")).unwrap();
        let refused = fs::remove_dir(&late[there]).map_err(|error| error.kind());
        assert_eq!(refused, Err(ErrorKind::DirectoryNotEmpty), "in round {round}");
        fs::remove_file(late[here].join("second")).unwrap();
        fs::remove_dir(&late[there]).unwrap();

        fs::remove_dir_all(&directory[there]).unwrap();
        assert_eq!(content(&missing[here]), Err(ErrorKind::NotFound));
        fs::remove_file(&missing[there]).unwrap();
        fs::remove_file(&link[there]).unwrap();
        assert_eq!(content(&link[here]), Err(ErrorKind::NotFound));
    }
    mounts.settle(&[]);
    mounts.end();
}
