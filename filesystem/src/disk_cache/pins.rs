//! Entries that never go: what a pin needs.
//!
//! Whoever keeps a pin reads all that it covers through a [`PinningStore`], from a volume that remembers nothing else. What
//! passes is taken in if it was not here, moved to the pinned entries, and noted. What is pinned and was needed by no pin any
//! more is let go afterwards. The files lie in a directory of their own, so that a restart finds them pinned before anybody
//! has looked.
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

    fn move_to(&self, number: u64, queue: Queue) -> io::Result<()> {
        let _turn = self.turn.lock();
        let entry = self.contents.borrow().entry(number);
        let Some(entry) = entry.filter(|entry| entry.queue != queue) else { return Ok(()) };
        let moved = Entry { queue, ..entry };
        fs::rename(self.path_of(&entry), self.path_of(&moved))?;
        self.contents.borrow_mut().set_queue(number, queue);
        Ok(())
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
    /// Something could not be pinned: there is no room, or the disk failed.
    has_failed: Cell<bool>,
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
            has_failed: Cell::new(false),
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

    /// Whether anything that was read could not be pinned.
    pub fn has_failed(&self) -> bool {
        self.has_failed.get()
    }

    fn pin(&self, entry: &Entry) {
        let cache = self.below.cache();
        let has_room = entry.queue == Queue::Pinned || cache.has_room_for_pin(&entry.extent);
        match has_room.then(|| cache.move_to(entry.number, Queue::Pinned)) {
            Some(Ok(())) => drop(self.noted.borrow_mut().insert(entry.number)),
            Some(Err(error)) => {
                cache.fail(&error);
                self.has_failed.set(true);
            }
            None => self.has_failed.set(true),
        }
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
        let cover = || cache.contents.borrow().cover(&address.0, &range);
        if let Some(parts) = cover()
            && let Some(bytes) = cache.read_all(&parts)
        {
            parts.iter().for_each(|(entry, _)| self.pin(entry));
            return Ok(bytes);
        }
        let bytes = self.below.fetch(address, range.clone())?;
        let extent = Extent { address: address.0, start: range.start, end: range.end };
        if let Err(error) = cache.take_in(extent, &bytes) {
            cache.fail(&error);
        }
        match cover() {
            Some(parts) => parts.iter().for_each(|(entry, _)| self.pin(entry)),
            None => self.has_failed.set(true),
        }
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
