//! TLS as the web speaks it, our client against our server: who is trusted, which certificate is shown, what is spoken
//! inside, how certificates are replaced under a standing connection, and what a cut connection looks like.

mod certificates;

use std::cell::Cell;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use certificates::Authority;
use reactor::net::tls::{CertifiedStream, Client, Server, Truncated, Version};
use reactor::net::{Duplex, TcpListener, TcpStream};
use reactor::sim::{self, SimConfig};
use reactor::{run, spawn};

/// Accepts for ever; each connection that shakes hands is handed to `serve`.
fn start(server: &Server, serve: impl Fn(CertifiedStream) + Clone + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let server = server.clone();
    spawn(move || {
        loop {
            let (client, _) = listener.accept().unwrap();
            let (server, serve) = (server.clone(), serve.clone());
            spawn(move || {
                if let Ok(stream) = server.accept(client) {
                    serve(stream);
                }
            });
        }
    });
    address
}

fn echo(stream: CertifiedStream) {
    let mut buffer = [0; 4096];
    while let Ok(count @ 1..) = (&stream).read(&mut buffer) {
        if (&stream).write_all(&buffer[..count]).is_err() {
            return;
        }
    }
    let _ = stream.end();
}

fn trusting(authority: &Authority) -> Client {
    Client::with_roots(authority.pem.as_bytes()).unwrap()
}

fn dial(client: &Client, address: SocketAddr, name: &str) -> std::io::Result<CertifiedStream> {
    client.connect(TcpStream::connect(address).unwrap(), name)
}

fn echoes(stream: &CertifiedStream) {
    let mut stream = stream;
    stream.write_all(b"hello").unwrap();
    let mut buffer = [0; 5];
    stream.read_exact(&mut buffer).unwrap();
    assert_eq!(&buffer, b"hello");
}

#[test]
fn the_name_that_is_asked_for_picks_the_certificate() {
    run(|| {
        let authority = Authority::new();
        let certificates = [&["a.test"][..], &["b.test", "127.0.0.1"], &["*.wild.test"]];
        let server = Server::new(&certificates.map(|names| authority.certificate(names))).unwrap();
        let asked = Rc::new(Cell::new(None));
        let note = asked.clone();
        let address = start(&server, move |stream| {
            note.set(stream.server_name());
            echo(stream);
        });
        let client = trusting(&authority);
        // The client checks the name: a wrong certificate would be refused.
        for name in ["a.test", "b.test", "B.TEST", "x.wild.test"] {
            let stream = dial(&client, address, name).unwrap();
            echoes(&stream);
            assert_eq!(asked.take(), Some(name.to_ascii_lowercase()));
            assert_eq!(stream.version(), Version::Tls13);
        }
        let error = dial(&client, address, "c.test").map(drop).unwrap_err();
        assert!(error.to_string().contains("not to be trusted"), "{error}");
        // No name is sent with an IP address, so the first certificate comes, which is not for it.
        assert!(dial(&client, address, "127.0.0.1").is_err());
    });
}

#[test]
fn a_server_is_trusted_only_by_a_known_issuer_in_its_time() {
    run(|| {
        let (authority, stranger) = (Authority::new(), Authority::new());
        let server = Server::new(&[authority.certificate(&["a.test"])]).unwrap();
        let address = start(&server, echo);
        let error = dial(&trusting(&stranger), address, "a.test").map(drop).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidData);
        assert!(error.to_string().contains("not to be trusted"), "{error}");
        let expired = authority.issue_until(&["a.test"], 2001).certificate();
        server.reload(&[expired]).unwrap();
        let error = dial(&trusting(&authority), address, "a.test").map(drop).unwrap_err();
        assert!(error.to_string().contains("expired"), "{error}");
        let error = dial(&trusting(&authority), address, "not a name").map(drop).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(Client::with_roots(b"nothing").is_err());
        assert!(Server::new(&[]).is_err());
    });
}

#[test]
fn the_platforms_roots_are_found_and_do_not_vouch_for_a_self_made_one() {
    run(|| {
        let client = match Client::with_platform_roots() {
            Ok(client) => client,
            Err(error) => return eprintln!("SKIPPED: {error}"),
        };
        let server = Server::new(&[Authority::new().certificate(&["a.test"])]).unwrap();
        let error = dial(&client, start(&server, echo), "a.test").map(drop).unwrap_err();
        assert!(error.to_string().contains("UnknownIssuer"), "{error}");
    });
}

#[test]
fn certificates_are_reloaded_while_a_client_is_connected() {
    let directory = tempfile::tempdir().unwrap();
    let (chain, key) = (directory.path().join("chain.pem"), directory.path().join("key.pem"));
    run(|| {
        let (old, new) = (Authority::new(), Authority::new());
        let write = |authority: &Authority| {
            let issued = authority.issue(&["a.test"]);
            std::fs::write(&chain, issued.chain).unwrap();
            std::fs::write(&key, issued.key).unwrap();
            reactor::net::tls::Certificate::from_pem_files(&chain, &key)
        };
        let server = Server::new(&[write(&old).unwrap()]).unwrap();
        let address = start(&server, echo);
        let standing = dial(&trusting(&old), address, "a.test").unwrap();
        echoes(&standing);
        server.reload(&[write(&new).unwrap()]).unwrap();
        echoes(&standing);
        echoes(&dial(&trusting(&new), address, "a.test").unwrap());
        assert!(dial(&trusting(&old), address, "a.test").is_err(), "the old one is shown no more");
        // What can't be read changes nothing.
        std::fs::write(&chain, "half a certif").unwrap();
        let error = reactor::net::tls::Certificate::from_pem_files(&chain, &key).unwrap_err();
        assert!(error.to_string().contains("chain.pem"), "{error}");
        assert!(server.reload(&[]).is_err());
        echoes(&dial(&trusting(&new), address, "a.test").unwrap());
        echoes(&standing);
    });
}

#[test]
fn both_sides_agree_on_the_protocol_inside_or_part() {
    run(|| {
        let authority = Authority::new();
        let server =
            Server::new(&[authority.certificate(&["a.test"])]).unwrap().alpn(&["hypha/2", "http/1.1"]);
        let address = start(&server, echo);
        let client = trusting(&authority);
        let both = dial(&client.clone().alpn(&["http/1.1", "hypha/2"]), address, "a.test").unwrap();
        assert_eq!(both.alpn().as_deref(), Some(&b"hypha/2"[..]), "the server prefers");
        let error = dial(&client.clone().alpn(&["h2"]), address, "a.test").map(drop).unwrap_err();
        assert!(error.to_string().contains("no application protocol in common"), "{error}");
        let none = dial(&client, address, "a.test").unwrap();
        assert_eq!(none.alpn(), None);
        echoes(&none);
    });
}

#[test]
fn a_second_connection_resumes_the_session_of_the_first_until_the_certificates_are_replaced() {
    run(|| {
        let authority = Authority::new();
        let server = Server::new(&[authority.certificate(&["a.test"])]).unwrap();
        let address = start(&server, echo);
        let client = trusting(&authority);
        let first = dial(&client, address, "a.test").unwrap();
        // Tickets come after the handshake, before the first answer.
        echoes(&first);
        assert!(!first.is_resumed());
        for round in 0..3 {
            for _ in 0..3 {
                let next = dial(&client, address, "a.test").unwrap();
                echoes(&next);
                assert!(next.is_resumed(), "in round {round}");
            }
            server.reload(&[authority.certificate(&["a.test"])]).unwrap();
            // Whoever has replaced a certificate, for its key was stolen say, has it shown to everybody.
            let fresh = dial(&client, address, "a.test").unwrap();
            echoes(&fresh);
            assert!(!fresh.is_resumed(), "in round {round}");
        }
        let other = dial(&trusting(&authority), address, "a.test").unwrap();
        assert!(!other.is_resumed(), "another client has no session");
    });
}

#[test]
fn half_a_close_leaves_the_other_direction_open() {
    run(|| {
        let authority = Authority::new();
        let server = Server::new(&[authority.certificate(&["a.test"])]).unwrap();
        let address = start(&server, |mut stream| {
            let mut text = String::new();
            stream.read_to_string(&mut text).unwrap();
            // The client's end has been read; ours is still open.
            for _ in 0..100 {
                stream.write_all(text.to_uppercase().repeat(1000).as_bytes()).unwrap();
            }
            stream.end().unwrap();
        });
        let mut stream = dial(&trusting(&authority), address, "a.test").unwrap();
        stream.write_all(b"question").unwrap();
        stream.end().unwrap();
        assert!(stream.write_all(b"more").is_err());
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer == "QUESTION".repeat(100_000));
    });
}

/// Passes the first `limit` bytes from the server on, and then ends the stream as if the server had; tells how many
/// bytes came in all.
fn cutting_proxy(server: SocketAddr, limit: usize) -> (SocketAddr, reactor::JoinHandle<usize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let proxy = spawn(move || {
        let (near, _) = listener.accept().unwrap();
        let far = TcpStream::connect(server).unwrap();
        reactor::scope(|s| {
            s.spawn(|| {
                let mut buffer = [0; 4096];
                while let Ok(count @ 1..) = (&near).read(&mut buffer) {
                    if (&far).write_all(&buffer[..count]).is_err() {
                        break;
                    }
                }
                let _ = far.shutdown(Shutdown::Write);
            });
            let mut passed = 0;
            let mut total = 0;
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = (&far).read(&mut buffer) {
                total += count;
                let pass = count.min(limit - passed);
                passed += pass;
                (&near).write_all(&buffer[..pass]).unwrap();
                if passed == limit {
                    let _ = near.shutdown(Shutdown::Write);
                }
            }
            total
        })
    });
    (address, proxy)
}

#[test]
fn a_connection_cut_anywhere_after_the_handshake_is_told_from_one_that_ended() {
    const BODY: usize = 50_000;
    /// A record of TLS 1.3 with an alert in it: header, two bytes, the inner type, the tag.
    const CLOSE_NOTIFY_LEN: usize = 5 + 2 + 1 + 16;
    run(|| {
        let authority = Authority::new();
        let server = Server::new(&[authority.certificate(&["a.test"])]).unwrap();
        let address = start(&server, |stream| {
            let mut stream = stream;
            if stream.write_all(&[7; BODY]).is_ok() {
                let _ = stream.end();
            }
        });
        let client = trusting(&authority);
        let fetch = |limit: usize| {
            let (proxy, ended) = cutting_proxy(address, limit);
            let mut stream = dial(&client, proxy, "a.test").unwrap();
            let mut body = Vec::new();
            let result = stream.read_to_end(&mut body);
            stream.abort();
            assert!(body.iter().all(|byte| *byte == 7));
            (body.len(), result.map(drop), ended.join().unwrap())
        };
        let _first = fetch(usize::MAX); // from here on, sessions are resumed, and all handshakes are alike
        let (len, result, total) = fetch(usize::MAX);
        assert_eq!(len, BODY);
        result.unwrap();
        // Between two records, the last of them `close_notify`: nothing but that is missing.
        let (len, result, _) = fetch(total - CLOSE_NOTIFY_LEN);
        assert_eq!(len, BODY);
        let error = result.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::UnexpectedEof);
        assert!(Truncated::is_cause_of(&error), "{error}");
        for missing in [1, 10, 23, 25, 1000, 20_000, 49_000] {
            let (len, result, _) = fetch(total - missing);
            assert!(len <= BODY);
            assert!(Truncated::is_cause_of(&result.unwrap_err()), "{missing} bytes missing");
        }
    });
}

#[test]
fn certificates_are_judged_by_the_calendar_of_their_world() {
    let authority = Authority::new();
    // A world begins in 2030; ours has not come so far, or has passed it, as the case may be.
    let server = Server::new(&[authority.issue_until(&["far"], 2035).certificate()]).unwrap();
    let client = trusting(&authority);
    sim::run(1, SimConfig::default(), |world| {
        let (near, far) = (world.host("near"), world.host("far"));
        far.start(move || {
            let listener = TcpListener::bind("0.0.0.0:443").unwrap();
            loop {
                let (stream, _) = listener.accept().unwrap();
                let server = server.clone();
                spawn(move || server.accept(stream).map(echo));
            }
        });
        let dialled = near.start(move || {
            let dial = || client.connect(TcpStream::connect(("far", 443)).unwrap(), "far");
            echoes(&dial().unwrap());
            reactor::sleep(Duration::from_secs(10 * 365 * 24 * 3600));
            let error = dial().map(drop).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidData, "{error}");
        });
        dialled.wait();
    });
}
