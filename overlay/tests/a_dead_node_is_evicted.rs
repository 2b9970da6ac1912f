//! One of four nodes dies. The next question for the closest is answered at once and without it, calls to it fail at
//! once, watchers hear of it; and when it is back, at another port, it is found again within seconds.

mod common;

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use common::*;
use overlay::message::Ping;
use overlay::{Config, NodeId, Overlay};
use reactor::crypto::Identity;
use reactor::rpc::CallError;

#[test]
fn a_dead_node_is_evicted_and_found_again_at_another_port() {
    in_both_times(|time| {
        let network = Network::new();
        let mut nodes = network.start(3);
        let config = network.storage(&[address(&nodes[0])]);
        let (seed, passport) = (config.identity.seed(), config.passport.clone());
        let dying = start(config);
        for node in &nodes {
            time.eventually("everyone is known", Duration::from_secs(5), || {
                live_count(node) == 3 && node.has_joined()
            });
        }
        let target = dying.id();
        assert_eq!(closest(&nodes[1], &target, 1), [target]);
        let changed = Rc::new(Cell::new(false));
        let mut watch = nodes[1].watch();
        let heard = changed.clone();
        let watching = reactor::spawn(move || {
            watch.wait();
            heard.set(true);
        });

        let dead = contact(&dying);
        dying.stop();
        drop(dying);
        for node in &nodes {
            let took =
                time.eventually("the death is noticed", Duration::from_secs(3), || live_count(node) == 2);
            println!("noticed after {took:?}");
            let (found, _) =
                time.within(Duration::from_millis(100), "a question", || closest(node, &target, 4));
            assert_eq!(found, brute_force(&nodes, &target, 4));
        }
        watching.join().unwrap();
        assert!(changed.get());
        time.eventually("it is live no more", Duration::from_secs(30), || !nodes[1].is_live(&dead));
        assert!(nodes[1].is_live(&contact(&nodes[0])));

        time.within(Duration::from_millis(200), "a hundred calls to a dead node", || {
            for _ in 0..100 {
                let result = nodes[1].call::<Ping>(&dead, &(), Bytes::new(), Duration::from_secs(5));
                assert_eq!(result, Err(CallError::NotSent));
            }
        });

        let config = network.storage(&[address(&nodes[0])]);
        let back = start(Config { identity: Identity::from_seed(&seed), passport, ..config });
        assert_ne!(address(&back), dead.addresses[0]);
        for node in &nodes {
            let took = time.eventually("it is found again", Duration::from_secs(8), || live_count(node) == 3);
            println!("found again after {took:?}");
            assert_eq!(closest(node, &target, 1), [target]);
            // Also by whoever still has its old address.
            node.call::<Ping>(&dead, &(), Bytes::new(), Duration::from_secs(5)).unwrap();
        }
        nodes.push(back);
        let elsewhere = NodeId([0x77; 32]);
        assert_eq!(closest(&nodes[3], &elsewhere, 3), brute_force(&nodes, &elsewhere, 3));
    });
}

#[test]
fn a_node_that_comes_back_silently_at_its_old_port_is_pinged_back_to_life() {
    reactor::run(|| {
        let network = Network::new();
        let first = start(network.storage(&[]));
        let config = network.storage(&[address(&first)]);
        let (seed, passport) = (config.identity.seed(), config.passport.clone());
        let second = start(config);
        eventually("both are known", Duration::from_secs(5), || live_count(&first) == 1);
        let old_address = address(&second);
        second.stop();
        eventually("the death is noticed", Duration::from_secs(3), || live_count(&first) == 0);
        // It knows nobody, so it can't announce itself.
        let mut config = network.storage(&[]);
        config.listen = Some(old_address);
        let _back = start(Config { identity: Identity::from_seed(&seed), passport, ..config });
        let took = eventually("a ping finds it", Duration::from_secs(12), || live_count(&first) == 1);
        println!("found again after {took:?}");
    });
}

#[test]
fn a_node_that_leaves_is_forgotten() {
    reactor::run(|| {
        let network = Network::new();
        let nodes = network.start(3);
        eventually("all are known", Duration::from_secs(5), || {
            nodes.iter().all(|node| live_count(node) == 2)
        });
        nodes[2].leave();
        for node in &nodes[..2] {
            eventually("it is forgotten", Duration::from_secs(2), || node.contacts().len() == 1);
        }
    });
}
