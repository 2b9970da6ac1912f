//! Small parts of large values are read again and again, and the table of checksums before such a value is remembered.
//! What was remembered must never vouch for other bytes than it was made for: another value of the key, one that compaction
//! has moved, or one that has rotted; and it must not keep a scrub from finding that the table itself has.

use bytes::Bytes;
use dht::store::{Config, DiskStore, Key, Kind, Store, StoreError};
use std::{
    fs::{self, File},
    ops::Range,
    os::unix::fs::FileExt,
    path::Path,
};

const LENGTH: usize = 96 << 10;

fn key(n: u8) -> Key {
    Key::new(Kind::BLOCK, [n; 32])
}

/// No two pages of it, nor of two values, are alike.
fn value(seed: u8) -> Bytes {
    (0..LENGTH).map(|at| (at >> 12) as u8 ^ (at as u8).wrapping_mul(seed | 1) ^ seed).collect()
}

fn part(store: &DiskStore, n: u8, range: Range<u32>) -> Result<Bytes, StoreError> {
    store.get(&key(n), Some(range)).map(|found| found.expect("it was put"))
}

fn is_damaged(read: Result<Bytes, StoreError>) -> bool {
    matches!(read, Err(StoreError::Damaged(_)))
}

/// Flips a bit of a stored value, `at` bytes from where that begins; before that lies its table.
fn flip(path: &Path, value: &Bytes, at: i64) {
    let segments = fs::read_dir(path).unwrap().map(|file| file.unwrap().path());
    for segment in segments.filter(|path| path.extension().is_some_and(|found| found == "segment")) {
        let bytes = fs::read(&segment).unwrap();
        let Some(begin) = bytes.windows(4096).position(|bytes| bytes == &value[..4096]) else { continue };
        let place = (begin as i64 + at) as usize;
        let file = File::options().write(true).open(&segment).unwrap();
        return file.write_all_at(&[bytes[place] ^ 16], place as u64).unwrap();
    }
    panic!("no segment has it");
}

#[test]
fn a_part_that_has_rotted_is_told_though_the_table_is_remembered() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().to_path_buf();
    reactor::run(move || {
        let store = DiskStore::open(Config::new(&path)).unwrap();
        store.put(&key(1), value(1).into()).unwrap();
        for at in [40_960, 8192, 0, 90_000, LENGTH as u32 - 10] {
            let range = at..(at + 4096).min(LENGTH as u32);
            let expected = value(1).slice(range.start as usize..range.end as usize);
            assert_eq!(part(&store, 1, range.clone()).unwrap(), expected);
            assert_eq!(part(&store, 1, range).unwrap(), expected, "by the table that is remembered");
        }
        flip(&path, &value(1), 20_000);
        assert!(is_damaged(part(&store, 1, 16_384..20_480)));
        assert!(is_damaged(part(&store, 1, 8192..12_288)), "nothing more is served of what is damaged");
        store.put(&key(1), value(1).into()).unwrap();
        assert_eq!(part(&store, 1, 16_384..20_480).unwrap(), value(1).slice(16_384..20_480), "put again");
        store.close().unwrap();
    });
}

#[test]
fn a_table_that_has_rotted_is_found_by_a_scrub_though_it_is_remembered() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().to_path_buf();
    reactor::run(move || {
        let mut config = Config::new(&path);
        config.background_bytes_per_second = u64::MAX;
        let store = DiskStore::open(config).unwrap();
        store.put(&key(1), value(1).into()).unwrap();
        part(&store, 1, 40_960..45_056).unwrap();
        flip(&path, &value(1), -8);
        // The value is what it was, and the table in memory says so.
        assert_eq!(part(&store, 1, 8192..12_288).unwrap(), value(1).slice(8192..12_288));
        assert_eq!(store.scrub().unwrap().damages.len(), 1);
        assert!(is_damaged(part(&store, 1, 8192..12_288)), "a new start would not read it");
        store.close().unwrap();
    });
}

#[test]
fn a_value_that_was_put_anew_or_moved_is_read_by_its_own_table() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().to_path_buf();
    reactor::run(move || {
        let mut config = Config::new(&path);
        config.segment_size_bytes = 512 << 10;
        config.background_bytes_per_second = u64::MAX;
        let store = DiskStore::open(config).unwrap();
        let whole = |seed: u8, range: Range<u32>| value(seed).slice(range.start as usize..range.end as usize);
        let range = || 40_960..45_056;
        store.put(&key(0), value(200).into()).unwrap();
        for round in 1..20 {
            for n in 1..4 {
                let seed = round * 4 + n;
                store.put(&key(n), value(seed).into()).unwrap();
                assert_eq!(part(&store, n, range()).unwrap(), whole(seed, range()));
                assert_eq!(part(&store, n, 0..4096).unwrap(), whole(seed, 0..4096));
            }
            // In the first segment, which dies around it.
            assert_eq!(part(&store, 0, range()).unwrap(), whole(200, range()));
            reactor::yield_now();
        }
        // More than 5 MiB were written, in 11 segments; what is left says that compaction has moved things.
        let segments = || fs::read_dir(&path).unwrap().count();
        let compacted = reactor::timeout(std::time::Duration::from_secs(120), || {
            while segments() > 12 {
                reactor::sleep(std::time::Duration::from_millis(5));
            }
        });
        assert!(compacted.is_ok(), "nothing was compacted");
        for n in 1..4 {
            assert_eq!(part(&store, n, range()).unwrap(), whole(19 * 4 + n, range()));
        }
        assert_eq!(part(&store, 0, range()).unwrap(), whole(200, range()));
        store.close().unwrap();
    });
}
