//! Everyday work on our drive and on its peers: small files, archives, git, SQLite, large files.
//!
//! `cargo run --release -p benches --bin drive` runs unpinned over the disk; `-- --pinned` runs everything on one
//! processor over memory. `--install` prints the packages that let every peer take part; who is missing is named.
//! `--quick` is for continuous integration.
//!
//! Each file system is made anew in every round. Nothing is left mounted, whatever fails.

#![forbid(unsafe_code)]

use benches::drive::backend::{Backend, install_line};
use benches::drive::inputs::Inputs;
use benches::drive::mounted::{Mounted, Place};
use benches::drive::report::Report;
use benches::drive::work::{self, Amounts, Row};
use benches::process::pin_this_thread;
use benches::table::number;
use clap::{Parser, ValueEnum};
use std::fs;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

/// Runs the same work on our drive and on its peers, and prints tables with ratios to ours with one node.
#[derive(Parser)]
struct Arguments {
    /// Everything on one processor, over memory (/dev/shm), instead of unpinned over the disk.
    #[arg(long)]
    pinned: bool,
    /// Rounds of each file system, interleaved; medians are printed.
    #[arg(long, default_value_t = 1)]
    rounds: usize,
    /// Only these file systems.
    #[arg(long, value_delimiter = ',', value_enum)]
    only: Vec<Backend>,
    /// Only these rows.
    #[arg(long, value_delimiter = ',', value_enum)]
    rows: Vec<Row>,
    /// Small files created.
    #[arg(long, default_value_t = 10_000)]
    creates: u64,
    /// At least so many files are unpacked.
    #[arg(long, default_value_t = 8_487)]
    untar_files: u64,
    /// At least so many files are cloned.
    #[arg(long, default_value_t = 2_000)]
    clone_files: u64,
    /// The size of the large file.
    #[arg(long, default_value_t = 512)]
    large_mib: u64,
    /// Random reads of 4 KiB.
    #[arg(long, default_value_t = 8_192)]
    random_reads: u64,
    /// Files of 256 KiB of which the first byte is read.
    #[arg(long, default_value_t = 1000)]
    cold_files: u64,
    /// Commits of SQLite.
    #[arg(long, default_value_t = 500)]
    commits: u64,
    /// Where everything is made [default: /dev/shm when pinned, else target/drive-bench].
    #[arg(long)]
    place: Option<PathBuf>,
    /// Writes every measurement to this file.
    #[arg(long)]
    json: Option<PathBuf>,
    /// One round of very little work: shows that everything works, measures nothing.
    #[arg(long)]
    quick: bool,
    /// Prints which Debian packages let every peer take part, and ends.
    #[arg(long)]
    install: bool,
}

fn main() -> ExitCode {
    let mut arguments = Arguments::parse();
    if arguments.install {
        println!("{}", install_line());
        return ExitCode::SUCCESS;
    }
    if arguments.quick {
        (arguments.rounds, arguments.creates, arguments.untar_files, arguments.clone_files) =
            (1, 200, 200, 100);
        (arguments.large_mib, arguments.random_reads, arguments.commits) = (8, 64, 20);
        arguments.cold_files = 10;
    }
    match run(&arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("drive: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Measures and prints; whether nothing of ours failed.
fn run(arguments: &Arguments) -> io::Result<bool> {
    let backends = available(arguments);
    let all_rows = Row::value_variants();
    let rows = if arguments.rows.is_empty() { all_rows.to_vec() } else { arguments.rows.clone() };
    let mut rows: Vec<Row> = rows;
    rows.sort();
    let cpu = arguments.pinned.then_some(0);
    // Names of processes differ between runs: two may run at once, and a dead one's mount does not disturb.
    let name = format!("drive-bench-{}", std::process::id());
    let parent = arguments
        .place
        .clone()
        .unwrap_or_else(|| if arguments.pinned { "/dev/shm" } else { "target" }.into());
    let place = Place { directory: std::path::absolute(parent)?.join(name), cpu };
    cpu.map_or(Ok(()), pin_this_thread)?;
    let result = measure(arguments, &backends, &rows, &place);
    // Only what we made is there; each file system has removed its own.
    let _ = fs::remove_dir_all(place.directory.join("inputs"));
    let _ = fs::remove_dir(&place.directory);
    let (report, ours_failed) = result?;
    report.print(&backends.iter().map(|(backend, _)| *backend).collect::<Vec<_>>(), &rows);
    if let Some(path) = &arguments.json {
        fs::write(path, serde_json::to_vec_pretty(&report)?)?;
    }
    Ok(!ours_failed)
}

/// Who is installed; says who is not.
fn available(arguments: &Arguments) -> Vec<(Backend, PathBuf)> {
    let wanted = |backend: &&Backend| arguments.only.is_empty() || arguments.only.contains(backend);
    let mut backends = Vec::new();
    eprintln!("building or finding the programs ...");
    for &backend in Backend::value_variants().iter().filter(wanted) {
        match backend.program() {
            Ok(program) => backends.push((backend, program)),
            Err(error) => println!("Left out: {}: {error}", backend.name()),
        }
    }
    backends
}

fn measure(
    arguments: &Arguments,
    backends: &[(Backend, PathBuf)],
    rows: &[Row],
    place: &Place,
) -> io::Result<(Report, bool)> {
    eprintln!("preparing the inputs ...");
    let inputs = Inputs::make(&place.directory.join("inputs"), arguments.untar_files, arguments.clone_files)?;
    let amounts = Amounts {
        creates: arguments.creates,
        large_bytes: arguments.large_mib << 20,
        random_reads: arguments.random_reads,
        cold_files: arguments.cold_files,
        commits: arguments.commits,
    };
    print_workload(arguments, &inputs, place);
    let mut report = Report::default();
    let mut ours_failed = false;
    for round in 0..arguments.rounds {
        for turn in 0..backends.len() {
            // Each round begins with another one, so that none always follows the same.
            let (backend, program) = &backends[(turn + round) % backends.len()];
            let begin = Instant::now();
            let mut failed = |what: &str, error: io::Error| {
                println!("Failed: {}, {what}: {error}", backend.name());
                ours_failed |= backend.is_ours();
            };
            let mut mounted = match Mounted::create(*backend, program, place) {
                Ok(mounted) => mounted,
                Err(error) => {
                    failed("mount", error);
                    continue;
                }
            };
            for &row in rows {
                let measured = work::measure(row, &mut mounted, &inputs, &amounts);
                let measured = measured.map_err(|error| failed(row.name(), error)).ok();
                report.add(*backend, row, round, measured);
            }
            if let Err(error) = mounted.close() {
                failed("unmount", error);
            }
            eprintln!("round {}: {} took {:.0} s", round + 1, backend.name(), begin.elapsed().as_secs_f64());
        }
    }
    println!();
    Ok((report, ours_failed))
}

fn print_workload(arguments: &Arguments, inputs: &Inputs, place: &Place) {
    let set_up = match arguments.pinned {
        true => "everything on processor 0",
        false => "unpinned",
    };
    let kind = match place.directory.starts_with("/dev/shm") {
        true => "over memory (tmpfs)",
        false => "over the disk",
    };
    println!("Set-up: {set_up}, {kind}; {} rounds, interleaved, each on a new file system", arguments.rounds);
    println!(
        "Work: {} files of 1 KiB created; untar of {} files, {} MB; git clone of {} files, {} MB; {} commits; \
         a file of {} MiB written, fsynced, read after a remount and again; {} random reads of it after a remount; the first byte of {} files \
         of 256 KiB after a remount",
        number(arguments.creates as f64),
        number(inputs.archived.files as f64),
        number(inputs.archived.bytes as f64 / 1e6),
        number(inputs.cloned.files as f64),
        number(inputs.cloned.bytes as f64 / 1e6),
        number(arguments.commits as f64),
        number(arguments.large_mib as f64),
        number(arguments.random_reads as f64),
        number(arguments.cold_files as f64),
    );
    if !rustix::process::geteuid().is_root() {
        println!(
            "Note: only root may drop the kernel's caches; on the local file system no read is cold then."
        );
    }
}
