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
//! What it is not: back-pressure. It counts what waits ([`Outbox::queued_bytes_of`]); who may add to it is the
//! connection's decision.
//!
//! # Source
//! Waldspurger and Weihl 1995, "Stride Scheduling: Deterministic Proportional-Share Resource Management".

use crate::rpc::frame::{ANNOUNCE, HEADER_SIZE_BYTES, Header, PART_SIZE_BYTES_MAX, PREFACE, Priority, Side};
use bytes::Bytes;
use std::collections::{BTreeMap, VecDeque};

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

/// What waits for turns.
enum Waiting {
    Bulk(Bulk),
    /// The lane of this name has something to send. Or had: it may have been called back.
    Lane(Side, u32),
}

/// A frame with a large body, and how much of it has left.
struct Bulk {
    side: Side,
    call: u32,
    /// Header and message, until the first part has left.
    head: Option<(Header, Vec<u8>)>,
    rest: Bytes,
}

/// The frames of one stream: whole frames in chunks, each of which is one turn.
#[derive(Default)]
struct Lane {
    chunks: VecDeque<Vec<u8>>,
    priority: Priority,
    /// Nothing of the call has left: its first frame is still here.
    unsent: bool,
}

/// Frames that wait to be written.
#[derive(Default)]
pub struct Outbox {
    high: Vec<u8>,
    small: Vec<u8>,
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

/// What one write takes: bytes, then headers with their messages and parts.
#[derive(Default)]
pub struct Batch {
    /// Whole small frames of high priority.
    pub high: Vec<u8>,
    /// Whole small frames.
    pub small: Vec<u8>,
    /// Parts of large ones: header, message, part of the payload; or no header, and frames of a stream.
    pub parts: Vec<(Option<[u8; HEADER_SIZE_BYTES]>, Vec<u8>, Bytes)>,
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

    /// Queues a frame with a small body.
    pub fn push_with(&mut self, header: Header, message: &[u8]) {
        self.push(header);
        self.small.extend_from_slice(message);
    }

    /// Queues a request or response; `header` tells the sizes of `message` and
    /// `payload`.
    pub fn push_call(&mut self, header: Header, message: Vec<u8>, payload: Bytes, priority: Priority) {
        if Outbox::queue_of(message.len() + payload.len(), priority) == Queue::Small {
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
        let bulk = Bulk { side, call, head: Some((header, message)), rest: payload };
        self.wait(priority, Waiting::Bulk(bulk), bytes);
    }

    /// Queues a frame of a stream of which `side` is ours, behind those before it.
    pub fn push_item(&mut self, side: Side, call: u32, header: Header, message: &[u8], priority: Priority) {
        let frame_bytes = HEADER_SIZE_BYTES + message.len();
        let lane = self.lanes.entry((side, call)).or_default();
        let idle = lane.chunks.is_empty();
        lane.priority = priority;
        lane.unsent |= matches!(header, Header::Open { .. });
        let fits = lane.chunks.back().is_some_and(|last| last.len() + frame_bytes <= PART_SIZE_BYTES_MAX);
        if !fits {
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

    /// Calls back what has not been sent of a request, a response or a stream.
    pub fn withdraw(&mut self, side: Side, call: u32) -> Withdrawn {
        if let Some(lane) = self.lanes.remove(&(side, call)) {
            let bytes: usize = lane.chunks.iter().map(Vec::len).sum();
            self.large_bytes[lane.priority as usize] -= bytes;
            return if lane.unsent { Withdrawn::Unsent } else { Withdrawn::Left };
        }
        for (at, large) in self.large.iter_mut().enumerate() {
            let found = large.iter().position(|waiting| match waiting {
                Waiting::Bulk(bulk) => bulk.side == side && bulk.call == call,
                Waiting::Lane(..) => false,
            });
            let Some(Waiting::Bulk(bulk)) = found.and_then(|found| large.remove(found)) else { continue };
            self.large_bytes[at] -= bulk.rest.len();
            return match bulk.head {
                Some((_, message)) => {
                    self.large_bytes[at] -= HEADER_SIZE_BYTES + message.len();
                    Withdrawn::Unsent
                }
                None => {
                    self.count_under_way(at, false);
                    Withdrawn::Partly
                }
            };
        }
        Withdrawn::Left
    }

    /// Takes what the next write sends. Give the batch back with [`Outbox::recycle`].
    pub fn next_batch(&mut self) -> Batch {
        let high = std::mem::take(&mut self.high);
        let small = std::mem::replace(&mut self.small, std::mem::take(&mut self.spare));
        let mut batch = Batch { high, small, parts: Vec::new() };
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

    /// Lets the first of those that wait in a priority send a part. False if it may not begin yet, or was called back.
    fn take_turn(&mut self, at: usize, batch: &mut Batch) -> bool {
        let Some(waiting) = self.large[at].pop_front() else { return false };
        let bytes = match waiting {
            Waiting::Lane(side, call) => {
                let Some(lane) = self.lanes.get_mut(&(side, call)) else { return false };
                let Some(chunk) = lane.chunks.pop_front() else { return false };
                lane.unsent = false;
                match lane.chunks.is_empty() {
                    true => _ = self.lanes.remove(&(side, call)),
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
                if !bulk.rest.is_empty() {
                    self.large[at].push_back(Waiting::Bulk(bulk));
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

impl Batch {
    /// All of the batch in the order of sending, as slices for a gathering write.
    pub fn slices(&self) -> impl Iterator<Item = &[u8]> {
        let parts = self.parts.iter().flat_map(|(header, message, part)| {
            [header.as_ref().map_or(&[][..], |header| &header[..]), &message[..], &part[..]]
        });
        [&self.high[..], &self.small[..]].into_iter().chain(parts).filter(|slice| !slice.is_empty())
    }
}

#[cfg(test)]
mod tests;
