//! What the RPC peers share: their command line, their certificate, and the load.
//!
//! `PROGRAM serve ADDRESS [CERTIFICATES]` echoes; `PROGRAM call ADDRESS IN_FLIGHT SIZE SECONDS [CERTIFICATES]`
//! calls. With a directory of certificates (`certificate.pem`, `key.pem`) the connection is encrypted. The caller
//! prints `begin` when it is warm and `end CALLS SECONDS CPU_SECONDS` when its time is over, of itself alone: who
//! started it reads the server's processor time at these two lines.

use rustix::time::{ClockId, clock_gettime};
use std::cell::Cell;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, Instant};
use tokio::task::LocalSet;

/// What the command line asks for.
pub enum Task {
    /// Echo at this address.
    Serve(SocketAddr),
    /// Call the server at this address.
    Call(SocketAddr, Load),
}

/// What a caller does.
#[derive(Clone, Copy)]
pub struct Load {
    /// Calls that wait at once.
    pub in_flight: usize,
    /// Bytes there, and back again.
    pub size_bytes: usize,
    /// How long is measured, after a quarter of it to warm up.
    pub duration: Duration,
}

/// Returns the task, and where the certificates are if it shall be encrypted; ends the process on a wrong line.
pub fn arguments() -> (Task, Option<PathBuf>) {
    parse(&std::env::args().skip(1).collect::<Vec<_>>()).unwrap_or_else(|| {
        eprintln!("usage: serve ADDRESS [CERTIFICATES] | call ADDRESS IN_FLIGHT SIZE SECONDS [CERTIFICATES]");
        std::process::exit(2)
    })
}

fn parse(arguments: &[String]) -> Option<(Task, Option<PathBuf>)> {
    let (word, rest) = arguments.split_first()?;
    let (address, rest) = rest.split_first()?;
    let address = address.parse().ok()?;
    let (task, rest) = match word.as_str() {
        "serve" => (Task::Serve(address), rest),
        "call" => {
            let ([in_flight, size, seconds], rest) = rest.split_first_chunk()?;
            let duration = Duration::try_from_secs_f64(seconds.parse().ok()?).ok()?;
            let (in_flight, size_bytes) = (in_flight.parse().ok()?, size.parse().ok()?);
            (Task::Call(address, Load { in_flight, size_bytes, duration }), rest)
        }
        _ => return None,
    };
    Some((task, rest.first().map(PathBuf::from)))
}

/// Runs `main` on one thread, as a server of ours would.
pub fn run<T>(main: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("tokio starts");
    LocalSet::new().block_on(&runtime, main)
}

/// Keeps `load.in_flight` calls going and reports. `call` gets the payload and returns the answer's.
pub async fn drive<F: Future<Output = usize> + 'static>(load: Load, call: impl Fn() -> F + Clone + 'static) {
    assert_eq!(call().await, load.size_bytes, "the server does not echo");
    let calls = Rc::new(Cell::new(0u64));
    for _ in 0..load.in_flight {
        let (calls, call) = (calls.clone(), call.clone());
        tokio::task::spawn_local(async move {
            loop {
                assert_eq!(call().await, load.size_bytes, "the server does not echo");
                calls.set(calls.get() + 1);
            }
        });
    }
    tokio::time::sleep(load.duration / 4).await;
    println!("begin");
    let (begin, cpu, count) = (Instant::now(), processor_time(), calls.get());
    tokio::time::sleep(load.duration).await;
    let (elapsed, cpu) = (begin.elapsed(), processor_time() - cpu);
    println!("end {} {} {}", calls.get() - count, elapsed.as_secs_f64(), cpu.as_secs_f64());
    std::process::exit(0);
}

fn processor_time() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ProcessCPUTime)).expect("it is not negative")
}
