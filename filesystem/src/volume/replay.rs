//! What an earlier mount's end left in the journal, brought back at the next opening.
//!
//! Which of it a root contains already is decided exactly, whoever published since: the newest tree's record of that
//! writer names the last of its deltas that is in it. The rest goes on top of the root that it was made on, and from there
//! onto the newest one like any changes that lost a race. Nothing is written for that: the files stay as they lie until a root has
//! what is in them, or a snapshot takes their place, so that a start needs no room on the journal's disk. That root's record of
//! the writer says whose journal it began with, so that files that are still there at another start are not taken for new.

use std::collections::BTreeMap;

use dht::Record;

use super::state::{Change, Delta};
use super::values::decode_raw;
use super::{OpenError, Volume};
use crate::access::Root;
use crate::errno::Errno;
use crate::format::{FRAME_SIZE_MAX, Pointer, VolumeId};
use crate::journal::{Item, Journal, Lacking};

/// A root that changes were made on, and its version, or one below that.
#[derive(Clone, Copy)]
pub(super) struct Base {
    version: u64,
    pub(super) tree: Option<Pointer>,
}

/// What was put back, and the number up to which that is.
pub(super) struct Replayed {
    through: u64,
    is_empty: bool,
    /// What was acknowledged, and neither the journal nor the root has.
    lacking: Option<Lacking>,
}

impl Replayed {
    fn nothing(lacking: Option<Lacking>) -> Replayed {
        Replayed { through: 0, is_empty: true, lacking }
    }
}

/// A journal as it is read.
#[derive(Default)]
pub(super) struct Left {
    /// Whose changes these are.
    pub(super) volume: Option<VolumeId>,
    session: [u8; 8],
    /// Up to this number the newest tree contains what this session changed.
    contained: u64,
    /// The delta that the next changes are in.
    number: u64,
    /// The trees that the session's roots had, by the number up to which they contain it. The last may be of a root that
    /// was announced and never published.
    bases: BTreeMap<u64, Base>,
    /// The newest root that it tells.
    root: Option<Record>,
    pub(super) delta: Delta,
}

impl Left {
    /// Takes the next item; of what its session changed, the newest tree has everything up to `contained`.
    pub(super) fn take(&mut self, item: Item, contained: u64) {
        match item {
            Item::Snapshot { session, volume, .. } => {
                *self = Left { volume: Some(volume), session, contained, ..Left::default() };
            }
            Item::Base { number, version, tree } => {
                self.bases.insert(number, Base { version, tree });
            }
            Item::Root(record) => self.root = Some(record),
            Item::Delta(number) => self.number = number,
            Item::Set(..) | Item::Removed(_) | Item::Born(_) if self.number <= self.contained => {}
            Item::Born(run) => self.delta.born.add_run(run),
            Item::Removed(key) => self.delta.insert(key, Change::Removed),
            Item::Set(key, value) => match decode_raw(&key, &value, &[0; 32]).filter(is_sane) {
                Some(change) => self.delta.insert(key, change),
                None => tracing::error!(inode = key.owner(), "a journal entry is malformed and left out"),
            },
        }
    }

    /// The tree that the changes were made on; `None` if no base says so, and it is the newest one.
    ///
    /// A commit that had nothing to say raised the number and left the tree, with its record, as it was. So the first base from
    /// that record on is that very tree; a root that was published says so itself, by a record of its own.
    pub(super) fn base(&self) -> Option<Base> {
        self.bases.range(self.contained..).next().map(|(_, base)| *base)
    }
}

impl Volume {
    /// Puts back what the journal has and no root; `root`, which is `record`, is what the register names now, or, without the nodes,
    /// what this machine has. The journal stays as it is.
    ///
    /// # Errors
    ///
    /// [`OpenError`].
    ///
    /// # Suspends
    ///
    /// While the journal and, if another writer went on, both trees are read.
    pub(super) fn replay_journal(&self, root: &Root, record: &Record) -> Result<Replayed, OpenError> {
        let Some(journal) = &self.journal else { return Ok(Replayed::nothing(None)) };
        let mut replay = Left::default();
        let mut contained = 0;
        journal.replay(|items| {
            items.into_iter().try_for_each(|item| {
                if let Item::Snapshot { session, device, .. } = &item {
                    contained = self.contained_of(root.tree, session, *device).map_err(OpenError::Tree)?;
                }
                replay.take(item, contained);
                Ok::<_, OpenError>(())
            })
        })?;
        let lacking = self.lacking_of(journal, root).map_err(OpenError::Tree)?;
        if replay.delta.changes.is_empty() {
            return Ok(Replayed::nothing(lacking));
        }
        let base = replay.base();
        let directory = journal.directory().to_owned();
        // What was made on a newer one can't be put on top of it: what that had, and was removed or changed since, would be taken for
        // what others have removed or changed.
        if let Some(Base { version, .. }) = base
            && version > record.version
            && !self.options.accept_older
        {
            let root = replay.root.filter(|root| root.version >= version).map(Box::new);
            return Err(OpenError::JournalAhead { directory, base: version, found: record.version, root });
        }
        let count = replay.delta.changes.len();
        tracing::info!(count, "replaying the journal of a mount that did not get everything stored");
        let base = base.map_or(root.tree, |base| base.tree);
        {
            let mut state = self.state.borrow_mut();
            state.doubt.on_replay(root.charter.let_through());
            state.tree = base;
            for (key, change) in replay.delta.changes {
                state.set_replayed(key, change);
            }
            state.active.born.add_all(&replay.delta.born);
        }
        if base != root.tree {
            self.rebase(root, record).map_err(|errno| OpenError::JournalBase { directory, errno })?;
        }
        self.begun_with.set((replay.session, replay.number.max(replay.contained)));
        Ok(Replayed { through: self.state.borrow().durability.newest(), is_empty: false, lacking })
    }

    /// What was acknowledged and is lacking in the journal, unless the root has it. Without the nodes a file that is not there may have
    /// served: of a root that only they have.
    fn lacking_of(&self, journal: &Journal, root: &Root) -> Result<Option<Lacking>, Errno> {
        let Some(lacking) = journal.lacking() else { return Ok(None) };
        // Of one that is damaged that is told.
        if journal.unread() > 0 || self.options.accept_older || (!lacking.is_cut && self.store.is_offline()) {
            return Ok(None);
        }
        let contained = self.contained_of(root.tree, &lacking.session, lacking.device)?;
        Ok(Some(lacking).filter(|lacking| contained < lacking.delta))
    }

    /// Takes over the files of what was put back.
    ///
    /// # Errors
    ///
    /// [`OpenError`].
    ///
    /// # Suspends
    ///
    /// Until they are safe from a power cut, or gone for good if there is nothing of them left to store.
    pub(super) fn take_journal(&self, replayed: Replayed) -> Result<(), OpenError> {
        let Some(journal) = &self.journal else { return Ok(()) };
        let mut files = journal.turn();
        if let Some(kept) = journal.keep_damaged(&files)? {
            tracing::error!(
                kept = %kept.display(),
                "the journal is damaged: of what was closed here and not stored yet, a part may be missing or have zeros. What can be \
                 read of it is put in, and the damaged files are kept under that name and the like"
            );
            // The end says it too: that all is stored is not so.
            *self.damaged_journal.borrow_mut() = Some(kept);
        }
        if let Some(lacking) = replayed.lacking {
            let kept = journal.keep_lacking(&mut files, lacking)?;
            tracing::error!(
                kept = %kept.display(),
                "the journal lost its end: the last of what was closed or synced here and not stored yet is missing, for it was cut off, or a file of it removed. What there is of it is put in, and kept under that name and the like"
            );
            self.damaged_journal.borrow_mut().get_or_insert(kept);
        }
        if replayed.is_empty {
            journal.remove_found(&mut files)?;
            return Ok(());
        }
        let is_kept = journal.keep_found(&mut files, replayed.through);
        let mut state = self.state.borrow_mut();
        state.durability.on_journaling(replayed.through);
        state.durability.on_journaled(replayed.through, is_kept);
        let newest = state.durability.newest();
        state.durability.want(newest);
        Ok(())
    }

    /// Up to which number the tree contains what `session` changed, whose device was `device`.
    fn contained_of(&self, tree: Option<Pointer>, session: &[u8; 8], device: u64) -> Result<u64, Errno> {
        let mut contained = 0;
        // Whoever began with its journal may go by another number.
        for device in [device, self.options.device] {
            let written = self.written_by(tree, device)?;
            contained = written.map_or(contained, |written| contained.max(written.contained_of(session)));
        }
        Ok(contained)
    }
}

fn is_sane(change: &Change) -> bool {
    !matches!(change, Change::Frame(bytes) if bytes.len() > FRAME_SIZE_MAX)
}
