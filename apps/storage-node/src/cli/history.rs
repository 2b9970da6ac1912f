//! The command line of all that concerns the drive's past.

use std::ffi::OsString;

use clap::Args;
use filesystem::volume::SnapshotPolicy;

use super::ClientOptions;

const SNAPSHOT_EXAMPLES: &str = "\
Examples:
  storage-node snapshot                          named by the time, in UTC: 2026-11-26T22.15.03Z
  storage-node snapshot before-the-move
  ls ./drive/.snapshots                          all of them, as directories; not listed by `ls -a ./drive`
  cp -a ./drive/.snapshots/before-the-move/notes ./drive/
  storage-node mount --at before-the-move ./then
  storage-node snapshot --delete before-the-move
  storage-node snapshot --keep 24h,7d,4w,12m     have them taken automatically, from now on, by mounted drives
  storage-node snapshot --policy                 say what is taken automatically
  storage-node snapshot --keep none              no more; those that there are stay

A snapshot is what the drive held at one moment, with all that was closed before, whichever mount it was written on (save what
a drive mounted with --write-back has in its journal only). It copies nothing and takes no space of its own; what is removed or
written over later stays on the nodes as long as a snapshot has it. When the command returns, it is on the nodes.

With --keep, the last snapshot of each of the newest 24 hours, 7 days, 4 weeks and 12 months that have one is kept. One is taken
in each hour (UTC; or in each day, if no hours are kept) in which the drive is mounted somewhere and has changed. Only those
are deleted again that were taken so: what you have taken stays until you delete it.

A space (`share`) is a volume of its own. A snapshot that you take or delete is taken or deleted under the same name in each space
that this home knows and may write, one after the other, and it is said which those are; a space shows its own in DIR/.snapshots.
What is taken automatically is for each to say: `snapshot --of DIR --keep 7d`.";

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
    /// Instead, have snapshots taken automatically, and keep so many of them: hours, days, weeks, months; `none` for no more
    #[arg(long, value_name = "POLICY", conflicts_with_all = ["name", "delete"], value_parser = kept)]
    pub(crate) keep: Option<Kept>,
    /// Only say what is taken automatically
    #[arg(long, conflicts_with_all = ["name", "delete", "keep"])]
    pub(crate) policy: bool,
    /// Of this space and nothing else: each has snapshots of its own, in its own .snapshots
    #[arg(long, value_name = "DIR")]
    pub(crate) of: Option<OsString>,
    #[command(flatten)]
    pub(crate) client: ClientOptions,
}

/// What is to be kept of the snapshots that are taken automatically.
#[derive(Debug, Clone)]
pub(crate) struct Kept(pub(crate) Option<SnapshotPolicy>);

fn kept(text: &str) -> Result<Kept, &'static str> {
    if text == "none" { Ok(Kept(None)) } else { Ok(Kept(Some(text.parse()?))) }
}

/// Options of `snapshots`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  storage-node snapshots\n  storage-node snapshots --of ./drive/band\n  storage-node snapshots --json | jq -r .snapshots[].name"
)]
pub(crate) struct Snapshots {
    /// Of this space
    #[arg(long, value_name = "DIR")]
    pub(crate) of: Option<OsString>,
    #[command(flatten)]
    pub(crate) client: ClientOptions,
    /// Print JSON for programs; the fields are only ever added to
    #[arg(long)]
    pub(crate) json: bool,
}

const DIFF_EXAMPLES: &str = "\
Examples:
  storage-node diff before-the-move now              what has changed since
  storage-node diff before-the-move now photos/2026  and lies in that directory
  storage-node diff 2026-11-25 2026-11-26            between the last snapshots of two days
  storage-node diff before-the-move now --json | jq -r '.changes[] | select(.change==\"removed\") | .before.path'

Each line is a path that differs: added, removed, renamed, changed (its content), or attributes (owner, mode, times, extended
attributes). It takes as long as there are changes, however large the drive is. `now` is what the nodes hold, with all that was
closed on a mounted drive. Spaces that this home knows are compared by their own snapshots of those names, or by those times; of one that
has none it is said that it was not.";

/// Options of `diff`.
#[derive(Debug, Args)]
#[command(after_help = DIFF_EXAMPLES)]
pub(crate) struct Diff {
    /// The earlier state: a snapshot's name, a time (see `mount --help`), or `now`
    #[arg(value_name = "A")]
    pub(crate) before: String,
    /// The later state, likewise
    #[arg(value_name = "B")]
    pub(crate) after: String,
    /// Only what lies in this directory, or is this file: a path within the drive
    #[arg(value_name = "DIR")]
    pub(crate) below: Option<OsString>,
    #[command(flatten)]
    pub(crate) client: ClientOptions,
    /// Print JSON for programs; the fields are only ever added to
    #[arg(long)]
    pub(crate) json: bool,
}

const HISTORY_EXAMPLES: &str = "\
Examples:
  storage-node history notes/today
  storage-node history notes/today --json
  storage-node get --at before-the-move notes/today   one of them
  storage-node restore --at before-the-move notes/today

Each line is a version: when the file was changed (UTC), its size, and the snapshots that have it. What was written over
before a snapshot was taken, nobody remembers.";

/// Options of `history`.
#[derive(Debug, Args)]
#[command(after_help = HISTORY_EXAMPLES)]
pub(crate) struct History {
    /// The file: a path within the drive, which need not be there any more
    #[arg(value_name = "FILE")]
    pub(crate) file: OsString,
    #[command(flatten)]
    pub(crate) client: ClientOptions,
    /// Print JSON for programs; the fields are only ever added to
    #[arg(long)]
    pub(crate) json: bool,
}

const RESTORE_EXAMPLES: &str = "\
Examples:
  storage-node restore notes/today                        removed, or spoilt: the newest snapshot that has it otherwise
  storage-node restore photos --at before-the-move        a directory, with all in it
  storage-node restore photos --at 3d --to photos-of-then beside what is there now

It comes back whole, in one step: content, modes, owners, times, extended attributes, links and holes. Nothing is copied, and
nothing written over: what is at its place is kept as `today (before restore, 2026-11-27 02.15.00)`, and programs that have it
open go on with that. To undo it, remove what came and rename that back. It is for a drive that is mounted, too: it is there
within a second. When the command returns, it is on the nodes.";

/// Options of `restore`.
#[derive(Debug, Args)]
#[command(after_help = RESTORE_EXAMPLES)]
pub(crate) struct Restore {
    /// What to bring back: a path within the drive, of a file or a directory
    #[arg(value_name = "PATH")]
    pub(crate) path: OsString,
    /// As it is in the snapshot of this name, or in the last one taken by this time (see `mount --help`) [default: the newest
    /// that has it, and has another content than the file that is there now]
    #[arg(long, value_name = "NAME|TIME")]
    pub(crate) at: Option<String>,
    /// Put it there instead: a path within the drive where nothing is yet
    #[arg(long, value_name = "PLACE")]
    pub(crate) to: Option<OsString>,
    #[command(flatten)]
    pub(crate) client: ClientOptions,
}

const UNDELETE_EXAMPLES: &str = "\
Examples:
  storage-node undelete notes/today
  storage-node undelete ./drive/photos --to photos-of-then

It looks for the newest state of the drive, or of the space that the path lies in, that has it: among the snapshots, and among what the
nodes have kept of the past within the retention, whether somebody took a snapshot or not. It says which state that is, and of when:
nodes keep the last of each thousandth of the retention, ten minutes of a week, and what came between is not had.
From a snapshot it comes as `restore` brings it; from the past its content is copied, and it is there under its name once all of it is.
A space that was removed whole comes back by `rollback DIR`.";

/// Options of `undelete`.
#[derive(Debug, Args)]
#[command(after_help = UNDELETE_EXAMPLES)]
pub(crate) struct Undelete {
    /// What was removed, a file or a directory: a path within the drive, or through the place where it is mounted
    #[arg(value_name = "PATH")]
    pub(crate) path: OsString,
    /// Put it there instead: a path where nothing is yet
    #[arg(long, value_name = "PLACE")]
    pub(crate) to: Option<OsString>,
    #[command(flatten)]
    pub(crate) client: ClientOptions,
}
