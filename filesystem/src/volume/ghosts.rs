//! What another mount removed while programs here have it open.
//!
//! The tree has none of it any more, but the tree that we came from has, and nothing that is stored goes away while a
//! mount may need it. So as long as the kernel refers to such an inode, a *ghost*, its keys are read from that older tree:
//! it costs a number in memory, however many files the other removed and however large they are. It shows no names.
//!
//! Once a program changes a ghost it gets a body: its keys are copied into our changes, as an inode without a name that is
//! open here, and its orphan record keeps others off it.

use super::Volume;
use super::merge::sides::Side;
use super::state::{Change, State, xattr_range};
use crate::cache::NumberMap;
use crate::errno::Errno;
use crate::format::{Key, Pointer, Truncation};
use crate::operations::{Inode, Time};

impl State {
    /// Notes inodes that are gone from the tree, but were in `base` and are referred to.
    /// `dead` is what was being removed of files in `base`.
    pub(super) fn keep_ghosts(
        &mut self,
        removed: &[u64],
        base: Option<Pointer>,
        dead: &NumberMap<u64, Truncation>,
    ) {
        let Some(base) = base else { return };
        for inode in removed {
            // What we had changed of it has kept it alive, or is in another file now.
            let is_kept = self.active.changes.contains_key(&Key::Inode(*inode));
            if !is_kept && self.references.contains_key(inode) {
                self.ghosts.insert(*inode, base);
                if let Some(truncation) = dead.get(inode) {
                    self.truncations.insert(*inode, *truncation);
                }
            }
        }
    }

    /// Returns the tree that holds what is stored of `key`.
    pub(super) fn tree_of(&self, key: &Key) -> Option<Pointer> {
        if self.ghosts.is_empty() {
            return self.tree;
        }
        let ghost = key.owner().and_then(|inode| self.ghosts.get(&inode));
        ghost.copied().or(self.tree)
    }
}

impl Volume {
    /// Gives a ghost a body, before it is changed.
    ///
    /// # Suspends
    ///
    /// While what it consists of is read, if it is one.
    pub(super) fn embody(&self, number: Inode) -> Result<(), Errno> {
        let state = self.state.borrow();
        let inode = state.at(number);
        let Some(tree) = state.ghosts.get(&inode).copied() else { return Ok(()) };
        drop(state);
        let mut body = Vec::new();
        let mut keys = Side::new(self, Some(tree)).scan((xattr_range(inode).0, Key::Inode(inode + 1)));
        while let Some((key, change)) = keys.next()? {
            if !matches!(key, Key::Entry(..)) {
                body.push((key, change));
            }
        }
        self.change_step(|state| {
            if state.ghosts.contains_key(&inode) {
                let mut record = state.record(inode)?;
                record.nlink = 0;
                state.ghosts.remove(&inode);
                for (key, change) in &body {
                    state.set(key.clone(), change.clone());
                }
                if let Some(truncation) = state.truncations.get(&inode).copied() {
                    state.set(Key::Truncation(inode), Change::Truncation(truncation));
                }
                state.set(Key::Orphan(inode), Change::Orphan(state.orphan_record(Time::now())));
                state.set_record(inode, record);
            }
            Ok(())
        })
    }
}
