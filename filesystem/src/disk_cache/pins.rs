//! Entries that never go: what a pin needs.
//!
//! Whoever keeps a pin reads all that it covers through a [`PinningStore`], from a volume that remembers nothing else. What
//! passes is taken in if it was not here, moved to the pinned entries, and noted. What is pinned and was needed by no pin any
//! more is let go afterwards. The files lie in a directory of their own, so that a restart finds them pinned before anybody
//! has looked.
//!
//! Whoever promises a pin and whoever keeps it reckon here, both: [`pinned_bytes_about`] says what one is reckoned to take, and
//! [`pins_bytes_max`] how much may be promised. That what is kept takes no more is seen to by keeping ranges and no entries: what
//! was written here lies in whole objects, of which a small file, or a node of the tree, needs a small part, and that part alone is
//! pinned. Between what may be promised and what pins may take is room for pages, and for what a change leaves behind.
//!
//! Not here: which files are pinned, and when somebody looks again.

use std::cell::Cell;
use std::collections::HashSet;
use std::io;
use std::ops::Range;
use std::rc::Rc;

use bytes::Bytes;
use dht::block_store::{
    BlockStore, GetError, HeaderHash, PutError, ReadError, Record, RegisterAddress, SwapError, Usage,
};
use dht::{Address, OwnerTag};
use reactor::cell::RefCell;
use reactor::fs;
use reactor::sync::Signal;

use super::contents::Entry;
use super::entry::Extent;
use super::s3_fifo::Queue;
use super::{CachedStore, DiskCache};

/// Of the bound, what pins may take while old and new are both there; the rest stays for what is read.
const PINNED_SHARE: (u64, u64) = (7, 8);

/// Of the bound, what pins may be promised: the rest is for what is read, and for old and new of what changes.
const PROMISED_SHARE: (u64, u64) = (3, 4);

/// A file takes more than its bytes: pages, what seals and proves them, and its part of the tree.
const FILE_BYTES: u64 = 8 << 10;

/// An entry is pinned as it is where at most this part of it is not needed: of others what is needed is taken.
const WASTE_SHARE: u64 = 16;

/// What pins may be promised of a cache with this bound.
pub fn pins_bytes_max(bound_bytes: u64) -> u64 {
    bound_bytes / PROMISED_SHARE.1 * PROMISED_SHARE.0
}

/// What so many files with so much content are reckoned to take.
pub fn pinned_bytes_about(files: u64, bytes: u64) -> u64 {
    bytes.saturating_add(bytes / 16).saturating_add(files.saturating_mul(FILE_BYTES))
}

/// Why something could not be pinned.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PinFailure {
    /// Pins take all that they may.
    NoRoom,
    /// The disk has less to spare than the cache leaves to others.
    DiskFull,
    /// The disk failed.
    Disk,
}

/// Names of entries, as [`PinningStore::take_noted`] gives them.
#[derive(Clone, Debug, Default)]
pub struct Noted(HashSet<u64>);

impl Noted {
    /// Adds another's.
    pub fn extend(&mut self, other: &Noted) {
        self.0.extend(&other.0);
    }
}

impl DiskCache {
    /// Whether this process takes in and evicts: it alone can keep pins.
    pub fn keeps_pins(&self) -> bool {
        self.is_owner() && !self.is_off.get()
    }

    /// Returns what pinned entries take on the disk.
    pub fn pinned_bytes(&self) -> u64 {
        self.contents.borrow().pinned_bytes()
    }

    /// Returns how many pinned entries were lost to a failing disk or a flipped bit since the start.
    pub fn pins_lost(&self) -> u64 {
        self.pins_lost.get()
    }

    /// Whether all of `noted` is pinned still.
    pub fn has_pinned(&self, noted: &Noted) -> bool {
        let contents = self.contents.borrow();
        noted.0.iter().all(|number| contents.entry(*number).is_some_and(|entry| entry.queue == Queue::Pinned))
    }

    /// Lets go of all that is pinned and not in `needed`.
    ///
    /// # Errors
    ///
    /// Those of the disk.
    ///
    /// # Suspends
    ///
    /// While files are moved.
    pub fn unpin_others(&self, needed: &Noted) -> io::Result<()> {
        let pinned = self.contents.borrow().pinned();
        for number in pinned.into_iter().filter(|number| !needed.0.contains(number)) {
            self.move_to(number, Queue::Main)?;
        }
        Ok(())
    }

    /// Returns whether the entry is in that queue now: it may have gone before its turn came.
    fn move_to(&self, number: u64, queue: Queue) -> io::Result<bool> {
        let _turn = self.turn.lock();
        let Some(entry) = self.contents.borrow().entry(number) else { return Ok(false) };
        if entry.queue == queue {
            return Ok(true);
        }
        let moved = Entry { queue, ..entry };
        fs::rename(self.path_of(&entry), self.path_of(&moved))?;
        self.contents.borrow_mut().set_queue(number, queue);
        Ok(true)
    }

    /// Has an entry be pinned as it is; `None` if it has gone meanwhile. One at a time, as what is taken in: what several
    /// reads ahead find room for together, there may be no room for.
    fn pin_entry(&self, entry: &Entry) -> io::Result<Option<Result<u64, PinFailure>>> {
        let _room = self.room.lock();
        if !self.has_room_for_pin(&entry.extent) {
            return Ok(Some(Err(PinFailure::NoRoom)));
        }
        Ok(self.move_to(entry.number, Queue::Pinned)?.then_some(Ok(entry.number)))
    }

    /// Takes bytes in as pinned, whatever has them besides; returns the entry's number. At once: what is taken in as others are may be
    /// gone before it is moved.
    fn take_in_pinned(&self, extent: Extent, bytes: &Bytes) -> io::Result<Result<u64, PinFailure>> {
        let _room = self.room.lock();
        let size = extent.disk_bytes();
        if !self.has_room_for_pin(&extent) {
            return Ok(Err(PinFailure::NoRoom));
        }
        if !self.spares(size)? {
            return Ok(Err(PinFailure::DiskFull));
        }
        self.make_room(size)?;
        if !self.contents.borrow().fits(size) {
            return Ok(Err(PinFailure::NoRoom));
        }
        let entry = Entry { queue: Queue::Pinned, ..self.contents.borrow_mut().admit(extent) };
        self.write_entry(entry, bytes)?;
        Ok(Ok(entry.number))
    }

    /// Lets go of pinned entries that the bound, lower now, has no room for: whoever keeps the pins then finds that they do not
    /// fit, and says so.
    pub(super) fn unpin_what_does_not_fit(&self) -> io::Result<()> {
        let pinned = self.contents.borrow().pinned();
        for number in pinned {
            if self.pinned_bytes() <= self.pinned_bytes_max() {
                break;
            }
            self.move_to(number, Queue::Main)?;
        }
        Ok(())
    }

    fn pinned_bytes_max(&self) -> u64 {
        self.bound_bytes / PINNED_SHARE.1 * PINNED_SHARE.0
    }

    fn has_room_for_pin(&self, extent: &Extent) -> bool {
        self.pinned_bytes() + extent.disk_bytes() <= self.pinned_bytes_max()
    }
}

/// A store that pins what is read through it.
pub struct PinningStore {
    below: Rc<CachedStore>,
    noted: RefCell<HashSet<u64>>,
    in_flight: Cell<usize>,
    ended: Signal,
    /// Why something could not be pinned, the first that could not.
    failure: Cell<Option<PinFailure>>,
}

/// Counts a read while it lives.
struct Flight<'a>(&'a PinningStore);

impl Drop for Flight<'_> {
    fn drop(&mut self) {
        self.0.in_flight.set(self.0.in_flight.get() - 1);
        self.0.ended.notify_all();
    }
}

impl PinningStore {
    /// Reads through `below`, and pins in its cache.
    pub fn new(below: Rc<CachedStore>) -> PinningStore {
        PinningStore {
            below,
            noted: RefCell::default(),
            in_flight: Cell::new(0),
            ended: Signal::new(),
            failure: Cell::new(None),
        }
    }

    /// Returns what was pinned since the last call, read-ahead included.
    ///
    /// # Suspends
    ///
    /// Until nothing is under way.
    pub fn take_noted(&self) -> Noted {
        // What was begun for reading ahead may not have come as far as here.
        reactor::yield_now();
        while self.in_flight.get() > 0 {
            self.ended.wait();
        }
        Noted(self.noted.take())
    }

    /// Why something that was read since the last call could not be pinned, if so.
    pub fn take_failure(&self) -> Option<PinFailure> {
        self.failure.take()
    }

    /// Pins `bytes`, which are this part of a block; `part_of` is the entry that has them, if one does.
    fn pin(&self, extent: Extent, bytes: &Bytes, part_of: Option<&Entry>) {
        let cache = self.below.cache();
        let size = extent.disk_bytes();
        let pinned = match part_of.filter(|entry| entry.extent.disk_bytes() <= size + size / WASTE_SHARE) {
            Some(entry) if entry.queue == Queue::Pinned => Ok(Some(Ok(entry.number))),
            Some(entry) => cache.pin_entry(entry),
            None => Ok(None),
        };
        let pinned = pinned.and_then(|pinned| match pinned {
            Some(pinned) => Ok(pinned),
            None => cache.take_in_pinned(extent, bytes),
        });
        match pinned {
            Ok(Ok(number)) => drop(self.noted.borrow_mut().insert(number)),
            Ok(Err(failure)) => self.note_failure(failure),
            Err(error) => {
                cache.fail(&error);
                self.note_failure(PinFailure::Disk);
            }
        }
    }

    fn note_failure(&self, failure: PinFailure) {
        self.failure.set(self.failure.get().or(Some(failure)));
    }
}

impl BlockStore for PinningStore {
    fn tag(&self) -> OwnerTag {
        self.below.tag()
    }

    fn get(&self, address: &Address, range: Option<Range<u32>>) -> Result<Bytes, GetError> {
        let Some(range) = range.clone().filter(|_| !self.below.is_at_hand(address)) else {
            return self.below.get(address, range);
        };
        self.in_flight.set(self.in_flight.get() + 1);
        let _flight = Flight(self);
        let cache = self.below.cache();
        let pinned = cache.contents.borrow().cover_pinned(&address.0, &range);
        if let Some(parts) = pinned
            && let Some(bytes) = cache.read_all(&parts)
        {
            self.noted.borrow_mut().extend(parts.iter().map(|(entry, _)| entry.number));
            return Ok(bytes);
        }
        let extent = |part: &Range<u32>| Extent { address: address.0, start: part.start, end: part.end };
        let here = cache.contents.borrow().cover(&address.0, &range);
        if let Some(parts) = here
            && let Some(bytes) = cache.read_all(&parts)
        {
            for (entry, part) in &parts {
                let at = (part.start - range.start) as usize..(part.end - range.start) as usize;
                self.pin(extent(part), &bytes.slice(at), Some(entry));
            }
            return Ok(bytes);
        }
        let bytes = self.below.fetch(address, range.clone())?;
        self.pin(extent(&range), &bytes, None);
        Ok(bytes)
    }

    fn read(&self, register: &RegisterAddress) -> Result<Option<Record>, ReadError> {
        self.below.read(register)
    }

    fn put(&self, content: Bytes) -> Result<Address, PutError> {
        self.below.put(content)
    }

    fn compare_and_swap(
        &self,
        register: &RegisterAddress,
        expected: Option<HeaderHash>,
        payload: Bytes,
    ) -> Result<Record, SwapError> {
        self.below.compare_and_swap(register, expected, payload)
    }

    fn usage(&self) -> Result<Usage, ReadError> {
        self.below.usage()
    }
}
