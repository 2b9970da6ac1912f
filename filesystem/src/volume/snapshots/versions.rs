//! What a path was in each snapshot: the versions of a file.
//!
//! The trees are asked through one cache, so what many snapshots share is fetched once.

use super::names::Names;
use super::{Snapshot, SnapshotError};
use crate::format::ContentVersion;
use crate::operations::Attributes;
use crate::volume::Volume;

/// What a path was at a moment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FileState {
    /// What `stat` showed of it then.
    pub attributes: Attributes,
    /// The state of its content: of one inode it is another after each change of the content, and after no other.
    pub content: ContentVersion,
}

impl FileState {
    /// Whether the other is the same file with the same content.
    pub fn has_content_of(&self, other: &FileState) -> bool {
        (self.attributes.inode, self.content) == (other.attributes.inode, other.content)
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
        let names = Names::new(self, self.tree_at(snapshot)?);
        let found = names.resolve(path)?;
        Ok(found.map(|(inode, record)| FileState {
            attributes: record.attributes(inode),
            content: record.content,
        }))
    }
}
