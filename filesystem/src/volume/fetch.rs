//! Fetching chunks from the store into the cache: once, however many ask, and neighbours together.

use std::cell::RefCell;
use std::rc::Rc;

use bytes::Bytes;
use dht::{Address, GetError};
use reactor::sync::Signal;

use super::Volume;
use super::commit::BackOff;
use crate::cache::{Cached, ChunkId, NumberMap};
use crate::chunk::{Binding, ChunkKind, open_run};
use crate::errno::Errno;
use crate::format::{OBJECT_SIZE_MAX, Pointer};
use crate::tree::{Nodes, node::Node};

/// Chunks this close in one object are fetched with one request; the bytes between are wasted.
const GAP_SIZE_MAX: u32 = 64 * 1024;

/// What is being fetched, so that it is not fetched twice.
#[derive(Default)]
pub(super) struct InFlight {
    chunks: RefCell<NumberMap<ChunkId, Rc<Signal>>>,
}

/// Holding one means that this coroutine fetches these chunks; dropping it tells those who wait.
struct Claim<'a> {
    in_flight: &'a InFlight,
    ids: Vec<ChunkId>,
    done: Rc<Signal>,
}

impl InFlight {
    fn claim(&self, pointers: &[Pointer]) -> Claim<'_> {
        let done = Rc::new(Signal::new());
        let ids: Vec<ChunkId> = pointers.iter().map(ChunkId::from).collect();
        let mut chunks = self.chunks.borrow_mut();
        for id in &ids {
            chunks.insert(*id, done.clone());
        }
        Claim { in_flight: self, ids, done }
    }

    fn of(&self, pointer: &Pointer) -> Option<Rc<Signal>> {
        self.chunks.borrow().get(&ChunkId::from(pointer)).cloned()
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        let mut chunks = self.in_flight.chunks.borrow_mut();
        for id in &self.ids {
            chunks.remove(id);
        }
        drop(chunks);
        self.done.notify_all();
    }
}

fn errno(error: &GetError) -> Errno {
    match error {
        GetError::Unreachable { .. } => Errno::ETIMEDOUT,
        GetError::NotHere(_) => Errno::EHOSTUNREACH,
        _ => Errno::EIO,
    }
}

/// A run of chunks in one object that one request brings.
struct Run {
    pointers: Vec<Pointer>,
    end: u32,
}

fn runs(mut pointers: Vec<Pointer>) -> Vec<Run> {
    pointers.sort_unstable_by_key(|pointer| (pointer.address, pointer.offset));
    pointers.dedup();
    let mut runs: Vec<Run> = Vec::new();
    for pointer in pointers {
        match runs.last_mut() {
            Some(run)
                if run.pointers[0].address == pointer.address
                    && pointer.offset >= run.end
                    && pointer.offset - run.end <= GAP_SIZE_MAX =>
            {
                run.end = pointer.offset + pointer.length;
                run.pointers.push(pointer);
            }
            _ => runs.push(Run { end: pointer.offset + pointer.length, pointers: vec![pointer] }),
        }
    }
    runs
}

impl Volume {
    /// Brings frames into memory and returns those of `pointers` in order.
    ///
    /// # Suspends
    ///
    /// Until they are here.
    pub(super) fn fetch_frames(&self, pointers: &[Pointer]) -> Result<Vec<Bytes>, Errno> {
        let mut found: Vec<Option<Bytes>> = vec![None; pointers.len()];
        loop {
            let mut wanted = Vec::new();
            let mut waiting = None;
            {
                let mut state = self.state.borrow_mut();
                for (pointer, found) in pointers.iter().zip(&mut found).filter(|(_, found)| found.is_none()) {
                    *found = state.cache.frame(pointer);
                    if found.is_none() {
                        match self.in_flight.of(pointer) {
                            Some(signal) => waiting = Some(signal),
                            None => wanted.push(*pointer),
                        }
                    }
                }
            }
            if !wanted.is_empty() {
                // Straight from the fetch, as a small cache may have let go of the first when the last comes in.
                for (pointer, bytes) in self.fetch(ChunkKind::Frame, wanted)? {
                    if let Cached::Frame(bytes) = bytes {
                        for (wanted, found) in pointers.iter().zip(&mut found) {
                            if ChunkId::from(wanted) == ChunkId::from(&pointer) {
                                *found = Some(bytes.clone());
                            }
                        }
                    }
                }
            } else if let Some(signal) = waiting {
                // Whoever fetches it may fail or be terminated; then the next round fetches it here.
                signal.wait();
            } else {
                return found.into_iter().collect::<Option<Vec<_>>>().ok_or(Errno::EIO);
            }
        }
    }

    /// Brings a node into memory.
    ///
    /// # Suspends
    ///
    /// Until it is here.
    pub(super) fn fetch_node(&self, pointer: &Pointer) -> Result<Rc<Node>, Errno> {
        loop {
            if let Some(node) = self.state.borrow_mut().cache.node(pointer) {
                return Ok(node);
            }
            match self.in_flight.of(pointer) {
                Some(signal) => signal.wait(),
                None => {
                    return match self.fetch(ChunkKind::Node, vec![*pointer])?.pop() {
                        Some((_, Cached::Node(node))) => Ok(node),
                        _ => Err(Errno::EIO),
                    };
                }
            }
        }
    }

    /// Starts fetching `pointers` in the background.
    pub(super) fn fetch_ahead(&self, mut pointers: Vec<Pointer>) {
        pointers.retain(|pointer| self.in_flight.of(pointer).is_none());
        let Some(volume) = self.me.upgrade().filter(|_| !pointers.is_empty()) else { return };
        reactor::spawn(move || {
            // Only a guess: who really needs it will see the error.
            let _ = volume.fetch(ChunkKind::Frame, pointers);
        });
    }

    /// Fetches chunks, one request a run, all requests at once, and puts them into the cache.
    fn fetch(&self, kind: ChunkKind, pointers: Vec<Pointer>) -> Result<Vec<(Pointer, Cached)>, Errno> {
        let _claim = self.in_flight.claim(&pointers);
        let runs = runs(pointers);
        if let [run] = runs.as_slice() {
            return self.fetch_run(kind, run);
        }
        let results = reactor::scope(|scope| {
            let fetches: Vec<_> = runs.iter().map(|run| scope.spawn(|| self.fetch_run(kind, run))).collect();
            fetches.into_iter().map(|fetch| fetch.join().unwrap_or(Err(Errno::EINTR))).collect::<Vec<_>>()
        });
        let mut all = Vec::new();
        for result in results {
            all.extend(result?);
        }
        Ok(all)
    }

    fn fetch_one_by_one(&self, kind: ChunkKind, run: &Run) -> Result<Vec<(Pointer, Cached)>, Errno> {
        let mut all = Vec::with_capacity(run.pointers.len());
        for pointer in &run.pointers {
            let alone = Run { pointers: vec![*pointer], end: pointer.offset + pointer.length };
            all.extend(self.fetch_run(kind, &alone)?);
        }
        Ok(all)
    }

    fn fetch_run(&self, kind: ChunkKind, run: &Run) -> Result<Vec<(Pointer, Cached)>, Errno> {
        let first = run.pointers[0];
        debug_assert!(run.end as usize <= OBJECT_SIZE_MAX * 2);
        let deadline = reactor::now() + self.options.sync_patience;
        let mut back_off = BackOff::new();
        let sealed = loop {
            match self.store.get(&Address(first.address), Some(first.offset..run.end)) {
                Ok(sealed) => break sealed,
                // While nobody is there a part of them may be here, and who wants that waits for nobody.
                Err(GetError::Unreachable { .. }) if run.pointers.len() > 1 && self.is_away() => {
                    return self.fetch_one_by_one(kind, run);
                }
                Err(GetError::Unreachable { .. })
                    if reactor::now() < deadline && !self.gives_up.get() && !self.is_away_for_reading() =>
                {
                    back_off.pause()
                }
                // Each of them may be here, and what lies between them not.
                Err(GetError::NotHere(_)) if run.pointers.len() > 1 => {
                    return self.fetch_one_by_one(kind, run);
                }
                // Nobody was asked just now: that they are away was told.
                Err(error @ GetError::NotHere(_)) => return Err(errno(&error)),
                Err(error) => {
                    tracing::warn!(%error, object = ?first, "a chunk cannot be fetched");
                    return Err(match error {
                        GetError::Unreachable { .. } if self.is_away() => Errno::EHOSTUNREACH,
                        error => errno(&error),
                    });
                }
            }
        };
        let damaged = |error: &dyn std::fmt::Display| {
            tracing::error!(%error, object = ?first, "a chunk that the store verified is not what was written");
            Errno::EIO
        };
        let binding = Binding { kind, volume: self.state.borrow().charter.volume };
        let contents =
            open_run(&binding, sealed, first.offset, &run.pointers).map_err(|error| damaged(&error))?;
        let mut result = Vec::with_capacity(contents.len());
        for (pointer, content) in run.pointers.iter().zip(contents) {
            let cached = match kind {
                ChunkKind::Node => Cached::Node(Rc::new(
                    Node::decode(content, pointer.address).map_err(|error| damaged(&error))?,
                )),
                _ => Cached::Frame(content),
            };
            self.state.borrow_mut().cache.insert(pointer, cached.clone());
            result.push((*pointer, cached));
        }
        Ok(result)
    }
}

/// Nodes for a commit: through the cache.
pub(super) struct CachedNodes<'a>(pub(super) &'a Volume);

impl Nodes for CachedNodes<'_> {
    type Error = Errno;

    fn fetch(&self, pointers: &[Pointer]) -> Result<Vec<Rc<Node>>, Errno> {
        // Merging a large commit takes a while: others get their turn.
        reactor::yield_now();
        let missing: Vec<Pointer> = {
            let state = self.0.state.borrow();
            pointers
                .iter()
                .filter(|pointer| !state.cache.contains(pointer) && self.0.in_flight.of(pointer).is_none())
                .copied()
                .collect()
        };
        if missing.len() > 1 {
            // In parallel; what does not stay in the cache is fetched again below, one by one.
            self.0.fetch(ChunkKind::Node, missing)?;
        }
        pointers.iter().map(|pointer| self.0.fetch_node(pointer)).collect()
    }
}
