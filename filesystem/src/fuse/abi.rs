//! The kernel's FUSE protocol, 7.31 to 7.40, as plain structs and numbers.
//!
//! Every struct mirrors one of the kernel's, field for field, and is read and written with `zerocopy`: no pointer
//! casts of ours. Sizes are tested against the header's. Fields keep the header's names, so that the two can be
//! read side by side; padding is explicit, because `IntoBytes` refuses a struct with holes.
//!
//! It is not the whole header: CUSE, DAX mappings, locks, polls, ioctls, retrieval and security contexts are never
//! negotiated here, so their structs are deliberately absent.
//!
//! # Source
//!
//! Linux `include/uapi/linux/fuse.h`.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The protocol's major version, unchanged since 2006.
pub(super) const KERNEL_VERSION: u32 = 7;
/// The newest minor version whose messages we know.
pub(super) const KERNEL_MINOR_VERSION_MAX: u32 = 40;
/// The oldest minor version we serve: Linux 5.4, which has everything we negotiate that is not optional.
pub(super) const KERNEL_MINOR_VERSION_MIN: u32 = 31;

/// What every request starts with.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub(super) struct InHeader {
    pub(super) len: u32,
    pub(super) opcode: u32,
    pub(super) unique: u64,
    pub(super) nodeid: u64,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) pid: u32,
    /// Length of the extensions at the request's end, in units of 8 bytes; zero unless we negotiate some.
    pub(super) total_extlen: u16,
    pub(super) padding: u16,
}

/// What every reply and notification starts with.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub(super) struct OutHeader {
    pub(super) len: u32,
    /// Zero, a negated errno, or (where `unique` is zero) the code of a notification.
    pub(super) error: i32,
    pub(super) unique: u64,
}

/// An inode's attributes.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub(super) struct Attr {
    pub(super) ino: u64,
    pub(super) size: u64,
    pub(super) blocks: u64,
    pub(super) atime: u64,
    pub(super) mtime: u64,
    pub(super) ctime: u64,
    pub(super) atimensec: u32,
    pub(super) mtimensec: u32,
    pub(super) ctimensec: u32,
    pub(super) mode: u32,
    pub(super) nlink: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) rdev: u32,
    pub(super) blksize: u32,
    pub(super) flags: u32,
}

/// The answer to all that names an inode: LOOKUP, MKNOD, MKDIR, SYMLINK, LINK, and each entry of READDIRPLUS.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub(super) struct EntryOut {
    pub(super) nodeid: u64,
    pub(super) generation: u64,
    pub(super) entry_valid: u64,
    pub(super) attr_valid: u64,
    pub(super) entry_valid_nsec: u32,
    pub(super) attr_valid_nsec: u32,
    pub(super) attr: Attr,
}

/// The answer to GETATTR and SETATTR.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub(super) struct AttrOut {
    pub(super) attr_valid: u64,
    pub(super) attr_valid_nsec: u32,
    pub(super) dummy: u32,
    pub(super) attr: Attr,
}

/// A name in READDIR's answer; the name follows, padded to 8 bytes.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub(super) struct Dirent {
    pub(super) ino: u64,
    pub(super) off: u64,
    pub(super) namelen: u32,
    pub(super) r#type: u32,
}

/// INIT, as sent by kernels of 7.36 and newer; older ones end after `flags`.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub(super) struct InitIn {
    pub(super) major: u32,
    pub(super) minor: u32,
    pub(super) max_readahead: u32,
    pub(super) flags: u32,
    pub(super) flags2: u32,
    pub(super) unused: [u32; 11],
}

/// How much of [`InitIn`] every kernel sends.
pub(super) const INIT_IN_COMPAT_SIZE: usize = 16;

/// The answer to INIT.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub(super) struct InitOut {
    pub(super) major: u32,
    pub(super) minor: u32,
    pub(super) max_readahead: u32,
    pub(super) flags: u32,
    pub(super) max_background: u16,
    pub(super) congestion_threshold: u16,
    pub(super) max_write: u32,
    pub(super) time_gran: u32,
    pub(super) max_pages: u16,
    pub(super) map_alignment: u16,
    pub(super) flags2: u32,
    pub(super) max_stack_depth: u32,
    pub(super) unused: [u32; 6],
}

/// Declares structs that hold nothing but numbers, all readable from and writable to the wire.
macro_rules! wire {
    ($($(#[$doc:meta])* $name:ident { $($field:ident: $type:ty),* $(,)? })*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable)]
        #[repr(C)]
        #[allow(dead_code)] // The wire has fields we don't need.
        pub(super) struct $name { $(pub(super) $field: $type),* }
    )*};
}

wire! {
    /// FORGET: the kernel drops `nlookup` of the references that our entries gave it. No answer.
    ForgetIn { nlookup: u64 }
    /// BATCH_FORGET: `count` of [`ForgetOne`] follow. No answer.
    BatchForgetIn { count: u32, dummy: u32 }
    /// One of a batch.
    ForgetOne { nodeid: u64, nlookup: u64 }
    /// The answer to STATX but for what follows `time`.
    StatxOut { attr_valid: u64, attr_valid_nsec: u32, flags: u32, spare: [u64; 2], stat: Statx }
    /// What `statx(2)` shows.
    Statx {
        mask: u32, blksize: u32, attributes: u64, nlink: u32, uid: u32, gid: u32, mode: u16, spare0: u16, ino: u64,
        size: u64, blocks: u64, attributes_mask: u64, atime: StatxTime, btime: StatxTime, ctime: StatxTime,
        mtime: StatxTime, rdev_major: u32, rdev_minor: u32, dev_major: u32, dev_minor: u32, spare2: [u64; 14],
    }
    /// A time of [`Statx`].
    StatxTime { tv_sec: i64, tv_nsec: u32, reserved: i32 }
    /// GETATTR.
    GetattrIn { getattr_flags: u32, dummy: u32, fh: u64 }
    /// SETATTR: `valid` (see [`fattr`]) says which fields mean anything.
    SetattrIn {
        valid: u32, padding: u32, fh: u64, size: u64, lock_owner: u64, atime: u64, mtime: u64, ctime: u64,
        atimensec: u32, mtimensec: u32, ctimensec: u32, mode: u32, unused4: u32, uid: u32, gid: u32, unused5: u32,
    }
    /// MKNOD; the name follows.
    MknodIn { mode: u32, rdev: u32, umask: u32, padding: u32 }
    /// MKDIR; the name follows.
    MkdirIn { mode: u32, umask: u32 }
    /// RENAME; the old and the new name follow.
    RenameIn { newdir: u64 }
    /// RENAME2; the old and the new name follow.
    Rename2In { newdir: u64, flags: u32, padding: u32 }
    /// LINK; the new name follows, the header's inode is the new parent.
    LinkIn { oldnodeid: u64 }
    /// OPEN and OPENDIR.
    OpenIn { flags: u32, open_flags: u32 }
    /// The answer to OPEN and OPENDIR.
    OpenOut { fh: u64, open_flags: u32, padding: u32 }
    /// CREATE; the name follows.
    CreateIn { flags: u32, mode: u32, umask: u32, open_flags: u32 }
    /// RELEASE and RELEASEDIR.
    ReleaseIn { fh: u64, flags: u32, release_flags: u32, lock_owner: u64 }
    /// READ, READDIR and READDIRPLUS.
    ReadIn { fh: u64, offset: u64, size: u32, read_flags: u32, lock_owner: u64, flags: u32, padding: u32 }
    /// WRITE; `size` bytes follow.
    WriteIn { fh: u64, offset: u64, size: u32, write_flags: u32, lock_owner: u64, flags: u32, padding: u32 }
    /// The answer to WRITE and COPY_FILE_RANGE.
    WriteOut { size: u32, padding: u32 }
    /// The answer to STATFS.
    StatfsOut {
        blocks: u64, bfree: u64, bavail: u64, files: u64, ffree: u64,
        bsize: u32, namelen: u32, frsize: u32, padding: u32, spare: [u32; 6],
    }
    /// FSYNC and FSYNCDIR.
    FsyncIn { fh: u64, fsync_flags: u32, padding: u32 }
    /// SETXATTR without `SETXATTR_EXT`, which we don't negotiate; name and value follow.
    SetxattrIn { size: u32, flags: u32 }
    /// GETXATTR and LISTXATTR; for the former the name follows.
    GetxattrIn { size: u32, padding: u32 }
    /// The answer to GETXATTR and LISTXATTR that asked for the size.
    GetxattrOut { size: u32, padding: u32 }
    /// ACCESS; never sent under `default_permissions`.
    AccessIn { mask: u32, padding: u32 }
    /// INTERRUPT: whoever waits for the request named `unique` got a signal. No answer needed.
    InterruptIn { unique: u64 }
    /// FALLOCATE.
    FallocateIn { fh: u64, offset: u64, length: u64, mode: u32, padding: u32 }
    /// LSEEK.
    LseekIn { fh: u64, offset: u64, whence: u32, padding: u32 }
    /// The answer to LSEEK.
    LseekOut { offset: u64 }
    /// Notification: forget cached attributes and, from `off`, `len` bytes of the pages of an inode.
    NotifyInvalInodeOut { ino: u64, off: i64, len: i64 }
    /// Notification: forget a name; the name and a NUL follow.
    NotifyInvalEntryOut { parent: u64, namelen: u32, flags: u32 }
}

/// Request numbers.
pub(super) mod opcode {
    macro_rules! numbers { ($($name:ident = $value:literal),* $(,)?) => { $(pub(crate) const $name: u32 = $value;)* } }
    numbers! {
        LOOKUP = 1, FORGET = 2, GETATTR = 3, SETATTR = 4, READLINK = 5, SYMLINK = 6, MKNOD = 8, MKDIR = 9,
        UNLINK = 10, RMDIR = 11, RENAME = 12, LINK = 13, OPEN = 14, READ = 15, WRITE = 16, STATFS = 17,
        RELEASE = 18, FSYNC = 20, SETXATTR = 21, GETXATTR = 22, LISTXATTR = 23, REMOVEXATTR = 24, FLUSH = 25,
        INIT = 26, OPENDIR = 27, READDIR = 28, RELEASEDIR = 29, FSYNCDIR = 30, ACCESS = 34, CREATE = 35,
        INTERRUPT = 36, IOCTL = 39, DESTROY = 38, BATCH_FORGET = 42, FALLOCATE = 43, READDIRPLUS = 44,
        RENAME2 = 45, LSEEK = 46, SYNCFS = 50, TMPFILE = 51, STATX = 52,
    }
}

/// INIT's flags, those above bit 31 being `flags2`.
pub(super) mod init_flags {
    /// Several reads of one file may be under way at once.
    pub(crate) const ASYNC_READ: u64 = 1 << 0;
    /// LOOKUP understands `.` and `..`, and numbers are never given out twice: file handles live on.
    pub(crate) const EXPORT_SUPPORT: u64 = 1 << 4;
    /// A write may be larger than a page.
    pub(crate) const BIG_WRITES: u64 = 1 << 5;
    /// READDIRPLUS may be used...
    pub(crate) const DO_READDIRPLUS: u64 = 1 << 13;
    /// ... where the kernel guesses that the attributes will be asked for.
    pub(crate) const READDIRPLUS_AUTO: u64 = 1 << 14;
    /// Direct I/O may be split into requests that run at once.
    pub(crate) const ASYNC_DIO: u64 = 1 << 15;
    /// We apply the umask, where no default access list takes its place.
    pub(crate) const DONT_MASK: u64 = 1 << 6;
    /// The kernel obeys POSIX access control lists, which we keep.
    pub(crate) const POSIX_ACL: u64 = 1 << 20;
    /// Lookups and listings of one directory may run at once.
    pub(crate) const PARALLEL_DIROPS: u64 = 1 << 18;
    /// Reading the device after an abort says ECONNABORTED instead of ENODEV.
    pub(crate) const ABORT_ERROR: u64 = 1 << 21;
    /// `max_pages` of the answer is meant.
    pub(crate) const MAX_PAGES: u64 = 1 << 22;
    /// Symlink targets may be cached.
    pub(crate) const CACHE_SYMLINKS: u64 = 1 << 23;
    /// The kernel understands ENOSYS to OPENDIR as "never ask again".
    pub(crate) const NO_OPENDIR_SUPPORT: u64 = 1 << 24;
    /// We clear set-id bits on write, truncate and chown when told so; the kernel need not ask for
    /// `security.capability` before each write.
    pub(crate) const HANDLE_KILLPRIV_V2: u64 = 1 << 28;
    /// `flags2` is meant.
    pub(crate) const INIT_EXT: u64 = 1 << 30;
}

/// Bits of [`SetattrIn::valid`].
pub(super) mod fattr {
    macro_rules! bits { ($($name:ident = $bit:literal),* $(,)?) => { $(pub(crate) const $name: u32 = 1 << $bit;)* } }
    bits! {
        MODE = 0, UID = 1, GID = 2, SIZE = 3, ATIME = 4, MTIME = 5, ATIME_NOW = 7, MTIME_NOW = 8,
        KILL_SUIDGID = 11,
    }
}

/// Bits of [`OpenOut::open_flags`].
pub(super) mod open_flags {
    /// The pages that the kernel has of the file are still good.
    pub(crate) const KEEP_CACHE: u32 = 1 << 1;
    /// A close has nothing to tell us.
    pub(crate) const NOFLUSH: u32 = 1 << 5;
}

/// The system call's flags, as OPEN, CREATE, RELEASE and WRITE carry them; the same numbers on x86, ARM and RISC-V but
/// for `O_DIRECT`, which each machine has its own of.
pub(super) mod o_flags {
    /// Reading, writing, or both.
    pub(crate) const ACCESS_MODE: u32 = 3;
    /// For reading only.
    pub(crate) const READ_ONLY: u32 = 0;
    /// For reading and writing: the only descriptors that a page can be written through `mmap` by.
    pub(crate) const READ_WRITE: u32 = 2;
    /// The name must be new.
    pub(crate) const EXCLUSIVE: u32 = 0o200;
    /// Each write goes to the end.
    pub(crate) const APPEND: u32 = 0o2000;
    /// Past the page cache.
    pub(crate) const DIRECT: u32 = rustix::fs::OFlags::DIRECT.bits();
}

/// [`WriteIn::write_flags`]: the page cache writes what a program changed through `mmap`.
pub(super) const WRITE_CACHE: u32 = 1 << 0;
/// [`WriteIn::write_flags`]: clear the set-id bits.
pub(super) const WRITE_KILL_SUIDGID: u32 = 1 << 2;
/// [`FsyncIn::fsync_flags`]: the data is enough.
pub(super) const FSYNC_FDATASYNC: u32 = 1 << 0;
/// [`OutHeader::error`] of a notification that an inode's cache is stale.
pub(super) const NOTIFY_INVAL_INODE: i32 = 2;
/// [`OutHeader::error`] of a notification that a name is stale.
pub(super) const NOTIFY_INVAL_ENTRY: i32 = 3;

#[cfg(test)]
mod tests {
    use super::*;
    use std::mem::size_of;

    #[test]
    fn sizes_are_those_of_the_kernel_header() {
        // Computed by a C compiler from <linux/fuse.h>.
        let sizes = [
            ("in_header", size_of::<InHeader>(), 40),
            ("out_header", size_of::<OutHeader>(), 16),
            ("attr", size_of::<Attr>(), 88),
            ("entry_out", size_of::<EntryOut>(), 128),
            ("attr_out", size_of::<AttrOut>(), 104),
            ("dirent", size_of::<Dirent>(), 24),
            ("init_in", size_of::<InitIn>(), 64),
            ("init_out", size_of::<InitOut>(), 64),
            ("forget_in", size_of::<ForgetIn>(), 8),
            ("batch_forget_in", size_of::<BatchForgetIn>(), 8),
            ("forget_one", size_of::<ForgetOne>(), 16),
            ("statx_out", size_of::<StatxOut>(), 288),
            ("statx", size_of::<Statx>(), 256),
            ("getattr_in", size_of::<GetattrIn>(), 16),
            ("setattr_in", size_of::<SetattrIn>(), 88),
            ("mknod_in", size_of::<MknodIn>(), 16),
            ("mkdir_in", size_of::<MkdirIn>(), 8),
            ("rename_in", size_of::<RenameIn>(), 8),
            ("rename2_in", size_of::<Rename2In>(), 16),
            ("link_in", size_of::<LinkIn>(), 8),
            ("open_in", size_of::<OpenIn>(), 8),
            ("open_out", size_of::<OpenOut>(), 16),
            ("create_in", size_of::<CreateIn>(), 16),
            ("release_in", size_of::<ReleaseIn>(), 24),
            ("read_in", size_of::<ReadIn>(), 40),
            ("write_in", size_of::<WriteIn>(), 40),
            ("write_out", size_of::<WriteOut>(), 8),
            ("statfs_out", size_of::<StatfsOut>(), 80),
            ("fsync_in", size_of::<FsyncIn>(), 16),
            ("setxattr_in (compat)", size_of::<SetxattrIn>(), 8),
            ("getxattr_in", size_of::<GetxattrIn>(), 8),
            ("getxattr_out", size_of::<GetxattrOut>(), 8),
            ("access_in", size_of::<AccessIn>(), 8),
            ("interrupt_in", size_of::<InterruptIn>(), 8),
            ("fallocate_in", size_of::<FallocateIn>(), 32),
            ("lseek_in", size_of::<LseekIn>(), 24),
            ("lseek_out", size_of::<LseekOut>(), 8),
            ("notify_inval_inode_out", size_of::<NotifyInvalInodeOut>(), 24),
            ("notify_inval_entry_out", size_of::<NotifyInvalEntryOut>(), 16),
        ];
        for (name, ours, theirs) in sizes {
            assert_eq!(ours, theirs, "struct fuse_{name}");
        }
    }
}
