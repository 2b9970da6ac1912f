//! The same calls over our RPC and its peers: tonic, tarpc, and gRPC's C++ library.
//!
//! `cargo run --release -p benches --bin rpc` builds each, and runs interleaved rounds over loopback: an echo of
//! 64 B with 1 and 64 calls in flight, of 64 KiB and 1 MiB with 4, plain and over TLS 1.3; the server pinned to one
//! processor, the caller to another. `--record` writes the medians to `benches/results/rpc.json`; `--quick` is for
//! continuous integration, and leaves out the peers that have not been built yet.
//!
//! Ciphers are each one's first choice: AES-128-GCM for us, AES-256-GCM for tonic and tarpc. We and gRPC carry the
//! bytes beside the message; tonic wraps them in a protobuf field and tarpc in bincode, as their users do.

#![forbid(unsafe_code)]

use benches::build::{self, Rebuild};
use benches::certificate;
use benches::results::Results;
use benches::rpc::contenders::{Built, Contender, Setting, Workload};
use benches::rpc::ours;
use benches::rpc::report::{Series, record, table, title};
use clap::{Parser, ValueEnum};
use std::io;
use std::process::ExitCode;
use std::time::Duration;

/// Runs the same calls over our RPC and its peers, and prints tables with ratios to ours.
#[derive(Parser)]
struct Arguments {
    /// Rounds of each contender and workload, interleaved; medians are printed.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// How long a round is measured.
    #[arg(long, default_value_t = 1.0)]
    seconds: f64,
    /// Only these contenders.
    #[arg(long, value_delimiter = ',', value_enum)]
    only: Vec<Contender>,
    /// The processor of the servers.
    #[arg(long, default_value_t = 0)]
    server_cpu: usize,
    /// The processor of the callers.
    #[arg(long, default_value_t = 1)]
    caller_cpu: usize,
    /// Writes the medians to benches/results/rpc.json.
    #[arg(long)]
    record: bool,
    /// One short round of small calls: shows that everything works, measures nothing.
    #[arg(long)]
    quick: bool,
}

fn main() -> ExitCode {
    // How this program runs our own ends: with the peers' command line.
    if ours::run_as_end(&std::env::args().skip(1).collect::<Vec<_>>()) {
        return ExitCode::SUCCESS;
    }
    let mut arguments = Arguments::parse();
    if arguments.quick {
        (arguments.rounds, arguments.seconds) = (1, 0.2);
    }
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("rpc: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> io::Result<()> {
    let processors = std::thread::available_parallelism()?.get();
    let rebuild = if arguments.quick { Rebuild::Never } else { Rebuild::Always };
    let certificates = build::target_directory()?.join("bench-certificates");
    certificate::write(&certificates)?;
    let setting = Setting {
        server_cpu: arguments.server_cpu.min(processors - 1),
        caller_cpu: arguments.caller_cpu.min(processors - 1),
        duration: Duration::from_secs_f64(arguments.seconds),
        certificates,
    };
    let contenders = build_all(arguments, rebuild);

    let mut results = Results::new(
        "RPC: an echo of bytes over one connection",
        "Server on one processor, caller on another, over loopback; higher calls/s and lower CPU are better"
            .into(),
        "cargo run --release -p benches --bin rpc -- --record",
        arguments.rounds,
    );
    let mut workloads = Vec::new();
    for encrypted in [false, true] {
        for (size_bytes, in_flight) in [(64, 1), (64, 64), (64 << 10, 4), (1 << 20, 4)] {
            workloads.push(Workload { in_flight, size_bytes, encrypted });
        }
    }
    if arguments.quick {
        workloads.retain(|workload| workload.size_bytes == 64 && workload.in_flight == 64);
    }
    for workload in workloads {
        let series = measure(arguments.rounds, &contenders, &workload, &setting)?;
        println!(
            "\n{}; {} interleaved rounds of {} s; server on processor {}, caller on {}",
            title(&workload),
            arguments.rounds,
            arguments.seconds,
            setting.server_cpu,
            setting.caller_cpu
        );
        print!("{}", table(&series));
        record(&mut results, &workload, &series);
    }
    if arguments.record { results.record("rpc") } else { Ok(()) }
}

/// Everyone who can be built here; says why where one cannot.
fn build_all(arguments: &Arguments, rebuild: Rebuild) -> Vec<Built> {
    let mut contenders = Vec::new();
    for &contender in Contender::value_variants() {
        if !arguments.only.is_empty() && !arguments.only.contains(&contender) {
            continue;
        }
        eprintln!("building {} ...", contender.name());
        match contender.build(rebuild) {
            Ok(program) => contenders.push(Built { contender, program }),
            Err(error) => println!("Left out: {}: {error}", contender.name()),
        }
    }
    contenders
}

fn measure(
    rounds: usize,
    contenders: &[Built],
    workload: &Workload,
    setting: &Setting,
) -> io::Result<Vec<Series>> {
    let mut series: Vec<Series> =
        contenders.iter().map(|built| Series { contender: built.contender, rounds: Vec::new() }).collect();
    for round in 0..rounds {
        for turn in 0..contenders.len() {
            // Each round begins with another one, so that none always follows the same one.
            let index = (turn + round) % contenders.len();
            let measured = contenders[index].round(workload, setting).map_err(|error| {
                io::Error::new(error.kind(), format!("{}: {error}", contenders[index].contender.name()))
            })?;
            series[index].rounds.push(measured);
        }
    }
    Ok(series)
}
