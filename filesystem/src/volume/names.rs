//! Names: lookup, creation, links, removal, renaming. Each method is one step over the [`State`].
//!
//! The order within each is always the same: read all that is needed (which may stop for a node), check, then change.
//! Nothing may stop after the first change.

use bytes::Bytes;

use super::state::{Change, State, Step, entry_range};
use crate::errno::Errno;
use crate::format::{EntryRecord, InodeRecord, Key};
use crate::operations::{Attributes, Credentials, FileKind, Inode, RenameFlags, SYMLINK_SIZE_MAX, Time};
use crate::posix_acl::{self, Acl};

const SET_GID: u32 = 0o2000;
/// `u32`, as the kernel's; far beyond what anyone links.
const LINK_COUNT_MAX: u32 = u32::MAX - 1;

/// A node to be created.
pub(crate) struct NewNode<'a> {
    pub(crate) kind: FileKind,
    pub(crate) mode: u32,
    pub(crate) rdev: u32,
    pub(crate) target: &'a [u8],
}

impl State {
    pub(crate) fn lookup(&mut self, parent: u64, name: &[u8]) -> Step<Attributes> {
        let directory = self.record(parent)?;
        if directory.kind != FileKind::Directory && name != b"." {
            return Err(Errno::ENOTDIR.into());
        }
        let inode = match name {
            // Asked of any node that the kernel has only a file handle of; it knows itself what it has open.
            b"." if directory.nlink == 0 => return Err(Errno::ENOENT.into()),
            b"." => parent,
            b".." => directory.parent,
            name => {
                let key = self.entry_key(parent, name)?;
                self.known_entry(&key)?.inode
            }
        };
        Ok(self.record(inode)?.attributes(inode))
    }

    pub(crate) fn make(
        &mut self,
        parent: u64,
        name: &[u8],
        node: &NewNode<'_>,
        credentials: &Credentials,
    ) -> Step<Attributes> {
        self.writable()?;
        if node.target.len() > SYMLINK_SIZE_MAX {
            return Err(Errno::ENAMETOOLONG.into());
        }
        if node.kind == FileKind::Symlink && node.target.is_empty() {
            return Err(Errno::ENOENT.into());
        }
        let mut directory = self.directory(parent)?;
        let key = self.entry_key(parent, name)?;
        if self.entry(&key)?.is_some() {
            return Err(Errno::EEXIST.into());
        }
        let default = match node.kind {
            FileKind::Symlink => None,
            _ => self.access_list(parent, posix_acl::DEFAULT)?,
        };
        let frame_size = self.frame_size_in(parent)?;
        let inode = self.draw_inode();

        let now = Time::now();
        let is_directory = node.kind == FileKind::Directory;
        let mode = self.inherit(inode, is_directory, node.mode, default.as_ref(), credentials);
        let mut record = InodeRecord {
            mode,
            uid: credentials.uid,
            gid: credentials.gid,
            rdev: node.rdev,
            size: node.target.len() as u64,
            frames: u64::from(!node.target.is_empty()),
            parent,
            ..InodeRecord::new(node.kind, now)
        };
        if directory.mode & SET_GID != 0 {
            record.gid = directory.gid;
            if is_directory {
                record.mode |= SET_GID;
            }
        }
        match (&frame_size, node.kind) {
            (Some(frame_size), FileKind::Directory) => self.inherit_frame_size(inode, frame_size),
            (Some(frame_size), FileKind::Regular) => record.frame_exponent = frame_size.exponent(),
            _ => {}
        }
        if !node.target.is_empty() {
            self.set(Key::Extent(inode, 0), Change::Frame(Bytes::copy_from_slice(node.target)));
        }
        let attributes = record.attributes(inode);
        self.set_record(inode, record);
        self.set(key, Change::Entry(EntryRecord::new(inode, node.kind)));
        directory.nlink += u32::from(is_directory);
        directory.mtime = now;
        directory.ctime = now;
        self.set_record(parent, directory);
        Ok(attributes)
    }

    /// Gives a new node the access lists that its directory's default list says, and returns its mode. Without one the
    /// umask decides.
    fn inherit(
        &mut self,
        inode: u64,
        is_directory: bool,
        mode: u32,
        default: Option<&Acl>,
        credentials: &Credentials,
    ) -> u32 {
        let mode = mode & 0o7777;
        let Some(default) = default else { return mode & !credentials.umask };
        let list = default.for_new(mode);
        self.set_access_list(inode, posix_acl::ACCESS, &list);
        if is_directory {
            self.set_access_list(inode, posix_acl::DEFAULT, default);
        }
        mode & !0o777 | list.mode()
    }

    /// Makes a regular file without a name, which lives as long as it is open or until it is given one.
    pub(crate) fn make_unnamed(
        &mut self,
        parent: u64,
        mode: u32,
        credentials: &Credentials,
    ) -> Step<Attributes> {
        self.writable()?;
        let directory = self.directory(parent)?;
        let default = self.access_list(parent, posix_acl::DEFAULT)?;
        let frame_size = self.frame_size_in(parent)?;
        let inode = self.draw_inode();

        let now = Time::now();
        let mode = self.inherit(inode, false, mode, default.as_ref(), credentials);
        let record = InodeRecord {
            mode,
            uid: credentials.uid,
            gid: if directory.mode & SET_GID != 0 { directory.gid } else { credentials.gid },
            nlink: 0,
            parent,
            frame_exponent: frame_size.map_or(0, |frame_size| frame_size.exponent()),
            ..InodeRecord::new(FileKind::Regular, now)
        };
        let attributes = record.attributes(inode);
        self.set_record(inode, record);
        self.orphan(inode, now);
        Ok(attributes)
    }

    pub(crate) fn link(&mut self, inode: u64, parent: u64, name: &[u8]) -> Step<Attributes> {
        self.writable()?;
        let mut record = self.record(inode)?;
        if record.kind == FileKind::Directory {
            return Err(Errno::EPERM.into());
        }
        let mut directory = self.directory(parent)?;
        let key = self.entry_key(parent, name)?;
        if self.entry(&key)?.is_some() {
            return Err(Errno::EEXIST.into());
        }
        if record.nlink >= LINK_COUNT_MAX {
            return Err(Errno::EMLINK.into());
        }

        let now = Time::now();
        if record.nlink == 0 {
            // An open file without a name gets one again (`linkat` of a descriptor).
            self.set(Key::Orphan(inode), Change::Removed);
        }
        record.nlink += 1;
        record.ctime = now;
        record.parent = parent;
        let attributes = record.attributes(inode);
        self.set(key, Change::Entry(EntryRecord::new(inode, record.kind)));
        self.set_record(inode, record);
        directory.mtime = now;
        directory.ctime = now;
        self.set_record(parent, directory);
        Ok(attributes)
    }

    pub(crate) fn unlink(&mut self, parent: u64, name: &[u8]) -> Step<()> {
        self.changeable()?;
        let mut directory = self.directory(parent)?;
        let key = self.entry_key(parent, name)?;
        let EntryRecord { inode, kind, .. } = self.known_entry(&key)?;
        if kind == FileKind::Directory {
            return Err(Errno::EISDIR.into());
        }
        let record = self.record(inode)?;

        let now = Time::now();
        self.set(key, Change::Removed);
        self.drop_link(inode, record, now);
        directory.mtime = now;
        directory.ctime = now;
        self.set_record(parent, directory);
        Ok(())
    }

    /// Takes one name from a node that is no directory, or all from an empty directory.
    fn drop_link(&mut self, inode: u64, mut record: InodeRecord, now: Time) {
        record.nlink = match record.kind {
            FileKind::Directory => 0,
            _ => record.nlink.saturating_sub(1),
        };
        record.ctime = now;
        if record.nlink == 0 {
            self.orphan(inode, now);
        }
        self.set_record(inode, record);
    }

    pub(crate) fn remove_directory(&mut self, parent: u64, name: &[u8]) -> Step<()> {
        self.changeable()?;
        let mut directory = self.directory(parent)?;
        let key = self.entry_key(parent, name)?;
        let EntryRecord { inode, kind, .. } = self.known_entry(&key)?;
        if kind != FileKind::Directory {
            return Err(Errno::ENOTDIR.into());
        }
        let record = self.record(inode)?;
        self.check_empty(inode)?;

        let now = Time::now();
        self.set(key, Change::Removed);
        self.drop_link(inode, record, now);
        directory.nlink = directory.nlink.saturating_sub(1);
        directory.mtime = now;
        directory.ctime = now;
        self.set_record(parent, directory);
        Ok(())
    }

    fn check_empty(&mut self, directory: u64) -> Step<()> {
        let (from, end) = entry_range(directory);
        match self.next(&from, &end)? {
            Some(_) => Err(Errno::ENOTEMPTY.into()),
            None => Ok(()),
        }
    }

    /// Fails with `EINVAL` if `directory` is `below` or one of its ancestors.
    fn check_no_loop(&mut self, directory: u64, mut below: u64) -> Step<()> {
        // Paths are bounded by what the kernel resolves; a damaged tree must not spin here.
        for _ in 0..4096 {
            if below == directory {
                return Err(Errno::EINVAL.into());
            }
            if below == Inode::ROOT.0 {
                return Ok(());
            }
            below = self.record(below)?.parent;
        }
        Err(Errno::EIO.into())
    }

    pub(crate) fn rename(
        &mut self,
        parent: u64,
        name: &[u8],
        new_parent: u64,
        new_name: &[u8],
        flags: RenameFlags,
    ) -> Step<()> {
        self.changeable()?;
        if flags.exchange && (flags.no_replace || flags.whiteout) {
            return Err(Errno::EINVAL.into());
        }
        let mut old_directory = self.directory(parent)?;
        let mut new_directory = self.directory(new_parent)?;
        let key = self.entry_key(parent, name)?;
        let new_key = self.entry_key(new_parent, new_name)?;
        let entry = self.known_entry(&key)?;
        let (inode, kind) = (entry.inode, entry.kind);
        let mut record = self.record(inode)?;
        let target_entry = match self.entry(&new_key)? {
            Some(_) => Some(self.known_entry(&new_key)?),
            None => None,
        };
        let target = match &target_entry {
            Some(target) => Some((target.inode, target.kind, self.record(target.inode)?)),
            None => None,
        };
        let moves = |kind| kind == FileKind::Directory && parent != new_parent;
        if moves(kind) {
            self.check_no_loop(inode, new_parent)?;
        }
        match (&target, flags.exchange) {
            (None, true) => return Err(Errno::ENOENT.into()),
            (Some((target, target_kind, _)), true) if moves(*target_kind) => {
                self.check_no_loop(*target, parent)?
            }
            (Some(_), false) if flags.no_replace => return Err(Errno::EEXIST.into()),
            // Two names of one file: nothing to do, says POSIX.
            (Some((target, ..)), _) if *target == inode => return Ok(()),
            (Some((target, FileKind::Directory, _)), false) => {
                if kind != FileKind::Directory {
                    return Err(Errno::EISDIR.into());
                }
                self.check_empty(*target)?;
            }
            (Some(_), false) if kind == FileKind::Directory => return Err(Errno::ENOTDIR.into()),
            _ => {}
        }
        let whiteout = match flags.whiteout {
            true => Some(self.draw_inode()),
            false => None,
        };

        let now = Time::now();
        // How many sub-directories each side gains.
        let (mut old_gain, mut new_gain) = (0i64, 0i64);
        if kind == FileKind::Directory {
            old_gain -= 1;
            new_gain += 1;
        }
        let replaced = target.as_ref().map(|(target, ..)| *target);
        if let Some((target, target_kind, mut target_record)) = target {
            if target_kind == FileKind::Directory {
                new_gain -= 1;
            }
            if flags.exchange {
                if target_kind == FileKind::Directory {
                    old_gain += 1;
                }
                target_record.parent = parent;
                target_record.ctime = now;
                self.set_record(target, target_record);
                self.set(key.clone(), target_entry.map_or(Change::Removed, Change::Entry));
            } else {
                self.set(key.clone(), Change::Removed);
                self.drop_link(target, target_record, now);
            }
        } else {
            self.set(key.clone(), Change::Removed);
        }
        if let Some(whiteout) = whiteout {
            // A character device with the numbers 0 and 0, which whoever stacks file systems reads as "no such name".
            let kind = FileKind::CharacterDevice;
            self.set_record(whiteout, InodeRecord { parent, ..InodeRecord::new(kind, now) });
            self.set(key, Change::Entry(EntryRecord::new(whiteout, kind)));
        }
        // With all that a later version keeps beside the name.
        self.set(new_key, Change::Entry(entry));
        if replaced != Some(inode) {
            record.parent = new_parent;
            record.ctime = now;
            self.set_record(inode, record);
        }
        let gain = |directory: &mut InodeRecord, gain: i64| {
            directory.nlink = (i64::from(directory.nlink) + gain).clamp(0, i64::from(u32::MAX)) as u32;
            directory.mtime = now;
            directory.ctime = now;
        };
        if parent == new_parent {
            gain(&mut old_directory, old_gain + new_gain);
            self.set_record(parent, old_directory);
        } else {
            gain(&mut old_directory, old_gain);
            gain(&mut new_directory, new_gain);
            self.set_record(parent, old_directory);
            self.set_record(new_parent, new_directory);
        }
        Ok(())
    }
}
