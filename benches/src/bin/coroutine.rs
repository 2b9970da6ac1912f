//! What a coroutine costs: ours, may's own and tokio's tasks, side by side.
//!
//! `cargo run --release -p benches --bin coroutine` runs each figure in a process of its own, pinned to one
//! processor, in interleaved rounds. For ours alone with more statistics: `cargo bench -p benches`.
//!
//! tokio is measured twice: without its I/O driver, the least that it can cost, and with it, as a server has it
//! (and as ours is measured): its `yield_now` then asks the kernel each time nothing else can run.

#![forbid(unsafe_code)]

use benches::build;
use benches::coroutine::Row;
use benches::process::pin_this_thread;
use benches::results::Results;
use benches::statistics::median;
use benches::table::{Table, number, ratio};
use clap::Parser;
use std::io;
use std::path::Path;
use std::process::{Command, ExitCode};

/// The runtimes; ours first, to which all ratios are.
const RUNTIMES: [&str; 4] = ["ours", "may", "tokio", "tokio-io"];

/// Measures what a coroutine costs, and prints ours beside may's and tokio's.
#[derive(Parser)]
struct Arguments {
    /// Rounds of each figure, interleaved; medians are printed.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Operations of a round.
    #[arg(long, default_value_t = 500_000)]
    count: u64,
    /// Coroutines parked at once while memory is read.
    #[arg(long, default_value_t = 10_000)]
    parked: u64,
    /// The processor that everything runs on.
    #[arg(long, default_value_t = 0)]
    cpu: usize,
    /// One round of few operations: shows that everything works, measures nothing.
    #[arg(long)]
    quick: bool,
    /// Writes the medians to benches/results/coroutine.json.
    #[arg(long)]
    record: bool,
    /// Prints one figure of ours and ends; how this program runs itself.
    #[arg(long, hide = true)]
    figure: Option<String>,
}

fn main() -> ExitCode {
    let mut arguments = Arguments::parse();
    if arguments.quick {
        (arguments.rounds, arguments.count, arguments.parked) = (1, 10_000, 1_000);
    }
    let result = match &arguments.figure {
        Some(name) => print_figure(name, arguments.count),
        None => compare(&arguments),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("coroutine: {error}");
            ExitCode::FAILURE
        }
    }
}

fn print_figure(name: &str, count: u64) -> io::Result<()> {
    let row = Row::of_name(name).ok_or_else(|| io::Error::other(format!("there is no row {name}")))?;
    println!("{}", row.measure(count));
    Ok(())
}

fn compare(arguments: &Arguments) -> io::Result<()> {
    eprintln!("building the peers ...");
    let peers = build::peer_program("coroutine")?;
    pin_this_thread(arguments.cpu)?;
    println!(
        "{} interleaved rounds of {} operations, memory with {} parked; each in a process of its own on processor {}",
        arguments.rounds,
        number(arguments.count as f64),
        number(arguments.parked as f64),
        arguments.cpu
    );
    let mut figures = vec![vec![Vec::new(); RUNTIMES.len()]; Row::ALL.len()];
    for _ in 0..arguments.rounds {
        for (row, figures) in Row::ALL.into_iter().zip(&mut figures) {
            let count = if row == Row::ParkedMemory { arguments.parked } else { arguments.count };
            for (runtime, figures) in RUNTIMES.into_iter().zip(figures) {
                figures.extend(figure(&peers, runtime, row, count)?);
            }
        }
    }
    let medians: Vec<Vec<Option<f64>>> =
        figures.into_iter().map(|row| row.into_iter().map(median).collect()).collect();
    print!("{}", table(&medians));
    if !arguments.record {
        return Ok(());
    }
    let mut results = Results::new(
        "Coroutines and tasks",
        "Each operation alone, on one processor; ours and may's are stackful coroutines".into(),
        "cargo run --release -p benches --bin coroutine -- --record",
        arguments.rounds,
    );
    for (row, medians) in Row::ALL.into_iter().zip(medians) {
        let unit = if row == Row::ParkedMemory { "bytes each" } else { "ns each" };
        results.panel(row.name().into(), unit, false, row.goal(), RUNTIMES.into_iter().zip(medians));
    }
    results.record("coroutine")
}

/// Runs one figure in a process of its own, which inherits our processor; None where the runtime has no such row.
fn figure(peers: &Path, runtime: &str, row: Row, count: u64) -> io::Result<Option<f64>> {
    let count = count.to_string();
    let mut command = match runtime {
        "ours" => Command::new(std::env::current_exe()?),
        _ => Command::new(peers),
    };
    match runtime {
        "ours" => command.args(["--figure", row.name(), "--count", &count]),
        _ => command.args([runtime, row.name(), &count]),
    };
    let output = command.output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    if output.status.success() && text.trim() == "-" {
        return Ok(None);
    }
    text.trim().parse().map(Some).map_err(|_| {
        let message = String::from_utf8_lossy(&output.stderr);
        io::Error::other(format!("{command:?} gave no figure: {} {}", text.trim(), message.trim()))
    })
}

fn table(medians: &[Vec<Option<f64>>]) -> Table {
    let mut heading = vec!["figure", "unit", "goal", "ours"];
    for runtime in &RUNTIMES[1..] {
        heading.extend([runtime, "to ours"]);
    }
    let mut table = Table::new(&heading);
    for (row, medians) in Row::ALL.into_iter().zip(medians) {
        let mut cells = vec![row.to_string(), row.unit().to_string()];
        cells.push(row.goal().map_or("-".to_string(), |goal| format!("<= {}", number(goal))));
        cells.push(medians[0].map_or("-".to_string(), number));
        for &median in &medians[1..] {
            cells.extend([median.map_or("-".to_string(), number), ratio(median, medians[0])]);
        }
        table.row(cells);
    }
    table
}
