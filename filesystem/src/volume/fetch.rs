//! Fetching chunks from the store into the cache: once, however many ask, and neighbours together.

use std::rc::Rc;

use bytes::Bytes;
use dht::{Address, GetError};
use reactor::cell::RefCell;
use reactor::sync::Signal;

use super::Volume;
use super::commit::BackOff;
use crate::cache::{Cached, ChunkId, NumberMap};
use crate::chunk::{Binding, ChunkKind, open_run};
use crate::errno::Errno;
use crate::format::{OBJECT_SIZE_MAX, Piece, Pointer};
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
    fn claim(&self, pieces: &[Piece]) -> Claim<'_> {
        let done = Rc::new(Signal::new());
        let ids: Vec<ChunkId> = pieces.iter().map(ChunkId::from).collect();
        let mut chunks = self.chunks.borrow_mut();
        for id in &ids {
            chunks.insert(*id, done.clone());
        }
        Claim { in_flight: self, ids, done }
    }

    /// Whoever fetches it: a segment may come with its frame.
    fn of(&self, piece: &Piece) -> Option<Rc<Signal>> {
        let chunks = self.chunks.borrow();
        if chunks.is_empty() {
            return None;
        }
        let whole = || Piece::from(*piece.pointer());
        let found = chunks.get(&ChunkId::from(piece));
        found.or_else(|| piece.is_segment().then(|| chunks.get(&ChunkId::from(&whole()))).flatten()).cloned()
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

/// A run of chunks and segments in one object that one request brings.
struct Run {
    pieces: Vec<Piece>,
    end: u32,
}

impl Run {
    fn of_one(piece: Piece) -> Run {
        Run { end: piece.offset() + piece.length(), pieces: vec![piece] }
    }
}

fn runs(mut pieces: Vec<Piece>) -> Vec<Run> {
    if let [piece] = pieces.as_slice() {
        return vec![Run::of_one(*piece)];
    }
    pieces.sort_unstable_by_key(|piece| (piece.pointer().address, piece.offset()));
    pieces.dedup();
    let mut runs: Vec<Run> = Vec::new();
    for piece in pieces {
        match runs.last_mut() {
            Some(run)
                if run.pieces[0].pointer().address == piece.pointer().address
                    && piece.offset() >= run.end
                    && piece.offset() - run.end <= GAP_SIZE_MAX =>
            {
                run.end = piece.offset() + piece.length();
                run.pieces.push(piece);
            }
            _ => runs.push(Run::of_one(piece)),
        }
    }
    runs
}

impl Volume {
    /// Brings a frame into memory.
    ///
    /// # Suspends
    ///
    /// Until it is here.
    pub(super) fn fetch_frame(&self, pointer: &Pointer) -> Result<Bytes, Errno> {
        self.fetch_pieces(&[Piece::from(*pointer)])?.pop().ok_or(Errno::EIO)
    }

    /// Brings frames and segments into memory and returns their contents in order.
    ///
    /// # Suspends
    ///
    /// Until they are here.
    pub(super) fn fetch_pieces(&self, pieces: &[Piece]) -> Result<Vec<Bytes>, Errno> {
        let mut found: Vec<Option<Bytes>> = vec![None; pieces.len()];
        loop {
            let mut wanted = Vec::new();
            let mut waiting = None;
            {
                let mut state = self.state.borrow_mut();
                for (piece, found) in pieces.iter().zip(&mut found).filter(|(_, found)| found.is_none()) {
                    *found = state.cache.piece(piece);
                    if found.is_none() {
                        match self.in_flight.of(piece) {
                            Some(signal) => waiting = Some(signal),
                            None => wanted.push(*piece),
                        }
                    }
                }
            }
            if !wanted.is_empty() {
                // Straight from the fetch, as a small cache may have let go of the first when the last comes in.
                for (piece, bytes) in self.fetch(ChunkKind::Frame, wanted)? {
                    if let Cached::Frame(bytes) = bytes {
                        for (wanted, found) in pieces.iter().zip(&mut found) {
                            if *wanted == piece {
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
            let piece = Piece::from(*pointer);
            match self.in_flight.of(&piece) {
                Some(signal) => signal.wait(),
                None => {
                    return match self.fetch(ChunkKind::Node, vec![piece])?.pop() {
                        Some((_, Cached::Node(node))) => Ok(node),
                        _ => Err(Errno::EIO),
                    };
                }
            }
        }
    }

    /// Starts fetching `pointers` in the background.
    pub(super) fn fetch_ahead(&self, pointers: Vec<Pointer>) {
        let mut pieces: Vec<Piece> = pointers.into_iter().map(Piece::from).collect();
        pieces.retain(|piece| self.in_flight.of(piece).is_none());
        let Some(volume) = self.me.upgrade().filter(|_| !pieces.is_empty()) else { return };
        reactor::spawn(move || {
            // Only a guess: who really needs it will see the error.
            let _ = volume.fetch(ChunkKind::Frame, pieces);
        });
    }

    /// Fetches chunks and segments, one request a run, all requests at once, and puts them into the cache.
    fn fetch(&self, kind: ChunkKind, pieces: Vec<Piece>) -> Result<Vec<(Piece, Cached)>, Errno> {
        let _claim = self.in_flight.claim(&pieces);
        let runs = runs(pieces);
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

    fn fetch_one_by_one(&self, kind: ChunkKind, run: &Run) -> Result<Vec<(Piece, Cached)>, Errno> {
        let mut all = Vec::with_capacity(run.pieces.len());
        for piece in &run.pieces {
            all.extend(self.fetch_run(kind, &Run::of_one(*piece))?);
        }
        Ok(all)
    }

    fn fetch_run(&self, kind: ChunkKind, run: &Run) -> Result<Vec<(Piece, Cached)>, Errno> {
        let first = run.pieces[0];
        debug_assert!(run.end as usize <= OBJECT_SIZE_MAX * 2);
        let deadline = reactor::now() + self.options.sync_patience;
        let mut back_off = BackOff::new();
        let sealed = loop {
            match self.store.get(&Address(first.pointer().address), Some(first.offset()..run.end)) {
                Ok(sealed) => break sealed,
                // While nobody is there a part of them may be here, and who wants that waits for nobody.
                Err(GetError::Unreachable { .. }) if run.pieces.len() > 1 && self.is_away() => {
                    return self.fetch_one_by_one(kind, run);
                }
                Err(GetError::Unreachable { .. })
                    if reactor::now() < deadline && !self.gives_up.get() && !self.is_away_for_reading() =>
                {
                    back_off.pause()
                }
                // Each of them may be here, and what lies between them not.
                Err(GetError::NotHere(_)) if run.pieces.len() > 1 => {
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
            open_run(&binding, sealed, first.offset(), &run.pieces).map_err(|error| damaged(&error))?;
        let mut result = Vec::with_capacity(contents.len());
        for (piece, content) in run.pieces.iter().zip(contents) {
            let cached = match kind {
                ChunkKind::Node => Cached::Node(Rc::new(
                    Node::decode(content, piece.pointer().address).map_err(|error| damaged(&error))?,
                )),
                _ => Cached::Frame(content),
            };
            self.state.borrow_mut().cache.insert(*piece, cached.clone());
            result.push((*piece, cached));
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
        let missing: Vec<Piece> = {
            let state = self.0.state.borrow();
            let missing = pointers.iter().filter(|pointer| !state.cache.contains(pointer));
            let pieces = missing.map(|pointer| Piece::from(*pointer));
            pieces.filter(|piece| self.0.in_flight.of(piece).is_none()).collect()
        };
        if missing.len() > 1 {
            // In parallel; what does not stay in the cache is fetched again below, one by one.
            self.0.fetch(ChunkKind::Node, missing)?;
        }
        pointers.iter().map(|pointer| self.0.fetch_node(pointer)).collect()
    }
}
