//! Peers that are named by id, in the simulator: a connection begins over the relay, goes on directly, and falls back when
//! the direct path is cut or carries nothing, while what is written arrives whole.
//!
//! What went wrong elsewhere: connections that broke with the path under them; and paths that were kept because their probes
//! passed, and carried nothing.

mod peers_support;

use std::cell::Cell;
use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::rc::Rc;

use peers_support::{
    MS, PORT, SECOND, Town, ask, connect, deadline_after, echo, id, identity, is_direct, peers, start_relay,
    wait_for,
};
use reactor::nat::PeerId;
use reactor::nat::peers::{Path, Peers, RelayAt};
use reactor::nat::relay::{Quota, Relay, RelayLimits};
use reactor::net::{Duplex, TcpListener, UdpSocket};
use reactor::sim::{self, Latency, Link, SimConfig, World};
use reactor::{now, scope, sleep};

/// Numbered questions, one after another: while nothing is wrong, while they can't reach each other, and after that.
fn falls_back_and_returns(world: &World) {
    world.link_all(Link::new(Latency::Uniform(5 * MS, 20 * MS)).with_loss(0.03).with_duplication(0.01));
    let town = Town::new(world);
    town.start_echo();
    let (at, cut, healed) = (town.relay_at(), Rc::new(Cell::new(false)), Rc::new(Cell::new(false)));
    let told = (cut.clone(), healed.clone());
    let asking = town.one.start(move || {
        let peers = peers(1, &at);
        let connection = connect(&peers, 2);
        assert_eq!(peers.path(id(2)), Some(Path::Relayed), "it begins over the relay");
        let stream = connection.open().unwrap();
        let mut number = 0;
        let mut next = || {
            number += 1;
            ask(&stream, number)
        };
        while !is_direct(peers.path(id(2))) {
            next();
        }
        for _ in 0..20 {
            next();
        }
        cut.set(true);
        let begun = now();
        while peers.path(id(2)) != Some(Path::Relayed) {
            next();
        }
        // And calls come through: the longest wait of all is bounded.
        let longest = (0..50).map(|_| next()).max().unwrap();
        assert!(now() - begun < 16 * SECOND && longest < 8 * SECOND, "{:?}, {longest:?}", now() - begun);
        healed.set(true);
        let begun = now();
        while !is_direct(peers.path(id(2))) {
            next();
            sleep(10 * MS);
        }
        assert!(now() - begun < 65 * SECOND);
        for _ in 0..20 {
            next();
        }
        stream.end().unwrap();
        assert_eq!((&stream).read(&mut [0]).unwrap(), 0);
    });
    while !told.0.get() {
        sleep(10 * MS);
    }
    town.world.partition(&town.one, &town.two);
    while !told.1.get() {
        sleep(10 * MS);
    }
    town.world.heal(&town.one, &town.two);
    asking.wait();
}

#[test]
fn calls_go_on_while_the_direct_path_is_cut_and_return_to_it() {
    for seed in 0..6 {
        sim::run(seed, SimConfig::default(), falls_back_and_returns);
    }
}

#[test]
fn a_run_comes_back_from_its_seed() {
    let trace = |seed| {
        sim::run(seed, SimConfig::default(), |world| {
            falls_back_and_returns(world);
            world.trace_hash()
        })
    };
    assert_eq!(trace(3), trace(3));
}

#[test]
fn megabytes_arrive_whole_over_every_change_of_path() {
    sim::run(11, SimConfig::default(), |world| {
        world.link_all(Link::new(Latency::Uniform(5 * MS, 15 * MS)).with_loss(0.01));
        let town = Town::new(world);
        town.start_echo();
        let (at, done) = (town.relay_at(), Rc::new(Cell::new(false)));
        let finished = done.clone();
        let copying = town.one.start(move || {
            let peers = peers(1, &at);
            let connection = connect(&peers, 2);
            let stream = connection.open().unwrap();
            let sent: Vec<u8> = (0..12_u32 << 20).map(|at| (at % 251) as u8).collect();
            scope(|s| {
                s.spawn(|| {
                    (&stream).write_all(&sent).unwrap();
                    stream.end().unwrap();
                });
                let mut came = Vec::new();
                (&stream).read_to_end(&mut came).unwrap();
                assert!(came == sent);
            });
            finished.set(true);
        });
        let mut changes = 0;
        while !done.get() {
            sleep(3 * SECOND);
            if changes % 2 == 0 {
                town.world.partition(&town.one, &town.two);
            } else {
                town.world.heal(&town.one, &town.two);
            }
            changes += 1;
        }
        copying.wait();
        assert!(changes >= 2, "it was over before anything changed");
    });
}

#[test]
fn who_is_nowhere_and_a_relay_that_is_not_there_are_said_at_once() {
    sim::run(4, SimConfig::default(), |world| {
        let town = Town::new(world);
        let at = town.relay_at();
        let asking = town.one.start(move || {
            let peers = peers(1, &at);
            peers.wait_relay(deadline_after(SECOND)).unwrap();
            let begun = now();
            assert_eq!(peers.connect(id(9)).err().unwrap().kind(), ErrorKind::NotFound);
            assert!(now() - begun < SECOND);
            let alone = Peers::bind("0.0.0.0:0".parse().unwrap(), &identity(3)).unwrap();
            assert_eq!(alone.connect(id(9)).err().unwrap().kind(), ErrorKind::NotConnected);
        });
        asking.wait();
    });
}

/// The relay is killed and started again, with connections over it and beside it.
#[test]
fn a_relay_that_dies_takes_no_direct_connection_with_it_and_one_that_is_back_is_used() {
    sim::run(5, SimConfig::default(), |world| {
        world.link_all(Link::new(Latency::Constant(10 * MS)));
        let town = Town::new(world);
        town.start_echo();
        let (at, step) = (town.relay_at(), Rc::new(Cell::new(0)));
        let told = step.clone();
        let asking = town.one.start(move || {
            let peers = peers(1, &at);
            let stream = connect(&peers, 2).open().unwrap();
            ask(&stream, 1);
            wait_for(&peers, is_direct, 10 * SECOND);
            step.set(1);
            sleep(60 * SECOND);
            assert!(is_direct(peers.path(id(2))));
            ask(&stream, 2);
            // And then the direct path goes; the relay has come back meanwhile.
            step.set(2);
            sleep(SECOND);
            ask(&stream, 3);
            wait_for(&peers, |path| path == Some(Path::Relayed), SECOND);
            ask(&stream, 4);
        });
        let wait = |number| {
            while told.get() < number {
                sleep(10 * MS);
            }
        };
        wait(1);
        town.relay.crash();
        sleep(5 * SECOND);
        start_relay(&town.relay);
        wait(2);
        town.world.partition(&town.one, &town.two);
        asking.wait();
    });
}

/// The line of one is cut for a while, the relay's with it, while megabytes are under way.
#[test]
fn a_direct_path_that_was_cut_under_load_is_taken_again_and_kept() {
    sim::run(12, SimConfig::default(), |world| {
        world.link_all(Link::new(Latency::Constant(10 * MS)));
        let town = Town::new(world);
        town.start_echo();
        let (at, step) = (town.relay_at(), Rc::new(Cell::new(0)));
        let told = step.clone();
        let copying = town.one.start(move || {
            let peers = peers(1, &at);
            let stream = connect(&peers, 2).open().unwrap();
            wait_for(&peers, is_direct, 10 * SECOND);
            scope(|s| {
                let writing = s.spawn(|| {
                    let mut stream = &stream;
                    while step.get() < 3 {
                        stream.write_all(&[7; 1 << 10]).unwrap();
                        sleep(10 * MS);
                    }
                    stream.end().unwrap();
                });
                s.spawn(|| {
                    let mut bytes = vec![0; 1 << 16];
                    while (&stream).read(&mut bytes).unwrap() > 0 {}
                });
                sleep(SECOND);
                step.set(1);
                wait_for(&peers, |path| path == Some(Path::Relayed), 10 * SECOND);
                while step.get() < 2 {
                    sleep(10 * MS);
                }
                wait_for(&peers, is_direct, 20 * SECOND);
                // It stays so, through all the time in which it could be doubted.
                let left = peers.wait_path(id(2), deadline_after(20 * SECOND), |path| !is_direct(path));
                assert!(left.is_err(), "it carries all");
                step.set(3);
                writing.join().unwrap();
            });
        });
        let is_cut = |cut: bool| {
            for other in [&town.two, &town.relay] {
                if cut { town.world.partition(&town.one, other) } else { town.world.heal(&town.one, other) }
            }
        };
        while told.get() < 1 {
            sleep(10 * MS);
        }
        is_cut(true);
        sleep(10 * SECOND);
        is_cut(false);
        told.set(2);
        copying.wait();
    });
}

/// Two relays: one does not know the peer yet, and the other says nothing any more.
#[test]
fn a_peer_that_comes_to_a_relay_that_did_not_know_it_is_found_there() {
    sim::run(8, SimConfig::default(), |world| {
        let (town, other) = (Town::new(world), world.host("other relay"));
        start_relay(&other);
        let at = [town.relay_at(), RelayAt::new(SocketAddr::new(other.address(), 443), id(0))];
        let (is_asked, partitioned) = (Rc::new(Cell::new(false)), Rc::new(Cell::new(false)));
        let (asked, begin) = (is_asked.clone(), partitioned.clone());
        let asking = town.one.start(move || {
            let peers = peers(1, &at[0]);
            peers.add_relay(at[1].clone());
            sleep(SECOND);
            while !begin.get() {
                sleep(10 * MS);
            }
            // The first does not know it; what the second would say does not come, and in the end it is no relay of ours.
            let error = peers.connect(id(2)).err().unwrap();
            assert!(matches!(error.kind(), ErrorKind::TimedOut | ErrorKind::NotFound), "{error}");
            asked.set(true);
            ask(&connect(&peers, 2).open().unwrap(), 1);
        });
        sleep(2 * SECOND);
        town.world.partition(&town.one, &other);
        partitioned.set(true);
        while !is_asked.get() {
            sleep(10 * MS);
        }
        town.start_echo();
        asking.wait();
    });
}

/// Both use two relays, and one of these takes what it is given and passes on nothing, without a word.
#[test]
fn who_is_dialled_is_sought_at_every_relay_that_it_is_said_to_be_at() {
    sim::run(13, SimConfig::default(), |world| {
        let (town, other) = (Town::new(world), world.host("other relay"));
        other.start(|| {
            let nothing = Quota { burst_bytes: 0, bytes_per_second: 0, ..Quota::default() };
            let limits = RelayLimits { quota: nothing, ..RelayLimits::default() };
            let relay = Relay::new(&identity(0), |_: PeerId, _: &[u8]| true, limits);
            relay.serve(&TcpListener::bind("0.0.0.0:443").unwrap()).unwrap();
        });
        let swallows = RelayAt::new(SocketAddr::new(other.address(), 443), id(0));
        let passes_on = town.relay_at();
        town.two.start({
            let (swallows, passes_on) = (swallows.clone(), passes_on.clone());
            move || {
                let peers = peers(2, &swallows);
                peers.add_relay(passes_on);
                let connection = peers.accept().unwrap();
                echo(&connection.accept().unwrap());
            }
        });
        town.world.partition(&town.one, &town.two);
        let asking = town.one.start(move || {
            let peers = Peers::bind("0.0.0.0:0".parse().unwrap(), &identity(1)).unwrap();
            let named = [swallows, passes_on].map(|relay| peers.add_relay(relay));
            sleep(SECOND);
            assert!(named.iter().all(|relay| peers.is_connected_to(*relay)));
            let stream = peers.connect_at(id(2), &named).unwrap().open().unwrap();
            ask(&stream, 1);
        });
        asking.wait();
    });
}

/// Two relays, and no direct way: the one in use dies without a word.
#[test]
fn the_death_of_the_relay_in_use_is_survived_where_there_are_two() {
    sim::run(9, SimConfig::default(), |world| {
        world.link_all(Link::new(Latency::Constant(10 * MS)));
        let town = Town::new(world);
        let other = world.host("other relay");
        start_relay(&other);
        let relays = [town.relay_at(), RelayAt::new(SocketAddr::new(other.address(), 443), id(0))];
        town.world.partition(&town.one, &town.two);
        let dead = Rc::new(Cell::new(false));
        let told = dead.clone();
        town.two.start({
            let relays = relays.clone();
            move || {
                let peers = peers(2, &relays[0]);
                peers.add_relay(relays[1].clone());
                let connection = peers.accept().unwrap();
                echo(&connection.accept().unwrap());
            }
        });
        let asking = town.one.start(move || {
            let peers = peers(1, &relays[0]);
            let stream = connect(&peers, 2).open().unwrap();
            ask(&stream, 1);
            peers.add_relay(relays[1].clone());
            sleep(5 * SECOND);
            ask(&stream, 2);
            dead.set(true);
            let longest = (3..300).map(|number| (ask(&stream, number), sleep(100 * MS)).0).max().unwrap();
            assert!(SECOND < longest && longest < 16 * SECOND, "{longest:?}");
        });
        while !told.get() {
            sleep(10 * MS);
        }
        // Nobody is told: what is sent there just vanishes.
        town.world.partition(&town.relay, &town.one);
        town.world.partition(&town.relay, &town.two);
        asking.wait();
    });
}

/// Probes pass, and nothing that is longer does.
#[test]
fn a_path_that_answers_and_carries_nothing_is_left_for_the_relay() {
    sim::run(8, SimConfig::default(), |world| {
        world.link_all(Link::new(Latency::Constant(10 * MS)));
        let town = Town::new(world);
        town.start_echo();
        let at = town.relay_at();
        // The way between the two is through a middle that passes on what it likes.
        let middle = world.host("middle");
        let (one, two) = (town.one.address(), town.two.address());
        let passes_data = Rc::new(Cell::new(true));
        let passes = passes_data.clone();
        middle.start(move || {
            // One port for each side.
            let sides = [(10, 11, two), (11, 10, one)].map(|(own, _, to)| {
                (
                    UdpSocket::bind(SocketAddr::new([0, 0, 0, 0].into(), own)).unwrap(),
                    SocketAddr::new(to, PORT),
                )
            });
            let [(of_one, to_two), (of_two, to_one)] = sides;
            scope(|s| {
                for (from, by, to) in [(&of_one, &of_two, to_two), (&of_two, &of_one, to_one)] {
                    let passes = passes.clone();
                    s.spawn(move || {
                        let mut buffer = [0; 2_000];
                        while let Ok((size, _)) = from.recv_from(&mut buffer) {
                            if passes.get() || buffer[0] < 16 {
                                let _ = by.send_to(&buffer[..size], to);
                            }
                        }
                    });
                }
            });
        });
        let middle_at = middle.address();
        town.world.partition(&town.one, &town.two);
        let asking = town.one.start(move || {
            let peers = peers(1, &at);
            // The second reaches us by the middle's other port, and sees us there.
            peers.add_address(SocketAddr::new(middle_at, 11));
            let stream = connect(&peers, 2).open().unwrap();
            let mut number = 0;
            let mut next = || {
                number += 1;
                ask(&stream, number)
            };
            while !is_direct(peers.path(id(2))) {
                next();
                sleep(10 * MS);
            }
            for _ in 0..10 {
                next();
            }
            passes_data.set(false);
            let begun = now();
            let longest = (0..40).map(|_| next()).max().unwrap();
            assert!(longest < 16 * SECOND, "{longest:?}");
            assert_eq!(peers.path(id(2)), Some(Path::Relayed));
            // Its probes pass all the time, and it is not taken again so soon.
            while now() - begun < 40 * SECOND {
                assert!(next() < 16 * SECOND);
                sleep(100 * MS);
            }
            assert_eq!(peers.path(id(2)), Some(Path::Relayed));
        });
        asking.wait();
    });
}
