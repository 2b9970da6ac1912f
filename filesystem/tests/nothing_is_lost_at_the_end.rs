//! A mount that ends while the nodes do not take everything: the rest is in the journal, with or without write-back, and
//! the next opening puts it in. What became of the changes is told, and told truly.

mod common;

use common::*;
use filesystem::volume::{Cause, Ending, OpenError, Options, Volume};
use filesystem::{Errno, JournalError, Operations};
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

fn with_journal(author: &str, directory: &Path) -> Options {
    let mut options = options(author);
    options.journal_directory = Some(directory.into());
    options
}

fn create_with_journal(store: &Rc<TestStore>, directory: &Path) -> Rc<Volume> {
    Volume::create(store.clone(), keys(store), with_journal("first", directory), (0, 0)).unwrap()
}

fn open_with_journal(store: &Rc<TestStore>, directory: &Path) -> Result<Rc<Volume>, OpenError> {
    Volume::open(store.clone(), keys(store), with_journal("first", directory))
}

fn file_count(directory: &Path) -> usize {
    journal_files(directory).len()
}

#[test]
fn what_the_nodes_did_not_take_waits_in_the_journal() {
    reactor::run(|| {
        let directory = tempfile::tempdir().unwrap();
        let store = TestStore::new();
        let volume = create_with_journal(&store, directory.path());
        let kept = write_file(&volume, ROOT, "kept", &[1; 100_000]);
        volume.sync(None, false).unwrap();
        assert_eq!(
            file_count(directory.path()),
            0,
            "without write-back nothing is journaled while all is well"
        );
        store.budget.set(0);
        volume.write(kept, 50_000, &[2; 10], false).unwrap();
        let new = write_file(&volume, ROOT, "new", &[3; 3_000_000]);
        let ending = volume.close();
        let Ending::InJournal { bytes, file_count: count, cause } = ending else { panic!("{ending:?}") };
        assert!(bytes > 3_000_000 && count == 2 && cause == Cause::Away, "{bytes} {count} {cause}");
        store.budget.set(u64::MAX);
        assert!(matches!(
            Volume::create(store.clone(), other_keys(&store), with_journal("x", directory.path()), (0, 0)),
            Err(OpenError::Journal(JournalError::Unstored(_)))
        ));
        let volume = open_with_journal(&store, directory.path()).unwrap();
        assert_eq!(volume.close(), Ending::Stored);
        assert_eq!(file_count(directory.path()), 0);
        let volume = open(&store, "second");
        assert_eq!(read_file(&volume, kept)[49_999..50_001], [1, 2]);
        assert!(read_file(&volume, new) == [3; 3_000_000]);
    });
}

fn other_keys(store: &TestStore) -> filesystem::VolumeKeys {
    let mut keys = keys(store);
    keys.register = store.memory.new_register([8; 32]);
    keys
}

#[test]
fn a_full_store_keeps_what_it_took_and_the_journal_the_rest() {
    reactor::run(|| {
        let directory = tempfile::tempdir().unwrap();
        let store = TestStore::new();
        let volume = create_with_journal(&store, directory.path());
        let used = dht::BlockStore::usage(&store.memory).unwrap().used_bytes;
        let content: Vec<u8> = (0..5_000_000u32).map(|at| (at / 999) as u8).collect();
        let file = write_file(&volume, ROOT, "file", &content);
        // Somebody else filled the nodes after that was acknowledged.
        store.memory.set_capacity_bytes(used + 2_000_000);
        assert!(matches!(volume.close(), Ending::InJournal { cause: Cause::Full, .. }));
        store.memory.set_capacity_bytes(1 << 40);
        let volume = open_with_journal(&store, directory.path()).unwrap();
        assert!(read_file(&volume, file) == content);
        assert_eq!(volume.close(), Ending::Stored);
        assert!(read_file(&open(&store, "second"), file) == content);
    });
}

#[test]
fn without_a_journal_a_loss_is_called_a_loss() {
    reactor::run(|| {
        let store = TestStore::new();
        let volume = create(&store);
        store.budget.set(0);
        write_file(&volume, ROOT, "file", b"gone");
        assert!(matches!(volume.close(), Ending::Lost { cause: Cause::Away, .. }));
    });
}

#[test]
fn who_was_removed_is_refused_at_once_and_keeps_what_was_not_stored() {
    reactor::run(|| {
        for (write_back, hard) in [(false, false), (true, false), (false, true)] {
            let directory = tempfile::tempdir().unwrap();
            let store = TestStore::new();
            let volume = {
                let mut options = with_journal("first", directory.path());
                (options.write_back, options.hard) = (write_back, hard);
                Volume::create(store.clone(), keys(&store), options, (0, 0)).unwrap()
            };
            let stored = write_file(&volume, ROOT, "stored", b"stored");
            volume.sync(None, false).unwrap();
            store.budget.set(0);
            let file = write_file(&volume, ROOT, "file", b"kept");
            volume.on_removed();
            for refused in [
                volume.sync(Some(file), false),
                volume.sync(None, false),
                volume.flush(file),
                volume.write(file, 0, b"x", false),
                volume.unlink(ROOT, b"stored"),
            ] {
                assert_eq!(refused, Err(Errno::EKEYREVOKED));
            }
            // What a quorum has it has; the journal alone is no promise any more.
            assert!(write_back || volume.sync(Some(stored), false).is_ok());
            assert_eq!(
                (read_file(&volume, stored), read_file(&volume, file)),
                (b"stored".into(), b"kept".into())
            );
            // It is not asked again, whatever it would take.
            store.budget.set(u64::MAX);
            let ending = volume.close();
            assert!(matches!(ending, Ending::InJournal { cause: Cause::Removed, .. }), "{ending:?}");
            assert_eq!(read_file(&open_with_journal(&store, directory.path()).unwrap(), file), b"kept");
        }
    });
}

#[test]
fn giving_up_turns_to_the_journal_at_once() {
    reactor::run(|| {
        let directory = tempfile::tempdir().unwrap();
        let store = TestStore::new();
        let volume = {
            let mut patient = with_journal("first", directory.path());
            patient.hard = true;
            Volume::create(store.clone(), keys(&store), patient, (0, 0)).unwrap()
        };
        store.budget.set(0);
        let file = write_file(&volume, ROOT, "file", b"kept");
        let closing = volume.clone();
        let closing = reactor::spawn(move || closing.close());
        while volume.pending().trouble.is_none() {
            reactor::sleep(Duration::from_millis(1));
        }
        let pending = volume.pending();
        assert!(pending.bytes > 0 && pending.file_count == 1, "{pending:?}");
        // A hard mount would wait for ever.
        volume.give_up();
        assert!(matches!(closing.join().unwrap(), Ending::InJournal { .. }));
        store.budget.set(u64::MAX);
        let volume = open_with_journal(&store, directory.path()).unwrap();
        assert_eq!(read_file(&volume, file), b"kept");
        assert_eq!(volume.close(), Ending::Stored);
    });
}

/// Makes a volume whose next look at the tree has to ask nodes that do not answer, and whose patience is endless.
fn with_silent_nodes(store: &Rc<TestStore>) -> Rc<Volume> {
    let mut patient = options("first");
    patient.sync_patience = Duration::from_secs(3600);
    patient.cache_bytes = 1;
    let volume = Volume::create(store.clone(), keys(store), patient, (0, 0)).unwrap();
    let file = write_file(&volume, ROOT, "file", &[1; 100_000]);
    volume.sync(None, false).unwrap();
    // The frames push the tree out of a cache as small as that.
    read_file(&volume, file);
    store.budget.set(0);
    store.reads_fail.set(true);
    volume
}

#[test]
fn giving_up_ends_waiting_for_nodes_that_do_not_answer() {
    reactor::run(|| {
        let store = TestStore::new();
        let volume = with_silent_nodes(&store);
        let closing = volume.clone();
        let closing = reactor::spawn(move || closing.close());
        while store.failed_gets.get() == 0 {
            reactor::sleep(Duration::from_millis(1));
        }
        volume.give_up();
        let ending = reactor::timeout(Duration::from_secs(60), || closing.join());
        assert_eq!(ending.expect("it goes on waiting").unwrap(), Ending::Stored);
    });
}

#[test]
fn who_gave_up_before_the_end_asks_the_nodes_for_nothing_more() {
    reactor::run(|| {
        let store = TestStore::new();
        let volume = with_silent_nodes(&store);
        volume.give_up();
        let ending = reactor::timeout(Duration::from_secs(60), || volume.close());
        assert_eq!(ending.expect("it goes on waiting"), Ending::Stored);
        assert_eq!(store.failed_gets.get(), 0);
    });
}

#[test]
fn what_waits_in_the_journal_stands_on_a_root_that_was_published() {
    reactor::run(|| {
        let directory = tempfile::tempdir().unwrap();
        let store = TestStore::new();
        let volume = create_with_journal(&store, directory.path());
        // A file without a name comes and goes: the next commit has nothing to say, and publishes nothing.
        let unnamed = volume.make_unnamed(ROOT, 0o600, &USER).unwrap().inode;
        volume.remember(unnamed);
        volume.forget(unnamed, 1);
        while volume.pending().bytes > 0 {
            reactor::sleep(Duration::from_millis(1));
        }
        let swaps = store.swaps.get();
        volume.sync(None, false).unwrap();
        assert_eq!(store.swaps.get(), swaps, "nothing was published");
        // The next one's root is announced, and never gets there.
        store.budget.set(0);
        let file = write_file(&volume, ROOT, "file", b"kept");
        assert!(matches!(volume.close(), Ending::InJournal { .. }));
        store.budget.set(u64::MAX);
        let volume = open_with_journal(&store, directory.path()).unwrap();
        assert_eq!(read_file(&volume, file), b"kept");
        assert_eq!(volume.close(), Ending::Stored);
        assert_eq!(read_file(&open(&store, "second"), file), b"kept");
    });
}

/// It was said that 480 bytes of one file wait: they were the keys of a file whose removal had been stored long before.
#[test]
fn what_is_left_of_a_file_whose_removal_is_stored_waits_for_nobody() {
    for (is_told, is_open) in [(true, true), (true, false), (false, true), (false, false)] {
        reactor::run(|| {
            let directory = tempfile::tempdir().unwrap();
            let store = TestStore::new();
            let volume = create_with_journal(&store, directory.path());
            let file = write_file(&volume, ROOT, "file", &[1; 100_000]);
            volume.remember(file);
            volume.sync(None, false).unwrap();
            volume.unlink(ROOT, b"file").unwrap();
            if is_told {
                volume.sync(None, false).unwrap();
            }
            store.budget.set(0);
            if !is_open {
                volume.forget(file, 1);
                reactor::sleep(Duration::from_millis(20));
            }
            assert_eq!(volume.pending().bytes == 0, is_told);
            let ending = volume.close();
            assert_eq!(ending == Ending::Stored, is_told, "told: {is_told}, open: {is_open}, {ending}");
            assert_eq!(file_count(directory.path()) == 0, is_told);
            store.budget.set(u64::MAX);
            let volume = open_with_journal(&store, directory.path()).unwrap();
            assert_eq!(volume.close(), Ending::Stored);
            let volume = open(&store, "second");
            assert!(names(&volume, ROOT).is_empty());
            assert_eq!(
                volume.attributes(file),
                Err(Errno::ENOENT),
                "the next mount takes away what was left"
            );
        });
    }
}
