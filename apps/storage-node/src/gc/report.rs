//! What a run of `gc` found, and what came of it, in words.

use std::fmt;
use std::time::{Duration, UNIX_EPOCH};

use dht::collect::{Found, Tally};
use filesystem::calendar::Civil;
use filesystem::format::Shown;

use super::needed::Missing;
use super::{Span, needed};
use crate::errors::Failure;
use crate::output::say;
use crate::progress::human_bytes;
use crate::retention::Kept;

/// What was found, and what came of it.
#[derive(Debug, Default)]
pub(super) struct Report {
    pub(super) held: Sum,
    pub(super) young: Sum,
    pub(super) garbage: Sum,
    pub(super) tally: Tally,
    /// Of what the nodes hold and nobody needs, what was too much for one run to look at.
    pub(super) unlooked: u64,
    /// Of the garbage, what was too much to be deleted in one run.
    pub(super) left: u64,
    /// The drive needs these, and no node lists them.
    pub(super) missing: Missing,
    /// Mounts that were forgotten.
    pub(super) forgotten: usize,
    /// What is said of those among them whose users may not write any more.
    pub(super) gone: Vec<String>,
}

/// Blocks and their bytes, one copy counted.
#[derive(Debug, Default)]
pub(super) struct Sum {
    count: u64,
    bytes: u64,
}

impl Sum {
    pub(super) fn is_nothing(&self) -> bool {
        self.count == 0
    }

    pub(super) fn add(&mut self, found: &Found) {
        self.count += 1;
        self.bytes += u64::from(found.length);
    }
}

impl fmt::Display for Sum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let blocks = if self.count == 1 { "block" } else { "blocks" };
        write!(f, "{} {blocks} ({})", self.count, human_bytes(self.bytes))
    }
}

/// Why it ended before its end, and what was done by then.
pub(super) fn stopped(report: &Report, error: &dyn fmt::Display) -> Failure {
    let Tally { deleted: count, unheard, .. } = report.tally;
    let done = match (count, unheard) {
        (0, 0) => "nothing was deleted".to_owned(),
        (0, _) => {
            format!("nothing is deleted for certain, though some nodes took the word for {unheard} blocks")
        }
        _ => format!("stopped after deleting {}", deleted(report)),
    };
    let forgotten = match report.forgotten {
        0 => String::new(),
        count => format!(", {count} mounts were forgotten"),
    };
    Failure::Garbage { reason: format!("{done}{forgotten}: {error}") }
}

/// What the nodes have deleted.
pub(super) fn deleted(report: &Report) -> Sum {
    Sum { count: report.tally.deleted, bytes: report.tally.deleted_bytes }
}

/// Says what a run came to, in the drive or in a space.
///
/// # Errors
/// `Failure::Garbage` if not all was done, or blocks are missing.
pub(super) fn tell(
    report: &Report,
    space: Option<&str>,
    is_dry: bool,
    grace: Span,
    kept: &Kept,
) -> Result<(), Failure> {
    let (what, of) = match space {
        None => ("this drive".to_owned(), String::new()),
        Some(path) => {
            let path = Shown::of(path);
            (format!("the space {path}"), format!("of the space {path}: "))
        }
    };
    say(format_args!("the nodes hold {} of {what}", report.held));
    if space.is_none() {
        // Of the drive and its spaces together.
        kept.tell();
    }
    // Whatever they are asked for.
    let grace = Span(grace.0.max(kept.retention()));
    let young = report.young.count + report.tally.young;
    if young > 0 {
        say(format_args!(
            "{of}no root reaches {young} more, stored while this ran or a moment before: the next run looks at them"
        ));
    }
    if report.unlooked > 0 {
        say(format_args!(
            "{of}no root reaches {} more, which this run did not look at, for the nodes hold more than it can remember: the next run begins \
             elsewhere",
            report.unlooked
        ));
    }
    if report.left > 0 {
        say(format_args!(
            "{of}{} more blocks are garbage, and too many for one run: the next one goes on",
            report.left
        ));
    }
    if is_dry {
        say(format_args!("{of}no root reaches {}: garbage; nothing was deleted", report.garbage));
        return needed::tell(&report.missing, "`gc` takes back those that were deleted");
    }
    match grace.0.is_zero() {
        _ if report.tally.deleted == 0 && report.tally.unheard == 0 => {
            say(format_args!("{of}nothing of it is garbage: nothing was deleted"));
        }
        true => say(format_args!("{of}deleted {}: the nodes give the space back", deleted(report))),
        false => {
            let now = reactor::wall_clock().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
            let until = Civil::of(i64::try_from((now + grace.0).as_secs()).unwrap_or(i64::MAX));
            say(format_args!(
                "{of}deleted {}: the nodes keep it for {grace} yet, and give the space back from {until} (UTC) on",
                deleted(report)
            ));
        }
    }
    match report.tally.unheard {
        0 => needed::tell(&report.missing, "`status` shows which nodes answer"),
        unheard => Err(Failure::Garbage {
            reason: format!(
                "{unheard} more blocks are garbage and not deleted, for too few of their nodes took the word"
            ),
        }),
    }
}
