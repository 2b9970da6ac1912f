//! A relay and its clients, over loopback and in the simulator: who is let in, what is passed on, and what a client can do
//! that is hostile, or dies.
//!
//! What went wrong elsewhere: relays that passed on under any name, that held megabytes for a client that had stopped
//! reading, or that let one client's flood silence the others.

use std::cell::Cell;
use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use reactor::crypto::Identity;
use reactor::nat::PeerId;
use reactor::nat::relay::{self, Event, Frame, Quota, Receiver, Relay, RelayLimits, Seat, Sender};
use reactor::net::tls::{self, Expect};
use reactor::net::{GateLimits, TcpListener, TcpStream};
use reactor::sim::{self, Latency, Link, SimConfig};
use reactor::{JoinHandle, sleep, spawn, timeout};

const MS: Duration = Duration::from_millis(1);
const PATIENCE: Duration = Duration::from_secs(60);

fn identity(number: u8) -> Rc<Identity> {
    Rc::new(Identity::from_seed(&[number; 32]))
}

fn id(number: u8) -> PeerId {
    PeerId::from(identity(number).public_key())
}

/// Everybody but 66, and whoever says so.
fn admits(peer: PeerId, credential: &[u8]) -> bool {
    peer != id(66) && credential == b"member"
}

struct Serving {
    address: SocketAddr,
    relay: Relay,
    task: JoinHandle<std::io::Result<()>>,
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.task.terminate();
    }
}

fn serve(address: &str, limits: RelayLimits) -> Serving {
    let listener = TcpListener::bind(address).unwrap();
    let address = listener.local_addr().unwrap();
    let relay = Relay::new(&identity(0), admits, limits);
    let task = spawn({
        let relay = relay.clone();
        move || relay.serve(&listener)
    });
    Serving { address, relay, task }
}

fn join(address: SocketAddr, number: u8) -> (Sender, Receiver) {
    relay::connect(address, id(0).expected(), &identity(number), b"member").unwrap()
}

fn datagram(from: u8, bytes: &[u8]) -> Event {
    Event::Datagram { from: id(from).into(), bytes: bytes.to_vec() }
}

fn next(receiver: &mut Receiver) -> Event {
    timeout(PATIENCE, || receiver.receive()).expect("something comes").unwrap()
}

/// Both ways, to itself, to nobody, and after the other has come back.
fn conversation(address: SocketAddr) {
    let (to, mut from) = join(address, 1);
    let (other_to, mut other_from) = join(address, 2);
    for number in 0..80_u8 {
        assert!(to.send(id(2), &[number; 1_200]));
    }
    for number in 0..80_u8 {
        assert_eq!(next(&mut other_from), datagram(1, &[number; 1_200]));
    }
    assert!(other_to.send(id(1), b"") && to.send(id(1), b"own"));
    let mut came = [next(&mut from), next(&mut from)];
    came.sort_by_key(|event| *event == datagram(1, b"own"));
    assert_eq!(came, [datagram(2, b""), datagram(1, b"own")]);

    drop(other_from);
    // The relay learns of it by the end of the stream.
    let absent = timeout(PATIENCE, || {
        loop {
            to.send(id(2), b"gone?");
            if let Ok(event) = timeout(200 * MS, || from.receive()) {
                return event.unwrap();
            }
        }
    });
    assert_eq!(absent, Ok(Event::Absent(id(2).into())));
    let (_to, mut again) = join(address, 2);
    assert!(to.send(id(2), b"again"));
    assert_eq!(next(&mut again), datagram(1, b"again"));
}

#[test]
fn datagrams_pass_between_clients_under_the_names_that_they_proved() {
    reactor::run(|| {
        let serving = serve("127.0.0.1:0", RelayLimits::default());
        conversation(serving.address);
    });
    sim::run(1, SimConfig::default(), |world| {
        world.link_all(Link::new(Latency::Uniform(MS, 40 * MS)).with_loss(0.02));
        let (server, client) = (world.host("relay"), world.host("client"));
        server.start(serve_for_ever);
        let address = SocketAddr::new(server.address(), 443);
        client.start(move || conversation(address)).wait();
    });
}

fn serve_for_ever() {
    let _ = serve("0.0.0.0:443", RelayLimits::default()).task.join();
}

#[test]
fn only_those_who_prove_a_key_and_are_admitted_get_in() {
    reactor::run(|| {
        let serving = serve("127.0.0.1:0", RelayLimits::default());
        let connect = |number, expect, credential: &[u8]| {
            relay::connect(serving.address, expect, &identity(number), credential)
                .map(|_| ())
                .unwrap_err()
                .kind()
        };
        let key = Expect::Key(identity(0).public_key());
        assert_eq!(connect(66, key, b"member"), ErrorKind::PermissionDenied);
        assert_eq!(connect(1, key, b"stranger"), ErrorKind::PermissionDenied);
        assert_eq!(connect(1, key, &[0; relay::CREDENTIAL_BYTES_MAX + 1]), ErrorKind::InvalidInput);
        // A relay that is another than the one that was meant.
        assert_eq!(connect(1, Expect::Key(identity(9).public_key()), b"member"), ErrorKind::InvalidData);
        assert_eq!(serving.relay.client_count(), 0);
        // And who speaks another protocol is no client of it.
        let stream = TcpStream::connect(serving.address).unwrap();
        assert_eq!(
            tls::connect(stream, &identity(1), key).map(drop).unwrap_err().kind(),
            ErrorKind::InvalidData
        );

        let own = identity(3);
        let speak = |frames: &[Frame<'_>]| {
            let stream = TcpStream::connect(serving.address).unwrap();
            let stream = tls::connect_speaking(stream, &own, key, relay::PROTOCOL).unwrap();
            let mut bytes = Vec::new();
            frames.iter().for_each(|frame| frame.encode(&mut bytes));
            (&stream).write_all(&bytes).unwrap();
            stream
        };
        // Without a word of who it is; as a relay; twice; and what is no frame.
        let hello = Frame::Hello { number: 0, credential: b"member" };
        let seat = Seat::known(id(1));
        let datagram = Frame::Datagram { seat, bytes: b"forged" };
        let welcome = Frame::Welcome { seen: serving.address };
        for frames in [&[datagram][..], &[welcome], &[hello, hello], &[hello, Frame::Absent { seat }]] {
            let stream = speak(frames);
            let mut came = Vec::new();
            let _ = timeout(PATIENCE, || (&stream).read_to_end(&mut came)).expect("the relay hangs up");
        }
        let stream = speak(&[hello]);
        (&stream).write_all(&[0xff; 100]).unwrap();
        let _ = timeout(PATIENCE, || (&stream).read_to_end(&mut Vec::new())).expect("the relay hangs up");
        let left = timeout(PATIENCE, || {
            while serving.relay.client_count() > 0 {
                sleep(MS);
            }
        });
        assert!(left.is_ok(), "nothing is kept of them");
    });
}

#[test]
fn who_registers_anew_takes_the_place_and_the_earlier_one_is_told() {
    reactor::run(|| {
        let serving = serve("127.0.0.1:0", RelayLimits::default());
        let (to, _from) = join(serving.address, 1);
        let (_, mut earlier) = join(serving.address, 2);
        let (_, mut later) = join(serving.address, 2);
        let told = timeout(PATIENCE, || earlier.receive()).expect("it is told").unwrap_err();
        assert_eq!(told.kind(), ErrorKind::ConnectionAborted);
        drop(earlier);
        assert!(to.send(id(2), b"to the later"));
        assert_eq!(next(&mut later), datagram(1, b"to the later"));
        assert_eq!(serving.relay.client_count(), 2);
    });
}

/// One key in two processes: a drive and a command, say.
#[test]
fn a_peer_is_found_by_its_id_in_one_process_and_calls_from_others_beside_it() {
    use reactor::nat::peers::{Path, Peers, RelayAt};
    reactor::run(|| {
        let serving = serve("127.0.0.1:0", RelayLimits::default());
        let at = RelayAt { credential: b"member".to_vec(), ..RelayAt::new(serving.address, id(0)) };
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let listening = Peers::bind(any, &identity(1)).unwrap();
        let callers = [(); 3].map(|()| Peers::caller(any, &identity(2)).unwrap());
        for peers in callers.iter().chain([&listening]) {
            let key = peers.add_relay(at.clone());
            peers.wait_for_any(&[key], reactor::now() + PATIENCE).unwrap();
        }
        assert_eq!(serving.relay.client_count(), 4);
        let connections = callers.each_ref().map(|caller| caller.connect(id(1)).unwrap());
        for (number, connection) in connections.iter().enumerate() {
            let ours = connection.open().unwrap();
            (&ours).write_all(&[number as u8]).unwrap();
            let theirs = listening.accept().unwrap();
            assert_eq!(PeerId::from(theirs.peer()), id(2));
            let (stream, mut came) = (theirs.accept().unwrap(), [9]);
            (&stream).read_exact(&mut came).unwrap();
            assert_eq!(came, [number as u8]);
            assert!(listening.way_of(&theirs).path().is_some());
            // It is nowhere that could be called: it was never found by its id.
            assert_eq!(listening.path(id(2)), None);
            let direct = |path| matches!(path, Some(Path::Direct { .. }));
            callers[number].wait_path(id(1), reactor::now() + PATIENCE, direct).unwrap();
        }
        let error = listening.connect(id(2)).map(drop).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    });
}

#[test]
fn who_is_dismissed_is_told_and_is_gone_from_all_its_seats() {
    reactor::run(|| {
        let serving = serve("127.0.0.1:0", RelayLimits::default());
        let (to, mut from) = join(serving.address, 1);
        let (_stays, mut stays) = join(serving.address, 2);
        serving.relay.dismiss(id(1));
        let told = timeout(PATIENCE, || from.receive()).expect("it is told").unwrap_err();
        assert_eq!(told.kind(), ErrorKind::PermissionDenied);
        to.send(id(2), b"late");
        assert_eq!(serving.relay.client_count(), 1);
        let (again, _from) = join(serving.address, 1);
        assert!(again.send(id(2), b"admitted anew"));
        assert_eq!(next(&mut stays), datagram(1, b"admitted anew"));
    });
}

#[test]
fn a_full_relay_says_so_and_has_room_when_one_has_left() {
    reactor::run(|| {
        let quota = Quota { clients: 1, ..Quota::default() };
        let serving = serve("127.0.0.1:0", RelayLimits { quota, ..RelayLimits::default() });
        let first = join(serving.address, 1);
        let connect = || {
            let expect = Expect::Key(identity(0).public_key());
            relay::connect(serving.address, expect, &identity(2), b"member")
        };
        assert_eq!(connect().map(|_| ()).unwrap_err().kind(), ErrorKind::QuotaExceeded);
        drop(first);
        let entered = timeout(PATIENCE, || {
            while connect().is_err() {
                sleep(MS);
            }
        });
        assert!(entered.is_ok());
    });
}

#[test]
fn strangers_who_say_nothing_leave_room_for_clients() {
    reactor::run(|| {
        let gate =
            GateLimits { connections: 8, connections_per_address: 8, strangers: 4, strangers_per_address: 4 };
        let serving = serve("127.0.0.1:0", RelayLimits { gate, ..RelayLimits::default() });
        let (to, _from) = join(serving.address, 1);
        let silent: Vec<TcpStream> = (0..20).map(|_| TcpStream::connect(serving.address).unwrap()).collect();
        // Those who came too many are hung up on at once.
        let hung_up = silent.iter().filter(|stream| {
            stream.set_read_deadline(Some(reactor::now() + 200 * MS));
            let mut stream: &TcpStream = stream;
            matches!(stream.read(&mut [0]), Ok(0))
        });
        assert_eq!(hung_up.count(), 16);
        drop(silent);
        let (_, mut from) = timeout(PATIENCE, || {
            loop {
                let expect = Expect::Key(identity(0).public_key());
                if let Ok(joined) = relay::connect(serving.address, expect, &identity(2), b"member") {
                    return joined;
                }
                sleep(MS);
            }
        })
        .expect("there is room again");
        assert!(to.send(id(2), b"in"));
        assert_eq!(next(&mut from), datagram(1, b"in"));
    });
}

/// One stops reading, one floods it: a third talks to both sides as if nothing were.
#[test]
fn a_client_that_stops_reading_and_one_that_floods_cost_a_bound_and_disturb_nobody() {
    reactor::run(|| {
        let quota = Quota { queue_bytes: 64 << 10, ..Quota::default() };
        let serving = serve("127.0.0.1:0", RelayLimits { quota, ..RelayLimits::default() });
        let (_stuck_to, stuck_from) = join(serving.address, 1);
        let (flood, _flood_from) = join(serving.address, 2);
        let (to, mut from) = join(serving.address, 3);
        let sent = Rc::new(Cell::new(0_u64));
        let flooding = spawn({
            let sent = sent.clone();
            move || {
                loop {
                    while flood.send(id(1), &[7; 1_400]) && flood.send(id(3), &[8; 1_400]) {
                        sent.set(sent.get() + 2_800);
                    }
                    sleep(MS);
                }
            }
        });
        // It goes on until the flood is well beyond all that could be held on the way.
        let mut own = 0;
        let talked = timeout(PATIENCE, || {
            while own < 50 || sent.get() < 20 << 20 {
                assert!(to.send(id(3), b"own"));
                while from.receive().unwrap() != datagram(3, b"own") {}
                own += 1;
            }
        });
        assert!(talked.is_ok(), "{own} of its own came back, {} bytes were flooded", sent.get());
        flooding.terminate();
        assert!(stuck_from_is_bounded(stuck_from));
    });
}

/// What was held for a client that did not read: the relay's queue, and what TCP and TLS took.
fn stuck_from_is_bounded(mut receiver: Receiver) -> bool {
    let mut bytes = 0;
    while let Ok(Ok(Event::Datagram { bytes: datagram, .. })) = timeout(500 * MS, || receiver.receive()) {
        bytes += datagram.len();
    }
    // The kernel's buffers on both sides are its own business: up to 6 MiB and 4 MiB.
    bytes > 0 && bytes < 12 << 20
}

#[test]
fn a_relay_and_a_client_that_vanish_are_noticed() {
    sim::run(2, SimConfig::default(), |world| {
        let (server, one, other) = (world.host("relay"), world.host("one"), world.host("other"));
        server.start(serve_for_ever);
        let address = SocketAddr::new(server.address(), 443);
        // Idle for ten minutes: the keep-alives go on. Then the cable is cut.
        let idle = one.start(move || {
            let (_to, mut from) = join(address, 1);
            let error = loop {
                if let Err(error) = from.receive() {
                    break error;
                }
            };
            assert_eq!(error.kind(), ErrorKind::TimedOut);
        });
        let watching = other.start(move || {
            let (to, mut from) = join(address, 2);
            sleep(Duration::from_secs(590));
            loop {
                to.send(id(1), b"there?");
                // It has not read for ten minutes, and was not taken for gone.
                if let Ok(Event::Absent(_)) = timeout(Duration::from_secs(1), || from.receive().unwrap()) {
                    return;
                }
            }
        });
        let begun = reactor::now();
        sleep(Duration::from_secs(600));
        world.partition(&one, &server);
        let cut = reactor::now();
        idle.wait();
        let client = reactor::now();
        assert!(cut - begun >= Duration::from_secs(600), "it was kept as long as it was there");
        watching.wait();
        let relay = reactor::now();
        for at in [client, relay] {
            assert!(at >= cut && at - cut <= relay::SILENCE_MAX + relay::KEEP_ALIVE);
        }
    });
}
