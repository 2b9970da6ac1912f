//! What waits in the outbox for its turns. Pure.
//!
//! What it is not: their order (`outbox.rs`).

use std::collections::VecDeque;

use bytes::Bytes;

use crate::rpc::budget::Charge;
use crate::rpc::frame::{Header, Priority, Side};

/// What waits for turns.
pub(super) enum Waiting {
    Bulk(Bulk),
    /// The lane of this name has something to send.
    Lane(Side, u32),
}

/// A frame with a large body, and how much of it has left.
pub(super) struct Bulk {
    pub(super) side: Side,
    pub(super) call: u32,
    /// Header and message, until the first part has left.
    pub(super) head: Option<(Header, Vec<u8>)>,
    pub(super) rest: Bytes,
    pub(super) charge: Charge,
}

/// The frames of one stream: whole frames in chunks, each of which is one turn.
#[derive(Default)]
pub(super) struct Lane {
    pub(super) chunks: VecDeque<Vec<u8>>,
    pub(super) priority: Priority,
    /// Nothing of the call has left: its first frame is still here.
    pub(super) unsent: bool,
    pub(super) charge: Charge,
}
