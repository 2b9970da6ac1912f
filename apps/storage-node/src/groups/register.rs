//! The register of the groups: found, read and written.
//!
//! The roll says which it is, and the drive's root does for a home that has not heard of it, such as a copy from before there was a
//! group. It holds no less than the newest state that this home has seen, or nothing is gone by. A home that has seen what is in another
//! one than the drive's root names, which a writer of the drive and an old copy of the home can bring about, is told, changes nothing, and
//! can put the two together (`restoring`).

use std::time::Duration;

use dht::block::mutable::{Genesis, Signed};
use dht::{BlockStore, HeaderHash, Record, RegisterAddress, SwapError};
use filesystem::access::groups::{self, GroupId, Groups, GroupsError};
use overlay::Revocations;
use reactor::crypto::PublicKey;

use crate::client_directory;
use crate::errors::Failure;
use crate::output::warn;
use crate::roll::{GroupsEntry, Roll};
use crate::sharing::Sharer;
use crate::space_lists::Turn;
use crate::spaces;

/// How often another machine may be faster with what nobody has to be told of.
const TRIES: usize = 8;

pub(super) fn failed(reason: impl Into<String>) -> Failure {
    Failure::Group { reason: reason.into(), advice: "see that the nodes run (`status`), and say it again" }
}

pub(super) fn refused(error: &GroupsError) -> Failure {
    Failure::Group { reason: error.to_string(), advice: "`storage-node group list` shows them" }
}

fn are_two() -> Failure {
    Failure::Group {
        reason: "the drive's root names other groups than those that this home knows: another copy of the home made them when it had not \
                 heard of these, or somebody who may write to the drive put an older name there; nothing was changed"
            .into(),
        advice: "`group list` shows what this home knows, and `group restore` puts the two together",
    }
}

fn are_two_still() -> &'static str {
    "the drive's root names other groups than those that this home knows, and who is taken out is out of these; until `group restore` puts \
     the two together nobody else is let in, and other copies of this home that go by the other ones say nothing in the lists of what these are on"
}

/// As it was found.
pub(super) struct Found {
    pub(super) register: RegisterAddress,
    /// What follows it names this.
    pub(super) before: Option<HeaderHash>,
    pub(super) groups: Groups,
}

/// The groups as they are now; the roll says them from then on.
///
/// # Errors
/// `Failure::Group` or `Failure::Sharing` if that can't be known, or those of the home's files.
///
/// # Suspends
/// While they are read.
pub(crate) fn learn(sharer: &Sharer<'_>) -> Result<Groups, Failure> {
    match find(sharer)? {
        None => Ok(Groups::default()),
        Some(genesis) => Ok(read(sharer, &genesis)?.groups),
    }
}

/// Which register it is, if there is one, as the roll says, or the drive's root.
///
/// # Errors
/// `Failure::Sharing` if the drive's root can't be read, or those of the home's files.
///
/// # Suspends
/// While it is read.
pub(crate) fn find(sharer: &Sharer<'_>) -> Result<Option<Signed<Genesis>>, Failure> {
    if let Some(entry) = entry(sharer)? {
        return entry.genesis().map(Some);
    }
    let named = sharer.groups_named()?;
    if let Some(genesis) = &named {
        Roll::change(sharer.home, |roll| {
            roll.finds_groups(genesis);
            Ok(())
        })?;
    }
    Ok(named)
}

pub(super) fn entry(sharer: &Sharer<'_>) -> Result<Option<GroupsEntry>, Failure> {
    let home = sharer.home.clone();
    Ok(reactor::offload(move || Roll::read(&home))?.groups)
}

/// As [`find`]; one that is new if there is none. The drive's root says which it is, before anything is in it.
fn find_or_make(sharer: &Sharer<'_>, may: May) -> Result<Place, Failure> {
    let known = match find(sharer)? {
        Some(known) => known,
        None => sharer.new_register(groups::new_salt(&sharer.network.volume_salt.0))?,
    };
    let has_content = entry(sharer)?.is_some_and(|entry| entry.version > 0);
    // Also where a writer of the drive took that away.
    let named = match sharer.name_groups(&known, None) {
        Ok(named) => named,
        // Nobody keeps the owner from taking somebody out of a group by sealing the drive's root.
        Err(failure) if has_content => {
            warn(format_args!(
                "whether the drive's root says where the groups are is not known, which other copies of this home may go by: {failure}"
            ));
            known.clone()
        }
        Err(failure) => return Err(failure),
    };
    if has_content && named.register() != known.register() {
        // Any writer of the drive can put an older name back, who may be the one that is to go.
        return match may {
            May::LetIn => Err(are_two()),
            May::TakeOut => {
                warn(format_args!("{}", are_two_still()));
                Ok(Place { genesis: known, is_of_two: true })
            }
        };
    }
    let genesis = Roll::change(sharer.home, |roll| {
        roll.finds_groups(&named);
        roll.groups.as_ref().map_or(Ok(named.clone()), GroupsEntry::genesis)
    })?;
    Ok(Place { genesis, is_of_two: false })
}

/// What a change does, at most.
#[derive(Clone, Copy)]
enum May {
    LetIn,
    /// Nobody comes in by it: it is made also where the drive's root names other groups.
    TakeOut,
}

/// Where they are changed.
struct Place {
    genesis: Signed<Genesis>,
    /// The drive's root names another one.
    is_of_two: bool,
}

/// That the drive's root names no other groups than those that this home knows; if it names none, has it name these.
///
/// # Errors
/// `Failure::Group` if it does, `Failure::Sharing` if that can't be known, or those of the home's files.
///
/// # Suspends
/// Until it is known.
pub(crate) fn agree(sharer: &Sharer<'_>) -> Result<(), Failure> {
    let Some(entry) = entry(sharer)?.filter(|entry| entry.version > 0) else { return Ok(()) };
    let known = entry.genesis()?;
    let named = sharer.name_groups(&known, None)?;
    if named.register() == known.register() { Ok(()) } else { Err(are_two()) }
}

/// What is in that register, and no older than what this home has seen there.
pub(super) fn read(sharer: &Sharer<'_>, genesis: &Signed<Genesis>) -> Result<Found, Failure> {
    let seen = client_directory::first(sharer.home.path());
    let membership = spaces::membership(genesis, Some(&seen))?;
    let register = sharer.store.open_register(membership).map_err(|error| failed(error.to_string()))?;
    let bytes = genesis.to_bytes();
    let known = entry(sharer)?.filter(|entry| entry.genesis.0 == bytes).and_then(|entry| entry.seen());
    if let Some((version, header_hash)) = known {
        let expecting = sharer.store.expect_at_least(&register, version, header_hash);
        expecting.map_err(|error| failed(error.to_string()))?;
    }
    let cannot = |reason: &str| Failure::Group {
        reason: format!("who is in which group cannot be read: {reason}"),
        advice: "see that the nodes run (`status`), and say it again; if those that had it are lost, `group restore --anew` makes the groups \
                 anew of what this home knows",
    };
    let record = sharer.store.read(&register).map_err(|error| cannot(&error.to_string()))?;
    let Some(record) = record else {
        return match known {
            None => Ok(Found { register, before: None, groups: Groups::default() }),
            Some(_) => Err(cannot("the nodes have nothing of it any more, and had something before")),
        };
    };
    let groups = opened(sharer, &record)?;
    saw(sharer, genesis, &record, &groups)?;
    Ok(Found { register, before: Some(record.header_hash), groups })
}

fn opened(sharer: &Sharer<'_>, record: &Record) -> Result<Groups, Failure> {
    let is_owners = record.writer == sharer.network.volume_owner();
    let groups = Groups::open(&record.payload, &sharer.user.identity.sealing_key()).filter(|_| is_owners);
    groups.ok_or_else(|| Failure::Group {
        reason: "who is in which group cannot be read: it is not what this version writes".into(),
        advice: "use the newer storage-node that wrote it",
    })
}

/// Has the roll say it, and who keeps it; unless that has another register.
fn saw(
    sharer: &Sharer<'_>,
    genesis: &Signed<Genesis>,
    record: &Record,
    groups: &Groups,
) -> Result<(), Failure> {
    let membership =
        sharer.store.membership(&genesis.register()).map_err(|error| failed(error.to_string()))?;
    let bytes = genesis.to_bytes();
    Roll::change(sharer.home, |roll| {
        if roll.groups.as_ref().is_some_and(|entry| entry.genesis.0 == bytes) {
            roll.saw_groups(record, groups);
            membership.configuration.iter().for_each(|newest| roll.describe(newest));
        }
        Ok(())
    })
}

/// Has the roll go by this register from now on, as it is now.
pub(super) fn take_over(
    sharer: &Sharer<'_>,
    genesis: &Signed<Genesis>,
    record: &Record,
    groups: &Groups,
) -> Result<(), Failure> {
    Roll::change(sharer.home, |roll| {
        roll.groups = Some(GroupsEntry::new(genesis));
        Ok(())
    })?;
    saw(sharer, genesis, record, groups)
}

/// Changes the groups, unless another machine of the owner's changes them meanwhile: then that is told, for what was meant may not be
/// meant any more. Returns what `change` does, and the groups as they are then.
///
/// # Errors
/// That of `change`; `Failure::Group`, `Failure::Sharing`, or those of the home's files.
///
/// # Suspends
/// Until the nodes have it.
pub(super) fn change<T>(
    sharer: &Sharer<'_>,
    turn: &Turn,
    change: impl FnOnce(&mut Groups) -> Result<T, Failure>,
) -> Result<(T, Groups), Failure> {
    change_once(sharer, turn, May::LetIn, change)
}

/// As [`change`], of who is to be in no group any more.
pub(super) fn take_out<T>(
    sharer: &Sharer<'_>,
    turn: &Turn,
    change: impl FnOnce(&mut Groups) -> Result<T, Failure>,
) -> Result<(T, Groups), Failure> {
    change_once(sharer, turn, May::TakeOut, change)
}

fn change_once<T>(
    sharer: &Sharer<'_>,
    turn: &Turn,
    may: May,
    change: impl FnOnce(&mut Groups) -> Result<T, Failure>,
) -> Result<(T, Groups), Failure> {
    let mut change = Some(change);
    let once = &mut |groups: &mut Groups| {
        let change = change.take().ok_or_else(|| Failure::Group {
            reason: "another machine of yours has just changed the groups, and nothing of this was done"
                .into(),
            advice: "look at `storage-node group list`, and say it again",
        })?;
        change(groups)
    };
    try_change(sharer, turn, may, once)
}

/// As [`change`], of what is so whatever another machine has changed meanwhile.
fn change_anyway<T>(
    sharer: &Sharer<'_>,
    turn: &Turn,
    may: May,
    change: &mut dyn FnMut(&mut Groups) -> Result<T, Failure>,
) -> Result<(T, Groups), Failure> {
    let mut tries = 0..TRIES;
    let bounded = &mut |groups: &mut Groups| match tries.next() {
        Some(_) => change(groups),
        None => Err(failed("other machines of yours were faster each time")),
    };
    try_change(sharer, turn, may, bounded)
}

fn try_change<T>(
    sharer: &Sharer<'_>,
    _: &Turn,
    may: May,
    change: &mut dyn FnMut(&mut Groups) -> Result<T, Failure>,
) -> Result<(T, Groups), Failure> {
    let Place { genesis, is_of_two } = find_or_make(sharer, may)?;
    let mut found = read(sharer, &genesis)?;
    loop {
        let mut groups = found.groups.clone();
        let result = change(&mut groups)?;
        if groups == found.groups {
            return Ok((result, groups));
        }
        if is_of_two {
            groups.rise_far(&found.groups);
        }
        match swap(sharer, &found, &groups)? {
            Some(record) => {
                saw(sharer, &genesis, &record, &groups)?;
                return Ok((result, groups));
            }
            None => found = read(sharer, &genesis)?,
        }
    }
}

/// Has them follow what was found; `None` if something else does.
pub(super) fn swap(sharer: &Sharer<'_>, found: &Found, groups: &Groups) -> Result<Option<Record>, Failure> {
    let payload = groups.seal(&sharer.user.identity.sealing_key().public());
    match sharer.store.compare_and_swap(&found.register, found.before, payload.clone()) {
        Ok(record) => Ok(Some(record)),
        // Its answer was lost, and it was not.
        Err(SwapError::Lost(Some(record))) if record.payload == payload => Ok(Some(record)),
        Err(SwapError::Lost(_)) => Ok(None),
        Err(error) => Err(failed(format!("the groups are not known to be changed: {error}"))),
    }
}

/// Has groups be noted to be named by a space, beside those that are. Returns them all as they are then.
///
/// # Errors
/// As [`change`].
///
/// # Suspends
/// As there.
pub(crate) fn note(
    sharer: &Sharer<'_>,
    turn: &Turn,
    genesis: &Signed<Genesis>,
    path: &str,
    ids: &[GroupId],
) -> Result<Groups, Failure> {
    let (register, ids) = (genesis.register(), ids.iter().copied().collect());
    let mut name =
        |groups: &mut Groups| groups.name(&register, path, &ids).map(drop).map_err(|error| refused(&error));
    change_anyway(sharer, turn, May::LetIn, &mut name).map(|((), groups)| groups)
}

/// Has groups be noted to be named by a space no more: this home has just taken them off its list.
///
/// # Errors
/// As [`change`].
///
/// # Suspends
/// As there.
pub(crate) fn unnote(
    sharer: &Sharer<'_>,
    turn: &Turn,
    genesis: &Signed<Genesis>,
    ids: &[GroupId],
) -> Result<(), Failure> {
    let (register, ids) = (genesis.register(), ids.iter().copied().collect());
    let mut unname = |groups: &mut Groups| {
        groups.unname(&register, &ids);
        Ok(())
    };
    change_anyway(sharer, turn, May::LetIn, &mut unname).map(drop)
}

/// Has each group be noted to be named by those spaces of this home whose lists name it, or are to. None is noted to name it no more: what
/// this home knows of a space may be older than what another machine has just had its list say. Whoever takes a group off does that, and
/// whoever deletes one looks.
///
/// # Errors
/// `Failure::Locked` if another process of this home is at it for longer than `patience`, or as [`change`].
///
/// # Suspends
/// As there.
pub(crate) fn note_spaces(sharer: &Sharer<'_>, patience: Duration) -> Result<(), Failure> {
    let home = sharer.home.clone();
    let roll = reactor::offload(move || Roll::read(&home))?;
    let mut known = roll.groups_known()?;
    let (is_news, failure) = noting(&roll, &mut known);
    if !is_news {
        return failure.map_or(Ok(()), Err);
    }
    let turn = Turn::by(sharer.home, reactor::now() + patience)?;
    // By what the roll says now, since other processes had their turns.
    let home = sharer.home.clone();
    let roll = reactor::offload(move || Roll::read(&home))?;
    let mut name = |groups: &mut Groups| Ok(noting(&roll, groups).1);
    let (failure, _) = change_anyway(sharer, &turn, May::LetIn, &mut name)?;
    failure.map_or(Ok(()), Err)
}

/// Has the groups say what names them; whether that is news, and why one can't say it, which holds up no other.
fn noting(roll: &Roll, groups: &mut Groups) -> (bool, Option<Failure>) {
    let (mut is_news, mut failure) = (false, None);
    for space in roll.spaces.iter().filter(|space| !space.is_given_up) {
        // One that is damaged names whom it names.
        let Ok(genesis) = space.genesis() else { continue };
        let there = space.names().into_iter().filter(|id| groups.get(*id).is_some()).collect();
        match groups.name(&genesis.register(), &space.path, &there) {
            Ok(named) => is_news |= named,
            Err(error) => failure = failure.or(Some(refused(&error))),
        }
    }
    (is_news, failure)
}

/// Takes whoever is revoked out of all groups.
///
/// # Errors
/// As [`note_spaces`].
///
/// # Suspends
/// As there.
pub(crate) fn forget(sharer: &Sharer<'_>, revoked: &Revocations, patience: Duration) -> Result<(), Failure> {
    let kept = {
        let (home, network) = (sharer.home.clone(), sharer.network.clone());
        reactor::offload(move || home.revocations(&network))?
    };
    let is_gone = |key: &PublicKey| kept.contains(key) || revoked.contains(key);
    let known = learn(sharer)?;
    if !known.clone().forget(is_gone) {
        return Ok(());
    }
    let turn = Turn::by(sharer.home, reactor::now() + patience)?;
    let mut forget = |groups: &mut Groups| {
        groups.forget(is_gone);
        Ok(())
    };
    change_anyway(sharer, &turn, May::TakeOut, &mut forget).map(drop)
}

/// Takes over what another machine of the owner's has changed, takes whoever is revoked out of them, and has the drive's root say where
/// they are.
///
/// # Errors
/// As [`forget`], or that the drive's root names others.
///
/// # Suspends
/// As there.
pub(crate) fn look(sharer: &Sharer<'_>, patience: Duration) -> Result<(), Failure> {
    forget(sharer, &Revocations::default(), patience)?;
    agree(sharer)
}

#[cfg(test)]
mod tests {
    use overlay::NodeId;
    use reactor::crypto::Identity;

    use super::*;
    use crate::roll::AllowedGroup;

    #[test]
    fn what_is_noted_to_name_a_group_is_all_that_may_and_what_one_home_does_not_know_of_it_keeps() {
        let owner = Identity::from_seed(&[1; 32]);
        let genesis = |salt| Genesis::sign(&owner, [salt; 32], vec![NodeId([1; 32])], Vec::new());
        let mut groups = Groups::default();
        let [family, club] = ["family", "club"].map(|name| groups.create(name).unwrap());
        let mut roll = Roll::default();
        let with = |roll: &mut Roll, salt: u8, ids: &[GroupId]| {
            let entry = roll.space_or_new(&genesis(salt), &format!("space {salt}"));
            entry.groups = ids.iter().map(|id| AllowedGroup { id: *id, may_write: false }).collect();
        };
        // One that is not there holds up no other.
        with(&mut roll, 5, &[GroupId(family.0 ^ club.0 ^ 1), family]);
        with(&mut roll, 6, &[]);
        roll.space_or_new(&genesis(6), "").listed.groups = vec![(club, 1)];
        with(&mut roll, 7, &[]);
        roll.space_or_new(&genesis(7), "").leaving_groups = vec![family];
        let names = |groups: &Groups, id| -> Vec<u8> {
            let reached = groups.reached_by(id);
            (5..9).filter(|salt| reached.contains_key(&genesis(*salt).register().0)).collect()
        };
        assert!(matches!(noting(&roll, &mut groups), (true, None)));
        assert_eq!((names(&groups, family), names(&groups, club)), (vec![5, 7], vec![6]));
        assert!(matches!(noting(&roll, &mut groups), (false, None)), "it is so already");
        // Another machine notes a space before its list names the group, and brings one back that this home has for given up.
        with(&mut roll, 5, &[]);
        roll.spaces[1].is_given_up = true;
        groups.name(&genesis(8).register(), "another's", &[family].into()).unwrap();
        assert!(matches!(noting(&roll, &mut groups), (false, None)));
        assert_eq!((names(&groups, family), names(&groups, club)), (vec![5, 7, 8], vec![6]));
    }
}
