//! The same echo work against our echo server and its peers.
//!
//! `cargo run --release -p benches --bin echo` builds every server, verifies that each really echoes, and then runs
//! interleaved rounds of each over loopback: the server pinned to one processor, the generator to another.
//! `--strace` adds a short run that counts system calls per request; `--quick` is for continuous integration.
//!
//! It measures a round trip through a server that does nothing else. It says nothing about TLS or RPC.

#![forbid(unsafe_code)]

use benches::echo::load::{Generator, Workload};
use benches::echo::report::{Round, Series, record, table};
use benches::echo::servers::{Built, Server};
use benches::echo::{syscalls, verify};
use benches::process;
use benches::results::Results;
use benches::table::number;
use clap::{Parser, ValueEnum};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// Runs the same echo work against our echo server and its peers, and prints a table with ratios to ours.
#[derive(Parser)]
struct Arguments {
    /// Rounds of each server and workload, interleaved; medians are printed.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// How long a round is measured.
    #[arg(long, default_value_t = 1.0)]
    seconds: f64,
    /// Numbers of connections, each with one request in flight.
    #[arg(long, value_delimiter = ',', default_values_t = [64, 1000])]
    connections: Vec<usize>,
    /// Message sizes in bytes, the newline included.
    #[arg(long, value_delimiter = ',', default_values_t = [64, 4096])]
    sizes: Vec<usize>,
    /// Only these servers.
    #[arg(long, value_delimiter = ',', value_enum)]
    only: Vec<Server>,
    /// The processor of the servers.
    #[arg(long, default_value_t = 0)]
    server_cpu: usize,
    /// The processor of the load generator.
    #[arg(long, default_value_t = 1)]
    generator_cpu: usize,
    /// Counts system calls per request in a short run of its own.
    #[arg(long)]
    strace: bool,
    /// One short round of a few connections: shows that everything works, measures nothing.
    #[arg(long)]
    quick: bool,
    /// Writes every round to this file.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Writes the medians to benches/results/echo.json.
    #[arg(long)]
    record: bool,
}

fn main() -> ExitCode {
    let mut arguments = Arguments::parse();
    if arguments.quick {
        (arguments.rounds, arguments.seconds) = (1, 0.1);
        arguments.connections = vec![16];
    }
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("echo: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> io::Result<()> {
    let cpus = std::thread::available_parallelism()?.get();
    if cpus < 2 || arguments.server_cpu == arguments.generator_cpu {
        println!("Note: server and generator share a processor; only cpu us/request means something.");
    }
    raise_descriptor_limit(arguments.connections.iter().max().copied().unwrap_or(0))?;
    let servers = build_and_verify(arguments)?;
    process::pin_this_thread(arguments.generator_cpu.min(cpus - 1))?;

    let mut results = Results::new(
        "Echo: lines over TCP",
        "One request in flight on each connection; server on one processor, load on another, over loopback"
            .into(),
        "cargo run --release -p benches --bin echo -- --record",
        arguments.rounds,
    );
    let mut series = Vec::new();
    for &connections in &arguments.connections {
        for &size_bytes in &arguments.sizes {
            let duration = Duration::from_secs_f64(arguments.seconds);
            let workload = Workload { connections, size_bytes, warm_up: duration / 4, duration };
            let measured = measure(arguments, &servers, &workload)?;
            record(&mut results, &measured);
            series.extend(measured);
            if arguments.strace {
                print_system_calls(arguments, &servers, &workload)?;
            }
        }
    }
    if let Some(path) = &arguments.json {
        std::fs::write(path, serde_json::to_vec_pretty(&series)?)?;
    }
    if arguments.record { results.record("echo") } else { Ok(()) }
}

/// Every server that can be built here and echoes; says why where one cannot.
fn build_and_verify(arguments: &Arguments) -> io::Result<Vec<Built>> {
    let mut servers = Vec::new();
    for &server in Server::value_variants() {
        if !arguments.only.is_empty() && !arguments.only.contains(&server) {
            continue;
        }
        eprintln!("building and verifying {} ...", server.name());
        let verified = server.build().and_then(|program| {
            let built = Built { server, program };
            verify::verify(built.start(arguments.server_cpu)?.address)?;
            Ok(built)
        });
        match verified {
            Ok(built) => servers.push(built),
            Err(error) => println!("Left out: {}: {error}", server.name()),
        }
    }
    match servers.is_empty() {
        true => Err(io::Error::other("there is no server to measure")),
        false => Ok(servers),
    }
}

fn measure(arguments: &Arguments, servers: &[Built], workload: &Workload) -> io::Result<Vec<Series>> {
    println!(
        "\n{} connections, one request of {} B in flight each; {} interleaved rounds of {} s; server on processor {}, \
         generator on {}",
        workload.connections,
        number(workload.size_bytes as f64),
        arguments.rounds,
        workload.duration.as_secs_f64(),
        arguments.server_cpu,
        arguments.generator_cpu
    );
    let empty =
        |built: &Built| Series { server: built.server.name(), workload: *workload, rounds: Vec::new() };
    let mut series: Vec<Series> = servers.iter().map(empty).collect();
    for round in 0..arguments.rounds {
        for turn in 0..servers.len() {
            // Each round begins with another server, so that none always follows the same one.
            let index = (turn + round) % servers.len();
            let running = servers[index].start(arguments.server_cpu)?;
            let mut generator = Generator::connect(running.address, workload)?;
            let outcome = generator.run(workload, running.process.id());
            let outcome = outcome.map_err(|error| {
                io::Error::new(error.kind(), format!("{}: {error}", servers[index].server.name()))
            })?;
            series[index].rounds.push(Round::from(outcome));
        }
    }
    print!("{}", table(&series.iter().collect::<Vec<_>>()));
    Ok(series)
}

fn print_system_calls(arguments: &Arguments, servers: &[Built], workload: &Workload) -> io::Result<()> {
    println!("System calls per request (strace -c -f, a run of its own):");
    for built in servers {
        let running = built.start(arguments.server_cpu)?;
        match syscalls::count(&running, workload) {
            Ok(calls) => {
                let total: f64 = calls.iter().map(|(_, rate)| rate).sum();
                let shown = calls.iter().filter(|(_, rate)| *rate >= 0.0005);
                let shown: Vec<String> = shown.map(|(name, rate)| format!("{name} {rate:.3}")).collect();
                println!("  {:<15} {total:.3}: {}", built.server.name(), shown.join(", "));
            }
            Err(error) => println!("  {:<15} {error}", built.server.name()),
        }
    }
    Ok(())
}

/// A thousand connections need more descriptors than some systems allow at first; the servers inherit the limit.
fn raise_descriptor_limit(connections: usize) -> io::Result<()> {
    let needed = connections as u64 + 64;
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|current| current >= needed) {
        return Ok(());
    }
    if limit.maximum.is_some_and(|maximum| maximum < needed) {
        let message =
            format!("{connections} connections need {needed} descriptors: raise the limit (ulimit -n)");
        return Err(io::Error::other(message));
    }
    Ok(setrlimit(Resource::Nofile, Rlimit { current: Some(needed), maximum: limit.maximum })?)
}
