//! The record of an inode: what `stat` shows, and what merges and later versions need to know.
//!
//! `2, kind u8, frame exponent u8, reserved u8`, then `mode, uid, gid, nlink, rdev, flags, project` (u32 each),
//! `size, frames, parent, content writer, content counter` (u64 each), and four times (`atime, mtime, ctime, btime`:
//! seconds i64, nanoseconds u32). What follows was written by a later version, and is kept.

use bytes::Bytes;

use super::{FRAME_SIZE, FRAME_SIZE_MAX};
use crate::operations::{Attributes, FileKind, Inode, Time};

/// Which state of its content a file is in: who changed it last, and a count that grows with each change.
///
/// Two mounts that start from one version and write both arrive at different ones, whatever they wrote; attributes
/// alone (`chmod`, `touch`) leave it as it is. That is how a merge knows that both sides changed a file.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct ContentVersion {
    /// The session that wrote last, one opening of the volume; 0 if nobody has written yet.
    pub writer: u64,
    /// Is greater with each change by anyone.
    pub counter: u64,
}

/// What the tree keeps of a node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct InodeRecord {
    /// What it is.
    pub kind: FileKind,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Names, or for a directory 2 and its sub-directories; 0 once it is removed.
    pub nlink: u32,
    /// Device number.
    pub rdev: u32,
    /// File flags as `chattr` sets them (`FS_IMMUTABLE_FL` and so on).
    pub flags: u32,
    /// Project, for quotas.
    pub project: u32,
    /// Bytes of content.
    pub size: u64,
    /// Frames that are no holes.
    pub frames: u64,
    /// The directory that it was last named in: `..` for a directory, a hint for others.
    pub parent: u64,
    /// The state of its content.
    pub content: ContentVersion,
    /// The binary logarithm of its frames' size in bytes; 0: the usual [`FRAME_SIZE`].
    pub frame_exponent: u8,
    /// Access time.
    pub atime: Time,
    /// Modification time.
    pub mtime: Time,
    /// Change time.
    pub ctime: Time,
    /// Birth time.
    pub btime: Time,
    /// What a later version added: kept and written back as it came.
    pub tail: Bytes,
}

/// Frames of a file are no smaller: a page.
const FRAME_EXPONENT_MIN: u8 = 12;
/// Frames of a file are no larger than [`FRAME_SIZE_MAX`]: it bounds what one read decrypts and one write copies.
const FRAME_EXPONENT_MAX: u8 = FRAME_SIZE_MAX.ilog2() as u8;

/// Bytes of an encoded [`InodeRecord`] without a tail.
pub const INODE_RECORD_SIZE: usize = 4 + 7 * 4 + 5 * 8 + 4 * 12;

impl InodeRecord {
    /// Returns a node that begins at `now`: no name, no owner, no content.
    pub fn new(kind: FileKind, now: Time) -> InodeRecord {
        InodeRecord {
            kind,
            mode: 0,
            uid: 0,
            gid: 0,
            nlink: if kind == FileKind::Directory { 2 } else { 1 },
            rdev: 0,
            flags: 0,
            project: 0,
            size: 0,
            frames: 0,
            parent: 0,
            content: ContentVersion::default(),
            frame_exponent: 0,
            atime: now,
            mtime: now,
            ctime: now,
            btime: now,
            tail: Bytes::new(),
        }
    }

    /// Writes the record.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&[2, self.kind as u8, self.frame_exponent, 0]);
        for number in [self.mode, self.uid, self.gid, self.nlink, self.rdev, self.flags, self.project] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        for number in [self.size, self.frames, self.parent, self.content.writer, self.content.counter] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        for time in [self.atime, self.mtime, self.ctime, self.btime] {
            out.extend_from_slice(&time.seconds.to_le_bytes());
            out.extend_from_slice(&time.nanoseconds.to_le_bytes());
        }
        out.extend_from_slice(&self.tail);
    }

    /// Reads a record; its tail shares `bytes`.
    pub fn decode(bytes: &Bytes) -> Option<InodeRecord> {
        if bytes.len() < INODE_RECORD_SIZE || bytes[0] != 2 {
            return None;
        }
        if bytes[2] != 0 && !(FRAME_EXPONENT_MIN..=FRAME_EXPONENT_MAX).contains(&bytes[2]) {
            return None;
        }
        let small = |index: usize| {
            u32::from_le_bytes(bytes[4 + index * 4..8 + index * 4].try_into().unwrap_or_default())
        };
        let at_u64 = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap_or_default());
        let large = |index: usize| at_u64(32 + index * 8);
        let time = |index: usize| {
            let at = 72 + index * 12;
            let nanoseconds = u32::from_le_bytes(bytes[at + 8..at + 12].try_into().unwrap_or_default());
            Time { seconds: at_u64(at) as i64, nanoseconds: nanoseconds.min(999_999_999) }
        };
        Some(InodeRecord {
            kind: FileKind::from_byte(bytes[1])?,
            frame_exponent: bytes[2],
            mode: small(0) & 0o7777,
            uid: small(1),
            gid: small(2),
            nlink: small(3),
            rdev: small(4),
            flags: small(5),
            project: small(6),
            size: large(0),
            frames: large(1),
            parent: large(2),
            content: ContentVersion { writer: large(3), counter: large(4) },
            atime: time(0),
            mtime: time(1),
            ctime: time(2),
            btime: time(3),
            tail: match bytes.len() {
                INODE_RECORD_SIZE => Bytes::new(),
                _ => bytes.slice(INODE_RECORD_SIZE..),
            },
        })
    }

    /// Returns how many bytes of the file one frame holds.
    pub fn frame_size(&self) -> u64 {
        match self.frame_exponent {
            0 => FRAME_SIZE as u64,
            exponent => 1 << exponent,
        }
    }

    /// Returns what `stat` shows of it.
    pub fn attributes(&self, inode: u64) -> Attributes {
        let frame_blocks = self.frames.saturating_mul(self.frame_size() / 512);
        Attributes {
            inode: Inode(inode),
            kind: self.kind,
            mode: self.mode,
            uid: self.uid,
            gid: self.gid,
            nlink: self.nlink,
            size: self.size,
            // The last frame is rarely full, and what `du` shows should be near what was written.
            blocks_512: frame_blocks.min(self.size.div_ceil(4096).saturating_mul(8)),
            atime: self.atime,
            mtime: self.mtime,
            ctime: self.ctime,
            btime: self.btime,
            rdev: self.rdev,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> InodeRecord {
        let time = |seconds| Time { seconds, nanoseconds: 7 };
        InodeRecord {
            kind: FileKind::Symlink,
            mode: 0o4755,
            uid: 1,
            gid: 2,
            nlink: 3,
            rdev: 4,
            flags: 5,
            project: 6,
            size: 7,
            frames: 8,
            parent: 9,
            content: ContentVersion { writer: 10, counter: 11 },
            frame_exponent: 12,
            atime: time(-5),
            mtime: time(13),
            ctime: time(14),
            btime: time(15),
            tail: Bytes::new(),
        }
    }

    #[test]
    fn a_record_survives_encoding() {
        let mut bytes = Vec::new();
        record().encode(&mut bytes);
        assert_eq!(bytes.len(), INODE_RECORD_SIZE);
        assert_eq!(InodeRecord::decode(&bytes.into()), Some(record()));
    }

    #[test]
    fn what_a_later_version_added_is_kept() {
        let mut bytes = Vec::new();
        record().encode(&mut bytes);
        bytes.extend_from_slice(b"of later years");
        let mut read = InodeRecord::decode(&Bytes::from(bytes.clone())).unwrap();
        let mut written = Vec::new();
        read.encode(&mut written);
        assert_eq!(written, bytes);
        read.tail = Bytes::new();
        assert_eq!(read, record());
    }

    #[test]
    fn a_short_record_or_another_version_is_refused() {
        let mut bytes = Vec::new();
        record().encode(&mut bytes);
        for size in 0..bytes.len() {
            assert_eq!(InodeRecord::decode(&Bytes::copy_from_slice(&bytes[..size])), None);
        }
        for (at, byte) in [(0, 1), (2, 11), (2, 18)] {
            let mut bytes = bytes.clone();
            bytes[at] = byte;
            assert_eq!(InodeRecord::decode(&bytes.into()), None);
        }
    }
}
