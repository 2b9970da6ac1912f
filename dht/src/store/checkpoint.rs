//! The list of a sealed segment's records, kept beside it so that opening a store need not read the segment.
//!
//! It holds nothing that the segment does not: whatever is wrong with a checkpoint, the segment is scanned instead,
//! and so a checkpoint is never synced.
//!
//! | header | bytes | |
//! | --- | --- | --- |
//! | 0 | 8 | `HYPHAIDX` |
//! | 8 | 4 | version, 3 |
//! | 12 | 4 | number of the segment |
//! | 16 | 8 | salt of the store |
//! | 24 | 4 | end of the segment: behind its last record |
//! | 28 | 4 | how many entries follow |
//! | 32 | 4 | flags: bit 0, the segment holds records of shapes that whoever wrote this did not know |
//! | 36 | 20 | zero |
//! | 56 | 4 | CRC-32C of all entries |
//! | 60 | 4 | CRC-32C of bytes 0..60 |
//!
//! | entry | bytes | |
//! | --- | --- | --- |
//! | 0 | 1 | shape of the newest record of this key: 1 value, 2 tombstone, 3 lost; 0 for a hole: damage of unknown key |
//! | 1 | 1 | kind of the key |
//! | 2 | 2 | zero |
//! | 4 | 4 | how many records of this key the segment holds |
//! | 8 | 4 | offset of the newest |
//! | 12 | 4 | length of its value; of a hole, its own length |
//! | 16 | 8 | sequence; of a hole, the newest that it may hide |
//! | 24 | 32 | address of the key |
//! | 56 | 4 | ordinal of the owner |
//! | 60 | 4 | zero |
//!
//! Entries are in key order, one a key; holes come last.

use super::{
    Damage, Key, Kind, contents,
    format::{self, FORMAT_VERSION, Shape, u32_at, u64_at},
    scan::{Listed, Scanned},
};

/// Opens every checkpoint file.
pub const CHECKPOINT_MAGIC: [u8; 8] = *b"HYPHAIDX";
/// Length of a checkpoint's header.
pub const CHECKPOINT_HEADER_BYTES: usize = 64;
/// Length of an entry.
pub const ENTRY_BYTES: usize = 64;

const HOLE: u8 = 0;
const FLAG_KEPT: u32 = 1;

/// What a segment holds: one entry a key, in key order, and where it ends.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// The newest record of each key, in key order.
    pub entries: Vec<Listed>,
    /// Damage whose key is unknown.
    pub holes: Vec<Damage>,
    /// Behind the last record.
    pub end: u32,
    /// Whether it holds records of unknown shapes, and so is kept as it is.
    pub is_kept: bool,
}

impl From<Scanned> for Listing {
    /// Keeps the newest record of each key and counts the others.
    fn from(scanned: Scanned) -> Listing {
        let (hidden, mut entries): (Vec<Listed>, _) =
            scanned.records.into_iter().partition(|record| record.shape == Shape::Hidden);
        entries.sort_by_key(|entry| (entry.key, entry.sequence, entry.offset));
        entries.dedup_by(|newer, kept| {
            let same = newer.key == kept.key;
            if same {
                *kept = Listed { count: kept.count.saturating_add(newer.count), ..*newer };
            }
            same
        });
        let holes = scanned.damages.into_iter().filter(|damage| damage.key.is_none());
        let hidden = hidden.iter().map(|record| hole_of(scanned.segment, record));
        Listing {
            entries,
            holes: holes.chain(hidden).collect(),
            end: scanned.end,
            is_kept: scanned.is_kept || scanned.is_unreadable,
        }
    }
}

/// What a record that stands for hidden ones says.
pub(crate) fn hole_of(segment: u32, hidden: &Listed) -> Damage {
    Damage {
        key: None,
        segment,
        offset_bytes: u64::from(hidden.offset),
        length_bytes: format::record_bytes(0) as u64,
        sequence_max: hidden.sequence,
    }
}

/// Adds one record's entry.
pub(crate) fn encode_entry(entry: &Listed, bytes: &mut Vec<u8>) {
    bytes.extend_from_slice(&[entry.shape.to_byte(), entry.key.kind.0, 0, 0]);
    bytes.extend_from_slice(&entry.count.to_le_bytes());
    bytes.extend_from_slice(&entry.offset.to_le_bytes());
    bytes.extend_from_slice(&entry.length.to_le_bytes());
    bytes.extend_from_slice(&entry.sequence.to_le_bytes());
    bytes.extend_from_slice(&entry.key.address);
    bytes.extend_from_slice(&entry.owner.to_le_bytes());
    bytes.extend_from_slice(&[0; 4]);
}

/// Reads one record's entry, of [`ENTRY_BYTES`].
pub(crate) fn decode_entry(bytes: &[u8]) -> Listed {
    let mut address = [0; 32];
    address.copy_from_slice(&bytes[24..56]);
    Listed {
        key: Key::new(Kind(bytes[1]), address),
        shape: Shape::from_byte(bytes[0]),
        sequence: u64_at(bytes, 16),
        offset: u32_at(bytes, 8),
        length: u32_at(bytes, 12).min(format::LENGTH_MAX_BYTES),
        count: u32_at(bytes, 4).max(1),
        owner: u32_at(bytes, 56),
    }
}

/// The bytes of a checkpoint.
pub fn encode(segment: u32, salt: u64, listing: &Listing) -> Vec<u8> {
    let count = listing.entries.len() + listing.holes.len();
    let mut bytes = Vec::with_capacity(CHECKPOINT_HEADER_BYTES + count * ENTRY_BYTES);
    bytes.resize(CHECKPOINT_HEADER_BYTES, 0);
    listing.entries.iter().for_each(|entry| encode_entry(entry, &mut bytes));
    for hole in &listing.holes {
        bytes.extend_from_slice(&[HOLE, 0, 0, 0, 0, 0, 0, 0]);
        bytes.extend_from_slice(&(hole.offset_bytes as u32).to_le_bytes());
        bytes.extend_from_slice(&(hole.length_bytes as u32).to_le_bytes());
        bytes.extend_from_slice(&hole.sequence_max.to_le_bytes());
        bytes.resize(bytes.len() + 40, 0);
    }
    bytes[..8].copy_from_slice(&CHECKPOINT_MAGIC);
    bytes[8..12].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
    bytes[12..16].copy_from_slice(&segment.to_le_bytes());
    bytes[16..24].copy_from_slice(&salt.to_le_bytes());
    bytes[24..28].copy_from_slice(&listing.end.to_le_bytes());
    bytes[28..32].copy_from_slice(&(count as u32).to_le_bytes());
    let flags = if listing.is_kept { FLAG_KEPT } else { 0 };
    bytes[32..36].copy_from_slice(&flags.to_le_bytes());
    let entries_crc = crc32c::crc32c(&bytes[CHECKPOINT_HEADER_BYTES..]);
    bytes[56..60].copy_from_slice(&entries_crc.to_le_bytes());
    let crc = crc32c::crc32c(&bytes[..60]);
    bytes[60..64].copy_from_slice(&crc.to_le_bytes());
    bytes
}

/// Reads a checkpoint of this segment of this store; `None` if it is anything else, or damaged.
pub fn decode(segment: u32, salt: u64, bytes: &[u8]) -> Option<Listing> {
    let (header, body) = bytes.split_at_checked(CHECKPOINT_HEADER_BYTES)?;
    let is_ours = header[..8] == CHECKPOINT_MAGIC
        && u32_at(header, 60) == crc32c::crc32c(&header[..60])
        && (u32_at(header, 8), u32_at(header, 12), u64_at(header, 16)) == (FORMAT_VERSION, segment, salt)
        && body.len() == u32_at(header, 28) as usize * ENTRY_BYTES
        && u32_at(header, 56) == crc32c::crc32c(body);
    if !is_ours {
        return None;
    }
    let mut listing = Listing {
        end: u32_at(header, 24),
        entries: Vec::with_capacity(body.len() / ENTRY_BYTES),
        holes: Vec::new(),
        is_kept: u32_at(header, 32) & FLAG_KEPT != 0,
    };
    for bytes in body.chunks_exact(ENTRY_BYTES) {
        let (offset, length) = (u32_at(bytes, 8), u32_at(bytes, 12));
        if bytes[0] == HOLE {
            let (offset_bytes, length_bytes) = (u64::from(offset), u64::from(length));
            let sequence_max = u64_at(bytes, 16);
            listing.holes.push(Damage { key: None, segment, offset_bytes, length_bytes, sequence_max });
            continue;
        }
        let entry = decode_entry(bytes);
        let fits = contents::end_of(&entry) <= u64::from(listing.end) || entry.shape == Shape::Lost;
        let is_record = matches!(entry.shape, Shape::Value | Shape::Tombstone | Shape::Lost);
        let is_in_order = listing.entries.last().is_none_or(|last: &Listed| last.key < entry.key);
        if !listing.holes.is_empty() || !fits || !is_record || !is_in_order || length != entry.length {
            return None;
        }
        listing.entries.push(entry);
    }
    Some(listing)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(n: u8, sequence: u64, offset: u32) -> Listed {
        let key = Key::new(Kind::REGISTER, [n; 32]);
        Listed { key, shape: Shape::Value, sequence, offset, length: 200, count: 1, owner: 0x1234 }
    }

    fn hole() -> Damage {
        Damage { key: None, segment: 3, offset_bytes: 900, length_bytes: 64, sequence_max: 8 }
    }

    fn listing() -> Listing {
        let records = vec![listed(2, 1, 64), listed(1, 2, 328), listed(2, 9, 592), listed(2, 5, 1000)];
        Listing::from(Scanned { records, damages: vec![hole()], end: 5000, ..Scanned::default() })
    }

    #[test]
    fn the_newest_record_of_each_key_is_kept_and_the_others_counted() {
        let listing = listing();
        assert_eq!(listing.entries, [listed(1, 2, 328), Listed { count: 3, ..listed(2, 9, 592) }]);
    }

    #[test]
    fn what_is_encoded_is_decoded() {
        let bytes = encode(3, 7, &listing());
        assert_eq!(bytes.len(), 64 + 3 * 64);
        assert_eq!(decode(3, 7, &bytes), Some(listing()));
        assert_eq!(decode(4, 7, &bytes), None, "another segment's");
        assert_eq!(decode(3, 8, &bytes), None, "another store's");
    }

    #[test]
    fn an_entry_lies_byte_by_byte_as_documented() {
        let bytes = encode(3, 7, &listing());
        assert_eq!(bytes[..16], *b"HYPHAIDX\x03\0\0\0\x03\0\0\0");
        assert_eq!(bytes[16..32], [7, 0, 0, 0, 0, 0, 0, 0, 0x88, 0x13, 0, 0, 3, 0, 0, 0]);
        let entry = &bytes[64 + 64..64 + 128];
        assert_eq!(
            entry[..24],
            [1, 2, 0, 0, 3, 0, 0, 0, 0x50, 2, 0, 0, 200, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0]
        );
        assert_eq!(entry[24..56], [2; 32]);
        assert_eq!(entry[56..], [0x34, 0x12, 0, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn any_flipped_bit_and_any_cut_is_noticed() {
        let bytes = encode(3, 7, &listing());
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(decode(3, 7, &flipped), None, "bit {bit}");
        }
        for cut in 0..bytes.len() {
            assert_eq!(decode(3, 7, &bytes[..cut]), None, "cut at {cut}");
        }
    }
}
