//! QUIC between two keys over loopback: streams behave as TCP's do, end apart, and never pass a part off as the whole;
//! RPC runs over one as it is, and an end leaves nothing behind.

mod quic_support;

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use quic_support::{MS, PATIENCE, Pair, bind, identity, pair, pattern, streams};
use reactor::net::quic::Endpoint;
use reactor::net::tls::Expect;
use reactor::net::{Duplex, UdpSocket};
use reactor::{now, rpc, run, select_timeout, spawn};

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

struct Echo;

impl rpc::Method for Echo {
    const ID: u32 = 1;
    const NAME: &'static str = "Echo";
    type Request = u64;
    type Response = u64;
    type Error = String;
}

#[test]
fn streams_are_waited_for_together_and_a_wait_takes_nothing() {
    run(|| {
        let pair = pair();
        let [(one, far_one), (two, mut far_two)] = [streams(&pair), streams(&pair)];
        let ready = || select_timeout(PATIENCE, &[&one, &two]);
        assert!(select_timeout(20 * MS, &[&one, &two]).is_err(), "nothing has come");
        far_two.write_all(b"two").unwrap();
        for _ in 0..3 {
            assert_eq!(ready(), Ok(1), "it stays ready until it is read");
        }
        let mut buffer = [0; 8];
        assert_eq!(two.read_some(&mut buffer).unwrap(), 3);
        // The end, and being broken off, are something to read too, and a look at them does not use them up.
        far_two.end().unwrap();
        assert_eq!((ready(), ready()), (Ok(1), Ok(1)));
        assert_eq!(two.read_some(&mut buffer).unwrap(), 0);
        drop(far_one);
        assert_eq!(select_timeout(PATIENCE, &[&one]), Ok(0));
        assert_eq!(one.read_some(&mut buffer).unwrap_err().kind(), ErrorKind::ConnectionReset);
        let (third, _far) = streams(&pair);
        pair.far.close();
        assert_eq!(select_timeout(PATIENCE, &[&third]), Ok(0), "the connection is gone");
        assert!(third.read_some(&mut buffer).is_err());
    });
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
