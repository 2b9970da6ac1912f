//! Draws [`Results`] as an SVG: a panel for each workload, in it a bar for each contender, with its figure beside it.
//!
//! A panel has a scale of its own, from zero: what is compared stands in one panel, and a bar's length is its value.
//! The background is drawn too, light or dark as the reader's system asks, so that the text can be read wherever the
//! picture is put. No library: it is rectangles and text.

use crate::results::{Bar, Panel, Results};
use crate::table::number;
use std::fmt::Write;

const WIDTH: f64 = 880.0;
const MARGIN: f64 = 24.0;
const COLUMNS: usize = 2;
const GUTTER: f64 = 32.0;
const PANEL_WIDTH: f64 = (WIDTH - 2.0 * MARGIN - GUTTER * (COLUMNS as f64 - 1.0)) / COLUMNS as f64;
/// Room for a contender's name, before its bar.
const NAME_WIDTH: f64 = 112.0;
/// Room for a figure, behind the longest bar.
const VALUE_WIDTH: f64 = 72.0;
const BAR_WIDTH: f64 = PANEL_WIDTH - NAME_WIDTH - VALUE_WIDTH;
const BAR_HEIGHT: f64 = 16.0;
const BAR_STEP: f64 = 22.0;
const PANEL_HEAD: f64 = 44.0;
const PANEL_GAP: f64 = 22.0;
const HEADER: f64 = 76.0;
const FOOTER: f64 = 34.0;

const STYLE: &str = "\
text{font-family:system-ui,-apple-system,'Segoe UI',Roboto,'DejaVu Sans',sans-serif;fill:#1f2328;font-size:12px}\
.page{fill:#ffffff;stroke:#d1d9e0}.title{font-size:18px;font-weight:600}.head{font-size:13px;font-weight:600}\
.dim{fill:#59636e;font-size:11px}.ours{fill:#c2410c}.peer{fill:#9aa7b5}.mine{font-weight:600}\
.goal{stroke:#1a7f37;stroke-width:1.5;stroke-dasharray:4 3}.goaltext{fill:#1a7f37;font-size:11px}\
@media (prefers-color-scheme:dark){text{fill:#e6edf3}.page{fill:#0d1117;stroke:#3d444d}.dim{fill:#9198a1}\
.ours{fill:#fb923c}.peer{fill:#656f7b}.goal{stroke:#3fb950}.goaltext{fill:#3fb950}}";

/// Returns the picture of `results`.
pub fn svg(results: &Results) -> String {
    let rows: Vec<&[Panel]> = results.panels.chunks(COLUMNS).collect();
    let body_height: f64 = rows.iter().map(|row| row_height(row) + PANEL_GAP).sum();
    let height = HEADER + body_height + FOOTER;
    let mut out = Svg(String::new());
    out.line(&format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" viewBox=\"0 0 {WIDTH} \
         {height}\" role=\"img\" aria-label=\"{}\">",
        escape(&results.title)
    ));
    out.line(&format!("<style>{STYLE}</style>"));
    out.line(&format!(
        "<rect class=\"page\" x=\"0.5\" y=\"0.5\" width=\"{}\" height=\"{}\" rx=\"6\"/>",
        WIDTH - 1.0,
        height - 1.0
    ));
    out.text(MARGIN, 34.0, "title", &results.title);
    out.text(MARGIN, 54.0, "dim", &results.workload);
    let mut top = HEADER;
    for row in rows {
        for (column, panel) in row.iter().enumerate() {
            let left = MARGIN + column as f64 * (PANEL_WIDTH + GUTTER);
            draw_panel(&mut out, panel, left, top);
        }
        top += row_height(row) + PANEL_GAP;
    }
    let rounds = match results.rounds {
        1 => "one round".to_string(),
        rounds => format!("medians of {rounds} interleaved rounds"),
    };
    let footer = format!("{}; {}; {rounds}. Again: {}", results.machine, results.date, results.command);
    out.text(MARGIN, height - 16.0, "dim", &footer);
    out.line("</svg>");
    out.0
}

fn row_height(row: &[Panel]) -> f64 {
    let bars = row.iter().map(|panel| panel.bars.len()).max().unwrap_or(0);
    PANEL_HEAD + bars as f64 * BAR_STEP
}

fn draw_panel(out: &mut Svg, panel: &Panel, left: f64, top: f64) {
    let direction = if panel.more_is_better { "more is better" } else { "less is better" };
    let longest = panel.bars.iter().map(|bar| bar.value).fold(0.0, f64::max);
    // A goal far beyond every bar would only flatten them.
    let goal = panel.goal.filter(|&goal| goal <= 2.0 * longest);
    let full = longest.max(goal.unwrap_or(0.0));
    let scale = if full > 0.0 { BAR_WIDTH / full } else { 0.0 };
    let bars = || {
        panel.bars.iter().enumerate().map(|(index, bar)| {
            let length = (bar.value * scale).max(1.0);
            (bar, top + PANEL_HEAD + index as f64 * BAR_STEP, length)
        })
    };
    out.text(left, top + 14.0, "head", &panel.title);
    out.text(left, top + 31.0, "dim", &format!("{}, {direction}", panel.unit));
    for (bar, y, length) in bars() {
        let fill = if is_ours(bar) { "ours" } else { "peer" };
        out.line(&format!(
            "<rect class=\"{fill}\" x=\"{:.1}\" y=\"{y:.1}\" width=\"{length:.1}\" height=\"{BAR_HEIGHT}\" rx=\"2\"/>",
            left + NAME_WIDTH
        ));
    }
    if let Some(goal) = goal {
        let x = left + NAME_WIDTH + goal * scale;
        let (from, to) = (top + PANEL_HEAD - 5.0, top + PANEL_HEAD + panel.bars.len() as f64 * BAR_STEP);
        out.line(&format!(
            "<line class=\"goal\" x1=\"{x:.1}\" y1=\"{from:.1}\" x2=\"{x:.1}\" y2=\"{to:.1}\"/>"
        ));
        let bound = if panel.more_is_better { "at least" } else { "at most" };
        out.line(&format!(
            "<text class=\"goaltext\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">goal: {bound} {}</text>",
            left + PANEL_WIDTH,
            // Beside the unit, which is short: titles are not.
            top + 31.0,
            number(goal)
        ));
    }
    // Last, so that no line crosses them out.
    for (bar, y, length) in bars() {
        let (weight, baseline) = (if is_ours(bar) { "mine" } else { "" }, y + BAR_HEIGHT - 4.0);
        out.text(left, baseline, weight, &bar.name);
        out.text(left + NAME_WIDTH + length + 6.0, baseline, weight, &number(bar.value));
    }
}

fn is_ours(bar: &Bar) -> bool {
    bar.name.starts_with("ours")
}

struct Svg(String);

impl Svg {
    fn line(&mut self, text: &str) {
        self.0.push_str(text);
        self.0.push('\n');
    }

    fn text(&mut self, x: f64, y: f64, class: &str, text: &str) {
        let class = if class.is_empty() { String::new() } else { format!(" class=\"{class}\"") };
        let text = escape(text);
        // Writing to a string cannot fail.
        let _ = writeln!(self.0, "<text{class} x=\"{x:.1}\" y=\"{y:.1}\">{text}</text>");
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn results(goal: Option<f64>) -> Results {
        let mut results = Results::new("a < b & \"c\"", "work".into(), "cargo run", 3);
        results.panel("first".into(), "ns", false, goal, [("ours", Some(50.0)), ("theirs", Some(100.0))]);
        results.panel("second".into(), "1/s", true, None, [("ours", Some(0.0))]);
        results
    }

    #[test]
    fn a_bar_is_as_long_as_its_value_and_the_longest_fills_its_room() {
        let picture = svg(&results(None));
        let width = |value: f64| format!("width=\"{:.1}\"", BAR_WIDTH * value / 100.0);
        assert!(picture.contains(&width(50.0)) && picture.contains(&width(100.0)));
    }

    #[test]
    fn what_xml_would_take_for_markup_is_escaped() {
        let picture = svg(&results(None));
        assert!(picture.contains("a &lt; b &amp; &quot;c&quot;") && !picture.contains("a < b"));
    }

    #[test]
    fn a_goal_is_drawn_unless_it_would_flatten_the_bars() {
        assert!(svg(&results(Some(120.0))).contains("goal: at most 120"));
        assert!(!svg(&results(Some(1_000.0))).contains("goal:"));
    }
}
