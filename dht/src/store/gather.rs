//! A value in pieces, so that a header and a payload are stored as one without being copied together first.
//!
//! It is not a rope: pieces are only ever written out in order, or joined once for a reader.

use bytes::{Bytes, BytesMut};
use smallvec::SmallVec;
use std::ops::Range;

/// A value to store, in one or more pieces.
///
/// # Examples
///
/// ```
/// use dht::store::Gather;
/// let value: Gather = [&b"head"[..], &b"body"[..]].into_iter().map(bytes::Bytes::from_static).collect();
/// assert_eq!(value.length_bytes(), 8);
/// assert_eq!(value.to_bytes(), "headbody");
/// ```
#[derive(Clone, Debug, Default)]
pub struct Gather {
    pieces: SmallVec<[Bytes; 2]>,
}

impl Gather {
    /// The pieces, in order.
    pub fn pieces(&self) -> &[Bytes] {
        &self.pieces
    }

    /// The length of all pieces together.
    pub fn length_bytes(&self) -> usize {
        self.pieces.iter().map(Bytes::len).sum()
    }

    /// The whole value; copies nothing if it is in one piece.
    pub fn to_bytes(&self) -> Bytes {
        match &self.pieces[..] {
            [] => Bytes::new(),
            [one] => one.clone(),
            many => {
                let mut joined = BytesMut::with_capacity(self.length_bytes());
                many.iter().for_each(|piece| joined.extend_from_slice(piece));
                joined.freeze()
            }
        }
    }

    /// The part `range` of the value, cut off at its end; copies nothing if it lies within one piece.
    pub fn slice(&self, range: Range<usize>) -> Bytes {
        let end = range.end.min(self.length_bytes());
        let start = range.start.min(end);
        let mut begin = 0;
        let mut joined = BytesMut::new();
        for piece in &self.pieces {
            let (from, to) = (start.max(begin), end.min(begin + piece.len()));
            if from < to {
                let part = piece.slice(from - begin..to - begin);
                if part.len() == end - start {
                    return part;
                }
                joined.extend_from_slice(&part);
            }
            begin += piece.len();
        }
        joined.freeze()
    }
}

impl From<Bytes> for Gather {
    fn from(whole: Bytes) -> Gather {
        Gather { pieces: SmallVec::from_iter([whole]) }
    }
}

impl From<Vec<u8>> for Gather {
    fn from(whole: Vec<u8>) -> Gather {
        Bytes::from(whole).into()
    }
}

impl FromIterator<Bytes> for Gather {
    fn from_iter<I: IntoIterator<Item = Bytes>>(pieces: I) -> Gather {
        Gather { pieces: pieces.into_iter().collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn three() -> Gather {
        ["ab", "cde", "f"].map(Bytes::from).into_iter().collect()
    }

    #[test]
    fn every_slice_equals_the_slice_of_the_whole() {
        let whole = three().to_bytes();
        for start in 0..8 {
            for end in start..9 {
                let expected = whole.slice(start.min(6)..end.min(6));
                assert_eq!(three().slice(start..end), expected, "{start}..{end}");
            }
        }
    }

    #[test]
    fn one_piece_is_handed_out_without_a_copy() {
        let piece = Bytes::from(vec![1_u8; 100]);
        let gather = Gather::from(piece.clone());
        assert_eq!(gather.to_bytes().as_ptr(), piece.as_ptr());
        assert_eq!(gather.slice(10..20).as_ptr(), piece[10..].as_ptr());
    }
}
