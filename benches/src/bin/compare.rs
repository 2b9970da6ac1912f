//! Prints which of our figures have moved by more than noise since the last record.
//!
//! `cargo run -p benches --bin compare` compares `benches/results/*.json` as they lie there (after programs ran with
//! `--record`) with those of the last commit; `compare REVISION` with those of another. What counts as noise is said by the
//! peers: see `benches/src/compare.rs`. With `--all` the figures that did not move are printed too; with `--quick` each
//! record is compared with itself.

#![forbid(unsafe_code)]

use std::io;
use std::path::Path;
use std::process::{Command, ExitCode};

use benches::compare::{Moved, compare};
use benches::results::{Results, recorded};
use benches::table::{Table, number};
use clap::Parser;

/// Prints which of our figures have moved by more than noise.
#[derive(Parser)]
struct Arguments {
    /// The commit whose record is the one to compare with.
    #[arg(default_value = "HEAD")]
    revision: String,
    /// Prints the figures that did not move, too.
    #[arg(long)]
    all: bool,
    /// Compares each record with itself: shows that all can be read.
    #[arg(long)]
    quick: bool,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("compare: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> io::Result<()> {
    for path in recorded()? {
        let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let now = Results::read(&path).map_err(named)?;
        let before = match arguments.quick {
            true => Some(now.clone()),
            false => earlier(&path, &arguments.revision)?,
        };
        let Some(before) = before else {
            println!("{name}: there is no record of it in {}", arguments.revision);
            continue;
        };
        println!("{name}: {} ({}) beside {} ({})", place(&now), now.machine, place(&before), before.machine);
        let moved = compare(&before, &now);
        let count = moved.iter().filter(|moved| moved.is_more_than_noise()).count();
        println!("  {count} of {} figures have moved by more than noise", moved.len());
        let shown: Vec<Moved> =
            moved.into_iter().filter(|moved| arguments.all || moved.is_more_than_noise()).collect();
        if !shown.is_empty() {
            print!("{}", table(&shown));
        }
    }
    Ok(())
}

/// When and of which commit a record is.
fn place(results: &Results) -> String {
    match &results.commit {
        Some(commit) => format!("{}, commit {commit}", results.date),
        None => results.date.clone(),
    }
}

/// The record of that name in `revision`, if there was one.
fn earlier(path: &Path, revision: &str) -> io::Result<Option<Results>> {
    let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else { return Ok(None) };
    let git = |arguments: &[&str]| Command::new("git").arg("-C").arg(directory).args(arguments).output();
    let known = git(&["rev-parse", "--verify", "--quiet", &format!("{revision}^{{commit}}")])?;
    if !known.status.success() {
        return Err(io::Error::other(format!(
            "git knows no commit {revision} here: name one, such as HEAD~10"
        )));
    }
    let shown = git(&["show", &format!("{revision}:./{}", name.to_string_lossy())])?;
    if !shown.status.success() {
        return Ok(None);
    }
    Ok(Some(serde_json::from_slice(&shown.stdout)?))
}

fn table(moved: &[Moved]) -> Table {
    let mut table = Table::new(&["figure", "before", "now", "gain", "noise"]);
    for figure in moved {
        let percent = |share: f64| format!("{:+.1} %", 100.0 * share);
        let name = format!("  {}, {}: {}", figure.panel, figure.unit, figure.name);
        let noise = format!("{:.1} %", 100.0 * figure.noise);
        table.row(vec![name, number(figure.before), number(figure.now), percent(figure.gain), noise]);
    }
    table
}
