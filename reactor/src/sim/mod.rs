//! A world in a box: virtual time, a network and disks that fail, and an order of events that a seed decides.
//!
//! [`run`] is [`crate::run`] for such a world. The code inside is the production code: its `sleep`, `timeout`,
//! sockets and randomness are the world's, because its coroutines belong to the world. An hour of waiting costs
//! no time, and the same seed gives the same run, event by event: [`World::trace_hash`] says so.
//!
//! ```
//! use std::io::{Read, Write};
//! use std::time::Duration;
//! use reactor::net::{TcpListener, TcpStream};
//! use reactor::sim::{self, Latency, Link, SimConfig};
//!
//! // Twenty networks that lose packets, each in its own way; a failing one is shrunk, and told as a story.
//! sim::check(&SimConfig::default(), 0..20, |world| {
//!     let far = Latency::Uniform(Duration::from_millis(10), Duration::from_millis(50));
//!     world.link_all(Link::new(far).with_loss(0.1));
//!     let (server, client) = (world.host("server"), world.host("client"));
//!     server.start(|| {
//!         let listener = TcpListener::bind("0.0.0.0:7").unwrap();
//!         loop {
//!             let (mut client, _) = listener.accept().unwrap();
//!             client.write_all(b"hello").unwrap();
//!         }
//!     });
//!     let asked = client.start(|| {
//!         let mut stream = TcpStream::connect(("server", 7)).unwrap();
//!         let mut greeting = String::new();
//!         stream.read_to_string(&mut greeting).unwrap();
//!         assert_eq!(greeting, "hello");
//!     });
//!     asked.wait();
//!     server.crash();
//!     assert!(world.elapsed() > Duration::from_millis(40), "it took two round trips");
//! });
//! ```
//!
//! A test that fails only in some order of events prints its seed (`HYPHA_SEED` brings it back) and the plainest run
//! that fails the same way. What runs inside must take time from [`crate::now`] and [`crate::wall_clock`], randomness
//! from [`crate::random`], and must not let the order of a `HashMap` decide anything.
//!
//! What it is not: a model of code that leaves the reactor's thread. Threads, descriptors of the kernel and `std::time`
//! are the real ones, and what comes from them is not repeatable. Nor is what libraries draw for themselves: TLS has its
//! time from the world, but its keys and signatures from the system (signatures of ECDSA differ in length, so that bytes
//! and times differ with them; certificates with Ed25519 keys keep their sizes), and a WebSocket client its masks.

mod check;
mod choices;
mod disk;
mod events;
mod files;
mod host;
mod machine;
mod nat;
mod network;
mod router;
mod tcp;
mod trace;
mod udp;
mod world;

use std::fmt;
use std::rc::Rc;
use std::time::Duration;

pub use check::{Failure, Outcome, check, find_failure, replay};
pub use choices::{Choice, Kind};
pub(crate) use events::EventKey;
pub use files::DiskFaults;
pub(crate) use files::Files;
pub(crate) use host::Process;
pub use machine::{Host, Running};
pub use nat::{Filtering, Mapping, Nat};
pub use network::{Latency, Link};
pub use router::Router;
pub(crate) use tcp::{TcpListener, TcpStream};
pub(crate) use udp::UdpSocket;

use crate::clock;
use crate::coroutine;
use crate::scope;
use choices::Choices;
use trace::What;
use world::Inner;
pub(crate) use world::leave;

/// How a world is.
#[derive(Clone, Debug)]
pub struct SimConfig {
    /// Runnable coroutines go on in the order they became so; else in an order that the seed decides.
    pub first_come_first_served: bool,
    /// How often coroutines may go on before the run counts as endless: a loop that never waits for time.
    pub steps_max: u64,
    /// The longest that work given to [`crate::offload`] takes.
    pub offload_max: Duration,
    /// How machines reach each other where [`World::link`] has not said otherwise.
    pub link: Link,
    /// Bytes that a connection takes in each direction before a writer waits for the reader.
    pub tcp_window_bytes: usize,
}

impl Default for SimConfig {
    fn default() -> Self {
        SimConfig {
            first_come_first_served: false,
            // A thousand coroutines that wake each second for an hour take 3.6 million.
            steps_max: 50_000_000,
            // A busy disk's flush.
            offload_max: Duration::from_millis(5),
            link: Link::default(),
            // Linux's default for a receiver (`net.ipv4.tcp_rmem`), and as much for a sender.
            tcp_window_bytes: 256 * 1024,
        }
    }
}

/// A simulated world, to the test that runs in it.
#[derive(Clone)]
pub struct World {
    inner: Rc<Inner>,
}

impl World {
    /// The virtual time that has passed.
    pub fn elapsed(&self) -> Duration {
        self.inner.elapsed()
    }

    /// A hash over all that has happened: times, actors, sizes. Two runs with one seed give the same.
    pub fn trace_hash(&self) -> u64 {
        self.inner.trace.borrow().hash()
    }

    /// The machine of that name; a new one the first time.
    pub fn host(&self, name: &str) -> Host {
        Host::new(&self.inner, self.inner.host(name))
    }

    /// Puts a router between those machines, which are in one network behind it, and all others; before any of them is started,
    /// since they may get other addresses by it.
    ///
    /// How packets travel is still a matter between machines: [`World::link`] and [`World::partition`] are about the whole way.
    ///
    /// # Panics
    ///
    /// When a machine is behind a router already, or there is none.
    pub fn router(&self, nat: Nat, behind: &[&Host]) -> Router {
        self.inner.add_router(nat, behind)
    }

    /// Sets how packets travel between two machines, both ways.
    pub fn link(&self, a: &Host, b: &Host, link: Link) {
        self.link_one_way(a, b, link);
        self.link_one_way(b, a, link);
    }

    /// Sets how packets travel from one machine to another.
    pub fn link_one_way(&self, from: &Host, to: &Host, link: Link) {
        self.inner.network.borrow_mut().set_link(from.index(), to.index(), link);
    }

    /// Sets how packets travel wherever [`World::link`] has not said otherwise.
    pub fn link_all(&self, link: Link) {
        self.inner.network.borrow_mut().set_default(link);
    }

    /// Cuts two machines off from each other. What is under way still arrives; connections stay, and time out
    /// if it lasts.
    pub fn partition(&self, a: &Host, b: &Host) {
        self.partition_one_way(a, b);
        self.partition_one_way(b, a);
    }

    /// Lets nothing from one machine reach another.
    pub fn partition_one_way(&self, from: &Host, to: &Host) {
        self.set_cut(from, to, true);
    }

    /// Ends a partition, both ways.
    pub fn heal(&self, a: &Host, b: &Host) {
        self.set_cut(a, b, false);
        self.set_cut(b, a, false);
    }

    fn set_cut(&self, from: &Host, to: &Host, cut: bool) {
        if self.inner.network.borrow().is_cut(from.index(), to.index()) == cut {
            return;
        }
        self.inner.network.borrow_mut().set_cut(from.index(), to.index(), cut);
        self.inner.note(What::Link, from.index() as u64, (to.index() as u64) << 1 | u64::from(cut));
        let word = if cut { "can no longer reach" } else { "can reach" };
        self.inner.tell(|| format!("{} {word} {}", from.name(), to.name()));
    }

    /// One of `count` ways, by the seed; 0 in the plainest run.
    pub fn choose(&self, count: u32) -> u32 {
        self.inner.choose(Kind::Test, count)
    }

    /// True with `probability`, by the seed; false in the plainest run.
    pub fn chance(&self, probability: f64) -> bool {
        self.inner.chance(Kind::Test, probability)
    }

    /// Takes `value` into the trace: for what the test itself observes.
    pub fn note(&self, value: u64) {
        self.inner.note(What::Test, 0, value);
    }

    /// Adds a line to the story, if this run is going to be told.
    pub fn tell(&self, line: impl FnOnce() -> String) {
        self.inner.tell(line);
    }
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("World").field("elapsed", &self.elapsed()).finish_non_exhaustive()
    }
}

/// Runs `main` in a world of its own, made from `seed`, until it returns; blocks the calling thread.
///
/// Like [`crate::run`]: what still runs then is terminated and has unwound when this returns. `main` runs on a
/// machine named "test".
///
/// # Panics
///
/// As [`crate::run`] does; and when all coroutines wait for each other, or there is no end.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use reactor::sim::{self, SimConfig};
///
/// let slept = sim::run(1, SimConfig::default(), |world| {
///     reactor::sleep(Duration::from_secs(3600));
///     world.elapsed()
/// });
/// assert_eq!(slept, Duration::from_secs(3600));
/// ```
pub fn run<T: Send>(seed: u64, config: SimConfig, main: impl FnOnce(&World) -> T + Send) -> T {
    crate::run(move || {
        let world = Inner::new(config, Choices::seeded(seed, false), seed, false);
        simulate(&world, main)
    })
}

/// Stack of the test's own coroutine, as that of `reactor::run`'s.
const MAIN_STACK_SIZE_BYTES: usize = 2 * 1024 * 1024;

fn simulate<T>(inner: &Rc<Inner>, main: impl FnOnce(&World) -> T) -> T {
    let world = World { inner: inner.clone() };
    let group = inner.new_group(&inner.host("test"));
    // However it ends: the world's parts refer to each other.
    struct Clear<'a>(&'a Inner);
    impl Drop for Clear<'_> {
        fn drop(&mut self) {
            self.0.clear();
        }
    }
    let _clear = Clear(inner);
    let result = scope(|s| {
        let main = s.spawn_in(group, MAIN_STACK_SIZE_BYTES, || main(&world));
        inner.pump(|| main.is_finished());
        main.join()
    });
    if let Some(failure) = inner.take_failure() {
        std::panic::resume_unwind(failure);
    }
    result.unwrap_or_else(|_| panic!("the simulation's main coroutine was terminated"))
}

/// The process that the running code belongs to, if it is a simulated one.
#[inline]
pub(crate) fn here() -> Option<Rc<Process>> {
    if clock::is_virtual() { coroutine::current().group().process().cloned() } else { None }
}

/// Blocking work in a simulation: done at once, in some virtual time.
pub(crate) fn offload<T>(process: &Process, f: impl FnOnce() -> T) -> T {
    let result = f();
    let world = process.world();
    // A thousandth of the range is fine enough to change the order of things.
    let share = world.choose(Kind::Offload, 1000);
    crate::sleep(world.config.offload_max * share / 1000);
    result
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cell::RefCell;
    use crate::{now, sleep, sleep_until, spawn, timeout, yield_now};
    use std::time::Instant;

    fn ms(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    /// Who of three went on when, by `seed`.
    fn order_of_three(seed: u64, config: SimConfig) -> (Vec<u32>, u64) {
        run(seed, config, |world| {
            let order = Rc::new(RefCell::new(Vec::new()));
            let children: Vec<_> = (0..3)
                .map(|n| {
                    let order = order.clone();
                    spawn(move || {
                        for _ in 0..3 {
                            yield_now();
                            order.borrow_mut().push(n);
                        }
                    })
                })
                .collect();
            for child in children {
                child.join().unwrap();
            }
            let order = order.borrow().clone();
            (order, world.trace_hash())
        })
    }

    #[test]
    fn the_same_seed_gives_the_same_schedule_and_another_seed_another() {
        let first = order_of_three(1, SimConfig::default());
        assert_eq!(first, order_of_three(1, SimConfig::default()));
        assert!((2..20).any(|seed| order_of_three(seed, SimConfig::default()).0 != first.0));
        let plain = SimConfig { first_come_first_served: true, ..SimConfig::default() };
        assert_eq!(order_of_three(1, plain).0, [0, 1, 2, 0, 1, 2, 0, 1, 2]);
    }

    #[test]
    fn virtual_time_passes_only_while_everyone_waits() {
        run(1, SimConfig::default(), |world| {
            let start = now();
            assert_eq!(timeout(ms(50), || sleep(Duration::from_secs(60))), Err(crate::Elapsed));
            assert_eq!(world.elapsed(), ms(50));
            assert_eq!(now() - start, ms(50));
            (0..100).for_each(|_| yield_now());
            assert_eq!(world.elapsed(), ms(50));
            sleep_until(start + ms(70));
            assert_eq!(world.elapsed(), ms(70));
            assert_eq!(crate::offload(|| 5), 5);
            assert!(world.elapsed() < ms(75));
        });
        assert!(!clock::is_virtual());
    }

    #[test]
    fn real_coroutines_keep_the_real_clock_while_a_simulation_runs_beside_them() {
        let simulation = std::thread::spawn(|| {
            run(1, SimConfig::default(), |_| (0..1000).for_each(|_| sleep(Duration::from_secs(1))));
        });
        crate::run(|| {
            for _ in 0..20 {
                let before = Instant::now();
                sleep(ms(1));
                assert!(now() >= before + ms(1) && now() <= Instant::now());
            }
        });
        simulation.join().unwrap();
    }

    #[test]
    fn what_still_runs_when_main_returns_is_terminated() {
        struct Tell(std::sync::mpsc::Sender<Duration>, World);
        impl Drop for Tell {
            fn drop(&mut self) {
                self.0.send(self.1.elapsed()).unwrap();
            }
        }
        let (sender, ended) = std::sync::mpsc::channel();
        run(1, SimConfig::default(), |world| {
            let tell = Tell(sender, world.clone());
            spawn(move || {
                let _tell = tell;
                sleep(Duration::from_secs(60));
            });
            sleep(ms(1));
        });
        assert_eq!(ended.try_recv(), Ok(ms(1)));
    }

    #[test]
    #[should_panic(expected = "deadlock: after 7.000 ms")]
    fn a_deadlock_is_reported() {
        run(1, SimConfig::default(), |_| {
            sleep(ms(7));
            crate::sync::Signal::new().wait();
        });
    }

    #[test]
    #[should_panic(expected = "has not ended after 1000 steps")]
    fn a_loop_that_never_waits_for_time_is_reported() {
        let config = SimConfig { steps_max: 1000, ..SimConfig::default() };
        run(1, config, |_| {
            loop {
                yield_now();
            }
        });
    }

    #[test]
    #[should_panic(expected = "nobody joins this one")]
    fn a_panic_that_nobody_joins_fails_the_run() {
        run(1, SimConfig::default(), |_| {
            spawn(|| {
                sleep(ms(1));
                panic!("nobody joins this one");
            });
            sleep(ms(5));
        });
    }

    #[test]
    fn randomness_comes_from_the_seed() {
        let bytes = |seed| run(seed, SimConfig::default(), |_| crate::crypto::random_bytes::<32>());
        assert_eq!(bytes(1), bytes(1));
        assert_ne!(bytes(1), bytes(2));
    }

    #[test]
    fn the_wall_clock_shows_a_day_that_the_world_decides() {
        let shown = || run(1, SimConfig::default(), |_| (sleep(ms(3)), crate::wall_clock()).1);
        assert_eq!(shown(), shown());
    }
}
