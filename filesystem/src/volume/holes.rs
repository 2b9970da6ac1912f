//! Sizes and holes: truncating, extending, punching, and finding data. Each method is one step over the [`State`].
//!
//! The frames at the edges of what goes are changed at once; those between go as [`super::truncation`] says, however many
//! there are.

use smallvec::SmallVec;

use super::content::{Before, without_set_ids};
use super::state::{Change, State, Step, Stop, extent_range};
use super::truncation::STEP_KEY_COUNT_MAX;
use crate::errno::Errno;
use crate::format::{InodeRecord, Key};
use crate::operations::{AllocateMode, FILE_SIZE_MAX, Time, Whence};

/// What a look for data or a hole came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Seek {
    /// Here.
    Found(u64),
    /// Not below this offset: go on from there.
    NotBefore(u64),
}

impl State {
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

    /// Makes bytes `offset..end` read as zeros; whole frames become holes.
    fn punch(&mut self, inode: u64, record: &mut InodeRecord, offset: u64, end: u64) -> Step<()> {
        let frame_size = record.frame_size();
        let (first, last) = (offset / frame_size, end / frame_size);
        let (head, tail) = ((offset % frame_size) as usize, (end % frame_size) as usize);
        // The frames at the edges, and the whole ones between.
        let mut edges: SmallVec<[(u64, usize, usize, Before); 2]> = SmallVec::new();
        // `before` must not take the content for overwritten: the rest of the frame stays.
        let mut edge = |state: &mut State, index, start, end| -> Step<()> {
            let before = match state.active.changes.get(&Key::Extent(inode, index)) {
                Some(Change::Frame(_)) => Before::Active,
                _ => match state.frame(inode, index)? {
                    None => Before::Hole,
                    Some(Change::Frame(frame)) => Before::Content(frame),
                    Some(Change::Stored(pointer)) => {
                        let frame = state.cache.frame(&pointer);
                        Before::Content(frame.ok_or_else(|| Stop::Frame(Box::new(pointer)))?)
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
                edge(self, first, head, frame_size as usize)?;
                whole.start += 1;
            }
            if tail > 0 {
                edge(self, last, 0, tail)?;
            }
        }
        let removal = self.plan_removal(inode, record, whole)?;

        for (index, start, end, before) in edges {
            self.zero_in_frame(inode, index, start, end, before);
        }
        self.start_removal(inode, record, removal);
        Ok(())
    }

    /// Changes the size; the caller stores `record`.
    pub(super) fn resize(&mut self, inode: u64, record: &mut InodeRecord, size: u64) -> Step<()> {
        if size > FILE_SIZE_MAX {
            return Err(Errno::EFBIG.into());
        }
        if size < record.size {
            // To the end of the last frame, so that it becomes a hole or is cut off and keeps no zeros.
            let end = record.size.next_multiple_of(record.frame_size());
            self.punch(inode, record, size, end)?;
        }
        if record.size != size {
            self.touch_content(inode, record);
        }
        record.size = size;
        Ok(())
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
                let zero_end = match zero_end == record.size {
                    true => zero_end.next_multiple_of(record.frame_size()),
                    false => zero_end,
                };
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

    /// Looks for data or a hole from `offset` on, at a bounded number of frames.
    pub(crate) fn seek(&mut self, inode: u64, offset: u64, whence: Whence) -> Step<Seek> {
        let record = self.file(inode)?;
        if offset >= record.size {
            return Err(Errno::ENXIO.into());
        }
        let frame_size = record.frame_size();
        let mut index = offset / frame_size;
        let (_, end) = extent_range(inode, 0);
        match whence {
            Whence::Data => loop {
                index = self.dead(inode).filter(|dead| dead.contains(&index)).map_or(index, |dead| dead.end);
                match self.next(&Key::Extent(inode, index), &end)? {
                    Some((Key::Extent(_, found), _)) if self.is_dead(inode, found) => index = found,
                    Some((Key::Extent(_, found), _)) if found * frame_size < record.size => {
                        break Ok(Seek::Found(offset.max(found * frame_size)));
                    }
                    _ => break Err(Errno::ENXIO.into()),
                }
            },
            Whence::Hole => {
                for _ in 0..STEP_KEY_COUNT_MAX {
                    match self.next(&Key::Extent(inode, index), &end)? {
                        Some((Key::Extent(_, found), _)) if found == index && !self.is_dead(inode, found) => {
                            index += 1;
                        }
                        _ => {
                            return Ok(Seek::Found(offset.max(index * frame_size).min(record.size)));
                        }
                    }
                }
                match index * frame_size {
                    next if next < record.size => Ok(Seek::NotBefore(next)),
                    _ => Ok(Seek::Found(record.size)),
                }
            }
        }
    }
}
