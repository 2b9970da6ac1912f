//! Agreement on one register's value among the nodes that its genesis names. Pure: no clocks, sockets or disks.
//!
//! Single-decree Paxos whose value is rewritten, after CASPaxos (Rystsov 2018): to change the value, a proposer
//! prepares a ballot, learns from a quorum the value accepted under the highest ballot, and has a quorum accept its
//! successor. Whatever a quorum accepted under one ballot is *chosen*; chosen values form one chain, because every
//! later proposer met one of that quorum first.
//!
//! - [`ballot`]: what orders attempts.
//! - [`acceptor`]: what a node remembers and refuses.
//! - [`proposer`]: what a client may conclude from answers, for writes and for reads.
//! - [`quorum`]: who has answered.
//!
//! What is not here: the log of many decrees of Multi-Paxos. A register needs no history, hence no compaction, no
//! leader, and no election to wait for when a node dies.

pub mod acceptor;
pub mod ballot;
pub mod proposer;
pub mod quorum;

#[cfg(test)]
mod model;
#[cfg(test)]
mod model_test;

pub use acceptor::{Accepted, Acceptor, Rejected, Value};
pub use ballot::{Ballot, ProposerId};
pub use proposer::{Accepting, Preparing, Proposer, Reading, Start, Verdict};
pub use quorum::{Quorum, Voters};
