//! Bulk over one TLS connection: ours against rustls alone on a blocking socket.
//!
//! `cargo run --release -p benches --bin tls`: pieces of 16 KiB and of 256 KiB, a sender on one processor and a
//! receiver on another, over loopback, interleaved rounds, medians. The goal is 0.9 of what rustls alone does.
//! `--record` writes the medians to `benches/results/tls.json`; `--quick` is for continuous integration.

#![forbid(unsafe_code)]

use benches::process::{Program, free_address, threads_cpu, wait_for_listener};
use benches::results::Results;
use benches::statistics::median;
use benches::table::{Table, number, ratio};
use benches::tls::{RECEIVE, SEND, run_as_end};
use benches::{build, certificate};
use clap::Parser;
use std::io::{self, BufRead, BufReader, ErrorKind};
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

/// Compares bulk over our TLS with bulk over rustls alone.
#[derive(Parser)]
struct Arguments {
    /// Rounds of each, interleaved; medians are printed.
    #[arg(long, default_value_t = 7)]
    rounds: usize,
    /// How long a round is measured.
    #[arg(long, default_value_t = 1.0)]
    seconds: f64,
    /// Writes the medians to benches/results/tls.json.
    #[arg(long)]
    record: bool,
    /// One short round: shows that everything works, measures nothing.
    #[arg(long)]
    quick: bool,
}

/// Who takes part, on the ends' command line and in the table; ours first.
const CONTENDERS: [(&str, &str); 2] = [("ours", "ours"), ("bare", "rustls alone")];

/// One round of one contender.
struct Round {
    megabytes_per_second: f64,
    sender_ms_per_gigabyte: f64,
    receiver_ms_per_gigabyte: f64,
}

fn main() -> ExitCode {
    let result =
        run_as_end(&std::env::args().skip(1).collect::<Vec<_>>()).and_then(|was_end| match was_end {
            true => Ok(()),
            false => run(Arguments::parse()),
        });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tls: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(mut arguments: Arguments) -> io::Result<()> {
    if arguments.quick {
        (arguments.rounds, arguments.seconds) = (1, 0.2);
    }
    let certificates = build::target_directory()?.join("bench-certificates");
    certificate::write(&certificates)?;
    let mut results = Results::new(
        "TLS: bulk over one connection",
        "TLS 1.3, AES-256-GCM; sender on one processor, receiver on another, over loopback".into(),
        "cargo run --release -p benches --bin tls -- --record",
        arguments.rounds,
    );
    for piece in [16 << 10, 256 << 10] {
        let mut rounds: [Vec<Round>; 2] = Default::default();
        for turn in 0..arguments.rounds * 2 {
            // Each goes first in half of the rounds.
            let index = (turn + turn / 2) % 2;
            rounds[index].push(round(CONTENDERS[index].0, piece, arguments.seconds, &certificates)?);
        }
        println!(
            "\npieces of {} KiB; {} interleaved rounds of {} s",
            piece >> 10,
            arguments.rounds,
            arguments.seconds
        );
        report(piece, &rounds, &mut results);
    }
    if arguments.record { results.record("tls") } else { Ok(()) }
}

fn round(who: &str, piece: usize, seconds: f64, certificates: &Path) -> io::Result<Round> {
    let last = std::thread::available_parallelism()?.get() - 1;
    let (program, address) = (std::env::current_exe()?, free_address()?);
    let mut receive = Command::new(&program);
    receive.args([RECEIVE, who, &address.to_string()]).arg(certificates).stdin(Stdio::null());
    let mut receiver = Program::start(&mut receive, Some(0))?;
    wait_for_listener(&mut receiver, address)?;
    let mut send = Command::new(&program);
    send.args([SEND, who, &address.to_string(), &piece.to_string(), &seconds.to_string()]).arg(certificates);
    let mut sender = Program::start(send.stdin(Stdio::null()).stdout(Stdio::piped()), Some(last.min(1)))?;
    let mut lines = BufReader::new(sender.take_output().ok_or(ErrorKind::BrokenPipe)?).lines();
    let mut next = || lines.next().unwrap_or_else(|| Err(io::Error::other("the sender ended early")));
    next()?;
    let before = threads_cpu(receiver.id())?;
    let end = next()?;
    let received = threads_cpu(receiver.id())?.saturating_sub(before);
    let figures: Vec<f64> = end.split(' ').skip(1).filter_map(|word| word.parse().ok()).collect();
    let [sent, elapsed, cpu] = figures[..] else {
        return Err(io::Error::other(format!("no figures: {end}")));
    };
    Ok(Round {
        megabytes_per_second: sent / elapsed / 1e6,
        sender_ms_per_gigabyte: cpu * 1e3 / (sent / 1e9),
        receiver_ms_per_gigabyte: received.as_secs_f64() * 1e3 / (sent / 1e9),
    })
}

fn report(piece: usize, rounds: &[Vec<Round>; 2], results: &mut Results) {
    type Field = fn(&Round) -> f64;
    let rate: Field = |round| round.megabytes_per_second;
    let sender: Field = |round| round.sender_ms_per_gigabyte;
    let receiver: Field = |round| round.receiver_ms_per_gigabyte;
    let of = |index: usize, field: Field| median(rounds[index].iter().map(field));
    let heading = ["who", "MB/s", "to ours", "sender ms/GB", "to ours", "receiver ms/GB", "to ours"];
    let mut table = Table::new(&heading);
    for (index, (_, name)) in CONTENDERS.into_iter().enumerate() {
        let mut cells = vec![name.to_string()];
        for field in [rate, sender, receiver] {
            cells.push(of(index, field).map_or("-".into(), number));
            cells.push(ratio(of(index, field), of(0, field)));
        }
        table.row(cells);
    }
    print!("{table}");
    if let (Some(ours), Some(bare)) = (of(0, rate), of(1, rate)) {
        println!("ours is {:.2} of rustls alone (goal: at least 0.9)", ours / bare);
    }
    let title = format!("pieces of {} KiB", piece >> 10);
    let bars = |field: Field| [0, 1].map(|index| (CONTENDERS[index].1, of(index, field)));
    let goal = of(1, rate).map(|bare| bare * 0.9);
    results.panel(title.clone(), "MB/s", true, goal, bars(rate));
    let both: Vec<_> = [0, 1]
        .into_iter()
        .map(|index| {
            let sum = of(index, sender).zip(of(index, receiver)).map(|(sender, receiver)| sender + receiver);
            (CONTENDERS[index].1, sum)
        })
        .collect();
    results.panel(title, "ms of CPU a gigabyte, both ends", false, None, both);
}
