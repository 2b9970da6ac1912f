//! Measures a client over real sockets and disks: `cargo run --release -p dht --example measure [nodes] [directory]`.
//!
//! All nodes live in this one process, so their work shares one thread with the client's: take the figures as what one
//! core can do for all of them together.

use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use dht::client::Config;
use dht::owner_tag;
use dht::store::{DiskStore, Store};
use dht::{Address, BlockStore, Client, Gate};
use overlay::{Bootstrap, NodeId, Overlay, Passport, Peers, Rights, Role};
use reactor::crypto::Identity;
use reactor::rpc::Service;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let count: usize = arguments.next().map_or(1, |text| text.parse().expect("a number of nodes"));
    let directory = arguments.next().map_or_else(std::env::temp_dir, PathBuf::from);
    reactor::run(move || measure(count, directory));
}

fn block(number: usize, size: usize) -> Bytes {
    let mut bytes = vec![number as u8; size];
    bytes[..8].copy_from_slice(&number.to_le_bytes());
    bytes[size / 2] = (number >> 3) as u8;
    bytes.into()
}

fn measure(count: usize, directory: PathBuf) {
    let owner = Rc::new(Identity::generate());
    let replicas = count.min(3);
    let mut nodes = Vec::new();
    let mut known = Vec::new();
    let mut directories = Vec::new();
    for _ in 0..count {
        let identity = Identity::generate();
        let place = tempfile::tempdir_in(&directory).expect("a directory");
        let store: Rc<dyn Store> =
            Rc::new(DiskStore::open(dht::store::Config::new(place.path())).expect("a store"));
        directories.push(place);
        let peers = Peers::new();
        let node = dht::Node::new(
            NodeId::of(&identity.public_key()),
            store,
            Gate::Passports(peers.clone()),
            replicas,
        );
        let mut service = Service::new();
        node.serve(&mut service);
        let config = overlay::Config {
            passport: Passport::issue(&owner, identity.public_key(), Rights::NODE, None),
            identity,
            network: owner.public_key(),
            role: Role::Storage,
            listen: Some(([127, 0, 0, 1], 0).into()),
            bootstrap: known.clone(),
            contacts_file: None,
            revocations_file: None,
            renewals_file: None,
            statement: Default::default(),
            record_file: None,
            peers,
        };
        let overlay = overlay::Node::start(config, service).expect("a node");
        known = vec![Bootstrap::Address(overlay.listen_address().expect("an address"))];
        nodes.push((overlay, node));
    }
    while nodes.iter().any(|(overlay, _)| overlay.closest(&NodeId([0; 32]), 16).len() < count) {
        reactor::sleep(Duration::from_millis(10));
    }
    let (overlay, node) = nodes[0].clone();
    let config = Config { tag: owner_tag(&owner.public_key(), &[0; 32]), identity: owner, replicas };
    let client = Client::new(overlay, Some(node), config);
    println!("{count} nodes, {replicas} replicas, the client in the first node's process");

    let register = client.create_register([1; 32], vec![]).expect("enough nodes").register();
    let mut last = client.compare_and_swap(&register, None, Bytes::new()).expect("a first value");
    let mut number = 0;
    let mut fresh = |size| {
        number += 1;
        block(number, size)
    };

    let time = |what: &str, rounds: usize, bytes: usize, work: &mut dyn FnMut()| {
        let mut times: Vec<Duration> = Vec::new();
        let began = Instant::now();
        for _ in 0..rounds {
            let began = Instant::now();
            work();
            times.push(began.elapsed());
        }
        let total = began.elapsed();
        times.sort();
        let rate = (rounds * bytes) as f64 / total.as_secs_f64() / 1e6;
        println!(
            "{what:44} {:>9.0}/s {rate:>8.1} MB/s   p50 {:>9.3?}  p99 {:>9.3?}",
            rounds as f64 / total.as_secs_f64(),
            times[rounds / 2],
            times[rounds * 99 / 100]
        );
    };

    time("swap of 300 bytes", 300, 300, &mut || {
        last = client.compare_and_swap(&register, Some(last.header_hash), block(1, 300)).expect("a swap");
    });
    time("publish: 3 blocks of 8 KiB, then swap", 300, 24 << 10, &mut || {
        let blocks = (0..3).map(|_| fresh(8 << 10)).map(|b| (Address::of(&client.tag(), &b), b)).collect();
        last = client.publish(blocks, &register, Some(last.header_hash), block(1, 300)).expect("a swap");
    });
    time("put of 64 KiB, one after the other", 100, 64 << 10, &mut || {
        client.put(fresh(64 << 10)).expect("a put");
    });
    let mut addresses = Vec::new();
    time("put_many: 64 blocks of 1 MiB", 4, 64 << 20, &mut || {
        addresses = client.put_many((0..64).map(|_| fresh(1 << 20)).collect()).expect("puts");
    });
    time("read of a register", 2000, 300, &mut || {
        client.read(&register).expect("a read");
    });
    let mut turn = 0;
    time("get of 1 MiB, whole, local", 300, 1 << 20, &mut || {
        turn += 1;
        client.get(&addresses[turn % 64], None).expect("a block");
    });
    time("get of 4 KiB of 1 MiB, local", 5000, 4 << 10, &mut || {
        turn += 7;
        let start = (turn % 255 * 4096) as u32;
        client.get(&addresses[turn % 64], Some(start..start + 4096)).expect("a range");
    });
    if count > 1 {
        let overlay = nodes[1].0.clone();
        let config = Config { tag: client.tag(), identity: client.identity().clone(), replicas };
        let remote = Client::new(overlay, None, config);
        // Without its node's store at hand the client asks the others.
        let overlay_calls = addresses.clone();
        time("get of 1 MiB, whole, over TLS", 200, 1 << 20, &mut || {
            turn += 1;
            drop(remote.get(&overlay_calls[turn % 64], None));
        });
        time("get of 4 KiB of 1 MiB, over TLS", 2000, 4 << 10, &mut || {
            turn += 7;
            let start = (turn % 255 * 4096) as u32;
            drop(remote.get(&overlay_calls[turn % 64], Some(start..start + 4096)));
        });
    }
    for (overlay, node) in nodes {
        overlay.stop();
        node.store().close().expect("a clean end");
    }
}
