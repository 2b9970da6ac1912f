//! What can go wrong in the local store, by who must act.
//!
//! Errors are `Clone`, because one failed group fails every write in it.

use super::Key;
use std::{fmt, io, path::PathBuf, sync::Arc};

/// Why a store could not do what it was asked to.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The disk (or the store's configured capacity) is full. Nothing of the value was kept. Reads go on, and writes
    /// work again once there is space.
    #[error(
        "the store is full: free some space on its disk, raise its capacity, or remove blocks; reads go on"
    )]
    Full,
    /// The value is longer than a record may be.
    #[error("a value of {length_bytes} bytes is over the limit of {limit_bytes}: split it")]
    TooLarge {
        /// How long the value is.
        length_bytes: u64,
        /// How long it may be.
        limit_bytes: u64,
    },
    /// What is on disk for this key does not match its checksum. Fetch it from another replica and put it again:
    /// that heals the key.
    #[error("{0}; fetch the value from another replica and put it again")]
    Damaged(Damage),
    /// Another process has this store open.
    #[error("the store {} is in use by {holder}: stop that one, or choose another directory", path.display())]
    Locked {
        /// The store's directory.
        path: PathBuf,
        /// "process 123", as the lock file says.
        holder: String,
    },
    /// The directory holds something that is no store of a version we know.
    #[error("{} is not a store that this program can open: {reason}", path.display())]
    Unknown {
        /// The file or directory.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The store was closed, or it was shut down with its process.
    #[error("the store is closed: open it again")]
    Closed,
    /// The operating system refused. Reads go on. After a failed write or sync it is unknown what the disk holds of
    /// that write; the store goes on in another file as soon as it can make one.
    #[error("cannot {operation} {}: {source}; check the disk", path.display())]
    Io {
        /// What was tried, as a verb.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: Arc<io::Error>,
    },
}

impl StoreError {
    /// Names the operation and the file that `source` came from; a full disk becomes [`StoreError::Full`].
    pub(crate) fn io(
        operation: &'static str,
        path: impl Into<PathBuf>,
        source: impl Into<io::Error>,
    ) -> StoreError {
        let source = source.into();
        match source.kind() {
            // EFBIG (a file size limit) counts as full too: the remedy is the same.
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
                StoreError::Full
            }
            _ => StoreError::Io { operation, path: path.into(), source: Arc::new(source) },
        }
    }
}

/// A record that is on disk but cannot be trusted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// Whose record it was; unknown if the record's header is what broke.
    pub key: Option<Key>,
    /// The number of the segment it lies in.
    pub segment: u32,
    /// Where in the segment.
    pub offset_bytes: u64,
    /// How much of the segment is affected.
    pub length_bytes: u64,
    /// How new the record was; if its key is unknown, how new the newest record there may have been at the most.
    pub sequence_max: u64,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.key {
            Some(key) => write!(f, "the record of {key} is damaged")?,
            None => write!(f, "a record of unknown key is damaged")?,
        }
        write!(
            f,
            " (segment {:08x}, offset {}, {} bytes)",
            self.segment, self.offset_bytes, self.length_bytes
        )
    }
}
