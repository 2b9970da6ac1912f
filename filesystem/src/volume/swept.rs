//! What only takes away what is left of a file whose removal is stored: nobody waits for it.
//!
//! A file's removal is what a program did and was told. Its keys go afterwards, once it is closed (see [`super::reclaim`]): no
//! program asked for that, and any mount does it as well. So it is neither counted as waiting nor journaled, and an end that
//! leaves nothing else undone has stored everything.

use super::Volume;
use super::state::{Change, State};
use crate::format::Key;

impl State {
    /// What is taken away of this inode from here on no program has asked for.
    pub(super) fn sweep(&mut self, inode: u64) {
        let told = self.durability.newest();
        self.active.swept.entry(inode).or_insert(told);
    }

    /// The changes that are not committed and that anybody waits for, each key once.
    pub(crate) fn waiting(&self) -> impl Iterator<Item = (&Key, &Change)> {
        let committing = self.committing.iter().flat_map(|delta| &delta.changes);
        // What was changed again since counts once.
        let older = committing.filter(|(key, _)| !self.active.changes.contains_key(*key));
        self.active.changes.iter().chain(older).filter(|(key, _)| !self.is_swept(key))
    }

    /// Whether a change of `key` only takes away what is left of a file, and a quorum has the file's removal: no program asked
    /// for that, and any mount does it as well.
    pub(crate) fn is_swept(&self, key: &Key) -> bool {
        let inode = match key {
            Key::Orphan(inode) | Key::Truncation(inode) => Some(*inode),
            key => key.owner(),
        };
        let told = inode.and_then(|inode| {
            let older = self.committing.as_ref().and_then(|delta| delta.swept.get(&inode));
            older.or_else(|| self.active.swept.get(&inode))
        });
        told.is_some_and(|told| self.durability.is_committed(*told))
    }
}

impl Volume {
    /// Whether a quorum has all that programs were told.
    pub(super) fn waits_for_nothing(&self) -> bool {
        self.state.borrow().waiting().next().is_none()
    }

    /// Removes what the journal has: nothing of it waits. Who reads it would count what is left of removed files.
    pub(super) fn drop_journal(&self) {
        let newest = self.state.borrow().durability.newest();
        if let Some(journal) = &self.journal {
            let mut files = journal.turn();
            journal.on_committed(&mut files, newest);
        }
    }
}
