//! Write-back: `sync` returns when the local journal is durable. After a crash, what it acknowledged is there, whether or
//! not a commit had got through, and even if another writer went on meanwhile.

mod common;

use common::model::Model;
use common::*;
use filesystem::operations::FileKind;
use filesystem::{JournalError, OpenError, Operations, Options, Volume};
use std::path::Path;
use std::rc::Rc;

fn write_back(author: &str, directory: &Path) -> Options {
    let mut options = options(author);
    options.journal_directory = Some(directory.into());
    options
}

fn copy(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
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
        let crashed = tempfile::tempdir().unwrap();
        copy(directory.path(), crashed.path());
        store.budget.set(u64::MAX);
        for again in 0..2 {
            // The second time: a crash right after the replay.
            let volume = restart(&store, crashed.path());
            model.check(&volume, &format!("replay {again}"));
        }
        let volume = restart(&store, crashed.path());
        volume.close().unwrap();
        assert_eq!(
            std::fs::read_dir(crashed.path()).unwrap().count(),
            0,
            "all is committed: no journal is left"
        );
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
        let crashed = tempfile::tempdir().unwrap();
        copy(directory.path(), crashed.path());
        volume.write(file, 0, b"new", false).unwrap();
        volume.close().unwrap();
        // The journal from before the commit turns up again, as after a crash between the commit and the clean-up.
        let volume = restart(&store, crashed.path());
        assert_eq!(read_file(&volume, file), b"new");
        volume.close().unwrap();
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
        other.close().unwrap();
        let crashed = tempfile::tempdir().unwrap();
        copy(directory.path(), crashed.path());
        let volume = restart(&store, crashed.path());
        let found = names(&volume, ROOT);
        assert_eq!(found.len(), 2);
        assert_eq!(read_file(&volume, file), b"journalled");
        assert_eq!(read_file(&volume, volume.lookup(ROOT, b"plan").unwrap().inode), b"committed");
        volume.close().unwrap();
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
        let result = Volume::create(other.clone(), foreign, write_back("other", directory.path()), (0, 0));
        assert!(matches!(result, Err(OpenError::Journal(JournalError::Foreign(_)))));
    });
}
