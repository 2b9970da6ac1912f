//! Two peers whose network drops UDP, in the simulator: they connect to each other by TCP at once, and calls in flight go that way,
//! to the relay when it is cut, and to UDP when that passes.
//!
//! What went wrong: in a network without UDP everything went over the relay for ever, however near the two were.

mod peers_support;

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use peers_support::{MS, SECOND, Town, ask, connect, id, peers, wait_for};
use reactor::nat::peers::{Path, Transport};
use reactor::sim::{self, Latency, Link, SimConfig, World};
use reactor::{now, sleep};

fn is_by(wanted: Transport) -> impl Fn(Option<Path>) -> bool {
    move |path| matches!(path, Some(Path::Direct { transport, .. }) if transport == wanted)
}

/// Without UDP from the start; what is direct after that, and how long it took.
fn meets(world: &World) -> Duration {
    let town = Town::new(world);
    town.two.block_udp(true);
    town.start_echo();
    let (at, step, took) = (town.relay_at(), Rc::new(Cell::new(0)), Rc::new(Cell::new(Duration::MAX)));
    let (told, measured) = (step.clone(), took.clone());
    let asking = town.one.start(move || {
        let peers = peers(1, &at);
        let (stream, begun) = (connect(&peers, 2).open().unwrap(), now());
        // Nobody waits for anything to fail first.
        assert!(ask(&stream, 0) < 600 * MS);
        wait_for(&peers, is_by(Transport::Tcp), 30 * SECOND);
        measured.set(now() - begun);
        for number in 1..50 {
            ask(&stream, number);
        }
        step.set(1);
        let longest = (50..150).map(|number| (ask(&stream, number), sleep(100 * MS)).0).max().unwrap();
        assert_eq!(peers.path(id(2)), Some(Path::Relayed));
        assert!(longest < 12 * SECOND, "{longest:?}");
        step.set(2);
        wait_for(&peers, is_by(Transport::Udp), 70 * SECOND);
        for number in 150..200 {
            ask(&stream, number);
        }
        step.set(3);
    });
    let reaches = |number| {
        while told.get() < number {
            sleep(10 * MS);
        }
    };
    reaches(1);
    town.world.partition(&town.one, &town.two);
    reaches(2);
    town.two.block_udp(false);
    town.world.heal(&town.one, &town.two);
    reaches(3);
    asking.wait();
    took.get()
}

#[test]
fn without_udp_two_meet_by_tcp_and_calls_go_on_over_every_change_of_way() {
    let steady = sim::run(1, SimConfig::default(), |world| {
        world.link_all(Link::new(Latency::Constant(10 * MS)));
        meets(world)
    });
    assert!(steady < 2 * SECOND, "{steady:?}");
    for seed in 2..12 {
        sim::run(seed, SimConfig::default(), |world| {
            world.link_all(Link::new(Latency::Uniform(5 * MS, 40 * MS)).with_loss(0.03));
            meets(world);
        });
    }
}

#[test]
fn a_meeting_comes_back_from_its_seed() {
    let trace = |seed| {
        sim::run(seed, SimConfig::default(), |world| {
            world.link_all(Link::new(Latency::Uniform(5 * MS, 40 * MS)).with_loss(0.03));
            meets(world);
            world.trace_hash()
        })
    };
    assert_eq!(trace(3), trace(3));
}
