//! How fast a volume is without FUSE, network and disk: creates, writes and reads over a store in memory.
//!
//! It shows what the tree, the encryption and the bookkeeping cost by themselves, and is what to run a profiler on:
//! `cargo run --release -p filesystem --example volume_speed [creates|large|small]`.

use std::rc::Rc;
use std::time::Instant;

use dht::MemoryBlockStore;
use filesystem::operations::{Credentials, FileKind};
use filesystem::{Inode, Operations, Options, Volume, VolumeKeys};
use reactor::crypto::X25519Secret;

const USER: Credentials = Credentials { uid: 0, gid: 0, umask: 0 };
const FILE_COUNT: usize = 10_000;
const LARGE_SIZE: usize = 512 << 20;
const REQUEST_SIZE: usize = 1 << 20;
const COMMIT_COUNT: usize = 2_000;

fn keys(store: &MemoryBlockStore) -> VolumeKeys {
    let register = store.new_register([1; 32]);
    VolumeKeys { register, secret: X25519Secret::from_bytes(&[2; 32]), readers: Vec::new() }
}

fn rate(what: &str, count: usize, unit: &str, start: Instant) {
    let seconds = start.elapsed().as_secs_f64();
    println!("{what:<40} {:>10.0} {unit}/s ({seconds:.3} s)", count as f64 / seconds);
}

fn creates(volume: &Volume) {
    let directory = volume.make_directory(Inode::ROOT, b"small", 0o755, &USER).expect("mkdir").inode;
    let content = [7u8; 4096];
    let start = Instant::now();
    for number in 0..FILE_COUNT {
        let name = format!("file-{number:06}");
        assert!(volume.lookup(directory, name.as_bytes()).is_err());
        let file =
            volume.make_node(directory, name.as_bytes(), FileKind::Regular, 0o644, 0, &USER).expect("create");
        volume.remember(file.inode);
        volume.write(file.inode, 0, &content, false).expect("write");
    }
    rate("create and write 4 KiB", FILE_COUNT, "files", start);
    let commit = Instant::now();
    volume.sync(None, false).expect("sync");
    rate("  and their commit", FILE_COUNT, "files", commit);
    rate("  both", FILE_COUNT, "files", start);
    let start = Instant::now();
    let (mut cookie, mut count) = (0, 0);
    loop {
        let page = volume.read_directory(directory, cookie, 100, true).expect("readdir");
        let Some(last) = page.last() else { break };
        cookie = last.cookie;
        count += page.len();
    }
    rate("list with attributes", count, "names", start);
    let start = Instant::now();
    for number in 0..FILE_COUNT {
        volume.lookup(directory, format!("file-{number:06}").as_bytes()).expect("lookup");
    }
    rate("lookup", FILE_COUNT, "names", start);
    let start = Instant::now();
    for number in 0..FILE_COUNT {
        let name = format!("file-{number:06}");
        let inode = volume.lookup(directory, name.as_bytes()).expect("lookup").inode;
        volume.unlink(directory, name.as_bytes()).expect("unlink");
        volume.forget(inode, 1);
        reactor::yield_now();
    }
    volume.sync(None, false).expect("sync");
    rate("remove, and the commit", FILE_COUNT, "files", start);
}

fn sequential(store: &Rc<MemoryBlockStore>, volume: Rc<Volume>) -> Rc<Volume> {
    let file =
        volume.make_node(Inode::ROOT, b"large", FileKind::Regular, 0o644, 0, &USER).expect("create").inode;
    let data: Vec<u8> = (0..REQUEST_SIZE).map(|index| (index * 31 % 253) as u8).collect();
    let start = Instant::now();
    for number in 0..LARGE_SIZE / REQUEST_SIZE {
        volume.write(file, (number * REQUEST_SIZE) as u64, &data, false).expect("write");
        reactor::yield_now();
    }
    volume.sync(Some(file), false).expect("sync");
    rate("write in sequence and fsync", LARGE_SIZE >> 20, "MiB", start);
    volume.close().stored().expect("close");

    let volume = Volume::open(store.clone(), keys(store), Options::default()).expect("open");
    let start = Instant::now();
    let mut at = 0;
    while at < LARGE_SIZE {
        at += volume
            .read(file, at as u64, 128 << 10)
            .expect("read")
            .iter()
            .map(|slice| slice.len())
            .sum::<usize>();
        reactor::yield_now();
    }
    rate("remounted, read in sequence", LARGE_SIZE >> 20, "MiB", start);
    let start = Instant::now();
    let mut position = 12_345u64;
    for _ in 0..2_000 {
        position = position.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let offset = (position >> 20) % (LARGE_SIZE as u64 / 4096) * 4096;
        volume.read(file, offset, 4096).expect("read");
    }
    rate("random 4 KiB reads", 2_000, "reads", start);
    volume
}

fn small_commits(volume: &Volume) {
    let file =
        volume.make_node(Inode::ROOT, b"database", FileKind::Regular, 0o644, 0, &USER).expect("create").inode;
    volume.write(file, 0, &vec![1; 4 << 20], false).expect("write");
    volume.sync(Some(file), false).expect("sync");
    let start = Instant::now();
    for number in 0..COMMIT_COUNT {
        let offset = (number * 7919 % 1024) as u64 * 4096;
        volume.write(file, offset, &[number as u8; 4096], false).expect("write");
        volume.sync(Some(file), true).expect("sync");
    }
    rate("write 4 KiB and fsync", COMMIT_COUNT, "commits", start);
}

fn main() {
    let only = std::env::args().nth(1);
    let runs = |what: &str| only.as_deref().is_none_or(|only| only == what);
    reactor::run(|| {
        let store = Rc::new(MemoryBlockStore::new());
        let mut volume =
            Volume::create(store.clone(), keys(&store), Options::default(), (0, 0)).expect("create");
        if runs("creates") {
            creates(&volume);
        }
        if runs("large") {
            volume = sequential(&store, volume);
        }
        if runs("small") {
            small_commits(&volume);
        }
        volume.close().stored().expect("close");
    });
}
