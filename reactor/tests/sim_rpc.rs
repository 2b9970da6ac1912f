//! RPC over TLS over TCP, all of it the production code, in the simulator: the same test body runs on loopback too, a
//! lossy network with crashing servers is repeatable to the event, and a known run has a known hash.

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use reactor::cell::RefCell;
use reactor::crypto::Identity;
use reactor::net::tls::{self, Expect};
use reactor::net::{TcpListener, TcpStream};
use reactor::rpc::{CallError, Config, Connection, Method, Service};
use reactor::sim::{self, Latency, Link, SimConfig, World};
use reactor::{now, sleep, spawn, timeout};

struct Echo;

impl Method for Echo {
    const ID: u32 = 1;
    const NAME: &'static str = "Echo";
    type Request = u64;
    type Response = u64;
    type Error = String;
}

struct Slow;

impl Method for Slow {
    const ID: u32 = 2;
    const NAME: &'static str = "Slow";
    type Request = u64;
    type Response = ();
    type Error = String;
}

const SECOND: Duration = Duration::from_secs(1);

/// Answers calls on every connection until its process ends.
fn serve(listener: TcpListener, identity: &Rc<Identity>) {
    reactor::scope(|s| {
        loop {
            let Ok((stream, _)) = listener.accept() else { return };
            s.spawn(|| {
                let Ok(stream) = tls::accept(stream, identity) else { return };
                let mut service = Service::new();
                service.on::<Echo>(|_, number, payload| Ok((number, payload))).on::<Slow>(|_, ms, _| {
                    sleep(Duration::from_millis(ms));
                    Ok(((), Bytes::new()))
                });
                let connection = Connection::start(stream, Rc::new(service), Config::default());
                connection.wait_closed();
            });
        }
    });
}

fn connect(address: SocketAddr, own: &Rc<Identity>, server: &Identity) -> std::io::Result<Connection> {
    let stream = TcpStream::connect(address)?;
    let stream =
        tls::connect(stream, own, Expect::Key(server.public_key())).map_err(std::io::Error::other)?;
    Ok(Connection::start(stream, Rc::new(Service::new()), Config::default()))
}

/// The body that both worlds run.
fn calls_find_their_answers() {
    let (own, server) = (Rc::new(Identity::generate()), Rc::new(Identity::generate()));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let serving = spawn({
        let server = server.clone();
        move || serve(listener, &server)
    });
    let connection = connect(address, &own, &server).unwrap();
    reactor::scope(|s| {
        for number in 0..50 {
            let connection = &connection;
            s.spawn(move || {
                let payload = Bytes::from(vec![number as u8; number as usize * 300]);
                let answer = connection.call::<Echo>(&number, payload.clone(), 10 * SECOND).unwrap();
                assert_eq!(answer, (number, payload));
            });
        }
    });
    let began = now();
    let late = connection.call::<Slow>(&60_000, Bytes::new(), Duration::from_millis(50));
    assert!(matches!(late, Err(CallError::TimedOut)), "{late:?}");
    assert!(now() - began >= Duration::from_millis(50));
    assert!(
        timeout(Duration::from_millis(10), || connection.call::<Slow>(&60_000, Bytes::new(), SECOND))
            .is_err()
    );
    assert!(connection.call::<Echo>(&1, Bytes::new(), 10 * SECOND).is_ok(), "it lives on");
    connection.close();
    assert!(TcpStream::connect(SocketAddr::new(address.ip(), 1)).is_err());
    serving.terminate();
}

#[reactor::test]
fn calls_find_their_answers_on_loopback() {
    calls_find_their_answers();
}

#[reactor::test(seeds = 0..20)]
fn calls_find_their_answers_in_the_simulator() {
    calls_find_their_answers();
}

/// Three clients call a server that is killed or loses power again and again; gives the trace and the answers.
fn lossy_calls_with_crashes(world: &World) -> (u64, u32) {
    world.link_all(
        Link::new(Latency::Uniform(Duration::from_millis(1), Duration::from_millis(30))).with_loss(0.05),
    );
    let (server, host) = (Rc::new(Identity::generate()), world.host("server"));
    let start = {
        let host = host.clone();
        move || {
            let server = server.clone();
            host.start(move || {
                let listener = TcpListener::bind("0.0.0.0:7000").unwrap();
                serve(listener, &server);
            });
        }
    };
    let key = Rc::new(RefCell::new(Vec::new()));
    let answers = Rc::new(Cell::new(0));
    start();
    let address = SocketAddr::new(host.address(), 7000);
    for n in 0..3 {
        let answers = answers.clone();
        let client = world.host(&format!("client-{n}"));
        key.borrow_mut().push(client.clone());
        client.start(move || {
            let own = Rc::new(Identity::generate());
            loop {
                let reached = timeout(5 * SECOND, || TcpStream::connect(address));
                if let Ok(Ok(stream)) = reached
                    && let Ok(Ok(stream)) = timeout(5 * SECOND, || tls::connect(stream, &own, Expect::Any))
                {
                    let connection = Connection::start(stream, Rc::new(Service::new()), Config::default());
                    for number in 0.. {
                        let payload = Bytes::from(vec![7; (number as usize * 97) % 5000]);
                        match connection.call::<Echo>(&number, payload.clone(), 2 * SECOND) {
                            Ok(answer) => assert_eq!(answer, (number, payload)),
                            Err(_) => break,
                        }
                        answers.set(answers.get() + 1);
                        sleep(Duration::from_millis(reactor::random::below(50)));
                    }
                }
                sleep(SECOND);
            }
        });
    }
    for _ in 0..5 {
        sleep(Duration::from_millis(u64::from(world.choose(10_000))));
        if world.chance(0.5) {
            host.kill();
        } else {
            host.crash();
        }
        sleep(Duration::from_millis(u64::from(world.choose(3_000))));
        start();
    }
    sleep(10 * SECOND);
    (world.trace_hash(), answers.get())
}

#[test]
fn the_same_seed_gives_the_same_trace_through_losses_and_crashes() {
    let run = |seed| sim::run(seed, SimConfig::default(), lossy_calls_with_crashes);
    let (first, answers) = run(1);
    assert!(answers > 100, "{answers} answers");
    for _ in 0..3 {
        assert_eq!(run(1), (first, answers));
    }
    assert_ne!(run(2).0, first);
}

/// Changes when what happens in a simulation changes: on purpose, then put the new one here; or not, then find out why.
const GOLDEN_TRACE: u64 = 0xb38c_e311_3160_eabe;

#[test]
fn a_known_run_has_its_known_trace() {
    let hash = sim::run(42, SimConfig::default(), |world| {
        let (server, client) = (world.host("server"), world.host("client"));
        server.start(|| {
            use std::io::{Read, Write};
            let listener = TcpListener::bind("0.0.0.0:7").unwrap();
            loop {
                let (mut stream, _) = listener.accept().unwrap();
                spawn(move || {
                    let mut buffer = [0; 100];
                    while let Ok(count @ 1..) = stream.read(&mut buffer) {
                        stream.write_all(&buffer[..count]).unwrap();
                    }
                });
            }
        });
        let address = SocketAddr::new(server.address(), 7);
        let running = client.start(move || {
            use std::io::{Read, Write};
            reactor::scope(|s| {
                for n in 1..5u8 {
                    s.spawn(move || {
                        let mut stream = TcpStream::connect(address).unwrap();
                        for _ in 0..n {
                            stream.write_all(&[n; 60]).unwrap();
                            stream.read_exact(&mut [0; 60]).unwrap();
                            sleep(Duration::from_millis(n.into()));
                        }
                    });
                }
            });
        });
        running.wait();
        world.trace_hash()
    });
    assert_eq!(hash, GOLDEN_TRACE, "{hash:#018x}");
}
