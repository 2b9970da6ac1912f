//! What no root reaches may go, and nothing else: after every object that is not visited is gone, a mount with an empty
//! cache reads every byte.

mod common;

use std::cell::RefCell;
use std::collections::HashSet;
use std::rc::Rc;

use common::*;
use dht::{Address, BlockStore};
use filesystem::operations::{RenameFlags, SetAttributes};
use filesystem::{Operations, Volume};

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
