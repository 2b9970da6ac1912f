//! One entry of the cache: a range of a block's bytes in a file of its own, named by what it holds.
//!
//! The bytes lie in pieces of 32 KiB, each with a keyed hash behind it that binds it to block, range and place; so any part
//! of an entry is proved with as much reading as a group of the block itself takes. The hash's key comes from the user's
//! secret: whoever has the disk alone can neither make an entry that is believed nor put one in another's place. What is
//! hashed was verified against its address when it came from a node. A torn or flipped file proves nothing, and is a miss.

use std::ops::Range;

use bytes::Bytes;
use dht::address::BLOCK_SIZE_BYTES_MAX;

/// Of a piece: the size of a frame, and of the groups that nodes hash. A segment that comes alone is a smaller one.
const PIECE_SIZE: usize = 32 * 1024;
const PROOF_SIZE: usize = 16;
/// What a file takes beside whole pages: its name in a directory, and its inode.
const NAME_BYTES: u64 = 512;
/// No file's number is beyond this, so that there is always a next one.
const NUMBER_MAX: u64 = u64::MAX / 2;
/// Files take whole pages.
const PAGE_BYTES: u64 = 4096;

/// A range of one block's bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct Extent {
    pub(super) address: [u8; 32],
    pub(super) start: u32,
    pub(super) end: u32,
}

impl Extent {
    /// Whether `range` lies within it.
    pub(super) fn covers(&self, range: &Range<u32>) -> bool {
        self.start <= range.start && range.end <= self.end && range.start < range.end
    }

    /// Returns what it takes on a disk.
    pub(super) fn disk_bytes(&self) -> u64 {
        let size = (self.end - self.start) as usize;
        let file = (size + size.div_ceil(PIECE_SIZE) * PROOF_SIZE) as u64;
        file.next_multiple_of(PAGE_BYTES) + NAME_BYTES
    }

    /// Returns a number that another extent hardly has: its block's name is a hash already.
    pub(super) fn hash(&self) -> u64 {
        let [a, b, c, d, e, f, g, h, ..] = self.address;
        u64::from_le_bytes([a, b, c, d, e, f, g, h])
            ^ u64::from(self.start).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }

    /// Returns its file's name; files are numbered in the order that they came.
    pub(super) fn file_name(&self, number: u64) -> String {
        let address: String = self.address.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("{number:016x}-{address}-{:08x}-{:08x}", self.start, self.end)
    }

    /// Reads a file's name; `None` if no entry is named so.
    pub(super) fn from_file_name(name: &str) -> Option<(u64, Extent)> {
        let mut parts = name.split('-');
        let mut hex = |length| {
            let part = parts.next()?;
            (part.len() == length && part.bytes().all(|byte| byte.is_ascii_hexdigit())).then_some(part)
        };
        let number = u64::from_str_radix(hex(16)?, 16).ok()?;
        let digits = hex(64)?;
        let mut address = [0; 32];
        for (index, byte) in address.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&digits[2 * index..2 * index + 2], 16).ok()?;
        }
        let start = u32::from_str_radix(hex(8)?, 16).ok()?;
        let end = u32::from_str_radix(hex(8)?, 16).ok()?;
        let fits = start < end && end as usize <= BLOCK_SIZE_BYTES_MAX && number <= NUMBER_MAX;
        let extent = Extent { address, start, end };
        // As it is written and no other way: its file is found again by what it holds.
        (fits && extent.file_name(number) == name).then_some((number, extent))
    }

    /// Returns the file's content.
    pub(super) fn seal(&self, key: &[u8; 32], bytes: &[u8]) -> Vec<u8> {
        let mut file = Vec::with_capacity(bytes.len() + bytes.len().div_ceil(PIECE_SIZE) * PROOF_SIZE);
        for (index, piece) in bytes.chunks(PIECE_SIZE).enumerate() {
            file.extend_from_slice(piece);
            file.extend_from_slice(&self.proof(key, index, piece));
        }
        file
    }

    /// Returns where in the file the pieces lie that `range` is in: the offset and how many bytes.
    pub(super) fn window(&self, range: &Range<u32>) -> (u64, usize) {
        let pieces = self.pieces(range);
        let offset = pieces.start * (PIECE_SIZE + PROOF_SIZE);
        let end = (pieces.end * PIECE_SIZE).min((self.end - self.start) as usize) + pieces.end * PROOF_SIZE;
        (offset as u64, end - offset)
    }

    /// Takes `range` out of what lies in its window, if that is what was sealed.
    pub(super) fn open(&self, key: &[u8; 32], range: &Range<u32>, window: Vec<u8>) -> Option<Bytes> {
        if window.len() != self.window(range).1 {
            return None;
        }
        let first = self.pieces(range).start;
        let mut bytes = Vec::with_capacity(window.len());
        for (index, sealed) in window.chunks(PIECE_SIZE + PROOF_SIZE).enumerate() {
            let (piece, proof) = sealed.split_last_chunk::<PROOF_SIZE>()?;
            if self.proof(key, first + index, piece) != *proof {
                return None;
            }
            bytes.extend_from_slice(piece);
        }
        let skipped = (range.start - self.start) as usize - first * PIECE_SIZE;
        let length = (range.end - range.start) as usize;
        // Whoever keeps a small part must not keep all that was read for it.
        Some(match length * 2 < bytes.len() {
            true => Bytes::copy_from_slice(&bytes[skipped..skipped + length]),
            false => Bytes::from(bytes).slice(skipped..skipped + length),
        })
    }

    fn pieces(&self, range: &Range<u32>) -> Range<usize> {
        let start = (range.start - self.start) as usize / PIECE_SIZE;
        start..((range.end - self.start) as usize).div_ceil(PIECE_SIZE)
    }

    fn proof(&self, key: &[u8; 32], index: usize, piece: &[u8]) -> [u8; PROOF_SIZE] {
        let mut hasher = blake3::Hasher::new_keyed(key);
        hasher.update(&self.address);
        for number in [self.start, self.end, index as u32] {
            hasher.update(&number.to_le_bytes());
        }
        let hash = hasher.update(piece).finalize();
        let mut proof = [0; PROOF_SIZE];
        proof.copy_from_slice(&hash.as_bytes()[..PROOF_SIZE]);
        proof
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: [u8; 32] = [7; 32];

    fn extent(start: u32, length: u32) -> Extent {
        Extent { address: [0xab; 32], start, end: start + length }
    }

    fn content(extent: &Extent) -> Vec<u8> {
        (extent.start..extent.end).map(|at| (at * 31 / 7) as u8).collect()
    }

    fn read(extent: &Extent, file: &[u8], range: &Range<u32>) -> Option<Bytes> {
        let (offset, length) = extent.window(range);
        extent.open(&KEY, range, file.get(offset as usize..offset as usize + length)?.to_vec())
    }

    #[test]
    fn any_range_of_an_entry_is_read_back() {
        for extent in [extent(0, 1), extent(17, 32 * 1024), extent(100, 100_000)] {
            let (content, file) = (content(&extent), extent.seal(&KEY, &content(&extent)));
            let ends = [extent.start + 1, extent.start + 32_768, extent.start + 32_769, extent.end];
            for end in ends.into_iter().filter(|end| *end <= extent.end) {
                for start in
                    [extent.start, extent.start + 40_000, end - 1].into_iter().filter(|start| *start < end)
                {
                    let expected = &content[(start - extent.start) as usize..(end - extent.start) as usize];
                    assert_eq!(
                        read(&extent, &file, &(start..end)).unwrap(),
                        expected,
                        "{extent:?} {start}..{end}"
                    );
                }
            }
            assert!(file.len() as u64 <= extent.disk_bytes());
        }
    }

    #[test]
    fn a_flipped_bit_or_a_torn_file_or_anothers_file_proves_nothing() {
        let extent = extent(100, 70_000);
        let file = extent.seal(&KEY, &content(&extent));
        let all = extent.start..extent.end;
        for at in [0, 32_767, 32_768, 32_783, 32_784, file.len() - 1] {
            let mut flipped = file.clone();
            flipped[at] ^= 1;
            assert_eq!(read(&extent, &flipped, &all), None, "{at}");
        }
        assert_eq!(read(&extent, &file[..file.len() - 1], &all), None);
        assert_eq!(read(&Extent { address: [0xac; 32], ..extent }, &file, &all), None);
        assert_eq!(extent.open(&[8; 32], &all, file.clone()), None);
        // A piece in another's place.
        let mut moved = file.clone();
        moved.copy_within(32_784..2 * 32_784, 0);
        assert_eq!(read(&extent, &moved, &(100..101)), None);
        assert!(read(&extent, &moved, &(100 + 32_768..100 + 32_769)).is_some());
    }

    #[test]
    fn names_are_read_back_and_others_are_none() {
        let extent = extent(3, 500);
        let name = extent.file_name(77);
        assert_eq!(Extent::from_file_name(&name), Some((77, extent)));
        let wrong = [
            String::new(),
            name[1..].to_owned(),
            format!("{name}-1"),
            name.replace("ab", "xy"),
            Extent { end: 3, ..extent }.file_name(1),
            Extent { end: u32::MAX, ..extent }.file_name(1),
            "é".repeat(40),
            name.to_uppercase(),
            extent.file_name(u64::MAX),
        ];
        for name in wrong {
            assert_eq!(Extent::from_file_name(&name), None, "{name}");
        }
    }
}
