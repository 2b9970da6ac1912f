//! What snapshots hold is shown as it was, by numbers of its own, and can't be changed.

mod common;

use std::rc::Rc;
use std::time::Duration;

use common::*;
use filesystem::format::SnapshotOrigin;
use filesystem::operations::{
    AllocateMode, FileKind, Invalidation, RenameFlags, SetAttributes, Time, XattrMode,
};
use filesystem::past::WithPast;
use filesystem::{Errno, Inode, Operations, Volume};

fn take(volume: &Volume, name: &str) {
    volume.take_snapshot(Some(name), SnapshotOrigin::Asked).expect("a snapshot is taken");
}

/// Follows a path from the root, as the kernel does: it keeps what it is shown.
fn walk(drive: &WithPast, path: &str) -> Result<Inode, Errno> {
    let mut inode = ROOT;
    for name in path.split('/') {
        inode = drive.lookup(inode, name.as_bytes())?.inode;
        drive.remember(inode);
    }
    Ok(inode)
}

fn content(drive: &WithPast, path: &str) -> Vec<u8> {
    let inode = walk(drive, path).expect("it is there");
    flatten(&drive.read(inode, 0, 1 << 20).expect("it reads"))
}

fn listed(drive: &WithPast, directory: Inode, with_attributes: bool) -> Vec<(String, Inode)> {
    let mut entries = Vec::new();
    let mut cookie = 0;
    loop {
        let piece = drive.read_directory(directory, cookie, 3, with_attributes).expect("it lists");
        let Some(last) = piece.last() else { return entries };
        cookie = last.cookie;
        for entry in &piece {
            entries.push((String::from_utf8_lossy(&entry.name).into_owned(), entry.inode));
            if entry.attributes.is_some() {
                drive.remember(entry.inode);
            }
        }
    }
}

#[test]
fn a_snapshot_shows_what_was_and_is_not_listed_with_what_is() {
    reactor::run(|| {
        let store = TestStore::new();
        let volume = create(&store);
        let drive = WithPast::new(volume.clone());
        let directory = volume.make_directory(ROOT, b"directory", 0o750, &USER).unwrap().inode;
        let file = write_file(&volume, directory, "file", &[1; 100_000]);
        volume.make_symlink(directory, b"link", b"file", &USER).unwrap();
        volume.set_xattr(file, b"user.colour", b"red", XattrMode::Set).unwrap();
        let old = Time { seconds: 1_000_000_000, nanoseconds: 7 };
        let attributes = SetAttributes { mode: Some(0o640), mtime: Some(old), ..SetAttributes::default() };
        volume.set_attributes(file, &attributes).unwrap();
        take(&volume, "first");
        // Over it, beside it, and cut off while its frames wait to be removed.
        volume.write(file, 0, &[2; 50_000], false).unwrap();
        volume.remove_xattr(file, b"user.colour").unwrap();
        volume.unlink(directory, b"link").unwrap();
        write_file(&volume, directory, "new", b"tiny");
        take(&volume, "second");
        volume.unlink(directory, b"file").unwrap();
        volume.rename(ROOT, b"directory", ROOT, b"renamed", RenameFlags::default()).unwrap();

        assert_eq!(content(&drive, ".snapshots/first/directory/file"), [1; 100_000]);
        let expected = [&[2; 50_000][..], &[1; 50_000]].concat();
        assert!(content(&drive, ".snapshots/second/directory/file") == expected);
        assert_eq!(walk(&drive, ".snapshots/second/directory/link"), Err(Errno::ENOENT));
        assert_eq!(walk(&drive, ".snapshots/third"), Err(Errno::ENOENT));
        let then = walk(&drive, ".snapshots/first/directory/file").unwrap();
        let shown = drive.attributes(then).unwrap();
        assert_eq!((shown.inode, shown.mode, shown.mtime, shown.size), (then, 0o640, old, 100_000));
        assert_eq!(drive.get_xattr(then, b"user.colour").unwrap(), "red");
        assert_eq!(drive.list_xattr(then).unwrap(), ["user.colour"]);
        let link = walk(&drive, ".snapshots/first/directory/link").unwrap();
        assert_eq!(drive.read_symlink(link).unwrap(), "file");

        let names =
            |inode| listed(&drive, inode, false).into_iter().map(|(name, _)| name).collect::<Vec<_>>();
        assert_eq!(names(ROOT), [".", "..", "renamed"], "not listed");
        let mut all = names(walk(&drive, ".snapshots").unwrap());
        all.sort();
        assert_eq!(all, [".", "..", "first", "second"]);

        // Up again, by `..`.
        let first = walk(&drive, ".snapshots/first").unwrap();
        let snapshots = walk(&drive, ".snapshots").unwrap();
        assert_eq!(drive.lookup(first, b"..").unwrap().inode, snapshots);
        assert_eq!(drive.lookup(snapshots, b"..").unwrap().inode, ROOT);
        assert_eq!(listed(&drive, first, true)[1], ("..".into(), snapshots));
        volume.close().stored().unwrap();
    });
}

#[test]
fn numbers_stay_the_same_and_are_no_live_ones() {
    reactor::run(|| {
        let store = TestStore::new();
        let volume = create(&store);
        let drive = WithPast::new(volume.clone());
        let live = write_file(&volume, ROOT, "file", b"content");
        volume.link(live, ROOT, b"again").unwrap();
        take(&volume, "a");
        take(&volume, "b");
        let [a, b] = ["a", "b"].map(|name| walk(&drive, &format!(".snapshots/{name}/file")).unwrap());
        assert!(a != b && a != live && b != live && a.0 > u64::MAX / 2);
        assert_eq!(walk(&drive, ".snapshots/a/again").unwrap(), a, "two names of one file");
        for with_attributes in [false, true] {
            let root = walk(&drive, ".snapshots/a").unwrap();
            let entries = listed(&drive, root, with_attributes);
            assert!(entries.contains(&("file".into(), a)) && entries.contains(&("again".into(), a)));
        }
        // Forgotten, and asked for again; by another mount, too.
        drive.forget(a, u64::MAX);
        assert_eq!(drive.attributes(a), Err(Errno::ESTALE));
        assert_eq!(walk(&drive, ".snapshots/a/file").unwrap(), a);
        let other = WithPast::new(open(&store, "second"));
        assert_eq!(walk(&other, ".snapshots/a/file").unwrap(), a);
        volume.close().stored().unwrap();
    });
}

#[test]
fn nothing_of_the_past_can_be_changed() {
    reactor::run(|| {
        let store = TestStore::new();
        let volume = create(&store);
        let drive = WithPast::new(volume.clone());
        let live = write_file(&volume, ROOT, "file", b"content");
        // Without snapshots the name is one like others.
        assert_eq!(walk(&drive, ".snapshots"), Err(Errno::ENOENT));
        // Nor can anybody make what later snapshots would be hidden by.
        let refused = Err(Errno::EPERM);
        assert_eq!(drive.make_directory(ROOT, b".snapshots", 0o755, &USER).map(drop), refused);
        assert_eq!(drive.make_symlink(ROOT, b".snapshots", b"elsewhere", &USER).map(drop), refused);
        let other = drive.make_directory(ROOT, b"other", 0o755, &USER).unwrap();
        let renamed = drive.rename(ROOT, b"other", ROOT, b".snapshots", RenameFlags::default());
        assert_eq!(renamed, refused);
        drive.make_directory(other.inode, b".snapshots", 0o755, &USER).unwrap();
        drive.remove_directory(other.inode, b".snapshots").unwrap();
        drive.remove_directory(ROOT, b"other").unwrap();
        take(&volume, "a");
        let snapshots = walk(&drive, ".snapshots").unwrap();
        let root = walk(&drive, ".snapshots/a").unwrap();
        let file = walk(&drive, ".snapshots/a/file").unwrap();
        let refused = Err(Errno::EROFS);
        assert_eq!(drive.open(file), Ok(()));
        assert_eq!(drive.may_write(file), refused);
        assert_eq!(drive.write(file, 0, b"x", false), refused);
        assert_eq!(drive.append(file, b"x", false).map(drop), refused);
        assert_eq!(drive.set_attributes(file, &SetAttributes::default()).map(drop), refused);
        assert_eq!(drive.set_xattr(file, b"user.a", b"b", XattrMode::Set), refused);
        assert_eq!(drive.remove_xattr(file, b"user.a"), refused);
        assert_eq!(drive.allocate(file, AllocateMode::default(), 0, 10), refused);
        for directory in [snapshots, root] {
            let made = drive.make_node(directory, b"new", FileKind::Regular, 0o644, 0, &USER);
            assert_eq!(made.map(drop), refused);
            assert_eq!(drive.make_directory(directory, b"new", 0o755, &USER).map(drop), refused);
            assert_eq!(drive.make_symlink(directory, b"new", b"x", &USER).map(drop), refused);
            assert_eq!(drive.make_unnamed(directory, 0o644, &USER).map(drop), refused);
            assert_eq!(drive.unlink(directory, b"file"), refused);
            assert_eq!(drive.remove_directory(directory, b"a"), refused);
            assert_eq!(drive.link(live, directory, b"new").map(drop), refused);
            let plain = RenameFlags::default();
            assert_eq!(drive.rename(directory, b"file", ROOT, b"new", plain), refused);
            assert_eq!(drive.rename(ROOT, b"file", directory, b"new", plain), refused);
        }
        assert_eq!(drive.link(file, ROOT, b"new").map(drop), Err(Errno::EXDEV));
        let busy = Err(Errno::EBUSY);
        assert_eq!(drive.remove_directory(ROOT, b".snapshots"), busy);
        assert_eq!(drive.make_directory(ROOT, b".snapshots", 0o755, &USER).map(drop), busy);
        assert_eq!(drive.rename(ROOT, b"file", ROOT, b".snapshots", RenameFlags::default()), busy);
        drive.sync(Some(file), false).unwrap();
        drive.flush(file).unwrap();
        assert_eq!(content(&drive, ".snapshots/a/file"), b"content");
        // A directory of that name that is there already is shown instead.
        let own = volume.make_directory(ROOT, b".snapshots", 0o755, &USER).unwrap().inode;
        assert_eq!(walk(&drive, ".snapshots"), Ok(own));
        volume.close().stored().unwrap();
    });
}

#[test]
fn one_program_lists_snapshots_while_others_look_into_them() {
    reactor::run(|| {
        let store = TestStore::new();
        let volume = create(&store);
        for number in 0..2000 {
            write_file(&volume, ROOT, &format!("a file with a longer name {number}"), b"content");
        }
        (0..5).for_each(|number| take(&volume, &format!("number {number}")));
        volume.close().stored().unwrap();
        // With a cache of some nodes, which the lister of the root turns over: all wait for nodes, again and again.
        let mut small = options("second");
        small.cache_bytes = 64 << 10;
        let volume = Volume::open(store.clone(), keys(&store), small).unwrap();
        let drive = &WithPast::new(volume.clone());
        let snapshots = walk(drive, ".snapshots").unwrap();
        reactor::scope(|scope| {
            let root =
                scope.spawn(|| (0..3).for_each(|_| assert_eq!(listed(drive, ROOT, false).len(), 2002)));
            let lister =
                scope.spawn(|| (0..50).for_each(|_| assert_eq!(listed(drive, snapshots, true).len(), 7)));
            let walkers: Vec<_> = (0..5)
                .map(|number| format!(".snapshots/number {number}/a file with a longer name {number}"))
                .map(|path| {
                    scope.spawn(move || (0..10).for_each(|_| assert_eq!(content(drive, &path), b"content")))
                })
                .collect();
            root.join().unwrap();
            lister.join().unwrap();
            walkers.into_iter().for_each(|walker| walker.join().unwrap());
        });
        volume.close().stored().unwrap();
    });
}

#[test]
fn a_snapshot_that_is_deleted_is_gone_for_those_in_it() {
    reactor::run(|| {
        let store = TestStore::new();
        let volume = create(&store);
        let drive = WithPast::new(volume.clone());
        write_file(&volume, ROOT, "file", b"content");
        // More than there are views.
        let names: Vec<String> = (0..12).map(|number| format!("number {number}")).collect();
        names.iter().for_each(|name| take(&volume, name));
        for name in names.iter().chain(&names) {
            assert_eq!(content(&drive, &format!(".snapshots/{name}/file")), b"content");
        }
        let before = drive.attributes(walk(&drive, ".snapshots").unwrap()).unwrap();
        let file = walk(&drive, ".snapshots/number 3/file").unwrap();
        let other: Rc<Volume> = open(&store, "second");
        other.delete_snapshot("number 3").unwrap();
        other.close().stored().unwrap();
        write_file(&volume, ROOT, "more", b"which brings the other's root here");
        volume.sync(None, false).unwrap();
        assert_eq!(drive.read(file, 0, 10).map(drop), Err(Errno::ESTALE));
        assert_eq!(drive.open(file), Err(Errno::ESTALE));
        assert_eq!(walk(&drive, ".snapshots/number 3"), Err(Errno::ENOENT));
        let after = drive.attributes(walk(&drive, ".snapshots").unwrap()).unwrap();
        assert_ne!(before.mtime, after.mtime, "kernels keep listings by it");
        let entry = Invalidation::Entry(before.inode, "number 3".into());
        let told = reactor::timeout(Duration::from_secs(60), || {
            while drive.next_invalidation().expect("the volume is open") != entry {}
        });
        assert!(told.is_ok(), "the kernel has to forget the name");
        volume.close().stored().unwrap();
    });
}
