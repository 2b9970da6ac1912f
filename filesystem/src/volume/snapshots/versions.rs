//! What a path was in each snapshot: the versions of a file.
//!
//! The trees are asked through one cache, so what many snapshots share is fetched once.

use bytes::Bytes;

use super::names::Names;
use super::{Snapshot, SnapshotError};
use crate::errno::Errno;
use crate::format::{ContentVersion, InodeRecord, Key, Pointer};
use crate::operations::Attributes;
use crate::volume::Volume;
use crate::volume::state::{Change, extent_range};

/// After so many frames others get their turn.
const TURN: usize = 256;

/// What a path was at a moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FileState {
    /// What `stat` showed of it then.
    pub attributes: Attributes,
    /// Of this inode it is another after each change of the content, and after no other.
    content: ContentVersion,
    /// The tree that it is in.
    tree: Option<Pointer>,
}

impl FileState {
    /// What the record of an inode says in a tree.
    pub(super) fn of(inode: u64, record: &InodeRecord, tree: Option<Pointer>) -> FileState {
        FileState { attributes: record.attributes(inode), content: record.content, tree }
    }
}

impl Volume {
    /// Returns what `path` names in a snapshot, or what it names now (`None`), if it names anything there. Symbolic links
    /// on the way are not followed.
    ///
    /// # Errors
    ///
    /// [`SnapshotError::Unreachable`] if what is now can't be known, or that the tree can't be read.
    ///
    /// # Suspends
    ///
    /// While nodes are fetched.
    pub fn state_of(
        &self,
        path: &[u8],
        snapshot: Option<&Snapshot>,
    ) -> Result<Option<FileState>, SnapshotError> {
        let tree = self.tree_at(snapshot)?;
        let found = Names::new(self, tree).resolve(path)?;
        Ok(found.map(|(inode, record)| FileState::of(inode, &record, tree)))
    }

    /// Whether two states of files are of one content: of one file that was not written in between, or of one that was
    /// restored from the other. Two that were written apart are two, even if every byte is the same.
    ///
    /// # Errors
    ///
    /// If a tree can't be read.
    ///
    /// # Suspends
    ///
    /// While nodes are fetched.
    pub fn is_one_content(&self, one: &FileState, other: &FileState) -> Result<bool, SnapshotError> {
        Ok(self.have_one_content(one, other)?)
    }

    /// As [`Volume::is_one_content`].
    pub(super) fn have_one_content(&self, one: &FileState, other: &FileState) -> Result<bool, Errno> {
        let (of_one, of_other) = (&one.attributes, &other.attributes);
        if of_one.inode == of_other.inode {
            return Ok(one.content == other.content);
        }
        // A copy has its origin's version, so most that are two need no closer look.
        if (one.content, of_one.kind, of_one.size) != (other.content, of_other.kind, of_other.size) {
            return Ok(false);
        }
        let mut frame = Some(0);
        for turn in 1usize.. {
            let Some(first) = frame else { break };
            let (next, next_of_other) = (self.frame_from(one, first)?, self.frame_from(other, first)?);
            if next != next_of_other {
                return Ok(false);
            }
            frame = next.and_then(|(frame, _)| frame.checked_add(1));
            if turn.is_multiple_of(TURN) {
                reactor::yield_now();
            }
        }
        Ok(true)
    }

    /// Returns the first frame of a file from `first` on that is no hole, by what stands for its content.
    fn frame_from(&self, file: &FileState, first: u64) -> Result<Option<(u64, Frame)>, Errno> {
        let Some(tree) = file.tree else { return Ok(None) };
        let (from, end) = extent_range(file.attributes.inode.0, first);
        match self.step(|state| state.next_in(&tree, &from, &end))? {
            None => Ok(None),
            Some((Key::Extent(_, frame), Change::Stored(pointer))) => {
                Ok(Some((frame, Frame::Stored(pointer))))
            }
            Some((Key::Extent(_, frame), Change::Frame(bytes))) => Ok(Some((frame, Frame::Here(bytes)))),
            Some(_) => Err(Errno::EIO),
        }
    }
}

/// A frame's content, or where it is.
#[derive(PartialEq, Eq)]
enum Frame {
    Here(Bytes),
    Stored(Pointer),
}
