//! Nodes that can't dial each other, in the simulator: both can reach a third that relays. They are neighbours as any others;
//! when the way between them opens they talk directly, and over the relay again when it closes. Clients of one key call
//! through it side by side, and who is removed is turned out of it. Who knows the relay from before is there as soon as packets allow.
//!
//! What went wrong: two machines behind routers never met, whoever else was in the network.

mod common;

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use common::*;
use overlay::message::Ping;
use overlay::{Bootstrap, Config, Contact, How, Node, Overlay, Revocations};
use reactor::cell::RefCell;
use reactor::crypto::Identity;
use reactor::sim::{self, Host, Latency, Link, SimConfig, World};
use reactor::{now, sleep};

const MS: Duration = Duration::from_millis(1);
const FOREVER: Duration = Duration::from_secs(1_000_000);
const SOON: Duration = Duration::from_secs(60);

/// One machine, and the node or client on it.
struct Machine {
    host: Host,
    node: Rc<RefCell<Option<Rc<Node>>>>,
}

impl Machine {
    fn start(host: &Host, through: &[&Machine], config: Config, relays: bool) -> Machine {
        let at = |host: &Host| (host.address(), 7000).into();
        let listen = config.listen.map(|_| at(host));
        let bootstrap = through.iter().map(|other| Bootstrap::Address(at(&other.host))).collect();
        let config = Config { listen, bootstrap, ..config };
        let machine = Machine { host: host.clone(), node: Rc::default() };
        let slot = machine.node.clone();
        host.start(move || {
            let node = start(config);
            if relays {
                node.relay().unwrap();
            }
            *slot.borrow_mut() = Some(node);
            sleep(FOREVER);
        });
        machine
    }

    fn node(&self) -> Rc<Node> {
        self.node.borrow().clone().expect("it runs")
    }

    fn contact(&self) -> Contact {
        contact(&self.node())
    }

    /// Asked in a process of the machine.
    fn ask<T: 'static>(&self, question: impl FnOnce(&Node) -> T + 'static) -> T {
        let (answer, node) = (Rc::new(Cell::new(None)), self.node());
        let result = answer.clone();
        self.host.start(move || result.set(Some(question(&node)))).wait();
        answer.take().expect("it was answered")
    }

    /// A call to the other; how long it took, or nothing if it failed.
    fn calls(&self, other: &Contact) -> Option<Duration> {
        let other = other.clone();
        self.ask(move |node| {
            let begun = now();
            let answer = node.call::<Ping>(&other, &(), Bytes::new(), Duration::from_secs(1));
            answer.is_ok().then(|| now() - begun)
        })
    }

    fn how(&self, other: &Contact) -> Option<How> {
        self.node().peers().how(&other.public_key)
    }

    /// Waits for a time at which the other is reached so, calling it all the while; the longest pause between two calls
    /// that were answered.
    fn calls_until(&self, other: &Contact, how: How) -> Duration {
        let (begun, mut answered, mut pause) = (now(), now(), Duration::ZERO);
        loop {
            if self.calls(other).is_some() {
                pause = pause.max(now() - answered);
                answered = now();
                if self.how(other) == Some(how) {
                    return pause;
                }
            }
            assert!(now() - begun < 2 * SOON, "it is reached {:?}, and not {how:?}", self.how(other));
            sleep(100 * MS);
        }
    }
}

fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let begun = now();
    while !condition() {
        assert!(now() - begun < SOON, "not within {SOON:?}: {what}");
        sleep(50 * MS);
    }
}

/// Whether it knows so many live nodes.
fn knows(machine: &Machine, count: usize) -> bool {
    machine.node.borrow().as_ref().is_some_and(|node| live_count(node) == count)
}

fn story(world: &World) {
    world.link_all(Link::new(Latency::Uniform(5 * MS, 20 * MS)).with_loss(0.005));
    let network = Network::new();
    let public = Machine::start(&world.host("public"), &[], network.storage(&[]), true);
    let hosts = ["one", "two", "clients"].map(|name| world.host(name));
    for (index, host) in hosts.iter().enumerate() {
        hosts[..index].iter().for_each(|other| world.partition(host, other));
    }
    let [one, two] = [0, 1].map(|at| Machine::start(&hosts[at], &[&public], network.storage(&[]), false));
    wait_until("each knows both others", || [&public, &one, &two].iter().all(|machine| knows(machine, 2)));
    let (contact_of_one, contact_of_two) = (one.contact(), two.contact());
    assert_eq!(one.how(&public.contact()), Some(How::Direct));
    assert_eq!(one.how(&contact_of_two), Some(How::Relayed));
    let relay = public.contact().public_key;
    let is_said =
        |(contact, _): &(Contact, bool)| contact.id == contact_of_two.id && contact.relays().contains(&relay);
    wait_until("it says where it is found", || one.node().contacts().iter().any(is_said));

    // Two processes of one user, who has no node: both call the same node, and neither is in the other's way.
    let user = network.client(&[]);
    let again = |user: &Config| Config {
        identity: Identity::from_seed(&user.identity.seed()),
        passport: user.passport.clone(),
        ..network.client(&[])
    };
    let clients = [(); 2].map(|()| Machine::start(&hosts[2], &[&public], again(&user), false));
    wait_until("the clients know all", || clients.iter().all(|client| knows(client, 3)));
    for _ in 0..5 {
        for client in &clients {
            assert!(client.calls(&contact_of_one).is_some());
            assert_eq!(client.how(&contact_of_one), Some(How::Relayed));
        }
        sleep(Duration::from_secs(2));
    }

    // A way opens between the two, and closes again.
    world.heal(&hosts[0], &hosts[1]);
    one.calls_until(&contact_of_two, How::Punched);
    world.partition(&hosts[0], &hosts[1]);
    let pause = one.calls_until(&contact_of_two, How::Relayed);
    assert!(pause < Duration::from_secs(16), "{pause:?} without a call that was answered");

    // Who is removed is at no relay any more, and reaches nobody.
    let list = Revocations::default();
    let list = list.with(&network.owner, [contact_of_two.public_key], reactor::wall_clock()).unwrap();
    public.ask(move |node| node.revoke(list).map(drop)).unwrap();
    wait_until("it has the owner's word for it", || two.node().removed().is_some());
    wait_until("nobody knows it", || knows(&one, 1) && knows(&public, 1));
    assert!(one.calls(&contact_of_two).is_none() && two.calls(&contact_of_one).is_none());
    assert!(clients[0].calls(&contact_of_one).is_some(), "the others go on");
}

#[test]
fn nodes_that_cannot_dial_each_other_are_neighbours_over_one_that_relays() {
    sim::check(&SimConfig::default(), 1..4, story);
}

/// From each machine to each other.
const ONE_WAY: Duration = Duration::from_millis(25);

/// What a client says when it starts again: after how long the other has answered, which is only reached over a relay.
fn first_reply(world: &World) -> Duration {
    world.link_all(Link::new(Latency::Constant(ONE_WAY)));
    let network = Network::new();
    let public = Machine::start(&world.host("public"), &[], network.storage(&[]), true);
    let [caller, called] = ["caller", "called"].map(|name| world.host(name));
    world.partition(&caller, &called);
    let called = Machine::start(&called, &[&public], network.storage(&[]), false);
    wait_until("they know each other", || knows(&public, 1) && knows(&called, 1));
    let (relay, other) = (public.contact().public_key, called.contact());
    wait_until("it says where it is found", || called.contact().relays().contains(&relay));
    let (_directory, saved) = scratch_file("contacts");
    let client = network.client(&[]);
    let again = || Config {
        identity: Identity::from_seed(&client.identity.seed()),
        passport: client.passport.clone(),
        contacts_file: Some(saved.clone()),
        bootstrap: vec![Bootstrap::Address((public.host.address(), 7000).into())],
        ..network.client(&[])
    };
    let earlier = again();
    let met = other.clone();
    let first = move || {
        let node = start(earlier);
        while !node.contacts().iter().any(|(known, is_live)| *is_live && known.relays().contains(&relay)) {
            sleep(50 * MS);
        }
        assert!(node.call::<Ping>(&met, &(), Bytes::new(), SOON).is_ok());
        node.stop();
    };
    caller.start(first).wait();
    sleep(Duration::from_secs(5));
    let (took, config) = (Rc::new(Cell::new(Duration::MAX)), again());
    let took_of = took.clone();
    let second = move || {
        let begun = now();
        let node = start(config);
        let remembered = node.remembered().into_iter().find(|known| known.id == other.id).unwrap();
        node.call::<Ping>(&remembered, &(), Bytes::new(), SOON).unwrap();
        took_of.set(now() - begun);
        node.stop();
    };
    caller.start(second).wait();
    took.get()
}

/// What went wrong: a relay was connected to when somebody had let us in, and not beside that; and a quarter of a second was waited for
/// the other's own network to answer, whichever that is.
#[test]
fn who_knows_the_relay_from_before_calls_others_over_it_within_eleven_round_trips() {
    let took = std::sync::Arc::new(std::sync::Mutex::new(Duration::ZERO));
    let noted = took.clone();
    sim::run(1, SimConfig::default(), move |world| *noted.lock().unwrap() = first_reply(world));
    let took = *took.lock().unwrap();
    println!("{took:?}");
    // Three to the relay, and four over it, which are two each. What is left is for the disk. It was 804 ms, and is 653 without the first of
    // the two mends, or the second.
    assert!(took < 11 * 2 * ONE_WAY + 40 * MS, "{took:?}");
}
