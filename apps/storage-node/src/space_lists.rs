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
//! Not here: what a list is (`filesystem::access::list`); how a root comes to say it (`saying`); what is learnt of other copies'
//! (`learning`), and of what the space was before (`past_lists`); what is done once a minute (`settling`), and with a space that a writer has sealed to others (`sealed`).

mod guests;
mod learning;
mod past_lists;
mod saying;
mod sealed;
mod settling;
mod turn;

use dht::RegisterAddress;
use dht::block::configuration::Configuration;
use dht::block::mutable::{Genesis, Signed};
use filesystem::access::groups::{GroupId, Person};
use filesystem::access::list::{AccessChange, AccessList, LISTED_GROUPS_MAX, TooMany};
use filesystem::access::{SpaceLink, VolumeKeys};
use filesystem::format::Shown;
use overlay::Revocations;
use reactor::crypto::PublicKey;

use crate::client_directory;
use crate::errors::Failure;
use crate::network::{Hex, Network};
use crate::roll::{Allowed, LetIn, Listed, Roll, SpaceEntry};
use crate::sharing::Sharer;
use crate::spaces;
use crate::volume;
use guests::Standing;
pub(crate) use guests::{Expanded, Guests, behind};
pub(crate) use learning::{Seal, learn, newest};
pub(crate) use past_lists::learn_past;
pub(crate) use saying::{Published, publish, put_back};
pub(crate) use sealed::{refuse_what_opens, sealed, strike_off};
pub(crate) use settling::{Settling, Unsettled, reason_of, settle, settle_one};
pub(crate) use turn::{PATIENCE, Turn};

/// What a list is to become.
#[derive(Debug, Clone)]
pub(crate) enum Wish {
    /// As the roll has it.
    AsItIs,
    /// As the roll has it, without those who only read, and without groups.
    Writers,
    /// These as well, or with other rights.
    With(Guests),
    /// These and nobody else, beside the owner.
    Exactly(Guests),
}

impl Wish {
    fn guests(&self, entry: &SpaceEntry) -> Guests {
        let known = Guests { people: entry.people.clone(), groups: entry.groups.clone() };
        match self {
            Wish::AsItIs => known,
            Wish::Writers => known.that_write(),
            Wish::Exactly(guests) => guests.clone(),
            Wish::With(more) => known.with(more),
        }
    }
}

impl SpaceEntry {
    /// The record that made its register.
    ///
    /// # Errors
    /// `Failure::Volume` if the roll is damaged there.
    pub(crate) fn genesis(&self) -> Result<Signed<Genesis>, Failure> {
        Signed::from_bytes(&self.genesis.0).map_err(|error| {
            volume::failed(format!("the roll does not say where {} is: {error}", Shown::of(&self.path)))
        })
    }

    /// Who keeps its root since it was moved last.
    ///
    /// # Errors
    /// As [`SpaceEntry::genesis`].
    pub(crate) fn configuration(&self) -> Result<Option<Signed<Configuration>>, Failure> {
        let known = self.configuration.as_ref().map(|bytes| Signed::from_bytes(&bytes.0)).transpose();
        known.map_err(|error| {
            volume::failed(format!("the roll does not say who keeps {}: {error}", Shown::of(&self.path)))
        })
    }
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
                groups: Vec::new(),
                leaving: Vec::new(),
                leaving_groups: Vec::new(),
                listed: Listed::default(),
                is_given_up: false,
            });
            self.spaces.len() - 1
        });
        &mut self.spaces[at]
    }

    /// Has it say who keeps the root of one of its spaces, if that is news.
    pub(crate) fn describe(&mut self, newest: &Signed<Configuration>) {
        if let Some(groups) = &mut self.groups
            && groups.genesis().is_ok_and(|genesis| genesis.register() == newest.register)
            && groups.configuration().ok().flatten().is_none_or(|known| known.epoch < newest.epoch)
        {
            groups.configuration = Some(Hex(newest.to_bytes()));
        }
        for space in &mut self.spaces {
            let is_it = space.genesis().is_ok_and(|genesis| genesis.register() == newest.register);
            let known = space.configuration().ok().flatten();
            if is_it && known.is_none_or(|known| known.epoch < newest.epoch) {
                space.configuration = Some(Hex(newest.to_bytes()));
            }
        }
    }

    /// Takes members and groups off a space, and has it remembered until the space's root is known to say so.
    pub(crate) fn take_off(
        &mut self,
        genesis: &Signed<Genesis>,
        path: &str,
        gone: &[Hex<[u8; 32]>],
        groups: &[GroupId],
    ) {
        let entry = self.space_or_new(genesis, path);
        entry.people.retain(|allowed| !gone.contains(&allowed.key));
        entry.groups.retain(|allowed| !groups.contains(&allowed.id));
        for id in groups {
            if !entry.leaving_groups.contains(id) {
                entry.leaving_groups.push(*id);
            }
        }
        for key in gone {
            if !entry.leaving.contains(key) {
                entry.leaving.push(key.clone());
            }
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
        Guests { people: entry.people, groups: entry.groups } = wish.guests(entry);
        entry.people.retain(|allowed| !is_revoked(&PublicKey::from_bytes(allowed.key.0)));
        entry.listed = Listed::of(list, &genesis.owner);
        // The root says so: they are off, or were let in anew.
        entry.leaving.clear();
        entry.leaving_groups.clear();
    }
}

fn last_of(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or_default()
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
            Shown::of(&space.path)
        )),
        // Directories above it may be moved. Its own name nobody changes with our programs, and mounts show it under no other.
        Some(space) if last_of(&space.path) != last_of(path) => Err(format!(
            "what is there is the space that was put at {}, and a space keeps its name: somebody who may write to the drive put it \
             there; `share {} --put-back` puts it back",
            Shown::of(&space.path),
            Shown::of(&space.path)
        )),
        _ => Ok(link.genesis().clone()),
    }
}

/// What a space's list is to be: whom it is for as far as they are members and not revoked, with the log of the list before, and under
/// a new number if it is another one.
fn next_list(
    before: &AccessList,
    guests: &Expanded,
    number: u64,
    members: &[LetIn],
    own: &AccessChange,
    is_revoked: impl Fn(&PublicKey) -> bool,
) -> Result<AccessList, TooMany> {
    let mut list = before.clone();
    let known: Vec<AccessChange> = list.present().cloned().collect();
    list.change(own.clone())?;
    for change in known.into_iter().filter(|change| change.key != own.key) {
        let standing =
            if is_revoked(&change.key) { Standing::default() } else { guests.standing(&change.key) };
        let Standing { access, own: by_name, by } = standing;
        list.change(AccessChange { access, own: by_name, by, at: own.at, ..change })?;
    }
    // Whom another machine of the owner's let in, and put into a group, this one's roll may not have.
    let is_known = |person: &&Person| members.iter().any(|member| member.public_key() == person.key);
    let grouped = guests.in_groups().iter().filter(|person| !is_known(person)).cloned();
    for person in members.iter().map(Person::from).chain(grouped).filter(|person| !is_revoked(&person.key)) {
        let Standing { access, own: by_name, by } = guests.standing(&person.key);
        let Person { key, sealing_key, name, .. } = person;
        list.change(AccessChange { key, sealing_key, name, access, own: by_name, by, at: own.at })?;
    }
    list.groups = guests.listed_groups();
    if list.groups.len() > LISTED_GROUPS_MAX {
        return Err(TooMany);
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

/// As [`distrust`], where the owner's list was taken away, on which `people` were as far as this home knows: writers of a copy of this home that is older than the last list are not
/// the register's any more. Of this home's they are: it has nobody in its roll before the register has him. And whom a list had that
/// is gone, and this home never let in, it has no key for to put on a new one.
fn distrust_without(
    people: &[Allowed],
    writers: &[PublicKey],
    members: &[LetIn],
    is_revoked: impl Fn(&PublicKey) -> bool,
) -> Option<&'static str> {
    let is_older = |allowed: &Allowed| {
        let key = PublicKey::from_bytes(allowed.key.0);
        let is_off = allowed.may_write && !writers.contains(&key);
        (is_off || members.iter().all(|member| member.key != allowed.key)) && !is_revoked(&key)
    };
    people.iter().any(is_older).then_some(
        "somebody who may write there took the owner's list away, and this copy of the home does not know the newest one: say it with \
         the copy that changed it last",
    )
}

fn keys(sharer: &Sharer<'_>, genesis: &Signed<Genesis>) -> Result<VolumeKeys, Failure> {
    let seen = client_directory::first(sharer.home.path());
    let membership = spaces::membership(genesis, Some(&seen))?;
    let register: RegisterAddress =
        sharer.store.open_register(membership).map_err(|error| volume::failed(error.to_string()))?;
    Ok(VolumeKeys { register, secret: sharer.user.identity.sealing_key(), readers: Vec::new() })
}

fn read_roll(sharer: &Sharer<'_>) -> Result<(Roll, Revocations), Failure> {
    let (home, network) = (sharer.home.clone(), sharer.network.clone());
    reactor::offload(move || Ok::<_, Failure>((Roll::read(&home)?, home.revocations(&network)?)))
}

#[cfg(test)]
mod tests;
