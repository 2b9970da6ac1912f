//! Lists of records that lie in the log itself, so that records whose headers are destroyed still have names.
//!
//! The newest segment has no checkpoint. If a header in it is destroyed, nothing else says whose record that was, and
//! an older record of the same key would pass for the newest: an acceptor would take back what it promised. So every
//! so often a group opens with a *contents* record, which lists records that have become durable before it. It leaves
//! out the last few kilobytes, so that one bad sector does not take a record together with its name; those are
//! listed by the next.
//!
//! What no list names remains a hole: a [`Damage`] of unknown key, which may hide a newer record of any key that is
//! not newer than itself.

use super::{
    Damage,
    checkpoint::{self, ENTRY_BYTES},
    format::{self, Shape},
    scan::Listed,
};

/// Lists are written once this much of the log is in none: then they are a fiftieth of a log of blocks, and a fourth of
/// one of the smallest registers.
const SPAN_BYTES: u32 = 16 << 10;
/// This much before a list is left to the next one: the largest sector of a disk, and page of a cache.
const GAP_BYTES: u32 = 4 << 10;
/// Records in one list: a quarter of what a value may be.
const COUNT_MAX: usize = 8 << 10;

/// How many of `unlisted`, the records that no list names, in their order, the next list should name.
pub(crate) fn count_due(unlisted: &[Listed], end: u32) -> usize {
    let Some(first) = unlisted.first() else { return 0 };
    if end - first.offset < SPAN_BYTES {
        return 0;
    }
    let is_far = |listed: &&Listed| end_of(listed) + u64::from(GAP_BYTES) <= u64::from(end);
    unlisted.iter().take(COUNT_MAX).take_while(is_far).count()
}

/// How many of `unlisted` a last list, after which nothing follows for now, should name.
pub(crate) fn count_at_end(unlisted: &[Listed]) -> usize {
    // A list of nothing but an older list would follow from every opening.
    let last = unlisted.iter().rposition(|listed| listed.shape != Shape::Contents);
    last.map_or(0, |last| (last + 1).min(COUNT_MAX))
}

/// The value of a contents record.
pub(crate) fn encode(listed: &[Listed]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(listed.len() * ENTRY_BYTES);
    listed.iter().for_each(|listed| checkpoint::encode_entry(listed, &mut bytes));
    bytes
}

/// Reads a contents record's value; what is no entry is passed over.
pub(crate) fn decode(value: &[u8]) -> impl Iterator<Item = Listed> {
    value.chunks_exact(ENTRY_BYTES).map(checkpoint::decode_entry)
}

/// Where a record ends.
pub(crate) fn end_of(listed: &Listed) -> u64 {
    u64::from(listed.offset) + format::record_bytes(listed.length) as u64
}

/// Gives names to what lies in a hole, as far as `contents`, in order of their offsets, know them. Returns the lost
/// records, and what remains a hole.
pub(crate) fn explain(hole: &Damage, contents: &[Listed]) -> (Vec<Listed>, Vec<Damage>) {
    let end = hole.offset_bytes + hole.length_bytes;
    let mut from = hole.offset_bytes;
    let (mut lost, mut holes) = (Vec::new(), Vec::new());
    let mut leave = |from: u64, to: u64, sequence_max: u64| {
        if from < to {
            holes.push(Damage { offset_bytes: from, length_bytes: to - from, sequence_max, ..hole.clone() });
        }
    };
    let first = contents.partition_point(|listed| u64::from(listed.offset) < from);
    for listed in &contents[first..] {
        let offset = u64::from(listed.offset);
        if offset < from || end_of(listed) > end {
            continue;
        }
        leave(from, offset, hole.sequence_max);
        from = end_of(listed);
        match listed.shape {
            // A destroyed list has hidden no record by itself, only their names.
            Shape::Contents => {}
            // What an earlier hole may have hidden is of no key, and still in doubt.
            Shape::Hidden => leave(offset, from, listed.sequence),
            _ => lost.push(Listed { shape: Shape::Lost, ..*listed }),
        }
    }
    leave(from, end, hole.sequence_max);
    (lost, holes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Key, Kind, writer::NO_KEY};

    fn listed(n: u8, offset: u32) -> Listed {
        let key = Key::new(Kind::REGISTER, [n; 32]);
        Listed { key, shape: Shape::Value, sequence: n.into(), offset, length: 200, count: 1, owner: 7 }
    }

    fn hole(from: u64, to: u64) -> Damage {
        Damage { key: None, segment: 0, offset_bytes: from, length_bytes: to - from, sequence_max: 9 }
    }

    #[test]
    fn a_list_names_what_lies_far_enough_before_it() {
        let records: Vec<Listed> = (0..100).map(|n| listed(n, 64 + u32::from(n) * 264)).collect();
        assert_eq!(count_due(&records, 64 + 60 * 264), 0, "too little for a list");
        let end = 64 + 100 * 264;
        let count = count_due(&records, end);
        assert!(end_of(&records[count - 1]) + 4096 <= u64::from(end));
        assert!(end_of(&records[count]) + 4096 > u64::from(end));
        assert_eq!(count_at_end(&records), 100);
        assert_eq!(count_at_end(&[Listed { shape: Shape::Contents, ..records[0] }]), 0);
    }

    #[test]
    fn what_is_encoded_is_decoded() {
        let records = [listed(1, 64), Listed { shape: Shape::Tombstone, length: 0, ..listed(2, 328) }];
        assert_eq!(decode(&encode(&records)).collect::<Vec<_>>(), records);
    }

    #[test]
    fn a_hole_is_named_as_far_as_the_lists_go() {
        let contents = [listed(1, 64), listed(2, 328), listed(3, 592), listed(4, 1120)];
        let (lost, holes) = explain(&hole(328, 856), &contents);
        assert_eq!(
            lost.iter().map(|lost| (lost.key, lost.shape)).collect::<Vec<_>>(),
            [(contents[1].key, Shape::Lost), (contents[2].key, Shape::Lost)]
        );
        assert_eq!(holes, []);
        let (lost, holes) = explain(&hole(592, 1384), &contents);
        assert_eq!((lost.len(), holes), (2, vec![hole(856, 1120)]), "one record is in no list");
        assert_eq!(explain(&hole(2000, 3000), &contents), (vec![], vec![hole(2000, 3000)]));
    }

    #[test]
    fn a_destroyed_word_of_an_earlier_hole_remains_a_hole_with_its_sequence() {
        let word = Listed { key: NO_KEY, shape: Shape::Hidden, length: 0, sequence: 5, ..listed(0, 328) };
        let (lost, holes) = explain(&hole(64, 392), &[listed(1, 64), word]);
        assert_eq!(lost.iter().map(|lost| lost.offset).collect::<Vec<_>>(), [64]);
        assert_eq!(holes, [Damage { sequence_max: 5, ..hole(328, 392) }]);
    }
}
