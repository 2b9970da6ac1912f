//! HTTP plaintext and JSON under wrk: ours, may_minihttp, hyper 1 and nginx.
//!
//! `cargo run --release -p benches --bin http`: 64 and 512 connections, one request in flight on each or sixteen
//! pipelined, interleaved rounds, medians; the server pinned to one processor, wrk to another. Each server is first
//! asked whether it answers rightly. `--record` writes the medians to `benches/results/http.json`; `--quick` is for
//! continuous integration, and leaves out the peers that have not been built yet.
//!
//! Ours does all of HTTP/1.1: it parses every header, bounds and times each phase, and writes the date. may_minihttp
//! parses heads with the same library and leaves most of the rest out; it is the goal all the same.

#![forbid(unsafe_code)]

use benches::build::Rebuild;
use benches::http::report::{Round, Series, record, table, title};
use benches::http::servers::{Built, Page, Server, verify};
use benches::http::wrk::{self, Workload};
use benches::process::threads_cpu;
use benches::results::Results;
use clap::{Parser, ValueEnum};
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

/// Runs the same requests against our HTTP server and its peers, and prints tables with ratios to ours.
#[derive(Parser)]
struct Arguments {
    /// Rounds of each server and workload, interleaved; medians are printed.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// How long a round is measured, in whole seconds, as wrk has it.
    #[arg(long, default_value_t = 1)]
    seconds: u64,
    /// Numbers of connections.
    #[arg(long, value_delimiter = ',', default_values_t = [64, 512])]
    connections: Vec<usize>,
    /// Only these servers.
    #[arg(long, value_delimiter = ',', value_enum)]
    only: Vec<Server>,
    /// The processor of the servers.
    #[arg(long, default_value_t = 0)]
    server_cpu: usize,
    /// The processor of wrk.
    #[arg(long, default_value_t = 1)]
    wrk_cpu: usize,
    /// Writes the medians to benches/results/http.json.
    #[arg(long)]
    record: bool,
    /// One round of two workloads: shows that everything works, measures nothing.
    #[arg(long)]
    quick: bool,
}

/// What stays the same in all rounds.
struct Setting {
    wrk: PathBuf,
    scratch: PathBuf,
    server_cpu: usize,
    wrk_cpu: usize,
    duration: Duration,
}

fn main() -> ExitCode {
    let mut arguments = Arguments::parse();
    if arguments.quick {
        (arguments.rounds, arguments.connections) = (1, vec![16]);
    }
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("http: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> io::Result<()> {
    let wrk = match wrk::find() {
        Ok(path) => path,
        Err(error) if arguments.quick => {
            println!("Left out, all of it: {error}");
            return Ok(());
        }
        Err(error) => return Err(error),
    };
    let processors = std::thread::available_parallelism()?.get();
    let scratch = std::env::temp_dir().join(format!("http-bench-{}", std::process::id()));
    std::fs::create_dir_all(&scratch)?;
    let setting = Setting {
        wrk,
        scratch: scratch.clone(),
        server_cpu: arguments.server_cpu.min(processors - 1),
        wrk_cpu: arguments.wrk_cpu.min(processors - 1),
        duration: Duration::from_secs(arguments.seconds),
    };
    let result = compare(arguments, &setting);
    // Only nginx's configuration and an empty log.
    let _ = std::fs::remove_dir_all(scratch);
    result
}

fn compare(arguments: &Arguments, setting: &Setting) -> io::Result<()> {
    let servers = build_and_verify(arguments, setting)?;
    let mut results = Results::new(
        "HTTP/1.1 under wrk",
        "Server on one processor, wrk on another, over loopback; the goal is may_minihttp's throughput"
            .into(),
        "cargo run --release -p benches --bin http -- --record",
        arguments.rounds,
    );
    for page in Page::ALL {
        for &connections in &arguments.connections {
            for pipelined in [false, true] {
                let workload = Workload { page, connections, pipelined };
                if arguments.quick && pipelined != (page == Page::Plaintext) {
                    continue;
                }
                let series = measure(arguments.rounds, &servers, &workload, setting)?;
                println!(
                    "\n{}; {} interleaved rounds of {} s; server on processor {}, wrk on {}",
                    title(&workload),
                    arguments.rounds,
                    arguments.seconds,
                    setting.server_cpu,
                    setting.wrk_cpu
                );
                print!("{}", table(&workload, &series));
                record(&mut results, &workload, &series);
            }
        }
    }
    if arguments.record { results.record("http") } else { Ok(()) }
}

/// Every server that can be had here and answers rightly; says why where one cannot.
fn build_and_verify(arguments: &Arguments, setting: &Setting) -> io::Result<Vec<Built>> {
    let rebuild = if arguments.quick { Rebuild::Never } else { Rebuild::Always };
    let mut servers = Vec::new();
    for &server in Server::value_variants() {
        if !arguments.only.is_empty() && !arguments.only.contains(&server) {
            continue;
        }
        eprintln!("building and verifying {} ...", server.name());
        let verified = server.build(rebuild).and_then(|program| {
            let built = Built { server, program };
            verify(built.start(setting.server_cpu, &setting.scratch)?.address)?;
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

fn measure(
    rounds: usize,
    servers: &[Built],
    workload: &Workload,
    setting: &Setting,
) -> io::Result<Vec<Series>> {
    let mut series: Vec<Series> =
        servers.iter().map(|built| Series { server: built.server, rounds: Vec::new() }).collect();
    for round in 0..rounds {
        for turn in 0..servers.len() {
            // Each round begins with another server, so that none always follows the same one.
            let index = (turn + round) % servers.len();
            let measured =
                one_round(&servers[index], workload, setting, &setting.scratch).map_err(|error| {
                    io::Error::new(error.kind(), format!("{}: {error}", servers[index].server.name()))
                })?;
            series[index].rounds.push(measured);
        }
    }
    Ok(series)
}

fn one_round(built: &Built, workload: &Workload, setting: &Setting, scratch: &Path) -> io::Result<Round> {
    let running = built.start(setting.server_cpu, scratch)?;
    let before = threads_cpu(running.process.id())?;
    // No warm-up: wrk knows only whole seconds, and a new server's first milliseconds are the same for all.
    let outcome =
        wrk::run(&setting.wrk, running.address, workload, setting.duration, setting.wrk_cpu, scratch)?;
    let cpu = threads_cpu(running.process.id())?.saturating_sub(before);
    Ok(Round {
        requests_per_second: outcome.requests / outcome.seconds,
        server_us: cpu.as_secs_f64() * 1e6 / outcome.requests.max(1.0),
        p50_us: outcome.p50_us,
        p99_us: outcome.p99_us,
        server_busy: cpu.as_secs_f64() / outcome.seconds,
    })
}
