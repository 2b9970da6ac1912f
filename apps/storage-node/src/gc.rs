//! `gc`: deletes what no root of the drive needs from the nodes.
//!
//! It lists what the nodes hold of the drive, marks what the roots in use reach, and has the rest deleted by the owner's
//! word: the rest that is older than a grace, for what was put a moment ago may be named in a moment. It goes through the
//! addresses in slices, so that its memory has a bound (`marks`), and may be stopped at any time: each block that is
//! deleted by then was garbage, and the next run finds the others.
//!
//! Where anything is not known, nothing is deleted. Not here: what a root reaches (`filesystem::volume`), and what nodes do
//! by an owner's word (`dht`).

mod duration;
mod marks;

use std::rc::Rc;
use std::time::{Duration, UNIX_EPOCH};

use dht::Address;
use dht::block::deletion::{RETENTION_SECONDS_MAX, Speaker, Verdict};
use dht::collect::{Census, Found, Tally};
use filesystem::volume::{Roots, Volume};
use indicatif::ProgressBar;
use overlay::Node;

pub(crate) use duration::Span;
use marks::Marks;

use crate::cli::Gc;
use crate::client::{self, Client};
use crate::client_directory::ClientDirectory;
use crate::errors::Failure;
use crate::output::{self, say};
use crate::process;
use crate::progress::{self, human_bytes};
use crate::volume::{Keep, Opening};

/// How old a block must be that no root names. An upload is named within seconds of its end, or minutes if the nodes were
/// away; a day is for the machine that slept in between.
const GRACE: Duration = Duration::from_secs(24 * 3600);

/// For how long a deleted block's bytes stay: whoever is reading an older state of the drive gets to its end.
const RETENTION: Duration = Duration::from_secs(3600);

/// Blocks told to go at a time: some dozen KiB for each node.
const TOLD_AT_ONCE: usize = 256;

/// What was found, and what became of it.
#[derive(Debug, Default)]
struct Report {
    held: Sum,
    young: Sum,
    garbage: Sum,
    tally: Tally,
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

/// Runs `gc`.
///
/// # Errors
/// `Failure::Garbage` if it is not known what may be deleted, or not all of it was; or what keeps the volume from being
/// opened.
pub(crate) fn gc(options: &Gc) -> Result<(), Failure> {
    if !options.dry_run && !options.alone {
        return Err(unknown("whether another mount of the drive needs something older cannot be told"));
    }
    let retention = options.retention.map_or(RETENTION, |span| span.0);
    if retention > Duration::from_secs(RETENTION_SECONDS_MAX.into()) {
        return Err(unknown("nodes keep what is deleted for 90 days at most: give a shorter --retention"));
    }
    let settings = client::settings(&options.client)?;
    if let Some(clients) = &settings.clients
        && !ClientDirectory::left_behind(clients).is_empty()
    {
        return Err(unknown(
            "a mount that was killed has left changes in its journal: mount the drive once, to store them",
        ));
    }
    let directory = ClientDirectory::scratch()?;
    let seen_directory = settings.seen_directory();
    process::run(|| {
        let client = Client::connect(&settings)?;
        let (volume, seen) = client.open_volume(&Opening {
            directory: &directory,
            seen_directory: seen_directory.as_deref(),
            keep: Keep::Nothing,
            accept_rollback: false,
        })?;
        let bar = progress::spinner("looking for garbage");
        let report = collect(&client, &volume, options, retention, &bar);
        bar.finish_and_clear();
        let _ = volume.close();
        drop(seen);
        client.leave();
        tell(&report?, options, retention)
    })
}

fn collect(
    client: &Client,
    volume: &Rc<Volume>,
    options: &Gc,
    retention: Duration,
    bar: &ProgressBar,
) -> Result<Report, Failure> {
    let grace = options.grace.map_or(GRACE, |span| span.0);
    let now = reactor::wall_clock().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    // What is put from here on is not looked at.
    let put_before_seconds = now.saturating_sub(grace).as_secs();
    let retention_seconds = u32::try_from(retention.as_secs()).unwrap_or(RETENTION_SECONDS_MAX);
    let store = client.block_store();
    let sweep = Sweep {
        census: store.census().map_err(unknown)?,
        store,
        speaker: client.speaker(),
        verdict: Verdict::Delete { put_before_seconds, retention_seconds },
        is_dry: options.dry_run,
    };
    // Before anything is listed: what a later root names is either named by these too, or younger than the grace.
    let roots = volume.roots_in_use().map_err(unknown)?;
    let mut report = Report::default();
    let (mut first, mut count) = (0, 256);
    while first < 256 {
        let Some(marks) = mark(volume, &roots, first, count)? else {
            count /= 2;
            continue;
        };
        for prefix in first..first + count {
            bar.set_message(format!("looking for garbage: {}", report.garbage));
            sweep.sweep(prefix as u8, &marks, &mut report)?;
        }
        first += count;
    }
    Ok(report)
}

/// Marks what the roots reach of the addresses whose first byte is one of `count` from `first` on; `None` if that is too
/// much at once.
fn mark(volume: &Volume, roots: &Roots, first: usize, count: usize) -> Result<Option<Marks>, Failure> {
    let mut marks = Marks::new(first..first + count);
    volume.visit_reachable(roots, &mut |address| marks.add(address)).map_err(unknown)?;
    Ok((count == 1 || !marks.is_full()).then(|| marks.finish()))
}

struct Sweep<'a> {
    store: dht::Client<Rc<Node>>,
    census: Census,
    speaker: Speaker<'a>,
    verdict: Verdict,
    is_dry: bool,
}

impl Sweep<'_> {
    fn sweep(&self, first: u8, marks: &Marks, report: &mut Report) -> Result<(), Failure> {
        let mut garbage: Vec<(Address, Found)> = Vec::new();
        for (address, found) in self.store.list_held(&self.census, first).map_err(unknown)? {
            report.held.add(&found);
            if marks.contains(&address) {
                continue;
            }
            if self.verdict.covers(found.put_seconds) {
                report.garbage.add(&found);
                garbage.push((address, found));
            } else {
                report.young.add(&found);
            }
        }
        for some in garbage.chunks(TOLD_AT_ONCE).filter(|_| !self.is_dry) {
            let tally = self.store.tell(&self.census, some, &self.speaker, self.verdict);
            report.tally.deleted += tally.deleted;
            report.tally.deleted_bytes += tally.deleted_bytes;
            report.tally.young += tally.young;
            report.tally.unheard += tally.unheard;
        }
        Ok(())
    }
}

fn tell(report: &Report, options: &Gc, retention: Duration) -> Result<(), Failure> {
    say(format_args!("the nodes hold {} of this drive", report.held));
    if report.young.count > 0 {
        let grace = options.grace.unwrap_or(Span(GRACE));
        say(format_args!("no root names {}, put less than {grace} ago: they wait", report.young));
    }
    if options.dry_run {
        say(format_args!("{} are garbage; nothing was deleted", report.garbage));
        return Ok(());
    }
    let deleted = Sum { count: report.tally.deleted, bytes: report.tally.deleted_bytes };
    match retention.is_zero() {
        true => say(format_args!("deleted {deleted}")),
        false => {
            say(format_args!("deleted {deleted}; the nodes give the space back after {}", Span(retention)))
        }
    }
    if report.tally.young > 0 {
        output::warn(format_args!("{} blocks were put again meanwhile, and stay", report.tally.young));
    }
    match report.tally.unheard {
        0 => Ok(()),
        unheard => Err(Failure::Garbage {
            reason: format!("{unheard} blocks could not be deleted, for too few of their nodes answer"),
        }),
    }
}

fn unknown(reason: impl std::fmt::Display) -> Failure {
    Failure::Garbage { reason: format!("nothing was deleted: {reason}") }
}
