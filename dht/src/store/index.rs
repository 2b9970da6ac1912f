//! Which record holds each key, and how much of each segment still matters. Pure state: no I/O, no waiting.
//!
//! The index counts, for each key, how many records of it are on disk anywhere. A tombstone may be forgotten only
//! when it is the last of them: otherwise deleting its segment would bring an older value back at the next start.
//!
//! A `BTreeMap` rather than a hash table: repair walks keys in order, and a million entries are built from sorted
//! checkpoints in a fraction of a second, at some 70 bytes each.

use super::{
    Damage, Key,
    checkpoint::Listing,
    format::{self, SEGMENT_HEADER_BYTES, Shape},
    scan::Listed,
};
use std::collections::{BTreeMap, btree_map};

/// Where the newest record of a key lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// What it says.
    pub(crate) shape: Shape,
    /// In which segment.
    pub(crate) segment: u32,
    /// Where its header is.
    pub(crate) offset: u32,
    /// How long its value is.
    pub(crate) length: u32,
    /// How new it is.
    pub(crate) sequence: u64,
    /// How many records of this key are on disk, this one included.
    pub(crate) count: u32,
}

impl Entry {
    fn live_bytes(&self) -> u64 {
        match self.shape {
            Shape::Tombstone if self.count <= 1 => 0,
            Shape::Value => format::record_bytes(self.length) as u64,
            _ => format::RECORD_HEADER_BYTES as u64,
        }
    }
}

/// How much of a segment still matters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Account {
    /// The segment's length.
    pub(crate) length_bytes: u64,
    /// The bytes of those records that hold.
    pub(crate) live_bytes: u64,
    /// Whether it is complete: only then may it be compacted.
    pub(crate) is_sealed: bool,
}

/// The index.
#[derive(Debug, Default)]
pub(crate) struct Index {
    entries: BTreeMap<Key, Entry>,
    sums: Sums,
    holes: Vec<Damage>,
    sequence_max: u64,
}

/// What is kept count of, apart from the entries, so that one of them can be changed in place meanwhile.
#[derive(Debug, Default)]
struct Sums {
    accounts: BTreeMap<u32, Account>,
    totals: Totals,
}

/// Sums over the whole store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    /// Keys with a value.
    pub(crate) value_count: u64,
    /// Bytes of those values.
    pub(crate) value_bytes: u64,
    /// Keys whose value is damaged.
    pub(crate) lost_count: u64,
    /// Bytes of all segments.
    pub(crate) disk_bytes: u64,
}

impl Index {
    /// Builds an index from what each segment holds.
    pub(crate) fn build(listings: Vec<(u32, Listing, bool)>) -> Index {
        let mut index = Index::default();
        let total = listings.iter().map(|(_, listing, _)| listing.entries.len()).sum();
        let mut all: Vec<(Key, Entry)> = Vec::with_capacity(total);
        for (segment, listing, is_sealed) in listings {
            let length_bytes = u64::from(listing.end);
            index.sums.accounts.insert(segment, Account { length_bytes, live_bytes: 0, is_sealed });
            index.sums.totals.disk_bytes += length_bytes;
            index.holes.extend(listing.holes);
            all.extend(listing.entries.iter().map(|listed| (listed.key, entry(segment, listed))));
        }
        // A stable sort profits from each segment's entries being in order already.
        all.sort_by(|(a, x), (b, y)| a.cmp(b).then((x.sequence, x.segment).cmp(&(y.sequence, y.segment))));
        all.dedup_by(|(key, newer), (kept_key, kept)| {
            let same = key == kept_key;
            if same {
                *kept = Entry { count: kept.count.saturating_add(newer.count), ..*newer };
            }
            same
        });
        for (_, entry) in &all {
            index.sequence_max = index.sequence_max.max(entry.sequence);
            index.sums.count(entry, 1);
        }
        index.entries = BTreeMap::from_iter(all);
        index
    }

    /// The newest sequence of all records.
    pub(crate) fn sequence_max(&self) -> u64 {
        self.sequence_max
    }

    /// The newest record of `key`, be it a value or not.
    pub(crate) fn get(&self, key: &Key) -> Option<&Entry> {
        self.entries.get(key)
    }

    /// Entries from `from` on, in key order.
    pub(crate) fn range(&self, from: &Key) -> impl Iterator<Item = (&Key, &Entry)> {
        self.entries.range(from..)
    }

    /// Sums over the whole store.
    pub(crate) fn totals(&self) -> Totals {
        self.sums.totals
    }

    /// What is known to be damaged.
    pub(crate) fn damages(&self) -> Vec<Damage> {
        let lost = self.entries.iter().filter(|(_, entry)| entry.shape == Shape::Lost);
        let keyed = lost.map(|(key, entry)| Damage {
            key: Some(*key),
            segment: entry.segment,
            offset_bytes: u64::from(entry.offset),
            length_bytes: format::record_bytes(entry.length) as u64,
        });
        keyed.chain(self.holes.iter().cloned()).collect()
    }

    /// How much of `segment` matters.
    pub(crate) fn segment(&self, segment: u32) -> Option<&Account> {
        self.sums.accounts.get(&segment)
    }

    /// Notes that a segment was begun; the one before it is complete then.
    pub(crate) fn on_segment(&mut self, segment: u32) {
        self.sums.accounts.values_mut().for_each(|account| account.is_sealed = true);
        let length_bytes = SEGMENT_HEADER_BYTES as u64;
        self.sums.accounts.insert(segment, Account { length_bytes, live_bytes: 0, is_sealed: false });
        self.sums.totals.disk_bytes += length_bytes;
    }

    /// Notes that a record became durable in `segment`.
    ///
    /// A record that is older than what the index holds (a compaction's copy that a newer write overtook) only
    /// counts as dead weight.
    pub(crate) fn on_record(&mut self, segment: u32, listed: &Listed) {
        let end = u64::from(listed.offset) + format::record_bytes(listed.length) as u64;
        let account = self.sums.accounts.entry(segment).or_default();
        self.sums.totals.disk_bytes += end.saturating_sub(account.length_bytes);
        account.length_bytes = account.length_bytes.max(end);
        self.sequence_max = self.sequence_max.max(listed.sequence);
        let new = entry(segment, listed);
        match self.entries.entry(listed.key) {
            btree_map::Entry::Vacant(vacant) => {
                self.sums.count(&new, 1);
                vacant.insert(new);
            }
            btree_map::Entry::Occupied(mut known) => {
                let old = *known.get();
                let count = old.count.saturating_add(1);
                let newest = if old.sequence > new.sequence { old } else { new };
                self.sums.replace(known.get_mut(), Entry { count, ..newest });
            }
        }
    }

    /// Notes that the record of `key` at this place turned out to be damaged; false if it no longer holds.
    pub(crate) fn on_damage(&mut self, key: &Key, segment: u32, offset: u32) -> bool {
        let Some(entry) = self.entries.get_mut(key) else { return false };
        if (entry.segment, entry.offset) != (segment, offset) || entry.shape != Shape::Value {
            return false;
        }
        let lost = Entry { shape: Shape::Lost, ..*entry };
        self.sums.replace(entry, lost);
        true
    }

    /// Which of a segment's records must be copied before the segment may go: those that hold, save tombstones that
    /// hide nothing outside it.
    pub(crate) fn survivors<'a>(
        &'a self,
        segment: u32,
        listing: &'a Listing,
    ) -> impl Iterator<Item = (Key, Entry)> + 'a {
        listing.entries.iter().filter_map(move |listed| {
            let entry = self.entries.get(&listed.key)?;
            let holds = entry.segment == segment;
            let hides_nothing = entry.shape == Shape::Tombstone && entry.count <= listed.count;
            (holds && !hides_nothing).then_some((listed.key, *entry))
        })
    }

    /// Notes that a segment is gone from the disk.
    ///
    /// # Panics
    ///
    /// If a value in it still holds: the caller has just lost it.
    pub(crate) fn on_deleted(&mut self, segment: u32, listing: &Listing) {
        for listed in &listing.entries {
            let Some(entry) = self.entries.get_mut(&listed.key) else { continue };
            let fewer = Entry { count: entry.count.saturating_sub(listed.count), ..*entry };
            self.sums.replace(entry, fewer);
            if fewer.segment == segment {
                assert!(
                    fewer.shape == Shape::Tombstone,
                    "deleted segment {segment:08x} still held {}",
                    listed.key
                );
                self.sums.count(&fewer, -1);
                self.entries.remove(&listed.key);
            }
        }
        self.holes.retain(|hole| hole.segment != segment);
        let gone = self.sums.accounts.remove(&segment).unwrap_or_default();
        self.sums.totals.disk_bytes -= gone.length_bytes;
    }

    /// The sealed segment with the greatest share of dead bytes, if that share is at least `dead_percent_min`.
    pub(crate) fn most_dead(&self, dead_percent_min: u64) -> Option<u32> {
        let sealed = self.sums.accounts.iter().filter(|(_, account)| account.is_sealed);
        let dead = sealed.map(|(segment, account)| {
            let body = account.length_bytes.saturating_sub(SEGMENT_HEADER_BYTES as u64).max(1);
            (100 * body.saturating_sub(account.live_bytes) / body, *segment)
        });
        dead.filter(|(percent, _)| *percent >= dead_percent_min)
            .max_by_key(|(percent, _)| *percent)
            .map(|(_, s)| s)
    }
}

impl Sums {
    /// Counts an entry in (1) or out (-1).
    fn count(&mut self, entry: &Entry, sign: i64) {
        let add = |total: &mut u64, amount: u64| *total = total.wrapping_add_signed(sign * amount as i64);
        if let Some(account) = self.accounts.get_mut(&entry.segment) {
            add(&mut account.live_bytes, entry.live_bytes());
        }
        match entry.shape {
            Shape::Value => {
                add(&mut self.totals.value_count, 1);
                add(&mut self.totals.value_bytes, u64::from(entry.length));
            }
            Shape::Lost => add(&mut self.totals.lost_count, 1),
            Shape::Tombstone | Shape::Mark => {}
        }
    }

    /// Puts `new` in place of `old`.
    fn replace(&mut self, old: &mut Entry, new: Entry) {
        self.count(old, -1);
        self.count(&new, 1);
        *old = new;
    }
}

fn entry(segment: u32, listed: &Listed) -> Entry {
    let Listed { shape, offset, length, sequence, count, .. } = *listed;
    Entry { shape, segment, offset, length, sequence, count }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Kind;

    fn key(n: u8) -> Key {
        Key::new(Kind::BLOCK, [n; 32])
    }

    fn record(n: u8, sequence: u64, shape: Shape) -> Listed {
        let length = if shape == Shape::Value { 100 } else { 0 };
        Listed { key: key(n), shape, sequence, offset: 64 + sequence as u32 * 168, length, count: 1 }
    }

    fn value(n: u8, sequence: u64) -> Listed {
        record(n, sequence, Shape::Value)
    }

    fn listing(records: &[Listed]) -> Listing {
        let scanned =
            crate::store::scan::Scanned { records: records.to_vec(), end: 100_000, ..Default::default() };
        Listing::from(scanned)
    }

    /// An index to which these records were written, segment by segment.
    fn written(segments: &[&[Listed]]) -> Index {
        let mut index = Index::default();
        for (segment, records) in segments.iter().enumerate() {
            index.on_segment(segment as u32);
            records.iter().for_each(|listed| index.on_record(segment as u32, listed));
        }
        index
    }

    #[test]
    fn building_from_listings_equals_having_written_the_records() {
        let segments: [&[Listed]; 3] = [
            &[value(1, 1), value(2, 2), value(1, 3)],
            &[value(3, 4), record(2, 5, Shape::Tombstone)],
            &[value(1, 6), value(3, 4)],
        ];
        let written = written(&segments);
        let listings = segments.iter().enumerate().map(|(n, s)| (n as u32, listing(s), n < 2));
        let built = Index::build(listings.collect());
        assert_eq!(built.entries, written.entries);
        assert_eq!(built.totals().value_count, 2);
        assert_eq!(built.sequence_max(), 6);
        for (segment, account) in &written.sums.accounts {
            assert_eq!(built.segment(*segment).unwrap().live_bytes, account.live_bytes);
        }
    }

    #[test]
    fn the_newest_sequence_holds_whatever_the_order_on_disk() {
        let index = written(&[&[value(1, 5)], &[value(1, 3)]]);
        let entry = index.get(&key(1)).unwrap();
        assert_eq!((entry.segment, entry.sequence, entry.count), (0, 5, 2));
        assert_eq!(index.segment(1).unwrap().live_bytes, 0);
    }

    #[test]
    fn a_tombstone_stays_as_long_as_it_hides_something() {
        let value_segment = [value(1, 1)];
        let tombstone_segment = [record(1, 2, Shape::Tombstone)];
        let mut index = written(&[&value_segment, &tombstone_segment, &[]]);
        let tombstones = listing(&tombstone_segment);
        assert_eq!(index.survivors(1, &tombstones).count(), 1, "an older value is still on disk");
        assert_eq!(index.survivors(0, &listing(&value_segment)).count(), 0);
        index.on_deleted(0, &listing(&value_segment));
        assert_eq!(index.segment(1).unwrap().live_bytes, 0, "now it is dead weight");
        assert_eq!(index.survivors(1, &tombstones).count(), 0);
        index.on_deleted(1, &tombstones);
        assert!(index.get(&key(1)).is_none());
    }

    #[test]
    fn a_tombstone_beside_its_value_goes_with_it() {
        let both = [value(1, 1), record(1, 2, Shape::Tombstone)];
        let mut index = written(&[&both, &[]]);
        assert_eq!(index.survivors(0, &listing(&both)).count(), 0);
        index.on_deleted(0, &listing(&both));
        assert!(index.get(&key(1)).is_none());
    }

    #[test]
    fn damage_is_healed_by_a_newer_record() {
        let mut index = written(&[&[value(1, 1)]]);
        let entry = *index.get(&key(1)).unwrap();
        assert!(!index.on_damage(&key(1), 0, entry.offset + 8), "another place");
        assert!(index.on_damage(&key(1), 0, entry.offset));
        assert_eq!((index.totals().value_count, index.totals().lost_count, index.damages().len()), (0, 1, 1));
        index.on_record(0, &value(1, 2));
        assert_eq!((index.totals().value_count, index.totals().lost_count, index.damages().len()), (1, 0, 0));
    }

    #[test]
    fn the_segment_with_most_dead_bytes_is_compacted_first_and_the_newest_never() {
        let index = written(&[
            &[value(1, 1), value(2, 2)],
            &[value(3, 3), value(4, 4)],
            &[value(2, 5), value(3, 6), value(4, 7)],
        ]);
        assert_eq!(index.most_dead(50), Some(1));
    }

    #[test]
    #[should_panic(expected = "still held")]
    fn deleting_what_holds_is_a_bug() {
        let segment = [value(1, 1)];
        written(&[&segment]).on_deleted(0, &listing(&segment));
    }
}
