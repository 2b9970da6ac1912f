//! A process writes to a store as fast as it can and says on its standard output what has been acknowledged; it is
//! killed with SIGKILL at a random moment; the store is opened again. Everything acknowledged must be there, nothing
//! may be damaged, and what is there must be some prefix of the writes, since they are durable in order.
//!
//! The child is this very test binary, told by an environment variable to be the writer. `HYPHA_SEED` replays the
//! sizes and the moments (not the kernel's scheduling).

use dht::store::{Config, DiskStore, Key, Kind, Store};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use std::{
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

const DIRECTORY: &str = "HYPHA_TEST_STORE_TO_KILL";
const ROUNDS: u64 = 20;
const REGISTERS: u8 = 5;

fn config(path: &Path) -> Config {
    let mut config = Config::new(path);
    // Many segments are sealed, compacted and deleted within a run.
    config.segment_size_bytes = 256 << 10;
    config.background_bytes_per_second = 1 << 30;
    config
}

/// The `n`-th write: mostly a new block, at times a register, overwritten again and again.
fn write(n: u64) -> (Key, Vec<u8>) {
    let mut rng = StdRng::seed_from_u64(n);
    if n.is_multiple_of(3) {
        let mut value = n.to_le_bytes().to_vec();
        value.resize(200, n as u8);
        return (Key::new(Kind::REGISTER, [rng.random_range(0..REGISTERS); 32]), value);
    }
    let mut address = [0; 32];
    address[..8].copy_from_slice(&n.to_le_bytes());
    let length = if rng.random_bool(0.1) { 70_000 } else { rng.random_range(0..5000) };
    let value = n.to_le_bytes().repeat(length / 8);
    (Key::new(Kind::BLOCK, address), value)
}

/// The child: writes from `first` on, several at a time, and prints the number of the last acknowledged write.
fn write_until_killed(path: PathBuf, first: u64) {
    reactor::run(move || {
        let store = DiskStore::open(config(&path)).unwrap();
        let mut rng = StdRng::seed_from_u64(first);
        let mut next = first;
        loop {
            let mut last = None;
            for _ in 0..rng.random_range(1..20) {
                let (key, value) = write(next);
                last = Some(store.enqueue(&key, value.into()).unwrap());
                next += 1;
            }
            last.unwrap().wait().unwrap();
            // One write call a line, so that no acknowledgement is torn.
            std::io::stdout().write_all(format!("\nacknowledged {}\n", next - 1).as_bytes()).unwrap();
        }
    });
}

/// Checks the store against the writes of `0..` and returns how many of them it holds.
fn check(path: PathBuf, acknowledged: u64) -> u64 {
    reactor::run(move || {
        let store = DiskStore::open(config(&path)).unwrap();
        assert_eq!(store.recovery().damages, [], "a killed process damages nothing");
        assert_eq!(store.damaged(), []);
        let is_there = |n: u64| store.contains(&write(n).0);
        let mut count = acknowledged;
        while (count..count + 3).any(|n| !n.is_multiple_of(3) && is_there(n)) {
            count += 1;
        }
        let mut registers = [None; REGISTERS as usize];
        for n in 0..count {
            let (key, value) = write(n);
            if key.kind == Kind::REGISTER {
                registers[usize::from(key.address[0])] = Some(n);
            } else {
                assert_eq!(
                    store.get(&key, None).unwrap().as_deref(),
                    Some(&value[..]),
                    "write {n} of {acknowledged}"
                );
            }
        }
        for (register, newest) in registers.into_iter().enumerate() {
            let found = store.get(&Key::new(Kind::REGISTER, [register as u8; 32]), None).unwrap();
            let found = found.map(|value| u64::from_le_bytes(value[..8].try_into().unwrap()));
            // One more register may have been written behind the last block.
            assert!(
                found >= newest && found <= Some(count),
                "register {register}: {found:?}, expected {newest:?}"
            );
        }
        store.close().unwrap();
        count
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
}
