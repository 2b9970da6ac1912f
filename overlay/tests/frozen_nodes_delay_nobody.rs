//! Some nodes freeze: their sockets stay open and nothing answers, which is worse than death. Whoever has a connection
//! to one finds out by a ping; lookups hedge around those that others still recommend.

mod common;

use std::io::Read;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use common::*;
use overlay::admission::{self, Credentials};
use overlay::message::Ping;
use overlay::{Contact, Node, NodeId, Overlay, Passport, Peers, Renewals, Rights, Role};
use reactor::JoinHandle;
use reactor::crypto::Identity;
use reactor::net::tls::{self, Expect};
use reactor::net::{TcpListener, TcpStream};
use reactor::rpc::CallError;

/// A node that has a passport and a port, introduces itself to some, and then does nothing any more.
struct Frozen {
    contact: Contact,
    _listener: TcpListener,
    _holding: JoinHandle<()>,
}

fn freeze(network: &Network, nodes: &[Rc<Node>]) -> Frozen {
    let identity = Rc::new(Identity::generate());
    let own = identity.public_key();
    let listener = TcpListener::bind(loopback()).unwrap();
    let addresses: Vec<SocketAddr> = vec![listener.local_addr().unwrap()];
    let ours = Credentials {
        network: network.owner.public_key(),
        own,
        passport: Passport::issue(&network.owner, own, Rights::NODE, None),
        role: Role::Storage,
        addresses: addresses.clone(),
        peers: Peers::new(),
        renewals: Renewals::new(),
        records: overlay::records::Records::new(network.owner.public_key()),
    };
    let introduced = nodes.iter().map(|node| {
        let stream = TcpStream::connect_one(address(node)).unwrap();
        let stream = tls::connect(stream, &identity, Expect::Any).unwrap();
        admission::dialler(&mut &stream, &ours, node.own().unwrap().public_key, address(node)).unwrap();
        stream
    });
    let streams: Vec<_> = introduced.collect();
    let holding = reactor::spawn(move || {
        reactor::sleep(Duration::from_secs(3600));
        streams.iter().for_each(|mut stream| drop(stream.read(&mut [0])));
    });
    Frozen { contact: Contact::new(own, addresses), _listener: listener, _holding: holding }
}

#[test]
fn a_frozen_node_is_found_out_by_the_first_call_that_times_out() {
    in_both_times(|time| {
        let network = Network::new();
        let nodes = network.start(3);
        time.eventually("all are known", Duration::from_secs(5), || {
            nodes.iter().all(|node| live_count(node) == 2)
        });
        let frozen = freeze(&network, &nodes[..1]);
        time.eventually("the frozen one is listed", Duration::from_secs(1), || live_count(&nodes[0]) == 3);
        let timeout = Duration::from_millis(300);
        let result = nodes[0].call::<Ping>(&frozen.contact, &(), Bytes::new(), timeout);
        assert_eq!(result, Err(CallError::TimedOut));
        let took = time.eventually("it is found out", Duration::from_secs(2), || live_count(&nodes[0]) == 2);
        println!("found out {took:?} after the call");
        // From then on it costs nothing, though its port still accepts.
        for _ in 0..20 {
            // Less than any timeout.
            let (found, _) = time.within(Duration::from_millis(100), "a question", || {
                closest(&nodes[0], &frozen.contact.id, 3)
            });
            assert_eq!(found.len(), 3);
            reactor::sleep(Duration::from_millis(100));
        }
    });
}

#[test]
fn a_frozen_node_that_somebody_doubts_is_live_no_more_and_the_others_are() {
    reactor::run(|| {
        let network = Network::new();
        let nodes = network.start(2);
        eventually("they meet", Duration::from_secs(5), || nodes.iter().all(|node| live_count(node) == 1));
        let frozen = freeze(&network, &nodes[..1]);
        eventually("the frozen one is listed", Duration::from_secs(5), || nodes[0].is_live(&frozen.contact));
        let other = contact(&nodes[1]);
        let doubted = eventually("it is found out", Duration::from_secs(30), || {
            nodes[0].doubt(&frozen.contact);
            nodes[0].doubt(&other);
            !nodes[0].is_live(&frozen.contact)
        });
        println!("found out {doubted:?} after the doubt");
        eventually("who answers is live", Duration::from_secs(30), || nodes[0].is_live(&other));
        assert!(nodes[0].is_anybody_live());
    });
}

#[test]
fn lookups_hedge_around_frozen_nodes() {
    in_counted_time(|time| {
        let network = Network::new();
        let nodes = network.start(24);
        for node in &nodes {
            time.eventually("all have joined", Duration::from_secs(10), || node.has_joined());
        }
        let frozen: Vec<Frozen> = nodes.chunks(6).map(|introduced| freeze(&network, introduced)).collect();
        let mut times = Vec::new();
        for round in 0..40u8 {
            // Half of them right where a frozen node stands.
            let target = match round % 2 {
                0 => frozen[usize::from(round) % frozen.len()].contact.id,
                _ => NodeId([round.wrapping_mul(37); 32]),
            };
            let (found, took) = time.within(Duration::from_secs(5), "the slowest lookup", || {
                closest(&nodes[usize::from(round) % nodes.len()], &target, 3)
            });
            times.push(took);
            assert_eq!(found, brute_force(&nodes, &target, 3));
        }
        times.sort();
        println!("median {:?}, 9th decile {:?}, longest {:?}", times[20], times[36], times[39]);
        assert!(times[20] < Duration::from_millis(600));
        assert!(times[39] > Duration::from_millis(100), "nobody was told of a frozen one");
    });
}
