//! A STUN client and server talk over loopback and over a lossy simulated network, and neither believes a stranger.
//!
//! What can go wrong: a lost packet costs the answer, a packet of somebody else's is taken for it, junk keeps the client
//! waiting beyond its time or ends the server.

use std::cell::Cell;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use reactor::nat::behaviour::{Dependence, DiscoveryError, discover};
use reactor::nat::stun::{
    AskError, BINDING, Builder, Change, Class, Datagrams, DiscoveryServer, Message, Origins, Place, Question,
    Timing, TransactionId, answer, ask, ask_for, serve,
};
use reactor::net::UdpSocket;
use reactor::sim::{self, Latency, Link, SimConfig};
use reactor::{now, run, sleep, spawn};

const MS: Duration = Duration::from_millis(1);

/// Answers in time on a busy machine, and is given up in a moment where nobody answers.
fn short() -> Timing {
    Timing { first: 50 * MS, tries: 3, last: 2 }
}

fn local() -> UdpSocket {
    UdpSocket::bind("127.0.0.1:0").unwrap()
}

/// At the first pair of ports that is free at both addresses.
fn discovery_server() -> DiscoveryServer {
    let addresses: [IpAddr; 2] = ["127.0.0.1".parse().unwrap(), "127.0.0.2".parse().unwrap()];
    for _ in 0..100 {
        let free = [local(), local()].map(|socket| socket.local_addr().unwrap().port());
        if let Ok(server) = DiscoveryServer::bind(Origins { addresses, ports: free }) {
            return server;
        }
    }
    panic!("no two ports are free at both addresses");
}

#[test]
fn a_server_of_discovery_answers_from_all_four_of_its_places() {
    run(|| {
        let server = discovery_server();
        let first = server.address();
        let serving = spawn(move || server.serve());
        // Bound to loopback, a socket may not talk to the other address of it on every system; this one may.
        let client = UdpSocket::bind("0.0.0.0:0").unwrap();
        let port = client.local_addr().unwrap().port();
        let answer = ask(&client, first, Timing::default()).unwrap();
        assert_eq!(answer.mapped.port(), port);
        let other = answer.other.unwrap();
        assert_eq!((first.ip() != other.ip(), first.port() != other.port()), (true, true));
        let places = [
            (Change::PORT, SocketAddr::new(first.ip(), other.port())),
            (Change { address: true, port: false }, SocketAddr::new(other.ip(), first.port())),
            (Change::BOTH, other),
        ];
        for (change, answered_from) in places {
            let question = Question { server: first, change, answered_from };
            assert_eq!(ask_for(&client, question, Timing::default()).unwrap().mapped.port(), port);
        }
        serving.terminate();
    });
}

#[test]
fn where_nothing_translates_discovery_says_so() {
    run(|| {
        let server = discovery_server();
        let address = server.address();
        let serving = spawn(move || server.serve());
        let found = discover(address).unwrap();
        assert!(!found.is_translated() && found.preserves_port(), "{found}");
        assert_eq!((found.mapping, found.filtering), (Dependence::Independent, Dependence::Independent));
        assert_eq!((found.hairpin, found.local.ip()), (None, address.ip()));
        serving.terminate();

        let plain = local();
        let address = plain.local_addr().unwrap();
        let serving = spawn(move || serve(&plain));
        assert!(matches!(discover(address), Err(DiscoveryError::NoOtherAddress(_))));
        serving.terminate();
    });
}

#[test]
fn places_that_cannot_be_told_apart_are_refused() {
    run(|| {
        let (one, two) = ("127.0.0.1".parse().unwrap(), "127.0.0.2".parse().unwrap());
        for (addresses, ports) in [
            ([one, one], [1, 2]),
            ([one, two], [3, 3]),
            ([one, "::1".parse().unwrap()], [1, 2]),
            (["0.0.0.0".parse().unwrap(), two], [1, 2]),
            ([one, two], [0, 1]),
        ] {
            let error = DiscoveryServer::bind(Origins { addresses, ports }).err().unwrap();
            assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
        }
    });
}

#[test]
fn a_server_with_one_socket_refuses_what_it_cannot_do_and_goes_on() {
    run(|| {
        let server = local();
        let address = server.local_addr().unwrap();
        let serving = spawn(move || serve(&server));
        let client = local();
        for junk in [&b""[..], b"\0", b"\0\x01\0\x04\x21\x12\xa4\x42 twelve bytes", &[0xff; 1500]] {
            client.send_to(junk, address).unwrap();
        }
        let question = Question { server: address, change: Change::PORT, answered_from: address };
        assert!(matches!(ask_for(&client, question, Timing::default()), Err(AskError::Refused(420))));
        let answer = ask(&client, address, Timing::default()).unwrap();
        assert_eq!((answer.mapped, answer.other), (client.local_addr().unwrap(), None));
        serving.terminate();
    });
}

#[test]
fn forged_reflected_and_foreign_answers_are_not_believed_and_do_not_prolong_the_wait() {
    run(|| {
        let (server, stranger, client) = (local(), local(), local());
        let (address, to) = (server.local_addr().unwrap(), client.local_addr().unwrap());
        let attack = spawn(move || {
            let mut buffer = [0; 1500];
            let success = |transaction: TransactionId| {
                Builder::new(Class::Success, BINDING, transaction)
                    .mapped_address("203.0.113.9:9".parse().unwrap())
                    .finish()
            };
            let mut last = TransactionId([0; 12]);
            loop {
                let (size, from) = server.recv_from(&mut buffer).unwrap();
                let transaction = Message::parse(&buffer[..size]).unwrap().transaction();
                assert_eq!(from, to);
                // The right bits from another's address; the server's address with other bits; the request itself; junk.
                stranger.send_to(&success(transaction), from).unwrap();
                last.0[0] = last.0[0].wrapping_add(1);
                server.send_to(&success(last), from).unwrap();
                server.send_to(&buffer[..size], from).unwrap();
                server.send_to(&[0xff; 100], from).unwrap();
            }
        });
        assert!(matches!(ask(&client, address, short()), Err(AskError::Silence)));
        attack.terminate();
    });
}

/// Always has a packet of somebody else's at hand, and can't send at times.
struct Flooded {
    sent_count: Cell<u32>,
    unsent: Option<rustix::io::Errno>,
}

impl Datagrams for Flooded {
    fn send(&self, _: &[u8], _: SocketAddr) -> std::io::Result<()> {
        self.sent_count.set(self.sent_count.get() + 1);
        self.unsent.map_or(Ok(()), |errno| Err(errno.into()))
    }

    fn receive(&self, buffer: &mut [u8], deadline: Instant) -> std::io::Result<(usize, SocketAddr)> {
        assert!(now() < deadline + Duration::from_secs(60), "it reads on beyond its time");
        buffer[..3].copy_from_slice(b"ad!");
        Ok((3, "192.0.2.1:3478".parse().unwrap()))
    }
}

#[test]
fn who_is_flooded_without_a_pause_still_asks_again_and_gives_up_in_time() {
    run(|| {
        let flooded = Flooded { sent_count: Cell::new(0), unsent: None };
        let asked =
            ask(&flooded, "192.0.2.1:3478".parse().unwrap(), Timing { first: 5 * MS, tries: 3, last: 2 });
        assert!(matches!(asked, Err(AskError::Silence)));
        assert_eq!(flooded.sent_count.get(), 3);
    });
}

#[test]
fn a_send_that_fails_is_a_lost_packet_unless_it_can_never_succeed() {
    use rustix::io::Errno;
    run(|| {
        let timing = Timing { first: MS, tries: 3, last: 1 };
        for (errno, sent_count) in [(Errno::NETUNREACH, 3), (Errno::NOBUFS, 3), (Errno::AFNOSUPPORT, 1)] {
            let flooded = Flooded { sent_count: Cell::new(0), unsent: Some(errno) };
            let asked = ask(&flooded, "192.0.2.1:3478".parse().unwrap(), timing);
            assert!(matches!(asked, Err(AskError::Socket(_))), "{asked:?}");
            assert_eq!(flooded.sent_count.get(), sent_count, "{errno:?}");
        }
    });
}

#[test]
fn a_server_does_not_leave_it_to_the_kernel_from_which_address_it_answers() {
    run(|| {
        let everywhere = UdpSocket::bind("0.0.0.0:0").unwrap();
        assert_eq!(serve(&everywhere).unwrap_err().kind(), std::io::ErrorKind::InvalidInput);
    });
}

#[test]
fn a_client_that_was_terminated_leaves_a_socket_that_waits_as_before() {
    run(|| {
        let (silent, client) = (local(), std::rc::Rc::new(local()));
        let (address, shared) = (silent.local_addr().unwrap(), client.clone());
        let asking = spawn(move || ask(&*shared, address, short()).map(drop));
        asking.terminate_and_wait().unwrap_err();
        let to = client.local_addr().unwrap();
        spawn(move || {
            // Beyond all that the question would have waited.
            sleep(400 * MS);
            silent.send_to(b"late", to).unwrap();
        });
        assert_eq!(client.recv_from(&mut [0; 8]).unwrap().0, 4);
    });
}

#[test]
fn requests_are_sent_again_until_one_comes_through_and_no_longer_than_the_rfc_says() {
    for seed in 0..20 {
        sim::run(seed, SimConfig::default(), |world| {
            world.link_all(Link { loss: 0.2, ..Link::new(Latency::Constant(20 * MS)) });
            let (server, client) = (world.host("server"), world.host("client"));
            let address = SocketAddr::new(server.address(), 3478);
            server.start(move || serve(&UdpSocket::bind(address).unwrap()).map(drop).unwrap());
            let expected = client.address();
            let asked = client.start(move || {
                let socket = UdpSocket::bind("0.0.0.0:4000").unwrap();
                let begun = now();
                match ask(&socket, address, Timing::default()) {
                    Ok(answer) => assert_eq!(answer.mapped, SocketAddr::new(expected, 4000)),
                    // All seven lost: one in a thousand, and no seed of these.
                    Err(error) => panic!("seed {seed}: {error}"),
                }
                assert!(now() - begun < Duration::from_millis(39_500));
            });
            asked.wait();
            world.partition(&server, &client);
            let given_up = client.start(move || {
                let socket = UdpSocket::bind("0.0.0.0:4001").unwrap();
                let begun = now();
                assert!(matches!(ask(&socket, address, Timing::default()), Err(AskError::Silence)));
                assert_eq!(now() - begun, Duration::from_millis(39_500));
            });
            given_up.wait();
        });
    }
}

#[test]
fn two_servers_cannot_be_set_upon_each_other() {
    let from = "203.0.113.7:3478".parse().unwrap();
    let request = Builder::new(Class::Request, BINDING, TransactionId([1; 12])).change(Change::PORT).finish();
    let plain = Builder::new(Class::Request, BINDING, TransactionId([1; 12])).finish();
    let addresses = ["192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap()];
    let origins = Origins { addresses, ports: [1, 2] };
    for at in [None, Some((&origins, Place::ALL[0]))] {
        for asked in [&request, &plain] {
            let (said, _) = answer(asked, from, at).unwrap();
            assert_eq!(answer(&said, from, at), None);
        }
    }
}
