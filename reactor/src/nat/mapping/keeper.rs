//! The coroutine that keeps mappings, and what others see of it. What is decided, `ports.rs` decides.

use std::cell::Cell;
use std::net::Ipv4Addr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::gateway::Gateway;
use super::lease::{Granted, LIFETIME, Lease};
use super::ports::Ports;
use super::router::{Check, Place, Router};
use super::{Mapping, Port, Why};
use crate::cell::RefCell;
use crate::clock::now;
use crate::coroutine::{Builder, JoinHandle};
use crate::net::is_of_the_internet;
use crate::net::route_changes;
use crate::random;
use crate::scope;
use crate::sync::Waiters;
use crate::{Backoff, timeout};

/// How often the router is asked whether it has kept what was mapped: whoever restarts one waits as long for his peers. As often
/// it is looked whether there is another router, where the kernel does not say so.
const CHECK_EVERY: Duration = Duration::from_secs(60);

/// And how soon again if it does not answer.
const CHECK_AGAIN: Duration = Duration::from_secs(10);

/// A router that does not answer so often in a row is asked for all mappings anew; if it does not answer to that either it is gone,
/// and they with it. It takes some 40 s to begin anew.
const MISSES_MAX: u32 = 5;

/// The pause behind a router that maps nothing, before it is doubled: its settings may be changed, or it may be starting.
const PAUSE_FIRST: Duration = Duration::from_secs(10);
const PAUSE_MAX: Duration = Duration::from_secs(600);

/// How long giving up all mappings may take: two calls of a router by UPnP, which may be slow. What is left is over within an hour,
/// or, at routers that know no end of mappings, stays.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// So long it is waited for what a router grants meanwhile that has answered nothing yet: it would have, by what it speaks
/// (`ask.rs`).
const CLOSE_UNANSWERED: Duration = Duration::from_millis(300);

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
    listening: JoinHandle<()>,
}

struct Shared {
    secret: [u8; 32],
    gateway: Box<dyn Fn() -> Option<Gateway>>,
    ports: RefCell<Ports>,
    seen: RefCell<Vec<Ipv4Addr>>,
    /// Where the router is that was looked for last, and we towards it; `None` if there was none.
    place: Cell<Option<Place>>,
    /// The same of the last that there was.
    asked: Cell<Option<Place>>,
    /// Whether it has answered anything.
    has_answered: Rc<Cell<bool>>,
    is_ending: Cell<bool>,
    /// Wakes the coroutine; `told` and `moved` are that, for who comes before it waits.
    work: Waiters,
    told: Cell<bool>,
    moved: Cell<bool>,
    changed: Waiters,
    /// How often something changed that others are told of.
    version: Cell<u64>,
}

impl Mapper {
    /// Begins; nothing is asked before something is wished. `secret` is the same at each start, and nobody else's: by it the
    /// router knows us again. `gateway` says which router that is, whenever it is asked; it may suspend.
    ///
    /// # Panics
    /// When there is no memory for two more coroutines.
    ///
    /// # Suspends
    /// Never.
    pub fn start(secret: [u8; 32], gateway: impl Fn() -> Option<Gateway> + 'static) -> Mapper {
        let shared = Rc::new(Shared {
            secret,
            gateway: Box::new(gateway),
            ports: RefCell::default(),
            seen: RefCell::default(),
            place: Cell::new(None),
            asked: Cell::new(None),
            has_answered: Rc::default(),
            is_ending: Cell::new(false),
            work: Waiters::new(&"a mapping to be renewed"),
            told: Cell::new(false),
            moved: Cell::new(false),
            changed: Waiters::new(&"another mapping"),
            version: Cell::new(0),
        });
        let keeping = {
            let shared = shared.clone();
            let run = move || shared.keep();
            Builder::new().name("port mapping").spawn(run).unwrap_or_else(|error| panic!("{error}"))
        };
        let listening = {
            let shared = shared.clone();
            let run = move || route_changes::watch(|| (), || shared.look_again());
            Builder::new().name("another router").spawn(run).unwrap_or_else(|error| panic!("{error}"))
        };
        Mapper { shared, keeping, listening }
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

    /// Something may have changed about this machine's network: it is looked now whether there is another router. The kernel says
    /// so by itself, but for what it does not know. Never suspends.
    pub fn look_again(&self) {
        self.shared.look_again();
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
    /// Until the router was told, for two seconds at most; for a third of one where nothing was mapped and it does not answer.
    pub fn close(self) {
        let until = now() + CLOSE_TIMEOUT;
        let rest = || until.saturating_duration_since(now());
        self.shared.is_ending.set(true);
        self.wish(&[]);
        let mut has_ended = timeout(CLOSE_UNANSWERED, || self.keeping.join()).is_ok();
        // It may be granting something just now, which is given back behind that.
        if !has_ended && self.shared.has_answered.get() {
            has_ended = timeout(rest(), || self.keeping.join()).is_ok();
        }
        if !has_ended {
            // Waited for, since it remembers as it unwinds what it was about to give back.
            let _ = timeout(rest(), || self.keeping.terminate_and_wait());
        }
        let _ = timeout(rest(), || self.shared.give_back_the_rest());
    }
}

impl Drop for Mapper {
    fn drop(&mut self) {
        self.keeping.terminate();
        self.listening.terminate();
    }
}

/// What the router is still to be told that nobody wants: noted when it is dropped.
struct Owed<'a> {
    ports: &'a RefCell<Ports>,
    entry: Option<(Port, Granted)>,
}

impl Owed<'_> {
    fn tell(mut self, router: &Router) {
        if let Some((port, granted)) = self.entry
            && router.unmap(port, &granted)
        {
            self.entry = None;
        }
    }
}

impl Drop for Owed<'_> {
    fn drop(&mut self) {
        if let Some((port, granted)) = self.entry {
            self.ports.borrow_mut().on_untold(port, granted);
        }
    }
}

impl Shared {
    fn tell(&self) {
        self.told.set(true);
        self.work.wake_all();
    }

    fn look_again(&self) {
        self.moved.set(true);
        self.work.wake_all();
    }

    fn announce(&self) {
        self.version.set(self.version.get() + 1);
        self.changed.wake_all();
    }

    fn wish(&self, wishes: &[Wish]) {
        self.ports.borrow_mut().wish(wishes, now());
        self.announce();
        self.tell();
    }

    fn mapping(&self, port: Port) -> Result<Mapping, Why> {
        let lease = self.ports.borrow().lease(port)?;
        let Granted { protocol, external, lifetime } = lease.granted;
        if lease.is_over(now()) {
            return Err(Why::Silent);
        }
        match self.seen.borrow()[..] {
            [seen, ..] if !self.seen.borrow().contains(external.ip()) => {
                Err(Why::Disagrees { external: *external.ip(), seen })
            }
            _ => {
                // For longer than was asked it is not believed, whatever is granted.
                let lifetime_s = lifetime.map(|lifetime| lifetime.min(LIFETIME).as_secs());
                Ok(Mapping { external, protocol, lifetime_s })
            }
        }
    }

    fn on_asked(&self, port: Port, bound: Option<Ipv4Addr>, lease: Result<Lease, Why>, due: Option<Instant>) {
        let is_news = self.ports.borrow_mut().on_asked(port, bound, lease, due);
        if is_news {
            match lease {
                Ok(lease) => tracing::debug!(?port, external = %lease.granted.external, "mapped"),
                Err(why) => tracing::debug!(?port, %why, "not mapped"),
            }
            self.announce();
        }
    }

    fn on_failed(&self, why: Why) {
        tracing::debug!(%why, "nothing is mapped");
        let is_news = self.ports.borrow_mut().on_failed(why);
        if is_news {
            self.announce();
        }
    }

    /// All that the coroutine does, until it is terminated or all is given up.
    fn keep(&self) {
        let mut backoff = Backoff::new(PAUSE_FIRST, PAUSE_MAX);
        while !self.is_ending.get() {
            // What a router did not answer to is told again until it does: it may keep that for good.
            self.ports.borrow_mut().tell_again();
            if self.ports.borrow().is_empty() && !self.ports.borrow().has_dropped() {
                self.wait_for_work(None);
                continue;
            }
            let begun = now();
            match self.serve() {
                Ok(()) if !self.ports.borrow().has_untold() => backoff.reset(),
                Ok(()) => {}
                Err(why) => self.on_failed(why),
            }
            // A router that served for a while is looked for at once; one that maps nothing now and then.
            if now() < begun + CHECK_EVERY && !self.is_ending.get() {
                self.pause(now() + backoff.next_delay(random::number()));
            } else {
                backoff.reset();
            }
        }
    }

    /// At the end: what the router had when it did not answer any more, or did not answer to.
    fn give_back_the_rest(&self) {
        self.ports.borrow_mut().tell_again();
        if self.ports.borrow().has_dropped()
            && let Some(router) = self.router()
        {
            self.give_back(&router);
        }
    }

    /// Waits until there is work, or until then; whether somebody has said that there is. Else the network may be another.
    fn wait_for_work(&self, until: Option<Instant>) -> bool {
        let is_told = || {
            let is_moved = self.moved.take();
            if self.told.take() { Some(true) } else { is_moved.then_some(false) }
        };
        self.work.wait(until, is_told).unwrap_or(false)
    }

    /// Waits until then, for another wish, or for another router than the one that maps nothing.
    fn pause(&self, until: Instant) {
        while Place::towards((self.gateway)()) == self.place.get() && now() < until {
            if self.wait_for_work(Some(until.min(now() + CHECK_EVERY))) {
                break;
            }
        }
    }

    /// The router that there is now, if there is one.
    fn router(&self) -> Option<Router> {
        let place = Place::towards((self.gateway)());
        self.place.set(place);
        let place = place?;
        // For a while there may have been none, and then the same. What it granted to an address that this machine had before
        // it has still.
        if self.asked.replace(Some(place)).is_some_and(|before| before.is_of_another_router(&place)) {
            self.ports.borrow_mut().on_other_router();
        }
        self.has_answered.set(false);
        Some(Router::at(place, self.secret, self.has_answered.clone()))
    }

    /// Keeps what one router maps, until it is gone, or another has taken its place, or there is nothing to be mapped.
    fn serve(&self) -> Result<(), Why> {
        let mut router = self.router().ok_or(Why::NoRouter)?;
        if is_of_the_internet(router.own().into()) {
            return Err(Why::NotNeeded);
        }
        self.wish_again();
        let (mut check_at, mut misses) = (now() + CHECK_EVERY, 0);
        loop {
            self.give_back(&router);
            let mapped = self.map_due(&mut router, misses < MISSES_MAX);
            if mapped.is_err() {
                // Nothing of what was granted before stays behind that.
                self.give_back(&router);
            }
            mapped?;
            misses %= MISSES_MAX;
            let (is_empty, has_dropped, next_due) = {
                let ports = self.ports.borrow();
                (ports.is_empty(), ports.has_dropped(), ports.next_due())
            };
            if is_empty && !has_dropped {
                return Ok(());
            }
            if !has_dropped {
                self.wait_for_work(next_due.into_iter().chain([check_at]).min());
            }
            if self.is_ending.get() {
                continue;
            }
            if Place::towards((self.gateway)()) != self.place.get() {
                self.on_failed(Why::Untried);
                return Ok(());
            }
            if now() >= check_at {
                self.ports.borrow_mut().tell_again();
                let granted = self.ports.borrow().granted();
                let check = router.check(&granted);
                misses = if check == Check::Silent { misses + 1 } else { 0 };
                check_at = now() + if misses == 0 { CHECK_EVERY } else { CHECK_AGAIN };
                if check == Check::Lost || misses >= MISSES_MAX {
                    self.wish_again();
                }
            }
        }
    }

    /// Gives up what nobody wishes any more, all at once: whoever ends waits for it. What the router was not told, since it does
    /// not answer or this was broken off, is remembered.
    fn give_back(&self, router: &Router) {
        let dropped = self.ports.borrow_mut().take_dropped();
        let owed: Vec<_> =
            dropped.into_iter().map(|entry| Owed { ports: &self.ports, entry: Some(entry) }).collect();
        scope(|s| {
            for owed in owed {
                s.spawn(move || owed.tell(router));
            }
        });
    }

    /// All is to be mapped anew.
    fn wish_again(&self) {
        self.ports.borrow_mut().wish_again(now());
    }

    /// Maps what is due. It fails if nothing is mapped then. `is_there` says whether a router that does not answer to that is
    /// believed to be there still.
    fn map_due(&self, router: &mut Router, is_there: bool) -> Result<(), Why> {
        // Once at a time, whatever the router's clock shows.
        let mut may_begin_anew = true;
        loop {
            let due = self.ports.borrow().due(now());
            let Some((port, standing)) = due else { break };
            let bound = standing.bound;
            if bound.is_some_and(|bound| bound != router.own()) {
                self.on_asked(port, bound, Err(Why::OtherNetwork), Some(now() + PAUSE_MAX));
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
                    self.on_asked(port, bound, Ok(lease), Some(lease.next_due()));
                }
                // It may be busy, or restarting, and has promised.
                (Err(Why::Silent), Ok(mut lease)) if is_there && !lease.is_over(now()) => {
                    lease.on_not_renewed(now());
                    self.on_asked(port, bound, Ok(lease), Some(lease.next_due()));
                }
                (Err(why), _) => self.on_asked(port, bound, Err(why), Some(now() + PAUSE_MAX)),
            }
        }
        self.ports.borrow().outcome()
    }
}
