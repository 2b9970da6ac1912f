//! Options of `pin`, `unpin` and `pins`.

use std::ffi::OsString;

use clap::Args;

use super::ClientOptions;

const PIN_EXAMPLES: &str = "\
Examples:
  storage-node pin photos/2026
  storage-node pin /             the whole drive

How much it takes is said first; what does not fit the cache (`mount --cache SIZE`) is refused. A running `mount` of this
home fetches what is pinned, keeps it current as others change it, and never lets go of it. Pins are this machine's.";

/// Options of `pin` and `unpin`.
#[derive(Debug, Args)]
#[command(after_help = PIN_EXAMPLES)]
pub(crate) struct PinOptions {
    /// A path within the drive
    #[arg(value_name = "PATH")]
    pub(crate) path: OsString,
    #[command(flatten)]
    pub(crate) client: ClientOptions,
}

/// Options of `pins`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  storage-node pins\n  storage-node pins --json | jq .pins[].is_complete")]
pub(crate) struct PinsOptions {
    #[command(flatten)]
    pub(crate) client: ClientOptions,
    /// Print JSON for programs; the fields are only ever added to
    #[arg(long)]
    pub(crate) json: bool,
}
