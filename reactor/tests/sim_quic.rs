//! QUIC in the simulator, all of it the production code: loss, reordering and duplicates cost time and nothing else, a
//! peer that vanishes is noticed, and a run comes back from its seed to the event.

use std::cell::Cell;
use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use reactor::crypto::Identity;
use reactor::net::Duplex;
use reactor::net::quic::{Endpoint, LINGER_TIMEOUT, Stream};
use reactor::net::tls::Expect;
use reactor::sim::{self, Host, Latency, Link, SimConfig, World};
use reactor::{now, spawn};

const MS: Duration = Duration::from_millis(1);

const SIZE: usize = 200_000;

fn identity(seed: u8) -> Rc<Identity> {
    Rc::new(Identity::from_seed(&[seed; 32]))
}

fn pattern() -> Vec<u8> {
    (0..SIZE).map(|at| (at * 31 % 251) as u8).collect()
}

fn bad() -> Link {
    let uneven = Latency::Uniform(5 * MS, 60 * MS);
    Link { loss: 0.05, duplication: 0.02, ..Link::new(uneven) }
}

/// Sends back what comes, on every stream of every connection.
fn serve(host: &Host) {
    host.start(|| {
        let endpoint = Endpoint::bind("0.0.0.0:443".parse().unwrap(), &identity(1)).unwrap();
        loop {
            let connection = endpoint.accept().unwrap();
            spawn(move || {
                while let Ok(mut stream) = connection.accept() {
                    spawn(move || {
                        let mut came = Vec::new();
                        if stream.read_to_end(&mut came).is_ok() && stream.write_all(&came).is_ok() {
                            let _ = stream.end();
                        }
                    });
                }
            });
        }
    });
}

/// Four streams there and back, and a proper end.
fn exchange(address: SocketAddr) {
    let endpoint = Endpoint::bind("0.0.0.0:0".parse().unwrap(), &identity(2)).unwrap();
    let connection = endpoint.connect(address, Expect::Key(identity(1).public_key())).unwrap();
    reactor::scope(|s| {
        for _ in 0..4 {
            let mut stream = connection.open().unwrap();
            s.spawn(move || {
                stream.write_all(&pattern()).unwrap();
                stream.end().unwrap();
                let mut came = Vec::new();
                stream.read_to_end(&mut came).unwrap();
                assert!(came == pattern());
            });
        }
    });
    // A stream that is in use and has nothing to deliver does not hold up the end.
    let mut in_use = connection.open().unwrap();
    in_use.write_all(b"?").unwrap();
    let begun = now();
    endpoint.close();
    assert!(now() - begun < LINGER_TIMEOUT / 2);
    assert_eq!(connection.open().err().unwrap().kind(), ErrorKind::NotConnected);
}

fn exchange_over_a_bad_link(world: &World) {
    world.link_all(bad());
    let (server, client) = (world.host("server"), world.host("client"));
    serve(&server);
    let address = SocketAddr::new(server.address(), 443);
    client.start(move || exchange(address)).wait();
}

#[test]
fn everything_arrives_over_links_that_lose_repeat_and_overtake() {
    for seed in 0..10 {
        sim::run(seed, SimConfig::default(), exchange_over_a_bad_link);
    }
}

#[test]
fn a_run_comes_back_from_its_seed() {
    let trace = |seed| {
        sim::run(seed, SimConfig::default(), |world| {
            exchange_over_a_bad_link(world);
            world.trace_hash()
        })
    };
    assert_eq!(trace(7), trace(7));
    assert_ne!(trace(7), trace(8));
}

#[test]
fn a_peer_that_vanishes_is_noticed_and_one_that_is_only_quiet_is_kept() {
    sim::run(3, SimConfig::default(), |world| {
        world.link_all(Link::new(Latency::Constant(20 * MS)));
        let (server, client) = (world.host("server"), world.host("client"));
        serve(&server);
        let address = SocketAddr::new(server.address(), 443);
        let quiet = Rc::new(Cell::new(false));
        let told = quiet.clone();
        let client_is = client.clone();
        let using = client.start(move || {
            let endpoint = Endpoint::bind("0.0.0.0:0".parse().unwrap(), &identity(2)).unwrap();
            let connection = endpoint.connect(address, Expect::Any).unwrap();
            // An hour without a word of ours: the keep-alives go on.
            reactor::sleep(Duration::from_secs(3600));
            let mut stream = connection.open().unwrap();
            stream.write_all(b"still there?").unwrap();
            stream.end().unwrap();
            let mut came = String::new();
            stream.read_to_string(&mut came).unwrap();
            assert_eq!(came, "still there?");
            told.set(true);
            let begun = now();
            let lost = connection.accept().err().unwrap();
            assert_eq!(lost.kind(), ErrorKind::TimedOut, "{lost}");
            assert!(now() - begun < Duration::from_secs(60));
            let unreachable = endpoint.connect(address, Expect::Any).err().unwrap();
            assert_eq!(unreachable.kind(), ErrorKind::TimedOut);
        });
        while !quiet.get() {
            reactor::sleep(Duration::from_secs(1));
        }
        world.partition(&server, &client_is);
        using.wait();
    });
}

#[test]
fn clients_that_never_answer_do_not_keep_an_honest_one_out() {
    sim::run(4, SimConfig::default(), |world| {
        world.link_all(Link::new(Latency::Constant(10 * MS)));
        let (server, client) = (world.host("server"), world.host("client"));
        serve(&server);
        let address = SocketAddr::new(server.address(), 443);
        // Four, since one alone gets few places: enough that the honest one has to prove its address.
        for number in 0..4 {
            let flood = world.host(&format!("flood{number}"));
            // What a forger's packets look like: they come, and no answer reaches anybody.
            world.partition_one_way(&server, &flood);
            flood.start(move || {
                let endpoint = Endpoint::bind("0.0.0.0:0".parse().unwrap(), &identity(3)).unwrap();
                reactor::scope(|s| {
                    for _ in 0..100 {
                        s.spawn(|| assert!(endpoint.connect(address, Expect::Any).is_err()));
                    }
                });
            });
        }
        reactor::sleep(100 * MS);
        client
            .start(move || {
                let begun = now();
                exchange(address);
                // Without a place it would have had to wait for the others to be forgotten.
                assert!(now() - begun < Duration::from_secs(5));
            })
            .wait();
    });
}

#[test]
fn a_peer_that_was_restarted_says_so_at_the_next_packet() {
    sim::run(5, SimConfig::default(), |world| {
        world.link_all(Link::new(Latency::Constant(20 * MS)));
        let (server, client) = (world.host("server"), world.host("client"));
        serve(&server);
        let address = SocketAddr::new(server.address(), 443);
        let ready = Rc::new(Cell::new(0));
        let told = ready.clone();
        let using = client.start(move || {
            let endpoint = Endpoint::bind("0.0.0.0:0".parse().unwrap(), &identity(2)).unwrap();
            let connection = endpoint.connect(address, Expect::Any).unwrap();
            // Ids of the connection that only an established one has.
            reactor::sleep(Duration::from_secs(1));
            told.set(1);
            while told.get() < 2 {
                reactor::sleep(100 * MS);
            }
            let mut stream = connection.open().unwrap();
            stream.write_all(b"are you there?").unwrap();
            let begun = now();
            assert_eq!(stream.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
            assert!(now() - begun < Duration::from_secs(5));
        });
        while ready.get() < 1 {
            reactor::sleep(100 * MS);
        }
        server.crash();
        serve(&server);
        ready.set(2);
        using.wait();
    });
}

/// RPC orders its frames itself; what has been handed over can't be overtaken any more, so it has to be little.
#[test]
fn a_stream_takes_little_ahead_of_the_line_where_that_is_wished_for() {
    sim::run(5, SimConfig::default(), |world| {
        world.link_all(Link::new(Latency::Constant(200 * MS)));
        let (server, client) = (world.host("server"), world.host("client"));
        serve(&server);
        let address = SocketAddr::new(server.address(), 443);
        let using = client.start(move || {
            let endpoint = Endpoint::bind("0.0.0.0:0".parse().unwrap(), &identity(2)).unwrap();
            // What is taken before a single packet has come back.
            let taken_at_once = |stream: &Stream| {
                stream.set_write_deadline(Some(now()));
                let parts = std::iter::repeat_with(|| {
                    let mut stream: &Stream = stream;
                    stream.write(&[7; 4_096])
                });
                let taken: usize = parts.map_while(Result::ok).sum();
                stream.set_write_deadline(None);
                taken
            };
            let connect = || endpoint.connect(address, Expect::Any).unwrap();
            // By default as much as the peer has room for, which has not accepted yet.
            let by_default = taken_at_once(&connect().open().unwrap());
            assert!(by_default > 200 << 10, "{by_default}");
            let connection = connect();
            let mut stream = connection.open().unwrap();
            stream.keep_unsent_below(64 << 10);
            stream.keep_unsent_below(1 << 20);
            let taken = taken_at_once(&stream);
            assert!((64 << 10..96 << 10).contains(&taken), "{taken}");
            // It goes on as the line takes more.
            let rest = (2 << 20) - taken;
            stream.write_all(&vec![7; rest]).unwrap();
            stream.end().unwrap();
            let mut came = Vec::new();
            stream.read_to_end(&mut came).unwrap();
            assert!(came == [7; 2 << 20]);
        });
        using.wait();
    });
}

#[test]
fn where_there_is_no_way_a_dial_fails_at_once() {
    sim::run(6, SimConfig::default(), |world| {
        let client = world.host("client");
        let dialling = client.start(|| {
            let endpoint = Endpoint::bind("0.0.0.0:0".parse().unwrap(), &identity(2)).unwrap();
            let begun = now();
            let error = endpoint.connect("203.0.113.1:443".parse().unwrap(), Expect::Any).err().unwrap();
            assert_eq!(error.kind(), ErrorKind::NetworkUnreachable);
            assert!(now() - begun < MS);
        });
        dialling.wait();
    });
}
