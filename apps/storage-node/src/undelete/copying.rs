//! Copying a file or a directory out of a state of the past into the volume as it is: content, modes, owners, times, extended attributes,
//! links and holes.
//!
//! It has no name until it is whole: a file is linked then, and a directory, which has to have one, is renamed. What a copy that was cut
//! short leaves of a directory says so in its name, which is one that nothing else has: it stands in no later one's way.

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
/// As many names are tried for a directory that is not whole.
const UNFINISHED_MAX: u32 = 1000;

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
    match found.kind {
        FileKind::Directory => copying.directory_at(&found, directory, last, place)?,
        _ => copying.node(&found, directory, last, place).map_err(failed(place))?,
    }
    to.sync(None, false).map_err(failed(place))?;
    Ok(copying.copied)
}

/// The name, as much of it as there is room for, and that it is not whole.
fn unfinished(name: &[u8], number: u32) -> Vec<u8> {
    let suffix = match number {
        1 => " (undelete not finished)".to_owned(),
        number => format!(" (undelete not finished {number})"),
    };
    let mut kept = name.len().min(filesystem::operations::NAME_SIZE_MAX - suffix.len());
    // Not within a character.
    while kept > 0 && name.get(kept).is_some_and(|byte| byte & 0xc0 == 0x80) {
        kept -= 1;
    }
    [&name[..kept], suffix.as_bytes()].concat()
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
    /// Copies a directory under a name that says that it is not whole, and renames it then.
    fn directory_at(
        &mut self,
        old: &Attributes,
        parent: Inode,
        name: &[u8],
        place: &[u8],
    ) -> Result<(), Failure> {
        let unfinished = self.free_name(parent, name).map_err(failed(place))?;
        let flags = RenameFlags { no_replace: true, ..RenameFlags::default() };
        let copied = self
            .node(old, parent, &unfinished, place)
            .and_then(|()| self.to.rename(parent, &unfinished, parent, name, flags));
        let Err(errno) = copied else { return Ok(()) };
        if self.to.lookup(parent, &unfinished).is_err() {
            return Err(failed(place)(errno));
        }
        let above = &place[..place.len() - name.len()];
        let left = format!("what was copied until then is at {:?}", Shown::of([above, &unfinished].concat()));
        Err(match errno {
            Errno::ENOSPC => Failure::DiskFull { place: format!("the nodes cannot take more, and {left}") },
            Errno::EEXIST => Failure::Value {
                name: Shown::of(place),
                reason: format!("something was put there meanwhile; {left}, all of it"),
            },
            errno => Failure::Value { name: Shown::of(place), reason: format!("{errno}; {left}") },
        })
    }

    /// What a directory is called before it is whole: another may have been cut short.
    fn free_name(&self, parent: Inode, name: &[u8]) -> Result<Vec<u8>, Errno> {
        for number in 1..=UNFINISHED_MAX {
            let unfinished = unfinished(name, number);
            match self.to.lookup(parent, &unfinished) {
                Err(Errno::ENOENT) => return Ok(unfinished),
                Ok(_) | Err(Errno::EOPNOTSUPP) => {}
                Err(errno) => return Err(errno),
            }
        }
        Err(Errno::EEXIST)
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

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use dht::MemoryBlockStore;
    use filesystem::Options;
    use filesystem::access::VolumeKeys;
    use filesystem::volume::Volume;
    use reactor::crypto::X25519Secret;

    use super::*;

    const CREDENTIALS: Credentials = Credentials { uid: 0, gid: 0, umask: 0 };

    fn created() -> Rc<Volume> {
        let store = Rc::new(MemoryBlockStore::new());
        let register = store.new_register([1; 32]);
        let keys = VolumeKeys { register, secret: X25519Secret::generate(), readers: Vec::new() };
        Volume::create(store, keys, Options::default(), (0, 0)).unwrap()
    }

    #[test]
    fn one_that_was_cut_short_stands_in_no_later_ones_way() {
        reactor::run(|| {
            let (from, to) = (created(), created());
            let make = |volume: &Volume, name: &[u8]| {
                volume.make_directory(Inode::ROOT, name, 0o755, &CREDENTIALS).unwrap().inode
            };
            let photos = make(&from, b"photos");
            from.make_node(photos, b"one", FileKind::Regular, 0o644, 0, &CREDENTIALS).unwrap();
            let left = [" (undelete not finished)", " (undelete not finished 2)"];
            for left in left {
                make(&to, format!("photos{left}").as_bytes());
            }
            let copied = copy(&*from, b"photos", &*to, b"photos").unwrap();
            assert_eq!((copied.file_count, copied.left_out.len()), (1, 0));
            assert!(find(&*to, b"photos/one").is_ok());
            for left in left {
                assert!(find(&*to, format!("photos{left}").as_bytes()).is_ok(), "it is nobody's to remove");
            }
            assert_eq!(find(&*to, b"photos (undelete not finished 3)"), Err(Errno::ENOENT));
            from.close().stored().unwrap();
            to.close().stored().unwrap();
        });
    }

    #[test]
    fn what_is_not_whole_says_so_in_a_name_of_whole_characters() {
        let long = "é".repeat(127);
        for number in [1, 2, 1000] {
            let name = String::from_utf8(unfinished(long.as_bytes(), number)).unwrap();
            assert!(name.len() <= 255 && name.starts_with("éé") && name.contains("not finished"), "{name}");
        }
    }
}
