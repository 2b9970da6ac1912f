//! Whom a round compares with. Pure.
//!
//! Those who keep a key are within sight of each other, the more probably the nearer they are: so the nearest are compared
//! with in every round, and the others beside them, some at a time. When somebody comes or goes, or says something else of
//! himself, keys of any of them may have changed their keepers: then with all. In a network in which everybody is known the
//! nearest are all there are.

use overlay::{Contact, NodeId};

use crate::placement::{Candidate, WIDTH};

/// How many of the others each round compares with: in four rounds with all of them.
const OTHERS: usize = 8;

/// Whose turn it is.
#[derive(Default)]
pub(super) struct Partners {
    near: Vec<Candidate>,
    next: usize,
}

/// A round's.
pub(super) struct Turn {
    /// Whom it compares with.
    pub(super) partners: Vec<Contact>,
    /// Whether other nodes are near than in the last round, or say something else of themselves.
    pub(super) is_changed: bool,
}

impl Partners {
    /// Those of `neighbours`, the nearest first, that this round compares with; `own` is none of them.
    pub(super) fn of_round(&mut self, own: &NodeId, neighbours: &[Contact]) -> Turn {
        let mut partners: Vec<Contact> =
            neighbours.iter().filter(|contact| contact.id != *own).cloned().collect();
        let near: Vec<Candidate> = partners.iter().map(Candidate::from).collect();
        let is_changed = near != self.near;
        if is_changed {
            *self = Partners { near, next: 0 };
        } else if partners.len() > WIDTH {
            let mut others = partners.split_off(WIDTH);
            let count = others.len();
            others.rotate_left(self.next % count);
            partners.extend(others.into_iter().take(OTHERS));
            self.next = (self.next + OTHERS) % count;
        }
        Turn { partners, is_changed }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use reactor::crypto::PublicKey;

    fn contacts(count: u8) -> Vec<Contact> {
        (0..count).map(|number| Contact::new(PublicKey::from_bytes([number; 32]), [])).collect()
    }

    #[test]
    fn the_nearest_have_every_turn_and_the_others_one_in_some_and_all_after_a_change() {
        let (all, mut partners) = (contacts(48), Partners::default());
        let own = all[3].id;
        let first = partners.of_round(&own, &all);
        assert_eq!((first.partners.len(), first.is_changed), (47, true));
        let mut met = Vec::new();
        for _ in 0..4 {
            let Turn { partners: some, is_changed } = partners.of_round(&own, &all);
            assert_eq!((some.len(), is_changed), (WIDTH + OTHERS, false));
            assert!(all[..WIDTH].iter().all(|near| near.id == own || some.contains(near)));
            met.extend(some);
        }
        assert!(all.iter().all(|contact| met.contains(contact) == (contact.id != own)));
        assert_eq!(partners.of_round(&own, &all[1..]).partners.len(), 46);
        // Where everybody is known, nobody waits for his turn.
        let few = contacts(WIDTH as u8 + 1);
        for _ in 0..3 {
            assert_eq!(partners.of_round(&few[0].id, &few).partners.len(), WIDTH);
        }
    }
}
