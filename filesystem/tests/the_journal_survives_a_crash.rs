//! Write-back: `sync` returns when the local journal is durable. After a crash, what it acknowledged is there, whether or
//! not a commit had got through, and even if another writer went on meanwhile.

mod common;

use common::model::Model;
use common::*;
use filesystem::operations::FileKind;
use filesystem::{Ending, Errno, JournalError, OpenError, Operations, Options, Volume};
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;
use tempfile::TempDir;

fn write_back(author: &str, directory: &Path) -> Options {
    let mut options = options(author);
    options.journal_directory = Some(directory.into());
    options.write_back = true;
    options
}

/// What a machine that dies now finds in its journal afterwards.
fn crash(journal: &Path) -> TempDir {
    let copy = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(journal).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
    }
    copy
}

fn start(store: &Rc<TestStore>, directory: &Path) -> Rc<Volume> {
    Volume::create(store.clone(), keys(store), write_back("first", directory), (0, 0)).unwrap()
}

fn restart(store: &Rc<TestStore>, directory: &Path) -> Rc<Volume> {
    Volume::open(store.clone(), keys(store), write_back("first", directory)).unwrap()
}

#[test]
fn synced_changes_come_back_although_the_store_never_had_them() {
    reactor::run(|| {
        let directory = tempfile::tempdir().unwrap();
        let store = TestStore::new();
        let volume = start(&store, directory.path());
        store.budget.set(0);
        let mut model = Model::new();
        for round in 0..20u8 {
            let name = format!("file {round}");
            let content = vec![round; 10_000 * usize::from(round)];
            let file = write_file(&volume, ROOT, &name, &content);
            model.make(1, &name, file.0, FileKind::Regular);
            model.write(file.0, 0, &content);
            if round % 5 == 4 {
                volume.unlink(ROOT, format!("file {}", round - 1).as_bytes()).unwrap();
                model.unlink(1, &format!("file {}", round - 1)).unwrap();
            }
            if round == 10 {
                // A commit that is under way and does not get through.
                let committing = volume.clone();
                reactor::spawn(move || committing.close());
                reactor::yield_now();
            }
            volume.sync(Some(file), false).unwrap();
            if round == 10 {
                break;
            }
        }
        store.budget.set(0);
        let mut crashed = crash(directory.path());
        for again in 0..2 {
            // The second time: a crash right after the replay.
            let volume = restart(&store, crashed.path());
            model.check(&volume, &format!("replay {again}"));
            crashed = crash(crashed.path());
        }
        store.budget.set(u64::MAX);
        let volume = restart(&store, crashed.path());
        volume.close().stored().unwrap();
        assert_eq!(journal_files(crashed.path()).len(), 0, "all is committed: no journal is left");
        model.check(&open(&store, "elsewhere"), "without the journal");
    });
}

#[test]
fn what_was_committed_is_not_undone_by_an_old_journal() {
    reactor::run(|| {
        let directory = tempfile::tempdir().unwrap();
        let store = TestStore::new();
        let volume = start(&store, directory.path());
        let file = write_file(&volume, ROOT, "file", b"old");
        volume.sync(Some(file), false).unwrap();
        let crashed = crash(directory.path());
        volume.write(file, 0, b"new", false).unwrap();
        volume.close().stored().unwrap();
        // The journal from before the commit turns up again, as after a crash between the commit and the clean-up.
        let volume = restart(&store, crashed.path());
        assert_eq!(read_file(&volume, file), b"new");
        volume.close().stored().unwrap();
    });
}

#[test]
fn a_replay_merges_with_what_another_writer_did_meanwhile() {
    reactor::run(|| {
        let directory = tempfile::tempdir().unwrap();
        let store = TestStore::new();
        let volume = start(&store, directory.path());
        let file = write_file(&volume, ROOT, "plan", b"journalled");
        volume.sync(Some(file), false).unwrap();
        let other = open(&store, "other");
        write_file(&other, ROOT, "plan", b"committed");
        other.close().stored().unwrap();
        let crashed = crash(directory.path());
        let volume = restart(&store, crashed.path());
        let found = names(&volume, ROOT);
        assert_eq!(found.len(), 2);
        assert_eq!(read_file(&volume, file), b"journalled");
        assert_eq!(read_file(&volume, volume.lookup(ROOT, b"plan").unwrap().inode), b"committed");
        volume.close().stored().unwrap();
        assert_eq!(names(&open(&store, "third"), ROOT), found);
    });
}

#[test]
fn the_journal_of_another_volume_is_refused() {
    reactor::run(|| {
        let directory = tempfile::tempdir().unwrap();
        let store = TestStore::new();
        let volume = start(&store, directory.path());
        let file = write_file(&volume, ROOT, "file", b"1");
        volume.sync(Some(file), false).unwrap();
        let other = TestStore::new();
        let mut foreign = keys(&other);
        foreign.secret = reactor::crypto::X25519Secret::from_bytes(&[77; 32]);
        let open = |directory: &Path| {
            Volume::open(other.clone(), foreign.clone(), write_back("other", directory)).map(drop)
        };
        let crashed = crash(directory.path());
        let result =
            Volume::create(other.clone(), foreign.clone(), write_back("other", crashed.path()), (0, 0));
        assert!(matches!(result.map(drop), Err(OpenError::Journal(JournalError::Unstored(_)))));
        assert_eq!(journal_files(crashed.path()).len(), 1, "nor is it thrown away");
        let elsewhere = tempfile::tempdir().unwrap();
        let made =
            Volume::create(other.clone(), foreign.clone(), write_back("other", elsewhere.path()), (0, 0));
        made.unwrap().close().stored().unwrap();
        assert!(matches!(open(crashed.path()), Err(OpenError::Journal(JournalError::Foreign(_)))));
        assert!(matches!(open(directory.path()), Err(OpenError::Journal(JournalError::InUse(_)))));
    });
}

#[test]
fn a_sync_of_any_size_is_in_the_journal_when_it_returns() {
    reactor::run(|| {
        let directory = tempfile::tempdir().unwrap();
        let store = TestStore::new();
        let volume = start(&store, directory.path());
        store.budget.set(0);
        let content: Vec<u8> = (0..20_000_000u32).map(|at| (at / 1000) as u8).collect();
        let big = write_file(&volume, ROOT, "big", &content);
        let large = volume.clone();
        let syncing = reactor::spawn(move || large.sync(Some(big), false));
        reactor::yield_now();
        // The large group is on its way to the disk.
        let small = write_file(&volume, ROOT, "small", b"small");
        volume.sync(Some(small), false).unwrap();
        let crashed = crash(directory.path());
        let found = restart(&store, crashed.path());
        assert_eq!(read_file(&found, small), b"small");
        assert!(read_file(&found, big) == content, "its group came first");
        syncing.join().unwrap().unwrap();
    });
}

#[test]
fn a_sync_that_failed_is_not_said_to_have_succeeded_later() {
    reactor::run(|| {
        let directory = tempfile::tempdir().unwrap();
        let store = TestStore::new();
        let volume = start(&store, directory.path());
        store.budget.set(0);
        let file = write_file(&volume, ROOT, "file", &[1; 100_000]);
        // Neither journal nor nodes: what is acknowledged must be in one of them.
        let moved = directory.path().with_extension("away");
        std::fs::rename(directory.path(), &moved).unwrap();
        for _ in 0..3 {
            assert_eq!(volume.sync(Some(file), false), Err(Errno::ETIMEDOUT));
        }
        std::fs::rename(&moved, directory.path()).unwrap();
        volume.sync(Some(file), false).unwrap();
        let crashed = crash(directory.path());
        assert_eq!(read_file(&restart(&store, crashed.path()), file), [1; 100_000]);
    });
}

#[test]
fn a_journal_that_a_power_cut_brings_back_undoes_nothing() {
    reactor::run(|| {
        let directory = tempfile::tempdir().unwrap();
        let store = TestStore::new();
        let volume = start(&store, directory.path());
        let rewritten = write_file(&volume, ROOT, "rewritten", b"first");
        write_file(&volume, ROOT, "removed", b"first");
        volume.sync(None, false).unwrap();
        let journal = crash(directory.path());
        volume.close().stored().unwrap();
        let other = open(&store, "other");
        other.write(rewritten, 0, b"other", false).unwrap();
        other.unlink(ROOT, b"removed").unwrap();
        other.close().stored().unwrap();
        let volume = restart(&store, journal.path());
        assert_eq!(names(&volume, ROOT), ["rewritten"]);
        assert_eq!(read_file(&volume, rewritten), b"other");
        volume.close().stored().unwrap();
        let volume = open(&store, "third");
        assert_eq!((names(&volume, ROOT).len(), read_file(&volume, rewritten)), (1, b"other".to_vec()));
    });
}

/// What lies in a directory, by name.
fn bytes_in(directory: &Path) -> Vec<(std::ffi::OsString, Vec<u8>)> {
    let entries = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap());
    let mut all: Vec<_> =
        entries.map(|entry| (entry.file_name(), std::fs::read(entry.path()).unwrap())).collect();
    all.sort();
    all
}

#[test]
fn a_start_needs_no_room_for_what_it_finds_and_takes_it_in_once_though_it_is_still_there_at_the_next() {
    reactor::run(|| {
        let directory = tempfile::tempdir().unwrap();
        let store = TestStore::new();
        let volume = start(&store, directory.path());
        write_file(&volume, ROOT, "of before", b"0");
        volume.close().stored().unwrap();
        let volume = restart(&store, directory.path());
        store.budget.set(0);
        let rewritten = write_file(&volume, ROOT, "rewritten", &[1; 300_000]);
        let removed = write_file(&volume, ROOT, "removed", b"first");
        volume.sync(None, false).unwrap();
        let (mut found, again) = (crash(directory.path()), crash(directory.path()));
        let before = bytes_in(found.path());
        // Started and killed, as often as may be: nothing is written, and nothing goes.
        for _ in 0..3 {
            let volume = restart(&store, found.path());
            assert_eq!(read_file(&volume, rewritten), [1; 300_000]);
            assert!(bytes_in(found.path()) == before);
            // What it began with is as safe as what was synced here.
            volume.sync(Some(removed), false).unwrap();
            assert!(bytes_in(found.path()) == before);
            found = crash(found.path());
            let ending = restart(&store, found.path()).close();
            assert!(matches!(ending, Ending::InJournal { file_count: 2, .. }), "{ending}");
            assert!(bytes_in(found.path()) == before);
        }
        store.budget.set(u64::MAX);
        let volume = restart(&store, found.path());
        volume.close().stored().unwrap();
        assert_eq!(journal_files(found.path()).len(), 0);
        let other = open(&store, "other");
        other.write(rewritten, 0, b"other", false).unwrap();
        other.unlink(ROOT, b"removed").unwrap();
        other.close().stored().unwrap();
        // The files are there again, as if the power had failed before they were gone for good.
        let volume = restart(&store, again.path());
        assert_eq!(names(&volume, ROOT), ["of before", "rewritten"]);
        assert_eq!(read_file(&volume, rewritten)[..6], *b"other\x01");
        volume.close().stored().unwrap();
    });
}

#[test]
fn what_was_changed_after_a_commit_comes_back_on_top_of_it_and_of_others() {
    reactor::run(|| {
        let directory = tempfile::tempdir().unwrap();
        let store = TestStore::new();
        let volume = {
            let mut hasty = write_back("first", directory.path());
            hasty.commit_interval = Duration::from_millis(20);
            Volume::create(store.clone(), keys(&store), hasty, (0, 0)).unwrap()
        };
        let file = write_file(&volume, ROOT, "file", b"one");
        write_file(&volume, ROOT, "made and removed", b"");
        // The next commit goes through, and before anybody here knows, more is journaled and the machine dies.
        let crashed = Rc::new(reactor::cell::RefCell::new(None));
        let (journaled, slot, path) = (volume.clone(), crashed.clone(), directory.path().to_owned());
        *store.after_swap.borrow_mut() = Some(Box::new(move || {
            journaled.write(file, 0, b"two", false).unwrap();
            journaled.unlink(ROOT, b"made and removed").unwrap();
            journaled.sync(None, false).unwrap();
            *slot.borrow_mut() = Some(crash(&path));
        }));
        while crashed.borrow().is_none() {
            reactor::sleep(Duration::from_millis(1));
        }
        let other = open(&store, "other");
        write_file(&other, ROOT, "others", b"3");
        other.close().stored().unwrap();
        let crashed = crashed.borrow_mut().take().unwrap();
        let volume = restart(&store, crashed.path());
        assert_eq!(names(&volume, ROOT), ["file", "others"]);
        assert_eq!(read_file(&volume, file), b"two");
    });
}
