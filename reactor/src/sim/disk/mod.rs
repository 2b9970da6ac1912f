//! A disk with a file system, as a data structure: names and contents, as programs see them and as a crash leaves
//! them. Pure: it takes the time, and what chance decides, as values.
//!
//! Changes of names (files made, renamed, removed) are a journal: each is whole or not there at all, and a crash
//! keeps those up to some point. Syncing a directory keeps all up to its last. A file's own sync does not make its
//! name durable, as POSIX has it.

mod content;
mod durable;

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io::{self, ErrorKind};
use std::path::{Component, Path, PathBuf};
use std::time::SystemTime;

use content::Content;
pub(crate) use content::Fate;

use crate::fs::FileKind;

/// Symbolic links that a path may lead through, as in Linux.
const SYMLINKS_MAX: usize = 40;

/// Permissions that a new file or directory loses: the usual umask.
const UMASK: u32 = 0o022;

/// The root's number.
const ROOT: u64 = 1;

/// A change of names: in each directory, what a name stands for from then on.
type NameChange = Vec<(u64, OsString, Option<u64>)>;

type Names = BTreeMap<OsString, u64>;

/// A file system.
pub(crate) struct Disk {
    inodes: BTreeMap<u64, Inode>,
    last_inode: u64,
    journal: Vec<NameChange>,
    used_bytes: u64,
    /// Bytes that fit; `None` for any number.
    pub(crate) capacity_bytes: Option<u64>,
}

struct Inode {
    node: Node,
    mode: u32,
    modified: SystemTime,
    open_count: u32,
    /// Names that stand for it, as programs see it.
    link_count: u64,
}

enum Node {
    File(Content),
    Directory { live: Names, durable: Names },
    Symlink(PathBuf),
}

/// What is known of a file.
pub(crate) struct Known {
    pub(crate) kind: FileKind,
    pub(crate) len_bytes: u64,
    pub(crate) mode: u32,
    pub(crate) modified: SystemTime,
    pub(crate) link_count: u64,
}

/// How [`Disk::open`] treats a path.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Opening {
    pub(crate) create: bool,
    pub(crate) create_new: bool,
    pub(crate) truncate: bool,
    pub(crate) writes: bool,
    pub(crate) no_follow: bool,
    pub(crate) mode: u32,
}

/// What a crash has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Damage {
    pub(crate) lost_writes: usize,
    pub(crate) torn_writes: usize,
    pub(crate) lost_names: usize,
}

impl Inode {
    fn new(node: Node, mode: u32, now: SystemTime) -> Inode {
        Inode { node, mode, modified: now, open_count: 0, link_count: 0 }
    }

    fn kind(&self) -> FileKind {
        match self.node {
            Node::File(_) => FileKind::File,
            Node::Directory { .. } => FileKind::Directory,
            Node::Symlink(_) => FileKind::Symlink,
        }
    }
}

fn directory() -> Node {
    Node::Directory { live: Names::new(), durable: Names::new() }
}

fn not_found() -> io::Error {
    ErrorKind::NotFound.into()
}

impl Disk {
    /// An empty disk.
    pub(crate) fn new(now: SystemTime) -> Disk {
        let root = Inode::new(directory(), 0o755, now);
        Disk {
            inodes: BTreeMap::from([(ROOT, root)]),
            last_inode: ROOT,
            journal: Vec::new(),
            used_bytes: 0,
            capacity_bytes: None,
        }
    }

    fn inode(&self, number: u64) -> io::Result<&Inode> {
        self.inodes.get(&number).ok_or_else(not_found)
    }

    fn names(&self, number: u64) -> io::Result<&Names> {
        match &self.inode(number)?.node {
            Node::Directory { live, .. } => Ok(live),
            _ => Err(ErrorKind::NotADirectory.into()),
        }
    }

    fn content(&mut self, number: u64) -> io::Result<&mut Content> {
        match &mut self.inodes.get_mut(&number).ok_or_else(not_found)?.node {
            Node::File(content) => Ok(content),
            Node::Directory { .. } => Err(ErrorKind::IsADirectory.into()),
            Node::Symlink(_) => Err(ErrorKind::InvalidInput.into()),
        }
    }

    /// What `path` stands for; a relative one begins at the root.
    pub(crate) fn resolve(&self, path: &Path, follow_last: bool) -> io::Result<u64> {
        let mut links_left = SYMLINKS_MAX;
        self.resolve_from(ROOT, path, follow_last, &mut links_left)
    }

    fn resolve_from(&self, start: u64, path: &Path, follow: bool, links_left: &mut usize) -> io::Result<u64> {
        let mut trail = vec![start];
        let mut components = path.components().peekable();
        while let Some(component) = components.next() {
            let here = *trail.last().unwrap_or(&ROOT);
            match component {
                Component::RootDir | Component::Prefix(_) => trail = vec![ROOT],
                Component::CurDir => {}
                Component::ParentDir => {
                    self.names(here)?;
                    if trail.len() > 1 {
                        trail.pop();
                    }
                }
                Component::Normal(name) => {
                    let found = *self.names(here)?.get(name).ok_or_else(not_found)?;
                    let is_last = components.peek().is_none();
                    match &self.inode(found)?.node {
                        Node::Symlink(target) if follow || !is_last => {
                            *links_left = links_left
                                .checked_sub(1)
                                .ok_or_else(|| io::Error::from(rustix::io::Errno::LOOP))?;
                            trail.push(self.resolve_from(here, target, true, links_left)?);
                        }
                        _ => trail.push(found),
                    }
                }
            }
        }
        Ok(*trail.last().unwrap_or(&ROOT))
    }

    /// The directory that `path` ends in, and its last name.
    fn parent<'p>(&self, path: &'p Path) -> io::Result<(u64, &'p OsStr)> {
        let name = path.file_name().ok_or_else(|| io::Error::from(ErrorKind::InvalidInput))?;
        let directory = match path.parent() {
            Some(parent) => self.resolve(parent, true)?,
            None => ROOT,
        };
        self.names(directory)?;
        Ok((directory, name))
    }

    /// Makes a change of names, as programs see it.
    fn change(&mut self, change: NameChange, now: SystemTime) {
        for (directory, name, stands_for) in &change {
            self.point(*directory, name, *stands_for, now);
        }
        self.journal.push(change);
    }

    fn point(&mut self, directory: u64, name: &OsStr, stands_for: Option<u64>, now: SystemTime) {
        let Some(inode) = self.inodes.get_mut(&directory) else { return };
        inode.modified = now;
        let Node::Directory { live, .. } = &mut inode.node else { return };
        let before = match stands_for {
            Some(number) => live.insert(name.to_owned(), number),
            None => live.remove(name),
        };
        if let Some(inode) = stands_for.and_then(|number| self.inodes.get_mut(&number)) {
            inode.link_count += 1;
        }
        if let Some(inode) = before.and_then(|number| self.inodes.get_mut(&number)) {
            inode.link_count -= 1;
        }
    }

    fn add(&mut self, inode: Inode) -> u64 {
        self.last_inode += 1;
        self.inodes.insert(self.last_inode, inode);
        self.last_inode
    }

    /// Opens a file, or makes it: its number. Closed with [`Disk::close`].
    pub(crate) fn open(&mut self, path: &Path, how: Opening, now: SystemTime) -> io::Result<u64> {
        let found = self.resolve(path, !how.no_follow && !how.create_new);
        let number = match found {
            Ok(_) if how.create_new => return Err(ErrorKind::AlreadyExists.into()),
            Ok(number) => {
                match self.inode(number)?.kind() {
                    FileKind::Directory if how.writes => return Err(ErrorKind::IsADirectory.into()),
                    FileKind::Symlink => return Err(rustix::io::Errno::LOOP.into()),
                    _ => {}
                }
                if how.truncate {
                    self.set_len(number, 0, now)?;
                }
                number
            }
            Err(error) if error.kind() == ErrorKind::NotFound && (how.create || how.create_new) => {
                let (directory, name) = self.parent(path)?;
                let file = Inode::new(Node::File(Content::default()), how.mode & !UMASK, now);
                let number = self.add(file);
                self.change(vec![(directory, name.to_owned(), Some(number))], now);
                number
            }
            Err(error) => return Err(error),
        };
        if let Some(inode) = self.inodes.get_mut(&number) {
            inode.open_count += 1;
        }
        Ok(number)
    }

    /// Ends what [`Disk::open`] began; a file without a name goes.
    pub(crate) fn close(&mut self, number: u64) {
        let Some(inode) = self.inodes.get_mut(&number) else { return };
        inode.open_count = inode.open_count.saturating_sub(1);
        if inode.open_count == 0 && inode.link_count == 0 {
            self.collect();
        }
    }

    /// Bytes of a file.
    pub(crate) fn read(&mut self, number: u64, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        Ok(self.content(number)?.read(offset, len).to_vec())
    }

    /// Writes what fits onto the disk; how much.
    pub(crate) fn write(
        &mut self,
        number: u64,
        offset: Option<u64>,
        bytes: &[u8],
        now: SystemTime,
    ) -> io::Result<usize> {
        let free = self.capacity_bytes.map_or(u64::MAX, |capacity| capacity.saturating_sub(self.used_bytes));
        let content = self.content(number)?;
        let len = content.len();
        let offset = match offset {
            Some(offset) => usize::try_from(offset).map_err(|_| io::Error::from(ErrorKind::FileTooLarge))?,
            None => len,
        };
        let end = (offset + bytes.len()).min(len.saturating_add(usize::try_from(free).unwrap_or(usize::MAX)));
        if end <= offset && !bytes.is_empty() {
            return Err(ErrorKind::StorageFull.into());
        }
        let count = end - offset;
        content.write(offset, &bytes[..count]);
        let grown = content.len() - len;
        self.used_bytes += grown as u64;
        self.touch(number, now);
        Ok(count)
    }

    pub(crate) fn set_len(&mut self, number: u64, len: u64, now: SystemTime) -> io::Result<()> {
        let len = usize::try_from(len).map_err(|_| io::Error::from(ErrorKind::FileTooLarge))?;
        let content = self.content(number)?;
        let before = content.len();
        content.set_len(len);
        // A hole takes no room in life; here it does, which errs on the side of full disks.
        self.used_bytes = (self.used_bytes + len as u64).saturating_sub(before as u64);
        self.touch(number, now);
        Ok(())
    }

    fn touch(&mut self, number: u64, now: SystemTime) {
        if let Some(inode) = self.inodes.get_mut(&number) {
            inode.modified = now;
        }
    }

    /// Brings a file's content to the disk, or with a `failure` finds that this can't be done.
    pub(crate) fn sync(&mut self, number: u64, failure: bool) -> io::Result<()> {
        match self.content(number) {
            Ok(content) if failure => {
                content.sync_failed();
                Err(rustix::io::Errno::IO.into())
            }
            Ok(content) => {
                content.sync();
                Ok(())
            }
            // A directory that was opened as a file.
            Err(error) if error.kind() == ErrorKind::IsADirectory => {
                self.sync_names(number);
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Makes the names in a directory durable.
    pub(crate) fn sync_dir(&mut self, path: &Path) -> io::Result<()> {
        let number = self.resolve(path, true)?;
        self.names(number)?;
        self.sync_names(number);
        Ok(())
    }

    pub(crate) fn known(&self, number: u64) -> io::Result<Known> {
        let inode = self.inode(number)?;
        let len = match &inode.node {
            Node::File(content) => content.len(),
            Node::Directory { live, .. } => live.len(),
            Node::Symlink(target) => target.as_os_str().len(),
        };
        Ok(Known {
            kind: inode.kind(),
            len_bytes: len as u64,
            mode: inode.mode,
            modified: inode.modified,
            link_count: inode.link_count.max(u64::from(number == ROOT)),
        })
    }

    /// Adds a name for something new.
    fn create(&mut self, path: &Path, node: Node, mode: u32, now: SystemTime) -> io::Result<()> {
        let (directory, name) = self.parent(path)?;
        if self.names(directory)?.contains_key(name) {
            return Err(ErrorKind::AlreadyExists.into());
        }
        let number = self.add(Inode::new(node, mode, now));
        self.change(vec![(directory, name.to_owned(), Some(number))], now);
        Ok(())
    }

    pub(crate) fn create_dir(&mut self, path: &Path, now: SystemTime) -> io::Result<()> {
        if path.file_name().is_none() && self.resolve(path, true).is_ok() {
            return Err(ErrorKind::AlreadyExists.into());
        }
        self.create(path, directory(), 0o777 & !UMASK, now)
    }

    pub(crate) fn symlink(&mut self, target: &Path, new: &Path, now: SystemTime) -> io::Result<()> {
        self.create(new, Node::Symlink(target.to_owned()), 0o777, now)
    }

    pub(crate) fn read_link(&self, path: &Path) -> io::Result<PathBuf> {
        match &self.inode(self.resolve(path, false)?)?.node {
            Node::Symlink(target) => Ok(target.clone()),
            _ => Err(ErrorKind::InvalidInput.into()),
        }
    }

    pub(crate) fn hard_link(&mut self, existing: &Path, new: &Path, now: SystemTime) -> io::Result<()> {
        let number = self.resolve(existing, false)?;
        if self.inode(number)?.kind() == FileKind::Directory {
            return Err(ErrorKind::PermissionDenied.into());
        }
        let (directory, name) = self.parent(new)?;
        if self.names(directory)?.contains_key(name) {
            return Err(ErrorKind::AlreadyExists.into());
        }
        self.change(vec![(directory, name.to_owned(), Some(number))], now);
        Ok(())
    }

    pub(crate) fn remove_file(&mut self, path: &Path, now: SystemTime) -> io::Result<()> {
        let number = self.resolve(path, false)?;
        if self.inode(number)?.kind() == FileKind::Directory {
            return Err(ErrorKind::IsADirectory.into());
        }
        self.remove(path, now)
    }

    pub(crate) fn remove_dir(&mut self, path: &Path, now: SystemTime) -> io::Result<()> {
        let number = self.resolve(path, false)?;
        if !self.names(number)?.is_empty() {
            return Err(ErrorKind::DirectoryNotEmpty.into());
        }
        self.remove(path, now)
    }

    fn remove(&mut self, path: &Path, now: SystemTime) -> io::Result<()> {
        let (directory, name) = self.parent(path)?;
        self.change(vec![(directory, name.to_owned(), None)], now);
        self.collect();
        Ok(())
    }

    pub(crate) fn rename(&mut self, from: &Path, to: &Path, now: SystemTime) -> io::Result<()> {
        let number = self.resolve(from, false)?;
        let ((old_dir, old_name), (new_dir, new_name)) = (self.parent(from)?, self.parent(to)?);
        let is_dir = self.inode(number)?.kind() == FileKind::Directory;
        if is_dir && self.is_below(new_dir, number) {
            return Err(ErrorKind::InvalidInput.into());
        }
        if let Some(replaced) = self.names(new_dir)?.get(new_name).copied() {
            let replaces_dir = self.inode(replaced)?.kind() == FileKind::Directory;
            match (is_dir, replaces_dir) {
                _ if replaced == number => return Ok(()),
                (true, false) => return Err(ErrorKind::NotADirectory.into()),
                (false, true) => return Err(ErrorKind::IsADirectory.into()),
                (true, true) if !self.names(replaced)?.is_empty() => {
                    return Err(ErrorKind::DirectoryNotEmpty.into());
                }
                _ => {}
            }
        }
        let change = vec![(new_dir, new_name.to_owned(), Some(number)), (old_dir, old_name.to_owned(), None)];
        self.change(change, now);
        self.collect();
        Ok(())
    }

    /// Whether `number` is `above` or lies below it.
    fn is_below(&self, number: u64, above: u64) -> bool {
        number == above
            || self.names(above).is_ok_and(|names| {
                names.values().any(|child| self.names(*child).is_ok() && self.is_below(number, *child))
            })
    }

    /// What is in a directory, by name.
    pub(crate) fn list(&self, number: u64) -> io::Result<Vec<(OsString, u64, FileKind)>> {
        let names = self.names(number)?;
        names.iter().map(|(name, number)| Ok((name.clone(), *number, self.inode(*number)?.kind()))).collect()
    }
}

#[cfg(test)]
mod tests;
