//! The same server over TCP, a Unix socket, TLS, and in a simulated world where packets are lost and time is virtual.

mod certificates;
mod http_support;

use std::io::{Read, Write};
use std::rc::Rc;
use std::time::Duration;

use certificates::Authority;
use http_support::{have, run_well};
use reactor::http::{Limits, Method, Request, Response, Secured, Server};
use reactor::net::{TcpListener, TcpStream, UnixListener, UnixStream, tls};
use reactor::sim::{self, Latency, Link, SimConfig};

fn echo() -> Server {
    Server::new().route(Method::GET, "/", |_| "hello").route(
        Method::POST,
        "/echo",
        |request: &mut Request<'_>| -> std::io::Result<Response> { Ok(request.read_body(1 << 20)?.into()) },
    )
}

/// Asks twice on one connection and reads to its end.
fn ask(mut stream: impl Read + Write) {
    let body = "body".repeat(50_000);
    write!(stream, "POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n{body}", body.len()).unwrap();
    write!(stream, "GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").unwrap();
    let mut all = Vec::new();
    stream.read_to_end(&mut all).unwrap();
    let text = String::from_utf8(all).unwrap();
    assert_eq!(text.matches("HTTP/1.1 200 OK").count(), 2);
    assert!(text.contains(&body) && text.ends_with("\r\n\r\nhello"));
}

#[test]
fn http_over_a_unix_socket() {
    reactor::run(|| {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let _server = echo().start(UnixListener::bind(&path).unwrap());
        ask(UnixStream::connect(&path).unwrap());
        if have("curl", &["--version"]) {
            let path = path.to_str().unwrap();
            assert_eq!(run_well("curl", &["-sS", "--unix-socket", path, "http://h/"]), "hello");
        }
    });
}

#[test]
fn http_over_tls() {
    reactor::run(|| {
        let authority = Authority::new();
        let acceptor =
            tls::Server::new(&[authority.certificate(&["localhost"])]).unwrap().alpn(&["http/1.1"]);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = echo().start(Secured::new(listener, move |stream| acceptor.accept(stream)));
        let client = tls::Client::with_roots(authority.pem.as_bytes()).unwrap().alpn(&["http/1.1"]);
        let stream = client.connect(TcpStream::connect(address).unwrap(), "localhost").unwrap();
        ask(&stream);
        // A client that speaks no TLS costs a connection for a moment, and disturbs nobody.
        let mut plain = TcpStream::connect(address).unwrap();
        plain.write_all(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
        let mut answer = Vec::new();
        let _ = plain.read_to_end(&mut answer);
        assert!(!answer.starts_with(b"HTTP"));
        if have("curl", &["--version"]) {
            let directory = tempfile::tempdir().unwrap();
            let roots = directory.path().join("roots.pem");
            std::fs::write(&roots, &authority.pem).unwrap();
            let url = format!("https://localhost:{}/", address.port());
            let resolve = format!("localhost:{}:127.0.0.1", address.port());
            let arguments = ["-sS", "--cacert", roots.to_str().unwrap(), "--resolve", &resolve, &url];
            assert_eq!(run_well("curl", &arguments), "hello");
        }
        drop(stream);
        drop(plain);
        assert_eq!(server.drain(Duration::from_secs(60)), 0);
    });
}

#[test]
fn clients_whose_handshake_is_not_done_have_few_places_and_those_who_are_known_theirs() {
    reactor::run(|| {
        let authority = Authority::new();
        let acceptor = tls::Server::new(&[authority.certificate(&["localhost"])]).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let limits = Limits { handshakes: 6, handshakes_per_address: 3, ..Limits::default() };
        let _server =
            echo().limits(limits).start(Secured::new(listener, move |stream| acceptor.accept(stream)));
        let client = tls::Client::with_roots(authority.pem.as_bytes()).unwrap();
        let connect = || client.connect(TcpStream::connect(address).unwrap(), "localhost");
        // Those who are through cost no place of those who are not.
        let known: Vec<_> = (0..5).map(|_| connect().unwrap()).collect();
        let silent: Vec<_> = (0..3).map(|_| TcpStream::connect(address).unwrap()).collect();
        // The server lets go of it at once, and not when a handshake has lasted too long; that they are let in one after
        // another is known when the last is.
        let mut refused = TcpStream::connect(address).unwrap();
        refused.set_read_deadline(Some(reactor::now() + tls::HANDSHAKE_TIMEOUT / 2));
        assert!(matches!(refused.read(&mut [0; 16]), Ok(0)), "a fourth handshake of one address");
        for stream in &known[..2] {
            ask(stream);
        }
        drop(silent);
        let again = (0..2_000).any(|_| {
            reactor::sleep(Duration::from_millis(5));
            connect().is_ok()
        });
        assert!(again, "their places are free when they have gone");
    });
}

/// A world with a server and clients, some of whom stop in the middle; its trace's hash.
fn simulate(seed: u64) -> u64 {
    sim::run(seed, SimConfig::default(), |world| {
        let latency = Latency::Constant(Duration::from_millis(20));
        world.link_all(Link::new(latency).with_loss(0.02));
        let (server, client) = (world.host("server"), world.host("client"));
        server.start(|| {
            let listener = TcpListener::bind("0.0.0.0:80").unwrap();
            echo().limits(Limits::default()).serve(listener).unwrap();
        });
        let answered = Rc::new(std::cell::Cell::new(0));
        let count = answered.clone();
        let clients = client.start(move || {
            let asking: Vec<_> = (0..10)
                .map(|number| {
                    let count = count.clone();
                    reactor::spawn(move || {
                        let mut stream = TcpStream::connect(("server", 80)).unwrap();
                        if number % 2 == 0 {
                            ask(&stream);
                            count.set(count.get() + 1);
                        } else {
                            // Given up by the server after its time, which is virtual.
                            stream.write_all(b"GET / HTTP/1.1\r\nHo").unwrap();
                            let mut answer = Vec::new();
                            let _ = stream.read_to_end(&mut answer);
                            assert!(answer.starts_with(b"HTTP/1.1 408 "), "{}", answer.escape_ascii());
                        }
                    })
                })
                .collect();
            for client in asking {
                client.join().unwrap();
            }
        });
        clients.wait();
        assert_eq!(answered.get(), 5);
        assert!(world.elapsed() > Duration::from_secs(15), "the slow ones had their time");
        world.trace_hash()
    })
}

#[test]
fn http_in_a_simulated_world_is_the_same_with_the_same_seed() {
    for seed in 1..4 {
        assert_eq!(simulate(seed), simulate(seed), "seed {seed}");
    }
}
