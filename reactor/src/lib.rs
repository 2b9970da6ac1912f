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
//!             reactor::spawn(move || {
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
//! # What may be relied on
//!
//! All coroutines of a process run on one thread. Between two calls that suspend nothing else runs, so `Rc`,
//! `Cell` and `RefCell` are the normal way to share, and nothing need be `Send`. A call that suspends says so
//! under *Suspends*: hold no `RefCell` borrow across it.
//!
//! A new coroutine runs at once, until it first suspends; then its parent goes on. [`spawn`] starts one that
//! owns what it uses, [`scope`] starts some that borrow. A panic goes to whoever joins the coroutine, and ends
//! [`run`] if nobody can.
//!
//! [`JoinHandle::terminate`] and [`timeout`] make the blocking call in which a coroutine sits unwind, with its
//! destructors. A destructor that runs while its coroutine unwinds must not suspend; sockets then fail at once.

#![deny(unsafe_code)]

mod backoff;
mod clock;
mod coroutine;
pub mod crypto;
mod driver;
mod dump;
mod engine;
pub mod fs;
pub mod fsm;
mod generator;
mod handle;
pub mod http;
mod interval;
mod io;
pub mod net;
mod offload;
mod parallel;
pub mod process;
mod race;
pub mod random;
pub mod remote;
pub mod rpc;
mod run;
mod scope;
mod select;
pub mod serialization;
pub mod signals;
pub mod sim;
pub mod sync;
mod timer;
mod watchdog;

pub use backoff::{Backoff, retry};
pub use clock::{now, wall_clock};
pub use coroutine::{
    Builder, JoinHandle, Local, SpawnError, Terminated, current_name, spawn, try_spawn, uninterruptible,
    yield_now,
};
pub use driver::set_busy_poll;
pub use dump::{CoroutineDump, CoroutineState, Dump, dump, dump_on_signal};
pub use generator::{Generator, Yielder, generator};
pub use handle::{Handle, RemoteTask, SubmitError};
pub use interval::{Interval, interval};
pub use io::read_until;
pub use offload::offload;
pub use parallel::for_each_parallel;
pub use race::{Task, join_all, race, task};
pub use run::run;
pub use scope::{Scope, ScopedJoinHandle, scope};
pub use select::{Alarm, Selectable, after, at, select, select_timeout};
pub use timer::{Elapsed, sleep, sleep_until, timeout};
pub use watchdog::{Watchdog, watchdog};
