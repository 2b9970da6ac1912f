//! Each way to wait, in the simulator: random schedules, and terminations of anyone at any point. No wake-up is lost,
//! nobody is stuck once all holders have gone (a stuck one is a deadlock, which the simulator reports), holders
//! exclude each other, and those who came first are served first.

use std::cell::Cell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use reactor::cell::RefCell;
use reactor::sim::{self, SimConfig, World};
use reactor::sync::{Barrier, Mutex, OnceCell, RwLock, Semaphore, Signal, channel, watch};
use reactor::{JoinHandle, after, select, sleep, spawn, yield_now};

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

/// Half as many tokens as workers, each announced to one; `wait` may give up. When all is quiet, a token that lies there
/// while somebody waits means that its announcement was lost.
fn announced_tokens(world: &World, wait: impl Fn(&Signal, u32) -> bool + 'static) {
    let (tokens, waiting, signal) = (Rc::new(Cell::new(0u32)), Rc::new(Cell::new(0)), Rc::new(Signal::new()));
    let wait = Rc::new(wait);
    let mut workers: Vec<JoinHandle<()>> = Vec::new();
    for number in 0..COUNT {
        let (tokens, waiting, signal, wait) = (tokens.clone(), waiting.clone(), signal.clone(), wait.clone());
        workers.push(spawn(move || {
            while tokens.get() == 0 {
                let _waits = Entered::new(&waiting);
                if !wait(&signal, number) {
                    return;
                }
            }
            tokens.set(tokens.get() - 1);
        }));
    }
    for _ in 0..COUNT / 2 {
        dawdle(world);
        tokens.set(tokens.get() + 1);
        signal.notify_one();
        dawdle(world);
        if let Some(index) = world.choose(COUNT + 1).checked_sub(1) {
            workers[index as usize].terminate();
        }
    }
    sleep(Duration::from_millis(1));
    assert!(tokens.get() == 0 || waiting.get() == 0, "{} tokens, {} wait", tokens.get(), waiting.get());
    for worker in workers {
        worker.terminate();
        let _ = worker.join();
    }
}

#[test]
fn a_signal_that_wakes_one_is_not_lost_with_a_terminated_one() {
    check(|world| {
        announced_tokens(world, |signal, _| {
            signal.wait();
            true
        });
    });
}

#[test]
fn a_notification_that_select_does_not_return_reaches_the_next() {
    check(|world| {
        let own = world.clone();
        announced_tokens(world, move |signal, number| {
            if number % 2 == 0 {
                signal.wait();
                return true;
            }
            let soon = after(Duration::from_micros(u64::from(own.choose(10))));
            select(&[signal, &soon]) == 0
        });
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

#[test]
fn a_lock_for_readers_and_writers_keeps_writers_alone_and_the_order_of_both() {
    check(|world| {
        let (lock, inside, queue) = (Rc::new(RwLock::new(0)), Inside::new(), Queue::default());
        let own = lock.clone();
        crowd(world, move |world, number| {
            dawdle(world);
            if world.chance(0.5) {
                let asking = queue.ask(number);
                let mut guard = own.write();
                // All who came before have been let in, and have left.
                asking.served();
                let entered = Entered::new(&inside.writers);
                inside.check(0);
                *guard += 1;
                dawdle(world);
                drop(entered);
            } else {
                let asking = queue.ask(number);
                let guard = own.read();
                // Readers that are let in together run in any order.
                drop(asking);
                let entered = Entered::new(&inside.readers);
                inside.check(COUNT);
                let before = *guard;
                dawdle(world);
                assert_eq!(*guard, before, "changed under a reader");
                drop(entered);
            }
        });
        assert!(lock.try_write().is_some(), "left locked");
    });
}

#[test]
fn every_watcher_sees_the_last_value_and_the_end() {
    check(|world| {
        let (source, watcher) = watch(0u32);
        let (own, last) = (world.clone(), Rc::new(Cell::new(0)));
        let written = last.clone();
        let writer = spawn(move || {
            for value in 1..6 {
                dawdle(&own);
                source.set(value);
                written.set(value);
            }
        });
        crowd(world, move |world, _| {
            let (watcher, mut seen) = (watcher.clone(), None);
            while watcher.changed().is_ok() {
                let value = watcher.get();
                assert!(seen.is_none_or(|seen| seen < value), "{value} after {seen:?}");
                seen = Some(value);
                dawdle(world);
            }
            assert_eq!(seen, Some(last.get()));
        });
        writer.join().unwrap();
    });
}

#[test]
fn a_value_is_made_once_though_whoever_makes_it_fails_or_is_terminated() {
    check(|world| {
        let (cell, made) = (Rc::new(OnceCell::new()), Rc::new(Cell::new(0)));
        let (own, counted) = (cell.clone(), made.clone());
        crowd(world, move |world, number| {
            let result = own.get_or_try_init(|| {
                dawdle(world);
                if world.chance(0.3) {
                    return Err(());
                }
                counted.set(counted.get() + 1);
                Ok(number)
            });
            if let Ok(value) = result {
                assert_eq!(Some(value), own.get());
            }
        });
        assert!(made.get() <= 1, "made {} times", made.get());
        assert_eq!(made.get() == 1, cell.get().is_some());
        // Whatever happened to the others, it can still be made.
        assert!(cell.get_or_init(|| 99).lt(&100));
    });
}
