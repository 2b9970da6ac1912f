//! Whom a command means who says names, or the first digits of ids.
//!
//! Not here: who is a member (`members`).

use std::collections::BTreeMap;

use dht::block::mutable::{Genesis, Signed};
use filesystem::access::groups::{GroupId, Groups};
use filesystem::access::list::{AccessChange, AccessList};
use overlay::invitation::InvitedAs;
use overlay::{NodeId, Revocations};
use reactor::crypto::PublicKey;

use super::refused;
use crate::cli::Share;
use crate::errors::Failure;
use crate::groups;
use crate::home::Home;
use crate::members::{Subject, resolve};
use crate::network::{Hex, Network};
use crate::roll::{Allowed, AllowedGroup, LetIn, Roll};
use crate::sharing::Sharer;
use crate::space_lists::{self, Guests, Published, Turn, Wish};

/// Fewer digits are too easily somebody else's.
const NAMING_DIGITS_MIN: usize = 4;

/// Whom the options name: groups, and members, who must be such as may do what they are to do.
pub(super) fn guests(
    options: &Share,
    groups: &Groups,
    home: &Home,
    network: &Network,
) -> Result<Guests, Failure> {
    let (roll, revoked) = (Roll::read(home)?, home.revocations(network)?);
    let readers = options.read.iter().map(|who| (who, false));
    let writers = options.write.iter().map(|who| (who, true));
    let Guests { mut people, groups: mut with } = Guests::default();
    for (who, may_write) in readers.chain(writers) {
        if let Some(id) = groups::named(who, groups, home, network)? {
            with.retain(|known: &AllowedGroup| known.id != id);
            with.push(AllowedGroup { id, may_write });
            continue;
        }
        let none = |reason: &str| Failure::NoMember { who: who.clone(), reason: reason.into() };
        let member: LetIn = match resolve(who, &roll, home, network)? {
            Subject::Member(member) if member.role != InvitedAs::Node => member,
            _ => return Err(none("a space is shared with members who read or write the drive")),
        };
        if revoked.contains(&member.public_key()) {
            return Err(none("it was removed"));
        }
        if may_write && member.role != InvitedAs::Writer {
            return Err(none(
                "it joined as a reader, whom the nodes let write nothing; a new ticket makes it a writer",
            ));
        }
        people.retain(|known| known.key != member.key);
        people.push(Allowed { key: member.key, may_write });
    }
    Ok(Guests { people, groups: with })
}

/// How often another machine of the owner's may change the groups before it is given up.
const TRIES: usize = 4;

/// Has a space's root say what is wished. The groups say before that the space names them, so that whoever changes one has it say so
/// here as well; and they are looked at after, since another machine may have changed one without having seen this list.
///
/// # Errors
/// As `space_lists::publish`, and those of the groups.
///
/// # Suspends
/// As there.
pub(super) fn publish(
    sharer: &Sharer<'_>,
    turn: &Turn,
    genesis: &Signed<Genesis>,
    path: &str,
    wish: &Wish,
) -> Result<Published, Failure> {
    let ids: Vec<GroupId> = match wish {
        Wish::With(guests) | Wish::Exactly(guests) => guests.groups.iter().map(|group| group.id).collect(),
        Wish::AsItIs | Wish::Writers => Vec::new(),
    };
    let say = || space_lists::publish(sharer, turn, genesis, wish, &Revocations::default());
    if ids.is_empty() {
        return say();
    }
    let mut groups = groups::note(sharer, turn, genesis, path, &ids)?;
    let mut changed: Vec<AccessChange> = Vec::new();
    for _ in 0..TRIES {
        let published = say()?;
        // Of whom it was said twice the last counts.
        let is_old = |old: &AccessChange| published.changed.iter().all(|new| new.key != old.key);
        changed.retain(is_old);
        changed.extend(published.changed);
        let now = groups::note(sharer, turn, genesis, path, &ids)?;
        if now == groups {
            return Ok(Published { changed, ..published });
        }
        groups = now;
    }
    Err(refused("another machine of yours changes the groups all the time", "say it again"))
}

/// Who is taken off a space.
#[derive(Debug, Default)]
pub(super) struct Gone {
    pub(super) people: Vec<Hex<[u8; 32]>>,
    pub(super) groups: Vec<GroupId>,
}

/// Those whom `from` names, or all but the owner: of the list, and of the roll, which may have somebody whom no list has yet. Who is on it
/// by a group that stays is not taken off by his name.
pub(super) fn whom(
    from: &[String],
    list: Option<&AccessList>,
    roll: &Roll,
    genesis: &Signed<Genesis>,
) -> Result<Gone, Failure> {
    let groups = roll.groups_known()?;
    let mut known: Vec<(Hex<[u8; 32]>, String)> = Vec::new();
    let listed = list.into_iter().flat_map(AccessList::present).filter(|change| change.key != genesis.owner);
    known.extend(listed.map(|change| (Hex(*change.key.as_bytes()), change.name.clone())));
    let bytes = genesis.to_bytes();
    let space = roll.spaces.iter().find(|space| space.genesis.0 == bytes);
    for allowed in space.into_iter().flat_map(|space| &space.people) {
        if known.iter().all(|(key, _)| *key != allowed.key) {
            let member = roll.members.iter().find(|member| member.key == allowed.key);
            known.push((allowed.key.clone(), member.map_or(String::new(), |member| member.name.clone())));
        }
    }
    let of_list = list.into_iter().flat_map(|list| &list.groups).map(|group| (group.id, group.name.clone()));
    let mut with: BTreeMap<GroupId, String> = of_list.collect();
    for allowed in space.into_iter().flat_map(|space| &space.groups) {
        with.extend(groups.get(allowed.id).map(|group| (group.id, group.name.clone())));
    }
    if from.is_empty() {
        let people = known.into_iter().map(|(key, _)| key).collect();
        return Ok(Gone { people, groups: with.into_keys().collect() });
    }
    let mut gone = Gone::default();
    for who in from {
        let is_member = known.iter().any(|(_, name)| name == who);
        let is_it = |(_, name): &(&GroupId, &String)| {
            *name == who && !is_member || who.strip_prefix(groups::PREFIX) == Some(name)
        };
        if let Some((id, _)) = with.iter().find(is_it) {
            gone.groups.push(*id);
            continue;
        }
        if who.starts_with(groups::PREFIX) {
            return Err(refused(
                format!("{who:?}: no such group is on it"),
                "`storage-node access DIR` lists them",
            ));
        }
        let digits = who.to_ascii_lowercase();
        let is_it = |(key, name): &&(Hex<[u8; 32]>, String)| {
            let id = NodeId::of(&PublicKey::from_bytes(key.0)).to_string();
            let is_named = id.starts_with(&digits) || key.to_string().starts_with(&digits);
            name == who || digits.len() >= NAMING_DIGITS_MIN && is_named
        };
        let none =
            |reason: &str| refused(format!("{who:?}: {reason}"), "`storage-node access DIR` lists them");
        match known.iter().filter(is_it).collect::<Vec<_>>()[..] {
            [(key, _)] => gone.people.push(key.clone()),
            [] => return Err(none("nobody on the list has that name, and no id begins so")),
            _ => return Err(none("several on the list are called so: give the first digits of one of them")),
        }
    }
    let staying = with.iter().filter(|(id, _)| !gone.groups.contains(id));
    for (id, name) in staying {
        let people = groups.people_of(*id);
        let is_in = |key: &&Hex<[u8; 32]>| people.contains(&PublicKey::from_bytes(key.0));
        if let Some(key) = gone.people.iter().find(is_in) {
            let who = known.iter().find(|(known, _)| known == key).map_or("", |(_, who)| who);
            return Err(refused(
                format!("{who} is on it by the group {name}, and would be on it still"),
                "`group remove GROUP WHO` takes him off all that the group is on, `unshare DIR --from GROUP` the whole group off this",
            ));
        }
    }
    Ok(gone)
}
