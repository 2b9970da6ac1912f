//! A store that fills up: whoever writes hears of it then, and not from a commit later that nobody listens to. What was
//! acknowledged is stored, all of it; removing goes on; and when there is space again the drive works again.

mod common;

use common::*;
use filesystem::operations::{SetAttributes, XattrMode};
use filesystem::{Ending, Errno, Operations};
use std::time::Duration;

const PIECE: usize = 1 << 20;

#[test]
fn what_was_acknowledged_fits() {
    reactor::run(|| {
        let store = TestStore::new();
        let volume = create(&store);
        store.memory.set_capacity_bytes(40 << 20);
        let small = write_file(&volume, ROOT, "small", b"small");
        let mut acknowledged = Vec::new();
        let full = 'filling: loop {
            let file = make_file(&volume, ROOT, &format!("file {}", acknowledged.len())).inode;
            let mut pieces = 0;
            acknowledged.push((file, 0));
            while pieces < 7 {
                let piece = vec![pieces as u8 + 1; PIECE];
                match volume.write(file, (pieces * PIECE) as u64, &piece, false) {
                    Ok(()) => pieces += 1,
                    Err(errno) => break 'filling errno,
                }
                acknowledged.last_mut().unwrap().1 = pieces;
                // Somebody who commits nothing on purpose.
                reactor::yield_now();
            }
        };
        assert_eq!(full, Errno::ENOSPC);
        let stored: usize = acknowledged.iter().map(|(_, pieces)| pieces).sum();
        assert!(stored > 25, "{stored} MiB of 40 were taken");
        volume.sync(None, false).expect("what was acknowledged fits");

        // Removing, and all that belongs to it, goes on.
        let (first, _) = acknowledged.remove(0);
        volume.unlink(ROOT, b"file 0").unwrap();
        volume.set_attributes(small, &SetAttributes { size: Some(0), ..SetAttributes::default() }).unwrap();
        volume.sync(None, false).unwrap();
        assert!(volume.attributes(first).is_err());
        assert_eq!(volume.write(small, 0, &[0; PIECE], false), Err(Errno::ENOSPC));

        // As after nodes have collected what nobody names any more.
        store.memory.set_capacity_bytes(80 << 20);
        while volume.write(small, 0, &[9; PIECE], false) == Err(Errno::ENOSPC) {
            reactor::sleep(Duration::from_millis(20));
        }
        assert_eq!(volume.close(), Ending::Stored);
        let volume = open(&store, "second");
        assert_eq!(read_file(&volume, small), [9; PIECE]);
        for (file, pieces) in acknowledged {
            let content = read_file(&volume, file);
            assert_eq!(content.len(), pieces * PIECE);
            assert!(content.iter().enumerate().all(|(at, byte)| *byte == (at / PIECE) as u8 + 1));
        }
    });
}

#[test]
fn changes_of_every_kind_wait_for_memory_and_fail_in_time_while_the_nodes_are_away() {
    reactor::run(|| {
        let store = TestStore::new();
        let volume = {
            let mut options = options("first");
            options.dirty_bytes_max = 400_000;
            filesystem::Volume::create(store.clone(), keys(&store), options, (0, 0)).unwrap()
        };
        let file = write_file(&volume, ROOT, "file", b"content");
        volume.sync(None, false).unwrap();
        store.budget.set(0);
        let mut name = 0;
        let refused = loop {
            name += 1;
            let xattr = format!("user.{name}");
            if let Err(errno) = volume.set_xattr(file, xattr.as_bytes(), &[7; 60_000], XattrMode::Set) {
                break errno;
            }
        };
        assert_eq!((refused, name), (Errno::ETIMEDOUT, 8));
        let times = SetAttributes { mode: Some(0o600), ..SetAttributes::default() };
        assert_eq!(volume.set_attributes(file, &times), Err(Errno::ETIMEDOUT));
        assert_eq!(volume.link(file, ROOT, b"other"), Err(Errno::ETIMEDOUT));
        assert_eq!(volume.unlink(ROOT, b"file"), Err(Errno::ETIMEDOUT));
        assert_eq!(read_file(&volume, file), b"content", "what is here is read as ever");
        let pending = volume.pending();
        assert!(pending.bytes >= 400_000 && pending.trouble.is_some(), "{pending:?}");
        store.budget.set(u64::MAX);
        while volume.unlink(ROOT, b"file") == Err(Errno::ETIMEDOUT) {}
        assert!(names(&volume, ROOT).is_empty());
        assert_eq!(volume.close(), Ending::Stored);
    });
}
