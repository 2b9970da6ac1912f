//! The helper thread's work: writing groups of records to the newest segment, one sync a group.
//!
//! Plain blocking code over a queue, so that it needs no reactor: the thread that waits for the disk is not the one
//! that runs coroutines. What it decides:
//!
//! - a *group* is whatever has gathered in the queue while the last one was being synced, up to a size;
//! - a record that no longer fits begins a new segment; the old one is synced, cut to its length and given its
//!   checkpoint first;
//! - if a record cannot be written, neither is any that was queued before the news of it was delivered (their
//!   `epoch` tells), so that the log never has a hole in it.
//!
//! On a full disk a removal or a compaction's copy may use the space of the reserve (see `reserve.rs`); values are
//! refused until the reserve is whole again.

use super::{
    Gather, Key, StoreError,
    checkpoint::{self, Listing},
    device::{DiskFile, Opening, write_all},
    directory::Directory,
    format::{self, Place, RecordHeader, SEGMENT_HEADER_BYTES, Shape},
    reserve::Reserve,
    scan::{Listed, Scanned},
};
use bytes::Bytes;
use std::{
    collections::{HashMap, VecDeque},
    io::{self, IoSlice},
    ops::Range,
    sync::Arc,
};

/// The most bytes in one group: some 20 ms of a fast disk, so that a small write never waits longer behind big ones.
const GROUP_BYTES_MAX: u64 = 8 << 20;
/// The most records in one group; bounds the memory of a group of empty records.
const GROUP_COUNT_MAX: usize = 16 << 10;
/// Pieces shorter than this are copied beside their headers: a copy costs less than one more vector for the kernel.
const COPY_BYTES_MAX: usize = 4 << 10;

/// A record to be written.
#[derive(Debug)]
pub(crate) struct Write {
    pub(crate) shape: Shape,
    pub(crate) key: Key,
    pub(crate) sequence: u64,
    pub(crate) value: Gather,
    /// How many failures whoever queued this had heard of.
    pub(crate) epoch: u32,
    /// Whether this is a compaction's copy, which may use the reserve.
    pub(crate) is_copy: bool,
}

/// What became of the writes at the head of the queue.
#[derive(Debug)]
pub(crate) struct Report {
    /// Segments begun, with their files, before the records that lie in them.
    pub(crate) begun: Vec<(u32, Arc<dyn DiskFile>)>,
    /// For each write, in order: (segment, offset), or why not.
    pub(crate) results: Vec<Result<(u32, u32), StoreError>>,
    /// How many failures there have been.
    pub(crate) epoch: u32,
}

/// The newest segment.
#[derive(Debug)]
pub(crate) struct Active {
    pub(crate) number: u32,
    pub(crate) file: Arc<dyn DiskFile>,
    /// Where the next record goes. Everything before it is durable.
    pub(crate) end: u32,
    pub(crate) listed: HashMap<Key, Listed>,
}

impl Active {
    pub(crate) fn new(number: u32, file: Arc<dyn DiskFile>, end: u32, entries: Vec<Listed>) -> Active {
        let listed = entries.into_iter().map(|entry| (entry.key, entry)).collect();
        Active { number, file, end, listed }
    }

    /// Makes the file of a new, empty segment, durably.
    pub(crate) fn begin(directory: &Directory, number: u32, salt: u64) -> Result<Active, StoreError> {
        let path = directory.segment_path(number);
        let begin = || -> io::Result<Arc<dyn DiskFile>> {
            let file = directory.open_segment(number, Opening::New)?;
            let header = format::encode_segment_header(number, salt);
            write_all(&*file, &mut [IoSlice::new(&header)], 0).map_err(|(_, error)| error)?;
            file.sync_all()?;
            Ok(file)
        };
        let begun = begin().map_err(|error| StoreError::io("begin", &path, error)).and_then(|file| {
            directory.sync()?;
            Ok(file)
        });
        match begun {
            Ok(file) => Ok(Active::new(number, file, SEGMENT_HEADER_BYTES as u32, Vec::new())),
            Err(error) => {
                let _ = directory.disk().remove(&path);
                Err(error)
            }
        }
    }

    /// Cuts off whatever lies behind the last good record.
    fn cut(&self) -> io::Result<()> {
        self.file.set_length(u64::from(self.end))
    }

    pub(crate) fn listing(&self) -> Listing {
        let records = self.listed.values().copied().collect();
        Listing::from(Scanned { records, end: self.end, ..Scanned::default() })
    }
}

/// Writes groups.
#[derive(Debug)]
pub(crate) struct Writer {
    pub(crate) directory: Arc<Directory>,
    pub(crate) salt: u64,
    pub(crate) segment_size_bytes: u32,
    pub(crate) active: Active,
    pub(crate) epoch: u32,
    pub(crate) reserve: Reserve,
    /// After a failure that leaves unknown what the disk holds, nothing more is written.
    pub(crate) failed: Option<StoreError>,
}

/// One vector of a group: out of the shared buffer, or a caller's own bytes.
enum Piece {
    Copied(Range<usize>),
    Borrowed(Bytes),
}

#[derive(Default)]
struct Group {
    buffer: Vec<u8>,
    pieces: Vec<Piece>,
    records: Vec<Listed>,
    end: u32,
    frees_space: bool,
}

impl Group {
    fn copy(&mut self, bytes: &[u8]) {
        let start = self.buffer.len();
        self.buffer.extend_from_slice(bytes);
        let end = self.buffer.len();
        match self.pieces.last_mut() {
            Some(Piece::Copied(range)) if range.end == start => range.end = end,
            _ => self.pieces.push(Piece::Copied(start..end)),
        }
    }
}

impl Writer {
    /// Takes as many writes from the head of `queue` as make a group, writes and syncs them, and reports.
    ///
    /// Takes at least one if there is one, so calling it until the queue is empty ends.
    pub(crate) fn commit(&mut self, queue: &mut VecDeque<Write>) -> Report {
        let mut report = Report { begun: Vec::new(), results: Vec::new(), epoch: self.epoch };
        self.refuse_stale(queue, &mut report);
        if let Some(error) = self.refusal(queue, &mut report) {
            self.refuse(queue, error, &mut report);
            return report;
        }
        let group = self.gather(queue);
        if group.records.is_empty() {
            return report;
        }
        let mut written = self.write(&group);
        if matches!(written, Err(StoreError::Full)) && group.frees_space && self.reserve.give_up() {
            written = self.write(&group);
        }
        match written {
            Ok(()) => {
                self.active.end = group.end;
                for listed in group.records {
                    report.results.push(Ok((self.active.number, listed.offset)));
                    self.active
                        .listed
                        .entry(listed.key)
                        .and_modify(|known| merge(known, listed))
                        .or_insert(listed);
                }
            }
            Err(error) => {
                report.results.extend(group.records.iter().map(|_| Err(error.clone())));
                if self.active.cut().is_err() || !matches!(error, StoreError::Full) {
                    self.failed = Some(error.clone());
                }
                self.refuse(queue, error, &mut report);
            }
        }
        report
    }

    /// Sees to it that the first write of the queue has a place, and says why if it cannot have one.
    fn refusal(&mut self, queue: &VecDeque<Write>, report: &mut Report) -> Option<StoreError> {
        let first = queue.front()?;
        if let Some(error) = &self.failed {
            return Some(error.clone());
        }
        if !frees_space(first) && !self.reserve.hold() {
            return Some(StoreError::Full);
        }
        let needed = u64::from(self.active.end) + size(first);
        if needed <= u64::from(self.segment_size_bytes) || self.active.end == SEGMENT_HEADER_BYTES as u32 {
            return None;
        }
        let mut rotated = self.rotate();
        if matches!(rotated, Err(StoreError::Full)) && frees_space(first) && self.reserve.give_up() {
            rotated = self.rotate();
        }
        match rotated {
            Ok(()) => {
                report.begun.push((self.active.number, self.active.file.clone()));
                None
            }
            Err(error) => {
                self.failed = Some(error.clone()).filter(|error| !matches!(error, StoreError::Full));
                Some(error)
            }
        }
    }

    /// Refuses everything at the head of the queue that was queued without knowing of this failure.
    fn refuse(&mut self, queue: &mut VecDeque<Write>, error: StoreError, report: &mut Report) {
        self.epoch = self.epoch.wrapping_add(1);
        report.epoch = self.epoch;
        report.results.extend(queue.drain(..).map(|_| Err(error.clone())));
    }

    /// Refuses those at the head of the queue that were queued before the news of a failure arrived.
    fn refuse_stale(&self, queue: &mut VecDeque<Write>, report: &mut Report) {
        while queue.pop_front_if(|write| write.epoch != self.epoch).is_some() {
            report.results.push(Err(self.failed.clone().unwrap_or(StoreError::Full)));
        }
    }

    fn gather(&mut self, queue: &mut VecDeque<Write>) -> Group {
        let mut group = Group { end: self.active.end, frees_space: true, ..Group::default() };
        while let Some(write) = queue.front() {
            let end = u64::from(group.end) + size(write);
            let is_first = group.records.is_empty();
            let grown = end - u64::from(self.active.end);
            let fits = end <= u64::from(self.segment_size_bytes)
                && grown <= GROUP_BYTES_MAX
                && group.records.len() < GROUP_COUNT_MAX;
            if !is_first && !fits {
                break;
            }
            let Some(write) = queue.pop_front() else { break };
            group.frees_space &= frees_space(&write);
            self.append(&mut group, write);
        }
        group
    }

    fn append(&self, group: &mut Group, write: Write) {
        let length = write.value.length_bytes() as u32;
        let (check, table) = format::checksums(length, write.value.pieces().iter().map(|piece| &piece[..]));
        let place = Place { salt: self.salt, segment: self.active.number, offset: group.end };
        let Write { shape, key, sequence, .. } = write;
        let header = RecordHeader { shape, key, sequence, length, watermark: self.active.end, check };
        group.copy(&format::encode_record_header(place, &header));
        group.copy(&table);
        for piece in write.value.pieces() {
            if piece.len() < COPY_BYTES_MAX {
                group.copy(piece);
            } else {
                group.pieces.push(Piece::Borrowed(piece.clone()));
            }
        }
        let bare = format::value_offset(length) + length as usize;
        let padding = format::record_bytes(length) - bare;
        group.copy(&[0; format::ALIGNMENT_BYTES][..padding]);
        group.records.push(Listed { key, shape, sequence, offset: group.end, length, count: 1 });
        group.end += format::record_bytes(length) as u32;
    }

    fn write(&self, group: &Group) -> Result<(), StoreError> {
        let fail = |operation, error: io::Error| {
            StoreError::io(operation, self.directory.segment_path(self.active.number), error)
        };
        let mut vectors: Vec<IoSlice<'_>> = group
            .pieces
            .iter()
            .map(|piece| match piece {
                Piece::Copied(range) => IoSlice::new(&group.buffer[range.clone()]),
                Piece::Borrowed(bytes) => IoSlice::new(bytes),
            })
            .collect();
        write_all(&*self.active.file, &mut vectors, u64::from(self.active.end))
            .map_err(|(_, error)| fail("write to", error))?;
        self.active.file.sync_data().map_err(|error| fail("sync", error))
    }

    /// Completes the active segment and begins the next.
    fn rotate(&mut self) -> Result<(), StoreError> {
        let next = Active::begin(&self.directory, self.active.number + 1, self.salt)?;
        let old = std::mem::replace(&mut self.active, next);
        // Neither is needed: a checkpoint is made anew at the next start, and a mark behind the end does no harm.
        let _ = old.cut();
        let _ = self
            .directory
            .write_checkpoint(old.number, &checkpoint::encode(old.number, self.salt, &old.listing()));
        Ok(())
    }

    /// Leaves word behind the last record that everything before is durable. Not synced itself: after the death of
    /// the process it is still there, and after that of the system nothing but certainty is lost.
    pub(crate) fn mark(&self) {
        let Active { number, end, .. } = self.active;
        let place = Place { salt: self.salt, segment: number, offset: end };
        let key = Key::new(super::Kind(0), [0; 32]);
        let header =
            RecordHeader { shape: Shape::Mark, key, sequence: 0, length: 0, watermark: end, check: 0 };
        let bytes = format::encode_record_header(place, &header);
        let _ = write_all(&*self.active.file, &mut [IoSlice::new(&bytes)], u64::from(end));
    }

    /// Leaves the segment as tidy as can be.
    pub(crate) fn finish(&mut self) {
        if self.failed.is_none() && self.active.cut().is_ok() {
            self.mark();
        }
    }
}

fn size(write: &Write) -> u64 {
    format::record_bytes(write.value.length_bytes() as u32) as u64
}

/// Whether a write leads to less being stored in the end.
fn frees_space(write: &Write) -> bool {
    write.shape != Shape::Value || write.is_copy
}

fn merge(known: &mut Listed, new: Listed) {
    let count = known.count.saturating_add(1);
    *known = if known.sequence > new.sequence { Listed { count, ..*known } } else { Listed { count, ..new } };
}
