//! What blocks are, byte by byte, and how they are checked. Pure.
//!
//! - [`immutable`]: how a content-addressed block lies in the local store.
//! - [`mutable`]: what a register's value is and who vouches for it.

pub mod immutable;
pub mod mutable;
