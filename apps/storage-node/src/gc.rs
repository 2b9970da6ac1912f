//! `gc`: what the nodes hold that no root of the drive needs.
//!
//! It lists what the nodes hold of the drive, marks what the root reaches, and counts the rest that is older than a grace,
//! for what was put a moment ago may be named in a moment. It goes through the addresses in slices, so that its marks
//! have a bound (`marks`).
//!
//! It only counts. A mount that is asleep, or whose last commit has yet to get through, may need what no root reaches any
//! more, and nothing tells which mounts there are: until the volume does, deleting would be a guess. The nodes' part is
//! there (`dht::collect`).

mod duration;
mod marks;

use std::time::{Duration, UNIX_EPOCH};

use dht::block::deletion::Verdict;
use dht::collect::{Census, CensusError, Found};
use filesystem::volume::{CollectError, Roots, Volume};
use indicatif::ProgressBar;
use overlay::Node;
use std::rc::Rc;

pub(crate) use duration::Span;
use marks::Marks;

use crate::cli::Gc;
use crate::errand;
use crate::errors::Failure;
use crate::output::say;
use crate::progress::{self, human_bytes};

/// How old a block must be that no root names. An upload is named within seconds of its end, or minutes if the nodes were
/// away; a day is for the machine that slept in between.
const GRACE: Duration = Duration::from_secs(24 * 3600);

/// By how much clocks may be apart, with the usual grace; with a short one, by half of that.
const CLOCK_DIFFERENCE_MAX: Duration = Duration::from_secs(300);

/// What was found.
#[derive(Debug, Default)]
struct Report {
    held: Sum,
    young: Sum,
    garbage: Sum,
}

/// Blocks and their bytes, one copy counted.
#[derive(Debug, Default)]
struct Sum {
    count: u64,
    bytes: u64,
}

impl Sum {
    fn add(&mut self, found: &Found) {
        self.count += 1;
        self.bytes += u64::from(found.length);
    }
}

impl std::fmt::Display for Sum {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let blocks = if self.count == 1 { "block" } else { "blocks" };
        write!(f, "{} {blocks} ({})", self.count, human_bytes(self.bytes))
    }
}

/// Why it is not known what is garbage.
#[derive(Debug, thiserror::Error)]
enum Unknown {
    #[error(transparent)]
    Unread(#[from] CollectError),
    #[error(transparent)]
    Unlisted(#[from] CensusError),
}

/// Runs `gc`.
///
/// # Errors
/// `Failure::Garbage` without `--dry-run`, or if it is not known what is garbage; or what keeps the volume from being
/// opened.
pub(crate) fn gc(options: &Gc) -> Result<(), Failure> {
    if !options.dry_run {
        let reason =
            "nothing was deleted: which mounts may still need what the drive has removed cannot be told yet";
        return Err(Failure::Garbage { reason: reason.into() });
    }
    let grace = options.grace.unwrap_or(Span(GRACE));
    let report = errand::with_volume(&options.client, |client, volume| {
        let bar = progress::spinner("looking for garbage");
        let report = survey(&client.block_store(), volume, grace.0, &bar);
        bar.finish_and_clear();
        report.map_err(|unknown| Failure::Garbage { reason: unknown.to_string() })
    })?;
    say(format_args!("the nodes hold {} of this drive", report.held));
    say(format_args!("no root reaches {}, put less than {grace} ago", report.young));
    say(format_args!("no root reaches {}, older than that: garbage", report.garbage));
    Ok(())
}

fn survey(
    store: &dht::Client<Rc<Node>>,
    volume: &Volume,
    grace: Duration,
    bar: &ProgressBar,
) -> Result<Report, Unknown> {
    let now = reactor::wall_clock().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let put_before_seconds = now.saturating_sub(grace).as_secs();
    let survey = Survey {
        census: store.census(CLOCK_DIFFERENCE_MAX.min(grace / 2))?,
        store,
        verdict: Verdict::Delete { put_before_seconds, retention_seconds: 0 },
    };
    let roots = volume.roots_in_use()?;
    let mut report = Report::default();
    let (mut first, mut count) = (0, 256);
    while first < 256 {
        let Some(marks) = mark(volume, &roots, first, count)? else {
            count /= 2;
            continue;
        };
        for prefix in first..first + count {
            bar.set_message(format!("looking for garbage: {}", report.garbage));
            survey.count(prefix as u8, &marks, &mut report)?;
        }
        first += count;
    }
    Ok(report)
}

/// Marks what the roots reach of the addresses whose first byte is one of `count` from `first` on; `None` if that is too
/// much at once.
fn mark(volume: &Volume, roots: &Roots, first: usize, count: usize) -> Result<Option<Marks>, CollectError> {
    let mut marks = Marks::new(first..first + count);
    volume.visit_reachable(roots, &mut |address| marks.add(address))?;
    Ok((count == 1 || !marks.is_full()).then(|| marks.finish()))
}

struct Survey<'a> {
    store: &'a dht::Client<Rc<Node>>,
    census: Census,
    /// What would be said of garbage.
    verdict: Verdict,
}

impl Survey<'_> {
    fn count(&self, first: u8, marks: &Marks, report: &mut Report) -> Result<(), CensusError> {
        for (address, found) in self.store.list_held(&self.census, first)? {
            report.held.add(&found);
            if marks.contains(&address) {
                continue;
            }
            match self.verdict.covers(found.put_seconds) {
                true => report.garbage.add(&found),
                false => report.young.add(&found),
            }
        }
        Ok(())
    }
}
