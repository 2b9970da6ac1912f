//! A process writes to a store as fast as it can and says on its standard output what has been acknowledged; it is
//! killed with SIGKILL at a random moment; the store is opened again. Nothing may be damaged, and what is there must be
//! exactly what some prefix of the operations makes that is no shorter than what was acknowledged.
//!
//! The child is this very test binary, told by an environment variable to be the writer. `HYPHA_SEED` replays the
//! sizes and the moments (not the kernel's scheduling).

use bytes::Bytes;
use dht::store::{Config, DiskStore, Key, Kind, Store};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

const DIRECTORY: &str = "HYPHA_TEST_STORE_TO_KILL";
const ROUNDS: u64 = 20;
const REGISTERS: u8 = 5;
/// More than are ever under way at once.
const BATCH_MAX: u64 = 20;

fn config(path: &Path) -> Config {
    let mut config = Config::new(path);
    // Many segments are sealed, compacted and deleted within a run.
    config.segment_size_bytes = 96 << 10;
    config.background_bytes_per_second = 1 << 30;
    config
}

/// The `n`-th operation: a new block, the removal of an older one, or a register overwritten again.
fn operation(n: u64) -> (Key, Option<Bytes>) {
    let mut rng = StdRng::seed_from_u64(n);
    let block = |n: u64| {
        let mut address = [0; 32];
        address[..8].copy_from_slice(&n.to_le_bytes());
        Key::new(Kind::BLOCK, address)
    };
    match n % 6 {
        // Most blocks go again, so that compaction has much to delete and something to copy.
        0 | 1 => (block(n.saturating_sub(rng.random_range(30..90)) / 6 * 6 + rng.random_range(4..6)), None),
        2 | 3 => (Key::new(Kind::REGISTER, [rng.random_range(0..REGISTERS); 32]), Some(value(n, 200))),
        _ => {
            let length = if rng.random_bool(0.1) { 70_000 } else { rng.random_range(0..5000) };
            (block(n), Some(value(n, length)))
        }
    }
}

fn value(n: u64, length: usize) -> Bytes {
    n.to_le_bytes().repeat(length / 8).into()
}

fn apply(model: &mut BTreeMap<Key, Bytes>, n: u64) {
    match operation(n) {
        (key, Some(value)) => model.insert(key, value),
        (key, None) => model.remove(&key),
    };
}

/// The child: writes from `first` on, several at a time, and prints the number of the last acknowledged write.
fn write_until_killed(path: PathBuf, first: u64) {
    reactor::run(move || {
        let store = DiskStore::open(config(&path)).unwrap();
        let mut rng = StdRng::seed_from_u64(first);
        let mut next = first;
        loop {
            let mut last = None;
            for _ in 0..rng.random_range(1..BATCH_MAX) {
                let ticket = match operation(next) {
                    (key, Some(value)) => store.enqueue(&key, value.into()),
                    (key, None) => store.enqueue_remove(&key),
                };
                last = Some(ticket.unwrap());
                next += 1;
            }
            last.unwrap().wait().unwrap();
            // One write call a line, so that no acknowledgement is torn.
            std::io::stdout().write_all(format!("\nacknowledged {}\n", next - 1).as_bytes()).unwrap();
        }
    });
}

/// Checks that the store holds what `0..n` make for some `n` of `acknowledged` or a little more, and returns that `n`.
fn check(path: PathBuf, acknowledged: u64) -> u64 {
    reactor::run(move || {
        let store = DiskStore::open(config(&path)).unwrap();
        assert_eq!(store.recovery().damages, [], "a killed process damages nothing");
        assert_eq!(store.damaged(), []);
        let keys = store.keys(&Key::first(Kind(0)), usize::MAX);
        let found: BTreeMap<Key, Bytes> =
            keys.into_iter().map(|key| (key, store.get(&key, None).unwrap().unwrap())).collect();
        store.close().unwrap();
        let mut model = BTreeMap::new();
        (0..acknowledged).for_each(|n| apply(&mut model, n));
        for n in acknowledged.. {
            if found == model {
                return n;
            }
            assert!(n < acknowledged + BATCH_MAX, "no prefix of the operations makes what is there");
            apply(&mut model, n);
        }
        unreachable!()
    })
}

#[test]
fn whatever_was_acknowledged_survives_sigkill() {
    if let Some(path) = std::env::var_os(DIRECTORY) {
        let first = std::env::var("HYPHA_TEST_FIRST").unwrap().parse().unwrap();
        return write_until_killed(path.into(), first);
    }
    let seed = std::env::var("HYPHA_SEED").ok().and_then(|text| text.parse().ok());
    let seed: u64 = seed.unwrap_or_else(|| u64::from_le_bytes(reactor::crypto::random_bytes()));
    eprintln!("HYPHA_SEED={seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let directory = tempfile::tempdir().unwrap();
    let mut count = 0;
    for round in 0..ROUNDS {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "whatever_was_acknowledged_survives_sigkill", "--nocapture"])
            .env(DIRECTORY, directory.path())
            .env("HYPHA_TEST_FIRST", count.to_string())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = child.stdout.take().unwrap();
        let reader = std::thread::spawn(move || {
            let lines = BufReader::new(output).lines().map_while(Result::ok);
            lines.filter_map(|line| line.strip_prefix("acknowledged ")?.parse::<u64>().ok()).last()
        });
        std::thread::sleep(Duration::from_micros(rng.random_range(1_000..150_000)));
        child.kill().unwrap();
        child.wait().unwrap();
        let acknowledged = reader.join().unwrap().map_or(count, |last| last + 1);
        let found = check(directory.path().to_path_buf(), acknowledged);
        eprintln!("round {round}: {acknowledged} acknowledged, {found} found");
        count = found;
    }
    assert!(count > 100, "the writer hardly got to write");
    let names = std::fs::read_dir(directory.path()).unwrap().map(|file| file.unwrap().file_name());
    let segments =
        names.filter_map(|name| name.to_string_lossy().strip_suffix(".segment").map(str::to_string));
    let (left, newest) =
        segments.fold((0, String::new()), |(left, newest), name| (left + 1, newest.max(name)));
    eprintln!("{left} segments are left, and the newest is number {newest} (hexadecimal)");
}
