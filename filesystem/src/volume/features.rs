//! Which feature flags a commit's changes ask of the root: set with the first change that needs one, and kept for good, so that
//! a program that does not know what is in the tree leaves it alone.

use super::Volume;
use super::snapshots::snapshot_range;
use super::state::{Change, Delta};
use crate::access::Features;
use crate::format::INLINE_SIZE_MAX;

impl Volume {
    /// Has the next root say what the changes of `delta` need, and whether frames were sealed for it that the delta does not tell
    /// of yet (`has_sealed`), because they lie in an object that is still open.
    pub(super) fn note_features(&self, delta: &Delta, has_sealed: bool) {
        let flags = &mut self.state.borrow_mut().charter.features.incompatible;
        let (from, end) = snapshot_range();
        if delta.changes.range(from..end).next().is_some() {
            *flags |= Features::SNAPSHOTS;
        }
        let is_new = *flags & Features::SEGMENTS == 0;
        if is_new && (has_sealed || delta.changes.values().any(is_segmented)) {
            *flags |= Features::SEGMENTS;
        }
    }
}

/// Whether a frame of it is sealed in segments, or is about to be.
fn is_segmented(change: &Change) -> bool {
    match change {
        Change::Frame(bytes) => bytes.len() > INLINE_SIZE_MAX,
        Change::Stored(pointer) => pointer.tags.segment_size().is_some(),
        _ => false,
    }
}
