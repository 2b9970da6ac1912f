//! A full disk refuses writes, keeps serving reads, and takes writes again once there is space. A real one: a small
//! tmpfs, which needs root to mount; without root this says so and passes.

use bytes::Bytes;
use dht::store::{Config, DiskStore, Key, Kind, Store, StoreError, Ticket};
use rustix::mount::{MountFlags, UnmountFlags};
use std::{ffi::CString, fs, path::Path, time::Duration};

const DISK_BYTES: u64 = 12 << 20;

struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount() -> Option<SmallDisk> {
        let directory = tempfile::tempdir().unwrap();
        let options = CString::new(format!("size={DISK_BYTES}")).unwrap();
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
