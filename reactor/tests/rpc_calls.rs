//! Calls between two ends: many at once, in both directions, with payloads of every size, over every kind of
//! stream; and what the caller learns when the callee refuses, panics, or does not know the method.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use reactor::crypto::Identity;
use reactor::net::tls::{self, Expect};
use reactor::net::{Duplex, TcpListener, TcpStream, UnixStream, pipe};
use reactor::rpc::{CallError, CloseReason, Config, Connection, Method, PAYLOAD_SIZE_BYTES_MAX, Service};
use reactor::sim::{self, SimConfig};

macro_rules! method {
    ($name:ident, $id:literal, $request:ty, $response:ty, $error:ty $(, $reply_bytes:expr)?) => {
        struct $name;
        impl Method for $name {
            const ID: u32 = $id;
            const NAME: &'static str = stringify!($name);
            $(const REPLY_SIZE_BYTES_MAX: usize = $reply_bytes;)?
            type Request = $request;
            type Response = $response;
            type Error = $error;
        }
    };
}

method!(Echo, 1, u64, u64, ());
method!(Sleep, 2, u64, u64, String);
method!(Panic, 3, (), (), ());
method!(Refuse, 4, String, (), String);
method!(Unknown, 5, (), (), ());
method!(CallBack, 6, u64, u64, String);
method!(Large, 7, u64, u64, (), PAYLOAD_SIZE_BYTES_MAX + 16);

const SECOND: Duration = Duration::from_secs(10);

fn service() -> Rc<Service> {
    let mut service = Service::new();
    service
        .on::<Echo>(|_, number, payload| Ok((number, payload)))
        .on::<Large>(|_, number, payload| Ok((number, payload)))
        .on::<Sleep>(|_, ms, payload| {
            reactor::sleep(Duration::from_millis(ms));
            Ok((ms, payload))
        })
        .on::<Panic>(|_, (), _| panic!("this panic is part of a test"))
        .on::<Refuse>(|_, reason, _| Err(reason))
        .on::<CallBack>(|context, number, payload| {
            let back = context.connection().expect("the connection is held by the test");
            back.call::<Echo>(&(number + 1), payload, SECOND).map_err(|error| error.to_string())
        });
    Rc::new(service)
}

fn connect(near: impl Duplex, far: impl Duplex) -> (Connection, Connection) {
    let start = |stream| Connection::start(stream, service(), Config::default());
    let far = Connection::start(far, service(), Config::default());
    (start(near), far)
}

/// Bytes that differ from place to place and from seed to seed.
fn pattern(size: usize, seed: u64) -> Bytes {
    (0..size).map(|at| (at as u64).wrapping_mul(seed | 1).to_le_bytes()[1]).collect()
}

#[test]
fn every_kind_of_stream_carries_calls_with_payloads_of_every_size() {
    fn exercise(near: impl Duplex, far: impl Duplex) {
        let (near, _far) = connect(near, far);
        let part = 64 << 10;
        for size in [0, 1, 4_000, 5_000, part - 1, part, part + 1, 3 * part, 1 << 20, PAYLOAD_SIZE_BYTES_MAX]
        {
            let payload = pattern(size, 7);
            let (number, echoed) = near.call::<Large>(&(size as u64), payload.clone(), SECOND).unwrap();
            assert!(number == size as u64 && echoed == payload, "{size} bytes");
        }
    }
    reactor::run(|| {
        let (near, far) = pipe(100_000);
        exercise(near, far);
        let (near, far) = UnixStream::pair().unwrap();
        exercise(near, far);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let near = TcpStream::connect(address).unwrap();
        exercise(near, listener.accept().unwrap().0);

        let (client, server) = (Rc::new(Identity::generate()), Rc::new(Identity::generate()));
        let key = server.public_key();
        let accepting = reactor::spawn(move || tls::accept(listener.accept().unwrap().0, &server).unwrap());
        let near = tls::connect(TcpStream::connect(address).unwrap(), &client, Expect::Key(key)).unwrap();
        exercise(near, accepting.join().unwrap());
    });
}

#[test]
fn a_thousand_calls_at_once_in_both_directions_find_their_answers() {
    reactor::run(|| {
        let (near, far) = pipe(10_000);
        let (near, far) = connect(near, far);
        reactor::scope(|s| {
            for number in 0..1_000u64 {
                let connection = if number % 2 == 0 { &near } else { &far };
                s.spawn(move || {
                    let payload = pattern((number as usize * 37) % 9_000, number);
                    let answer = connection.call::<Echo>(&number, payload.clone(), SECOND).unwrap();
                    assert_eq!(answer, (number, payload));
                });
            }
        });
        assert_eq!((near.calls_in_flight(), far.calls_in_flight()), ((0, 0), (0, 0)));
    });
}

#[test]
fn answers_come_in_the_order_of_the_work_and_not_of_the_calls() {
    reactor::run(|| {
        let (near, far) = pipe(10_000);
        let (near, _far) = connect(near, far);
        let slow_is_done = Cell::new(false);
        reactor::scope(|s| {
            s.spawn(|| {
                near.call::<Sleep>(&200, Bytes::new(), SECOND).unwrap();
                slow_is_done.set(true);
            });
            s.spawn(|| {
                near.call::<Echo>(&1, Bytes::new(), SECOND).unwrap();
                assert!(!slow_is_done.get());
            });
        });
    });
}

#[test]
fn a_handler_may_call_back_over_the_same_connection() {
    reactor::run(|| {
        let (near, far) = pipe(10_000);
        let (near, _far) = connect(near, far);
        let answer = near.call::<CallBack>(&41, Bytes::from_static(b"there and back"), SECOND);
        assert_eq!(answer, Ok((42, Bytes::from_static(b"there and back"))));
    });
}

#[test]
fn the_caller_learns_what_went_wrong_and_the_connection_lives_on() {
    reactor::run(|| {
        let (near, far) = pipe(10_000);
        let (near, _far) = connect(near, far);
        let none = Bytes::new();
        assert_eq!(near.call::<Panic>(&(), none.clone(), SECOND), Err(CallError::Panicked));
        assert_eq!(near.call::<Unknown>(&(), none.clone(), SECOND), Err(CallError::UnknownMethod));
        let refused = near.call::<Refuse>(&"full".into(), none.clone(), SECOND);
        assert_eq!(refused, Err(CallError::Remote("full".into())));
        let payload = Bytes::from(vec![0; PAYLOAD_SIZE_BYTES_MAX + 1]);
        assert_eq!(near.call::<Echo>(&1, payload, SECOND), Err(CallError::RequestTooLarge));

        // The same number with other types: two versions that disagree.
        method!(OtherEcho, 1, String, u64, ());
        let error = near.call::<OtherEcho>(&"x".into(), none.clone(), SECOND).unwrap_err();
        assert!(matches!(error, CallError::Malformed(_)), "{error}");
        method!(OtherAnswer, 1, u64, String, ());
        let error = near.call::<OtherAnswer>(&1, none.clone(), SECOND).unwrap_err();
        assert!(matches!(error, CallError::Malformed(_)), "{error}");

        assert_eq!(near.call::<Echo>(&1, none, SECOND).unwrap().0, 1);
    });
}

#[test]
fn a_small_call_does_not_wait_for_large_ones() {
    // Where time passes for the pipe and for whoever waits, and not for what a busy machine does meanwhile.
    sim::run(1, SimConfig::default(), |_| {
        // A pipe of 1 MB/s or so in each direction: 16 KiB every 16 ms.
        let (near, slow_near) = pipe(1 << 14);
        let (slow_far, far) = pipe(1 << 14);
        let (slow_near, slow_far) = (Rc::new(slow_near), Rc::new(slow_far));
        for (from, to) in [(slow_near.clone(), slow_far.clone()), (slow_far, slow_near)] {
            reactor::spawn(move || {
                let mut buffer = vec![0; 1 << 14];
                while let Ok(count @ 1..) = from.read_some(&mut buffer) {
                    if count == buffer.len() {
                        reactor::sleep(Duration::from_millis(16));
                    }
                    let _ = to.write_slices(&mut [std::io::IoSlice::new(&buffer[..count])]);
                }
            });
        }
        let (near, _far) = connect(near, far);
        let large_are_done = Cell::new(0);
        reactor::scope(|s| {
            let mut large = Vec::new();
            for _ in 0..3 {
                large.push(s.spawn(|| {
                    near.call::<Large>(&1, pattern(1 << 20, 3), SECOND).unwrap();
                    large_are_done.set(large_are_done.get() + 1);
                }));
            }
            for _ in 0..3 {
                let start = reactor::now();
                near.call::<Echo>(&2, Bytes::new(), SECOND).unwrap();
                let took = reactor::now() - start;
                assert!(took < Duration::from_secs(1), "{took:?}");
            }
            assert_eq!(large_are_done.get(), 0);
            for call in &large {
                call.terminate();
            }
        });
    });
}

#[test]
fn closing_tells_both_sides_and_ends_what_is_in_flight() {
    reactor::run(|| {
        let (near, far) = pipe(10_000);
        let (near, far) = connect(near, far);
        let caller = near.clone();
        let waiting = reactor::spawn(move || caller.call::<Sleep>(&60_000, Bytes::new(), SECOND * 10));
        reactor::yield_now();
        near.close();
        assert!(near.is_closed());
        assert_eq!(waiting.join().unwrap(), Err(CallError::Closed));
        assert_eq!(far.wait_closed(), CloseReason::Remote);
        assert_eq!(near.wait_closed(), CloseReason::Local);
        assert_eq!(near.call::<Echo>(&1, Bytes::new(), SECOND), Err(CallError::NotSent));
    });
}

#[test]
fn what_was_answered_before_a_close_arrives_however_large_it_is() {
    reactor::run(|| {
        for drop_it in [false, true] {
            let done = Rc::new(reactor::sync::Barrier::new(false));
            let mut service = Service::new();
            let answering = done.clone();
            service.on::<Large>(move |_, number, _| {
                answering.open();
                Ok((number, Bytes::from(vec![7; 3 << 20])))
            });
            let (near, far) = pipe(10_000);
            let far = Connection::start(far, Rc::new(service), Config::default());
            let near = Connection::start(near, Service::none(), Config::default());
            let caller = near.clone();
            let waiting = reactor::spawn(move || caller.call::<Large>(&5, Bytes::new(), SECOND));
            done.wait();
            match drop_it {
                true => drop(far),
                false => far.close(),
            }
            let (number, payload) = waiting.join().unwrap().expect("it was answered");
            assert!(number == 5 && payload == vec![7; 3 << 20]);
            assert_eq!(near.wait_closed(), CloseReason::Remote);
        }
    });
}

#[test]
fn a_reply_that_is_longer_than_its_method_says_fails_the_call_and_nothing_else() {
    reactor::run(|| {
        let (near, far) = pipe(10_000);
        let (near, _far) = connect(near, far);
        let payload = Bytes::from(vec![1; 100_000]);
        assert_eq!(near.call::<Echo>(&1, payload, SECOND), Err(CallError::TooLarge));
        assert_eq!(near.call::<Echo>(&1, Bytes::new(), SECOND), Ok((1, Bytes::new())));
    });
}

#[test]
fn dropping_the_last_handle_closes_the_connection() {
    reactor::run(|| {
        let (near, far) = pipe(10_000);
        let (near, far) = connect(near, far);
        let second = near.clone();
        drop(near);
        assert!(second.call::<Echo>(&1, Bytes::new(), SECOND).is_ok());
        drop(second);
        assert_eq!(far.wait_closed(), CloseReason::Remote);
    });
}

#[test]
fn draining_lets_what_is_in_flight_finish_and_begins_nothing_new() {
    reactor::run(|| {
        let (near, far) = pipe(10_000);
        let (near, far) = connect(near, far);
        assert!(near.call::<Echo>(&1, Bytes::new(), SECOND).is_ok());
        let (caller, callee) = (near.clone(), far.clone());
        let slow = reactor::spawn(move || caller.call::<Sleep>(&50, Bytes::new(), SECOND));
        let back = reactor::spawn(move || callee.call::<Sleep>(&30, Bytes::new(), SECOND));
        while far.calls_in_flight() != (1, 1) {
            reactor::yield_now();
        }
        let draining = far.clone();
        let drained = reactor::spawn(move || draining.drain(SECOND));
        assert_eq!(far.call::<Echo>(&2, Bytes::new(), SECOND), Err(CallError::NotSent));
        while !near.is_closed() {
            reactor::yield_now();
        }
        assert_eq!(near.call::<Echo>(&2, Bytes::new(), SECOND), Err(CallError::NotSent));
        assert_eq!(near.calls_in_flight(), (1, 1), "what is in flight goes on");
        assert_eq!(slow.join().unwrap(), Ok((50, Bytes::new())));
        assert_eq!(back.join().unwrap(), Ok((30, Bytes::new())));
        drained.join().unwrap();
        assert_eq!(far.close_reason(), Some(CloseReason::Local));
        assert_eq!(near.wait_closed(), CloseReason::Remote);
    });
}

#[test]
fn a_drain_ends_with_its_patience_and_with_the_line() {
    reactor::run(|| {
        for lose_the_line in [false, true] {
            let (near, far) = pipe(10_000);
            let (near, far) = connect(near, far);
            let caller = near.clone();
            let hanging = reactor::spawn(move || caller.call::<Sleep>(&60_000, Bytes::new(), SECOND * 10));
            while far.calls_in_flight() != (0, 1) {
                reactor::yield_now();
            }
            let (draining, patience) = (far.clone(), if lose_the_line { 60_000 } else { 20 });
            let drained = reactor::spawn(move || draining.drain(Duration::from_millis(patience)));
            if lose_the_line {
                reactor::sleep(Duration::from_millis(5));
                near.close();
            }
            assert_eq!(hanging.join().unwrap(), Err(CallError::Closed));
            drained.join().unwrap();
            near.wait_closed();
        }
    });
}
