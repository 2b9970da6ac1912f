//! What the simulated stories share: mounts of one volume on machines that crash, over a store that loses answers.

#![allow(dead_code, reason = "each story uses its part")]

pub(crate) mod collector;
pub(crate) mod contents;
pub(crate) mod history;
pub(crate) mod mount;
pub(crate) mod network;
pub(crate) mod pair;
pub(crate) mod store;
pub(crate) mod tree;

/// Worlds after which a long run says how far it is.
const WORLDS_A_LINE: u64 = 1000;

/// Returns the seeds that a story runs: as many as continuous integration has time for, or as the variable says.
pub(crate) fn seeds(usual: u64) -> impl Iterator<Item = u64> {
    let number = |name: &str| std::env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
    let (from, count) = (number("HYPHA_WORLDS_FROM").unwrap_or(0), number("HYPHA_WORLDS").unwrap_or(usual));
    (from..from + count).inspect(move |seed| {
        let done = seed - from;
        if done > 0 && done.is_multiple_of(WORLDS_A_LINE) {
            println!("{done} worlds, up to seed {seed}, are as they must be");
        }
    })
}
