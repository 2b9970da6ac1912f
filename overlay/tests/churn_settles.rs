//! Nodes are killed, restarted at other ports and added at random (the seed is printed). Lookups go on meanwhile and
//! never take long; and seconds after the churn ends, every node agrees with brute force again about every key.

mod common;

use std::rc::Rc;
use std::time::Duration;

use common::*;
use overlay::{Config, Node, NodeId, Overlay, Passport};
use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};
use reactor::crypto::Identity;

const CHURN: Duration = Duration::from_secs(4);

/// A node that may be up or down; its key stays.
struct Member {
    seed: [u8; 32],
    passport: Passport,
    node: Option<Rc<Node>>,
}

fn random_id(random: &mut StdRng) -> NodeId {
    let mut id = [0; 32];
    random.fill_bytes(&mut id);
    NodeId(id)
}

fn up(members: &[Member]) -> Vec<Rc<Node>> {
    members.iter().filter_map(|member| member.node.clone()).collect()
}

fn churn(seed: u64, time: Time, member_count: usize, down_max: usize) {
    let mut random = StdRng::seed_from_u64(seed);
    let network = Network::new();
    let mut members: Vec<Member> = Vec::new();
    let start_member = |member: &mut Member, bootstrap: &[std::net::SocketAddr]| {
        let identity = Identity::from_seed(&member.seed);
        let config = Config { identity, passport: member.passport.clone(), ..network.storage(bootstrap) };
        member.node = Some(start(config));
    };
    for _ in 0..member_count {
        let config = network.storage(&[]);
        let mut member = Member { seed: *config.identity.seed(), passport: config.passport, node: None };
        let bootstrap: Vec<_> = up(&members).first().map(|node| address(node)).into_iter().collect();
        start_member(&mut member, &bootstrap);
        members.push(member);
    }
    let (began, mut longest, mut events) = (reactor::now(), Duration::ZERO, 0);
    while reactor::now() - began < CHURN {
        let index = random.random_range(0..members.len());
        let down = members.iter().filter(|member| member.node.is_none()).count();
        match members[index].node.take() {
            // Killed: the connections break, nobody says goodbye.
            Some(node) if down < down_max => drop(node),
            Some(node) => members[index].node = Some(node),
            None => {
                let nodes = up(&members);
                let via = address(&nodes[random.random_range(0..nodes.len())]);
                start_member(&mut members[index], &[via]);
            }
        }
        events += 1;
        let nodes = up(&members);
        let asking = &nodes[random.random_range(0..nodes.len())];
        let target = random_id(&mut random);
        let (found, took) = time.within(Duration::from_secs(4), "a lookup", || asking.closest(&target, 3));
        longest = longest.max(took);
        assert!(!found.is_empty());
        reactor::sleep(Duration::from_millis(random.random_range(0..60)));
    }
    let nodes = up(&members);
    println!("{events} events, {} of {member_count} up, longest lookup {longest:?}", nodes.len());
    let targets: Vec<NodeId> = (0..20).map(|_| random_id(&mut random)).collect();
    let all_agree = || {
        let agrees = |node: &Rc<Node>, target| closest(node, target, 3) == brute_force(&nodes, target, 3);
        nodes.iter().all(|node| targets.iter().all(|target| agrees(node, target)))
    };
    let took = time.eventually("all agree again", Duration::from_secs(20), all_agree);
    println!("all agree {took:?} after the churn");
}

#[test]
fn a_small_network_settles_after_churn() {
    let seed = seed();
    in_both_times(move |time| churn(seed, time, 6, 3));
}

#[test]
fn a_larger_network_settles_after_churn() {
    let seed = seed();
    in_counted_time(move |time| churn(seed, time, 24, 8));
}
