//! What was measured of each server, as a table with ratios to ours and as panels of a plot.

use super::servers::{Page, Server};
use super::wrk::{PIPELINED, Workload};
use crate::results::Results;
use crate::statistics::median;
use crate::table::{Table, number, ratio};

/// One round of one server under one workload.
#[derive(Clone, Copy, Debug)]
pub struct Round {
    /// Requests answered a second.
    pub requests_per_second: f64,
    /// Processor time of the server for one request, in microseconds.
    pub server_us: f64,
    /// The median latency, in microseconds.
    pub p50_us: f64,
    /// What 99 % of the requests did not exceed.
    pub p99_us: f64,
    /// The share of a processor that the server used, 0 to 1.
    pub server_busy: f64,
}

/// All rounds of one server under one workload.
pub struct Series {
    /// Who.
    pub server: Server,
    /// Its rounds, in order.
    pub rounds: Vec<Round>,
}

impl Series {
    fn median(&self, field: impl Fn(&Round) -> f64) -> Option<f64> {
        median(self.rounds.iter().map(field))
    }
}

fn rate(round: &Round) -> f64 {
    round.requests_per_second
}

fn server_us(round: &Round) -> f64 {
    round.server_us
}

/// Returns what `workload` is, in words.
pub fn title(workload: &Workload) -> String {
    let page = match workload.page {
        Page::Plaintext => "plaintext",
        Page::Json => "JSON",
    };
    let pipelined = if workload.pipelined { format!(", {PIPELINED} pipelined") } else { String::new() };
    format!("{page}, {} connections{pipelined}", workload.connections)
}

/// Returns the table of one workload.
pub fn table(workload: &Workload, series: &[Series]) -> Table {
    let mut table = Table::new(&[
        "server",
        "requests/s",
        "to ours",
        "cpu us/request",
        "to ours",
        "p50 us",
        "p99 us",
        "busy",
    ]);
    let ours = series.iter().find(|series| series.server == Server::Ours);
    for series in series {
        let mut cells = vec![series.server.name().to_string()];
        for field in [rate, server_us] {
            let value = series.median(field);
            cells.push(value.map_or("-".to_string(), number));
            cells.push(ratio(value, ours.and_then(|ours| ours.median(field))));
        }
        for field in [|round: &Round| round.p50_us, |round: &Round| round.p99_us] {
            // wrk measures from the sending of sixteen requests to each of their answers.
            let value = series.median(field).filter(|_| !workload.pipelined);
            cells.push(value.map_or("-".to_string(), number));
        }
        let busy = series.median(|round| round.server_busy);
        cells.push(busy.map_or("-".to_string(), |busy| format!("{:.0}%", busy * 100.0)));
        table.row(cells);
    }
    table
}

/// Adds the workload's panels: requests a second, and the server's processor time for one.
pub fn record(results: &mut Results, workload: &Workload, series: &[Series]) {
    let bars = |field: fn(&Round) -> f64| {
        series.iter().map(move |series| (series.server.name(), series.median(field))).collect::<Vec<_>>()
    };
    let goal = series.iter().find(|series| series.server == Server::MayMinihttp);
    let goal = goal.and_then(|series| series.median(rate));
    results.panel(title(workload), "requests/s", true, goal, bars(rate));
    results.panel(title(workload), "us of the server's CPU a request", false, None, bars(server_us));
}
