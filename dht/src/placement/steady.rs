//! How often what a node says of itself may move copies. Pure.
//!
//! Each word of a node about its zone or its room makes others copy blocks, and copies that are surplus then stay. A node that
//! says another zone each minute would have the whole network copy for ever. So repair takes some changes of each node at once,
//! as many as somebody needs who sets his machines up, and further ones when an hour has passed. Meanwhile what counted last
//! counts on, here: others may know more or less of its words, which costs copies and no block.
//!
//! Likewise, where a network grows beyond [`WIDTH`] nodes or shrinks to them, that decides whether what they say counts when it
//! has been so for a while: a machine that only restarts, or stands in for another for some minutes, moves nothing. One more than
//! [`WIDTH`] all know each other still; with two more it counts no longer at once.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use overlay::{Contact, NodeId};

use super::{Candidate, Neighbourhood, WIDTH, is_everybody};

/// Changes of one node that count in [`PERIOD`].
const CHANGES_MAX: u32 = 4;

const PERIOD: Duration = Duration::from_secs(3600);

/// How long a network has to have been larger, or no larger: a restart, with a disk check.
const SETTLED_FOR: Duration = Duration::from_secs(900);

/// Nodes that are remembered: more than are ever near.
const NODES_MAX: usize = 1024;

/// What counts of each node.
#[derive(Debug, Default)]
pub(crate) struct Steady {
    nodes: BTreeMap<NodeId, Counts>,
    /// Whether what they say counts.
    does_count: Option<bool>,
    /// Since when it should be otherwise.
    otherwise_since: Option<Instant>,
}

#[derive(Debug)]
struct Counts {
    candidate: Candidate,
    began: Instant,
    changes: u32,
}

impl Steady {
    /// The neighbourhood of `own` among `contacts`, as far as it counts at `now`.
    pub(crate) fn around(&mut self, own: NodeId, contacts: &[Contact], now: Instant) -> Neighbourhood {
        if self.nodes.len() > NODES_MAX {
            self.nodes.retain(|id, _| contacts.iter().any(|contact| contact.id == *id));
        }
        let does_count = self.decide(contacts.len(), now);
        let candidates =
            contacts.iter().map(|contact| self.counting(Candidate::from(contact), now)).collect();
        Neighbourhood::new(own, candidates, does_count)
    }

    /// Whether what nodes say counts, where so many are seen.
    fn decide(&mut self, seen: usize, now: Instant) -> bool {
        let should_count = is_everybody(seen);
        let does_count = self.does_count.unwrap_or(should_count);
        let since = *self.otherwise_since.get_or_insert(now);
        let is_settled = does_count == should_count || seen > WIDTH + 1 || now >= since + SETTLED_FOR;
        if is_settled {
            self.otherwise_since = None;
        }
        let does_count = if is_settled { should_count } else { does_count };
        self.does_count = Some(does_count);
        does_count
    }

    fn counting(&mut self, says: Candidate, now: Instant) -> Candidate {
        let first = || Counts { candidate: says.clone(), began: now, changes: 0 };
        let counts = self.nodes.entry(says.id).or_insert_with(first);
        if counts.candidate != says {
            if now >= counts.began + PERIOD {
                (counts.began, counts.changes) = (now, 0);
            }
            if counts.changes < CHANGES_MAX {
                counts.changes += 1;
                counts.candidate = says;
            }
        }
        counts.candidate.clone()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use overlay::{NodeRecord, Statement};
    use reactor::crypto::Identity;

    use super::*;

    fn nodes(count: u8) -> Vec<Contact> {
        (0..count).map(|number| Contact::new(Identity::from_seed(&[number; 32]).public_key(), [])).collect()
    }

    fn saying(number: u8, zone: &str, version: u64) -> Contact {
        let identity = Identity::from_seed(&[number; 32]);
        let statement = Statement { zone: zone.parse().ok(), ..Statement::default() };
        let record = NodeRecord::sign(&identity, &identity.public_key(), version, statement);
        Contact::new(identity.public_key(), []).with_record(Arc::new(record))
    }

    #[test]
    fn a_node_that_says_another_zone_each_minute_moves_copies_four_times_an_hour() {
        let (mut steady, start, mut nodes) = (Steady::default(), Instant::now(), nodes(5));
        let own = nodes[0].id;
        let (mut moved, mut last) = (0, steady.around(own, &nodes, start).mark());
        for minute in 1..=180 {
            nodes[3] = saying(3, if minute % 2 == 0 { "attic" } else { "cellar" }, minute);
            let mark = steady.around(own, &nodes, start + Duration::from_secs(60 * minute)).mark();
            moved += u32::from(mark != last);
            last = mark;
        }
        assert!((4..=4 * CHANGES_MAX).contains(&moved), "{moved}");
        // What it says in the end counts in the end.
        nodes[3] = saying(3, "shed", 1000);
        let settled = steady.around(own, &nodes, start + 5 * PERIOD);
        assert_eq!(settled.get(&nodes[3].id), Some(&Candidate::from(&nodes[3])));
    }

    #[test]
    fn that_a_network_is_larger_or_no_larger_counts_when_it_has_been_so_for_a_while() {
        let (mut steady, start) = (Steady::default(), Instant::now());
        let mut all = nodes(18);
        all[1] = saying(1, "cellar", 1);
        let own = all[0].id;
        let mut has_zones = |count: usize, minute: u64| {
            steady.around(own, &all[..count], start + Duration::from_secs(60 * minute)).has_zones()
        };
        assert!(has_zones(16, 0), "at once, where nobody knows better");
        // Another one comes and goes, and then one comes and stays.
        assert!(has_zones(17, 1) && has_zones(17, 14) && has_zones(16, 15) && has_zones(17, 20));
        assert!(!has_zones(17, 35));
        assert!(!has_zones(16, 36) && !has_zones(17, 40) && !has_zones(16, 41) && !has_zones(16, 55));
        assert!(has_zones(16, 56));
        assert!(!has_zones(18, 57), "not all know each other");
    }
}
