//! Whose files a mounted drive says they are.

use clap::{Args, ValueEnum};
use filesystem::owners::Owners;

/// The option of those commands that mount.
#[derive(Debug, Clone, Copy, Default, Args)]
pub(crate) struct OwnersOption {
    /// Whose files the drive says they are: `mine`, all of them this user's, whatever number they were made with on whichever machine, so
    /// that their permission bits for the owner hold for him; or `stored`, each that number's. A new file is stored with the number of
    /// who makes it, either way [default: mine; stored for root, and with --allow-other, where several users share the mount]
    #[arg(long, value_name = "WHOSE", value_enum)]
    owners: Option<Shown>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Shown {
    Mine,
    Stored,
}

impl OwnersOption {
    /// What a mount is told.
    pub(crate) fn of_mount(self) -> Owners {
        match self.owners {
            Some(Shown::Mine) => Owners::Mine,
            Some(Shown::Stored) => Owners::Stored,
            None => Owners::Usual,
        }
    }
}
