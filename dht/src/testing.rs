//! A network in one process: real nodes and clients, and between them calls that can be lost, delayed, or lied about.
//!
//! Requests and answers are encoded and dispatched as over a socket. Time is real, and short.

use std::cell::Cell;
use std::collections::{BTreeSet, HashMap};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use overlay::lookup::{Transport, lookup};
use overlay::message::{CONTACTS_MAX, FindNodeRequest};
use overlay::routing_table::RoutingTable;
use overlay::{Changes, Contact, K, NodeId, NodeRecord, Overlay, Statement, Watch};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use reactor::cell::RefCell;
use reactor::crypto::{Identity, PublicKey};
use reactor::rpc::{CallContext, CallError, Method, Service};

use crate::address::{Address, OwnerTag};
use crate::block::mutable::{Genesis, Signed};
use crate::client::{Client, Config};
use crate::message::PutBlockRequest;
use crate::node::{Gate, Node};
use crate::repair::{Pace, Repair};
use crate::store::{MemoryStore, Store};

pub(crate) const TAG: OwnerTag = OwnerTag([0x7a; 32]);

pub(crate) fn seed() -> u64 {
    let seed = std::env::var("HYPHA_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| u64::from_le_bytes(reactor::crypto::random_bytes()));
    println!("HYPHA_SEED={seed}");
    seed
}

/// How a node behaves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Mood {
    Well,
    /// Its port is closed, and the overlay does not know yet.
    Dead,
    /// It takes calls and never answers.
    Hangs,
    /// It flips a bit in every payload that it sends.
    Lies,
}

pub(crate) struct FakeNode {
    pub(crate) identity: Rc<Identity>,
    pub(crate) contact: Contact,
    pub(crate) store: Rc<dyn Store>,
    /// The same store, for its switches.
    pub(crate) memory: Rc<MemoryStore>,
    node: RefCell<Rc<Node>>,
    service: RefCell<Rc<Service>>,
    pub(crate) mood: Cell<Mood>,
    pub(crate) delay: Cell<Duration>,
    /// Left out by `closest`, as the overlay does once it knows that a node is dead.
    pub(crate) forgotten: Cell<bool>,
    /// No member any more.
    pub(crate) is_removed: Cell<bool>,
    /// No member yet.
    pub(crate) is_unborn: Cell<bool>,
    /// What it says of itself.
    says: RefCell<Option<Arc<NodeRecord>>>,
    /// Whether it has yet to hear what the others say of themselves.
    pub(crate) is_behind: Cell<bool>,
}

impl FakeNode {
    /// The node that it is now. Calls of it suspend: no borrow may be held over them.
    pub(crate) fn node(&self) -> Rc<Node> {
        self.node.borrow().clone()
    }
}

pub(crate) struct FakeNetwork {
    pub(crate) nodes: Vec<FakeNode>,
    pub(crate) changes: Changes,
    replicas: usize,
    /// Of every method, how many calls were sent.
    pub(crate) calls: RefCell<HashMap<&'static str, usize>>,
    /// Of a hundred messages, how many are lost, each way.
    pub(crate) loss_percent: Cell<u32>,
    /// How many lookups were made.
    pub(crate) lookups: Cell<usize>,
    /// Whom somebody waited for longer than usual.
    pub(crate) doubted: RefCell<BTreeSet<NodeId>>,
    rng: RefCell<StdRng>,
    /// Whom each has a place for, of those that are there.
    tables: RefCell<HashMap<NodeId, Rc<RoutingTable>>>,
    /// Who was there when the tables were filled.
    tables_of: RefCell<Vec<bool>>,
}

fn serve(node: &Rc<Node>) -> Rc<Service> {
    let mut service = Service::new();
    node.serve(&mut service);
    Rc::new(service)
}

impl FakeNetwork {
    pub(crate) fn new(count: usize, replicas: usize, seed: u64) -> Rc<FakeNetwork> {
        let node = |index: usize| {
            let identity = Rc::new(Identity::from_seed(&[index as u8 + 100; 32]));
            let contact = Contact::new(identity.public_key(), [([127, 0, 0, 1], 7000 + index as u16).into()]);
            let memory = Rc::new(MemoryStore::new());
            let store: Rc<dyn Store> = memory.clone();
            let node = Node::new(contact.id, store.clone(), Gate::Open, replicas);
            FakeNode {
                identity,
                contact,
                store,
                memory,
                service: RefCell::new(serve(&node)),
                node: RefCell::new(node),
                mood: Cell::new(Mood::Well),
                delay: Cell::new(Duration::ZERO),
                forgotten: Cell::new(false),
                is_removed: Cell::new(false),
                is_unborn: Cell::new(false),
                says: RefCell::default(),
                is_behind: Cell::new(false),
            }
        };
        Rc::new(FakeNetwork {
            nodes: (0..count).map(node).collect(),
            changes: Changes::new(),
            replicas,
            calls: RefCell::default(),
            loss_percent: Cell::new(0),
            lookups: Cell::new(0),
            doubted: RefCell::default(),
            rng: RefCell::new(StdRng::seed_from_u64(seed)),
            tables: RefCell::default(),
            tables_of: RefCell::default(),
        })
    }

    /// What the one at this place knows: all that it has met, as far as its buckets go.
    fn table_of(&self, own: NodeId) -> Rc<RoutingTable> {
        let are_there: Vec<bool> = self.nodes.iter().map(|fake| !fake.forgotten.get()).collect();
        if *self.tables_of.borrow() != are_there {
            self.tables.borrow_mut().clear();
            self.tables_of.replace(are_there);
        }
        let fill = || {
            let mut table = RoutingTable::new(own);
            for fake in self.nodes.iter().filter(|fake| !fake.forgotten.get()) {
                table.on_seen(fake.contact.clone(), reactor::now());
            }
            Rc::new(table)
        };
        self.tables.borrow_mut().entry(own).or_insert_with(fill).clone()
    }

    /// Starts a node again on what its store holds.
    pub(crate) fn restart(&self, index: usize) {
        let fake = &self.nodes[index];
        let node = Node::new(fake.contact.id, fake.store.clone(), Gate::Open, self.replicas);
        *fake.service.borrow_mut() = serve(&node);
        *fake.node.borrow_mut() = node;
        fake.mood.set(Mood::Well);
    }

    /// Has a node say where it stands.
    pub(crate) fn say_zone(&self, index: usize, zone: &str) {
        self.say(index, Statement { zone: Some(zone.parse().unwrap()), ..Statement::default() });
    }

    /// Has a node say how much it takes.
    pub(crate) fn say_capacity(&self, index: usize, capacity_bytes: u64) {
        self.say(index, Statement { capacity_bytes: Some(capacity_bytes), ..Statement::default() });
    }

    fn say(&self, index: usize, statement: Statement) {
        let fake = &self.nodes[index];
        let version = fake.says.borrow().as_ref().map_or(1, |said| said.version() + 1);
        let record = NodeRecord::sign(&fake.identity, &fake.identity.public_key(), version, statement);
        *fake.says.borrow_mut() = Some(Arc::new(record));
    }

    /// Has a node answer with another service than its own.
    pub(crate) fn replace_service(&self, index: usize, service: Service) {
        *self.nodes[index].service.borrow_mut() = Rc::new(service);
    }

    /// A client that stores nothing.
    pub(crate) fn client(self: &Rc<Self>, identity: &Rc<Identity>) -> Client<FakeOverlay> {
        self.client_with(identity, TAG)
    }

    /// A client that stores nothing, and names its blocks under another tag.
    pub(crate) fn client_with(
        self: &Rc<Self>,
        identity: &Rc<Identity>,
        tag: OwnerTag,
    ) -> Client<FakeOverlay> {
        let key = identity.public_key();
        let overlay = FakeOverlay { network: self.clone(), own: None, key };
        Client::new(overlay, None, Config { tag, ..self.config(identity) })
    }

    /// The client of the process in which the node at `index` lives.
    pub(crate) fn client_at(self: &Rc<Self>, index: usize, identity: &Rc<Identity>) -> Client<FakeOverlay> {
        let local = self.nodes[index].node();
        Client::new(self.overlay_at(index), Some(local), self.config(identity))
    }

    pub(crate) fn overlay_at(self: &Rc<Self>, index: usize) -> FakeOverlay {
        let fake = &self.nodes[index];
        FakeOverlay {
            network: self.clone(),
            own: Some(fake.contact.clone()),
            key: fake.identity.public_key(),
        }
    }

    fn config(&self, identity: &Rc<Identity>) -> Config {
        Config { identity: identity.clone(), tag: TAG, replicas: self.replicas }
    }

    /// Puts blocks, as they would lie on their nodes had that been long ago.
    pub(crate) fn put_long_ago(&self, client: &Client<FakeOverlay>, contents: Vec<Bytes>) -> Vec<Address> {
        let tag = crate::BlockStore::tag(client);
        let put = |content: Bytes| {
            let address = Address::of(&tag, &content);
            let request = PutBlockRequest { put_seconds: Some(1000), ..PutBlockRequest::new(address, tag) };
            let mut nodes: Vec<&FakeNode> = self.nodes.iter().collect();
            nodes.sort_by_key(|fake| fake.contact.id.distance(&NodeId(address.0)));
            for fake in &nodes[..self.replicas] {
                fake.node().put_block_of(&request, &content).unwrap();
            }
            address
        };
        contents.into_iter().map(put).collect()
    }

    pub(crate) fn calls_of(&self, name: &str) -> usize {
        self.calls.borrow().get(name).copied().unwrap_or(0)
    }

    fn loses(&self) -> bool {
        self.rng.borrow_mut().random_range(0..100) < self.loss_percent.get()
    }
}

/// The repair of one of them.
pub(crate) fn repair_of(network: &Rc<FakeNetwork>, index: usize) -> Repair<FakeOverlay> {
    Repair::new(network.overlay_at(index), network.nodes[index].node(), Pace::default())
}

/// In which zone each of so many nodes says that it is.
pub(crate) fn zone_of(index: usize, zones: usize) -> String {
    format!("zone-{}", index % zones)
}

pub(crate) struct FakeOverlay {
    network: Rc<FakeNetwork>,
    own: Option<Contact>,
    key: PublicKey,
}

impl FakeOverlay {
    /// Its own position; a client has one too.
    fn place(&self) -> NodeId {
        NodeId::of(&self.key)
    }

    fn table(&self) -> Rc<RoutingTable> {
        self.network.table_of(self.place())
    }
}

/// A lookup's questions: each answers from its table, as the real ones do.
struct Near<'a> {
    network: &'a FakeNetwork,
    own: NodeId,
    count: usize,
}

impl Transport for Near<'_> {
    fn find_node(&self, contact: &Contact, target: &NodeId) -> Option<Vec<Contact>> {
        let contacts_max = FindNodeRequest::new(*target, self.count).contacts_max();
        let mut contacts = self.network.table_of(contact.id).closest(target, contacts_max + 1);
        contacts.retain(|contact| contact.id != self.own);
        contacts.truncate(contacts_max);
        Some(contacts)
    }

    fn patience(&self, _: &Contact) -> Duration {
        Duration::from_secs(1)
    }
}

impl Overlay for FakeOverlay {
    fn own(&self) -> Option<Contact> {
        self.own.clone()
    }

    fn closest(&self, key: &NodeId, count: usize) -> Vec<Contact> {
        let own = self.own.as_ref().map(|own| own.id);
        let of_own = self.network.nodes.iter().find(|fake| Some(fake.contact.id) == own);
        // A client hears what is said as soon as it is there.
        let is_behind = of_own.is_some_and(|fake| fake.is_behind.get());
        let known = |fake: &FakeNode| {
            let says = fake.says.borrow().clone().filter(|_| !is_behind || Some(fake.contact.id) == own);
            says.into_iter().fold(fake.contact.clone(), Contact::with_record)
        };
        let mut found = self.table().closest(key, count);
        if !self.knows_everyone() {
            // As the real one does where not everybody is known.
            self.network.lookups.update(|count| count + 1);
            let seeds = self.table().closest(key, count.max(K));
            let count = count.min(CONTACTS_MAX);
            let near = Near { network: &self.network, own: self.place(), count };
            found = lookup(&near, self.place(), *key, count, seeds).closest;
        }
        found.extend(self.own.clone());
        found.sort_by_key(|contact| contact.id.distance(key));
        found.truncate(count);
        let fake = |contact: &Contact| self.network.nodes.iter().find(|fake| fake.contact.id == contact.id);
        found.iter().filter_map(fake).map(known).collect()
    }

    fn knows_everyone(&self) -> bool {
        self.table().live_count() < K
    }

    fn known_count(&self) -> usize {
        self.table().live_count() + usize::from(self.own.is_some())
    }

    fn members(&self) -> Option<Vec<Contact>> {
        let says = |fake: &FakeNode| fake.says.borrow().clone().into_iter();
        let contact = |fake: &FakeNode| says(fake).fold(fake.contact.clone(), Contact::with_record);
        Some(self.network.nodes.iter().filter(|fake| !fake.is_unborn.get()).map(contact).collect())
    }

    fn is_live(&self, contact: &Contact) -> bool {
        let fake = self.network.nodes.iter().find(|fake| fake.contact.id == contact.id);
        fake.is_some_and(|fake| !fake.forgotten.get() && fake.mood.get() != Mood::Dead)
    }

    fn is_removed(&self, contact: &Contact) -> bool {
        self.network.nodes.iter().any(|fake| fake.contact.id == contact.id && fake.is_removed.get())
    }

    fn is_anybody_live(&self) -> bool {
        self.network.nodes.iter().any(|fake| self.is_live(&fake.contact))
    }

    fn doubt(&self, contact: &Contact) {
        self.network.doubted.borrow_mut().insert(contact.id);
    }

    fn call<M: Method>(
        &self,
        contact: &Contact,
        request: &M::Request,
        payload: Bytes,
        timeout: Duration,
    ) -> Result<(M::Response, Bytes), CallError<M::Error>> {
        assert!(self.own.as_ref().is_none_or(|own| own.id != contact.id), "nobody calls itself");
        *self.network.calls.borrow_mut().entry(M::NAME).or_default() += 1;
        let fake = self.network.nodes.iter().find(|fake| fake.contact.id == contact.id).expect("a node");
        reactor::yield_now();
        // The randomised tests do not wait out whole timeouts for lost messages.
        let lost = |timeout: Duration| reactor::sleep(timeout.min(Duration::from_millis(20)));
        match fake.mood.get() {
            Mood::Dead => return Err(CallError::Closed),
            Mood::Hangs => {
                reactor::sleep(timeout);
                return Err(CallError::TimedOut);
            }
            Mood::Well | Mood::Lies => {}
        }
        if self.network.loses() {
            lost(timeout);
            return Err(CallError::TimedOut);
        }
        if !fake.delay.get().is_zero() {
            reactor::sleep(fake.delay.get());
        }
        let service = fake.service.borrow().clone();
        let mut context = CallContext::default();
        context.peer = Some(self.key);
        let answer = service.call_local::<M>(&context, request, payload);
        if self.network.loses() || fake.mood.get() == Mood::Dead {
            lost(timeout);
            return Err(CallError::TimedOut);
        }
        let (response, payload) = answer?;
        if fake.mood.get() == Mood::Lies && !payload.is_empty() {
            let mut lie = payload.to_vec();
            let middle = lie.len() / 2;
            lie[middle] ^= 1;
            return Ok((response, lie.into()));
        }
        Ok((response, payload))
    }

    fn watch(&self) -> Watch {
        self.network.changes.watch()
    }
}

impl Client<FakeOverlay> {
    /// The client with a register open that somebody else made.
    pub(crate) fn opened(self, genesis: &Signed<Genesis>) -> Self {
        self.open_register(genesis.clone()).unwrap();
        self
    }
}
