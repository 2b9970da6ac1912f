//! What a coroutine of may's, or a task of tokio's, costs: `coroutine RUNTIME ROW COUNT` prints one figure.
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
    /// Parks `count`, runs `look`, lets them end.
    fn with_parked(&self, count: u64, look: fn() -> u64) -> u64;
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let figure = match arguments.as_slice() {
        [runtime, row, count] => count.parse().ok().and_then(|count| figure(runtime, row, count)),
        _ => None,
    };
    let Some(figure) = figure else {
        eprintln!(
            "usage: coroutine may|tokio|tokio-io switch|park-wake|spawn-join|channel|parked-memory COUNT"
        );
        return ExitCode::FAILURE;
    };
    println!("{figure}");
    ExitCode::SUCCESS
}

fn figure(runtime: &str, row: &str, count: u64) -> Option<f64> {
    let rows: Box<dyn Rows> = match runtime {
        "may" => Box::new(on_may::May::new()),
        "tokio" => Box::new(on_tokio::Tokio::new(false)),
        "tokio-io" => Box::new(on_tokio::Tokio::new(true)),
        _ => return None,
    };
    let time = |count| match row {
        "switch" => Some(rows.switch(count)),
        "park-wake" => Some(rows.park_wake(count)),
        "spawn-join" => Some(rows.spawn_join(count)),
        "channel" => Some(rows.channel(count)),
        _ => None,
    };
    if row == "parked-memory" {
        rows.with_parked(1, resident_bytes);
        let before = resident_bytes();
        let with = rows.with_parked(count, resident_bytes);
        return Some(with.saturating_sub(before) as f64 / count as f64);
    }
    // The first run warms up.
    time(count / 10 + 1)?;
    Some(time(count)?.as_nanos() as f64 / count as f64)
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
