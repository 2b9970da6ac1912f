//! Random operations on the disk's store and on a `BTreeMap`, side by side: whatever is put, overwritten, removed,
//! compacted, closed and reopened, both must answer alike. `HYPHA_SEED` replays a run.

use bytes::Bytes;
use dht::store::{Config, DiskStore, Key, Kind, Store, Ticket};
use rand::{Rng, RngExt, SeedableRng, rngs::StdRng};
use std::{collections::BTreeMap, path::Path, time::Duration};

fn seed() -> u64 {
    let seed = std::env::var("HYPHA_SEED").ok().and_then(|text| text.parse().ok());
    let seed = seed.unwrap_or_else(|| u64::from_le_bytes(reactor::crypto::random_bytes()));
    eprintln!("HYPHA_SEED={seed}");
    seed
}

/// Small segments, so that a few hundred writes seal, compact and delete many.
fn config(path: &Path) -> Config {
    let mut config = Config::new(path);
    config.segment_size_bytes = 64 << 10;
    config.background_bytes_per_second = 1 << 30;
    config
}

fn key(rng: &mut StdRng) -> Key {
    let kind = if rng.random_bool(0.3) { Kind::REGISTER } else { Kind::BLOCK };
    Key::new(kind, [rng.random_range(0..60); 32])
}

fn value(rng: &mut StdRng) -> Bytes {
    let length = match rng.random_range(0..10) {
        0 => 0,
        1 => rng.random_range(0..70_000),
        2 => rng.random_range(16_000..17_000),
        _ => rng.random_range(1..600),
    };
    let mut value = vec![0; length];
    rng.fill_bytes(&mut value);
    value.into()
}

fn check(store: &DiskStore, model: &BTreeMap<Key, Bytes>) {
    let mut listed = Vec::new();
    let mut from = Some(Key::first(Kind(0)));
    while let Some(start) = from {
        let page = store.keys(&start, 7);
        from = page.last().and_then(Key::next);
        listed.extend(page);
    }
    assert_eq!(listed, model.keys().copied().collect::<Vec<_>>());
    for (key, value) in model {
        assert_eq!(store.get(key, None).unwrap().as_ref(), Some(value), "{key}");
        assert_eq!(store.length(key), Some(value.len() as u32));
    }
    assert!(store.damaged().is_empty());
}

fn run(seed: u64, path: &Path) {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut model = BTreeMap::new();
    let mut store = DiskStore::open(config(path)).unwrap();
    let mut last: Option<Ticket> = None;
    for step in 0..1500 {
        let key = key(&mut rng);
        match rng.random_range(0..100) {
            0..45 => {
                let value = value(&mut rng);
                last = Some(store.enqueue(&key, value.clone().into()).unwrap());
                model.insert(key, value);
            }
            45..60 => {
                last = Some(store.enqueue_remove(&key).unwrap());
                model.remove(&key);
            }
            60..75 => assert_eq!(store.get(&key, None).unwrap(), model.get(&key).cloned(), "step {step}"),
            75..90 => {
                let start = rng.random_range(0..70_000_u32);
                let range = start..rng.random_range(start..=start + 40_000);
                let expected = model.get(&key).map(|value| {
                    let end = (range.end as usize).min(value.len());
                    value.slice((range.start as usize).min(end)..end)
                });
                assert_eq!(store.get(&key, Some(range)).unwrap(), expected, "step {step}");
            }
            90..96 => last.take().map_or(Ok(()), |ticket| ticket.wait()).unwrap(),
            96..98 => reactor::sleep(Duration::from_millis(1)),
            98 => check(&store, &model),
            _ => {
                store.close().unwrap();
                store = DiskStore::open(config(path)).unwrap();
                assert!(store.recovery().damages.is_empty());
                check(&store, &model);
            }
        }
    }
    store.sync().unwrap();
    check(&store, &model);
    let report = store.scrub().unwrap();
    assert_eq!((report.count, report.damages.len()), (model.len() as u64, 0));
    let usage = store.usage();
    assert_eq!(usage.count, model.len() as u64);
    assert_eq!(usage.value_bytes, model.values().map(|value| value.len() as u64).sum::<u64>());
    store.close().unwrap();
}

#[test]
fn the_store_and_a_map_answer_alike_through_reopening_and_compaction() {
    let seed = seed();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().to_path_buf();
    reactor::run(move || (0..4).for_each(|n| run(seed.wrapping_add(n), &path.join(n.to_string()))));
}

#[test]
fn rewriting_small_registers_forever_takes_bounded_space() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().to_path_buf();
    reactor::run(move || {
        let store = DiskStore::open(config(&path)).unwrap();
        for round in 0..200_u32 {
            for register in 0..50 {
                let ticket =
                    store.enqueue(&Key::new(Kind::REGISTER, [register; 32]), vec![round as u8; 200].into());
                let _unwaited = ticket.unwrap();
            }
            store.sync().unwrap();
        }
        // 200 * 50 * 264 bytes were written, 2.6 MB; what holds is 13 KB.
        let mut disk_bytes = 0;
        for _ in 0..200 {
            disk_bytes = store.usage().disk_bytes;
            if disk_bytes < 256 << 10 {
                break;
            }
            reactor::sleep(Duration::from_millis(10));
        }
        assert!(disk_bytes < 256 << 10, "{disk_bytes} bytes");
        for register in 0..50 {
            let value = store.get(&Key::new(Kind::REGISTER, [register; 32]), None).unwrap();
            assert_eq!(value.unwrap(), vec![199; 200]);
        }
        store.close().unwrap();
    });
}

#[test]
fn a_value_that_has_left_memory_is_read_from_the_disk_while_others_go_on() {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let path = directory.path().to_path_buf();
    reactor::run(move || {
        let mut large = config(&path);
        large.segment_size_bytes = 64 << 20;
        let value: Bytes = (0..1_000_000_u32).flat_map(u32::to_le_bytes).take(1 << 20).collect();
        let keys: Vec<Key> = (0..20).map(|n| Key::new(Kind::BLOCK, [n; 32])).collect();
        let store = DiskStore::open(large).unwrap();
        keys.iter().for_each(|key| store.put(key, value.clone().into()).unwrap());
        let file = std::fs::File::open(path.join("00000000.segment")).unwrap();
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
        reactor::scope(|scope| {
            for key in &keys {
                let (store, value) = (&store, &value);
                scope.spawn(move || {
                    assert_eq!(
                        store.get(key, Some(700_001..750_003)).unwrap().unwrap(),
                        value[700_001..750_003]
                    );
                    assert_eq!(store.get(key, None).unwrap().unwrap(), value);
                });
            }
        });
        store.close().unwrap();
    });
}
