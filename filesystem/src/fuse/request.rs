//! The kernel's requests, as types.
//!
//! Names and payloads borrow from the buffer that the request was read into; nothing is copied but numbers. How bytes
//! become a request is [`parse`](super::parse)'s, what is done about it [`dispatch`](super::dispatch)'s.

use zerocopy::FromBytes;

use super::abi;
use crate::operations::Inode;

/// One request of the kernel's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request<'a> {
    /// Names the request in its reply.
    pub unique: u64,
    /// The inode it is about; a directory where a name is given too.
    pub inode: Inode,
    /// The caller's file-system user.
    pub uid: u32,
    /// The caller's file-system group.
    pub gid: u32,
    /// The calling thread; 0 if it is in a process namespace that the mount can't see into.
    pub pid: u32,
    /// What is asked.
    pub operation: Operation<'a>,
}

/// What a request asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // The fields are those of the protocol.
#[non_exhaustive]
pub enum Operation<'a> {
    Init(Init),
    Destroy,
    /// The request named here need not be answered any more than with `EINTR`.
    Interrupt {
        unique: u64,
    },
    Lookup {
        name: &'a [u8],
    },
    /// No reply.
    Forget {
        count: u64,
    },
    /// No reply.
    BatchForget(Forgets<'a>),
    Attributes,
    SetAttributes(SetAttributesRequest),
    ReadSymlink,
    MakeSymlink {
        name: &'a [u8],
        target: &'a [u8],
    },
    /// `mode` includes the file-type bits.
    MakeNode {
        name: &'a [u8],
        mode: u32,
        rdev: u32,
        umask: u32,
    },
    MakeDirectory {
        name: &'a [u8],
        mode: u32,
        umask: u32,
    },
    Unlink {
        name: &'a [u8],
    },
    RemoveDirectory {
        name: &'a [u8],
    },
    /// `flags`: as `renameat2(2)`.
    Rename {
        name: &'a [u8],
        new_parent: Inode,
        new_name: &'a [u8],
        flags: u32,
    },
    /// The request's inode is the new parent.
    Link {
        inode: Inode,
        new_name: &'a [u8],
    },
    /// `flags`: as `open(2)`.
    Open {
        flags: u32,
    },
    OpenDirectory,
    /// What `statx(2)` shows: asked where the birth time is wanted.
    Statx,
    /// Makes a regular file without a name and opens it (`O_TMPFILE`); `mode` and `flags` as with `Create`.
    CreateUnnamed {
        mode: u32,
        umask: u32,
        flags: u32,
    },
    /// Makes a regular file and opens it. `mode` includes the file-type bits, `flags` are those of `open(2)`.
    Create {
        name: &'a [u8],
        mode: u32,
        umask: u32,
        flags: u32,
    },
    Read {
        offset: u64,
        size: u32,
    },
    Write {
        offset: u64,
        data: &'a [u8],
        clear_set_ids: bool,
        /// The descriptor is for appending (`O_APPEND`): `offset` is only where the kernel believes the end to be.
        append: bool,
        /// The write went past the page cache (`O_DIRECT`).
        direct: bool,
    },
    Statistics,
    /// `flags`: those of the OPEN, as far as they can't change.
    Release {
        flags: u32,
    },
    ReleaseDirectory,
    Flush,
    Sync {
        data_only: bool,
    },
    SyncDirectory {
        data_only: bool,
    },
    SyncFileSystem,
    /// `flags`: as `setxattr(2)`.
    SetXattr {
        name: &'a [u8],
        value: &'a [u8],
        flags: u32,
    },
    /// `size` 0 asks how large the value is.
    GetXattr {
        name: &'a [u8],
        size: u32,
    },
    /// `size` 0 asks how large the list is.
    ListXattr {
        size: u32,
    },
    RemoveXattr {
        name: &'a [u8],
    },
    ReadDirectory {
        cookie: u64,
        size: u32,
        with_attributes: bool,
    },
    Access {
        mask: u32,
    },
    /// `mode`: as `fallocate(2)`.
    Allocate {
        offset: u64,
        length: u64,
        mode: u32,
    },
    /// `whence`: as `lseek(2)`; only `SEEK_DATA` and `SEEK_HOLE` are ever asked of us.
    Seek {
        offset: u64,
        whence: u32,
    },
    Ioctl,
    /// A request of a kind we don't know or don't negotiate: to be answered with `ENOSYS`.
    Other {
        opcode: u32,
    },
}

/// What the kernel offers at the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Init {
    /// The protocol's major version.
    pub major: u32,
    /// The newest minor version that the kernel speaks.
    pub minor: u32,
    /// How far the kernel would read ahead.
    pub readahead_bytes_max: u32,
    /// What the kernel can do, `flags2` in the upper half.
    pub flags: u64,
}

/// Changes to an inode's attributes: `valid` (the protocol's `FATTR_*`) says which of them are meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct SetAttributesRequest {
    pub valid: u32,
    pub size: u64,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub atime: (i64, u32),
    pub mtime: (i64, u32),
}

/// The references that a BATCH_FORGET gives back: an iterator over (inode, count).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Forgets<'a> {
    pub(super) rest: &'a [u8],
}

impl Iterator for Forgets<'_> {
    type Item = (Inode, u64);

    fn next(&mut self) -> Option<(Inode, u64)> {
        let (one, rest) = abi::ForgetOne::read_from_prefix(self.rest).ok()?;
        self.rest = rest;
        Some((Inode(one.nodeid), one.nlookup))
    }
}
