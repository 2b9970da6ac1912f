//! What clients of the soak do: conversations on sockets, calls, and work that stays inside the process.

use super::fate::Counts;
use super::servers::{LINE_SIZE_BYTES_MAX, Ports, WorkClient, filling};
use crate::random::Random;
use reactor::crypto::Identity;
use reactor::net::tls::{self, Expect};
use reactor::net::{Duplex, TcpStream};
use reactor::rpc::{CallError, CallOptions, Config, Connection, Payload, Service};
use reactor::sync::{Mutex, Semaphore, channel};
use std::io::{Read, Write};
use std::net::Shutdown;
use std::rc::Rc;
use std::time::{Duration, Instant};

mod web;

/// Runs one session of a random kind.
///
/// # Panics
/// Panics when a server answers wrongly.
pub fn any(counts: &Counts, ports: &Ports, random: &Random) {
    match random.below(8) {
        0 | 1 => echo(counts, ports, random),
        2 | 3 => calls(counts, ports, random),
        4 | 5 => web::visit(counts, ports, random),
        6 => channels(random),
        _ => locks_and_timers(random),
    }
}

/// Sends lines, compares what comes back, and leaves politely, in the middle, or with a reset.
fn echo(counts: &Counts, ports: &Ports, random: &Random) {
    let mut stream = TcpStream::connect(ports.echo(random)).expect("the server listens");
    for _ in 0..random.below(20) {
        let size = random.below(1 << random.below(16)).min(LINE_SIZE_BYTES_MAX as u64 - 1);
        let mut line = filling(random.next(), size as usize);
        line.push(b'\n');
        stream.write_all(&line).expect("the server reads");
        let mut reply = vec![0; line.len()];
        stream.read_exact(&mut reply).expect("the server answers");
        assert!(reply == line, "the echo differs from what was sent");
        if random.one_in(8) {
            reactor::sleep(random.time_below_ms(5));
        }
    }
    match random.below(4) {
        0 => stream.shutdown(Shutdown::Write).expect("it is connected"),
        // Half a line, and away.
        1 => drop(stream.write_all(&filling(random.next(), 100))),
        2 => reset(counts, &stream),
        _ => {}
    }
}

/// Lets the connection end with a reset when it is dropped, whatever is still on its way.
fn reset(counts: &Counts, stream: &TcpStream) {
    rustix::net::sockopt::set_socket_linger(stream, Some(Duration::ZERO)).expect("it is a socket");
    Counts::count(&counts.resets);
}

/// Calls, one after another and several at once, with limits that are at times too short.
fn calls(counts: &Counts, ports: &Ports, random: &Random) {
    let encrypted = random.one_in(4);
    let address = if encrypted { ports.encrypted_rpc(random) } else { ports.rpc(random) };
    let stream = TcpStream::connect(address).expect("the server listens");
    if random.one_in(4) {
        reset(counts, &stream);
    }
    let stream: Box<dyn Duplex> = match encrypted {
        false => Box::new(stream),
        true => {
            let identity = Rc::new(Identity::generate());
            Box::new(tls::connect(stream, &identity, Expect::Any).expect("the server speaks TLS"))
        }
    };
    let client = WorkClient::new(Connection::start(stream, Service::none(), Config::default()));
    let one = || {
        let size = random.below(1 << random.below(19)) as usize;
        let data = Payload::from(filling(random.next(), size));
        let answer = match random.below(8) {
            0 => {
                let refused = client.panics();
                assert_eq!(
                    refused,
                    Err(CallError::Panicked),
                    "the caller of a handler that panics is told so"
                );
                return;
            }
            1 | 2 => {
                // As often too short as not.
                let sleep_us = random.below(10_000);
                let options = CallOptions::timeout(random.time_below_ms(10) + Duration::from_millis(1));
                match client.with(options).slow(sleep_us, data.clone()) {
                    Err(CallError::TimedOut) => return,
                    answer => answer,
                }
            }
            _ => client.echo(data.clone()),
        };
        let ((), echoed) = answer.expect("the server answers");
        assert!(echoed == data, "the answer differs from what was sent");
    };
    for _ in 0..random.below(4) {
        one();
        if random.one_in(2) {
            reactor::scope(|scope| {
                for _ in 0..1 + random.below(8) {
                    scope.spawn(one);
                }
            });
        }
    }
}

/// Producers and consumers over a channel, some of whom are terminated; every message that arrives is whole.
fn channels(random: &Random) {
    let (sender, receiver) = channel::<Vec<u8>>(1 + random.below(4) as usize);
    let count = random.below(200);
    let producer = reactor::spawn(move || {
        for number in 0..count {
            if sender.send(filling(number, 100)).is_err() {
                return;
            }
        }
    });
    let consumer = reactor::spawn(move || {
        let mut next = 0;
        while let Ok(message) = receiver.recv() {
            assert!(message == filling(next, 100), "message {next} is not the one that was sent");
            next += 1;
            if next % 16 == 0 {
                reactor::yield_now();
            }
        }
        next
    });
    match random.below(3) {
        0 => producer.terminate(),
        1 => consumer.terminate(),
        _ => {}
    }
    let _ = producer.join();
    // Whoever was terminated let go of its end, so the other one ended too.
    let _ = consumer.join();
}

/// Waiting for permits, a mutex and timers; a time that is over must find all of them given back.
fn locks_and_timers(random: &Random) {
    let mutex = Mutex::new(0u64);
    let permits = Semaphore::new(2);
    let turns = 1 + random.below(10);
    reactor::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| {
                for _ in 0..turns {
                    let _ = reactor::timeout(random.time_below_ms(4), || {
                        let _permit = permits.acquire();
                        let mut held = mutex.lock();
                        *held += 1;
                        reactor::sleep(random.time_below_ms(2));
                    });
                }
            });
        }
    });
    assert_eq!(permits.available(), 2, "every permit came back");
    assert!(mutex.try_lock().is_some(), "nobody holds the mutex");
    let due = Instant::now() + random.time_below_ms(5);
    reactor::sleep_until(due);
    assert!(Instant::now() >= due, "nobody sleeps too short");
    if random.one_in(4) {
        assert_eq!(reactor::offload(|| 7), 7);
    }
}
