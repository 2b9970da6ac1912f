//! Agreement on one register's value among its members. Pure: no clocks, sockets or disks.
//!
//! Single-decree Paxos whose value is rewritten, after CASPaxos (Rystsov 2018): to change the value, a proposer
//! prepares a ballot, learns from a quorum the value accepted under the highest ballot, and has a quorum accept its
//! successor. Whatever a quorum accepted under one ballot is *chosen*; chosen values form one chain, because every
//! later proposer met one of that quorum first.
//!
//! **Who the members are changes by seal and install.** To move a register from one set of members to the next, a *seal*
//! of its last value, which names the next set, is chosen in the old epoch like any value. Whoever finds a seal proposes
//! it again and nothing else, so once it is chosen the old epoch chooses nothing else. Then the sealed value is given to
//! the next set as the first that it accepts ([`Ballot::first`]), and only when a quorum has it are the old members told.
//! Two movers can't part ways: what they begin is one value, the seal that was chosen.
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
mod model_client;
#[cfg(test)]
mod model_lists;
#[cfg(test)]
mod model_test;

pub use acceptor::{Accepted, Acceptor, Rejected, Value};
pub use ballot::{Ballot, ProposerId};
pub use proposer::{Accepting, Preparing, Proposer, Reading, Start, Verdict};
pub use quorum::{Quorum, Voters};
