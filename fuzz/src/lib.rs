//! Fuzz targets: one for each parser that bytes from outside reach.
//!
//! A target is a function of bytes that must return, whatever they are: no panic, no endless loop, no allocation
//! that a length field in the input decides. Each has *seeds*, valid inputs made by our own encoders, since random
//! bytes alone rarely get past the first check. Some also hold a round trip to account: what decodes must encode to
//! what decodes to the same.
//!
//! The bodies live here, so that two drivers share them: `tests/smoke.rs` on stable Rust with seeded mutations, and
//! `fuzz_targets/` under libFuzzer with coverage.

#![forbid(unsafe_code)]

pub mod mutation;
pub mod targets;

/// A parser to be fuzzed.
pub struct Target {
    /// Its name, also that of its file in `fuzz_targets/`.
    pub name: &'static str,
    /// Must return, whatever the bytes.
    pub body: fn(&[u8]),
    /// Valid inputs to begin from.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

/// Every target.
pub const TARGETS: &[Target] = targets::ALL;

/// Runs a target's body by its name; what the files in `fuzz_targets/` call.
///
/// # Panics
/// If there is no such target, or if the body found something.
pub fn run(name: &str, data: &[u8]) {
    let target = TARGETS.iter().find(|target| target.name == name);
    (target.unwrap_or_else(|| panic!("no target named {name}")).body)(data);
}
