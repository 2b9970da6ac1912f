//! Randomness that a printed seed replays.
//!
//! SplitMix64: a few lines, good enough to choose moments and bytes, and the same on every machine.

use std::time::{SystemTime, UNIX_EPOCH};

/// A generator of the numbers that follow from one seed.
pub struct Random(u64);

impl Random {
    /// Takes `HYPHA_SEED`, or a new seed, and prints it.
    pub fn announced(story: &str) -> Random {
        let seed = match std::env::var("HYPHA_SEED") {
            Ok(text) => text.parse().expect("HYPHA_SEED is a number"),
            Err(_) => SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64 % 1_000_000_007,
        };
        super::loud(&format!("{story}: HYPHA_SEED={seed}"));
        Random(seed)
    }

    /// The numbers that follow from `seed`.
    pub fn from_seed(seed: u64) -> Random {
        Random(seed)
    }

    /// The next number.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// One time in `n`.
    pub fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    /// This many bytes.
    pub fn bytes(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(length + 8);
        while bytes.len() < length {
            bytes.extend_from_slice(&self.next().to_le_bytes());
        }
        bytes.truncate(length);
        bytes
    }
}
