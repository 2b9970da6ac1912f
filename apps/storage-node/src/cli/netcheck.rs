//! The options of `netcheck`.

use clap::Args;

use super::{ClientOptions, MappingOption};

const NETCHECK_EXAMPLES: &str = "\
Examples:
  storage-node netcheck                        what this machine's network lets through, and how each node is reached
  storage-node netcheck --to 3f2a9c1b          one node only, by its number or the first 8 or more digits of its id
  storage-node netcheck --json | jq '.nodes[] | {id, reached, first_reply_ms}'

A node that can be dialled is reached directly. One behind a router is reached over a relay of the network at once, and
through its router as soon as both routers let that be, which this waits for some seconds.";

/// Options of `netcheck`.
#[derive(Debug, Args)]
#[command(after_help = NETCHECK_EXAMPLES)]
pub(crate) struct Netcheck {
    #[command(flatten)]
    pub(crate) client: ClientOptions,
    #[command(flatten)]
    pub(crate) mapping: MappingOption,
    /// Only this node: its number, or the first 8 or more digits of its id
    #[arg(long, value_name = "NODE")]
    pub(crate) to: Option<String>,
    /// How many seconds a direct way is looked for
    #[arg(long, value_name = "SECONDS", default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=60))]
    pub(crate) seconds: u16,
    /// Print JSON for programs; the fields are only ever added to
    #[arg(long)]
    pub(crate) json: bool,
}
