//! Content: reading and writing. Each method is one step over the [`State`].
//!
//! A frame is 32 KiB of a file, by index, or what the file's record says; what is shorter ends in zeros, and what is
//! absent is a hole. Two rules keep old bytes from reappearing: no frame lies beyond the size but such as are being
//! removed (see [`super::truncation`]), and no frame is longer than the size lets it be. A frame that is being written is
//! unique in memory and is changed in place; once a commit or a reply shares it, the next write copies it.

use bytes::{Bytes, BytesMut};
use smallvec::SmallVec;

use super::state::{Change, State, Step, Stop};
use crate::errno::Errno;
use crate::format::{ContentVersion, FRAME_SIZE_MAX, InodeRecord, Key, Piece, Pointer};
use crate::operations::{Attributes, FILE_SIZE_MAX, FileKind, SetAttributes, Time};
use crate::posix_acl;

static ZEROS: [u8; FRAME_SIZE_MAX] = [0; FRAME_SIZE_MAX];

/// How far ahead a sequential reader is served: four full objects.
const READ_AHEAD_SIZE: u64 = 4 * 1024 * 1024;
/// But no further than so many times what it has read: of random reads some happen to follow each other.
const READ_AHEAD_FACTOR: u64 = 4;

/// Where a file's last read ended, how much was read up to there in a row, and how far frames were asked for.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ReadPosition {
    end: u64,
    row: u64,
    ahead: u64,
}

/// A piece of what was asked for.
#[derive(Debug)]
pub(crate) enum Part {
    /// Here.
    Ready(Bytes),
    /// To be fetched: the content of this frame or segment from `start` on, `size` bytes, zeros where it is shorter.
    Stored { piece: Box<Piece>, start: usize, size: usize },
}

/// What a read needs.
#[derive(Debug, Default)]
pub(crate) struct ReadPlan {
    pub(crate) parts: Vec<Part>,
    /// Frames worth fetching in advance.
    pub(crate) ahead: Vec<Pointer>,
}

/// Returns `size` bytes from `start` of a frame whose content may be shorter.
pub(crate) fn push_slice(out: &mut impl Extend<Bytes>, frame: &Bytes, start: usize, size: usize) {
    let end = (start + size).min(frame.len());
    let have = end.saturating_sub(start);
    if have > 0 {
        out.extend([frame.slice(start..end)]);
    }
    if have < size {
        out.extend([Bytes::from_static(&ZEROS[..size - have])]);
    }
}

/// What a frame is before a write.
pub(super) enum Before {
    /// In the active delta, to be changed in place.
    Active,
    /// A hole.
    Hole,
    /// It exists, and this much of its content has to be kept.
    Content(Bytes),
}

impl State {
    pub(super) fn file(&mut self, inode: u64) -> Step<InodeRecord> {
        let record = self.record(inode)?;
        match record.kind {
            FileKind::Regular => Ok(record),
            FileKind::Directory => Err(Errno::EISDIR.into()),
            _ => Err(Errno::EINVAL.into()),
        }
    }

    pub(crate) fn read(&mut self, inode: u64, offset: u64, size: u32) -> Step<ReadPlan> {
        let record = self.file(inode)?;
        let end = record.size.min(offset.saturating_add(u64::from(size)));
        let mut plan = ReadPlan::default();
        if offset >= end {
            return Ok(plan);
        }
        let frame_size = record.frame_size();
        let mut at = offset;
        while at < end {
            let index = at / frame_size;
            let start = (at % frame_size) as usize;
            let size = (frame_size as usize - start).min((end - at) as usize);
            match self.frame(inode, index)? {
                None => push_slice(&mut Parts(&mut plan.parts), &Bytes::new(), start, size),
                Some(Change::Frame(frame)) => push_slice(&mut Parts(&mut plan.parts), &frame, start, size),
                Some(Change::Stored(pointer)) => self.plan_stored(&pointer, start, size, &mut plan.parts),
                Some(_) => return Err(Errno::EIO.into()),
            }
            at += size as u64;
        }
        self.plan_ahead(inode, &record, offset, end, &mut plan);
        Ok(plan)
    }

    /// Adds what bytes `start..start + size` of a stored frame take.
    fn plan_stored(&mut self, pointer: &Pointer, start: usize, size: usize, parts: &mut Vec<Part>) {
        let (mut at, end) = (start, start + size);
        let content_end = end.min(pointer.size as usize);
        if at < content_end {
            for piece in Piece::covering(pointer, at, content_end) {
                let piece_end = content_end.min(piece.start() + piece.size() as usize);
                let (start, size) = (at - piece.start(), piece_end - at);
                match self.cache.piece(&piece) {
                    Some(content) => push_slice(&mut Parts(parts), &content, start, size),
                    None => parts.push(Part::Stored { piece: Box::new(piece), start, size }),
                }
                at = piece_end;
            }
        }
        if at < end {
            push_slice(&mut Parts(parts), &Bytes::new(), 0, end - at);
        }
    }

    /// Adds frames beyond `end` to the plan if the file is being read from front to back.
    fn plan_ahead(&mut self, inode: u64, record: &InodeRecord, offset: u64, end: u64, plan: &mut ReadPlan) {
        if self.read_positions.len() > 4096 {
            self.read_positions.clear();
        }
        let position = self.read_positions.entry(inode).or_default();
        // The kernel reads ahead itself, so requests may overtake each other a little.
        let sequential =
            offset <= position.end + READ_AHEAD_SIZE / 4 && end > position.end && position.end > 0;
        let before = *position;
        position.end = end.max(if sequential { position.end } else { 0 });
        position.row = end - offset + if sequential { position.row } else { 0 };
        if !sequential {
            position.ahead = end;
            return;
        }
        let window = READ_AHEAD_SIZE.min(position.row * READ_AHEAD_FACTOR);
        if window < record.frame_size() {
            // Random reads that happen to follow each other would bring a frame for each segment.
            return;
        }
        let target = (end + window).min(record.size);
        // In steps of a quarter: one fetch for many frames.
        if target < before.ahead + window / 4 && target < record.size {
            return;
        }
        let frame_size = record.frame_size();
        let from = before.ahead.max(end) / frame_size;
        position.ahead = target;
        for index in from..target.div_ceil(frame_size) {
            match self.frame(inode, index) {
                Ok(Some(Change::Stored(pointer))) if !self.cache.contains(&pointer) => {
                    plan.ahead.push(pointer)
                }
                Ok(_) => {}
                // Its leaf is not here yet: the next read brings it.
                Err(_) => {
                    if let Some(position) = self.read_positions.get_mut(&inode) {
                        position.ahead = index * frame_size;
                    }
                    break;
                }
            }
        }
    }

    /// Returns frame `index` of a file, unless it is being removed.
    pub(super) fn frame(&mut self, inode: u64, index: u64) -> Step<Option<Change>> {
        if self.is_dead(inode, index) { Ok(None) } else { self.get(&Key::Extent(inode, index)) }
    }

    /// Finds out what frame `index` is before bytes `start..end` of it are changed.
    fn before(
        &mut self,
        inode: u64,
        index: u64,
        (start, end): (usize, usize),
        record: &InodeRecord,
    ) -> Step<Before> {
        let key = Key::Extent(inode, index);
        match self.active.changes.get(&key) {
            Some(Change::Frame(_)) => return Ok(Before::Active),
            Some(Change::Removed) => return Ok(Before::Hole),
            // What is stored, and was brought here by a merge or by a commit that did not get through.
            Some(_) | None => {}
        }
        if self.is_dead(inode, index) {
            // Its key may be there: then it is counted already.
            return Ok(match self.get(&key)? {
                None => Before::Hole,
                Some(_) => Before::Content(Bytes::new()),
            });
        }
        let offset = index * record.frame_size();
        if offset >= record.size {
            return Ok(Before::Hole);
        }
        let whole = start == 0 && (end as u64 == record.frame_size() || offset + end as u64 >= record.size);
        match self.get(&key)? {
            None => Ok(Before::Hole),
            Some(Change::Frame(_) | Change::Stored(_)) if whole => Ok(Before::Content(Bytes::new())),
            Some(Change::Frame(frame)) => Ok(Before::Content(frame)),
            Some(Change::Stored(pointer)) => match self.cache.frame(&pointer) {
                Some(frame) => Ok(Before::Content(frame)),
                None => Err(Stop::Frame(Box::new(pointer))),
            },
            Some(_) => Err(Errno::EIO.into()),
        }
    }

    /// Takes a frame out for changing; `apply_frame` puts it back. Returns whether it is new.
    pub(super) fn open_frame(
        &mut self,
        inode: u64,
        index: u64,
        before: Before,
        capacity: usize,
    ) -> (BytesMut, bool) {
        let copy = |content: &[u8]| {
            let mut frame = BytesMut::with_capacity(capacity.max(content.len()));
            frame.extend_from_slice(content);
            frame
        };
        match before {
            Before::Hole => (copy(&[]), true),
            Before::Content(content) => (copy(&content), false),
            Before::Active => match self.active.remove(&Key::Extent(inode, index)) {
                Some(Change::Frame(frame)) => {
                    (frame.try_into_mut().unwrap_or_else(|shared| copy(&shared)), false)
                }
                _ => (copy(&[]), true),
            },
        }
    }

    pub(crate) fn write(&mut self, inode: u64, offset: u64, data: &[u8], clear_set_ids: bool) -> Step<()> {
        self.writable()?;
        self.write_accepted(inode, offset, data, clear_set_ids)
    }

    /// As [`State::write`], whether or not new changes are taken.
    fn write_accepted(&mut self, inode: u64, offset: u64, data: &[u8], clear_set_ids: bool) -> Step<()> {
        let mut record = self.file(inode)?;
        let end =
            offset.checked_add(data.len() as u64).filter(|end| *end <= FILE_SIZE_MAX).ok_or(Errno::EFBIG)?;
        if data.is_empty() {
            return Ok(());
        }
        let frame_size = record.frame_size();
        let revived = offset / frame_size..end.div_ceil(frame_size);
        self.check_revival(inode, &revived)?;
        let mut pieces: SmallVec<[(u64, usize, usize, Before); 4]> = SmallVec::new();
        let mut at = offset;
        while at < end {
            let index = at / frame_size;
            let start = (at % frame_size) as usize;
            let stop = (frame_size as usize).min(start + (end - at) as usize);
            let before = self.before(inode, index, (start, stop), &record)?;
            pieces.push((index, start, stop, before));
            at += (stop - start) as u64;
        }

        let mut rest = data;
        for (index, start, stop, before) in pieces {
            let (piece, others) = rest.split_at(stop - start);
            rest = others;
            // Appended to in small steps, a frame grows by doubling; written at once, it gets what it needs.
            let capacity = if start == 0 { stop } else { stop.next_power_of_two().min(frame_size as usize) };
            let (mut frame, new) = self.open_frame(inode, index, before, capacity);
            if frame.len() < start {
                frame.resize(start, 0);
            }
            let over = piece.len().min(frame.len() - start);
            frame[start..start + over].copy_from_slice(&piece[..over]);
            frame.extend_from_slice(&piece[over..]);
            record.frames += u64::from(new);
            self.set(Key::Extent(inode, index), Change::Frame(frame.freeze()));
        }
        self.revive(inode, &revived);
        record.size = record.size.max(end);
        self.touch_content(inode, &mut record);
        let now = Time::now();
        record.mtime = now;
        record.ctime = now;
        if clear_set_ids {
            record.mode = without_set_ids(record.mode);
        }
        self.set_record(inode, record);
        Ok(())
    }

    /// Writes at the end of the file, wherever that is, and returns where it was. A merge knows it for an append.
    pub(crate) fn append(&mut self, inode: u64, data: &[u8], clear_set_ids: bool) -> Step<u64> {
        self.writable()?;
        self.append_accepted(inode, data, clear_set_ids)
    }

    /// As [`State::append`], of what was acknowledged before: a full store or a closing volume refuses programs, but a
    /// merge that it refused would never get through, and what it moves would be lost.
    pub(super) fn append_accepted(&mut self, inode: u64, data: &[u8], clear_set_ids: bool) -> Step<u64> {
        let end = self.file(inode)?.size;
        let before = self.active.appended.get(&inode).copied();
        self.write_accepted(inode, end, data, clear_set_ids)?;
        if !data.is_empty() {
            self.active.appended.insert(inode, before.unwrap_or(true));
        }
        Ok(end)
    }

    /// Notes that the content of `inode` changes: its version tells a merge so. The caller stores `record`.
    pub(crate) fn touch_content(&mut self, inode: u64, record: &mut InodeRecord) {
        self.content_counter = self.content_counter.max(record.content.counter) + 1;
        record.content = ContentVersion { writer: self.session, counter: self.content_counter };
        self.active.appended.insert(inode, false);
    }

    pub(crate) fn set_attributes(&mut self, inode: u64, changes: &SetAttributes) -> Step<Attributes> {
        self.changeable()?;
        let mut record = self.record(inode)?;
        let list = match changes.mode {
            Some(_) => self.access_list(inode, posix_acl::ACCESS)?,
            None => None,
        };
        let now = Time::now();
        if let Some(size) = changes.size {
            if record.kind != FileKind::Regular {
                return Err(
                    if record.kind == FileKind::Directory { Errno::EISDIR } else { Errno::EINVAL }.into()
                );
            }
            // `truncate` to the same size touches the times too.
            self.resize(inode, &mut record, size)?;
            record.mtime = now;
        }
        // Whoever calls `chown`, and whether it changes anything: Linux clears them on everything but directories.
        let is_chown = changes.uid.is_some() || changes.gid.is_some();
        if (is_chown || changes.clear_set_ids) && record.kind != FileKind::Directory {
            record.mode = without_set_ids(record.mode);
        }
        record.mode = changes.mode.map_or(record.mode, |mode| mode & 0o7777);
        if let Some(list) = list {
            self.set_access_list(inode, posix_acl::ACCESS, &list.with_mode(record.mode));
        }
        record.uid = changes.uid.unwrap_or(record.uid);
        record.gid = changes.gid.unwrap_or(record.gid);
        record.atime = changes.atime.unwrap_or(record.atime);
        record.mtime = changes.mtime.unwrap_or(record.mtime);
        record.ctime = now;
        let attributes = record.attributes(inode);
        self.set_record(inode, record);
        Ok(attributes)
    }

    pub(crate) fn read_symlink(&mut self, inode: u64) -> Step<Bytes> {
        if self.record(inode)?.kind != FileKind::Symlink {
            return Err(Errno::EINVAL.into());
        }
        match self.get(&Key::Extent(inode, 0))? {
            Some(Change::Frame(target)) => Ok(target),
            Some(Change::Stored(pointer)) => {
                self.cache.frame(&pointer).ok_or_else(|| Stop::Frame(Box::new(pointer)))
            }
            _ => Err(Errno::EIO.into()),
        }
    }
}

/// As the kernel does it: setgid without group execution marks mandatory locking and stays.
pub(super) fn without_set_ids(mode: u32) -> u32 {
    let mode = mode & !0o4000;
    if mode & 0o010 != 0 { mode & !0o2000 } else { mode }
}

struct Parts<'a>(&'a mut Vec<Part>);

impl Extend<Bytes> for Parts<'_> {
    fn extend<I: IntoIterator<Item = Bytes>>(&mut self, slices: I) {
        self.0.extend(slices.into_iter().map(Part::Ready));
    }
}
