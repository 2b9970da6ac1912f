//! How an operation changes the state, and when other mounts see what it changed.
//!
//! What a program writes, its close publishes. A new name, a rename, a removal, a mode: these have no close, and a program
//! that has made one tells others of it in ways of its own. So where others are mounted each of them is published before
//! it is answered, as a close is, and whoever opens the file next, wherever that is, finds it. Two are left to the close
//! that follows: the new name of a regular file, and what is done to a file that is being written. Nor is it waited for
//! with nodes that take nothing: the change goes to the journal before it is answered, and is seen once they do.
//!
//! What is not published when it is answered, since nobody else is there or a close follows, outlives this process all the
//! same, as what is closed does: it is noted in the journal, with all that was changed before it, in the order in which
//! programs did it. A program whose commit is a rename or a removal (SQLite's is that of its journal) relies on that. Where
//! it is in doubt whether the nodes take anything a power cut leaves it too (see [`super::away`]).

use std::ops::RangeInclusive;

use super::Volume;
use super::lease::LONG;
use crate::errno::Errno;
use crate::format::Key;
use crate::operations::{Inode, Operations, Sharing};

impl Volume {
    pub(super) fn change<T>(
        &self,
        operation: impl FnMut(&mut super::State) -> super::Step<T>,
    ) -> Result<T, Errno> {
        self.wait_for_memory()?;
        let value = self.change_step(operation)?;
        self.after_change();
        Ok(value)
    }

    /// Changes one inode, which gets a body first if it is a ghost.
    pub(super) fn change_inode<T>(
        &self,
        number: Inode,
        mut operation: impl FnMut(&mut super::State, u64) -> super::Step<T>,
    ) -> Result<T, Errno> {
        loop {
            self.embody(number)?;
            let done = self.change(|state| {
                let inode = state.at(number);
                // Another mount may have removed it while we waited for this turn.
                if state.ghosts.contains_key(&inode) {
                    return Ok(None);
                }
                operation(state, inode).map(Some)
            })?;
            if let Some(value) = done {
                return Ok(value);
            }
        }
    }

    /// Has what others closed before be removed as well: a change that the remover has not seen would keep the file, or the
    /// directory, although the removal was said to be done.
    ///
    /// # Suspends
    ///
    /// As an open does.
    pub(super) fn look_before_removal(&self) {
        self.refresh();
    }

    /// Wakes the reclaimer if something lost its last name and nobody refers to it, or much was truncated.
    pub(super) fn after_removal(&self) {
        let state = self.state.borrow();
        if !state.reclaim.is_empty() || !state.truncations.is_empty() {
            drop(state);
            self.reclaim.notify_all();
        }
    }

    /// As [`Volume::publish_changes`], but for what a close that follows publishes.
    ///
    /// # Errors
    ///
    /// As there.
    ///
    /// # Suspends
    ///
    /// As there.
    pub(super) fn publish_unless_closed_later(&self, is_closed_later: bool) -> Result<(), Errno> {
        match is_closed_later {
            false => self.publish_changes(),
            true if !self.watches() => Ok(()),
            true if self.is_in_doubt() => self.keep_changes(),
            true => self.note_changes(),
        }
    }

    /// Whether the register is watched: others may be there, and nodes may go.
    fn watches(&self) -> bool {
        self.sharing() != Sharing::Alone
    }

    /// Publishes what was changed, where others are mounted; where the nodes do not take it, or may be away, keeps it; and else
    /// notes it.
    ///
    /// # Errors
    ///
    /// As [`Volume::keep_changes`] or [`Volume::note_changes`].
    ///
    /// # Suspends
    ///
    /// Until then, or until the nodes have taken nothing for a moment.
    pub(super) fn publish_changes(&self) -> Result<(), Errno> {
        if !self.watches() {
            return Ok(());
        }
        // In write-back mode closes don't wait either.
        let publishes = self.sharing() == Sharing::WithOthers && !self.options.write_back && !self.is_away();
        if publishes && self.is_published_soon() {
            self.wait_until_settled();
            return Ok(());
        }
        let newest = self.state.borrow().durability.newest();
        self.refuse_if_shut(newest)?;
        // It may yet be that they are away only for a moment; but nothing is in the tree a moment later then.
        if publishes || self.is_in_doubt() { self.keep_changes() } else { self.note_changes() }
    }

    /// Waits until what was changed is published, and says whether it is.
    fn is_published_soon(&self) -> bool {
        let newest = self.state.borrow().durability.newest();
        if self.state.borrow_mut().durability.want(newest) {
            self.work.notify_all();
        }
        let is_published = || {
            let state = self.state.borrow();
            state.durability.is_committed(newest) || !state.has_changes()
        };
        let published = reactor::timeout(self.options.sync_patience, || {
            while !is_published() && !self.gives_up.get() && !self.is_shut() && !self.has_trouble_for(LONG) {
                self.progress.wait();
            }
        });
        published.is_ok() && is_published()
    }

    /// Whether a close will publish what is done to a file now: it has changes that came after the last. One that was closed
    /// while the nodes took nothing has changes as well, but nobody need close it again.
    pub(super) fn is_being_written(&self, inode: Inode) -> bool {
        self.state.borrow().unclosed.contains(&inode) && self.dirty_delta(inode) != 0
    }

    /// A regular file is made, or its content changed: a close follows.
    pub(super) fn note_unclosed(&self, inode: Inode) {
        self.state.borrow_mut().unclosed.insert(inode);
    }

    /// Returns the number of the newest delta that holds a change of `inode`, or 0.
    pub(super) fn dirty_delta(&self, inode: Inode) -> u64 {
        let state = self.state.borrow();
        let inode = state.at(inode);
        let holds = |delta: &super::state::Delta| {
            keys_of(inode).into_iter().any(|keys| delta.changes.range(keys).next().is_some())
        };
        if holds(&state.active) {
            state.active.number
        } else {
            state.committing.as_ref().filter(|delta| holds(delta)).map_or(0, |delta| delta.number)
        }
    }
}

/// The keys of a file's record and content.
fn keys_of(inode: u64) -> [RangeInclusive<Key>; 2] {
    [Key::Inode(inode)..=Key::Inode(inode), Key::Extent(inode, 0)..=Key::Extent(inode, u64::MAX)]
}
