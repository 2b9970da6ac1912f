//! Links to other volumes, as names of this one: looked at, and put where nothing is. Never in the place of a directory, though it
//! be empty: a mount that has not heard of the link yet would go on putting into the directory, for all to read, what is meant for
//! what is behind the link.
//!
//! This volume treats such a name as one of a kind that it does not know: it lists it, and leaves it alone. What lies behind it,
//! whoever mounts the volume shows ([`crate::spaces`]).

use bytes::Bytes;

use super::Volume;
use super::state::{Change, State, Step};
use crate::errno::Errno;
use crate::format::EntryRecord;
use crate::operations::{FileKind, Inode, Time};

/// What a link takes on the nodes: some entries of leaves that are written anyway.
const LINK_CHANGE_BYTES: usize = 2048;

/// What is where a link is to be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Place {
    /// Nothing: a link may be put there. The directory belongs to these, uid and gid.
    Free(u32, u32),
    /// A link, and its bytes.
    Link(Bytes),
}

/// Why no link can be there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LinkError {
    /// There is no place for it.
    #[error("there is no directory {path:?}, or it lies in a space of its own")]
    NoDirectory {
        /// What is missing.
        path: String,
    },
    /// Something is there.
    #[error("{path:?} is there already")]
    Occupied {
        /// The place.
        path: String,
    },
    /// Another mount has just put something there.
    #[error("another mount has just put something at {path:?}")]
    Lost {
        /// The place.
        path: String,
    },
    /// The volume can't be read or changed.
    #[error(transparent)]
    Volume(#[from] Errno),
}

impl Volume {
    /// Returns the link that `name` in `parent` is, or `None` if it is something else, or nothing.
    ///
    /// # Errors
    ///
    /// Those of a read.
    ///
    /// # Suspends
    ///
    /// While nodes are fetched.
    pub fn link_at(&self, parent: Inode, name: &[u8]) -> Result<Option<Bytes>, Errno> {
        self.step(|state| {
            let key = state.entry_key(state.at(parent), name)?;
            Ok(state.entry(&key)?.and_then(|entry| entry.link()))
        })
    }

    /// The first link on the way to `path`, by the newest root, and how many bytes of the path lead to it; `None` if there is none, as
    /// far as the path goes.
    ///
    /// # Errors
    ///
    /// Those of a read.
    ///
    /// # Suspends
    ///
    /// While nodes are fetched.
    pub fn link_on_the_way(&self, path: &[u8]) -> Result<Option<(Bytes, usize)>, Errno> {
        self.refresh();
        if path.is_empty() {
            return Ok(None);
        }
        self.step(|state| {
            let (mut inode, mut end) = (Inode::ROOT.0, 0);
            for part in path.split(|byte| *byte == b'/') {
                end += part.len();
                let key = state.entry_key(inode, part)?;
                match state.entry(&key)? {
                    Some(entry) if entry.kind == FileKind::Directory => inode = entry.inode,
                    Some(entry) => return Ok(entry.link().map(|link| (link, end))),
                    None => return Ok(None),
                }
                end += 1;
            }
            Ok(None)
        })
    }

    /// Looks whether a link may be put at `path`, or whether one is there, by the newest root.
    ///
    /// # Errors
    ///
    /// [`LinkError`].
    ///
    /// # Suspends
    ///
    /// While nodes are fetched.
    pub fn look_at_place(&self, path: &str) -> Result<Place, LinkError> {
        self.refresh();
        let (directory, name) = self.split(path)?;
        let place = self.step(|state| state.place(directory, name.as_bytes()));
        explain(place, path)
    }

    /// Puts a link at `path`, where nothing may be, and returns once a quorum has it.
    ///
    /// # Errors
    ///
    /// [`LinkError`]. After [`LinkError::Volume`] it may still come.
    ///
    /// # Suspends
    ///
    /// Until then.
    pub fn make_link(&self, path: &str, link: &[u8]) -> Result<(), LinkError> {
        self.set_link(path, link, None)
    }

    /// Puts a link at `path` in the place of another one, which it has to be, and returns once a quorum has it.
    ///
    /// # Errors
    ///
    /// As [`Volume::make_link`].
    ///
    /// # Suspends
    ///
    /// Until then.
    pub fn replace_link(&self, path: &str, old: &[u8], link: &[u8]) -> Result<(), LinkError> {
        self.set_link(path, link, Some(old))
    }

    /// Takes the link at `path` away, which has to be this one, and returns once a quorum has it.
    ///
    /// # Errors
    ///
    /// As [`Volume::make_link`]; [`LinkError::Occupied`] if something else is there, or nothing.
    ///
    /// # Suspends
    ///
    /// Until then.
    pub fn remove_link(&self, path: &str, link: &[u8]) -> Result<(), LinkError> {
        self.refresh();
        let (directory, name) = self.split(path)?;
        self.make_room(LINK_CHANGE_BYTES)?;
        let number = explain(self.change(|state| state.take_link(directory, name.as_bytes(), link)), path)?;
        self.sync_to(number)?;
        self.wait_until_settled();
        match self.link_at(Inode(directory), name.as_bytes())? {
            Some(found) if found == link => Err(LinkError::Lost { path: path.into() }),
            _ => Ok(()),
        }
    }

    fn set_link(&self, path: &str, link: &[u8], old: Option<&[u8]>) -> Result<(), LinkError> {
        self.refresh();
        let (directory, name) = self.split(path)?;
        self.make_room(LINK_CHANGE_BYTES)?;
        let number =
            explain(self.change(|state| state.put_link(directory, name.as_bytes(), link, old)), path)?;
        self.sync_to(number)?;
        self.wait_until_settled();
        // A merge may have given it the name of a conflict.
        match self.link_at(Inode(directory), name.as_bytes())? {
            Some(found) if found == link => Ok(()),
            _ => Err(LinkError::Lost { path: path.into() }),
        }
    }

    /// Finds the directory that `path` is in, without following symbolic links.
    fn split<'a>(&self, path: &'a str) -> Result<(u64, &'a str), LinkError> {
        let (above, name) = path.rsplit_once('/').unwrap_or(("", path));
        let found = self.step(|state| {
            let mut inode = Inode::ROOT.0;
            for part in above.split('/').filter(|part| !part.is_empty()) {
                let key = state.entry_key(inode, part.as_bytes())?;
                match state.entry(&key)? {
                    Some(entry) if entry.kind == FileKind::Directory => inode = entry.inode,
                    _ => return Ok(None),
                }
            }
            Ok(Some(inode))
        });
        let directory = found?.ok_or_else(|| LinkError::NoDirectory { path: above.into() })?;
        Ok((directory, name))
    }
}

/// Says of which path it is so.
fn explain<T>(result: Result<T, Errno>, path: &str) -> Result<T, LinkError> {
    result.map_err(|errno| match errno {
        Errno::EEXIST => LinkError::Occupied { path: path.into() },
        other => LinkError::Volume(other),
    })
}

impl State {
    fn place(&mut self, parent: u64, name: &[u8]) -> Step<Place> {
        let above = self.directory(parent)?;
        let key = self.entry_key(parent, name)?;
        let Some(entry) = self.entry(&key)? else { return Ok(Place::Free(above.uid, above.gid)) };
        entry.link().map(Place::Link).ok_or_else(|| Errno::EEXIST.into())
    }

    fn put_link(&mut self, parent: u64, name: &[u8], link: &[u8], old: Option<&[u8]>) -> Step<u64> {
        self.writable()?;
        let mut directory = self.directory(parent)?;
        let key = self.entry_key(parent, name)?;
        let found = self.entry(&key)?.map(|entry| entry.link());
        let is_as_said = match (&found, old) {
            (None, None) => true,
            (Some(Some(found)), Some(old)) => *found == old,
            _ => false,
        };
        if !is_as_said {
            return Err(Errno::EEXIST.into());
        }
        let inode = self.draw_inode();

        let now = Time::now();
        self.set(key, Change::Entry(EntryRecord::to_volume(inode, link)));
        directory.mtime = now;
        directory.ctime = now;
        self.set_record(parent, directory);
        Ok(self.durability.newest())
    }

    fn take_link(&mut self, parent: u64, name: &[u8], link: &[u8]) -> Step<u64> {
        self.changeable()?;
        let mut directory = self.directory(parent)?;
        let key = self.entry_key(parent, name)?;
        let found = self.entry(&key)?.and_then(|entry| entry.link());
        if found.is_none_or(|found| found != link) {
            return Err(Errno::EEXIST.into());
        }
        let now = Time::now();
        self.set(key, Change::Removed);
        directory.mtime = now;
        directory.ctime = now;
        self.set_record(parent, directory);
        Ok(self.durability.newest())
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use dht::MemoryBlockStore;
    use reactor::crypto::X25519Secret;

    use super::*;
    use crate::VolumeKeys;
    use crate::operations::{Credentials, Operations, RenameFlags};
    use crate::volume::Options;

    const ROOT: Inode = Inode::ROOT;

    #[test]
    fn a_link_is_put_where_nothing_is_and_is_left_alone_then() {
        reactor::run(|| {
            let store = Rc::new(MemoryBlockStore::new());
            let register = store.new_register([1; 32]);
            let keys = VolumeKeys { register, secret: X25519Secret::generate(), readers: Vec::new() };
            let volume = Volume::create(store.clone(), keys.clone(), Options::default(), (3, 4)).unwrap();
            let credentials = Credentials { uid: 5, gid: 6, umask: 0 };
            volume.make_directory(ROOT, b"there", 0o755, &credentials).unwrap();
            assert_eq!(volume.look_at_place("new"), Ok(Place::Free(3, 4)));
            assert_eq!(volume.look_at_place("there/new"), Ok(Place::Free(5, 6)));
            // Also if it is an empty directory: others may be putting something into it.
            let occupied = |path: &str| Err(LinkError::Occupied { path: path.into() });
            assert_eq!(volume.look_at_place("there").map(drop), occupied("there"));
            assert_eq!(volume.make_link("there", b"link"), occupied("there"));
            let missing = LinkError::NoDirectory { path: "no".into() };
            assert_eq!(volume.make_link("no/new", b"link"), Err(missing));
            for path in ["a", "there/new"] {
                volume.make_link(path, b"link").unwrap();
                assert_eq!(volume.look_at_place(path), Ok(Place::Link(Bytes::from_static(b"link"))));
                assert_eq!(volume.make_link(path, b"other"), occupied(path));
            }
            let link = Bytes::from_static(b"link");
            for (path, end) in [("there/new/x/y", Some(9)), ("a", Some(1)), ("there", None), ("no/x", None)] {
                assert_eq!(
                    volume.link_on_the_way(path.as_bytes()),
                    Ok(end.map(|end| (link.clone(), end))),
                    "{path}"
                );
            }
            assert_eq!(volume.replace_link("a", b"no", b"other"), occupied("a"), "it is another by now");
            for path in ["b", "there"] {
                assert_eq!(volume.replace_link(path, b"link", b"other"), occupied(path));
            }
            volume.replace_link("there/new", b"link", b"other").unwrap();
            let other = Ok(Place::Link(Bytes::from_static(b"other")));
            assert_eq!(volume.look_at_place("there/new"), other);
            assert_eq!(volume.look_at_place("a/within"), Err(LinkError::NoDirectory { path: "a".into() }));
            let refused = [
                volume.lookup(ROOT, b"a").map(drop),
                volume.unlink(ROOT, b"a"),
                volume.remove_directory(ROOT, b"a"),
                volume.rename(ROOT, b"a", ROOT, b"b", RenameFlags::default()),
            ];
            assert_eq!(refused, [Err(Errno::EOPNOTSUPP); 4]);
            // Who takes it away says which one it is.
            volume.make_link("gone", b"link").unwrap();
            for (path, link) in [("gone", b"other"), ("b", b"other"), ("there", b"other")] {
                assert_eq!(volume.remove_link(path, link), occupied(path));
            }
            volume.remove_link("gone", b"link").unwrap();
            assert_eq!(volume.look_at_place("gone"), Ok(Place::Free(3, 4)));
            volume.close().stored().unwrap();
            let again = Volume::open(store, keys, Options::default()).unwrap();
            assert_eq!(again.link_at(ROOT, b"a"), Ok(Some(Bytes::from_static(b"link"))));
            assert_eq!(again.link_at(ROOT, b"there"), Ok(None));
            assert_eq!(again.link_at(ROOT, b"gone"), Ok(None));
            again.close().stored().unwrap();
        });
    }
}
