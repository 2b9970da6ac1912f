//! What holds, what is dead, and what is in doubt.

use super::*;
use crate::store::Kind;

fn key(n: u8) -> Key {
    Key::new(Kind::BLOCK, [n; 32])
}

fn record(n: u8, sequence: u64, shape: Shape) -> Listed {
    let length = if shape == Shape::Value { 100 } else { 0 };
    Listed { key: key(n), shape, sequence, offset: 64 + sequence as u32 * 168, length, count: 1, owner: 0 }
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
    let built = Index::build(listings.collect(), 0);
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
fn a_hole_makes_all_suspect_that_is_not_newer_and_newer_writes_clear_it() {
    let hole =
        |newest| Damage { key: None, segment: 0, offset_bytes: 64, length_bytes: 64, sequence_max: newest };
    let with = |newest| {
        let listing = Listing { holes: vec![hole(newest)], ..listing(&[value(1, 1), value(2, 5)]) };
        Index::build(vec![(0, listing, true)], 0)
    };
    let mut index = with(3);
    assert!(index.is_suspect(&key(1)) && index.is_suspect(&key(3)) && !index.is_suspect(&key(2)));
    index.on_segment(1);
    index.on_record(1, &value(1, 6));
    assert!(!index.is_suspect(&key(1)));
    // A hole of which nothing is known may have hidden anything; later writes are newer all the same.
    let index = with(u64::MAX);
    assert!(index.is_suspect(&key(2)) && index.sequence_max() == 5 + SEQUENCE_JUMP);
}

#[test]
fn what_is_hidden_outlives_its_segment() {
    let hidden = Listed { shape: Shape::Hidden, sequence: 3, ..value(0, 0) };
    let mut index = written(&[&[value(1, 1)], &[value(1, 2), hidden]]);
    assert_eq!((index.hidden_in(1), index.hidden_in(0)), (Some(3), None));
    assert!(index.is_suspect(&key(1)));
    index.on_deleted(0, &listing(&[value(1, 1)]));
    assert!(index.is_suspect(&key(1)));
}

#[test]
#[should_panic(expected = "still held")]
fn deleting_what_holds_is_a_bug() {
    let segment = [value(1, 1)];
    written(&[&segment]).on_deleted(0, &listing(&segment));
}
