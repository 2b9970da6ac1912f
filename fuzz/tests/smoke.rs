//! Every target's body, on stable Rust, with random bytes and mutated seeds.
//!
//! `HYPHA_SEED` replays a run, `HYPHA_FUZZ_ROUNDS` sets its length. A panic shows the input in hexadecimal: make it a
//! test beside the parser.

use std::fmt::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use fuzz::mutation::{Random, mutate};
use fuzz::{TARGETS, Target};

/// Rounds per target; a few seconds each in a debug build.
const ROUNDS: u64 = 20_000;
/// Where a parser is slow (signatures), fewer rounds will do.
const TIME_LIMIT: Duration = Duration::from_secs(8);
/// A single input that takes longer has found a loop that its length does not bound, however busy the machine is.
const INPUT_TIME_LIMIT: Duration = Duration::from_secs(20);

#[test]
fn no_input_panics_or_hangs_any_parser() {
    let seed = number("HYPHA_SEED").unwrap_or_else(|| {
        SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64 % 1_000_000_007
    });
    println!("HYPHA_SEED={seed}");
    for target in TARGETS {
        let rounds = smoke(target, seed);
        println!("{}: {rounds} inputs", target.name);
    }
}

#[test]
fn every_target_takes_its_own_seeds() {
    for target in TARGETS {
        let seeds = (target.seeds)();
        assert!(!seeds.is_empty(), "{} has no seeds", target.name);
        for seed in &seeds {
            (target.body)(seed);
        }
    }
}

#[test]
fn every_target_has_a_file_for_libfuzzer() {
    for target in TARGETS {
        let path = format!("{}/fuzz_targets/{}.rs", env!("CARGO_MANIFEST_DIR"), target.name);
        let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
        assert!(text.contains(&format!("{:?}", target.name)), "{path} runs another target");
    }
}

fn smoke(target: &Target, seed: u64) -> u64 {
    let seeds = (target.seeds)();
    let mut random = Random(seed);
    let started = Instant::now();
    let rounds = number("HYPHA_FUZZ_ROUNDS").unwrap_or(ROUNDS);
    for round in 0..rounds {
        if started.elapsed() > TIME_LIMIT {
            return round;
        }
        let input = if round % 8 == 0 {
            let length = random.below(300);
            random.bytes(length)
        } else {
            let mut input = seeds[random.below(seeds.len())].clone();
            mutate(&mut input, &seeds[random.below(seeds.len())], &mut random);
            input
        };
        let began = Instant::now();
        if catch_unwind(AssertUnwindSafe(|| (target.body)(&input))).is_err() {
            panic!("{} panics with HYPHA_SEED={seed}, input {}", target.name, hexadecimal(&input));
        }
        assert!(
            began.elapsed() < INPUT_TIME_LIMIT,
            "{} took {:?} with HYPHA_SEED={seed}, input {}",
            target.name,
            began.elapsed(),
            hexadecimal(&input)
        );
    }
    rounds
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{variable} is a number")))
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
