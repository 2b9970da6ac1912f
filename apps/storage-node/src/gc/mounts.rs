//! Waiting for the drive's mounts to clear the way, and doing without those that do not come back.
//!
//! A mount looks at the root each second, and commits all that it has before it clears the way: over a slow line that takes
//! long, and it says meanwhile that it is at work. Patience runs from the last sign of life.
//!
//! - A command that was killed has no journal, so that nothing of it can come back: if it does not answer when it is asked it is
//!   struck out, and that is that.
//! - A mount of a user who may not write any more, by the nodes' own list, publishes nothing, so that it is not waited for: neither
//!   is what its journal has, which nobody but that user can open. It is struck out as if its owner had said that it never comes back.
//!   Should he be let in again, it finds out as one that was forgotten.
//! - A mount with a journal is done without only if its owner says that it never comes back. It is asked first, and must have
//!   published nothing for a while: one that is at work must not be forgotten by mistake. Should it live all the same, it finds
//!   out, and stores anew what it has (`filesystem/src/volume/doubt.rs`).

use std::cell::Cell;
use std::time::{Duration, Instant, UNIX_EPOCH};

use filesystem::Errno;
use filesystem::calendar::Civil;
use filesystem::volume::{CollectError, Fence, Roots, Standing, Volume, Waiting};
use indicatif::ProgressBar;
use reactor::cell::RefCell;
use reactor::crypto::PublicKey;

use super::sweep::Unknown;
use super::targets::Target;
use super::{Place, Session, Span};
use crate::cli::Gc;
use crate::client_directory::ClientDirectory;
use crate::errors::Failure;
use crate::volume;

/// For how long mounts are waited for that give no sign of life: they look each second, and nod every 15 s while they store.
const PATIENCE: Duration = Duration::from_secs(120);

/// For how long a mount must have published nothing before it is forgotten: six times as long as it may take to store what one
/// commit holds.
const SILENT_FOR: Duration = Duration::from_secs(3600);

/// How often the nodes are asked who may write, while mounts are waited for.
const ASK_INTERVAL: Duration = Duration::from_secs(5);

/// How often it is looked whether they have.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);

/// Who is waited for in vain.
#[derive(Debug, thiserror::Error)]
pub(super) enum Needed {
    #[error(
        "these mounts have not said that they do without it:{}\nWake them, or start them again where their journals are; if one \
         never comes back, and what it has not stored may be lost, give `--forget SESSION`. After a `rollback` one may be among them that has ended \
         since: a start where its journal is clears it",
        lines(.0)
    )]
    Waits(Vec<Waiting>),
    #[error("these mounts are there, and must not be forgotten: wait until they have stored what they have, or end them:{}", lines(.0))]
    Lives(Vec<Waiting>),
    #[error(
        "these mounts published something less than {silent_for} ago, and may be at work; wait, or say `--silent-for` how long is \
         enough:{}",
        lines(.of)
    )]
    Recent { silent_for: Span, of: Vec<Waiting> },
    #[error(
        "no mount that the drive knows of, or one of its spaces, has the number {0}: without `--forget`, `gc` tells those that it waits for"
    )]
    Unknown(Session),
    #[error("the drive does not forget them ({0})")]
    NotForgotten(Failure),
}

pub(super) fn lines(waiting: &[Waiting]) -> String {
    let line = |waiting: &Waiting| {
        let Waiting { session, label, since_seconds, heard_seconds, is_lost, has_journal, .. } = waiting;
        let (since, heard) = (Civil::of(*since_seconds), Civil::of(*heard_seconds));
        let why = match (is_lost, has_journal) {
            (true, _) => "it vanished without a word, and may come back with what its journal has",
            (false, true) => "it has not cleared the way yet: it may be storing",
            (false, false) => "a command that has not ended yet",
        };
        format!(
            "\n  session {session:016x}, {label}, there since {since}, last heard of {heard} (UTC): {why}"
        )
    };
    waiting.iter().map(line).collect()
}

/// See the file's header.
pub(super) struct Mounts<'a> {
    target: &'a Target<'a>,
    place: &'a Place<'a>,
    volume: &'a Volume,
    options: &'a Gc,
    bar: &'a ProgressBar,
    forgotten: Cell<usize>,
    /// Those that were taken out whose users may not write any more.
    gone: RefCell<Vec<Waiting>>,
    /// Who may write, as was asked then.
    writers: RefCell<Option<(Instant, Vec<PublicKey>)>>,
}

impl<'a> Mounts<'a> {
    pub(super) fn new(
        target: &'a Target<'a>,
        place: &'a Place<'a>,
        volume: &'a Volume,
        options: &'a Gc,
        bar: &'a ProgressBar,
    ) -> Mounts<'a> {
        Mounts {
            target,
            place,
            volume,
            options,
            bar,
            forgotten: Cell::new(0),
            gone: RefCell::default(),
            writers: RefCell::default(),
        }
    }

    /// How many were forgotten, and what is said of those whose users may not write any more.
    pub(super) fn forgotten(self) -> (usize, Vec<String>) {
        let line = |waiting: &Waiting| {
            format!(
                "session {:016x}, {}, is not waited for: its user may not write there any more, so that what it has not stored \
                 never comes",
                waiting.session, waiting.label
            )
        };
        let gone = self.gone.borrow().iter().map(line).collect();
        (self.forgotten.get(), gone)
    }

    /// Waits until all have cleared the way, and the root says so; returns what is in use.
    ///
    /// # Errors
    /// [`Needed`] if some have not, or what keeps it from being known.
    ///
    /// # Suspends
    /// Until then, as long as they give signs of life.
    pub(super) fn wait_for_all(&self, fence: &Fence) -> Result<Roots, Unknown> {
        let patience = self.options.patience.map_or(PATIENCE, |span| span.0);
        let mut signs = Signs { at: reactor::now(), version: 0, count: usize::MAX };
        let mut patience_with = Patience::default();
        loop {
            // Before the look: the last one comes after the whole patience.
            let was_late = reactor::now().saturating_duration_since(signs.at) > patience;
            match self.volume.look_at_collection(fence) {
                Ok(Standing::Clear(roots)) => return self.are_gone_still().map(|()| roots),
                Ok(Standing::Waits { waiting, version, is_heard }) => {
                    signs.note(version, is_heard, waiting.len());
                    self.bar.set_message(format!("waiting for {} mounts", waiting.len()));
                    match patience_with.next(was_late, || self.are_all_gone(&waiting)) {
                        Step::GiveUp => return Err(Needed::Waits(waiting).into()),
                        Step::DoWithout => {
                            self.do_without(&waiting)?;
                            continue;
                        }
                        Step::Wait => {}
                    }
                }
                Err(error @ (CollectError::Read(_) | CollectError::Tree(_))) if was_late => {
                    return Err(error.into());
                }
                Err(CollectError::Read(_) | CollectError::Tree(_)) => {}
                Err(error) => return Err(error.into()),
            }
            reactor::sleep(LOOK_INTERVAL);
        }
    }

    /// Asks who may write.
    fn ask_writers(&self) -> Result<Vec<PublicKey>, Needed> {
        let writers = self.target.writers().map_err(Needed::NotForgotten)?;
        self.writers.replace(Some((reactor::now(), writers.clone())));
        Ok(writers)
    }

    fn are_all_gone(&self, waiting: &[Waiting]) -> bool {
        let now = reactor::now();
        let asked = self.writers.borrow().clone();
        let asked = asked.filter(|(at, _)| now.saturating_duration_since(*at) < ASK_INTERVAL);
        // Whether that can be known is seen when patience is over.
        let writers = asked.map_or_else(|| self.ask_writers().ok(), |(_, writers)| Some(writers));
        writers.is_some_and(|writers| waiting.iter().all(|waiting| is_gone(waiting, &writers)))
    }

    /// Looks whether all who were taken out may still not write, now that the root says that the collection was let through. What one
    /// who was let in again meanwhile has stored and not published, he may find.
    fn are_gone_still(&self) -> Result<(), Unknown> {
        let gone = self.gone.borrow().clone();
        if gone.is_empty() {
            return Ok(());
        }
        let writers = self.target.writers().map_err(Unknown::Unasked)?;
        let back: Vec<Waiting> = gone.into_iter().filter(|waiting| !is_gone(waiting, &writers)).collect();
        if back.is_empty() { Ok(()) } else { Err(Unknown::LetInAgain(back)) }
    }

    /// Has the drive do without these, if all of them are such as may be done without.
    fn do_without(&self, waiting: &[Waiting]) -> Result<(), Needed> {
        let of = |is: &dyn Fn(&Waiting) -> bool| -> Vec<Waiting> {
            waiting.iter().copied().filter(|waiting| is(waiting)).collect()
        };
        let writers = self.ask_writers()?;
        let is_gone = |waiting: &Waiting| is_gone(waiting, &writers);
        let is_named = |waiting: &Waiting| self.options.forget.contains(&Session(waiting.session));
        let others = of(&|waiting| waiting.has_journal && !is_named(waiting) && !is_gone(waiting));
        if !others.is_empty() {
            return Err(Needed::Waits(others));
        }
        let silent_for = self.options.silent_for.unwrap_or(Span(SILENT_FOR));
        let now = reactor::wall_clock().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs();
        let is_recent = |waiting: &Waiting| {
            let silent = i64::try_from(now).unwrap_or(i64::MAX).saturating_sub(waiting.heard_seconds);
            waiting.has_journal
                && !is_gone(waiting)
                && u64::try_from(silent).unwrap_or(0) < silent_for.0.as_secs()
        };
        let recent = of(&is_recent);
        if !recent.is_empty() {
            return Err(Needed::Recent { silent_for, of: recent });
        }
        let numbers = |of: &[Waiting]| -> Vec<u64> { of.iter().map(|waiting| waiting.session).collect() };
        // Who is shut out could not answer.
        let present = numbers(&of(&|waiting| !waiting.is_lost && !is_gone(waiting)));
        let forgotten = numbers(&of(&|waiting| waiting.has_journal && !is_gone(waiting)));
        let directory = ClientDirectory::scratch().map_err(Needed::NotForgotten)?;
        let opened =
            self.target.enter(&directory, self.place.seen_directory).map_err(Needed::NotForgotten)?;
        let unread = || Needed::NotForgotten(volume::failed("the nodes have nothing of it".into()));
        let (helper, seen) = opened.ok_or_else(unread)?;
        let failed = |errno: Errno| {
            Needed::NotForgotten(Failure::Garbage { reason: format!("the nodes do not take it: {errno}") })
        };
        let outcome = || {
            if !present.is_empty() {
                let answered = helper.count_out(&present).map_err(failed)?;
                if !answered.is_empty() {
                    return Err(Needed::Lives(of(&|waiting| answered.contains(&waiting.session))));
                }
            }
            // Striking out takes a minute, in which somebody may be let in again.
            let writers = self.ask_writers()?;
            let gone = of(&|waiting| is_gone(waiting) && self::is_gone(waiting, &writers));
            helper.forget_sessions(&forgotten, &gone).map_err(failed)?;
            Ok(gone)
        };
        let outcome = outcome();
        // It has changed nothing but sessions.
        let _ = helper.close();
        drop(seen);
        self.gone.borrow_mut().extend(outcome?);
        self.forgotten.set(forgotten.len());
        Ok(())
    }
}

/// Whether its user may not write any more: nobody takes anything from it, nor what its journal has from anybody else.
fn is_gone(waiting: &Waiting, writers: &[PublicKey]) -> bool {
    waiting.member.is_some_and(|member| !writers.contains(&member))
}

/// What becomes of those that are waited for.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    Wait,
    DoWithout,
    GiveUp,
}

/// What was tried.
#[derive(Debug, Default)]
struct Patience {
    /// To do without those who can't answer, before their time was over.
    was_early: bool,
    /// To do without all, when it was.
    was_late: bool,
}

impl Patience {
    /// What comes next, where the time of those that are waited for is over if it `is_late`. Each is tried once: who came while the one was
    /// tried is still done without by the other.
    fn next(&mut self, is_late: bool, are_all_gone: impl FnOnce() -> bool) -> Step {
        if is_late {
            let was_late = std::mem::replace(&mut self.was_late, true);
            return if was_late { Step::GiveUp } else { Step::DoWithout };
        }
        // Those who can't answer are not given time for it.
        if !self.was_early && are_all_gone() {
            self.was_early = true;
            return Step::DoWithout;
        }
        Step::Wait
    }
}

/// The last sign of life of those that are waited for.
struct Signs {
    at: Instant,
    version: u64,
    count: usize,
}

impl Signs {
    /// `count` are waited for by the root of that version, which one of them published if it `is_heard`.
    fn note(&mut self, version: u64, is_heard: bool, count: usize) {
        if count < self.count || (is_heard && version > self.version) {
            self.at = reactor::now();
        }
        (self.count, self.version) = (count, self.version.max(version));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_came_after_some_were_done_without_early_is_done_without_when_his_time_is_over() {
        let mut patience = Patience::default();
        assert_eq!(patience.next(false, || false), Step::Wait);
        assert_eq!(patience.next(false, || true), Step::DoWithout);
        assert_eq!(patience.next(false, || true), Step::Wait, "it was tried");
        assert_eq!(patience.next(true, || false), Step::DoWithout);
        assert_eq!(patience.next(true, || false), Step::GiveUp);
    }
}
