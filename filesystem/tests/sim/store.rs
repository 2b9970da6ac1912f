//! A block store as several machines see it: every call takes time, may fail, and its answer may be lost although it took
//! effect. What it holds is never wrong: that is the DHT's business, and has worlds of its own.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use dht::{
    Address, BlockStore, GetError, HeaderHash, MemoryBlockStore, OwnerTag, PutError, Reach, ReadError,
    Record, RegisterAddress, SwapError, Usage,
};
use reactor::cell::RefCell;
use reactor::sim::World;

/// What a call that gets no answer waits.
const TIMEOUT: Duration = Duration::from_secs(2);

/// The network behind all mounts.
pub(crate) struct Cloud {
    pub(crate) memory: MemoryBlockStore,
    world: World,
    /// Machines that reach nobody.
    cut_off: RefCell<BTreeSet<usize>>,
    /// Of a hundred calls, how many get no answer; half of these took effect.
    pub(crate) lost_percent: Cell<u32>,
    /// No node takes a block.
    pub(crate) full: Cell<bool>,
    /// How long each block of a machine takes that has a slow line.
    pub(crate) slow: RefCell<BTreeMap<usize, Duration>>,
    /// So many blocks of a machine find too few nodes, once they have travelled.
    pub(crate) failing_puts: RefCell<BTreeMap<usize, u32>>,
    /// Machines whose swaps never arrive.
    pub(crate) mute: RefCell<BTreeSet<usize>>,
    /// Machines to which all nodes look dead that are not, as over a line that is full.
    pub(crate) blind: RefCell<BTreeSet<usize>>,
    /// How long each look at the register takes besides.
    pub(crate) lag: Cell<Duration>,
    /// How often somebody doubted that those who keep the register are there.
    pub(crate) doubt_count: Cell<u32>,
}

impl Cloud {
    pub(crate) fn new(world: &World) -> Rc<Cloud> {
        Rc::new(Cloud {
            memory: MemoryBlockStore::new(),
            world: world.clone(),
            cut_off: RefCell::default(),
            lost_percent: Cell::new(0),
            full: Cell::new(false),
            slow: RefCell::default(),
            failing_puts: RefCell::default(),
            mute: RefCell::default(),
            blind: RefCell::default(),
            lag: Cell::default(),
            doubt_count: Cell::new(0),
        })
    }

    /// The cloud as `machine` reaches it.
    pub(crate) fn reach(self: &Rc<Self>, machine: usize) -> Rc<Line> {
        Rc::new(Line { cloud: self.clone(), machine })
    }

    pub(crate) fn cut(&self, machine: usize, cut: bool) {
        match cut {
            true => self.cut_off.borrow_mut().insert(machine),
            false => self.cut_off.borrow_mut().remove(&machine),
        };
    }
}

/// The cloud as one machine reaches it.
pub(crate) struct Line {
    cloud: Rc<Cloud>,
    machine: usize,
}

/// What becomes of one call.
#[derive(PartialEq)]
enum Fate {
    Answered,
    /// It takes effect, and nobody hears of it.
    AnswerLost,
    NeverArrives,
}

impl Line {
    fn travel(&self) -> Fate {
        let cloud = &self.cloud;
        reactor::sleep(Duration::from_millis(1 + u64::from(cloud.world.choose(30))));
        if cloud.cut_off.borrow().contains(&self.machine) {
            reactor::sleep(TIMEOUT);
            return Fate::NeverArrives;
        }
        match cloud.world.chance(f64::from(cloud.lost_percent.get()) / 100.0) {
            false => Fate::Answered,
            true if cloud.world.choose(2) == 0 => Fate::AnswerLost,
            true => {
                reactor::sleep(TIMEOUT);
                Fate::NeverArrives
            }
        }
    }

    fn no_quorum() -> PutError {
        PutError::NoQuorum { durable: 0, needed: 2, reason: "nobody answers".into() }
    }
}

impl BlockStore for Line {
    fn tag(&self) -> OwnerTag {
        self.cloud.memory.tag()
    }

    fn put(&self, content: Bytes) -> Result<Address, PutError> {
        let slow = self.cloud.slow.borrow().get(&self.machine).copied();
        reactor::sleep(slow.unwrap_or(Duration::ZERO));
        let fate = self.travel();
        if fate == Fate::NeverArrives {
            return Err(Self::no_quorum());
        }
        if let Some(left) = self.cloud.failing_puts.borrow_mut().get_mut(&self.machine)
            && *left > 0
        {
            *left -= 1;
            return Err(Self::no_quorum());
        }
        if self.cloud.full.get() {
            return Err(PutError::Full { full: 2 });
        }
        let address = self.cloud.memory.put(content)?;
        if fate == Fate::AnswerLost {
            reactor::sleep(TIMEOUT);
            return Err(Self::no_quorum());
        }
        Ok(address)
    }

    fn get(&self, address: &Address, range: Option<Range<u32>>) -> Result<Bytes, GetError> {
        match self.travel() {
            Fate::Answered => self.cloud.memory.get(address, range),
            _ => Err(GetError::Unreachable { address: *address, reason: "nobody answers".into() }),
        }
    }

    fn reach(&self, _register: &RegisterAddress) -> Reach {
        let is_away =
            [&self.cloud.cut_off, &self.cloud.blind].iter().any(|set| set.borrow().contains(&self.machine));
        if is_away { Reach::Nobody } else { Reach::Quorum }
    }

    fn doubt(&self, _register: &RegisterAddress) {
        self.cloud.doubt_count.set(self.cloud.doubt_count.get() + 1);
    }

    fn read(&self, register: &RegisterAddress) -> Result<Option<Record>, ReadError> {
        reactor::sleep(self.cloud.lag.get());
        match self.travel() {
            Fate::Answered => self.cloud.memory.read(register),
            _ => Err(ReadError::NoQuorum { answers: 0, needed: 2, reason: "nobody answers".into() }),
        }
    }

    fn compare_and_swap(
        &self,
        register: &RegisterAddress,
        expected: Option<HeaderHash>,
        payload: Bytes,
    ) -> Result<Record, SwapError> {
        let unknown = || SwapError::Unknown { reason: "nobody answers".into() };
        let fate = self.travel();
        if fate == Fate::NeverArrives || self.cloud.mute.borrow().contains(&self.machine) {
            return Err(unknown());
        }
        if self.cloud.full.get() {
            return Err(SwapError::Full);
        }
        let result = self.cloud.memory.compare_and_swap(register, expected, payload);
        if fate == Fate::AnswerLost {
            reactor::sleep(TIMEOUT);
            return Err(unknown());
        }
        result
    }

    fn usage(&self) -> Result<Usage, ReadError> {
        let mut usage = self.cloud.memory.usage()?;
        if self.cloud.full.get() {
            usage.total_bytes = usage.used_bytes;
        }
        Ok(usage)
    }
}
