//! Half an hour of everything at once, and then: does the process hold what it held before?
//!
//! `cargo run --release -p benches --bin soak` runs servers and clients in one process: echo, HTTP, RPC plain and
//! encrypted, channels, locks and timers, with random terminations, resets and timeouts, from a seed that it prints and takes
//! (`HYPHA_SEED` or `--seed`; who does what is the seed's, when it happens the machine's). After the warm-up, and
//! again at the end, the load pauses until all is quiet; between these two moments descriptors and coroutines must
//! not grow by one, nor mappings and memory by more than a tenth. It fails otherwise.
//!
//! What it is not: a measure of speed. Its workers pause between sessions, so that it can run beside other work.

#![forbid(unsafe_code)]

use benches::random::{Random, mix};
use benches::soak::fate::{Counts, befall};
use benches::soak::sample::Sample;
use benches::soak::servers::{self, Ports};
use benches::soak::sessions;
use clap::Parser;
use std::cell::Cell;
use std::io;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// Runs mixed load for a long time and fails if anything has leaked.
#[derive(Parser, Clone)]
struct Arguments {
    /// Minutes of load after the warm-up.
    #[arg(long, default_value_t = 30.0)]
    minutes: f64,
    /// Workers, each with one session at a time.
    #[arg(long, default_value_t = 48)]
    workers: u64,
    /// The longest pause of a worker between two sessions, in milliseconds; 0 for none.
    #[arg(long, default_value_t = 40)]
    pause_ms: u64,
    /// What all decisions come from [default: the time of day].
    #[arg(long, env = "HYPHA_SEED")]
    seed: Option<u64>,
    /// Ten seconds: shows that everything works.
    #[arg(long)]
    quick: bool,
}

/// How long no load is until all is quiet: the longest wait of a session or a server, several times over.
const QUIET: Duration = Duration::from_secs(2);

fn main() -> ExitCode {
    let mut arguments = Arguments::parse();
    if arguments.quick {
        arguments.minutes = 0.1;
    }
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let seed = arguments.seed.unwrap_or(mix(now.as_nanos() as u64) % 1_000_000_000);
    println!(
        "seed {seed} (again: --seed {seed}), {} workers, {} minutes",
        arguments.workers, arguments.minutes
    );
    match reactor::run(move || soak(&arguments, seed)) {
        Ok(leaks) if leaks.is_empty() => {
            println!("flat");
            ExitCode::SUCCESS
        }
        Ok(leaks) => {
            println!("LEAKED (seed {seed}): {}", leaks.join("; "));
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("soak (seed {seed}): {error}");
            ExitCode::FAILURE
        }
    }
}

fn soak(arguments: &Arguments, seed: u64) -> io::Result<Vec<String>> {
    let counts = Rc::new(Counts::default());
    let ports = Rc::new(servers::start()?);
    let load = Duration::from_secs_f64(arguments.minutes * 60.0);
    let warm_up = (load / 10).clamp(Duration::from_secs(4), Duration::from_secs(60));
    let begin = Instant::now();
    println!(
        "{:>7}  {:>11} {:>10} {:>8} {:>9}  sessions so far",
        "s", "descriptors", "coroutines", "mappings", "RSS KiB"
    );

    // More stacks at once than the load ever needs: afterwards the pool of stacks is as full as it will be.
    let crowd: Vec<_> =
        (0..arguments.workers * 16).map(|_| reactor::spawn(|| reactor::sleep(QUIET / 4))).collect();
    crowd.into_iter().for_each(|member| member.join().expect("nobody terminates it"));

    run_load(arguments, seed, 0, &counts, &ports, warm_up, begin)?;
    let before = quiet(&counts, begin)?;
    run_load(arguments, seed, 1, &counts, &ports, load, begin)?;
    let after = quiet(&counts, begin)?;
    println!(
        "{} sessions: {} terminated, {} timed out, {} connections reset",
        counts.sessions.get(),
        counts.terminated.get(),
        counts.timed_out.get(),
        counts.resets.get()
    );
    let leaks = after.leaks_since(&before);
    if !leaks.is_empty() {
        println!("{}", reactor::dump());
    }
    Ok(leaks)
}

/// Runs the workers for `duration`, and samples every 10 s.
fn run_load(
    arguments: &Arguments,
    seed: u64,
    phase: u64,
    counts: &Rc<Counts>,
    ports: &Rc<Ports>,
    duration: Duration,
    begin: Instant,
) -> io::Result<()> {
    let over = Rc::new(Cell::new(false));
    let workers = (0..arguments.workers).map(|worker| {
        let (counts, ports, over, pause_ms) =
            (counts.clone(), ports.clone(), over.clone(), arguments.pause_ms);
        let random = Random::new(seed, worker << 1 | phase);
        reactor::spawn(move || {
            while !over.get() {
                let session_random = Random::new(random.next(), 0);
                let (counted, ports) = (counts.clone(), ports.clone());
                befall(&counts, &random, move || sessions::any(&counted, &ports, &session_random));
                if pause_ms > 0 {
                    reactor::sleep(random.time_below_ms(pause_ms));
                }
            }
        })
    });
    let workers: Vec<_> = workers.collect();
    let end = Instant::now() + duration;
    let mut next = Instant::now();
    while next < end {
        next = (next + Duration::from_secs(10)).min(end);
        reactor::sleep_until(next);
        print(&Sample::take(reactor::dump().coroutines.len())?, counts, begin, "");
    }
    over.set(true);
    workers.into_iter().for_each(|worker| worker.join().expect("nobody terminates it"));
    Ok(())
}

/// Waits until nothing moves any more, and returns what is left then.
fn quiet(counts: &Counts, begin: Instant) -> io::Result<Sample> {
    reactor::sleep(QUIET);
    let sample = Sample::take(reactor::dump().coroutines.len())?;
    print(&sample, counts, begin, "  (quiet)");
    Ok(sample)
}

fn print(sample: &Sample, counts: &Counts, begin: Instant, remark: &str) {
    println!("{:>7.0}  {sample}  {}{remark}", begin.elapsed().as_secs_f64(), counts.sessions.get());
}
