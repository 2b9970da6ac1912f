//! Tables of checksums that were read and verified a while ago, so that a small part of a large value is read without the
//! table before it: of what a random read of 4 KiB takes from the disk it would be a fifth, and one of two calls.
//!
//! What is remembered is bound to one record: its place, its key and its length. Nothing is ever written over a record
//! that the index names, and the number of a segment that is gone is given to no other, so that a place means one record for
//! as long as the store is open. What is read is verified by the table as if that had been read too; where it does not
//! agree, the table is read again before anything is called damaged. That the table on the disk has rotted meanwhile shows
//! when somebody reads it: scrubbing and compaction read all of a record, and remember nothing.
//!
//! Pure: no I/O, no waiting.

use super::{Key, format, index::Entry};
use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

/// Bytes of tables, and of what it takes to keep them: those of some 3,500 full blocks, of 1 MiB each.
const BYTES_MAX: usize = 4 << 20;
/// What one takes beside its bytes.
const OVERHEAD_BYTES: usize = 160;

/// A table that was verified where it lies before the value of one record. Holding one proves that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Table(Arc<[u8]>);

impl Table {
    /// Of a table that has just been verified.
    pub(crate) fn of_verified(table: &[u8]) -> Table {
        Table(table.into())
    }

    fn size_bytes(&self) -> usize {
        self.0.len() + OVERHEAD_BYTES
    }

    /// Whether `chunks`, which begin at chunk `first` of the value, are what was written.
    pub(crate) fn verifies(&self, first: usize, chunks: &[u8]) -> bool {
        format::verify_chunks(&self.0, first, chunks)
    }
}

/// Where a record lies.
type At = (u32, u32);

#[derive(Debug)]
struct Known {
    key: Key,
    length: u32,
    table: Table,
}

/// See the [module](self).
#[derive(Debug, Default)]
pub(crate) struct Tables {
    known: HashMap<At, Known>,
    /// Their places, oldest first.
    order: VecDeque<At>,
    bytes: usize,
}

impl Tables {
    /// The table of the record that the index has at `entry` for `key`.
    pub(crate) fn get(&self, key: &Key, entry: &Entry) -> Option<Table> {
        let known = self.known.get(&(entry.segment, entry.offset))?;
        (known.key == *key && known.length == entry.length).then(|| known.table.clone())
    }

    /// Remembers a table, and lets the oldest go.
    pub(crate) fn remember(&mut self, key: &Key, entry: &Entry, table: Table) {
        if self.get(key, entry).is_some() {
            // Two had read it at once.
            return;
        }
        let at = (entry.segment, entry.offset);
        self.forget(at);
        self.bytes += table.size_bytes();
        self.known.insert(at, Known { key: *key, length: entry.length, table });
        self.order.push_back(at);
        while self.bytes > BYTES_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.take(oldest);
        }
    }

    /// Forgets the table of the record at this place.
    pub(crate) fn forget(&mut self, at: At) {
        if self.take(at) {
            self.order.retain(|known| *known != at);
        }
    }

    /// Forgets those in a segment that is gone.
    pub(crate) fn forget_segment(&mut self, segment: u32) {
        let (gone, order) = std::mem::take(&mut self.order).into_iter().partition(|at| at.0 == segment);
        self.order = order;
        let gone: VecDeque<At> = gone;
        for at in gone {
            self.take(at);
        }
    }

    fn take(&mut self, at: At) -> bool {
        let taken = self.known.remove(&at);
        self.bytes -= taken.as_ref().map_or(0, |known| known.table.size_bytes());
        taken.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Kind, format::Shape};

    fn key(n: u8) -> Key {
        Key::new(Kind::BLOCK, [n; 32])
    }

    fn entry(segment: u32, offset: u32) -> Entry {
        Entry { shape: Shape::Value, segment, offset, length: 1 << 20, sequence: 1, count: 1, owner: 0 }
    }

    fn table(n: u8) -> Table {
        Table::of_verified(&[n; 1024])
    }

    #[test]
    fn a_table_is_one_records_at_one_place() {
        let mut tables = Tables::default();
        tables.remember(&key(1), &entry(3, 64), table(1));
        assert_eq!(tables.get(&key(1), &entry(3, 64)), Some(table(1)));
        assert_eq!(tables.get(&key(2), &entry(3, 64)), None, "another value");
        assert_eq!(tables.get(&key(1), &Entry { length: 9000, ..entry(3, 64) }), None, "of another length");
        assert_eq!(tables.get(&key(1), &entry(4, 64)), None, "moved by compaction");
        tables.forget((3, 64));
        assert_eq!((tables.get(&key(1), &entry(3, 64)), tables.bytes, tables.order.len()), (None, 0, 0));
    }

    #[test]
    fn what_a_segment_had_goes_with_it() {
        let mut tables = Tables::default();
        for n in 0..10 {
            tables.remember(&key(n), &entry(u32::from(n) % 2, u32::from(n) * 64), table(n));
        }
        tables.forget_segment(1);
        let left = |n: u8| tables.get(&key(n), &entry(u32::from(n) % 2, u32::from(n) * 64)).is_some();
        assert_eq!((0..10).filter(|n| left(*n)).collect::<Vec<_>>(), [0, 2, 4, 6, 8]);
        assert_eq!((tables.known.len(), tables.order.len()), (5, 5));
        assert_eq!(tables.bytes, 5 * table(0).size_bytes());
    }

    #[test]
    fn the_oldest_go_and_the_bound_holds() {
        let mut tables = Tables::default();
        for n in 0..20_000 {
            tables.remember(&key(1), &entry(0, n * 64), table(1));
            tables.remember(&key(1), &entry(0, n * 64), table(1));
            assert!(tables.bytes <= BYTES_MAX && tables.order.len() == tables.known.len());
        }
        assert!(tables.known.len() > 3000);
        assert_eq!(tables.get(&key(1), &entry(0, 0)), None);
        assert_eq!(tables.get(&key(1), &entry(0, 19_999 * 64)), Some(table(1)));
    }
}
