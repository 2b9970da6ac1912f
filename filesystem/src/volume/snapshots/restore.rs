//! Restoring: what a snapshot has at a path comes back, whole, in one commit.
//!
//! Nothing is written over. What is at the path goes aside in the same commit, as `name (before restore, when).ext`: so a
//! restoring is undone by two renamings, and programs that have files open there go on with them. That is why old and new are
//! not merged: whoever wants to know what differs asks for the changes between the snapshot and now.
//!
//! Whether the snapshot is there is looked at again once the commit is stored. Collectors keep what some root reaches; up to
//! that commit the snapshot reached the content, from then on what was restored does.

use bytes::Bytes;

use super::copy::Copy;
use super::names::Names;
use super::{Snapshot, SnapshotError};
use crate::errno::Errno;
use crate::format::{EntryRecord, InodeRecord, Key, Shown};
use crate::operations::{FileKind, Inode, Invalidation, Time};
use crate::volume::Volume;
use crate::volume::merge::records::{civil, conflict_name};
use crate::volume::state::{Change, State, Step};

/// What a change without content takes on the nodes, as elsewhere.
const SMALL_CHANGE_BYTES: usize = 512;

/// What was restored.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Restored {
    /// Where it is: where it was to be, unless another mount has just put something else there.
    pub path: Vec<u8>,
    /// Files and the like, each once however many names it has; no directories.
    pub file_count: u64,
    /// Their sizes' sum.
    pub size_bytes: u64,
    /// Where that is now what was there before.
    pub aside: Option<Vec<u8>>,
}

/// Why nothing was restored, or why it is not known to be whole.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RestoreError {
    /// The snapshot does not have it.
    #[error("the snapshot {snapshot:?} has no {path:?}")]
    Missing {
        /// The snapshot's name.
        snapshot: String,
        /// What was asked for.
        path: Shown,
    },
    /// What is there has to stay.
    #[error("there is something at {path:?} already")]
    Occupied {
        /// Where it was to be put.
        path: Shown,
    },
    /// There is no place for it.
    #[error("there is no directory {path:?} now")]
    NoDirectory {
        /// What is missing.
        path: Shown,
    },
    /// It does not fit into one commit.
    #[error("{path:?} has more than a million names and pieces, too many for one step")]
    TooMuch {
        /// What was asked for.
        path: Shown,
    },
    /// There is something in it that a copy can't have: a space, which is a volume of its own, or what a later version put there.
    #[error(
        "there is a space in it, whose content is not the drive's to copy, or something that a newer version put there: nothing was restored"
    )]
    NotCopied,
    /// Somebody deleted the snapshot meanwhile.
    #[error("the snapshot {snapshot:?} was deleted meanwhile: what is at {path:?} now may not be whole")]
    Deleted {
        /// The snapshot's name.
        snapshot: String,
        /// Where it is.
        path: Shown,
    },
    /// The volume can't be read or changed.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
}

impl From<Errno> for RestoreError {
    fn from(errno: Errno) -> RestoreError {
        match errno {
            Errno::EOPNOTSUPP => RestoreError::NotCopied,
            errno => SnapshotError::from(errno).into(),
        }
    }
}

/// What was where a copy was put.
struct Aside {
    inode: u64,
    name: Bytes,
}

impl Volume {
    /// Puts what `snapshot` has at `path` to `place`, where nothing may be, with all below it. Without a place it goes to
    /// where it was, and what is there goes aside.
    ///
    /// # Errors
    ///
    /// [`RestoreError`]. After [`SnapshotError::Volume`] it may still come.
    ///
    /// # Suspends
    ///
    /// While the snapshot is read, and until a quorum has it.
    pub fn restore(
        &self,
        snapshot: &Snapshot,
        path: &[u8],
        place: Option<&[u8]>,
    ) -> Result<Restored, RestoreError> {
        self.refresh();
        let name = snapshot.record.name.clone();
        let held = self.hold();
        if self.snapshot(snapshot.id)?.is_none() {
            return Err(SnapshotError::Missing { name }.into());
        }
        let view = self.view(snapshot)?;
        let Some((inode, _)) = view.named(path)? else {
            return Err(RestoreError::Missing { snapshot: name, path: Shown::of(path) });
        };
        let to = place.unwrap_or(path);
        let (above, last) = split_last(to);
        let no_directory = || RestoreError::NoDirectory { path: Shown::of(above) };
        let Some((directory, FileKind::Directory)) = self.named(above)? else { return Err(no_directory()) };
        let Some(copy) = self.copy_of(&view, inode, directory)? else {
            return Err(RestoreError::TooMuch { path: Shown::of(path) });
        };
        self.make_room(SMALL_CHANGE_BYTES * copy.changes.len())?;
        self.wait_for_memory()?;
        let put = self.change_step(|state| state.put_copy(&copy, directory, last, place.is_none()));
        let (number, aside) = match put {
            // Somebody else was faster.
            Err(Errno::ENOENT | Errno::ENOTDIR) => return Err(no_directory()),
            Err(Errno::EEXIST) => return Err(RestoreError::Occupied { path: Shown::of(to) }),
            put => put?,
        };
        drop(held);
        let shown = Inode(directory);
        let entries = [Some(last), aside.as_ref().map(|aside| aside.name.as_ref())];
        let entries = entries.into_iter().flatten().map(Bytes::copy_from_slice);
        let entries = entries.map(|name| Invalidation::Entry(self.number(shown), name));
        self.news.push((None, None), entries.chain([Invalidation::Inode(self.number(shown))]));
        self.sync_to(number)?;
        self.wait_until_settled();
        // A merge with what another mount has just done may have given them other names.
        let found = self.path_of(copy.inode, (directory, last))?;
        let found = found.unwrap_or_else(|| to.into());
        if self.snapshot(snapshot.id)?.is_none() {
            return Err(RestoreError::Deleted { snapshot: name, path: Shown::of(&found) });
        }
        let aside = match aside {
            Some(Aside { inode, name }) => self.path_of(inode, (directory, &name))?,
            None => None,
        };
        let Copy { file_count, size_bytes, .. } = copy;
        Ok(Restored { path: found, file_count, size_bytes, aside })
    }

    /// Finds what `path` names, without following symbolic links.
    fn named(&self, path: &[u8]) -> Result<Option<(u64, FileKind)>, Errno> {
        self.step(|state| {
            let (mut inode, mut kind) = (Inode::ROOT.0, FileKind::Directory);
            for part in path.split(|byte| *byte == b'/').filter(|part| !part.is_empty()) {
                let key = state.entry_key(inode, part)?;
                let Some(entry) = state.entry(&key)? else { return Ok(None) };
                (inode, kind) = (entry.inode, entry.kind);
            }
            Ok(Some((inode, kind)))
        })
    }

    /// Returns where an inode is in the tree: under this name, if it has that.
    fn path_of(&self, inode: u64, (directory, name): (u64, &[u8])) -> Result<Option<Vec<u8>>, Errno> {
        let mut names = Names::new(self, self.state.borrow().tree);
        let is_there = self.step(|state| {
            let key = state.entry_key(directory, name)?;
            Ok(state.entry(&key)?.is_some_and(|entry| entry.inode == inode))
        })?;
        let name = if is_there {
            Some((directory, Bytes::copy_from_slice(name)))
        } else if let Some(record) = names.record(inode)? {
            names.of([(inode, &record)])?.remove(&inode).and_then(|found| found.into_iter().next())
        } else {
            None
        };
        let Some(name) = name else { return Ok(None) };
        names.learn([name.0])?;
        Ok(Some(names.path(&name)?.to_vec()))
    }
}

/// The directories of a path, and what is in them.
fn split_last(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (&[], path),
    }
}

impl State {
    /// Gives a copy its name, and returns the number of the change. What is there goes aside, or is an `EEXIST`.
    fn put_copy(
        &mut self,
        copy: &Copy,
        parent: u64,
        name: &[u8],
        may_replace: bool,
    ) -> Step<(u64, Option<Aside>)> {
        self.writable()?;
        let mut directory = self.directory(parent)?;
        let key = self.entry_key(parent, name)?;
        let now = Time::now();
        let before = match self.entry(&key)? {
            None => None,
            Some(_) if !may_replace => return Err(Errno::EEXIST.into()),
            Some(_) => {
                let entry = self.known_entry(&key)?;
                let record = self.record(entry.inode)?;
                let (key, name) = self.free_aside(parent, name, entry.kind, now)?;
                Some((entry, record, key, name))
            }
        };

        let aside = before.map(|(entry, record, key, name)| {
            let inode = entry.inode;
            self.set_record(inode, InodeRecord { ctime: now, ..record });
            self.set(key, Change::Entry(entry));
            Aside { inode, name }
        });
        for (key, change) in &copy.changes {
            if let Key::Inode(inode) = key {
                // It was drawn before, and a commit may have gone since.
                self.active.born.add(*inode);
            }
            self.set(key.clone(), change.clone());
        }
        self.set(key, Change::Entry(EntryRecord::new(copy.inode, copy.kind)));
        directory.nlink += u32::from(copy.kind == FileKind::Directory);
        directory.mtime = now;
        directory.ctime = now;
        self.set_record(parent, directory);
        Ok((self.durability.newest(), aside))
    }

    /// Returns a free name for what is called `name`.
    fn free_aside(&mut self, parent: u64, name: &[u8], kind: FileKind, now: Time) -> Step<(Key, Bytes)> {
        let suffix = format!(" (before restore, {})", civil(now));
        let mut number = 1;
        loop {
            let aside = conflict_name(name, kind, &suffix, number);
            let key = self.entry_key(parent, &aside)?;
            if self.entry(&key)?.is_none() {
                return Ok((key, aside.into()));
            }
            number += 1;
        }
    }
}
