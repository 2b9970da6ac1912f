//! A database changes the same pages again and again, and each commit replaces the frames and nodes of the one before. Nothing
//! points to those any more: kept, they took the room of what is read beside it, and memory that had just been let go was
//! not there for the next commit.

mod common;

use common::*;
use filesystem::{Operations, Volume};

#[test]
fn what_was_read_stays_at_hand_while_another_file_is_rewritten_over_and_over() {
    reactor::run(|| {
        let store = TestStore::new();
        let volume = create(&store);
        let content: Vec<u8> = (0..300_000u32).map(|at| (at >> 8) as u8 ^ (at % 251) as u8).collect();
        let read = write_file(&volume, ROOT, "read", &content);
        let rewritten = write_file(&volume, ROOT, "rewritten", &content[..20_000]);
        volume.close().stored().unwrap();

        let mut options = options("second");
        options.cache_bytes = 1 << 20;
        let volume = Volume::open(store.clone(), keys(&store), options).unwrap();
        assert_eq!(read_file(&volume, read), content);
        let before = store.got_bytes.get();
        for round in 0..60u8 {
            volume.write(rewritten, u64::from(round) * 100, &[round; 100], false).unwrap();
            volume.sync(Some(rewritten), false).unwrap();
        }
        let needed = store.got_bytes.get() - before;
        assert!(needed < 40_000, "the frame that is changed, and no node twice: {needed}");
        let before = store.got_bytes.get();
        assert_eq!(read_file(&volume, read), content);
        assert_eq!(store.got_bytes.get() - before, 0);
        volume.close().stored().unwrap();
    });
}
