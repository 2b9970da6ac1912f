//! Removing or truncating a file whose leaves fit no cache ends, takes work in proportion to its size, and never shows
//! an old byte: not before the keys are gone, not after a crash in the middle, not at another mount.

mod common;

use std::cell::Cell;
use std::ops::Range;
use std::rc::Rc;

use bytes::Bytes;
use common::*;
use dht::{
    Address, BlockStore, GetError, HeaderHash, OwnerTag, PutError, ReadError, Record, RegisterAddress,
    SwapError, Usage,
};
use filesystem::operations::{AllocateMode, SetAttributes, Whence};
use filesystem::{Errno, Inode, Operations, Options, Volume};

const FRAME: u64 = 32 * 1024;
/// As many frames as a file of 250 MiB has; each holds little, so that the test is quick.
const FRAME_COUNT: u64 = 8000;

fn small(author: &str) -> Options {
    let mut options = options(author);
    options.cache_bytes = 512 * 1024;
    options.sync_patience = std::time::Duration::from_secs(60);
    options
}

fn open_small(store: &Rc<TestStore>, author: &str) -> Rc<Volume> {
    Volume::open(store.clone(), keys(store), small(author)).expect("the volume opens")
}

/// A volume with a file of many frames, closed.
fn large_file(store: &Rc<TestStore>) -> Inode {
    let volume = create(store);
    let file = make_file(&volume, ROOT, "large").inode;
    for index in 0..FRAME_COUNT {
        volume.write(file, index * FRAME, &[7; 100], false).unwrap();
    }
    volume.close().stored().unwrap();
    file
}

fn size(size: u64) -> SetAttributes {
    SetAttributes { size: Some(size), ..SetAttributes::default() }
}

fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    for _ in 0..20_000 {
        if done() {
            return;
        }
        reactor::sleep(std::time::Duration::from_millis(1));
    }
    panic!("{what}: not in twenty seconds");
}

/// How often the store is asked while `operation` runs and until the file holds `blocks`.
fn gets_until(store: &TestStore, volume: &Volume, file: Inode, blocks: u64, operation: impl FnOnce()) -> u64 {
    let before = store.gets.get();
    operation();
    eventually("the frames go", || frames_of(volume, file) == blocks);
    store.gets.get() - before
}

/// Frames that the file's record counts: its size is made large enough that `blocks_512` shows them all.
fn frames_of(volume: &Volume, file: Inode) -> u64 {
    volume.attributes(file).unwrap().blocks_512 / (FRAME / 512)
}

#[test]
fn truncating_a_cold_file_fetches_each_leaf_about_once() {
    reactor::run(|| {
        let store = TestStore::new();
        let file = large_file(&store);
        let volume = open_small(&store, "second");
        let gets = gets_until(&store, &volume, file, 0, || {
            volume.set_attributes(file, &size(0)).unwrap();
            assert_eq!(volume.read(file, 0, 100).unwrap().len(), 0);
            // Grown again while the old frames' keys are still there.
            volume.set_attributes(file, &size(FRAME_COUNT * FRAME)).unwrap();
            for index in [0, 1, 511, 512, 4000, FRAME_COUNT - 1] {
                let bytes = volume.read(file, index * FRAME, 200).unwrap().concat();
                assert!(bytes.iter().all(|byte| *byte == 0), "frame {index} shows an old byte");
            }
            assert_eq!(volume.seek(file, 0, Whence::Data), Err(Errno::ENXIO));
            assert_eq!(volume.seek(file, 5, Whence::Hole), Ok(5));
        });
        // Some 60 to 100 keys to a leaf; a leaf may be fetched by two steps, and the nodes above it with it.
        assert!(gets < FRAME_COUNT / 60 * 4, "{gets} fetches for {FRAME_COUNT} frames");
        volume.sync(None, false).unwrap();
        volume.close().stored().unwrap();
        let volume = open_small(&store, "third");
        assert_eq!(frames_of(&volume, file), 0);
        for index in (0..FRAME_COUNT).step_by(97) {
            assert_eq!(volume.read(file, index * FRAME, 120).unwrap().concat(), [0; 120], "frame {index}");
        }
        volume.close().stored().unwrap();
    });
}

#[test]
fn what_is_written_into_a_part_that_is_being_removed_stays() {
    reactor::run(|| {
        let store = TestStore::new();
        let file = large_file(&store);
        let volume = open_small(&store, "second");
        volume.set_attributes(file, &size(50)).unwrap();
        // From the front, as after O_TRUNC; then in the midst; then another cut behind it and one before it.
        volume.write(file, FRAME - 10, &[1; 20], false).unwrap();
        volume.write(file, 3000 * FRAME + 5, &[2; 10], false).unwrap();
        volume.write(file, 6000 * FRAME, &[3; 100], false).unwrap();
        volume.set_attributes(file, &size(6000 * FRAME + 50)).unwrap();
        volume.set_attributes(file, &size(FRAME_COUNT * FRAME)).unwrap();
        volume.sync(None, false).unwrap();
        for volume in [volume, open_small(&store, "third")] {
            let at = |offset: u64, size: u32| volume.read(file, offset, size).unwrap().concat();
            assert_eq!(at(0, 60), [[7; 50].as_slice(), &[0; 10]].concat());
            assert_eq!(at(FRAME - 11, 22), [[0; 1].as_slice(), &[1; 20], &[0; 1]].concat());
            assert_eq!(at(3000 * FRAME + 4, 12), [[0; 1].as_slice(), &[2; 10], &[0; 1]].concat());
            assert_eq!(at(6000 * FRAME, 60), [[3; 50].as_slice(), &[0; 10]].concat());
            for index in [2, 2999, 3001, 5999, 6001, FRAME_COUNT - 1] {
                assert_eq!(at(index * FRAME, 100), [0; 100], "frame {index}");
            }
            eventually("the dead frames go", || frames_of(&volume, file) == 4);
            volume.close().stored().unwrap();
        }
    });
}

/// A mount's way to the store, which a crash cuts.
struct Line {
    store: Rc<TestStore>,
    is_cut: Cell<bool>,
}

impl BlockStore for Line {
    fn tag(&self) -> OwnerTag {
        self.store.tag()
    }

    fn put(&self, content: Bytes) -> Result<Address, PutError> {
        match self.is_cut.get() {
            true => Err(PutError::NoQuorum { durable: 0, needed: 1, reason: "cut".into() }),
            false => self.store.put(content),
        }
    }

    fn get(&self, address: &Address, range: Option<Range<u32>>) -> Result<Bytes, GetError> {
        self.store.get(address, range)
    }

    fn read(&self, register: &RegisterAddress) -> Result<Option<Record>, ReadError> {
        self.store.read(register)
    }

    fn compare_and_swap(
        &self,
        register: &RegisterAddress,
        expected: Option<HeaderHash>,
        payload: Bytes,
    ) -> Result<Record, SwapError> {
        match self.is_cut.get() {
            true => Err(SwapError::Unknown { reason: "cut".into() }),
            false => self.store.compare_and_swap(register, expected, payload),
        }
    }

    fn usage(&self) -> Result<Usage, ReadError> {
        self.store.usage()
    }
}

#[test]
fn a_crash_in_the_middle_of_a_removal_is_made_good_by_the_next_mount() {
    reactor::run(|| {
        let store = TestStore::new();
        let file = large_file(&store);
        let line = Rc::new(Line { store: store.clone(), is_cut: Cell::new(false) });
        let crashed = Volume::open(line.clone(), keys(&store), small("second")).unwrap();
        crashed.set_attributes(file, &size(0)).unwrap();
        crashed.set_attributes(file, &size(FRAME_COUNT * FRAME)).unwrap();
        crashed.sync(None, false).unwrap();
        line.is_cut.set(true);
        assert!(frames_of(&crashed, file) > 0, "the removal must be under way, or this test means nothing");

        let volume = open_small(&store, "third");
        assert_eq!(volume.read(file, 100 * FRAME, 50).unwrap().concat(), [0; 50]);
        assert_eq!(volume.read(file, (FRAME_COUNT - 1) * FRAME, 50).unwrap().concat(), [0; 50]);
        eventually("the rest goes", || frames_of(&volume, file) == 0);
        volume.close().stored().unwrap();
    });
}

#[test]
fn a_large_hole_is_punched_in_steps_and_its_edges_stay() {
    reactor::run(|| {
        let store = TestStore::new();
        let file = large_file(&store);
        let volume = open_small(&store, "second");
        let mode =
            AllocateMode { keep_size: true, punch_hole: true, zero_range: false, clear_set_ids: false };
        let (from, end) = (10 * FRAME + 50, 7000 * FRAME + 50);
        volume.allocate(file, mode, from, end - from).unwrap();
        let at = |offset: u64| volume.read(file, offset, 100).unwrap().concat();
        let (head, tail) = ([[7; 50], [0; 50]].concat(), [[0; 50], [7; 50]].concat());
        let check = || {
            assert_eq!((at(10 * FRAME), at(7000 * FRAME)), (head.clone(), tail.clone()));
            assert_eq!((at(9 * FRAME), at(7001 * FRAME)), (vec![7; 100], vec![7; 100]));
            assert!([11, 600, 3500, 6999].iter().all(|index| at(index * FRAME) == [0; 100]));
            assert_eq!(volume.seek(file, 11 * FRAME, Whence::Data), Ok(7000 * FRAME));
            assert_eq!(volume.seek(file, 0, Whence::Hole), Ok(11 * FRAME));
            assert_eq!(
                volume.seek(file, 7000 * FRAME, Whence::Hole),
                Ok(volume.attributes(file).unwrap().size)
            );
        };
        check();
        eventually("the frames go", || frames_of(&volume, file) == 11 + 1000);
        check();
        volume.close().stored().unwrap();
    });
}

#[test]
fn a_removed_file_goes_whole_and_closing_does_not_wait_for_it() {
    reactor::run(|| {
        let store = TestStore::new();
        let file = large_file(&store);
        let volume = open_small(&store, "second");
        volume.lookup(ROOT, b"large").unwrap();
        volume.remember(file);
        volume.unlink(ROOT, b"large").unwrap();
        assert_eq!(volume.read(file, 5000 * FRAME, 50).unwrap().concat(), [7; 50]);
        let before = store.gets.get();
        volume.forget(file, 1);
        eventually("it goes", || volume.attributes(file) == Err(Errno::ENOENT));
        let gets = store.gets.get() - before;
        assert!(gets < FRAME_COUNT / 60 * 4, "{gets} fetches for {FRAME_COUNT} frames");
        volume.close().stored().unwrap();
        let volume = open(&store, "third");
        assert_eq!(volume.attributes(file), Err(Errno::ENOENT));
        volume.close().stored().unwrap();
    });
}
