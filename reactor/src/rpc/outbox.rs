//! What is sent next: frames that wait for the connection's one writer. Pure.
//!
//! Small frames are encoded into one buffer as they come, so that a hundred answers made in one round leave in
//! one write. A frame with a large body waits in a queue of its own; each batch takes all the small frames and
//! then one part of each of the first [`PAYLOADS_INTERLEAVED_MAX`] bodies. So a small call waits behind one
//! batch at most, the transfers share the line, and the receiver holds no more than that many unfinished
//! payloads.
//!
//! What it is not: back-pressure. It counts what waits ([`Outbox::queued_bytes`]); who may add to it is the
//! connection's decision.

use crate::rpc::frame::{HEADER_SIZE_BYTES, Header, PART_SIZE_BYTES_MAX, PREFACE};
use bytes::Bytes;
use std::collections::VecDeque;

/// Payloads under way at once in each direction. Two would do for fairness; four keep the line busy while one
/// of them waits for its last, short part. The receiver's memory for unfinished payloads is this many times
/// [`crate::rpc::PAYLOAD_SIZE_BYTES_MAX`].
pub const PAYLOADS_INTERLEAVED_MAX: usize = 4;

/// A body up to this size is copied behind its header. Copying 4 KiB takes 0.1 us, less than the handling of
/// another slice in a gathering write.
const COPIED_SIZE_BYTES_MAX: usize = 4 << 10;

/// Buffers larger than this are not kept for reuse: one burst should not pin memory for ever.
const KEPT_BUFFER_SIZE_BYTES_MAX: usize = 256 << 10;

/// Which side of a call a payload belongs to: the two number spaces are independent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Side {
    /// From the caller.
    Request,
    /// From the callee.
    Response,
}

/// A frame with a large body, and how much of it has left.
struct Bulk {
    side: Side,
    call: u32,
    /// Header and message, until the first part has left.
    head: Option<(Header, Vec<u8>)>,
    rest: Bytes,
}

/// Frames that wait to be written.
#[derive(Default)]
pub struct Outbox {
    small: Vec<u8>,
    spare: Vec<u8>,
    bulk: VecDeque<Bulk>,
    queued_bytes: usize,
}

/// What one write takes: bytes, then headers with their messages and parts.
#[derive(Default)]
pub struct Batch {
    /// Whole small frames.
    pub small: Vec<u8>,
    /// Parts of large ones: header, message, part of the payload.
    pub parts: Vec<([u8; HEADER_SIZE_BYTES], Vec<u8>, Bytes)>,
}

/// What became of a frame that was called back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Withdrawn {
    /// Nothing of it has been sent, and nothing will be.
    Unsent,
    /// Some of it has been sent; the peer must be told that the rest will not come.
    Partly,
    /// It is not here: all of it has left (or waits among the small frames).
    Left,
}

impl Outbox {
    /// An outbox that begins with the preface.
    pub fn new() -> Outbox {
        Outbox { small: PREFACE.to_vec(), queued_bytes: PREFACE.len(), ..Outbox::default() }
    }

    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.small.is_empty() && self.bulk.is_empty()
    }

    /// How many bytes wait.
    pub fn queued_bytes(&self) -> usize {
        self.queued_bytes
    }

    /// Whether a call with a body of `body_bytes` would join the large frames.
    pub fn is_large(body_bytes: usize) -> bool {
        body_bytes > COPIED_SIZE_BYTES_MAX
    }

    /// How many bytes wait among the small frames, or among the large ones. They are counted apart, for small
    /// frames overtake: a line full of large ones is no reason for a small one to wait.
    pub fn queued_bytes_of(&self, large: bool) -> usize {
        if large { self.queued_bytes - self.small.len() } else { self.small.len() }
    }

    /// Queues a frame without a body.
    pub fn push(&mut self, header: Header) {
        self.small.extend_from_slice(&header.encode());
        self.queued_bytes += HEADER_SIZE_BYTES;
    }

    /// Queues a request or response; `header` tells the sizes of `message` and `payload`.
    pub fn push_call(&mut self, header: Header, message: Vec<u8>, payload: Bytes) {
        self.queued_bytes += HEADER_SIZE_BYTES + message.len() + payload.len();
        if !Outbox::is_large(message.len() + payload.len()) {
            self.small.extend_from_slice(&header.encode());
            self.small.extend_from_slice(&message);
            self.small.extend_from_slice(&payload);
            return;
        }
        let (side, call) = match header {
            Header::Request { call, .. } => (Side::Request, call),
            Header::Response { call, .. } => (Side::Response, call),
            _ => unreachable!("only requests and responses have bodies"),
        };
        self.bulk.push_back(Bulk { side, call, head: Some((header, message)), rest: payload });
    }

    /// Calls back what has not been sent of a request or response.
    pub fn withdraw(&mut self, side: Side, call: u32) -> Withdrawn {
        let Some(at) = self.bulk.iter().position(|bulk| bulk.side == side && bulk.call == call) else {
            return Withdrawn::Left;
        };
        let bulk = self.bulk.remove(at).expect("the position was just found");
        self.queued_bytes -= bulk.rest.len();
        match bulk.head {
            Some((_, message)) => {
                self.queued_bytes -= HEADER_SIZE_BYTES + message.len();
                Withdrawn::Unsent
            }
            None => Withdrawn::Partly,
        }
    }

    /// Takes what the next write sends. Give the batch back with [`Outbox::recycle`].
    pub fn next_batch(&mut self) -> Batch {
        let small = std::mem::replace(&mut self.small, std::mem::take(&mut self.spare));
        let mut taken = small.len();
        let mut parts = Vec::new();
        let mut at = 0;
        for _ in 0..self.bulk.len().min(PAYLOADS_INTERLEAVED_MAX) {
            let bulk = &mut self.bulk[at];
            let part = bulk.rest.split_to(bulk.rest.len().min(PART_SIZE_BYTES_MAX));
            let (header, message) = match bulk.head.take() {
                Some(head) => head,
                None => {
                    let (call, size) = (bulk.call, part.len() as u32);
                    let header = match bulk.side {
                        Side::Request => Header::RequestPart { call, size },
                        Side::Response => Header::ResponsePart { call, size },
                    };
                    // Later headers were not counted when the frame was queued.
                    self.queued_bytes += HEADER_SIZE_BYTES;
                    (header, Vec::new())
                }
            };
            taken += HEADER_SIZE_BYTES + message.len() + part.len();
            parts.push((header.encode(), message, part));
            if bulk.rest.is_empty() {
                self.bulk.remove(at);
            } else {
                at += 1;
            }
        }
        self.queued_bytes -= taken;
        Batch { small, parts }
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
        let parts =
            self.parts.iter().flat_map(|(header, message, part)| [&header[..], &message[..], &part[..]]);
        std::iter::once(&self.small[..]).chain(parts).filter(|slice| !slice.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rpc::frame::{self, Status};
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn request(call: u32, message: &[u8], payload: &Bytes) -> Header {
        Header::Request {
            call,
            method: 1,
            timeout_ms: 0,
            message_size: message.len() as u32,
            payload_size: payload.len() as u32,
        }
    }

    fn push(outbox: &mut Outbox, call: u32, message: &[u8], payload: &Bytes) {
        outbox.push_call(request(call, message, payload), message.to_vec(), payload.clone());
    }

    /// An outbox whose preface has left.
    fn outbox() -> Outbox {
        let mut outbox = Outbox::new();
        assert_eq!(outbox.next_batch().small, PREFACE);
        outbox
    }

    fn headers(batch: &Batch) -> Vec<Header> {
        let bytes = batch.slices().collect::<Vec<_>>().concat();
        let (mut rest, mut headers) = (&bytes[..], Vec::new());
        while let Some((frame, length)) = frame::decode(rest).unwrap() {
            headers.push(frame.header);
            rest = &rest[length..];
        }
        assert!(rest.is_empty());
        headers
    }

    #[test]
    fn small_frames_leave_together_in_one_slice() {
        let mut outbox = outbox();
        push(&mut outbox, 1, b"one", &Bytes::new());
        push(&mut outbox, 2, b"two", &Bytes::from_static(b"payload"));
        outbox.push(Header::Ping);
        let batch = outbox.next_batch();
        assert_eq!(batch.slices().count(), 1);
        assert_eq!(headers(&batch).len(), 3);
        assert!(outbox.is_empty());
        assert_eq!(outbox.queued_bytes(), 0);
    }

    #[test]
    fn a_large_payload_leaves_in_parts_and_small_frames_overtake_it() {
        let mut outbox = outbox();
        let payload = Bytes::from(vec![7; 2 * PART_SIZE_BYTES_MAX + 1]);
        push(&mut outbox, 1, b"big", &payload);
        assert_eq!(headers(&outbox.next_batch()), [request(1, b"big", &payload)]);
        push(&mut outbox, 2, b"small", &Bytes::new());
        assert_eq!(outbox.queued_bytes_of(false), HEADER_SIZE_BYTES + 5);
        assert_eq!(outbox.queued_bytes_of(true), PART_SIZE_BYTES_MAX + 1);
        let full = PART_SIZE_BYTES_MAX as u32;
        assert_eq!(
            headers(&outbox.next_batch()),
            [request(2, b"small", &Bytes::new()), Header::RequestPart { call: 1, size: full }]
        );
        assert_eq!(headers(&outbox.next_batch()), [Header::RequestPart { call: 1, size: 1 }]);
        assert!(outbox.is_empty());
        assert_eq!(outbox.queued_bytes(), 0);
    }

    #[test]
    fn only_so_many_payloads_are_under_way_at_once() {
        let mut outbox = outbox();
        let payload = Bytes::from(vec![0; 2 * PART_SIZE_BYTES_MAX]);
        for call in 0..6 {
            push(&mut outbox, call, b"", &payload);
        }
        let calls = |batch: Batch| {
            headers(&batch)
                .iter()
                .map(|header| match header {
                    Header::Request { call, .. } | Header::RequestPart { call, .. } => *call,
                    _ => unreachable!(),
                })
                .collect::<Vec<_>>()
        };
        assert_eq!(calls(outbox.next_batch()), [0, 1, 2, 3]);
        assert_eq!(calls(outbox.next_batch()), [0, 1, 2, 3]);
        assert_eq!(calls(outbox.next_batch()), [4, 5]);
    }

    #[test]
    fn a_frame_can_be_called_back_until_it_has_left() {
        let mut outbox = outbox();
        let payload = Bytes::from(vec![0; 3 * PART_SIZE_BYTES_MAX]);
        push(&mut outbox, 1, b"message", &payload);
        assert_eq!(outbox.withdraw(Side::Response, 1), Withdrawn::Left);
        assert_eq!(outbox.withdraw(Side::Request, 1), Withdrawn::Unsent);
        assert_eq!(outbox.queued_bytes(), 0);
        push(&mut outbox, 2, b"message", &payload);
        outbox.next_batch();
        assert_eq!(outbox.withdraw(Side::Request, 2), Withdrawn::Partly);
        assert_eq!(outbox.withdraw(Side::Request, 2), Withdrawn::Left);
        assert!(outbox.is_empty());
        assert_eq!(outbox.queued_bytes(), 0);
    }

    #[test]
    fn a_large_message_without_payload_is_one_frame() {
        let mut outbox = outbox();
        let message = vec![1; crate::rpc::MESSAGE_SIZE_BYTES_MAX];
        let header = Header::Response {
            call: 1,
            status: Status::Error,
            message_size: message.len() as u32,
            payload_size: 0,
        };
        outbox.push_call(header, message, Bytes::new());
        assert_eq!(headers(&outbox.next_batch()), [header]);
        assert!(outbox.is_empty());
        assert_eq!(outbox.queued_bytes(), 0);
    }

    proptest! {
        #[test]
        fn whatever_is_queued_and_called_back_the_receiver_can_follow(
            steps in prop::collection::vec((0..4u8, 0..300_000usize, any::<bool>()), 1..60),
        ) {
            let mut outbox = outbox();
            let (mut next, mut arrived, mut withdrawn) = (0u32, BTreeMap::new(), Vec::new());
            let mut partly: BTreeMap<u32, usize> = BTreeMap::new();
            for (step, size, large) in steps.into_iter().chain(std::iter::repeat_n((2, 0, false), 400)) {
                match step {
                    0 | 1 => {
                        let payload = Bytes::from(vec![next as u8; if large { size } else { size % 5_000 }]);
                        push(&mut outbox, next, b"message", &payload);
                        next += 1;
                    }
                    2 => {
                        let batch = outbox.next_batch();
                        for header in headers(&batch) {
                            let (call, size, rest) = match header {
                                Header::Request { call, payload_size, .. } => {
                                    (call, header.part_size(), payload_size as usize - header.part_size())
                                }
                                Header::RequestPart { call, size } => {
                                    let missing = partly.remove(&call).expect("a part of a payload under way");
                                    prop_assert_eq!(size as usize, missing.min(PART_SIZE_BYTES_MAX));
                                    (call, size as usize, missing - size as usize)
                                }
                                _ => unreachable!(),
                            };
                            *arrived.entry(call).or_insert(0) += size;
                            if rest > 0 {
                                partly.insert(call, rest);
                            }
                            prop_assert!(partly.len() <= PAYLOADS_INTERLEAVED_MAX);
                        }
                        outbox.recycle(batch);
                    }
                    _ => {
                        let call = size as u32 % next.max(1);
                        match outbox.withdraw(Side::Request, call) {
                            Withdrawn::Partly => prop_assert!(partly.remove(&call).is_some()),
                            Withdrawn::Unsent => withdrawn.push(call),
                            Withdrawn::Left => prop_assert!(!partly.contains_key(&call)),
                        }
                    }
                }
            }
            prop_assert!(outbox.is_empty() && partly.is_empty());
            prop_assert_eq!(outbox.queued_bytes(), 0);
            prop_assert_eq!(arrived.len() + withdrawn.len(), next as usize);
        }
    }
}
