//! The command line: every command, option and help text, and nothing that acts.
//!
//! The help is written for somebody who has never seen the program: each command says what it does, what it leaves
//! behind, and shows a line to copy. What an option defaults to is decided where it is used, since most defaults
//! come from what the home remembers.

mod group;
mod history;
mod journal;
mod keys;
mod listen;
mod membership;
mod netcheck;
mod node;
mod owners;
mod past;
mod pins;
mod reach;
mod relay;
mod says;
mod spaces;
mod values;

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;

use clap::error::ErrorKind;
use clap::{Args, CommandFactory, Parser, Subcommand};

use crate::cache::Size;
use crate::gc::{Session, Span};
pub(crate) use group::{Group, GroupAction};
pub(crate) use history::{Diff, History, Kept, Restore, Snapshot, Snapshots, Undelete};
pub(crate) use journal::{Journal, JournalAction};
pub(crate) use keys::{Owner, OwnerAction, Passphrase, Recover, Recovery, SecretOptions};
pub(crate) use listen::ListenAt;
use listen::address;
pub(crate) use membership::{Invite, Join, Members, Remove};
pub(crate) use netcheck::Netcheck;
pub(crate) use node::{Node, NodeAction};
pub(crate) use owners::OwnersOption;
pub(crate) use past::{Past, Retention, Rollback};
pub(crate) use pins::{PinOptions, PinsOptions};
pub(crate) use reach::{DiscoveryOption, MappingOption};
pub(crate) use relay::{RelayOption, Relaying};
pub(crate) use says::NodeSays;
pub(crate) use spaces::{AccessOptions, Share, Unshare};
pub(crate) use values::{Get, Put};

const EXAMPLES: &str = "\
Examples:
  storage-node up --nodes 3 ./drive       three nodes on this machine, and an encrypted drive in ./drive
  cp -a ~/project ./drive/                use it like any other directory
  storage-node status                     which nodes answer, what they hold
  echo hello | storage-node put greeting  a value without FUSE; it is the file `greeting` of the drive
  storage-node get greeting
  storage-node umount ./drive             from anywhere; Ctrl-C in the first terminal does the same
  storage-node invite                     a ticket, with which another machine can `join`

Everything is remembered under $XDG_DATA_HOME/hypha (~/.local/share/hypha), or where --home says. That directory
holds the keys: whoever has it can read the drive, and without it nobody can. It holds the first nodes too, so that until others
run elsewhere all copies are on this disk: back up all of it. Once enough nodes run elsewhere, its *.key files and its
network.json, or the 24 words that `recovery` shows, are enough.";

/// An encrypted drive on storage nodes that need not be trusted.
#[derive(Debug, Parser)]
#[command(name = "storage-node", version, about, after_help = EXAMPLES, max_term_width = 110)]
#[command(arg_required_else_help = true, disable_help_subcommand = true)]
pub(crate) struct Cli {
    /// As the option of that name of each command; it may stand on either side
    #[arg(long, value_name = "DIR")]
    home: Option<PathBuf>,
    #[command(flatten)]
    secrets: SecretOptions,
    /// What to do.
    #[command(subcommand)]
    command: Command,
}

impl Cli {
    /// The command of this process's command line, and where it has secrets from; ends the process, as clap does, if it makes no
    /// sense.
    pub(crate) fn command_of_this_process() -> (Command, SecretOptions) {
        let cli = Self::parse();
        let secrets = cli.secrets.clone();
        (cli.into_command().unwrap_or_else(|error| error.exit()), secrets)
    }

    /// The command, with what stood before it moved to where it belongs.
    fn into_command(self) -> Result<Command, clap::Error> {
        let wrong = |kind, words: &str| Err(Self::command().error(kind, words));
        let mut command = self.command;
        let settled = command.settle().and_then(|()| one_of(command.home_mut(), self.home, HOME_TWICE));
        if let Err(twice) = settled {
            return wrong(ErrorKind::ArgumentConflict, twice);
        }
        match &command {
            Command::Run(run) if run.home.is_none() => {
                wrong(ErrorKind::MissingRequiredArgument, "`run` needs --home DIR, the home of one node")
            }
            command
                if command
                    .client()
                    .is_some_and(|client| client.network.is_some() && client.home.home.is_some()) =>
            {
                wrong(ErrorKind::ArgumentConflict, "give --home, or --network and --key, and not both")
            }
            _ => Ok(command),
        }
    }
}

/// One command and its options.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Start nodes on this machine and mount the drive: the one command to begin with
    Up(Up),
    /// Run one storage node in the foreground
    Run(Run),
    /// Mount the drive from a process that stores nothing itself
    Mount(Mount),
    /// Unmount a drive, and wait until everything in it is on the nodes
    Umount(Umount),
    /// Show which nodes answer, and how much each holds
    Status(Status),
    /// Show what this machine's network lets through, and how each node is reached from here
    Netcheck(Netcheck),
    /// Store one value under a name, without FUSE
    Put(Put),
    /// Fetch one value by its name, without FUSE
    Get(Get),
    /// List what was written here and is not stored yet, or write it out as files
    Journal(Journal),
    /// Keep a file, or a directory with all in it, on this machine's disk, for when no node answers
    Pin(PinOptions),
    /// Let go of what was pinned
    #[command(after_help = "Example:\n  storage-node unpin photos/2026")]
    Unpin(PinOptions),
    /// List what is pinned, and how much of it is here
    Pins(PinsOptions),
    /// Delete what the nodes hold that the drive does not need any more, or say how much it is
    Gc(Gc),
    /// Remember what the drive holds now, under a name
    Snapshot(Snapshot),
    /// List what is remembered
    Snapshots(Snapshots),
    /// Show what differs between two snapshots, or between one and now
    Diff(Diff),
    /// Show which versions of a file the snapshots have
    History(History),
    /// Bring a file or a directory back as a snapshot has it; what is there is kept beside it
    Restore(Restore),
    /// Bring back what was removed, from the newest snapshot or state of the past that has it
    Undelete(Undelete),
    /// Show for how long the nodes keep what is deleted, whoever deletes it, or set it
    Retention(Retention),
    /// List what the drive was, or a space, as the nodes keep it, whatever writers have done since
    Past(Past),
    /// Have the drive, a space or a directory be what it was
    Rollback(Rollback),
    /// Show which nodes keep the drive's root, put another in the place of one, or do without one
    Node(Node),
    /// Print a ticket with which another machine can join
    Invite(Invite),
    /// Become a member of the network that a ticket is for
    Join(Join),
    /// Show who may do what since when, and who was seen last where
    Members(Members),
    /// Have somebody be a member no more, or take a ticket back
    Remove(Remove),
    /// Make a directory a space of its own, which those alone read or write who are on its list
    Share(Share),
    /// Take somebody, or everybody, off a space's list
    Unshare(Unshare),
    /// Show who may do what in a space
    Access(AccessOptions),
    /// Make, change, list and delete groups of members, which spaces can be shared with
    Group(Group),
    /// Show the 24 words from which everything can be brought back
    Recovery(Recovery),
    /// Bring a lost home back from its 24 words
    Recover(Recover),
    /// Put the home's keys under a passphrase, change it, or take it off
    Passphrase(Passphrase),
    /// Move the owner's key out of the home, and back
    Owner(Owner),
}

impl Command {
    /// Has what stood before a command's own verb stand after it.
    fn settle(&mut self) -> Result<(), &'static str> {
        match self {
            Command::Journal(options) => options.settle(),
            Command::Node(options) => options.settle(),
            Command::Owner(options) => options.settle(),
            Command::Group(options) => options.settle(),
            _ => Ok(()),
        }
    }

    fn home_mut(&mut self) -> &mut Option<PathBuf> {
        match self {
            Command::Up(options) => &mut options.home.home,
            Command::Run(options) => &mut options.home,
            Command::Mount(options) => &mut options.client.home.home,
            Command::Umount(options) => &mut options.home,
            Command::Status(options) => &mut options.client.home.home,
            Command::Netcheck(options) => &mut options.client.home.home,
            Command::Put(options) => &mut options.client.home.home,
            Command::Get(options) => &mut options.client.home.home,
            Command::Gc(options) => &mut options.client.home.home,
            Command::Journal(options) => &mut options.place_mut().client.home.home,
            Command::Pin(options) | Command::Unpin(options) => &mut options.client.home.home,
            Command::Pins(options) => &mut options.client.home.home,
            Command::Snapshot(options) => &mut options.client.home.home,
            Command::Snapshots(options) => &mut options.client.home.home,
            Command::Diff(options) => &mut options.client.home.home,
            Command::History(options) => &mut options.client.home.home,
            Command::Restore(options) => &mut options.client.home.home,
            Command::Undelete(options) => &mut options.client.home.home,
            Command::Retention(options) => &mut options.home.home,
            Command::Past(options) => &mut options.client.home.home,
            Command::Rollback(options) => &mut options.client.home.home,
            Command::Node(options) => &mut options.client_mut().home.home,
            Command::Invite(options) => &mut options.home.home,
            Command::Join(options) => &mut options.home.home,
            Command::Members(options) => &mut options.home.home,
            Command::Remove(options) => &mut options.home.home,
            Command::Share(options) => &mut options.client.home.home,
            Command::Unshare(options) => &mut options.client.home.home,
            Command::Access(options) => &mut options.client.home.home,
            Command::Recovery(options) => &mut options.home.home,
            Command::Recover(options) => &mut options.home.home,
            Command::Passphrase(options) => &mut options.home.home,
            Command::Owner(options) => &mut options.home_mut().home,
            Command::Group(options) => &mut options.home_mut().home,
        }
    }

    fn client(&self) -> Option<&ClientOptions> {
        match self {
            Command::Mount(Mount { client, .. })
            | Command::Status(Status { client, .. })
            | Command::Netcheck(Netcheck { client, .. })
            | Command::Put(Put { client, .. })
            | Command::Get(Get { client, .. })
            | Command::Gc(Gc { client, .. })
            | Command::Pin(PinOptions { client, .. })
            | Command::Unpin(PinOptions { client, .. })
            | Command::Pins(PinsOptions { client, .. })
            | Command::Snapshot(Snapshot { client, .. })
            | Command::Snapshots(Snapshots { client, .. })
            | Command::Diff(Diff { client, .. })
            | Command::History(History { client, .. })
            | Command::Restore(Restore { client, .. })
            | Command::Undelete(Undelete { client, .. })
            | Command::Past(Past { client, .. })
            | Command::Rollback(Rollback { client, .. })
            | Command::Share(Share { client, .. })
            | Command::Unshare(Unshare { client, .. })
            | Command::Access(AccessOptions { client, .. }) => Some(client),
            Command::Node(options) => Some(options.client()),
            Command::Journal(options) => Some(&options.place().client),
            Command::Up(_)
            | Command::Run(_)
            | Command::Umount(_)
            | Command::Invite(_)
            | Command::Join(_)
            | Command::Members(_)
            | Command::Remove(_)
            | Command::Retention(_)
            | Command::Recovery(_)
            | Command::Recover(_)
            | Command::Passphrase(_)
            | Command::Owner(_)
            | Command::Group(_) => None,
        }
    }
}

/// Where this network's keys and nodes are remembered.
#[derive(Debug, Clone, Args)]
pub(crate) struct HomeOption {
    /// Directory of keys, nodes and settings [default: $XDG_DATA_HOME/hypha, else ~/.local/share/hypha]
    #[arg(long, value_name = "DIR")]
    pub(crate) home: Option<PathBuf>,
}

const UP_EXAMPLES: &str = "\
Examples:
  storage-node up ./drive                      one node, in this process
  storage-node up --nodes 3 ./drive            survives the death of any one node
  storage-node up --nodes 3 --home ./h ./drive keeps keys and stores in ./h
  storage-node up --listen 192.0.2.7 ./drive   other machines can mount it
  storage-node up --listen 192.0.2.7:443 ./d   the same, at a port that most networks let through
  storage-node up --zone cellar ./drive        copies lie in other zones too, once nodes there have joined

The first run makes an owner key, a closed network, a user key and the nodes' keys. Later runs bring the same files
back. A node process that dies is started again. Ctrl-C flushes, unmounts, and stops all that was started.";

/// Options of `up`.
#[derive(Debug, Args)]
#[command(after_help = UP_EXAMPLES)]
pub(crate) struct Up {
    /// Where the drive appears; made if missing, must be empty
    #[arg(value_name = "DRIVE")]
    pub(crate) drive: PathBuf,
    /// How many storage nodes [default: 1, or as many as the home remembers]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64))]
    pub(crate) nodes: Option<u16>,
    #[command(flatten)]
    pub(crate) home: HomeOption,
    /// IP address of this machine that the nodes listen on, and that others reach them by [default: the one used last,
    /// at first 127.0.0.1]. With a port: that of the first node, and the next ones for the others [default: those used last, at first
    /// free ones]
    #[arg(long, value_name = "IP[:PORT]")]
    pub(crate) listen: Option<ListenAt>,
    #[command(flatten)]
    pub(crate) says: NodeSays,
    #[command(flatten)]
    pub(crate) relay: RelayOption,
    #[command(flatten)]
    pub(crate) mapping: MappingOption,
    #[command(flatten)]
    pub(crate) discovery: DiscoveryOption,
    /// What the cache may take of this machine's disk beside the nodes, as in 500MiB or 2GiB: for blocks that only nodes
    /// elsewhere have [default: the one used last, at first none]
    #[arg(long, value_name = "SIZE")]
    pub(crate) cache: Option<Size>,
    /// Let other users of this machine look too, subject to permissions; what root mounts is for all anyway
    #[arg(long)]
    pub(crate) allow_other: bool,
    #[command(flatten)]
    pub(crate) owners: OwnersOption,
    /// Let fsync return once this machine's journal holds the change, before the nodes do
    #[arg(long)]
    pub(crate) write_back: bool,
    /// How long a node that keeps the drive's root may be away before another one keeps it in its place, as in 15m or 1d; 0s for
    /// never. It is a drive of the owner's that does this, and only if there is another node [default: 15m]
    #[arg(long, value_name = "SPAN")]
    pub(crate) replace_after: Option<Span>,
    /// Take an older state of the drive than this machine has seen, and go on from there
    #[arg(long)]
    pub(crate) accept_rollback: bool,
    /// Have all nodes of this home serve although a copy of it was found for which they stopped, or is found now: while this runs
    #[arg(long)]
    pub(crate) accept_copy: bool,
    /// For how long nodes keep what is deleted, whoever deletes it, in a network that is made now, as in 12h or 14d; 0s for not at
    /// all. Later `storage-node retention` sets it [default: 7d]
    #[arg(long, value_name = "SPAN")]
    pub(crate) retention: Option<Span>,
}

const RUN_EXAMPLES: &str = "\
Examples:
  storage-node run --home ~/.local/share/hypha/nodes/2
  storage-node run --home ./n2 --node 192.0.2.7:4701 --listen 0.0.0.0:4702
  storage-node run --home ./n3 --zone attic --capacity 500GiB

A node's home is made by `up`, in nodes/1, nodes/2, ... of its own home. It can be moved to another machine: it
holds the node's key, its passport, its store, and the addresses of the nodes it knows.";

/// Options of `run`.
#[derive(Debug, Args)]
#[command(after_help = RUN_EXAMPLES)]
pub(crate) struct Run {
    /// The node's home, as `up` made it (HOME/nodes/2)
    #[arg(long, value_name = "DIR")]
    pub(crate) home: Option<PathBuf>,
    /// Address to listen on: one of this machine's, 0.0.0.0 for all of IPv4, or `[::]` for all of both families [default: the one used
    /// last; another port is taken if that one is not free]
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) listen: Option<SocketAddr>,
    #[command(flatten)]
    pub(crate) relay: RelayOption,
    #[command(flatten)]
    pub(crate) mapping: MappingOption,
    #[command(flatten)]
    pub(crate) discovery: DiscoveryOption,
    /// A node that is already running; may be given several times
    #[arg(long = "node", value_name = "ADDRESS", value_parser = address)]
    pub(crate) nodes: Vec<SocketAddr>,
    #[command(flatten)]
    pub(crate) says: NodeSays,
    /// Have the node serve although a copy of its home was found for which it stopped, or is found now: this once
    #[arg(long)]
    pub(crate) accept_copy: bool,
    /// Stop when standard input ends: how `up` makes sure that no node outlives it
    #[arg(long, hide = true)]
    pub(crate) until_stdin_closes: bool,
}

/// How a process that stores nothing finds its network and proves who it is.
#[derive(Debug, Clone, Args)]
pub(crate) struct ClientOptions {
    #[command(flatten)]
    pub(crate) home: HomeOption,
    /// The network's description, network.json of some home; with --key, no home is needed
    #[arg(long, value_name = "FILE", requires = "key")]
    pub(crate) network: Option<PathBuf>,
    /// The user's key, user.key of some home
    #[arg(long, value_name = "FILE", requires = "network")]
    pub(crate) key: Option<PathBuf>,
    /// A running node; may be given several times [default: those the network's description names]
    #[arg(long = "node", value_name = "ADDRESS", value_parser = address)]
    pub(crate) nodes: Vec<SocketAddr>,
    #[command(flatten)]
    pub(crate) discovery: DiscoveryOption,
}

impl ClientOptions {
    /// Takes what stood before the verb as well.
    fn take(&mut self, before: ClientOptions) -> Result<(), &'static str> {
        one_of(&mut self.home.home, before.home.home, HOME_TWICE)?;
        one_of(&mut self.network, before.network, "--network is given twice, and says two things")?;
        one_of(&mut self.key, before.key, "--key is given twice, and says two things")?;
        self.nodes.splice(0..0, before.nodes);
        Ok(())
    }
}

const HOME_TWICE: &str = "--home is given twice, and says two things";

/// Has `after` be what stood on either side of the verb.
fn one_of<T: PartialEq>(
    after: &mut Option<T>,
    before: Option<T>,
    twice: &'static str,
) -> Result<(), &'static str> {
    match before {
        Some(before) if after.as_ref().is_some_and(|after| *after != before) => Err(twice),
        Some(before) => {
            *after = Some(before);
            Ok(())
        }
        None => Ok(()),
    }
}

const MOUNT_EXAMPLES: &str = "\
Examples:
  storage-node mount ./drive                              the nodes of the usual home must be running
  storage-node mount --node 127.0.0.1:4702 ./drive        knowing this one node only
  storage-node mount --at before-the-move ./then          what a snapshot holds, for reading
  storage-node mount --network network.json --key user.key --node 192.0.2.7:4701 ./drive

Another machine gets a home of its own with `invite` here and `join` there.";

/// Options of `mount`.
#[derive(Debug, Args)]
#[command(after_help = MOUNT_EXAMPLES)]
pub(crate) struct Mount {
    /// Where the drive appears; made if missing, must be empty
    #[arg(value_name = "DRIVE")]
    pub(crate) drive: PathBuf,
    #[command(flatten)]
    pub(crate) client: ClientOptions,
    #[command(flatten)]
    pub(crate) mapping: MappingOption,
    /// Directory of this drive's journal, with a cache of its own [default: HOME/client]
    #[arg(long, value_name = "DIR")]
    pub(crate) directory: Option<PathBuf>,
    /// What the cache may take of this machine's disk, as in 500MiB or 2GiB; 0 for none [default: the one used last, at
    /// first 2GiB or a tenth of what is free]
    #[arg(long, value_name = "SIZE")]
    pub(crate) cache: Option<Size>,
    /// Let other users of this machine look too, subject to permissions; what root mounts is for all anyway
    #[arg(long)]
    pub(crate) allow_other: bool,
    #[command(flatten)]
    pub(crate) owners: OwnersOption,
    /// Let fsync return once this machine's journal holds the change, before the nodes do
    #[arg(long)]
    pub(crate) write_back: bool,
    /// How long a node that keeps the drive's root may be away before another one keeps it in its place, as in 15m or 1d; 0s for
    /// never. It is a drive of the owner's that does this, and only if there is another node [default: 15m]
    #[arg(long, value_name = "SPAN")]
    pub(crate) replace_after: Option<Span>,
    /// Take an older state of the drive than this machine has seen, and go on from there
    #[arg(long)]
    pub(crate) accept_rollback: bool,
    /// Show, for reading, what the drive was: the snapshot of this name, or the last one taken by this time (in UTC, as in
    /// 2026-11-26 or "2026-11-26 22:15"; or so long ago, as in 3d); or a state that `past` lists, for which one node is enough, also if
    /// those that kept the root are lost
    #[arg(long, value_name = "NAME|TIME|STATE", conflicts_with = "write_back")]
    pub(crate) at: Option<String>,
    /// With --at STATE: show this space in place of the drive, by what `past DIR` lists
    #[arg(long, value_name = "DIR", requires = "at")]
    pub(crate) of: Option<OsString>,
}

/// Options of `umount`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  storage-node umount ./drive")]
pub(crate) struct Umount {
    /// The mounted drive
    #[arg(value_name = "DRIVE")]
    pub(crate) drive: PathBuf,
    /// Taken as everywhere else; the drive is found by its mountpoint alone
    #[arg(long, value_name = "DIR", hide = true)]
    pub(crate) home: Option<PathBuf>,
    /// Wait until this process, which started this one and serves the drive, is dead, and free what hangs then
    #[arg(long, value_name = "PROCESS", hide = true)]
    pub(crate) guard_of: Option<u32>,
}

/// Options of `status`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  storage-node status\n  storage-node status --json | jq .nodes[].blocks\n\n\
    The exit status is 0 only if every node answers and takes writes."
)]
pub(crate) struct Status {
    #[command(flatten)]
    pub(crate) client: ClientOptions,
    /// Print JSON for programs; the fields are only ever added to
    #[arg(long)]
    pub(crate) json: bool,
}

const GC_EXAMPLES: &str = "\
Examples:
  storage-node gc --dry-run
  storage-node gc
  storage-node gc --grace 0s                    all mounts are there, or were ended while the nodes ran
  storage-node gc --forget 1f0c5a7e22d94b86     that mount's machine is gone for good

What is removed from the drive, or written over, stays on the nodes until `gc` deletes it. It lists what they hold, asks every
mount of the drive to publish all that it has, marks what the newest root and the snapshots reach, and has the rest deleted. A
mount that is asleep or was killed may come back for something older: then nothing is deleted, and it says which one. Wake
it, or start it again where its journal is; if it never comes back, `--forget` it. One of a member who was removed, or may only
read now, is not waited for.

Each space of the drive that this home has shared is gone through for itself, and what has to wait in one holds up no other. Only the
home that made the network runs it, for its spaces too, whoever else may write there: nodes delete at the word of its user's key. All
nodes that keep a root have to answer: as long as one of them is away, a newer root may be on that one, and nothing is deleted.

Some cannot be asked: mounts that may not write; machines on which the drive was ended in order and is started again while the
nodes are away; and mounts that were forgotten and live. For them the nodes keep what is deleted for the time of grace. Those that
write find out, and store anew what they still need; what is gone by then they say is not stored, and keep in their journal.

Before it deletes anything it looks whether the nodes list all that the drive needs, and takes back what was deleted of it.";

/// Options of `gc`.
#[derive(Debug, Args)]
#[command(after_help = GC_EXAMPLES)]
pub(crate) struct Gc {
    #[command(flatten)]
    pub(crate) client: ClientOptions,
    /// Only say what is garbage
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// For how long the nodes keep what is deleted [default: 30d]
    #[arg(long, value_name = "SPAN")]
    pub(crate) grace: Option<Span>,
    /// For how long to wait for mounts that give no sign of life [default: 2m]
    #[arg(long, value_name = "SPAN")]
    pub(crate) patience: Option<Span>,
    /// Go on without this mount if it does not answer: it never comes back, and what it has not stored is lost
    #[arg(long, value_name = "SESSION")]
    pub(crate) forget: Vec<Session>,
    /// For how long a mount must have published nothing before it is forgotten [default: 1h]
    #[arg(long, value_name = "SPAN", requires = "forget")]
    pub(crate) silent_for: Option<Span>,
}

#[cfg(test)]
mod tests;
