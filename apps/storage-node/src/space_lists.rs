//! Who may do what in each space: the roll says it, and the owner signs it into the space's root.
//!
//! Whom a command lets in the roll gets to know once the space's root says so, and whom it takes off before: so a command that is cut
//! short lets nobody in later, and takes off in the end whom it was to. The home that has the owner's key looks at each space's root
//! once a minute while `up` or `mount` runs there, and has it say what the roll says.
//!
//! The list in the root is gone on from, since it is its own log. It counts for more than the roll only if its number is higher: then
//! another copy of this home signed it. A list under a number that the roll is beyond was put back by somebody who may write there;
//! so was one whose writers are others than the register's, which nobody but the owner changes.
//!
//! Roll and root are two things, so that whoever changes or compares them takes a turn first ([`Turn`]): of the processes of one home
//! one at a time does.
//!
//! Not here: what a list is (`filesystem::access::list`); what is done once a minute (`settling`), and with a space that a writer has
//! sealed to others (`sealed`).

mod sealed;
mod settling;
mod turn;

use std::cell::RefCell;

use dht::block::configuration::Configuration;
use dht::block::mutable::{Genesis, Signed};
use dht::{BlockStore, RegisterAddress};
use filesystem::access::list::{Access, AccessChange, AccessList, Found, TooMany};
use filesystem::access::sharing::{SharingError, change_readers};
use filesystem::access::{Charter, RootError, SpaceLink, VolumeKeys, open_root};
use overlay::Revocations;
use reactor::crypto::PublicKey;

use crate::admitting::now;
use crate::author;
use crate::client_directory;
use crate::errors::Failure;
use crate::network::{Hex, Network};
use crate::output;
use crate::roll::{Allowed, LetIn, Roll, SpaceEntry};
use crate::sharing::Sharer;
use crate::spaces;
use crate::volume;
pub(crate) use sealed::strike_off;
pub(crate) use settling::{Unsettled, settle};
pub(crate) use turn::Turn;

/// Why nothing can be changed there.
const SEALED: &str = "one of its writers has sealed it to others than its owner (`unshare --give-up` has the nodes take nothing more of \
                      who is off its list, after which nobody opens it any more)";

/// What a list is to become.
#[derive(Debug, Clone)]
pub(crate) enum Wish {
    /// As the roll has it.
    AsItIs,
    /// These as well, or with other rights.
    With(Vec<Allowed>),
    /// These and nobody else, beside the owner.
    Exactly(Vec<Allowed>),
}

impl Wish {
    fn people(&self, entry: &SpaceEntry) -> Vec<Allowed> {
        match self {
            Wish::AsItIs => entry.people.clone(),
            Wish::Exactly(people) => people.clone(),
            Wish::With(more) => {
                let stays = |known: &&Allowed| more.iter().all(|new| new.key != known.key);
                entry.people.iter().filter(stays).chain(more).cloned().collect()
            }
        }
    }
}

impl SpaceEntry {
    /// The record that made its register.
    ///
    /// # Errors
    /// `Failure::Volume` if the roll is damaged there.
    pub(crate) fn genesis(&self) -> Result<Signed<Genesis>, Failure> {
        Signed::from_bytes(&self.genesis.0)
            .map_err(|error| volume::failed(format!("the roll does not say where {} is: {error}", self.path)))
    }

    /// Who keeps its root since it was moved last.
    ///
    /// # Errors
    /// As [`SpaceEntry::genesis`].
    pub(crate) fn configuration(&self) -> Result<Option<Signed<Configuration>>, Failure> {
        let known = self.configuration.as_ref().map(|bytes| Signed::from_bytes(&bytes.0)).transpose();
        known.map_err(|error| {
            volume::failed(format!("the roll does not say who keeps {}: {error}", self.path))
        })
    }
}

fn access_of(people: &[Allowed], key: &PublicKey) -> Access {
    match people.iter().find(|allowed| allowed.key.0 == *key.as_bytes()) {
        None => Access::None,
        Some(allowed) if allowed.may_write => Access::Write,
        Some(_) => Access::Read,
    }
}

fn people_of(list: &AccessList, owner: &PublicKey) -> Vec<Allowed> {
    let others = list.present().filter(|change| change.key != *owner);
    let allowed = |change: &AccessChange| Allowed {
        key: Hex(*change.key.as_bytes()),
        may_write: change.access == Access::Write,
    };
    others.map(allowed).collect()
}

impl Roll {
    /// The entry of the space that `genesis` made; a new one for `path` if there is none.
    pub(crate) fn space_or_new(&mut self, genesis: &Signed<Genesis>, path: &str) -> &mut SpaceEntry {
        let bytes = genesis.to_bytes();
        let known = self.spaces.iter().position(|space| space.genesis.0 == bytes);
        let at = known.unwrap_or_else(|| {
            self.spaces.push(SpaceEntry {
                genesis: Hex(bytes),
                path: path.into(),
                is_linked: false,
                configuration: None,
                number: 0,
                people: Vec::new(),
            });
            self.spaces.len() - 1
        });
        &mut self.spaces[at]
    }

    /// Has it say who keeps the root of one of its spaces, if that is news.
    pub(crate) fn describe(&mut self, newest: &Signed<Configuration>) {
        for space in &mut self.spaces {
            let is_it = space.genesis().is_ok_and(|genesis| genesis.register() == newest.register);
            let known = space.configuration().ok().flatten();
            if is_it && known.is_none_or(|known| known.epoch < newest.epoch) {
                space.configuration = Some(Hex(newest.to_bytes()));
            }
        }
    }

    /// Takes over what a list says that another copy of this home signed, if that is newer than what this roll knows.
    fn learn(&mut self, genesis: &Signed<Genesis>, list: &AccessList) {
        let bytes = genesis.to_bytes();
        // A link led to a space that this home did not have. Of one that it has, a list does not say that its link was put: its making may
        // have been cut short between the two.
        let is_found = self.spaces.iter().all(|space| space.genesis.0 != bytes);
        let entry = self.space_or_new(genesis, &list.path);
        entry.is_linked |= is_found;
        if list.number > entry.number {
            (entry.number, entry.people) = (list.number, people_of(list, &genesis.owner));
        }
    }

    /// Has it say what a list of this home's says that is in the space's root, which was made by a wish.
    fn published(
        &mut self,
        genesis: &Signed<Genesis>,
        list: &AccessList,
        wish: &Wish,
        is_revoked: impl Fn(&PublicKey) -> bool,
    ) {
        let entry = self.space_or_new(genesis, &list.path);
        entry.number = entry.number.max(list.number);
        entry.people = wish.people(entry);
        entry.people.retain(|allowed| !is_revoked(&PublicKey::from_bytes(allowed.key.0)));
    }
}

/// Which space a link at `path` leads to, by what this home knows: the drive's writers can put any link anywhere.
///
/// # Errors
/// Why it is not to be gone by.
pub(crate) fn led_to(
    link: &[u8],
    path: &str,
    is_moved: bool,
    roll: &Roll,
    network: &Network,
) -> Result<Signed<Genesis>, String> {
    let link = SpaceLink::decode(link, &network.volume_owner())
        .filter(|link| link.genesis().salt != network.volume_salt.0)
        .ok_or("what is there leads to no space of this drive's: somebody who may write to the drive put it there")?;
    let bytes = link.genesis().to_bytes();
    match roll.spaces.iter().find(|space| space.genesis.0 == bytes) {
        Some(space) if space.path != path && !is_moved => Err(format!(
            "what is there is the space that was put at {}: if you moved that, say so with --moved; if not, somebody who may \
             write to the drive did",
            space.path
        )),
        _ => Ok(link.genesis().clone()),
    }
}

/// What a space's list is to be: `people` as far as they are members and not revoked, with the log of the list before, and under a
/// new number if it is another one.
fn next_list(
    before: &AccessList,
    people: &[Allowed],
    number: u64,
    members: &[LetIn],
    own: &AccessChange,
    is_revoked: impl Fn(&PublicKey) -> bool,
) -> Result<AccessList, TooMany> {
    let mut list = before.clone();
    let known: Vec<AccessChange> = list.present().cloned().collect();
    list.change(own.clone())?;
    for change in known.into_iter().filter(|change| change.key != own.key) {
        let access = if is_revoked(&change.key) { Access::None } else { access_of(people, &change.key) };
        list.change(AccessChange { access, at: own.at, ..change })?;
    }
    for member in members.iter().filter(|member| !is_revoked(&member.public_key())) {
        let (key, Hex(sealing_key)) = (member.public_key(), &member.sealing_key);
        let access = access_of(people, &key);
        let (sealing_key, name) = (*sealing_key, member.name.clone());
        list.change(AccessChange { key, sealing_key, name, access, at: own.at })?;
    }
    // Whoever put an older list back does not bring its number back, and none is used twice.
    if list != *before || before.number < number {
        list.number = before.number.max(number) + 1;
    }
    Ok(list)
}

/// Why the list in a root is not to be gone on from, though it is the owner's word.
fn distrust(
    before: &AccessList,
    number: u64,
    owner: &PublicKey,
    writers: &[PublicKey],
) -> Option<&'static str> {
    let is_of_register = {
        let listed = before.writers(owner);
        listed.len() == writers.len() && listed.iter().all(|key| writers.contains(key))
    };
    match before.number {
        newer if newer > number => Some("another copy of this home has just changed its list: say it again"),
        same if same == number && number > 0 && !is_of_register => Some(
            "somebody who may write there put an older list back, and this copy of the home does not know the newer one: say it with \
             the copy that changed it last",
        ),
        _ => None,
    }
}

/// As [`distrust`], where the owner's list was taken away: writers of a copy of this home that is older than the last list are not
/// the register's any more. Of this home's they are: it has nobody in its roll before the register has him.
fn distrust_without(
    people: &[Allowed],
    writers: &[PublicKey],
    is_revoked: impl Fn(&PublicKey) -> bool,
) -> Option<&'static str> {
    let mut listed = people.iter().filter(|allowed| allowed.may_write);
    let is_off = |key: PublicKey| !writers.contains(&key) && !is_revoked(&key);
    listed.any(|allowed| is_off(PublicKey::from_bytes(allowed.key.0))).then_some(
        "somebody who may write there took the owner's list away, and this copy of the home does not know the newest one: say it with \
         the copy that changed it last",
    )
}

/// What a space's root says now.
#[derive(Debug)]
pub(crate) struct Published {
    pub(crate) list: AccessList,
    /// What it did not say before.
    pub(crate) changed: Vec<AccessChange>,
}

/// Has a space's root say what is wished, under a new key if that is another list than it has.
///
/// # Errors
/// `Failure::Sharing`, or those of the home's files. Then the roll has what it had.
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
    let keys = keys(sharer, genesis)?;
    let (register, owner) = (keys.register, genesis.owner);
    let signed = RefCell::new(None::<(AccessList, usize)>);
    // Asked after the root was read and before it is swapped, as for the drive.
    let read = |charter: &mut Charter| {
        let (roll, kept) = read_roll(sharer).map_err(|failure| failure.to_string())?;
        let bytes = genesis.to_bytes();
        let entry = roll.spaces.iter().find(|space| space.genesis.0 == bytes);
        let entry = entry.ok_or("the roll of this home does not have the space")?;
        let writers = sharer.store.writers(&register).map_err(|error| error.to_string())?;
        let is_revoked = |key: &PublicKey| kept.contains(key) || revoked.contains(key);
        let found = charter.access_list(&owner, &register);
        if !matches!(found, Found::List(_))
            && let Some(reason) = distrust_without(&entry.people, &writers, is_revoked)
        {
            return Err(reason.into());
        }
        let before = match found {
            Found::List(list) => {
                if let Some(reason) = distrust(&list, entry.number, &owner, &writers) {
                    return Err(reason.into());
                }
                (*list).clone()
            }
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
            sealing_key: *keys.secret.public().as_bytes(),
            name: filesystem::format::printable(&author::author()),
            access: Access::Write,
            at: now(),
        };
        let people = wish.people(entry);
        let list = next_list(&before, &people, entry.number, &roll.members, &own, is_revoked)
            .map_err(|error| error.to_string())?;
        let listed = list.writers(&owner);
        let is_said = list == before
            && charter.readers.len() == list.readers().len()
            && list.readers().iter().all(|reader| charter.readers.contains(reader))
            && listed.len() == writers.len()
            && listed.iter().all(|key| writers.contains(key));
        // A swap that let somebody in who is revoked by now may be undecided yet: a newer value decides it.
        let anyway = !is_said || list.changes.iter().any(|change| revoked.contains(&change.key));
        if anyway {
            charter.set_access_list(&Signed::sign(&sharer.user.identity, list.clone()));
        }
        let new = list.changes.iter().filter(|change| !before.changes.contains(change)).count();
        signed.replace(Some((list, new)));
        Ok(anyway)
    };
    let write = |writers: &mut Vec<PublicKey>| {
        if let Some((list, _)) = &*signed.borrow() {
            writers.clone_from(&list.writers(&owner));
        }
    };
    let swap =
        |expected, payload| sharer.store.swap_with_writers(&register, Some(expected), &payload, &write);
    change_readers(sharer.store, &keys, &author::author(), &read, &swap).map_err(|error| {
        let reason = match error {
            SharingError::Root(RootError::NotAReader) => SEALED.into(),
            other => other.to_string(),
        };
        Failure::Sharing { reason }
    })?;
    let signed = signed.into_inner();
    let (list, new) = signed.ok_or_else(|| Failure::Internal("a root was written unread".into()))?;
    let changed = list.changes[list.changes.len() - new..].to_vec();
    Roll::change(sharer.home, |roll| {
        let kept = sharer.home.revocations(sharer.network)?;
        roll.published(genesis, &list, wish, |key| kept.contains(key) || revoked.contains(key));
        Ok(())
    })?;
    Ok(Published { list, changed })
}

fn keys(sharer: &Sharer<'_>, genesis: &Signed<Genesis>) -> Result<VolumeKeys, Failure> {
    let seen = client_directory::first(sharer.home.path());
    let membership = spaces::membership(genesis, Some(&seen))?;
    let register: RegisterAddress =
        sharer.store.open_register(membership).map_err(|error| volume::failed(error.to_string()))?;
    Ok(VolumeKeys { register, secret: sharer.user.identity.sealing_key(), readers: Vec::new() })
}

/// To whom a space's root is sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Seal {
    /// It opens here.
    Ours,
    /// It does not, whatever the owner's list said.
    Others,
}

/// Takes over what another copy of this home signed for a space, if that is newer than what the roll knows. Before the roll is
/// changed: whom another copy let in, this one does not take off by that it knows nothing of it. Says whether its root opens here:
/// its writers can seal it to others.
///
/// # Errors
/// `Failure::Sharing` if the space's root can't be read, or if this home does not have the space and its root has no list of the
/// owner's, which every space has; or those of the home's files.
///
/// # Suspends
/// While it is read.
pub(crate) fn learn(sharer: &Sharer<'_>, _: &Turn, genesis: &Signed<Genesis>) -> Result<Seal, Failure> {
    let keys = keys(sharer, genesis)?;
    let failed = |reason: String| Failure::Sharing { reason };
    let record = sharer.store.read(&keys.register).map_err(|error| failed(error.to_string()))?;
    let root = record.map(|record| open_root(&record.payload, record.version, &keys.secret)).transpose();
    let (found, seal) = match root {
        Ok(root) => (root.map(|root| root.charter.access_list(&genesis.owner, &keys.register)), Seal::Ours),
        Err(RootError::NotAReader) => (None, Seal::Others),
        Err(error) => return Err(failed(error.to_string())),
    };
    let bytes = genesis.to_bytes();
    match found {
        Some(Found::List(list)) => Roll::change(sharer.home, |roll| {
            roll.learn(genesis, &list);
            Ok(seal)
        }),
        _ if read_roll(sharer)?.0.spaces.iter().any(|space| space.genesis.0 == bytes) => Ok(seal),
        _ => Err(failed("this home does not have the space, and it has no list of its owner's".into())),
    }
}

fn read_roll(sharer: &Sharer<'_>) -> Result<(Roll, Revocations), Failure> {
    let (home, network) = (sharer.home.clone(), sharer.network.clone());
    reactor::offload(move || Ok::<_, Failure>((Roll::read(&home)?, home.revocations(&network)?)))
}

#[cfg(test)]
mod tests;
