//! A client that outlives its connections: what happens to calls made while there is none, to those in flight when one
//! goes, and to the peer that is dialled again and again.

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use reactor::Backoff;
use reactor::cell::RefCell;
use reactor::net::{TcpListener, TcpStream};
use reactor::rpc::{
    CallContext, CallError, CallOptions, Config, Connection, Never, Reconnecting, Service, StreamSender,
};

reactor::service! {
    /// Counts how often it is asked.
    trait Counter = "counter" version 1, client CounterClient {
        /// Waits, then counts.
        fn add_slowly(&self, wait_ms: u64) -> Result<u64, Never> = 1 as AddSlowly;
        /// Waits, and counts how often that was begun; no harm in asking twice.
        fn look_slowly(&self, wait_ms: u64) -> Result<u64, Never> = 2 as LookSlowly, idempotent;
        /// Streams numbers.
        fn numbers(&self, to: u64, numbers: StreamSender<u64>) -> Result<(), Never> = 3 as Numbers;
    }
}

/// A server that can be stopped and started again at the same address.
#[derive(Default)]
struct Server {
    begun: Cell<u64>,
    connections: RefCell<Vec<Connection>>,
}

impl Counter for Server {
    fn add_slowly(&self, _: &CallContext, wait_ms: u64) -> Result<u64, Never> {
        self.begun.set(self.begun.get() + 1);
        reactor::sleep(Duration::from_millis(wait_ms));
        Ok(self.begun.get())
    }

    fn look_slowly(&self, call: &CallContext, wait_ms: u64) -> Result<u64, Never> {
        self.add_slowly(call, wait_ms)
    }

    fn numbers(&self, _: &CallContext, to: u64, numbers: StreamSender<u64>) -> Result<(), Never> {
        (0..to).for_each(|number| _ = numbers.send(&number));
        Ok(())
    }
}

impl Server {
    fn start(self: &Rc<Self>, address: &str) -> (reactor::JoinHandle<()>, String) {
        let listener = TcpListener::bind(address).expect("the address is free");
        let address = listener.local_addr().unwrap().to_string();
        let server = self.clone();
        let mut service = Service::new();
        server.clone().serve_on(&mut service);
        let service = Rc::new(service);
        let task = reactor::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                let connection = Connection::start(stream, service.clone(), Config::default());
                server.connections.borrow_mut().push(connection);
            }
        });
        (task, address)
    }

    fn stop(&self, task: reactor::JoinHandle<()>) {
        task.terminate();
        let _ = task.join();
        self.connections.take().iter().for_each(Connection::close);
    }
}

fn client(address: &str) -> (CounterClient<Reconnecting>, Reconnecting) {
    let address = address.to_owned();
    let backoff = Backoff::new(Duration::from_millis(2), Duration::from_millis(20));
    let client = Reconnecting::with_backoff(backoff, move || {
        let stream = TcpStream::connect(&*address)?;
        Ok(Connection::start(stream, Service::none(), Config::default()))
    });
    (CounterClient::new(client.clone()), client)
}

fn eventually(done: impl Fn() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < Duration::from_secs(60), "it never happened");
        reactor::sleep(Duration::from_millis(1));
    }
}

#[test]
fn calls_made_while_the_peer_is_down_wait_for_it_until_their_deadline() {
    reactor::run(|| {
        let server = Rc::new(Server::default());
        let (task, address) = server.start("127.0.0.1:0");
        let (counter, _) = client(&address);
        assert_eq!(counter.add_slowly(0), Ok(1));
        server.stop(task);
        let hasty = counter.with(CallOptions::timeout(Duration::from_millis(20)));
        eventually(|| hasty.add_slowly(0) == Err(CallError::TimedOut));
        let patient = counter.clone();
        let waiting = reactor::spawn(move || patient.add_slowly(0));
        reactor::sleep(Duration::from_millis(30));
        let (_task, _) = server.start(&address);
        assert_eq!(waiting.join().unwrap(), Ok(2));
    });
}

#[test]
fn a_call_in_flight_when_the_connection_goes_is_told_and_an_idempotent_one_is_repeated() {
    reactor::run(|| {
        let server = Rc::new(Server::default());
        let (task, address) = server.start("127.0.0.1:0");
        let (counter, _) = client(&address);
        let (one, other) = (counter.clone(), counter.clone());
        let adding = reactor::spawn(move || one.add_slowly(60_000));
        eventually(|| server.begun.get() == 1);
        let looking = reactor::spawn(move || other.look_slowly(100));
        eventually(|| server.begun.get() == 2);
        server.stop(task);
        assert_eq!(adding.join().unwrap(), Err(CallError::Disconnected));
        let (_task, _) = server.start(&address);
        assert_eq!(looking.join().unwrap(), Ok(3), "begun twice");
    });
}

#[test]
fn a_peer_that_drains_is_left_for_the_next_and_no_call_fails() {
    reactor::run(|| {
        let server = Rc::new(Server::default());
        let (_task, address) = server.start("127.0.0.1:0");
        let (counter, reconnecting) = client(&address);
        assert_eq!(counter.add_slowly(0), Ok(1));
        reactor::scope(|s| {
            for _ in 0..8 {
                s.spawn(|| (0..50).for_each(|_| assert!(counter.add_slowly(1).is_ok())));
            }
            for _ in 0..10 {
                reactor::sleep(Duration::from_millis(5));
                let draining = server.connections.take();
                draining.iter().for_each(|connection| connection.drain(Duration::from_secs(5)));
            }
        });
        assert_eq!(server.begun.get(), 401, "each was done exactly once");
        assert!(reconnecting.dial_count() > 2, "{}", reconnecting.dial_count());
    });
}

#[test]
fn calls_that_never_left_a_draining_connection_are_made_on_the_next() {
    reactor::run(|| {
        let server = Rc::new(Server::default());
        let (_task, address) = server.start("127.0.0.1:0");
        let (counter, _) = client(&address);
        assert_eq!(counter.add_slowly(0), Ok(1));
        reactor::scope(|s| {
            // More than may be in flight: some wait for their turn when the connection drains.
            let calls: Vec<_> = (0..400).map(|_| s.spawn(|| counter.add_slowly(20))).collect();
            eventually(|| server.begun.get() > 100);
            let draining = server.connections.take();
            draining.iter().for_each(|connection| connection.drain(Duration::from_secs(5)));
            for call in calls {
                assert!(call.join().unwrap().is_ok());
            }
        });
        assert_eq!(server.begun.get(), 401, "each was done exactly once");
    });
}

#[test]
fn a_stream_is_opened_on_the_next_connection_and_its_loss_is_told() {
    reactor::run(|| {
        let server = Rc::new(Server::default());
        let (task, address) = server.start("127.0.0.1:0");
        let (counter, _) = client(&address);
        let call = counter.numbers(1_000_000).unwrap();
        assert_eq!(call.recv(), Ok(Some(0)));
        server.stop(task);
        let broken = call.items().find_map(Result::err);
        assert!(broken.is_some(), "half of a stream is no stream");
        assert_eq!(call.finish(), Err(CallError::Closed));
        let (_task, _) = server.start(&address);
        let call = counter.numbers(3).unwrap();
        assert_eq!(call.items().collect::<Result<Vec<_>, _>>(), Ok(vec![0, 1, 2]));
        assert_eq!(call.finish(), Ok(()));
    });
}

#[test]
fn pauses_between_dials_grow_and_dropping_the_client_ends_them() {
    reactor::run(|| {
        let dials = Rc::new(RefCell::new(Vec::new()));
        let noted = dials.clone();
        let backoff = Backoff::new(Duration::from_millis(4), Duration::from_millis(64));
        let client = Reconnecting::with_backoff(backoff, move || {
            noted.borrow_mut().push(Instant::now());
            Err(std::io::ErrorKind::ConnectionRefused.into())
        });
        eventually(|| dials.borrow().len() == 6);
        let gaps: Vec<_> = dials.borrow().windows(2).map(|pair| pair[1] - pair[0]).collect();
        // Half of each is certain, the other half is chance: 2 to 4, 4 to 8, ... ms, and none is cut short.
        for (gap, least) in gaps.iter().zip([2, 4, 8, 16, 32]) {
            assert!(*gap >= Duration::from_millis(least), "{gaps:?}");
        }
        drop(client);
        let count = dials.borrow().len();
        reactor::sleep(Duration::from_millis(100));
        assert_eq!(dials.borrow().len(), count);
    });
}
