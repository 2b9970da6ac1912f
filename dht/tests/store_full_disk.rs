//! A full disk refuses writes, keeps serving reads, and takes writes again once there is space. A real one: a small
//! tmpfs, which needs root to mount; without root this says so and passes.

use bytes::Bytes;
use dht::message::{PutBlockRequest, Refusal};
use dht::store::{Config, DiskStore, Key, Kind, PutOptions, Store, StoreError, Ticket};
use dht::{Address, Gate, Node, OwnerTag};
use overlay::NodeId;
use rustix::mount::{MountFlags, UnmountFlags};
use std::{ffi::CString, fs, path::Path, rc::Rc, time::Duration};

const DISK_BYTES: u64 = 12 << 20;

struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount() -> Option<SmallDisk> {
        SmallDisk::of(DISK_BYTES)
    }

    fn of(size_bytes: u64) -> Option<SmallDisk> {
        let directory = tempfile::tempdir().unwrap();
        let options = CString::new(format!("size={size_bytes}")).unwrap();
        match rustix::mount::mount("tmpfs", directory.path(), "tmpfs", MountFlags::empty(), Some(&*options)) {
            Ok(()) => Some(SmallDisk(directory)),
            Err(error) => {
                eprintln!("SKIPPED: a full disk needs root, to mount a small tmpfs ({error})");
                None
            }
        }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(self.0.path(), UnmountFlags::DETACH);
    }
}

fn config(path: &Path) -> Config {
    let mut config = Config::new(path.join("store"));
    config.segment_size_bytes = 1 << 20;
    config
}

fn key(n: u16) -> Key {
    let mut address = [0; 32];
    address[..2].copy_from_slice(&n.to_be_bytes());
    Key::new(Kind::BLOCK, address)
}

fn value(n: u16) -> Bytes {
    vec![n as u8; 50_000].into()
}

/// Puts the values from `first` on until the store refuses one, and returns the number of that one.
fn fill(store: &DiskStore, first: u16) -> u16 {
    for n in first..u16::MAX {
        match store.put(&key(n), value(n).into()) {
            Ok(()) => {}
            Err(StoreError::Full) => return n,
            Err(error) => panic!("{error}"),
        }
    }
    unreachable!("the disk is smaller than that");
}

fn check(store: &DiskStore, count: u16) {
    for n in 0..count {
        assert_eq!(store.get(&key(n), None).unwrap().unwrap(), value(n), "{n} of {count}");
    }
    assert_eq!(store.usage().count, u64::from(count));
}

#[test]
fn a_full_disk_refuses_writes_serves_reads_and_recovers() {
    let Some(disk) = SmallDisk::mount() else { return };
    let path = disk.0.path().to_path_buf();
    let ballast = path.join("ballast");
    reactor::run(move || {
        fs::write(&ballast, vec![0; 4 << 20]).unwrap();
        let store = DiskStore::open(config(&path)).unwrap();
        let count = fill(&store, 0);
        assert!(count > 50, "{count} values fitted");
        check(&store, count);
        assert_eq!(store.get(&key(count), None).unwrap(), None, "what was refused is not there");

        // Reopened while full: recovery needs no space to speak of.
        store.close().unwrap();
        let store = DiskStore::open(config(&path)).unwrap();
        check(&store, count);
        assert!(matches!(store.put(&key(count), value(count).into()), Err(StoreError::Full)));

        // Somebody frees space.
        fs::remove_file(&ballast).unwrap();
        store.put(&key(count), value(count).into()).unwrap();
        check(&store, count + 1);
        let more = fill(&store, count + 1);
        assert!(more > count + 20, "{more}");
        check(&store, more);
        store.close().unwrap();
    });
}

#[test]
fn after_a_refusal_no_later_write_of_the_same_batch_is_kept() {
    let Some(disk) = SmallDisk::mount() else { return };
    let path = disk.0.path().to_path_buf();
    reactor::run(move || {
        let store = DiskStore::open(config(&path)).unwrap();
        let tickets: Vec<Ticket> =
            (0..400).map(|n| store.enqueue(&key(n), value(n).into()).unwrap()).collect();
        let small = store.enqueue(&key(999), Bytes::from("small enough to fit").into()).unwrap();
        let results: Vec<bool> = tickets.iter().map(|ticket| ticket.wait().is_ok()).collect();
        let kept = results.iter().take_while(|is_kept| **is_kept).count();
        assert!(kept > 50 && results[kept..].iter().all(|is_kept| !is_kept), "{results:?}");
        assert!(matches!(small.wait(), Err(StoreError::Full)), "waiting for the last tells of all");
        check(&store, kept as u16);
        store.close().unwrap();
    });
}

#[test]
fn removing_values_of_a_full_store_makes_room() {
    let Some(disk) = SmallDisk::mount() else { return };
    let path = disk.0.path().to_path_buf();
    reactor::run(move || {
        let store = DiskStore::open(config(&path)).unwrap();
        let count = fill(&store, 0);
        for n in 0..count {
            if n % 8 != 0 {
                store.remove(&key(n)).unwrap();
            }
        }
        let mut refused = 0;
        while let Err(error) = store.put(&key(9999), value(1).into()) {
            assert!(matches!(error, StoreError::Full));
            refused += 1;
            assert!(refused < 500, "compaction does not make room");
            reactor::sleep(Duration::from_millis(20));
        }
        for n in (0..count).step_by(8) {
            assert_eq!(store.get(&key(n), None).unwrap().unwrap(), value(n));
        }
        store.close().unwrap();
    });
}

#[test]
fn what_serves_removals_is_taken_by_a_full_disk_and_not_failed_by_what_is_not() {
    let Some(disk) = SmallDisk::mount() else { return };
    let path = disk.0.path().to_path_buf();
    reactor::run(move || {
        let store = DiskStore::open(config(&path)).unwrap();
        let count = fill(&store, 0);
        let serves = PutOptions { may_use_reserve: true, ..PutOptions::default() };
        // Once the space that is kept back is touched, rights are told apart within one batch.
        store.enqueue_with(&key(2000), value(1).into(), serves).unwrap().wait().unwrap();
        let tickets: Vec<(bool, Ticket)> = (0..8)
            .map(|n| match n % 2 {
                0 => (false, store.enqueue(&key(3000 + n), value(n).into()).unwrap()),
                _ => (true, store.enqueue_with(&key(2000 + n), value(n).into(), serves).unwrap()),
            })
            .collect();
        for (serves, ticket) in &tickets {
            assert_eq!(ticket.wait().is_ok(), *serves);
        }
        let removal = store.enqueue_remove(&key(0)).unwrap();
        assert!(matches!(store.put(&key(4000), value(1).into()), Err(StoreError::Full)));
        removal.wait().unwrap();
        // Some is left for removals whatever else was written.
        let mut n = 5000;
        while store.enqueue_with(&key(n), value(n).into(), serves).unwrap().wait().is_ok() {
            n += 1;
            assert!(n < 5100, "the space that is kept back has an end");
        }
        (1..count).for_each(|n| store.remove(&key(n)).unwrap());
        let mut refused = 0;
        while store.put(&key(9999), value(1).into()).is_err() {
            refused += 1;
            assert!(refused < 500, "removals do not make room");
            reactor::sleep(Duration::from_millis(20));
        }
        for n in [2001, 2003, 2005, 2007] {
            assert_eq!(store.get(&key(n), None).unwrap().unwrap(), value(n - 2000));
        }
        store.close().unwrap();
    });
}

#[test]
fn a_block_is_acknowledged_by_its_own_write_and_not_by_a_later_one_that_a_full_disk_still_takes() {
    let Some(disk) = SmallDisk::mount() else { return };
    let path = disk.0.path().to_path_buf();
    reactor::run(move || {
        let store = Rc::new(DiskStore::open(config(&path)).unwrap());
        let node = Node::new(NodeId([1; 32]), store.clone(), Gate::Open, 1);
        fill(&store, 0);
        let serves = PutOptions { may_use_reserve: true, ..PutOptions::default() };
        store.enqueue_with(&key(2000), value(1).into(), serves).unwrap().wait().unwrap();
        let (tag, content) = (OwnerTag([4; 32]), value(7));
        let address = Address::of(&tag, &content);
        let first = node.enqueue_block(&PutBlockRequest::new(address, tag), content.clone()).unwrap();
        let removal = store.enqueue_remove(&key(0)).unwrap();
        assert!(node.has_block(&address), "it is on its way");
        let second = node.put_block(&address, &tag, content);
        assert!(matches!(first.wait(), Err(StoreError::Full)));
        removal.wait().unwrap();
        assert!(matches!(second, Err(Refusal::Full)), "{second:?}, though it is stored nowhere");
        assert!(!node.has_block(&address) && store.stored(&key(0)).is_none());
        store.stored(&key(1)).unwrap().wait().unwrap();
        store.close().unwrap();
    });
}

/// What fits, each value of `size_bytes`, and then a fifth of it removed: no segment is dead enough to be copied into
/// what is free, and still its space comes back.
fn a_fifth_is_removed(size_bytes: usize) {
    let Some(disk) = SmallDisk::of(48 << 20) else { return };
    let path = disk.0.path().to_path_buf();
    reactor::run(move || {
        let value = move |n: u16| Bytes::from(vec![n as u8; size_bytes]);
        let mut large = config(&path);
        large.segment_size_bytes = 12 << 20;
        let store = DiskStore::open(large.clone()).unwrap();
        let count = (0..u16::MAX).find(|n| store.put(&key(*n), value(*n).into()).is_err()).unwrap();
        for n in (0..count).step_by(5) {
            store.remove(&key(n)).unwrap();
        }
        let mut added = 0;
        let mut refused = 0;
        while added < count / 10 {
            match store.put(&key(count + added), value(added).into()) {
                Ok(()) => added += 1,
                Err(StoreError::Full) => {
                    refused += 1;
                    assert!(refused < 2000, "only {added} of {count} fitted again");
                    reactor::sleep(Duration::from_millis(10));
                }
                Err(error) => panic!("{error}"),
            }
        }
        store.close().unwrap();
        // What was given back is told from damage, with checkpoints and without.
        for round in 0..2 {
            let store = DiskStore::open(large.clone()).unwrap();
            assert_eq!(store.recovery().damages, []);
            for n in 0..count {
                let found = store.get(&key(n), None).unwrap();
                assert_eq!(found, (n % 5 != 0).then(|| value(n)), "{n} of {count}");
            }
            for n in 0..added {
                assert_eq!(store.get(&key(count + n), None).unwrap().unwrap(), value(n));
            }
            store.close().unwrap();
            if round == 0 {
                for file in fs::read_dir(&large.path).unwrap().map(|file| file.unwrap().path()) {
                    if file.extension().is_some_and(|extension| extension == "index") {
                        fs::remove_file(file).unwrap();
                    }
                }
            }
        }
    });
}

#[test]
fn a_full_disk_gets_back_the_space_of_large_values_without_copying_the_others() {
    a_fifth_is_removed(256 << 10);
}

#[test]
fn a_full_disk_gets_back_the_space_of_small_values_step_by_step() {
    a_fifth_is_removed(3 << 10);
}

#[test]
fn a_capacity_is_kept_to() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().to_path_buf();
    reactor::run(move || {
        let mut config = config(&path);
        config.capacity_bytes = Some(6 << 20);
        let store = DiskStore::open(config.clone()).unwrap();
        let count = fill(&store, 0);
        assert!((100..126).contains(&count), "{count} values of 50 KB in 6 MiB");
        assert!(store.usage().total_bytes <= 6 << 20 && store.usage().disk_bytes <= 6 << 20);
        check(&store, count);
        (0..count).for_each(|n| store.remove(&key(n)).unwrap());
        while store.put(&key(0), value(0).into()).is_err() {
            reactor::sleep(Duration::from_millis(20));
        }
        store.close().unwrap();
    });
}

/// With segments as large as on a large disk, all of a small one is in the newest, which is never compacted.
#[test]
fn a_small_disk_is_filled_and_emptied_with_the_usual_settings() {
    let Some(disk) = SmallDisk::of(64 << 20) else { return };
    let path = disk.0.path().join("store");
    reactor::run(move || {
        let store = DiskStore::open(Config::new(&path)).unwrap();
        let mut counts = Vec::new();
        for _ in 0..3 {
            let count = fill(&store, 0);
            check(&store, count);
            counts.push(count);
            let tickets: Vec<Ticket> = (0..count).map(|n| store.enqueue_remove(&key(n)).unwrap()).collect();
            tickets.iter().for_each(|ticket| ticket.wait().unwrap());
            let until = std::time::Instant::now() + Duration::from_secs(60);
            while store.usage().total_bytes - store.usage().disk_bytes < 45 << 20 {
                assert!(std::time::Instant::now() < until, "not given back: {:?}", store.usage());
                reactor::sleep(Duration::from_millis(20));
            }
        }
        assert!(counts.iter().all(|count| *count > 800), "{counts:?}");
        store.close().unwrap();
    });
}
