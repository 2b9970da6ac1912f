//! One mount removes what a program has open at another, and whatever either does then, the program reads on.

mod common;

use std::rc::Rc;

use common::*;
use filesystem::operations::{Invalidation, RenameFlags, SetAttributes};
use filesystem::{Errno, Inode, Operations, Volume};

/// Makes both see all that either did.
fn settle(volumes: &[&Rc<Volume>]) {
    for _ in 0..3 {
        for volume in volumes {
            volume.set_attributes(ROOT, &SetAttributes::default()).unwrap();
            volume.sync(None, false).unwrap();
        }
    }
}

/// As programs see it whose kernel has looked the file up.
fn hold(volume: &Volume, name: &str) -> Inode {
    let inode = volume.lookup(ROOT, name.as_bytes()).unwrap().inode;
    volume.remember(inode);
    inode
}

/// Waits until the reclaimer has had its turns.
fn let_reclaim(volumes: &[&Rc<Volume>]) {
    for _ in 0..200 {
        reactor::yield_now();
    }
    settle(volumes);
}

#[test]
fn an_open_file_that_another_mount_removed_reads_on() {
    reactor::run(|| {
        let store = TestStore::new();
        let first = create(&store);
        let content: Vec<u8> = (0..300_000u32).map(|number| number as u8).collect();
        write_file(&first, ROOT, "log", &content);
        let second = {
            first.sync(None, false).unwrap();
            open(&store, "second")
        };
        let held = hold(&second, "log");
        first.unlink(ROOT, b"log").unwrap();
        let_reclaim(&[&first, &second]);
        assert_eq!(first.attributes(held), Err(Errno::ENOENT), "nothing of it is left there");
        assert_eq!(second.lookup(ROOT, b"log"), Err(Errno::ENOENT));
        assert_eq!(second.attributes(held).unwrap().nlink, 0);
        assert_eq!(read_file(&second, held), content);
        // It may even be written to: from then on it is an orphan of the mount that has it open.
        second.write(held, 5, b"after all", false).unwrap();
        let_reclaim(&[&first, &second]);
        first.close().stored().unwrap();
        let mut expected = content;
        expected[5..14].copy_from_slice(b"after all");
        assert_eq!(read_file(&second, held), expected);
        second.forget(held, 1);
        for _ in 0..200 {
            reactor::yield_now();
        }
        assert_eq!(second.attributes(held), Err(Errno::ENOENT), "and it goes when it is closed");
    });
}

#[test]
fn what_an_editor_replaced_reads_on_where_it_is_open() {
    reactor::run(|| {
        let store = TestStore::new();
        let first = create(&store);
        write_file(&first, ROOT, "notes", b"old");
        first.sync(None, false).unwrap();
        let second = open(&store, "second");
        let held = hold(&second, "notes");
        write_file(&first, ROOT, "notes~", b"new");
        first.rename(ROOT, b"notes~", ROOT, b"notes", RenameFlags::default()).unwrap();
        let_reclaim(&[&first, &second]);
        assert_eq!(read_file(&second, held), b"old");
        let named = second.lookup(ROOT, b"notes").unwrap().inode;
        assert_eq!(read_file(&second, named), b"new");
        let changed = SetAttributes { size: Some(2), ..SetAttributes::default() };
        assert_eq!(second.set_attributes(held, &changed).unwrap().size, 2);
        assert_eq!(read_file(&second, held), b"ol");
    });
}

#[test]
fn a_mount_that_ends_leaves_what_another_has_open() {
    reactor::run(|| {
        let store = TestStore::new();
        let first = create(&store);
        write_file(&first, ROOT, "temporary", &[7; 100_000]);
        first.sync(None, false).unwrap();
        let held = hold(&first, "temporary");
        first.unlink(ROOT, b"temporary").unwrap();
        first.sync(None, false).unwrap();
        // It sees an orphan that is not its own: at its opening, when its kernel forgets the file, and at its end.
        let second = open(&store, "second");
        second.remember(held);
        second.forget(held, 1);
        let_reclaim(&[&second, &first]);
        second.close().stored().unwrap();
        settle(&[&first]);
        assert_eq!(read_file(&first, held), [7; 100_000]);
        first.close().stored().unwrap();
        assert_eq!(open(&store, "third").attributes(held), Err(Errno::ENOENT), "it went with its mount");
    });
}

#[test]
fn a_file_that_both_removed_stays_open_on_both_sides() {
    reactor::run(|| {
        let store = TestStore::new();
        let first = create(&store);
        write_file(&first, ROOT, "both", &[1; 50_000]);
        first.sync(None, false).unwrap();
        let second = open(&store, "second");
        let held = hold(&first, "both");
        assert_eq!(hold(&second, "both"), held);
        for (volume, byte) in [(&first, 2), (&second, 3)] {
            volume.unlink(ROOT, b"both").unwrap();
            volume.write(held, 0, &[byte; 10], false).unwrap();
        }
        let_reclaim(&[&first, &second]);
        for (volume, byte) in [(&first, 2), (&second, 3)] {
            let expected = [vec![byte; 10], vec![1; 49_990]].concat();
            assert_eq!(read_file(volume, held), expected, "each sees what was written there");
            volume.forget(held, 1);
        }
        let_reclaim(&[&first, &second]);
        assert_eq!(names(&open(&store, "third"), ROOT), Vec::<String>::new());
    });
}

/// Stores what `late` changed before it heard of anything, and returns all names once the others know.
fn merge_late(late: &Rc<Volume>, others: &[&Rc<Volume>]) -> Vec<String> {
    settle(&[late]);
    settle(others);
    names(late, ROOT)
}

#[test]
fn a_removed_file_that_comes_back_is_another_than_the_one_that_is_open() {
    reactor::run(|| {
        for is_changed_before in [false, true] {
            let store = TestStore::new();
            let first = create(&store);
            write_file(&first, ROOT, "plan", &[1; 100_000]);
            first.sync(None, false).unwrap();
            let (second, late) = (open(&store, "second"), open(&store, "late"));
            let held = hold(&second, "plan");
            late.write(late.lookup(ROOT, b"plan").unwrap().inode, 0, &[2; 100], false).unwrap();
            first.unlink(ROOT, b"plan").unwrap();
            let_reclaim(&[&first, &second]);
            if is_changed_before {
                second.write(held, 50_000, &[3; 10], false).unwrap();
            }
            let found = merge_late(&late, &[&second, &first]);
            assert_eq!(found.len(), 1, "{found:?}");
            second.write(held, 50_000, &[3; 10], false).unwrap();
            let ghost = [vec![1; 50_000], vec![3; 10], vec![1; 49_990]].concat();
            let live = [vec![2; 100], vec![1; 99_900]].concat();
            for round in 0..3 {
                let_reclaim(&[&second, &late, &first]);
                for volume in [&first, &second, &late, &open(&store, "fourth")] {
                    assert_eq!(names(volume, ROOT), found);
                    let shown = volume.lookup(ROOT, found[0].as_bytes()).unwrap();
                    assert_eq!(shown.nlink, 1);
                    assert!(read_file(volume, shown.inode) == live, "what was stored late is there");
                }
                match round {
                    0 => assert!(read_file(&second, held) == ghost, "the open file goes on as it was"),
                    1 => second.forget(held, 1),
                    _ => {
                        assert_eq!(second.attributes(held), Err(Errno::ENOENT), "and goes when it is closed")
                    }
                }
            }
        }
    });
}

#[test]
fn a_removed_directory_that_comes_back_is_the_one_that_is_open() {
    reactor::run(|| {
        let store = TestStore::new();
        let first = create(&store);
        let directory = first.make_directory(ROOT, b"trip", 0o755, &USER).unwrap().inode;
        first.sync(None, false).unwrap();
        let (second, late) = (open(&store, "second"), open(&store, "late"));
        let held = hold(&second, "trip");
        write_file(&late, directory, "photo", b"sea");
        first.remove_directory(ROOT, b"trip").unwrap();
        let_reclaim(&[&first, &second]);
        assert_eq!(second.attributes(held).unwrap().nlink, 0);
        assert_eq!(merge_late(&late, &[&second, &first]), ["trip"]);
        assert_eq!(names(&second, held), ["photo"]);
        write_file(&second, held, "note", b"warm");
        settle(&[&second, &first]);
        assert_eq!(names(&first, directory), ["note", "photo"]);
    });
}

#[test]
fn the_kernel_hears_of_everything_however_much_changed() {
    reactor::run(|| {
        const COUNT: usize = 30_000;
        let store = TestStore::new();
        store.yields.set(false);
        let first = create(&store);
        let file = write_file(&first, ROOT, "file", b"old");
        first.sync(None, false).unwrap();
        let mut options = options("second");
        // Less than the directory's leaves take.
        options.cache_bytes = 256 * 1024;
        options.sync_patience = std::time::Duration::from_secs(300);
        let second = Volume::open(store.clone(), keys(&store), options).unwrap();
        for number in 0..COUNT {
            make_file(&first, ROOT, &format!("name {number}"));
        }
        first.write(file, 0, b"new", false).unwrap();
        first.sync(None, false).unwrap();
        settle(&[&second]);
        let (mut names, mut inodes) = (0, 0);
        let mut has_file = false;
        while second.has_invalidations() {
            match second.next_invalidation() {
                Some(Invalidation::Entry(ROOT, _)) => names += 1,
                Some(Invalidation::Inode(inode)) => {
                    inodes += 1;
                    has_file |= inode == file;
                }
                _ => break,
            }
            if names >= COUNT && inodes >= COUNT + 2 {
                break;
            }
        }
        assert_eq!((names, inodes, has_file), (COUNT, COUNT + 2, true));
    });
}

#[test]
fn what_was_cut_off_an_open_file_stays_off_after_another_mount_removed_it() {
    reactor::run(|| {
        /// Far more than goes in one step, so that most of the truncation is left to others.
        const FRAMES: u64 = 4000;
        const FRAME_SIZE: u64 = 32 * 1024;
        let store = TestStore::new();
        let first = create(&store);
        let file = make_file(&first, ROOT, "log").inode;
        for frame in 0..FRAMES {
            first.write(file, frame * FRAME_SIZE, &[7], false).unwrap();
        }
        first.sync(None, false).unwrap();
        let mut options = options("second");
        // It removes nothing itself.
        options.read_only = true;
        options.watch_interval = Some(std::time::Duration::from_secs(3600));
        let second = Volume::open(store.clone(), keys(&store), options).unwrap();
        let held = hold(&second, "log");
        for size in [0, FRAMES * FRAME_SIZE] {
            first.set_attributes(file, &SetAttributes { size: Some(size), ..Default::default() }).unwrap();
        }
        first.close().stored().unwrap();
        let is_empty =
            || (0..FRAMES).all(|frame| flatten(&second.read(held, frame * FRAME_SIZE, 1).unwrap()) == [0]);
        // A name that is not there makes it ask what is new.
        let look = || second.lookup(ROOT, b"no such name").unwrap_err();
        look();
        assert!(is_empty());
        let third = open(&store, "third");
        third.unlink(ROOT, b"log").unwrap();
        settle(&[&third]);
        for round in 0..3 {
            look();
            assert_eq!(second.attributes(held).unwrap().nlink, 0);
            assert!(is_empty(), "what was cut off is back in round {round}");
            settle(&[&third]);
        }
    });
}
