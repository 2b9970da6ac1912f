//! What the cache holds, as far as this process knows: extents by block, and the order in which they go. Plain data.

use std::collections::HashMap;
use std::ops::Range;

use super::entry::Extent;
use super::s3_fifo::{Queue, S3Fifo, Step};

/// Entries, whatever the bound: each takes some 200 bytes of memory.
const COUNT_MAX: usize = 1 << 18;

/// An entry, and where its file is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Entry {
    pub(super) number: u64,
    pub(super) extent: Extent,
    pub(super) queue: Queue,
}

/// The cache's entries.
#[derive(Debug)]
pub(super) struct Contents {
    policy: S3Fifo,
    extents: HashMap<u64, Extent>,
    /// The numbers of each block's extents.
    of_block: HashMap<[u8; 32], Vec<u64>>,
    last_number: u64,
}

impl Contents {
    /// Nothing, and room for `bytes_max` on the disk.
    pub(super) fn new(bytes_max: u64) -> Contents {
        Contents {
            policy: S3Fifo::new(bytes_max, COUNT_MAX),
            extents: HashMap::new(),
            of_block: HashMap::new(),
            last_number: 0,
        }
    }

    /// What was found on the disk, in any order.
    pub(super) fn found(bytes_max: u64, mut entries: Vec<Entry>) -> Contents {
        let mut contents = Contents::new(bytes_max);
        entries.sort_unstable_by_key(|entry| entry.number);
        for entry in entries {
            contents.insert(entry);
        }
        contents
    }

    /// Returns what the entries take on the disk.
    pub(super) fn bytes(&self) -> u64 {
        self.policy.bytes()
    }

    /// Returns what pinned entries take on the disk.
    pub(super) fn pinned_bytes(&self) -> u64 {
        self.policy.pinned_bytes()
    }

    /// Returns the numbers of the pinned entries.
    pub(super) fn pinned(&self) -> Vec<u64> {
        let is_pinned = |number: &u64| self.policy.queue(*number) == Some(Queue::Pinned);
        self.extents.keys().copied().filter(is_pinned).collect()
    }

    /// Says that an entry's file was moved.
    pub(super) fn set_queue(&mut self, number: u64, queue: Queue) {
        self.policy.set_queue(number, queue);
    }

    /// Whether there is room for one more entry of `size` bytes.
    pub(super) fn fits(&self, size: u64) -> bool {
        self.policy.fits(size)
    }

    /// Returns the entries that together have all of `range`, in order, each with its part; does not count as a use. What was
    /// read piece by piece is asked for in other pieces, and whole.
    pub(super) fn cover(&self, address: &[u8; 32], range: &Range<u32>) -> Option<Vec<(Entry, Range<u32>)>> {
        self.cover_by(address, range, |_| true)
    }

    /// As [`Contents::cover`], by pinned entries alone.
    pub(super) fn cover_pinned(
        &self,
        address: &[u8; 32],
        range: &Range<u32>,
    ) -> Option<Vec<(Entry, Range<u32>)>> {
        self.cover_by(address, range, |number| self.policy.queue(number) == Some(Queue::Pinned))
    }

    fn cover_by(
        &self,
        address: &[u8; 32],
        range: &Range<u32>,
        is_good: impl Fn(u64) -> bool,
    ) -> Option<Vec<(Entry, Range<u32>)>> {
        let numbers = self.of_block.get(address)?;
        let mut parts = Vec::new();
        let mut at = range.start;
        while at < range.end {
            let has_next = |number: &&u64| is_good(**number) && self.extents[number].covers(&(at..at + 1));
            let with_next = numbers.iter().filter(has_next);
            let entry = self.entry(*with_next.max_by_key(|number| self.extents[number].end)?)?;
            let end = entry.extent.end.min(range.end);
            parts.push((entry, at..end));
            at = end;
        }
        (!parts.is_empty()).then_some(parts)
    }

    /// Returns the entry of that number, where it is now.
    pub(super) fn entry(&self, number: u64) -> Option<Entry> {
        let (extent, queue) = (*self.extents.get(&number)?, self.policy.queue(number)?);
        Some(Entry { number, extent, queue })
    }

    /// Counts a use.
    pub(super) fn touch(&mut self, number: u64) {
        self.policy.touch(number);
    }

    /// Returns a number that no file has yet, and the queue where this extent belongs.
    pub(super) fn admit(&mut self, extent: Extent) -> Entry {
        self.last_number += 1;
        Entry { number: self.last_number, extent, queue: self.policy.place_of(extent.hash()) }
    }

    /// Takes an entry in, whose file is there.
    pub(super) fn insert(&mut self, entry: Entry) {
        let Entry { number, extent, queue } = entry;
        self.remove(number);
        self.last_number = self.last_number.max(number);
        self.policy.insert(number, extent.hash(), extent.disk_bytes(), queue);
        self.extents.insert(number, extent);
        self.of_block.entry(extent.address).or_default().push(number);
    }

    /// Forgets an entry.
    pub(super) fn remove(&mut self, number: u64) {
        let Some(extent) = self.extents.remove(&number) else { return };
        self.policy.remove(number);
        if let Some(numbers) = self.of_block.get_mut(&extent.address) {
            numbers.retain(|other| *other != number);
            if numbers.is_empty() {
                self.of_block.remove(&extent.address);
            }
        }
    }

    /// Makes the next step towards room for one entry of `size` bytes: the entry as it was, and what becomes of it. `None`
    /// once there is room, or nothing is left to go.
    pub(super) fn make_room(&mut self, size: u64) -> Option<(Entry, Step)> {
        let step = self.policy.make_room(size)?;
        let (number, queue) = match step {
            Step::Promote(number) => (number, Queue::Small),
            Step::Evict(number, queue) => (number, queue),
        };
        let entry = Entry { number, extent: self.extents[&number], queue };
        if matches!(step, Step::Evict(..)) {
            self.remove(number);
        }
        Some((entry, step))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_put_together_from_what_is_here_and_never_with_a_gap() {
        let mut contents = Contents::new(1 << 20);
        let address = [1; 32];
        for (number, start, end) in [(1, 0, 100), (2, 100, 150), (3, 140, 300), (4, 310, 400)] {
            let extent = Extent { address, start, end };
            contents.insert(Entry { number, extent, queue: Queue::Small });
        }
        let cover = |range: Range<u32>| {
            let parts = contents.cover(&address, &range)?;
            Some(parts.into_iter().map(|(entry, part)| (entry.number, part)).collect::<Vec<_>>())
        };
        assert_eq!(cover(50..290), Some(vec![(1, 50..100), (2, 100..150), (3, 150..290)]));
        assert_eq!(cover(145..146), Some(vec![(3, 145..146)]));
        assert_eq!(cover(310..400), Some(vec![(4, 310..400)]));
        assert_eq!((cover(290..320), cover(399..401), cover(5..5)), (None, None, None));
        assert_eq!(contents.cover(&[2; 32], &(0..1)), None);
    }
}
