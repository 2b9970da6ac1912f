//! A world's state, and the pump: the one real coroutine that lets simulated ones run, each in its turn.
//!
//! Virtual time belongs to a world and not to the thread. A simulated coroutine that is woken goes onto its world's
//! list instead of the driver's; the pump picks one, lets it run, nested in itself, until it suspends, and picks again.
//! When none is runnable, time jumps to the next event. When there is no event either, everyone waits for ever: a
//! deadlock, which fails the run.

use std::cell::Cell;
use std::collections::VecDeque;
use std::net::IpAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::SimConfig;
use super::check;
use super::choices::{Choice, Choices, Generator, Kind};
use super::events::{Event, EventKey, Events};
use super::host::{HostState, Process};
use super::network::{Chance, LATENCY_STEPS, Network};
use super::router::RouterState;
use super::tcp::Ends;
use super::trace::{Trace, What};
use crate::cell::RefCell;
use crate::clock::{self, Virtual};
use crate::coroutine::{Coroutine, Payload, with_turns};
use crate::run::Group;
use crate::timer::Action;

/// Sets what programs draw apart from what is decided about them, which is the seed's first stream.
const ENTROPY_STREAM: u64 = 1;

/// One simulation.
pub(crate) struct Inner {
    pub(super) config: SimConfig,
    start: Instant,
    elapsed: Cell<Duration>,
    ready: RefCell<VecDeque<Rc<Coroutine>>>,
    pub(super) events: RefCell<Events>,
    pub(super) choices: RefCell<Choices>,
    entropy: RefCell<Generator>,
    pub(super) trace: RefCell<Trace>,
    step_count: Cell<u64>,
    pub(super) network: RefCell<Network>,
    pub(super) tcp: RefCell<Ends>,
    pub(super) hosts: RefCell<Vec<Rc<HostState>>>,
    pub(super) routers: RefCell<Vec<Rc<RouterState>>>,
    pub(super) groups: RefCell<Vec<Rc<Group>>>,
    process_count: Cell<u32>,
    failure: RefCell<Option<Payload>>,
    over: Cell<bool>,
    /// Its panics are expected: it is run to see whether it fails.
    pub(super) quiet: bool,
}

impl Inner {
    /// A world, for the running coroutine to pump.
    pub(super) fn new(config: SimConfig, choices: Choices, entropy_seed: u64, tell: bool) -> Rc<Inner> {
        let network = RefCell::new(Network::new(config.link));
        Rc::new(Inner {
            config,
            network,
            tcp: RefCell::default(),
            process_count: Cell::new(0),
            start: Instant::now(),
            elapsed: Cell::new(Duration::ZERO),
            ready: RefCell::default(),
            events: RefCell::default(),
            choices: RefCell::new(choices),
            entropy: RefCell::new(Generator::of_stream(entropy_seed, ENTROPY_STREAM)),
            trace: RefCell::new(Trace::new(tell)),
            step_count: Cell::new(0),
            hosts: RefCell::default(),
            routers: RefCell::default(),
            groups: RefCell::default(),
            failure: RefCell::new(None),
            over: Cell::new(false),
            quiet: false,
        })
    }

    /// What has passed since the world began.
    pub(crate) fn elapsed(&self) -> Duration {
        self.elapsed.get()
    }

    pub(crate) fn now(&self) -> Instant {
        self.start + self.elapsed.get()
    }

    pub(crate) fn tcp_window_bytes(&self) -> usize {
        self.config.tcp_window_bytes
    }

    pub(crate) fn fill_random(&self, bytes: &mut [u8]) {
        let mut entropy = self.entropy.borrow_mut();
        for chunk in bytes.chunks_mut(8) {
            chunk.copy_from_slice(&entropy.next().to_le_bytes()[..chunk.len()]);
        }
    }

    // The seams that `coroutine` and `timer` call.

    /// `coroutine` has been woken.
    pub(crate) fn on_wake(&self, coroutine: &Rc<Coroutine>) {
        self.ready.borrow_mut().push_back(coroutine.clone());
    }

    /// A simulated coroutine goes on: its code sees this world's time, until [`leave`].
    pub(crate) fn on_enter(&self) {
        check::set_quiet(self.quiet);
        clock::set_virtual(Some(Virtual { now: self.now(), elapsed: self.elapsed.get() }));
    }

    pub(crate) fn arm(&self, due: Instant, action: Action) -> EventKey {
        let due = due.saturating_duration_since(self.start).max(self.elapsed.get());
        self.events.borrow_mut().push(due, Event::Timer(action))
    }

    pub(crate) fn disarm(&self, key: EventKey) {
        // Dropped after the borrow: it may be the last of a coroutine.
        let removed = self.events.borrow_mut().remove(key);
        drop(removed);
    }

    // What the rest of the simulator uses.

    pub(super) fn schedule(&self, after: Duration, event: Event) -> EventKey {
        self.events.borrow_mut().push(self.elapsed.get() + after, event)
    }

    pub(super) fn choose(&self, kind: Kind, count: u32) -> u32 {
        self.choices.borrow_mut().choose(kind, count)
    }

    /// Which of several things that are ready is taken first.
    pub(crate) fn choose_ready(&self, count: usize) -> usize {
        self.choose(Kind::Schedule, u32::try_from(count).unwrap_or(u32::MAX)) as usize
    }

    pub(super) fn chance(&self, kind: Kind, probability: f64) -> bool {
        self.choices.borrow_mut().chance(kind, probability)
    }

    /// How long a packet takes from one machine to another, or `None` if it is lost.
    pub(super) fn carry(&self, way: (usize, usize), size_bytes: usize) -> Option<Duration> {
        let mut choices = self.choices.borrow_mut();
        self.network.borrow_mut().carry(way, size_bytes, self.elapsed.get(), &mut *choices)
    }

    pub(super) fn carry_datagram(&self, way: (usize, usize), size_bytes: usize) -> [Option<Duration>; 2] {
        let mut choices = self.choices.borrow_mut();
        self.network.borrow_mut().carry_datagram(way, size_bytes, self.elapsed.get(), &mut *choices)
    }

    /// The machine that `process` reaches at `ip`.
    pub(super) fn host_at(&self, process: &Process, ip: IpAddr) -> Option<Rc<HostState>> {
        if ip.is_loopback() || ip.is_unspecified() {
            return Some(process.host().clone());
        }
        self.hosts.borrow().iter().find(|host| ip == IpAddr::V4(host.address())).cloned()
    }

    pub(super) fn host_named(&self, name: &str) -> Option<Rc<HostState>> {
        self.hosts.borrow().iter().find(|host| host.name() == name).cloned()
    }

    /// The machine of that name, new if there is none.
    pub(super) fn host(&self, name: &str) -> Rc<HostState> {
        if let Some(host) = self.host_named(name) {
            return host;
        }
        let mut hosts = self.hosts.borrow_mut();
        let host = Rc::new(HostState::new(name, hosts.len()));
        hosts.push(host.clone());
        host
    }

    pub(super) fn note(&self, what: What, who: u64, size: u64) {
        self.trace.borrow_mut().note(self.elapsed.get(), what, who, size);
    }

    /// Adds a line to the story, if there is one; makes the line only then.
    pub(super) fn tell(&self, line: impl FnOnce() -> String) {
        if self.trace.borrow().is_telling() {
            let line = line();
            self.trace.borrow_mut().tell(self.elapsed.get(), &line);
        }
    }

    /// Ends the run with a panic; the first one wins.
    pub(crate) fn fail(&self, payload: Payload) {
        let mut failure = self.failure.borrow_mut();
        if failure.is_none() {
            *failure = Some(payload);
            drop(failure);
            self.end();
        }
    }

    pub(super) fn take_failure(&self) -> Option<Payload> {
        self.failure.take()
    }

    pub(super) fn take_choices(&self) -> Vec<Choice> {
        self.choices.borrow_mut().take_log()
    }

    /// Terminates everyone.
    fn end(&self) {
        self.over.set(true);
        let groups = self.groups.borrow().clone();
        for group in groups {
            group.close();
        }
    }

    /// Lets simulated coroutines run until `main_ended` and everyone else has ended too.
    pub(super) fn pump(&self, main_ended: impl Fn() -> bool) {
        loop {
            if !self.over.get() && main_ended() {
                self.end();
            }
            if let Some(next) = self.pick() {
                self.let_run(&next);
            } else if self.everyone_ended() {
                return;
            } else if !self.advance() {
                self.on_deadlock();
            }
        }
    }

    fn let_run(&self, next: &Rc<Coroutine>) {
        self.note(What::Run, self.name_of(next), 0);
        self.step_count.set(self.step_count.get() + 1);
        if self.step_count.get() >= self.config.steps_max {
            self.on_endless();
        }
        with_turns(|turns| next.resume(turns));
    }

    /// The next coroutine to run.
    fn pick(&self) -> Option<Rc<Coroutine>> {
        loop {
            let count = self.ready.borrow().len();
            let index = match count {
                0 => return None,
                1 => 0,
                _ if self.config.first_come_first_served => 0,
                _ => self.choose(Kind::Schedule, u32::try_from(count).unwrap_or(u32::MAX)) as usize,
            };
            let next = self.ready.borrow_mut().remove(index)?;
            // It may have ended in its parent, woken though it was.
            if !next.is_finished() {
                if index > 0 {
                    self.tell(|| {
                        let others = if index == 1 { "another" } else { "others" };
                        format!("{} goes on before {others} that came first", self.label_of(&next))
                    });
                }
                return Some(next);
            }
        }
    }

    /// Jumps to the next event and lets all that happens at that instant happen; whether there was one.
    fn advance(&self) -> bool {
        let Some(due) = self.events.borrow().next_due() else { return false };
        self.elapsed.set(due);
        loop {
            let event = self.events.borrow_mut().pop_due(due);
            match event {
                Some(event) => self.on_event(event),
                None => return true,
            }
        }
    }

    fn on_event(&self, event: Event) {
        match event {
            Event::Timer(Action::Wake(coroutine)) => coroutine.wake(),
            Event::Timer(Action::Cut(coroutine, cut)) => coroutine.cut_to(cut),
            Event::Tcp(event) => self.on_tcp(event),
            Event::TcpRefused(number) => self.on_tcp_refused(number),
            Event::Datagram(datagram) => self.on_datagram(datagram),
        }
    }

    fn everyone_ended(&self) -> bool {
        self.groups.borrow().iter().all(|group| group.is_empty())
    }

    fn on_deadlock(&self) {
        let mut message = format!(
            "deadlock: after {} nothing is left to happen, and these wait for ever:",
            super::trace::format_time(self.elapsed.get())
        );
        for group in self.groups.borrow().iter() {
            if let Some(process) = group.process()
                && !group.is_empty()
            {
                let names = group.labels().join(", ");
                message += &format!("\n  {}: {names}", process.host().name());
            }
        }
        if self.over.get() {
            // Their stacks may hold what others borrow: they can't be left behind.
            eprintln!("reactor::sim: {message}\nthey were terminated, and wait uninterruptibly: aborting");
            std::process::abort();
        }
        self.fail(Box::new(message));
    }

    fn on_endless(&self) {
        let message = format!("the simulation has not ended after {} steps", self.config.steps_max);
        if self.step_count.get() >= self.config.steps_max.saturating_mul(2) {
            eprintln!("reactor::sim: {message}\neveryone was terminated, and somebody goes on: aborting");
            std::process::abort();
        }
        self.fail(Box::new(message));
    }

    fn label_of(&self, coroutine: &Coroutine) -> String {
        let host = coroutine.group().process().map_or("?", |process| process.host().name());
        format!("{host}: {}", coroutine.label())
    }

    pub(super) fn step_count(&self) -> u64 {
        self.step_count.get()
    }

    /// A number for the coroutine that is the same in every run: its process, and its place there.
    pub(super) fn name_of(&self, coroutine: &Coroutine) -> u64 {
        let process = coroutine.group().process().map_or(0, |process| process.number());
        u64::from(process) << 32 | coroutine.slot.get() as u64
    }

    /// Lets go of everything, for what is left refers to the world in turn.
    pub(super) fn clear(&self) {
        let ready = self.ready.take();
        let events = self.events.take();
        let groups = self.groups.take();
        let hosts = self.hosts.take();
        let ends = self.tcp.take();
        for host in &hosts {
            host.close_all();
        }
        drop((ready, events, groups, hosts, ends));
    }

    pub(super) fn new_group(self: &Rc<Self>, host: &Rc<HostState>) -> Rc<Group> {
        let number = self.process_count.get();
        self.process_count.set(number + 1);
        // Those that have ended are of no interest any more.
        self.groups.borrow_mut().retain(|group| !group.is_empty());
        let group = Group::simulated(Rc::new(Process::new(number, self.clone(), host.clone())));
        self.groups.borrow_mut().push(group.clone());
        group
    }
}

/// Real code goes on, and sees the real time.
pub(crate) fn leave() {
    clock::set_virtual(None);
    check::set_quiet(false);
}

impl Chance for Choices {
    fn chance(&mut self, probability: f64) -> bool {
        Choices::chance(self, Kind::Packet, probability)
    }

    fn step(&mut self) -> u32 {
        self.choose(Kind::Latency, LATENCY_STEPS)
    }
}
