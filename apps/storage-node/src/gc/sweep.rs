//! One run of `gc` in one volume, in the order of `docs/collection.md`.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::{Duration, UNIX_EPOCH};

use dht::block::deletion::{Speaker, Verdict};
use dht::collect::{Census, CensusError, Found};
use dht::{Address, Client as Store};
use filesystem::volume::{CollectError, Roots, Volume, Waiting};
use indicatif::ProgressBar;
use overlay::Node;

use super::Place;
use super::marks::{Listed, Marks};
use super::mounts::{Mounts, Needed, lines};
use super::needed::{Looked, Missing};
use super::report::{Report, deleted};
use super::targets::Target;
use crate::cli::Gc;
use crate::clocks;
use crate::errors::Failure;

/// Blocks that the nodes are told of together.
pub(super) const TOLD_AT_ONCE: usize = 4096;

/// Why it is not known what may be deleted, or not any more.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unknown {
    #[error(transparent)]
    Unread(#[from] CollectError),
    #[error(transparent)]
    Unlisted(#[from] CensusError),
    #[error(transparent)]
    Needed(#[from] Needed),
    #[error(
        "they might not write any more, and were let in again meanwhile: run this once these mounts are there again:{}",
        lines(.0)
    )]
    LetInAgain(Vec<Waiting>),
    #[error("another copy of this home has brought it back: run this again")]
    BroughtBack,
    #[error("whether it is removed still is not known: {0}")]
    Unseen(Failure),
    #[error("whether those who were taken out may still not write is not known: {0}")]
    Unasked(Failure),
    #[error(
        "{0} blocks that the drive needs were listed by no node, and are now that they were taken back: they had been deleted, or \
         were on their way from one node to another. Run it again, which deletes the rest; if it says this twice, please report it"
    )]
    WasDeleted(usize),
}

/// Takes back what was deleted of what `roots` reach, as long as a node has it. Returns what no node has that answers.
///
/// # Errors
/// `Failure::Garbage` if that can't be told.
///
/// # Suspends
/// While the nodes are asked, and the trees are walked.
pub(crate) fn take_back(
    store: &Store<Rc<Node>>,
    speaker: Speaker<'_>,
    volume: &Volume,
    roots: &Roots,
    bar: &ProgressBar,
) -> Result<Missing, Failure> {
    let take_back = || Sweep::new(store, volume, speaker, 0, bar)?.take_all_back(roots);
    take_back().map_err(|error: Unknown| Failure::Garbage { reason: error.to_string() })
}

/// Finds out which nodes there are, and what is said to them from now on of what is garbage.
pub(super) fn begin(store: &Store<Rc<Node>>, retention_seconds: u32) -> Result<(Census, Verdict), Unknown> {
    let census = store.census(clocks::DIFFERENCE_MAX)?;
    let now = reactor::wall_clock().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    Ok((census, Verdict::Delete { put_before_seconds: now.as_secs(), retention_seconds }))
}

/// Tells the nodes, and what came of it the report.
pub(super) fn have_deleted(
    store: &Store<Rc<Node>>,
    census: &Census,
    garbage: &[(Address, Found)],
    speaker: &Speaker<'_>,
    verdict: Verdict,
    report: &mut Report,
) {
    for some in garbage.chunks(TOLD_AT_ONCE) {
        let tally = store.tell(census, some, speaker, verdict);
        report.tally.deleted += tally.deleted;
        report.tally.deleted_bytes += tally.deleted_bytes;
        report.tally.young += tally.young;
        report.tally.unheard += tally.unheard;
    }
}

/// One run.
pub(super) struct Sweep<'a> {
    pub(super) store: &'a Store<Rc<Node>>,
    pub(super) volume: &'a Volume,
    pub(super) speaker: Speaker<'a>,
    pub(super) census: Census,
    verdict: Verdict,
    pub(super) bar: &'a ProgressBar,
}

impl<'a> Sweep<'a> {
    pub(super) fn new(
        store: &'a Store<Rc<Node>>,
        volume: &'a Volume,
        speaker: Speaker<'a>,
        retention_seconds: u32,
        bar: &'a ProgressBar,
    ) -> Result<Sweep<'a>, Unknown> {
        let (census, verdict) = begin(store, retention_seconds)?;
        Ok(Sweep { store, volume, speaker, census, verdict, bar })
    }

    /// Counts what the newest root does not reach.
    pub(super) fn survey(&self, report: &mut Report) -> Result<(), Unknown> {
        let roots = self.volume.roots_in_use()?;
        report.missing = self.look_for_needed(&roots, &BTreeSet::new())?.missing;
        self.each_slice(&roots, |first, marks| self.look_at(first, marks, &roots, None, report).map(drop))
    }

    /// Deletes what nobody needs.
    pub(super) fn collect(
        &self,
        target: &Target<'_>,
        place: &Place<'_>,
        options: &Gc,
        report: &mut Report,
    ) -> Result<(), Unknown> {
        // All that this root reaches was put before anything is listed.
        let Looked { listed, missing, .. } =
            self.look_for_needed(&self.volume.roots_in_use()?, &BTreeSet::new())?;
        if !missing.is_empty() {
            let back = self.store.take_back(&self.census, &missing.blocks, &self.speaker)?;
            let blocks = missing.blocks.difference(&back).copied().collect();
            report.missing = Missing { blocks, ..missing };
            if !back.is_empty() {
                return Err(Unknown::WasDeleted(back.len()));
            }
        }
        let listed = match listed {
            Some(listed) => Listed::all(listed),
            None => Listed::some(Marks::new(0..256), reactor::crypto::random_bytes::<1>()[0], |first| {
                self.store.list_held(&self.census, first).map(BTreeMap::into_keys)
            })?,
        };
        let fence = self.volume.begin_collection()?;
        let mounts = Mounts::new(target, place, self.volume, options, self.bar);
        let cleared = mounts.wait_for_all(&fence);
        (report.forgotten, report.gone) = mounts.forgotten();
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
            have_deleted(self.store, &self.census, &garbage, &self.speaker, self.verdict, report);
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
        listed: Option<&Listed>,
        report: &mut Report,
    ) -> Result<Vec<(Address, Found)>, Unknown> {
        let mut garbage = Vec::new();
        for (address, found) in self.store.list_held(&self.census, first)? {
            report.held.add(&found);
            if marks.contains(&address) || roots.keep(&address) {
                continue;
            }
            if listed.is_some_and(|listed| !listed.has_looked_at(first)) {
                report.unlooked += 1;
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
