//! From a typed request to a call of [`Operations`] to a typed reply: plain sequential code, no I/O of its own.
//!
//! What it decides is only what the protocol leaves to a server: which requests are answered with `ENOSYS` so that
//! the kernel never asks again, that a name that isn't there is an answer worth caching, which flags of a system call
//! are understood, and how the kernel's references to inodes are counted.
//!
//! An open file has no state here, for the kernel's own reference keeps its inode alive. OPEN and FLUSH are moments at
//! which this mount and others agree on what the file is (see `Sharing`), no more; OPENDIR is not even that, and is
//! answered with `ENOSYS`.
//!
//! It is not the session: INIT, DESTROY and INTERRUPT never get here. Nor does it tell the kernel what is stale; it says
//! what there is to tell, and when.

use super::abi::{fattr, o_flags};
use super::reply::{DirectoryPacker, Notification, Opened, Reply};
use super::request::{Operation, Request, SetAttributesRequest};
use crate::errno::Errno;
use crate::operations::{
    AllocateMode, Attributes, Credentials, FileKind, Inode, Operations, RenameFlags, SetAttributes, Time,
    Whence, XattrMode,
};
use crate::posix_acl;

/// The largest read, listing or value that is answered: what a request may ask for with 256 pages.
pub const REPLY_BYTES_MAX: u32 = 1 << 20;

/// `ENOTTY`: no ioctl is known here.
const ENOTTY: Errno = Errno(25);

// The numbers of the system calls, from the kernel's <linux/fs.h>, <linux/falloc.h> and <linux/xattr.h>.
const RENAME_NOREPLACE: u32 = 1;
const RENAME_EXCHANGE: u32 = 2;
const RENAME_WHITEOUT: u32 = 4;
const FALLOC_FL_KEEP_SIZE: u32 = 1;
const FALLOC_FL_PUNCH_HOLE: u32 = 2;
const FALLOC_FL_ZERO_RANGE: u32 = 0x10;
const SEEK_DATA: u32 = 3;
const SEEK_HOLE: u32 = 4;
const XATTR_CREATE: u32 = 1;
const XATTR_REPLACE: u32 = 2;

/// What set-id bits look like in a mode.
const SET_IDS: u32 = 0o6000;
const SET_GID: u32 = 0o2000;

/// A reply, and what the kernel has to forget around it.
#[derive(Debug)]
pub struct Answer {
    /// The reply.
    pub reply: Reply,
    /// To be told, and taken, before the reply.
    pub before: Option<Notification>,
    /// To be told after the reply: the kernel holds the pages in question until then.
    pub after: Option<Notification>,
}

impl From<Reply> for Answer {
    fn from(reply: Reply) -> Answer {
        Answer { reply, before: None, after: None }
    }
}

/// Answers one request.
///
/// # Suspends
///
/// Where the operation does.
pub fn dispatch(operations: &dyn Operations, request: &Request<'_>) -> Answer {
    let answered = match request.operation {
        Operation::Write { offset, data, clear_set_ids, append, direct } => {
            let how = Writing { clear_set_ids, append, direct };
            write(operations, request.inode, offset, data, &how)
        }
        Operation::Allocate { offset, length, mode } => {
            // The kernel tells us of no capability here, as it does with a write; root has it.
            let clear_set_ids = request.uid != 0;
            allocate(operations, request.inode, (offset, length), mode, clear_set_ids)
        }
        _ => answer(operations, request).map(Answer::from),
    };
    answered.unwrap_or_else(|errno| Reply::Error(errno).into())
}

/// Whether an operation only looks, so that nothing is lost if it is given up at the session's end.
pub fn changes_nothing(operation: &Operation<'_>) -> bool {
    matches!(
        operation,
        Operation::Lookup { .. }
            | Operation::Attributes
            | Operation::Statx
            | Operation::ReadSymlink
            | Operation::Open { .. }
            | Operation::Read { .. }
            | Operation::ReadDirectory { .. }
            | Operation::GetXattr { .. }
            | Operation::ListXattr { .. }
            | Operation::Seek { .. }
            | Operation::Statistics
    )
}

/// Whether an operation may be given up when the program that waits for it dies.
///
/// Each is one step over what is in memory. Given up before that step, it has changed nothing; after it, all, and other
/// mounts see it a moment later. Only a sync is work of its own, which others may rely on; the store's patience bounds it.
pub fn may_be_given_up(operation: &Operation<'_>) -> bool {
    !matches!(
        operation,
        Operation::Sync { .. }
            | Operation::SyncDirectory { .. }
            | Operation::SyncFileSystem
            | Operation::Flush
    )
}

/// How a write is meant.
struct Writing {
    clear_set_ids: bool,
    append: bool,
    direct: bool,
}

/// Whether clearing the set-id bits of a file clears any. The kernel asks for it with each write of an ordinary user's, few
/// files have them, and it would show the old mode for as long as it keeps it.
fn has_set_ids(operations: &dyn Operations, inode: Inode) -> Result<bool, Errno> {
    Ok(operations.attributes(inode)?.mode & SET_IDS != 0)
}

fn allocate(
    operations: &dyn Operations,
    inode: Inode,
    (offset, length): (u64, u64),
    mode: u32,
    clear_set_ids: bool,
) -> Result<Answer, Errno> {
    if mode & !(FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE) != 0 {
        return Err(Errno::EOPNOTSUPP);
    }
    let clears = clear_set_ids && has_set_ids(operations, inode)?;
    let mode = AllocateMode {
        keep_size: mode & FALLOC_FL_KEEP_SIZE != 0,
        punch_hole: mode & FALLOC_FL_PUNCH_HOLE != 0,
        zero_range: mode & FALLOC_FL_ZERO_RANGE != 0,
        clear_set_ids: clears,
    };
    operations.allocate(inode, mode, offset, length)?;
    let before = clears.then_some(Notification::Attributes(inode));
    Ok(Answer { reply: Reply::Empty, before, after: None })
}

fn write(
    operations: &dyn Operations,
    inode: Inode,
    offset: u64,
    data: &[u8],
    how: &Writing,
) -> Result<Answer, Errno> {
    let clears = how.clear_set_ids && has_set_ids(operations, inode)?;
    let written_at = if how.append {
        operations.append(inode, data, clears)?
    } else {
        operations.write(inode, offset, data, clears)?;
        offset
    };
    let mut answer = Answer::from(Reply::Written(data.len() as u32));
    if how.direct {
        // A read may have brought old bytes to the page cache since the kernel looked; with asynchronous I/O it does not
        // look again.
        answer.before = Some(Notification::Content(inode, written_at, data.len() as u64));
    } else if clears {
        answer.before = Some(Notification::Attributes(inode));
    }
    if written_at != offset {
        // Another mount moved the end: the kernel has the bytes where it believed that to be.
        answer.after = Some(Notification::Inode(inode));
    }
    Ok(answer)
}

fn answer(operations: &dyn Operations, request: &Request<'_>) -> Result<Reply, Errno> {
    let inode = request.inode;
    let credentials = |umask: u32| Credentials { uid: request.uid, gid: request.gid, umask };
    Ok(match request.operation {
        Operation::Lookup { name } => match operations.lookup(inode, name) {
            Ok(attributes) => entry(operations, attributes),
            Err(Errno::ENOENT) => Reply::NoEntry(operations.sharing()),
            Err(errno) => Reply::Error(errno),
        },
        Operation::Forget { count } => {
            operations.forget(inode, count);
            Reply::None
        }
        Operation::BatchForget(forgets) => {
            forgets.for_each(|(inode, count)| operations.forget(inode, count));
            Reply::None
        }
        Operation::Attributes => {
            Reply::Attributes(operations.attributes(inode)?, operations.kept_seconds(inode))
        }
        Operation::Statx => Reply::Statx(operations.attributes(inode)?, operations.kept_seconds(inode)),
        Operation::SetAttributes(set) => {
            let attributes = operations.set_attributes(inode, &changes(&set)?)?;
            Reply::Attributes(attributes, operations.kept_seconds(inode))
        }
        Operation::ReadSymlink => Reply::Buffer(operations.read_symlink(inode)?.into()),
        Operation::MakeSymlink { name, target } => {
            entry(operations, operations.make_symlink(inode, name, target, &credentials(0))?)
        }
        Operation::MakeNode { name, mode, rdev, umask } => {
            let kind = match FileKind::from_mode(mode) {
                None | Some(FileKind::Directory | FileKind::Symlink) => return Err(Errno::EINVAL),
                Some(kind) => kind,
            };
            entry(operations, operations.make_node(inode, name, kind, mode & 0o7777, rdev, &credentials(umask))?)
        }
        Operation::MakeDirectory { name, mode, umask } => {
            entry(operations, operations.make_directory(inode, name, mode & 0o7777, &credentials(umask))?)
        }
        Operation::Unlink { name } => done(operations.unlink(inode, name)?),
        Operation::RemoveDirectory { name } => done(operations.remove_directory(inode, name)?),
        Operation::Rename { name, new_parent, new_name, flags } => {
            if flags & !(RENAME_NOREPLACE | RENAME_EXCHANGE | RENAME_WHITEOUT) != 0 {
                return Err(Errno::EINVAL);
            }
            let flags = RenameFlags {
                no_replace: flags & RENAME_NOREPLACE != 0,
                exchange: flags & RENAME_EXCHANGE != 0,
                whiteout: flags & RENAME_WHITEOUT != 0,
            };
            done(operations.rename(inode, name, new_parent, new_name, flags)?)
        }
        Operation::Link { inode: target, new_name } => {
            entry(operations, operations.link(target, inode, new_name)?)
        }
        Operation::Read { offset, size } => {
            Reply::Content(operations.read(inode, offset, size.min(REPLY_BYTES_MAX))?)
        }
        Operation::Open { flags } => {
            if flags & o_flags::ACCESS_MODE != o_flags::READ_ONLY {
                operations.may_write(inode)?;
            }
            operations.open(inode)?;
            Reply::Opened(opened(flags))
        }
        Operation::Create { name, mode, umask, flags } => {
            let attributes = create(operations, inode, name, mode, flags, &credentials(umask))?;
            operations.remember(attributes.inode);
            Reply::Created(attributes, operations.sharing(), opened(flags))
        }
        Operation::CreateUnnamed { mode, umask, flags } => {
            let attributes = operations.make_unnamed(inode, mode & 0o7777, &credentials(umask))?;
            operations.remember(attributes.inode);
            Reply::Created(attributes, operations.sharing(), opened(flags))
        }
        Operation::Flush => done(operations.flush(inode)?),
        Operation::Statistics => Reply::Statistics(operations.statistics()?),
        Operation::Sync { data_only } | Operation::SyncDirectory { data_only } => {
            done(operations.sync(Some(inode), data_only)?)
        }
        Operation::SyncFileSystem => done(operations.sync(None, false)?),
        Operation::SetXattr { name, value, flags } => {
            let mode = match flags {
                0 => XattrMode::Set,
                XATTR_CREATE => XattrMode::Create,
                XATTR_REPLACE => XattrMode::Replace,
                _ => return Err(Errno::EINVAL),
            };
            operations.set_xattr(inode, name, value, mode)?;
            if name == posix_acl::ACCESS && request.uid != 0 {
                forbid_group_id(operations, inode, request.gid)?;
            }
            Reply::Empty
        }
        Operation::GetXattr { name, size } => {
            sized(operations.get_xattr(inode, name)?.into(), size)?
        }
        Operation::ListXattr { size } => {
            let mut list = Vec::new();
            for name in operations.list_xattr(inode)? {
                list.extend_from_slice(&name);
                list.push(0);
            }
            sized(list, size)?
        }
        Operation::RemoveXattr { name } => {
            done(operations.remove_xattr(inode, name)?)
        }
        Operation::ReadDirectory { cookie, size, with_attributes } => {
            let size = size.min(REPLY_BYTES_MAX) as usize;
            let count_max = DirectoryPacker::count_max(size, with_attributes);
            let entries = operations.read_directory(inode, cookie, count_max, with_attributes)?;
            // Asked once nothing more is waited for: it holds from now on.
            let mut packer = DirectoryPacker::new(size, with_attributes, operations.sharing());
            for listed in entries {
                if !packer.push(&listed) {
                    break;
                }
                // The kernel counts each listed entry that has attributes as looked up, and no other.
                if with_attributes && listed.attributes.is_some() {
                    operations.remember(listed.inode);
                }
            }
            packer.finish()
        }
        Operation::Seek { offset, whence } => {
            let whence = match whence {
                SEEK_DATA => Whence::Data,
                SEEK_HOLE => Whence::Hole,
                _ => return Err(Errno::EINVAL),
            };
            Reply::Position(operations.seek(inode, offset, whence)?)
        }
        Operation::Ioctl => Reply::Error(ENOTTY),
        Operation::Release { .. } | Operation::ReleaseDirectory => Reply::Empty,
        Operation::OpenDirectory
        // The kernel checks permissions itself (`default_permissions`).
        | Operation::Access { .. }
        // The kernel copies through its page cache instead of COPY_FILE_RANGE, and so on.
        | Operation::Other { .. }
        // `dispatch` has seen to both.
        | Operation::Write { .. }
        | Operation::Allocate { .. }
        | Operation::Init(_)
        | Operation::Destroy
        | Operation::Interrupt { .. } => Reply::Error(Errno::ENOSYS),
    })
}

/// Makes a regular file, or finds the one that another mount has made meanwhile.
fn create(
    operations: &dyn Operations,
    parent: Inode,
    name: &[u8],
    mode: u32,
    flags: u32,
    credentials: &Credentials,
) -> Result<Attributes, Errno> {
    match operations.make_node(parent, name, FileKind::Regular, mode & 0o7777, 0, credentials) {
        Err(Errno::EEXIST) if flags & o_flags::EXCLUSIVE == 0 => {
            let found = operations.lookup(parent, name)?;
            match found.kind {
                FileKind::Regular => Ok(found),
                FileKind::Directory => Err(Errno::EISDIR),
                _ => Err(Errno::EEXIST),
            }
        }
        made => made,
    }
}

fn opened(flags: u32) -> Opened {
    Opened { flush: flags & o_flags::ACCESS_MODE != o_flags::READ_ONLY }
}

/// An entry reply gives the kernel a reference, which is counted before anything else can happen.
fn entry(operations: &dyn Operations, attributes: Attributes) -> Reply {
    operations.remember(attributes.inode);
    Reply::Entry(attributes, operations.kept_seconds(attributes.inode))
}

fn done((): ()) -> Reply {
    Reply::Empty
}

/// The value, or its size where the caller only asked for that.
fn sized(value: Vec<u8>, size: u32) -> Result<Reply, Errno> {
    match size {
        0 => Ok(Reply::XattrSize(value.len() as u32)),
        size if value.len() > size as usize => Err(Errno::ERANGE),
        _ => Ok(Reply::Buffer(value)),
    }
}

/// Clears setgid after a new access list was set by a user of another group, as `chmod` does. That the group may be
/// another of the user's own we can't see, and it is the safe side.
fn forbid_group_id(operations: &dyn Operations, inode: Inode, group: u32) -> Result<(), Errno> {
    let attributes = operations.attributes(inode)?;
    if attributes.mode & SET_GID != 0 && attributes.gid != group {
        let mode = Some(attributes.mode & !SET_GID);
        operations.set_attributes(inode, &SetAttributes { mode, ..SetAttributes::default() })?;
    }
    Ok(())
}

fn changes(set: &SetAttributesRequest) -> Result<SetAttributes, Errno> {
    let valid = |bit: u32| set.valid & bit != 0;
    let time = |bit, now, (seconds, nanoseconds): (i64, u32)| match () {
        () if valid(now) => Ok(Some(Time::now())),
        () if !valid(bit) => Ok(None),
        () if nanoseconds >= 1_000_000_000 => Err(Errno::EINVAL),
        () => Ok(Some(Time { seconds, nanoseconds })),
    };
    Ok(SetAttributes {
        mode: valid(fattr::MODE).then_some(set.mode & 0o7777),
        uid: valid(fattr::UID).then_some(set.uid),
        gid: valid(fattr::GID).then_some(set.gid),
        size: valid(fattr::SIZE).then_some(set.size),
        atime: time(fattr::ATIME, fattr::ATIME_NOW, set.atime)?,
        mtime: time(fattr::MTIME, fattr::MTIME_NOW, set.mtime)?,
        clear_set_ids: valid(fattr::KILL_SUIDGID),
    })
}
