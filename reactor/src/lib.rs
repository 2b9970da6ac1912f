//! Sequential network code on one thread: many stackful coroutines, no callbacks, no `async`.
//!
//! A server is a loop that accepts, and each client a loop that reads and writes:
//!
//! ```
//! use std::io::{BufReader, Write};
//! use reactor::net::{TcpListener, TcpStream};
//!
//! reactor::run(|| {
//!     let listener = TcpListener::bind("127.0.0.1:0").unwrap();
//!     let address = listener.local_addr().unwrap();
//!
//!     let server = reactor::spawn(move || {
//!         loop {
//!             let (client, _) = listener.accept().unwrap();
//!             // Without memory for another coroutine this client is turned away, and the others are served on.
//!             let _ = reactor::try_spawn(move || {
//!                 let mut reader = BufReader::new(&client);
//!                 while let Ok(line) = reactor::read_until(&mut reader, b'\n', 1024) {
//!                     if line.is_empty() || (&client).write_all(&line).is_err() {
//!                         break;
//!                     }
//!                 }
//!             });
//!         }
//!     });
//!
//!     let mut client = TcpStream::connect(address).unwrap();
//!     client.write_all(b"hello\n").unwrap();
//!     let answer = reactor::read_until(&mut BufReader::new(&client), b'\n', 1024).unwrap();
//!     assert_eq!(answer, b"hello\n");
//!     server.terminate();
//! });
//! ```
//!
//! # Many at once
//!
//! [`spawn`] starts a coroutine that goes on by itself. [`scope`] starts some that borrow from where they are
//! started and end before it does, [`race`] takes the first result and ends the rest, [`for_each_parallel`] does the
//! same to many things, a few at a time:
//!
//! ```
//! use std::time::Duration;
//!
//! reactor::run(|| {
//!     let words = ["one", "two", "three"];
//!     let sizes = reactor::scope(|s| words.map(|word| s.spawn(move || word.len())).map(|child| child.join()));
//!     assert_eq!(sizes, [Ok(3), Ok(3), Ok(5)]);
//!
//!     let slow = reactor::task(|| { reactor::sleep(Duration::from_secs(60)); "slow" });
//!     let quick = reactor::task(|| "quick");
//!     assert_eq!(reactor::race([slow, quick]), "quick");
//!
//!     let squares = reactor::for_each_parallel(2, 1..4, |n| Ok::<_, ()>(n * n));
//!     assert_eq!(squares, Ok(vec![1, 4, 9]));
//! });
//! ```
//!
//! # Giving up
//!
//! Any call that suspends can be cut short, by [`timeout`] or by [`JoinHandle::terminate`]. It then unwinds, so that
//! destructors run and nothing is left behind; [`uninterruptible`] holds that back where half of something would do harm.
//!
//! ```
//! use std::time::Duration;
//! use reactor::sync::channel;
//!
//! reactor::run(|| {
//!     let (sender, receiver) = channel::<u32>(1);
//!     let waited = reactor::timeout(Duration::from_millis(1), || receiver.recv());
//!     assert!(waited.is_err());
//!     sender.send(7).unwrap(); // nothing was lost
//!     assert_eq!(receiver.recv(), Ok(7));
//!
//!     let sleeper = reactor::spawn(|| reactor::sleep(Duration::from_secs(60)));
//!     assert!(sleeper.terminate_and_wait().is_err());
//! });
//! ```
//!
//! # Waiting for each other
//!
//! [`sync`] has what is needed across a suspension; [`select`] waits for the first of several sources, and a
//! [`RefCell`](cell::RefCell) serves wherever nothing suspends in between. Blocking work goes to other threads with [`offload`], or by
//! itself in [`fs`] and [`process`]; other threads reach in through a [`Handle`].
//!
//! ```
//! use std::time::Duration;
//! use reactor::sync::channel;
//!
//! reactor::run(|| {
//!     let (sender, receiver) = channel(1);
//!     reactor::spawn(move || sender.send("news"));
//!     let patience = reactor::after(Duration::from_secs(60));
//!     match reactor::select(&[&receiver, &patience]) {
//!         0 => assert_eq!(receiver.recv(), Ok("news")),
//!         _ => unreachable!("a minute has not passed"),
//!     }
//!     assert_eq!(reactor::offload(|| 6 * 7), 42); // on another thread
//! });
//! ```
//!
//! # Protocols
//!
//! [`http`] is HTTP/1.1 both ways, WebSocket and events included; [`rpc`] makes a remote service of a trait; [`fsm`]
//! runs a protocol whose phases are pieces of code. TLS is in [`net::tls`].
//!
//! ```
//! use reactor::http::{Method, Server, client::Client};
//! use reactor::net::TcpListener;
//!
//! reactor::run(|| {
//!     let listener = TcpListener::bind("127.0.0.1:0").unwrap();
//!     let url = format!("http://{}/hello/world", listener.local_addr().unwrap());
//!     let server = Server::new()
//!         .route(Method::GET, "/hello/{name}", |request| format!("hello, {}", request.param("name").unwrap()))
//!         .start(listener);
//!
//!     let response = Client::new().get(&url).send().unwrap();
//!     assert_eq!(response.text(1024).unwrap(), "hello, world");
//!     server.stop();
//! });
//! ```
//!
//! # Programs and tests
//!
//! [`macro@main`] puts a program's body into the reactor, and [`macro@test`] a test's, which then fails by whatever any of its
//! coroutines panics with and nobody catches. With `seeds` a test runs in simulated worlds.
//!
//! ```
//! #[reactor::test(seeds = 0..500)]
//! fn nothing_is_lost(world: &reactor::sim::World) {
//!     // ...
//! #   let _ = world;
//! }
//!
//! #[reactor::main]
//! fn main() {
//!     println!("hello from {}", reactor::current_name());
//! }
//! ```
//!
//! # Trying it without a network
//!
//! In [`sim`] the same code runs in a world of its own: an hour of waiting costs no time, packets are lost and
//! machines crash as a seed decides, and a run that fails can be repeated, made smaller, and read as a story.
//!
//! ```
//! use std::io::{Read, Write};
//! use reactor::net::{TcpListener, TcpStream};
//! use reactor::sim::{self, Latency, Link, SimConfig};
//! use std::time::Duration;
//!
//! sim::run(1, SimConfig::default(), |world| {
//!     world.link_all(Link::new(Latency::Constant(Duration::from_millis(50))));
//!     let host = world.host("server");
//!     host.start(|| {
//!         let listener = TcpListener::bind("0.0.0.0:80").unwrap();
//!         let (mut client, _) = listener.accept().unwrap();
//!         client.write_all(b"hello").unwrap();
//!     });
//!     let mut stream = TcpStream::connect_one((host.address(), 80).into()).unwrap();
//!     let mut answer = String::new();
//!     stream.read_to_string(&mut answer).unwrap();
//!     assert_eq!(answer, "hello");
//!     assert!(world.elapsed() >= Duration::from_millis(100)); // there and back
//! });
//! ```
//!
//! # Looking inside
//!
//! Coroutines have names ([`Builder::name`]), storage of their own ([`Local`]) and the `tracing` span that they were
//! in when they last suspended. [`dump()`] tells what each waits for and since when, [`dump_with_stacks`] in which calls
//! it is ([`dump_on_signal`]: whenever the process gets SIGUSR2), and a [`watchdog`] names whoever keeps the thread too
//! long. The programs of `examples/` are each a page: echo, chat, a proxy, WebSocket, RPC, a port forwarder, a dialogue,
//! a crawler.
//!
//! # What may be relied on
//!
//! All coroutines of a reactor run on one thread: the one that called [`run`]. Between two calls that suspend nothing else runs, so `Rc`,
//! `Cell` and [`cell::RefCell`] are the normal way to share, and nothing need be `Send`. A call that suspends says so
//! under *Suspends*: hold no borrow across it, whether it has to wait or not. In debug builds that is a panic, which names the place.
//!
//! A new coroutine runs at once, until it first suspends; then its parent goes on. A panic goes to whoever joins the
//! coroutine, or to its scope, and ends [`run`] if nobody can: nothing fails silently. The first failure in a scope
//! terminates its other children and is raised where the scope is; later ones are logged.
//!
//! A destructor that runs while its coroutine unwinds must not suspend; sockets then fail at once. Code that catches
//! the unwinding of a termination, and goes on, is logged, and its next call that suspends unwinds again.

//!
//! # Features
//!
//! All are on by default. With `default-features = false` what is left are coroutines, timers, channels, signals, files on
//! threads, the simulator, and sockets by numeric address; a program takes what it uses:
//!
//! | feature | brings |
//! | --- | --- |
//! | `macros` | `#[reactor::test]`, `#[reactor::main]` |
//! | `dns` | names where addresses go |
//! | `fs-uring` | files by io_uring |
//! | `process` | child processes |
//! | `fsm` | protocols as state machines |
//! | `serialization` | values as bytes |
//! | `crypto` | keys, hashes, sealing |
//! | `tls` | TLS, certificates |
//! | `http`, `websocket` | HTTP servers and clients, over TLS too; WebSockets |
//! | `rpc` | calls, services |
//! | `quic` | QUIC, and the traversal of NATs, which shares its sockets |
//!
//! The simulator is no feature: sockets and files are made with it, and it brings no crate.

#![deny(unsafe_code)]
// What only the protocols use of the core stays in it without them: a `cfg` at each would say less and cost more.
#![cfg_attr(not(all(feature = "http", feature = "quic", feature = "rpc")), allow(dead_code))]

#[cfg(not(panic = "unwind"))]
compile_error!("timeouts and terminations unwind: build with `panic = \"unwind\"`, which is cargo's default");

mod backoff;
pub mod cell;
mod clock;
mod coroutine;
#[cfg(feature = "crypto")]
pub mod crypto;
#[expect(clippy::disallowed_types, reason = "below `cell`")]
mod driver;
mod dump;
#[expect(clippy::disallowed_types, reason = "below `cell`")]
mod engine;
mod error;
pub mod fs;
#[cfg(feature = "fsm")]
pub mod fsm;
mod generator;
mod handle;
#[cfg(feature = "http")]
pub mod http;
mod interval;
mod io;
#[cfg(feature = "quic")]
pub mod nat;
pub mod net;
mod offload;
mod parallel;
#[cfg(feature = "process")]
pub mod process;
mod race;
pub mod random;
pub mod remote;
#[cfg(feature = "rpc")]
pub mod rpc;
mod run;
mod scope;
mod seldom;
mod select;
#[cfg(feature = "serialization")]
pub mod serialization;
pub mod signals;
pub mod sim;
pub mod suspension;
pub mod sync;
mod timer;
mod watchdog;

pub use backoff::{Backoff, retry};
pub use clock::{file_clock, now, slept, wall_clock};
pub use coroutine::{
    Builder, JoinHandle, Local, SpawnError, Terminated, catch_panic, current_name, spawn, try_spawn,
    uninterruptible, yield_now,
};
pub use driver::set_busy_poll;
pub use dump::{CoroutineDump, CoroutineState, Dump, Stack, dump, dump_on_signal, dump_with_stacks};
pub use engine::set_default_stack_size_bytes;
pub use generator::{Generator, Yielder, generator};
pub use handle::{Handle, RemoteTask, SubmitError};
pub use interval::{Interval, interval};
pub use io::read_until;
pub use offload::offload;
#[doc(hidden)]
pub use offload::run_test;
pub use parallel::for_each_parallel;
pub use race::{Task, join_all, race, task};
/// Runs a program in the reactor: `main`'s body becomes the main coroutine of a [`run`].
///
/// What `main` returns goes to the process as usual: an error is printed, and the exit status is 1.
///
/// # Panics
///
/// As [`run`] does.
///
/// # Examples
///
/// ```
/// use std::io::{self, Write};
/// use reactor::net::{TcpListener, TcpStream};
///
/// #[reactor::main]
/// fn main() -> io::Result<()> {
///     let listener = TcpListener::bind("127.0.0.1:0")?;
///     let address = listener.local_addr()?;
///     let server = reactor::spawn(move || listener.accept().map(|(mut client, _)| client.write_all(b"hello")));
///     let greeting = io::read_to_string(TcpStream::connect(address)?)?;
///     assert_eq!(greeting, "hello");
///     server.join().unwrap()?
/// }
/// ```
#[cfg(feature = "macros")]
pub use reactor_macros::main;
/// Runs a test in the reactor; or, where it has `seeds`, in a simulated world for each of them.
///
/// A panic that nobody catches fails the test whose coroutine it was, with its message, place and backtrace in that test's
/// own output; so does one that nobody joins, and an error that the body returns. `#[should_panic]` and other attributes go together with
/// it. Tests run side by side, each in a reactor of its own.
///
/// With `seeds = 0..500` the body runs in 500 worlds ([`sim::check`]), and may take the [`sim::World`] that it is in as
/// its argument. One that fails is told with its seed and the story of the plainest world that fails the same way. The
/// environment variable `HYPHA_SEED` chooses one seed in place of all: `HYPHA_SEED=17 cargo test NAME`. The worlds are as
/// [`sim::SimConfig::default`] says, or as an expression for `config`.
/// The body may return a `Result` here too ([`sim::Outcome`]).
///
/// Both attributes name this crate `reactor`: it cannot be renamed where they are used.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use reactor::sim::{Latency, Link, SimConfig, World};
///
/// #[reactor::test]
/// fn a_nap_is_over_soon() -> Result<(), reactor::Elapsed> {
///     reactor::timeout(Duration::from_secs(60), || reactor::sleep(Duration::from_millis(1)))
/// }
///
/// #[reactor::test(seeds = 0..20, config = SimConfig { first_come_first_served: true, ..SimConfig::default() })]
/// fn an_hour_costs_no_time(world: &World) {
///     world.link_all(Link::new(Latency::Constant(Duration::from_millis(5))).with_loss(0.1));
///     reactor::sleep(Duration::from_secs(3600));
///     assert_eq!(world.elapsed(), Duration::from_secs(3600));
/// }
/// ```
#[cfg(feature = "macros")]
pub use reactor_macros::test;
pub use run::run;
pub use scope::{Scope, ScopedJoinHandle, scope};
pub use select::{Alarm, Selectable, after, at, select, select_timeout};
pub use timer::{Elapsed, sleep, sleep_until, timeout};
pub use watchdog::{Watchdog, watchdog};
