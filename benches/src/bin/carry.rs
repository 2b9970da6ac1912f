//! What carries bytes between two of our peers: TLS over TCP, QUIC, and a relay between, beside rustls and quinn-proto alone.
//!
//! `cargo run --release -p benches --bin carry`: bulk in pieces of 256 KiB one way, and 64 B there and back, 1 and 64 at once, over
//! loopback; who sends or asks on one processor and the other on another, the relay wherever the kernel has it; interleaved rounds,
//! medians, processor time of all of them. Goals: at least 0.9 of rustls and of quinn-proto alone, and relayed at least 0.4 of direct.
//! `--record` writes the medians to `benches/results/carry.json`; `--quick` is for continuous integration.
//!
//! On two processors a relay has to share with both ends: what it passes on then is said with that.

#![forbid(unsafe_code)]

use benches::carry::end::run_as_end;
use benches::carry::report::{Series, record, table};
use benches::carry::round::{Setting, round};
use benches::carry::{Carrier, Workload};
use benches::results::Results;
use benches::{build, certificate};
use clap::Parser;
use std::io;
use std::process::ExitCode;
use std::time::Duration;

/// Compares what carries bytes between two of our peers.
#[derive(Parser)]
struct Arguments {
    /// Rounds of each, interleaved; medians are printed.
    #[arg(long, default_value_t = 7)]
    rounds: usize,
    /// How long a round is measured.
    #[arg(long, default_value_t = 1.0)]
    seconds: f64,
    /// Only these carriers: tls, bare-tls, quic, bare-quic, relayed.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Writes the medians to benches/results/carry.json.
    #[arg(long)]
    record: bool,
    /// One short round of each: shows that everything works, measures nothing.
    #[arg(long)]
    quick: bool,
}

fn main() -> ExitCode {
    // How this program runs the ends.
    let result =
        run_as_end(&std::env::args().skip(1).collect::<Vec<_>>()).and_then(|was_end| match was_end {
            true => Ok(()),
            false => run(Arguments::parse()),
        });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("carry: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(mut arguments: Arguments) -> io::Result<()> {
    if arguments.quick {
        (arguments.rounds, arguments.seconds) = (1, 0.1);
    }
    let mut only = Vec::new();
    for word in &arguments.only {
        let known = Carrier::of_word(word);
        only.push(known.ok_or_else(|| io::Error::other(format!("there is no carrier {word}")))?);
    }
    let certificates = build::target_directory()?.join("bench-certificates");
    certificate::write(&certificates)?;
    let last = std::thread::available_parallelism()?.get() - 1;
    let setting = Setting {
        asked_cpu: 0,
        asking_cpu: last.min(1),
        duration: Duration::from_secs_f64(arguments.seconds),
        certificates,
    };
    let mut results = Results::new(
        "What carries bytes between two peers",
        "TLS 1.3, AES-128-GCM; sender on one processor, receiver on another, over loopback; a relay on either"
            .into(),
        "cargo run --release -p benches --bin carry -- --record",
        arguments.rounds,
    );
    for workload in [Workload::Bulk, Workload::Calls(1), Workload::Calls(64)] {
        let mut all: Vec<Series> = workload
            .contenders()
            .into_iter()
            .filter(|contender| only.is_empty() || only.contains(&contender.carrier))
            .map(|contender| Series { contender, rounds: Vec::new() })
            .collect();
        for turn in 0..arguments.rounds {
            // Each goes first in its turn.
            let count = all.len().max(1);
            all.rotate_left(turn % count);
            for series in &mut all {
                let result = round(series.contender, workload, &setting);
                let named = |error| io::Error::other(format!("{}: {error}", series.contender.name()));
                series.rounds.push(result.map_err(named)?);
            }
            all.rotate_right(turn % count);
        }
        println!(
            "\n{}; {} interleaved rounds of {} s",
            workload.title(),
            arguments.rounds,
            arguments.seconds
        );
        print!("{}", table(workload, &all));
        record(&mut results, workload, &all);
    }
    if arguments.record { results.record("carry") } else { Ok(()) }
}
