//! The parts of `mounts_in_a_storm`: what its programs do, and what its mounts show.

mod programs;
pub(crate) mod tree;
