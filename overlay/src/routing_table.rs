//! The routing table: whom we know, sorted into k-buckets by how long a prefix they share with us.
//!
//! Far half of the space: one bucket. The half nearer to us: the next one; and so on. So a table of some
//! `K * log2(n)` contacts suffices to halve the distance to any target at every hop, and the nodes around us are all
//! known. In a network so small that no bucket ever turned anybody away, the table holds everyone, and a lookup needs
//! no hop at all: [`RoutingTable::holds_everyone`].
//!
//! Pure: it is told the time and touches no socket. Only contacts whose handshake proved their id may be noted here;
//! contacts from an answer are candidates for a lookup, no more.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::contact::Contact;
use crate::k_bucket::{Entry, Insert, K, KBucket};
use crate::node_id::{ID_BITS, NodeId};
use crate::record::NodeRecord;

/// How long a bucket may go without a lookup in its range before it is refreshed.
///
/// One hour: Maymounkov & Mazieres 2002, section 2.3.
pub const BUCKET_REFRESH: Duration = Duration::from_secs(3600);

/// How long a live contact may be silent before it is pinged: a connection normally tells us sooner.
pub const SILENCE_MAX: Duration = Duration::from_secs(600);

/// Whom we know.
#[derive(Clone, Debug)]
pub struct RoutingTable {
    own: NodeId,
    /// By the length of the prefix shared with us; only buckets in use, so that an idle node stays small.
    buckets: BTreeMap<usize, KBucket>,
    /// When a lookup last went into each bucket's range.
    looked_up: BTreeMap<usize, Instant>,
    /// Counts changes of the set of live contacts and of their addresses.
    version: u64,
}

impl RoutingTable {
    /// An empty table around `own`.
    pub fn new(own: NodeId) -> RoutingTable {
        RoutingTable { own, buckets: BTreeMap::new(), looked_up: BTreeMap::new(), version: 0 }
    }

    /// Notes that `contact` was seen at `now`, its id proven by a handshake. Ourselves are ignored.
    pub fn on_seen(&mut self, contact: Contact, now: Instant) -> Option<Insert> {
        let index = self.bucket_index(&contact.id)?;
        self.looked_up.entry(index).or_insert(now);
        let insert = self.buckets.entry(index).or_default().on_seen(contact, now);
        if matches!(insert, Insert::Added | Insert::Changed) {
            self.version += 1;
        }
        Some(insert)
    }

    /// Notes that `id` answered a call after `round_trip`.
    pub fn on_answer(&mut self, id: &NodeId, round_trip: Duration, now: Instant) {
        if let Some(bucket) = self.bucket_of(id)
            && bucket.on_answer(id, round_trip, now)
        {
            self.version += 1;
        }
    }

    /// Notes that `id` answered a call whose duration says nothing about the network.
    pub fn on_heard(&mut self, id: &NodeId, now: Instant) {
        if let Some(bucket) = self.bucket_of(id)
            && bucket.on_heard(id, now)
        {
            self.version += 1;
        }
    }

    /// Notes what a node says of itself, whoever brought it; only of those that are here already.
    pub fn on_record(&mut self, record: &Arc<NodeRecord>, now: Instant) {
        if let Some(bucket) = self.bucket_of(&NodeId::of(record.holder()))
            && bucket.on_record(record, now)
        {
            self.version += 1;
        }
    }

    /// Notes that a call to `id` failed, so that the next question for the closest omits it.
    pub fn on_failed(&mut self, id: &NodeId, now: Instant) {
        if let Some(bucket) = self.bucket_of(id)
            && bucket.on_failed(id, now)
        {
            self.version += 1;
        }
    }

    /// Forgets `id`, which said that it leaves.
    pub fn remove(&mut self, id: &NodeId) {
        if let Some(bucket) = self.bucket_of(id)
            && bucket.remove(id)
        {
            self.version += 1;
        }
    }

    /// Notes a finished lookup for `target`: its bucket needs no refresh for a while.
    pub fn on_looked_up(&mut self, target: &NodeId, now: Instant) {
        if let Some(index) = self.bucket_index(target) {
            self.looked_up.insert(index, now);
        }
    }

    /// The live contacts nearest to `target`, nearest first, at most `count`.
    pub fn closest(&self, target: &NodeId, count: usize) -> Vec<Contact> {
        let live = self.entries().filter(|entry| entry.is_live());
        let mut nearest: Vec<_> = live.map(|entry| (entry.contact.id.distance(target), entry)).collect();
        if nearest.len() > count && count > 0 {
            nearest.select_nth_unstable_by_key(count - 1, |(distance, _)| *distance);
        }
        nearest.truncate(count);
        nearest.sort_unstable_by_key(|(distance, _)| *distance);
        nearest.into_iter().map(|(_, entry)| entry.contact.clone()).collect()
    }

    /// What we know of `id`, dead or alive.
    pub fn get(&self, id: &NodeId) -> Option<&Entry> {
        self.buckets.get(&self.bucket_index(id)?)?.get(id)
    }

    /// Every contact with a place, dead or alive.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.buckets.values().flat_map(|bucket| bucket.entries())
    }

    /// How many contacts are thought alive.
    pub fn live_count(&self) -> usize {
        self.entries().filter(|entry| entry.is_live()).count()
    }

    /// Whether the table holds the whole network, so that whoever is closest in it is closest of all.
    ///
    /// Nobody was ever turned away, and we know fewer than `K` contacts. The second is needed: a node that joins meets
    /// its `K` closest, so everyone in a network of up to `K`, but only some of the rest in a larger one.
    pub fn holds_everyone(&self) -> bool {
        self.buckets.values().all(KBucket::holds_everyone) && self.entries().count() < K
    }

    /// Counts changes of the set of live contacts and of their addresses.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Contacts that deserve a ping at `now`: failed ones whose pause is over, and live ones long silent.
    pub fn due_pings(&self, now: Instant) -> Vec<Contact> {
        let is_due = |entry: &&Entry| {
            if entry.is_live() { now >= entry.last_seen + SILENCE_MAX } else { now >= entry.next_ping }
        };
        self.entries().filter(is_due).map(|entry| entry.contact.clone()).collect()
    }

    /// One position in each bucket that saw no lookup for [`BUCKET_REFRESH`], to look up now; `random` draws them.
    ///
    /// Also of the empty buckets farther away than our nearest contact; those nearer are empty because nobody is there.
    pub fn due_refreshes(&self, now: Instant, mut random: impl FnMut() -> [u8; 32]) -> Vec<NodeId> {
        let Some((&nearest, _)) = self.buckets.iter().rev().find(|(_, bucket)| !bucket.is_empty()) else {
            return Vec::new();
        };
        let is_due = |index: &usize| match self.looked_up.get(index) {
            Some(&at) => now >= at + BUCKET_REFRESH,
            None => true,
        };
        let due = (0..=nearest.min(ID_BITS - 1)).filter(is_due);
        due.map(|index| self.own.with_common_prefix(index, random())).collect()
    }

    fn bucket_of(&mut self, id: &NodeId) -> Option<&mut KBucket> {
        let index = self.bucket_index(id)?;
        self.buckets.get_mut(&index)
    }

    fn bucket_index(&self, id: &NodeId) -> Option<usize> {
        let bits = self.own.common_prefix_bits(id);
        (bits < ID_BITS).then_some(bits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{contact_at, random_id};
    use proptest::prelude::*;

    fn contact(id: NodeId) -> Contact {
        contact_at(id, "127.0.0.1:7000")
    }

    #[test]
    fn we_are_not_our_own_contact() {
        let own = NodeId([7; 32]);
        let mut table = RoutingTable::new(own);
        assert_eq!(table.on_seen(contact(own), Instant::now()), None);
        assert_eq!(table.live_count(), 0);
    }

    #[test]
    fn a_failed_contact_is_no_longer_among_the_closest_until_it_is_seen_again() {
        let now = Instant::now();
        let mut table = RoutingTable::new(NodeId([0; 32]));
        let (near, far) = (contact(NodeId([1; 32])), contact(NodeId([2; 32])));
        table.on_seen(near.clone(), now);
        table.on_seen(far.clone(), now);
        assert_eq!(table.closest(&near.id, 5), [near.clone(), far.clone()]);
        let version = table.version();
        table.on_failed(&near.id, now);
        assert_eq!(table.closest(&near.id, 5), std::slice::from_ref(&far));
        assert!(table.version() > version);
        table.on_answer(&near.id, Duration::from_millis(1), now);
        assert_eq!(table.closest(&near.id, 5), [near, far]);
    }

    #[test]
    fn a_failed_contact_is_due_for_a_ping_after_its_pause() {
        let now = Instant::now();
        let mut table = RoutingTable::new(NodeId([0; 32]));
        let one = contact(NodeId([1; 32]));
        table.on_seen(one.clone(), now);
        assert!(table.due_pings(now).is_empty());
        assert_eq!(table.due_pings(now + SILENCE_MAX), std::slice::from_ref(&one));
        table.on_failed(&one.id, now);
        assert!(table.due_pings(now).is_empty());
        assert_eq!(table.due_pings(now + Duration::from_secs(1)), [one]);
    }

    #[test]
    fn a_table_that_turned_someone_away_does_not_hold_everyone() {
        let now = Instant::now();
        let mut table = RoutingTable::new(NodeId([0; 32]));
        // Public addresses of one /24: the third one finds no place.
        for number in 0..3 {
            assert!(table.holds_everyone());
            let mut id = [0x80; 32];
            id[31] = number;
            table.on_seen(contact_at(NodeId(id), "203.0.113.1:7000"), now);
        }
        assert!(!table.holds_everyone());
    }

    #[test]
    fn a_table_of_k_contacts_may_have_missed_somebody() {
        let now = Instant::now();
        let mut table = RoutingTable::new(NodeId([0; 32]));
        for bits in 0..K {
            assert!(table.holds_everyone());
            table.on_seen(contact(NodeId([0; 32]).with_common_prefix(bits, [9; 32])), now);
        }
        assert!(!table.holds_everyone());
    }

    #[test]
    fn buckets_fall_due_for_a_refresh_each_hour_up_to_our_nearest_contact() {
        let now = Instant::now();
        let own = NodeId([0; 32]);
        let mut table = RoutingTable::new(own);
        assert!(table.due_refreshes(now, || [9; 32]).is_empty());
        table.on_seen(contact(own.with_common_prefix(3, [9; 32])), now);
        let prefixes = |table: &RoutingTable, now| -> Vec<usize> {
            table.due_refreshes(now, || [9; 32]).iter().map(|id| own.common_prefix_bits(id)).collect()
        };
        assert_eq!(prefixes(&table, now), [0, 1, 2]);
        for bits in 0..3 {
            table.on_looked_up(&own.with_common_prefix(bits, [1; 32]), now);
        }
        assert!(prefixes(&table, now).is_empty());
        assert_eq!(prefixes(&table, now + BUCKET_REFRESH), [0, 1, 2, 3]);
    }

    proptest! {
        #[test]
        fn the_closest_agree_with_a_full_sort(seed: u64, size in 0usize..200, count in 0usize..40) {
            let now = Instant::now();
            let mut random = crate::testing::random_from(seed);
            let mut table = RoutingTable::new(random_id(&mut random));
            for _ in 0..size {
                table.on_seen(contact(random_id(&mut random)), now);
            }
            let target = random_id(&mut random);
            let mut all: Vec<NodeId> = table.entries().map(|entry| entry.contact.id).collect();
            all.sort_by_key(|id| id.distance(&target));
            all.truncate(count);
            let found: Vec<NodeId> = table.closest(&target, count).iter().map(|contact| contact.id).collect();
            prop_assert_eq!(found, all);
        }
    }
}
