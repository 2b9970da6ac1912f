//! An encrypted POSIX file system over verified, replicated blocks.
//!
//! A volume is one copy-on-write B+tree whose nodes and file frames are immutable encrypted blocks, and one
//! compare-and-swap register that names the tree's root. [`Operations`] is what a mount calls.

#![forbid(unsafe_code)]

pub mod errno;
pub mod operations;

pub use errno::Errno;
pub use operations::{Attributes, Inode, Operations};
