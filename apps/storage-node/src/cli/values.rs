//! The options of `put` and `get`.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Args;

use super::ClientOptions;

const PUT_EXAMPLES: &str = "\
Examples:
  storage-node put notes/today today.txt       directories of the name are made
  tar c project | storage-node put project.tar

A value is a file of the drive: `put notes/today` and `cp today.txt DRIVE/notes/today` do the same, save that the name
has the old value or the new one, whole, at any moment. The file keeps its mode, owner and extended attributes; other
hard links to it keep the old value. It returns when the nodes hold the value durably. Nodes must be running (`up`, or `run` for each).";

/// Options of `put`.
#[derive(Debug, Args)]
#[command(after_help = PUT_EXAMPLES)]
pub(crate) struct Put {
    /// Its name: a path within the drive
    #[arg(value_name = "NAME")]
    pub(crate) name: OsString,
    /// File to read the value from [default: standard input]
    #[arg(value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) client: ClientOptions,
}

/// Options of `get`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  storage-node get notes/today\n  storage-node get project.tar project.tar\n  \
    storage-node get --at before-the-move notes/today today.before"
)]
pub(crate) struct Get {
    /// Its name: a path within the drive
    #[arg(value_name = "NAME")]
    pub(crate) name: OsString,
    /// File to write the value to; appears only once it is whole [default: standard output]
    #[arg(value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// As it was: in the snapshot of this name, or in the last one taken by this time (see `mount --help`)
    #[arg(long, value_name = "NAME|TIME")]
    pub(crate) at: Option<String>,
    #[command(flatten)]
    pub(crate) client: ClientOptions,
}
