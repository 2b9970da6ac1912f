//! How a volume is used, and why one does not open.

use std::path::PathBuf;
use std::time::Duration;

use dht::{ReadError, Record, SwapError};
use reactor::crypto::PublicKey;

use crate::access::RootError;
use crate::errno::Errno;
use crate::journal::JournalError;

/// How a volume is used.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Options {
    /// Who we are, for conflict names: "name (conflict, author, time)".
    pub author: String,
    /// Which of the author's mounts it is, for people who wait for it.
    pub place: String,
    /// Whose mount it is: once this user may not write any more, whoever collects garbage does not wait for it.
    pub member: Option<PublicKey>,
    /// A random number that stays with this machine's home: its crashed mounts' open files are cleaned up by it.
    pub device: u64,
    /// Decrypted nodes and frames kept in memory.
    pub cache_bytes: usize,
    /// Uncommitted bytes at which writers have to wait; a quarter of it starts a commit.
    pub dirty_bytes_max: usize,
    /// How long a change waits for a commit that nobody asked for.
    pub commit_interval: Duration,
    /// How long `sync`, `read` and a change that finds no room wait for a store that takes or gives nothing before they
    /// fail. What was to be written stays and is tried again.
    pub sync_patience: Duration,
    /// `sync`, and changes that find no room, wait for the store however long it takes.
    pub hard: bool,
    /// How often to look whether another writer committed, and whether there is one; `None`: nobody else is there while we
    /// are, which the caller knows.
    pub watch_interval: Option<Duration>,
    /// Where what no quorum took is kept when the mount ends, for the next one; one process at a time may use it. Without
    /// it, and where the nodes do not take everything, [`Ending::Lost`](super::Ending::Lost) is how it ends.
    pub journal_directory: Option<PathBuf>,
    /// `sync` returns once the journal has it, and the quorum follows.
    pub write_back: bool,
    /// Go on from a root that is older than the one which the journal's changes were made on: an older state was accepted.
    pub accept_older: bool,
    /// Change nothing. Others are told nothing of such a mount either: what one that is alone closes is seen here once it is
    /// committed, within about a second, and not before.
    pub read_only: bool,
    /// The user is no member any more when it is opened: as if [`Volume::on_removed`](super::Volume::on_removed) were called
    /// at once.
    pub removed: bool,
    /// The volume's own list, signed by this key, says who may do what in it: where a root of it says that this user may do less
    /// than before, or does not open to it any more, nothing is taken any more ([`Volume::shut_for`](super::Volume::shut_for)).
    pub list_of: Option<PublicKey>,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            author: "unknown".into(),
            place: String::new(),
            member: None,
            device: 0,
            cache_bytes: 128 << 20,
            dirty_bytes_max: 128 << 20,
            commit_interval: Duration::from_secs(1),
            sync_patience: Duration::from_secs(30),
            hard: false,
            watch_interval: None,
            journal_directory: None,
            write_back: false,
            accept_older: false,
            read_only: false,
            removed: false,
            list_of: None,
        }
    }
}

/// Why a volume does not open.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The register has no value.
    #[error("there is no volume in this register: create one, or check which volume this home belongs to")]
    Missing,
    /// The register has a value already.
    #[error("there is a volume in this register already: open it instead")]
    Exists,
    /// The register can't be read.
    #[error("the volume's root cannot be read: {0}")]
    Read(#[from] ReadError),
    /// The first root can't be written.
    #[error("the volume's first root cannot be written: {0}")]
    Write(#[from] SwapError),
    /// The root does not open.
    #[error(transparent)]
    Root(#[from] RootError),
    /// What the tree needs is not there, or damaged.
    #[error("the volume's tree cannot be read ({0}): check with `status` that all nodes run, and try again")]
    Tree(Errno),
    /// The journal holds what this version can't put in, for the volume must not be changed by it.
    #[error(
        "the journal in {directory} holds changes that are not stored yet, and the volume uses features that this version \
         must not write (flags {flags:#x}): use the newer version to store them, or move the journal away to read the \
         volume without them"
    )]
    JournalWaits {
        /// Where the journal is.
        directory: PathBuf,
        /// The features, as flags.
        flags: u64,
    },
    /// The tree that the journal's changes were made on can't be read, or the newest one.
    #[error(
        "the journal in {directory} holds changes that are not stored yet, and the tree that they were made on, or the newest \
         one, cannot be read ({errno}): check with `status` that all nodes run, and try again; if the journal is an old one, \
         from a backup or of a drive that was forgotten, that tree may be deleted: move the journal away to go on without it"
    )]
    JournalBase {
        /// Where the journal is.
        directory: PathBuf,
        /// What reading it said.
        errno: Errno,
    },
    /// The journal's changes were made on a newer root than what there is to open.
    #[error(
        "the journal in {directory} holds changes that are not stored yet, made on version {base} of the volume, and version {found} is \
         what there is: start the nodes that have the newer one, and try again; or move the journal away to go on without it"
    )]
    JournalAhead {
        /// Where the journal is.
        directory: PathBuf,
        /// The version that the changes were made on, or one below that.
        base: u64,
        /// The version that was to be opened.
        found: u64,
        /// The newest root that the journal has: without the nodes the volume can be opened by it, and by none that is older.
        root: Option<Box<Record>>,
    },
    /// The journal can't be used.
    #[error(transparent)]
    Journal(#[from] JournalError),
}
