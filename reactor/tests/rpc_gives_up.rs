//! Calls that nobody waits for any more: the callee's work must end too, or abandoned handlers pile up at a
//! node whose callers time out, which is just when it has too much to do.

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use reactor::net::pipe;
use reactor::rpc::{CallError, Config, Connection, Method, Service};

struct Hang;
impl Method for Hang {
    const ID: u32 = 1;
    const NAME: &'static str = "hang";
    type Request = ();
    type Response = ();
    type Error = ();
}

struct Big;
impl Method for Big {
    const ID: u32 = 2;
    const NAME: &'static str = "big";
    const REPLY_SIZE_BYTES_MAX: usize = (4 << 20) + 16;
    type Request = u32;
    type Response = ();
    type Error = ();
}

struct Small;
impl Method for Small {
    const ID: u32 = 3;
    const NAME: &'static str = "small";
    type Request = ();
    type Response = ();
    type Error = ();
}

/// What the callee has seen.
#[derive(Default)]
struct Seen {
    begun: Cell<u32>,
    ended: Cell<u32>,
    budget_ms: Cell<u128>,
}

struct CountEnd(Rc<Seen>);
impl Drop for CountEnd {
    fn drop(&mut self) {
        self.0.ended.set(self.0.ended.get() + 1);
    }
}

fn ends(config: Config) -> (Connection, Connection, Rc<Seen>) {
    let seen = Rc::new(Seen::default());
    let mut service = Service::new();
    let seen_by_handler = seen.clone();
    service.on::<Hang>(move |context, (), _| {
        seen_by_handler.begun.set(seen_by_handler.begun.get() + 1);
        let _end = CountEnd(seen_by_handler.clone());
        let left = context.deadline.unwrap().saturating_duration_since(Instant::now());
        seen_by_handler.budget_ms.set(left.as_millis());
        reactor::sleep(Duration::from_secs(3600));
        unreachable!("nobody waits that long");
    });
    service.on::<Big>(|_, size, _| Ok(((), Bytes::from(vec![1; size as usize]))));
    service.on::<Small>(|_, (), payload| Ok(((), payload)));
    let (near, far) = pipe(50_000);
    let far = Connection::start(far, Rc::new(service), config.clone());
    (Connection::start(near, Service::none(), config), far, seen)
}

/// Lets the other coroutines run until `done`.
fn eventually(done: impl Fn() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < Duration::from_secs(60), "it never happened");
        reactor::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_call_that_times_out_ends_at_the_callee_too() {
    reactor::run(|| {
        let (near, far, seen) = ends(Config::default());
        let error = near.call::<Hang>(&(), Bytes::new(), Duration::from_millis(50)).unwrap_err();
        assert_eq!(error, CallError::TimedOut);
        eventually(|| seen.ended.get() == 1);
        assert!((1..=51).contains(&seen.budget_ms.get()), "the deadline travels: {}", seen.budget_ms.get());
        assert_eq!(far.calls_in_flight(), (0, 0));
    });
}

#[test]
fn terminating_the_caller_reaches_the_callee() {
    reactor::run(|| {
        let (near, _far, seen) = ends(Config::default());
        let caller = near.clone();
        let caller = reactor::spawn(move || caller.call::<Hang>(&(), Bytes::new(), Duration::from_secs(60)));
        eventually(|| seen.begun.get() == 1);
        caller.terminate();
        eventually(|| seen.ended.get() == 1);
        assert_eq!(near.calls_in_flight(), (0, 0));
    });
}

#[test]
fn a_lost_connection_ends_the_handlers() {
    reactor::run(|| {
        let (near, far, seen) = ends(Config::default());
        let caller = near.clone();
        let caller = reactor::spawn(move || caller.call::<Hang>(&(), Bytes::new(), Duration::from_secs(60)));
        eventually(|| seen.begun.get() == 1);
        far.close();
        assert_eq!(caller.join().unwrap(), Err(CallError::Closed));
        eventually(|| seen.ended.get() == 1);
    });
}

#[test]
fn a_large_response_that_nobody_wants_stops_midway_and_leaves_the_line_clean() {
    reactor::run(|| {
        let (near, far, _seen) = ends(Config::default());
        let none = Bytes::new();
        for round in 0..200u64 {
            let caller = near.clone();
            let call = reactor::spawn(move || {
                caller.call::<Big>(&(4 << 20), Bytes::new(), Duration::from_secs(60)).map(drop)
            });
            // Somewhere in the middle, at a different place each time.
            for _ in 0..round {
                reactor::yield_now();
            }
            call.terminate();
            let _ = call.join();
        }
        let (_, payload) = near.call::<Big>(&1_000_000, none, Duration::from_secs(10)).unwrap();
        assert!(payload.len() == 1_000_000 && payload.iter().all(|&byte| byte == 1));
        assert_eq!((near.calls_in_flight(), far.calls_in_flight()), ((0, 0), (0, 0)));
    });
}

#[test]
fn a_large_request_given_up_midway_leaves_the_line_clean() {
    reactor::run(|| {
        let (near, far, _seen) = ends(Config::default());
        for round in 0..200u64 {
            let caller = near.clone();
            let call = reactor::spawn(move || {
                caller.call::<Big>(&3, Bytes::from(vec![9; 4 << 20]), Duration::from_secs(60)).map(drop)
            });
            for _ in 0..round {
                reactor::yield_now();
            }
            call.terminate();
            let _ = call.join();
        }
        let (_, payload) = near.call::<Big>(&5, Bytes::new(), Duration::from_secs(10)).unwrap();
        assert_eq!(payload.len(), 5);
        eventually(|| far.calls_in_flight() == (0, 0));
    });
}

#[test]
fn more_calls_than_may_be_in_flight_wait_their_turn_and_their_time() {
    reactor::run(|| {
        let (near, far, seen) = ends(Config::default());
        reactor::scope(|s| {
            let hanging: Vec<_> = (0..256)
                .map(|_| s.spawn(|| near.call::<Hang>(&(), Bytes::new(), Duration::from_secs(60))))
                .collect();
            eventually(|| seen.begun.get() == 256);
            let late = near.call::<Small>(&(), Bytes::new(), Duration::from_millis(50)).unwrap_err();
            assert_eq!(late, CallError::TimedOut);
            assert_eq!(far.calls_in_flight(), (0, 256));
            let (_, large) = near.call::<Big>(&9, Bytes::new(), Duration::from_secs(10)).unwrap();
            assert_eq!(large.len(), 9, "large calls have room of their own");
            hanging[0].terminate();
            near.call::<Small>(&(), Bytes::new(), Duration::from_secs(10)).unwrap();
            for call in &hanging {
                call.terminate();
            }
        });
        eventually(|| seen.ended.get() == 256);
    });
}
