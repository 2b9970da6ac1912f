//! A store with a cache on the disk before it: what it answers came from either, and is verified in both cases.
//!
//! Ranges that were read are kept, and blocks that were written, whole: who writes a file reads it soon. What this process's
//! own node holds is on this disk already, and is not kept a second time.
//!
//! Where no quorum of the register's nodes answers, a volume may be opened by a root that was kept; whatever is asked
//! of the register after that is asked of the nodes. So nothing that is not verified new passes for new: a swap names the root
//! that it was made on, and loses against any other. Who can be reached is known from the connections, at once where a node's
//! process is gone: whoever looks through this store tells the cache by it, and once a quorum has been out of reach for a
//! while the volume is offline (`crate::silence`). Once that is longer than a restart, blocks that are not here are refused at
//! once where no node at all is left to ask. It is one volume's store: one register is asked for through it.
//!
//! What is published is answered once the cache has it, with its root: whoever is told that it is stored, and is killed the next moment,
//! finds it at a start without the nodes. Where the cache can't have it (another process takes in, its disk fails or has too little room) it
//! is answered all the same. A start tells then that it is older once the mark of what was seen is written, some two seconds
//! later (it waits for no block); one that comes sooner does not know of it.

use std::cell::Cell;
use std::ops::Range;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use dht::block_store::{
    BlockStore, GetError, HeaderHash, Outage, PutError, Reach, ReadError, Record, RegisterAddress, SwapError,
    Usage,
};
use dht::{Address, OwnerTag};
use reactor::cell::RefCell;

use super::{DiskCache, KeptRoot};
use crate::silence::RESTART_MAX;

/// How long one reader looks for a node while none has answered for a while.
const PROBE_LIMIT: Duration = Duration::from_secs(1);
/// How long the register is waited for where a kept root will do and no node is there, or while no node has answered for a
/// while: some round trips and dials around the world.
const READ_LIMIT: Duration = Duration::from_secs(3);
/// How long it is waited for where a kept root will do and some node is there: what was seen last may be old, and nodes that
/// start together are there within seconds of each other.
const START_LIMIT: Duration = Duration::from_secs(10);
/// For how long a silence answers whoever asks next: programs that open files. The watcher asks each second.
const READ_REST: Duration = Duration::from_millis(900);

/// A store behind a cache.
pub struct CachedStore {
    below: Rc<dyn BlockStore>,
    root: Rc<KeptRoot>,
    /// What the first question for the register is answered with.
    start: RefCell<Start>,
    /// The volume's register, once it has answered or the volume was opened without it.
    register: Cell<Option<RegisterAddress>>,
    /// A question for the register is under way, while offline.
    is_reading: Cell<bool>,
    /// When the last of these had no answer.
    silent_at: Cell<Option<Instant>>,
    /// What was published last, if its answer was lost.
    unknown: RefCell<Option<Unknown>>,
}

/// What a volume may be opened by.
enum Start {
    /// What the nodes say.
    Nodes,
    /// What the nodes say, and this if no quorum answers.
    NodesOr(Record),
    /// This: they were asked a moment ago.
    Kept(Record),
}

/// A root that may be in the register, and the blocks that came with it.
struct Unknown {
    payload: Bytes,
    blocks: Vec<(Address, Bytes)>,
}

/// Holding one means that the register is being asked.
struct Reading<'a>(&'a Cell<bool>);

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        self.0.set(false);
    }
}

impl CachedStore {
    /// Puts the cache of `root` before `below`. A volume may be opened by `start`, a root that this machine has kept,
    /// where no quorum answers.
    pub fn new(below: Rc<dyn BlockStore>, root: Rc<KeptRoot>, start: Option<Record>) -> CachedStore {
        CachedStore::starting(below, root, start.map_or(Start::Nodes, Start::NodesOr))
    }

    /// As [`new`](CachedStore::new), where it is known already that no quorum answers: the volume is opened by `start`, and nobody
    /// is asked before.
    pub fn without_nodes(below: Rc<dyn BlockStore>, root: Rc<KeptRoot>, start: Record) -> CachedStore {
        CachedStore::starting(below, root, Start::Kept(start))
    }

    fn starting(below: Rc<dyn BlockStore>, root: Rc<KeptRoot>, start: Start) -> CachedStore {
        CachedStore {
            below,
            root,
            start: RefCell::new(start),
            register: Cell::new(None),
            is_reading: Cell::new(false),
            silent_at: Cell::new(None),
            unknown: RefCell::new(None),
        }
    }

    fn note(
        &self,
        register: &RegisterAddress,
        swapped: Result<Record, SwapError>,
    ) -> Result<Record, SwapError> {
        match &swapped {
            Ok(record) | Err(SwapError::Lost(Some(record))) => {
                self.root.note_answer();
                self.root.note_root(register, record);
            }
            Err(_) => {}
        }
        swapped
    }

    /// As [`CachedStore::note`], of a root that these blocks came with.
    fn note_published(
        &self,
        register: &RegisterAddress,
        payload: Bytes,
        blocks: Vec<(Address, Bytes)>,
        published: Result<Record, SwapError>,
    ) -> Result<Record, SwapError> {
        let published = self.note(register, published);
        let ours = match &published {
            Ok(record) => Some(record),
            // The answer to an earlier message of this swap was lost.
            Err(SwapError::Lost(Some(record))) if record.payload == payload => Some(record),
            _ => None,
        };
        self.unknown.take();
        if let Some(record) = ours {
            self.root.note_taken();
            self.keep_published(record, &blocks);
        } else if matches!(published, Err(SwapError::Unknown { .. })) {
            // Be it that this root is read then, or one that has it below.
            blocks.iter().for_each(|(address, content)| self.keep(address, 0, content));
            *self.unknown.borrow_mut() = Some(Unknown { payload, blocks });
        }
        published
    }

    /// Has the cache keep what was published, before that is answered.
    fn keep_published(&self, record: &Record, blocks: &[(Address, Bytes)]) {
        let is_lacking = |(address, _): &&(Address, Bytes)| !self.below.is_at_hand(address);
        let lacking: Vec<_> = blocks.iter().filter(is_lacking).cloned().collect();
        if self.cache().take_in_now(&lacking) {
            self.root.keep_published(record);
        }
    }

    /// Whether no node at all can be reached, as far as is known.
    fn reaches_nobody(&self) -> bool {
        self.register.get().is_none_or(|register| self.below.reach(&register) == Reach::Nobody)
    }

    /// Reads the register where there is something to go on with: one question at a time, and not for long.
    fn read_soon(&self, register: &RegisterAddress, limit: Duration) -> Result<Option<Record>, ReadError> {
        let was_just_silent = |at| reactor::now().saturating_duration_since(at) < READ_REST;
        if self.silent_at.get().is_some_and(was_just_silent) || self.is_reading.replace(true) {
            return Err(silence("it has not answered for a while, and was asked a moment ago"));
        }
        let reading = Reading(&self.is_reading);
        let read = reactor::timeout(limit, || self.below.read(register));
        drop(reading);
        let read = read.unwrap_or_else(|_| Err(silence("no answer in time")));
        self.silent_at.set(read.is_err().then(reactor::now));
        read
    }

    pub(super) fn fetch(&self, address: &Address, range: Range<u32>) -> Result<Bytes, GetError> {
        let is_alone = self.root.is_long_offline() && self.reaches_nobody();
        if is_alone && !self.root.may_ask() {
            return Err(GetError::NotHere(*address));
        }
        let fetch = || self.below.get(address, Some(range.clone()));
        // Who asks while it may be a restart waits no longer than that may be either, whatever a node that hangs lets him wait for.
        let limit = match self.root.outage() {
            _ if is_alone => Some(PROBE_LIMIT),
            Some(Outage { since, .. }) if self.reaches_nobody() => {
                let left = (since + RESTART_MAX).saturating_duration_since(reactor::now());
                Some(left.max(PROBE_LIMIT))
            }
            _ => None,
        };
        let fetched = match limit {
            Some(limit) => reactor::timeout(limit, fetch).unwrap_or_else(|_| {
                let reason = "no node answers".into();
                Err(GetError::Unreachable { address: *address, reason })
            }),
            None => fetch(),
        };
        match fetched {
            Err(GetError::Unreachable { .. }) if is_alone => Err(GetError::NotHere(*address)),
            other => other,
        }
    }

    pub(super) fn cache(&self) -> &Rc<DiskCache> {
        self.root.cache()
    }

    /// Keeps what the nodes took.
    fn keep_taken(&self, address: &Address, content: &Bytes) {
        self.root.note_taken();
        self.keep(address, 0, content);
    }

    fn keep(&self, address: &Address, start: u32, bytes: &Bytes) {
        if !self.below.is_at_hand(address) {
            self.cache().offer(address, start, bytes);
        }
    }
}

fn silence(reason: &str) -> ReadError {
    ReadError::NoQuorum { answers: 0, needed: 1, reason: reason.into() }
}

impl BlockStore for CachedStore {
    fn tag(&self) -> OwnerTag {
        self.below.tag()
    }

    fn put(&self, content: Bytes) -> Result<Address, PutError> {
        let address = self.below.put(content.clone())?;
        self.keep_taken(&address, &content);
        Ok(address)
    }

    fn put_named(&self, address: &Address, content: Bytes) -> Result<(), PutError> {
        self.below.put_named(address, content.clone())?;
        self.keep_taken(address, &content);
        Ok(())
    }

    fn put_many(&self, contents: Vec<Bytes>) -> Result<Vec<Address>, PutError> {
        let addresses = self.below.put_many(contents.clone())?;
        addresses.iter().zip(&contents).for_each(|(address, content)| self.keep_taken(address, content));
        Ok(addresses)
    }

    fn get(&self, address: &Address, range: Option<Range<u32>>) -> Result<Bytes, GetError> {
        // The whole of a block whose length nobody here knows: not how a volume reads.
        let Some(range) = range else { return self.below.get(address, None) };
        if self.below.is_at_hand(address) {
            return self.below.get(address, Some(range));
        }
        if let Some(bytes) = self.cache().get(address, &range) {
            return Ok(bytes);
        }
        let bytes = self.fetch(address, range.clone())?;
        self.keep(address, range.start, &bytes);
        Ok(bytes)
    }

    fn is_at_hand(&self, address: &Address) -> bool {
        self.below.is_at_hand(address)
    }

    fn outage(&self) -> Option<Outage> {
        self.root.outage()
    }

    fn reach(&self, register: &RegisterAddress) -> Reach {
        let reach = self.below.reach(register);
        self.root.note_look(reach == Reach::Quorum);
        reach
    }

    fn doubt(&self, register: &RegisterAddress) {
        self.below.doubt(register);
    }

    fn on_taken_over(&self, register: &RegisterAddress, version: u64) {
        debug_assert_eq!(register, self.root.register(), "one volume's store is told of another's root");
        self.root.note_taken_over(version);
        self.below.on_taken_over(register, version);
    }

    fn read(&self, register: &RegisterAddress) -> Result<Option<Record>, ReadError> {
        let start = match self.start.replace(Start::Nodes) {
            Start::Nodes => None,
            Start::NodesOr(start) => Some(start),
            Start::Kept(start) => {
                self.register.set(Some(*register));
                self.root.tell_opened_without(&start);
                return Ok(Some(start));
            }
        };
        // Nodes that are there are given their time, also by who can do without them.
        let read = match self.reach(register) {
            Reach::Nobody if start.is_some() => self.read_soon(register, READ_LIMIT),
            // Who keeps it is only found out by asking, and may be about to start.
            Reach::Some if start.is_some() => self.read_soon(register, START_LIMIT),
            Reach::Some | Reach::Nobody if self.is_offline() => self.read_soon(register, READ_LIMIT),
            _ => self.below.read(register),
        };
        match &read {
            Err(ReadError::NoQuorum { answers, .. }) => {
                if *answers == 0 || self.below.reach(register) != Reach::Quorum {
                    self.root.note_unanswered();
                }
            }
            _ => {
                self.register.set(Some(*register));
                self.root.note_answer();
            }
        }
        match (read, start) {
            (Err(ReadError::NoQuorum { .. }), Some(start)) => {
                self.register.set(Some(*register));
                self.root.tell_opened_without(&start);
                Ok(Some(start))
            }
            (Ok(Some(record)), _) => {
                self.root.note_root(register, &record);
                let is_it = |unknown: &mut Unknown| unknown.payload == record.payload;
                let published = self.unknown.borrow_mut().take_if(is_it);
                if let Some(Unknown { blocks, .. }) = published {
                    self.root.note_taken();
                    self.keep_published(&record, &blocks);
                }
                Ok(Some(record))
            }
            (other, _) => other,
        }
    }

    fn compare_and_swap(
        &self,
        register: &RegisterAddress,
        expected: Option<HeaderHash>,
        payload: Bytes,
    ) -> Result<Record, SwapError> {
        self.note(register, self.below.compare_and_swap(register, expected, payload))
    }

    fn publish(
        &self,
        blocks: Vec<(Address, Bytes)>,
        register: &RegisterAddress,
        expected: Option<HeaderHash>,
        payload: Bytes,
    ) -> Result<Record, SwapError> {
        let published = self.below.publish(blocks.clone(), register, expected, payload.clone());
        self.note_published(register, payload, blocks, published)
    }

    fn publish_freeing(
        &self,
        blocks: Vec<(Address, Bytes)>,
        register: &RegisterAddress,
        expected: Option<HeaderHash>,
        payload: Bytes,
    ) -> Result<Record, SwapError> {
        let published = self.below.publish_freeing(blocks.clone(), register, expected, payload.clone());
        self.note_published(register, payload, blocks, published)
    }

    fn usage(&self) -> Result<Usage, ReadError> {
        self.below.usage()
    }
}

#[cfg(test)]
mod tests;
