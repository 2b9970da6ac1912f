//! Two writers race for the root. Content is stored once however often its commit loses; a writer that syncs all the time
//! does not keep another's large copy from being committed; and an answer that was lost is not a race that was lost.

mod common;

use common::*;
use filesystem::{Ending, Operations, Volume};
use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

#[test]
fn a_large_copy_gets_through_beside_one_who_syncs_all_the_time_and_is_stored_once() {
    reactor::run(|| {
        const SIZE: usize = 32 << 20;
        let store = TestStore::new();
        // A debug build on a busy machine takes its time over 32 MiB, and no impatience is to be what ends a sync here.
        let patient = |author| {
            let mut options = options(author);
            options.sync_patience = Duration::from_secs(300);
            options
        };
        let busy = Volume::create(store.clone(), keys(&store), patient("first"), (1000, 1000)).unwrap();
        let copying = Volume::open(store.clone(), keys(&store), patient("copying")).unwrap();
        let small = write_file(&busy, ROOT, "small", b"0000");
        busy.sync(None, false).unwrap();
        let done = Rc::new(Cell::new(false));
        let syncing = reactor::spawn({
            let done = done.clone();
            move || {
                let mut syncs = 0u64;
                while !done.get() {
                    busy.write(small, 0, &(syncs as u32).to_le_bytes(), false).unwrap();
                    busy.sync(Some(small), false).unwrap();
                    syncs += 1;
                }
                (busy, syncs)
            }
        });
        let before = store.put_bytes.get();
        let file = make_file(&copying, ROOT, "large").inode;
        for at in 0..SIZE >> 20 {
            copying.write(file, (at << 20) as u64, &vec![at as u8 + 1; 1 << 20], false).unwrap();
            reactor::yield_now();
        }
        // While the other goes on.
        copying.sync(Some(file), false).unwrap();
        done.set(true);
        let (busy, syncs) = syncing.join().unwrap();
        let put = store.put_bytes.get() - before;
        // What the other's syncs stored is some nodes each.
        let most = 2 * SIZE as u64 + syncs * 32 * 1024;
        assert!(put < most, "{put} bytes were stored for {SIZE}, beside {syncs} small syncs");
        assert_eq!((busy.close(), copying.close()), (Ending::Stored, Ending::Stored));
        let volume = open(&store, "third");
        assert_eq!(names(&volume, ROOT), ["large", "small"]);
        let content = read_file(&volume, file);
        assert!(content.iter().enumerate().all(|(at, byte)| *byte == (at >> 20) as u8 + 1));
    });
}

#[test]
fn a_commit_whose_answer_was_lost_is_not_put_on_top_of_what_others_did_since() {
    reactor::run(|| {
        let store = TestStore::new();
        let (volume, other) = (create(&store), open(&store, "other"));
        let file = write_file(&volume, ROOT, "file", &[1; 100_000]);
        write_file(&volume, ROOT, "removed", b"1");
        let rewriting = other.clone();
        *store.after_swap.borrow_mut() = Some(Box::new(move || {
            // It sees the commit that its writer does not know of yet, and goes on from there.
            write_file(&rewriting, ROOT, "others", b"2");
            rewriting.sync(None, false).unwrap();
            rewriting.write(file, 0, &[2; 100_000], false).unwrap();
            rewriting.unlink(ROOT, b"removed").unwrap();
            rewriting.sync(None, false).unwrap();
        }));
        volume.sync(None, false).unwrap();
        assert!(store.after_swap.borrow().is_none());
        write_file(&volume, ROOT, "more", b"3");
        volume.sync(None, false).unwrap();
        assert_eq!(names(&volume, ROOT), ["file", "more", "others"]);
        assert!(read_file(&volume, file) == [2; 100_000]);
        assert_eq!((volume.close(), other.close()), (Ending::Stored, Ending::Stored));
        assert!(read_file(&open(&store, "third"), file) == [2; 100_000]);
    });
}
