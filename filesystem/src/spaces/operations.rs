//! The [`Operations`] of a drive with spaces: each goes to the drive, or to the space that its number tells of.

use bytes::Bytes;

use super::WithSpaces;
use crate::errno::Errno;
use crate::numbers::{Node, SPACES};
use crate::operations::{
    AllocateMode, Attributes, Credentials, DirectoryEntry, FileKind, Inode, Invalidation, Operations,
    ReadBytes, RenameFlags, SetAttributes, Sharing, Statistics, Whence, XattrMode,
};

impl WithSpaces {
    /// Puts the names of spaces among those of the drive's directory `parent`.
    fn with_links(&self, parent: Inode, entries: &mut [DirectoryEntry]) -> Result<(), Errno> {
        for entry in entries.iter_mut().filter(|entry| entry.kind == FileKind::Unknown) {
            // That there are too many, or that it is somebody's nonsense, is told whoever looks it up.
            if let Ok(Some(space)) = self.linked(parent, &entry.name) {
                entry.kind = FileKind::Directory;
                entry.inode = self.numbers.borrow().of(Node { tree: space.number, inode: Inode::ROOT });
                entry.attributes = None;
            } else if let Ok(Some(tree)) = self.linked_then(parent, &entry.name) {
                // Which number its top has is known once it is looked up.
                entry.kind = FileKind::Directory;
                entry.inode = self.numbers.borrow().of(Node { tree, inode: Inode::ROOT });
                entry.attributes = None;
            }
        }
        Ok(())
    }
}

impl Operations for WithSpaces {
    fn lookup(&self, parent: Inode, name: &[u8]) -> Result<Attributes, Errno> {
        if SPACES.has(parent) && name == b"." && self.is_shut(parent) {
            return self.attributes(parent);
        }
        let Some(found) = self.find(parent)? else {
            return match self.base.lookup(parent, name) {
                Err(Errno::EOPNOTSUPP) => match self.linked(parent, name)? {
                    Some(space) => {
                        space.above.set(parent);
                        self.show_space(&space)
                    }
                    None => match self.linked_then(parent, name)? {
                        Some(tree) => self.show_then(tree),
                        None => Err(Errno::EOPNOTSUPP),
                    },
                },
                other => other,
            };
        };
        if name == b".."
            && let Some(above) = self.above_then(found.tree, found.inode)
        {
            return self.base.attributes(above);
        }
        if found.inode == Inode::ROOT && name == b".." {
            return self.base.attributes(found.space.above.get());
        }
        let attributes = found.volume.lookup(found.inode, name)?;
        Ok(self.show(found.tree, attributes))
    }

    fn remember(&self, inode: Inode) {
        if !SPACES.has(inode) {
            return self.base.remember(inode);
        }
        self.numbers.borrow_mut().remember(inode);
        if let Ok((_, space, inode)) = self.node(inode)
            && let Some(volume) = space.opened()
        {
            volume.remember(inode);
        }
    }

    fn forget(&self, inode: Inode, count: u64) {
        if !SPACES.has(inode) {
            return self.base.forget(inode, count);
        }
        if let Ok((_, space, inode)) = self.node(inode)
            && let Some(volume) = space.opened()
        {
            volume.forget(inode, count);
        }
        self.numbers.borrow_mut().forget(inode, count);
    }

    fn attributes(&self, inode: Inode) -> Result<Attributes, Errno> {
        if !SPACES.has(inode) {
            return self.base.attributes(inode);
        }
        let (_, space, within) = self.node(inode)?;
        if within == Inode::ROOT {
            return Ok(Attributes { inode, ..self.show_space(&space)? });
        }
        Ok(Attributes { inode, ..self.volume_of(&space)?.attributes(within)? })
    }

    fn set_attributes(&self, inode: Inode, changes: &SetAttributes) -> Result<Attributes, Errno> {
        match self.find(inode)? {
            None => self.base.set_attributes(inode, changes),
            Some(found) => Ok(Attributes { inode, ..found.volume.set_attributes(found.inode, changes)? }),
        }
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
        match self.find(parent)? {
            None => self.base.make_node(parent, name, kind, mode, rdev, credentials),
            Some(found) => {
                let made = found.volume.make_node(found.inode, name, kind, mode, rdev, credentials)?;
                Ok(self.show(found.tree, made))
            }
        }
    }

    fn make_unnamed(
        &self,
        directory: Inode,
        mode: u32,
        credentials: &Credentials,
    ) -> Result<Attributes, Errno> {
        match self.find(directory)? {
            None => self.base.make_unnamed(directory, mode, credentials),
            Some(found) => {
                let made = found.volume.make_unnamed(found.inode, mode, credentials)?;
                Ok(self.show(found.tree, made))
            }
        }
    }

    fn make_directory(
        &self,
        parent: Inode,
        name: &[u8],
        mode: u32,
        credentials: &Credentials,
    ) -> Result<Attributes, Errno> {
        match self.find(parent)? {
            None => self.base.make_directory(parent, name, mode, credentials),
            Some(found) => {
                let made = found.volume.make_directory(found.inode, name, mode, credentials)?;
                Ok(self.show(found.tree, made))
            }
        }
    }

    fn make_symlink(
        &self,
        parent: Inode,
        name: &[u8],
        target: &[u8],
        credentials: &Credentials,
    ) -> Result<Attributes, Errno> {
        match self.find(parent)? {
            None => self.base.make_symlink(parent, name, target, credentials),
            Some(found) => {
                let made = found.volume.make_symlink(found.inode, name, target, credentials)?;
                Ok(self.show(found.tree, made))
            }
        }
    }

    fn read_symlink(&self, inode: Inode) -> Result<Bytes, Errno> {
        match self.find(inode)? {
            None => self.base.read_symlink(inode),
            Some(found) => found.volume.read_symlink(found.inode),
        }
    }

    fn link(&self, inode: Inode, new_parent: Inode, new_name: &[u8]) -> Result<Attributes, Errno> {
        match (self.find(inode)?, self.find(new_parent)?) {
            (None, None) => self.base.link(inode, new_parent, new_name),
            (Some(from), Some(to)) if from.tree == to.tree => {
                let linked = to.volume.link(from.inode, to.inode, new_name)?;
                Ok(self.show(to.tree, linked))
            }
            _ => Err(Errno::EXDEV),
        }
    }

    fn unlink(&self, parent: Inode, name: &[u8]) -> Result<(), Errno> {
        match self.find(parent)? {
            None => self.explain(self.base.unlink(parent, name), &[(parent, name)]),
            Some(found) => found.volume.unlink(found.inode, name),
        }
    }

    fn remove_directory(&self, parent: Inode, name: &[u8]) -> Result<(), Errno> {
        match self.find(parent)? {
            None => self.explain(self.base.remove_directory(parent, name), &[(parent, name)]),
            Some(found) => found.volume.remove_directory(found.inode, name),
        }
    }

    fn rename(
        &self,
        parent: Inode,
        name: &[u8],
        new_parent: Inode,
        new_name: &[u8],
        flags: RenameFlags,
    ) -> Result<(), Errno> {
        match (self.find(parent)?, self.find(new_parent)?) {
            (None, None) => {
                let renamed = self.base.rename(parent, name, new_parent, new_name, flags);
                self.explain(renamed, &[(parent, name), (new_parent, new_name)])
            }
            (Some(from), Some(to)) if from.tree == to.tree => {
                to.volume.rename(from.inode, name, to.inode, new_name, flags)
            }
            _ => Err(Errno::EXDEV),
        }
    }

    fn read(&self, inode: Inode, offset: u64, size: u32) -> Result<ReadBytes, Errno> {
        match self.find(inode)? {
            None => self.base.read(inode, offset, size),
            Some(found) => found.volume.read(found.inode, offset, size),
        }
    }

    fn write(&self, inode: Inode, offset: u64, data: &[u8], clear_set_ids: bool) -> Result<(), Errno> {
        match self.find(inode)? {
            None => self.base.write(inode, offset, data, clear_set_ids),
            Some(found) => found.volume.write(found.inode, offset, data, clear_set_ids),
        }
    }

    fn append(&self, inode: Inode, data: &[u8], clear_set_ids: bool) -> Result<u64, Errno> {
        match self.find(inode)? {
            None => self.base.append(inode, data, clear_set_ids),
            Some(found) => found.volume.append(found.inode, data, clear_set_ids),
        }
    }

    fn open(&self, inode: Inode) -> Result<(), Errno> {
        match self.find(inode)? {
            None => self.base.open(inode),
            Some(found) => found.volume.open(found.inode),
        }
    }

    fn may_write(&self, inode: Inode) -> Result<(), Errno> {
        match self.find(inode)? {
            None => self.base.may_write(inode),
            Some(found) => found.volume.may_write(found.inode),
        }
    }

    fn flush(&self, inode: Inode) -> Result<(), Errno> {
        match self.find(inode)? {
            None => self.base.flush(inode),
            Some(found) => found.volume.flush(found.inode),
        }
    }

    fn read_directory(
        &self,
        inode: Inode,
        cookie: u64,
        count_max: usize,
        with_attributes: bool,
    ) -> Result<Vec<DirectoryEntry>, Errno> {
        let Some(found) = self.find(inode)? else {
            let mut entries = self.base.read_directory(inode, cookie, count_max, with_attributes)?;
            self.with_links(inode, &mut entries)?;
            return Ok(entries);
        };
        let mut entries = found.volume.read_directory(found.inode, cookie, count_max, with_attributes)?;
        let node = Node { tree: found.tree, inode: found.inode };
        self.numbers.borrow_mut().list(node, found.space.above.get(), &mut entries);
        if let Some(above) = self.above_then(found.tree, found.inode) {
            let up = entries.iter_mut().filter(|entry| entry.name.as_ref() == b"..");
            up.for_each(|entry| entry.inode = above);
        }
        Ok(entries)
    }

    fn sync(&self, inode: Option<Inode>, data_only: bool) -> Result<(), Errno> {
        if let Some(inode) = inode.filter(|inode| *inode != Inode::ROOT) {
            return match self.find(inode)? {
                None => self.base.sync(Some(inode), data_only),
                Some(found) => found.volume.sync(Some(found.inode), data_only),
            };
        }
        // All of them, whatever becomes of one: the mountpoint's stands for that of the whole mount.
        let synced = self.open_volumes().into_iter().map(|volume| volume.sync(None, data_only));
        let spaces = synced.fold(Ok(()), Result::and);
        self.base.sync(None, data_only).and(spaces)
    }

    fn allocate(&self, inode: Inode, mode: AllocateMode, offset: u64, length: u64) -> Result<(), Errno> {
        match self.find(inode)? {
            None => self.base.allocate(inode, mode, offset, length),
            Some(found) => found.volume.allocate(found.inode, mode, offset, length),
        }
    }

    fn seek(&self, inode: Inode, offset: u64, whence: Whence) -> Result<u64, Errno> {
        match self.find(inode)? {
            None => self.base.seek(inode, offset, whence),
            Some(found) => found.volume.seek(found.inode, offset, whence),
        }
    }

    fn statistics(&self) -> Result<Statistics, Errno> {
        // The nodes are the same.
        self.base.statistics()
    }

    fn get_xattr(&self, inode: Inode, name: &[u8]) -> Result<Bytes, Errno> {
        if self.is_shut(inode) {
            return Err(Errno::ENODATA);
        }
        match self.find(inode)? {
            None => self.base.get_xattr(inode, name),
            Some(found) => found.volume.get_xattr(found.inode, name),
        }
    }

    fn set_xattr(&self, inode: Inode, name: &[u8], value: &[u8], mode: XattrMode) -> Result<(), Errno> {
        match self.find(inode)? {
            None => self.base.set_xattr(inode, name, value, mode),
            Some(found) => found.volume.set_xattr(found.inode, name, value, mode),
        }
    }

    fn list_xattr(&self, inode: Inode) -> Result<Vec<Bytes>, Errno> {
        if self.is_shut(inode) {
            return Ok(Vec::new());
        }
        match self.find(inode)? {
            None => self.base.list_xattr(inode),
            Some(found) => found.volume.list_xattr(found.inode),
        }
    }

    fn remove_xattr(&self, inode: Inode, name: &[u8]) -> Result<(), Errno> {
        match self.find(inode)? {
            None => self.base.remove_xattr(inode, name),
            Some(found) => found.volume.remove_xattr(found.inode, name),
        }
    }

    fn sharing(&self) -> Sharing {
        self.shared_most()
    }

    fn kept_seconds(&self, inode: Inode) -> u64 {
        if !SPACES.has(inode) {
            return self.base.kept_seconds(inode);
        }
        // What is shut may open.
        let found = self.node(inode).ok().and_then(|(_, space, inode)| Some((space.opened()?, inode)));
        found.map_or(0, |(volume, inode)| volume.kept_seconds(inode))
    }

    fn has_invalidations(&self) -> bool {
        !self.news.is_empty()
            || self.base.has_invalidations()
            || self.open_volumes().iter().any(|volume| volume.has_invalidations())
    }

    fn next_invalidation(&self) -> Option<Invalidation> {
        self.news.next()
    }
}
