//! Everything at once over TLS: calls in both directions with payloads of random sizes, callers that are terminated
//! or run out of time at random moments, handlers that sleep, panic and call back. Whatever is answered must be
//! the right answer, and at the end nothing may be left over. The seed is printed; HYPHA_SEED replays it.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use reactor::crypto::Identity;
use reactor::net::tls::{self, Expect};
use reactor::net::{TcpListener, TcpStream};
use reactor::rpc::{CallError, Config, Connection, Method, Service};

struct Mix;
impl Method for Mix {
    const ID: u32 = 1;
    const NAME: &'static str = "mix";
    const REPLY_SIZE_BYTES_MAX: usize = (1 << 20) + 64;
    /// What to do, a number, and how many bytes to answer with.
    type Request = (u8, u64, u32);
    type Response = (u64, u64);
    type Error = u64;
}

/// SplitMix64 (Steele, Lea and Flood 2014).
fn next(state: &Cell<u64>) -> u64 {
    state.set(state.get().wrapping_add(0x9e37_79b9_7f4a_7c15));
    let mut z = state.get();
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn filled(number: u64, size: usize) -> Bytes {
    (0..size).map(|at| (number.wrapping_mul(at as u64 | 1) >> 7) as u8).collect()
}

fn sum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |sum: u64, &byte| sum.wrapping_mul(31).wrapping_add(byte.into()))
}

fn service() -> Rc<Service> {
    let mut service = Service::new();
    service.on::<Mix>(|context, (what, number, size), payload| {
        match what {
            0 => reactor::sleep(Duration::from_micros(number % 3_000)),
            1 => return Err(number),
            2 => panic!("this panic is part of a test"),
            3 => {
                let Some(back) = context.connection() else { return Err(number) };
                let answer = back.call::<Mix>(&(9, number, size / 2), payload.clone(), context.time_left());
                if let Ok((_, echoed)) = answer {
                    assert!(echoed == filled(number, size as usize / 2));
                }
            }
            _ => {}
        }
        Ok(((number, sum(&payload)), filled(number, size as usize)))
    });
    Rc::new(service)
}

#[test]
fn random_calls_over_tls_get_their_own_answers_and_leave_nothing_behind() {
    let seed = match std::env::var("HYPHA_SEED") {
        Ok(seed) => seed.parse().expect("HYPHA_SEED is a number"),
        Err(_) => u64::from_le_bytes(reactor::crypto::random_bytes()),
    };
    println!("HYPHA_SEED={seed}");
    // The panics of the handlers would fill the screen.
    std::panic::set_hook(Box::new(|panic| {
        if !panic.to_string().contains("part of a test") {
            eprintln!("{panic}");
        }
    }));
    reactor::run(move || {
        let (client, server) = (Rc::new(Identity::generate()), Rc::new(Identity::generate()));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let key = server.public_key();
        let accepting = reactor::spawn(move || tls::accept(listener.accept().unwrap().0, &server).unwrap());
        let near = tls::connect(TcpStream::connect(address).unwrap(), &client, Expect::Key(key)).unwrap();
        let near = Connection::start(near, service(), Config::default());
        let far = Connection::start(accepting.join().unwrap(), service(), Config::default());

        let random = Cell::new(seed);
        let (answered, given_up) = (Cell::new(0), Cell::new(0));
        reactor::scope(|s| {
            for caller in 0..24 {
                let (random, answered, given_up) = (&random, &answered, &given_up);
                let connection = if caller % 2 == 0 { &near } else { &far };
                s.spawn(move || {
                    for _ in 0..40 {
                        one_call(connection, random, answered, given_up);
                    }
                });
            }
        });
        println!("{} calls answered, {} given up", answered.get(), given_up.get());
        assert!(answered.get() > 100 && given_up.get() > 10);

        // Whatever was abandoned is cleared away by the time a call made after it is answered.
        for connection in [&near, &far] {
            connection.call::<Mix>(&(9, 0, 0), Bytes::new(), Duration::from_secs(20)).unwrap();
        }
        reactor::sleep(Duration::from_millis(20));
        assert_eq!((near.calls_in_flight(), far.calls_in_flight()), ((0, 0), (0, 0)));
        assert_eq!((near.close_reason(), far.close_reason()), (None, None));
    });
}

fn one_call(connection: &Connection, random: &Cell<u64>, answered: &Cell<u32>, given_up: &Cell<u32>) {
    let size = |random: &Cell<u64>| match next(random) % 4 {
        0 => 0,
        1 => next(random) % 100,
        2 => next(random) % 20_000,
        _ => next(random) % 400_000,
    };
    let (what, number) = ((next(random) % 8) as u8, next(random));
    let (request_size, response_size) = (size(random), size(random));
    let payload = filled(number, request_size as usize);
    let expected = (number, sum(&payload));
    let timeout = match next(random) % 4 {
        0 => Duration::from_micros(next(random) % 2_000),
        _ => Duration::from_secs(20),
    };
    let connection = connection.clone();
    let call = reactor::spawn(move || {
        connection.call::<Mix>(&(what, number, response_size as u32), payload, timeout)
    });
    if next(random).is_multiple_of(5) {
        for _ in 0..next(random) % 30 {
            reactor::yield_now();
        }
        call.terminate();
    }
    match call.join() {
        Ok(Ok((response, payload))) => {
            assert_eq!(response, expected);
            assert!(payload == filled(number, response_size as usize));
            answered.set(answered.get() + 1);
        }
        Ok(Err(CallError::Remote(refused))) => assert_eq!((what, refused), (1, number)),
        Ok(Err(CallError::Panicked)) => assert_eq!(what, 2),
        Ok(Err(CallError::TimedOut | CallError::Cancelled)) | Err(_) => given_up.set(given_up.get() + 1),
        Ok(Err(error)) => panic!("call {what}: {error}"),
    }
}
