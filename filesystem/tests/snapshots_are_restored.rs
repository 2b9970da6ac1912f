//! What a snapshot has comes back whole, in one commit, and nothing that is there is lost by it.

mod common;

use std::collections::BTreeMap;

use common::*;
use filesystem::format::SnapshotOrigin;
use filesystem::operations::{FileKind, RenameFlags, SetAttributes, Time, Whence, XattrMode};
use filesystem::volume::{RestoreError, Restored, Snapshot, SnapshotError};
use filesystem::{Inode, Operations, Volume};

fn take(volume: &Volume, name: &str) -> Snapshot {
    volume.take_snapshot(Some(name), SnapshotOrigin::Asked).expect("a snapshot is taken")
}

/// All that programs see of a file or directory, and of what is below it, by path. Names of one file have one number.
fn seen(volume: &Volume, top: Inode) -> BTreeMap<String, String> {
    let (mut all, mut numbers) = (BTreeMap::new(), BTreeMap::new());
    let mut waiting = vec![(String::new(), top)];
    while let Some((path, inode)) = waiting.pop() {
        let found = volume.attributes(inode).unwrap();
        let count = numbers.len();
        let number = *numbers.entry(inode.0).or_insert(count);
        let mut words = format!(
            "{number} {:?} {:o} {} {} {} {} {} {:?} {:?} {:?}",
            found.kind,
            found.mode,
            found.uid,
            found.gid,
            found.nlink,
            found.size,
            found.rdev,
            found.atime,
            found.mtime,
            found.btime
        );
        for name in volume.list_xattr(inode).unwrap() {
            words += &format!(" {name:?}={:?}", volume.get_xattr(inode, &name).unwrap());
        }
        match found.kind {
            FileKind::Directory => {
                for name in names(volume, inode).into_iter().rev() {
                    let below = volume.lookup(inode, name.as_bytes()).unwrap().inode;
                    waiting.push((format!("{path}/{name}"), below));
                }
            }
            FileKind::Symlink => words += &format!(" {:?}", volume.read_symlink(inode).unwrap()),
            FileKind::Regular => {
                let hole = volume.seek(inode, 0, Whence::Hole).ok();
                let data = volume.seek(inode, 0, Whence::Data).ok();
                let content = blake3::hash(&read_file(volume, inode));
                words += &format!(" {} {hole:?} {data:?} {content}", found.blocks_512);
            }
            _ => {}
        }
        all.insert(path, words);
    }
    all
}

fn at(volume: &Volume, path: &str) -> Inode {
    path.split('/')
        .fold(ROOT, |parent, name| volume.lookup(parent, name.as_bytes()).expect("it is there").inode)
}

fn text(path: Vec<u8>) -> String {
    String::from_utf8(path).unwrap()
}

#[test]
fn a_directory_comes_back_with_all_that_belongs_to_it() {
    reactor::run(|| {
        let store = TestStore::new();
        let volume = create(&store);
        let make = |parent, name: &[u8]| volume.make_directory(parent, name, 0o750, &USER).unwrap().inode;
        let (home, other) = (make(ROOT, b"home"), make(ROOT, b"other"));
        let deep = make(make(home, b"empty not"), b"deep");
        make(home, b"empty");
        write_file(&volume, deep, "large", &(0..3_000_000u32).map(|byte| byte as u8).collect::<Vec<_>>());
        let tiny = write_file(&volume, home, "tiny", b"lies in a leaf");
        volume.link(tiny, deep, b"link within").unwrap();
        volume.link(tiny, other, b"link without").unwrap();
        let sparse = make_file(&volume, home, "sparse").inode;
        volume.write(sparse, 2_000_000, &[7; 100_000], false).unwrap();
        volume
            .set_attributes(sparse, &SetAttributes { size: Some(5_000_000), ..SetAttributes::default() })
            .unwrap();
        volume.make_symlink(home, b"symlink", b"../elsewhere", &USER).unwrap();
        volume.make_node(home, b"pipe", FileKind::Fifo, 0o600, 0, &USER).unwrap();
        volume.make_node(home, b"device", FileKind::CharacterDevice, 0o600, 0x105, &USER).unwrap();
        volume.set_xattr(home, b"user.tag", b"red", XattrMode::Set).unwrap();
        let then = Time { seconds: 1_000_000, nanoseconds: 9 };
        let changes = SetAttributes {
            mode: Some(0o4711),
            uid: Some(7),
            gid: Some(8),
            atime: Some(then),
            mtime: Some(then),
            ..SetAttributes::default()
        };
        volume.set_attributes(tiny, &changes).unwrap();
        volume
            .set_attributes(home, &SetAttributes { mtime: Some(then), ..SetAttributes::default() })
            .unwrap();
        // What is cut off goes in steps, and has not gone yet.
        let cut = make_file(&volume, home, "cut").inode;
        for frame in 0..1500 {
            volume.write(cut, frame * 32_768, &[1], false).unwrap();
        }
        volume.sync(None, false).unwrap();
        volume.set_attributes(cut, &SetAttributes { size: Some(100), ..SetAttributes::default() }).unwrap();
        let snapshot = take(&volume, "then");
        let mut expected = seen(&volume, home);

        // Ransomware.
        volume.write(at(&volume, "home/empty not/deep/large"), 0, &[0; 3_000_000], false).unwrap();
        volume.unlink(home, b"sparse").unwrap();
        volume.set_attributes(home, &SetAttributes { mode: Some(0), ..SetAttributes::default() }).unwrap();
        write_file(&volume, home, "pay", b"now");
        volume.sync(None, false).unwrap();
        let spoilt = seen(&volume, home);
        let (swaps, bytes) = (store.swaps.get(), store.put_bytes.get());
        let restored = volume.restore(&snapshot, b"home", None).unwrap();
        assert_eq!(store.swaps.get() - swaps, 1, "one commit");
        assert!(store.put_bytes.get() - bytes < 200_000, "no content is stored again");
        let Restored { path, file_count, size_bytes, aside } = restored;
        assert_eq!((&*path, file_count, size_bytes), (&b"home"[..], 7, 8_000_126));
        let aside = text(aside.expect("what was there is kept"));
        assert!(aside.starts_with("home (before restore, "), "{aside}");
        assert_eq!(seen(&volume, at(&volume, &aside)), spoilt);
        // A file has the names that came; the one outside is of what is there.
        for path in ["/tiny", "/empty not/deep/link within"] {
            let words = expected.get_mut(path).unwrap();
            assert!(words.contains(" 4711 7 8 3 "), "{words}");
            *words = words.replace(" 4711 7 8 3 ", " 4711 7 8 2 ");
        }
        assert_eq!(seen(&volume, at(&volume, "home")), expected);
        assert_ne!(at(&volume, "home/tiny"), at(&volume, "other/link without"));
        assert_eq!(volume.attributes(ROOT).unwrap().nlink, 5);
        volume.close().stored().unwrap();

        // It is of its own: neither what comes after nor the snapshot's end changes it, and it can be undone.
        let volume = open(&store, "second");
        volume.delete_snapshot("then").unwrap();
        assert_eq!(seen(&volume, at(&volume, "home")), expected);
        let cut = at(&volume, "home/cut");
        let longer = SetAttributes { size: Some(1500 * 32_768), ..SetAttributes::default() };
        volume.set_attributes(cut, &longer).unwrap();
        assert_eq!(volume.seek(cut, 32_768, Whence::Data).ok(), None, "what was cut off does not come back");
        let large = at(&volume, "home/empty not/deep/large");
        volume.write(large, 0, b"mine", false).unwrap();
        let flags = RenameFlags { exchange: true, ..RenameFlags::default() };
        volume.rename(ROOT, aside.as_bytes(), ROOT, b"home", flags).unwrap();
        assert_eq!(seen(&volume, at(&volume, "home")), spoilt);
        volume.close().stored().unwrap();
    });
}

#[test]
fn a_file_comes_back_where_it_was_or_where_it_is_wanted() {
    reactor::run(|| {
        let store = TestStore::new();
        let volume = create(&store);
        let directory = volume.make_directory(ROOT, b"notes", 0o755, &USER).unwrap().inode;
        let file = write_file(&volume, directory, "today.txt", &[1; 50_000]);
        let snapshot = take(&volume, "then");
        volume.write(file, 0, &[2; 50_000], false).unwrap();
        let restore = |path: &str, place: Option<&str>| {
            volume.restore(&snapshot, path.as_bytes(), place.map(str::as_bytes))
        };
        let first = restore("notes/today.txt", None).unwrap();
        let aside = text(first.aside.unwrap());
        assert!(aside.starts_with("notes/today (before restore, ") && aside.ends_with(").txt"), "{aside}");
        assert_eq!(read_file(&volume, at(&volume, &aside)), [2; 50_000]);
        assert_eq!(at(&volume, &aside), file, "programs go on with what they have open");
        assert_eq!(read_file(&volume, at(&volume, "notes/today.txt")), [1; 50_000]);
        // Twice in a second.
        let second = restore("notes/today.txt", None).unwrap();
        assert_ne!(second.aside.map(text), Some(aside));
        assert_eq!(names(&volume, directory).len(), 3);

        let elsewhere = restore("notes/today.txt", Some("of then")).unwrap();
        assert_eq!((&*elsewhere.path, elsewhere.aside), (&b"of then"[..], None));
        assert_eq!(read_file(&volume, at(&volume, "of then")), [1; 50_000]);
        let swaps = store.swaps.get();
        let occupied = restore("notes/today.txt", Some("of then")).unwrap_err();
        assert_eq!(occupied, RestoreError::Occupied { path: "of then".into() });
        let missing = restore("notes/never", None).unwrap_err();
        assert_eq!(missing, RestoreError::Missing { snapshot: "then".into(), path: "notes/never".into() });
        for no_directory in ["no/place", "of then/place"] {
            let error = restore("notes", Some(no_directory)).unwrap_err();
            assert!(matches!(error, RestoreError::NoDirectory { .. }), "{error}");
        }
        assert_eq!(store.swaps.get(), swaps, "nothing was changed");
        for name in names(&volume, directory) {
            volume.unlink(directory, name.as_bytes()).unwrap();
        }
        volume.remove_directory(ROOT, b"notes").unwrap();
        let gone = restore("notes/today.txt", None).unwrap_err();
        assert_eq!(gone, RestoreError::NoDirectory { path: "notes".into() });
        restore("notes", None).unwrap();
        assert_eq!(read_file(&volume, at(&volume, "notes/today.txt")), [1; 50_000]);
        volume.close().stored().unwrap();
    });
}

#[test]
fn what_another_mount_does_meanwhile_is_kept_or_told() {
    reactor::run(|| {
        let store = TestStore::new();
        let first = create(&store);
        write_file(&first, ROOT, "file.txt", &[1; 50_000]);
        let (kept, deleted) = (take(&first, "kept"), take(&first, "deleted"));
        first.unlink(ROOT, b"file.txt").unwrap();
        first.sync(None, false).unwrap();
        // Neither asks for what the other has done before it commits.
        let second = open(&store, "second");
        write_file(&second, ROOT, "file.txt", b"theirs");
        second.sync(None, false).unwrap();
        let restored = first.restore(&kept, b"file.txt", None).unwrap();
        let path = text(restored.path);
        assert!(path.starts_with("file (conflict, first, "), "{path}");
        assert_eq!(read_file(&first, at(&first, &path)), [1; 50_000]);
        assert_eq!(read_file(&first, at(&first, "file.txt")), b"theirs");

        second.delete_snapshot("deleted").unwrap();
        let restore = |place: &str| first.restore(&deleted, b"file.txt", Some(place.as_bytes())).unwrap_err();
        assert_eq!(
            restore("other"),
            RestoreError::Deleted { snapshot: "deleted".into(), path: "other".into() }
        );
        let missing = SnapshotError::Missing { name: "deleted".into() };
        assert_eq!(restore("third"), RestoreError::Snapshot(missing), "from now on it is known");
        first.close().stored().unwrap();
        second.close().stored().unwrap();
    });
}

#[test]
fn what_was_restored_differs_from_its_snapshot_in_nothing_until_it_is_written() {
    reactor::run(|| {
        let store = TestStore::new();
        let volume = create(&store);
        write_file(&volume, ROOT, "large", &vec![7; 1_000_000]);
        write_file(&volume, ROOT, "tiny", b"lies in a leaf");
        volume.make_symlink(ROOT, b"symlink", b"elsewhere", &USER).unwrap();
        volume.make_node(ROOT, b"pipe", FileKind::Fifo, 0o600, 0, &USER).unwrap();
        volume.sync(None, false).unwrap();
        let snapshot = take(&volume, "then");
        let all = ["large", "pipe", "symlink", "tiny"];
        all.iter().for_each(|name| volume.unlink(ROOT, name.as_bytes()).unwrap());
        volume.sync(None, false).unwrap();
        let changed = |volume: &Volume| {
            let changes = volume.changes_between(Some(&snapshot), None).unwrap();
            let path = |change: filesystem::volume::PathChange| change.after.or(change.before).unwrap().path;
            changes
                .into_iter()
                .map(|change| String::from_utf8(path(change).to_vec()).unwrap())
                .collect::<Vec<_>>()
        };
        assert_eq!(changed(&volume), all);
        for name in all {
            volume.restore(&snapshot, name.as_bytes(), None).unwrap();
        }
        assert_eq!(changed(&volume), [""; 0]);
        volume.write(at(&volume, "large"), 500_000, b"mine", false).unwrap();
        volume.sync(None, false).unwrap();
        assert_eq!(changed(&volume), ["large"]);
    });
}
