//! What a space's root says that this home does not know yet: another copy of it may have signed a newer list, or given the space up;
//! and a writer may have sealed it to others.
//!
//! Before the roll is changed: whom another copy let in, this one does not take off by that it knows nothing of it.

use dht::BlockStore;
use dht::block::mutable::{Genesis, Signed};
use filesystem::access::list::{AccessList, Found};
use filesystem::access::{RootError, open_root};

use super::sealed::{says_given_up, sealed};
use super::{Guests, Turn, keys, read_roll};
use crate::errors::Failure;
use crate::roll::{Listed, Roll, SpaceEntry};
use crate::sharing::Sharer;

/// Whom a space's root opens to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Seal {
    /// It opens here.
    Ours,
    /// It does not, whatever the owner's list said: one of its writers saw to that.
    Others(RootError),
    /// To nobody: the owner has given the space up.
    GivenUp,
}

/// Takes over what another copy of this home signed for a space, if that is newer than what the roll knows; and says whether its root
/// opens here.
///
/// # Errors
/// `Failure::Sharing` if the space's root can't be read, or if this home does not have the space and its root has no list of the
/// owner's, which every space has; or those of the home's files.
///
/// # Suspends
/// While it is read.
pub(crate) fn learn(sharer: &Sharer<'_>, turn: &Turn, genesis: &Signed<Genesis>) -> Result<Seal, Failure> {
    look_at(sharer, turn, genesis).map(|(seal, _)| seal)
}

/// The list of a space that is in force, whoever of the owner's homes signed it; `None` if nobody is in it. The roll has what it says
/// then.
///
/// # Errors
/// As [`learn`]; `Failure::Space` if the root does not have it, so that what it says is not known.
///
/// # Suspends
/// While it is read.
pub(crate) fn newest(
    sharer: &Sharer<'_>,
    turn: &Turn,
    space: &SpaceEntry,
) -> Result<Option<AccessList>, Failure> {
    let genesis = space.genesis()?;
    let list = match look_at(sharer, turn, &genesis)? {
        (Seal::GivenUp, _) => return Ok(None),
        (Seal::Others(error), _) => return Err(sealed(&error)),
        (Seal::Ours, list) => list,
    };
    let roll = read_roll(sharer)?.0;
    let number =
        roll.spaces.iter().find(|known| known.genesis == space.genesis).map_or(0, |known| known.number);
    match list {
        Some(list) if list.number >= number => Ok(Some((*list).clone())),
        // Its making was cut short, or it was made by nothing but a link.
        None if number == 0 && !space.is_linked => Ok(None),
        _ => Err(Failure::Space {
            reason: "its root does not have the newest list of its owner's: somebody who may write there took it away".into(),
            advice: "`unshare DIR` takes everybody off it, and it has a new list then",
        }),
    }
}

/// As [`learn`], with the list that the root has.
fn look_at(
    sharer: &Sharer<'_>,
    _: &Turn,
    genesis: &Signed<Genesis>,
) -> Result<(Seal, Option<Signed<AccessList>>), Failure> {
    let keys = keys(sharer, genesis)?;
    let failed = |reason: String| Failure::Sharing { reason };
    let record = sharer.store.read(&keys.register).map_err(|error| failed(error.to_string()))?;
    let bytes = genesis.to_bytes();
    let entry = read_roll(sharer)?.0.spaces.into_iter().find(|space| space.genesis.0 == bytes);
    let is_given_up = record.as_ref().is_some_and(|record| says_given_up(record, &genesis.owner));
    if entry.as_ref().is_some_and(|entry| entry.is_given_up != is_given_up) {
        Roll::change(sharer.home, |roll| {
            roll.given_up(genesis, is_given_up);
            Ok(())
        })?;
    }
    let root = record.map(|record| open_root(&record.payload, record.version, &keys.secret)).transpose();
    match (root, entry) {
        (_, Some(_)) if is_given_up => Ok((Seal::GivenUp, None)),
        (Ok(Some(root)), entry) => match root.charter.access_list(&genesis.owner, &keys.register) {
            Found::List(list) => Roll::change(sharer.home, |roll| {
                roll.learn(genesis, &list);
                Ok((Seal::Ours, Some(list)))
            }),
            _ if entry.is_some() => Ok((Seal::Ours, None)),
            _ => Err(failed("this home does not have the space, and it has no list of its owner's".into())),
        },
        (Ok(None), Some(_)) => Ok((Seal::Ours, None)),
        (Err(error), Some(_)) => Ok((Seal::Others(error), None)),
        (_, None) => {
            Err(failed("this home does not have the space, and it has no list of its owner's".into()))
        }
    }
}

impl Roll {
    /// Takes over what a list says that another copy of this home signed, if that is newer than what this roll knows.
    pub(super) fn learn(&mut self, genesis: &Signed<Genesis>, list: &AccessList) {
        let bytes = genesis.to_bytes();
        // A link led to a space that this home did not have. Of one that it has, a list does not say that its link was put: its making may
        // have been cut short between the two.
        let is_found = self.spaces.iter().all(|space| space.genesis.0 != bytes);
        let entry = self.space_or_new(genesis, &list.path);
        entry.is_linked |= is_found;
        if list.number > entry.number {
            let Guests { people, groups } = Guests::of(list, &genesis.owner);
            (entry.number, entry.people, entry.groups) = (list.number, people, groups);
            entry.listed = Listed::of(list, &genesis.owner);
            // Whom this home is taking off goes, whatever another copy signed meanwhile.
            let (leaving, groups) = (&entry.leaving, &entry.leaving_groups);
            entry.people.retain(|allowed| !leaving.contains(&allowed.key));
            entry.groups.retain(|allowed| !groups.contains(&allowed.id));
        }
    }

    /// Has it say whether a space was given up. If so nobody is in it.
    pub(super) fn given_up(&mut self, genesis: &Signed<Genesis>, is_given_up: bool) {
        let bytes = genesis.to_bytes();
        for space in self.spaces.iter_mut().filter(|space| space.genesis.0 == bytes) {
            space.is_given_up = is_given_up;
            if is_given_up {
                space.nobody();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use dht::{HeaderHash, Record};
    use overlay::NodeId;
    use reactor::crypto::Identity;

    use super::super::tests::{key, people};
    use super::*;
    use crate::network::Hex;

    #[test]
    fn a_space_is_given_up_by_the_owners_word_and_not_by_what_does_not_open() {
        let record = |payload: &'static [u8], writer: u8| Record {
            version: 7,
            payload: Bytes::from_static(payload),
            header_hash: HeaderHash([7; 32]),
            writer: key(writer),
        };
        let word = b"hypha: this space was given up by its owner";
        assert!(says_given_up(&record(word, 1), &key(1)));
        // A writer's; and what a newer version of this program may have written.
        assert!(!says_given_up(&record(word, 2), &key(1)) && !says_given_up(&record(b"\x04", 1), &key(1)));
        let genesis =
            Genesis::sign(&Identity::from_seed(&[1; 32]), [5; 32], vec![NodeId([1; 32])], Vec::new());
        let mut roll = Roll::default();
        let space = roll.space_or_new(&genesis, "docs");
        space.people = people(&[(2, true), (3, false)]);
        space.leaving = vec![Hex([4; 32])];
        roll.given_up(&genesis, true);
        let space = &roll.spaces[0];
        assert!(space.is_given_up && space.people.is_empty() && space.leaving.is_empty());
        roll.given_up(&genesis, false);
        assert!(!roll.spaces[0].is_given_up);
    }
}
