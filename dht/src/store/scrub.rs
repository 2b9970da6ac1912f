//! Rereading everything that holds, to find damage before somebody needs the value.
//!
//! It finds; it heals nothing. A damaged key is what the DHT fetches from another replica and puts again.

use super::{
    Damage, DiskStore, Key, Kind, StoreError,
    compaction::{BATCH_BYTES_MAX, BATCH_COUNT_MAX},
    device::Opening,
    format::{self, Shape},
    index::Entry,
    log::{Log, damage},
    read::{Miss, Plan},
};
use std::collections::HashMap;

/// What a scrub found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ScrubReport {
    /// Values read and verified.
    pub count: u64,
    /// Their bytes on disk.
    pub bytes: u64,
    /// Those that are damaged, including the ones known before.
    pub damages: Vec<Damage>,
}

impl DiskStore {
    /// Reads and verifies every value at the configured rate.
    ///
    /// Damaged ones are remembered: reading them fails until they are put again.
    ///
    /// # Errors
    ///
    /// If the store is closed meanwhile. A value that cannot be read is damage, not an error.
    ///
    /// # Suspends
    ///
    /// For as long as the configured rate makes it; compaction waits meanwhile.
    pub fn scrub(&self) -> Result<ScrubReport, StoreError> {
        let log = self.log();
        let _working = log.background.lock();
        let mut report = ScrubReport::default();
        let mut from = Some(Key::first(Kind(0)));
        while let Some(start) = from {
            if log.is_closed() {
                return Err(StoreError::Closed);
            }
            let mut batch = log.batch_from(&start);
            from = batch.last().and_then(|(key, _)| key.next());
            batch.sort_unstable_by_key(|(_, entry)| (entry.segment, entry.offset));
            for (key, entry, miss) in log.verify(&batch) {
                log.on_miss(&key, &entry, &miss);
                tracing::warn!(store = %log.config.path.display(), "scrub: {}", damage(&key, &entry));
            }
            report.count += batch.len() as u64;
            report.bytes +=
                batch.iter().map(|(_, entry)| format::record_bytes(entry.length) as u64).sum::<u64>();
            log.pace(&batch);
        }
        report.damages = log.index.borrow().damages();
        Ok(report)
    }
}

impl Log {
    fn batch_from(&self, from: &Key) -> Vec<(Key, Entry)> {
        let index = self.index.borrow();
        let values = index.range(from).filter(|(_, entry)| entry.shape == Shape::Value);
        let mut bytes = 0;
        let some = values.take(BATCH_COUNT_MAX).take_while(|(_, entry)| {
            let fits = bytes < BATCH_BYTES_MAX;
            bytes += format::record_bytes(entry.length);
            fits
        });
        some.map(|(key, entry)| (*key, *entry)).collect()
    }

    /// Which of these records are not what the index says.
    fn verify(&self, batch: &[(Key, Entry)]) -> Vec<(Key, Entry, Miss)> {
        let (directory, salt, batch) = (self.directory.clone(), self.salt, batch.to_vec());
        reactor::offload(move || {
            let mut files = HashMap::new();
            let bad = batch.into_iter().filter_map(|(key, entry)| {
                let open = || directory.open_segment(entry.segment, Opening::Read);
                let file = files.entry(entry.segment).or_insert_with(open);
                // A segment that is gone meanwhile was compacted.
                let miss = Plan::whole(&key, &entry, salt).read(&**file.as_ref().ok()?).err()?;
                matches!(miss, Miss::Damaged | Miss::Unreadable).then_some((key, entry, miss))
            });
            bad.collect()
        })
    }
}
