//! The same durable writes to our local store, to fjall 3, to redb 4, and to a bare file.
//!
//! `cargo run --release --manifest-path benches/peers/store/Cargo.toml -- --directory DIR` (a directory on the disk
//! in question; the default is the current one) runs interleaved rounds, each in a fresh directory, and prints
//! medians and ratios to the bare disk and to ours. `--open-count 1000000` also measures opening that many blocks.
//!
//! Everyone acknowledges only what is synced. We serve many independent writers and group them ourselves; the peers
//! are given each group as one batch with one sync, which is the best case for them. Values are random, so that
//! compression gains nothing. The bare file is written in the same groups, one `pwritev` and one `fdatasync` each.

mod contenders;

use clap::Parser;
use contenders::{Contender, Work};
use std::{path::PathBuf, time::Instant};

/// Compares durable writes.
#[derive(Parser)]
struct Arguments {
    /// Where to make the stores; each round's is removed after it.
    #[arg(long, default_value = ".")]
    directory: PathBuf,
    /// Interleaved rounds; medians are printed.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// How much is written in a round of 64 KiB values, in MiB; the others write an eighth of it.
    #[arg(long, default_value_t = 512)]
    mebibytes: usize,
    /// Only these: disk, ours, fjall, redb.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Only workloads whose name contains this.
    #[arg(long, default_value = "")]
    work: String,
    /// Also measures opening a store with this many blocks of 1 KiB.
    #[arg(long, default_value_t = 0)]
    open_count: usize,
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn main() {
    let arguments = Arguments::parse();
    let bytes = arguments.mebibytes << 20;
    let works = [
        Work {
            name: "64 KiB, 16 at a time",
            value_bytes: 64 << 10,
            group: 16,
            count: bytes >> 16,
            keys: None,
        },
        Work {
            name: "1 KiB, 256 at a time",
            value_bytes: 1 << 10,
            group: 256,
            count: bytes >> 13,
            keys: None,
        },
        Work {
            name: "64 registers of 200 B, rewritten",
            value_bytes: 200,
            group: 64,
            count: bytes >> 13,
            keys: Some(64),
        },
    ];
    for work in works.iter().filter(|work| work.name.contains(&arguments.work)) {
        measure(&arguments, work);
    }
    if arguments.open_count > 0 {
        measure_open(&arguments);
    }
}

fn measure(arguments: &Arguments, work: &Work) {
    let wanted = |contender: &Contender| {
        arguments.only.is_empty() || arguments.only.contains(&contender.name().into())
    };
    let contenders: Vec<Contender> = Contender::ALL.into_iter().filter(wanted).collect();
    let mut rates = vec![Vec::new(); contenders.len()];
    for _ in 0..arguments.rounds {
        for (contender, rates) in contenders.iter().zip(&mut rates) {
            let directory = tempfile::tempdir_in(&arguments.directory).expect("a directory for the store");
            let seconds = contender.run(directory.path(), work);
            rates.push(work.count as f64 / seconds);
        }
    }
    println!("\n{} ({} puts a round, {} rounds)", work.name, work.count, arguments.rounds);
    println!("{:<8} {:>10} {:>10} {:>8} {:>8}", "", "puts/s", "MB/s", "to disk", "to ours");
    let medians: Vec<f64> = rates.iter_mut().map(|rates| median(rates)).collect();
    let of = |contender| contenders.iter().position(|other| *other == contender).map(|at| medians[at]);
    for (contender, rate) in contenders.iter().zip(&medians) {
        let ratio = |base: Option<f64>| base.map_or("-".into(), |base| format!("{:.2}", rate / base));
        let megabytes = rate * work.value_bytes as f64 / 1e6;
        let (to_disk, to_ours) = (ratio(of(Contender::Disk)), ratio(of(Contender::Ours)));
        println!("{:<8} {rate:>10.0} {megabytes:>10.1} {to_disk:>8} {to_ours:>8}", contender.name());
    }
}

fn measure_open(arguments: &Arguments) {
    let count = arguments.open_count;
    let work = Work { name: "", value_bytes: 1 << 10, group: 1024, count, keys: None };
    let directory = tempfile::tempdir_in(&arguments.directory).expect("a directory for the store");
    contenders::ours(directory.path(), &work);
    let mut seconds = Vec::new();
    for _ in 0..arguments.rounds {
        let start = Instant::now();
        let (found, scanned) = contenders::open_ours(directory.path());
        seconds.push(start.elapsed().as_secs_f64());
        assert_eq!(found, count as u64);
        println!(
            "opened {found} blocks in {:.3} s, {scanned} segments scanned",
            seconds.last().unwrap_or(&0.0)
        );
    }
    println!("median {:.3} s", median(&mut seconds));
}
