//! Thousands of random operations on a volume and on a model of maps and vectors: every answer must be the same, through
//! commits in the background, remounts, and a cache too small for what is read.

mod common;

use common::model::Model;
use common::*;
use filesystem::operations::{AllocateMode, FileKind, RenameFlags, SetAttributes, XattrMode};
use filesystem::{Inode, Operations, Volume};
use rand::{RngExt, SeedableRng, rngs::StdRng};

const NAMES: [&str; 9] = ["a", "b", "c", "d", "e", "ä name", "f", "g", "h"];

/// One random operation on both. Returns what it was, for the message.
fn random_operation(random: &mut StdRng, volume: &Volume, model: &mut Model) -> String {
    let directories = model.directories();
    let files = model.files();
    let pick = |random: &mut StdRng, from: &[u64]| from[random.random_range(0..from.len())];
    let name = NAMES[random.random_range(0..NAMES.len())];
    let directory = pick(random, &directories);
    let file = (!files.is_empty()).then(|| pick(random, &files));
    match (random.random_range(0..100), file) {
        (0..15, _) => {
            let result =
                volume.make_node(Inode(directory), name.as_bytes(), FileKind::Regular, 0o644, 0, &USER);
            assert_eq!(result.map(|_| ()), model.can_make(directory, name), "create {name}");
            if let Ok(made) = result {
                model.make(directory, name, made.inode.0, FileKind::Regular);
            }
            format!("create {directory}/{name}")
        }
        (15..22, _) => {
            let result = volume.make_directory(Inode(directory), name.as_bytes(), 0o755, &USER);
            assert_eq!(result.map(|_| ()), model.can_make(directory, name), "mkdir {name}");
            if let Ok(made) = result {
                model.make(directory, name, made.inode.0, FileKind::Directory);
            }
            format!("mkdir {directory}/{name}")
        }
        (22..45, Some(file)) => {
            let offset = match random.random_range(0..3) {
                0 => 0,
                1 => model.content(file).len(),
                _ => random.random_range(0..150_000),
            };
            let size = if random.random_bool(0.2) {
                random.random_range(1..200_000)
            } else {
                random.random_range(1..5000)
            };
            let data = vec![random.random::<u8>(); size];
            volume.write(Inode(file), offset as u64, &data, false).unwrap();
            model.write(file, offset, &data);
            format!("write {file} at {offset}, {size} bytes")
        }
        (45..52, Some(file)) => {
            let size = random.random_range(0..200_000);
            let changes = SetAttributes { size: Some(size), ..SetAttributes::default() };
            volume.set_attributes(Inode(file), &changes).unwrap();
            model.content(file).resize(size as usize, 0);
            format!("truncate {file} to {size}")
        }
        (52..57, Some(file)) => {
            let (offset, length) = (random.random_range(0..150_000u64), random.random_range(1..100_000u64));
            let punch = AllocateMode { keep_size: true, punch_hole: true, ..AllocateMode::default() };
            volume.allocate(Inode(file), punch, offset, length).unwrap();
            let content = model.content(file);
            let (start, end) =
                (content.len().min(offset as usize), content.len().min((offset + length) as usize));
            content[start..end].fill(0);
            format!("punch {file} at {offset}, {length} bytes")
        }
        (57..65, Some(file)) => {
            let (offset, size) = (random.random_range(0..200_000usize), random.random_range(1..100_000usize));
            let found = flatten(&volume.read(Inode(file), offset as u64, size as u32).unwrap());
            let content = model.content(file);
            let (start, end) = (content.len().min(offset), content.len().min(offset + size));
            assert!(found == content[start..end], "read {file} at {offset}, {size} bytes");
            format!("read {file}")
        }
        (65..70, Some(file)) => {
            let result = volume.link(Inode(file), Inode(directory), name.as_bytes()).map(|_| ());
            assert_eq!(result, model.link(file, directory, name), "link");
            format!("link {file} as {directory}/{name}")
        }
        (70..80, _) => {
            let result = volume.unlink(Inode(directory), name.as_bytes());
            assert_eq!(result, model.unlink(directory, name), "unlink {directory}/{name}");
            format!("unlink {directory}/{name}")
        }
        (80..84, _) => {
            let result = volume.remove_directory(Inode(directory), name.as_bytes());
            assert_eq!(result, model.remove_directory(directory, name), "rmdir {directory}/{name}");
            format!("rmdir {directory}/{name}")
        }
        _ => {
            let to = pick(random, &directories);
            let new = NAMES[random.random_range(0..NAMES.len())];
            let flags = match random.random_range(0..6) {
                0 => RenameFlags { no_replace: true, exchange: false, ..RenameFlags::default() },
                1 => RenameFlags { no_replace: false, exchange: true, ..RenameFlags::default() },
                _ => RenameFlags::default(),
            };
            let result = volume.rename(Inode(directory), name.as_bytes(), Inode(to), new.as_bytes(), flags);
            let what = format!("rename {directory}/{name} to {to}/{new}, {flags:?}");
            assert_eq!(result, model.rename(directory, name, to, new, flags), "{what}");
            what
        }
    }
}

#[test]
fn thousands_of_random_operations_answer_as_the_model_does() {
    let seed = seed();
    reactor::run(|| {
        let mut random = StdRng::seed_from_u64(seed);
        let store = TestStore::new();
        let mut volume = create(&store);
        let mut model = Model::new();
        for round in 0..1500 {
            let context = format!("HYPHA_SEED={seed} round {round}");
            match random.random_range(0..200) {
                0 => {
                    volume.close().stored().unwrap();
                    let mut small = options("again");
                    small.cache_bytes = 100_000;
                    volume = Volume::open(store.clone(), keys(&store), small).unwrap();
                    model.check(&volume, &context);
                }
                1..4 => volume.sync(None, false).unwrap(),
                4..8 => {
                    // A commit that runs while the next operations go on.
                    let committing = volume.clone();
                    reactor::spawn(move || committing.sync(None, false));
                }
                8..20 => reactor::yield_now(),
                20..23 => {
                    // What is made from now on has other frames than what is there.
                    let size = ["4096", "8192", "16384", "32768"][random.random_range(0..4)];
                    let name = b"user.hypha.frame_size";
                    volume.set_xattr(ROOT, name, size.as_bytes(), XattrMode::Set).unwrap();
                }
                _ => {}
            }
            let what = random_operation(&mut random, &volume, &mut model);
            if round % 100 == 0 {
                model.check(&volume, &format!("{context} after {what}"));
            }
        }
        volume.close().stored().unwrap();
        model.check(&open(&store, "last"), &format!("HYPHA_SEED={seed} at the end"));
    });
}
