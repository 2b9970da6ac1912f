//! What one open store consists of, on the reactor's thread: the index, what is not durable yet, the files; and how
//! they are read and written to.
//!
//! Shared by the store's face, by the coroutine that takes reports, by compaction and by scrubbing.

use super::{
    Damage, Gather, Key, PutOptions, StoreError, Ticket, VALUE_LENGTH_MAX_BYTES,
    device::{DeviceId, DiskFile, Opening},
    directory::Directory,
    disk::Config,
    format::{self, Shape},
    incarnation::Incarnation,
    index::{Entry, Index},
    pipeline::{InFlight, Sent},
    pipes::WriteSender,
    read::{Miss, Part, Plan},
    recovery::Recovery,
    reserve::Right,
    scan::Listed,
    tables::Tables,
    writer::Write,
};
use bytes::Bytes;
use reactor::cell::RefCell;
use reactor::sync::{Mutex, Signal};
use std::{cell::Cell, collections::HashMap, ops::Range, rc::Rc, sync::Arc};

/// Reads up to this size are tried on the reactor's thread: copying as much takes some 30 us, less than the two
/// wake-ups of handing it to another thread.
const INLINE_READ_BYTES_MAX: usize = 256 << 10;
/// Open files: few enough for the usual limit of 1,024, enough for 64 GiB without reopening any.
const FILES_MAX: usize = 256;

/// An open store.
pub(crate) struct Log {
    pub(crate) config: Config,
    pub(crate) directory: Arc<Directory>,
    pub(crate) salt: u64,
    pub(crate) index: RefCell<Index>,
    pub(crate) compaction_wanted: Rc<Signal>,
    /// Held by compaction and scrubbing while they work.
    pub(crate) background: Mutex<()>,
    pub(crate) recovery: Recovery,
    pub(crate) incarnation: Incarnation,
    pub(crate) device: DeviceId,
    pub(crate) pending: RefCell<HashMap<Key, Pending>>,
    pub(crate) in_flight: Rc<InFlight>,
    pub(crate) queue: RefCell<Option<WriteSender>>,
    pub(crate) sequence: Cell<u64>,
    pub(crate) last: RefCell<Option<Ticket>>,
    pub(crate) files: RefCell<HashMap<u32, Arc<dyn DiskFile>>>,
    pub(crate) tables: RefCell<Tables>,
}

/// The newest write of a key that is not durable yet.
pub(crate) struct Pending {
    pub(crate) sequence: u64,
    /// `None` for a removal.
    pub(crate) value: Option<Gather>,
    pub(crate) owner: u32,
    /// Speaks for this write and no other.
    pub(crate) ticket: Ticket,
}

impl Log {
    pub(crate) fn on_result(&self, sent: &Sent, place: Option<(u32, u32)>) {
        let key = sent.listed.key;
        if let Some((segment, offset)) = place {
            self.index.borrow_mut().on_record(segment, &Listed { offset, ..sent.listed });
        }
        let mut pending = self.pending.borrow_mut();
        if !sent.is_copy && pending.get(&key).is_some_and(|pending| pending.sequence == sent.listed.sequence)
        {
            pending.remove(&key);
        }
    }

    /// Hands a record over to the writer.
    ///
    /// # Suspends
    ///
    /// While the queue has no room.
    pub(crate) fn send(
        &self,
        key: &Key,
        shape: Shape,
        value: Gather,
        options: PutOptions,
    ) -> Result<Ticket, StoreError> {
        let length = value.length_bytes();
        if length > VALUE_LENGTH_MAX_BYTES {
            let (length_bytes, limit_bytes) = (length as u64, VALUE_LENGTH_MAX_BYTES as u64);
            return Err(StoreError::TooLarge { length_bytes, limit_bytes });
        }
        let right = match shape {
            Shape::Value if options.may_use_reserve => Right::Most,
            Shape::Value => Right::None,
            _ => Right::All,
        };
        self.admit(right, length as u32)?;
        let epoch = self.in_flight.epoch.get();
        self.in_flight.room.acquire_many(format::record_bytes(length as u32)).forget();
        if self.in_flight.epoch.get() != epoch {
            // An earlier write of the same batch may have failed while we waited: this one may not succeed then.
            self.in_flight.room.release(format::record_bytes(length as u32));
            return Err(self.in_flight.failure.borrow().clone().unwrap_or(StoreError::Closed));
        }
        // From here on nothing suspends, so that writes are queued in the order of their sequences.
        let sequence = self.sequence.get() + 1;
        self.sequence.set(sequence);
        let (owner, kept) = (options.owner, (shape == Shape::Value).then(|| value.clone()));
        let ticket = self.post(key, shape, sequence, value, owner, false, right)?;
        let pending = Pending { sequence, value: kept, owner, ticket: ticket.clone() };
        self.pending.borrow_mut().insert(*key, pending);
        Ok(ticket)
    }

    /// Hands over a copy of a record that is on disk, under its old sequence.
    pub(crate) fn send_copy(
        &self,
        key: &Key,
        shape: Shape,
        sequence: u64,
        value: Gather,
        owner: u32,
    ) -> Result<Ticket, StoreError> {
        self.in_flight.room.acquire_many(format::record_bytes(value.length_bytes() as u32)).forget();
        self.post(key, shape, sequence, value, owner, true, Right::All)
    }

    #[expect(clippy::too_many_arguments, reason = "the fields of a write")]
    pub(crate) fn post(
        &self,
        key: &Key,
        shape: Shape,
        sequence: u64,
        value: Gather,
        owner: u32,
        is_copy: bool,
        right: Right,
    ) -> Result<Ticket, StoreError> {
        let length = value.length_bytes() as u32;
        let bytes = format::record_bytes(length);
        let epoch = self.in_flight.epoch.get();
        let write = Write { shape, key: *key, sequence, value, owner, epoch, is_copy, right };
        let is_sent = !self.in_flight.finished.is_open()
            && self.queue.borrow().as_ref().is_some_and(|queue| queue.send(write));
        if !is_sent {
            self.in_flight.room.release(bytes);
            return Err(StoreError::Closed);
        }
        let (ticket, completion) = Ticket::new();
        let listed = Listed { key: *key, shape, sequence, offset: 0, length, count: 1, owner };
        self.in_flight.writes.borrow_mut().push_back(Sent { listed, is_copy, completion });
        self.in_flight.bytes.set(self.in_flight.bytes.get() + bytes as u64);
        *self.last.borrow_mut() = Some(ticket.clone());
        Ok(ticket)
    }

    /// Whether the capacity allows one more value.
    pub(crate) fn admit(&self, right: Right, length: u32) -> Result<(), StoreError> {
        let Some(capacity) = self.config.capacity_bytes else { return Ok(()) };
        let wanted = self.disk_bytes() + self.in_flight.bytes.get() + format::record_bytes(length) as u64;
        let reserve = self.config.reserve_of(capacity);
        let limit = match right {
            Right::None => capacity - reserve,
            Right::Most => capacity - reserve / 4,
            Right::All => u64::MAX,
        };
        if wanted > limit {
            self.in_flight.was_full.set(true);
            self.compaction_wanted.notify_all();
            return Err(StoreError::Full);
        }
        Ok(())
    }

    pub(crate) fn disk_bytes(&self) -> u64 {
        self.index.borrow().totals().disk_bytes
    }

    /// Bytes that the disk has left for anybody.
    pub(crate) fn device_free_bytes(&self) -> u64 {
        self.directory.disk().free_bytes(self.directory.path()).unwrap_or(u64::MAX)
    }

    /// Bytes that may still be taken: of the capacity, and of the disk.
    pub(crate) fn free_bytes(&self) -> u64 {
        let of_disk = self.device_free_bytes().saturating_sub(self.in_flight.reserve_missing_bytes.get());
        let of_capacity = self.config.capacity_bytes.map_or(u64::MAX, |capacity| {
            (capacity - self.config.reserve_of(capacity)).saturating_sub(self.disk_bytes())
        });
        of_disk.min(of_capacity)
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.queue.borrow().is_none()
    }

    pub(crate) fn want_compaction(&self) {
        let percent = self.config.compaction_dead_percent;
        if self.index.borrow().most_dead(percent).is_some() {
            self.compaction_wanted.notify_all();
        }
    }

    /// Forgets what is kept of a segment that is gone.
    pub(crate) fn forget_segment(&self, segment: u32) {
        self.files.borrow_mut().remove(&segment);
        self.tables.borrow_mut().forget_segment(segment);
    }

    pub(crate) fn keep_file(&self, segment: u32, file: Arc<dyn DiskFile>) {
        let mut files = self.files.borrow_mut();
        if files.len() >= FILES_MAX
            && let Some(oldest) = files.keys().min().copied()
        {
            files.remove(&oldest);
        }
        files.insert(segment, file);
    }

    /// Reads by plan: from the page cache if it is there, else on another thread.
    ///
    /// # Suspends
    ///
    /// If it is not in the page cache.
    pub(crate) fn read(&self, plan: Plan) -> Result<Part, Miss> {
        let segment = plan.entry.segment;
        let known = self.files.borrow().get(&segment).cloned();
        if let Some(file) = &known
            && plan.bytes() <= INLINE_READ_BYTES_MAX
        {
            match plan.try_read(&**file) {
                Err(Miss::WouldBlock) => {}
                done => return done,
            }
        }
        let directory = self.directory.clone();
        let (file, read) = reactor::offload(move || {
            let file = match known.map_or_else(|| directory.open_segment(segment, Opening::Read), Ok) {
                Ok(file) => file,
                Err(error) => return (None, Err(Miss::Io(error))),
            };
            let read = plan.read(&*file);
            (Some(file), read)
        });
        if let Some(file) = file
            && self.index.borrow().segment(segment).is_some()
        {
            self.keep_file(segment, file);
        }
        read
    }

    /// The value of a key that has no pending write.
    pub(crate) fn get_durable(
        &self,
        key: &Key,
        range: Option<Range<u32>>,
    ) -> Result<Option<Bytes>, StoreError> {
        loop {
            let Some(entry) = self.index.borrow().get(key).copied() else { return Ok(None) };
            match entry.shape {
                Shape::Value => {}
                Shape::Lost => return Err(StoreError::Damaged(damage(key, &entry))),
                _ => return Ok(None),
            }
            let length = entry.length as usize;
            let wanted = range.clone().map_or(0..length, |range| {
                let end = (range.end as usize).min(length);
                (range.start as usize).min(end)..end
            });
            let at = (entry.segment, entry.offset);
            // All of a value is read with its table in one call.
            let is_part = wanted.len() < length;
            let table = is_part.then(|| self.tables.borrow().get(key, &entry)).flatten();
            let is_remembered = table.is_some();
            let miss = match self.read(Plan { key: *key, entry, salt: self.salt, range: wanted, table }) {
                Ok(Part { bytes, table }) => {
                    // The segment may be gone by now, and then nobody would forget it.
                    if let Some(table) = table
                        && self.index.borrow().segment(entry.segment).is_some()
                    {
                        self.tables.borrow_mut().remember(key, &entry, table);
                    }
                    return Ok(Some(bytes));
                }
                // Damaged is what does not agree with the table that is on the disk.
                Err(Miss::Damaged) if is_remembered => {
                    self.tables.borrow_mut().forget(at);
                    continue;
                }
                Err(miss) => miss,
            };
            // Compaction may have moved the record while we waited for the disk.
            if self.index.borrow().get(key).is_none_or(|now| (now.segment, now.offset) != at) {
                continue;
            }
            return Err(match miss {
                Miss::Io(error) => StoreError::io("read", self.directory.segment_path(entry.segment), error),
                miss => {
                    let damage = damage(key, &entry);
                    tracing::warn!(store = %self.config.path.display(), "{damage}");
                    self.on_miss(key, &entry, &miss);
                    StoreError::Damaged(damage)
                }
            });
        }
    }
}

impl Log {
    /// Notes that a record could not be had. If the disk could not read it, its segment is kept: it may be able to
    /// another time.
    pub(crate) fn on_miss(&self, key: &Key, entry: &Entry, miss: &Miss) {
        self.tables.borrow_mut().forget((entry.segment, entry.offset));
        let mut index = self.index.borrow_mut();
        index.on_damage(key, entry.segment, entry.offset);
        if matches!(miss, Miss::Unreadable) {
            index.keep(entry.segment);
        }
    }
}

pub(crate) fn damage(key: &Key, entry: &Entry) -> Damage {
    Damage {
        key: Some(*key),
        segment: entry.segment,
        offset_bytes: u64::from(entry.offset),
        length_bytes: format::record_bytes(entry.length) as u64,
        sequence_max: entry.sequence,
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        // The compaction coroutine finds the store gone, and ends.
        self.compaction_wanted.notify_all();
    }
}
