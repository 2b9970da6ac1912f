//! What another mount removed while programs here have it open.
//!
//! The tree has none of it any more, but the tree that we came from has, and nothing that is stored goes away while a
//! mount may need it. So as long as the kernel refers to such an inode, a *ghost*, its keys are read from that older tree:
//! it costs a number in memory, however many files the other removed and however large they are. It shows no names.
//!
//! Once a program changes a ghost it gets a body: its keys are copied into our changes, as an inode without a name that is
//! open here, and its orphan record keeps others off it. The body has a number of its own, and the kernel's number leads
//! to it from then on (see [`super::aliases`]): under the old one the file may live on elsewhere, or come back.
//!
//! It comes back when a mount that wrote to it, and had not heard that it was removed, merges: what it wrote gets a name,
//! under the old number. Were the ghost to stay, that file would have the old content here, and be removed with the ghost.
//! So a ghost that has *returned* is none any more: if the content is another now it gets its body at once, and else the
//! program is in the file that has a name again.

use bytes::Bytes;

use super::Volume;
use super::merge::sides::Side;
use super::state::{Change, State};
use crate::cache::NumberMap;
use crate::errno::Errno;
use crate::format::{InodeRecord, Key, Pointer, Truncation};
use crate::operations::{FileKind, Inode, Time};

/// What becomes of a ghost.
pub(super) struct Body {
    /// Its number in the tree that it is read from, and the body's own.
    numbers: (u64, u64),
    /// What it consists of, under the former.
    keys: Vec<(Key, Change)>,
}

/// Ghosts whose inodes have names in a tree that is taken over.
#[derive(Default)]
pub(super) struct Returned {
    /// What there is has another content: who has these open goes on with the old one.
    bodies: Vec<Body>,
    /// These are what they were.
    pub(super) same: Vec<u64>,
}

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
            // A ghost's content is an older tree's: here it was another mount's, without a name.
            let is_ghost = self.ghosts.contains_key(inode);
            if !is_kept && !is_ghost && self.references.contains_key(inode) {
                self.ghosts.insert(*inode, base);
                if let Some(truncation) = dead.get(inode) {
                    self.truncations.insert(*inode, *truncation);
                }
            }
        }
    }

    /// Lets go of ghosts that are in the tree under a name again. `dead` is what was being removed of them.
    pub(super) fn part_from_ghosts(&mut self, returned: &Returned, dead: &NumberMap<u64, Truncation>) {
        for body in &returned.bodies {
            self.embody(body, dead.get(&body.numbers.0).copied());
        }
        for inode in &returned.same {
            self.ghosts.remove(inode);
            self.doubt.on_return(*inode);
        }
    }

    /// Makes a ghost an inode of ours, unless it was closed meanwhile.
    fn embody(&mut self, body: &Body, dead: Option<Truncation>) {
        let (inode, ours) = body.numbers;
        if self.ghosts.remove(&inode).is_none() {
            return;
        }
        // It was drawn before, and a commit may have gone since.
        self.active.born.add(ours);
        for (key, change) in &body.keys {
            let change = match change {
                Change::Inode(record) => Change::Inode(InodeRecord { nlink: 0, ..record.clone() }),
                other => other.clone(),
            };
            self.set(key.moved(ours), change);
        }
        if let Some(truncation) = dead {
            self.truncations.insert(ours, truncation);
            self.set(Key::Truncation(ours), Change::Truncation(truncation));
        }
        self.set(Key::Orphan(ours), Change::Orphan(self.orphan_record(Time::now())));
        if let Some(count) = self.references.remove(&inode) {
            self.references.insert(ours, count);
        }
        self.aliases.exchange(inode, ours);
    }

    /// Returns the tree that holds what is stored of `key`; `None` if none does, which needs no leaf to be told.
    pub(super) fn tree_of(&self, key: &Key) -> Option<Pointer> {
        let Some(inode) = key.owner() else { return self.tree };
        if self.is_born(inode) {
            return None;
        }
        self.ghosts.get(&inode).copied().or(self.tree)
    }
}

impl Volume {
    /// Gives a ghost a body, before it is changed.
    ///
    /// # Suspends
    ///
    /// While what it consists of is read, if it is one.
    pub(super) fn embody(&self, number: Inode) -> Result<(), Errno> {
        let inode = self.state.borrow().at(number);
        self.embody_inode(inode)
    }

    /// As [`Volume::embody`], of the inode itself.
    ///
    /// # Suspends
    ///
    /// As [`Volume::embody`].
    pub(super) fn embody_inode(&self, inode: u64) -> Result<(), Errno> {
        let state = self.state.borrow();
        let Some(tree) = state.ghosts.get(&inode).copied() else { return Ok(()) };
        if state.doubt.has_ghost(inode) {
            // What is left of it is no file any more that could be changed.
            return Err(Errno::EIO);
        }
        drop(state);
        let body = self.body_of(inode, tree)?;
        self.change_step(|state| {
            state.changeable()?;
            // It may have been given up, and even be another, by now.
            if state.ghosts.get(&inode) == Some(&tree) {
                let dead = state.truncations.remove(&inode);
                state.embody(&body, dead);
            }
            Ok(())
        })
    }

    /// Reads what a ghost consists of in `tree`, and draws a number for it.
    fn body_of(&self, inode: u64, tree: Pointer) -> Result<Body, Errno> {
        let ours = self.state.borrow_mut().draw_inode();
        let mut keys = Vec::new();
        let mut scan = Side::new(self, Some(tree)).scan((Key::Inode(inode), Key::Inode(inode + 1)));
        while let Some((key, change)) = scan.next()? {
            if !matches!(key, Key::Entry(..)) {
                keys.push((key, change));
            }
        }
        Ok(Body { numbers: (inode, ours), keys })
    }

    /// Finds out what becomes of `inode`, if it is a ghost, as a tree that is to be taken over has the record `theirs` of
    /// it.
    ///
    /// # Suspends
    ///
    /// While what it consists of is read.
    pub(super) fn note_returned(
        &self,
        inode: u64,
        theirs: &Bytes,
        returned: &mut Returned,
    ) -> Result<(), Errno> {
        let Some(tree) = self.state.borrow().ghosts.get(&inode).copied() else { return Ok(()) };
        let theirs = InodeRecord::decode(theirs).ok_or(Errno::EIO)?;
        if theirs.nlink == 0 {
            // Open at another mount, too, which is of no concern to us.
            return Ok(());
        }
        if self.state.borrow().doubt.has_ghost(inode) {
            // Its tree may be deleted: programs that have it open go on with what the others wrote.
            returned.same.push(inode);
            return Ok(());
        }
        let content = Side::new(self, Some(tree)).record(inode)?.map(|record| record.content);
        // Only a regular file becomes two, as in a merge; and who may not write can't give it a body: programs that
        // have it open go on with what the others wrote.
        let is_same = theirs.kind != FileKind::Regular || content == Some(theirs.content);
        if is_same || self.state.borrow().read_only {
            returned.same.push(inode);
        } else {
            returned.bodies.push(self.body_of(inode, tree)?);
        }
        Ok(())
    }
}
