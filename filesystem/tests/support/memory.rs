//! A file system in a few maps: what the mount is tested and measured with, apart from any volume.
//!
//! It is as simple as POSIX allows, and as fast as the mount may ever be: no request suspends. File content is kept in
//! frames of 32 KiB, as a volume's, so that reads are answered from shared slices and holes take no memory.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use filesystem::Errno;
use filesystem::operations::{
    AllocateMode, Attributes, Credentials, DirectoryEntry, FileKind, Inode, NAME_SIZE_MAX, Operations,
    ReadBytes, RenameFlags, SetAttributes, Sharing, Statistics, Time, Whence, XattrMode,
};
use reactor::cell::RefCell;

#[path = "frames.rs"]
mod frames;
#[path = "nodes.rs"]
mod nodes;
use frames::{FRAME_BYTES, change_frame, frame, resize, split, zero};
use nodes::{Content, Node, Nodes, bear_name, bury, directory, find, frames, node, touch};

/// Whether reads and lookups wait, and how many do; for another thread to see and to say.
#[derive(Default)]
pub(crate) struct Gate {
    /// Reads wait.
    pub(crate) is_closed: AtomicBool,
    /// Reads that have waited.
    pub(crate) waiting_count: AtomicUsize,
    /// Lookups wait, in a shield, until they are given up: they don't see that, and find what they look for.
    pub(crate) shields_lookups: AtomicBool,
    /// Lookups that have waited so.
    pub(crate) shielded_count: AtomicUsize,
}

/// Whether the running coroutine has been terminated, which a shield keeps from it.
fn is_given_up() -> bool {
    let is_this = |dump: &reactor::CoroutineDump| dump.state == reactor::CoroutineState::Running;
    reactor::dump().coroutines.iter().any(|dump| is_this(dump) && dump.is_terminated)
}

/// The whole file system.
pub(crate) struct MemoryFs {
    nodes: RefCell<Nodes>,
    next_inode: Cell<u64>,
    next_cookie: Cell<u64>,
    /// How long each read waits first, as if content came from far away.
    pub(crate) read_delay: Cell<Duration>,
    /// Where reads wait for a story's word.
    pub(crate) gate: Arc<Gate>,
    /// How long each sync takes.
    pub(crate) sync_delay: Cell<Duration>,
    /// Syncs panic.
    pub(crate) sync_panics: Cell<bool>,
    /// How many syncs have run to their end.
    pub(crate) sync_count: Cell<u32>,
    /// How many descriptors that could write were closed.
    pub(crate) flush_count: Cell<u32>,
}

impl Default for MemoryFs {
    fn default() -> Self {
        let fs = MemoryFs {
            nodes: RefCell::default(),
            next_inode: Cell::new(1),
            next_cookie: Cell::new(3), // 1 and 2 are `.` and `..`
            read_delay: Cell::default(),
            gate: Arc::default(),
            sync_delay: Cell::default(),
            sync_panics: Cell::default(),
            sync_count: Cell::default(),
            flush_count: Cell::default(),
        };
        let credentials = Credentials { uid: 0, gid: 0, umask: 0 };
        fs.insert(FileKind::Directory, 0o755, 0, &credentials, Content::names(Inode::ROOT));
        fs
    }
}

impl MemoryFs {
    fn insert(
        &self,
        kind: FileKind,
        mode: u32,
        rdev: u32,
        credentials: &Credentials,
        content: Content,
    ) -> Attributes {
        let inode = Inode(self.next_inode.get());
        self.next_inode.set(inode.0 + 1);
        let now = Time::now();
        let attributes = Attributes {
            inode,
            kind,
            mode: mode & !credentials.umask,
            uid: credentials.uid,
            gid: credentials.gid,
            nlink: if kind == FileKind::Directory { 2 } else { 1 },
            size: if let Content::Target(target) = &content { target.len() as u64 } else { 0 },
            blocks_512: 0,
            atime: now,
            mtime: now,
            ctime: now,
            btime: now,
            rdev,
        };
        let node = Node { attributes, references: 0, content, xattrs: BTreeMap::new() };
        self.nodes.borrow_mut().insert(inode, node);
        attributes
    }

    fn make(
        &self,
        parent: Inode,
        name: &[u8],
        kind: FileKind,
        (mode, rdev): (u32, u32),
        credentials: &Credentials,
        content: Content,
    ) -> Result<Attributes, Errno> {
        match find(&mut self.nodes.borrow_mut(), parent, name) {
            Err(Errno::ENOENT) => {}
            Err(errno) => return Err(errno),
            Ok(_) => return Err(Errno::EEXIST),
        }
        let (mut credentials, mut mode) = (*credentials, mode);
        let around = self.attributes(parent)?;
        if around.mode & 0o2000 != 0 {
            credentials.gid = around.gid;
            mode |= if kind == FileKind::Directory { 0o2000 } else { 0 };
        }
        let attributes = self.insert(kind, mode, rdev, &credentials, content);
        let nodes = &mut *self.nodes.borrow_mut();
        directory(nodes, parent)?.add(self.cookie(), name, attributes.inode);
        touch(nodes, parent)?;
        if kind == FileKind::Directory {
            bear_name(nodes, parent, 1)?;
        }
        Ok(attributes)
    }

    fn cookie(&self) -> u64 {
        self.next_cookie.set(self.next_cookie.get() + 1);
        self.next_cookie.get()
    }

    /// How many nodes there are, the nameless ones that are still open included.
    #[allow(dead_code)] // Not every test asks.
    pub(crate) fn node_count(&self) -> usize {
        self.nodes.borrow().len()
    }
}

impl Operations for MemoryFs {
    fn lookup(&self, parent: Inode, name: &[u8]) -> Result<Attributes, Errno> {
        if self.gate.shields_lookups.load(Ordering::SeqCst) {
            self.gate.shielded_count.fetch_add(1, Ordering::SeqCst);
            reactor::uninterruptible(|| {
                while !is_given_up() {
                    reactor::sleep(Duration::from_millis(1));
                }
            });
        }
        let nodes = &mut *self.nodes.borrow_mut();
        let inode = match name {
            b"." => parent,
            b".." => directory(nodes, parent)?.parent,
            name => find(nodes, parent, name)?,
        };
        Ok(node(nodes, inode)?.attributes)
    }

    fn remember(&self, inode: Inode) {
        if let Some(node) = self.nodes.borrow_mut().get_mut(&inode) {
            node.references += 1;
        }
    }

    fn forget(&self, inode: Inode, count: u64) {
        let nodes = &mut *self.nodes.borrow_mut();
        if let Some(node) = nodes.get_mut(&inode) {
            assert!(node.references >= count, "{inode:?} is forgotten more often than it was told of");
            node.references -= count;
            bury(nodes, inode);
        }
    }

    fn attributes(&self, inode: Inode) -> Result<Attributes, Errno> {
        Ok(node(&mut self.nodes.borrow_mut(), inode)?.attributes)
    }

    fn set_attributes(&self, inode: Inode, changes: &SetAttributes) -> Result<Attributes, Errno> {
        let nodes = &mut *self.nodes.borrow_mut();
        let now = Time::now();
        if let Some(size) = changes.size {
            let (attributes, frames) = frames(nodes, inode)?;
            resize(attributes, frames, size);
            attributes.mtime = now;
        }
        let attributes = &mut node(nodes, inode)?.attributes;
        if changes.clear_set_ids {
            attributes.mode &= if attributes.mode & 0o010 != 0 { !0o6000 } else { !0o4000 };
        }
        attributes.mode = changes.mode.unwrap_or(attributes.mode);
        attributes.uid = changes.uid.unwrap_or(attributes.uid);
        attributes.gid = changes.gid.unwrap_or(attributes.gid);
        attributes.atime = changes.atime.unwrap_or(attributes.atime);
        attributes.mtime = changes.mtime.unwrap_or(attributes.mtime);
        attributes.ctime = now;
        Ok(*attributes)
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
        let content = match kind {
            FileKind::Regular => Content::Frames(BTreeMap::new()),
            _ => Content::Nothing,
        };
        self.make(parent, name, kind, (mode, rdev), credentials, content)
    }

    fn make_directory(
        &self,
        parent: Inode,
        name: &[u8],
        mode: u32,
        credentials: &Credentials,
    ) -> Result<Attributes, Errno> {
        self.make(parent, name, FileKind::Directory, (mode, 0), credentials, Content::names(parent))
    }

    fn make_symlink(
        &self,
        parent: Inode,
        name: &[u8],
        target: &[u8],
        credentials: &Credentials,
    ) -> Result<Attributes, Errno> {
        let content = Content::Target(Bytes::copy_from_slice(target));
        self.make(parent, name, FileKind::Symlink, (0o777, 0), credentials, content)
    }

    fn read_symlink(&self, inode: Inode) -> Result<Bytes, Errno> {
        match &node(&mut self.nodes.borrow_mut(), inode)?.content {
            Content::Target(target) => Ok(target.clone()),
            _ => Err(Errno::EINVAL),
        }
    }

    fn link(&self, inode: Inode, new_parent: Inode, new_name: &[u8]) -> Result<Attributes, Errno> {
        let nodes = &mut *self.nodes.borrow_mut();
        match find(nodes, new_parent, new_name) {
            Err(Errno::ENOENT) => {}
            Err(errno) => return Err(errno),
            Ok(_) => return Err(Errno::EEXIST),
        }
        bear_name(nodes, inode, 1)?;
        directory(nodes, new_parent)?.add(self.cookie(), new_name, inode);
        touch(nodes, new_parent)?;
        Ok(node(nodes, inode)?.attributes)
    }

    fn unlink(&self, parent: Inode, name: &[u8]) -> Result<(), Errno> {
        let nodes = &mut *self.nodes.borrow_mut();
        let inode = find(nodes, parent, name)?;
        if directory(nodes, inode).is_ok() {
            return Err(Errno::EISDIR);
        }
        directory(nodes, parent)?.remove(name);
        touch(nodes, parent)?;
        bear_name(nodes, inode, -1)
    }

    fn remove_directory(&self, parent: Inode, name: &[u8]) -> Result<(), Errno> {
        let nodes = &mut *self.nodes.borrow_mut();
        let inode = find(nodes, parent, name)?;
        if !directory(nodes, inode)?.names.is_empty() {
            return Err(Errno::ENOTEMPTY);
        }
        directory(nodes, parent)?.remove(name);
        touch(nodes, parent)?;
        bear_name(nodes, parent, -1)?;
        bear_name(nodes, inode, -2)
    }

    fn rename(
        &self,
        parent: Inode,
        name: &[u8],
        new_parent: Inode,
        new_name: &[u8],
        flags: RenameFlags,
    ) -> Result<(), Errno> {
        let mut nodes = self.nodes.borrow_mut();
        let inode = find(&mut nodes, parent, name)?;
        let taken = find(&mut nodes, new_parent, new_name).ok();
        match taken {
            Some(_) if flags.no_replace => return Err(Errno::EEXIST),
            None if flags.exchange => return Err(Errno::ENOENT),
            Some(other) if other == inode => return Ok(()),
            Some(_) if !flags.exchange => {
                drop(nodes);
                let new_is_directory = self.attributes(taken.unwrap_or(inode))?.kind == FileKind::Directory;
                match (self.attributes(inode)?.kind == FileKind::Directory, new_is_directory) {
                    (true, true) => self.remove_directory(new_parent, new_name)?,
                    (false, false) => self.unlink(new_parent, new_name)?,
                    (true, false) => return Err(Errno::ENOTDIR),
                    (false, true) => return Err(Errno::EISDIR),
                }
                nodes = self.nodes.borrow_mut();
            }
            _ => {}
        }
        let nodes = &mut *nodes;
        let mut moves = vec![(parent, name, new_parent, new_name, inode)];
        if let (true, Some(other)) = (flags.exchange, taken) {
            moves.push((new_parent, new_name, parent, name, other));
        }
        for (from, name, _, _, _) in &moves {
            directory(nodes, *from)?.remove(name);
        }
        for (from, _, to, name, inode) in moves {
            directory(nodes, to)?.add(self.cookie(), name, inode);
            if let Ok(moved) = directory(nodes, inode) {
                moved.parent = to;
                bear_name(nodes, from, -1)?;
                bear_name(nodes, to, 1)?;
            }
            touch(nodes, to)?;
            bear_name(nodes, inode, 0)?;
        }
        touch(nodes, parent)
    }

    fn read(&self, inode: Inode, offset: u64, size: u32) -> Result<ReadBytes, Errno> {
        if !self.read_delay.get().is_zero() {
            reactor::sleep(self.read_delay.get());
        }
        if self.gate.is_closed.load(Ordering::SeqCst) {
            self.gate.waiting_count.fetch_add(1, Ordering::SeqCst);
            while self.gate.is_closed.load(Ordering::SeqCst) {
                reactor::sleep(Duration::from_millis(1));
            }
        }
        let nodes = &mut *self.nodes.borrow_mut();
        let (attributes, frames) = frames(nodes, inode)?;
        let mut content = ReadBytes::new();
        let length = u64::from(size).min(attributes.size.saturating_sub(offset));
        split(offset, length, |index, start, length| {
            content.push(frame(frames, index).slice(start..start + length));
        });
        Ok(content)
    }

    fn write(&self, inode: Inode, offset: u64, data: &[u8], clear_set_ids: bool) -> Result<(), Errno> {
        let nodes = &mut *self.nodes.borrow_mut();
        let (attributes, frames) = frames(nodes, inode)?;
        let mut rest = data;
        split(offset, data.len() as u64, |index, start, length| {
            let (part, after) = rest.split_at(length);
            change_frame(frames, index, start, part);
            rest = after;
        });
        let size = attributes.size.max(offset + data.len() as u64);
        resize(attributes, frames, size);
        if clear_set_ids {
            attributes.mode &= !0o6000;
        }
        touch(nodes, inode)
    }

    fn append(&self, inode: Inode, data: &[u8], clear_set_ids: bool) -> Result<u64, Errno> {
        let end = self.attributes(inode)?.size;
        self.write(inode, end, data, clear_set_ids)?;
        Ok(end)
    }

    fn open(&self, inode: Inode) -> Result<(), Errno> {
        self.attributes(inode).map(|_| ())
    }

    fn flush(&self, _: Inode) -> Result<(), Errno> {
        self.flush_count.set(self.flush_count.get() + 1);
        Ok(())
    }

    fn sharing(&self) -> Sharing {
        Sharing::Alone
    }

    fn read_directory(
        &self,
        inode: Inode,
        cookie: u64,
        count_max: usize,
        with_attributes: bool,
    ) -> Result<Vec<DirectoryEntry>, Errno> {
        let nodes = &mut *self.nodes.borrow_mut();
        let directory = directory(nodes, inode)?;
        let parent = directory.parent;
        let dots = [(1, (Bytes::from_static(b"."), inode)), (2, (Bytes::from_static(b".."), parent))];
        let entries: Vec<_> = (dots.into_iter())
            .skip_while(|(dot, _)| *dot <= cookie)
            .chain(directory.by_cookie.range(cookie + 1..).map(|(cookie, entry)| (*cookie, entry.clone())))
            .take(count_max)
            .collect();
        let mut listing = Vec::with_capacity(entries.len());
        for (cookie, (name, inode)) in entries {
            let attributes = node(nodes, inode)?.attributes;
            let wanted = (with_attributes && cookie > 2).then_some(attributes);
            listing.push(DirectoryEntry { name, inode, kind: attributes.kind, cookie, attributes: wanted });
        }
        Ok(listing)
    }

    fn sync(&self, _: Option<Inode>, _: bool) -> Result<(), Errno> {
        if !self.sync_delay.get().is_zero() {
            reactor::sleep(self.sync_delay.get());
        }
        if self.sync_panics.get() {
            std::panic::resume_unwind(Box::new("as the test wants it"));
        }
        self.sync_count.set(self.sync_count.get() + 1);
        Ok(())
    }

    fn allocate(&self, inode: Inode, mode: AllocateMode, offset: u64, length: u64) -> Result<(), Errno> {
        let nodes = &mut *self.nodes.borrow_mut();
        let (attributes, frames) = frames(nodes, inode)?;
        if mode.punch_hole || mode.zero_range {
            zero(attributes, frames, offset, length);
        }
        let size = if mode.keep_size { attributes.size } else { attributes.size.max(offset + length) };
        resize(attributes, frames, size);
        touch(nodes, inode)
    }

    fn seek(&self, inode: Inode, offset: u64, whence: Whence) -> Result<u64, Errno> {
        let nodes = &mut *self.nodes.borrow_mut();
        let (attributes, frames) = frames(nodes, inode)?;
        if offset >= attributes.size {
            return Err(Errno::ENXIO);
        }
        let mut index = offset / FRAME_BYTES as u64;
        while index * (FRAME_BYTES as u64) < attributes.size {
            if frames.contains_key(&index) == (whence == Whence::Data) {
                return Ok(offset.max(index * FRAME_BYTES as u64));
            }
            index += 1;
        }
        if whence == Whence::Hole { Ok(attributes.size) } else { Err(Errno::ENXIO) }
    }

    fn statistics(&self) -> Result<Statistics, Errno> {
        let count = self.nodes.borrow().len() as u64;
        Ok(Statistics {
            block_size: 4096,
            block_count: 1 << 20,
            free_block_count: 1 << 19,
            inode_count: 1 << 20,
            free_inode_count: (1 << 20) - count,
            name_size_max: NAME_SIZE_MAX as u32,
        })
    }

    fn get_xattr(&self, inode: Inode, name: &[u8]) -> Result<Bytes, Errno> {
        node(&mut self.nodes.borrow_mut(), inode)?.xattrs.get(name).cloned().ok_or(Errno::ENODATA)
    }

    fn set_xattr(&self, inode: Inode, name: &[u8], value: &[u8], mode: XattrMode) -> Result<(), Errno> {
        let nodes = &mut *self.nodes.borrow_mut();
        if name.starts_with(b"system.") {
            // Access lists, which would have to follow the mode.
            return Err(Errno::EOPNOTSUPP);
        }
        let xattrs = &mut node(nodes, inode)?.xattrs;
        match (mode, xattrs.contains_key(name)) {
            (XattrMode::Create, true) => return Err(Errno::EEXIST),
            (XattrMode::Replace, false) => return Err(Errno::ENODATA),
            _ => xattrs.insert(name.to_vec(), Bytes::copy_from_slice(value)),
        };
        Ok(())
    }

    fn list_xattr(&self, inode: Inode) -> Result<Vec<Bytes>, Errno> {
        let nodes = &mut *self.nodes.borrow_mut();
        Ok(node(nodes, inode)?.xattrs.keys().map(|name| Bytes::copy_from_slice(name)).collect())
    }

    fn remove_xattr(&self, inode: Inode, name: &[u8]) -> Result<(), Errno> {
        let nodes = &mut *self.nodes.borrow_mut();
        node(nodes, inode)?.xattrs.remove(name).map(|_| ()).ok_or(Errno::ENODATA)
    }
}
