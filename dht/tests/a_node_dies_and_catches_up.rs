//! Three nodes with disks, over TLS on loopback. One dies in the middle of writing: reads and writes go on at once. It
//! comes back at another port and catches up. Then another one dies, and nothing is missing: what the first one missed
//! is served by it.
//!
//! Told twice: over real sockets and disks, and in the simulator, where time passes only for whoever waits. That nobody waits
//! for the dead one is judged there, since a busy machine takes as long as it takes.

use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use dht::client::Config;
use dht::owner_tag;
use dht::repair::{Pace, Repair, Running};
use dht::store::device::SimulatedDisk;
use dht::store::{DiskStore, Store};
use dht::{Address, BlockStore, Client, Gate};
use overlay::{Bootstrap, NodeId, Overlay, Passport, Peers, Rights, Role};
use reactor::crypto::Identity;
use reactor::rpc::Service;
use reactor::sim::{self, SimConfig};
use tempfile::TempDir;

const REPLICAS: usize = 3;

/// Which time the story runs in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Time {
    Real,
    Counted,
}

struct Storage {
    overlay: Rc<overlay::Node>,
    node: Rc<dht::Node>,
    store: Rc<dyn Store>,
    repair: Running,
}

fn config(owner: &Identity, identity: &Identity, role: Role, known: &[Bootstrap]) -> overlay::Config {
    let rights = if role == Role::Storage { Rights::NODE } else { Rights::CLIENT };
    overlay::Config {
        identity: identity.clone(),
        network: owner.public_key(),
        passport: Passport::issue(owner, identity.public_key(), rights, None),
        role,
        listen: (role == Role::Storage).then(|| ([127, 0, 0, 1], 0).into()),
        bootstrap: known.to_vec(),
        contacts_file: None,
        revocations_file: None,
        renewals_file: None,
        statement: Default::default(),
        record_file: None,
        peers: Peers::new(),
    }
}

fn start(
    owner: &Identity,
    identity: &Identity,
    directory: &Path,
    known: &[Bootstrap],
    time: Time,
) -> Storage {
    let config_of_store = dht::store::Config::new(directory);
    let store = match time {
        Time::Real => DiskStore::open(config_of_store),
        Time::Counted => DiskStore::open_on(Arc::new(SimulatedDisk), config_of_store),
    };
    let store: Rc<dyn Store> = Rc::new(store.expect("a store"));
    let config = config(owner, identity, Role::Storage, known);
    let gate = Gate::Passports(config.peers.clone());
    let node = dht::Node::new(NodeId::of(&identity.public_key()), store.clone(), gate, REPLICAS);
    let mut service = Service::new();
    node.serve(&mut service);
    let overlay = overlay::Node::start(config, service).expect("a node");
    let pace = Pace { period: Duration::from_secs(2), settle: Duration::from_millis(50), ..Pace::default() };
    let repair = Repair::new(overlay.clone(), node.clone(), pace).start();
    Storage { overlay, node, store, repair }
}

impl Storage {
    fn address(&self) -> Bootstrap {
        Bootstrap::Address(self.overlay.listen_address().expect("it listens"))
    }

    fn stop(self) {
        drop(self.repair);
        self.overlay.stop();
        self.store.close().expect("a clean end");
    }
}

fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let began = reactor::now();
    while !condition() {
        assert!(reactor::now() - began < Duration::from_secs(120), "waited too long for: {what}");
        reactor::sleep(Duration::from_millis(10));
    }
    println!("{what}: after {:?}", reactor::now() - began);
}

fn content(number: usize) -> Bytes {
    (0..40_000 + number * 100).map(|i| (i / 251 + i * number) as u8).collect::<Vec<_>>().into()
}

#[test]
fn reads_and_writes_go_on_and_the_node_that_returns_has_everything() {
    reactor::run(|| story(Time::Real));
    sim::run(1, SimConfig::default(), |_| story(Time::Counted));
}

fn story(time: Time) {
    let owner = Identity::generate();
    let identities: Vec<_> = (0..3).map(|_| Identity::generate()).collect();
    let directories: Vec<_> = (0..3).map(|_| TempDir::new().expect("a directory")).collect();
    let first = start(&owner, &identities[0], directories[0].path(), &[], time);
    let known = [first.address()];
    let mut nodes = vec![first];
    for index in 1..3 {
        nodes.push(start(&owner, &identities[index], directories[index].path(), &known, time));
    }
    let connect = |known: &[Bootstrap]| {
        let user = Identity::from_seed(&owner.seed());
        let overlay = overlay::Node::start(config(&owner, &user, Role::Client, known), Service::new());
        let tag = owner_tag(&user.public_key(), &[0; 32]);
        let overlay = overlay.expect("a client");
        eventually("the client knows somebody", || !overlay.closest(&NodeId([0; 32]), 3).is_empty());
        Client::new(overlay, None, Config { identity: Rc::new(user), tag, replicas: REPLICAS })
    };
    eventually("all know each other", || {
        nodes.iter().all(|node| node.overlay.closest(&NodeId([0; 32]), 4).len() == 3)
    });

    let client = connect(&known);
    let genesis = client.create_register([1; 32], vec![]).expect("three nodes");
    let register = genesis.register();
    let mut last = client.compare_and_swap(&register, None, Bytes::new()).expect("the first value");
    let mut addresses: Vec<Address> = Vec::new();
    let mut write = |client: &Client<Rc<overlay::Node>>, number: usize| {
        let block = content(number);
        let address = Address::of(&client.tag(), &block);
        addresses.push(address);
        let root = Bytes::from(number.to_le_bytes().to_vec());
        let began = reactor::now();
        last = client
            .publish(vec![(address, block)], &register, Some(last.header_hash), root)
            .unwrap_or_else(|error| panic!("write {number}: {error}"));
        reactor::now() - began
    };
    for number in 0..20 {
        write(&client, number);
    }

    let victim = nodes.remove(2);
    let victim_address = victim.overlay.listen_address();
    victim.stop();
    let mut worst = Duration::ZERO;
    for number in 20..60 {
        worst = worst.max(write(&client, number));
    }
    println!("the slowest write with a node dead took {worst:?}");
    assert!(
        time == Time::Real || worst < Duration::from_secs(2),
        "a write waited {worst:?} for the dead node"
    );

    let back = start(&owner, &identities[2], directories[2].path(), &known, time);
    assert_ne!(back.overlay.listen_address(), victim_address);
    eventually("the node that came back has all blocks and the register", || {
        // Beside them it may keep what the register was before: not what this asks for.
        addresses.iter().all(|address| back.node.has_block(address))
            && back.node.read_register(&register).expect("a register").is_some_and(|view| {
                view.accepted.is_some_and(|accepted| accepted.record.hash() == last.header_hash)
            })
    });

    let ways = [back.address()];
    nodes.remove(0).stop();
    let reader = connect(&ways);
    reader.open_register(genesis).expect("a genesis record");
    assert_eq!(reader.read(&register).expect("a read"), Some(last.clone()));
    for (number, address) in addresses.iter().enumerate() {
        let whole = reader.get(address, None).unwrap_or_else(|error| panic!("block {number}: {error}"));
        assert_eq!(whole, content(number));
        assert_eq!(reader.get(address, Some(33_000..33_100)).expect("a range"), whole.slice(33_000..33_100));
    }
    let usage = reader.usage().expect("usage");
    assert!(usage.used_bytes > 2_000_000 && usage.total_bytes > usage.used_bytes, "{usage:?}");
    let next = reader.compare_and_swap(&register, Some(last.header_hash), Bytes::new()).expect("a write");
    assert_eq!(next.version, last.version + 1);
}
