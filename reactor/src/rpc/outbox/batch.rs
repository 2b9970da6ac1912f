//! What one write takes from the outbox. Pure.
//!
//! What it is not: the choice of it (`outbox.rs`).

use bytes::Bytes;

use crate::rpc::budget::Charge;
use crate::rpc::frame::HEADER_SIZE_BYTES;

/// What one write takes: bytes, then headers with their messages and parts.
#[derive(Default)]
pub struct Batch {
    /// Whole small frames of high priority.
    pub high: Vec<u8>,
    /// Whole small frames.
    pub small: Vec<u8>,
    /// Parts of large ones: header, message, part of the payload; or no header, and frames of a stream.
    pub parts: Vec<(Option<[u8; HEADER_SIZE_BYTES]>, Vec<u8>, Bytes)>,
    /// What has left with it, as soon as it was taken: the peer may count on that when it reads it.
    pub charge: Charge,
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
