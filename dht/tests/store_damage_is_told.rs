//! Damage at the worst places: headers and names destroyed, torn tails beside bit rot, segments of another version,
//! records of a later one. Nothing old may pass for the newest, and nothing is touched that is not understood.

use bytes::Bytes;
use dht::store::format::{self, Place, RecordHeader, SegmentHeader, Shape};
use dht::store::{Config, DiskStore, Key, Kind, PutOptions, Store, StoreError};
use std::{
    fs,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

const SALT: u64 = 0x00c0_ffee;

fn key(n: u8) -> Key {
    Key::new(Kind::REGISTER, [n; 32])
}

fn config(path: &Path) -> Config {
    let mut config = Config::new(path);
    config.segment_size_bytes = 256 << 10;
    config
}

fn in_store<T: Send + 'static>(path: &Path, f: impl FnOnce(&DiskStore) -> T + Send + 'static) -> T {
    let path = path.to_path_buf();
    reactor::run(move || {
        let store = DiskStore::open(config(&path)).unwrap();
        let result = f(&store);
        store.close().unwrap();
        result
    })
}

fn segment(path: &Path, number: u32) -> PathBuf {
    path.join(format!("{number:08x}.segment"))
}

/// Where the records with values lie in a segment, oldest first, with their keys.
fn records(path: &Path, number: u32) -> Vec<(u64, Key)> {
    let bytes = fs::read(segment(path, number)).unwrap();
    let salt = format::decode_segment_header(&bytes).unwrap().salt;
    let mut found = Vec::new();
    let mut offset = format::SEGMENT_HEADER_BYTES;
    while let Some(header) = bytes.get(offset..).and_then(|rest| {
        format::decode_record_header(Place { salt, segment: number, offset: offset as u32 }, rest)
    }) {
        if header.shape == Shape::Value {
            found.push((offset as u64, header.key));
        }
        offset += header.size_bytes() as usize;
    }
    found
}

fn wipe(path: &Path, number: u32, offset: u64, count: usize) {
    let file = fs::OpenOptions::new().write(true).open(segment(path, number)).unwrap();
    file.write_all_at(&vec![0x55; count], offset).unwrap();
}

/// A segment as a writer leaves it, record by record.
struct Written {
    number: u32,
    bytes: Vec<u8>,
    durable: u32,
}

impl Written {
    fn new(number: u32) -> Written {
        let header = SegmentHeader { segment: number, salt: SALT, previous: None };
        Written { number, bytes: format::encode_segment_header(&header).into(), durable: 64 }
    }

    fn push(&mut self, shape: Shape, flags: u8, n: u8, sequence: u64, value: &[u8]) -> u64 {
        let offset = self.bytes.len();
        let (length, watermark) = (value.len() as u32, self.durable);
        let (check, table) = format::checksums(length, [value]);
        let header = RecordHeader { shape, key: key(n), flags, owner: 0, sequence, length, watermark, check };
        let place = Place { salt: SALT, segment: self.number, offset: offset as u32 };
        self.bytes.extend(format::encode_record_header(place, &header));
        self.bytes.extend(table);
        self.bytes.extend(value);
        self.bytes.resize(offset + format::record_bytes(length), 0);
        offset as u64
    }

    fn sync(&mut self) {
        self.durable = self.bytes.len() as u32;
    }

    fn save(&self, path: &Path) {
        fs::write(segment(path, self.number), &self.bytes).unwrap();
    }
}

#[test]
fn a_destroyed_header_brings_no_older_value_back_and_silences_its_own_key_only() {
    let directory = tempfile::tempdir().unwrap();
    in_store(directory.path(), |store| {
        for version in 0..3_u8 {
            for n in 0..100 {
                store.put(&key(n), vec![version; 200].into()).unwrap();
            }
        }
    });
    let newest = records(directory.path(), 0).into_iter().rfind(|(_, found)| *found == key(7)).unwrap();
    wipe(directory.path(), 0, newest.0, 64);
    let check = |store: &DiskStore| {
        assert!(matches!(store.get(&key(7), None), Err(StoreError::Damaged(_))), "an older value came back");
        assert_eq!(store.damaged().iter().map(|damage| damage.key).collect::<Vec<_>>(), [Some(key(7))]);
        for n in (0..100).filter(|n| *n != 7) {
            assert!(!store.is_suspect(&key(n)), "{n}");
            assert_eq!(store.get(&key(n), None).unwrap().unwrap(), vec![2; 200]);
        }
        assert!(!store.is_suspect(&key(200)), "nor is a key that never was");
    };
    in_store(directory.path(), check);
    in_store(directory.path(), check);
    in_store(directory.path(), |store| {
        store.put(&key(7), Bytes::from("learnt again").into()).unwrap();
        assert_eq!(store.get(&key(7), None).unwrap().unwrap(), "learnt again");
        assert!(store.damaged().is_empty());
    });
}

#[test]
fn a_bad_sector_takes_records_but_not_their_names() {
    let directory = tempfile::tempdir().unwrap();
    in_store(directory.path(), |store| {
        for n in 0..200 {
            store.put(&key(n), vec![n; 200].into()).unwrap();
        }
    });
    wipe(directory.path(), 0, 8 << 10, 4 << 10);
    in_store(directory.path(), |store| {
        let lost: Vec<Key> = store.damaged().iter().filter_map(|damage| damage.key).collect();
        assert!(lost.len() >= 15 && lost.len() == store.damaged().len(), "{:?}", store.damaged());
        for n in 0..200 {
            assert!(!store.is_suspect(&key(n)));
            match store.get(&key(n), None) {
                Ok(value) => assert_eq!(value.unwrap(), vec![n; 200]),
                Err(error) => assert!(lost.contains(&key(n)), "{error}"),
            }
        }
    });
}

/// Where a crash came before any list was written, a hole has no name: then all is in doubt that it may have hidden.
#[test]
fn a_hole_without_a_name_puts_in_doubt_whatever_is_not_newer_until_it_is_written_again() {
    let directory = tempfile::tempdir().unwrap();
    let mut written = Written::new(0);
    written.push(Shape::Value, 0, 1, 1, b"older");
    written.push(Shape::Value, 0, 2, 2, b"two");
    written.sync();
    let hole = written.push(Shape::Value, 0, 1, 3, b"newer");
    written.sync();
    written.push(Shape::Value, 0, 3, 4, b"three");
    written.sync();
    written.push(Shape::Mark, 0, 0, 0, b"");
    written.save(directory.path());
    wipe(directory.path(), 0, hole, 64);
    in_store(directory.path(), |store| {
        assert!(store.is_suspect(&key(1)) && store.is_suspect(&key(2)), "either may have had a newer record");
        assert!(store.is_suspect(&key(9)), "and so may one of which nothing is left");
        assert!(!store.is_suspect(&key(3)), "what was written later is the newest");
        store.put(&key(1), Bytes::from("learnt again").into()).unwrap();
        assert!(!store.is_suspect(&key(1)));
    });
    in_store(directory.path(), |store| {
        assert!(!store.is_suspect(&key(1)) && store.is_suspect(&key(2)), "the doubt outlives a restart");
        // Until the segment with the hole is gone, and beyond.
        for n in 10..250 {
            (0..3).for_each(|_| drop(store.enqueue(&key(n), vec![n; 600].into()).unwrap()));
        }
        for n in [2, 3] {
            store.put(&key(n), Bytes::from("again").into()).unwrap();
        }
        let is_there = || store.damaged().iter().any(|damage| damage.segment == 0);
        while is_there() {
            reactor::sleep(std::time::Duration::from_millis(5));
        }
        assert!(store.is_suspect(&key(9)) && !store.is_suspect(&key(2)));
    });
    in_store(directory.path(), |store| assert!(store.is_suspect(&key(9))));
}

#[test]
fn what_a_hole_may_have_hidden_stays_in_doubt_after_its_segment_and_through_every_restart() {
    let directory = tempfile::tempdir().unwrap();
    let mut written = Written::new(0);
    written.push(Shape::Value, 0, 1, 1, b"older");
    written.sync();
    let hole = written.push(Shape::Value, 0, 9, 2, b"nameless");
    written.sync();
    written.push(Shape::Mark, 0, 0, 0, b"");
    written.save(directory.path());
    wipe(directory.path(), 0, hole, 64);
    in_store(directory.path(), |store| {
        store.put(&key(1), Bytes::from("again").into()).unwrap();
        while store.damaged().iter().any(|damage| damage.segment == 0) {
            reactor::sleep(std::time::Duration::from_millis(5));
        }
        assert!(store.is_suspect(&key(9)));
    });
    // The segment that has word of it is no longer the newest, and nothing in it dies, so that it is not compacted.
    in_store(directory.path(), |store| {
        assert!(store.is_suspect(&key(9)));
        for n in 0..250 {
            let other = Key::new(Kind::BLOCK, [n; 32]);
            let _shares_the_sync = store.enqueue(&other, vec![n; 1200].into()).unwrap();
        }
        store.sync().unwrap();
        assert!(store.is_suspect(&key(9)));
    });
    for _ in 0..2 {
        in_store(directory.path(), |store| assert!(store.is_suspect(&key(9)), "the doubt was forgotten"));
    }
}

#[test]
fn a_torn_tail_never_comes_back_even_beside_damage_and_without_checkpoints() {
    let directory = tempfile::tempdir().unwrap();
    let mut written = Written::new(0);
    let rotten = written.push(Shape::Value, 0, 1, 1, b"one");
    written.push(Shape::Value, 0, 2, 2, b"two");
    written.sync();
    // The last group was never synced: its first record is torn, its second one arrived.
    let torn = written.push(Shape::Value, 0, 4, 3, &[4; 300]);
    written.push(Shape::Value, 0, 3, 4, b"never acknowledged");
    written.save(directory.path());
    wipe(directory.path(), 0, torn, 300);
    wipe(directory.path(), 0, rotten + 64, 1);
    in_store(directory.path(), |store| {
        assert_eq!(store.get(&key(3), None).unwrap(), None);
        store.put(&key(3), Bytes::from("acknowledged").into()).unwrap();
    });
    for file in fs::read_dir(directory.path()).unwrap().map(|file| file.unwrap().path()) {
        if file.extension().is_some_and(|extension| extension == "index") {
            fs::remove_file(file).unwrap();
        }
    }
    in_store(directory.path(), |store| {
        assert_eq!(store.get(&key(3), None).unwrap().unwrap(), "acknowledged");
        assert_eq!(store.get(&key(4), None).unwrap(), None);
    });
}

#[test]
fn a_segment_ends_where_the_last_that_was_begun_after_it_says() {
    let directory = tempfile::tempdir().unwrap();
    let mut written = Written::new(0);
    written.push(Shape::Value, 0, 1, 1, b"one");
    let first_end = written.bytes.len() as u32;
    written.push(Shape::Value, 0, 2, 2, b"two");
    let end = written.bytes.len() as u32;
    written.push(Shape::Value, 0, 3, 3, b"never acknowledged");
    written.save(directory.path());
    // The first attempt to begin one failed and left its header, the second one has lost it.
    for (segment, previous) in [(1, (0, first_end)), (2, (0, first_end)), (3, (0, end))] {
        let header = SegmentHeader { segment, salt: SALT, previous: Some(previous) };
        let mut bytes = format::encode_segment_header(&header);
        if segment == 2 {
            bytes.fill(0);
        }
        fs::write(self::segment(directory.path(), segment), bytes).unwrap();
    }
    in_store(directory.path(), |store| {
        assert_eq!(store.get(&key(1), None).unwrap().unwrap(), "one");
        assert_eq!(store.get(&key(2), None).unwrap().unwrap(), "two");
        assert_eq!(store.get(&key(3), None).unwrap(), None);
    });
}

#[test]
fn a_segment_of_another_version_is_refused_wherever_it_stands_and_left_as_it_is() {
    let directory = tempfile::tempdir().unwrap();
    in_store(directory.path(), |store| {
        (0..200).for_each(|n| drop(store.enqueue(&key(n), vec![n; 4000].into()).unwrap()));
    });
    let last = (0..).take_while(|n| segment(directory.path(), *n).exists()).last().unwrap();
    assert!(last > 1);
    let mut bytes = fs::read(segment(directory.path(), last)).unwrap();
    bytes[8] = 99;
    let crc = crc32c::crc32c(&bytes[..60]);
    bytes[60..64].copy_from_slice(&crc.to_le_bytes());
    fs::write(segment(directory.path(), last), &bytes).unwrap();
    let before: Vec<_> = fs::read_dir(directory.path()).unwrap().map(|f| f.unwrap().file_name()).collect();
    let path = directory.path().to_path_buf();
    let refused = reactor::run(move || DiskStore::open(config(&path)).err().unwrap().to_string());
    assert!(refused.contains("version 99"), "{refused}");
    assert_eq!(fs::read(segment(directory.path(), last)).unwrap(), bytes);
    let after: Vec<_> = fs::read_dir(directory.path()).unwrap().map(|f| f.unwrap().file_name()).collect();
    assert_eq!(before, after);
}

#[test]
fn records_of_a_later_version_are_kept_and_those_that_must_be_understood_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let mut written = Written::new(0);
    written.push(Shape::Value, 0, 1, 1, b"one");
    written.push(Shape::Other(99), 0b1110, 2, 2, b"what this may be, nobody knows yet");
    written.push(Shape::Value, 0, 3, 3, b"three");
    written.sync();
    written.push(Shape::Mark, 0, 0, 0, b"");
    written.save(directory.path());
    in_store(directory.path(), |store| {
        assert_eq!(store.damaged(), []);
        assert_eq!(store.get(&key(1), None).unwrap().unwrap(), "one");
        assert_eq!(store.get(&key(3), None).unwrap().unwrap(), "three");
        // All else in the segment dies; it stays.
        for n in [1, 3] {
            store.put(&key(n), Bytes::from("newer").into()).unwrap();
        }
        for n in 10..250 {
            (0..4).for_each(|_| drop(store.enqueue(&key(n), vec![n; 600].into()).unwrap()));
        }
        store.sync().unwrap();
        reactor::sleep(std::time::Duration::from_millis(200));
    });
    let kept = fs::read(segment(directory.path(), 0)).unwrap();
    assert!(kept.windows(6).any(|part| part == b"nobody"));

    let directory = tempfile::tempdir().unwrap();
    let mut written = Written::new(0);
    written.push(Shape::Value, 0b0001_0000, 1, 1, b"means something else");
    written.sync();
    written.push(Shape::Mark, 0, 0, 0, b"");
    written.save(directory.path());
    let path = directory.path().to_path_buf();
    let refused = reactor::run(move || DiskStore::open(config(&path)).err().unwrap());
    assert!(matches!(refused, StoreError::Unknown { .. }), "{refused}");
    assert_eq!(fs::read(segment(directory.path(), 0)).unwrap(), written.bytes);
}

#[test]
fn the_owner_of_a_value_is_known_through_reopening_and_compaction() {
    let directory = tempfile::tempdir().unwrap();
    let first = segment(directory.path(), 0);
    in_store(directory.path(), move |store| {
        let of = |owner| PutOptions { owner, ..PutOptions::default() };
        let _later = store.enqueue_with(&key(1), vec![1; 100].into(), of(0x00ab_cdef)).unwrap();
        for n in 10..250 {
            (0..4).for_each(|_| drop(store.enqueue_with(&key(n), vec![n; 600].into(), of(5)).unwrap()));
        }
        store.sync().unwrap();
        while first.exists() {
            reactor::sleep(std::time::Duration::from_millis(5));
        }
        assert_eq!((store.owner(&key(1)), store.owner(&key(9))), (Some(0x00ab_cdef), None));
    });
    in_store(directory.path(), |store| {
        assert_eq!((store.owner(&key(1)), store.owner(&key(20))), (Some(0x00ab_cdef), Some(5)));
    });
}

/// The newest segment loses its end, or is gone as a whole: what is left looks like a log that had ended there.
#[test]
fn a_store_that_lost_its_end_says_so_and_goes_on_saying_so_without_its_checkpoint() {
    let losses: [fn(&Path); 2] = [
        |path| {
            let newest = segment(path, newest(path));
            let length = fs::metadata(&newest).unwrap().len();
            fs::OpenOptions::new().write(true).open(newest).unwrap().set_len(length - 9_000).unwrap();
        },
        |path| fs::remove_file(segment(path, newest(path))).unwrap(),
    ];
    for lose in losses {
        let temporary = tempfile::tempdir().unwrap();
        let path = temporary.path();
        in_store(path, |store| {
            // Into a second segment.
            for n in 0..40 {
                store.put(&key(n), Bytes::from(vec![n; 8_000]).into()).unwrap();
            }
        });
        assert!(newest(path) > 0);
        lose(path);
        for start in 0..3 {
            // A power cut takes what was not synced.
            for number in 0..=newest(path) {
                let _ = fs::remove_file(path.join(format!("{number:08x}.index")));
            }
            let (is_told, is_suspect) = in_store(path, |store| {
                (
                    !store.recovery().damages.is_empty() || !store.damaged().is_empty(),
                    store.is_suspect(&key(39)),
                )
            });
            assert!(is_told && is_suspect, "start {start}");
        }
    }
}

fn newest(path: &Path) -> u32 {
    let names = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let numbers = names.filter_map(|name| u32::from_str_radix(name.strip_suffix(".segment")?, 16).ok());
    numbers.max().unwrap()
}
