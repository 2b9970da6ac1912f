//! Content: reading, writing, truncating, holes. Each method is one step over the [`State`].
//!
//! A frame is 32 KiB of a file, by index; what is shorter ends in zeros, and what is absent is a hole. Two rules keep
//! old bytes from reappearing: no frame lies beyond the size, and no frame is longer than the size lets it be. A frame
//! that is being written is unique in memory and is changed in place; once a commit or a reply shares it, the next write
//! copies it.

use bytes::{Bytes, BytesMut};
use smallvec::SmallVec;

use super::state::{Change, State, Step, Stop, extent_range};
use crate::errno::Errno;
use crate::format::{ContentVersion, FRAME_SIZE, InodeRecord, Key, Pointer};
use crate::operations::{AllocateMode, Attributes, FILE_SIZE_MAX, FileKind, SetAttributes, Time, Whence};
use crate::posix_acl;

const FRAME: u64 = FRAME_SIZE as u64;
static ZEROS: [u8; FRAME_SIZE] = [0; FRAME_SIZE];

/// How far ahead a sequential reader is served: four full objects.
const READ_AHEAD_SIZE: u64 = 4 * 1024 * 1024;

/// Where a file's last read ended, and how far frames were asked for.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ReadPosition {
    end: u64,
    ahead: u64,
}

/// A piece of what was asked for.
#[derive(Debug)]
pub(crate) enum Part {
    /// Here.
    Ready(Bytes),
    /// To be fetched: this frame's content from `start` on, `size` bytes, zeros where it is shorter.
    Stored { pointer: Pointer, start: usize, size: usize },
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
enum Before {
    /// In the active delta, to be changed in place.
    Active,
    /// A hole.
    Hole,
    /// It exists, and this much of its content has to be kept.
    Content(Bytes),
}

impl State {
    fn file(&mut self, inode: u64) -> Step<InodeRecord> {
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
        let mut at = offset;
        while at < end {
            let index = at / FRAME;
            let start = (at % FRAME) as usize;
            let size = (FRAME_SIZE - start).min((end - at) as usize);
            match self.get(&Key::Extent(inode, index))? {
                None => push_slice(&mut Parts(&mut plan.parts), &Bytes::new(), start, size),
                Some(Change::Frame(frame)) => push_slice(&mut Parts(&mut plan.parts), &frame, start, size),
                Some(Change::Stored(pointer)) => match self.cache.frame(&pointer) {
                    Some(frame) => push_slice(&mut Parts(&mut plan.parts), &frame, start, size),
                    None => plan.parts.push(Part::Stored { pointer, start, size }),
                },
                Some(_) => return Err(Errno::EIO.into()),
            }
            at += size as u64;
        }
        self.plan_ahead(inode, &record, offset, end, &mut plan);
        Ok(plan)
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
        if !sequential {
            position.ahead = end;
            return;
        }
        let target = (end + READ_AHEAD_SIZE).min(record.size);
        // In steps of a quarter: one fetch for many frames.
        if target < before.ahead + READ_AHEAD_SIZE / 4 && target < record.size {
            return;
        }
        let from = before.ahead.max(end) / FRAME;
        position.ahead = target;
        for index in from..target.div_ceil(FRAME) {
            match self.get(&Key::Extent(inode, index)) {
                Ok(Some(Change::Stored(pointer))) if !self.cache.contains(&pointer) => {
                    plan.ahead.push(pointer)
                }
                Ok(_) => {}
                // Its leaf is not here yet: the next read brings it.
                Err(_) => {
                    if let Some(position) = self.read_positions.get_mut(&inode) {
                        position.ahead = index * FRAME;
                    }
                    break;
                }
            }
        }
    }

    /// Finds out what frame `index` is before bytes `start..end` of it are changed.
    fn before(&mut self, inode: u64, index: u64, start: usize, end: usize, old_size: u64) -> Step<Before> {
        let key = Key::Extent(inode, index);
        match self.active.changes.get(&key) {
            Some(Change::Frame(_)) => return Ok(Before::Active),
            Some(Change::Removed) => return Ok(Before::Hole),
            // What is stored, and was brought here by a merge or by a commit that did not get through.
            Some(_) | None => {}
        }
        if index * FRAME >= old_size {
            return Ok(Before::Hole);
        }
        let whole = start == 0 && (end == FRAME_SIZE || index * FRAME + end as u64 >= old_size);
        match self.get(&key)? {
            None => Ok(Before::Hole),
            Some(Change::Frame(_) | Change::Stored(_)) if whole => Ok(Before::Content(Bytes::new())),
            Some(Change::Frame(frame)) => Ok(Before::Content(frame)),
            Some(Change::Stored(pointer)) => match self.cache.frame(&pointer) {
                Some(frame) => Ok(Before::Content(frame)),
                None => Err(Stop::Frame(pointer)),
            },
            Some(_) => Err(Errno::EIO.into()),
        }
    }

    /// Takes a frame out for changing; `apply_frame` puts it back. Returns whether it is new.
    fn open_frame(&mut self, inode: u64, index: u64, before: Before, capacity: usize) -> (BytesMut, bool) {
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
        let mut record = self.file(inode)?;
        let end =
            offset.checked_add(data.len() as u64).filter(|end| *end <= FILE_SIZE_MAX).ok_or(Errno::EFBIG)?;
        if data.is_empty() {
            return Ok(());
        }
        let mut pieces: SmallVec<[(u64, usize, usize, Before); 4]> = SmallVec::new();
        let mut at = offset;
        while at < end {
            let index = at / FRAME;
            let start = (at % FRAME) as usize;
            let stop = FRAME_SIZE.min(start + (end - at) as usize);
            let before = self.before(inode, index, start, stop, record.size)?;
            pieces.push((index, start, stop, before));
            at += (stop - start) as u64;
        }

        let mut rest = data;
        for (index, start, stop, before) in pieces {
            let (piece, others) = rest.split_at(stop - start);
            rest = others;
            // Appended to in small steps, a frame grows by doubling; written at once, it gets what it needs.
            let capacity = if start == 0 { stop } else { stop.next_power_of_two().min(FRAME_SIZE) };
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
        let end = self.file(inode)?.size;
        let before = self.active.appended.get(&inode).copied();
        self.write(inode, end, data, clear_set_ids)?;
        if !data.is_empty() {
            self.active.appended.insert(inode, before.unwrap_or(true));
        }
        Ok(end)
    }

    /// Notes that the content of `inode` changes: its version tells a merge so. The caller stores `record`.
    pub(crate) fn touch_content(&mut self, inode: u64, record: &mut InodeRecord) {
        record.content = ContentVersion { writer: self.device, counter: record.content.counter + 1 };
        self.active.appended.insert(inode, false);
    }

    /// Zeros bytes `start..end` of one frame, if it is no hole.
    fn zero_in_frame(&mut self, inode: u64, index: u64, start: usize, end: usize, before: Before) {
        if matches!(before, Before::Hole) {
            return;
        }
        let (mut frame, _) = self.open_frame(inode, index, before, 0);
        if end >= frame.len() {
            frame.truncate(start);
        } else if start < end {
            frame[start..end].fill(0);
        }
        self.set(Key::Extent(inode, index), Change::Frame(frame.freeze()));
    }

    /// Collects the frames in `first..last`.
    fn frames_between(&mut self, inode: u64, first: u64, last: u64) -> Step<Vec<Key>> {
        let (mut from, _) = extent_range(inode, first);
        let end = Key::Extent(inode, last);
        let mut keys = Vec::new();
        while let Some((key, _)) = self.next(&from, &end)? {
            from = key.successor();
            keys.push(key);
        }
        Ok(keys)
    }

    /// Makes bytes `offset..end` read as zeros; whole frames become holes.
    fn punch(&mut self, inode: u64, record: &mut InodeRecord, offset: u64, end: u64) -> Step<()> {
        let (first, last) = (offset / FRAME, end / FRAME);
        let (head, tail) = ((offset % FRAME) as usize, (end % FRAME) as usize);
        // The frames at the edges, and the whole ones between.
        let mut edges: SmallVec<[(u64, usize, usize, Before); 2]> = SmallVec::new();
        // `before` must not take the content for overwritten: the rest of the frame stays.
        let mut edge = |state: &mut State, index, start, end| -> Step<()> {
            let before = match state.active.changes.get(&Key::Extent(inode, index)) {
                Some(Change::Frame(_)) => Before::Active,
                _ => match state.get(&Key::Extent(inode, index))? {
                    None => Before::Hole,
                    Some(Change::Frame(frame)) => Before::Content(frame),
                    Some(Change::Stored(pointer)) => {
                        Before::Content(state.cache.frame(&pointer).ok_or(Stop::Frame(pointer))?)
                    }
                    Some(_) => return Err(Errno::EIO.into()),
                },
            };
            edges.push((index, start, end, before));
            Ok(())
        };
        let mut whole = first..last;
        if first == last {
            edge(self, first, head, tail)?;
        } else {
            if head > 0 {
                edge(self, first, head, FRAME_SIZE)?;
                whole.start += 1;
            }
            if tail > 0 {
                edge(self, last, 0, tail)?;
            }
        }
        let holes =
            if whole.is_empty() { Vec::new() } else { self.frames_between(inode, whole.start, whole.end)? };

        for (index, start, end, before) in edges {
            self.zero_in_frame(inode, index, start, end, before);
        }
        record.frames = record.frames.saturating_sub(holes.len() as u64);
        for key in holes {
            self.set(key, Change::Removed);
        }
        Ok(())
    }

    /// Changes the size; the caller stores `record`.
    fn resize(&mut self, inode: u64, record: &mut InodeRecord, size: u64) -> Step<()> {
        if size > FILE_SIZE_MAX {
            return Err(Errno::EFBIG.into());
        }
        if size < record.size {
            // To the end of the last frame, so that it becomes a hole or is cut off and keeps no zeros.
            self.punch(inode, record, size, record.size.div_ceil(FRAME) * FRAME)?;
        }
        if record.size != size {
            self.touch_content(inode, record);
        }
        record.size = size;
        Ok(())
    }

    pub(crate) fn set_attributes(&mut self, inode: u64, changes: &SetAttributes) -> Step<Attributes> {
        if self.read_only {
            return Err(Errno::EROFS.into());
        }
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

    pub(crate) fn allocate(&mut self, inode: u64, mode: AllocateMode, offset: u64, length: u64) -> Step<()> {
        self.writable()?;
        let mut record = self.file(inode)?;
        if length == 0 || (mode.punch_hole && (!mode.keep_size || mode.zero_range)) {
            return Err(Errno::EINVAL.into());
        }
        let end = offset.checked_add(length).filter(|end| *end <= FILE_SIZE_MAX).ok_or(Errno::EFBIG)?;
        let changes_size = !mode.keep_size && end > record.size;
        if mode.punch_hole || mode.zero_range {
            let zero_end = end.min(record.size);
            if offset < zero_end {
                // A range that reaches the end of the file reaches the end of its last frame.
                let zero_end =
                    if zero_end == record.size { zero_end.div_ceil(FRAME) * FRAME } else { zero_end };
                self.punch(inode, &mut record, offset, zero_end)?;
            }
        }
        if !mode.keep_size {
            record.size = record.size.max(end);
        }
        if mode.clear_set_ids {
            record.mode = without_set_ids(record.mode);
        }
        if mode.punch_hole || mode.zero_range || changes_size {
            self.touch_content(inode, &mut record);
        }
        let now = Time::now();
        record.mtime = now;
        record.ctime = now;
        self.set_record(inode, record);
        Ok(())
    }

    pub(crate) fn seek(&mut self, inode: u64, offset: u64, whence: Whence) -> Step<u64> {
        let record = self.file(inode)?;
        if offset >= record.size {
            return Err(Errno::ENXIO.into());
        }
        let mut index = offset / FRAME;
        let (_, end) = extent_range(inode, 0);
        match whence {
            Whence::Data => match self.next(&Key::Extent(inode, index), &end)? {
                Some((Key::Extent(_, found), _)) => Ok(offset.max(found * FRAME)),
                _ => Err(Errno::ENXIO.into()),
            },
            Whence::Hole => loop {
                match self.next(&Key::Extent(inode, index), &end)? {
                    Some((Key::Extent(_, found), _)) if found == index => index += 1,
                    _ => break Ok(offset.max(index * FRAME).min(record.size)),
                }
            },
        }
    }

    pub(crate) fn read_symlink(&mut self, inode: u64) -> Step<Bytes> {
        if self.record(inode)?.kind != FileKind::Symlink {
            return Err(Errno::EINVAL.into());
        }
        match self.get(&Key::Extent(inode, 0))? {
            Some(Change::Frame(target)) => Ok(target),
            Some(Change::Stored(pointer)) => self.cache.frame(&pointer).ok_or(Stop::Frame(pointer)),
            _ => Err(Errno::EIO.into()),
        }
    }
}

/// As the kernel does it: setgid without group execution marks mandatory locking and stays.
fn without_set_ids(mode: u32) -> u32 {
    let mode = mode & !0o4000;
    if mode & 0o010 != 0 { mode & !0o2000 } else { mode }
}

struct Parts<'a>(&'a mut Vec<Part>);

impl Extend<Bytes> for Parts<'_> {
    fn extend<I: IntoIterator<Item = Bytes>>(&mut self, slices: I) {
        self.0.extend(slices.into_iter().map(Part::Ready));
    }
}
