//! The file operations that a mount asks for: the line between FUSE's protocol and the volume behind it.
//!
//! One side turns kernel requests into these calls and knows no tree; the other keeps the tree and knows no FUSE.
//! Every method is plain sequential code: it returns when it is done and suspends its coroutine where it must wait.
//! An operation that finds all it needs in memory never suspends, so a request loop may call it directly and only pays
//! for a coroutine switch when something has to be fetched.
//!
//! Not here: permission checks (the kernel does them, `default_permissions`), access times on reads (the mount is
//! `noatime`), open files (the kernel's reference to an inode keeps it alive, see [`Operations::remember`]), locks (the
//! kernel keeps them per mount).

use std::time::SystemTime;

use bytes::Bytes;
use smallvec::SmallVec;

use crate::errno::Errno;

/// The number of a file, directory or other node, unique in its volume for ever: a number is never given out twice.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Inode(pub u64);

impl Inode {
    /// The directory that everything hangs from. FUSE wants it to be 1.
    pub const ROOT: Inode = Inode(1);
}

/// The longest name of a directory entry, in bytes: what Linux allows.
pub const NAME_SIZE_MAX: usize = 255;
/// The longest target of a symbolic link, in bytes: `PATH_MAX` without its final zero.
pub const SYMLINK_SIZE_MAX: usize = 4095;
/// The greatest file size in bytes: frame indices stay below 2^32, and offsets far below what `off_t` holds.
pub const FILE_SIZE_MAX: u64 = 1 << 47;
/// The longest value of one extended attribute, in bytes: what Linux allows.
pub const XATTR_VALUE_SIZE_MAX: usize = 64 * 1024;

/// What a node is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum FileKind {
    /// What a later version put there: it has a name, and nothing else that this version could show.
    Unknown = 0,
    /// A file with bytes.
    Regular = 1,
    /// A directory.
    Directory = 2,
    /// A symbolic link.
    Symlink = 3,
    /// A named pipe.
    Fifo = 4,
    /// A Unix socket.
    Socket = 5,
    /// A character device.
    CharacterDevice = 6,
    /// A block device.
    BlockDevice = 7,
}

impl FileKind {
    /// Returns the file-type bits of `st_mode` (`S_IFREG` and so on).
    pub const fn mode_bits(self) -> u32 {
        match self {
            FileKind::Unknown => 0,
            FileKind::Regular => 0o100_000,
            FileKind::Directory => 0o040_000,
            FileKind::Symlink => 0o120_000,
            FileKind::Fifo => 0o010_000,
            FileKind::Socket => 0o140_000,
            FileKind::CharacterDevice => 0o020_000,
            FileKind::BlockDevice => 0o060_000,
        }
    }

    /// Returns the kind that `st_mode` names, or `None` if it names none. Zero file-type bits mean a regular file, as
    /// in `mknod(2)`.
    pub const fn from_mode(mode: u32) -> Option<FileKind> {
        Some(match mode & 0o170_000 {
            0 | 0o100_000 => FileKind::Regular,
            0o040_000 => FileKind::Directory,
            0o120_000 => FileKind::Symlink,
            0o010_000 => FileKind::Fifo,
            0o140_000 => FileKind::Socket,
            0o020_000 => FileKind::CharacterDevice,
            0o060_000 => FileKind::BlockDevice,
            _ => return None,
        })
    }

    /// Returns the number that `d_type` holds (`DT_REG` and so on).
    pub const fn dirent_type(self) -> u8 {
        (self.mode_bits() >> 12) as u8
    }

    /// Returns the kind whose discriminant is `byte`.
    pub const fn from_byte(byte: u8) -> Option<FileKind> {
        Some(match byte {
            1 => FileKind::Regular,
            2 => FileKind::Directory,
            3 => FileKind::Symlink,
            4 => FileKind::Fifo,
            5 => FileKind::Socket,
            6 => FileKind::CharacterDevice,
            7 => FileKind::BlockDevice,
            _ => return None,
        })
    }
}

/// A point in time since 1970, UTC; `seconds` may be negative, `nanoseconds` is always below 10^9.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Time {
    /// Whole seconds, rounded down.
    pub seconds: i64,
    /// The rest.
    pub nanoseconds: u32,
}

impl Time {
    /// Returns the time of the clock that stamps every file of a drive, some milliseconds coarse.
    ///
    /// It is the clock that local file systems stamp theirs with: a finer one would make a file here look newer than one
    /// there that was written after it, and `make` would build again what it has just built.
    pub fn now() -> Time {
        reactor::file_clock().into()
    }
}

impl From<SystemTime> for Time {
    fn from(time: SystemTime) -> Time {
        let seconds = |whole: u64| i64::try_from(whole).unwrap_or(i64::MAX);
        match time.duration_since(SystemTime::UNIX_EPOCH) {
            Ok(since) => Time { seconds: seconds(since.as_secs()), nanoseconds: since.subsec_nanos() },
            Err(before) => {
                let before = before.duration();
                let (borrowed, nanoseconds) = match before.subsec_nanos() {
                    0 => (0, 0),
                    nanoseconds => (1, 1_000_000_000 - nanoseconds),
                };
                Time { seconds: -seconds(before.as_secs()) - borrowed, nanoseconds }
            }
        }
    }
}

/// What `stat` shows of a node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Attributes {
    /// The node's number.
    pub inode: Inode,
    /// What it is.
    pub kind: FileKind,
    /// The permission bits with setuid, setgid and sticky (`0o7777`), without the file-type bits.
    pub mode: u32,
    /// The owner.
    pub uid: u32,
    /// The owning group.
    pub gid: u32,
    /// How many names it has; for directories, 2 and one more for each sub-directory.
    pub nlink: u32,
    /// Bytes of content; for a symlink, of its target.
    pub size: u64,
    /// Space in units of 512 bytes; holes take none.
    pub blocks_512: u64,
    /// Last access, as set by `utimes`: reads do not change it.
    pub atime: Time,
    /// Last change of content.
    pub mtime: Time,
    /// Last change of content or attributes.
    pub ctime: Time,
    /// When it was made.
    pub btime: Time,
    /// A device's number.
    pub rdev: u32,
}

/// Which attributes to change; what is `None` stays.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SetAttributes {
    /// New permission bits (`0o7777`).
    pub mode: Option<u32>,
    /// New owner.
    pub uid: Option<u32>,
    /// New group.
    pub gid: Option<u32>,
    /// New size: cuts the file off, or lengthens it with a hole.
    pub size: Option<u64>,
    /// New access time.
    pub atime: Option<Time>,
    /// New modification time.
    pub mtime: Option<Time>,
    /// Clear setuid and setgid as a write by an ordinary user does (`FATTR_KILL_SUIDGID`).
    pub clear_set_ids: bool,
}

/// Who asks: whom a new node belongs to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Credentials {
    /// The caller's file-system user.
    pub uid: u32,
    /// The caller's file-system group.
    pub gid: u32,
    /// Permission bits to clear; zero if the kernel has applied the umask already.
    pub umask: u32,
}

/// How a rename treats a taken name.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct RenameFlags {
    /// Fail with `EEXIST` if the new name is taken (`RENAME_NOREPLACE`).
    pub no_replace: bool,
    /// Swap the two names, which must both exist (`RENAME_EXCHANGE`).
    pub exchange: bool,
    /// Leave a whiteout in the old name's place (`RENAME_WHITEOUT`).
    pub whiteout: bool,
}

/// One name in a directory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DirectoryEntry {
    /// The name: no slash, no zero byte.
    pub name: Bytes,
    /// What it names.
    pub inode: Inode,
    /// What kind that is.
    pub kind: FileKind,
    /// Where a listing goes on after this entry; never 0, below 2^63.
    pub cookie: u64,
    /// The node's attributes, if the listing was asked for them. `.` and `..` have none.
    pub attributes: Option<Attributes>,
}

/// The content that a read found: slices in order, shared with the cache, so that a reply can be written without a copy.
pub type ReadBytes = SmallVec<[Bytes; 4]>;

/// What `seek` looks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Whence {
    /// The next byte that is not in a hole.
    Data,
    /// The next hole; the end of the file counts as one.
    Hole,
}

/// What `fallocate` does with its range.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct AllocateMode {
    /// The size stays even if the range passes it (`FALLOC_FL_KEEP_SIZE`).
    pub keep_size: bool,
    /// The range becomes a hole (`FALLOC_FL_PUNCH_HOLE`, which demands `keep_size`).
    pub punch_hole: bool,
    /// The range reads as zeros (`FALLOC_FL_ZERO_RANGE`).
    pub zero_range: bool,
    /// The caller may not keep setuid and setgid: it counts as a write.
    pub clear_set_ids: bool,
}

/// How setting an extended attribute treats one that exists.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum XattrMode {
    /// Create or replace.
    Set,
    /// Fail with `EEXIST` if it exists (`XATTR_CREATE`).
    Create,
    /// Fail with `ENODATA` if it does not (`XATTR_REPLACE`).
    Replace,
}

/// What `statfs` shows of the volume.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Statistics {
    /// The unit of the block counts, in bytes.
    pub block_size: u32,
    /// All blocks.
    pub block_count: u64,
    /// Free blocks.
    pub free_block_count: u64,
    /// How many nodes there could be.
    pub inode_count: u64,
    /// How many more there could be.
    pub free_inode_count: u64,
    /// The longest name.
    pub name_size_max: u32,
}

/// Whether others change what is mounted, while it is: the one thing that decides what the kernel may keep and what an
/// open and a close do.
///
/// It may change while mounted: it is asked at each reply.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sharing {
    /// Nobody does. The kernel may keep names and attributes for as long as it likes; opens and closes cost nothing.
    Alone,
    /// Nobody does, for a second at least. Opens and closes cost nothing; but this may end at any time, so the kernel keeps
    /// names and attributes as it does with others: should this process be stopped meanwhile, they run out by themselves.
    Leased,
    /// Other mounts do. Names and attributes are kept for a second, for changes are told of within about one; an open
    /// sees what was closed before it (close-to-open, as with NFS), since a close stores what was written and an open
    /// looks for it.
    WithOthers,
}

impl Sharing {
    /// How long the kernel may keep names and attributes unasked, in seconds.
    pub const fn cache_seconds(self) -> u64 {
        match self {
            Sharing::Alone => 3600,
            Sharing::Leased | Sharing::WithOthers => 1,
        }
    }

    /// How long the kernel may keep that a name is missing, in seconds. An open asks for what it knows, and so cannot find
    /// out that another mount has just made what it does not.
    pub const fn absence_seconds(self) -> u64 {
        match self {
            Sharing::Alone | Sharing::Leased => self.cache_seconds(),
            Sharing::WithOthers => 0,
        }
    }

    /// Whether nobody else changes anything now.
    pub const fn is_alone(self) -> bool {
        matches!(self, Sharing::Alone | Sharing::Leased)
    }
}

/// Something that another writer changed under the kernel's caches.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Invalidation {
    /// The attributes and the content of this inode.
    Inode(Inode),
    /// What this directory says of this name.
    Entry(Inode, Bytes),
}

/// POSIX operations on a volume.
///
/// Names are single components: not empty, no slash, no zero byte, at most [`NAME_SIZE_MAX`] bytes
/// (`ENAMETOOLONG` beyond); `.` and `..` are for the kernel to resolve, save in [`lookup`](Operations::lookup).
///
/// # Errors
///
/// Beside the error numbers that each operation's manual page lists: `EIO` if what the store returned does not verify,
/// `ETIMEDOUT` if the store could not be reached for long (nothing is lost by it), `EHOSTUNREACH` for what is not on this
/// machine then, `EROFS`, `ENOSPC`. Where the store is away and this machine's journal takes nothing either, what changed
/// something says `EIO` or `ENOSPC`: the change is shown, and tried again, but in memory only.
///
/// # Suspends
///
/// Every method, while it waits for the store; none if all is in memory. The methods that say "never" may be called
/// where nothing may be suspended.
pub trait Operations {
    /// Finds `name` in `parent`; `.` and `..` too, the former of any node: a file handle holds no more than a number.
    fn lookup(&self, parent: Inode, name: &[u8]) -> Result<Attributes, Errno>;

    /// Counts one more reference of the kernel to `inode`: call it for each entry reply (lookup, creation, link,
    /// readdirplus) directly after the call that returned its attributes. An inode without names lives until its
    /// references are given back by [`forget`](Operations::forget), so that open files stay readable.
    ///
    /// # Suspends
    ///
    /// Never.
    fn remember(&self, inode: Inode);

    /// Gives back `count` references. An inode with neither names nor references is reclaimed in the background.
    ///
    /// # Suspends
    ///
    /// Never.
    fn forget(&self, inode: Inode, count: u64);

    /// Returns what `stat` shows.
    fn attributes(&self, inode: Inode) -> Result<Attributes, Errno>;

    /// Changes attributes, the size among them, and returns them all.
    fn set_attributes(&self, inode: Inode, changes: &SetAttributes) -> Result<Attributes, Errno>;

    /// Creates a node of any kind but directory and symlink. `mode` holds permission bits only.
    fn make_node(
        &self,
        parent: Inode,
        name: &[u8],
        kind: FileKind,
        mode: u32,
        rdev: u32,
        credentials: &Credentials,
    ) -> Result<Attributes, Errno>;

    /// Creates a regular file without a name in the file system of `directory` (`O_TMPFILE`): it goes with its last
    /// reference, unless [`link`](Operations::link) gives it a name.
    fn make_unnamed(
        &self,
        directory: Inode,
        mode: u32,
        credentials: &Credentials,
    ) -> Result<Attributes, Errno> {
        let _ = (directory, mode, credentials);
        Err(Errno::EOPNOTSUPP)
    }

    /// Creates a directory.
    fn make_directory(
        &self,
        parent: Inode,
        name: &[u8],
        mode: u32,
        credentials: &Credentials,
    ) -> Result<Attributes, Errno>;

    /// Creates a symbolic link.
    fn make_symlink(
        &self,
        parent: Inode,
        name: &[u8],
        target: &[u8],
        credentials: &Credentials,
    ) -> Result<Attributes, Errno>;

    /// Returns a symbolic link's target.
    fn read_symlink(&self, inode: Inode) -> Result<Bytes, Errno>;

    /// Gives `inode` one more name.
    fn link(&self, inode: Inode, new_parent: Inode, new_name: &[u8]) -> Result<Attributes, Errno>;

    /// Removes a name that is no directory's.
    fn unlink(&self, parent: Inode, name: &[u8]) -> Result<(), Errno>;

    /// Removes an empty directory.
    fn remove_directory(&self, parent: Inode, name: &[u8]) -> Result<(), Errno>;

    /// Moves a name, in one step for every observer, over what the new name was.
    fn rename(
        &self,
        parent: Inode,
        name: &[u8],
        new_parent: Inode,
        new_name: &[u8],
        flags: RenameFlags,
    ) -> Result<(), Errno>;

    /// Reads up to `size` bytes; fewer only at the end of the file.
    fn read(&self, inode: Inode, offset: u64, size: u32) -> Result<ReadBytes, Errno>;

    /// Writes all of `data`. `clear_set_ids`: the caller may not keep setuid and setgid (`FUSE_WRITE_KILL_SUIDGID`).
    ///
    /// # Suspends
    ///
    /// Also while too many bytes wait to be committed, and while a partly overwritten frame is fetched.
    fn write(&self, inode: Inode, offset: u64, data: &[u8], clear_set_ids: bool) -> Result<(), Errno>;

    /// Writes all of `data` at the file's end, wherever another mount has moved that to, and returns the offset. Where
    /// several mounts append to one file at once, nothing of either is lost.
    fn append(&self, inode: Inode, data: &[u8], clear_set_ids: bool) -> Result<u64, Errno>;

    /// Called before a file is opened: what other mounts stored before is seen after it.
    ///
    /// # Errors
    ///
    /// `ESTALE` if the name that led here has just become another file's: look the path up again.
    fn open(&self, inode: Inode) -> Result<(), Errno>;

    /// Says whether `inode` may be opened for writing, beyond what its mode says: what is past may not.
    ///
    /// # Errors
    ///
    /// `EROFS`.
    fn may_write(&self, inode: Inode) -> Result<(), Errno> {
        let _ = inode;
        Ok(())
    }

    /// Called when a descriptor that can write is closed: what it wrote is seen by whoever opens the file after it, on any
    /// mount; if the store is away, once it is back, and until then it is kept on this machine.
    ///
    /// # Errors
    ///
    /// Those of the commit: `ENOSPC`, `ETIMEDOUT` where it can't be kept here; those of the journal's disk.
    fn flush(&self, inode: Inode) -> Result<(), Errno>;

    /// Lists a directory from after `cookie` (0: from the start), `.` and `..` first; at most `count_max` entries; an
    /// empty list means the end. `with_attributes` asks for each entry's attributes.
    fn read_directory(
        &self,
        inode: Inode,
        cookie: u64,
        count_max: usize,
        with_attributes: bool,
    ) -> Result<Vec<DirectoryEntry>, Errno>;

    /// Makes a file (`Some`) or everything (`None`) durable; `data_only` may leave out times (`fdatasync`). Returns
    /// when the commit is on its quorum, or, with write-back, when the journal is on the disk.
    fn sync(&self, inode: Option<Inode>, data_only: bool) -> Result<(), Errno>;

    /// Does what `fallocate` does, as far as it can be kept: what is allocated fits at the time, but is not set aside, for
    /// others use the same nodes.
    fn allocate(&self, inode: Inode, mode: AllocateMode, offset: u64, length: u64) -> Result<(), Errno>;

    /// Finds the next data or hole at or after `offset`; `ENXIO` beyond the end.
    fn seek(&self, inode: Inode, offset: u64, whence: Whence) -> Result<u64, Errno>;

    /// Returns what `statfs` shows.
    fn statistics(&self) -> Result<Statistics, Errno>;

    /// Returns an extended attribute's value; `ENODATA` if there is none.
    fn get_xattr(&self, inode: Inode, name: &[u8]) -> Result<Bytes, Errno>;

    /// Sets an extended attribute.
    fn set_xattr(&self, inode: Inode, name: &[u8], value: &[u8], mode: XattrMode) -> Result<(), Errno>;

    /// Returns the names of the extended attributes.
    fn list_xattr(&self, inode: Inode) -> Result<Vec<Bytes>, Errno>;

    /// Removes an extended attribute; `ENODATA` if there is none.
    fn remove_xattr(&self, inode: Inode, name: &[u8]) -> Result<(), Errno>;

    /// Whether others change the files too.
    ///
    /// # Suspends
    ///
    /// Never.
    fn sharing(&self) -> Sharing;

    /// How long the kernel may keep what it is told of `inode` and of its name, in seconds.
    ///
    /// # Suspends
    ///
    /// Never.
    fn kept_seconds(&self, inode: Inode) -> u64 {
        let _ = inode;
        self.sharing().cache_seconds()
    }

    /// Whether [`next_invalidation`](Operations::next_invalidation) would return at once.
    ///
    /// # Suspends
    ///
    /// Never.
    fn has_invalidations(&self) -> bool {
        false
    }

    /// Returns the next change that came from another writer, or `None` once the volume is closed or if it never tells.
    ///
    /// # Suspends
    ///
    /// Until there is one.
    fn next_invalidation(&self) -> Option<Invalidation> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn the_nanoseconds_count_upward_from_the_second_before_1970_too() {
        let before = SystemTime::UNIX_EPOCH - Duration::from_millis(250);
        assert_eq!(Time::from(before), Time { seconds: -1, nanoseconds: 750_000_000 });
        let whole = SystemTime::UNIX_EPOCH - Duration::from_secs(2);
        assert_eq!(Time::from(whole), Time { seconds: -2, nanoseconds: 0 });
        let after = SystemTime::UNIX_EPOCH + Duration::from_millis(1500);
        assert_eq!(Time::from(after), Time { seconds: 1, nanoseconds: 500_000_000 });
    }
}
