//! Extended attributes: small values by name, in the tree's leaves. Each method is one step over the [`State`].

use bytes::Bytes;

use super::frame_size::{self, FrameSize};
use super::snapshots::{SnapshotPolicy, automatic};
use super::state::{Change, State, Step, xattr_range};
use crate::errno::Errno;
use crate::format::Key;
use crate::operations::{FileKind, NAME_SIZE_MAX, Time, XATTR_VALUE_SIZE_MAX, XattrMode};
use crate::posix_acl::{self, Acl};

/// The bits of a mode that an access list stands for.
const PERMISSIONS: u32 = 0o777;

/// What `listxattr` returns at most (`XATTR_LIST_MAX`): with more names none could be listed, nor removed by tools.
const LIST_SIZE_MAX: usize = 64 * 1024;

/// The name spaces that Linux gives a meaning, and that of the two access lists.
const NAME_SPACES: [&[u8]; 4] = [b"user.", b"trusted.", b"security.", b"system.posix_acl_"];

fn key(inode: u64, name: &[u8]) -> Result<Key, Errno> {
    if !NAME_SPACES.iter().any(|space| name.starts_with(space)) {
        return Err(Errno::EOPNOTSUPP);
    }
    match name.len() {
        0 => Err(Errno::EINVAL),
        1..=NAME_SIZE_MAX => Ok(Key::Xattr(inode, Bytes::copy_from_slice(name))),
        _ => Err(Errno::ERANGE),
    }
}

impl State {
    pub(crate) fn get_xattr(&mut self, inode: u64, name: &[u8]) -> Step<Bytes> {
        self.record(inode)?;
        match self.get(&key(inode, name)?)? {
            Some(Change::Xattr(value)) => Ok(value),
            None => Err(Errno::ENODATA.into()),
            Some(_) => Err(Errno::EIO.into()),
        }
    }

    pub(crate) fn set_xattr(&mut self, inode: u64, name: &[u8], value: &[u8], mode: XattrMode) -> Step<()> {
        self.writable()?;
        let mut record = self.record(inode)?;
        let key = key(inode, name)?;
        if value.len() > XATTR_VALUE_SIZE_MAX {
            return Err(Errno::E2BIG.into());
        }
        match (mode, self.get(&key)?) {
            (XattrMode::Create, Some(_)) => return Err(Errno::EEXIST.into()),
            (XattrMode::Replace, None) => return Err(Errno::ENODATA.into()),
            (_, None) => {
                let listed: usize = self.list_xattr(inode)?.iter().map(|name| name.len() + 1).sum();
                if listed + name.len() + 1 > LIST_SIZE_MAX {
                    return Err(Errno::ENOSPC.into());
                }
            }
            _ => {}
        }
        let mut change = Change::Xattr(Bytes::copy_from_slice(value));
        if name == posix_acl::ACCESS {
            let list = Acl::decode(value).ok_or(Errno::EINVAL)?;
            record.mode = record.mode & !PERMISSIONS | list.mode();
            if list.is_mode_only() {
                change = Change::Removed;
            }
        } else if name == posix_acl::DEFAULT {
            if record.kind != FileKind::Directory {
                return Err(Errno::EACCES.into());
            }
            Acl::decode(value).ok_or(Errno::EINVAL)?;
        } else if name == automatic::NAME {
            let text = std::str::from_utf8(value).map_err(|_| Errno::EINVAL)?;
            text.parse::<SnapshotPolicy>().map_err(|_| Errno::EINVAL)?;
        } else if name == frame_size::NAME {
            FrameSize::check(record.kind, value)?;
        }
        self.set(key, change);
        record.ctime = Time::now();
        self.set_record(inode, record);
        Ok(())
    }

    /// Returns an access list that a node has beyond its mode; `name` says which.
    pub(crate) fn access_list(&mut self, inode: u64, name: &'static [u8]) -> Step<Option<Acl>> {
        match self.get(&Key::Xattr(inode, Bytes::from_static(name)))? {
            None => Ok(None),
            // The kernel would not obey half a list either.
            Some(Change::Xattr(value)) => Ok(Some(Acl::decode(&value).ok_or(Errno::EIO)?)),
            Some(_) => Err(Errno::EIO.into()),
        }
    }

    /// Stores a list; one that says no more than the mode is none.
    pub(crate) fn set_access_list(&mut self, inode: u64, name: &'static [u8], list: &Acl) {
        let change = match name == posix_acl::ACCESS && list.is_mode_only() {
            true => Change::Removed,
            false => Change::Xattr(list.encode().into()),
        };
        self.set(Key::Xattr(inode, Bytes::from_static(name)), change);
    }

    pub(crate) fn list_xattr(&mut self, inode: u64) -> Step<Vec<Bytes>> {
        self.record(inode)?;
        let (mut from, end) = xattr_range(inode);
        let mut names = Vec::new();
        while let Some((key, _)) = self.next(&from, &end)? {
            from = key.successor();
            if let Key::Xattr(_, name) = key {
                names.push(name);
            }
        }
        Ok(names)
    }

    pub(crate) fn remove_xattr(&mut self, inode: u64, name: &[u8]) -> Step<()> {
        self.changeable()?;
        let mut record = self.record(inode)?;
        let key = key(inode, name)?;
        if self.get(&key)?.is_none() {
            // Every node has a list, if only that of its mode: there is nothing to miss.
            let is_list = name == posix_acl::ACCESS || name == posix_acl::DEFAULT;
            return if is_list { Ok(()) } else { Err(Errno::ENODATA.into()) };
        }
        self.set(key, Change::Removed);
        record.ctime = Time::now();
        self.set_record(inode, record);
        Ok(())
    }
}
