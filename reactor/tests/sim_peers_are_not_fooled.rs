//! Those between two peers, in the simulator: a relay that lies about who sends, and who repeats and reflects packets.
//!
//! What went wrong elsewhere: routes that anybody could change who had seen a packet, and identities that were a relay's word.

mod peers_support;

use std::cell::Cell;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::rc::Rc;

use peers_support::{MS, PORT, SECOND, Town, ask, connect, id, identity, is_direct, peers, wait_for};
use reactor::cell::RefCell;
use reactor::nat::PeerId;
use reactor::nat::peers::{Path, RelayAt};
use reactor::nat::relay::{self, Event, Relay, RelayLimits};
use reactor::net::{TcpListener, UdpSocket};
use reactor::sim::{self, Latency, Link, SimConfig};
use reactor::{now, sleep, spawn, timeout};

/// A relay that says of everybody that they are the second peer.
#[test]
fn a_relay_that_lies_about_who_sends_is_found_out() {
    sim::run(6, SimConfig::default(), |world| {
        let (liar, one, two) = (world.host("liar"), world.host("one"), world.host("two"));
        liar.start(|| {
            let listener = TcpListener::bind("0.0.0.0:443").unwrap();
            let relay = Relay::new(&identity(0), |_: PeerId, _: &[u8]| true, RelayLimits::default());
            let serving = spawn(move || relay.serve(&listener));
            // Registered as the third, it passes on to the second what comes, and back: under its own name.
            let own = SocketAddr::new([127, 0, 0, 1].into(), 443);
            let (to, mut from) = relay::connect(own, id(0).expected(), &identity(3), b"").unwrap();
            let first = Rc::new(RefCell::new(None));
            while let Ok(Event::Datagram { from, bytes }) = from.receive() {
                if from.peer == id(2) {
                    if let Some(first) = *first.borrow() {
                        to.send(first, &bytes);
                    }
                } else {
                    *first.borrow_mut() = Some(from);
                    to.send(id(2), &bytes);
                }
            }
            serving.terminate();
        });
        let at = RelayAt::new(SocketAddr::new(liar.address(), 443), id(0));
        let accepting = two.start({
            let at = at.clone();
            move || {
                let peers = peers(2, &at);
                // What comes is the first peer's handshake under the third's name: it is nobody's connection.
                assert!(timeout(20 * SECOND, || peers.accept()).is_err());
                assert_eq!((peers.path(id(1)), peers.path(id(3))), (None, None));
            }
        });
        let dialling = one.start(move || {
            let peers = peers(1, &at);
            sleep(SECOND);
            let error = peers.connect(id(3)).err().unwrap();
            assert_eq!(error.kind(), ErrorKind::InvalidData, "the second peer is not the third: {error}");
        });
        dialling.wait();
        accepting.wait();
    });
}

/// A key is made up by anybody: who has shown no more is told no address, is answered by none, and has none of its own tried.
#[test]
fn who_was_not_admitted_is_reached_over_the_relay_alone() {
    sim::run(8, SimConfig::default(), |world| {
        let town = Town::new(world);
        let at = town.relay_at();
        let (came, may) = (Rc::new(Cell::new(false)), Rc::new(Cell::new(false)));
        let admitting = may.clone();
        town.two.start(move || {
            let peers = peers(2, &at);
            let connection = peers.accept_stranger().unwrap();
            let stream = connection.accept().unwrap();
            spawn(move || peers_support::echo(&stream));
            while !admitting.get() {
                assert_eq!(peers.path(id(1)), Some(Path::Relayed));
                sleep(100 * MS);
            }
            peers.admit(&connection);
            sleep(60 * SECOND);
        });
        // An address of the stranger's where nothing of the other may come.
        let named = world.host("named");
        let named_at = SocketAddr::new(named.address(), 9);
        let (seen, two) = (came.clone(), town.two.address());
        named.start(move || {
            let socket = UdpSocket::bind("0.0.0.0:9").unwrap();
            let mut buffer = [0; 2_000];
            while let Ok((_, from)) = socket.recv_from(&mut buffer) {
                seen.set(seen.get() || from.ip() == two);
            }
        });
        let at = town.relay_at();
        let dialling = town.one.start(move || {
            let peers = peers(1, &at);
            peers.add_address(named_at);
            let stream = connect(&peers, 2).open().unwrap();
            for number in 0..200 {
                ask(&stream, number);
                assert_eq!(peers.path(id(2)), Some(Path::Relayed), "it was told, or answered");
                sleep(100 * MS);
            }
            assert!(!came.get(), "a stranger had it send to whom it likes");
            may.set(true);
            wait_for(&peers, is_direct, 20 * SECOND);
            assert!(came.get(), "else nothing was seen of it");
        });
        dialling.wait();
    });
}

/// Somebody who has caught packets sends them again and again, from an address of their own: to both, and so also back to
/// who made them.
#[test]
fn packets_that_are_repeated_or_reflected_change_no_route_and_are_not_answered() {
    sim::run(7, SimConfig::default(), |world| {
        world.link_all(Link::new(Latency::Constant(10 * MS)));
        let town = Town::new(world);
        town.start_echo();
        // A middle that is named as an address of the first: what is tried there is caught.
        let middle = world.host("middle");
        let (at, one, two) = (town.relay_at(), town.one.address(), town.two.address());
        let middle_at = SocketAddr::new(middle.address(), 9);
        let (caught, came_back) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
        let counts = (caught.clone(), came_back.clone());
        let repeats = Rc::new(Cell::new(false));
        let begin = repeats.clone();
        middle.start(move || {
            let socket = UdpSocket::bind("0.0.0.0:9").unwrap();
            let (mut buffer, mut packets) = ([0; 2_000], Vec::new());
            loop {
                socket.set_read_deadline(Some(now() + 100 * MS));
                match socket.recv_from(&mut buffer) {
                    Ok((size, _)) if !repeats.get() => packets.push(buffer[..size].to_vec()),
                    Ok(_) => came_back.set(came_back.get() + 1),
                    Err(_) if repeats.get() => {
                        for packet in &packets {
                            let _ = socket.send_to(packet, SocketAddr::new(one, PORT));
                            let _ = socket.send_to(packet, SocketAddr::new(two, PORT));
                        }
                    }
                    Err(_) => caught.set(packets.len()),
                }
            }
        });
        town.world.partition(&town.one, &town.two);
        let asking = town.one.start(move || {
            let peers = peers(1, &at);
            peers.add_address(middle_at);
            let stream = connect(&peers, 2).open().unwrap();
            ask(&stream, 1);
            wait_for(&peers, is_direct, 60 * SECOND);
            begin.set(true);
            for number in 2..600 {
                ask(&stream, number);
                let Some(Path::Direct { address, .. }) = peers.path(id(2)) else {
                    panic!("it has lost its way")
                };
                assert_eq!(address, SocketAddr::new(two, PORT));
                sleep(50 * MS);
            }
        });
        sleep(4 * SECOND);
        town.world.heal(&town.one, &town.two);
        asking.wait();
        let (caught, came_back) = (counts.0.get(), counts.1.get());
        assert!(caught > 0, "it was named, and tried");
        // Each packet was sent some three hundred times. One that was never seen before may be answered, once, and has the
        // address tried.
        assert!(came_back <= 4 * caught, "{caught} were caught, and {came_back} came back");
    });
}
