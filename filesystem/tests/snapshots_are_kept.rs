//! A snapshot is a state that the volume was in, whole, and stays; what nobody has any more is garbage, and nothing else is.

mod common;

use std::collections::HashSet;
use std::rc::Rc;

use common::*;
use dht::{Address, BlockStore};
use filesystem::access::{Features, open_root};
use filesystem::format::SnapshotOrigin;
use filesystem::volume::{Snapshot, SnapshotError};
use filesystem::{Errno, Operations, Volume};
use reactor::cell::RefCell;

/// Deletes what no root and no snapshot reaches; returns how many objects that was.
fn collect(store: &Rc<TestStore>) -> usize {
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
    assert!(reached.borrow().iter().all(|address| store.memory.get(address, None).is_ok()));
    before - store.memory.blocks().len()
}

fn take(volume: &Volume, name: &str) -> Snapshot {
    volume.take_snapshot(Some(name), SnapshotOrigin::Asked).expect("a snapshot is taken")
}

fn names_of(volume: &Volume) -> Vec<String> {
    volume.snapshots().unwrap().into_iter().map(|snapshot| snapshot.record.name).collect()
}

fn root_of(store: &TestStore) -> filesystem::access::Root {
    let record = store.read(&keys(store).register).unwrap().unwrap();
    open_root(&record.payload, record.version, &keys(store).secret).unwrap()
}

#[test]
fn a_snapshot_is_of_what_was_written_before_it_and_costs_a_commit() {
    reactor::run(|| {
        let store = TestStore::new();
        let volume = create(&store);
        write_file(&volume, ROOT, "file", &[1; 500_000]);
        volume.sync(None, false).unwrap();
        let features = || root_of(&store).charter.features.incompatible;
        assert_eq!(features(), Features::SEGMENTS, "as long as there are none");
        let (swaps, bytes) = (store.swaps.get(), store.put_bytes.get());
        let tree = root_of(&store).tree;
        let taken = take(&volume, "first");
        assert_eq!(store.swaps.get() - swaps, 1);
        assert!(store.put_bytes.get() - bytes < 20_000, "no content is stored again");
        assert_eq!(Some(taken.record.tree), tree);
        assert_eq!(taken.record.author, "first");
        assert_eq!(features(), Features::SEGMENTS | Features::SNAPSHOTS);

        // What is not committed yet is in it all the same.
        write_file(&volume, ROOT, "later", b"tiny");
        let second = volume.take_snapshot(None, SnapshotOrigin::Policy).unwrap();
        assert!(second.record.name.ends_with('Z'), "{}", second.record.name);
        assert_ne!(second.record.tree, taken.record.tree);
        assert!(second.record.version > taken.record.version);
        volume.close().stored().unwrap();

        let volume = open(&store, "second");
        assert_eq!(volume.snapshots().unwrap(), [taken, second]);
        volume.close().stored().unwrap();
    });
}

#[test]
fn doubles_bad_names_and_what_is_not_there_are_errors() {
    reactor::run(|| {
        let store = TestStore::new();
        let volume = create(&store);
        take(&volume, "a");
        let asked = |name| volume.take_snapshot(Some(name), SnapshotOrigin::Asked);
        let twice = asked("a").unwrap_err();
        assert!(
            matches!(&twice, SnapshotError::Taken { name, author, .. } if name == "a" && author == "first")
        );
        for bad in ["", "..", "a/b", "-x"] {
            assert!(matches!(asked(bad), Err(SnapshotError::Name { .. })), "{bad:?}");
        }
        assert_eq!(volume.delete_snapshot("b"), Err(SnapshotError::Missing { name: "b".into() }));
        volume.delete_snapshot("a").unwrap();
        assert_eq!(names_of(&volume), [""; 0]);
        take(&volume, "a");
        // Without the nodes nothing is claimed.
        store.budget.set(0);
        assert!(matches!(asked("lost"), Err(SnapshotError::Volume(Errno::ETIMEDOUT | Errno::EIO))));
        store.budget.set(u64::MAX);
        volume.close().stored().unwrap();
    });
}

#[test]
fn two_mounts_that_give_one_name_keep_both() {
    reactor::run(|| {
        let store = TestStore::new();
        let first = create(&store);
        let second = open(&store, "second");
        write_file(&first, ROOT, "of the first", &[1; 100_000]);
        let of_first = take(&first, "same");
        // It has not heard of the other's.
        let of_second = take(&second, "same");
        assert_eq!((of_first.record.name.as_str(), of_second.record.name.as_str()), ("same", "same-2"));
        assert!(of_second.record.version > of_first.record.version, "of the tree that it follows");
        assert_eq!(take(&second, "third").record.author, "second");
        assert_eq!(names_of(&second), ["same", "same-2", "third"]);
        // Both delete, one what the other has deleted already.
        first.delete_snapshot("same").unwrap();
        second.delete_snapshot("same").unwrap();
        second.delete_snapshot("third").unwrap();
        write_file(&first, ROOT, "more", b"tiny");
        first.sync(None, false).unwrap();
        assert_eq!(names_of(&first), ["same-2"]);
        first.close().stored().unwrap();
        second.close().stored().unwrap();
    });
}

#[test]
fn what_a_snapshot_reaches_is_no_garbage_until_it_is_deleted() {
    reactor::run(|| {
        let store = TestStore::new();
        let volume = create(&store);
        for number in 0..300 {
            write_file(&volume, ROOT, &format!("small {number}"), &[number as u8; 3000]);
        }
        let large = write_file(&volume, ROOT, "large", &[7; 3_000_000]);
        take(&volume, "old");
        volume.write(large, 0, &[8; 3_000_000], false).unwrap();
        for number in 0..300 {
            volume.unlink(ROOT, format!("small {number}").as_bytes()).unwrap();
        }
        // Now nothing waits to be reclaimed any more.
        volume.close().stored().unwrap();
        let volume = open(&store, "first");
        take(&volume, "middle");
        volume.unlink(ROOT, b"large").unwrap();
        volume.close().stored().unwrap();
        // Commits between leave nodes that nobody needs.
        collect(&store);
        let kept = store.memory.blocks().len();
        assert_eq!(collect(&store), 0);

        let volume = open(&store, "second");
        volume.delete_snapshot("old").unwrap();
        volume.close().stored().unwrap();
        // A snapshot that was taken later remembers it, which means nothing.
        let gone = collect(&store);
        assert!(gone >= 2, "{gone} of {kept}");
        // What there was no time to reclaim at its end, the next mount from there does.
        let volume = open(&store, "first");
        assert_eq!(names_of(&volume), ["middle"]);
        volume.delete_snapshot("middle").unwrap();
        volume.close().stored().unwrap();
        // Two objects of nothing but its content; the third has nodes beside it.
        let gone = collect(&store);
        assert!(gone >= 2, "{gone}");
        assert!(store.memory.blocks().len() < 20, "little is left of a drive that is empty");
    });
}
