//! What is left of a space that was removed, or given up: all of it is garbage.
//!
//! There is no root that reaches anything, and none comes: of its writers the nodes take nothing, as its register says by its owner's word.
//! So there is no mark and nobody to wait for. What the owner himself may do is to bring it back (`rollback`), in this home or in another
//! copy of it. So the word is read again before each batch and after the last, and once it is gone all that was told in this run is taken
//! back. In this home he does so in a turn, and each batch has one, from that look until it is told: other commands have theirs in between.
//!
//! Where nothing was held, nothing comes, but from a node that was away: that is noted (`emptied`), and looked at again seldom.

use std::collections::BTreeSet;
use std::time::UNIX_EPOCH;

use dht::Address;
use dht::collect::{CensusError, Found};
use indicatif::ProgressBar;

use super::emptied::{self, Emptied};
use super::report::{Report, stopped, tell};
use super::sweep::{TOLD_AT_ONCE, Unknown, begin, have_deleted};
use super::targets::Target;
use super::{Place, Span, failed};
use crate::cli::Gc;
use crate::errors::Failure;
use crate::home::Home;
use crate::progress;
use crate::retention::Kept;
use crate::space_lists::{self, Seal, Turn};
use crate::volume;

/// Of what is deleted in one run, what is remembered in order to take it back: 128 MiB of addresses. The rest is for the next run.
const TOLD_MAX: usize = 1 << 22;

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
    // By what was seen of it before: that it was brought back since, too.
    let store = target.store().clone();
    let opened = volume::open_root_of_space(store, genesis, path, Some(place.seen_directory))?;
    if opened.is_none() {
        return Ok(());
    }
    if !options.dry_run {
        target.agree()?;
    }
    // After all have agreed, however that was: it may have been on something newer.
    let sharer = target.sharer(home);
    let look = || -> Result<(Seal, Option<Turn>), Failure> {
        let turn = Turn::take(home)?;
        Ok((space_lists::learn(&sharer, &turn, genesis)?, Some(turn)))
    };
    if look()?.0 != Seal::GivenUp {
        return Err(failed(&Unknown::BroughtBack.to_string()));
    }
    let word = Emptied::by(target.store(), genesis.register())?;
    let now = || reactor::wall_clock().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    if !options.dry_run && emptied::is_noted(home, &word, now()) {
        return Ok(());
    }
    let bar = progress::spinner("looking for garbage");
    let mut report = Report::default();
    let outcome = sweep(target, options, grace, &look, &bar, &mut report);
    bar.finish_and_clear();
    outcome?;
    if report.held.is_nothing() {
        return match options.dry_run {
            true => Ok(()),
            false => emptied::note(home, word, now()),
        };
    }
    tell(&report, Some(path), options.dry_run, grace, kept)
}

fn sweep(
    target: &Target<'_>,
    options: &Gc,
    grace: Span,
    look: Look<'_>,
    bar: &ProgressBar,
    report: &mut Report,
) -> Result<(), Failure> {
    let (store, speaker) = (target.store(), target.speaker()?);
    let (census, verdict) = begin(store, u32::try_from(grace.0.as_secs()).unwrap_or(u32::MAX))
        .map_err(|error| stopped(report, &error))?;
    let mut deletion = Deletion { look, told: Vec::new() };
    let mut each = || -> Result<(), Unknown> {
        for first in 0..=u8::MAX {
            let held = store.list_held(&census, first)?;
            held.values().for_each(|found| report.held.add(found));
            let (garbage, young): (Vec<(Address, Found)>, Vec<_>) =
                held.into_iter().partition(|(_, found)| verdict.covers(found.put_seconds));
            garbage.iter().for_each(|(_, found)| report.garbage.add(found));
            young.iter().for_each(|(_, found)| report.young.add(found));
            if !options.dry_run {
                report.left += deletion.run(&garbage, &mut |some| {
                    have_deleted(store, &census, some, &speaker, verdict, report);
                    bar.set_message(format!("deleting garbage: {}", super::report::deleted(report)));
                })?;
            }
        }
        Ok(())
    };
    let outcome = each();
    let outcome = deletion.finish(outcome, &mut |some| {
        bar.set_message("taking back what was deleted");
        store.take_back(&census, some, &speaker).map(|back| back.len())
    });
    outcome.map_err(|ended| match *ended {
        Ended::Stopped(error) => stopped(report, &error),
        Ended::TakenBack(error, told, back) => failed_and_took_back(&error, told, back),
    })
}

/// That, and what the nodes had been told by then.
fn failed_and_took_back(error: &Unknown, told: usize, back: Result<usize, CensusError>) -> Failure {
    let taken = match back {
        Ok(back) if back == told => {
            format!("all {told} blocks that nodes had been told to delete are there again")
        }
        Ok(back) => format!(
            "of {told} blocks that nodes had been told to delete, {back} are there again; the others no node has that answers"
        ),
        Err(error) => format!(
            "{told} blocks that nodes had been told to delete could not all be taken back ({error}): run this again, which takes back what is needed"
        ),
    };
    Failure::Garbage { reason: format!("{error}; {taken}") }
}

/// How a deletion ended that was not gone through with.
#[derive(Debug)]
enum Ended {
    /// All that was deleted is garbage.
    Stopped(Unknown),
    /// It may be needed: of so many blocks that the nodes were told, so many are there again.
    TakenBack(Unknown, usize, Result<usize, CensusError>),
}

/// Says what stands in the register's place, and what keeps it so in this home as long as it is had.
type Look<'a> = &'a dyn Fn() -> Result<(Seal, Option<Turn>), Failure>;

/// Tells the nodes of some blocks that they are to delete them.
type Tell<'a, F> = &'a mut dyn FnMut(&[(Address, F)]);

/// What is deleted as long as the owner's word stands in the register's place.
struct Deletion<'a> {
    look: Look<'a>,
    /// Of what nodes are told to delete, all: they list it no more.
    told: Vec<Address>,
}

impl Deletion<'_> {
    fn look(&self) -> Result<Option<Turn>, Unknown> {
        // Of a thousand looks one may come to nothing, as a node is started anew.
        match (self.look)().or_else(|_| (self.look)()) {
            Ok((Seal::GivenUp, turn)) => Ok(turn),
            Ok(_) => Err(Unknown::BroughtBack),
            Err(failure) => Err(Unknown::Unseen(failure)),
        }
    }

    /// Has `tell` tell the nodes of `garbage`, and looks before each batch; returns how many are left for another run.
    fn run<F>(&mut self, garbage: &[(Address, F)], tell: Tell<'_, F>) -> Result<u64, Unknown> {
        let (now, later) = garbage.split_at(garbage.len().min(TOLD_MAX - self.told.len()));
        for some in now.chunks(TOLD_AT_ONCE) {
            let _turn = self.look()?;
            self.told.extend(some.iter().map(|(address, _)| *address));
            tell(some);
        }
        Ok(later.len() as u64)
    }

    /// Looks once more after the last, whatever it ended with. Where the word is gone, or it is not known whether it is, all that
    /// nodes were told is to be `kept`: of what is garbage nothing is lost by that, and the next run deletes it.
    fn finish(
        self,
        outcome: Result<(), Unknown>,
        keep: &mut dyn FnMut(&BTreeSet<Address>) -> Result<usize, CensusError>,
    ) -> Result<(), Box<Ended>> {
        if self.told.is_empty() {
            return outcome.map_err(|error| Box::new(Ended::Stopped(error)));
        }
        let Err(gone) = self.look() else {
            return outcome.map_err(|error| Box::new(Ended::Stopped(error)));
        };
        let (mut back, mut failed) = (0, None);
        for some in self.told.chunk_by(|one, next| one.0[0] == next.0[0]) {
            for some in some.chunks(TOLD_AT_ONCE) {
                // Of the rest as well, if one can't be counted.
                match keep(&some.iter().copied().collect()) {
                    Ok(count) => back += count,
                    Err(error) => failed = Some(error),
                }
            }
        }
        Err(Box::new(Ended::TakenBack(gone, self.told.len(), failed.map_or(Ok(back), Err))))
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use reactor::cell::RefCell;

    use super::*;

    fn garbage(first: u8, count: u32) -> Vec<(Address, ())> {
        let address = |number: u32| {
            let mut bytes = [first; 32];
            bytes[1..5].copy_from_slice(&number.to_be_bytes());
            (Address(bytes), ())
        };
        (0..count).map(address).collect()
    }

    type At = fn(usize) -> Result<Seal, Failure>;

    /// Deletes of two slices with two batches in each; the word is what `at` says of the number of the look. Returns what is deleted
    /// in the end, how it ended, and how often it was looked.
    fn story(at: At) -> (usize, Result<(), Box<Ended>>, usize) {
        let (looks, deleted) = (Cell::new(0), RefCell::new(BTreeSet::new()));
        let look = || {
            looks.set(looks.get() + 1);
            at(looks.get()).map(|seal| (seal, None))
        };
        let mut deletion = Deletion { look: &look, told: Vec::new() };
        let mut each = || {
            for first in [1, 9] {
                deletion.run(&garbage(first, TOLD_AT_ONCE as u32 + 1), &mut |some| {
                    deleted.borrow_mut().extend(some.iter().map(|(address, ())| *address));
                })?;
            }
            Ok(())
        };
        let outcome = each();
        let outcome = deletion.finish(outcome, &mut |some| {
            let mut deleted = deleted.borrow_mut();
            Ok(some.iter().filter(|address| deleted.remove(*address)).count())
        });
        let count = deleted.borrow().len();
        (count, outcome, looks.get())
    }

    #[test]
    fn what_is_brought_back_meanwhile_is_taken_back_whole() {
        const ALL: usize = 2 * (TOLD_AT_ONCE + 1);
        let (deleted, outcome, looks) = story(|_| Ok(Seal::GivenUp));
        assert!(outcome.is_ok());
        assert_eq!((deleted, looks), (ALL, 5), "before each batch, and after the last");
        // Right after the last batch as well, and where nobody can say.
        let stories: [(At, usize); 3] = [
            (|look| Ok(if look < 4 { Seal::GivenUp } else { Seal::Ours }), ALL - 1),
            (|look| Ok(if look < 5 { Seal::GivenUp } else { Seal::Ours }), ALL),
            (|look| if look < 3 { Ok(Seal::GivenUp) } else { Err(failed("no quorum")) }, ALL / 2),
        ];
        let once: At = |look| if look == 2 { Err(failed("no quorum")) } else { Ok(Seal::GivenUp) };
        let (deleted, outcome, looks) = story(once);
        assert!(outcome.is_ok());
        assert_eq!((deleted, looks), (ALL, 6), "it is looked twice");

        for (at, told) in stories {
            let (deleted, outcome, _) = story(at);
            assert_eq!(deleted, 0);
            match outcome.map_err(|ended| *ended) {
                Err(Ended::TakenBack(_, all, Ok(back))) => assert_eq!((all, back), (told, told)),
                other => panic!("{other:?}"),
            }
        }
        // Before the first there is nothing to take back.
        let (deleted, outcome, looks) = story(|_| Ok(Seal::Ours));
        assert_eq!((deleted, looks), (0, 1));
        assert!(matches!(outcome.map_err(|ended| *ended), Err(Ended::Stopped(Unknown::BroughtBack))));
    }
}
