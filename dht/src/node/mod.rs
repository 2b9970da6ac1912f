//! A storage node: what it stores for others, and what it refuses.
//!
//! It trusts no caller. A block must hash to its address, a record's signatures must hold, the caller's passport must
//! allow what it asks, and every size has a bound, before anything reaches the disk; and nothing is acknowledged
//! before the disk has it. A full disk is answered as such, and reads go on.
//!
//! [`blocks`], [`deletions`] and [`registers`] do the work, as plain methods: a client in the same process calls them without any
//! RPC. This file opens them to the network.
//!
//! Not here: finding other nodes and copying from them ([`crate::repair`]).

pub mod blocks;
mod caught_up;
pub mod deletions;
mod kept_deleted;
mod own_copies;
pub mod past;
pub mod registers;
mod relearning;
pub mod retention;
pub mod stored_register;

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::{Duration, Instant};

use overlay::{NodeId, Peers, Rights};
use reactor::cell::RefCell;
use reactor::rpc::{CallContext, Payload, Service};
use reactor::sync::Signal;

use crate::address::Address;
use crate::block::configuration::Membership;
use crate::block::deletion::OwnersWord;
use crate::block::mutable::SignedRecord;
use crate::block::proposal::Proposed;
use crate::block_store::{RegisterAddress, Usage};
use crate::message::{
    AcceptRequest, DigestsRequest, DigestsResponse, Family, GetBlockRequest, GetBlockResponse,
    KEYS_PER_ANSWER_MAX, ListBlocksRequest, ListBlocksResponse, ListKeysRequest, ListKeysResponse, NodeSpace,
    PastEntry, PrepareRequest, PutBlockRequest, Refusal, RegisterView, Retention, Storage, ViewMark,
    WORDS_MAX, WordKey,
};
use crate::paxos::Ballot;
use crate::placement::Neighbourhood;
use crate::store::{Key, Kind, Store, StoreError};

use caught_up::CaughtUp;
use own_copies::Comparisons;
pub use own_copies::OwnCopies;
use registers::Registers;
pub(crate) use relearning::Told;

const READ: Rights = Rights { store: false, read: true, write: false, invite: false };
const STORE: Rights = Rights { store: true, read: false, write: false, invite: false };
const WRITE: Rights = Rights { store: false, read: false, write: true, invite: false };

/// Blocks that repair is asked to fetch out of turn; whatever else is missing, its next round finds. Anybody may name
/// one, so there is a bound.
const WANTED_MAX: usize = 4096;

/// How long a store that had no room for a block counts as full: somebody may have freed some since, and nobody tried. An hour,
/// since who counts as full decides what others offer each other.
const FULL_FOR: Duration = Duration::from_secs(3600);

/// Who may call.
pub enum Gate {
    /// Peers whose passport, as the overlay has verified it, gives the right.
    Passports(Peers),
    /// Anybody: for tests, and for an open network.
    Open,
}

/// One storage node.
pub struct Node {
    own: NodeId,
    store: Rc<dyn Store>,
    gate: Gate,
    registers: Registers,
    deletions: deletions::Deletions,
    promised: retention::Promised,
    said_retention: Cell<u32>,
    /// Nodes near us, as repair sees them: who is responsible for what.
    neighbourhood: RefCell<Neighbourhood>,
    caught_up: RefCell<CaughtUp>,
    comparisons: RefCell<Comparisons>,
    /// Somebody wants to know how these are now.
    is_asked: Cell<bool>,
    asked: Signal,
    replicas: Cell<usize>,
    wanted: RefCell<BTreeSet<Address>>,
    wanted_registers: RefCell<BTreeMap<RegisterAddress, Membership>>,
    wanted_signal: Signal,
    wanted_past: RefCell<BTreeSet<RegisterAddress>>,
    wanted_past_signal: Signal,
    started: Instant,
    /// Since when registers are known to be damaged: of [`relearning::DAMAGED_MAX`] at most.
    damaged_since: RefCell<BTreeMap<RegisterAddress, Instant>>,
    is_amnesiac: Cell<bool>,
    is_withdrawn: Cell<bool>,
    full_at: Cell<Option<Instant>>,
    served: Cell<u64>,
}

/// How many keys are looked at together.
const KEYS_PER_PAGE: usize = 1024;

impl Node {
    /// A node named `own` that keeps what it is given in `store`.
    ///
    /// `replicas` is the network's number of replicas of a block.
    pub fn new(own: NodeId, store: Rc<dyn Store>, gate: Gate, replicas: usize) -> Rc<Node> {
        Rc::new(Node {
            own,
            store,
            gate,
            registers: Registers::default(),
            deletions: deletions::Deletions::default(),
            promised: retention::Promised::default(),
            said_retention: Cell::new(0),
            neighbourhood: RefCell::new(Neighbourhood::of(own)),
            caught_up: RefCell::default(),
            comparisons: RefCell::default(),
            is_asked: Cell::new(false),
            asked: Signal::new(),
            replicas: Cell::new(replicas),
            wanted: RefCell::default(),
            wanted_registers: RefCell::default(),
            wanted_signal: Signal::default(),
            wanted_past: RefCell::default(),
            wanted_past_signal: Signal::default(),
            started: reactor::now(),
            damaged_since: RefCell::default(),
            is_amnesiac: Cell::new(false),
            is_withdrawn: Cell::new(false),
            full_at: Cell::new(None),
            served: Cell::new(0),
        })
    }

    /// Whose node this is.
    pub fn own(&self) -> NodeId {
        self.own
    }

    /// The local store.
    pub fn store(&self) -> &Rc<dyn Store> {
        &self.store
    }

    /// How many replicas the network keeps of a block.
    pub fn replicas(&self) -> usize {
        self.replicas.get()
    }

    /// Enters the DHT's methods into `service`. The handlers keep the node alive.
    pub fn serve(self: &Rc<Node>, service: &mut Service) {
        Rc::new(Served(self.clone())).serve_on(service);
    }

    fn admit(&self, context: &CallContext, needed: Rights) -> Result<(), Refusal> {
        self.refuse_if_withdrawn()?;
        match &self.gate {
            Gate::Open => Ok(()),
            Gate::Passports(peers) => peers
                .check(context.peer.as_ref(), needed)
                .map_err(|error| Refusal::NotAllowed(error.to_string())),
        }
    }

    /// How full the local store is, and how much it has that others ask for: neither its own notes nor what registers were count,
    /// which each node keeps for itself. Looks at the keys of those.
    pub fn usage(&self) -> Usage {
        let usage = self.store.usage();
        let own_count: u64 =
            [Kind::NOTE, Kind::PAST, Kind::LEARNED_PAST].map(|kind| self.count(kind)).iter().sum();
        let block_count = usage.count.saturating_sub(own_count);
        Usage { used_bytes: usage.disk_bytes, total_bytes: usage.total_bytes, block_count }
    }

    fn count(&self, kind: Kind) -> u64 {
        let (mut count, mut from) = (0, Some(Key::first(kind)));
        while let Some(first) = from {
            let page = self.store.keys(&first, KEYS_PER_PAGE);
            let of_kind = page.iter().take_while(|key| key.kind == kind).count();
            count += of_kind as u64;
            from = page.last().filter(|_| of_kind == KEYS_PER_PAGE).and_then(Key::next);
        }
        count
    }

    /// How many blocks, and ranges of blocks, it has given to others since it was started.
    pub fn served_count(&self) -> u64 {
        self.served.get()
    }

    /// What the local store has and may still take, and the disk that it may share with other nodes.
    pub fn space(&self) -> NodeSpace {
        let usage = self.store.usage();
        NodeSpace {
            used_bytes: usage.disk_bytes,
            free_bytes: usage.total_bytes.saturating_sub(usage.disk_bytes),
            block_count: usage.count,
            device: usage.device,
            device_free_bytes: usage.device_free_bytes,
        }
    }

    /// The bytes of deleted blocks that it keeps yet.
    pub fn held_bytes(&self) -> u64 {
        self.deletions.held_bytes()
    }

    /// For how long it keeps what is deleted, and how much it keeps of that, as it tells others.
    ///
    /// # Errors
    /// If the store fails.
    ///
    /// # Suspends
    /// For the disk: the first time, and when something has changed.
    pub(crate) fn say_for_how_long(&self) -> Result<Retention, Refusal> {
        let (seconds, shorter) = self.retention()?;
        let is_promised = self.has_promised_retention()?;
        Ok(Retention { seconds, shorter, held_bytes: self.held_bytes(), is_promised })
    }

    /// Asks repair to fetch a block.
    pub(crate) fn want(&self, address: Address) {
        let mut wanted = self.wanted.borrow_mut();
        if wanted.len() < WANTED_MAX {
            wanted.insert(address);
            self.wanted_signal.notify_all();
        }
    }

    /// Says that the store is not the one that this node voted with: it is lost, or another. Of a register that the store
    /// does not have, the node says nothing until it has learned from the others what it may have promised.
    pub fn set_amnesiac(&self) {
        self.is_amnesiac.set(true);
    }

    /// Promises and keeps nothing from now on, and serves nobody: another node has our name.
    pub fn withdraw(&self) {
        self.is_withdrawn.set(true);
    }

    fn refuse_if_withdrawn(&self) -> Result<(), Refusal> {
        if self.is_withdrawn.get() {
            return Err(Refusal::Store("another process serves with this node's key".into()));
        }
        Ok(())
    }

    /// Asks repair to learn a register from its other members.
    fn want_register(&self, membership: &Membership) {
        let mut wanted = self.wanted_registers.borrow_mut();
        if wanted.len() < WANTED_MAX {
            wanted.insert(membership.register(), membership.clone());
            self.wanted_signal.notify_all();
        }
    }

    /// Takes the registers that repair was asked to learn.
    pub(crate) fn take_wanted_registers(&self) -> Vec<Membership> {
        std::mem::take(&mut *self.wanted_registers.borrow_mut()).into_values().collect()
    }

    /// Takes what repair was asked to fetch.
    pub fn take_wanted(&self) -> BTreeSet<Address> {
        std::mem::take(&mut self.wanted.borrow_mut())
    }

    /// Waits until repair is asked for something.
    pub fn wait_for_wanted(&self) {
        if self.wanted.borrow().is_empty() && self.wanted_registers.borrow().is_empty() {
            self.wanted_signal.wait();
        }
    }
}

/// A node as its peers see it: each call is admitted first.
struct Served(Rc<Node>);

impl Storage for Served {
    fn put_block(
        &self,
        call: &CallContext,
        request: PutBlockRequest,
        content: Payload,
    ) -> Result<(), Refusal> {
        self.0.admit(call, WRITE)?;
        match &request.deleted_by {
            Some(word) => self.0.keep_deleted(&request, word, &content),
            None => self.0.put_block_of(&request, &content),
        }
    }

    fn get_block(
        &self,
        call: &CallContext,
        request: GetBlockRequest,
    ) -> Result<(GetBlockResponse, Payload), Refusal> {
        self.0.admit(call, READ)?;
        self.0.serve_block(&request.address, request.range.map(|(start, end)| start..end))
    }

    fn has_blocks(&self, call: &CallContext, addresses: Vec<Address>) -> Result<Vec<bool>, Refusal> {
        self.0.admit(call, READ)?;
        if addresses.len() > KEYS_PER_ANSWER_MAX {
            return Err(Refusal::Bounds(format!("at most {KEYS_PER_ANSWER_MAX} addresses")));
        }
        // A dead copy is as good as none.
        let has = |address: &Address| Ok(self.0.has_block(address) && !self.0.is_dead(address)?);
        addresses.iter().map(has).collect()
    }

    fn suspect_block(&self, call: &CallContext, address: Address) -> Result<bool, Refusal> {
        self.0.admit(call, READ)?;
        self.0.suspect_block(&address)
    }

    fn delete_blocks(
        &self,
        call: &CallContext,
        words: Vec<OwnersWord>,
    ) -> Result<Vec<Result<(), Refusal>>, Refusal> {
        self.0.admit(call, WRITE)?;
        if words.len() > WORDS_MAX {
            return Err(Refusal::Bounds(format!("at most {WORDS_MAX} words")));
        }
        Ok(self.0.hear_all(&words))
    }

    fn prepare(&self, call: &CallContext, request: PrepareRequest) -> Result<Option<Proposed>, Refusal> {
        self.0.admit(call, WRITE)?;
        self.0.prepare(request)
    }

    fn accept(&self, call: &CallContext, request: AcceptRequest) -> Result<Ballot, Refusal> {
        if let Err(refusal) = self.0.admit(call, WRITE) {
            // A reader delivers a writer's proposal again where nodes disagree. It can't make any, nor fill the disk.
            self.0.admit(call, READ)?;
            if self.0.read_register(&request.membership.register())?.is_none() {
                return Err(refusal);
            }
        }
        self.0.accept(request)
    }

    fn read_register(
        &self,
        call: &CallContext,
        register: RegisterAddress,
    ) -> Result<Option<RegisterView>, Refusal> {
        self.0.admit(call, READ)?;
        self.0.read_register(&register)
    }

    fn list_past(
        &self,
        call: &CallContext,
        register: RegisterAddress,
        from_seconds: u64,
    ) -> Result<Vec<PastEntry>, Refusal> {
        self.0.admit(call, READ)?;
        self.0.list_past(&register, from_seconds)
    }

    fn read_past(
        &self,
        call: &CallContext,
        register: RegisterAddress,
        since_seconds: u64,
    ) -> Result<Option<SignedRecord>, Refusal> {
        self.0.admit(call, READ)?;
        self.0.read_past(&register, since_seconds)
    }

    fn retention(&self, call: &CallContext) -> Result<Retention, Refusal> {
        self.0.admit(call, READ)?;
        self.0.say_for_how_long()
    }

    fn retire(&self, call: &CallContext, membership: Membership) -> Result<(), Refusal> {
        self.0.admit(call, READ)?;
        self.0.retire(&membership)
    }

    fn can_keep(&self, call: &CallContext, register: RegisterAddress) -> Result<(), Refusal> {
        self.0.admit(call, WRITE)?;
        self.0.can_keep(&register)
    }

    fn digests(&self, call: &CallContext, request: DigestsRequest) -> Result<DigestsResponse, Refusal> {
        self.0.admit(call, READ)?;
        if request.family == Family::Registers {
            self.0.look_at_registers();
        }
        let mark = self.0.view();
        let digests = self.0.digests(&request)?;
        // If the view changed meanwhile, what was counted is of neither.
        let is_same = self.0.view().view == mark.view;
        let mark = if is_same { mark } else { ViewMark { view: 0, has_handed_over: false, ..mark } };
        Ok(DigestsResponse { digests, mark })
    }

    fn list_keys(&self, call: &CallContext, request: ListKeysRequest) -> Result<ListKeysResponse, Refusal> {
        self.0.admit(call, READ)?;
        self.0.list_keys(&request)
    }

    fn words(&self, call: &CallContext, keys: Vec<WordKey>) -> Result<Vec<Option<OwnersWord>>, Refusal> {
        self.0.admit(call, READ)?;
        self.0.words(&keys)
    }

    fn list_blocks(
        &self,
        call: &CallContext,
        request: ListBlocksRequest,
    ) -> Result<ListBlocksResponse, Refusal> {
        self.0.admit(call, READ)?;
        self.0.list_blocks(&request)
    }

    fn hand_words(&self, call: &CallContext, words: Vec<OwnersWord>) -> Result<(), Refusal> {
        // What another node has heard counts by the time at which it says to have been said. So whoever speaks himself may not
        // come here, or a right of his would never end.
        self.0.admit(call, STORE)?;
        if words.len() > WORDS_MAX {
            return Err(Refusal::Bounds(format!("at most {WORDS_MAX} words")));
        }
        words.iter().try_for_each(|word| match self.0.learn(word) {
            // Something newer was said, or the block was put again since.
            Ok(()) | Err(Refusal::Superseded | Refusal::TooYoung { .. }) => Ok(()),
            Err(refusal) => Err(refusal),
        })
    }

    fn usage(&self, call: &CallContext) -> Result<NodeSpace, Refusal> {
        self.0.admit(call, READ)?;
        Ok(self.0.space())
    }
}

fn block_key(address: &Address) -> Key {
    Key::new(Kind::BLOCK, address.0)
}

fn refusal_of(error: StoreError) -> Refusal {
    match error {
        StoreError::Full => Refusal::Full,
        StoreError::TooLarge { .. } => Refusal::Size,
        StoreError::Damaged(_) => Refusal::Damaged,
        other => Refusal::Store(other.to_string()),
    }
}

#[cfg(test)]
mod tests;
