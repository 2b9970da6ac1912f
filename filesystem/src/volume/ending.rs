//! How a mount ends: what is stored, what waits in the journal, and what is lost. Never a guess.

use std::collections::HashSet;
use std::path::PathBuf;
use std::time::Duration;

use super::state::Change;
use super::undone::Undone;
use super::{Cause, Volume};
use crate::errno::Errno;
use crate::format::Key;

/// What became of the changes when a volume was closed.
#[derive(Clone, PartialEq, Eq, Debug)]
#[must_use = "only `Stored` means that everything is stored"]
pub enum Ending {
    /// A quorum of the nodes holds everything.
    Stored,
    /// A quorum holds everything but parts of files that nobody has any more (see `doubt.rs`).
    Damaged {
        /// How many files lack a part.
        file_count: u64,
    },
    /// The local journal holds what the nodes did not take; the next opening puts it in.
    InJournal {
        /// Bytes of changes that wait there.
        bytes: u64,
        /// How many files and directories they are about.
        file_count: u64,
        /// Why the nodes did not take them.
        cause: Cause,
    },
    /// The journal that an earlier mount left was damaged: what could not be read of it is on no node by this.
    JournalDamaged {
        /// The first of the names under which its files are kept.
        kept: PathBuf,
        /// What became of all else; `None` if a quorum holds it.
        beside: Option<Box<Ending>>,
    },
    /// The nodes hold an older root than they had taken, or another: what was stored in between they have no more.
    Undone {
        /// The highest version that they had taken.
        seen: u64,
        /// The version that they answer.
        found: u64,
        /// What became of what they had not taken; `None` if there was none.
        beside: Option<Box<Ending>>,
    },
    /// Neither has them: they are gone.
    Lost {
        /// Bytes of changes.
        bytes: u64,
        /// Why the nodes did not take them.
        cause: Cause,
        /// Why the journal did not.
        journal: String,
    },
}

impl Ending {
    /// Why the nodes did not take everything; `None` if they did, or what they did not take is not here either.
    pub fn cause(&self) -> Option<Cause> {
        match self {
            Ending::Stored | Ending::Damaged { .. } => None,
            Ending::InJournal { cause, .. } | Ending::Lost { cause, .. } => Some(*cause),
            Ending::JournalDamaged { beside, .. } | Ending::Undone { beside, .. } => {
                beside.as_ref().and_then(|beside| beside.cause())
            }
        }
    }

    /// Returns `Ok` if a quorum holds everything.
    ///
    /// # Errors
    ///
    /// The ending, if it is any other.
    pub fn stored(self) -> Result<(), Ending> {
        if self == Ending::Stored { Ok(()) } else { Err(self) }
    }
}

impl std::fmt::Display for Ending {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Ending::Stored => write!(f, "everything is stored"),
            Ending::Damaged { file_count } => {
                write!(f, "everything is stored but parts of {file_count} files, which no node has any more")
            }
            Ending::InJournal { bytes, file_count, cause } => write!(
                f,
                "changes of {bytes} bytes in {file_count} files and directories are not stored ({cause}): the journal \
                 has them, and the next start here stores them once the nodes take them"
            ),
            Ending::JournalDamaged { kept, beside } => {
                let kept = kept.display();
                write!(
                    f,
                    "the journal of an earlier mount was damaged: what could not be read of it is not stored, and kept in {kept}; "
                )?;
                match beside {
                    Some(beside) => beside.fmt(f),
                    None => write!(f, "all else is stored"),
                }
            }
            Ending::Undone { seen, found, beside } => {
                write!(
                    f,
                    "the nodes had taken version {seen}, and hold version {found}: what was stored in between they do not have any more"
                )?;
                beside.as_ref().map_or(Ok(()), |beside| write!(f, "; {beside}"))
            }
            Ending::Lost { bytes, cause, journal } => write!(
                f,
                "changes of {bytes} bytes are lost: the nodes did not take them ({cause}), nor did the journal ({journal})"
            ),
        }
    }
}

/// What no quorum holds yet.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct Pending {
    /// Bytes of changes.
    pub bytes: u64,
    /// How many files and directories they are about.
    pub file_count: u64,
    /// How much of it is in memory only: not in the journal either, so that it ends with this process.
    pub memory_bytes: u64,
    /// How many files and directories that is about.
    pub memory_file_count: u64,
    /// For how long the nodes have taken nothing, and why; `None` while they do.
    pub trouble: Option<(Duration, Cause)>,
}

/// The files and directories that changes are about: not a directory in which something was made, renamed or removed, and of which
/// nothing else changed.
pub(super) fn changed<'a>(
    keys: impl Iterator<Item = &'a Key>,
    is_born: impl Fn(u64) -> bool,
) -> HashSet<u64> {
    let (mut all, mut directories) = (HashSet::new(), HashSet::new());
    for key in keys {
        match key {
            Key::Inode(inode) => drop(all.insert(*inode)),
            Key::Entry(directory, ..) => drop(directories.insert(*directory)),
            _ => {}
        }
    }
    all.retain(|inode| !directories.contains(inode) || is_born(*inode));
    all
}

/// How much waits, of changes by their keys: bytes, and the files and directories that it is about. One number, whoever tells it: the
/// end of a mount, and who reads the journal after it.
pub(super) fn waiting<'a>(
    changes: impl Iterator<Item = (&'a Key, &'a Change)>,
    is_born: impl Fn(u64) -> bool,
) -> (u64, u64) {
    let mut bytes = 0;
    let keys = changes.map(|(key, change)| {
        bytes += change.waiting_bytes();
        key
    });
    let file_count = changed(keys, is_born).len() as u64;
    (bytes, file_count)
}

impl Volume {
    /// Returns the version of the root that everything shown is based on: it moves with each commit, ours or another
    /// mount's.
    pub fn version(&self) -> u64 {
        self.version.get()
    }

    /// Returns what is not committed yet, and what keeps it.
    pub fn pending(&self) -> Pending {
        let state = self.state.borrow();
        let lacks = |key: &Key| state.durability.lacks(key.clone()..=key.clone());
        let is_born = |inode| state.is_born(inode);
        let (bytes, file_count) = waiting(state.waiting(), is_born);
        let (memory_bytes, memory_file_count) =
            waiting(state.waiting().filter(|(key, _)| lacks(key)), is_born);
        let age = state.durability.trouble_age(reactor::now());
        Pending {
            bytes,
            file_count,
            memory_bytes,
            memory_file_count,
            trouble: age
                .zip(state.durability.trouble())
                .map(|(age, trouble)| (age, state.cause(trouble.errno))),
        }
    }

    /// Ends all waiting for the nodes, for what they are to take and for what they are to give: a
    /// [`close`](Volume::close) that is under way turns to the journal once its last request is answered or has failed.
    pub fn give_up(&self) {
        self.gives_up.set(true);
        self.lease.changed.notify_all();
        self.progress.notify_all();
    }

    /// Commits everything, stops the background work, and leaves the volume unusable for changes. What the nodes do not
    /// take within the patience, or before [`give_up`](Volume::give_up), goes to the journal.
    ///
    /// # Suspends
    ///
    /// Until all is in one place or the other.
    pub fn close(&self) -> Ending {
        let background = std::mem::take(&mut *self.background.borrow_mut());
        for handle in background {
            handle.terminate();
            let _ = handle.join();
        }
        // It needs the nodes, and the next mount does it as well.
        if !self.gives_up.get()
            && !self.is_in_doubt()
            && let Err(errno) = self.reclaim_all()
        {
            tracing::warn!(%errno, "removed files that were open are left to the next mount");
        }
        if !self.gives_up.get() && !self.is_away() {
            self.look_for_lost(None, true);
        }
        // From here on nothing changes any more, so the newest number stands.
        self.state.borrow_mut().read_only = true;
        // The last commit says so, or one of its own.
        self.lease.session.borrow_mut().leave();
        // Nodes that are away already are waited for no more; those that go now may be back soon.
        let newest = self.state.borrow().durability.newest();
        let stored = match self.is_away() && !self.options.hard {
            true => self.sync_to_near(newest),
            false => self.sync_to(newest),
        };
        let has_left = stored.is_ok() && self.leave();
        let undone = self.look_whether_undone(has_left);
        // Not before: who waits for this mount to store what it closed has to hear of it meanwhile.
        let watchers = std::mem::take(&mut *self.watchers.borrow_mut());
        for watcher in watchers {
            watcher.terminate();
            let _ = watcher.join();
        }
        self.closing.set(true);
        self.work.notify_all();
        self.news.arrived.notify_all();
        let committer = self.committer.borrow_mut().take();
        if let Some(committer) = committer {
            if !has_left {
                committer.terminate();
            }
            let _ = committer.join();
        }
        let ending = match stored {
            Err(cause) if !self.waits_for_nothing() => self.spill(cause),
            stored => {
                if stored.is_err() {
                    self.drop_journal();
                }
                match self.lost_files(None) {
                    0 => Ending::Stored,
                    file_count => Ending::Damaged { file_count },
                }
            }
        };
        if let Some(journal) = &self.journal {
            journal.release();
        }
        let ending = match undone {
            Some(Undone { seen, found }) => {
                let beside = (ending != Ending::Stored).then(|| Box::new(ending));
                Ending::Undone { seen, found, beside }
            }
            None => ending,
        };
        match self.damaged_journal.take() {
            Some(kept) => {
                let beside = (ending != Ending::Stored).then(|| Box::new(ending));
                Ending::JournalDamaged { kept, beside }
            }
            None => ending,
        }
    }

    /// Keeps in the journal what the nodes did not take.
    fn spill(&self, cause: Errno) -> Ending {
        let cause = self.state.borrow().cause(cause);
        let Pending { bytes, file_count, memory_bytes, .. } = self.pending();
        let Some(journal) = &self.journal else {
            let journal = "there is no journal".into();
            return Ending::Lost { bytes, cause, journal };
        };
        let mut files = journal.turn();
        // What it has is there already, be it as an earlier mount left it, and what it lacks is added: to write all of it anew would
        // need room for that. Of whoever is shut out it has content, too, that is only pointed to here by now, and that the nodes do
        // not give back.
        let (is_kept, is_noted) = {
            let durability = &self.state.borrow().durability;
            let newest = durability.newest();
            (durability.is_kept(newest), durability.is_noted(newest))
        };
        let written = if is_kept { Ok(()) } else { self.write_group(journal, &mut files) };
        match written {
            Ok(()) => Ending::InJournal { bytes, file_count, cause },
            // All of it was noted before, names as well as files, and that stays as it is.
            Err(error) if is_noted => {
                tracing::warn!(%error, "what waits is in the journal, but may not outlive a power cut there");
                Ending::InJournal { bytes, file_count, cause }
            }
            Err(error) => Ending::Lost { bytes: memory_bytes, cause, journal: error.to_string() },
        }
    }
}
