//! What the size of frames costs: bytes stored and fetched, and time, of a database's small writes and reads here and there.
//!
//! `cargo run --release -p filesystem --example frame_sizes`; `docs/format.md` quotes it.

use std::cell::Cell;
use std::ops::Range;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use dht::{
    Address, BlockStore, GetError, HeaderHash, MemoryBlockStore, OwnerTag, PutError, ReadError, Record,
    RegisterAddress, SwapError, Usage,
};
use filesystem::operations::{Credentials, FileKind, XattrMode};
use filesystem::{Inode, Operations, Options, Volume, VolumeKeys};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use reactor::crypto::X25519Secret;

const USER: Credentials = Credentials { uid: 0, gid: 0, umask: 0 };
const FILE_SIZE: u64 = 256 << 20;
const PAGE_SIZE: usize = 4096;
const COUNT: u64 = 2000;

/// Counts what goes to a store and what comes from it.
#[derive(Default)]
struct Counted {
    memory: MemoryBlockStore,
    put_bytes: Cell<u64>,
    got_bytes: Cell<u64>,
}

impl BlockStore for Counted {
    fn tag(&self) -> OwnerTag {
        self.memory.tag()
    }

    fn put(&self, content: Bytes) -> Result<Address, PutError> {
        self.put_bytes.set(self.put_bytes.get() + content.len() as u64);
        self.memory.put(content)
    }

    fn get(&self, address: &Address, range: Option<Range<u32>>) -> Result<Bytes, GetError> {
        let content = self.memory.get(address, range)?;
        self.got_bytes.set(self.got_bytes.get() + content.len() as u64);
        Ok(content)
    }

    fn read(&self, register: &RegisterAddress) -> Result<Option<Record>, ReadError> {
        self.memory.read(register)
    }

    fn compare_and_swap(
        &self,
        register: &RegisterAddress,
        expected: Option<HeaderHash>,
        payload: Bytes,
    ) -> Result<Record, SwapError> {
        self.memory.compare_and_swap(register, expected, payload)
    }

    fn usage(&self) -> Result<Usage, ReadError> {
        self.memory.usage()
    }
}

/// Runs `operation` `COUNT` times at random pages, and says what each cost.
fn measure(what: &str, store: &Counted, random: &mut StdRng, mut operation: impl FnMut(u64)) {
    let (put, got, start) = (store.put_bytes.get(), store.got_bytes.get(), Instant::now());
    for _ in 0..COUNT {
        operation(random.random_range(0..FILE_SIZE / PAGE_SIZE as u64) * PAGE_SIZE as u64);
    }
    let micros = start.elapsed().as_micros() as u64 / COUNT;
    let (put, got) = ((store.put_bytes.get() - put) / COUNT, (store.got_bytes.get() - got) / COUNT);
    println!("  {what:<28} stored {put:>7}, fetched {got:>7} bytes, {micros:>5} us");
}

fn main() {
    for frame_size in [4096, 8192, 16384, 32768, 131_072] {
        reactor::run(|| run(frame_size));
    }
}

fn run(frame_size: usize) {
    let store = Rc::new(Counted::default());
    let register = store.memory.new_register([1; 32]);
    let keys = || VolumeKeys { register, secret: X25519Secret::from_bytes(&[2; 32]), readers: Vec::new() };
    let mut options = Options::default();
    options.commit_interval = Duration::from_secs(3600);
    options.cache_bytes = 32 << 20;
    let volume = Volume::create(store.clone(), keys(), options.clone(), (0, 0)).expect("a volume");
    let value = frame_size.to_string();
    let attribute = b"user.hypha.frame_size";
    volume.set_xattr(Inode::ROOT, attribute, value.as_bytes(), XattrMode::Set).expect("the attribute is set");
    let file =
        volume.make_node(Inode::ROOT, b"file", FileKind::Regular, 0o644, 0, &USER).expect("a file").inode;
    let mut random = StdRng::seed_from_u64(1);
    let content: Vec<u8> = (0..1 << 20).map(|_| random.random()).collect();
    let start = Instant::now();
    for offset in (0..FILE_SIZE).step_by(content.len()) {
        volume.write(file, offset, &content, false).expect("written");
    }
    volume.sync(None, false).expect("stored");
    let (put, seconds) = (store.put_bytes.get(), start.elapsed().as_secs_f64());
    let beside = (put.saturating_sub(FILE_SIZE)) >> 10;
    println!("frames of {frame_size}: {} MB/s, beside the content {beside} KiB", (256.0 / seconds) as u64);
    volume.close().stored().expect("stored");

    let volume = Volume::open(store.clone(), keys(), options).expect("the volume opens");
    let page = &content[..PAGE_SIZE];
    measure("read 4 KiB, mostly cold", &store, &mut random, |at| {
        assert_eq!(volume.read(file, at, PAGE_SIZE as u32).expect("read").len(), 1);
    });
    measure("write 4 KiB and sync", &store, &mut random, |at| {
        volume.write(file, at, page, false).expect("written");
        volume.sync(None, false).expect("stored");
    });
    let mut count = 0;
    measure("write 4 KiB, sync each 64th", &store, &mut random, |at| {
        volume.write(file, at, page, false).expect("written");
        count += 1;
        if count % 64 == 0 {
            volume.sync(None, false).expect("stored");
        }
    });
    volume.close().stored().expect("stored");
}
