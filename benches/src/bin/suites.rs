//! Suites of tests that others wrote, on our drive with one node and with three, and on the local file system beside it.
//!
//! `cargo run -p benches --bin suites` runs all that are installed, as root, in some minutes; `--install` prints how to get
//! them. `--operations 1000000 --seconds 60` and the like are for an evening. It is run by hand; continuous integration
//! only asks which suites there are (`--quick`), since they are not ours, and take their time.
//!
//! A table says how many cases passed, failed and were skipped; below it stands each that failed or was skipped, and why.
//! What fails on the local file system too is counted with it and not with us. When all are through, the file system is
//! unmounted and mounted again, and what the suites have left has to be the same, byte by byte. The program's exit code is
//! that of failure where something of ours fails that does not fail there.

#![forbid(unsafe_code)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use benches::drive::backend::Backend;
use benches::drive::mounted::{Mounted, Place};
use benches::suites::inventory;
use benches::suites::suite::{Effort, End, Outcome, Suite};
use benches::table::Table;
use clap::{Parser, ValueEnum};

/// Runs other people's tests on our drive and on the local file system.
#[derive(Parser)]
struct Arguments {
    /// Only these suites.
    #[arg(long, value_delimiter = ',', value_enum)]
    suites: Vec<Suite>,
    /// On these file systems; the local one tells what is a suite's own fault.
    #[arg(long, value_delimiter = ',', value_enum, default_values_t = [Backend::Local, Backend::OursOneNode, Backend::OursThreeNodes])]
    on: Vec<Backend>,
    /// The storage-node to test [default: this workspace's, built with optimisations].
    #[arg(long)]
    program: Option<PathBuf>,
    /// Operations of fsx, for each of its seeds.
    #[arg(long, default_value_t = 50_000)]
    operations: u64,
    /// Seeds of fsx.
    #[arg(long, default_value_t = 2)]
    seeds: u64,
    /// Seconds for each of what runs for a time.
    #[arg(long, default_value_t = 2)]
    seconds: u64,
    /// What fio writes in each of its cases.
    #[arg(long, default_value_t = 16)]
    mebibytes: u64,
    /// Where everything is made.
    #[arg(long, default_value = "target")]
    place: PathBuf,
    /// Prints how to install the suites, and ends.
    #[arg(long)]
    install: bool,
    /// Runs nothing: says which of the suites are installed, and ends.
    #[arg(long)]
    quick: bool,
}

/// What became of one suite on one file system.
struct Row {
    backend: Backend,
    suite: &'static str,
    outcomes: Vec<Outcome>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if arguments.install {
        println!("apt install fuse3 fio stress-ng dbench fsmark libacl1-dev && cargo install pjdfstest fsx");
        return ExitCode::SUCCESS;
    }
    if arguments.quick {
        println!(
            "installed: {}",
            installed(&arguments).iter().map(|suite| suite.name()).collect::<Vec<_>>().join(", ")
        );
        return ExitCode::SUCCESS;
    }
    match run(&arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("suites: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The suites that are wanted and can run here; of the others it says why not.
fn installed(arguments: &Arguments) -> Vec<Suite> {
    let wanted = |suite: &&Suite| arguments.suites.is_empty() || arguments.suites.contains(suite);
    let mut suites = Vec::new();
    for &suite in Suite::value_variants().iter().filter(wanted) {
        match suite.program() {
            Ok(_) => suites.push(suite),
            Err(error) => println!("Left out: {}: {error}", suite.name()),
        }
    }
    suites
}

/// Runs and prints; whether nothing of ours failed.
fn run(arguments: &Arguments) -> io::Result<bool> {
    let suites = installed(arguments);
    let directory = std::path::absolute(&arguments.place)?.join(format!("suites-{}", std::process::id()));
    let place = Place { directory: directory.clone(), cpu: None };
    let mut rows = Vec::new();
    for &backend in &arguments.on {
        rows.extend(run_on(arguments, backend, &suites, &place)?);
    }
    let is_fine = print(&rows);
    match is_fine {
        true => drop(fs::remove_dir_all(&directory)),
        false => println!("The logs are in {}.", directory.display()),
    }
    Ok(is_fine)
}

fn run_on(arguments: &Arguments, backend: Backend, suites: &[Suite], place: &Place) -> io::Result<Vec<Row>> {
    let program = match &arguments.program {
        Some(program) if backend.is_ours() => program.clone(),
        _ => backend.program()?,
    };
    let effort = Effort {
        operations: arguments.operations,
        seeds: arguments.seeds,
        seconds: arguments.seconds,
        mebibytes: arguments.mebibytes,
    };
    let logs = place.directory.join(format!("logs-{}", backend.name()));
    fs::create_dir_all(&logs)?;
    let mut mounted = Mounted::create(backend, &program, place)?;
    let link = ShortName::of(&mounted.root())?;
    let mut rows = Vec::new();
    for suite in suites {
        eprintln!("{} on {} ...", suite.name(), backend.name());
        let directory = link.0.join(suite.name());
        fs::create_dir(&directory)?;
        let outcomes = suite.run(&directory, &logs, &effort)?;
        rows.push(Row { backend, suite: suite.name(), outcomes });
    }
    eprintln!("what is left after a remount on {} ...", backend.name());
    let before = inventory::take(&mounted.root())?;
    mounted.remount()?;
    let differences = inventory::differences(&before, &inventory::take(&mounted.root())?);
    let end = match differences.first() {
        None => End::Passed,
        Some(first) => End::Failed(format!("{} differ: {first}", differences.len())),
    };
    let outcomes = vec![Outcome { case: format!("{} files and directories", before.len()), end }];
    rows.push(Row { backend, suite: "the same after a remount", outcomes });
    mounted.close()?;
    Ok(rows)
}

/// A link with a short name, removed with its guard: a socket's path has 107 bytes at most, and that of fs_mark's files less.
struct ShortName(PathBuf);

impl ShortName {
    fn of(directory: &Path) -> io::Result<Self> {
        let link = std::env::temp_dir().join(format!("st-{}", std::process::id()));
        std::os::unix::fs::symlink(directory, &link)?;
        Ok(Self(link))
    }
}

impl Drop for ShortName {
    fn drop(&mut self) {
        // Where it stays it is a name that leads nowhere.
        let _ = fs::remove_file(&self.0);
    }
}

/// Prints all of it; whether nothing of ours failed that passes on the local file system.
fn print(rows: &[Row]) -> bool {
    let failed_locally: BTreeSet<(&str, &str)> = (rows.iter().filter(|row| row.backend == Backend::Local))
        .flat_map(|row| row.outcomes.iter().map(|outcome| (row.suite, outcome)))
        .filter(|(_, outcome)| matches!(outcome.end, End::Failed(_)))
        .map(|(suite, outcome)| (suite, outcome.case.as_str()))
        .collect();
    let mut table = Table::new(&["suite", "on", "passed", "failed", "there too", "skipped"]);
    // Many are skipped for one reason.
    let mut notes: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    let mut is_fine = true;
    for row in rows {
        let is_ours = row.backend.is_ours();
        let (mut passed, mut failed, mut there_too, mut skipped) = (0, 0, 0, 0);
        for Outcome { case, end } in &row.outcomes {
            let (what, why) = match end {
                End::Passed => {
                    passed += 1;
                    continue;
                }
                End::Skipped(why) => {
                    skipped += 1;
                    ("skipped", why)
                }
                End::Failed(why) if is_ours && failed_locally.contains(&(row.suite, case)) => {
                    there_too += 1;
                    ("failed, as on the local file system", why)
                }
                End::Failed(why) => {
                    failed += 1;
                    is_fine &= !is_ours;
                    ("failed", why)
                }
            };
            let note = format!("{} on {}: {what}: {why}", row.suite, row.backend.name());
            notes.entry(note).or_default().push(case);
        }
        let counts = [passed, failed, there_too, skipped].map(|count: u32| count.to_string());
        let name = [row.suite, row.backend.name()].map(str::to_owned);
        table.row(name.into_iter().chain(counts).collect());
    }
    println!("{table}");
    notes.iter().for_each(|(note, cases)| println!("{note}: {}", cases.join(", ")));
    is_fine
}
