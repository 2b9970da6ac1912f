//! Segments as crashes and bad disks leave them.

use super::*;
use crate::store::{Kind, format::SegmentHeader};

const SALT: u64 = 77;

/// Writes a segment as the writer would, one group a record.
struct Segment {
    bytes: Vec<u8>,
    offsets: Vec<usize>,
}

impl Segment {
    fn new() -> Segment {
        let header = SegmentHeader { segment: 1, salt: SALT, previous: None };
        Segment { bytes: format::encode_segment_header(&header).into(), offsets: Vec::new() }
    }

    fn push(mut self, shape: Shape, watermark: usize, value: &[u8]) -> Segment {
        let offset = self.bytes.len();
        let (check, table) = format::checksums(value.len() as u32, [value]);
        let header = RecordHeader {
            shape,
            key: key(self.offsets.len()),
            flags: 0,
            owner: 0,
            sequence: self.offsets.len() as u64,
            length: value.len() as u32,
            watermark: watermark as u32,
            check,
        };
        let place = Place { salt: SALT, segment: 1, offset: offset as u32 };
        self.bytes.extend(format::encode_record_header(place, &header));
        self.bytes.extend(table);
        self.bytes.extend(value);
        self.bytes.resize(self.bytes.len().next_multiple_of(ALIGNMENT_BYTES), 0);
        self.offsets.push(offset);
        self
    }

    /// Values that were each synced before the next was written.
    fn synced(count: usize) -> Segment {
        (0..count).fold(Segment::new(), |segment, n| {
            let watermark = segment.bytes.len();
            segment.push(Shape::Value, watermark, &vec![n as u8; 100 + n * 7000])
        })
    }

    /// Values of one group: nothing proves that any is durable.
    fn one_group(count: usize) -> Segment {
        (0..count)
            .fold(Segment::new(), |segment, n| segment.push(Shape::Value, 64, &vec![n as u8; 100 + n * 7000]))
    }

    fn scan(&self) -> Scanned {
        scan(&self.bytes[..], SALT, 1, Durable::Unknown).unwrap()
    }

    fn keys(&self) -> Vec<Key> {
        self.scan().records.iter().map(|record| record.key).collect()
    }
}

fn key(n: usize) -> Key {
    Key::new(Kind::BLOCK, [n as u8; 32])
}

#[test]
fn an_intact_segment_is_listed_in_order() {
    let segment = Segment::synced(5).push(Shape::Tombstone, 0, &[]);
    let scanned = segment.scan();
    assert_eq!(scanned.end as usize, segment.bytes.len());
    assert_eq!((scanned.records.len(), scanned.damages.len(), scanned.torn_bytes), (6, 0, 0));
    for (n, record) in scanned.records.iter().enumerate() {
        assert_eq!((record.key, record.offset as usize), (key(n), segment.offsets[n]));
    }
    assert_eq!(scanned.records[5].shape, Shape::Tombstone);
}

#[test]
fn cutting_anywhere_keeps_every_whole_record_before_the_cut() {
    let segment = Segment::synced(3);
    for cut in 64..segment.bytes.len() {
        let whole =
            segment.offsets.iter().skip(1).chain([&segment.bytes.len()]).filter(|end| **end <= cut).count();
        // The last record's padding may be missing: then it is not whole.
        let scanned = scan(&segment.bytes[..cut], SALT, 1, Durable::Unknown).unwrap();
        assert_eq!(scanned.records.len(), whole, "cut at {cut}");
        assert_eq!(u64::from(scanned.end) + scanned.torn_bytes, cut as u64);
        assert!(scanned.damages.is_empty());
    }
}

#[test]
fn a_bad_value_before_the_watermark_is_reported_and_what_follows_is_kept() {
    let mut segment = Segment::synced(5);
    segment.bytes[segment.offsets[2] + 64 + 5000] ^= 4;
    let scanned = segment.scan();
    assert_eq!(scanned.records.len(), 5);
    assert_eq!(scanned.records[2].shape, Shape::Lost);
    assert_eq!(scanned.damages.len(), 1);
    assert_eq!(scanned.damages[0].key, Some(key(2)));
    assert_eq!(scanned.end as usize, segment.bytes.len());
}

#[test]
fn a_flipped_bit_in_a_header_still_names_the_key() {
    let mut segment = Segment::synced(4);
    segment.bytes[segment.offsets[1] + 16] ^= 128;
    let scanned = segment.scan();
    assert_eq!(scanned.damages.iter().map(|damage| damage.key).collect::<Vec<_>>(), [Some(key(1))]);
    assert_eq!(scanned.records.len(), 4);
}

#[test]
fn a_wiped_header_loses_its_record_only() {
    let mut segment = Segment::synced(4);
    let at = segment.offsets[1];
    segment.bytes[at..at + 64].fill(0x55);
    let scanned = segment.scan();
    assert_eq!(segment.keys(), [key(0), key(2), key(3)]);
    assert_eq!(scanned.damages.len(), 1);
    assert_eq!(scanned.damages[0].key, None);
    assert_eq!(scanned.damages[0].length_bytes as usize, segment.offsets[2] - at);
}

#[test]
fn a_hole_in_an_unacknowledged_group_ends_the_log_there() {
    let mut segment = Segment::one_group(5);
    segment.bytes[segment.offsets[2] + 64] ^= 1;
    let scanned = segment.scan();
    assert_eq!(segment.keys(), [key(0), key(1)], "nothing after a hole: writes are durable in order");
    assert_eq!(scanned.end as usize, segment.offsets[2]);
    assert!(scanned.damages.is_empty());
}

#[test]
fn a_mark_proves_the_group_before_it_and_is_written_over() {
    let segment = Segment::one_group(5);
    let end = segment.bytes.len();
    let mut segment = segment.push(Shape::Mark, end, &[]);
    segment.bytes[segment.offsets[2] + 64] ^= 1;
    let scanned = segment.scan();
    assert_eq!((scanned.records.len(), scanned.damages.len()), (5, 1));
    assert_eq!(scanned.end as usize, end);
    assert_eq!(scanned.torn_bytes, 64);
}

#[test]
fn a_sealed_segment_has_no_torn_tail() {
    let segment = Segment::one_group(3);
    let cut = segment.bytes.len() - 8;
    let scanned = scan(&segment.bytes[..cut], SALT, 1, Durable::Whole).unwrap();
    assert_eq!(scanned.records.len(), 3);
    assert_eq!(scanned.damages[0].key, Some(key(2)));
}

#[test]
fn a_file_that_lost_durable_bytes_says_so() {
    let segment = Segment::one_group(3);
    let end = segment.bytes.len();
    let segment = segment.push(Shape::Value, end + 64, b"refers to more than there is");
    let scanned = segment.scan();
    assert!(scanned.damages.is_empty(), "{:?}", scanned.damages);
    let cut = Segment::one_group(3).push(Shape::Value, end + 1000, b"x").scan();
    assert_eq!(cut.damages.len(), 1);
}

#[test]
fn a_record_quoted_inside_a_value_is_not_taken_for_one() {
    let inner = Segment::synced(2);
    let mut segment =
        Segment::new().push(Shape::Value, 0, &inner.bytes).push(Shape::Value, 1 << 14, b"after");
    segment.bytes[64..128].fill(0);
    assert_eq!(segment.keys(), [key(1)], "only the record after it");
}

#[test]
fn a_damaged_list_hides_nothing_and_what_it_named_is_listed_again() {
    let mut segment = Segment::synced(3);
    let records = segment.scan().records;
    let offset = segment.bytes.len();
    segment = segment.push(Shape::Contents, offset, &crate::store::contents::encode(&records));
    let end = segment.bytes.len();
    segment = segment.push(Shape::Value, end, b"after");
    assert_eq!(segment.scan().unlisted.len(), 2, "the list itself, and what follows");
    segment.bytes[offset + 70] ^= 1;
    let scanned = segment.scan();
    assert_eq!((scanned.damages.len(), scanned.records.len(), scanned.unlisted.len()), (0, 4, 4));
    assert_eq!(scanned.end as usize, segment.bytes.len());
}

#[test]
fn garbage_and_emptiness_are_no_error() {
    assert_eq!(scan(&[][..], SALT, 1, Durable::Unknown).unwrap().end, 64);
    let garbage: Vec<u8> = (0..100_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let scanned = scan(&garbage[..], SALT, 1, Durable::Unknown).unwrap();
    assert!(scanned.records.is_empty() && scanned.end == 64);
}

/// A power cut may leave any part of what was not synced yet on the disk, in any order.
#[test]
fn a_power_cut_leaves_a_prefix_with_all_that_was_synced() {
    let mut random = 88_172_645_463_325_252_u64;
    let mut below = |limit: usize| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        (random % limit as u64) as usize
    };
    for round in 0..300 {
        let mut segment = Segment::new();
        let mut synced = (64, 0);
        for _ in 0..1 + below(4) {
            synced = (segment.bytes.len(), segment.offsets.len());
            for _ in 0..1 + below(5) {
                segment = segment.push(Shape::Value, synced.0, &vec![round as u8; below(9000)]);
            }
        }
        // Of the last group some sectors arrived, and perhaps not even its length.
        let length = synced.0 + below(segment.bytes.len() - synced.0 + 1);
        segment.bytes.truncate(length);
        let first_sector = synced.0.next_multiple_of(512);
        for sector in (first_sector..length).step_by(512) {
            if below(4) == 0 {
                segment.bytes[sector..(sector + 512).min(length)].fill(0);
            }
        }
        let scanned = segment.scan();
        let keys: Vec<Key> = scanned.records.iter().map(|record| record.key).collect();
        assert!(keys.len() >= synced.1, "round {round}: synced records are gone");
        assert_eq!(keys, (0..keys.len()).map(key).collect::<Vec<_>>(), "round {round}: a hole");
        assert!(scanned.damages.is_empty(), "round {round}: {:?}", scanned.damages);
    }
}
