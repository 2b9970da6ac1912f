//! What the unit tests of this crate share: contacts made from bare ids, contacts with a record, and seeded randomness.

use std::sync::Arc;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use reactor::crypto::{Identity, PublicKey};

use crate::contact::Contact;
use crate::node_id::NodeId;
use crate::record::{NodeRecord, Statement};

/// A contact at a chosen position, which no real key would give.
pub(crate) fn contact_at(id: NodeId, address: &str) -> Contact {
    let address = address.parse().expect("a socket address");
    let mut contact = Contact::new(PublicKey::from_bytes(id.0), [address]);
    contact.id = id;
    contact
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

/// A contact of a real key, which says at `version` that it is at `address`.
pub(crate) fn contact_with_record(number: u8, version: u64, address: &str) -> Contact {
    let identity = Identity::from_seed(&[number; 32]);
    let addresses = std::iter::once(address.parse().expect("a socket address")).collect();
    let statement = Statement { addresses, ..Statement::default() };
    let record = NodeRecord::sign(&identity, &identity.public_key(), version, statement);
    Contact::new(identity.public_key(), []).with_record(Arc::new(record))
}
