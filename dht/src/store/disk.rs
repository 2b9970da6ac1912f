//! The durable store: the suspending face of the segment log.
//!
//! Everything here runs on the reactor's thread and none of it touches the disk, save for reads that the page cache
//! answers at once. Writes go through a queue to the writer's thread; its reports come back through one coroutine,
//! which moves the index on and completes the tickets. What is still on its way is read from memory.

use super::{
    Damage, Gather, Key, Store, StoreError, Ticket, Usage, VALUE_LENGTH_MAX_BYTES,
    directory::Directory,
    format::{self, Shape},
    index::{Entry, Index},
    read::{Miss, Plan},
    recovery::{self, Opened, Recovery},
    scan::Listed,
    ticket::Completion,
    writer::{Report, Write, Writer},
};
use bytes::Bytes;
use crossbeam::channel;
use reactor::{
    remote,
    sync::{Barrier, Mutex, Semaphore, Signal},
};
use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, HashMap, VecDeque},
    fs::File,
    ops::Range,
    path::PathBuf,
    rc::{Rc, Weak},
    sync::Arc,
    time::{Duration, Instant},
};

/// How many bytes may wait to be written before `enqueue` suspends: four full groups.
const QUEUE_BYTES_MAX: usize = 32 << 20;
/// Those whose writes have just been reported mostly write again at once. Waiting for them lets all writers share one
/// group; without it they fall into two that take turns, each waiting through the other's sync, at half the rate. It
/// takes at most this part of what a sync took last, and no time at all once as many wait as did before.
const GATHER_PART: u32 = 4;
/// The longest such wait.
const GATHER_MAX: Duration = Duration::from_millis(1);
/// How often it is looked whether all are there.
const GATHER_STEP: Duration = Duration::from_micros(20);
/// Reports that may wait for the reactor's thread.
const REPORTS_MAX: usize = 64;
/// Reads up to this size are tried on the reactor's thread: copying as much takes some 30 us, less than the two
/// wake-ups of handing it to another thread.
const INLINE_READ_BYTES_MAX: usize = 256 << 10;
/// Open files: few enough for the usual limit of 1,024, enough for 64 GiB without reopening any.
const FILES_MAX: usize = 256;
/// The least segment that a small capacity leads to.
const SEGMENT_SIZE_MIN_BYTES: u64 = 4 << 20;

/// Where a store lies and how it behaves.
#[derive(Clone, Debug)]
pub struct Config {
    /// Its directory, made if need be.
    pub path: PathBuf,
    /// How long a segment grows: 256 MiB keeps files few, and compaction's steps and a lost checkpoint's scan short.
    pub segment_size_bytes: u32,
    /// How much disk the store may take; `None` for as much as there is.
    pub capacity_bytes: Option<u64>,
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
            compaction_dead_percent: 50,
            background_bytes_per_second: 64 << 20,
        }
    }
}

/// A [`Store`] on disk.
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
    inner: Rc<Inner>,
}

/// What the store, its report coroutine and its compaction share.
pub(crate) struct Inner {
    pub(crate) config: Config,
    pub(crate) directory: Arc<Directory>,
    pub(crate) salt: u64,
    pub(crate) index: RefCell<Index>,
    pub(crate) compaction_wanted: Rc<Signal>,
    /// Held by compaction and scrubbing while they work.
    pub(crate) background: Mutex<()>,
    recovery: Recovery,
    pending: RefCell<BTreeMap<Key, Pending>>,
    in_flight: Rc<InFlight>,
    queue: RefCell<Option<channel::Sender<Write>>>,
    sequence: Cell<u64>,
    last: RefCell<Option<Ticket>>,
    files: RefCell<HashMap<u32, Arc<File>>>,
}

/// The newest write of a key that is not durable yet.
struct Pending {
    sequence: u64,
    /// `None` for a removal.
    value: Option<Gather>,
}

/// Writes that the writer has not reported on. Apart from `Inner`, because tickets outlive a dropped store.
struct InFlight {
    writes: RefCell<VecDeque<Sent>>,
    epoch: Cell<u32>,
    failure: RefCell<Option<StoreError>>,
    room: Semaphore,
    bytes: Cell<u64>,
    finished: Barrier,
}

struct Sent {
    listed: Listed,
    is_copy: bool,
    completion: Rc<Completion>,
}

impl Sent {
    fn bytes(&self) -> usize {
        format::record_bytes(self.listed.length)
    }
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
    pub fn open(mut config: Config) -> Result<DiskStore, StoreError> {
        if let Some(capacity) = config.capacity_bytes {
            // The newest segment cannot be compacted, so it must be a small part of the whole.
            let part = (capacity / 16).max(SEGMENT_SIZE_MIN_BYTES).min(u64::from(config.segment_size_bytes));
            config.segment_size_bytes = part as u32;
        }
        let path = config.path.clone();
        let Opened { directory, salt, index, active, recovery } =
            reactor::offload(move || recovery::open(&path))?;
        for damage in &recovery.damages {
            tracing::warn!(store = %config.path.display(), "{damage}");
        }
        let files = HashMap::from([(active.number, active.file.clone())]);
        let writer = Writer {
            directory: directory.clone(),
            salt,
            segment_size_bytes: config.segment_size_bytes,
            active,
            epoch: 0,
            failed: None,
        };
        let (queue, writes) = channel::unbounded();
        let (reports, received) = remote::channel(REPORTS_MAX);
        let thread = std::thread::Builder::new().name("store".into());
        let started = thread.spawn(move || run_writer(writer, &writes, &reports));
        started.map_err(|error| StoreError::io("start the writer of", &config.path, error))?;
        let in_flight = Rc::new(InFlight {
            writes: RefCell::default(),
            epoch: Cell::new(0),
            failure: RefCell::default(),
            room: Semaphore::new(QUEUE_BYTES_MAX),
            bytes: Cell::new(0),
            finished: Barrier::new(false),
        });
        let inner = Rc::new(Inner {
            config,
            directory,
            salt,
            recovery,
            sequence: Cell::new(index.sequence_max()),
            index: RefCell::new(index),
            compaction_wanted: Rc::default(),
            background: Mutex::new(()),
            pending: RefCell::default(),
            in_flight: in_flight.clone(),
            queue: RefCell::new(Some(queue)),
            last: RefCell::default(),
            files: RefCell::new(files),
        });
        let weak = Rc::downgrade(&inner);
        reactor::spawn(move || receive_reports(&received, &in_flight, &weak));
        super::compaction::start(&inner);
        Ok(DiskStore { inner })
    }

    /// What opening found.
    pub fn recovery(&self) -> &Recovery {
        &self.inner.recovery
    }

    pub(crate) fn inner(&self) -> &Rc<Inner> {
        &self.inner
    }
}

fn run_writer(mut writer: Writer, queue: &channel::Receiver<Write>, reports: &remote::Sender<Report>) {
    let mut waiting = VecDeque::new();
    let (mut reported_count, mut sync_time) = (0, Duration::ZERO);
    loop {
        let expected = reported_count + waiting.len() + queue.len();
        if waiting.is_empty() {
            match queue.recv() {
                Ok(write) => waiting.push_back(write),
                Err(channel::RecvError) => break,
            }
        }
        // Bounded by the queue's room in bytes.
        waiting.extend(queue.try_iter());
        let deadline = Instant::now() + (sync_time / GATHER_PART).min(GATHER_MAX);
        while waiting.len() < expected && Instant::now() < deadline {
            std::thread::sleep(GATHER_STEP);
            waiting.extend(queue.try_iter());
        }
        let start = Instant::now();
        let report = writer.commit(&mut waiting);
        (reported_count, sync_time) = (report.results.len(), start.elapsed());
        // After the end of the reactor nobody listens, but what was handed over is still written.
        let _ = reports.send(report);
        if waiting.is_empty() && queue.is_empty() {
            writer.mark();
        }
    }
    writer.finish();
}

fn receive_reports(reports: &remote::Receiver<Report>, in_flight: &InFlight, weak: &Weak<Inner>) {
    while let Some(report) = reports.recv() {
        let inner = weak.upgrade();
        in_flight.epoch.set(report.epoch);
        if let Some(inner) = &inner {
            for (segment, file) in report.begun {
                inner.index.borrow_mut().on_segment(segment);
                inner.keep_file(segment, file);
            }
        }
        for result in report.results {
            let sent = in_flight.writes.borrow_mut().pop_front();
            let Some(sent) = sent else { continue };
            if let Some(inner) = &inner {
                inner.on_result(&sent, result.as_ref().ok().copied());
            }
            if let Err(error) = &result {
                *in_flight.failure.borrow_mut() = Some(error.clone());
            }
            in_flight.complete(sent, result.map(|_| ()));
        }
        if let Some(inner) = &inner {
            inner.want_compaction();
        }
    }
    // The writer is gone; after an orderly end nothing is left here.
    while let Some(sent) = { in_flight.writes.borrow_mut().pop_front() } {
        in_flight.complete(sent, Err(StoreError::Closed));
    }
    in_flight.finished.open();
}

impl InFlight {
    fn complete(&self, sent: Sent, result: Result<(), StoreError>) {
        let bytes = sent.bytes();
        self.bytes.set(self.bytes.get() - bytes as u64);
        self.room.release(bytes);
        sent.completion.complete(result);
    }
}

impl Inner {
    fn on_result(&self, sent: &Sent, place: Option<(u32, u32)>) {
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
    fn send(&self, key: &Key, shape: Shape, value: Gather) -> Result<Ticket, StoreError> {
        let length = value.length_bytes();
        if length > VALUE_LENGTH_MAX_BYTES {
            let (length_bytes, limit_bytes) = (length as u64, VALUE_LENGTH_MAX_BYTES as u64);
            return Err(StoreError::TooLarge { length_bytes, limit_bytes });
        }
        self.admit(shape, length as u32)?;
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
        let pending = Pending { sequence, value: (shape == Shape::Value).then(|| value.clone()) };
        let ticket = self.post(key, shape, sequence, value, false)?;
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
    ) -> Result<Ticket, StoreError> {
        self.in_flight.room.acquire_many(format::record_bytes(value.length_bytes() as u32)).forget();
        self.post(key, shape, sequence, value, true)
    }

    fn post(
        &self,
        key: &Key,
        shape: Shape,
        sequence: u64,
        value: Gather,
        is_copy: bool,
    ) -> Result<Ticket, StoreError> {
        let length = value.length_bytes() as u32;
        let bytes = format::record_bytes(length);
        let write = Write { shape, key: *key, sequence, value, epoch: self.in_flight.epoch.get(), is_copy };
        let is_sent = self.queue.borrow().as_ref().is_some_and(|queue| queue.send(write).is_ok());
        if !is_sent {
            self.in_flight.room.release(bytes);
            return Err(StoreError::Closed);
        }
        let (ticket, completion) = Ticket::new();
        let listed = Listed { key: *key, shape, sequence, offset: 0, length, count: 1 };
        self.in_flight.writes.borrow_mut().push_back(Sent { listed, is_copy, completion });
        self.in_flight.bytes.set(self.in_flight.bytes.get() + bytes as u64);
        *self.last.borrow_mut() = Some(ticket.clone());
        Ok(ticket)
    }

    /// Whether the capacity allows one more value.
    fn admit(&self, shape: Shape, length: u32) -> Result<(), StoreError> {
        let Some(capacity) = self.config.capacity_bytes else { return Ok(()) };
        let wanted = self.disk_bytes() + self.in_flight.bytes.get() + format::record_bytes(length) as u64;
        if shape == Shape::Value && wanted > capacity {
            self.compaction_wanted.notify_all();
            return Err(StoreError::Full);
        }
        Ok(())
    }

    fn disk_bytes(&self) -> u64 {
        self.index.borrow().totals().disk_bytes
    }

    /// Bytes that may still be taken: of the capacity, and of the disk.
    pub(crate) fn free_bytes(&self) -> u64 {
        let of_disk =
            rustix::fs::statvfs(self.directory.path()).map_or(u64::MAX, |disk| disk.f_bavail * disk.f_frsize);
        let of_capacity = self
            .config
            .capacity_bytes
            .map_or(u64::MAX, |capacity| capacity.saturating_sub(self.disk_bytes()));
        of_disk.min(of_capacity)
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.queue.borrow().is_none()
    }

    fn want_compaction(&self) {
        let percent = self.config.compaction_dead_percent;
        if self.index.borrow().most_dead(percent).is_some() {
            self.compaction_wanted.notify_all();
        }
    }

    pub(crate) fn forget_file(&self, segment: u32) {
        self.files.borrow_mut().remove(&segment);
    }

    fn keep_file(&self, segment: u32, file: Arc<File>) {
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
    fn read(&self, plan: Plan) -> Result<Bytes, Miss> {
        let segment = plan.entry.segment;
        let known = self.files.borrow().get(&segment).cloned();
        if let Some(file) = &known
            && plan.bytes() <= INLINE_READ_BYTES_MAX
        {
            match plan.try_read(file) {
                Err(Miss::WouldBlock) => {}
                done => return done,
            }
        }
        let path = self.directory.segment_path(segment);
        let (file, read) = reactor::offload(move || {
            let file = match known.map_or_else(|| File::open(path).map(Arc::new), Ok) {
                Ok(file) => file,
                Err(error) => return (None, Err(Miss::Io(error))),
            };
            let read = plan.read(&file);
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
    fn get_durable(&self, key: &Key, range: Option<Range<u32>>) -> Result<Option<Bytes>, StoreError> {
        loop {
            let Some(entry) = self.index.borrow().get(key).copied() else { return Ok(None) };
            match entry.shape {
                Shape::Value => {}
                Shape::Lost => return Err(StoreError::Damaged(damage(key, &entry))),
                Shape::Tombstone | Shape::Mark => return Ok(None),
            }
            let length = entry.length as usize;
            let wanted = range.clone().map_or(0..length, |range| {
                let end = (range.end as usize).min(length);
                (range.start as usize).min(end)..end
            });
            let miss = match self.read(Plan { key: *key, entry, salt: self.salt, range: wanted }) {
                Ok(bytes) => return Ok(Some(bytes)),
                Err(miss) => miss,
            };
            // Compaction may have moved the record while we waited for the disk.
            if self
                .index
                .borrow()
                .get(key)
                .is_none_or(|now| (now.segment, now.offset) != (entry.segment, entry.offset))
            {
                continue;
            }
            return Err(match miss {
                Miss::Io(error) => StoreError::io("read", self.directory.segment_path(entry.segment), error),
                Miss::Damaged | Miss::WouldBlock => {
                    self.index.borrow_mut().on_damage(key, entry.segment, entry.offset);
                    StoreError::Damaged(damage(key, &entry))
                }
            });
        }
    }
}

pub(crate) fn damage(key: &Key, entry: &Entry) -> Damage {
    Damage {
        key: Some(*key),
        segment: entry.segment,
        offset_bytes: u64::from(entry.offset),
        length_bytes: format::record_bytes(entry.length) as u64,
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // The compaction coroutine finds the store gone, and ends.
        self.compaction_wanted.notify_all();
    }
}

impl Store for DiskStore {
    fn enqueue(&self, key: &Key, value: Gather) -> Result<Ticket, StoreError> {
        self.inner.send(key, Shape::Value, value)
    }

    fn enqueue_remove(&self, key: &Key) -> Result<Ticket, StoreError> {
        let is_pending = self.inner.pending.borrow().contains_key(key);
        let is_absent = |entry: &Entry| entry.shape == Shape::Tombstone;
        if !is_pending && self.inner.index.borrow().get(key).is_none_or(is_absent) && !self.inner.is_closed()
        {
            // Nothing to write, but the ticket must speak for all earlier writes as any other does.
            let last = self.inner.last.borrow().clone();
            return Ok(last.unwrap_or_else(|| Ticket::ready(Ok(()))));
        }
        self.inner.send(key, Shape::Tombstone, Gather::default())
    }

    fn get(&self, key: &Key, range: Option<Range<u32>>) -> Result<Option<Bytes>, StoreError> {
        if self.inner.is_closed() {
            return Err(StoreError::Closed);
        }
        if let Some(pending) = self.inner.pending.borrow().get(key) {
            return Ok(pending.value.as_ref().map(|value| match range {
                None => value.to_bytes(),
                Some(range) => value.slice(range.start as usize..range.end as usize),
            }));
        }
        self.inner.get_durable(key, range)
    }

    fn length(&self, key: &Key) -> Option<u32> {
        if let Some(pending) = self.inner.pending.borrow().get(key) {
            return pending.value.as_ref().map(|value| value.length_bytes() as u32);
        }
        let index = self.inner.index.borrow();
        index.get(key).filter(|entry| entry.shape == Shape::Value).map(|entry| entry.length)
    }

    fn keys(&self, from: &Key, count_max: usize) -> Vec<Key> {
        let (index, pending) = (self.inner.index.borrow(), self.inner.pending.borrow());
        let durable = index
            .range(from)
            .filter(|(key, entry)| entry.shape == Shape::Value && !pending.contains_key(key));
        let mut durable = durable.map(|(key, _)| *key).peekable();
        let mut others = pending
            .range(from..)
            .filter(|(_, pending)| pending.value.is_some())
            .map(|(key, _)| *key)
            .peekable();
        let merged = std::iter::from_fn(|| match (durable.peek(), others.peek()) {
            (Some(a), Some(b)) if a > b => others.next(),
            (None, Some(_)) => others.next(),
            _ => durable.next(),
        });
        merged.take(count_max).collect()
    }

    fn damaged(&self) -> Vec<Damage> {
        self.inner.index.borrow().damages()
    }

    fn usage(&self) -> Usage {
        let totals = self.inner.index.borrow().totals();
        Usage {
            count: totals.value_count,
            value_bytes: totals.value_bytes,
            disk_bytes: totals.disk_bytes,
            total_bytes: totals.disk_bytes.saturating_add(self.inner.free_bytes()),
            damaged_count: totals.lost_count,
        }
    }

    fn sync(&self) -> Result<(), StoreError> {
        let last = self.inner.last.borrow().clone();
        last.map_or(Ok(()), |ticket| ticket.wait_untold())
    }

    fn close(&self) -> Result<(), StoreError> {
        let result = self.sync();
        self.inner.queue.borrow_mut().take();
        self.inner.compaction_wanted.notify_all();
        self.inner.in_flight.finished.wait();
        // Compaction and scrubbing see the closed queue and end.
        drop(self.inner.background.lock());
        self.inner.files.borrow_mut().clear();
        self.inner.directory.unlock();
        result
    }
}
