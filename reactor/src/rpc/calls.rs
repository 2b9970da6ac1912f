//! Which calls are in flight, in either direction, and what the peer may still begin. Pure.
//!
//! Both sides keep the same account, in the same unit: a call weighs its request's bytes, but at least
//! [`CALL_WEIGHT_BYTES_MIN`], and all that one side has in flight weighs at most
//! [`CALLS_WEIGHT_BYTES_MAX`]. So one number bounds both how many calls and how many bytes. The caller waits
//! before it goes over; the callee answers `Overloaded` to a caller that does not. The callee never stops
//! reading instead: two sides that each wait for the other to read would wait for ever.
//!
//! What it is not: deadlines or waiting. It stores what the connection hands it.

use crate::rpc::frame::FrameError;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

/// The least a call weighs: what a coroutine and its request cost, rounded up so that
/// [`CALLS_WEIGHT_BYTES_MAX`] allows 256 calls.
pub const CALL_WEIGHT_BYTES_MIN: usize = 128 << 10;

/// What one peer may have in flight at us, and we at it: 256 small calls, or six of the largest. At 1 GB/s
/// and 30 ms of round trip, 32 MiB keep the line full.
pub const CALLS_WEIGHT_BYTES_MAX: usize = 32 << 20;

/// What a call with a request of this many bytes weighs.
pub fn weight_bytes(request_bytes: usize) -> usize {
    request_bytes.max(CALL_WEIGHT_BYTES_MIN)
}

/// Our calls that the peer has not answered. `S` is where the answer goes.
#[derive(Debug)]
pub struct Outgoing<S> {
    next: u32,
    waiting: BTreeMap<u32, S>,
}

impl<S> Default for Outgoing<S> {
    fn default() -> Self {
        Outgoing { next: 0, waiting: BTreeMap::new() }
    }
}

impl<S> Outgoing<S> {
    /// Begins a call and returns its number, unique among those in flight.
    pub fn begin(&mut self, slot: S) -> u32 {
        // After 2^32 calls the numbers come round; one that is still in flight is passed over.
        while self.waiting.contains_key(&self.next) {
            self.next = self.next.wrapping_add(1);
        }
        let call = self.next;
        self.next = call.wrapping_add(1);
        self.waiting.insert(call, slot);
        call
    }

    /// Whether somebody waits for the answer.
    pub fn is_waiting(&self, call: u32) -> bool {
        self.waiting.contains_key(&call)
    }

    /// Ends a call; `None` if it is no longer waited for.
    pub fn end(&mut self, call: u32) -> Option<S> {
        self.waiting.remove(&call)
    }

    /// Ends all.
    pub fn end_all(&mut self) -> impl Iterator<Item = S> + use<S> {
        std::mem::take(&mut self.waiting).into_values()
    }

    /// How many are waited for.
    pub fn count(&self) -> usize {
        self.waiting.len()
    }
}

/// The peer's calls that we have not answered. `H` is what ends the handler.
#[derive(Debug)]
pub struct Incoming<H> {
    running: BTreeMap<u32, Running<H>>,
    weight_bytes: usize,
    stream_count: usize,
}

#[derive(Debug)]
struct Running<H> {
    weight_bytes: usize,
    handler: Option<H>,
}

impl<H> Default for Incoming<H> {
    fn default() -> Self {
        Incoming { running: BTreeMap::new(), weight_bytes: 0, stream_count: 0 }
    }
}

impl<H> Incoming<H> {
    /// Admits a request of `request_bytes`; false if the peer has too much in flight.
    ///
    /// # Errors
    /// [`FrameError::DuplicateCall`] if the number is in use: the peer is broken, close the connection.
    pub fn admit(&mut self, call: u32, request_bytes: usize) -> Result<bool, FrameError> {
        let weight_bytes = weight_bytes(request_bytes);
        match self.running.entry(call) {
            Entry::Occupied(_) => Err(FrameError::DuplicateCall { call }),
            Entry::Vacant(_) if self.weight_bytes + weight_bytes > CALLS_WEIGHT_BYTES_MAX => Ok(false),
            Entry::Vacant(entry) => {
                entry.insert(Running { weight_bytes, handler: None });
                self.weight_bytes += weight_bytes;
                Ok(true)
            }
        }
    }

    /// Admits a call that streams; false if the peer has `max` of them open. They are bounded by their number, and do
    /// not weigh on the others.
    ///
    /// # Errors
    /// As [`Incoming::admit`].
    pub fn admit_stream(&mut self, call: u32, max: usize) -> Result<bool, FrameError> {
        match self.running.entry(call) {
            Entry::Occupied(_) => Err(FrameError::DuplicateCall { call }),
            Entry::Vacant(_) if self.stream_count >= max => Ok(false),
            Entry::Vacant(entry) => {
                entry.insert(Running { weight_bytes: 0, handler: None });
                self.stream_count += 1;
                Ok(true)
            }
        }
    }

    /// Notes what ends the call's handler. A handler that has answered already is given back.
    pub fn attach(&mut self, call: u32, handler: H) -> Option<H> {
        match self.running.get_mut(&call) {
            Some(running) => running.handler.replace(handler),
            None => Some(handler),
        }
    }

    /// Ends a call: the outer `Option` tells whether it was running, the inner whether it has a handler.
    pub fn end(&mut self, call: u32) -> Option<Option<H>> {
        let running = self.running.remove(&call)?;
        self.weight_bytes -= running.weight_bytes;
        // Only a call that streams weighs nothing.
        self.stream_count -= usize::from(running.weight_bytes == 0);
        Some(running.handler)
    }

    /// Ends all.
    pub fn end_all(&mut self) -> impl Iterator<Item = H> + use<H> {
        (self.weight_bytes, self.stream_count) = (0, 0);
        std::mem::take(&mut self.running).into_values().filter_map(|running| running.handler)
    }

    /// How many are running or arriving.
    pub fn count(&self) -> usize {
        self.running.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rpc::{MESSAGE_SIZE_BYTES_MAX, PAYLOAD_SIZE_BYTES_MAX};

    #[test]
    fn numbers_in_flight_are_never_given_twice() {
        let mut calls = Outgoing { next: u32::MAX - 1, waiting: BTreeMap::new() };
        let first: Vec<u32> = (0..4).map(|slot| calls.begin(slot)).collect();
        assert_eq!(first, [u32::MAX - 1, u32::MAX, 0, 1]);
        calls.next = u32::MAX;
        assert_eq!(calls.begin(9), 2, "the numbers in flight are passed over");
        assert_eq!(calls.end(0), Some(2));
        assert_eq!(calls.end(0), None, "a second answer finds nobody");
        assert_eq!(calls.end_all().count(), 4);
        assert_eq!(calls.count(), 0);
    }

    #[test]
    fn as_many_small_calls_are_admitted_as_documented() {
        let mut calls = Incoming::<()>::default();
        for call in 0..256 {
            assert_eq!(calls.admit(call, 10), Ok(true));
        }
        assert_eq!(calls.admit(256, 10), Ok(false));
        calls.end(7);
        assert_eq!(calls.admit(256, 10), Ok(true));
    }

    #[test]
    fn the_largest_request_is_admitted_and_so_are_some_more() {
        let mut calls = Incoming::<()>::default();
        for call in 0..6 {
            assert_eq!(calls.admit(call, MESSAGE_SIZE_BYTES_MAX + PAYLOAD_SIZE_BYTES_MAX), Ok(true));
        }
        assert_eq!(calls.admit(6, MESSAGE_SIZE_BYTES_MAX + PAYLOAD_SIZE_BYTES_MAX), Ok(false));
    }

    #[test]
    fn calls_that_stream_are_counted_apart() {
        let mut calls = Incoming::<()>::default();
        assert_eq!(calls.admit_stream(0, 2), Ok(true));
        assert_eq!(calls.admit_stream(1, 2), Ok(true));
        assert_eq!(calls.admit_stream(2, 2), Ok(false));
        assert_eq!(calls.admit_stream(1, 2), Err(FrameError::DuplicateCall { call: 1 }));
        for call in 10..266 {
            assert_eq!(calls.admit(call, 10), Ok(true), "the others have all their room");
        }
        calls.end(0);
        assert_eq!(calls.admit_stream(2, 2), Ok(true));
    }

    #[test]
    fn a_number_in_use_is_an_error_and_a_freed_one_is_not() {
        let mut calls = Incoming::default();
        assert_eq!(calls.admit(1, 0), Ok(true));
        assert_eq!(calls.admit(1, 0), Err(FrameError::DuplicateCall { call: 1 }));
        assert_eq!(calls.attach(1, "handler"), None);
        assert_eq!(calls.end(1), Some(Some("handler")));
        assert_eq!(calls.end(1), None);
        assert_eq!(calls.attach(1, "late"), Some("late"));
        assert_eq!(calls.admit(1, 0), Ok(true));
        assert_eq!(calls.end(1), Some(None));
    }
}
