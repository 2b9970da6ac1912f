//! Who writes: our store, fjall, redb, and nothing but a file.

use bytes::Bytes;
use dht::store::{Config, DiskStore, Key, Kind, Store};
use fjall::{KeyspaceCreateOptions, KvSeparationOptions, PersistMode};
use std::{
    cell::Cell,
    fs::File,
    io::{IoSlice, Read},
    path::Path,
    time::Instant,
};

/// What is to be written.
pub(crate) struct Work {
    pub(crate) name: &'static str,
    pub(crate) value_bytes: usize,
    /// How many writes are under way at once.
    pub(crate) group: usize,
    pub(crate) count: usize,
    /// How many keys there are, if they are rewritten.
    pub(crate) keys: Option<usize>,
}

impl Work {
    /// The key of the `n`-th write: scattered, as hashes are.
    fn key(&self, n: usize) -> [u8; 32] {
        let mut state = self.keys.map_or(n, |keys| n % keys) as u64 + 1;
        let mut key = [0; 32];
        for part in key.chunks_mut(8) {
            state = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            state = (state ^ (state >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            state ^= state >> 31;
            part.copy_from_slice(&state.to_be_bytes());
        }
        key
    }

    fn value(&self) -> Vec<u8> {
        let mut value = vec![0; self.value_bytes];
        File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut value)).expect("random bytes");
        value
    }
}

#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Contender {
    Disk,
    Ours,
    Fjall,
    Redb,
}

impl Contender {
    pub(crate) const ALL: [Contender; 4] =
        [Contender::Disk, Contender::Ours, Contender::Fjall, Contender::Redb];

    pub(crate) fn name(&self) -> &'static str {
        match self {
            Contender::Disk => "disk",
            Contender::Ours => "ours",
            Contender::Fjall => "fjall",
            Contender::Redb => "redb",
        }
    }

    /// Seconds from the first write to the last acknowledgement.
    pub(crate) fn run(&self, directory: &Path, work: &Work) -> f64 {
        match self {
            Contender::Disk => disk(directory, work),
            Contender::Ours => ours(directory, work),
            Contender::Fjall => fjall(directory, work),
            Contender::Redb => redb(directory, work),
        }
    }
}

fn disk(directory: &Path, work: &Work) -> f64 {
    let file = File::create(directory.join("file")).expect("a file");
    let value = work.value();
    let vectors: Vec<IoSlice<'_>> = (0..work.group).map(|_| IoSlice::new(&value)).collect();
    let group_bytes = (work.group * work.value_bytes) as u64;
    let start = Instant::now();
    for group in 0..(work.count / work.group) as u64 {
        let written = rustix::io::pwritev(&file, &vectors, group * group_bytes).expect("space");
        assert_eq!(written as u64, group_bytes);
        rustix::fs::fdatasync(&file).expect("sync");
    }
    start.elapsed().as_secs_f64()
}

pub(crate) fn ours(directory: &Path, work: &Work) -> f64 {
    reactor::run(|| {
        let store = DiskStore::open(Config::new(directory)).expect("a store");
        let value = Bytes::from(work.value());
        let kind = if work.keys.is_some() { Kind::REGISTER } else { Kind::BLOCK };
        let next = Cell::new(0);
        let start = Instant::now();
        reactor::scope(|scope| {
            for _ in 0..work.group {
                scope.spawn(|| {
                    while next.get() < work.count {
                        let n = next.replace(next.get() + 1);
                        store.put(&Key::new(kind, work.key(n)), value.clone().into()).expect("space");
                    }
                });
            }
        });
        let seconds = start.elapsed().as_secs_f64();
        store.close().expect("a healthy disk");
        seconds
    })
}

/// Opens our store and tells how many blocks are in it, and how many segments had to be scanned.
pub(crate) fn open_ours(directory: &Path) -> (u64, usize) {
    reactor::run(|| {
        let store = DiskStore::open(Config::new(directory)).expect("the store");
        let found = (store.usage().count, store.recovery().scanned_count);
        store.close().expect("a healthy disk");
        found
    })
}

fn fjall(directory: &Path, work: &Work) -> f64 {
    let database = fjall::Database::builder(directory).open().expect("a database");
    let options = || {
        let options = KeyspaceCreateOptions::default();
        // Its documentation advises to keep large values apart.
        if work.value_bytes > 4096 {
            options.with_kv_separation(Some(KvSeparationOptions::default()))
        } else {
            options
        }
    };
    let keyspace = database.keyspace("blocks", options).expect("a keyspace");
    let value = work.value();
    let start = Instant::now();
    for group in 0..work.count / work.group {
        let mut batch = database.batch().durability(Some(PersistMode::SyncData));
        for n in group * work.group..(group + 1) * work.group {
            batch.insert(&keyspace, work.key(n), &value[..]);
        }
        batch.commit().expect("space");
    }
    start.elapsed().as_secs_f64()
}

fn redb(directory: &Path, work: &Work) -> f64 {
    const TABLE: redb::TableDefinition<'_, &[u8; 32], &[u8]> = redb::TableDefinition::new("blocks");
    let database = redb::Database::create(directory.join("file")).expect("a database");
    let value = work.value();
    let start = Instant::now();
    for group in 0..work.count / work.group {
        let transaction = database.begin_write().expect("a transaction");
        {
            let mut table = transaction.open_table(TABLE).expect("a table");
            for n in group * work.group..(group + 1) * work.group {
                table.insert(&work.key(n), &value[..]).expect("space");
            }
        }
        transaction.commit().expect("space");
    }
    start.elapsed().as_secs_f64()
}
