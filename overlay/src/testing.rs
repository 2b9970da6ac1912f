//! What the unit tests of this crate share: contacts made from bare ids, and seeded randomness.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use reactor::crypto::PublicKey;

use crate::contact::Contact;
use crate::node_id::NodeId;

/// A contact at a chosen position, which no real key would give.
pub(crate) fn contact_at(id: NodeId, address: &str) -> Contact {
    let addresses = std::iter::once(address.parse().expect("a socket address")).collect();
    Contact { id, public_key: PublicKey::from_bytes(id.0), addresses }
}

/// The generator that a failing test's printed seed replays.
pub(crate) fn random_from(seed: u64) -> StdRng {
    StdRng::seed_from_u64(seed)
}

/// A position drawn from `random`.
pub(crate) fn random_id(random: &mut StdRng) -> NodeId {
    let mut id = [0; 32];
    random.fill_bytes(&mut id);
    NodeId(id)
}
