//! What was measured of each, as a table with ratios to what it is compared with, and as panels of a plot.

use super::round::Round;
use super::{Carrier, Contender, Workload};
use crate::results::Results;
use crate::statistics::median;
use crate::table::{Table, number};

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

/// In what is counted: a gigabyte and megabytes a second, or 10^5 calls and calls a second.
struct Units {
    rate: (&'static str, f64),
    cpu: (&'static str, f64),
}

fn units(workload: Workload) -> Units {
    match workload {
        Workload::Bulk => Units { rate: ("MB/s", 1e-6), cpu: ("CPU s/GB", 1e9) },
        Workload::Calls(_) => Units { rate: ("calls/s", 1.0), cpu: ("CPU s/10^5", 1e5) },
    }
}

fn total_cpu(round: &Round) -> f64 {
    round.cpu.iter().sum()
}

fn stream_of(all: &[Series], carrier: Carrier) -> Option<&Series> {
    all.iter().find(|series| series.contender == Contender { carrier, is_rpc: false })
}

/// Returns the table of one workload.
pub fn table(workload: Workload, all: &[Series]) -> Table {
    let units = units(workload);
    let heading =
        ["who", units.rate.0, "of what", "ratio", "goal", units.cpu.0, "asking", "asked", "relay", "ratio"];
    let mut table = Table::new(&heading);
    for series in all {
        let shown = |value: Option<f64>, unit: f64| value.map_or("-".into(), |value| number(value * unit));
        let beside = series.contender.carrier.goal();
        let other = beside.and_then(|(_, carrier)| stream_of(all, carrier));
        let ratio = |field: &dyn Fn(&Round) -> f64| {
            let both = series.median(field).zip(other.and_then(|other| other.median(field)));
            both.map_or("-".into(), |(ours, theirs)| format!("{:.2}", ours / theirs))
        };
        let part = |which: usize| shown(series.median(|round| round.cpu[which]), units.cpu.1);
        table.row(vec![
            series.contender.name().into(),
            shown(series.median(|round| round.rate), units.rate.1),
            other.map_or("-".into(), |other| other.contender.name().into()),
            ratio(&|round| round.rate),
            beside.map_or("-".into(), |(goal, _)| format!("{goal}")),
            shown(series.median(total_cpu), units.cpu.1),
            part(0),
            part(1),
            if series.contender.carrier == Carrier::Relayed { part(2) } else { "-".into() },
            ratio(&total_cpu),
        ]);
    }
    table
}

/// Adds the workload's panels: the rates, and processor time of all together.
pub fn record(results: &mut Results, workload: Workload, all: &[Series]) {
    let units = units(workload);
    let bars = |field: &dyn Fn(&Round) -> f64, unit: f64| -> Vec<(&'static str, Option<f64>)> {
        let bar = |series: &Series| (series.contender.name(), series.median(field).map(|value| value * unit));
        all.iter().map(bar).collect()
    };
    results.panel(workload.title(), units.rate.0, true, None, bars(&|round| round.rate, units.rate.1));
    let cpu = bars(&total_cpu, units.cpu.1);
    results.panel(workload.title(), units.cpu.0, false, None, cpu);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_of_ours_is_compared_with_what_it_is_to_reach() {
        let series = |(carrier, is_rpc), rate| Series {
            contender: Contender { carrier, is_rpc },
            rounds: vec![Round { rate, cpu: [1e-9, 2e-9, 0.0] }],
        };
        let all = [
            series((Carrier::Tls, false), 9e8),
            series((Carrier::BareTls, false), 1e9),
            series((Carrier::Quic, false), 4e8),
            series((Carrier::Relayed, false), 1e8),
        ];
        let table = table(Workload::Bulk, &all).to_string();
        let words = |line: usize| -> Vec<&str> {
            table
                .lines()
                .nth(line)
                .unwrap()
                .split("  ")
                .map(str::trim)
                .filter(|word| !word.is_empty())
                .collect()
        };
        assert_eq!(words(1)[..5], ["ours, TLS", "900", "rustls alone", "0.90", "0.9"]);
        assert_eq!(words(2)[..4], ["rustls alone", "1,000", "-", "-"]);
        assert_eq!(words(3)[..5], ["ours, QUIC", "400", "-", "-", "0.9"], "nothing to compare with");
        assert_eq!(words(4)[..5], ["ours, relayed", "100", "ours, QUIC", "0.25", "0.4"]);
        assert_eq!(words(1)[5..8], ["3.00", "1.00", "2.00"]);
    }
}
