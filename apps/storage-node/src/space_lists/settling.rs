//! Going on with what commands could not say in the spaces' roots: what the roll says is said there, by whoever has the owner's key.
//!
//! It takes nobody's data away, since nobody has asked for it: a space that does not open here is told, and left as it is. One that
//! was given up is passed over: nobody is in it.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use dht::BlockStore;
use overlay::Revocations;
use reactor::cell::RefCell;

use super::{Published, Seal, Turn, Wish, keys, learn, publish, read_roll, sealed};
use crate::errors::Failure;
use crate::groups;
use crate::output::say;
use crate::roll::{LetIn, SpaceEntry};
use crate::sharing::Sharer;

/// How often the roots of the drive's spaces are looked at: what failed there is rare, and each look asks the nodes.
const INTERVAL: Duration = Duration::from_secs(60);

/// So many reasons are told of one space: some have numbers in them, which whoever writes there can have change each minute.
const REASONS_MAX: usize = 4;

/// A space whose root does not say what the roll says, as far as is known.
#[derive(Debug)]
pub(crate) struct Unsettled {
    /// As the roll had it before.
    space: SpaceEntry,
    reason: String,
    /// Another process of this home is at it.
    is_busy: bool,
}

impl Unsettled {
    /// Where it was put.
    pub(crate) fn path(&self) -> &str {
        &self.space.path
    }

    /// Why it is so.
    pub(crate) fn reason(&self) -> &str {
        &self.reason
    }

    /// Whether `member` is in it, as far as this home knows, or was to be off it and is not known to be.
    pub(crate) fn has(&self, member: &LetIn) -> bool {
        let people = self.space.people.iter().chain(&self.space.listed.people);
        let is_in = people.into_iter().any(|allowed| allowed.key == member.key);
        is_in || self.space.leaving.contains(&member.key)
    }
}

/// What is done once a minute.
#[derive(Debug, Default)]
pub(crate) struct Settling {
    /// When it was done last.
    last: Cell<Option<Instant>>,
    /// Of which spaces it was told why they are not settled: it comes back each minute.
    told: RefCell<BTreeSet<(String, String)>>,
    /// Why the groups could not be looked at, if that was told last.
    told_of_groups: RefCell<Option<String>>,
}

impl Settling {
    /// Has it done the next time, whenever it was done last.
    pub(crate) fn at_once(&self) {
        self.last.set(None);
    }

    /// Goes on with what `share`, `unshare` and `remove` could not say in the spaces' roots, if it is time for that.
    ///
    /// # Errors
    /// Those of the home's files.
    ///
    /// # Suspends
    /// Until they say so, or it is known that they can't.
    pub(crate) fn go_on(&self, sharer: &Sharer<'_>) -> Result<(), Failure> {
        let now = reactor::now();
        if self.last.get().is_some_and(|at| now.saturating_duration_since(at) < INTERVAL) {
            return Ok(());
        }
        self.last.set(Some(now));
        // Letters and removals wait for this one: where a command is at work, what is left is done a minute later.
        let groups = groups::look(sharer, Duration::ZERO);
        let unsettled = settle(sharer, &Revocations::default(), Duration::ZERO)?;
        let groups = groups.and_then(|()| groups::note_spaces(sharer, Duration::ZERO));
        match groups {
            Ok(()) | Err(Failure::Locked { .. }) => self.told_of_groups.replace(None),
            Err(failure) => {
                let reason = reason_of(&failure);
                // Where there are none, as far as this home knows, nobody waits for any.
                let is_about_any = read_roll(sharer)?.0.groups.is_some();
                if is_about_any && self.told_of_groups.borrow().as_ref() != Some(&reason) {
                    say(format_args!("the groups have to wait: {reason}; trying on"));
                }
                self.told_of_groups.replace(Some(reason))
            }
        };
        for space in news(&mut self.told.borrow_mut(), &unsettled) {
            say(format_args!(
                "who may do what in the space {} has to wait: {}; trying on",
                space.path(),
                space.reason()
            ));
        }
        Ok(())
    }
}

/// What is to be told of those that are not settled, each reason once for as long as a space is among them.
fn news<'a>(told: &mut BTreeSet<(String, String)>, unsettled: &'a [Unsettled]) -> Vec<&'a Unsettled> {
    told.retain(|(path, _)| unsettled.iter().any(|space| space.path() == path));
    let mut is_new = |space: &&Unsettled| {
        let known = told.iter().filter(|(path, _)| path == space.path()).count();
        !space.is_busy
            && known < REASONS_MAX
            && told.insert((space.path().to_owned(), space.reason().to_owned()))
    };
    unsettled.iter().filter(|space| is_new(space)).collect()
}

/// Has all spaces' roots say what the roll says, and nobody who is revoked. Returns those for which that failed. Another process that
/// is changing who may do what is waited for, so long for all of them together.
///
/// # Errors
/// Those of the home's files.
///
/// # Suspends
/// Until they say so.
pub(crate) fn settle(
    sharer: &Sharer<'_>,
    revoked: &Revocations,
    patience: Duration,
) -> Result<Vec<Unsettled>, Failure> {
    let until = reactor::now() + patience;
    let spaces = read_roll(sharer)?.0.spaces.into_iter().filter(|space| !space.is_given_up);
    let unsettled = spaces.filter_map(|space| {
        let failure = settle_one(sharer, &space, revoked, until).err()?;
        let is_busy = matches!(failure, Failure::Locked { .. });
        let reason = reason_of(&failure);
        Some(Unsettled { space, reason, is_busy })
    });
    Ok(unsettled.collect())
}

/// Why a space or the groups are not what they are to be, in a word.
pub(crate) fn reason_of(failure: &Failure) -> String {
    match failure {
        Failure::Sharing { reason } => reason.clone(),
        Failure::Space { reason, advice } | Failure::Group { reason, advice } => {
            format!("{reason} ({advice})")
        }
        other => other.to_string(),
    }
}

/// As [`settle`], of one space, which another process is waited for until a moment for. What its root says from then on; nothing if
/// nobody is in it.
///
/// # Errors
/// Why it is not known to say that.
///
/// # Suspends
/// Until it says so.
pub(crate) fn settle_one(
    sharer: &Sharer<'_>,
    space: &SpaceEntry,
    revoked: &Revocations,
    until: Instant,
) -> Result<Option<Published>, Failure> {
    let turn = Turn::by(sharer.home, until)?;
    let genesis = space.genesis()?;
    let keys = keys(sharer, &genesis)?;
    if !space.is_linked && matches!(sharer.store.read(&keys.register), Ok(None)) {
        // Its making was cut short: nobody is in it.
        return Ok(None);
    }
    match learn(sharer, &turn, &genesis)? {
        Seal::Ours => publish(sharer, &turn, &genesis, &Wish::AsItIs, revoked).map(Some),
        Seal::Others(error) => Err(sealed(&error)),
        Seal::GivenUp => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{member, people};
    use super::*;
    use crate::network::Hex;
    use crate::roll::Listed;

    fn unsettled(path: &str, reason: &str) -> Unsettled {
        let space = SpaceEntry {
            genesis: Hex(Vec::new()),
            path: path.into(),
            is_linked: true,
            configuration: None,
            number: 1,
            people: people(&[(2, false)]),
            groups: Vec::new(),
            leaving: vec![member(4).key],
            leaving_groups: Vec::new(),
            listed: Listed::default(),
            is_given_up: false,
        };
        Unsettled { space, reason: reason.into(), is_busy: false }
    }

    #[test]
    fn a_space_that_fails_concerns_those_who_are_in_it_and_those_who_may_be_in_it_yet() {
        let unsettled = unsettled("docs", "");
        assert!(unsettled.has(&member(2)) && unsettled.has(&member(4)) && !unsettled.has(&member(3)));
    }

    #[test]
    fn each_reason_is_told_once_and_none_hides_another() {
        let (away, sealed) = (unsettled("docs", "no node"), unsettled("docs", "sealed"));
        let busy = Unsettled { is_busy: true, ..unsettled("docs", "in use") };
        let mut told = BTreeSet::new();
        let mut reasons = |unsettled: Unsettled| {
            news(&mut told, &[unsettled]).iter().map(|space| space.reason().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(reasons(away), ["no node"]);
        assert_eq!(reasons(sealed), ["sealed"], "it matters more, and came second");
        assert!(reasons(busy).is_empty());
        for again in ["no node", "sealed"] {
            assert!(reasons(unsettled("docs", again)).is_empty());
        }
        for number in 0..2 {
            assert_eq!(reasons(unsettled("docs", &format!("version {number}"))).len(), 1);
        }
        assert!(reasons(unsettled("docs", "version 2")).is_empty(), "a log has an end");
        // It was well meanwhile.
        assert!(news(&mut told, &[]).is_empty());
        assert_eq!(news(&mut told, &[unsettled("docs", "sealed")]).len(), 1);
    }
}
