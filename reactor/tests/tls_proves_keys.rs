//! Two peers shake hands by bare keys, and everyone who is not who was dialled stays outside: another key, a
//! client that speaks no TLS, one that hangs up, one that says nothing, and a wire that cuts or flips bytes.

use std::io::{ErrorKind, IoSlice, Read, Write};
use std::net::SocketAddr;
use std::rc::Rc;

use reactor::crypto::Identity;
use reactor::net::tls::{self, Expect, TlsStream};
use reactor::net::{Duplex, Pipe, TcpListener, TcpStream, pipe};

/// A pair over TCP: the client's end and the server's.
fn pair() -> (TlsStream, TlsStream) {
    let (client, server) = identities();
    let (listener, address) = listen();
    let key = server.public_key();
    let accepting = reactor::spawn(move || tls::accept(listener.accept().unwrap().0, &server).unwrap());
    let near = tls::connect(TcpStream::connect(address).unwrap(), &client, Expect::Key(key)).unwrap();
    let far = accepting.join().unwrap();
    assert_eq!((near.peer(), far.peer()), (key, client.public_key()));
    (near, far)
}

fn identities() -> (Rc<Identity>, Rc<Identity>) {
    (Rc::new(Identity::generate()), Rc::new(Identity::generate()))
}

fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

#[test]
fn both_sides_learn_the_key_of_the_other_and_bytes_arrive() {
    reactor::run(|| {
        let (near, far) = pair();
        (&near).write_all(b"hello").unwrap();
        let mut buffer = [0; 16];
        assert_eq!((&far).read(&mut buffer).unwrap(), 5);
        assert_eq!(&buffer[..5], b"hello");
    });
}

#[test]
fn a_fingerprint_will_do_and_so_will_anyone_if_asked_for() {
    reactor::run(|| {
        let (client, server) = identities();
        for expect in [Expect::Fingerprint(server.public_key().fingerprint()), Expect::Any] {
            let (near, far) = pipe(1 << 16);
            let host = server.clone();
            let accepting = reactor::spawn(move || tls::accept(far, &host).map(|stream| stream.peer()));
            let stream = tls::connect(near, &client, expect).unwrap();
            assert_eq!(stream.peer(), server.public_key());
            assert_eq!(accepting.join().unwrap().unwrap(), client.public_key());
        }
    });
}

#[test]
fn another_key_than_the_one_dialled_is_refused() {
    reactor::run(|| {
        let (client, server) = identities();
        let (near, far) = pipe(1 << 16);
        let accepting = reactor::spawn(move || tls::accept(far, &server).map(drop));
        let other = Identity::generate().public_key();
        let error = tls::connect(near, &client, Expect::Key(other)).map(drop).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidData);
        assert!(error.to_string().contains("another key"), "{error}");
        assert!(accepting.join().unwrap().is_err(), "the server learns it too");
    });
}

#[test]
fn a_client_that_speaks_no_tls_is_refused_with_a_hint() {
    reactor::run(|| {
        let (_, server) = identities();
        let (near, far) = pipe(1 << 16);
        near.write_slices(&mut [IoSlice::new(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")]).unwrap();
        let error = tls::accept(far, &server).map(drop).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidData);
        assert!(error.to_string().contains("does not speak our TLS"), "{error}");
    });
}

#[test]
fn a_peer_that_hangs_up_or_sends_noise_ends_the_handshake_either_way() {
    reactor::run(|| {
        let (client, server) = identities();
        let (near, far) = pipe(1 << 16);
        near.end().unwrap();
        assert_eq!(tls::accept(far, &server).map(drop).unwrap_err().kind(), ErrorKind::UnexpectedEof);
        let (near, far) = pipe(1 << 16);
        far.write_slices(&mut [IoSlice::new(&[0x16; 3000])]).unwrap();
        assert!(tls::connect(near, &client, Expect::Any).is_err());
    });
}

#[test]
fn a_client_without_a_key_of_its_own_is_refused() {
    use rustls::pki_types::ServerName;
    // A plain rustls client that knows no raw public keys, driven by hand over TCP.
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    let mut client =
        rustls::ClientConnection::new(config.into(), ServerName::try_from("peer").unwrap()).unwrap();
    let mut hello = Vec::new();
    client.write_tls(&mut hello).unwrap();
    reactor::run(move || {
        let (_, server) = identities();
        let (near, far) = pipe(1 << 16);
        near.write_slices(&mut [IoSlice::new(&hello)]).unwrap();
        let error = tls::accept(far, &server).map(drop).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidData, "{error}");
    });
}

#[test]
fn a_proper_end_is_an_end_and_a_cut_is_an_error() {
    reactor::run(|| {
        let (near, far) = pair();
        (&near).write_all(b"last words").unwrap();
        near.end().unwrap();
        let mut all = Vec::new();
        (&far).read_to_end(&mut all).unwrap();
        assert_eq!(all, b"last words");

        let (near, far) = pair();
        (&near).write_all(b"cut sho").unwrap();
        near.abort();
        let mut all = Vec::new();
        let error = (&far).read_to_end(&mut all).unwrap_err();
        assert_eq!(all, b"cut sho");
        assert!(matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset), "{error}");
    });
}

#[test]
fn a_megabyte_each_way_at_once_arrives_whole() {
    reactor::run(|| {
        let (near, far) = pair();
        let pattern: Vec<u8> = (0..1_000_003u32).map(|at| ((at * 31) >> 3) as u8).collect();
        reactor::scope(|s| {
            for stream in [&near, &far] {
                let pattern = &pattern;
                s.spawn(move || {
                    for chunk in pattern.chunks(70_001) {
                        let (a, b) = chunk.split_at(chunk.len() / 3);
                        stream.write_slices(&mut [IoSlice::new(a), IoSlice::new(b)]).unwrap();
                    }
                });
                s.spawn(move || {
                    let mut all = vec![0; pattern.len()];
                    let mut stream = stream;
                    stream.read_exact(&mut all).unwrap();
                    assert!(all == *pattern);
                });
            }
        });
    });
}

#[test]
fn a_bit_flipped_on_the_wire_is_noticed() {
    reactor::run(|| {
        // The man in the middle passes the handshake on, and then damages one byte.
        let (client, server) = identities();
        let (near, middle_near) = pipe(1 << 16);
        let (middle_far, far) = pipe(1 << 16);
        let (middle_near, middle_far) = (Rc::new(middle_near), Rc::new(middle_far));
        let armed = Rc::new(std::cell::Cell::new(false));
        let relay = |from: Rc<Pipe>, to: Rc<Pipe>, armed: Rc<std::cell::Cell<bool>>| {
            reactor::spawn(move || {
                let mut buffer = [0; 4096];
                while let Ok(count @ 1..) = from.read_some(&mut buffer) {
                    if armed.get() {
                        buffer[count / 2] ^= 1;
                    }
                    if to.write_slices(&mut [IoSlice::new(&buffer[..count])]).is_err() {
                        break;
                    }
                }
            })
        };
        let _up = relay(middle_near.clone(), middle_far.clone(), armed.clone());
        let _down = relay(middle_far, middle_near, Rc::default());
        let accepting = reactor::spawn(move || tls::accept(far, &server).unwrap());
        let near = tls::connect(near, &client, Expect::Any).unwrap();
        let far = accepting.join().unwrap();
        armed.set(true);
        (&near).write_all(b"transfer 10").unwrap();
        let error = (&far).read(&mut [0; 64]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidData);
    });
}
