//! Two mounts write to one volume at once. Whoever loses a swap merges onto the winner's root; nothing that was
//! acknowledged is lost, and both see the same in the end.

mod common;

use common::*;
use filesystem::operations::{FileKind, RenameFlags, SetAttributes};
use filesystem::{Errno, Inode, Operations, Volume};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use std::collections::BTreeMap;

/// Makes both commit until neither has anything to merge.
fn settle(first: &Volume, second: &Volume) {
    for _ in 0..3 {
        // A change of nothing but a time, so that each looks at the root.
        for volume in [first, second] {
            volume.set_attributes(ROOT, &Default::default()).unwrap();
            volume.sync(None, false).unwrap();
        }
    }
}

#[test]
fn of_two_files_with_one_name_both_are_kept() {
    reactor::run(|| {
        let store = TestStore::new();
        let first = create(&store);
        let second = open(&store, "second");
        write_file(&first, ROOT, "plan", b"from the first");
        write_file(&second, ROOT, "plan", b"from the second");
        write_file(&second, ROOT, "other", b"2");
        first.sync(None, false).unwrap();
        second.sync(None, false).unwrap();
        settle(&first, &second);
        for volume in [&first, &second] {
            let found = names(volume, ROOT);
            assert_eq!(found.len(), 3, "{found:?}");
            assert!(found[2].starts_with("plan (conflict, second, 20"), "{found:?}");
            assert_eq!(read_file(volume, volume.lookup(ROOT, b"plan").unwrap().inode), b"from the first");
            let kept = volume.lookup(ROOT, found[2].as_bytes()).unwrap();
            assert_eq!(read_file(volume, kept.inode), b"from the second");
            assert_eq!(kept.nlink, 1);
        }
        assert!(second.next_invalidation().is_some(), "the kernel is told");
    });
}

#[test]
fn removals_meet_new_content_and_moves() {
    reactor::run(|| {
        let store = TestStore::new();
        let first = create(&store);
        let directory = |name: &[u8]| first.make_directory(ROOT, name, 0o755, &USER).unwrap().inode;
        let (emptied, filled, left, right) =
            (directory(b"emptied"), directory(b"filled"), directory(b"x"), directory(b"y"));
        let written = write_file(&first, ROOT, "written", &[1; 40_000]);
        write_file(&first, filled, "old", b"old");
        first.sync(None, false).unwrap();
        let second = open(&store, "second");
        let plain = RenameFlags::default();

        // The first wins each of these.
        write_file(&first, emptied, "new", b"new");
        first.unlink(filled, b"old").unwrap();
        first.remove_directory(ROOT, b"filled").unwrap();
        first.unlink(ROOT, b"written").unwrap();
        first.rename(ROOT, b"x", right, b"x", plain).unwrap();
        second.remove_directory(ROOT, b"emptied").unwrap();
        let late = write_file(&second, filled, "late", b"late");
        second.write(written, 5, b"after all", false).unwrap();
        second.rename(ROOT, b"y", left, b"y", plain).unwrap();
        first.sync(None, false).unwrap();
        second.sync(None, false).unwrap();
        settle(&first, &second);
        for volume in [&first, &second] {
            assert_eq!(names(volume, emptied), ["new"], "a directory that was filled is not removed");
            assert_eq!(volume.lookup(ROOT, b"emptied").unwrap().inode, emptied);
            assert_eq!(
                volume.lookup(ROOT, b"filled").unwrap().inode,
                filled,
                "and one that was removed comes back"
            );
            assert_eq!(names(volume, filled), ["late"]);
            assert_eq!(read_file(volume, late), b"late");
            let content = read_file(volume, written);
            assert_eq!((&content[5..14], content.len()), (b"after all".as_slice(), 40_000));
            assert_eq!(volume.attributes(written).unwrap().nlink, 1);
            assert!(names(volume, ROOT).iter().any(|name| name.starts_with("written (conflict")));
            // A directory cannot be inside itself: the first's move stands.
            assert_eq!(volume.lookup(right, b"x").unwrap().inode, left);
            assert_eq!(volume.lookup(ROOT, b"y").unwrap().inode, right);
            assert_eq!(volume.lookup(left, b"y"), Err(Errno::ENOENT));
            assert_eq!(volume.attributes(right).unwrap().nlink, 3);
            assert_eq!(volume.attributes(left).unwrap().nlink, 2);
            assert_eq!(volume.lookup(left, b"..").unwrap().inode, right);
            let subdirectories =
                names(volume, ROOT).iter().filter(|name| !name.starts_with("written")).count() as u32;
            assert_eq!(volume.attributes(ROOT).unwrap().nlink, 2 + subdirectories);
        }
    });
}

/// Walks the whole volume and checks what must hold of any: every name leads to an inode, every inode is counted as
/// often as it is named, every directory has one name and the parent that it says. Returns what it found.
fn check(volume: &Volume, context: &str) -> BTreeMap<String, (u64, u64)> {
    let mut found = BTreeMap::new();
    let mut counts: BTreeMap<u64, u32> = BTreeMap::new();
    let mut directories = BTreeMap::new();
    let mut todo = vec![(ROOT, String::new())];
    while let Some((directory, path)) = todo.pop() {
        let mut subdirectories = 0;
        for name in names(volume, directory) {
            let path = format!("{path}/{name}");
            let entry = volume
                .lookup(directory, name.as_bytes())
                .unwrap_or_else(|error| panic!("{context}: {path}: {error}"));
            found.insert(path.clone(), (entry.inode.0, entry.size));
            if entry.kind == FileKind::Directory {
                subdirectories += 1;
                let parent = volume.lookup(entry.inode, b"..").unwrap().inode;
                assert_eq!(parent, directory, "{context}: the parent of {path}");
                let before = directories.insert(entry.inode.0, path.clone());
                assert_eq!(before, None, "{context}: {path} is a directory's second name");
                todo.push((entry.inode, path));
            } else {
                *counts.entry(entry.inode.0).or_default() += 1;
                let content = read_file(volume, entry.inode);
                assert_eq!(content.len() as u64, entry.size, "{context}: {path}");
            }
        }
        assert_eq!(
            volume.attributes(directory).unwrap().nlink,
            2 + subdirectories,
            "{context}: links of {path}"
        );
    }
    for (inode, count) in counts {
        assert_eq!(
            volume.attributes(Inode(inode)).unwrap().nlink,
            count,
            "{context}: links of inode {inode}"
        );
    }
    found
}

#[test]
fn whatever_two_writers_do_the_tree_stays_whole() {
    let seed = seed();
    for story in 0..12 {
        reactor::run(|| {
            let context = format!("HYPHA_SEED={seed} story {story}");
            let mut random = StdRng::seed_from_u64(seed ^ story);
            let store = TestStore::new();
            let volumes = [create(&store), open(&store, "second")];
            for round in 0..250 {
                let volume = &volumes[random.random_range(0..2)];
                // All directories that this side knows.
                let mut directories = vec![ROOT];
                let mut at = 0;
                while at < directories.len() {
                    for name in names(volume, directories[at]) {
                        let entry = volume.lookup(directories[at], name.as_bytes()).unwrap();
                        if entry.kind == FileKind::Directory {
                            assert!(!directories.contains(&entry.inode), "{context} round {round}: a loop");
                            directories.push(entry.inode);
                        }
                    }
                    at += 1;
                }
                let pick = |random: &mut StdRng| {
                    let directory = directories[random.random_range(0..directories.len())];
                    let known = names(volume, directory);
                    let name = match random.random_bool(0.5) && !known.is_empty() {
                        true => known[random.random_range(0..known.len())].clone(),
                        false => format!("{}", random.random_range(0..8)),
                    };
                    (directory, name)
                };
                let (directory, name) = pick(&mut random);
                let (to, new) = pick(&mut random);
                // Whether each is allowed is not the question here.
                match random.random_range(0..12) {
                    0..3 => {
                        let made =
                            volume.make_node(directory, name.as_bytes(), FileKind::Regular, 0o644, 0, &USER);
                        if let Ok(made) = made {
                            volume
                                .write(made.inode, 0, &vec![1; random.random_range(1..50_000)], false)
                                .unwrap();
                        }
                    }
                    3..5 => _ = volume.make_directory(directory, name.as_bytes(), 0o755, &USER),
                    5 => _ = volume.unlink(directory, name.as_bytes()),
                    6 => _ = volume.remove_directory(directory, name.as_bytes()),
                    7..9 => {
                        let flags =
                            RenameFlags { exchange: random.random_bool(0.2), ..RenameFlags::default() };
                        let _ = volume.rename(directory, name.as_bytes(), to, new.as_bytes(), flags);
                    }
                    9 => {
                        if let Ok(file) = volume.lookup(directory, name.as_bytes()) {
                            let _ = volume.link(file.inode, to, new.as_bytes());
                        }
                    }
                    _ => {
                        if let Ok(file) = volume.lookup(directory, name.as_bytes()) {
                            let offset = random.random_range(0..100_000);
                            let _ = volume.write(file.inode, offset, &[2; 3000], false);
                            let size = Some(random.random_range(0..100_000));
                            if random.random_bool(0.3) {
                                let changes = SetAttributes { size, ..SetAttributes::default() };
                                let _ = volume.set_attributes(file.inode, &changes);
                            }
                        }
                    }
                }
                match random.random_range(0..12) {
                    0 => volume.sync(None, false).unwrap(),
                    1 => {
                        let volume = volume.clone();
                        reactor::spawn(move || volume.sync(None, false));
                    }
                    2 => reactor::yield_now(),
                    3 if round % 5 == 0 => {
                        volume.sync(None, false).unwrap();
                        check(volume, &format!("{context} round {round}"));
                    }
                    _ => {}
                }
            }
            settle(&volumes[0], &volumes[1]);
            let found = check(&open(&store, "third"), &context);
            assert!(
                found == check(&volumes[0], &context) && found == check(&volumes[1], &context),
                "{context}"
            );
        });
    }
}

#[test]
fn what_two_crowds_of_writers_synced_is_all_there() {
    let seed = seed();
    reactor::run(|| {
        let mut random = StdRng::seed_from_u64(seed);
        let store = TestStore::new();
        let volumes = [create(&store), open(&store, "second")];
        let shared = volumes[0].make_directory(ROOT, b"shared", 0o755, &USER).unwrap().inode;
        volumes[0].sync(None, false).unwrap();
        settle(&volumes[0], &volumes[1]);
        // What each wrote: inode numbers to content. Nobody removes, so all of it must be found under some name.
        let mut written: BTreeMap<u64, Vec<u8>> = BTreeMap::new();
        for round in 0..150 {
            let side = random.random_range(0..2);
            let volume = &volumes[side];
            let name = format!("file {}", random.random_range(0..30));
            let parent = if random.random_bool(0.5) { shared } else { ROOT };
            let content = vec![round as u8; random.random_range(1..60_000)];
            match volume.lookup(parent, name.as_bytes()) {
                Ok(_) => {
                    let new = format!("moved {round}");
                    // A merge may have brought it elsewhere while the rename waited for its turn.
                    let moved = volume.rename(
                        parent,
                        name.as_bytes(),
                        shared,
                        new.as_bytes(),
                        RenameFlags::default(),
                    );
                    assert!(matches!(moved, Ok(()) | Err(Errno::ENOENT)), "{moved:?}");
                }
                Err(_) => {
                    // A merge may have brought the name meanwhile.
                    let made = volume.make_node(parent, name.as_bytes(), FileKind::Regular, 0o644, 0, &USER);
                    let Ok(file) = made else { continue };
                    volume.write(file.inode, 0, &content, false).unwrap();
                    written.insert(file.inode.0, content);
                }
            }
            match random.random_range(0..6) {
                0 => volume.sync(None, false).unwrap(),
                1 => {
                    let volume = volume.clone();
                    reactor::spawn(move || volume.sync(None, false));
                }
                2 => reactor::yield_now(),
                _ => {}
            }
        }
        settle(&volumes[0], &volumes[1]);
        let tree = |volume: &Volume| {
            let mut all = BTreeMap::new();
            for directory in [ROOT, shared] {
                for name in names(volume, directory) {
                    let found = volume.lookup(directory, name.as_bytes()).unwrap();
                    all.insert((directory, name), found);
                }
            }
            all
        };
        let last = open(&store, "third");
        let found = tree(&last);
        assert!(
            found == tree(&volumes[0]) && found == tree(&volumes[1]),
            "HYPHA_SEED={seed}: all see the same"
        );
        for (inode, content) in written {
            let named: Vec<_> = found.values().filter(|found| found.inode == Inode(inode)).collect();
            assert!(!named.is_empty(), "HYPHA_SEED={seed}: {inode} has no name");
            assert_eq!(named[0].nlink as usize, named.len(), "HYPHA_SEED={seed}: nlink of {inode}");
            assert!(read_file(&last, Inode(inode)) == content, "HYPHA_SEED={seed}: content of {inode}");
        }
    });
}
