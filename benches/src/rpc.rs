//! The same calls over several RPC systems: `src/bin/rpc.rs` in parts.
//!
//! [`ours`] is our server and our caller, [`contenders`] knows who takes part and runs a round of each, [`report`]
//! prints. The peers speak as we do (`peers/rpc/src/lib.rs`): a caller prints a line when it is warm and another when
//! its time is over, and at each the server's processor time is read.
//!
//! The rule of fairness: an echo of bytes, one connection with `TCP_NODELAY`, one thread on each side (gRPC's C++
//! library starts its own, on the same processor), the caller on another processor than the server.

pub mod contenders;
pub mod ours;
pub mod report;
