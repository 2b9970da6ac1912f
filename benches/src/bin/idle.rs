//! 10,000 and 25,000 idle connections: memory for each, and the latency of one active among them.
//!
//! `cargo run --release -p benches --bin idle`: our echo server, callbacks over mio, and tokio, the server on one
//! processor and the client on another, each count with a new server, interleaved rounds, medians. `--record` writes
//! the medians to `benches/results/idle.json`; `--quick` is for continuous integration.
//!
//! It needs as many descriptors on each side, and raises the limit where it may; where it may not, it says so and
//! takes as many connections as it can have.

#![forbid(unsafe_code)]

use benches::echo::servers::{Built, Server};
use benches::idle::{Outcome, measure};
use benches::process;
use benches::results::Results;
use benches::statistics::median;
use benches::table::{Table, number, ratio};
use clap::Parser;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::io;
use std::process::ExitCode;

/// Measures what idle connections cost our echo server and its peers.
#[derive(Parser)]
struct Arguments {
    /// Rounds of each server and count, interleaved; medians are printed.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Numbers of idle connections.
    #[arg(long, value_delimiter = ',', default_values_t = [0, 10_000, 25_000])]
    idle: Vec<usize>,
    /// Requests of the active connection.
    #[arg(long, default_value_t = 20_000)]
    requests: u64,
    /// Writes the medians to benches/results/idle.json.
    #[arg(long)]
    record: bool,
    /// One round with a hundred connections: shows that everything works, measures nothing.
    #[arg(long)]
    quick: bool,
}

/// Descriptors that a server or the client needs beside its connections.
const DESCRIPTORS_RESERVED: u64 = 64;

/// Who takes part; ours first.
const SERVERS: [Server; 3] = [Server::Ours, Server::Mio, Server::Tokio];

fn main() -> ExitCode {
    let mut arguments = Arguments::parse();
    if arguments.quick {
        (arguments.rounds, arguments.idle, arguments.requests) = (1, vec![0, 100], 200);
    }
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("idle: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> io::Result<()> {
    let mut servers = Vec::new();
    for server in SERVERS {
        eprintln!("building {} ...", server.name());
        match server.build() {
            Ok(program) => servers.push(Built { server, program }),
            Err(error) => println!("Left out: {}: {error}", server.name()),
        }
    }
    let last = std::thread::available_parallelism()?.get() - 1;
    process::pin_this_thread(last.min(1))?;
    let mut results = Results::new(
        "Idle connections",
        "Each has echoed once; user memory only, the kernel's socket buffers excluded; latency of one active among them"
            .into(),
        "cargo run --release -p benches --bin idle -- --record",
        arguments.rounds,
    );
    for &wanted in &arguments.idle {
        let mut count = wanted;
        if let Err(error) = raise_descriptor_limit(wanted as u64 + DESCRIPTORS_RESERVED) {
            let allowed = getrlimit(Resource::Nofile).maximum.unwrap_or(0);
            count = allowed.saturating_sub(DESCRIPTORS_RESERVED) as usize / 100 * 100;
            println!("{} connections cannot be had here, {} instead: {error}", whole(wanted), whole(count));
            raise_descriptor_limit(count as u64 + DESCRIPTORS_RESERVED)?;
        }
        let mut outcomes: Vec<Vec<Outcome>> = servers.iter().map(|_| Vec::new()).collect();
        for round in 0..arguments.rounds {
            for turn in 0..servers.len() {
                // Each round begins with another server, so that none always follows the same one.
                let index = (turn + round) % servers.len();
                // On every loopback address: one has too few ports.
                let running = servers[index].start_at([0, 0, 0, 0].into(), 0)?;
                let outcome = measure(&running.process, running.address.port(), count, arguments.requests);
                let named = |error: io::Error| {
                    io::Error::new(error.kind(), format!("{}: {error}", servers[index].server.name()))
                };
                outcomes[index].push(outcome.map_err(named)?);
            }
        }
        println!(
            "\n{} idle connections, one active with {} requests of 64 B; {} interleaved rounds; server on processor \
             0, client on {}",
            whole(count),
            whole(arguments.requests as usize),
            arguments.rounds,
            last.min(1)
        );
        report(count, &servers, &outcomes, &mut results);
    }
    if arguments.record { results.record("idle") } else { Ok(()) }
}

fn report(count: usize, servers: &[Built], outcomes: &[Vec<Outcome>], results: &mut Results) {
    type Field = fn(&Outcome) -> Option<f64>;
    let fields: [Field; 4] = [
        |outcome| outcome.bytes_each,
        |outcome| Some(outcome.p50_us),
        |outcome| Some(outcome.p99_us),
        |outcome| Some(outcome.server_us),
    ];
    let of = |index: usize, field: Field| median(outcomes[index].iter().filter_map(field));
    let heading = [
        "server",
        "bytes each",
        "to ours",
        "p50 us",
        "to ours",
        "p99 us",
        "to ours",
        "cpu us/request",
        "to ours",
    ];
    let mut table = Table::new(&heading);
    for (index, built) in servers.iter().enumerate() {
        let mut cells = vec![built.server.name().to_string()];
        for field in fields {
            cells.push(of(index, field).map_or("-".into(), number));
            cells.push(ratio(of(index, field), of(0, field)));
        }
        table.row(cells);
    }
    print!("{table}");
    let bars = |field: Field| {
        servers
            .iter()
            .enumerate()
            .map(|(index, built)| (built.server.name(), of(index, field)))
            .collect::<Vec<_>>()
    };
    let title = match count {
        0 => "one connection, alone".to_string(),
        count => format!("{} idle connections", whole(count)),
    };
    results.panel(title.clone(), "bytes each", false, None, bars(fields[0]));
    results.panel(format!("one active, {title}"), "us, median of a 64 B echo", false, None, bars(fields[1]));
}

fn whole(count: usize) -> String {
    if count < 100 { count.to_string() } else { number(count as f64) }
}

/// The servers inherit the limit.
fn raise_descriptor_limit(needed: u64) -> io::Result<()> {
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|current| current >= needed) {
        return Ok(());
    }
    let maximum = limit.maximum.map(|maximum| maximum.max(needed));
    setrlimit(Resource::Nofile, Rlimit { current: Some(needed), maximum })
        .map_err(|error| io::Error::other(format!("{needed} descriptors are needed (ulimit -n): {error}")))
}
