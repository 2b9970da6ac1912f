//! What joining, a lookup and a call cost on loopback: the times are printed, and what they are made of is held to. For figures: `HYPHA_ROUNDS=20000 cargo test --release -p overlay --test costs -- --nocapture`.

mod common;

use std::time::{Duration, Instant};

use bytes::Bytes;
use common::*;
use overlay::message::Ping;
use overlay::{NodeId, Overlay};
use reactor::crypto::random_bytes;

fn rounds() -> u32 {
    std::env::var("HYPHA_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(500)
}

/// The mean time of one of `rounds` calls of `work`.
fn each(rounds: u32, mut work: impl FnMut()) -> Duration {
    let began = Instant::now();
    for _ in 0..rounds {
        work();
    }
    began.elapsed() / rounds
}

#[test]
fn a_small_network_answers_from_memory() {
    in_both_times(|time| {
        let network = Network::new();
        let nodes = network.start(3);
        time.eventually("all have joined", Duration::from_secs(5), || {
            nodes.iter().all(|node| node.has_joined())
        });
        // Whoever asks somebody waits.
        let (closest, _) = time.within(Duration::from_nanos(1), "an answer from memory", || {
            each(rounds(), || assert_eq!(nodes[1].closest(&NodeId(random_bytes()), 3).len(), 3))
        });
        let callee = contact(&nodes[2]);
        let call = each(rounds(), || {
            nodes[1].call::<Ping>(&callee, &(), Bytes::new(), Duration::from_secs(5)).unwrap();
        });
        println!("3 nodes, {time:?} time: closest {closest:?}, call {call:?} (both ends in this thread)");
    });
}

#[test]
fn a_larger_network_answers_in_a_hop_or_two() {
    reactor::run(|| {
        let network = Network::new();
        let began = Instant::now();
        let nodes = network.start(40);
        println!("40 nodes joined, {:?} each", began.elapsed() / 40);
        eventually("all have joined", Duration::from_secs(9), || nodes.iter().all(|node| node.has_joined()));
        let (mut hops, mut asked) = (0, 0);
        let rounds = rounds().min(2000);
        let mut next = nodes.iter().cycle();
        let lookup = each(rounds, || {
            let found = next.next().expect("a cycle").lookup(&NodeId(random_bytes()), 3);
            hops += found.hops;
            asked += found.asked_count;
        });
        let (hops, asked) = (f64::from(hops) / f64::from(rounds), asked as f64 / f64::from(rounds));
        println!("40 nodes: lookup {lookup:?}, {hops:.2} hops, {asked:.1} calls");
        assert!(hops <= 2.0);
    });
}
