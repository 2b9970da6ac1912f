//! The store, as it runs in production, on a simulated disk that tears writes, loses what was not synced, and loses
//! power at any instant. After each crash it must hold what some prefix of the writes makes that is no shorter than
//! what was acknowledged; and what it once showed after a crash must stay.
//!
//! Hundreds of worlds, each from a seed; a failing one prints it, shrunk and told as a story.

use bytes::Bytes;
use dht::store::device::SimulatedDisk;
use dht::store::{Config, DiskStore, Key, Kind, Store};
use reactor::cell::RefCell;
use reactor::sim::{self, SimConfig, World};
use std::{collections::BTreeMap, rc::Rc, sync::Arc, time::Duration};

/// Writes that are handed over before one is waited for.
const BATCH_MAX: u32 = 12;
/// Few keys, so that most writes replace something.
const KEYS: u32 = 8;

fn config() -> Config {
    let mut config = Config::new("/store");
    // Segments are sealed, compacted and deleted within a life.
    config.segment_size_bytes = 48 << 10;
    config.background_bytes_per_second = 1 << 30;
    // A simulated disk is memory, and each life makes one anew.
    config.reserve_bytes = 16 << 10;
    config
}

/// What was written in the order of the calls, and how much of it was acknowledged.
#[derive(Default)]
struct History {
    /// What an earlier life left.
    base: BTreeMap<Key, Bytes>,
    writes: Vec<(Key, Option<Bytes>)>,
    acknowledged: usize,
}

impl History {
    /// Whether some prefix of the writes that holds all acknowledged ones makes `found`.
    fn allows(&self, found: &BTreeMap<Key, Bytes>) -> bool {
        let mut state = self.base.clone();
        let mut count = 0;
        loop {
            if count >= self.acknowledged && state == *found {
                return true;
            }
            let Some((key, value)) = self.writes.get(count) else { return false };
            match value {
                Some(value) => state.insert(*key, value.clone()),
                None => state.remove(key),
            };
            count += 1;
        }
    }
}

fn open() -> DiskStore {
    DiskStore::open_on(Arc::new(SimulatedDisk), config()).unwrap()
}

fn content(store: &DiskStore) -> BTreeMap<Key, Bytes> {
    let keys = store.keys(&Key::first(Kind(0)), usize::MAX);
    keys.into_iter().map(|key| (key, store.get(&key, None).unwrap().unwrap())).collect()
}

/// Opens the store, compares it with the history, and begins a new one from what is there.
fn reopen(history: &RefCell<History>) -> DiskStore {
    let store = open();
    assert_eq!(store.recovery().damages, [], "a crash damages nothing");
    let found = content(&store);
    let mut history = history.borrow_mut();
    assert!(
        history.allows(&found),
        "no prefix of the writes that holds what was acknowledged makes what is there"
    );
    *history = History { base: found, ..History::default() };
    store
}

fn write_forever(world: &World, store: &DiskStore, history: &RefCell<History>) {
    let mut number = u64::from(world.choose(1 << 20)) << 32;
    loop {
        let mut last = None;
        for _ in 0..1 + world.choose(BATCH_MAX) {
            number += 1;
            let kind = if world.choose(2) == 0 { Kind::REGISTER } else { Kind::BLOCK };
            let key = Key::new(kind, [world.choose(KEYS) as u8; 32]);
            let length = match world.choose(8) {
                0 => 20_000,
                n => n as usize * 150,
            };
            let value: Option<Bytes> =
                (world.choose(5) != 4).then(|| number.to_le_bytes().repeat(length / 8).into());
            history.borrow_mut().writes.push((key, value.clone()));
            last = Some(match value {
                Some(value) => store.enqueue(&key, value.into()).unwrap(),
                None => store.enqueue_remove(&key).unwrap(),
            });
        }
        // In the plainest run the disk takes no time, and the world would never get to the crash.
        reactor::sleep(Duration::from_micros(50));
        let count = history.borrow().writes.len();
        last.unwrap().wait().unwrap();
        history.borrow_mut().acknowledged = count;
    }
}

/// A life of 150 ms takes some thousand steps.
fn world() -> SimConfig {
    SimConfig { steps_max: 1_000_000, ..SimConfig::default() }
}

fn crash_again_and_again(world: &World) {
    let host = world.host("node");
    let history = Rc::new(RefCell::new(History::default()));
    for _ in 0..2 + world.choose(4) {
        let (of_life, of_world) = (history.clone(), world.clone());
        host.start(move || write_forever(&of_world, &reopen(&of_life), &of_life));
        reactor::sleep(Duration::from_micros(u64::from(world.choose(150_000))));
        match world.choose(4) {
            0 => host.kill(),
            _ => host.crash(),
        }
    }
    let of_life = history.clone();
    host.start(move || {
        let store = reopen(&of_life);
        store.close().unwrap();
        assert_eq!(content(&open()), of_life.borrow().base, "an orderly end changes nothing");
    })
    .wait();
}

#[test]
fn whatever_was_acknowledged_survives_any_crash_and_nothing_else_outranks_it() {
    sim::check(&world(), 0..200, crash_again_and_again);
}
