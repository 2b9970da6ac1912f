//! Real nodes behind the mounts: overlay, DHT and store as in production, each on a machine of the simulated network with
//! a simulated disk. They lose power in the middle of writing, are cut off, fill up, and come back; one of them may
//! come back with an old copy of its store.

use std::cell::Cell;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use dht::block::mutable::{Genesis, Signed};
use dht::client::Config;
use dht::repair::{Pace, Repair};
use dht::store::device::SimulatedDisk;
use dht::store::{DiskStore, Incarnation, Store};
use dht::{BlockStore, Client, Gate, HeaderHash, RegisterAddress, owner_tag};
use overlay::{Bootstrap, NodeId, Overlay, Passport, Peers, Rights, Role};
use reactor::cell::RefCell;
use reactor::crypto::Identity;
use reactor::rpc::Service;
use reactor::sim::{DiskFaults, Host, Latency, Link, Running, World};
use reactor::{fs, sleep};

/// The longest that a story lasts, and more.
const FOREVER: Duration = Duration::from_secs(1_000_000);
const PORT: u16 = 7000;
const REPLICAS: usize = 3;
const SALT: [u8; 32] = [7; 32];
const STORE: &str = "/store";

/// See the file's header.
pub(crate) struct Cluster {
    world: World,
    owner: Identity,
    nodes: Vec<StorageNode>,
    genesis: RefCell<Option<Signed<Genesis>>>,
    /// The newest root that a client has seen, as each machine's home remembers it.
    seen: RefCell<Vec<Option<(u64, HeaderHash)>>>,
    /// A copy of a node's store, made while the node was down.
    backup: RefCell<Option<Backup>>,
    /// A node has been put back from it: no other may be, for two that forget are more than three replicas bear.
    was_restored: Cell<bool>,
}

/// A copy of a node's store.
#[derive(Clone)]
struct Backup {
    number: usize,
    files: Vec<(PathBuf, Vec<u8>)>,
}

/// One node and its machine.
struct StorageNode {
    number: usize,
    host: Host,
    identity: Identity,
    running: RefCell<Option<Running>>,
    /// Which store it had last, as its settings remember it.
    known: Cell<Option<Incarnation>>,
    has_forgotten: Cell<bool>,
}

impl Cluster {
    /// Starts `count` nodes.
    pub(crate) fn new(world: &World, count: usize, machines: usize) -> Rc<Cluster> {
        world.link_all(Link::new(Latency::Uniform(Duration::from_millis(1), Duration::from_millis(20))));
        let node = |number| StorageNode {
            number,
            host: world.host(&format!("node-{number}")),
            identity: Identity::from_seed(&[100 + number as u8; 32]),
            running: RefCell::default(),
            known: Cell::default(),
            has_forgotten: Cell::default(),
        };
        let cluster = Rc::new(Cluster {
            world: world.clone(),
            owner: Identity::from_seed(&[9; 32]),
            nodes: (0..count).map(node).collect(),
            genesis: RefCell::default(),
            seen: RefCell::new(vec![None; machines]),
            backup: RefCell::default(),
            was_restored: Cell::default(),
        });
        (0..count).for_each(|number| cluster.start(number));
        cluster
    }

    fn overlay_config(&self, identity: &Identity, role: Role, listen: Option<SocketAddr>) -> overlay::Config {
        let rights = if role == Role::Storage { Rights::NODE } else { Rights::CLIENT };
        let addresses = self.nodes.iter().map(|node| SocketAddr::from((node.host.address(), PORT)));
        overlay::Config {
            identity: identity.clone(),
            network: self.owner.public_key(),
            passport: Passport::issue(&self.owner, identity.public_key(), rights, None),
            role,
            listen,
            bootstrap: addresses.filter(|way| Some(*way) != listen).map(Bootstrap::Address).collect(),
            contacts_file: None,
            revocations_file: None,
            renewals_file: None,
            statement: Default::default(),
            record_file: None,
            peers: Peers::new(),
        }
    }

    /// Starts a node, if it does not run.
    pub(crate) fn start(self: &Rc<Self>, number: usize) {
        let node = &self.nodes[number];
        if node.running.borrow().as_ref().is_some_and(Running::is_running) {
            return;
        }
        let cluster = self.clone();
        let running = node.host.start(move || cluster.serve(number));
        *node.running.borrow_mut() = Some(running);
    }

    /// A node's life, as the program has it.
    fn serve(&self, number: usize) {
        let node = &self.nodes[number];
        let store = loop {
            match DiskStore::open_on(Arc::new(SimulatedDisk), store_config()) {
                Ok(store) => break Rc::new(store) as Rc<dyn Store>,
                Err(error) => {
                    self.world.tell(|| format!("node {number} cannot open its store: {error}"));
                    sleep(Duration::from_secs(5));
                }
            }
        };
        let found = store.incarnation();
        if node.known.get().is_some_and(|earlier| !found.follows(&earlier)) {
            self.world.tell(|| format!("node {number} finds that its store is not the one that it had"));
            node.has_forgotten.set(true);
        }
        node.known.set(Some(found));
        let listen = SocketAddr::from((node.host.address(), PORT));
        let config = self.overlay_config(&node.identity, Role::Storage, Some(listen));
        let gate = Gate::Passports(config.peers.clone());
        let storage = dht::Node::new(NodeId::of(&node.identity.public_key()), store, gate, REPLICAS);
        if node.has_forgotten.get() {
            storage.set_amnesiac();
        }
        let mut service = Service::new();
        storage.serve(&mut service);
        let overlay = overlay::Node::start(config, service).expect("its port is free");
        let _repair = Repair::new(overlay.clone(), storage, Pace::default()).start();
        sleep(FOREVER);
    }

    /// A client of the calling process, which is `machine`'s.
    fn client(&self) -> (Rc<overlay::Node>, Client<Rc<overlay::Node>>) {
        let config = self.overlay_config(&self.owner, Role::Client, None);
        let overlay = overlay::Node::start(config, Service::new()).expect("a client listens nowhere");
        let tag = owner_tag(&self.owner.public_key(), &SALT);
        let config = Config { identity: Rc::new(self.owner.clone()), tag, replicas: REPLICAS };
        (overlay.clone(), Client::new(overlay, None, config))
    }

    /// Makes the register, in a process of some machine; gives back what it may be founded through.
    pub(crate) fn found(&self) -> Rc<dyn BlockStore> {
        let (overlay, client) = self.client();
        while overlay.closest(&NodeId([0; 32]), self.nodes.len()).len() < self.nodes.len() {
            sleep(Duration::from_millis(100));
        }
        *self.genesis.borrow_mut() =
            Some(client.create_register(SALT, Vec::new()).expect("all nodes are there"));
        Rc::new(client)
    }

    pub(crate) fn register(&self) -> RegisterAddress {
        self.genesis.borrow().as_ref().expect("it was founded").register()
    }

    /// Connects the calling process, which is `machine`'s, and remembers from then on what it sees of the root.
    pub(crate) fn connect(self: &Rc<Self>, machine: usize) -> Rc<dyn BlockStore> {
        let (_, client) = self.client();
        let genesis = self.genesis.borrow().clone().expect("it was founded");
        let register = client.open_register(genesis).expect("we made it");
        if let Some((version, hash)) = self.seen.borrow()[machine] {
            client.expect_at_least(&register, version, hash).expect("just opened");
        }
        let (cluster, of_watch) = (self.clone(), client.clone());
        reactor::spawn(move || {
            loop {
                sleep(Duration::from_secs(2));
                if let Some(seen) = of_watch.seen(&register) {
                    cluster.seen.borrow_mut()[machine] = Some(seen);
                }
            }
        });
        Rc::new(client)
    }

    /// Cuts a machine off from some nodes, or connects it to all.
    pub(crate) fn cut(&self, machine: &Host, cut: bool) {
        for node in &self.nodes {
            self.world.heal(machine, &node.host);
            if cut {
                self.cut_way(machine, &node.host);
            }
        }
    }

    /// Lets two machines no longer reach each other, or only one the other: then answers are lost, or requests.
    fn cut_way(&self, one: &Host, other: &Host) {
        match self.world.choose(4) {
            0 => {}
            1 => self.world.partition_one_way(one, other),
            2 => self.world.partition_one_way(other, one),
            _ => self.world.partition(one, other),
        }
    }

    /// Something happens to a node.
    pub(crate) fn misfortune(self: &Rc<Self>) {
        let world = &self.world;
        let number = world.choose(self.nodes.len() as u32) as usize;
        let node = &self.nodes[number];
        match world.choose(10) {
            0 => node.host.crash(),
            1 => node.host.kill(),
            2 | 3 => node.host.crash_at_disk_change(world.choose(60)),
            4 => {
                let other = &self.nodes[world.choose(self.nodes.len() as u32) as usize];
                if other.number != number {
                    self.cut_way(&node.host, &other.host);
                }
            }
            5 => {
                let full = DiskFaults { capacity_bytes: Some(0), ..DiskFaults::default() };
                world.tell(|| format!("the disk of node {number} is full"));
                node.host.set_disk_faults(full);
            }
            6 => {
                world.tell(|| format!("the disk of node {number} fails now and then"));
                let faults = DiskFaults { write_error: 0.02, sync_error: 0.02, ..DiskFaults::default() };
                node.host.set_disk_faults(faults);
            }
            7 => node
                .host
                .set_clock(Duration::from_secs(u64::from(world.choose(1_000_000))), world.choose(2) == 1),
            8 => self.copy_store(number),
            _ => self.restore_store(),
        }
        // Those that are down come back at some later misfortune.
        for number in 0..self.nodes.len() {
            if world.choose(2) == 1 {
                self.mend(number);
            }
        }
    }

    /// Ends all that is wrong with a node.
    fn mend(self: &Rc<Self>, number: usize) {
        let node = &self.nodes[number];
        node.host.set_disk_faults(DiskFaults::default());
        for other in &self.nodes {
            self.world.heal(&node.host, &other.host);
        }
        self.start(number);
    }

    /// Ends all that is wrong.
    pub(crate) fn mend_all(self: &Rc<Self>) {
        // No power cut that has not come yet comes while it is judged: nobody would start the node again.
        self.nodes.iter().for_each(|node| node.host.crash_at_disk_change(u32::MAX));
        (0..self.nodes.len()).for_each(|number| self.mend(number));
    }

    /// Makes a copy of a node's store while the node is down, and starts it again.
    fn copy_store(self: &Rc<Self>, number: usize) {
        if self.backup.borrow().is_some() {
            return;
        }
        let node = &self.nodes[number];
        node.host.kill();
        let cluster = self.clone();
        let copy = move || {
            let files = files_below(Path::new(STORE));
            *cluster.backup.borrow_mut() = Some(Backup { number, files });
        };
        node.host.start(copy).wait();
        self.world.tell(|| format!("the store of node {number} is copied"));
        self.start(number);
    }

    /// Puts the copy back in the store's place.
    fn restore_store(self: &Rc<Self>) {
        let Some(Backup { number, files }) = self.backup.borrow().clone() else { return };
        if self.was_restored.replace(true) {
            return;
        }
        let node = &self.nodes[number];
        node.host.kill();
        node.host.set_disk_faults(DiskFaults::default());
        let restore = move || {
            let _ = fs::remove_dir_all(STORE);
            fs::create_dir_all(STORE).expect("an empty directory");
            for (path, content) in &files {
                fs::create_dir_all(path.parent().expect("a file has a parent")).expect("a directory");
                fs::write_atomically(path, content, 0o600).expect("there is space");
            }
        };
        node.host.start(restore).wait();
        self.world.tell(|| format!("node {number} gets back an old copy of its store"));
        self.start(number);
    }
}

fn files_below(path: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let entries = fs::walk(path).filter_map(Result::ok);
    let files = entries.filter(|entry| entry.kind == fs::FileKind::File);
    files
        .map(|entry| (entry.path.clone(), fs::read(&entry.path, usize::MAX / 2).expect("it is there")))
        .collect()
}

fn store_config() -> dht::store::Config {
    let mut config = dht::store::Config::new(STORE);
    // A simulated disk is memory; segments are sealed, compacted and deleted within a life.
    config.segment_size_bytes = 3 << 20;
    config.reserve_bytes = 64 << 10;
    config
}
