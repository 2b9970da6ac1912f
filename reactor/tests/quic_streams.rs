//! QUIC between two keys over loopback: streams behave as TCP's do, end apart, and never pass a part off as the whole;
//! strangers, junk and moved peers are dealt with; STUN uses the same socket, and RPC runs over a stream as it is.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use reactor::crypto::Identity;
use reactor::nat::stun::{self, Datagrams, Timing};
use reactor::net::quic::{Connection, Endpoint, Share, Stream};
use reactor::net::tls::Expect;
use reactor::net::{Duplex, UdpSocket};
use reactor::rpc;
use reactor::{now, run, spawn};

const MS: Duration = Duration::from_millis(1);

/// For what must come: a hang becomes a failure.
const PATIENCE: Duration = Duration::from_secs(60);

fn bind(identity: &Rc<Identity>) -> Endpoint {
    Endpoint::bind("127.0.0.1:0".parse().unwrap(), identity).unwrap()
}

fn identity() -> Rc<Identity> {
    Rc::new(Identity::generate())
}

/// Two endpoints and a connection between them, as each end has it.
struct Pair {
    near: Connection,
    far: Connection,
    client: Endpoint,
    _server: Rc<Endpoint>,
}

fn pair() -> Pair {
    let (own, other) = (identity(), identity());
    let (client, server) = (bind(&own), Rc::new(bind(&other)));
    let address = server.local_addr().unwrap();
    let accepting = spawn({
        let server = server.clone();
        move || server.accept().unwrap()
    });
    let near = client.connect(address, Expect::Key(other.public_key())).unwrap();
    let far = accepting.join().unwrap();
    assert_eq!((near.peer(), far.peer()), (other.public_key(), own.public_key()));
    Pair { near, far, client, _server: server }
}

/// A stream, as each end has it; the first byte has been read.
fn streams(pair: &Pair) -> (Stream, Stream) {
    let mut near = pair.near.open().unwrap();
    near.write_all(b"!").unwrap();
    let mut far = pair.far.accept().unwrap();
    far.read_exact(&mut [0]).unwrap();
    (near, far)
}

fn pattern(size: usize) -> Vec<u8> {
    (0..size).map(|at| (at * 31 % 251) as u8).collect()
}

#[test]
fn megabytes_go_both_ways_at_once_over_many_streams_and_arrive_as_they_were() {
    run(|| {
        let pair = pair();
        let far = pair.far.clone();
        let echoing = spawn(move || {
            reactor::scope(|s| {
                for _ in 0..8 {
                    let stream = far.accept().unwrap();
                    s.spawn(move || {
                        let mut buffer = vec![0; 100_000];
                        loop {
                            let size = stream.read_some(&mut buffer).unwrap();
                            if size == 0 {
                                return stream.end().unwrap();
                            }
                            (&stream).write_all(&buffer[..size]).unwrap();
                        }
                    });
                }
            });
        });
        reactor::scope(|s| {
            for number in 0..8 {
                let stream = pair.near.open().unwrap();
                s.spawn(move || {
                    let sent = pattern(1_000_000 + number);
                    reactor::scope(|s| {
                        s.spawn(|| {
                            (&stream).write_all(&sent).unwrap();
                            stream.end().unwrap();
                        });
                        let mut came = Vec::new();
                        (&stream).read_to_end(&mut came).unwrap();
                        assert!(came == sent, "stream {number}");
                    });
                });
            }
        });
        echoing.join().unwrap();
        assert!(pair.near.mtu() >= 1200 && pair.near.round_trip() > Duration::ZERO);
    });
}

#[test]
fn what_was_ended_arrives_even_if_everything_is_dropped_at_once() {
    run(|| {
        let (own, other) = (identity(), identity());
        let (client, server) = (bind(&own), bind(&other));
        let connection = {
            let address = server.local_addr().unwrap();
            let connecting = spawn(move || {
                let connection =
                    client.connect(address, Expect::Fingerprint(other.public_key().fingerprint())).unwrap();
                let mut stream = connection.open().unwrap();
                stream.write_all(&pattern(300_000)).unwrap();
                stream.end().unwrap();
                // Stream, connection and endpoint go here.
            });
            let connection = server.accept().unwrap();
            connecting.join().unwrap();
            connection
        };
        // Until the peer's goodbye has come too.
        reactor::sleep(50 * MS);
        let mut came = Vec::new();
        connection.accept().unwrap().read_to_end(&mut came).unwrap();
        assert_eq!(came, pattern(300_000));
        assert_eq!(connection.accept().err().unwrap().kind(), ErrorKind::ConnectionAborted);
    });
}

#[test]
fn each_direction_ends_apart_and_nothing_follows_an_end() {
    run(|| {
        let pair = pair();
        let (mut near, mut far) = streams(&pair);
        near.write_all(b"question").unwrap();
        near.shutdown(Shutdown::Write).unwrap();
        near.shutdown(Shutdown::Write).unwrap();
        assert_eq!(near.write(b"more").unwrap_err().kind(), ErrorKind::BrokenPipe);
        let mut question = String::new();
        far.read_to_string(&mut question).unwrap();
        assert_eq!((question.as_str(), far.read(&mut [0; 8]).unwrap()), ("question", 0));
        far.write_all(b"answer").unwrap();
        far.end().unwrap();
        let mut answer = String::new();
        near.read_to_string(&mut answer).unwrap();
        assert_eq!(answer, "answer");
    });
}

#[test]
fn a_stream_that_was_not_ended_is_reset_and_one_that_is_not_wanted_is_refused() {
    run(|| {
        let pair = pair();
        let (near, far) = streams(&pair);
        // The coroutine that has it is terminated in the middle of its message.
        let writing = spawn(move || {
            (&near).write_all(b"half of").unwrap();
            let _ = near.read_some(&mut [0]);
        });
        reactor::yield_now();
        writing.terminate_and_wait().unwrap_err();
        let mut came = Vec::new();
        let error = (&far).read_to_end(&mut came).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        assert!(b"half of".starts_with(&came));
        // It wants no more of ours either.
        let mut refused = Ok(());
        while refused.is_ok() {
            refused = (&far).write_all(&[0; 1000]);
        }
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::BrokenPipe);
        // The connection is as good as before.
        streams(&pair);
    });
}

#[test]
fn streams_that_one_side_gives_up_make_room_for_others() {
    run(|| {
        let pair = pair();
        let far = pair.far.clone();
        let serving = spawn(move || {
            while let Ok(stream) = far.accept() {
                spawn(move || {
                    // Until the client wants no more, or for good.
                    while (&stream).write_all(&[0; 1000]).is_ok() {
                        reactor::sleep(MS);
                    }
                });
            }
        });
        // More than may be open at once; each is given up while the server writes.
        for number in 0..300 {
            let opened = reactor::timeout(PATIENCE, || pair.near.open());
            let mut stream = opened.unwrap_or_else(|_| panic!("stream {number} got no place")).unwrap();
            stream.write_all(b"?").unwrap();
            stream.read_exact(&mut [0; 100]).unwrap();
        }
        serving.terminate();
    });
}

#[test]
fn waits_end_at_their_deadlines_and_when_the_connection_goes() {
    run(|| {
        let pair = pair();
        let (near, far) = streams(&pair);
        near.set_read_deadline(Some(now() + 5 * MS));
        assert_eq!(near.read_some(&mut [0]).unwrap_err().kind(), ErrorKind::TimedOut);
        near.set_read_deadline(None);
        // Nobody reads: the windows fill.
        near.set_write_deadline(Some(now() + 200 * MS));
        let chunk = vec![0; 1 << 20];
        let stuck =
            (0..64).find_map(|_| (&near).write_all(&chunk).err()).expect("the windows are below 64 MiB");
        assert_eq!(stuck.kind(), ErrorKind::TimedOut);
        near.set_write_deadline(None);

        let waiting = [
            spawn({
                let far = pair.far.clone();
                move || far.accept().err().map(|error| error.kind())
            }),
            spawn(move || {
                let mut rest = Vec::new();
                (&far).read_to_end(&mut rest).err().map(|error| error.kind())
            }),
        ];
        reactor::yield_now();
        pair.near.close();
        assert_eq!((&near).write(b"x").unwrap_err().kind(), ErrorKind::NotConnected);
        assert_eq!(pair.near.open().err().unwrap().kind(), ErrorKind::NotConnected);
        for waiting in waiting {
            let ended = reactor::timeout(PATIENCE, || waiting.join().unwrap()).unwrap();
            // Where the goodbye is lost among the megabytes, the next packet is answered by a reset.
            assert!(
                matches!(ended, Some(ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset)),
                "{ended:?}"
            );
        }
    });
}

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
fn addresses_that_no_peer_can_have_are_refused_at_once_and_silence_in_time() {
    run(|| {
        let client = bind(&identity());
        for to in ["127.0.0.1:0", "0.0.0.0:5", "224.0.0.1:5", "[::1]:5"] {
            let error = client.connect(to.parse().unwrap(), Expect::Any).err().unwrap();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{to}");
        }
        let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
        let to = silent.local_addr().unwrap();
        let waited = reactor::timeout(50 * MS, || client.connect(to, Expect::Any).map(drop));
        assert!(waited.is_err());
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
        let everywhere = Endpoint::bind("0.0.0.0:0".parse().unwrap(), &identity()).unwrap();
        everywhere.answer_stun();
        let port = everywhere.local_addr().unwrap().port();
        for ip in [[127, 0, 0, 1], [127, 0, 0, 2]] {
            stun::ask(&answers, (ip, port).into(), Timing::default()).unwrap();
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
    outside: std::cell::RefCell<Rc<UdpSocket>>,
    server: SocketAddr,
    client: std::cell::Cell<Option<SocketAddr>>,
    /// Bytes towards the server, and back.
    carried: std::cell::Cell<(usize, usize)>,
}

impl Router {
    fn new(server: SocketAddr) -> Rc<Router> {
        Rc::new(Router {
            inside: UdpSocket::bind("127.0.0.1:0").unwrap(),
            outside: std::cell::RefCell::new(Rc::new(UdpSocket::bind("127.0.0.1:0").unwrap())),
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

struct Echo;

impl rpc::Method for Echo {
    const ID: u32 = 1;
    const NAME: &'static str = "Echo";
    type Request = u64;
    type Response = u64;
    type Error = String;
}

#[test]
fn rpc_runs_over_a_stream_as_it_does_over_tcp() {
    run(|| {
        let pair = pair();
        let key = pair.far.peer();
        let far = pair.far.clone();
        let serving = spawn(move || {
            let mut service = rpc::Service::new();
            service.on::<Echo>(|_, number, payload| Ok((number + 1, payload)));
            let stream = far.accept().unwrap();
            assert_eq!(stream.peer_key(), Some(key));
            rpc::Connection::start(stream, Rc::new(service), rpc::Config::default()).wait_closed();
        });
        let stream = pair.near.open().unwrap();
        let caller = rpc::Connection::start(stream, Rc::new(rpc::Service::new()), rpc::Config::default());
        reactor::scope(|s| {
            for number in 0..50 {
                let caller = &caller;
                s.spawn(move || {
                    let payload = Bytes::from(pattern(number as usize * 1000));
                    let (answer, same) = caller.call::<Echo>(&number, payload.clone(), PATIENCE).unwrap();
                    assert!(answer == number + 1 && same == payload);
                });
            }
        });
        drop(caller);
        reactor::timeout(PATIENCE, || serving.join().unwrap()).unwrap();
    });
}

#[test]
fn closing_an_endpoint_delivers_what_was_ended_and_ends_the_rest() {
    run(|| {
        let pair = pair();
        let (near, far) = streams(&pair);
        let in_use = streams(&pair);
        let reading = spawn(move || {
            let mut came = Vec::new();
            (&far).read_to_end(&mut came).map(|_| came.len())
        });
        (&near).write_all(&pattern(400_000)).unwrap();
        near.end().unwrap();
        let Pair { near: connection, client, .. } = pair;
        let address = client.local_addr().unwrap();
        reactor::timeout(PATIENCE, || client.close()).unwrap();
        assert_eq!(connection.open().err().unwrap().kind(), ErrorKind::NotConnected);
        assert_eq!(reading.join().unwrap().unwrap(), 400_000);
        // The socket lives until the last who held a connection lets go.
        drop((near, in_use, connection));
        let freed = reactor::timeout(PATIENCE, || {
            while UdpSocket::bind(address).is_err() {
                reactor::sleep(MS);
            }
        });
        freed.unwrap();
    });
}

#[test]
fn a_run_that_ends_in_the_middle_leaves_no_socket_behind() {
    // At addresses that nobody else's sockets are at.
    let (own, other) = (SocketAddr::from(([127, 0, 7, 1], 0)), SocketAddr::from(([127, 0, 7, 2], 0)));
    let bound = run(|| {
        let identity = identity();
        let server = Endpoint::bind(other, &identity).unwrap();
        let client = Endpoint::bind(own, &identity).unwrap();
        let bound = [server.local_addr().unwrap(), client.local_addr().unwrap()];
        // Both are in the middle of something, and drop what they have only after the endpoints have ended.
        spawn(move || {
            let connection = server.accept().unwrap();
            let stream = connection.accept().unwrap();
            let _ = (&stream).read_to_end(&mut Vec::new());
        });
        spawn(move || {
            let connection = client.connect(bound[0], Expect::Any).unwrap();
            let mut stream = connection.open().unwrap();
            stream.write_all(&pattern(100_000)).unwrap();
            let _ = stream.read(&mut [0]);
        });
        reactor::sleep(100 * MS);
        bound
    });
    for address in bound {
        std::net::UdpSocket::bind(address)
            .unwrap_or_else(|error| panic!("{address} is still bound: {error}"));
    }
}
