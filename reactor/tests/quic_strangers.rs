//! QUIC and everybody else on its socket: peers with another key, peers that nobody has accepted, junk, forged senders,
//! STUN and packets of our own, and a router that lends a peer another port.

mod quic_support;

use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use quic_support::{MS, PATIENCE, bind, identity, pair, pattern, streams};
use reactor::nat::stun::{self, Datagrams, Timing};
use reactor::net::quic::{Endpoint, Share};
use reactor::net::tls::Expect;
use reactor::net::{Duplex, UdpSocket, all_addresses};
use reactor::{now, run, spawn};

#[test]
fn who_was_not_accepted_costs_little_and_gets_all_its_room_when_it_is() {
    run(|| {
        let (own, other) = (identity(), identity());
        let (client, server) = (bind(&own), bind(&other));
        let connection = client.connect(server.local_addr().unwrap(), Expect::Any).unwrap();
        let stream = connection.open().unwrap();
        // Nothing may be written that the peer has no room for.
        stream.set_write_deadline(Some(now() + 300 * MS));
        let (sent, mut size) = (pattern(9 << 20), 0);
        let stuck = loop {
            match (&stream).write(&sent[size..]) {
                Ok(count) => size += count,
                Err(error) => break error.kind(),
            }
        };
        assert_eq!((stuck, size <= (256 << 10)), (ErrorKind::TimedOut, true), "{size} bytes");
        stream.set_write_deadline(None);
        let writing = spawn(move || {
            (&stream).write_all(&sent[size..]).unwrap();
            stream.end().unwrap();
        });
        let sent = pattern(9 << 20);
        let mut came = Vec::new();
        server.accept().unwrap().accept().unwrap().read_to_end(&mut came).unwrap();
        assert!(came == sent);
        writing.join().unwrap();
    });
}

#[test]
fn a_client_answers_nobody_and_a_socket_for_both_families_reaches_ipv4() {
    run(|| {
        let other = identity();
        let server = bind(&other);
        let Ok(client) = Endpoint::client("[::]:0".parse().unwrap(), &identity()) else {
            return eprintln!("SKIPPED: quic_streams' socket for both families: there is no IPv6 here");
        };
        let connection =
            client.connect(server.local_addr().unwrap(), Expect::Key(other.public_key())).unwrap();
        assert_eq!(connection.remote_addr(), server.local_addr().unwrap());
        let address = SocketAddr::from(([127, 0, 0, 1], client.local_addr().unwrap().port()));
        let stranger = bind(&identity());
        let answered =
            reactor::timeout(Duration::from_secs(1), || stranger.connect(address, Expect::Any).map(drop));
        assert!(answered.is_err());
    });
}

#[test]
fn a_peer_that_holds_another_key_is_refused_by_whom_it_was_dialled() {
    run(|| {
        let (own, other, third) = (identity(), identity(), identity());
        let (client, server) = (bind(&own), Rc::new(bind(&other)));
        let accepting = spawn({
            let server = server.clone();
            move || server.accept().unwrap().peer()
        });
        let address = server.local_addr().unwrap();
        for expect in [Expect::Key(third.public_key()), Expect::Fingerprint(third.public_key().fingerprint())]
        {
            let error = client.connect(address, expect).err().unwrap();
            assert_eq!(error.kind(), ErrorKind::InvalidData);
            assert!(error.to_string().contains("another key"), "{error}");
        }
        // Nobody was let in meanwhile who is not there.
        let connection = client.connect(address, Expect::Any).unwrap();
        assert_eq!(connection.peer(), other.public_key());
        assert_eq!(accepting.join().unwrap(), own.public_key());
    });
}

#[test]
fn addresses_that_no_peer_can_have_are_refused_at_once() {
    run(|| {
        let client = bind(&identity());
        for to in ["127.0.0.1:0", "0.0.0.0:5", "224.0.0.1:5", "[::1]:5"] {
            let error = client.connect(to.parse().unwrap(), Expect::Any).err().unwrap();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{to}");
        }
    });
}

#[test]
fn junk_and_other_protocols_end_nothing_and_stun_shares_the_socket() {
    run(|| {
        let pair = pair();
        let address = pair.client.local_addr().unwrap();
        let stranger = UdpSocket::bind("127.0.0.1:0").unwrap();
        for first in 0..=u8::MAX {
            for size in [1, 20, 1200] {
                let mut junk = pattern(size);
                junk[0] = first;
                stranger.send_to(&junk, address).unwrap();
            }
        }
        pair.client.answer_stun();
        let other = bind(&identity());
        let answers = other.lane(Share::StunAnswers);
        let answer = stun::ask(&answers, address, Timing::default()).unwrap();
        assert_eq!(answer.mapped, other.local_addr().unwrap());
        // At every address of the machine an endpoint answers from the one that was asked.
        for all in ["0.0.0.0:0".parse().unwrap(), all_addresses(0)] {
            let everywhere = Endpoint::bind(all, &identity()).unwrap();
            everywhere.answer_stun();
            let port = everywhere.local_addr().unwrap().port();
            for ip in [[127, 0, 0, 1], [127, 0, 0, 2]] {
                stun::ask(&answers, (ip, port).into(), Timing::default()).unwrap();
            }
        }

        let (control, echo) = (other.lane(Share::Control), pair.client.lane(Share::Control));
        control.send(b"\x04ours", address).unwrap();
        let mut buffer = [0; 100];
        loop {
            // The junk above began with such bytes too.
            let (size, from) = echo.receive(&mut buffer, now() + PATIENCE).unwrap();
            if buffer[..size] == *b"\x04ours" {
                break assert_eq!(from, other.local_addr().unwrap());
            }
        }
        let late = control.receive(&mut buffer, now() + 5 * MS).unwrap_err();
        assert_eq!(late.kind(), ErrorKind::TimedOut);
        streams(&pair);
    });
}

/// Passes datagrams on between a client and a server, from whichever socket is the outside one at the time: a router.
struct Router {
    inside: UdpSocket,
    outside: reactor::cell::RefCell<Rc<UdpSocket>>,
    server: SocketAddr,
    client: std::cell::Cell<Option<SocketAddr>>,
    /// Bytes towards the server, and back.
    carried: std::cell::Cell<(usize, usize)>,
}

impl Router {
    fn new(server: SocketAddr) -> Rc<Router> {
        Rc::new(Router {
            inside: UdpSocket::bind("127.0.0.1:0").unwrap(),
            outside: reactor::cell::RefCell::new(Rc::new(UdpSocket::bind("127.0.0.1:0").unwrap())),
            server,
            client: std::cell::Cell::new(None),
            carried: std::cell::Cell::new((0, 0)),
        })
    }

    fn forward(&self, datagrams_max: usize) {
        let mut buffer = [0; 2000];
        for _ in 0..datagrams_max {
            let (size, from) = self.inside.recv_from(&mut buffer).unwrap();
            self.client.set(Some(from));
            self.carried.set((self.carried.get().0 + size, self.carried.get().1));
            let outside = self.outside.borrow().clone();
            outside.send_to(&buffer[..size], self.server).unwrap();
        }
    }

    fn back(&self) {
        let outside = self.outside.borrow().clone();
        let mut buffer = [0; 2000];
        loop {
            let (size, _) = outside.recv_from(&mut buffer).unwrap();
            self.carried.set((self.carried.get().0, self.carried.get().1 + size));
            self.inside.send_to(&buffer[..size], self.client.get().unwrap()).unwrap();
        }
    }
}

#[test]
fn a_connection_goes_on_when_the_router_lends_the_peer_another_port() {
    run(|| {
        let (own, other) = (identity(), identity());
        let (client, server) = (bind(&own), Rc::new(bind(&other)));
        let router = Router::new(server.local_addr().unwrap());
        let to = router.inside.local_addr().unwrap();
        let (forth, back) = (router.clone(), router.clone());
        let forth = spawn(move || forth.forward(usize::MAX));
        let first = spawn(move || back.back());
        let accepting = spawn({
            let server = server.clone();
            move || server.accept().unwrap()
        });
        let near = client.connect(to, Expect::Key(other.public_key())).unwrap();
        let far = accepting.join().unwrap();
        let was = far.remote_addr();
        assert_eq!(was, router.outside.borrow().local_addr().unwrap());

        let mut stream = near.open().unwrap();
        stream.write_all(b"before").unwrap();
        let mut there = far.accept().unwrap();
        there.read_exact(&mut [0; 6]).unwrap();
        // The router forgets; what comes to the old port goes nowhere.
        let fresh = Rc::new(UdpSocket::bind("127.0.0.1:0").unwrap());
        let now_at = fresh.local_addr().unwrap();
        *router.outside.borrow_mut() = fresh;
        first.terminate();
        let again = router.clone();
        let second = spawn(move || again.back());
        stream.write_all(b"behind").unwrap();
        let mut behind = [0; 6];
        reactor::timeout(PATIENCE, || there.read_exact(&mut behind).unwrap()).unwrap();
        there.write_all(b"answer").unwrap();
        reactor::timeout(PATIENCE, || stream.read_exact(&mut behind).unwrap()).unwrap();
        assert_eq!((&behind, far.remote_addr()), (b"answer", now_at));
        forth.terminate();
        second.terminate();
    });
}

#[test]
fn an_address_that_has_proved_nothing_is_sent_at_most_three_times_its_bytes() {
    run(|| {
        let other = identity();
        let server = Rc::new(bind(&other));
        let router = Router::new(server.local_addr().unwrap());
        let to = router.inside.local_addr().unwrap();
        let client = bind(&identity());
        // One datagram gets through, and no answer comes back: the sender's address was forged.
        let forth = router.clone();
        let forth = spawn(move || forth.forward(1));
        let seen = router.clone();
        let swallowing = spawn(move || {
            let outside = seen.outside.borrow().clone();
            while let Ok((size, _)) = outside.recv_from(&mut [0; 2000]) {
                seen.carried.set((seen.carried.get().0, seen.carried.get().1 + size));
            }
        });
        // Long enough for the server to try again and again.
        let connecting =
            reactor::timeout(Duration::from_secs(2), || client.connect(to, Expect::Any).map(drop));
        assert!(connecting.is_err());
        forth.join().unwrap();
        swallowing.terminate();
        let (asked, answered) = router.carried.get();
        assert!(answered > 0 && answered <= 3 * asked, "{answered} bytes for {asked}");
    });
}
