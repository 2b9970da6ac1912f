//! What the stories share: a volume over a store in memory that can be made to fail, and a seed that replays.

#![allow(dead_code, reason = "each story uses its part")]

pub(crate) mod kept;
pub(crate) mod model;
pub(crate) mod objects;

use std::cell::Cell;
use std::collections::HashSet;
use std::io::Write;
use std::ops::Range;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use dht::{
    Address, BlockStore, GetError, HeaderHash, MemoryBlockStore, OwnerTag, PutError, ReadError, Record,
    RegisterAddress, SwapError, Usage,
};
use filesystem::operations::{Credentials, FileKind, ReadBytes};
use filesystem::{Attributes, Inode, Operations, Options, Volume, VolumeKeys};
use reactor::cell::RefCell;
use reactor::crypto::X25519Secret;

pub(crate) const ROOT: Inode = Inode::ROOT;
pub(crate) const USER: Credentials = Credentials { uid: 1000, gid: 1000, umask: 0 };

/// A store in memory whose changes fail from a point on.
pub(crate) struct TestStore {
    pub(crate) memory: MemoryBlockStore,
    /// How many more puts and swaps succeed.
    pub(crate) budget: Cell<u64>,
    /// Reads fail too once the budget is spent.
    pub(crate) reads_fail: Cell<bool>,
    /// Each call suspends, as a network's would.
    pub(crate) yields: Cell<bool>,
    /// Swaps get no answer, and have no effect.
    pub(crate) hangs: Cell<bool>,
    /// Runs right after the next swap that succeeds, whose answer is then lost.
    pub(crate) after_swap: RefCell<Option<Box<dyn FnOnce()>>>,
    pub(crate) swaps: Cell<u64>,
    pub(crate) put_bytes: Cell<u64>,
    pub(crate) gets: Cell<u64>,
    /// Gets that failed.
    pub(crate) failed_gets: Cell<u64>,
    /// Where what was ever got begins.
    pub(crate) seen: RefCell<HashSet<(Address, u32)>>,
    /// Once it is set, only that can be got, as from a cache whose nodes are away.
    pub(crate) only_seen: Cell<bool>,
    pub(crate) got_bytes: Cell<u64>,
}

impl TestStore {
    pub(crate) fn new() -> Rc<TestStore> {
        Rc::new(TestStore {
            memory: MemoryBlockStore::new(),
            budget: Cell::new(u64::MAX),
            reads_fail: Cell::new(false),
            yields: Cell::new(true),
            hangs: Cell::new(false),
            after_swap: RefCell::new(None),
            swaps: Cell::new(0),
            put_bytes: Cell::new(0),
            gets: Cell::new(0),
            failed_gets: Cell::new(0),
            seen: RefCell::default(),
            only_seen: Cell::new(false),
            got_bytes: Cell::new(0),
        })
    }

    fn spend(&self) -> bool {
        if self.yields.get() {
            reactor::yield_now();
        }
        let left = self.budget.get();
        self.budget.set(left.saturating_sub(1));
        left > 0
    }
}

impl BlockStore for TestStore {
    fn tag(&self) -> OwnerTag {
        self.memory.tag()
    }

    fn put(&self, content: Bytes) -> Result<Address, PutError> {
        if !self.spend() {
            return Err(PutError::NoQuorum { durable: 0, needed: 1, reason: "the test says so".into() });
        }
        self.put_bytes.set(self.put_bytes.get() + content.len() as u64);
        self.memory.put(content)
    }

    fn get(&self, address: &Address, range: Option<Range<u32>>) -> Result<Bytes, GetError> {
        if self.yields.get() {
            reactor::yield_now();
        }
        if self.reads_fail.get() && self.budget.get() == 0 {
            self.failed_gets.set(self.failed_gets.get() + 1);
            return Err(GetError::Unreachable { address: *address, reason: "the test says so".into() });
        }
        let place = (*address, range.as_ref().map_or(0, |range| range.start));
        if self.only_seen.get() && !self.seen.borrow().contains(&place) {
            self.failed_gets.set(self.failed_gets.get() + 1);
            return Err(GetError::NotHere(*address));
        }
        let content = self.memory.get(address, range)?;
        self.seen.borrow_mut().insert(place);
        self.gets.set(self.gets.get() + 1);
        self.got_bytes.set(self.got_bytes.get() + content.len() as u64);
        Ok(content)
    }

    fn read(&self, register: &RegisterAddress) -> Result<Option<Record>, ReadError> {
        if self.yields.get() {
            reactor::yield_now();
        }
        self.memory.read(register)
    }

    fn compare_and_swap(
        &self,
        register: &RegisterAddress,
        expected: Option<HeaderHash>,
        payload: Bytes,
    ) -> Result<Record, SwapError> {
        while self.hangs.get() {
            reactor::sleep(Duration::from_millis(5));
        }
        if !self.spend() {
            return Err(SwapError::Unknown { reason: "the test says so".into() });
        }
        self.swaps.set(self.swaps.get() + 1);
        let result = self.memory.compare_and_swap(register, expected, payload);
        // Whatever the story is about, the records of objects are exact. It takes a walk over the tree: not each time.
        if result.is_ok() && (self.swaps.get().is_power_of_two() || self.swaps.get().is_multiple_of(16)) {
            let check = || objects::check(&self.memory, &keys(self));
            if let Err(panic) = std::panic::catch_unwind(std::panic::AssertUnwindSafe(check)) {
                // A panic would end the committer only, and the story would wait for ever. Not through `eprintln`, which
                // keeps it for the end of the test.
                let why = panic.downcast_ref::<String>().map_or("", String::as_str);
                let _ = writeln!(std::io::stderr(), "objects are miscounted: {why}");
                std::process::abort();
            }
        }
        let after = self.after_swap.borrow_mut().take_if(|_| result.is_ok());
        match after {
            Some(after) => {
                after();
                Err(SwapError::Unknown { reason: "the answer is lost".into() })
            }
            None => result,
        }
    }

    fn usage(&self) -> Result<Usage, ReadError> {
        self.memory.usage()
    }
}

pub(crate) fn keys(store: &TestStore) -> VolumeKeys {
    let register = store.memory.new_register([7; 32]);
    VolumeKeys { register, secret: X25519Secret::from_bytes(&[9; 32]), readers: Vec::new() }
}

pub(crate) fn options(author: &str) -> Options {
    let mut options = Options::default();
    options.author = author.into();
    // Each is a machine of its own.
    options.device =
        author.bytes().fold(1, |device, byte| device.wrapping_mul(31).wrapping_add(u64::from(byte)));
    options.commit_interval = Duration::from_secs(3600);
    options.sync_patience = Duration::from_millis(200);
    options
}

pub(crate) fn create(store: &Rc<TestStore>) -> Rc<Volume> {
    Volume::create(store.clone(), keys(store), options("first"), (1000, 1000)).expect("a volume is created")
}

pub(crate) fn open(store: &Rc<TestStore>, author: &str) -> Rc<Volume> {
    Volume::open(store.clone(), keys(store), options(author)).expect("the volume opens")
}

pub(crate) fn make_file(volume: &Volume, parent: Inode, name: &str) -> Attributes {
    volume.make_node(parent, name.as_bytes(), FileKind::Regular, 0o644, 0, &USER).expect("a file is created")
}

pub(crate) fn write_file(volume: &Volume, parent: Inode, name: &str, content: &[u8]) -> Inode {
    let file = make_file(volume, parent, name).inode;
    volume.write(file, 0, content, false).expect("the file is written");
    file
}

pub(crate) fn flatten(bytes: &ReadBytes) -> Vec<u8> {
    bytes.iter().flat_map(|slice| slice.iter().copied()).collect()
}

pub(crate) fn read_file(volume: &Volume, file: Inode) -> Vec<u8> {
    let size = volume.attributes(file).expect("the file is there").size;
    let mut content = Vec::new();
    while (content.len() as u64) < size {
        let piece = volume.read(file, content.len() as u64, 128 * 1024).expect("the file reads");
        assert!(!piece.is_empty());
        content.extend(flatten(&piece));
    }
    content
}

pub(crate) fn names(volume: &Volume, directory: Inode) -> Vec<String> {
    let mut names = Vec::new();
    let mut cookie = 0;
    loop {
        let entries = volume.read_directory(directory, cookie, 7, false).expect("the directory lists");
        let Some(last) = entries.last() else { break };
        cookie = last.cookie;
        names.extend(entries.iter().map(|entry| String::from_utf8_lossy(&entry.name).into_owned()));
    }
    names.retain(|name| name != "." && name != "..");
    names.sort();
    names
}

pub(crate) fn seed() -> u64 {
    let seed = match std::env::var("HYPHA_SEED") {
        Ok(seed) => seed.parse().expect("HYPHA_SEED is a number"),
        Err(_) => u64::from_le_bytes(reactor::crypto::random_bytes()),
    };
    println!("HYPHA_SEED={seed}");
    seed
}

/// The files that have groups in a journal's directory.
pub(crate) fn journal_files(directory: &std::path::Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| path.file_name().unwrap().to_string_lossy().starts_with("journal-")).collect()
}
