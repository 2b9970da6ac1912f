//! Commits: a delta becomes frames, nodes and a root.
//!
//! 1. The active delta is taken away whole; new changes go to the next.
//! 2. Its frames are sealed into objects, which are put as they fill, a bounded number at a time.
//! 3. Its keys are merged into the tree; the new nodes follow the frames, so that a small commit is one object.
//! 4. The last objects and the root are published together; the root is one compare-and-swap.
//!
//! A store that fails is tried again, with growing pauses, for as long as the volume is open: the delta stays in memory
//! and hides nothing. If another writer's root is there, [`super::rebase`] puts the changes on top of it.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use dht::{Address, PutError, Record, SwapError};
use reactor::JoinHandle;
use reactor::sync::Semaphore;

use super::Volume;
use super::fetch::CachedNodes;
use super::state::{Change, Delta, encode_value};
use super::write_back::commit_id;
use crate::access::open_root;
use crate::cache::Cached;
use crate::chunk::{ChunkKind, Location, Packer};
use crate::errno::Errno;
use crate::format::{INLINE_SIZE_MAX, Pointer};
use crate::tree::commit::{Change as TreeChange, Merged, Value, Written, merge};
use crate::tree::node::Node;

/// Objects on their way at once: 16 MiB, enough for a long fat line.
const PUTS_IN_FLIGHT_MAX: usize = 16;
const BACK_OFF_MIN: Duration = Duration::from_millis(50);
const BACK_OFF_MAX: Duration = Duration::from_secs(5);

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
enum Outcome {
    Published(Record, Option<Pointer>),
    /// Another writer's value is in the register.
    Lost(Record),
}

/// Objects being put in the background.
struct Puts {
    places: Rc<Semaphore>,
    failure: Rc<Cell<Option<Errno>>>,
    /// By the packer's number of the object.
    handles: Vec<(u32, JoinHandle<Option<Address>>)>,
}

impl Drop for Puts {
    fn drop(&mut self) {
        for (_, handle) in &self.handles {
            handle.terminate();
        }
    }
}

impl Volume {
    /// Commits whenever someone wants it, until the volume closes.
    pub(super) fn commit_loop(self: Rc<Self>) {
        let mut back_off = BackOff::new();
        loop {
            let wanted = {
                let state = self.state.borrow();
                state.committing.is_some() || self.wanted.get() > state.committed
            };
            if !wanted {
                if let Err(errno) = self.take_newer() {
                    tracing::warn!(%errno, "another writer's changes cannot be read now");
                }
                if self.wanted.get() > self.state.borrow().committed {
                    continue;
                }
                if self.closing.get() {
                    return;
                }
                self.work.wait();
                continue;
            }
            match self.commit() {
                Ok(()) => {
                    self.failure.set(None);
                    self.state.borrow_mut().full = false;
                    back_off = BackOff::new();
                }
                Err(errno) => {
                    self.note_failure(&errno, errno);
                    back_off.pause();
                }
            }
            self.progress.notify_all();
        }
    }

    /// Takes the delta that is to be committed: the one of the last try, or the active one.
    fn take_delta(&self) -> Rc<Delta> {
        let mut state = self.state.borrow_mut();
        if let Some(delta) = &state.committing {
            return delta.clone();
        }
        let number = state.active.number;
        let delta =
            Rc::new(std::mem::replace(&mut state.active, Delta { number: number + 1, ..Delta::default() }));
        state.committing = Some(delta.clone());
        if let Some(unjournaled) = &mut state.unjournaled {
            unjournaled.committing.append(&mut unjournaled.active);
        }
        delta
    }

    /// Commits the delta of the last try, or the active one.
    ///
    /// # Suspends
    ///
    /// Until it is published, however long that takes.
    pub(super) fn commit(self: &Rc<Self>) -> Result<(), Errno> {
        let delta = self.take_delta();
        if delta.changes.is_empty() {
            self.finish(&delta);
            return Ok(());
        }
        let mut packer = Packer::new(self.store.tag(), self.state.borrow().charter.volume);
        let (changes, frames, puts) = self.seal_frames(&delta, &mut packer)?;
        puts.wait(&mut packer)?;
        let tree = self.state.borrow().tree;
        let merged = merge(&CachedNodes(self), tree, &changes, &mut packer)?;
        packer.close();
        let pointer = match &merged.root {
            None => None,
            Some(Value::Chunk(location)) => Some(packer.pointer(location)),
            Some(Value::Pointer(pointer)) => Some(*pointer),
            Some(Value::Raw(_)) => return Err(Errno::EIO),
        };
        match self.publish(delta.number, packer.take_ready(), pointer)? {
            Outcome::Published(record, tree) => {
                self.cache_written(&packer, &merged, &frames);
                let mut state = self.state.borrow_mut();
                state.tree = tree;
                state.header = Some(record.header_hash);
                drop(state);
                self.version.set(record.version);
                self.finish(&delta);
                Ok(())
            }
            // Two make a volume in one register: the names of the second would be hashed under another key.
            Outcome::Lost(_) if self.header().is_none() => Err(Errno::EEXIST),
            Outcome::Lost(winner) => {
                let root =
                    open_root(&winner.payload, winner.version, &self.keys.secret).map_err(|error| {
                        tracing::error!(%error, "another writer's root does not open");
                        Errno::EIO
                    })?;
                tracing::info!(version = winner.version, author = %root.author, "another writer was first: replaying");
                self.rebase(&root, winner.header_hash)?;
                self.version.set(winner.version);
                Ok(())
            }
        }
    }

    /// The delta is durable: it goes, and who waits for it is told.
    fn finish(&self, delta: &Delta) {
        let mut state = self.state.borrow_mut();
        state.committing = None;
        state.committed = delta.number;
        if let Some(unjournaled) = &mut state.unjournaled {
            unjournaled.committing.clear();
            unjournaled.base_moved = true;
        }
        drop(state);
        if let Some(journal) = &self.journal {
            journal.truncate(delta.number);
        }
    }

    /// Seals the delta's frames; full objects are on their way when this returns.
    #[expect(clippy::type_complexity, reason = "a triple that is taken apart at once")]
    fn seal_frames(
        self: &Rc<Self>,
        delta: &Delta,
        packer: &mut Packer,
    ) -> Result<(Vec<TreeChange>, Vec<(Location, Bytes)>, Puts), Errno> {
        let mut puts = Puts {
            places: Rc::new(Semaphore::new(PUTS_IN_FLIGHT_MAX)),
            failure: Rc::new(Cell::new(None)),
            handles: Vec::new(),
        };
        packer.defer_names(true);
        let mut changes = Vec::with_capacity(delta.changes.len());
        let mut frames = Vec::new();
        let mut scratch = Vec::with_capacity(128);
        for (key, change) in &delta.changes {
            let value = match change {
                Change::Removed => None,
                Change::Frame(bytes) if bytes.len() > INLINE_SIZE_MAX => {
                    let location = packer.append(ChunkKind::Frame, bytes);
                    frames.push((location, bytes.clone()));
                    for object in packer.take_closed() {
                        puts.start(self, object)?;
                    }
                    Some(Value::Chunk(location))
                }
                Change::Stored(pointer) => Some(Value::Pointer(*pointer)),
                change => {
                    scratch.clear();
                    encode_value(change, &mut scratch);
                    Some(Value::Raw(Bytes::copy_from_slice(&scratch)))
                }
            };
            changes.push(TreeChange { key: Bytes::copy_from_slice(&key.encode()), value });
        }
        packer.defer_names(false);
        Ok((changes, frames, puts))
    }

    /// Publishes the last objects and the root, for as long as it takes.
    fn publish(
        &self,
        number: u64,
        objects: Vec<(Address, Bytes)>,
        tree: Option<Pointer>,
    ) -> Result<Outcome, Errno> {
        let payload = self.seal_root(tree, commit_id(self.session, number));
        let expected = self.header();
        let register = self.keys.register;
        let ours = |record: &Record| record.payload == payload;
        let mut back_off = BackOff::new();
        loop {
            let error = match self.store.publish(objects.clone(), &register, expected, payload.clone()) {
                Ok(record) => return Ok(Outcome::Published(record, tree)),
                // The answer to an earlier message of this very swap was lost.
                Err(SwapError::Lost(Some(record))) if ours(&record) => {
                    return Ok(Outcome::Published(record, tree));
                }
                Err(SwapError::Lost(Some(record))) => return Ok(Outcome::Lost(record)),
                Err(error @ SwapError::Unknown { .. }) => {
                    match self.store.read(&register) {
                        Ok(Some(record)) if ours(&record) => return Ok(Outcome::Published(record, tree)),
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
            self.note_failure(&error, errno);
            if !matches!(errno, Errno::ETIMEDOUT | Errno::ENOSPC) {
                return Err(errno);
            }
            back_off.pause();
        }
    }

    /// Tells everyone that the store does not take the commit now.
    fn note_failure(&self, error: &dyn std::fmt::Display, errno: Errno) {
        tracing::warn!(%error, "the store does not take a commit now; its changes are kept and tried again");
        self.failure.set(Some(errno));
        self.state.borrow_mut().full = errno == Errno::ENOSPC;
        self.progress.notify_all();
    }

    /// What was just written is in memory already: decrypted, it goes to the cache.
    fn cache_written(&self, packer: &Packer, merged: &Merged, frames: &[(Location, Bytes)]) {
        let mut state = self.state.borrow_mut();
        for (location, bytes) in frames {
            state.cache.insert(&packer.pointer(location), Cached::Frame(bytes.clone()));
        }
        for Written { location, bytes } in &merged.written {
            let pointer = packer.pointer(location);
            if let Ok(node) = Node::decode(bytes.clone(), pointer.address) {
                state.cache.insert(&pointer, Cached::Node(Rc::new(node)));
            }
        }
    }

    /// Waits until all changes made so far are durable, for as long as the patience lasts.
    pub(super) fn sync_all(&self) -> Result<(), Errno> {
        self.sync_to(self.newest_delta())
    }

    /// Returns the number of the newest delta that holds a change.
    pub(super) fn newest_delta(&self) -> u64 {
        let state = self.state.borrow();
        if state.active.changes.is_empty() { state.active.number - 1 } else { state.active.number }
    }

    /// Waits until delta `number` is durable, for as long as the patience lasts.
    pub(super) fn sync_to(&self, number: u64) -> Result<(), Errno> {
        let done = || self.state.borrow().committed >= number;
        if done() {
            return Ok(());
        }
        self.wanted.set(self.wanted.get().max(number));
        self.work.notify_all();
        let waited = reactor::timeout(self.options.sync_patience, || {
            while !done() {
                self.progress.wait();
            }
        });
        match waited {
            Ok(()) => Ok(()),
            Err(_) if done() => Ok(()),
            Err(_) => Err(self.failure.get().unwrap_or(Errno::EIO)),
        }
    }
}

impl Puts {
    /// Sends one object off, once there is a place.
    fn start(&mut self, volume: &Rc<Volume>, (number, object): (u32, Bytes)) -> Result<(), Errno> {
        self.places.acquire().forget();
        if let Some(errno) = self.failure.get() {
            return Err(errno);
        }
        let (volume, places, failure) = (volume.clone(), self.places.clone(), self.failure.clone());
        let handle = reactor::spawn(move || {
            let mut back_off = BackOff::new();
            let result = loop {
                match volume.store.put(object.clone()) {
                    Err(error @ (PutError::NoQuorum { .. } | PutError::Full { .. })) => {
                        volume.note_failure(&error, put_errno(&error));
                        back_off.pause();
                    }
                    result => break result,
                }
            };
            places.release(1);
            if let Err(error) = &result {
                volume.note_failure(error, put_errno(error));
                failure.set(Some(put_errno(error)));
            }
            result.ok()
        });
        self.handles.push((number, handle));
        // Sealing a large commit takes a while: others get their turn after each object.
        reactor::yield_now();
        Ok(())
    }

    /// Waits until all are stored, and tells the packer what the store calls them.
    fn wait(mut self, packer: &mut Packer) -> Result<(), Errno> {
        for (number, handle) in std::mem::take(&mut self.handles) {
            if let Some(address) = handle.join().map_err(|_| Errno::EINTR)? {
                packer.set_name(number, address);
            }
        }
        self.failure.get().map_or(Ok(()), Err)
    }
}

fn put_errno(error: &PutError) -> Errno {
    match error {
        PutError::Full { .. } => Errno::ENOSPC,
        PutError::NoQuorum { .. } => Errno::ETIMEDOUT,
        PutError::Refused(_) => Errno::EACCES,
        _ => Errno::EIO,
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
