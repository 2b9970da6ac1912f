//! What was measured of each, as a table with ratios to ours and as panels of a plot.

use super::contenders::{Contender, Workload};
use crate::results::Results;
use crate::statistics::median;
use crate::table::{Table, number, ratio};

/// One round of one contender under one workload.
#[derive(Clone, Copy, Debug)]
pub struct Round {
    /// Calls answered a second.
    pub calls_per_second: f64,
    /// Processor time of the server for one call, in microseconds.
    pub server_us: f64,
    /// Processor time of the caller for one call, in microseconds.
    pub caller_us: f64,
}

/// All rounds of one contender under one workload.
pub struct Series {
    /// Who.
    pub contender: Contender,
    /// Its rounds, in order.
    pub rounds: Vec<Round>,
}

impl Series {
    fn median(&self, field: impl Fn(&Round) -> f64) -> Option<f64> {
        median(self.rounds.iter().map(field))
    }
}

fn calls(round: &Round) -> f64 {
    round.calls_per_second
}

fn both_ends(round: &Round) -> f64 {
    round.server_us + round.caller_us
}

/// Returns what `workload` is, in words.
pub fn title(workload: &Workload) -> String {
    let size = match workload.size_bytes {
        size if size >= 1 << 20 => format!("{} MiB", size >> 20),
        size if size >= 1 << 10 => format!("{} KiB", size >> 10),
        size => format!("{size} B"),
    };
    let cipher = if workload.encrypted { "TLS" } else { "plain" };
    format!("{size}, {} in flight, {cipher}", workload.in_flight)
}

/// Returns the table of one workload.
pub fn table(series: &[Series]) -> Table {
    let mut table = Table::new(&[
        "who",
        "calls/s",
        "to ours",
        "server us/call",
        "to ours",
        "caller us/call",
        "to ours",
        "both us/call",
        "to ours",
    ]);
    let ours = series.iter().find(|series| series.contender == Contender::Ours);
    for series in series {
        let mut cells = vec![series.contender.name().to_string()];
        let fields: [fn(&Round) -> f64; 4] =
            [calls, |round| round.server_us, |round| round.caller_us, both_ends];
        for field in fields {
            let value = series.median(field);
            cells.push(value.map_or("-".to_string(), number));
            cells.push(ratio(value, ours.and_then(|ours| ours.median(field))));
        }
        table.row(cells);
    }
    table
}

/// Adds the workload's panels: calls a second, and processor time of both ends together.
pub fn record(results: &mut Results, workload: &Workload, series: &[Series]) {
    let bars = |field: fn(&Round) -> f64| {
        series.iter().map(move |series| (series.contender.name(), series.median(field))).collect::<Vec<_>>()
    };
    results.panel(title(workload), "calls/s", true, None, bars(calls));
    results.panel(title(workload), "us of CPU a call, both ends", false, None, bars(both_ends));
}
