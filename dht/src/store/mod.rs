//! The local store: what one node keeps on its own disk.
//!
//! One append-only log holds blocks and consensus records alike ([`DiskStore`]); [`MemoryStore`] keeps the same
//! promises but durability, for tests. Both stand behind [`Store`], which knows keys and bytes and nothing of
//! networks, replicas or signatures.
//!
//! **Order.** Writes become durable in the order of their calls: after a crash the store holds what some prefix of
//! the writes made. So several writes may be handed over with [`Store::enqueue`] and only the last one's ticket be
//! waited for; they then share one sync of the disk.
//!
//! **Reading one's own writes.** A value is visible to `get`, `contains` and `keys` from the moment it is handed
//! over. If it then cannot be made durable, the key falls back to what it was before.
//!
//! **Failure.** When a write fails, so does every write that was handed over before that news arrived: otherwise
//! waiting for only the last of several would hide a hole before it.

mod active;
pub mod checkpoint;
mod compaction;
mod contents;
pub mod device;
mod directory;
mod disk;
mod error;
pub mod format;
mod gather;
mod incarnation;
mod index;
mod key;
mod log;
mod memory;
mod pipeline;
mod pipes;
mod punch;
mod reached;
mod read;
mod recovery;
mod reserve;
pub mod scan;
mod scrub;
mod tables;
mod ticket;
mod window;
mod writer;

pub use disk::{Config, DiskStore};
pub use error::{Damage, StoreError};
pub use gather::Gather;
pub use incarnation::Incarnation;
pub use key::{Key, Kind};
pub use memory::MemoryStore;
pub use recovery::Recovery;
pub use scrub::ScrubReport;
pub use ticket::Ticket;

use bytes::Bytes;
use std::ops::Range;

/// The longest value that a store takes: a block of the DHT (1 MiB + 64 KiB) with room for its headers.
pub const VALUE_LENGTH_MAX_BYTES: usize = 2 << 20;

/// Named values that survive this process.
///
/// Calls suspend the coroutine where they say so; none blocks the thread. The trait is object safe.
pub trait Store {
    /// Hands over a write and returns before it is durable. The newest value of a key replaces older ones.
    ///
    /// # Errors
    ///
    /// [`StoreError::TooLarge`] or [`StoreError::Closed`] at once; anything else comes through the ticket.
    ///
    /// # Suspends
    ///
    /// Only while too many bytes are waiting to be written.
    fn enqueue_with(&self, key: &Key, value: Gather, options: PutOptions) -> Result<Ticket, StoreError>;

    /// As [`Store::enqueue_with`], of nobody in particular.
    ///
    /// # Errors
    ///
    /// As [`Store::enqueue_with`].
    ///
    /// # Suspends
    ///
    /// As [`Store::enqueue_with`].
    fn enqueue(&self, key: &Key, value: Gather) -> Result<Ticket, StoreError> {
        self.enqueue_with(key, value, PutOptions::default())
    }

    /// Hands over the removal of a key, like [`Store::enqueue`]. Removing what is absent is no error.
    ///
    /// # Errors
    ///
    /// As [`Store::enqueue`].
    ///
    /// # Suspends
    ///
    /// As [`Store::enqueue`].
    fn enqueue_remove(&self, key: &Key) -> Result<Ticket, StoreError>;

    /// Stores a value and returns when it is durable.
    ///
    /// # Errors
    ///
    /// [`StoreError::Full`] if there is no space: nothing is kept then, and the old value stays.
    ///
    /// # Suspends
    ///
    /// Until the group that holds the write is synced: a few milliseconds.
    fn put(&self, key: &Key, value: Gather) -> Result<(), StoreError> {
        self.enqueue(key, value)?.wait()
    }

    /// Removes a key and returns when that is durable.
    ///
    /// # Errors
    ///
    /// As [`Store::put`].
    ///
    /// # Suspends
    ///
    /// As [`Store::put`].
    fn remove(&self, key: &Key) -> Result<(), StoreError> {
        self.enqueue_remove(key)?.wait()
    }

    /// The value of `key`, or the part of it in `range` (cut off at the value's end), its checksum verified.
    ///
    /// # Errors
    ///
    /// [`StoreError::Damaged`] if what is stored cannot be trusted.
    ///
    /// # Suspends
    ///
    /// While the disk is read; not for what is in memory or in the system's page cache.
    fn get(&self, key: &Key, range: Option<Range<u32>>) -> Result<Option<Bytes>, StoreError>;

    /// The length of the value of `key`; `None` if it is absent or known to be damaged. Never suspends.
    fn length(&self, key: &Key) -> Option<u32>;

    /// Whose value it is: what [`PutOptions::owner`] said. Never suspends.
    fn owner(&self, key: &Key) -> Option<u32>;

    /// Which store this is: to be remembered by whoever must know whether it is still the same. Never suspends.
    fn incarnation(&self) -> Incarnation;

    /// Whether a newer record of `key` may have been destroyed than the one there is, if there is one: damage took
    /// records and their names. A write to the key ends the doubt. Whoever promised something by this key must not
    /// go by what it reads before it has asked the others. Never suspends.
    fn is_suspect(&self, key: &Key) -> bool;

    /// Why no write is taken at present, save that the store is full: the disk fails. `None` while all is well, and
    /// again when the store has found a way to go on. Never suspends.
    fn failure(&self) -> Option<StoreError>;

    /// Whether `get` can be expected to find `key`. Never suspends.
    fn contains(&self, key: &Key) -> bool {
        self.length(key).is_some()
    }

    /// The ticket of the value that `get` can be expected to find: done if it is durable. It speaks for this value
    /// alone; one that is on its way may be refused though later writes are taken. Never suspends.
    fn stored(&self, key: &Key) -> Option<Ticket>;

    /// Up to `count_max` keys from `from` (inclusive) on, in key order, damaged ones left out. Never suspends.
    ///
    /// To go on, call again with the successor of the last key (see [`Key::next`]).
    fn keys(&self, from: &Key, count_max: usize) -> Vec<Key>;

    /// Keys whose stored record is known to be damaged, in key order: fetch them elsewhere and put them again.
    fn damaged(&self) -> Vec<Damage>;

    /// How much is stored durably. Never suspends.
    fn usage(&self) -> Usage;

    /// Waits until everything handed over so far is durable.
    ///
    /// # Errors
    ///
    /// If the last write handed over failed and nobody has been told of it.
    ///
    /// # Suspends
    ///
    /// As [`Store::put`].
    fn sync(&self) -> Result<(), StoreError>;

    /// Waits until everything handed over is durable and lets go of the files and of their lock. Every later write
    /// and read fails with [`StoreError::Closed`]. Closing twice is no error.
    ///
    /// # Errors
    ///
    /// As [`Store::sync`].
    ///
    /// # Suspends
    ///
    /// As [`Store::put`].
    fn close(&self) -> Result<(), StoreError>;
}

/// What is said with a value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PutOptions {
    /// Whose value it is, as the node numbers its owners (up to [`format::OWNER_MAX`]); 0 for nobody's.
    pub owner: u32,
    /// Whether it may use the space that is kept back: only for what leads to less being stored in the end, such as the
    /// blocks and the register of a commit that removes.
    pub may_use_reserve: bool,
}

/// How much a store holds and may hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Keys with a value.
    pub count: u64,
    /// Bytes of those values.
    pub value_bytes: u64,
    /// Bytes that the store takes on its disk: values, headers, and what awaits compaction.
    pub disk_bytes: u64,
    /// Bytes that it may take: its configured capacity, or what its disk has left for it.
    pub total_bytes: u64,
    /// Keys known to be damaged.
    pub damaged_count: u64,
    /// The file system that it is on: several stores may share one, and its space.
    pub device: device::DeviceId,
    /// Bytes that this file system has left for anybody.
    pub device_free_bytes: u64,
}
