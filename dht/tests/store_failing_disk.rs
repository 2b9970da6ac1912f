//! A disk that fails: for a moment, for good, or in one place. A passing fault costs the writes that met it and no
//! others; one that leaves unknown what the disk holds is told, and writes go on in another file; a place that cannot
//! be read is damage of what lies there, and stops neither the start nor compaction.

use bytes::Bytes;
use dht::store::device::{DeviceId, Disk, DiskFile, KernelDisk, Opening, Waiting};
use dht::store::{Config, DiskStore, Key, Kind, Store, StoreError};
use std::{
    io::{self, IoSlice},
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

/// What goes wrong, shared by a disk and all its files.
#[derive(Debug, Default)]
struct Faults {
    /// No file can be made.
    no_new_files: bool,
    /// No sync works.
    no_syncs: bool,
    /// Names neither become durable nor go.
    names_stay: bool,
    /// Writes end after so many bytes.
    bytes_left: Option<usize>,
    /// A part of a file, by the end of its name, that cannot be read.
    unreadable: Option<(String, std::ops::Range<u64>)>,
}

#[derive(Clone, Debug, Default)]
struct FailingDisk(Arc<Mutex<Faults>>);

#[derive(Debug)]
struct FailingFile {
    name: String,
    file: Arc<dyn DiskFile>,
    faults: Arc<Mutex<Faults>>,
}

fn eio<T>() -> io::Result<T> {
    Err(io::Error::from_raw_os_error(5))
}

impl FailingDisk {
    fn set(&self, f: impl FnOnce(&mut Faults)) {
        f(&mut self.0.lock().unwrap());
    }
}

impl Disk for FailingDisk {
    fn open(&self, path: &Path, how: Opening) -> io::Result<Arc<dyn DiskFile>> {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if how == Opening::New && self.0.lock().unwrap().no_new_files {
            return Err(io::Error::from_raw_os_error(24));
        }
        Ok(Arc::new(FailingFile { name, file: KernelDisk.open(path, how)?, faults: self.0.clone() }))
    }

    fn make_directory(&self, path: &Path) -> io::Result<()> {
        KernelDisk.make_directory(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        KernelDisk.list(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        KernelDisk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        if self.0.lock().unwrap().names_stay { eio() } else { KernelDisk.remove(path) }
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        if self.0.lock().unwrap().names_stay { eio() } else { KernelDisk.sync_directory(path) }
    }

    fn free_bytes(&self, path: &Path) -> Option<u64> {
        KernelDisk.free_bytes(path)
    }

    fn device(&self, path: &Path) -> DeviceId {
        KernelDisk.device(path)
    }

    fn waiting(&self) -> Waiting {
        Waiting::Thread
    }
}

impl DiskFile for FailingFile {
    fn length_bytes(&self) -> io::Result<u64> {
        self.file.length_bytes()
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let end = offset + buffer.len() as u64;
        if let Some((name, range)) = &self.faults.lock().unwrap().unreadable
            && self.name.ends_with(name)
            && range.start < end
            && offset < range.end
        {
            return eio();
        }
        self.file.read_at(buffer, offset)
    }

    fn read_cached_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.read_at(buffer, offset)
    }

    fn write_at(&self, pieces: &[IoSlice<'_>], offset: u64) -> io::Result<usize> {
        let mut faults = self.faults.lock().unwrap();
        let Some(left) = &mut faults.bytes_left else { return self.file.write_at(pieces, offset) };
        let all: Vec<u8> = pieces.iter().flat_map(|piece| piece.to_vec()).collect();
        let count = all.len().min(*left);
        if count == 0 {
            return eio();
        }
        *left -= count;
        self.file.write_at(&[IoSlice::new(&all[..count])], offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        if self.faults.lock().unwrap().no_syncs { eio() } else { self.file.sync_data() }
    }

    fn sync_all(&self) -> io::Result<()> {
        if self.faults.lock().unwrap().no_syncs { eio() } else { self.file.sync_all() }
    }

    fn set_length(&self, length_bytes: u64) -> io::Result<()> {
        if self.faults.lock().unwrap().no_syncs { eio() } else { self.file.set_length(length_bytes) }
    }

    fn allocate(&self, length_bytes: u64) -> io::Result<()> {
        self.file.allocate(length_bytes)
    }

    fn punch(&self, bytes: std::ops::Range<u64>) -> io::Result<()> {
        self.file.punch(bytes)
    }

    fn try_lock(&self) -> io::Result<bool> {
        self.file.try_lock()
    }

    fn unlock(&self) {
        self.file.unlock();
    }
}

fn key(n: u16) -> Key {
    let mut address = [0; 32];
    address[..2].copy_from_slice(&n.to_be_bytes());
    Key::new(Kind::BLOCK, address)
}

fn value(n: u16) -> Bytes {
    vec![n as u8; 3000].into()
}

fn config(path: &Path) -> Config {
    let mut config = Config::new(path);
    config.segment_size_bytes = 64 << 10;
    config.background_bytes_per_second = 1 << 30;
    config
}

fn open(disk: &FailingDisk, path: &Path) -> DiskStore {
    DiskStore::open_on(Arc::new(disk.clone()), config(path)).unwrap()
}

/// Runs a story with an empty directory.
fn story(f: impl FnOnce(&FailingDisk, &Path) + Send + 'static) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().to_path_buf();
    reactor::run(move || f(&FailingDisk::default(), &path));
}

/// Puts values until one succeeds again.
fn put_until_it_works(store: &DiskStore, n: u16) {
    for _ in 0..2000 {
        if store.put(&key(n), value(n).into()).is_ok() {
            return;
        }
        reactor::sleep(Duration::from_millis(10));
    }
    panic!("the store never takes writes again: {:?}", store.failure());
}

#[test]
fn a_moment_without_descriptors_costs_the_writes_that_met_it_and_no_others() {
    story(|disk, path| {
        let store = open(disk, path);
        disk.set(|faults| faults.no_new_files = true);
        let refused = (0..100).find(|n| store.put(&key(*n), value(*n).into()).is_err()).unwrap();
        assert!(refused > 10, "the first segment took some");
        assert!(store.put(&key(500), value(500).into()).is_err());
        assert!(store.failure().is_none(), "nothing is unknown about the disk");
        disk.set(|faults| faults.no_new_files = false);
        store.put(&key(refused), value(refused).into()).unwrap();
        store.close().unwrap();
        let store = open(disk, path);
        assert_eq!(store.usage().count, u64::from(refused) + 1);
        assert_eq!(store.get(&key(500), None).unwrap(), None);
        store.close().unwrap();
    });
}

#[test]
fn a_failed_sync_is_told_and_writes_go_on_elsewhere_when_the_disk_is_well() {
    story(|disk, path| {
        let store = open(disk, path);
        store.put(&key(1), value(1).into()).unwrap();
        disk.set(|faults| faults.no_syncs = true);
        assert!(matches!(store.put(&key(1), value(2).into()), Err(StoreError::Io { .. })));
        assert!(matches!(store.put(&key(2), value(2).into()), Err(StoreError::Io { .. })));
        assert!(store.failure().is_some_and(|error| error.to_string().contains("sync")));
        assert_eq!(store.get(&key(1), None).unwrap().unwrap(), value(1), "reads go on");
        disk.set(|faults| faults.no_syncs = false);
        put_until_it_works(&store, 3);
        assert!(store.failure().is_none());
        store.close().unwrap();
        // The bytes of the refused writes could not even be cut off. They never count, checkpoint or not.
        for n in 0..2 {
            let _ = std::fs::remove_file(path.join(format!("{n:08x}.index")));
        }
        for _ in 0..2 {
            let store = open(disk, path);
            assert_eq!(store.get(&key(1), None).unwrap().unwrap(), value(1));
            assert_eq!(store.get(&key(2), None).unwrap(), None);
            assert_eq!(store.get(&key(3), None).unwrap().unwrap(), value(3));
            store.close().unwrap();
        }
    });
}

#[test]
fn nothing_is_added_to_a_segment_once_another_may_say_where_it_ended() {
    story(|disk, path| {
        let store = open(disk, path);
        disk.set(|faults| faults.names_stay = true);
        let refused = (0..100).find(|n| store.put(&key(*n), value(*n).into()).is_err()).unwrap();
        assert!(path.join("00000001.segment").exists(), "what was begun is left behind");
        // It would still fit in.
        assert!(
            store.put(&key(200), Bytes::from("small").into()).is_err(),
            "the other may come back and end it"
        );
        assert!(store.failure().is_some_and(|error| error.to_string().contains("sync")));
        disk.set(|faults| faults.names_stay = false);
        put_until_it_works(&store, 300);
        assert!(store.failure().is_none());
        store.close().unwrap();
        // With checkpoints, and without.
        for _ in 0..2 {
            let store = open(disk, path);
            assert_eq!(store.damaged(), []);
            assert!((0..refused).all(|n| store.get(&key(n), None).unwrap().unwrap() == value(n)));
            assert_eq!(store.get(&key(200), None).unwrap(), None);
            assert_eq!(store.get(&key(300), None).unwrap().unwrap(), value(300));
            store.close().unwrap();
            (0..4).for_each(|n| drop(std::fs::remove_file(path.join(format!("{n:08x}.index")))));
        }
    });
}

#[test]
fn a_write_that_fails_before_its_first_byte_changes_nothing_and_a_torn_one_is_never_seen() {
    for bytes in [0, 100, 4000] {
        story(move |disk, path| {
            let store = open(disk, path);
            store.put(&key(1), value(1).into()).unwrap();
            disk.set(|faults| faults.bytes_left = Some(bytes));
            let tickets: Vec<_> = (2..6).map(|n| store.enqueue(&key(n), value(n).into()).unwrap()).collect();
            // The writer may have taken the first for a group of their own, which then fits.
            let acknowledged = (2..6).zip(&tickets).filter(|(_, ticket)| ticket.wait().is_ok());
            let acknowledged: Vec<Key> = acknowledged.map(|(n, _)| key(n)).collect();
            assert!(acknowledged.len() < 4, "{bytes} bytes do not hold all");
            disk.set(|faults| faults.bytes_left = None);
            put_until_it_works(&store, 7);
            store.close().unwrap();
            let store = open(disk, path);
            let mut expected = [&[key(1), key(7)], acknowledged.as_slice()].concat();
            let mut found = store.keys(&Key::first(Kind(0)), 10);
            expected.sort_unstable();
            found.sort_unstable();
            assert_eq!(found, expected, "{bytes}");
            assert!(store.damaged().is_empty());
            store.close().unwrap();
        });
    }
}

#[test]
fn a_place_that_cannot_be_read_is_damage_of_what_lies_there() {
    story(|disk, path| {
        let store = open(disk, path);
        for n in 0..60 {
            store.put(&key(n), value(n).into()).unwrap();
        }
        disk.set(|faults| faults.unreadable = Some(("00000000.segment".into(), 20_000..20_001)));
        let bad: Vec<u16> = (0..60).filter(|n| store.get(&key(*n), None).is_err()).collect();
        let [bad] = bad[..] else { panic!("{bad:?}") };
        assert_eq!(store.damaged().len(), 1);
        assert!(!store.contains(&key(bad)));
        // All else in its segment goes; the segment itself waits for better days.
        for n in (0..60).filter(|n| *n != bad) {
            store.put(&key(n), value(n).into()).unwrap();
        }
        for _ in 0..50 {
            reactor::sleep(Duration::from_millis(5));
        }
        assert!(path.join("00000000.segment").exists());
        disk.set(|faults| faults.unreadable = None);
        store.close().unwrap();
        let store = open(disk, path);
        assert_eq!(store.get(&key(bad), None).unwrap().unwrap(), value(bad), "it was not thrown away");
        store.close().unwrap();
    });
}

#[test]
fn an_unreadable_place_in_the_newest_segment_does_not_stop_the_start() {
    story(|disk, path| {
        let store = open(disk, path);
        for n in 0..15 {
            store.put(&key(n), value(n).into()).unwrap();
        }
        store.close().unwrap();
        for place in [20_000, 64, 45_000] {
            disk.set(|faults| faults.unreadable = Some(("00000000.segment".into(), place..place + 1)));
            let store = open(disk, path);
            let bad: Vec<u16> = (0..15).filter(|n| store.get(&key(*n), None).is_err()).collect();
            assert!((1..=2).contains(&bad.len()), "{bad:?}");
            store.put(&key(100), value(100).into()).unwrap();
            store.close().unwrap();
        }
        disk.set(|faults| faults.unreadable = None);
        let store = open(disk, path);
        assert!((0..15).all(|n| store.get(&key(n), None).unwrap().unwrap() == value(n)));
        assert_eq!(store.get(&key(100), None).unwrap().unwrap(), value(100));
        store.close().unwrap();
    });
}

#[test]
fn what_lies_before_a_value_is_read_for_the_first_of_its_parts_and_not_again() {
    story(|disk, path| {
        let store = open(disk, path);
        let value: Bytes = (0..60_000u32).map(|at| (at >> 8) as u8).collect();
        store.put(&key(1), value.clone().into()).unwrap();
        let part = |at: usize| store.get(&key(1), Some(at as u32..at as u32 + 4096));
        assert_eq!(part(16_384).unwrap().unwrap(), value[16_384..20_480]);
        // The first record: its header, and its table of 15 checksums, begin behind the segment's header.
        disk.set(|faults| faults.unreadable = Some(("00000000.segment".into(), 64..64 + 64 + 60)));
        for at in [20_480, 0, 49_152] {
            assert_eq!(part(at).unwrap().unwrap(), value[at..at + 4096], "at {at}");
        }
        disk.set(|faults| faults.unreadable = None);
        store.close().unwrap();
    });
}
