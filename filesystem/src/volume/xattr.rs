//! Extended attributes: small values by name, in the tree's leaves. Each method is one step over the [`State`].

use bytes::Bytes;

use super::state::{Change, State, Step, xattr_range};
use crate::errno::Errno;
use crate::format::Key;
use crate::operations::{NAME_SIZE_MAX, Time, XATTR_VALUE_SIZE_MAX, XattrMode};

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
        self.set(key, Change::Xattr(Bytes::copy_from_slice(value)));
        record.ctime = Time::now();
        self.set_record(inode, record);
        Ok(())
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
        if self.read_only {
            return Err(Errno::EROFS.into());
        }
        let mut record = self.record(inode)?;
        let key = key(inode, name)?;
        if self.get(&key)?.is_none() {
            return Err(Errno::ENODATA.into());
        }
        self.set(key, Change::Removed);
        record.ctime = Time::now();
        self.set_record(inode, record);
        Ok(())
    }
}
