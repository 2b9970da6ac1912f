//! Removing in the background: files without names, and what large truncations left.
//!
//! Each turn is one bounded step (see [`super::truncation`]), then it is the next file's turn: a file of a terabyte keeps
//! no other waiting. What is removed waits for room as every change does, so memory stays flat; what is left when a
//! volume closes, or crashes, is on record, and the next mount goes on with it.

use super::Volume;
use super::commit::BackOff;
use super::state::{Change, State, Step};
use super::truncation::Progress;
use crate::cache::NumberMap;
use crate::errno::Errno;
use crate::format::{Key, Pointer, Truncation};

/// Steps that closing takes for what was removed and open; the rest is the next mount's. Some 30,000 keys: a second.
const CLOSING_STEP_COUNT_MAX: usize = 64;

impl State {
    /// Takes truncations over from a tree; those that are not stored yet go over them.
    pub(crate) fn take_truncations(&mut self, truncations: NumberMap<u64, Truncation>) {
        self.truncations = truncations;
        let range = Key::Truncation(0)..=Key::Truncation(u64::MAX);
        let committing = self.committing.clone();
        let layers = committing.iter().map(|delta| &delta.changes).chain([&self.active.changes]);
        for (key, change) in layers.flat_map(|changes| changes.range(range.clone())) {
            match (key, change) {
                (Key::Truncation(inode), Change::Truncation(truncation)) => {
                    self.truncations.insert(*inode, *truncation);
                }
                (Key::Truncation(inode), _) => drop(self.truncations.remove(inode)),
                _ => {}
            }
        }
    }
}

impl Volume {
    fn removal_step(&self, operation: impl FnMut(&mut State) -> Step<Progress>) -> Result<Progress, Errno> {
        self.wait_for_memory()?;
        // On a full store nobody waits: a removal may bring space. But many do not go on until one has.
        if self.state.borrow().dirty_bytes() >= self.dirty_bytes_max.get() {
            return Err(Errno::ENOSPC);
        }
        let progress = self.change_step(operation)?;
        self.after_change();
        reactor::yield_now();
        Ok(progress)
    }

    /// Removes the dead frames of a file below frame `below`.
    ///
    /// # Suspends
    ///
    /// While leaves are fetched, and while too much waits for a commit.
    pub(super) fn remove_dead(&self, inode: u64, below: u64) -> Result<(), Errno> {
        while self.state.borrow().dead(inode).is_some_and(|dead| dead.start < below) {
            self.removal_step(|state| state.remove_dead(inode))?;
        }
        Ok(())
    }

    pub(super) fn reclaim_loop(&self) {
        let mut back_off = BackOff::new();
        loop {
            let (orphan, truncated) = {
                let mut state = self.state.borrow_mut();
                // From whom nothing is taken, others do it.
                let may_change = !state.read_only && state.shut.is_none();
                let orphan = if may_change { state.reclaim.pop_front() } else { None };
                // A ghost's keys are another tree's, and not ours to remove.
                let mut truncated =
                    state.truncations.keys().filter(|inode| !state.ghosts.contains_key(inode));
                let truncated = truncated.next().copied().filter(|_| may_change);
                (orphan, truncated)
            };
            let result = match (orphan, truncated) {
                (Some(inode), _) => {
                    let result = self.removal_step(|state| state.reclaim(inode));
                    if let Ok(Progress::More) = result {
                        self.state.borrow_mut().reclaim.push_back(inode);
                    }
                    result
                }
                (None, Some(inode)) => self.removal_step(|state| state.remove_dead(inode)),
                (None, None) => {
                    self.reclaim.wait();
                    continue;
                }
            };
            match result {
                Ok(_) => back_off = BackOff::new(),
                Err(errno) => {
                    // It stays on record: this mount tries again, or the next does.
                    tracing::warn!(?orphan, ?truncated, %errno, "the space of what was removed is not reclaimed now");
                    back_off.pause();
                }
            }
        }
    }

    /// Removes what was removed and open: nobody refers to anything any more.
    pub(super) fn reclaim_all(&self) -> Result<(), Errno> {
        if !self.may_change() {
            return Ok(());
        }
        self.state.borrow_mut().references.clear();
        self.find_orphans()?;
        for _ in 0..CLOSING_STEP_COUNT_MAX {
            let Some(inode) = self.state.borrow_mut().reclaim.pop_front() else { break };
            if self.change_step(|state| state.reclaim(inode))? == Progress::More {
                self.state.borrow_mut().reclaim.push_back(inode);
            }
        }
        Ok(())
    }

    /// Reads which truncations are under way in the tree at `tree`.
    ///
    /// # Suspends
    ///
    /// While nodes are fetched.
    pub(super) fn read_truncations(
        &self,
        tree: Option<Pointer>,
    ) -> Result<NumberMap<u64, Truncation>, Errno> {
        let mut truncations = NumberMap::default();
        let Some(tree) = tree else { return Ok(truncations) };
        let mut from = Key::Truncation(0);
        while let Some((key, change)) =
            self.step(|state| state.next_in(&tree, &from, &Key::Truncation(u64::MAX)))?
        {
            from = key.successor();
            if let (Key::Truncation(inode), Change::Truncation(truncation)) = (key, change) {
                truncations.insert(inode, truncation);
            }
        }
        Ok(truncations)
    }
}
