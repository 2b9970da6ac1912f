//! Giving the space of dead records back to the disk where they lie, without copying what holds.
//!
//! For a disk that is full: compaction copies before it deletes, and there may be no room for a copy. Each run of dead
//! records in a sealed segment is covered by one *void* record, written over the first one's header, and when that is
//! durable the whole pages in it are punched out of the file. A scan reads the void as it reads any record.
//!
//! The segment's checkpoint stays as it is: it lists dead records, of which nothing is read, and which are counted, so
//! that a tombstone that hides one of them is kept.

use super::{
    StoreError,
    checkpoint::Listing,
    device::{DiskFile, Opening, write_all},
    format::{self, Place, RECORD_HEADER_BYTES, RecordHeader, SEGMENT_HEADER_BYTES, Shape},
    log::Log,
    writer::NO_KEY,
};
use std::{
    io::{self, IoSlice},
    ops::Range,
};

/// What a file system gives back at a time.
const PAGE_BYTES: u64 = 4 << 10;
/// Runs that would give back less than this are left to compaction.
const GAIN_MIN_BYTES: u64 = 8 << 10;

impl Log {
    /// Gives back what is dead in a sealed segment. Does nothing on a disk that cannot.
    ///
    /// # Suspends
    ///
    /// Until the disk has it.
    pub(crate) fn give_back(&self, segment: u32, listing: &Listing) -> Result<(), StoreError> {
        let runs = {
            let index = self.index.borrow();
            let values = index.newest_in(segment, listing).map(|entry| {
                u64::from(entry.offset)..u64::from(entry.offset) + format::record_bytes(entry.length) as u64
            });
            let holes =
                listing.holes.iter().map(|hole| hole.offset_bytes..hole.offset_bytes + hole.length_bytes);
            dead_runs(values.chain(holes).collect(), u64::from(listing.end))
        };
        if runs.is_empty() {
            return Ok(());
        }
        let gain: u64 = runs.iter().map(|run| pages(run).end - pages(run).start).sum();
        let (directory, salt) = (self.directory.clone(), self.salt);
        let given = reactor::offload(move || {
            let file = directory.open_segment(segment, Opening::Write)?;
            punch(&*file, Place { salt, segment, offset: 0 }, &runs)
        });
        match given {
            Ok(()) => {
                self.index.borrow_mut().on_punched(segment, gain);
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::Unsupported => Ok(()),
            Err(error) => Err(StoreError::io("punch", self.directory.segment_path(segment), error)),
        }
    }
}

/// What lies between the places that still matter, as far as it is worth giving back.
fn dead_runs(mut live: Vec<Range<u64>>, end: u64) -> Vec<Range<u64>> {
    live.push(end..end);
    live.sort_unstable_by_key(|place| place.start);
    let mut from = SEGMENT_HEADER_BYTES as u64;
    let mut runs = Vec::new();
    for place in live {
        let run = from..place.start;
        if place.start > from && pages(&run).end >= pages(&run).start + GAIN_MIN_BYTES {
            runs.push(run);
        }
        from = from.max(place.end);
    }
    runs
}

/// The whole pages in a run behind its header.
fn pages(run: &Range<u64>) -> Range<u64> {
    let start = (run.start + RECORD_HEADER_BYTES as u64).next_multiple_of(PAGE_BYTES);
    start..(run.end / PAGE_BYTES * PAGE_BYTES).max(start)
}

fn punch(file: &dyn DiskFile, place: Place, runs: &[Range<u64>]) -> io::Result<()> {
    let mut new = Vec::new();
    for run in runs {
        let place = Place { offset: run.start as u32, ..place };
        let length = (run.end - run.start) as u32;
        let mut bytes = [0; RECORD_HEADER_BYTES];
        file.read_at(&mut bytes, run.start)?;
        let known = format::decode_record_header(place, &bytes);
        if known.is_some_and(|known| known.shape == Shape::Void && known.length == length) {
            continue;
        }
        let header = RecordHeader {
            shape: Shape::Void,
            key: NO_KEY,
            flags: 0,
            owner: 0,
            sequence: 0,
            length,
            watermark: 0,
            check: 0,
        };
        let bytes = format::encode_record_header(place, &header);
        write_all(file, &mut [IoSlice::new(&bytes)], run.start).map_err(|(_, error)| error)?;
        new.push(pages(run));
    }
    if new.is_empty() {
        return Ok(());
    }
    // Only then may the pages go: without the void, a scan would find holes.
    file.sync_data()?;
    new.into_iter().try_for_each(|pages| file.punch(pages))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Config, DiskStore, Key, Kind, Store, recovery};

    #[test]
    fn runs_of_dead_records_lie_between_live_ones() {
        let live = vec![200_000..201_000, 64..1064, 100_000..100_064];
        assert_eq!(dead_runs(live, 300_000), [1064..100_000, 100_064..200_000, 201_000..300_000]);
        let whole = std::iter::once(64..300_000);
        assert!(dead_runs(vec![], 300_000).into_iter().eq(whole));
        let nearly_all = std::iter::once(64..295_000).collect();
        assert_eq!(dead_runs(nearly_all, 300_000), [], "too little");
    }

    #[test]
    fn only_whole_pages_behind_the_header_go() {
        assert_eq!(pages(&(64..20_000)), 4096..16_384);
        assert_eq!(pages(&(4090..20_000)), 8192..16_384);
        assert_eq!(pages(&(64..500)), 4096..4096);
    }

    #[test]
    fn a_removed_value_that_stays_readable_keeps_its_tombstone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().to_path_buf();
        reactor::run(move || {
            let key = |n: u8| Key::new(Kind::BLOCK, [n; 32]);
            let mut config = Config::new(&path);
            config.segment_size_bytes = 64 << 10;
            let store = DiskStore::open(config.clone()).unwrap();
            let put = |n: u8, size_bytes: usize| store.put(&key(n), vec![n; size_bytes].into()).unwrap();
            put(0, 12 << 10);
            put(1, 1 << 10);
            put(2, 10 << 10);
            store.remove(&key(1)).unwrap();
            put(3, 16 << 10);
            put(4, 20 << 10);
            let dead = *store.log().index.borrow().get(&key(3)).unwrap();
            // The first of the next segment.
            put(5, 20 << 10);
            store.remove(&key(3)).unwrap();
            let end = store.log().index.borrow().segment(0).unwrap().length_bytes as u32;
            let listing = recovery::read_listing(&store.log().directory, 0, store.log().salt, end).unwrap();
            store.log().give_back(0, &listing).unwrap();
            let place = Place { salt: store.log().salt, segment: 0, offset: dead.offset };
            store.close().unwrap();
            let bytes = std::fs::read(path.join("00000000.segment")).unwrap();
            std::fs::remove_file(path.join("00000000.index")).unwrap();
            let store = DiskStore::open(config).unwrap();
            assert_eq!(store.recovery().damages, []);
            assert_eq!(store.keys(&Key::first(Kind::BLOCK), 9), [key(0), key(2), key(4), key(5)]);
            store.close().unwrap();
            let void = format::decode_record_header(place, &bytes[dead.offset as usize..]).unwrap();
            assert_eq!((dead.segment, void.shape), (0, Shape::Void), "the larger one is given back");
        });
    }
}
