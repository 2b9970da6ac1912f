//! What a mount does so that whoever collects garbage deletes nothing that it needs; why that is enough is told in
//! `docs/collection.md`.
//!
//! - It is in the tree as a session *before* it stores anything that no commit names yet: a collector counts on that.
//! - It *heeds* a collection, as soon as it stands on a root that has its mark: what is open here and was removed elsewhere gets
//!   a body in the tree, and the next commit, of all that there is to commit, says that the way is clear.
//! - While the mark is there, a commit that points to what may have been stored before says so ([`Charter::keep`]).
//!
//! [`Charter::keep`]: crate::access::Charter::keep

use std::cell::Cell;
use std::collections::BTreeSet;

use bytes::Bytes;

use super::Volume;
use super::commit::Outcome;
use super::lease;
use super::objects::Grown;
use super::session::Intent;
use super::state::{Attempt, Change, Delta, State};
use super::values::encode_value;
use crate::access::collection::short;
use crate::chunk::Packer;
use crate::errno::Errno;
use crate::format::{INLINE_SIZE_MAX, Key};
use crate::tree::commit::{Change as TreeChange, Value};

/// In the place of a delta's number in a root's commit id: there is none, and its tree has another session.
const ENTRY: u64 = u64::MAX - 1;

/// Somebody has pointers in his hands that are in no tree that we stand on, and in no change yet.
pub(super) struct Hold<'a>(&'a Cell<usize>);

impl Drop for Hold<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

impl State {
    /// Whether a commit of the active delta stores objects before it is published.
    pub(super) fn has_frames(&self) -> bool {
        let is_frame = |change: &Change| {
            let is_large = matches!(change, Change::Frame(bytes) if bytes.len() > INLINE_SIZE_MAX);
            is_large || self.doubt.of(change).is_some()
        };
        self.active.changes.values().any(is_frame)
    }
}

impl Volume {
    /// Whether the next commit would store objects, and the tree does not have this session yet.
    pub(super) fn has_to_enter_first(&self) -> bool {
        let state = self.state.borrow();
        let may_write = state.charter.features.unwritable() == 0;
        may_write && state.has_frames() && self.lease.session.borrow().is_absent()
    }

    /// Announces the session in a root of its own.
    ///
    /// # Suspends
    ///
    /// Until that is published, or another writer's root is taken over, however long that takes.
    pub(super) fn enter_first(&self) -> Result<(), Errno> {
        let volume = self.state.borrow().charter.volume;
        let mut packer = Packer::new(self.store.tag(), volume, self.version.get() + 1);
        let sessions = self.lease.session.borrow().changes(&Intent::Enter, false);
        let change = |(id, record): (&u64, &Option<_>)| TreeChange {
            key: Bytes::copy_from_slice(&Key::Session(*id).encode()),
            value: record.map(|record| {
                let mut value = Vec::new();
                encode_value(&Change::Session(record), &mut value);
                Value::Raw(value.into())
            }),
        };
        let grown = Grown::new(self, sessions.iter().map(change).collect(), &mut packer)?;
        self.kept.take();
        let attempt = Attempt { number: ENTRY, tree: grown.tree };
        let begun = lease::now();
        match self.publish(attempt, &grown.objects, packer.take_ready(), false)? {
            Outcome::Lost(winner) => {
                self.race.on_lost();
                self.take_over(&winner, None)
            }
            Outcome::Published(record) => {
                let mut state = self.state.borrow_mut();
                state.tree = grown.tree;
                state.objects = grown.objects;
                state.header = Some(record.header_hash);
                drop(state);
                self.stand_on(&record);
                // What the journal has stands on another root than it says.
                if let Some(journal) = &self.journal {
                    journal.on_rebased();
                }
                self.lease.session.borrow_mut().on_committed(&sessions, false, begun, lease::now());
                self.lease.changed.notify_all();
                self.on_stored();
                Ok(())
            }
        }
    }

    /// Lets no collection have its way before this is dropped: for whoever reads pointers, waits, and then puts them into a
    /// change, since what they were read from may be gone by then.
    pub(super) fn hold(&self) -> Hold<'_> {
        self.holds.set(self.holds.get() + 1);
        Hold(&self.holds)
    }

    /// Clears the way for a collection that is under way; if that can't be done now, the next look tries again.
    ///
    /// # Suspends
    ///
    /// While it is read what is open here and was removed elsewhere.
    pub(super) fn heed_collection(&self) {
        let collection = self.state.borrow().charter.collection();
        let version = collection.as_ref().map_or(0, |collection| collection.version);
        if self.options.read_only || self.is_shut() || self.lease.session.borrow().collection() == version {
            return;
        }
        if let Some(collection) = collection {
            let ghosts: Vec<u64> = {
                let state = self.state.borrow();
                let older = state.ghosts.iter().filter(|(_, tree)| collection.is_older(tree.birth));
                let kept = older.filter(|(inode, _)| !state.doubt.has_ghost(**inode));
                kept.map(|(inode, _)| *inode).collect()
            };
            if self.holds.get() > 0 {
                return;
            }
            for inode in ghosts {
                if let Err(errno) = self.embody_inode(inode) {
                    tracing::warn!(
                        %errno,
                        "garbage is being collected, and what is open here and was removed elsewhere cannot be read now: \
                         the collector has to wait"
                    );
                    return;
                }
            }
        }
        // Whoever took hold while those were read did so on a root that has the mark.
        self.lease.session.borrow_mut().on_collection(version);
        self.work.notify_all();
    }

    /// Returns what `delta` points to anew of what was stored before the collection that is under way.
    pub(super) fn brought_back(&self, delta: &Delta) -> BTreeSet<[u8; 8]> {
        let Some(collection) = self.state.borrow().charter.collection() else { return BTreeSet::new() };
        let objects = delta.changes.values().filter_map(|change| match change {
            Change::Stored(pointer) if collection.is_older(pointer.birth) => Some(short(&pointer.address)),
            _ => None,
        });
        objects.collect()
    }
}
