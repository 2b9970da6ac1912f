//! What the simulated stories share: mounts of one volume on machines that crash, over a store that loses answers.

#![allow(dead_code, reason = "each story uses its part")]

pub(crate) mod contents;
pub(crate) mod history;
pub(crate) mod mount;
pub(crate) mod network;
pub(crate) mod store;
pub(crate) mod tree;

/// Returns how many worlds a story runs: a number that continuous integration has time for, or what the variable says.
pub(crate) fn seeds(usual: u64) -> std::ops::Range<u64> {
    let number = |name: &str| std::env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
    let from = number("HYPHA_WORLDS_FROM").unwrap_or(0);
    from..from + number("HYPHA_WORLDS").unwrap_or(usual)
}
