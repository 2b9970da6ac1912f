//! Whose files a mount says they are, where those who share a drive have other numbers on their machines.
//!
//! A volume keeps the numbers of user and group that each file was made with, and they mean somebody on the machine that made it. Who
//! may read a volume has its keys, and who may write to it is on its list, which the nodes hold everybody to: beyond one machine a
//! number decides nothing. So a mount that only its own user can reach shows all that is in it as that user's, as `sshfs` and an NFS
//! export with `all_squash` do; the permission bits stay as they are stored, and the owner's are what holds for him. A mount that
//! several users of a machine reach shows what is stored, as it has to tell them apart.
//!
//! What is stored stays what it was: a new file has the number of who made it, and nothing is rewritten by being shown; a `chown` to oneself
//! is. Here the answers
//! are changed, and what would be a lie afterwards is refused: giving a file to somebody whose it would not be shown to be (`EPERM`, as
//! for any user who is not root). Not here: who may do what, which the kernel decides by what it is shown (`default_permissions`).
//!
//! It does not translate numbers one by one, as `idmap=file` does: that needs a table that somebody keeps, on each machine.

use std::rc::Rc;

use bytes::Bytes;

use crate::errno::Errno;
use crate::operations::{
    AllocateMode, Attributes, Credentials, DirectoryEntry, FileKind, Inode, Invalidation, Operations,
    ReadBytes, RenameFlags, SetAttributes, Sharing, Statistics, Whence, XattrMode,
};

/// Whose files a mount says they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Owners {
    /// [`Mine`](Owners::Mine) where only the user who mounts can reach the mount, else [`Stored`](Owners::Stored): for root, and
    /// where others are let in.
    #[default]
    Usual,
    /// Those of the user who mounts, whoever made them. A group is shown as it is stored if the user is in it, else as his own.
    Mine,
    /// Those of whose number they were made with.
    Stored,
}

impl Owners {
    /// Whom all belongs to in a mount of this process's; `None` if each file is its own owner's.
    pub(crate) fn of_mount(self, others_are_let_in: bool) -> Option<Myself> {
        let is_mine = match self {
            Owners::Mine => true,
            Owners::Stored => false,
            Owners::Usual => !others_are_let_in && !rustix::process::geteuid().is_root(),
        };
        is_mine.then(Myself::of_this_process)
    }
}

/// Whether this process may make and remove names in a directory, by the numbers that it is shown with.
pub fn may_change_names(directory: &Attributes) -> bool {
    Myself::of_this_process().may_change_names(directory)
}

/// A user, by his numbers on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Myself {
    uid: u32,
    gid: u32,
    /// All groups, that one too.
    groups: Vec<u32>,
}

impl Myself {
    fn of_this_process() -> Myself {
        let gid = rustix::process::getegid().as_raw();
        let mut groups: Vec<u32> = rustix::process::getgroups()
            .unwrap_or_default()
            .into_iter()
            .map(|group| group.as_raw())
            .collect();
        groups.push(gid);
        Myself { uid: rustix::process::geteuid().as_raw(), gid, groups }
    }

    fn group(&self, stored: u32) -> u32 {
        if self.groups.contains(&stored) { stored } else { self.gid }
    }

    fn shown(&self, attributes: Attributes) -> Attributes {
        Attributes { uid: self.uid, gid: self.group(attributes.gid), ..attributes }
    }

    /// By its permission bits; root always may.
    fn may_change_names(&self, directory: &Attributes) -> bool {
        const WRITE_AND_SEARCH: u32 = 0o3;
        let shift = match () {
            () if self.uid == 0 => return true,
            () if directory.uid == self.uid => 6,
            () if self.groups.contains(&directory.gid) => 3,
            () => 0,
        };
        directory.mode >> shift & WRITE_AND_SEARCH == WRITE_AND_SEARCH
    }

    /// Refuses to give away what would be shown as this user's all the same.
    fn check(&self, changes: &SetAttributes) -> Result<(), Errno> {
        let is_mine = changes.uid.is_none_or(|uid| uid == self.uid)
            && changes.gid.is_none_or(|gid| self.groups.contains(&gid));
        if is_mine { Ok(()) } else { Err(Errno::EPERM) }
    }

    /// Whose a new node is, whoever makes it.
    fn maker(&self, credentials: &Credentials) -> Credentials {
        Credentials { uid: self.uid, gid: self.group(credentials.gid), ..*credentials }
    }
}

/// All that `operations` has, as one user's.
pub(crate) struct AllMine {
    pub(crate) operations: Rc<dyn Operations>,
    pub(crate) myself: Myself,
}

impl Operations for AllMine {
    fn lookup(&self, parent: Inode, name: &[u8]) -> Result<Attributes, Errno> {
        self.operations.lookup(parent, name).map(|found| self.myself.shown(found))
    }

    fn remember(&self, inode: Inode) {
        self.operations.remember(inode);
    }

    fn forget(&self, inode: Inode, count: u64) {
        self.operations.forget(inode, count);
    }

    fn attributes(&self, inode: Inode) -> Result<Attributes, Errno> {
        self.operations.attributes(inode).map(|found| self.myself.shown(found))
    }

    fn set_attributes(&self, inode: Inode, changes: &SetAttributes) -> Result<Attributes, Errno> {
        self.myself.check(changes)?;
        self.operations.set_attributes(inode, changes).map(|changed| self.myself.shown(changed))
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
        let maker = self.myself.maker(credentials);
        let made = self.operations.make_node(parent, name, kind, mode, rdev, &maker);
        made.map(|made| self.myself.shown(made))
    }

    fn make_unnamed(
        &self,
        directory: Inode,
        mode: u32,
        credentials: &Credentials,
    ) -> Result<Attributes, Errno> {
        let made = self.operations.make_unnamed(directory, mode, &self.myself.maker(credentials));
        made.map(|made| self.myself.shown(made))
    }

    fn make_directory(
        &self,
        parent: Inode,
        name: &[u8],
        mode: u32,
        credentials: &Credentials,
    ) -> Result<Attributes, Errno> {
        let made = self.operations.make_directory(parent, name, mode, &self.myself.maker(credentials));
        made.map(|made| self.myself.shown(made))
    }

    fn make_symlink(
        &self,
        parent: Inode,
        name: &[u8],
        target: &[u8],
        credentials: &Credentials,
    ) -> Result<Attributes, Errno> {
        let made = self.operations.make_symlink(parent, name, target, &self.myself.maker(credentials));
        made.map(|made| self.myself.shown(made))
    }

    fn read_symlink(&self, inode: Inode) -> Result<Bytes, Errno> {
        self.operations.read_symlink(inode)
    }

    fn link(&self, inode: Inode, new_parent: Inode, new_name: &[u8]) -> Result<Attributes, Errno> {
        self.operations.link(inode, new_parent, new_name).map(|linked| self.myself.shown(linked))
    }

    fn unlink(&self, parent: Inode, name: &[u8]) -> Result<(), Errno> {
        self.operations.unlink(parent, name)
    }

    fn remove_directory(&self, parent: Inode, name: &[u8]) -> Result<(), Errno> {
        self.operations.remove_directory(parent, name)
    }

    fn rename(
        &self,
        parent: Inode,
        name: &[u8],
        new_parent: Inode,
        new_name: &[u8],
        flags: RenameFlags,
    ) -> Result<(), Errno> {
        self.operations.rename(parent, name, new_parent, new_name, flags)
    }

    fn read(&self, inode: Inode, offset: u64, size: u32) -> Result<ReadBytes, Errno> {
        self.operations.read(inode, offset, size)
    }

    fn write(&self, inode: Inode, offset: u64, data: &[u8], clear_set_ids: bool) -> Result<(), Errno> {
        self.operations.write(inode, offset, data, clear_set_ids)
    }

    fn append(&self, inode: Inode, data: &[u8], clear_set_ids: bool) -> Result<u64, Errno> {
        self.operations.append(inode, data, clear_set_ids)
    }

    fn open(&self, inode: Inode) -> Result<(), Errno> {
        self.operations.open(inode)
    }

    fn may_write(&self, inode: Inode) -> Result<(), Errno> {
        self.operations.may_write(inode)
    }

    fn flush(&self, inode: Inode) -> Result<(), Errno> {
        self.operations.flush(inode)
    }

    fn read_directory(
        &self,
        inode: Inode,
        cookie: u64,
        count_max: usize,
        with_attributes: bool,
    ) -> Result<Vec<DirectoryEntry>, Errno> {
        let mut entries = self.operations.read_directory(inode, cookie, count_max, with_attributes)?;
        for shown in entries.iter_mut().filter_map(|entry| entry.attributes.as_mut()) {
            *shown = self.myself.shown(*shown);
        }
        Ok(entries)
    }

    fn sync(&self, inode: Option<Inode>, data_only: bool) -> Result<(), Errno> {
        self.operations.sync(inode, data_only)
    }

    fn allocate(&self, inode: Inode, mode: AllocateMode, offset: u64, length: u64) -> Result<(), Errno> {
        self.operations.allocate(inode, mode, offset, length)
    }

    fn seek(&self, inode: Inode, offset: u64, whence: Whence) -> Result<u64, Errno> {
        self.operations.seek(inode, offset, whence)
    }

    fn statistics(&self) -> Result<Statistics, Errno> {
        self.operations.statistics()
    }

    fn get_xattr(&self, inode: Inode, name: &[u8]) -> Result<Bytes, Errno> {
        self.operations.get_xattr(inode, name)
    }

    fn set_xattr(&self, inode: Inode, name: &[u8], value: &[u8], mode: XattrMode) -> Result<(), Errno> {
        self.operations.set_xattr(inode, name, value, mode)
    }

    fn list_xattr(&self, inode: Inode) -> Result<Vec<Bytes>, Errno> {
        self.operations.list_xattr(inode)
    }

    fn remove_xattr(&self, inode: Inode, name: &[u8]) -> Result<(), Errno> {
        self.operations.remove_xattr(inode, name)
    }

    fn sharing(&self) -> Sharing {
        self.operations.sharing()
    }

    fn kept_seconds(&self, inode: Inode) -> u64 {
        self.operations.kept_seconds(inode)
    }

    fn has_invalidations(&self) -> bool {
        self.operations.has_invalidations()
    }

    fn next_invalidation(&self) -> Option<Invalidation> {
        self.operations.next_invalidation()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operations::Time;

    fn stored(uid: u32, gid: u32, mode: u32) -> Attributes {
        let time = Time::default();
        Attributes {
            inode: Inode::ROOT,
            kind: FileKind::Directory,
            mode,
            uid,
            gid,
            nlink: 2,
            size: 0,
            blocks_512: 0,
            atime: time,
            mtime: time,
            ctime: time,
            btime: time,
            rdev: 0,
        }
    }

    fn myself() -> Myself {
        Myself { uid: 1000, gid: 1000, groups: vec![27, 1000] }
    }

    #[test]
    fn all_is_mine_and_no_mode_changes() {
        assert_eq!(myself().shown(stored(0, 0, 0o755)), stored(1000, 1000, 0o755));
        assert_eq!(myself().shown(stored(2000, 27, 0o600)), stored(1000, 27, 0o600), "a group of mine");
        let by_another = Credentials { uid: 7, gid: 8, umask: 0o22 };
        assert_eq!(myself().maker(&by_another), Credentials { uid: 1000, gid: 1000, umask: 0o22 });
    }

    #[test]
    fn nothing_is_given_away_that_would_be_shown_as_mine_all_the_same() {
        let owner = |uid, gid| SetAttributes { uid, gid, ..SetAttributes::default() };
        let mode = SetAttributes { mode: Some(0o700), ..SetAttributes::default() };
        for allowed in [owner(Some(1000), None), owner(Some(1000), Some(27)), owner(None, None), mode] {
            assert_eq!(myself().check(&allowed), Ok(()));
        }
        for refused in [owner(Some(0), None), owner(None, Some(0)), owner(Some(1000), Some(4))] {
            assert_eq!(myself().check(&refused), Err(Errno::EPERM));
        }
    }

    #[test]
    fn who_may_make_names_is_who_the_permission_bits_say() {
        let may = |uid, gid, mode| myself().may_change_names(&stored(uid, gid, mode));
        assert!(may(0, 0, 0o777) && may(0, 0, 0o1777) && may(0, 27, 0o775) && may(1000, 0, 0o700));
        assert!(!may(0, 0, 0o755) && !may(0, 0, 0o776) && !may(0, 27, 0o757));
        assert!(!may(1000, 0, 0o577), "the owner's bits are what holds for him");
        let root = Myself { uid: 0, gid: 0, groups: Vec::new() };
        assert!(root.may_change_names(&stored(5, 5, 0)));
    }
}
