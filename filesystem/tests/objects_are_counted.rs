//! How much of each object is still pointed to: counted by each commit, compared with a walk over the whole tree.
//!
//! A count that is too high keeps what nobody needs; one that is too low lets a collector delete what somebody does. All
//! other stories take the same comparison now and then (see `common`); these do after each commit, of what is hard to count.

mod common;

use std::rc::Rc;
use std::time::Duration;

use common::objects::{check, count};
use common::*;
use dht::BlockStore;
use filesystem::access::{Root, open_root};
use filesystem::operations::{RenameFlags, SetAttributes};
use filesystem::{Errno, Operations, Volume};
use rand::{RngExt, SeedableRng, rngs::StdRng};

fn root_of(store: &TestStore) -> Root {
    let record = store.memory.read(&keys(store).register).unwrap().unwrap();
    open_root(&record.payload, record.version, &keys(store).secret).unwrap()
}

/// Changes something, of the ten files that there may be.
fn change(volume: &Volume, random: &mut StdRng) {
    let name = format!("file {}", random.random_range(0..10));
    let file = match volume.lookup(ROOT, name.as_bytes()) {
        Ok(found) => found.inode,
        Err(_) => make_file(volume, ROOT, &name).inode,
    };
    let done = match random.random_range(0..10) {
        0 => volume.unlink(ROOT, name.as_bytes()),
        1 => {
            let size = Some(random.random_range(0..300_000));
            volume.set_attributes(file, &SetAttributes { size, ..SetAttributes::default() }).map(drop)
        }
        2 => {
            let onto = format!("file {}", random.random_range(0..10));
            volume.rename(ROOT, name.as_bytes(), ROOT, onto.as_bytes(), RenameFlags::default())
        }
        _ => {
            let size = [100, 5000, 40_000, 200_000][random.random_range(0..4)];
            volume.write(file, random.random_range(0..300_000), &vec![random.random(); size], false)
        }
    };
    // The other mount may have removed it, a moment ago.
    assert!(matches!(done, Ok(()) | Err(Errno::ENOENT)), "{done:?}");
}

#[test]
fn each_commit_leaves_the_count_exact() {
    reactor::run(|| {
        let mut random = StdRng::seed_from_u64(seed());
        let store = TestStore::new();
        let volume = create(&store);
        for _ in 0..240 {
            for _ in 0..random.random_range(1..6) {
                change(&volume, &mut random);
            }
            volume.sync(None, false).unwrap();
            check(&store.memory, &keys(&store));
        }
        volume.close().stored().unwrap();
        let records = count(&store.memory, &root_of(&store)).records;
        let dead = records.values().filter(|record| record.live_bytes == Some(0)).count();
        assert!(records.len() > 100, "they are folded in as they become many: {}", records.len());
        assert!(dead > records.len() / 2, "most commits' objects are dead soon: {dead} of {}", records.len());
    });
}

#[test]
fn two_writers_that_merge_all_the_time_leave_it_exact() {
    reactor::run(|| {
        let mut random = StdRng::seed_from_u64(seed());
        let store = TestStore::new();
        let volumes: [Rc<Volume>; 2] = [create(&store), open(&store, "second")];
        for _ in 0..60 {
            for volume in &volumes {
                for _ in 0..random.random_range(1..4) {
                    change(volume, &mut random);
                }
            }
            let order = random.random_range(0..2);
            for volume in [&volumes[order], &volumes[1 - order]] {
                volume.sync(None, false).unwrap();
                check(&store.memory, &keys(&store));
            }
        }
        for volume in volumes {
            volume.close().stored().unwrap();
        }
    });
}

#[test]
fn a_commit_of_many_objects_is_counted_whole_and_so_is_its_removal() {
    reactor::run(|| {
        let store = TestStore::new();
        let volume = create(&store);
        // 140 objects of frames, more than a root's list takes.
        let file = make_file(&volume, ROOT, "large").inode;
        for megabyte in 0..140u64 {
            volume.write(file, megabyte << 20, &vec![megabyte as u8 + 1; 1 << 20], false).unwrap();
        }
        volume.sync(None, false).unwrap();
        check(&store.memory, &keys(&store));
        let counted = count(&store.memory, &root_of(&store));
        let full = |bytes: u64| bytes == 1 << 20;
        assert!(counted.live_bytes.values().filter(|bytes| full(**bytes)).count() >= 130);

        volume.unlink(ROOT, b"large").unwrap();
        for _ in 0..10_000 {
            volume.sync(None, false).unwrap();
            if !count(&store.memory, &root_of(&store)).live_bytes.values().any(|bytes| full(*bytes)) {
                break;
            }
            reactor::sleep(Duration::from_millis(1));
        }
        volume.close().stored().unwrap();
        let counted = count(&store.memory, &root_of(&store));
        let dead = counted.records.values().filter(|record| record.live_bytes == Some(0));
        assert!(dead.map(|record| u64::from(record.end)).filter(|end| full(*end)).count() >= 130);
    });
}
