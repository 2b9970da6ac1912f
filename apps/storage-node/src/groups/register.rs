//! The register of the groups: found, read and written.
//!
//! The roll says which it is, and the drive's root does for a home that has not heard of it, such as a copy from before there was a
//! group. It holds no less than the newest state that this home has seen, or nothing is gone by.

use std::collections::BTreeSet;
use std::time::Duration;

use dht::block::mutable::{Genesis, Signed};
use dht::{BlockStore, HeaderHash, Record, RegisterAddress, SwapError};
use filesystem::access::groups::{self, Groups, GroupsError};
use overlay::Revocations;

use crate::client_directory;
use crate::errors::Failure;
use crate::roll::Roll;
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

/// As it was found.
struct Found {
    register: RegisterAddress,
    /// What follows it names this.
    before: Option<HeaderHash>,
    groups: Groups,
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

/// Which register it is, if there is one.
fn find(sharer: &Sharer<'_>) -> Result<Option<Signed<Genesis>>, Failure> {
    let home = sharer.home.clone();
    if let Some(entry) = reactor::offload(move || Roll::read(&home))?.groups {
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

/// As [`find`]; one that is new if there is none. The drive's root says which it is, before anything is in it.
fn find_or_make(sharer: &Sharer<'_>) -> Result<Signed<Genesis>, Failure> {
    let known = match find(sharer)? {
        Some(known) => known,
        None => {
            let salt = groups::salt(&sharer.network.volume_salt.0);
            let made = sharer.store.create_register(salt, Vec::new());
            made.map_err(|error| Failure::NoNode { reason: error.to_string() })?
        }
    };
    // Also where a writer of the drive, or a state of it that was gone back to, took that away.
    let named = sharer.name_groups(&known)?;
    Roll::change(sharer.home, |roll| {
        roll.finds_groups(&named);
        roll.groups.as_ref().map_or(Ok(named.clone()), |entry| entry.genesis())
    })
}

fn read(sharer: &Sharer<'_>, genesis: &Signed<Genesis>) -> Result<Found, Failure> {
    let seen = client_directory::first(sharer.home.path());
    let membership = spaces::membership(genesis, Some(&seen))?;
    let register = sharer.store.open_register(membership).map_err(|error| failed(error.to_string()))?;
    let home = sharer.home.clone();
    let known = reactor::offload(move || Roll::read(&home))?.groups.and_then(|entry| entry.seen());
    if let Some((version, header_hash)) = known {
        let expecting = sharer.store.expect_at_least(&register, version, header_hash);
        expecting.map_err(|error| failed(error.to_string()))?;
    }
    let cannot = |reason: &str| failed(format!("who is in which group cannot be read: {reason}"));
    let record = sharer.store.read(&register).map_err(|error| cannot(&error.to_string()))?;
    let Some(record) = record else {
        return match known {
            None => Ok(Found { register, before: None, groups: Groups::default() }),
            Some(_) => Err(cannot("the nodes have nothing of it any more, and had something before")),
        };
    };
    let groups = opened(sharer, &record)?;
    saw(sharer, &register, &record, &groups)?;
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

/// Has the roll say it, and who keeps it.
fn saw(
    sharer: &Sharer<'_>,
    register: &RegisterAddress,
    record: &Record,
    groups: &Groups,
) -> Result<(), Failure> {
    let membership = sharer.store.membership(register).map_err(|error| failed(error.to_string()))?;
    Roll::change(sharer.home, |roll| {
        roll.saw_groups(record, groups);
        membership.configuration.iter().for_each(|newest| roll.describe(newest));
        Ok(())
    })
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
    let mut change = Some(change);
    let once = &mut |groups: &mut Groups| {
        let change = change.take().ok_or_else(|| Failure::Group {
            reason: "another machine of yours has just changed the groups, and nothing of this was done"
                .into(),
            advice: "look at `storage-node group list`, and say it again",
        })?;
        change(groups)
    };
    try_change(sharer, turn, once)
}

/// As [`change`], of what is so whatever another machine has changed meanwhile.
fn change_anyway<T>(
    sharer: &Sharer<'_>,
    turn: &Turn,
    change: &mut dyn FnMut(&mut Groups) -> Result<T, Failure>,
) -> Result<(T, Groups), Failure> {
    let mut tries = 0..TRIES;
    let bounded = &mut |groups: &mut Groups| match tries.next() {
        Some(_) => change(groups),
        None => Err(failed("other machines of yours were faster each time")),
    };
    try_change(sharer, turn, bounded)
}

fn try_change<T>(
    sharer: &Sharer<'_>,
    _: &Turn,
    change: &mut dyn FnMut(&mut Groups) -> Result<T, Failure>,
) -> Result<(T, Groups), Failure> {
    let genesis = find_or_make(sharer)?;
    let mut found = read(sharer, &genesis)?;
    loop {
        let mut groups = found.groups.clone();
        let result = change(&mut groups)?;
        if groups == found.groups {
            return Ok((result, groups));
        }
        let payload = groups.seal(&sharer.user.identity.sealing_key().public());
        match sharer.store.compare_and_swap(&found.register, found.before, payload.clone()) {
            Ok(record) => {
                saw(sharer, &found.register, &record, &groups)?;
                return Ok((result, groups));
            }
            // Its answer was lost, and it was not.
            Err(SwapError::Lost(Some(record))) if record.payload == payload => {
                saw(sharer, &found.register, &record, &groups)?;
                return Ok((result, groups));
            }
            Err(SwapError::Lost(_)) => found = read(sharer, &genesis)?,
            Err(error) => return Err(failed(format!("the groups are not known to be changed: {error}"))),
        }
    }
}

/// Has groups be named by a space, beside those that are. Returns them all as they are then.
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
    ids: &[u32],
) -> Result<Groups, Failure> {
    let register = genesis.register();
    let mut name = |groups: &mut Groups| {
        let ids = noted(groups, &register).into_iter().chain(ids.iter().copied()).collect();
        groups.named_by(&register, path, &ids).map_err(|error| refused(&error))
    };
    change_anyway(sharer, turn, &mut name).map(|(_, groups)| groups)
}

/// Has exactly those groups be named by each space of this home that are on its list, as far as it is known that this is the newest one.
/// What was given up names none.
///
/// # Errors
/// `Failure::Locked` if another process of this home is at it for longer than `patience`, or as [`change`].
///
/// # Suspends
/// As there.
pub(crate) fn note_spaces(
    sharer: &Sharer<'_>,
    patience: Duration,
    is_newest: &dyn Fn(&RegisterAddress) -> bool,
) -> Result<(), Failure> {
    let home = sharer.home.clone();
    let roll = reactor::offload(move || Roll::read(&home))?;
    if noting(&roll, roll.groups_known()?, is_newest)?.is_none() {
        return Ok(());
    }
    let turn = Turn::by(sharer.home, reactor::now() + patience)?;
    // By what the roll says now, since other processes had their turns.
    let home = sharer.home.clone();
    let roll = reactor::offload(move || Roll::read(&home))?;
    let mut name = |groups: &mut Groups| {
        if let Some(changed) = noting(&roll, groups.clone(), is_newest)? {
            *groups = changed;
        }
        Ok(())
    };
    change_anyway(sharer, &turn, &mut name).map(drop)
}

/// What they are to say of which space names whom, if that is news.
fn noting(
    roll: &Roll,
    mut groups: Groups,
    is_newest: &dyn Fn(&RegisterAddress) -> bool,
) -> Result<Option<Groups>, Failure> {
    let mut is_news = false;
    for space in &roll.spaces {
        // One that is damaged names whom it names.
        let Ok(genesis) = space.genesis() else { continue };
        let register = genesis.register();
        if !space.is_given_up && !is_newest(&register) {
            continue;
        }
        let named = space.groups.iter().map(|allowed| allowed.id).chain(space.leaving_groups.iter().copied());
        let listed = space.listed.groups.iter().map(|(id, _)| *id);
        let ids: BTreeSet<u32> = named.chain(listed).filter(|_| !space.is_given_up).collect();
        is_news |= groups.named_by(&register, &space.path, &ids).map_err(|error| refused(&error))?;
    }
    Ok(is_news.then_some(groups))
}

/// The groups that a space is noted to name.
pub(super) fn noted(groups: &Groups, register: &RegisterAddress) -> BTreeSet<u32> {
    let names = |space: &groups::Named| space.register == register.0;
    groups.all().iter().filter(|group| group.spaces.iter().any(names)).map(|group| group.id).collect()
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
    let is_gone = |key: &_| kept.contains(key) || revoked.contains(key);
    let known = learn(sharer)?;
    if !known.clone().forget(is_gone) {
        return Ok(());
    }
    let turn = Turn::by(sharer.home, reactor::now() + patience)?;
    let mut forget = |groups: &mut Groups| {
        groups.forget(is_gone);
        Ok(())
    };
    change_anyway(sharer, &turn, &mut forget).map(drop)
}

/// Takes over what another machine of the owner's has changed, and takes whoever is revoked out of them.
///
/// # Errors
/// As [`forget`].
///
/// # Suspends
/// As there.
pub(crate) fn look(sharer: &Sharer<'_>, patience: Duration) -> Result<(), Failure> {
    forget(sharer, &Revocations::default(), patience)
}

#[cfg(test)]
mod tests {
    use overlay::NodeId;
    use reactor::crypto::Identity;

    use super::*;
    use crate::roll::AllowedGroup;

    #[test]
    fn what_names_a_group_is_what_is_on_the_newest_list_or_is_to_be_and_nothing_that_was_given_up() {
        let owner = Identity::from_seed(&[1; 32]);
        let genesis = |salt| Genesis::sign(&owner, [salt; 32], vec![NodeId([1; 32])], Vec::new());
        let mut groups = Groups::default();
        let [family, club] = ["family", "club"].map(|name| groups.create(name).unwrap());
        let mut roll = Roll::default();
        let with = |roll: &mut Roll, salt: u8, ids: &[u32]| {
            let entry = roll.space_or_new(&genesis(salt), &format!("space {salt}"));
            entry.groups = ids.iter().map(|id| AllowedGroup { id: *id, may_write: false }).collect();
        };
        with(&mut roll, 5, &[family]);
        with(&mut roll, 6, &[]);
        roll.space_or_new(&genesis(6), "").listed.groups = vec![(club, 1)];
        with(&mut roll, 7, &[]);
        roll.space_or_new(&genesis(7), "").leaving_groups = vec![family];
        let all = |_: &RegisterAddress| true;
        let noted_in = |groups: &Groups, salt| noted(groups, &genesis(salt).register());
        let groups = noting(&roll, groups, &all).unwrap().unwrap();
        assert_eq!(
            [5, 6, 7].map(|salt| noted_in(&groups, salt)),
            [[family].into(), [club].into(), [family].into()]
        );
        assert_eq!(noting(&roll, groups.clone(), &all).unwrap(), None, "it is so already");
        // It is off the list; but of a space whose newest list is not known nothing is concluded.
        with(&mut roll, 5, &[]);
        assert_eq!(noting(&roll, groups.clone(), &|_| false).unwrap(), None);
        let later = noting(&roll, groups.clone(), &all).unwrap().unwrap();
        assert_eq!((noted_in(&later, 5), noted_in(&later, 6)), (BTreeSet::new(), [club].into()));
        roll.spaces[1].is_given_up = true;
        let later = noting(&roll, groups, &|_| false).unwrap().unwrap();
        assert_eq!((noted_in(&later, 5), noted_in(&later, 6)), ([family].into(), BTreeSet::new()));
    }
}
