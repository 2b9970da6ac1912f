//! Each way to wait, in the simulator: random schedules, and terminations of anyone at any point. No wake-up is lost,
//! nobody is stuck once all holders have gone (a stuck one is a deadlock, which the simulator reports), holders
//! exclude each other, and those who came first are served first.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use reactor::sim::{self, SimConfig, World};
use reactor::sync::{Barrier, Mutex, Semaphore, Signal, channel};
use reactor::{JoinHandle, sleep, spawn, yield_now};

/// Seeds for each property: a second or two, unoptimised.
const SEEDS: std::ops::Range<u64> = 0..400;

/// Coroutines of each run.
const COUNT: u32 = 8;

fn check(body: impl Fn(&World) + Sync) {
    sim::check(&SimConfig::default(), SEEDS, body);
}

/// Suspends or not, in one way or another.
fn dawdle(world: &World) {
    match world.choose(4) {
        0 => {}
        1 => yield_now(),
        2 => sleep(Duration::from_micros(u64::from(world.choose(5)))),
        _ => (0..world.choose(4)).for_each(|_| yield_now()),
    }
}

/// Starts `COUNT` workers with their numbers, terminates some at any point, and waits for all.
fn crowd(world: &World, work: impl Fn(&World, u32) + 'static) {
    let work = Rc::new(work);
    let mut workers: Vec<Option<JoinHandle<()>>> = Vec::new();
    for number in 0..COUNT {
        let (own, work) = (world.clone(), work.clone());
        workers.push(Some(spawn(move || work(&own, number))));
        dawdle(world);
    }
    for _ in 0..COUNT / 2 {
        dawdle(world);
        let victim = world.choose(COUNT + 1);
        // 0: nobody. The plainest run terminates nobody.
        if let Some(Some(worker)) = victim.checked_sub(1).and_then(|index| workers.get(index as usize)) {
            worker.terminate();
        }
    }
    for worker in &mut workers {
        // Terminated or not, each must come to its end.
        let _ = worker.take().expect("joined once").join();
    }
}

/// Counts who is inside, and checks that they may be.
struct Inside {
    readers: Cell<u32>,
    writers: Cell<u32>,
}

struct Entered<'a>(&'a Cell<u32>);

impl<'a> Entered<'a> {
    fn new(count: &'a Cell<u32>) -> Self {
        count.set(count.get() + 1);
        Entered(count)
    }
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

impl Inside {
    fn new() -> Rc<Inside> {
        Rc::new(Inside { readers: Cell::new(0), writers: Cell::new(0) })
    }

    fn check(&self, readers_max: u32) {
        let (readers, writers) = (self.readers.get(), self.writers.get());
        assert!(writers <= 1 && (writers == 0 || readers == 0) && readers <= readers_max);
    }
}

/// Who asked for something and who got it: first come, first served, but for those who gave up.
#[derive(Default)]
struct Queue {
    waiting: RefCell<VecDeque<u32>>,
}

struct Asking<'a> {
    queue: &'a Queue,
    number: u32,
}

impl Queue {
    /// Joins the end; left on drop if it was not served.
    fn ask(&self, number: u32) -> Asking<'_> {
        self.waiting.borrow_mut().push_back(number);
        Asking { queue: self, number }
    }
}

impl Asking<'_> {
    fn served(self) {
        let first = self.queue.waiting.borrow_mut().pop_front();
        assert_eq!(first, Some(self.number), "somebody was served out of turn");
        std::mem::forget(self);
    }
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        self.queue.waiting.borrow_mut().retain(|number| *number != self.number);
    }
}

#[test]
fn a_mutex_admits_one_at_a_time_in_their_order_whoever_is_terminated() {
    check(|world| {
        let (mutex, inside, queue) = (Rc::new(Mutex::new(0)), Inside::new(), Queue::default());
        let own = mutex.clone();
        crowd(world, move |world, number| {
            dawdle(world);
            let asking = queue.ask(number);
            let mut guard = own.lock();
            asking.served();
            let entered = Entered::new(&inside.writers);
            inside.check(0);
            *guard += 1;
            dawdle(world);
            // Before the next one is let in.
            drop(entered);
        });
        assert!(mutex.try_lock().is_some(), "left locked");
    });
}

#[test]
fn a_semaphore_hands_out_no_more_than_it_has_and_gets_all_back() {
    check(|world| {
        let permits = 3;
        let semaphore = Rc::new(Semaphore::new(permits));
        let (own, out, queue) = (semaphore.clone(), Rc::new(Cell::new(0)), Queue::default());
        crowd(world, move |world, number| {
            let need = 1 + world.choose(permits as u32) as usize;
            let asking = queue.ask(number);
            let permit = own.acquire_many(need);
            // The next in the queue may be granted its share before this one runs, and run first.
            drop(asking);
            struct Out<'a>(&'a Cell<usize>, usize);
            impl Drop for Out<'_> {
                fn drop(&mut self) {
                    self.0.set(self.0.get() - self.1);
                }
            }
            out.set(out.get() + need);
            let held = Out(&out, need);
            assert!(out.get() <= permits);
            dawdle(world);
            drop(held);
            drop(permit);
        });
        assert_eq!(semaphore.available(), permits);
        assert!(semaphore.try_acquire_many(permits).is_some());
    });
}

#[test]
fn whoever_waits_at_a_barrier_passes_when_it_opens() {
    check(|world| {
        let gate = Rc::new(Barrier::new(false));
        let (own, passed) = (gate.clone(), Rc::new(Cell::new(0)));
        let counted = passed.clone();
        let opener = spawn({
            let (gate, world) = (gate.clone(), world.clone());
            move || {
                for _ in 0..3 {
                    dawdle(&world);
                    gate.open();
                    if world.chance(0.5) {
                        gate.close();
                    }
                }
                sleep(Duration::from_millis(1));
                gate.open();
            }
        });
        crowd(world, move |world, _| {
            dawdle(world);
            own.wait();
            counted.set(counted.get() + 1);
        });
        opener.join().unwrap();
        assert!(passed.get() <= COUNT);
    });
}

#[test]
fn a_signal_that_wakes_one_is_not_lost_with_a_terminated_one() {
    check(|world| {
        // A count that only `notify_one` announces: were one swallowed, somebody would wait for ever.
        let (tokens, signal) = (Rc::new(Cell::new(0u32)), Rc::new(Signal::new()));
        let source = spawn({
            let (tokens, signal, world) = (tokens.clone(), signal.clone(), world.clone());
            move || {
                for _ in 0..COUNT {
                    dawdle(&world);
                    tokens.set(tokens.get() + 1);
                    signal.notify_one();
                }
            }
        });
        let (own, announced) = (tokens.clone(), signal);
        crowd(world, move |world, _| {
            while own.get() == 0 {
                announced.wait();
            }
            own.set(own.get() - 1);
            // A second token may have been announced to nobody: pass it on.
            if own.get() > 0 {
                announced.notify_one();
            }
            dawdle(world);
        });
        source.join().unwrap();
    });
}

#[test]
fn a_channel_loses_no_value_and_doubles_none_whoever_is_terminated() {
    check(|world| {
        let (sender, receiver) = channel(1 + world.choose(3) as usize);
        let (sent, received) = (Rc::new(RefCell::new(Vec::new())), Rc::new(RefCell::new(Vec::new())));
        let (ins, outs) = (sent.clone(), received.clone());
        // One receiver is never terminated: whoever waits for room must get it.
        let last = spawn({
            let (receiver, received) = (receiver.clone(), received.clone());
            move || {
                sleep(Duration::from_micros(3));
                while let Ok(value) = receiver.recv() {
                    received.borrow_mut().push(value);
                }
            }
        });
        // The last sender's end closes it, so that receivers end.
        let sender = RefCell::new(Some(sender));
        let senders = Rc::new(RefCell::new(Vec::new()));
        for _ in 0..COUNT / 2 {
            senders.borrow_mut().push(sender.borrow().clone());
        }
        drop(sender.take());
        crowd(world, move |world, number| {
            if number % 2 == 0 {
                let Some(Some(sender)) = senders.borrow_mut().pop() else { return };
                for n in 0..4 {
                    let value = number * 10 + n;
                    if sender.send(value).is_ok() {
                        ins.borrow_mut().push(value);
                    }
                    dawdle(world);
                }
            } else {
                while let Ok(value) = receiver.recv() {
                    outs.borrow_mut().push(value);
                    dawdle(world);
                }
            }
        });
        last.join().unwrap();
        let (mut sent, mut received) = (sent.take(), received.take());
        sent.sort_unstable();
        received.sort_unstable();
        assert_eq!(sent, received);
    });
}
