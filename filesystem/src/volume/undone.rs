//! The nodes answer an older root than they had taken: what they acknowledged they have no more.
//!
//! Their stores were put back from a copy under a running mount, or others answer in their names. Each read of the root and each
//! swap compares with the highest version that was seen (the DHT does), so it is known within a look of the watcher. From then on
//! nothing is called stored, neither by a sync nor by the end, though every change was acknowledged once; and nothing is committed: what
//! is changed stays in the journal. A commit would put the newest root in the place of the older one, over blocks that went with the
//! stores, and look as if all were well. So it stays for as long as the volume is open, whatever the nodes answer later; who mounts it
//! again is told what they have by then.

use std::cell::Cell;
use std::time::Duration;

use dht::ReadError;

use super::Volume;
use crate::errno::Errno;

/// How long the end waits for the word of nodes that are there: a read is a round trip.
const LOOK_LIMIT: Duration = Duration::from_secs(5);

/// What the nodes had taken, and what they answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Undone {
    /// The highest version that was seen.
    pub(super) seen: u64,
    /// What they answer. It may be higher, if it does not follow what was seen.
    pub(super) found: u64,
}

/// See the file's header.
#[derive(Default)]
pub(super) struct Standing(Cell<Option<Undone>>);

impl Volume {
    /// Takes note that the root could not be read, or swapped, for this reason.
    pub(super) fn note_root(&self, failure: &ReadError) {
        let (ReadError::RolledBack { seen, found, .. } | ReadError::Forked { seen, found, .. }) = failure
        else {
            return;
        };
        if self.standing.0.get().is_none() {
            self.standing.0.set(Some(Undone { seen: *seen, found: *found }));
            tracing::error!(
                seen,
                found,
                "the nodes do not have the state of the drive any more that they had taken: nothing is stored with them, or called stored, \
                 before the drive is mounted again"
            );
        }
    }

    /// Refuses to say that anything is stored.
    ///
    /// # Errors
    ///
    /// `EIO`, if the nodes do not have any more what they had taken.
    pub(super) fn refuse_if_undone(&self) -> Result<(), Errno> {
        self.standing.0.get().map_or(Ok(()), |_| Err(Errno::EIO))
    }

    /// Says whether the nodes have no more what they had taken; asks them a last time, if they `answer`.
    ///
    /// # Suspends
    ///
    /// For [`LOOK_LIMIT`] at most.
    pub(super) fn look_whether_undone(&self, answer: bool) -> Option<Undone> {
        if answer && !self.gives_up.get() && !self.is_away() && !self.options.read_only {
            let _ = reactor::timeout(LOOK_LIMIT, || self.read_root().map(drop));
        }
        self.standing.0.get()
    }
}
