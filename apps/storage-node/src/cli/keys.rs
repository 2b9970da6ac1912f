//! The command line of keys: recovery, a passphrase for the home, the owner's key apart from it; and where secrets come from.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};

use super::listen::address;
use super::{Command, HOME_TWICE, HomeOption, one_of};
use crate::home::Home;
use crate::keyring::Given;
use crate::secrets::Source;

/// Where a command has its passphrases from, if it needs any.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Keys under a passphrase")]
pub(crate) struct SecretOptions {
    /// Descriptor to read the home's passphrase from, one line [default: the systemd credential hypha.passphrase, else the
    /// terminal]
    #[arg(long, value_name = "N", global = true)]
    passphrase_fd: Option<u16>,
    /// The owner's key, in a file that `owner export` wrote, for what only the owner can do
    #[arg(long, value_name = "FILE", global = true)]
    owner: Option<PathBuf>,
    /// Descriptor to read that file's passphrase from [default: the systemd credential hypha.owner-passphrase, else the terminal]
    #[arg(long, value_name = "N", global = true)]
    owner_passphrase_fd: Option<u16>,
}

impl SecretOptions {
    /// Where the passphrase of the home is to be had.
    pub(crate) fn passphrase(&self) -> Source<'_> {
        Source {
            descriptor: self.passphrase_fd,
            credential: Some("hypha.passphrase"),
            what: "the passphrase of this home's keys",
        }
    }

    /// Where that of a file with the owner's key is to be had.
    pub(crate) fn owner_passphrase(&self) -> Source<'_> {
        Source {
            descriptor: self.owner_passphrase_fd,
            credential: Some("hypha.owner-passphrase"),
            what: "the passphrase of the file with the owner's key",
        }
    }

    /// What the process is given.
    pub(crate) fn given(&self) -> Given<'_> {
        let owner = self.owner.as_deref().map(|path| (path, self.owner_passphrase()));
        Given { passphrase: self.passphrase(), owner }
    }
}

impl Command {
    /// The key files that the command may read, which may be sealed: one passphrase opens them. None for those that need no key,
    /// a node's only, or that ask for themselves.
    pub(crate) fn key_files(&self) -> Vec<PathBuf> {
        let home = match self {
            Command::Run(_) | Command::Umount(_) | Command::Recover(_) | Command::Passphrase(_) => {
                return Vec::new();
            }
            Command::Up(options) => &options.home,
            Command::Invite(options) => &options.home,
            Command::Join(options) => &options.home,
            Command::Members(options) => &options.home,
            Command::Remove(options) => &options.home,
            Command::Retention(options) => &options.home,
            Command::Rollback(options) => &options.client.home,
            Command::Recovery(options) => &options.home,
            Command::Owner(options) => options.home(),
            Command::Group(options) => options.home(),
            other => match other.client() {
                Some(client) if client.key.is_some() => return client.key.clone().into_iter().collect(),
                Some(client) => &client.home,
                None => return Vec::new(),
            },
        };
        sealable(home.home.as_deref())
    }
}

/// Without a home there is no key; the command says that.
fn sealable(home: Option<&Path>) -> Vec<PathBuf> {
    Home::locate(home).map_or_else(|_| Vec::new(), |home| home.sealable_keys().into())
}

const RECOVERY_EXAMPLES: &str = "\
Examples:
  storage-node recovery                    shows the words, once you have read what they are
  storage-node recovery --page words.html  a page to print, with the words and a QR code

The words are the owner's key. What else it takes to bring everything back, the nodes keep, sealed under it, and this has
them keep it first: at least one must run. Nodes that lie in the home are lost with it, and what only they have. Whoever has the words has the network and the drive.";

/// Options of `recovery`.
#[derive(Debug, Args)]
#[command(after_help = RECOVERY_EXAMPLES)]
pub(crate) struct Recovery {
    /// Show them without asking, and where no terminal is
    #[arg(long)]
    pub(crate) show: bool,
    /// Write a page to print instead, to this new file
    #[arg(long, value_name = "FILE")]
    pub(crate) page: Option<PathBuf>,
    /// Show them as a QR code too
    #[arg(long)]
    pub(crate) qr: bool,
    #[command(flatten)]
    pub(crate) home: HomeOption,
}

const RECOVER_EXAMPLES: &str = "\
Examples:
  storage-node recover --node 192.0.2.7:4701
  storage-node recover --node 192.0.2.7:4701 --home ./again --words-fd 3 3< words.txt

It asks for the 24 words that `recovery` showed, and makes a home of the owner's again: the network, the user's key, and who
was let in. A node must run that keeps what goes with them. The lost home's own nodes do not come back with it.";

/// Options of `recover`.
#[derive(Debug, Args)]
#[command(after_help = RECOVER_EXAMPLES)]
pub(crate) struct Recover {
    /// A running node of the network; may be given several times
    #[arg(long = "node", value_name = "ADDRESS", required = true, value_parser = address)]
    pub(crate) nodes: Vec<SocketAddr>,
    /// Descriptor to read the words from; 0 is standard input [default: the terminal]
    #[arg(long, value_name = "N")]
    pub(crate) words_fd: Option<u16>,
    #[command(flatten)]
    pub(crate) home: HomeOption,
}

const PASSPHRASE_EXAMPLES: &str = "\
Examples:
  storage-node passphrase                  sets one, or changes it
  storage-node passphrase --remove         takes it off

Then the owner's and the user's key lie on the disk sealed, and every command and drive of this home asks for the passphrase:
at the terminal, from --passphrase-fd N, or from the systemd credential hypha.passphrase. The keys of nodes stay as they are: a
node reads nothing, and starts without anybody.";

/// Options of `passphrase`.
#[derive(Debug, Args)]
#[command(after_help = PASSPHRASE_EXAMPLES)]
pub(crate) struct Passphrase {
    /// Take it off: whoever reads the home's files has the keys then
    #[arg(long)]
    pub(crate) remove: bool,
    /// Descriptor to read the new one from, one line [default: the terminal]
    #[arg(long, value_name = "N", conflicts_with = "remove")]
    pub(crate) new_passphrase_fd: Option<u16>,
    #[command(flatten)]
    pub(crate) home: HomeOption,
}

const OWNER_EXAMPLES: &str = "\
Examples:
  storage-node owner export /media/stick/owner.key   the key is there then, and not in the home any more
  storage-node invite --owner /media/stick/owner.key
  storage-node up --owner /media/stick/owner.key ./drive
  storage-node owner renew --owner /media/stick/owner.key
  storage-node owner import /media/stick/owner.key   the key is in the home again

Without the owner's key the drive works as before, and nobody is let in or removed, and no passport renewed: `status` says how
long those of the members last, and `owner renew` renews them. `up` or `mount` with --owner FILE does that by itself, and lets
in whoever was invited, for as long as it runs: an `up` that runs without it is stopped for that and started with it, or a `mount`
with it runs beside, of the same home.";

/// Options of `owner`.
#[derive(Debug, Args)]
#[command(after_help = OWNER_EXAMPLES, arg_required_else_help = true)]
pub(crate) struct Owner {
    /// What to do.
    #[command(subcommand)]
    pub(crate) action: OwnerAction,
    #[command(flatten)]
    before: HomeOption,
}

/// What `owner` does.
#[derive(Debug, Subcommand)]
pub(crate) enum OwnerAction {
    /// Move the owner's key into a file under a passphrase of its own
    Export {
        /// A new file
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// Descriptor to read the file's passphrase from, one line [default: the terminal]
        #[arg(long, value_name = "N")]
        new_passphrase_fd: Option<u16>,
        #[command(flatten)]
        home: HomeOption,
    },
    /// Sign the members' passports anew that are due, and have the nodes keep them
    Renew {
        #[command(flatten)]
        home: HomeOption,
    },
    /// Put the owner's key into its home again
    Import {
        /// The file that `owner export` wrote [default: the 24 words are asked for]
        #[arg(value_name = "FILE")]
        file: Option<PathBuf>,
        /// Descriptor to read the words from; 0 is standard input [default: the terminal]
        #[arg(long, value_name = "N", conflicts_with = "file")]
        words_fd: Option<u16>,
        #[command(flatten)]
        home: HomeOption,
    },
}

impl Owner {
    /// Whose owner's.
    pub(crate) fn home(&self) -> &HomeOption {
        match &self.action {
            OwnerAction::Export { home, .. }
            | OwnerAction::Renew { home }
            | OwnerAction::Import { home, .. } => home,
        }
    }

    /// Has what stood before the verb stand after it.
    pub(super) fn settle(&mut self) -> Result<(), &'static str> {
        let before = self.before.home.clone();
        one_of(&mut self.home_mut().home, before, HOME_TWICE)
    }

    pub(super) fn home_mut(&mut self) -> &mut HomeOption {
        match &mut self.action {
            OwnerAction::Export { home, .. }
            | OwnerAction::Renew { home }
            | OwnerAction::Import { home, .. } => home,
        }
    }
}
