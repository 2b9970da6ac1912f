//! What leaves when, whatever is queued and called back.

use super::*;
use crate::rpc::frame::{self, Status};
use proptest::prelude::*;
use std::collections::BTreeMap;

fn request(call: u32, message: &[u8], payload: &Bytes) -> Header {
    Header::Request {
        call,
        method: 1,
        timeout_ms: 0,
        metadata_size: 0,
        message_size: message.len() as u32,
        payload_size: payload.len() as u32,
        priority: Priority::Normal,
    }
}

fn push(outbox: &mut Outbox, call: u32, message: &[u8], payload: &Bytes) {
    outbox.push_call(
        request(call, message, payload),
        message.to_vec(),
        payload.clone(),
        Priority::Normal,
        Charge::NONE,
    );
}

impl Outbox {
    /// What all that waits takes, places in the queues included; counted anew, and compared with the account.
    pub(in crate::rpc) fn checked_bytes(&self) -> usize {
        let mut large_bytes = [0; 3];
        for (at, large) in self.large.iter().enumerate() {
            for waiting in large {
                match waiting {
                    Waiting::Bulk(bulk) => {
                        let head =
                            bulk.head.as_ref().map_or(0, |(_, message)| HEADER_SIZE_BYTES + message.len());
                        large_bytes[at] += head + bulk.rest.len();
                    }
                    Waiting::Lane(side, call) => {
                        let lane = self.lanes.get(&(*side, *call)).expect("a place is a lane's");
                        assert_eq!(lane.priority as usize, at, "in the queue of its priority");
                        large_bytes[at] += lane.chunks.iter().map(Vec::len).sum::<usize>();
                    }
                }
            }
        }
        assert_eq!(large_bytes, self.large_bytes);
        let places: usize = self.large.iter().map(VecDeque::len).sum();
        self.queued_bytes() + places * size_of::<Waiting>()
    }

    /// Whether some of a response is still here.
    pub(in crate::rpc) fn holds_response(&self, call: u32) -> bool {
        self.lanes.contains_key(&(Side::Response, call))
            || self.large.iter().flatten().any(|waiting| {
                matches!(waiting, Waiting::Bulk(bulk) if bulk.side == Side::Response && bulk.call == call)
            })
    }
}

/// An outbox whose preface has left.
fn outbox() -> Outbox {
    let mut outbox = Outbox::new();
    let first = [&PREFACE[..], &Header::Cancel { call: ANNOUNCE }.encode()].concat();
    assert_eq!(outbox.next_batch().high, first);
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
    assert_eq!(outbox.queued_bytes_of(Queue::Small), HEADER_SIZE_BYTES + 5);
    assert_eq!(outbox.queued_bytes_of(Queue::Large(Priority::Normal)), PART_SIZE_BYTES_MAX + 1);
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
    assert_eq!(outbox.withdraw(Side::Response, 1).0, Withdrawn::Left);
    assert_eq!(outbox.withdraw(Side::Request, 1).0, Withdrawn::Unsent);
    assert_eq!(outbox.queued_bytes(), 0);
    push(&mut outbox, 2, b"message", &payload);
    outbox.next_batch();
    assert_eq!(outbox.withdraw(Side::Request, 2).0, Withdrawn::Partly);
    assert_eq!(outbox.withdraw(Side::Request, 2).0, Withdrawn::Left);
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
        metadata_size: 0,
        message_size: message.len() as u32,
        payload_size: 0,
    };
    outbox.push_call(header, message, Bytes::new(), Priority::Normal, Charge::NONE);
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
                    match outbox.withdraw(Side::Request, call).0 {
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

fn item(call: u32, size: usize) -> Header {
    Header::Item { side: Side::Request, call, size: size as u32 }
}

fn calls_of(batch: &Batch) -> Vec<u32> {
    headers(batch)
        .iter()
        .map(|header| match header {
            Header::Request { call, .. } | Header::RequestPart { call, .. } | Header::Item { call, .. } => {
                *call
            }
            other => unreachable!("{other:?}"),
        })
        .collect()
}

#[test]
fn items_of_a_stream_leave_in_their_order_and_end_with_what_follows_them() {
    let mut outbox = outbox();
    for size in [10, 60_000, 20, 0, 64_000] {
        outbox.push_item(Side::Request, 1, item(1, size), &vec![7; size], Priority::Normal, Charge::NONE);
    }
    outbox.push_item(Side::Request, 1, Header::End { call: 1 }, &[], Priority::Normal, Charge::NONE);
    let mut left = Vec::new();
    while !outbox.is_empty() {
        left.extend(headers(&outbox.next_batch()));
    }
    let expected = [item(1, 10), item(1, 60_000), item(1, 20), item(1, 0), item(1, 64_000)];
    assert_eq!(left[..5], expected);
    assert_eq!(left[5..], [Header::End { call: 1 }]);
    assert_eq!(outbox.queued_bytes(), 0);
}

#[test]
fn a_stream_that_fills_the_line_lets_small_calls_and_other_streams_pass() {
    let mut outbox = outbox();
    for _ in 0..50 {
        outbox.push_item(Side::Request, 1, item(1, 60_000), &vec![1; 60_000], Priority::Normal, Charge::NONE);
    }
    outbox.next_batch();
    outbox.push_item(Side::Request, 2, item(2, 10), &[2; 10], Priority::Normal, Charge::NONE);
    push(&mut outbox, 3, b"small", &Bytes::new());
    let mut calls = calls_of(&outbox.next_batch());
    calls.dedup();
    assert_eq!(calls[0], 3, "{calls:?}");
    assert!(calls.contains(&2), "{calls:?}");
}

#[test]
fn the_higher_priority_leaves_first_and_the_lower_is_never_starved() {
    let mut outbox = outbox();
    let small = |outbox: &mut Outbox, call, priority| {
        let header = request(call, b"", &Bytes::new());
        outbox.push_call(header, Vec::new(), Bytes::new(), priority, Charge::NONE);
    };
    small(&mut outbox, 1, Priority::Low);
    small(&mut outbox, 2, Priority::Normal);
    small(&mut outbox, 3, Priority::High);
    assert_eq!(calls_of(&outbox.next_batch()), [3, 2, 1]);

    // Eight busy streams of each: the high ones get most of the line, and all get some.
    let mut sent = [0; 24];
    for _ in 0..2_000 {
        for call in 0..24u32 {
            let priority = Priority::ALL[call as usize / 8];
            if outbox.lanes.get(&(Side::Request, call)).is_none_or(|lane| lane.chunks.len() <= 1) {
                outbox.push_item(
                    Side::Request,
                    call,
                    item(call, 60_000),
                    &[0; 60_000],
                    priority,
                    Charge::NONE,
                );
            }
        }
        let batch = outbox.next_batch();
        assert!(batch.slices().map(<[u8]>::len).sum::<usize>() <= 5 * PART_SIZE_BYTES_MAX);
        calls_of(&batch).into_iter().for_each(|call| sent[call as usize] += 1);
    }
    let of = |priority: usize| sent[priority * 8..][..8].iter().sum::<i32>();
    let (normal, high, low) = (of(0), of(1), of(2));
    assert!(high > 2 * normal && normal > 2 * low && low > 200, "{high} {normal} {low}");
    assert!(sent.iter().all(|&sent| sent > 20), "{sent:?}");
}

#[test]
fn low_payloads_leave_places_for_the_others() {
    let mut outbox = outbox();
    let payload = Bytes::from(vec![0; 3 * PART_SIZE_BYTES_MAX]);
    for call in 0..4 {
        outbox.push_call(
            request(call, b"", &payload),
            Vec::new(),
            payload.clone(),
            Priority::Low,
            Charge::NONE,
        );
    }
    assert_eq!(calls_of(&outbox.next_batch()), [0, 1]);
    for call in 4..8 {
        push(&mut outbox, call, b"", &payload);
    }
    let mut calls = calls_of(&outbox.next_batch());
    calls.sort_unstable();
    assert!(calls.contains(&4) && calls.contains(&5), "{calls:?}");
}

#[test]
fn a_stream_that_is_called_back_sends_no_more() {
    let mut outbox = outbox();
    let open = Header::Open {
        call: 1,
        method: 1,
        timeout_ms: 1,
        metadata_size: 0,
        message_size: 0,
        priority: Priority::Normal,
    };
    outbox.push_item(Side::Request, 1, open, &[], Priority::Normal, Charge::NONE);
    assert_eq!(outbox.withdraw(Side::Request, 1).0, Withdrawn::Unsent);
    assert!(outbox.is_empty());
    outbox.push_item(Side::Request, 2, open, &[], Priority::Normal, Charge::NONE);
    outbox.next_batch();
    outbox.push_item(Side::Request, 2, item(2, 5), b"12345", Priority::Normal, Charge::NONE);
    assert_eq!(outbox.withdraw(Side::Request, 2).0, Withdrawn::Left);
    assert!(outbox.is_empty() && outbox.next_batch().slices().count() == 0);
    assert_eq!(outbox.queued_bytes(), 0);
}

#[test]
fn the_end_of_a_call_overtakes_what_may_take_its_place_and_not_its_own_request() {
    let mut outbox = outbox();
    push(&mut outbox, 1, b"left", &Bytes::new());
    outbox.next_batch();
    push(&mut outbox, 2, b"waits", &Bytes::new());
    outbox.push_cancel(2);
    outbox.push_cancel(1);
    let urgent = request(3, b"", &Bytes::new());
    outbox.push_call(urgent, Vec::new(), Bytes::new(), Priority::High, Charge::NONE);
    let (first, second) = (Header::Cancel { call: 1 }, Header::Cancel { call: 2 });
    assert_eq!(headers(&outbox.next_batch()), [first, urgent, request(2, b"waits", &Bytes::new()), second]);
}

#[test]
fn a_call_that_is_made_behind_an_opening_leaves_behind_it() {
    let mut outbox = outbox();
    let open = Header::Open {
        call: 1,
        method: 1,
        timeout_ms: 1,
        metadata_size: 0,
        message_size: 0,
        priority: Priority::Normal,
    };
    outbox.push_open(open, &[], Priority::Normal);
    push(&mut outbox, 2, b"put", &Bytes::new());
    assert_eq!(headers(&outbox.next_batch()), [open, request(2, b"put", &Bytes::new())]);
}

#[test]
fn what_had_not_left_at_the_end_is_known() {
    let mut outbox = outbox();
    let large = Bytes::from(vec![0; 5 * PART_SIZE_BYTES_MAX]);
    push(&mut outbox, 1, b"small", &Bytes::new());
    push(&mut outbox, 2, b"large", &large);
    outbox.next_batch();
    push(&mut outbox, 3, b"small", &Bytes::new());
    push(&mut outbox, 4, b"large", &large);
    assert!(outbox.withdraw_unsent(4) && !outbox.withdraw_unsent(4), "it is here, and then gone");
    assert!(!outbox.withdraw_unsent(2) && !outbox.withdraw_unsent(3), "some of it has left, or will");
    push(&mut outbox, 5, b"large", &large);
    let (_, is_unsent) = outbox.abandon();
    assert_eq!([1, 2, 3, 5].map(is_unsent), [false, false, true, true]);
}

#[test]
fn a_number_that_is_used_again_under_another_priority_disturbs_nothing() {
    for cancelled in [true, false] {
        let mut outbox = outbox();
        let answer = Header::Response {
            call: 5,
            status: Status::UnknownMethod,
            metadata_size: 0,
            message_size: 0,
            payload_size: 0,
        };
        outbox.push_item(Side::Response, 5, answer, &[], Priority::Normal, Charge::NONE);
        if cancelled {
            assert_eq!(outbox.withdraw(Side::Response, 5).0, Withdrawn::Left);
            assert_eq!(outbox.checked_bytes(), 0, "nothing is left of it");
        }
        outbox.push_item(Side::Response, 5, answer, &[], Priority::Low, Charge::NONE);
        outbox.checked_bytes();
        let sent = headers(&outbox.next_batch());
        assert_eq!(sent, vec![answer; if cancelled { 1 } else { 2 }]);
        assert!(outbox.is_empty() && outbox.checked_bytes() == 0);
    }
}
