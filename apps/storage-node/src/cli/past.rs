//! The command line of going back further than whoever wrote last allows.

use std::ffi::OsString;

use clap::Args;

use super::{ClientOptions, HomeOption};
use crate::gc::Span;

const RETENTION_EXAMPLES: &str = "\
Examples:
  storage-node retention              say for how long the nodes keep what is deleted, and how much that is
  storage-node retention 14d          from now on, two weeks
  storage-node --owner ./owner.key retention 1d

Whoever may write may remove and write over everything, and whoever has the key of the home that made the network may have the
nodes delete it. Neither is at once: for so long after a node has heard of it, it keeps every block that it is told to delete, and
the nodes that keep the drive's root keep what that was. Within that time `past` lists it, and `rollback` brings it back.

Only the owner's key sets it, which need not be in the home (`owner export`). A longer time holds at once. A shorter one holds once
the former one is over, node by node, counted from when the node has heard of it: so that whoever has the key for a while can't
have the past deleted at once. What was deleted before stays for as long as it was to. At the most it is 90d; 0s is for none.

The longer it is, the fewer states of each hour `past` lists: one of each thousandth, which is ten minutes of a week, 43 of a month,
and more than two hours of 90d.";

/// Options of `retention`.
#[derive(Debug, Args)]
#[command(after_help = RETENTION_EXAMPLES)]
pub(crate) struct Retention {
    /// The new one, as in 7d or 12h; none to show the one in force [default of a network whose owner has never said any: 7d]
    #[arg(value_name = "SPAN")]
    pub(crate) span: Option<Span>,
    #[command(flatten)]
    pub(crate) home: HomeOption,
}

const PAST_EXAMPLES: &str = "\
Examples:
  storage-node past
  storage-node past ./drive/band              of a space
  storage-node past --json | jq -r '.past[-1].id'

Each line is a state in which the drive, or the space, was within the retention: what to call it, since when (UTC, by the nodes'
clocks), the version, who stored it, and how many nodes say so, those not counted that only heard of it from one other. The nodes
keep the last of each thousandth of the retention, which is ten minutes of a week. Where somebody else writes they keep what there
was before that, and the first that he wrote: of each writer once in those ten minutes, for five writers, and of those after the
owner eight times, and then once in an eighth of it. So after somebody wrecked it, look for the first state of his that is bad: what
stands right above it is from before. Not all of his are listed: none of more than 8 KiB but his first in those ten minutes, and not
each once he was there more than eight times. So an attack may lie between two states of the owner's, and those below it be made of
what was left: look into them (`mount --at`), from the older ones on. What is in a state,
its writer's key has signed; when it was, only the nodes say, and one of them alone may lie.";

/// Options of `past`.
#[derive(Debug, Args)]
#[command(after_help = PAST_EXAMPLES)]
pub(crate) struct Past {
    /// A directory that is a space of its own [default: the drive]
    #[arg(value_name = "DIR")]
    pub(crate) directory: Option<OsString>,
    #[command(flatten)]
    pub(crate) client: ClientOptions,
    /// Print JSON for programs; the fields are only ever added to
    #[arg(long)]
    pub(crate) json: bool,
}

const ROLLBACK_EXAMPLES: &str = "\
Examples:
  storage-node remove bob                     whoever did it: first, or he does it again
  storage-node past
  storage-node rollback --to 3f9a0c44         as `past` calls it
  storage-node rollback --to '2026-11-26 09:30'  the newest state that is no younger, of those that nodes keep
  storage-node rollback band --to 0c443f9a    a space, as `past band` calls it
  storage-node rollback photos --to before    a directory, from the snapshot of that name

The drive is then what it was, whole, with its snapshots of then: its root is replaced in one step, whatever a writer has put in its
place, be it sealed to himself. What was deleted of it the nodes are told to keep. What was changed since is not in the drive
any more; what the drive was until now this home keeps, so that a second `rollback` undoes the first, as long as
the nodes have what only that needs: `gc` deletes it, and they keep it for the retention then. Mounts go on from there; what they have
not stored yet, they put on it. It takes the home that made the network, and no mount.

A space has a root of its own, and stays as it is when the drive goes back; `rollback DIR` has it go back alone, in the same way. Who
is on its list now is on it then, and nobody else. That can do whoever may write in it, with a home of his own; if a writer has sealed
it to others, or what is needed was deleted, only the home that made the network. One that was given up is brought back as well.

Of a directory that is no space the nodes keep nothing by itself: DIR comes back as the snapshot of that name has it, or the last one
taken by that time, in one step, and what is there now is kept beside it, as by `restore`.

Where a writer made a line of his own that does not follow what this home has seen, it takes --accept-rollback, and so do the drives
then.";

/// Options of `rollback`.
#[derive(Debug, Args)]
#[command(after_help = ROLLBACK_EXAMPLES)]
pub(crate) struct Rollback {
    /// A space, or another directory; within the drive, or through the place where it is mounted [default: the drive]
    #[arg(value_name = "DIR")]
    pub(crate) directory: Option<OsString>,
    /// Which state: as `past` calls it, or a time (UTC), or a span of time before now; of a directory that is no space: which snapshot
    #[arg(long, value_name = "ID|TIME|NAME")]
    pub(crate) to: String,
    /// Go on from what the nodes have, though it is older than this home has seen, or does not follow it
    #[arg(long)]
    pub(crate) accept_rollback: bool,
    #[command(flatten)]
    pub(crate) client: ClientOptions,
}
