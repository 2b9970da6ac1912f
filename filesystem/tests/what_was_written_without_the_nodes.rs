//! A machine that begins without its nodes, at a root that is not the newest: what is written there and what the nodes have by then are two
//! contents of a file, and both are there in the end.
//!
//! What went wrong: contents were told apart by the device that made them and a count. From an older root, without what it had published
//! just before it died, the same device counted the same way again; so that what was closed offline passed for what the nodes had
//! already, and was dropped without a word, or was put together with it. And an append after a start with a journal made an
//! append of all that the journal had, from where the nodes' content ended: what had been written before it was cut off at that length.

mod common;

use std::rc::Rc;

use common::kept::Kept;
use common::*;
use dht::BlockStore;
use filesystem::operations::SetAttributes;
use filesystem::{Inode, Operations, Volume};

/// Writes in place so many times, of which nothing is a part of what another side writes.
fn write(volume: &Volume, side: u8, times: usize) {
    let file = volume.lookup(ROOT, b"file").unwrap().inode;
    for at in 0..times {
        // A frame of its own each.
        volume.write(file, (at as u64) << 16, &[side; 100], false).unwrap();
    }
}

fn expected(side: u8, times: usize) -> Vec<u8> {
    let mut content = vec![b'.'; 300_000];
    for at in 0..times {
        content[at << 16..][..100].fill(side);
    }
    content
}

/// What is there in the end, whatever the names.
fn contents(store: &Rc<TestStore>) -> Vec<Vec<u8>> {
    let after = open(store, "reader");
    let read = |name: &String| read_file(&after, after.lookup(ROOT, name.as_bytes()).unwrap().inode);
    let mut contents: Vec<Vec<u8>> = names(&after, ROOT).iter().map(read).collect();
    after.close().stored().unwrap();
    contents.sort();
    contents
}

#[test]
fn what_was_published_and_what_was_written_without_it_are_both_kept() {
    for (online, offline) in [(1, 1), (1, 2), (2, 1), (3, 3)] {
        reactor::run(move || {
            let store = TestStore::new();
            create(&store).close().stored().unwrap();
            let before = open(&store, "laptop");
            write_file(&before, ROOT, "file", &expected(b'.', 0));
            before.close().stored().unwrap();
            let root = store.read(&keys(&store).register).unwrap();

            let published = open(&store, "laptop");
            write(&published, b'a', online);
            published.close().stored().unwrap();

            let kept = Kept::new(&store, root);
            let laptop = Volume::open(kept.clone(), keys(&store), options("laptop")).unwrap();
            write(&laptop, b'b', offline);
            kept.root.replace(None);
            laptop.close().stored().unwrap();

            let context = format!("{online} changes published, {offline} without the nodes");
            let mut both = [expected(b'a', online), expected(b'b', offline)];
            both.sort();
            assert!(contents(&store) == both, "{context}");
        });
    }
}

type Change = fn(&Volume, Inode);

#[test]
fn what_is_appended_after_a_start_with_a_journal_makes_no_append_of_what_was_written_before() {
    let changes: [Change; 3] = [
        |volume, file| volume.write(file, 0, &[b'n'; 60], false).unwrap(),
        |volume, file| volume.write(file, 4, b"in the middle", false).unwrap(),
        |volume, file| {
            let shorter = SetAttributes { size: Some(9), ..SetAttributes::default() };
            volume.set_attributes(file, &shorter).map(drop).unwrap();
        },
    ];
    for (number, change) in changes.into_iter().enumerate() {
        reactor::run(move || {
            let store = TestStore::new();
            create(&store).close().stored().unwrap();
            let before = open(&store, "laptop");
            let file = write_file(&before, ROOT, "file", &[b'o'; 40]);
            before.close().stored().unwrap();
            let root = store.read(&keys(&store).register).unwrap();
            let kept = Kept::new(&store, root);
            let journal = tempfile::tempdir().unwrap();
            let mount = || {
                let mut options = options("laptop");
                options.journal_directory = Some(journal.path().into());
                Volume::open(kept.clone(), keys(&store), options).unwrap()
            };

            let first = mount();
            change(&first, file);
            assert!(first.close().stored().is_err(), "it waits in the journal");
            let second = mount();
            second.append(file, b"appended", false).unwrap();
            let ours = read_file(&second, file);
            let other = open(&store, "other");
            other.write(file, 0, &[b't'; 50], false).unwrap();
            other.close().stored().unwrap();
            kept.root.replace(None);
            second.close().stored().unwrap();

            let mut both = [ours, vec![b't'; 50]];
            both.sort();
            assert!(contents(&store) == both, "change {number}");
        });
    }
}
