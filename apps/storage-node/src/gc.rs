//! `gc`: deletes what the drive does not need any more from the nodes.
//!
//! In this order, on which everything hangs (the proof is in `docs/collection.md`):
//!
//! 1. look whether the nodes hold all that the drive needs, and take back what was deleted of it (`needed`);
//! 2. list what they hold of it;
//! 3. put a mark into the root, and wait until every mount that the drive knows of has cleared the way (`mounts`);
//! 4. mark what is in use, and have the nodes delete what was listed *before* the mark and is not in use.
//!
//! What is deleted the nodes keep for a time of grace all the same: for mounts that only read, and for those that nobody waited
//! for, which store anew what they point to. It goes through the addresses in slices, so that its marks have a bound (`marks`).
//! What is killed in the middle has deleted only what nobody needs; the next run begins anew. The drive is opened for reading:
//! so the collector is no session itself.

mod duration;
mod marks;
mod mounts;
mod needed;

use std::collections::BTreeSet;
use std::time::{Duration, UNIX_EPOCH};

use dht::block::deletion::{RETENTION_SECONDS_MAX, Speaker, Verdict};
use dht::collect::{Census, CensusError, Found, Tally};
use dht::{Address, Client as Store};
use filesystem::calendar::Civil;
use filesystem::volume::{CollectError, Roots, Volume};
use indicatif::ProgressBar;
use overlay::Node;
use std::rc::Rc;

pub(crate) use duration::Span;
use marks::Marks;
use mounts::{Mounts, Needed};

use crate::cache::{Plan, Usual};
use crate::cli::Gc;
use crate::client::{self, Client};
use crate::client_directory::ClientDirectory;
use crate::errors::Failure;
use crate::output::say;
use crate::process;
use crate::progress::{self, human_bytes};
use crate::retention::Kept;
use crate::volume::{Keep, Opening};

/// For how long the nodes keep what is deleted: longer than most machines are away.
const GRACE: Duration = Duration::from_secs(30 * 24 * 3600);

/// By how much clocks may be apart. Nothing that is needed hangs on them: nodes whose clocks are further ahead refuse what is
/// said now.
const CLOCK_DIFFERENCE_MAX: Duration = Duration::from_secs(300);

/// Blocks that the nodes are told of together.
const TOLD_AT_ONCE: usize = 4096;

/// What was found, and what came of it.
#[derive(Debug, Default)]
struct Report {
    held: Sum,
    young: Sum,
    garbage: Sum,
    tally: Tally,
    /// The drive needs these, and no node lists them.
    missing: BTreeSet<Address>,
    /// Mounts that were forgotten.
    forgotten: usize,
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

/// Why it is not known what may be deleted, or not any more.
#[derive(Debug, thiserror::Error)]
enum Unknown {
    #[error(transparent)]
    Unread(#[from] CollectError),
    #[error(transparent)]
    Unlisted(#[from] CensusError),
    #[error(transparent)]
    Needed(#[from] Needed),
    #[error(
        "{0} blocks that the drive needs were listed by no node, and are now that they were taken back: they had been deleted, or \
         were on their way from one node to another. Run it again, which deletes the rest; if it says this twice, please report it"
    )]
    WasDeleted(usize),
}

/// Runs `gc`.
///
/// # Errors
/// `Failure::Garbage` if it is not known what may be deleted, or not all of it was; or what keeps the volume from being
/// opened.
pub(crate) fn gc(options: &Gc) -> Result<(), Failure> {
    let grace = options.grace.unwrap_or(Span(GRACE));
    let retention_seconds = u32::try_from(grace.0.as_secs()).unwrap_or(u32::MAX);
    if retention_seconds > RETENTION_SECONDS_MAX {
        return Err(failed("nodes keep what is deleted for 90 days at most: give a shorter --grace"));
    }
    let settings = client::settings(&options.client)?;
    let Some(seen_directory) = settings.seen_directory() else {
        // Without that, what two nodes tell that were put back from a backup passes for the newest root.
        return Err(failed("what was seen of the drive's root is remembered in a home: give --home"));
    };
    let directory = ClientDirectory::scratch()?;
    // As for every command: what it has seen, a mount must not be older than, and those keep the root in their cache.
    let base = settings.clients.as_deref();
    let plan = base.map(|base| Plan::make(base, None, None, Usual::AsBefore)).transpose()?;
    process::run(|| {
        let user = settings.user()?;
        let cache = plan.as_ref().and_then(|plan| plan.open(&user));
        let client = Client::connect(&settings)?;
        let (volume, seen) = client.open_volume(&Opening {
            directory: &directory,
            seen_directory: Some(&seen_directory),
            keep: Keep::Unchanged,
            accept_rollback: false,
            is_removed: false,
            cache: cache.as_deref(),
        })?;
        let bar = progress::spinner("looking for garbage");
        let mut report = Report::default();
        let outcome = client.speaker().and_then(|speaker| {
            let of_run = || {
                let sweep = Sweep::new(&client, &volume, speaker, retention_seconds, &bar)?;
                if options.dry_run { sweep.survey(&mut report) } else { sweep.collect(options, &mut report) }
            };
            let outcome: Result<(), Unknown> = of_run();
            outcome.map_err(|error| stopped(&report, &error))
        });
        bar.finish_and_clear();
        let kept = Kept::of(&client.block_store());
        // Nothing of it was changed.
        let _ = volume.close();
        cache.iter().for_each(|cache| cache.close());
        drop(seen);
        client.leave();
        outcome?;
        tell(&report, options.dry_run, grace, &kept)
    })
}

fn failed(reason: &str) -> Failure {
    Failure::Garbage { reason: format!("nothing was deleted: {reason}") }
}

fn stopped(report: &Report, error: &Unknown) -> Failure {
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

fn deleted(report: &Report) -> Sum {
    Sum { count: report.tally.deleted, bytes: report.tally.deleted_bytes }
}

fn tell(report: &Report, is_dry: bool, grace: Span, kept: &Kept) -> Result<(), Failure> {
    say(format_args!("the nodes hold {} of this drive", report.held));
    kept.tell();
    // Whatever they are asked for.
    let grace = Span(grace.0.max(kept.retention()));
    let young = report.young.count + report.tally.young;
    if young > 0 {
        say(format_args!(
            "no root reaches {young} more, stored while this ran or a moment before: the next run looks at them"
        ));
    }
    if is_dry {
        say(format_args!("no root reaches {}: garbage; nothing was deleted", report.garbage));
        return needed::tell(&report.missing, "`gc` takes back those that were deleted");
    }
    match grace.0.is_zero() {
        true => say(format_args!("deleted {}: the nodes give the space back", deleted(report))),
        false => {
            let now = reactor::wall_clock().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
            let until = Civil::of(i64::try_from((now + grace.0).as_secs()).unwrap_or(i64::MAX));
            say(format_args!(
                "deleted {}: the nodes keep it for {grace} yet, and give the space back from {until} (UTC) on",
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

/// Takes back what was deleted of what `roots` reach, as long as a node has it. Returns what no node has that answers.
///
/// # Errors
/// `Failure::Garbage` if that can't be told.
///
/// # Suspends
/// While the nodes are asked, and the trees are walked.
pub(crate) fn take_back(
    client: &Client,
    volume: &Volume,
    roots: &Roots,
    bar: &ProgressBar,
) -> Result<BTreeSet<Address>, Failure> {
    let take_back = |speaker| -> Result<BTreeSet<Address>, Unknown> {
        let sweep = Sweep::new(client, volume, speaker, 0, bar)?;
        let mut before = usize::MAX;
        loop {
            let missing = sweep.look_for_needed(roots)?.1;
            // Those that are left were asked for already.
            if missing.is_empty() || missing.len() >= before {
                return Ok(missing);
            }
            before = missing.len();
            bar.set_message(format!("taking back {before} blocks"));
            sweep.store.take_back(&sweep.census, &missing, &sweep.speaker)?;
        }
    };
    take_back(client.speaker()?).map_err(|error| Failure::Garbage { reason: error.to_string() })
}

/// One run.
struct Sweep<'a> {
    client: &'a Client,
    store: Store<Rc<Node>>,
    volume: &'a Volume,
    speaker: Speaker<'a>,
    census: Census,
    verdict: Verdict,
    bar: &'a ProgressBar,
}

impl<'a> Sweep<'a> {
    fn new(
        client: &'a Client,
        volume: &'a Volume,
        speaker: Speaker<'a>,
        retention_seconds: u32,
        bar: &'a ProgressBar,
    ) -> Result<Sweep<'a>, Unknown> {
        let store = client.block_store();
        let census = store.census(CLOCK_DIFFERENCE_MAX)?;
        let now = reactor::wall_clock().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        let verdict = Verdict::Delete { put_before_seconds: now.as_secs(), retention_seconds };
        Ok(Sweep { client, store, volume, speaker, census, verdict, bar })
    }

    /// Counts what the newest root does not reach.
    fn survey(&self, report: &mut Report) -> Result<(), Unknown> {
        let roots = self.volume.roots_in_use()?;
        report.missing = self.look_for_needed(&roots)?.1;
        self.each_slice(&roots, |first, marks| self.look_at(first, marks, &roots, None, report).map(drop))
    }

    /// Deletes what nobody needs.
    fn collect(&self, options: &Gc, report: &mut Report) -> Result<(), Unknown> {
        // All that this root reaches was put before anything is listed.
        let (listed, missing) = self.look_for_needed(&self.volume.roots_in_use()?)?;
        if !missing.is_empty() {
            let back = self.store.take_back(&self.census, &missing, &self.speaker)?;
            report.missing = missing.difference(&back).copied().collect();
            if !back.is_empty() {
                return Err(Unknown::WasDeleted(back.len()));
            }
        }
        let listed = match listed {
            Some(listed) => listed,
            // Too much for one set: what does not fit it stays.
            None => {
                let mut listed = Marks::new(0..256);
                for first in 0..=u8::MAX {
                    self.store.list_held(&self.census, first)?.keys().for_each(|address| listed.add(address));
                }
                listed.finish()
            }
        };
        let fence = self.volume.begin_collection()?;
        let mounts = Mounts::new(self.client, self.volume, options, self.bar);
        let cleared = mounts.wait_for_all(&fence);
        report.forgotten = mounts.forgotten();
        let roots = match cleared {
            Ok(roots) => roots,
            Err(error) => {
                if let Err(error) = self.volume.end_collection(&fence) {
                    tracing::warn!(
                        "the mark of this collection stays in the drive's root until the next one: {error}"
                    );
                }
                return Err(error);
            }
        };
        self.each_slice(&roots, |first, marks| {
            let garbage = self.look_at(first, marks, &roots, Some(&listed), report)?;
            for some in garbage.chunks(TOLD_AT_ONCE) {
                let tally = self.store.tell(&self.census, some, &self.speaker, self.verdict);
                report.tally.deleted += tally.deleted;
                report.tally.deleted_bytes += tally.deleted_bytes;
                report.tally.young += tally.young;
                report.tally.unheard += tally.unheard;
            }
            self.bar.set_message(format!("deleting garbage: {}", deleted(report)));
            Ok(())
        })
    }

    /// Marks what is in use, and has `work` look at each range of addresses that is marked.
    fn each_slice(
        &self,
        roots: &Roots,
        mut work: impl FnMut(u8, &Marks) -> Result<(), Unknown>,
    ) -> Result<(), Unknown> {
        let (mut first, mut count) = (0, 256);
        while first < 256 {
            let mut marks = Marks::new(first..first + count);
            self.volume.visit_reachable(roots, &mut |address| marks.add(address))?;
            if count > 1 && marks.is_full() {
                count /= 2;
                continue;
            }
            let marks = marks.finish();
            (first..first + count).try_for_each(|first| work(first as u8, &marks))?;
            first += count;
        }
        Ok(())
    }

    /// Counts what the nodes hold of one range, and returns what of it is garbage; with `listed`, of what was listed then.
    fn look_at(
        &self,
        first: u8,
        marks: &Marks,
        roots: &Roots,
        listed: Option<&Marks>,
        report: &mut Report,
    ) -> Result<Vec<(Address, Found)>, Unknown> {
        let mut garbage = Vec::new();
        for (address, found) in self.store.list_held(&self.census, first)? {
            report.held.add(&found);
            if marks.contains(&address) || roots.keep(&address) {
                continue;
            }
            let was_listed = listed.is_none_or(|listed| listed.contains(&address));
            if was_listed && self.verdict.covers(found.put_seconds) {
                report.garbage.add(&found);
                garbage.push((address, found));
            } else {
                report.young.add(&found);
            }
        }
        Ok(garbage)
    }
}

/// A mount, by the number that `gc` tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Session(u64);

impl std::fmt::Display for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl std::str::FromStr for Session {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Session, Self::Err> {
        let number = (text.len() == 16).then(|| u64::from_str_radix(text, 16).ok()).flatten();
        number.map(Session).ok_or("say it as `gc` tells it: 16 hexadecimal digits")
    }
}
