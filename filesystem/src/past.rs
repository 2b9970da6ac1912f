//! A drive with its past: `.snapshots/NAME/` in the root shows each snapshot, for reading, with ordinary programs.
//!
//! It lies between the mount and the volume. What is live is passed on as it came; what belongs to the past is told by its
//! number (see `numbers`) and answered by a view of the snapshot, which is a volume over an older tree. The directory is
//! found by its name and not listed, so that whoever copies the root does not copy all that it ever was. A drive without
//! snapshots does not have it, and nobody can make anything of that name there (`EPERM`); a drive that has a `.snapshots` of its own
//! from earlier shows that instead, until it is renamed.
//!
//! What it lists is known anew each time that it is opened, so that a snapshot is there as soon as it is taken, on whatever
//! mount; while the nodes are away, it lists those that are known here.
//!
//! Of a snapshot that was deleted nothing is found, opened or fetched any more (`ESTALE`): its blocks may be gone. What
//! the kernel has of it in its caches, it may go on showing to programs that have it open.
//!
//! A number leads to its file as long as the kernel refers to it, so whoever keeps only a number, as NFS does, may get
//! `ESTALE` and has to look the path up again.

use std::collections::VecDeque;
use std::rc::Rc;

use bytes::Bytes;
use reactor::cell::RefCell;

use crate::errno::Errno;
use crate::format::SnapshotRecord;
use crate::numbers::{Node, Numbers, PAST};
use crate::operations::{
    AllocateMode, Attributes, Credentials, DirectoryEntry, FileKind, Inode, Invalidation, Operations,
    ReadBytes, RenameFlags, SetAttributes, Sharing, Statistics, Time, Whence, XattrMode,
};
use crate::volume::{Snapshot, SnapshotError, Volume};

/// The directory that holds the snapshots.
pub(crate) const DIRECTORY: Inode = PAST.first();
/// The name of the directory.
const NAME: &[u8] = b".snapshots";

/// Views that are kept open: more only cost fetching the upper nodes again.
const VIEW_COUNT_MAX: usize = 8;

/// A volume, and its snapshots; see the file's header.
pub struct WithPast {
    volume: Rc<Volume>,
    numbers: RefCell<Numbers>,
    /// By snapshot, the one used last at the end.
    views: RefCell<VecDeque<(u64, Rc<Volume>)>>,
}

impl WithPast {
    /// Shows the snapshots of `volume` in it.
    pub fn new(volume: Rc<Volume>) -> WithPast {
        WithPast { volume, numbers: RefCell::new(Numbers::new(PAST)), views: RefCell::default() }
    }

    /// Ends all waiting for the nodes in what is past, as [`Volume::give_up`] does in what is live.
    pub fn give_up(&self) {
        self.views.borrow().iter().for_each(|(_, view)| view.give_up());
    }

    /// Returns the view of a snapshot that is there.
    fn view(&self, snapshot: u64) -> Result<Rc<Volume>, Errno> {
        let Some(found) = self.volume.snapshot(snapshot)? else {
            self.views.borrow_mut().retain(|(id, _)| *id != snapshot);
            return Err(Errno::ESTALE);
        };
        let take = || {
            let mut views = self.views.borrow_mut();
            let at = views.iter().position(|(id, _)| *id == snapshot)?;
            let view = views.remove(at)?;
            views.push_back(view.clone());
            Some(view.1)
        };
        if let Some(view) = take() {
            return Ok(view);
        }
        let view = self.volume.view(&found)?;
        // Another may have opened it meanwhile.
        if let Some(view) = take() {
            return Ok(view);
        }
        let mut views = self.views.borrow_mut();
        views.push_back((snapshot, view.clone()));
        if views.len() > VIEW_COUNT_MAX {
            views.pop_front();
        }
        Ok(view)
    }

    /// Returns what the kernel means by the number of something in a snapshot, with the snapshot's view.
    fn find(&self, number: Inode) -> Result<(Node, Rc<Volume>), Errno> {
        let node = self.numbers.borrow().node(number).ok_or(Errno::ESTALE)?;
        Ok((node, self.view(node.tree)?))
    }

    /// The link to another volume that `name` in a directory of a snapshot is, and that snapshot.
    pub(crate) fn link_then(&self, parent: Inode, name: &[u8]) -> Result<Option<(Bytes, Snapshot)>, Errno> {
        if parent == DIRECTORY || !PAST.has(parent) {
            return Ok(None);
        }
        let (node, view) = self.find(parent)?;
        let Some(link) = view.link_at(node.inode, name)? else { return Ok(None) };
        let snapshot = self.volume.snapshot(node.tree)?.ok_or(Errno::ESTALE)?;
        Ok(Some((link, snapshot)))
    }

    /// The top of the snapshot that was taken along with the drive's `of_drive`, as this shows it.
    ///
    /// # Errors
    /// `ENODATA` if there is none, `EHOSTUNREACH` if that is not known.
    pub(crate) fn along_with(&self, of_drive: &SnapshotRecord) -> Result<Attributes, Errno> {
        let found = match self.volume.snapshot_named(&of_drive.name) {
            Ok(found) => found,
            Err(SnapshotError::Volume(errno)) => return Err(errno),
            Err(SnapshotError::Unreachable) => return Err(Errno::EHOSTUNREACH),
            Err(_) => return Err(Errno::ENODATA),
        };
        if !found.record.is_along_with(of_drive) {
            return Err(Errno::ENODATA);
        }
        let root = self.view(found.id)?.attributes(Inode::ROOT)?;
        Ok(self.show(found.id, root))
    }

    /// Shows the kernel something of a snapshot.
    fn show(&self, snapshot: u64, attributes: Attributes) -> Attributes {
        let mut numbers = self.numbers.borrow_mut();
        numbers.begin_answer();
        Attributes { inode: numbers.show(Node { tree: snapshot, inode: attributes.inode }), ..attributes }
    }

    /// Returns the attributes of the directory of all snapshots: whoever may look into the root may look into it.
    fn directory(&self) -> Result<Attributes, Errno> {
        let snapshots = self.volume.newest_snapshots()?;
        let root = self.volume.attributes(Inode::ROOT)?;
        let newest = snapshots.iter().map(|snapshot| snapshot.record.taken.seconds).max();
        // Listings are believed as long as the time is the same, so another set has another time.
        let digest = snapshots.iter().fold(0u64, |digest, snapshot| digest ^ snapshot.id);
        let changed = Time {
            seconds: newest.unwrap_or(root.btime.seconds),
            nanoseconds: (digest % 1_000_000_000) as u32,
        };
        Ok(Attributes {
            inode: DIRECTORY,
            mode: root.mode & 0o555,
            nlink: 2u32.saturating_add(snapshots.len() as u32),
            size: 0,
            blocks_512: 0,
            atime: changed,
            mtime: changed,
            ctime: changed,
            ..root
        })
    }

    fn look_in_directory(&self, name: &[u8]) -> Result<Attributes, Errno> {
        match name {
            b"." => return self.directory(),
            b".." => return self.volume.attributes(Inode::ROOT),
            _ => {}
        }
        let name = std::str::from_utf8(name).map_err(|_| Errno::ENOENT)?;
        let snapshot = match self.volume.snapshot_named(name) {
            Ok(snapshot) => snapshot.id,
            Err(SnapshotError::Volume(errno)) => return Err(errno),
            Err(_) => return Err(Errno::ENOENT),
        };
        let root = self.view(snapshot)?.attributes(Inode::ROOT)?;
        Ok(self.show(snapshot, root))
    }

    fn list_directory(&self, cookie: u64, count_max: usize) -> Result<Vec<DirectoryEntry>, Errno> {
        let entry = |name: Bytes, inode, cookie| DirectoryEntry {
            name,
            inode,
            kind: FileKind::Directory,
            cookie,
            // The kernel asks for those that it wants: each means opening a view.
            attributes: None,
        };
        let mut entries = vec![
            entry(Bytes::from_static(b"."), DIRECTORY, 1),
            entry(Bytes::from_static(b".."), Inode::ROOT, 2),
        ];
        let mut snapshots = self.volume.snapshots()?;
        snapshots.sort_by_key(|snapshot| snapshot.id);
        let numbers = self.numbers.borrow();
        entries.extend(snapshots.into_iter().map(|snapshot| {
            let root = Node { tree: snapshot.id, inode: Inode::ROOT };
            // A number of 62 bits and above 0.
            entry(snapshot.record.name.into(), numbers.of(root), snapshot.id + 2)
        }));
        entries.retain(|entry| entry.cookie > cookie);
        entries.truncate(count_max);
        Ok(entries)
    }

    /// Whether `name` in `parent` is the directory of all snapshots: without any it is a name like others.
    fn is_directory(&self, parent: Inode, name: &[u8]) -> Result<bool, Errno> {
        if parent != Inode::ROOT || name != NAME || self.volume.snapshots()?.is_empty() {
            return Ok(false);
        }
        match self.volume.lookup_here(parent, name) {
            Ok(_) => Ok(false),
            Err(Errno::ENOENT) => Ok(true),
            Err(errno) => Err(errno),
        }
    }

    /// Refuses to change what is past, or what leads to it.
    fn check_name(&self, parent: Inode, name: &[u8]) -> Result<(), Errno> {
        self.check(parent)?;
        // As with a directory that something is mounted on.
        if self.is_directory(parent, name)? { Err(Errno::EBUSY) } else { Ok(()) }
    }

    /// The same, and to make what would hide it: a `.snapshots` of somebody's own would stand in the way of all later ones.
    fn check_new_name(&self, parent: Inode, name: &[u8]) -> Result<(), Errno> {
        self.check_name(parent, name)?;
        if parent == Inode::ROOT && name == NAME { Err(Errno::EPERM) } else { Ok(()) }
    }

    /// Refuses to change what is past.
    fn check(&self, inode: Inode) -> Result<(), Errno> {
        if PAST.has(inode) { Err(Errno::EROFS) } else { Ok(()) }
    }
}

impl Operations for WithPast {
    fn lookup(&self, parent: Inode, name: &[u8]) -> Result<Attributes, Errno> {
        if parent == DIRECTORY {
            return self.look_in_directory(name);
        }
        if !PAST.has(parent) {
            if self.is_directory(parent, name)? {
                return self.directory();
            }
            return match self.volume.lookup(parent, name) {
                // It asked for the newest root on the way, which may have the first snapshot.
                Err(Errno::ENOENT) if self.is_directory(parent, name)? => self.directory(),
                other => other,
            };
        }
        let (node, view) = self.find(parent)?;
        if node.inode == Inode::ROOT && name == b".." {
            return self.directory();
        }
        Ok(self.show(node.tree, view.lookup(node.inode, name)?))
    }

    fn remember(&self, inode: Inode) {
        match PAST.has(inode) {
            true => self.numbers.borrow_mut().remember(inode),
            false => self.volume.remember(inode),
        }
    }

    fn forget(&self, inode: Inode, count: u64) {
        match PAST.has(inode) {
            true => self.numbers.borrow_mut().forget(inode, count),
            false => self.volume.forget(inode, count),
        }
    }

    fn attributes(&self, inode: Inode) -> Result<Attributes, Errno> {
        if inode == DIRECTORY {
            return self.directory();
        }
        if !PAST.has(inode) {
            return self.volume.attributes(inode);
        }
        let (node, view) = self.find(inode)?;
        Ok(Attributes { inode, ..view.attributes(node.inode)? })
    }

    fn set_attributes(&self, inode: Inode, changes: &SetAttributes) -> Result<Attributes, Errno> {
        self.check(inode)?;
        self.volume.set_attributes(inode, changes)
    }

    fn make_node(
        &self,
        parent: Inode,
        name: &[u8],
        kind: FileKind,
        mode: u32,
        rdev: u32,
        credentials: &Credentials,
    ) -> Result<Attributes, Errno> {
        self.check_new_name(parent, name)?;
        self.volume.make_node(parent, name, kind, mode, rdev, credentials)
    }

    fn make_unnamed(
        &self,
        directory: Inode,
        mode: u32,
        credentials: &Credentials,
    ) -> Result<Attributes, Errno> {
        self.check(directory)?;
        self.volume.make_unnamed(directory, mode, credentials)
    }

    fn make_directory(
        &self,
        parent: Inode,
        name: &[u8],
        mode: u32,
        credentials: &Credentials,
    ) -> Result<Attributes, Errno> {
        self.check_new_name(parent, name)?;
        self.volume.make_directory(parent, name, mode, credentials)
    }

    fn make_symlink(
        &self,
        parent: Inode,
        name: &[u8],
        target: &[u8],
        credentials: &Credentials,
    ) -> Result<Attributes, Errno> {
        self.check_new_name(parent, name)?;
        self.volume.make_symlink(parent, name, target, credentials)
    }

    fn read_symlink(&self, inode: Inode) -> Result<Bytes, Errno> {
        if !PAST.has(inode) {
            return self.volume.read_symlink(inode);
        }
        let (node, view) = self.find(inode)?;
        view.read_symlink(node.inode)
    }

    fn link(&self, inode: Inode, new_parent: Inode, new_name: &[u8]) -> Result<Attributes, Errno> {
        self.check_new_name(new_parent, new_name)?;
        if PAST.has(inode) {
            // One of another file system, as far as it concerns the program: it copies instead.
            return Err(Errno::EXDEV);
        }
        self.volume.link(inode, new_parent, new_name)
    }

    fn unlink(&self, parent: Inode, name: &[u8]) -> Result<(), Errno> {
        self.check_name(parent, name)?;
        self.volume.unlink(parent, name)
    }

    fn remove_directory(&self, parent: Inode, name: &[u8]) -> Result<(), Errno> {
        self.check_name(parent, name)?;
        self.volume.remove_directory(parent, name)
    }

    fn rename(
        &self,
        parent: Inode,
        name: &[u8],
        new_parent: Inode,
        new_name: &[u8],
        flags: RenameFlags,
    ) -> Result<(), Errno> {
        self.check_name(parent, name)?;
        self.check_new_name(new_parent, new_name)?;
        self.volume.rename(parent, name, new_parent, new_name, flags)
    }

    fn read(&self, inode: Inode, offset: u64, size: u32) -> Result<ReadBytes, Errno> {
        if !PAST.has(inode) {
            return self.volume.read(inode, offset, size);
        }
        let (node, view) = self.find(inode)?;
        view.read(node.inode, offset, size)
    }

    fn write(&self, inode: Inode, offset: u64, data: &[u8], clear_set_ids: bool) -> Result<(), Errno> {
        self.check(inode)?;
        self.volume.write(inode, offset, data, clear_set_ids)
    }

    fn append(&self, inode: Inode, data: &[u8], clear_set_ids: bool) -> Result<u64, Errno> {
        self.check(inode)?;
        self.volume.append(inode, data, clear_set_ids)
    }

    fn open(&self, inode: Inode) -> Result<(), Errno> {
        match PAST.has(inode) {
            true => self.find(inode).map(drop),
            false => self.volume.open(inode),
        }
    }

    fn may_write(&self, inode: Inode) -> Result<(), Errno> {
        self.check(inode)?;
        self.volume.may_write(inode)
    }

    fn flush(&self, inode: Inode) -> Result<(), Errno> {
        if PAST.has(inode) { Ok(()) } else { self.volume.flush(inode) }
    }

    fn read_directory(
        &self,
        inode: Inode,
        cookie: u64,
        count_max: usize,
        with_attributes: bool,
    ) -> Result<Vec<DirectoryEntry>, Errno> {
        if inode == DIRECTORY {
            return self.list_directory(cookie, count_max);
        }
        if !PAST.has(inode) {
            return self.volume.read_directory(inode, cookie, count_max, with_attributes);
        }
        let (node, view) = self.find(inode)?;
        let mut entries = view.read_directory(node.inode, cookie, count_max, with_attributes)?;
        self.numbers.borrow_mut().list(node, DIRECTORY, &mut entries);
        Ok(entries)
    }

    fn sync(&self, inode: Option<Inode>, data_only: bool) -> Result<(), Errno> {
        match inode {
            Some(inode) if PAST.has(inode) => Ok(()),
            inode => self.volume.sync(inode, data_only),
        }
    }

    fn allocate(&self, inode: Inode, mode: AllocateMode, offset: u64, length: u64) -> Result<(), Errno> {
        self.check(inode)?;
        self.volume.allocate(inode, mode, offset, length)
    }

    fn seek(&self, inode: Inode, offset: u64, whence: Whence) -> Result<u64, Errno> {
        if !PAST.has(inode) {
            return self.volume.seek(inode, offset, whence);
        }
        let (node, view) = self.find(inode)?;
        view.seek(node.inode, offset, whence)
    }

    fn statistics(&self) -> Result<Statistics, Errno> {
        self.volume.statistics()
    }

    fn get_xattr(&self, inode: Inode, name: &[u8]) -> Result<Bytes, Errno> {
        if inode == DIRECTORY {
            return Err(Errno::ENODATA);
        }
        if !PAST.has(inode) {
            return self.volume.get_xattr(inode, name);
        }
        let (node, view) = self.find(inode)?;
        view.get_xattr(node.inode, name)
    }

    fn set_xattr(&self, inode: Inode, name: &[u8], value: &[u8], mode: XattrMode) -> Result<(), Errno> {
        self.check(inode)?;
        self.volume.set_xattr(inode, name, value, mode)
    }

    fn list_xattr(&self, inode: Inode) -> Result<Vec<Bytes>, Errno> {
        if inode == DIRECTORY {
            return Ok(Vec::new());
        }
        if !PAST.has(inode) {
            return self.volume.list_xattr(inode);
        }
        let (node, view) = self.find(inode)?;
        view.list_xattr(node.inode)
    }

    fn remove_xattr(&self, inode: Inode, name: &[u8]) -> Result<(), Errno> {
        self.check(inode)?;
        self.volume.remove_xattr(inode, name)
    }

    fn sharing(&self) -> Sharing {
        self.volume.sharing()
    }

    fn kept_seconds(&self, inode: Inode) -> u64 {
        // Whoever opens it has the kernel ask for its times first, and by these it believes what it had listed or not.
        if inode == DIRECTORY { 0 } else { self.sharing().cache_seconds() }
    }

    fn has_invalidations(&self) -> bool {
        self.volume.has_invalidations()
    }

    fn next_invalidation(&self) -> Option<Invalidation> {
        self.volume.next_invalidation()
    }
}
