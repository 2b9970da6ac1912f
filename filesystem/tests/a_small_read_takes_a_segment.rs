//! A read of 4 KiB somewhere in a file fetches and opens a segment of a frame, and not the frame: a database that reads here
//! and there fetched eight times what it asked for. What is read by segments, by frames, and changed in between is one content.

mod common;

use common::*;
use filesystem::access::{Features, open_root};
use filesystem::operations::XattrMode;
use filesystem::{Operations, Volume};
use proptest::prelude::*;

fn content(size: u32) -> Vec<u8> {
    (0..size).map(|at| (at >> 12) as u8 ^ (at % 251) as u8).collect()
}

/// Reads, and returns what was fetched for it.
fn fetched(store: &TestStore, read: impl FnOnce()) -> u64 {
    let before = store.got_bytes.get();
    read();
    store.got_bytes.get() - before
}

#[test]
fn what_is_fetched_is_what_was_asked_for_in_whole_segments() {
    reactor::run(|| {
        let store = TestStore::new();
        let volume = create(&store);
        let content = content(1_000_000);
        let file = write_file(&volume, ROOT, "file", &content);
        let short = write_file(&volume, ROOT, "short", &content[..10_000]);
        volume.close().stored().unwrap();

        let volume = open(&store, "second");
        let read = |offset: usize, size: usize| {
            let bytes = volume.read(file, offset as u64, size as u32).unwrap();
            assert_eq!(flatten(&bytes), content[offset..offset + size], "{offset}");
        };
        // The leaves come with these. From the end to the front, so that nobody takes it for a sequential reader.
        (0..5).rev().for_each(|part| read(part * 200_000, 1));
        read_file(&volume, short);
        assert_eq!(fetched(&store, || read(900_000, 10)), 4096);
        assert_eq!(fetched(&store, || read(900_020, 100)), 0, "it is here now");
        assert_eq!(fetched(&store, || read(175 * 4096, 4096)), 4096);
        assert_eq!(fetched(&store, || read(150 * 4096 - 1, 2)), 2 * 4096);
        assert_eq!(fetched(&store, || read(120 * 4096 - 100, 4096)), 2 * 4096, "over the end of a frame");
        assert_eq!(fetched(&store, || read(68 * 4096, 30_000)), 64 * 1024, "a large read takes frames");
        let two = || [40 * 4096, 40 * 4096 + 6000].into_iter().for_each(|offset| read(offset, 10));
        assert_eq!(fetched(&store, two), 2 * 4096, "two that follow each other are no sequential reader");
        // A change of a part needs the rest of its frame, and only that.
        let write = || volume.write(file, 20_000, &[1; 100], false).unwrap();
        assert_eq!(fetched(&store, write), 32 * 1024);
        volume.close().stored().unwrap();

        let volume = open(&store, "third");
        let mut changed = content.clone();
        changed[20_000..20_100].fill(1);
        assert_eq!(flatten(&volume.read(file, 20_050, 100).unwrap()), changed[20_050..20_150]);
        assert_eq!(read_file(&volume, file), changed);
        assert_eq!(read_file(&volume, short), content[..10_000]);
    });
}

#[test]
fn programs_that_know_no_segments_are_told_from_the_first_on() {
    reactor::run(|| {
        let store = TestStore::new();
        let volume = create(&store);
        let flags = || {
            use dht::BlockStore;
            let record = store.memory.read(&keys(&store).register).unwrap().unwrap();
            let root = open_root(&record.payload, record.version, &keys(&store).secret).unwrap();
            root.charter.features.incompatible
        };
        write_file(&volume, ROOT, "in a leaf", &[7; 1000]);
        volume.sync(None, false).unwrap();
        assert_eq!(flags() & Features::SEGMENTS, 0, "there is none yet");
        let file = write_file(&volume, ROOT, "in a frame", &[7; 3000]);
        volume.sync(None, false).unwrap();
        assert_eq!(flags(), Features::SEGMENTS);
        volume.unlink(ROOT, b"in a frame").unwrap();
        volume.forget(file, 1);
        volume.close().stored().unwrap();
        assert_eq!(flags(), Features::SEGMENTS, "for good");
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Whatever is read in whatever order and with however little memory, and whatever the frames' size.
    #[test]
    fn segments_frames_and_changes_are_one_content(
        exponent in 12u32..18,
        cache_kibibytes in 400usize..2000,
        steps in prop::collection::vec((any::<bool>(), 0u32..400_000, 1u32..40_000), 1..60),
    ) {
        reactor::run(move || {
            let store = TestStore::new();
            let volume = create(&store);
            let frame_size = (1u32 << exponent).to_string();
            let name = b"user.hypha.frame_size";
            volume.set_xattr(ROOT, name, frame_size.as_bytes(), XattrMode::Set).unwrap();
            let mut model = content(300_000);
            let file = write_file(&volume, ROOT, "file", &model);
            volume.close().stored().unwrap();
            let mut options = options("second");
            options.cache_bytes = cache_kibibytes << 10;
            let volume = Volume::open(store.clone(), keys(&store), options).unwrap();
            for (is_write, offset, size) in steps {
                let range = offset as usize..(offset + size) as usize;
                if is_write {
                    let bytes = vec![size as u8; size as usize / 8 + 1];
                    let end = range.start + bytes.len();
                    volume.write(file, u64::from(offset), &bytes, false).unwrap();
                    model.resize(model.len().max(end), 0);
                    model[range.start..end].copy_from_slice(&bytes);
                    if size % 3 == 0 {
                        volume.sync(None, false).unwrap();
                    }
                } else {
                    let read = flatten(&volume.read(file, u64::from(offset), size).unwrap());
                    let end = range.end.min(model.len());
                    assert!(read == model[range.start.min(end)..end], "{range:?}");
                }
            }
            assert!(read_file(&volume, file) == model);
            volume.close().stored().unwrap();
        });
    }
}
