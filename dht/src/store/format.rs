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
//! | 8 | 4 | version, 3 |
//! | 12 | 4 | number of the segment |
//! | 16 | 8 | salt of the store, random, the same in every segment |
//! | 24 | 4 | number of the segment before it |
//! | 28 | 4 | end of the segment before it: what lies behind that is no part of the log; 0 if there is none |
//! | 32 | 28 | zero |
//! | 60 | 4 | CRC-32C of bytes 0..60 |
//!
//! | record | bytes | |
//! | --- | --- | --- |
//! | 0 | 2 | `HR` |
//! | 2 | 1 | shape: 1 value, 2 tombstone, 3 lost, 4 mark, 5 contents, 6 hidden, 7 void |
//! | 3 | 1 | kind of the key |
//! | 4 | 1 | flags: bit 0, a compaction's copy; bits 4 to 7 must be understood |
//! | 5 | 3 | ordinal of the owner, as the node numbers its owners; 0 for none |
//! | 8 | 8 | sequence: of two records of one key the greater one holds |
//! | 16 | 4 | length of the value |
//! | 20 | 4 | watermark: everything in this segment before this offset was durable when the record was written |
//! | 24 | 32 | address of the key |
//! | 56 | 4 | check: CRC-32C of the value, or of the table if there is one |
//! | 60 | 4 | CRC-32C of salt (8), segment (4), offset (4), bytes 0..60 |
//! | 64 | 4 each | table, only if the value is longer than 4 KiB: the CRC-32C of each 4 KiB of it |
//! | | | the value; zeros up to a multiple of 8 |
//!
//! - A header's checksum covers *where* it lies, so a stale record, or one that is quoted inside a value, never
//!   passes for a record; the salt keeps whoever supplies values from forging one.
//! - The table lets a part of a long value be read and verified without the rest.
//! - A *tombstone* hides older records of its key. *Lost* stands for a value that was damaged when its segment was
//!   compacted: without it an older value would come back. A *mark* carries nothing but a watermark; it lies behind
//!   the last record and the next record is written over it.
//! - *Contents* list records that lie some way before them (see `contents.rs`), so that a destroyed header still has a
//!   name. *Hidden* stands for destroyed records of unknown keys, of sequences up to its own. A *void* covers dead
//!   records whose space was given back to the disk; its length is that of the whole range, header included.
//! - A record of another shape has its length and checksum where all have theirs. Its segment is kept as it is. A
//!   program that meets a flag which must be understood, and does not know it, leaves the store alone.
//!
//! Checksums find accidents, not forgeries: who needs more verifies the content's own hash.

use super::Key;

/// Opens every segment file.
pub const SEGMENT_MAGIC: [u8; 8] = *b"HYPHASEG";
/// Opens every record.
pub const RECORD_MAGIC: [u8; 2] = *b"HR";
/// The version of segments and checkpoints that this program reads and writes.
pub const FORMAT_VERSION: u32 = 3;
/// Length of a segment's header.
pub const SEGMENT_HEADER_BYTES: usize = 64;
/// Length of a record's header.
pub const RECORD_HEADER_BYTES: usize = 64;
/// Records start at multiples of this.
pub const ALIGNMENT_BYTES: usize = 8;
/// How much of a long value one checksum covers: a 4 KiB read that is aligned reads and verifies no more, beside the table,
/// which is a thousandth of the value.
pub const CHUNK_BYTES: usize = 4 << 10;
/// The flag of a record that compaction has copied: its sequence is older than its place.
pub const FLAG_COPY: u8 = 1;
/// Flags that may not be passed over. This version knows none of them.
pub const FLAGS_TO_UNDERSTAND: u8 = 0xf0;
/// Ordinals of owners have three bytes.
pub const OWNER_MAX: u32 = (1 << 24) - 1;
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
    /// Which records lie before it.
    Contents,
    /// Records of unknown keys, of sequences up to this one's, are gone.
    Hidden,
    /// As many bytes, header included, hold nothing any more.
    Void,
    /// What a later version of this program says.
    Other(u8),
}

impl Shape {
    pub(crate) fn to_byte(self) -> u8 {
        match self {
            Shape::Value => 1,
            Shape::Tombstone => 2,
            Shape::Lost => 3,
            Shape::Mark => 4,
            Shape::Contents => 5,
            Shape::Hidden => 6,
            Shape::Void => 7,
            Shape::Other(byte) => byte,
        }
    }

    pub(crate) fn from_byte(byte: u8) -> Shape {
        match byte {
            1 => Shape::Value,
            2 => Shape::Tombstone,
            3 => Shape::Lost,
            4 => Shape::Mark,
            5 => Shape::Contents,
            6 => Shape::Hidden,
            7 => Shape::Void,
            byte => Shape::Other(byte),
        }
    }

    /// Whether a record of this shape may have a value.
    fn has_value(self) -> bool {
        matches!(self, Shape::Value | Shape::Contents | Shape::Other(_))
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
    /// See [`FLAG_COPY`] and [`FLAGS_TO_UNDERSTAND`].
    pub flags: u8,
    /// Whose it is, as the node numbers its owners; 0 for nobody's.
    pub owner: u32,
    /// How new it is.
    pub sequence: u64,
    /// How long the value is; 0 where the shape has none.
    pub length: u32,
    /// Up to where the segment was durable when this was written.
    pub watermark: u32,
    /// Checksum of the value or of the table.
    pub check: u32,
}

impl RecordHeader {
    /// How much of the segment the whole record takes.
    pub fn size_bytes(&self) -> u64 {
        if self.shape == Shape::Void { u64::from(self.length) } else { record_bytes(self.length) as u64 }
    }
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

/// A segment's header, decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentHeader {
    /// Its number.
    pub segment: u32,
    /// The store's salt.
    pub salt: u64,
    /// The number and the end of the segment before it, unless it is the first.
    pub previous: Option<(u32, u32)>,
}

/// A segment's first bytes.
pub fn encode_segment_header(header: &SegmentHeader) -> [u8; SEGMENT_HEADER_BYTES] {
    let SegmentHeader { segment, salt, previous } = header;
    let (previous, previous_end) = previous.unwrap_or_default();
    let mut bytes = [0; SEGMENT_HEADER_BYTES];
    bytes[..8].copy_from_slice(&SEGMENT_MAGIC);
    bytes[8..12].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
    bytes[12..16].copy_from_slice(&segment.to_le_bytes());
    bytes[16..24].copy_from_slice(&salt.to_le_bytes());
    bytes[24..28].copy_from_slice(&previous.to_le_bytes());
    bytes[28..32].copy_from_slice(&previous_end.to_le_bytes());
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
    #[error("it is of format version {0}, and this program knows version 3: use the program that wrote it")]
    Version(u32),
}

/// Reads a segment's first bytes.
///
/// # Errors
///
/// If they are damaged or of another version.
pub fn decode_segment_header(bytes: &[u8]) -> Result<SegmentHeader, SegmentHeaderError> {
    let bytes = bytes.get(..SEGMENT_HEADER_BYTES).ok_or(SegmentHeaderError::Damaged)?;
    if bytes[..8] != SEGMENT_MAGIC || u32_at(bytes, 60) != crc32c::crc32c(&bytes[..60]) {
        return Err(SegmentHeaderError::Damaged);
    }
    match u32_at(bytes, 8) {
        FORMAT_VERSION => Ok(SegmentHeader {
            segment: u32_at(bytes, 12),
            salt: u64_at(bytes, 16),
            previous: Some((u32_at(bytes, 24), u32_at(bytes, 28))).filter(|(_, end)| *end != 0),
        }),
        version => Err(SegmentHeaderError::Version(version)),
    }
}

/// Reads a segment's header in which one bit was flipped: in the only segment of a store it is the only place that
/// holds the salt.
pub fn decode_flipped_segment_header(bytes: &[u8]) -> Option<SegmentHeader> {
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
    bytes[..2].copy_from_slice(&RECORD_MAGIC);
    bytes[2] = header.shape.to_byte();
    bytes[3] = header.key.kind.0;
    bytes[4] = header.flags;
    bytes[5..8].copy_from_slice(&header.owner.to_le_bytes()[..3]);
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
    if bytes[..2] != RECORD_MAGIC || u32_at(bytes, 60) != header_crc(place, &bytes[..60]) {
        return None;
    }
    let mut address = [0; 32];
    address.copy_from_slice(&bytes[24..56]);
    let header = RecordHeader {
        shape: Shape::from_byte(bytes[2]),
        key: Key::new(super::Kind(bytes[3]), address),
        flags: bytes[4],
        owner: u32_at(bytes, 4) >> 8,
        sequence: u64_at(bytes, 8),
        length: u32_at(bytes, 16),
        watermark: u32_at(bytes, 20),
        check: u32_at(bytes, 56),
    };
    let is_possible = match header.shape {
        Shape::Void => {
            header.length as usize >= RECORD_HEADER_BYTES
                && (header.length as usize).is_multiple_of(ALIGNMENT_BYTES)
        }
        shape => header.length <= if shape.has_value() { LENGTH_MAX_BYTES } else { 0 },
    };
    is_possible.then_some(header)
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
mod tests;
