//! The list of a sealed segment's records, kept beside it so that opening a store need not read the segment.
//!
//! It holds nothing that the segment does not: whatever is wrong with a checkpoint, the segment is scanned instead,
//! and so a checkpoint is never synced.
//!
//! | header | bytes | |
//! | --- | --- | --- |
//! | 0 | 8 | `HYPHAIDX` |
//! | 8 | 4 | version, 1 |
//! | 12 | 4 | number of the segment |
//! | 16 | 8 | salt of the store |
//! | 24 | 4 | end of the segment: behind its last record |
//! | 28 | 4 | how many entries follow |
//! | 32 | 24 | zero |
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
//! | 16 | 8 | sequence |
//! | 24 | 32 | address of the key |
//!
//! Entries are in key order, one a key; holes come last.

use super::{
    Damage, Key, Kind,
    format::{self, FORMAT_VERSION, Shape, u32_at, u64_at},
    scan::{Listed, Scanned},
};

/// Opens every checkpoint file.
pub const CHECKPOINT_MAGIC: [u8; 8] = *b"HYPHAIDX";
/// Length of a checkpoint's header.
pub const CHECKPOINT_HEADER_BYTES: usize = 64;
/// Length of an entry.
pub const ENTRY_BYTES: usize = 56;

const HOLE: u8 = 0;

/// What a segment holds: one entry a key, in key order, and where it ends.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// The newest record of each key, in key order.
    pub entries: Vec<Listed>,
    /// Damage whose key is unknown.
    pub holes: Vec<Damage>,
    /// Behind the last record.
    pub end: u32,
}

impl From<Scanned> for Listing {
    /// Keeps the newest record of each key and counts the others.
    fn from(scanned: Scanned) -> Listing {
        let mut entries = scanned.records;
        entries.sort_by_key(|entry| (entry.key, entry.sequence, entry.offset));
        entries.dedup_by(|newer, kept| {
            let same = newer.key == kept.key;
            if same {
                *kept = Listed { count: kept.count.saturating_add(newer.count), ..*newer };
            }
            same
        });
        let holes = scanned.damages.into_iter().filter(|damage| damage.key.is_none()).collect();
        Listing { entries, holes, end: scanned.end }
    }
}

/// The bytes of a checkpoint.
pub fn encode(segment: u32, salt: u64, listing: &Listing) -> Vec<u8> {
    let count = listing.entries.len() + listing.holes.len();
    let mut bytes = Vec::with_capacity(CHECKPOINT_HEADER_BYTES + count * ENTRY_BYTES);
    bytes.resize(CHECKPOINT_HEADER_BYTES, 0);
    for entry in &listing.entries {
        bytes.extend_from_slice(&[entry.shape.to_byte(), entry.key.kind.0, 0, 0]);
        bytes.extend_from_slice(&entry.count.to_le_bytes());
        bytes.extend_from_slice(&entry.offset.to_le_bytes());
        bytes.extend_from_slice(&entry.length.to_le_bytes());
        bytes.extend_from_slice(&entry.sequence.to_le_bytes());
        bytes.extend_from_slice(&entry.key.address);
    }
    for hole in &listing.holes {
        bytes.extend_from_slice(&[HOLE, 0, 0, 0, 0, 0, 0, 0]);
        bytes.extend_from_slice(&(hole.offset_bytes as u32).to_le_bytes());
        bytes.extend_from_slice(&(hole.length_bytes as u32).to_le_bytes());
        bytes.resize(bytes.len() + 40, 0);
    }
    bytes[..8].copy_from_slice(&CHECKPOINT_MAGIC);
    bytes[8..12].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
    bytes[12..16].copy_from_slice(&segment.to_le_bytes());
    bytes[16..24].copy_from_slice(&salt.to_le_bytes());
    bytes[24..28].copy_from_slice(&listing.end.to_le_bytes());
    bytes[28..32].copy_from_slice(&(count as u32).to_le_bytes());
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
    let end = u32_at(header, 24);
    let mut listing =
        Listing { end, entries: Vec::with_capacity(body.len() / ENTRY_BYTES), holes: Vec::new() };
    for bytes in body.chunks_exact(ENTRY_BYTES) {
        let (offset, length) = (u32_at(bytes, 8), u32_at(bytes, 12));
        if bytes[0] == HOLE {
            let (offset_bytes, length_bytes) = (u64::from(offset), u64::from(length));
            listing.holes.push(Damage { key: None, segment, offset_bytes, length_bytes });
            continue;
        }
        let shape = Shape::from_byte(bytes[0]).filter(|shape| *shape != Shape::Mark)?;
        let mut address = [0; 32];
        address.copy_from_slice(&bytes[24..56]);
        let key = Key::new(Kind(bytes[1]), address);
        let fits = u64::from(offset) + format::record_bytes(length) as u64 <= u64::from(end);
        if !listing.holes.is_empty() || !(fits || shape == Shape::Lost) || length > format::LENGTH_MAX_BYTES {
            return None;
        }
        if listing.entries.last().is_some_and(|last: &Listed| last.key >= key) {
            return None;
        }
        let (sequence, count) = (u64_at(bytes, 16), u32_at(bytes, 4).max(1));
        listing.entries.push(Listed { key, shape, sequence, offset, length, count });
    }
    Some(listing)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(n: u8, sequence: u64, offset: u32) -> Listed {
        let key = Key::new(Kind::REGISTER, [n; 32]);
        Listed { key, shape: Shape::Value, sequence, offset, length: 200, count: 1 }
    }

    fn hole() -> Damage {
        Damage { key: None, segment: 3, offset_bytes: 900, length_bytes: 64 }
    }

    fn listing() -> Listing {
        let records = vec![listed(2, 1, 64), listed(1, 2, 328), listed(2, 9, 592), listed(2, 5, 1000)];
        Listing::from(Scanned { records, damages: vec![hole()], end: 5000, torn_bytes: 0 })
    }

    #[test]
    fn the_newest_record_of_each_key_is_kept_and_the_others_counted() {
        let listing = listing();
        assert_eq!(listing.entries, [listed(1, 2, 328), Listed { count: 3, ..listed(2, 9, 592) }]);
    }

    #[test]
    fn what_is_encoded_is_decoded() {
        let bytes = encode(3, 7, &listing());
        assert_eq!(bytes.len(), 64 + 3 * 56);
        assert_eq!(decode(3, 7, &bytes), Some(listing()));
        assert_eq!(decode(4, 7, &bytes), None, "another segment's");
        assert_eq!(decode(3, 8, &bytes), None, "another store's");
    }

    #[test]
    fn an_entry_lies_byte_by_byte_as_documented() {
        let bytes = encode(3, 7, &listing());
        assert_eq!(bytes[..16], *b"HYPHAIDX\x01\0\0\0\x03\0\0\0");
        assert_eq!(bytes[16..32], [7, 0, 0, 0, 0, 0, 0, 0, 0x88, 0x13, 0, 0, 3, 0, 0, 0]);
        let entry = &bytes[64 + 56..64 + 112];
        assert_eq!(
            entry[..24],
            [1, 2, 0, 0, 3, 0, 0, 0, 0x50, 2, 0, 0, 200, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0]
        );
        assert_eq!(entry[24..], [2; 32]);
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
