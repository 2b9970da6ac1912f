//! Draws what the other programs recorded: `benches/results/*.json` become `benches/plots/*.svg`.
//!
//! `cargo run -p benches --bin plot`. With `--quick` nothing is written: it fails where a picture is not the one of
//! its results, so that continuous integration notices figures that were recorded and not drawn.

#![forbid(unsafe_code)]

use benches::plot::svg;
use benches::results::{Results, directory, recorded};
use clap::Parser;
use std::fs;
use std::io;
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
