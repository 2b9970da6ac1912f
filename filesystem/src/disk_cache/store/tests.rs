//! When a drive counts as offline, over a store whose nodes come and go, in simulated time.

use dht::MemoryBlockStore;
use reactor::sim::{self, SimConfig};

use super::super::SIZE_BYTES_MIN;
use super::*;

const REGISTER: [u8; 32] = [7; 32];

/// A store in memory, behind nodes.
struct Nodes {
    memory: MemoryBlockStore,
    /// What the connections say.
    reach: Cell<Reach>,
    /// How long the register takes.
    takes: Cell<Duration>,
    /// How many of those that keep it answer; no quorum, if any number.
    answers: Cell<Option<usize>>,
    /// Whether a block is waited for as long as a call may take.
    hangs: Cell<bool>,
}

impl BlockStore for Nodes {
    fn tag(&self) -> OwnerTag {
        self.memory.tag()
    }

    fn put(&self, content: Bytes) -> Result<Address, PutError> {
        self.memory.put(content)
    }

    fn get(&self, address: &Address, range: Option<Range<u32>>) -> Result<Bytes, GetError> {
        if self.hangs.get() {
            reactor::sleep(Duration::from_secs(15));
            return Err(GetError::Unreachable { address: *address, reason: "so it is".into() });
        }
        self.memory.get(address, range)
    }

    fn reach(&self, _register: &RegisterAddress) -> Reach {
        self.reach.get()
    }

    fn read(&self, register: &RegisterAddress) -> Result<Option<Record>, ReadError> {
        reactor::sleep(self.takes.get());
        match self.answers.get() {
            None => self.memory.read(register),
            Some(answers) => Err(ReadError::NoQuorum { answers, needed: 2, reason: "so it is".into() }),
        }
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

/// Runs a story over a store whose root was read once.
fn story(tell: fn(&Nodes, &CachedStore, &RegisterAddress)) {
    sim::run(1, SimConfig::default(), |world| {
        let process = world.host("machine").start(move || {
            let nodes = Rc::new(Nodes {
                memory: MemoryBlockStore::new(),
                reach: Cell::new(Reach::Quorum),
                takes: Cell::new(Duration::from_millis(10)),
                answers: Cell::new(None),
                hangs: Cell::new(false),
            });
            let register = nodes.memory.new_register(REGISTER);
            let cache = DiskCache::open("/cache".as_ref(), "client", [3; 32], SIZE_BYTES_MIN);
            let store = CachedStore::new(nodes.clone(), cache.root(&register, "the drive"), None);
            assert!(store.read(&register).is_ok() && !store.is_offline());
            tell(&nodes, &store, &register);
            cache.close();
        });
        process.wait();
    });
}

fn looks(store: &CachedStore, register: &RegisterAddress, seconds: u64) {
    for _ in 0..2 * seconds {
        store.reach(register);
        reactor::sleep(Duration::from_millis(500));
    }
}

#[test]
fn whoever_looks_finds_out_that_no_quorum_is_there() {
    story(|nodes, store, register| {
        nodes.reach.set(Reach::Some);
        looks(store, register, 4);
        assert!(!store.is_offline());
        looks(store, register, 2);
        assert!(store.is_offline());
        nodes.reach.set(Reach::Quorum);
        assert!(store.read(register).is_ok() && !store.is_offline());
    });
}

#[test]
fn what_is_not_here_is_asked_for_as_long_as_a_restart_takes_and_then_refused_at_once() {
    story(|nodes, store, register| {
        let block = Address([7; 32]);
        nodes.reach.set(Reach::Nobody);
        looks(store, register, 6);
        assert!(store.is_offline());
        for _ in 0..3 {
            assert!(!matches!(store.get(&block, Some(0..9)), Err(GetError::NotHere(_))), "it is asked for");
        }
        looks(store, register, 30);
        let _ = store.get(&block, Some(0..9));
        assert!(matches!(store.get(&block, Some(0..9)), Err(GetError::NotHere(_))));
    });
}

/// A node that was stopped lets a call wait for a quarter of a minute: who read shortly before the outage was half a minute old waited
/// on beyond it.
#[test]
fn who_reads_from_nodes_that_hang_waits_no_longer_than_a_restart_takes() {
    story(|nodes, store, register| {
        nodes.reach.set(Reach::Nobody);
        nodes.hangs.set(true);
        let began = reactor::now();
        looks(store, register, 25);
        let (since, is_long) = store.outage().map(|outage| (outage.since, outage.is_long)).unwrap();
        assert!(since == began && !is_long, "one age, from the first look on");
        assert!(store.get(&Address([7; 32]), Some(0..9)).is_err());
        let waited_until = reactor::now() - began;
        assert!(
            waited_until >= RESTART_MAX && waited_until < RESTART_MAX + Duration::from_secs(2),
            "{waited_until:?}"
        );
        assert!(store.outage().is_some_and(|outage| outage.is_long));
    });
}

#[test]
fn a_line_that_takes_blocks_is_not_offline_although_nobody_seems_to_be_there() {
    story(|nodes, store, register| {
        nodes.reach.set(Reach::Nobody);
        for number in 0..10u8 {
            looks(store, register, 3);
            store.put(vec![number; 1000].into()).unwrap();
            assert!(!store.is_offline());
        }
        for _ in 0..10 {
            nodes.reach.set(Reach::Nobody);
            looks(store, register, 4);
            nodes.reach.set(Reach::Quorum);
            looks(store, register, 1);
            assert!(!store.is_offline(), "they were there in between");
        }
    });
}

#[test]
fn nodes_that_can_be_reached_and_answer_nothing_are_offline() {
    story(|nodes, store, register| {
        nodes.takes.set(Duration::from_secs(20));
        nodes.answers.set(Some(1));
        for _ in 0..3 {
            looks(store, register, 1);
            assert!(store.read(register).is_err() && !store.is_offline(), "one of them answers");
        }
        nodes.answers.set(Some(0));
        assert!(store.read(register).is_err() && !store.is_offline(), "it may be a restart");
        looks(store, register, 1);
        assert!(store.read(register).is_err() && store.is_offline());
    });
}

#[test]
fn nodes_that_are_there_and_slow_end_it_all_the_same() {
    story(|nodes, store, register| {
        nodes.reach.set(Reach::Nobody);
        looks(store, register, 6);
        assert!(store.is_offline());
        nodes.takes.set(Duration::from_secs(8));
        let began = reactor::now();
        assert!(store.read(register).is_err() && reactor::now() - began < Duration::from_secs(8));
        nodes.reach.set(Reach::Quorum);
        reactor::sleep(Duration::from_secs(1));
        assert!(store.read(register).is_ok() && !store.is_offline());
    });
}
