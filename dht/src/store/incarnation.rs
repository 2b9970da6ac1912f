//! Which store this is, and how often it was opened: what a node's identity is bound to.
//!
//! A node that votes must be the one that promised. If its disk was replaced, or put back from a copy, its key is the
//! same and its promises are gone. So a store has a random id, made with it, and counts its openings; whoever
//! remembers both elsewhere sees that another store, or an older state of the same, is in its place.
//!
//! The file `identity` has two places of 64 bytes, 4,096 apart so that no sector holds both. They are written in turns:
//! when the power goes in the middle of one, the other is whole. The file is as long from the start as it will ever
//! be, so that a full disk takes it.
//!
//! | bytes | | |
//! | --- | --- | --- |
//! | 0 | 8 | `HYPHAIDN` |
//! | 8 | 4 | version, 1 |
//! | 12 | 4 | zero |
//! | 16 | 16 | id |
//! | 32 | 8 | how often the store was opened |
//! | 40 | 8 | salt of the store: without its segments the file says nothing |
//! | 48 | 12 | zero |
//! | 60 | 4 | CRC-32C of bytes 0..60 |

use super::{
    StoreError,
    device::{DiskFile, Opening, write_all},
    directory::Directory,
    format::{u32_at, u64_at},
};
use std::{
    fmt,
    io::{self, IoSlice},
};

const MAGIC: [u8; 8] = *b"HYPHAIDN";
const VERSION: u32 = 1;
const SLOT_BYTES: usize = 64;
const SLOT_DISTANCE_BYTES: u64 = 4096;

/// Which store this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Incarnation {
    /// Random, made with the store.
    pub id: [u8; 16],
    /// How often it was opened, this time included.
    pub opened_count: u64,
}

impl Incarnation {
    /// A new store's.
    pub(crate) fn new() -> Incarnation {
        Incarnation { id: reactor::crypto::random_bytes(), opened_count: 1 }
    }

    /// Whether a store that was `earlier` can have become this one: it is the same, and has forgotten nothing.
    ///
    /// # Examples
    ///
    /// ```
    /// use dht::store::Incarnation;
    /// let earlier = Incarnation { id: [1; 16], opened_count: 5 };
    /// assert!(Incarnation { opened_count: 6, ..earlier }.follows(&earlier));
    /// assert!(!Incarnation { opened_count: 5, ..earlier }.follows(&earlier), "put back from a copy");
    /// assert!(!Incarnation { id: [2; 16], opened_count: 6 }.follows(&earlier), "another disk");
    /// ```
    pub fn follows(&self, earlier: &Incarnation) -> bool {
        self.id == earlier.id && self.opened_count > earlier.opened_count
    }
}

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.id.iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
        write!(f, " ({})", self.opened_count)
    }
}

/// Counts one more opening of the store with this salt, durably; a store without a sound file gets a new id.
pub(crate) fn open(directory: &Directory, salt: u64) -> Result<Incarnation, StoreError> {
    let path = directory.path().join("identity");
    let fail = |error| StoreError::io("write", &path, error);
    let file = directory.disk().open(&path, Opening::Create).map_err(fail)?;
    let known = [0, 1].map(|slot| read(&*file, slot, salt));
    let last = known.iter().flatten().max_by_key(|known| known.opened_count);
    let now = match last {
        Some(last) => Incarnation { opened_count: last.opened_count + 1, ..*last },
        None => Incarnation::new(),
    };
    let bytes = encode(&now, salt);
    let slot = now.opened_count % 2;
    let write = || -> io::Result<()> {
        if last.is_none() {
            // Both places, so that the file has all its space, and no earlier store's word in it.
            let whole = [&bytes[..], &[0; SLOT_DISTANCE_BYTES as usize - SLOT_BYTES], &bytes].concat();
            write_all(&*file, &mut [IoSlice::new(&whole)], 0).map_err(|(_, error)| error)?;
            return file.sync_all();
        }
        let offset = slot * SLOT_DISTANCE_BYTES;
        write_all(&*file, &mut [IoSlice::new(&bytes)], offset).map_err(|(_, error)| error)?;
        file.sync_data()
    };
    match write().map_err(fail) {
        Ok(()) => {}
        // A file system that writes every change to a new place. The store is as good as it was.
        Err(StoreError::Full) if last.is_some() => {
            tracing::warn!(store = %directory.path().display(), "the disk is too full to count this opening");
        }
        Err(error) => return Err(error),
    }
    if last.is_none() {
        directory.sync()?;
    }
    Ok(now)
}

fn encode(incarnation: &Incarnation, salt: u64) -> [u8; SLOT_BYTES] {
    let mut bytes = [0; SLOT_BYTES];
    bytes[..8].copy_from_slice(&MAGIC);
    bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
    bytes[16..32].copy_from_slice(&incarnation.id);
    bytes[32..40].copy_from_slice(&incarnation.opened_count.to_le_bytes());
    bytes[40..48].copy_from_slice(&salt.to_le_bytes());
    let crc = crc32c::crc32c(&bytes[..60]);
    bytes[60..].copy_from_slice(&crc.to_le_bytes());
    bytes
}

fn read(file: &dyn DiskFile, slot: u64, salt: u64) -> Option<Incarnation> {
    let mut bytes = [0; SLOT_BYTES];
    file.read_at(&mut bytes, slot * SLOT_DISTANCE_BYTES).ok()?;
    let is_ours = bytes[..8] == MAGIC
        && u32_at(&bytes, 60) == crc32c::crc32c(&bytes[..60])
        && (u32_at(&bytes, 8), u64_at(&bytes, 40)) == (VERSION, salt);
    let mut id = [0; 16];
    id.copy_from_slice(&bytes[16..32]);
    is_ours.then_some(Incarnation { id, opened_count: u64_at(&bytes, 32) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::device::KernelDisk;
    use std::{fs, path::Path, sync::Arc};

    fn opened(path: &Path, salt: u64) -> Incarnation {
        open(&Directory::open(Arc::new(KernelDisk), path).unwrap(), salt).unwrap()
    }

    #[test]
    fn each_opening_follows_the_one_before_it_and_another_store_does_not() {
        let directory = tempfile::tempdir().unwrap();
        let first = opened(directory.path(), 1);
        let second = opened(directory.path(), 1);
        assert!(second.follows(&first) && opened(directory.path(), 1).follows(&second));
        assert!(!opened(directory.path(), 2).follows(&second), "its segments are another store's");
        assert!(!opened(directory.path(), 1).follows(&second), "nor does that come back");
    }

    #[test]
    fn a_torn_write_leaves_the_opening_before_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("identity");
        let first = opened(directory.path(), 1);
        for _ in 0..4 {
            let last = opened(directory.path(), 1);
            let mut bytes = fs::read(&path).unwrap();
            bytes[(last.opened_count % 2) as usize * 4096 + 40] ^= 1;
            fs::write(&path, bytes).unwrap();
            let next = opened(directory.path(), 1);
            assert!(next.id == first.id && next.opened_count == last.opened_count);
        }
    }
}
