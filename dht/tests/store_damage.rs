//! What bit rot, torn writes and lost files do to a store on disk: the damaged value is told of and everything else
//! is served; putting the value again heals it.

use bytes::Bytes;
use dht::store::{Config, DiskStore, Key, Kind, Store, StoreError};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use std::{
    fs,
    path::{Path, PathBuf},
};

fn key(n: u16) -> Key {
    let mut address = [0; 32];
    address[..2].copy_from_slice(&n.to_be_bytes());
    Key::new(Kind::BLOCK, address)
}

fn value(n: u16) -> Bytes {
    vec![n as u8; 100 + usize::from(n) * 37].into()
}

fn config(path: &Path) -> Config {
    let mut config = Config::new(path);
    config.segment_size_bytes = 128 << 10;
    config
}

/// A closed store with `count` values: some sealed segments and an active one.
fn filled(path: &Path, count: u16) {
    let path = path.to_path_buf();
    reactor::run(move || {
        let store = DiskStore::open(config(&path)).unwrap();
        (0..count).for_each(|n| drop(store.enqueue(&key(n), value(n).into()).unwrap()));
        store.close().unwrap();
    });
}

fn files(path: &Path, extension: &str) -> Vec<PathBuf> {
    let all = fs::read_dir(path).unwrap().map(|file| file.unwrap().path());
    let mut some: Vec<_> =
        all.filter(|path| path.extension().is_some_and(|found| found == extension)).collect();
    some.sort();
    some
}

/// Opens the store and returns the values that are intact, checking that the others are reported.
fn survivors(path: &Path, count: u16) -> Vec<u16> {
    let path = path.to_path_buf();
    reactor::run(move || {
        let store = DiskStore::open(config(&path)).unwrap();
        let mut intact = Vec::new();
        for n in 0..count {
            match store.get(&key(n), None) {
                Ok(Some(found)) => {
                    assert_eq!(found, value(n));
                    intact.push(n);
                }
                Ok(None) => panic!("{n} is silently gone"),
                Err(StoreError::Damaged(damage)) => {
                    assert_eq!(damage.key, Some(key(n)));
                    assert!(store.damaged().contains(&damage) && !store.contains(&key(n)));
                    store.put(&key(n), value(n).into()).unwrap();
                    assert_eq!(store.get(&key(n), None).unwrap().unwrap(), value(n), "healed");
                }
                Err(error) => panic!("{error}"),
            }
        }
        assert_eq!(store.damaged(), []);
        store.close().unwrap();
        intact
    })
}

#[test]
fn one_flipped_bit_anywhere_costs_at_most_one_value_and_is_told() {
    let seed = std::env::var("HYPHA_SEED").ok().and_then(|text| text.parse().ok());
    let seed: u64 = seed.unwrap_or_else(|| u64::from_le_bytes(reactor::crypto::random_bytes()));
    eprintln!("HYPHA_SEED={seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let original = tempfile::tempdir().unwrap();
    filled(original.path(), 100);
    for round in 0..60 {
        let directory = tempfile::tempdir().unwrap();
        for file in fs::read_dir(original.path()).unwrap() {
            let file = file.unwrap().path();
            fs::copy(&file, directory.path().join(file.file_name().unwrap())).unwrap();
        }
        let kind = if rng.random_bool(0.9) { "segment" } else { "index" };
        let files = files(directory.path(), kind);
        let file = &files[rng.random_range(0..files.len())];
        let mut bytes = fs::read(file).unwrap();
        let bit = rng.random_range(0..bytes.len() * 8);
        bytes[bit / 8] ^= 1 << (bit % 8);
        fs::write(file, bytes).unwrap();
        let intact = survivors(directory.path(), 100);
        assert!(
            intact.len() >= 99,
            "round {round}: bit {bit} of {}: {} intact",
            file.display(),
            intact.len()
        );
        assert_eq!(survivors(directory.path(), 100).len(), 100, "healed for good");
    }
}

#[test]
fn lost_checkpoints_are_made_again() {
    let directory = tempfile::tempdir().unwrap();
    filled(directory.path(), 200);
    let checkpoints = files(directory.path(), "index");
    assert!(checkpoints.len() > 3);
    checkpoints.iter().for_each(|path| fs::remove_file(path).unwrap());
    assert_eq!(survivors(directory.path(), 200).len(), 200);
    assert_eq!(files(directory.path(), "index"), checkpoints);
}

#[test]
fn a_torn_tail_is_cut_off_wherever_it_is_torn() {
    let original = tempfile::tempdir().unwrap();
    filled(original.path(), 8);
    let segment = files(original.path(), "segment").pop().unwrap();
    let bytes = fs::read(&segment).unwrap();
    for garbage in [0, 1, 63, 64, 65, 5000] {
        let directory = tempfile::tempdir().unwrap();
        let mut torn = bytes.clone();
        torn.extend((0..garbage).map(|n: u32| (n.wrapping_mul(2_654_435_761) >> 9) as u8));
        fs::write(directory.path().join(segment.file_name().unwrap()), torn).unwrap();
        assert_eq!(survivors(directory.path(), 8).len(), 8, "{garbage} bytes of garbage");
        filled(directory.path(), 9);
        assert_eq!(survivors(directory.path(), 9).len(), 9, "writing goes on behind it");
    }
}

#[test]
fn damage_in_a_sealed_segment_is_found_by_scrubbing_and_outlives_compaction() {
    let directory = tempfile::tempdir().unwrap();
    filled(directory.path(), 100);
    let segment = files(directory.path(), "segment").remove(0);
    let mut bytes = fs::read(&segment).unwrap();
    bytes[64 + 64 + 10] ^= 1;
    fs::write(&segment, bytes).unwrap();
    let path = directory.path().to_path_buf();
    let gone = segment.clone();
    reactor::run(move || {
        let store = DiskStore::open(config(&path)).unwrap();
        assert_eq!(store.damaged(), [], "a checkpoint says nothing about values");
        let report = store.scrub().unwrap();
        assert_eq!(report.count, 100);
        assert_eq!(report.damages.iter().map(|damage| damage.key).collect::<Vec<_>>(), [Some(key(0))]);
        // An older value must not come back, so the news of the damage is kept when the segment goes.
        for n in 1..95 {
            let _unwaited = store.enqueue(&key(n), value(n).into()).unwrap();
        }
        store.sync().unwrap();
        while gone.exists() {
            reactor::sleep(std::time::Duration::from_millis(5));
        }
        assert!(matches!(store.get(&key(0), None), Err(StoreError::Damaged(_))));
        store.close().unwrap();
    });
    assert_eq!(survivors(directory.path(), 100).len(), 99);
}

#[test]
fn a_directory_that_is_no_store_of_ours_is_refused_with_a_reason() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("00000000.segment"), vec![0xAA; 500]).unwrap();
    let path = directory.path().to_path_buf();
    let refused = reactor::run(move || DiskStore::open(config(&path)).err().unwrap().to_string());
    assert!(refused.contains("00000000.segment") && refused.contains("damaged"), "{refused}");
    assert!(directory.path().join("00000000.segment").exists(), "nothing is thrown away");
}

#[test]
fn a_second_opener_is_told_who_has_the_store() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().to_path_buf();
    reactor::run(move || {
        let store = DiskStore::open(config(&path)).unwrap();
        let refused = DiskStore::open(config(&path)).err().unwrap();
        assert!(matches!(refused, StoreError::Locked { .. }));
        store.put(&key(1), value(1).into()).unwrap();
        store.close().unwrap();
        store.close().unwrap();
        assert!(matches!(store.put(&key(1), value(1).into()), Err(StoreError::Closed)));
        assert!(matches!(store.get(&key(1), None), Err(StoreError::Closed)));
        let again = DiskStore::open(config(&path)).unwrap();
        assert_eq!(again.get(&key(1), None).unwrap().unwrap(), value(1));
        again.close().unwrap();
    });
}
