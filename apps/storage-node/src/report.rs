//! What a node says about itself, and the method by which others ask.
//!
//! One RPC method beside the overlay's and the DHT's, so that `status` sees just what a peer may see, over the same
//! connections and behind the same passports.

use std::fmt;

use reactor::rpc::Method;
use serde::{Deserialize, Serialize};

/// A node's account of itself.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Report {
    /// The program's version.
    pub(crate) version: String,
    /// Its process.
    pub(crate) process: u32,
    /// How long it has been up.
    pub(crate) uptime_s: u64,
    /// How many blocks and registers its store has.
    pub(crate) blocks: u64,
    /// What they take on its disk.
    pub(crate) used_bytes: u64,
    /// What its disk has in all.
    pub(crate) total_bytes: u64,
    /// How many nodes and clients are connected to it.
    pub(crate) peers: u32,
}

/// Asks a node for its [`Report`].
pub(crate) struct ReportMethod;

/// Why there is no report.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ReportRefused(pub(crate) String);

impl fmt::Display for ReportRefused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Method for ReportMethod {
    /// 0x0100 is the overlay's hundred, 0x0200 the DHT's; applications begin here.
    const ID: u32 = 0x0300;
    const NAME: &'static str = "report";
    type Request = ();
    type Response = Report;
    type Error = ReportRefused;
}
