//! What the cache takes in, and how it waits for that.
//!
//! As a rule nobody waits: what is offered lies in memory until the writer comes to it. Whoever publishes a root waits until it is here
//! with all that was offered before.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use dht::Address;
use reactor::fs::{self, OpenOptions};

use super::contents::Entry;
use super::entry::Extent;
use super::{DiskCache, OVERHEAD_BYTES};

/// Bytes that may wait in memory to be taken in: more comes only from a copy that outruns the disk, which is no loss.
const WAITING_BYTES_MAX: usize = 32 << 20;
/// How long a commit waits for the cache to have what it stored: more than a disk takes that works, whose pages are written behind.
const TAKE_IN_LIMIT: Duration = Duration::from_secs(2);
/// What stays free on the cache's disk: the journal is mostly on it too, and has to have room when the nodes have none.
const RESERVE_BYTES: u64 = 512 << 20;
/// After how many bytes taken in it is looked again how much is free.
const LOOK_BYTES: u64 = 16 << 20;

impl DiskCache {
    /// Takes in the bytes of a block from `start` on, a little later, if nothing is in the way.
    pub(super) fn offer(&self, address: &Address, start: u32, bytes: &Bytes) {
        let extent = Extent { address: address.0, start, end: start + bytes.len() as u32 };
        let is_known = self.contents.borrow().cover(&address.0, &(start..extent.end)).is_some();
        let has_place = self.waiting_bytes.get() + bytes.len() <= WAITING_BYTES_MAX;
        if self.is_off.get()
            || bytes.is_empty()
            || is_known
            || !has_place
            || !(self.is_owner() || self.is_due())
        {
            return;
        }
        self.waiting_bytes.set(self.waiting_bytes.get() + bytes.len());
        self.waiting.borrow_mut().push_back((extent, bytes.clone()));
        self.offered.set(self.offered.get() + 1);
        self.work.notify_all();
    }

    /// Takes in these blocks, whole, and all that waits. Returns whether they are here then, as the end of this process leaves them.
    ///
    /// # Suspends
    ///
    /// Until they are, or a stated time is over.
    pub(super) fn take_in_now(&self, blocks: &[(Address, Bytes)]) -> bool {
        // A disk that has kept one waiting keeps nobody else waiting before it has worked that off.
        if self.worked_off.get() < self.late.get() {
            blocks.iter().for_each(|(address, content)| self.offer(address, 0, content));
            return false;
        }
        let taken = reactor::timeout(TAKE_IN_LIMIT, || {
            for (address, content) in blocks {
                // Only what outruns the disk is dropped, and nobody waits for that; for this somebody does.
                if self.waiting_bytes.get() + content.len() > WAITING_BYTES_MAX {
                    self.work_off_what_waits();
                }
                self.offer(address, 0, content);
            }
            self.work_off_what_waits();
        });
        if taken.is_err() {
            self.late.set(self.offered.get());
        }
        let contents = self.contents.borrow();
        let is_here = |(address, content): &(Address, Bytes)| {
            contents.cover(&address.0, &(0..content.len() as u32)).is_some()
        };
        taken.is_ok() && blocks.iter().all(is_here)
    }

    fn work_off_what_waits(&self) {
        let through = self.offered.get();
        while self.worked_off.get() < through {
            self.taken.wait();
        }
    }

    /// The writer: one file at a time.
    pub(super) fn work_off(&self) {
        loop {
            self.is_idle.set(true);
            while self.waiting.borrow().is_empty() && !self.wants_look.get() {
                self.idle.notify_all();
                self.work.wait();
            }
            self.is_idle.set(false);
            self.wants_look.set(false);
            let next = self.waiting.borrow_mut().pop_front();
            let is_next = next.is_some();
            let mut result = Ok(());
            if !self.is_owner() {
                result = self.look();
            }
            if let Some((extent, bytes)) = next {
                self.waiting_bytes.set(self.waiting_bytes.get() - bytes.len());
                if self.is_owner() && result.is_ok() && !self.is_off.get() {
                    result = self.take_in(extent, &bytes);
                }
            }
            if let Err(error) = result {
                self.fail(&error);
            }
            if is_next {
                self.worked_off.set(self.worked_off.get() + 1);
                self.taken.notify_all();
            }
        }
    }

    fn take_in(&self, extent: Extent, bytes: &Bytes) -> io::Result<()> {
        let _room = self.room.lock();
        // Two readers may have fetched it at once.
        if self.contents.borrow().cover(&extent.address, &(extent.start..extent.end)).is_some() {
            return Ok(());
        }
        if !self.spares(extent.disk_bytes())? {
            return Ok(());
        }
        self.make_room(extent.disk_bytes())?;
        if !self.contents.borrow().fits(extent.disk_bytes()) {
            return Ok(()); // The rest is pinned.
        }
        let entry = self.contents.borrow_mut().admit(extent);
        self.write_entry(entry, bytes)
    }

    /// Has an entry's file written, where there is room for it.
    pub(super) fn write_entry(&self, entry: Entry, bytes: &Bytes) -> io::Result<()> {
        let (path, extent) = (self.path_of(&entry), entry.extent);
        let written = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .and_then(|file| file.write_chunk_at(extent.seal(&self.key, bytes).into(), 0));
        if written.is_err() {
            let _ = fs::remove_file(&path);
        } else {
            self.contents.borrow_mut().insert(entry);
        }
        written
    }

    /// Whether the disk has room for `size` bytes more beside its reserve; if not, gives back of the cache what is lacking.
    pub(super) fn spares(&self, size: u64) -> io::Result<bool> {
        if let Some(left) = self.allowance.get().checked_sub(size) {
            self.allowance.set(left);
            return Ok(true);
        }
        let directory = self.directory.clone();
        let free = reactor::offload(move || rustix::fs::statvfs(&directory))
            .map(|disk| disk.f_bavail.saturating_mul(disk.f_frsize))?;
        let spare = free.saturating_sub(RESERVE_BYTES);
        if spare < size {
            let held = self.contents.borrow().bytes();
            let lacking = (RESERVE_BYTES + size).saturating_sub(free).min(held);
            // As much room as there would be with so much less in it.
            self.make_room((self.bound_bytes - OVERHEAD_BYTES).saturating_sub(held) + lacking)?;
            return Ok(false);
        }
        self.allowance.set(spare.min(LOOK_BYTES).saturating_sub(size));
        Ok(true)
    }
}
