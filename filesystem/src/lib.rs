//! An encrypted POSIX file system over verified, replicated blocks.
//!
//! A volume is one copy-on-write B+tree whose nodes and file frames are immutable encrypted blocks, and one
//! compare-and-swap register that names the tree's root. [`Operations`] is what a mount calls.

#![forbid(unsafe_code)]

pub mod access;
mod cache;
pub mod calendar;
pub mod chunk;
pub mod disk_cache;
pub mod errno;
pub mod format;
pub mod fuse;
mod journal;
pub mod mount;
pub mod nowhere;
mod numbers;
pub mod operations;
pub mod owners;
pub mod past;
mod posix_acl;
mod silence;
pub mod spaces;
pub mod tree;
pub mod volume;

pub use access::VolumeKeys;
pub use disk_cache::{CachedStore, DiskCache};
pub use errno::Errno;
pub use journal::JournalError;
pub use operations::{Attributes, Inode, Operations};
pub use volume::{Ending, OpenError, Options, Pending, Volume};

/// A seed for a randomised test: the one in `HYPHA_SEED`, or a new one, printed so that it can be replayed.
#[cfg(test)]
fn seed_for_test() -> u64 {
    let seed = match std::env::var("HYPHA_SEED") {
        Ok(seed) => seed.parse().expect("HYPHA_SEED is a number"),
        Err(_) => reactor::random::number(),
    };
    println!("HYPHA_SEED={seed}");
    seed
}
