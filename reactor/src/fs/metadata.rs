//! What is known of a file beside its content.

use std::ffi::OsString;
use std::time::SystemTime;

/// What something in a directory is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum FileKind {
    /// A file with content.
    File,
    /// A directory.
    Directory,
    /// A symbolic link, itself.
    Symlink,
    /// A pipe, a socket or a device.
    Other,
}

/// What is known of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Metadata {
    /// What it is.
    pub kind: FileKind,
    /// Its length.
    pub len_bytes: u64,
    /// Permissions, as in `chmod`: the lower twelve bits.
    pub mode: u32,
    /// When the content last changed.
    pub modified: SystemTime,
    /// Its number in its file system.
    pub inode: u64,
    /// Names that it has.
    pub link_count: u64,
}

impl Metadata {
    /// Whether it is a file with content.
    pub fn is_file(&self) -> bool {
        self.kind == FileKind::File
    }

    /// Whether it is a directory.
    pub fn is_dir(&self) -> bool {
        self.kind == FileKind::Directory
    }
}

/// A name in a directory.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub struct DirEntry {
    /// The name, without the path.
    pub name: OsString,
    /// What bore that name when it was listed.
    pub kind: FileKind,
}
