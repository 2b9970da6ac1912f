//! Random numbers from a seed that can be printed, and given again.

use std::cell::Cell;
use std::time::Duration;

/// A stream of random numbers (SplitMix64: Steele, Lea & Flood 2014).
pub struct Random(Cell<u64>);

impl Random {
    /// Returns the stream of `seed`; `stream` tells apart several that share it.
    pub fn new(seed: u64, stream: u64) -> Self {
        Self(Cell::new(mix(seed ^ mix(stream))))
    }

    /// Returns the next number.
    pub fn next(&self) -> u64 {
        let state = self.0.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        self.0.set(state);
        mix(state)
    }

    /// Returns a number below `end`, which is not 0.
    pub fn below(&self, end: u64) -> u64 {
        // The remainder's bias is one part in 2^64 / end: nothing here could notice.
        self.next() % end
    }

    /// Returns a time of up to `end_ms` milliseconds, in microseconds.
    pub fn time_below_ms(&self, end_ms: u64) -> Duration {
        Duration::from_micros(self.below(end_ms * 1_000))
    }

    /// Returns true once in `count` times.
    pub fn one_in(&self, count: u64) -> bool {
        self.below(count) == 0
    }
}

/// Spreads numbers evenly over all numbers.
pub fn mix(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_stream_again_and_another_one_does_not() {
        let draw = |seed, stream| {
            let random = Random::new(seed, stream);
            (0..10).map(|_| random.below(1_000)).collect::<Vec<_>>()
        };
        assert_eq!(draw(7, 1), draw(7, 1));
        assert_ne!(draw(7, 1), draw(8, 1));
        assert_ne!(draw(7, 1), draw(7, 2));
    }
}
