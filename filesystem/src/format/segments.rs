//! Segments: the parts of a frame that are sealed, fetched and verified apart.
//!
//! A frame is what a key and a pointer are kept for; a random read wants 4 KiB of it. So a frame is sealed in segments of that
//! size under the frame's key, each with a nonce and a tag of its own, and all its tags lie in the pointer: whoever has the
//! pointer can take any segment and nothing beside it, and prove that it is this one. A pointer holds eight tags at the
//! most, so that frames of more than 32 KiB have larger segments.
//!
//! All else (nodes, and what earlier versions wrote) is sealed in one piece.

use super::{Pointer, SEGMENT_SIZE};

/// Tags that a pointer has at the most: those of a frame of the usual size.
pub const SEGMENT_COUNT_MAX: usize = 8;

/// What proves a chunk untouched: a tag for each of its segments, or one for all of it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Tags {
    /// Of the segments' size; 0 if it is sealed in one piece.
    exponent: u8,
    count: u8,
    tags: [[u8; 16]; SEGMENT_COUNT_MAX],
}

impl Tags {
    /// Of a chunk that is sealed in one piece.
    pub const fn whole(tag: [u8; 16]) -> Tags {
        let mut tags = [[0; 16]; SEGMENT_COUNT_MAX];
        tags[0] = tag;
        Tags { exponent: 0, count: 1, tags }
    }

    /// None yet, of a chunk that takes `length` bytes and is sealed in segments.
    pub fn of_segments(length: usize) -> Tags {
        let mut exponent = SEGMENT_SIZE.trailing_zeros() as u8;
        while length > SEGMENT_COUNT_MAX << exponent {
            exponent += 1;
        }
        Tags { exponent, count: 0, tags: [[0; 16]; SEGMENT_COUNT_MAX] }
    }

    /// Adds the next segment's.
    ///
    /// # Panics
    ///
    /// If it has all already.
    pub fn push(&mut self, tag: [u8; 16]) {
        self.tags[usize::from(self.count)] = tag;
        self.count += 1;
    }

    /// Returns them, in order.
    pub fn as_slice(&self) -> &[[u8; 16]] {
        &self.tags[..usize::from(self.count)]
    }

    /// Returns how many bytes a segment takes, but perhaps the last; `None` if it is sealed in one piece.
    pub fn segment_size(&self) -> Option<usize> {
        (self.exponent > 0).then(|| 1 << self.exponent)
    }

    /// Returns how a pointer names this way to seal: segments of 2^(8 + n) bytes are 16 n.
    pub(super) fn algorithm(&self) -> u8 {
        if self.exponent == 0 { 0 } else { (self.exponent - 8) << 4 }
    }

    /// Takes the tags of a chunk that is sealed in this way and takes `length` bytes from the front of `bytes`.
    pub(super) fn decode(algorithm: u8, length: usize, bytes: &[u8]) -> Option<(Tags, &[u8])> {
        let mut tags = Tags::of_segments(length);
        let mut count = 1;
        if algorithm == 0 {
            tags.exponent = 0;
        } else if tags.algorithm() == algorithm {
            count = length.div_ceil(1 << tags.exponent);
        } else {
            return None;
        }
        let (encoded, rest) = bytes.split_at_checked(count * 16)?;
        encoded.as_chunks().0.iter().for_each(|tag| tags.push(*tag));
        Some((tags, rest))
    }
}

/// What is fetched, opened and kept in memory as one: a chunk, or a segment of one.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    pointer: Pointer,
    /// Which segment; `None` for the whole.
    segment: Option<u8>,
}

impl From<Pointer> for Piece {
    fn from(pointer: Pointer) -> Piece {
        Piece { pointer, segment: None }
    }
}

impl std::fmt::Debug for Piece {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", self.pointer)?;
        self.segment.map_or(Ok(()), |segment| write!(f, "#{segment}"))
    }
}

impl Piece {
    /// Returns what has to be here for a read of bytes `start..end` of the content: segments if those are less than half of
    /// the whole, which else is sought and opened at once, and next to always read on.
    pub fn covering(pointer: &Pointer, start: usize, end: usize) -> impl Iterator<Item = Piece> + use<> {
        let size = pointer.tags.segment_size().unwrap_or(usize::MAX);
        let segments = start / size..end.div_ceil(size).min(usize::from(pointer.tags.count));
        let is_part = segments.len() * 2 < usize::from(pointer.tags.count);
        let wanted = if is_part { segments } else { 0..1 };
        let pointer = *pointer;
        wanted.map(move |index| Piece { pointer, segment: is_part.then_some(index as u8) })
    }

    /// Returns the chunk that it is, or is of.
    pub fn pointer(&self) -> &Pointer {
        &self.pointer
    }

    /// Whether it is a segment, and not the chunk.
    pub fn is_segment(&self) -> bool {
        self.segment.is_some()
    }

    /// Returns where in the chunk's content it begins.
    pub fn start(&self) -> usize {
        self.segment.map_or(0, |index| usize::from(index) << self.pointer.tags.exponent)
    }

    /// Returns where in the object its sealed bytes begin.
    pub fn offset(&self) -> u32 {
        self.pointer.offset + self.start() as u32
    }

    /// Returns how many sealed bytes there are.
    pub fn length(&self) -> u32 {
        self.share(self.pointer.length)
    }

    /// Returns how many of them are content.
    pub fn size(&self) -> u32 {
        self.share(self.pointer.size)
    }

    fn share(&self, whole: u32) -> u32 {
        match self.segment {
            None => whole,
            Some(_) => whole.saturating_sub(self.start() as u32).min(1 << self.pointer.tags.exponent),
        }
    }

    /// Returns which segments it has, of how many; the chunk is one piece if it is not sealed in segments.
    pub(crate) fn segments(&self) -> std::ops::Range<usize> {
        self.segment.map_or(0..usize::from(self.pointer.tags.count), |index| {
            usize::from(index)..usize::from(index) + 1
        })
    }

    /// Returns the first of its tags.
    pub(crate) fn tag(&self) -> [u8; 16] {
        self.pointer.tags.tags[self.segments().start]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::padded_size;

    fn frame(size: u32) -> Pointer {
        let length = padded_size(size as usize) as u32;
        let mut tags = Tags::of_segments(length as usize);
        for index in 0..(length as usize).div_ceil(tags.segment_size().unwrap()) {
            tags.push([index as u8; 16]);
        }
        Pointer { length, size, tags, ..Pointer::example([1; 32], 32_768, 64) }
    }

    fn covering(pointer: &Pointer, start: usize, end: usize) -> Vec<(u32, u32, u32)> {
        Piece::covering(pointer, start, end)
            .map(|piece| (piece.offset(), piece.length(), piece.size()))
            .collect()
    }

    #[test]
    fn a_small_read_takes_the_segments_that_it_touches_and_a_large_one_the_frame() {
        let full = frame(32_768);
        assert_eq!(covering(&full, 4096, 8192), [(36_864, 4096, 4096)]);
        assert_eq!(covering(&full, 8191, 8193), [(36_864, 4096, 4096), (40_960, 4096, 4096)]);
        assert_eq!(covering(&full, 32_767, 32_768), [(61_440, 4096, 4096)]);
        assert_eq!(covering(&full, 0, 16_384), [(32_768, 32_768, 32_768)]);
        assert_eq!(covering(&full, 4095, 12_289), [(32_768, 32_768, 32_768)]);
        let short = frame(17_000);
        assert_eq!(covering(&short, 16_384, 17_000), [(49_152, 2048, 616)]);
        let one = frame(3000);
        assert_eq!(covering(&one, 0, 1), [(32_768, 3072, 3000)]);
        let whole = Pointer { tags: Tags::whole([0; 16]), ..full };
        assert_eq!(covering(&whole, 4096, 8192), [(32_768, 32_768, 32_768)]);
    }

    #[test]
    fn no_frame_has_more_tags_than_a_pointer_holds() {
        for size in [1, 2049, 4096, 4097, 32_768, 32_769, 65_536, 65_537, 131_072] {
            let pointer = frame(size);
            let tags = pointer.tags;
            assert!((1..=SEGMENT_COUNT_MAX).contains(&tags.as_slice().len()), "{size}");
            assert!(tags.segment_size().unwrap() * tags.as_slice().len() >= pointer.length as usize);
            let mut bytes = tags.as_slice().concat();
            bytes.push(9);
            let decoded = Tags::decode(tags.algorithm(), pointer.length as usize, &bytes);
            assert_eq!(decoded.map(|(tags, rest)| (tags == pointer.tags, rest)), Some((true, &[9][..])));
        }
        assert_eq!(frame(131_072).tags.segment_size(), Some(16_384));
        assert!(Tags::decode(0x50, 32_768, &[0; 256]).is_none(), "one way for one length");
        assert!(Tags::decode(0x40, 32_768, &[0; 127]).is_none());
    }
}
