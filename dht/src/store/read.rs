//! Reading one record, or a part of one, and verifying what was read.
//!
//! Blocking and not: the same plan is tried first against the system's page cache (`RWF_NOWAIT`), on the reactor's
//! thread, and only if that misses on a thread of the pool.

use super::{
    Key,
    device::{DiskFile, is_unreadable},
    format::{self, CHUNK_BYTES, Place, RECORD_HEADER_BYTES, Shape},
    index::Entry,
    tables::Table,
};
use bytes::Bytes;
use smallvec::{SmallVec, smallvec};
use std::{io, ops::Range};

/// What lies before the value of the largest block, and a little more.
const HEAD_BYTES_USUAL: usize = 1280;

/// What to read.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) key: Key,
    pub(crate) entry: Entry,
    pub(crate) salt: u64,
    /// The wanted part, within the value.
    pub(crate) range: Range<usize>,
    /// The table of this very record, if it is remembered: then what lies before the value is not read.
    pub(crate) table: Option<Table>,
}

/// What was read, and verified.
#[derive(Debug)]
pub(crate) struct Part {
    pub(crate) bytes: Bytes,
    /// The table that it was verified by, where that was read for a part of the value.
    pub(crate) table: Option<Table>,
}

/// Why there is nothing to hand out.
#[derive(Debug)]
pub(crate) enum Miss {
    /// Not in the page cache.
    WouldBlock,
    /// Not what the index says.
    Damaged,
    /// The disk has lost it; perhaps not for ever.
    Unreadable,
    Io(io::Error),
}

impl From<io::Error> for Miss {
    fn from(error: io::Error) -> Miss {
        match error.kind() {
            io::ErrorKind::WouldBlock => Miss::WouldBlock,
            // The file is shorter than the index says.
            io::ErrorKind::UnexpectedEof => Miss::Damaged,
            _ if is_unreadable(&error) => Miss::Unreadable,
            _ => Miss::Io(error),
        }
    }
}

impl Plan {
    /// A plan to read all of a record, what lies before its value included.
    pub(crate) fn whole(key: &Key, entry: &Entry, salt: u64) -> Plan {
        Plan { key: *key, entry: *entry, salt, range: 0..entry.length as usize, table: None }
    }

    /// How many bytes have to be read.
    pub(crate) fn bytes(&self) -> usize {
        let head = if self.table.is_some() { 0 } else { format::value_offset(self.entry.length) };
        head + self.chunks().len()
    }

    /// The wanted part, widened to whole checksummed chunks.
    fn chunks(&self) -> Range<usize> {
        let length = self.entry.length as usize;
        if format::table_count(self.entry.length) == 0 {
            return 0..length;
        }
        let start = self.range.start / CHUNK_BYTES * CHUNK_BYTES;
        start..self.range.end.next_multiple_of(CHUNK_BYTES).min(length).max(start)
    }

    /// Reads from memory only: the page cache, or a file system that lives there.
    pub(crate) fn try_read(&self, file: &dyn DiskFile) -> Result<Part, Miss> {
        match self.read_with(|buffer, offset| file.read_cached_at(buffer, offset)) {
            // Once more, by a thread that can wait for the disk to try harder.
            Err(Miss::Unreadable) => Err(Miss::WouldBlock),
            read => read,
        }
    }

    /// Reads, and waits for the disk; twice, if the disk fails at first.
    pub(crate) fn read(&self, file: &dyn DiskFile) -> Result<Part, Miss> {
        let read = || self.read_with(|buffer, offset| file.read_at(buffer, offset));
        match read() {
            Err(Miss::Unreadable) => read(),
            read => read,
        }
    }

    fn read_with(&self, read: impl Fn(&mut [u8], u64) -> io::Result<()>) -> Result<Part, Miss> {
        let Entry { offset, length, .. } = self.entry;
        let head_bytes = format::value_offset(length);
        let chunks = self.chunks();
        let body_at = u64::from(offset) + (head_bytes + chunks.start) as u64;
        let within = self.range.start - chunks.start..self.range.end - chunks.start;
        if let Some(table) = &self.table {
            let mut body = vec![0; chunks.len()];
            read(&mut body, body_at)?;
            return match table.verifies(chunks.start / CHUNK_BYTES, &body) {
                true => Ok(Part { bytes: Bytes::from(body).slice(within), table: None }),
                false => Err(Miss::Damaged),
            };
        }
        let is_part = chunks.len() < length as usize;
        let verified = |head: &[u8]| is_part.then(|| Table::of_verified(&head[RECORD_HEADER_BYTES..]));
        if chunks.start == 0 {
            let mut buffer = vec![0; self.bytes()];
            read(&mut buffer, u64::from(offset))?;
            let (head, body) = buffer.split_at(head_bytes);
            self.verify(head, chunks, body)?;
            let table = verified(head);
            let start = head_bytes + self.range.start;
            let bytes = Bytes::from(buffer).slice(start..start + self.range.len());
            return Ok(Part { bytes, table });
        }
        // Apart: whoever keeps a small part should not keep the table with it.
        let mut head: SmallVec<[u8; HEAD_BYTES_USUAL]> = smallvec![0; head_bytes];
        read(&mut head, u64::from(offset))?;
        let mut body = vec![0; chunks.len()];
        read(&mut body, body_at)?;
        self.verify(&head, chunks, &body)?;
        Ok(Part { bytes: Bytes::from(body).slice(within), table: verified(&head) })
    }

    /// Checks that `body` is what lies in the bytes `chunks` of the value, and `head` what lies before the value.
    fn verify(&self, head: &[u8], chunks: Range<usize>, body: &[u8]) -> Result<(), Miss> {
        let Entry { segment, offset, length, .. } = self.entry;
        let place = Place { salt: self.salt, segment, offset };
        let header = format::decode_record_header(place, head).ok_or(Miss::Damaged)?;
        if (header.key, header.length, header.shape) != (self.key, length, Shape::Value) {
            return Err(Miss::Damaged);
        }
        let is_sound = match &head[RECORD_HEADER_BYTES..] {
            [] => crc32c::crc32c(body) == header.check,
            table => {
                crc32c::crc32c(table) == header.check
                    && format::verify_chunks(table, chunks.start / CHUNK_BYTES, body)
            }
        };
        if is_sound { Ok(()) } else { Err(Miss::Damaged) }
    }
}
