//! What is written, committed and closed is there when the volume is opened again, by someone with an empty cache.

mod common;

use common::*;
use filesystem::operations::{AllocateMode, RenameFlags, SetAttributes, Whence, XattrMode};
use filesystem::{Errno, OpenError, Operations, Volume};

#[test]
fn files_names_and_attributes_survive_a_remount() {
    reactor::run(|| {
        let store = TestStore::new();
        let volume = create(&store);
        let large: Vec<u8> = (0..3_000_000u32).map(|index| (index * 7 % 251) as u8).collect();
        let tiny = write_file(&volume, ROOT, "tiny", b"hello");
        let file = write_file(&volume, ROOT, "large", &large);
        let directory = volume.make_directory(ROOT, b"directory", 0o2755, &USER).unwrap().inode;
        let inner = write_file(&volume, directory, "inner", &[5; 5000]);
        volume.make_symlink(ROOT, b"link", b"directory/inner", &USER).unwrap();
        volume.link(inner, ROOT, b"hard").unwrap();
        volume.set_xattr(file, b"user.colour", b"blue", XattrMode::Create).unwrap();
        volume.close().stored().unwrap();

        let volume = open(&store, "second");
        assert_eq!(names(&volume, ROOT), ["directory", "hard", "large", "link", "tiny"]);
        assert_eq!(read_file(&volume, tiny), b"hello");
        assert!(read_file(&volume, file) == large);
        assert_eq!(read_file(&volume, volume.lookup(ROOT, b"hard").unwrap().inode), [5; 5000]);
        assert_eq!(volume.attributes(inner).unwrap().nlink, 2);
        assert_eq!(volume.attributes(ROOT).unwrap().nlink, 3);
        assert_eq!(volume.lookup(directory, b"..").unwrap().inode, ROOT);
        let link = volume.lookup(ROOT, b"link").unwrap();
        assert_eq!(volume.read_symlink(link.inode).unwrap(), "directory/inner");
        assert_eq!((link.size, link.mode), (15, 0o777));
        assert_eq!(volume.get_xattr(file, b"user.colour").unwrap(), "blue");
        assert_eq!(volume.list_xattr(file).unwrap(), ["user.colour"]);
        assert_eq!(volume.lookup(ROOT, b"none"), Err(Errno::ENOENT));
        volume.close().stored().unwrap();
    });
}

#[test]
fn a_random_read_fetches_one_frame() {
    reactor::run(|| {
        let store = TestStore::new();
        let volume = create(&store);
        let file = write_file(&volume, ROOT, "large", &vec![1; 8 << 20]);
        volume.close().stored().unwrap();
        let volume = open(&store, "second");
        volume.attributes(file).unwrap();
        volume.read(file, 0, 10).unwrap();
        let (gets, bytes) = (store.gets.get(), store.got_bytes.get());
        volume.read(file, 5 << 20, 4096).unwrap();
        assert!(store.gets.get() - gets <= 2, "at most a leaf and a frame");
        assert!(store.got_bytes.get() - bytes < 64 * 1024);
        volume.close().stored().unwrap();
    });
}

#[test]
fn holes_stay_holes_and_cut_tails_read_as_zeros() {
    reactor::run(|| {
        let store = TestStore::new();
        let volume = create(&store);
        let file = make_file(&volume, ROOT, "sparse").inode;
        volume.write(file, 1 << 30, b"end", false).unwrap();
        assert!(volume.attributes(file).unwrap().blocks_512 <= 64);
        assert_eq!(volume.seek(file, 0, Whence::Data), Ok(1 << 30));
        assert_eq!(volume.seek(file, 0, Whence::Hole), Ok(0));
        assert_eq!(volume.seek(file, 1 << 30, Whence::Hole), Ok((1 << 30) + 3));
        assert_eq!(volume.seek(file, 1 << 31, Whence::Data), Err(Errno::ENXIO));
        let size = |size| SetAttributes { size: Some(size), ..SetAttributes::default() };
        let other = write_file(&volume, ROOT, "cut", &[9; 100_000]);
        for commit in [false, true] {
            if commit {
                volume.sync(None, false).unwrap();
            }
            volume.set_attributes(other, &size(40_000)).unwrap();
            volume.set_attributes(other, &size(100_000)).unwrap();
            let content = read_file(&volume, other);
            assert!(content[..40_000].iter().all(|byte| *byte == 9));
            assert!(content[40_000..].iter().all(|byte| *byte == 0));
        }
        let punch = AllocateMode { keep_size: true, punch_hole: true, ..AllocateMode::default() };
        volume.allocate(other, punch, 10, 32_800).unwrap();
        let content = read_file(&volume, other);
        assert!(content[10..32_810].iter().all(|byte| *byte == 0) && content[9] == 9 && content[32_810] == 9);
        volume.allocate(other, AllocateMode::default(), 0, 200_000).unwrap();
        assert_eq!(volume.attributes(other).unwrap().size, 200_000);
        volume.close().stored().unwrap();
    });
}

#[test]
fn open_files_without_names_live_until_they_are_forgotten() {
    reactor::run(|| {
        let store = TestStore::new();
        let volume = create(&store);
        let file = write_file(&volume, ROOT, "file", &[3; 50_000]);
        volume.remember(file);
        volume.sync(None, false).unwrap();
        volume.unlink(ROOT, b"file").unwrap();
        volume.sync(None, false).unwrap();
        assert_eq!(read_file(&volume, file), [3; 50_000]);
        assert_eq!(volume.attributes(file).unwrap().nlink, 0);
        volume.forget(file, 1);
        reactor::yield_now();
        assert_eq!(volume.attributes(file), Err(Errno::ENOENT));
        let crashed = write_file(&volume, ROOT, "crashed", &[4; 50_000]);
        volume.remember(crashed);
        volume.unlink(ROOT, b"crashed").unwrap();
        volume.sync(None, false).unwrap();
        // No close: the process died with the file open. The next mount of this device removes it.
        let volume = open(&store, "first");
        reactor::yield_now();
        reactor::sleep(std::time::Duration::from_millis(5));
        assert_eq!(volume.attributes(crashed), Err(Errno::ENOENT));
        volume.close().stored().unwrap();
    });
}

#[test]
fn renames_replace_exchange_and_refuse_as_posix_says() {
    reactor::run(|| {
        let store = TestStore::new();
        let volume = create(&store);
        let plain = RenameFlags::default();
        let a = volume.make_directory(ROOT, b"a", 0o755, &USER).unwrap().inode;
        let b = volume.make_directory(a, b"b", 0o755, &USER).unwrap().inode;
        let file = write_file(&volume, ROOT, "file", b"1");
        let other = write_file(&volume, ROOT, "other", b"2");
        assert_eq!(volume.rename(ROOT, b"a", b, b"a", plain), Err(Errno::EINVAL));
        assert_eq!(volume.rename(ROOT, b"file", ROOT, b"a", plain), Err(Errno::EISDIR));
        assert_eq!(volume.rename(a, b"b", ROOT, b"file", plain), Err(Errno::ENOTDIR));
        let no_replace = RenameFlags { no_replace: true, exchange: false, ..RenameFlags::default() };
        assert_eq!(volume.rename(ROOT, b"file", ROOT, b"other", no_replace), Err(Errno::EEXIST));
        let exchange = RenameFlags { no_replace: false, exchange: true, ..RenameFlags::default() };
        volume.rename(ROOT, b"file", a, b"b", exchange).unwrap();
        assert_eq!(volume.lookup(a, b"b").unwrap().inode, file);
        assert_eq!(volume.lookup(ROOT, b"file").unwrap().inode, b);
        assert_eq!(volume.attributes(a).unwrap().nlink, 2);
        assert_eq!(volume.attributes(ROOT).unwrap().nlink, 4);
        assert_eq!(volume.lookup(b, b"..").unwrap().inode, ROOT);
        volume.rename(a, b"b", ROOT, b"other", plain).unwrap();
        reactor::yield_now();
        assert_eq!(volume.attributes(other).map(|found| found.nlink), Err(Errno::ENOENT));
        write_file(&volume, a, "x", b"");
        assert_eq!(volume.rename(ROOT, b"file", ROOT, b"a", plain), Err(Errno::ENOTEMPTY));
        assert_eq!(volume.remove_directory(ROOT, b"a"), Err(Errno::ENOTEMPTY));
        volume.unlink(a, b"x").unwrap();
        volume.rename(ROOT, b"file", ROOT, b"a", plain).unwrap();
        assert_eq!(volume.lookup(ROOT, b"a").unwrap().inode, b);
        assert_eq!(volume.attributes(ROOT).unwrap().nlink, 3);
        volume.close().stored().unwrap();
    });
}

#[test]
fn no_name_and_no_content_is_readable_in_the_store() {
    reactor::run(|| {
        let store = TestStore::new();
        let volume = create(&store);
        let directory = volume.make_directory(ROOT, b"a-very-telling-name", 0o755, &USER).unwrap().inode;
        write_file(&volume, directory, "another-telling-name", b"and telling content in a tiny file");
        write_file(&volume, directory, "larger", &b"telling content that repeats. ".repeat(2000));
        volume.set_xattr(directory, b"user.telling", b"telling value", XattrMode::Set).unwrap();
        volume.close().stored().unwrap();
        let root = store.memory.blocks();
        for (_, block) in root {
            assert!(!block.windows(7).any(|window| window == b"telling"));
        }
        let record = dht::BlockStore::read(&*store, &keys(&store).register).unwrap().unwrap();
        assert!(!record.payload.windows(5).any(|window| window == b"first"), "the author is sealed too");
    });
}

#[test]
fn flipped_bits_are_errors_and_never_content() {
    reactor::run(|| {
        let store = TestStore::new();
        let volume = create(&store);
        let file = write_file(&volume, ROOT, "file", &[8; 500_000]);
        volume.close().stored().unwrap();
        for (address, block) in store.memory.blocks() {
            let mut damaged = block.to_vec();
            let middle = damaged.len() / 2;
            damaged[middle] ^= 1;
            store.memory.corrupt(&address, damaged.into());
        }
        if let Ok(volume) = filesystem::Volume::open(store.clone(), keys(&store), options("second")) {
            match volume.read(file, 0, 500_000) {
                Err(errno) => assert_eq!(errno, Errno::EIO),
                Ok(_) => panic!("damaged content was read"),
            }
        }
    });
}

#[test]
fn of_two_that_create_a_volume_at_once_one_is_told_to_open_it() {
    reactor::run(|| {
        let store = TestStore::new();
        let make = |author: &'static str| {
            let store = store.clone();
            reactor::spawn(move || Volume::create(store.clone(), keys(&store), options(author), (0, 0)))
        };
        let results = [make("first"), make("second")].map(|handle| handle.join().unwrap());
        let made = results.iter().flatten().count();
        let told = results.iter().filter(|result| matches!(result, Err(OpenError::Exists))).count();
        assert_eq!((made, told), (1, 1));
    });
}

#[test]
fn a_store_that_is_down_makes_creating_fail_in_time() {
    reactor::run(|| {
        let store = TestStore::new();
        store.budget.set(0);
        let result = Volume::create(store.clone(), keys(&store), options("first"), (0, 0));
        assert!(matches!(result, Err(OpenError::Tree(Errno::ETIMEDOUT))));
    });
}
