//! Bugs that show only in some order of events are found by trying seeds, shrunk to what they need, told as a story,
//! and come back when replayed.

use std::collections::VecDeque;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use reactor::cell::RefCell;
use reactor::net::UdpSocket;
use reactor::sim::{self, Kind, Latency, Link, SimConfig, World};
use reactor::sync::Signal;
use reactor::{now, sleep, spawn, yield_now};

const MS: Duration = Duration::from_millis(1);

/// A queue with a mistake: between looking and waiting it lets others run, who may notify nobody.
#[derive(Default)]
struct LeakyQueue {
    values: RefCell<VecDeque<u32>>,
    filled: Signal,
}

impl LeakyQueue {
    fn push(&self, value: u32) {
        self.values.borrow_mut().push_back(value);
        self.filled.notify_one();
    }

    fn pop(&self) -> u32 {
        loop {
            if let Some(value) = self.values.borrow_mut().pop_front() {
                return value;
            }
            yield_now();
            self.filled.wait();
        }
    }
}

fn three_values_pass_through(_: &World) {
    let queue = Rc::new(LeakyQueue::default());
    let source = queue.clone();
    let producer = spawn(move || {
        for value in 0..3 {
            sleep(MS);
            source.push(value);
        }
    });
    // Looks busy at the same times as the producer.
    let idler = spawn(|| (0..10).for_each(|_| sleep(MS / 2)));
    for value in 0..3 {
        sleep(MS);
        assert_eq!(queue.pop(), value);
    }
    producer.join().unwrap();
    idler.join().unwrap();
}

#[test]
fn a_lost_wake_up_is_found_shrunk_told_and_replayed() {
    let config = SimConfig::default();
    let plain = SimConfig { first_come_first_served: true, ..SimConfig::default() };
    assert!(
        sim::find_failure(&plain, 0..1, three_values_pass_through).is_none(),
        "it hides in the usual order"
    );

    let failure = sim::find_failure(&config, 0..500, three_values_pass_through).expect("a seed finds it");
    println!("{failure}");
    assert!(failure.message.starts_with("deadlock"), "{failure}");
    assert!(failure.message.contains("main (waits for a signal)"), "{failure}");
    assert!((1..=3).contains(&failure.fault_count()), "{failure}");
    assert!(failure.story.contains("goes on before"), "{failure}");

    let again = sim::replay(&config, &failure, three_values_pass_through).expect("it fails again");
    assert_eq!((again.trace_hash, &again.story), (failure.trace_hash, &failure.story));
}

/// Asks for a greeting and forgets that datagrams get lost.
fn a_careless_client_gets_its_answer(world: &World) {
    world.link_all(Link::new(Latency::Uniform(MS, 20 * MS)).with_loss(0.1).with_duplication(0.2));
    let server = world.host("server");
    server.start(|| {
        let socket = UdpSocket::bind("0.0.0.0:7").unwrap();
        let mut buffer = [0; 100];
        loop {
            let (count, from) = socket.recv_from(&mut buffer).unwrap();
            socket.send_to(&buffer[..count], from).unwrap();
        }
    });
    let to = SocketAddr::new(server.address(), 7);
    let client = world.host("client").start(move || {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        for _ in 0..3 {
            socket.send_to(b"hello", to).unwrap();
            socket.set_read_deadline(Some(now() + Duration::from_secs(1)));
            let answer = socket.recv_from(&mut [0; 100]);
            assert!(answer.is_ok(), "no answer: {:?}", answer.unwrap_err().kind());
        }
    });
    client.wait();
}

#[test]
fn a_failure_that_one_lost_datagram_causes_is_shrunk_to_that_datagram() {
    let config = SimConfig::default();
    let failure =
        sim::find_failure(&config, 0..500, a_careless_client_gets_its_answer).expect("a seed loses one");
    println!("{failure}");
    assert!(failure.message.contains(&format!("{:?}", ErrorKind::TimedOut)));
    let faults: Vec<_> = failure.choices.iter().filter(|choice| choice.chosen != 0).collect();
    assert_eq!(faults.len(), 1, "{failure}");
    assert_eq!(faults[0].kind, Kind::Packet);
    assert_eq!(failure.story.matches("lost").count(), 1, "{failure}");
    assert!(failure.story.contains("client -> server  datagram of 5 bytes"), "{failure}");
    assert!(failure.story.trim_end().ends_with("fails: no answer: TimedOut"), "{failure}");
}

#[test]
fn a_test_that_holds_is_run_with_every_seed() {
    let count = std::sync::atomic::AtomicUsize::new(0);
    let found = sim::find_failure(&SimConfig::default(), 0..30, |world| {
        count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        sleep(MS * world.choose(10));
    });
    assert!(found.is_none());
    assert_eq!(count.into_inner(), 30);
}
