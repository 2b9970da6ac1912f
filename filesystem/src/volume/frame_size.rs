//! How large the frames of new files are: what a directory's extended attribute `user.hypha.frame_size` says, in bytes.
//!
//! A frame is what a small write stores anew and a small read fetches and decrypts, and what a key and a pointer are kept
//! for. The usual 32 KiB is right for most; a database that writes pages of 4 or 8 KiB here and there stores a fraction with
//! frames of its pages' size (`docs/format.md`, "Numbers", says how much). A file keeps the size that it was made with, as its
//! frames are numbered by it. The attribute is one like any other, so that a merge and a copy treat it as such; files and
//! directories take it from the directory that they are made in.

use bytes::Bytes;

use super::state::{Change, State, Step};
use crate::errno::Errno;
use crate::format::{FRAME_SIZE_MAX, FRAME_SIZE_MIN, Key};
use crate::operations::FileKind;

/// The attribute's name.
pub(super) const NAME: &[u8] = b"user.hypha.frame_size";

/// What new nodes in a directory get.
#[derive(Clone, Debug)]
pub(super) struct FrameSize {
    value: Bytes,
    exponent: u8,
}

impl FrameSize {
    /// Reads the attribute's value: a power of two, as digits.
    fn parse(value: &Bytes) -> Option<FrameSize> {
        let size: usize = std::str::from_utf8(value).ok()?.parse().ok()?;
        let fits = size.is_power_of_two() && (FRAME_SIZE_MIN..=FRAME_SIZE_MAX).contains(&size);
        fits.then(|| FrameSize { value: value.clone(), exponent: size.trailing_zeros() as u8 })
    }

    /// Returns the exponent that a file's record gets.
    pub(super) fn exponent(&self) -> u8 {
        self.exponent
    }

    /// Says whether `value` may be set on a node of `kind`.
    pub(super) fn check(kind: FileKind, value: &[u8]) -> Result<(), Errno> {
        if kind != FileKind::Directory {
            // Its frames are numbered by their size already.
            return Err(Errno::EOPNOTSUPP);
        }
        FrameSize::parse(&Bytes::copy_from_slice(value)).map(drop).ok_or(Errno::EINVAL)
    }
}

impl State {
    /// Returns what is made in `directory` gets, if that says so.
    pub(super) fn frame_size_in(&mut self, directory: u64) -> Step<Option<FrameSize>> {
        match self.get(&Key::Xattr(directory, Bytes::from_static(NAME)))? {
            Some(Change::Xattr(value)) => Ok(FrameSize::parse(&value)),
            _ => Ok(None),
        }
    }

    /// Hands it on to a new directory.
    pub(super) fn inherit_frame_size(&mut self, directory: u64, frame_size: &FrameSize) {
        self.set(Key::Xattr(directory, Bytes::from_static(NAME)), Change::Xattr(frame_size.value.clone()));
    }
}
