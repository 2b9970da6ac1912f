//! What no root reaches may go, and nothing else: after every object that is not visited is gone, a mount with an empty
//! cache reads every byte.

mod common;

use std::collections::HashSet;
use std::rc::Rc;
use std::time::Duration;

use common::*;
use dht::{Address, BlockStore};
use filesystem::operations::{RenameFlags, SetAttributes};
use filesystem::volume::{CollectError, Ending, Fence, Roots, Standing};
use filesystem::{Operations, Volume};
use reactor::cell::RefCell;

/// Deletes what no root reaches; returns how many objects that was, and how many stay.
fn collect(store: &Rc<TestStore>) -> (usize, usize) {
    let volume = open(store, "collector");
    let reached = RefCell::new(HashSet::new());
    let roots = volume.roots_in_use().unwrap();
    let mut visit = |address: &Address| {
        reached.borrow_mut().insert(*address);
    };
    volume.visit_reachable(&roots, &mut visit).unwrap();
    volume.close().stored().unwrap();
    let before = store.memory.blocks().len();
    store.memory.retain(|address| reached.borrow().contains(address));
    let after = store.memory.blocks().len();
    assert!(reached.borrow().iter().all(|address| store.memory.get(address, None).is_ok()));
    (before - after, after)
}

fn bytes(number: usize, size: usize) -> Vec<u8> {
    (0..size).map(|index| (index * 7 + index / 251 + number * 13) as u8).collect()
}

fn removed(volume: &Rc<Volume>, name: &str) {
    volume.unlink(ROOT, name.as_bytes()).unwrap();
}

#[test]
fn everything_that_lives_is_read_after_everything_else_is_gone() {
    reactor::run(|| {
        let store = TestStore::new();
        let volume = create(&store);
        for number in 0..60 {
            // Tiny ones in the leaf, small ones that share objects, and large ones.
            let size = [100, 5000, 40_000, 1_500_000][number % 4];
            write_file(&volume, ROOT, &format!("file {number}"), &bytes(number, size));
            if number % 7 == 0 {
                volume.sync(None, false).unwrap();
            }
        }
        volume.close().stored().unwrap();

        let volume = open(&store, "second");
        for number in (0..60).step_by(3) {
            removed(&volume, &format!("file {number}"));
        }
        // In place, cut off, and over another.
        for number in (1..60).step_by(3) {
            let inode = volume.lookup(ROOT, format!("file {number}").as_bytes()).unwrap().inode;
            volume.write(inode, 50, b"changed", false).unwrap();
        }
        for number in (2..60).step_by(6) {
            let inode = volume.lookup(ROOT, format!("file {number}").as_bytes()).unwrap().inode;
            let half = SetAttributes { size: Some(50), ..SetAttributes::default() };
            volume.set_attributes(inode, &half).unwrap();
        }
        volume.rename(ROOT, b"file 5", ROOT, b"file 11", RenameFlags::default()).unwrap();
        volume.close().stored().unwrap();

        let (gone, stay) = collect(&store);
        assert!(gone > 2 && stay > 10, "{gone} gone, {stay} stay");
        assert_eq!(collect(&store).0, 0, "nothing is left to be deleted");

        let volume = open(&store, "third");
        for number in 0..60usize {
            let mut expected = bytes(number, [100, 5000, 40_000, 1_500_000][number % 4]);
            match number % 3 {
                0 => {
                    assert!(volume.lookup(ROOT, format!("file {number}").as_bytes()).is_err());
                    continue;
                }
                1 => expected[50..57].copy_from_slice(b"changed"),
                _ if number % 6 == 2 => expected.truncate(50),
                _ => {}
            }
            let name = match number {
                5 => "file 11".to_owned(),
                11 => continue,
                _ => format!("file {number}"),
            };
            let inode = volume.lookup(ROOT, name.as_bytes()).unwrap().inode;
            assert!(read_file(&volume, inode) == expected, "{name}");
        }
        volume.close().stored().unwrap();
    });
}

#[test]
fn what_cannot_be_read_makes_everything_stay() {
    reactor::run(|| {
        let store = TestStore::new();
        let volume = create(&store);
        for number in 0..2000 {
            write_file(&volume, ROOT, &format!("a file with a longer name {number}"), b"tiny");
        }
        volume.close().stored().unwrap();
        let volume = open(&store, "second");
        let roots = volume.roots_in_use().unwrap();
        store.budget.set(0);
        store.reads_fail.set(true);
        assert!(volume.visit_reachable(&roots, &mut |_| {}).is_err());
    });
}

/// A mount that is a session, which looks at the register all the time.
fn session(store: &Rc<TestStore>, author: &str) -> Rc<Volume> {
    let mut options = options(author);
    options.watch_interval = Some(Duration::from_millis(20));
    Volume::open(store.clone(), keys(store), options).unwrap()
}

fn collector(store: &Rc<TestStore>) -> Rc<Volume> {
    let mut options = options("collector");
    options.read_only = true;
    Volume::open(store.clone(), keys(store), options).unwrap()
}

/// Syncs for as long as it takes: after failures the next try has to wait.
fn until_stored(volume: &Volume) {
    while volume.sync(None, false).is_err() {}
}

/// Waits until all sessions have cleared the way.
fn cleared(collector: &Volume, fence: &Fence) -> Roots {
    loop {
        match collector.look_at_collection(fence).unwrap() {
            Standing::Clear(roots) => return roots,
            Standing::Waits { .. } => reactor::sleep(Duration::from_millis(10)),
        }
    }
}

fn listed(store: &TestStore) -> HashSet<Address> {
    store.memory.blocks().into_iter().map(|(address, _)| address).collect()
}

/// Deletes of `listed` what `roots` do not have.
fn delete(store: &TestStore, collector: &Volume, roots: &Roots, listed: &HashSet<Address>) {
    let mut reached = HashSet::new();
    let mut visit = |address: &Address| {
        reached.insert(*address);
    };
    collector.visit_reachable(roots, &mut visit).unwrap();
    let is_garbage =
        |address: &Address| listed.contains(address) && !reached.contains(address) && !roots.keep(address);
    store.memory.retain(|address| !is_garbage(address));
}

#[test]
fn what_was_stored_before_and_is_named_only_later_is_waited_for_and_kept() {
    reactor::run(|| {
        let store = TestStore::new();
        create(&store).close().stored().unwrap();
        let (one, other) = (session(&store, "one"), session(&store, "other"));
        let content = bytes(1, 4 << 20);
        let file = write_file(&one, ROOT, "large", &content);
        // Some objects are stored, and then the nodes take nothing for a while.
        store.budget.set(2);
        assert!(one.sync(None, false).is_err());
        let (before, collector) = (listed(&store), collector(&store));
        store.budget.set(u64::MAX);
        let fence = collector.begin_collection().unwrap();
        until_stored(&one);
        let roots = cleared(&collector, &fence);
        let kept = before.iter().filter(|address| roots.keep(address)).count();
        assert!(kept > 0, "what was stored before the mark, and named after it");
        // Somebody who has it open may bring it back after the newest tree has lost it.
        until_stored(&other);
        delete(&store, &collector, &roots, &before);
        // It was let through: for the mounts it is over, and no other is.
        assert!(matches!(collector.look_at_collection(&fence), Err(CollectError::Replaced)));
        assert!(read_file(&one, file) == content);
        one.close().stored().unwrap();
        other.close().stored().unwrap();
        let fresh = open(&store, "fresh");
        let inode = fresh.lookup(ROOT, b"large").unwrap().inode;
        assert!(read_file(&fresh, inode) == content);
    });
}

#[test]
fn what_is_open_here_and_removed_elsewhere_has_a_body_before_the_way_is_clear() {
    reactor::run(|| {
        let store = TestStore::new();
        create(&store).close().stored().unwrap();
        let (one, other) = (session(&store, "one"), session(&store, "other"));
        let content = bytes(2, 2 << 20);
        write_file(&one, ROOT, "open elsewhere", &content);
        one.sync(None, false).unwrap();
        let open = loop {
            match other.lookup(ROOT, b"open elsewhere") {
                Ok(found) => break found.inode,
                Err(_) => reactor::sleep(Duration::from_millis(10)),
            }
        };
        other.remember(open);
        removed(&one, "open elsewhere");
        one.sync(None, false).unwrap();
        while other.lookup(ROOT, b"open elsewhere").is_ok() {
            reactor::sleep(Duration::from_millis(10));
        }
        let (before, collector) = (listed(&store), collector(&store));
        let fence = collector.begin_collection().unwrap();
        let roots = cleared(&collector, &fence);
        delete(&store, &collector, &roots, &before);
        assert!(read_file(&other, open) == content);
        // Closed, it is garbage for the next collection.
        other.forget(open, 1);
        other.sync(None, false).unwrap();
        one.close().stored().unwrap();
        other.close().stored().unwrap();
        let bytes = |store: &TestStore| store.memory.usage().unwrap().used_bytes;
        let open = bytes(&store);
        let before = listed(&store);
        let fence = collector.begin_collection().unwrap();
        delete(&store, &collector, &cleared(&collector, &fence), &before);
        assert!(bytes(&store) + (1 << 20) < open, "{} of {open}", bytes(&store));
    });
}

#[test]
fn one_that_stores_before_it_is_announced_is_announced_before_that() {
    reactor::run(|| {
        let store = TestStore::new();
        create(&store).close().stored().unwrap();
        let (journal, content) = (tempfile::tempdir().unwrap(), bytes(3, 4 << 20));
        let journaled = || {
            let mut options = options("late");
            options.watch_interval = Some(Duration::from_millis(20));
            options.journal_directory = Some(journal.path().into());
            Volume::open(store.clone(), keys(&store), options).unwrap()
        };
        // The nodes take nothing as long as it is there, so that it is announced nowhere, and what it has is in its journal.
        store.budget.set(0);
        let mount = journaled();
        write_file(&mount, ROOT, "large", &content);
        mount.give_up();
        assert!(matches!(mount.close(), Ending::InJournal { .. }));
        let (nothing, collector) = (listed(&store).len(), collector(&store));
        // For the nodes that announce it, the swap, and some objects of the file.
        store.budget.set(4);
        let mount = journaled();
        let before = listed(&store);
        assert!(before.len() >= nothing + 2, "some of the file is stored");
        store.budget.set(u64::MAX);
        // It waits some time yet before it tries again.
        let fence = collector.begin_collection().unwrap();
        delete(&store, &collector, &cleared(&collector, &fence), &before);
        until_stored(&mount);
        mount.close().stored().unwrap();
        let fresh = open(&store, "fresh");
        let inode = fresh.lookup(ROOT, b"large").unwrap().inode;
        assert!(read_file(&fresh, inode) == content);
    });
}
