//! A destination with several addresses, some of them dead: whoever answers first is connected to, the others are
//! broken off, and a refusal costs no delay at all.

use std::cell::Cell;
use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use reactor::net::{ATTEMPT_DELAY, BindOptions, TcpListener, TcpStream};
use reactor::{now, run, spawn, timeout};
use socket2::{Domain, Socket, Type};

fn listen(address: &str) -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind(address).unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// An address that answers nothing: a listener whose queue is full drops each further SYN.
fn silent() -> (TcpListener, SocketAddr, Vec<TcpStream>) {
    let options = BindOptions { backlog: 0, ..BindOptions::default() };
    let listener = TcpListener::bind_with("127.0.0.1:0", &options).unwrap();
    let address = listener.local_addr().unwrap();
    let mut queued = Vec::new();
    while let Ok(stream) = timeout(Duration::from_millis(400), || TcpStream::connect_one(address).unwrap()) {
        queued.push(stream);
        assert!(queued.len() < 100, "the queue of 0 must fill");
    }
    (listener, address, queued)
}

/// An address where nobody listens, nor can while the socket lives: it is bound only.
fn refusing(address: &str) -> (Socket, SocketAddr) {
    let address: SocketAddr = address.parse().unwrap();
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).unwrap();
    socket.bind(&address.into()).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    (socket, address)
}

/// Half-open connections of this process to `address`, as the kernel counts them.
fn attempts_to(address: SocketAddr) -> usize {
    let port = format!(":{:04X} 02 ", address.port()); // 02: SYN_SENT
    std::fs::read_to_string("/proc/net/tcp").unwrap().lines().filter(|line| line.contains(&port)).count()
}

#[test]
fn a_refused_address_gives_way_to_the_next_at_once() {
    run(|| {
        let (listener, address) = listen("127.0.0.1:0");
        let mut bound = vec![refusing("[::1]:0")];
        bound.extend((0..10).map(|_| refusing("127.0.0.1:0")));
        let mut addresses: Vec<SocketAddr> = bound.iter().map(|(_, address)| *address).collect();
        addresses.push(address);
        let begun = now();
        let stream = TcpStream::connect(&addresses[..]).unwrap();
        assert_eq!(stream.peer_addr().unwrap(), address);
        assert!(now() - begun < 11 * ATTEMPT_DELAY, "no refusal waited for its delay");
        listener.accept().unwrap();
    });
}

#[test]
fn a_silent_address_is_overtaken_after_its_delay_and_broken_off() {
    run(|| {
        let (_full, dead, _queued) = silent();
        let (listener, alive) = listen("127.0.0.1:0");
        let begun = now();
        let most = Rc::new(Cell::new(0));
        let seen = most.clone();
        let watcher = spawn(move || {
            loop {
                seen.set(attempts_to(dead).max(seen.get()));
                reactor::sleep(Duration::from_millis(5));
            }
        });
        let stream = TcpStream::connect(vec![dead, alive]).unwrap();
        assert_eq!(stream.peer_addr().unwrap(), alive);
        assert!(now() - begun >= ATTEMPT_DELAY, "the first address was given its time");
        watcher.terminate();
        assert_eq!(most.get(), 1, "one attempt was under way");
        assert_eq!(attempts_to(dead), 0, "and the loser is broken off");
        let (mut far, _) = listener.accept().unwrap();
        (&stream).write_all(b"whole").unwrap();
        drop(stream);
        let mut text = String::new();
        far.read_to_string(&mut text).unwrap();
        assert_eq!(text, "whole");
    });
}

#[test]
fn ipv6_is_tried_first() {
    run(|| {
        let (_v4, v4) = listen("127.0.0.1:0");
        let (_v6, v6) = listen("[::1]:0");
        let stream = TcpStream::connect(vec![v4, v6]).unwrap();
        assert_eq!(stream.peer_addr().unwrap(), v6);
    });
}

#[test]
fn a_connect_that_is_terminated_breaks_all_attempts_off() {
    run(|| {
        let (_full, dead, _queued) = silent();
        let given_up = timeout(2 * ATTEMPT_DELAY, || TcpStream::connect(vec![dead, dead, dead]).map(drop));
        assert!(given_up.is_err());
        assert_eq!(attempts_to(dead), 0);
    });
}

#[test]
fn when_all_fail_the_first_ones_error_is_told() {
    run(|| {
        let [(_a, first), (_b, second)] = ["127.0.0.1:0"; 2].map(refusing);
        let error = TcpStream::connect(vec![first, second]).map(drop).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
        assert!(error.to_string().contains(&first.to_string()), "{error}");
        assert!(TcpStream::connect(Vec::<SocketAddr>::new()).is_err());
    });
}

#[test]
fn a_name_is_looked_up_off_the_thread_and_connected_to() {
    run(|| {
        let (listener, address) = listen("localhost:0");
        let stream = TcpStream::connect(("localhost", address.port())).unwrap();
        assert_eq!(stream.peer_addr().unwrap(), address);
        let text = format!("LOCALHOST:{}", address.port());
        TcpStream::connect(text).unwrap();
        listener.accept().unwrap();
        let error = TcpStream::connect("no-such-host.invalid:80").map(drop).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Other), "{error}");
    });
}
