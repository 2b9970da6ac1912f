//! The command line of directories with a list of their own.

use std::ffi::OsString;

use clap::Args;

use super::ClientOptions;

const SHARE_EXAMPLES: &str = "\
Examples:
  storage-node share ./drive/accounts                          nobody but you reads it
  storage-node share ./drive/band --write ann@laptop --read bob@desk
  storage-node share ./drive/photos --read family              whoever is in a group (`group`)
  storage-node share ./drive/band --read 3f2a9c                said again, it adds to the list, or changes what somebody may do
  storage-node access ./drive/band

The directory becomes a space: a volume of its own, with keys of its own, that shows in the drive where it was put. Everybody who
sees the drive sees its name; who is not on its list gets `permission denied` in it, and the nodes take nothing from those who may
not write. It must be new: what is to be in it is moved there afterwards. To programs it is another file system: what is
moved into it is copied, and its own name can't be changed or removed (`unshare DIR --remove` does that). Mounts that run show it within seconds, and who may write from
then on writes; who is let in again after he was taken off has it so from when he mounts the drive anew.

A space keeps what is in it from those who only read the drive. A writer of the drive can take the directory away or put another
in its place: he then reads what you put there afterwards; `share DIR --put-back` puts the space back. A writer of a space can seal it to
others than you: they read and write it as long as you do nothing. `unshare DIR --from WHO` and `rollback DIR` bring back what it was
within the retention, without them. If the nodes keep nothing of that, taking them off (`unshare --give-up`) makes it unreadable for
everybody. So let those write whom you trust.

A space has snapshots of its own, in DIR/.snapshots: `snapshot` takes one of the drive and of each space that this home knows and may
write, and `history`, `diff`, `restore`, `put` and `get` work in the space that their path leads into. `rm -r` of a directory above
goes into spaces. What has a space in it can't be brought back by `restore` as a whole. What is removed in one stays on the nodes until `gc` of the home that made the network deletes it.";

/// Options of `share`.
#[derive(Debug, Args)]
#[command(after_help = SHARE_EXAMPLES)]
pub(crate) struct Share {
    /// A directory to make, or one that is a space already; within the drive, or through the place where it is mounted
    #[arg(value_name = "DIR")]
    pub(crate) path: OsString,
    /// Who may read it: a name, or the first digits of an id, as `members` shows them, or a group (`group list`); may be given several
    /// times
    #[arg(long, value_name = "WHO")]
    pub(crate) read: Vec<String>,
    /// Who may read and write it
    #[arg(long, value_name = "WHO")]
    pub(crate) write: Vec<String>,
    /// The space lies elsewhere than where it was put, because you moved a directory above it
    #[arg(long)]
    pub(crate) moved: bool,
    /// Somebody took its name away: put it there again, with what is in it
    #[arg(long, conflicts_with = "moved")]
    pub(crate) put_back: bool,
    #[command(flatten)]
    pub(crate) client: ClientOptions,
}

/// Options of `unshare`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  storage-node unshare ./drive/band --from bob@desk\n  storage-node unshare ./drive/band\n  \
    storage-node unshare ./drive/band --remove\n\n\
    The space gets a new key, and the nodes take nothing more from who was taken off. What he read before he may have kept.\n\
    It stays a space, with what is in it, and yours.\n\n\
    With --remove it is no space any more: its name goes from the drive, and nobody opens what was in it. It must be empty, unless\n\
    --with-content is said too. What a mount wrote there and had not stored yet stays in that mount's journal, which says so. What\n\
    the space held comes back to the nodes when `gc` deletes it, after the retention; until then `rollback DIR` brings it back."
)]
pub(crate) struct Unshare {
    /// A directory that is a space
    #[arg(value_name = "DIR")]
    pub(crate) path: OsString,
    /// Who is taken off its list: a name, or the first digits of an id, or a group, as `access` shows them [default: everybody but you]
    #[arg(long, value_name = "WHO")]
    pub(crate) from: Vec<String>,
    /// Also if one of its writers has sealed it to others than you: all its writers are taken off, and nobody opens what is in it any
    /// more
    #[arg(long)]
    pub(crate) give_up: bool,
    /// Remove the space: its name, and what is in it
    #[arg(long, conflicts_with_all = ["from", "give_up"])]
    pub(crate) remove: bool,
    /// Remove it though there are files in it, with its snapshots
    #[arg(long, requires = "remove")]
    pub(crate) with_content: bool,
    /// The space lies elsewhere than where it was put, because you moved a directory above it
    #[arg(long)]
    pub(crate) moved: bool,
    #[command(flatten)]
    pub(crate) client: ClientOptions,
}

/// Options of `access`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  storage-node access ./drive/band\n  storage-node access ./drive/band --log"
)]
pub(crate) struct AccessOptions {
    /// A directory that is a space
    #[arg(value_name = "DIR")]
    pub(crate) path: OsString,
    /// Show what was changed when
    #[arg(long)]
    pub(crate) log: bool,
    #[command(flatten)]
    pub(crate) client: ClientOptions,
}
