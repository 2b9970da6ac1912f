//! Copying what still holds out of mostly dead segments, so that they can be deleted.
//!
//! One coroutine a store, woken when a segment has passed the threshold. Copies keep their sequence, so a newer
//! write always wins over them, whichever comes first in the log. The order that makes it safe at every instant: the
//! copies are durable before the old segment is removed, and the removal is durable before any tombstone that hid
//! something in it is given up.

use super::{
    Gather, Key, StoreError,
    checkpoint::Listing,
    device::{DiskFile, Opening},
    format::{self, Shape},
    index::Entry,
    log::Log,
    read::{Miss, Plan},
    recovery,
    writer::NO_KEY,
};
use bytes::Bytes;
use std::{
    rc::{Rc, Weak},
    sync::Arc,
    time::Duration,
};

/// How much is copied at a time: the most that a small write may have to wait behind.
pub(crate) const BATCH_BYTES_MAX: usize = 1 << 20;
/// How many records are copied at a time.
pub(crate) const BATCH_COUNT_MAX: usize = 1024;
/// With less space than this, any dead bytes are worth compacting, and at full speed.
const SPACE_SHORT_BYTES: u64 = 64 << 20;

/// After a failure (a full disk, most likely) compaction rests this long.
const REST: Duration = Duration::from_secs(1);

/// With too little space, segments are compacted from this dead share on, in percent.
const SHORT_DEAD_PERCENT: u64 = 5;
const UNREADABLE: &str = "the disk cannot read a part of it";

enum Next {
    /// There may be more to do.
    Go,
    /// There is nothing to do.
    Wait,
    /// It failed.
    Rest,
    /// The store is closed or gone.
    End,
}

/// Starts a store's compaction.
pub(crate) fn start(log: &Rc<Log>) {
    let (weak, wanted) = (Rc::downgrade(log), log.compaction_wanted.clone());
    reactor::spawn(move || {
        loop {
            match compact_one(&weak) {
                Next::Go => reactor::yield_now(),
                Next::Wait => wanted.wait(),
                Next::Rest => reactor::sleep(REST),
                Next::End => return,
            }
        }
    });
}

/// Compacts the segment that most deserves it.
fn compact_one(weak: &Weak<Log>) -> Next {
    let Some(log) = weak.upgrade() else { return Next::End };
    let _working = log.background.lock();
    if log.is_closed() {
        return Next::End;
    }
    let Some(segment) = log.victim() else { return Next::Wait };
    match log.compact(segment) {
        Ok(()) => Next::Go,
        Err(StoreError::Closed) => Next::End,
        Err(error) => {
            tracing::warn!(store = %log.config.path.display(), "cannot compact segment {segment:08x}: {error}");
            Next::Rest
        }
    }
}

impl Log {
    fn is_space_short(&self) -> bool {
        let segment = u64::from(self.config.segment_size_bytes);
        let is_low = self.free_bytes() < SPACE_SHORT_BYTES.min(2 * segment);
        if !is_low && self.device_free_bytes() != u64::MAX {
            self.in_flight.was_full.set(false);
        }
        is_low || self.in_flight.was_full.get()
    }

    fn victim(&self) -> Option<u32> {
        let percent =
            if self.is_space_short() { SHORT_DEAD_PERCENT } else { self.config.compaction_dead_percent };
        self.index.borrow().most_dead(percent)
    }

    /// Moves what holds in `segment` to the end of the log and deletes it.
    ///
    /// # Suspends
    ///
    /// For as long as the configured rate makes it.
    pub(crate) fn compact(&self, segment: u32) -> Result<(), StoreError> {
        let (directory, salt) = (self.directory.clone(), self.salt);
        let end = self.index.borrow().segment(segment).map_or(0, |account| account.length_bytes as u32);
        let listing = reactor::offload(move || recovery::read_listing(&directory, segment, salt, end))?;
        if listing.is_kept {
            self.index.borrow_mut().keep(segment);
            return Ok(());
        }
        let directory = self.directory.clone();
        let file = reactor::offload(move || directory.open_segment(segment, Opening::Read));
        let file =
            file.map_err(|error| StoreError::io("open", self.directory.segment_path(segment), error))?;
        // A second round finds only what damage, found in the first, has changed.
        if self.is_space_short() {
            self.give_back(segment, &listing)?;
            if self.index.borrow().most_dead(SHORT_DEAD_PERCENT) != Some(segment) {
                return Ok(());
            }
        }
        while let Some(survivors) = self.survivors(segment, &listing) {
            for batch in batches(&survivors) {
                if !self.copy(&file, batch)? {
                    tracing::warn!(store = %self.config.path.display(), "segment {segment:08x} is kept: {UNREADABLE}");
                    return Ok(());
                }
                // The copies have taken space; on a full disk the next ones need what these have left behind.
                if self.is_space_short() {
                    self.give_back(segment, &listing)?;
                }
            }
        }
        // What a hole in it may have hidden stays in doubt when the segment is gone.
        let hidden = self.index.borrow().hidden_in(segment);
        if let Some(newest) = hidden {
            self.send_copy(&NO_KEY, Shape::Hidden, newest, Gather::default(), 0)?.wait()?;
        }
        let directory = self.directory.clone();
        reactor::offload(move || directory.delete(segment))?;
        self.index.borrow_mut().on_deleted(segment, &listing);
        self.forget_segment(segment);
        Ok(())
    }

    fn survivors(&self, segment: u32, listing: &Listing) -> Option<Vec<(Key, Entry)>> {
        let mut survivors: Vec<_> = self.index.borrow().survivors(segment, listing).collect();
        survivors.sort_unstable_by_key(|(_, entry)| entry.offset);
        (!survivors.is_empty()).then_some(survivors)
    }

    /// Copies some records and waits until the copies are durable and the index points at them. False if the disk
    /// could not read them all: then the segment must stay, for it may be able to another time.
    fn copy(&self, file: &Arc<dyn DiskFile>, batch: &[(Key, Entry)]) -> Result<bool, StoreError> {
        let read = self.read_batch(file, batch);
        let mut last = None;
        let mut is_whole = true;
        for ((key, entry), read) in batch.iter().zip(read) {
            let still_there = |now: &Entry| (now.segment, now.offset) == (entry.segment, entry.offset);
            if !self.index.borrow().get(key).is_some_and(still_there) {
                continue;
            }
            let (shape, value) = match read {
                None => (entry.shape, Gather::default()),
                Some(Ok(value)) => (Shape::Value, value.into()),
                Some(Err(Miss::Io(error))) => {
                    return Err(StoreError::io("read", self.directory.segment_path(entry.segment), error));
                }
                Some(Err(miss @ Miss::Unreadable)) => {
                    self.on_miss(key, entry, &miss);
                    is_whole = false;
                    continue;
                }
                Some(Err(Miss::Damaged | Miss::WouldBlock)) => {
                    self.tables.borrow_mut().forget((entry.segment, entry.offset));
                    self.index.borrow_mut().on_damage(key, entry.segment, entry.offset);
                    (Shape::Lost, Gather::default())
                }
            };
            last = Some(self.send_copy(key, shape, entry.sequence, value, entry.owner)?);
        }
        last.map_or(Ok(()), |ticket| ticket.wait())?;
        if !self.is_space_short() {
            self.pace(batch);
        }
        Ok(is_whole)
    }

    /// Reads and verifies records on another thread; `None` for those that carry no value.
    pub(crate) fn read_batch(
        &self,
        file: &Arc<dyn DiskFile>,
        batch: &[(Key, Entry)],
    ) -> Vec<Option<Result<Bytes, Miss>>> {
        let (file, salt) = (file.clone(), self.salt);
        let plans = batch
            .iter()
            .map(|(key, entry)| (entry.shape == Shape::Value).then(|| Plan::whole(key, entry, salt)));
        let plans: Vec<_> = plans.collect();
        reactor::offload(move || {
            let read = |plan: &Plan| plan.read(&*file).map(|part| part.bytes);
            plans.iter().map(|plan| plan.as_ref().map(read)).collect()
        })
    }

    /// Sleeps for as long as reading this batch may take at the configured rate.
    pub(crate) fn pace(&self, batch: &[(Key, Entry)]) {
        let bytes: usize = batch.iter().map(|(_, entry)| format::record_bytes(entry.length)).sum();
        let rate = self.config.background_bytes_per_second.max(1);
        let until = reactor::now() + Duration::from_secs_f64(bytes as f64 / rate as f64);
        // In steps, so that closing a store never waits long.
        while let left = until.saturating_duration_since(reactor::now())
            && !left.is_zero()
            && !self.is_closed()
        {
            reactor::sleep(left.min(Duration::from_millis(50)));
        }
    }
}

/// Cuts a list of records into what is read and copied at a time.
pub(crate) fn batches(mut records: &[(Key, Entry)]) -> impl Iterator<Item = &[(Key, Entry)]> {
    std::iter::from_fn(move || {
        let mut bytes = 0;
        let count = records.iter().take(BATCH_COUNT_MAX).take_while(|(_, entry)| {
            let fits = bytes < BATCH_BYTES_MAX;
            bytes += format::record_bytes(entry.length);
            fits
        });
        let (batch, rest) = records.split_at(count.count());
        records = rest;
        (!batch.is_empty()).then_some(batch)
    })
}
