//! What is half of a stream is not taken for the whole, and a stream lasts as long as both ends want it.

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use reactor::net::pipe;
use reactor::rpc::{
    Broken, CALL_TIME, CallContext, CallError, CallOptions, Config, Connection, Never, Service,
    StreamReceiver, StreamSender,
};
use reactor::sim::{self, SimConfig};

reactor::service! {
    trait Sums = "sums" version 1, client SumsClient {
        /// The sum of what comes.
        fn sum(&self, numbers: StreamReceiver<i64>) -> Result<i64, Never> = 1 as Sum;
        /// Sends nothing, and never ends.
        fn hang(&self, none: StreamSender<u64>) -> Result<(), Never> = 2 as Hang;
    }
}

/// Leaves the work to a coroutine that outlives the handler, and notes what that made of the stream.
#[derive(Default)]
struct Adder {
    taken: Rc<Cell<u32>>,
    sum: Rc<Cell<Option<i64>>>,
    ended: Rc<Cell<bool>>,
}

struct NoteEnd(Rc<Cell<bool>>);
impl Drop for NoteEnd {
    fn drop(&mut self) {
        self.0.set(true);
    }
}

impl Sums for Adder {
    fn sum(&self, _: &CallContext, numbers: StreamReceiver<i64>) -> Result<i64, Never> {
        let (taken, sum, end) = (self.taken.clone(), self.sum.clone(), NoteEnd(self.ended.clone()));
        let adder = reactor::spawn(move || {
            let _end = end;
            sum.set(Some(numbers.inspect(|_| taken.set(taken.get() + 1)).sum()));
        });
        let _ = adder.join();
        Ok(self.sum.get().unwrap_or_default())
    }

    fn hang(&self, _: &CallContext, _: StreamSender<u64>) -> Result<(), Never> {
        reactor::sleep(Duration::MAX);
        Ok(())
    }
}

struct Ends {
    adder: Rc<Adder>,
    client: SumsClient,
    far: Connection,
}

fn ends() -> Ends {
    let adder = Rc::new(Adder::default());
    let mut service = Service::new();
    adder.clone().serve_on(&mut service);
    let (near, far) = pipe(100_000);
    let far = Connection::start(far, Rc::new(service), Config::default());
    let client = SumsClient::new(Connection::start(near, Service::none(), Config::default()));
    Ends { adder, client, far }
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
fn half_of_a_stream_is_never_taken_for_the_whole() {
    reactor::run(|| {
        for is_lost in [false, true] {
            let Ends { adder, client, far } = ends();
            let call = client.sum().unwrap();
            (1..=3).for_each(|number| call.send(&number).unwrap());
            eventually(|| adder.taken.get() == 3);
            if is_lost {
                far.close();
                assert_eq!(call.finish(), Err(CallError::Closed));
            } else {
                assert_eq!(call.finish(), Ok(6));
            }
            eventually(|| adder.ended.get());
            assert_eq!(adder.sum.get(), if is_lost { None } else { Some(6) });
        }
    });
}

#[test]
fn a_stream_outlives_the_time_of_a_call_unless_it_is_told_a_time() {
    sim::run(1, SimConfig::default(), |world| {
        let asked = world.host("alone").start(|| {
            let ends = ends();
            let call = ends.client.hang().unwrap();
            let waited = reactor::timeout(10 * CALL_TIME, || call.recv());
            assert!(waited.is_err(), "{waited:?}");
            let hasty = ends.client.with(CallOptions::timeout(CALL_TIME)).hang().unwrap();
            assert_eq!(hasty.recv(), Err(CallError::TimedOut));
        });
        asked.wait();
    });
}

/// How a receiver that outlives its handler sees the stream come to its end.
#[derive(Default)]
struct Witness {
    saw: Rc<Cell<Option<Result<(), Broken>>>>,
    answers_early: bool,
}

impl Sums for Witness {
    fn sum(&self, _: &CallContext, numbers: StreamReceiver<i64>) -> Result<i64, Never> {
        let saw = self.saw.clone();
        let watch = move || {
            let end = loop {
                match numbers.recv() {
                    Ok(Some(_)) => {}
                    Ok(None) => break Ok(()),
                    Err(broken) => break Err(broken),
                }
            };
            saw.set(Some(end));
        };
        let watching = reactor::spawn(watch);
        if !self.answers_early {
            let _ = watching.join();
        }
        Ok(0)
    }

    fn hang(&self, _: &CallContext, _: StreamSender<u64>) -> Result<(), Never> {
        Ok(())
    }
}

#[test]
fn the_end_a_lost_peer_a_cancel_and_an_early_answer_are_four_values() {
    reactor::run(|| {
        type Ending = fn(reactor::rpc::StreamCall<Sum>, &Connection);
        let cases: [(Result<(), Broken>, Ending); 4] = [
            (Ok(()), |call, _| _ = call.finish()),
            (Err(Broken::Cancelled), |call, _| drop(call)),
            (Err(Broken::Lost), |call, near| {
                near.close();
                drop(call);
            }),
            (Err(Broken::Answered), |call, _| assert_eq!(call.recv().map(drop), Ok(()))),
        ];
        for (expected, end) in cases {
            let witness = Witness { answers_early: expected == Err(Broken::Answered), ..Witness::default() };
            let saw = witness.saw.clone();
            let mut service = Service::new();
            Rc::new(witness).serve_on(&mut service);
            let (near, far) = pipe(100_000);
            let _far = Connection::start(far, Rc::new(service), Config::default());
            let near = Connection::start(near, Service::none(), Config::default());
            let call = SumsClient::new(near.clone()).sum().unwrap();
            call.send(&1).unwrap();
            reactor::sleep(Duration::from_millis(1));
            end(call, &near);
            eventually(|| saw.get().is_some());
            assert_eq!(saw.get(), Some(expected));
        }
    });
}
