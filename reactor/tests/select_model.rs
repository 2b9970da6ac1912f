//! `select` against a model so plain that it can be read: random programs of four coroutines over channels, signals, a gate, a
//! watched value, alarms and each other's ends, with timeouts and terminations, under random schedules.
//!
//! The model is told of each thing that is done, and asked twice. Whenever a `select` returns: was that source ready, and does
//! the call that takes from it get what must come next, with nobody running in between? And whenever nothing more can run:
//! does nobody wait whose source is ready, or who was notified? The first would show what was invented, the second what was
//! lost. A failure prints its seed, and the plainest program that fails so.

use std::cell::Cell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::{Duration, Instant};

use reactor::cell::RefCell;
use reactor::sim::{self, SimConfig, World};
use reactor::sync::{Barrier, Receiver, Sender, Signal, Watch, Watcher, channel, watch};
use reactor::{JoinHandle, Selectable, at, now, select, select_timeout, sleep, spawn, timeout};

/// Random programs: some seconds, unoptimised.
const SEEDS: std::ops::Range<u64> = 0..1_500;
const WORKERS: u32 = 4;
const STEPS_MAX: u32 = 10;
const CHANNELS: usize = 2;
const SIGNALS: usize = 2;

/// All times of the programs are whole microseconds; nothing happens at those between.
const TICK: Duration = Duration::from_micros(1);

/// What the model knows of a coroutine that waits in a row of which being told is all there is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Told {
    No,
    Alone,
    WithAll,
}

/// A row of waiters, as its documentation has it: first come, first told; who leaves without making use of what it alone was
/// told passes that on.
#[derive(Default)]
struct Row(Vec<(u32, Told)>);

impl Row {
    fn join(&mut self, who: u32) {
        self.0.push((who, Told::No));
    }

    fn notify_one(&mut self) -> bool {
        let first = self.0.iter_mut().find(|(_, told)| *told == Told::No);
        first.map(|(_, told)| *told = Told::Alone).is_some()
    }

    fn notify_all(&mut self) {
        let rest = self.0.iter_mut().filter(|(_, told)| *told == Told::No);
        rest.for_each(|(_, told)| *told = Told::WithAll);
    }

    fn is_told(&self, who: u32) -> bool {
        self.0.iter().any(|(other, told)| *other == who && *told != Told::No)
    }

    fn leave(&mut self, who: u32, made_use: bool) {
        let Some(index) = self.0.iter().position(|(other, _)| *other == who) else { return };
        if self.0.remove(index).1 == Told::Alone && !made_use {
            self.notify_one();
        }
    }
}

#[derive(Default)]
struct Queue {
    values: VecDeque<u32>,
    is_closed: bool,
}

/// Something to wait for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Source {
    Recv(usize),
    Send(usize),
    Signal(usize),
    Gate,
    Watch,
    Alarm(Instant),
    End,
}

/// What a worker waits in.
struct Waiting {
    who: u32,
    sources: Vec<Source>,
    until: Option<Instant>,
}

/// The reference.
#[derive(Default)]
struct Model {
    queues: [Queue; CHANNELS],
    signals: [Row; SIGNALS],
    gate: Row,
    is_open: bool,
    version: u64,
    seen: [u64; WORKERS as usize],
    helper_ended: [Rc<Cell<bool>>; WORKERS as usize],
    waiting: Vec<Waiting>,
    /// Whatever anybody has done.
    deeds: u64,
}

impl Model {
    /// Whether it can be told of the source itself that it is ready, at `now`.
    fn is_ready(&self, who: u32, source: Source, now: Instant) -> bool {
        match source {
            Source::Recv(number) => !self.queues[number].values.is_empty() || self.queues[number].is_closed,
            Source::Send(number) => {
                self.queues[number].values.len() < capacity(number) || self.queues[number].is_closed
            }
            Source::Signal(_) => false,
            Source::Gate => self.is_open,
            Source::Watch => self.version != self.seen[who as usize],
            Source::Alarm(due) => due <= now,
            Source::End => self.helper_ended[who as usize].get(),
        }
    }

    fn is_told(&self, who: u32, source: Source) -> bool {
        match source {
            Source::Signal(number) => self.signals[number].is_told(who),
            Source::Gate => self.gate.is_told(who),
            _ => false,
        }
    }

    fn row(&mut self, source: Source) -> Option<&mut Row> {
        match source {
            Source::Signal(number) => Some(&mut self.signals[number]),
            Source::Gate => Some(&mut self.gate),
            _ => None,
        }
    }

    fn begin(&mut self, who: u32, sources: &[Source], until: Option<Instant>, now: Instant) {
        if sources.iter().any(|source| self.is_ready(who, *source, now)) {
            return;
        }
        for source in sources {
            if let Some(row) = self.row(*source) {
                row.join(who);
            }
        }
        self.waiting.push(Waiting { who, sources: sources.to_vec(), until });
    }

    /// It waits no more, by the word of `used`, or for another reason.
    fn end(&mut self, who: u32, sources: &[Source], used: Option<Source>) {
        self.waiting.retain(|waiting| waiting.who != who);
        for source in sources {
            if let Some(row) = self.row(*source) {
                row.leave(who, used == Some(*source));
            }
        }
    }

    /// Nothing more can run: nobody waits who need not.
    fn check_rest(&self, now: Instant) {
        for Waiting { who, sources, until } in &self.waiting {
            for source in sources {
                let (ready, told) = (self.is_ready(*who, *source, now), self.is_told(*who, *source));
                assert!(!ready && !told, "{who} waits for {sources:?}, and {source:?} is ready or was told");
            }
            assert!(until.is_none_or(|until| until > now), "{who} waits for longer than it wanted");
        }
    }
}

fn capacity(channel: usize) -> usize {
    channel + 1
}

/// What the programs use.
struct Things {
    model: RefCell<Model>,
    channels: Vec<(Sender<u32>, Receiver<u32>)>,
    signals: [Signal; SIGNALS],
    gate: Barrier,
    level: Watch<u32>,
    next: Cell<u32>,
}

impl Things {
    fn new() -> (Rc<Things>, Watcher<u32>) {
        let (level, watcher) = watch(0);
        let things = Things {
            model: RefCell::new(Model { version: 1, ..Model::default() }),
            channels: (0..CHANNELS).map(|number| channel(capacity(number))).collect(),
            signals: Default::default(),
            gate: Barrier::new(false),
            level,
            next: Cell::new(0),
        };
        (Rc::new(things), watcher)
    }

    fn did(&self) {
        self.model.borrow_mut().deeds += 1;
    }

    fn value(&self) -> u32 {
        self.next.set(self.next.get() + 1);
        self.next.get()
    }

    /// Does something that waits for nobody, and that others may wait for.
    fn act(&self, world: &World) {
        self.did();
        let (number, kind) = (world.choose(2) as usize, world.choose(9));
        match kind {
            0 | 1 => {
                let value = self.value();
                let sent = self.channels[number].0.try_send(value).is_ok();
                let mut model = self.model.borrow_mut();
                let queue = &mut model.queues[number];
                assert_eq!(sent, !queue.is_closed && queue.values.len() < capacity(number));
                if sent {
                    queue.values.push_back(value);
                }
            }
            2 => {
                let value = self.channels[number].1.try_recv();
                assert_eq!(value, self.model.borrow_mut().queues[number].values.pop_front());
            }
            3 | 4 => {
                let was_one = self.signals[number].notify_one();
                assert_eq!(was_one, self.model.borrow_mut().signals[number].notify_one());
            }
            5 => {
                self.signals[number].notify_all();
                self.model.borrow_mut().signals[number].notify_all();
            }
            6 => {
                self.gate.open();
                let mut model = self.model.borrow_mut();
                model.is_open = true;
                model.gate.notify_all();
            }
            7 => {
                self.gate.close();
                self.model.borrow_mut().is_open = false;
            }
            _ if world.choose(8) == 7 => {
                self.channels[number].0.close();
                self.model.borrow_mut().queues[number].is_closed = true;
            }
            _ => {
                self.level.set(self.value());
                self.model.borrow_mut().version += 1;
            }
        }
    }
}

struct Worker {
    who: u32,
    things: Rc<Things>,
    watcher: Watcher<u32>,
    helper: RefCell<Option<Rc<JoinHandle<()>>>>,
}

/// Tells the model that a wait was broken off, if it was.
struct Leave<'a> {
    worker: &'a Worker,
    sources: &'a [Source],
    used: Cell<Option<Source>>,
}

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        let model = &mut *self.worker.things.model.borrow_mut();
        model.end(self.worker.who, self.sources, self.used.get());
    }
}

impl Worker {
    fn run(&self, world: &World) {
        for _ in 0..world.choose(STEPS_MAX + 1) {
            match world.choose(5) {
                0 => sleep(TICK * world.choose(4)),
                1 | 2 => self.things.act(world),
                3 => self.wait(world),
                _ => {
                    // A part of a program that is given up.
                    let limit = TICK * world.choose(6);
                    let _ = timeout(limit, || self.wait(world));
                }
            }
            self.things.did();
        }
    }

    fn source(&self, world: &World) -> Source {
        let number = world.choose(2) as usize;
        match world.choose(7) {
            0 => Source::Recv(number),
            1 => Source::Send(number),
            2 => Source::Signal(number),
            3 => Source::Gate,
            4 => Source::Watch,
            5 => Source::Alarm(now() + TICK * world.choose(4)),
            _ => {
                let length = TICK * world.choose(4);
                let ended: Rc<Cell<bool>> = Rc::default();
                self.things.model.borrow_mut().helper_ended[self.who as usize] = ended.clone();
                let helper = Rc::new(spawn(move || {
                    sleep(length);
                    ended.set(true);
                }));
                self.helper.replace(Some(helper));
                Source::End
            }
        }
    }

    fn wait(&self, world: &World) {
        let mut sources = Vec::new();
        for _ in 0..=world.choose(4) {
            let source = self.source(world);
            // The model has one place for each.
            if !sources.contains(&source) {
                sources.push(source);
            }
        }
        let limit = (world.choose(2) == 1).then(|| TICK * world.choose(4));
        let things = &*self.things;
        let alarms: Vec<_> = sources
            .iter()
            .map(|source| if let Source::Alarm(due) = source { at(*due) } else { at(now()) })
            .collect();
        let helper = self.helper.borrow().clone();
        let real: Vec<&dyn Selectable> = sources
            .iter()
            .zip(&alarms)
            .map(|(source, alarm)| -> &dyn Selectable {
                match source {
                    Source::Recv(number) => &things.channels[*number].1,
                    Source::Send(number) => &things.channels[*number].0,
                    Source::Signal(number) => &things.signals[*number],
                    Source::Gate => &things.gate,
                    Source::Watch => &self.watcher,
                    Source::Alarm(_) => alarm,
                    Source::End => &**helper.as_ref().expect("it was made for this"),
                }
            })
            .collect();
        let until = limit.map(|limit| now() + limit);
        things.model.borrow_mut().begin(self.who, &sources, until, now());
        let leave = Leave { worker: self, sources: &sources, used: Cell::new(None) };
        let found = match limit {
            None => Some(select(&real)),
            Some(limit) => select_timeout(limit, &real).ok(),
        };
        self.check(&sources, found, until);
        leave.used.set(found.map(|index| sources[index]));
        drop(leave);
        if let Some(index) = found
            && world.choose(3) > 0
        {
            self.take(sources[index]);
        }
    }

    /// Whether `select` may have returned that.
    fn check(&self, sources: &[Source], found: Option<usize>, until: Option<Instant>) {
        let model = self.things.model.borrow();
        let may = |source: Source| model.is_ready(self.who, source, now()) || model.is_told(self.who, source);
        match found {
            Some(index) => {
                let source = sources[index];
                assert!(may(source), "{}: select gave {source:?}, which was not ready", self.who);
                if source == Source::End {
                    assert!(self.helper.borrow().as_ref().is_some_and(|helper| helper.is_finished()));
                }
            }
            None => {
                assert!(until.is_some_and(|until| until <= now()), "{}: it gave up early", self.who);
                let left = sources.iter().find(|source| may(**source));
                assert!(left.is_none(), "{}: its time was over, and {left:?} was ready", self.who);
            }
        }
    }

    /// Takes what was found; nobody runs in between.
    fn take(&self, source: Source) {
        let things = &*self.things;
        let deeds = things.model.borrow().deeds;
        match source {
            Source::Recv(number) => {
                let value = things.channels[number].1.recv().ok();
                assert_eq!(value, things.model.borrow_mut().queues[number].values.pop_front());
            }
            Source::Send(number) => {
                let value = things.value();
                let sent = things.channels[number].0.send(value).is_ok();
                let queue = &mut things.model.borrow_mut().queues[number];
                assert_eq!(sent, !queue.is_closed);
                if sent {
                    queue.values.push_back(value);
                }
            }
            Source::Watch => {
                assert!(self.watcher.changed().is_ok());
                self.watcher.get();
                let mut model = things.model.borrow_mut();
                model.seen[self.who as usize] = model.version;
            }
            Source::End => {
                let helper = self.helper.borrow().clone();
                if let Some(helper) = helper {
                    helper.join().unwrap();
                }
            }
            Source::Signal(_) | Source::Gate | Source::Alarm(_) => {}
        }
        assert_eq!(things.model.borrow().deeds, deeds, "{}: taking {source:?} let others run", self.who);
    }
}

fn program(world: &World) {
    let (things, watcher) = Things::new();
    let workers: Vec<JoinHandle<()>> = (0..WORKERS)
        .map(|who| {
            let (world, things, watcher) = (world.clone(), things.clone(), watcher.clone());
            spawn(move || {
                Worker { who, things, watcher, helper: RefCell::new(None) }.run(&world);
            })
        })
        .collect();
    // At times at which nobody does anything, nor those who were terminated at the last of them: whoever can run has run.
    sleep(TICK / 2);
    for _ in 0..30 {
        things.model.borrow().check_rest(now());
        let victim = world.choose(40) as usize;
        if let Some(victim) = victim.checked_sub(36).and_then(|index| workers.get(index)) {
            victim.terminate();
        }
        sleep(TICK + Duration::from_nanos(1));
    }
    things.model.borrow().check_rest(now());
    for worker in workers {
        let _ = worker.terminate_and_wait();
    }
    assert!(things.model.borrow().waiting.is_empty());
}

#[test]
fn select_gives_what_the_model_gives_and_loses_nothing() {
    sim::check(&SimConfig::default(), SEEDS, program);
}
