//! Over a real directory and a store in memory that counts what it is asked.

use std::os::unix::fs::MetadataExt;

use dht::MemoryBlockStore;
use dht::block_store::{BlockStore, GetError, RegisterAddress};

use super::*;

const KEY: [u8; 32] = [3; 32];

fn blocks(store: &dyn BlockStore, count: u32, size: usize) -> Vec<Address> {
    (0..count).map(|number| store.put(content(number, size)).unwrap()).collect()
}

fn content(number: u32, size: usize) -> Bytes {
    (0..size).map(|at| (at as u32 ^ number.wrapping_mul(0x9e37_79b9)) as u8).collect::<Vec<_>>().into()
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let of =
        |queue: &str| std::fs::read_dir(directory.join(queue)).unwrap().map(|entry| entry.unwrap().path());
    of("small").chain(of("main")).chain(of("pinned")).collect()
}

fn disk_bytes(directory: &Path) -> u64 {
    let of = |path: &Path| std::fs::metadata(path).map_or(0, |metadata| metadata.blocks() * 512);
    let parts =
        [directory.to_owned(), directory.join("small"), directory.join("main"), directory.join("pinned")];
    parts.iter().chain(&files(directory)).map(|path| of(path)).sum()
}

fn over(store: &Rc<MemoryBlockStore>, cache: &Rc<DiskCache>) -> CachedStore {
    CachedStore::new(store.clone(), cache.root(&RegisterAddress([7; 32]), "the drive"), None)
}

fn settle(cache: &DiskCache) {
    while !cache.is_idle.get() || !cache.waiting.borrow().is_empty() {
        cache.idle.wait();
    }
}

#[test]
fn what_was_read_is_there_after_a_restart_and_a_kill_and_no_flipped_bit_is_believed() {
    let directory = tempfile::tempdir().unwrap();
    reactor::run(|| {
        let store = Rc::new(MemoryBlockStore::new());
        let addresses = blocks(&*store, 4, 100_000);
        let cache = DiskCache::open(directory.path(), "client", KEY, SIZE_BYTES_MIN);
        for address in &addresses {
            over(&store, &cache).get(address, Some(10..70_000)).unwrap();
        }
        settle(&cache);
        assert_eq!((cache.figures().hits, cache.figures().misses), (0, 4));
        // As after SIGKILL: nothing is closed, and the kernel drops the lock.
        cache.writer.take().unwrap().terminate();
        drop(cache.lock.take());

        let nothing = Rc::new(MemoryBlockStore::new());
        let cache = DiskCache::open(directory.path(), "client", KEY, SIZE_BYTES_MIN);
        let offline = over(&nothing, &cache);
        for (number, address) in addresses.iter().enumerate() {
            let got = offline.get(address, Some(32_000..66_000)).unwrap();
            assert_eq!(got, content(number as u32, 100_000).slice(32_000..66_000));
            assert!(matches!(offline.get(address, Some(0..20)), Err(GetError::NotFound(_))));
        }
        assert_eq!((cache.figures().hits, cache.figures().misses), (4, 4));
        for path in files(directory.path()) {
            let mut bytes = std::fs::read(&path).unwrap();
            bytes[40_000] ^= 4;
            std::fs::write(&path, bytes).unwrap();
        }
        // The piece that was flipped, and then the whole entry, which is gone.
        for range in [33_000..34_000, 10..11] {
            assert!(addresses.iter().all(|address| offline.get(address, Some(range.clone())).is_err()));
        }
        assert_eq!((cache.figures().size_bytes, files(directory.path()).len()), (0, 0));
        // From the nodes again, and kept again.
        let online = over(&store, &cache);
        assert_eq!(online.get(&addresses[0], Some(0..9)).unwrap(), content(0, 100_000).slice(0..9));
        settle(&cache);
        assert_eq!(files(directory.path()).len(), 1);
        cache.close();
    });
}

#[test]
fn the_bound_holds_on_the_disk_and_what_was_used_stays() {
    let directory = tempfile::tempdir().unwrap();
    reactor::run(|| {
        let store = Rc::new(MemoryBlockStore::new());
        let cache = DiskCache::open(directory.path(), "client", KEY, SIZE_BYTES_MIN);
        let cached = over(&store, &cache);
        let used = cached.put(content(9999, 50_000)).unwrap();
        settle(&cache);
        cached.get(&used, Some(0..10)).unwrap();
        for number in 0..400 {
            cached.put(content(number, 1000 + 200 * number as usize)).unwrap();
            settle(&cache);
            if number % 20 == 0 {
                assert!(disk_bytes(directory.path()) <= SIZE_BYTES_MIN);
            }
        }
        assert!(cache.figures().size_bytes > SIZE_BYTES_MIN / 2);
        assert!(disk_bytes(directory.path()) <= SIZE_BYTES_MIN);
        let misses = cache.figures().misses;
        cached.get(&used, Some(0..10)).unwrap();
        assert_eq!(cache.figures().misses, misses);
        cache.close();
    });
}

#[test]
fn a_second_one_reads_what_the_first_took_in_and_follows_it() {
    let directory = tempfile::tempdir().unwrap();
    reactor::run(|| {
        let store = Rc::new(MemoryBlockStore::new());
        let addresses = blocks(&*store, 3, 5000);
        let first = DiskCache::open(directory.path(), "client", KEY, SIZE_BYTES_MIN);
        over(&store, &first).get(&addresses[0], Some(0..5000)).unwrap();
        settle(&first);
        let second = DiskCache::open(directory.path(), "client", KEY, SIZE_BYTES_MIN);
        assert!(first.is_owner() && !second.is_owner());
        over(&store, &second).get(&addresses[0], Some(0..5000)).unwrap();
        assert_eq!(second.figures().hits, 1);
        over(&store, &first).get(&addresses[1], Some(0..5000)).unwrap();
        settle(&first);
        first.close();
        // Whatever it had not heard of is there at its next look, and then it is the one that takes in.
        while !second.is_owner() {
            over(&store, &second).get(&addresses[2], Some(0..5000)).unwrap();
            reactor::sleep(Duration::from_millis(100));
        }
        settle(&second);
        let hits = second.figures().hits;
        over(&store, &second).get(&addresses[1], Some(0..5000)).unwrap();
        over(&store, &second).get(&addresses[2], Some(0..5000)).unwrap();
        assert_eq!(second.figures().hits, hits + 2);
        second.close();
    });
}

#[test]
fn a_disk_that_takes_nothing_stops_nothing() {
    let directory = tempfile::tempdir().unwrap();
    reactor::run(|| {
        let store = Rc::new(MemoryBlockStore::new());
        let cache = DiskCache::open(directory.path(), "client", KEY, SIZE_BYTES_MIN);
        std::fs::remove_dir_all(directory.path()).unwrap();
        let cached = over(&store, &cache);
        let address = cached.put(content(1, 5000)).unwrap();
        settle(&cache);
        assert!(cache.is_off.get() && !cache.is_owner(), "another may try");
        assert_eq!(cached.get(&address, Some(0..5000)).unwrap(), content(1, 5000));
        cache.close();
        // Nor does one that was never there.
        let file = tempfile::NamedTempFile::new().unwrap();
        let cache = DiskCache::open(&file.path().join("below"), "client", KEY, SIZE_BYTES_MIN);
        assert_eq!(over(&store, &cache).get(&address, Some(0..10)).unwrap(), content(1, 10));
        cache.close();
    });
}

#[test]
fn what_was_read_in_pieces_is_read_whole_where_no_node_answers() {
    let directory = tempfile::tempdir().unwrap();
    reactor::run(|| {
        let store = Rc::new(MemoryBlockStore::new());
        let address = store.put(content(5, 300_000)).unwrap();
        let cache = DiskCache::open(directory.path(), "client", KEY, SIZE_BYTES_MIN);
        for start in (0..300_000).step_by(50_000) {
            over(&store, &cache).get(&address, Some(start..start + 50_000)).unwrap();
        }
        settle(&cache);
        let nothing = Rc::new(MemoryBlockStore::new());
        for range in [0..300_000, 40_000..160_001, 299_999..300_000] {
            let expected = content(5, 300_000).slice(range.start as usize..range.end as usize);
            assert_eq!(over(&nothing, &cache).get(&address, Some(range)).unwrap(), expected);
        }
        cache.close();
    });
}

#[test]
fn a_lower_bound_is_kept_although_more_was_pinned() {
    let directory = tempfile::tempdir().unwrap();
    reactor::run(|| {
        let store = Rc::new(MemoryBlockStore::new());
        let addresses = blocks(&*store, 20, 1_000_000);
        let cache = DiskCache::open(directory.path(), "client", KEY, 4 * SIZE_BYTES_MIN);
        let pinning = PinningStore::new(Rc::new(over(&store, &cache)));
        for address in &addresses {
            pinning.get(address, Some(0..1_000_000)).unwrap();
        }
        let noted = pinning.take_noted();
        assert!(
            pinning.take_failure().is_none() && cache.has_pinned(&noted) && cache.pinned_bytes() > 20_000_000
        );
        cache.close();
        let cache = DiskCache::open(directory.path(), "client", KEY, SIZE_BYTES_MIN);
        assert!(!cache.has_pinned(&noted) && cache.pinned_bytes() > 0);
        assert!(disk_bytes(directory.path()) <= SIZE_BYTES_MIN);
        // Nor do they fit any more.
        let pinning = PinningStore::new(Rc::new(over(&store, &cache)));
        for address in &addresses {
            pinning.get(address, Some(0..1_000_000)).unwrap();
        }
        assert!(pinning.take_failure() == Some(PinFailure::NoRoom) && cache.pinned_bytes() <= SIZE_BYTES_MIN);
        assert!(disk_bytes(directory.path()) <= SIZE_BYTES_MIN);
        cache.close();
    });
}

/// What is written here lies in objects of a MiB. A node of the tree, or a small file, had the whole of each pinned that it had a part
/// of: a pin that had been promised room never got it.
#[test]
fn what_is_pinned_takes_what_is_needed_and_not_the_objects_that_it_lies_in() {
    let directory = tempfile::tempdir().unwrap();
    reactor::run(|| {
        let store = Rc::new(MemoryBlockStore::new());
        let cache = DiskCache::open(directory.path(), "client", KEY, SIZE_BYTES_MIN);
        let (files, size) = (40, 100_000);
        assert!(pinned_bytes_about(files, files * size) <= pins_bytes_max(SIZE_BYTES_MIN), "it is promised");
        let pinning = PinningStore::new(Rc::new(over(&store, &cache)));
        for number in 0..files as u32 {
            // As a commit leaves it.
            let address = over(&store, &cache).put(content(number, 1_000_000)).unwrap();
            settle(&cache);
            let range = 300_000..300_000 + size as u32;
            let expected = content(number, 1_000_000).slice(300_000..300_000 + size as usize);
            for _ in 0..2 {
                assert_eq!(pinning.get(&address, Some(range.clone())).unwrap(), expected);
            }
        }
        assert_eq!(pinning.take_failure(), None);
        assert!(cache.has_pinned(&pinning.take_noted()));
        assert!(cache.pinned_bytes() <= pinned_bytes_about(files, files * size));
        assert!(disk_bytes(directory.path()) <= SIZE_BYTES_MIN);
        cache.close();
    });
}

fn record(version: u64) -> dht::Record {
    dht::Record {
        version,
        payload: vec![version as u8; 100].into(),
        header_hash: dht::HeaderHash([version as u8; 32]),
        writer: dht::PublicKey::from_bytes([9; 32]),
    }
}

fn versions(root: &KeptRoot) -> Vec<u64> {
    root.kept().into_iter().map(|record| record.version).collect()
}

/// What could not be opened once, for want of a descriptor, was gone with the end of the mount that had begun with an older one; and
/// with it what this machine knew of having seen it.
#[test]
fn an_end_without_the_nodes_keeps_the_newest_root_whatever_was_opened() {
    let directory = tempfile::tempdir().unwrap();
    let register = RegisterAddress([7; 32]);
    reactor::run(|| {
        let cache = DiskCache::open(directory.path(), "client", KEY, SIZE_BYTES_MIN);
        let root = cache.root(&register, "the drive");
        root.note_root(&register, &record(7));
        root.note_taken_over(7);
        root.note_root(&register, &record(8));
        cache.close();
        for _ in 0..2 {
            let cache = DiskCache::open(directory.path(), "client", KEY, SIZE_BYTES_MIN);
            let root = cache.root(&register, "the drive");
            assert_eq!(versions(&root), [8, 7]);
            root.tell_opened_without(&record(7));
            root.note_taken_over(7);
            assert!(root.keep(8), "that it was seen may be written down: it is here");
            cache.close();
        }
        let cache = DiskCache::open(directory.path(), "client", KEY, SIZE_BYTES_MIN);
        let root = cache.root(&register, "the drive");
        assert_eq!(versions(&root), [8, 7]);
        // An older state is accepted: that one is kept from now on.
        cache.forget_roots(&register);
        root.note_root(&register, &record(6));
        assert!(root.keep(6) && !root.keep(8));
        assert_eq!(versions(&root), [6]);
        cache.close();
    });
}

/// A mount saw a newer root and was cut off before it had its tree: within two seconds the root that all was here of was gone.
#[test]
fn a_root_that_was_only_seen_takes_no_place_of_one_that_was_gone_on_from() {
    let directory = tempfile::tempdir().unwrap();
    let register = RegisterAddress([7; 32]);
    reactor::run(|| {
        let cache = DiskCache::open(directory.path(), "client", KEY, SIZE_BYTES_MIN);
        let root = cache.root(&register, "the drive");
        assert!(!root.keep(1), "nothing was seen yet");
        root.note_root(&register, &record(5));
        root.note_taken_over(5);
        assert!(root.keep(5));
        assert_eq!(versions(&root), [5]);
        // Seen, and again, and gone on from only then.
        for seen in [6, 7] {
            root.note_root(&register, &record(seen));
            assert!(root.keep(seen));
            assert_eq!(versions(&root), [seen, 5]);
        }
        root.note_taken_over(7);
        root.note_root(&register, &record(8));
        // The end of a mount keeps what is newest, and beside it what its volume stood on.
        cache.close();
        assert_eq!(versions(&root), [8, 7]);
        // As the next start opens it, and is cut off in its turn.
        let cache = DiskCache::open(directory.path(), "client", KEY, SIZE_BYTES_MIN);
        let root = cache.root(&register, "the drive");
        root.note_known(8);
        root.tell_opened_without(&record(7));
        root.note_taken_over(7);
        root.note_root(&register, &record(9));
        assert!(root.keep(9));
        assert_eq!(versions(&root), [9, 7]);
        cache.close();
    });
}

/// A mount was killed right after a sync was answered: its start without the nodes was at what it had stored up to two seconds before.
#[test]
fn what_was_published_is_here_with_its_root_when_that_is_answered() {
    let directory = tempfile::tempdir().unwrap();
    reactor::run(|| {
        let store = Rc::new(MemoryBlockStore::new());
        let register = store.new_register([7; 32]);
        let mut expected = None;
        for version in 1..=6u32 {
            let cache = DiskCache::open(directory.path(), "client", KEY, SIZE_BYTES_MIN);
            let cached = CachedStore::new(store.clone(), cache.root(&register, "the drive"), None);
            // Frames go before, and wait to be taken in when the root is published.
            let frame = cached.put(content(100 + version, 400_000)).unwrap();
            let content = content(version, 5000);
            let block = Address::of(&store.tag(), &content);
            let payload = vec![version as u8; 300].into();
            let published = cached.publish(vec![(block, content)], &register, expected, payload).unwrap();
            expected = Some(published.header_hash);
            // As after SIGKILL: whatever waits is not taken in any more.
            cache.writer.take().unwrap().terminate();
            drop(cache.lock.take());

            let cache = DiskCache::open(directory.path(), "client", KEY, SIZE_BYTES_MIN);
            let root = cache.root(&register, "the drive");
            assert_eq!(root.kept().first(), Some(&published));
            let offline = CachedStore::new(Rc::new(MemoryBlockStore::new()), root, None);
            assert!(
                offline.get(&block, Some(0..5000)).is_ok() && offline.get(&frame, Some(0..400_000)).is_ok()
            );
            cache.writer.take().unwrap().terminate();
            drop(cache.lock.take());
        }
    });
}
