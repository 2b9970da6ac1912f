//! Room for a change before it is made: in memory, and on the nodes.
//!
//! What is acknowledged must have a place to go. So whoever is about to change something waits first, while too much waits
//! in memory for a commit; and a change that takes space is refused if the nodes have none for it, so that `write` says
//! so, and not a commit that nobody listens to. What frees space is let through always.
//!
//! How much space there is is asked about once a second while somebody writes; what was put since then is taken off. It
//! is an estimate all the same: others write too. A commit that finds no space keeps its changes, and `writable` refuses
//! new ones until one gets through.

use std::cell::Cell;
use std::time::{Duration, Instant};

use super::Volume;
use crate::errno::Errno;

/// How long an answer about the free space is good enough.
const SPACE_LIFETIME: Duration = Duration::from_secs(1);
/// Kept free for tree nodes and roots of the commits that follow: some hundred small ones, or one of 128 MiB.
const COMMIT_RESERVE_BYTES: u64 = 4 * 1024 * 1024;
/// While another writer wins the races, no more than this may gather beside the commit that is on its way: with less than
/// an object of new content it needs no uploads before it tries again.
const CONTENDED_BYTES_MAX: usize = 512 * 1024;

/// What is known of the free space.
#[derive(Default)]
pub(super) struct Space {
    free: Cell<Option<(u64, Instant)>>,
    /// Bytes put since.
    put_bytes: Cell<u64>,
}

impl Space {
    /// Takes note of bytes that the store took.
    pub(super) fn on_put(&self, bytes: usize) {
        self.put_bytes.set(self.put_bytes.get() + bytes as u64);
    }

    fn left(&self) -> Option<u64> {
        self.free.get().map(|(free, _)| free.saturating_sub(self.put_bytes.get()))
    }
}

/// Returns how many bytes on the nodes changes of `bytes` may take: objects are padded, and leaves are written anew.
fn stored_bytes(bytes: u64) -> u64 {
    bytes + bytes / 8 + COMMIT_RESERVE_BYTES
}

impl Volume {
    /// Keeps at most so much in memory from now on of what was read, and as much of what waits for a commit: for volumes that share
    /// what there is. What is more by now goes as it is committed, and nobody adds to it before.
    pub fn set_memory_max(&self, bytes: usize) {
        self.dirty_bytes_max.set(bytes);
        self.state.borrow_mut().cache.set_size_bytes_max(bytes);
    }

    /// Waits until there is room in memory for one more change, of whatever kind.
    ///
    /// # Errors
    ///
    /// Why the store takes nothing, as [`Volume::wait_until`] has it.
    ///
    /// # Suspends
    ///
    /// While too much waits for a commit.
    pub(super) fn wait_for_memory(&self) -> Result<(), Errno> {
        self.refuse_change_if_shut()?;
        self.wait_until(|state| {
            // It may be set meanwhile.
            let bytes_max = self.dirty_bytes_max.get();
            let is_crowded = self.race.is_contended()
                && state.committing.is_some()
                && state.active.size_bytes >= CONTENDED_BYTES_MAX;
            let is_full = state.durability.trouble().is_some_and(|trouble| trouble.errno == Errno::ENOSPC);
            // On a full store waiting brings nothing, but a removal may.
            (is_full || (state.dirty_bytes() < bytes_max && !is_crowded)).then_some(Ok(()))
        })
    }

    /// Makes sure that the nodes have space for a change that takes `bytes` more, as well as for all that waits.
    ///
    /// # Errors
    ///
    /// `ENOSPC`; or why the store takes nothing, if only a commit could tell.
    ///
    /// # Suspends
    ///
    /// Where the space is not known, or nearly used up.
    pub(super) fn make_room(&self, bytes: usize) -> Result<(), Errno> {
        self.refuse_change_if_shut()?;
        let now = reactor::now();
        match self.space.free.get() {
            None => self.ask_for_space(),
            Some((free, at)) if now.saturating_duration_since(at) > SPACE_LIFETIME => {
                // The next writers need not ask as well.
                self.space.free.set(Some((free, now)));
                if let Some(volume) = self.me.upgrade() {
                    reactor::spawn(move || volume.ask_for_space());
                }
            }
            Some(_) => {}
        }
        // Nodes that do not say how full they are refuse what they can't take.
        let fits = || {
            let dirty = self.state.borrow().dirty_bytes();
            self.space.left().is_none_or(|left| stored_bytes((dirty + bytes) as u64) <= left)
        };
        if fits() {
            return Ok(());
        }
        // What waits may take less than it might; after the commit that is known.
        self.sync_all()?;
        self.ask_for_space();
        if fits() { Ok(()) } else { Err(Errno::ENOSPC) }
    }

    fn ask_for_space(&self) {
        let before = self.space.put_bytes.get();
        match self.store.usage() {
            Ok(usage) => {
                let free = usage.total_bytes.saturating_sub(usage.used_bytes);
                self.space.free.set(Some((free, reactor::now())));
                self.space.put_bytes.set(self.space.put_bytes.get().saturating_sub(before));
            }
            Err(error) => tracing::debug!(%error, "the free space is not known"),
        }
    }
}
