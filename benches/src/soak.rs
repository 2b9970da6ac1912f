//! A long run of mixed load with everything that goes wrong in one: `src/bin/soak.rs` in parts.
//!
//! [`servers`] listen in the same process, [`sessions`] is what clients do, [`fate`] is what befalls them, and
//! [`sample`] reads what must be flat when all is quiet again.
//!
//! The load is a number of workers, each a loop: a session of a random kind, as a coroutine of its own, which runs to
//! its end, is terminated, or is cut off by a timeout. Sessions on sockets leave in the middle, or with a reset, as
//! they like. Every byte that comes back is compared with what was sent; a difference ends the run with a panic.

pub mod fate;
pub mod sample;
pub mod servers;
pub mod sessions;
