//! The options of `journal`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::{ClientOptions, one_of};

const JOURNAL_EXAMPLES: &str = "\
Examples:
  storage-node journal                     what waits on this machine, of the drive and of each space, and why
  storage-node journal export ./got-out    writes it into a new directory, as files

What is closed while the nodes do not take it waits in this machine's journal, and the next `up` or `mount` stores it. Where they
will not take it any more, since you were removed, taken off a space's list, or may only read it now, it stays there; `export`
gets it out. The journal stays as it is.

Of a file that was there before, the journal has what was changed, and of a large one that was being stored it may have only where
nodes have some of it. The rest is read from this machine's cache, or from nodes if they give it. What can't be had is said, by file and bytes, such a file is called NAME.incomplete, and the exit status is 1. In the
place of what is missing it has zeros. Owners and extended attributes are not written out.";

/// Options of `journal`.
#[derive(Debug, Args)]
#[command(after_help = JOURNAL_EXAMPLES)]
pub(crate) struct Journal {
    /// What to do [default: list it]
    #[command(subcommand)]
    pub(crate) action: Option<JournalAction>,
    #[command(flatten)]
    pub(crate) place: JournalPlace,
}

/// Whose journals.
#[derive(Debug, Clone, Args)]
pub(crate) struct JournalPlace {
    #[command(flatten)]
    pub(crate) client: ClientOptions,
    /// The directory that `mount --directory` was given [default: all of the home's]
    #[arg(long, value_name = "DIR")]
    pub(crate) directory: Option<PathBuf>,
}

/// What `journal` does.
#[derive(Debug, Subcommand)]
pub(crate) enum JournalAction {
    /// Write what waits into a directory, as files
    Export {
        /// A directory that is new, or empty
        #[arg(value_name = "DIR")]
        into: PathBuf,
        #[command(flatten)]
        place: JournalPlace,
    },
}

impl Journal {
    /// Whose journals, wherever that was said.
    pub(crate) fn place(&self) -> &JournalPlace {
        match &self.action {
            Some(JournalAction::Export { place, .. }) => place,
            None => &self.place,
        }
    }

    /// Has what stood before the verb stand after it.
    pub(super) fn settle(&mut self) -> Result<(), &'static str> {
        let before = self.place.clone();
        let Some(JournalAction::Export { place, .. }) = &mut self.action else { return Ok(()) };
        place.client.take(before.client)?;
        one_of(&mut place.directory, before.directory, "--directory is given twice, and says two things")
    }

    pub(super) fn place_mut(&mut self) -> &mut JournalPlace {
        match &mut self.action {
            Some(JournalAction::Export { place, .. }) => place,
            None => &mut self.place,
        }
    }
}
