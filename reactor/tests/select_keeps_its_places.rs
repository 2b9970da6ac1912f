//! `select` waits in several rows. One that wakes it in vain, since somebody was quicker, must not cost it its place in
//! the others, nor what it is told there meanwhile. In an earlier reactor it did: workers went deaf after the first
//! datagram, and could not be told to stop.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use reactor::cell::RefCell;
use reactor::net::UdpSocket;
use reactor::sync::{Barrier, Receiver, Signal, channel};
use reactor::{JoinHandle, after, run, select, sleep, spawn, timeout, yield_now};

#[test]
fn a_select_that_was_woken_in_vain_by_one_channel_is_woken_by_the_other() {
    run(|| {
        let (to_a, a) = channel(4);
        let (to_b, b) = channel(4);
        let taken = Rc::new(Cell::new(0));
        let (seen, from_a, from_b) = (taken.clone(), a.clone(), b.clone());
        let selecting = spawn(move || match select(&[&from_a, &from_b]) {
            0 => seen.set(from_a.recv().unwrap()),
            _ => seen.set(from_b.recv().unwrap()),
        });
        for (sender, receiver) in [(&to_a, &a), (&to_b, &b), (&to_a, &a)] {
            sender.send(1).unwrap();
            assert_eq!(receiver.try_recv(), Some(1), "quicker than the one that was woken");
            yield_now();
        }
        to_b.send(7).unwrap();
        selecting.join().unwrap();
        assert_eq!(taken.get(), 7);
    });
}

#[test]
fn a_worker_that_looks_at_a_job_in_vain_still_hears_that_it_shall_stop() {
    run(|| {
        let (jobs, inbox) = channel::<u32>(4);
        let stop = Rc::new(Signal::new());
        let (of_worker, stopping) = (inbox.clone(), stop.clone());
        let worker = spawn(move || {
            while select(&[&of_worker, &*stopping]) == 0 {
                of_worker.recv().unwrap();
            }
        });
        jobs.send(1).unwrap(); // it is told of that, and before it runs
        assert_eq!(inbox.try_recv(), Some(1)); // somebody else takes it
        stop.notify_all(); // and it is told to stop
        assert!(worker.join().is_ok());
    });
}

#[test]
fn a_notification_that_a_select_makes_no_use_of_goes_to_the_next_and_to_nobody_who_came_later() {
    run(|| {
        let (sender, receiver) = channel(1);
        let signal = Rc::new(Signal::new());
        let selecting = spawn({
            let signal = signal.clone();
            move || {
                let index = select(&[&receiver, &*signal]);
                if index == 0 {
                    receiver.recv().unwrap();
                }
                index
            }
        });
        let waiter = |signal: &Rc<Signal>| {
            let signal = signal.clone();
            spawn(move || signal.wait())
        };
        let next = waiter(&signal);
        sender.send(()).unwrap();
        assert!(signal.notify_one()); // the select is first in both rows
        let index = selecting.join().unwrap();
        yield_now();
        yield_now();
        // It took one of them. The signal is used up if it took that, and else has gone to the next.
        assert_eq!(next.is_finished(), index == 0);
        next.terminate();
        // Told with all others, it has nothing to pass on.
        let (sender, receiver) = channel(1);
        let selecting = spawn({
            let signal = signal.clone();
            move || select(&[&receiver, &*signal])
        });
        sender.send(()).unwrap();
        signal.notify_all();
        let late = waiter(&signal);
        selecting.join().unwrap();
        yield_now();
        assert!(!late.is_finished());
        late.terminate();
    });
}

#[test]
fn workers_that_share_a_socket_all_hear_of_every_datagram_and_of_the_stop() {
    run(|| {
        let socket = Rc::new(UdpSocket::bind("127.0.0.1:0").unwrap());
        let address = socket.local_addr().unwrap();
        let stop = Rc::new(Barrier::new(false));
        let (busy, served) = (Rc::new(RefCell::new(Vec::new())), Rc::new(Cell::new(0)));
        let workers: Vec<JoinHandle<()>> = (0..3)
            .map(|_| {
                let (socket, stop, busy, served) =
                    (socket.clone(), stop.clone(), busy.clone(), served.clone());
                spawn(move || {
                    while select(&[&*socket, &*stop]) == 0 {
                        socket.recv_from(&mut [0; 8]).unwrap();
                        served.set(served.get() + 1);
                        // Busy until it is told otherwise: the others must do.
                        let idle = Rc::new(Barrier::new(false));
                        busy.borrow_mut().push(idle.clone());
                        idle.wait();
                    }
                })
            })
            .collect();
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        let wait_for = |count: u32| {
            let reached = timeout(Duration::from_secs(20), || {
                while served.get() < count {
                    sleep(Duration::from_millis(1));
                }
            });
            assert!(reached.is_ok(), "only {} of {count} datagrams were served", served.get());
        };
        for round in 0..20 {
            for n in 1..=3 {
                client.send_to(b"work", address).unwrap();
                wait_for(round * 3 + n);
            }
            busy.take().iter().for_each(|idle| idle.open());
            yield_now();
        }
        stop.open();
        workers.iter().for_each(|worker| worker.join().unwrap());
    });
}

/// Two channels, a signal, a gate and an alarm, several consumers, in an order that a seed decides; terminations and
/// timeouts among them. Whatever was sent is taken once, and everybody who shall stop does.
#[reactor::test(seeds = 0..300)]
fn whatever_is_sent_to_selects_that_compete_is_taken_once_in_every_order_of_things(
    world: &reactor::sim::World,
) {
    let (to_a, a) = channel(2);
    let (to_b, b) = channel(2);
    let (signal, gate) = (Rc::new(Signal::new()), Rc::new(Barrier::new(false)));
    let (taken, told) = (Rc::new(RefCell::new(Vec::new())), Rc::new(Cell::new(0)));
    let consumers: Vec<_> = (0..4u32)
        .map(|n| {
            let (a, b, signal, gate) = (a.clone(), b.clone(), signal.clone(), gate.clone());
            let (taken, told) = (taken.clone(), told.clone());
            let patience = Duration::from_millis(u64::from(world.choose(4)));
            spawn(move || {
                let take = |receiver: &Receiver<u32>| {
                    let value = receiver.recv().unwrap();
                    taken.borrow_mut().push(value);
                };
                loop {
                    let alarm = after(patience);
                    // Which pair it waits for depends on who it is; the gate ends it.
                    let index = match n {
                        0 => select(&[&*gate, &a, &b]),
                        1 => select(&[&*gate, &a, &alarm]),
                        2 => select(&[&*gate, &*signal, &b]),
                        _ => select(&[&*gate, &b, &*signal, &a]),
                    };
                    match (n, index) {
                        (_, 0) => return,
                        (0 | 1, 1) | (3, 3) => take(&a),
                        (0 | 2, 2) | (3, 1) => take(&b),
                        (2, 1) | (3, 2) => told.set(told.get() + 1),
                        _ => sleep(Duration::from_millis(1)),
                    }
                }
            })
        })
        .collect();
    // One that comes and goes, at any time.
    let (of_flighty, of_flighty_b) = (a.clone(), b.clone());
    let flighty_taken = taken.clone();
    let flighty = spawn(move || {
        loop {
            let chosen = timeout(Duration::from_micros(700), || select(&[&of_flighty, &of_flighty_b]));
            let receiver = match chosen {
                Ok(0) => &of_flighty,
                Ok(_) => &of_flighty_b,
                Err(_) => continue,
            };
            let value = receiver.recv().unwrap();
            flighty_taken.borrow_mut().push(value);
        }
    });
    let mut told_count = 0;
    for n in 0..20u32 {
        match world.choose(4) {
            0 => sleep(Duration::from_micros(300)),
            1 if signal.notify_one() => told_count += 1,
            _ => {}
        }
        if world.choose(2) == 0 { to_a.send(n).unwrap() } else { to_b.send(n).unwrap() }
    }
    sleep(Duration::from_millis(50));
    assert!(flighty.terminate_and_wait().is_err());
    let mut all = taken.borrow().clone();
    all.sort_unstable();
    assert_eq!(all, (0..20).collect::<Vec<_>>());
    assert_eq!(told.get(), told_count);
    gate.open();
    consumers.iter().for_each(|consumer| consumer.join().unwrap());
}
