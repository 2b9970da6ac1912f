//! The helper thread's work: writing groups of records to the newest segment, one sync a group.
//!
//! Plain blocking code over a queue, so that it needs no reactor: the thread that waits for the disk is not the one
//! that runs coroutines. What it decides:
//!
//! - a *group* is whatever has gathered in the queue while the last one was being synced, up to a size;
//! - a record that no longer fits begins a new segment; the old one is synced, cut to its length and given its
//!   checkpoint first;
//! - if a record cannot be written, neither is any that was queued before the news of it was delivered (their
//!   `epoch` tells), so that the log never has a hole in it;
//! - once bytes of a group may have reached the disk without the whole of it, the segment is not written to any more.
//!   The next one says where it ended, so that these bytes never count, and writes go on there as soon as it can be
//!   made. Whatever fails before that first byte fails this once and changes nothing; likewise a segment that could
//!   not be begun, unless its header may have reached the disk.
//!
//! On a full disk a removal or a compaction's copy may use the space of the reserve (see `reserve.rs`); values are
//! refused until the reserve is whole again.

use super::{
    Gather, Key, StoreError,
    active::Active,
    checkpoint, contents,
    device::{DiskFile, write_all},
    directory::Directory,
    format::{self, FLAG_COPY, Place, RecordHeader, SEGMENT_HEADER_BYTES, Shape},
    reached::{Reached, ReachedFile},
    reserve::{Reserve, Right},
    scan::Listed,
};
use bytes::Bytes;
use std::{
    collections::VecDeque,
    io::{self, IoSlice},
    ops::Range,
    sync::Arc,
    time::{Duration, Instant},
};

/// The most bytes in one group: some 20 ms of a fast disk, so that a small write never waits longer behind big ones.
const GROUP_BYTES_MAX: u64 = 8 << 20;
/// The most records in one group; bounds the memory of a group of empty records.
const GROUP_COUNT_MAX: usize = 16 << 10;
/// Pieces shorter than this are copied beside their headers: a copy costs less than one more vector for the kernel.
const COPY_BYTES_MAX: usize = 4 << 10;

/// After a failure it is tried this often to begin a segment, when there is something to write.
const MEND_INTERVAL: Duration = Duration::from_secs(1);

/// A record to be written.
#[derive(Debug)]
pub(crate) struct Write {
    pub(crate) shape: Shape,
    pub(crate) key: Key,
    pub(crate) sequence: u64,
    pub(crate) value: Gather,
    /// Whose it is, as the node numbers its owners.
    pub(crate) owner: u32,
    /// How many failures whoever queued this had heard of.
    pub(crate) epoch: Epoch,
    /// Whether this is a compaction's copy, which may use the reserve.
    pub(crate) is_copy: bool,
    /// What it may use of the space that is kept back.
    pub(crate) right: Right,
}

/// How many failures there were: of any kind, and for want of space that only some writes may use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Epoch {
    pub(crate) failed: u32,
    pub(crate) full: u32,
}

/// What became of the writes at the head of the queue.
#[derive(Debug)]
pub(crate) struct Report {
    /// Segments begun, with their files, before the records that lie in them.
    pub(crate) begun: Vec<(u32, Arc<dyn DiskFile>)>,
    /// For each write, in order: (segment, offset), or why not.
    pub(crate) results: Vec<Result<(u32, u32), StoreError>>,
    /// How many failures there have been.
    pub(crate) epoch: Epoch,
    /// How much of the space that is kept back is given up.
    pub(crate) reserve_missing_bytes: u64,
    /// Why nothing can be written at present.
    pub(crate) failed: Option<StoreError>,
}

/// Writes groups.
#[derive(Debug)]
pub(crate) struct Writer {
    pub(crate) directory: Arc<Directory>,
    pub(crate) salt: u64,
    pub(crate) segment_size_bytes: u32,
    pub(crate) active: Active,
    pub(crate) reached: ReachedFile,
    pub(crate) epoch: Epoch,
    pub(crate) reserve: Reserve,
    /// After a failure that leaves unknown what the disk holds, or whether it says that the active segment ends here,
    /// nothing more is written to that.
    pub(crate) failed: Option<StoreError>,
    /// Why the last writes were refused.
    pub(crate) refused: Option<StoreError>,
    /// When it was last tried to go on after such a failure.
    pub(crate) tried: Option<Instant>,
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
    /// The contents record that it opens with, and how many records that names.
    contents: Option<(Listed, usize)>,
    end: u32,
    /// The least right of its writes.
    right: Option<Right>,
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
        let mut report = Report {
            begun: Vec::new(),
            results: Vec::new(),
            epoch: self.epoch,
            reserve_missing_bytes: 0,
            failed: None,
        };
        self.refuse_stale(queue, &mut report);
        if let Some(error) = self.refusal(queue, &mut report) {
            let right = queue.front().map(|write| write.right);
            self.refuse(queue, error, right, &mut report);
        } else {
            let group = self.gather(queue);
            if !group.records.is_empty() {
                self.commit_group(group, queue, &mut report);
            }
        }
        report.reserve_missing_bytes = self.reserve.missing_bytes();
        report.failed = self.failed.clone();
        report
    }

    fn commit_group(&mut self, group: Group, queue: &mut VecDeque<Write>, report: &mut Report) {
        let mut written = self.write(&group);
        let right = group.right.unwrap_or(Right::None);
        while matches!(written, Err((_, StoreError::Full))) && self.reserve.give_up(right) {
            written = self.write(&group);
        }
        let active = &mut self.active;
        match written {
            Ok(()) => {
                active.end = group.end;
                if let Some((contents, named)) = group.contents {
                    active.unlisted.drain(..named);
                    active.unlisted.push(contents);
                }
                for listed in group.records {
                    report.results.push(Ok((active.number, listed.offset)));
                    active.unlisted.push(listed);
                    active
                        .listed
                        .entry(listed.key)
                        .and_modify(|known| merge(known, listed))
                        .or_insert(listed);
                }
            }
            Err((is_touched, error)) => {
                report.results.extend(group.records.iter().map(|_| Err(error.clone())));
                let is_cut = !is_touched || active.cut().is_ok();
                if !is_cut || (is_touched && !matches!(error, StoreError::Full)) {
                    tracing::error!(segment = active.number, "{error}; the store goes on in another segment");
                    self.failed = Some(error.clone());
                    self.tried = None;
                } else {
                    tracing::warn!(segment = active.number, "{error}");
                }
                self.refuse(queue, error, Some(right), report);
            }
        }
    }

    /// Sees to it that the first write of the queue has a place, and says why if it cannot have one.
    fn refusal(&mut self, queue: &VecDeque<Write>, report: &mut Report) -> Option<StoreError> {
        let first = queue.front()?;
        let now = reactor::now();
        if let Some(error) = &self.failed {
            if self.tried.is_some_and(|tried| now < tried + MEND_INTERVAL) {
                return Some(error.clone());
            }
            self.tried = Some(now);
        }
        if first.right == Right::None && !self.reserve.hold() {
            return Some(StoreError::Full);
        }
        let needed = u64::from(self.active.end) + size(first);
        let fits =
            needed <= u64::from(self.segment_size_bytes) || self.active.end == SEGMENT_HEADER_BYTES as u32;
        if fits && self.failed.is_none() {
            return None;
        }
        let mut rotated = self.rotate();
        let mut is_left = matches!(rotated, Err((true, _)));
        while matches!(rotated, Err((_, StoreError::Full))) && self.reserve.give_up(first.right) {
            rotated = self.rotate();
            is_left |= matches!(rotated, Err((true, _)));
        }
        match rotated {
            Ok(()) => {
                if self.failed.take().is_some() {
                    tracing::warn!(segment = self.active.number, "the store takes writes again");
                }
                report.begun.push((self.active.number, self.active.file.clone()));
                None
            }
            // Nothing has changed, and the next write tries again; unless a header may be left that says where the
            // active segment ended.
            Err((_, error)) => {
                tracing::error!("{error}; no write is taken before a segment can be begun");
                if is_left && self.failed.is_none() {
                    self.failed = Some(error.clone());
                    self.tried = Some(now);
                }
                Some(error)
            }
        }
    }

    /// Refuses what was queued without knowing of this failure: everything, or, where only the space was missing that
    /// writes of this right may use, those that may use no more.
    fn refuse(
        &mut self,
        queue: &mut VecDeque<Write>,
        error: StoreError,
        right: Option<Right>,
        report: &mut Report,
    ) {
        if matches!(error, StoreError::Full) && right == Some(Right::None) {
            self.epoch.full = self.epoch.full.wrapping_add(1);
        } else {
            self.epoch.failed = self.epoch.failed.wrapping_add(1);
        }
        self.refused = Some(error);
        report.epoch = self.epoch;
        self.refuse_stale(queue, report);
    }

    /// Refuses those at the head of the queue that were queued before the news of a failure arrived.
    fn refuse_stale(&self, queue: &mut VecDeque<Write>, report: &mut Report) {
        while queue.pop_front_if(|write| self.is_stale(write)).is_some() {
            let why = self.refused.clone().unwrap_or(StoreError::Closed);
            report.results.push(Err(why));
        }
    }

    fn is_stale(&self, write: &Write) -> bool {
        let is_full = write.right == Right::None && write.epoch.full != self.epoch.full;
        write.epoch.failed != self.epoch.failed || is_full
    }

    fn gather(&mut self, queue: &mut VecDeque<Write>) -> Group {
        let mut group = Group { end: self.active.end, ..Group::default() };
        if let Some(first) = queue.front() {
            self.list_contents(&mut group, size(first));
        }
        while let Some(write) = queue.front() {
            let end = u64::from(group.end) + size(write);
            let is_first = group.records.is_empty();
            let grown = end - u64::from(self.active.end);
            let fits = end <= u64::from(self.segment_size_bytes)
                && grown <= GROUP_BYTES_MAX
                && group.records.len() < GROUP_COUNT_MAX;
            // While space is short, a write that may use more of it must not fail with one that may not.
            let is_apart = !self.reserve.is_whole() && group.right.is_some_and(|right| right != write.right);
            if !is_first && (!fits || is_apart || self.is_stale(write)) {
                break;
            }
            let Some(write) = queue.pop_front() else { break };
            group.right = Some(group.right.map_or(write.right, |right| right.min(write.right)));
            self.append(&mut group, write);
        }
        group
    }

    /// Opens the group with a list of what lies before it, if one is due and leaves room for the first write.
    fn list_contents(&self, group: &mut Group, first_bytes: u64) {
        let count = contents::count_due(&self.active.unlisted, self.active.end);
        let length = count * checkpoint::ENTRY_BYTES;
        let end = u64::from(group.end) + format::record_bytes(length as u32) as u64 + first_bytes;
        if count > 0 && end <= u64::from(self.segment_size_bytes) {
            let value = contents::encode(&self.active.unlisted[..count]);
            let listed = self.append_record(group, Shape::Contents, NO_KEY, 0, 0, 0, &value.into());
            group.contents = Some((listed, count));
        }
    }

    fn append(&self, group: &mut Group, write: Write) {
        let Write { shape, key, sequence, owner, value, is_copy, .. } = write;
        let flags = if is_copy { FLAG_COPY } else { 0 };
        let listed = self.append_record(group, shape, key, sequence, flags, owner, &value);
        group.records.push(listed);
    }

    #[expect(clippy::too_many_arguments, reason = "the fields of a record")]
    fn append_record(
        &self,
        group: &mut Group,
        shape: Shape,
        key: Key,
        sequence: u64,
        flags: u8,
        owner: u32,
        value: &Gather,
    ) -> Listed {
        let length = value.length_bytes() as u32;
        let (check, table) = format::checksums(length, value.pieces().iter().map(|piece| &piece[..]));
        let place = Place { salt: self.salt, segment: self.active.number, offset: group.end };
        let watermark = self.active.end;
        let header = RecordHeader { shape, key, flags, owner, sequence, length, watermark, check };
        group.copy(&format::encode_record_header(place, &header));
        group.copy(&table);
        for piece in value.pieces() {
            if piece.len() < COPY_BYTES_MAX {
                group.copy(piece);
            } else {
                group.pieces.push(Piece::Borrowed(piece.clone()));
            }
        }
        let bare = format::value_offset(length) + length as usize;
        let padding = format::record_bytes(length) - bare;
        group.copy(&[0; format::ALIGNMENT_BYTES][..padding]);
        let listed = Listed { key, shape, sequence, offset: group.end, length, count: 1, owner };
        group.end += format::record_bytes(length) as u32;
        listed
    }

    /// Writes and syncs a group. An error comes with whether any of it may be on the disk.
    fn write(&self, group: &Group) -> Result<(), (bool, StoreError)> {
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
            .map_err(|(count, error)| (count > 0, fail("write to", error)))?;
        self.active.file.sync_data().map_err(|error| (true, fail("sync", error)))
    }

    /// Completes the active segment and begins the next. An error comes with whether the active one must not be written
    /// to any more.
    fn rotate(&mut self) -> Result<(), (bool, StoreError)> {
        let previous = Some((self.active.number, self.active.end));
        let next = Active::begin(&self.directory, self.salt, previous)?;
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
        let header = RecordHeader {
            shape: Shape::Mark,
            key: NO_KEY,
            flags: 0,
            owner: 0,
            sequence: 0,
            length: 0,
            watermark: self.active.end,
            check: 0,
        };
        let place = Place { salt: self.salt, segment: self.active.number, offset: self.active.end };
        let bytes = format::encode_record_header(place, &header);
        let _ = write_all(&*self.active.file, &mut [IoSlice::new(&bytes)], u64::from(self.active.end));
        self.reached.write(Reached { segment: self.active.number, end: self.active.end });
    }

    /// Leaves the segment as tidy as can be: with a last list of what it holds, and nothing behind it.
    pub(crate) fn finish(&mut self) {
        if self.failed.is_some() || self.active.cut().is_err() {
            return;
        }
        let count = contents::count_at_end(&self.active.unlisted);
        if count > 0 {
            let mut group = Group { end: self.active.end, ..Group::default() };
            let value = contents::encode(&self.active.unlisted[..count]);
            self.append_record(&mut group, Shape::Contents, NO_KEY, 0, 0, 0, &value.into());
            let is_written =
                u64::from(group.end) <= u64::from(self.segment_size_bytes) && self.write(&group).is_ok();
            if is_written {
                self.active.end = group.end;
            } else if self.active.cut().is_err() {
                return;
            }
        }
        self.mark();
    }
}

/// The key of records that are about none.
pub(crate) const NO_KEY: Key = Key::new(super::Kind(0), [0; 32]);

fn size(write: &Write) -> u64 {
    format::record_bytes(write.value.length_bytes() as u32) as u64
}

fn merge(known: &mut Listed, new: Listed) {
    let count = known.count.saturating_add(1);
    *known = if known.sequence > new.sequence { Listed { count, ..*known } } else { Listed { count, ..new } };
}
