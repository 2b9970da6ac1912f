//! Routers of the simulator: who gets in, who is a neighbour, and what is lost when one forgets or has another address.
//!
//! What could go wrong: a router that is kinder than those of the world, behind which everything seems to work.

use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::time::Duration;

use reactor::net::{TcpListener, TcpStream, UdpSocket};
use reactor::sim::{self, Filtering, Host, Latency, Link, Mapping, Nat, SimConfig, World};
use reactor::{now, sleep};

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

/// A home router of Linux.
fn home() -> Nat {
    Nat::new(Mapping::EndpointIndependent, Filtering::AddressAndPortDependent)
}

fn in_world(body: impl FnOnce(&World) + Send) {
    sim::run(1, SimConfig::default(), |world| {
        world.link_all(Link::new(Latency::Constant(10 * MS)));
        body(world);
    });
}

/// Has a machine say of each datagram at its port 9 where it came from.
fn start_mirror(host: &Host) -> SocketAddr {
    host.start(|| {
        let socket = UdpSocket::bind("0.0.0.0:9").unwrap();
        while let Ok((_, from)) = socket.recv_from(&mut [0; 64]) {
            socket.send_to(from.to_string().as_bytes(), from).unwrap();
        }
    });
    SocketAddr::new(host.address(), 9)
}

/// Where a mirror sees that socket, if its answer comes.
fn seen(socket: &UdpSocket, mirror: SocketAddr) -> Option<SocketAddr> {
    socket.send_to(b"where am I?", mirror).unwrap();
    socket.set_read_deadline(Some(now() + SECOND));
    let mut text = [0; 64];
    let (size, _) = socket.recv_from(&mut text).ok()?;
    Some(std::str::from_utf8(&text[..size]).unwrap().parse().unwrap())
}

fn on(host: &Host, body: impl FnOnce() + 'static) {
    host.start(body).wait();
}

#[test]
fn answers_come_in_and_strangers_do_not() {
    in_world(|world| {
        let [inside, friend, stranger] = ["inside", "friend", "stranger"].map(|name| world.host(name));
        let router = world.router(home(), &[&inside]);
        let (outside, mirror) = (SocketAddr::new(router.address(), 7), start_mirror(&friend));
        inside.start(move || {
            let socket = UdpSocket::bind("0.0.0.0:7").unwrap();
            assert_eq!(seen(&socket, mirror), Some(outside));
            while let Ok((size, from)) = socket.recv_from(&mut [0; 64]) {
                assert_eq!(from.ip(), mirror.ip(), "{size} bytes of a stranger");
            }
        });
        let at_home = SocketAddr::new(inside.address(), 7);
        on(&stranger, move || {
            sleep(SECOND);
            let socket = UdpSocket::bind("0.0.0.0:9").unwrap();
            socket.send_to(b"to its router", outside).unwrap();
            socket.send_to(b"to its address within", at_home).unwrap();
            sleep(SECOND);
        });
    });
}

#[test]
fn neighbours_need_no_router_and_reach_each_other_outside_only_where_it_turns_round() {
    for hairpin in [false, true] {
        in_world(|world| {
            let [one, other] = ["one", "other"].map(|name| world.host(name));
            let router = world.router(Nat { hairpin, ..home() }, &[&one, &other]);
            let (mirror, outside) = (start_mirror(&other), SocketAddr::new(router.address(), 9));
            let own = one.address();
            on(&one, move || {
                let socket = UdpSocket::bind("0.0.0.0:8").unwrap();
                assert_eq!(seen(&socket, mirror), Some(SocketAddr::new(own, 8)));
            });
            let speaking = other.start(move || {
                let socket = UdpSocket::bind("0.0.0.0:12").unwrap();
                for _ in 0..10 {
                    socket.send_to(b"hello", SocketAddr::new(outside.ip(), 13)).unwrap();
                    sleep(100 * MS);
                }
            });
            on(&one, move || {
                let socket = UdpSocket::bind("0.0.0.0:13").unwrap();
                socket.send_to(b"hello", SocketAddr::new(outside.ip(), 12)).unwrap();
                socket.set_read_deadline(Some(now() + 2 * SECOND));
                let came = socket.recv_from(&mut [0; 64]).map(|(_, from)| from);
                assert_eq!(came.ok(), hairpin.then_some(SocketAddr::new(outside.ip(), 12)));
            });
            speaking.wait();
        });
    }
}

#[test]
fn a_symmetric_router_shows_each_another_port() {
    in_world(|world| {
        let [inside, one, other] = ["inside", "one", "other"].map(|name| world.host(name));
        let nat = Nat::new(Mapping::AddressAndPortDependent, Filtering::AddressAndPortDependent);
        let _router = world.router(nat, &[&inside]);
        let mirrors = [start_mirror(&one), start_mirror(&other)];
        on(&inside, move || {
            let socket = UdpSocket::bind("0.0.0.0:7").unwrap();
            let [first, second] = mirrors.map(|mirror| seen(&socket, mirror).unwrap());
            assert_ne!(first, second);
            assert_eq!(seen(&socket, mirrors[0]), Some(first));
        });
    });
}

#[test]
fn who_moves_is_seen_elsewhere_and_its_connections_break() {
    in_world(|world| {
        let [inside, outside] = ["inside", "outside"].map(|name| world.host(name));
        let router = world.router(home(), &[&inside]);
        let (mirror, before) = (start_mirror(&outside), router.address());
        let served = outside.start(|| {
            let listener = TcpListener::bind("0.0.0.0:80").unwrap();
            let (mut stream, _) = listener.accept().unwrap();
            stream.read_exact(&mut [0; 1]).unwrap();
            // What is said to the earlier address goes nowhere, and nobody says so.
            stream.set_read_deadline(Some(now() + 60 * SECOND));
            let heard = stream.read(&mut [0; 1]);
            assert_eq!(heard.unwrap_err().kind(), ErrorKind::TimedOut);
        });
        let to = SocketAddr::new(outside.address(), 80);
        let moving = inside.start(move || {
            let socket = UdpSocket::bind("0.0.0.0:7").unwrap();
            assert_eq!(seen(&socket, mirror).unwrap().ip(), before);
            let mut stream = TcpStream::connect(to).unwrap();
            stream.write_all(&[1]).unwrap();
            sleep(2 * SECOND);
            assert_ne!(seen(&socket, mirror).unwrap().ip(), before);
            stream.write_all(&[2]).unwrap();
            assert_eq!(stream.read(&mut [0; 1]).unwrap_err().kind(), ErrorKind::ConnectionReset);
        });
        sleep(SECOND);
        router.readdress();
        assert_ne!(router.address(), before);
        moving.wait();
        served.wait();
    });
}

#[test]
fn nobody_connects_by_tcp_to_who_is_behind_a_router_but_a_neighbour() {
    in_world(|world| {
        let [inside, neighbour, outside] = ["inside", "neighbour", "outside"].map(|name| world.host(name));
        let _router = world.router(home(), &[&inside, &neighbour]);
        inside.start(|| {
            let listener = TcpListener::bind("0.0.0.0:80").unwrap();
            while listener.accept().is_ok() {}
        });
        let to = SocketAddr::new(inside.address(), 80);
        on(&neighbour, move || drop(TcpStream::connect(to).unwrap()));
        on(&outside, move || {
            assert_eq!(TcpStream::connect(to).err().unwrap().kind(), ErrorKind::HostUnreachable)
        });
    });
}
