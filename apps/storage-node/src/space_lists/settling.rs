//! Going on with what commands could not say in the spaces' roots: what the roll says is said there, by whoever has the owner's key.
//!
//! It takes nobody's data away, since nobody has asked for it: a space that does not open here is told, and left as it is.

use dht::BlockStore;
use overlay::Revocations;

use super::{Turn, Wish, keys, learn, publish, read_roll};
use crate::errors::Failure;
use crate::roll::{LetIn, SpaceEntry};
use crate::sharing::Sharer;

/// A space whose root does not say what the roll says, as far as is known.
#[derive(Debug)]
pub(crate) struct Unsettled {
    /// As the roll had it before.
    space: SpaceEntry,
    reason: String,
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

    /// Whether `member` is in it, as far as this home knows.
    pub(crate) fn has(&self, member: &LetIn) -> bool {
        self.space.people.iter().any(|allowed| allowed.key == member.key)
    }
}

/// Has all spaces' roots say what the roll says, and nobody who is revoked. Returns those for which that failed.
///
/// # Errors
/// Those of the home's files.
///
/// # Suspends
/// Until they say so.
pub(crate) fn settle(sharer: &Sharer<'_>, revoked: &Revocations) -> Result<Vec<Unsettled>, Failure> {
    let spaces = read_roll(sharer)?.0.spaces;
    let unsettled = spaces.into_iter().filter_map(|space| {
        let failure = settle_one(sharer, &space, revoked).err()?;
        let reason = match failure {
            Failure::Sharing { reason } => reason,
            other => other.to_string(),
        };
        Some(Unsettled { space, reason })
    });
    Ok(unsettled.collect())
}

fn settle_one(sharer: &Sharer<'_>, space: &SpaceEntry, revoked: &Revocations) -> Result<(), Failure> {
    let turn = Turn::take(sharer.home)?;
    let genesis = space.genesis()?;
    let keys = keys(sharer, &genesis)?;
    if !space.is_linked && matches!(sharer.store.read(&keys.register), Ok(None)) {
        // Its making was cut short: nobody is in it.
        return Ok(());
    }
    learn(sharer, &turn, &genesis)?;
    publish(sharer, &turn, &genesis, &Wish::AsItIs, revoked).map(drop)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{member, people};
    use super::*;
    use crate::network::Hex;

    #[test]
    fn a_space_that_fails_concerns_those_who_are_in_it() {
        let space = SpaceEntry {
            genesis: Hex(Vec::new()),
            path: "docs".into(),
            is_linked: true,
            configuration: None,
            number: 1,
            people: people(&[(2, false)]),
        };
        let unsettled = Unsettled { space, reason: String::new() };
        assert!(unsettled.has(&member(2)) && !unsettled.has(&member(3)));
    }
}
