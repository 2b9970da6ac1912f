//! The part of a segment that a scan holds in memory; and places that the disk cannot read, which are zeros to it.

use super::{device::is_unreadable, scan::Source};
use std::io;

/// How much of a file is held in memory while scanning it: several of the largest records.
const WINDOW_BYTES: usize = 8 << 20;
/// What is read at a time where larger reads fail: the sector of a large disk.
const SECTOR_BYTES: u64 = 4 << 10;

/// Reads a source from its start to its end.
pub(crate) struct Window<'a, S: Source + ?Sized> {
    source: &'a S,
    length: u64,
    start: u64,
    bytes: Vec<u8>,
    unreadable_end: u64,
}

impl<'a, S: Source + ?Sized> Window<'a, S> {
    /// The first `length` bytes of `source`.
    pub(crate) fn new(source: &'a S, length: u64) -> Window<'a, S> {
        Window { source, length, start: 0, bytes: Vec::new(), unreadable_end: 0 }
    }

    /// How long it is.
    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    /// Behind the last place that could not be read; 0 if all could.
    pub(crate) fn unreadable_end(&self) -> u64 {
        self.unreadable_end
    }

    /// The bytes of `offset..offset + count`, or as many of them as there are.
    pub(crate) fn at(&mut self, offset: u64, count: usize) -> io::Result<&[u8]> {
        let count = count.min(self.length.saturating_sub(offset) as usize);
        if count == 0 {
            return Ok(&[]);
        }
        if offset < self.start || offset + count as u64 > self.start + self.bytes.len() as u64 {
            let fill = self.length.saturating_sub(offset).min(WINDOW_BYTES.max(count) as u64) as usize;
            self.bytes.resize(fill, 0);
            self.start = offset;
            match self.source.read_at(&mut self.bytes, offset) {
                Err(error) if is_unreadable(&error) => self.fill_by_sectors()?,
                result => result?,
            }
        }
        let from = (offset - self.start) as usize;
        Ok(&self.bytes[from..from + count])
    }

    fn fill_by_sectors(&mut self) -> io::Result<()> {
        let end = self.start + self.bytes.len() as u64;
        let mut from = self.start;
        while from < end {
            let to = (from / SECTOR_BYTES + 1).saturating_mul(SECTOR_BYTES).min(end);
            let sector = &mut self.bytes[(from - self.start) as usize..(to - self.start) as usize];
            // Once more: what fails once may have been a passing fault.
            let read = self.source.read_at(sector, from).or_else(|_| self.source.read_at(sector, from));
            match read {
                Err(error) if is_unreadable(&error) => {
                    sector.fill(0);
                    self.unreadable_end = self.unreadable_end.max(to);
                }
                result => result?,
            }
            from = to;
        }
        Ok(())
    }
}
