//! Which nodes are responsible for a key: one answer for putting, reading and repairing.
//!
//! The R nearest to the key, of those that are there. A put goes to them, a reader asks them first, and repair keeps
//! what is theirs on them: whoever holds a block that is not its own hands it to them. Where a put meets a dead one, or
//! many nodes come at once, blocks lie elsewhere for a while; so readers look further, as far as a lookup sees.
//!
//! Not here: who is there, which is the overlay's to say.

use overlay::{Contact, NodeId};

/// Further nodes that may take the place of those that fail, in a put.
pub(crate) const SPARES: usize = 3;

/// As far as a reader looks before it says that a block is not there: Kademlia's K, what one lookup finds.
pub(crate) const READ_WIDTH: usize = 16;

/// Those of the nodes nearest to a key that are responsible for it.
pub(crate) fn responsible(nearest: &[Contact], replicas: usize) -> &[Contact] {
    &nearest[..replicas.min(nearest.len())]
}

/// Whether `node` is responsible for `key`, beside `others`.
pub(crate) fn is_responsible<'a>(
    node: &NodeId,
    key: &NodeId,
    others: impl Iterator<Item = &'a NodeId>,
    replicas: usize,
) -> bool {
    let distance = node.distance(key);
    others.filter(|other| *other != node && other.distance(key) < distance).count() < replicas
}

#[cfg(test)]
mod tests {
    use super::*;
    use reactor::crypto::Identity;

    #[test]
    fn both_ways_of_asking_agree() {
        let contacts: Vec<Contact> = (0..30u8)
            .map(|number| Identity::from_seed(&[number; 32]).public_key())
            .map(|key| Contact::new(key, [([127, 0, 0, 1], 1).into()]))
            .collect();
        for number in 0..50u8 {
            let key = NodeId([number.wrapping_mul(5); 32]);
            let mut nearest = contacts.clone();
            nearest.sort_by_key(|contact| contact.id.distance(&key));
            let chosen = responsible(&nearest, 3);
            for contact in &contacts {
                let others = contacts.iter().map(|contact| &contact.id);
                assert_eq!(is_responsible(&contact.id, &key, others, 3), chosen.contains(contact));
            }
        }
    }

    #[test]
    fn with_fewer_nodes_than_replicas_all_are_responsible() {
        assert!(responsible(&[], 3).is_empty());
        assert!(is_responsible(&NodeId([1; 32]), &NodeId([9; 32]), [NodeId([9; 32])].iter(), 3));
    }
}
