//! The [`BlockStore`] that lives on the overlay.
//!
//! Where this process is a storage node itself, its own replica is a method call away. In a network of one node
//! nothing else happens: blocks and the register's new value go into the same ordered log one behind the other, and
//! [`publish`](BlockStore::publish) waits for one sync of the disk, however many blocks there are.
//!
//! Not here: how blocks are replicated ([`crate::replicate`]) and how registers are agreed upon
//! ([`crate::register`]).

use std::cell::OnceCell;
use std::collections::HashMap;
use std::ops::Range;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use overlay::{NodeId, Overlay};
use reactor::cell::RefCell;
use reactor::crypto::{Identity, PublicKey, random_bytes};
use reactor::sync::{Mutex, channel};

use crate::address::{Address, OwnerTag};
use crate::block::configuration::Membership;
use crate::block::mutable::{Genesis, Invalid, Signed};
use crate::block_store::{
    BlockStore, CreateError, GetError, HeaderHash, PAYLOAD_SIZE_BYTES_MAX, PutError, Reach, ReadError,
    Record, RegisterAddress, SwapError, Usage,
};
use crate::links::{Failure, Links};
use crate::message::{NodeUsage, PutBlockRequest, Refusal};
use crate::node::Node;
use crate::paxos::ProposerId;
use crate::register::{Operation, Seen, State, WritersChange};
use crate::replicate;
use crate::space;
use crate::store::{StoreError, Ticket};

/// `df` must not hang because a node does.
const USAGE_TIMEOUT: Duration = Duration::from_millis(500);
/// The kernel asks for the usage often. Whoever writes goes by it, and fills some hundred MiB a second.
const USAGE_LIFETIME: Duration = Duration::from_millis(250);
/// Nodes asked for their usage; in a larger network the total is what is near.
const USAGE_WIDTH: usize = 16;

/// What a client must be told.
#[derive(Clone, Debug)]
pub struct Config {
    /// Who reads and writes.
    pub identity: Rc<Identity>,
    /// Under which tag blocks are named; [`owner_tag`](crate::owner_tag) makes one from the owner's key and the volume's salt.
    pub tag: OwnerTag,
    /// The network's number of replicas: min(3, nodes) at its creation.
    pub replicas: usize,
}

/// See the [module](self). Clones share everything.
pub struct Client<O> {
    inner: Rc<Inner<O>>,
}

struct Inner<O> {
    links: Rc<Links<O>>,
    identity: Rc<Identity>,
    tag: OwnerTag,
    proposer: ProposerId,
    registers: RefCell<HashMap<RegisterAddress, Open>>,
    usage: RefCell<Option<(Instant, Usage)>>,
}

/// A register that was opened.
struct Open {
    genesis: Signed<Genesis>,
    state: Rc<Mutex<State>>,
    /// Beside the lock, so that looking at it never waits for an operation.
    seen: Rc<Seen>,
}

impl<O> Clone for Client<O> {
    fn clone(&self) -> Self {
        Client { inner: self.inner.clone() }
    }
}

impl<O: Overlay + 'static> Client<O> {
    /// A client that reaches nodes through `overlay`, and `local` without it.
    ///
    /// # Panics
    /// If the number of replicas is 0 or beyond [`MEMBER_COUNT_MAX`](crate::paxos::quorum::MEMBER_COUNT_MAX).
    pub fn new(overlay: O, local: Option<Rc<Node>>, config: Config) -> Client<O> {
        let bound = crate::paxos::quorum::MEMBER_COUNT_MAX;
        assert!((1..=bound).contains(&config.replicas), "there are 1 to {bound} replicas of a block");
        Client {
            inner: Rc::new(Inner {
                links: Rc::new(Links::new(overlay, local, config.replicas)),
                identity: config.identity,
                tag: config.tag,
                proposer: ProposerId(random_bytes()),
                registers: RefCell::default(),
                usage: RefCell::default(),
            }),
        }
    }

    /// Makes a register of this client's identity, which `writers` may write beside it: chooses the nodes that are
    /// responsible now, signs the genesis record, and opens the register here. Sends nothing.
    ///
    /// Whoever wants to find the register again keeps the record, and has it on disk **before** the first value is
    /// proposed: nobody can make another one of the same address. The first swap that expects `None` makes the nodes
    /// keep it.
    ///
    /// # Errors
    /// [`CreateError`].
    ///
    /// # Suspends
    /// While the overlay looks for the nearest nodes.
    pub fn create_register(
        &self,
        salt: [u8; 32],
        writers: Vec<PublicKey>,
    ) -> Result<Signed<Genesis>, CreateError> {
        let (identity, links) = (&self.inner.identity, &self.inner.links);
        let place = Genesis::place(&identity.public_key(), &salt);
        let mut chosen = links.placed(place.0, links.replicas);
        chosen.truncate(links.replicas);
        let members: Vec<NodeId> = chosen.iter().map(|contact| contact.id).collect();
        self.create_register_on(salt, writers, members)
    }

    /// As [`create_register`](Client::create_register), kept by these nodes: by those of another register, that both are lost with the
    /// same ones, and are moved with them.
    ///
    /// # Errors
    /// [`CreateError`], if there are fewer than copies.
    pub fn create_register_on(
        &self,
        salt: [u8; 32],
        writers: Vec<PublicKey>,
        members: Vec<NodeId>,
    ) -> Result<Signed<Genesis>, CreateError> {
        let (known, needed) = (members.len(), self.inner.links.replicas);
        if known < needed {
            return Err(CreateError::NotEnoughNodes { known, needed });
        }
        let genesis = Genesis::sign(&self.inner.identity, salt, members, writers);
        self.enter(genesis.clone());
        Ok(genesis)
    }

    /// Opens a register that somebody made, here or elsewhere; whether it has a value yet, [`BlockStore::read`] tells. Who
    /// remembers to whom it was moved says so: those who kept it at first may all be gone.
    ///
    /// # Errors
    /// [`Invalid`] if the record does not verify.
    ///
    /// # Suspends
    /// While another operation on the register is under way.
    pub fn open_register(&self, membership: impl Into<Membership>) -> Result<RegisterAddress, Invalid> {
        let Membership { genesis, configuration } = membership.into();
        genesis.verify()?;
        let register = self.enter(genesis);
        if let Some(configuration) = configuration
            && let Ok(state) = self.state(&register)
        {
            state.lock().follow(&configuration)?;
        }
        Ok(register)
    }

    fn enter(&self, genesis: Signed<Genesis>) -> RegisterAddress {
        let register = genesis.register();
        let new = || {
            let seen = Rc::new(Seen::default());
            let state = State::new(genesis.clone(), self.inner.proposer, seen.clone());
            Open { genesis, state: Rc::new(Mutex::new(state)), seen }
        };
        self.inner.registers.borrow_mut().entry(register).or_insert_with(new);
        register
    }

    /// Tells the client what an earlier run saw of a register, so that an older value is recognised as a rollback.
    ///
    /// # Errors
    /// [`ReadError::NotOpen`].
    pub fn expect_at_least(
        &self,
        register: &RegisterAddress,
        version: u64,
        header_hash: HeaderHash,
    ) -> Result<(), ReadError> {
        let registers = self.inner.registers.borrow();
        let open = registers.get(register).ok_or(ReadError::NotOpen(*register))?;
        open.seen.raise(version, header_hash);
        Ok(())
    }

    /// The highest version of a register that this client has seen chosen, and what it was; to be kept for
    /// [`Client::expect_at_least`] in a later run.
    pub fn seen(&self, register: &RegisterAddress) -> Option<(u64, HeaderHash)> {
        self.inner.registers.borrow().get(register)?.seen.value()
    }

    /// Who keeps a register, as far as this client knows; to be kept for [`Client::open_register`] in a later run.
    ///
    /// # Errors
    /// [`ReadError::NotOpen`].
    pub fn membership(&self, register: &RegisterAddress) -> Result<Membership, ReadError> {
        let registers = self.inner.registers.borrow();
        let open = registers.get(register).ok_or(ReadError::NotOpen(*register))?;
        Ok(Membership { genesis: open.genesis.clone(), configuration: open.seen.configuration() })
    }

    /// As [`BlockStore::compare_and_swap`], and with the new value `change` comes into force: who may write beside the
    /// owner. Only the owner can do that; the nodes refuse anybody else's list.
    ///
    /// # Errors
    /// As there.
    ///
    /// # Suspends
    /// As there.
    pub fn swap_with_writers(
        &self,
        register: &RegisterAddress,
        expected: Option<HeaderHash>,
        payload: &Bytes,
        change: WritersChange<'_>,
    ) -> Result<Record, SwapError> {
        if payload.len() > PAYLOAD_SIZE_BYTES_MAX {
            return Err(SwapError::Size { size: payload.len(), max: PAYLOAD_SIZE_BYTES_MAX });
        }
        let state = self.state(register)?;
        let mut state = state.lock();
        let operation = Operation::new(&self.inner.links, &self.inner.identity, &mut state);
        operation.changing_writers(change).swap(expected, payload, &|| Ok(()))
    }

    /// Who may write to a register beside its owner, by the value that was read or written last.
    ///
    /// # Errors
    /// [`ReadError::NotOpen`].
    ///
    /// # Suspends
    /// While another operation on the register is under way.
    pub fn writers(&self, register: &RegisterAddress) -> Result<Vec<PublicKey>, ReadError> {
        Ok(self.state(register)?.lock().writers().to_vec())
    }

    /// How many copies the network keeps of a block.
    pub fn replicas(&self) -> usize {
        self.inner.links.replicas
    }

    pub(crate) fn links(&self) -> &Rc<Links<O>> {
        &self.inner.links
    }

    /// How it reaches nodes.
    pub fn overlay(&self) -> &O {
        &self.inner.links.overlay
    }

    /// Who writes through this client.
    pub fn identity(&self) -> &Rc<Identity> {
        &self.inner.identity
    }

    pub(crate) fn state(&self, register: &RegisterAddress) -> Result<Rc<Mutex<State>>, ReadError> {
        let registers = self.inner.registers.borrow();
        registers.get(register).map(|open| open.state.clone()).ok_or(ReadError::NotOpen(*register))
    }

    fn swap(
        &self,
        register: &RegisterAddress,
        expected: Option<HeaderHash>,
        payload: &Bytes,
        ready: &dyn Fn() -> Result<(), PutError>,
    ) -> Result<Record, SwapError> {
        if payload.len() > PAYLOAD_SIZE_BYTES_MAX {
            return Err(SwapError::Size { size: payload.len(), max: PAYLOAD_SIZE_BYTES_MAX });
        }
        let state = self.state(register)?;
        let mut state = state.lock();
        Operation::new(&self.inner.links, &self.inner.identity, &mut state).swap(expected, payload, ready)
    }

    fn publish_with(
        &self,
        blocks: Vec<(Address, Bytes)>,
        register: &RegisterAddress,
        expected: Option<HeaderHash>,
        payload: &Bytes,
        may_use_reserve: bool,
    ) -> Result<Record, SwapError> {
        let is_here = |node: &Rc<Node>| {
            self.membership(register).is_ok_and(|membership| membership.members() == [node.own()])
        };
        // Both in one log, which keeps their order; not so if the register was moved elsewhere.
        if let Some(node) = self.inner.links.only_local().filter(|node| is_here(node)).cloned() {
            return self.publish_locally(&node, blocks, register, expected, payload, may_use_reserve);
        }
        let blocks: Vec<_> = blocks.into_iter().map(|(address, content)| (Some(address), content)).collect();
        if !blocks.is_empty() {
            replicate::put_many(&self.inner.links, &self.inner.tag, &blocks, may_use_reserve)?;
        }
        self.swap(register, expected, payload, &|| Ok(()))
    }

    /// In a network of one: blocks and value go to the log one behind the other, and share a sync of the disk.
    fn publish_locally(
        &self,
        node: &Node,
        blocks: Vec<(Address, Bytes)>,
        register: &RegisterAddress,
        expected: Option<HeaderHash>,
        payload: &Bytes,
        may_use_reserve: bool,
    ) -> Result<Record, SwapError> {
        let enqueue = |(address, content): &(Address, Bytes)| {
            let request =
                PutBlockRequest { may_use_reserve, ..PutBlockRequest::new(*address, self.inner.tag) };
            let ticket = node.enqueue_named(&request, content);
            ticket.map_err(|refusal| put_error(refusal, address, content.len()))
        };
        let tickets: OnceCell<Vec<Ticket>> = OnceCell::new();
        // The log keeps its order, so the value can't be durable without the blocks before it. But if one of them has
        // failed already then the value must not be written at all.
        let failed = |ticket: &Ticket| if ticket.is_done() { ticket.wait().err() } else { None };
        let ready = || {
            if tickets.get().is_none() {
                // Only now, with the value signed already: the writer's thread, woken by the first of them, would sync them
                // without it, and then once more.
                let queued = blocks.iter().map(enqueue).collect::<Result<_, _>>()?;
                let _ = tickets.set(queued);
            }
            match tickets.get().into_iter().flatten().find_map(failed) {
                // A removal that meant an older copy came between; the next try puts it again.
                None if !blocks.iter().all(|(address, _)| node.is_put(address)) => {
                    let reason = "a block is being collected as garbage".to_owned();
                    Err(PutError::NoQuorum { durable: 0, needed: 1, reason })
                }
                None => Ok(()),
                Some(StoreError::Full) => Err(PutError::Full { full: 1 }),
                Some(error) => Err(PutError::NoQuorum { durable: 0, needed: 1, reason: error.to_string() }),
            }
        };
        let record = self.swap(register, expected, payload, &ready)?;
        // Durable by now, all of them, unless one failed in the moment after the last look.
        for ticket in tickets.get().into_iter().flatten() {
            ticket.wait().map_err(|error| SwapError::Unknown { reason: error.to_string() })?;
        }
        Ok(record)
    }
}

fn put_error(refusal: Refusal, address: &Address, size: usize) -> PutError {
    match refusal {
        Refusal::Full => PutError::Full { full: 1 },
        Refusal::Misnamed => PutError::Misnamed(*address),
        Refusal::Size => PutError::Size { size, max: crate::address::BLOCK_SIZE_BYTES_MAX },
        other => PutError::NoQuorum { durable: 0, needed: 1, reason: other.to_string() },
    }
}

impl<O: Overlay + 'static> BlockStore for Client<O> {
    fn tag(&self) -> OwnerTag {
        self.inner.tag
    }

    fn put(&self, content: Bytes) -> Result<Address, PutError> {
        replicate::put(&self.inner.links, &self.inner.tag, None, &content, false)
    }

    fn put_named(&self, address: &Address, content: Bytes) -> Result<(), PutError> {
        replicate::put(&self.inner.links, &self.inner.tag, Some(address), &content, false).map(drop)
    }

    fn put_many(&self, contents: Vec<Bytes>) -> Result<Vec<Address>, PutError> {
        let blocks: Vec<_> = contents.into_iter().map(|content| (None, content)).collect();
        replicate::put_many(&self.inner.links, &self.inner.tag, &blocks, false)
    }

    fn get(&self, address: &Address, range: Option<Range<u32>>) -> Result<Bytes, GetError> {
        replicate::get(&self.inner.links, &self.inner.tag, address, range)
    }

    fn is_at_hand(&self, address: &Address) -> bool {
        self.inner.links.local.as_ref().is_some_and(|node| node.has_block(address))
    }

    fn reach(&self, register: &RegisterAddress) -> Reach {
        let links = &self.inner.links;
        let is_live = |id: &NodeId| {
            links.local(id).is_some()
                || links.last_known(id).is_some_and(|contact| links.overlay.is_live(&contact))
        };
        let (live, needed) = self.membership(register).map_or((0, usize::MAX), |membership| {
            let live = membership.members().iter().filter(|id| is_live(id)).count();
            (live, membership.quorum().needed)
        });
        // In a large network the overlay need not count one that is live among those that it knows.
        let is_anybody = || live > 0 || links.local.is_some() || links.overlay.is_anybody_live();
        match live >= needed {
            true => Reach::Quorum,
            false if is_anybody() => Reach::Some,
            false => Reach::Nobody,
        }
    }

    fn doubt(&self, register: &RegisterAddress) {
        let links = &self.inner.links;
        let Ok(membership) = self.membership(register) else { return };
        for id in membership.members().iter().filter(|id| links.local(id).is_none()) {
            if let Some(contact) = links.last_known(id) {
                links.overlay.doubt(&contact);
            }
        }
    }

    fn read(&self, register: &RegisterAddress) -> Result<Option<Record>, ReadError> {
        let state = self.state(register)?;
        let mut state = state.lock();
        Operation::new(&self.inner.links, &self.inner.identity, &mut state).read()
    }

    fn compare_and_swap(
        &self,
        register: &RegisterAddress,
        expected: Option<HeaderHash>,
        payload: Bytes,
    ) -> Result<Record, SwapError> {
        self.swap(register, expected, &payload, &|| Ok(()))
    }

    fn publish(
        &self,
        blocks: Vec<(Address, Bytes)>,
        register: &RegisterAddress,
        expected: Option<HeaderHash>,
        payload: Bytes,
    ) -> Result<Record, SwapError> {
        self.publish_with(blocks, register, expected, &payload, false)
    }

    fn publish_freeing(
        &self,
        blocks: Vec<(Address, Bytes)>,
        register: &RegisterAddress,
        expected: Option<HeaderHash>,
        payload: Bytes,
    ) -> Result<Record, SwapError> {
        self.publish_with(blocks, register, expected, &payload, true)
    }

    fn usage(&self) -> Result<Usage, ReadError> {
        let links = &self.inner.links;
        if let Some(node) = links.only_local() {
            return Ok(node.usage());
        }
        if let Some((at, usage)) = *self.inner.usage.borrow()
            && reactor::now().saturating_duration_since(at) < USAGE_LIFETIME
        {
            return Ok(usage);
        }
        let usage = gather_usage(links)?;
        *self.inner.usage.borrow_mut() = Some((reactor::now(), usage));
        Ok(usage)
    }
}

fn gather_usage<O: Overlay + 'static>(links: &Rc<Links<O>>) -> Result<Usage, ReadError> {
    let contacts = links.closest([0x80; 32], USAGE_WIDTH);
    let (sender, answers) = channel(contacts.len().max(1));
    for contact in contacts {
        let (links, sender) = (links.clone(), sender.clone());
        drop(reactor::spawn(move || {
            let usage = match links.local(&contact.id) {
                Some(node) => Ok(node.space()),
                None => links
                    .call::<NodeUsage>(&contact, &(), Bytes::new(), USAGE_TIMEOUT)
                    .map(|(usage, _)| usage),
            };
            drop(sender.try_send(usage));
        }));
    }
    drop(sender);
    let (mut spaces, mut reason) = (Vec::new(), "no node is known".to_owned());
    while let Ok(space) = answers.recv() {
        match space {
            Ok(space) => spaces.push(space),
            Err(Failure::Refused(refusal)) => return Err(ReadError::Refused(refusal.to_string())),
            Err(failure) => reason = failure.to_string(),
        }
    }
    if spaces.is_empty() {
        return Err(ReadError::NoQuorum { answers: 0, needed: 1, reason });
    }
    // Every block takes its size once on each replica; with a node down, on fewer.
    Ok(space::together(&spaces, links.replicas))
}
