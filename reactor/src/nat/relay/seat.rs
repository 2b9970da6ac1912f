//! Where a relay's client is found: whose process it is, and which of that peer's.
//!
//! One key may be at work in several processes at once, a drive and a command beside it, say, and one place for each key would
//! have them push each other out. So who wants to be found by its id takes the seat of number 0, and who only calls draws
//! another number, which those learn whom it calls.
//!
//! What it is not: an identity. The relay writes down whose seat it is, as it was proved to it, and takes the number from the
//! client.

use crate::nat::PeerId;
use crate::random;

/// Whose seat it is, and which.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Seat {
    /// Who proved that id.
    pub peer: PeerId,
    /// Which of its seats.
    pub number: u64,
}

impl Seat {
    /// The seat of `peer` that anybody finds who knows its id.
    pub const fn known(peer: PeerId) -> Seat {
        Seat { peer, number: 0 }
    }

    /// A seat of `peer` that nobody finds whom it has not called. Never suspends.
    pub fn drawn(peer: PeerId) -> Seat {
        Seat { peer, number: random::number().max(1) }
    }
}

impl From<PeerId> for Seat {
    fn from(peer: PeerId) -> Seat {
        Seat::known(peer)
    }
}
