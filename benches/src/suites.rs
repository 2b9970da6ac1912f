//! Suites of tests that others wrote, run on a drive and on the local file system beside it: `src/bin/suites.rs` in parts.
//!
//! [`suite`] knows which there are, how each is called, and how its outcome is read; [`inventory`] tells whether what a
//! suite left behind is the same after a remount.
//!
//! A case that fails on the local file system as well says something of the suite, or of this machine, and nothing of us.
//! What a suite skips it says why; what we leave out stands in [`suite`], with the reason.

pub mod inventory;
pub mod suite;
