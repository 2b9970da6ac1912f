//! `gc`: deletes what the drive does not need any more from the nodes.
//!
//! In this order, on which everything hangs (the proof is in `docs/collection.md`):
//!
//! 1. look whether the nodes hold all that the drive needs, and take back what was deleted of it (`needed`);
//! 2. list what they hold of it;
//! 3. put a mark into the root, and wait until every mount that the drive knows of has cleared the way (`mounts`);
//! 4. mark what is in use, and have the nodes delete what was listed *before* the mark and is not in use.
//!
//! The drive and each of its spaces are gone through one after the other, each for itself (`targets`).
//!
//! What is deleted the nodes keep for a time of grace all the same: for mounts that only read, and for those that nobody waited
//! for, which store anew what they point to. It goes through the addresses in slices, so that its marks have a bound (`marks`).
//! What is killed in the middle has deleted only what nobody needs; the next run begins anew. The drive is opened for reading:
//! so the collector is no session itself.

mod duration;
mod emptied;
mod given_up;
mod marks;
mod mounts;
mod needed;
mod report;
mod sweep;
mod targets;

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use dht::block::deletion::RETENTION_SECONDS_MAX;
use filesystem::format::Shown;

pub(crate) use duration::Span;
use mounts::Needed;
pub(crate) use needed::Missing;
use report::{Report, stopped, tell};
pub(crate) use sweep::take_back;
use sweep::{Sweep, Unknown};
use targets::Target;

use crate::cache::{Cache, Plan, Usual};
use crate::cli::Gc;
use crate::client::{self, Client};
use crate::client_directory::ClientDirectory;
use crate::errors::Failure;
use crate::home::Home;
use crate::output::{self, say};
use crate::process;
use crate::progress;
use crate::retention::Kept;
use crate::volume;

/// For how long the nodes keep what is deleted: longer than most machines are away.
const GRACE: Duration = Duration::from_secs(30 * 24 * 3600);

/// Runs `gc`.
///
/// # Errors
/// `Failure::Garbage` if it is not known what may be deleted, or not all of it was; or what keeps the volume from being
/// opened.
pub(crate) fn gc(options: &Gc) -> Result<(), Failure> {
    let grace = options.grace.unwrap_or(Span(GRACE));
    if u32::try_from(grace.0.as_secs()).unwrap_or(u32::MAX) > RETENTION_SECONDS_MAX {
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
        let place = Place { directory: &directory, seen_directory: &seen_directory, cache: cache.as_deref() };
        let outcome = go_through(&client, settings.home.as_ref(), &place, options, grace);
        cache.iter().for_each(|cache| cache.close());
        client.leave();
        outcome
    })
}

/// Where a run keeps what it has.
struct Place<'a> {
    directory: &'a ClientDirectory,
    seen_directory: &'a Path,
    cache: Option<&'a Cache>,
}

impl Place<'_> {
    /// Has the drive's newest root on disk before the mark that says that it was seen: with one that is ahead a start without nodes shows
    /// less than was seen, should this be killed.
    fn keep_root(&self) {
        if let Some(cache) = self.cache {
            cache.disk().keep_roots();
        }
    }
}

/// Runs it for the drive and its spaces, whatever becomes of one of them.
fn go_through(
    client: &Client,
    home: Option<&Home>,
    place: &Place<'_>,
    options: &Gc,
    grace: Span,
) -> Result<(), Failure> {
    volume::refuse_unless_owner(client.network(), client.user())?;
    let (targets, damaged) = targets::all(client, home)?;
    if home.is_none() {
        say(
            "this home's list says which spaces there are: without --home only the drive itself is looked at",
        );
    }
    if !options.forget.is_empty() {
        look_for_named(&targets, place, &options.forget)?;
    }
    let kept = Kept::of(&client.block_store());
    let mut failures: Vec<(Option<String>, Failure)> =
        damaged.into_iter().map(|(path, failure)| (Some(path), failure)).collect();
    for target in &targets {
        let done = match (target.given_up(), home) {
            (Some(_), Some(home)) => given_up::collect(target, home, place, options, grace, &kept),
            _ => of_target(target, place, options, grace, &kept),
        };
        if let Err(failure) = done {
            failures.push((target.path().map(Into::into), failure));
        }
    }
    match failures.pop() {
        None => Ok(()),
        // What was done in the others was said.
        Some((None, failure)) if failures.is_empty() && (targets.len() == 1 || !is_of_garbage(&failure)) => {
            Err(failure)
        }
        Some(last) => {
            failures.push(last);
            let line = |(path, failure): &(Option<String>, Failure)| match path {
                None => format!("in the drive: {failure}"),
                Some(path) => format!("in the space {}: {failure}", Shown::of(path)),
            };
            Err(Failure::Garbage { reason: failures.iter().map(line).collect::<Vec<_>>().join("\n") })
        }
    }
}

fn is_of_garbage(failure: &Failure) -> bool {
    matches!(failure, Failure::Garbage { .. })
}

/// Looks whether the sessions that are to be forgotten are somewhere: a mistaken number would be waited for in vain.
fn look_for_named(targets: &[Target<'_>], place: &Place<'_>, named: &[Session]) -> Result<(), Failure> {
    let (mut known, mut unread) = (BTreeSet::new(), Vec::new());
    for target in targets {
        let numbers = match target.open(place.directory, place.seen_directory, place.cache) {
            Ok(None) => continue,
            Ok(Some((volume, seen))) => {
                let numbers = volume.session_numbers().ok();
                let _ = volume.close();
                place.keep_root();
                drop(seen);
                numbers
            }
            Err(_) => None,
        };
        match numbers {
            Some(numbers) => known.extend(numbers),
            // Why, is said when it is its turn.
            None => unread.push(
                target.path().map_or_else(|| "the drive".to_owned(), |path| Shown::of(path).to_string()),
            ),
        }
    }
    match named.iter().find(|session| !known.contains(&session.0)) {
        Some(unknown) if unread.is_empty() => Err(failed(&Needed::Unknown(*unknown).to_string())),
        Some(unknown) => {
            output::warn(format_args!(
                "whether the mount {unknown} is known is not known, for who is in {} cannot be read",
                unread.join(", ")
            ));
            Ok(())
        }
        None => Ok(()),
    }
}

/// Runs it for one of them.
fn of_target(
    target: &Target<'_>,
    place: &Place<'_>,
    options: &Gc,
    grace: Span,
    kept: &Kept,
) -> Result<(), Failure> {
    let opened = target.open(place.directory, place.seen_directory, place.cache)?;
    let Some((volume, seen)) = opened else { return Ok(()) };
    let retention_seconds = u32::try_from(grace.0.as_secs()).unwrap_or(u32::MAX);
    let bar = progress::spinner("looking for garbage");
    let mut report = Report::default();
    let outcome = target.speaker().and_then(|speaker| {
        if !options.dry_run {
            target.agree()?;
        }
        let of_run = || {
            let sweep = Sweep::new(target.store(), &volume, speaker, retention_seconds, &bar)?;
            match options.dry_run {
                true => sweep.survey(&mut report),
                false => sweep.collect(target, place, options, &mut report),
            }
        };
        let outcome: Result<(), Unknown> = of_run();
        outcome.map_err(|error| stopped(&report, &error))
    });
    bar.finish_and_clear();
    // Nothing of it was changed.
    let _ = volume.close();
    place.keep_root();
    drop(seen);
    report.gone.iter().for_each(say);
    outcome?;
    tell(&report, target.path(), options.dry_run, grace, kept)
}

fn failed(reason: &str) -> Failure {
    Failure::Garbage { reason: format!("nothing was deleted: {reason}") }
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
