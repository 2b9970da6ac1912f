//! Copying a file or a directory out of a state of the past into the volume as it is: content, modes, owners, times, extended attributes,
//! links and holes.
//!
//! It has no name until it is whole: a file is linked then, and a directory, which has to have one, is renamed. What a copy that was cut
//! short leaves of a directory says so in its name.

use std::collections::HashMap;

use filesystem::Errno;
use filesystem::format::Shown;
use filesystem::operations::{
    Attributes, Credentials, FileKind, Inode, Operations, RenameFlags, SetAttributes, Whence, XattrMode,
};
use filesystem::volume::RestoreError;

use crate::errors::Failure;

/// As much as is read at once.
const PIECE_SIZE_BYTES: u32 = 1 << 20;
/// As many names as a directory is listed by at once.
const LISTED_MAX: usize = 512;
/// What a directory is called before it is whole.
const UNFINISHED: &[u8] = b" (undelete not finished)";

/// What was copied.
#[derive(Debug, Default)]
pub(super) struct Copied {
    pub(super) file_count: u64,
    pub(super) size_bytes: u64,
    /// What can't be, by where it was to be.
    pub(super) left_out: Vec<Vec<u8>>,
}

/// What `path` names, without following symbolic links.
pub(super) fn find(volume: &dyn Operations, path: &[u8]) -> Result<Attributes, Errno> {
    let mut found = volume.attributes(Inode::ROOT)?;
    for part in path.split(|byte| *byte == b'/') {
        if found.kind != FileKind::Directory {
            return Err(Errno::ENOTDIR);
        }
        found = volume.lookup(found.inode, part)?;
    }
    Ok(found)
}

/// Copies what `from` has at `path` to `place`, where nothing is, and returns once the nodes have it.
///
/// # Errors
/// `Failure::NothingToRestore` if there is no directory for it, `Failure::Restore` if something is there, `Failure::Value` with what keeps it from being read or written.
pub(super) fn copy(
    from: &dyn Operations,
    path: &[u8],
    to: &dyn Operations,
    place: &[u8],
) -> Result<Copied, Failure> {
    let (above, last) = match place.iter().rposition(|byte| *byte == b'/') {
        Some(at) => (&place[..at], &place[at + 1..]),
        None => (&b""[..], place),
    };
    let directory = match above {
        b"" => to.attributes(Inode::ROOT),
        above => find(to, above),
    };
    let directory = match directory {
        Ok(Attributes { kind: FileKind::Directory, inode, .. }) => inode,
        Ok(_) | Err(Errno::ENOENT | Errno::ENOTDIR) => {
            return Err(Failure::NothingToRestore {
                reason: format!("there is no directory {:?} now", Shown::of(above)),
                advice: "undelete that, which brings back all that was in it; or give --to a place that there is",
            });
        }
        Err(errno) => return Err(failed(above)(errno)),
    };
    match to.lookup(directory, last) {
        Err(Errno::ENOENT) => {}
        Ok(_) | Err(Errno::EOPNOTSUPP) => {
            return Err(RestoreError::Occupied { path: Shown::of(place) }.into());
        }
        Err(errno) => return Err(failed(place)(errno)),
    }
    let mut copying = Copying { from, to, links: HashMap::new(), copied: Copied::default() };
    let found = find(from, path).map_err(failed(path))?;
    copying.top(&found, directory, last, place).map_err(failed(place))?;
    to.sync(None, false).map_err(failed(place))?;
    Ok(copying.copied)
}

fn failed(path: &[u8]) -> impl Fn(Errno) -> Failure + '_ {
    move |errno| match errno {
        Errno::ENOSPC => Failure::DiskFull { place: "the nodes cannot take more".into() },
        errno => Failure::Value { name: Shown::of(path), reason: errno.to_string() },
    }
}

struct Copying<'a> {
    from: &'a dyn Operations,
    to: &'a dyn Operations,
    /// Files of several names, by their numbers then.
    links: HashMap<Inode, Inode>,
    copied: Copied,
}

impl Copying<'_> {
    fn top(&mut self, old: &Attributes, parent: Inode, name: &[u8], path: &[u8]) -> Result<(), Errno> {
        if old.kind != FileKind::Directory {
            return self.node(old, parent, name, path);
        }
        let kept = filesystem::operations::NAME_SIZE_MAX - UNFINISHED.len();
        let unfinished = [&name[..name.len().min(kept)], UNFINISHED].concat();
        self.node(old, parent, &unfinished, path)?;
        let flags = RenameFlags { no_replace: true, ..RenameFlags::default() };
        self.to.rename(parent, &unfinished, parent, name, flags)
    }

    /// Copies one inode to a name, with all below it.
    fn node(&mut self, old: &Attributes, parent: Inode, name: &[u8], path: &[u8]) -> Result<(), Errno> {
        if let Some(new) = self.links.get(&old.inode) {
            return self.to.link(*new, parent, name).map(drop);
        }
        let credentials = Credentials { uid: old.uid, gid: old.gid, umask: 0 };
        let new = match old.kind {
            FileKind::Unknown => {
                self.copied.left_out.push(path.to_vec());
                return Ok(());
            }
            FileKind::Regular => {
                let new = self.to.make_unnamed(parent, 0o600, &credentials)?.inode;
                self.to.remember(new);
                let written = self.content(old, new).and_then(|()| self.attributes(old, new));
                let named = written.and_then(|()| self.to.link(new, parent, name).map(drop));
                self.to.forget(new, 1);
                named?;
                self.copied.size_bytes += old.size;
                new
            }
            FileKind::Directory => {
                let new = self.to.make_directory(parent, name, 0o700, &credentials)?.inode;
                self.directory(old.inode, new, path)?;
                self.attributes(old, new)?;
                return Ok(());
            }
            FileKind::Symlink => {
                let target = self.from.read_symlink(old.inode)?;
                let new = self.to.make_symlink(parent, name, &target, &credentials)?.inode;
                self.attributes(old, new)?;
                new
            }
            kind => {
                let new = self.to.make_node(parent, name, kind, old.mode, old.rdev, &credentials)?.inode;
                self.attributes(old, new)?;
                new
            }
        };
        self.copied.file_count += 1;
        if old.nlink > 1 {
            self.links.insert(old.inode, new);
        }
        Ok(())
    }

    fn directory(&mut self, old: Inode, new: Inode, path: &[u8]) -> Result<(), Errno> {
        let mut cookie = 0;
        loop {
            let entries = self.from.read_directory(old, cookie, LISTED_MAX, false)?;
            let Some(last) = entries.last() else { return Ok(()) };
            cookie = last.cookie;
            for entry in entries.iter().filter(|entry| !matches!(&entry.name[..], b"." | b"..")) {
                let path = [path, b"/", &entry.name].concat();
                if entry.kind == FileKind::Unknown {
                    self.copied.left_out.push(path);
                    continue;
                }
                let found = self.from.lookup(old, &entry.name)?;
                self.node(&found, new, &entry.name, &path)?;
            }
        }
    }

    fn content(&self, old: &Attributes, new: Inode) -> Result<(), Errno> {
        let mut offset = 0;
        while offset < old.size {
            let data = match self.from.seek(old.inode, offset, Whence::Data) {
                Err(Errno::ENXIO) => break,
                data => data?,
            };
            let hole = self.from.seek(old.inode, data, Whence::Hole)?;
            offset = data;
            while offset < hole {
                let size = u32::try_from(hole - offset).unwrap_or(u32::MAX).min(PIECE_SIZE_BYTES);
                let read = self.from.read(old.inode, offset, size)?;
                let before = offset;
                for bytes in &read {
                    self.to.write(new, offset, bytes, false)?;
                    offset += bytes.len() as u64;
                }
                if offset == before {
                    return Err(Errno::EIO);
                }
            }
        }
        self.to
            .set_attributes(new, &SetAttributes { size: Some(old.size), ..SetAttributes::default() })
            .map(drop)
    }

    /// Last, as content and names change times.
    fn attributes(&self, old: &Attributes, new: Inode) -> Result<(), Errno> {
        for name in self.from.list_xattr(old.inode)? {
            let value = self.from.get_xattr(old.inode, &name)?;
            self.to.set_xattr(new, &name, &value, XattrMode::Set)?;
        }
        let owner = SetAttributes { uid: Some(old.uid), gid: Some(old.gid), ..SetAttributes::default() };
        self.to.set_attributes(new, &owner)?;
        let mode = (old.kind != FileKind::Symlink).then_some(old.mode & 0o7777);
        let rest = SetAttributes {
            mode,
            atime: Some(old.atime),
            mtime: Some(old.mtime),
            ..SetAttributes::default()
        };
        self.to.set_attributes(new, &rest).map(drop)
    }
}
