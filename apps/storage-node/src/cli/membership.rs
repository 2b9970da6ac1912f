//! The command line of who belongs to a network: inviting, joining, listing, removing.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use filesystem::format::printable;
use overlay::invitation::{InvitedAs, NAME_BYTES_MAX};

use super::{DiscoveryOption, HomeOption, ListenAt, MappingOption, NodeSays};
use crate::gc::Span;

const INVITE_EXAMPLES: &str = "\
Examples:
  storage-node invite                          another machine of yours, or somebody who may change everything
  storage-node invite --role reader --qr       somebody who only reads; the ticket as a picture for a camera as well
  storage-node invite --role node --expires 7d --uses 3

It prints one line, the ticket. Send it as you would send a password: whoever uses it first is let in, and then it is worth
nothing. Who uses it is answered by the home that made it, while `up` or `mount` runs there.";

/// Options of `invite`.
#[derive(Debug, Args)]
#[command(after_help = INVITE_EXAMPLES)]
pub(crate) struct Invite {
    /// What whoever uses the ticket becomes
    #[arg(long, value_name = "ROLE", value_enum, default_value_t = RoleName::Writer)]
    pub(crate) role: RoleName,
    /// How long the ticket is good: 15m, 24h, 7d
    #[arg(long, value_name = "SPAN", default_value = "1d")]
    pub(crate) expires: Span,
    /// How many machines it lets in
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(crate) uses: u16,
    /// Show the ticket as a QR code too, on standard error
    #[arg(long)]
    pub(crate) qr: bool,
    #[command(flatten)]
    pub(crate) home: HomeOption,
}

/// What somebody is invited as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum RoleName {
    /// A storage node: holds what it cannot read
    Node,
    /// Reads and writes the drive
    Writer,
    /// Reads the drive, and can't change it
    Reader,
}

impl From<RoleName> for InvitedAs {
    fn from(name: RoleName) -> InvitedAs {
        match name {
            RoleName::Node => InvitedAs::Node,
            RoleName::Writer => InvitedAs::Writer,
            RoleName::Reader => InvitedAs::Reader,
        }
    }
}

const JOIN_EXAMPLES: &str = "\
Examples:
  storage-node join hypha1mfzwi... ./drive     a writer or reader: joins, and mounts the drive
  storage-node join - ./drive < ticket.txt     the ticket from standard input, where no other user sees it
  storage-node join --as bob-laptop hypha1m... under a name of one's own
  storage-node join --home ./node hypha1mf...  a node: joins, and runs in the foreground
  storage-node join --home ./node --zone attic --capacity 500GiB hypha1mf...

It makes a key of its own, which never leaves the home. Later, `mount DRIVE` or `run --home HOME` is all it takes.";

/// Options of `join`.
#[derive(Debug, Args)]
#[command(after_help = JOIN_EXAMPLES)]
pub(crate) struct Join {
    /// The ticket, as `invite` printed it; - reads it from standard input
    #[arg(value_name = "TICKET")]
    pub(crate) ticket: String,
    /// Where the drive appears; without it, this only joins
    #[arg(value_name = "DRIVE")]
    pub(crate) drive: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) home: HomeOption,
    /// What `members` calls whoever joins, and `remove` takes [default: account and machine]. The first ticket's holder of a name has
    /// it, and the next one is NAME-2
    #[arg(long = "as", value_name = "NAME", value_parser = a_name)]
    pub(crate) called: Option<String>,
    /// A node: IP address of this machine that it listens on, and that others reach it by, with its port if it is not to be any free
    /// one [default: the address by which this machine reaches the nodes in the ticket]
    #[arg(long, value_name = "IP[:PORT]")]
    pub(crate) listen: Option<ListenAt>,
    #[command(flatten)]
    pub(crate) says: NodeSays,
    #[command(flatten)]
    pub(crate) mapping: MappingOption,
    #[command(flatten)]
    pub(crate) discovery: DiscoveryOption,
}

/// What people can read and type, and what no key's digits are taken for.
pub(super) fn a_name(text: &str) -> Result<String, String> {
    let is_plain = |letter: char| !letter.is_control() && !letter.is_whitespace();
    if text.is_empty() || text.len() > NAME_BYTES_MAX || !text.chars().all(is_plain) {
        return Err(format!("a name has 1 to {NAME_BYTES_MAX} bytes, and no spaces"));
    }
    // What is shown of it otherwise would be another name, which has to be quoted.
    if printable(text) != text || text.contains('?') {
        return Err("a name has letters, digits, and of other signs only @ . _ -".into());
    }
    if text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err("it could be the digits of somebody's key: give it a letter after f, or an @".into());
    }
    Ok(text.into())
}

/// Options of `members`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  storage-node members\n  storage-node members --json | jq '.members[] | select(.last_seen)'"
)]
pub(crate) struct Members {
    #[command(flatten)]
    pub(crate) home: HomeOption,
    /// Print JSON for programs; the fields are only ever added to
    #[arg(long)]
    pub(crate) json: bool,
}

const REMOVE_EXAMPLES: &str = "\
Examples:
  storage-node remove ann@laptop               by the name that `members` shows
  storage-node remove 3f2a9c                   by the first digits of the key, a member's or a ticket's

Nodes that run refuse it at once, also on open connections; others when they are back. The drive gets a new key, so that
what is written from then on stays unread, and it is taken off the spaces that it was on. What a member could read before, it may have
kept, and its machine's cache has some of it: so of a stolen laptop, first `remove` whoever used it, with the home that made the
network, then change what passwords lay in the drive. Of the machine with that home nothing but a new network helps: whoever has
its keys has the drive.";

/// Options of `remove`.
#[derive(Debug, Args)]
#[command(after_help = REMOVE_EXAMPLES)]
pub(crate) struct Remove {
    /// Its name, or the first digits of its key
    #[arg(value_name = "WHO")]
    pub(crate) who: String,
    /// A storage node: remove it though blocks that only it has are lost
    #[arg(long)]
    pub(crate) now: bool,
    #[command(flatten)]
    pub(crate) home: HomeOption,
}
