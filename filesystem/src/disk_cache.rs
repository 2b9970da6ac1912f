//! Blocks that nodes have given, kept on this machine's disk: bounded, shared by all mounts of a home, there after a
//! restart.
//!
//! An entry is a file (`disk_cache/entry.rs`), its name says what it holds, and the directory is the index: a process that
//! is killed at any instant leaves nothing that the next one must repair. What is in the files is ciphertext as nodes hold
//! it, and each read is verified, so nothing needs to be synced either; what a crash tore is a miss.
//!
//! Several processes may use one directory. One of them has its lock, takes in and evicts; the others read what is there,
//! look again now and then, and try for the lock when they have something to take in. So the bound has one keeper, who
//! counts whole pages before they are written.
//!
//! Nothing waits for the cache's disk but a read from it: what is to be taken in waits in memory, within a bound, and is
//! dropped beyond it. A disk that takes nothing ends the taking in with one line in the log, and nothing else. One more waits: what was
//! published is answered once it is here, so that a start from here after a kill shows what was answered.
//!
//! Beside the blocks lies the newest root that was seen of each volume, so that a mount can start from here where no node answers.
//!
//! Not here: what goes when there is no room (`s3_fifo.rs`); which store it stands before (`store.rs`).

mod contents;
mod entry;
mod intake;
mod offline;
mod pins;
mod roots;
mod s3_fifo;
mod store;

use std::cell::Cell;
use std::collections::{HashSet, VecDeque};
use std::io::{self, ErrorKind};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::rc::{Rc, Weak};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use dht::Address;
use reactor::JoinHandle;
use reactor::cell::RefCell;
use reactor::fs::{self, File};
use reactor::sync::{Mutex, Signal};

use contents::{Contents, Entry};
use entry::Extent;
pub use offline::KeptRoot;
pub use pins::{Noted, PinFailure, PinningStore, pinned_bytes_about, pins_bytes_max};
use s3_fifo::{Queue, Step};
pub use store::CachedStore;

/// The least bound: some blocks of the largest size, and the directories.
pub const SIZE_BYTES_MIN: u64 = 8 << 20;
/// What the directories and their names may take beside the entries.
const OVERHEAD_BYTES: u64 = 256 << 10;
/// How long a process that lacks the lock goes without trying for it again, and without looking for new entries.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);
/// How long an end waits for what is still to be taken in.
const CLOSE_LIMIT: Duration = Duration::from_secs(2);
/// Where files lie.
const QUEUES: [Queue; 3] = [Queue::Small, Queue::Main, Queue::Pinned];

/// What the cache is and did, for people.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Figures {
    /// What its entries take on the disk.
    pub size_bytes: u64,
    /// What they may take.
    pub bound_bytes: u64,
    /// Reads that it answered since it was opened.
    pub hits: u64,
    /// Reads that went to the nodes.
    pub misses: u64,
}

/// A cache on the disk; see the file's header.
pub struct DiskCache {
    directory: PathBuf,
    /// Whose root is written: each client has a file.
    client: String,
    key: [u8; 32],
    bound_bytes: u64,
    contents: RefCell<Contents>,
    /// The directory, locked, in the process that takes in.
    lock: RefCell<Option<File>>,
    /// Held by whoever moves or removes files.
    turn: Mutex<()>,
    /// Held by whoever makes room, until it is filled.
    room: Mutex<()>,
    waiting: RefCell<VecDeque<(Extent, Bytes)>>,
    waiting_bytes: Cell<usize>,
    /// How many were ever to be taken in, and how many of them were, or never will be.
    offered: Cell<u64>,
    worked_off: Cell<u64>,
    /// Up to here they were waited for in vain.
    late: Cell<u64>,
    /// One more was.
    taken: Signal,
    /// Something came, or is to be done.
    work: Signal,
    /// Nothing waits any more.
    idle: Signal,
    is_idle: Cell<bool>,
    looked: Cell<Instant>,
    wants_look: Cell<bool>,
    /// The disk failed: nothing more is taken in.
    is_off: Cell<bool>,
    /// How much may be taken in before the next look at what is free on the disk.
    allowance: Cell<u64>,
    hits: Cell<u64>,
    misses: Cell<u64>,
    pins_lost: Cell<u64>,
    /// Of the volumes that are open.
    roots: RefCell<Vec<Weak<KeptRoot>>>,
    /// The nodes serve this user no more.
    is_removed: Cell<bool>,
    writer: RefCell<Option<JoinHandle<()>>>,
}

impl DiskCache {
    /// Opens the cache in `directory`, which is this user's alone, for the client of that name, with room for `bound_bytes`
    /// there. The `key` comes from
    /// the user's secret. A disk that fails is told in the log, and makes a cache that holds nothing.
    ///
    /// # Panics
    ///
    /// If the bound is below [`SIZE_BYTES_MIN`].
    ///
    /// # Suspends
    ///
    /// While the directory is listed.
    pub fn open(directory: &Path, client: &str, key: [u8; 32], bound_bytes: u64) -> Rc<DiskCache> {
        assert!(bound_bytes >= SIZE_BYTES_MIN, "the cache's bound is {SIZE_BYTES_MIN} bytes at least");
        let cache = Rc::new(DiskCache {
            directory: directory.to_owned(),
            client: client.to_owned(),
            key,
            bound_bytes,
            contents: RefCell::new(Contents::new(bound_bytes - OVERHEAD_BYTES)),
            lock: RefCell::new(None),
            turn: Mutex::new(()),
            room: Mutex::new(()),
            waiting: RefCell::default(),
            waiting_bytes: Cell::new(0),
            offered: Cell::new(0),
            worked_off: Cell::new(0),
            late: Cell::new(0),
            taken: Signal::new(),
            work: Signal::new(),
            idle: Signal::new(),
            is_idle: Cell::new(true),
            looked: Cell::new(reactor::now()),
            wants_look: Cell::new(false),
            is_off: Cell::new(false),
            allowance: Cell::new(0),
            hits: Cell::new(0),
            misses: Cell::new(0),
            pins_lost: Cell::new(0),
            roots: RefCell::default(),
            is_removed: Cell::new(false),
            writer: RefCell::new(None),
        });
        if let Err(error) = cache.look() {
            cache.fail(&error);
        }
        let writer = cache.clone();
        *cache.writer.borrow_mut() = Some(reactor::spawn(move || writer.work_off()));
        cache
    }

    /// Takes in what waits, as far as a stated time allows, keeps the newest roots, and lets another process have the lock.
    ///
    /// # Suspends
    ///
    /// Until then.
    pub fn close(&self) {
        let _ = reactor::timeout(CLOSE_LIMIT, || {
            while !self.is_idle.get() || !self.waiting.borrow().is_empty() {
                self.idle.wait();
            }
        });
        if let Some(writer) = self.writer.take() {
            writer.terminate();
        }
        self.keep_roots();
        self.is_off.set(true);
        drop(self.lock.take());
    }

    /// Returns what it is and did.
    pub fn figures(&self) -> Figures {
        Figures {
            size_bytes: self.contents.borrow().bytes(),
            bound_bytes: self.bound_bytes,
            hits: self.hits.get(),
            misses: self.misses.get(),
        }
    }

    /// Returns these bytes of a block if they are here and prove what they are.
    ///
    /// # Suspends
    ///
    /// While they are read.
    fn get(&self, address: &Address, range: &Range<u32>) -> Option<Bytes> {
        let parts = self.contents.borrow().cover(&address.0, range);
        let bytes = parts.and_then(|parts| self.read_all(&parts));
        let counter = if bytes.is_some() { &self.hits } else { &self.misses };
        counter.set(counter.get() + 1);
        if bytes.is_none() && !self.is_owner() && self.is_due() {
            self.wants_look.set(true);
            self.work.notify_all();
        }
        bytes
    }

    /// Reads parts of entries that lie one behind the other.
    fn read_all(&self, parts: &[(Entry, Range<u32>)]) -> Option<Bytes> {
        if let [(entry, range)] = parts {
            return self.read(*entry, range);
        }
        let mut bytes = BytesMut::new();
        for (entry, range) in parts {
            bytes.extend_from_slice(&self.read(*entry, range)?);
        }
        Some(bytes.freeze())
    }

    fn read(&self, mut entry: Entry, range: &Range<u32>) -> Option<Bytes> {
        let (offset, length) = entry.extent.window(range);
        for _ in 0..2 {
            let window = (|| {
                let file = File::open(self.path_of(&entry))?;
                let mut window = vec![0; length];
                file.read_exact_at(&mut window, offset).map(|()| window)
            })();
            match window.map(|window| entry.extent.open(&self.key, range, window)) {
                Ok(Some(bytes)) => {
                    self.contents.borrow_mut().touch(entry.number);
                    return Some(bytes);
                }
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    // It was evicted, or moved, while we were on the way: whoever does that holds the turn until it is done.
                    let _turn = self.turn.lock();
                    entry = self.contents.borrow().entry(entry.number)?;
                }
                Ok(None) => break,
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => break,
                // Too many open files, or a disk that hesitates, says nothing about the entry.
                Err(error) => {
                    tracing::debug!(%error, "an entry of the cache cannot be read now");
                    return None;
                }
            }
        }
        tracing::debug!(entry = ?entry.extent, "an entry of the cache is not what was put there: it is dropped");
        self.remove(entry.number);
        None
    }

    /// Drops an entry, wherever it is by now.
    fn remove(&self, number: u64) {
        let _turn = self.turn.lock();
        let entry = self.contents.borrow().entry(number);
        let Some(entry) = entry else { return };
        self.contents.borrow_mut().remove(number);
        if entry.queue == Queue::Pinned {
            self.pins_lost.set(self.pins_lost.get() + 1);
        }
        if self.is_owner() {
            let _ = fs::remove_file(self.path_of(&entry));
        }
    }

    fn is_owner(&self) -> bool {
        self.lock.borrow().is_some()
    }

    fn is_due(&self) -> bool {
        reactor::now().saturating_duration_since(self.looked.get()) >= LOOK_INTERVAL
    }

    /// Evicts until there is room for one more entry, one file at a time: the disk follows each step.
    fn make_room(&self, size: u64) -> io::Result<()> {
        loop {
            let _turn = self.turn.lock();
            let step = self.contents.borrow_mut().make_room(size);
            let Some((entry, step)) = step else { return Ok(()) };
            let path = self.path_of(&entry);
            let done = match step {
                Step::Promote(_) => fs::rename(&path, self.path_of(&Entry { queue: Queue::Main, ..entry })),
                Step::Evict(..) => fs::remove_file(&path),
            };
            match done {
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    self.contents.borrow_mut().remove(entry.number)
                }
                other => other?,
            }
        }
    }

    /// Tries for the lock, and lists what is there.
    fn look(&self) -> io::Result<()> {
        self.looked.set(reactor::now());
        for queue in QUEUES {
            fs::create_dir_all(self.directory_of(queue))?;
        }
        let directory = File::open(&self.directory)?;
        let is_owner = !self.is_off.get() && directory.try_lock()?;
        let mut numbers = HashSet::new();
        let mut entries = Vec::new();
        for queue in QUEUES {
            for found in fs::read_dir(self.directory_of(queue))? {
                let name = found?.name;
                match name.to_str().and_then(Extent::from_file_name) {
                    Some((number, extent)) if numbers.insert(number) => {
                        entries.push(Entry { number, extent, queue })
                    }
                    // Nobody else puts anything here, and what is not counted would break the bound.
                    Some(_) if is_owner => fs::remove_file(self.directory_of(queue).join(name))?,
                    Some(_) => {}
                    None if is_owner => fs::remove_file(self.directory_of(queue).join(name))?,
                    None => {}
                }
            }
        }
        *self.contents.borrow_mut() = Contents::found(self.bound_bytes - OVERHEAD_BYTES, entries);
        if is_owner {
            *self.lock.borrow_mut() = Some(directory);
            // The bound may be lower than it was.
            self.unpin_what_does_not_fit()?;
            self.make_room(0)?;
        }
        Ok(())
    }

    fn fail(&self, error: &io::Error) {
        // Another process may have better luck.
        drop(self.lock.take());
        if !self.is_off.replace(true) {
            tracing::warn!(
                directory = %self.directory.display(),
                "the cache on the disk takes nothing in until the next start: {error}; check that disk"
            );
        }
    }

    fn directory_of(&self, queue: Queue) -> PathBuf {
        self.directory.join(match queue {
            Queue::Small => "small",
            Queue::Main => "main",
            Queue::Pinned => "pinned",
        })
    }

    fn path_of(&self, entry: &Entry) -> PathBuf {
        self.directory_of(entry.queue).join(entry.extent.file_name(entry.number))
    }
}

#[cfg(test)]
mod tests;
