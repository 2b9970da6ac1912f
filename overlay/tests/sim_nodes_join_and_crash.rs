//! Whole nodes, the production code, each on a machine of a simulated network that loses packets: they join through
//! the first, one loses power and comes back with its key, and all the while lookups agree with brute force. The same
//! seed gives the same run, packet by packet.
//!
//! What went wrong: nodes and clients that started while a link was down knew only those on their side of it, and since
//! they knew somebody they looked for nobody else, however long the link was up again.

mod common;

use std::rc::Rc;
use std::time::Duration;

use common::*;
use overlay::{Bootstrap, Config, Node, NodeId, Passport};
use reactor::cell::RefCell;
use reactor::crypto::Identity;
use reactor::sim::{self, Host, Latency, Link, SimConfig, World};
use reactor::sleep;

const COUNT: usize = 8;
const FOREVER: Duration = Duration::from_secs(1_000_000);

/// One machine and the node on it.
struct Machine {
    host: Host,
    seed: [u8; 32],
    passport: Passport,
    node: Rc<RefCell<Option<Rc<Node>>>>,
}

impl Machine {
    fn new(world: &World, network: &Network, number: usize) -> Machine {
        let Config { identity, passport, .. } = network.storage(&[]);
        let host = world.host(&format!("node-{number}"));
        Machine { host, seed: *identity.seed(), passport, node: Rc::default() }
    }

    fn start(&self, network: &Network, through: &[Machine]) {
        let mut config = network.storage(&[]);
        config.identity = Identity::from_seed(&self.seed);
        config.passport = self.passport.clone();
        config.listen = Some((self.host.address(), 7000).into());
        self.run(config, through);
    }

    fn start_client(&self, network: &Network, through: &[Machine]) {
        self.run(network.client(&[]), through);
    }

    fn run(&self, mut config: Config, through: &[Machine]) {
        let address = |machine: &Machine| Bootstrap::Address((machine.host.address(), 7000).into());
        config.bootstrap = through.iter().map(address).collect();
        let slot = self.node.clone();
        self.host.start(move || {
            *slot.borrow_mut() = Some(start(config));
            sleep(FOREVER);
        });
    }

    fn crash(&self) {
        self.host.crash();
        self.node.take();
    }

    /// What this node finds closest to `target`, asked in a process of its machine.
    fn closest(&self, target: NodeId) -> Vec<NodeId> {
        let (found, node) = (Rc::new(RefCell::new(Vec::new())), self.node.borrow().clone().expect("it runs"));
        let result = found.clone();
        self.host.start(move || *result.borrow_mut() = closest(&node, &target, 3)).wait();
        found.take()
    }

    fn knows(&self, count: usize) -> bool {
        self.node.borrow().as_ref().is_some_and(|node| live_count(node) == count)
    }
}

fn wait_until_all_know(machines: &[&Machine], count: usize) {
    for _ in 0..600 {
        if machines.iter().all(|machine| machine.knows(count)) {
            return;
        }
        sleep(Duration::from_millis(100));
    }
    let counts: Vec<_> =
        machines.iter().map(|machine| machine.node.borrow().as_ref().map(|n| live_count(n))).collect();
    panic!("after a minute they know {counts:?}, not {count} each");
}

fn lookups_agree_with_brute_force(machines: &[&Machine], world: &World) {
    let nodes: Vec<Rc<Node>> =
        machines.iter().map(|machine| machine.node.borrow().clone().expect("it runs")).collect();
    for _ in 0..5 {
        let target = NodeId(reactor::crypto::random_bytes());
        let asked = world.choose(machines.len() as u32) as usize;
        assert_eq!(machines[asked].closest(target), brute_force(&nodes, &target, 3));
    }
}

fn join_crash_and_return(world: &World) -> u64 {
    world.link_all(
        Link::new(Latency::Uniform(Duration::from_millis(5), Duration::from_millis(60))).with_loss(0.01),
    );
    let network = Network::new();
    let machines: Vec<Machine> = (0..COUNT).map(|number| Machine::new(world, &network, number)).collect();
    let all: Vec<&Machine> = machines.iter().collect();
    machines[0].start(&network, &[]);
    for machine in &machines[1..] {
        machine.start(&network, &machines[..1]);
    }
    wait_until_all_know(&all, COUNT - 1);
    lookups_agree_with_brute_force(&all, world);

    let victim = 1 + world.choose(COUNT as u32 - 1) as usize;
    machines[victim].crash();
    let others: Vec<&Machine> =
        machines.iter().enumerate().filter(|(n, _)| *n != victim).map(|(_, machine)| machine).collect();
    wait_until_all_know(&others, COUNT - 2);
    lookups_agree_with_brute_force(&others, world);

    machines[victim].start(&network, &machines[..1]);
    wait_until_all_know(&all, COUNT - 1);
    lookups_agree_with_brute_force(&all, world);
    world.trace_hash()
}

#[test]
fn lookups_succeed_through_joins_a_crash_and_a_return_the_same_way_each_time() {
    let run = |seed| sim::run(seed, SimConfig::default(), join_crash_and_return);
    let first = run(1);
    assert_eq!(run(1), first);
    for seed in 2..5 {
        assert_ne!(run(seed), first);
    }
}

/// A link is down while the nodes on both sides of it start, and while a client does that reaches one side.
fn meet_after_a_split(world: &World) {
    world.link_all(Link::new(Latency::Uniform(Duration::from_millis(5), Duration::from_millis(60))));
    let network = Network::new();
    let machines: Vec<Machine> = (0..5).map(|number| Machine::new(world, &network, number)).collect();
    let (nodes, client) = (&machines[..4], &machines[4]);
    let across = || [0, 1, 4].into_iter().flat_map(|here| [2, 3].map(|there| (here, there)));
    across().for_each(|(here, there)| world.partition(&machines[here].host, &machines[there].host));
    nodes.iter().for_each(|machine| machine.start(&network, nodes));
    client.start_client(&network, nodes);
    wait_until_all_know(&nodes.iter().collect::<Vec<_>>(), 1);
    wait_until_all_know(&[client], 2);
    // Whatever was on its way when they started has failed.
    sleep(Duration::from_secs(30));
    across().for_each(|(here, there)| world.heal(&machines[here].host, &machines[there].host));
    wait_until_all_know(&nodes.iter().collect::<Vec<_>>(), 3);
    wait_until_all_know(&[client], 4);
}

#[test]
fn those_who_started_apart_meet_once_they_can() {
    sim::check(&SimConfig::default(), 1..6, meet_after_a_split);
}
