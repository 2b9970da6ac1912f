//! Calls that stream: in either direction, under windows, many at once, given up by either side, beside small calls
//! that they may not starve.

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use reactor::cell::RefCell;
use reactor::net::{Duplex, Pipe, pipe};
use reactor::rpc::frame::{ANNOUNCE, FrameError, HEADER_SIZE_BYTES, Header, PREFACE, Side};
use reactor::rpc::hello::{FEATURES, Hello};
use reactor::rpc::window::STREAM_WINDOW_BYTES;
use reactor::rpc::{
    CallContext, CallError, CallInfo, CallOptions, CloseReason, Config, Connection, Never, Priority, Reply,
    STREAMS_MAX, Service, Stopped, StreamReceiver, StreamSender,
};

reactor::service! {
    /// Streams of every kind.
    trait Flows = "flows" version 1, client FlowsClient {
        /// Counts up, and says at the end how far.
        fn count(&self, to: u64, numbers: StreamSender<u64>) -> Result<u64, String> = 1 as Count;
        /// Sums up; refuses negative numbers at once.
        fn sum(&self, numbers: StreamReceiver<i64>) -> Result<i64, String> = 2 as Sum;
        /// Sends back what comes, in capitals.
        fn shout(&self, words: StreamReceiver<String>, loud: StreamSender<String>) -> Result<(), Never>
            = 3 as Shout;
        /// Sends bytes until nobody wants them.
        fn pour(&self, size: u32, bytes: StreamSender<Bytes>) -> Result<u64, Never> = 4 as Pour;
        /// Takes so many items and goes on for a while without more.
        fn sip(&self, items: StreamReceiver<Bytes>, count: u64) -> Result<u64, Never> = 5 as Sip;
        /// Not a stream.
        fn echo(&self, number: u64) -> Result<u64, Never> = 6 as Echo;
        /// Panics after an item.
        fn fail(&self, numbers: StreamSender<u64>) -> Result<(), Never> = 7 as Fail;
        /// Never takes, never answers.
        fn hang(&self, items: StreamReceiver<Bytes>, none: StreamSender<u64>) -> Result<(), Never>
            = 8 as Hang;
    }
}

#[derive(Default)]
struct Server {
    sent: Cell<u64>,
    ended: Rc<Cell<u32>>,
}

struct CountEnd(Rc<Cell<u32>>);
impl Drop for CountEnd {
    fn drop(&mut self) {
        self.0.set(self.0.get() + 1);
    }
}

impl Flows for Server {
    fn count(&self, _: &CallContext, to: u64, numbers: StreamSender<u64>) -> Result<u64, String> {
        let _end = CountEnd(self.ended.clone());
        for number in 0..to {
            if numbers.send(&number).is_err() {
                return Err(format!("stopped at {number}"));
            }
        }
        Ok(to)
    }

    fn sum(&self, _: &CallContext, numbers: StreamReceiver<i64>) -> Result<i64, String> {
        let mut sum = 0;
        while let Some(number) = numbers.recv().unwrap() {
            if number < 0 {
                return Err("negative".to_owned());
            }
            sum += number;
        }
        Ok(sum)
    }

    fn shout(
        &self,
        _: &CallContext,
        words: StreamReceiver<String>,
        loud: StreamSender<String>,
    ) -> Result<(), Never> {
        for word in words {
            let _ = loud.send(&word.to_uppercase());
        }
        Ok(())
    }

    fn pour(&self, _: &CallContext, size: u32, bytes: StreamSender<Bytes>) -> Result<u64, Never> {
        let _end = CountEnd(self.ended.clone());
        let item = Bytes::from(vec![7; size as usize]);
        while bytes.send(&item).is_ok() {
            self.sent.set(self.sent.get() + 1);
        }
        Ok(self.sent.get())
    }

    fn sip(&self, _: &CallContext, items: StreamReceiver<Bytes>, count: u64) -> Result<u64, Never> {
        let taken = (0..count).map_while(|_| items.recv().unwrap()).count();
        drop(items);
        reactor::sleep(Duration::from_millis(20));
        Ok(taken as u64)
    }

    fn echo(&self, _: &CallContext, number: u64) -> Result<u64, Never> {
        Ok(number)
    }

    fn fail(&self, _: &CallContext, numbers: StreamSender<u64>) -> Result<(), Never> {
        let _ = numbers.send(&1);
        panic!("this panic is part of a test");
    }

    fn hang(&self, _: &CallContext, items: StreamReceiver<Bytes>, _: StreamSender<u64>) -> Result<(), Never> {
        let _end = CountEnd(self.ended.clone());
        reactor::sleep(Duration::from_secs(3600));
        drop(items);
        Ok(())
    }
}

struct Ends {
    client: FlowsClient,
    near: Connection,
    far: Connection,
    server: Rc<Server>,
}

fn connect(near: impl Duplex, far: impl Duplex) -> Ends {
    let server = Rc::new(Server::default());
    let mut service = Service::new();
    server.clone().serve_on(&mut service);
    let far = Connection::start(far, Rc::new(service), Config::default());
    let near = Connection::start(near, Service::none(), Config::default());
    Ends { client: FlowsClient::new(near.clone()), near, far, server }
}

fn ends() -> Ends {
    let (near, far) = pipe(100_000);
    connect(near, far)
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
fn a_server_streams_and_ends_with_its_response() {
    reactor::run(|| {
        let ends = ends();
        let call = ends.client.count(50_000).unwrap();
        let mut expected = 0;
        while let Some(number) = call.recv().unwrap() {
            assert_eq!(number, expected);
            expected += 1;
        }
        assert_eq!((expected, call.finish()), (50_000, Ok(50_000)));
        assert_eq!((ends.near.calls_in_flight(), ends.far.calls_in_flight()), ((0, 0), (0, 0)));
    });
}

#[test]
fn a_client_streams_and_gets_one_response() {
    reactor::run(|| {
        let ends = ends();
        let call = ends.client.sum().unwrap();
        (1..=20_000).for_each(|number| call.send(&number).unwrap());
        assert_eq!(call.finish(), Ok(200_010_000));
    });
}

#[test]
fn both_sides_stream_at_once_from_different_coroutines() {
    reactor::run(|| {
        let ends = ends();
        let call = ends.client.shout().unwrap();
        let heard = reactor::scope(|s| {
            s.spawn(|| {
                (0..5_000).for_each(|n| call.send(&format!("word {n}")).unwrap());
                call.end();
            });
            let mut heard = 0;
            while let Some(word) = call.recv().unwrap() {
                assert_eq!(word, format!("WORD {heard}"));
                heard += 1;
            }
            heard
        });
        assert_eq!((heard, call.finish()), (5_000, Ok(())));
    });
}

#[test]
fn a_stream_that_ends_with_an_error_gives_it_to_the_caller() {
    reactor::run(|| {
        let ends = ends();
        let call = ends.client.sum().unwrap();
        call.send(&-1).unwrap();
        eventually(|| call.send(&1) == Err(Stopped));
        assert_eq!(call.finish(), Err(CallError::Remote("negative".to_owned())));
        let call = ends.client.fail().unwrap();
        assert_eq!((call.recv(), call.recv()), (Ok(Some(1)), Err(CallError::Panicked)));
        assert_eq!(call.finish(), Err(CallError::Panicked));
        assert_eq!(ends.client.echo(1), Ok(1), "the connection lives on");
    });
}

#[test]
fn a_reader_that_takes_nothing_stops_its_sender_at_the_window_and_nobody_else() {
    reactor::run(|| {
        let ends = ends();
        let stuck = ends.client.pour(1000).unwrap();
        reactor::sleep(Duration::from_millis(50));
        let sent = ends.server.sent.get();
        let fits = (STREAM_WINDOW_BYTES / 1000) as u64;
        assert!(sent > fits / 2 && sent <= fits, "{sent} items of 1,000 bytes");
        let call = ends.client.count(100_000).unwrap();
        assert_eq!(call.items().map(Result::unwrap).count(), 100_000);
        assert_eq!(ends.server.sent.get(), sent, "the stuck one has not moved");
        assert_eq!(stuck.recv().unwrap().unwrap().len(), 1000);
    });
}

#[test]
fn giving_the_call_up_ends_the_handler_and_frees_the_line() {
    reactor::run(|| {
        let ends = ends();
        for round in 0..100u32 {
            let call = ends.client.pour(20_000).unwrap_or_else(|error| {
                panic!("{error}: {:?} {:?}", ends.near.close_reason(), ends.far.close_reason())
            });
            for _ in 0..=round % 10 {
                assert!(call.recv().unwrap().is_some());
            }
            drop(call);
            eventually(|| ends.server.ended.get() == round + 1);
        }
        assert_eq!(ends.client.echo(1), Ok(1));
        assert_eq!((ends.near.calls_in_flight(), ends.far.calls_in_flight()), ((0, 0), (0, 0)));
    });
}

#[test]
fn a_call_given_up_before_it_left_is_never_begun() {
    reactor::run(|| {
        let ends = ends();
        assert_eq!(ends.client.count(1).unwrap().finish(), Ok(1));
        drop(ends.client.pour(20_000).unwrap());
        assert_eq!(ends.client.echo(1), Ok(1));
        assert_eq!((ends.server.sent.get(), ends.far.calls_in_flight()), (0, (0, 0)));
    });
}

#[test]
fn finishing_early_stops_the_servers_stream_and_still_gives_its_response() {
    reactor::run(|| {
        let ends = ends();
        let call = ends.client.pour(10).unwrap();
        assert!(call.recv().unwrap().is_some());
        assert!(call.finish().unwrap() > 0);
        let call = ends.client.count(1_000_000).unwrap();
        assert_eq!(call.recv(), Ok(Some(0)));
        let stopped = call.finish().unwrap_err();
        assert!(matches!(stopped, CallError::Remote(reason) if reason.starts_with("stopped at")));
    });
}

#[test]
fn a_server_that_takes_no_more_stops_the_callers_stream_and_still_responds() {
    reactor::run(|| {
        let ends = ends();
        let call = ends.client.sip(3).unwrap();
        let item = Bytes::from(vec![1; 10_000]);
        let sent = (0..1_000).take_while(|_| call.send(&item).is_ok()).count();
        assert!((3..1_000).contains(&sent), "{sent}");
        assert_eq!(call.finish(), Ok(3));
    });
}

#[test]
fn the_deadline_bounds_a_stream_that_hangs_at_both_ends() {
    reactor::run(|| {
        let ends = ends();
        let hasty = ends.client.with(CallOptions::timeout(Duration::from_millis(30)));
        for wait_for_item in [false, true] {
            let call = hasty.hang().unwrap();
            if wait_for_item {
                assert_eq!(call.recv(), Err(CallError::TimedOut));
            }
            assert_eq!(call.finish(), Err(CallError::TimedOut));
        }
        let call = hasty.hang().unwrap();
        let item = Bytes::from(vec![0; 60_000]);
        while call.send(&item).is_ok() {}
        assert_eq!(call.finish(), Err(CallError::TimedOut));
        eventually(|| ends.server.ended.get() == 3);
    });
}

#[test]
fn a_lost_connection_ends_streams_at_both_ends() {
    reactor::run(|| {
        let ends = ends();
        let call = ends.client.hang().unwrap();
        eventually(|| ends.far.calls_in_flight() == (0, 1));
        ends.far.close();
        assert_eq!(call.recv(), Err(CallError::Closed));
        assert_eq!(call.finish(), Err(CallError::Closed));
        eventually(|| ends.server.ended.get() == 1);
    });
}

#[test]
fn many_streams_share_a_connection_and_more_than_may_be_open_wait_their_turn() {
    reactor::run(|| {
        let ends = ends();
        reactor::scope(|s| {
            for to in 0..2 * STREAMS_MAX as u64 + 10 {
                let client = &ends.client;
                s.spawn(move || {
                    let call = client.count(to).unwrap();
                    assert_eq!(call.items().map(Result::unwrap).count() as u64, to);
                    assert_eq!(call.finish(), Ok(to));
                });
            }
        });
        assert_eq!((ends.near.calls_in_flight(), ends.far.calls_in_flight()), ((0, 0), (0, 0)));
    });
}

/// A line of about 2 MB/s: 4 KiB every 2 ms.
fn slow_line() -> (Pipe, Pipe) {
    let (near, slow_near) = pipe(1 << 12);
    let (slow_far, far) = pipe(1 << 12);
    let (slow_near, slow_far) = (Rc::new(slow_near), Rc::new(slow_far));
    for (from, to) in [(slow_near.clone(), slow_far.clone()), (slow_far, slow_near)] {
        reactor::spawn(move || {
            let mut buffer = vec![0; 1 << 12];
            while let Ok(count @ 1..) = from.read_some(&mut buffer) {
                if count > 1024 {
                    reactor::sleep(Duration::from_millis(2));
                }
                let _ = to.write_slices(&mut [std::io::IoSlice::new(&buffer[..count])]);
            }
        });
    }
    (near, far)
}

#[test]
fn bulk_streams_starve_neither_small_calls_nor_each_other() {
    reactor::run(|| {
        let (near, far) = slow_line();
        let ends = connect(near, far);
        let low = CallOptions::timeout(Duration::from_secs(60)).priority(Priority::Low);
        let calls: Vec<_> = (0..6)
            .map(|at| {
                let options = if at < 3 { low.clone() } else { low.clone().priority(Priority::Normal) };
                ends.client.with(options).pour(30_000).unwrap()
            })
            .collect();
        let taken = RefCell::new([0; 6]);
        reactor::scope(|s| {
            let readers: Vec<_> = calls
                .iter()
                .enumerate()
                .map(|(at, call)| {
                    let taken = &taken;
                    s.spawn(move || {
                        while call.recv().unwrap().is_some() {
                            taken.borrow_mut()[at] += 1;
                        }
                    })
                })
                .collect();
            let high = CallOptions::default().priority(Priority::High);
            for number in 0..5 {
                let at_begin: i32 = taken.borrow().iter().sum();
                assert_eq!(ends.client.with(high.clone()).echo(number), Ok(number));
                let meanwhile = taken.borrow().iter().sum::<i32>() - at_begin;
                // It waits behind one batch, which holds some nine of those items, and what the kernel's pipe would.
                assert!(meanwhile <= 30, "{meanwhile} items of 30 KB overtook a small call");
            }
            eventually(|| taken.borrow().iter().all(|&taken| taken > 2));
            let taken = *taken.borrow();
            let (low, normal): (i32, i32) = (taken[..3].iter().sum(), taken[3..].iter().sum());
            assert!(low < normal, "{taken:?}");
            readers.iter().for_each(|reader| reader.terminate());
        });
    });
}

#[test]
fn a_peer_that_leaves_the_window_is_cut_off_with_the_reason() {
    reactor::run(|| {
        let ends = ends();
        let (near, raw) = pipe(1 << 20);
        let server = ends.server.clone();
        let mut service = Service::new();
        server.serve_on(&mut service);
        let victim = Connection::start(near, Rc::new(service), Config::default());
        let say = |bytes: &[u8]| raw.write_slices(&mut [std::io::IoSlice::new(bytes)]);
        say(&reactor::rpc::frame::PREFACE).unwrap();
        let priority = Priority::Normal;
        let open = Header::Open {
            call: 3,
            method: 8,
            timeout_ms: 60_000,
            metadata_size: 0,
            message_size: 1,
            priority,
        };
        say(&[&open.encode()[..], &[0xc0]].concat()).unwrap();
        let item = Header::Item { side: Side::Request, call: 3, size: 50_000 };
        for _ in 0..6 {
            let _ = say(&[&item.encode()[..], &[0; 50_000]].concat());
        }
        assert_eq!(victim.wait_closed(), CloseReason::Protocol(FrameError::WindowExceeded { call: 3 }));
    });
}

#[test]
fn more_streams_than_a_peer_may_open_are_refused_and_items_for_nobody_are_dropped() {
    reactor::run(|| {
        let (near, raw) = pipe(1 << 20);
        let mut service = Service::new();
        Rc::new(Server::default()).serve_on(&mut service);
        let victim = Connection::start(near, Rc::new(service), Config::default());
        let say = |bytes: &[u8]| raw.write_slices(&mut [std::io::IoSlice::new(bytes)]).unwrap();
        say(&reactor::rpc::frame::PREFACE);
        for call in 0..2 * STREAMS_MAX as u32 {
            let priority = Priority::Normal;
            let open = Header::Open {
                call,
                method: 8,
                timeout_ms: 60_000,
                metadata_size: 0,
                message_size: 1,
                priority,
            };
            say(&[&open.encode()[..], &[0xc0]].concat());
        }
        let last = 2 * STREAMS_MAX as u32 - 1;
        say(&[&Header::Item { side: Side::Request, call: last, size: 5 }.encode()[..], b"12345"].concat());
        say(&Header::Credit { side: Side::Response, call: last, bytes: u32::MAX }.encode());
        say(&Header::Stop { side: Side::Response, call: last }.encode());
        say(&Header::End { call: last }.encode());
        eventually(|| victim.calls_in_flight() == (0, STREAMS_MAX));
        assert!(!victim.is_closed());
    });
}

#[test]
fn a_method_of_one_kind_is_unknown_as_the_other() {
    reactor::run(|| {
        let ends = ends();
        let unary = ends.near.call::<Count>(&1, Bytes::new(), Duration::from_secs(10));
        assert_eq!(unary, Err(CallError::UnknownMethod));
        reactor::service! {
            trait Other = "other" version 1, client OtherClient {
                fn echo(&self, number: u64, out: StreamSender<u64>) -> Result<u64, Never> = 6 as OtherEcho;
                fn sum(&self, words: StreamReceiver<String>) -> Result<i64, String> = 2 as OtherSum;
            }
        }
        let other = OtherClient::new(ends.near.clone());
        assert_eq!(other.echo(1).unwrap().finish(), Err(CallError::UnknownMethod));
        let call = other.sum().unwrap();
        call.send(&"no number".to_owned()).unwrap();
        assert!(matches!(call.finish(), Err(CallError::Malformed(_))));
    });
}

#[test]
fn openings_that_an_interceptor_denies_or_repeats_take_no_place() {
    reactor::run(|| {
        let mut service = Service::new();
        Rc::new(Server::default()).serve_on(&mut service);
        let (near, far) = pipe(1 << 16);
        let _far = Connection::start(far, Rc::new(service), Config::default());
        let denied = Rc::new(Cell::new(true));
        let denies = denied.clone();
        let config = Config::default().around(move |_: &CallInfo<'_>, next: &mut dyn FnMut() -> Reply| {
            let (_first, second) = (next(), next());
            if denies.get() { Reply::Denied("it is tried first".to_owned()) } else { second }
        });
        let client = FlowsClient::new(Connection::start(near, Service::none(), config));
        let hasty = client.with(CallOptions::timeout(Duration::from_secs(20)));
        for _ in 0..2 * STREAMS_MAX {
            assert!(matches!(hasty.count(3), Err(CallError::Denied(_))));
        }
        denied.set(false);
        let call = hasty.count(3).expect("there is a place");
        assert_eq!(call.items().collect::<Result<Vec<_>, _>>(), Ok(vec![0, 1, 2]));
        assert_eq!(call.finish(), Ok(3));
    });
}

#[test]
fn a_call_made_behind_an_opening_arrives_behind_it() {
    reactor::run(|| {
        let (near, raw) = pipe(1 << 20);
        let client = FlowsClient::new(Connection::start(near, Service::none(), Config::default()));
        let hello = reactor::serialization::to_bytes(&Hello { version: 2, features: FEATURES });
        let announce = Header::Cancel { call: ANNOUNCE }.encode();
        let header = Header::Hello { message_size: hello.len() as u32 }.encode();
        raw.write_slices(&mut [std::io::IoSlice::new(&[&PREFACE[..], &announce, &header, &hello].concat())])
            .unwrap();
        let sip = || {
            let caller = client.clone();
            reactor::spawn(move || drop(caller.sip(1).map(|call| call.finish())))
        };
        let mut kinds = Vec::new();
        read_exactly(&raw, &mut [0; PREFACE.len()]);
        let mut opened = vec![sip()];
        while kinds.len() < 3 {
            let mut header = [0; HEADER_SIZE_BYTES];
            read_exactly(&raw, &mut header);
            let header = Header::decode(&header).unwrap();
            let mut message = vec![0; header.message_size()];
            read_exactly(&raw, &mut message);
            match header {
                Header::Open { .. } => {
                    kinds.push("open");
                    if kinds.len() == 1 {
                        // Now that the peer's hello has come, a call can begin at once.
                        opened.push(sip());
                        let caller = client.clone();
                        opened.push(reactor::spawn(move || _ = caller.echo(1)));
                    }
                }
                Header::Request { .. } => kinds.push("request"),
                _ => {}
            }
        }
        assert_eq!(kinds, ["open", "open", "request"]);
        opened.iter().for_each(reactor::JoinHandle::terminate);
    });
}

fn read_exactly(stream: &Pipe, mut target: &mut [u8]) {
    while !target.is_empty() {
        let count = stream.read_some(target).unwrap();
        assert_ne!(count, 0, "it ended");
        target = &mut target[count..];
    }
}
