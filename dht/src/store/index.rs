//! Which record holds each key, and how much of each segment still matters. Pure state: no I/O, no waiting.
//!
//! The index counts, for each key, how many records of it are on disk anywhere. A tombstone may be forgotten only
//! when it is the last of them: otherwise deleting its segment would bring an older value back at the next start.
//!
//! A `BTreeMap` rather than a hash table: repair walks keys in order, and a million entries are built from sorted
//! checkpoints in a fraction of a second, at some 70 bytes each.

use super::{
    Damage, Key,
    checkpoint::{Listing, hole_of},
    format::{self, SEGMENT_HEADER_BYTES, Shape},
    scan::Listed,
};
use std::collections::{BTreeMap, btree_map};

/// Sequences that are passed over after damage that may have hidden the newest of all: more than are ever used up by
/// writes that came to nothing.
const SEQUENCE_JUMP: u64 = 1 << 32;

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
    /// Whose value it is, as the node numbers its owners.
    pub(crate) owner: u32,
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
    /// How much of that was given back to the disk.
    pub(crate) punched_bytes: u64,
    /// The bytes of those records that hold.
    pub(crate) live_bytes: u64,
    /// Whether it is complete: only then may it be compacted.
    pub(crate) is_sealed: bool,
    /// Whether it stays as it is: it has what this program cannot read, be it of a later version or on a bad disk.
    pub(crate) is_kept: bool,
}

/// The index.
#[derive(Debug, Default)]
pub(crate) struct Index {
    entries: BTreeMap<Key, Entry>,
    sums: Sums,
    holes: Vec<Damage>,
    /// Keys whose newest record is no newer than this may have had a newer one in a hole.
    hidden_max: u64,
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
    /// Builds an index from what each segment holds, and the newest sequence that was seen anywhere.
    pub(crate) fn build(listings: Vec<(u32, Listing, bool)>, sequence_max: u64) -> Index {
        let mut index = Index { sequence_max, ..Index::default() };
        let total = listings.iter().map(|(_, listing, _)| listing.entries.len()).sum();
        let mut all: Vec<(Key, Entry)> = Vec::with_capacity(total);
        for (segment, listing, is_sealed) in listings {
            let length_bytes = u64::from(listing.end);
            let is_kept = listing.is_kept;
            index
                .sums
                .accounts
                .insert(segment, Account { length_bytes, is_sealed, is_kept, ..Account::default() });
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
        let known = index.holes.iter().map(|hole| hole.sequence_max).filter(|newest| *newest != u64::MAX);
        index.sequence_max = known.fold(index.sequence_max, u64::max);
        if index.holes.iter().any(|hole| hole.sequence_max == u64::MAX) {
            index.sequence_max += SEQUENCE_JUMP;
        }
        let newest = index.sequence_max;
        index.holes.iter_mut().for_each(|hole| hole.sequence_max = hole.sequence_max.min(newest));
        index.find_hidden();
        index
    }

    fn find_hidden(&mut self) {
        self.hidden_max = self.holes.iter().map(|hole| hole.sequence_max).max().unwrap_or(0);
    }

    /// Whether a newer record of `key` may have been destroyed than the one that is known.
    pub(crate) fn is_suspect(&self, key: &Key) -> bool {
        self.hidden_max > 0 && self.entries.get(key).is_none_or(|entry| entry.sequence <= self.hidden_max)
    }

    /// The newest sequence that a hole of `segment` may have hidden.
    pub(crate) fn hidden_in(&self, segment: u32) -> Option<u64> {
        let of_segment = self.holes.iter().filter(|hole| hole.segment == segment);
        of_segment.map(|hole| hole.sequence_max).max()
    }

    /// Notes how much of a segment is given back in all.
    pub(crate) fn on_punched(&mut self, segment: u32, bytes: u64) {
        if let Some(account) = self.sums.accounts.get_mut(&segment) {
            self.sums.totals.disk_bytes = self.sums.totals.disk_bytes + account.punched_bytes - bytes;
            account.punched_bytes = bytes;
        }
    }

    /// Leaves a segment as it is from now on.
    pub(crate) fn keep(&mut self, segment: u32) {
        if let Some(account) = self.sums.accounts.get_mut(&segment) {
            account.is_kept = true;
        }
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
            sequence_max: entry.sequence,
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
        self.sums.accounts.insert(segment, Account { length_bytes, ..Account::default() });
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
        if listed.shape == Shape::Hidden {
            self.holes.push(hole_of(segment, listed));
            return self.find_hidden();
        }
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

    /// Which of a segment's records are the newest of their keys, tombstones included: as long as the segment is there,
    /// one may hide an older value in it.
    pub(crate) fn newest_in<'a>(
        &'a self,
        segment: u32,
        listing: &'a Listing,
    ) -> impl Iterator<Item = Entry> + 'a {
        let entries = listing.entries.iter().filter_map(|listed| self.entries.get(&listed.key));
        entries.filter(move |entry| entry.segment == segment).copied()
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
        self.find_hidden();
        let gone = self.sums.accounts.remove(&segment).unwrap_or_default();
        self.sums.totals.disk_bytes -= gone.length_bytes - gone.punched_bytes;
    }

    /// The sealed segment with the greatest share of dead bytes, if that share is at least `dead_percent_min`.
    pub(crate) fn most_dead(&self, dead_percent_min: u64) -> Option<u32> {
        let sealed = self.sums.accounts.iter().filter(|(_, account)| account.is_sealed && !account.is_kept);
        let dead = sealed.map(|(segment, account)| {
            let kept = account.length_bytes - account.punched_bytes;
            let body = kept.saturating_sub(SEGMENT_HEADER_BYTES as u64).max(1);
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
            _ => {}
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
    let Listed { shape, offset, length, sequence, count, owner, .. } = *listed;
    Entry { shape, segment, offset, length, sequence, count, owner }
}

#[cfg(test)]
mod tests;
