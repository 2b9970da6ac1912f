//! The stored bytes, one by one.

use super::*;
use crate::store::Kind;

const PLACE: Place = Place { salt: 0x1122_3344_5566_7788, segment: 9, offset: 4096 };

fn header(length: u32) -> RecordHeader {
    RecordHeader {
        shape: Shape::Value,
        key: Key::new(Kind::REGISTER, [0xA5; 32]),
        flags: FLAG_COPY,
        owner: 0x0C_0B0A,
        sequence: 0x0102_0304_0506_0708,
        length,
        watermark: 0x0A0B_0C0D,
        check: 0xDEAD_BEEF,
    }
}

#[test]
fn a_record_header_lies_byte_by_byte_as_documented() {
    let bytes = encode_record_header(PLACE, &header(300));
    assert_eq!(bytes[..8], [b'H', b'R', 1, 2, 1, 0x0A, 0x0B, 0x0C]);
    assert_eq!(bytes[8..16], [8, 7, 6, 5, 4, 3, 2, 1]);
    assert_eq!(bytes[16..24], [44, 1, 0, 0, 0x0D, 0x0C, 0x0B, 0x0A]);
    assert_eq!(bytes[24..56], [0xA5; 32]);
    assert_eq!(bytes[56..60], [0xEF, 0xBE, 0xAD, 0xDE]);
    let mut covered = Vec::from(0x1122_3344_5566_7788_u64.to_le_bytes());
    covered.extend([9, 0, 0, 0, 0, 16, 0, 0]);
    covered.extend(&bytes[..60]);
    assert_eq!(bytes[60..], crc32c::crc32c(&covered).to_le_bytes());
    assert_eq!(decode_record_header(PLACE, &bytes), Some(header(300)));
}

#[test]
fn a_segment_header_lies_byte_by_byte_as_documented() {
    let header = SegmentHeader { segment: 5, salt: 6, previous: Some((3, 0x1234)) };
    let bytes = encode_segment_header(&header);
    assert_eq!(bytes[..12], *b"HYPHASEG\x03\0\0\0");
    assert_eq!(bytes[12..24], [5, 0, 0, 0, 6, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(bytes[24..32], [3, 0, 0, 0, 0x34, 0x12, 0, 0]);
    assert_eq!(bytes[32..60], [0; 28]);
    assert_eq!(decode_segment_header(&bytes), Ok(header));
    assert_eq!(decode_segment_header(&bytes[..63]), Err(SegmentHeaderError::Damaged));
    for bit in 0..SEGMENT_HEADER_BYTES * 8 {
        let mut flipped = bytes;
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(decode_segment_header(&flipped), Err(SegmentHeaderError::Damaged));
        assert_eq!(decode_flipped_segment_header(&flipped), Some(header));
    }
}

#[test]
fn a_header_is_valid_at_its_own_place_only() {
    let bytes = encode_record_header(PLACE, &header(1));
    for other in [Place { salt: 1, ..PLACE }, Place { segment: 8, ..PLACE }, Place { offset: 4104, ..PLACE }]
    {
        assert_eq!(decode_record_header(other, &bytes), None);
    }
}

#[test]
fn any_single_flipped_bit_is_noticed_and_still_names_the_record() {
    let bytes = encode_record_header(PLACE, &header(77));
    for bit in 0..RECORD_HEADER_BYTES * 8 {
        let mut flipped = bytes;
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(decode_record_header(PLACE, &flipped), None, "bit {bit}");
        assert_eq!(decode_flipped_record_header(PLACE, &flipped), Some(header(77)), "bit {bit}");
    }
}

#[test]
fn a_shape_of_a_later_version_is_no_damage() {
    let later = RecordHeader { shape: Shape::Other(77), flags: 0xff, ..header(300) };
    assert_eq!(decode_record_header(PLACE, &encode_record_header(PLACE, &later)), Some(later));
}

#[test]
fn a_length_over_the_limit_is_refused_even_with_a_right_checksum() {
    let bytes = encode_record_header(PLACE, &header(LENGTH_MAX_BYTES + 1));
    assert_eq!(decode_record_header(PLACE, &bytes), None);
    let tombstone = RecordHeader { shape: Shape::Tombstone, ..header(1) };
    assert_eq!(decode_record_header(PLACE, &encode_record_header(PLACE, &tombstone)), None);
}

#[test]
fn sizes_follow_from_the_length() {
    let sizes = |length| (table_count(length), value_offset(length), record_bytes(length));
    assert_eq!(sizes(0), (0, 64, 64));
    assert_eq!(sizes(200), (0, 64, 264));
    assert_eq!(sizes(4 << 10), (0, 64, 4160));
    assert_eq!(sizes((4 << 10) + 1), (2, 72, 4176));
    assert_eq!(sizes(64 << 10), (16, 128, 65664));
}

#[test]
fn checksums_do_not_depend_on_how_the_value_is_cut() {
    let value: Vec<u8> = (0..40_000_u32).map(|n| ((n * 7) >> 3) as u8).collect();
    for length in [0, 1, 4096, 4097, 5000, 32768, 40_000] {
        let whole = checksums(length as u32, [&value[..length]]);
        let (a, rest) = value[..length].split_at(length / 3);
        let (b, c) = rest.split_at(rest.len() / 2);
        assert_eq!(checksums(length as u32, [a, b, c]), whole);
        assert_eq!(whole.1.len(), table_count(length as u32) * 4);
        let header = RecordHeader { check: whole.0, ..header(length as u32) };
        let mut body = [&whole.1[..], &value[..length]].concat();
        assert!(verify_body(&header, &body));
        if let Some(last) = body.last_mut() {
            *last ^= 1;
            assert!(!verify_body(&header, &body));
        }
    }
}

#[test]
fn some_chunks_are_verified_without_the_others() {
    let value: Vec<u8> = (0..50_000_u32).map(|n| n as u8).collect();
    let (_, table) = checksums(50_000, [&value[..]]);
    assert!(verify_chunks(&table, 1, &value[CHUNK_BYTES..3 * CHUNK_BYTES]));
    assert!(verify_chunks(&table, 3, &value[3 * CHUNK_BYTES..]));
    assert!(!verify_chunks(&table, 0, &value[1..CHUNK_BYTES + 1]));
    assert!(!verify_chunks(&table, 13, &value[..1]), "no such chunk");
}
