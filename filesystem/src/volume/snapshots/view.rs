//! A snapshot as a volume of its own, for reading.
//!
//! Its tree never changes, and is whole: it has the truncations that were under way, by which its files are to be read. So a
//! volume over that tree that only reads, and in which nothing runs in the background, shows it as it was.

use std::rc::Rc;

use dht::BlockStore;

use super::{Snapshot, SnapshotError};
use crate::access::{Charter, Root, VolumeKeys};
use crate::errno::Errno;
use crate::format::{Key, Pointer};
use crate::operations::{Attributes, Inode};
use crate::volume::state::Change;
use crate::volume::{Options, Volume};

/// What a view keeps in memory, at most: several may be open, beside the drive's own cache.
const CACHE_BYTES: usize = 16 << 20;
/// Nor more than this part of what the volume itself keeps: so many are open at most (see `past`).
const VIEW_SHARE: usize = 8;
/// But as much as the nodes take on the way to a key, and some beside them, where the volume itself has that: with less, each
/// that is fetched makes another go that is needed too, for ever.
const CACHE_BYTES_MIN: usize = 128 << 10;

impl Volume {
    /// Returns the volume as it was at a snapshot. It shares nothing with this one but the store.
    ///
    /// # Errors
    ///
    /// If its tree can't be read.
    ///
    /// # Suspends
    ///
    /// While nodes are fetched.
    pub fn view(&self, snapshot: &Snapshot) -> Result<Rc<Volume>, Errno> {
        let (tree, version): (Pointer, u64) = (snapshot.record.tree, snapshot.record.version);
        let charter = self.state.borrow().charter.clone();
        let (store, keys) = (self.store.clone(), self.keys.clone());
        let own = self.state.borrow().cache.size_bytes_max();
        let cache_bytes = (own / VIEW_SHARE).max(CACHE_BYTES_MIN.min(own));
        let options = Options { cache_bytes, ..self.options.clone() };
        Volume::view_of(store, keys, &options, charter, (Some(tree), version))
    }

    /// Returns the volume as it was with a root that need not be its newest, for reading.
    ///
    /// # Errors
    ///
    /// If its tree can't be read.
    ///
    /// # Suspends
    ///
    /// While nodes are fetched.
    pub fn as_of(
        store: Rc<dyn BlockStore>,
        keys: VolumeKeys,
        options: &Options,
        root: &Root,
    ) -> Result<Rc<Volume>, Errno> {
        Volume::view_of(store, keys, options, root.charter.clone(), (root.tree, root.version))
    }

    fn view_of(
        store: Rc<dyn BlockStore>,
        keys: VolumeKeys,
        options: &Options,
        charter: Charter,
        (tree, version): (Option<Pointer>, u64),
    ) -> Result<Rc<Volume>, Errno> {
        let options = Options {
            cache_bytes: CACHE_BYTES.min(options.cache_bytes),
            watch_interval: None,
            journal_directory: None,
            write_back: false,
            read_only: true,
            ..options.clone()
        };
        // Only a journal can fail, and it has none.
        let view = Volume::new(store, keys, options, charter, tree).map_err(|_| Errno::EIO)?;
        view.version.set(version);
        let truncations = view.read_truncations(tree)?;
        view.state.borrow_mut().take_truncations(truncations);
        Ok(view)
    }

    /// Looks `name` up in what is here: no other mount is asked for.
    ///
    /// # Suspends
    ///
    /// While nodes are fetched.
    pub(crate) fn lookup_here(&self, parent: Inode, name: &[u8]) -> Result<Attributes, Errno> {
        self.step(|state| state.lookup(state.at(parent), name))
    }

    /// Returns all snapshots, the oldest first, with those that another mount has just taken as far as the nodes say.
    ///
    /// # Suspends
    ///
    /// For a question to the nodes where others are mounted, and while nodes are fetched.
    pub(crate) fn newest_snapshots(&self) -> Result<Vec<Snapshot>, Errno> {
        self.refresh();
        self.snapshots()
    }

    /// Returns the snapshot with that number, if there is one still.
    ///
    /// # Suspends
    ///
    /// While nodes are fetched.
    pub(crate) fn snapshot(&self, id: u64) -> Result<Option<Snapshot>, Errno> {
        match self.step(|state| state.get(&Key::Snapshot(id)))? {
            Some(Change::Snapshot(record)) => Ok(Some(Snapshot { id, record })),
            None => Ok(None),
            Some(_) => Err(Errno::EIO),
        }
    }

    /// Returns the snapshot of that name; another mount may have just taken it.
    ///
    /// # Errors
    ///
    /// [`SnapshotError::Missing`], [`SnapshotError::Unreachable`] if that is not known, or that the tree can't be read.
    ///
    /// # Suspends
    ///
    /// While nodes are fetched, and for a question to the nodes if there is none of that name.
    pub fn snapshot_named(&self, name: &str) -> Result<Snapshot, SnapshotError> {
        let find = || -> Result<Option<Snapshot>, Errno> {
            Ok(self.snapshots()?.into_iter().find(|snapshot| snapshot.record.name == name))
        };
        match find()? {
            Some(found) => Ok(found),
            None if self.refresh() => find()?.ok_or_else(|| SnapshotError::Missing { name: name.into() }),
            None if self.freshness.is_unreachable() => Err(SnapshotError::Unreachable),
            None => Err(SnapshotError::Missing { name: name.into() }),
        }
    }
}
