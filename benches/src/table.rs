//! Plain text tables: a left-aligned first column, numbers right-aligned, two spaces between.
//!
//! Readable in a terminal and pasted into a README alike; nothing here knows what the numbers mean.

use std::fmt;

/// Rows of text under a heading.
#[derive(Default)]
pub struct Table {
    heading: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// Returns a table of no rows under `heading`.
    pub fn new(heading: &[&str]) -> Self {
        Self { heading: heading.iter().map(ToString::to_string).collect(), rows: Vec::new() }
    }

    /// Adds a row; cells missing at its end stay blank.
    pub fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }
}

impl fmt::Display for Table {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines = || std::iter::once(&self.heading).chain(&self.rows);
        let columns = lines().map(Vec::len).max().unwrap_or(0);
        let width_of = |column: usize| {
            lines().filter_map(|line| line.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width_of).collect();
        for line in lines() {
            let mut text = String::new();
            for (column, cell) in line.iter().enumerate() {
                let width = widths[column];
                match column {
                    0 => text.push_str(&format!("{cell:<width$}")),
                    _ => text.push_str(&format!("  {cell:>width$}")),
                }
            }
            writeln!(formatter, "{}", text.trim_end())?;
        }
        Ok(())
    }
}

/// Writes `value` with about three significant digits, and thousands apart.
pub fn number(value: f64) -> String {
    match value.abs() {
        size if !size.is_finite() => "-".to_string(),
        size if size >= 100.0 => thousands(value),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

fn thousands(value: f64) -> String {
    let digits = format!("{:.0}", value.abs());
    let mut text = String::from(if value < 0.0 { "-" } else { "" });
    for (position, digit) in digits.chars().enumerate() {
        if position > 0 && (digits.len() - position).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Writes how many times `ours` `value` is; a dash where either is unknown.
pub fn ratio(value: Option<f64>, ours: Option<f64>) -> String {
    match (value, ours) {
        (Some(value), Some(ours)) if ours > 0.0 => format!("{:.2}x", value / ours),
        _ => "-".to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut table = Table::new(&["who", "requests/s"]);
        table.row(vec!["ours".into(), number(123_456.7)]);
        table.row(vec!["a longer name".into(), number(9.876)]);
        assert_eq!(
            table.to_string(),
            "who            requests/s\nours              123,457\na longer name        9.88\n"
        );
    }

    #[test]
    fn a_ratio_to_nothing_is_a_dash() {
        assert_eq!(ratio(Some(3.0), Some(2.0)), "1.50x");
        assert_eq!(ratio(Some(3.0), None), "-");
        assert_eq!(ratio(Some(3.0), Some(0.0)), "-");
    }
}
