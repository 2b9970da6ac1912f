//! The store fails from the n-th put or swap on, for every n: what was acknowledged by `sync` is there when the volume is
//! opened again, and what is there is exactly one committed state; a store that comes back gets everything.

mod common;

use common::model::Model;
use common::*;
use filesystem::operations::{FileKind, SetAttributes};
use filesystem::{Errno, Inode, Operations, Volume};
use std::rc::Rc;
use std::time::Duration;

/// Some work with syncs between. Returns the model at each sync, and how many syncs succeeded.
fn work(volume: &Rc<Volume>) -> (Vec<Model>, usize) {
    let mut model = Model::new();
    let mut states = vec![model.clone()];
    let mut synced = 0;
    for round in 0..6u8 {
        let name = format!("directory {round}");
        let directory = volume.make_directory(ROOT, name.as_bytes(), 0o755, &USER).unwrap().inode;
        model.make(1, &name, directory.0, FileKind::Directory);
        for number in 0..3u32 {
            let name = format!("file {number}");
            let content = vec![round; number as usize * 40_000 + 10];
            let file = write_file(volume, directory, &name, &content);
            model.make(directory.0, &name, file.0, FileKind::Regular);
            model.write(file.0, 0, &content);
            if number == 2 {
                let size = SetAttributes { size: Some(33_000), ..SetAttributes::default() };
                volume.set_attributes(file, &size).unwrap();
                model.content(file.0).truncate(33_000);
            }
        }
        states.push(model.clone());
        match volume.sync(None, false) {
            Ok(()) if synced + 1 == states.len() - 1 => synced += 1,
            Ok(()) => panic!("a later sync cannot succeed after one that failed for good"),
            Err(errno) => assert_eq!(errno, Errno::ETIMEDOUT),
        }
    }
    (states, synced)
}

#[test]
fn whatever_call_fails_a_committed_state_is_there() {
    reactor::run(|| {
        for budget in 0..40 {
            let store = TestStore::new();
            let volume = {
                let mut impatient = options("first");
                impatient.sync_patience = Duration::from_millis(4);
                Volume::create(store.clone(), keys(&store), impatient, (0, 0)).unwrap()
            };
            store.budget.set(budget);
            let (states, synced) = work(&volume);
            let failed = synced + 1 < states.len();
            // The process dies; a store that is well again is opened by another.
            let _ = volume.close();
            store.budget.set(u64::MAX);
            let volume = open(&store, "second");
            let found = names(&volume, ROOT).len();
            assert!(found >= synced, "budget {budget}: {synced} synced, {found} found");
            states[found].check(&volume, &format!("budget {budget}"));
            volume.close().stored().unwrap();
            if !failed {
                assert!(budget > 6, "the store never failed");
                return;
            }
        }
        panic!("the budget never sufficed");
    });
}

#[test]
fn a_store_that_comes_back_gets_everything() {
    reactor::run(|| {
        let store = TestStore::new();
        let volume = create(&store);
        store.budget.set(0);
        let file = write_file(&volume, ROOT, "file", &[1; 100_000]);
        assert_eq!(volume.sync(Some(file), false), Err(Errno::ETIMEDOUT));
        volume.write(file, 0, &[2; 10], false).unwrap();
        assert_eq!(volume.sync(None, false), Err(Errno::ETIMEDOUT));
        store.budget.set(u64::MAX);
        reactor::sleep(Duration::from_millis(900));
        volume.sync(None, false).unwrap();
        volume.close().stored().unwrap();
        let content = read_file(&open(&store, "second"), file);
        assert_eq!((content[0], content[10], content.len()), (2, 1, 100_000));
    });
}

#[test]
fn a_full_store_refuses_writes_and_keeps_serving_reads() {
    reactor::run(|| {
        let store = TestStore::new();
        let volume = create(&store);
        let file = write_file(&volume, ROOT, "file", &[1; 100_000]);
        volume.sync(None, false).unwrap();
        write_file(&volume, ROOT, "more", &[2; 100_000]);
        store.memory.set_capacity_bytes(0);
        assert_eq!(volume.sync(None, false), Err(Errno::ENOSPC));
        assert_eq!(volume.write(file, 0, b"x", false), Err(Errno::ENOSPC));
        assert_eq!(volume.make_directory(ROOT, b"new", 0o755, &USER), Err(Errno::ENOSPC));
        assert_eq!(read_file(&volume, file), [1; 100_000]);
        store.memory.set_capacity_bytes(1 << 40);
        reactor::sleep(Duration::from_millis(900));
        volume.sync(None, false).unwrap();
        volume.write(file, 0, b"x", false).unwrap();
        volume.close().stored().unwrap();
        assert_eq!(names(&open(&store, "second"), Inode::ROOT), ["file", "more"]);
    });
}

#[test]
fn an_unreachable_store_fails_reads_and_loses_nothing() {
    reactor::run(|| {
        let store = TestStore::new();
        let volume = create(&store);
        let file = write_file(&volume, ROOT, "file", &[1; 100_000]);
        volume.close().stored().unwrap();
        let volume = open(&store, "second");
        store.reads_fail.set(true);
        store.budget.set(0);
        assert_eq!(volume.read(file, 0, 10), Err(Errno::ETIMEDOUT));
        store.budget.set(u64::MAX);
        assert_eq!(read_file(&volume, file), [1; 100_000]);
    });
}
