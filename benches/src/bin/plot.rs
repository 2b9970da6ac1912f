//! Draws what the other programs recorded: `benches/results/*.json` become `benches/plots/*.svg`.
//!
//! `cargo run -p benches --bin plot`. With `--quick` nothing is written: it fails where a picture is not the one of
//! its results, so that continuous integration notices figures that were recorded and not drawn.

#![forbid(unsafe_code)]

use benches::plot::svg;
use benches::results::{Results, directory};
use clap::Parser;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

/// Draws every recorded result.
#[derive(Parser)]
struct Arguments {
    /// Only compares the pictures with the results.
    #[arg(long)]
    quick: bool,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("plot: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> io::Result<()> {
    let plots = directory("plots");
    for path in recorded()? {
        let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
        let picture = svg(&Results::read(&path).map_err(named)?);
        let name = path.file_stem().unwrap_or_default();
        let target = plots.join(name).with_extension("svg");
        if !arguments.quick {
            fs::create_dir_all(&plots)?;
            fs::write(&target, picture)?;
            println!("{}", target.display());
        } else if fs::read_to_string(&target).unwrap_or_default() != picture {
            return Err(io::Error::other(format!(
                "{} is not the picture of its results: run `cargo run -p benches --bin plot`",
                target.display()
            )));
        } else {
            println!("{} is the picture of its results", target.display());
        }
    }
    Ok(())
}

/// Returns the files of results, by name.
fn recorded() -> io::Result<Vec<PathBuf>> {
    let directory = directory("results");
    if !directory.is_dir() {
        return Ok(Vec::new());
    }
    let entries = fs::read_dir(directory)?.collect::<Result<Vec<_>, _>>()?;
    let mut paths: Vec<PathBuf> = entries.into_iter().map(|entry| entry.path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "json"));
    paths.sort();
    Ok(paths)
}
