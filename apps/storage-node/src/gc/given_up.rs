//! What is left of a space that was removed, or given up: all of it is garbage.
//!
//! There is no root that reaches anything, and none comes: of its writers the nodes take nothing, as its register says by its owner's word.
//! So there is no mark and nobody to wait for. What the owner himself may do, which is to bring it back (`rollback`), takes the
//! turn that is had here meanwhile.

use dht::Address;
use dht::collect::Found;
use indicatif::ProgressBar;

use super::report::{Report, stopped, tell};
use super::sweep::{Unknown, begin, have_deleted};
use super::targets::Target;
use super::{Place, Span, failed};
use crate::cli::Gc;
use crate::errors::Failure;
use crate::home::Home;
use crate::progress;
use crate::retention::Kept;
use crate::space_lists::{self, Seal, Turn};
use crate::volume;

/// Runs it for `target`, if that was given up.
///
/// # Errors
/// `Failure::Garbage`; `Failure::Space` if another process is changing who may do what, or those of the register.
///
/// # Suspends
/// While the nodes are asked, and told.
pub(super) fn collect(
    target: &Target<'_>,
    home: &Home,
    place: &Place<'_>,
    options: &Gc,
    grace: Span,
    kept: &Kept,
) -> Result<(), Failure> {
    let Some((genesis, path)) = target.given_up() else { return Ok(()) };
    let turn = Turn::take(home)?;
    // By what was seen of it before: that it was brought back since, too.
    let store = target.store().clone();
    let opened = volume::open_root_of_space(store, genesis, path, Some(place.seen_directory))?;
    if opened.is_none() {
        return Ok(());
    }
    if space_lists::learn(&target.sharer(home), &turn, genesis)? != Seal::GivenUp {
        return Err(failed("another copy of this home has brought it back: run this again"));
    }
    if !options.dry_run {
        target.agree()?;
    }
    let bar = progress::spinner("looking for garbage");
    let mut report = Report::default();
    let outcome = sweep(target, options, grace, &bar, &mut report);
    bar.finish_and_clear();
    outcome?;
    if report.held.is_nothing() {
        return Ok(());
    }
    tell(&report, Some(path), options.dry_run, grace, kept)
}

fn sweep(
    target: &Target<'_>,
    options: &Gc,
    grace: Span,
    bar: &ProgressBar,
    report: &mut Report,
) -> Result<(), Failure> {
    let (store, speaker) = (target.store(), target.speaker()?);
    let mut each = || -> Result<(), Unknown> {
        let (census, verdict) = begin(store, u32::try_from(grace.0.as_secs()).unwrap_or(u32::MAX))?;
        for first in 0..=u8::MAX {
            let held = store.list_held(&census, first)?;
            held.values().for_each(|found| report.held.add(found));
            let (garbage, young): (Vec<(Address, Found)>, Vec<_>) =
                held.into_iter().partition(|(_, found)| verdict.covers(found.put_seconds));
            garbage.iter().for_each(|(_, found)| report.garbage.add(found));
            young.iter().for_each(|(_, found)| report.young.add(found));
            if !options.dry_run {
                have_deleted(store, &census, &garbage, &speaker, verdict, report);
                bar.set_message(format!("deleting garbage: {}", super::report::deleted(report)));
            }
        }
        Ok(())
    };
    let outcome = each();
    outcome.map_err(|error| stopped(report, &error))
}
