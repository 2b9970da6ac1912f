//! The durable store: the suspending face of the segment log.
//!
//! Everything here runs on the reactor's thread and none of it touches the disk, save for reads that the page cache
//! answers at once. Writes go through a queue to the writer's thread; its reports come back through one coroutine,
//! which moves the index on and completes the tickets. What is still on its way is read from memory.

use super::{
    Damage, Gather, Incarnation, Key, PutOptions, Store, StoreError, Ticket, Usage,
    device::{Disk, KernelDisk},
    format::Shape,
    index::Entry,
    log::Log,
    pipeline::{InFlight, receive_reports},
    pipes,
    recovery::{self, Opened, Recovery},
    writer::{Epoch, Writer},
};
use bytes::Bytes;
use reactor::cell::RefCell;
use reactor::sync::Mutex;
use std::{cell::Cell, collections::HashMap, ops::Range, path::PathBuf, rc::Rc, sync::Arc};

/// The least segment that a small capacity, or a small disk, leads to.
const SEGMENT_SIZE_MIN_BYTES: u64 = 4 << 20;

/// Where a store lies and how it behaves.
#[derive(Clone, Debug)]
pub struct Config {
    /// Its directory, made if need be.
    pub path: PathBuf,
    /// How long a segment grows: 256 MiB keeps files few, and compaction's steps and a lost checkpoint's scan short. On a
    /// small disk, and in a small capacity, less.
    pub segment_size_bytes: u32,
    /// How much disk the store may take; `None` for as much as there is.
    pub capacity_bytes: Option<u64>,
    /// How much is kept back for removals and what they need; less on a small disk and in a small capacity.
    pub reserve_bytes: u64,
    /// A segment is compacted when this share of it is dead. At 50, the log is at most twice what it holds.
    pub compaction_dead_percent: u64,
    /// How fast compaction and scrubbing may read, so that they never crowd out the work they serve.
    pub background_bytes_per_second: u64,
}

impl Config {
    /// The usual behaviour, at `path`.
    pub fn new(path: impl Into<PathBuf>) -> Config {
        Config {
            path: path.into(),
            segment_size_bytes: 256 << 20,
            capacity_bytes: None,
            reserve_bytes: 64 << 20,
            compaction_dead_percent: 50,
            background_bytes_per_second: 64 << 20,
        }
    }

    /// How much of a capacity is kept back.
    pub(crate) fn reserve_of(&self, capacity: u64) -> u64 {
        self.reserve_bytes.min(capacity / 16)
    }
}

/// A [`Store`] on disk.
///
/// Close it before opening the same directory again: a dropped one still writes what was handed over, and holds the
/// lock until it is done.
///
/// # Examples
///
/// ```
/// use dht::store::{Config, DiskStore, Key, Kind, Store};
/// let directory = tempfile::tempdir().unwrap();
/// let path = directory.path().to_path_buf();
/// reactor::run(move || {
///     let store = DiskStore::open(Config::new(path)).unwrap();
///     let (block, register) = (Key::new(Kind::BLOCK, [1; 32]), Key::new(Kind::REGISTER, [2; 32]));
///     let _shares_the_sync = store.enqueue(&block, vec![7; 100].into()).unwrap();
///     store.put(&register, vec![1].into()).unwrap();   // both are durable now
///     assert_eq!(store.get(&block, Some(0..2)).unwrap().unwrap(), [7, 7][..]);
///     store.close().unwrap();
/// });
/// ```
pub struct DiskStore {
    log: Rc<Log>,
}

impl DiskStore {
    /// Opens the store in the configured directory, or makes one, and recovers what the last crash left.
    ///
    /// # Errors
    ///
    /// [`StoreError::Locked`] if it is open already, [`StoreError::Unknown`] if it is of another version.
    ///
    /// # Suspends
    ///
    /// Until the index is in memory: about a second for a million blocks.
    pub fn open(config: Config) -> Result<DiskStore, StoreError> {
        DiskStore::open_on(Arc::new(KernelDisk), config)
    }

    /// As [`DiskStore::open`], on another disk.
    ///
    /// # Errors
    ///
    /// As [`DiskStore::open`].
    ///
    /// # Suspends
    ///
    /// As [`DiskStore::open`].
    pub fn open_on(disk: Arc<dyn Disk>, mut config: Config) -> Result<DiskStore, StoreError> {
        let (path, of_disk, reserve) = (config.path.clone(), disk.clone(), config.reserve_bytes);
        let (opened, device, free_bytes) = reactor::offload(move || {
            let opened = recovery::open(of_disk.clone(), &path, reserve);
            (opened, of_disk.device(&path), of_disk.free_bytes(&path).unwrap_or(u64::MAX))
        });
        let Opened { directory, salt, index, active, reached, reserve, recovery, incarnation } = opened?;
        // The newest segment cannot be compacted, so it must be a small part of the whole, be that a capacity or a disk.
        let room = free_bytes
            .saturating_add(index.totals().disk_bytes)
            .min(config.capacity_bytes.unwrap_or(u64::MAX));
        let part = (room / 16).max(SEGMENT_SIZE_MIN_BYTES).min(u64::from(config.segment_size_bytes));
        config.segment_size_bytes = part as u32;
        for damage in &recovery.damages {
            tracing::warn!(store = %config.path.display(), "{damage}");
        }
        let files = HashMap::from([(active.number, active.file.clone())]);
        let writer = Writer {
            directory: directory.clone(),
            salt,
            segment_size_bytes: config.segment_size_bytes,
            active,
            reached,
            epoch: Epoch::default(),
            reserve,
            failed: None,
            refused: None,
            tried: None,
        };
        let (queue, received) = pipes::start(disk.waiting(), writer)
            .map_err(|error| StoreError::io("start the writer of", &config.path, error))?;
        let in_flight = Rc::new(InFlight::new());
        let log = Rc::new(Log {
            config,
            directory,
            salt,
            recovery,
            incarnation,
            device,
            sequence: Cell::new(index.sequence_max()),
            index: RefCell::new(index),
            compaction_wanted: Rc::default(),
            background: Mutex::new(()),
            pending: RefCell::default(),
            in_flight: in_flight.clone(),
            queue: RefCell::new(Some(queue)),
            last: RefCell::default(),
            files: RefCell::new(files),
            tables: RefCell::default(),
        });
        let weak = Rc::downgrade(&log);
        reactor::spawn(move || receive_reports(&received, &in_flight, &weak));
        super::compaction::start(&log);
        Ok(DiskStore { log })
    }

    /// What opening found.
    pub fn recovery(&self) -> &Recovery {
        &self.log.recovery
    }

    pub(crate) fn log(&self) -> &Rc<Log> {
        &self.log
    }
}

impl Store for DiskStore {
    fn enqueue_with(&self, key: &Key, value: Gather, options: PutOptions) -> Result<Ticket, StoreError> {
        self.log.send(key, Shape::Value, value, options)
    }

    fn enqueue_remove(&self, key: &Key) -> Result<Ticket, StoreError> {
        let is_pending = self.log.pending.borrow().contains_key(key);
        let is_absent = |entry: &Entry| entry.shape == Shape::Tombstone;
        if !is_pending && self.log.index.borrow().get(key).is_none_or(is_absent) && !self.log.is_closed() {
            // Nothing to write, but the ticket must speak for all earlier writes as any other does.
            let last = self.log.last.borrow().clone();
            return Ok(last.unwrap_or_else(|| Ticket::ready(Ok(()))));
        }
        self.log.send(key, Shape::Tombstone, Gather::default(), PutOptions::default())
    }

    fn get(&self, key: &Key, range: Option<Range<u32>>) -> Result<Option<Bytes>, StoreError> {
        if self.log.is_closed() {
            return Err(StoreError::Closed);
        }
        if let Some(pending) = self.log.pending.borrow().get(key) {
            return Ok(pending.value.as_ref().map(|value| match range {
                None => value.to_bytes(),
                Some(range) => value.slice(range.start as usize..range.end as usize),
            }));
        }
        self.log.get_durable(key, range)
    }

    fn length(&self, key: &Key) -> Option<u32> {
        if let Some(pending) = self.log.pending.borrow().get(key) {
            return pending.value.as_ref().map(|value| value.length_bytes() as u32);
        }
        let index = self.log.index.borrow();
        index.get(key).filter(|entry| entry.shape == Shape::Value).map(|entry| entry.length)
    }

    fn stored(&self, key: &Key) -> Option<Ticket> {
        if let Some(pending) = self.log.pending.borrow().get(key) {
            return pending.value.as_ref().map(|_| pending.ticket.clone());
        }
        self.contains(key).then(|| Ticket::ready(Ok(())))
    }

    fn keys(&self, from: &Key, count_max: usize) -> Vec<Key> {
        let (index, pending) = (self.log.index.borrow(), self.log.pending.borrow());
        let durable = index
            .range(from)
            .filter(|(key, entry)| entry.shape == Shape::Value && !pending.contains_key(key));
        let mut durable = durable.map(|(key, _)| *key).peekable();
        let others = pending.iter().filter(|(key, pending)| *key >= from && pending.value.is_some());
        let mut others: Vec<Key> = others.map(|(key, _)| *key).collect();
        others.sort_unstable();
        let mut others = others.into_iter().peekable();
        let merged = std::iter::from_fn(|| match (durable.peek(), others.peek()) {
            (Some(a), Some(b)) if a > b => others.next(),
            (None, Some(_)) => others.next(),
            _ => durable.next(),
        });
        merged.take(count_max).collect()
    }

    fn damaged(&self) -> Vec<Damage> {
        self.log.index.borrow().damages()
    }

    fn owner(&self, key: &Key) -> Option<u32> {
        if let Some(pending) = self.log.pending.borrow().get(key) {
            return pending.value.as_ref().map(|_| pending.owner);
        }
        let index = self.log.index.borrow();
        index.get(key).filter(|entry| entry.shape == Shape::Value).map(|entry| entry.owner)
    }

    fn incarnation(&self) -> Incarnation {
        self.log.incarnation
    }

    fn is_suspect(&self, key: &Key) -> bool {
        !self.log.pending.borrow().contains_key(key) && self.log.index.borrow().is_suspect(key)
    }

    fn failure(&self) -> Option<StoreError> {
        self.log.in_flight.failed.borrow().clone()
    }

    fn usage(&self) -> Usage {
        let totals = self.log.index.borrow().totals();
        Usage {
            count: totals.value_count,
            value_bytes: totals.value_bytes,
            disk_bytes: totals.disk_bytes,
            total_bytes: totals.disk_bytes.saturating_add(self.log.free_bytes()),
            damaged_count: totals.lost_count,
            device: self.log.device,
            device_free_bytes: self.log.device_free_bytes(),
        }
    }

    fn sync(&self) -> Result<(), StoreError> {
        let last = self.log.last.borrow().clone();
        last.map_or(Ok(()), |ticket| ticket.wait_untold())
    }

    fn close(&self) -> Result<(), StoreError> {
        let result = self.sync();
        self.log.queue.borrow_mut().take();
        self.log.compaction_wanted.notify_all();
        self.log.in_flight.finished.wait();
        // Compaction and scrubbing see the closed queue and end.
        drop(self.log.background.lock());
        self.log.files.borrow_mut().clear();
        self.log.directory.unlock();
        result
    }
}
