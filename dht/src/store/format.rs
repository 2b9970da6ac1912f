//! The bytes of a store's files, and nothing but them: pure encoding and decoding, no I/O.
//!
//! All numbers are little-endian. A directory holds segments `NNNNNNNN.segment` (the number in hexadecimal), one
//! checkpoint `NNNNNNNN.index` per sealed segment, `lock`, and `reserve`, whose space is kept back for removals.
//!
//! **Segment**: a segment header, then records, each starting at a multiple of 8.
//!
//! | segment header | bytes | |
//! | --- | --- | --- |
//! | 0 | 8 | `HYPHASEG` |
//! | 8 | 4 | version, 1 |
//! | 12 | 4 | number of the segment |
//! | 16 | 8 | salt of the store, random, the same in every segment |
//! | 24 | 36 | zero |
//! | 60 | 4 | CRC-32C of bytes 0..60 |
//!
//! | record | bytes | |
//! | --- | --- | --- |
//! | 0 | 4 | `HREC` |
//! | 4 | 1 | shape: 1 value, 2 tombstone, 3 lost, 4 mark |
//! | 5 | 1 | kind of the key |
//! | 6 | 2 | zero |
//! | 8 | 8 | sequence: of two records of one key the greater one holds |
//! | 16 | 4 | length of the value |
//! | 20 | 4 | watermark: everything in this segment before this offset was durable when the record was written |
//! | 24 | 32 | address of the key |
//! | 56 | 4 | check: CRC-32C of the value, or of the table if there is one |
//! | 60 | 4 | CRC-32C of salt (8), segment (4), offset (4), bytes 0..60 |
//! | 64 | 4 each | table, only if the value is longer than 16 KiB: the CRC-32C of each 16 KiB of it |
//! | | | the value; zeros up to a multiple of 8 |
//!
//! - A header's checksum covers *where* it lies, so a stale record, or one that is quoted inside a value, never
//!   passes for a record; the salt keeps whoever supplies values from forging one.
//! - The table lets a part of a long value be read and verified without the rest.
//! - A *tombstone* hides older records of its key. *Lost* stands for a value that was damaged when its segment was
//!   compacted: without it an older value would come back. A *mark* carries nothing but a watermark; it lies behind
//!   the last record and the next record is written over it.
//!
//! Checksums find accidents, not forgeries: who needs more verifies the content's own hash.

use super::Key;

/// Opens every segment file.
pub const SEGMENT_MAGIC: [u8; 8] = *b"HYPHASEG";
/// Opens every record.
pub const RECORD_MAGIC: [u8; 4] = *b"HREC";
/// The version of segments and checkpoints that this program reads and writes.
pub const FORMAT_VERSION: u32 = 1;
/// Length of a segment's header.
pub const SEGMENT_HEADER_BYTES: usize = 64;
/// Length of a record's header.
pub const RECORD_HEADER_BYTES: usize = 64;
/// Records start at multiples of this.
pub const ALIGNMENT_BYTES: usize = 8;
/// How much of a long value one checksum covers: small enough that a 4 KiB read need not verify much more, large
/// enough that the table of a 1 MiB value (256 bytes) is no burden.
pub const CHUNK_BYTES: usize = 16 << 10;
/// The longest value a record can be; a header that claims more is damaged. See also the store's own limit.
pub const LENGTH_MAX_BYTES: u32 = super::VALUE_LENGTH_MAX_BYTES as u32;

/// What a record says about its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// The value follows.
    Value,
    /// The key was removed.
    Tombstone,
    /// The value was damaged and is gone.
    Lost,
    /// Nothing about any key.
    Mark,
}

impl Shape {
    pub(crate) fn to_byte(self) -> u8 {
        match self {
            Shape::Value => 1,
            Shape::Tombstone => 2,
            Shape::Lost => 3,
            Shape::Mark => 4,
        }
    }

    pub(crate) fn from_byte(byte: u8) -> Option<Shape> {
        [Shape::Value, Shape::Tombstone, Shape::Lost, Shape::Mark]
            .into_iter()
            .find(|shape| shape.to_byte() == byte)
    }
}

/// Where a record lies: bound into its checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The store's salt.
    pub salt: u64,
    /// The number of the segment.
    pub segment: u32,
    /// The offset of the record's header.
    pub offset: u32,
}

/// The header of a record, decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordHeader {
    /// What the record says.
    pub shape: Shape,
    /// About which key.
    pub key: Key,
    /// How new it is.
    pub sequence: u64,
    /// How long the value is; 0 unless the shape is a value.
    pub length: u32,
    /// Up to where the segment was durable when this was written.
    pub watermark: u32,
    /// Checksum of the value or of the table.
    pub check: u32,
}

/// How many chunk checksums stand before a value of this length.
pub const fn table_count(length: u32) -> usize {
    if length as usize <= CHUNK_BYTES { 0 } else { (length as usize).div_ceil(CHUNK_BYTES) }
}

/// Where the value begins, from the start of the record.
pub const fn value_offset(length: u32) -> usize {
    RECORD_HEADER_BYTES + table_count(length) * 4
}

/// The whole record, with its padding.
pub const fn record_bytes(length: u32) -> usize {
    (value_offset(length) + length as usize).next_multiple_of(ALIGNMENT_BYTES)
}

/// Reads a little-endian number; the caller has made sure that it is there.
pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

pub(crate) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}

/// A segment's first bytes.
pub fn encode_segment_header(segment: u32, salt: u64) -> [u8; SEGMENT_HEADER_BYTES] {
    let mut bytes = [0; SEGMENT_HEADER_BYTES];
    bytes[..8].copy_from_slice(&SEGMENT_MAGIC);
    bytes[8..12].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
    bytes[12..16].copy_from_slice(&segment.to_le_bytes());
    bytes[16..24].copy_from_slice(&salt.to_le_bytes());
    let crc = crc32c::crc32c(&bytes[..60]);
    bytes[60..].copy_from_slice(&crc.to_le_bytes());
    bytes
}

/// Why a segment's header cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SegmentHeaderError {
    /// Too short, or another magic number or checksum.
    #[error("its header is damaged")]
    Damaged,
    /// Written by another version of this program.
    #[error("it is of format version {0}, and this program knows version 1")]
    Version(u32),
}

/// Reads (number, salt) out of a segment's first bytes.
///
/// # Errors
///
/// If they are damaged or of another version.
pub fn decode_segment_header(bytes: &[u8]) -> Result<(u32, u64), SegmentHeaderError> {
    let bytes = bytes.get(..SEGMENT_HEADER_BYTES).ok_or(SegmentHeaderError::Damaged)?;
    if bytes[..8] != SEGMENT_MAGIC || u32_at(bytes, 60) != crc32c::crc32c(&bytes[..60]) {
        return Err(SegmentHeaderError::Damaged);
    }
    match u32_at(bytes, 8) {
        FORMAT_VERSION => Ok((u32_at(bytes, 12), u64_at(bytes, 16))),
        version => Err(SegmentHeaderError::Version(version)),
    }
}

/// Reads a segment's header in which one bit was flipped: in the only segment of a store it is the only place that
/// holds the salt.
pub fn decode_flipped_segment_header(bytes: &[u8]) -> Option<(u32, u64)> {
    let mut bytes: [u8; SEGMENT_HEADER_BYTES] = bytes.get(..SEGMENT_HEADER_BYTES)?.try_into().ok()?;
    (0..SEGMENT_HEADER_BYTES * 8).find_map(|bit| {
        bytes[bit / 8] ^= 1 << (bit % 8);
        let header = decode_segment_header(&bytes).ok();
        bytes[bit / 8] ^= 1 << (bit % 8);
        header
    })
}

fn header_crc(place: Place, fields: &[u8]) -> u32 {
    let mut prefix = [0; 16];
    prefix[..8].copy_from_slice(&place.salt.to_le_bytes());
    prefix[8..12].copy_from_slice(&place.segment.to_le_bytes());
    prefix[12..].copy_from_slice(&place.offset.to_le_bytes());
    crc32c::crc32c_append(crc32c::crc32c(&prefix), fields)
}

/// A record's header, for exactly this place.
pub fn encode_record_header(place: Place, header: &RecordHeader) -> [u8; RECORD_HEADER_BYTES] {
    let mut bytes = [0; RECORD_HEADER_BYTES];
    bytes[..4].copy_from_slice(&RECORD_MAGIC);
    bytes[4] = header.shape.to_byte();
    bytes[5] = header.key.kind.0;
    bytes[8..16].copy_from_slice(&header.sequence.to_le_bytes());
    bytes[16..20].copy_from_slice(&header.length.to_le_bytes());
    bytes[20..24].copy_from_slice(&header.watermark.to_le_bytes());
    bytes[24..56].copy_from_slice(&header.key.address);
    bytes[56..60].copy_from_slice(&header.check.to_le_bytes());
    let crc = header_crc(place, &bytes[..60]);
    bytes[60..].copy_from_slice(&crc.to_le_bytes());
    bytes
}

/// Reads a record's header that should lie at `place`; `None` if those bytes are not exactly one.
pub fn decode_record_header(place: Place, bytes: &[u8]) -> Option<RecordHeader> {
    let bytes = bytes.get(..RECORD_HEADER_BYTES)?;
    if bytes[..4] != RECORD_MAGIC || u32_at(bytes, 60) != header_crc(place, &bytes[..60]) {
        return None;
    }
    let mut address = [0; 32];
    address.copy_from_slice(&bytes[24..56]);
    let header = RecordHeader {
        shape: Shape::from_byte(bytes[4])?,
        key: Key::new(super::Kind(bytes[5]), address),
        sequence: u64_at(bytes, 8),
        length: u32_at(bytes, 16),
        watermark: u32_at(bytes, 20),
        check: u32_at(bytes, 56),
    };
    let length_max = if header.shape == Shape::Value { LENGTH_MAX_BYTES } else { 0 };
    (header.length <= length_max).then_some(header)
}

/// Reads a header in which one bit was flipped.
///
/// It says which record is damaged and how long it is, so that nothing behind it is lost. CRC-32C tells any two
/// headers apart that differ in fewer than four bits, so with a single flip the answer is certain.
pub fn decode_flipped_record_header(place: Place, bytes: &[u8]) -> Option<RecordHeader> {
    let mut bytes: [u8; RECORD_HEADER_BYTES] = bytes.get(..RECORD_HEADER_BYTES)?.try_into().ok()?;
    (0..RECORD_HEADER_BYTES * 8).find_map(|bit| {
        bytes[bit / 8] ^= 1 << (bit % 8);
        let header = decode_record_header(place, &bytes);
        bytes[bit / 8] ^= 1 << (bit % 8);
        header
    })
}

/// The checksums of a value: what stands in the header, and the table (empty for a short value).
pub fn checksums<'a>(length: u32, pieces: impl IntoIterator<Item = &'a [u8]>) -> (u32, Vec<u8>) {
    let mut table = Vec::with_capacity(table_count(length) * 4);
    let (mut crc, mut room) = (0, CHUNK_BYTES);
    for mut piece in pieces {
        while !piece.is_empty() {
            if room == 0 {
                table.extend_from_slice(&u32::to_le_bytes(crc));
                (crc, room) = (0, CHUNK_BYTES);
            }
            let (head, tail) = piece.split_at(piece.len().min(room));
            crc = crc32c::crc32c_append(crc, head);
            room -= head.len();
            piece = tail;
        }
    }
    if table_count(length) == 0 {
        return (crc, table);
    }
    table.extend_from_slice(&crc.to_le_bytes());
    (crc32c::crc32c(&table), table)
}

/// Whether the bytes behind a header (table and value) are what the header says.
pub fn verify_body(header: &RecordHeader, body: &[u8]) -> bool {
    let table_bytes = table_count(header.length) * 4;
    let Some((table, rest)) = body.split_at_checked(table_bytes) else { return false };
    let Some(value) = rest.get(..header.length as usize) else { return false };
    if table.is_empty() {
        return crc32c::crc32c(value) == header.check;
    }
    crc32c::crc32c(table) == header.check
        && value
            .chunks(CHUNK_BYTES)
            .zip(table.chunks(4))
            .all(|(chunk, crc)| crc32c::crc32c(chunk) == u32_at(crc, 0))
}

/// Whether `chunks`, which begin at chunk `first` of the value, are what `table` says.
pub fn verify_chunks(table: &[u8], first: usize, chunks: &[u8]) -> bool {
    let crcs = table.chunks_exact(4).skip(first);
    crcs.len() >= chunks.len().div_ceil(CHUNK_BYTES)
        && chunks.chunks(CHUNK_BYTES).zip(crcs).all(|(chunk, crc)| crc32c::crc32c(chunk) == u32_at(crc, 0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Kind;

    const PLACE: Place = Place { salt: 0x1122_3344_5566_7788, segment: 9, offset: 4096 };

    fn header(length: u32) -> RecordHeader {
        RecordHeader {
            shape: Shape::Value,
            key: Key::new(Kind::REGISTER, [0xA5; 32]),
            sequence: 0x0102_0304_0506_0708,
            length,
            watermark: 0x0A0B_0C0D,
            check: 0xDEAD_BEEF,
        }
    }

    #[test]
    fn a_record_header_lies_byte_by_byte_as_documented() {
        let bytes = encode_record_header(PLACE, &header(300));
        assert_eq!(bytes[..8], [b'H', b'R', b'E', b'C', 1, 2, 0, 0]);
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
        let bytes = encode_segment_header(5, 6);
        assert_eq!(bytes[..12], *b"HYPHASEG\x01\0\0\0");
        assert_eq!(bytes[12..24], [5, 0, 0, 0, 6, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(bytes[24..60], [0; 36]);
        assert_eq!(decode_segment_header(&bytes), Ok((5, 6)));
        assert_eq!(decode_segment_header(&bytes[..63]), Err(SegmentHeaderError::Damaged));
        for bit in 0..SEGMENT_HEADER_BYTES * 8 {
            let mut flipped = bytes;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(decode_segment_header(&flipped), Err(SegmentHeaderError::Damaged));
            assert_eq!(decode_flipped_segment_header(&flipped), Some((5, 6)));
        }
    }

    #[test]
    fn a_header_is_valid_at_its_own_place_only() {
        let bytes = encode_record_header(PLACE, &header(1));
        for other in
            [Place { salt: 1, ..PLACE }, Place { segment: 8, ..PLACE }, Place { offset: 4104, ..PLACE }]
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
        assert_eq!(sizes(16 << 10), (0, 64, 16448));
        assert_eq!(sizes((16 << 10) + 1), (2, 72, 16464));
        assert_eq!(sizes(64 << 10), (4, 80, 65616));
    }

    #[test]
    fn checksums_do_not_depend_on_how_the_value_is_cut() {
        let value: Vec<u8> = (0..40_000_u32).map(|n| ((n * 7) >> 3) as u8).collect();
        for length in [0, 1, 5000, 16384, 16385, 32768, 40_000] {
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
        assert!(!verify_chunks(&table, 4, &value[..1]), "no such chunk");
    }
}
