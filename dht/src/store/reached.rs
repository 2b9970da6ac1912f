//! How far the log reached, said beside it: what a segment cannot say of itself once its end is gone.
//!
//! Each record says how much before it is durable, and each segment where the one before it ended. So whatever is
//! missing before the last record is damage; but if the file itself is shorter than it was (a file system that lost its
//! last extent, a copy that was cut off, a hand that slipped), what is left looks like a log that ended there, and the
//! node would vote as if it had promised nothing since. The file `end` names the newest segment and its durable end. It is
//! written after each sync that nothing follows, and not synced itself: after the death of the process it is still there,
//! and after that of the system it is older at worst, and only certainty is lost.
//!
//! | bytes | | |
//! | --- | --- | --- |
//! | 0 | 8 | `HYPHAEND` |
//! | 8 | 4 | version, 1 |
//! | 12 | 4 | the segment's number |
//! | 16 | 8 | salt of the store |
//! | 24 | 4 | where it ended, durably |
//! | 28 | 4 | CRC-32C of bytes 0..28 |

use super::{
    device::{DiskFile, Opening, write_all},
    directory::Directory,
    format::{SEGMENT_HEADER_BYTES, u32_at, u64_at},
};
use std::{io::IoSlice, sync::Arc};

const MAGIC: [u8; 8] = *b"HYPHAEND";
const VERSION: u32 = 1;
const BYTES: usize = 32;

/// A place in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reached {
    pub(crate) segment: u32,
    pub(crate) end: u32,
}

/// The file.
#[derive(Debug)]
pub(crate) struct ReachedFile {
    /// `None` where it cannot be had: the store is as good without it.
    file: Option<Arc<dyn DiskFile>>,
    salt: u64,
}

impl ReachedFile {
    pub(crate) fn open(directory: &Directory, salt: u64) -> ReachedFile {
        let file = directory.disk().open(&directory.path().join("end"), Opening::Create);
        ReachedFile { file: file.ok(), salt }
    }

    /// What was written last, if that is whole and of this store.
    pub(crate) fn read(&self) -> Option<Reached> {
        let mut bytes = [0; BYTES];
        self.file.as_ref()?.read_at(&mut bytes, 0).ok()?;
        // An empty segment has nothing to lose, and may have been removed again.
        decode(&bytes, self.salt).filter(|reached| reached.end > SEGMENT_HEADER_BYTES as u32)
    }

    /// Says that everything before that place is durable, which it is.
    pub(crate) fn write(&self, reached: Reached) {
        if let Some(file) = &self.file {
            // Only a help; a full disk may refuse it.
            let _ = write_all(&**file, &mut [IoSlice::new(&encode(&reached, self.salt))], 0);
        }
    }
}

fn encode(reached: &Reached, salt: u64) -> [u8; BYTES] {
    let mut bytes = [0; BYTES];
    bytes[..8].copy_from_slice(&MAGIC);
    bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
    bytes[12..16].copy_from_slice(&reached.segment.to_le_bytes());
    bytes[16..24].copy_from_slice(&salt.to_le_bytes());
    bytes[24..28].copy_from_slice(&reached.end.to_le_bytes());
    let crc = crc32c::crc32c(&bytes[..28]);
    bytes[28..].copy_from_slice(&crc.to_le_bytes());
    bytes
}

fn decode(bytes: &[u8; BYTES], salt: u64) -> Option<Reached> {
    let is_ours = bytes[..8] == MAGIC
        && u32_at(bytes, 28) == crc32c::crc32c(&bytes[..28])
        && (u32_at(bytes, 8), u64_at(bytes, 16)) == (VERSION, salt);
    is_ours.then(|| Reached { segment: u32_at(bytes, 12), end: u32_at(bytes, 24) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_word_of_the_same_store_is_taken() {
        let reached = Reached { segment: 3, end: 4096 };
        let bytes = encode(&reached, 7);
        assert_eq!((decode(&bytes, 7), decode(&bytes, 8)), (Some(reached), None));
        for bit in 0..BYTES * 8 {
            let mut flipped = bytes;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(decode(&flipped, 7), None, "bit {bit}");
        }
    }
}
