//! The targets, one file for each crate whose parsers they reach.

pub mod reactor;

use crate::Target;

/// Every target of every crate.
pub const ALL: &[Target] = &[reactor::SERIALIZATION, reactor::SEALED];
