//! Having a space's root say who may do what: the root that it has, or one with a tree that it had.
//!
//! **Who goes back to an earlier tree goes back to nobody's rights.** The list is that of the newest root, if that opens, and it is the
//! roll that says who is on it. Where a writer has sealed the newest root, or put anything in its place, the list of then is gone on
//! from as a log, and the register's writers, whom nobody but the owner changes, show whether this home's roll is the newest as far as
//! they go. Whether it is for those who only read, the past may tell (`past_lists`); where it does not, none of them comes back.

use std::cell::Cell;

use bytes::Bytes;
use dht::block::mutable::{Genesis, Signed};
use dht::{HeaderHash, Record, SwapError};
use filesystem::access::groups::Groups;
use filesystem::access::list::{Access, AccessChange, AccessList, Found};
use filesystem::access::sharing::{self, SharingError, change_readers};
use filesystem::access::{Charter, Root, VolumeKeys};
use overlay::Revocations;
use reactor::cell::RefCell;
use reactor::crypto::PublicKey;

use super::sealed::says_given_up;
use super::{
    Expanded, Turn, Wish, behind, distrust, distrust_without, keys, next_list, read_roll, reason_of, sealed,
};
use crate::admitting::now;
use crate::author;
use crate::errors::Failure;
use crate::groups;
use crate::output;
use crate::roll::{Allowed, Listed, Roll, SpaceEntry};
use crate::sharing::Sharer;

/// What a space's root says now.
#[derive(Debug)]
pub(crate) struct Published {
    pub(crate) list: AccessList,
    /// What it did not say before.
    pub(crate) changed: Vec<AccessChange>,
    /// It is not known whether this home knew the newest list, and nobody is in it who only reads, or by a group.
    pub(crate) is_without_readers: bool,
}

/// Has a space's root say what is wished, under a new key if that is another list than it has.
///
/// # Errors
/// `Failure::Sharing`, `Failure::Space` if it does not open here, or those of the home's files. Then the roll has what it had.
///
/// # Suspends
/// Until the space's root says so.
pub(crate) fn publish(
    sharer: &Sharer<'_>,
    _: &Turn,
    genesis: &Signed<Genesis>,
    wish: &Wish,
    revoked: &Revocations,
) -> Result<Published, Failure> {
    let saying = Saying::new(sharer, genesis, wish, revoked)?;
    let read = |charter: &mut Charter| saying.say(charter, true);
    let swap = |expected, payload| saying.swap(expected, &payload);
    change_readers(sharer.store, &saying.keys, &author::author(), &read, &swap).map_err(failed)?;
    saying.end()
}

/// Puts the tree of `past` in the place of the newest one, with the list that is in force, as the roll has it. `keep` is shown what is
/// about to be replaced. A space that was given up is none any more then; nobody but the owner is in it. Where the newest root does not
/// open, nobody comes back who only reads, unless there is no newer list than this home's up to the newest root, `known_up_to` which
/// version that is known.
///
/// # Errors
/// As [`publish`], save that the newest root need not open; or why `keep` failed.
///
/// # Suspends
/// Until the space's root says so.
pub(crate) fn put_back(
    sharer: &Sharer<'_>,
    _: &Turn,
    genesis: &Signed<Genesis>,
    past: &Root,
    known_up_to: Option<u64>,
    keep: &dyn Fn(&Record) -> Result<(), Failure>,
    revoked: &Revocations,
) -> Result<Published, Failure> {
    let wish = Wish::AsItIs;
    let saying = Saying::new(sharer, genesis, &wish, revoked)?;
    // Another copy of this home may have signed it, and this one has missed it.
    if let Found::List(list) = past.charter.access_list(&genesis.owner, &saying.keys.register) {
        Roll::change(sharer.home, |roll| {
            roll.learn(genesis, &list);
            Ok(())
        })?;
    }
    let keep = |newest: &Record| {
        let is_known = known_up_to == Some(newest.version) || says_given_up(newest, &genesis.owner);
        saying.unsure.set((!is_known).then_some(newest.version + 1));
        keep(newest).map_err(|failure| failure.to_string())
    };
    let read = |charter: &mut Charter, newest: Option<&Charter>| {
        if let Some(newest) = newest {
            charter.take_access_of(newest);
            saying.unsure.set(None);
        }
        saying.say(charter, newest.is_some()).map(drop)
    };
    let swap = |expected, payload| saying.swap(expected, &payload);
    sharing::put_back(sharer.store, &saying.keys, &author::author(), past, &keep, &read, &swap)
        .map_err(failed)?;
    let published = saying.end()?;
    Roll::change(sharer.home, |roll| {
        roll.given_up(genesis, false);
        Ok(())
    })?;
    Ok(published)
}

fn failed(error: SharingError) -> Failure {
    match error {
        SharingError::Root(error) => sealed(&error),
        SharingError::Undecided(reason) => {
            Failure::Space { reason, advice: "nothing was changed; `access` says who may do what" }
        }
        other => Failure::Sharing { reason: other.to_string() },
    }
}

/// Who was on the newest list that this home knows, and is to be. Whom it is taking off, or just did, tells nothing of its roll's age;
/// nor does who is to come.
fn known_on_it(entry: &SpaceEntry, groups: &Groups) -> Vec<Allowed> {
    let listed = match entry.listed == Listed::default() {
        // Of a version of this program that did not remember it.
        true => &entry.people,
        false => &entry.listed.people,
    };
    let guests = Expanded::of(&Wish::AsItIs.guests(entry), groups);
    let on_it = |allowed: &Allowed| {
        let access = guests.standing(&PublicKey::from_bytes(allowed.key.0)).access;
        let may_write = allowed.may_write && access == Access::Write;
        (access != Access::None).then(|| Allowed { key: allowed.key.clone(), may_write })
    };
    listed.iter().filter_map(on_it).collect()
}

/// A list on its way into a root.
struct Saying<'a> {
    sharer: &'a Sharer<'a>,
    genesis: &'a Signed<Genesis>,
    wish: &'a Wish,
    revoked: &'a Revocations,
    keys: VolumeKeys,
    /// The list that was signed last, and what it did not say before.
    signed: RefCell<Option<(AccessList, Vec<AccessChange>)>>,
    /// The version of the value to come, if it is not known whether this home knows the newest list.
    unsure: Cell<Option<u64>>,
    /// Where the space is, if its root was sealed to somebody who is on no list.
    planted: RefCell<Option<String>>,
}

impl<'a> Saying<'a> {
    fn new(
        sharer: &'a Sharer<'a>,
        genesis: &'a Signed<Genesis>,
        wish: &'a Wish,
        revoked: &'a Revocations,
    ) -> Result<Saying<'a>, Failure> {
        let keys = keys(sharer, genesis)?;
        let (signed, planted) = (RefCell::default(), RefCell::default());
        Ok(Saying { sharer, genesis, wish, revoked, keys, signed, unsure: Cell::default(), planted })
    }

    fn wish(&self) -> &Wish {
        if self.unsure.get().is_some() { &Wish::Writers } else { self.wish }
    }

    /// Has `charter` say it; whether that changes anything, or has to be written all the same. `is_newest` if the list in it is that of
    /// the newest root. Asked after that was read and before it is swapped, as for the drive.
    fn say(&self, charter: &mut Charter, is_newest: bool) -> Result<bool, String> {
        let (register, owner) = (self.keys.register, self.genesis.owner);
        let found = charter.access_list(&owner, &register);
        let bytes = self.genesis.to_bytes();
        let (mut roll, mut kept) = read_roll(self.sharer).map_err(|failure| failure.to_string())?;
        let has_groups =
            |space: &SpaceEntry| space.genesis.0 == bytes && !self.wish().guests(space).groups.is_empty();
        if !matches!(found, Found::List(_)) && roll.spaces.iter().any(has_groups) {
            // What the list of then said of them nobody knows.
            groups::learn(self.sharer).map_err(|failure| {
                format!(
                    "its list is gone, and who is in its groups can't be looked at: {}",
                    reason_of(&failure)
                )
            })?;
            (roll, kept) = read_roll(self.sharer).map_err(|failure| failure.to_string())?;
        }
        let entry = roll.spaces.iter().find(|space| space.genesis.0 == bytes);
        let entry = entry.ok_or("the roll of this home does not have the space")?;
        let writers = self.sharer.store.writers(&register).map_err(|error| error.to_string())?;
        let is_revoked = |key: &PublicKey| kept.contains(key) || self.revoked.contains(key);
        let groups = roll.groups_known().map_err(|failure| failure.to_string())?;
        let known = known_on_it(entry, &groups);
        if !(is_newest && matches!(found, Found::List(_)))
            && let Some(reason) = distrust_without(&known, &writers, &roll.members, is_revoked)
        {
            return Err(reason.into());
        }
        let before = match found {
            Found::List(list) if is_newest => {
                if let Some(reason) = distrust(&list, entry.number, &owner, &writers) {
                    return Err(reason.into());
                }
                let known = list.readers();
                let is_planted = charter.readers.iter().any(|reader| !known.contains(reader));
                self.planted.replace(is_planted.then(|| entry.path.clone()));
                (*list).clone()
            }
            // Its log is gone on from; who is on it the roll says.
            Found::List(list) => (*list).clone(),
            Found::Nothing => AccessList::new(register, &entry.path),
            Found::Forged => {
                output::warn(format_args!(
                    "the list of {} was not this owner's: somebody who may write there changed it; its log begins anew",
                    entry.path
                ));
                AccessList::new(register, &entry.path)
            }
        };
        let own = AccessChange {
            key: owner,
            sealing_key: *self.keys.secret.public().as_bytes(),
            name: filesystem::format::printable(&author::author()),
            access: Access::Write,
            own: Access::Write,
            by: Vec::new(),
            at: now(),
        };
        let wished = self.wish().guests(entry);
        let of_before = before.groups.iter().map(|group| (group.id, group.epoch));
        if let Some(id) = behind(&wished, of_before.chain(roll.groups_listed()), &groups) {
            let listed = before.groups.iter().find(|group| group.id == id).map(|group| group.name.as_str());
            let name = groups.get(id).map(|group| group.name.as_str()).or(listed);
            return Err(format!(
                "this home has not heard of the newest state of the group {}, as the list of a space has it: another machine of the owner's \
                 changed it",
                name.unwrap_or("on it")
            ));
        }
        let guests = Expanded::of(&wished, &groups);
        let mut list = next_list(&before, &guests, entry.number, &roll.members, &own, is_revoked)
            .map_err(|error| error.to_string())?;
        // Or may do more.
        let is_let_in_by_a_group = |change: &AccessChange| {
            let may_already = |there: &AccessChange| there.key == change.key && there.access >= change.access;
            !change.by.is_empty() && !before.present().any(may_already)
        };
        if list.present().any(is_let_in_by_a_group) {
            // By groups that the drive's root does not name another home may have him out of: it would be said nowhere here.
            groups::agree(self.sharer).map_err(|failure| {
                format!(
                    "somebody would be let in by a group, and which groups are in force is not known: {}",
                    reason_of(&failure)
                )
            })?;
        }
        if entry.is_given_up {
            // By its number other copies of the home know that it is given up no more.
            list.number = list.number.max(entry.number + 1);
        }
        // Other copies of the home may have given the next ones away.
        list.number = list.number.max(self.unsure.get().unwrap_or_default());
        let listed = list.writers(&owner);
        let is_said = list == before
            && charter.readers.len() == list.readers().len()
            && list.readers().iter().all(|reader| charter.readers.contains(reader))
            && listed.len() == writers.len()
            && listed.iter().all(|key| writers.contains(key));
        // A swap that let somebody in who is revoked by now may be undecided yet: a newer value decides it.
        let anyway = !is_said || list.changes.iter().any(|change| self.revoked.contains(&change.key));
        if anyway {
            charter.set_access_list(&Signed::sign(&self.sharer.user.identity, list.clone()));
        }
        let changed = list.changed_since(&before);
        self.signed.replace(Some((list, changed)));
        Ok(anyway)
    }

    fn swap(&self, expected: HeaderHash, payload: &Bytes) -> Result<Record, SwapError> {
        let write = |writers: &mut Vec<PublicKey>| {
            if let Some((list, _)) = &*self.signed.borrow() {
                writers.clone_from(&list.writers(&self.genesis.owner));
            }
        };
        self.sharer.store.swap_with_writers(&self.keys.register, Some(expected), payload, &write)
    }

    /// Has the roll say what the root says.
    fn end(self) -> Result<Published, Failure> {
        if let Some(path) = self.planted.take() {
            output::warn(format_args!(
                "one of its writers had sealed {path} to somebody whom you did not let in: it has a new key now, which is not"
            ));
        }
        let signed = self.signed.take();
        let (list, changed) = signed.ok_or_else(|| Failure::Internal("a root was written unread".into()))?;
        let (wish, is_without_readers) = (self.wish(), self.unsure.get().is_some());
        let Saying { sharer, genesis, revoked, .. } = self;
        Roll::change(sharer.home, |roll| {
            let kept = sharer.home.revocations(sharer.network)?;
            roll.published(genesis, &list, wish, |key| kept.contains(key) || revoked.contains(key));
            Ok(())
        })?;
        Ok(Published { list, changed, is_without_readers })
    }
}
