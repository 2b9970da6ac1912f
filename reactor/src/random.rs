//! Randomness: the operating system's, or in a simulation ([`crate::sim`]) the world's, which its seed decides.
//!
//! What it is not: a generator for statistics. Every call asks the system.

use rustix::io::Errno;
use rustix::rand::{GetRandomFlags, getrandom};

use crate::sim;

/// Fills `bytes` with randomness fit for keys.
///
/// # Panics
///
/// If the operating system has no randomness to give. Nothing safe can be done without it, and a guess would be
/// worse than a stop.
///
/// # Suspends
///
/// Never.
pub fn fill(bytes: &mut [u8]) {
    if let Some(process) = sim::here() {
        process.world().fill_random(bytes);
    } else if let Err(error) = fill_from_system(bytes) {
        panic!("the operating system refused to give randomness: {error}");
    }
}

fn fill_from_system(mut bytes: &mut [u8]) -> Result<(), Errno> {
    while !bytes.is_empty() {
        // The system gives fewer than were asked for where a signal comes in between.
        match getrandom(&mut *bytes, GetRandomFlags::empty()) {
            Ok(count) => bytes = &mut bytes[count..],
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// A random number. As [`fill`].
pub fn number() -> u64 {
    let mut bytes = [0; 8];
    fill(&mut bytes);
    u64::from_le_bytes(bytes)
}

/// A random number from 0 up to and without `end`. As [`fill`].
///
/// # Panics
///
/// With an `end` of zero.
///
/// # Examples
///
/// ```
/// assert!(reactor::random::below(6) < 6);
/// ```
pub fn below(end: u64) -> u64 {
    assert!(end > 0, "there is no number below zero");
    // Uneven by less than one part in 2^64 / end (Lemire 2019, "Fast random integer generation in an interval",
    // without its rejection step): jitter and tie-breaking do not notice.
    ((u128::from(number()) * u128::from(end)) >> 64) as u64
}

/// A random fraction: at least 0, below 1. As [`fill`].
pub fn fraction() -> f64 {
    // 53 bits: what a double holds.
    (number() >> 11) as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_numbers_stay_below_their_end_and_reach_all_of_it() {
        let mut seen = [false; 6];
        for _ in 0..1000 {
            seen[below(6) as usize] = true;
            assert!((0.0..1.0).contains(&fraction()));
        }
        assert_eq!(seen, [true; 6]);
    }
}
