//! The command line of all that concerns the drive's past.

use clap::Args;

use super::ClientOptions;

const SNAPSHOT_EXAMPLES: &str = "\
Examples:
  storage-node snapshot                          named by the time, in UTC: 2026-11-26T22.15.03Z
  storage-node snapshot before-the-move
  ls ./drive/.snapshots                          all of them, as directories; not listed by `ls -a ./drive`
  cp -a ./drive/.snapshots/before-the-move/notes ./drive/
  storage-node mount --at before-the-move ./then
  storage-node snapshot --delete before-the-move

A snapshot is what the drive held at one moment, with all that was closed before, whichever mount it was written on (save what
a drive mounted with --write-back has in its journal only). It copies nothing and takes no space of its own; what is removed or
written over later stays on the nodes as long as a snapshot has it. When the command returns, it is on the nodes.";

/// Options of `snapshot`.
#[derive(Debug, Args)]
#[command(after_help = SNAPSHOT_EXAMPLES)]
pub(crate) struct Snapshot {
    /// Its name [default: the time]
    #[arg(value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// Delete the snapshot of this name instead
    #[arg(long, value_name = "NAME", conflicts_with = "name")]
    pub(crate) delete: Option<String>,
    #[command(flatten)]
    pub(crate) client: ClientOptions,
}

/// Options of `snapshots`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  storage-node snapshots\n  storage-node snapshots --json | jq -r .snapshots[].name"
)]
pub(crate) struct Snapshots {
    #[command(flatten)]
    pub(crate) client: ClientOptions,
    /// Print JSON for programs; the fields are only ever added to
    #[arg(long)]
    pub(crate) json: bool,
}
