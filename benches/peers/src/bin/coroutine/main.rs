//! What a coroutine of may's, or a task of tokio's, costs: `coroutine RUNTIME ROW COUNT` prints one figure,
//! or a dash where the runtime has no such thing.
//!
//! The rows are those of `benches/src/coroutine.rs`, which runs this program and prints the figures beside ours.
//! Times in nanoseconds an operation, memory in bytes a coroutine.

mod on_may;
mod on_tokio;

use std::process::ExitCode;
use std::time::Duration;

/// A runtime's rows: each does something `count` times and says how long that took.
trait Rows {
    fn switch(&self, count: u64) -> Duration;
    fn park_wake(&self, count: u64) -> Duration;
    fn spawn_join(&self, count: u64) -> Duration;
    fn channel(&self, count: u64) -> Duration;
    fn mutex(&self, count: u64) -> Duration;
    fn mutex_handoff(&self, count: u64) -> Duration;
    /// None where a timer cannot be armed without waiting for it.
    fn timer(&self, count: u64) -> Option<Duration>;
    fn timed_wait(&self, count: u64) -> Option<Duration>;
    /// Parks `count`, runs `look`, lets them end.
    fn with_parked(&self, count: u64, look: fn() -> u64) -> u64;
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let figure = match arguments.as_slice() {
        [runtime, row, count] => count.parse().ok().and_then(|count| figure(runtime, row, count)),
        _ => None,
    };
    match figure {
        Some(Some(figure)) => println!("{figure}"),
        Some(None) => println!("-"),
        None => {
            eprintln!("usage: coroutine may|tokio|tokio-io ROW COUNT");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

/// Returns None where there is no such runtime or row, and an inner None where the runtime lacks the row.
fn figure(runtime: &str, row: &str, count: u64) -> Option<Option<f64>> {
    let with_time = matches!(row, "timer" | "timed-wait");
    let rows: Box<dyn Rows> = match runtime {
        "may" => Box::new(on_may::May::new()),
        "tokio" => Box::new(on_tokio::Tokio::new(false, with_time)),
        "tokio-io" => Box::new(on_tokio::Tokio::new(true, with_time)),
        _ => return None,
    };
    if row == "parked-memory" {
        rows.with_parked(1, resident_bytes);
        let before = resident_bytes();
        let with = rows.with_parked(count, resident_bytes);
        return Some(Some(with.saturating_sub(before) as f64 / count as f64));
    }
    let time = |count| match row {
        "switch" => Some(Some(rows.switch(count))),
        "park-wake" => Some(Some(rows.park_wake(count))),
        "spawn-join" => Some(Some(rows.spawn_join(count))),
        "channel" => Some(Some(rows.channel(count))),
        "mutex" => Some(Some(rows.mutex(count))),
        "mutex-handoff" => Some(Some(rows.mutex_handoff(count))),
        "timer" => Some(rows.timer(count)),
        "timed-wait" => Some(rows.timed_wait(count)),
        _ => None,
    };
    // The first run warms up.
    time(count / 10 + 1)?;
    Some(time(count)?.map(|time| time.as_nanos() as f64 / count as f64))
}

/// Returns the resident memory of this process and its page tables.
fn resident_bytes() -> u64 {
    let field = |path: &str, name: &str| -> u64 {
        let text = std::fs::read_to_string(path).expect("/proc is mounted");
        let line =
            text.lines().find_map(|line| line.strip_prefix(name)).expect("the kernel knows this field");
        line.trim().trim_end_matches("kB").trim().parse::<u64>().expect("a number of kB") * 1024
    };
    field("/proc/self/smaps_rollup", "Rss:") + field("/proc/self/status", "VmPTE:")
}
