//! Commits: a delta becomes frames, nodes and a root.
//!
//! 1. The active delta is taken away whole; new changes go to the next.
//! 2. Its frames are sealed into objects, which are put as they fill, a bounded number at a time. From then on the delta
//!    names them by pointer: whatever happens to this commit, they are not stored again, unless they come into doubt.
//! 3. Where others won twice, the root is claimed first (see [`super::race`]), so that nobody is kept out for ever.
//! 4. Its keys are merged into the tree, with a record of which delta of which writer this is; the new nodes follow the
//!    last frames, so that a small commit is one object.
//! 5. The last objects and the root are published together; the root is one compare-and-swap.
//!
//! A store that fails is tried again, with growing pauses, for as long as the volume is open. If another writer's root is
//! there, it says in its writers' records whether ours is in it after all, its answer lost; if not, [`super::rebase`] puts
//! the changes on top of it.

use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use dht::{Address, Record, SwapError};

use super::Volume;
use super::frames::put_errno;
use super::lease;
use super::objects::Grown;
use super::session::{Changes, Intent};
use super::state::{Attempt, Change, Delta};
use super::values::encode_value;
use crate::cache::Cached;
use crate::chunk::{Location, Packer};
use crate::errno::Errno;
use crate::format::{INLINE_SIZE_MAX, Key, OBJECT_SIZE_MAX, ObjectChanges, Pointer, WriterRecord};
use crate::operations::Time;
use crate::tree::commit::{Change as TreeChange, Value};

const BACK_OFF_MIN: Duration = Duration::from_millis(50);
const BACK_OFF_MAX: Duration = Duration::from_secs(5);

/// Returns the commit id that a root carries: whose it is, and which delta it holds.
pub(super) fn commit_id(session: [u8; 8], number: u64) -> [u8; 16] {
    let mut id = [0; 16];
    id[..8].copy_from_slice(&session);
    id[8..].copy_from_slice(&number.to_le_bytes());
    id
}

/// Whether less is stored once a delta is published and what it removes is collected: on a full store, it may use what is
/// kept back for that. It removes files, parts of them, or snapshots, and has no content that is not stored yet; a rename
/// removes nothing, and frames that wait since an earlier try take no more space.
fn frees_space(delta: &Delta) -> bool {
    let removes = |key: &Key, change: &Change| {
        matches!((key, change), (Key::Inode(_) | Key::Extent(..) | Key::Snapshot(_), Change::Removed))
    };
    let adds = |change: &Change| matches!(change, Change::Frame(bytes) if bytes.len() > INLINE_SIZE_MAX);
    delta.changes.iter().any(|(key, change)| removes(key, change)) && !delta.changes.values().any(adds)
}

/// Growing pauses between tries.
pub(super) struct BackOff(Duration);

impl BackOff {
    pub(super) fn new() -> BackOff {
        BackOff(BACK_OFF_MIN)
    }

    pub(super) fn pause(&mut self) {
        reactor::sleep(self.0);
        self.0 = (self.0 * 2).min(BACK_OFF_MAX);
    }
}

/// How a commit ended.
pub(super) enum Outcome {
    Published(Record),
    /// Another writer's value is in the register.
    Lost(Record),
}

impl Volume {
    /// Commits whenever someone wants it, until the volume closes.
    pub(super) fn commit_loop(self: Rc<Self>) {
        let wants_commit = || {
            let wants = self.state.borrow().durability.wants_commit() || self.session_intent().is_some();
            wants && !self.is_shut()
        };
        let mut back_off = BackOff::new();
        // The root that was told to be unreadable: the watcher offers it each second.
        let mut told = 0;
        loop {
            if !wants_commit() {
                // Nobody looks at another's root any more, whose nodes may be away.
                if self.closing.get() {
                    return;
                }
                let version = self.newer.borrow().as_ref().map_or(0, |(_, record)| record.version);
                if let Err(errno) = self.take_newer()
                    && version != told
                {
                    told = version;
                    tracing::warn!(%errno, "another writer's changes cannot be read now: it is tried again");
                }
                if !wants_commit() && !self.closing.get() {
                    self.work.wait();
                }
                continue;
            }
            match self.commit() {
                Ok(()) => back_off = BackOff::new(),
                Err(errno) => {
                    self.on_store_failed(&errno, errno);
                    // Whoever may not write any more hears of it in the root, and not in a second.
                    if errno == Errno::EACCES && self.options.list_of.is_some() {
                        self.look();
                    }
                    // What it is made on may be gone, and a newer root need not be.
                    if errno == Errno::EIO
                        && let Err(errno) = self.take_newer()
                    {
                        tracing::debug!(%errno, "nor is the newest root taken over");
                    }
                    back_off.pause();
                }
            }
        }
    }

    /// Commits the active delta.
    ///
    /// # Suspends
    ///
    /// Until it is published, or another writer's root is taken over, however long that takes.
    pub(super) fn commit(self: &Rc<Self>) -> Result<(), Errno> {
        self.refuse_if_undone()?;
        self.note_own_session();
        // Whoever waits for all sessions would not know of what it stores.
        debug_assert!(
            self.header().is_none()
                || self.options.watch_interval.is_none()
                || self.lease.session.borrow().is_announced(),
            "a commit of a mount that no other can know of"
        );
        // Before anything is taken away: a session that says it is with others says so of all that it has done alone.
        self.lease.session.borrow_mut().on_commit();
        let intent = self.session_intent();
        if self.has_to_enter_first() {
            return self.enter_first();
        }
        let delta = self.state.borrow_mut().take_delta();
        let number = delta.number;
        let result = if delta.changes.is_empty() && intent.is_none() {
            // Nothing is left to say: a merge found all of it in another's root.
            self.state.borrow_mut().committing = None;
            self.on_committed(number);
            Ok(())
        } else {
            self.commit_delta(delta, intent.as_ref())
        };
        if result.is_err() {
            self.state.borrow_mut().give_back();
        }
        // Nothing is in flight, whatever came of it: who leaves looks again.
        self.lease.changed.notify_all();
        result
    }

    fn commit_delta(self: &Rc<Self>, delta: Rc<Delta>, intent: Option<&Intent>) -> Result<(), Errno> {
        let volume = self.state.borrow().charter.volume;
        let packer = Packer::new(self.store.tag(), volume, self.version.get() + 1);
        let mut packer = packer.with_buffers(self.buffers.clone());
        // Nor for small ones where nobody looks at the register now and then.
        self.buffers.shrink(delta.size_bytes.max(OBJECT_SIZE_MAX));
        let (delta, last) = self.store_frames(delta, &mut packer)?;
        if self.race.wants_claim() {
            // Everything large is stored: what is left takes little time, and the others keep out of it.
            self.claim()?;
            self.state.borrow_mut().give_back();
            return Ok(());
        }
        self.check_numbers(&delta.born)?;
        self.note_features(&delta, !last.is_empty());
        *self.kept.borrow_mut() = self.brought_back(&delta);
        let sessions =
            intent.map_or_else(Changes::new, |intent| self.lease.session.borrow().changes(intent, true));
        let changes = self.tree_changes(&delta, &last, &sessions);
        let grown = Grown::new(self, changes, &mut packer)?;
        let attempt = Attempt { number: delta.number, tree: grown.tree };
        let objects = packer.take_ready();
        let put_bytes = objects.iter().map(|(_, object)| object.len()).sum();
        self.state.borrow_mut().attempt = Some(attempt);
        let frees = frees_space(&delta);
        let announced = self.announce(attempt);
        let published =
            announced.and_then(|()| self.publish_over_nods(attempt, &grown.objects, objects, frees));
        self.state.borrow_mut().attempt = None;
        let (outcome, begun) = published?;
        match outcome {
            Outcome::Published(record) => {
                self.freshness.note_reachable();
                self.space.on_put(put_bytes);
                let mut state = self.state.borrow_mut();
                state.committing = None;
                state.tree = grown.tree;
                state.objects = grown.objects.clone();
                state.charter.keep(&self.kept.take());
                // What was just written is in memory already: decrypted, it goes to the cache.
                for (key, location) in &last {
                    if let Some(Change::Frame(bytes)) = delta.changes.get(key) {
                        state.cache.insert(packer.pointer(location), Cached::Frame(bytes.clone()));
                    }
                }
                grown.enter(&mut state.cache);
                state.header = Some(record.header_hash);
                drop(state);
                let has_changes = !delta.changes.is_empty();
                self.lease.session.borrow_mut().on_committed(&sessions, has_changes, begun, lease::now());
                self.stand_on(&record);
                self.race.on_won();
                self.on_committed(delta.number);
                Ok(())
            }
            // Two make a volume in one register: the names of the second would be hashed under another key.
            Outcome::Lost(_) if self.header().is_none() => Err(Errno::EEXIST),
            Outcome::Lost(winner) => {
                self.race.on_lost();
                self.take_over(&winner, Some(attempt))
            }
        }
    }

    /// Publishes as [`Volume::publish`] does, and goes on from our own nods. Returns when the last try began as well.
    fn publish_over_nods(
        &self,
        attempt: Attempt,
        unfolded: &ObjectChanges,
        mut objects: Vec<(Address, Bytes)>,
        frees: bool,
    ) -> Result<(Outcome, Instant), Errno> {
        loop {
            // Where we nod, a swap that waits for its objects is overtaken again and again: they go first.
            if !objects.is_empty() && self.lease.session.borrow().is_waited_for() {
                let contents = objects.iter().map(|(_, content)| content.clone()).collect();
                if self.store.put_many(contents).is_ok() {
                    objects.clear();
                    self.on_stored();
                }
            }
            let begun = lease::now();
            match self.publish(attempt, unfolded, objects.clone(), frees)? {
                Outcome::Lost(winner) if self.take_nod(&winner) => {}
                outcome => return Ok((outcome, begun)),
            }
        }
    }

    /// Goes on from another writer's root, which may have ours below it.
    pub(super) fn take_over(&self, winner: &Record, attempt: Option<Attempt>) -> Result<(), Errno> {
        let root = self.open_newer(winner).map_err(|_| Errno::EIO)?;
        tracing::debug!(version = winner.version, author = %root.author, "another writer was first: replaying");
        if let Some(attempt) = attempt
            && self.find_out_whether_it_is_in(root.tree, attempt.number)?
        {
            let mut state = self.state.borrow_mut();
            state.committing = None;
            state.tree = attempt.tree;
            drop(state);
            // Whatever becomes of the rest: it came after the one that we stood on, and nobody here has it.
            self.version.set(self.version.get() + 1);
            self.stands_on.take();
            self.on_committed(attempt.number);
        }
        let is_claim = self.is_claim(&root);
        self.rebase(&root, winner)?;
        self.stand_on(winner);
        self.progress.notify_all();
        if is_claim {
            self.give_way();
        }
        Ok(())
    }

    /// As [`Volume::is_in`], for as long as it takes: the next try has another number, and what is in the tree by this one would
    /// be taken for another's.
    fn find_out_whether_it_is_in(&self, tree: Option<Pointer>, number: u64) -> Result<bool, Errno> {
        let mut back_off = BackOff::new();
        loop {
            match self.is_in(tree, number) {
                Err(errno @ (Errno::ETIMEDOUT | Errno::EHOSTUNREACH)) if !self.gives_up.get() => {
                    self.on_store_failed(&errno, Errno::ETIMEDOUT);
                    back_off.pause();
                }
                known => return known,
            }
        }
    }

    /// Whether the tree contains delta `number` of this session.
    fn is_in(&self, tree: Option<Pointer>, number: u64) -> Result<bool, Errno> {
        Ok(self
            .written_by(tree, self.options.device)?
            .is_some_and(|written| written.session == self.session && written.delta >= number))
    }

    /// Returns what the tree says that it has of the writer `device`.
    pub(super) fn written_by(
        &self,
        tree: Option<Pointer>,
        device: u64,
    ) -> Result<Option<WriterRecord>, Errno> {
        let Some(tree) = tree else { return Ok(None) };
        match self.step(|state| state.get_in(&tree, &Key::Writer(device)))? {
            Some(Change::Writer(record)) => Ok(Some(record)),
            _ => Ok(None),
        }
    }

    /// Everything up to `number` is durable: who waits for it is told.
    fn on_committed(&self, number: u64) {
        self.state.borrow_mut().durability.on_committed(number);
        self.on_stored();
        if let Some(journal) = &self.journal {
            let mut files = journal.turn();
            journal.on_committed(&mut files, number);
        }
    }

    /// The store took something: who waits looks again.
    pub(super) fn on_stored(&self) {
        self.nodes.note_stored();
        let ended = self.state.borrow_mut().durability.on_stored();
        if let Some(trouble) = ended {
            let seconds = reactor::now().saturating_duration_since(trouble.since).as_secs();
            tracing::warn!(seconds, "the store takes changes again");
        }
        self.progress.notify_all();
    }

    /// The store does not take something now.
    pub(super) fn on_store_failed(&self, error: &dyn std::fmt::Display, errno: Errno) {
        // One line when it begins: it is tried again for as long as it takes.
        if !self.is_shut() && self.state.borrow_mut().durability.on_failed(errno, reactor::now()) {
            tracing::warn!(%error, "the store takes no changes now; they are kept, and tried again until it does");
        }
        self.progress.notify_all();
    }

    /// The delta as the tree takes it; `last` are the frames that go with the nodes.
    fn tree_changes(&self, delta: &Delta, last: &[(Key, Location)], sessions: &Changes) -> Vec<TreeChange> {
        let mut changes = Vec::with_capacity(delta.changes.len() + 1);
        let mut scratch = Vec::with_capacity(128);
        let mut encoded = |change: &Change| {
            scratch.clear();
            encode_value(change, &mut scratch);
            Value::Raw(Bytes::copy_from_slice(&scratch))
        };
        let mut last = last.iter().peekable();
        for (key, change) in &delta.changes {
            let value = match (last.next_if(|(frame, _)| frame == key), change) {
                (Some((_, location)), _) => Some(Value::Chunk(*location)),
                (None, Change::Removed) => None,
                (None, Change::Stored(pointer)) => Some(Value::Pointer(*pointer)),
                (None, Change::Snapshot(record)) => Some(encoded(&self.following(record))),
                (None, change) => Some(encoded(change)),
            };
            changes.push(TreeChange { key: Bytes::copy_from_slice(&key.encode()), value });
        }
        // What was replayed is in the first delta that there is, whole.
        let (journal_session, journal_delta) = self.begun_with.get();
        let writer = Change::Writer(WriterRecord {
            session: self.session,
            delta: delta.number,
            committed_seconds: Time::now().seconds,
            journal_session,
            journal_delta,
        });
        let mut insert = |key: Key, value| {
            let key = Bytes::copy_from_slice(&key.encode());
            let at = changes.partition_point(|change| change.key < key);
            changes.insert(at, TreeChange { key, value });
        };
        insert(Key::Writer(self.options.device), Some(encoded(&writer)));
        for (id, record) in sessions {
            insert(Key::Session(*id), record.map(|record| encoded(&Change::Session(record))));
        }
        changes
    }

    /// Publishes the last objects and the root, for as long as it takes. An error means that nothing was published.
    pub(super) fn publish(
        &self,
        attempt: Attempt,
        unfolded: &ObjectChanges,
        objects: Vec<(Address, Bytes)>,
        frees: bool,
    ) -> Result<Outcome, Errno> {
        let payload = self.seal_root(attempt.tree, unfolded.clone(), commit_id(self.session, attempt.number));
        let expected = self.header();
        let register = self.keys.register;
        let ours = |record: &Record| record.payload == payload;
        let mut back_off = BackOff::new();
        // An earlier try may still take effect: only the register can say that it did not.
        let mut is_open = false;
        loop {
            let (blocks, payload) = (objects.clone(), payload.clone());
            let swapped = match frees {
                true => self.store.publish_freeing(blocks, &register, expected, payload),
                false => self.store.publish(blocks, &register, expected, payload),
            };
            if let Err(SwapError::Read(error)) = &swapped {
                self.note_root(error);
            }
            let error = match swapped {
                Ok(record) => return Ok(Outcome::Published(record)),
                // The answer to an earlier message of this very swap was lost.
                Err(SwapError::Lost(Some(record))) if ours(&record) => return Ok(Outcome::Published(record)),
                Err(SwapError::Lost(Some(record))) => return Ok(Outcome::Lost(record)),
                // Whoever may not write any more is refused before it is looked what there is: an earlier try may be in it.
                Err(error @ (SwapError::Unknown { .. } | SwapError::Refused(_)))
                    if is_open || matches!(error, SwapError::Unknown { .. }) =>
                {
                    is_open = true;
                    match self.read_root() {
                        Ok(Some(record)) if ours(&record) => return Ok(Outcome::Published(record)),
                        Ok(Some(record)) if Some(record.header_hash) != expected => {
                            return Ok(Outcome::Lost(record));
                        }
                        // Not there yet. It may still come: swapping to the same payload again is harmless.
                        _ => {}
                    }
                    error
                }
                Err(error) => error,
            };
            let errno = swap_errno(&error);
            self.on_store_failed(&error, errno);
            if !is_open && errno != Errno::ETIMEDOUT {
                return Err(errno);
            }
            back_off.pause();
        }
    }
}

fn swap_errno(error: &SwapError) -> Errno {
    match error {
        SwapError::Full => Errno::ENOSPC,
        SwapError::Put(error) => put_errno(error),
        SwapError::Refused(_) => Errno::EACCES,
        SwapError::Unknown { .. } => Errno::ETIMEDOUT,
        SwapError::Read(dht::ReadError::NoQuorum { .. }) => Errno::ETIMEDOUT,
        _ => Errno::EIO,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frees(changes: Vec<(Key, Change)>) -> bool {
        let mut delta = Delta::default();
        changes.into_iter().for_each(|(key, change)| delta.insert(key, change));
        frees_space(&delta)
    }

    #[test]
    fn a_removal_may_use_the_reserve_and_what_takes_space_may_not() {
        let name = || Bytes::from_static(b"name");
        let removed = || (Key::Inode(7), Change::Removed);
        let stored = Change::Stored(Pointer::example([1; 32], 2, 300));
        let content = Change::Frame(Bytes::from(vec![1; INLINE_SIZE_MAX + 1]));
        assert!(frees(vec![removed()]));
        assert!(frees(vec![(Key::Extent(7, 3), Change::Removed)]));
        assert!(frees(vec![(Key::Snapshot(7), Change::Removed)]));
        assert!(frees(vec![removed(), (Key::Extent(8, 0), stored.clone())]), "of an earlier try");
        assert!(!frees(vec![removed(), (Key::Extent(8, 0), content)]));
        assert!(!frees(vec![(Key::Entry(1, 2, name()), Change::Removed)]), "a rename");
        assert!(!frees(vec![(Key::Extent(8, 0), stored)]));
    }
}
