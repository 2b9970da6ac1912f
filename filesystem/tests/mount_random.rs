//! Random reads, writes, truncations, holes and renames on one file, against an array of bytes: what `fsx` has found bugs
//! with in most file systems. The seed is printed; `HYPHA_SEED` replays it.

mod support;

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rustix::fs::FallocateFlags;
use support::{common, with_mount};

const SIZE_MAX: usize = 400_000;
const STEPS: usize = 600;

fn open(path: &Path) -> File {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).unwrap()
}

fn story(root: PathBuf) {
    let seed = common::seed();
    let mut random = StdRng::seed_from_u64(seed);
    let mut path = root.join("file");
    let mut file = open(&path);
    let mut model: Vec<u8> = Vec::new();
    for step in 0..STEPS {
        let offset = random.random_range(0..SIZE_MAX);
        // Mostly small, at times over many frames.
        let length = if random.random_bool(0.8) {
            random.random_range(1..5000)
        } else {
            random.random_range(1..150_000)
        };
        let end = (offset + length).min(SIZE_MAX);
        let length = end - offset;
        match random.random_range(0..100) {
            0..35 => {
                let data: Vec<u8> = (0..length).map(|_| random.random()).collect();
                file.write_all_at(&data, offset as u64).unwrap();
                model.resize(model.len().max(end), 0);
                model[offset..end].copy_from_slice(&data);
            }
            35..65 => {
                let mut data = vec![0; length];
                let got = read_fully(&file, &mut data, offset);
                let expected = model.get(offset..end.min(model.len())).unwrap_or(&[]);
                assert!(data[..got] == *expected, "step {step}: read {length} at {offset}");
            }
            65..75 => {
                file.set_len(offset as u64).unwrap();
                model.resize(offset, 0);
            }
            75..83 => {
                let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
                rustix::fs::fallocate(&file, flags, offset as u64, length as u64).unwrap();
                let hole = offset.min(model.len())..end.min(model.len());
                model[hole].fill(0);
            }
            83..87 => {
                rustix::fs::fallocate(&file, FallocateFlags::empty(), offset as u64, length as u64).unwrap();
                model.resize(model.len().max(end), 0);
            }
            87..90 => {
                rustix::fs::fallocate(&file, FallocateFlags::ZERO_RANGE, offset as u64, length as u64)
                    .unwrap();
                model.resize(model.len().max(end), 0);
                model[offset..end].fill(0);
            }
            90..93 => file.sync_all().unwrap(),
            93..95 => {
                // Where that is allowed, what comes next has to come from the file system.
                let _ = fs::write("/proc/sys/vm/drop_caches", "3");
            }
            95..97 => {
                let new = root.join(format!("file-{step}"));
                fs::rename(&path, &new).unwrap();
                path = new;
            }
            _ => {
                drop(file);
                file = open(&path);
            }
        }
        assert_eq!(file.metadata().unwrap().len(), model.len() as u64, "step {step}");
    }
    assert!(fs::read(&path).unwrap() == model);
    file.set_modified(std::time::SystemTime::now()).unwrap();
}

fn read_fully(file: &File, buffer: &mut [u8], offset: usize) -> usize {
    let mut got = 0;
    while got < buffer.len() {
        match file.read_at(&mut buffer[got..], (offset + got) as u64).unwrap() {
            0 => break,
            count => got += count,
        }
    }
    got
}

#[test]
fn a_file_is_an_array_of_bytes_whatever_is_done_to_it() {
    with_mount(story);
}
