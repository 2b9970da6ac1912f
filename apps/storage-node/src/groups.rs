//! `group`: members under one name, and spaces that are shared with whoever is in it.
//!
//! A change is made in two steps. The first is one swap in the groups' register: from then on it is so, whatever becomes of this
//! process, and `up` or `mount` of any home of the owner's that knows the space goes on with it. The second has each space's root
//! whose list names the group say it, under a new key. Said again after a crash, the command changes nothing, and goes on with the
//! second step. It succeeds only when that is done everywhere.
//!
//! Not here: what groups are (`filesystem::access::groups`), and how a list is made of them (`space_lists`).

mod bringing;
mod entry;
mod register;
mod restoring;
mod showing;

use std::collections::{BTreeMap, BTreeSet};

use dht::RegisterAddress;
use filesystem::access::groups::{self, GroupId, Groups, GroupsError, InGroup, Person};
use filesystem::access::list::PEOPLE_MAX;
use filesystem::format::printable_path;
use overlay::NodeId;
use overlay::invitation::InvitedAs;
use reactor::crypto::PublicKey;

use crate::cli::{self, GroupAction};
use crate::client::{Client, Settings};
use crate::errors::Failure;
use crate::home::Home;
use crate::identity::Member;
use crate::keeping;
use crate::member_name;
use crate::members::{Subject, look_up, resolve};
use crate::network::{Hex, Network, Role};
use crate::output::{say, warn};
use crate::process;
use crate::roll::{LetIn, Roll, SpaceEntry};
use crate::sharing::Sharer;
use crate::space_lists::{Expanded, Guests, Turn};
pub(crate) use register::{agree, find, forget, learn, look, note, note_spaces, unnote};
use register::{change, refused, take_out};

/// What their register is called.
pub(crate) const WHAT: &str = "the register of the groups";
/// Whoever says it before a name means a group, also if a member is called so.
pub(crate) const PREFIX: &str = "group:";
/// Fewer digits are too easily somebody else's.
const NAMING_DIGITS_MIN: usize = 4;

/// Runs the command.
///
/// # Errors
/// `Failure::Group`, `Failure::NoMember`, or those of the home's files.
pub(crate) fn group(options: &cli::Group) -> Result<(), Failure> {
    let home = Home::locate(options.home().home.as_deref())?;
    let network = home.network()?;
    let settings = Settings::of_home(&home, network.clone());
    let is_owners =
        settings.has_key() && settings.user()?.identity.public_key() == settings.network.volume_owner();
    if !is_owners {
        return Err(Failure::Group {
            reason: "only the home that made the network has groups".into(),
            advice: "say which that is with --home",
        });
    }
    if let GroupAction::List { .. } = options.action {
        return showing::list(&home, &settings);
    }
    process::run(|| {
        let client = Client::connect(&settings)?;
        let store = client.block_store();
        let user = Member::load(&home.user_key_file(), Role::User)?;
        let sharer = Sharer { home: &home, network: &network, store: &store, user: &user };
        let result = act(&sharer, &options.action);
        // Whoever brings this home back from its words knows of it, also of what is not done everywhere.
        keeping::once(&settings, client.overlay());
        client.leave();
        result
    })
}

fn act(sharer: &Sharer<'_>, action: &GroupAction) -> Result<(), Failure> {
    match action {
        GroupAction::Create { name, .. } => create(sharer, name),
        GroupAction::Add { name, who, .. } => change_members(sharer, name, who, true),
        GroupAction::Remove { name, who, .. } => change_members(sharer, name, who, false),
        GroupAction::Delete { name, .. } => delete(sharer, name),
        GroupAction::Restore { anew, .. } => restoring::restore(sharer, *anew),
        GroupAction::List { .. } => Ok(()),
    }
}

fn create(sharer: &Sharer<'_>, name: &str) -> Result<(), Failure> {
    let is_name = groups::is_name(name) && member_name::is_free_for_a_group(name);
    if !is_name {
        return Err(Failure::Group {
            reason: format!("{name:?} can't be a group's name: {}", GroupsError::Name),
            advice: "give another one; it passes for no node's and no key's",
        });
    }
    let turn = Turn::take(sharer.home)?;
    if is_a_members_name(name, sharer.home, sharer.network)? {
        return Err(Failure::Group {
            reason: format!("a member is called {name}"),
            advice: "give the group another name: people say names where they mean one of the two",
        });
    }
    change(sharer, &turn, |groups| groups.create(name).map_err(|error| refused(&error)))?;
    say(format_args!(
        "{name} is a group; `group add {name} WHO` puts somebody into it, and `share DIR --read {name}` shares a space with it"
    ));
    Ok(())
}

fn delete(sharer: &Sharer<'_>, name: &str) -> Result<(), Failure> {
    let turn = Turn::take(sharer.home)?;
    let before = learn(sharer)?;
    let id = called(&before, name)?;
    // What is noted may be of what came to nothing, and what names it may not be noted.
    let spaces = bringing::look(sharer, &turn, id)?;
    // What is noted after that another machine is about to share.
    let was_noted = |register: &RegisterAddress| {
        let mut noted = before.get(id).into_iter().flat_map(|group| &group.spaces);
        noted.any(|space| space.register == register.0)
    };
    change(sharer, &turn, |groups| {
        let id = called(groups, name)?;
        for space in &spaces {
            let register = space.register();
            match space.names(id) {
                Some(true) => {
                    groups.name(&register, space.path(), &[id].into()).map_err(|error| refused(&error))?
                }
                Some(false) if was_noted(&register) => groups.unname(&register, &[id].into()),
                _ => false,
            };
        }
        groups.delete(id).map_err(|error| Failure::Group {
            reason: error.to_string(),
            advice: "take it off them first (`unshare DIR --from GROUP`, `group remove GROUP GROUP`): so nobody loses by this what he has",
        })
    })?;
    say(format_args!("the group {name} is deleted; its members stay members"));
    Ok(())
}

/// The groups as they are now, or, where that can't be known, as this home knows them: for what has to be done all the same. A list that
/// has a newer state of one is not gone on from. `names` are what people said who may have meant groups.
///
/// # Errors
/// Those of the home's files; why they can't be known, if this home has heard of none and one of `names` may be a group's: a member who
/// is called so is not the one who is meant.
///
/// # Suspends
/// While they are read.
pub(crate) fn known<'a>(
    sharer: &Sharer<'_>,
    names: impl IntoIterator<Item = &'a String>,
) -> Result<Groups, Failure> {
    learn(sharer).or_else(|failure| {
        let mut roll = Roll::read(sharer.home)?;
        // Of one that was only found nothing is known.
        roll.groups = roll.groups.take().filter(|entry| entry.version > 0);
        let may_be_a_groups = |name: &String| !name.bytes().all(|byte| byte.is_ascii_hexdigit());
        match roll.groups {
            Some(_) => warn(format_args!("of the groups this home goes by what it knew last: {failure}")),
            None if names.into_iter().any(may_be_a_groups) => return Err(failure),
            None => warn(format_args!(
                "this home has heard of no groups, and whether there are any cannot be looked at: {failure}"
            )),
        }
        roll.groups_known()
    })
}

/// The id of the group with that name.
fn called(groups: &Groups, name: &str) -> Result<GroupId, Failure> {
    let group = groups.called(name.strip_prefix(PREFIX).unwrap_or(name)).ok_or_else(|| Failure::Group {
        reason: format!("there is no group called {name:?}"),
        advice: "`storage-node group list` shows them, and `group create NAME` makes one",
    })?;
    Ok(group.id)
}

/// Whom `who` names, with what he is called: a group, or a member who may come into one.
///
/// # Errors
/// `Failure::NoMember`.
fn whom(
    who: &str,
    groups: &Groups,
    home: &Home,
    network: &Network,
    is_coming: bool,
) -> Result<(InGroup, String), Failure> {
    let none = |reason: &str| Failure::NoMember { who: who.into(), reason: reason.into() };
    if let Some(id) = named(who, groups, home, network)? {
        return Ok((InGroup::Group(id), format!("the group {who}")));
    }
    let roll = Roll::read(home)?;
    let member = match look_up(who, &roll, home, network)? {
        Some(Subject::Member(member)) if member.role != InvitedAs::Node => Some(Person::from(&member)),
        Some(_) => return Err(none("in a group are members who read or write the drive, and groups")),
        None => None,
    };
    // Whom another copy of the home let in this one's roll does not have, and the groups may.
    let revoked = home.revocations(network)?;
    let person = match one_of(member, in_groups(who, groups), |key| revoked.contains(key)) {
        Ok(Some(person)) => person,
        Ok(None) => return resolve(who, &roll, home, network).and(Err(none("nobody has that name"))),
        Err(Several) => {
            return Err(none(
                "several are called so: give more of the digits that `members` and `group list` show",
            ));
        }
    };
    if is_coming && revoked.contains(&person.key) {
        return Err(none("it was removed"));
    }
    let known_as = person.name.clone();
    Ok((InGroup::Person(person), known_as))
}

/// Those of whoever is in any group whom `who` names: his name there, or the first digits of his id or key.
fn in_groups(who: &str, groups: &Groups) -> Vec<Person> {
    let digits = who.to_ascii_lowercase();
    let is_it = |person: &&Person| {
        let is_named = NodeId::of(&person.key).to_string().starts_with(&digits)
            || Hex(*person.key.as_bytes()).to_string().starts_with(&digits);
        person.name == who || digits.len() >= NAMING_DIGITS_MIN && is_named
    };
    groups.people().iter().filter(is_it).cloned().collect()
}

/// More than one is meant.
#[derive(Debug, PartialEq, Eq)]
struct Several;

/// The one who is meant, of the member whom the roll has and those whom the groups have. Those who were removed are not meant, if
/// somebody else is.
fn one_of(
    member: Option<Person>,
    in_groups: Vec<Person>,
    is_revoked: impl Fn(&PublicKey) -> bool,
) -> Result<Option<Person>, Several> {
    let mut found: Vec<Person> = member.into_iter().collect();
    for person in in_groups {
        if found.iter().all(|known| known.key != person.key) {
            found.push(person);
        }
    }
    if found.iter().any(|person| !is_revoked(&person.key)) {
        found.retain(|person| !is_revoked(&person.key));
    }
    let last = found.pop();
    if found.is_empty() { Ok(last) } else { Err(Several) }
}

/// The id of the group that `who` names, where members can be named as well; `None` if it is no group's name.
///
/// # Errors
/// `Failure::NoMember` if it is a member's name, too; `Failure::Group` if it says that it is a group's, and no group has it.
pub(crate) fn named(
    who: &str,
    groups: &Groups,
    home: &Home,
    network: &Network,
) -> Result<Option<GroupId>, Failure> {
    if who.starts_with(PREFIX) {
        // Never a member, whatever he calls himself.
        return called(groups, who).map(Some);
    }
    let Some(group) = groups.called(who) else { return Ok(None) };
    // Another copy of the home, which had not heard of the group, may have let him in.
    match is_a_members_name(who, home, network)? {
        false => Ok(Some(group.id)),
        true => Err(Failure::NoMember {
            who: who.into(),
            reason: format!(
                "a group and a member are called so: say {PREFIX}{who}, or give the first digits of the member's id"
            ),
        }),
    }
}

/// Whether a member has that name who was not removed.
fn is_a_members_name(name: &str, home: &Home, network: &Network) -> Result<bool, Failure> {
    let revoked = home.revocations(network)?;
    let has = |member: &LetIn| member.name == name && !revoked.contains(&member.public_key());
    Ok(Roll::read(home)?.members.iter().any(has))
}

fn change_members(sharer: &Sharer<'_>, name: &str, who: &[String], is_coming: bool) -> Result<(), Failure> {
    let turn = Turn::take(sharer.home)?;
    let roll = Roll::read(sharer.home)?;
    let act = |groups: &mut Groups| {
        let id = called(groups, name)?;
        let mut changed: Vec<Changed> = Vec::new();
        for who in who {
            let (member, known_as) = whom(who, groups, sharer.home, sharer.network, is_coming)?;
            let people = match &member {
                InGroup::Person(person) => [person.key].into(),
                InGroup::Group(id) => groups.people_of(*id),
            };
            let is_news = match is_coming {
                true => groups.add(id, &member),
                false => groups.remove(id, &member),
            };
            changed.push(Changed { known_as, people, is_news: is_news.map_err(|error| refused(&error))? });
        }
        if is_coming {
            refuse_a_crowd(&roll, groups, &bringing::reached(&roll, groups, id))?;
        }
        Ok((id, changed))
    };
    let ((id, changed), groups) =
        if is_coming { change(sharer, &turn, act)? } else { take_out(sharer, &turn, act)? };
    // Also what the groups do not have noted, and lists say.
    let unread: Vec<String> = {
        let spaces = bringing::look(sharer, &turn, id)?;
        spaces.iter().filter(|space| space.names(id).is_none()).map(bringing::Looked::shown).collect()
    };
    let reached = bringing::reached(&Roll::read(sharer.home)?, &groups, id);
    drop(turn);
    for Changed { known_as: who, is_news, people } in &changed {
        match (is_coming, is_news) {
            (true, true) => say(format_args!("{who} is in {name}")),
            (true, false) => say(format_args!("{who} was in {name} already")),
            // Not that he is off anything: of the spaces that is said below.
            (false, true) => say(format_args!("{who} is taken out of {name}")),
            (false, false) => say(format_args!("{who} is not in {name} by name")),
        }
        if !is_coming {
            tell_of_inner(&groups, id, name, who, people);
        }
    }
    bringing::bring(sharer, &reached)?;
    if !unread.is_empty() {
        warn(format_args!(
            "whether {name} is on these cannot be read now, and as far as this home knows it is not: {}",
            unread.join(", ")
        ));
    }
    match reached.len() {
        0 => say(format_args!("no space names {name} yet: `share DIR --read {name}` shares one with it")),
        1 => say(format_args!("the list of the one space that {name} is on says so")),
        count => say(format_args!("the lists of all {count} spaces that {name} is on say so")),
    }
    if !is_coming && !reached.is_empty() {
        say_who_is_off(&Roll::read(sharer.home)?, name, &changed, &reached);
    }
    Ok(())
}

/// Whoever was taken out may be in a group by one that is in it.
fn tell_of_inner(groups: &Groups, id: GroupId, name: &str, who: &str, people: &BTreeSet<PublicKey>) {
    let inner = groups.get(id).into_iter().flat_map(|group| &group.groups);
    let has = |inner: &&GroupId| !groups.people_of(**inner).is_disjoint(people);
    let inner: Vec<&str> =
        inner.filter(has).filter_map(|inner| Some(groups.get(*inner)?.name.as_str())).collect();
    if !inner.is_empty() {
        say(format_args!("{who} is in {name} still, by the group {}", inner.join(", by the group ")));
    }
}

/// Who was to come or go.
struct Changed {
    known_as: String,
    people: BTreeSet<PublicKey>,
    is_news: bool,
}

/// Whoever went may be on a list by his own name yet, or by another group, or in this one by one that is in it.
fn say_who_is_off(roll: &Roll, name: &str, changed: &[Changed], reached: &BTreeMap<[u8; 32], String>) {
    for Changed { known_as, people, .. } in changed {
        let is_on = |space: &&SpaceEntry| {
            let is_reached = space.genesis().is_ok_and(|genesis| reached.contains_key(&genesis.register().0));
            let mut on_it = space.listed.people.iter();
            is_reached && on_it.any(|allowed| people.contains(&PublicKey::from_bytes(allowed.key.0)))
        };
        let still: Vec<String> =
            roll.spaces.iter().filter(is_on).map(|space| printable_path(&space.path)).collect();
        if still.is_empty() {
            say(format_args!(
                "removed from {name}: {known_as}, who reads nothing that is written to what {name} is on from now on; what could be read \
                 before may have been kept"
            ));
        } else {
            say(format_args!(
                "{known_as} is on these still, by another name or group (`access DIR` says which): {}",
                still.join(", ")
            ));
        }
    }
}

/// Nobody is to be in a group whom a space has no room for.
fn refuse_a_crowd(roll: &Roll, groups: &Groups, reached: &BTreeMap<[u8; 32], String>) -> Result<(), Failure> {
    for space in &roll.spaces {
        let Ok(genesis) = space.genesis() else { continue };
        if !reached.contains_key(&genesis.register().0) {
            continue;
        }
        let guests = Guests { people: space.people.clone(), groups: space.groups.clone() };
        if Expanded::of(&guests, groups).count() >= PEOPLE_MAX {
            return Err(Failure::Group {
                reason: format!(
                    "the space {} would have more than {} people on its list",
                    printable_path(&space.path),
                    PEOPLE_MAX - 1
                ),
                advice: "take some off it first (`unshare DIR --from WHO`)",
            });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use reactor::crypto::Identity;

    use super::*;

    #[test]
    fn several_who_are_called_so_are_several_whoever_of_them_is_in_a_group() {
        let person = |number: u8| {
            let key = Identity::from_seed(&[number; 32]).public_key();
            Person { key, sealing_key: [number; 32], may_write: true, name: "bob".into() }
        };
        let one_of = |member: Option<u8>, others: &[u8], revoked: u8| {
            let others = others.iter().map(|number| person(*number)).collect();
            one_of(member.map(person), others, |key| *key == person(revoked).key)
        };
        assert_eq!((one_of(None, &[], 0), one_of(Some(1), &[], 0)), (Ok(None), Ok(Some(person(1)))));
        assert_eq!(
            (one_of(None, &[2], 0), one_of(Some(1), &[1], 0)),
            (Ok(Some(person(2))), Ok(Some(person(1))))
        );
        assert_eq!((one_of(Some(1), &[2], 0), one_of(None, &[2, 3], 0)), (Err(Several), Err(Several)));
        assert_eq!(
            (one_of(Some(1), &[2], 2), one_of(Some(1), &[], 1)),
            (Ok(Some(person(1))), Ok(Some(person(1))))
        );
    }
}
