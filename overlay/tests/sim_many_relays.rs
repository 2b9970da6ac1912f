//! More relays than anybody keeps, in the simulator: two nodes that can't dial each other, and have no relay in common, meet over
//! those that the other's record names, and keep them for as long as they talk. When the relays that one is found over die, others
//! take their places.
//!
//! What could go wrong: each seeks the other at its own relays; a relay is let go while it carries a connection; the nearest
//! relays are kept, dead or not.

mod common;

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use common::*;
use overlay::message::Ping;
use overlay::{Bootstrap, Config, Contact, How, Node, NodeId, Overlay, Passport, Rights};
use reactor::cell::RefCell;
use reactor::crypto::{Identity, PublicKey};
use reactor::sim::{self, Host, Latency, Link, SimConfig, World};
use reactor::{now, sleep};

const FOREVER: Duration = Duration::from_secs(1_000_000);
/// Relays that each keeps.
const KEPT: usize = 4;
const RELAYS: u64 = 8;

struct Machine {
    host: Host,
    node: Rc<RefCell<Option<Rc<Node>>>>,
}

impl Machine {
    fn start(host: Host, through: Option<&Machine>, config: Config, relays: bool) -> Machine {
        let at = |host: &Host| (host.address(), 7000).into();
        let bootstrap = through.iter().map(|other| Bootstrap::Address(at(&other.host))).collect();
        let config = Config { listen: Some(at(&host)), bootstrap, ..config };
        let machine = Machine { host, node: Rc::default() };
        let slot = machine.node.clone();
        machine.host.start(move || {
            let node = start(config);
            if relays {
                node.relay().unwrap();
            }
            *slot.borrow_mut() = Some(node);
            sleep(FOREVER);
        });
        machine
    }

    fn node(&self) -> Option<Rc<Node>> {
        self.node.borrow().clone()
    }

    fn contact(&self) -> Contact {
        contact(&self.node().expect("it runs"))
    }

    /// The relays over which it says that it is found.
    fn named(&self) -> Vec<PublicKey> {
        self.node()
            .and_then(|node| node.record())
            .map_or_else(Vec::new, |said| said.statement().relays.clone())
    }

    fn calls(&self, other: &Contact, limit: Duration) -> bool {
        let (answer, node, other) = (Rc::new(Cell::new(false)), self.node().expect("it runs"), other.clone());
        let result = answer.clone();
        let call = move || result.set(node.call::<Ping>(&other, &(), Bytes::new(), limit).is_ok());
        self.host.start(call).wait();
        answer.get()
    }
}

fn wait_until(what: &str, limit: u64, condition: impl Fn() -> bool) {
    let begun = now();
    while !condition() {
        assert!(now() - begun < Duration::from_secs(limit), "not within {limit} s: {what}");
        sleep(Duration::from_millis(100));
    }
}

/// Those of `keys` that somebody of that key keeps.
fn nearest(to: &Identity, keys: &[PublicKey]) -> Vec<PublicKey> {
    let own = NodeId::of(&to.public_key());
    let mut keys = keys.to_vec();
    keys.sort_by_key(|key| NodeId::of(key).distance(&own));
    keys.truncate(KEPT);
    keys.sort();
    keys
}

fn identity(number: u64) -> Identity {
    let mut seed = [5; 32];
    seed[..8].copy_from_slice(&number.to_be_bytes());
    Identity::from_seed(&seed)
}

fn story(world: &World) {
    world.link_all(Link::new(Latency::Uniform(Duration::from_millis(5), Duration::from_millis(20))));
    let network = Network::new();
    let storage = |identity: Identity| {
        let passport = Passport::issue(&network.owner, identity.public_key(), Rights::NODE, None);
        Config { identity, passport, ..network.storage(&[]) }
    };
    let keys: Vec<PublicKey> = (0..RELAYS).map(|number| identity(number).public_key()).collect();
    // Two who have no relay in common.
    let first = 100;
    let is_apart = |number: &u64| {
        let ours = nearest(&identity(first), &keys);
        nearest(&identity(*number), &keys).iter().all(|key| !ours.contains(key))
    };
    let second = (first + 1..).find(is_apart).expect("there are many keys");

    let mut relays: Vec<Machine> = Vec::new();
    for number in 0..RELAYS {
        let host = world.host(&format!("relay {number}"));
        relays.push(Machine::start(host, relays.first(), storage(identity(number)), true));
    }
    let hosts = ["one", "two"].map(|name| world.host(name));
    world.partition(&hosts[0], &hosts[1]);
    let [one, two] = [0, 1].map(|at| {
        Machine::start(hosts[at].clone(), relays.first(), storage(identity([first, second][at])), false)
    });
    for (machine, number) in [(&one, first), (&two, second)] {
        wait_until("each is found over its own", 60, || machine.named() == nearest(&identity(number), &keys));
    }
    let there = two.contact();
    wait_until("the other knows where", 60, || {
        let known = one.node().expect("it runs").contacts();
        known.iter().any(|(contact, _)| contact.id == there.id && contact.relays() == two.named())
    });
    assert!(one.calls(&there, Duration::from_secs(4)), "over a relay that only the other is found over");
    // For longer than a relay is kept that was of use once.
    for _ in 0..21 {
        sleep(Duration::from_secs(30));
        assert!(one.calls(&there, Duration::from_secs(1)), "the relay was let go while it was in use");
        assert_eq!(one.node().expect("it runs").peers().how(&there.public_key), Some(How::Relayed));
    }

    // All relays that the other is found over die.
    let dead: Vec<&Machine> =
        relays.iter().filter(|relay| two.named().contains(&relay.contact().public_key)).collect();
    assert_eq!(dead.len(), KEPT);
    let others: Vec<&Host> = hosts.iter().chain(relays.iter().map(|relay| &relay.host)).collect();
    for relay in &dead {
        for other in others.iter().filter(|other| other.address() != relay.host.address()) {
            world.partition(&relay.host, other);
        }
    }
    let dead: Vec<PublicKey> = dead.iter().map(|relay| relay.contact().public_key).collect();
    wait_until("it is found over others", 180, || {
        two.named().len() == KEPT && two.named().iter().all(|key| !dead.contains(key))
    });
    wait_until("and called", 60, || one.calls(&there, Duration::from_secs(4)));
}

#[test]
fn whoever_has_no_relay_in_common_meets_over_those_of_the_other_and_dead_ones_give_way() {
    sim::check(&SimConfig::default(), 1..2, story);
}
