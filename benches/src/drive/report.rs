//! Four tables: rates and processor seconds, each also beside ours with one node; and which goals are met.
//!
//! On a machine that others use too, the processor seconds say more than the rates.

use super::backend::Backend;
use super::work::{Measured, Row};
use crate::statistics::median;
use crate::table::{Table, number, ratio};
use serde::Serialize;

/// One row, done once by one file system.
#[derive(Serialize)]
pub struct Entry {
    /// The file system's name.
    pub backend: &'static str,
    /// The row's name.
    pub row: &'static str,
    /// The unit of its rate.
    pub unit: &'static str,
    /// Which round it was, from 0.
    pub round: usize,
    /// What it took; none where it failed.
    pub measured: Option<Measured>,
}

/// Everything that was measured in one set-up.
#[derive(Default, Serialize)]
pub struct Report {
    /// In the order in which they were made.
    pub entries: Vec<Entry>,
}

impl Report {
    /// Notes what `row` took on `backend`.
    pub fn add(&mut self, backend: Backend, row: Row, round: usize, measured: Option<Measured>) {
        let (backend, unit, row) = (backend.name(), row.unit(), row.name());
        self.entries.push(Entry { backend, row, unit, round, measured });
    }

    fn median(&self, backend: Backend, row: Row, field: impl Fn(&Measured) -> f64) -> Option<f64> {
        let entries =
            self.entries.iter().filter(|entry| entry.backend == backend.name() && entry.row == row.name());
        median(entries.filter_map(|entry| entry.measured.as_ref()).map(field))
    }

    fn rate(&self, backend: Backend, row: Row) -> Option<f64> {
        self.median(backend, row, |measured| measured.rate)
    }

    /// Prints the tables over `backends` and `rows`.
    pub fn print(&self, backends: &[Backend], rows: &[Row]) {
        let print = |title: &str, cell: &dyn Fn(Backend, Row) -> Option<String>| {
            let names = backends.iter().map(|backend| backend.name());
            let mut table = Table::new(&[title, "unit"].into_iter().chain(names).collect::<Vec<_>>());
            for &row in rows {
                let cells =
                    backends.iter().map(|&backend| cell(backend, row).unwrap_or_else(|| "-".to_string()));
                let unit = if title.starts_with("CPU") { "s" } else { row.unit() };
                table.row([row.name().to_string(), unit.to_string()].into_iter().chain(cells).collect());
            }
            println!("{table}");
        };
        print("rate (more is better)", &|backend, row| self.rate(backend, row).map(number));
        print("times as fast as ours-1", &|backend, row| {
            Some(ratio(self.rate(backend, row), self.rate(Backend::OursOneNode, row)))
        });
        print("CPU: client + drive", &|backend, row| {
            let client = self.median(backend, row, |measured| measured.client_cpu_seconds)?;
            let drive = self.median(backend, row, |measured| measured.drive_cpu_seconds)?;
            Some(format!("{client:.2}+{drive:.2}"))
        });
        print("CPU beside ours-1 (less is better)", &|backend, row| {
            let total = |measured: &Measured| measured.client_cpu_seconds + measured.drive_cpu_seconds;
            let (peers, ours) =
                (self.median(backend, row, total), self.median(Backend::OursOneNode, row, total));
            Some(ratio(peers, ours))
        });
        self.print_goals(rows);
    }

    /// Prints how ours with one node stands to the goals of the project's first issue.
    fn print_goals(&self, rows: &[Row]) {
        let mut lines = Vec::new();
        for &row in rows {
            let goals = match row {
                Row::Creates | Row::Untar => &[(Backend::Gocryptfs, 5.0)][..],
                Row::WarmRead => &[(Backend::Gocryptfs, 1.0), (Backend::Bindfs, 1.0)][..],
                _ => &[(Backend::Gocryptfs, 1.0)][..],
            };
            for &(peer, times) in goals {
                let (Some(ours), Some(peers)) = (self.rate(Backend::OursOneNode, row), self.rate(peer, row))
                else {
                    continue;
                };
                let verdict = if ours >= times * peers { "met" } else { "MISSED" };
                let (row, peer, is) = (row.name(), peer.name(), ours / peers);
                lines.push(format!("  {verdict:<7} {row}: {is:.2} times as fast as {peer}, wanted {times}"));
            }
        }
        if !lines.is_empty() {
            println!("Goals, one node:\n{}", lines.join("\n"));
        }
    }
}
