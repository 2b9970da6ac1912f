//! How many round trips two peers behind routers take until they talk, and until they do so directly: counted in the simulator,
//! where nothing but packets takes time.
//!
//! What went wrong: at 25 ms each way a pair of easy routers was direct after a second, three hundred milliseconds of which were
//! waited for nothing.

mod peers_support;

use std::cell::Cell;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use peers_support::{MS, PORT, SECOND, Town, connect, echo, id, identity, is_direct};
use reactor::nat::peers::Peers;
use reactor::sim::{self, Filtering, Latency, Link, Mapping, Nat, SimConfig, World};
use reactor::{now, sleep, spawn};

/// From a machine to the relay, and as long from there to the other.
const ONE_WAY: Duration = Duration::from_millis(25);

/// What the other shows before it is admitted, and is shown then.
const PASSPORT: [u8; 400] = [7; 400];

/// When what was there, from the start of the one that calls.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Line {
    relay: Duration,
    connected: Duration,
    first_reply: Duration,
    direct: Duration,
    direct_there: Duration,
}

fn line(world: &World, filtering: Filtering) -> Line {
    let town = Town::new(world);
    let far = Link::new(Latency::Uniform(2 * ONE_WAY, 2 * ONE_WAY));
    world.link_all(Link::new(Latency::Uniform(ONE_WAY, ONE_WAY)));
    world.link(&town.one, &town.two, far);
    for host in [&town.one, &town.two] {
        world.router(Nat::new(Mapping::EndpointIndependent, filtering), &[host]);
    }
    let at = town.relay_at();
    let begun = Rc::new(Cell::new(None));
    let direct_there = Rc::new(Cell::new(Duration::ZERO));
    let (begun_of, direct_of) = (begun.clone(), direct_there.clone());
    let at_two = at.clone();
    town.two.start(move || {
        let peers = peers_support::peers(2, &at_two);
        let connection = peers.accept_stranger().unwrap();
        let mut stream = &connection.accept().unwrap();
        let mut shown = PASSPORT;
        stream.read_exact(&mut shown).unwrap();
        peers.admit(&connection);
        stream.write_all(&PASSPORT).unwrap();
        let way = peers.way_of(&connection);
        spawn(move || {
            while !is_direct(way.path()) {
                sleep(MS / 10);
            }
            direct_of.set(now() - begun_of.get().unwrap());
            sleep(100 * SECOND);
        });
        echo(stream);
        sleep(100 * SECOND);
    });
    sleep(10 * SECOND);
    let line = Rc::new(Cell::new(Line::default()));
    let noted = line.clone();
    let calling = town.one.start(move || {
        let started = now();
        begun.set(Some(started));
        let since = || now() - started;
        let peers = Peers::bind(SocketAddr::new([0, 0, 0, 0].into(), PORT), &identity(1)).unwrap();
        peers.add_relay(at);
        peers.wait_relay(now() + SECOND).unwrap();
        let relay = since();
        let connection = connect(&peers, 2);
        let connected = since();
        let mut stream = &connection.open().unwrap();
        stream.write_all(&PASSPORT).unwrap();
        let mut shown = PASSPORT;
        stream.read_exact(&mut shown).unwrap();
        let first_reply = since();
        peers.wait_path(id(2), now() + 10 * SECOND, is_direct).unwrap();
        noted.set(Line { relay, connected, first_reply, direct: since(), direct_there: Duration::ZERO });
        sleep(2 * SECOND);
    });
    calling.wait();
    Line { direct_there: direct_there.get(), ..line.get() }
}

#[test]
fn two_behind_easy_routers_are_direct_two_round_trips_after_the_first_reply() {
    for filtering in
        [Filtering::EndpointIndependent, Filtering::AddressDependent, Filtering::AddressAndPortDependent]
    {
        let found = Arc::new(Mutex::new(Line::default()));
        let noted = found.clone();
        sim::run(1, SimConfig::default(), move |world| *noted.lock().unwrap() = line(world, filtering));
        let found = *found.lock().unwrap();
        println!("{filtering:?}: {found:?}");
        let (to_the_relay, to_the_other) = (2 * ONE_WAY, 4 * ONE_WAY);
        // TCP, TLS, and who we are.
        assert_eq!(found.relay, 3 * to_the_relay);
        assert_eq!(found.connected, found.relay + to_the_other);
        // What it shows is looked at there, and then it is told where the other is, beside the answer.
        assert_eq!(found.first_reply, found.connected + to_the_other);
        // A question, which the other router lets in, and its answer; and one as long as QUIC's packets are.
        assert_eq!(found.direct, found.first_reply + 2 * to_the_other);
        // The other has heard the first question by then, and asked itself.
        assert!(found.direct_there <= found.direct + to_the_other / 2 + MS, "{found:?}");
    }
}
