//! What was closed and is taken no more: it is kept, told, and had from the journal alone, as far as that has it.

mod common;

use std::cell::Cell;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use common::*;
use dht::BlockStore;
use dht::block::signed::Signed;
use filesystem::access::list::{Access, AccessChange, AccessList, Found};
use filesystem::access::open_root;
use filesystem::access::sharing::change_readers;
use filesystem::nowhere::Nowhere;
use filesystem::operations::{RenameFlags, Sharing};
use filesystem::volume::{Cause, Ending, Left, LeftBehind, LeftPath, Standing, Volume};
use filesystem::{Errno, Operations};
use reactor::crypto::Identity;

fn opened(store: &Rc<TestStore>, directory: &Path, owner: Option<&Identity>) -> Rc<Volume> {
    let mut options = options("first");
    options.journal_directory = Some(directory.into());
    if let Some(owner) = owner {
        options.list_of = Some(owner.public_key());
        options.watch_interval = Some(Duration::from_millis(20));
    }
    Volume::open(store.clone(), keys(store), options).unwrap()
}

fn left(store: Rc<dyn BlockStore>, of: &Rc<TestStore>, directory: &Path) -> LeftBehind {
    LeftBehind::open(store, keys(of), directory).unwrap().expect("something waits")
}

fn nowhere(of: &Rc<TestStore>) -> Rc<dyn BlockStore> {
    Rc::new(Nowhere { tag: of.memory.tag() })
}

fn path(names: &[&str]) -> LeftPath {
    LeftPath { names: names.iter().map(|name| name.as_bytes().to_vec().into()).collect(), is_whole: true }
}

fn named<'a>(left: &'a LeftBehind, names: &[&str]) -> &'a Left {
    left.all.iter().find(|one| one.paths.contains(&path(names))).unwrap_or_else(|| panic!("{:?}", left.all))
}

/// What an end tells of what waits, for this cause: bytes, and files and directories.
fn told_amount(ending: Ending, of: Cause) -> (u64, u64) {
    match ending {
        Ending::InJournal { bytes, file_count, cause } if cause == of => (bytes, file_count),
        other => panic!("{other}"),
    }
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let tries = Cell::new(0);
    while !holds() {
        tries.set(tries.get() + 1);
        assert!(tries.get() < 6000, "never: {what}");
        reactor::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_journal_gives_what_was_made_here_without_any_node_and_says_what_it_has_not() {
    reactor::run(|| {
        let directory = tempfile::tempdir().unwrap();
        let store = TestStore::new();
        create(&store).close().stored().unwrap();
        let volume = opened(&store, directory.path(), None);
        let papers = volume.make_directory(ROOT, b"papers", 0o755, &USER).unwrap().inode;
        let old = write_file(&volume, papers, "old", &[1; 100_000]);
        write_file(&volume, papers, "gone", b"gone");
        write_file(&volume, ROOT, "here", b"moved");
        volume.sync(None, false).unwrap();
        assert!(LeftBehind::open(nowhere(&store), keys(&store), directory.path()).unwrap().is_none());
        store.budget.set(0);
        volume.write(old, 40_000, &[2; 10], false).unwrap();
        let inner = volume.make_directory(papers, b"inner", 0o755, &USER).unwrap().inode;
        write_file(&volume, inner, "new", &[3; 70_000]);
        volume.make_symlink(inner, b"link", b"new", &USER).unwrap();
        volume.unlink(papers, b"gone").unwrap();
        volume.rename(ROOT, b"here", inner, b"there", RenameFlags::default()).unwrap();
        let told = told_amount(volume.close(), Cause::Away);

        // With the tree below it is all there, under its names.
        let whole = left(store.clone(), &store, directory.path());
        let found = named(&whole, &["papers", "old"]);
        let mut expected = vec![1; 100_000];
        expected[40_000..40_010].fill(2);
        assert_eq!((found.size_bytes, found.inode), (100_000, old));
        assert!(whole.read(old, 0, 100_000).unwrap().concat() == expected);
        let there = named(&whole, &["papers", "inner", "there"]).inode;
        assert_eq!(whole.read(there, 0, 100).unwrap().concat(), b"moved");
        assert_eq!(whole.amount(), told, "who reads the journal is told what the end told");
        assert_eq!(whole.gone, [path(&["here"]), path(&["papers", "gone"])]);
        // Not the directories that were only written in.
        assert_eq!(whole.all.len(), 5, "{:?}", whole.all);

        // Without it, what was made here is; of the rest there are names and parts.
        let alone = left(nowhere(&store), &store, directory.path());
        let ends_with = |name: &'static [u8]| {
            move |one: &&Left| one.paths.first().is_some_and(|path| path.names.last().unwrap() == name)
        };
        let new = alone.all.iter().find(ends_with(b"new")).unwrap();
        assert!(alone.read(new.inode, 0, 70_000).unwrap().concat() == [3; 70_000]);
        assert!(!new.paths[0].is_whole && new.paths[0].names.len() == 2, "{:?}", new.paths);
        let link = alone.all.iter().find(ends_with(b"link")).unwrap();
        assert_eq!(alone.read_symlink(link.inode).unwrap().as_ref(), b"new");
        let unnamed = alone.all.iter().find(|one| one.inode == old).unwrap();
        assert!(unnamed.paths.is_empty());
        let frame = u32::try_from(unnamed.frame_size_bytes).unwrap();
        let changed = u64::from(40_000 / frame * frame);
        assert!(
            alone.read(old, changed, frame).unwrap().concat()
                == expected[changed as usize..][..frame as usize]
        );
        assert_eq!(alone.read(old, 0, frame).unwrap_err(), Errno::EHOSTUNREACH);

        // It was only looked at.
        store.budget.set(u64::MAX);
        let volume = opened(&store, directory.path(), None);
        assert!(read_file(&volume, old) == expected);
        assert_eq!(volume.close(), Ending::Stored);
    });
}

/// Has the list of the space in the store say what its user may do.
fn share(store: &Rc<TestStore>, owner: &Identity, access: Access, number: u64) {
    let keys = keys(store);
    let mut list = AccessList::new(keys.register, "band");
    list.number = number;
    let user = Identity::from_seed(&[7; 32]).public_key();
    let (sealing_key, name) = (*keys.secret.public().as_bytes(), "bob".to_owned());
    let change = AccessChange { key: user, sealing_key, name, access, own: access, by: Vec::new(), at: 1 };
    list.change(change).unwrap();
    let list = Signed::sign(owner, list);
    let change = |charter: &mut filesystem::access::Charter| {
        charter.set_access_list(&list);
        Ok(false)
    };
    let swap = |expected, payload| store.memory.compare_and_swap(&keys.register, Some(expected), payload);
    change_readers(&store.memory, &keys, "owner", &change, &swap).unwrap();
}

#[test]
fn who_is_made_a_reader_is_refused_at_once_reads_on_and_writes_again_when_he_may() {
    reactor::run(|| {
        let directory = tempfile::tempdir().unwrap();
        let store = TestStore::new();
        create(&store).close().stored().unwrap();
        let owner = Identity::from_seed(&[1; 32]);
        share(&store, &owner, Access::Write, 1);
        let volume = opened(&store, directory.path(), Some(&owner));
        write_file(&volume, ROOT, "stored", b"stored");
        volume.sync(None, false).unwrap();
        store.budget.set(0);
        let waits = write_file(&volume, ROOT, "waits", b"waits");
        share(&store, &owner, Access::Read, 2);
        until("he hears it", || volume.shut_for() == Some(Cause::ReadsOnly));
        for refused in [
            volume.flush(waits),
            volume.sync(Some(waits), false),
            volume.write(waits, 0, b"x", false),
            volume.unlink(ROOT, b"stored"),
            volume.make_directory(ROOT, b"new", 0o755, &USER).map(drop),
        ] {
            assert_eq!(refused, Err(Errno::EROFS));
        }
        // It is in the journal, for whoever asks.
        let found = left(nowhere(&store), &store, directory.path());
        assert_eq!(found.read(named(&found, &["waits"]).inode, 0, 10).unwrap().concat(), b"waits");

        store.budget.set(u64::MAX);
        let other = open(&store, "second");
        write_file(&other, ROOT, "fresh", b"of another");
        other.sync(None, false).unwrap();
        until("he reads on", || volume.lookup(ROOT, b"fresh").is_ok());
        assert!(other.lookup(ROOT, b"waits").is_err(), "it was stored all the same");
        assert_eq!(read_file(&volume, waits), b"waits");
        other.close().stored().unwrap();

        share(&store, &owner, Access::Write, 3);
        until("he may again", || volume.shut_for().is_none());
        write_file(&volume, ROOT, "again", b"again");
        assert_eq!(volume.close(), Ending::Stored);
        let last = open(&store, "third");
        assert!(last.lookup(ROOT, b"waits").is_ok() && last.lookup(ROOT, b"again").is_ok());
    });
}

/// A writer puts back a list that the owner has taken somebody off since, or takes it away.
#[test]
fn who_has_seen_a_newer_list_signs_no_older_one_in_good_faith() {
    reactor::run(|| {
        let directory = tempfile::tempdir().unwrap();
        let store = TestStore::new();
        create(&store).close().stored().unwrap();
        let owner = Identity::from_seed(&[1; 32]);
        let root = || {
            let keys = keys(&store);
            let record = store.memory.read(&keys.register).unwrap().unwrap();
            open_root(&record.payload, record.version, &keys.secret).unwrap()
        };
        let number = || match root().charter.access_list(&owner.public_key(), &keys(&store).register) {
            Found::List(list) => Some(list.number),
            _ => None,
        };
        share(&store, &owner, Access::Write, 1);
        let old = root().charter;
        let volume = opened(&store, directory.path(), Some(&owner));
        share(&store, &owner, Access::Write, 2);
        write_file(&volume, ROOT, "once", b"once");
        volume.sync(None, false).unwrap();
        let put_back = |charter: &filesystem::access::Charter| {
            let change = |newest: &mut filesystem::access::Charter| {
                newest.take_access_of(charter);
                Ok(false)
            };
            let keys = keys(&store);
            let swap =
                |expected, payload| store.memory.compare_and_swap(&keys.register, Some(expected), payload);
            change_readers(&store.memory, &keys, "a writer", &change, &swap).unwrap();
        };
        let mut none = old.clone();
        none.extensions.clear();
        for (charter, there, name) in [(&old, Some(1), "twice"), (&none, None, "thrice")] {
            put_back(charter);
            assert_eq!(number(), there);
            write_file(&volume, ROOT, name, name.as_bytes());
            volume.sync(None, false).unwrap();
            assert_eq!(number(), Some(2), "{name}");
        }
        assert_eq!(volume.close(), Ending::Stored);
    });
}

#[test]
fn who_may_only_read_enters_with_the_first_commit_once_he_may_write_and_each_time_anew() {
    reactor::run(|| {
        let directory = tempfile::tempdir().unwrap();
        let store = TestStore::new();
        create(&store).close().stored().unwrap();
        let owner = Identity::from_seed(&[1; 32]);
        let sessions = || {
            let other = open(&store, "who looks");
            let fence = other.begin_collection().unwrap();
            let standing = other.look_at_collection(&fence).unwrap();
            let _ = other.end_collection(&fence);
            other.close().stored().unwrap();
            match standing {
                Standing::Clear(_) => 0,
                Standing::Waits { waiting, .. } => waiting.iter().filter(|one| !one.is_lost).count(),
            }
        };
        share(&store, &owner, Access::Read, 1);
        let volume = opened(&store, directory.path(), Some(&owner));
        assert_eq!(volume.shut_for(), Some(Cause::ReadsOnly));
        assert_eq!(sessions(), 0, "he says nothing in it");

        share(&store, &owner, Access::Write, 2);
        until("he may", || volume.shut_for().is_none());
        write_file(&volume, ROOT, "first", &[1; 100_000]);
        volume.sync(None, false).unwrap();
        // It may have answered before it is looked.
        until("whoever collects garbage knows of him", || sessions() == 1);

        // He says nothing while he may not write, and answers for himself once he may.
        share(&store, &owner, Access::Read, 3);
        until("he hears it", || volume.shut_for() == Some(Cause::ReadsOnly));
        share(&store, &owner, Access::Write, 4);
        until("he may again", || volume.shut_for().is_none());
        write_file(&volume, ROOT, "second", &[2; 100_000]);
        volume.sync(None, false).unwrap();
        until("he is there", || sessions() == 1);
        assert_eq!(volume.close(), Ending::Stored);
        assert_eq!(sessions(), 0, "he has left");
    });
}

#[test]
fn what_a_reader_left_waits_at_the_end_and_he_is_told_why() {
    reactor::run(|| {
        let directory = tempfile::tempdir().unwrap();
        let store = TestStore::new();
        create(&store).close().stored().unwrap();
        let owner = Identity::from_seed(&[1; 32]);
        share(&store, &owner, Access::Write, 1);
        let volume = opened(&store, directory.path(), Some(&owner));
        store.budget.set(0);
        write_file(&volume, ROOT, "waits", b"waits");
        share(&store, &owner, Access::Read, 2);
        until("he hears it", || volume.shut_for().is_some());
        let ending = volume.close();
        assert!(
            matches!(ending, Ending::InJournal { cause: Cause::ReadsOnly, file_count: 1, .. }),
            "{ending:?}"
        );
    });
}

#[test]
fn a_list_that_a_writer_put_back_says_nothing_and_one_who_was_taken_off_stays_so() {
    reactor::run(|| {
        let directory = tempfile::tempdir().unwrap();
        let store = TestStore::new();
        create(&store).close().stored().unwrap();
        let owner = Identity::from_seed(&[1; 32]);
        share(&store, &owner, Access::Write, 2);
        let volume = opened(&store, directory.path(), Some(&owner));
        for (access, number) in [(Access::None, 1), (Access::Read, 1)] {
            share(&store, &owner, access, number);
            let newest = store.memory.read(&keys(&store).register).unwrap().unwrap().version;
            until("it is seen", || volume.version() >= newest);
            assert_eq!(volume.shut_for(), None, "{number}");
        }
        share(&store, &owner, Access::None, 3);
        until("he hears it", || volume.shut_for() == Some(Cause::TakenOff));
        share(&store, &owner, Access::Write, 4);
        reactor::sleep(Duration::from_millis(100));
        assert_eq!(volume.shut_for(), Some(Cause::TakenOff), "it waits for no nodes any more");
        volume.on_removed();
        assert_eq!(volume.shut_for(), Some(Cause::Removed));
        let _ = volume.close();
    });
}

#[test]
fn what_was_sent_to_nodes_and_is_in_no_root_is_kept_as_content() {
    reactor::run(|| {
        let directory = tempfile::tempdir().unwrap();
        let store = TestStore::new();
        create(&store).close().stored().unwrap();
        let volume = opened(&store, directory.path(), None);
        let content: Vec<u8> = (0..3_000_000u32).map(|at| (at / 77) as u8).collect();
        let file = write_file(&volume, ROOT, "large", &content);
        // Some objects are stored, and then nothing is.
        store.budget.set(2);
        assert!(volume.sync(None, false).is_err() && store.put_bytes.get() > 1_000_000);
        volume.on_removed();
        let told = told_amount(volume.close(), Cause::Removed);
        let left = left(nowhere(&store), &store, directory.path());
        assert_eq!(left.amount(), told, "what was sent off waits as well");
        assert!(left.read(file, 0, 3_000_000).unwrap().concat() == content);
    });
}

/// A close had noted it, and nobody had asked for more. A commit of its own accord sent the content to nodes, and held where they had it
/// from then on; the end wrote the journal anew from that, and threw the content away.
#[test]
fn what_a_close_noted_and_a_commit_sent_off_is_kept_where_nodes_give_nothing_back() {
    reactor::run(|| {
        let directory = tempfile::tempdir().unwrap();
        let store = TestStore::new();
        create(&store).close().stored().unwrap();
        let mut options = options("first");
        options.journal_directory = Some(directory.path().into());
        options.watch_interval = Some(Duration::from_millis(20));
        // A quarter of it begins a commit: the one write, and all of that.
        options.dirty_bytes_max = 8 << 20;
        options.cache_bytes = 0;
        let volume = Volume::open(store.clone(), keys(&store), options).unwrap();
        until("it is alone", || volume.sharing() == Sharing::Leased);
        store.hangs.set(true);
        let content: Vec<u8> = (0..3_000_000u32).map(|at| (at / 77) as u8).collect();
        let before = store.put_bytes.get();
        // What begins the journal's file is durable; the note of the next close, which is added to it, is not.
        let first = write_file(&volume, ROOT, "first", b"first");
        volume.flush(first).unwrap();
        let file = write_file(&volume, ROOT, "large", &content);
        volume.flush(file).unwrap();
        until("all of it was sent", || store.put_bytes.get() - before > 3_000_000);
        store.budget.set(0);
        store.reads_fail.set(true);
        volume.on_removed();
        let told = told_amount(volume.close(), Cause::Removed);
        let left = left(nowhere(&store), &store, directory.path());
        assert_eq!(left.amount(), told, "what was sent off waits as well");
        assert!(left.read(file, 0, 3_000_000).unwrap().concat() == content);
        assert_eq!(left.read(first, 0, 9).unwrap().concat(), b"first");
    });
}

/// What an earlier mount's journal has was sent to the nodes, frame by frame, when its user is removed; they give none of it back.
#[test]
fn what_a_journal_had_and_was_sent_off_before_its_user_was_removed_is_there_still() {
    reactor::run(|| {
        let (directory, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let store = TestStore::new();
        create(&store).close().stored().unwrap();
        let content: Vec<u8> = (0..3_000_000u32).map(|at| (at / 77) as u8).collect();
        let offline = opened(&store, directory.path(), None);
        store.budget.set(0);
        let file = write_file(&offline, ROOT, "large", &content);
        assert!(matches!(offline.close(), Ending::InJournal { .. }));

        store.budget.set(u64::MAX);
        store.hangs.set(true);
        let before = store.put_bytes.get();
        let mut options = options("first");
        options.journal_directory = Some(directory.path().into());
        options.cache_bytes = 0;
        let volume = Volume::open(store.clone(), keys(&store), options).unwrap();
        until("all of it was sent", || store.put_bytes.get() - before > 3_000_000);
        // Nothing has noted this.
        let open = make_file(&volume, ROOT, "open").inode;
        volume.write(open, 0, b"written", false).unwrap();
        store.budget.set(0);
        store.reads_fail.set(true);
        volume.on_removed();
        let ending = volume.close();
        let is_kept = |name: &std::path::Path| {
            let there = other.path().join("journal-0000000000000001");
            std::fs::copy(name, there).unwrap();
            let left = left(nowhere(&store), &store, other.path());
            left.read(file, 0, 3_000_000).is_ok_and(|pieces| pieces.concat() == content)
        };
        match ending {
            Ending::JournalDamaged { kept, beside: Some(_) } => assert!(is_kept(&kept)),
            // Where it was.
            Ending::InJournal { .. } => {
                let left = left(nowhere(&store), &store, directory.path());
                assert!(left.read(file, 0, 3_000_000).unwrap().concat() == content);
            }
            other => panic!("{other}"),
        }
    });
}

#[test]
fn a_damaged_journal_is_not_an_empty_one() {
    reactor::run(|| {
        let directory = tempfile::tempdir().unwrap();
        let store = TestStore::new();
        create(&store).close().stored().unwrap();
        let volume = opened(&store, directory.path(), None);
        store.budget.set(0);
        write_file(&volume, ROOT, "file", &[1; 50_000]);
        assert!(matches!(volume.close(), Ending::InJournal { .. }));
        let file = std::fs::read_dir(directory.path())
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .find(|path| path.file_name().unwrap().to_string_lossy().starts_with("journal-"));
        let file = file.unwrap();
        let whole = std::fs::read(&file).unwrap();
        for at in [20, whole.len() / 2] {
            let mut damaged = whole.clone();
            damaged[at] ^= 1;
            std::fs::write(&file, damaged).unwrap();
            let left = left(nowhere(&store), &store, directory.path());
            assert!(left.unread > 0, "at {at}");
        }
        // Nor does the next mount throw it away.
        let damaged = std::fs::read(&file).unwrap();
        store.budget.set(u64::MAX);
        let ending = opened(&store, directory.path(), None).close();
        // It says at its end that not all is stored, and where the rest is.
        let Ending::JournalDamaged { kept: told, beside: None } = ending else { panic!("{ending}") };
        let kept: Vec<_> = std::fs::read_dir(directory.path())
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.file_name().unwrap().to_string_lossy().starts_with("damaged-"))
            .collect();
        assert!(kept == [told] && std::fs::read(&kept[0]).unwrap() == damaged, "{kept:?}");
        assert_eq!(opened(&store, directory.path(), None).close(), Ending::Stored, "it was told once");
        // What a crash leaves is no damage.
        std::fs::write(&file, &whole[..whole.len() / 2]).unwrap();
        assert!(LeftBehind::open(nowhere(&store), keys(&store), directory.path()).unwrap().is_none());
    });
}
