//! Three nodes join through the first; everyone then knows everyone, and a client, whom nobody lists, calls them all.

mod common;

use std::time::Duration;

use bytes::Bytes;
use common::*;
use overlay::{Contact, NodeId, Overlay, Rights};
use reactor::rpc::{Method, Service};

struct Greet;

impl Method for Greet {
    const ID: u32 = 0x0901;
    const NAME: &'static str = "test.greet";
    type Request = String;
    type Response = String;
    type Error = String;
}

#[test]
fn three_nodes_join_through_one() {
    reactor::run(|| {
        let network = Network::new();
        let nodes = network.start(3);
        for node in &nodes {
            eventually("everyone knows everyone", Duration::from_secs(5), || live_count(node) == 2);
        }
        let target = NodeId([0x5a; 32]);
        for node in &nodes {
            eventually("the first node counts as joined", Duration::from_secs(5), || node.has_joined());
            assert_eq!(closest(node, &target, 3), brute_force(&nodes, &target, 3));
            assert_eq!(closest(node, &target, 2), brute_force(&nodes, &target, 2));
        }
    });
}

#[test]
fn a_client_calls_every_node_and_is_listed_by_none() {
    reactor::run(|| {
        let network = Network::new();
        let greeter = |bootstrap: &[_]| {
            let config = network.storage(bootstrap);
            let peers = config.peers.clone();
            let mut service = Service::new();
            service.on::<Greet>(move |context, name, payload| {
                // A handler learns its caller's rights from the book of peers.
                peers.check(context.peer.as_ref(), Rights::CLIENT).map_err(|error| error.to_string())?;
                let stores = peers.check(context.peer.as_ref(), Rights::NODE).is_ok();
                Ok((format!("hello {name}, stores: {stores}"), payload))
            });
            overlay::Node::start(config, service).unwrap()
        };
        let first = greeter(&[]);
        let nodes = [first.clone(), greeter(&[address(&first)]), greeter(&[address(&first)])];
        let client = start(network.client(&[address(&first)]));
        assert_eq!(client.own(), None);
        let found = client.closest(&NodeId([1; 32]), 5);
        assert_eq!(found.len(), 3);
        for contact in &found {
            let payload = Bytes::from_static(b"beside the message");
            let answer =
                client.call::<Greet>(contact, &"client".into(), payload.clone(), Duration::from_secs(5));
            assert_eq!(answer.unwrap(), ("hello client, stores: false".into(), payload));
        }
        let answer =
            first.call::<Greet>(&contact(&nodes[1]), &"node".into(), Bytes::new(), Duration::from_secs(5));
        assert_eq!(answer.unwrap().0, "hello node, stores: true");
        for node in &nodes {
            assert_eq!(live_count(node), 2, "a client is nobody's contact");
        }
    });
}

#[test]
fn a_client_is_called_back_over_the_connection_it_made() {
    reactor::run(|| {
        let network = Network::new();
        let node = start(network.storage(&[]));
        let config = network.client(&[address(&node)]);
        let key = config.identity.public_key();
        let mut service = Service::new();
        service.on::<Greet>(|_, name, payload| Ok((format!("hello {name}, says a client"), payload)));
        let client = overlay::Node::start(config, service).unwrap();
        let without_address = Contact::new(key, []);
        let call =
            || node.call::<Greet>(&without_address, &"node".into(), Bytes::new(), Duration::from_secs(5));
        assert_eq!(call().unwrap().0, "hello node, says a client");
        client.stop();
        eventually("it can't be called once it is gone", Duration::from_secs(3), || call().is_err());
    });
}

#[test]
fn all_start_at_once_before_anybody_listens() {
    reactor::run(|| {
        let network = Network::new();
        // A port that is free now, and taken by the last node to start.
        let first_address = address(&start(network.storage(&[])));
        reactor::sleep(Duration::from_millis(50));
        let others = [start(network.storage(&[first_address])), start(network.storage(&[first_address]))];
        assert!(others.iter().all(|node| !node.has_joined()));
        let mut config = network.storage(&[]);
        config.listen = Some(first_address);
        let _first = start(config);
        for node in &others {
            eventually("they find each other", Duration::from_secs(6), || live_count(node) == 2);
        }
    });
}
