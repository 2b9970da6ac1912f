//! One k-bucket: up to `K` contacts whose distance from us has the same leading bit.
//!
//! Old contacts are worth more than new ones: who has been up for an hour will probably be up for another
//! (Maymounkov & Mazieres 2002, figure 1). So a contact that answers stays, whoever else knocks: newcomers wait in the
//! replacement cache until one of the `K` has failed [`FAILURES_TO_EVICT`] calls in a row. A failed contact for whom
//! nobody waits is kept and pinged ever more rarely: it may come back at the same address.
//!
//! Departures from the paper: nothing is pinged because somebody knocked (that would let a stranger make us send); and
//! at most [`SUBNET_CONTACTS_MAX`] contacts of one /24 (or IPv6 /64) share a bucket, so that renting a small network
//! does not buy a bucket. Loopback and private addresses are exempt: there all nodes share a prefix rightly.
//!
//! Pure: it is told the time and touches no socket.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::contact::Contact;
use crate::node_id::NodeId;
use crate::record::NodeRecord;

/// Contacts per bucket. 16, not the paper's 20: in simulation of 10,000 nodes it found the same nodes with smaller
/// answers.
pub const K: usize = 16;
/// Contacts that wait for a place.
pub const REPLACEMENTS_MAX: usize = 8;
/// Contacts of one public /24 (IPv6: /64) in one bucket.
pub const SUBNET_CONTACTS_MAX: usize = 2;
/// Calls that must fail in a row before a waiting contact takes the place. Two: one can be a lost packet.
pub const FAILURES_TO_EVICT: u32 = 2;
/// Failures after which a contact is forgotten though nobody waits for its place. With the pauses between pings below,
/// that is most of a day.
pub const FAILURES_TO_FORGET: u32 = 300;
/// The first pause before a failed contact is pinged again; doubled each time.
const PING_PAUSE_MIN: Duration = Duration::from_millis(500);
/// The longest such pause while the failure is fresh: a node that is back is noticed within this.
const PING_PAUSE_FRESH: Duration = Duration::from_secs(4);
/// The longest such pause ever.
const PING_PAUSE_MAX: Duration = Duration::from_secs(300);
/// Failures up to which a failure counts as fresh: some two minutes.
const FAILURES_FRESH: u32 = 32;

/// A contact with what we know of its health.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Who and where.
    pub contact: Contact,
    /// When it last answered or knocked.
    pub last_seen: Instant,
    /// Failed calls since then.
    pub failures: u32,
    /// When a failed contact is worth a ping again.
    pub next_ping: Instant,
    /// Smoothed round-trip time of calls, once known.
    pub round_trip: Option<Duration>,
}

/// What became of a contact that was seen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Insert {
    /// It took a place.
    Added,
    /// It had one; it is alive at the same addresses as before.
    Refreshed,
    /// It had one, but was thought dead or moved to other addresses.
    Changed,
    /// The bucket is full of live contacts: it waits.
    Waiting,
    /// Its /24 has its share of the bucket.
    CrowdedSubnet,
}

/// Up to `K` contacts, and up to `REPLACEMENTS_MAX` that wait.
#[derive(Clone, Debug, Default)]
pub struct KBucket {
    /// Longest-known first.
    entries: Vec<Entry>,
    /// Latest seen last.
    replacements: Vec<Entry>,
    /// Whether a contact was ever turned away: then the table does not hold the whole network.
    turned_away: bool,
}

impl Entry {
    fn new(contact: Contact, now: Instant) -> Entry {
        Entry { contact, last_seen: now, failures: 0, next_ping: now, round_trip: None }
    }

    /// Whether the last call to it worked.
    pub fn is_live(&self) -> bool {
        self.failures == 0
    }
}

impl KBucket {
    /// Notes that `contact` was seen at `now`, its id and addresses proven by a handshake.
    pub fn on_seen(&mut self, contact: Contact, now: Instant) -> Insert {
        let contact = match self.find(&contact.id).and_then(|entry| entry.contact.record().cloned()) {
            Some(known) => contact.with_record(known),
            None => contact,
        };
        if let Some(entry) = self.entries.iter_mut().find(|entry| entry.contact.id == contact.id) {
            let changed = !entry.is_live() || entry.contact.addresses != contact.addresses;
            entry.last_seen = now;
            entry.failures = 0;
            entry.contact = contact;
            return if changed { Insert::Changed } else { Insert::Refreshed };
        }
        let waited = self.replacements.iter().position(|entry| entry.contact.id == contact.id);
        let waited = waited.map(|index| self.replacements.remove(index));
        if self.is_crowded(&contact) {
            self.turned_away = true;
            return Insert::CrowdedSubnet;
        }
        let mut entry = Entry::new(contact, now);
        entry.round_trip = waited.and_then(|waited| waited.round_trip);
        if self.entries.len() >= K {
            let Some(dead) = self.entries.iter().position(|entry| entry.failures >= FAILURES_TO_EVICT) else {
                self.wait(entry);
                return Insert::Waiting;
            };
            self.entries.remove(dead);
        }
        self.entries.push(entry);
        Insert::Added
    }

    /// Notes a call answered after `round_trip`. Returns whether the contact was thought dead.
    pub fn on_answer(&mut self, id: &NodeId, round_trip: Duration, now: Instant) -> bool {
        if let Some(entry) = self.find(id) {
            // RFC 6298 section 2.3: an eighth of each new sample.
            entry.round_trip = Some(entry.round_trip.map_or(round_trip, |old| (old * 7 + round_trip) / 8));
        }
        self.on_heard(id, now)
    }

    /// Notes a sign of life. Returns whether the contact was thought dead.
    pub fn on_heard(&mut self, id: &NodeId, now: Instant) -> bool {
        let Some(entry) = self.find(id) else { return false };
        let revived = !entry.is_live();
        entry.last_seen = now;
        entry.failures = 0;
        revived
    }

    /// Notes what a node says of itself, whoever brought it; only of those that are here already. Returns whether one with a place
    /// is somewhere else by that: whatever else it says, it may say as often as it likes, and nobody is woken for it.
    pub fn on_record(&mut self, record: &Arc<NodeRecord>, now: Instant) -> bool {
        let id = NodeId::of(record.holder());
        let has_place = self.get(&id).is_some();
        let Some(entry) = self.find(&id) else { return false };
        let renewed = entry.contact.moved_to(record.clone());
        if !renewed.is_newer_than(&entry.contact) {
            return false;
        }
        let is_elsewhere = entry.contact.addresses != renewed.addresses;
        entry.contact = renewed;
        if !entry.is_live() {
            // It may be there where it says.
            entry.next_ping = now;
        }
        has_place && is_elsewhere
    }

    /// Notes a failed call or ping. Returns whether the set of live contacts changed.
    pub fn on_failed(&mut self, id: &NodeId, now: Instant) -> bool {
        self.replacements.retain(|entry| entry.contact.id != *id);
        let Some(index) = self.entries.iter().position(|entry| entry.contact.id == *id) else { return false };
        let entry = &mut self.entries[index];
        let was_live = entry.is_live();
        entry.failures = entry.failures.saturating_add(1);
        let doubled = PING_PAUSE_MIN * 2u32.saturating_pow(entry.failures - 1).min(1 << 16);
        let fresh = entry.failures <= FAILURES_FRESH;
        entry.next_ping = now + doubled.min(if fresh { PING_PAUSE_FRESH } else { PING_PAUSE_MAX });
        if entry.failures >= FAILURES_TO_EVICT
            && let Some(replacement) = self.replacements.pop()
        {
            self.entries.remove(index);
            self.entries.push(replacement);
            return true;
        }
        if self.entries[index].failures >= FAILURES_TO_FORGET {
            self.entries.remove(index);
        }
        was_live
    }

    /// Forgets a contact that said it leaves. Returns whether it was a live one.
    pub fn remove(&mut self, id: &NodeId) -> bool {
        self.replacements.retain(|entry| entry.contact.id != *id);
        let Some(index) = self.entries.iter().position(|entry| entry.contact.id == *id) else { return false };
        let removed = self.entries.remove(index);
        self.entries.extend(self.replacements.pop());
        removed.is_live()
    }

    /// Everyone who has a place, dead or alive.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The entry of `id`, if it has a place.
    pub fn get(&self, id: &NodeId) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.contact.id == *id)
    }

    /// Whether nobody was ever turned away: the bucket then holds everyone we met in its range.
    pub fn holds_everyone(&self) -> bool {
        !self.turned_away && self.replacements.is_empty() && self.entries.len() < K
    }

    /// Whether it holds nobody, nor anyone waits.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.replacements.is_empty()
    }

    fn find(&mut self, id: &NodeId) -> Option<&mut Entry> {
        self.entries.iter_mut().chain(&mut self.replacements).find(|entry| entry.contact.id == *id)
    }

    fn wait(&mut self, entry: Entry) {
        self.turned_away = true;
        if self.replacements.len() >= REPLACEMENTS_MAX {
            self.replacements.remove(0);
        }
        self.replacements.push(entry);
    }

    fn is_crowded(&self, contact: &Contact) -> bool {
        let subnets: Vec<IpAddr> = contact.addresses.iter().filter_map(subnet).collect();
        let shares = |entry: &&Entry| {
            entry.contact.addresses.iter().filter_map(subnet).any(|theirs| subnets.contains(&theirs))
        };
        !subnets.is_empty() && self.entries.iter().filter(shares).count() >= SUBNET_CONTACTS_MAX
    }
}

/// The /24 (IPv6: /64) of a public address; none for loopback, private and link-local ones.
fn subnet(address: &SocketAddr) -> Option<IpAddr> {
    match address.ip().to_canonical() {
        IpAddr::V4(ip) if ip.is_loopback() || ip.is_private() || ip.is_link_local() => None,
        IpAddr::V4(ip) => {
            let [a, b, c, _] = ip.octets();
            Some(IpAddr::from([a, b, c, 0]))
        }
        IpAddr::V6(ip) if ip.is_loopback() || ip.is_unique_local() || ip.is_unicast_link_local() => None,
        IpAddr::V6(ip) => {
            let [a, b, c, d, ..] = ip.segments();
            Some(IpAddr::from([a, b, c, d, 0, 0, 0, 0]))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{contact_at, contact_with_record};

    fn contact(number: u8) -> Contact {
        contact_at(NodeId([number; 32]), &format!("127.0.0.1:{}", 7000 + u16::from(number)))
    }

    fn full_bucket(now: Instant) -> KBucket {
        let mut bucket = KBucket::default();
        for number in 0..K as u8 {
            assert_eq!(bucket.on_seen(contact(number), now), Insert::Added);
        }
        bucket
    }

    fn has(bucket: &KBucket, number: u8) -> bool {
        bucket.get(&contact(number).id).is_some()
    }

    #[test]
    fn a_newcomer_waits_while_everyone_answers() {
        let now = Instant::now();
        let mut bucket = full_bucket(now);
        assert_eq!(bucket.on_seen(contact(100), now), Insert::Waiting);
        assert!(!has(&bucket, 100) && !bucket.holds_everyone());
    }

    #[test]
    fn the_latest_waiting_contact_takes_the_place_after_two_failed_calls() {
        let now = Instant::now();
        let mut bucket = full_bucket(now);
        for number in 100..120 {
            bucket.on_seen(contact(number), now);
        }
        assert!(bucket.on_failed(&contact(3).id, now));
        assert!(has(&bucket, 3), "one failure may be a lost packet");
        assert!(bucket.on_failed(&contact(3).id, now));
        assert!(!has(&bucket, 3) && has(&bucket, 119));
        assert_eq!(bucket.replacements.len(), REPLACEMENTS_MAX - 1);
    }

    #[test]
    fn a_dead_contact_for_whom_nobody_waits_stays_but_is_not_live() {
        let now = Instant::now();
        let mut bucket = KBucket::default();
        bucket.on_seen(contact(1), now);
        assert!(bucket.on_failed(&contact(1).id, now));
        assert!(!bucket.on_failed(&contact(1).id, now), "it was dead already");
        assert!(!bucket.get(&contact(1).id).unwrap().is_live());
        assert_eq!(bucket.on_seen(contact(1), now), Insert::Changed);
        assert!(bucket.get(&contact(1).id).unwrap().is_live());
    }

    #[test]
    fn a_newcomer_takes_a_dead_contacts_place_at_once() {
        let now = Instant::now();
        let mut bucket = full_bucket(now);
        bucket.on_failed(&contact(3).id, now);
        bucket.on_failed(&contact(3).id, now);
        assert_eq!(bucket.on_seen(contact(100), now), Insert::Added);
        assert!(!has(&bucket, 3));
    }

    #[test]
    fn pings_of_a_dead_contact_grow_rarer_but_stay_frequent_for_two_minutes() {
        let start = Instant::now();
        let mut now = start;
        let mut bucket = KBucket::default();
        bucket.on_seen(contact(1), now);
        let mut pauses = Vec::new();
        while has(&bucket, 1) {
            bucket.on_failed(&contact(1).id, now);
            if let Some(entry) = bucket.get(&contact(1).id) {
                pauses.push(entry.next_ping - now);
                now = entry.next_ping;
            }
        }
        assert_eq!(pauses[0], PING_PAUSE_MIN);
        assert!(pauses.is_sorted());
        assert!(pauses.iter().take(FAILURES_FRESH as usize).all(|&pause| pause <= PING_PAUSE_FRESH));
        assert_eq!(pauses.len(), FAILURES_TO_FORGET as usize - 1);
        assert!(now - start > Duration::from_secs(20 * 3600));
    }

    #[test]
    fn a_contact_that_moved_is_kept_at_its_newest_address() {
        let now = Instant::now();
        let mut bucket = KBucket::default();
        bucket.on_seen(contact(1), now);
        let moved = contact_at(contact(1).id, "127.0.0.1:9999");
        assert_eq!(bucket.on_seen(moved.clone(), now), Insert::Changed);
        assert_eq!(bucket.get(&moved.id).unwrap().contact, moved);
    }

    #[test]
    fn a_dead_contact_that_says_it_moved_is_pinged_there_at_once_and_an_older_word_changes_nothing() {
        let now = Instant::now();
        let mut bucket = KBucket::default();
        let said = |version, address| contact_with_record(1, version, address);
        let (first, moved) = (said(5, "127.0.0.1:7001"), said(6, "127.0.0.1:7002"));
        let record = |contact: &Contact| contact.record().unwrap().clone();
        assert!(!bucket.on_record(&record(&first), now), "nobody was met there yet");
        bucket.on_seen(first.clone(), now);
        for _ in 0..4 {
            bucket.on_failed(&first.id, now);
        }
        assert!(bucket.get(&first.id).unwrap().next_ping > now);
        assert!(bucket.on_record(&record(&moved), now));
        let entry = bucket.get(&first.id).unwrap();
        assert_eq!((&entry.contact, entry.is_live(), entry.next_ping), (&moved, false, now));
        assert!(!bucket.on_record(&record(&first), now) && !bucket.on_record(&record(&moved), now));
        // What it says at the same place is known, and nobody is told.
        let again = said(7, "127.0.0.1:7002");
        assert!(!bucket.on_record(&record(&again), now));
        assert_eq!(bucket.get(&first.id).unwrap().contact.record(), again.record());
        // Nor does one who shows an older one lose the newer.
        assert_eq!(bucket.on_seen(first.clone(), now), Insert::Changed);
        assert_eq!(bucket.get(&first.id).unwrap().contact.record(), again.record());
        assert_eq!(bucket.on_seen(moved, now), Insert::Changed, "it was at another address as well");
    }

    #[test]
    fn a_public_subnet_gets_two_places_and_a_private_one_any_number() {
        let now = Instant::now();
        for (prefix, places) in [("203.0.113", 2), ("192.168.1", 8), ("127.0.0", 8)] {
            let mut bucket = KBucket::default();
            for number in 0..8 {
                bucket.on_seen(contact_at(NodeId([number; 32]), &format!("{prefix}.{number}:7000")), now);
            }
            assert_eq!(bucket.entries().len(), places, "{prefix}.0/24");
            assert_eq!(bucket.holds_everyone(), places == 8);
        }
    }

    #[test]
    fn round_trips_are_smoothed() {
        let now = Instant::now();
        let mut bucket = KBucket::default();
        bucket.on_seen(contact(1), now);
        bucket.on_answer(&contact(1).id, Duration::from_millis(80), now);
        bucket.on_answer(&contact(1).id, Duration::from_millis(160), now);
        let expected = Some(Duration::from_millis(90));
        assert_eq!(bucket.get(&contact(1).id).unwrap().round_trip, expected);
    }
}
