//! Thirty nodes, too many for everyone to know everyone: what any node finds closest is what looking at all of them
//! says, after at most two hops. Then a third of them dies, and the rest still agree.

mod common;

use std::time::Duration;

use common::*;
use overlay::NodeId;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

fn random_id(random: &mut StdRng) -> NodeId {
    let mut id = [0; 32];
    random.fill_bytes(&mut id);
    NodeId(id)
}

#[test]
fn lookups_agree_with_brute_force() {
    let seed = seed();
    in_counted_time(move |time| {
        let mut random = StdRng::seed_from_u64(seed);
        let network = Network::new();
        let mut nodes = network.start(30);
        for node in &nodes {
            time.eventually("all have joined", Duration::from_secs(10), || node.has_joined());
        }
        let mut hops_max = 0;
        for round in 0..60 {
            let node = &nodes[round % nodes.len()];
            let target = random_id(&mut random);
            assert_eq!(closest(node, &target, 3), brute_force(&nodes, &target, 3), "for {target}");
            hops_max = hops_max.max(node.lookup(&target, 3).hops);
        }
        assert!(hops_max <= 2, "{hops_max} hops");
        for node in &nodes {
            for count in [17, 24, 48] {
                assert_eq!(closest(node, &node.id(), count), brute_force(&nodes, &node.id(), count));
            }
        }
        for dead in nodes.drain(20..) {
            dead.stop();
        }
        time.within(60 * Duration::from_millis(400), "sixty lookups beside the dead", || {
            for round in 0..60 {
                let node = &nodes[round % nodes.len()];
                let target = random_id(&mut random);
                assert_eq!(closest(node, &target, 3), brute_force(&nodes, &target, 3), "for {target}");
            }
        });
    });
}
