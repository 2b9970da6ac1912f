//! Replies and notifications: from typed values to the slices of one `writev`.
//!
//! A reply is a header, at most one fixed struct, and for READ the very slices that the cache holds: file content is
//! never copied in user space on its way out. Pure: [`Reply::slices`] hands the slices to whoever writes them.
//!
//! It is not the place that decides an answer (see `dispatch`), nor does it count the references that an entry gives
//! the kernel.

use std::io::IoSlice;

use smallvec::SmallVec;
use zerocopy::IntoBytes;

use super::abi::{self, open_flags};
use crate::errno::Errno;
use crate::operations::{Attributes, DirectoryEntry, Inode, ReadBytes, Sharing, Statistics, Time};

/// The size that `stat` gives as best for I/O. A page: newer kernels also take it as the page cache's block size.
const BLOCK_SIZE_BYTES: u32 = 4096;

/// A `writev` takes no more slices than this (`UIO_MAXIOV`); longer lists are joined first.
const SLICES_MAX: usize = 1024;

/// The answer to one request.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Reply {
    /// The request wants none.
    None,
    /// It failed.
    Error(Errno),
    /// Done, and there's nothing to say.
    Empty,
    /// The inode behind a name, and for how many seconds the kernel may keep both.
    Entry(Attributes, u64),
    /// There's no such name; how long the kernel may remember that follows from who else writes.
    NoEntry(Sharing),
    /// An inode's attributes, and for how many seconds the kernel may keep them.
    Attributes(Attributes, u64),
    /// The same with its birth time.
    Statx(Attributes, u64),
    /// A file is open.
    Opened(Opened),
    /// A file is new, and open.
    Created(Attributes, Sharing, Opened),
    /// So many bytes were written.
    Written(u32),
    /// File content.
    Content(ReadBytes),
    /// A packed directory listing, a symlink's target, an attribute's value or a list of names.
    Buffer(Vec<u8>),
    /// How large an attribute's value or the list of names is.
    XattrSize(u32),
    /// What `statfs` shows.
    Statistics(Statistics),
    /// Where `lseek` ended.
    Position(u64),
    /// What we agree to.
    Init(Agreement),
}

/// What the kernel is told of an open file. The pages that it has of it stay: what of them is stale it has been told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Opened {
    /// Closing it is worth a FLUSH: it may have been written.
    pub flush: bool,
}

/// What was negotiated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Agreement {
    /// The protocol's minor version that both sides speak.
    pub minor: u32,
    /// Flags, `flags2` in the upper half.
    pub flags: u64,
    /// How far the kernel reads ahead.
    pub readahead_bytes_max: u32,
    /// The largest write.
    pub write_bytes_max: u32,
    /// The largest request, in pages.
    pub pages_max: u16,
    /// How many requests that no program waits for may be under way.
    pub background_max: u16,
}

impl Reply {
    /// Calls `write` with the whole reply, or not at all if there is none to write.
    pub fn slices<R>(&self, unique: u64, write: impl FnOnce(&[IoSlice<'_>]) -> R) -> Option<R> {
        let mut fixed = SmallVec::<[u8; 288]>::new();
        let mut joined = Vec::new();
        let mut rest = SmallVec::<[&[u8]; 40]>::new();
        let mut error = 0;
        match self {
            Reply::None => return None,
            Reply::Error(errno) => error = -errno.0,
            Reply::Empty => {}
            Reply::Entry(attributes, seconds) => {
                fixed.extend_from_slice(entry(Some(attributes), *seconds).as_bytes());
            }
            Reply::NoEntry(sharing) => {
                fixed.extend_from_slice(entry(None, sharing.absence_seconds()).as_bytes());
            }
            Reply::Opened(opened) => fixed.extend_from_slice(open(*opened).as_bytes()),
            Reply::Created(attributes, sharing, opened) => {
                fixed.extend_from_slice(entry(Some(attributes), sharing.cache_seconds()).as_bytes());
                fixed.extend_from_slice(open(*opened).as_bytes());
            }
            Reply::Attributes(attributes, seconds) => {
                let out = abi::AttrOut {
                    attr_valid: *seconds,
                    attr_valid_nsec: 0,
                    dummy: 0,
                    attr: attr(attributes),
                };
                fixed.extend_from_slice(out.as_bytes());
            }
            Reply::Statx(attributes, seconds) => {
                fixed.extend_from_slice(statx(attributes, *seconds).as_bytes());
            }
            Reply::Written(size) => {
                fixed.extend_from_slice(abi::WriteOut { size: *size, padding: 0 }.as_bytes());
            }
            Reply::Content(content) if content.len() + 2 > SLICES_MAX => {
                content.iter().for_each(|slice| joined.extend_from_slice(slice));
                rest.push(&joined);
            }
            Reply::Content(content) => rest.extend(content.iter().map(|slice| slice.as_ref())),
            Reply::Buffer(buffer) => rest.push(buffer),
            Reply::XattrSize(size) => {
                fixed.extend_from_slice(abi::GetxattrOut { size: *size, padding: 0 }.as_bytes());
            }
            Reply::Statistics(statistics) => fixed.extend_from_slice(statfs(statistics).as_bytes()),
            Reply::Position(offset) => {
                fixed.extend_from_slice(abi::LseekOut { offset: *offset }.as_bytes());
            }
            Reply::Init(agreement) => fixed.extend_from_slice(init(agreement).as_bytes()),
        }
        let len =
            size_of::<abi::OutHeader>() + fixed.len() + rest.iter().map(|slice| slice.len()).sum::<usize>();
        let header = abi::OutHeader { len: len as u32, error, unique };
        let mut slices = SmallVec::<[IoSlice<'_>; 42]>::new();
        slices.push(IoSlice::new(header.as_bytes()));
        if !fixed.is_empty() {
            slices.push(IoSlice::new(&fixed));
        }
        slices.extend(rest.iter().filter(|slice| !slice.is_empty()).map(|slice| IoSlice::new(slice)));
        Some(write(&slices))
    }
}

/// Packs a directory listing until the kernel's buffer is full.
#[derive(Debug)]
pub struct DirectoryPacker {
    buffer: Vec<u8>,
    size_max: usize,
    with_attributes: bool,
    sharing: Sharing,
}

impl DirectoryPacker {
    /// Starts a listing of at most `size_max` bytes, which the caller has bounded.
    pub fn new(size_max: usize, with_attributes: bool, sharing: Sharing) -> DirectoryPacker {
        DirectoryPacker { buffer: Vec::with_capacity(size_max), size_max, with_attributes, sharing }
    }

    /// Returns how many entries can fit into `size_max` bytes at most, given that a name has at least one byte.
    pub fn count_max(size_max: usize, with_attributes: bool) -> usize {
        size_max / record_size(1, with_attributes)
    }

    /// Adds `entry`; returns false, and adds nothing, if it does not fit any more.
    pub fn push(&mut self, entry: &DirectoryEntry) -> bool {
        let size = record_size(entry.name.len(), self.with_attributes);
        if self.buffer.len() + size > self.size_max {
            return false;
        }
        let end = self.buffer.len() + size;
        if self.with_attributes {
            let seconds = self.sharing.cache_seconds();
            self.buffer.extend_from_slice(self::entry(entry.attributes.as_ref(), seconds).as_bytes());
        }
        let dirent = abi::Dirent {
            ino: entry.inode.0,
            off: entry.cookie,
            namelen: entry.name.len() as u32,
            r#type: u32::from(entry.kind.dirent_type()),
        };
        self.buffer.extend_from_slice(dirent.as_bytes());
        self.buffer.extend_from_slice(&entry.name);
        self.buffer.resize(end, 0);
        true
    }

    /// Returns the listing; an empty one tells the kernel that the directory has ended.
    pub fn finish(self) -> Reply {
        Reply::Buffer(self.buffer)
    }
}

fn record_size(name_size: usize, with_attributes: bool) -> usize {
    let fixed = size_of::<abi::Dirent>() + if with_attributes { size_of::<abi::EntryOut>() } else { 0 };
    (fixed + name_size).next_multiple_of(8)
}

/// A message that the kernel has not asked for: some of what it caches is stale.
///
/// Writing it can wait for a page whose request we have yet to answer: never write it on the reactor's thread.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Notification {
    /// An inode's attributes only.
    Attributes(Inode),
    /// An inode's attributes and all of its content. What was changed through `mmap` is written back first.
    Inode(Inode),
    /// An inode's attributes and so many bytes of its content from an offset.
    Content(Inode, u64, u64),
    /// What a directory says of a name.
    Entry(Inode, Vec<u8>),
}

impl Notification {
    /// Returns the message's bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let (code, body) = match self {
            Notification::Attributes(inode) => {
                let out = abi::NotifyInvalInodeOut { ino: inode.0, off: -1, len: 0 };
                (abi::NOTIFY_INVAL_INODE, out.as_bytes().to_vec())
            }
            Notification::Inode(inode) => {
                // Length 0 from offset 0: all of the content.
                let out = abi::NotifyInvalInodeOut { ino: inode.0, off: 0, len: 0 };
                (abi::NOTIFY_INVAL_INODE, out.as_bytes().to_vec())
            }
            Notification::Content(inode, offset, size) => {
                // At most what a file may hold, so both fit.
                let (off, len) = (offset.cast_signed(), size.cast_signed());
                let out = abi::NotifyInvalInodeOut { ino: inode.0, off, len };
                (abi::NOTIFY_INVAL_INODE, out.as_bytes().to_vec())
            }
            Notification::Entry(parent, name) => {
                let out = abi::NotifyInvalEntryOut { parent: parent.0, namelen: name.len() as u32, flags: 0 };
                (abi::NOTIFY_INVAL_ENTRY, [out.as_bytes(), name, &[0]].concat())
            }
        };
        let len = (size_of::<abi::OutHeader>() + body.len()) as u32;
        [abi::OutHeader { len, error: code, unique: 0 }.as_bytes(), &body].concat()
    }
}

fn open(opened: Opened) -> abi::OpenOut {
    let flush = if opened.flush { 0 } else { open_flags::NOFLUSH };
    abi::OpenOut { fh: 0, open_flags: open_flags::KEEP_CACHE | flush, padding: 0 }
}

fn entry(attributes: Option<&Attributes>, seconds: u64) -> abi::EntryOut {
    abi::EntryOut {
        // An inode of zero says "no such name" while it may be cached, as ENOENT may not.
        nodeid: attributes.map_or(0, |attributes| attributes.inode.0),
        // Inode numbers are never given out twice, so there is only one generation.
        generation: 0,
        entry_valid: seconds,
        attr_valid: seconds,
        entry_valid_nsec: 0,
        attr_valid_nsec: 0,
        attr: attributes.map_or(zeroed_attr(), attr),
    }
}

fn attr(attributes: &Attributes) -> abi::Attr {
    abi::Attr {
        ino: attributes.inode.0,
        size: attributes.size,
        blocks: attributes.blocks_512,
        atime: attributes.atime.seconds.cast_unsigned(),
        mtime: attributes.mtime.seconds.cast_unsigned(),
        ctime: attributes.ctime.seconds.cast_unsigned(),
        atimensec: attributes.atime.nanoseconds,
        mtimensec: attributes.mtime.nanoseconds,
        ctimensec: attributes.ctime.nanoseconds,
        mode: attributes.kind.mode_bits() | attributes.mode & 0o7777,
        nlink: attributes.nlink,
        uid: attributes.uid,
        gid: attributes.gid,
        rdev: attributes.rdev,
        blksize: BLOCK_SIZE_BYTES,
        flags: 0,
    }
}

fn statx(attributes: &Attributes, seconds: u64) -> abi::StatxOut {
    /// `STATX_BASIC_STATS | STATX_BTIME`: which fields mean anything.
    const ALL: u32 = 0xfff;
    let attr = attr(attributes);
    let time = |time: Time| abi::StatxTime { tv_sec: time.seconds, tv_nsec: time.nanoseconds, reserved: 0 };
    abi::StatxOut {
        attr_valid: seconds,
        attr_valid_nsec: 0,
        flags: 0,
        spare: [0; 2],
        stat: abi::Statx {
            mask: ALL,
            blksize: attr.blksize,
            attributes: 0,
            nlink: attr.nlink,
            uid: attr.uid,
            gid: attr.gid,
            // Kinds and permissions are 16 bits.
            mode: attr.mode as u16,
            spare0: 0,
            ino: attr.ino,
            size: attr.size,
            blocks: attr.blocks,
            attributes_mask: 0,
            atime: time(attributes.atime),
            btime: time(attributes.btime),
            ctime: time(attributes.ctime),
            mtime: time(attributes.mtime),
            // As the kernel splits a device's number of 32 bits (`new_decode_dev`).
            rdev_major: (attr.rdev & 0x000f_ff00) >> 8,
            rdev_minor: (attr.rdev & 0xff) | ((attr.rdev >> 12) & 0x000f_ff00),
            dev_major: 0,
            dev_minor: 0,
            spare2: [0; 14],
        },
    }
}

fn zeroed_attr() -> abi::Attr {
    zerocopy::FromZeros::new_zeroed()
}

fn statfs(statistics: &Statistics) -> abi::StatfsOut {
    abi::StatfsOut {
        blocks: statistics.block_count,
        bfree: statistics.free_block_count,
        bavail: statistics.free_block_count,
        files: statistics.inode_count,
        ffree: statistics.free_inode_count,
        bsize: statistics.block_size,
        namelen: statistics.name_size_max,
        frsize: statistics.block_size,
        padding: 0,
        spare: [0; 6],
    }
}

fn init(agreement: &Agreement) -> abi::InitOut {
    abi::InitOut {
        major: abi::KERNEL_VERSION,
        minor: agreement.minor,
        max_readahead: agreement.readahead_bytes_max,
        flags: agreement.flags as u32,
        max_background: agreement.background_max,
        // Above three quarters the kernel calls the device congested, as is its own default.
        congestion_threshold: agreement.background_max / 4 * 3,
        max_write: agreement.write_bytes_max,
        // Nanoseconds.
        time_gran: 1,
        max_pages: agreement.pages_max,
        map_alignment: 0,
        flags2: (agreement.flags >> 32) as u32,
        max_stack_depth: 0,
        unused: [0; 6],
    }
}

#[cfg(test)]
mod tests;
