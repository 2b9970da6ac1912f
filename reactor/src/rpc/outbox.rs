//! What is sent next: frames that wait for the connection's one writer. Pure.
//!
//! Small frames are encoded into one buffer as they come, so that a hundred answers made in one round leave in
//! one write; those of high priority have a buffer of their own, which goes first. What is large waits its turn: a
//! call with a large body, the frames of a stream (its lane), any call of low priority. Each batch takes all the
//! small frames and then up to `TURNS_PER_BATCH` turns, each of at most one part's size. So a small call waits
//! behind one batch at most, whatever fills the line.
//!
//! The turns go to the three priorities in proportion to their weights (stride scheduling: each has a clock that runs
//! the faster the less it weighs, and the slowest clock is next), and within one priority round. So bulk gets the
//! whole line while nobody else wants it, a seventeenth of it when everybody does, and never nothing.
//!
//! A frame that a peer has caused brings its [`Charge`] along; a batch brings out the charges of all that has left with
//! it, to be given back.
//!
//! What it is not: back-pressure. It counts what waits ([`Outbox::queued_bytes_of`]) and what that is charged to; who
//! may add to it is decided by the connection for our own calls, and by the [`Budget`](super::budget::Budget) for what
//! the peer causes.
//!
//! # Source
//! Waldspurger and Weihl 1995, "Stride Scheduling: Deterministic Proportional-Share Resource Management".

mod batch;
mod waiting;

pub use batch::Batch;
use waiting::{Bulk, Lane, Waiting};

use super::budget::Charge;
use crate::rpc::frame::{ANNOUNCE, HEADER_SIZE_BYTES, Header, PART_SIZE_BYTES_MAX, PREFACE, Priority, Side};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Payloads under way at once in each direction. Two would do for fairness; four keep the line busy while one
/// of them waits for its last, short part. The receiver's memory for unfinished payloads is this many times
/// [`crate::rpc::PAYLOAD_SIZE_BYTES_MAX`].
pub const PAYLOADS_INTERLEAVED_MAX: usize = 4;

/// How many of those may be of low priority: the others find a place at once.
const PAYLOADS_LOW_MAX: usize = 2;

/// What one batch takes of all that is large: 256 KiB, some 300 us of a line at 1 GB/s.
const TURNS_PER_BATCH: usize = 4;

/// How many bytes each priority may send while the others send theirs, by its number.
const WEIGHTS: [u64; 3] = [4, 12, 1];

/// A body up to this size is copied behind its header. Copying 4 KiB takes 0.1 us, less than the handling of
/// another slice in a gathering write.
const COPIED_SIZE_BYTES_MAX: usize = 4 << 10;

/// Buffers larger than this are not kept for reuse: one burst should not pin memory for ever.
const KEPT_BUFFER_SIZE_BYTES_MAX: usize = 256 << 10;

/// Where a frame waits. Each is counted apart, for a full one is no reason for the others to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Queue {
    /// Among the small frames, which overtake.
    Small,
    /// Among the large ones.
    Large(Priority),
}

/// Frames that wait to be written.
#[derive(Default)]
pub struct Outbox {
    high: Vec<u8>,
    small: Vec<u8>,
    /// What all small frames are charged to.
    small_charge: Charge,
    /// The first of our calls that are among the small frames. Calls are numbered in their order, so that those behind
    /// it are there too, or among the large ones.
    unsent_from: Option<u32>,
    /// Calls whose opening is short, and may not have left.
    short_openings: Vec<u32>,
    spare: Vec<u8>,
    large: [VecDeque<Waiting>; 3],
    lanes: BTreeMap<(Side, u32), Lane>,
    /// Bytes that wait for turns, by priority.
    large_bytes: [usize; 3],
    /// The priorities' clocks.
    clocks: [u64; 3],
    /// Payloads of which a part has left, in all and of low priority.
    under_way: (usize, usize),
}

/// What became of a frame that was called back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Withdrawn {
    /// Nothing of it has been sent, and nothing will be.
    Unsent,
    /// Some of it has been sent; the peer must be told that the rest will not come.
    Partly,
    /// It is not here: all of it has left (or waits among the small frames), or it is a stream that has begun.
    Left,
}

impl Outbox {
    /// An outbox that begins with the preface, and says that we speak more than version 1.
    pub fn new() -> Outbox {
        let first = [&PREFACE[..], &Header::Cancel { call: ANNOUNCE }.encode()].concat();
        Outbox { high: first, ..Outbox::default() }
    }

    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.small.is_empty() && self.high.is_empty() && self.large_bytes == [0; 3]
    }

    /// How many bytes wait.
    pub fn queued_bytes(&self) -> usize {
        self.high.len() + self.small.len() + self.large_bytes.iter().sum::<usize>()
    }

    /// Where a call with a body of `body_bytes` would wait.
    pub fn queue_of(body_bytes: usize, priority: Priority) -> Queue {
        if body_bytes > COPIED_SIZE_BYTES_MAX || priority == Priority::Low {
            Queue::Large(priority)
        } else {
            Queue::Small
        }
    }

    /// How many bytes wait there.
    pub fn queued_bytes_of(&self, queue: Queue) -> usize {
        match queue {
            Queue::Small => self.high.len() + self.small.len(),
            Queue::Large(priority) => self.large_bytes[priority as usize],
        }
    }

    /// Queues a frame without a body.
    pub fn push(&mut self, header: Header) {
        self.small.extend_from_slice(&header.encode());
    }

    /// Queues a frame without a body that the peer has caused.
    pub fn push_courtesy(&mut self, header: Header, charge: Charge) {
        self.push(header);
        self.small_charge.add(charge);
    }

    /// Queues the end of a call of ours. A call that the peer may take in its place must not overtake this, so it goes
    /// before all that was queued; only its own request must not come behind it.
    pub fn push_cancel(&mut self, call: u32) {
        let queue = if self.is_unsent(call) { &mut self.small } else { &mut self.high };
        queue.extend_from_slice(&Header::Cancel { call }.encode());
    }

    /// Queues the opening of a call of ours that streams. A short one leaves before the small requests, for those that are
    /// made after it must not overtake it.
    pub fn push_open(&mut self, header: Header, message: &[u8], priority: Priority) {
        let Header::Open { call, .. } = header else { unreachable!("only calls that stream are opened") };
        if Outbox::queue_of(message.len(), priority) == Queue::Small {
            self.short_openings.push(call);
        }
        self.push_item(Side::Request, call, header, message, priority, Charge::NONE);
    }

    /// Whether the request of a call of ours is still among the small frames.
    fn is_unsent(&self, call: u32) -> bool {
        self.unsent_from.is_some_and(|first| call.wrapping_sub(first) < 1 << 31)
    }

    /// Queues a frame with a small body.
    pub fn push_with(&mut self, header: Header, message: &[u8]) {
        self.push(header);
        self.small.extend_from_slice(message);
    }

    /// Queues a request or response; `header` tells the sizes of `message` and `payload`, and a response brings what
    /// its call is charged.
    pub fn push_call(
        &mut self,
        header: Header,
        message: Vec<u8>,
        payload: Bytes,
        priority: Priority,
        charge: Charge,
    ) {
        if Outbox::queue_of(message.len() + payload.len(), priority) == Queue::Small {
            if let Header::Request { call, .. } = header {
                self.unsent_from.get_or_insert(call);
            }
            self.small_charge.add(charge);
            let small = if priority == Priority::High { &mut self.high } else { &mut self.small };
            small.extend_from_slice(&header.encode());
            small.extend_from_slice(&message);
            small.extend_from_slice(&payload);
            return;
        }
        let (side, call) = match header {
            Header::Request { call, .. } => (Side::Request, call),
            Header::Response { call, .. } => (Side::Response, call),
            _ => unreachable!("only requests and responses have bodies"),
        };
        let bytes = HEADER_SIZE_BYTES + message.len() + payload.len();
        let bulk = Bulk { side, call, head: Some((header, message)), rest: payload, charge };
        self.wait(priority, Waiting::Bulk(bulk), bytes);
    }

    /// Queues a frame of a stream of which `side` is ours, behind those before it; the last one of a callee brings what
    /// its call is charged.
    pub fn push_item(
        &mut self,
        side: Side,
        call: u32,
        header: Header,
        message: &[u8],
        priority: Priority,
        charge: Charge,
    ) {
        let frame_bytes = HEADER_SIZE_BYTES + message.len();
        // A lane keeps the priority that it began with: by that its bytes are counted, and its place found.
        let lane = self.lanes.entry((side, call)).or_insert_with(|| Lane { priority, ..Lane::default() });
        lane.charge.add(charge);
        let priority = lane.priority;
        let idle = lane.chunks.is_empty();
        lane.unsent |= matches!(header, Header::Open { .. });
        // The opening stays alone in its chunk, which may leave before its turn.
        let opening = lane.unsent && lane.chunks.len() == 1;
        let fits = lane.chunks.back().is_some_and(|last| last.len() + frame_bytes <= PART_SIZE_BYTES_MAX);
        if !fits || opening {
            lane.chunks.push_back(Vec::with_capacity(frame_bytes));
        }
        let last = lane.chunks.back_mut().expect("one was just added");
        last.extend_from_slice(&header.encode());
        last.extend_from_slice(message);
        match idle {
            true => self.wait(priority, Waiting::Lane(side, call), frame_bytes),
            false => self.large_bytes[priority as usize] += frame_bytes,
        }
    }

    fn wait(&mut self, priority: Priority, waiting: Waiting, bytes: usize) {
        let at = priority as usize;
        if self.large_bytes[at] == 0 {
            // Who slept may not claim the time: its clock is set to that of the slowest who is awake.
            let awake = (0..3).filter(|&other| self.large_bytes[other] > 0).map(|other| self.clocks[other]);
            self.clocks[at] = self.clocks[at].max(awake.min().unwrap_or(0));
        }
        self.large_bytes[at] += bytes;
        self.large[at].push_back(waiting);
    }

    /// Calls back what has not been sent of a request, a response or a stream, and tells what it was charged to.
    pub fn withdraw(&mut self, side: Side, call: u32) -> (Withdrawn, Charge) {
        if let Some(lane) = self.remove_lane(side, call) {
            let bytes: usize = lane.chunks.iter().map(Vec::len).sum();
            self.large_bytes[lane.priority as usize] -= bytes;
            let withdrawn = if lane.unsent { Withdrawn::Unsent } else { Withdrawn::Left };
            return (withdrawn, lane.charge);
        }
        for (at, large) in self.large.iter_mut().enumerate() {
            let found = large.iter().position(|waiting| match waiting {
                Waiting::Bulk(bulk) => bulk.side == side && bulk.call == call,
                Waiting::Lane(..) => false,
            });
            let Some(Waiting::Bulk(bulk)) = found.and_then(|found| large.remove(found)) else { continue };
            self.large_bytes[at] -= bulk.rest.len();
            let withdrawn = match bulk.head {
                Some((_, message)) => {
                    self.large_bytes[at] -= HEADER_SIZE_BYTES + message.len();
                    Withdrawn::Unsent
                }
                None => {
                    self.count_under_way(at, false);
                    Withdrawn::Partly
                }
            };
            return (withdrawn, bulk.charge);
        }
        (Withdrawn::Left, Charge::NONE)
    }

    /// Takes a lane out, and its place among those that wait for turns: nothing is left of it, or a peer could make us
    /// keep the places of streams without number, and the next stream of that number would be found in a place that is
    /// not its own.
    fn remove_lane(&mut self, side: Side, call: u32) -> Option<Lane> {
        let lane = self.lanes.remove(&(side, call))?;
        let large = &mut self.large[lane.priority as usize];
        let is_its = |waiting: &Waiting| matches!(waiting, Waiting::Lane(s, c) if (*s, *c) == (side, call));
        if let Some(place) = large.iter().position(is_its) {
            large.remove(place);
        }
        Some(lane)
    }

    /// Calls back a request, or the opening of a stream, of which nothing has left; false if there is none such, or if it
    /// waits among the small frames, which leave whatever becomes of them.
    pub fn withdraw_unsent(&mut self, call: u32) -> bool {
        let lane = self.lanes.get(&(Side::Request, call)).is_some_and(|lane| lane.unsent);
        let waits = |waiting: &Waiting| match waiting {
            Waiting::Bulk(bulk) => bulk.side == Side::Request && bulk.call == call && bulk.head.is_some(),
            Waiting::Lane(..) => false,
        };
        let unsent = lane || self.large.iter().flatten().any(waits);
        unsent && self.withdraw(Side::Request, call).0 == Withdrawn::Unsent
    }

    /// Ends it: what waits is dropped, and given out are what it was charged to, and which of our calls had not left.
    pub fn abandon(&mut self) -> (Charge, impl Fn(u32) -> bool + use<>) {
        let mut dropped = std::mem::take(self);
        let (mut charge, mut unsent) = (dropped.small_charge, BTreeSet::new());
        for lane in dropped.lanes.values() {
            charge.add(lane.charge);
        }
        unsent.extend(dropped.lanes.iter().filter(|(_, lane)| lane.unsent).map(|(&(_, call), _)| call));
        for waiting in dropped.large.iter_mut().flat_map(|large| large.drain(..)) {
            let Waiting::Bulk(bulk) = waiting else { continue };
            charge.add(bulk.charge);
            if bulk.side == Side::Request && bulk.head.is_some() {
                unsent.insert(bulk.call);
            }
        }
        let unsent_from = dropped.unsent_from;
        let is_unsent = move |call: u32| {
            unsent.contains(&call) || unsent_from.is_some_and(|first| call.wrapping_sub(first) < 1 << 31)
        };
        (charge, is_unsent)
    }

    /// Takes what the next write sends. Give the batch back with [`Outbox::recycle`].
    pub fn next_batch(&mut self) -> Batch {
        let high = std::mem::take(&mut self.high);
        let small = std::mem::replace(&mut self.small, std::mem::take(&mut self.spare));
        self.unsent_from = None;
        let mut batch = Batch { high, small, parts: Vec::new(), charge: self.small_charge.take() };
        for call in std::mem::take(&mut self.short_openings) {
            self.take_opening(call, &mut batch.high);
        }
        // Each that waits now gets one turn in this batch at the most.
        let mut turns: [usize; 3] = std::array::from_fn(|at| self.large[at].len());
        for _ in 0..TURNS_PER_BATCH {
            while let Some(at) = (0..3).filter(|&at| turns[at] > 0).min_by_key(|&at| self.clocks[at]) {
                turns[at] -= 1;
                if self.take_turn(at, &mut batch) {
                    break;
                }
            }
        }
        batch
    }

    /// Sends the opening of a call if it is still here. A lane with more to send keeps its place.
    fn take_opening(&mut self, call: u32, target: &mut Vec<u8>) {
        let key = (Side::Request, call);
        let Some(lane) = self.lanes.get_mut(&key).filter(|lane| lane.unsent) else { return };
        let opening = lane.chunks.pop_front().unwrap_or_default();
        lane.unsent = false;
        self.large_bytes[lane.priority as usize] -= opening.len();
        if lane.chunks.is_empty() {
            self.remove_lane(Side::Request, call);
        }
        target.extend_from_slice(&opening);
    }

    /// Lets the first of those that wait in a priority send a part. False if it may not begin yet, or was called back.
    fn take_turn(&mut self, at: usize, batch: &mut Batch) -> bool {
        let Some(waiting) = self.large[at].pop_front() else { return false };
        let bytes = match waiting {
            Waiting::Lane(side, call) => {
                let Some(lane) = self.lanes.get_mut(&(side, call)) else { return false };
                let Some(chunk) = lane.chunks.pop_front() else { return false };
                lane.unsent = false;
                match lane.chunks.is_empty() {
                    true => {
                        batch.charge.add(lane.charge);
                        self.lanes.remove(&(side, call));
                    }
                    false => self.large[at].push_back(Waiting::Lane(side, call)),
                }
                let bytes = chunk.len();
                batch.parts.push((None, chunk, Bytes::new()));
                bytes
            }
            Waiting::Bulk(mut bulk) => {
                let begins = bulk.head.is_some();
                let has_more = bulk.rest.len() > PART_SIZE_BYTES_MAX;
                let (all, low) = self.under_way;
                let is_full = all >= PAYLOADS_INTERLEAVED_MAX
                    || (at == Priority::Low as usize && low >= PAYLOADS_LOW_MAX);
                if begins && has_more && is_full {
                    self.large[at].push_back(Waiting::Bulk(bulk));
                    return false;
                }
                let part = bulk.rest.split_to(bulk.rest.len().min(PART_SIZE_BYTES_MAX));
                let (header, message) = bulk.head.take().unwrap_or_else(|| {
                    let (call, size) = (bulk.call, part.len() as u32);
                    let header = match bulk.side {
                        Side::Request => Header::RequestPart { call, size },
                        Side::Response => Header::ResponsePart { call, size },
                    };
                    // Later headers were not counted when the frame was queued.
                    self.large_bytes[at] += HEADER_SIZE_BYTES;
                    (header, Vec::new())
                });
                let bytes = HEADER_SIZE_BYTES + message.len() + part.len();
                batch.parts.push((Some(header.encode()), message, part));
                if begins && has_more {
                    self.count_under_way(at, true);
                } else if !begins && !has_more {
                    self.count_under_way(at, false);
                }
                match bulk.rest.is_empty() {
                    true => batch.charge.add(bulk.charge),
                    false => self.large[at].push_back(Waiting::Bulk(bulk)),
                }
                bytes
            }
        };
        self.large_bytes[at] -= bytes;
        self.clocks[at] += bytes as u64 / WEIGHTS[at];
        true
    }

    fn count_under_way(&mut self, at: usize, begun: bool) {
        let (all, low) = &mut self.under_way;
        for count in [Some(all), (at == Priority::Low as usize).then_some(low)].into_iter().flatten() {
            *count = if begun { *count + 1 } else { *count - 1 };
        }
    }

    /// Takes a written batch's buffer back for reuse.
    pub fn recycle(&mut self, batch: Batch) {
        let mut buffer = batch.small;
        if buffer.capacity() <= KEPT_BUFFER_SIZE_BYTES_MAX {
            buffer.clear();
            self.spare = buffer;
        }
    }
}

#[cfg(test)]
mod tests;
