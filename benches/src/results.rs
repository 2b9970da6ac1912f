//! What the programs record of their medians, for the plots and for whoever wants to compare later.
//!
//! One file a program, `benches/results/NAME.json`: where, when and how it was measured, and a panel for each
//! workload. `src/bin/plot.rs` draws each file as one picture.

use serde::{Deserialize, Serialize};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

/// The medians of one program.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Results {
    /// What stands above the plot.
    pub title: String,
    /// What was done, in a sentence.
    pub workload: String,
    /// The command that does it again.
    pub command: String,
    /// Processors and kernel.
    pub machine: String,
    /// The day, in UTC.
    pub date: String,
    /// What was measured: a commit, with a `+` where files had been changed since.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub commit: Option<String>,
    /// Interleaved rounds, whose medians these are.
    pub rounds: usize,
    /// One for each workload or quantity.
    pub panels: Vec<Panel>,
}

/// One quantity of several contenders, ours first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Panel {
    /// What was asked of them.
    pub title: String,
    /// Of every figure.
    pub unit: String,
    /// Whether a longer bar is a better one.
    pub more_is_better: bool,
    /// What we set ourselves to reach.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub goal: Option<f64>,
    /// The contenders.
    pub bars: Vec<Bar>,
}

/// One contender's median.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Bar {
    /// The contender.
    pub name: String,
    /// Its figure.
    pub value: f64,
}

impl Results {
    /// Returns results of this machine and day, without panels.
    pub fn new(title: &str, workload: String, command: &str, rounds: usize) -> Self {
        Self {
            title: title.to_string(),
            workload,
            command: command.to_string(),
            machine: machine(),
            date: date_of(SystemTime::now()),
            commit: commit(),
            rounds,
            panels: Vec::new(),
        }
    }

    /// Adds a panel; contenders without a figure are left out, and a panel without any too.
    pub fn panel<'a>(
        &mut self,
        title: String,
        unit: &str,
        more_is_better: bool,
        goal: Option<f64>,
        bars: impl IntoIterator<Item = (&'a str, Option<f64>)>,
    ) {
        let bars: Vec<Bar> = bars
            .into_iter()
            .filter_map(|(name, value)| Some(Bar { name: name.to_string(), value: value? }))
            .collect();
        if !bars.is_empty() {
            self.panels.push(Panel { title, unit: unit.to_string(), more_is_better, goal, bars });
        }
    }

    /// Writes these as `NAME.json` among the results, and says so.
    ///
    /// # Errors
    /// Fails when the file cannot be written.
    pub fn record(&self, name: &str) -> io::Result<()> {
        let path = directory("results").join(name).with_extension("json");
        fs::create_dir_all(directory("results"))?;
        let mut text = serde_json::to_string_pretty(self)?;
        text.push('\n');
        fs::write(&path, text)?;
        println!("recorded in {}", path.display());
        Ok(())
    }

    /// Reads one file.
    ///
    /// # Errors
    /// Fails when it cannot be read, or is no results.
    pub fn read(path: &Path) -> io::Result<Self> {
        Ok(serde_json::from_slice(&fs::read(path)?)?)
    }
}

/// Returns a directory of this crate's.
pub fn directory(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// The files of results, by name.
///
/// # Errors
/// When their directory cannot be read; if there is none, there are no results.
pub fn recorded() -> io::Result<Vec<PathBuf>> {
    let directory = directory("results");
    if !directory.is_dir() {
        return Ok(Vec::new());
    }
    let entries = fs::read_dir(directory)?.collect::<Result<Vec<_>, _>>()?;
    let mut paths: Vec<PathBuf> = entries.into_iter().map(|entry| entry.path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "json"));
    paths.sort();
    Ok(paths)
}

/// The commit that lies here; `None` outside a repository.
fn commit() -> Option<String> {
    let git = |arguments: &[&str]| {
        let output =
            Command::new("git").arg("-C").arg(env!("CARGO_MANIFEST_DIR")).args(arguments).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_string())
    };
    let commit = git(&["rev-parse", "--short", "HEAD"])?;
    // The results themselves do not count: one program after the other records its own.
    let changed =
        git(&["status", "--porcelain", "--untracked-files=no", "--", "..", ":!results", ":!plots"])?;
    Some(if changed.is_empty() { commit } else { format!("{commit}+") })
}

fn machine() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    // Not the parallelism that is available: the programs pin themselves.
    let processors = text.lines().filter(|line| line.starts_with("processor")).count().max(1);
    let model = text.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    let model = model.map_or("a processor", |(_, name)| name.trim());
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let release: Vec<&str> = release.trim().split('.').take(2).collect();
    format!("{processors} cores of {model}, Linux {}", release.join("."))
}

/// Returns the day of `time` as YYYY-MM-DD.
fn date_of(time: SystemTime) -> String {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
    // The algorithm of Howard Hinnant, "chrono-compatible low-level date algorithms": years begin in March, so
    // that the leap day is a year's last.
    let days = since.as_secs() / 86_400 + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_have_their_dates() {
        let day = |seconds| date_of(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
        assert_eq!(day(0), "1970-01-01");
        assert_eq!(day(951_782_400), "2000-02-29");
        assert_eq!(day(951_868_800), "2000-03-01");
        assert_eq!(day(1_795_305_600), "2026-11-22");
    }

    #[test]
    fn what_is_recorded_can_be_read() {
        let mut results = Results::new("a title", "some work".into(), "a command", 3);
        results.panel("a panel".into(), "ns", false, Some(100.0), [("ours", Some(19.0)), ("theirs", None)]);
        results.panel("nobody".into(), "ns", false, None, [("ours", None)]);
        assert_eq!(results.panels.len(), 1);
        let text = serde_json::to_string(&results).unwrap();
        assert_eq!(serde_json::from_str::<Results>(&text).unwrap(), results);
    }
}
