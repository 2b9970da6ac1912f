//! A machine whose nodes are away makes files and directories with what it has of the tree where they go, and nothing else.
//!
//! What went wrong: the number of the first new file was drawn at a random place of the tree, and the leaf there had to be at
//! hand: to see that the number is free, and then each time that something was asked of the file. On a drive of some
//! thousand files that leaf was hardly ever here, and the first `cp` after the nodes had gone failed.

mod common;

use std::path::Path;
use std::rc::Rc;

use common::*;
use filesystem::operations::{FileKind, RenameFlags, SetAttributes, XattrMode};
use filesystem::{Errno, Inode, Operations, Options, Volume};

/// So many that the leaves at both ends of their numbers, where new ones go, are not those of a directory amid them.
const FILE_COUNT: u32 = 2000;

fn options_with(journal: &Path) -> Options {
    let mut options = options("laptop");
    options.journal_directory = Some(journal.to_owned());
    options
}

/// As a program does that has looked for these names.
fn look(volume: &Volume) -> Inode {
    let work = volume.lookup(ROOT, b"work").unwrap().inode;
    for name in ["new", "made", "moved", "later", "again"] {
        assert_eq!(volume.lookup(work, name.as_bytes()).err(), Some(Errno::ENOENT));
    }
    work
}

fn uses(volume: &Volume, parent: Inode, name: &str) -> Inode {
    let file = make_file(volume, parent, name).inode;
    volume.open(file).unwrap();
    assert_eq!(volume.get_xattr(file, b"security.capability").err(), Some(Errno::ENODATA));
    volume.write(file, 0, name.as_bytes(), false).unwrap();
    volume.write(file, 100_000, b"end", false).unwrap();
    volume.set_xattr(file, b"user.a", b"b", XattrMode::Set).unwrap();
    volume.set_attributes(file, &SetAttributes { size: Some(90_000), ..SetAttributes::default() }).unwrap();
    file
}

fn is_as_made(volume: &Volume, file: Inode, name: &str) {
    let content = read_file(volume, file);
    assert_eq!((content.len(), &content[..name.len()]), (90_000, name.as_bytes()));
    assert_eq!(volume.list_xattr(file).unwrap().len(), 1);
}

#[test]
fn what_is_made_without_the_nodes_is_used_at_once_and_after_a_restart_and_reaches_them_later() {
    reactor::run(|| {
        let store = TestStore::new();
        let volume = create(&store);
        for number in 0..FILE_COUNT {
            if number == FILE_COUNT / 2 {
                volume.make_directory(ROOT, b"work", 0o755, &USER).unwrap();
            }
            make_file(&volume, ROOT, &format!("file {number}"));
        }
        volume.close().stored().unwrap();

        let journal = tempfile::tempdir().unwrap();
        let open = || Volume::open(store.clone(), keys(&store), options_with(journal.path())).unwrap();
        let volume = open();
        let work = look(&volume);
        store.only_seen.set(true);
        store.budget.set(0);
        let ends = [1, u64::MAX >> 2].map(|number| volume.attributes(Inode(number + 1)).err());
        assert!(ends.contains(&Some(Errno::EHOSTUNREACH)), "what is far is not at hand: {ends:?}");
        let file = uses(&volume, work, "new");
        is_as_made(&volume, file, "new");
        let made = volume.make_directory(work, b"made", 0o755, &USER).unwrap().inode;
        assert_eq!(names(&volume, made), [""; 0]);
        assert_eq!(volume.lookup(made, b"nothing").err(), Some(Errno::ENOENT));
        uses(&volume, made, "within");
        volume.rename(work, b"new", made, b"moved", RenameFlags::default()).unwrap();
        assert_eq!(names(&volume, made), ["moved", "within"]);
        // A try that fails gives all of it back.
        assert!(volume.sync(None, false).is_err());
        uses(&volume, made, "after");
        assert!(volume.close().stored().is_err());
        drop(volume);

        let volume = open();
        let made = volume.lookup(work, b"made").unwrap().inode;
        assert_eq!(names(&volume, made), ["after", "moved", "within"]);
        is_as_made(&volume, volume.lookup(made, b"moved").unwrap().inode, "new");
        uses(&volume, made, "later");
        volume.make_node(made, b"again", FileKind::Fifo, 0o600, 0, &USER).unwrap();
        assert!(volume.close().stored().is_err());
        drop(volume);

        store.only_seen.set(false);
        store.budget.set(u64::MAX);
        let other = Volume::open(store.clone(), keys(&store), options("other")).unwrap();
        write_file(&other, ROOT, "of another", b"meanwhile");
        other.close().stored().unwrap();
        let volume = open();
        volume.sync(None, false).unwrap();
        looks_whole(&volume);
        volume.close().stored().unwrap();
        looks_whole(&common::open(&store, "third"));
    });
}

/// A home is restored from a backup whose journal was published since, and what is in it was written by another. The next mount
/// of that home finds in the tree that all of it is there; after another mount of it nothing says so any more.
#[test]
fn what_is_in_the_tree_by_a_copy_of_the_journal_is_a_file_like_any_other() {
    [0, 1].into_iter().for_each(a_journal_comes_back_after);
}

fn a_journal_comes_back_after(mounts_since: usize) {
    reactor::run(move || {
        let store = TestStore::new();
        create(&store).close().stored().unwrap();
        let (journal, backup) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let copy = |from: &Path, to: &Path| {
            for entry in std::fs::read_dir(from).unwrap() {
                let entry = entry.unwrap();
                std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
            }
        };
        let open = || Volume::open(store.clone(), keys(&store), options_with(journal.path())).unwrap();
        let volume = open();
        volume.sync(None, false).unwrap();
        store.budget.set(0);
        for name in ["both", "theirs", "removed"] {
            write_file(&volume, ROOT, name, b"ours");
        }
        assert!(volume.close().stored().is_err());
        drop(volume);
        copy(journal.path(), backup.path());
        store.budget.set(u64::MAX);
        open().close().stored().unwrap();
        for _ in 0..mounts_since {
            let volume = open();
            write_file(&volume, ROOT, "more", b"mo");
            volume.close().stored().unwrap();
        }
        let other = common::open(&store, "other");
        let inode = |volume: &Volume, name: &str| volume.lookup(ROOT, name.as_bytes()).unwrap().inode;
        other.write(inode(&other, "both"), 0, b"another's", false).unwrap();
        other.unlink(ROOT, b"removed").unwrap();
        other.close().stored().unwrap();

        copy(backup.path(), journal.path());
        let volume = open();
        volume.sync(None, false).expect("it is published");
        assert_eq!(read_file(&volume, inode(&volume, "both")), b"another's");
        write_file(&volume, ROOT, "last", b"last");
        volume.close().stored().unwrap();
        let third = common::open(&store, "third");
        let all = names(&third, ROOT);
        let copies: Vec<&String> = all.iter().filter(|name| name.contains("(conflict, laptop")).collect();
        assert_eq!(copies.len(), mounts_since, "{all:?}");
        for copy in copies {
            assert_eq!(read_file(&third, inode(&third, copy)), b"ours");
        }
        assert_eq!(read_file(&third, inode(&third, "both")), b"another's");
        assert_eq!(read_file(&third, inode(&third, "theirs")), b"ours");
    });
}

fn looks_whole(volume: &Rc<Volume>) {
    let work = volume.lookup(ROOT, b"work").unwrap().inode;
    let made = volume.lookup(work, b"made").unwrap().inode;
    assert_eq!(names(volume, made), ["after", "again", "later", "moved", "within"]);
    for (name, content) in [("moved", "new"), ("after", "after"), ("later", "later"), ("within", "within")] {
        is_as_made(volume, volume.lookup(made, name.as_bytes()).unwrap().inode, content);
    }
    assert_eq!(names(volume, ROOT).len(), FILE_COUNT as usize + 2);
}
