//! What was measured of each server, as a table with ratios to ours and as JSON.

use super::load::{Outcome, Workload};
use super::servers::Server;
use crate::results::Results;
use crate::statistics::median;
use crate::table::{Table, number, ratio};
use serde::Serialize;

/// One round of one server under one workload.
#[derive(Clone, Copy, Serialize)]
pub struct Round {
    requests_per_second: f64,
    p50_us: f64,
    p99_us: f64,
    server_cpu_us_per_request: f64,
    /// Shares of one processor, 0 to 1.
    server_busy: f64,
    generator_busy: f64,
}

impl From<Outcome> for Round {
    fn from(outcome: Outcome) -> Self {
        let seconds = outcome.elapsed.as_secs_f64();
        let requests = outcome.requests.max(1) as f64;
        let microseconds = |fraction| outcome.latencies.quantile(fraction) as f64 / 1e3;
        Self {
            requests_per_second: outcome.requests as f64 / seconds,
            p50_us: microseconds(0.5),
            p99_us: microseconds(0.99),
            server_cpu_us_per_request: outcome.server_cpu.as_secs_f64() * 1e6 / requests,
            server_busy: outcome.server_cpu.as_secs_f64() / seconds,
            generator_busy: outcome.generator_cpu.as_secs_f64() / seconds,
        }
    }
}

/// All rounds of one server under one workload.
#[derive(Serialize)]
pub struct Series {
    /// The server's name.
    pub server: &'static str,
    /// What was asked of it.
    pub workload: Workload,
    /// Its rounds, in order.
    pub rounds: Vec<Round>,
}

impl Series {
    fn median(&self, field: impl Fn(&Round) -> f64) -> Option<f64> {
        median(self.rounds.iter().map(field))
    }
}

/// Returns the table of the servers that did `workload`.
pub fn table(series: &[&Series]) -> Table {
    let mut table = Table::new(&[
        "server",
        "requests/s",
        "to ours",
        "p50 us",
        "p99 us",
        "cpu us/request",
        "to ours",
        "busy",
        "client",
    ]);
    let ours = series.iter().find(|series| series.server == Server::Ours.name());
    for series in series {
        let of = |field: fn(&Round) -> f64| (series.median(field), ours.and_then(|ours| ours.median(field)));
        let (rate, our_rate) = of(|round| round.requests_per_second);
        let (cpu, our_cpu) = of(|round| round.server_cpu_us_per_request);
        let text = |field: fn(&Round) -> f64| of(field).0.map_or("-".to_string(), number);
        let percent = |field: fn(&Round) -> f64| {
            of(field).0.map_or("-".into(), |share| format!("{:.0}%", share * 100.0))
        };
        table.row(vec![
            series.server.to_string(),
            rate.map_or("-".to_string(), number),
            ratio(rate, our_rate),
            text(|round| round.p50_us),
            text(|round| round.p99_us),
            cpu.map_or("-".to_string(), number),
            ratio(cpu, our_cpu),
            percent(|round| round.server_busy),
            percent(|round| round.generator_busy),
        ]);
    }
    table
}

/// Adds the panels of one workload: the server's processor time for a request, and requests a second.
pub fn record(results: &mut Results, series: &[Series]) {
    let Some(first) = series.first() else { return };
    let title = format!("{} connections, {} B", first.workload.connections, first.workload.size_bytes);
    let bars = |field: fn(&Round) -> f64| {
        series.iter().map(move |series| (series.server, series.median(field))).collect::<Vec<_>>()
    };
    let (cpu, rate) =
        (bars(|round| round.server_cpu_us_per_request), bars(|round| round.requests_per_second));
    results.panel(title.clone(), "us of the server's CPU a request", false, None, cpu);
    results.panel(title, "requests/s", true, None, rate);
}
