//! Where frames lie, and how large they are: a whole frame is one group of the store's verification, and a directory's
//! attribute says for its files how much a small write stores anew.

mod common;

use common::objects::count;
use common::*;
use dht::BlockStore;
use dht::address::GROUP_SIZE_BYTES;
use filesystem::access::{Root, open_root};
use filesystem::operations::{AllocateMode, RenameFlags, SetAttributes, XattrMode};
use filesystem::{Errno, Operations};

const FRAME_SIZE: &[u8] = b"user.hypha.frame_size";

fn root_of(store: &TestStore) -> Root {
    let record = store.memory.read(&keys(store).register).unwrap().unwrap();
    open_root(&record.payload, record.version, &keys(store).secret).unwrap()
}

#[test]
fn a_whole_frame_lies_in_one_group_whatever_was_written_with_it() {
    reactor::run(|| {
        let store = TestStore::new();
        let volume = create(&store);
        let small = volume.make_directory(ROOT, b"small", 0o755, &USER).unwrap().inode;
        volume.set_xattr(small, FRAME_SIZE, b"4096", XattrMode::Set).unwrap();
        for (number, size) in [20_000, 100_000, 32_768, 5000, 300_000, 65_536, 3000].into_iter().enumerate() {
            write_file(&volume, ROOT, &format!("file {number}"), &vec![7; size]);
            write_file(&volume, small, &format!("file {number}"), &vec![7; size]);
        }
        volume.close().stored().unwrap();
        let extents = count(&store.memory, &root_of(&store)).extents;
        let (mut whole, mut pages) = (0, 0);
        for extent in extents.iter().filter(|extent| extent.size.is_power_of_two()) {
            assert_eq!(extent.length, extent.size, "nothing is stored beside the content");
            let groups = extent.offset / GROUP_SIZE_BYTES as u32
                ..(extent.offset + extent.length).div_ceil(GROUP_SIZE_BYTES as u32);
            assert_eq!(groups.len(), 1, "{extent:?} lies in {groups:?}");
            whole += u32::from(extent.size as usize == GROUP_SIZE_BYTES);
            pages += u32::from(extent.size == 4096);
        }
        assert_eq!(whole, 3 + 1 + 9 + 2);
        assert_eq!(pages, 4 + 24 + 8 + 1 + 73 + 16);
    });
}

#[test]
fn files_have_the_frames_that_their_directory_says_for_good() {
    reactor::run(|| {
        let store = TestStore::new();
        let volume = create(&store);
        let directory = volume.make_directory(ROOT, b"database", 0o755, &USER).unwrap().inode;
        let before = write_file(&volume, directory, "before", &[1; 100_000]);
        volume.set_xattr(directory, FRAME_SIZE, b"4096", XattrMode::Set).unwrap();
        let inner = volume.make_directory(directory, b"inner", 0o755, &USER).unwrap().inode;
        let file = write_file(&volume, inner, "pages", &[1; 100_000]);
        volume.sync(None, false).unwrap();
        for (file, stored) in [(before, 40_000..60_000), (file, 4096..20_000)] {
            let put = store.put_bytes.get();
            volume.write(file, 50_000, &[2; 100], false).unwrap();
            volume.sync(None, false).unwrap();
            let put = store.put_bytes.get() - put;
            assert!(stored.contains(&put), "{put} bytes for a small write into {file:?}");
        }
        for wrong in [&b"5000"[..], b"2048", b"262144", b"", b"many", b"-1"] {
            assert_eq!(volume.set_xattr(directory, FRAME_SIZE, wrong, XattrMode::Set), Err(Errno::EINVAL));
        }
        let of_file = volume.set_xattr(file, FRAME_SIZE, b"4096", XattrMode::Set);
        assert_eq!(of_file, Err(Errno::EOPNOTSUPP), "its frames are numbered already");
        volume.remove_xattr(directory, FRAME_SIZE).unwrap();
        volume.close().stored().unwrap();

        // All that changes a file goes by its own frames, wherever it is now.
        let volume = open(&store, "second");
        volume.rename(inner, b"pages", ROOT, b"pages", RenameFlags::default()).unwrap();
        let mut model = vec![1; 100_000];
        model[50_000..50_100].fill(2);
        assert_eq!(read_file(&volume, file), model);
        let punch = AllocateMode { keep_size: true, punch_hole: true, ..AllocateMode::default() };
        volume.allocate(file, punch, 10_000, 30_000).unwrap();
        model[10_000..40_000].fill(0);
        let size = |size| SetAttributes { size: Some(size), ..SetAttributes::default() };
        volume.set_attributes(file, &size(70_001)).unwrap();
        volume.set_attributes(file, &size(90_000)).unwrap();
        model.truncate(70_001);
        model.resize(90_000, 0);
        volume.close().stored().unwrap();
        assert_eq!(read_file(&open(&store, "third"), file), model);
    });
}

#[test]
fn two_random_reads_that_follow_each_other_are_no_sequential_reader() {
    reactor::run(|| {
        let store = TestStore::new();
        let volume = create(&store);
        let content: Vec<u8> = (0..2_000_000_u32).flat_map(u32::to_le_bytes).collect();
        let file = write_file(&volume, ROOT, "file", &content);
        volume.close().stored().unwrap();
        let volume = open(&store, "second");
        for (offset, brings_nodes) in [(1_000_000, true), (1_500_000, false), (2_000_000, false)] {
            let got = store.got_bytes.get();
            let read = flatten(&volume.read(file, offset as u64, 4096).unwrap());
            assert_eq!(read, content[offset..offset + 4096]);
            // What is read ahead comes in the background.
            (0..100).for_each(|_| reactor::yield_now());
            let got = store.got_bytes.get() - got;
            assert!(brings_nodes || got < 150_000, "{got} bytes at {offset}");
        }
        let gets = store.gets.get();
        assert_eq!(read_file(&volume, file), content);
        let gets = store.gets.get() - gets;
        assert!(gets < 70, "{gets} fetches of 245 frames: from front to back they come many at a time");
    });
}
