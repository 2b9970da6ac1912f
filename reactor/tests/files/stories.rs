//! What files promise, wherever they are: run over io_uring, over the pool, and on the simulated disk.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use reactor::fs::{self, File, FileKind, OpenOptions};
use reactor::{sleep, spawn, yield_now};

use super::{make_cold, with_files};

struct Random(u64);

impl Random {
    fn new() -> Random {
        let seed = match std::env::var("HYPHA_SEED") {
            Ok(seed) => seed.parse().expect("HYPHA_SEED is a number"),
            Err(_) => u64::from(std::process::id()) + 1,
        };
        println!("HYPHA_SEED={seed}");
        Random(seed)
    }

    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % end as u64) as usize
    }
}

/// Other tests of this program use the disk too, so the count is waited for, and only its return to nothing counts.
fn wait_until_nothing_is_in_flight() {
    let deadline = Instant::now() + Duration::from_secs(60);
    while fs::operations_in_flight() > 0 {
        assert!(Instant::now() < deadline, "{} operations never ended", fs::operations_in_flight());
        sleep(Duration::from_millis(1));
    }
}

#[test]
fn what_is_written_at_a_place_is_read_there() {
    with_files(|directory| {
        const LENGTH: usize = 3 << 20;
        let mut random = Random::new();
        let path = directory.join("file");
        let file = OpenOptions::new().read(true).write(true).create(true).open(&path).unwrap();
        file.set_len(LENGTH as u64).unwrap();
        let mut model = vec![0; LENGTH];
        for round in 0..60 {
            let length = 1 + random.below(if round % 3 == 0 { 2 << 20 } else { 9_000 });
            let at = random.below(LENGTH - length + 1);
            if random.below(2) == 0 {
                let content: Vec<u8> = (0..length).map(|n| (n * 31 + round) as u8).collect();
                model[at..at + length].copy_from_slice(&content);
                match random.below(5) {
                    0 | 1 => file.write_all_at(&content, at as u64).unwrap(),
                    2 | 3 => file.write_chunk_at(content.into(), at as u64).unwrap(),
                    _ => file.write_durably_at(content.into(), at as u64).unwrap(),
                }
            } else {
                let mut content = vec![0; length];
                if random.below(3) == 0 {
                    make_cold(&path);
                }
                file.read_exact_at(&mut content, at as u64).unwrap();
                assert!(content == model[at..at + length], "round {round}: {length} bytes at {at}");
            }
        }
        file.sync_data().unwrap();
        file.sync_all().unwrap();
        assert!(fs::read(&path, LENGTH).unwrap() == model);
        assert_eq!(file.read_at(&mut [0; 10], LENGTH as u64).unwrap(), 0);
        assert_eq!(file.read_chunk_at(10, LENGTH as u64 + 5).unwrap(), b"");
        assert_eq!(file.read_chunk_at(10, LENGTH as u64 - 4).unwrap().len(), 4);
    });
}

#[test]
fn reading_and_writing_in_turn_keeps_one_position() {
    with_files(|directory| {
        let path = directory.join("file");
        let mut file = OpenOptions::new().read(true).write(true).create_new(true).open(path).unwrap();
        file.write_all(b"one two three").unwrap();
        file.seek(SeekFrom::Start(4)).unwrap();
        let mut word = [0; 3];
        file.read_exact(&mut word).unwrap();
        assert_eq!(&word, b"two");
        file.seek(SeekFrom::End(-5)).unwrap();
        let mut rest = String::new();
        file.read_to_string(&mut rest).unwrap();
        assert_eq!(rest, "three");
        assert_eq!(file.seek(SeekFrom::Current(-100)).unwrap_err().kind(), ErrorKind::InvalidInput);
        assert_eq!(file.stream_position().unwrap(), 13);
    });
}

#[test]
fn a_file_longer_than_the_limit_is_refused_and_one_as_long_is_not() {
    with_files(|directory| {
        let path = directory.join("file");
        let content = vec![7; (1 << 20) + 5];
        fs::write(&path, &content).unwrap();
        assert_eq!(fs::read(&path, content.len() - 1).unwrap_err().kind(), ErrorKind::FileTooLarge);
        assert!(fs::read(&path, content.len()).unwrap() == content);
        fs::write(&path, b"").unwrap();
        assert_eq!(fs::read(&path, 0).unwrap(), b"");
    });
}

#[test]
fn an_appending_file_writes_at_its_end_wherever_it_is_told_to() {
    with_files(|directory| {
        let path = directory.join("log");
        for line in [b"one\n", b"two\n"] {
            let log = OpenOptions::new().append(true).create(true).open(&path).unwrap();
            log.write_all_at(line, 0).unwrap();
        }
        assert_eq!(fs::read(&path, 100).unwrap(), b"one\ntwo\n");
    });
}

#[test]
fn a_file_opens_only_as_it_was_asked_to() {
    with_files(|directory| {
        let (path, link) = (directory.join("file"), directory.join("link"));
        let kind = |options: &OpenOptions, path: &Path| options.open(path).unwrap_err().kind();
        assert_eq!(kind(OpenOptions::new().read(true), &path), ErrorKind::NotFound);
        fs::write(&path, b"old").unwrap();
        fs::symlink("file", &link).unwrap();
        assert_eq!(kind(OpenOptions::new().write(true).create_new(true), &path), ErrorKind::AlreadyExists);
        assert_eq!(kind(&OpenOptions::new(), &path), ErrorKind::InvalidInput);
        assert_eq!(kind(OpenOptions::new().read(true).truncate(true), &path), ErrorKind::InvalidInput);
        let both = OpenOptions::new().append(true).truncate(true).clone();
        assert_eq!(kind(&both, &path), ErrorKind::InvalidInput);
        assert!(OpenOptions::new().read(true).no_follow(true).open(&link).is_err());
        assert_eq!(fs::read(&link, 10).unwrap(), b"old");
        let reader = File::open(&path).unwrap();
        assert!(reader.write_at(b"x", 0).is_err());
        let made =
            OpenOptions::new().write(true).create_new(true).mode(0o600).open(directory.join("new")).unwrap();
        assert_eq!(made.metadata().unwrap().mode, 0o600);
    });
}

#[test]
fn a_lock_held_by_one_handle_is_refused_to_another_until_it_closes() {
    with_files(|directory| {
        let path = directory.join("lock");
        fs::write(&path, b"").unwrap();
        let (first, second) = (File::open(&path).unwrap(), File::open(&path).unwrap());
        assert!(first.try_lock().unwrap());
        assert!(!second.try_lock().unwrap());
        first.unlock().unwrap();
        assert!(second.try_lock().unwrap());
        assert!(!first.try_lock().unwrap());
        drop(second);
        assert!(first.try_lock().unwrap());
    });
}

#[test]
fn a_coroutine_that_waits_for_a_file_lets_others_run() {
    with_files(|directory| {
        let file = Rc::new(File::create(directory.join("file")).unwrap());
        // A new coroutine runs until it first suspends. Another thread may be done even before it comes to wait, but
        // not every time.
        let suspended = (0..100).any(|_| {
            let file = file.clone();
            let writer = spawn(move || file.write_all_at(&[1; 100_000], 0).and_then(|()| file.sync_all()));
            let suspended = !writer.is_finished();
            writer.join().unwrap().unwrap();
            suspended
        });
        assert!(suspended);
    });
}

#[test]
fn a_coroutine_terminated_in_a_read_leaves_the_file_usable_and_no_buffer_behind() {
    with_files(|directory| {
        const BLOCK: usize = 256 << 10;
        let path = directory.join("file");
        let content: Vec<u8> = (0..4 * BLOCK).map(|n| (n / 7) as u8).collect();
        fs::write(&path, &content).unwrap();
        let file = Rc::new(File::open(&path).unwrap());
        let mut random = Random::new();
        let mut cut_count = 0;
        for round in 0..60 {
            make_cold(&path);
            let mut reader = {
                let file = file.clone();
                Some(spawn(move || file.read_chunk_at(BLOCK, ((round % 4) * BLOCK) as u64)))
            };
            for _ in 0..random.below(3) {
                yield_now();
            }
            if random.below(2) == 0 {
                sleep(Duration::from_micros(random.below(300) as u64));
            }
            let reader = reader.take().unwrap();
            reader.terminate();
            match reader.join() {
                Ok(read) => {
                    let read = read.unwrap();
                    assert!(content[(round % 4) * BLOCK..].starts_with(&read), "a read that ended is whole");
                }
                Err(_) => cut_count += 1,
            }
        }
        assert!(cut_count > 0, "none was terminated in its read");
        wait_until_nothing_is_in_flight();
        // By position too: a terminated read has not moved it.
        let mut all = Vec::new();
        (&*file).read_to_end(&mut all).unwrap();
        assert!(all == content);
    });
}

#[test]
fn a_coroutine_terminated_in_a_write_leaves_the_file_usable_and_no_buffer_behind() {
    struct Counted(Vec<u8>, #[expect(dead_code, reason = "counted")] Arc<()>);
    impl AsRef<[u8]> for Counted {
        fn as_ref(&self) -> &[u8] {
            &self.0
        }
    }
    with_files(|directory| {
        const BLOCK: usize = 512 << 10;
        let path = directory.join("file");
        let file = Rc::new(OpenOptions::new().read(true).write(true).create(true).open(&path).unwrap());
        let buffers = Arc::new(());
        let mut cut_count = 0;
        for round in 1..=60u8 {
            let bytes = Bytes::from_owner(Counted(vec![round; BLOCK], buffers.clone()));
            let writer = spawn({
                let file = file.clone();
                move || file.write_chunk_at(bytes, 0).and_then(|()| file.sync_data())
            });
            for _ in 0..round % 3 {
                yield_now();
            }
            writer.terminate();
            cut_count += u32::from(writer.join().is_err());
        }
        assert!(cut_count > 0, "none was terminated in its write");
        wait_until_nothing_is_in_flight();
        assert_eq!(Arc::strong_count(&buffers), 1, "buffers are left behind");
        file.write_all_at(&vec![99; BLOCK], 0).unwrap();
        assert!(fs::read(&path, BLOCK).unwrap() == vec![99; BLOCK]);
    });
}

#[test]
fn a_timeout_cuts_file_work_short() {
    with_files(|directory| {
        let file =
            OpenOptions::new().read(true).write(true).create(true).open(directory.join("file")).unwrap();
        let cut = (0..1000u32).any(|n| {
            file.write_all_at(&n.to_le_bytes(), 0).unwrap();
            reactor::timeout(Duration::ZERO, || file.sync_all().unwrap()).is_err()
        });
        assert!(cut, "no sync of a thousand was cut short");
        file.write_all_at(b"on", 0).unwrap();
        assert_eq!(file.read_chunk_at(2, 0).unwrap(), b"on");
    });
}

#[test]
fn a_destructor_that_uses_a_file_while_unwinding_is_told_so_at_once() {
    struct Uses(File, PathBuf, Rc<Cell<u32>>);
    impl Drop for Uses {
        fn drop(&mut self) {
            for result in [self.0.sync_all(), fs::remove_file(&self.1), fs::read_dir("/").map(drop)] {
                assert_eq!(result.unwrap_err().kind(), ErrorKind::WouldBlock);
                self.2.set(self.2.get() + 1);
            }
        }
    }
    with_files(|directory| {
        let path = directory.join("file");
        let seen = Rc::new(Cell::new(0));
        let uses = Uses(File::create(&path).unwrap(), path, seen.clone());
        let sleeper = spawn(move || {
            let _uses = uses;
            sleep(Duration::from_secs(3600));
        });
        sleeper.terminate();
        assert!(sleeper.join().is_err());
        assert_eq!(seen.get(), 3);
    });
}

#[test]
fn names_are_made_changed_and_removed() {
    with_files(|directory| {
        let deep = directory.join("a/b/c");
        assert_eq!(fs::create_dir(&deep).unwrap_err().kind(), ErrorKind::NotFound);
        fs::create_dir_all(&deep).unwrap();
        fs::create_dir_all(&deep).unwrap();
        let file = deep.join("file");
        fs::write(&file, b"content").unwrap();
        assert!(fs::create_dir_all(file.join("below")).is_err());
        assert_eq!(fs::create_dir_all(&file).unwrap_err().kind(), ErrorKind::AlreadyExists);

        let second = directory.join("second");
        fs::hard_link(&file, &second).unwrap();
        assert_eq!(fs::hard_link(&file, &second).unwrap_err().kind(), ErrorKind::AlreadyExists);
        let about = fs::metadata(&second).unwrap();
        assert!(about.is_file() && !about.is_dir());
        assert_eq!((about.len_bytes, about.link_count), (7, 2));
        assert_eq!(about, File::open(&file).unwrap().metadata().unwrap());
        let age = std::time::SystemTime::now().duration_since(about.modified).unwrap_or_default();
        assert!(age < Duration::from_secs(3600), "made just now, says it was {age:?} ago");

        let link = directory.join("link");
        fs::symlink("second", &link).unwrap();
        assert_eq!(fs::read_link(&link).unwrap(), Path::new("second"));
        assert_eq!(fs::symlink_metadata(&link).unwrap().kind, FileKind::Symlink);
        assert_eq!(fs::metadata(&link).unwrap(), fs::metadata(&second).unwrap());

        fs::rename(&file, directory.join("a/moved")).unwrap();
        fs::sync_dir(directory.join("a")).unwrap();
        assert_eq!(fs::metadata(&file).unwrap_err().kind(), ErrorKind::NotFound);
        assert_eq!(fs::read(directory.join("a/moved"), 10).unwrap(), b"content");
        assert_eq!(fs::remove_dir(directory.join("a")).unwrap_err().kind(), ErrorKind::DirectoryNotEmpty);
        fs::remove_dir(&deep).unwrap();
        fs::remove_file(&second).unwrap();
        assert_eq!(fs::metadata(&link).unwrap_err().kind(), ErrorKind::NotFound);
        fs::remove_dir_all(directory.join("a")).unwrap();
        assert_eq!(fs::metadata(directory.join("a")).unwrap_err().kind(), ErrorKind::NotFound);
    });
}

#[test]
fn a_large_directory_is_listed_whole() {
    with_files(|directory| {
        let mut names = BTreeSet::new();
        for n in 0..1500 {
            let name = format!("{n:04}-{}", "long".repeat(n % 40));
            fs::write(directory.join(&name), b"").unwrap();
            names.insert(name);
        }
        fs::create_dir(directory.join("directory")).unwrap();
        let mut found = BTreeSet::new();
        for entry in fs::read_dir(directory).unwrap() {
            let entry = entry.unwrap();
            let name = entry.name.into_string().unwrap();
            let expected = if name == "directory" { FileKind::Directory } else { FileKind::File };
            assert_eq!(entry.kind, expected);
            assert!(found.insert(name), "listed twice");
        }
        names.insert("directory".to_owned());
        assert_eq!(found, names);
        assert!(fs::read_dir(directory.join("none")).is_err());
        assert!(fs::read_dir(directory.join("0000-")).is_err());
    });
}

#[test]
fn a_walk_visits_everything_once_depth_first_and_follows_no_link() {
    with_files(|directory| {
        let root = directory.join("root");
        fs::create_dir_all(root.join("a/b")).unwrap();
        fs::create_dir_all(root.join("c")).unwrap();
        fs::create_dir(directory.join("outside")).unwrap();
        fs::write(directory.join("outside/secret"), b"").unwrap();
        for file in ["a/1", "a/b/2", "c/3", "4"] {
            fs::write(root.join(file), b"").unwrap();
        }
        // A circle, a way out, and a link to nothing.
        fs::symlink("../..", root.join("a/b/up")).unwrap();
        fs::symlink(directory.join("outside"), root.join("c/out")).unwrap();
        fs::symlink("nowhere", root.join("broken")).unwrap();

        let expected = ["4", "a", "a/1", "a/b", "a/b/2", "a/b/up", "broken", "c", "c/3", "c/out"];
        for contents_first in [false, true] {
            let mut found = Vec::new();
            for entry in fs::walk(&root).contents_first(contents_first) {
                let entry = entry.unwrap();
                let name = entry.path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
                assert_eq!(entry.depth, name.split('/').count());
                found.push(name);
            }
            for (at, name) in found.iter().enumerate() {
                // Depth first: all that lies in a directory stands right behind it, or right before it.
                let inside: Vec<usize> = found
                    .iter()
                    .enumerate()
                    .filter(|(_, other)| other.starts_with(&format!("{name}/")))
                    .map(|(index, _)| index)
                    .collect();
                let count = inside.len();
                let place = if contents_first { at - count..at } else { at + 1..at + 1 + count };
                assert_eq!(inside, place.collect::<Vec<_>>(), "below {name} in {found:?}");
            }
            found.sort();
            assert_eq!(found, expected);
        }

        let mut walk = fs::walk(&root);
        let mut found = BTreeSet::new();
        while let Some(entry) = walk.next() {
            let entry = entry.unwrap();
            if entry.path.ends_with("a") {
                walk.skip_contents();
            }
            found.insert(entry.path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned());
        }
        assert!(found.contains("a") && found.contains("c/3") && !found.contains("a/1"));

        fs::remove_dir_all(&root).unwrap();
        assert!(fs::metadata(directory.join("outside/secret")).is_ok(), "removing followed a link");
        let missing = fs::walk(&root).next().unwrap().unwrap_err();
        assert_eq!(missing.path, root);
    });
}

#[test]
fn a_walk_goes_on_behind_directories_too_deep_for_it() {
    with_files(|directory| {
        let mut deep = directory.to_owned();
        for _ in 0..fs::WALK_DEPTH_MAX + 20 {
            deep.push("d");
        }
        fs::create_dir_all(&deep).unwrap();
        fs::write(directory.join("z"), b"").unwrap();
        let (mut entries, mut errors) = (0, 0);
        for entry in fs::walk(directory) {
            match entry {
                Ok(_) => entries += 1,
                Err(error) => {
                    errors += 1;
                    assert_eq!(error.source.kind(), ErrorKind::QuotaExceeded);
                }
            }
        }
        assert_eq!((entries, errors), (fs::WALK_DEPTH_MAX + 1, 1));
    });
}

#[test]
fn a_directory_exchanged_for_a_link_during_a_walk_does_not_lead_it_out() {
    with_files(|directory| {
        let root = directory.join("root");
        fs::create_dir_all(root.join("inner")).unwrap();
        fs::create_dir(directory.join("outside")).unwrap();
        fs::write(directory.join("outside/secret"), b"").unwrap();
        let mut walk = fs::walk(&root);
        assert_eq!(walk.next().unwrap().unwrap().path, root.join("inner"));
        fs::remove_dir(root.join("inner")).unwrap();
        fs::symlink(directory.join("outside"), root.join("inner")).unwrap();
        let rest: Vec<_> = walk.collect();
        assert!(matches!(rest[..], [Err(_)]), "{rest:?}");
    });
}

#[test]
fn a_reader_of_a_file_that_is_replaced_atomically_sees_the_old_or_the_new_content_whole() {
    with_files(|directory| {
        const LENGTH: usize = 20_000;
        let path = directory.join("state");
        fs::write_atomically(&path, vec![0; LENGTH], 0o640).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode, 0o640);
        reactor::scope(|s| {
            let writer = s.spawn(|| {
                for round in 1..20u8 {
                    fs::write_atomically(&path, vec![round; LENGTH], 0o600).unwrap();
                }
            });
            while !writer.is_finished() {
                let content = fs::read(&path, LENGTH).unwrap();
                assert_eq!(content.len(), LENGTH);
                assert!(content.iter().all(|byte| *byte == content[0]), "a mixture");
                sleep(Duration::from_micros(200));
            }
        });
        assert!(fs::read(&path, LENGTH).unwrap() == vec![19; LENGTH]);
        assert_eq!(fs::metadata(&path).unwrap().mode, 0o640, "a file that is there keeps its permissions");
        assert!(fs::write_atomically("/", b"", 0o600).is_err());
    });
}

#[test]
fn replacing_a_file_that_is_broken_off_leaves_the_old_content_or_the_new_and_nothing_beside_it() {
    with_files(|directory| {
        let path = directory.join("state");
        fs::write_atomically(&path, [0; 1000], 0o600).unwrap();
        let mut random = Random::new();
        let mut cut_count = 0;
        for round in 1..=40u8 {
            let writer = spawn({
                let path = path.clone();
                move || fs::write_atomically(path, [round; 1000], 0o600)
            });
            sleep(Duration::from_micros(random.below(3000) as u64));
            writer.terminate();
            cut_count += u32::from(writer.join().is_err());
            let content = fs::read(&path, 1000).unwrap();
            assert!(content.len() == 1000 && content.iter().all(|byte| *byte == content[0]));
        }
        assert!(cut_count > 0, "none was broken off");
        wait_until_nothing_is_in_flight();
        let names: Vec<_> = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().name).collect();
        assert_eq!(names, ["state"]);
    });
}
