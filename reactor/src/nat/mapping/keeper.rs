//! The coroutine that keeps mappings, and what others see of it.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::gateway::Gateway;
use super::lease::{Granted, Lease};
use super::router::{Check, Router};
use super::{Mapping, Port, Why};
use crate::clock::now;
use crate::coroutine::{Builder, JoinHandle};
use crate::net::is_of_the_internet;
use crate::random;
use crate::scope;
use crate::sync::Waiters;
use crate::{Backoff, timeout};

/// How often the router is asked whether it has kept what was mapped: whoever restarts one waits as long for his peers.
const CHECK_EVERY: Duration = Duration::from_secs(60);

/// And how soon again if it does not answer.
const CHECK_AGAIN: Duration = Duration::from_secs(10);

/// A router that does not answer so often in a row is gone, and its mappings with it. It takes some 40 s to begin anew.
const MISSES_MAX: u32 = 5;

/// The pause behind a router that maps nothing, before it is doubled: its settings may be changed, or it may be starting.
const PAUSE_FIRST: Duration = Duration::from_secs(10);
const PAUSE_MAX: Duration = Duration::from_secs(600);

/// How long giving up all mappings may take: two calls of a router by UPnP, which may be slow. What is left is over within an hour,
/// or, at routers that know no end of mappings, stays.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// A port that is to be mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wish {
    /// Which.
    pub port: Port,
    /// The address that its socket is bound to; `None` for all.
    pub bound: Option<Ipv4Addr>,
}

impl Wish {
    /// A port whose socket is bound to all addresses.
    #[must_use]
    pub fn any(port: Port) -> Wish {
        Wish { port, bound: None }
    }
}

/// Keeps mappings; see the module. When it is dropped they are left to end by themselves: [`Mapper::close`] gives them up.
pub struct Mapper {
    shared: Rc<Shared>,
    keeping: JoinHandle<()>,
}

struct Shared {
    ports: RefCell<BTreeMap<Port, Standing>>,
    /// What nobody wishes any more, and the router still has.
    dropped: RefCell<Vec<(Port, Granted)>>,
    seen: RefCell<Vec<Ipv4Addr>>,
    is_ending: Cell<bool>,
    /// Wakes the coroutine; `told` is that, for who comes before it waits.
    work: Waiters,
    told: Cell<bool>,
    changed: Waiters,
    /// How often something changed that others are told of.
    version: Cell<u64>,
}

#[derive(Clone, Copy)]
struct Standing {
    bound: Option<Ipv4Addr>,
    lease: Result<Lease, Why>,
    /// The outside port that it had last.
    suggested: u16,
    due: Option<Instant>,
}

impl Mapper {
    /// Begins; nothing is asked before something is wished. `secret` is the same at each start, and nobody else's: by it the
    /// router knows us again. `gateway` says which router that is, whenever it is asked; it may suspend.
    ///
    /// # Panics
    /// When there is no memory for another coroutine.
    ///
    /// # Suspends
    /// Never.
    pub fn start(secret: [u8; 32], gateway: impl Fn() -> Option<Gateway> + 'static) -> Mapper {
        let shared = Rc::new(Shared {
            ports: RefCell::default(),
            dropped: RefCell::default(),
            seen: RefCell::default(),
            is_ending: Cell::new(false),
            work: Waiters::new(&"a mapping to be renewed"),
            told: Cell::new(false),
            changed: Waiters::new(&"another mapping"),
            version: Cell::new(0),
        });
        let keeping = {
            let shared = shared.clone();
            let run = move || shared.keep(&secret, &gateway);
            Builder::new().name("port mapping").spawn(run).unwrap_or_else(|error| panic!("{error}"))
        };
        Mapper { shared, keeping }
    }

    /// Which ports are to be mapped from now on; those that were and are not among them are given up. Never suspends.
    pub fn wish(&self, wishes: &[Wish]) {
        self.shared.wish(wishes);
    }

    /// The mapping of a port, if others may be told of it; or why not. Never suspends.
    ///
    /// # Errors
    /// [`Why`].
    pub fn mapping(&self, port: Port) -> Result<Mapping, Why> {
        self.shared.mapping(port)
    }

    /// The addresses at which others see this machine. Where there are any, the router has to agree with one. Never suspends.
    pub fn seen_from_outside(&self, mut seen: Vec<Ipv4Addr>) {
        seen.sort_unstable();
        seen.dedup();
        if *self.shared.seen.borrow() != seen {
            self.shared.seen.replace(seen);
            self.shared.announce();
        }
    }

    /// Something has changed about this machine's network: the router is looked at now. Never suspends.
    pub fn look_again(&self) {
        for standing in self.shared.ports.borrow_mut().values_mut() {
            standing.due = Some(now());
        }
        self.shared.tell();
    }

    /// Counts what changes in what [`Mapper::mapping`] says. Never suspends.
    pub fn version(&self) -> u64 {
        self.shared.version.get()
    }

    /// Waits until [`Mapper::version`] is another than `seen`, or until `deadline`.
    ///
    /// # Suspends
    /// Until then.
    pub fn wait_changed(&self, seen: u64, deadline: Option<Instant>) {
        let _ = self.shared.changed.wait(deadline, || (self.version() != seen).then_some(()));
    }

    /// Waits until it is known whether a port has a mapping, or until `deadline`.
    ///
    /// # Errors
    /// [`Why`] it has none.
    ///
    /// # Suspends
    /// Until then.
    pub fn settled(&self, port: Port, deadline: Instant) -> Result<Mapping, Why> {
        let settled = || Some(self.mapping(port)).filter(|mapping| !matches!(mapping, Err(Why::Untried)));
        self.shared.changed.wait(Some(deadline), settled).unwrap_or(Err(Why::Untried))
    }

    /// Gives all mappings up.
    ///
    /// # Suspends
    /// Until the router was told, for two seconds at most.
    pub fn close(self) {
        self.shared.is_ending.set(true);
        self.wish(&[]);
        let _ = timeout(CLOSE_TIMEOUT, || self.keeping.join());
    }
}

impl Drop for Mapper {
    fn drop(&mut self) {
        self.keeping.terminate();
    }
}

impl Shared {
    fn tell(&self) {
        self.told.set(true);
        self.work.wake_all();
    }

    fn announce(&self) {
        self.version.set(self.version.get() + 1);
        self.changed.wake_all();
    }

    fn wish(&self, wishes: &[Wish]) {
        let mut ports = self.ports.borrow_mut();
        let is_wished =
            |port: &Port, standing: &Standing| wishes.contains(&Wish { port: *port, bound: standing.bound });
        let gone: Vec<Port> = ports
            .iter()
            .filter(|(port, standing)| !is_wished(port, standing))
            .map(|(port, _)| *port)
            .collect();
        for port in gone {
            if let Some(Standing { lease: Ok(lease), .. }) = ports.remove(&port) {
                self.dropped.borrow_mut().push((port, lease.granted));
            }
        }
        for Wish { port, bound } in wishes {
            let (suggested, due) = (port.number, Some(now()));
            let standing = Standing { bound: *bound, lease: Err(Why::Untried), suggested, due };
            ports.entry(*port).or_insert(standing);
        }
        drop(ports);
        self.announce();
        self.tell();
    }

    fn mapping(&self, port: Port) -> Result<Mapping, Why> {
        let lease = self.ports.borrow().get(&port).map_or(Err(Why::Untried), |standing| standing.lease)?;
        let Granted { protocol, external, lifetime } = lease.granted;
        if lease.is_over(now()) {
            return Err(Why::Silent);
        }
        match self.seen.borrow()[..] {
            [seen, ..] if !self.seen.borrow().contains(external.ip()) => {
                Err(Why::Disagrees { external: *external.ip(), seen })
            }
            _ => Ok(Mapping { external, protocol, lifetime_s: lifetime.map(|lifetime| lifetime.as_secs()) }),
        }
    }

    fn set(&self, port: Port, lease: Result<Lease, Why>, due: Option<Instant>) {
        let mut ports = self.ports.borrow_mut();
        let Some(standing) = ports.get_mut(&port) else {
            // It was given up while the router was asked.
            if let Ok(lease) = lease {
                self.dropped.borrow_mut().push((port, lease.granted));
            }
            return;
        };
        let is_news = match (&standing.lease, &lease) {
            (Ok(before), Ok(after)) => before.granted != after.granted,
            (before, after) => before != after,
        };
        if let Ok(lease) = &lease {
            standing.suggested = lease.granted.external.port();
        }
        (standing.lease, standing.due) = (lease, due);
        drop(ports);
        if is_news {
            match lease {
                Ok(lease) => tracing::debug!(?port, external = %lease.granted.external, "mapped"),
                Err(why) => tracing::debug!(?port, %why, "not mapped"),
            }
            self.announce();
        }
    }

    /// Nothing is mapped any more, for that reason.
    fn fail(&self, why: Why) {
        let all: Vec<Port> = self.ports.borrow().keys().copied().collect();
        for port in all {
            // One that could not be mapped has a reason of its own, unless there is nobody any more who could map it.
            let own = self.ports.borrow().get(&port).and_then(|standing| standing.lease.err());
            let own = own.filter(|own| *own != Why::Untried && why != Why::NoRouter);
            self.set(port, Err(own.unwrap_or(why)), None);
        }
        self.dropped.borrow_mut().clear();
    }

    /// All that the coroutine does, until it is terminated or all is given up.
    fn keep(&self, secret: &[u8; 32], gateway: &dyn Fn() -> Option<Gateway>) {
        let mut backoff = Backoff::new(PAUSE_FIRST, PAUSE_MAX);
        while !self.is_ending.get() {
            if self.ports.borrow().is_empty() {
                self.wait_for_work(None);
                continue;
            }
            let begun = now();
            match self.serve(secret, gateway) {
                Ok(()) => backoff.reset(),
                Err(why) => self.fail(why),
            }
            // A router that served for a while is looked for at once; one that maps nothing now and then.
            if now() < begun + CHECK_EVERY && !self.is_ending.get() {
                self.wait_for_work(Some(now() + backoff.next_delay(random::number())));
            } else {
                backoff.reset();
            }
        }
    }

    fn wait_for_work(&self, until: Option<Instant>) {
        let _ = self.work.wait(until, || self.told.take().then_some(()));
    }

    /// Keeps what one router maps, until it is gone, or another has taken its place, or there is nothing to be mapped.
    fn serve(&self, secret: &[u8; 32], gateway: &dyn Fn() -> Option<Gateway>) -> Result<(), Why> {
        let at = gateway().ok_or(Why::NoRouter)?;
        let mut router = Router::at(at, *secret).ok_or(Why::NoRouter)?;
        if is_of_the_internet(router.own().into()) {
            return Err(Why::NotNeeded);
        }
        self.wish_again();
        let (mut check_at, mut misses) = (now() + CHECK_EVERY, 0);
        loop {
            self.give_back(&router);
            self.map_due(&mut router)?;
            if self.ports.borrow().is_empty() && self.dropped.borrow().is_empty() {
                return Ok(());
            }
            let due = self.ports.borrow().values().filter_map(|standing| standing.due).min();
            let next = due.into_iter().chain([check_at]).min();
            if self.dropped.borrow().is_empty() {
                self.wait_for_work(next);
            }
            if self.is_ending.get() {
                continue;
            }
            if !router.is_at(gateway()) {
                // The leases at the other are out of our reach.
                self.fail(Why::Untried);
                self.wish_again();
                return Ok(());
            }
            if now() >= check_at {
                let check = router.check(&self.granted());
                misses = if check == Check::Silent { misses + 1 } else { 0 };
                check_at = now() + if misses == 0 { CHECK_EVERY } else { CHECK_AGAIN };
                match check {
                    Check::Lost => self.wish_again(),
                    Check::Silent if misses >= MISSES_MAX => return Err(Why::Silent),
                    Check::Kept | Check::Silent => {}
                }
            }
        }
    }

    /// Gives up what nobody wishes any more, all at once: whoever ends waits for it.
    fn give_back(&self, router: &Router) {
        let dropped = self.dropped.take();
        scope(|s| {
            for (port, granted) in &dropped {
                s.spawn(move || router.unmap(*port, granted));
            }
        });
    }

    /// All is to be mapped anew.
    fn wish_again(&self) {
        self.ports.borrow_mut().values_mut().for_each(|standing| standing.due = Some(now()));
    }

    fn granted(&self) -> Vec<(Port, Granted)> {
        let ports = self.ports.borrow();
        ports.iter().filter_map(|(port, standing)| Some((*port, standing.lease.ok()?.granted))).collect()
    }

    /// Maps what is due. It fails if nothing is mapped then.
    fn map_due(&self, router: &mut Router) -> Result<(), Why> {
        // Once at a time, whatever the router's clock shows.
        let mut may_begin_anew = true;
        loop {
            let due = self
                .ports
                .borrow()
                .iter()
                .find(|(_, standing)| standing.due.is_some_and(|due| due <= now()))
                .map(|(port, standing)| (*port, *standing));
            let Some((port, standing)) = due else { break };
            if standing.bound.is_some_and(|bound| bound != router.own()) {
                self.set(port, Err(Why::OtherNetwork), Some(now() + PAUSE_MAX));
                continue;
            }
            let asked_at = now();
            let mapped = router.map(port, standing.suggested);
            if router.take_forgotten() && std::mem::take(&mut may_begin_anew) {
                self.wish_again();
            }
            match (mapped, standing.lease) {
                (Ok(granted), _) => {
                    let lease = Lease::begun(granted, asked_at);
                    self.set(port, Ok(lease), Some(lease.next_due()));
                }
                // It may be busy, or restarting, and has promised.
                (Err(Why::Silent), Ok(mut lease)) if !lease.is_over(now()) => {
                    lease.on_not_renewed(now());
                    self.set(port, Ok(lease), Some(lease.next_due()));
                }
                (Err(why), _) => self.set(port, Err(why), Some(now() + PAUSE_MAX)),
            }
        }
        let ports = self.ports.borrow();
        let is_mapped = |standing: &Standing| standing.lease.is_ok();
        let why = ports.values().filter_map(|standing| standing.lease.err()).reduce(Why::or);
        match why {
            Some(why) if !ports.values().any(is_mapped) => Err(why),
            _ => Ok(()),
        }
    }
}
