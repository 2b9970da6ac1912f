//! How often each peer may tell what it says of itself.
//!
//! A record costs whoever takes it a verification, and one that names other addresses costs all who watch the table a look at
//! who is near. A node says something new when it starts, moves, or finds other relays; a peer that does so all the time is
//! refused until it has been quiet, and tells the rest then: who hands something over tries again, ever more rarely.
//!
//! Pure: it is told the time.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use reactor::crypto::PublicKey;

/// Introductions that one peer may send in [`PERIOD`]. A laptop that is carried through a house moves a few times a minute.
const INTRODUCTIONS_MAX: u32 = 16;

const PERIOD: Duration = Duration::from_secs(60);

/// Peers that are remembered: more than a node is connected to. Only storage nodes of the network may introduce anybody.
const PEERS_MAX: usize = 2048;

/// Who introduced somebody lately, when the count began, and how often.
#[derive(Debug, Default)]
pub(crate) struct Introductions(BTreeMap<PublicKey, (Instant, u32)>);

impl Introductions {
    /// Counts one of `peer`; says whether it may be looked at.
    pub(crate) fn take(&mut self, peer: &PublicKey, now: Instant) -> bool {
        if self.0.len() >= PEERS_MAX {
            self.0.retain(|_, (began, _)| now < *began + PERIOD);
        }
        if self.0.len() >= PEERS_MAX && !self.0.contains_key(peer) {
            return false;
        }
        let (began, count) = self.0.entry(*peer).or_insert((now, 0));
        if now >= *began + PERIOD {
            (*began, *count) = (now, 0);
        }
        *count = count.saturating_add(1);
        *count <= INTRODUCTIONS_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_that_says_something_new_all_the_time_is_heard_now_and_then_and_hinders_nobody() {
        let (mut introductions, start) = (Introductions::default(), Instant::now());
        let peer = |number: u32| {
            let mut key = [0; 32];
            key[..4].copy_from_slice(&number.to_be_bytes());
            PublicKey::from_bytes(key)
        };
        let heard = (0..600).filter(|second| {
            let now = start + Duration::from_secs(*second);
            introductions.take(&peer(1), now)
        });
        assert_eq!(heard.count(), 160);
        let now = start + Duration::from_secs(600);
        let others = (2..PEERS_MAX as u32 * 3).filter(|number| introductions.take(&peer(*number), now));
        assert_eq!(others.count(), PEERS_MAX);
        assert!(introductions.0.len() <= PEERS_MAX);
        assert!(introductions.take(&peer(1), now + PERIOD));
    }
}
