//! Random histories of two writers, with content, checked against what each of them did to what it saw.
//!
//! Every state of a file's content that a program made is a *version*; a program that changes or removes what it saw
//! supersedes that one. In the end, however the histories were merged: what was made and not superseded is there (nothing
//! acknowledged is dropped), what is there was made by somebody as it is (nothing is invented, and nothing is put together
//! from two), and nothing is there that somebody has replaced.

mod common;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::rc::Rc;

use common::*;
use filesystem::operations::{AllocateMode, FileKind, RenameFlags, SetAttributes};
use filesystem::{Inode, Operations, Volume};
use rand::{RngExt, SeedableRng, rngs::StdRng};

type Content = Vec<u8>;

#[derive(Default)]
struct History {
    made: HashSet<Content>,
    /// Replaced by another version.
    replaced: HashMap<Content, Content>,
    removed: HashSet<Content>,
    perhaps_replaced: HashSet<Content>,
    count: u64,
}

impl History {
    /// Whether what became of a version was removed in the end: a rename by the other keeps the file then, and it has what
    /// the other knew of it.
    fn ended_removed(&self, content: &Content) -> bool {
        let mut at = content;
        for _ in 0..self.made.len() {
            match self.replaced.get(at) {
                Some(next) => at = next,
                None => break,
            }
        }
        self.removed.contains(at) || self.perhaps_replaced.contains(at)
    }

    fn token(&mut self) -> [u8; 16] {
        self.count += 1;
        *unique_bytes(self.count).first_chunk().unwrap()
    }

    /// Notes a change, as it turned out: `apply` says what it makes of a content.
    fn changed(&mut self, saw: &Content, new: Content, apply: impl Fn(&Content) -> Content, context: &str) {
        let others = self.made.iter().filter(|made| *made != saw && apply(made) == new);
        let meant: Vec<Content> = others.cloned().collect();
        if apply(saw) == new {
            if *saw != new {
                self.replaced.insert(saw.clone(), new.clone());
            }
        } else {
            assert!(!meant.is_empty(), "{context}: a write made what nobody could have meant");
        }
        // Another writer's version may have come in while this one waited for its turn: then it was one of those.
        self.perhaps_replaced.extend(meant);
        self.made.insert(new);
    }
}

/// Sixteen bytes that no other number gives.
fn unique_bytes(number: u64) -> [u8; 16] {
    let mixed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&number.to_be_bytes());
    bytes[8..].copy_from_slice(&mixed.to_be_bytes());
    bytes
}

fn write_at(old: &Content, offset: usize, data: &[u8]) -> Content {
    let mut new = old.clone();
    new.resize(new.len().max(offset + data.len()), 0);
    new[offset..offset + data.len()].copy_from_slice(data);
    new
}

/// All files of a volume, by path.
fn files(volume: &Volume) -> BTreeMap<String, Content> {
    let mut found = BTreeMap::new();
    let mut todo = vec![(ROOT, String::new())];
    while let Some((directory, path)) = todo.pop() {
        for name in names(volume, directory) {
            let path = format!("{path}/{name}");
            let entry = volume.lookup(directory, name.as_bytes()).unwrap();
            match entry.kind {
                FileKind::Directory => todo.push((entry.inode, path)),
                _ => _ = found.insert(path, read_file(volume, entry.inode)),
            }
        }
    }
    found
}

fn settle(volumes: &[Rc<Volume>; 2]) {
    for _ in 0..3 {
        for volume in volumes {
            volume.set_attributes(ROOT, &SetAttributes::default()).unwrap();
            volume.sync(None, false).unwrap();
        }
    }
}

/// Picks a file or a free name in one of the directories.
fn pick(volume: &Volume, random: &mut StdRng) -> (Inode, String) {
    let mut directories = vec![ROOT];
    for name in names(volume, ROOT) {
        let entry = volume.lookup(ROOT, name.as_bytes()).unwrap();
        if entry.kind == FileKind::Directory {
            directories.push(entry.inode);
        }
    }
    let directory = directories[random.random_range(0..directories.len())];
    let known = names(volume, directory);
    let name = match random.random_bool(0.8) && !known.is_empty() {
        true => known[random.random_range(0..known.len())].clone(),
        false => format!("{}.txt", random.random_range(0..5)),
    };
    (directory, name)
}

/// Holds the file of a name as a program does that has it open.
fn open_file(volume: &Volume, directory: Inode, name: &str) -> Option<Inode> {
    let found = volume.lookup(directory, name.as_bytes()).ok()?;
    volume.remember(found.inode);
    (found.kind == FileKind::Regular).then_some(found.inode)
}

fn one_change(volume: &Rc<Volume>, history: &mut History, random: &mut StdRng, context: &str) {
    let (directory, name) = pick(volume, random);
    match random.random_range(0..20) {
        0..4 => {
            let token = history.token();
            let Ok(made) = volume.make_node(directory, name.as_bytes(), FileKind::Regular, 0o644, 0, &USER)
            else {
                return;
            };
            volume.remember(made.inode);
            let content = [&token[..], &vec![1; random.random_range(0..100_000)]].concat();
            volume.write(made.inode, 0, &content, false).unwrap();
            history.made.insert(read_file(volume, made.inode));
            volume.forget(made.inode, 1);
        }
        4..13 => {
            let Some(file) = open_file(volume, directory, &name) else { return };
            let saw = read_file(volume, file);
            let token = history.token();
            match random.random_range(0..4) {
                0 => {
                    // Not to nothing: what is empty cannot be told apart.
                    let size = random.random_range(17..saw.len().max(18));
                    let changes = SetAttributes { size: Some(size as u64), ..SetAttributes::default() };
                    volume.set_attributes(file, &changes).unwrap();
                    let cut = |old: &Content| {
                        let mut new = old.clone();
                        new.resize(size, 0);
                        new
                    };
                    history.changed(&saw, read_file(volume, file), cut, context);
                }
                1 => {
                    let start = random.random_range(16..saw.len() + 100);
                    let end = start + random.random_range(1..80_000);
                    let mode = AllocateMode { keep_size: true, punch_hole: true, ..AllocateMode::default() };
                    volume.allocate(file, mode, start as u64, (end - start) as u64).unwrap();
                    let punch = |old: &Content| {
                        let mut new = old.clone();
                        let end = end.min(new.len());
                        if start < end {
                            new[start..end].fill(0);
                        }
                        new
                    };
                    history.changed(&saw, read_file(volume, file), punch, context);
                }
                _ => {}
            }
            // Cutting and punching may make what was there before; with a token it is new.
            let saw = read_file(volume, file);
            let offset = random.random_range(0..saw.len() + 40_000);
            volume.write(file, offset as u64, &token, false).unwrap();
            history.changed(&saw, read_file(volume, file), |old| write_at(old, offset, &token), context);
            if volume.attributes(file).unwrap().nlink == 0 {
                // The other's removal came in before the write: what is written to a file without a name goes with it.
                history.removed.insert(read_file(volume, file));
            }
            volume.forget(file, 1);
        }
        13 | 14 => {
            volume.sync(None, false).unwrap();
            let Some(file) = open_file(volume, directory, &name) else { return };
            if volume.unlink(directory, name.as_bytes()).is_ok()
                && volume.attributes(file).unwrap().nlink == 0
            {
                history.removed.insert(read_file(volume, file));
            }
            volume.forget(file, 1);
        }
        15..17 => {
            volume.sync(None, false).unwrap();
            let (to, new) = pick(volume, random);
            let target = open_file(volume, to, &new);
            let source = volume.lookup(directory, name.as_bytes()).map(|found| found.inode);
            let renamed =
                volume.rename(directory, name.as_bytes(), to, new.as_bytes(), RenameFlags::default());
            if let Some(target) = target {
                if renamed.is_ok() && source != Ok(target) && volume.attributes(target).unwrap().nlink == 0 {
                    history.removed.insert(read_file(volume, target));
                }
                volume.forget(target, 1);
            }
        }
        17 => {
            let Ok(file) = volume.lookup(directory, name.as_bytes()) else { return };
            let changes =
                SetAttributes { mode: Some(0o600), mtime: Some(file.atime), ..SetAttributes::default() };
            // The other may have removed it meanwhile.
            let _ = volume.set_attributes(file.inode, &changes);
        }
        18 => {
            let name = format!("directory {}", random.random_range(0..3));
            let _ = volume.make_directory(ROOT, name.as_bytes(), 0o755, &USER);
        }
        _ => {
            let name = format!("directory {}", random.random_range(0..3));
            let _ = volume.remove_directory(ROOT, name.as_bytes());
        }
    }
}

#[test]
fn every_version_is_kept_whole_or_was_replaced_by_who_saw_it() {
    let seed = seed();
    for story in 0..12 {
        reactor::run(|| {
            let context = format!("HYPHA_SEED={seed} story {story}");
            let mut random = StdRng::seed_from_u64(seed ^ story);
            let store = TestStore::new();
            let volumes = [create(&store), open(&store, "second")];
            let mut history = History::default();
            for round in 0..120 {
                let side = random.random_range(0..2);
                let context = format!("{context} round {round} side {side}");
                let volume = &volumes[side];
                one_change(volume, &mut history, &mut random, &context);
                match random.random_range(0..12) {
                    0 => volume.sync(None, false).unwrap(),
                    1 => {
                        let volume = volume.clone();
                        reactor::spawn(move || volume.sync(None, false));
                    }
                    2 => reactor::yield_now(),
                    _ => {}
                }
            }
            settle(&volumes);
            let found = files(&open(&store, "third"));
            assert!(
                found == files(&volumes[0]) && found == files(&volumes[1]),
                "{context}: all see the same"
            );
            let there: HashSet<&Content> = found.values().collect();
            for (path, content) in &found {
                assert!(history.made.contains(content), "{context}: nobody wrote what is in {path}");
                let is_replaced = history.replaced.contains_key(content) && !history.ended_removed(content);
                assert!(!is_replaced, "{context}: what is in {path} was replaced");
            }
            for made in &history.made {
                let is_over = history.replaced.contains_key(made)
                    || history.removed.contains(made)
                    || history.perhaps_replaced.contains(made);
                assert!(
                    is_over || there.contains(made),
                    "{context}: a version of {} bytes is lost",
                    made.len()
                );
            }
        });
    }
}

#[test]
fn every_line_that_either_appended_is_there_once_and_in_order() {
    let seed = seed();
    for story in 0..12 {
        reactor::run(|| {
            let context = format!("HYPHA_SEED={seed} story {story}");
            let mut random = StdRng::seed_from_u64(seed ^ story);
            let store = TestStore::new();
            let first = create(&store);
            let log = write_file(&first, ROOT, "log", b"");
            first.sync(None, false).unwrap();
            let volumes = [first, open(&store, "second")];
            let mut counts = [0; 2];
            for _ in 0..100 {
                let side = random.random_range(0..2);
                let line = format!("{side} {} {}\n", counts[side], "x".repeat(random.random_range(0..3000)));
                counts[side] += 1;
                volumes[side].append(log, line.as_bytes(), false).unwrap();
                match random.random_range(0..6) {
                    0 => volumes[side].sync(None, false).unwrap(),
                    1 => {
                        let volume = volumes[side].clone();
                        reactor::spawn(move || volume.sync(None, false));
                    }
                    2 => reactor::yield_now(),
                    _ => {}
                }
            }
            settle(&volumes);
            let third = open(&store, "third");
            assert_eq!(names(&third, ROOT), ["log"], "{context}");
            let content = String::from_utf8(read_file(&third, log)).unwrap();
            let mut seen = [0; 2];
            for line in content.lines() {
                let mut words = line.split(' ');
                let side: usize = words.next().unwrap().parse().unwrap();
                assert_eq!(words.next().unwrap().parse(), Ok(seen[side]), "{context}: {line:.20}");
                seen[side] += 1;
            }
            assert_eq!(seen, counts, "{context}");
        });
    }
}
